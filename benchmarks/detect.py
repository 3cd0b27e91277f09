# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Completeness and purity of iterative detection and deblending, pass by pass.

Run as ``python benchmarks/detect.py [--fields N] [--model-error X] ...``.  The
fields are those of ``bin/demo.py``: lsst10yr, 50 galaxies an arcmin^2.
"""

import argparse
import time

import numpy as np
from astropy.table import Table

from lsst.meas.extensions.vae.deblending import DeblendSettings
from lsst.meas.extensions.vae.deblending.iterate import IterationSettings, deblend_field
from lsst.meas.extensions.vae.evaluation import detection_by_pass
from lsst.meas.extensions.vae.galaxies import load_galaxies
from lsst.meas.extensions.vae.network.model import Network
from lsst.meas.extensions.vae.network.shipped import load_package
from lsst.meas.extensions.vae.simulation.fields import FieldSettings, simulate_field
from lsst.meas.extensions.vae.survey import get_survey


def total(tables):
    """Sum of the fields' tables; a field that stopped early stays as it was in later passes."""
    rows = []
    for number in range(max(len(table) for table in tables)):
        row = {"pass": number + 1}
        for name in tables[0].colnames[1:]:
            of_pass = name in ("new", "new_false", "recognised")
            rest = [t for t in tables if number < len(t)] if of_pass else tables
            row[name] = sum(t[name][min(number, len(t) - 1)] for t in rest)
        row["completeness"] = row["found"] / row["wanted"] if row["wanted"] else np.nan
        row["purity"] = 1 - row["false"] / row["sources"] if row["sources"] else np.nan
        rows.append(row)
    table = Table(rows)
    for name in ("completeness", "purity"):
        table[name].format = ".4f"
    return table


def main():
    """Print the table."""
    defaults = IterationSettings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--fields", type=int, default=1, help="number of fields (default %(default)s)")
    add("--size", type=int, default=640, help="side of a field [pixel] (default %(default)s)")
    add("--seed", type=int, default=1, help="seed of the first field (default %(default)s)")
    add("--galaxies", choices=("auto", "cosmos", "synthetic"), default="auto")
    add("--model", default="lsst10yr-ugrizy", help="model package (default %(default)s)")
    add("--min-snr", type=float, default=10.0, help="galaxies to be found (default %(default)s)")
    for name in vars(defaults):
        value = getattr(defaults, name)
        add(f"--{name.replace('_', '-')}", type=type(value), default=value, help="default %(default)s")
    add("--refine", action="store_true", help="refine all models after the last pass")
    args = parser.parse_args()
    settings = IterationSettings(**{name: getattr(args, name) for name in vars(defaults)})
    deblending = DeblendSettings(refine=args.refine)
    network = Network(load_package(args.model))
    survey = get_survey("lsst10yr", network.bands)
    galaxies = load_galaxies(args.galaxies).split("test")
    tables, seconds, stops = [], 0.0, []
    for seed in range(args.seed, args.seed + args.fields):
        field = simulate_field(galaxies, survey, FieldSettings(size=args.size), seed, split="test")
        start = time.perf_counter()
        result = deblend_field(
            field.images,
            field.variance,
            network,
            psfs=field.psfs,
            settings=settings,
            deblend_settings=deblending,
        )
        seconds += time.perf_counter() - start
        tables.append(
            detection_by_pass(result.centres, result.detection_pass, field.truth, survey, args.min_snr)
        )
        stops.append(result.stopped)
    table = total(tables)
    print(f"{args.fields} fields of {args.size} x {args.size} pixels, {galaxies.source} galaxies; {settings}")
    table.pprint(max_lines=-1, max_width=-1)
    sources = table["sources"][-1]
    print(
        f"{seconds:.1f} s, {1e3 * seconds / max(sources, 1):.1f} ms a source; "
        f"{stops.count('nothing new')} fields ended with nothing new"
    )


if __name__ == "__main__":
    main()
