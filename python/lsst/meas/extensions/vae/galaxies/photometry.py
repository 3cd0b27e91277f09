# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What catalogues of galaxies have in common: splits, and light in the bands of a survey."""

__all__ = ["SedGalaxies"]

from .fluxes import component_rates, electrons_of_rates, magnitudes_of_rates
from .splits import in_split


class SedGalaxies:
    """Galaxies of one or two components, each with an SED.

    Subclasses have ``ident``, ``redshift`` and ``mag_auto`` [N], can be indexed, and tell the components by
    `_seds`.
    """

    def split(self, name):
        """The galaxies of one split; no galaxy is in two.

        Parameters
        ----------
        name : `str`
            "test" (IDENT % 16 == 0), "validation" (== 1), "train" (the rest) or "all": see `splits`.

        Returns
        -------
        catalog
            Of the same class.

        Raises
        ------
        CatalogError
            For another name.
        """
        return self if name == "all" else self[in_split(self.ident, name)]

    def _seds(self):
        """Index into `SED_NAMES` and part of the F814W flux of each component [N, 2]."""
        raise NotImplementedError

    def _rates(self, survey, colour_gradients):
        """Count rates [electrons/s, before the area ratio; float64 [N, 2, B]]."""
        sed, flux_fraction = self._seds()
        return component_rates(survey, sed, flux_fraction, self.redshift, self.mag_auto, colour_gradients)

    def fluxes(self, survey, colour_gradients=True):
        """Electrons that each component gives in the survey's full exposure.

        Parameters
        ----------
        survey : `~lsst.meas.extensions.vae.survey.Survey`
        colour_gradients : `bool`
            Bulges red and discs blue; otherwise both components have the SED of the one brighter in F814W.

        Returns
        -------
        fluxes : `numpy.ndarray`, float64 [N, 2, n_bands]
            Divide by `Band.electrons_per_unit` for image units. 0 where there is no such component.
        """
        return electrons_of_rates(survey, self._rates(survey, colour_gradients))

    def magnitudes(self, survey, colour_gradients=True):
        """Magnitudes in the survey's own system, never to be mixed with another's.

        Parameters
        ----------
        survey : `~lsst.meas.extensions.vae.survey.Survey`
        colour_gradients : `bool`
            As in `fluxes`.

        Returns
        -------
        magnitudes : `numpy.ndarray`, float64 [N, n_bands]
            Infinite where the SED has no light in the band.
        """
        return magnitudes_of_rates(survey, self._rates(survey, colour_gradients).sum(axis=1))
