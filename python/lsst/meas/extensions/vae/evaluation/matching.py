# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Match detected objects to the galaxies that were simulated."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

__all__ = ["Match", "MatchCounts", "count_matches", "match_objects"]

RADIUS = 0.8
"""Farthest that an object lies from its galaxy [arcsec]."""

COMPARABLE = 0.25
"""A second galaxy with at least this part of the first one's flux, or this
multiple of it inverted, makes an unrecognised blend."""


@dataclass
class Match:
    """Which galaxy each object is.

    Attributes
    ----------
    truth : `numpy.ndarray`, int64 ``[object]``
        Row of the truth; -1 where there is none.
    distance : `numpy.ndarray`, float64 ``[object]``
        Distance from it [arcsec]; NaN where there is none.
    unrecognised : `numpy.ndarray` of `bool` ``[object]``
        A further galaxy of comparable flux, that no object stands for, lies
        within the radius too.
    """

    truth: np.ndarray
    distance: np.ndarray
    unrecognised: np.ndarray

    @property
    def matched(self):
        """`bool` ``[object]``: the object has a galaxy."""
        return self.truth >= 0


@dataclass
class MatchCounts:
    """How well detection did.

    Attributes
    ----------
    n_truth, n_found : `int`
        Galaxies that one would want to find, and those of them that an
        object stands for.
    n_objects, n_matched : `int`
        Objects, and those that stand for any galaxy.
    n_unrecognised : `int`
        Objects that are two comparable galaxies or more.
    """

    n_truth: int
    n_found: int
    n_objects: int
    n_matched: int
    n_unrecognised: int

    @property
    def completeness(self):
        """Found fraction of the wanted galaxies; NaN without any."""
        return self.n_found / self.n_truth if self.n_truth else float("nan")

    @property
    def purity(self):
        """Fraction of the objects that are galaxies; NaN without any."""
        return self.n_matched / self.n_objects if self.n_objects else float("nan")

    def __add__(self, other):
        return MatchCounts(*(getattr(self, n) + getattr(other, n) for n in self.__dataclass_fields__))


def match_objects(x, y, truth_x, truth_y, truth_flux, pixel_scale, radius=RADIUS, comparable=COMPARABLE):
    """Match objects to galaxies, one to one.

    The galaxies choose in the order of their flux, the brightest first: each
    takes the nearest object within the radius that none has taken before.  So
    a faint galaxy beneath a bright one never takes the bright one's object.

    Parameters
    ----------
    x, y : array-like ``[object]``
        Centres of the objects [pixel].
    truth_x, truth_y, truth_flux : array-like ``[galaxy]``
        Centres [pixel] and fluxes in the reference band, any unit.
    pixel_scale : `float`
        [arcsec]
    radius : `float`, optional
        [arcsec]
    comparable : `float`, optional
        Ratio of fluxes, fainter over brighter, from which two galaxies beneath
        one object are an unrecognised blend.

    Returns
    -------
    match : `Match`
    """
    x, y, truth_x, truth_y, flux = (np.asarray(a, float) for a in (x, y, truth_x, truth_y, truth_flux))
    places, galaxies = (
        pixel_scale * np.column_stack([x, y]),
        pixel_scale * np.column_stack([truth_x, truth_y]),
    )
    match = Match(np.full(len(x), -1), np.full(len(x), np.nan), np.zeros(len(x), bool))
    if not len(x) or not len(flux):
        return match
    # Trees of places, so that the cost grows with their number and not with its square.
    near = cKDTree(places).query_ball_point(galaxies, radius, return_sorted=True)
    found = np.zeros(len(flux), bool)
    for galaxy in np.argsort(-flux, kind="stable"):
        free = [k for k in near[galaxy] if match.truth[k] < 0]
        if free:
            distance = np.hypot(*(places[free] - galaxies[galaxy]).T)
            k = free[int(distance.argmin())]
            match.truth[k], match.distance[k], found[galaxy] = galaxy, distance.min(), True
    for galaxy in np.flatnonzero(~found):
        for k in near[galaxy]:
            pair = sorted((flux[galaxy], flux[match.truth[k]]))
            match.unrecognised[k] |= pair[0] >= comparable * pair[1]
    return match


def count_matches(match, wanted):
    """Count what was found and what was missed.

    Parameters
    ----------
    match : `Match`
    wanted : array-like of `bool` ``[galaxy]``
        Galaxies that detection should find, such as those above some signal
        to noise.

    Returns
    -------
    counts : `MatchCounts`
    """
    wanted = np.asarray(wanted, bool)
    found = np.zeros(len(wanted), bool)
    found[match.truth[match.matched]] = True
    return MatchCounts(
        n_truth=int(wanted.sum()),
        n_found=int((wanted & found).sum()),
        n_objects=len(match.truth),
        n_matched=int(match.matched.sum()),
        n_unrecognised=int(match.unrecognised.sum()),
    )
