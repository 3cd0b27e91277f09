# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unit-flux profiles of galaxy components, drawn in place through every PSF.

A galaxy's bands differ by flux alone, or by bulge and disc flux, so a
component is drawn once for each distinct (PSF, pixel scale) and multiplied by
its band fluxes afterwards. GalSim makes the profile and evaluates its Fourier
transform; multiplying by the transform of PSF and pixel and transforming back
is ours, because then the costly evaluation is shared by all PSFs of one pixel
scale and one drawing costs a quarter of `galsim.GSObject.drawImage`.
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

import galsim
import numpy as np
import scipy.fft

PROFILE_ERROR = 1e-3
"""Largest error of a drawn pixel, as a fraction of the profile's peak."""

SERSIC_RANGE = (0.3, 6.2)
"""Sersic indices that GalSim can draw."""

# Grid lengths to choose from: few, so that the transforms of the PSFs are reused, and quick to transform.
_GRID_LADDER = (64, 80, 96, 128, 160, 192, 256, 384, 512, 768)

# Looser than GalSim's defaults where that only shortens the set-up of a new Sersic index (from 60 to 8 ms).
_GSPARAMS = galsim.GSParams(
    kvalue_accuracy=1e-4,
    integration_relerr=1e-4,
    integration_abserr=1e-6,
    maxk_threshold=5e-4,
)

# Largest part of a point source's peak that frequencies left out may carry.
_CUT_FREQUENCIES = 5e-4


@functools.cache
def _unit_sersic(sersic_n: float) -> galsim.Sersic:
    # GalSim forgets all but the last 100 Sersic indices; holding the objects keeps their tables.
    return galsim.Sersic(sersic_n, half_light_radius=1.0, gsparams=_GSPARAMS)


def rounded_index(sersic_n, sersic_round=0.05):
    """The Sersic index that is drawn: rounded, and within `SERSIC_RANGE`."""
    if sersic_round > 0:
        sersic_n = round(round(sersic_n / sersic_round) * sersic_round, 4)
    return float(min(max(sersic_n, SERSIC_RANGE[0]), SERSIC_RANGE[1]))


def component_profile(sersic_n, hlr, q=1.0, angle=0.0, shear=(0.0, 0.0), sersic_round=0.05):
    """A component's light before the PSF.

    Parameters
    ----------
    sersic_n : `float`
        Sersic index; clipped to `SERSIC_RANGE`.
    hlr : `float`
        Circularised half-light radius [arcsec].
    q : `float`
        Axis ratio b/a in (0, 1].
    angle : `float`
        Position angle of the major axis, anticlockwise from +x [rad].
    shear : pair of `float`
        Lensing reduced shear (g1, g2), applied after the rotation.
    sersic_round : `float`
        Rounding of the index, which lets GalSim's tables be reused.

    Returns
    -------
    profile : `galsim.GSObject`
        Centred, of unit flux.

    Raises
    ------
    galsim.GalSimError
        If the parameters are not finite or cannot be drawn.
    """
    if not (
        math.isfinite(sersic_n) and math.isfinite(hlr) and hlr > 0 and 0 < q <= 1 and math.isfinite(angle)
    ):
        raise galsim.GalSimValueError(
            "Not a drawable component (n, hlr, q, angle)", (sersic_n, hlr, q, angle)
        )
    base = _unit_sersic(rounded_index(sersic_n, sersic_round))
    # One matrix holds size, axis ratio, rotation and lensing: nested GalSim transformations cost more.
    cos, sin = math.cos(angle), math.sin(angle)
    along, across = hlr / math.sqrt(q), hlr * math.sqrt(q)
    matrix = np.array([[cos * along, -sin * across], [sin * along, cos * across]])
    if shear[0] or shear[1]:
        matrix = galsim.Shear(g1=shear[0], g2=shear[1]).getMatrix() @ matrix
    flux_ratio = 1.0 / abs(np.linalg.det(matrix))
    return galsim.Transform(base, matrix.ravel(), flux_ratio=flux_ratio)


def point_source():
    """A star's light before the PSF [`galsim.GSObject`]: unit flux, centred."""
    return galsim.DeltaFunction(flux=1.0, gsparams=_GSPARAMS)


def turned_profile(profile, rotation=0.0, shear=(0.0, 0.0)):
    """Any profile turned and then sheared.

    Parameters
    ----------
    profile : `galsim.GSObject`
        Centred.
    rotation : `float`
        Anticlockwise [rad].
    shear : pair of `float`
        Lensing reduced shear (g1, g2).

    Returns
    -------
    profile : `galsim.GSObject`
        Of the same flux.
    """
    cos, sin = math.cos(rotation), math.sin(rotation)
    matrix = galsim.Shear(g1=shear[0], g2=shear[1]).getMatrix() @ [[cos, -sin], [sin, cos]]
    # Both leave areas as they are.
    return galsim.Transform(profile, matrix.ravel())


def _highest_frequency(psf, scale):
    """Frequency [1/arcsec] beyond which a point source's image in pixels of
    `scale` [arcsec] holds less than `_CUT_FREQUENCIES` of its peak.
    """
    k = np.linspace(0.0, 8 * math.pi / scale, 1601)
    power = k * np.abs([psf.kValue(value, 0.0) for value in k] * np.sinc(k * scale / (2 * math.pi)))
    beyond = 1.0 - np.cumsum(power) / power.sum()
    return k[np.argmax(beyond < _CUT_FREQUENCIES)]


class _ScaleGroup:
    """The profile kinds that share one pixel scale.

    Parameters
    ----------
    scale : `float`
        Pixel scale [arcsec].
    psfs : `list` [`galsim.GSObject`]
        Unit-flux PSFs without the pixel.
    slots : `list` [`int`]
        Index of each among the survey's profile kinds.
    """

    def __init__(self, scale, psfs, slots):
        self.scale = scale
        self.slots = slots
        self.psfs = psfs
        maxk = max(_highest_frequency(psf, scale) for psf in psfs)
        self.oversample = max(1, math.ceil(maxk * scale / math.pi - 0.05))
        self.reach = max(math.pi / psf.stepk for psf in psfs)
        self._transforms = {}

    def fourier(self, profile, length, oversample):
        """Half-plane Fourier transform [ky, kx], ky ascending, kx from 0."""
        half = length * oversample // 2
        bounds = galsim.BoundsI(0, half, -half, half - 1)
        image = galsim.ImageCF(bounds, scale=2 * math.pi / (length * self.scale))
        profile.drawKImage(image=image, recenter=False)
        return image.array

    def transforms(self, length, oversample):
        """Transforms of the PSFs with the pixel [psf, ky, kx]; real where the
        PSF is symmetric, as all our models are.
        """
        key = (length, oversample)
        if key not in self._transforms:
            pixel = galsim.Pixel(self.scale)
            stack = np.stack([self.fourier(galsim.Convolve(psf, pixel), *key) for psf in self.psfs])
            if np.abs(stack.imag).max() < 1e-6:
                stack = stack.real.copy()
            self._transforms[key] = stack
        return self._transforms[key]

    def draw(self, profile, x, y, size):
        """Draw `profile` centred at pixel (x, y) on [psf, size, size]."""
        # The transform is periodic: its copies must stay a profile's reach away from the stamp.
        reach = math.hypot(math.pi / profile.stepk, self.reach) / self.scale
        needed = max(size, reach + max(x, y, size - 1 - x, size - 1 - y))
        length = next((n for n in _GRID_LADDER if n >= needed), max(_GRID_LADDER[-1], 2 * size))
        # Frequencies beyond the pixels' own are aliased, which nature does too: keep all that the PSF passes.
        oversample = self.oversample
        if oversample > 1:
            oversample = min(oversample, max(1, math.ceil(profile.maxk * self.scale / math.pi)))
        fourier = self.fourier(profile, length, oversample)
        half = length * oversample // 2
        step = -2j * math.pi / length
        phase_y = np.exp(step * y * np.arange(-half, half)).astype(np.complex64)
        phase_x = np.exp(step * x * np.arange(half + 1)).astype(np.complex64)
        fourier = fourier * phase_y[:, None] * phase_x
        product = self.transforms(length, oversample) * fourier
        if oversample > 1:
            product = product.reshape(len(product), oversample, length, half + 1).sum(axis=1)
        columns = scipy.fft.ifft(product, axis=1, overwrite_x=True)[:, :size]
        if oversample % 2:
            # The rows start at the most negative frequency, which alternates the sign along y.
            columns[:, 1::2] *= -1
        rows = scipy.fft.irfft(columns, n=length * oversample, axis=2)
        return rows[:, :, : size * oversample : oversample] * oversample


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
        self.scales = np.array([scale for _, scale in profile_kinds])
        profiles = [psf.profile() for psf, _ in profile_kinds]
        self._groups = []
        for scale in dict.fromkeys(self.scales.tolist()):
            slots = [i for i, other in enumerate(self.scales) if other == scale]
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
        profile : `galsim.GSObject`
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
        out = np.empty((len(self.scales), size, size), np.float32)
        centre = (size - 1) / 2
        for group in self._groups:
            x, y = centre + dx / group.scale, centre + dy / group.scale
            out[group.slots] = group.draw(profile, x, y, size)
        return out
