# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where objects fall on the sky: evenly at random, or in clusters.

Clusters are a Thomas process: their centres fall evenly at random, each has a
Poisson number of members, and members scatter about it by a Gaussian. It has
one scale, while galaxies cluster on all, and members share neither redshift
nor brightness; but its number of close pairs is known exactly (`pair_excess`)
and its mean density is that of the settings.
"""

__all__ = ["Clustering", "poisson_positions", "thomas_positions"]

import math
from dataclasses import dataclass

import numpy as np

from ..errors import VaeError

# Centres are drawn this many radii beyond the box, where 4e-4 of a cluster's members and fewer fall in.
_REACH = 4.0


@dataclass(frozen=True)
class Clustering:
    """How objects cluster. Lengths are in the unit of the positions.

    Parameters
    ----------
    fraction : `float`
        Part of the objects that are members of clusters, 0 to 1.
    members : `float`
        Mean number of members.
    radius : `float`
        Sigma of the members' scatter on each axis.

    Raises
    ------
    VaeError
        For numbers out of range.
    """

    fraction: float = 0.4
    members: float = 4.0
    radius: float = 10.0

    def __post_init__(self):
        if not 0 <= self.fraction <= 1:
            raise VaeError(
                f"Clustered fraction is {self.fraction!r}: expected 0 to 1; change cluster_fraction."
            )
        for name in ("members", "radius"):
            if not 0 < getattr(self, name) < math.inf:
                raise VaeError(
                    f"Clusters' {name} is {getattr(self, name)!r}: expected a number above 0; change "
                    f"cluster_{name}."
                )


def poisson_positions(rng, density, box):
    """Positions that know nothing of each other.

    Parameters
    ----------
    rng : `numpy.random.Generator`
    density : `float`
        Mean number in a unit of area.
    box : (`float`, `float`, `float`, `float`)
        x0, y0, x1, y1.

    Returns
    -------
    positions : `numpy.ndarray`, float64 [object, 2]
        x and y; their number is Poisson.
    """
    x0, y0, x1, y1 = box
    number = int(rng.poisson(density * (x1 - x0) * (y1 - y0)))
    return rng.uniform((x0, y0), (x1, y1), (number, 2))


def thomas_positions(rng, density, box, clustering):
    """Positions of which some fall in clusters.

    Parameters
    ----------
    rng, density, box
        As in `poisson_positions`; ``density`` is that of all objects.
    clustering : `Clustering`

    Returns
    -------
    positions : `numpy.ndarray`, float64 [object, 2]
        x and y, in random order.
    """
    x0, y0, x1, y1 = box
    lone = poisson_positions(rng, density * (1 - clustering.fraction), box)
    reach = _REACH * clustering.radius
    wider = (x0 - reach, y0 - reach, x1 + reach, y1 + reach)
    centres = poisson_positions(rng, density * clustering.fraction / clustering.members, wider)
    centres = np.repeat(centres, rng.poisson(clustering.members, len(centres)), axis=0)
    members = centres + rng.normal(0.0, clustering.radius, centres.shape)
    inside = ((members >= (x0, y0)) & (members < (x1, y1))).all(axis=1)
    return rng.permutation(np.concatenate([lone, members[inside]]))
