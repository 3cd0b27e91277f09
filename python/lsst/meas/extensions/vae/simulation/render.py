# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unit-flux profiles of galaxy components, drawn in place through every PSF.

A galaxy's bands differ by flux alone, or by bulge and disc flux, so a
component is drawn once for each distinct (PSF, pixel scale) and multiplied by
its band fluxes afterwards. Drawing multiplies the transforms of profile, PSF
and pixel, and transforms back.

Where a PSF passes frequencies that the pixels cannot show, as Euclid's do,
these are aliased in nature too and have to be drawn. Few are needed over the
whole stamp: what is that fine is near the component's centre. So frequencies
are shared out smoothly between the whole stamp, in pixels, and a box about
the centre, in parts of a pixel.
"""

__all__ = [
    "PROFILE_ERROR",
    "SERSIC_RANGE",
    "ProfileRenderer",
    "component_profile",
    "point_source",
    "rounded_index",
    "turned_profile",
]

import functools
import math

import numpy as np
import scipy.fft

from .profiles import (
    SERSIC_RANGE,
    GalsimProfile,
    KGrid,
    RadialProfile,
    component_profile,
    point_source,
    psf_profile,
    rounded_index,
    turned_profile,
)

PROFILE_ERROR = 1e-3
"""Largest error of a drawn pixel, as a fraction of the profile's peak."""

# Lengths of grids to choose from [pixel]: few, so that the transforms of the PSFs are reused, and quick to
# transform.
_LENGTHS = (64, 80, 96, 128, 160, 192, 256, 384, 512, 768)
_BOX_LENGTHS = (24, 28, 32, 40, 48, 56) + _LENGTHS

# Highest frequencies to choose from, in those that pixels can show.
_OVERSAMPLINGS = (1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0)

# Largest part of a profile's peak that frequencies left out may carry.
_CUT_FREQUENCIES = 5e-4

# Frequencies below the first part of the highest that pixels show are drawn on the whole stamp, those above
# the second in the box.
_SHARED = (0.35, 0.98)

# Pixels from a point to where the frequencies of the box have faded.
_BOX_MARGIN = 6.0


@functools.lru_cache(maxsize=128)
def _grid(scale, length, half, wrapped):
    return KGrid(scale, length, half, wrapped)


def _fine_share(relative):
    """Part of a frequency that the box draws, by the frequency in the highest one that pixels show."""
    u = np.clip((relative - _SHARED[0]) / (_SHARED[1] - _SHARED[0]), 0, 1)
    return u**3 * (10 - 15 * u + 6 * u**2)


class _ScaleGroup:
    """The profile kinds that share one pixel scale.

    Parameters
    ----------
    scale : `float`
        Pixel scale [arcsec].
    psfs : `list` [`RadialProfile`]
        PSFs without the pixel.
    slots : `list` [`int`]
        Index of each among the survey's profile kinds.
    """

    def __init__(self, scale, psfs, slots):
        self.scale, self.psfs, self.slots = scale, psfs, slots
        self.nyquist = math.pi / scale
        self.reach = max(psf.reach for psf in psfs)
        # What a point source's peak is made of, by frequency.
        self._k = np.linspace(0.0, _OVERSAMPLINGS[-1] * self.nyquist, 256, dtype=np.float32)
        response = np.max([psf.slowest(self._k) for psf in psfs], axis=0)
        self._power = self._k * response * np.abs(np.sinc(self._k * scale / (2 * math.pi)))
        self._transforms = {}
        self.oversampling = self._oversampling(1.0)

    def _oversampling(self, transform):
        """The highest frequency needed, in the highest that pixels show, for a transform at ``_k``."""
        beyond = np.cumsum((self._power * np.abs(transform))[::-1])[::-1]
        needed = self._k[np.argmax(beyond <= _CUT_FREQUENCIES * beyond[0])] / self.nyquist
        if needed <= 1.05:
            return 1.0
        return next((o for o in _OVERSAMPLINGS if o >= needed - 0.05), _OVERSAMPLINGS[-1])

    def transforms(self, grid, share=None):
        """Transforms of the PSFs with the pixel [float32 [psf, ky, kx]].

        ``share`` "fine" or "coarse" gives the part of each frequency that box or stamp draws.
        """
        key = (grid.length, grid.half, grid.wrapped, share)
        if key not in self._transforms:
            stack = np.stack([psf.fourier(grid) for psf in self.psfs]) * grid.pixel
            if share is not None:
                fine = _fine_share(grid.frequency / self.nyquist)
                stack *= fine if share == "fine" else 1 - fine
            self._transforms[key] = stack.astype(np.float32)
        return self._transforms[key]

    def draw(self, profile, x, y, size):
        """Draw `profile` centred at pixel (x, y) on [psf, size, size]."""
        # The transform is periodic: its copies must stay a profile's reach away from the stamp.
        reach = math.hypot(profile.reach, self.reach) / self.scale
        needed = max(size, reach + max(x, y, size - 1 - x, size - 1 - y))
        length = next((n for n in _LENGTHS if n >= needed), max(_LENGTHS[-1], 2 * size))
        oversampling = self.oversampling
        if oversampling > 1:
            oversampling = min(oversampling, self._oversampling(profile.slowest(self._k)))
        if oversampling == 1:
            return self._draw_stamp(profile, x, y, size, length, None)
        box = 2 * (_BOX_MARGIN + profile.detail / self.scale)
        box = next((n for n in _BOX_LENGTHS if n >= box), length)
        if box > 0.75 * length:
            return self._draw_box(profile, x, y, size, length, oversampling, None)
        image = self._draw_stamp(profile, x, y, size, length, "coarse")
        # The box's pixels that are on the stamp.
        (x0, x1), (y0, y1) = (
            (max(first, 0), min(first + box, size)) for first in (round(p) - box // 2 for p in (x, y))
        )
        if x1 > x0 and y1 > y0:
            image[:, y0:y1, x0:x1] += self._draw_box(
                profile, x - x0, y - y0, (y1 - y0, x1 - x0), box, oversampling, "fine"
            )
        return image

    def _draw_stamp(self, profile, x, y, size, length, share):
        """All frequencies that pixels show, by FFT [psf, size, size]."""
        grid = _grid(self.scale, length, length // 2, True)
        step = -2j * math.pi / length
        fourier = profile.fourier(grid) * np.exp(step * y * grid.rows).astype(np.complex64)[:, None]
        fourier = fourier * np.exp(step * x * grid.columns).astype(np.complex64)
        product = self.transforms(grid, share) * fourier
        columns = scipy.fft.ifft(product, axis=1, overwrite_x=True)[:, :size]
        return scipy.fft.irfft(columns, n=length, axis=2)[:, :, :size]

    def _draw_box(self, profile, x, y, shape, length, oversampling, share):
        """Frequencies beyond those, too, by sums over them [psf, y, x]: that takes any frequencies to just
        the pixels wanted.
        """
        ny, nx = (shape, shape) if isinstance(shape, int) else shape
        grid = _grid(self.scale, length, math.ceil(0.5 * length * oversampling), False)
        product = self.transforms(grid, share) * profile.fourier(grid)
        along_y, along_x = grid.waves(-y, ny, True), grid.waves(-x, nx, False)
        # Of a real image the other half-plane gives the same again.
        along_x[:, 1:] *= 2
        along_x = along_x.T / np.float32(length**2)
        if np.iscomplexobj(product):
            return ((along_y @ product) @ along_x).real
        real = (along_y.real @ product) @ along_x.real
        real -= (along_y.imag @ product) @ along_x.imag
        return real


class ProfileRenderer:
    """Draws components through all of a survey's distinct PSFs.

    Parameters
    ----------
    profile_kinds : sequence of (`PsfModel`, `float`)
        PSF model and pixel scale [arcsec] of each kind, as
        `Survey.profile_kinds` gives them.
    """

    def __init__(self, profile_kinds):
        self.profile_kinds = tuple(profile_kinds)
        scales = [scale for _, scale in self.profile_kinds]
        profiles = [psf_profile(psf) for psf, _ in self.profile_kinds]
        self._groups = []
        for scale in dict.fromkeys(scales):
            slots = [i for i, other in enumerate(scales) if other == scale]
            self._groups.append(_ScaleGroup(scale, [profiles[i] for i in slots], slots))

    def with_psfs(self, psf_models):
        """A renderer of the same kinds with other PSFs, as those of one scene.

        Parameters
        ----------
        psf_models : sequence of `PsfModel`
            One for each profile kind.

        Returns
        -------
        renderer : `ProfileRenderer`
            This one, where no PSF differs.
        """
        scales = [scale for _, scale in self.profile_kinds]
        kinds = tuple(zip(psf_models, scales, strict=True))
        return self if kinds == self.profile_kinds else ProfileRenderer(kinds)

    def draw(self, profile, dx=0.0, dy=0.0, size=64):
        """Draw one component.

        Parameters
        ----------
        profile : `RadialProfile` or `galsim.GSObject`
            Unit flux, centred, before the PSF: see `component_profile`.
        dx, dy : `float`
            Offset of its centre from the stamp's centre [arcsec].
        size : `int`
            Side of the stamp [pixel], the same for every kind.

        Returns
        -------
        images : `numpy.ndarray` [kind, y, x] of `float32`
            Fraction of the flux in each pixel. The flux that falls outside
            the stamp is lost, as in nature.

        Raises
        ------
        galsim.GalSimError
            If GalSim cannot evaluate the profile.
        """
        if not isinstance(profile, RadialProfile):
            profile = GalsimProfile(profile)
        out = np.empty((len(self.profile_kinds), size, size), np.float32)
        centre = (size - 1) / 2
        for group in self._groups:
            x, y = centre + dx / group.scale, centre + dy / group.scale
            out[group.slots] = group.draw(profile, x, y, size)
        return out
