# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws from the posterior of a deblended source: what its shape and fluxes may as well be.

After refinement, the posterior of latents, shift and fluxes is the Gaussian whose covariance is the curvature
at the maximum (Laplace's approximation); after one pass, that of the encoder, with the fluxes' own errors.
Neither knows what the decoder cannot draw: *floors*, fitted on scenes of the validation split and kept in the
package's card, are added to ellipticities and fluxes.  Some galaxies are drawn far worse than most, so these
errors have the tails of Student's t.  Nor does the curvature know how neighbours' errors go along with a
source's own, nor of other maxima: after refinement the card's *scales* widen it, and its *tails* are a
Student's t too.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from ..errors import ImageError
from ..network import fourier
from ..simulation.metrics import ksb_shear

__all__ = ["PosteriorDraws", "draw_posterior", "floor_errors", "tails"]

# Latents that are decoded together.
_BATCH = 500


# Degrees of freedom of the floors' errors.
_FLOOR_TAILS = 2


def floor_errors(rng, shape):
    """Errors of a floor of one: half of their 68 % interval is 1.

    Parameters
    ----------
    rng : `numpy.random.Generator`
    shape : `tuple` of `int`

    Returns
    -------
    errors : `numpy.ndarray`
    """
    return rng.normal(size=shape) * tails(rng, shape, _FLOOR_TAILS)


def tails(rng, shape, freedom):
    """Factors that turn Gaussian errors into Student's t with the same 68 % interval.

    Parameters
    ----------
    rng : `numpy.random.Generator`
    shape : `int` or `tuple` of `int`
    freedom : `float`
        Degrees of freedom; 0 for Gaussian errors.

    Returns
    -------
    factors : `numpy.ndarray`
    """
    if not freedom:
        return np.ones(shape)
    return np.sqrt(freedom / rng.chisquare(freedom, shape)) / student_t.ppf(0.84134, freedom)


@dataclass
class PosteriorDraws:
    """Draws of one source.

    Attributes
    ----------
    latents : `numpy.ndarray`, float64 ``[draw, latent]``
        Latents.
    shifts : `numpy.ndarray`, float64 ``[draw, 2]``
        y and x about the middle of the stamp [pixel].
    fluxes : `numpy.ndarray`, float64 ``[draw, band]``
        Image unit; below 0 where noise is more than the source.
    """

    latents: np.ndarray
    shifts: np.ndarray
    fluxes: np.ndarray
    _network: object
    _noise: np.ndarray
    _psfs: np.ndarray | None
    _transfer: np.ndarray | None
    _rng: np.random.Generator

    def shapes(self, band):
        """Noiseless images of unit flux.

        Parameters
        ----------
        band : `str`
            Band, of the network's.

        Returns
        -------
        shapes : `numpy.ndarray`, float32 ``[draw, y, x]``
            With the PSF.
        """
        network, size = self._network, self._network.stamp_size
        number = network.architecture.template_of_band[_number(network, band)]
        images = np.empty((len(self.latents), size, size), np.float32)
        for start in range(0, len(images), _BATCH):
            part = slice(start, start + _BATCH)
            drawn, _ = network.templates(self.latents[None, part], self._noise[None], self._transfer)
            images[part] = drawn[0, :, number]
            if not network.knows_shifts:
                images[part] = fourier.shifted(images[part], self.shifts[part])
        return images

    def ellipticities(self, band, psf=None):
        """Ellipticities, as the paper measures them (KSB; Arcelin et al. 2020, section 4.1).

        Parameters
        ----------
        band : `str`
            Band, of the network's.
        psf : `numpy.ndarray`, ``[y, x]``, optional
            Its PSF with the pixel; that of the draws by default, which is another than the image's where that
            was homogenised or resampled.

        Returns
        -------
        e : `numpy.ndarray`, float64 ``[draw, 2]``
            (a-b)/(a+b) times cos and sin of twice the angle, with the network's own error; NaN for draws
            without a measurable shape.
        """
        if psf is None:
            psfs = self._network.own_psfs() if self._psfs is None else self._psfs
            psf = psfs[_number(self._network, band)]
        e = np.array([ksb_shear(image, psf)[:2] for image in self.shapes(band)]).reshape(-1, 2)
        return e + floor_errors(self._rng, e.shape) * self._network.floors["shape"]

    def magnitudes(self, zero_point=0.0):
        """Magnitudes ``[draw, band]``; NaN for draws of no positive flux.

        Parameters
        ----------
        zero_point : `float` or array-like ``[band]``, optional
            Magnitude of one unit of flux.
        """
        good = self.fluxes > 0
        return np.where(good, zero_point - 2.5 * np.log10(np.where(good, self.fluxes, 1.0)), np.nan)


def draw_posterior(result, index, network, n_samples, *, seed=0, psfs=None):
    """Draw from the posterior of one source.

    Parameters
    ----------
    result : `~.blend.DeblendResult`
        From `~.blend.deblend_blend`, in the network's bands and unit.
    index : `int`
        Which source.
    network : `~..network.model.Network`
        The network that made it.
    n_samples : `int`
        How many draws; 10 000 take seconds (Arcelin et al. 2020, figure C1).
    seed : `int` or sequence of `int`, optional
        The same seed gives the same draws; of one number, others for each source.
    psfs : array-like, ``[band, y, x]``, optional
        PSF images at the source, for conditional networks; the survey's own by default.

    Returns
    -------
    draws : `PosteriorDraws`

    Raises
    ------
    ImageError
        Raised if there is no such source, it has no model, or the number of draws is not positive.
    """
    n = len(result.failed)
    if not -n <= index < n:
        raise ImageError(f"there is no source {index}: expected 0 to {n - 1}")
    if result.failed[index]:
        raise ImageError(f"source {index} has no model (failed): there is nothing to draw from")
    if n_samples < 1:
        raise ImageError(f"n_samples is {n_samples}: expected 1 at least")
    rng = np.random.default_rng(seed if np.ndim(seed) else [seed, index % n])
    latents, fluxes = result.latent_mean[index].astype(float), result.fluxes[index]
    shift = np.zeros(2) if result.shifts is None else result.shifts[index]
    shifts = np.broadcast_to(shift, (n_samples, 2))
    if result.covariance is not None:
        free_shift = np.zeros(0) if network.knows_shifts else shift
        mean = np.concatenate([latents, free_shift, fluxes])
        values, vectors = np.linalg.eigh(result.covariance[index].astype(float))
        spread = vectors * np.sqrt(np.maximum(values, 0.0))
        spread[: -len(fluxes)] *= network.floors["shape_scale"]
        spread[-len(fluxes) :] *= network.floors["flux_scale"]
        draws = rng.normal(size=(n_samples, len(mean))) @ spread.T
        draws = mean + draws * tails(rng, (n_samples, 1), network.floors["tails"])
        latents, fluxes = draws[:, : len(latents)], draws[:, -len(fluxes) :]
        if not network.knows_shifts:
            shifts = draws[:, latents.shape[1] : latents.shape[1] + 2]
    else:
        latents = latents + rng.normal(size=(n_samples, len(latents))) * result.latent_sigma[index]
        errors = np.nan_to_num(result.flux_errors[index])
        fluxes = fluxes + rng.normal(size=(n_samples, len(fluxes))) * errors
    # One error for all bands: what a shape lacks, it lacks in all of them.
    fluxes = fluxes * np.exp(network.floors["flux"] * floor_errors(rng, (n_samples, 1)))
    return PosteriorDraws(
        latents, shifts, fluxes, network, result.noise[index], psfs, network.transfer(psfs, 1), rng
    )


def _number(network, band):
    if band not in network.bands:
        raise ImageError(
            f"model {network.package.name!r} has no band {band!r}: expected one of {', '.join(network.bands)}"
        )
    return network.bands.index(band)
