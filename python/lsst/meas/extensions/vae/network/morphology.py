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
from .layers import image_features, posterior, saturating
from .templates import TemplateArchitecture

__all__ = ["Morphology"]


class Morphology(TemplateArchitecture):
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
        size = self.stamp_size
        inputs = keras.Input((size, size, self.n_bands), name="image")
        x = image_features(self.stretched(inputs), self.options["filters"])
        x = layers.Dense(self.options["wide"], activation="relu", name="wide")(x)
        x = layers.Dense(self.options["hidden"], activation="relu", name="hidden")(x)
        return keras.Model(inputs, posterior(x, self.latent_dim), name=name)

    def build_decoder(self, name="decoder"):
        inputs = keras.Input((self.latent_dim,), name="latent")
        log_morphology = self.dense_morphologies(inputs, self.n_maps)
        flux = layers.Dense(64, activation="relu", name="flux_hidden")(inputs)
        flux = layers.Dense(self.n_bands, dtype="float32", name="flux")(flux)
        return keras.Model(inputs, {"log_morphology": log_morphology, "flux": flux}, name=name)

    def reconstruction_loss(self, target, output, **observed):
        pixels = ops.reshape(target, (-1, self.stamp_size**2, self.n_bands))
        if self.options["likelihood"] == "gaussian":
            return self._pixel_loss(pixels, output)
        flux = ops.sum(pixels, axis=1)
        snr = ops.sqrt(ops.sum(ops.square(pixels), axis=1))
        loss = self.flux_loss(flux, snr, output)
        weight = saturating(snr, self.options["snr_knee"])
        share = (weight / ops.maximum(flux, 1e-6))[:, None, :]
        moments = ops.convert_to_tensor(self.moments())
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

    @property
    def template_of_band(self):
        return self.groups

    def templates(self, output, transfer=None, coarse=False):
        maps = np.exp(np.asarray(output["log_morphology"], dtype=np.float32))
        # In memory order of what leaves.
        maps = np.ascontiguousarray(np.moveaxis(maps, -1, 1))
        return maps.reshape(-1, self.n_maps, self.stamp_size, self.stamp_size), self.fluxes(output)
