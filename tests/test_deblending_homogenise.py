# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sharper PSFs are widened to a network's, and models sharpened again: Gaussians, of which all is known."""

import numpy as np
import pytest
from scipy.signal import fftconvolve

from lsst.meas.extensions.vae.deblending.homogenise import (
    MatchingKernels,
    matching_kernel,
    node_places,
    noise_correlation,
)
from lsst.meas.extensions.vae.deblending.psf_range import psf_shape

NARROW, WIDE = 1.6, 2.2


def gaussian(shape, y, x, sigma, flux=1.0, q=1.0):
    yy, xx = np.indices(shape)
    radius = (yy - y) ** 2 + ((xx - x) / q) ** 2
    return flux * np.exp(-0.5 * radius / sigma**2) / (2 * np.pi * sigma**2 * q)


def psf(sigma, size=41):
    return gaussian((size, size), size // 2, size // 2, sigma)


def one_kernel(narrow=NARROW, wide=WIDE):
    kernel = matching_kernel(psf(narrow), psf(wide))
    return MatchingKernels([kernel], [noise_correlation(kernel, psf(wide))], np.zeros(1), np.zeros(1))


def widened(kernels, image):
    return kernels.plane(image, np.ones(image.shape), np.zeros(image.shape, bool))


def test_a_kernel_takes_the_narrow_psf_to_the_wide_one_and_keeps_flux():
    kernel = matching_kernel(psf(NARROW), 7 * psf(WIDE))
    assert kernel.shape == (63, 63) and kernel.sum() == pytest.approx(1)
    found = fftconvolve(psf(NARROW, 63), kernel, mode="same")
    np.testing.assert_allclose(found, psf(WIDE, 63), atol=0.005 * psf(WIDE).max())


def test_no_kernel_deconvolves_and_noise_of_psf_images_is_not_blown_up():
    rng = np.random.default_rng(1)
    noisy = psf(NARROW) + rng.normal(0, 1e-4, (41, 41))
    elongated = gaussian((41, 41), 20, 20, 1.2, q=2.5)
    for narrow, wide in ((WIDE, NARROW), (NARROW, WIDE)):
        for image in (psf(narrow), noisy if narrow == NARROW else elongated):
            gain = abs(np.fft.fft2(matching_kernel(image, psf(wide))))
            assert gain.max() < 1.02
    clean, found = (matching_kernel(image, psf(WIDE)) for image in (psf(NARROW), noisy))
    assert abs(found - clean).max() < 0.03 * clean.max()


def test_stars_of_an_image_get_the_wide_psf_and_models_get_the_narrow_one_again():
    kernels = one_kernel()
    stars = [(50.2, 60.7, 300.0), (57.0, 66.1, 100.0)]
    image = sum(gaussian((120, 130), y, x, NARROW, flux) for y, x, flux in stars)
    expected = sum(gaussian((120, 130), y, x, WIDE, flux) for y, x, flux in stars)
    found = widened(kernels, image)
    np.testing.assert_allclose(found.image, expected, atol=0.005 * expected.max())


@pytest.mark.parametrize("size, tolerance", [(0.0, 0.04), (0.7, 0.012)])
def test_models_get_the_narrow_psf_again_stars_nearly_and_galaxies_quite(size, tolerance):
    after, before = (sigma * np.hypot(1, size * NARROW / sigma) for sigma in (WIDE, NARROW))
    model = gaussian((64, 64), 31.8, 31.2, after, 50.0)
    back = one_kernel().sharpened(model, 10.0, 20.0)
    truth = gaussian((64, 64), 31.8, 31.2, before, 50.0)
    np.testing.assert_allclose(back, truth, atol=tolerance * truth.max())
    assert back.sum() == pytest.approx(model.sum(), rel=1e-5)


def test_a_psf_that_varies_is_the_wide_one_everywhere():
    shape = (60, 1120)
    nodes = [node_places(side) for side in shape]
    assert len(nodes[0]) == 2 and len(nodes[1]) == 4 and np.diff(nodes[1]).max() <= 512
    sigma = lambda x: 1.4 + 0.5 * x / shape[1]  # noqa: E731
    made = [matching_kernel(psf(sigma(x)), psf(WIDE)) for _ in nodes[0] for x in nodes[1]]
    kernels = MatchingKernels(made, [noise_correlation(k, psf(WIDE)) for k in made], *nodes)
    stars = [(30.3, x, 100.0) for x in (120.4, 400.0, 666.3, 980.6)]
    image = sum(gaussian(shape, y, x, sigma(x), flux) for y, x, flux in stars)
    expected = sum(gaussian(shape, y, x, WIDE, flux) for y, x, flux in stars)
    np.testing.assert_allclose(widened(kernels, image).image, expected, atol=0.02 * expected.max())
    for y, x, _ in stars:
        told = kernels.psf(psf(sigma(x)), y, x)
        np.testing.assert_allclose(told, psf(WIDE), atol=0.02 * psf(WIDE).max())
        assert told.sum() == pytest.approx(1)


def test_where_the_psf_is_wide_enough_nothing_changes():
    nodes = np.zeros(1), np.array([0.0, 255.0])
    kernel = matching_kernel(psf(NARROW), psf(WIDE))
    kernels = MatchingKernels([kernel, None], [noise_correlation(kernel, psf(WIDE)), 1.0], *nodes)
    image = np.random.default_rng(0).normal(size=(90, 256))
    found = widened(kernels, image)
    np.testing.assert_allclose(found.image[1:-1, -1], image[1:-1, -1], rtol=1e-6)
    np.testing.assert_allclose(found.variance[:, -1] * found.correlation[:, -1], 1, rtol=1e-6)
    assert found.image[:, 0].std() < 0.6 and kernels.touches(45, 254.0) and not kernels.touches(45, 255.0)


def test_flux_errors_from_the_told_noise_are_those_of_simulated_noise():
    kernels, noise = one_kernel(), np.random.default_rng(2).normal(size=(700, 700))
    found = widened(kernels, noise)
    assert found.image.var() == pytest.approx(found.variance[30:-30, 30:-30].mean(), rel=0.02)
    told = (found.variance * found.correlation)[350, 350]
    for size, low, high in ((0.0, 0.88, 0.98), (1.0, 0.97, 1.03), (2.0, 1.0, 1.08)):
        galaxy = psf(WIDE * np.hypot(1, size), 61)
        # The sum of noise times template, as a fit of a known shape has it.
        scatter = fftconvolve(found.image, galaxy, mode="valid").std()
        assert low < scatter / np.sqrt(told * np.square(galaxy).sum()) < high
        # Pixels taken for independent would promise far too much.
        assert scatter > 1.8 * np.sqrt(found.variance[350, 350] * np.square(galaxy).sum())


def test_variance_that_differs_from_place_to_place_stays_where_it_is():
    variance = np.ones((100, 200))
    variance[:, 100:] = 9.0
    found = one_kernel().plane(np.zeros(variance.shape), variance, np.zeros(variance.shape, bool))
    told = found.variance * found.correlation
    assert told[50, 150] / told[50, 50] == pytest.approx(9, rel=1e-3)


def test_bad_pixels_spread_by_the_core_of_the_kernel_and_no_further():
    bad = np.zeros((80, 80), bool)
    bad[40, 40] = True
    bad[10:30, 10:30] = True
    lost = one_kernel().plane(np.zeros(bad.shape), np.ones(bad.shape), bad).lost > 0.05
    assert lost[40, 40] and lost[10:30, 10:30].all()
    assert not lost[36, 40] and not lost[34, 15] and lost[30, 20]
    assert lost[0, 60] and not lost[3, 60]


@pytest.mark.parametrize("q", [1.0, 1.3, 2.0])
def test_widths_and_ellipticities_of_psfs(q):
    image = gaussian((61, 61), 30, 30, 2.0 / np.sqrt(q), q=q)
    width, ellipticity = psf_shape(5 * image)
    assert width == pytest.approx(2.0 * np.sqrt(4 * np.pi), rel=1e-3)
    assert ellipticity == pytest.approx((q - 1) / (q + 1), abs=0.01)
    noisy = image + np.random.default_rng(3).normal(0, 1e-4, image.shape)
    assert psf_shape(noisy) == pytest.approx((width, ellipticity), abs=0.03, rel=0.02)
