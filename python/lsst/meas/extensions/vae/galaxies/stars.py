# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""A synthetic population of stars: magnitudes and colours of point sources.

It is a simplification, meant for stars among the objects of a training sample and not as a model of the
Galaxy: spectra are black bodies without lines or bands, so the coolest stars are less red in g - r and more
in r - i than M dwarfs are, there are no giants, white dwarfs or binaries, no dust, and counts do not depend
on the place in the sky.
"""

__all__ = ["StarCatalog", "synthetic_stars"]

from dataclasses import dataclass

import numpy as np

from ..errors import CatalogError
from .fluxes import blackbody_counts_per_second, electrons_of_rates, magnitudes_of_rates
from .splits import SPLITS

_BRIGHTEST = 18.0

# Slope of log10 of the counts at high Galactic latitude.
_COUNTS_SLOPE = 0.13

_COOLEST, _HOTTEST = 3000.0, 7500.0


@dataclass(frozen=True)
class StarCatalog:
    """Stars.

    Attributes
    ----------
    ident : int64 [N]
        Negative, so that no star is taken for a galaxy; no star is in two splits.
    mag_auto : float64 [N]
        F814W magnitude, AB.
    temperature : float64 [N]
        Of the black body [K].
    """

    ident: np.ndarray
    mag_auto: np.ndarray
    temperature: np.ndarray

    def __len__(self):
        return len(self.ident)

    def _rates(self, survey):
        return blackbody_counts_per_second(survey, self.temperature, self.mag_auto)

    def fluxes(self, survey):
        """Electrons in the survey's full exposure [float64 [N, n_bands]]."""
        return electrons_of_rates(survey, self._rates(survey))

    def magnitudes(self, survey):
        """Magnitudes in the survey's own system [float64 [N, n_bands]]."""
        return magnitudes_of_rates(survey, self._rates(survey))


def synthetic_stars(n, seed=1, split="train", mag_limit=25.2):
    """Draw stars.

    F814W magnitudes go as dN/dm ~ 10^(0.13 m) from 18 on. Temperatures are between 3000 and 7500 K, as
    dN/dT ~ T^-3: half of the stars are cooler than 3900 K.

    Parameters
    ----------
    n : `int`
        How many.
    seed : `int`
        Not negative. The same seed and split give the same stars.
    split : `str`
        "train", "validation", "test" or "all": each has its own stars.
    mag_limit : `float`
        Faintest F814W magnitude; above 18 and 30 at most.

    Returns
    -------
    stars : `StarCatalog`

    Raises
    ------
    CatalogError
        For an ``n`` below 1, a negative seed, an unknown split or a limit out of range.
    """
    if int(n) != n or n < 1:
        raise CatalogError(f"Cannot draw {n!r} stars: expected a whole number, 1 at least.")
    if int(seed) != seed or seed < 0:
        raise CatalogError(f"Seed {seed!r} of stars: expected a whole number, 0 at least.")
    if split not in SPLITS:
        raise CatalogError(f"Unknown split {split!r}: expected one of {', '.join(SPLITS)}.")
    if not _BRIGHTEST < mag_limit <= 30.0:
        raise CatalogError(
            f"Stars to magnitude {mag_limit!r}: expected more than {_BRIGHTEST} and 30 at most."
        )
    n, number = int(n), SPLITS.index(split)
    rng = np.random.default_rng(np.random.SeedSequence(int(seed), spawn_key=(number,)))
    bright, faint = 10 ** (_COUNTS_SLOPE * _BRIGHTEST), 10 ** (_COUNTS_SLOPE * mag_limit)
    magnitude = np.log10(rng.uniform(bright, faint, n)) / _COUNTS_SLOPE
    temperature = rng.uniform(_HOTTEST**-2, _COOLEST**-2, n) ** -0.5
    return StarCatalog(-1 - (len(SPLITS) * np.arange(n) + number), magnitude, temperature)
