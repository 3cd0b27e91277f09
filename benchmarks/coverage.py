# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do the intervals of a model's posteriors hold the truth as often as they say?

Run as ``python benchmarks/coverage.py --validation SHARD.h5 --test SHARD.h5 [--model NAME]`` on shards of
blended stamps of the model's survey: floors are fitted on the first, and judged on both.
``bin/releaseModel.py`` puts them into a package's card.
"""

import argparse

import numpy as np

from lsst.meas.extensions.vae.evaluation.coverage import coverage, fit_floors, posterior_errors
from lsst.meas.extensions.vae.network.model import Network
from lsst.meas.extensions.vae.network.shipped import load_package
from lsst.meas.extensions.vae.simulation.shards import StampSample

SNR = ((0, np.inf), (0, 20), (20, 50), (50, 200), (200, np.inf))


def main():
    """Print the floors, and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--validation", required=True, metavar="SHARD", help="blended stamps of the validation split")
    add("--test", required=True, metavar="SHARD", help="blended stamps of the test split")
    add("--model", default="lsst-ugrizy-morphology", help="model package (default %(default)s)")
    add("--scenes", type=int, default=500, help="of each shard (default %(default)s)")
    add("--draws", type=int, default=100, help="of each target (default %(default)s)")
    args = parser.parse_args()
    network = Network(load_package(args.model))
    errors = {}
    for split in ("validation", "test"):
        sample = StampSample.open(getattr(args, split))
        if sample.split != split:
            parser.error(f"--{split} is of the {sample.split} split")
        sample = sample.select(range(min(args.scenes, sample.n_scenes)))
        errors[split] = posterior_errors(sample, network, args.scenes, n_samples=args.draws)
    floors = fit_floors(errors["validation"])
    print(f"{network.package.name}: {', '.join(f'{name} {value:g}' for name, value in floors.items())}")
    print(f"{'SNR':<14}{'split':<12}{'n':>5}{'e 68 %':>9}{'e 95 %':>9}{'mag 68 %':>10}{'mag 95 %':>10}")
    for low, high in SNR:
        for split, table in errors.items():
            held = coverage(table, floors, (low, high))
            told = "".join(
                f"{held[k]:>{w}.3f}" for k, w in zip(("e_68", "e_95", "mag_68", "mag_95"), (9, 9, 10, 10))
            )
            print(f"{f'{low:g} to {high:g}':<14}{split:<12}{held['n']:>5}{told}")


if __name__ == "__main__":
    main()
