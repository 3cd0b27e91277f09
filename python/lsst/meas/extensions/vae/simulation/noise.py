# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Noise of sky and sources, white or correlated between pixels."""

__all__ = ["NOISE_KINDS", "add_noise", "expected_variance", "unit_noise"]

import math

import numpy as np

from ..errors import VaeError

NOISE_KINDS = ("poisson", "normal", "sky")
"""True Poisson counts of source and sky; normal deviates of the same variance; normal deviates of the sky
alone (later commits of the published code).
"""


def expected_variance(image, sky, electrons_per_unit, kind="poisson"):
    """Variance that `add_noise` gives each pixel.

    Parameters
    ----------
    image : `numpy.ndarray` [..., band, y, x]
        Noiseless and sky-subtracted [image unit].
    sky, electrons_per_unit : `numpy.ndarray` [band]
        Sky level [electrons per pixel] and electrons that an image unit stands for.
    kind : `str`
        One of `NOISE_KINDS`.

    Returns
    -------
    variance : `numpy.ndarray`, float64 [..., band, y, x]
        [image unit^2]
    """
    _check(kind)
    unit = np.asarray(electrons_per_unit, np.float64)[:, None, None]
    sky = np.asarray(sky, np.float64)[:, None, None]
    # A drawn profile may ripple below zero by a part in 10^5.
    electrons = 0.0 if kind == "sky" else np.clip(image * unit, 0.0, None)
    return np.broadcast_to((electrons + sky) / unit**2, np.shape(image)).copy()


def unit_noise(shape, rng, correlation=0.0):
    """Normal deviates of unit variance.

    Parameters
    ----------
    shape : `tuple` of `int`
        The last two axes are y and x.
    rng : `numpy.random.Generator`
    correlation : `float`
        Correlation of pixels next to each other along an axis, 0 to 0.6: white noise is smoothed with
        (a, b, a) along each axis, so that pixels two apart share a^2, as images resampled onto a coadd do.

    Returns
    -------
    noise : `numpy.ndarray`, float32
    """
    if not 0 <= correlation <= 0.6:
        raise VaeError(f"Noise correlation is {correlation!r}: expected 0 (white) to 0.6 between neighbours")
    if correlation == 0:
        return rng.standard_normal(shape, dtype=np.float32)
    # 2 a^2 + b^2 = 1 keeps the variance; 2 a b is the correlation.
    a = math.sqrt((1 - math.sqrt(1 - 2 * correlation**2)) / 4)
    b = math.sqrt(1 - 2 * a * a)
    a, b = np.float32(a), np.float32(b)
    noise = rng.standard_normal((*shape[:-2], shape[-2] + 2, shape[-1] + 2), dtype=np.float32)
    noise = a * (noise[..., :-2, :] + noise[..., 2:, :]) + b * noise[..., 1:-1, :]
    return a * (noise[..., :-2] + noise[..., 2:]) + b * noise[..., 1:-1]


def add_noise(image, sky, electrons_per_unit, rng, kind="poisson", correlation=0.0):
    """A noisy image, the expected sky subtracted.

    Parameters
    ----------
    image : `numpy.ndarray` [..., band, y, x]
        Noiseless and sky-subtracted [image unit].
    sky, electrons_per_unit : `numpy.ndarray` [band]
        Sky level [electrons per pixel] and electrons that an image unit stands for.
    rng : `numpy.random.Generator`
    kind : `str`
        One of `NOISE_KINDS`.
    correlation : `float`
        See `unit_noise`. Counts of photons are independent, so "poisson" takes none: it raises.

    Returns
    -------
    noisy : `numpy.ndarray`, float32 [..., band, y, x]

    Raises
    ------
    VaeError
        For an unknown kind, or a correlation that is out of range or meets kind "poisson".
    """
    _check(kind)
    if kind == "poisson":
        if correlation:
            raise VaeError(
                f"Poisson counts are independent, but the noise's correlation is {correlation!r}: take "
                "noise 'normal' for correlated noise"
            )
        unit = np.asarray(electrons_per_unit, np.float64)[:, None, None]
        sky = np.asarray(sky, np.float64)[:, None, None]
        counts = rng.poisson(np.clip(image * unit, 0.0, None) + sky)
        return ((counts - sky) / unit).astype(np.float32)
    sigma = np.sqrt(expected_variance(image, sky, electrons_per_unit, kind), dtype=np.float64)
    return (image + sigma * unit_noise(image.shape, rng, correlation)).astype(np.float32)


def _check(kind):
    if kind not in NOISE_KINDS:
        raise VaeError(f"Noise is {kind!r}: expected one of {', '.join(NOISE_KINDS)}")
