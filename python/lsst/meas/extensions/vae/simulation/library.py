# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What drawing needs of a catalogue: fluxes and profiles by number."""

__all__ = ["GalaxyLibrary"]

import math

import galsim
import numpy as np

from ..errors import CatalogError
from .render import component_profile, rounded_index


class GalaxyLibrary:
    """What drawing needs of a catalogue, for one survey, as plain arrays.

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
        self.reference = survey.band_names.index(survey.reference_band)
        magnitudes = galaxies.magnitudes(survey, colour_gradients=colour_gradients)
        electrons = galaxies.fluxes(survey, colour_gradients=colour_gradients)
        usable = np.isfinite(electrons).all(axis=(1, 2)) & np.isfinite(magnitudes[:, self.reference])
        if mag_limit is not None:
            usable &= magnitudes[:, self.reference] < mag_limit
        if not usable.any():
            raise CatalogError(
                f"None of {len(galaxies)} galaxies has {survey.reference_band} < {mag_limit} in "
                f"{survey.name}: "
                "raise mag_limit or give other galaxies"
            )
        chosen = np.flatnonzero(usable)
        self.ident = np.asarray(galaxies.ident)[chosen]
        self.redshift = np.asarray(galaxies.redshift, np.float64)[chosen]
        self.magnitudes = magnitudes[chosen]
        # Image units from here on.
        self.fluxes = (electrons / [band.electrons_per_unit for band in survey.bands])[chosen]
        components = galaxies.components
        names = ("sersic_n", "hlr", "q", "position_angle")
        self._shapes = np.stack(
            [np.asarray(getattr(components, name), np.float64)[chosen] for name in names], axis=-1
        )
        self._sersic_round = sersic_round

    def __len__(self):
        return len(self.ident)

    @property
    def reference_magnitude(self):
        """Reference-band magnitudes [galaxy] in the survey's system."""
        return self.magnitudes[:, self.reference]

    def describe(self, index, rotation, shear, band_names):
        """All that draws a galaxy again, as columns of a field's truth.

        Returns
        -------
        columns : `dict`
        """
        total = self.fluxes[index].sum(axis=0)
        columns = {"ident": self.ident[index], "redshift": self.redshift[index]}
        columns |= {f"flux_{name}": total[b] for b, name in enumerate(band_names)}
        columns |= {f"mag_{name}": self.magnitudes[index, b] for b, name in enumerate(band_names)}
        for c, ((sersic_n, hlr, q, angle), flux) in enumerate(zip(self._shapes[index], self.fluxes[index])):
            columns |= {
                f"sersic_n_{c}": rounded_index(sersic_n, self._sersic_round),
                f"hlr_{c}": hlr,
                f"q_{c}": q,
                f"angle_{c}": (angle + rotation) % math.pi,
            }
            columns |= {f"flux_{c}_{name}": flux[b] for b, name in enumerate(band_names)}
        return columns | {"g1": shear[0], "g2": shear[1]}

    def components(self, index, rotation=0.0, shear=(0.0, 0.0)):
        """Profiles and fluxes of a galaxy's components.

        Parameters
        ----------
        index : `int`
        rotation : `float`
            Angle by which the galaxy is turned, anticlockwise [rad].
        shear : pair of `float`
            Reduced shear.

        Returns
        -------
        components : `list` [(`galsim.GSObject`, `numpy.ndarray` [band])]
            Centred unit-flux profile and fluxes [image unit] of each.

        Raises
        ------
        galsim.GalSimError
            If the galaxy cannot be drawn.
        """
        found = []
        for (sersic_n, hlr, q, angle), flux in zip(self._shapes[index], self.fluxes[index]):
            if np.any(flux > 0):
                found.append(
                    (component_profile(sersic_n, hlr, q, angle + rotation, shear, self._sersic_round), flux)
                )
        if not found:
            raise galsim.GalSimValueError("A galaxy without light", index)
        return found
