# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bias of shear from deblended galaxies, raw and calibrated by the response of their scenes.

Run as ``python benchmarks/shear.py [--scenes N]``.  Stamps of ``arcelin2020`` come under true shears of
+-0.02 with the same galaxies and noise; each is sheared by +-0.02 besides (`evaluation.shear_response`),
deblended, and its target measured (KSB, r).  ``isolated`` is the target without neighbours, ``none`` the
blend as it is.
Galaxies are of the test split, above SNR 10; COSMOS's where its catalogue is at hand.
"""

import argparse
import sys
import time

import numpy as np
from tqdm import tqdm

from lsst.meas.extensions.vae.evaluation.shear_response import ShearedVersions, calibrated_bias
from lsst.meas.extensions.vae.evaluation.stamps import psf_images, scene_batches
from lsst.meas.extensions.vae.galaxies import load_galaxies
from lsst.meas.extensions.vae.network.model import Network
from lsst.meas.extensions.vae.network.shipped import load_package
from lsst.meas.extensions.vae.simulation.metrics import ksb_shear
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.survey import get_survey

# Smaller steps are noisier; second orders are 4e-4.
TRUE, STEP = 0.02, 0.02
WANTED = 3e-3

# Versions of a scene in a sample with a shear step: none, +g1, -g1, +g2, -g2.
_SHEARS = {(1, 1): 1, (1, -1): 2, (2, 1): 3, (2, -1): 4}


def shapes(images, psf):
    """e1 and e2 by KSB, NaN where there are none."""
    return np.array([ksb_shear(image, psf)[:2] for image in images])


def measure(network, methods, n_scenes, seed, galaxies):
    """Shapes of the versions by method and true shear, and the scenes' truth.

    Methods are by the images of a batch that are sheared: functions from these and the noise of their bands
    to images of the target.
    """
    settings = SceneSettings(
        placement="annulus", min_galaxies=1, max_galaxies=4, inner_radius=0.325, outer_radius=2.0,
        mag_limit=27.5, centring="none", colour_gradients=False, shear_step=TRUE,
    )  # fmt: skip
    survey = get_survey("arcelin2020", network.bands)
    catalogue, r = load_galaxies(galaxies).split("test"), network.bands.index("r")
    found, truth, versions, step = {}, [], {}, 50
    for start in tqdm(range(0, n_scenes, step), disable=not sys.stderr.isatty()):
        n = min(step, n_scenes - start)
        sample = simulate_stamps(catalogue, survey, settings, n, seed=seed + start, split="test")
        truth.append(sample.truth[::5])
        (batch,) = scene_batches(sample, network.bands, sample.n_scenes)
        psfs, sigma = psf_images(sample, [0], network.bands, 41)[0], np.sqrt(batch.variance())
        for component in (1, 2):
            if component not in versions:
                names = "noshear", f"{component}p", f"{component}m"
                versions[component] = ShearedVersions(psfs, network.stamp_size, STEP, names)
        # What is added to a scene is as noisy as the scene.
        noise = np.sqrt(2) * batch.noise()
        for pixels, targets in methods.items():
            images = getattr(batch, pixels)
            for (component, sign), k in _SHEARS.items():
                made = versions[component](images[k::5], sigma[k::5], [seed + start, component])
                for name, target in targets.items():
                    found.setdefault(name, {key: [] for key in _SHEARS})[component, sign].append(
                        {which: shapes(target(cube, noise)[:, r], psfs[r]) for which, cube in made.items()}
                    )
    joined = {
        name: {
            key: {which: np.concatenate([part[which] for part in parts]) for which in parts[0]}
            for key, parts in by_shear.items()
        }
        for name, by_shear in found.items()
    }
    return joined, {name: np.concatenate([np.asarray(t[name]) for t in truth]) for name in ("snr", "b_tot")}


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--scenes", type=int, default=2000, help="default %(default)s")
    add("--seed", type=int, default=1, help="default %(default)s")
    add("--galaxies", choices=("auto", "cosmos", "synthetic"), default="auto")
    add("--model", default="lsst-ugrizy-morphology", help="package (default %(default)s)")
    args = parser.parse_args()
    network = Network(load_package(args.model))
    methods = {
        "noisy": {
            "VAE, one pass": lambda images, noise: network.deblend(images, noise)[0],
            "none": lambda images, noise: images,
        },
        "lone": {"isolated": lambda images, noise: images},
    }
    started = time.monotonic()
    found, truth = measure(network, methods, args.scenes, args.seed, args.galaxies)
    print(f"{network.package.name}, {args.scenes} scenes, {time.monotonic() - started:.0f} s")
    print(
        f"{'':<16}{'':<10}{'n':>7}{'':>4}{'raw m':>18}{'response':>10}{'calibrated m':>20}{'c':>22}   scenes"
    )
    for name, by_shear in found.items():
        for label, chosen in (
            ("all", truth["snr"] > 10),
            ("blended", (truth["snr"] > 10) & (truth["b_tot"] > 0.05)),
        ):
            for component in (1, 2):
                plus, minus = (
                    {which: e[chosen] for which, e in by_shear[component, sign].items()} for sign in (1, -1)
                )
                bias = calibrated_bias(plus, minus, component, TRUE, STEP)
                needed = bias["number"] * (bias["m_error"] / WANTED) ** 2
                print(
                    f"{name:<16}{label:<10}{bias['number']:>7}  g{component}"
                    f"{bias['m_raw']:>+9.4f} +-{bias['m_raw_error']:.4f}{bias['response']:>9.3f}"
                    f"{bias['m']:>+11.4f} +-{bias['m_error']:.4f}{bias['c']:>+12.5f} +-{bias['c_error']:.5f}"
                    f"{needed:>9.0f}"
                )
    print(f"scenes: how many make the error of m {WANTED:g}")


if __name__ == "__main__":
    main()
