# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Engines: what runs a trained network.

``keras`` runs it on Keras's backend and is always there; ``openvino`` rebuilds
it in memory for Intel's and AMD's processors, where `openvino` is installed.
"""

import importlib
import logging
from abc import ABC, abstractmethod

import numpy as np

from ..errors import ModelPackageError

__all__ = [
    "ENGINES",
    "Engine",
    "KerasEngine",
    "OpenVinoEngine",
    "check_engine",
    "installed_engines",
    "make_engine",
]

ENGINES = ("auto", "keras", "openvino")

_log = logging.getLogger(__name__)


class Engine(ABC):
    """An encoder and a decoder, ready to run on arrays."""

    name: str

    @abstractmethod
    def encode(self, images, batch_size):
        """Run the encoder.

        Parameters
        ----------
        images : `numpy.ndarray`, float32 ``[n, band, y, x]``
            Scaled images, one batch or less.
        batch_size : `int`
            Most stamps of a batch.

        Returns
        -------
        mean, sigma : `numpy.ndarray`, float32 ``[n, latent]``
        """

    @abstractmethod
    def decode(self, latents, batch_size):
        """Run the decoder.

        Parameters
        ----------
        latents : `numpy.ndarray`, float32 ``[n, latent]``
            One batch or less.
        batch_size : `int`
            Most latents of a batch.

        Returns
        -------
        output : `numpy.ndarray` or `dict` of `numpy.ndarray`
            What the decoder gives, for `Architecture.scaled_images`.
        """


class KerasEngine(Engine):
    """Keras's own backend, compiled once a batch shape.

    Parameters
    ----------
    encoder, decoder : `keras.Model`
        The network.
    """

    name = "keras"

    def __init__(self, encoder, decoder):
        self._encode, self._decode = _compile(encoder), _compile(decoder)

    def encode(self, images, batch_size):
        return _padded(self._encode, np.ascontiguousarray(np.moveaxis(images, 1, -1)), batch_size)

    def decode(self, latents, batch_size):
        return _padded(self._decode, latents, batch_size)


class OpenVinoEngine(Engine):
    """OpenVINO, in float32 on all cores of the process.

    Parameters
    ----------
    encoder, decoder : `keras.Model`
        The network; nothing is written and nothing else is read.
    precision : {"f32", "bf16"}, optional
        bf16 is for benchmarks: twice as fast, but its images are not accurate
        enough (doc/models.md).

    Raises
    ------
    ModelPackageError
        Raised if OpenVINO is not installed, or its results are not Keras's.
    """

    name = "openvino"

    def __init__(self, encoder, decoder, precision="f32"):
        if not _has_openvino():
            raise ModelPackageError(
                "engine 'openvino' is not installed: pip install 'meas-extensions-vae[openvino]', "
                f"or take {' or '.join(map(repr, installed_engines()))}"
            )
        from .openvino_engine import CompiledModel

        try:
            self._encode, self._decode = CompiledModel(encoder, precision), CompiledModel(decoder, precision)
        except RuntimeError as error:
            raise ModelPackageError(
                f"OpenVINO cannot build this network ({str(error).splitlines()[0][:200]}): "
                "use the engine 'keras'"
            ) from error
        if precision == "f32":
            self._compare(encoder, decoder)

    def encode(self, images, batch_size):
        return self._encode(images)

    def decode(self, latents, batch_size):
        return self._decode(latents)

    def _compare(self, encoder, decoder):
        """Two stamps and two latents have to give what Keras gives."""
        import keras

        rng = np.random.default_rng(0)
        images = rng.normal(0, 10, (2, *encoder.input.shape[1:])).astype(np.float32)
        latents = rng.normal(size=(2, *decoder.input.shape[1:])).astype(np.float32)
        pairs = (
            (encoder(images, training=False), self._encode(np.ascontiguousarray(np.moveaxis(images, -1, 1)))),
            (decoder(latents, training=False), self._decode(latents)),
        )
        for expected, found in pairs:
            for a, b in zip(keras.tree.flatten(expected), keras.tree.flatten(found)):
                a = np.asarray(a)
                error = np.abs(a - b).max() / max(np.abs(a).max(), 1e-3)
                if not error < 1e-4:
                    raise ModelPackageError(
                        f"OpenVINO's results differ from Keras's by {error:.1e} of the largest, allowed are "
                        "1e-4: use the engine 'keras'"
                    )


def _has_openvino():
    try:
        importlib.import_module("openvino")
    except (ImportError, OSError):
        return False
    return True


def installed_engines():
    """Engines that can be used here.

    Returns
    -------
    names : `tuple` [`str`]
        The fastest on a processor first.
    """
    return ("openvino", "keras") if _has_openvino() else ("keras",)


def check_engine(name):
    """Refuse a name that is no engine's.

    Raises
    ------
    ModelPackageError
        Raised if it is unknown.
    """
    if name not in ENGINES:
        raise ModelPackageError(
            f"unknown engine {str(name)[:60]!r}; known are {', '.join(ENGINES)}; installed here: "
            f"{', '.join(installed_engines())}"
        )


def make_engine(name, encoder, decoder):
    """Make an engine.

    Parameters
    ----------
    name : {"auto", "keras", "openvino"}
        ``auto`` takes OpenVINO where it is installed, gives what Keras gives
        and Keras has no GPU; Keras otherwise.
    encoder, decoder : `keras.Model`
        The network with its weights.

    Returns
    -------
    engine : `Engine`

    Raises
    ------
    ModelPackageError
        Raised if the engine is unknown, not installed, or cannot run the
        network.
    """
    check_engine(name)
    if name == "openvino":
        return OpenVinoEngine(encoder, decoder)
    if name == "auto" and _has_openvino() and not _has_gpu():
        try:
            return OpenVinoEngine(encoder, decoder)
        except ModelPackageError as error:
            _log.warning("Going on with Keras: %s", error)
    return KerasEngine(encoder, decoder)


def _has_gpu():
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    return False


def _padded(run, inputs, batch_size):
    """Run a compiled model on a batch padded to one of few sizes.

    A compiled model is traced once a batch shape, so odd remainders are
    padded to a power of two.
    """
    import keras

    count = len(inputs)
    padded = min(batch_size, 1 << (count - 1).bit_length())
    if padded > count:
        inputs = np.concatenate([inputs, np.repeat(inputs[-1:], padded - count, axis=0)])
    return keras.tree.map_structure(lambda t: np.asarray(t, dtype=np.float32)[:count], run(inputs))


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
