# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory of the process over many galaxies: is it flat?

Run as ``python benchmarks/memory.py [--galaxies N] [--engine NAME]``.  Stamps
of noise go through a network's ``deblend``, a field of some thousands at a
time, as DeblendVaeTask calls it; fields differ in size, so that the last batch
of each does.  Prints resident memory at ten points, and the slope of a line
through all but the first of them, by which what is allocated once is there.
"""

import argparse
import logging
import time

import numpy as np
import psutil

from lsst.meas.extensions.vae.network.backend import load_keras
from lsst.meas.extensions.vae.network.model import Network
from lsst.meas.extensions.vae.network.shipped import load_package

POINTS = 10
FIELD = 2000


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--galaxies", type=int, default=100_000, help="in all (default %(default)s)")
    parser.add_argument("--engine", default="auto", help="what runs the network (default %(default)s)")
    parser.add_argument(
        "--package", default="lsst-ugrizy-morphology", help="shipped or a file (default %(default)s)"
    )
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    load_keras()
    network = Network(load_package(args.package), engine=args.engine)
    noise = np.array(network.package.card["noise"], "f4")
    rng = np.random.default_rng(1)
    shape = (FIELD, len(network.bands), network.stamp_size, network.stamp_size)
    stamps = noise[:, None, None] * rng.standard_normal(shape, dtype="f4")
    process, done, points = psutil.Process(), 0, []
    print(f"{args.galaxies} galaxies through {args.package} on {network.engine.name}")
    print(f"{'galaxies':>10}{'resident [MiB]':>16}{'seconds':>9}")
    start = time.perf_counter()
    for point in range(1, POINTS + 1):
        goal = args.galaxies * point // POINTS
        while done < goal:
            n = min(int(rng.integers(FIELD // 2, FIELD + 1)), goal - done)
            network.deblend(stamps[:n], noise)
            done += n
        points.append((done, process.memory_info().rss / 2**20))
        print(f"{done:>10}{points[-1][1]:>16.1f}{time.perf_counter() - start:>9.0f}", flush=True)
    galaxies, resident = np.array(points[1:]).T
    slope = np.polyfit(galaxies, resident, 1)[0]
    print(f"slope {1e5 * slope:+.1f} MiB in 100 000 galaxies; range {np.ptp(resident):.1f} MiB")


if __name__ == "__main__":
    main()
