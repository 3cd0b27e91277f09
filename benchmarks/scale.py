# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time and memory of deblending by the number of sources of a field, and memory over many fields.

Run as ``python benchmarks/scale.py [--sources N ...] [--fields N] [--one-pass]``.  A field of ``lsst10yr``
is simulated once, with a source of SNR > 5 for every 1 000 pixels, and repeated side by side until it holds
as many sources as are asked for; true centres are given.  Each row is a process of its own, so that its
largest resident memory is its own, pixels and models of the whole field included; times are processor time
of all its threads.  The last line is of one process that deblends so many fields of 1 000 sources in turn.
"""

import argparse
import logging
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import psutil

from lsst.meas.extensions.vae.deblending import DeblendSettings, deblend_blend
from lsst.meas.extensions.vae.galaxies import load_galaxies
from lsst.meas.extensions.vae.network.model import Network
from lsst.meas.extensions.vae.network.shipped import load_package
from lsst.meas.extensions.vae.simulation.fields import FieldSettings, simulate_field
from lsst.meas.extensions.vae.survey import get_survey

_SIDE, _DENSITY = 512, 110.0


def make_tile(model, seed):
    """A field's pixels, variance and centres."""
    survey = get_survey("lsst10yr", load_package(model).bands)
    settings = FieldSettings(size=_SIDE, density_per_arcmin2=_DENSITY)
    made = simulate_field(load_galaxies("auto").split("test"), survey, settings, seed=seed, split="test")
    known = made.truth[(made.truth["snr_r"] > 5) & made.truth["in_field"]]
    # The brightest, a thousand pixels each.
    known = known[np.argsort(known["snr_r"])[::-1][: _SIDE**2 // 1000]]
    return made.images, made.variance, np.column_stack([known["y"], known["x"]]).astype(float)


def repeated(tile, n):
    """A square of tiles that holds n sources, and its first n centres by rows of tiles."""
    images, variance, centres = tile
    side = int(np.ceil(np.sqrt(n / len(centres))))
    places = [(y, x) for y in range(side) for x in range(side)]
    many = np.concatenate([centres + _SIDE * np.array(place) for place in places])
    return np.tile(images, (1, side, side)), np.tile(variance, (1, side, side)), many[:n]


def deblended(tile, n, model, refine, fields=1):
    """Sources, pixels of a side, ms a source, and resident memory after each field and at most [MiB]."""
    logging.disable(logging.WARNING)
    network = Network(load_package(model))
    settings = DeblendSettings(refine=refine)
    deblend_blend(*tile[:2], tile[2][:32], network, settings=settings)
    images, variance, centres = repeated(tile, n)
    process, resident, started = psutil.Process(), [], time.process_time()
    for _ in range(fields):
        deblend_blend(images, variance, centres, network, settings=settings)
        resident.append(process.memory_info().rss / 2**20)
    spent = 1e3 * (time.process_time() - started) / (n * fields)
    return n, images.shape[1], spent, resident, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def alone(*args):
    """`deblended` in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(deblended, *args).result()


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--sources", type=int, nargs="*", default=[1000, 5000, 20_000], help="default %(default)s")
    add("--fields", type=int, default=20, help="of 1 000 sources, in one process (default %(default)s)")
    add("--one-pass", action="store_true", help="without refinement")
    add("--model", default="lsst10yr-ugrizy", help="default %(default)s")
    add("--seed", type=int, default=1, help="default %(default)s")
    args = parser.parse_args()
    tile, refine = make_tile(args.model, args.seed), not args.one_pass
    print(f"{args.model}, {'refined' if refine else 'one pass'}")
    print(f"{'sources':>8}{'side [pixel]':>14}{'ms a source':>13}{'at most [MiB]':>15}")
    for n in args.sources:
        _, side, spent, _, most = alone(tile, n, args.model, refine)
        print(f"{n:>8}{side:>14}{spent:>13.1f}{most:>15.0f}", flush=True)
    if args.fields > 2:
        *_, resident, _ = alone(tile, 1000, args.model, refine, args.fields)
        # By the first field, what is allocated once is there.
        slope = np.polyfit(np.arange(1, args.fields), resident[1:], 1)[0]
        print(
            f"{args.fields} fields: {resident[1]:.0f} MiB after the second, {resident[-1]:.0f} after all; "
            f"slope {slope:+.1f} MiB a field"
        )


if __name__ == "__main__":
    main()
