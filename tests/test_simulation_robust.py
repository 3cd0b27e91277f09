# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Medians, half-widths and clipped slopes, beside what is known of them."""

import numpy as np
import pytest

from lsst.meas.extensions.vae.simulation.statistics import clipped_slope, half_width, median


def test_median_and_half_width_of_a_few_numbers_are_those_by_hand():
    # Percentiles of 0, 1, ..., 100 are themselves.
    values = [*range(101), np.nan, np.inf]
    assert median(values) == 50
    assert half_width(values) == pytest.approx((84 - 16) / 2)
    assert np.isnan(median([])) and np.isnan(half_width([np.nan]))


def test_the_clipped_slope_of_a_line_is_its_slope():
    x = np.linspace(-1, 1, 50)
    assert clipped_slope(x, 0.9 * x + 0.3) == pytest.approx(0.9, abs=1e-12)
    assert clipped_slope(x, 0.9 * x + 0.3, clip=np.inf) == pytest.approx(0.9, abs=1e-12)


def test_outliers_move_the_plain_slope_and_not_the_clipped_one():
    rng = np.random.default_rng(1)
    x = rng.normal(0, 0.2, 2000)
    y = 1.05 * x + rng.normal(0, 0.02, x.size)
    far = np.argsort(x)[-20:]
    y[far] -= 1
    expected = np.polyfit(x, y, 1)[0]
    assert clipped_slope(x, y, clip=np.inf) == pytest.approx(expected, abs=1e-12)
    assert abs(expected - 1.05) > 0.05
    assert clipped_slope(x, y) == pytest.approx(1.05, abs=0.01)


def test_pairs_that_were_not_measured_are_left_out():
    x = np.array([0, 1, 2, 3, np.nan, 5])
    y = np.array([0, 2, 4, 6, 1, np.nan])
    assert clipped_slope(x, y) == pytest.approx(2)


def test_no_slope_of_two_points_or_of_one_abscissa():
    assert np.isnan(clipped_slope([0, 1], [0, 1]))
    assert np.isnan(clipped_slope([1, 1, 1, 1], [0, 1, 2, 3]))
