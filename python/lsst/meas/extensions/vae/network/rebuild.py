# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Keras model rebuilt in the operations of another library, layer by layer.

What a Keras layer does is told here once, in a few operations; an engine's
module gives these operations.  The libraries' own converters write files, need
TensorFlow or report to their makers; the layers that our architectures are
made of need none of that, and work on any backend of Keras.
"""

from abc import ABC, abstractmethod

import keras
import numpy as np

from ..errors import ModelPackageError

__all__ = ["GraphBuilder"]

_TO_FIRST, _TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
_ACTIVATIONS = ("relu", "sigmoid", "softplus", "tanh")


class GraphBuilder(ABC):
    """Nodes of a graph by the Keras tensor that they stand for.

    Images are kept in either order of axes until a layer wants one, so that
    no transposition is made for nothing.  A node is whatever the operations of
    a subclass give; they take float32 arrays as constants.

    Parameters
    ----------
    batch_size : `int`
        First dimension of all tensors; -1 leaves it open.
    """

    engine: str
    """Name for messages."""

    def __init__(self, batch_size):
        self.batch_size, self._nodes = batch_size, {}

    def build(self, model):
        """Rebuild a model.

        Parameters
        ----------
        model : `keras.Model`
            Functional model, each layer used once.

        Returns
        -------
        inputs, outputs : `list`
            Nodes in the order of Keras's flattened inputs and outputs. Images
            go in channels first, and come out as Keras gives them.

        Raises
        ------
        ModelPackageError
            Raised if the model has a layer that cannot be rebuilt.
        """
        for layer in model.layers:
            make = getattr(self, f"_make_{type(layer).__name__}", None)
            if make is None:
                raise self._unknown(f"layer {type(layer).__name__}", layer)
            inputs = [self._nodes[id(tensor)] for tensor in keras.tree.flatten(layer.input)]
            self._nodes[id(layer.output)] = make(layer, *inputs)
        inputs = [self._nodes[id(tensor)][0] for tensor in model.inputs]
        return inputs, [self._last(self._nodes[id(tensor)]) for tensor in model.outputs]

    def _unknown(self, what, layer):
        return ModelPackageError(
            f"the engine {self.engine!r} knows no {what} ({layer.name!r}): use the engine 'keras'"
        )

    def _first(self, x):
        node, first = x
        return node if first else self.transpose(node, _TO_FIRST)

    def _last(self, x):
        node, first = x
        return self.transpose(node, _TO_LAST) if first else node

    def _alike(self, layer, inputs):
        """Inputs of one order of axes, and whether it is channels first."""
        if len({len(tensor.shape) for tensor in keras.tree.flatten(layer.input)}) > 1:
            raise self._unknown(f"{type(layer).__name__} of tensors of unlike dimensions", layer)
        first = inputs[0][1]
        return [self._first(x) if first else self._last(x) for x in inputs], first

    def _activation(self, layer, x):
        name = keras.activations.serialize(layer.activation)
        if name == "linear":
            return x
        if name == "silu":
            return self.op("multiply", x, self.op("sigmoid", x))
        if name not in _ACTIVATIONS:
            raise self._unknown(f"activation {name!r}", layer)
        return self.op(name, x)

    # What each layer does. These take a layer and its inputs, each a node and
    # whether its channels are first, and give such a pair.

    def _make_InputLayer(self, layer):
        shape = layer.output.shape[1:]
        first = len(shape) == 3
        shape = (shape[2], *shape[:2]) if first else tuple(shape)
        return self.parameter(layer.name, shape), first

    def _make_Stretch(self, layer, x):
        x, first = x
        one = np.float32(1.0)
        root = self.op("sqrt", self.op("add", self.op("multiply", x, x), one))
        if layer.kind == "tanh_arcsinh":
            return self.op("divide", x, root), first
        # The libraries' own asinh is slow; this one's error is 1e-7 near zero.
        log = self.op("log", self.op("add", self.op("abs", x), root))
        return self.op("multiply", self.op("sign", x), log), first

    def _make_Cropping2D(self, layer, x):
        x, first = x
        (top, bottom), (left, right) = layer.cropping
        ny, nx, _ = layer.input.shape[1:]
        axes = [2, 3] if first else [1, 2]
        return self.slice(x, [top, left], [ny - bottom, nx - right], axes), first

    def _make_BatchNormalization(self, layer, x):
        x, first = x
        if layer.axis not in (-1, len(layer.input.shape) - 1) or not (layer.scale and layer.center):
            raise self._unknown("such BatchNormalization", layer)
        gain = np.asarray(layer.gamma) / np.sqrt(np.asarray(layer.moving_variance) + layer.epsilon)
        offset = np.asarray(layer.beta) - np.asarray(layer.moving_mean) * gain
        shape = (-1, 1, 1) if first else (-1,)
        return self.op("add", self.op("multiply", x, gain.reshape(shape)), offset.reshape(shape)), first

    def _make_Conv2D(self, layer, x):
        self._check_convolution(layer)
        kernel = np.asarray(layer.kernel).transpose(3, 2, 0, 1)
        x = self.convolution(self._first(x), kernel, list(layer.strides))
        return self._finish_convolution(layer, x)

    def _make_Conv2DTranspose(self, layer, x):
        self._check_convolution(layer)
        kernel = np.asarray(layer.kernel).transpose(3, 2, 0, 1)
        # What a forward convolution with padding "same" would pad.
        pads = [max(size - stride, 0) for size, stride in zip(layer.kernel_size, layer.strides)]
        before = [pad // 2 for pad in pads]
        after = [pad - b for pad, b in zip(pads, before)]
        x = self.transposed_convolution(self._first(x), kernel, list(layer.strides), before, after)
        return self._finish_convolution(layer, x)

    def _check_convolution(self, layer):
        plain = tuple(layer.dilation_rate) == (1, 1) and getattr(layer, "groups", 1) == 1
        if layer.padding != "same" or not plain:
            raise self._unknown("such convolution", layer)

    def _finish_convolution(self, layer, x):
        if layer.use_bias:
            x = self.op("add", x, np.asarray(layer.bias).reshape(-1, 1, 1))
        return self._activation(layer, x), True

    def _make_Dense(self, layer, x):
        x = self.matmul(self._last(x), np.asarray(layer.kernel))
        if layer.use_bias:
            x = self.op("add", x, np.asarray(layer.bias))
        return self._activation(layer, x), False

    def _make_PReLU(self, layer, x):
        x, first = x
        slope = np.asarray(layer.alpha)
        return self.prelu(x, slope.transpose(2, 0, 1) if first else slope), first

    def _make_Activation(self, layer, x):
        return self._activation(layer, x[0]), x[1]

    def _make_Add(self, layer, *inputs):
        return self._fold("add", layer, inputs)

    def _make_Multiply(self, layer, *inputs):
        return self._fold("multiply", layer, inputs)

    def _fold(self, operation, layer, inputs):
        (total, *others), first = self._alike(layer, inputs)
        for x in others:
            total = self.op(operation, total, x)
        return total, first

    def _make_Concatenate(self, layer, *inputs):
        inputs, first = self._alike(layer, inputs)
        axis = layer.axis % len(layer.output.shape)
        return self.concatenate(inputs, _TO_FIRST.index(axis) if first else axis), first

    def _make_Reshape(self, layer, x):
        return self.reshape(self._last(x), [self.batch_size, *layer.output.shape[1:]]), False

    _make_Flatten = _make_Reshape

    def _make_PixelBias(self, layer, x):
        x, first = x
        bias = np.asarray(layer.bias)
        return self.op("add", x, bias.transpose(2, 0, 1) if first else bias), first

    def _make_LogSoftmax(self, layer, x):
        return self.log_softmax(self._last(x), 1), False

    # What a subclass gives.

    @abstractmethod
    def op(self, name, *inputs):
        """An elementwise operation, on tensors that broadcast as NumPy's.

        Names are ``abs``, ``add``, ``divide``, ``log``, ``multiply``,
        ``relu``, ``sigmoid``, ``sign``, ``softplus``, ``sqrt`` and ``tanh``.
        """

    @abstractmethod
    def parameter(self, name, shape):
        """Input of the graph, of so many samples of a shape."""

    @abstractmethod
    def transpose(self, x, order):
        """Axes in another order."""

    @abstractmethod
    def reshape(self, x, shape):
        """The same numbers in another shape."""

    @abstractmethod
    def slice(self, x, starts, stops, axes):
        """Part of a tensor, along some axes."""

    @abstractmethod
    def concatenate(self, inputs, axis):
        """Tensors behind each other."""

    @abstractmethod
    def matmul(self, x, matrix):
        """Last axis of a tensor times a matrix."""

    @abstractmethod
    def convolution(self, x, kernel, strides):
        """Convolution padded to the same size, the odd pixel at the end.

        The kernel is ``[out, in, y, x]``.
        """

    @abstractmethod
    def transposed_convolution(self, x, kernel, strides, before, after):
        """Transposed convolution, less some pixels before and after.

        The kernel is ``[in, out, y, x]``.
        """

    @abstractmethod
    def prelu(self, x, slope):
        """A tensor where it is positive, times the slope elsewhere."""

    @abstractmethod
    def log_softmax(self, x, axis):
        """Logarithm of the softmax along an axis."""
