# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deblending on arrays: stamps, joint fluxes, flags; with a known "network"."""

from types import SimpleNamespace

import numpy as np
import pytest

from lsst.meas.extensions.vae.deblending import DeblendSettings, cut_stamps, deblend_blend
from lsst.meas.extensions.vae.deblending.fluxes import solve_amplitudes
from lsst.meas.extensions.vae.deblending.stamps import check_cube
from lsst.meas.extensions.vae.errors import ImageError

SIGMA = 2.5


def gaussian(shape, y, x, sigma=SIGMA):
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-0.5 * ((yy - y) ** 2 + (xx - x) ** 2) / sigma**2) / (2 * np.pi * sigma**2)


class KnownNetwork:
    """Draws a centred Gaussian of a fixed flux, whatever it sees."""

    bands, stamp_size, latent_dim = ("g", "r"), 64, 3
    package = SimpleNamespace(name="known", card={"noise": [1.0, 1.0]})

    def __init__(self, flux=(50.0, 100.0)):
        self.flux = np.asarray(flux)

    def deblend(self, images, noise, batch_size=256, psfs=None):
        assert np.isfinite(images).all() and (np.asarray(noise) > 0).all()
        n = len(images)
        model = gaussian((64, 64), 31.5, 31.5) * self.flux[:, None, None]
        return (np.repeat(model[None], n, axis=0).astype("f4"), np.zeros((n, 3), "f4"), np.ones((n, 3), "f4"))


def scene(positions, fluxes, shape=(120, 130), noise=0.0, seed=0):
    image = sum(f * gaussian(shape, y, x) for (y, x), f in zip(positions, fluxes, strict=True))
    cube = np.stack([image, 2 * image]).astype("f4")
    cube += noise * np.random.default_rng(seed).standard_normal(cube.shape).astype("f4")
    return cube, np.full(cube.shape, max(noise, 0.01) ** 2, "f4")


def test_a_stamp_is_cut_at_the_nearest_pixel_crossing():
    cube, variance = scene([(50.5, 60.5)], [100])
    stamps = cut_stamps(cube, variance, [(50.4, 60.7)], 64, np.ones(cube.shape, bool))
    assert tuple(stamps.origins[0]) == (19, 29)
    np.testing.assert_array_equal(stamps.images[0], cube[:, 19:83, 29:93])


def test_pixels_beyond_the_edge_are_sky_and_counted():
    cube, variance = scene([(2, 2)], [100])
    stamps = cut_stamps(cube, variance, [(1.5, 1.5)], 64, np.ones(cube.shape, bool))
    assert tuple(stamps.origins[0]) == (-30, -30)
    assert not stamps.images[0, :, :30].any() and not stamps.images[0, :, :, :30].any()
    assert stamps.coverage[0, 0] == pytest.approx((34 / 64) ** 2)


def test_joint_fluxes_share_the_light_of_two_overlapping_sources_exactly():
    positions, fluxes = [(50.5, 60.5), (54.5, 63.5)], [100.0, 300.0]
    cube, variance = scene(positions, fluxes)
    result = deblend_blend(cube, variance, positions, KnownNetwork(), settings=DeblendSettings(prior_width=0))
    np.testing.assert_allclose(result.fluxes, np.outer(fluxes, [1, 2]), rtol=1e-3)
    np.testing.assert_allclose(result.scene(cube.shape), cube, atol=1e-3)


def test_without_joint_fluxes_the_networks_own_stay():
    cube, variance = scene([(50.5, 60.5)], [400.0])
    settings = DeblendSettings(joint_fluxes=False)
    result = deblend_blend(cube, variance, [(50.5, 60.5)], KnownNetwork(), settings=settings)
    np.testing.assert_allclose(result.fluxes[0], [50, 100], rtol=1e-3)


def test_flux_errors_are_the_scatter_of_the_fluxes():
    positions = [(50.5, 60.5), (50.5, 65.5)]
    fluxes, errors = [], []
    for seed in range(60):
        cube, variance = scene(positions, [100.0, 200.0], noise=0.5, seed=seed)
        result = deblend_blend(
            cube, variance, positions, KnownNetwork(), settings=DeblendSettings(prior_width=0)
        )
        fluxes.append(result.fluxes[:, 0])
        errors.append(result.flux_errors[:, 0])
    np.testing.assert_allclose(np.std(fluxes, axis=0), np.mean(errors, axis=0), rtol=0.3)
    np.testing.assert_allclose(
        np.mean(fluxes, axis=0), [100, 200], atol=3 * np.mean(errors) / np.sqrt(60) * 1.5
    )


def test_amplitudes_are_the_weighted_least_squares_solution_also_across_edges():
    rng = np.random.default_rng(3)
    origins = np.array([[-9, 4], [2, 7], [5, 25], [22, 24], [14, 14]])
    templates = rng.uniform(0.1, 1, (5, 2, 16, 16)).astype(np.float32)
    weights = rng.uniform(0, 2, (2, 30, 32)).astype(np.float32)
    weights[:, 6:9] = 0
    design = np.zeros((5, 2, 60, 62))
    for k, (y, x) in enumerate(origins):
        design[k, :, y + 15 : y + 31, x + 15 : x + 31] = templates[k]
    design = design[:, :, 15:45, 15:47]
    truth = rng.uniform(1, 3, (5, 2))
    images = ((design * truth[..., None, None]).sum(axis=0) + rng.normal(0, 0.01, weights.shape)).astype("f4")
    amplitudes, errors = solve_amplitudes(images, weights, templates, origins)
    for band in range(2):
        w = np.sqrt(weights[band].ravel().astype(float))
        a = (design[:, band].reshape(5, -1) * w).T
        expected = np.linalg.lstsq(a, images[band].ravel() * w, rcond=None)[0]
        np.testing.assert_allclose(amplitudes[:, band], expected, rtol=1e-5)
        # Errors leave out how templates that do not touch hang together through others.
        np.testing.assert_allclose(errors[:, band], np.sqrt(np.diag(np.linalg.inv(a.T @ a))), rtol=5e-3)


def test_amplitudes_are_never_negative_and_the_other_takes_all():
    template = gaussian((64, 64), 31.5, 31.5)
    image = np.zeros((100, 100))
    image[10:74, 10:74] += 5 * template
    image[10:74, 16:80] -= 2 * template
    amplitudes, errors = solve_amplitudes(
        image[None], np.ones((1, 100, 100)), np.stack([template[None]] * 2), np.array([[10, 10], [10, 16]])
    )
    assert amplitudes[1] == 0 and amplitudes[0] > 3
    assert (errors > 0).all()


def test_the_expectation_rules_where_there_is_no_signal_and_not_where_there_is():
    template = gaussian((64, 64), 31.5, 31.5)[None, None]
    image = 3 * template[0]
    origins = np.zeros((1, 2), int)
    strong, _ = solve_amplitudes(image, np.full((1, 64, 64), 1e8), template, origins, prior_width=0.3)
    weak, _ = solve_amplitudes(image, np.full((1, 64, 64), 1e-8), template, origins, prior_width=0.3)
    assert strong[0] == pytest.approx(3, rel=1e-3)
    assert weak[0] == pytest.approx(1, rel=1e-3)


def test_two_sources_at_one_place_share_their_flux_and_stay_finite():
    cube, variance = scene([(50.5, 60.5)], [100.0])
    result = deblend_blend(
        cube, variance, [(50.5, 60.5)] * 2, KnownNetwork(), settings=DeblendSettings(prior_width=0)
    )
    assert result.fluxes[:, 0].sum() == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_left_out(value):
    positions = [(50.5, 60.5)]
    cube, variance = scene(positions, [100.0])
    cube[0, 49, 58] = value
    cube[1, 20:30, :] = value
    result = deblend_blend(cube, variance, positions, KnownNetwork(), settings=DeblendSettings(prior_width=0))
    np.testing.assert_allclose(result.fluxes[0], [100, 200], rtol=1e-3)
    assert not result.failed.any() and result.coverage[0] < 1


def test_a_source_without_data_fails_and_no_other_changes_by_a_bit():
    positions = [(30.5, 30.5), (90.5, 100.5)]
    cube, variance = scene(positions, [100.0, 200.0], noise=0.1)
    settings = DeblendSettings(joint_fluxes=False)
    whole = deblend_blend(cube, variance, positions, KnownNetwork(), settings=settings)
    bad = np.zeros(cube.shape[1:], bool)
    bad[:60, :60] = True
    part = deblend_blend(cube, variance, positions, KnownNetwork(), bad=bad, settings=settings)
    assert list(part.failed) == [True, False]
    assert np.isnan(part.models[0]).all() and np.isnan(part.fluxes[0]).all()
    np.testing.assert_array_equal(part.models[1], whole.models[1])


def test_centres_outside_the_image_or_not_finite_fail_alone():
    positions = [(50.5, 60.5), (500.0, 20.0), (np.nan, 3.0)]
    cube, variance = scene(positions[:1], [100.0])
    result = deblend_blend(cube, variance, positions, KnownNetwork())
    assert list(result.failed) == [False, True, True]


def test_a_band_without_data_is_marked_and_keeps_the_networks_guess():
    positions = [(50.5, 60.5)]
    cube, variance = scene(positions, [100.0])
    bad = np.zeros(cube.shape, bool)
    bad[0] = True
    result = deblend_blend(
        cube, variance, positions, KnownNetwork(), bad=bad, settings=DeblendSettings(prior_width=0)
    )
    assert list(result.missing_bands[0]) == [True, False]
    np.testing.assert_allclose(result.fluxes[0], [50, 200], rtol=1e-3)
    assert np.isnan(result.flux_errors[0, 0])


def test_no_sources_give_an_empty_result():
    cube, variance = np.zeros((2, 80, 80), "f4"), np.ones((2, 80, 80), "f4")
    result = deblend_blend(cube, variance, np.zeros((0, 2)), KnownNetwork())
    assert result.models.shape == (0, 2, 64, 64)


def test_shapes_that_do_not_fit_are_told():
    cube, variance = scene([(50.5, 60.5)], [100.0])
    with pytest.raises(ImageError, match=r"images have shape \(2, 120, 130\) and variances \(2, 120, 129\)"):
        check_cube(cube, variance[:, :, :-1])
    with pytest.raises(ImageError, match="1 bands, the model 'known' takes 2"):
        deblend_blend(cube[:1], variance[:1], [(50, 60)], KnownNetwork())
    with pytest.raises(ImageError, match="the mask has shape"):
        check_cube(cube, variance, np.zeros((3, 3), bool))
