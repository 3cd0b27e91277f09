# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Keras model rebuilt as an OpenVINO graph, in memory.

To be imported only where `~.libraries.has_openvino`.
"""

import keras
import numpy as np

from .libraries import load_openvino
from .rebuild import GraphBuilder

openvino = load_openvino()
ops = openvino.opset13

__all__ = ["CompiledModel", "build_graph"]


class CompiledModel:
    """A Keras model, compiled for batches of one size.

    Parameters
    ----------
    model : `keras.Model`
        Functional model.
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
        graph, self._structure = self._build(model, batch_size)
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

    def _build(self, model, batch_size):
        return build_graph(model, batch_size)

    def __call__(self, *inputs):
        """Run the model.

        Parameters
        ----------
        *inputs : `numpy.ndarray`, float32 ``[n, ...]``
            One for each of the model's inputs. Images are channels first
            (``[n, band, y, x]``).

        Returns
        -------
        output
            As the Keras model gives it, in float32 arrays.
        """
        inputs = [np.ascontiguousarray(x, dtype=np.float32) for x in inputs]
        n, size = len(inputs[0]), self._batch_size
        outputs = [np.empty((n, *shape), np.float32) for shape in self._shapes]
        for start in range(0, n, size):
            parts = [_filled(x[start : start + size], size) for x in inputs]
            self._queue.start_async(dict(enumerate(parts)), (outputs, start))
        self._queue.wait_all()
        return keras.tree.pack_sequence_as(self._structure, outputs)


def _filled(part, size):
    if len(part) == size:
        return part
    return np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.float32)])


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
        Functional model, each layer used once.
    batch_size : `int`
        First dimension of all tensors.

    Returns
    -------
    graph : `openvino.Model`
        Takes images channels first; gives what the Keras model gives.
    structure
        The nest of the model's outputs, to pack the graph's outputs into.
    """
    inputs, outputs = _Builder(batch_size).build(model)
    return openvino.Model(outputs, inputs, model.name), model.output


class _Builder(GraphBuilder):
    """OpenVINO's operations."""

    engine = "openvino"

    def op(self, name, *inputs):
        return getattr(ops, name)(*(_node(x) for x in inputs))

    def parameter(self, name, shape):
        return ops.parameter([self.batch_size, *shape], np.float32)

    def transpose(self, x, order):
        return ops.transpose(x, list(order))

    def reshape(self, x, shape):
        return ops.reshape(x, shape, False)

    def slice(self, x, starts, stops, axes):
        return ops.slice(x, starts, stops, [1] * len(axes), axes)

    def concatenate(self, inputs, axis):
        return ops.concat(inputs, axis)

    def matmul(self, x, matrix):
        return ops.matmul(x, _node(matrix), False, False)

    def convolution(self, x, kernel, strides):
        return ops.convolution(x, _node(kernel), strides, [0, 0], [0, 0], [1, 1], "same_upper")

    def transposed_convolution(self, x, kernel, strides, before, after):
        return ops.convolution_backprop_data(
            x, _node(kernel), strides, pads_begin=before, pads_end=after, dilations=[1, 1]
        )

    def prelu(self, x, slope):
        # Its own takes one slope a channel.
        return ops.add(ops.relu(x), ops.multiply(ops.minimum(x, _node(0.0)), _node(slope)))

    def log_softmax(self, x, axis):
        return ops.log_softmax(x, axis)


def _node(x):
    """A constant of what is no node yet."""
    if isinstance(x, openvino.Node | openvino.Output):
        return x
    return ops.constant(np.ascontiguousarray(x, dtype=np.float32))
