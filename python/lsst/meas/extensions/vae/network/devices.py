# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Spread the batches of a training over all devices that there are."""

import contextlib
import logging

import keras

from ..errors import TrainingError

__all__ = ["all_devices", "has_gpu"]

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def all_devices(batch_size):
    """Within it, models that are made train on all devices.

    With JAX, each device takes its share of a batch and all have the same
    weights; what is learned does not depend on how many there are.  With
    TensorFlow one device is used, and a log line tells if there are more.

    Parameters
    ----------
    batch_size : `int`
        Scenes a step, of all devices together.

    Raises
    ------
    TrainingError
        Raised if the devices cannot share a batch evenly.
    """
    if keras.backend.backend() != "jax":
        n = _n_gpus()
        if n > 1:
            _log.warning(
                "one of %d GPUs is used: training on several needs KERAS_BACKEND=jax (pip install jax)", n
            )
        yield
        return
    devices = keras.distribution.list_devices()
    if len(devices) < 2:
        yield
        return
    if batch_size % len(devices):
        raise TrainingError(
            f"a batch of {batch_size} scenes cannot be shared evenly by {len(devices)} devices: set "
            f"batchSize to a multiple of {len(devices)}, such as {_multiple(batch_size, len(devices))}, or "
            "hide devices (CUDA_VISIBLE_DEVICES)"
        )
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)
    )
    _log.info("each batch is shared by %d devices", len(devices))
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def has_gpu():
    """Does TensorFlow have a GPU?

    Returns
    -------
    has : `bool`
    """
    return _n_gpus() > 0


def _n_gpus():
    if keras.backend.backend() != "tensorflow":
        return 0
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))


def _multiple(size, n):
    return max(round(size / n), 1) * n
