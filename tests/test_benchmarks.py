# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmarks count and judge rightly; how fast anything is, no test asks."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras")

from lsst.meas.extensions.vae.network.architecture import make_architecture  # noqa: E402
from lsst.meas.extensions.vae.network.model import Network  # noqa: E402
from lsst.meas.extensions.vae.network.shipped import load_package  # noqa: E402


@pytest.fixture
def benchmark(monkeypatch):
    """Import a benchmark by its name."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))

    def load(name):
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


def test_the_plain_network_is_the_papers(benchmark):
    train = benchmark("train")
    plain = train.plain_model()
    assert sum(np.size(v) for v in plain.trainable_variables) == 2_545_868 + 3_319_942
    assert plain.output.shape[1:] == (64, 64, 6) and plain.layers[-1].activation.__name__ == "sigmoid"
    paper = make_architecture("arcelin2020", 6)
    parts = (paper.build_encoder(), paper.build_decoder())
    assert train.multiply_adds(plain) == sum(map(train.multiply_adds, parts))


def test_multiply_adds_are_counted_by_hand(benchmark):
    from keras import Input, Model, layers

    x = inputs = Input((8, 8, 2))
    x = layers.Conv2D(3, 5, strides=2, padding="same")(x)  # 4 x 4 pixels of 5 x 5 x 2 x 3
    x = layers.Conv2DTranspose(7, 3, strides=2, padding="same")(x)  # 4 x 4 pixels of 3 x 3 x 3 x 7
    x = layers.Dense(4)(layers.PReLU()(x))  # 8 x 8 pixels of 7 x 4
    x = layers.Dense(10)(layers.Flatten()(x))  # 256 x 10
    counted = benchmark("train").multiply_adds(Model(inputs, x))
    assert counted == 16 * 150 + 16 * 189 + 64 * 28 + 2560


@pytest.mark.parametrize("name", ["arcelin2020", "conditional"])
def test_the_training_that_is_timed_learns(benchmark, name):
    # The learning rate of the first step is zero.
    training = benchmark("train").OurTraining(name, "bf16", 2, 2)
    before = [v.numpy().copy() for v in training.model.trainable_variables]
    training.run()
    after = [v.numpy().copy() for v in training.model.trainable_variables]
    assert all(np.isfinite(a).all() for a in after)
    assert sum(bool((a != b).any()) for a, b in zip(after, before)) > len(before) // 2
    assert training.model.encoder.get_layer("hidden").compute_dtype == "bfloat16"


def test_the_gate_lets_through_what_is_exact_and_stops_what_is_not(benchmark):
    infer = benchmark("infer")
    package = load_package("lsst-ugrizy-morphology")
    first = infer.Row("", "keras", "f32", Network(package, engine="keras"), package)
    rows = [first]
    for error in (1e-5, 2e-3):
        network = Network(package, engine="keras")
        kernel = network.decoder.get_layer("flux").bias
        kernel.assign(np.asarray(kernel) + error)
        rows.append(infer.Row("", "keras", "f32", network, package, first))
    verdicts = infer.verdicts(rows, 4)
    assert verdicts[0] == "" and verdicts[1].endswith("yes") and verdicts[2].endswith("no")
    # arcsinh(flux) is 0.002 larger, and shapes are as they were.
    shape, magnitude, _ = verdicts[2].split()
    assert float(shape) < 1e-6 and float(magnitude) == pytest.approx(2.17e-3, rel=0.05)


def test_a_shape_that_only_one_engine_can_measure_stops_it(benchmark):
    worst, nan = benchmark("infer").worst, np.nan
    assert worst(np.array([1.0, nan]), np.array([1.5, nan])) == 0.5
    assert worst(np.array([1.0, nan]), np.array([1.0, 2.0])) == np.inf
