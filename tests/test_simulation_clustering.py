# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Positions on the sky: densities and numbers of pairs known analytically."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from lsst.meas.extensions.vae.errors import VaeError
from lsst.meas.extensions.vae.simulation.clustering import (
    Clustering,
    poisson_positions,
    thomas_positions,
)

BOX = (-10.0, 5.0, 190.0, 155.0)
DENSITY = 0.02


def pairs_within(positions, radius):
    """Ordered pairs closer than ``radius`` whose first is so far inside the box that none is missed."""
    low, high = np.array(BOX[:2]) + radius, np.array(BOX[2:]) - radius
    inner = positions[((positions >= low) & (positions < high)).all(axis=1)]
    counts = cKDTree(positions).query_ball_point(inner, radius, return_length=True) - 1
    return counts.sum() / np.prod(high - low)


def pair_excess(separation, density, clustering):
    """By how much pairs of a separation outnumber those of Poisson positions: a Thomas process' two-point
    correlation.
    """
    spread = 4 * clustering.radius**2
    amplitude = clustering.fraction * clustering.members / (np.pi * spread * density)
    return amplitude * np.exp(-(separation**2) / spread)


def expected_pairs(radius, clustering):
    """Integral of density^2 (1 + excess) over the circle, for a unit of area."""
    r = np.linspace(0.0, radius, 2001)
    excess = pair_excess(r, DENSITY, clustering) if clustering else 0.0
    return DENSITY**2 * np.trapezoid(2 * np.pi * r * (1 + excess), r)


@pytest.mark.parametrize("radius", [2.0, 6.0, 15.0])
@pytest.mark.parametrize("clustering", [None, Clustering(1.0, 5.0, 4.0), Clustering(0.6, 3.0, 6.0)])
def test_pairs_exceed_poisson_by_the_analytic_amount(clustering, radius):
    rng = np.random.default_rng(3)
    counts = []
    for _ in range(200):
        if clustering is None:
            positions = poisson_positions(rng, DENSITY, BOX)
        else:
            positions = thomas_positions(rng, DENSITY, BOX, clustering)
        counts.append(pairs_within(positions, radius))
    error = np.std(counts) / np.sqrt(len(counts))
    expected = expected_pairs(radius, clustering)
    assert np.mean(counts) == pytest.approx(expected, abs=4 * error)
    # The test can tell clusters from none.
    assert clustering is None or expected - expected_pairs(radius, None) > 4 * error or radius == 15.0


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_mean_density_is_that_asked_for_up_to_the_borders(fraction):
    rng = np.random.default_rng(7)
    clustering = Clustering(fraction, 6.0, 8.0)
    positions = np.concatenate([thomas_positions(rng, DENSITY, BOX, clustering) for _ in range(400)])
    x0, y0, x1, y1 = BOX
    assert (positions >= (x0, y0)).all() and (positions < (x1, y1)).all()
    expected = 400 * DENSITY * (x1 - x0) * (y1 - y0)
    # Whole clusters come and go, so the number scatters more than Poisson's.
    assert len(positions) == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 + 6 * fraction)))
    border = np.mean((positions[:, 0] < x0 + 5) | (positions[:, 1] > y1 - 5))
    share = 1 - (1 - 5 / (x1 - x0)) * (1 - 5 / (y1 - y0))
    assert border == pytest.approx(share, abs=4 * np.sqrt(share * (1 + 6 * fraction) / len(positions)))


def test_objects_come_in_random_order():
    positions = thomas_positions(np.random.default_rng(1), DENSITY, BOX, Clustering(1.0, 20.0, 2.0))
    steps = np.hypot(*np.diff(positions, axis=0).T)
    assert np.median(steps) > 20.0


@pytest.mark.parametrize("wrong", [{"fraction": 1.2}, {"members": 0.0}, {"radius": -1.0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(VaeError, match=f"cluster_{next(iter(wrong))}"):
        Clustering(**wrong)
