# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an architecture is: how images enter, what is learned, how they leave.

All architectures share one convention.  Images come as ``[n, band, y, x]`` in
the image unit.  At the door they are divided by one number a band (the
*scale*) and transposed to the networks' ``[n, y, x, band]``; everything else,
the stretch included, happens inside the graph.
"""

from abc import ABC, abstractmethod

import numpy as np

from ..errors import ModelPackageError

__all__ = ["Architecture", "architecture_names", "make_architecture"]


class Architecture(ABC):
    """A pair of encoder and decoder with its loss and its normalisation.

    Parameters
    ----------
    n_bands : `int`
        Number of bands.
    stamp_size : `int`
        Side of the square stamps, in pixels.
    latent_dim : `int`
        Dimension of the latent space.
    **options
        Options of the architecture, kept in the card.
    """

    name: str
    normalisation: str
    """``"noise"``: the scale is each stamp's own noise; ``"fixed"``: numbers
    from the training sample, kept in the card."""
    conditional = False
    """Is the encoder told how a stamp was observed, and does the decoder need
    the transfer functions of PSFs?  Then target and output are in units of the
    survey's noise, not of the stamp's own; see `~.conditional.Conditional`."""

    default_options: dict = {}

    def __init__(self, n_bands, stamp_size=64, latent_dim=32, **options):
        unknown = sorted(set(options) - set(self.default_options))
        if unknown:
            raise ModelPackageError(
                f"architecture {self.name!r} has no option {unknown[0]!r}; it has "
                f"{', '.join(self.default_options) or 'none'}"
            )
        self.n_bands, self.stamp_size, self.latent_dim = int(n_bands), int(stamp_size), int(latent_dim)
        self.options = {**self.default_options, **options}

    @classmethod
    def survey_options(cls, survey):
        """Options that follow from the survey.

        Returns
        -------
        options : `dict`
        """
        return {}

    @abstractmethod
    def build_encoder(self, name="encoder"):
        """Make the encoder.

        Returns
        -------
        encoder : `keras.Model`
            From scaled images ``[n, y, x, band]`` (and conditions, if it is
            conditional) to the mean and the sigma of the posterior, each
            ``[n, latent]``.
        """

    @abstractmethod
    def build_decoder(self, name="decoder"):
        """Make the decoder.

        Returns
        -------
        decoder : `keras.Model`
            From latents ``[n, latent]`` to whatever `reconstruction_loss` and
            `scaled_images` take.
        """

    @abstractmethod
    def reconstruction_loss(self, target, output, **observed):
        """Loss of each sample, in the backend's tensors.

        Parameters
        ----------
        target : tensor, ``[n, y, x, band]``
            Scaled noiseless images of the target galaxy.
        output : tensor or `dict` of tensors
            What the decoder gave.
        **observed
            Of conditional architectures: ``transfer`` ``[n, band, y, x/2+1]``,
            real, and ``noise`` ``[n, band]`` in units of the survey's.

        Returns
        -------
        loss : tensor, ``[n]``
            Sum over pixels and bands.
        """

    @abstractmethod
    def scaled_images(self, output, transfer=None):
        """Images in the scaled unit from the decoder's output, in NumPy.

        Parameters
        ----------
        output : `numpy.ndarray` or `dict` of `numpy.ndarray`
            What the decoder gave.
        transfer : `numpy.ndarray`, ``[n, band, y, x/2+1]``, optional
            Transfer functions, for conditional architectures.

        Returns
        -------
        images : `numpy.ndarray`, float32 ``[n, band, y, x]``
            Multiply by the scale for the image unit.
        """

    @property
    def template_of_band(self):
        """Which template of `templates` each band uses, ``[band]``."""
        return np.arange(self.n_bands)

    coarseness = 1
    """Every how many pixels `templates` can be had at least, where PSFs leave nothing finer."""

    def templates(self, output, transfer=None, coarse=False):
        """Shapes and fluxes apart, in NumPy; parameters as `scaled_images`.

        Parameters
        ----------
        coarse : `bool`, optional
            Only every ``coarseness``-th pixel along both axes, from the first on, of the low frequencies
            that so many pixels can show.

        Returns
        -------
        templates : `numpy.ndarray`, float32 ``[n, template, y, x]``
            Images of unit sum (but for what a PSF takes off the stamp), which
            bands share as `template_of_band` says.
        fluxes : `numpy.ndarray`, float32 ``[n, band]``
            In the scaled unit.
        """
        images = self.scaled_images(output, transfer)
        fluxes = images.sum(axis=(2, 3))
        safe = np.where(np.abs(fluxes) > 1e-20, fluxes, 1.0)
        return images / safe[:, :, None, None], fluxes

    def scale(self, noise, fixed=None):
        """Number by which each band is divided at the door.

        Parameters
        ----------
        noise : array-like, ``[..., band]``
            Standard deviation of the background of each band, image unit.
        fixed : array-like, ``[band]``, optional
            Scale from the card, for architectures that have a fixed one.

        Returns
        -------
        scale : `numpy.ndarray`, float32 ``[..., band]``
            The scale, in the image unit.
        """
        noise = np.asarray(noise, dtype=np.float32)
        if self.normalisation == "noise":
            return noise
        return np.broadcast_to(np.asarray(fixed, dtype=np.float32), noise.shape)

    @staticmethod
    def to_network(images, scale):
        """Images ``[n, band, y, x]`` to the network's ``[n, y, x, band]``."""
        scaled = np.asarray(images, dtype=np.float32) / np.asarray(scale)[..., :, None, None]
        return np.ascontiguousarray(np.moveaxis(scaled, -3, -1))


def _registry():
    from .arcelin2020 import Arcelin2020
    from .conditional import Conditional
    from .factorised import Factorised
    from .morphology import Morphology

    return {cls.name: cls for cls in (Arcelin2020, Conditional, Factorised, Morphology)}


def architecture_names():
    """Names of the architectures.

    Returns
    -------
    names : `tuple` [`str`]
        The names that `make_architecture` takes.
    """
    return ("arcelin2020", "conditional", "factorised", "morphology")


def make_architecture(name, n_bands, stamp_size=64, latent_dim=32, survey=None, **options):
    """Make an architecture by its name; parameters as `Architecture`.

    Parameters
    ----------
    survey : `~..survey.Survey`, optional
        Gives the options that follow from it (`Architecture.survey_options`).

    Raises
    ------
    ModelPackageError
        Raised if the name or an option is unknown.
    """
    if name not in architecture_names():
        raise ModelPackageError(f"unknown architecture {name!r}; known: {', '.join(architecture_names())}")
    cls = _registry()[name]
    if survey is not None:
        options = {**cls.survey_options(survey), **options}
    return cls(n_bands, stamp_size=stamp_size, latent_dim=latent_dim, **options)
