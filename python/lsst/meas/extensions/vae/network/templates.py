# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What architectures share whose galaxies are templates of unit flux, times fluxes."""

import numpy as np
from keras import layers, ops

from .architecture import Architecture
from .layers import LogSoftmax, PixelBias, Stretch, dense_start, saturating

__all__ = ["TemplateArchitecture"]


class TemplateArchitecture(Architecture):
    """Morphologies (softmaxes over the pixels), times fluxes.

    Images enter as arcsinh of pixels in units of their noise. Losses weigh
    galaxies by SNR^2 up to a knee; see `~.layers.saturating`.
    """

    normalisation = "noise"

    flux_unit = 10.0
    """Fluxes are learned as arcsinh(flux / flux_unit), the flux in units of
    the noise of one pixel: linear where a galaxy drowns in noise, a magnitude
    where it is bright."""

    def stretched(self, image):
        """The central part of an image, compressed, for an encoder."""
        if (edge := (self.stamp_size - self.options.get("crop", self.stamp_size)) // 2) > 0:
            image = layers.Cropping2D(edge, dtype="float32", name="crop")(image)
        return Stretch("arcsinh", name="stretch")(image)

    def dense_morphologies(self, latent, n_maps, scale=3.0):
        """Logarithms of morphologies ``[n, y x, map]``, from two dense layers.

        Parameters
        ----------
        latent : tensor, ``[n, latent]``
        n_maps : `int`
            How many.
        scale : `float` or sequence of `float`, optional
            Scale length of the exponential that training starts from [pixel].
        """
        size = self.stamp_size
        x = layers.Dense(self.options["hidden"], activation="relu", name="hidden")(latent)
        x = layers.Dense(self.options["wide"], activation="relu", name="wide")(x)
        x = layers.Dense(
            size * size * n_maps, use_bias=False, kernel_initializer=dense_start(), name="logits"
        )(x)
        x = layers.Reshape((size, size, n_maps), dtype="float32", name="maps")(x)
        x = PixelBias(scale=scale, name="centre")(x)
        x = layers.Reshape((size * size, n_maps), dtype="float32", name="pixels")(x)
        return LogSoftmax(name="log_morphology")(x)

    def flux_loss(self, flux, snr, output):
        """Squared error of the stretched fluxes, ``[n]``; flux and snr are ``[n, band]``."""
        error = output["flux"] - ops.arcsinh(flux / self.flux_unit)
        weight = 1.0 + saturating(snr, self.options["flux_snr_knee"])
        return 0.5 * ops.sum(weight * ops.square(error), axis=1)

    def fluxes(self, output):
        """Fluxes of the decoder's output in NumPy, float32 ``[n, band]``."""
        # sinh of 20 is brighter than any galaxy.
        return self.flux_unit * np.sinh(np.clip(np.asarray(output["flux"], dtype=np.float32), -20, 20))

    def scaled_images(self, output, transfer=None):
        templates, fluxes = self.templates(output, transfer)
        order = self.template_of_band
        if templates.shape[1] != len(order) or (np.asarray(order) != np.arange(len(order))).any():
            templates = templates[:, order]
        # Where they are: fresh memory costs more than the product.
        templates *= fluxes[:, :, None, None]
        return templates

    def moments(self):
        """Gaussian-weighted flux, both ellipticities and size, float32 ``[pixel, 4]``."""
        y, x = (np.mgrid[: self.stamp_size, : self.stamp_size] - (self.stamp_size - 1) / 2) / self.options[
            "moment_sigma"
        ]
        weight = np.exp(-0.5 * (x**2 + y**2))
        stack = np.stack([np.ones_like(x), x**2 - y**2, 2 * x * y, x**2 + y**2], axis=-1)
        return (weight[..., None] * stack).reshape(-1, 4).astype(np.float32)
