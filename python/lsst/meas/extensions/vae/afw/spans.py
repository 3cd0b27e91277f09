# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets of pixels as spans along rows, with the names of ``afw.geom.SpanSet``."""

__all__ = ["Span", "SpanSet", "Stencil"]

import enum
import functools
import math
from typing import NamedTuple

import numpy as np

from ..errors import ImageError
from .geometry import Box2I, Extent2I, Point2D, Point2I
from .image import PARENT


class Stencil(enum.Enum):
    """The shapes that sets of pixels grow by."""

    CIRCLE = "CIRCLE"
    BOX = "BOX"
    MANHATTAN = "MANHATTAN"


class Span(NamedTuple):
    """Neighbouring pixels of one row; both ends are included."""

    y: int
    x0: int
    x1: int

    def getY(self):
        """The row."""
        return self.y

    def getX0(self):
        """The first column."""
        return self.x0

    def getX1(self):
        """The last column."""
        return self.x1

    def getWidth(self):
        """The number of pixels."""
        return self.x1 - self.x0 + 1


class SpanSet:
    """A set of pixels, kept as sorted spans; it never changes.

    Parameters
    ----------
    spans : `Box2I`, sequence of `Span` or array [n, 3], optional
        A box, or rows of (y, x0, x1) with both ends included, in parent
        coordinates; they may overlap and come in any order. Empty if not given.
    """

    __slots__ = ("_spans",)

    def __init__(self, spans=None):
        if isinstance(spans, Box2I):
            rows = np.arange(spans.getMinY(), spans.getEndY())
            spans = np.stack([rows, np.full_like(rows, spans.minX), np.full_like(rows, spans.maxX)], axis=1)
        spans = np.array([] if spans is None else spans, dtype=np.int32).reshape(-1, 3)
        if np.any(spans[:, 2] < spans[:, 1]):
            bad = spans[spans[:, 2] < spans[:, 1]][0]
            raise ImageError(f"The span of row {bad[0]} ends at {bad[2]}, before its start at {bad[1]}.")
        self._spans = _normalized(spans)

    @classmethod
    def _fromSorted(cls, spans):
        result = cls.__new__(cls)
        result._spans = spans
        return result

    @classmethod
    def fromArray(cls, array, xy0=(0, 0)):
        """The pixels that are true in an array [y, x] with its corner at ``xy0``."""
        array = np.asarray(array, dtype=bool)
        edges = np.diff(np.pad(array, ((0, 0), (1, 1))).view(np.int8), axis=1)
        rows, starts = np.nonzero(edges == 1)
        ends = np.nonzero(edges == -1)[1]
        return cls._fromSorted(
            np.stack([rows + xy0[1], starts + xy0[0], ends - 1 + xy0[0]], axis=1).astype(np.int32)
        )

    @classmethod
    def fromMask(cls, mask, bitmask=None):
        """The pixels of a `Mask` with any bit (of ``bitmask``) set."""
        array = mask.array if bitmask is None else mask.array & bitmask
        return cls.fromArray(array != 0, mask.getBBox().getMin())

    @classmethod
    def fromShape(cls, r, stencil=Stencil.CIRCLE, offset=(0, 0)):
        """A disc, box or diamond of radius ``r`` pixels about ``offset``."""
        return _shape(r, stencil).shiftedBy(offset[0], offset[1])

    @property
    def spans(self):
        """The spans, int32 [n, 3]: y, x0, x1, sorted (not a copy)."""
        return self._spans

    def __len__(self):
        return len(self._spans)

    def __iter__(self):
        return (Span(*row) for row in self._spans.tolist())

    def __eq__(self, other):
        return np.array_equal(self._spans, other._spans) if isinstance(other, SpanSet) else NotImplemented

    def __hash__(self):
        return hash(self._spans.tobytes())

    def getArea(self):
        """The number of pixels."""
        return int((self._spans[:, 2] - self._spans[:, 1] + 1).sum())

    def getBBox(self):
        """The smallest box with all pixels."""
        if not len(self._spans):
            return Box2I()
        y0, x0 = self._spans[0, 0], self._spans[:, 1].min()
        y1, x1 = self._spans[-1, 0], self._spans[:, 2].max()
        return Box2I(Point2I(x0, y0), Point2I(x1, y1))

    def indices(self):
        """The rows and the columns of all pixels, two int arrays [area]."""
        widths = self._spans[:, 2] - self._spans[:, 1] + 1
        ends = np.cumsum(widths)
        rows = np.repeat(self._spans[:, 0], widths)
        columns = np.arange(ends[-1] if len(ends) else 0) + np.repeat(
            self._spans[:, 1] - (ends - widths), widths
        )
        return rows, columns

    def asArray(self, shape=None, xy0=None):
        """The set as an array.

        Parameters
        ----------
        shape : (`int`, `int`), optional
            (ny, nx); that of the bounding box if not given.
        xy0 : `Point2I`, optional
            The array's corner; that of the bounding box if not given.

        Returns
        -------
        array : `numpy.ndarray`
            bool [y, x]; pixels outside ``shape`` are left out.
        """
        box = self.getBBox()
        xy0 = box.getMin() if xy0 is None else Point2I(xy0)
        shape = (box.height, box.width) if shape is None else tuple(shape)
        result = np.zeros(shape, dtype=bool)
        inside = self.clippedTo(Box2I(xy0, Extent2I(shape[1], shape[0]))) if 0 not in shape else SpanSet()
        rows, columns = inside.indices()
        result[rows - xy0[1], columns - xy0[0]] = True
        return result

    def contains(self, other):
        """Whether a pixel, or every pixel of a set, is in this set."""
        if isinstance(other, SpanSet):
            return other.intersectNot(self).getArea() == 0
        x, y = other
        s = self._spans[self._spans[:, 0] == y]
        return bool(np.any((s[:, 1] <= x) & (x <= s[:, 2])))

    __contains__ = contains

    def isContiguous(self):
        """Whether all pixels hang together along rows and columns."""
        return len(self.split()) <= 1

    def shiftedBy(self, x, y=None):
        """The set moved by (x, y) or an `Extent2I`."""
        x, y = x if y is None else (x, y)
        return SpanSet._fromSorted((self._spans + np.array([y, x, x], dtype=np.int32)).astype(np.int32))

    def clippedTo(self, box):
        """The pixels inside a box."""
        s = self._spans[(self._spans[:, 0] >= box.getMinY()) & (self._spans[:, 0] < box.getEndY())].copy()
        np.maximum(s[:, 1], box.getMinX(), out=s[:, 1])
        np.minimum(s[:, 2], box.getMaxX(), out=s[:, 2])
        return SpanSet._fromSorted(s[s[:, 1] <= s[:, 2]])

    def _with(self, other, operate):
        """Combine with another set as arrays on the box of both."""
        box = self.getBBox().expandedTo(other.getBBox())
        arrays = (s.asArray((box.height, box.width), box.getMin()) for s in (self, other))
        return SpanSet.fromArray(operate(*arrays), box.getMin())

    def union(self, other):
        """The pixels of either set."""
        return SpanSet(np.concatenate([self._spans, other._spans]))

    def intersect(self, other, bitmask=None):
        """The pixels in both sets (or with a bit of ``bitmask`` in a `Mask`)."""
        return self._with(_asSpans(other, bitmask), np.logical_and)

    def intersectNot(self, other, bitmask=None):
        """The pixels of this set that are not in the other."""
        return self._with(_asSpans(other, bitmask), lambda a, b: a & ~b)

    def overlaps(self, other):
        """Whether the sets share a pixel."""
        return self.getBBox().overlaps(other.getBBox()) and self.intersect(other).getArea() > 0

    def dilated(self, r, stencil=Stencil.CIRCLE):
        """The set grown by ``r`` pixels, or by another set."""
        shape = r if isinstance(r, SpanSet) else SpanSet.fromShape(r, stencil)
        # Each span of the shape stretches every span of the set.
        return SpanSet((self._spans[:, np.newaxis, :] + shape._spans[np.newaxis]).reshape(-1, 3))

    def eroded(self, r, stencil=Stencil.CIRCLE):
        """The set shrunk by ``r`` pixels, or by another set."""
        shape = r if isinstance(r, SpanSet) else SpanSet.fromShape(r, stencil)
        reach = shape.getBBox().expandedTo(Point2I(0, 0))
        box = self.getBBox()
        if box.isEmpty():
            return SpanSet()
        full = Box2I(
            box.getMin() + (reach.getMin() - Point2I(0, 0)), box.getMax() + (reach.getMax() - Point2I(0, 0))
        )
        outside = SpanSet(full).intersectNot(self)
        mirrored = SpanSet(-shape._spans[:, [0, 2, 1]])
        return self.intersectNot(outside.dilated(mirrored))

    def findEdgePixels(self):
        """The pixels with a neighbour, along row or column, outside the set."""
        return self.intersectNot(self.eroded(1, Stencil.MANHATTAN))

    def split(self):
        """The contiguous parts, a `list` of `SpanSet`."""
        labels = _connected(self._spans)
        order = np.argsort(labels, kind="stable")
        cuts = np.flatnonzero(np.diff(labels[order])) + 1
        return [SpanSet._fromSorted(self._spans[part]) for part in np.split(order, cuts) if len(part)]

    def computeCentroid(self):
        """The mean position of the pixels, `Point2D`."""
        rows, columns = self.indices()
        return Point2D(columns.mean(), rows.mean())

    def computeShape(self):
        """The second moments (Ixx, Iyy, Ixy) of the pixels [pixel^2].

        As afw, with the 1/12 that the size of the pixels adds.
        """
        y, x = (v - v.mean() for v in self.indices())
        return float((x * x).mean() + 1 / 12), float((y * y).mean() + 1 / 12), float((x * y).mean())

    def _places(self, xy0, shape):
        """The array rows and columns of all pixels, checked to be inside."""
        box = Box2I(Point2I(xy0), Extent2I(shape[-1], shape[-2]))
        if not box.contains(self.getBBox()):
            raise ImageError(
                f"Spans in the box {self.getBBox()} reach out of an image of box {box}; clip them first."
            )
        rows, columns = self.indices()
        return rows - xy0[1], columns - xy0[0]

    def flatten(self, array, xy0=(0, 0)):
        """The pixels of an array [..., y, x] with its corner at ``xy0``, [..., area]."""
        return array[(..., *self._places(xy0, array.shape))]

    def unflatten(self, values, fill=0):
        """The inverse of `flatten`: [..., area] into the bounding box [..., y, x]."""
        box = self.getBBox()
        result = np.full((*values.shape[:-1], box.height, box.width), fill, dtype=values.dtype)
        result[(..., *self._places(box.getMin(), result.shape))] = values
        return result

    def setMask(self, mask, bitmask):
        """Set bits in a `Mask`, whose box has to hold the set."""
        mask.array[self._places(mask.getXY0(), mask.array.shape)] |= mask.array.dtype.type(bitmask)

    def clearMask(self, mask, bitmask):
        """Clear bits in a `Mask`, whose box has to hold the set."""
        mask.array[self._places(mask.getXY0(), mask.array.shape)] &= mask.array.dtype.type(~bitmask)

    def setImage(self, image, value, region=None, doClip=False):
        """Set the pixels of an `Image` (inside ``region``) to one value."""
        target = self if region is None else self.clippedTo(region)
        target = target.clippedTo(image.getBBox(PARENT)) if doClip else target
        image.array[target._places(image.getXY0(), image.array.shape)] = value

    def copyImage(self, source, target):
        """Copy the set's pixels from one `Image` into another."""
        values = self.flatten(source.array, source.getXY0())
        target.array[self._places(target.getXY0(), target.array.shape)] = values

    def __repr__(self):
        return f"<SpanSet of {self.getArea()} pixels in {len(self)} spans, bbox={self.getBBox()}>"


@functools.lru_cache(maxsize=64)
def _shape(r, stencil):
    """A shape about (0, 0)."""
    reach = {
        Stencil.CIRCLE: lambda dy: math.isqrt(r * r - dy * dy),
        Stencil.MANHATTAN: lambda dy: r - abs(dy),
        Stencil.BOX: lambda dy: r,
    }[stencil]
    return SpanSet([(dy, -reach(dy), reach(dy)) for dy in range(-r, r + 1)])


def _asSpans(other, bitmask):
    return other if isinstance(other, SpanSet) else SpanSet.fromMask(other, bitmask)


def _normalized(spans):
    """Spans [n, 3] sorted, with those that overlap or touch merged."""
    if len(spans) < 2:
        return spans
    spans = spans[np.lexsort((spans[:, 1], spans[:, 0]))]
    # Rows are set far apart along one axis, so that one running maximum serves.
    stride = np.int64(spans[:, 2].max()) - spans[:, 1].min() + 3
    base = (spans[:, 0] - np.int64(spans[0, 0])) * stride
    start, reach = base + spans[:, 1], np.maximum.accumulate(base + spans[:, 2])
    first = np.flatnonzero(np.concatenate([[True], start[1:] > reach[:-1] + 1]))
    last = np.append(first[1:], len(spans)) - 1
    ends = reach[last] - base[last]
    return np.stack([spans[first, 0], spans[first, 1], ends], axis=1).astype(np.int32)


def _connected(spans):
    """A label [n] for each sorted span: the same where they hang together."""
    parent = list(range(len(spans)))

    def root(i):
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    rows = spans.tolist()
    above = 0
    for i, (y, x0, x1) in enumerate(rows):
        # Spans of the row above that end before this one starts are done with.
        while above < i and (rows[above][0] < y - 1 or (rows[above][0] == y - 1 and rows[above][2] < x0)):
            above += 1
        k = above
        while k < i and rows[k][0] == y - 1 and rows[k][1] <= x1:
            parent[root(i)] = root(k)
            k += 1
    return np.array([root(i) for i in range(len(rows))], dtype=np.int64)
