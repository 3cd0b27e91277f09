# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""One thread for products of small matrices."""

import functools

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]


@functools.cache
def _controller():
    return ThreadpoolController()


def one_blas_thread():
    """Within it, NumPy's matrix products take one thread.

    Threads that share small ones wait for each other, several times longer than one takes; far longer where
    the machine has other work.

    Returns
    -------
    context : context manager
    """
    return _controller().limit(limits=1, user_api="blas")
