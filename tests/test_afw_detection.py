# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Spans, footprints, peaks and heavy footprints."""

import numpy as np
import pytest

from lsst.meas.extensions.vae.afw import (
    Box2I,
    Extent2I,
    Footprint,
    Image,
    Mask,
    MaskedImage,
    PeakCatalog,
    PeakTable,
    Point2D,
    Point2I,
    Span,
    SpanSet,
    Stencil,
    makeHeavyFootprint,
)
from lsst.meas.extensions.vae.errors import ImageError


@pytest.fixture
def blob():
    """A random set of pixels at (100, 50), as an array and a SpanSet."""
    array = np.random.default_rng(3).random((20, 30)) < 0.4
    array[[0, -1]] = array[:, [0, -1]] = True
    return array, SpanSet.fromArray(array, Point2I(100, 50))


def test_spans_round_trip_through_arrays(blob):
    array, spans = blob
    assert np.array_equal(spans.asArray(), array)
    assert spans.getArea() == array.sum() and spans.getBBox() == Box2I(Point2I(100, 50), Extent2I(30, 20))
    rows, columns = spans.indices()
    assert np.array_equal(np.stack([rows - 50, columns - 100]), np.nonzero(array))
    assert np.array_equal(spans.asArray((10, 10), Point2I(105, 55)), array[5:15, 5:15])
    assert spans.asArray((4, 4), Point2I(0, 0)).sum() == 0


def test_spans_that_overlap_touch_or_come_out_of_order_are_merged():
    spans = SpanSet([(5, 3, 6), (4, 0, 2), (5, 7, 9), (4, 1, 8), (5, 20, 21), (4, 2, 3)])
    assert list(spans) == [Span(4, 0, 8), Span(5, 3, 9), Span(5, 20, 21)]
    with pytest.raises(ImageError, match="ends at 2, before its start at 4"):
        SpanSet([(0, 4, 2)])


def test_set_operations_agree_with_arrays(blob):
    _, spans = blob
    other = SpanSet(Box2I(Point2I(110, 45), Extent2I(40, 15)))
    full = Box2I(Point2I(90, 40), Extent2I(70, 40))
    a, b = (s.asArray((40, 70), full.getMin()) for s in (spans, other))
    for name, expected in (("union", a | b), ("intersect", a & b), ("intersectNot", a & ~b)):
        assert np.array_equal(getattr(spans, name)(other).asArray((40, 70), full.getMin()), expected), name
    assert spans.overlaps(other) and not spans.overlaps(SpanSet(Box2I(Point2I(0, 0), Extent2I(5, 5))))
    assert spans.contains(spans.intersect(other)) and not spans.contains(other)
    assert spans.contains(Point2I(100, 50)) and (131, 50) not in spans
    assert np.array_equal(spans.clippedTo(other.getBBox()).asArray((40, 70), full.getMin()), a & b)


@pytest.mark.parametrize("stencil, count", [(Stencil.CIRCLE, 29), (Stencil.BOX, 49), (Stencil.MANHATTAN, 25)])
def test_dilation_of_one_pixel_is_the_stencil_and_erosion_undoes_it(stencil, count):
    pixel = SpanSet([(5, 7, 7)])
    grown = pixel.dilated(3, stencil)
    assert grown == SpanSet.fromShape(3, stencil, (7, 5)) and grown.getArea() == count
    assert grown.eroded(3, stencil) == pixel


def test_dilation_agrees_with_brute_force(blob):
    array, spans = blob
    expected = np.zeros((26, 36), dtype=bool)
    for dy in range(-3, 4):
        for dx in range(-3, 4):
            if dx**2 + dy**2 <= 9:
                expected[3 + dy : 23 + dy, 3 + dx : 33 + dx] |= array
    assert np.array_equal(spans.dilated(3).asArray(), expected)


def test_edge_pixels_have_a_neighbour_outside():
    edge = SpanSet(Box2I(Point2I(0, 0), Extent2I(5, 4))).findEdgePixels()
    assert edge.getArea() == 14 and not edge.contains(Point2I(2, 2))


def test_split_gives_the_parts_that_hang_together_along_rows_and_columns():
    ndimage = pytest.importorskip("scipy.ndimage")
    array = np.random.default_rng(5).random((40, 50)) < 0.55
    parts = SpanSet.fromArray(array).split()
    labels, n = ndimage.label(array)
    assert len(parts) == n
    for part in parts:
        found = np.unique(part.flatten(labels))
        assert len(found) == 1 and part.getArea() == (labels == found[0]).sum()
    assert not SpanSet.fromArray(np.eye(2)).isContiguous()


def test_masks_make_spans_and_spans_set_masks():
    mask = Mask(Box2I(Point2I(10, 20), Extent2I(6, 5)))
    spans = SpanSet([(21, 11, 13), (22, 12, 12)])
    spans.setMask(mask, mask.getPlaneBitMask("DETECTED"))
    spans.shiftedBy(0, 1).setMask(mask, mask.getPlaneBitMask("BAD"))
    assert SpanSet.fromMask(mask, mask.getPlaneBitMask("DETECTED")) == spans
    assert SpanSet.fromMask(mask) == spans.union(spans.shiftedBy(0, 1))
    spans.clearMask(mask, mask.getPlaneBitMask("DETECTED"))
    assert SpanSet.fromMask(mask) == spans.shiftedBy(Extent2I(0, 1))
    with pytest.raises(ImageError, match="clip them first"):
        spans.shiftedBy(100, 0).setMask(mask, 1)


def test_pixels_flatten_and_come_back(blob):
    array, spans = blob
    cube = np.random.default_rng(4).normal(size=(3, 80, 140))
    values = spans.flatten(cube)
    assert values.shape == (3, array.sum())
    assert np.array_equal(spans.unflatten(values), np.where(array, cube[:, 50:70, 100:130], 0))


def test_footprint_has_pixels_peaks_and_afw_names(blob):
    footprint = Footprint(blob[1])
    peak = footprint.addPeak(104.7, 52.2, 10.0)
    footprint.addPeak(120, 60, 30.0)
    assert (peak.getIx(), peak.getIy(), peak["i_x"]) == (104, 52, 104)
    assert peak.getFx() == pytest.approx(104.7, abs=1e-5) and peak.getPeakValue() == 10.0
    assert [p["id"] for p in footprint.peaks] == [1, 2] and footprint.getPeaks() is footprint.peaks
    footprint.sortPeaks()
    assert [p.getPeakValue() for p in footprint.peaks] == [30, 10]
    assert footprint.getArea() == blob[0].sum() and not footprint.isHeavy()
    assert footprint.peaks["i_x"].tolist() == [120, 104]
    footprint.shift(5, -5)
    assert footprint.peaks[0].getI() == Point2I(125, 55) and footprint.getBBox().getMin() == Point2I(105, 45)
    assert footprint.peaks[0].getF() == Point2D(125, 55)


def test_clipping_drops_the_peaks_outside():
    footprint = Footprint(SpanSet(Box2I(Point2I(0, 0), Extent2I(10, 10))))
    footprint.addPeak(2, 2, 1)
    footprint.addPeak(8, 8, 2)
    footprint.clipTo(Box2I(Point2I(0, 0), Extent2I(5, 5)))
    assert footprint.getArea() == 25 and [p.getIx() for p in footprint.peaks] == [2]


def test_split_footprints_keep_their_own_peaks():
    footprint = Footprint(SpanSet([(0, 0, 3), (0, 10, 12)]))
    footprint.addPeak(1, 0, 1)
    footprint.addPeak(11, 0, 2)
    parts = footprint.split()
    assert [[p.getIx() for p in part.peaks] for part in parts] == [[1], [11]]
    assert parts[1].peaks[0].getId() == 2


def test_peaks_take_extra_fields_from_their_schema():
    schema = PeakTable.makeMinimalSchema()
    schema.addField("merge_peak_y", type="Flag", doc="seen in y")
    schema.addField("merge_peak_Y", type="Flag", doc="seen in Y")
    footprint = Footprint(SpanSet([(0, 0, 3)]), schema)
    footprint.addPeak(1, 0, 5).set("merge_peak_Y", True)
    assert footprint.peaks[0]["merge_peak_Y"] is True and footprint.peaks[0]["merge_peak_y"] is False
    with pytest.raises(ImageError, match="1 peaks"):
        footprint.setPeakSchema(PeakTable.makeMinimalSchema())
    assert footprint.peaks.schema != PeakCatalog().schema


@pytest.fixture
def maskedImage():
    rng = np.random.default_rng(6)
    image = Image(rng.normal(size=(40, 60)).astype(np.float32), xy0=Point2I(90, 40), unit="nJy")
    return MaskedImage(
        image, rng.integers(0, 4, (40, 60), dtype=np.int32), rng.random((40, 60), dtype=np.float32)
    )


def test_heavy_footprints_insert_their_pixels_back(blob, maskedImage):
    heavy = makeHeavyFootprint(Footprint(blob[1]), maskedImage)
    assert heavy.isHeavy() and heavy.getImageArray().shape == (heavy.getArea(),)
    target = MaskedImage(maskedImage.getBBox(), unit="nJy")
    heavy.insert(target)
    inside = blob[1].asArray((40, 60), Point2I(90, 40))
    for part in ("image", "mask", "variance"):
        expected = np.where(inside, getattr(maskedImage, part).array, 0)
        assert np.array_equal(getattr(target, part).array, expected), part
    heavy.addTo(target.image)
    assert np.allclose(target.image.array[inside], 2 * maskedImage.image.array[inside])
    heavy.subtractFrom(target.image)
    assert np.allclose(target.image.array[inside], maskedImage.image.array[inside])


def test_heavy_footprint_becomes_an_image_with_a_fill(blob, maskedImage):
    image = makeHeavyFootprint(Footprint(blob[1]), maskedImage).extractImage(fill=-1.0)
    assert image.getBBox() == blob[1].getBBox() and image.unit == maskedImage.unit
    assert np.array_equal(image.array == -1, ~blob[0])
    cut = makeHeavyFootprint(Footprint(blob[1]), maskedImage).extractImage(
        0, Box2I(Point2I(95, 45), Extent2I(9, 9))
    )
    assert cut.array[:5].sum() == 0 and cut.array[5, 5] == maskedImage.image[100, 50]


def test_heavy_footprint_of_another_unit_is_not_inserted(blob, maskedImage):
    heavy = makeHeavyFootprint(Footprint(blob[1]), maskedImage)
    with pytest.raises(ImageError, match=r"'nJy'.*'electron'"):
        heavy.insert(Image(maskedImage.getBBox(), unit="electron"))


def test_dot_of_heavy_footprints_sums_over_common_pixels(maskedImage):
    left = makeHeavyFootprint(Footprint(SpanSet(Box2I(Point2I(95, 45), Extent2I(6, 6)))), maskedImage)
    right = makeHeavyFootprint(Footprint(SpanSet(Box2I(Point2I(98, 47), Extent2I(9, 9)))), maskedImage)
    common = maskedImage.image[Box2I(Point2I(98, 47), Point2I(100, 50))].array.astype(float)
    assert left.dot(right) == right.dot(left) == pytest.approx((common**2).sum())
    apart = makeHeavyFootprint(Footprint(SpanSet(Box2I(Point2I(120, 60), Extent2I(2, 2)))), maskedImage)
    assert left.dot(apart) == 0


def test_heavy_footprint_beyond_the_image_is_refused(maskedImage):
    with pytest.raises(ImageError, match="clip them first"):
        makeHeavyFootprint(Footprint(SpanSet(Box2I(Point2I(80, 45), Extent2I(20, 2)))), maskedImage)
