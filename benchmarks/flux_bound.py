# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Relative errors of the r flux of blended targets, beside what noise allows.

Run as ``python benchmarks/flux_bound.py SHARD.h5 [--scenes N]`` on blended stamps of the test split of a
model's survey, drawn from COSMOS: those with SNR above 10 and B_tot above 0.05, true centres given.
"""

import argparse

import numpy as np

from lsst.meas.extensions.vae.deblending import DeblendSettings, deblend_blend
from lsst.meas.extensions.vae.evaluation.coverage import target_first
from lsst.meas.extensions.vae.evaluation.cramer_rao import stamp_bounds
from lsst.meas.extensions.vae.evaluation.stamps import scene_batches
from lsst.meas.extensions.vae.galaxies import load_galaxies
from lsst.meas.extensions.vae.network.model import Network
from lsst.meas.extensions.vae.network.shipped import load_package
from lsst.meas.extensions.vae.simulation.shards import StampSample


def deblended(sample, network, refine):
    """Relative errors of the targets' r flux."""
    r, errors = network.bands.index("r"), []
    for batch in scene_batches(sample, network.bands, sample.n_scenes):
        variance, psfs = batch.variance(), batch.psfs()
        for k, scene in enumerate(batch.scenes):
            told = psfs[k] if network.architecture.conditional else None
            result = deblend_blend(
                batch.noisy[k],
                variance[k],
                target_first(sample, scene),
                network,
                psfs=told,
                settings=DeblendSettings(refine=refine),
            )
            errors.append(result.fluxes[0, r] / batch.target[k, r].sum(dtype=float) - 1)
    return np.abs(errors)


def bound(sample, galaxies, **options):
    """Mean absolute error of a Gaussian as wide as the bound, of each target that has one."""
    sigma = np.asarray(stamp_bounds(sample, galaxies, **options)["mag_r_bound"]) * np.log(10) / 2.5
    return np.sqrt(2 / np.pi) * sigma[np.isfinite(sigma)]


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("shard", metavar="SHARD.h5", help="blended stamps of the test split")
    add("--scenes", type=int, default=150, help="of those wanted (default %(default)s)")
    add("--model", default="lsst10yr-ugrizy", help="model package (default %(default)s)")
    args = parser.parse_args()
    sample, galaxies = StampSample.open(args.shard), load_galaxies("cosmos").split("test")
    wanted = np.flatnonzero(
        (np.asarray(sample.truth["snr"]) > 10) & (np.asarray(sample.truth["b_tot"]) > 0.05)
    )
    sample, network = sample.select(wanted[: args.scenes]), Network(load_package(args.model))
    rows = {
        "bound": bound(sample, galaxies),
        "bound, centres known": bound(sample, galaxies, known=("x", "y")),
        "bound, target alone": bound(sample, galaxies, alone=True),
        "one pass": deblended(sample, network, False),
        "refined": deblended(sample, network, True),
    }
    print(f"{'|dr/r|':<24}{'n':>5}{'mean':>8}{'median':>8}{'90 %':>8}")
    for name, values in rows.items():
        print(
            f"{name:<24}{len(values):>5}{values.mean():>8.3f}{np.median(values):>8.3f}"
            f"{np.percentile(values, 90):>8.3f}"
        )


if __name__ == "__main__":
    main()
