# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""DeblendVaeTask in scarlet's slot, with a network whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pytest

pexConfig = pytest.importorskip("lsst.pex.config")
pipeBase = pytest.importorskip("lsst.pipe.base")

from lsst.meas.extensions.vae import DeblendVaeTask, MeasureShapesTask, MultibandExposure  # noqa: E402
from lsst.meas.extensions.vae.afw import AnalyticPsf, SourceCatalog, SourceTable  # noqa: E402
from lsst.meas.extensions.vae.catalogs import makeMergedDetections  # noqa: E402
from lsst.meas.extensions.vae.deblendVaeTask import DeblendVaeConfig  # noqa: E402
from lsst.meas.extensions.vae.errors import ImageError  # noqa: E402
from lsst.meas.extensions.vae.simulation.detection import Detection, ParentDetection, Peak  # noqa: E402

BANDS = ("g", "r")
SIGMA = 2.5
FWHM = SIGMA * 2.3548 * 0.2
# y, x and flux: a blend of three, and one alone.
SOURCES = [(60.2, 60.4, 400.0), (66.0, 64.0, 200.0), (58.0, 68.0, 300.0), (30.0, 130.0, 500.0)]


def gaussian(shape, y, x):
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-0.5 * ((yy - y) ** 2 + (xx - x) ** 2) / SIGMA**2) / (2 * np.pi * SIGMA**2)


class KnownNetwork:
    """Answers with the exact galaxy nearest to the stamp's centre."""

    bands, stamp_size, latent_dim = BANDS, 64, 3
    architecture = SimpleNamespace(normalisation="noise", conditional=False)
    package = SimpleNamespace(
        name="known",
        bands=BANDS,
        card={
            "noise": [1.0, 1.0],
            "pixel_scale": [0.2, 0.2],
            "image_unit": "nJy",
            "psf": [{"kind": "gaussian", "fwhm": FWHM, "beta": None}] * 2,
        },
    )

    def deblend(self, images, noise, batch_size=256, psfs=None):
        n = len(images)
        models = np.zeros((n, 2, 64, 64), "f4")
        models[:] = gaussian((64, 64), 31.5, 31.5) * 100
        return models, np.zeros((n, 3), "f4"), np.full((n, 3), 0.5, "f4")


def make_inputs(bands=BANDS, shape=(120, 170), sources=SOURCES, metadata=None):
    image = sum(flux * gaussian(shape, round(y - 0.5) + 0.5, round(x - 0.5) + 0.5) for y, x, flux in sources)
    cube = np.stack([image * (1 + k) for k in range(len(bands))]).astype("f4")
    exposure = MultibandExposure.fromArrays(
        bands,
        cube,
        np.zeros(cube.shape, np.int32),
        np.full(cube.shape, 0.01, "f4"),
        unit="nJy",
        psfs=[AnalyticPsf("gaussian", FWHM, 0.2) for _ in bands],
        metadata=metadata or {"PIXSCALE": 0.2},
    )
    segmentation = np.zeros(shape, np.int32)
    segmentation[45:80, 45:85] = 1
    segmentation[20:40, 120:140] = 2
    parents = []
    for number, members in ((1, sources[:3]), (2, sources[3:])):
        y, x = np.nonzero(segmentation == number)
        box = (y.min(), y.max() + 1, x.min(), x.max() + 1)
        peaks = [Peak(round(x - 0.5) + 0.5, round(y - 0.5) + 0.5, flux) for y, x, flux in members]
        parents.append(
            ParentDetection(
                number,
                box,
                np.ones((box[1] - box[0], box[3] - box[2]), bool),
                peaks,
                np.ones((len(peaks), len(bands)), bool),
                np.ones(len(bands), bool),
            )
        )
    detection = Detection(segmentation, parents, np.zeros(shape, "f4"), 5.0)
    return exposure, makeMergedDetections(detection, bands)


def make_task(schema=None, peakSchema=None, **changes):
    settings = {"priorWidth": 0.0, "exportScarletModels": False, "refine": False, **changes}
    task = DeblendVaeTask(schema, peakSchema, config=DeblendVaeConfig(**settings))
    task._network, task._packageSha = KnownNetwork(), "0" * 64
    return task


def test_every_peak_gets_a_model_in_every_band_with_its_own_flux():
    exposure, merged = make_inputs()
    result = make_task().run(exposure, None, merged)
    assert len(result.deblendedCatalog) == 4 and len(result.scarletModelData) == 4
    fluxes = {}
    for record in result.deblendedCatalog:
        model = result.scarletModelData.model(record.getId()).image
        assert model.shape == (2, 64, 64)
        fluxes[record["deblend_peak_instFlux"]] = model.sum(axis=(1, 2))
    expected = sorted((flux, 2 * flux) for _, _, flux in SOURCES)
    np.testing.assert_allclose(sorted(map(tuple, fluxes.values())), expected, rtol=2e-3)


def test_isolated_parents_keep_their_id_and_children_name_their_parent_in_order():
    exposure, merged = make_inputs()
    result = make_task().run(exposure, None, merged)
    blend, isolated = merged[0].getId(), merged[1].getId()
    objects = result.deblendedCatalog
    assert [record.getParent() for record in objects] == [0, blend, blend, blend]
    assert objects[0].getId() == isolated
    assert len({record.getId() for record in objects} | {blend}) == 5
    assert [record.getId() for record in result.objectParents] == [blend, isolated]
    assert result.objectParents[0]["deblend_nChild"] == 3
    assert list(objects["deblend_parentNChild"]) == [0, 3, 3, 3]


def test_the_models_of_a_noiseless_scene_explain_it():
    exposure, merged = make_inputs()
    result = make_task().run(exposure, None, merged)
    scene = result.scarletModelData.render((0, 120, 0, 170))
    np.testing.assert_allclose(scene, exposure.image.array, atol=0.02)
    assert (result.deblendedCatalog["deblend_chi2"] < 0.1).all()
    blended = result.deblendedCatalog["deblend_blendedness"]
    assert blended[0] < 0.01 and (blended[1:] > 0.05).all()


def test_the_schema_that_was_given_grows_in_place_and_has_scarlets_columns():
    exposure, merged = make_inputs()
    schema, peakSchema = merged.schema.copy(), merged[0].getFootprint().peaks.schema
    task = make_task(schema, peakSchema)
    SourceCatalog(SourceTable.make(schema))
    for name in (
        "deblend_nChild",
        "deblend_parentNChild",
        "deblend_blendNChild",
        "deblend_dataCoverage",
        "deblend_scarletFlux",
        "deblend_peak_center_x",
        "deblend_peakId",
        "deblend_chi2",
        "deblend_blendedness",
        "deblend_fluxOverlapFraction",
        "merge_peak_r",
    ):
        assert name in schema.getNames(), name
    result = task.run(exposure, None, merged)
    assert result.deblendedCatalog.schema.getNames() == schema.getNames()
    assert result.deblendedCatalog["merge_peak_r"].all()


def test_a_holder_of_scarlets_slot_can_be_retargeted_and_calls_by_position():
    class Scarlet(pipeBase.Task):
        ConfigClass = pexConfig.Config
        _DefaultName = "scarlet"

    class HolderConfig(pexConfig.Config):
        multibandDeblend = pexConfig.ConfigurableField(target=Scarlet, doc="The slot.")

    class Holder(pipeBase.Task):
        ConfigClass = HolderConfig
        _DefaultName = "holder"

        def __init__(self, schema, peakSchema, **kwargs):
            super().__init__(**kwargs)
            self.makeSubtask("multibandDeblend", schema=schema, peakSchema=peakSchema)

    config = HolderConfig()
    config.multibandDeblend.retarget(DeblendVaeTask)
    config.multibandDeblend.processSingles = True
    config.multibandDeblend.useCiLimits = False
    config.multibandDeblend.refine = False
    exposure, merged = make_inputs()
    holder = Holder(merged.schema.copy(), merged[0].getFootprint().peaks.schema, config=config)
    holder.multibandDeblend._network, holder.multibandDeblend._packageSha = KnownNetwork(), "0"
    result = holder.multibandDeblend.run(exposure, None, merged)
    assert set(result.getDict()) == {"deblendedCatalog", "scarletModelData", "objectParents"}


def test_a_band_that_the_model_lacks_is_named():
    exposure, merged = make_inputs(bands=("g", "Z"))
    with pytest.raises(ImageError, match="has no band 'Z' .*g, r"):
        make_task().run(exposure, None, merged)


def test_a_band_that_the_exposure_lacks_is_flagged_and_guessed():
    exposure, merged = make_inputs(bands=("g",))
    result = make_task().run(exposure, None, merged)
    assert result.deblendedCatalog["deblend_incompleteData"].all()
    assert all(np.isfinite(source.image).all() for source in result.scarletModelData)


def test_a_pixel_scale_too_far_off_is_refused_with_both_values():
    exposure, merged = make_inputs(metadata={"PIXSCALE": 0.03})
    with pytest.raises(ImageError, match="0.03 arcsec a pixel.*takes 0.2"):
        make_task().run(exposure, None, merged)


@pytest.mark.parametrize("value", [float("nan"), "wide"])
def test_a_pixel_scale_that_is_no_number_is_refused(value):
    exposure, merged = make_inputs(metadata={"PIXSCALE": value})
    with pytest.raises(ImageError, match="arcsec"):
        make_task().run(exposure, None, merged)


def test_an_exposure_that_does_not_tell_its_pixel_scale_is_warned_about(caplog):
    exposure, merged = make_inputs(metadata={"SEED": 1})
    make_task().run(exposure, None, merged)
    assert "neither a WCS nor PIXSCALE" in caplog.text


def test_children_have_the_parents_spans_and_their_own_peak():
    exposure, merged = make_inputs()
    for record in make_task().run(exposure, None, merged).deblendedCatalog:
        peaks = record.getFootprint().peaks
        assert len(peaks) == 1
        assert (peaks[0].getIx(), peaks[0].getIy()) == (
            record["deblend_peak_center_x"],
            record["deblend_peak_center_y"],
        )
        assert peaks[0]["id"] == record["deblend_peakId"]
    assert record.getFootprint().getArea() == merged[0].getFootprint().getArea()


def test_a_parent_without_a_footprint_is_skipped_and_the_others_are_not():
    exposure, merged = make_inputs()
    merged[0].setFootprint(None)
    result = make_task().run(exposure, None, merged)
    assert len(result.deblendedCatalog) == 1 and not result.deblendedCatalog["deblend_failed"].any()
    assert result.objectParents[0]["deblend_skipped"]


def test_a_fully_masked_exposure_flags_every_object():
    exposure, merged = make_inputs()
    exposure.image.array[:] = np.nan
    objects = make_task().run(exposure, None, merged).deblendedCatalog
    assert objects["deblend_failed"].all() and objects["deblend_incompleteData"].all()
    assert np.isnan(objects["deblend_peak_instFlux"]).all()


def test_masked_pixels_do_not_enter_the_goodness_of_fit():
    exposure, merged = make_inputs()
    exposure.image.array[:, 29, 129] = 1e5
    exposure.mask.array[:, 29, 129] |= exposure.mask.getPlaneBitMask("SAT")
    assert (make_task().run(exposure, None, merged).deblendedCatalog["deblend_chi2"] < 0.1).all()


def test_a_psf_that_differs_is_flagged():
    exposure, merged = make_inputs()
    assert not make_task().run(exposure, None, merged).deblendedCatalog["deblend_vae_psfMismatch"].any()
    for width, homogenise in ((0.7, True), (1.5, False)):
        task = make_task(homogenisePsf=homogenise)
        psf = [{"kind": "gaussian", "fwhm": width * FWHM, "beta": None}] * 2
        card = dict(KnownNetwork.package.card, psf=psf)
        task._network.package = SimpleNamespace(name="known", bands=BANDS, card=card)
        assert task.run(exposure, None, merged).deblendedCatalog["deblend_vae_psfMismatch"].all()


def test_no_sources_mean_no_work():
    exposure, merged = make_inputs()
    with pytest.raises(pipeBase.NoWorkFound):
        make_task().run(exposure, None, merged[:0])


def test_pixels_that_are_not_finite_leave_every_value_finite_or_flagged():
    exposure, merged = make_inputs()
    exposure.image.array[:, 28:33, 126:131] = np.nan
    exposure.image.array[0, 50] = np.inf
    result = make_task().run(exposure, None, merged)
    for record in result.deblendedCatalog:
        assert record["deblend_failed"] or np.isfinite(record["deblend_scarletFlux"])
        if not record["deblend_failed"]:
            assert np.isfinite(result.scarletModelData.model(record.getId()).image).all()


def test_a_masked_source_is_flagged_and_has_no_model():
    exposure, merged = make_inputs()
    exposure.mask.array[:, 10:60, 100:170] |= exposure.mask.getPlaneBitMask("BAD")
    result = make_task().run(exposure, None, merged)
    isolated = result.deblendedCatalog[0]
    assert isolated["deblend_failed"] and isolated.getId() not in result.scarletModelData
    assert not result.deblendedCatalog["deblend_failed"][1:].any()


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"maxNumberOfPeaks": 2}, "tooManyPeaks"),
        ({"maxFootprintArea": 1000}, "parentTooBig"),
        ({"maxFootprintSize": 30}, "parentTooBig"),
    ],
)
def test_parents_beyond_a_limit_are_skipped_flagged_and_masked(change, reason):
    exposure, merged = make_inputs()
    result = make_task(**change).run(exposure, None, merged)
    parent = result.objectParents[0]
    assert parent["deblend_skipped"] and parent[f"deblend_skipped_{reason}"]
    assert [record.getId() for record in result.deblendedCatalog] == [merged[1].getId()]
    assert not result.deblendedCatalog["deblend_failed"].any()
    bit = exposure.mask.getPlaneBitMask("NOT_DEBLENDED")
    assert (exposure.mask.array[:, 45:80, 45:85] & bit).all() and not (
        exposure.mask.array[:, :40] & bit
    ).any()


def test_singles_can_be_left_alone():
    exposure, merged = make_inputs()
    result = make_task(processSingles=False).run(exposure, None, merged)
    assert len(result.deblendedCatalog) == 4
    assert merged[1].getId() not in result.scarletModelData
    assert list(result.deblendedCatalog["deblend_failed"]) == [True, False, False, False]


def test_a_failure_is_caught_and_flagged_or_raised_as_asked():
    exposure, merged = make_inputs()

    def run(catch):
        task = make_task(catchFailures=catch)
        task._network.deblend = lambda *args: 1 / 0
        return task.run(exposure, None, merged)

    result = run(True)
    # As scarlet: no children of a parent that failed, and isolated ones stay.
    assert [record.getId() for record in result.deblendedCatalog] == [2]
    assert result.deblendedCatalog["deblend_failed"].all() and len(result.scarletModelData) == 0
    for parent in result.objectParents:
        assert parent["deblend_error"] == "ZeroDivisionError" and parent["deblend_failed"]
        assert parent["deblend_skipped"] and parent["deblend_nChild"] == 0
    with pytest.raises(ZeroDivisionError):
        run(False)


# -- measurement ---------------------------------------------------------------


def test_shapes_and_magnitudes_of_known_models():
    exposure, merged = make_inputs()
    deblended = make_task().run(exposure, None, merged)
    table = MeasureShapesTask().run(exposure, deblended.deblendedCatalog, deblended.scarletModelData).shapes
    assert len(table) == 4 and not table["model_flag"].any()
    isolated = table[0]
    assert isolated["flux_r"] == pytest.approx(1000, rel=2e-3)
    assert isolated["mag_r"] == pytest.approx(31.4 - 2.5 * np.log10(1000), abs=5e-3)
    assert isolated["snr"] == pytest.approx(1000 / (0.1 * np.sqrt(4 * np.pi) * SIGMA), rel=1e-2)
    assert (isolated["x"], isolated["y"]) == pytest.approx((130.5, 30.5), abs=0.02)
    assert table["flux_r"].unit == "nJy" and table["mag_r"].unit == "mag"
    # As wide as the PSF: a star has no shape, or a round one.
    assert isolated["shape_flag"] or np.hypot(isolated["e1"], isolated["e2"]) < 0.05


def test_an_object_without_a_model_is_flagged_not_lost():
    exposure, merged = make_inputs()
    deblended = make_task(processSingles=False).run(exposure, None, merged)
    table = MeasureShapesTask().run(exposure, deblended.deblendedCatalog, deblended.scarletModelData).shapes
    assert len(table) == 4
    row = table[table["model_flag"]]
    assert len(row) == 1 and row["shape_flag"][0] and np.isnan(row["mag_r"][0]) and np.isnan(row["e1"][0])


def test_flux_errors_know_the_neighbours():
    exposure, merged = make_inputs()
    deblended = make_task().run(exposure, None, merged)
    table = MeasureShapesTask().run(exposure, deblended.deblendedCatalog, deblended.scarletModelData).shapes
    alone = table["flux_r"] / table["snr"]
    ratio = np.asarray(table["flux_err_r"] / alone)
    # The isolated one's error is its own; the blended ones share pixels.
    assert ratio[0] == pytest.approx(1, rel=0.01) and (ratio[1:] > 1.002).all()


def test_the_network_runs_on_the_engine_of_the_config(monkeypatch):
    from lsst.meas.extensions.vae.network import model

    class Recorded(KnownNetwork):
        def __init__(self, package, engine):
            self.engine = type("Engine", (), {"name": engine})

    monkeypatch.setattr(model, "Network", Recorded)
    task = DeblendVaeTask(config=DeblendVaeConfig(engine="openvino"))
    assert task.network.engine.name == "openvino"
    with pytest.raises(ValueError):
        DeblendVaeConfig(engine="tensorrt")
