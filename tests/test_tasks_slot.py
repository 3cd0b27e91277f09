# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scarlet's slot: columns, holders under pipetask, heavy footprints, scarlet's container."""

import dataclasses
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("lsst.pipe.base")

from slotHolders import BANDS  # noqa: E402
from test_tasks_deblend import SOURCES, KnownNetwork, gaussian, make_inputs, make_task  # noqa: E402

from lsst.meas.extensions.vae import afw, updateCatalogFootprints  # noqa: E402
from lsst.meas.extensions.vae.afw import SourceCatalog, SourceTable  # noqa: E402
from lsst.meas.extensions.vae.errors import CatalogError  # noqa: E402
from lsst.meas.extensions.vae.repo.modelData import VaeModelData  # noqa: E402
from lsst.meas.extensions.vae.repo.scarletModelData import toScarletModelData  # noqa: E402

RECORDED = [
    line.split()
    for line in (Path(__file__).parent / "data" / "slotColumns.txt").read_text().splitlines()
    if not line.startswith("#")
]


def noisy_inputs(**kwargs):
    exposure, merged = make_inputs(**kwargs)
    exposure.image.array[:] += np.random.default_rng(4).normal(0, 0.1, exposure.image.array.shape)
    return exposure, merged


def heavy_sum(catalog, exposure, band):
    """All heavy footprints of one band on one image ``[y, x]``."""
    total = np.zeros(exposure[band].image.array.shape)
    for record in catalog:
        footprint = record.getFootprint()
        y, x = footprint.spans.indices()
        total[y, x] += footprint.getImageArray()
    return total


# -- columns -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["object", "parent"])
def test_the_columns_are_the_recorded_ones_with_units_and_docs(kind):
    exposure, merged = make_inputs()
    result = make_task().run(exposure, None, merged)
    catalog = result.deblendedCatalog if kind == "object" else result.objectParents
    fields = {item.key: item.field for item in catalog.schema if item.key.startswith("deblend_")}
    recorded = {name: (type_, unit.strip("-")) for what, name, type_, unit, _ in RECORDED if what == kind}
    assert {name: (f.getTypeString(), f.getUnits()) for name, f in fields.items()} == recorded
    assert all(len(field.getDoc()) > 10 for field in fields.values())


def test_every_value_of_a_deblended_object_is_filled():
    exposure, merged = noisy_inputs()
    result = make_task().run(exposure, None, merged)
    for kind, catalog in (("object", result.deblendedCatalog), ("parent", result.objectParents)):
        for what, name, type_, _, _ in RECORDED:
            # One pass tells no novelty, and errors of shapes take draws.
            told = name != "deblend_vae_novelty" and not name.endswith("Err")
            if what == kind and type_ in "FD" and told:
                assert np.isfinite(catalog[name]).all(), name
    objects, parents = result.deblendedCatalog, result.objectParents
    assert list(objects["deblend_blendId"]) == [0, 1, 1, 1]
    for name in ("deblend_blendNChild", "deblend_parentNPeaks", "deblend_parentNChild"):
        assert list(objects[name]) == [0, 3, 3, 3], name
    assert list(parents["deblend_nChild"]) == [3, 0] and list(parents["deblend_nPeaks"]) == [3, 1]
    assert list(parents["deblend_nComponents"]) == [3, 1] and list(parents["deblend_iterations"]) == [1, 1]
    assert parents["deblend_chi2"][0] == pytest.approx(1, abs=0.1)
    assert not parents["deblend_skipped"].any()


def test_the_peak_flux_is_the_deblended_models():
    exposure, merged = noisy_inputs()
    result = make_task().run(exposure, None, merged)
    for record in result.deblendedCatalog:
        model = result.scarletModelData.model(record.getId())
        y, x = (
            record["deblend_peak_center_y"] - model.origin[0],
            record["deblend_peak_center_x"] - model.origin[1],
        )
        assert record["deblend_peak_instFlux"] == pytest.approx(model.image[1, y, x])


def test_overlaps_are_those_of_the_gaussians_themselves():
    exposure, merged = make_inputs()
    objects = make_task(backgroundThresh=1.0).run(exposure, None, merged).deblendedCatalog
    members = [2 * flux * gaussian((120, 170), y, x) for y, x, flux in
               ((60.5, 60.5, 400.0), (66.5, 64.5, 200.0), (58.5, 68.5, 300.0))]  # fmt: skip
    scene = sum(members)
    for record, own in zip(objects[1:], members, strict=True):
        # Noise is 0.1 in both bands, and r is the brighter.
        inside, others = own > 0.1, scene - own
        assert record["deblend_maxOverlap"] == pytest.approx(others[inside].max(), rel=1e-2)
        assert record["deblend_fluxOverlap"] == pytest.approx(others[inside].sum(), rel=1e-2)
        fraction = others[inside].sum() / own.sum()
        assert record["deblend_fluxOverlapFraction"] == pytest.approx(fraction, rel=1e-2)
        blendedness = 1 - (own * own).sum() / (own * scene).sum()
        assert record["deblend_blendedness"] == pytest.approx(blendedness, rel=1e-2)
    assert objects[0]["deblend_fluxOverlap"] == pytest.approx(0, abs=1e-3)


def test_scarlets_other_call_fills_the_catalogue_that_it_is_given():
    exposure, merged = make_inputs()
    task = make_task(merged.schema.copy(), merged[0].getFootprint().peaks.schema)
    objects = SourceCatalog(SourceTable.make(task.schema))
    parents = SourceCatalog(SourceTable.make(task.parentSchema, merged.getIdFactory()))
    for record in merged:
        new = parents.addNew()
        new.setId(record.getId())
        new.setFootprint(record.getFootprint())
    result = task.deblend(exposure, None, objects, parents)
    assert result.deblendedCatalog is objects and len(objects) == 4
    ids = {record.getId() for record in objects} | {record.getId() for record in merged}
    assert len(ids) == 5, "children take no parent's id"
    assert result.objectParents.schema.getNames() == task.parentSchema.getNames()


# -- parents -----------------------------------------------------------------


def with_peak_flag(merged, name="merge_peak_sky"):
    """The catalogue as the stack's, with the flags of peaks in the peaks alone."""
    schema = SourceTable.makeMinimalSchema()
    catalog = SourceCatalog(SourceTable.make(schema, merged.getIdFactory()))
    for record in merged:
        new = catalog.addNew()
        new.setId(record.getId())
        new.setFootprint(record.getFootprint())
    catalog[1].getFootprint().peaks[0].set(name, True)
    return catalog


def test_a_sky_source_is_known_by_its_peak_and_passed_on_unmodelled():
    exposure, merged = make_inputs()
    catalog = with_peak_flag(merged)
    result = make_task().run(exposure, None, catalog)
    sky, parent = result.deblendedCatalog[0], result.objectParents[1]
    assert sky.getId() == parent.getId() == merged[1].getId() and sky.getId() not in result.scarletModelData
    assert sky["merge_peak_sky"] and parent["merge_peak_sky"] and parent["deblend_skipped_isPseudo"]
    assert not parent["deblend_skipped"], "nothing was lost"
    assert not result.objectParents[0]["merge_peak_sky"]
    assert not (exposure.mask.array & exposure.mask.getPlaneBitMask("NOT_DEBLENDED")).any()


def test_a_pseudo_source_of_several_peaks_is_one_object():
    exposure, merged = make_inputs()
    merged[0].set("merge_peak_sky", True)
    objects = make_task().run(exposure, None, merged).deblendedCatalog
    assert [record.getId() for record in objects] == [merged[0].getId(), merged[1].getId()]


def test_singles_that_are_left_alone_say_so():
    exposure, merged = make_inputs()
    parent = make_task(processSingles=False).run(exposure, None, merged).objectParents[1]
    assert parent["deblend_skipped_isolatedParent"] and not parent["deblend_skipped"]


def test_ci_limits_keep_isolated_parents_and_the_first_blends_in_range(caplog):
    exposure, merged = make_inputs()
    limits = dict(useCiLimits=True, ciNumParentsToDeblend=1)
    result = make_task(ciDeblendChildRange=(2, 3), **limits).run(exposure, None, merged)
    assert [parent.getId() for parent in result.objectParents] == [1, 2] and "useCiLimits" not in caplog.text
    result = make_task(ciDeblendChildRange=(5, 10), **limits).run(exposure, None, merged)
    assert [parent.getId() for parent in result.objectParents] == [2]
    assert [record.getId() for record in result.deblendedCatalog] == [2]
    assert "0 parents, not 1, have 5 to 10 peaks" in caplog.text


def test_long_footprints_are_skipped_by_the_axes_of_their_moments():
    exposure, merged = make_inputs()
    diagonal = [(45 + k, 45 + k, 47 + k) for k in range(35)]
    peaks = merged[0].getFootprint().peaks
    footprint = afw.Footprint(afw.SpanSet(diagonal), peaks.schema)
    footprint.setPeakCatalog(peaks)
    merged[0].setFootprint(footprint)
    result = make_task(minFootprintAxisRatio=0.3).run(exposure, None, merged)
    assert list(result.objectParents["deblend_skipped_parentTooBig"]) == [True, False]


@pytest.mark.parametrize("bands", [("g", "r"), ("g",)])
def test_masked_parents_are_skipped_by_the_bands_that_there_are(bands):
    exposure, merged = make_inputs(bands=bands)
    exposure.mask.array[:, 45:60, 45:85] |= exposure.mask.getPlaneBitMask("NO_DATA")
    result = make_task(maskLimits={"NO_DATA": 0.25}).run(exposure, None, merged)
    assert list(result.objectParents["deblend_skipped_masked"]) == [True, False]


def test_limits_below_zero_are_none_and_so_may_be_the_mask_plane():
    exposure, merged = make_inputs()
    task = make_task(maxNumberOfPeaks=-1, maxFootprintArea=-1, maxFootprintSize=-1, notDeblendedMask=None)
    assert not task.run(exposure, None, merged).objectParents["deblend_skipped"].any()


class Failing(KnownNetwork):
    """Raises for the third source, and counts its calls."""

    calls = 0

    def deblend(self, images, noise, batch_size=256, psfs=None):
        self.calls += 1
        if any(np.abs(image).max() > 1e3 for image in images):
            raise FloatingPointError("too bright")
        return super().deblend(images, noise, batch_size, psfs)


def test_a_failure_takes_only_its_own_parent():
    exposure, merged = make_inputs()
    expected = make_task().run(exposure, None, merged).deblendedCatalog[0]["deblend_scarletFlux"]
    exposure.image.array[:, 60, 50] = 1e4
    # Beyond the stamp of the isolated source.
    task = make_task()
    task._network = Failing()
    result = task.run(exposure, None, merged)
    assert list(result.objectParents["deblend_failed"]) == [True, False]
    assert result.objectParents[0]["deblend_error"] == "FloatingPointError"
    assert [record.getId() for record in result.deblendedCatalog] == [2]
    assert result.deblendedCatalog[0]["deblend_scarletFlux"] == pytest.approx(expected, rel=1e-6)
    assert task._network.calls == 3
    bit = exposure.mask.getPlaneBitMask("NOT_DEBLENDED")
    assert (exposure.mask.array[:, 45:80, 45:85] & bit).all() and not (
        exposure.mask.array[:, :40] & bit
    ).any()


# -- heavy footprints --------------------------------------------------------


def test_conserved_footprints_sum_to_the_parent_inside_it_and_to_the_sky_outside():
    # The isolated source's stamp reaches into the blend, and its wing outshines theirs there.
    exposure, merged = noisy_inputs(sources=[*SOURCES[:3], (40.5, 92.5, 500.0)])
    result = make_task(doConserveFlux=True).run(exposure, None, merged)
    image = exposure["r"].image.array
    isolated, children = result.deblendedCatalog[0], result.deblendedCatalog[1:]
    total = heavy_sum(children, exposure, "r")
    np.testing.assert_allclose(total[45:80, 45:85], image[45:80, 45:85], atol=2e-6)
    assert isolated.getFootprint().spans.intersect(merged[0].getFootprint().spans).getArea() == 0
    # The sky below the blend, that no parent has.
    total = heavy_sum(result.deblendedCatalog, exposure, "r")
    np.testing.assert_allclose(total[80:92, 40:90], image[80:92, 40:90], atol=2e-6)


def test_footprints_without_an_image_hold_the_models_of_the_band_asked_for():
    exposure, merged = noisy_inputs()
    result = make_task().run(exposure, None, merged)
    updateCatalogFootprints(result.scarletModelData, result.deblendedCatalog, "g")
    for record in result.deblendedCatalog:
        model = result.scarletModelData.model(record.getId()).image[0]
        footprint = record.getFootprint()
        assert footprint.getImageArray().sum() == pytest.approx(model.sum(), rel=1e-5)
        assert record["deblend_scarletFlux"] == pytest.approx(model.sum(), rel=1e-5)
        assert len(footprint.peaks) == 1 and footprint.peaks[0]["id"] == record["deblend_peakId"]


def test_footprints_do_not_reach_out_of_the_image():
    exposure, merged = noisy_inputs(
        sources=[(60.2, 60.4, 400.0), (66.0, 64.0, 200.0), (58.0, 68.0, 300.0), (30.0, 160.0, 500.0)]
    )
    for image in (None, exposure["r"]):
        result = make_task().run(exposure, None, merged)
        updateCatalogFootprints(result.scarletModelData, result.deblendedCatalog, "r", image)
        for record in result.deblendedCatalog:
            assert exposure.getBBox().contains(record.getFootprint().getBBox())
    assert result.deblendedCatalog[0]["deblend_edgePixels"]


def test_a_child_without_a_model_gets_one_empty_pixel_at_its_peak():
    exposure, merged = noisy_inputs()
    exposure.mask.array[:, 52:68, 63:76] |= exposure.mask.getPlaneBitMask("BAD")
    result = make_task(doConserveFlux=True).run(exposure, None, merged)
    failed = result.deblendedCatalog["deblend_failed"]
    assert failed.any() and not failed.all()
    for record in result.deblendedCatalog[failed]:
        footprint = record.getFootprint()
        assert footprint.getArea() == 1 and footprint.getImageArray().sum() == 0
        assert record["deblend_zeroFlux"] and footprint.contains(footprint.peaks[0].getI())


def test_missing_pixels_are_the_models_and_lower_the_coverage():
    exposure, merged = noisy_inputs()
    exposure.image.array[:, 62, 50:60] = np.nan
    exposure.mask.array[:, 62, 50:60] |= exposure.mask.getPlaneBitMask("NO_DATA")
    result = make_task(doConserveFlux=True).run(exposure, None, merged)
    for record in result.deblendedCatalog:
        assert np.isfinite(record.getFootprint().getImageArray()).all()
        expected = 1.0 if not record.getParent() else 1 - 10 / record.getFootprint().getArea()
        assert record["deblend_dataCoverage"] == pytest.approx(expected, abs=1e-6)


def test_conserved_catalogues_are_rebuilt_from_files(tmp_path):
    exposure, merged = noisy_inputs()
    result = make_task(doConserveFlux=True).run(exposure, None, merged)
    result.scarletModelData.write(tmp_path / "models.h5")
    light = make_task().run(exposure, None, make_inputs()[1])
    light.deblendedCatalog.writeFits(tmp_path / "objects.fits")
    models, objects = (
        VaeModelData.read(tmp_path / "models.h5"),
        SourceCatalog.readFits(tmp_path / "objects.fits"),
    )
    updateCatalogFootprints(models, objects, "r", exposure["r"], removeScarletData=True)
    for rebuilt, record in zip(objects, result.deblendedCatalog, strict=True):
        np.testing.assert_array_equal(
            rebuilt.getFootprint().getImageArray(), record.getFootprint().getImageArray()
        )
        assert rebuilt["deblend_fluxOverlap"] == pytest.approx(record["deblend_fluxOverlap"], rel=1e-6)
    assert len(models) == 0


def test_a_band_without_models_is_no_work():
    from lsst.pipe.base import NoWorkFound

    exposure, merged = make_inputs()
    result = make_task().run(exposure, None, merged)
    with pytest.raises(NoWorkFound, match="no band 'z'; they have g, r"):
        updateCatalogFootprints(result.scarletModelData, result.deblendedCatalog, "z")


def test_children_of_a_large_parent_have_footprints_of_their_own_size():
    exposure, merged = make_inputs(shape=(300, 400))
    peaks = merged[0].getFootprint().peaks
    footprint = afw.Footprint(afw.SpanSet(afw.Box2I(afw.Point2I(0, 0), afw.Extent2I(300, 300))), peaks.schema)
    footprint.setPeakCatalog(peaks)
    merged[0].setFootprint(footprint)
    for record in make_task().run(exposure, None, merged).deblendedCatalog[1:]:
        child = record.getFootprint()
        assert child.getArea() == 64 * 64 and child.contains(child.peaks[0].getI())


# -- other families of objects -----------------------------------------------


def test_catalogues_are_of_the_family_of_the_schema(monkeypatch):
    """With afw's own modules, played by subclasses of the shim's, all that comes out is afw's."""
    rooms = {
        "lsst.afw.table": {},
        "lsst.afw.detection": {},
        "lsst.afw.image": {},
        "lsst.afw.geom": {},
        "lsst.geom": {},
    }
    for name in afw.adapters._SHIM_TYPES:
        rooms["lsst.afw.table"][name] = getattr(afw, name)
    made = {
        name: type(name, (getattr(afw, name),), {"__module__": "lsst.afw.table"})
        for name in ("Schema", "SourceCatalog", "SourceTable")
    }
    rooms["lsst.afw.table"].update(made)
    for room, names in rooms.items():
        module = ModuleType(room)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, room, module)
    monkeypatch.setitem(sys.modules, "lsst.afw", ModuleType("lsst.afw"))
    exposure, merged = make_inputs()
    schema = made["Schema"](merged.schema)
    result = make_task(schema, merged[0].getFootprint().peaks.schema, doConserveFlux=True).run(
        exposure, None, merged
    )
    assert type(result.deblendedCatalog) is type(result.objectParents) is made["SourceCatalog"]
    assert result.deblendedCatalog.schema.getNames() == schema.getNames()
    assert "deblend_nPeaks" in result.objectParents.schema.getNames()


def test_coadds_by_band_are_deblended_as_the_exposure_of_them():
    exposure, merged = noisy_inputs()

    def coadd(band):
        single = exposure[band]
        return SimpleNamespace(
            bbox=SimpleNamespace(x=SimpleNamespace(start=0), y=SimpleNamespace(start=0)),
            unit=single.image.unit,
            image=single.image,
            variance=single.variance,
            mask=SimpleNamespace(schema=SimpleNamespace(names=set()), get=None),
            psf=SimpleNamespace(compute_kernel_image=lambda x, y: single.getPsf().computeKernelImage((x, y))),
        )

    expected = make_task().run(exposure, None, merged).deblendedCatalog
    objects = make_task().run({band: coadd(band) for band in BANDS}, None, merged).deblendedCatalog
    np.testing.assert_array_equal(objects["deblend_scarletFlux"], expected["deblend_scarletFlux"])
    assert not objects["deblend_vae_psfMismatch"].any()


# -- scarlet's container -----------------------------------------------------


def made_class(name, *fields):
    return dataclasses.make_dataclass(name, [(f, object, dataclasses.field(default=None)) for f in fields])


@pytest.fixture
def scarlet(monkeypatch):
    """Scarlet's classes, played by some with the same fields."""
    lite, task = ModuleType("lsst.scarlet.lite.io"), ModuleType("lsst.meas.extensions.scarlet.io")
    for name, fields in {
        "ScarletFactorizedComponentData": ("origin", "peak", "spectrum", "morph"),
        "ScarletSourceData": ("components", "metadata"),
        "ScarletBlendData": ("origin", "shape", "sources", "metadata"),
        "HierarchicalBlendData": ("children", "metadata"),
    }.items():
        setattr(lite, name, made_class(name, *fields))
    task.IsolatedSourceData = made_class("IsolatedSourceData", "span_array", "origin", "peak")
    task.LsstScarletModelData = made_class("LsstScarletModelData", "isolated", "blends", "metadata")
    for module in (lite, task):
        parts = module.__name__.split(".")
        for end in range(2, len(parts)):
            name = ".".join(parts[:end])
            if name not in sys.modules:
                parent = ModuleType(name)
                parent.__path__ = []
                parent.__spec__ = SimpleNamespace(name=name, submodule_search_locations=[])
                monkeypatch.setitem(sys.modules, name, parent)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return task


def test_in_the_slot_models_go_out_as_scarlets_where_it_is_installed(scarlet):
    exposure, merged = noisy_inputs()
    plain = make_task().run(exposure, None, merged)
    assert isinstance(plain.scarletModelData, VaeModelData)
    exported = make_task(exportScarletModels=None).run(exposure, None, merged).scarletModelData
    assert isinstance(exported, scarlet.LsstScarletModelData)
    data = toScarletModelData(plain.scarletModelData, plain.deblendedCatalog)
    assert list(data.blends) == [1] and list(data.isolated) == [2]
    assert data.isolated[2].span_array.sum() == merged[1].getFootprint().getArea()
    assert data.metadata["bands"] == BANDS and data.metadata["model"] == "vae"
    assert np.array_equal(data.metadata["psf"][0], data.metadata["model_psf"])
    parent = data.blends[1]
    assert parent.metadata["spans"].shape == (35, 40) and parent.metadata["origin"] == (45, 45)
    (child,) = parent.children.values()
    assert list(child.sources) == [record.getId() for record in plain.deblendedCatalog[1:]]
    for record in plain.deblendedCatalog[1:]:
        source = child.sources[record.getId()]
        assert source.metadata == {"id": record.getId(), "peak_id": record["deblend_peakId"]}
        model = plain.scarletModelData.model(record.getId())
        y, x = np.subtract((45, 45), model.origin)
        expected = model.image[:, y : y + 35, x : x + 40]
        found = sum(c.spectrum[:, None, None] * c.morph for c in source.components)
        np.testing.assert_array_equal(found, expected)
        assert all(c.origin == (45, 45) for c in source.components)
        assert source.components[0].peak == (record["deblend_peak_center_y"], record["deblend_peak_center_x"])


def test_in_a_pipeline_of_its_own_models_go_out_as_ours(scarlet):
    exposure, merged = make_inputs()
    task, put = make_task(exportScarletModels=None), []
    task.setModelPackage = lambda package: None
    inputs = {"field": exposure, "mergedDetections": merged, "modelPackage": "known"}
    task.runQuantum(SimpleNamespace(get=lambda refs: inputs, put=lambda *args: put.append(args)), None, None)
    assert isinstance(put[0][0].scarletModelData, VaeModelData)


def test_models_of_files_that_lack_the_parents_pixels_cannot_be_exported(scarlet):
    exposure, merged = make_inputs()
    result = make_task().run(exposure, None, merged)
    result.scarletModelData._parents.clear()
    with pytest.raises(CatalogError, match="parent 2.*deblend again"):
        toScarletModelData(result.scarletModelData, result.deblendedCatalog)


def test_real_scarlet_lite_shares_pixels_as_we_do():
    scl = pytest.importorskip("lsst.scarlet.lite", reason="scarlet_lite is in no package registry")
    pytest.importorskip("lsst.meas.extensions.scarlet", reason="meas_extensions_scarlet needs a stack")
    exposure, merged = noisy_inputs()
    result = make_task().run(exposure, None, merged)
    data = toScarletModelData(result.scarletModelData, result.deblendedCatalog)
    data = type(data).parse_obj(data.as_dict())
    parent = data.blends[1]
    box = scl.Box(parent.metadata["spans"].shape, origin=parent.metadata["origin"])
    observation = scl.Observation(
        images=exposure.image.array[:, 45:80, 45:85],
        variance=exposure.variance.array[:, 45:80, 45:85],
        weights=np.ones((2, 35, 40)),
        psfs=data.metadata["psf"],
        model_psf=data.metadata["model_psf"][None],
        convolution_mode="real",
        bands=BANDS,
        bbox=box,
    )
    blend = parent.children[1].to_blend(observation)
    blend.conserve_flux()
    objects = result.deblendedCatalog
    updateCatalogFootprints(result.scarletModelData, objects, "r", exposure["r"])
    for source in blend.sources:
        ours = (
            objects.find(source.metadata["id"])
            .getFootprint()
            .extractImage(0, merged[0].getFootprint().getBBox())
        )
        theirs = source.flux_weighted_image.project(bbox=box).data[1]
        np.testing.assert_allclose(ours.array, theirs, atol=1e-5)


# -- the holders under pipetask ----------------------------------------------

PIPELINE = """
description: The slot.
tasks:
  deblend:
    class: slotHolders.{holder}
    config:
      python: |
        from lsst.meas.extensions.vae import DeblendVaeTask
        config.{field}.retarget(DeblendVaeTask)
      {field}.modelPackage: known.vae.zip
      {field}.useCiLimits: false
      {field}.processSingles: true
      {field}.refine: false
      {field}.doConserveFlux: true
"""


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    pytest.importorskip("lsst.daf.butler")
    from lsst.meas.extensions.vae.repo import openRepository, registerCampaign

    root = tmp_path_factory.mktemp("slot") / "repo"
    butler = openRepository(root)
    registerCampaign(butler, "slot", 0, 0, 0, 1, {"survey": "lsst10yr", "bands": BANDS})
    butler.collections.register("inputs")
    exposure, merged = noisy_inputs()
    for name, thing in (("vae_field", exposure), ("vae_mergedDetections", merged)):
        butler.put(thing, name, run="inputs", skymap="vae_slot", tract=3, patch=0)
    return root


@pytest.mark.parametrize(
    "holder, field", [("CoaddHolder", "multibandDeblend"), ("DriverHolder", "driver.deblend")]
)
def test_both_holders_run_under_pipetask_retargeted(repo, tmp_path, monkeypatch, holder, field):
    pipetask = pytest.importorskip("lsst.ctrl.mpexec.cli.pipetask")
    from click.testing import CliRunner

    from lsst.meas.extensions.vae.network import model, shipped
    from lsst.meas.extensions.vae.repo import openRepository

    class Network(KnownNetwork):
        def __init__(self, package, engine):
            assert package.name == "known.vae.zip"
            self.engine = SimpleNamespace(name="known")

    monkeypatch.setattr(shipped, "load_package", lambda name: SimpleNamespace(name=name, sha256="0" * 64))
    monkeypatch.setattr(model, "Network", Network)
    pipeline = tmp_path / "slot.yaml"
    pipeline.write_text(PIPELINE.format(holder=holder, field=field))
    command = ["run", "-b", str(repo), "-i", "inputs", "-o", f"u/{holder}", "-p", str(pipeline)]
    query = ["--register-dataset-types", "-d", "skymap='vae_slot' AND tract=3"]
    done = CliRunner().invoke(pipetask.cli, [*command, *query])
    assert done.exit_code == 0, (done.output, done.exception)
    butler = openRepository(repo, writeable=False)
    where = dict(skymap="vae_slot", tract=3, patch=0, collections=f"u/{holder}")
    objects, parents = butler.get("mock_deblended", **where), butler.get("mock_parents", **where)
    schema = butler.get("mock_deblendedSchema", collections=f"u/{holder}").schema
    assert objects.schema.getNames() == schema.getNames()
    for kind, catalog in (("object", objects), ("parent", parents)):
        recorded = {name for what, name, *_ in RECORDED if what == kind}
        assert {name for name in catalog.schema.getNames() if name.startswith("deblend_")} == recorded
    assert {record.getParent() for record in objects} == {0, 1} and len(parents) == 2
    assert len(butler.get("mock_models", **where)) == len(objects) == 4
    assert all(record.getFootprint().isHeavy() for record in objects)
    image = butler.get("vae_field", skymap="vae_slot", tract=3, patch=0, collections="inputs")
    total = heavy_sum(objects, image, "r")
    np.testing.assert_allclose(total[45:80, 45:85], image["r"].image.array[45:80, 45:85], atol=2e-6)
