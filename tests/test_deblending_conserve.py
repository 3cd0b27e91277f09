# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pixels shared among models sum to the image; overlaps are what integrals give."""

from math import erf, sqrt

import numpy as np
import pytest

from lsst.meas.extensions.vae.deblending.conserve import share_pixels
from lsst.meas.extensions.vae.deblending.overlaps import measure_overlaps, model_footprint
from lsst.meas.extensions.vae.errors import ImageError


def gaussian(shape, y, x, sigma, flux=1.0):
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    return flux * np.exp(-0.5 * ((yy - y) ** 2 + (xx - x) ** 2) / sigma**2) / (2 * np.pi * sigma**2)


def put_together(shares, origins, shape):
    total = np.zeros(shape)
    for share, (y0, x0) in zip(shares, origins, strict=True):
        for y, x in np.ndindex(share.shape):
            if 0 <= y + y0 < shape[0] and 0 <= x + x0 < shape[1]:
                total[y + y0, x + x0] += share[y, x]
    return total


def test_shares_are_in_proportion_and_sum_to_the_image_exactly():
    image = np.array([[8.0, -4.0, 16.0]])
    shares = share_pixels(image, [np.array([[3.0, 1.0]]), np.array([[1.0, 2.0]])], [(0, 0), (0, 1)])
    np.testing.assert_array_equal(shares[0], [[8.0, -2.0]])
    np.testing.assert_array_equal(shares[1], [[-2.0, 16.0]])


def test_random_shares_of_ragged_stamps_lose_nothing():
    rng = np.random.default_rng(5)
    image = rng.normal(size=(30, 40))
    stamps = [rng.random((rng.integers(3, 20), rng.integers(3, 20))) for _ in range(25)]
    origins = [(rng.integers(-6, 28), rng.integers(-6, 38)) for _ in stamps]
    shares = share_pixels(image, stamps, origins)
    reached = put_together([np.ones_like(stamp) for stamp in stamps], origins, image.shape) > 0
    np.testing.assert_allclose(
        put_together(shares, origins, image.shape), np.where(reached, image, 0.0), rtol=0, atol=1e-14
    )
    assert reached.any() and not reached.all()


def test_where_no_template_has_light_nobody_gets_any_and_nothing_is_divided():
    with np.errstate(all="raise"):
        shares = share_pixels(np.full((2, 2), 7.0), [np.zeros((2, 2)), -np.ones((2, 2))], [(0, 0)] * 2)
    assert all((share == 0).all() for share in shares)


def test_tiny_templates_share_as_large_ones_do():
    large = share_pixels(np.ones((1, 1)), [[[3.0]], [[1.0]]], [(0, 0)] * 2)
    tiny = share_pixels(np.ones((1, 1)), [[[3e-40]], [[1e-40]]], [(0, 0)] * 2)
    np.testing.assert_allclose(tiny, large, rtol=1e-12)


def test_pixels_without_data_hold_the_model_and_spoil_no_other():
    image = np.array([[np.nan, np.inf, 6.0]])
    shares = share_pixels(image, [np.full((1, 3), 2.0), np.full((1, 3), 1.0)], [(0, 0)] * 2)
    np.testing.assert_allclose(shares[0], [[2.0, 2.0, 4.0]])
    np.testing.assert_allclose(shares[1], [[1.0, 1.0, 2.0]])


def test_templates_that_are_not_finite_count_as_zero():
    templates = [np.array([[np.nan, np.inf, 1.0]]), np.ones((1, 3))]
    shares = share_pixels(np.full((1, 3), 4.0), templates, [(0, 0)] * 2)
    np.testing.assert_array_equal(shares[0], [[0.0, 0.0, 2.0]])
    np.testing.assert_array_equal(shares[1], [[4.0, 4.0, 2.0]])


def test_a_parents_pixels_go_to_its_own_children_and_the_sky_to_all():
    image = np.full((1, 3), 4.0)
    shares = share_pixels(image, [np.ones((1, 3))] * 2, [(0, 0)] * 2, groups=[1, 2], owners=[[1, 0, 2]])
    np.testing.assert_array_equal(shares[0], [[4.0, 2.0, 0.0]])
    np.testing.assert_array_equal(shares[1], [[0.0, 2.0, 4.0]])


def test_shares_of_a_noiseless_blend_are_its_galaxies():
    shape, truth = (48, 48), []
    for y, x, flux in ((20, 20, 100.0), (26, 27, 60.0)):
        truth.append(gaussian(shape, y, x, 3.0, flux))
    shares = share_pixels(sum(truth), [0.3 * truth[0], 0.3 * truth[1]], [(0, 0)] * 2)
    np.testing.assert_allclose(shares, truth, rtol=1e-10, atol=1e-12)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ImageError, match=r"expected \[y, x\]"):
        share_pixels(np.ones((2, 3, 3)), [], [])
    with pytest.raises(ImageError, match="1 templates and 2 origins"):
        share_pixels(np.ones((3, 3)), [np.ones((1, 1))], [(0, 0), (1, 1)])
    with pytest.raises(ImageError, match="go together"):
        share_pixels(np.ones((3, 3)), [np.ones((1, 1))], [(0, 0)], groups=[1])
    with pytest.raises(ImageError, match="owners"):
        share_pixels(np.ones((3, 3)), [np.ones((1, 1))], [(0, 0)], groups=[1], owners=np.ones((2, 2), int))


def test_the_blendedness_of_two_gaussians_is_that_of_their_integrals():
    # <C, C> = f^2 / (4 pi s^2), <C, D> = f g exp(-d^2 / 4 s^2) / (4 pi s^2).
    sigma, distance, f, g = 4.0, 6.0, 300.0, 100.0
    c, d = gaussian((96, 96), 45, 45, sigma, f), gaussian((96, 96), 45, 45 + distance, sigma, g)
    found = measure_overlaps([c], [c + d], np.ones(c.shape, bool)).blendedness[0]
    mixed = f * g * np.exp(-(distance**2) / (4 * sigma**2))
    assert found == pytest.approx(mixed / (f * f + mixed), rel=1e-6)


def test_the_flux_overlap_of_two_gaussians_is_that_of_their_integrals():
    # The neighbour's flux left of the line x = 90.5 that ends the footprint.
    sigma, f, g = 8.0, 300.0, 100.0
    c, d = gaussian((192, 192), 90, 90, sigma, f), gaussian((192, 192), 90, 102, sigma, g)
    footprint = np.zeros(c.shape, bool)
    footprint[:, :91] = True
    found = measure_overlaps([c, 2 * c], [c + d, 2 * c + d], footprint)
    left = g * 0.5 * (1 + erf((90.5 - 102) / (sigma * sqrt(2))))
    np.testing.assert_allclose(found.fluxOverlap, left, rtol=2e-3)
    np.testing.assert_allclose(found.fluxOverlapFraction, [left / f, left / (2 * f)], rtol=2e-3)
    np.testing.assert_allclose(found.maxOverlap, d[90, 90], rtol=1e-12)


def test_a_source_alone_overlaps_with_nothing():
    c = gaussian((32, 32), 15, 15, 3.0, 10.0)
    found = measure_overlaps([c], [c], np.ones(c.shape, bool))
    assert (found.maxOverlap, found.fluxOverlap, found.fluxOverlapFraction, found.blendedness) == (0, 0, 0, 0)


def test_a_model_without_light_has_no_fraction_and_no_blendedness():
    found = measure_overlaps(np.zeros((1, 4, 4)), np.ones((1, 4, 4)), np.zeros((4, 4), bool))
    assert found.fluxOverlapFraction[0] == 0 and np.isnan(found.blendedness[0])


def test_a_footprint_is_where_the_model_stands_above_the_noise_of_some_band():
    c = gaussian((33, 33), 16, 16, 4.0, 1.0)
    model = np.stack([c, 10 * c])
    sigma = np.array([1.0, 10.0]) * c[16, 22]
    np.testing.assert_array_equal(model_footprint(model, sigma), c >= c[16, 22])
    np.testing.assert_array_equal(model_footprint(model, [np.nan, np.inf]), c >= 0.5 * c.max())
    assert model_footprint(model, sigma, 0).all()
    assert model_footprint(model, 1e3 * sigma).sum() == (c >= 0.5 * c.max()).sum(), "too faint to see"
