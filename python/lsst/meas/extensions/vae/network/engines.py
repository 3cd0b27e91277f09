# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Engines: what runs a trained network.

``keras`` runs it on Keras's backend and is always there; ``openvino`` and
``onnx`` (ONNX Runtime) rebuild it in memory for processors, where they are
installed.
"""

import logging
from abc import ABC, abstractmethod

import numpy as np

from ..errors import ModelPackageError
from .libraries import has_onnxruntime, has_openvino

__all__ = [
    "ENGINES",
    "Engine",
    "KerasEngine",
    "OnnxEngine",
    "OpenVinoEngine",
    "check_engine",
    "installed_engines",
    "make_engine",
]

ENGINES = ("auto", "keras", "onnx", "openvino")

_log = logging.getLogger(__name__)


class Engine(ABC):
    """An encoder and a decoder, ready to run on arrays.

    Parameters
    ----------
    encoder, decoder : `keras.Model`
        The network. An encoder takes images alone, or images and a vector of
        conditions, in this order.
    """

    name: str

    def __init__(self, encoder, decoder):
        self._input_shapes = [tuple(tensor.shape[1:]) for tensor in encoder.inputs]

    @abstractmethod
    def encode(self, images, batch_size, condition=None):
        """Run the encoder.

        Parameters
        ----------
        images : `numpy.ndarray`, float32 ``[n, band, y, x]``
            Scaled images, one batch or less.
        batch_size : `int`
            Most stamps of a batch.
        condition : `numpy.ndarray`, float32 ``[n, k]``, optional
            What an encoder of two inputs is told of each stamp.

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

    def _inputs(self, images, condition):
        expected = [(len(images), *shape) for shape in self._input_shapes[1:]]
        found = [] if condition is None else [np.shape(condition)]
        if found != expected:
            raise ModelPackageError(
                f"the encoder takes {_told(expected)} beside {len(images)} images, given is {_told(found)}: "
                "give what the network was trained with"
            )
        return [images] if condition is None else [images, np.asarray(condition, dtype=np.float32)]


class KerasEngine(Engine):
    """Keras's own backend, compiled once a batch shape.

    Parameters
    ----------
    encoder, decoder : `keras.Model`
        The network.
    """

    name = "keras"

    def __init__(self, encoder, decoder):
        super().__init__(encoder, decoder)
        self._encode, self._decode = _compile(encoder), _compile(decoder)

    def encode(self, images, batch_size, condition=None):
        images = np.ascontiguousarray(np.moveaxis(images, 1, -1))
        return _padded(self._encode, self._inputs(images, condition), batch_size)

    def decode(self, latents, batch_size):
        return _padded(self._decode, [latents], batch_size)


class RebuiltEngine(Engine):
    """A library for processors in which the network is rebuilt, in float32.

    Parameters
    ----------
    encoder, decoder : `keras.Model`
        The network; nothing is written and nothing else is read.

    Raises
    ------
    ModelPackageError
        Raised if the library is not installed, or its results are not Keras's.
    """

    library: str
    """Name for messages."""

    def __init__(self, encoder, decoder):
        super().__init__(encoder, decoder)
        if self.name not in installed_engines():
            raise ModelPackageError(
                f"engine {self.name!r} is not installed: pip install 'meas-extensions-vae[{self.name}]', "
                f"or take {' or '.join(map(repr, installed_engines()))}"
            )
        try:
            self._encode, self._decode = self._compiled(encoder), self._compiled(decoder)
        except ModelPackageError:
            raise
        except Exception as error:  # the libraries have many
            raise ModelPackageError(
                f"{self.library} cannot build this network ({str(error).splitlines()[0][:200]}): "
                "use the engine 'keras'"
            ) from error
        self._compare(encoder, decoder)

    @abstractmethod
    def _compiled(self, model):
        """The model as a function of arrays, images channels first."""

    def encode(self, images, batch_size, condition=None):
        return self._encode(*self._inputs(images, condition))

    def decode(self, latents, batch_size):
        return self._decode(latents)

    def _compare(self, encoder, decoder):
        """Two stamps and two latents have to give what Keras gives."""
        import keras

        rng = np.random.default_rng(0)
        limit = 1e-4
        for model, run in ((encoder, self._encode), (decoder, self._decode)):
            inputs, ours = [], []
            for tensor in model.inputs:
                image = len(tensor.shape) == 4
                x = rng.normal(0, 10 if image else 1, (2, *tensor.shape[1:])).astype(np.float32)
                inputs.append(x)
                ours.append(np.moveaxis(x, -1, 1) if image else x)
            expected = model(_packed(inputs), training=False)
            for a, b in zip(keras.tree.flatten(expected), keras.tree.flatten(run(*ours))):
                a = np.asarray(a)
                error = np.abs(a - b).max() / max(np.abs(a).max(), 1e-3)
                if not error < limit:
                    raise ModelPackageError(
                        f"{self.library}'s results differ from Keras's by {error:.1e} of the largest, "
                        f"allowed are {limit:g}: use the engine 'keras'"
                    )


class OpenVinoEngine(RebuiltEngine):
    """OpenVINO, on all cores of the process; parameters as `RebuiltEngine`."""

    name, library = "openvino", "OpenVINO"

    def _compiled(self, model):
        from .openvino_engine import CompiledModel

        return CompiledModel(model)


class OnnxEngine(RebuiltEngine):
    """ONNX Runtime, on all cores of the process; parameters as `RebuiltEngine`."""

    name, library = "onnx", "ONNX Runtime"

    def _compiled(self, model):
        from .onnx_engine import CompiledModel

        return CompiledModel(model)


_CLASSES = {cls.name: cls for cls in (KerasEngine, OnnxEngine, OpenVinoEngine)}


def installed_engines():
    """Engines that can be used here.

    Returns
    -------
    names : `tuple` [`str`]
        The fastest on a processor first.
    """
    there = {"openvino": has_openvino, "onnx": has_onnxruntime, "keras": lambda: True}
    return tuple(name for name, installed in there.items() if installed())


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
    name : {"auto", "keras", "onnx", "openvino"}
        ``auto`` takes the fastest that is installed and gives what Keras
        gives (OpenVINO, then ONNX Runtime); Keras where Keras has a GPU.
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
    if name != "auto":
        return _CLASSES[name](encoder, decoder)
    for fastest in () if _has_gpu() else installed_engines():
        try:
            return _CLASSES[fastest](encoder, decoder)
        except ModelPackageError as error:
            _log.warning("Going on without it: %s", error)
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


def _told(shapes):
    return " and ".join(f"a condition of shape {shape}" for shape in shapes) or "no condition"


def _packed(inputs):
    """Inputs as Keras wants them: one tensor or a list."""
    return inputs[0] if len(inputs) == 1 else list(inputs)


def _padded(run, inputs, batch_size):
    """Run a compiled model on a batch padded to one of few sizes.

    A compiled model is traced once a batch shape, so odd remainders are
    padded to a power of two.
    """
    import keras

    count = len(inputs[0])
    # Products of fewer rows than 16 take other ways, to other bits.
    padded = max(16, min(batch_size, 1 << (count - 1).bit_length()))
    if padded > count:
        inputs = [np.concatenate([x, np.repeat(x[-1:], padded - count, axis=0)]) for x in inputs]
    return keras.tree.map_structure(lambda t: np.asarray(t, dtype=np.float32)[:count], run(*inputs))


def _compile(model):
    """Make a fast inference function of a Keras model, on either backend."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda *x: model(_packed(x), training=False), reduce_retracing=False)
    if keras.backend.backend() == "jax":
        import jax

        trainable = [v.value for v in model.trainable_variables]
        fixed = [v.value for v in model.non_trainable_variables]
        run = jax.jit(lambda t, f, x: model.stateless_call(t, f, _packed(x), training=False)[0])
        return lambda *x: run(trainable, fixed, x)
    return lambda *x: model(_packed(x), training=False)
