# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""DeblendVaeTask on exposures of other pixels and sharper PSFs than its network takes.

Run as ``python benchmarks/other_pixels.py [--model NAME] [--pairs N]``.  The same pairs of bright Sersic
galaxies, 1.2 to 2.2 arcsec apart, are drawn by GalSim on the model's own pixels and through its PSF, on
pixels of other sizes, and through a PSF 20 % sharper than any that the model takes; noise a solid angle is
the same.  Told are errors of the flux in one band, and by how much shapes differ from those of the first row.
"""

import argparse
import logging

import galsim
import numpy as np

from lsst.meas.extensions.vae import DeblendVaeTask, MeasureShapesTask, MultibandExposure
from lsst.meas.extensions.vae.afw import KernelPsf
from lsst.meas.extensions.vae.catalogs import makeMergedDetections
from lsst.meas.extensions.vae.deblendVaeTask import DeblendVaeConfig
from lsst.meas.extensions.vae.network.shipped import load_package
from lsst.meas.extensions.vae.simulation.detection import Detection, ParentDetection, Peak
from lsst.meas.extensions.vae.simulation.statistics import half_width

# Pairs stand in cells of such a side, in rows of so many [arcsec].
_CELL, _ROW = 12.0, 8

CASES = (
    ("own pixels and PSF", 1.0, 1.0),
    ("pixels 0.84 as large", 0.84, 1.0),
    ("pixels 1.3 as large", 1.3, 1.0),
    ("pixels 1.6 as large", 1.6, 1.0),
    ("PSF 20 % sharper", 1.0, 0.8),
    ("both, pixels 1.3 as large", 1.3, 0.8),
)


def make_pairs(n, noise, seed):
    """Places of galaxies [arcsec], profiles and fluxes of all bands."""
    rng, galaxies = np.random.default_rng(seed), []
    for k in range(n):
        middle = (np.array(divmod(k, _ROW)) + 0.5) * _CELL + rng.uniform(-0.1, 0.1, 2)
        angle, apart = rng.uniform(0, 2 * np.pi), rng.uniform(1.2, 2.2)
        for side in (-0.5, 0.5):
            place = middle + side * apart * np.array([np.sin(angle), np.cos(angle)])
            profile = galsim.Sersic(rng.choice([1.0, 1.5, 2.5]), half_light_radius=rng.uniform(0.25, 0.6))
            profile = profile.shear(g=rng.uniform(0, 0.4), beta=rng.uniform(0, np.pi) * galsim.radians)
            # A dozen pixels' noise is about that of a galaxy.
            galaxies.append((place, profile, 12 * noise * np.exp(rng.uniform(np.log(60), np.log(400)))))
    return galaxies


def observe(galaxies, bands, noise, scale, psfs, unit, own_scale, seed):
    """An exposure of all galaxies, and its detections: the true places, to the pixel."""
    n = len(galaxies) // 2
    shape = tuple(int(side * _CELL / scale) for side in (-(-n // _ROW), _ROW))
    images = np.zeros((len(bands), *shape))
    for (y, x), profile, flux in galaxies:
        stamp = galsim.ImageD(*(int(2 * _CELL / scale) // 2 * 2,) * 2, scale=scale)
        stamp.setCenter(int(x / scale), int(y / scale))
        centre = galsim.PositionD(x / scale - 0.5, y / scale - 0.5)
        for band, psf in enumerate(psfs):
            galaxy = galsim.Convolve(profile, psf).withFlux(float(flux[band]))
            galaxy.drawImage(image=stamp, center=centre)
            whole = galsim.ImageD(images[band], xmin=0, ymin=0)
            common = stamp.bounds & whole.bounds
            whole[common] += stamp[common]
    noise = noise * scale / own_scale
    images += np.random.default_rng(seed).normal(size=images.shape) * noise[:, None, None]
    kernels = [psf.drawImage(nx=41, ny=41, scale=scale, dtype=float).array for psf in psfs]
    exposure = MultibandExposure.fromArrays(
        bands,
        images.astype("f4"),
        np.zeros(images.shape, np.int32),
        np.broadcast_to(noise.astype("f4")[:, None, None] ** 2, images.shape),
        unit=unit,
        psfs=[KernelPsf(kernel / kernel.sum()) for kernel in kernels],
        metadata={"PIXSCALE": scale},
    )
    segmentation, parents = np.zeros(shape, np.int32), []
    for k in range(n):
        y, x = ((np.array(divmod(k, _ROW)) + 0.5) * _CELL / scale).astype(int)
        half = int(5.0 / scale)
        box = (max(y - half, 0), y + half, max(x - half, 0), x + half)
        segmentation[box[0] : box[1], box[2] : box[3]] = k + 1
        peaks = [
            Peak(*(round(v / scale - 0.5) for v in place[::-1]), 1.0) for place, _, _ in galaxies[2 * k :][:2]
        ]
        parents.append(
            ParentDetection(
                k + 1,
                box,
                np.ones((box[1] - box[0], box[3] - box[2]), bool),
                peaks,
                np.ones((2, len(bands)), bool),
                np.ones(len(bands), bool),
            )
        )
    detection = Detection(segmentation, parents, np.zeros(shape, "f4"), 5.0)
    return exposure, makeMergedDetections(detection, bands)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", default="lsst10yr-ugrizy", help="of one pixel scale (default %(default)s)")
    add("--pairs", type=int, default=48, help="default %(default)s")
    add("--band", default="r", help="default %(default)s")
    add("--seed", type=int, default=5, help="default %(default)s")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    card = load_package(args.model).card
    bands, noise, own_scale = tuple(card["bands"]), np.array(card["noise"]), card["pixel_scale"][0]
    sharpest = [low for low, _ in card.get("psf_fwhm_range") or [[psf["fwhm"]] * 2 for psf in card["psf"]]]
    galaxies, number = make_pairs(args.pairs, noise, args.seed), bands.index(args.band)
    truth = np.array([flux[number] for _, _, flux in galaxies])
    print(f"{args.model}, band {args.band}, {len(galaxies)} galaxies")
    print(f"{'':<28}{'flux: median':>13}{'mean |error|':>14}{'e1, e2 against the first: median, 68 %':>40}")
    first = None
    for label, larger, sharper in CASES:
        widths = np.array(sharpest) * sharper if sharper < 1 else [psf["fwhm"] for psf in card["psf"]]
        psfs = [galsim.Kolmogorov(fwhm=float(width)) for width in widths]
        exposure, merged = observe(
            galaxies, bands, noise, own_scale * larger, psfs, card["image_unit"], own_scale, args.seed
        )
        task = DeblendVaeTask(config=DeblendVaeConfig(modelPackage=args.model, exportScarletModels=False))
        result = task.run(exposure, None, merged)
        objects, models = result.deblendedCatalog, result.scarletModelData
        flux = np.array([models.model(o.getId()).image[number].sum() for o in objects])
        shapes = MeasureShapesTask().run(exposure, objects, models).shapes
        e = np.concatenate([np.asarray(shapes[name], float) for name in ("e1", "e2")])
        first = e if first is None else first
        error, change = flux / truth - 1, (e - first)[np.isfinite(e - first)]
        print(
            f"{label:<28}{np.median(error):>+13.4f}{np.abs(error).mean():>14.4f}"
            f"{np.median(change):>+32.4f}{half_width(change):>8.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
