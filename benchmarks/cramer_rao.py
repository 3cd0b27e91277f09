#!/usr/bin/env python3
# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""How near errors of the network's one pass and of refinement come to what noise allows, by signal to noise.

Run as ``python benchmarks/cramer_rao.py [--scenes N] [--known-centres]``: blends of the survey
``arcelin2020`` of test galaxies, COSMOS's where its catalogue is at hand, deblended from the true centres
of all galaxies.  Ratios are half-widths of errors in units of each scene's own bound, that of all
parameters of all galaxies or of all but their centres.  "isolated" is KSB and the sum of the pixels of the
noisy target alone, which know nothing of galaxies.  Times are processor time of this process.
"""

import argparse
import time

import numpy as np

from lsst.meas.extensions.vae.deblending import DeblendSettings, deblend_blend
from lsst.meas.extensions.vae.evaluation.coverage import target_first
from lsst.meas.extensions.vae.evaluation.cramer_rao import add_bounds, stamp_bounds
from lsst.meas.extensions.vae.evaluation.stamps import isolated, measure_stamps
from lsst.meas.extensions.vae.galaxies import load_galaxies
from lsst.meas.extensions.vae.network.model import Network
from lsst.meas.extensions.vae.network.shipped import load_package
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.simulation.statistics import half_width, median
from lsst.meas.extensions.vae.survey import get_survey

EDGES = (0, 30, 50, 100, 300, 1000, np.inf)
HEADER = (
    f"{'SNR':<14}{'n':>5}  {'e1, e2: bound':>13} {'width':>7} {'ratio':>12} {'median':>7}  "
    f"{'|e|: bound':>10} {'width':>7} {'ratio':>12}  {'r: bound':>8} {'width':>7} {'ratio':>12} {'median':>7}"
)


def blend_method(network, settings):
    """`deblend_blend` from the true centres of all galaxies, as a method of `measure_stamps`."""

    def method(batch):
        images = np.empty_like(batch.noisy)
        variance = np.broadcast_to(np.square(batch.noise())[:, None, None], batch.noisy.shape[1:])
        for k, scene in enumerate(batch.scenes):
            centres = target_first(batch.sample, scene)
            images[k] = deblend_blend(batch.noisy[k], variance, centres, network, settings=settings).models[0]
        return images

    method.whole_scenes = True
    return method


def ratio(errors, bounds):
    """Median bound, half-width of the errors, and of the errors in units of their bounds, as text."""
    pulls = errors / bounds
    number, width = np.isfinite(pulls).sum(), half_width(pulls)
    error = 0.964 * width / np.sqrt(max(number, 1))
    return f"{median(bounds):.4f}", f"{half_width(errors):.4f}", f"{width:.2f} +- {error:.2f}"


def line(label, rows, r):
    """One line of the table."""
    errors = np.concatenate([rows["e1_error"], rows["e2_error"]])
    components = ratio(errors, np.concatenate([rows["e1_bound"], rows["e2_bound"]]))
    size, mag = (ratio(rows[f"{name}_error"], rows[f"{name}_bound"]) for name in ("e", f"mag_{r}"))
    return (
        f"{label:<14}{len(rows):>5}  {components[0]:>13} {components[1]:>7} {components[2]:>12} "
        f"{median(rows['e_error']):>+7.3f}  {size[0]:>10} {size[1]:>7} {size[2]:>12}  "
        f"{mag[0]:>8} {mag[1]:>7} {mag[2]:>12} {median(rows[f'mag_{r}_error']):>+7.3f}"
    )


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--scenes", type=int, default=300, help="default %(default)s")
    add("--seed", type=int, default=1, help="default %(default)s")
    add("--galaxies", choices=("auto", "cosmos", "synthetic"), default="auto")
    add("--model", default="lsst-ugrizy-morphology", help="package [%(default)s]")
    add("--known-centres", action="store_true", help="bounds with no centre to be measured")
    args = parser.parse_args()
    network = Network(load_package(args.model))
    survey = get_survey("arcelin2020", network.bands)
    scenes = SceneSettings(
        placement="annulus", min_galaxies=1, max_galaxies=4, inner_radius=0.325, outer_radius=2.0,
        mag_limit=27.5, centring="none", colour_gradients=False,
    )  # fmt: skip
    galaxies = load_galaxies(args.galaxies).split("test")
    sample = simulate_stamps(galaxies, survey, scenes, args.scenes, seed=args.seed, split="test")
    methods = {
        "one pass": blend_method(network, DeblendSettings()),
        "refined": blend_method(network, DeblendSettings(refine=True)),
        "isolated": isolated,
    }
    errors = measure_stamps([sample], methods)
    print(f"{network.package.name}, engine {network.engine.name}, {len(sample.truth)} blends")
    started = time.process_time()
    bounds = stamp_bounds(sample, galaxies, known=("x", "y") if args.known_centres else ())
    spent = time.process_time() - started
    print(f"bounds in {spent:.1f} s, none of {int(bounds['bound_flag'].sum())} blends")
    table = add_bounds(errors, bounds)
    for name in methods:
        rows = table[table["method"] == name]
        print(f"\n{name}\n{HEADER}")
        print(line("all", rows, survey.reference_band))
        for low, high in zip(EDGES[:-1], EDGES[1:]):
            chosen = rows[(rows["snr"] >= low) & (rows["snr"] < high)]
            print(line(f"{low:g} to {high:g}", chosen, survey.reference_band))
    cost = errors.meta["cpu_seconds"]["blended"]
    print()
    for name, sources in errors.meta["sources"]["blended"].items():
        if name != "isolated":
            print(f"{name}: {1e3 * cost[name] / sources:.1f} ms of processor time a source")


if __name__ == "__main__":
    main()
