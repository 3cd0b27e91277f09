# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources per second of each step of deblending, side by side in one run.

Run as ``python benchmarks/deblend.py [--sources N]``.  Times are of this
process alone; only their ratios mean anything on another machine.
"""

import argparse
import time

import numpy as np

from lsst.meas.extensions.vae.deblending import DeblendSettings, cut_stamps, deblend_blend
from lsst.meas.extensions.vae.network.architecture import make_architecture
from lsst.meas.extensions.vae.network.backend import load_keras
from lsst.meas.extensions.vae.network.model import Network, get_weights
from lsst.meas.extensions.vae.network.package import ModelPackage
from lsst.meas.extensions.vae.survey import get_survey

BANDS = ("u", "g", "r", "i", "z", "y")


def untrained(name, survey):
    """A package of an architecture with random weights: as fast as a trained one."""
    architecture = make_architecture(name, len(BANDS))
    noise = [np.sqrt(band.sky_level) / band.electrons_per_unit for band in survey.bands]
    card = {
        "name": name,
        "architecture": {"name": name, "options": {}},
        "survey": survey.name,
        "bands": BANDS,
        "pixel_scale": [0.2] * 6,
        "psf": [{"kind": "kolmogorov", "fwhm": 0.8, "beta": None}] * 6,
        "noise": noise,
        "stamp_size": 64,
        "latent_dim": 32,
        "normalisation": {"kind": architecture.normalisation, "scale": noise},
    }
    return ModelPackage(
        card,
        {
            "decoder": get_weights(architecture.build_decoder()),
            "deblender_encoder": get_weights(architecture.build_encoder()),
        },
    )


def seconds(function, repeats=3):
    """Least time of a few calls, the first one (tracing) left out."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", type=int, default=512, help="sources of the field (default %(default)s)")
    n = parser.parse_args().sources
    load_keras()
    survey = get_survey("lsst10yr", BANDS)
    rng = np.random.default_rng(1)
    side = int(np.sqrt(n * 3600 * 25 / 50)) + 64
    noise = np.array([np.sqrt(band.sky_level) / band.electrons_per_unit for band in survey.bands])
    images = (noise[:, None, None] * rng.standard_normal((6, side, side))).astype("f4")
    variance = np.broadcast_to((noise**2)[:, None, None], images.shape).astype("f4")
    centres = rng.uniform(32, side - 32, (n, 2))
    good = np.ones(images.shape, bool)
    print(f"{n} sources, {side} x {side} pixels, 6 bands; sources per second")
    print(f"{'network':<14}{'stamps':>9}{'encode':>9}{'decode':>9}{'one pass':>10}{'with joint fluxes':>19}")
    for name in ("arcelin2020", "factorised"):
        network = Network(untrained(name, survey))
        stamps = cut_stamps(images, variance, centres, 64, good)
        latents = network.encode(stamps.images, stamps.noise)[0]
        rates = [
            n / seconds(call)
            for call in (
                lambda: cut_stamps(images, variance, centres, 64, good),
                lambda net=network, s=stamps: net.encode(s.images, s.noise),
                lambda net=network, s=stamps, z=latents: net.decode(z, s.noise),
                lambda net=network: deblend_blend(
                    images, variance, centres, net, settings=DeblendSettings(joint_fluxes=False)
                ),
                lambda net=network: deblend_blend(images, variance, centres, net),
            )
        ]
        print(f"{name:<14}{rates[0]:>9.0f}{rates[1]:>9.0f}{rates[2]:>9.0f}{rates[3]:>10.0f}{rates[4]:>19.0f}")


if __name__ == "__main__":
    main()
