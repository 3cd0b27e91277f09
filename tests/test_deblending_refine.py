# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refinement finds the most probable galaxies, with right errors, where a toy decoder draws them exactly."""

from types import SimpleNamespace

import numpy as np
import pytest

from lsst.meas.extensions.vae.deblending.blend import stamp_chi2
from lsst.meas.extensions.vae.deblending.refine import colours, neighbours, refine
from lsst.meas.extensions.vae.simulation.geometry import overlap, stamp_origin

SIZE, NOISE = 32, np.array([1.0, 2.0])
COVARIANCE = np.diag([0.04, 0.04, 0.04, 1.0])
MEAN = np.array([0.0, 0.0, np.log(2.5), 6.0])


class ToyNetwork:
    """Latents are two ellipticities, the logarithm of the size [pixel], and that of the flux."""

    stamp_size, latent_dim = SIZE, 4
    latent_prior = MEAN, COVARIANCE
    typical_noise = NOISE
    architecture = SimpleNamespace(template_of_band=np.array([0, 0]), coarseness=1)

    def __init__(self, knows_shifts=True):
        self.knows_shifts = knows_shifts

    def transfer(self, psfs, n):
        return None

    def templates(self, latents, noise, transfer=None, coarse=False):
        y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
        e1, e2, log_size, log_flux = np.moveaxis(latents, -1, 0)[..., None, None]
        too_flat = np.maximum(np.hypot(e1, e2) / 0.95, 1.0)
        e1, e2 = e1 / too_flat, e2 / too_flat
        radius2 = ((1 - e1) * x**2 + (1 + e1) * y**2 - 2 * e2 * x * y) / np.sqrt(1 - e1**2 - e2**2)
        images = np.exp(-radius2 / (2 * np.exp(2 * log_size)))
        images /= images.sum(axis=(-2, -1), keepdims=True)
        fluxes = np.repeat(np.exp(log_flux[..., 0]), 2, axis=-1)
        return images[:, :, None].astype(np.float32), fluxes


def make_scene(latents, centres, shape=(64, 64), seed=0, network=None, shifts=None):
    """A noisy cube, its weights, the stamps' origins and their noise."""
    rng = np.random.default_rng(seed)
    network = network or ToyNetwork()
    images = rng.normal(size=(2, *shape)) * NOISE[:, None, None]
    origins = np.array([stamp_origin(x, y, SIZE) for y, x in centres]).reshape(-1, 2)
    templates, fluxes = network.templates(np.asarray(latents)[:, None], None)
    for k, origin in enumerate(origins):
        stamp = templates[k, 0, 0]
        if shifts is not None:
            turn = np.exp(
                -2j
                * np.pi
                * (np.fft.fftfreq(SIZE)[:, None] * shifts[k][0] + np.fft.fftfreq(SIZE) * shifts[k][1])
            )
            stamp = np.fft.ifft2(np.fft.fft2(stamp) * turn).real
        in_cube, in_stamp = overlap(origin, SIZE, shape)
        images[:, *in_cube] += fluxes[k, 0, :, None, None] * stamp[in_stamp]
    weight = np.broadcast_to(1 / NOISE[:, None, None] ** 2, images.shape)
    return images.astype(np.float32), weight.astype(np.float32), origins, np.tile(NOISE, (len(origins), 1))


def run(scene, centres, start=None, network=None, fluxes=None, **options):
    images, weight, origins, noise = scene
    n = len(origins)
    start = np.tile(MEAN, (n, 1)) if start is None else start
    # Encoders know shapes roughly, and fluxes better.
    fluxes = np.full((n, 2), scene[0].sum() / max(2 * n, 1) if fluxes is None else fluxes)
    options = {"prior_width": 0.0, "max_steps": 30, "tolerance": 1e-3, **options}
    centres = np.asarray(centres, dtype=float).reshape(-1, 2)
    refined = refine(
        images, weight, origins, centres, start, fluxes, noise, network or ToyNetwork(), **options
    )
    with np.errstate(divide="ignore"):
        models = SimpleNamespace(
            failed=np.zeros(n, bool), origins=origins, models=np.empty((n, 1, SIZE, SIZE))
        )
        refined.chi2 = stamp_chi2(refined.residual, 1 / weight, weight > 0, models)
    return refined


def test_a_bright_galaxy_gets_its_shape_size_and_fluxes():
    truth = np.array([[0.3, -0.2, np.log(3.0), np.log(2e4)]])
    refined = run(make_scene(truth, [(31.5, 31.5)]), [(31.5, 31.5)])
    np.testing.assert_allclose(refined.latents[0, :3], truth[0, :3], atol=0.01)
    np.testing.assert_allclose(refined.fluxes, 2e4, rtol=0.01)
    assert refined.converged.all() and 2 <= refined.iterations[0] < 30
    assert refined.chi2[0] == pytest.approx(1.0, abs=0.1)


def test_two_galaxies_that_overlap_get_each_its_own():
    centres = [(31.5, 27.5), (32.5, 34.5)]
    truth = np.array([[0.3, 0.1, np.log(2.5), np.log(1e4)], [-0.2, 0.2, np.log(3.0), np.log(2e4)]])
    refined = run(make_scene(truth, centres), centres)
    np.testing.assert_allclose(refined.latents[:, :3], truth[:, :3], atol=0.03)
    np.testing.assert_allclose(refined.fluxes, np.exp(truth[:, 3:]) * [1, 1], rtol=0.03)
    assert refined.chi2 == pytest.approx([1.0, 1.0], abs=0.1)


def test_errors_are_those_that_noise_gives_and_the_prior_is_weighed_rightly():
    # Truths are draws from the prior, so the normalised errors are standard normal if the posterior is right.
    rng = np.random.default_rng(1)
    pulls, flux_pulls = [], []
    for seed in range(40):
        truth = np.array([[*rng.normal(0, 0.2, 2), rng.normal(MEAN[2], 0.2), 6.5]])
        refined = run(make_scene(truth, [(31.5, 31.5)], seed=seed), [(31.5, 31.5)])
        sigma = np.sqrt(np.diagonal(refined.covariance[0]))
        pulls.append((refined.latents[0] - truth[0])[:3] / sigma[:3])
        flux_pulls.append((refined.fluxes[0] - np.exp(6.5)) / sigma[-2:])
    for pull in (np.array(pulls), np.array(flux_pulls)):
        assert 0.8 < pull.std() < 1.2
        assert abs(pull.mean()) < 0.35


def test_a_lighter_prior_leaves_faint_galaxies_more_of_their_ellipticity():
    centres, found = [(31.5, 31.5)], {1.0: [], 0.2: []}
    for seed in range(20):
        scene = make_scene([[0.3, 0.0, MEAN[2], 5.0]], centres, seed=seed)
        for weight, e in found.items():
            e.append(run(scene, centres, latent_weight=weight, prior_width=0.3).latents[0, 0])
    full, light = (np.mean(e) for e in found.values())
    assert full < 0.95 * light < 0.3 * 1.05


def test_a_galaxy_without_light_stays_what_the_prior_expects():
    images, weight, origins, noise = make_scene(np.zeros((0, 4)), np.zeros((0, 2)))
    start = MEAN + [0.2, 0.2, 0.2, -1.0]
    scene = images, np.zeros_like(weight), np.array([[16, 16]]), np.tile(NOISE, (1, 1))
    refined = run(scene, [(31.5, 31.5)], start[None])
    np.testing.assert_allclose(refined.latents[0], MEAN, atol=1e-3)
    assert np.isnan(refined.chi2[0])


def test_where_a_band_is_missing_its_flux_is_the_decoders():
    truth = np.array([[0.1, 0.0, np.log(2.5), np.log(5e3)]])
    images, weight, origins, noise = make_scene(truth, [(31.5, 31.5)])
    weight = weight.copy()
    weight[1], noise[0, 1] = 0, np.inf
    images[1] = 0
    refined = run((images, weight, origins, noise), [(31.5, 31.5)], prior_width=0.1)
    assert refined.fluxes[0, 1] == pytest.approx(refined.network_fluxes[0, 1], rel=1e-3)
    assert refined.fluxes[0, 1] == pytest.approx(5e3, rel=0.1)


def test_masked_pixels_count_for_nothing():
    truth, centres = np.array([[0.2, 0.1, np.log(2.5), np.log(5e3)]]), [(31.5, 31.5)]
    images, weight, origins, noise = make_scene(truth, centres)
    weight = weight.copy()
    weight[:, 30:34, 36:44] = 0
    odd = images.copy()
    odd[:, 30:34, 36:44] = 1e6
    a, b = run((images, weight, origins, noise), centres), run((odd, weight, origins, noise), centres)
    np.testing.assert_allclose(a.latents, b.latents, atol=2e-2)
    np.testing.assert_allclose(a.latents[0, :3], truth[0, :3], atol=0.05)


def test_a_centre_off_the_middle_of_the_stamp_is_found_where_latents_do_not_tell_it():
    truth, network = np.array([[0.2, 0.1, np.log(2.5), np.log(2e4)]]), ToyNetwork(knows_shifts=False)
    true_shift = np.array([[0.3, -0.4]])
    scene = make_scene(truth, [(31.5, 31.5)], shifts=true_shift)
    refined = run(scene, [(31.7, 31.3)], network=network)
    np.testing.assert_allclose(refined.shifts, true_shift, atol=0.02)
    np.testing.assert_allclose(refined.latents[0, :3], truth[0, :3], atol=0.02)
    assert refined.covariance.shape == (1, 8, 8)


def test_what_is_far_away_changes_nothing():
    centres = [(31.5, 31.5), (31.5, 95.5)]
    truth = np.array([[0.3, 0.1, np.log(2.5), np.log(1e4)], [-0.2, 0.2, np.log(3.0), np.log(2e4)]])
    images, weight, origins, noise = make_scene(truth, centres, shape=(64, 128))
    both = run((images, weight, origins, noise), centres, fluxes=1e4)
    other = images.copy()
    other[:, :, 64:] = 7.0
    again = run((other, weight, origins, noise), centres, fluxes=1e4)
    np.testing.assert_array_equal(both.latents[0], again.latents[0])
    assert not np.array_equal(both.latents[1], again.latents[1])


def test_no_source_gives_an_empty_answer():
    images, weight, origins, noise = make_scene(np.zeros((0, 4)), np.zeros((0, 2)))
    refined = run((images, weight, np.zeros((0, 2), int), np.zeros((0, 2))), np.zeros((0, 2)))
    assert refined.fluxes.shape == (0, 2) and refined.chi2.shape == (0,)


def test_near_sources_never_share_a_colour_and_colours_are_few():
    centres = np.random.default_rng(2).uniform(0, 400, (300, 2))
    colour = colours(neighbours(centres, reach=20.0))
    distance = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1))
    near = (distance < 20) & ~np.eye(len(centres), dtype=bool)
    assert not (near & (colour[:, None] == colour[None])).any()
    assert colour.max() + 1 <= 8
    assert len(colours(neighbours(np.zeros((0, 2))))) == 0


def test_a_galaxy_does_not_depend_on_where_far_ones_stand_in_the_list():
    # Two that just overlap, and twenty far off: more than take a step together.
    pair = [(40.5, 40.5), (40.5, 61.5)]
    far = [(200.5 + 40 * (k % 5), 30.5 + 40 * (k // 5)) for k in range(20)]
    truth, found = np.array([[0.3, 0.1, np.log(5.0), np.log(2e4)]] * 22), []
    for order in ([*range(22)], [0, *range(2, 22), 1]):
        centres = np.array([*pair, *far])[order]
        scene = make_scene(truth, centres, shape=(420, 220), seed=2)
        refined = run(scene, centres, fluxes=np.full((22, 2), 1e4), max_steps=3)
        found.append(refined.fluxes[[order.index(0), order.index(1)]])
    np.testing.assert_array_equal(found[0], found[1])
