# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network for some bands starts from one for others."""

from types import SimpleNamespace

import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import TrainingError
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.network.settings import TrainingSettings
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.survey import get_survey

keras = pytest.importorskip("keras")

SETTINGS = TrainingSettings(
    architecture="arcelin2020",
    batch_size=8,
    steps_per_epoch=1,
    epochs=1,
    validation_scenes=8,
    collapse_epochs=100,
    # So small that weights stay where they started.
    learning_rate=1e-12,
)


def network(n_bands, size=5):
    inputs = keras.Input((size, size, n_bands))
    x = keras.layers.Conv2D(4, 3, name="first", kernel_initializer="random_normal")(inputs)
    return keras.Model(inputs, keras.layers.Conv2D(n_bands, 1, name="last")(x))


def package(model, bands):
    from lsst.meas.extensions.vae.network.model import get_weights

    weights = get_weights(model)
    return SimpleNamespace(name="given", card={"bands": list(bands)}, part=lambda part: weights)


def test_shared_bands_keep_their_weights_and_new_ones_their_own():
    from lsst.meas.extensions.vae.network.model import get_weights
    from lsst.meas.extensions.vae.network.transfer import start_from

    two, five = network(2), network(5)
    old, fresh = get_weights(two), get_weights(five)
    start_from(five, package(two, "rg"), "decoder", "ugriz")
    found = get_weights(five)
    np.testing.assert_array_equal(found["first/kernel"][:, :, [2, 1]], old["first/kernel"])
    np.testing.assert_array_equal(
        found["first/kernel"][:, :, [0, 3, 4]], fresh["first/kernel"][:, :, [0, 3, 4]]
    )
    np.testing.assert_array_equal(found["last/kernel"][..., [2, 1]], old["last/kernel"])
    np.testing.assert_array_equal(found["first/bias"], old["first/bias"])


def test_bands_in_another_order_are_put_in_order():
    from lsst.meas.extensions.vae.network.model import get_weights
    from lsst.meas.extensions.vae.network.transfer import start_from

    given, other = network(2), network(2)
    start_from(other, package(given, "gr"), "decoder", "rg")
    images = np.random.default_rng(1).normal(size=(1, 5, 5, 2)).astype(np.float32)
    np.testing.assert_allclose(other(images[..., ::-1]), given(images)[..., ::-1], rtol=1e-5, atol=1e-6)
    assert not np.array_equal(get_weights(given)["first/kernel"], get_weights(other)["first/kernel"])


def test_weights_that_differ_by_more_than_bands_are_refused():
    from lsst.meas.extensions.vae.network.transfer import start_from

    wide = keras.Sequential([keras.Input((5, 5, 5)), keras.layers.Conv2D(7, 3, name="first")])
    narrow = keras.Sequential([keras.Input((5, 5, 2)), keras.layers.Conv2D(4, 3, name="first")])
    with pytest.raises(TrainingError, match=r"'first/\w+' have shape .* more than bands"):
        start_from(wide, package(narrow, "gr"), "decoder", "ugriz")
    with pytest.raises(TrainingError, match="other layers"):
        start_from(network(5), package(narrow, "gr"), "decoder", "ugriz")
    with pytest.raises(TrainingError, match=r"none of its bands \['J', 'H'\]"):
        start_from(network(5), package(network(2), "JH"), "decoder", "ugriz")


def test_a_prior_for_more_bands_is_trained_from_one_for_fewer(tmp_path):
    from lsst.meas.extensions.vae.network.training import train

    galaxies = synthetic_galaxies(1000, seed=1)
    scenes = SceneSettings(placement="field", mag_limit=None, target_snr_min=20.0)
    trained, start = {}, None
    for bands in ("gr", "gri"):
        survey = get_survey("arcelin2020", tuple(bands))
        parts = {
            split: simulate_stamps(galaxies.split(split), survey, scenes, 8, seed=5, split=split)
            for split in ("train", "validation")
        }
        start = trained[bands] = train(
            "prior", [parts["train"]], parts["validation"], survey, SETTINGS, tmp_path / bands, start=start
        )
    few, many = trained["gr"], trained["gri"]
    assert many.card["bands"] == ["g", "r", "i"] and len(many.card["normalisation"]["scale"]) == 3
    for part in ("prior_encoder", "decoder"):
        for name, weights in few.part(part).items():
            if "moving" in name:
                # Batch normalisation's, which follow the data and not the gradient.
                continue
            found = many.part(part)[name]
            axes = [i for i, (m, n) in enumerate(zip(weights.shape, found.shape)) if m != n]
            shared = np.take(found, [0, 1], axis=axes[0]) if axes else found
            np.testing.assert_allclose(shared, weights, atol=1e-6, err_msg=name)
    assert many.card["training"]["prior"]["started_from"]["sha256"] == few.sha256
