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
from .observation import conditions
from .package import ModelPackage, psf_models

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
    engine : {"auto", "keras", "onnx", "openvino"}, optional
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
        if self.architecture.conditional and "noise" not in card:
            raise ModelPackageError(
                f"the card of {package.name!r} has no noise, in units of which its architecture "
                f"{self.architecture.name!r} works: train it again"
            )
        set_weights(self.encoder, package.part(encoder), f"{package.name}, {encoder}")
        set_weights(self.decoder, package.part("decoder"), f"{package.name}, decoder")
        self.engine = make_engine(engine, self.encoder, self.decoder)
        self._own_transfer = None

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

    def encode(self, images, noise, batch_size=256, psfs=None):
        """Approximate posterior of the central galaxies.

        Parameters
        ----------
        images : `numpy.ndarray`, ``[n, band, y, x]``
            Stamps centred on the galaxies, image unit, all finite.
        noise : array-like, ``[n, band]`` or ``[band]``
            Standard deviation of the background, image unit; infinite for a
            band without data, whose pixels count for nothing. A network that
            is not conditional takes such a band for empty sky.
        batch_size : `int`, optional
            Stamps that go through the network together.
        psfs : array-like, ``[n, band, y, x]`` or ``[band, y, x]``, optional
            PSF images with the pixel, centred on their middle pixel, for
            conditional networks; the survey's own by default. Other networks
            know their PSF.

        Returns
        -------
        mean, sigma : `numpy.ndarray`, float32 ``[n, latent]``
            Parameters of the Gaussian posterior.

        Raises
        ------
        ImageError
            Raised if a shape is wrong or a value not finite.
        """
        images, noise = self._checked(images, noise)
        return self._encode(images, noise, batch_size, self.transfer(psfs, len(images)))

    def decode(self, latents, noise, batch_size=256, psfs=None):
        """Images of galaxies from their latents.

        Parameters
        ----------
        latents : `numpy.ndarray`, ``[n, latent]``
            Points of the latent space.
        noise : array-like, ``[n, band]`` or ``[band]``
            As in `encode`; of no effect on conditional networks, whose
            latents do not depend on it.
        batch_size : `int`, optional
            Latents that go through the network together.
        psfs : array-like, optional
            As in `encode`: the PSFs through which to draw.

        Returns
        -------
        images : `numpy.ndarray`, float32 ``[n, band, y, x]``
            Noiseless galaxies in the image unit, PSF included.

        Raises
        ------
        ImageError
            Raised if a shape is wrong.
        """
        latents = np.asarray(latents, dtype=np.float32)
        if latents.ndim != 2 or latents.shape[1] != self.latent_dim:
            raise ImageError(f"latents have shape {latents.shape}: expected [n, {self.latent_dim}]")
        noise = self._noise(noise, len(latents))
        return self._decode(latents, noise, batch_size, self.transfer(psfs, len(latents)))

    def deblend(self, images, noise, batch_size=256, psfs=None):
        """Image of the central galaxy of each stamp; see `encode`.

        Returns
        -------
        models : `numpy.ndarray`, float32 ``[n, band, y, x]``
            Decoded posterior means, image unit.
        mean, sigma : `numpy.ndarray`, float32 ``[n, latent]``
            The posterior.
        """
        images, noise = self._checked(images, noise)
        transfer = self.transfer(psfs, len(images))
        mean, sigma = self._encode(images, noise, batch_size, transfer)
        return self._decode(mean, noise, batch_size, transfer), mean, sigma

    def templates(self, latents, noise, transfer=None, coarse=False, batch_size=512):
        """Shapes and fluxes of galaxies from their latents, of several latents for each stamp.

        Parameters
        ----------
        latents : `numpy.ndarray`, ``[n, k, latent]``
            Points of the latent space, k for each of n stamps.
        noise : `numpy.ndarray`, ``[n, band]``
            As in `encode`.
        transfer : `numpy.ndarray`, optional
            What `transfer` gives of the stamps' PSFs, for conditional networks.
        coarse : `bool`, optional
            See `~.architecture.Architecture.templates`.
        batch_size : `int`, optional
            Latents that go through the network together.

        Returns
        -------
        templates : `numpy.ndarray`, float32 ``[n, k, template, y, x]``
            Noiseless galaxies of unit sum; band b has number ``architecture.template_of_band[b]``.
        fluxes : `numpy.ndarray`, float32 ``[n, k, band]``
            Image unit.
        """
        n, k, _ = latents.shape
        architecture = self.architecture
        flat = latents.reshape(n * k, -1).astype(np.float32)
        parts = [self.engine.decode(flat[part], batch_size) for part in _batches(n * k, batch_size)]
        output = load_keras().tree.map_structure(lambda *x: np.concatenate(x), *parts)
        templates, fluxes = architecture.templates(output, transfer, coarse)
        fluxes = fluxes.reshape(n, k, -1) * self._output_scale(noise)[:, None]
        return templates.reshape(n, k, *templates.shape[1:]), fluxes

    @property
    def has_latent_prior(self):
        """Does the card tell where galaxies lie in the latent space?"""
        return "latent_prior" in self.package.card

    @property
    def latent_prior(self):
        """Mean ``[latent]`` and covariance ``[latent, latent]`` of what the prior's encoder made of isolated
        galaxies; of a standard normal where the card does not tell."""
        told = self.package.card.get("latent_prior")
        if told is None:
            return np.zeros(self.latent_dim), np.eye(self.latent_dim)
        return np.array(told["mean"]), np.array(told["covariance"])

    @property
    def floors(self):
        """What the decoder's own error adds to the posterior: half 68 % intervals of each component of the
        ellipticity (``shape``) and of the logarithm of the flux (``flux``), 0 if the card does not tell; and
        ``shape_scale`` and ``flux_scale``, which widen the posterior of refinement, and ``tails``, degrees of
        freedom of its Student's t, 0 for a Gaussian."""
        told = self.package.card.get("posterior_floors", {})
        return {"shape": 0.0, "flux": 0.0, "shape_scale": 1.0, "flux_scale": 1.0, "tails": 0.0, **told}

    @property
    def knows_shifts(self):
        """Do the latents tell where about its centre a galaxy is?  Else it is at the very centre."""
        return self.package.card.get("centring", "none") != "none"

    def _checked(self, images, noise):
        images = np.asarray(images, dtype=np.float32)
        expected = (len(self.bands), self.stamp_size, self.stamp_size)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise ImageError(
                f"stamps have shape {images.shape}, model {self.package.name!r} takes "
                f"[n, {', '.join(map(str, expected))}] (bands {', '.join(self.bands)})"
            )
        noise = self._noise(noise, len(images))
        if not np.isfinite(images).all() or not (noise > 0).all():
            raise ImageError("stamps must be finite and their noise positive: mask or fill bad pixels first")
        return images, noise

    def _noise(self, noise, n):
        """Noise of n stamps, ``[n, band]``."""
        noise, expected = np.asarray(noise, dtype=np.float32), (n, len(self.bands))
        try:
            return np.broadcast_to(noise, expected)
        except ValueError:
            raise ImageError(
                f"noise has shape {noise.shape}: expected [{expected[1]} bands], or [{n} stamps, "
                f"{expected[1]} bands]"
            ) from None

    @property
    def typical_noise(self):
        """Noise of the survey, ``[band]``."""
        return np.asarray(self.package.card.get("noise", 1.0), np.float32)

    def own_psfs(self):
        """PSF images of the survey, float64 ``[band, y, x]``, with the pixel and of unit sum."""
        models = psf_models(self.package.card)
        scales = self.package.card["pixel_scale"]
        return np.stack(
            [model.kernel(scale, self.stamp_size - 1) for model, scale in zip(models, scales, strict=True)]
        )

    def transfer(self, psfs, n):
        """What takes galaxies through PSFs, for conditional networks.

        Parameters
        ----------
        psfs : array-like or `None`
            As in `encode`.
        n : `int`
            Number of stamps.

        Returns
        -------
        transfer : `numpy.ndarray`, complex64 ``[n, band, y, x/2+1]``, or `None`
            `None` for networks that know their PSF.

        Raises
        ------
        ImageError
            Raised if a shape is wrong.
        """
        if not self.architecture.conditional:
            return None
        if psfs is None:
            if self._own_transfer is None:
                self._own_transfer = self.architecture.transfer(self.own_psfs())
            transfer = self._own_transfer
        else:
            psfs = np.asarray(psfs)
            fits = psfs.ndim == 3 or psfs.ndim == 4 and len(psfs) in (1, n)
            if not fits or psfs.shape[-3] != len(self.bands):
                raise ImageError(
                    f"PSF images have shape {psfs.shape}: expected [{len(self.bands)} bands, y, x], or one "
                    f"such cube for each of {n} stamps"
                )
            transfer = self.architecture.transfer(psfs)
        return np.broadcast_to(transfer, (n, *transfer.shape[-3:]))

    def _encode(self, images, noise, batch_size, transfer):
        if len(images) == 0:
            return (np.zeros((0, self.latent_dim), np.float32),) * 2
        conditional, typical = self.architecture.conditional, self.typical_noise
        scale = self.scale(np.where(np.isinf(noise), typical, noise))
        mean, sigma = np.empty((2, len(images), self.latent_dim), np.float32)
        for part in _batches(len(images), batch_size):
            scaled, told = images[part] / scale[part][:, :, None, None], ()
            if conditional:
                scaled[np.isinf(noise[part])] = 0.0
                told = (conditions(transfer[part], noise[part] / typical),)
            mean[part], sigma[part] = self.engine.encode(scaled, batch_size, *told)
        return mean, sigma

    def _decode(self, latents, noise, batch_size, transfer):
        n_bands, size = len(self.bands), self.stamp_size
        images = np.empty((len(latents), n_bands, size, size), np.float32)
        scale = self._output_scale(noise)
        for part in _batches(len(latents), batch_size):
            output = self.engine.decode(latents[part], batch_size)
            told = () if transfer is None else (transfer[part],)
            images[part] = self.architecture.scaled_images(output, *told)
            images[part] *= scale[part][:, :, None, None]
        return images

    def _output_scale(self, noise):
        """Unit of the decoder's fluxes for stamps of some noise, ``[n, band]``."""
        if self.architecture.conditional:
            return np.broadcast_to(self.typical_noise, noise.shape)
        return self.scale(np.where(np.isinf(noise), self.typical_noise, noise))


def _batches(n, batch_size):
    return (slice(start, min(start + batch_size, n)) for start in range(0, n, batch_size))
