# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors and cost of the network's one pass and of refinement, on the same scenes with known truth.

Run as ``python benchmarks/refine.py [--scenes N]`` for stamps of the survey ``arcelin2020`` (true centres
given), or with ``--field SIDE`` for a field of ``lsst10yr``.  Galaxies are of the test split; COSMOS's where
its catalogue is at hand.  Times are processor time of this process.
"""

import argparse
import time

import numpy as np

from lsst.meas.extensions.vae.deblending import DeblendSettings, deblend_blend
from lsst.meas.extensions.vae.evaluation.coverage import target_first
from lsst.meas.extensions.vae.evaluation.stamps import scene_batches
from lsst.meas.extensions.vae.galaxies import load_galaxies
from lsst.meas.extensions.vae.network.model import Network
from lsst.meas.extensions.vae.network.shipped import load_package
from lsst.meas.extensions.vae.simulation.fields import FieldSettings, simulate_field
from lsst.meas.extensions.vae.simulation.metrics import ksb_shear
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.simulation.statistics import clipped_slope, half_width, median
from lsst.meas.extensions.vae.survey import get_survey

# Galaxies nearer to the edge of a field are not judged: what lies beyond it is modelled by nobody.
_EDGE = 40

HEADER = (
    f"{'':<28}{'n':>5}  {'r median, width':>16} {'|dr/r|':>7} {'g-r':>6} {'cosine':>7}  "
    f"{'|e| median, width':>17} {'e1, e2':>6}  {'alpha_1, alpha_2':>16} {'failed':>6}"
)


def measured(model, target, psf, bands):
    """What is told of one galaxy: true and found e1, e2; errors of r and of g - r; |dr/r|; cosine in r."""
    r, g = bands.index("r"), bands.index("g")
    flux, truth = model.sum(axis=(1, 2), dtype=float), target.sum(axis=(1, 2), dtype=float)
    with np.errstate(all="ignore"):
        error = -2.5 * np.log10(flux / truth)
    a, b = model[r].ravel().astype(float), target[r].ravel().astype(float)
    return (
        *ksb_shear(target[r], psf)[:2],
        *ksb_shear(model[r], psf)[:2],
        error[r],
        error[g] - error[r],
        abs(flux[r] / truth[r] - 1),
        a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-30),
    )


def line(label, rows):
    """One line of the table."""
    rows = np.asarray(rows, dtype=float).reshape(-1, 8)
    e_true, e, (mag, colour, relative, cosine) = rows[:, :2], rows[:, 2:4], rows[:, 4:].T
    rows_with_shape = np.isfinite(e_true).all(axis=1)
    size = np.hypot(*e.T) - np.hypot(*e_true.T)
    slopes = [clipped_slope(e_true[rows_with_shape, i], e[rows_with_shape, i]) - 1 for i in (0, 1)]
    return (
        f"{label:<28}{len(rows):>5}  {median(mag):>+8.3f} {half_width(mag):>7.3f} "
        f"{np.nanmean(relative):>7.4f} {half_width(colour):>6.3f} {np.nanmedian(cosine):>7.4f}  "
        f"{median(size):>+9.3f} {half_width(size):>7.3f} "
        f"{half_width((e - e_true).ravel()):>6.3f}  {slopes[0]:>+8.3f} {slopes[1]:>+7.3f} "
        f"{(rows_with_shape & ~np.isfinite(size)).sum():>6}"
    )


def stamps(args, network, methods):
    """Rows of the targets by method, their SNR and how blended they are, and milliseconds a source."""
    survey = get_survey("arcelin2020", network.bands)
    scenes = SceneSettings(
        placement="annulus", min_galaxies=1, max_galaxies=4, inner_radius=0.325, outer_radius=2.0,
        mag_limit=27.5, centring="none", colour_gradients=False,
    )  # fmt: skip
    galaxies = load_galaxies(args.galaxies).split("test")
    sample = simulate_stamps(galaxies, survey, scenes, args.scenes, seed=args.seed, split="test")
    rows, spent, sources = {name: [] for name in methods}, dict.fromkeys(methods, 0.0), 0
    for batch in scene_batches(sample, network.bands, sample.n_scenes):
        variance = np.broadcast_to(np.square(batch.noise())[:, None, None], batch.noisy.shape[1:])
        psfs = batch.psfs()
        for k, scene in enumerate(batch.scenes):
            centres = target_first(sample, scene)
            sources += len(centres)
            for name, settings in methods.items():
                started = time.process_time()
                result = deblend_blend(batch.noisy[k], variance, centres, network, settings=settings)
                spent[name] += time.process_time() - started
                psf = psfs[k, network.bands.index("r")]
                rows[name].append(measured(result.models[0], batch.target[k], psf, network.bands))
    truth = sample.truth
    return (
        rows,
        np.asarray(truth["snr"]),
        np.asarray(truth["b_tot"]),
        {name: 1e3 * value / sources for name, value in spent.items()},
    )


def field(args, network, methods):
    """As `stamps`, of the galaxies of one field."""
    survey = get_survey("lsst10yr", network.bands)
    galaxies = load_galaxies(args.galaxies).split("test")
    made = simulate_field(galaxies, survey, FieldSettings(size=args.field), seed=args.seed, split="test")
    known = np.flatnonzero((made.truth["snr_r"] > 5) & made.truth["in_field"])
    truth = made.truth[known]
    centres = np.column_stack([truth["y"], truth["x"]]).astype(float)
    judged = ((centres > _EDGE) & (centres < args.field - _EDGE)).all(axis=1) & (truth["snr_r"] > 10)
    rows, spent = {name: [] for name in methods}, {}
    for name, settings in methods.items():
        started = time.process_time()
        result = deblend_blend(made.images, made.variance, centres, network, settings=settings)
        spent[name] = 1e3 * (time.process_time() - started) / len(centres)
        for k in np.flatnonzero(judged):
            target = made.isolated(int(known[k]), 64, tuple(int(v) for v in result.origins[k]))[0]
            psf = made.psfs[network.bands.index("r")]
            rows[name].append(measured(result.models[k], target, psf, network.bands))
    return rows, np.asarray(truth["snr_r"])[judged], np.asarray(truth["b_tot"])[judged], spent


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--scenes", type=int, default=196, help="stamps (default %(default)s)")
    add("--field", type=int, metavar="SIDE", help="a field of so many pixels instead")
    add("--seed", type=int, default=1, help="default %(default)s")
    add("--galaxies", choices=("auto", "cosmos", "synthetic"), default="auto")
    add("--model", help="package [lsst-ugrizy-morphology, with --field lsst10yr-ugrizy]")
    args = parser.parse_args()
    make = field if args.field else stamps
    network = Network(
        load_package(args.model or ("lsst10yr-ugrizy" if args.field else "lsst-ugrizy-morphology"))
    )
    methods = {"one pass": DeblendSettings(), "refined": DeblendSettings(refine=True)}
    rows, snr, blendedness, spent = make(args, network, methods)
    print(f"{network.package.name}, engine {network.engine.name}")
    print(HEADER)
    for label, chosen in (
        ("all", snr > 0),
        ("SNR < 30", snr < 30),
        ("SNR 30 to 100", (snr >= 30) & (snr < 100)),
        ("SNR > 100", snr >= 100),
        ("blended (b_tot > 0.05)", blendedness > 0.05),
    ):
        for name in methods:
            print(line(f"{name}, {label}" if label != "all" else name, np.array(rows[name])[chosen]))
    for name, value in spent.items():
        print(f"{name}: {value:.1f} ms of processor time a source")


if __name__ == "__main__":
    main()
