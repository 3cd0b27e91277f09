# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Libraries that run networks, kept from reporting to their makers.

``import openvino`` alone writes an identifier to ``~/intel`` and tells Google
Analytics of it, where ``openvino-telemetry`` is installed, which it requires.
Import them here alone.
"""

import contextlib
import sys

__all__ = ["has_openvino", "load_openvino"]


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
