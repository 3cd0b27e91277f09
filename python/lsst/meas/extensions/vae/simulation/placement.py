# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is in a scene, and where: decided before anything is drawn.

Offsets are from the stamp's centre, x to the right and y up [arcsec]. In a
list of placed objects the target comes first.
"""

__all__ = [
    "FIELD_MARGIN",
    "Placed",
    "Population",
    "in_annulus",
    "nearest_neighbour",
    "place_annulus",
    "place_field",
    "sheared_about_target",
]

import math
from dataclasses import dataclass, replace

import galsim
import numpy as np

from ..errors import CatalogError

FIELD_MARGIN = 16
"""Pixels around a stamp where field neighbours may lie."""

_MAX_FIELD_NEIGHBOURS = 126


@dataclass(frozen=True)
class Placed:
    """One object of a scene.

    Attributes
    ----------
    library : `SourceLibrary`
        What it is drawn from.
    index : `int`
        Its place there.
    rotation : `float`
        Angle by which it is turned [rad].
    x, y : `float`
        Offset from the stamp's centre [arcsec].
    """

    library: object
    index: int
    rotation: float
    x: float
    y: float

    @property
    def magnitude(self):
        """Reference-band magnitude in the survey's system [`float`]."""
        return self.library.magnitudes[self.index, self.library.reference]

    def moved(self, dx, dy):
        """The same object elsewhere [`Placed`]."""
        return replace(self, x=self.x + dx, y=self.y + dy)


class Population:
    """The libraries that the objects of scenes come from.

    Parameters
    ----------
    galaxies : `SourceLibrary`
    stars, real : `SourceLibrary`, optional
        Needed where a star or a real galaxy is asked for.
    star_fraction : `float`
        Probability that an object is a star; scenes of real galaxies hold none.
    real_fraction : `float`
        Probability that a scene is of real galaxies.
    rotate : `bool`
        Turn each object by a random angle.
    """

    def __init__(self, galaxies, stars=None, real=None, star_fraction=0.0, real_fraction=0.0, rotate=True):
        libraries = {"galaxies": galaxies, "stars": stars, "real": real}
        self.libraries = {name: library for name, library in libraries.items() if library is not None}
        self.star_fraction, self.real_fraction, self.rotate = star_fraction, real_fraction, rotate
        self._targets = {}

    def restrict_targets(self, possible):
        """Say which objects may be drawn as targets.

        Parameters
        ----------
        possible : callable
            From a library to a mask [`bool` array] of its objects.

        Raises
        ------
        CatalogError
            If none is left of a library.
        """
        for name, library in self.libraries.items():
            self._targets[name] = np.flatnonzero(possible(library))
            if len(self._targets[name]) == 0:
                raise CatalogError(f"None of {len(library)} {name} reaches target_snr_min: lower it")

    def draw_real(self, rng):
        """Whether the next scene is of real galaxies [`bool`]."""
        return self.real_fraction > 0 and rng.random() < self.real_fraction

    def draw(self, rng, real, target=False):
        """Draw an object.

        Parameters
        ----------
        rng : `numpy.random.Generator`
        real : `bool`
            From the real galaxies.
        target : `bool`
            One of those that `restrict_targets` left.

        Returns
        -------
        placed : `Placed`
            At the stamp's centre.
        """
        star = not real and self.star_fraction > 0 and rng.random() < self.star_fraction
        name = "real" if real else "stars" if star else "galaxies"
        library = self.libraries[name]
        if target and name in self._targets:
            index = rng.choice(self._targets[name])
        else:
            index = rng.integers(len(library))
        rotation = rng.uniform(0.0, 2 * math.pi) if self.rotate else 0.0
        return Placed(library, int(index), rotation, 0.0, 0.0)


def in_annulus(rng, inner, outer):
    """A point uniform in area in an annulus.

    Returns
    -------
    x, y : `float`
        [unit of the radii]
    """
    radius = math.sqrt(rng.uniform(inner**2, outer**2))
    angle = rng.uniform(0.0, 2 * math.pi)
    return radius * math.cos(angle), radius * math.sin(angle)


def place_annulus(rng, population, settings, offset, real):
    """A scene of Arcelin et al. 2020, section 2.1.3.

    Parameters
    ----------
    rng : `numpy.random.Generator`
    population : `Population`
    settings : `SceneSettings`
    offset : pair of `float`
        Where the target is.
    real : `bool`
        Of real galaxies.

    Returns
    -------
    placed : `list` [`Placed`]
    """
    count = 1
    if settings.kind == "blended":
        count = int(rng.integers(settings.min_galaxies, settings.max_galaxies + 1))
    # The brightest is the target.
    objects = sorted((population.draw(rng, real) for _ in range(count)), key=lambda one: one.magnitude)
    placed = [objects[0].moved(*offset)]
    for neighbour in objects[1:]:
        dx, dy = in_annulus(rng, settings.inner_radius, settings.outer_radius)
        placed.append(neighbour.moved(offset[0] + dx, offset[1] + dy))
    return placed


def place_field(rng, population, settings, offset, real, half_stamp, pixel_scale):
    """A scene as galaxies fall on the sky about any target.

    Parameters
    ----------
    rng, population, settings, offset, real
        As in `place_annulus`.
    half_stamp : `float`
        Half the stamp's side [arcsec].
    pixel_scale : `float`
        Of the reference band [arcsec].

    Returns
    -------
    placed : `list` [`Placed`]
        Neighbours may be outside the stamp, or too faint to matter.
    """
    placed = [population.draw(rng, real, target=True).moved(*offset)]
    if settings.kind == "isolated":
        return placed
    half_side = half_stamp + FIELD_MARGIN * pixel_scale
    count = rng.poisson(settings.density_per_arcmin2 * (2 * half_side / 60) ** 2)
    places = rng.uniform(-half_side, half_side, (count, 2)).tolist()
    if rng.random() < settings.close_fraction:
        for _ in range(rng.integers(1, 3)):
            dx, dy = in_annulus(rng, settings.close_inner_radius, settings.close_outer_radius)
            places.append((offset[0] + dx, offset[1] + dy))
    return placed + [population.draw(rng, real).moved(*place) for place in places[:_MAX_FIELD_NEIGHBOURS]]


def nearest_neighbour(placed):
    """The target's nearest neighbour.

    Parameters
    ----------
    placed : sequence of `Placed`

    Returns
    -------
    number : `int` or `None`
        Its place in the sequence; `None` if the target is alone.
    distance : `float`
        From the target [arcsec]; infinite if it is alone.
    """
    target = placed[0]
    distances = [math.hypot(other.x - target.x, other.y - target.y) for other in placed[1:]]
    if not distances:
        return None, math.inf
    number = min(range(len(distances)), key=distances.__getitem__)
    return number + 1, distances[number]


def sheared_about_target(placed, shear):
    """Move neighbours as lensing moves them, seen from the target.

    Parameters
    ----------
    placed : sequence of `Placed`
    shear : pair of `float`
        Reduced shear (g1, g2).

    Returns
    -------
    placed : `list` [`Placed`]
        The target stays.
    """
    matrix = galsim.Shear(g1=shear[0], g2=shear[1]).getMatrix()
    target = placed[0]
    moved = [target]
    for other in placed[1:]:
        dx, dy = matrix @ np.array([other.x - target.x, other.y - target.y])
        moved.append(replace(other, x=float(target.x + dx), y=float(target.y + dy)))
    return moved
