# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where stamps lie on images, and where shear moves objects."""

__all__ = ["overlap", "sheared", "stamp_origin"]

import math

import numpy as np

from ..errors import ImageError


def stamp_origin(x, y, size):
    """First pixel of the stamp centred on the pixel crossing nearest a point.

    Parameters
    ----------
    x, y : `float`
        [pixel]
    size : `int`
        Side of the stamp, even.

    Returns
    -------
    origin : (`int`, `int`)
        (y0, x0).

    Raises
    ------
    ImageError
        If the size is odd.
    """
    if size < 2 or size % 2:
        raise ImageError(f"Stamp size is {size}: expected an even number of pixels")
    return math.floor(y) + 1 - size // 2, math.floor(x) + 1 - size // 2


def overlap(origin, size, shape):
    """Slices of an image and of a stamp that show the same pixels.

    Parameters
    ----------
    origin : pair of `int`
        y and x of the stamp's first pixel in the image or cube.
    size : `int` or pair of `int`
        Side of a square stamp, or height and width of one that is not.
    shape : pair of `int`
        Height and width of the image.

    Returns
    -------
    in_cube, in_stamp : `tuple` [`slice`, `slice`]
        Both in (y, x); empty where there is no overlap.
    """
    in_cube, in_stamp = [], []
    sides = (size, size) if np.ndim(size) == 0 else size
    for start, side, length in zip(origin, sides, shape, strict=True):
        first = min(max(start, 0), length)
        last = max(min(start + side, length), first)
        in_cube.append(slice(first, last))
        in_stamp.append(slice(first - start, last - start))
    return tuple(in_cube), tuple(in_stamp)


def sheared(positions, centre, g1, g2):
    """Positions as a constant shear about a point moves them.

    Parameters
    ----------
    positions : `numpy.ndarray` [object, 2]
        x and y, in any unit.
    centre : (`float`, `float`)
        x and y of the point that stays.
    g1, g2 : `float`
        Reduced shear; areas stay, as in GalSim's `Shear`.

    Returns
    -------
    positions : `numpy.ndarray`, float64 [object, 2]
    """
    matrix = np.array([[1 + g1, g2], [g2, 1 - g1]]) / math.sqrt(1 - g1**2 - g2**2)
    return (np.asarray(positions, np.float64) - centre) @ matrix.T + centre
