# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Points, extents and boxes on the pixel grid, with the names of ``lsst.geom``.

Pixel (x, y) has its centre at integers. Boxes of pixels include both their
minimum and their maximum; ``getEnd*`` is one past the maximum, as numpy wants.
"""

__all__ = ["Angle", "Box2D", "Box2I", "Extent2D", "Extent2I", "Point2D", "Point2I"]

import math
import operator


class Angle(float):
    """An angle in radians that is also a plain float."""

    __slots__ = ()

    def asRadians(self):
        """The angle in radians."""
        return float(self)

    def asDegrees(self):
        """The angle in degrees."""
        return math.degrees(self)


class _Pair(tuple):
    """An immutable (x, y) pair; the subclasses say what it means."""

    __slots__ = ()

    _element = staticmethod(lambda value: value)  # makes one element of a number
    _converted = _element  # makes one element of another kind of pair's

    def __new__(cls, x=0, y=None):
        if y is None:
            if type(x) is cls:
                return x
            if not hasattr(x, "__iter__"):
                x = (x, x)  # afw: a single number fills both
            elif isinstance(x, _Pair):
                x = (cls._converted(x[0]), cls._converted(x[1]))
            x, y = x
        return tuple.__new__(cls, (cls._element(x), cls._element(y)))

    def getX(self):
        """The x element."""
        return self[0]

    def getY(self):
        """The y element."""
        return self[1]

    x = property(getX)
    y = property(getY)

    def __repr__(self):
        return f"{type(self).__name__}({self[0]}, {self[1]})"

    def __str__(self):
        return f"({self[0]}, {self[1]})"

    def __hash__(self):
        return tuple.__hash__(self)

    def __eq__(self, other):
        return tuple.__eq__(self, tuple(other)) if isinstance(other, tuple) else NotImplemented

    def __neg__(self):
        return type(self)(-self[0], -self[1])


class _Whole:
    """Elements are integers; a float is refused rather than truncated."""

    __slots__ = ()

    _element = operator.index
    _converted = staticmethod(lambda value: math.floor(value + 0.5))  # as lsst.geom: the nearest, halves up


class _Real:
    """Elements are floats."""

    __slots__ = ()

    _element = float


class _Extent(_Pair):
    __slots__ = ()

    def __add__(self, other):
        if isinstance(other, _Point):
            return other + self
        return _extentLike(self, other)(self[0] + other[0], self[1] + other[1])

    def __sub__(self, other):
        return _extentLike(self, other)(self[0] - other[0], self[1] - other[1])

    def __mul__(self, factor):
        cls = type(self) if isinstance(factor, int) else Extent2D
        return cls(self[0] * factor, self[1] * factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor):
        return Extent2D(self[0] / divisor, self[1] / divisor)

    def __floordiv__(self, divisor):
        return type(self)(self[0] // divisor, self[1] // divisor)


class _Point(_Pair):
    __slots__ = ()

    def __add__(self, extent):
        cls = Point2I if isinstance(self, _Whole) and isinstance(extent, _Whole) else Point2D
        return cls(self[0] + extent[0], self[1] + extent[1])

    def __sub__(self, other):
        whole = isinstance(self, _Whole) and isinstance(other, _Whole)
        if isinstance(other, _Extent):
            cls = Point2I if whole else Point2D
        else:
            cls = Extent2I if whole else Extent2D
        return cls(self[0] - other[0], self[1] - other[1])

    def distanceSquared(self, other):
        """The squared distance to another point [pixels^2]."""
        return float((self[0] - other[0]) ** 2 + (self[1] - other[1]) ** 2)


class Extent2I(_Whole, _Extent):
    """A whole-pixel offset or size."""

    __slots__ = ()


class Extent2D(_Real, _Extent):
    """A real-valued offset or size [pixels]."""

    __slots__ = ()


class Point2I(_Whole, _Point):
    """A pixel. From a `Point2D` it takes the nearest pixel."""

    __slots__ = ()


class Point2D(_Real, _Point):
    """A position [pixels], pixel centres at integers."""

    __slots__ = ()


def _extentLike(a, b):
    """The type of an extent that two extents combine to."""
    return Extent2I if isinstance(a, _Whole) and isinstance(b, _Whole) else Extent2D


class Box2D:
    """A real-valued box, half open: it contains its minimum, not its maximum.

    Made from a `Box2I` it reaches half a pixel past the outermost centres.
    """

    def __init__(self, minimum=None, maximum=None):
        if minimum is None:
            self._min = self._max = None
            return
        if isinstance(minimum, Box2I):
            if minimum.isEmpty():
                self._min = self._max = None
                return
            half = Extent2D(0.5, 0.5)
            minimum, maximum = minimum.getMin() - half, minimum.getMax() + half
        elif isinstance(maximum, _Extent):
            maximum = Point2D(minimum) + maximum
        self._min, self._max = Point2D(minimum), Point2D(maximum)
        if self._min[0] >= self._max[0] or self._min[1] >= self._max[1]:
            self._min = self._max = None

    def isEmpty(self):
        """Whether the box contains nothing."""
        return self._min is None

    def getMin(self):
        """The lower corner, `Point2D` (NaN for an empty box)."""
        return self._min if self._min is not None else Point2D(math.nan, math.nan)

    def getMax(self):
        """The upper corner, `Point2D` (NaN for an empty box)."""
        return self._max if self._max is not None else Point2D(math.nan, math.nan)

    def getDimensions(self):
        """Width and height, `Extent2D`."""
        return Extent2D(0.0, 0.0) if self.isEmpty() else self._max - self._min

    def getCenter(self):
        """The centre, `Point2D`."""
        low, high = self.getMin(), self.getMax()
        return Point2D(0.5 * (low[0] + high[0]), 0.5 * (low[1] + high[1]))

    def contains(self, point):
        """Whether a point lies inside."""
        if self.isEmpty():
            return False
        return self._min[0] <= point[0] < self._max[0] and self._min[1] <= point[1] < self._max[1]

    __contains__ = contains

    def __eq__(self, other):
        if not isinstance(other, Box2D):
            return NotImplemented
        return (self._min, self._max) == (other._min, other._max)

    def __hash__(self):
        return hash((self._min, self._max))

    def __repr__(self):
        return "Box2D()" if self.isEmpty() else f"Box2D({self._min!r}, {self._max!r})"


class Box2I:
    """A box of pixels, both corners included.

    Parameters
    ----------
    minimum : `Point2I` or `Box2I` or `Box2D`
        The lower corner, or a box to copy (a `Box2D` by ``maximum`` =
        `Box2I.EXPAND` or `Box2I.SHRINK`).
    maximum : `Point2I` or `Extent2I`
        The upper corner (included) or the dimensions: the type decides.
    invert : `bool`
        Turn a box with swapped corners or negative dimensions round; with
        `False` it becomes empty.
    """

    EXPAND = "EXPAND"
    SHRINK = "SHRINK"

    __slots__ = ("_dimensions", "_min")

    def __init__(self, minimum=None, maximum=None, invert=True):
        if minimum is None:
            self._set((0, 0), (0, 0))
        elif isinstance(minimum, Box2I):
            self._set(minimum._min, minimum._dimensions)
        elif isinstance(minimum, Box2D):
            self._fromReal(minimum, maximum or self.EXPAND)
        elif isinstance(maximum, _Extent):
            self._fromCorner(Point2I(minimum), Extent2I(maximum), invert)
        else:
            low, high = Point2I(minimum), Point2I(maximum)
            if invert and (low[0] > high[0] or low[1] > high[1]):
                low, high = tuple(map(min, zip(low, high))), tuple(map(max, zip(low, high)))
            self._set(low, (high[0] - low[0] + 1, high[1] - low[1] + 1))

    def _set(self, corner, dimensions):
        if dimensions[0] <= 0 or dimensions[1] <= 0:
            corner, dimensions = (0, 0), (0, 0)
        self._min, self._dimensions = Point2I(corner), Extent2I(dimensions)

    def _fromCorner(self, corner, dimensions, invert):
        if invert and min(dimensions) < 0 and 0 not in dimensions:
            corner = Point2I(*(c + d + 1 if d < 0 else c for c, d in zip(corner, dimensions)))
            dimensions = Extent2I(*map(abs, dimensions))
        self._set(corner, dimensions)

    def _fromReal(self, box, edge):
        if box.isEmpty():
            self._set((0, 0), (0, 0))
            return
        shift = -0.5 if edge == self.EXPAND else 0.5
        low = [math.ceil(v + shift) for v in box.getMin()]
        high = [math.floor(v - shift) for v in box.getMax()]
        self._set(low, (high[0] - low[0] + 1, high[1] - low[1] + 1))

    @classmethod
    def makeCenteredBox(cls, center, size):
        """The box of ``size`` pixels whose centre is nearest to ``center``."""
        size = Extent2I(size)
        corner = Point2D(center[0] - 0.5 * size[0] + 0.5, center[1] - 0.5 * size[1] + 0.5)
        return cls(Point2I(corner), size, invert=False)

    def getMin(self):
        """The lower corner, `Point2I`."""
        return self._min

    def getMax(self):
        """The upper corner, included, `Point2I`."""
        return Point2I(self.getMaxX(), self.getMaxY())

    def getBegin(self):
        """The lower corner, `Point2I`."""
        return self._min

    def getEnd(self):
        """One past the upper corner, `Point2I`."""
        return self._min + self._dimensions

    def getDimensions(self):
        """Width and height, `Extent2I`."""
        return self._dimensions

    def getMinX(self):
        """The first column."""
        return self._min[0]

    def getMinY(self):
        """The first row."""
        return self._min[1]

    def getMaxX(self):
        """The last column."""
        return self._min[0] + self._dimensions[0] - 1

    def getMaxY(self):
        """The last row."""
        return self._min[1] + self._dimensions[1] - 1

    def getEndX(self):
        """One past the last column."""
        return self._min[0] + self._dimensions[0]

    def getEndY(self):
        """One past the last row."""
        return self._min[1] + self._dimensions[1]

    def getWidth(self):
        """The number of columns."""
        return self._dimensions[0]

    def getHeight(self):
        """The number of rows."""
        return self._dimensions[1]

    def getArea(self):
        """The number of pixels."""
        return self._dimensions[0] * self._dimensions[1]

    def getCenterX(self):
        """The centre's x."""
        return 0.5 * (self.getMinX() + self.getMaxX())

    def getCenterY(self):
        """The centre's y."""
        return 0.5 * (self.getMinY() + self.getMaxY())

    def getCenter(self):
        """The centre, `Point2D`: half-way between pixels for even sizes."""
        return Point2D(self.getCenterX(), self.getCenterY())

    def getSlices(self):
        """The (y, x) slices of this box in an array that starts at (0, 0)."""
        return slice(self.getMinY(), self.getEndY()), slice(self.getMinX(), self.getEndX())

    def getCorners(self):
        """The four corner pixels, counter-clockwise from the minimum."""
        low, high = self.getMin(), self.getMax()
        return [low, Point2I(high[0], low[1]), high, Point2I(low[0], high[1])]

    getBeginX, getBeginY = getMinX, getMinY
    minX, minY, maxX, maxY = property(getMinX), property(getMinY), property(getMaxX), property(getMaxY)
    beginX, beginY, endX, endY = property(getMinX), property(getMinY), property(getEndX), property(getEndY)
    width, height, area = property(getWidth), property(getHeight), property(getArea)
    centerX, centerY, slices = property(getCenterX), property(getCenterY), property(getSlices)

    def isEmpty(self):
        """Whether the box has no pixel."""
        return self._dimensions[0] == 0

    def contains(self, other, y=None):
        """Whether a pixel, or the whole of a box, lies inside."""
        if isinstance(other, Box2I):
            if other.isEmpty():
                return True
            return self.contains(other.getMin()) and self.contains(other.getMax())
        x, y = (other, y) if y is not None else other
        return self.getMinX() <= x < self.getEndX() and self.getMinY() <= y < self.getEndY()

    __contains__ = contains

    def overlaps(self, other):
        """Whether the boxes share a pixel."""
        return not self.clippedTo(other).isEmpty()

    intersects = overlaps

    def isDisjointFrom(self, other):
        """Whether the boxes share no pixel."""
        return not self.overlaps(other)

    def dilatedBy(self, buffer):
        """The box grown by ``buffer`` (int or `Extent2I`) on every side."""
        if self.isEmpty():
            return Box2I()
        buffer = Extent2I(buffer)
        return Box2I(self.getMin() - buffer, self.getMax() + buffer, invert=False)

    def erodedBy(self, buffer):
        """The box shrunk by ``buffer`` on every side."""
        return self.dilatedBy(-Extent2I(buffer))

    def shiftedBy(self, offset):
        """The box moved by an `Extent2I`."""
        return Box2I(self) if self.isEmpty() else Box2I(self._min + Extent2I(offset), self._dimensions)

    def expandedTo(self, other):
        """The smallest box with this one and a pixel or another box."""
        other = other if isinstance(other, Box2I) else Box2I(other, Extent2I(1, 1))
        if self.isEmpty() or other.isEmpty():
            return Box2I(other if self.isEmpty() else self)
        return Box2I(
            Point2I(*map(min, zip(self.getMin(), other.getMin()))),
            Point2I(*map(max, zip(self.getMax(), other.getMax()))),
        )

    def clippedTo(self, other):
        """The pixels that both boxes have (maybe none)."""
        if self.isEmpty() or other.isEmpty():
            return Box2I()
        return Box2I(
            Point2I(*map(max, zip(self.getMin(), other.getMin()))),
            Point2I(*map(min, zip(self.getMax(), other.getMax()))),
            invert=False,
        )

    def _become(self, other):
        self._min, self._dimensions = other._min, other._dimensions

    def grow(self, buffer):
        """Grow in place; see `dilatedBy`."""
        self._become(self.dilatedBy(buffer))

    def shift(self, offset):
        """Move in place; see `shiftedBy`."""
        self._become(self.shiftedBy(offset))

    def include(self, other):
        """Expand in place; see `expandedTo`."""
        self._become(self.expandedTo(other))

    def clip(self, other):
        """Clip in place; see `clippedTo`."""
        self._become(self.clippedTo(other))

    def __eq__(self, other):
        if not isinstance(other, Box2I):
            return NotImplemented
        return self._min == other._min and self._dimensions == other._dimensions

    def __hash__(self):
        return hash((self._min, self._dimensions))

    def __repr__(self):
        return f"Box2I(corner={self._min!r}, dimensions={self._dimensions!r})"

    def __str__(self):
        return f"(minimum={self.getMin()}, maximum={self.getMax()})"
