# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network in use: images in, images of the central galaxy out."""

import numpy as np

from ..errors import ImageError, ModelPackageError
from .architecture import make_architecture
from .backend import load_keras
from .engines import check_engine, make_engine
from .package import ModelPackage

__all__ = ["Network", "get_weights", "set_weights"]


def get_weights(model):
    """Weights of a Keras model by name.

    Returns
    -------
    weights : `dict` [`str`, `numpy.ndarray`]
        Float32, keyed ``layer/variable``.
    """
    return {
        f"{layer.name}/{v.name}": np.asarray(v.numpy(), dtype=np.float32)
        for layer in model.layers
        for v in layer.weights
    }


def set_weights(model, weights, what="part"):
    """Set the weights of a Keras model by name.

    Parameters
    ----------
    model : `keras.Model`
        Model to set.
    weights : `dict` [`str`, `numpy.ndarray`]
        As `get_weights` gives them.
    what : `str`, optional
        What to call them in messages.

    Raises
    ------
    ModelPackageError
        Raised if a name or a shape differs, or a value is not finite.
    """
    variables = {f"{layer.name}/{v.name}": v for layer in model.layers for v in layer.weights}
    odd = sorted(set(variables) ^ set(weights))
    if odd:
        raise ModelPackageError(
            f"{what}: weight {odd[0]!r} is {'missing' if odd[0] in variables else 'unknown'}; "
            "the package does not fit its own architecture: train it again"
        )
    for name, variable in variables.items():
        value = np.asarray(weights[name])
        if tuple(value.shape) != tuple(variable.shape):
            raise ModelPackageError(
                f"{what}: weight {name!r} has shape {tuple(value.shape)}, expected "
                f"{tuple(variable.shape)}: train it again"
            )
        if not np.isfinite(value).all():
            raise ModelPackageError(f"{what}: weight {name!r} holds NaN or Inf: train it again")
    for name, variable in variables.items():
        variable.assign(weights[name])


class Network:
    """The deblender of a model package, ready to run.

    Parameters
    ----------
    package : `ModelPackage`
        The package.
    encoder : {"deblender_encoder", "prior_encoder"}, optional
        Which encoder to put before the decoder.
    engine : {"auto", "keras", "openvino"}, optional
        What runs the network; see `make_engine`.

    Raises
    ------
    ModelPackageError
        Raised if the package does not fit its own card, or the engine is
        unknown, not installed or unable to run the network.
    """

    def __init__(self, package: ModelPackage, encoder="deblender_encoder", engine="auto"):
        check_engine(engine)
        keras = load_keras()
        card = package.card
        self.package = package
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy("float32")
        try:
            self.architecture = make_architecture(
                card["architecture"]["name"],
                len(package.bands),
                card["stamp_size"],
                card["latent_dim"],
                **card["architecture"]["options"],
            )
            self.encoder = self.architecture.build_encoder()
            self.decoder = self.architecture.build_decoder()
        except ModelPackageError:
            raise
        except (TypeError, ValueError, IndexError) as error:
            raise ModelPackageError(
                f"no network can be built from the card of {package.name!r} "
                f"({str(error).splitlines()[0][:200]}): "
                "train it again or take another package"
            ) from error
        finally:
            keras.config.set_dtype_policy(policy)
        set_weights(self.encoder, package.part(encoder), f"{package.name}, {encoder}")
        set_weights(self.decoder, package.part("decoder"), f"{package.name}, decoder")
        self.engine = make_engine(engine, self.encoder, self.decoder)

    @property
    def bands(self):
        """Bands in the network's order."""
        return self.package.bands

    @property
    def stamp_size(self):
        """Side of the stamps, in pixels."""
        return self.architecture.stamp_size

    @property
    def latent_dim(self):
        """Dimension of the latent space."""
        return self.architecture.latent_dim

    def scale(self, noise):
        """Scale at the door for noise ``[n, band]`` (see `Architecture`)."""
        return self.architecture.scale(noise, self.package.card["normalisation"].get("scale"))

    def encode(self, images, noise, batch_size=256):
        """Approximate posterior of the central galaxies.

        Parameters
        ----------
        images : `numpy.ndarray`, ``[n, band, y, x]``
            Stamps centred on the galaxies, image unit, all finite.
        noise : array-like, ``[n, band]`` or ``[band]``
            Standard deviation of the background, image unit.
        batch_size : `int`, optional
            Stamps that go through the network together.

        Returns
        -------
        mean, sigma : `numpy.ndarray`, float32 ``[n, latent]``
            Parameters of the Gaussian posterior.

        Raises
        ------
        ImageError
            Raised if a shape is wrong or a value not finite.
        """
        images = np.asarray(images, dtype=np.float32)
        expected = (len(self.bands), self.stamp_size, self.stamp_size)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise ImageError(
                f"stamps have shape {images.shape}, model {self.package.name!r} takes "
                f"[n, {', '.join(map(str, expected))}] (bands {', '.join(self.bands)})"
            )
        noise = np.broadcast_to(np.asarray(noise, dtype=np.float32), images.shape[:2])
        if not np.isfinite(images).all() or not (np.isfinite(noise) & (noise > 0)).all():
            raise ImageError("stamps must be finite and their noise positive: mask or fill bad pixels first")
        if len(images) == 0:
            return (np.zeros((0, self.latent_dim), np.float32),) * 2
        scale = self.scale(noise)
        mean, sigma = np.empty((2, len(images), self.latent_dim), np.float32)
        for part in _batches(len(images), batch_size):
            scaled = images[part] / scale[part][:, :, None, None]
            mean[part], sigma[part] = self.engine.encode(scaled, batch_size)
        return mean, sigma

    def decode(self, latents, noise, batch_size=256):
        """Images of galaxies from their latents.

        Parameters
        ----------
        latents : `numpy.ndarray`, ``[n, latent]``
            Points of the latent space.
        noise : array-like, ``[n, band]`` or ``[band]``
            As in `encode`.
        batch_size : `int`, optional
            Latents that go through the network together.

        Returns
        -------
        images : `numpy.ndarray`, float32 ``[n, band, y, x]``
            Noiseless galaxies in the image unit, PSF included.
        """
        latents = np.asarray(latents, dtype=np.float32)
        size, n_bands = self.stamp_size, len(self.bands)
        if len(latents) == 0:
            return np.zeros((0, n_bands, size, size), np.float32)
        scale = self.scale(np.broadcast_to(np.asarray(noise, dtype=np.float32), (len(latents), n_bands)))
        images = np.empty((len(latents), n_bands, size, size), np.float32)
        for part in _batches(len(latents), batch_size):
            output = self.engine.decode(latents[part], batch_size)
            images[part] = self.architecture.scaled_images(output) * scale[part][:, :, None, None]
        return images

    def deblend(self, images, noise, batch_size=256):
        """Image of the central galaxy of each stamp; see `encode`.

        Returns
        -------
        models : `numpy.ndarray`, float32 ``[n, band, y, x]``
            Decoded posterior means, image unit.
        mean, sigma : `numpy.ndarray`, float32 ``[n, latent]``
            The posterior.
        """
        mean, sigma = self.encode(images, noise, batch_size)
        return self.decode(mean, noise, batch_size), mean, sigma


def _batches(n, batch_size):
    return (slice(start, min(start + batch_size, n)) for start in range(0, n, batch_size))
