# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws from the posterior scatter as the errors of known galaxies do."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("galsim")

from test_deblending_refine import NOISE, SIZE, ToyNetwork, make_scene, run  # noqa: E402

from lsst.meas.extensions.vae.deblending import draw_posterior  # noqa: E402
from lsst.meas.extensions.vae.errors import ImageError  # noqa: E402
from lsst.meas.extensions.vae.simulation.metrics import ksb_shear  # noqa: E402

TRUTH = np.array([0.2, -0.1, np.log(3.0), np.log(4e3)])


class Network(ToyNetwork):
    bands = ("g", "r")
    package = SimpleNamespace(name="toy")
    floors = {"shape": 0.0, "flux": 0.0, "shape_scale": 1.0, "flux_scale": 1.0, "tails": 0.0}


def deblended(seed=0, network=None):
    network = network or Network()
    refined = run(make_scene(TRUTH[None], [(31.5, 31.5)], seed=seed), [(31.5, 31.5)], network=network)
    return SimpleNamespace(
        failed=np.array([False]),
        latent_mean=refined.latents,
        latent_sigma=np.sqrt(np.diagonal(refined.covariance, axis1=1, axis2=2))[:, :4],
        fluxes=refined.fluxes,
        flux_errors=np.full((1, 2), 10.0),
        shifts=refined.shifts,
        covariance=refined.covariance,
        noise=NOISE[None],
    )


@pytest.fixture(scope="module")
def narrow_psf():
    y, x = np.mgrid[-20:21, -20:21]
    psf = np.exp(-(x**2 + y**2) / (2 * 1.2**2))
    return psf / psf.sum()


def test_draws_have_the_mean_and_the_covariance_of_the_refined_source():
    result = deblended()
    draws = draw_posterior(result, 0, Network(), 20_000, seed=1)
    together = np.hstack([draws.latents, draws.fluxes])
    expected = result.covariance[0].astype(float)
    sigma = np.sqrt(np.diagonal(expected))
    mean = np.concatenate([result.latent_mean[0], result.fluxes[0]])
    np.testing.assert_allclose((together.mean(axis=0) - mean) / sigma, 0, atol=0.04)
    np.testing.assert_allclose(
        np.cov(together.T) / np.outer(sigma, sigma), expected / np.outer(sigma, sigma), atol=0.04
    )


def test_errors_of_ellipticity_and_magnitude_over_noise_are_those_that_draws_tell(narrow_psf):
    network = Network()
    image = network.templates(TRUTH[None, None], None)[0][0, 0, 0]
    e_true = ksb_shear(image, narrow_psf)[:2]
    pulls, magnitudes = [], []
    for seed in range(40):
        draws = draw_posterior(deblended(seed), 0, network, 60, seed=seed)
        e, magnitude = draws.ellipticities("r", narrow_psf), draws.magnitudes()[:, 1]
        pulls.append((e.mean(axis=0) - e_true) / e.std(axis=0))
        magnitudes.append((magnitude.mean() + 2.5 * np.log10(4e3)) / magnitude.std())
    assert 0.75 < np.std(pulls) < 1.25
    assert 0.7 < np.std(magnitudes) < 1.3


def half(values):
    """Half of the 68 % interval."""
    return np.diff(np.percentile(values, [16, 84], axis=0), axis=0)[0] / 2


def test_floors_of_the_card_are_added_to_shapes_and_alike_to_all_fluxes(narrow_psf):
    class Uncertain(Network):
        floors = {**Network.floors, "shape": 0.05, "flux": 0.2}

    result = deblended()
    plain, floored = (draw_posterior(result, 0, network, 400, seed=2) for network in (Network(), Uncertain()))
    e, more = (half(draws.ellipticities("g", narrow_psf)) for draws in (plain, floored))
    np.testing.assert_allclose(more, np.hypot(e, 0.05), rtol=0.2)
    np.testing.assert_allclose(half(np.log(floored.fluxes)), 0.2, rtol=0.2)
    colour = floored.magnitudes()
    own = plain.magnitudes()
    np.testing.assert_allclose(np.std(colour[:, 0] - colour[:, 1]), np.std(own[:, 0] - own[:, 1]), rtol=0.15)


def test_scales_of_the_card_widen_latents_and_fluxes_each_by_its_own():
    class Wider(Network):
        floors = {**Network.floors, "shape_scale": 2.0, "flux_scale": 1.5}

    result = deblended()
    plain, wide = (draw_posterior(result, 0, network, 4000, seed=2) for network in (Network(), Wider()))
    np.testing.assert_allclose(wide.latents.std(axis=0), 2.0 * plain.latents.std(axis=0), rtol=1e-6)
    np.testing.assert_allclose(wide.fluxes.std(axis=0), 1.5 * plain.fluxes.std(axis=0), rtol=1e-6)
    np.testing.assert_allclose(np.mean(wide.latents, axis=0), result.latent_mean[0], atol=0.1)


def test_tails_leave_the_68_percent_interval_and_widen_the_95_percent_one():
    class Heavy(Network):
        floors = {**Network.floors, "tails": 4.0}

    result = deblended()
    plain, heavy = (draw_posterior(result, 0, network, 20_000, seed=2) for network in (Network(), Heavy()))
    np.testing.assert_allclose(half(heavy.latents), half(plain.latents), rtol=0.03)
    wide = [np.diff(np.percentile(d.fluxes, [2.275, 97.725], axis=0), axis=0)[0] for d in (plain, heavy)]
    # Of Student's t with four degrees of freedom: 2.87 for 1.14, where a Gaussian has 2 for 1.
    np.testing.assert_allclose(wide[1] / wide[0], 2.869 / 1.142 / 2, rtol=0.03)


def test_shifts_move_the_shapes_where_latents_do_not_tell_them():
    network = Network(knows_shifts=False)
    draws = draw_posterior(deblended(network=network), 0, network, 300, seed=3)
    images = draws.shapes("g")
    assert images.shape == (300, SIZE, SIZE)
    centre = (images * np.arange(SIZE)[:, None]).sum(axis=(1, 2)) - (SIZE - 1) / 2
    np.testing.assert_allclose(centre, draws.shifts[:, 0], atol=0.02)
    assert draws.shifts.std() > 0.005


def test_after_one_pass_draws_are_the_encoders_with_the_fluxes_own_errors():
    result = deblended()
    result.covariance = result.shifts = None
    draws = draw_posterior(result, 0, Network(), 5000, seed=4)
    np.testing.assert_allclose(draws.latents.std(axis=0), result.latent_sigma[0], rtol=0.05)
    np.testing.assert_allclose(draws.fluxes.std(axis=0), 10.0, rtol=0.05)


def test_the_same_seed_gives_the_same_draws_and_another_others():
    result = deblended()
    first, again, other = (draw_posterior(result, 0, Network(), 50, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.latents, again.latents)
    assert not np.array_equal(first.latents, other.latents)


@pytest.mark.parametrize(
    ("index", "n", "failed", "message"),
    [(1, 10, False, "no source 1"), (0, 0, False, "n_samples is 0"), (0, 10, True, "has no model")],
)
def test_what_cannot_be_drawn_is_said(index, n, failed, message):
    result = deblended()
    result.failed[:] = failed
    with pytest.raises(ImageError, match=message):
        draw_posterior(result, index, Network(), n)


def test_a_flux_below_zero_has_no_magnitude():
    result = deblended()
    result.fluxes = np.array([[-5.0, 4e3]])
    result.covariance = result.covariance * 1e-6
    magnitudes = draw_posterior(result, 0, Network(), 20).magnitudes(zero_point=[27.0, 27.0])
    assert np.isnan(magnitudes[:, 0]).all()
    np.testing.assert_allclose(magnitudes[:, 1], 27 - 2.5 * np.log10(4e3), atol=0.01)
