# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few Keras layers that Keras lacks, written with ``keras.ops`` alone."""

import keras
import numpy as np
from keras import layers, ops

__all__ = [
    "LatentSample",
    "LogSoftmax",
    "PixelBias",
    "Stretch",
    "dense_start",
    "image_features",
    "posterior",
    "residual_block",
    "saturating",
]


class Stretch(layers.Layer):
    """Compress the dynamic range of an image.

    Parameters
    ----------
    kind : {"tanh_arcsinh", "arcsinh"}
        ``tanh(arcsinh(y))``, which is ``y / sqrt(1 + y^2)`` (Arcelin et al.
        2020, section 2.3), or ``arcsinh(y)``.
    """

    def __init__(self, kind, **kwargs):
        # The input keeps float32: bfloat16's 8 bits would throw away the
        # faint wings of bright galaxies before they are compressed.
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.kind = kind

    def call(self, inputs):
        if self.kind == "tanh_arcsinh":
            return inputs * ops.rsqrt(1.0 + ops.square(inputs))
        return ops.arcsinh(inputs)


class LatentSample(layers.Layer):
    """Draw from the approximate posterior, ``mean + sigma * normal``.

    Parameters
    ----------
    seed : `int`
        Seed of the draws.
    """

    def __init__(self, seed=0, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, mean, sigma):
        return mean + sigma * keras.random.normal(ops.shape(mean), seed=self.generator)


class LogSoftmax(layers.Layer):
    """Logarithm of the softmax over the pixels, in float32."""

    def __init__(self, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)

    def call(self, inputs):
        return ops.log_softmax(inputs, axis=1)


class PixelBias(layers.Layer):
    """Add a learned image, one value for each pixel and band.

    It starts as a centred cone, the logarithm of an exponential profile, so
    that the network has to learn only departures from a plausible galaxy.

    Parameters
    ----------
    scale : `float` or sequence of `float`
        Scale length of the profile, in pixels; of each band if they differ.
    """

    def __init__(self, scale=3.0, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.scale = scale

    def build(self, input_shape):
        _, ny, nx, n_bands = input_shape
        y, x = np.mgrid[:ny, :nx]
        radius = np.hypot(y - (ny - 1) / 2, x - (nx - 1) / 2)
        cone = np.repeat(-radius[:, :, None], n_bands, axis=2) / np.asarray(self.scale)
        self.bias = self.add_weight(name="bias", shape=(ny, nx, n_bands))
        self.bias.assign(cone.astype("float32"))

    def call(self, inputs):
        return inputs + self.bias


def residual_block(x, filters, name):
    """Two 3x3 convolutions around which the input passes unchanged.

    The second one starts at zero, so that a deep stack starts as the identity
    and needs no normalisation layer.
    """
    y = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"{name}_a")(x)
    y = layers.Conv2D(filters, 3, padding="same", kernel_initializer="zeros", name=f"{name}_b")(y)
    return layers.Activation("relu", name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))


def image_features(x, filters):
    """Features of an image, flat: residual blocks, each behind a convolution that halves the image."""
    x = layers.Conv2D(filters[0], 4, strides=2, padding="same", activation="relu", name="stem")(x)
    x = residual_block(x, filters[0], "block0")
    for i, width in enumerate(filters[1:], start=1):
        x = layers.Conv2D(width, 3, strides=2, padding="same", activation="relu", name=f"down{i}")(x)
        x = residual_block(x, width, f"block{i}")
    return layers.Flatten(name="flatten")(x)


def dense_start():
    """Small weights, so that training starts from the plausible galaxy of `PixelBias`."""
    return keras.initializers.RandomNormal(stddev=0.002)


def posterior(x, latent_dim):
    """Mean and sigma of the approximate posterior."""
    mean = layers.Dense(latent_dim, dtype="float32", name="mean")(x)
    sigma = layers.Dense(latent_dim, activation="softplus", dtype="float32", name="sigma")(x)
    return [mean, sigma]


def saturating(snr, knee):
    """SNR^2 up to the knee, constant beyond it.

    The likelihood of pixels is proportional to SNR^2; the knee keeps a few
    bright galaxies of a batch from outweighing all the others.
    """
    return ops.square(snr) / (1.0 + ops.square(snr / knee))
