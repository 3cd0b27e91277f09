# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Keras model rebuilt as an OpenVINO graph, layer by layer, in memory.

OpenVINO's own converter writes files, needs TensorFlow and reports to its
makers (``openvino-telemetry``); the few layers that our architectures are made
of need none of that, and work on any backend of Keras.
"""

import keras
import numpy as np

from ..errors import ModelPackageError

try:
    import openvino
    from openvino import opset13 as ops
except (ImportError, OSError):  # `make_engine` tells; this module is not used then.
    openvino = ops = None

__all__ = ["CompiledModel", "build_graph"]

_CHANNELS_FIRST, _CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


class CompiledModel:
    """A Keras model, compiled for batches of one size.

    Parameters
    ----------
    model : `keras.Model`
        Functional model with one input.
    precision : {"f32", "bf16"}
        In what the arithmetic is done; weights and results are float32.
    batch_size : `int`
        Samples of one inference.

    Raises
    ------
    ModelPackageError
        Raised if the model has a layer that cannot be rebuilt.
    """

    def __init__(self, model, precision="f32", batch_size=16):
        graph, self._structure = build_graph(model, batch_size)
        compiled = openvino.Core().compile_model(
            graph,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": precision,
                "PERFORMANCE_HINT": "THROUGHPUT",
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._batch_size = batch_size
        self._shapes = [tuple(output.shape)[1:] for output in compiled.outputs]
        # One request for each of OpenVINO's streams: they run side by side.
        self._queue = openvino.AsyncInferQueue(compiled)
        self._queue.set_callback(_collect)

    def __call__(self, inputs):
        """Run the model.

        Parameters
        ----------
        inputs : `numpy.ndarray`, float32 ``[n, ...]``
            Images channels first (``[n, band, y, x]``), or latents.

        Returns
        -------
        output
            As the Keras model gives it, in float32 arrays.
        """
        inputs = np.ascontiguousarray(inputs, dtype=np.float32)
        n, size = len(inputs), self._batch_size
        outputs = [np.empty((n, *shape), np.float32) for shape in self._shapes]
        for start in range(0, n, size):
            part = inputs[start : start + size]
            if len(part) < size:
                part = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.float32)])
            self._queue.start_async({0: part}, (outputs, start))
        self._queue.wait_all()
        return keras.tree.pack_sequence_as(self._structure, outputs)


def _collect(request, place):
    outputs, start = place
    for i, output in enumerate(outputs):
        part = output[start:]
        result = request.get_output_tensor(i).data
        part[: len(result)] = result[: len(part)]


def build_graph(model, batch_size):
    """Rebuild a functional Keras model.

    Parameters
    ----------
    model : `keras.Model`
        Functional model with one input, each layer used once.
    batch_size : `int`
        First dimension of all tensors.

    Returns
    -------
    graph : `openvino.Model`
        Takes images channels first; gives what the Keras model gives.
    structure
        The nest of the model's outputs, to pack the graph's outputs into.
    """
    builder = _Builder(batch_size)
    for layer in model.layers:
        builder.add(layer)
    structure = model.output
    outputs = [builder.plain(tensor) for tensor in keras.tree.flatten(structure)]
    return openvino.Model(outputs, builder.parameters, model.name), structure


def _constant(value):
    return ops.constant(np.ascontiguousarray(value, dtype=np.float32))


class _Builder:
    """Nodes by the Keras tensor that they stand for.

    Images are kept in either order of axes until a layer wants one, so that
    no transposition is made for nothing.
    """

    def __init__(self, batch_size):
        self.batch_size, self.parameters, self._nodes = batch_size, [], {}

    def add(self, layer):
        """Add a layer whose inputs are there already."""
        make = getattr(self, f"_make_{type(layer).__name__}", None)
        if make is None:
            raise ModelPackageError(
                f"the engine 'openvino' knows no layer {type(layer).__name__} ({layer.name!r}): "
                "use the engine 'keras'"
            )
        if type(layer) is keras.layers.InputLayer:
            self._nodes[id(layer.output)] = make(layer)
            return
        inputs = [self._nodes[id(tensor)] for tensor in keras.tree.flatten(layer.input)]
        self._nodes[id(layer.output)] = make(layer, *inputs)

    def plain(self, tensor):
        """Node of a Keras tensor, its axes as Keras has them."""
        return _channels_last(self._nodes[id(tensor)])[0]

    # Each of these takes a layer and its inputs, and gives a node and whether
    # its channels are first.

    def _make_InputLayer(self, layer):
        shape = layer.output.shape[1:]
        first = len(shape) == 3
        shape = (shape[2], *shape[:2]) if first else shape
        self.parameters.append(ops.parameter([self.batch_size, *shape], np.float32))
        return self.parameters[-1], first

    def _make_Stretch(self, layer, x):
        x, first = x
        root = ops.sqrt(ops.add(ops.multiply(x, x), _constant(1.0)))
        if layer.kind == "tanh_arcsinh":
            return ops.divide(x, root), first
        # OpenVINO's own asinh is slow; this one's error is 1e-7 near zero.
        return ops.multiply(ops.sign(x), ops.log(ops.add(ops.abs(x), root))), first

    def _make_Cropping2D(self, layer, x):
        x, first = x
        (top, bottom), (left, right) = layer.cropping
        ny, nx, _ = layer.input.shape[1:]
        axes = [2, 3] if first else [1, 2]
        return ops.slice(x, [top, left], [ny - bottom, nx - right], [1, 1], axes), first

    def _make_BatchNormalization(self, layer, x):
        x, first = x
        gain = np.asarray(layer.gamma) / np.sqrt(np.asarray(layer.moving_variance) + layer.epsilon)
        offset = np.asarray(layer.beta) - np.asarray(layer.moving_mean) * gain
        shape = (1, -1, 1, 1) if first else (1, 1, 1, -1)
        return ops.add(
            ops.multiply(x, _constant(gain.reshape(shape))), _constant(offset.reshape(shape))
        ), first

    def _make_Conv2D(self, layer, x):
        kernel = np.asarray(layer.kernel).transpose(3, 2, 0, 1)
        x = ops.convolution(
            _channels_first(x), _constant(kernel), list(layer.strides), [0, 0], [0, 0], [1, 1], "same_upper"
        )
        return self._finish_image(layer, x)

    def _make_Conv2DTranspose(self, layer, x):
        kernel = np.asarray(layer.kernel).transpose(3, 2, 0, 1)
        # What a forward convolution with padding "same" would pad.
        pads = [max(size - stride, 0) for size, stride in zip(layer.kernel_size, layer.strides)]
        before = [pad // 2 for pad in pads]
        x = ops.convolution_backprop_data(
            _channels_first(x),
            _constant(kernel),
            list(layer.strides),
            pads_begin=before,
            pads_end=[pad - b for pad, b in zip(pads, before)],
            dilations=[1, 1],
        )
        return self._finish_image(layer, x)

    def _finish_image(self, layer, x):
        if (
            layer.padding != "same"
            or tuple(layer.dilation_rate) != (1, 1)
            or getattr(layer, "groups", 1) != 1
        ):
            raise ModelPackageError(
                f"the engine 'openvino' knows no such convolution as {layer.name!r}: use the engine 'keras'"
            )
        if layer.use_bias:
            x = ops.add(x, _constant(np.asarray(layer.bias).reshape(1, -1, 1, 1)))
        return _activation(layer, x), True

    def _make_Dense(self, layer, x):
        x = ops.matmul(_channels_last(x)[0], _constant(layer.kernel), False, False)
        if layer.use_bias:
            x = ops.add(x, _constant(layer.bias))
        return _activation(layer, x), False

    def _make_PReLU(self, layer, x):
        x, first = x
        slope = np.asarray(layer.alpha)[None]
        slope = _constant(slope.transpose(_CHANNELS_FIRST) if first else slope)
        negative = ops.multiply(ops.minimum(x, _constant(0.0)), slope)
        return ops.add(ops.relu(x), negative), first

    def _make_Activation(self, layer, x):
        return _activation(layer, x[0]), x[1]

    def _make_Add(self, layer, *inputs):
        first = inputs[0][1]
        order = _channels_first if first else lambda x: _channels_last(x)[0]
        total = order(inputs[0])
        for x in inputs[1:]:
            total = ops.add(total, order(x))
        return total, first

    def _make_Reshape(self, layer, x):
        shape = [self.batch_size, *layer.output.shape[1:]]
        return ops.reshape(_channels_last(x)[0], shape, False), False

    _make_Flatten = _make_Reshape

    def _make_PixelBias(self, layer, x):
        x, first = x
        bias = np.asarray(layer.bias)[None]
        return ops.add(x, _constant(bias.transpose(_CHANNELS_FIRST) if first else bias)), first

    def _make_LogSoftmax(self, layer, x):
        return ops.log_softmax(_channels_last(x)[0], 1), False


def _channels_first(x):
    node, first = x
    return node if first else ops.transpose(node, _CHANNELS_FIRST)


def _channels_last(x):
    node, first = x
    return (ops.transpose(node, _CHANNELS_LAST) if first else node), False


def _activation(layer, x):
    name = keras.activations.serialize(layer.activation)
    if name == "linear":
        return x
    if name in ("relu", "softplus"):
        return {"relu": ops.relu, "softplus": ops.softplus}[name](x)
    raise ModelPackageError(
        f"the engine 'openvino' knows no activation {name!r} ({layer.name!r}): use the engine 'keras'"
    )
