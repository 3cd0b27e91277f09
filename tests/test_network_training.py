# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Training: data, resuming, the frozen decoder, and what stops it."""

import os
import subprocess
import sys

import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import TrainingError
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.network.composer import SceneComposer
from lsst.meas.extensions.vae.network.settings import TrainingSettings
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
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


# -- batches ---------------------------------------------------------------------


def test_a_batch_depends_on_seed_and_number_alone(samples, survey):
    a, b = (SceneComposer([samples["train"]], survey, seed=3) for _ in range(2))
    b.batch(0, 4)
    for one, other in zip(a.batch(7, 4), b.batch(7, 4), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(a.batch(7, 4)[0], a.batch(8, 4)[0])


def test_the_noise_of_an_empty_image_has_the_skys_variance(samples, survey):
    composer = SceneComposer([samples["train"]], survey)
    noise = composer.add_noise(np.zeros((2, 400, 400), np.float32), np.random.default_rng(0))
    expected = [np.sqrt(band.sky_level) / band.electrons_per_unit for band in survey.bands]
    np.testing.assert_allclose(noise.std(axis=(1, 2)), expected, rtol=0.01)


def test_an_isolated_scene_has_no_neighbours_and_a_blended_one_does(samples, survey):
    blended = SceneComposer([samples["train"]], survey, recompose=False, augment=False)
    alone = SceneComposer([samples["train"]], survey, isolated=True)
    assert sum(blended.scene(i)[1].any() for i in range(32)) > 16
    for i in range(32):
        target, neighbours = alone.scene(i)
        assert not neighbours.any()
        np.testing.assert_array_equal(target, blended.scene(i)[0])


def test_every_scene_comes_once_before_any_comes_again(samples, survey):
    composer = SceneComposer([samples["train"]], survey)
    assert sorted(composer._shuffled(k) for k in range(32)) == list(range(32))
    assert sorted(composer._shuffled(k) for k in range(32, 64)) == list(range(32))


def test_flips_and_turns_keep_target_and_scene_together(samples, survey):
    composer = SceneComposer([samples["train"]], survey, seed=1)
    noisy, clean = composer.batch(0, 32)
    # The brightest target of the batch stands above the noise in its scene.
    k = int(np.argmax(clean.max(axis=(1, 2, 3))))
    assert np.corrcoef(noisy[k].ravel(), clean[k].ravel())[0, 1] > 0.5


# -- training --------------------------------------------------------------------


def test_a_prior_has_its_two_parts_and_a_card_that_tells_how_it_was_trained(prior):
    assert set(prior.parts) == {"prior_encoder", "decoder"}
    assert prior.card["training"]["prior"]["samples_seen"] == 32
    assert prior.card["bands"] == list(BANDS)
    assert prior.card["training"]["prior"]["samples"][0]["split"] == "train"


def test_a_training_that_is_cut_off_resumes_to_the_same_weights(prior, samples, survey, tmp_path):
    from lsst.meas.extensions.vae.network.training import train

    def stop(row):
        if row["epoch"] == 0:
            raise KeyboardInterrupt

    arguments = (
        "prior",
        [samples["train"]],
        samples["validation"],
        survey,
        TrainingSettings(**SETTINGS),
        tmp_path,
    )
    with pytest.raises(KeyboardInterrupt):
        train(*arguments, on_epoch=stop)
    resumed = train(*arguments)
    assert len((tmp_path / "prior.history.jsonl").read_text().splitlines()) == 2
    for part, weights in prior.parts.items():
        for name, value in weights.items():
            np.testing.assert_allclose(resumed.parts[part][name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_deblender_leaves_every_weight_of_the_decoder_alone(prior, samples, survey, tmp_path):
    from lsst.meas.extensions.vae.network.training import train

    package = train(
        "deblender",
        [samples["train"]],
        samples["validation"],
        survey,
        TrainingSettings(**SETTINGS),
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
    from lsst.meas.extensions.vae.network.training import _same_settings

    wanted = {"settings": {**SETTINGS, "seed": 0}, "samples": [{"seed": 1}]}
    _same_settings({**wanted, "settings": {**wanted["settings"], "epochs": 99}}, wanted, "x")
    for change in ({"learning_rate": 0.5}, {"seed": 9}):
        with pytest.raises(TrainingError, match=f"was trained with {next(iter(change))}"):
            _same_settings({**wanted, "settings": {**wanted["settings"], **change}}, wanted, "x")
    with pytest.raises(TrainingError, match="trained on other samples"):
        _same_settings({**wanted, "samples": [{"seed": 2}]}, wanted, "x")


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 0}, {"epochs": 0}, {"schedule": "soon"}, {"precision": "int3"}, {"learning_rate": -1.0}],
)
def test_settings_that_make_no_sense_are_named(change):
    with pytest.raises(TrainingError, match=next(iter(change))):
        TrainingSettings(**change)


def test_exchanged_neighbours_stay_fainter_than_the_target_of_the_papers_scenes(survey):
    galaxies = synthetic_galaxies(2000, seed=2).split("train")
    scenes = SceneSettings(placement="annulus", mag_limit=None, min_galaxies=2, max_galaxies=3)
    sample = simulate_stamps(galaxies, survey, scenes, 24, seed=3, split="train")
    composer = SceneComposer([sample], survey, seed=1)
    rng = np.random.default_rng(0)
    for i in list(range(24)) * 4:
        target, neighbours = composer._mixed_scene(i, rng)
        # Sums over the stamp: two neighbours at most, each fainter, with some light outside.
        assert neighbours[1].sum() < 2.2 * target[1].sum()


def test_the_test_split_is_never_trained_on(samples, survey, tmp_path):
    import dataclasses

    from lsst.meas.extensions.vae.network.training import train

    test = dataclasses.replace(samples["train"], split="test")
    with pytest.raises(TrainingError, match="test split may not be trained"):
        train("prior", [test], samples["validation"], survey, TrainingSettings(**SETTINGS), tmp_path)


def test_the_deblender_needs_a_prior_and_blends(prior, samples, survey, tmp_path):
    import dataclasses

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
