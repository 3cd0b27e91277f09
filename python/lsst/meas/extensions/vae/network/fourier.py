# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fourier transforms of stamps as products with small matrices.

For images of 64 x 64 pixels they take a fraction of an FFT's time, and each image's product is one of its
own, so that bits do not depend on what it is batched with.
"""

from functools import lru_cache

import numpy as np

__all__ = ["coarse", "images", "shifted", "slopes", "spectra"]


@lru_cache
def _forward(size, kept):
    """Transforms along y ``[kept, size]`` and x ``[size, kept/2+1]``, of the lowest frequencies only."""
    fy, fx = np.fft.fftfreq(kept, 1 / kept)[:, None], np.arange(kept // 2 + 1)
    pixels = np.arange(size) / size
    y, x = np.exp(-2j * np.pi * fy * pixels), np.exp(-2j * np.pi * pixels[:, None] * fx)
    if kept < size:
        # The highest frequency has no partner of the other sign.
        y[kept // 2] = x[:, kept // 2] = 0
    return y.astype(np.complex64), x.astype(np.complex64)


@lru_cache
def _backward(size):
    """Inverse transforms along y ``[size, size]``, and x: real, ``[real and imaginary, size]``."""
    pixels, fx = np.arange(size) / size, np.arange(size // 2 + 1)
    y = np.exp(2j * np.pi * pixels[:, None] * np.fft.fftfreq(size, 1 / size)) / size**2
    turn = np.exp(-2j * np.pi * fx[:, None] * pixels)
    # All but the first and the last stand for their negatives too.
    turn[1:-1] *= 2
    x = np.stack([turn.real, turn.imag], axis=1).reshape(-1, size)
    return y.astype(np.complex64), x.astype(np.float32)


def spectra(stamps, kept):
    """Lowest frequencies of images.

    Parameters
    ----------
    stamps : `numpy.ndarray`, float32 ``[..., y, x]``
        Square, of an even side.
    kept : `int`
        Side of images that show these frequencies; even.

    Returns
    -------
    spectra : `numpy.ndarray`, complex64 ``[..., kept, kept/2+1]``
        As `numpy.fft.rfft2` gives them; without the highest one if there are fewer than the image has.
    """
    y, x = _forward(stamps.shape[-1], kept)
    along_x = np.matmul(stamps, x.view(np.float32)).view(np.complex64)
    return np.matmul(y, along_x)


def images(spectra):
    """Images of spectra, the inverse of `numpy.fft.rfft2`.

    Parameters
    ----------
    spectra : `numpy.ndarray`, complex64 ``[..., y, y/2+1]``

    Returns
    -------
    images : `numpy.ndarray`, float32 ``[..., y, y]``
    """
    y, x = _backward(spectra.shape[-2])
    return np.matmul(np.matmul(y, spectra).view(np.float32), x)


def _filter(response):
    """Periodic filters of a line ``[..., size, size]``, from responses at the frequencies of its rfft."""
    line = np.fft.irfft(response)
    size = line.shape[-1]
    index = (np.arange(size)[:, None] - np.arange(size)) % size
    return line[..., index].astype(np.float32)


@lru_cache
def _decimation(size, factor):
    kept = size // factor
    f = np.arange(1 - kept // 2, kept // 2)
    offset = factor * np.arange(kept)[:, None] - np.arange(size)
    return np.cos(2 * np.pi * f * offset[..., None] / size).sum(axis=-1).astype(np.float32) / size


def coarse(stamps, factor):
    """Every ``factor``-th pixel of images, without the frequencies that those cannot show.

    Parameters
    ----------
    stamps : `numpy.ndarray`, float32 ``[..., y, x]``
        Square.
    factor : `int`
        Divides half of the side.

    Returns
    -------
    coarse : `numpy.ndarray`, float32 ``[..., y/factor, x/factor]``
    """
    matrix = _decimation(stamps.shape[-1], factor)
    return np.matmul(np.matmul(matrix, stamps), matrix.T)


def shifted(stamps, shift):
    """Move images by fractions of a pixel.

    Parameters
    ----------
    stamps : `numpy.ndarray`, float32 ``[..., y, x]``
        Square, of an even side.
    shift : `numpy.ndarray`, ``[..., 2]``
        Along y and x [pixel]; leading axes that broadcast against the images'.

    Returns
    -------
    moved : `numpy.ndarray`, float32 ``[..., y, x]``
    """
    f = np.fft.rfftfreq(stamps.shape[-1])
    y, x = (_filter(np.exp(-2j * np.pi * f * shift[..., axis, None])) for axis in (0, 1))
    return np.matmul(np.matmul(y, stamps), x.swapaxes(-1, -2))


@lru_cache
def _slope(size):
    return _filter(-2j * np.pi * np.fft.rfftfreq(size))


def slopes(stamps):
    """How images change as they move along y and x.

    Parameters
    ----------
    stamps : `numpy.ndarray`, float32 ``[..., y, x]``
        Square, of an even side.

    Returns
    -------
    slopes : `numpy.ndarray`, float32 ``[2, ..., y, x]``
        For each pixel that they move.
    """
    matrix = _slope(stamps.shape[-1])
    return np.stack([np.matmul(matrix, stamps), np.matmul(stamps, matrix.T)])
