# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure one source from its image, its PSFs and its surroundings."""

from dataclasses import dataclass

import numpy as np

from ..simulation.metrics import b_tot, ksb_shear

__all__ = ["SourceMeasurement", "magnitudes", "measure_source"]


@dataclass
class SourceMeasurement:
    """What was measured of one source; NaN and a flag where it failed.

    Attributes
    ----------
    e1, e2 : `float`
        PSF-corrected ellipticity, reduced-shear convention
        |e| = (a - b) / (a + b), by HSM's KSB (Arcelin et al. 2020, section 4).
    shape_failed : `bool`
        HSM gave up or gave |e| > 1.
    flux, flux_error : `numpy.ndarray`, float64 ``[band]``
        Image unit.
    snr : `float`
        Matched-filter signal to noise in the reference band,
        sqrt(sum_p model_p^2 / variance_p).
    blendedness : `float`
        1 - <C, C> / <C, T> in the reference band, C the source's model and T
        the sum of all models (section 4.1, B_tot).
    """

    e1: float
    e2: float
    shape_failed: bool
    flux: np.ndarray
    flux_error: np.ndarray
    snr: float
    blendedness: float


def measure_source(image, psf, reference, *, variance=None, scene=None, flux_error=None):
    """Measure one source.

    Parameters
    ----------
    image : `numpy.ndarray`, ``[band, y, x]``
        The source alone: a model, or pixels that are taken for it.
    psf : `numpy.ndarray`, ``[y, x]``
        PSF of the reference band on the same pixels.
    reference : `int`
        Index of the reference band.
    variance : `numpy.ndarray`, ``[band, y, x]``, optional
        Variance of the pixels; without it SNR and default flux errors are
        NaN.
    scene : `numpy.ndarray`, ``[y, x]``, optional
        Sum of all models in the reference band; without it the blendedness
        is NaN.
    flux_error : `numpy.ndarray`, ``[band]``, optional
        Errors of the fluxes, neighbours included; where absent or NaN, those
        of the best-fitting amplitude of the source's own shape alone.

    Returns
    -------
    measurement : `SourceMeasurement`
        The measurement.
    """
    image = np.asarray(image, dtype=np.float64)
    flux = image.sum(axis=(1, 2))
    snr = blendedness = np.nan
    information = np.full(len(image), np.nan)
    if variance is not None:
        usable = np.isfinite(variance) & (variance > 0)
        weight = np.where(usable, 1.0 / np.where(usable, variance, 1.0), 0.0)
        information = np.sqrt(np.sum(image**2 * weight, axis=(1, 2)))
        snr = float(information[reference])
    with np.errstate(divide="ignore", invalid="ignore"):
        alone = np.where(information > 0, np.abs(flux) / information, np.nan)
    if flux_error is None:
        flux_error = alone
    flux_error = np.where(np.isfinite(flux_error), flux_error, alone)
    if scene is not None:
        blendedness = b_tot(image[reference], scene)
    e1, e2, failed = np.nan, np.nan, True
    if np.isfinite(image[reference]).all() and flux[reference] > 0:
        e1, e2, failed = ksb_shear(image[reference], psf)
    return SourceMeasurement(e1, e2, failed, flux, flux_error, snr, blendedness)


def magnitudes(flux, flux_error, zero_flux):
    """Magnitudes of fluxes.

    Parameters
    ----------
    flux, flux_error : array-like
        Image unit.
    zero_flux : array-like
        Flux of magnitude zero, the same unit.

    Returns
    -------
    magnitude, error : `numpy.ndarray`
        NaN where the flux is not positive.
    """
    flux, flux_error = np.asarray(flux, dtype=float), np.asarray(flux_error, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        positive = flux > 0
        magnitude = np.where(positive, -2.5 * np.log10(flux / zero_flux), np.nan)
        error = np.where(positive, 2.5 / np.log(10) * flux_error / flux, np.nan)
    return magnitude, error
