# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""PSFs, depths and missing bands: transfer functions against GalSim, and the network that is told of them."""

from dataclasses import replace

import galsim
import numpy as np
import pytest
from astropy.table import Table

from lsst.meas.extensions.vae.errors import ImageError, TrainingError
from lsst.meas.extensions.vae.network.architecture import make_architecture
from lsst.meas.extensions.vae.network.composer import SceneComposer, turn, turn_psfs
from lsst.meas.extensions.vae.network.observation import (
    ObservationSettings,
    Observer,
    conditions,
    kernel_transfer,
    resized,
)
from lsst.meas.extensions.vae.simulation.shards import StampSample, pack_profiles
from lsst.meas.extensions.vae.survey import PsfModel, get_survey

SCALE, SIGMA = 0.2, 0.955
GALAXY = galsim.Exponential(half_light_radius=0.5).shear(g1=0.3, g2=-0.2)


def drawn(psf):
    """The galaxy through a PSF, and at the model PSF, by GalSim."""
    size = {"nx": 64, "ny": 64, "scale": SCALE, "dtype": float}
    seen = galsim.Convolve(GALAXY, psf.profile()).drawImage(**size).array
    model = galsim.Convolve(GALAXY, galsim.Gaussian(sigma=SIGMA * SCALE))
    return seen, model.drawImage(method="no_pixel", **size).array


def observer(psf):
    return Observer([(psf, SCALE)], [0, 0], SIGMA, 64)


def packed(psf, n=1):
    return np.tile(np.array([[[psf.fwhm, psf.e1, psf.e2]]], np.float32), (n, 1, 1))


@pytest.mark.parametrize(
    "psf",
    [
        PsfModel("kolmogorov", 0.8, e1=0.08, e2=-0.05),
        PsfModel("kolmogorov", 0.55),
        PsfModel("moffat", 0.7, 2.5, e1=-0.1, e2=0.1),
        PsfModel("gaussian", 0.9, e2=0.2),
    ],
)
def test_a_transfer_function_takes_the_model_psfs_image_to_that_which_galsim_draws(psf):
    seen, model = drawn(psf)
    transfer = observer(replace(psf, fwhm=1.0, e1=0.0, e2=0.0)).transfer(packed(psf))
    for band in (0, 1):
        image = np.fft.irfft2(np.fft.rfft2(model) * transfer[0, band])
        # What is wrong by a tenth of a per cent is wrong by less than 1e-3 of the peak.
        np.testing.assert_allclose(image, seen, atol=3e-4 * seen.max())


def test_a_psf_image_has_the_transfer_function_of_its_psf():
    psf = PsfModel("gaussian", 0.8, e1=0.1, e2=0.05)
    known = observer(psf).transfer(packed(psf))[0, 0]
    for size in (41, 63, 127):
        found = kernel_transfer(3.0 * psf.kernel(SCALE, size), SIGMA, 64)
        np.testing.assert_allclose(found.real, known, atol=2e-3)
        assert abs(found.imag).max() < 1e-4


def test_a_psf_image_off_its_middle_moves_the_galaxy():
    kernel = np.roll(PsfModel("gaussian", 0.8).kernel(SCALE, 41), 2, axis=1)
    _, model = drawn(PsfModel("gaussian", 0.8))
    image = np.fft.irfft2(np.fft.rfft2(model) * kernel_transfer(kernel, SIGMA, 64))
    x = (image.sum(axis=0) * np.arange(64)).sum() / image.sum()
    assert x == pytest.approx(33.5, abs=0.02)


OUTER = np.pad(np.zeros((99, 99)), 1, constant_values=1.0)
"""A PSF of which no stamp has anything."""


@pytest.mark.parametrize("bad", [np.full((41, 41), np.nan), np.zeros((41, 41)), OUTER])
def test_psf_images_that_are_none_are_refused(bad):
    with pytest.raises(ImageError, match="PSF image"):
        kernel_transfer(bad, SIGMA, 64)


@pytest.mark.parametrize("size", [1, 6, 7, 12, 13])
@pytest.mark.parametrize("shape", [(5, 5), (6, 9), (12, 13), (21, 3)])
def test_resized_psf_images_keep_their_middle(shape, size):
    kernel = np.zeros((2, *shape))
    kernel[:, shape[0] // 2, shape[1] // 2] = [1, 2]
    found = resized(kernel, size)
    assert found.shape == (2, size, size)
    assert found[:, size // 2, size // 2].tolist() == [1, 2] and found.sum() == 3


def test_conditions_tell_widths_directions_depths_and_missing_bands():
    def told(fwhm=0.8, e1=0.0, e2=0.0, noise=(1.0, 1.0)):
        psf = PsfModel("kolmogorov", fwhm, e1=e1, e2=e2)
        return conditions(observer(psf).transfer(packed(psf)), np.array([noise]))[0].reshape(2, 6)

    round_one = told()
    assert (told(fwhm=1.0)[:, 2:] > round_one[:, 2:] + 0.2).all()
    along_x = told(e1=0.1)[0] - round_one[0]
    assert along_x[2] > 0.1 and along_x[3] < -0.1 and abs(along_x[4] - along_x[5]) < 1e-5
    diagonal = told(e2=0.1)[0] - round_one[0]
    assert diagonal[4] > 0.1 and diagonal[5] < -0.1
    deep = told(noise=(0.5, np.inf))
    assert deep[0, 1] == pytest.approx(np.log(0.5)) and deep[0, 0] == 1 and not deep[1].any()


def test_depths_are_drawn_between_their_limits_and_one_band_stays():
    noise = ObservationSettings(0.1, 1.5, 0.8).draw(np.random.default_rng(1), 4000, 3)
    seen = np.isfinite(noise)
    assert seen.any(axis=1).all()
    assert 0.2 < 1 - seen.mean() < 0.8 * 0.9
    depth = noise[seen] ** -2.0
    assert 0.1 / 2.5 < depth.min() < 0.1 < 1.5 < depth.max() < 1.5 * 2.5
    assert np.exp(np.mean(np.log(depth))) == pytest.approx(np.sqrt(0.15), rel=0.05)
    assert (ObservationSettings().draw(np.random.default_rng(1), 5, 3) == 1).all()


@pytest.mark.parametrize(
    "wrong", [{"depth_min": 2.0}, {"depth_min": 0.0}, {"band_dropout": 1.0}, {"depth_max": float("nan")}]
)
def test_observations_out_of_range_are_refused(wrong):
    with pytest.raises(TrainingError, match="expected"):
        ObservationSettings(**wrong)


@pytest.mark.parametrize("way", range(8))
def test_psfs_turn_as_images_do(way):
    psf = PsfModel("moffat", 0.8, 2.5, e1=0.1, e2=0.15)
    fwhm, e1, e2 = turn_psfs(packed(psf)[0, 0], way).tolist()
    expected = turn(psf.kernel(SCALE), way)
    np.testing.assert_allclose(replace(psf, fwhm=fwhm, e1=e1, e2=e2).kernel(SCALE), expected, atol=1e-6)


# -- batches ------------------------------------------------------------------------------


def blank_sample(n=64):
    """Galaxies too faint to be seen, each through a PSF of its own."""
    survey = get_survey("lsst10yr", ("r", "i"))
    profiles = np.zeros((n, 2, 64, 64), np.float32)
    profiles[:, :, 30:34, 30:34] = 1 / 16
    psf = np.zeros((n, 2, 3), np.float32)
    psf[:, :, 0] = 0.8
    psf[:, :, 1] = 0.2
    sample = StampSample(
        survey="lsst10yr",
        bands=("r", "i"),
        kind="isolated",
        settings={"placement": "field", "centring": "pixelisation"},
        seed=1,
        split="train",
        versions={},
        profiles=pack_profiles(profiles),
        fluxes=np.full((n, 2), 1e-3, np.float32),
        scene=np.arange(n, dtype=np.int32),
        galaxy=np.zeros(n, np.int8),
        truth=Table({"scene": np.arange(n, dtype=np.int32)}),
        band_profile=np.array([0, 1]),
        psf=psf,
    )
    return sample, survey


def composer(sample, survey, **kwargs):
    eyes = Observer(survey.profile_kinds, survey.band_profile, SIGMA, 64)
    settings = ObservationSettings(**kwargs)
    return SceneComposer([sample], survey, isolated=True, observed=settings, observer=eyes, seed=3)


def test_batches_come_in_units_of_their_own_noise_with_missing_bands_empty():
    sample, survey = blank_sample()
    maker = composer(sample, survey, depth_min=0.1, depth_max=2.0, band_dropout=0.3)
    noisy, clean, transfer, noise = maker.batch(0, 64, maker.noise)
    seen = np.isfinite(noise)
    assert 0.02 < 1 - seen.mean() < 0.4 and np.ptp(noise[seen]) > 1
    assert not noisy[~seen].any()
    scatter = noisy[seen].std(axis=(1, 2))
    np.testing.assert_allclose(scatter, 1.0, atol=0.06)
    assert transfer.shape == (64, 2, 64, 33)
    # Targets do not know of it.
    plain = composer(sample, survey).batch(0, 64, maker.noise)
    np.testing.assert_array_equal(plain[1], clean)
    assert (plain[3] == 1).all()


def test_a_shallower_scene_keeps_its_galaxies_and_has_the_more_noise():
    sample, survey = blank_sample()
    sample.fluxes[:] = 4000.0
    deep, shallow = (composer(sample, survey, depth_min=d, depth_max=d) for d in (1.0, 0.25))
    images, clean, _, noise = shallow.batch(0, 64, shallow.noise)
    image = images * noise[:, :, None, None]
    # In units of the survey's noise: source and variance of a quarter of the time.
    np.testing.assert_allclose(image.mean(axis=0), clean.mean(axis=0), atol=2.0)
    corner = np.s_[:, :, :20, :20]
    # Bands scatter by 0.2 in the logarithm of the depth, 0.1 in that of the noise.
    assert image[corner].std() == pytest.approx(2.0, rel=0.1)
    assert deep.batch(0, 64, deep.noise)[0][corner].std() == pytest.approx(1.0, rel=0.02)


def test_psfs_of_a_batch_are_turned_with_their_scenes():
    sample, survey = blank_sample()
    transfer = composer(sample, survey).batch(0, 64)[2]
    eyes = Observer(survey.profile_kinds, survey.band_profile, SIGMA, 64)
    known = {}
    for sign in (1, -1):
        known[sign] = eyes.transfer(sample.psf[:1] * [1, sign, 1])[0]
    close = {sign: [np.allclose(t, k, atol=1e-6) for t in transfer] for sign, k in known.items()}
    assert all(a != b for a, b in zip(close[1], close[-1], strict=True))
    assert 20 < sum(close[1]) < 44


# -- the network ----------------------------------------------------------------------------

BANDS = ("r", "i")


@pytest.fixture(scope="module")
def network():
    from lsst.meas.extensions.vae.network.backend import load_keras
    from lsst.meas.extensions.vae.network.model import Network, get_weights
    from lsst.meas.extensions.vae.network.package import ModelPackage

    keras = load_keras()
    keras.utils.set_random_seed(1)
    survey = get_survey("lsst10yr", BANDS)
    ours = make_architecture("conditional", 2, 64, 8, survey=survey, filters=(8, 8, 8), hidden=16, wide=16)
    encoder, decoder = ours.build_encoder(), ours.build_decoder()
    weights = get_weights(decoder)
    weights["flux/bias"] += 3
    weights["logits/kernel"] *= 20
    card = {
        "name": "untrained",
        "architecture": {"name": "conditional", "options": {**ours.options}},
        "survey": "lsst10yr",
        "bands": list(BANDS),
        "image_unit": "nJy",
        "pixel_scale": [0.2, 0.2],
        "psf": [{"kind": b.psf.kind, "fwhm": b.psf.fwhm, "beta": b.psf.beta} for b in survey.bands],
        "noise": [2.0, 3.0],
        "stamp_size": 64,
        "latent_dim": 8,
        "normalisation": {"kind": "noise"},
    }
    package = ModelPackage(card, {"decoder": weights, "deblender_encoder": get_weights(encoder)})
    return Network(package, engine="keras")


def kernels(*psfs):
    return np.stack([psf.kernel(SCALE, 63) for psf in psfs])


def test_what_the_loss_compares_is_what_the_network_draws(network):
    ours = network.architecture
    latents = np.random.default_rng(0).normal(size=(3, 8)).astype("f4")
    output = {name: np.asarray(value) for name, value in network.decoder(latents).items()}
    psf = PsfModel("kolmogorov", 0.8, e1=0.1)
    transfer = observer(psf).transfer(packed(psf, 3))
    images = ours.scaled_images(output, transfer)
    flux = images.sum(axis=(2, 3))
    loss = np.asarray(
        ours.reconstruction_loss(
            np.moveaxis(np.maximum(images, 0), 1, -1), output, transfer=transfer, noise=np.ones((3, 2), "f4")
        )
    )
    # Only what the ripples below zero hold is lost.
    assert (flux > 10).all() and (loss < 0.05).all()
    wider = np.asarray(
        ours.reconstruction_loss(
            np.moveaxis(np.maximum(images, 0), 1, -1),
            output,
            transfer=observer(psf).transfer(packed(replace(psf, fwhm=1.0), 3)),
            noise=np.ones((3, 2), "f4"),
        )
    )
    assert (wider > 20 * loss).all()


def test_one_galaxy_is_drawn_through_any_psf_and_keeps_its_flux(network):
    latents = np.random.default_rng(1).normal(size=(2, 8)).astype("f4")
    sharp, wide = (PsfModel("gaussian", fwhm) for fwhm in (0.7, 1.0))
    a, b = (network.decode(latents, [2.0, 3.0], psfs=kernels(psf, psf)) for psf in (sharp, wide))
    np.testing.assert_allclose(a.sum(axis=(2, 3)), b.sum(axis=(2, 3)), rtol=1e-4)
    # A Gaussian more takes one to the other.
    more = np.sqrt(1.0**2 - 0.7**2) / np.sqrt(8 * np.log(2)) / SCALE
    fy, fx = np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)
    smoothed = np.fft.irfft2(np.fft.rfft2(a) * np.exp(-2 * np.pi**2 * more**2 * (fy**2 + fx**2)))
    np.testing.assert_allclose(smoothed, b, atol=2e-3 * b.max())


def test_latents_do_not_know_the_noise_and_images_are_in_the_image_unit(network):
    latents = np.zeros((1, 8), "f4")
    a, b = network.decode(latents, [2.0, 3.0]), network.decode(latents, [20.0, np.inf])
    np.testing.assert_array_equal(a, b)
    output = {name: np.asarray(value) for name, value in network.decoder(latents).items()}
    flux = network.architecture.flux_unit * np.sinh(output["flux"][0]) * [2.0, 3.0]
    np.testing.assert_allclose(a[0].sum(axis=(1, 2)), flux, rtol=1e-4)


def test_the_encoder_is_told_psf_and_noise_and_no_pixel_of_a_missing_band(network):
    rng = np.random.default_rng(2)
    images = rng.normal(0, 2, (2, 2, 64, 64)).astype("f4")
    own = network.encode(images, [2.0, 3.0])[0]
    survey = get_survey("lsst10yr", BANDS)
    np.testing.assert_allclose(
        network.encode(images, [2.0, 3.0], psfs=kernels(*(b.psf for b in survey.bands)))[0], own, atol=1e-5
    )
    wide = kernels(*[PsfModel("kolmogorov", 1.1)] * 2)
    assert abs(network.encode(images, [2.0, 3.0], psfs=wide)[0] - own).max() > 1e-3
    # The same pixels in units of their noise.
    assert abs(network.encode(2 * images, [4.0, 6.0])[0] - own).max() > 1e-3
    missing = network.encode(images, [2.0, np.inf])[0]
    images[:, 1] = 1e4
    np.testing.assert_array_equal(network.encode(images, [2.0, np.inf])[0], missing)
    assert abs(missing - own).max() > 1e-3


def test_one_psf_for_each_stamp_or_one_for_all(network):
    images = np.random.default_rng(3).normal(0, 2, (3, 2, 64, 64)).astype("f4")
    one = kernels(*[PsfModel("kolmogorov", 0.9)] * 2)
    a = network.deblend(images, [2.0, 3.0], psfs=one)[0]
    b = network.deblend(images, [2.0, 3.0], psfs=np.stack([one] * 3))[0]
    np.testing.assert_array_equal(a, b)
    for wrong in (one[:1], np.stack([one] * 2), one[0]):
        with pytest.raises(ImageError, match="PSF images have shape"):
            network.deblend(images, [2.0, 3.0], psfs=wrong)


def test_noise_and_latents_of_wrong_shapes_are_refused(network):
    images = np.zeros((3, 2, 64, 64), "f4")
    for noise in ([1.0] * 5, np.ones((2, 2)), np.ones((1, 3, 2))):
        with pytest.raises(ImageError, match="noise has shape"):
            network.deblend(images, noise)
        with pytest.raises(ImageError, match="noise has shape"):
            network.decode(np.zeros((3, 8)), noise)
    with pytest.raises(ImageError, match="latents have shape"):
        network.decode(np.zeros((3, 7)), [2.0, 3.0])


def test_bands_of_several_pixel_scales_are_refused():
    with pytest.raises(TrainingError, match="one pixel scale"):
        make_architecture("conditional", 10, survey=get_survey("arcelin2020"))
