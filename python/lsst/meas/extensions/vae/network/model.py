# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network in use: images in, images of the central galaxy out."""

import numpy as np

from ..errors import ImageError, ModelPackageError
from .architecture import make_architecture
from .backend import load_keras
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
    """

    def __init__(self, package: ModelPackage, encoder="deblender_encoder"):
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
        self._encode, self._decode = _compile(self.encoder), _compile(self.decoder)

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
        mean, sigma = _batched(
            self._encode,
            batch_size,
            len(images),
            lambda part: self.architecture.to_network(images[part], scale[part]),
        )
        return np.asarray(mean, dtype=np.float32), np.asarray(sigma, dtype=np.float32)

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
        for start in range(0, len(latents), batch_size):
            part = slice(start, start + batch_size)
            output = _batched(self._decode, batch_size, len(latents[part]), lambda p, s=part: latents[s][p])
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


def _batched(run, batch_size, n, get):
    """Run a compiled model over batches padded to few distinct sizes.

    A compiled model is traced once a batch shape, so odd remainders are
    padded to a power of two.
    """
    import keras

    pieces = []
    for start in range(0, n, batch_size):
        part = slice(start, min(start + batch_size, n))
        inputs = get(part)
        count = len(inputs)
        padded = min(batch_size, 1 << (count - 1).bit_length())
        if padded > count:
            inputs = np.concatenate([inputs, np.repeat(inputs[-1:], padded - count, axis=0)])
        output = run(inputs)
        pieces.append(keras.tree.map_structure(lambda t, c=count: np.asarray(t)[:c], output))
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *pieces)


def _compile(model):
    """Make a fast inference function of a Keras model, on either backend."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda x: model(x, training=False), reduce_retracing=False)
    if keras.backend.backend() == "jax":
        import jax

        trainable = [v.value for v in model.trainable_variables]
        fixed = [v.value for v in model.non_trainable_variables]
        run = jax.jit(lambda t, f, x: model.stateless_call(t, f, x, training=False)[0])
        return lambda x: run(trainable, fixed, x)
    return lambda x: model(x, training=False)
