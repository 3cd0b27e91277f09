# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenes on stamps: who is where, what the truth says, and reproducibility."""

import os
import tracemalloc
from pathlib import Path

import galsim
import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import CatalogError, ShardError, VaeError
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.simulation import metrics, scenes
from lsst.meas.extensions.vae.simulation.scenes import (
    SceneSettings,
    _Chunk,
    _Collector,
    draw_again,
    simulate_stamps,
)
from lsst.meas.extensions.vae.simulation.shards import PROFILE_SCALE
from lsst.meas.extensions.vae.survey import PsfModel, get_survey

ARRAYS = ("profiles", "fluxes", "scene", "galaxy", "band_profile", "psf")

SHARED = Path(os.environ.get("MEAS_EXTENSIONS_VAE_SHARED") or Path(__file__).parents[2] / "shared")
REAL = SHARED / "data/cosmos_btk_extension/real_galaxy_catalog_26_extension_example.fits"
needs_real = pytest.mark.skipif(not REAL.is_file(), reason="the shared galaxies with images are absent")


@pytest.fixture(scope="module")
def galaxies():
    return synthetic_galaxies(3000, seed=5)


@pytest.fixture(scope="module")
def survey():
    return get_survey("arcelin2020", "gri")


@pytest.fixture(scope="module")
def paper_scenes(galaxies, survey):
    return simulate_stamps(galaxies, survey, SceneSettings(), 150, seed=3)


def same_bits(one, other):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for table in ("truth", "objects"):
        one_table, other_table = getattr(one, table), getattr(other, table)
        assert one_table.colnames == other_table.colnames
        for name in one_table.colnames:
            np.testing.assert_array_equal(one_table[name], other_table[name])


def centroid(image):
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    image = image.astype(float)
    return (columns * image).sum() / image.sum(), (rows * image).sum() / image.sum()


def galaxy_images(sample, scene, band):
    """Image of each galaxy in one band, target first."""
    rows = sample.rows(scene)
    profiles = sample.profiles[rows, sample.band_profile[band]].astype(float) / PROFILE_SCALE
    images = sample.fluxes[rows, band, None, None] * profiles
    numbers = sample.galaxy[rows]
    return [images[numbers == number].sum(axis=0) for number in np.unique(numbers)]


def test_number_of_galaxies_is_uniform_from_one_to_four(paper_scenes):
    counts = np.bincount(paper_scenes.truth["n_galaxies"], minlength=5)
    assert counts[0] == 0 and len(counts) == 5
    assert counts[1:].min() > 20


def test_target_is_the_brightest_in_the_reference_band(paper_scenes):
    for scene in range(paper_scenes.n_scenes):
        rows = paper_scenes.rows(scene)
        flux = np.bincount(paper_scenes.galaxy[rows], paper_scenes.fluxes[rows, 1])
        assert flux.argmax() == 0


def test_target_is_at_the_centre_and_neighbours_in_the_annulus(paper_scenes):
    truth = paper_scenes.truth
    np.testing.assert_array_equal(truth["x"], 31.5)
    np.testing.assert_array_equal(truth["y"], 31.5)
    distance = truth["neighbour_distance"][truth["n_galaxies"] > 1]
    assert distance.min() >= 0.325 and distance.max() <= 2.0
    assert np.isnan(truth["neighbour_distance"][truth["n_galaxies"] == 1]).all()
    for scene in range(40):
        target, *neighbours = galaxy_images(paper_scenes, scene, 1)
        assert centroid(target) == pytest.approx((31.5, 31.5), abs=0.1)
        for neighbour in neighbours:
            x, y = centroid(neighbour)
            assert 0.325 - 0.03 < 0.2 * np.hypot(x - 31.5, y - 31.5) < 2.0 + 0.03


def test_neighbours_are_uniform_in_area(galaxies, survey):
    settings = SceneSettings(min_galaxies=2, max_galaxies=2)
    truth = simulate_stamps(galaxies, survey.select("r"), settings, 400, seed=9).truth
    middle = np.sqrt((0.325**2 + 2.0**2) / 2)
    inner = np.mean(truth["neighbour_distance"] < middle)
    assert inner == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(400))


def test_every_galaxy_passes_the_cut(galaxies, survey):
    limit = 25.5
    sample = simulate_stamps(galaxies, survey, SceneSettings(mag_limit=limit), 60, seed=1)
    assert sample.truth["r_mag"].max() < limit
    band = survey["r"]
    for scene in range(sample.n_scenes):
        rows = sample.rows(scene)
        electrons = np.bincount(sample.galaxy[rows], sample.fluxes[rows, 1])
        magnitudes = band.zeropoint - 2.5 * np.log10(electrons / band.exposure_time / band.area_ratio)
        assert magnitudes.max() < limit + 1e-5


def test_truth_agrees_with_the_stored_images(paper_scenes, survey):
    band = survey["r"]
    for scene in range(30):
        row = paper_scenes.truth[scene]
        target, *neighbours = galaxy_images(paper_scenes, scene, 1)
        np.testing.assert_allclose(
            paper_scenes.image(scene, "target")[1], target, rtol=1e-4, atol=1e-4 * target.max()
        )
        snr = np.sqrt((target**2 / (target + band.sky_level)).sum())
        assert row["snr"] == pytest.approx(snr, rel=1e-3) and row["snr"] == row["snr_r"]
        total = target + sum(neighbours)
        np.testing.assert_allclose(paper_scenes.image(scene)[1], total, rtol=1e-4, atol=1e-4 * total.max())
        b_tot = 1 - (target**2).sum() / (target * total).sum()
        assert row["b_tot"] == pytest.approx(b_tot, abs=1e-4)
        if neighbours:
            b = [(target * n).sum() / np.sqrt((target**2).sum() * (n**2).sum()) for n in neighbours]
            assert np.min(np.abs(np.array(b) - row["b_closest"])) < 1e-4
            assert row["delta_mag_c"] >= 0
        else:
            assert row["b_closest"] == 0 and np.isnan(row["delta_mag_c"])


def test_shape_failures_are_flagged_and_the_rest_are_ellipticities(paper_scenes):
    truth = paper_scenes.truth
    failed = np.asarray(truth["hsm_failed"])
    assert failed.mean() < 0.1
    assert np.isnan(truth["e1"][failed]).all()
    assert (np.hypot(truth["e1"], truth["e2"])[~failed] <= 1).all()
    # Random rotations leave no preferred direction.
    assert abs(np.mean(truth["e1"][~failed])) < 4 * np.std(truth["e1"][~failed]) / np.sqrt(150)


def test_isolated_scenes_hold_the_target_alone(galaxies, survey):
    sample = simulate_stamps(galaxies, survey, SceneSettings(kind="isolated"), 20, seed=2)
    assert sample.kind == "isolated" and (sample.galaxy == 0).all()
    assert (sample.truth["b_tot"] == 0).all() and (sample.truth["n_galaxies"] == 1).all()


def test_pixelisation_shifts_within_one_pixel(galaxies, survey):
    settings = SceneSettings(kind="isolated", centring="pixelisation")
    sample = simulate_stamps(galaxies, survey.select("r"), settings, 60, seed=2)
    shift = np.stack([sample.truth["x"], sample.truth["y"]]) - 31.5
    assert abs(shift).max() <= 0.5 and abs(shift).max(axis=1).min() > 0.4
    for scene in range(10):
        assert centroid(sample.image(scene)[0]) == pytest.approx(
            (sample.truth["x"][scene], sample.truth["y"][scene]), abs=0.1
        )


def test_field_scenes_have_a_target_that_is_a_peak(galaxies):
    survey = get_survey("lsst10yr", "gri")
    settings = SceneSettings(
        placement="field", mag_limit=None, centring="pixelisation", target_snr_min=5.0, close_fraction=1.0
    )
    sample = simulate_stamps(galaxies, survey, settings, 25, seed=4)
    assert sample.truth["snr"].min() >= 5
    assert sample.truth["n_galaxies"].max() > 4
    # Unlike the paper's, targets may be fainter than a neighbour.
    assert np.nanmin(sample.truth["delta_mag_c"]) < 0
    noise = np.array([np.sqrt(band.sky_level) / band.electrons_per_unit for band in survey.bands])
    for scene, row in enumerate(sample.truth):
        if row["n_galaxies"] == 1:
            continue
        scene_snr = (sample.image(scene) / noise[:, None, None]).sum(axis=0)
        rows, columns = np.nonzero(
            scene_snr[1:-1, 1:-1]
            >= np.max(
                [np.roll(scene_snr, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)], axis=0
            )[1:-1, 1:-1]
        )
        assert np.hypot(columns + 1 - row["x"], rows + 1 - row["y"]).min() <= 1.5


def test_more_density_gives_more_neighbours(galaxies):
    survey = get_survey("lsst10yr", "r")
    settings = SceneSettings(placement="field", close_fraction=0.0, mag_limit=24.0, density_per_arcmin2=100.0)
    truth = simulate_stamps(galaxies, survey, settings, 60, seed=4).truth
    # Stamp and margin are 96 pixels wide; the brighter-than-24 neighbours all leave light unless
    # in the margin.
    expected = 1 + 100.0 * (96 * 0.2 / 60) ** 2
    mean = np.mean(truth["n_galaxies"])
    assert 0.6 * expected < mean < 1.1 * expected


def test_same_seed_gives_the_same_bits(galaxies, survey, paper_scenes):
    again = simulate_stamps(galaxies, survey, SceneSettings(), 150, seed=3)
    same_bits(paper_scenes, again)
    other = simulate_stamps(galaxies, survey, SceneSettings(), 5, seed=4)
    assert not np.array_equal(other.truth["ident"], paper_scenes.truth["ident"][:5])


def test_number_of_processes_changes_no_bit(galaxies, survey, paper_scenes):
    done = []
    two = simulate_stamps(
        galaxies, survey, SceneSettings(), 150, seed=3, processes=2, progress=lambda *now: done.append(now)
    )
    same_bits(paper_scenes, two)
    assert done == [(128, 150), (150, 150)]


def test_more_scenes_begin_with_the_same(galaxies, survey, paper_scenes):
    few = simulate_stamps(galaxies, survey, SceneSettings(), 7, seed=3)
    np.testing.assert_array_equal(few.profiles, paper_scenes.profiles[: len(few.profiles)])
    np.testing.assert_array_equal(few.truth["seed"], paper_scenes.truth["seed"][:7])


def test_shear_changes_shapes_and_nothing_else(galaxies, survey):
    plain, sheared = (
        simulate_stamps(galaxies, survey, SceneSettings(kind="isolated", shear_g1=g), 40, seed=8)
        for g in (0.0, 0.05)
    )
    np.testing.assert_array_equal(plain.truth["ident"], sheared.truth["ident"])
    np.testing.assert_array_equal(plain.fluxes, sheared.fluxes)
    response = np.nanmean(sheared.truth["e1"] - plain.truth["e1"]) / 0.05
    assert 0.7 < response < 1.2
    assert abs(np.nanmean(sheared.truth["e2"] - plain.truth["e2"])) < 0.005


def test_only_galaxies_of_the_split_are_drawn(galaxies, survey):
    for split, wanted in (("test", {0}), ("validation", {1}), ("train", set(range(2, 16)))):
        sample = simulate_stamps(galaxies, survey.select("r"), SceneSettings(kind="isolated"), 20, 1, split)
        assert set(np.asarray(sample.truth["ident"]) % 16) <= wanted


def test_impossible_demands_are_one_line_errors(galaxies, survey):
    with pytest.raises(CatalogError, match="raise mag_limit"):
        simulate_stamps(galaxies, survey, SceneSettings(mag_limit=5.0), 2, seed=1)
    with pytest.raises(CatalogError, match="lower it"):
        simulate_stamps(galaxies, survey, SceneSettings(target_snr_min=1e9), 2, seed=1)
    with pytest.raises(VaeError, match="n_scenes"):
        simulate_stamps(galaxies, survey, SceneSettings(), 0, seed=1)
    for wrong in (
        {"kind": "star"},
        {"placement": "ring"},
        {"min_galaxies": 0},
        {"inner_radius": 3.0},
        {"close_fraction": 1.5},
        {"shear_g1": 1.0},
        {"target_snr_min": -1.0},
        {"star_fraction": 1.1},
        {"real_fraction": -0.1},
        {"mag_limit": float("nan")},
    ):
        with pytest.raises(VaeError, match=next(iter(wrong))[:5]):
            SceneSettings(**wrong)
    with pytest.raises(VaeError, match="fwhm_scatter is -0.1"):
        SceneSettings(psf_fwhm_scatter=-0.1)


def test_samples_with_all_that_is_random_keep_their_bits_with_two_processes(galaxies, monkeypatch):
    """Peaks, stars, PSFs, versions."""
    monkeypatch.setattr(scenes, "_CHUNK_SCENES", 5)
    survey = get_survey("arcelin2020", ["r", "VIS"])
    settings = SceneSettings(
        centring="peaks", star_fraction=0.2, psf_fwhm_scatter=0.1, psf_shear_sigma=0.02, shear_step=0.01
    )
    one, two = (simulate_stamps(galaxies, survey, settings, 12, seed=3, processes=p) for p in (1, 2))
    same_bits(one, two)
    wanted = (
        "scene base_scene g1 g2 split ident redshift mag_r mag_VIS r_mag r_mag_ab e1 e2 hsm_failed snr snr_r "
    )
    wanted += "snr_VIS b_closest b_tot delta_mag_c neighbour_distance n_galaxies x y star real "
    wanted += "target_is_brightest n_peaks seed noise_seed"
    assert set(one.truth.colnames) == set(wanted.split())
    wanted = "scene galaxy ident star real x y redshift mag_r mag_VIS r_mag_ab rotation g1 g2"
    assert one.objects.colnames == wanted.split()
    np.testing.assert_array_equal(one.truth["base_scene"], np.repeat(np.arange(12), 5))
    np.testing.assert_array_equal(one.truth["scene"], np.arange(60))
    for index in (2, 58):
        again = draw_again(one, index, galaxies, survey)
        np.testing.assert_array_equal(again.image(0), one.image(index))
        for name in ("seed", "noise_seed", "e1", "g1", "b_tot", "x"):
            np.testing.assert_array_equal(again.truth[name], one.truth[name][index : index + 1])
        np.testing.assert_array_equal(again.psf[0], one.psf[index])


def test_a_scene_is_drawn_again_with_what_it_was_drawn_with_only(galaxies, survey, paper_scenes):
    again = draw_again(paper_scenes, -1, galaxies, survey)
    assert again.n_scenes == 1 and again.truth["seed"][0] == paper_scenes.truth["seed"][-1]
    np.testing.assert_array_equal(again.image(0), paper_scenes.image(-1))
    with pytest.raises(ShardError, match="bands"):
        draw_again(paper_scenes, 0, galaxies, survey.select("r"))
    assert paper_scenes.versions["galaxies_sha256"] == galaxies.sha256
    with pytest.raises(ShardError, match="galaxies_sha256"):
        draw_again(paper_scenes, 0, synthetic_galaxies(3000, seed=6), survey)


def test_objects_tell_who_is_where(paper_scenes, survey):
    objects, truth = paper_scenes.objects, paper_scenes.truth
    assert len(objects) == truth["n_galaxies"].sum()
    targets = objects[objects["galaxy"] == 0]
    for name in ("ident", "redshift", "mag_g", "mag_r", "r_mag_ab", "x", "y", "star", "real"):
        np.testing.assert_array_equal(targets[name], truth[name])
    np.testing.assert_array_equal(truth["r_mag"], truth["mag_r"])
    for scene in range(40):
        part = objects[objects["scene"] == scene]
        np.testing.assert_array_equal(part["galaxy"], np.arange(len(part)))
        assert truth["target_is_brightest"][scene] and part["mag_r"].argmin() == 0
        distance = 0.2 * np.hypot(part["x"] - part["x"][0], part["y"] - part["y"][0])[1:]
        for image, row in zip(galaxy_images(paper_scenes, scene, 1), part, strict=True):
            peak_y, peak_x = np.unravel_index(image.argmax(), image.shape)
            assert max(abs(peak_x - row["x"]), abs(peak_y - row["y"])) < 0.8
        if len(part) > 1:
            nearest = 1 + distance.argmin()
            assert truth["neighbour_distance"][scene] == pytest.approx(distance.min())
            expected = part["mag_r"][nearest] - part["mag_r"][0]
            assert truth["delta_mag_c"][scene] == pytest.approx(expected)
    assert ((objects["rotation"] >= 0) & (objects["rotation"] < 2 * np.pi)).all()
    # The paper's r is no AB magnitude: AB + about 2.2 (PAPER.md).
    assert np.median(truth["r_mag"] - truth["r_mag_ab"]) == pytest.approx(2.2, abs=0.15)


def test_b_closest_is_of_the_nearest_neighbour(paper_scenes):
    for scene in np.flatnonzero(paper_scenes.truth["n_galaxies"] > 2)[:20]:
        part = paper_scenes.objects[paper_scenes.objects["scene"] == scene]
        distance = np.hypot(part["x"] - part["x"][0], part["y"] - part["y"][0])[1:]
        target, *neighbours = galaxy_images(paper_scenes, scene, 1)
        expected = metrics.b_closest(target, neighbours[distance.argmin()])
        assert paper_scenes.truth["b_closest"][scene] == pytest.approx(expected, abs=1e-4)


def test_psfs_that_vary_are_kept_and_used(galaxies):
    survey = get_survey("lsst10yr", "gr")
    settings = SceneSettings(kind="isolated", star_fraction=1.0, psf_fwhm_scatter=0.15, psf_shear_sigma=0.05)
    sample = simulate_stamps(galaxies, survey, settings, 40, seed=3)
    assert sample.psf.shape == (40, 2, 3) and sample.psf.dtype == np.float32
    spread = np.std(np.log(sample.psf[:, :, 0]), axis=0)
    np.testing.assert_allclose(spread, 0.15, rtol=0.4)
    for scene in range(5):
        kernels = sample.psf_kernels(scene, size=65)
        assert kernels.shape == (2, 65, 65)
        image = sample.image(scene)
        for band, model in enumerate(sample.psf_models(scene)):
            assert isinstance(model, PsfModel) and model.fwhm == pytest.approx(sample.psf[scene, band, 0])
            # A star is the PSF: here off a kernel's centre by half a pixel.
            star = galsim.Convolve(model.profile(), galsim.Pixel(0.2))
            expected = star.drawImage(nx=64, ny=64, scale=0.2, method="no_pixel").array
            found = image[band] / sample.fluxes[sample.rows(scene)][0, band]
            np.testing.assert_allclose(found, expected, atol=2e-3 * expected.max())
            assert kernels[band].sum() == pytest.approx(1.0)
            assert kernels[band].max() == pytest.approx(expected.max(), rel=0.15)


def test_psfs_that_do_not_vary_are_the_surveys(paper_scenes, survey):
    assert paper_scenes.psf_models(3) == tuple(model for model, _ in survey.profile_kinds)
    kernel = survey["r"].psf.kernel(0.2)
    for image in paper_scenes.psf_kernels(3):
        np.testing.assert_array_equal(image, kernel)


def test_stars_are_points_of_no_shape_beyond_the_psfs(galaxies):
    settings = SceneSettings(kind="isolated", star_fraction=1.0, centring="pixelisation")
    truth = simulate_stamps(galaxies, get_survey("lsst10yr", "r"), settings, 20, seed=3).truth
    assert truth["star"].all() and (truth["split"] == -1).all()
    failed = np.asarray(truth["hsm_failed"])
    assert np.hypot(truth["e1"], truth["e2"])[~failed].max(initial=0) < 0.05 or failed.all()


def test_real_galaxies_are_asked_for(galaxies, survey):
    with pytest.raises(VaeError, match="give real="):
        simulate_stamps(galaxies, survey, SceneSettings(real_fraction=0.2), 1, seed=1)


@needs_real
def test_real_scenes_have_their_share_and_hold_real_galaxies_only(galaxies, survey):
    from lsst.meas.extensions.vae.galaxies.real_images import load_real_galaxies

    real = load_real_galaxies(REAL)
    settings = SceneSettings(real_fraction=0.4, star_fraction=0.2, mag_limit=None)
    sample = simulate_stamps(galaxies, survey, settings, 60, seed=1, real=real)
    truth, objects = sample.truth, sample.objects
    assert np.mean(truth["real"]) == pytest.approx(0.4, abs=0.2)
    np.testing.assert_array_equal(objects["real"], truth["real"][objects["scene"]])
    assert not np.any(objects["real"] & objects["star"])
    assert set(objects["ident"][objects["real"]]) <= set(real.split("train").ident)
    scene = int(np.flatnonzero(truth["real"])[0])
    np.testing.assert_array_equal(
        draw_again(sample, scene, galaxies, survey, real).image(0), sample.image(scene)
    )
    assert sample.versions["real_galaxies_sha256"] == real.sha256
    with pytest.raises(VaeError, match="give real="):
        draw_again(sample, scene, galaxies, survey)
    real.sha256 = "0" * 64
    with pytest.raises(ShardError, match="real_galaxies_sha256"):
        draw_again(sample, scene, galaxies, survey, real)


def test_memory_holds_the_sample_once():
    """Putting chunks together takes no second copy."""
    rows = 500
    chunk_bytes = rows * 64 * 64 * 2

    def chunk():
        return _Chunk(
            profiles=np.ones((rows, 1, 64, 64), np.float16),
            fluxes=np.ones((rows, 1), np.float32),
            scene=np.arange(rows, dtype=np.int32),
            galaxy=np.zeros(rows, np.int8),
            psf=np.ones((rows, 1, 3), np.float32),
            objects={"scene": np.arange(rows, dtype=np.int32)},
            truth={"scene": np.arange(rows, dtype=np.int32), "base_scene": np.arange(rows, dtype=np.int32)},
        )

    collector = _Collector()
    tracemalloc.start()
    for _ in range(20):
        collector.append(chunk())
    fields = collector.fields()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert fields["profiles"].nbytes == 20 * chunk_bytes
    assert peak < 22.5 * chunk_bytes
    np.testing.assert_array_equal(fields["scene"], np.arange(20 * rows))
    np.testing.assert_array_equal(fields["truth"]["base_scene"], np.arange(20 * rows))
