# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The project's own network: one shape for all bands, times their fluxes.

Where bands differ by flux alone, a galaxy has one *morphology* for each
distinct PSF and pixel scale: a softmax over the pixels, never negative, of sum
one.  Two dense layers give its logarithm, because galaxies are smooth and few
in kind: that costs a hundredth of a stack of transposed convolutions, so many
more galaxies are seen in the same time.  The encoder looks at the central
part of the stamp, in units of the noise.
"""

import keras
import numpy as np
from keras import layers, ops

from ..errors import ModelPackageError
from .architecture import Architecture
from .layers import LogSoftmax, PixelBias, Stretch, residual_block

__all__ = ["Morphology"]


class Morphology(Architecture):
    """Morphologies shared by bands, times fluxes.

    Options
    -------
    groups : `tuple` of `int`
        For each band, the number of its morphology: bands of one PSF and
        pixel scale share one.
    filters : `tuple` of `int`
        Filters of the encoder; each set but the first halves the image.
    hidden, wide : `int`
        Units of the dense layers of both networks.
    crop : `int`
        Side of the central part of the stamp that the encoder sees [pixel].
    snr_knee, flux_snr_knee : `float`
        Signal to noise above which a brighter galaxy weighs no more.
    moment_weight : `float`
        Weight of the error of the second moments, which carry the shape.
    moment_sigma : `float`
        Sigma of the Gaussian that weighs pixels in these moments [pixel].
    likelihood : {"factorised", "gaussian"}
        What the loss is: errors of shape, moments and flux apart, each
        weighed up to its knee; or minus the logarithm of the likelihood of
        the pixels with their known noise, in which the galaxy of SNR 600
        counts a hundred times that of SNR 60, and knees and moments nothing.
    sky : `tuple` of `float`
        Sky of each band [electron], for the galaxy's own Poisson noise in the
        likelihood; none for the sky's noise alone.
    """

    name = "morphology"
    normalisation = "noise"
    default_options = {
        "groups": (0,),
        "filters": (32, 64, 96),
        "hidden": 256,
        "wide": 512,
        "crop": 48,
        "snr_knee": 60.0,
        "flux_snr_knee": 30.0,
        "moment_weight": 10.0,
        "moment_sigma": 4.0,
        "likelihood": "factorised",
        "sky": (),
    }

    flux_unit = 10.0
    """Fluxes are learned as arcsinh(flux / flux_unit), the flux in units of
    the noise of one pixel: linear where a galaxy drowns in noise, a magnitude
    where it is bright."""

    def __init__(self, n_bands, stamp_size=64, latent_dim=32, **options):
        super().__init__(n_bands, stamp_size, latent_dim, **options)
        if self.options["likelihood"] not in ("factorised", "gaussian"):
            raise ModelPackageError(
                f"likelihood {self.options['likelihood']!r}: expected 'factorised' or 'gaussian'"
            )
        groups = tuple(self.options["groups"])
        # One group is all bands'.
        self.groups = np.array(groups * self.n_bands if len(groups) == 1 else groups)
        self.n_maps = int(self.groups.max()) + 1

    @classmethod
    def survey_options(cls, survey):
        groups = tuple(int(kind) for kind in survey.band_profile)
        # Half as wide with more maps than one: files of weights stay below 16 MiB.
        return {
            "groups": groups,
            "wide": cls.default_options["wide"] // (2 if max(groups) else 1),
            "sky": tuple(float(band.sky_level) for band in survey.bands),
        }

    def build_encoder(self, name="encoder"):
        size, filters = self.stamp_size, self.options["filters"]
        inputs = keras.Input((size, size, self.n_bands), name="image")
        x = inputs
        if (edge := (size - self.options["crop"]) // 2) > 0:
            x = layers.Cropping2D(edge, dtype="float32", name="crop")(x)
        x = Stretch("arcsinh", name="stretch")(x)
        x = layers.Conv2D(filters[0], 4, strides=2, padding="same", activation="relu", name="stem")(x)
        x = residual_block(x, filters[0], "block0")
        for i, width in enumerate(filters[1:], start=1):
            x = layers.Conv2D(width, 3, strides=2, padding="same", activation="relu", name=f"down{i}")(x)
            x = residual_block(x, width, f"block{i}")
        x = layers.Flatten(name="flatten")(x)
        x = layers.Dense(self.options["wide"], activation="relu", name="wide")(x)
        x = layers.Dense(self.options["hidden"], activation="relu", name="hidden")(x)
        mean = layers.Dense(self.latent_dim, dtype="float32", name="mean")(x)
        sigma = layers.Dense(self.latent_dim, activation="softplus", dtype="float32", name="sigma")(x)
        return keras.Model(inputs, [mean, sigma], name=name)

    def build_decoder(self, name="decoder"):
        size = self.stamp_size
        inputs = keras.Input((self.latent_dim,), name="latent")
        x = layers.Dense(self.options["hidden"], activation="relu", name="hidden")(inputs)
        x = layers.Dense(self.options["wide"], activation="relu", name="wide")(x)
        # Small at first, so that training starts from the plausible galaxy of PixelBias.
        small = keras.initializers.RandomNormal(stddev=0.002)
        x = layers.Dense(size * size * self.n_maps, use_bias=False, kernel_initializer=small, name="logits")(
            x
        )
        x = layers.Reshape((size, size, self.n_maps), dtype="float32", name="maps")(x)
        x = PixelBias(name="centre")(x)
        x = layers.Reshape((size * size, self.n_maps), dtype="float32", name="pixels")(x)
        flux = layers.Dense(64, activation="relu", name="flux_hidden")(inputs)
        flux = layers.Dense(self.n_bands, dtype="float32", name="flux")(flux)
        return keras.Model(
            inputs, {"log_morphology": LogSoftmax(name="log_morphology")(x), "flux": flux}, name=name
        )

    def reconstruction_loss(self, target, output):
        pixels = ops.reshape(target, (-1, self.stamp_size**2, self.n_bands))
        if self.options["likelihood"] == "gaussian":
            return self._pixel_loss(pixels, output)
        flux = ops.sum(pixels, axis=1)
        snr = ops.sqrt(ops.sum(ops.square(pixels), axis=1))
        error = output["flux"] - ops.arcsinh(flux / self.flux_unit)
        flux_weight = 1.0 + _saturating(snr, self.options["flux_snr_knee"])
        loss = 0.5 * ops.sum(flux_weight * ops.square(error), axis=1)
        # Proportional to SNR^2, as the likelihood of the pixels is, up to the
        # knee and constant beyond it, so that a few bright galaxies in a
        # batch do not outweigh all the others.
        weight = _saturating(snr, self.options["snr_knee"])
        share = (weight / ops.maximum(flux, 1e-6))[:, None, :]
        moments = ops.convert_to_tensor(self._moments())
        for group in range(self.n_maps):
            bands = np.flatnonzero(self.groups == group).tolist()
            total = sum(weight[:, b] for b in bands)
            truth = sum(pixels[:, :, b] * share[:, :, b] for b in bands)
            truth = truth / ops.maximum(total, 1e-6)[:, None]
            log_model = output["log_morphology"][:, :, group]
            # Kullback-Leibler divergence: cross-entropy less its own minimum,
            # so that the loss of a perfect shape is zero.
            divergence = ops.sum(truth * (ops.log(ops.maximum(truth, 1e-12)) - log_model), axis=1)
            theirs = ops.matmul(truth, moments)
            difference = (ops.matmul(ops.exp(log_model), moments) - theirs) / ops.maximum(theirs[:, :1], 1e-6)
            divergence = divergence + self.options["moment_weight"] * ops.sum(ops.square(difference), axis=1)
            loss = loss + total * divergence
        return loss

    def _pixel_loss(self, pixels, output):
        """Half of chi^2 of noiseless pixels, ``[n, pixel, band]`` in units of the sky's noise."""
        # sinh of 20 is brighter than any galaxy.
        flux = self.flux_unit * ops.sinh(ops.clip(output["flux"], -20.0, 20.0))
        maps = ops.take(ops.exp(output["log_morphology"]), self.groups, axis=2)
        sky = np.asarray(self.options["sky"] or (np.inf,), dtype=np.float32)
        # y sqrt(sky) electrons have that variance, the sky's is sky.
        variance = 1.0 + ops.maximum(pixels, 0.0) / np.sqrt(sky)
        return 0.5 * ops.sum(ops.square(pixels - maps * flux[:, None, :]) / variance, axis=(1, 2))

    def _moments(self):
        """Gaussian-weighted flux, both ellipticities and size [pixel, 4]."""
        y, x = (np.mgrid[: self.stamp_size, : self.stamp_size] - (self.stamp_size - 1) / 2) / self.options[
            "moment_sigma"
        ]
        weight = np.exp(-0.5 * (x**2 + y**2))
        stack = np.stack([np.ones_like(x), x**2 - y**2, 2 * x * y, x**2 + y**2], axis=-1)
        return (weight[..., None] * stack).reshape(-1, 4).astype(np.float32)

    def scaled_images(self, output):
        flux = self.flux_unit * np.sinh(np.clip(np.asarray(output["flux"], dtype=np.float32), -20, 20))
        maps = np.exp(np.asarray(output["log_morphology"], dtype=np.float32))
        # [n, band, pixel], in memory order of what leaves.
        images = np.moveaxis(maps, -1, 1)[:, self.groups] * flux[:, :, None]
        return images.reshape(len(flux), self.n_bands, self.stamp_size, self.stamp_size)


def _saturating(snr, knee):
    return ops.square(snr) / (1.0 + ops.square(snr / knee))
