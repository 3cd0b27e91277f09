# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with pixels of a field, and the mask planes that tell.

Planes, bits and values follow LSST's coadds where those have a rule:

BAD
    Hot and dead pixels and columns. Hot ones are 10 to 100 sigma of the sky's
    noise, dead ones have lost sky and sources. (LSST interpolates over them
    in single exposures; nothing is interpolated here.)
SAT
    Pixels at the full well, and those next to them, as LSST's instrument
    signature removal grows its plane by one pixel. Values above the full well
    are cut to it; spikes and bleeding are left out. INTRP is not set, as
    nothing is interpolated.
EDGE
    The border of the image. Its pixels are good; what is measured on them may
    be cut.
NO_DATA
    A missing corner, or a gap between detectors: pixels that nothing looked
    at. Variance is infinite there, as in LSST's coadds, and the image is 0
    (LSST's is what its interpolation leaves).
DETECTED
    Footprints, set by `set_detected`.

The variance of BAD and SAT pixels is that of good ones: only the mask tells.
"""

__all__ = [
    "IGNORED_PLANES",
    "MASK_PLANES",
    "add_defects",
    "flagged",
    "full_well",
    "plane_bit",
    "set_detected",
]

import math

import numpy as np
import scipy.ndimage

from ..errors import ImageError, SurveyError

MASK_PLANES = {
    "BAD": 0,
    "SAT": 1,
    "INTRP": 2,
    "CR": 3,
    "EDGE": 4,
    "DETECTED": 5,
    "DETECTED_NEGATIVE": 6,
    "SUSPECT": 7,
    "NO_DATA": 8,
}
"""Bit of each mask plane, as LSST's images number them."""

IGNORED_PLANES = ("BAD", "NO_DATA")
"""Planes of pixels that say nothing of the sky, and that detection leaves out."""

_HOT = (10.0, 100.0)


def plane_bit(name):
    """The value that a mask plane adds to a pixel [`int`]."""
    if name not in MASK_PLANES:
        raise ImageError(f"Unknown mask plane {name!r}: expected one of {', '.join(MASK_PLANES)}")
    return 1 << MASK_PLANES[name]


def flagged(mask, planes=IGNORED_PLANES):
    """Pixels that have any of some planes set.

    Parameters
    ----------
    mask : `numpy.ndarray` [..., y, x] of integers
    planes : `str` or iterable of `str`

    Returns
    -------
    flagged : `numpy.ndarray` [..., y, x] of `bool`
    """
    planes = (planes,) if isinstance(planes, str) else planes
    bits = sum(plane_bit(name) for name in set(planes))
    return (np.asarray(mask) & bits) != 0


def full_well(saturation, survey):
    """Full well of each band.

    Parameters
    ----------
    saturation : `float`, sequence of `float` or `None`
        One for all bands, or one for each [image unit]; `None` where nothing
        saturates.
    survey : `Survey`

    Returns
    -------
    levels : `numpy.ndarray`, float64 [band]
        Infinite where nothing saturates.

    Raises
    ------
    SurveyError
        If their number is not that of the bands.
    """
    if saturation is None:
        return np.full(len(survey), math.inf)
    levels = np.asarray(saturation, np.float64)
    if levels.ndim and levels.shape != (len(survey),):
        raise SurveyError(
            f"saturation has {levels.size} levels for the {len(survey)} bands {', '.join(survey.band_names)} "
            f"of {survey.name}: give one for all or one for each"
        )
    return np.broadcast_to(levels, len(survey)).copy()


def add_defects(images, variance, mask, survey, settings, rng):
    """Spoil a field's pixels, in place, and mark them.

    The order is that of nature: saturation, bad pixels, missing data.

    Parameters
    ----------
    images, variance : `numpy.ndarray` [band, y, x] of `float32`
        With noise, sky-subtracted [image unit, and its square].
    mask : `numpy.ndarray` [band, y, x] of `uint32`
    survey : `Survey`
    settings : `FieldSettings`
        Its ``saturation``, ``bad_pixels``, ``bad_columns``, ``edge_width``,
        ``gap_width`` and ``missing_corner``.
    rng : `numpy.random.Generator`
    """
    levels = full_well(settings.saturation, survey)
    corner = _corner(images.shape[1:], settings.missing_corner, rng)
    for plane, band_variance, flags, band, level in zip(images, variance, mask, survey.bands, levels):
        if np.isfinite(level):
            _saturate(plane, flags, level)
        _spoil(plane, flags, band, settings.bad_pixels, settings.bad_columns, rng)
        missing = corner | _gap(plane.shape, settings.gap_width, rng)
        plane[missing], band_variance[missing] = 0.0, np.inf
        # Nothing else is known of a pixel that nothing looked at.
        flags[missing] = plane_bit("NO_DATA")
    width = settings.edge_width
    if width:
        border = np.ones(images.shape[1:], bool)
        border[width:-width, width:-width] = False
        mask[:, border] |= np.uint32(plane_bit("EDGE"))


def _saturate(image, flags, level):
    full = image >= level
    image[full] = level
    flags[scipy.ndimage.binary_dilation(full, np.ones((3, 3), bool))] |= np.uint32(plane_bit("SAT"))


def _spoil(image, flags, band, pixel_fraction, columns_per_thousand, rng):
    """Hot and dead pixels and columns, each kind half of them."""
    ny, nx = image.shape
    pixels = rng.choice(image.size, rng.binomial(image.size, pixel_fraction), replace=False)
    columns = rng.choice(nx, min(rng.poisson(columns_per_thousand * nx / 1000), nx), replace=False)
    # A blocked column is lost from some row to its end.
    starts = rng.integers(ny, size=len(columns))
    dead = -band.sky_level / band.electrons_per_unit
    hot = math.sqrt(band.sky_level) / band.electrons_per_unit * rng.uniform(*_HOT, len(pixels) + len(columns))
    values = np.where(rng.random(len(hot)) < 0.5, hot, dead)
    bad = np.uint32(plane_bit("BAD"))
    where = np.unravel_index(pixels, image.shape)
    image[where] = values[: len(pixels)]
    flags[where] |= bad
    for column, start, value in zip(columns, starts, values[len(pixels) :]):
        image[start:, column] = value
        flags[start:, column] |= bad


def _corner(shape, share, rng):
    """A triangle at one of the corners, the same in all bands."""
    turn = int(rng.integers(4))
    ny, nx = shape
    rows, columns = np.ogrid[:ny, :nx]
    rows, columns = (rows + 0.5) / ny, (columns + 0.5) / nx
    if turn & 1:
        columns = 1 - columns
    if turn & 2:
        rows = 1 - rows
    return rows + columns < share


def _gap(shape, width, rng):
    """A stripe across the image, along rows or columns; each band has its own."""
    missing = np.zeros(shape, bool)
    axis = int(rng.integers(2))
    first = int(rng.integers(max(shape[axis] - width, 0) + 1))
    missing[(slice(None),) * axis + (slice(first, first + width),)] = width > 0
    return missing


def set_detected(mask, detection):
    """Set the plane DETECTED from footprints, in place.

    Parameters
    ----------
    mask : `numpy.ndarray` [band, y, x] of integers
        Bits of `MASK_PLANES`.
    detection : `Detection`
        Each band gets the footprints that are significant in it, as LSST's
        detection of single bands leaves them; the plane is cleared before.

    Raises
    ------
    ImageError
        If shapes do not fit.
    """
    bands = len(detection.parents[0].footprint_bands) if detection.parents else len(mask)
    if mask.ndim != 3 or mask.shape != (bands, *detection.segmentation.shape):
        raise ImageError(
            f"Mask has shape {mask.shape}: expected {(bands, *detection.segmentation.shape)}, as the images "
            "that were searched"
        )
    bit = mask.dtype.type(plane_bit("DETECTED"))
    mask &= ~bit
    # Row 0 is the pixels of no footprint.
    seen = np.zeros((len(detection.parents) + 1, bands), bool)
    for parent in detection.parents:
        seen[parent.id] = parent.footprint_bands
    for plane, of_band in zip(mask, seen.T):
        plane[of_band[detection.segmentation]] |= bit
