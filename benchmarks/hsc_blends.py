# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deblend real blends of Hyper Suprime-Cam: what is left of them, and a picture.

Run as ``python benchmarks/hsc_blends.py FOLDER [--picture FILE.png]`` on a folder of ``hsc_*.npz`` (images
and variance ``[band, y, x]``, psf, bad, bands, zeropoint_mag, x, y of the detected peaks).
"""

import argparse
from pathlib import Path

import numpy as np

from lsst.meas.extensions.vae.deblending import DeblendSettings, deblend
from lsst.meas.extensions.vae.network.model import Network
from lsst.meas.extensions.vae.network.shipped import load_package


def deblended(path, network, settings):
    """Images, variance, good pixels, the deblended galaxies and the sum of their models."""
    with np.load(path, allow_pickle=False) as data:
        blend = {name: data[name] for name in data.files}
    bands = [str(band) for band in blend["bands"]]
    result = deblend(
        blend["images"],
        blend["variance"],
        blend["psf"],
        np.column_stack([blend["y"], blend["x"]]),
        bands=bands,
        model=network,
        zero_point=blend["zeropoint_mag"],
        pixel_scale=float(blend["scale_arcsec"]),
        bad=blend["bad"],
        settings=settings,
    )
    good = (blend["variance"] > 0) & ~blend["bad"] & np.isfinite(blend["images"])
    return blend["images"], blend["variance"], good, result, result.scene(blend["images"].shape)


def draw(path, blends):
    """Three pictures a blend: pixels, models, what is left."""
    import matplotlib

    matplotlib.use("Agg")
    from astropy.visualization import make_lupton_rgb
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        3, len(blends), figsize=(2.6 * len(blends), 7.2), layout="constrained", squeeze=False
    )
    for column, (name, (images, variance, good, result, scene)) in zip(axes.T, blends.items(), strict=True):
        noise = np.sqrt(np.median(variance[1]))
        for axis, cube in zip(column, (images, scene, images - scene), strict=True):
            cube = np.where(good, cube, 0)
            # i, r, g; every band in the same unit.
            axis.imshow(
                make_lupton_rgb(*cube[[2, 1, 0]], stretch=12 * noise, Q=8, minimum=-noise), origin="lower"
            )
            axis.set_xticks([])
            axis.set_yticks([])
        for axis, color in ((column[0], "white"), (column[1], "white")):
            centre = result.origins + 31.5
            axis.plot(centre[:, 1], centre[:, 0], "+", color=color, ms=5, mew=0.6, alpha=0.7)
            axis.set_xlim(-0.5, images.shape[2] - 0.5)
            axis.set_ylim(-0.5, images.shape[1] - 0.5)
        column[0].set_title(f"...{name[-6:]}, {len(result.failed)} peaks", fontsize=9)
    for axis, label in zip(axes[:, 0], ("HSC g, r, i", "sum of the models", "what is left"), strict=True):
        axis.set_ylabel(label)
    figure.savefig(path, dpi=110)


def main():
    """Print the table, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="hsc-grizy", help="model package (default %(default)s)")
    parser.add_argument("--picture", type=Path, metavar="FILE.png")
    args = parser.parse_args()
    network, blends = Network(load_package(args.model)), {}
    print(
        f"{'blend':<24}{'method':<10}{'peaks':>6}{'chi^2 a pixel':>15}{'of the sky':>12}  light left [sigma]"
    )
    for path in sorted(args.folder.glob("hsc_*.npz")):
        for method, refined in (("one pass", False), ("refined", True)):
            found = deblended(path, network, DeblendSettings(refine=refined))
            images, variance, good, result, scene = found
            residual = np.where(good, images - scene, 0)
            chi2 = np.sum(residual[good] ** 2 / variance[good]) / good.sum()
            sky = good & (np.abs(scene) < 0.3 * np.sqrt(variance))
            background = np.sum(residual[sky] ** 2 / variance[sky]) / max(sky.sum(), 1)
            left = residual.sum(axis=(1, 2)) / np.sqrt((variance * good).sum(axis=(1, 2)))
            told = " ".join(f"{value:+.1f}" for value in left)
            print(
                f"{path.stem:<24}{method:<10}{len(result.failed):>6}{chi2:>15.2f}{background:>12.2f}  {told}"
            )
        blends[path.stem] = found
    if args.picture:
        draw(args.picture, blends)


if __name__ == "__main__":
    main()
