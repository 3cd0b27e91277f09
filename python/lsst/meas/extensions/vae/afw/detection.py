# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Peaks, footprints and heavy footprints, with the names of ``afw.detection``."""

__all__ = [
    "Footprint",
    "HeavyFootprint",
    "PeakCatalog",
    "PeakRecord",
    "PeakTable",
    "makeHeavyFootprint",
]

import numpy as np

from ..errors import ImageError
from .exposure import MaskedImage
from .geometry import Box2I, Point2D, Point2I
from .image import Image, checkSameUnit
from .schema import Field
from .spans import SpanSet, Stencil
from .table import BaseCatalog, BaseRecord, BaseTable


class PeakTable(BaseTable):
    """A table of peaks: id, f_x, f_y, i_x, i_y, peakValue."""

    _minimal = (
        Field("id", "L", "unique ID"),
        Field("f_x", "F", "subpixel column position", "pixel"),
        Field("f_y", "F", "subpixel row position", "pixel"),
        Field("i_x", "I", "column position of highest pixel", "pixel"),
        Field("i_y", "I", "row position of highest pixel", "pixel"),
        Field("peakValue", "F", "value of [smoothed] image at peak position", "count"),
    )


class PeakRecord(BaseRecord):
    """One peak: its position [pixels, parent] and its height."""

    __slots__ = ()

    def getIx(self):
        """The column of the highest pixel."""
        return self.get("i_x")

    def getIy(self):
        """The row of the highest pixel."""
        return self.get("i_y")

    def getFx(self):
        """The column, to a fraction of a pixel."""
        return self.get("f_x")

    def getFy(self):
        """The row, to a fraction of a pixel."""
        return self.get("f_y")

    def getI(self):
        """The highest pixel, `Point2I`."""
        return Point2I(self.getIx(), self.getIy())

    def getF(self):
        """The position, `Point2D`."""
        return Point2D(self.getFx(), self.getFy())

    def getCentroid(self, asInt=False):
        """The position, `Point2D`, or the highest pixel, `Point2I`."""
        return self.getI() if asInt else self.getF()

    def getPeakValue(self):
        """The height of the peak."""
        return self.get("peakValue")

    def setIx(self, x):
        """Set the column of the highest pixel."""
        self.set("i_x", x)

    def setIy(self, y):
        """Set the row of the highest pixel."""
        self.set("i_y", y)

    def setFx(self, x):
        """Set the column."""
        self.set("f_x", x)

    def setFy(self, y):
        """Set the row."""
        self.set("f_y", y)

    def setPeakValue(self, value):
        """Set the height."""
        self.set("peakValue", value)


class PeakCatalog(BaseCatalog):
    """The peaks of a footprint; see `BaseCatalog`."""

    Table = PeakTable
    Record = PeakRecord


class Footprint:
    """A set of pixels with the peaks in it.

    Parameters
    ----------
    spans : `SpanSet`, optional
        The pixels, in parent coordinates; none if not given.
    peakSchema : `Schema`, optional
        The fields of the peaks; the minimal ones if not given.
    region : `Box2I`, optional
        The box of the image that the pixels are of. (As in afw it may come
        second.)
    """

    def __init__(self, spans=None, peakSchema=None, region=None):
        if isinstance(peakSchema, Box2I):
            peakSchema, region = None, peakSchema
        self.spans = SpanSet() if spans is None else spans
        self._peaks = None
        self._peakSchema = peakSchema
        self.region = Box2I() if region is None else region

    @property
    def peaks(self):
        """The peaks, `PeakCatalog`."""
        if self._peaks is None:
            self._peaks = PeakCatalog(self._peakSchema)
        return self._peaks

    def getPeaks(self):
        """The peaks, `PeakCatalog`."""
        return self.peaks

    def setPeakSchema(self, schema):
        """Give the peaks other fields; there must be no peak yet."""
        if self._peaks is not None and len(self._peaks):
            raise ImageError(
                f"The footprint has {len(self._peaks)} peaks; set their schema before adding any."
            )
        self._peaks, self._peakSchema = None, schema

    def setPeakCatalog(self, peaks):
        """Replace the peaks."""
        self._peaks = peaks

    def addPeak(self, fx, fy, value):
        """Add a peak and return its `PeakRecord`.

        Parameters
        ----------
        fx, fy : `float`
            The position [pixels, parent]. The pixel ``i_x``, ``i_y`` is, as in
            afw, the position without its fraction.
        value : `float`
            The height.
        """
        peak = self.peaks.addNew()
        peak.setIx(int(fx))
        peak.setIy(int(fy))
        peak.setFx(fx)
        peak.setFy(fy)
        peak.setPeakValue(value)
        return peak

    def sortPeaks(self, key="peakValue"):
        """Sort the peaks, the highest first."""
        order = np.argsort(-self.peaks[key], kind="stable")
        self._peaks = self._peaks[order]

    def removeOrphanPeaks(self):
        """Drop the peaks outside the footprint."""
        inside = np.array([self.contains(peak.getI()) for peak in self.peaks], dtype=bool)
        self._peaks = self.peaks[inside]

    def isHeavy(self):
        """Whether the footprint has pixel values."""
        return False

    def getSpans(self):
        """The pixels, `SpanSet`."""
        return self.spans

    def setSpans(self, spans):
        """Replace the pixels."""
        self.spans = spans

    def getArea(self):
        """The number of pixels."""
        return self.spans.getArea()

    def getBBox(self):
        """The smallest box with all pixels."""
        return self.spans.getBBox()

    def getRegion(self):
        """The box of the image that the pixels are of."""
        return self.region

    def setRegion(self, region):
        """Set the box of the image that the pixels are of."""
        self.region = region

    def getCentroid(self):
        """The mean position of the pixels, `Point2D`."""
        return self.spans.computeCentroid()

    def getShape(self):
        """The second moments (Ixx, Iyy, Ixy) of the pixels [pixel^2]."""
        return self.spans.computeShape()

    def contains(self, point):
        """Whether a pixel is inside."""
        return self.spans.contains(point)

    def isContiguous(self):
        """Whether the pixels hang together."""
        return self.spans.isContiguous()

    def shift(self, dx, dy=None):
        """Move the pixels and the peaks, in place."""
        dx, dy = dx if dy is None else (dx, dy)
        self.spans = self.spans.shiftedBy(dx, dy)
        for peak in self.peaks:
            for axis, offset in (("x", dx), ("y", dy)):
                peak.set(f"i_{axis}", peak.get(f"i_{axis}") + offset)
                peak.set(f"f_{axis}", peak.get(f"f_{axis}") + offset)

    def clipTo(self, box):
        """Keep the pixels and the peaks inside a box."""
        self.spans = self.spans.clippedTo(box)
        self.removeOrphanPeaks()

    def dilate(self, r, stencil=Stencil.CIRCLE):
        """Grow the pixels in place; see `SpanSet.dilated`."""
        self.spans = self.spans.dilated(r, stencil)

    def erode(self, r, stencil=Stencil.CIRCLE):
        """Shrink the pixels in place; see `SpanSet.eroded`."""
        self.spans = self.spans.eroded(r, stencil)

    def intersect(self, other, copyPeaks=True):
        """The pixels in both footprints, with this one's peaks there."""
        result = Footprint(self.spans.intersect(other.spans), self.peaks.schema, region=self.region)
        if copyPeaks:
            result.peaks.extend([peak for peak in self.peaks if result.contains(peak.getI())])
        return result

    def split(self):
        """The contiguous parts, each with its peaks, a `list` of `Footprint`."""
        parts = [Footprint(spans, self.peaks.schema, region=self.region) for spans in self.spans.split()]
        for part in parts:
            part.peaks.extend([peak for peak in self.peaks if part.contains(peak.getI())])
        return parts

    def computeFluxFromImage(self, image):
        """The sum of an `Image` over the pixels."""
        return float(self.spans.flatten(image.array, image.getXY0()).sum())

    def __eq__(self, other):
        if not isinstance(other, Footprint) or self.isHeavy() != other.isHeavy():
            return NotImplemented
        if self.spans != other.spans or self.peaks.schema != other.peaks.schema:
            return False
        return len(self.peaks) == len(other.peaks) and all(
            np.array_equal(self.peaks[n], other.peaks[n], equal_nan=self.peaks[n].dtype.kind == "f")
            for n in self.peaks.schema.getOrderedNames()
        )

    __hash__ = None

    def __repr__(self):
        kind = type(self).__name__
        return f"<{kind} of {self.getArea()} pixels and {len(self.peaks)} peaks, bbox={self.getBBox()}>"


class HeavyFootprint(Footprint):
    """A footprint with the values of its pixels.

    Parameters
    ----------
    footprint : `Footprint`
        The pixels and peaks, shared.
    image, mask, variance : array [area]
        The values, in the order of the spans.
    unit : `~astropy.units.Unit`, optional
        The unit of the image's values.
    """

    def __init__(self, footprint, image, mask=None, variance=None, unit=None):
        super().__init__(footprint.spans, region=footprint.region)
        self._peaks, self._peakSchema = footprint._peaks, footprint._peakSchema
        area = self.getArea()
        self._image = np.asarray(image)
        self._mask = np.zeros(area, dtype=np.int32) if mask is None else np.asarray(mask)
        self._variance = np.zeros(area, dtype=np.float32) if variance is None else np.asarray(variance)
        self.unit = unit
        for values in (self._image, self._mask, self._variance):
            if values.shape != (area,):
                raise ImageError(
                    f"A heavy footprint of {area} pixels cannot have values of shape {values.shape}."
                )

    def isHeavy(self):
        """Whether the footprint has pixel values."""
        return True

    def getImageArray(self):
        """The image's values [area], in the order of the spans."""
        return self._image

    def getMaskArray(self):
        """The mask's values [area]."""
        return self._mask

    def getVarianceArray(self):
        """The variance's values [area]."""
        return self._variance

    def _inside(self, target):
        places = self.spans._places(target.getXY0(), (target.getHeight(), target.getWidth()))
        return getattr(target, "maskedImage", target), places

    def insert(self, target):
        """Overwrite the pixels of an `Image`, `MaskedImage` or `Exposure`."""
        target, places = self._inside(target)
        image = target if isinstance(target, Image) else target.image
        checkSameUnit(image.unit, self.unit, "insert")
        image.array[places] = self._image
        if image is not target:
            target.mask.array[places] = self._mask
            target.variance.array[places] = self._variance

    def addTo(self, target):
        """Add the values to the pixels of an `Image`."""
        target, places = self._inside(target)
        checkSameUnit(target.unit, self.unit, "add")
        target.array[places] += self._image

    def subtractFrom(self, target):
        """Subtract the values from the pixels of an `Image`."""
        target, places = self._inside(target)
        checkSameUnit(target.unit, self.unit, "subtract")
        target.array[places] -= self._image

    def extractImage(self, fill=np.nan, bbox=None, imageType=None):
        """The values as an image.

        Parameters
        ----------
        fill : `float`
            What the pixels outside the footprint have.
        bbox : `Box2I`, optional
            The box of the image; the footprint's if not given. It may cut
            the footprint.
        imageType : `type`, optional
            `Image` (the default) or `MaskedImage`.
        """
        bbox = self.getBBox() if bbox is None else bbox
        full = bbox.expandedTo(self.getBBox())
        image = Image(full, dtype=self._image.dtype, initialValue=fill, unit=self.unit)
        target = MaskedImage(image) if imageType is MaskedImage else image
        self.insert(target)
        return target[bbox].clone()

    def dot(self, other):
        """The sum over common pixels of the products of the two images."""
        box = self.getBBox().expandedTo(other.getBBox())
        images = (heavy.extractImage(0, box).array.astype(np.float64) for heavy in (self, other))
        return float(np.prod(list(images), axis=0).sum())

    def __eq__(self, other):
        same = super().__eq__(other)
        return same if same is not True else np.array_equal(self._image, other._image, equal_nan=True)

    __hash__ = None


def makeHeavyFootprint(footprint, maskedImage):
    """A footprint with the values that its pixels have in an image.

    Parameters
    ----------
    footprint : `Footprint`
        The pixels; the image has to hold them.
    maskedImage : `MaskedImage`, `Exposure` or `Image`
        The values.

    Returns
    -------
    heavy : `HeavyFootprint`
    """
    source = getattr(maskedImage, "maskedImage", maskedImage)
    parts = [source] if isinstance(source, Image) else [source.image, source.mask, source.variance]
    values = [footprint.spans.flatten(part.array, part.getXY0()) for part in parts]
    return HeavyFootprint(footprint, *values, unit=parts[0].unit)
