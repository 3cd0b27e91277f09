# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Defects of fields: where they are, what they do to pixels, and that detection honours them."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage

from lsst.meas.extensions.vae.errors import ImageError, SurveyError, VaeError
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.simulation.defects import (
    MASK_PLANES,
    flagged,
    full_well,
    plane_bit,
    set_detected,
)
from lsst.meas.extensions.vae.simulation.detection import detect
from lsst.meas.extensions.vae.simulation.fields import FieldSettings, simulate_field
from lsst.meas.extensions.vae.survey import get_survey

CLEAN = FieldSettings(size=(240, 300), density_per_arcmin2=60.0, star_fraction=0.2)


@pytest.fixture(scope="module")
def survey():
    return get_survey("lsst10yr", "gri")


@pytest.fixture(scope="module")
def galaxies():
    return synthetic_galaxies(1000, seed=5)


@pytest.fixture(scope="module")
def simulate(galaxies, survey):
    def one(**defects):
        return simulate_field(galaxies, survey, replace(CLEAN, **defects), seed=2)

    return one


@pytest.fixture(scope="module")
def clean(simulate):
    return simulate()


def test_there_are_no_defects_unless_asked_for(clean):
    assert not clean.mask.any() and np.isfinite(clean.variance).all()
    assert all(clean.mask_planes[name] == bit for name, bit in MASK_PLANES.items())


def test_defects_change_flagged_pixels_only(clean, simulate):
    field = simulate(
        saturation=200.0, bad_pixels=1e-3, bad_columns=10.0, edge_width=3, gap_width=6, missing_corner=0.2
    )
    changed = field.images != clean.images
    assert changed.any() and not (changed & ~flagged(field.mask, ["BAD", "SAT", "NO_DATA"])).any()
    changed = field.variance != clean.variance
    np.testing.assert_array_equal(changed, flagged(field.mask, "NO_DATA"))
    assert field.truth["flux_r"].sum() == clean.truth["flux_r"].sum()
    again = simulate(
        saturation=200.0, bad_pixels=1e-3, bad_columns=10.0, edge_width=3, gap_width=6, missing_corner=0.2
    )
    np.testing.assert_array_equal(again.images, field.images)
    np.testing.assert_array_equal(again.mask, field.mask)


def test_edge_is_the_border_in_all_bands_and_changes_no_pixel(clean, simulate):
    field = simulate(edge_width=5)
    expected = np.ones((240, 300), bool)
    expected[5:-5, 5:-5] = False
    for plane in field.mask:
        np.testing.assert_array_equal(plane, expected * plane_bit("EDGE"))
    np.testing.assert_array_equal(field.images, clean.images)


def test_saturated_pixels_are_cut_at_the_full_well_and_the_plane_grows_by_one_pixel(clean, simulate):
    levels = (150.0, 200.0, np.inf)
    field = simulate(saturation=levels)
    for image, mask, before, level in zip(field.images, field.mask, clean.images, levels):
        full = before >= level
        np.testing.assert_allclose(image[full], level)
        grown = scipy.ndimage.binary_dilation(full, np.ones((3, 3)))
        np.testing.assert_array_equal(mask, grown * plane_bit("SAT"))
    assert flagged(field.mask[:2]).sum() == 0 and flagged(field.mask[1], "SAT").sum() > 9


def test_bad_pixels_are_hot_or_dead_and_as_many_as_asked_for(clean, simulate, survey):
    field = simulate(bad_pixels=0.01)
    bad = flagged(field.mask, "BAD")
    np.testing.assert_array_equal(field.mask, bad * plane_bit("BAD"))
    assert bad.mean() == pytest.approx(0.01, abs=5 * np.sqrt(0.01 / bad.size))
    # Bands differ.
    assert (bad[0] & bad[1]).mean() < 0.001
    for image, where, band in zip(field.images, bad, survey.bands):
        sigma = np.sqrt(band.sky_level) / band.electrons_per_unit
        values = image[where] / sigma
        # No electrons at all, as deep below the sky as the square root of its electrons.
        dead = np.isclose(values, -np.sqrt(band.sky_level), rtol=1e-5)
        assert 0.4 < dead.mean() < 0.6
        assert (values[~dead] >= 9.99).all() and (values[~dead] <= 100.01).all()


def test_bad_columns_run_to_the_end_of_the_image(simulate):
    field = simulate(bad_columns=20.0)
    bad = flagged(field.mask, "BAD")
    columns = bad.any(axis=1)
    assert columns.sum() == pytest.approx(3 * 300 * 0.02, abs=5 * np.sqrt(18))
    assert bad[:, -1][columns].all()
    # Below the first bad row there is none.
    assert (np.diff(bad.astype(int), axis=1) >= 0).all()
    for band, column in zip(*np.nonzero(columns)):
        assert len(np.unique(field.images[band, bad[band, :, column], column])) == 1


def test_gap_is_a_stripe_without_data_at_each_bands_own_place(simulate):
    field = simulate(gap_width=7)
    missing = flagged(field.mask, "NO_DATA")
    np.testing.assert_array_equal(field.mask, missing * plane_bit("NO_DATA"))
    for plane in missing:
        assert plane.sum() in (7 * 240, 7 * 300)
        lines = plane.all(axis=0) if plane.all(axis=0).any() else plane.all(axis=1)
        assert np.ptp(np.flatnonzero(lines)) == 6
    assert not missing.all(axis=0).all()
    assert (field.images[missing] == 0).all() and np.isposinf(field.variance[missing]).all()
    assert np.isfinite(field.variance[~missing]).all()


def test_missing_corner_is_a_triangle_in_all_bands(simulate):
    field = simulate(missing_corner=0.4)
    missing = flagged(field.mask, "NO_DATA")
    assert (missing == missing[0]).all()
    assert missing[0].mean() == pytest.approx(0.4**2 / 2, rel=0.02)
    corners = missing[0][[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.sum() == 1
    rows, columns = missing[0].any(axis=1).sum(), missing[0].any(axis=0).sum()
    assert (rows, columns) == pytest.approx((0.4 * 240, 0.4 * 300), abs=2)


def test_nothing_is_detected_where_there_is_no_data(clean, simulate):
    field = simulate(bad_pixels=2e-3, bad_columns=5.0, gap_width=12, missing_corner=0.4)
    ignored = flagged(field.mask)
    found = detect(field.images, field.variance, field.psfs, ignored)
    before = detect(clean.images, clean.variance, clean.psfs)
    peaks = np.array([(peak.y, peak.x) for parent in found.parents for peak in parent.peaks])
    assert len(peaks) > 20
    pixels = np.clip(np.round(peaks).astype(int), 0, (239, 299))
    assert not ignored.all(axis=0)[tuple(pixels.T)].any()
    # All peaks were there before, too: hot and dead pixels and gaps made none.
    old = np.array([(peak.y, peak.x) for parent in before.parents for peak in parent.peaks])
    distance = np.hypot(*(peaks[:, None] - old[None]).T).min(axis=0)
    assert (distance < 2.5).mean() > 0.97
    # And without the mask they do.
    assert detect(field.images, field.variance, field.psfs).n_peaks > found.n_peaks + 50
    # A band does not see what lies deep in its gap.
    for parent in found.parents:
        for peak, bands in zip(parent.peaks, parent.peak_bands):
            y, x = round(peak.y), round(peak.x)
            for band in np.flatnonzero(bands):
                around = ignored[band, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
                assert not around.all()


def test_detected_plane_is_the_footprints_of_each_band(clean):
    detection = detect(clean.images, clean.variance, clean.psfs)
    mask = np.full(clean.mask.shape, plane_bit("EDGE") | plane_bit("DETECTED"), np.int32)
    set_detected(mask, detection)
    expected = np.zeros(mask.shape, bool)
    for parent in detection.parents:
        for band in np.flatnonzero(parent.footprint_bands):
            y0, y1, x0, x1 = parent.bbox
            expected[band, y0:y1, x0:x1] |= parent.mask
    np.testing.assert_array_equal(flagged(mask, "DETECTED"), expected)
    assert flagged(mask, "EDGE").all() and mask.dtype == np.int32
    assert (expected[0] != expected[2]).any()
    set_detected(mask, detect(np.zeros_like(clean.images), clean.variance, clean.psfs))
    assert not flagged(mask, "DETECTED").any()
    with pytest.raises(ImageError, match="Mask has shape"):
        set_detected(mask[:2], detection)


def test_full_wells_that_do_not_fit_the_bands_are_refused(galaxies, survey):
    np.testing.assert_array_equal(full_well(None, survey), np.inf)
    np.testing.assert_array_equal(full_well(5.0, survey), [5.0] * 3)
    with pytest.raises(SurveyError, match="2 levels for the 3 bands"):
        simulate_field(galaxies, survey, FieldSettings(size=64, saturation=(1.0, 2.0)), seed=1)


def test_unknown_planes_are_refused():
    with pytest.raises(ImageError, match="'DETECT'"):
        flagged(np.zeros((3, 3), int), "DETECT")


@pytest.mark.parametrize(
    "wrong",
    [
        {"bad_pixels": 1.5},
        {"bad_columns": -1.0},
        {"edge_width": 40},
        {"gap_width": 64},
        {"missing_corner": 2.0},
        {"saturation": (3.0, 0.0)},
    ],
)
def test_defects_out_of_range_are_refused(wrong):
    with pytest.raises(VaeError, match=next(iter(wrong))):
        FieldSettings(size=64, **wrong)
