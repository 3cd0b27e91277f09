# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deblend sources of a multi-band cube with a trained network."""

from dataclasses import dataclass

import numpy as np

from ..errors import ImageError
from ..simulation.geometry import overlap
from .fluxes import solve_amplitudes
from .posterior import draw_posterior
from .refine import refine
from .stamps import check_cube, cut_stamps

__all__ = ["DeblendResult", "DeblendSettings", "deblend_blend", "stamp_chi2"]

# Sources whose PSFs are kept, of a tenth of a megabyte each.
_MOST_PSFS = 2000


@dataclass(frozen=True)
class DeblendSettings:
    """Settings of `deblend_blend`.

    Parameters
    ----------
    joint_fluxes : `bool`
        Solve the fluxes of all overlapping models together (else: keep the
        network's own fluxes)?
    prior_width : `float`
        Relative width of the expectation that fluxes are the network's own;
        it rules where a band is too faint to be measured.  0 for none.
    min_core_coverage : `float`
        A source whose central 8 x 8 pixels have less good ones, in the best
        band, is not deblended.
    batch_size : `int`
        Stamps that go through the network together.
    refine : `bool`
        Maximise the joint posterior of latents, centres and fluxes of all
        sources, from the one pass on; see `~.refine.refine`?
    max_steps : `int`
        How often refinement visits each source at most.
    latent_weight : `float`
        Weight that refinement gives the latents' prior: at 1 it is the most
        probable galaxy, and shapes of faint ones are biased towards round.
    model_error : `float`
        Relative error that refinement expects of the models' pixels: what a
        bright galaxy's model misses is not for its faint neighbour to explain.
    flux_tie : `float`
        Relative width within which refinement holds fluxes to those of the
        one pass, lest it take the light of neighbours that were not detected;
        0 for none.
    n_samples : `int`
        Draws from the posterior of each source; see `~.posterior`.
    seed : `int`
        Seed of the draws.
    """

    joint_fluxes: bool = True
    prior_width: float = 0.3
    min_core_coverage: float = 0.2
    batch_size: int = 256
    refine: bool = False
    max_steps: int = 4
    latent_weight: float = 0.3
    model_error: float = 0.02
    flux_tie: float = 0.05
    n_samples: int = 0
    seed: int = 0


@dataclass
class DeblendResult:
    """Models of n sources.

    What only refinement tells is `None` without it.

    Attributes
    ----------
    models : `numpy.ndarray`, float32 ``[n, band, y, x]``
        Noiseless PSF-convolved images of the sources, image unit; NaN where
        ``failed``.
    origins : `numpy.ndarray`, int64 ``[n, 2]``
        y and x of each model's first pixel in the cube.
    fluxes, flux_errors : `numpy.ndarray`, float64 ``[n, band]``
        Sums of the models, and the standard deviations that pixel noise gives
        them with all overlapping sources free: without what the expectation
        of ``prior_width`` gains, and without errors of shapes but after
        refinement; NaN where the network's own flux stands.
    latent_mean, latent_sigma : `numpy.ndarray`, float32 ``[n, latent]``
        Approximate posterior: the encoder's, or that of refinement.
    coverage : `numpy.ndarray`, float32 ``[n]``
        Fraction of good pixels of the stamp, in the best band.
    missing_bands : `numpy.ndarray` of `bool`, ``[n, band]``
        The band has no good pixel in the stamp; its model is the network's
        guess from the other bands.
    edge : `numpy.ndarray` of `bool`, ``[n]``
        The stamp reaches beyond the cube.
    failed : `numpy.ndarray` of `bool`, ``[n]``
        Too few good pixels at the centre, or a centre outside the cube.
    novelty : `numpy.ndarray`, float64 ``[n]``
        How unlike the galaxies of the network's training a source is: the
        squared Mahalanobis distance of its refined latents from theirs, along
        the directions that pixels can tell, divided by the number of latents.
        NaN without refinement (a deblender's encoder takes liberties where
        the decoder does not mind), for networks whose card does not tell, and
        where ``failed``.
    noise : `numpy.ndarray`, float32 ``[n, band]``
        Standard deviation of the background about the source; infinite for a
        missing band, NaN where ``failed``.
    chi2 : `numpy.ndarray`, float64 ``[n]``, or `None`
        See `stamp_chi2`.
    iterations : `numpy.ndarray`, int64 ``[n]``, or `None`
        Steps of refinement that improved the source.
    converged : `numpy.ndarray` of `bool`, ``[n]``, or `None`
        Refinement ended before its last visit.
    shifts : `numpy.ndarray`, float64 ``[n, 2]``, or `None`
        y and x of the sources about the middle of their stamps [pixel], where
        the network knows none but centred galaxies.
    covariance : `numpy.ndarray`, float32 ``[n, parameter, parameter]``, or `None`
        Of latents, shifts (where the network knows none) and fluxes, what
        overlaps held; NaN where ``failed``.
    draws : `numpy.ndarray` of `~.posterior.PosteriorDraws`, ``[n]``, or `None`
        Of each source, where any were asked for; `None` where ``failed``.
    """

    models: np.ndarray
    origins: np.ndarray
    fluxes: np.ndarray
    flux_errors: np.ndarray
    latent_mean: np.ndarray
    latent_sigma: np.ndarray
    coverage: np.ndarray
    missing_bands: np.ndarray
    edge: np.ndarray
    failed: np.ndarray
    novelty: np.ndarray
    noise: np.ndarray
    chi2: np.ndarray | None = None
    iterations: np.ndarray | None = None
    converged: np.ndarray | None = None
    shifts: np.ndarray | None = None
    covariance: np.ndarray | None = None
    draws: np.ndarray | None = None

    def scene(self, shape):
        """Sum of all models on the pixels of the cube.

        Parameters
        ----------
        shape : `tuple`
            (band, y, x) of the cube.

        Returns
        -------
        scene : `numpy.ndarray`, float32 ``[band, y, x]``
            Image unit.
        """
        scene = np.zeros(shape, np.float32)
        for k in np.flatnonzero(~self.failed):
            in_cube, in_stamp = overlap(self.origins[k], self.models.shape[-1], shape[1:])
            scene[:, *in_cube] += self.models[k][:, *in_stamp]
        return scene


def deblend_blend(
    images,
    variance,
    centres,
    network,
    *,
    bad=None,
    psfs=None,
    settings=DeblendSettings(),  # noqa: B008  it is frozen
    known=None,
    progress=None,
):
    """Give every source of a cube its own model.

    Each source gets a stamp, the network draws the central galaxy out of it,
    and the fluxes of all models are then solved together, band by band. From
    there all are refined together, if ``settings`` ask for it.

    Parameters
    ----------
    images, variance : array-like, ``[band, y, x]``
        Pixels and their variance, bands in the network's order.
    centres : array-like, ``[n, 2]``
        y and x of the sources, in pixels, 0-based with centres at integers.
    network : `~..network.model.Network`
        A trained network.
    bad : array-like of `bool`, ``[y, x]`` or ``[band, y, x]``, optional
        Pixels to leave out.
    psfs : array-like, ``[band, y, x]``, or callable, optional
        PSF images with the pixel, centred on their middle pixel, for
        conditional networks: for the whole cube, or a function from centres
        ``[n, 2]`` to ``[n, band, y, x]``. The survey's own by default.
    settings : `DeblendSettings`, optional
        Settings.
    known : `DeblendResult`, optional
        What an earlier call on the same cube, without refinement, made of the
        first of these sources: they are not encoded again.
    progress : callable, optional
        Called with the number of sources done and their total, each batch: of
        the one pass, and of each round of refinement those that it visits.

    Returns
    -------
    result : `DeblendResult`
        Models, fluxes and flags, in the order of ``centres``.

    Raises
    ------
    ImageError
        Raised if shapes do not fit, the number of bands is not the network's,
        or known sources were refined or are more than there are centres.
    """
    images, variance, good = check_cube(images, variance, bad)
    if len(images) != len(network.bands):
        raise ImageError(
            f"the images have {len(images)} bands, the model {network.package.name!r} takes "
            f"{len(network.bands)} ({', '.join(network.bands)})"
        )
    centres = np.asarray(centres, dtype=float)
    if centres.size and centres.shape[1:] != (2,):
        raise ImageError(f"centres have shape {centres.shape}: expected [n, 2], y and x of each source")
    centres = centres.reshape(-1, 2)
    n, shape, size = len(centres), images.shape[1:], network.stamp_size
    psfs = _remembering(psfs)
    with np.errstate(invalid="ignore"):
        inside = ((centres >= -0.5) & (centres < np.array(shape) - 0.5)).all(axis=1)
    result = DeblendResult(
        models=np.full((n, len(images), size, size), np.nan, np.float32),
        origins=np.zeros((n, 2), np.int64),
        fluxes=np.full((n, len(images)), np.nan),
        flux_errors=np.full((n, len(images)), np.nan),
        latent_mean=np.full((n, network.latent_dim), np.nan, np.float32),
        latent_sigma=np.full((n, network.latent_dim), np.nan, np.float32),
        coverage=np.zeros(n, np.float32),
        missing_bands=np.ones((n, len(images)), bool),
        edge=np.ones(n, bool),
        failed=np.ones(n, bool),
        novelty=np.full(n, np.nan),
        noise=np.full((n, len(images)), np.nan, np.float32),
    )
    n_known = 0 if known is None else len(known.failed)
    refined = known is not None and known.iterations is not None
    if n_known > n or refined:
        state = "refined" if refined else "unrefined"
        raise ImageError(f"{n_known} {state} sources are known: expected the first of the {n}, unrefined")
    for start in range(0, n_known, settings.batch_size):
        _again(known, slice(start, min(start + settings.batch_size, n_known)), network, result, psfs, centres)
    for start in range(n_known, n, settings.batch_size):
        index = np.flatnonzero(inside[start : start + settings.batch_size]) + start
        stamps = cut_stamps(images, variance, centres[index], size, good)
        _one_pass(stamps, index, network, settings, shape, result, psfs, centres)
        if progress is not None:
            progress(min(start + settings.batch_size, n), n)
    done = np.flatnonzero(~result.failed)
    if (settings.joint_fluxes or settings.refine) and done.size:
        _joint_fluxes(images, variance, good, done, settings, result)
    if settings.refine:
        _refine(images, variance, good, done, centres, network, settings, result, psfs, progress)
    result.fluxes[done] = result.models[done].sum(axis=(2, 3), dtype=np.float64)
    if settings.n_samples:
        result.draws = np.full(n, None)
        for k in done:
            seen = psfs(centres[[k]])[0] if callable(psfs) else psfs
            # The place, as numbers of sources change with others.
            seed = [settings.seed, *centres[k].view(np.uint64).tolist()]
            result.draws[k] = draw_posterior(result, k, network, settings.n_samples, seed=seed, psfs=seen)
    return result


def stamp_chi2(residual, variance, good, result):
    """How well models explain the stamps of their sources.

    Parameters
    ----------
    residual, variance : `numpy.ndarray`, ``[band, y, x]``
        Pixels less all models, and the variance.
    good : `numpy.ndarray` of `bool`, ``[band, y, x]``
        Pixels to use.
    result : `DeblendResult`
        Of the same pixels.

    Returns
    -------
    chi2 : `numpy.ndarray`, float64 ``[n]``
        Mean of residual^2 / variance over the good pixels of each stamp; NaN
        where ``failed``, or where there are none.
    """
    chi2 = np.full(len(result.failed), np.nan)
    for k in np.flatnonzero(~result.failed):
        in_cube, _ = overlap(result.origins[k], result.models.shape[-1], residual.shape[1:])
        use = good[:, *in_cube]
        if use.any():
            left, noise2 = (cube[:, *in_cube][use].astype(np.float64) for cube in (residual, variance))
            chi2[k] = np.mean(left**2 / noise2)
    return chi2


def _remembering(psfs):
    """PSFs that are asked for once each, as far as memory allows."""
    if not callable(psfs):
        return psfs
    known = {}

    def remembered(centres):
        places = list(map(tuple, centres))
        new = [place for place in dict.fromkeys(places) if place not in known]
        if len(known) + len(new) > _MOST_PSFS:
            return psfs(centres)
        if new:
            known.update(zip(new, psfs(np.array(new)), strict=True))
        return np.stack([known[place] for place in places])

    return remembered


def _one_pass(stamps, index, network, settings, shape, result, psfs, centres):
    """Run a batch of stamps through the network, into ``result``."""
    size = stamps.images.shape[-1]
    result.origins[index] = stamps.origins
    result.coverage[index] = stamps.coverage.max(axis=1, initial=0)
    result.missing_bands[index] = stamps.coverage == 0
    result.edge[index] = (stamps.origins < 0).any(axis=1) | (stamps.origins + size > np.array(shape)).any(
        axis=1
    )
    usable = stamps.core_coverage.max(axis=1, initial=0) >= settings.min_core_coverage
    if not usable.any():
        return
    index = index[usable]
    # A band without data has infinite noise.
    noise = np.where(np.isfinite(stamps.noise[usable]), stamps.noise[usable], np.inf)
    if callable(psfs):
        psfs = psfs(centres[index])
    models, mean, sigma = network.deblend(stamps.images[usable], noise, settings.batch_size, psfs)
    result.models[index], result.latent_mean[index], result.latent_sigma[index] = models, mean, sigma
    result.noise[index] = noise
    result.failed[index] = ~np.isfinite(models).all(axis=(1, 2, 3))
    result.models[index[result.failed[index]]] = np.nan


def _again(known, part, network, result, psfs, centres):
    """Put known sources into ``result``, with the network's own fluxes."""
    told = "origins", "latent_mean", "latent_sigma", "coverage", "missing_bands", "edge", "failed", "noise"
    for name in told:
        getattr(result, name)[part] = getattr(known, name)[part]
    index = np.arange(part.start, part.stop)[~known.failed[part]]
    seen = psfs(centres[index]) if callable(psfs) else psfs
    if index.size:
        result.models[index] = network.decode(known.latent_mean[index], known.noise[index], len(index), seen)


def _weights(variance, good):
    """Inverse variances, 0 where a pixel is not good."""
    return np.where(good, 1.0 / np.where(good, variance, 1.0), 0.0)


def _joint_fluxes(images, variance, good, done, settings, result):
    amplitude, error = solve_amplitudes(
        np.where(good, images, 0).astype(np.float32),
        _weights(variance, good).astype(np.float32),
        result.models[done],
        result.origins[done],
        settings.prior_width,
    )
    flux = result.models[done].sum(axis=(2, 3), dtype=np.float64)
    # No weight at all: the network's own flux stands, without an error.
    amplitude = np.where(np.isfinite(amplitude), amplitude, 1.0)
    result.models[done] *= amplitude.astype(np.float32)[:, :, None, None]
    result.flux_errors[done] = np.abs(flux) * error


def _refine(images, variance, good, done, centres, network, settings, result, psfs, progress):
    n = len(result.failed)
    result.chi2 = np.full(n, np.nan)
    result.iterations, result.converged = np.zeros(n, np.int64), np.zeros(n, bool)
    result.shifts = np.zeros((n, 2))
    parameters = network.latent_dim + 2 * (not network.knows_shifts) + len(images)
    result.covariance = np.full((n, parameters, parameters), np.nan, np.float32)
    if not done.size:
        return
    if callable(psfs):
        psfs_of = lambda index: psfs(centres[done[index]])  # noqa: E731
    else:
        psfs_of = None if psfs is None else lambda index: psfs
    error = settings.model_error * result.scene(images.shape)
    refined = refine(
        np.where(good, images, 0).astype(np.float32),
        _weights(variance + error**2, good).astype(np.float32),
        result.origins[done],
        centres[done],
        result.latent_mean[done],
        result.models[done].sum(axis=(2, 3), dtype=np.float64),
        result.noise[done],
        network,
        psfs=psfs_of,
        prior_width=settings.prior_width,
        latent_weight=settings.latent_weight,
        flux_tie=settings.flux_tie,
        max_steps=settings.max_steps,
        progress=progress,
    )
    templates = refined.templates[:, network.architecture.template_of_band]
    result.models[done] = templates * refined.fluxes.astype(np.float32)[:, :, None, None]
    result.latent_mean[done] = refined.latents
    result.chi2 = stamp_chi2(refined.residual, variance, good, result)
    result.iterations[done] = refined.iterations
    result.converged[done], result.shifts[done] = refined.converged, refined.shifts
    result.covariance[done] = refined.covariance
    # Rounding may leave a little less than nothing.
    sigma = np.sqrt(np.maximum(np.diagonal(refined.covariance, axis1=1, axis2=2), 0))
    result.latent_sigma[done] = sigma[:, : network.latent_dim]
    if network.has_latent_prior:
        result.novelty[done] = refined.novelty
    # What a flux gains in error where shapes are free too.
    held = result.noise[done] ** 2 / np.maximum(np.square(templates).sum(axis=(2, 3)), 1e-30)
    freed = np.maximum(sigma[:, -len(images) :] ** 2 - held, 0)
    result.flux_errors[done] = np.sqrt(result.flux_errors[done] ** 2 + freed)
