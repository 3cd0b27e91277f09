# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one rule by which galaxies are shared out: by catalogue number, so that no galaxy that tests are kept
for is ever trained on, in whatever form.
"""

__all__ = ["SPLITS", "SPLIT_NUMBERS", "in_split", "split_of"]

import numpy as np

from ..errors import CatalogError

SPLIT_NUMBERS = {"train": 0, "validation": 1, "test": 2}
"""How truth tables write a split; stars, which are in no galaxy's split, have -1."""

SPLITS = (*SPLIT_NUMBERS, "all")
"""What may be asked for."""


def split_of(ident):
    """The split of each galaxy: test where IDENT % 16 is 0, validation where it is 1, otherwise training.

    Parameters
    ----------
    ident : `numpy.ndarray` of `int`
        Catalogue numbers; negative for stars.

    Returns
    -------
    split : `numpy.ndarray` of `int8`
        Of `SPLIT_NUMBERS`; -1 for stars.
    """
    ident = np.asarray(ident)
    remainder = ident % 16
    split = np.full(ident.shape, SPLIT_NUMBERS["train"], np.int8)
    split[remainder == 1] = SPLIT_NUMBERS["validation"]
    split[remainder == 0] = SPLIT_NUMBERS["test"]
    split[ident < 0] = -1
    return split


def in_split(ident, name):
    """Which galaxies belong to a split.

    Parameters
    ----------
    ident : `numpy.ndarray` of `int`
        Catalogue numbers.
    name : `str`
        One of `SPLITS`.

    Returns
    -------
    member : `numpy.ndarray` of `bool`

    Raises
    ------
    CatalogError
        For another name.
    """
    if name not in SPLITS:
        raise CatalogError(f"Unknown split {name!r}: expected one of {', '.join(SPLITS)}.")
    if name == "all":
        return np.ones(np.shape(ident), bool)
    return split_of(ident) == SPLIT_NUMBERS[name]
