# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Point-spread functions: constant, analytic, and varying over the image.

A kernel image has an odd number of pixels, its centre pixel at (0, 0), and a
sum of one, as ``afw.detection.Psf.computeKernelImage`` gives it.
"""

__all__ = ["AnalyticPsf", "GridPsf", "KernelPsf", "Psf", "PsfDomainError"]

import math

import numpy as np

from ..errors import ImageError
from .geometry import Box2D, Box2I, Extent2I, Point2D, Point2I
from .image import Image


class PsfDomainError(ImageError):
    """A position at which there is no PSF."""


def _checkedKernel(kernel, what="PSF kernel"):
    """A kernel as float64 [y, x] of unit sum, or `ImageError`."""
    kernel = np.array(getattr(kernel, "array", kernel), dtype=np.float64)
    if kernel.ndim != 2 or kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
        raise ImageError(
            f"A {what} needs 2 odd dimensions with the peak in the middle, not shape {kernel.shape}."
        )
    if not np.all(np.isfinite(kernel)):
        raise ImageError(
            f"The {what} has {np.count_nonzero(~np.isfinite(kernel))} pixels that are not finite."
        )
    total = kernel.sum()
    # What is left of a sum that cancels is rounding, or noise.
    if not total > 0.01 * np.abs(kernel).sum():
        raise ImageError(f"The {what} sums to {total:g}; a positive sum is needed to normalise it to one.")
    return kernel / total


def _kernelBox(shape):
    """The box of a kernel of [ny, nx] pixels about (0, 0)."""
    return Box2I(Point2I(-(shape[1] // 2), -(shape[0] // 2)), Extent2I(shape[1], shape[0]))


def _shifted(kernel, dx, dy):
    """A kernel moved by a fraction of a pixel, by the Fourier shift theorem."""
    padded = np.pad(kernel, [(n, n) for n in kernel.shape])  # so that nothing wraps into view
    ky = np.fft.fftfreq(padded.shape[0])[:, np.newaxis]
    kx = np.fft.rfftfreq(padded.shape[1])
    moved = np.fft.irfft2(np.fft.rfft2(padded) * np.exp(-2j * np.pi * (ky * dy + kx * dx)), padded.shape)
    ny, nx = kernel.shape
    return moved[ny : 2 * ny, nx : 2 * nx]


class Psf:
    """Base of the PSFs; subclasses give ``_kernel(position)`` [y, x]."""

    def _kernel(self, position):
        raise NotImplementedError

    def getAveragePosition(self):
        """The position that stands for the whole, `Point2D`."""
        return Point2D(0.0, 0.0)

    def isInDomain(self, position):
        """Whether there is a PSF at a position."""
        try:
            self._kernel(Point2D(position))
        except PsfDomainError:
            return False
        return True

    def _at(self, position):
        return self.getAveragePosition() if position is None else Point2D(position)

    def computeKernelImage(self, position=None):
        """The PSF of a star in the centre of a pixel, the middle at (0, 0).

        Parameters
        ----------
        position : `Point2D` or (x, y), optional
            Where on the image [pixels, parent]; the average if not given.

        Returns
        -------
        kernel : `Image`
            float64, unit sum, a copy.

        Raises
        ------
        PsfDomainError
            If there is no PSF at this position.
        """
        kernel = self._kernel(self._at(position))
        return Image(kernel, xy0=_kernelBox(kernel.shape).getMin(), deep=True)

    def computeImage(self, position=None):
        """The PSF of a star at a position, in the pixels of the image there.

        Parameters and errors are those of `computeKernelImage`.
        """
        position = self._at(position)
        pixel = Point2I(position)
        array = self._offsetKernel(position, position.getX() - pixel.getX(), position.getY() - pixel.getY())
        return Image(array, xy0=_kernelBox(array.shape).getMin() + (pixel - Point2I(0, 0)))

    def _offsetKernel(self, position, dx, dy):
        return _shifted(self._kernel(position), dx, dy)

    def getLocalKernel(self, position=None):
        """The same as `computeKernelImage`: kernels here are their images."""
        return self.computeKernelImage(position)

    def computeBBox(self, position=None):
        """The box of the kernel image at a position."""
        return _kernelBox(self._kernel(self._at(position)).shape)

    def getDimensions(self):
        """Width and height of the kernel image, `Extent2I`."""
        return self.computeBBox().getDimensions()

    def computeShape(self, position=None):
        """The second moments (Ixx, Iyy, Ixy) of the kernel image [pixel^2].

        They are unweighted: of a Moffat profile they grow with the kernel.
        """
        kernel = self._kernel(self._at(position))
        y, x = (np.arange(n) - n // 2 for n in kernel.shape)
        x0, y0 = kernel.sum(axis=0) @ x, kernel.sum(axis=1) @ y
        return (
            float(kernel.sum(axis=0) @ (x - x0) ** 2),
            float(kernel.sum(axis=1) @ (y - y0) ** 2),
            float((y - y0) @ kernel @ (x - x0)),
        )


class KernelPsf(Psf):
    """The same kernel everywhere.

    Parameters
    ----------
    kernel : array or `Image` [y, x]
        Odd dimensions, finite, of positive sum; normalised to one.

    Raises
    ------
    ImageError
        If the kernel is none.
    """

    def __init__(self, kernel):
        self._array = _checkedKernel(kernel)

    def _kernel(self, position):
        return self._array

    def __repr__(self):
        return f"KernelPsf({self._array.shape[1]}x{self._array.shape[0]})"


class AnalyticPsf(Psf):
    """A profile given by its name and width, the same everywhere.

    Parameters
    ----------
    kind : `str`
        "gaussian", "moffat" or "kolmogorov" (drawn by GalSim).
    fwhm : `float`
        Full width at half maximum, before the pixel [arcsec].
    pixelScale : `float`
        [arcsec / pixel].
    size : `int`
        Pixels along a side of the kernel, odd.
    beta : `float`, optional
        Moffat's exponent, more than 1.
    e1, e2 : `float`
        Reduced shear.

    Raises
    ------
    ImageError
        If a parameter is out of range.
    """

    kinds = ("gaussian", "moffat", "kolmogorov")

    def __init__(self, kind, fwhm, pixelScale, size=41, beta=None, e1=0.0, e2=0.0):
        if kind not in self.kinds:
            raise ImageError(f"There is no PSF '{kind}'; there are {', '.join(self.kinds)}.")
        for name, value in (("fwhm", fwhm), ("pixelScale", pixelScale)):
            if not (math.isfinite(value) and value > 0):
                raise ImageError(f"A PSF's {name} is {value}; a positive number of arcsec is needed.")
        if not 1 <= size <= 1023 or size % 2 == 0:
            raise ImageError(f"A PSF's size is {size} pixels; an odd number from 1 to 1023 is needed.")
        if kind == "moffat" and not (beta is not None and beta > 1):
            raise ImageError(f"A Moffat PSF's beta is {beta}; a number above 1 is needed.")
        if not math.hypot(e1, e2) < 1:
            raise ImageError(f"A PSF's shear is ({e1}, {e2}); less than 1 is needed.")
        self.kind, self.fwhm, self.pixelScale, self.size = kind, float(fwhm), float(pixelScale), int(size)
        self.beta, self.e1, self.e2 = None if beta is None else float(beta), float(e1), float(e2)
        self._centred = None

    @classmethod
    def fromModel(cls, model, pixelScale, size=41):
        """From anything with kind, fwhm, beta, e1 and e2 (``survey.PsfModel``)."""
        return cls(model.kind, model.fwhm, pixelScale, size, beta=model.beta, e1=model.e1, e2=model.e2)

    def _kernel(self, position):
        if self._centred is None:
            self._centred = self._offsetKernel(position, 0.0, 0.0)
        return self._centred

    def _offsetKernel(self, position, dx, dy):
        draw = self._drawn if self.kind == "kolmogorov" else self._integrated
        return _checkedKernel(draw(dx, dy))

    def _drawn(self, dx, dy):
        import galsim

        profile = galsim.Kolmogorov(fwhm=self.fwhm).shear(g1=self.e1, g2=self.e2)
        stamp = profile.drawImage(
            nx=self.size, ny=self.size, scale=self.pixelScale, offset=(dx, dy), dtype=np.float64
        )
        return stamp.array

    def _integrated(self, dx, dy, nodes=6):
        """The profile integrated over pixels by Gauss-Legendre quadrature."""
        points, weights = np.polynomial.legendre.leggauss(nodes)
        centres = np.arange(self.size) - self.size // 2
        x, y = ((centres[:, np.newaxis] + 0.5 * points - d).ravel() * self.pixelScale for d in (dx, dy))
        x, y = x[np.newaxis, :], y[:, np.newaxis]
        norm = math.sqrt(1.0 - self.e1**2 - self.e2**2)
        u = ((1.0 - self.e1) * x - self.e2 * y) / norm
        v = ((1.0 + self.e1) * y - self.e2 * x) / norm
        q = (u**2 + v**2) / (0.5 * self.fwhm) ** 2  # one at half maximum
        if self.kind == "gaussian":
            fine = np.exp(-math.log(2.0) * q)
        else:
            fine = (1.0 + (2.0 ** (1.0 / self.beta) - 1.0) * q) ** -self.beta
        fine = fine.reshape(self.size, nodes, self.size, nodes)
        return np.einsum("yaxb,a,b->yx", fine, weights, weights)

    def __repr__(self):
        beta = "" if self.beta is None else f", beta={self.beta:g}"
        return f"AnalyticPsf({self.kind}, fwhm={self.fwhm:g} arcsec{beta})"


class GridPsf(Psf):
    """A PSF that varies, bilinear between kernels on a grid of positions.

    Parameters
    ----------
    x, y : array [nx], [ny]
        Columns and rows of the grid's nodes, increasing [pixels, parent].
    kernels : array [ny, nx, k, k]
        A kernel for each node, odd, each normalised to one. A kernel of NaN
        says that there is no PSF at this node.
    region : `Box2I`, optional
        Where the PSF is valid; beyond the outermost nodes the nearest edge
        holds. Without a region, that is between the outermost nodes.

    Raises
    ------
    ImageError
        If the grid or a kernel is none.
    """

    def __init__(self, x, y, kernels, region=None):
        self.x, self.y = np.array(x, dtype=np.float64), np.array(y, dtype=np.float64)
        kernels = np.array(kernels, dtype=np.float64)
        for name, nodes in (("x", self.x), ("y", self.y)):
            if (
                nodes.ndim != 1
                or not len(nodes)
                or not np.all(np.isfinite(nodes))
                or np.any(np.diff(nodes) <= 0)
            ):
                raise ImageError(
                    f"The {name} nodes of a PSF grid have to increase, but are {nodes.tolist()}."
                )
        if kernels.ndim != 4 or kernels.shape[:2] != (len(self.y), len(self.x)):
            raise ImageError(
                f"A PSF grid of {len(self.y)} x {len(self.x)} nodes needs kernels "
                f"[{len(self.y)}, {len(self.x)}, k, k], not {kernels.shape}."
            )
        for j, i in np.ndindex(kernels.shape[:2]):
            if not np.all(np.isnan(kernels[j, i])):
                kernels[j, i] = _checkedKernel(
                    kernels[j, i], f"PSF kernel of node x={self.x[i]:g}, y={self.y[j]:g}"
                )
        self.kernels = kernels
        self.region = None if region is None else Box2I(region)

    def getAveragePosition(self):
        """The middle of the grid, `Point2D`."""
        return Point2D(0.5 * (self.x[0] + self.x[-1]), 0.5 * (self.y[0] + self.y[-1]))

    def _inRegion(self, position):
        if self.region is not None:
            return Box2D(self.region).contains(position)
        return self.x[0] <= position[0] <= self.x[-1] and self.y[0] <= position[1] <= self.y[-1]

    @staticmethod
    def _neighbours(nodes, value):
        """The (index, weight) pairs of positive weight along one axis."""
        value = min(max(value, nodes[0]), nodes[-1])
        i = min(int(np.searchsorted(nodes, value, side="right")) - 1, len(nodes) - 2)
        if len(nodes) == 1 or value == nodes[i]:
            return [(max(i, 0), 1.0)]
        t = (value - nodes[i]) / (nodes[i + 1] - nodes[i])
        return [(k, w) for k, w in ((i, 1.0 - t), (i + 1, t)) if w > 0.0]

    def _kernel(self, position):
        x, y = position
        if not (math.isfinite(x) and math.isfinite(y) and self._inRegion(position)):
            where = self.region or f"x {self.x[0]:g} to {self.x[-1]:g}, y {self.y[0]:g} to {self.y[-1]:g}"
            raise PsfDomainError(f"There is no PSF at ({x:g}, {y:g}): it is valid in {where}.")
        kernel = np.zeros(self.kernels.shape[2:])
        for j, wy in self._neighbours(self.y, y):
            for i, wx in self._neighbours(self.x, x):
                if np.isnan(self.kernels[j, i, 0, 0]):
                    raise PsfDomainError(
                        f"There is no PSF at ({x:g}, {y:g}): node x={self.x[i]:g}, y={self.y[j]:g} has none."
                    )
                kernel += wx * wy * self.kernels[j, i]
        return kernel

    def __repr__(self):
        return (
            f"GridPsf({len(self.x)}x{len(self.y)} nodes of {self.kernels.shape[3]}x{self.kernels.shape[2]})"
        )
