# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Noise: its mean, variance, skewness and correlation against calculations by hand."""

import numpy as np
import pytest
from scipy import stats

from lsst.meas.extensions.vae.errors import VaeError
from lsst.meas.extensions.vae.simulation.noise import (
    NoiseModel,
    QuickNormals,
    add_noise,
    expected_variance,
    unit_noise,
)
from lsst.meas.extensions.vae.survey import get_survey

# Two bands: 900 and 250.5 electrons of sky a pixel, 3 and 0.5 electrons an image unit.
SKY, UNIT = np.array([900.0, 250.5]), np.array([3.0, 0.5])


def rng(seed=0):
    return np.random.default_rng(seed)


def flat(value, side=400):
    return np.full((2, side, side), value, np.float32)


@pytest.mark.parametrize(
    "kind, variance",
    # By hand: (source 100 units + sky) electrons over the unit squared.
    [("poisson", [1200 / 9, 300.5 / 0.25]), ("normal", [1200 / 9, 300.5 / 0.25]), ("sky", [100.0, 1002.0])],
)
def test_mean_and_variance_are_those_of_source_and_sky(kind, variance):
    image = flat(100.0)
    noisy = add_noise(image, SKY, UNIT, rng(), kind)
    assert noisy.dtype == np.float32
    np.testing.assert_allclose(noisy.var(axis=(1, 2), dtype=np.float64), variance, rtol=0.015)
    # The sky, a fraction of an electron included, is subtracted: nothing but the source is left.
    error = np.sqrt(np.array(variance) / image[0].size)
    assert (np.abs(noisy.mean(axis=(1, 2), dtype=np.float64) - 100) < 4 * error).all()
    np.testing.assert_allclose(expected_variance(image, SKY, UNIT, kind)[:, 0, 0], variance)


def test_the_faint_u_sky_of_the_paper_is_skewed_by_poisson_noise_and_not_by_normal_noise():
    band = get_survey("arcelin2020", ("u", "r")).bands[0]
    assert band.sky_level == pytest.approx(884, rel=1e-3)
    image = np.zeros((1, 1500, 1500), np.float32)
    skewness = {
        kind: stats.skew(add_noise(image, [band.sky_level], [band.electrons_per_unit], rng(), kind).ravel())
        for kind in ("poisson", "normal")
    }
    # 1 / sqrt(884), with an error of sqrt(6 / 1500^2) = 0.0016.
    assert skewness["poisson"] == pytest.approx(0.0336, abs=0.006)
    assert abs(skewness["normal"]) < 0.006


@pytest.mark.parametrize("mean", [0.0, 0.3, 4.0, 9.9, 10.1, 60.0, 900.25, 2e5])
def test_poisson_counts_are_the_quantiles_of_poissons_law(mean):
    # As source alone, as sky alone, and half and half.
    for source in {0.0, mean, mean / 2}:
        image = np.full((1, 100, 200), source, np.float32)
        counts = add_noise(image, [mean - source], [1.0], rng(1)).astype(np.float64) + mean - source
        z = rng(1).standard_normal(image.shape, dtype=np.float32)
        expected = stats.poisson.ppf(stats.norm.cdf(z.astype(np.float64)), mean)
        np.testing.assert_allclose(counts, np.rint(counts), atol=0.02)
        off = np.abs(np.rint(counts) - expected)
        assert off.max() <= 1
        # Single precision moves a few counts of very bright sources by one.
        assert np.mean(off > 0) < 2e-3 + 5e-8 * mean


def test_one_seed_gives_nearly_the_same_poisson_noise_to_scenes_that_differ_little():
    image = 1000 * np.exp(-(np.linspace(-3, 3, 100) ** 2))[None, :, None] * np.ones((2, 1, 100))
    image = image.astype(np.float32)
    one, other, another = (
        add_noise(scene, SKY, UNIT, rng(seed)) - scene
        for scene, seed in ((image, 5), (1.01 * image, 5), (image, 6))
    )
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.999
    assert abs(np.corrcoef(one.ravel(), another.ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("correlation", [0.1, 0.3, 0.6])
def test_neighbours_are_correlated_as_asked_and_the_variance_stays(correlation):
    noise = unit_noise((3, 500, 500), rng(), correlation)
    assert noise.std() == pytest.approx(1, abs=0.005)
    a2 = (1 - np.sqrt(1 - 2 * correlation**2)) / 4
    for step, expected in ((1, correlation), (2, a2), (3, 0.0)):
        for pair in ((noise[..., step:], noise[..., :-step]), (noise[:, step:], noise[:, :-step])):
            assert np.mean(pair[0] * pair[1]) == pytest.approx(expected, abs=0.006)
    diagonal = np.mean(noise[:, 1:, 1:] * noise[:, :-1, :-1])
    assert diagonal == pytest.approx(correlation**2, abs=0.006)


def test_correlated_noise_of_an_image_keeps_the_variance_of_each_band():
    noisy = add_noise(flat(0.0), SKY, UNIT, rng(), "normal", 0.5)
    np.testing.assert_allclose(noisy.var(axis=(1, 2)), SKY / UNIT**2, rtol=0.02)


@pytest.mark.parametrize("kind", ["poisson", "normal", "sky"])
def test_the_mean_of_noisy_images_is_the_noiseless_one_where_that_is_negative_too(kind):
    # Noise of real galaxies' images: down to a few sigma of the sky, and some light, so small a mean counts.
    sigma = (np.sqrt(SKY) / UNIT)[:, None, None]
    image = (sigma * rng(9).normal(0.05, 1.0, (2, 400, 400))).astype(np.float32)
    assert (image < -2 * sigma).any()
    variance = expected_variance(image, SKY, UNIT, kind)
    expected = (SKY[:, None, None] + (0 if kind == "sky" else 1) * image * UNIT[:, None, None]) / (
        UNIT[:, None, None] ** 2
    )
    np.testing.assert_allclose(variance, expected, rtol=1e-6)
    z = (add_noise(image, SKY, UNIT, rng(3), kind) - image.astype(np.float64)) / np.sqrt(variance)
    negative = image < 0
    for pixels in (negative, ~negative, negative | ~negative):
        for band in (0, 1):
            values = z[band][pixels[band]]
            assert abs(values.mean()) < 4 / np.sqrt(values.size)
            assert values.std() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("kind", ["poisson", "normal", "sky"])
def test_there_is_never_less_than_no_light_at_all(kind):
    # Less than the sky's negative: 900 / 3 and 250.5 / 0.5 units.
    nothing, noisy = flat(-1000.0, 100), add_noise(flat(-1000.0, 100), SKY, UNIT, rng(), kind)
    variance = expected_variance(nothing, SKY, UNIT, kind)[:, 0, 0]
    np.testing.assert_allclose(variance, SKY / UNIT**2 if kind == "sky" else 0.0)
    np.testing.assert_allclose(
        noisy.mean(axis=(1, 2), dtype=np.float64), -SKY / UNIT, atol=4 * variance.max() ** 0.5 / 100
    )
    np.testing.assert_allclose(noisy.var(axis=(1, 2), dtype=np.float64), variance, rtol=0.06, atol=1e-6)
    # No NaN from rounding, whatever the numbers of the band.
    sky, unit = rng(1).uniform(100, 1e4, 2000), rng(2).uniform(0.1, 10, 2000)
    noisy = add_noise(np.full((2000, 2, 2), -1e6, np.float32), sky, unit, rng(), kind)
    assert np.isfinite(noisy).all()


@pytest.mark.parametrize("kind", ["poisson", "normal", "sky"])
def test_a_model_draws_into_an_array_what_it_returns_without_one(kind):
    image, out = flat(3.0, 20), np.full((2, 20, 20), np.nan, np.float32)
    model = NoiseModel(SKY, UNIT, kind)
    returned = model.add(image, rng(), out=out)
    assert returned is out
    np.testing.assert_array_equal(out, model.add(image, rng()))
    np.testing.assert_array_equal(image, flat(3.0, 20))


def test_quick_normals_are_normal_and_independent():
    z = QuickNormals(rng()).standard_normal((2, 500, 1001)).ravel().astype(np.float64)
    assert stats.kstest(z, "norm").pvalue > 0.01
    assert stats.skew(z) == pytest.approx(0, abs=0.01)
    assert stats.kurtosis(z) == pytest.approx(0, abs=0.02)
    half = z.size // 2
    # Both halves come of the same uniform deviates.
    for power in (1, 2):
        assert abs(np.corrcoef(z[:half] ** power, z[half:] ** power)[0, 1]) < 0.006
    assert QuickNormals(rng()).standard_normal((3, 3)).shape == (3, 3)


def test_noise_that_cannot_be_is_refused_with_what_to_do():
    with pytest.raises(VaeError, match="'pink'.*poisson, normal, sky"):
        NoiseModel(SKY, UNIT, "pink")
    with pytest.raises(VaeError, match="independent.*take noise 'normal'"):
        add_noise(flat(0.0, 4), SKY, UNIT, rng(), "poisson", 0.2)
    for correlation in (-0.1, 0.7, float("nan")):
        with pytest.raises(VaeError, match="correlation"):
            unit_noise((4, 4), rng(), correlation)
