# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refinement moves along those directions of the latent space that change images, and no others."""

import numpy as np
import pytest
from test_deblending_refine import COVARIANCE, MEAN, ToyNetwork, make_scene, run

from lsst.meas.extensions.vae.deblending.directions import sensitive_directions

# The toy's four latents, mixed with four that its decoder ignores.
MIXED = np.linalg.qr(np.random.default_rng(3).normal(size=(8, 8)))[0]


class IdleNetwork(ToyNetwork):
    """The toy, in a latent space of eight dimensions of which it looks at four."""

    latent_dim = 8
    latent_prior = (
        MIXED @ np.concatenate([MEAN, np.zeros(4)]),
        MIXED @ np.diag([*np.diagonal(COVARIANCE), 4.0, 1.0, 0.5, 2.0]) @ MIXED.T,
    )

    def templates(self, latents, noise, transfer=None, coarse=False):
        return super().templates((latents @ MIXED)[..., :4], noise, transfer, coarse)


def test_directions_that_change_no_image_are_left_out():
    found = sensitive_directions(IdleNetwork())
    assert found.basis.shape == (8, 4)
    # They span the latents that the toy looks at.
    np.testing.assert_allclose((MIXED.T @ found.basis)[4:], 0, atol=5e-3)


def test_coordinates_are_standard_normal_under_the_prior_and_give_latents_back():
    found, (mean, covariance) = sensitive_directions(IdleNetwork()), IdleNetwork.latent_prior
    np.testing.assert_allclose(found.inverse @ covariance @ found.inverse.T, np.eye(4), atol=1e-9)
    u = np.random.default_rng(0).normal(size=(5, 4))
    np.testing.assert_allclose(found.coordinates(found.latents(u)), u, atol=1e-9)
    np.testing.assert_allclose(found.basis @ found.basis.T + found.rest, covariance, atol=1e-9)
    np.testing.assert_allclose(found.coordinates(mean), 0, atol=1e-9)


def test_refinement_finds_the_same_galaxy_however_many_latents_are_idle():
    truth, centres = np.array([[0.3, -0.2, np.log(3.0), np.log(2e4)]]), [(31.5, 31.5)]
    scene = make_scene(truth, centres)
    plain, idle = (
        run(scene, centres, np.atleast_2d(network.latent_prior[0]), network, prior_width=0.1)
        for network in (ToyNetwork(), IdleNetwork())
    )
    np.testing.assert_allclose((idle.latents @ MIXED)[:, :4], plain.latents, atol=2e-3)
    np.testing.assert_allclose(idle.fluxes, plain.fluxes, rtol=1e-4)
    covariance = MIXED.T @ idle.covariance[0, :8, :8] @ MIXED
    np.testing.assert_allclose(np.diagonal(covariance)[:4], np.diagonal(plain.covariance[0])[:4], rtol=0.15)
    # Nothing is learned of the idle ones.
    np.testing.assert_allclose(covariance[4:, 4:], np.diag([4.0, 1.0, 0.5, 2.0]), atol=0.01)
    np.testing.assert_allclose((idle.latents @ MIXED)[:, 4:], 0, atol=0.01)


def test_novelty_is_the_mean_square_distance_from_the_priors_mean():
    truth, centres = MEAN[None] + [[3 * 0.2, 0, 0, 0.0]], [(31.5, 31.5)]
    bright = truth + [[0, 0, 0, 3.0]]
    usual, odd = (run(make_scene(z, centres), centres, prior_width=0.1) for z in (MEAN[None], bright))
    assert usual.novelty[0] < 0.5
    # Three standard deviations in shape and three in brightness, over four directions.
    assert odd.novelty[0] == pytest.approx(18 / 4, rel=0.25)
