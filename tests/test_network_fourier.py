# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Products with small matrices do what Fourier transforms, and analytic profiles, say."""

import numpy as np
import pytest

from lsst.meas.extensions.vae.network import fourier
from lsst.meas.extensions.vae.network.observation import low_frequencies

NOISE = np.random.default_rng(0).normal(size=(3, 2, 32, 32)).astype("f4")


def gaussian(size, y, x, sigma):
    yy, xx = np.mgrid[:size, :size]
    return np.exp(-0.5 * ((yy - y) ** 2 + (xx - x) ** 2) / sigma**2).astype("f4")


def test_spectra_are_those_of_an_fft_and_images_their_inverse():
    expected = np.fft.rfft2(NOISE)
    np.testing.assert_allclose(fourier.spectra(NOISE, 32), expected, atol=2e-4)
    np.testing.assert_allclose(fourier.images(expected.astype("c8")), NOISE, atol=2e-6)


def test_lowest_frequencies_are_those_that_smaller_images_can_show():
    np.testing.assert_allclose(fourier.spectra(NOISE, 16), low_frequencies(np.fft.rfft2(NOISE), 2), atol=2e-4)


def test_what_no_spectrum_of_a_real_image_holds_is_ignored_as_an_inverse_fft_does():
    rng = np.random.default_rng(1)
    odd = (rng.normal(size=(16, 9)) + 1j * rng.normal(size=(16, 9))).astype("c8")
    np.testing.assert_allclose(fourier.images(odd), np.fft.irfft2(odd), atol=1e-6)


def test_coarse_images_are_every_other_pixel_of_a_smooth_profile():
    fine = gaussian(64, 31.0, 33.0, 3.0)
    np.testing.assert_allclose(fourier.coarse(fine, 2), fine[::2, ::2], atol=1e-5)
    low = np.fft.irfft2(low_frequencies(np.fft.rfft2(NOISE), 2)) / 4
    np.testing.assert_allclose(fourier.coarse(NOISE, 2), low, atol=2e-6)


@pytest.mark.parametrize("dy, dx", [(0.3, -0.4), (0.0, 0.0), (-1.0, 2.0)])
def test_a_shifted_profile_is_the_profile_at_its_new_place(dy, dx):
    stamps = np.stack([gaussian(32, 15.5, 15.5, 2.0), gaussian(32, 14.5, 16.5, 2.5)])
    moved = fourier.shifted(stamps, np.array([dy, dx]))
    np.testing.assert_allclose(moved[0], gaussian(32, 15.5 + dy, 15.5 + dx, 2.0), atol=1e-5)
    np.testing.assert_allclose(moved[1], gaussian(32, 14.5 + dy, 16.5 + dx, 2.5), atol=1e-5)


def test_each_image_has_its_own_shift():
    shifts = np.array([[0.2, 0.1], [-0.3, 0.4], [0.0, -0.5]])
    moved = fourier.shifted(NOISE, shifts[:, None])
    for k, shift in enumerate(shifts):
        np.testing.assert_array_equal(moved[k], fourier.shifted(NOISE[k], shift))


def test_slopes_are_the_differences_that_small_shifts_make():
    stamp, step = gaussian(32, 15.5, 15.5, 2.0), 0.01
    for axis, slope in enumerate(fourier.slopes(stamp)):
        shift = step * np.eye(2)[axis]
        difference = (fourier.shifted(stamp, shift) - fourier.shifted(stamp, -shift)) / (2 * step)
        np.testing.assert_allclose(slope, difference, atol=2e-4)


def test_bits_do_not_depend_on_what_an_image_is_batched_with():
    for work in (lambda s: fourier.spectra(s, 16), lambda s: fourier.coarse(s, 2), fourier.slopes):
        together = work(NOISE[:, 0])
        alone = work(NOISE[1, 0])
        np.testing.assert_array_equal(together[..., 1, :, :], alone)
