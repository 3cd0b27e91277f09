# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Detection on scenes whose sources are known."""

import numpy as np
import pytest
import scipy.stats

from lsst.meas.extensions.vae.errors import ImageError
from lsst.meas.extensions.vae.simulation.detection import combined_threshold, detect

SIGMA = 1.6
BANDS = 3


def point(x, y, size):
    rows, columns = np.mgrid[:size, :size]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * SIGMA**2)) / (2 * np.pi * SIGMA**2)


def psfs():
    return np.repeat(point(12, 12, 25)[None], BANDS, axis=0)


def scene(sources, size=120, seed=1):
    """Point sources (x, y, flux) in unit noise; a point's SNR is flux / (2 sqrt(pi) sigma) in each band."""
    images = np.random.default_rng(seed).normal(size=(BANDS, size, size))
    for x, y, flux in sources:
        images += np.broadcast_to(np.asarray(flux, float), (BANDS,))[:, None, None] * point(x, y, size)
    return images, np.ones_like(images)


def flux_of_snr(snr):
    return snr * 2 * np.sqrt(np.pi) * SIGMA


def test_isolated_source_is_found_where_it_is():
    found = detect(*scene([(40.3, 71.8, flux_of_snr(60))]), psfs())
    (parent,) = found.parents
    (peak,) = parent.peaks
    assert (peak.x, peak.y) == pytest.approx((40.3, 71.8), abs=0.15)
    assert peak.snr == pytest.approx(60 * np.sqrt(BANDS), rel=0.05)
    y0, y1, x0, x1 = parent.bbox
    assert parent.mask.shape == (y1 - y0, x1 - x0) and parent.area == (found.segmentation == parent.id).sum()
    np.testing.assert_array_equal(found.segmentation[y0:y1, x0:x1] == parent.id, parent.mask)
    assert found.segmentation[72, 40] == 1 and found.segmentation.dtype == np.int32


@pytest.mark.parametrize("separation", [4.5, 6.0, 9.0])
def test_blend_is_one_parent_with_two_peaks(separation):
    sources = [(50.0, 60.0, flux_of_snr(50)), (50.0 + separation, 60.0, flux_of_snr(80))]
    (parent,) = detect(*scene(sources), psfs()).parents
    assert len(parent.peaks) == 2
    assert parent.peaks[0].snr > parent.peaks[1].snr
    assert (parent.peaks[0].x, parent.peaks[0].y) == pytest.approx(sources[1][:2], abs=0.5)
    assert (parent.peaks[1].x, parent.peaks[1].y) == pytest.approx(sources[0][:2], abs=0.5)


def test_parents_are_numbered_in_raster_order():
    sources = [(90, 90, flux_of_snr(30)), (20, 30, flux_of_snr(10)), (80, 25, flux_of_snr(20))]
    parents = detect(*scene(sources), psfs()).parents
    assert [parent.id for parent in parents] == [1, 2, 3]
    assert [round(parent.peaks[0].y / 5) * 5 for parent in parents] == [25, 30, 90]


def test_large_smooth_galaxy_is_not_shredded():
    rows, columns = np.mgrid[:120, :120]
    images, variance = scene([])
    images += 20 * np.exp(-np.hypot(columns - 60, (rows - 60) / 0.6) / 8)
    (parent,) = detect(images, variance, psfs()).parents
    assert len(parent.peaks) == 1


def test_empty_images_have_no_parents():
    images = np.zeros((BANDS, 50, 60))
    found = detect(images, np.ones_like(images), psfs())
    assert found.parents == [] and found.n_peaks == 0 and not found.segmentation.any()


def test_noise_passes_as_rarely_as_the_threshold_says():
    images, variance = scene([], size=450, seed=3)
    # Correlated over the PSF there are some 450^2 / (4 pi sigma^2) = 6 300 independent places.
    assert detect(images, variance, psfs()).n_peaks <= 1
    places = 450**2 / (4 * np.pi * SIGMA**2)
    expected = places * scipy.stats.norm.sf(3.0)
    snr = detect(images, variance, psfs(), threshold=3.0).snr
    fraction = np.mean(snr > combined_threshold(3.0, BANDS))
    assert fraction == pytest.approx(expected / places, rel=0.5)


def test_combined_threshold_of_one_band_is_the_threshold():
    assert combined_threshold(5.0, 1) == pytest.approx(5.0, rel=1e-6)
    assert 5.0 < combined_threshold(5.0, 3) < combined_threshold(5.0, 6) < 6.5
    assert 30.0 < combined_threshold(30.0, 6) < 32.0


def test_flags_tell_the_bands_that_see_a_peak():
    fluxes = [flux_of_snr(0), flux_of_snr(40), flux_of_snr(40)]
    blend = [(50, 60, fluxes), (59, 60, [flux_of_snr(40), 0, 0])]
    (parent,) = detect(*scene(blend), psfs()).parents
    assert len(parent.peaks) == 2
    flags = {round(peak.x): list(bands) for peak, bands in zip(parent.peaks, parent.peak_bands)}
    assert flags == {50: [False, True, True], 59: [True, False, False]}
    assert parent.footprint_bands.all()


def test_bad_pixels_are_ignored():
    images, variance = scene([(40, 70, flux_of_snr(40))])
    images[:, 20, 30] = np.nan
    images[1, 90:95, 20:30] = np.inf
    variance[2, 50:52] = 0.0
    variance[0, 10, 10] = np.nan
    mask = np.zeros(images.shape, np.uint32)
    mask[:, 100:105, 100:105] = 1
    images[:, 100:105, 100:105] = 1e6
    found = detect(images, variance, psfs(), mask)
    assert np.isfinite(found.snr).all()
    (parent,) = found.parents
    assert (parent.peaks[0].x, parent.peaks[0].y) == pytest.approx((40, 70), abs=0.2)
    # A plane mask serves all bands; without it the bad block is a detection.
    assert len(detect(images, variance, psfs(), mask[0]).parents) == 1
    assert len(detect(images, variance, psfs()).parents) > 1


def test_wholly_masked_image_has_no_parents():
    images, variance = scene([(40, 70, flux_of_snr(40))])
    assert detect(images, variance, psfs(), np.ones(images.shape[1:], bool)).parents == []
    assert detect(np.full_like(images, np.nan), variance, psfs()).parents == []


def test_flags_are_off_in_bands_without_data_at_the_peak():
    images, variance = scene([(40, 60, flux_of_snr(60)), (90, 60, flux_of_snr(60))])
    mask = np.zeros(images.shape, bool)
    # The first source lies 2 pixels within band 0's gap, the second 2 pixels beside that of band 1.
    mask[0, :, 30:43] = mask[1, :, 92:110] = True
    images[mask], variance[mask] = 1e5, np.inf
    found = detect(images, variance, psfs(), mask)
    flags = {round(p.x / 5) * 5: list(b) for q in found.parents for p, b in zip(q.peaks, q.peak_bands)}
    assert flags == {40: [False, True, True], 90: [True, True, True]}
    # Variances alone tell as much as the mask.
    assert detect(images, variance, psfs()).n_peaks == 2
    first = next(parent for parent in found.parents if parent.peaks[0].x < 60)
    peak = first.peaks[0]
    assert (peak.x, peak.y) == pytest.approx((40, 60), abs=0.5)
    np.testing.assert_allclose(sorted(found.centres[:, 1]), (40, 90), atol=3)
    np.testing.assert_allclose(found.centres[:, 0], 60, atol=3)
    assert peak.snr == pytest.approx(60 * np.sqrt(2), rel=0.1)


@pytest.mark.parametrize("pixels", [np.s_[60, 40], np.s_[:, 40], np.s_[60:, 41]])
def test_bad_pixels_and_columns_in_a_galaxy_leave_it_one_peak_with_all_its_flags(pixels):
    images, variance = scene([(40.2, 60.1, flux_of_snr(100))])
    mask = np.zeros(images.shape, bool)
    mask[1][pixels] = True
    images[mask] = -1e4
    (parent,) = detect(images, variance, psfs(), mask).parents
    assert parent.peak_bands.tolist() == [[True, True, True]] and parent.footprint_bands.all()
    # The centre is found without the band's pixels.
    assert (parent.peaks[0].x, parent.peaks[0].y) == pytest.approx((40.2, 60.1), abs=0.5)
    # Bad in all bands, it cannot hold a peak, but the galaxy is still one.
    mask[:] = mask[1]
    images[mask] = -1e4
    (parent,) = detect(images, variance, psfs(), mask).parents
    peaks = [(round(peak.x), round(peak.y)) for peak in parent.peaks]
    assert all(np.hypot(x - 40, y - 60) < 4 for x, y in peaks)


def test_a_saturated_plateau_is_one_peak_in_its_middle():
    rows, columns = np.mgrid[:120, :120]
    star = 3e5 * (1 + ((columns - 60) ** 2 + (rows - 50) ** 2) / 9) ** -2.5
    images, variance = scene([(60.0, 77.0, flux_of_snr(80))])
    images = np.minimum(images + star, 3000.0)
    variance = variance + star / 100
    saturated = images >= 3000.0
    assert 60 < saturated[0].sum() < 800
    plain = detect(images, variance, psfs())
    found = detect(images, variance, psfs(), saturated=saturated)

    def near(detection):
        peaks = [peak for parent in detection.parents for peak in parent.peaks]
        return sum(np.hypot(peak.x - 60, peak.y - 50) < 15 for peak in peaks)

    assert near(plain) > 5 and near(found) == 1
    brightest = found.parents[0].peaks[0]
    assert (brightest.x, brightest.y) == pytest.approx((60, 50), abs=1.5)
    assert detect(images, variance, psfs(), saturated=saturated[0]).n_peaks == found.n_peaks
    with pytest.raises(ImageError, match="Saturated"):
        detect(images, variance, psfs(), saturated=saturated[:2])


def test_one_band_is_enough():
    images, variance = scene([(40.3, 71.8, flux_of_snr(60)), (47.0, 71.8, flux_of_snr(60))])
    mask = np.zeros(images[:1].shape, bool)
    mask[:, 20:30] = True
    images[0, 20:30] = 1e4
    found = detect(images[:1], variance[:1], psfs()[:1], mask)
    assert found.threshold == pytest.approx(5.0, rel=1e-6)
    (parent,) = found.parents
    assert len(parent.peaks) == 2 and parent.peak_bands.tolist() == [[True]] * 2
    assert parent.footprint_bands.tolist() == [True]


def test_opposite_edges_do_not_meet():
    images, variance = scene([], size=64)
    images[:, 30:34, 0] += 1e4
    found = detect(images, variance, psfs())
    assert all(parent.bbox[3] < 30 for parent in found.parents)
    assert abs(found.snr[:, 50:]).max() < 8


def test_source_at_the_edge_is_found():
    found = detect(*scene([(0.4, 60, flux_of_snr(80)), (119, 119, flux_of_snr(80))]), psfs())
    assert sorted(len(parent.peaks) for parent in found.parents) == [1, 1]


def test_shapes_that_do_not_fit_are_refused():
    images, variance = scene([])
    for arguments in (
        (images[0], variance, psfs()),
        (images, variance[:2], psfs()),
        (images, variance, psfs()[:2]),
        (images, variance, psfs()[:, :-1]),
        (images, variance, psfs() * np.nan),
        (images, variance, psfs(), np.zeros((3, 3))),
    ):
        with pytest.raises(ImageError):
            detect(*arguments)


def test_images_smaller_than_the_psf_are_searched():
    y, x = np.mgrid[:63, :63] - 31
    psf = np.exp(-0.5 * (y**2 + x**2) / 4.0)[None]
    image = 100 * psf[:, 28:35, 26:37]
    found = detect(image, np.ones(image.shape), psf)
    assert [(round(peak.y), round(peak.x)) for parent in found.parents for peak in parent.peaks] == [(3, 5)]
    assert not detect(image[:, :1, :1] * 0, np.ones((1, 1, 1)), psf).parents
