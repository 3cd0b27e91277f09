# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of several bands as one cube [band, y, x], with the names of afw.

The rules of indexing are afw's: the first index chooses bands, by a name, a
list of names or a slice of names (``[:]`` for all), the rest a box or pixels.
A name, or a list of one name, gives the single-band object; a slice or a
longer list gives a multiband one.
"""

__all__ = [
    "IncompleteDataError",
    "MultibandExposure",
    "MultibandImage",
    "MultibandMask",
    "MultibandMaskedImage",
    "computePsfImage",
]

import astropy.units as u
import numpy as np

from ..errors import ImageError
from .exposure import Exposure, MaskedImage
from .geometry import Box2I, Extent2I, Point2D, Point2I
from .image import PARENT, Image, Mask, Placed, checkSameBox, checkSameUnit, locate
from .psf import PsfDomainError


class IncompleteDataError(ImageError):
    """The PSF is missing at a position in some bands.

    Attributes
    ----------
    missingBands : `list` of `str`
        The bands without a PSF there.
    position : `Point2D`
        The position.
    partialPsf : `MultibandImage` or `None`
        The PSFs of the other bands, `None` if there are no others.
    """

    def __init__(self, bands, position, partialPsf=None):
        present = () if partialPsf is None else partialPsf.bands
        self.missingBands = [band for band in bands if band not in present]
        self.position = position
        self.partialPsf = partialPsf
        super().__init__(
            f"No PSF at ({position[0]:g}, {position[1]:g}) in the bands {', '.join(self.missingBands)}."
        )


def computePsfImage(psfModels, position, useKernelImage=True):
    """The PSFs of several bands at a position, as one cube.

    Parameters
    ----------
    psfModels : `dict` [`str`, `~lsst.meas.extensions.vae.afw.psf.Psf`]
        The PSF of each band; `None` counts as missing.
    position : `Point2D` or (x, y)
        Where on the image [pixels, parent].
    useKernelImage : `bool`
        Use ``computeKernelImage``; with `False`, ``computeImage``.

    Returns
    -------
    psfs : `MultibandImage`
        [band, y, x] float64; smaller kernels are padded with zeros.

    Raises
    ------
    IncompleteDataError
        If some bands have no PSF there.
    """
    position = Point2D(position)
    found = {}
    for band, psf in psfModels.items():
        try:
            if psf is not None:
                found[band] = (psf.computeKernelImage if useKernelImage else psf.computeImage)(position)
        except PsfDomainError:
            pass  # told below, with the other bands
    if not found:
        raise IncompleteDataError(list(psfModels), position)
    box = Box2I()
    for image in found.values():
        box.include(image.getBBox())
    result = MultibandImage(tuple(found), np.zeros((len(found), box.height, box.width)), box)
    for band, image in found.items():
        result[band][image.getBBox()] = image
    if len(found) < len(psfModels):
        raise IncompleteDataError(list(psfModels), position, result)
    return result


def _checkedBands(bands):
    """The band names as a tuple, or `ImageError`."""
    bands = tuple(bands)
    if not bands or not all(isinstance(band, str) for band in bands) or len(set(bands)) < len(bands):
        raise ImageError(f"Bands have to be one or more different names, not {bands}.")
    return bands


class MultibandBase(Placed):
    """What the multiband classes share: bands, single-band parts, indexing."""

    _bands = ()
    _singles = ()

    @property
    def bands(self):
        """The names of the bands, a `tuple`."""
        return self._bands

    @property
    def singles(self):
        """The single-band objects, a `tuple`."""
        return self._singles

    @property
    def origin(self):
        """The corner as (y, x), for numpy."""
        return self.getY0(), self.getX0()

    def getBBox(self, origin=PARENT):
        """The box of every band, in parent or `LOCAL` coordinates."""
        return self._singles[0].getBBox(origin)

    def setXY0(self, x, y=None):
        """Move the origin of every band; the pixels stay."""
        for single in self._singles:
            single.setXY0(x, y)

    def __len__(self):
        return len(self._bands)

    def __iter__(self):
        return iter(self._singles)

    def _bandIndex(self, index):
        """The band numbers of a first index: an `int`, a `slice` or a `list`."""
        if isinstance(index, slice):
            start, stop = (None if edge is None else self._number(edge) for edge in (index.start, index.stop))
            return slice(start, stop, index.step)
        names = [index] if isinstance(index, str) or not hasattr(index, "__iter__") else list(index)
        numbers = [self._number(name) for name in names]
        if not numbers:
            raise ImageError("At least one band has to be chosen.")
        if len(numbers) == 1:
            return numbers[0]
        if np.all(np.diff(numbers) == 1):
            return slice(numbers[0], numbers[-1] + 1)  # neighbours: a view will do
        return numbers

    def _number(self, band):
        if band not in self._bands:
            raise ImageError(f"There is no band {band!r}; there are {', '.join(self._bands)}.")
        return self._bands.index(band)

    def __getitem__(self, index):
        first, rest = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
        if any(isinstance(part, str) for part in (rest if isinstance(rest, tuple) else (rest,))):
            raise ImageError(
                f"{index!r} is not one place of a cube: name several bands in a list, {list(index)}."
            )
        number = self._bandIndex(first)
        rest = rest[0] if len(rest) == 1 else rest
        if isinstance(number, int):
            return self._singles[number] if rest == () else self._singles[number][rest]
        bands = self._bands[number] if isinstance(number, slice) else tuple(self._bands[n] for n in number)
        if not bands:
            raise ImageError(f"No band is between those of {first}; there are {', '.join(self._bands)}.")
        return self._slice(bands, number, slice(None) if rest == () else rest)

    def __repr__(self):
        return f"<{type(self).__name__} bands={self._bands}, bbox={self.getBBox()}>"


class _MultibandArray(MultibandBase):
    """A cube with its single-band images as views."""

    _single = None

    def _build(self, bands, array, bbox, unit=None):
        self._bands = _checkedBands(bands)
        self._array = np.asarray(array)
        if self._array.ndim != 3 or len(self._array) != len(self._bands):
            raise ImageError(
                f"A cube of {len(self._bands)} bands is [{len(self._bands)}, y, x], not {self._array.shape}."
            )
        if bbox is None:
            bbox = Box2I(Point2I(0, 0), Extent2I(self._array.shape[2], self._array.shape[1]))
        if (bbox.height, bbox.width) != self._array.shape[1:]:
            raise ImageError(f"The box {bbox} does not fit a cube of shape {self._array.shape}.")
        self._singles = tuple(self._single(plane, xy0=bbox.getMin(), unit=unit) for plane in self._array)

    @classmethod
    def _joined(cls, bands, singles):
        bands, singles = _checkedBands(bands), list(singles)
        if len(bands) != len(singles):
            raise ImageError(
                f"{len(singles)} images do not go with the {len(bands)} bands {', '.join(bands)}."
            )
        for single in singles[1:]:
            checkSameBox(singles[0].getBBox(), single.getBBox(), "join")
            checkSameUnit(getattr(singles[0], "unit", None), getattr(single, "unit", None), "join")
        return bands, np.stack([single.array for single in singles]), singles[0].getBBox()

    @property
    def array(self):
        """The cube [band, y, x], not a copy; assigning fills it in place."""
        return self._array

    @array.setter
    def array(self, values):
        self._array[...] = values

    def _slice(self, bands, number, rest):
        rows, columns, box = locate(rest, self.getBBox())
        part = self._array[number, rows, columns]
        return part if box is None else self._like(bands, part, box)

    def __setitem__(self, index, value):
        target = self[index]
        first, rest = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
        number = self._bandIndex(first)
        rows, columns, _ = locate(rest if rest else slice(None), self.getBBox())
        if hasattr(value, "array"):
            checkSameUnit(getattr(target, "unit", None), getattr(value, "unit", None), "set")
            value = value.array
        self._array[number, rows, columns] = value

    def clone(self, deep=True):
        """A copy (or, with ``deep=False``, a view)."""
        return self._like(self._bands, self._array.copy() if deep else self._array, self.getBBox())


class MultibandImage(_MultibandArray):
    """Images of several bands in one unit.

    Parameters
    ----------
    bands : sequence of `str`
        The names of the bands.
    array : array [band, y, x]
        The pixels, not copied.
    bbox : `Box2I`, optional
        Where they are; at (0, 0) if not given.
    unit : `~astropy.units.Unit` or `str`, optional
        The unit of the pixels.
    """

    _single = Image

    def __init__(self, bands, array, bbox=None, unit=None):
        if isinstance(array, u.Quantity):
            checkSameUnit(array.unit, u.Unit(unit) if unit is not None else array.unit, "make an image of")
            array, unit = array.value, array.unit
        self._build(bands, array, bbox, unit)

    @classmethod
    def fromImages(cls, bands, singles):
        """Join single-band images (a copy)."""
        singles = list(singles)
        return cls(*cls._joined(bands, singles), unit=singles[0].unit)

    def _like(self, bands, array, box):
        return MultibandImage(bands, array, box, self.unit)

    @property
    def unit(self):
        """The unit of the pixels."""
        return self._singles[0].unit

    @property
    def quantity(self):
        """The cube as a `~astropy.units.Quantity` (not a copy)."""
        return u.Quantity(self._array, self.unit or u.dimensionless_unscaled, copy=False)


class MultibandMask(_MultibandArray):
    """Masks of several bands; the planes are those of `Mask`."""

    _single = staticmethod(lambda plane, xy0, unit: Mask(plane, xy0=xy0))

    def __init__(self, bands, array, bbox=None):
        self._build(bands, array, bbox)

    @classmethod
    def fromMasks(cls, bands, singles):
        """Join single-band masks (a copy)."""
        return cls(*cls._joined(bands, singles))

    def _like(self, bands, array, box):
        return MultibandMask(bands, array, box)

    addMaskPlane = staticmethod(Mask.addMaskPlane)
    removeMaskPlane = staticmethod(Mask.removeMaskPlane)
    getMaskPlane = staticmethod(Mask.getMaskPlane)
    getMaskPlaneDict = staticmethod(Mask.getMaskPlaneDict)
    getPlaneBitMask = staticmethod(Mask.getPlaneBitMask)
    getNumPlanesMax = staticmethod(Mask.getNumPlanesMax)
    getNumPlanesUsed = staticmethod(Mask.getNumPlanesUsed)

    def clearAllMaskPlanes(self):
        """Clear every plane in every pixel of every band."""
        self._array[...] = 0

    def _combine(self, other, operate):
        if isinstance(other, MultibandMask):
            if other.bands != self.bands:
                raise ImageError(f"Cannot combine masks of the bands {other.bands} and {self.bands}.")
            checkSameBox(self.getBBox(), other.getBBox(), "combine")
        operate(self._array, getattr(other, "array", other), out=self._array)
        return self

    def __ior__(self, other):
        return self._combine(other, np.bitwise_or)

    def __iand__(self, other):
        return self._combine(other, np.bitwise_and)

    def __ixor__(self, other):
        return self._combine(other, np.bitwise_xor)


class MultibandMaskedImage(MultibandBase):
    """Image, mask and variance of several bands, each ``.array`` a cube.

    Parameters
    ----------
    bands : sequence of `str`
        The names of the bands.
    image : `MultibandImage` or sequence of `Image`
        The images.
    mask : `MultibandMask` or sequence of `Mask`, optional
        The masks; clear if not given.
    variance : `MultibandImage` or sequence of `Image`, optional
        The variances, in the images' unit squared (taken to be so where they
        have none); zero if not given.
    """

    def __init__(self, bands, image, mask=None, variance=None):
        bands = _checkedBands(bands)
        image = image if isinstance(image, MultibandImage) else MultibandImage.fromImages(bands, image)
        box, shape = image.getBBox(), image.array.shape
        square = None if image.unit is None else image.unit**2
        if mask is None:
            mask = MultibandMask(bands, np.zeros(shape, dtype=np.int32), box)
        elif not isinstance(mask, MultibandMask):
            mask = MultibandMask.fromMasks(bands, mask)
        if variance is None:
            variance = MultibandImage(bands, np.zeros_like(image.array), box, square)
        elif not isinstance(variance, MultibandImage):
            variance = MultibandImage.fromImages(bands, variance)
        if variance.unit is None and square is not None:
            variance = MultibandImage(bands, variance.array, variance.getBBox(), square)
        for what, part in (("image", image), ("mask", mask), ("variance", variance)):
            if part.bands != bands:
                raise ImageError(f"The {what} has the bands {part.bands}, not {bands}.")
        self._bands = bands
        self.image, self.mask, self.variance = image, mask, variance
        # Units and boxes are checked band by band there.
        self._singles = tuple(
            self._makeSingle(MaskedImage(*parts))
            for parts in zip(image.singles, mask.singles, variance.singles)
        )

    @staticmethod
    def _makeSingle(maskedImage):
        return maskedImage

    @classmethod
    def fromImages(cls, bands, singles):
        """Join single-band masked images or exposures (a copy)."""
        singles = list(singles)
        return cls(bands, *([getattr(s, part) for s in singles] for part in ("image", "mask", "variance")))

    @classmethod
    def fromArrays(cls, bands, image, mask=None, variance=None, bbox=None, unit=None, **kwargs):
        """From cubes [band, y, x] (not copied).

        Parameters
        ----------
        bands : sequence of `str`
            The names of the bands.
        image, mask, variance : array [band, y, x]
            The pixels; a clear mask and no variance where not given.
        bbox : `Box2I`, optional
            Where they are; at (0, 0) if not given.
        unit : `~astropy.units.Unit` or `str`, optional
            The unit of the image; the variance has its square.
        """
        image = MultibandImage(bands, image, bbox, unit)
        if mask is not None:
            mask = MultibandMask(bands, mask, image.getBBox())
        if variance is not None:
            variance = MultibandImage(bands, variance, image.getBBox())
        return cls(bands, image, mask, variance, **kwargs)

    @property
    def unit(self):
        """The unit of the images."""
        return self.image.unit

    def setXY0(self, x, y=None):
        """Move the origin; the pixels stay."""
        for part in (self.image, self.mask, self.variance):
            part.setXY0(x, y)

    def _slice(self, bands, number, rest):
        parts = [part._slice(bands, number, rest) for part in (self.image, self.mask, self.variance)]
        return self._like(bands, *parts) if isinstance(parts[0], MultibandImage) else tuple(parts)

    def _like(self, bands, image, mask, variance):
        return type(self)(bands, image, mask, variance)

    def clone(self, deep=True):
        """A copy (or, with ``deep=False``, a view)."""
        return self._like(self._bands, *(part.clone(deep) for part in (self.image, self.mask, self.variance)))


class MultibandExposure(MultibandMaskedImage):
    """Exposures of several bands on the same pixels.

    Parameters
    ----------
    bands, image, mask, variance
        As for `MultibandMaskedImage`.
    psfs : sequence or `dict`, optional
        The PSF of each band, in order or by name.
    wcs : `object`, optional
        The world coordinates of all bands (afw does not keep them here).
    metadata : `dict`, optional
        Simple values that travel with the pixels, into files too.
    """

    def __init__(self, bands, image, mask=None, variance=None, psfs=None, wcs=None, metadata=None):
        super().__init__(bands, image, mask, variance)
        self.metadata = dict(metadata or {})
        if psfs is not None:
            psfs = [psfs.get(band) for band in self._bands] if isinstance(psfs, dict) else list(psfs)
            if len(psfs) != len(self._bands):
                raise ImageError(
                    f"{len(psfs)} PSFs do not go with the {len(self._bands)} bands {self._bands}."
                )
            for psf, single in zip(psfs, self._singles):
                single.setPsf(psf)
        for single in self._singles:
            single.setWcs(wcs)

    @staticmethod
    def _makeSingle(maskedImage):
        return Exposure(maskedImage)

    @classmethod
    def fromExposures(cls, bands, singles):
        """Join single-band exposures (the pixels are copied).

        Their PSFs and photometric calibrations come along; the world
        coordinates do if all have the same.
        """
        singles = list(singles)
        wcs = {id(single.getWcs()): single.getWcs() for single in singles}
        result = cls.fromImages(bands, singles)
        for new, old in zip(result.singles, singles):
            new.setPsf(old.getPsf())
            new.setPhotoCalib(old.getPhotoCalib())
            new.setWcs(next(iter(wcs.values())) if len(wcs) == 1 else None)
        return result

    @classmethod
    def fromButler(cls, butler, bands, *args, **kwargs):
        """Join the exposures that a Butler holds band by band.

        Parameters
        ----------
        butler : `lsst.daf.butler.Butler`
            Called as ``butler.get(*args, band=band, **kwargs)`` for each band.
        bands : sequence of `str`
            The names of the bands.
        """
        return cls.fromExposures(bands, [butler.get(*args, band=band, **kwargs) for band in bands])

    def select(self, bands=None, bbox=None):
        """Part of the exposure, always as a `MultibandExposure`.

        Parameters
        ----------
        bands : `str` or sequence of `str`, optional
            The bands; all if not given. A single one does not, as an index
            would, turn the result into an `Exposure`.
        bbox : `Box2I`, optional
            The box; all if not given.
        """
        names = self._bands if bands is None else ((bands,) if isinstance(bands, str) else tuple(bands))
        numbers = [self._number(name) for name in names]
        if np.all(np.diff(numbers) == 1) and numbers:
            numbers = slice(numbers[0], numbers[-1] + 1)  # neighbours: a view will do
        return self._slice(names, numbers, slice(None) if bbox is None else bbox)

    def writeFits(self, path):
        """Write one FITS file; see `persistence.writeMultibandExposure`."""
        from .persistence import writeMultibandExposure

        writeMultibandExposure(self, path)

    @staticmethod
    def readFits(path, bands=None, bbox=None):
        """Read such a file or part of it; see `persistence.readMultibandExposure`."""
        from .persistence import readMultibandExposure

        return readMultibandExposure(path, bands, bbox)

    def getPsfs(self):
        """The PSF of each band (maybe `None`), a `dict`."""
        return {band: single.getPsf() for band, single in zip(self._bands, self._singles)}

    def getWcs(self):
        """The world coordinates, `None` where there are none."""
        return self._singles[0].getWcs()

    def getMetadata(self):
        """The metadata, a `dict`."""
        return self.metadata

    def computePsfKernelImage(self, position):
        """The PSFs of all bands at a position, centred; see `computePsfImage`."""
        return computePsfImage(self.getPsfs(), position)

    def computePsfImage(self, position=None):
        """The PSFs of all bands for a star at a position, in its own pixels.

        Without a position, at the centre of the box.
        """
        if position is None:
            position = self.getBBox().getCenter()
        return computePsfImage(self.getPsfs(), position, useKernelImage=False)

    def _like(self, bands, image, mask, variance):
        psfs = self.getPsfs()
        result = MultibandExposure(
            bands, image, mask, variance, [psfs[band] for band in bands], self.getWcs(), self.metadata
        )
        for band, single in zip(bands, result.singles):
            single.setPhotoCalib(self[band].getPhotoCalib())
        return result
