# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""DeblendVaeTask on exposures of another PSF, pixel scale or depth than the network's."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("lsst.pipe.base")
pytest.importorskip("galsim")

from test_tasks_deblend import FWHM, SIGMA, KnownNetwork, make_task  # noqa: E402

from lsst.meas.extensions.vae import DeblendVaeTask, MeasureShapesTask, MultibandExposure  # noqa: E402
from lsst.meas.extensions.vae.afw import AnalyticPsf, Box2I, Extent2I, KernelPsf, Point2I  # noqa: E402
from lsst.meas.extensions.vae.catalogs import makeMergedDetections  # noqa: E402
from lsst.meas.extensions.vae.deblendVaeTask import DeblendVaeConfig  # noqa: E402
from lsst.meas.extensions.vae.errors import ImageError  # noqa: E402
from lsst.meas.extensions.vae.simulation.detection import Detection, ParentDetection, Peak  # noqa: E402

BANDS, NOISE, CORNER = ("g", "r"), 0.1, (1000, 3000)
# y, x and flux in the network's pixels: a blend of three, and one alone, at crossings in those of 0.1, 0.2,
# 0.3 and 0.4 arcsec.
SOURCES = [(59.5, 59.5, 400.0), (65.5, 65.5, 200.0), (59.5, 71.5, 300.0), (95.5, 131.5, 500.0)]


def gaussian(shape, y, x, sigma):
    yy, xx = np.indices(shape)
    return np.exp(-0.5 * ((yy - y) ** 2 + (xx - x) ** 2) / sigma**2) / (2 * np.pi * sigma**2)


def make_inputs(scale=0.2, sigma=SIGMA, noise=NOISE, seed=None, **psf):
    """Stars of the known fluxes, as an exposure sees them; sigma in the network's pixels."""
    ratio, size = scale / 0.2, (132, 180)
    shape = tuple(round(side / ratio) for side in size)
    places = [((y + 0.5) / ratio - 0.5, (x + 0.5) / ratio - 0.5) for y, x, _ in SOURCES]
    image = sum(
        flux * gaussian(shape, *place, sigma / ratio)
        for place, (_, _, flux) in zip(places, SOURCES, strict=True)
    )
    cube = np.stack([image, 2 * image])
    if seed is not None:
        cube += np.random.default_rng(seed).normal(0, noise * ratio, cube.shape)
    exposure = MultibandExposure.fromArrays(
        BANDS,
        cube.astype("f4"),
        np.zeros(cube.shape, np.int32),
        np.full(cube.shape, (noise * ratio) ** 2, "f4"),
        Box2I(Point2I(*CORNER), Extent2I(*shape[::-1])),
        unit="nJy",
        psfs=[AnalyticPsf("gaussian", sigma * 2.3548 * 0.2, scale, **psf) for _ in BANDS],
        metadata={"PIXSCALE": scale},
    )
    parents, segmentation = [], np.zeros(shape, np.int32)
    for number, box, members in (
        (1, (42, 84, 42, 90), (0, 1, 2)),
        (2, (84, 108, 120, 144), (3,)),
    ):
        y0, y1, x0, x1 = (round(side / ratio) for side in box)
        segmentation[y0:y1, x0:x1] = number
        peaks = [Peak(places[k][1], places[k][0], SOURCES[k][2]) for k in members]
        told = np.ones((len(peaks), 2), bool), np.ones(2, bool)
        spans = np.ones((y1 - y0, x1 - x0), bool)
        parents.append(ParentDetection(number, (y0, y1, x0, x1), spans, peaks, *told))
    detection = Detection(segmentation, parents, np.zeros(shape, "f4"), 5.0)
    return exposure, makeMergedDetections(detection, BANDS, CORNER)


def run(exposure, merged, **changes):
    return make_task(**changes).run(exposure, None, merged)


def fluxes(result, objects=None):
    objects = result.deblendedCatalog if objects is None else objects
    models = [result.scarletModelData.model(record.getId()).image for record in objects]
    return np.array([model.sum(axis=(1, 2)) for model in models])


# In the order of the catalogue: isolated ones first.
TRUTH = np.array([[flux, 2 * flux] for flux in (500.0, 400.0, 200.0, 300.0)])


@pytest.mark.parametrize("scale", [0.1, 0.3, 0.4])
def test_an_exposure_of_other_pixels_gets_models_in_its_own_with_a_warning(scale, caplog):
    exposure, merged = make_inputs(scale)
    result = run(exposure, merged)
    assert f"Pixels have {scale:g} arcsec, model 'known' takes 0.2: resampled" in caplog.text
    objects = result.deblendedCatalog
    np.testing.assert_allclose(fluxes(result), TRUTH, rtol=0.015)
    assert objects["deblend_vae_resampled"].all() and not objects["deblend_vae_psfMismatch"].any()
    box = exposure.getBBox()
    scene = result.scarletModelData.render((box.getMinY(), box.getEndY(), box.getMinX(), box.getEndX()))
    image = exposure.image.array
    np.testing.assert_allclose(scene, image, atol=0.015 * image.max())
    table = MeasureShapesTask().run(exposure, objects, result.scarletModelData).shapes
    for row, record in zip(table, objects, strict=True):
        peak = record.getFootprint().peaks[0]
        assert (record["deblend_peak_center_x"], record["deblend_peak_center_y"]) == (
            peak.getIx(),
            peak.getIy(),
        )
        assert (row["x"], row["y"]) == pytest.approx((peak.getFx(), peak.getFy()), abs=0.02)
        y, x = peak.getIy() - CORNER[1], peak.getIx() - CORNER[0]
        model = result.scarletModelData.model(record.getId())
        inside = model.image[1, peak.getIy() - model.origin[0], peak.getIx() - model.origin[1]]
        assert record["deblend_peak_instFlux"] == pytest.approx(inside) and inside < 1.1 * image[1, y, x]
    assert [record.getId() for record in objects[:1]] == [merged[1].getId()]


def test_conserved_footprints_are_the_exposures_own_pixels():
    exposure, merged = make_inputs(0.3, seed=1)
    result = run(exposure, merged, doConserveFlux=True)
    total = np.zeros(exposure["r"].image.array.shape)
    for record in result.deblendedCatalog[1:]:
        footprint = record.getFootprint()
        y, x = footprint.spans.indices()
        total[y - CORNER[1], x - CORNER[0]] += footprint.getImageArray()
    parent = np.s_[28:56, 28:60]
    np.testing.assert_allclose(total[parent], exposure["r"].image.array[parent], atol=1e-4)


def test_the_goodness_of_fit_is_that_of_the_exposures_own_pixels():
    for inputs in (make_inputs(0.3, noise=1.0, seed=2), make_inputs(sigma=1.8, noise=1.0, seed=2)):
        chi2 = run(*inputs).objectParents["deblend_chi2"]
        np.testing.assert_allclose(chi2, 1, atol=0.15)


def test_a_scale_that_the_config_or_sense_forbids_is_refused_with_both_values():
    with pytest.raises(ImageError, match="0.5 arcsec a pixel.*takes 0.2 .*0.1 to 0.4"):
        run(*make_inputs(0.5))
    with pytest.raises(ImageError, match="0.3 arcsec a pixel"):
        run(*make_inputs(0.3), maxPixelScaleRatio=1.0)
    assert not run(*make_inputs(0.3), pixelScaleTolerance=0.6).deblendedCatalog["deblend_vae_resampled"].any()


@pytest.mark.parametrize("scale", [0.2, 0.1])
def test_a_sharper_psf_is_homogenised_and_models_have_it_again(scale, caplog):
    exposure, merged = make_inputs(scale, sigma=1.8)
    result = run(exposure, merged)
    objects = result.deblendedCatalog
    np.testing.assert_allclose(fluxes(result), TRUTH, rtol=0.015)
    assert objects["deblend_vae_homogenised"].all() and not objects["deblend_vae_psfMismatch"].any()
    y0, x0 = CORNER[::-1]
    ny, nx = exposure.image.array.shape[1:]
    scene = result.scarletModelData.render((y0, y0 + ny, x0, x0 + nx))
    np.testing.assert_allclose(scene, exposure.image.array, atol=0.04 * exposure.image.array.max())
    plain = run(exposure, merged, homogenisePsf=False)
    assert plain.deblendedCatalog["deblend_vae_psfMismatch"].all()
    assert not plain.deblendedCatalog["deblend_vae_homogenised"].any()
    # Too wide a model takes the light of neighbours.
    assert abs(fluxes(plain) / TRUTH - 1).max() > 0.04
    assert "The PSF differs by 2" in caplog.text


def test_a_wider_psf_is_flagged_and_not_deconvolved():
    objects = run(*make_inputs(sigma=3.2)).deblendedCatalog
    assert objects["deblend_vae_psfMismatch"].all() and not objects["deblend_vae_homogenised"].any()


@pytest.mark.parametrize("e1, flagged", [(0.05, False), (0.2, True)])
def test_a_psf_more_elliptical_than_the_networks_is_flagged(e1, flagged):
    objects = run(*make_inputs(e1=e1)).deblendedCatalog
    assert (objects["deblend_vae_psfMismatch"] == flagged).all()


def with_card(**changes):
    task = make_task()
    task._network.package = SimpleNamespace(
        name="known", bands=BANDS, card={**KnownNetwork.package.card, **changes}
    )
    return task


def test_the_ellipticities_that_a_network_was_trained_with_are_not_flagged():
    training = {"deblender": {"samples": [{"settings": {"psf_shear_sigma": 0.05}}]}}
    exposure, merged = make_inputs(e1=0.2)
    objects = with_card(training=training).run(exposure, None, merged).deblendedCatalog
    assert not objects["deblend_vae_psfMismatch"].any()


@pytest.mark.parametrize(
    "noise, training, flagged",
    [
        (0.1, {}, False),
        (0.12, {}, False),
        (0.2, {}, True),
        (0.05, {}, True),
        (0.2, {"prior": {"settings": {"depth_min": 0.3, "depth_max": 2.0}}}, False),
        (
            0.2,
            {"deblender": {"settings": {"depth_min": 1.0}}, "prior": {"settings": {"depth_min": 0.1}}},
            True,
        ),
    ],
)
@pytest.mark.parametrize("scale", [0.2, 0.3])
def test_depths_beyond_those_of_the_training_are_flagged(noise, training, flagged, scale):
    exposure, merged = make_inputs(scale, noise=noise)
    result = with_card(noise=[0.1, 0.1], training=training).run(exposure, None, merged)
    assert (result.deblendedCatalog["deblend_vae_depthMismatch"] == flagged).all()


def test_a_band_that_is_missing_has_no_depth_and_a_card_that_tells_none_flags_nothing():
    exposure, merged = make_inputs(noise=10.0)
    card = {k: v for k, v in KnownNetwork.package.card.items() if k != "noise"}
    task = make_task()
    task._network.package = SimpleNamespace(name="known", bands=BANDS, card=card)
    assert not task.run(exposure, None, merged).deblendedCatalog["deblend_vae_depthMismatch"].any()
    exposure, merged = make_inputs(0.3)
    exposure.image.array[0] = np.nan
    objects = with_card(noise=[77.0, 0.1]).run(exposure, None, merged).deblendedCatalog
    assert objects["deblend_incompleteData"].all() and not objects["deblend_vae_depthMismatch"].any()


def test_masked_and_missing_pixels_stay_flagged_on_other_pixels():
    exposure, merged = make_inputs(0.3)
    exposure.image.array[:, 55:72, 78:98] = np.nan
    result = run(exposure, merged)
    isolated, blend = result.deblendedCatalog[0], result.deblendedCatalog[1:]
    assert isolated["deblend_failed"] and np.isnan(isolated["deblend_peak_instFlux"])
    assert not blend["deblend_failed"].any()
    np.testing.assert_allclose(fluxes(result, blend), TRUTH[1:], rtol=0.015)


def test_a_psf_that_varies_over_the_exposure_is_homogenised_where_it_is_sharp():
    class Varying(AnalyticPsf):
        def _kernel(self, position):
            sigma = 1.8 if position[0] < CORNER[0] + 60 else SIGMA
            return AnalyticPsf("gaussian", sigma * 2.3548 * 0.2, 0.2)._kernel(position)

    exposure, merged = make_inputs()
    for single in exposure.singles:
        single.setPsf(Varying("gaussian", FWHM, 0.2))
    # Kernels fade out between the corners of the grid, and what is left there is flagged.
    assert run(exposure, merged).deblendedCatalog["deblend_vae_homogenised"].all()


# -- a trained network -----------------------------------------------------------------------


def galaxies(scale, width):
    """Six galaxies, each alone, that a survey of other pixels or PSF sees; and their fluxes in r."""
    import galsim

    from lsst.meas.extensions.vae.network.shipped import load_package

    card = load_package("lsst10yr-ugrizy").card
    bands, noise = tuple(card["bands"]), np.array(card["noise"])
    side, rng = 16.0, np.random.default_rng(4)
    n = round(side / scale)
    images, parents, truth = np.zeros((6, n, 6 * n)), [], []
    segmentation = np.zeros((n, 6 * n), np.int32)
    psfs = [galsim.Kolmogorov(fwhm=width * psf["fwhm"]) for psf in card["psf"]]
    for k in range(6):
        y, x = (side / 2 + rng.uniform(-0.1, 0.1, 2)) / scale - 0.5
        galaxy = galsim.Exponential(half_light_radius=rng.uniform(0.3, 0.6))
        galaxy = galaxy.shear(g=rng.uniform(0.1, 0.4), beta=rng.uniform(0, np.pi) * galsim.radians)
        truth.append(3000 * noise[2])
        for band, psf in enumerate(psfs):
            stamp = galsim.ImageD(images[band, :, k * n : (k + 1) * n], xmin=0, ymin=0, scale=scale)
            through = galsim.Convolve(galaxy, psf).withFlux(3000 * noise[band])
            through.drawImage(stamp, center=galsim.PositionD(x, y), add_to_image=True)
        box = n // 4, 3 * n // 4, k * n + n // 4, k * n + 3 * n // 4
        segmentation[box[0] : box[1], box[2] : box[3]] = k + 1
        told = np.ones((1, 6), bool), np.ones(6, bool)
        spans = np.ones((box[1] - box[0], box[3] - box[2]), bool)
        parents.append(ParentDetection(k + 1, box, spans, [Peak(k * n + x, y, 1.0)], *told))
    images += rng.normal(size=images.shape) * (noise * scale / 0.2)[:, None, None]
    variance = np.broadcast_to((noise * scale / 0.2)[:, None, None] ** 2, images.shape)
    kernels = [psf.drawImage(nx=41, ny=41, scale=scale, dtype=float).array for psf in psfs]
    exposure = MultibandExposure.fromArrays(
        bands,
        images.astype("f4"),
        np.zeros(images.shape, np.int32),
        variance.astype("f4"),
        unit="nJy",
        psfs=[KernelPsf(kernel) for kernel in kernels],
        metadata={"PIXSCALE": scale},
    )
    detection = Detection(segmentation, parents, np.zeros(images.shape[1:], "f4"), 5.0)
    return exposure, makeMergedDetections(detection, bands), np.array(truth)


def test_a_trained_network_gives_fluxes_and_shapes_through_any_pixels_and_sharp_psfs():
    pytest.importorskip("keras")
    task = DeblendVaeTask(config=DeblendVaeConfig(exportScarletModels=False))
    tables = []
    for scale, width in ((0.2, 1.0), (0.26, 1.0), (0.15, 1.0), (0.2, 0.6)):
        exposure, merged, truth = galaxies(scale, width)
        result = task.run(exposure, None, merged)
        table = MeasureShapesTask().run(exposure, result.deblendedCatalog, result.scarletModelData).shapes
        np.testing.assert_allclose(table["flux_r"], truth, rtol=0.06)
        assert abs(np.mean(table["flux_r"] / truth) - 1) < 0.03
        assert not result.deblendedCatalog["deblend_vae_psfMismatch"].any()
        tables.append(table)
    for table in tables[1:]:
        for name in ("e1", "e2"):
            np.testing.assert_allclose(table[name], tables[0][name], atol=0.06)
            assert abs(np.mean(table[name] - tables[0][name])) < 0.025
