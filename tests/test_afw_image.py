# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images, masks and exposures: origins, views, units and mask planes."""

import astropy.units as u
import numpy as np
import pytest

from lsst.meas.extensions.vae.afw import (
    LOCAL,
    Box2I,
    Exposure,
    Extent2I,
    Image,
    KernelPsf,
    Mask,
    MaskedImage,
    Point2I,
)
from lsst.meas.extensions.vae.errors import ImageError


@pytest.fixture
def image():
    return Image(np.arange(1, 31, dtype=np.float32).reshape(5, 6), xy0=Point2I(100, 200), unit="nJy")


def test_image_knows_its_box_in_parent_and_local_coordinates(image):
    assert image.getBBox() == Box2I(Point2I(100, 200), Extent2I(6, 5))
    assert image.getBBox(LOCAL).getMin() == Point2I(0, 0)
    assert (image.getX0(), image.getY0(), image.getWidth(), image.getHeight()) == (100, 200, 6, 5)


def test_slicing_by_a_box_honours_the_origin_and_shares_the_pixels(image):
    cut = image[Box2I(Point2I(102, 201), Extent2I(3, 2))]
    assert cut.getXY0() == Point2I(102, 201) and cut.unit == u.nJy
    assert cut.array[0, 0] == image.array[1, 2]
    cut.array[...] = -1
    assert image.array[1, 2] == -1 and np.shares_memory(cut.array, image.array)
    again = cut[Box2I(Point2I(103, 202), Extent2I(1, 1))]
    again.array[...] = 7
    assert image[103, 202] == 7


def test_pixels_are_x_then_y_in_parent_coordinates(image):
    assert image[101, 203] == image.array[3, 1] == image[Point2I(101, 203)]
    assert image[1, 3, LOCAL] == image.array[3, 1]
    assert image[-1, -1, LOCAL] == image.array[4, 5]
    image[101, 203] = 5.5
    assert image.array[3, 1] == 5.5


def test_slices_are_x_then_y_too(image):
    assert image[101:103, 200:].getBBox() == Box2I(Point2I(101, 200), Extent2I(2, 5))
    assert image[1:3, :2, LOCAL].getBBox() == Box2I(Point2I(101, 200), Extent2I(2, 2))
    assert image[:].array.shape == image.array.shape


@pytest.mark.parametrize(
    "index",
    [
        Box2I(Point2I(99, 200), Extent2I(2, 2)),
        Point2I(106, 200),
        (0, 0),
        (slice(-3, None), slice(None)),
        "r",
        3,
    ],
)
def test_an_index_outside_or_of_another_kind_is_refused(image, index):
    with pytest.raises(ImageError):
        image[index]


def test_boxes_are_assigned_from_images_of_their_size(image):
    patch = Image(Extent2I(2, 2), initialValue=9, unit="nJy")
    image[Box2I(Point2I(100, 200), Extent2I(2, 2))] = patch
    assert np.all(image.array[:2, :2] == 9)
    with pytest.raises(ImageError, match="sizes differ"):
        image[Box2I(Point2I(100, 200), Extent2I(3, 2))] = patch


def test_new_images_are_made_from_boxes_sizes_and_quantities():
    assert Image(Box2I(Point2I(3, 4), Extent2I(6, 5)), initialValue=2).array.sum() == 60
    assert Image(6, 5).array.shape == (5, 6)
    assert Image(np.ones((2, 2)) * u.electron).unit == u.electron
    assert Image(Extent2I(2, 2), dtype=np.float64).dtype == np.float64
    with pytest.raises(ImageError, match="2 dimensions"):
        Image(np.zeros((2, 2, 2)))


def test_array_is_not_copied_unless_asked():
    pixels = np.zeros((3, 3), dtype=np.float32)
    assert np.shares_memory(Image(pixels).array, pixels)
    assert not np.shares_memory(Image(pixels, deep=True).array, pixels)
    assert not np.shares_memory(Image(pixels).clone().array, pixels)


def test_sums_of_different_units_are_refused_naming_both(image):
    other = Image(image.getBBox(), unit="electron")
    for combine in (image.__iadd__, image.__isub__, image.__add__):
        with pytest.raises(ImageError, match=r"'electron'.*'nJy'"):
            combine(other)
    with pytest.raises(ImageError, match=r"no unit.*'nJy'"):
        image += Image(image.getBBox())
    with pytest.raises(ImageError, match=r"'uJy'.*'nJy'"):
        image += 1 * u.uJy
    with pytest.raises(ImageError, match=r"'electron'.*'nJy'"):
        image[image.getBBox()] = other


def test_arithmetic_keeps_and_combines_units(image):
    twice = image + image
    assert twice.unit == u.nJy and np.all(twice.array == 2 * image.array)
    assert (twice * image).unit == u.nJy**2
    assert (twice / image).unit == u.dimensionless_unscaled
    assert (2 * image).unit == u.nJy
    assert image.to("uJy").unit == u.uJy and np.allclose(image.to("uJy").array, image.array / 1000)
    with pytest.raises(ImageError, match="'nJy' does not convert to 'electron'"):
        image.to("electron")


def test_images_of_different_boxes_do_not_add(image):
    with pytest.raises(ImageError, match="different boxes"):
        image += Image(Extent2I(6, 5), unit="nJy")


def test_default_mask_planes_have_afw_bits():
    planes = Mask.getMaskPlaneDict()
    names = ("BAD", "SAT", "INTRP", "CR", "EDGE", "DETECTED", "DETECTED_NEGATIVE", "SUSPECT", "NO_DATA")
    assert [planes[name] for name in names] == list(range(9))
    assert Mask.getPlaneBitMask(["CR", "NO_DATA"]) == 264 and Mask.getPlaneBitMask("SAT") == 2
    assert "NOT_DEBLENDED" in planes


def test_mask_planes_are_added_once_for_all_masks_and_unknown_ones_are_named():
    mask = Mask(Extent2I(3, 3))
    try:
        bit = mask.addMaskPlane("TEST_PLANE")
        assert Mask.addMaskPlane("TEST_PLANE") == bit == Mask(Extent2I(1, 1)).getMaskPlane("TEST_PLANE")
    finally:
        Mask.removeMaskPlane("TEST_PLANE")
    with pytest.raises(ImageError, match=r"'TEST_PLANE'.*BAD"):
        mask.getPlaneBitMask(["BAD", "TEST_PLANE"])


def test_too_many_mask_planes_are_refused():
    added = []
    try:
        with pytest.raises(ImageError, match="No bit is left"):
            for n in range(40):
                Mask.addMaskPlane(f"TEST_{n}")
                added.append(f"TEST_{n}")
    finally:
        for name in added:
            Mask.removeMaskPlane(name)


def test_masks_combine_and_tell_their_planes():
    mask, other = Mask(Extent2I(3, 3)), Mask(Extent2I(3, 3))
    mask[1, 1] = mask.getPlaneBitMask("BAD")
    other[1, 1] = mask.getPlaneBitMask("CR")
    mask |= other
    assert mask.getAsString(1, 1) == "BAD,CR"
    mask.clearMaskPlane(mask.getMaskPlane("BAD"))
    assert mask.getAsString(1, 1) == "CR"
    mask &= 0
    assert not mask.array.any()
    with pytest.raises(ImageError, match="integer pixels"):
        Mask(np.zeros((2, 2), dtype=np.float32))


def test_variance_must_be_in_the_unit_squared(image):
    box = image.getBBox()
    assert MaskedImage(image).variance.unit == u.nJy**2
    assert MaskedImage(image, None, Image(box)).variance.unit == u.nJy**2
    with pytest.raises(ImageError, match=r"'nJy'.*'nJy2'.*'nJy'"):
        MaskedImage(image, None, Image(box, unit="nJy"))


def test_masked_image_needs_parts_of_one_box(image):
    with pytest.raises(ImageError, match="different boxes"):
        MaskedImage(image, Mask(Extent2I(6, 5)))


def test_masked_images_slice_and_add_all_parts(image):
    masked = MaskedImage(image, None, np.full((5, 6), 2.0, dtype=np.float32))
    cut = masked[Box2I(Point2I(102, 201), Extent2I(3, 2))]
    cut.mask.array[...] = 1
    cut.variance.array[...] = 5
    assert masked.mask[102, 201] == 1 and masked.variance[102, 201] == 5
    masked += masked.clone()
    assert masked.variance[102, 201] == 10 and masked.mask[102, 201] == 1
    masked *= 3.0
    assert masked.variance[102, 201] == 90 and masked.variance.unit == u.nJy**2


def test_masked_image_becomes_ccddata_of_the_same_pixels(image):
    masked = MaskedImage(image)
    masked.mask[100, 200] = Mask.getPlaneBitMask("NO_DATA")
    ccd = masked.asCCDData()
    assert ccd.unit == u.nJy and ccd.mask[0, 0] and ccd.mask.sum() == 1
    assert np.shares_memory(ccd.data, image.array)


def test_exposure_cutouts_keep_the_psf_and_share_pixels(image):
    psf = KernelPsf(np.ones((3, 3)))
    exposure = Exposure(MaskedImage(image), psf=psf)
    cut = exposure[Box2I(Point2I(102, 201), Extent2I(3, 2))]
    assert cut.getPsf() is psf and cut.getXY0() == Point2I(102, 201)
    assert np.shares_memory(cut.image.array, image.array)
    assert exposure.getWcs() is None and exposure.getPhotoCalib() is None
    exposure.setXY0(Point2I(0, 0))
    assert exposure.mask.getXY0() == exposure.variance.getXY0() == Point2I(0, 0)
