# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Light before or after the atmosphere as a Fourier transform: of Sersic components, stars, images and PSFs.

What drawing needs of a profile is its transform on a grid of frequencies. A Sersic profile and our PSFs are
round ones that were stretched and turned, so that one table by frequency, made with GalSim, gives the
transform of any of them in a tenth of GalSim's time.
"""

__all__ = [
    "SERSIC_RANGE",
    "GalsimProfile",
    "KGrid",
    "RadialProfile",
    "component_profile",
    "point_source",
    "psf_profile",
    "rounded_index",
    "turned_profile",
]

import functools
import math

import galsim
import numpy as np
from scipy.interpolate import CubicSpline

SERSIC_RANGE = (0.3, 6.2)
"""Sersic indices that GalSim can draw."""

# Looser than GalSim's defaults where that only shortens the set-up of a new Sersic index (to 15 ms, to the
# accuracy of a few parts in 10^5).
_GSPARAMS = galsim.GSParams(
    integration_relerr=1e-4,
    integration_abserr=1e-6,
    maxk_threshold=5e-4,
)

# Rows of a table are this far apart in the root of the frequency: steep tops are as well sampled as long
# tails, and a line between rows is wrong by some 10^-5. GalSim gives every twelfth row and a spline the rest.
_TABLE_STEP = 2.5e-3
_ROWS_A_KNOT = 12

# Tables end at this frequency over that of the round profile's size: no PSF passes it for a galaxy that fits
# on a stamp.
_TABLE_END = 900.0

# Beyond this many half-light radii along the major axis a component has no detail to speak of.
_DETAIL_RADII = 3.0


class KGrid:
    """A half-plane of frequencies, kx from 0 on.

    Parameters
    ----------
    scale : `float`
        Pixel scale [arcsec].
    length : `int`
        Pixels after which the drawn image repeats itself.
    half : `int`
        Frequencies on each side of 0; half the length gives all that pixels can show.
    wrapped : `bool`
        Rows in the order of FFTs (0 and up, then the negative ones: ``2 half``) in place of ascending order
        (``2 half + 1``).

    Attributes
    ----------
    kx, ky : float32
        Frequencies [1/arcsec] of columns and rows.
    """

    def __init__(self, scale, length, half, wrapped):
        self.scale, self.length, self.half, self.wrapped = scale, length, half, wrapped
        self.step = 2 * math.pi / (length * scale)
        self.columns = np.arange(half + 1)
        self.rows = np.fft.ifftshift(np.arange(-half, half)) if wrapped else np.arange(-half, half + 1)
        self.kx = (self.step * self.columns).astype(np.float32)
        self.ky = (self.step * self.rows).astype(np.float32)
        self._xx, self._xy, self._yy = self.kx**2, self.kx * self.ky[:, None], self.ky[:, None] ** 2
        self.pixel = np.sinc(self.ky[:, None] * scale / (2 * math.pi)) * np.sinc(
            self.kx * scale / (2 * math.pi)
        )

    def squared(self, xx, xy, yy):
        """The quadratic form xx kx^2 + 2 xy kx ky + yy ky^2 [float32 [ky, kx]]."""
        form = self._xy * np.float32(2 * xy)
        form += self._xx * np.float32(xx)
        form += self._yy * np.float32(yy)
        # Of a positive form rounding may leave a tiny negative.
        return np.maximum(form, 0, out=form)

    def waves(self, first, number, of_rows):
        """Waves at pixels from a place on, of the rows' or columns' frequencies.

        Parameters
        ----------
        first : `float`
            Place of the first pixel [pixel].
        number : `int`
        of_rows : `bool`

        Returns
        -------
        waves : `numpy.ndarray`, complex64 [number, frequency]
        """
        frequencies = self.rows if of_rows else self.columns
        kept = self._row_waves if of_rows else self._column_waves
        phase = np.exp((2j * math.pi * first / self.length) * frequencies)
        return kept[:number] * phase.astype(np.complex64)

    @functools.cached_property
    def _row_waves(self):
        return self._unit_waves(self.rows)

    @functools.cached_property
    def _column_waves(self):
        return self._unit_waves(self.columns)

    def _unit_waves(self, frequencies):
        turns = np.outer(np.arange(self.length), frequencies) % self.length
        return np.exp((2j * math.pi / self.length) * turns).astype(np.complex64)

    @functools.cached_property
    def frequency(self):
        """|k| [float32 [ky, kx]]."""
        return np.sqrt(self.squared(1.0, 0.0, 1.0))


class _RadialTable:
    """Transform of a round GalSim profile of unit flux by frequency."""

    def __init__(self, profile):
        self.reach = math.pi / profile.stepk
        n_knots = math.ceil(math.sqrt(_TABLE_END) / (_TABLE_STEP * _ROWS_A_KNOT)) + 1
        knots = _TABLE_STEP * _ROWS_A_KNOT * np.arange(n_knots)
        known = [profile.kValue(root * root, 0.0).real for root in knots]
        roots = _TABLE_STEP * np.arange((n_knots - 1) * _ROWS_A_KNOT + 1)
        values = CubicSpline(knots, known, bc_type=((1, 0.0), "not-a-knot"))(roots)
        # Two arrays in place of one: no second look-up, of the next row.
        self._values = values.astype(np.float32)
        self._slopes = np.diff(values, append=0.0).astype(np.float32)
        # Beyond the table there is nothing.
        self._values[-1] = self._slopes[-1] = 0.0

    def __call__(self, squared):
        """Transform [float32] at squared frequencies, which are overwritten."""
        place = np.sqrt(np.sqrt(squared, out=squared), out=squared)
        place *= np.float32(1 / _TABLE_STEP)
        np.minimum(place, np.float32(len(self._values) - 1), out=place)
        row = place.astype(np.int32)
        place -= row
        place *= self._slopes.take(row)
        place += self._values.take(row)
        return place


class RadialProfile:
    """A round profile, stretched and turned; of unit flux and centred.

    Parameters
    ----------
    table : `_RadialTable`
        Of the round profile.
    matrix : ((`float`, `float`), (`float`, `float`))
        Takes places [arcsec] on the round profile to those on this one.
    detail : `float`
        How far fine structure reaches on the round profile, in its unit.

    Attributes
    ----------
    reach : `float`
        Radius [arcsec] beyond which there is next to no light.
    detail : `float`
        Radius [arcsec] beyond which nothing is finer than a smooth wing.
    """

    def __init__(self, table, matrix, detail):
        (a, b), (c, d) = matrix
        self._table = table
        # M M^T, whose form gives the squared length of M^T k.
        self._form = (a * a + b * b, a * c + b * d, c * c + d * d)
        mean, half_difference = 0.5 * (self._form[0] + self._form[2]), 0.5 * (self._form[0] - self._form[2])
        major = math.sqrt(mean + math.hypot(half_difference, self._form[1]))
        # The product of the axes is the determinant.
        self._minor = abs(a * d - b * c) / major
        self.reach, self.detail = table.reach * major, detail * major

    def fourier(self, grid):
        """Transform on a grid [float32 [ky, kx]]."""
        return self._table(grid.squared(*self._form))

    def slowest(self, frequency):
        """Transform [float32] at frequencies [1/arcsec] in the direction in which it falls slowest."""
        return self._table(np.square(np.asarray(frequency, np.float32) * np.float32(self._minor)))


class GalsimProfile:
    """Any GalSim profile, centred, in the manner of `RadialProfile`.

    Parameters
    ----------
    profile : `galsim.GSObject`
    """

    def __init__(self, profile):
        self._profile = profile
        self._point = isinstance(profile, galsim.DeltaFunction)
        self.reach = self.detail = 0.0 if self._point else math.pi / profile.stepk

    def fourier(self, grid):
        """Transform on a grid [complex64 [ky, kx]]; 1 of a point source."""
        if self._point:
            return np.float32(self._profile.flux)
        bounds = galsim.BoundsI(0, grid.half, -grid.half, grid.half - grid.wrapped)
        image = galsim.ImageCF(bounds, scale=grid.step)
        self._profile.drawKImage(image=image, recenter=False)
        return np.fft.ifftshift(image.array, axes=0) if grid.wrapped else image.array

    def slowest(self, frequency):
        """An upper limit of the transform at frequencies [1/arcsec]."""
        return np.ones(len(frequency), np.float32)


@functools.cache
def _sersic_table(sersic_n):
    return _RadialTable(galsim.Sersic(sersic_n, half_light_radius=1.0, gsparams=_GSPARAMS))


@functools.cache
def _psf_table(kind, beta):
    """Table of a PSF model's kind, with FWHM 1."""
    from ..survey import PsfModel

    return _RadialTable(PsfModel(kind, 1.0, beta).profile())


def psf_profile(model):
    """A PSF without the pixel.

    Parameters
    ----------
    model : `PsfModel`

    Returns
    -------
    profile : `RadialProfile`
    """
    matrix = model.fwhm * galsim.Shear(g1=model.e1, g2=model.e2).getMatrix()
    return RadialProfile(_psf_table(model.kind, model.beta), matrix.tolist(), 0.0)


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
        Rounding of the index, which lets tables be reused.

    Returns
    -------
    profile : `RadialProfile`
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
    # One matrix holds size, axis ratio, rotation and lensing.
    cos, sin = math.cos(angle), math.sin(angle)
    along, across = hlr / math.sqrt(q), hlr * math.sqrt(q)
    (a, b), (c, d) = (cos * along, -sin * across), (sin * along, cos * across)
    g1, g2 = shear
    if g1 or g2:
        norm = g1 * g1 + g2 * g2
        if not norm < 1:
            raise galsim.GalSimValueError("Not a reduced shear below 1", shear)
        norm = 1 / math.sqrt(1 - norm)
        a, b, c, d = (
            norm * ((1 + g1) * a + g2 * c),
            norm * ((1 + g1) * b + g2 * d),
            norm * (g2 * a + (1 - g1) * c),
            norm * (g2 * b + (1 - g1) * d),
        )
    table = _sersic_table(rounded_index(sersic_n, sersic_round))
    return RadialProfile(table, ((a, b), (c, d)), _DETAIL_RADII)


def point_source():
    """A star's light before the PSF [`galsim.GSObject`]: unit flux, centred."""
    return galsim.DeltaFunction(flux=1.0)


def turned_profile(profile, rotation=0.0, shear=(0.0, 0.0)):
    """Any GalSim profile turned and then sheared.

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
