# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Schemas and catalogues: fields, records, parents and children."""

import time

import astropy.units as u
import numpy as np
import pytest

from lsst.meas.extensions.vae.afw import (
    Footprint,
    IdFactory,
    PeakTable,
    Point2I,
    Point2IKey,
    Schema,
    SchemaMapper,
    SourceCatalog,
    SourceTable,
    SpanSet,
)
from lsst.meas.extensions.vae.errors import CatalogError


@pytest.fixture
def schema():
    schema = SourceTable.makeMinimalSchema()
    schema.addField("deblend_nChild", type="I", doc="children")
    schema.addField("deblend_scarletFlux", type="F", doc="flux", units="nJy")
    schema.addField("deblend_skipped", type="Flag", doc="was skipped")
    schema.addField("deblend_error", type="String", doc="why", size=25)
    schema.addField("deblend_vae_latent", type="ArrayF", doc="latents", size=4)
    return schema


@pytest.fixture
def family(schema):
    """Two parents (ids 1, 2); parent 1 has children 3 and 5, parent 2 has 4."""
    catalog = SourceCatalog(schema)
    for parent in (0, 0, 1, 2, 1):
        catalog.addNew().setParent(parent)
    return catalog


def test_minimal_schemas_are_those_of_afw():
    assert SourceTable.makeMinimalSchema().getOrderedNames() == ["id", "coord_ra", "coord_dec", "parent"]
    assert PeakTable.makeMinimalSchema().getOrderedNames() == ["id", "f_x", "f_y", "i_x", "i_y", "peakValue"]


def test_fields_are_added_in_place_and_not_to_copies(schema):
    copy, catalog = schema.copy(), SourceCatalog(schema)

    def addFields(schema):
        return schema.addField("deblend_chi2", type="F", doc="chi2")

    key = addFields(schema)
    assert "deblend_chi2" in schema and schema.getOrderedNames()[-1] == "deblend_chi2"
    assert "deblend_chi2" not in copy and "deblend_chi2" not in catalog.schema
    record = SourceCatalog(schema).addNew()
    record.set(key, 2.5)
    assert record.get("deblend_chi2") == record[schema.find("deblend_chi2").key] == 2.5


def test_schema_tells_about_its_fields(schema):
    field = schema.find("deblend_scarletFlux").field
    assert (field.getName(), field.getTypeString(), field.getUnits(), field.getDoc()) == (
        "deblend_scarletFlux", "F", "nJy", "flux",
    )  # fmt: skip
    assert schema.contains(SourceTable.makeMinimalSchema()) and not Schema().contains(schema)
    assert set(schema.extract("deblend_s*")) == {"deblend_scarletFlux", "deblend_skipped"}
    assert schema.join("merge", "peak", "r") == "merge_peak_r"
    assert len([item for item in schema if item.key not in SourceTable.makeMinimalSchema()]) == 5


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"field": "id", "type": "L"}, "'id' already"),
        ({"field": "x", "type": "Q"}, "type 'Q'"),
        ({"field": "x", "type": "String"}, "positive size"),
        ({"field": "x", "type": "F", "units": "parrot"}, "'parrot'"),
        ({"field": "no spaces", "type": "F"}, "'no spaces'"),
    ],
)
def test_fields_that_cannot_be_are_refused(schema, arguments, message):
    with pytest.raises(CatalogError, match=message):
        schema.addField(**arguments)


def test_unknown_field_is_a_key_error_that_names_near_ones(family):
    for look in (family.schema.find, family.__getitem__, family[0].get, family[0].__getitem__):
        with pytest.raises(KeyError, match="no field 'deblend_nChildren'; near are deblend_nChild"):
            look("deblend_nChildren")
    with pytest.raises(CatalogError):
        family[0].set("deblend_nChildren", 1)


def test_new_records_have_defaults_and_the_next_id(family):
    record = family[0]
    assert record.getId() == 1 and family["id"].tolist() == [1, 2, 3, 4, 5]
    assert np.isnan(record["coord_ra"]) and np.isnan(record["deblend_scarletFlux"])
    assert (
        record["deblend_nChild"] == 0 and record["deblend_skipped"] is False and record["deblend_error"] == ""
    )
    assert np.isnan(record["deblend_vae_latent"]).all() and record["deblend_vae_latent"].shape == (4,)
    assert record.getFootprint() is None


@pytest.mark.parametrize(
    "name, good, bad",
    [
        ("deblend_nChild", 7, 7.5),
        ("deblend_nChild", np.int64(7), 2**40),
        ("deblend_scarletFlux", 7, "7"),
        ("deblend_skipped", np.bool_(True), "yes"),
        ("deblend_error", "x" * 25, "x" * 26),
        ("deblend_vae_latent", [1, 2, 3, 4], [1, 2, 3]),
        ("id", 2**60, None),
    ],
)
def test_values_that_do_not_fit_a_field_are_refused_by_name(family, name, good, bad):
    family[0].set(name, good)
    assert np.all(family[0].get(name) == good)
    with pytest.raises(CatalogError, match=name):
        family[0].set(name, bad)
    with pytest.raises(CatalogError, match=name):
        family[name] = bad
    assert np.all(family[0].get(name) == good)


def test_columns_are_views_that_can_be_set(family):
    family["deblend_nChild"][1] = 9
    assert family[1]["deblend_nChild"] == 9
    family["deblend_scarletFlux"] = np.arange(5)
    assert family[3]["deblend_scarletFlux"] == 3
    family["deblend_scarletFlux"] = np.arange(5) * u.uJy
    assert family[3]["deblend_scarletFlux"] == 3000
    with pytest.raises(CatalogError, match="'nJy'.*'electron'"):
        family["deblend_scarletFlux"] = np.arange(5) * u.electron


def test_subsets_share_their_records(family):
    subset = family[family["parent"] == 1]
    assert [record.getId() for record in subset] == [3, 5]
    subset[1].set("deblend_nChild", 8)
    subset["deblend_skipped"] = True
    assert family[4]["deblend_nChild"] == 8 and family["deblend_skipped"].tolist() == [
        False,
        False,
        True,
        False,
        True,
    ]
    assert not subset.isContiguous()
    with pytest.raises(ValueError, match="read-only"):
        subset["deblend_nChild"][0] = 1  # it would be lost
    assert family[1:3]["id"].tolist() == [2, 3] and family[1:3].isContiguous()
    assert family[np.array([4, 0])]["id"].tolist() == [5, 1]
    with pytest.raises(CatalogError, match="mask of 2 values"):
        family[np.array([True, False])]
    with pytest.raises(IndexError):
        family[5]


def test_children_are_found_by_their_parent(family):
    assert family.getChildren(1)["id"].tolist() == [3, 5]
    assert family.getChildren(0)["id"].tolist() == [1, 2]
    assert len(family.getChildren(99)) == 0
    assert [len(c) for c in family.getChildren([1, 2])] == [2, 1]
    children, others = family.getChildren(1, family.copy(deep=True))
    assert others["id"].tolist() == [3, 5] and others.table is not children.table


def test_catalogue_sorts_and_finds_by_id(family):
    family.sort("parent")
    assert family["id"].tolist() == [1, 2, 3, 5, 4] and not family.isSorted()
    family.sort()
    assert family["id"].tolist() == [1, 2, 3, 4, 5] and family.isSorted()
    assert family.find(4).getParent() == 2 and family.find(77) is None


def test_id_factory_goes_on_after_the_highest_known_id(family):
    family.getIdFactory().notify(41)
    assert family.addNew().getId() == 42
    factory = IdFactory.makeSource(5, 10)
    assert factory() == (5 << 10) + 1
    factory.notify((5 << 10) + 1023)
    with pytest.raises(CatalogError, match="No id is left"):
        factory()
    with pytest.raises(CatalogError, match="not between"):
        factory.notify(7)


def test_records_of_another_table_are_copied_and_own_ones_shared(family):
    other = SourceCatalog(family.schema)
    footprint = Footprint(SpanSet([(0, 0, 3)]))
    family[2].setFootprint(footprint)
    other.append(family[2])
    other[0].set("deblend_nChild", 4)
    assert other[0].getId() == 3 and other[0].getFootprint() is footprint and family[2]["deblend_nChild"] == 0
    again = SourceCatalog(family.table)
    again.extend(family[2:4])
    again[0].set("deblend_nChild", 6)
    assert family[2]["deblend_nChild"] == 6 and again[0] == family[2]
    with pytest.raises(CatalogError, match="SchemaMapper"):
        SourceCatalog().extend(family)


def test_mapper_copies_fields_with_footprints_into_a_richer_schema(family):
    mapper = SchemaMapper(family.schema)
    mapper.addMinimalSchema(family.schema, doMap=True)
    mapper.editOutputSchema().addField("deblend_runtime", type="F", doc="runtime", units="ms")
    family[1].setFootprint(Footprint(SpanSet([(0, 0, 3)])))
    parents = SourceCatalog(SourceTable.make(mapper.getOutputSchema(), family.getIdFactory()))
    parents.extend(family, mapper)
    assert parents["id"].tolist() == [1, 2, 3, 4, 5] and np.isnan(parents["deblend_runtime"]).all()
    assert parents[1].getFootprint() is family[1].getFootprint()
    assert parents.addNew().getId() == 6


def test_mapper_takes_peak_fields_to_sources():
    peaks, schema = PeakTable.makeMinimalSchema(), SourceTable.makeMinimalSchema()
    peaks.addField("merge_peak_r", type="Flag", doc="seen in r")
    mapper = SchemaMapper(peaks, schema)
    for item in peaks:
        if item.key not in PeakTable.makeMinimalSchema():
            mapper.addMapping(item.key, item.field)
            schema.addField(item.field)
    assert schema == mapper.getOutputSchema()
    footprint = Footprint(SpanSet([(0, 0, 3)]), peaks)
    footprint.addPeak(1, 0, 5).set("merge_peak_r", True)
    record = SourceCatalog(schema).addNew()
    record.assign(footprint.peaks[0], mapper)
    assert record["merge_peak_r"] is True and record.getId() == 1


def test_pixels_are_kept_in_two_fields():
    schema = SourceTable.makeMinimalSchema()
    key = Point2IKey.addFields(schema, name="deblend_peak_center", doc="Center of the peak", unit="pixel")
    record = SourceCatalog(schema).addNew()
    record.set(key, Point2I(3, -4))
    assert (record["deblend_peak_center_x"], record["deblend_peak_center_y"]) == (3, -4)
    assert record.get(key) == Point2I(3, -4)


def test_catalogue_becomes_an_astropy_table_with_units_and_docs(family):
    table = family.asAstropy()
    assert table.colnames == family.schema.getOrderedNames() and len(table) == 5
    assert table["deblend_scarletFlux"].unit == u.nJy and table["deblend_scarletFlux"].description == "flux"
    assert table["deblend_vae_latent"].shape == (5, 4)
    table["deblend_nChild"][0] = 11
    assert family[0]["deblend_nChild"] == 11
    assert len(SourceCatalog(family.schema).asAstropy()) == 0


def test_resizing_and_deleting_change_the_length(family):
    family.resize(8)
    assert family["id"].tolist() == list(range(1, 9))
    family.resize(4)
    del family[0]
    assert family["id"].tolist() == [2, 3, 4]


def test_twenty_thousand_records_are_cheap(schema):
    start = time.perf_counter()
    catalog = SourceCatalog(schema)
    for n in range(20000):
        record = catalog.addNew()
        record.set("deblend_nChild", n)
        record.set("deblend_scarletFlux", 0.5 * n)
    assert catalog["deblend_nChild"].sum() == 19999 * 10000
    assert time.perf_counter() - start < 5.0  # 0.2 s where measured
