# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The project's own network: shape and flux are learned apart.

A galaxy spans a factor of a thousand in flux and hardly any in shape, so the
decoder gives, for each band, a *morphology* (a softmax over the pixels: never
negative, sum one) and a flux.  The morphology is compared with the true one
by cross-entropy, weighted by the galaxy's signal to noise, so shapes are
learned free of dynamic range.  Images enter in units of their own noise.
"""

import keras
import numpy as np
from keras import layers, ops

from .layers import LogSoftmax, PixelBias, image_features, posterior, residual_block, saturating
from .templates import TemplateArchitecture

__all__ = ["Factorised"]


class Factorised(TemplateArchitecture):
    """Morphology times flux, from residual convolutions.

    The encoder halves the image at its first convolution, which costs an
    eighth of a convolution at full resolution.
    """

    name = "factorised"
    default_options = {"filters": (32, 64, 96, 128), "hidden": 256, "snr_knee": 60.0, "flux_snr_knee": 30.0}

    def build_encoder(self, name="encoder"):
        size, filters = self.stamp_size, self.options["filters"]
        inputs = keras.Input((size, size, self.n_bands), name="image")
        x = image_features(self.stretched(inputs), filters)
        x = layers.Dense(self.options["hidden"], activation="relu", name="hidden")(x)
        return keras.Model(inputs, posterior(x, self.latent_dim), name=name)

    def build_decoder(self, name="decoder"):
        size, filters = self.stamp_size, self.options["filters"]
        side, width = size // 8, filters[2]
        inputs = keras.Input((self.latent_dim,), name="latent")
        hidden = layers.Dense(self.options["hidden"], activation="relu", name="hidden")(inputs)
        x = layers.Dense(side * side * width, activation="relu", name="project")(hidden)
        x = residual_block(layers.Reshape((side, side, width), name="square")(x), width, "block2")
        for i, width in ((1, filters[1]), (0, filters[0])):
            # A 4x4 kernel at stride 2 covers every pixel alike, so it leaves
            # no checkerboard; it costs half of an upsampling and a 3x3.
            x = layers.Conv2DTranspose(width, 4, strides=2, padding="same", activation="relu", name=f"up{i}")(
                x
            )
            x = residual_block(x, width, f"block{i}")
        x = layers.Conv2DTranspose(8, 4, strides=2, padding="same", activation="relu", name="up_full")(x)
        x = layers.Conv2D(
            self.n_bands, 3, padding="same", kernel_initializer="zeros", dtype="float32", name="logits"
        )(x)
        x = PixelBias(name="centre")(x)
        x = layers.Reshape((size * size, self.n_bands), dtype="float32", name="pixels")(x)
        flux = layers.Dense(64, activation="relu", name="flux_hidden")(inputs)
        flux = layers.Dense(self.n_bands, dtype="float32", name="flux")(flux)
        return keras.Model(
            inputs, {"log_morphology": LogSoftmax(name="log_morphology")(x), "flux": flux}, name=name
        )

    def reconstruction_loss(self, target, output, **observed):
        pixels = ops.reshape(target, (-1, self.stamp_size**2, self.n_bands))
        flux = ops.sum(pixels, axis=1)
        morphology = pixels / ops.maximum(flux, 1e-6)[:, None, :]
        snr = ops.sqrt(ops.sum(ops.square(pixels), axis=1))
        weight = saturating(snr, self.options["snr_knee"])
        # Kullback-Leibler divergence: cross-entropy less its own minimum, so
        # that the loss of a perfect shape is zero.
        entropy = ops.log(ops.maximum(morphology, 1e-12)) - output["log_morphology"]
        shape_loss = ops.sum(weight * ops.sum(morphology * entropy, axis=1), axis=1)
        return shape_loss + self.flux_loss(flux, snr, output)

    def templates(self, output, transfer=None, coarse=False):
        maps = np.exp(np.asarray(output["log_morphology"], dtype=np.float32))
        maps = maps.reshape(-1, self.stamp_size, self.stamp_size, self.n_bands)
        return np.ascontiguousarray(np.moveaxis(maps, -1, 1)), self.fluxes(output)
