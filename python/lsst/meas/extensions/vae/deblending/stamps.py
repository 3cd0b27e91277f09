# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cut square stamps about sources, with missing pixels filled and counted."""

from dataclasses import dataclass

import numpy as np

from ..errors import ImageError
from ..simulation.geometry import overlap, stamp_origin

__all__ = ["Stamps", "check_cube", "cut_stamps"]

# What lies beyond is no measurement, and squares and inverses of it are none in single precision.
_MOST, _LEAST_VARIANCE, _MOST_VARIANCE = 1e18, 1e-36, 1e36


@dataclass
class Stamps:
    """Stamps of n sources, ready for a network.

    Attributes
    ----------
    images : `numpy.ndarray`, float32 ``[n, band, y, x]``
        Pixels, image unit; those without data are 0, the sky.
    noise : `numpy.ndarray`, float32 ``[n, band]``
        Standard deviation of the background: the square root of the median
        variance of the stamp's good pixels; NaN for a band without any.
    origins : `numpy.ndarray`, int64 ``[n, 2]``
        y and x of each stamp's first pixel in the cube; may be negative.
    coverage : `numpy.ndarray`, float32 ``[n, band]``
        Fraction of the stamp's pixels that are good.
    core_coverage : `numpy.ndarray`, float32 ``[n, band]``
        The same for the central 8 x 8 pixels.
    """

    images: np.ndarray
    noise: np.ndarray
    origins: np.ndarray
    coverage: np.ndarray
    core_coverage: np.ndarray


def check_cube(images, variance, bad=None):
    """Check a cube and say which of its pixels can be used.

    Parameters
    ----------
    images, variance : array-like, ``[band, y, x]``
        Pixels and their variance, image unit and its square. Masked elements
        of masked arrays are left out.
    bad : array-like of `bool`, ``[y, x]`` or ``[band, y, x]``, optional
        Pixels to leave out.

    Returns
    -------
    images, variance : `numpy.ndarray`, ``[band, y, x]``
        As arrays.
    good : `numpy.ndarray` of `bool`, ``[band, y, x]``
        Finite, of positive variance and not bad. Numbers whose squares, or
        inverses of variances, single precision cannot hold are not finite.

    Raises
    ------
    ImageError
        Raised if the shapes do not fit together, or these are no numbers.
    """
    hidden = np.ma.getmask(images) | np.ma.getmask(variance)
    images, variance = np.asarray(images), np.asarray(variance)
    if images.ndim != 3 or images.shape != variance.shape:
        raise ImageError(
            f"images have shape {images.shape} and variances {variance.shape}: expected one shape "
            "[band, y, x] for both"
        )
    for what, array in (("images", images), ("variances", variance)):
        if array.dtype.kind not in "biuf":
            raise ImageError(f"{what} hold {array.dtype}: expected real numbers")
    with np.errstate(invalid="ignore", over="ignore"):
        good = (images > -_MOST) & (images < _MOST)
        good &= (variance > _LEAST_VARIANCE) & (variance < _MOST_VARIANCE) & ~hidden
    if bad is not None:
        bad = np.asarray(bad, dtype=bool)
        if bad.shape not in (images.shape, images.shape[1:]):
            raise ImageError(f"the mask has shape {bad.shape}: expected {images.shape} or {images.shape[1:]}")
        good &= ~bad
    return images, variance, good


def cut_stamps(images, variance, centres, size, good):
    """Cut a stamp about each centre, at the nearest pixel crossing.

    Parameters
    ----------
    images, variance : `numpy.ndarray`, ``[band, y, x]``
        Pixels and their variance.
    centres : array-like, float ``[n, 2]``
        y and x of the sources, pixels.
    size : `int`
        Side of the stamps, even: the source lies within half a pixel of the
        crossing of the four central pixels.
    good : `numpy.ndarray` of `bool`, ``[band, y, x]``
        Pixels to use.

    Returns
    -------
    stamps : `Stamps`
        The stamps, parts beyond the cube's edge filled like bad pixels.
    """
    centres = np.asarray(centres, dtype=float).reshape(-1, 2)
    n, n_bands = len(centres), len(images)
    origins = np.array([stamp_origin(x, y, size) for y, x in centres], np.int64).reshape(-1, 2)
    stamps = Stamps(
        images=np.zeros((n, n_bands, size, size), np.float32),
        noise=np.full((n, n_bands), np.nan, np.float32),
        origins=origins,
        coverage=np.zeros((n, n_bands), np.float32),
        core_coverage=np.zeros((n, n_bands), np.float32),
    )
    core = slice(size // 2 - 4, size // 2 + 4)
    usable = np.zeros((n_bands, size, size), bool)
    for k, origin in enumerate(origins):
        in_cube, in_stamp = overlap(origin, size, images.shape[1:])
        whole = good[:, *in_cube]
        if whole.size == usable.size and whole.all():
            # Nearly all stamps, at a third of the time.
            stamps.images[k] = images[:, *in_cube]
            stamps.coverage[k] = stamps.core_coverage[k] = 1
            stamps.noise[k] = np.sqrt(np.median(variance[:, *in_cube].reshape(n_bands, -1), axis=1))
            continue
        usable[:] = False
        usable[:, *in_stamp] = good[:, *in_cube]
        stamps.coverage[k] = usable.mean(axis=(1, 2))
        stamps.core_coverage[k] = usable[:, core, core].mean(axis=(1, 2))
        part = stamps.images[k][:, *in_stamp]
        part[...] = np.where(good[:, *in_cube], images[:, *in_cube], 0.0)
        for band in range(n_bands):
            values = variance[band][in_cube][good[band][in_cube]]
            if values.size:
                stamps.noise[k, band] = np.sqrt(np.median(values))
    return stamps
