# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Conditional networks on their way from shards to an exposure: training, and the PSFs of an exposure."""

import dataclasses
import logging
from types import SimpleNamespace

import numpy as np
import pytest

from lsst.meas.extensions.vae.afw import Box2I, Extent2I, MultibandExposure, MultibandImage, Point2I
from lsst.meas.extensions.vae.afw.multiband import IncompleteDataError
from lsst.meas.extensions.vae.deblending import deblend_blend
from lsst.meas.extensions.vae.errors import ImageError, TrainingError
from lsst.meas.extensions.vae.exposureChecks import ExposurePsfs, selectBands
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.network.settings import TrainingSettings
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.survey import PsfModel, get_survey

pytest.importorskip("keras")

BANDS = ("g", "r")
SETTINGS = dict(
    architecture="conditional",
    batch_size=8,
    steps_per_epoch=2,
    epochs=2,
    latent_dim=4,
    warmup_steps=1,
    validation_scenes=8,
    validation_every=2,
    precision="float32",
    collapse_epochs=100,
    depth_min=0.2,
    depth_max=1.5,
    band_dropout=0.2,
)


@pytest.fixture(scope="module")
def samples():
    survey, galaxies = get_survey("lsst10yr", BANDS), synthetic_galaxies(3000, seed=1)
    scenes = SceneSettings(
        placement="field",
        mag_limit=None,
        target_snr_min=20.0,
        psf_fwhm_scatter=0.1,
        psf_shear_sigma=0.02,
    )
    return {
        split: simulate_stamps(galaxies.split(split), survey, scenes, n, seed=5, split=split)
        for split, n in (("train", 32), ("validation", 8))
    }


def train(stage, samples, directory, prior=None, **changes):
    from lsst.meas.extensions.vae.network import training

    return training.train(
        stage,
        [samples["train"]],
        samples["validation"],
        get_survey("lsst10yr", BANDS),
        TrainingSettings(**{**SETTINGS, **changes}),
        directory,
        prior=prior,
    )


@pytest.fixture(scope="module")
def prior(samples, tmp_path_factory):
    return train("prior", samples, tmp_path_factory.mktemp("prior"))


def test_a_training_learns_resumes_to_the_same_weights_and_tells_the_psfs_it_knows(prior, samples, tmp_path):
    train("prior", samples, tmp_path, epochs=1, schedule="constant")
    whole = train("prior", samples, tmp_path / "whole", epochs=2, schedule="constant")
    resumed = train("prior", samples, tmp_path, epochs=2, schedule="constant")
    for part in ("prior_encoder", "decoder"):
        for name, value in whole.part(part).items():
            np.testing.assert_array_equal(resumed.part(part)[name], value, err_msg=name)
    for (low, high), kind in zip(prior.card["psf_fwhm_range"], (0, 1), strict=True):
        fwhm = samples["train"].psf[:, kind, 0]
        assert fwhm.min() <= low < np.median(fwhm) < high <= fwhm.max()


@pytest.mark.parametrize("distil_epochs", [0, 1])
def test_a_deblender_is_trained_before_the_frozen_decoder(prior, samples, tmp_path, distil_epochs):
    package = train("deblender", samples, tmp_path, prior=prior, distil_epochs=distil_epochs)
    for name, value in prior.part("decoder").items():
        np.testing.assert_array_equal(package.part("decoder")[name], value)
    assert package.card["psf_fwhm_range"] == prior.card["psf_fwhm_range"]
    moved = [
        not np.array_equal(package.part("deblender_encoder")[name], value)
        for name, value in prior.part("prior_encoder").items()
    ]
    assert all(moved)


def test_depths_are_refused_where_the_network_is_not_told_of_them(samples, tmp_path):
    with pytest.raises(TrainingError, match="'factorised' is not"):
        train("prior", samples, tmp_path, architecture="factorised", depth_min=0.5)


def test_samples_that_do_not_tell_their_psfs_are_refused(samples, tmp_path):
    blind = {split: dataclasses.replace(sample, psf=None) for split, sample in samples.items()}
    with pytest.raises(TrainingError, match="does not tell it: simulate it again"):
        train("prior", blind, tmp_path)


# -- exposures ------------------------------------------------------------------------------

KERNEL = PsfModel("gaussian", 0.8).kernel(0.2, 41)


def make_network(prior):
    from lsst.meas.extensions.vae.network.model import Network
    from lsst.meas.extensions.vae.network.package import ModelPackage

    parts = {**prior.parts, "deblender_encoder": prior.part("prior_encoder")}
    return Network(ModelPackage(prior.card, parts), engine="keras")


def cubes(psf):
    return SimpleNamespace(images=np.zeros((2, 200, 300), "f4"), psf=psf, xy0=(1000, 2000))


def test_an_exposures_psf_is_taken_at_each_source_and_flagged_beyond_the_trained_widths(prior):
    network, asked = make_network(prior), []
    widths = {50: 0.8, 150: 3.0, 250: 0.2}

    def psf(x, y):
        asked.append((x, y))
        return np.stack([PsfModel("gaussian", widths[round(x) - 1000]).kernel(0.2, 41)] * 2)

    psfs = ExposurePsfs(cubes(psf), network, 0.1, logging.getLogger("test"))
    assert not asked
    centres = np.array([[20.0, 50.0], [30.0, 150.0], [40.0, 250.0]])
    kernels = psfs(centres)
    assert asked == [(1050, 2020), (1150, 2030), (1250, 2040)]
    assert kernels.shape == (3, 2, 63, 63)
    np.testing.assert_allclose(kernels[0, 0, 11:-11, 11:-11], KERNEL, atol=1e-7)
    assert [psfs.mismatch(c) for c in centres] == [False, True, True]


def test_a_band_without_a_psf_and_an_exposure_without_any_take_the_surveys(prior, caplog):
    network = make_network(prior)
    own = get_survey("lsst10yr", BANDS)["r"].psf.kernel(0.2, 63)
    missing = ExposurePsfs(
        cubes(lambda x, y: np.stack([KERNEL, np.full(KERNEL.shape, np.nan)])),
        network,
        0.1,
        logging.getLogger("test"),
    )
    np.testing.assert_allclose(missing(np.array([[5.0, 5.0]]))[0, 1], own, atol=1e-7)
    assert not missing.mismatch((5.0, 5.0))

    def none(x, y):
        # afw's errors are of kinds of its own.
        raise (ImageError if x > 50 else ArithmeticError)("no PSF here")

    absent = ExposurePsfs(cubes(none), network, 0.1, logging.getLogger("test"))
    np.testing.assert_allclose(absent(np.array([[5.0, 5.0]]))[0, 1], own, atol=1e-7)
    assert absent.mismatch((5.0, 5.0))
    absent(np.random.default_rng(0).uniform(0, 100, (20, 2)))
    assert caplog.text.count("no PSF here") == 1


def test_where_one_band_has_no_psf_the_others_keep_theirs(prior):
    network = make_network(prior)
    own = get_survey("lsst10yr", BANDS)["g"].psf.kernel(0.2, 63)

    def psf(x, y):
        box = Box2I(Point2I(-20, -20), Extent2I(41, 41))
        raise IncompleteDataError(BANDS, (x, y), MultibandImage(("r",), KERNEL[None], box))

    exposure = cubes(psf)
    exposure.bands = BANDS
    psfs = ExposurePsfs(exposure, network, 0.1, logging.getLogger("test"))
    g, r = psfs(np.array([[5.0, 5.0]]))[0]
    np.testing.assert_allclose(g, own, atol=1e-7)
    np.testing.assert_allclose(r[11:-11, 11:-11], KERNEL, atol=1e-7)
    assert psfs.mismatch((5.0, 5.0))


def test_an_exposure_in_another_unit_is_refused(prior):
    network, log, pixels = make_network(prior), logging.getLogger("test"), np.ones((2, 20, 20), "f4")

    def exposure(unit):
        masks = np.zeros(pixels.shape, np.int32)
        return MultibandExposure.fromArrays(BANDS, pixels, masks, pixels, unit=unit)

    selectBands(exposure("nJy"), network, log)
    with pytest.raises(ImageError, match="exposure is in electron, model .* takes nJy"):
        selectBands(exposure("electron"), network, log)


def test_models_of_a_blend_are_drawn_through_the_psf_where_each_source_is(prior):
    network = make_network(prior)
    rng = np.random.default_rng(3)
    images = rng.normal(0, 5, (2, 120, 160)).astype("f4")
    variance = np.full(images.shape, 25.0, "f4")
    centres = np.array([[40.0, 40.0], [60.5, 120.5]])
    wide = PsfModel("gaussian", 1.1).kernel(0.2, 41)

    def psfs(places):
        return np.stack([np.stack([KERNEL if x < 80 else wide] * 2) for _, x in places])

    both = deblend_blend(images, variance, centres, network, psfs=psfs)
    first = deblend_blend(images, variance, centres, network, psfs=np.stack([KERNEL] * 2))
    last = deblend_blend(images, variance, centres, network, psfs=np.stack([wide] * 2))
    np.testing.assert_allclose(both.latent_mean[0], first.latent_mean[0], atol=1e-5)
    np.testing.assert_allclose(both.latent_mean[1], last.latent_mean[1], atol=1e-5)
    assert abs(first.latent_mean - last.latent_mean).max() > 1e-3


def test_a_band_without_data_is_told_to_the_network(prior):
    network = make_network(prior)
    images = np.random.default_rng(4).normal(0, 5, (2, 100, 100)).astype("f4")
    variance = np.full(images.shape, 25.0, "f4")
    bad = np.zeros(images.shape, bool)
    bad[1] = True
    result = deblend_blend(images, variance, [[50.0, 50.0]], network, bad=bad)
    images[1] = 1e5
    same = deblend_blend(images, variance, [[50.0, 50.0]], network, bad=bad)
    np.testing.assert_array_equal(same.latent_mean, result.latent_mean)
    assert result.missing_bands.tolist() == [[False, True]] and np.isfinite(result.models).all()
    full = deblend_blend(images * 0, variance, [[50.0, 50.0]], network)
    assert abs(full.latent_mean - result.latent_mean).max() > 1e-4
