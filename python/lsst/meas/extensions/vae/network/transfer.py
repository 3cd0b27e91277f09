# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights of a package in a network of the same kind for other bands of the same survey."""

import numpy as np

from ..errors import TrainingError
from .model import get_weights, set_weights

__all__ = ["start_from"]


def start_from(model, package, part, bands):
    """Give a network the weights of a package.

    Weights that have an axis of bands take those of the bands that both have and keep their own for new ones:
    a network for ten bands starts from what one for six has learned of shapes.

    Parameters
    ----------
    model : `keras.Model`
        Encoder or decoder.
    package : `~.package.ModelPackage`
        Of the same architecture, size of stamps and of latents.
    part : `str`
        "prior_encoder", "deblender_encoder" or "decoder".
    bands : sequence of `str`
        Bands of ``model``.

    Raises
    ------
    TrainingError
        Raised if some weights differ by more than bands.
    """
    theirs, bands = list(package.card["bands"]), list(bands)
    weights = package.part(part)
    if bands != theirs:
        weights = _transferred(get_weights(model), weights, theirs, bands, f"{package.name!r}, {part}")
    set_weights(model, weights, package.name)


def _transferred(fresh, weights, theirs, bands, where):
    shared = [band for band in bands if band in theirs]
    if not shared:
        raise TrainingError(f"startFrom {where}: none of its bands {theirs} is among {bands}")
    if set(fresh) != set(weights):
        raise TrainingError(
            f"startFrom {where}: it has other layers than this network: start from the same architecture"
        )
    rows, columns = [theirs.index(band) for band in shared], [bands.index(band) for band in shared]
    moved = {}
    for name, own in fresh.items():
        given = weights[name]
        axes = [i for i, n in enumerate(own.shape) if n == len(bands)]
        axes = [i for i in axes if given.ndim == own.ndim and given.shape[i] == len(theirs)]
        same = own.shape[: axes[0]] + own.shape[axes[0] + 1 :] if len(axes) == 1 else own.shape
        rest = given.shape[: axes[0]] + given.shape[axes[0] + 1 :] if len(axes) == 1 else given.shape
        if same != rest:
            raise TrainingError(
                f"startFrom {where}: weights {name!r} have shape {given.shape}, this network's {own.shape}, "
                "which differs by more than bands: train this one from the start"
            )
        if len(axes) == 1:
            moved[name] = own.copy()
            np.moveaxis(moved[name], axes[0], 0)[columns] = np.moveaxis(given, axes[0], 0)[rows]
        else:
            moved[name] = given
    return moved
