# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pixels of other sizes, there and back: Gaussians, of which all is known."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.signal import fftconvolve

pytest.importorskip("galsim")

from lsst.meas.extensions.vae.deblending import DeblendSettings, deblend  # noqa: E402
from lsst.meas.extensions.vae.deblending.matching import match_images  # noqa: E402
from lsst.meas.extensions.vae.deblending.resample import Resampling, scale_ratio  # noqa: E402
from lsst.meas.extensions.vae.errors import ImageError  # noqa: E402
from lsst.meas.extensions.vae.survey import PsfModel  # noqa: E402

RATIOS = (0.5, 0.84, 1.3, 1.9)
SIGMA = 2.6


def gaussian(shape, y, x, sigma, flux=1.0):
    yy, xx = np.indices(shape)
    return flux * np.exp(-0.5 * ((yy - y) ** 2 + (xx - x) ** 2) / sigma**2) / (2 * np.pi * sigma**2)


def network_of(scale=0.2, fwhm=SIGMA * 2.3548 * 0.2, conditional=False, scales=None):
    """Draws a Gaussian of the known width at the crossing in the middle."""

    def answer(images, noise, batch_size=256, psfs=None):
        models = np.zeros((len(images), 2, 64, 64), "f4")
        models[:] = gaussian((64, 64), 31.5, 31.5, SIGMA)
        return models, np.zeros((len(images), 3), "f4"), np.ones((len(images), 3), "f4")

    card = {
        "pixel_scale": scales or [scale] * 2,
        "image_unit": "nJy",
        "psf": [{"kind": "gaussian", "fwhm": fwhm, "beta": None}] * 2,
    }
    return SimpleNamespace(
        bands=("g", "r"),
        stamp_size=64,
        latent_dim=3,
        deblend=answer,
        own_psfs=lambda: np.ones((2, 63, 63)),
        architecture=SimpleNamespace(conditional=conditional, normalisation="noise"),
        package=SimpleNamespace(name="known", bands=("g", "r"), card=card),
    )


def plane(grid, image, bad=None):
    return grid.plane(image, np.ones(image.shape), np.zeros(image.shape, bool) if bad is None else bad)


@pytest.mark.parametrize("ratio", RATIOS)
def test_an_image_is_that_of_the_other_pixels_and_so_are_places_and_fluxes(ratio):
    shape = (round(110 / ratio), round(130 / ratio))
    grid = Resampling(shape, ratio)
    y, x = 41.3 / ratio, 72.9 / ratio
    found, _, lost = plane(grid, gaussian(shape, y, x, SIGMA / ratio, 70.0))
    assert abs(np.subtract(found.shape, (110, 130))).max() <= 1 and not lost[9:-9, 9:-9].any()
    expected = gaussian(found.shape, grid.places(y), grid.places(x), SIGMA, 70.0)
    np.testing.assert_allclose(found, expected, atol=0.005 * expected.max())
    assert found.sum() == pytest.approx(70, rel=1e-3)
    assert grid.own_places(grid.places(y)) == pytest.approx(y)
    assert grid.places(-0.5) == pytest.approx(-0.5)


@pytest.mark.parametrize("ratio", RATIOS)
def test_models_come_back_to_the_images_own_pixels(ratio):
    shape = (round(100 / ratio), round(140 / ratio))
    grid = Resampling(shape, ratio)
    own = np.array([[50.2, 60.9], [4.0, 130.0]]) / ratio
    middle = grid.places(own)
    origins = np.floor(middle).astype(int) + 1 - 32
    models = np.stack(
        [
            [gaussian((64, 64), *(place - origin), SIGMA, flux) for flux in (10.0, 30.0)]
            for place, origin in zip(middle, origins, strict=True)
        ]
    )
    found, places = grid.models(models, origins, own)
    assert found.shape[-1] == grid.size(64) and found.shape[-1] % 2 == 0
    for k in range(2):
        for band, flux in enumerate((10.0, 30.0)):
            expected = gaussian(found.shape[2:], *(own[k] - places[k]), SIGMA / ratio, flux)
            np.testing.assert_allclose(found[k, band], expected, atol=0.008 * expected.max())
            assert found[k, band].sum() == pytest.approx(flux, rel=2e-3)


@pytest.mark.parametrize("ratio", RATIOS)
def test_flux_errors_after_resampling_are_those_of_before(ratio):
    rng, shape = np.random.default_rng(1), (round(400 / ratio), round(400 / ratio))
    grid = Resampling(shape, ratio)
    image, variance, _ = grid.plane(3 * rng.normal(size=shape), np.full(shape, 9.0), np.zeros(shape, bool))
    template = gaussian((25, 25), 12, 12, SIGMA)
    scatter = fftconvolve(image, template, mode="valid").std()
    assert scatter / np.sqrt(variance.mean() * np.square(template).sum()) == pytest.approx(1, abs=0.07)
    # Larger pixels have no noise that only smaller ones could show.
    assert image.std() < 1.02 * np.sqrt(variance.mean())
    # In the image's own pixels, by the same template.
    own = gaussian((51, 51), 25, 25, SIGMA / ratio)
    before = 3 / np.sqrt(np.square(own).sum())
    assert np.sqrt(variance.mean() / np.square(template).sum()) == pytest.approx(before, rel=0.01)


def test_kernels_stay_centred_of_odd_sides_and_unit_sum():
    for ratio in RATIOS:
        kernel = Resampling((50, 50), ratio).kernel(gaussian((41, 41), 20, 20, SIGMA / ratio))
        side = len(kernel)
        assert kernel.shape == (side, side) and side % 2 == 1 and kernel.sum() == pytest.approx(1)
        expected = gaussian(kernel.shape, side // 2, side // 2, SIGMA)
        np.testing.assert_allclose(kernel, expected, atol=0.01 * expected.max())


def test_bad_pixels_take_those_near_them_along_and_no_more():
    bad = np.zeros((60, 80), bool)
    bad[20:30, 40:50] = True
    grid = Resampling(bad.shape, 1.3)
    lost = plane(grid, np.zeros(bad.shape), bad)[2] > 0.05
    y, x = (np.round(grid.places(np.array(place))).astype(int) for place in ((20, 30), (40, 50)))
    assert lost[slice(*y), slice(*x)].all()
    assert not lost[10:-10, 10 : x[0] - 8].any() and not lost[y[1] + 8 : -10, 10:-10].any()


# -- what is beyond --------------------------------------------------------------------------


def test_the_ratio_of_scales_is_one_within_the_tolerance():
    network = network_of()
    assert scale_ratio(0.2019, network) == 1.0 and scale_ratio(0.26, network) == pytest.approx(1.3)
    assert scale_ratio(0.26, network, tolerance=0.5) == 1.0
    several = network_of(scales=[0.2, 0.1])
    for scale in (0.2, 0.1):
        with pytest.raises(ImageError, match=r"bands of model 'known' have 0.1, 0.2: take a model"):
            scale_ratio(scale, several)


@pytest.mark.parametrize("scale", [0.09, 0.41, float("nan"), float("inf"), 0.0, -0.2])
def test_pixels_too_far_off_are_refused_with_the_values_and_the_remedy(scale):
    with pytest.raises(ImageError, match=r"arcsec a pixel, model 'known' takes 0.2 .* 0.1 to 0.4: resample"):
        scale_ratio(scale, network_of())


# -- both together, and the way back ---------------------------------------------------------


def matched(images, ratio=1.0, bad=None, sigma=SIGMA, **kwargs):
    kernel = PsfModel("gaussian", sigma * 2.3548).kernel(1.0, 41)
    good = np.ones(images.shape, bool) if bad is None else ~bad
    told = lambda y, x: [kernel, None]  # noqa: E731
    return match_images(images, np.ones(images.shape), good, network_of(), told, ratio=ratio, **kwargs)


def test_images_that_suit_are_taken_as_they_are():
    images = np.zeros((2, 50, 60), "f4")
    same = matched(images)
    assert same.images is images and not same.resampled and not same.homogenised(10, 10)
    centres, result = np.zeros((3, 2)), object()
    assert same.places(centres) is centres and same.restored(result, centres) is result


def test_a_sharp_psf_is_widened_in_its_own_band_only_or_not_at_all_if_so_told(caplog):
    images = np.stack([gaussian((90, 100), 40.5, 50.5, 1.8, 100.0)] * 2)
    with caplog.at_level(logging.INFO):
        wide = matched(images, sigma=1.8, log=logging.getLogger("test"))
    assert "The PSF in g is sharper than model 'known' takes" in caplog.text
    expected = gaussian((90, 100), 40.5, 50.5, SIGMA, 100.0)
    np.testing.assert_allclose(wide.images[0], expected, atol=0.01 * expected.max())
    np.testing.assert_array_equal(wide.images[1], images[1].astype("f4"))
    assert wide.homogenised(10, 10) and wide.psfs(40, 50)[1] is None
    assert not matched(images, sigma=1.8, homogenise=False).homogenised(10, 10)
    assert not matched(images, sigma=0.95 * SIGMA).homogenised(10, 10)


def test_bad_pixels_do_no_harm_beyond_themselves():
    images = np.stack([gaussian((90, 100), 40.5, 50.5, 1.8, 100.0)] * 2).astype("f4")
    bad = np.zeros(images.shape, bool)
    bad[:, 42:46, 52:56] = True
    spoilt = np.where(bad, np.array([np.nan, 1e6], "f4")[:, None, None], images)
    for ratio in (1.0, 1.3):
        clean, found = (matched(x, ratio, bad, sigma=1.8) for x in (images, spoilt))
        np.testing.assert_array_equal(found.good, clean.good)
        np.testing.assert_array_equal(found.images[found.good], clean.images[clean.good])
        assert np.isfinite(found.images[found.good]).all() and not found.good.all()
        whole = matched(images, ratio, sigma=1.8)
        away = abs(found.images - whole.images)[found.good]
        assert away.max() < 0.05 * whole.images.max()


def test_pixels_that_got_their_light_from_bad_ones_are_left_out():
    images = np.zeros((2, 90, 100), "f4")
    bad = np.zeros(images.shape, bool)
    bad[:, 42:46, 52:56] = True
    wide = matched(images, 1.0, bad, sigma=1.8)
    assert not wide.good[0, 41:47, 51:57].any() and wide.good[0, 36:38, 52:56].all()
    np.testing.assert_array_equal(wide.good[1], ~bad[1])


def test_where_there_is_no_psf_the_kernel_is_that_of_the_nearest_place_that_has_one():
    images = np.zeros((2, 60, 1500))
    stars = [(30.0, x) for x in (100.0, 700.0, 1400.0)]
    sigma = lambda x: 1.6 if x < 900 else 2.0  # noqa: E731
    for y, x in stars:
        images[0] += gaussian(images.shape[1:], y, x, sigma(x), 100.0)

    def told(y, x):
        return [None if x > 1499 - 2 or x < 2 else gaussian((41, 41), 20, 20, sigma(x)), None]

    good = np.ones(images.shape, bool)
    wide = match_images(images, np.ones(images.shape), good, network_of(), told)
    expected = sum(gaussian(images.shape[1:], y, x, SIGMA, 100.0) for y, x in stars)
    for _, x in (stars[0], stars[2]):
        part = np.s_[:, int(x) - 30 : int(x) + 30]
        np.testing.assert_allclose(wide.images[0][part], expected[part], atol=0.03 * expected.max())


@pytest.mark.parametrize("ratio", [0.5, 1.5])
def test_a_cutout_of_other_pixels_is_deblended_in_its_own_terms(ratio, caplog):
    shape, centres = (round(160 / ratio), round(180 / ratio)), []
    images = np.zeros((2, *shape))
    for y, x, flux in ((59.5, 71.5, 400.0), (74.5, 77.5, 250.0)):
        # At crossings of the model's pixels, where the network has its galaxies.
        centres.append(((y + 0.5) / ratio - 0.5, (x + 0.5) / ratio - 0.5))
        images += gaussian(shape, *centres[-1], SIGMA / ratio, flux) * np.array([1, 2])[:, None, None]
    psfs = [PsfModel("gaussian", SIGMA * 2.3548 * 0.2).kernel(0.2 * ratio, 41)] * 2
    variance = np.full(images.shape, 0.01)
    settings = DeblendSettings(prior_width=0)
    result = deblend(
        images,
        variance,
        psfs,
        centres,
        bands="gr",
        model=network_of(),
        pixel_scale=0.2 * ratio,
        settings=settings,
    )
    assert f"Pixels have {0.2 * ratio:.4g} arcsec, model 'known' takes 0.2" in caplog.text
    np.testing.assert_allclose(result.fluxes, [[400, 800], [250, 500]], rtol=0.01)
    np.testing.assert_allclose(result.fluxes, result.models.sum(axis=(2, 3)), rtol=1e-5)
    np.testing.assert_allclose(result.scene(images.shape), images, atol=0.01 * images.max())
    np.testing.assert_allclose(result.noise, 0.1, rtol=0.01)


def test_a_cutout_of_a_sharper_psf_is_homogenised_and_of_a_wider_one_told(caplog):
    centres = [(40.5, 50.5)]
    for sigma, word in ((1.8, ""), (4.0, "The PSF differs by 5")):
        images = np.stack([gaussian((90, 100), *centres[0], sigma, 100.0)] * 2)
        psfs = [gaussian((40, 40), 20, 20, sigma)] * 2
        settings = DeblendSettings(prior_width=0)
        told = images, np.ones(images.shape), psfs, centres
        result = deblend(*told, bands="gr", model=network_of(), settings=settings)
        assert (word in caplog.text) and (bool(word) or "differs" not in caplog.text)
        if sigma < SIGMA:
            np.testing.assert_allclose(result.fluxes, 100, rtol=0.01)
            np.testing.assert_allclose(result.scene(images.shape), images, atol=0.04 * images.max())
