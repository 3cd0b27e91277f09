# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Multiband cubes: afw's rules of indexing, units, PSFs."""

import astropy.units as u
import numpy as np
import pytest

from lsst.meas.extensions.vae.afw import (
    Box2I,
    Exposure,
    Extent2I,
    GridPsf,
    Image,
    IncompleteDataError,
    KernelPsf,
    MaskedImage,
    MultibandExposure,
    MultibandImage,
    Point2D,
    Point2I,
)
from lsst.meas.extensions.vae.errors import ImageError

BANDS = ("g", "r", "i", "y", "Y")
BOX = Box2I(Point2I(100, 200), Extent2I(12, 10))
CUT = Box2I(Point2I(103, 204), Extent2I(4, 3))


def kernel(size):
    return KernelPsf(np.ones((size, size)))


@pytest.fixture
def exposure():
    cube = np.random.default_rng(1).normal(size=(5, 10, 12)).astype(np.float32)
    mask = np.zeros((5, 10, 12), dtype=np.int32)
    return MultibandExposure.fromArrays(
        BANDS, cube, mask, np.abs(cube), BOX, "nJy", psfs=[kernel(n) for n in (3, 3, 5, 5, 5)]
    )


def test_one_band_by_name_or_in_a_list_gives_the_single_exposure(exposure):
    for single in (exposure["r"], exposure[["r"]], exposure["r", CUT], exposure[["r"], CUT]):
        assert isinstance(single, Exposure) and single.getPsf() is exposure.getPsfs()["r"]
    assert exposure["r"] is exposure.singles[1]
    assert exposure[["r"], CUT].getBBox() == CUT


def test_several_bands_or_a_slice_of_bands_give_a_multiband_exposure(exposure):
    assert exposure[["g", "i"]].bands == ("g", "i")
    assert exposure["r":"y"].bands == ("r", "i")
    assert exposure["r":"i"].bands == ("r",) and isinstance(exposure["r":"i"], MultibandExposure)
    cut = exposure[["i", "g"], CUT]
    assert cut.bands == ("i", "g") and cut.getBBox() == CUT
    assert np.array_equal(cut.image.array, exposure.image.array[[2, 0], 4:7, 3:7])
    assert cut.getPsfs() == {band: exposure.getPsfs()[band] for band in ("i", "g")}


def test_band_names_are_case_sensitive(exposure):
    exposure["Y"].image.set(7)
    assert not np.any(exposure["y"].image.array == 7) and np.all(exposure.image.array[4] == 7)


def test_a_tuple_of_bands_is_refused_with_what_to_write(exposure):
    with pytest.raises(ImageError, match=r"name several bands in a list, \['g', 'r'\]"):
        exposure["g", "r"]


def test_cutouts_are_views_in_parent_coordinates(exposure):
    cut = exposure[:, CUT]
    assert cut.getBBox() == CUT and cut.getXY0() == Point2I(103, 204)
    cut.image.array[...] = 1.5
    cut["r"].mask[103, 204] = 8
    assert np.all(exposure.image.array[:, 4:7, 3:7] == 1.5)
    assert exposure["r"].mask[103, 204] == 8 and exposure.mask.array[1, 4, 3] == 8
    assert np.shares_memory(exposure[["r", "i"], CUT].image.array, exposure.image.array)
    assert np.shares_memory(
        cut.select("r", Box2I(Point2I(104, 205), Extent2I(1, 1))).image.array, cut.image.array
    )


def test_select_always_gives_a_multiband_exposure(exposure):
    part = exposure.select("r", CUT)
    assert (
        isinstance(part, MultibandExposure) and part.bands == ("r",) and part.image.array.shape == (1, 3, 4)
    )
    assert exposure.select(("Y", "g")).bands == ("Y", "g")


def test_exposure_has_a_length_and_iterates_over_its_singles(exposure):
    assert len(exposure) == 5 and list(exposure) == list(exposure.singles)
    assert [(a is b) for a in exposure for b in exposure].count(
        True
    ) == 5  # iterations do not disturb each other


def test_units_travel_with_cubes_singles_and_cutouts(exposure):
    assert exposure.unit == exposure["r"].image.unit == exposure[:, CUT].image.unit == u.nJy
    assert exposure["r"].variance.unit == exposure.variance.unit == u.nJy**2
    assert exposure.image.quantity.unit == u.nJy


def test_bands_in_different_units_do_not_join_and_both_are_named():
    singles = [Exposure(Image(BOX, unit=unit)) for unit in ("nJy", "electron")]
    with pytest.raises(ImageError, match=r"'electron'.*'nJy'"):
        MultibandExposure.fromExposures(("g", "r"), singles)


def test_variance_in_another_unit_is_refused():
    image = MultibandImage(("g",), np.zeros((1, 10, 12)), BOX, "nJy")
    variance = MultibandImage(("g",), np.zeros((1, 10, 12)), BOX, "nJy")
    with pytest.raises(ImageError, match="'nJy2'"):
        MultibandExposure(("g",), image, None, variance)


def test_unknown_bands_boxes_outside_and_wrong_shapes_are_refused(exposure):
    with pytest.raises(ImageError, match="no band 'z'.*g, r, i"):
        exposure["z"]
    with pytest.raises(ImageError, match="not inside the image"):
        exposure[:, Box2I(Point2I(103, 204), Extent2I(40, 3))]
    with pytest.raises(ImageError, match="2 bands"):
        MultibandExposure.fromArrays(("g", "r"), np.zeros((3, 4, 4)))
    with pytest.raises(ImageError, match="does not fit"):
        MultibandExposure.fromArrays(("g",), np.zeros((1, 4, 4)), bbox=BOX)
    with pytest.raises(ImageError, match="different names"):
        MultibandExposure.fromArrays(("g", "g"), np.zeros((2, 4, 4)))


def test_from_exposures_copies_pixels_and_keeps_psfs():
    singles = [Exposure(MaskedImage(Image(BOX, initialValue=n)), psf=kernel(3)) for n in (1, 2)]
    joined = MultibandExposure.fromExposures(("g", "r"), singles)
    assert joined["r"].image[100, 200] == 2 and joined.getPsfs()["g"] is singles[0].getPsf()
    joined.image.array[...] = 0
    assert singles[1].image[100, 200] == 2
    with pytest.raises(ImageError, match="different boxes"):
        MultibandExposure.fromExposures(("g", "r"), [singles[0], Exposure(Extent2I(12, 10))])


def test_from_butler_gets_each_band():
    class Butler:
        def get(self, name, *, band, patch):
            return Exposure(Image(BOX, initialValue={"g": 1, "r": 2}[band] + patch))

    joined = MultibandExposure.fromButler(Butler(), ("g", "r"), "deepCoadd", patch=10)
    assert joined.image.array[:, 0, 0].tolist() == [11, 12]


def test_kernel_images_are_padded_to_one_box(exposure):
    psf = exposure.computePsfKernelImage(Point2D(101.5, 203))
    assert isinstance(psf, MultibandImage) and psf.bands == BANDS
    assert psf.getBBox() == Box2I(Point2I(-2, -2), Point2I(2, 2))
    assert np.allclose(psf.array.sum(axis=(1, 2)), 1)
    assert psf.array[0, 0, 0] == 0 and psf.array[0, 2, 2] == pytest.approx(1 / 9)
    assert np.array_equal(exposure.computePsfKernelImage((101.5, 203)).array, psf.array)


def test_psf_image_lies_at_the_position(exposure):
    assert exposure.computePsfImage(Point2D(105, 207)).getBBox() == Box2I(
        Point2I(103, 205), Point2I(107, 209)
    )
    assert exposure.computePsfImage().getBBox().contains(Point2I(105, 204))


def test_missing_psf_raises_with_the_psfs_of_the_other_bands(exposure):
    exposure["g"].setPsf(None)
    exposure["i"].setPsf(GridPsf([100, 105], [200, 210], np.ones((2, 2, 3, 3))))
    assert exposure.select(("r", "i")).computePsfKernelImage((103, 203)).bands == ("r", "i")
    with pytest.raises(IncompleteDataError) as caught:
        exposure.computePsfKernelImage(Point2D(108, 203))
    assert caught.value.missingBands == ["g", "i"] and caught.value.position == Point2D(108, 203)
    assert caught.value.partialPsf.bands == ("r", "y", "Y")
    assert caught.value.partialPsf.array.shape == (3, 5, 5)


def test_no_psf_at_all_raises_without_a_partial_one(exposure):
    for single in exposure:
        single.setPsf(None)
    with pytest.raises(IncompleteDataError) as caught:
        exposure.computePsfKernelImage((101, 201))
    assert caught.value.missingBands == list(BANDS) and caught.value.partialPsf is None


def test_mask_planes_work_through_the_multiband_mask(exposure):
    bits = exposure.mask.getPlaneBitMask(["BAD", "NO_DATA"])
    exposure.mask["r"][100, 200] = bits
    assert exposure.mask.array[1, 0, 0] == bits == 257
    assert exposure.mask.addMaskPlane("NOT_DEBLENDED") == exposure["g"].mask.getMaskPlane("NOT_DEBLENDED")
    exposure.mask |= exposure.mask.clone()
    exposure.mask &= 1
    assert exposure.mask.array.sum() == 1


def test_parts_of_cubes_can_be_set(exposure):
    image = exposure.image
    image[["g", "i"], CUT] = 3
    image["r", 100, 200] = 9
    image["y":, :] = image["g":"i", :]
    assert np.all(image.array[[0, 2], 4:7, 3:7] == 3) and image.array[1, 0, 0] == 9
    assert np.array_equal(image.array[3:], image.array[:2])
    assert image[["g", "r"], 100, 200].shape == (2,)
    with pytest.raises(ImageError, match="'electron'"):
        image["g"] = Image(BOX, unit="electron")


def test_moving_the_origin_moves_every_part(exposure):
    exposure.setXY0(Point2I(0, 0))
    parts = (
        exposure,
        exposure.image,
        exposure.mask,
        exposure.variance,
        exposure["i"],
        exposure["i"].variance,
    )
    assert all(part.getXY0() == Point2I(0, 0) for part in parts)


def test_cutouts_take_a_copy_of_the_metadata(exposure):
    exposure.metadata["field"] = 3
    cut = exposure[:, CUT]
    cut.metadata["field"] = 4
    assert exposure.metadata == {"field": 3} and exposure.clone().metadata == {"field": 3}


def test_clone_is_independent(exposure):
    copy = exposure.clone()
    copy.image.array[...] = 0
    assert exposure.image.array.any() and copy.getPsfs() == exposure.getPsfs()
