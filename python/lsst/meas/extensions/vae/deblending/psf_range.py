# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a network was trained for: widths and ellipticities of PSFs, and depths."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from ..network.package import psf_models

__all__ = ["Departure", "PsfRange", "noise_range", "psf_shape"]

# Beyond so many sigma of the ellipticities that it was trained with, a PSF is new to a network.
_SIGMAS = 3.0

# Pixels above this part of the peak tell a PSF's ellipticity: beyond, a measured one is noise.
_CORE = 0.1


def psf_shape(kernel):
    """Width and ellipticity of a PSF image, which noise hardly moves.

    Parameters
    ----------
    kernel : `numpy.ndarray`, ``[y, x]``
        PSF image, of any positive sum.

    Returns
    -------
    width : `float`
        Side of the square that it covers, of 1 / sum k^2 pixels.
    ellipticity : `float`
        Size of its reduced shear, (a-b)/(a+b), from the second moments of k^2 in the core.
    """
    square = (kernel / kernel.sum()) ** 2
    core = np.where(kernel > _CORE * kernel.max(), square, 0.0)
    y, x = np.indices(kernel.shape)
    core /= core.sum()
    y, x = y - (core * y).sum(), x - (core * x).sum()
    yy, xx, xy = (core * y * y).sum(), (core * x * x).sum(), (core * x * y).sum()
    size = yy + xx + 2 * np.sqrt(max(yy * xx - xy**2, 0.0))
    ellipticity = np.hypot(xx - yy, 2 * xy) / size if size > 0 else 0.0
    return float(np.sqrt(1.0 / square.sum())), float(ellipticity)


@dataclass(frozen=True)
class Departure:
    """How far a PSF lies beyond what a network was trained with; not above 0 within it.

    Attributes
    ----------
    wide, narrow : `float`
        Of the width, relative.
    elliptical : `float`
        Of the ellipticity [reduced shear], which is the relative difference of an axis.
    """

    wide: float
    narrow: float
    elliptical: float

    @property
    def worst(self):
        """The largest of all, at least 0."""
        return max(0.0, self.wide, self.narrow, self.elliptical)


class PsfRange:
    """PSFs that a network takes, band by band.

    Parameters
    ----------
    network : `~..network.model.Network`
        A conditional one takes the widths of its card; any other one PSF.
    """

    def __init__(self, network):
        card = network.package.card
        self._own = psf_models(card)
        ranges = card.get("psf_fwhm_range") or [(psf.fwhm, psf.fwhm) for psf in self._own]
        self._limits = [
            tuple(dataclasses.replace(psf, fwhm=fwhm) for fwhm in ends)
            for psf, ends in zip(self._own, ranges, strict=True)
        ]
        self._scales, self._kernels = card["pixel_scale"], {}
        samples = _encoder_stage(card).get("samples", ())
        sigmas = [sample.get("settings", {}).get("psf_shear_sigma", 0.0) for sample in samples]
        self._ellipticity = _SIGMAS * max(sigmas, default=0.0)

    def own(self, band, size):
        """The survey's PSF image in a band, float64 ``[size, size]``, of unit sum; the size is odd."""
        return self._drawn(band, self._own[band], size)[0]

    def sharpest(self, band, size):
        """That of the smallest width that the network was trained with."""
        return self._drawn(band, self._limits[band][0], size)[0]

    def departure(self, band, kernel):
        """Compare a PSF image with the range.

        Parameters
        ----------
        band : `int`
            Number of the band.
        kernel : `numpy.ndarray`, ``[y, x]``
            In the network's pixels, of a positive sum.

        Returns
        -------
        departure : `Departure`
        """
        width, ellipticity = psf_shape(kernel)
        # Wings that were cut off make a PSF narrower, so models lose theirs too.
        low, high = (self._drawn(band, model, len(kernel) | 1)[1] for model in self._limits[band])
        return Departure(width / high - 1, 1 - width / low, ellipticity - self._ellipticity)

    def _drawn(self, band, model, size):
        """The image of a model PSF, and its width."""
        key = model, self._scales[band], size
        if key not in self._kernels:
            kernel = model.kernel(self._scales[band], size=size)
            self._kernels[key] = kernel, psf_shape(kernel)[0]
        return self._kernels[key]


def noise_range(network):
    """Noise that a network was trained with.

    Parameters
    ----------
    network : `~..network.model.Network`
        The network.

    Returns
    -------
    lowest, highest : `numpy.ndarray`, ``[band]``
        Standard deviation of the background, image unit; 0 and infinite where the card does not tell.
    """
    card = network.package.card
    if "noise" not in card:
        return np.zeros(len(network.bands)), np.full(len(network.bands), np.inf)
    settings = _encoder_stage(card).get("settings", {})
    deepest, shallowest = settings.get("depth_max", 1.0), settings.get("depth_min", 1.0)
    noise = np.asarray(card["noise"], dtype=float)
    return noise * deepest**-0.5, noise * shallowest**-0.5


def _encoder_stage(card):
    """What the card tells of the training of the encoder that deblends."""
    training = card.get("training", {})
    return training.get("deblender") or training.get("prior") or {}
