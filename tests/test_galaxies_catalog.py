# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue of galaxies: splits, rules of GalSim, rows that are refused."""

import logging

import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import CatalogError
from lsst.meas.extensions.vae.galaxies import SED_NAMES, GalaxyCatalog, synthetic_galaxies
from lsst.meas.extensions.vae.galaxies.splits import SPLIT_NUMBERS, SPLITS, in_split, split_of


@pytest.fixture
def table():
    return synthetic_galaxies(400, seed=2).table.copy()


def test_splits_never_overlap_and_are_by_ident():
    galaxies = synthetic_galaxies(1000)
    parts = {name: set(galaxies.split(name).ident.tolist()) for name in ("train", "validation", "test")}
    assert parts["test"] == {ident for ident in range(1000) if ident % 16 == 0}
    assert parts["validation"] == {ident for ident in range(1000) if ident % 16 == 1}
    assert not parts["train"] & (parts["test"] | parts["validation"])
    assert len(set().union(*parts.values())) == 1000
    assert galaxies.split("all") is galaxies


def test_truth_and_catalogue_share_one_rule_and_stars_are_in_no_split():
    ident = np.arange(-40, 200)
    number = split_of(ident)
    assert (number[:40] == -1).all() and number.dtype == np.int8
    for name, wanted in SPLIT_NUMBERS.items():
        np.testing.assert_array_equal(in_split(ident, name), number == wanted)
    assert in_split(ident, "all").all() and SPLITS == (*SPLIT_NUMBERS, "all")


def test_unknown_split_names_the_choices():
    with pytest.raises(CatalogError, match="'valid'.*train, validation, test, all"):
        synthetic_galaxies(3).split("valid")


def test_indexing_takes_masks_indices_slices_and_one_number():
    galaxies = synthetic_galaxies(20)
    whole = galaxies.components
    for index in (galaxies.redshift > 0.5, np.array([3, 1, 3]), slice(2, 9, 3)):
        chosen = galaxies[index]
        assert chosen.ident.tolist() == galaxies.ident[index].tolist()
        np.testing.assert_array_equal(chosen.components.hlr, whole.hlr[index])
        assert (chosen.source, chosen.sha256) == (galaxies.source, galaxies.sha256)
    assert galaxies[7].ident.tolist() == [7]
    assert len(galaxies[np.zeros(20, bool)]) == 0


def test_components_follow_galsims_columns(table):
    table = table[:4]
    table["use_bulgefit"] = [1, 0, 0, 0]
    table["sersicfit"][:, 2] = [2.0, 0.1, 1.5, 3.0]
    table["sersicfit"][:, 3] = 0.5
    table["sersicfit"][:, 7] = 0.4
    table["bulgefit"][0, [3, 7, 11, 15]] = [0.3, 1.1, 0.8, 1.2]
    table["hlr"] = [[0.5, 0.2, 0.7]] * 4
    table["flux"] = [[9.0, 1.0, 3.0, 4.0]] * 4
    components = GalaxyCatalog(table, "cosmos").components
    names = np.array(SED_NAMES)[components.sed]
    assert components.sersic_n.tolist() == [[4, 1], [0.3, 1], [1.5, 1], [3, 1]]
    assert components.hlr[0].tolist() == [0.2, 0.7]
    assert components.hlr[1:, 0].tolist() == [0.5] * 3
    assert components.q[0].tolist() == [0.8, 0.3]
    assert components.q[1:, 0].tolist() == [0.5] * 3
    assert components.position_angle[0].tolist() == [1.2, 1.1]
    assert components.position_angle[1:, 0].tolist() == [0.4] * 3
    assert components.flux_fraction.tolist() == [[0.25, 0.75], [1, 0], [1, 0], [1, 0]]
    assert names[0].tolist() == ["E", "Scd"]
    assert names[1:, 0].tolist() == ["Scd", "Sbc", "E"]


def test_rows_that_galsim_could_not_make_are_dropped_and_counted(table, caplog):
    two = np.flatnonzero(table["use_bulgefit"] == 1)
    one = np.flatnonzero(table["use_bulgefit"] == 0)
    table["viable_sersic"][one[0]] = 0
    table["viable_sersic"][two[0]] = 0  # its bulge fit is used, so this one stays
    table["mag_auto"][one[1]] = np.nan
    table["zphot"][one[2]] = -1
    table["hlr"][one[3], 0] = 0
    table["flux"][two[1], 1] = -3
    table["bulgefit"][two[2], 11] = np.inf
    table["flux"][one[4], 1:3] = np.nan  # of a fit that is not used
    with caplog.at_level(logging.WARNING):
        galaxies = GalaxyCatalog(table, "cosmos")
    assert len(galaxies) == 394
    assert galaxies.n_dropped == 6
    assert "Dropped 6 of 400" in caplog.text
    assert {int(two[0]), int(one[4])} <= set(galaxies.ident.tolist())
    components = galaxies.components
    for values in (components.hlr, components.q, components.flux_fraction, components.sersic_n):
        assert np.isfinite(values).all()


def test_missing_columns_are_all_named(table):
    del table["hlr"], table["zphot"]
    with pytest.raises(CatalogError, match="zphot, hlr"):
        GalaxyCatalog(table, "cosmos")


def test_a_column_of_another_shape_is_named(table):
    table["flux"] = table["flux"][:, :2]
    with pytest.raises(CatalogError, match=r"'flux'.*\(2,\).*\(4,\)"):
        GalaxyCatalog(table, "cosmos")


def test_a_catalogue_without_a_usable_galaxy_is_refused(table):
    table["mag_auto"] = np.nan
    with pytest.raises(CatalogError, match="No usable galaxy among the 400"):
        GalaxyCatalog(table, "cosmos")
    with pytest.raises(CatalogError, match="No usable galaxy among the 0"):
        GalaxyCatalog(table[:0], "cosmos")
