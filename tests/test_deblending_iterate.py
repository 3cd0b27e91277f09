# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Detection and deblending in turns, on fields whose sources are known."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special
import scipy.stats

from lsst.meas.extensions.vae.deblending import DeblendSettings, deblend_blend, iterate
from lsst.meas.extensions.vae.deblending.iterate import IterationSettings, deblend_field
from lsst.meas.extensions.vae.errors import ImageError
from lsst.meas.extensions.vae.simulation.detection import combined_threshold

SIGMA, PSF_SIGMA = 2.5, 1.8
FREE = DeblendSettings(prior_width=0)


def gaussian(shape, y, x, sigma=SIGMA):
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-0.5 * ((yy - y) ** 2 + (xx - x) ** 2) / sigma**2) / (2 * np.pi * sigma**2)


class KnownNetwork:
    """Draws a centred Gaussian, whatever it sees; joint fluxes do the rest."""

    stamp_size, latent_dim = 64, 3

    def __init__(self, bands="gr"):
        self.bands = tuple(bands)
        self.package = SimpleNamespace(name="known", card={"noise": [1.0] * len(bands)})

    def decode(self, latents, noise, batch_size=256, psfs=None):
        models = np.broadcast_to(
            100 * gaussian((64, 64), 31.5, 31.5), (len(latents), len(self.bands), 64, 64)
        )
        return models.astype("f4")

    def deblend(self, images, noise, batch_size=256, psfs=None):
        latents = np.zeros((len(images), 3), "f4")
        return self.decode(latents, noise), latents, np.ones((len(images), 3), "f4")


NETWORK = KnownNetwork()


def psfs(n_bands=2):
    return np.repeat(gaussian((25, 25), 12, 12, PSF_SIGMA)[None], n_bands, axis=0)


def scene(sources, shape=(150, 160), seed=0, sigma=SIGMA):
    """Sources (y, x, flux in both bands or in each) in unit noise."""
    cube = np.random.default_rng(seed).standard_normal((2, *shape))
    for y, x, flux in sources:
        cube += np.broadcast_to(flux, 2)[:, None, None] * gaussian(shape, y, x, sigma)
    return cube.astype("f4"), np.ones((2, *shape), "f4")


def run(cube, variance, network=NETWORK, deblend_settings=FREE, **given):
    settings = {k: given.pop(k) for k in list(given) if k in vars(IterationSettings())}
    given.setdefault("psfs", psfs(len(cube)))
    settings = IterationSettings(**settings)
    return deblend_field(
        cube, variance, network, settings=settings, deblend_settings=deblend_settings, **given
    )


PAIR = [(70.5, 60.5, 4000.0), (70.5, 66.5, 600.0)]
APART = [(30.5, 40.5, 2000.0), (70.5, 100.5, 3000.0), (120.5, 50.5, 1500.0)]


def expected_peaks(n_pixels, n_bands, threshold):
    """Mean number of peaks of noise: Euler characteristic of a chi-bar-squared field of smooth Gaussian ones
    (Worsley 1994; Taylor & Worsley 2013).
    """
    t, k = combined_threshold(threshold, n_bands) ** 2, np.arange(1, n_bands + 1)
    weights = scipy.stats.binom.pmf(k, n_bands, 0.5)
    roughness = 1 / (2 * PSF_SIGMA**2)
    density = (
        t ** (k / 2 - 1) * np.exp(-t / 2) * (t - k + 1) / (2 ** (k / 2 - 1) * scipy.special.gamma(k / 2))
    )
    return n_pixels * roughness / (2 * np.pi) * float(weights @ density)


@pytest.mark.parametrize("n_bands", [1, 6])
def test_noise_makes_as_many_false_peaks_as_theory_says(n_bands):
    network = KnownNetwork("ugrizy"[:n_bands])
    found = 0
    for seed in range(4):
        noise = np.random.default_rng(seed).standard_normal((n_bands, 350, 350)).astype("f4")
        noise, variance = 3 * noise, np.full_like(noise, 9)
        found += len(run(noise, variance, network, threshold=3.5, max_passes=1).centres)
    expected = 4 * expected_peaks(350**2, n_bands, 3.5)
    assert expected == pytest.approx(37 if n_bands == 1 else 44, abs=0.5)
    assert abs(found - expected) < 2.6 * np.sqrt(expected)


def test_a_field_without_sources_gives_an_empty_result():
    result = run(*scene([]))
    assert result.centres.shape == (0, 2) and result.detection_pass.shape == result.snr.shape == (0,)
    assert result.deblended.models.shape == (0, 2, 64, 64) and result.deblended.fluxes.shape == (0, 2)
    assert (result.n_passes, result.stopped) == (1, "nothing new")


def test_sources_that_stand_apart_are_all_of_the_first_pass():
    result = run(*scene(APART))
    assert list(result.detection_pass) == [1, 1, 1]
    assert (result.n_passes, result.stopped) == (2, "nothing new")
    order = np.argsort(result.centres[:, 0])
    np.testing.assert_allclose(result.centres[order], np.array(APART)[:, :2], atol=0.3)
    np.testing.assert_allclose(result.deblended.fluxes[order, 0], np.array(APART)[:, 2], rtol=0.06)


@pytest.mark.parametrize("seed", range(4))
def test_the_second_pass_finds_the_galaxy_that_the_first_one_hides(seed):
    result = run(*scene(PAIR, seed=seed))
    assert list(result.detection_pass) == [1, 2]
    np.testing.assert_allclose(result.centres, np.array(PAIR)[:, :2], atol=0.5)
    # Solved together again: alone, the first would have taken light of the second.
    np.testing.assert_allclose(result.deblended.fluxes[0], 4000, rtol=0.03)
    np.testing.assert_allclose(result.deblended.fluxes[1], 600, rtol=0.15)
    assert len(run(*scene(PAIR, seed=seed), max_passes=1).centres) == 1


def test_a_galaxy_hidden_in_one_band_alone_is_found():
    hidden = [(70.5, 60.5, [4000.0, 4000.0]), (70.5, 66.5, [0.0, 900.0])]
    result = run(*scene(hidden))
    assert list(result.detection_pass) == [1, 2]
    np.testing.assert_allclose(result.centres[1], [70.5, 66.5], atol=0.5)


def test_residuals_of_imperfect_models_are_no_sources():
    # The light is wider than the models, so that a ring is left.
    cube, variance = scene([(70.5, 60.5, 20_000.0)], sigma=1.15 * SIGMA)
    assert list(run(cube, variance).detection_pass) == [1]
    assert len(run(cube, variance, model_error=0.0).centres) > 2
    # Far from any other light, a source that passes the threshold still counts.
    far = scene([(70.5, 130.5, 150.0)])[0] - scene([])[0]
    assert len(run(cube + far, variance).centres) == 2


def test_no_source_is_added_where_there_is_one():
    cube, variance = scene(PAIR)
    fwhm = 2.3548 * PSF_SIGMA
    assert len(run(cube, variance, min_separation=5.5 / fwhm).centres) == 2
    assert len(run(cube, variance, min_separation=6.5 / fwhm).centres) == 1


def test_a_source_that_cannot_be_deblended_is_found_once():
    cube, variance = scene([(70.5, 60.5, 2000.0)])
    bad = np.zeros(cube.shape[1:], bool)
    bad[67:73, 57:63] = True  # its core, not its wings
    result = run(cube, variance, bad=bad, deblend_settings=DeblendSettings(min_core_coverage=0.9))
    assert result.deblended.failed.any() and (result.detection_pass == 1).all()


def test_new_sources_keep_away_from_the_edge():
    cube, variance = scene([(70.5, 8.5, 4000.0), (70.5, 2.5, 600.0)])
    assert len(run(cube, variance).centres) == 1
    assert len(run(cube, variance, min_edge_distance=0.0).centres) == 2


def test_passes_end_at_their_maximum():
    result = run(*scene(PAIR), max_passes=2)
    assert (result.n_passes, result.stopped) == (2, "max_passes")
    assert len(result.centres) == 2 == len(result.deblended.failed)
    result = run(*scene(PAIR), max_passes=3)
    assert (result.n_passes, result.stopped) == (3, "nothing new")


@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e6])
def test_masked_pixels_are_no_sources_and_change_no_others(junk):
    cube, variance = scene(APART)
    plain = run(cube, variance)
    bad = np.zeros(cube.shape, bool)
    bad[:, 10:14, 120:150] = bad[1, 140:, :] = True
    cube[bad] = junk
    variance[:, 90:93, 20:23] = 0.0
    result = run(cube, variance, bad=bad if junk == 1e6 else None)
    np.testing.assert_allclose(result.centres, plain.centres, atol=1e-6)
    np.testing.assert_allclose(result.deblended.fluxes, plain.deblended.fluxes, rtol=1e-6)


def test_images_without_any_good_pixel_have_no_sources():
    cube, variance = scene(APART)
    result = run(np.full_like(cube, np.nan), variance)
    assert len(result.centres) == 0 and result.stopped == "nothing new"


def test_a_band_without_data_does_not_raise_the_threshold():
    cube, variance = scene(PAIR)
    alone = run(cube[:1], variance[:1], KnownNetwork("g"))
    cube[1] = np.nan
    broken = psfs()
    broken[1] = np.nan
    result = run(cube, variance, psfs=broken)
    np.testing.assert_array_equal(result.centres, alone.centres)
    np.testing.assert_array_equal(result.snr, alone.snr)
    assert result.deblended.missing_bands[:, 1].all()


def test_an_offset_of_the_coordinates_moves_the_sources_and_nothing_else():
    cube, variance = scene(PAIR + APART[1:])
    whole = run(cube, variance)
    cut = run(cube[:, 13:, 8:], variance[:, 13:, 8:])
    np.testing.assert_allclose(cut.centres, whole.centres - [13, 8], atol=1e-6)
    np.testing.assert_array_equal(cut.detection_pass, whole.detection_pass)
    np.testing.assert_allclose(cut.deblended.fluxes, whole.deblended.fluxes, rtol=1e-5)


def test_a_function_of_psfs_is_asked_for_the_middle_and_for_each_source():
    asked = []

    def varying(centres):
        asked.append(np.array(centres))
        return np.repeat(psfs()[None], len(centres), axis=0)

    cube, variance = scene(APART)
    result = run(cube, variance, psfs=varying)
    np.testing.assert_array_equal(asked[0], [[74.5, 79.5]])
    np.testing.assert_array_equal(asked[1], result.centres)
    np.testing.assert_array_equal(result.centres, run(cube, variance).centres)


def test_psf_images_of_even_sides_serve_as_those_of_odd_ones():
    even = np.zeros((2, 26, 26))
    even[:, 1:, 1:] = psfs()
    cube, variance = scene(PAIR)
    np.testing.assert_allclose(run(cube, variance, psfs=even).centres, run(cube, variance).centres, atol=1e-6)


def test_a_saturated_plateau_is_one_source():
    cube, variance = scene([(70.5, 60.5, 100_000.0)])
    saturated = cube > 500
    cube[saturated] = 500 + 40 * np.random.default_rng(1).standard_normal(saturated.sum())
    assert len(run(cube, variance, saturated=saturated, max_passes=1).centres) == 1
    assert len(run(cube, variance, saturated=saturated.any(axis=0), max_passes=1).centres) == 1


def test_refinement_comes_once_after_the_last_pass(monkeypatch):
    solved = []

    def recorded(images, variance, centres, network, *, settings, **given):
        solved.append((len(centres), settings.refine))
        plain = dataclasses.replace(settings, refine=False)
        return deblend_blend(images, variance, centres, network, settings=plain, **given)

    monkeypatch.setattr(iterate, "deblend_blend", recorded)
    run(*scene(PAIR), deblend_settings=DeblendSettings(prior_width=0, refine=True))
    assert solved == [(0, False), (1, False), (2, False), (2, True)]
    solved.clear()
    run(*scene(PAIR))
    assert solved == [(0, False), (1, False), (2, False)]


def test_no_source_is_encoded_twice_and_all_are_as_if_deblended_at_once():
    class Counting(KnownNetwork):
        encoded = 0

        def deblend(self, images, *args):
            Counting.encoded += len(images)
            return super().deblend(images, *args)

    cube, variance = scene(PAIR)
    found = run(cube, variance, Counting())
    assert found.detection_pass.tolist() == [1, 2] and Counting.encoded == 2
    at_once = deblend_blend(cube, variance, found.centres, NETWORK, psfs=psfs(), settings=FREE)
    for field in dataclasses.fields(at_once):
        np.testing.assert_array_equal(getattr(found.deblended, field.name), getattr(at_once, field.name))


def test_known_sources_that_cannot_be_gone_on_from_are_refused():
    cube, variance = scene(PAIR)
    places = np.array([(70.5, 60.5), (70.5, 66.5)])
    known = deblend_blend(cube, variance, places, NETWORK, settings=FREE)
    with pytest.raises(ImageError, match="2 unrefined sources are known: expected the first of the 1"):
        deblend_blend(cube, variance, places[:1], NETWORK, settings=FREE, known=known)
    known.iterations = np.ones(2, int)
    with pytest.raises(ImageError, match="2 refined sources are known"):
        deblend_blend(cube, variance, places, NETWORK, settings=FREE, known=known)


def test_progress_is_told_of_every_pass():
    told = []
    run(*scene(PAIR), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 1), (2, 2)]


@pytest.mark.parametrize(
    "given",
    [
        {"threshold": 0.0},
        {"model_error": -1.0},
        {"min_separation": np.nan},
        {"min_edge_distance": np.inf},
        {"max_passes": 0},
    ],
)
def test_settings_out_of_range_are_refused_by_name(given):
    (name,) = given
    with pytest.raises(ImageError, match=name):
        IterationSettings(**given)


def test_wrong_bands_and_psfs_are_refused():
    cube, variance = scene([])
    with pytest.raises(ImageError, match="2 bands, the model 'known' takes 3"):
        run(cube, variance, KnownNetwork("gri"))
    with pytest.raises(ImageError, match="PSF images have shape"):
        run(cube, variance, psfs=psfs()[0])
    with pytest.raises(ImageError, match="PSF is not finite"):
        run(cube, variance, psfs=0 * psfs())


# With the shipped model


@pytest.fixture(scope="module")
def shipped():
    pytest.importorskip("keras")
    from lsst.meas.extensions.vae.network.model import Network
    from lsst.meas.extensions.vae.network.shipped import load_package

    return Network(load_package("lsst10yr-ugrizy"))


@pytest.mark.parametrize("seed", range(3))
def test_the_shipped_model_reveals_a_galaxy_at_1_2_arcsec(shipped, seed):
    import galsim

    from lsst.meas.extensions.vae.survey import get_survey

    survey = get_survey("lsst10yr", shipped.bands)
    places = np.array([(70.5, 60.5), (70.5, 66.5)])
    rng, images, variance = np.random.default_rng(seed), [], []
    for band in survey.bands:
        stamp = galsim.ImageD(140, 140, scale=0.2)
        for (y, x), magnitude, radius in zip(places, (22.3, 25.0), (0.5, 0.2)):
            flux = 10 ** (-0.4 * (magnitude - 31.4))
            profile = galsim.Convolve(galsim.Exponential(half_light_radius=radius), band.psf.profile())
            profile.withFlux(flux).drawImage(stamp, center=galsim.PositionD(x + 1, y + 1), add_to_image=True)
        noise2 = band.sky_level / band.electrons_per_unit**2
        images.append(stamp.array + np.sqrt(noise2) * rng.standard_normal(stamp.array.shape))
        variance.append(np.full(stamp.array.shape, noise2))
    result = deblend_field(np.array(images), np.array(variance), shipped)
    assert list(result.detection_pass) == [1, 2] and result.stopped == "nothing new"
    np.testing.assert_allclose(result.centres, places, atol=1.2)
    # One pass takes some of the faint one's light for the bright one's, and none away.
    fluxes = result.deblended.fluxes[:, survey.band_names.index("r")]
    truth = 10 ** (-0.4 * (np.array([22.3, 25.0]) - 31.4))
    np.testing.assert_allclose(fluxes.sum(), truth.sum(), rtol=0.05)
    np.testing.assert_allclose(fluxes[1], truth[1], rtol=0.7)
