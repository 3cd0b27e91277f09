# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Masked images and exposures, with the names of afw."""

__all__ = ["Exposure", "MaskedImage"]

import astropy.units as u

from ..errors import ImageError
from .image import PARENT, Image, Mask, Placed, checkSameBox, locate, unitName


class MaskedImage(Placed):
    """An image with its mask and variance.

    Parameters
    ----------
    image : `Image`, array [y, x], `Box2I` or `Extent2I`
        The image, or the box of a new one.
    mask : `Mask` or array, optional
        The mask; clear if not given.
    variance : `Image` or array, optional
        The variance, in the image's unit squared (taken to be so where it
        comes without a unit); zero if not given.
    dtype : dtype, optional
        The type of the image's pixels.
    unit : `~astropy.units.Unit` or `str`, optional
        The unit of an image that has none yet.

    Raises
    ------
    ImageError
        If the boxes differ or the variance has another unit.
    """

    def __init__(self, image, mask=None, variance=None, *, dtype=None, unit=None):
        image = image if isinstance(image, Image) else Image(image, dtype=dtype, unit=unit)
        box = image.getBBox()
        if mask is None:
            mask = Mask(box)
        elif not isinstance(mask, Mask):
            mask = Mask(mask, xy0=box.getMin())
        square = None if image.unit is None else image.unit**2
        if variance is None:
            variance = Image(box, unit=square)
        elif not isinstance(variance, Image):
            variance = Image(variance, xy0=box.getMin())
        if variance.unit is None and square is not None:
            variance = Image(variance, unit=square)  # a view; the caller's object keeps its own unit
        if variance.unit != square:
            raise ImageError(
                f"The variance of an image in {unitName(image.unit)} is in {unitName(square)}, "
                f"not in {unitName(variance.unit)}."
            )
        checkSameBox(box, mask.getBBox(), "join image and mask:")
        checkSameBox(box, variance.getBBox(), "join image and variance:")
        self.image, self.mask, self.variance = image, mask, variance

    def getImage(self):
        """The `Image`."""
        return self.image

    def getMask(self):
        """The `Mask`."""
        return self.mask

    def getVariance(self):
        """The variance, an `Image`."""
        return self.variance

    def getArrays(self):
        """The three arrays [y, x]: image, mask, variance."""
        return self.image.array, self.mask.array, self.variance.array

    @property
    def unit(self):
        """The unit of the image."""
        return self.image.unit

    @property
    def dtype(self):
        """The type of the image's pixels."""
        return self.image.dtype

    def getBBox(self, origin=PARENT):
        """The box, in parent or `LOCAL` coordinates."""
        return self.image.getBBox(origin)

    def setXY0(self, x, y=None):
        """Move the origin of all three; the pixels stay."""
        for part in (self.image, self.mask, self.variance):
            part.setXY0(x, y)

    def __getitem__(self, index):
        if locate(index, self.getBBox())[2] is None:
            return self.image[index], self.mask[index], self.variance[index]
        return MaskedImage(self.image[index], self.mask[index], self.variance[index])

    def __setitem__(self, index, value):
        parts = getattr(value, "maskedImage", value)
        if not isinstance(parts, MaskedImage):
            raise ImageError(
                f"Part of a masked image is set from a masked image, not from {type(value).__name__}."
            )
        self.image[index], self.mask[index], self.variance[index] = parts.image, parts.mask, parts.variance

    def set(self, image, mask=0, variance=0):
        """Fill the three parts with one value each."""
        self.image.set(image)
        self.mask.set(mask)
        self.variance.set(variance)

    def clone(self, deep=True):
        """A copy (or, with ``deep=False``, a view)."""
        return MaskedImage(self.image.clone(deep), self.mask.clone(deep), self.variance.clone(deep))

    def _accumulate(self, other, operate):
        parts = getattr(other, "maskedImage", other)
        if isinstance(parts, MaskedImage):
            operate(self.image, parts.image)
            self.mask |= parts.mask
            self.variance += parts.variance
        else:
            operate(self.image, other)
        return self

    def __iadd__(self, other):
        return self._accumulate(other, Image.__iadd__)

    def __isub__(self, other):
        return self._accumulate(other, Image.__isub__)

    def __imul__(self, factor):
        self.image *= factor
        self.variance *= factor**2
        return self

    def __itruediv__(self, divisor):
        self.image /= divisor
        self.variance /= divisor**2
        return self

    def asCCDData(self, badPlanes=("BAD", "SAT", "NO_DATA")):
        """An `astropy.nddata.CCDData` that shares the pixels.

        Parameters
        ----------
        badPlanes : sequence of `str`
            The planes whose pixels are masked.
        """
        from astropy.nddata import CCDData, VarianceUncertainty

        return CCDData(
            self.image.array,
            unit=self.unit or u.dimensionless_unscaled,
            mask=(self.mask.array & Mask.getPlaneBitMask(badPlanes)) != 0,
            uncertainty=VarianceUncertainty(self.variance.array),
        )

    def __repr__(self):
        return f"<{type(self).__name__} {self.image!r}>"


class Exposure(Placed):
    """A masked image with its PSF and, where known, calibrations.

    Parameters
    ----------
    maskedImage : `MaskedImage`, `Image`, `Box2I` or `Extent2I`
        The pixels, or the box of new ones.
    wcs : `object`, optional
        The world coordinates, of parent pixels (`astropy.wcs.WCS` is stored
        in files).
    psf : `~lsst.meas.extensions.vae.afw.psf.Psf`, optional
        The point-spread function.
    photoCalib : `object`, optional
        Where the image's unit does not say all, the photometric calibration.
    dtype, unit
        As for `MaskedImage`.
    """

    def __init__(self, maskedImage, wcs=None, *, psf=None, photoCalib=None, dtype=None, unit=None):
        if isinstance(maskedImage, Exposure):
            maskedImage = maskedImage.maskedImage
        elif not isinstance(maskedImage, MaskedImage):
            maskedImage = MaskedImage(maskedImage, dtype=dtype, unit=unit)
        self.maskedImage = maskedImage
        self.wcs = wcs
        self.psf = psf
        self.photoCalib = photoCalib
        self.metadata = {}

    image = property(lambda self: self.maskedImage.image, doc="The `Image`.")
    mask = property(lambda self: self.maskedImage.mask, doc="The `Mask`.")
    variance = property(lambda self: self.maskedImage.variance, doc="The variance, an `Image`.")
    unit = property(lambda self: self.maskedImage.unit, doc="The unit of the image.")

    def getMaskedImage(self):
        """The `MaskedImage`."""
        return self.maskedImage

    def getImage(self):
        """The `Image`."""
        return self.maskedImage.image

    def getMask(self):
        """The `Mask`."""
        return self.maskedImage.mask

    def getVariance(self):
        """The variance, an `Image`."""
        return self.maskedImage.variance

    def getPsf(self):
        """The PSF, `None` where there is none."""
        return self.psf

    def setPsf(self, psf):
        """Attach a PSF."""
        self.psf = psf

    def hasPsf(self):
        """Whether there is a PSF."""
        return self.psf is not None

    def getWcs(self):
        """The world coordinates, `None` where there are none."""
        return self.wcs

    def setWcs(self, wcs):
        """Attach world coordinates."""
        self.wcs = wcs

    def hasWcs(self):
        """Whether there are world coordinates."""
        return self.wcs is not None

    def getPhotoCalib(self):
        """The photometric calibration, `None` where there is none."""
        return self.photoCalib

    def setPhotoCalib(self, photoCalib):
        """Attach a photometric calibration."""
        self.photoCalib = photoCalib

    def getMetadata(self):
        """The metadata, a `dict`."""
        return self.metadata

    def getBBox(self, origin=PARENT):
        """The box, in parent or `LOCAL` coordinates."""
        return self.maskedImage.getBBox(origin)

    def setXY0(self, x, y=None):
        """Move the origin; the pixels stay."""
        self.maskedImage.setXY0(x, y)

    def __getitem__(self, index):
        part = self.maskedImage[index]
        return self._with(part) if isinstance(part, MaskedImage) else part

    def __setitem__(self, index, value):
        self.maskedImage[index] = value

    def _with(self, maskedImage):
        result = Exposure(maskedImage, self.wcs, psf=self.psf, photoCalib=self.photoCalib)
        result.metadata = self.metadata
        return result

    def clone(self, deep=True):
        """A copy of the pixels (or, with ``deep=False``, a view)."""
        return self._with(self.maskedImage.clone(deep))

    def __repr__(self):
        return f"<Exposure {self.maskedImage.image!r}, psf={self.psf!r}>"
