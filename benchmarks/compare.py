# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deblenders beside each other: errors, cost and failures on the same scenes with known truth.

Run as ``python benchmarks/compare.py --scenes 196`` for stamps of the survey ``arcelin2020``, or with
``--field SIDE`` for a field of ``lsst10yr``; ``--methods one_pass scarlet2`` for some deblenders only.  Those
that are not installed are rows with the reason.  SEP and the iterative method detect for themselves, all
others are given the true centres.  Galaxies are of the test split; COSMOS's where its catalogue is at hand.

Times count all cores: for one core run it as
``OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 taskset -c 0 python benchmarks/compare.py``.
"""

import argparse
import sys

from lsst.meas.extensions.vae.evaluation.comparison import compare, field_case, stamp_cases
from lsst.meas.extensions.vae.evaluation.peers import PEERS, make_peer
from lsst.meas.extensions.vae.galaxies import load_galaxies
from lsst.meas.extensions.vae.network.model import Network
from lsst.meas.extensions.vae.network.shipped import load_package

MODELS = {False: "lsst-ugrizy-morphology", True: "lsst10yr-ugrizy"}


def parser(text):
    """The options that ``benchmarks/refine.py`` has too."""
    options = argparse.ArgumentParser(description=text.splitlines()[0])
    add = options.add_argument
    add("--scenes", type=int, default=196, help="stamps (default %(default)s)")
    add("--field", type=int, metavar="SIDE", help="a field of so many pixels instead")
    add("--seed", type=int, default=1, help="default %(default)s")
    add("--galaxies", choices=("auto", "cosmos", "synthetic"), default="auto")
    add("--model", help="package [{0}, with --field {1}]".format(*MODELS.values()))
    return options


def run(args, names, progress=None):
    """Print what the deblenders of some names make of the scenes that are asked for."""
    network = Network(load_package(args.model or MODELS[bool(args.field)]))
    galaxies = load_galaxies(args.galaxies).split("test")
    if args.field:
        cases = [field_case(galaxies, network.bands, args.field, seed=args.seed)]
    else:
        cases = stamp_cases(galaxies, network.bands, args.scenes, seed=args.seed)
    result = compare(cases, [make_peer(name, network) for name in names], progress=progress)
    where = f"field of {args.field} pixels" if args.field else f"{len(cases)} scenes"
    print(
        f"{network.package.name}, engine {network.engine.name}; {where}, {result.sources} sources, "
        f"{len(result.snr)} judged"
    )
    print(result.text())
    return result


def main():
    """Print the table."""
    options = parser(__doc__)
    options.add_argument(
        "--methods", nargs="+", choices=PEERS, default=PEERS, metavar="NAME", help=f"of {', '.join(PEERS)}"
    )
    options.add_argument("--output", help="write the table here too, as ECSV")
    args = options.parse_args()

    def progress(done, number):
        if done % max(number // 100, 1) == 0:
            print(f"\r{done}/{number}", end="\n" if done == number else "", file=sys.stderr, flush=True)

    result = run(args, list(args.methods), progress)
    if args.output:
        result.table().write(args.output, format="ascii.ecsv", overwrite=True)


if __name__ == "__main__":
    main()
