# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring an image to the pixels and the PSF that a network knows, and its models back to the image's own."""

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from .blend import stamp_chi2
from .homogenise import MatchingKernels, matching_kernel, node_places, noise_correlation
from .psf_range import PsfRange
from .resample import Resampling

__all__ = ["MatchedImages", "is_psf", "match_images"]

# A pixel is lost that takes more than this part of what is in it from bad ones.
_MOST_LOST = 0.05

# Times the median variance, and its root, beyond which a pixel counts as bad.
_MOST_VARIANCE, _MOST_SIGMA = 1e4, 1e6

# Sigma of the pixels that stand in for bad ones [pixel].
_FILL_SIGMA = 2.0


def match_images(
    images, variance, good, network, psfs_at, *, ratio=1.0, homogenise=True, psf_tolerance=0.1, log=None
):
    """Bring images to a network's pixels and, where they are sharper than it takes, to its PSF.

    Parameters
    ----------
    images, variance : `numpy.ndarray`, ``[band, y, x]``
        Pixels and their variance, bands in the network's order.
    good : `numpy.ndarray` of `bool`, ``[band, y, x]``
        Pixels to use.
    network : `~..network.model.Network`
        The network.
    psfs_at : callable
        Gives, of y and x in the image, a `list` of PSF images ``[y, x]`` of odd sides, one for each band;
        `None`, or NaN, for a band that has none there.
    ratio : `float`, optional
        Of the image's pixel scale to the network's; see `~.resample.scale_ratio`.
    homogenise : `bool`, optional
        Widen PSFs that are narrower than the network takes?
    psf_tolerance : `float`, optional
        Relative difference of the width from which on they are.
    log : `logging.Logger`, optional
        Told of what is done.

    Returns
    -------
    matched : `MatchedImages`
        Holds the arrays themselves where there is nothing to do.
    """
    matched = MatchedImages(images, variance, good, psfs_at, network.stamp_size - 1)
    if ratio != 1:
        matched.resample(ratio)
        if log:
            expected = network.package.card["pixel_scale"][0]
            log.warning(
                "Pixels have %.4g arcsec, model %r takes %.4g: resampled, and models brought back",
                ratio * expected,
                network.package.name,
                expected,
            )
    if homogenise:
        done = matched.homogenise(PsfRange(network), psf_tolerance)
        if done and log:
            log.info(
                "The PSF in %s is sharper than model %r takes: homogenised, and models sharpened again",
                ", ".join(network.bands[band] for band in done),
                network.package.name,
            )
    return matched


class MatchedImages:
    """Images as a network wants them, and the way back.

    Parameters
    ----------
    images, variance, good, psfs_at
        As `match_images` takes them.
    psf_size : `int`
        Side of kernels, odd [pixel].

    Attributes
    ----------
    images, variance : `numpy.ndarray`, ``[band, y, x]``
        In the network's pixels. The variance is that which independent pixels
        would need for the errors that fluxes have; noise is correlated.
    good : `numpy.ndarray` of `bool`, ``[band, y, x]``
        Pixels to use.
    resampled : `bool`
        Are they other than the image's own?
    """

    def __init__(self, images, variance, good, psfs_at, psf_size):
        self.images, self.variance, self.good = images, variance, good
        self._own = images, variance, good
        self._psfs_at, self._psf_size = psfs_at, psf_size
        self._grid, self._kernels = None, {}

    @property
    def resampled(self):
        return self._grid is not None

    # -- there -----------------------------------------------------------------

    def resample(self, ratio):
        """Go over to the network's pixels; see `match_images`."""
        grid = Resampling(self.images.shape[1:], ratio)
        planes = []
        for band in range(len(self.images)):
            image, variance, lost = grid.plane(*self._filled(band))
            planes.append((image, variance, lost <= _MOST_LOST))
        self.images, self.variance, self.good = (np.stack(part) for part in zip(*planes, strict=True))
        self._grid = grid

    def homogenise(self, psf_range, tolerance):
        """Widen the PSF of bands where it is too narrow.

        Parameters
        ----------
        psf_range : `~.psf_range.PsfRange`
            What the network takes.
        tolerance : `float`
            Relative difference of the width that does not matter.

        Returns
        -------
        bands : `list` of `int`
            Numbers of those bands.
        """
        nodes = [node_places(side) for side in self.images.shape[1:]]
        places = [(y, x) for y in nodes[0] for x in nodes[1]]
        told = [self.psfs(y, x) for y, x in places]
        widened = {}
        for band in range(len(self.images)):
            known = [k for k in range(len(told)) if is_psf(told[k][band])]
            if not known or not self.good[band].any():
                continue
            psfs = [told[k][band] for k in known]
            narrow = [psf_range.departure(band, psf).narrow for psf in psfs]
            if max(narrow) > tolerance:
                made = [
                    self._matching(psf, psf_range.sharpest(band, len(psf)), excess)
                    for psf, excess in zip(psfs, narrow, strict=True)
                ]
                # Where there is no PSF, that of the nearest place that has one.
                nearest = cKDTree([places[k] for k in known]).query(places)[1]
                kernels, correlations = zip(*(made[k] for k in nearest), strict=True)
                widened[band] = MatchingKernels(kernels, correlations, *nodes)
        if not widened:
            return []
        self.images, self.variance = (np.array(part, np.float32) for part in (self.images, self.variance))
        self.good = self.good.copy()
        for band, kernels in widened.items():
            plane = kernels.plane(*self._filled(band))
            self.images[band], self.variance[band] = plane.image, plane.variance * plane.correlation
            self.good[band] &= plane.lost <= _MOST_LOST
        self._kernels = widened
        return list(widened)

    def _matching(self, psf, target, excess):
        """Kernel and its correlation; `None` and 1 where the PSF is wide enough."""
        if excess <= 0:
            return None, 1.0
        kernel = matching_kernel(psf, target, self._psf_size)
        return kernel, noise_correlation(kernel, target)

    def _filled(self, band):
        """Image and variance of a band with its bad pixels filled from those around, and the bad ones."""
        good = self.good[band].copy()
        if good.any():
            # Transforms would spread what is out of all measure.
            usual = np.median(self.variance[band][good])
            good &= (self.variance[band] < _MOST_VARIANCE * usual) & (
                np.abs(self.images[band]) < _MOST_SIGMA * np.sqrt(usual)
            )
        if good.all():
            return self.images[band], self.variance[band], ~good
        weight = gaussian_filter(good.astype(np.float32), _FILL_SIGMA)
        seen = weight > 1e-3
        planes = []
        for cube in (self.images, self.variance):
            plane = np.where(good, cube[band], 0.0)
            around = gaussian_filter(plane, _FILL_SIGMA) / np.where(seen, weight, 1.0)
            planes.append(np.where(good, plane, np.where(seen, around, 0.0)))
        return *planes, ~good

    # -- places and PSFs -------------------------------------------------------

    def places(self, own):
        """Where places of the image, of any shape [its own pixels], are in the network's."""
        return own if self._grid is None else self._grid.places(own)

    def own_places(self, places):
        """Where places in the network's pixels are in the image's own."""
        return places if self._grid is None else self._grid.own_places(places)

    def psfs(self, y, x):
        """PSF images of all bands at a place in the network's pixels; `None` where there is none."""
        if self._grid is None:
            told = self._psfs_at(y, x)
        else:
            own = self._grid.own_places(np.array([y, x]))
            told = [self._grid.kernel(psf) if is_psf(psf) else psf for psf in self._psfs_at(*own)]
        return [
            self._kernels[band].psf(psf, y, x) if band in self._kernels and is_psf(psf) else psf
            for band, psf in enumerate(told)
        ]

    def homogenised(self, y, x):
        """Is the PSF of some band, at a place in the network's pixels, wider than that of the image?"""
        return any(kernels.touches(y, x) for kernels in self._kernels.values())

    # -- back ------------------------------------------------------------------

    def restored(self, result, own_centres):
        """Results as the image itself would have them.

        Parameters
        ----------
        result : `~.blend.DeblendResult` or `None`
            Of `images`. Models change in place.
        own_centres : array-like, ``[n, 2]``
            y and x of the sources in the image's own pixels.

        Returns
        -------
        result : `~.blend.DeblendResult` or `None`
            Models through the image's own PSF on its own pixels, with their
            fluxes; origins, shifts, noise and chi2 of these pixels. The covariance
            stays that of the network's pixels, and so do draws.
        """
        if result is None or not (self._kernels or self.resampled):
            return result
        own_centres = np.asarray(own_centres, dtype=float).reshape(-1, 2)
        done = np.flatnonzero(~result.failed)
        for k in done:
            place = self.places(own_centres[k])
            for band, kernels in self._kernels.items():
                result.models[k, band] = kernels.sharpened(result.models[k, band], *place)
        if self.resampled:
            result = self._own_pixels(result, own_centres, done)
        fluxes = result.fluxes.copy()
        fluxes[done] = result.models[done].sum(axis=(2, 3), dtype=np.float64)
        result = replace(result, fluxes=fluxes)
        if result.chi2 is not None:
            images, variance, good = self._own
            residual = images - result.scene(images.shape)
            result = replace(result, chi2=stamp_chi2(residual, variance, good, result))
        return result

    def _own_pixels(self, result, own_centres, done):
        size = self._grid.size(result.models.shape[-1])
        models = np.full((*result.models.shape[:2], size, size), np.nan, np.float32)
        origins = np.zeros_like(result.origins)
        models[done], origins[done] = self._grid.models(
            result.models[done], result.origins[done], own_centres[done]
        )
        shifts = result.shifts
        if shifts is not None and shifts.any():
            middle = result.origins + (result.models.shape[-1] - 1) / 2
            shifts = self._grid.own_places(middle + shifts) - origins - (size - 1) / 2
            shifts[result.failed] = 0
        noise = (result.noise * self._grid.noise_ratio).astype(np.float32)
        return replace(result, models=models, origins=origins, shifts=shifts, noise=noise)


def is_psf(kernel):
    """Is it a PSF image that tells something?"""
    return kernel is not None and bool(np.isfinite(kernel).all()) and kernel.sum() > 0
