# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images and masks on `astropy.nddata`, with the names of afw.

Every image knows its unit and its origin ``xy0``: positions are those of the
parent frame, so a cutout and the image it came from agree about where a pixel
is. Indexing by a `Box2I` gives a view that shares the pixels.
"""

__all__ = ["LOCAL", "PARENT", "Image", "ImageOrigin", "Mask", "Placed"]

import enum

import astropy.units as u
import numpy as np
from astropy.nddata import NDData

from ..errors import ImageError
from .geometry import Box2I, Extent2I, Point2I


class ImageOrigin(enum.Enum):
    """What pixel positions count from."""

    PARENT = "PARENT"
    LOCAL = "LOCAL"


PARENT = ImageOrigin.PARENT
LOCAL = ImageOrigin.LOCAL


def unitName(unit):
    """What an error calls a unit that may be absent."""
    return "no unit" if unit is None else f"'{unit}'"


def checkSameUnit(first, second, what):
    """Refuse to combine values of different units.

    Raises
    ------
    ImageError
        If the units differ, naming both.
    """
    if first != second:
        raise ImageError(
            f"Cannot {what} values in {unitName(second)} and an image in {unitName(first)}: "
            "convert one with .to(unit) first."
        )


def checkSameBox(first, second, what):
    """Refuse to combine images of different boxes (`ImageError`)."""
    if first != second:
        raise ImageError(f"Cannot {what} images of different boxes: {first} and {second}.")


def locate(index, bbox):
    """Turn an afw index into array slices.

    Parameters
    ----------
    index : `Box2I`, `Point2I`, (x, y), (x slice, y slice), ``:``
        The index, in parent coordinates; a trailing `LOCAL` makes it count
        from the image's own corner.
    bbox : `Box2I`
        The image's box in parent coordinates.

    Returns
    -------
    rows, columns : `slice` or `int`
        The place in the array.
    box : `Box2I` or `None`
        The box of the result, `None` where it is a single pixel.
    """
    origin = PARENT
    if isinstance(index, tuple) and not isinstance(index, Point2I):
        if isinstance(index[-1], ImageOrigin):
            *index, origin = index
            index = index[0] if len(index) == 1 else tuple(index)
        elif len(index) == 1:
            index = index[0]
    if isinstance(index, slice) or index is Ellipsis:
        if index is not Ellipsis and index != slice(None):
            raise ImageError(f"An image takes two slices or a Box2I, not the single slice {index}.")
        index = bbox
        origin = PARENT
    if not isinstance(index, (Box2I, tuple)):
        raise ImageError(
            f"Cannot index an image by {index!r}: give a Box2I, a Point2I, x and y, or two slices."
        )
    corner = bbox.getMin() if origin is PARENT else Point2I(0, 0)
    if isinstance(index, Box2I):
        box = index
    elif any(isinstance(i, slice) for i in index):
        box = _sliceBox(index, Box2I(corner, bbox.getDimensions()), origin)
    else:
        return _pixel(index, corner, bbox, origin)
    local = Box2I(box.getMin() - (corner - Point2I(0, 0)), box.getDimensions())
    if not box.isEmpty() and not Box2I(Point2I(0, 0), bbox.getDimensions()).contains(local):
        raise ImageError(f"The box {box} is not inside the image, whose box is {bbox}; clip it first.")
    rows, columns = local.getSlices()
    return rows, columns, Box2I(bbox.getMin() + (local.getMin() - Point2I(0, 0)), local.getDimensions())


def _sliceBox(index, full, origin):
    """The box of an (x slice, y slice) index."""
    if len(index) != 2 or not all(isinstance(i, slice) and i.step is None for i in index):
        raise ImageError(f"An image takes two slices [x0:x1, y0:y1] without steps, not {index!r}.")
    edges = []
    for part, begin, end in zip(index, full.getBegin(), full.getEnd()):
        limits = []
        for value, default in ((part.start, begin), (part.stop, end)):
            if value is None:
                value = default
            elif value < 0:
                if origin is PARENT:
                    raise ImageError(f"Negative index {value} in parent coordinates: use LOCAL, or a Box2I.")
                value += end
            limits.append(value)
        edges.append(limits)
    (x0, x1), (y0, y1) = edges
    return Box2I(Point2I(x0, y0), Extent2I(x1 - x0, y1 - y0), invert=False)


def _pixel(index, corner, bbox, origin):
    """The array place of one (x, y) pixel."""
    if len(index) != 2:
        raise ImageError(f"A pixel is [x, y] or [Point2I], not {index!r}.")
    x, y = index
    if origin is LOCAL:
        x, y = x + bbox.getWidth() * (x < 0), y + bbox.getHeight() * (y < 0)
    column, row = x - corner[0], y - corner[1]
    if not (0 <= column < bbox.getWidth() and 0 <= row < bbox.getHeight()):
        raise ImageError(f"The pixel ({x}, {y}) is not inside the image, whose box is {bbox}.")
    return row, column, None


class Placed:
    """What everything with a box and an origin shares (needs ``getBBox``)."""

    def getXY0(self):
        """The corner pixel in parent coordinates, `Point2I`."""
        return self.getBBox().getMin()

    def getX0(self):
        """The first column in parent coordinates."""
        return self.getBBox().getMinX()

    def getY0(self):
        """The first row in parent coordinates."""
        return self.getBBox().getMinY()

    def getWidth(self):
        """The number of columns."""
        return self.getBBox().getWidth()

    def getHeight(self):
        """The number of rows."""
        return self.getBBox().getHeight()

    def getDimensions(self):
        """Width and height, `Extent2I`."""
        return self.getBBox().getDimensions()

    x0, y0, width, height = property(getX0), property(getY0), property(getWidth), property(getHeight)


class _ImageBase(Placed, NDData):
    """A 2-d array with an origin and a unit.

    Parameters
    ----------
    source : array [y, x], `~astropy.units.Quantity`, `Box2I`, `Extent2I`, `int`, image
        The pixels (kept without a copy), a box or a size to fill with
        ``initialValue``, or an image to share the pixels of. Integers are
        ``width, height``.
    height : `int` or `Box2I`, optional
        The height beside an integer width, or the box of an image to take.
    array : array [y, x], optional
        The pixels, by name.
    xy0 : `Point2I`, optional
        The corner pixel in parent coordinates.
    dtype : dtype, optional
        The type of the pixels.
    deep : `bool`
        Copy the pixels.
    initialValue : number
        What a new image is filled with.
    unit : `~astropy.units.Unit` or `str`, optional
        The unit of the pixels.
    """

    _dtype = np.float32

    def __init__(
        self,
        source=None,
        height=None,
        *,
        array=None,
        xy0=None,
        dtype=None,
        deep=False,
        initialValue=0,
        unit=None,
    ):
        source = array if source is None else source
        if isinstance(source, _ImageBase):
            unit = source.unit if unit is None else unit
            xy0 = source.getXY0() if xy0 is None else xy0
            if isinstance(height, Box2I):
                rows, columns, box = locate(height, source.getBBox())
                source, xy0 = source.array[rows, columns], box.getMin()
            else:
                source = source.array
        if isinstance(source, u.Quantity):
            checkSameUnit(source.unit, u.Unit(unit) if unit is not None else source.unit, "make an image of")
            source, unit = source.value, source.unit
        if isinstance(source, Box2I):
            xy0 = source.getMin() if xy0 is None else xy0
            source = source.getDimensions()
        elif isinstance(source, (int, np.integer)):
            source = Extent2I(source, height)
        if isinstance(source, Extent2I):
            source = np.full((source[1], source[0]), initialValue, dtype or self._dtype)
        pixels = (np.array if deep else np.asarray)(source, dtype=dtype or self._kept(source))
        if pixels.ndim != 2:
            raise ImageError(f"An image has 2 dimensions [y, x]; these pixels have shape {pixels.shape}.")
        super().__init__(pixels, unit=unit)
        self._xy0 = Point2I(0, 0) if xy0 is None else Point2I(xy0)

    @classmethod
    def _kept(cls, source):
        """The dtype for pixels that came without one."""
        dtype = getattr(source, "dtype", None)
        return cls._dtype if dtype is None or np.dtype(dtype) == np.bool_ else dtype.newbyteorder("=")

    @property
    def array(self):
        """The pixels [y, x], not a copy; assigning fills them in place."""
        return self._data

    @array.setter
    def array(self, values):
        self._data[...] = values

    def getArray(self):
        """The pixels [y, x], not a copy."""
        return self._data

    @property
    def dtype(self):
        """The type of the pixels."""
        return self._data.dtype

    def getBBox(self, origin=PARENT):
        """The image's box, in parent or `LOCAL` coordinates."""
        corner = self._xy0 if origin is PARENT else Point2I(0, 0)
        return Box2I(corner, Extent2I(self._data.shape[1], self._data.shape[0]))

    def setXY0(self, x, y=None):
        """Move the origin; the pixels stay."""
        self._xy0 = Point2I(x) if y is None else Point2I(x, y)

    def __getitem__(self, index):
        rows, columns, box = locate(index, self.getBBox())
        if box is None:
            return self._data[rows, columns].item()
        return self._view(self._data[rows, columns], box.getMin())

    def _view(self, pixels, xy0):
        return type(self)(pixels, xy0=xy0, unit=self.unit)

    def __setitem__(self, index, value):
        rows, columns, box = locate(index, self.getBBox())
        if box is not None and isinstance(value, _ImageBase) and value._data.shape != (box.height, box.width):
            raise ImageError(
                f"Cannot set the box {box} from an image of box {value.getBBox()}: the sizes differ."
            )
        self._data[rows, columns] = self._operand(value, "set", placed=False)

    def subset(self, box, origin=PARENT):
        """The view of a box; the same as ``image[box]``."""
        return self[box, origin]

    def assign(self, other, box=None, origin=PARENT):
        """Copy another image's pixels into a box of this one."""
        self[box if box is not None else self.getBBox(), origin if box is not None else PARENT] = other

    def set(self, value):
        """Fill every pixel with ``value``."""
        self._data[...] = value

    def clone(self, deep=True):
        """A copy (or, with ``deep=False``, a view) of the image."""
        return self._view(self._data.copy() if deep else self._data, self._xy0)

    def _operand(self, other, what, placed=True):
        """The plain numbers of an operand whose unit and box were checked."""
        if isinstance(other, _ImageBase):
            checkSameUnit(self.unit, other.unit, what)
            if placed:
                checkSameBox(self.getBBox(), other.getBBox(), what)
            return other._data
        if isinstance(other, u.Quantity):
            checkSameUnit(self.unit, other.unit, what)
            return other.value
        return other

    def __repr__(self):
        unit = "" if self.unit is None else f", unit='{self.unit}'"
        return f"<{type(self).__name__} {self._data.dtype}, bbox={self.getBBox()}{unit}>"

    __str__ = __repr__


class Image(_ImageBase):
    """An image of fluxes or variances; see the base for the parameters.

    Plain numbers in arithmetic are in the image's unit; images and quantities
    have to bring the same one. Products and quotients combine the units.
    """

    @property
    def quantity(self):
        """The pixels [y, x] as a `~astropy.units.Quantity` (not a copy)."""
        return u.Quantity(self._data, self.unit or u.dimensionless_unscaled, copy=False)

    def to(self, unit):
        """A copy in another unit of the same kind.

        Raises
        ------
        ImageError
            If the units do not convert.
        """
        try:
            factor = (self.unit or u.dimensionless_unscaled).to(u.Unit(unit))
        except (u.UnitConversionError, ValueError) as error:
            raise ImageError(f"An image in {unitName(self.unit)} does not convert to '{unit}'.") from error
        return Image((self._data * factor).astype(self._data.dtype), xy0=self._xy0, unit=unit)

    def __iadd__(self, other):
        self._data += self._operand(other, "add")
        return self

    def __isub__(self, other):
        self._data -= self._operand(other, "subtract")
        return self

    def _scaled(self, other, operate, combine):
        """Multiply or divide in place, the units too."""
        unit = getattr(other, "unit", None)
        if isinstance(other, _ImageBase):
            checkSameBox(self.getBBox(), other.getBBox(), "combine")
            other = other._data
        elif isinstance(other, u.Quantity):
            other = other.value
        operate(self._data, other, out=self._data, casting="same_kind")
        if unit is not None:
            self._unit = combine(self.unit or u.dimensionless_unscaled, unit)
        return self

    def __imul__(self, other):
        return self._scaled(other, np.multiply, lambda a, b: a * b)

    def __itruediv__(self, other):
        return self._scaled(other, np.divide, lambda a, b: a / b)

    def __add__(self, other):
        result = self.clone()
        result += other
        return result

    def __sub__(self, other):
        result = self.clone()
        result -= other
        return result

    def __mul__(self, other):
        result = self.clone()
        result *= other
        return result

    def __truediv__(self, other):
        result = self.clone()
        result /= other
        return result

    __radd__, __rmul__ = __add__, __mul__

    # Let `quantity * image` come to us instead of numpy's element loop.
    __array_ufunc__ = None


# afw's planes in afw's bits, then the one that deblenders add first.
_INITIAL_PLANES = (
    "BAD", "SAT", "INTRP", "CR", "EDGE", "DETECTED", "DETECTED_NEGATIVE", "SUSPECT", "NO_DATA", "VIGNETTED",
    "STREAK", "NOT_DEBLENDED",
)  # fmt: skip


_planes = {name: bit for bit, name in enumerate(_INITIAL_PLANES)}


class Mask(_ImageBase):
    """A mask with named planes; see the base for the other parameters.

    As in afw the names belong to the process, not to one mask, so that masks
    always combine. Files carry their own names and are translated when read.
    """

    _dtype = np.int32

    def __init__(self, source=None, height=None, **kwargs):
        super().__init__(source, height, **kwargs)
        if self._data.dtype.kind not in "iu":
            raise ImageError(f"A mask has integer pixels, not {self._data.dtype}.")

    def _view(self, pixels, xy0):
        return Mask(pixels, xy0=xy0)

    @classmethod
    def addMaskPlane(cls, name):
        """Add a plane if there is none of this name, and return its bit.

        Raises
        ------
        ImageError
            If every bit is taken.
        """
        if name not in _planes:
            free = sorted(set(range(cls.getNumPlanesMax())) - set(_planes.values()))
            if not free:
                raise ImageError(
                    f"No bit is left for the mask plane '{name}': there are {cls.getNumPlanesMax()} already."
                )
            _planes[name] = free[0]
        return _planes[name]

    @classmethod
    def removeMaskPlane(cls, name):
        """Forget a plane that was added; its bit becomes free."""
        if name in _INITIAL_PLANES:
            raise ImageError(f"The mask plane '{name}' is one of the initial ones and stays.")
        cls.getMaskPlane(name)
        del _planes[name]

    @staticmethod
    def getMaskPlaneDict():
        """The bit number of every plane, a `dict` (a copy)."""
        return dict(_planes)

    @staticmethod
    def getMaskPlane(name):
        """The bit number of a plane (`ImageError` if there is none)."""
        if name not in _planes:
            raise ImageError(f"There is no mask plane '{name}'; there are {', '.join(_planes)}.")
        return _planes[name]

    @classmethod
    def getPlaneBitMask(cls, names):
        """The value of a plane's bit, or of the bits of a list of planes."""
        value = 0
        for name in [names] if isinstance(names, str) else names:
            value |= 1 << cls.getMaskPlane(name)
        return value

    @staticmethod
    def getNumPlanesMax():
        """How many planes fit: the sign bit of int32 stays clear."""
        return 31

    @staticmethod
    def getNumPlanesUsed():
        """How many planes there are."""
        return len(_planes)

    @staticmethod
    def interpret(value):
        """The names of the planes in a pixel value, joined by commas."""
        return ",".join(name for name, bit in _planes.items() if value >> bit & 1)

    def getAsString(self, x, y):
        """The names of the planes set in a pixel, joined by commas."""
        return self.interpret(self[x, y])

    def clearMaskPlane(self, bit):
        """Clear one plane, by its bit number, in every pixel."""
        self._data &= ~(1 << bit)

    def clearAllMaskPlanes(self):
        """Clear every plane in every pixel."""
        self._data[...] = 0

    def __ior__(self, other):
        self._data |= self._operand(other, "combine")
        return self

    def __iand__(self, other):
        self._data &= self._operand(other, "combine")
        return self

    def __ixor__(self, other):
        self._data ^= self._operand(other, "combine")
        return self
