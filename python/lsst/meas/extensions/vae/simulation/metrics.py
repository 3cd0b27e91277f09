# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a scene's truth says about how hard it is: blendedness, SNR, shape.

Images are noiseless and PSF-convolved, of one band, arrays [y, x].
"""

__all__ = ["b_closest", "b_tot", "ksb_shear", "snr"]

import numpy as np


def _inner(a, b):
    return float(np.vdot(np.asarray(a, np.float64), np.asarray(b, np.float64)))


def b_closest(target, neighbour):
    """Overlap of the target with its nearest neighbour.

    Parameters
    ----------
    target, neighbour : `numpy.ndarray` [y, x]
        Images C and N, any one unit.

    Returns
    -------
    b : `float`
        <C,N> / sqrt(<C,C> <N,N>), 0 to 1; NaN if either image is empty.
    """
    norm = np.sqrt(_inner(target, target) * _inner(neighbour, neighbour))
    return _inner(target, neighbour) / norm if norm > 0 else np.nan


def b_tot(target, scene):
    """Share of the scene, weighted by the target, that is not the target's.

    Parameters
    ----------
    target, scene : `numpy.ndarray` [y, x]
        Images C and T (the target included), any one unit.

    Returns
    -------
    b : `float`
        1 - <C,C> / <C,T>, 0 to 1; NaN if the target is empty.
    """
    norm = _inner(target, scene)
    return 1.0 - _inner(target, target) / norm if norm > 0 else np.nan


def snr(target, sky):
    """Signal-to-noise ratio of an isolated galaxy, sky and photon noise.

    Parameters
    ----------
    target : `numpy.ndarray` [..., y, x]
        Image C [electrons].
    sky : `float` or `numpy.ndarray` [...]
        Sky level [electrons per pixel].

    Returns
    -------
    snr : `float` or `numpy.ndarray` [...] of `float64`
        sqrt(sum C^2 / (C + sky)).
    """
    target = np.asarray(target)
    if target.dtype != np.float32:
        target = target.astype(np.float64)
    sky = np.asarray(sky, target.dtype)[..., None, None]
    # A drawn profile may ripple below zero by a part in 10^5: no such pixel may divide by zero.
    noise = np.maximum(target, 0.0) + sky
    terms = np.zeros_like(noise)
    np.divide(target * target, noise, out=terms, where=True if (sky > 0).all() else noise > 0)
    value = np.sqrt(terms.sum(axis=(-2, -1), dtype=np.float64))
    return float(value) if value.ndim == 0 else value


def ksb_shear(image, psf, x=None, y=None):
    """PSF-corrected ellipticity by GalSim's HSM, KSB method.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x]
        Galaxy, any unit.
    psf : `numpy.ndarray` [y, x]
        PSF on the same pixel scale, any unit.
    x, y : `float`, optional
        Galaxy's centre [pixel]; the image's centre if absent.

    Returns
    -------
    e1, e2 : `float`
        Reduced-shear convention, |e| = (a - b) / (a + b); NaN on failure.
    failed : `bool`
        HSM gave up, or |e| is above 1.
    """
    import galsim

    ny, nx = image.shape
    guess = galsim.PositionD(1 + ((nx - 1) / 2 if x is None else x), 1 + ((ny - 1) / 2 if y is None else y))
    result = galsim.hsm.EstimateShear(
        galsim.Image(np.ascontiguousarray(image, np.float64)),
        galsim.Image(np.ascontiguousarray(psf, np.float64)),
        shear_est="KSB",
        guess_centroid=guess,
        strict=False,
    )
    e1, e2 = float(result.corrected_g1), float(result.corrected_g2)
    if result.error_message or not np.hypot(e1, e2) <= 1:
        return np.nan, np.nan, True
    return e1, e2, False
