# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much a source overlaps with its neighbours, as scarlet measures it."""

from dataclasses import dataclass

import numpy as np

from ..errors import ImageError

__all__ = ["Overlaps", "measure_overlaps", "model_footprint"]


@dataclass(frozen=True)
class Overlaps:
    """A source's overlap with the others, one number a band.

    Attributes
    ----------
    maxOverlap : `numpy.ndarray`, float64 ``[band]``
        Largest pixel of all neighbours together within the source's
        footprint, image unit.
    fluxOverlap : `numpy.ndarray`, float64 ``[band]``
        Sum of the neighbours within the footprint, image unit.
    fluxOverlapFraction : `numpy.ndarray`, float64 ``[band]``
        That sum over the source's own flux; 0 where the source has none.
    blendedness : `numpy.ndarray`, float64 ``[band]``
        1 - <C, C> / <C, T>, C the source's model and T the sum of all models
        (Bosch et al. 2018); NaN where <C, T> is not positive.
    """

    maxOverlap: np.ndarray
    fluxOverlap: np.ndarray
    fluxOverlapFraction: np.ndarray
    blendedness: np.ndarray


def model_footprint(model, sigma, threshold=1.0):
    """Pixels where a model counts.

    Scarlet cuts its models to zero where they lie below the noise in all
    bands, and calls what is left their footprint. A network's model is nowhere
    zero, so the same threshold is set here; a source too faint for it keeps
    the pixels above half its peak.

    Parameters
    ----------
    model : array-like, ``[band, y, x]``
        The source's model, image unit.
    sigma : array-like, ``[band]``
        Standard deviation of the noise, image unit; NaN or infinite for a
        band without data.
    threshold : `float`, optional
        In units of ``sigma``; 0 for every pixel where the model is positive.

    Returns
    -------
    footprint : `numpy.ndarray` of `bool`, ``[y, x]``
        Above the threshold in some band.
    """
    model, sigma = np.asarray(model), np.asarray(sigma, dtype=np.float64)
    if sigma.shape != model.shape[:1]:
        raise ImageError(f"there are {sigma.shape} noises for a model of {model.shape}: expected one a band")
    half = 0.5 * np.nanmax(model, axis=(1, 2), initial=0.0)
    # Of NaN and a number fmin takes the number.
    limit = np.fmin(threshold * sigma, half) if threshold > 0 else np.zeros_like(half)
    return ((model > 0) & (model >= limit[:, None, None])).any(axis=0)


def measure_overlaps(model, scene, footprint):
    """Measure a source's overlap with its neighbours.

    Parameters
    ----------
    model : array-like, ``[band, y, x]``
        The source's model.
    scene : array-like, ``[band, y, x]``
        Sum of all models, this one included, on the same pixels.
    footprint : array-like of `bool`, ``[y, x]``
        Pixels in which neighbours count.

    Returns
    -------
    overlaps : `Overlaps`
        One number a band.
    """
    model, scene = np.asarray(model, dtype=np.float64), np.asarray(scene, dtype=np.float64)
    # Rounding alone makes the others negative: models are not.
    neighbours = np.maximum(scene - model, 0.0) * footprint
    flux, shared = model.sum(axis=(1, 2)), neighbours.sum(axis=(1, 2))
    product = np.sum(model * scene, axis=(1, 2))
    blank = np.full(len(model), np.nan)
    return Overlaps(
        maxOverlap=neighbours.max(axis=(1, 2), initial=0.0),
        fluxOverlap=shared,
        fluxOverlapFraction=np.divide(shared, flux, out=np.zeros(len(model)), where=flux > 0),
        blendedness=1.0
        - np.divide(np.sum(model * model, axis=(1, 2)), product, out=blank, where=product > 0),
    )
