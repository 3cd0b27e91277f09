# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What drawing needs of a catalogue, for one survey: fluxes and profiles by number."""

__all__ = ["GalaxyLibrary", "RealLibrary", "SourceLibrary", "StarLibrary"]

import math
from dataclasses import replace

import galsim
import numpy as np

from ..errors import CatalogError
from ..galaxies import synthetic_stars
from .render import component_profile, point_source, rounded_index, turned_profile


class SourceLibrary:
    """Sources of one kind, as plain arrays: the common shape of all libraries.

    Attributes
    ----------
    ident : `numpy.ndarray`, int64 [source]
        Catalogue number; negative for stars.
    redshift : `numpy.ndarray`, float64 [source]
        NaN for stars.
    magnitudes : `numpy.ndarray`, float64 [source, band]
        In the survey's own system.
    ab_magnitude : `numpy.ndarray`, float64 [source]
        AB magnitude through the bandpass of the reference band, whatever the survey's system.
    fluxes : `numpy.ndarray`, float64 [source, component, band]
        [image unit]; 0 where there is no such component.
    star, real : `numpy.ndarray`, bool [source]
        Whether it is a star, or drawn from an image of HST.
    reference : `int`
        Index of the reference band.
    """

    def __init__(self, survey, ident, redshift, magnitudes, ab_magnitude, electrons, star=False, real=False):
        self.reference = survey.band_names.index(survey.reference_band)
        self.ident = np.asarray(ident, np.int64)
        self.redshift = np.asarray(redshift, np.float64)
        self.magnitudes = magnitudes
        self.ab_magnitude = ab_magnitude
        # Image units from here on.
        self.fluxes = electrons / [band.electrons_per_unit for band in survey.bands]
        self.star = np.full(len(self), star)
        self.real = np.full(len(self), real)

    def __len__(self):
        return len(self.ident)

    @property
    def reference_magnitude(self):
        """Reference-band magnitudes [source] in the survey's system."""
        return self.magnitudes[:, self.reference]

    def components(self, index, rotation=0.0, shear=(0.0, 0.0)):
        """Profiles and fluxes of a source's components.

        Parameters
        ----------
        index : `int`
        rotation : `float`
            Angle by which it is turned, anticlockwise [rad].
        shear : pair of `float`
            Reduced shear.

        Returns
        -------
        components : `list` [(profile, `numpy.ndarray` [band])]
            Centred unit-flux profile, which `ProfileRenderer.draw` takes, and fluxes [image unit] of each.

        Raises
        ------
        galsim.GalSimError
            If it cannot be drawn.
        """
        raise NotImplementedError

    def describe(self, index, rotation, shear, band_names):
        """All that draws a source again, as columns of a field's truth.

        Parameters
        ----------
        index, rotation, shear
            As in `components`.
        band_names : sequence of `str`
            Of the survey's bands, in order.

        Returns
        -------
        columns : `dict`
            ident, redshift, star, real, r_mag_ab, flux_<b> [image unit], mag_<b>; of component c = 0, 1:
            sersic_n_<c>, hlr_<c> [arcsec], q_<c>, angle_<c> [rad] (NaN where it is no Sersic profile),
            flux_<c>_<b>; rotation [rad], g1, g2.
        """
        total = self.fluxes[index].sum(axis=0)
        columns = {
            "ident": self.ident[index],
            "redshift": self.redshift[index],
            "star": self.star[index],
            "real": self.real[index],
            "r_mag_ab": self.ab_magnitude[index],
        }
        columns |= {f"flux_{name}": total[b] for b, name in enumerate(band_names)}
        columns |= {f"mag_{name}": self.magnitudes[index, b] for b, name in enumerate(band_names)}
        for c, (shape, flux) in enumerate(zip(self._describe_shapes(index, rotation), self.fluxes[index])):
            columns |= {f"{name}_{c}": value for name, value in zip(_SHAPE_NAMES, shape)}
            columns |= {f"flux_{c}_{name}": flux[b] for b, name in enumerate(band_names)}
        return columns | {"rotation": rotation, "g1": shear[0], "g2": shear[1]}

    def _describe_shapes(self, index, rotation):
        """Sersic index, half-light radius, axis ratio and turned angle of both components."""
        return np.full((2, 4), np.nan)


_SHAPE_NAMES = ("sersic_n", "hlr", "q", "angle")


def _in_ab(survey):
    """A survey of the reference band alone, through its own bandpass, in AB."""
    return replace(survey.select([survey.reference_band]), magnitude_system="AB")


def _usable(electrons, magnitudes, survey, mag_limit, what):
    """Indices of sources with fluxes and brighter than the limit; refuses to find none."""
    reference = magnitudes[:, survey.band_names.index(survey.reference_band)]
    usable = np.isfinite(electrons).all(axis=(1, 2)) & np.isfinite(reference)
    if mag_limit is not None:
        usable &= reference < mag_limit
    if not usable.any():
        raise CatalogError(
            f"None of {len(usable)} {what} has {survey.reference_band} < {mag_limit} in {survey.name}: "
            f"raise mag_limit or give other {what}"
        )
    return np.flatnonzero(usable)


class GalaxyLibrary(SourceLibrary):
    """Parametric galaxies: one Sersic profile, or bulge and disc.

    Parameters
    ----------
    galaxies : `GalaxyCatalog`
    survey : `Survey`
    mag_limit : `float` or `None`
        Reference-band cut in the survey's magnitudes.
    colour_gradients : `bool`
    sersic_round : `float`

    Raises
    ------
    CatalogError
        If no galaxy is left.
    """

    def __init__(self, galaxies, survey, mag_limit=None, colour_gradients=True, sersic_round=0.05):
        magnitudes = galaxies.magnitudes(survey, colour_gradients=colour_gradients)
        electrons = galaxies.fluxes(survey, colour_gradients=colour_gradients)
        chosen = _usable(electrons, magnitudes, survey, mag_limit, "galaxies")
        ab_magnitude = galaxies.magnitudes(_in_ab(survey), colour_gradients=colour_gradients)[:, 0]
        super().__init__(
            survey,
            np.asarray(galaxies.ident)[chosen],
            np.asarray(galaxies.redshift)[chosen],
            magnitudes[chosen],
            ab_magnitude[chosen],
            electrons[chosen],
        )
        components = galaxies.components
        names = ("sersic_n", "hlr", "q", "position_angle")
        self._shapes = np.stack(
            [np.asarray(getattr(components, name), np.float64)[chosen] for name in names], axis=-1
        )
        self._sersic_round = sersic_round
        self._lit = (self.fluxes > 0).any(axis=2)

    def _describe_shapes(self, index, rotation):
        return [
            (rounded_index(sersic_n, self._sersic_round), hlr, q, (angle + rotation) % math.pi)
            for sersic_n, hlr, q, angle in self._shapes[index]
        ]

    def components(self, index, rotation=0.0, shear=(0.0, 0.0)):
        found = []
        for (sersic_n, hlr, q, angle), flux, lit in zip(
            self._shapes[index].tolist(), self.fluxes[index], self._lit[index]
        ):
            if lit:
                found.append(
                    (component_profile(sersic_n, hlr, q, angle + rotation, shear, self._sersic_round), flux)
                )
        if not found:
            raise galsim.GalSimValueError("A galaxy without light", index)
        return found


class StarLibrary(SourceLibrary):
    """Stars: point sources, of the simple population of `~lsst.meas.extensions.vae.galaxies.synthetic_stars`.

    Parameters
    ----------
    survey : `Survey`
    n : `int`
        Stars drawn; those that ``mag_limit`` cuts are left out.
    seed : `int`
        Not negative.
    mag_limit : `float` or `None`
        Reference-band cut in the survey's magnitudes.
    split : `str`
        Each split has its own stars.
    faintest : `float`
        Faintest F814W magnitude drawn.

    Raises
    ------
    CatalogError
        If a number is out of range or no star is left.
    """

    def __init__(self, survey, n, seed, mag_limit=None, split="train", faintest=25.2):
        stars = synthetic_stars(n, seed, split, faintest)
        magnitudes = stars.magnitudes(survey)
        # The second component, which galaxies may have, is empty.
        electrons = np.stack([stars.fluxes(survey), np.zeros_like(magnitudes)], axis=1)
        chosen = _usable(electrons, magnitudes, survey, mag_limit, "stars")
        super().__init__(
            survey,
            stars.ident[chosen],
            np.full(len(chosen), np.nan),
            magnitudes[chosen],
            stars.magnitudes(_in_ab(survey))[chosen, 0],
            electrons[chosen],
            star=True,
        )

    def components(self, index, rotation=0.0, shear=(0.0, 0.0)):
        """One point source, which rotation and shear leave as it is: see `SourceLibrary.components`."""
        return [(point_source(), self.fluxes[index, 0])]


class RealLibrary(SourceLibrary):
    """Galaxies with images of HST: one profile in all bands, scaled to the fluxes of the parametric fit.

    `describe` gives what draws them again with the same `RealGalaxies` at hand: ident, rotation and shear.

    Parameters
    ----------
    real : `RealGalaxies`
    survey : `Survey`
    mag_limit : `float` or `None`
        Reference-band cut in the survey's magnitudes.
    colour_gradients : `bool`
        Whether bulge and disc of the fit had their own SEDs, of which the fluxes are the sum.

    Raises
    ------
    CatalogError
        If no galaxy is left.
    """

    def __init__(self, real, survey, mag_limit=None, colour_gradients=True):
        magnitudes = real.magnitudes(survey, colour_gradients=colour_gradients)
        total = real.fluxes(survey, colour_gradients=colour_gradients).sum(axis=1)
        electrons = np.stack([total, np.zeros_like(total)], axis=1)
        chosen = _usable(electrons, magnitudes, survey, mag_limit, "real galaxies")
        super().__init__(
            survey,
            real.ident[chosen],
            real.redshift[chosen],
            magnitudes[chosen],
            real.magnitudes(_in_ab(survey), colour_gradients=colour_gradients)[chosen, 0],
            electrons[chosen],
            real=True,
        )
        self._images = real[chosen]

    def components(self, index, rotation=0.0, shear=(0.0, 0.0)):
        """The image turned and sheared: see `SourceLibrary.components`.

        Raises
        ------
        CatalogError
            If the image cannot be read.
        """
        return [(turned_profile(self._images.profile(index), rotation, shear), self.fluxes[index, 0])]
