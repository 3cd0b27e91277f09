# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Architectures: sizes, stretches, losses with known minima."""

import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import ModelPackageError
from lsst.meas.extensions.vae.network.architecture import make_architecture

keras = pytest.importorskip("keras")


def trainable(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def gaussian_images(n=2, bands=6, flux=1000.0):
    y, x = np.mgrid[:64, :64] - 31.5
    morphology = np.exp(-0.5 * (x**2 + y**2) / 9.0)
    morphology /= morphology.sum()
    fluxes = flux * (1 + np.arange(bands))
    return np.broadcast_to(morphology[None, :, :, None] * fluxes, (n, 64, 64, bands)).astype("f4")


def test_the_papers_network_has_the_papers_numbers_of_weights():
    paper = make_architecture("arcelin2020", 6)
    assert trainable(paper.build_encoder()) == 2_545_868
    assert trainable(paper.build_decoder()) == 3_319_942


def test_the_papers_decoder_output_inverts_its_stretch():
    paper = make_architecture("arcelin2020", 3)
    y = np.random.default_rng(0).uniform(0, 30, (2, 64, 64, 3))
    s = y / np.sqrt(1 + y**2)
    np.testing.assert_allclose(paper.scaled_images(np.log(s / (1 - s))), np.moveaxis(y, -1, 1), rtol=1e-3)


def test_the_papers_stretch_is_tanh_of_arcsinh():
    from lsst.meas.extensions.vae.network.layers import Stretch

    y = np.linspace(-50, 50, 11).astype("f4")
    np.testing.assert_allclose(np.asarray(Stretch("tanh_arcsinh")(y)), np.tanh(np.arcsinh(y)), atol=1e-6)


def test_the_papers_loss_is_the_bernoulli_cross_entropy_summed_over_pixels_and_bands():
    paper = make_architecture("arcelin2020", 2)
    rng = np.random.default_rng(3)
    target, logits = (
        rng.uniform(0, 5, (2, 64, 64, 2)).astype("f4"),
        rng.normal(size=(2, 64, 64, 2)).astype("f4"),
    )
    p, q = np.tanh(np.arcsinh(target)), 1 / (1 + np.exp(-logits))
    expected = -(p * np.log(q) + (1 - p) * np.log(1 - q)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(np.asarray(paper.reconstruction_loss(target, logits)), expected, rtol=1e-4)


def test_a_perfect_shape_and_flux_have_no_loss_and_a_wrong_shape_has():
    ours = make_architecture("factorised", 6)
    target = gaussian_images()
    pixels = target.reshape(2, 4096, 6).astype("f8")
    flux = pixels.sum(axis=1)
    perfect = {
        "log_morphology": np.log(np.maximum(pixels / flux[:, None], 1e-12)).astype("f4"),
        "flux": np.arcsinh(flux / ours.flux_unit).astype("f4"),
    }
    loss = np.asarray(ours.reconstruction_loss(target, perfect))
    np.testing.assert_allclose(loss, 0, atol=1e-2 * 6 * 3600)
    rolled = dict(perfect, log_morphology=np.roll(perfect["log_morphology"], 2, axis=1))
    assert (np.asarray(ours.reconstruction_loss(target, rolled)) > loss + 100).all()
    brighter = dict(perfect, flux=perfect["flux"] + 0.5)
    assert (np.asarray(ours.reconstruction_loss(target, brighter)) > loss + 100).all()
    images = ours.scaled_images(perfect)
    np.testing.assert_allclose(images, np.moveaxis(target, -1, 1), rtol=1e-3, atol=1e-4)


def test_morphologies_are_positive_and_sum_to_one():
    ours = make_architecture("factorised", 2, latent_dim=4)
    output = ours.build_decoder()(np.random.default_rng(0).normal(size=(3, 4)).astype("f4"))
    morphology = np.exp(np.asarray(output["log_morphology"]))
    assert (morphology > 0).all()
    np.testing.assert_allclose(morphology.sum(axis=1), 1, rtol=1e-4)


def test_images_enter_in_units_of_the_scale_with_bands_last():
    ours = make_architecture("factorised", 2)
    images = np.random.default_rng(0).normal(size=(3, 2, 64, 64)).astype("f4")
    scale = ours.scale(np.array([[2.0, 4.0]] * 3))
    inside = ours.to_network(images, scale)
    assert inside.shape == (3, 64, 64, 2)
    np.testing.assert_allclose(inside[..., 1], images[:, 1] / 4)


def test_unknown_architectures_and_options_are_named():
    with pytest.raises(ModelPackageError, match="unknown architecture 'vit'.*arcelin2020"):
        make_architecture("vit", 6)
    with pytest.raises(ModelPackageError, match="no option 'depth'"):
        make_architecture("factorised", 6, depth=3)


def morphology_output(ours, target):
    """What a perfect decoder would give for images whose bands share a shape."""
    pixels = target.reshape(len(target), 4096, -1).astype("f8")
    flux = pixels.sum(axis=1)
    shapes = pixels / flux[:, None]
    firsts = [int(np.flatnonzero(ours.groups == group)[0]) for group in range(ours.n_maps)]
    return {
        "log_morphology": np.log(np.maximum(shapes[:, :, firsts], 1e-12)).astype("f4"),
        "flux": np.arcsinh(flux / ours.flux_unit).astype("f4"),
    }


def test_one_morphology_for_the_bands_of_a_group_gives_their_images_back_without_loss():
    ours = make_architecture("morphology", 6, groups=(0, 0, 0, 1, 1, 1))
    target = gaussian_images()
    target[..., 3:] = np.roll(target[..., 3:], 3, axis=2)
    perfect = morphology_output(ours, target)
    np.testing.assert_allclose(ours.scaled_images(perfect), np.moveaxis(target, -1, 1), rtol=1e-3, atol=1e-4)
    loss = np.asarray(ours.reconstruction_loss(target, perfect))
    np.testing.assert_allclose(loss, 0, atol=1e-2 * 6 * 3600)
    for band, group in ((0, 0), (5, 1)):
        wrong = {name: array.copy() for name, array in perfect.items()}
        wrong["log_morphology"][:, :, group] = np.roll(wrong["log_morphology"][:, :, group], 2, axis=1)
        assert (np.asarray(ours.reconstruction_loss(target, wrong)) > loss + 100).all()
        brighter = dict(perfect, flux=perfect["flux"] + 0.5 * (np.arange(6) == band))
        assert (np.asarray(ours.reconstruction_loss(target, brighter)) > loss + 10).all()


def test_error_of_moments_weighs_what_it_is_asked_to():
    target, turned = gaussian_images(bands=1), gaussian_images(bands=1)
    y, x = np.mgrid[:64, :64] - 31.5
    turned[..., 0] = 1000 * np.exp(-0.5 * (x**2 / 12 + y**2 / 7)) / (2 * np.pi * np.sqrt(84))
    losses = {}
    for weight in (0.0, 1.0, 2.0):
        ours = make_architecture("morphology", 1, moment_weight=weight)
        losses[weight] = np.asarray(ours.reconstruction_loss(target, morphology_output(ours, turned)))
    np.testing.assert_allclose(losses[2.0] - losses[0.0], 2 * (losses[1.0] - losses[0.0]), rtol=1e-4)

    # Analytic: moments of a Gaussian under a Gaussian weight, relative to its weighted flux.
    def moments(xx, yy, w=16.0):
        a, b = 1 / (1 / xx + 1 / w), 1 / (1 / yy + 1 / w)
        flux = np.sqrt(a * b / (xx * yy))
        return flux * np.array([1, (a - b) / w, 0, (a + b) / w])

    difference = (moments(12, 7) - moments(9, 9)) / moments(9, 9)[0]
    snr2 = (target**2).sum(axis=(1, 2, 3))
    weight = snr2 / (1 + snr2 / 60**2)
    np.testing.assert_allclose(losses[1.0] - losses[0.0], weight * (difference**2).sum(), rtol=1e-2)


def test_groups_of_bands_follow_from_the_survey():
    from lsst.meas.extensions.vae.survey import get_survey

    six, ten = (get_survey("arcelin2020", bands) for bands in ("ugrizy", None))
    assert make_architecture("morphology", 6, survey=six).groups.tolist() == [0] * 6
    ours = make_architecture("morphology", 10, latent_dim=4, survey=ten, hidden=8, wide=8)
    assert ours.groups.tolist() == [0] * 6 + [1, 2, 2, 2]
    output = ours.build_decoder()(np.zeros((1, 4), "f4"))
    assert output["log_morphology"].shape == (1, 4096, 3)


def test_the_likelihood_of_pixels_is_half_of_chi_squared_with_the_galaxys_own_noise():
    sky = (100.0, 400.0)
    options = dict(groups=(0,), likelihood="gaussian")
    without, ours = (make_architecture("morphology", 2, **options, **more) for more in ({}, {"sky": sky}))
    target = gaussian_images(bands=2)
    rng = np.random.default_rng(0)
    maps = rng.dirichlet(np.ones(4096), size=2).astype("f4")
    output = {"log_morphology": np.log(maps)[:, :, None], "flux": np.float32([[3.0, -1.0], [5.0, 2.0]])}
    model = np.moveaxis(ours.scaled_images(output), 1, -1)
    chi2 = (target.astype("f8") - model) ** 2
    np.testing.assert_allclose(
        np.asarray(without.reconstruction_loss(target, output)), chi2.sum(axis=(1, 2, 3)) / 2, rtol=1e-4
    )
    # In electrons: the pixel's own variance over the sky's.
    variance = (np.array(sky) + target * np.sqrt(sky)) / np.array(sky)
    np.testing.assert_allclose(
        np.asarray(ours.reconstruction_loss(target, output)),
        (chi2 / variance).sum(axis=(1, 2, 3)) / 2,
        rtol=1e-4,
    )
    with pytest.raises(ModelPackageError, match=r"likelihood 'cauchy': expected"):
        make_architecture("morphology", 2, likelihood="cauchy")
    with pytest.raises(ModelPackageError, match="'factorised' has no option 'likelihood'"):
        make_architecture("factorised", 2, likelihood="gaussian")
