# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""How stamps were observed, as conditional networks are told: PSFs, depth, bands.

A galaxy is drawn through a narrow Gaussian, the *model PSF*; a *transfer
function*, the PSF's Fourier transform over the model PSF's, takes it from
there to an image of any wider PSF.  Transfer functions are on the half plane
of `numpy.fft.rfft2`, of stamps whose centre is that of the galaxy.
"""

from dataclasses import dataclass, replace

import numpy as np
import scipy.fft
from scipy.interpolate import CubicSpline

from ..errors import ImageError, TrainingError

__all__ = [
    "CONDITIONS_PER_BAND",
    "ObservationSettings",
    "Observer",
    "conditions",
    "gaussian_otf",
    "kernel_transfer",
    "low_frequencies",
    "resized",
]

CONDITIONS_PER_BAND = 6
"""Numbers that an encoder is told of a band; see `conditions`."""

# Transfer functions are told by their values at these frequencies [1 / 64 pixel], y and x: along both axes
# and both diagonals, at about an eighth of a cycle per pixel, where seeing matters most.
_PROBES = ((0, 8), (8, 0), (6, 6), (-6, 6))
_PROBE_PERIOD = 64

# The model PSF's transform is tiny at the corners of the plane, where no light is: dividing by it there
# would only blow up the noise of a PSF image.
_FLOOR = 1e-3

# How far a band's depth departs from that of its scene: sigma of the logarithm.
_BAND_SCATTER = 0.2


@dataclass(frozen=True)
class ObservationSettings:
    """How much observations of training scenes differ.

    Parameters
    ----------
    depth_min, depth_max : `float`
        Exposure time of scenes in units of the survey's; its logarithm is
        uniform between them, and that of each band scatters by 0.2 about it
        unless both are 1.
    band_dropout : `float`
        Probability that a band is missing.  One stays at least.

    Raises
    ------
    TrainingError
        Raised for numbers out of range.
    """

    depth_min: float = 1.0
    depth_max: float = 1.0
    band_dropout: float = 0.0

    def __post_init__(self):
        if not 0.001 <= self.depth_min <= self.depth_max <= 1000:
            raise TrainingError(
                f"depth_min and depth_max are {self.depth_min!r} and {self.depth_max!r}: expected 0.001 to "
                "1000 times the survey's exposure time, the smaller one first"
            )
        if not 0 <= self.band_dropout <= 0.9:
            raise TrainingError(f"band_dropout is {self.band_dropout!r}: expected 0 to 0.9")

    def draw(self, rng, n, n_bands):
        """Draw the depths of scenes.

        Parameters
        ----------
        rng : `numpy.random.Generator`
        n, n_bands : `int`
            Scenes and bands.

        Returns
        -------
        noise : `numpy.ndarray`, float32 ``[n, band]``
            Standard deviation in units of the survey's own; infinite where
            the band is missing.
        """
        log_depth = rng.uniform(np.log(self.depth_min), np.log(self.depth_max), (n, 1))
        scatter = _BAND_SCATTER * rng.standard_normal((n, n_bands))
        if self.depth_min == self.depth_max == 1:
            scatter[...] = 0
        missing = rng.random((n, n_bands)) < self.band_dropout
        missing[np.arange(n), rng.integers(n_bands, size=n)] = False
        return np.where(missing, np.inf, np.exp(-0.5 * (log_depth + scatter))).astype(np.float32)


def gaussian_otf(sigma, size):
    """Fourier transform of a round Gaussian.

    Parameters
    ----------
    sigma : `float`
        [pixel]
    size : `int`
        Side of the stamps [pixel].

    Returns
    -------
    otf : `numpy.ndarray`, float32 ``[y, x/2+1]``
    """
    fy, fx = _frequencies(size)
    return np.exp(-2 * np.pi**2 * sigma**2 * (fy**2 + fx**2)).astype(np.float32)


def _frequencies(size):
    """Frequencies of the half plane [cycle/pixel]."""
    return np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]


def _over_model(otf, sigma, size):
    model = gaussian_otf(sigma, size)
    return otf * (model / (model**2 + np.float32(_FLOOR**2)))


def kernel_transfer(kernels, sigma, size):
    """Transfer functions of PSF images.

    Parameters
    ----------
    kernels : `numpy.ndarray`, ``[..., y, x]``
        PSFs with the pixel, centred on the pixel ``(ny // 2, nx // 2)``; of any positive sum.
    sigma : `float`
        Sigma of the model PSF [pixel].
    size : `int`
        Side of the stamps [pixel].

    Returns
    -------
    transfer : `numpy.ndarray`, complex64 ``[..., y, x/2+1]``
        1 at frequency zero.

    Raises
    ------
    ImageError
        Raised if a kernel is not finite, or its sum over the stamp not positive.
    """
    kernels = resized(np.asarray(kernels), size)
    # What was cut off its wings belongs to the PSF all the same.
    total = kernels.sum(axis=(-2, -1), dtype=np.float64, keepdims=True)
    # NaN and Inf anywhere make a sum that is neither.
    if not (np.isfinite(total).all() and (total > 0).all()):
        raise ImageError(
            "a PSF image holds NaN or Inf, or its sum is not positive: give the PSF of the exposure at the "
            "source, or leave the band out"
        )
    kernels = (kernels / total).astype(np.float32)
    otf = scipy.fft.rfft2(scipy.fft.ifftshift(kernels, axes=(-2, -1)))
    return _over_model(otf, sigma, size)


def low_frequencies(spectra, factor):
    """Spectra of images of every ``factor``-th pixel, without the frequencies that those cannot show.

    Parameters
    ----------
    spectra : `numpy.ndarray`, ``[..., y, x/2+1]``
        As `numpy.fft.rfft2` gives them, of even sides.
    factor : `int`
        Divides half of the side.

    Returns
    -------
    spectra : `numpy.ndarray`, ``[..., y/factor, x/factor/2+1]``
        Times ``factor**-2``, they are those of the pixels that are left.
    """
    size = spectra.shape[-2] // factor
    half = size // 2
    low = np.concatenate([spectra[..., :half, : half + 1], spectra[..., -half:, : half + 1]], axis=-2)
    # The highest frequency has no partner of the other sign.
    low[..., half, :] = 0
    low[..., :, half] = 0
    return low


def resized(kernels, size):
    """Cut or pad PSF images about their middle pixel.

    Parameters
    ----------
    kernels : `numpy.ndarray`, ``[..., y, x]``
        Centred on the pixel ``(ny // 2, nx // 2)``.
    size : `int`
        Side wanted [pixel].

    Returns
    -------
    resized : `numpy.ndarray`, ``[..., size, size]``
        Centred on the pixel ``(size // 2, size // 2)``.
    """
    out = np.zeros((*kernels.shape[:-2], size, size), kernels.dtype)
    found, kept = [], []
    for n in kernels.shape[-2:]:
        low, high = min(n // 2, size // 2), min(n - n // 2, size - size // 2)
        found.append(slice(n // 2 - low, n // 2 + high))
        kept.append(slice(size // 2 - low, size // 2 + high))
    out[..., *kept] = kernels[..., *found]
    return out


def conditions(transfer, noise):
    """What an encoder is told.

    Parameters
    ----------
    transfer : `numpy.ndarray`, ``[n, band, y, x/2+1]``
        Transfer functions.
    noise : `numpy.ndarray`, ``[n, band]``
        Standard deviation of the noise in units of the survey's own; infinite
        where there is no band.

    Returns
    -------
    conditions : `numpy.ndarray`, float32 ``[n, 6 * band]``
        For each band: 1 where it was observed; the logarithm of the noise;
        and that of the transfer function along both axes and both diagonals,
        each negative and less that of a typical one.  All are 0 where it was
        not.
    """
    size = transfer.shape[-2]
    probes = [tuple(round(f * size / _PROBE_PERIOD) for f in probe) for probe in _PROBES]
    seen = np.isfinite(noise)
    told = [seen, np.log(np.where(seen, noise, 1.0))]
    told += [-np.log(np.maximum(np.abs(transfer[..., y, x]), 0.02)) - 0.85 for y, x in probes]
    told = np.where(seen[..., None], np.stack(np.broadcast_arrays(*told), axis=-1), 0.0)
    return told.reshape(len(told), -1).astype(np.float32)


class Observer:
    """Transfer functions of a survey's PSFs, from the numbers that samples keep.

    Parameters
    ----------
    profile_kinds : sequence of (`~..survey.PsfModel`, `float`)
        As `~..survey.Survey.profile_kinds`.
    band_profile : `numpy.ndarray`, int ``[band]``
        As `~..survey.Survey.band_profile`.
    sigma : `float`
        Sigma of the model PSF [pixel].
    size : `int`
        Side of the stamps [pixel].
    """

    # Tables are by the square of the frequency in cycles per FWHM, of which next to nothing gets through a
    # PSF beyond the highest. So many entries need no interpolation: their error is below 4e-4.
    _highest, _steps = 16.0, 2**18

    def __init__(self, profile_kinds, band_profile, sigma, size):
        self._kinds, self._band_profile = tuple(profile_kinds), np.asarray(band_profile)
        fy, fx = _frequencies(size)
        squares = np.stack(np.broadcast_arrays(fx**2, fx * fy, fy**2))
        self._squares = squares.reshape(3, -1).astype(np.float32)
        pixel = np.sinc(fy) * np.sinc(fx)
        self._over = _over_model(pixel, sigma, size).astype(np.float32)
        self._tables = [self._table(model) for model, _ in self._kinds]

    def _table(self, model):
        """The round PSF's transform, as GalSim has it."""
        profile = replace(model, fwhm=1.0, e1=0.0, e2=0.0).profile()
        cycles = np.sqrt(np.linspace(0, self._highest, self._steps + 1))
        known = np.linspace(0, cycles[-1], 4096)
        values = [profile.kValue(2 * np.pi * f, 0.0).real for f in known]
        return CubicSpline(known, values)(cycles).astype(np.float32)

    def transfer(self, packed):
        """Transfer functions of scenes.

        Parameters
        ----------
        packed : `numpy.ndarray`, float32 ``[n, kind, 3]``
            FWHM [arcsec], e1, e2 of each scene's PSFs, as
            `~..simulation.shards.StampSample.psf`.

        Returns
        -------
        transfer : `numpy.ndarray`, float32 ``[n, band, y, x/2+1]``
            Real, as these PSFs are even.
        """
        packed = np.asarray(packed, np.float32)
        kinds = np.empty((len(packed), len(self._kinds), self._squares.shape[1]), np.float32)
        for k, (_, scale) in enumerate(self._kinds):
            fwhm, e1, e2 = packed[:, k].T
            # A shear stretches the plane: the square of a frequency becomes a quadratic form.
            e = e1**2 + e2**2
            form = np.stack([1 + e + 2 * e1, 4 * e2, 1 + e - 2 * e1], axis=1)
            form *= ((fwhm / scale) ** 2 / (1 - e) * (self._steps / self._highest))[:, None]
            place = form.astype(np.float32) @ self._squares
            place += np.float32(0.5)
            np.take(self._tables[k], place.astype(np.int32), mode="clip", out=kinds[:, k])
        kinds = kinds.reshape(*kinds.shape[:2], *self._over.shape)
        kinds *= self._over
        return kinds[:, self._band_profile]
