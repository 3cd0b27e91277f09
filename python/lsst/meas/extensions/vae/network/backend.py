# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load Keras and its backend without the backend's chatter."""

import contextlib
import os
import sys
import tempfile

__all__ = ["load_keras"]

# TensorFlow writes these at every start, below Python and before its own log
# level is read; they tell a user nothing to act on.
_CHATTER = (
    b"All log messages before absl::InitializeLog()",
    b"oneDNN custom operations are on",
    b"This TensorFlow binary is optimized",
    b"To enable the following instructions",
)


def load_keras():
    """Import Keras and start its backend.

    Returns
    -------
    keras : module
        Keras 3, on the backend that ``KERAS_BACKEND`` names (TensorFlow by
        default).
    """
    if "keras" in sys.modules:
        return sys.modules["keras"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _filtered_stderr():
        import keras

        keras.ops.zeros(1)
    return keras


@contextlib.contextmanager
def _filtered_stderr():
    """Hold back what C++ writes to stderr, and pass on all but the chatter."""
    try:
        descriptor = sys.__stderr__.fileno()
    except (AttributeError, ValueError, OSError):
        yield
        return
    with tempfile.TemporaryFile() as held:
        sys.__stderr__.flush()
        saved = os.dup(descriptor)
        os.dup2(held.fileno(), descriptor)
        try:
            yield
        finally:
            os.dup2(saved, descriptor)
            os.close(saved)
            held.seek(0)
            for line in held:
                if not any(text in line for text in _CHATTER):
                    os.write(descriptor, line)
