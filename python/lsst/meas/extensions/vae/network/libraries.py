# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Libraries that run networks, kept from reporting to their makers.

``import openvino`` alone writes an identifier to ``~/intel`` and tells Google
Analytics of it, where ``openvino-telemetry`` is installed, which it requires.
ONNX Runtime reports to Microsoft from 1.29 on.  Import them here alone.
"""

import contextlib
import os
import sys

__all__ = ["has_onnxruntime", "has_openvino", "load_onnxruntime", "load_openvino"]


def load_openvino():
    """Import OpenVINO; it finds no telemetry, and takes its own empty one.

    Returns
    -------
    openvino : module

    Raises
    ------
    ImportError, OSError
        Raised if it is not installed or does not load.
    """
    with _hidden("openvino_telemetry"):
        import openvino

    return openvino


def load_onnxruntime():
    """Import ONNX and its runtime, which sends nothing unless the user has asked it to.

    Returns
    -------
    onnx, onnxruntime : module

    Raises
    ------
    ImportError, OSError
        Raised if one is not installed or does not load.
    """
    # Read before anything is sent, an event of the import included; "0" is the user's consent.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnx
    import onnxruntime

    return onnx, onnxruntime


def has_onnxruntime():
    """Whether ONNX and its runtime are installed and load."""
    return _loads(load_onnxruntime)


def has_openvino():
    """Whether OpenVINO is installed and loads."""
    return _loads(load_openvino)


def _loads(load):
    try:
        load()
    except (ImportError, OSError):
        return False
    return True


@contextlib.contextmanager
def _hidden(name):
    """Have an import of a module fail."""
    held = {name: sys.modules[name]} if name in sys.modules else {}
    sys.modules[name] = None
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules.update(held)
