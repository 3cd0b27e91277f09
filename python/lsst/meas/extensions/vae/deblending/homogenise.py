# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Widen the PSF of an image to that which a network knows, and sharpen its models again.

The kernel is the regularised quotient of Fourier transforms (Gordon et al. 2008, ApJ 682, 336; Boucaud et
al. 2016, A&A 596, A63), with no gain above one: it never deconvolves.  Where the PSF varies, kernels of a
coarse grid are interpolated linearly.

Noise that went through a kernel is correlated: that of its pixels, taken for independent, would make the
errors of fluxes two or three times too small.  So besides the variance of pixels there is a *correlation*,
by which to multiply it: what a fit of a galaxy as wide as the PSF gets wrong by more.  Errors of stars are
then some per cent too large, those of large galaxies as much too small.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy.signal import oaconvolve

from ..network.observation import resized

__all__ = ["MatchingKernels", "Widened", "matching_kernel", "noise_correlation", "node_places"]

# Against noise of PSF images: no frequency of the widened PSF is off by more than half of its square root.
_REGULARISATION = 1e-4

# Models are free of noise and may be sharpened further, but not until the decoder's errors are all one sees:
# peaks of stars stay some per cent too low.
_MODEL_REGULARISATION = 1e-3

# Distance of the grid's kernels at most [pixel]: a PSF of a coadd takes its time to be told.
_SPACING = 512


def _transform(kernel, size):
    """Fourier transform ``[size, size]`` of an image of odd sides, about its middle pixel."""
    plane = np.zeros((size, size))
    side = size - 1 + size % 2
    plane[:side, :side] = resized(np.asarray(kernel, dtype=float), side)
    return scipy.fft.fft2(np.roll(plane, (-(side // 2), -(side // 2)), axis=(0, 1)))


def matching_kernel(psf, target, size=63):
    """Kernel that takes one PSF to a wider one.

    Parameters
    ----------
    psf, target : `numpy.ndarray`, ``[y, x]``
        PSF images of odd sides, centred on the middle pixel; of any positive sums.
    size : `int`, optional
        Side of the kernel, odd [pixel].

    Returns
    -------
    kernel : `numpy.ndarray`, float64 ``[size, size]``
        Of unit sum.  Where the target is the sharper one it does nothing.
    """
    narrow, wide = _transform(psf / psf.sum(), size), _transform(target / target.sum(), size)
    quotient = wide * narrow.conj() / (abs(narrow) ** 2 + _REGULARISATION)
    quotient /= np.maximum(1.0, abs(quotient))
    kernel = scipy.fft.fftshift(scipy.fft.ifft2(quotient).real)
    return kernel / kernel.sum()


def noise_correlation(kernel, psf):
    """How much more noise there is at the scale of galaxies than pixels by themselves tell.

    Parameters
    ----------
    kernel : `numpy.ndarray`, ``[y, x]``
        What white noise went through; of odd sides.
    psf : `numpy.ndarray`, ``[y, x]``
        The PSF of the pixels now.

    Returns
    -------
    correlation : `float`
        Variance of the flux of a galaxy as wide as the PSF, fitted with equal weights, over that which
        independent pixels of the same variance would give; 1 for a kernel of one pixel.
    """
    size = 2 * max(*kernel.shape, *psf.shape) + 1
    passed = abs(_transform(kernel, size)) ** 2
    template = abs(_transform(psf / psf.sum(), size)) ** 4
    return float((template * passed).sum() / template.sum() / np.square(kernel).sum())


def node_places(side):
    """Where along a side of some pixels kernels are made: `numpy.ndarray`, float64."""
    return np.linspace(0, side - 1, 1 + math.ceil((side - 1) / _SPACING))


@dataclass
class Widened:
    """One band with a wider PSF.

    Attributes
    ----------
    image : `numpy.ndarray`, float32 ``[y, x]``
        Pixels.
    variance : `numpy.ndarray`, float32 ``[y, x]``
        Their variance, each by itself.
    correlation : `numpy.ndarray`, float64 ``[y, x]``
        By which to multiply it for fluxes; see `noise_correlation`.
    lost : `numpy.ndarray`, float32 ``[y, x]``
        Weight of bad pixels, and of those beyond the edge, in each.
    """

    image: np.ndarray
    variance: np.ndarray
    correlation: np.ndarray
    lost: np.ndarray


class MatchingKernels:
    """Kernels of one band over a whole image.

    Parameters
    ----------
    kernels : sequence of `numpy.ndarray` or `None`
        Kernels of odd sides, all of one size, row by row of the grid; `None` where the PSF is wide enough.
    correlations : sequence of `float`
        The `noise_correlation` of each.
    ys, xs : `numpy.ndarray`
        Places of the grid's rows and columns [pixel].
    """

    def __init__(self, kernels, correlations, ys, xs):
        shape = next(kernel.shape for kernel in kernels if kernel is not None)
        self._nothing = np.array([kernel is None for kernel in kernels]).reshape(len(ys), len(xs))
        none = np.zeros(shape)
        none[shape[0] // 2, shape[1] // 2] = 1.0
        stack = np.stack([none if kernel is None else kernel for kernel in kernels])
        if (abs(stack - stack[0]).max(axis=(1, 2)) < 1e-6 * stack.max()).all():
            # The PSF is the same everywhere.
            stack, correlations, ys, xs = stack[:1], correlations[:1], ys[:1], xs[:1]
            self._nothing = self._nothing[:1, :1]
        self._ys, self._xs = ys, xs
        self._kernels = stack.reshape(len(ys), len(xs), *shape)
        self._correlations = np.reshape(correlations, (len(ys), len(xs)))

    def _shares(self, y, x):
        """Parts of the grid's kernels in that of a place, ``[row, column]``."""
        return np.outer(_tents(np.array([y]), self._ys), _tents(np.array([x]), self._xs))

    def touches(self, y, x):
        """Is the PSF at a place another than it was?"""
        return bool(self._shares(y, x)[~self._nothing].any())

    def at(self, y, x):
        """The kernel at a place, float64 ``[y, x]``."""
        return np.einsum("ij,ijyx->yx", self._shares(y, x), self._kernels)

    def psf(self, kernel, y, x):
        """What becomes of a PSF image of odd sides at a place: of the same size, and unit sum."""
        size = max(*kernel.shape, *self._kernels.shape[2:])
        spectrum = _transform(kernel, size) * _transform(self.at(y, x), size)
        widened = resized(scipy.fft.fftshift(scipy.fft.ifft2(spectrum).real), len(kernel))
        return widened / widened.sum()

    def sharpened(self, model, y, x):
        """A model of what the kernels left, at a place, as it was before them.

        Parameters
        ----------
        model : `numpy.ndarray`, ``[y, x]``
            Free of noise.
        y, x : `float`
            The source's place in the image [pixel].

        Returns
        -------
        model : `numpy.ndarray`, float32 ``[y, x]``
            Of the same sum.
        """
        # Faint edges of a stamp meet again on the other side, which leaves no step to ring.
        passed = _transform(self.at(y, x), len(model))
        inverse = passed.conj() / (abs(passed) ** 2 + _MODEL_REGULARISATION)
        inverse /= inverse[0, 0]
        return scipy.fft.ifft2(scipy.fft.fft2(model) * inverse).real.astype(np.float32)

    def plane(self, image, variance, bad):
        """Widen the PSF of one band.

        Parameters
        ----------
        image, variance : `numpy.ndarray`, ``[y, x]``
            All finite.
        bad : `numpy.ndarray` of `bool`, ``[y, x]``
            Pixels that tell nothing, however they were filled.

        Returns
        -------
        widened : `Widened`
        """
        half = np.array(self._kernels.shape[2:]) // 2
        padding = [(h, h) for h in half]
        planes = [np.pad(np.asarray(plane, dtype=float), padding, mode="edge") for plane in (image, variance)]
        planes.append(np.pad(bad.astype(float), padding, constant_values=1.0))
        out = [np.zeros(image.shape, np.float32) for _ in planes]
        rows, columns = (
            _tents(np.arange(n), nodes) for n, nodes in zip(image.shape, (self._ys, self._xs), strict=True)
        )
        for i, row in enumerate(rows.T):
            for j, column in enumerate(columns.T):
                inside = _span(row), _span(column)
                share = np.outer(row[inside[0]], column[inside[1]])
                kernel = self._kernels[i, j]
                around = tuple(slice(s.start, s.stop + 2 * h) for s, h in zip(inside, half, strict=True))
                # Bad pixels far off, in the wings, do no harm that could be seen.
                for k, weights in enumerate((kernel, kernel**2, abs(kernel))):
                    if self._nothing[i, j]:
                        passed = planes[k][around][half[0] : -half[0], half[1] : -half[1]]
                    else:
                        passed = oaconvolve(planes[k][around], weights, mode="valid")
                    out[k][inside] += share * passed
        correlation = rows @ self._correlations @ columns.T
        return Widened(out[0], np.maximum(out[1], 0), correlation, out[2])


def _tents(places, nodes):
    """Linear interpolation from nodes: their parts at places, ``[place, node]``."""
    return np.stack([np.interp(places, nodes, unit) for unit in np.eye(len(nodes))], axis=-1)


def _span(parts):
    """Slice of what is not zero."""
    there = np.flatnonzero(parts)
    return slice(int(there[0]), int(there[-1]) + 1)
