# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""How near images of galaxies are to the true ones, pixel by pixel and in their fluxes.

Images are arrays ``[..., y, x]`` of any unit, which both share. Structural similarity is ten lines of filters
here: scikit-image has it too, but brings image readers and graphs with it, four packages for one number.
"""

import numpy as np

__all__ = ["colour_pairs", "cosine_similarity", "residual_chi2", "ssim"]

# Wang et al. 2004, section III.C: the window, and the constants that keep the ratio stable.
_WINDOW_SIGMA, _WINDOW_RADIUS = 1.5, 5
_K1, _K2 = 0.01, 0.03


def colour_pairs(bands):
    """Bands whose magnitudes make colours.

    Parameters
    ----------
    bands : sequence of `str`
        In order of wavelength.

    Returns
    -------
    pairs : `list` [(`str`, `str`)]
        Adjacent bands, and g and r where they are not adjacent.
    """
    bands = list(bands)
    pairs = list(zip(bands[:-1], bands[1:]))
    if {"g", "r"} <= set(bands) and ("g", "r") not in pairs:
        pairs.append(("g", "r"))
    return pairs


def cosine_similarity(images, targets):
    """Cosine of the angle between images, as vectors of their pixels.

    Parameters
    ----------
    images, targets : `numpy.ndarray` ``[..., y, x]``

    Returns
    -------
    cosine : `numpy.ndarray`, float64 ``[...]``
        sum(a b) / sqrt(sum(a^2) sum(b^2)): 1 where they differ by a factor alone; NaN where one is empty or
        not finite.
    """
    images, targets = (np.asarray(array, np.float64) for array in (images, targets))
    with np.errstate(invalid="ignore", divide="ignore"):
        norm = np.sqrt(np.square(images).sum(axis=(-2, -1)) * np.square(targets).sum(axis=(-2, -1)))
        return np.where(norm > 0, (images * targets).sum(axis=(-2, -1)) / norm, np.nan)


def ssim(images, targets):
    """Mean structural similarity (Wang, Bovik, Sheikh & Simoncelli 2004, IEEE TIP 13, 600, equation 13).

    Means, variances and the covariance are those within a round Gaussian window of 11 x 11 pixels and sigma
    1.5; the mean is over all places of the window that are whole on the stamp. The dynamic range L is that of
    the target, its highest less its lowest pixel. Most of a stamp is empty sky, whose noise weighs as much as
    a galaxy's core here.

    Parameters
    ----------
    images, targets : `numpy.ndarray` ``[..., y, x]``
        At least 11 pixels a side.

    Returns
    -------
    ssim : `numpy.ndarray`, float64 ``[...]``
        1 where they are the same; NaN where the target is constant or an image not finite.
    """
    from scipy.ndimage import gaussian_filter1d

    images, targets = (np.asarray(array, np.float64) for array in (images, targets))
    inner = (..., *(slice(_WINDOW_RADIUS, -_WINDOW_RADIUS),) * 2)

    def mean(array):
        for axis in (-2, -1):
            array = gaussian_filter1d(array, _WINDOW_SIGMA, axis=axis, radius=_WINDOW_RADIUS)
        return array[inner]

    reach = np.ptp(targets, axis=(-2, -1))
    c1, c2 = (np.square(k * reach)[..., None, None] for k in (_K1, _K2))
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = mean(images), mean(targets)
        variances = mean(images * images) - a * a + mean(targets * targets) - b * b
        covariance = mean(images * targets) - a * b
        ratio = (2 * a * b + c1) * (2 * covariance + c2) / ((a * a + b * b + c1) * (variances + c2))
        return np.where(reach > 0, ratio.mean(axis=(-2, -1)), np.nan)


def residual_chi2(images, targets, variance):
    """Mean square of what an image has more or less than the true one, in units of the noise.

    What a scene leaves once a model is subtracted tells of all of its galaxies together. This is of one
    alone: 0 for the truth, below 1 for a model that is better than the noisy pixels are, and 1 for the target
    as it would be observed alone under the same noise.

    Parameters
    ----------
    images, targets : `numpy.ndarray` ``[..., band, y, x]``
    variance : `numpy.ndarray`, broadcastable to them
        Of the noise of the scene that was deblended [unit of the images, squared].

    Returns
    -------
    chi2 : `numpy.ndarray`, float64 ``[...]``
        Mean over pixels and bands of (image - target)^2 / variance; NaN where an image is not finite.
    """
    residual = np.asarray(images, np.float64) - targets
    with np.errstate(invalid="ignore", over="ignore"):
        chi2 = (np.square(residual) / variance).mean(axis=(-3, -2, -1))
    return np.where(np.isfinite(chi2), chi2, np.nan)
