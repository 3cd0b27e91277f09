# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The most probable latents, centres and fluxes of all sources together, given the pixels.

The encoder's answer is a good guess.  From there, Levenberg-Marquardt steps maximise

    -1/2 sum_pixels w (image - sum_k flux_k template(z_k))^2 + v log p(z) + log p(flux | z)

where p(z) is the Gaussian of the prior encoder's latents of isolated galaxies (its weight v below one makes
faint galaxies less like the usual, and so less round), and p(flux | z) lets each
band's flux differ from the decoder's by a relative width, and from the one that it starts with by another
(the encoder has learned to leave out neighbours that nobody detected; the pixels have not).  A source's own
parameters are solved for together, sources in turn: those near enough to share much light never take the
same turn, so that every step sees its neighbours as they are; farther ones, whose stamps just overlap, see
each other as they were before the turn, whatever the order of the sources.  Derivatives of the
decoder are differences, which any engine can take, along the directions of the latent space that pixels can
tell (see `~.directions`); where the PSF leaves nothing finer, they are taken of every other pixel (*coarse*
ones) only.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..network import fourier
from ..network.threads import one_blas_thread
from ..simulation.geometry import overlap
from .directions import STEP, sensitive_directions

__all__ = ["Refined", "colours", "neighbours", "refine"]

# Sources nearer than this share light, and are refined in turn [pixel].
_REACH = 20.0

# A centre may be this far from where it was said to be: sigma [pixel].
_CENTRE_SIGMA = 0.3

# Steps that a visit takes with the same derivatives, which cost more than all of these.
_SAME_SLOPES = 5

# Fluxes have relative widths above, and absolute ones below, so many times the noise of a pixel.
_FAINT = 10

# Sources that are refined together: their derivatives stay in the cache's reach.
_BATCH = 16


@dataclass
class Refined:
    """What refinement gives of n sources.

    Attributes
    ----------
    templates : `numpy.ndarray`, float32 ``[n, template, y, x]``
        Shapes.
    fluxes : `numpy.ndarray`, float64 ``[n, band]``
        Most probable fluxes, image unit.
    network_fluxes : `numpy.ndarray`, float64 ``[n, band]``
        The decoder's own at the same latents.
    latents : `numpy.ndarray`, float64 ``[n, latent]``
        Most probable latents.
    novelty : `numpy.ndarray`, float64 ``[n]``
        Squared distance from the prior's mean, in its covariance, along the directions that pixels can tell;
        divided by the number of latents.
    shifts : `numpy.ndarray`, float64 ``[n, 2]``
        y and x of the sources about the middle of their stamps [pixel]; 0 where the latents tell it.
    covariance : `numpy.ndarray`, float32 ``[n, parameter, parameter]``
        Of latents, shifts (where they are free) and fluxes, as the curvature near the maximum gives it,
        neighbours held.
    residual : `numpy.ndarray`, float32 ``[band, y, x]``
        The image less all models.
    iterations : `numpy.ndarray`, int64 ``[n]``
        Steps that were accepted.
    converged : `numpy.ndarray` of `bool`, ``[n]``
        The last step gained less than the tolerance.
    """

    templates: np.ndarray
    fluxes: np.ndarray
    network_fluxes: np.ndarray
    latents: np.ndarray
    novelty: np.ndarray
    shifts: np.ndarray
    covariance: np.ndarray
    residual: np.ndarray
    iterations: np.ndarray
    converged: np.ndarray


def neighbours(centres, reach=_REACH):
    """Sources that are near each other.

    Parameters
    ----------
    centres : `numpy.ndarray`, ``[n, 2]``
        Positions [pixel].
    reach : `float`, optional
        What is near [pixel].

    Returns
    -------
    near : sequence of `list` of `int`
        Numbers of those near each source, its own among them.
    """
    return cKDTree(centres).query_ball_point(centres, reach) if len(centres) else []


def colours(near):
    """Share sources out among few groups within which none is near another.

    Parameters
    ----------
    near : sequence of `list` of `int`
        As `neighbours` gives them.

    Returns
    -------
    colour : `numpy.ndarray`, int64 ``[n]``
        Number of the group, from 0.
    """
    colour = np.full(len(near), -1)
    # The most crowded ones choose first, which keeps groups few.
    for k in np.argsort([-len(found) for found in near], kind="stable"):
        taken = set(colour[near[k]])
        colour[k] = next(c for c in range(len(near[k]) + 1) if c not in taken)
    return colour


def refine(
    images,
    weight,
    origins,
    centres,
    latents,
    fluxes,
    noise,
    network,
    *,
    psfs=None,
    prior_width=0.3,
    latent_weight=1.0,
    flux_tie=0.0,
    max_steps=4,
    tolerance=0.5,
    progress=None,
):
    """Maximise the joint posterior of all sources of a cube, from the encoder's answer on.

    Parameters
    ----------
    images, weight : `numpy.ndarray`, float32 ``[band, y, x]``
        Pixels, and their inverse variance, 0 where there is no data; all finite.
    origins : `numpy.ndarray`, int ``[n, 2]``
        y and x of each stamp's first pixel in the cube.
    centres : `numpy.ndarray`, ``[n, 2]``
        y and x of the sources in the cube [pixel].
    latents : `numpy.ndarray`, ``[n, latent]``
        Where to start.
    fluxes : `numpy.ndarray`, ``[n, band]``
        Fluxes to start with, image unit.
    noise : `numpy.ndarray`, ``[n, band]``
        Standard deviation of each stamp's background; infinite for a band without data.
    network : `~..network.model.Network`
        The network.
    psfs : callable, optional
        From numbers of sources to PSF images ``[m, band, y, x]``; the survey's own by default.
    prior_width : `float`, optional
        Relative width of the expectation that fluxes are the decoder's; 0 for none.
    latent_weight : `float`, optional
        Weight of the latents' prior.
    flux_tie : `float`, optional
        Relative width of the expectation that they are those to start with; 0 for none.
    max_steps : `int`, optional
        How often each source is visited at most.
    tolerance : `float`, optional
        A source is left alone once neither it nor a neighbour gains so much in -2 ln(posterior).
    progress : callable, optional
        Called with the number of sources visited in this round and of those to visit, each batch.

    Returns
    -------
    refined : `Refined`
    """
    problem = _Problem(
        images, weight, origins, centres, latents, fluxes, noise, network, psfs,
        prior_width, latent_weight, flux_tie, tolerance,
    )  # fmt: skip
    with one_blas_thread():
        _visit(problem, centres, max_steps, tolerance, progress)
    return problem.result()


def _visit(problem, centres, max_steps, tolerance, progress):
    """Improve all sources of a `_Problem` in turn, until none gains."""
    n = len(centres)
    near = neighbours(centres)
    colour = colours(near)
    active = np.ones(n, bool)
    for _ in range(max_steps):
        gained, visited = np.zeros(n, bool), 0
        for number in range(colour.max(initial=-1) + 1):
            turn, changes = np.flatnonzero(active & (colour == number)), []
            for start in range(0, len(turn), _BATCH):
                index = turn[start : start + _BATCH]
                gain, undecided, change = problem.improve(index)
                changes += zip(index, change, strict=True)
                gained[index] = (gain > tolerance) | undecided
                visited += len(index)
                if progress is not None:
                    progress(visited, int(active.sum()))
            for k, change in changes:
                problem.subtract(k, change)
        problem.converged[active & ~gained] = True
        problem.converged[gained] = False
        active = np.array([gained[found].any() for found in near], bool)
        if not active.any():
            break


class _Problem:
    """The state of a refinement: parameters of all sources and what they leave of the image."""

    def __init__(
        self,
        images,
        weight,
        origins,
        centres,
        latents,
        fluxes,
        noise,
        network,
        psfs,
        prior_width,
        latent_weight,
        flux_tie,
        tolerance,
    ):
        self.tolerance, self.latent_weight = tolerance, latent_weight
        self.network, self.weight, self.origins, self.psfs = network, weight, origins, psfs
        self.size, self.shape = network.stamp_size, images.shape[1:]
        n, n_bands = len(latents), len(images)
        self.template_of_band = network.architecture.template_of_band
        self.coarseness = network.architecture.coarseness
        self.free_shift = not network.knows_shifts
        self.directions = sensitive_directions(network)
        # One product for each source, whose bits do not depend on how many there are.
        self.z = self.directions.coordinates(np.array(latents, dtype=np.float64)[:, None])[:, 0]
        self.expected_shift = np.zeros((n, 2))
        if self.free_shift:
            self.expected_shift = centres - origins - (self.size - 1) / 2
        self.shift = self.expected_shift.copy()
        self.flux = np.array(fluxes, dtype=np.float64)
        self.noise = noise
        self.first_flux = self.flux.copy()
        self.faint = _FAINT * np.where(np.isfinite(noise), noise, network.typical_noise)
        self.tie = np.zeros_like(self.flux)
        if flux_tie:
            self.tie = (flux_tie * np.hypot(self.flux, self.faint)) ** -2.0
        self.prior_width = prior_width or 10.0
        self.damping = np.full(n, 1e-3)
        self.iterations, self.converged = np.zeros(n, np.int64), np.zeros(n, bool)
        n_free = self.z.shape[1] + 2 * self.free_shift + n_bands
        self.covariance = np.full((n, n_free, n_free), np.nan, np.float32)
        self.network_flux = np.zeros((n, n_bands))
        self.templates = np.zeros((n, self.template_of_band.max() + 1, self.size, self.size), np.float32)
        self.residual = np.array(images, dtype=np.float32)
        for start in range(0, n, _BATCH):
            index = np.arange(start, min(start + _BATCH, n))
            drawn, own = self._draw(self.z[index, None], self.shift[index], self._transfer(index), index)
            self.templates[index], self.network_flux[index] = drawn[:, 0], own[:, 0]
            for k in index:
                self.subtract(k, self._model(k))

    # -- images ----------------------------------------------------------------

    def _transfer(self, index):
        psfs = None if self.psfs is None else self.psfs(index)
        return self.network.transfer(psfs, len(index))

    def _draw(self, z, shift, transfer, index, coarse=False):
        """Templates ``[m, k, template, y, x]`` and the decoder's fluxes ``[m, k, band]``."""
        latents = self.directions.latents(z)
        templates, fluxes = self.network.templates(latents, self.noise[index], transfer, coarse)
        if self.free_shift:
            shift = shift[:, None, None] / (self.coarseness if coarse else 1)
            templates = fourier.shifted(templates, shift)
        return templates, fluxes

    def _model(self, k):
        return self.flux[k].astype(np.float32)[:, None, None] * self.templates[k][self.template_of_band]

    def subtract(self, k, model):
        """Take a model of a source off the residual."""
        in_cube, in_stamp = overlap(self.origins[k], self.size, self.shape)
        self.residual[:, *in_cube] -= model[:, *in_stamp]

    def _cut(self, cube, index):
        """Stamps of a cube, ``[m, band, y, x]``, 0 beyond its edges."""
        stamps = np.zeros((len(index), len(cube), self.size, self.size), np.float32)
        for stamp, k in zip(stamps, index, strict=True):
            in_cube, in_stamp = overlap(self.origins[k], self.size, self.shape)
            stamp[:, *in_stamp] = cube[:, *in_cube]
        return stamps

    # -- steps -----------------------------------------------------------------

    def improve(self, index):
        """Visit some sources that share no light.

        Returns
        -------
        gain : `numpy.ndarray`, ``[m]``
            What each gained in -2 ln(posterior).
        undecided : `numpy.ndarray` of `bool`, ``[m]``
            No step was small enough to gain anything, and smaller ones are left to try.
        change : `list` of `numpy.ndarray`, ``[band, y, x]``
            How models changed, still to be subtracted.
        """
        n_bands, n_latent = self.flux.shape[1], self.z.shape[1]
        weight = self._cut(self.weight, index)
        alone = self._cut(self.residual, index)
        for k, number in enumerate(index):
            alone[k] += self._model(number)
        transfer = self._transfer(index)
        derivatives, flux_slope = self._derivatives(index, transfer)
        # Widths are those at the start of the visit.
        width = self.prior_width * np.hypot(self.network_flux[index], self.faint[index])
        state = (
            self.z[index],
            self.shift[index],
            self.flux[index],
            self.templates[index],
            self.network_flux[index],
        )
        hessian = self._hessian(index, weight, derivatives, flux_slope, width)
        cost, left = self._cost(index, state, alone, weight, width)
        first = cost.copy()
        with np.errstate(invalid="ignore"):
            self.covariance[index] = np.linalg.inv(hessian)
        diagonal = np.einsum("mii->mi", hessian)
        moving = np.ones(len(index), bool)
        for _ in range(_SAME_SLOPES):
            z, shift, flux, templates, network_flux = state
            gradient = self._gradient(index, state, left, weight, derivatives, flux_slope, width)
            damped = hessian + np.eye(hessian.shape[1]) * (self.damping[index, None] * diagonal)[:, None]
            step = np.linalg.solve(damped, gradient[..., None])[..., 0]
            # Slopes hold near by only: no step is longer than a standard deviation in any direction.
            far = np.max(np.abs(step[:, :n_latent]), axis=1, initial=0)
            step /= np.maximum(far, 1.0)[:, None]
            new_z = z + step[:, :n_latent]
            new_shift = shift
            if self.free_shift:
                new_shift = shift + np.clip(step[:, n_latent:-n_bands], -0.5, 0.5)
            drawn, own = self._draw(new_z[:, None], new_shift, transfer, index)
            new = (new_z, new_shift, np.maximum(flux + step[:, -n_bands:], 0.0), drawn[:, 0], own[:, 0])
            new_cost, new_left = self._cost(index, new, alone, weight, width)
            better = moving & (new_cost < cost)
            damping = np.clip(self.damping[index] * np.where(better, 0.2, 10.0), 1e-6, 1e6)
            self.damping[index] = np.where(moving, damping, self.damping[index])
            self.iterations[index] += better
            state = tuple(np.where(_like(better, a), b, a) for a, b in zip(state, new, strict=True))
            left = np.where(_like(better, left), new_left, left)
            # Whether one goes on must not depend on those that it shares a batch with.
            with np.errstate(invalid="ignore"):
                moving &= ~(better & (cost - new_cost < self.tolerance))
            cost = np.where(better, new_cost, cost)
            if not moving.any():
                break
        old = [self._model(k) for k in index]
        self.z[index], self.shift[index], self.flux[index] = state[:3]
        self.templates[index], self.network_flux[index] = state[3:]
        change = [self._model(k) - model for k, model in zip(index, old, strict=True)]
        gain = first - cost
        return gain, (gain <= 0) & (self.damping[index] < 1e3), change

    def _derivatives(self, index, transfer):
        """Slopes of coarse templates ``[m, free, template, y x]`` and of fluxes ``[m, latent, band]``."""
        m, n_latent = len(index), self.z.shape[1]
        z = self.z[index][:, None] + STEP * np.vstack([np.zeros(n_latent), np.eye(n_latent)])
        drawn, fluxes = self._draw(z, self.shift[index], transfer, index, coarse=True)
        templates = drawn[:, 1:]
        templates -= drawn[:, :1]
        templates /= STEP
        flux_slope = (fluxes[:, 1:] - fluxes[:, :1]) / STEP
        if self.free_shift:
            slopes = fourier.slopes(drawn[:, 0]) / self.coarseness
            templates = np.concatenate([templates, slopes.swapaxes(0, 1)], axis=1)
        shape = (m, n_latent + 2 * self.free_shift, templates.shape[2], -1)
        return templates.reshape(shape), flux_slope

    def _coarse(self, stamps):
        """What coarse derivatives see of stamps."""
        return stamps if self.coarseness == 1 else fourier.coarse(stamps, self.coarseness)

    def _blocks(self, weight):
        """Sums of weights over the pixels that a coarse one stands for."""
        c = self.coarseness
        m, n_bands, size, _ = weight.shape
        return weight.reshape(m, n_bands, size // c, c, size // c, c).sum(axis=(3, 5))

    def _hessian(self, index, weight, derivatives, flux_slope, width):
        m, n_free, n_templates, n_pixels = derivatives.shape
        n_bands, n_latent = self.flux.shape[1], self.z.shape[1]
        hessian = np.zeros((m, n_free + n_bands, n_free + n_bands))
        flux = self.flux[index]
        templates = self._coarse(self.templates[index]).reshape(m, n_templates, -1)
        weight = self._blocks(weight).reshape(m, n_bands, -1)
        for number in range(n_templates):
            bands = np.flatnonzero(self.template_of_band == number)
            slope = derivatives[:, :, number]
            total = np.einsum("mb,mbp->mp", (flux[:, bands] ** 2).astype(np.float32), weight[:, bands])
            hessian[:, :n_free, :n_free] += (slope * total[:, None]) @ slope.swapaxes(1, 2)
            weighted = weight[:, bands] * templates[:, number, None]
            cross = slope @ weighted.swapaxes(1, 2) * flux[:, None, bands]
            hessian[:, :n_free, n_free + bands] = cross
            hessian[:, n_free + bands, :n_free] = cross.swapaxes(1, 2)
            square = np.einsum("mbp,mp->mb", weighted, templates[:, number])
            hessian[:, n_free + bands, n_free + bands] = square
        hessian[:, range(n_latent), range(n_latent)] += self.latent_weight
        if self.free_shift:
            hessian[:, range(n_latent, n_free), range(n_latent, n_free)] += _CENTRE_SIGMA**-2
        scaled = flux_slope / width[:, None]
        hessian[:, :n_latent, :n_latent] += scaled @ scaled.swapaxes(1, 2)
        hessian[:, :n_latent, n_free:] -= scaled / width[:, None]
        hessian[:, n_free:, :n_latent] -= (scaled / width[:, None]).swapaxes(1, 2)
        fluxes = range(n_free, n_free + n_bands)
        hessian[:, fluxes, fluxes] += width**-2.0 + self.tie[index]
        return hessian

    def _gradient(self, index, state, left, weight, derivatives, flux_slope, width):
        """Minus half of the slope of -2 ln(posterior)."""
        m, n_free, n_templates, n_pixels = derivatives.shape
        z, shift, flux, templates, network_flux = state
        n_bands, n_latent = flux.shape[1], z.shape[1]
        gradient = np.zeros((m, n_free + n_bands))
        # Each coarse pixel stands for several.
        weighted = self.coarseness**2 * self._coarse(weight * left).reshape(m, n_bands, n_pixels)
        templates = self._coarse(templates).reshape(m, n_templates, n_pixels)
        for number in range(n_templates):
            bands = np.flatnonzero(self.template_of_band == number)
            pulled = np.einsum("mb,mbp->mp", flux[:, bands].astype(np.float32), weighted[:, bands])
            gradient[:, :n_free] += (derivatives[:, :, number] @ pulled[..., None])[..., 0]
            gradient[:, n_free + bands] = (weighted[:, bands] @ templates[:, number, :, None])[..., 0]
        gradient[:, :n_latent] -= self.latent_weight * z
        if self.free_shift:
            gradient[:, n_latent:n_free] -= (shift - self.expected_shift[index]) * _CENTRE_SIGMA**-2
        away = (flux - network_flux) / width**2
        gradient[:, :n_latent] += (flux_slope @ away[..., None])[..., 0]
        gradient[:, n_free:] -= away + (flux - self.first_flux[index]) * self.tie[index]
        return gradient

    def _cost(self, index, state, alone, weight, width):
        """-2 ln(posterior) of each source by itself ``[m]``, and what it leaves of its stamp."""
        z, shift, flux, templates, network_flux = state
        left = alone - flux.astype(np.float32)[:, :, None, None] * templates[:, self.template_of_band]
        cost = np.einsum("mbyx,mbyx,mbyx->m", weight, left, left, dtype=np.float64)
        cost += self.latent_weight * (z**2).sum(axis=1)
        cost += (((flux - network_flux) / width) ** 2).sum(axis=1)
        cost += ((flux - self.first_flux[index]) ** 2 * self.tie[index]).sum(axis=1)
        cost += ((shift - self.expected_shift[index]) ** 2).sum(axis=1) * _CENTRE_SIGMA**-2
        return np.where(np.isfinite(cost), cost, np.inf), left

    def _latent_covariance(self):
        """Covariance of latents instead of coordinates; as the prior's where pixels tell nothing."""
        n_latent, n_direction = self.directions.basis.shape
        n, n_free, _ = self.covariance.shape
        turn = np.zeros((n_free - n_direction + n_latent, n_free))
        turn[:n_latent, :n_direction] = self.directions.basis
        turn[n_latent:, n_direction:] = np.eye(n_free - n_direction)
        covariance = (turn @ self.covariance @ turn.T).astype(np.float32)
        covariance[:, :n_latent, :n_latent] += self.directions.rest.astype(np.float32)
        return covariance

    def result(self):
        return Refined(
            templates=self.templates,
            fluxes=self.flux,
            network_fluxes=self.network_flux,
            latents=self.directions.latents(self.z[:, None])[:, 0],
            novelty=(self.z**2).sum(axis=1) / len(self.directions.mean),
            shifts=self.shift,
            covariance=self._latent_covariance(),
            residual=self.residual,
            iterations=self.iterations,
            converged=self.converged,
        )


def _like(mask, array):
    """A mask ``[m]`` that broadcasts against an array ``[m, ...]``."""
    return mask.reshape(-1, *(1,) * (array.ndim - 1))
