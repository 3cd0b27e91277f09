# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""One thread for products of small matrices."""

import contextlib
import functools
import threading

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]

_lock, _inside, _limiter = threading.Lock(), 0, None


@functools.cache
def _controller():
    return ThreadpoolController()


@contextlib.contextmanager
def one_blas_thread():
    """Within it, NumPy's matrix products take one thread.

    Threads that share small ones wait for each other, several times longer than one takes; far longer where
    the machine has other work. Where several threads are within, the last to leave gives BLAS its own back.
    """
    global _inside, _limiter
    with _lock:
        if not _inside:
            _limiter = _controller().limit(limits=1, user_api="blas")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _limiter.restore_original_limits()
