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
