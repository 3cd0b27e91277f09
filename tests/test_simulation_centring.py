# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the stamp's centre is: the target, a pixel's shift, or a detected peak."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from lsst.meas.extensions.vae.errors import CatalogError, VaeError
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.simulation import scene_maker
from lsst.meas.extensions.vae.simulation.centring import (
    BETA_PRIME,
    MAX_PEAK_ERROR,
    brightest_peak,
    peak_error,
    stamp_centre,
    target_offset,
)
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, _scene_maker, simulate_stamps
from lsst.meas.extensions.vae.survey import get_survey

SCALE = 0.2

# The real one, which tests replace.
place = scene_maker.place_annulus


@pytest.fixture(scope="module")
def galaxies():
    return synthetic_galaxies(3000, seed=5)


@pytest.fixture(scope="module")
def survey():
    return get_survey("arcelin2020", "r")


def gaussian(shape, x, y, height, sigma=2.0):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return height * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))


def test_peak_errors_follow_the_papers_beta_prime_distribution():
    # PAPER.md, section 2, rounded there to six digits.
    assert BETA_PRIME == pytest.approx((4.449289, 12.777961, -0.009031, 0.284035), abs=1e-6)
    drawn = peak_error(np.random.default_rng(3), 40_000)
    law = stats.betaprime(*BETA_PRIME)
    for probability in (0.05, 0.25, 0.5, 0.75, 0.95, 0.99):
        below = np.mean(drawn <= law.ppf(probability))
        assert below == pytest.approx(probability, abs=4 * np.sqrt(probability * (1 - probability) / 40_000))
    assert drawn.min() >= 0.0 and drawn.max() <= MAX_PEAK_ERROR == 0.6
    assert np.mean(drawn == MAX_PEAK_ERROR) == pytest.approx(law.sf(0.6), abs=4e-4)


def test_isolated_twin_of_peaks_is_shifted_by_a_pixel_and_a_peak_error():
    settings = SceneSettings(kind="isolated", centring="peaks")
    rng = np.random.default_rng(5)
    offsets = np.array([target_offset(rng, settings, SCALE) for _ in range(4000)])
    # Independent, so the variances of both shifts add up: a uniform side of 0.2" and a radius.
    radius = np.clip(stats.betaprime(*BETA_PRIME).ppf((np.arange(20_000) + 0.5) / 20_000), 0, 0.6)
    expected = 0.2**2 / 12 + np.mean(radius**2) / 2
    np.testing.assert_allclose(offsets.var(axis=0), expected, rtol=0.1)
    assert abs(offsets.mean(axis=0)).max() < 4 * np.sqrt(expected / 4000)
    # Uncorrelated, so the angle is free.
    assert abs(np.corrcoef(offsets.T)[0, 1]) < 4 / np.sqrt(4000)


def test_pixelisation_is_uniform_in_a_square_of_one_pixel():
    rng = np.random.default_rng(5)
    offsets = np.array(
        [target_offset(rng, SceneSettings(centring="pixelisation"), SCALE) for _ in range(2000)]
    )
    assert abs(offsets).max() <= 0.1
    for axis in offsets.T:
        assert stats.kstest(axis, stats.uniform(-0.1, 0.2).cdf).pvalue > 1e-3
    assert target_offset(rng, SceneSettings(), SCALE) == [0.0, 0.0]


def test_brightest_of_the_peaks_above_the_threshold_is_found():
    image = gaussian((64, 64), 20.0, 41.0, 10.0) + gaussian((64, 64), 45.0, 12.0, 30.0)
    centroid, n_peaks = brightest_peak(image, threshold=5.0)
    assert centroid == pytest.approx((45.0, 12.0), abs=1e-6) and n_peaks == 2
    assert brightest_peak(image, threshold=15.0)[1] == 1
    assert brightest_peak(image, threshold=31.0) == (None, 0)
    assert brightest_peak(image, threshold=5.0, max_peaks=1)[1] == 1


def test_centre_of_mass_is_of_the_nine_pixels_about_the_peak():
    image = np.zeros((32, 32))
    image[9:12, 19:22] = [[1, 2, 1], [2, 9, 4], [1, 2, 1]]
    image[25, 25] = 5.0
    (x, y), _ = brightest_peak(image, threshold=3.0)
    assert x == pytest.approx(20 + (6 - 4) / 23) and y == pytest.approx(10)


def test_a_peak_at_the_edge_is_a_peak():
    for corner, second, expected in (((0, 31), (1, 31), (31, 0.25)), ((31, 0), (31, 1), (0.25, 31))):
        image = np.zeros((32, 32))
        image[corner], image[second] = 9.0, 3.0
        assert brightest_peak(image, threshold=5.0)[0] == pytest.approx(expected)


@pytest.mark.parametrize(("peak", "crossing"), [(63.5, 63.5), (63.9, 63.5), (64.1, 64.5), (62.2, 62.5)])
def test_stamps_are_cut_at_the_crossing_nearest_the_peak_or_at_the_peak(peak, crossing):
    assert stamp_centre(peak, 63.5, 128, 64, "pixel") == (pytest.approx(crossing - 63.5), 0.0)
    assert stamp_centre(63.5, peak, 128, 64, "centroid") == (0.0, pytest.approx(peak - 63.5))


@pytest.mark.parametrize(("how", "centre"), [("pixel", (70.5, 61.5)), ("centroid", (70.3, 61.9))])
def test_whole_scene_moves_so_that_the_peak_is_at_the_centre(galaxies, survey, monkeypatch, how, centre):
    settings = SceneSettings(centring="peaks", peak_centring=how, min_galaxies=3, max_galaxies=3)
    maker = _scene_maker(galaxies, survey, settings, "train", None)
    before = []
    monkeypatch.setattr(
        scene_maker, "place_annulus", lambda *args: before.extend(place(*args)) or list(before)
    )
    monkeypatch.setattr(scene_maker, "brightest_peak", lambda *args: ((70.3, 61.9), 2))
    (scene,), (row,), _ = maker.make(11)
    assert row["n_peaks"] == 2
    # The target is the galaxy nearest the peak; pixel 63.5 of the 128 is offset 0.
    peak = (np.array([70.3, 61.9]) - 63.5) * SCALE
    nearest = min(before, key=lambda one: np.hypot(one.x - peak[0], one.y - peak[1]))
    assert scene[0].placed.index == nearest.index and nearest.index != before[0].index
    for one in before:
        (after,) = (drawn.placed for drawn in scene if drawn.placed.index == one.index)
        assert after.x == pytest.approx(one.x - (centre[0] - 63.5) * SCALE)
        assert after.y == pytest.approx(one.y - (centre[1] - 63.5) * SCALE)


def test_detection_sees_the_scene_where_it_is(galaxies, survey, monkeypatch):
    """The image that is searched shows the galaxies at their places."""
    settings = SceneSettings(centring="peaks", max_galaxies=1, mag_limit=23.0)
    maker = _scene_maker(galaxies, survey, settings, "train", None)
    seen, before = [], []
    monkeypatch.setattr(
        scene_maker,
        "place_annulus",
        lambda *args: [before.append(p) or p.moved(1.0, -2.0) for p in place(*args)],
    )
    monkeypatch.setattr(
        scene_maker, "brightest_peak", lambda image, *rest: seen.append(image) or brightest_peak(image, *rest)
    )
    for seed in range(5):
        maker.make(seed)
    for one, image in zip(before, seen, strict=True):
        assert image.shape == (128, 128)
        row, column = np.unravel_index(image.argmax(), image.shape)
        assert abs(column - (63.5 + (one.x + 1.0) / SCALE)) < 1
        assert abs(row - (63.5 + (one.y - 2.0) / SCALE)) < 1


def test_peaks_of_bright_galaxies_are_at_the_central_crossing(galaxies, survey):
    settings = SceneSettings(centring="peaks", mag_limit=24.0)
    sample = simulate_stamps(galaxies, survey, settings, 60, seed=3)
    inside = 0
    for scene in range(60):
        row, column = np.unravel_index(sample.image(scene)[0].argmax(), (64, 64))
        inside += row in (31, 32) and column in (31, 32)
    # Noise moves a peak at times.
    assert inside >= 57
    x, y = np.asarray(sample.truth["x"]), np.asarray(sample.truth["y"])
    assert np.median(np.hypot(x - 31.5, y - 31.5)) < 0.75
    assert (sample.truth["n_peaks"] >= 1).all()


def test_centroid_centring_centres_as_well_as_the_finder_does(galaxies, survey, monkeypatch):
    """The centre of mass of nine pixels is a poor centre; with a better one the target is at the centre."""

    def weigh(image, *rest):
        (x, y), number = brightest_peak(image, *rest)
        row, column = round(y), round(x)
        box = image[row - 12 : row + 13, column - 12 : column + 13]
        rows, columns = np.mgrid[-12:13, -12:13]
        return (column + (columns * box).sum() / box.sum(), row + (rows * box).sum() / box.sum()), number

    monkeypatch.setattr(scene_maker, "brightest_peak", weigh)
    chosen = {"centring": "peaks", "mag_limit": 22.5, "max_galaxies": 1}
    shift = {}
    for how in ("pixel", "centroid"):
        truth = simulate_stamps(
            galaxies, survey, SceneSettings(peak_centring=how, **chosen), 40, seed=3
        ).truth
        shift[how] = abs(np.array([truth["x"], truth["y"]]) - 31.5)
    # Noise in so large a window still moves a few.
    assert np.median(shift["centroid"]) < 0.04
    # Uniform within the pixel's half.
    assert 0.4 < shift["pixel"].max() < 0.6 and shift["pixel"].mean() == pytest.approx(0.25, abs=0.07)


def test_scenes_without_a_peak_are_drawn_again(galaxies, survey, monkeypatch):
    faint = SceneSettings(centring="peaks", max_galaxies=1, detection_threshold=30.0)
    sample = simulate_stamps(galaxies, survey, faint, 20, seed=4)
    noise = np.sqrt(survey["r"].sky_level)
    assert min(sample.image(i)[0].max() for i in range(20)) > 25 * noise
    monkeypatch.setattr(scene_maker, "_MAX_TRIES", 20)
    hopeless = dataclasses.replace(faint, detection_threshold=1e9)
    with pytest.raises(CatalogError, match="centring = 'peaks'"):
        simulate_stamps(galaxies[:50], survey, hopeless, 1, seed=4)


def test_no_target_has_a_neighbour_nearer_than_allowed(galaxies, survey):
    free = simulate_stamps(galaxies, survey, SceneSettings(centring="peaks"), 60, seed=7).truth
    settings = SceneSettings(centring="peaks", min_neighbour_distance=1.0)
    cut = simulate_stamps(galaxies, survey, settings, 60, seed=7)
    assert np.nanmin(free["neighbour_distance"]) < 1.0 <= np.nanmin(cut.truth["neighbour_distance"])
    # Scenes that pass are the same; only the others are drawn again.
    passing = ~(free["neighbour_distance"] < 1.0)
    np.testing.assert_array_equal(free["x"][passing], cut.truth["x"][passing])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"centring": "peak"}, "centring"),
        ({"peak_centring": "corner"}, "peak_centring"),
        ({"detection_size": 127}, "detection_size"),
        ({"detection_size": 8}, "detection_size"),
        ({"detection_threshold": 0.0}, "detection_threshold"),
        ({"max_peaks": 0}, "max_peaks"),
        ({"min_neighbour_distance": -1.0}, "min_neighbour_distance"),
        ({"min_neighbour_distance": 2.0}, "outer_radius"),
        ({"centring": "peaks", "placement": "field"}, "pixelisation"),
    ],
)
def test_impossible_centring_is_refused(wrong, named):
    with pytest.raises(VaeError, match=named):
        SceneSettings(**wrong)
