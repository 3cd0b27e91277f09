# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directions of a latent space that pixels can tell apart.

A decoder of 32 latents hardly changes its galaxies along most directions: six to a dozen hold all that a
galaxy of a signal-to-noise ratio of hundreds can tell.  Refinement moves along these only, at a third of
the cost; along the others galaxies are as the prior expects.
"""

import weakref
from dataclasses import dataclass

import numpy as np

__all__ = ["Directions", "sensitive_directions"]

STEP = 0.03
"""Steps of finite differences, in standard deviations of the latents' prior."""

# What a galaxy of this signal-to-noise ratio cannot tell to so many standard deviations of the prior is left
# out; and colours that change by less than so much of the usual width of the expectation for fluxes.
_SNR, _LEAST, _FLUX_WIDTH = 300.0, 0.3, 0.3

_GALAXIES = 16

_known = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Directions:
    """Coordinates of a latent space, in which the prior is a standard normal.

    Attributes
    ----------
    mean : `numpy.ndarray`, float64 ``[latent]``
        Of the prior.
    basis : `numpy.ndarray`, float64 ``[latent, direction]``
        Latents are ``mean + basis @ coordinates``.
    inverse : `numpy.ndarray`, float64 ``[direction, latent]``
        Coordinates are ``inverse @ (latents - mean)``.
    rest : `numpy.ndarray`, float64 ``[latent, latent]``
        Covariance of the prior along the directions that are left out.
    """

    mean: np.ndarray
    basis: np.ndarray
    inverse: np.ndarray
    rest: np.ndarray

    def latents(self, coordinates):
        """Latents ``[..., latent]`` of coordinates ``[..., direction]``."""
        return self.mean + coordinates @ self.basis.T

    def coordinates(self, latents):
        """Coordinates ``[..., direction]`` nearest to latents ``[..., latent]``."""
        return (latents - self.mean) @ self.inverse.T


def sensitive_directions(network):
    """Directions of a network's latents that images depend on, found once for each network.

    Parameters
    ----------
    network : `~..network.model.Network`
        The network.

    Returns
    -------
    directions : `Directions`
    """
    if network not in _known:
        _known[network] = _find(network)
    return _known[network]


def _find(network):
    mean, covariance = network.latent_prior
    root = np.linalg.cholesky(covariance)
    n_latent = len(mean)
    noise = np.asarray(network.typical_noise, float)[None]
    band_template, transfer = network.architecture.template_of_band, network.transfer(None, 1)
    rng = np.random.default_rng(0)
    told = np.zeros((n_latent, n_latent))
    for _ in range(_GALAXIES):
        galaxy = mean + root @ rng.normal(size=n_latent)
        points = galaxy + STEP * np.vstack([np.zeros(n_latent), root.T])
        templates, fluxes = network.templates(points[None], noise, transfer, coarse=True)
        templates, fluxes = templates[0].reshape(n_latent + 1, templates.shape[2], -1), fluxes[0]
        weight = np.square(fluxes[0] / noise[0])
        weight /= weight @ np.square(templates[0, band_template]).sum(axis=1)
        slopes = (templates[1:] - templates[:1]) / STEP
        for number in range(slopes.shape[1]):
            slope = slopes[:, number]
            told += _SNR**2 * weight[band_template == number].sum() * (slope @ slope.T)
        colour = (fluxes[1:] - fluxes[0]) / (STEP * _FLUX_WIDTH * np.hypot(fluxes[0], 10 * noise[0]))
        told += colour @ colour.T
    values, vectors = np.linalg.eigh(told / _GALAXIES)
    kept = vectors[:, values > _LEAST**2][:, ::-1]
    basis = root @ kept
    return Directions(
        mean=mean,
        basis=basis,
        inverse=kept.T @ np.linalg.inv(root),
        rest=covariance - basis @ basis.T,
    )
