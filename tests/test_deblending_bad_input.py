# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad pixels, variances, peaks and PSFs: flags or one clear error, and not a bit of any other source changes.

Each goes through three doors: ``deblend_blend``, the five-minute function ``deblend`` and ``DeblendVaeTask``.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from lsst.meas.extensions.vae.afw import (
    AnalyticPsf,
    Box2I,
    Extent2I,
    Footprint,
    IdFactory,
    Image,
    KernelPsf,
    Mask,
    MultibandExposure,
    Point2I,
    Psf,
    SourceCatalog,
    SourceTable,
    SpanSet,
)
from lsst.meas.extensions.vae.catalogs import makeMergedSchema, makePeakSchema
from lsst.meas.extensions.vae.deblending import DeblendSettings, deblend, deblend_blend
from lsst.meas.extensions.vae.deblending.stamps import check_cube
from lsst.meas.extensions.vae.errors import ImageError
from lsst.meas.extensions.vae.network.package import ModelPackage

BANDS, NOISE, SIGMA, FWHM = ("g", "r"), (2.0, 3.0), 2.5, 2.5 * 2.3548 * 0.2
X0, Y0 = 1000, 2000
# Two that overlap, and one whose stamp meets no other's.
CENTRES = np.array([(50.5, 40.5), (55.5, 46.5), (60.5, 150.5)])
FLUXES = np.array([400.0, 200.0, 300.0])


def gaussian(shape, y, x):
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-0.5 * ((yy - y) ** 2 + (xx - x) ** 2) / SIGMA**2) / (2 * np.pi * SIGMA**2)


class KnownNetwork:
    """Draws a centred Gaussian of a fixed flux, whatever it sees."""

    bands, stamp_size, latent_dim, has_latent_prior = BANDS, 64, 3, False
    architecture = SimpleNamespace(normalisation="noise", conditional=False)
    package = SimpleNamespace(
        name="known",
        bands=BANDS,
        card={
            "noise": list(NOISE),
            "pixel_scale": [0.2] * 2,
            "image_unit": "nJy",
            "psf": [{"kind": "gaussian", "fwhm": FWHM, "beta": None}] * 2,
        },
    )

    def __init__(self, stamp_size=64):
        self.stamp_size = stamp_size

    def deblend(self, images, noise, batch_size=256, psfs=None):
        assert np.isfinite(images).all() and (np.asarray(noise) > 0).all()
        n, size = len(images), self.stamp_size
        model = gaussian((size, size), (size - 1) / 2, (size - 1) / 2)
        models = np.repeat([[50 * model, 100 * model]], n, axis=0).astype("f4")
        return models, np.zeros((n, 3), "f4"), np.ones((n, 3), "f4")


SMALL = {"conditional": {}, "morphology": {"groups": (0, 1)}}


def small_network(name, engine="keras"):
    """A real network of some architecture, with random weights."""
    from lsst.meas.extensions.vae.network.architecture import make_architecture
    from lsst.meas.extensions.vae.network.model import Network, get_weights

    options = {"filters": (4, 8), "hidden": 16, "wide": 16, "crop": 16, **SMALL[name]}
    architecture, rng = make_architecture(name, 2, 64, 4, **options), np.random.default_rng(7)
    models = {"deblender_encoder": architecture.build_encoder(), "decoder": architecture.build_decoder()}
    parts = {
        part: {
            # Weights start at random, biases and scales at constants.
            key: rng.normal(0, 0.1 if value.std() > 0 else 0.05, value.shape).astype("f4")
            + (0 if value.std() > 0 else value)
            for key, value in get_weights(model).items()
        }
        for part, model in models.items()
    }
    card = {
        **KnownNetwork.package.card,
        "name": f"small {name}",
        "architecture": {"name": name, "options": options},
        "survey": "lsst10yr",
        "bands": list(BANDS),
        "psf": [{"kind": "gaussian", "fwhm": 0.7, "beta": None}] * 2,
        "psf_fwhm_range": [[0.5, 0.9]] * 2,
        "stamp_size": 64,
        "latent_dim": 4,
        "latent_prior": {"mean": [0.0] * 4, "covariance": np.eye(4).tolist()},
        "centring": "pixelisation" if name == "conditional" else "none",
        "normalisation": {"kind": architecture.normalisation, "scale": list(NOISE)},
    }
    return Network(ModelPackage(card, parts), engine=engine)


@pytest.fixture(scope="module")
def networks():
    pytest.importorskip("keras")
    return {name: small_network(name) for name in SMALL}


def box_about(peaks, margin=12):
    """Pixels about peaks [y, x], in parent coordinates."""
    top, left = np.floor(np.min(peaks, axis=0)).astype(int) - margin
    bottom, right = np.ceil(np.max(peaks, axis=0)).astype(int) + margin
    return SpanSet(
        Box2I(Point2I(int(left) + X0, int(top) + Y0), Extent2I(int(right - left), int(bottom - top)))
    )


def as_inputs(images, variance, mask, parents, bands=BANDS, psfs=None, scale=0.2):
    """An exposure, and a catalogue of parents [(spans, peaks [y, x])]."""
    ny, nx = images.shape[1:]
    exposure = MultibandExposure.fromArrays(
        bands,
        images,
        mask,
        variance,
        Box2I(Point2I(X0, Y0), Extent2I(nx, ny)),
        unit="nJy",
        psfs=psfs or [AnalyticPsf("gaussian", FWHM, 0.2) for _ in bands],
        metadata={"PIXSCALE": scale},
    )
    catalog = SourceCatalog(SourceTable.make(makeMergedSchema(BANDS), IdFactory.makeSimple()))
    for spans, peaks in parents:
        footprint = None if spans is None else Footprint(spans, makePeakSchema(BANDS))
        for y, x in peaks if footprint is not None else ():
            peak = footprint.addPeak(X0, Y0, 10.0)
            peak.setFx(X0 + x)
            peak.setFy(Y0 + y)
            if np.max(np.abs([y, x])) < 2e9:
                peak.setIx(int(np.floor(X0 + x + 0.5)))
                peak.setIy(int(np.floor(Y0 + y + 0.5)))
        catalog.addNew().setFootprint(footprint)
    return exposure, catalog


def make_task(network, **settings):
    pytest.importorskip("lsst.pipe.base")
    from lsst.meas.extensions.vae import DeblendVaeTask
    from lsst.meas.extensions.vae.deblendVaeTask import DeblendVaeConfig

    settings = {"exportScarletModels": False, "refine": False, "priorWidth": 0.0, **settings}
    task = DeblendVaeTask(config=DeblendVaeConfig(**settings))
    task._network, task._packageSha = network, "0" * 64
    return task


def run(network, images, variance, parents, mask=None, bands=BANDS, psfs=None, **settings):
    """What DeblendVaeTask returns."""
    mask = np.zeros(images.shape, np.int32) if mask is None else mask
    exposure, merged = as_inputs(images, variance, mask, parents, bands, psfs)
    return make_task(network, **settings).run(exposure, None, merged)


def by_run(images, variance, centres, network, bad=None, bands=BANDS, psfs=None):
    """Each source is a parent by itself."""
    mask = np.zeros(images.shape, np.int32)
    if bad is not None:
        mask[:, bad] = Mask.getPlaneBitMask("SAT")
    whole = SpanSet(Box2I(Point2I(X0, Y0), Extent2I(images.shape[2], images.shape[1])))
    parents = [(whole, [centre]) for centre in centres]
    result = run(network, images, variance, parents, mask, bands, psfs)
    objects, models = result.deblendedCatalog, result.scarletModelData
    blank = np.full((len(network.bands), network.stamp_size, network.stamp_size), np.nan, "f4")
    found = np.array([models.model(r.getId()).image if r.getId() in models else blank for r in objects])
    return SimpleNamespace(
        failed=np.array(objects["deblend_failed"]),
        incomplete=np.array(objects["deblend_incompleteData"]),
        mismatch=np.array(objects["deblend_vae_psfMismatch"]),
        models=found,
        fluxes=found.sum(axis=(2, 3)),
    )


PLAIN = DeblendSettings(prior_width=0.0)


def by_blend(images, variance, centres, network, bad=None, psfs=None):
    result = deblend_blend(images, variance, centres, network, bad=bad, psfs=psfs, settings=PLAIN)
    result.incomplete = result.missing_bands.any(axis=1)
    return result


def by_deblend(images, variance, centres, network, bad=None, bands=BANDS, psfs=None):
    arguments = {"bands": bands, "model": network, "bad": bad, "settings": PLAIN}
    result = deblend(images, variance, psfs, centres, **arguments)
    result.incomplete = result.missing_bands.any(axis=1)
    return result


@pytest.fixture(params=[by_run, by_blend, by_deblend])
def door(request):
    return request.param


def scene(shape=(110, 200), centres=CENTRES, fluxes=FLUXES):
    image = sum(flux * gaussian(shape, y, x) for (y, x), flux in zip(centres, fluxes, strict=True))
    cube = np.stack([image, 2 * image]).astype("f4")
    return cube, np.full(cube.shape, 0.01, "f4")


def check_truth(result, fluxes=FLUXES):
    assert not result.failed.any()
    np.testing.assert_allclose(result.fluxes, np.outer(fluxes, [1, 2]), rtol=2e-3)


def check_same(result, other, which):
    """Not a bit differs."""
    for name in ("failed", "models", "fluxes"):
        np.testing.assert_array_equal(getattr(result, name)[which], getattr(other, name)[which], name)


# -- pixels and variances --------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -3e38])
def test_pixels_that_are_no_measurement_are_left_out(door, value):
    images, variance = scene()
    images[0, 49, 38] = images[1, 54, 20:50] = value
    images[:, 60:64, 140:160] = value
    check_truth(door(images, variance, CENTRES, KnownNetwork()))


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, -np.inf, 1e-42, 1e38])
def test_pixels_without_a_variance_are_left_out(door, value):
    images, variance = scene()
    for part in ((0, 49, 38), (1, 54, slice(20, 50)), (slice(None), slice(60, 64), slice(140, 160))):
        variance[part], images[part] = value, 1e6
    check_truth(door(images, variance, CENTRES, KnownNetwork()))


@pytest.mark.parametrize("how", ["image", "variance", "mask"])
def test_a_source_without_a_good_pixel_fails_and_the_others_keep_every_bit(door, how):
    images, variance = scene()
    plain = door(images, variance, CENTRES, KnownNetwork())
    bad = np.zeros(images.shape[1:], bool)
    for name, array, value in (("image", images, np.nan), ("variance", variance, 0), ("mask", bad, True)):
        if how == name:
            array[..., 110:] = value
    result = door(images, variance, CENTRES, KnownNetwork(), bad=bad)
    assert list(result.failed) == [False, False, True] and result.incomplete[2]
    assert np.isnan(result.models[2]).all()
    check_same(result, plain, slice(2))


def test_where_nothing_is_good_all_fail(door):
    images, variance = scene()
    assert door(images, 0 * variance, CENTRES, KnownNetwork()).failed.all()


def test_one_band_is_enough_where_the_other_is_flagged_and_guessed():
    images, variance = scene()
    for one in (by_run, by_deblend):
        result = one(images[1:], variance[1:], CENTRES, KnownNetwork(), bands=("r",))
        np.testing.assert_allclose(result.fluxes[:, -1], 2 * FLUXES, rtol=2e-3)
        assert result.incomplete.all() or one is by_deblend, "bands that are not given are not returned"
    with pytest.raises(ImageError, match="1 bands, the model 'known' takes 2"):
        by_blend(images[1:], variance[1:], CENTRES, KnownNetwork())


@pytest.mark.parametrize("shape", [(20, 21), (63, 65), (12, 90)])
def test_images_smaller_than_a_stamp_are_deblended(door, shape):
    centre = np.array([[shape[0] // 2 - 0.5, shape[1] // 2 - 0.5]])
    images, variance = scene(shape, centre, [500.0])
    result = door(images, variance, centre, KnownNetwork())
    assert not result.failed.any()
    # The model goes on beyond the image.
    assert result.fluxes[0] == pytest.approx([500, 1000], rel=2e-3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (2, 2)])
def test_of_hardly_any_pixel_nothing_is_made(door, shape):
    images, variance = scene(shape, [(0, 0)], [500.0])
    assert door(images, variance, [(0.0, 0.0)], KnownNetwork()).failed.all()


@pytest.mark.parametrize("kind", ["f8", ">f4", ">f8", "i4", "i2"])
@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_how_arrays_lie_in_memory_changes_no_bit(door, kind, order):
    images, variance = scene()
    images, variance = np.round(images * 10), np.ones_like(variance)
    plain = door(images, variance, CENTRES, KnownNetwork())
    stored = []
    for array in (images, variance):
        array = np.asarray(array.astype(kind), order="F" if order == "F" else "C")
        stored.append(np.repeat(array, 2, axis=2)[:, :, ::2] if order == "strided" else array)
    check_same(door(*stored, CENTRES, KnownNetwork()), plain, slice(None))


def test_masked_arrays_hide_their_pixels():
    images, variance = scene()
    images[:, 60:64, 140:160] = 1e6
    hidden = np.ma.masked_greater(images, 1e5)
    for one in (by_blend, by_deblend):
        check_truth(one(hidden, variance, CENTRES, KnownNetwork()))
        hidden_variance = np.ma.masked_array(variance, hidden.mask)
        check_truth(one(images, hidden_variance, CENTRES, KnownNetwork()))


@pytest.mark.parametrize("kind", ["c8", "U3", object])
def test_arrays_that_hold_no_numbers_are_refused(kind):
    images, variance = scene()
    with pytest.raises(ImageError, match="images hold .*: expected real numbers"):
        check_cube(images.astype(kind), variance)
    with pytest.raises(ImageError, match="variances hold .*: expected real numbers"):
        check_cube(images, variance.astype(kind))


# -- peaks ---------------------------------------------------------------------------------


PLACES = [
    (-0.51, 40.0), (110.0, 40.0), (50.0, -3.0), (50.0, 199.5), (-1e9, 3.0), (1e15, 1e15),
    (np.nan, 50.0), (50.0, np.nan), (np.inf, np.nan), (50.0, -np.inf),
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_peak_outside_the_image_fails_and_the_others_keep_every_bit(door, place):
    images, variance = scene()
    plain = door(images, variance, CENTRES, KnownNetwork())
    result = door(images, variance, np.insert(CENTRES, 1, place, axis=0), KnownNetwork())
    assert list(result.failed) == [False, True, False, False]
    for name in ("models", "fluxes"):
        np.testing.assert_array_equal(getattr(result, name)[[0, 2, 3]], getattr(plain, name))


@pytest.mark.parametrize("place", [(-0.5, 40.0), (109.49, 40.0), (50.0, -0.5), (50.0, 199.49), (0.0, 0.0)])
def test_a_peak_in_the_outermost_pixel_has_a_model(door, place):
    images, variance = scene()
    result = door(images, variance, [place], KnownNetwork())
    assert not result.failed.any() and np.isfinite(result.models).all()


@pytest.mark.parametrize("copies", [2, 9])
def test_sources_at_one_place_share_its_light(door, copies):
    images, variance = scene()
    centres = np.concatenate([np.repeat(CENTRES[:1], copies, axis=0), CENTRES[1:]])
    result = door(images, variance, centres, KnownNetwork())
    assert not result.failed.any() and np.isfinite(result.fluxes).all()
    assert result.fluxes[:copies].sum(axis=0) == pytest.approx([400, 800], rel=2e-3)
    np.testing.assert_allclose(result.fluxes[copies:], np.outer(FLUXES[1:], [1, 2]), rtol=2e-3)


def test_no_source_is_an_empty_result_or_no_work():
    images, variance = scene()
    for one in (by_blend, by_deblend):
        result = one(images, variance, np.zeros((0, 2)), KnownNetwork())
        assert result.models.shape == (0, 2, 64, 64) and result.fluxes.shape == (0, 2)
    pipeBase = pytest.importorskip("lsst.pipe.base")
    with pytest.raises(pipeBase.NoWorkFound):
        by_run(images, variance, [], KnownNetwork())


def test_ten_thousand_peaks_in_one_parent_are_deblended_or_skipped_and_the_others_keep_every_bit():
    rng = np.random.default_rng(3)
    shape, alone = (150, 4000), (80.5, 3950.5)
    peaks = rng.uniform(10, [140, 3900], (10_000, 2))
    images, variance = scene(shape, [alone], [500.0])
    parents = [(box_about(peaks), peaks), (box_about([alone]), [alone])]
    models = {}
    for limit in (0, 5000):
        result = run(KnownNetwork(8), images, variance, parents, maxNumberOfPeaks=limit)
        assert list(result.objectParents["deblend_skipped_tooManyPeaks"]) == [bool(limit), False]
        objects = result.deblendedCatalog
        assert len(objects) == (1 if limit else 10_001) and not objects["deblend_failed"].any()
        for name in ("deblend_scarletFlux", "deblend_maxOverlap", "deblend_peak_instFlux"):
            assert np.isfinite(objects[name]).all(), name
        models[limit] = result.scarletModelData.model(2).image
    np.testing.assert_array_equal(models[0], models[5000])


@pytest.mark.parametrize("masked", [True, False])
def test_a_saturated_star_leaves_every_bit_of_the_others(door, masked):
    images, variance = scene()
    plain = door(images, variance, CENTRES, KnownNetwork())
    y, x = np.mgrid[: images.shape[1], : images.shape[2]]
    star = 1e9 * (1 + ((y - 60.5) ** 2 + (x - 150.5) ** 2) / 9) ** -2.5 * (x > 90)
    images, variance = np.minimum(images + star, 1e5).astype("f4"), (variance + star).astype("f4")
    result = door(images, variance, CENTRES, KnownNetwork(), bad=images[0] == 1e5 if masked else None)
    assert list(result.failed) == [False, False, masked]
    assert masked or np.isfinite(result.models).all()
    check_same(result, plain, slice(2))


@pytest.mark.parametrize("place", PLACES[-4:])
def test_a_childs_peak_that_is_nowhere_fails_alone(place):
    images, variance = scene()
    result = run(KnownNetwork(), images, variance, [(box_about(CENTRES), [*CENTRES, place])])
    assert list(result.deblendedCatalog["deblend_failed"]) == [False, False, False, True]
    assert result.objectParents["deblend_childFailed"].all()


# -- PSFs -------------------------------------------------------------------------------------


GOOD = AnalyticPsf("gaussian", 0.7, 0.2).computeKernelImage().array


class RawPsf(Psf):
    """Gives any array for a kernel, as other people's PSFs may; another one right of a place."""

    def __init__(self, left, right=None, edge=np.inf):
        self.left, self.right, self.edge = left, right, edge

    def computeKernelImage(self, position=None):
        array = np.asarray(self.left if position is None or position[0] < self.edge else self.right, float)
        return Image(array, xy0=Point2I(-(array.shape[1] // 2), -(array.shape[0] // 2)))


NO_PSFS = {
    "zero": 0 * GOOD,
    "NaN": np.nan * GOOD,
    "one NaN": np.where(GOOD == GOOD.max(), np.nan, GOOD),
    "infinite": np.where(GOOD == GOOD.max(), np.inf, GOOD),
    "negative": -GOOD,
}


@pytest.mark.parametrize("kind", NO_PSFS)
def test_a_psf_image_that_is_none_is_refused_or_flagged(networks, kind):
    images, variance = scene()
    psfs = np.array([NO_PSFS[kind], GOOD])
    for one in (by_blend, by_deblend):
        with pytest.raises(ImageError, match="PSF.*(NaN|finite|positive)"):
            one(images, variance, CENTRES, networks["conditional"], psfs=psfs)
    for network in networks.values():
        result = by_run(images, variance, CENTRES, network, psfs=[RawPsf(psf) for psf in psfs])
        assert result.mismatch.all() and not result.failed.any() and np.isfinite(result.models).all()


def test_psf_images_need_not_sum_to_one(networks, door):
    def run_with(factor):
        psfs = np.array([factor * GOOD, GOOD])
        psfs = [RawPsf(psf) for psf in psfs] if door is by_run else psfs
        return door(images, variance, CENTRES, networks["conditional"], psfs=psfs)

    images, variance = scene()
    plain = run_with(1.0)
    for factor in (7.5, 1e-20, 1e20):
        result = run_with(factor)
        np.testing.assert_allclose(result.models, plain.models, rtol=1e-4, atol=1e-5 * plain.models.max())
        if door is by_run:
            assert not result.mismatch.any()


@pytest.mark.parametrize("kernel", [GOOD[:-1, :-1], GOOD[:, 20:21], np.ones((1, 1)), np.ones((201, 201))])
def test_psf_images_of_odd_shapes_give_finite_models(networks, door, kernel):
    images, variance = scene()
    psfs = [RawPsf(kernel)] * 2 if door is by_run else np.array([kernel, kernel])
    result = door(images, variance, CENTRES, networks["conditional"], psfs=psfs)
    assert np.isfinite(result.models[~result.failed]).all()


def test_a_psf_that_is_none_at_one_source_leaves_every_bit_of_the_others(networks):
    images, variance = scene()
    plain, result = (
        by_run(images, variance, CENTRES, networks["conditional"], psfs=[RawPsf(GOOD, other, X0 + 100)] * 2)
        for other in (GOOD, 0 * GOOD)
    )
    assert list(result.mismatch) == [False, False, True] and not plain.mismatch.any()
    check_same(result, plain, slice(2))


def test_a_kernel_whose_sum_cancels_is_none():
    with pytest.raises(ImageError, match="a positive sum is needed"):
        KernelPsf(GOOD - GOOD.mean())
