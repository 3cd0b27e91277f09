# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The project's own network for PSFs, depths and bands that vary.

The latents describe the galaxy, not how it was observed: the decoder draws a
few *components* (morphologies: softmaxes over the pixels) through one narrow
Gaussian, the same for all bands, and fluxes that share each band out among
them, so that a bulge may be redder than its disc.  The PSF of each band comes
in by its transfer function, exactly, outside of what is learned.  Only the
encoder has to know how the galaxy was observed, and is told: the PSFs, the
noise, and which bands there are.
"""

import keras
import numpy as np
from keras import layers, ops

from ..errors import TrainingError
from . import fourier
from .layers import image_features, posterior, saturating
from .observation import CONDITIONS_PER_BAND, Observer, kernel_transfer, low_frequencies
from .templates import TemplateArchitecture
from .threads import one_blas_thread

__all__ = ["Conditional"]

# FWHM of the model PSF [arcsec], sharper than ground-based seeing gets.
_MODEL_FWHM = 0.45

# Galaxies that are drawn together.
_TOGETHER = 8


class Conditional(TemplateArchitecture):
    """Two components at the model PSF, convolved with the PSF of each band.

    Options
    -------
    model_sigma : `float`
        Sigma of the Gaussian model PSF [pixel].
    filters : `tuple` of `int`
        Filters of the encoder; each set halves the image.
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
    """

    name = "conditional"
    conditional = True
    default_options = {
        "model_sigma": 0.955,
        "filters": (32, 64, 96),
        "hidden": 256,
        "wide": 384,
        "crop": 48,
        "snr_knee": 60.0,
        "flux_snr_knee": 30.0,
        "moment_weight": 10.0,
        "moment_sigma": 4.0,
    }

    @classmethod
    def survey_options(cls, survey):
        scales = {band.pixel_scale for band in survey.bands}
        if len(scales) > 1:
            raise TrainingError(
                f"architecture 'conditional' takes bands of one pixel scale, those of {survey.name!r} have "
                f"{', '.join(f'{scale:g}' for scale in sorted(scales))} arcsec: take 'morphology'"
            )
        return {"model_sigma": round(_MODEL_FWHM / np.sqrt(8 * np.log(2)) / scales.pop(), 4)}

    def build_encoder(self, name="encoder"):
        size, options = self.stamp_size, self.options
        image = keras.Input((size, size, self.n_bands), name="image")
        told = keras.Input((self.n_bands * CONDITIONS_PER_BAND,), name="conditions")
        x = image_features(self.stretched(image), options["filters"])
        c = layers.Dense(64, activation="relu", name="told")(told)
        x = layers.Concatenate(name="join")([x, c])
        x = layers.Dense(options["wide"], activation="relu", name="wide")(x)
        # Once more, as what a width or a moment means depends on the PSF.
        x = layers.Concatenate(name="join_again")([x, c])
        x = layers.Dense(options["hidden"], activation="relu", name="hidden")(x)
        return keras.Model([image, told], posterior(x, self.latent_dim), name=name)

    def build_decoder(self, name="decoder"):
        inputs = keras.Input((self.latent_dim,), name="latent")
        x = layers.Dense(64, activation="relu", name="flux_hidden")(inputs)
        return keras.Model(
            inputs,
            {
                # A disc, and a bulge inside it.
                "log_morphology": self.dense_morphologies(inputs, 2, scale=(3.0, 1.2)),
                "flux": layers.Dense(self.n_bands, dtype="float32", name="flux")(x),
                # Logit of the second component's share of the flux.
                "share": layers.Dense(self.n_bands, dtype="float32", name="share")(x),
            },
            name=name,
        )

    def reconstruction_loss(self, target, output, transfer=None, noise=None):
        n_pixels = self.stamp_size**2
        pixels = ops.reshape(target, (-1, n_pixels, self.n_bands))
        flux = ops.sum(pixels, axis=1)
        snr = ops.sqrt(ops.sum(ops.square(pixels), axis=1)) / noise
        loss = self.flux_loss(flux, snr, output)
        weight = saturating(snr, self.options["snr_knee"])
        truth = pixels / ops.maximum(flux, 1e-6)[:, None, :]
        # Convolution leaves ripples about zero where a map has steps.
        model = ops.maximum(self._convolved(output, transfer), 1e-8)
        divergence = ops.sum(truth * (ops.log(ops.maximum(truth, 1e-12)) - ops.log(model)), axis=1)
        divergence = divergence + ops.sum(model, axis=1) - ops.sum(truth, axis=1)
        loss = loss + ops.sum(weight * divergence, axis=1)
        # Moments of all bands together, each with its weight.
        total = ops.sum(weight, axis=1)
        share = (weight / ops.maximum(total, 1e-6)[:, None])[:, None, :]
        moments = ops.convert_to_tensor(self.moments())
        theirs = ops.matmul(ops.sum(truth * share, axis=2), moments)
        ours = ops.matmul(ops.sum(model * share, axis=2), moments)
        difference = (ours - theirs) / ops.maximum(theirs[:, :1], 1e-6)
        return loss + self.options["moment_weight"] * total * ops.sum(ops.square(difference), axis=1)

    def _convolved(self, output, transfer):
        """Images of unit flux through the PSF of each band, ``[n, y x, band]``."""
        size = self.stamp_size
        maps = ops.reshape(ops.exp(output["log_morphology"]), (-1, size, size, 2))
        # The transfer function is real and even, so one complex transform serves both components: what was
        # real stays real.
        half = transfer[..., 1 : size // 2]
        mirrored = ops.roll(ops.flip(half, axis=(-2, -1)), 1, axis=-2)
        transfer = ops.concatenate([transfer, mirrored], axis=-1)
        real, imaginary = ops.fft2((maps[..., 0], maps[..., 1]))
        images = ops.ifft2((real[:, None] * transfer, imaginary[:, None] * transfer))
        share = ops.sigmoid(output["share"])[:, :, None, None]
        image = (1.0 - share) * images[0] + share * images[1]
        return ops.transpose(ops.reshape(image, (-1, self.n_bands, size * size)), (0, 2, 1))

    # Seeing leaves nothing above a quarter of a cycle per pixel.
    coarseness = 2

    def templates(self, output, transfer=None, coarse=False):
        size = self.stamp_size
        share = 1.0 / (1.0 + np.exp(-np.clip(np.asarray(output["share"], dtype=np.float32), -30, 30)))
        maps = np.asarray(output["log_morphology"], dtype=np.float32).reshape(-1, size * size, 2)
        n, per_psf = len(maps), len(maps) // max(len(transfer), 1)
        if coarse:
            transfer = low_frequencies(transfer, self.coarseness) * np.float32(self.coarseness**-2.0)
        kept = transfer.shape[-2]
        images = np.empty((n, self.n_bands, kept, kept), np.float32)
        with one_blas_thread():
            # A few at a time stay in the processor's cache.
            for start in range(0, n, _TOGETHER):
                part = np.arange(start, min(start + _TOGETHER, n))
                components = np.exp(maps[part]).swapaxes(1, 2).reshape(-1, 2, size, size)
                spectra = fourier.spectra(components, kept)
                spectrum = spectra[:, :1] + share[part, :, None, None] * (spectra[:, 1:] - spectra[:, :1])
                spectrum *= transfer[part // per_psf]
                images[part] = fourier.images(spectrum)
        return images, self.fluxes(output)

    # -- how stamps were observed ---------------------------------------------

    def observer(self, profile_kinds, band_profile):
        """What tells the transfer functions of a sample's PSFs: an `~.observation.Observer`."""
        return Observer(profile_kinds, band_profile, self.options["model_sigma"], self.stamp_size)

    def transfer(self, kernels):
        """Transfer functions of PSF images; see `~.observation.kernel_transfer`."""
        return kernel_transfer(kernels, self.options["model_sigma"], self.stamp_size)
