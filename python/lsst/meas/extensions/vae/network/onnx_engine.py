# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Keras model rebuilt as an ONNX graph, in memory, for ONNX Runtime.

To be imported only where `~.libraries.has_onnxruntime`.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np

from .libraries import load_onnxruntime
from .rebuild import GraphBuilder

onnx, onnxruntime = load_onnxruntime()

__all__ = ["CompiledModel", "build_graph"]

# Of 2023: what every ONNX Runtime of the last years reads.
_OPSET, _IR_VERSION = 17, 8

_NAMES = {"divide": "Div", "multiply": "Mul"}


class CompiledModel:
    """A Keras model, compiled for batches of any size.

    Parameters
    ----------
    model : `keras.Model`
        Functional model.
    batch_size : `int`
        Samples of one inference; these run side by side, one on each core.

    Raises
    ------
    ModelPackageError
        Raised if the model has a layer that cannot be rebuilt.
    """

    def __init__(self, model, batch_size=16):
        graph, self._structure = self._build(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._names = [node.name for node in self._session.get_inputs()]
        self._batch_size = batch_size
        self._threads = ThreadPoolExecutor(_n_cores())

    def _build(self, model):
        return build_graph(model)

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

        def run(start):
            parts = (x[start : start + self._batch_size] for x in inputs)
            return self._session.run(None, dict(zip(self._names, parts)))

        found = list(self._threads.map(run, range(0, len(inputs[0]), self._batch_size)))
        outputs = [np.concatenate(parts) for parts in zip(*found)]
        return keras.tree.pack_sequence_as(self._structure, outputs)


def _n_cores():
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def build_graph(model):
    """Rebuild a functional Keras model.

    Parameters
    ----------
    model : `keras.Model`
        Functional model, each layer used once.

    Returns
    -------
    graph : `onnx.ModelProto`
        Takes images channels first; gives what the Keras model gives.
    structure
        The nest of the model's outputs, to pack the graph's outputs into.
    """
    builder = _Builder()
    inputs, outputs = builder.build(model)
    graph = onnx.helper.make_graph(
        builder.nodes,
        model.name,
        [builder.inputs[name] for name in inputs],
        [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", *tensor.shape[1:]])
            for name, tensor in zip(outputs, model.outputs)
        ],
        builder.constants,
    )
    opset = onnx.helper.make_opsetid("", _OPSET)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION), model.output


class _Builder(GraphBuilder):
    """ONNX's operations; a node is its output's name."""

    engine = "onnx"

    def __init__(self):
        super().__init__(batch_size=-1)
        self.nodes, self.constants, self.inputs = [], [], {}

    def _node(self, kind, *inputs, **attributes):
        names = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        output = f"node{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, names, [output], **attributes))
        return output

    def _constant(self, value, dtype=np.float32):
        name = f"constant{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.array(value, dtype=dtype, order="C"), name))
        return name

    def _integers(self, values):
        return self._constant(values, np.int64)

    def op(self, name, *inputs):
        return self._node(_NAMES.get(name, name.capitalize()), *inputs)

    def parameter(self, name, shape):
        self.inputs[name] = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", *shape])
        return name

    def transpose(self, x, order):
        return self._node("Transpose", x, perm=order)

    def reshape(self, x, shape):
        return self._node("Reshape", x, self._integers(shape))

    def slice(self, x, starts, stops, axes):
        return self._node("Slice", x, *map(self._integers, (starts, stops, axes)))

    def concatenate(self, inputs, axis):
        return self._node("Concat", *inputs, axis=axis)

    def matmul(self, x, matrix):
        return self._node("MatMul", x, matrix)

    def convolution(self, x, kernel, strides):
        return self._node("Conv", x, kernel, strides=strides, auto_pad="SAME_UPPER")

    def transposed_convolution(self, x, kernel, strides, before, after):
        return self._node("ConvTranspose", x, kernel, strides=strides, pads=before + after)

    def prelu(self, x, slope):
        return self._node("PRelu", x, slope)

    def log_softmax(self, x, axis):
        return self._node("LogSoftmax", x, axis=axis)
