# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far targets are from the stamp's centre: Arcelin et al. 2020, section 2.1.4."""

__all__ = ["BETA_PRIME", "MAX_PEAK_ERROR", "brightest_peak", "peak_error", "stamp_centre", "target_offset"]

import math
import warnings

import numpy as np

from .geometry import stamp_origin

BETA_PRIME = (4.449289034920325, 12.777961268954916, -0.009031368689570645, 0.2840353229095878)
"""Distribution of the distance between a galaxy and its detected peak: a, b, location and scale [arcsec] of a
beta-prime distribution, which the published code fitted to blends.
"""

MAX_PEAK_ERROR = 0.6
"""Distances drawn from `BETA_PRIME` are clipped to 0 and this [arcsec]."""


def peak_error(rng, size=None):
    """Distances between galaxies and their detected peaks.

    Parameters
    ----------
    rng : `numpy.random.Generator`
    size : `int`, optional
        How many.

    Returns
    -------
    distance : `float`, or `numpy.ndarray` [size]
        [arcsec]
    """
    a, b, location, scale = BETA_PRIME
    # A ratio of gamma variates is beta-prime.
    ratio = rng.standard_gamma(a, size) / rng.standard_gamma(b, size)
    return np.clip(location + scale * ratio, 0.0, MAX_PEAK_ERROR)


def target_offset(rng, settings, pixel_scale):
    """Where a target is placed, before any peak is looked for.

    Parameters
    ----------
    rng : `numpy.random.Generator`
    settings : `SceneSettings`
    pixel_scale : `float`
        Of the reference band [arcsec].

    Returns
    -------
    x, y : `float`
        Offset from the stamp's centre [arcsec].
    """
    offset = np.zeros(2)
    if settings.centring != "none":
        offset += rng.uniform(-0.5, 0.5, 2) * pixel_scale
    if settings.centring == "peaks" and settings.kind == "isolated":
        # No noise and no neighbours here: the errors that they cause are drawn.
        radius, angle = peak_error(rng), rng.uniform(0.0, 2 * math.pi)
        offset += radius * np.array([math.cos(angle), math.sin(angle)])
    if settings.centring_jitter > 0:
        offset += rng.normal(0.0, settings.centring_jitter, 2) * pixel_scale
    return offset.tolist()


def brightest_peak(image, threshold, max_peaks=4):
    """Find the brightest peak of an image, as the paper does with `photutils`.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x]
        Noisy, sky-subtracted.
    threshold : `float`
        Least height [unit of the image].
    max_peaks : `int`
        Where the counting of peaks ends.

    Returns
    -------
    centroid : (`float`, `float`) or `None`
        x and y [pixel] of the centre of mass of 3 x 3 pixels about the
        brightest peak; `None` if there is no peak.
    n_peaks : `int`
        Peaks found, ``max_peaks`` at most.
    """
    from photutils.centroids import centroid_com
    from photutils.detection import find_peaks

    with warnings.catch_warnings():
        # An image without peaks is an answer, not a warning.
        warnings.simplefilter("ignore")
        peaks = find_peaks(image, threshold)
    if peaks is None:
        return None, 0
    brightest = int(np.argmax(peaks["peak_value"]))
    column, row = int(peaks["x_peak"][brightest]), int(peaks["y_peak"][brightest])
    first_row, first_column = max(row - 1, 0), max(column - 1, 0)
    x, y = centroid_com(image[first_row : row + 2, first_column : column + 2])
    return (float(first_column + x), float(first_row + y)), min(len(peaks), max_peaks)


def stamp_centre(x, y, detection_size, stamp_size, how):
    """The centre of the stamp that is cut about a peak.

    Parameters
    ----------
    x, y : `float`
        Peak in the detection image [pixel].
    detection_size, stamp_size : `int`
        Sides of the two [pixel], even.
    how : `str`
        "pixel": the crossing of pixels nearest the peak; "centroid": the peak.

    Returns
    -------
    dx, dy : `float`
        Offset of the stamp's centre from that of the detection image [pixel].
    """
    middle = (detection_size - 1) / 2
    if how == "pixel":
        y0, x0 = stamp_origin(x, y, stamp_size)
        x, y = x0 + (stamp_size - 1) / 2, y0 + (stamp_size - 1) / 2
    return x - middle, y - middle
