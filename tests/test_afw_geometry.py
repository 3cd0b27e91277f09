# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Boxes, points and extents keep the rules of lsst.geom."""

import numpy as np
import pytest

from lsst.meas.extensions.vae.afw import Angle, Box2D, Box2I, Extent2D, Extent2I, Point2D, Point2I


def test_box_of_two_points_includes_both():
    box = Box2I(Point2I(2, 3), Point2I(5, 7))
    assert (box.getWidth(), box.getHeight(), box.getArea()) == (4, 5, 20)
    assert (box.getBeginX(), box.getEndX(), box.getMaxX()) == (2, 6, 5)
    assert (box.getBeginY(), box.getEndY(), box.getMaxY()) == (3, 8, 7)
    assert box == Box2I(Point2I(2, 3), Extent2I(4, 5))
    assert box.getCenter() == Point2D(3.5, 5.0)


def test_centre_of_a_64_pixel_stamp_is_the_crossing_of_its_central_pixels():
    assert Box2I(Point2I(0, 0), Extent2I(64, 64)).getCenter() == Point2D(31.5, 31.5)


def test_swapped_corners_and_negative_dimensions_are_turned_round_or_make_an_empty_box():
    assert Box2I(Point2I(5, 7), Point2I(2, 3)) == Box2I(Point2I(2, 3), Point2I(5, 7))
    assert Box2I(Point2I(5, 7), Point2I(2, 3), invert=False).isEmpty()
    assert Box2I(Point2I(5, 7), Extent2I(-4, -5)) == Box2I(Point2I(2, 3), Point2I(5, 7))
    assert Box2I(Point2I(5, 7), Extent2I(-4, 5), invert=False).isEmpty()
    assert Box2I(Point2I(5, 7), Extent2I(0, 5)).isEmpty()


def test_empty_box_has_no_pixels_and_a_maximum_below_its_minimum():
    box = Box2I()
    assert box.isEmpty() and box.getArea() == 0
    assert box.getMin() == Point2I(0, 0) and box.getMax() == Point2I(-1, -1)
    assert not box.overlaps(Box2I(Point2I(-5, -5), Point2I(5, 5)))


def test_boxes_grow_shrink_shift_clip_and_include_in_place():
    box = Box2I(Point2I(2, 3), Point2I(5, 7))
    box.grow(2)
    assert box == Box2I(Point2I(0, 1), Point2I(7, 9))
    box.grow(-2)
    assert box == Box2I(Point2I(2, 3), Point2I(5, 7))
    box.shift(Extent2I(-2, 10))
    assert box.getMin() == Point2I(0, 13)
    box.clip(Box2I(Point2I(1, 0), Point2I(100, 14)))
    assert box == Box2I(Point2I(1, 13), Point2I(3, 14))
    box.include(Point2I(-4, 20))
    assert box == Box2I(Point2I(-4, 13), Point2I(3, 20))
    box.grow(Extent2I(-4, 0))
    assert box.isEmpty()


def test_boxes_overlap_when_they_share_a_pixel_not_when_they_touch():
    box = Box2I(Point2I(0, 0), Point2I(9, 9))
    assert box.overlaps(Box2I(Point2I(9, 9), Point2I(12, 12)))
    assert not box.overlaps(Box2I(Point2I(10, 0), Point2I(12, 9)))
    assert box.clippedTo(Box2I(Point2I(10, 0), Point2I(12, 9))).isEmpty()


def test_boxes_contain_points_and_boxes():
    box = Box2I(Point2I(0, 0), Point2I(9, 9))
    assert box.contains(Point2I(9, 9)) and Point2I(9, 0) in box and box.contains(3, 3)
    assert not box.contains(Point2I(10, 9))
    assert box.contains(Box2I(Point2I(1, 1), Point2I(9, 9))) and box.contains(Box2I())
    assert not box.contains(Box2I(Point2I(1, 1), Point2I(10, 9)))


def test_slices_of_a_box_are_rows_then_columns():
    rows, columns = Box2I(Point2I(2, 3), Extent2I(4, 5)).getSlices()
    assert np.zeros((20, 20))[rows, columns].shape == (5, 4)
    assert (rows.start, columns.start) == (3, 2)


def test_a_real_box_reaches_half_a_pixel_past_the_centres():
    real = Box2D(Box2I(Point2I(2, 3), Point2I(5, 7)))
    assert real.getMin() == Point2D(1.5, 2.5) and real.getMax() == Point2D(5.5, 7.5)
    assert real.contains(Point2D(1.5, 2.5)) and not real.contains(Point2D(5.5, 5))
    assert Box2I(Box2D(Point2D(1.6, 2.4), Point2D(5.4, 7.6)), Box2I.EXPAND) == Box2I(
        Point2I(2, 2), Point2I(5, 8)
    )
    assert Box2I(Box2D(Point2D(1.6, 2.4), Point2D(5.4, 7.6)), Box2I.SHRINK) == Box2I(
        Point2I(3, 3), Point2I(4, 7)
    )


def test_centred_box_has_the_nearest_centre():
    assert Box2I.makeCenteredBox(Point2D(10.0, 10.0), Extent2I(5, 5)).getCenter() == Point2D(10, 10)
    assert Box2I.makeCenteredBox(Point2D(10.5, 10.5), Extent2I(64, 64)).getCenter() == Point2D(10.5, 10.5)


def test_points_and_extents_combine_as_a_place_and_a_step():
    step = Point2I(5, 7) - Point2I(2, 3)
    assert isinstance(step, Extent2I) and step == Extent2I(3, 4)
    assert isinstance(Point2I(2, 3) + step, Point2I)
    assert isinstance(Point2I(2, 3) + Extent2D(0.5, 0.5), Point2D)
    assert isinstance(step * 2, Extent2I) and step * 0.5 == Extent2D(1.5, 2.0)


def test_whole_points_round_real_points_and_refuse_bare_fractions():
    assert Point2I(Point2D(1.5, 2.4)) == Point2I(2, 2)
    assert Point2I(Point2D(-0.5, -0.6)) == Point2I(0, -1)
    with pytest.raises(TypeError):
        Point2I(1.5, 2)
    assert Point2I(np.int64(3), np.int32(4)) == Point2I(3, 4)


def test_angles_are_floats_in_radians():
    assert Angle(np.pi).asDegrees() == 180.0 and Angle(1.0).asRadians() == 1.0
