# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blendedness, SNR and shape of scenes whose truth is known by formula."""

import galsim
import numpy as np
import pytest

from lsst.meas.extensions.vae.simulation import metrics


def gaussian(x, y, flux=1.0, sigma=3.0, size=64):
    rows, columns = np.mgrid[:size, :size]
    image = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return flux * image / (2 * np.pi * sigma**2)


def test_b_closest_of_two_gaussians():
    target, neighbour = gaussian(28, 31, flux=2.0), gaussian(35, 31, flux=5.0)
    # <C,N> of equal widths is a Gaussian of the distance, of variance 2 sigma^2; fluxes drop out.
    assert metrics.b_closest(target, neighbour) == pytest.approx(np.exp(-(7**2) / (4 * 3.0**2)), rel=1e-6)
    assert metrics.b_closest(target, target) == pytest.approx(1.0)
    assert np.isnan(metrics.b_closest(target, np.zeros_like(target)))


def test_b_tot_of_two_gaussians():
    target, neighbour = gaussian(28, 31, flux=2.0), gaussian(35, 31, flux=5.0)
    overlap = 2.0 * 5.0 * np.exp(-(7**2) / (4 * 3.0**2))
    expected = 1 - 2.0**2 / (2.0**2 + overlap)
    assert metrics.b_tot(target, target + neighbour) == pytest.approx(expected, rel=1e-6)
    assert metrics.b_tot(target, target) == pytest.approx(0.0, abs=1e-12)


def test_blendedness_of_gaussians_of_two_widths():
    """<A,B> of two round Gaussians is a Gaussian of their distance, of the sum of their variances."""
    sigma, other, distance, flux = 3.0, 4.5, 8.0, 7.0
    target = gaussian(60, 64, flux=2.0, sigma=sigma, size=128)
    neighbour = gaussian(60 + distance, 64, flux=flux, sigma=other, size=128)
    total = sigma**2 + other**2
    cross = np.exp(-(distance**2) / (2 * total)) / (2 * np.pi * total)
    own, theirs = 1 / (4 * np.pi * sigma**2), 1 / (4 * np.pi * other**2)
    assert metrics.b_closest(target, neighbour) == pytest.approx(cross / np.sqrt(own * theirs), rel=1e-6)
    expected = 1 - 2.0**2 * own / (2.0**2 * own + 2.0 * flux * cross)
    assert metrics.b_tot(target, target + neighbour) == pytest.approx(expected, rel=1e-6)


def test_snr_of_two_pixels_by_hand():
    # 900 / (30 + 70) + 1600 / (40 + 70)
    assert metrics.snr(np.array([[30.0, 40.0]]), 70.0) == pytest.approx(np.sqrt(9 + 1600 / 110))
    both = metrics.snr(np.array([[[30.0, 0.0]], [[0.0, 40.0]]]), np.array([70.0, 60.0]))
    np.testing.assert_allclose(both, [3.0, 4.0])


def test_snr_of_single_precision_images_is_as_good():
    target = gaussian(31.5, 31.5, flux=1e7)
    exact, single = metrics.snr(target, 6e4), metrics.snr(target.astype(np.float32), 6e4)
    assert single == pytest.approx(exact, rel=1e-6)


def test_snr_is_the_papers():
    target = gaussian(31.5, 31.5, flux=1e4)
    expected = np.sqrt((target**2 / (target + 50.0)).sum())
    assert metrics.snr(target, 50.0) == pytest.approx(expected, rel=1e-12)
    # No sky: photon noise alone, the square root of the counts.
    assert metrics.snr(target, 0.0) == pytest.approx(100.0, rel=1e-6)
    both = metrics.snr(np.stack([target, 2 * target]), np.array([50.0, 10.0]))
    assert both.shape == (2,) and both[0] == pytest.approx(expected) and both[1] > both[0]


def test_snr_ignores_negative_ripples():
    target = gaussian(31.5, 31.5, flux=1e4)
    target[0, 0] = -1e-3
    assert np.isfinite(metrics.snr(target, 0.0))


def test_ksb_measures_the_reduced_shear_through_the_psf():
    psf = galsim.Gaussian(fwhm=0.7)
    galaxy = galsim.Gaussian(half_light_radius=0.4).shear(g1=0.2, g2=-0.1)
    scene = galsim.Convolve(galaxy.shift(0.1, 0.05), psf)
    image = scene.drawImage(nx=64, ny=64, scale=0.2).array
    kernel = psf.drawImage(nx=41, ny=41, scale=0.2).array
    e1, e2, failed = metrics.ksb_shear(image, kernel)
    assert not failed
    # KSB is exact to second order in the shear only.
    assert e1 == pytest.approx(0.2, abs=0.02) and e2 == pytest.approx(-0.1, abs=0.02)


def test_ksb_failure_is_a_flag():
    kernel = gaussian(20, 20, sigma=1.5, size=41)
    e1, e2, failed = metrics.ksb_shear(np.zeros((64, 64)), kernel)
    assert failed and np.isnan(e1) and np.isnan(e2)
