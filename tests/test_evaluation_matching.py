# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Matching of objects to galaxies, and errors, against known cases."""

import numpy as np
import pytest

from lsst.meas.extensions.vae.evaluation import (
    binned_statistics,
    count_matches,
    error_statistic,
    match_objects,
)


def test_each_object_gets_its_nearest_galaxy():
    match = match_objects([10.2, 50, 80], [10, 50.3, 80], [50, 80.1, 10], [50, 80, 10], [1, 2, 3], 0.2)
    assert list(match.truth) == [2, 0, 1]
    np.testing.assert_allclose(match.distance, [0.04, 0.06, 0.02])
    assert not match.unrecognised.any()


def test_the_radius_is_in_arcsec():
    assert match_objects([3.9], [0], [0], [0], [1], 0.2).matched.all()
    assert not match_objects([4.1], [0], [0], [0], [1], 0.2).matched.any()


def test_the_brighter_galaxy_chooses_first():
    # The faint galaxy is nearer, but the light is the bright one's.
    match = match_objects([10], [10], [10.5, 12], [10, 10], [1, 100], 0.2)
    assert list(match.truth) == [1]


def test_no_galaxy_and_no_object_is_used_twice():
    rng = np.random.default_rng(1)
    match = match_objects(*rng.uniform(0, 40, (2, 60)), *rng.uniform(0, 40, (2, 80)), rng.random(80), 0.2)
    truth = match.truth[match.matched]
    assert len(set(truth)) == len(truth) > 20


@pytest.mark.parametrize(("flux", "hidden"), [(0.3, True), (0.2, False), (3.9, True), (4.1, False)])
def test_a_comparable_galaxy_beneath_an_object_is_an_unrecognised_blend(flux, hidden):
    # The brighter galaxy takes the object, whichever it is.
    match = match_objects([10], [10], [10, 12], [10, 10], [1, flux], 0.2)
    assert match.unrecognised[0] == hidden
    assert match.truth[0] == int(flux > 1)


def test_a_galaxy_with_an_object_of_its_own_hides_beneath_none():
    assert not match_objects([10, 12], [10, 10], [10, 12], [10, 10], [1, 1], 0.2).unrecognised.any()


def test_counts_tell_what_was_found_and_missed():
    match = match_objects([0, 20, 90], [0, 0, 90], [0, 20, 40, 60], [0, 0, 0, 0], [4, 3, 2, 1], 0.2)
    counts = count_matches(match, [True, False, True, True])
    assert (counts.n_truth, counts.n_found, counts.n_objects, counts.n_matched) == (3, 1, 3, 2)
    assert counts.completeness == pytest.approx(1 / 3)
    assert counts.purity == pytest.approx(2 / 3)
    both = counts + counts
    assert (both.n_truth, both.n_objects, both.completeness) == (6, 6, counts.completeness)


def test_nothing_detected_and_nothing_there_are_no_failures():
    assert len(match_objects([], [], [1], [1], [1], 0.2).truth) == 0
    match = match_objects([1], [1], [], [], [], 0.2)
    assert not match.matched.any()
    assert np.isnan(count_matches(match, []).completeness)
    assert count_matches(match, []).purity == 0


def test_median_and_half_width_of_a_gaussian_are_its_mean_and_sigma():
    rng = np.random.default_rng(2)
    truth = rng.uniform(20, 25, 40_000)
    statistic = error_statistic(truth + rng.normal(0.05, 0.2, truth.size), truth)
    assert statistic.median == pytest.approx(0.05, abs=0.005)
    # 16 and 84 % are 0.99446 sigma away.
    assert statistic.half_width == pytest.approx(0.2 * 0.99446, rel=0.02)
    assert (statistic.number, statistic.failures) == (40_000, 0)


def test_outliers_hardly_move_the_half_width():
    rng = np.random.default_rng(3)
    errors = rng.normal(0, 1, 10_000)
    errors[:100] = 1e6
    assert error_statistic(errors, np.zeros(10_000)).half_width == pytest.approx(1, rel=0.05)


def test_failures_are_counted_only_where_the_truth_is_known():
    statistic = error_statistic([1, np.nan, np.nan, 3, np.inf], [0, 0, np.nan, np.nan, 0])
    assert (statistic.number, statistic.failures, statistic.median) == (1, 2, 1)


def test_nothing_measured_gives_nan():
    statistic = error_statistic([np.nan], [1])
    assert (statistic.number, statistic.failures) == (0, 1)
    assert np.isnan(statistic.median) and np.isnan(statistic.half_width)


def test_bins_hold_their_lower_edge_and_not_their_upper():
    snr = np.array([5, 10, 29.99, 30, 99, 100, 5000, np.nan])
    statistics = binned_statistics(np.arange(8), np.zeros(8), snr)
    assert [s.number for s in statistics] == [7, 2, 2, 2]
    assert [s.median for s in statistics] == [3, 1.5, 3.5, 5.5]


def test_components_of_an_ellipticity_are_pooled():
    (everything, *_) = binned_statistics([[0.1, 0.2], [0.3, np.nan]], np.zeros((2, 2)), [20, 40])
    assert (everything.number, everything.failures) == (3, 1)
    assert everything.median == pytest.approx(0.2)
