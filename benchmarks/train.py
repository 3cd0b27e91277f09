# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Training samples per second of each architecture, beside a plain Keras version of the paper's network.

Run as ``python benchmarks/train.py [--batch N] [--steps N] [--turns N]``, on
another backend with ``KERAS_BACKEND=jax``.  What is timed is what trains: the
model, optimizer and compilation of `network.training`, fed through
``model.fit`` as it is there.  Batches are made beforehand, round galaxies in
noise: composing scenes goes on in other threads and has a benchmark of its own
(simulate.py).  *plain Keras* is the paper's section 3 as one would write it
from a tutorial (`plain_model`), on arrays in memory.

GFLOP is what a sample of the batch costs: two for each multiply-add of the
convolutions and dense layers, three times over, for the pass forward and the
gradients of activations and of weights; nothing else is counted.  *share* is
GFLOP per second, in units of the rate of a large matrix product of the row's
precision, measured in the same run.  On a processor, rates per core and *share*
are of the processor time of all threads, which other work on the machine spoils
least; on a GPU they are of the clock.  Each row keeps the best of its epochs; rows take
turns.  On a GPU, products in f32 are in TF32 where the backend's
convolutions are.
"""

import argparse
import logging
import math
import time

import numpy as np

from lsst.meas.extensions.vae.network.architecture import architecture_names, make_architecture
from lsst.meas.extensions.vae.network.backend import load_keras
from lsst.meas.extensions.vae.network.observation import conditions
from lsst.meas.extensions.vae.survey import get_survey

POLICIES = {"f32": "float32", "bf16": "mixed_bfloat16"}
BANDS = tuple("ugrizy")
SIZE = 64


def plain_model():
    """The paper's network from Keras's layers, from a sigmoid to binary cross-entropy."""
    import keras
    from keras import layers, ops

    class Sampling(layers.Layer):
        def __init__(self):
            super().__init__(dtype="float32")
            self.generator = keras.random.SeedGenerator(1)

        def call(self, mean, sigma):
            kl = ops.square(mean) + ops.square(sigma) - 1 - ops.log(ops.square(sigma) + 1e-12)
            self.add_loss(0.01 * 0.5 * ops.mean(ops.sum(kl, axis=1)))
            return mean + sigma * keras.random.normal(ops.shape(mean), seed=self.generator)

    inputs = keras.Input((SIZE, SIZE, len(BANDS)))
    x = layers.BatchNormalization()(inputs)
    for filters in (32, 64, 128, 256):
        x = layers.PReLU()(layers.Conv2D(filters, 3, padding="same")(x))
        x = layers.PReLU()(layers.Conv2D(filters, 3, strides=2, padding="same")(x))
    x = layers.PReLU()(layers.Dense(256)(layers.Flatten()(x)))
    x = Sampling()(layers.Dense(32)(x), layers.Dense(32, activation="softplus")(x))
    x = layers.PReLU()(layers.Dense(256)(x))
    x = layers.PReLU()(layers.Dense(4 * 4 * 256)(x))
    x = layers.Reshape((4, 4, 256))(x)
    for filters in (256, 128, 64, 32):
        x = layers.PReLU()(layers.Conv2DTranspose(filters, 3, strides=2, padding="same")(x))
        x = layers.PReLU()(layers.Conv2DTranspose(filters, 3, padding="same")(x))
    outputs = layers.Conv2D(len(BANDS), 3, padding="same", activation="sigmoid", dtype="float32")(x)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(1e-4), keras.losses.BinaryCrossentropy())
    return model


def multiply_adds(model):
    """Of one sample's pass through the convolutions and dense layers of a functional model."""
    from lsst.meas.extensions.vae.evaluation.training_summary import layer_flops

    return sum(layer_flops(layer) for layer in model.layers) // 2


def spent(function):
    """Seconds on the clock and of the processor that a call takes."""
    start = np.array([time.perf_counter(), time.process_time()])
    function()
    return np.array([time.perf_counter(), time.process_time()]) - start


def peak_rates(dtype, accelerated):
    """Operations per second, of the clock and of the processor, of the product of two large matrices.

    The best of five.
    """
    import keras
    from keras import ops

    n, repeats = (8192, 10) if accelerated else (2048, 2)

    def products(a, b):
        for _ in range(repeats):
            b = ops.matmul(a, b)
        return b[:1, :1]

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        products = tf.function(products)
    elif keras.backend.backend() == "jax":
        import jax

        products = jax.jit(products)
    rng = np.random.default_rng(1)
    # Of this size the products neither grow nor vanish.
    a, b = (ops.cast(rng.standard_normal((n, n)).astype("f4") / math.sqrt(n), dtype) for _ in range(2))

    def run():
        ops.convert_to_numpy(ops.cast(products(a, b), "float32"))

    run()
    return 2 * n**3 * repeats / np.min([spent(run) for _ in range(5)], axis=0)


def make_batch(architecture, n):
    """Inputs and targets of a step, as `network.training` gives them to ``fit``."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    width = rng.uniform(1.5, 3.0, (n, 1, 1, 1))
    target = np.exp(-0.5 * (x**2 + y**2) / width**2) * rng.uniform(1, 30, (n, len(BANDS), 1, 1))
    target = target.astype("f4")
    image = target + rng.standard_normal(target.shape).astype("f4")
    if not architecture.conditional:
        return image, target
    transfer = np.ones((n, len(BANDS), SIZE, SIZE // 2 + 1), "f4")
    noise = np.ones((n, len(BANDS)), "f4")
    told = conditions(transfer, noise)
    return {"image": image, "conditions": told}, {"target": target, "transfer": transfer, "noise": noise}


class OurTraining:
    """An architecture in `network.training`'s model, a turn at a time."""

    def __init__(self, name, precision, batch, steps):
        import keras

        from lsst.meas.extensions.vae.network.devices import has_gpu
        from lsst.meas.extensions.vae.network.optimizer import make_optimizer
        from lsst.meas.extensions.vae.network.settings import TrainingSettings
        from lsst.meas.extensions.vae.network.variational import VariationalModel

        self.batch, self.steps = batch, steps
        architecture = make_architecture(name, len(BANDS), SIZE, 32, survey=get_survey("lsst10yr", BANDS))
        settings = TrainingSettings(batch_size=batch, precision=POLICIES[precision].removeprefix("mixed_"))
        keras.config.set_dtype_policy(POLICIES[precision])
        encoder, decoder = architecture.build_encoder(), architecture.build_decoder()
        self.model = VariationalModel(architecture, encoder, decoder, settings)
        keras.config.set_dtype_policy("float32")
        jit = "auto" if keras.backend.backend() != "tensorflow" else has_gpu()
        self.model.compile(optimizer=make_optimizer(settings), jit_compile=jit)
        self.multiply_adds = multiply_adds(encoder) + multiply_adds(decoder)
        self.data = make_batch(architecture, batch)

    def run(self):
        """Train for so many steps."""
        batches = (self.data for _ in range(self.steps))
        self.model.fit(batches, steps_per_epoch=self.steps, shuffle=False, verbose=0)


class PlainTraining:
    """`plain_model` on arrays."""

    def __init__(self, precision, batch, steps):
        import keras

        keras.config.set_dtype_policy(POLICIES[precision])
        self.model = plain_model()
        keras.config.set_dtype_policy("float32")
        self.batch, self.multiply_adds = batch, multiply_adds(self.model)
        architecture = make_architecture("arcelin2020", len(BANDS), SIZE, 32)
        stacks = (np.concatenate([a] * steps) for a in make_batch(architecture, batch))
        self.data = [np.moveaxis(a / np.sqrt(1 + a**2), 1, -1) for a in stacks]

    def run(self):
        """Train for an epoch."""
        self.model.fit(*self.data, batch_size=self.batch, verbose=0)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128, help="samples of a step (default %(default)s)")
    parser.add_argument("--steps", type=int, default=4, help="steps of an epoch (default %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="epochs of each row (default %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="NETWORK", help="'plain' and architectures (all)")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    keras = load_keras()
    accelerated = any("cpu" not in name.lower() for name in keras.distribution.list_devices())
    wanted = args.only or ("plain", *architecture_names())
    rows = []
    for name in wanted:
        for precision in POLICIES:
            if name == "plain":
                training = PlainTraining(precision, args.batch, args.steps)
            else:
                training = OurTraining(name, precision, args.batch, args.steps)
            rows.append((name, precision, training))
    best, peaks = np.full((len(rows), 2), np.inf), {name: np.zeros(2) for name in POLICIES}
    for turn in range(args.turns + 1):
        for name, dtype in (("f32", "float32"), ("bf16", "bfloat16")):
            peaks[name] = np.maximum(peaks[name], peak_rates(dtype, accelerated))
        for i, (*_, training) in enumerate(rows):
            seconds = spent(training.run)
            # The first turn traces and compiles.
            if turn:
                best[i] = np.minimum(best[i], seconds)

    which = 0 if accelerated else 1  # of clock and processor
    print(
        f"{keras.backend.backend()}, batches of {args.batch}, epochs of {args.steps} steps; matrix products:"
    )
    for name, rates in peaks.items():
        per_core = "" if accelerated else f", {rates[1] / 1e9:.0f} GFLOP/s/core"
        print(f"{name:>4}: {rates[0] / 1e9:.0f} GFLOP/s{per_core}")
    columns = "".join(f"{name:>16}" for name in ("samples/s", "samples/s/core", "share"))
    print(f"{'network':<14}{'precision':<11}{'GFLOP':>7}{columns}{'ratio':>8}")
    for (name, precision, training), seconds in zip(rows, best):
        work, rates = 6 * training.multiply_adds, args.batch * args.steps / seconds
        share = 100 * work * rates[which] / peaks[precision][which]
        print(
            f"{name:<14}{precision:<11}{work / 1e9:>7.2f}{rates[0]:>16.0f}{rates[1]:>16.1f}"
            f"{share:>14.0f} %{best[0, which] / seconds[which]:>8.2f}"
        )


if __name__ == "__main__":
    main()
