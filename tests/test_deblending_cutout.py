# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The five-minute function: any order of bands, any zero point, bands missing, errors for people."""

from types import SimpleNamespace

import numpy as np
import pytest

from lsst.meas.extensions.vae.deblending import DeblendSettings, deblend, deblend_blend
from lsst.meas.extensions.vae.errors import ImageError, ModelPackageError
from lsst.meas.extensions.vae.network.model import Network
from lsst.meas.extensions.vae.network.shipped import load_package

pytest.importorskip("keras")


@pytest.fixture(scope="module")
def network():
    return Network(load_package("lsst10yr-ugrizy"), engine="keras")


@pytest.fixture(scope="module")
def cutout(network):
    """Two galaxies that the model itself draws, in noise."""
    rng = np.random.default_rng(1)
    noise = np.asarray(network.package.card["noise"])
    images = rng.normal(size=(6, 90, 100)) * noise[:, None, None]
    y, x = np.mgrid[:90, :100]
    for cy, cx, flux in ((40.3, 40.2, 3000.0), (50.1, 55.4, 1500.0)):
        blob = np.exp(-0.5 * ((y - cy) ** 2 + (x - cx) ** 2) / 9)
        images += flux * blob / blob.sum() * noise[:, None, None]
    variance = np.broadcast_to(noise[:, None, None] ** 2, images.shape)
    return images.astype("f4"), variance.astype("f4"), np.array([(40.3, 40.2), (50.1, 55.4)])


def test_a_cutout_in_the_models_own_terms_is_deblended_as_a_blend_is(network, cutout):
    images, variance, centres = cutout
    result = deblend(images, variance, None, centres, bands="ugrizy", model=network)
    plain = deblend_blend(images, variance, centres, network, settings=DeblendSettings(refine=True))
    np.testing.assert_allclose(result.models, plain.models, rtol=1e-5)
    np.testing.assert_allclose(result.fluxes, plain.fluxes, rtol=1e-5)


def test_order_of_bands_and_unit_are_the_users_own(network, cutout):
    images, variance, centres = cutout
    plain = deblend(images, variance, None, centres, bands="ugrizy", model=network)
    # Counts of AB zero points 27, 26, ...
    zero_point = np.array([27.0, 26.0, 28.0, 27.5, 27.1, 25.0])
    unit = 10 ** (-0.4 * (zero_point - 31.4))[:, None, None]
    order = [2, 1, 0, 5, 4, 3]
    found = deblend(
        (images / unit)[order],
        (variance / unit**2)[order],
        None,
        centres,
        bands="rguyzi",
        zero_point=zero_point[order],
        model=network,
    )
    np.testing.assert_allclose(
        found.models * unit[order], plain.models[:, order], rtol=1e-3, atol=1e-4 * plain.models.max()
    )
    np.testing.assert_allclose(found.fluxes * unit[order, 0, 0], plain.fluxes[:, order], rtol=1e-3)
    np.testing.assert_allclose(found.flux_errors * unit[order, 0, 0], plain.flux_errors[:, order], rtol=1e-3)


def test_bands_that_are_not_there_are_guessed_and_not_returned(network, cutout):
    images, variance, centres = cutout
    result = deblend(images[1:4], variance[1:4], None, centres, bands="gri", model=network)
    assert result.models.shape == (2, 3, 64, 64) and result.fluxes.shape == (2, 3)
    assert not result.failed.any() and not result.missing_bands.any()
    nan = images.copy()
    nan[[0, 4, 5]] = np.nan
    whole = deblend(nan, variance, None, centres, bands="ugrizy", model=network)
    np.testing.assert_allclose(whole.models[:, 1:4], result.models, rtol=1e-5)


def test_conditional_models_get_the_users_psfs_in_their_own_order(cutout):
    images, variance, centres = cutout
    seen = []

    def answer(stamps, noise, batch_size, psfs):
        seen.append(psfs)
        models = np.ones((len(stamps), 3, 64, 64), "f4")
        return models, np.zeros((len(stamps), 2), "f4"), np.ones((len(stamps), 2), "f4")

    own = np.full((3, 63, 63), 7.0)
    network = SimpleNamespace(
        bands=("g", "r", "i"),
        stamp_size=64,
        latent_dim=2,
        deblend=answer,
        own_psfs=lambda: own,
        architecture=SimpleNamespace(conditional=True, normalisation="noise"),
        package=SimpleNamespace(
            name="told",
            card={
                "pixel_scale": [0.2] * 3,
                "image_unit": "nJy",
                "psf": [{"kind": "gaussian", "fwhm": 0.8, "beta": None}] * 3,
                "psf_fwhm_range": [[0.3, 9.0]] * 3,
            },
        ),
    )
    kernels = np.arange(2 * 41 * 71.0).reshape(2, 41, 71)
    settings = DeblendSettings(joint_fluxes=False)
    deblend(images[:2], variance[:2], kernels, centres, bands="ri", model=network, settings=settings)
    g, r, i = seen[0]
    assert (g == 7).all()
    for psf, kernel in ((r, kernels[0]), (i, kernels[1])):
        np.testing.assert_array_equal(psf[11:52], kernel[:, 4:67])
        assert not psf[:11].any() and not psf[52:].any()
    several = [kernels[0][:, :33], kernels[1]]
    deblend(images[:2], variance[:2], several, centres, bands="ri", model=network, settings=settings)
    np.testing.assert_array_equal(seen[1][1][11:52, 15:48], several[0])
    for wrong in (kernels[:1], kernels[:, 0]):
        with pytest.raises(ImageError, match="PSF images have shape"):
            deblend(images[:2], variance[:2], wrong, centres, bands="ri", model=network)


@pytest.mark.parametrize("wrong", [np.ones((2, 3)), [1.0, 2.0, 3.0], np.ones((2, 1, 2))])
def test_centres_are_pairs(network, cutout, wrong):
    with pytest.raises(ImageError, match="centres have shape"):
        deblend(*cutout[:2], None, wrong, bands="ugrizy", model=network)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"bands": "ugriz"}, "6 images and 5 bands"),
        ({"bands": "ugrizK"}, "no band 'K'"),
        ({"bands": "uugriz"}, "'u' is given twice"),
        ({"pixel_scale": 0.05}, "0.05 arcsec a pixel.*takes 0.2"),
        ({"pixel_scale": float("nan")}, "nan arcsec"),
        ({"zero_point": float("inf")}, "zero_point is"),
        ({"variance": np.ones((6, 3, 3))}, "variances"),
    ],
)
def test_what_does_not_fit_is_named(network, cutout, changes, words):
    images, variance, centres = cutout
    arguments = {"variance": variance, "bands": "ugrizy", "model": network, **changes}
    with pytest.raises(ImageError, match=words):
        deblend(images, arguments.pop("variance"), None, centres, **arguments)


def test_an_unknown_model_is_named(cutout):
    with pytest.raises(ModelPackageError, match="no model package 'lost'"):
        deblend(*cutout[:2], None, cutout[2], bands="ugrizy", model="lost")
