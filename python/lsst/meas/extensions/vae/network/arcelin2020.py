# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network of Arcelin et al. 2020 (MNRAS 500, 531), section 3, exactly.

Its encoder and decoder have 2 545 868 and 3 319 942 trainable weights for six
bands.  The paper leaves open the input batch normalisation, the softplus of
sigma, the two dense layers of the decoder and the order of its transposed
convolutions; those are the published code's.
"""

import keras
import numpy as np
from keras import layers, ops

from .architecture import Architecture
from .layers import Stretch

__all__ = ["Arcelin2020"]

FILTERS = (32, 64, 128, 256)


class Arcelin2020(Architecture):
    """The paper's network; its pixels are squashed into (0, 1).

    The scale of band b is ``M_b / beta``, M_b the mean over the training
    sample of the brightest pixel and beta = 2.5 (section 2.3), so that the
    stretch inside the network is the paper's ``tanh(arcsinh(beta raw/M_b))``.
    """

    name = "arcelin2020"
    normalisation = "fixed"
    beta = 2.5

    def build_encoder(self, name="encoder"):
        size = self.stamp_size
        inputs = keras.Input((size, size, self.n_bands), name="image")
        x = Stretch("tanh_arcsinh", name="stretch")(inputs)
        x = layers.BatchNormalization(name="input_norm")(x)
        for i, filters in enumerate(FILTERS):
            for stride in (1, 2):
                label = f"conv{i}_{stride}"
                x = layers.Conv2D(filters, 3, strides=stride, padding="same", name=label)(x)
                x = layers.PReLU(name=f"{label}_prelu")(x)
        x = layers.Flatten(name="flatten")(x)
        x = layers.PReLU(name="hidden_prelu")(layers.Dense(256, name="hidden")(x))
        mean = layers.Dense(self.latent_dim, dtype="float32", name="mean")(x)
        sigma = layers.Dense(self.latent_dim, activation="softplus", dtype="float32", name="sigma")(x)
        return keras.Model(inputs, [mean, sigma], name=name)

    def build_decoder(self, name="decoder"):
        side = self.stamp_size // 2 ** len(FILTERS)
        inputs = keras.Input((self.latent_dim,), name="latent")
        x = layers.PReLU(name="hidden_prelu")(layers.Dense(256, name="hidden")(inputs))
        x = layers.Dense(side * side * FILTERS[-1], name="project")(x)
        x = layers.Reshape((side, side, FILTERS[-1]), name="square")(layers.PReLU(name="project_prelu")(x))
        for i, filters in reversed(list(enumerate(FILTERS))):
            for stride in (2, 1):
                label = f"deconv{i}_{stride}"
                x = layers.Conv2DTranspose(filters, 3, strides=stride, padding="same", name=label)(x)
                x = layers.PReLU(name=f"{label}_prelu")(x)
        logits = layers.Conv2D(self.n_bands, 3, padding="same", dtype="float32", name="logits")(x)
        return keras.Model(inputs, logits, name=name)

    def reconstruction_loss(self, target, output, **observed):
        # Bernoulli cross-entropy from logits, summed over pixels and bands.
        p = target * ops.rsqrt(1.0 + ops.square(target))
        entropy = ops.maximum(output, 0.0) - output * p + ops.softplus(-ops.abs(output))
        return ops.sum(entropy, axis=(1, 2, 3))

    def scaled_images(self, output, transfer=None):
        # Where the sigmoid of the logit is tanh(arcsinh(y)), y is
        # t / sqrt(1 + 2 t), t the logit's exponential: exact in float32 too.
        t = np.exp(np.minimum(np.asarray(output, dtype=np.float32), np.float32(20.7)))
        return np.ascontiguousarray(np.moveaxis(t / np.sqrt(1 + 2 * t), -1, 1))
