# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Training: resuming, the frozen decoder, what is measured, and what stops it."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import TrainingError
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.network.composer import SceneComposer
from lsst.meas.extensions.vae.network.model import Network
from lsst.meas.extensions.vae.network.package import ModelPackage, short_weights
from lsst.meas.extensions.vae.network.settings import TrainingSettings
from lsst.meas.extensions.vae.network.validation import ValidationSet
from lsst.meas.extensions.vae.simulation.noise import NoiseModel
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.simulation.shards import pack_profiles, unpack_profiles
from lsst.meas.extensions.vae.survey import get_survey

pytest.importorskip("keras")

BANDS = ("g", "r")
SETTINGS = dict(
    batch_size=8,
    steps_per_epoch=2,
    epochs=2,
    warmup_steps=1,
    validation_scenes=8,
    validation_every=2,
    precision="float32",
    collapse_epochs=100,
    learning_rate=1e-3,
)


@pytest.fixture(scope="module")
def survey():
    return get_survey("lsst10yr", BANDS)


@pytest.fixture(scope="module")
def samples(survey):
    galaxies = synthetic_galaxies(3000, seed=1)
    scenes = SceneSettings(placement="field", mag_limit=None, target_snr_min=20.0)
    return {
        split: simulate_stamps(galaxies.split(split), survey, scenes, n, seed=5, split=split)
        for split, n in (("train", 32), ("validation", 8))
    }


@pytest.fixture(scope="module")
def prior(samples, survey, tmp_path_factory):
    from lsst.meas.extensions.vae.network.training import train

    return train(
        "prior",
        [samples["train"]],
        samples["validation"],
        survey,
        TrainingSettings(**SETTINGS),
        tmp_path_factory.mktemp("prior"),
    )


# -- training --------------------------------------------------------------------


def test_a_prior_has_its_two_parts_and_a_card_that_tells_how_it_was_trained(prior):
    assert set(prior.parts) == {"prior_encoder", "decoder"}
    assert prior.card["training"]["prior"]["samples_seen"] == 32
    assert prior.card["bands"] == list(BANDS)
    assert prior.card["training"]["prior"]["samples"][0]["split"] == "train"


def test_a_prior_tells_where_its_galaxies_lie_in_the_latent_space(prior, samples, survey):
    network = Network(prior, encoder="prior_encoder", engine="keras")
    noise = np.array([np.sqrt(band.sky_level) / band.electrons_per_unit for band in survey.bands])
    options = dict(isolated=True, scale=np.ones(2), seed=TrainingSettings(**SETTINGS).seed, kl_weight=0.0)
    scenes = ValidationSet(samples["validation"], survey, 8, **options)
    mean, sigma = network.encode(np.moveaxis(scenes.inputs[0], -1, 1), noise)
    centre, covariance = network.latent_prior
    np.testing.assert_allclose(centre, mean.mean(axis=0), atol=1e-3)
    expected = np.cov(mean.T, bias=True) + np.diag((sigma**2).mean(axis=0))
    np.testing.assert_allclose(covariance, expected, atol=2e-3 * np.abs(expected).max())
    assert prior.card["centring"] == "none" and not network.knows_shifts


@pytest.mark.parametrize("change", [{}, {"ema": 0.9, "schedule": "constant"}])
def test_a_training_that_is_cut_off_resumes_to_the_same_weights(change, prior, samples, survey, tmp_path):
    from lsst.meas.extensions.vae.network.training import train

    def stop(row):
        if row["epoch"] == 0:
            raise KeyboardInterrupt

    settings = TrainingSettings(**{**SETTINGS, **change})
    arguments = ("prior", [samples["train"]], samples["validation"], survey, settings)
    with pytest.raises(KeyboardInterrupt):
        train(*arguments, tmp_path / "cut", on_epoch=stop)
    resumed = train(*arguments, tmp_path / "cut")
    assert len((tmp_path / "cut" / "prior.history.jsonl").read_text().splitlines()) == 2
    whole = train(*arguments, tmp_path / "whole") if change else prior
    for part, weights in whole.parts.items():
        for name, value in weights.items():
            np.testing.assert_allclose(resumed.parts[part][name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_deblender_leaves_every_weight_of_the_decoder_alone(prior, samples, survey, tmp_path):
    from lsst.meas.extensions.vae.network.training import train

    package = train(
        "deblender",
        [samples["train"]],
        samples["validation"],
        survey,
        TrainingSettings(**SETTINGS, ema=0.5),
        tmp_path,
        prior=prior,
    )
    for name, value in prior.parts["decoder"].items():
        np.testing.assert_array_equal(package.parts["decoder"][name], value, err_msg=name)
    moved = [
        not np.array_equal(package.parts["deblender_encoder"][name], value)
        for name, value in prior.parts["prior_encoder"].items()
    ]
    assert all(moved)
    assert package.parts["prior_encoder"].keys() == prior.parts["prior_encoder"].keys()


def test_a_decoder_that_is_trained_on_is_packed_without_the_prior_encoder_it_no_longer_fits(
    prior, samples, survey, tmp_path
):
    from lsst.meas.extensions.vae.network.model import Network
    from lsst.meas.extensions.vae.network.training import train

    settings = TrainingSettings(**SETTINGS, freeze_decoder=False)
    package = train(
        "deblender", [samples["train"]], samples["validation"], survey, settings, tmp_path, prior=prior
    )
    assert set(package.parts) == {"decoder", "deblender_encoder"}
    for name, value in prior.parts["decoder"].items():
        assert not np.array_equal(package.parts["decoder"][name], value), name
    assert package.card["training"]["deblender"]["settings"]["freeze_decoder"] is False
    assert Network(package).latent_dim == prior.card["latent_dim"]


def test_a_fixed_scale_comes_from_the_sample_that_is_named_even_of_the_test_split(samples, survey, tmp_path):
    from lsst.meas.extensions.vae.network.training import train

    brighter = dataclasses.replace(samples["validation"], split="test")
    brighter.fluxes = 3 * brighter.fluxes
    settings = TrainingSettings(**{**SETTINGS, "epochs": 1, "architecture": "arcelin2020"})
    package = train(
        "prior",
        [samples["train"]],
        samples["validation"],
        survey,
        settings,
        tmp_path,
        normalisation_sample=brighter,
    )
    peaks = [brighter.image(i, "target").max(axis=(1, 2)) for i in range(brighter.n_scenes)]
    np.testing.assert_allclose(
        package.card["normalisation"]["scale"], np.mean(peaks, axis=0) / 2.5, rtol=1e-5
    )
    assert package.card["training"]["prior"]["normalisation_sample"]["split"] == "test"


def test_the_likelihood_is_kept_in_the_card_for_the_deblender(samples, survey, tmp_path):
    from lsst.meas.extensions.vae.network.training import train

    change = {"architecture": "morphology", "likelihood": "gaussian", "epochs": 1, "gradient_clip": 100.0}
    common = ([samples["train"]], samples["validation"], survey, TrainingSettings(**{**SETTINGS, **change}))
    package = train("prior", *common, tmp_path / "prior")
    options = package.card["architecture"]["options"]
    assert options["likelihood"] == "gaussian"
    assert options["sky"] == pytest.approx([band.sky_level for band in survey.bands])


# -- distillation ----------------------------------------------------------------


def test_the_teacher_sees_what_the_encoder_sees_less_the_neighbours(samples, survey):
    from lsst.meas.extensions.vae.network.training import _batches

    options = dict(noise="sky", seed=4)
    composer, alone = (
        SceneComposer([samples["train"]], survey, isolated=i, **options) for i in (False, True)
    )
    batches = _batches(composer, composer.noise, TrainingSettings(**SETTINGS), 3, alone)
    blends, targets = next(batches)
    batches.close()
    neighbours = blends - targets
    # The noise, of sigma 1, is the same to rounding: neighbours are nowhere negative.
    assert targets.min() < -2
    np.testing.assert_allclose(np.minimum(neighbours, 0), 0, atol=2e-3)
    assert neighbours.sum(axis=(1, 2, 3)).max() > 100


def test_distillation_is_the_distance_of_means_and_sigmas_from_the_teachers():
    import keras

    from lsst.meas.extensions.vae.network.variational import DistillationModel

    image = keras.Input((1, 1, 2))
    flat = keras.layers.Flatten()(image)
    networks = [keras.Model(image, [flat * a, flat * b]) for a, b in ((1.0, 0.5), (4.0, 4.5))]
    model, x = DistillationModel(*networks), np.float32([1.0, 3.0]).reshape(1, 2, 1, 1)
    # Means are 3 and 9 apart, sigmas 4 and 12.
    assert float(model.compute_loss(x, x, model(x))) == pytest.approx(5 + 15, rel=2e-3)
    same = DistillationModel(networks[0], networks[0])
    assert float(same.compute_loss(x, x, same(x))) == pytest.approx(0, abs=1e-6)


def test_distillation_comes_first_lets_the_decoder_be_and_resumes(prior, samples, survey, tmp_path):
    from lsst.meas.extensions.vae.network.training import train

    rows = []

    def stop(row):
        rows.append(row)
        if row["epoch"] in (1, 3, 4):
            raise KeyboardInterrupt

    change = {"epochs": 6, "distil_epochs": 4, "encoder_init": "random", "ema": 0.5}
    arguments = (
        "deblender",
        [samples["train"]],
        samples["validation"],
        survey,
        TrainingSettings(**{**SETTINGS, **change}),
    )
    # Amid the distillation, at its end and after it.
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train(*arguments, tmp_path / "cut", prior=prior, on_epoch=stop)
    resumed = train(*arguments, tmp_path / "cut", prior=prior, on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == list(range(6))
    assert ["distillation" in row for row in rows] == [True] * 4 + [False] * 2
    assert ["reconstruction" in row for row in rows] == [False] * 4 + [True] * 2
    assert rows[3]["distillation"] < 0.8 * rows[0]["distillation"]
    whole = train(*arguments, tmp_path / "whole", prior=prior)
    for name, value in whole.parts["deblender_encoder"].items():
        np.testing.assert_allclose(
            resumed.parts["deblender_encoder"][name], value, rtol=1e-3, atol=1e-4, err_msg=name
        )
    for part in ("decoder", "prior_encoder"):
        for name, value in prior.parts[part].items():
            np.testing.assert_array_equal(whole.parts[part][name], value, err_msg=name)


def test_distillation_without_a_teacher_is_refused(prior, samples, survey, tmp_path):
    from lsst.meas.extensions.vae.network.training import train

    settings = TrainingSettings(**SETTINGS, distil_epochs=1)
    common = ([samples["train"]], samples["validation"], survey, settings, tmp_path)
    with pytest.raises(TrainingError, match="distilEpochs is for the deblender"):
        train("prior", *common)
    parts = {name: weights for name, weights in prior.parts.items() if name != "prior_encoder"}
    without = ModelPackage(prior.card, {**parts, "deblender_encoder": prior.parts["prior_encoder"]})
    with pytest.raises(TrainingError, match="no prior_encoder.*distilEpochs to 0"):
        train("deblender", *common, prior=without)


# -- averages and the best epoch -------------------------------------------------


def test_the_average_of_the_weights_forgets_the_start_and_then_decays_as_told():
    import keras

    from lsst.meas.extensions.vae.network.optimizer import AveragingAdam

    weight = keras.Variable([100.0, 3.0])
    optimizer = AveragingAdam(0.1, decay=0.25)
    optimizer.build([weight])
    expected = None
    for step in range(6):
        optimizer.apply([keras.ops.array([1.0, -1.0])])
        value, keep = weight.numpy().copy(), min(0.25, step / (10 + step))
        expected = value if expected is None else keep * expected + (1 - keep) * value
        np.testing.assert_allclose(optimizer.averages[0][1].numpy(), expected, rtol=1e-6)
    with optimizer.averaged():
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6)
    np.testing.assert_array_equal(weight.numpy(), value)


def test_averages_are_what_is_validated_and_packed_and_the_weights_themselves_are_kept(
    samples, survey, tmp_path, monkeypatch
):
    from safetensors.numpy import load_file

    from lsst.meas.extensions.vae.network.model import get_weights
    from lsst.meas.extensions.vae.network.training import train

    validated, measure = [], ValidationSet.measure

    def watch(self, architecture, model, **options):
        validated.append(get_weights(model.encoder))
        return measure(self, architecture, model, **options)

    monkeypatch.setattr(ValidationSet, "measure", watch)
    settings = TrainingSettings(**{**SETTINGS, "learning_rate": 0.01, "ema": 0.9})
    package = train("prior", [samples["train"]], samples["validation"], survey, settings, tmp_path)
    saved = load_file(tmp_path / "prior.checkpoint.safetensors")
    trained = {value.tobytes() for key, value in saved.items() if key.startswith("trained/")}
    averages = {value.tobytes() for key, value in saved.items() if key.startswith("optimizer/")}
    for name, packed in package.parts["prior_encoder"].items():
        value = saved[f"encoder/{name}"]
        # Packages keep the digits of float16.
        np.testing.assert_allclose(packed, value, rtol=2**-11, atol=2**-25, err_msg=name)
        np.testing.assert_array_equal(validated[-1][name], value, err_msg=name)
        assert value.tobytes() in averages and value.tobytes() not in trained, name


def test_with_patience_the_best_epochs_weights_are_packed_with_their_errors(
    samples, survey, tmp_path, monkeypatch
):
    from safetensors.numpy import load_file

    from lsst.meas.extensions.vae.network.training import train

    losses, measure = iter([3.0, 1.0, 2.0, 2.0, 2.0]), ValidationSet.measure
    monkeypatch.setattr(
        ValidationSet,
        "measure",
        lambda self, *args, **options: measure(self, *args, **options) | {"validation_loss": next(losses)},
    )
    epochs = []

    def keep(row):
        epochs.append(load_file(tmp_path / "prior.checkpoint.safetensors"))
        if len(epochs) == 3:
            raise KeyboardInterrupt

    settings = TrainingSettings(**{**SETTINGS, "epochs": 9, "patience": 2, "validation_every": 100})
    arguments = ("prior", [samples["train"]], samples["validation"], survey, settings, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(*arguments, on_epoch=keep)
    package = train(*arguments, on_epoch=keep)
    card = package.card["training"]["prior"]
    assert (card["epochs"], card["packed_epoch"], card["stopped"]) == (4, 1, "no progress for 2 epochs")
    assert card["validation"]["epoch"] == 1 and "alpha_1" in card["validation"]
    kept, last = (
        short_weights({key.removeprefix("encoder/"): value for key, value in epoch.items()})
        for epoch in (epochs[1], epochs[-1])
    )
    for name, value in package.parts["prior_encoder"].items():
        np.testing.assert_array_equal(kept[name], value, err_msg=name)
        assert not np.array_equal(last[name], value), name


# -- validation ------------------------------------------------------------------


def test_validation_measures_each_scene_with_its_own_psf(survey):
    galaxies = synthetic_galaxies(500, seed=4)
    scenes = SceneSettings(placement="annulus", mag_limit=None, psf_fwhm_scatter=0.2)
    sample = simulate_stamps(galaxies.split("validation"), survey, scenes, 6, seed=5, split="validation")
    options = dict(isolated=True, scale=np.ones(2), seed=0, kl_weight=0.0)
    varied = ValidationSet(sample, survey, 6, **options)
    for i, psf in enumerate(varied.psfs):
        np.testing.assert_array_equal(psf, sample.psf_kernels(i)[1])
    assert not np.array_equal(varied.psfs[0], varied.psfs[1])
    unknown = dataclasses.replace(sample, psf=np.zeros_like(sample.psf))
    band = survey.bands[1]
    np.testing.assert_array_equal(
        ValidationSet(unknown, survey, 6, **options).psfs[3], band.psf.kernel(band.pixel_scale)
    )


@pytest.mark.parametrize("isolated", [True, False])
def test_validation_keeps_the_negative_pixels_of_scenes_and_the_flux_of_targets(
    samples, survey, monkeypatch, isolated
):
    sample = samples["validation"]
    profiles = unpack_profiles(sample.profiles)
    profiles += np.random.default_rng(1).normal(0, 0.003, profiles.shape).astype(np.float32)
    sample = dataclasses.replace(sample, profiles=pack_profiles(profiles))
    # No noise but that of the galaxies' own images.
    monkeypatch.setattr(NoiseModel, "add", lambda self, image, rng: image.copy())
    scale = np.array([2.0, 5.0])
    validation = ValidationSet(sample, survey, 8, isolated=isolated, scale=scale, seed=0, kl_weight=0.0)
    images = np.stack([sample.image(i, "target" if isolated else None) for i in range(8)])
    np.testing.assert_allclose(
        np.moveaxis(validation.inputs[0], -1, 1) * scale[:, None, None], images, rtol=1e-5, atol=1e-3
    )
    flux = np.stack([sample.image(i, "target").sum(axis=(1, 2)) for i in range(8)])
    np.testing.assert_allclose(validation.true_flux, flux[:, 1], rtol=1e-4)
    assert validation.inputs[0].min() < 0 and validation.targets.min() == 0
    np.testing.assert_allclose(validation.targets.sum(axis=(1, 2)) * scale, np.maximum(flux, 0), rtol=1e-4)


# -- packages and what stops a training ------------------------------------------


def test_a_package_deblends_the_same_however_its_stamps_are_batched(prior, samples, survey):
    from lsst.meas.extensions.vae.network.model import Network

    network = Network(prior, encoder="prior_encoder")
    composer = SceneComposer([samples["train"]], survey)
    images, _ = composer.batch(0, 5)
    together = network.deblend(images, composer.noise)[0]
    apart = np.concatenate([network.deblend(images[k : k + 1], composer.noise)[0] for k in range(5)])
    np.testing.assert_allclose(apart, together, rtol=1e-3, atol=1e-3 * together.max())
    assert network.deblend(images[:0], composer.noise)[0].shape == (0, 2, 64, 64)


def test_a_collapsed_posterior_is_detected_and_told(samples, survey, tmp_path):
    from lsst.meas.extensions.vae.network.training import train

    settings = TrainingSettings(
        **{**SETTINGS, "kl_weight": 1e9, "epochs": 30, "collapse_epochs": 2, "learning_rate": 1e-2}
    )
    with pytest.raises(TrainingError, match="posterior collapse.*klWeight"):
        train("prior", [samples["train"]], samples["validation"], survey, settings, tmp_path)


def test_a_checkpoint_of_other_settings_or_samples_is_not_continued():
    from lsst.meas.extensions.vae.network.checkpoint import check_same_training

    wanted = {"settings": {**SETTINGS, "seed": 0}, "samples": [{"seed": 1}]}
    check_same_training({**wanted, "settings": {**wanted["settings"], "epochs": 99}}, wanted, "x")
    for change in ({"learning_rate": 0.5}, {"seed": 9}):
        with pytest.raises(TrainingError, match=f"was trained with {next(iter(change))}"):
            check_same_training({**wanted, "settings": {**wanted["settings"], **change}}, wanted, "x")
    # Checkpoints of versions without an average had none.
    check_same_training(wanted, {**wanted, "settings": {**wanted["settings"], "ema": 0.0}}, "x")
    with pytest.raises(TrainingError, match=r"ema=0\.0, now ema=0\.9"):
        check_same_training(wanted, {**wanted, "settings": {**wanted["settings"], "ema": 0.9}}, "x")
    with pytest.raises(TrainingError, match="trained on other samples"):
        check_same_training({**wanted, "samples": [{"seed": 2}]}, wanted, "x")


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 0},
        {"epochs": 0},
        {"schedule": "soon"},
        {"precision": "int3"},
        {"learning_rate": -1.0},
        {"augment": "some"},
        {"noise": "pink"},
        {"noise_correlation": 0.9},
        {"noise": "poisson", "noise_correlation": 0.3},
        {"window_megabytes": 0},
        {"ema": 1.0},
        {"distil_epochs": -1},
        {"likelihood": "cauchy"},
        {"distil_epochs": 2, "freeze_decoder": False},
    ],
)
def test_settings_that_make_no_sense_are_named(change):
    with pytest.raises(TrainingError, match=next(iter(change))):
        TrainingSettings(**change)


def test_the_test_split_is_never_trained_on(samples, survey, tmp_path):
    from lsst.meas.extensions.vae.network.training import train

    test = dataclasses.replace(samples["train"], split="test")
    with pytest.raises(TrainingError, match="test split may not be trained"):
        train("prior", [test], samples["validation"], survey, TrainingSettings(**SETTINGS), tmp_path)


def test_the_deblender_needs_a_prior_and_blends(prior, samples, survey, tmp_path):
    from lsst.meas.extensions.vae.network.training import train

    with pytest.raises(TrainingError, match="needs a prior"):
        train(
            "deblender",
            [samples["train"]],
            samples["validation"],
            survey,
            TrainingSettings(**SETTINGS),
            tmp_path,
        )
    isolated = dataclasses.replace(samples["train"], kind="isolated")
    with pytest.raises(TrainingError, match="needs a blended sample"):
        train(
            "deblender",
            [isolated],
            samples["validation"],
            survey,
            TrainingSettings(**SETTINGS),
            tmp_path,
            prior=prior,
        )


def test_jax_trains_with_the_same_command(samples, tmp_path):
    pytest.importorskip("jax")
    for split, sample in samples.items():
        sample.write(tmp_path / f"{split}.h5")
    arguments = [f"--{k.replace('_', '-')}={v}" for k, v in SETTINGS.items()]
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "lsst.meas.extensions.vae.network.train",
            "prior",
            "--train",
            str(tmp_path / "train.h5"),
            "--validation",
            str(tmp_path / "validation.h5"),
            "--directory",
            str(tmp_path / "run"),
            *arguments,
        ],
        env=dict(os.environ, KERAS_BACKEND="jax"),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "run" / "prior.vae.zip").exists()


def test_the_train_command_tells_bad_input_in_one_line(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"not a shard")
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "lsst.meas.extensions.vae.network.train",
            "prior",
            "--train",
            str(tmp_path / "x.h5"),
            "--validation",
            str(tmp_path / "x.h5"),
        ],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    lines = [line for line in result.stderr.splitlines() if line.startswith("train: error:")]
    assert len(lines) == 1 and "Traceback" not in result.stderr


def test_training_starts_from_the_weights_of_a_package_and_says_so(samples, survey, prior, tmp_path):
    from lsst.meas.extensions.vae.network.training import train

    # A rate this small leaves the weights where they started.
    settings = TrainingSettings(**{**SETTINGS, "learning_rate": 1e-12, "epochs": 1})
    common = ([samples["train"]], samples["validation"], survey, settings)
    further = train("prior", *common, tmp_path / "prior", start=prior)
    for part in ("prior_encoder", "decoder"):
        for name, weights in prior.part(part).items():
            np.testing.assert_allclose(further.part(part)[name], weights, atol=1e-6, err_msg=name)
    told = further.card["training"]["prior"]["started_from"]
    assert told["sha256"] == prior.sha256
    assert told["samples_seen"] == prior.card["training"]["prior"]["samples_seen"]

    deblender = train("deblender", *common, tmp_path / "first", prior=prior)
    again = train("deblender", *common, tmp_path / "second", prior=prior, start=deblender)
    for name, weights in deblender.part("deblender_encoder").items():
        np.testing.assert_allclose(again.part("deblender_encoder")[name], weights, atol=1e-6, err_msg=name)
    moved = ModelPackage(
        prior.card, {**deblender.parts, "decoder": {k: v + 1 for k, v in prior.part("decoder").items()}}
    )
    with pytest.raises(TrainingError, match="decoders.*differ"):
        train("deblender", *common, tmp_path / "third", prior=prior, start=moved)
    # The prior was trained on from that of `deblender`'s: its decoder still understands the encoder.
    start = ModelPackage(
        prior.card, {**prior.parts, "deblender_encoder": deblender.part("deblender_encoder")}
    )
    on = train("prior", *common, tmp_path / "on", start=start)
    train("deblender", *common, tmp_path / "fourth", prior=on, start=start)
    with pytest.raises(TrainingError, match="other weights"):
        train("prior", *common, tmp_path / "prior")
