# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Completeness and purity by pass, against cases counted by hand."""

import numpy as np
import pytest
from astropy.table import Table

from lsst.meas.extensions.vae.errors import ImageError
from lsst.meas.extensions.vae.evaluation import detection_by_pass
from lsst.meas.extensions.vae.survey import get_survey

SURVEY = get_survey("lsst10yr", ("g", "r"))


def truth(rows):
    """Galaxies (y, x, flux, SNR in each band)."""
    y, x, flux, snr = np.array(rows, float).reshape(-1, 4).T
    table = Table({"x": x, "y": y, "flux_r": flux, "snr_g": snr, "snr_r": snr})
    table["in_field"] = (x >= 0) & (x < 200)
    return table


GALAXIES = [
    (50, 50, 100, 40),  # found at once
    (50, 56, 30, 20),  # beneath it, found by pass 2
    (100, 100, 50, 30),  # found by pass 2, far from all others
    (100, 106, 20, 8),  # beneath that, never found
    (150, 150, 9, 5),  # too faint to be wanted, found
    (150, 154, 9, 4),  # as faint, beneath it, never found
    (150, 250, 90, 40),  # beyond the field
]
SOURCES = [(50, 50.5), (150, 150), (20, 20), (50, 56), (100, 100), (30, 120)]
PASSES = [1, 1, 1, 2, 2, 3]


def test_every_pass_is_counted():
    table = detection_by_pass(SOURCES, PASSES, truth(GALAXIES), SURVEY)
    assert list(table["pass"]) == [1, 2, 3]
    assert list(table["sources"]) == [3, 5, 6] and list(table["new"]) == [3, 2, 1]
    assert list(table["false"]) == [1, 1, 2] and list(table["new_false"]) == [1, 0, 1]
    assert list(table["wanted"]) == [4, 4, 4] and list(table["found"]) == [1, 3, 3]
    np.testing.assert_allclose(table["completeness"], [0.25, 0.75, 0.75])
    np.testing.assert_allclose(table["purity"], [2 / 3, 4 / 5, 4 / 6])


def test_unrecognised_blends_are_counted_where_they_are_and_when_they_are_found():
    table = detection_by_pass(SOURCES, PASSES, truth(GALAXIES), SURVEY)
    # The galaxy at x = 56 first, that at 106 once its neighbour is a source.
    assert list(table["unrecognised"]) == [1, 1, 1]
    # The one at (100, 100) was beneath no source.
    assert list(table["recognised"]) == [0, 1, 0]
    near = detection_by_pass(SOURCES, PASSES, truth(GALAXIES), SURVEY, blend_radius=1.0)
    assert not near["unrecognised"].any() and not near["recognised"].any()


def test_a_false_source_is_no_unrecognised_blend():
    table = detection_by_pass([(50, 50)], [1], truth([(50, 55, 10, 20)]), SURVEY)
    assert list(table["unrecognised"]) == [0] and list(table["false"]) == [1]


def test_which_galaxies_are_wanted_depends_on_the_snr_of_all_bands():
    # 8 in each of two bands are 11.3.
    assert detection_by_pass(SOURCES, PASSES, truth(GALAXIES), SURVEY, min_snr=11.4)["wanted"][0] == 3
    assert detection_by_pass(SOURCES, PASSES, truth(GALAXIES), SURVEY, min_snr=0)["wanted"][0] == 6


def test_no_source_and_no_galaxy_give_one_row():
    table = detection_by_pass(np.zeros((0, 2)), np.zeros(0, int), truth(GALAXIES), SURVEY)
    assert len(table) == 1 and table["completeness"][0] == 0 and np.isnan(table["purity"][0])
    table = detection_by_pass(SOURCES, PASSES, truth([]), SURVEY)
    assert np.isnan(table["completeness"]).all() and not table["purity"].any()


@pytest.mark.parametrize("passes", [[1, 2], [0] * 6])
def test_passes_that_do_not_fit_are_refused(passes):
    with pytest.raises(ImageError, match="one for each, from 1"):
        detection_by_pass(SOURCES, passes, truth(GALAXIES), SURVEY)
