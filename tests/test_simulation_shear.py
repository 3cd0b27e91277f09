# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sheared versions of scenes: what shear changes, by how much, and what it leaves."""

import dataclasses

import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import VaeError
from lsst.meas.extensions.vae.galaxies import GalaxyCatalog, synthetic_galaxies
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.survey import PsfModel, get_survey

SHEARS = [(0.0, 0.0), (0.05, 0.0), (-0.05, 0.0), (0.0, 0.05), (0.0, -0.05)]
PSF_SIGMA = 0.3


@pytest.fixture(scope="module")
def galaxies():
    return synthetic_galaxies(2000, seed=5)


@pytest.fixture(scope="module")
def survey():
    return get_survey("arcelin2020", "gr")


@pytest.fixture(scope="module")
def versions(galaxies, survey):
    settings = SceneSettings(shear_step=0.05, centring="pixelisation", psf_fwhm_scatter=0.1)
    return simulate_stamps(galaxies, survey, settings, 24, seed=6)


@pytest.fixture(scope="module")
def round_galaxies(galaxies):
    """Round Gaussian galaxies of half-light radius 0.5"."""
    table = galaxies.table[galaxies.mag_auto < 23.5].copy()
    table["use_bulgefit"] = 0
    table["sersicfit"][:, 2], table["sersicfit"][:, 3] = 0.5, 1.0
    table["hlr"][:, 0] = 0.5
    return GalaxyCatalog(table, "synthetic")


@pytest.fixture(scope="module")
def gaussian_survey(survey):
    band = dataclasses.replace(
        survey["r"], psf=PsfModel("gaussian", fwhm=PSF_SIGMA * 2 * np.sqrt(2 * np.log(2)))
    )
    return dataclasses.replace(survey, bands=(band,))


def second_moments(image, scale=0.2):
    """Matrix of unweighted second moments [arcsec^2]."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    x, y = ((axis - (axis * image).sum() / image.sum()) * scale for axis in (columns, rows))
    return np.array([[(a * b * image).sum() for b in (x, y)] for a in (x, y)]) / image.sum()


def test_every_scene_comes_in_five_versions_of_one_scene(versions):
    truth, objects = versions.truth, versions.objects
    assert versions.n_scenes == 5 * 24
    np.testing.assert_array_equal(truth["base_scene"], np.repeat(np.arange(24), 5))
    np.testing.assert_array_equal(np.stack([truth["g1"], truth["g2"]], axis=1), SHEARS * 24)
    for name in ("seed", "noise_seed", "ident", "x", "y", "n_galaxies", "r_mag"):
        assert (np.asarray(truth[name]).reshape(24, 5) == truth[name][::5, None]).all(), name
    assert len(set(truth["noise_seed"])) == 24 and not set(truth["noise_seed"]) & set(truth["seed"])
    np.testing.assert_array_equal(
        versions.psf.reshape(24, 5, -1), versions.psf[::5, :, :].repeat(5, 1).reshape(24, 5, -1)
    )
    for base in range(24):
        parts = [objects[objects["scene"] == scene] for scene in range(5 * base, 5 * base + 5)]
        for number, part in enumerate(parts):
            for name in ("galaxy", "ident", "rotation", "redshift", "mag_r", "star"):
                np.testing.assert_array_equal(part[name], parts[0][name])
            assert (part["g1"] == SHEARS[number][0]).all() and (part["g2"] == SHEARS[number][1]).all()


def test_first_version_is_the_scene_without_shear(galaxies, survey, versions):
    plain = simulate_stamps(
        galaxies, survey, SceneSettings(centring="pixelisation", psf_fwhm_scatter=0.1), 24, seed=6
    )
    first = versions.select(range(0, 120, 5))
    np.testing.assert_array_equal(plain.profiles, first.profiles)
    for name in ("ident", "seed", "e1", "snr", "x"):
        np.testing.assert_array_equal(plain.truth[name], first.truth[name])


def test_one_constant_shear_gives_the_same_as_that_version(galaxies, survey, versions):
    chosen = {"centring": "pixelisation", "psf_fwhm_scatter": 0.1}
    sheared = simulate_stamps(galaxies, survey, SceneSettings(shear_g1=-0.05, **chosen), 24, seed=6)
    np.testing.assert_array_equal(sheared.profiles, versions.select(range(2, 120, 5)).profiles)


@pytest.mark.parametrize("moved", [True, False])
def test_neighbours_move_about_the_target_or_stay(galaxies, survey, moved):
    settings = SceneSettings(
        shear_step=0.1, shear_positions=moved, centring="pixelisation", min_galaxies=3, max_galaxies=3
    )
    sample = simulate_stamps(galaxies, survey, settings, 6, seed=6)
    x, y = (np.asarray(sample.objects[name]).reshape(6, 5, 3) for name in "xy")
    # Targets stay where they are.
    assert (x[:, :, 0] == x[:, :1, 0]).all() and abs(x[:, 0, 0] - 31.5).max() > 0.1
    offset = np.stack([x - x[:, :, :1], y - y[:, :, :1]], axis=-1)
    for version, (g1, g2) in enumerate(settings.shears):
        matrix = np.array([[1 + g1, g2], [g2, 1 - g1]]) / np.sqrt(1 - g1**2 - g2**2)
        expected = offset[:, 0] @ (matrix.T if moved else np.eye(2))
        np.testing.assert_allclose(offset[:, version], expected, atol=1e-9)


def test_neighbours_are_drawn_where_the_tables_say(round_galaxies, gaussian_survey):
    settings = SceneSettings(shear_step=0.2, min_galaxies=2, max_galaxies=2, inner_radius=1.5)
    sample = simulate_stamps(round_galaxies, gaussian_survey, settings, 4, seed=6)
    for scene in range(20):
        neighbour = sample.objects[(sample.objects["scene"] == scene) & (sample.objects["galaxy"] == 1)][0]
        image = sample.image(scene, "neighbours")[0].astype(float)
        rows, columns = np.mgrid[:64, :64]
        assert (columns * image).sum() / image.sum() == pytest.approx(neighbour["x"], abs=0.02)
        assert (rows * image).sum() / image.sum() == pytest.approx(neighbour["y"], abs=0.02)


def test_second_moments_of_round_galaxies_are_sheared(round_galaxies, gaussian_survey):
    """Intrinsic moments become S Q S^T; PSF and pixel add theirs."""
    settings = SceneSettings(kind="isolated", shear_step=0.1)
    sample = simulate_stamps(round_galaxies, gaussian_survey, settings, 3, seed=6)
    sigma = 0.5 / np.sqrt(2 * np.log(2))
    added = (PSF_SIGMA**2 + 0.2**2 / 12) * np.eye(2)
    for scene, (g1, g2) in enumerate(settings.shears * 3):
        matrix = np.array([[1 + g1, g2], [g2, 1 - g1]]) / np.sqrt(1 - g1**2 - g2**2)
        expected = sigma**2 * matrix @ matrix.T + added
        np.testing.assert_allclose(
            second_moments(sample.image(scene)[0].astype(float)), expected, atol=0.01 * sigma**2
        )


def test_ksb_of_round_galaxies_is_the_shear(round_galaxies, gaussian_survey):
    step = 0.02
    settings = SceneSettings(kind="isolated", shear_step=step, centring="pixelisation")
    truth = simulate_stamps(round_galaxies, gaussian_survey, settings, 10, seed=6).truth
    assert not truth["hsm_failed"].any()
    e = np.stack([truth["e1"], truth["e2"]], axis=1).reshape(10, 5, 2)
    np.testing.assert_allclose(e[:, 0], 0.0, atol=2e-4)
    for version, g in enumerate(settings.shears):
        np.testing.assert_allclose(e[:, version], np.broadcast_to(g, (10, 2)), atol=0.03 * step)


def test_ksb_is_corrected_for_each_scenes_own_psf(round_galaxies, gaussian_survey):
    settings = SceneSettings(kind="isolated", psf_fwhm_scatter=0.1, psf_shear_sigma=0.05)
    sample = simulate_stamps(round_galaxies, gaussian_survey, settings, 12, seed=6)
    assert np.hypot(sample.psf[:, 0, 1], sample.psf[:, 0, 2]).max() > 0.05
    e = np.array([sample.truth["e1"], sample.truth["e2"]])
    assert abs(e).max() < 2e-3


def test_shear_keeps_the_flux(round_galaxies, gaussian_survey):
    sample = simulate_stamps(
        round_galaxies, gaussian_survey, SceneSettings(kind="isolated", shear_step=0.1), 3, seed=6
    )
    sums = np.array([sample.image(scene).sum() for scene in range(15)])
    electrons = 10 ** (-0.4 * (sample.truth["r_mag"] - gaussian_survey["r"].zeropoint))
    electrons *= gaussian_survey["r"].exposure_time * gaussian_survey["r"].area_ratio
    np.testing.assert_allclose(sums, electrons, rtol=2e-4)


def test_peak_and_field_scenes_keep_their_galaxies_under_shear(galaxies):
    survey = get_survey("lsst10yr", "r")
    for settings in (
        SceneSettings(centring="peaks", mag_limit=26.0),
        SceneSettings(placement="field", mag_limit=None, target_snr_min=20.0, centring="pixelisation"),
    ):
        plain, sheared = (
            simulate_stamps(galaxies, survey, dataclasses.replace(settings, shear_g2=g), 8, seed=2)
            for g in (0.0, 0.1)
        )
        np.testing.assert_array_equal(plain.objects["ident"], sheared.objects["ident"])
        np.testing.assert_array_equal(plain.truth["x"], sheared.truth["x"])
        assert not np.array_equal(plain.profiles, sheared.profiles)


def test_shears_that_do_not_go_together_are_refused():
    with pytest.raises(VaeError, match="one or the other"):
        SceneSettings(shear_step=0.01, shear_g1=0.02)
    for step in (-0.01, 1.0, np.nan):
        with pytest.raises(VaeError, match="shear_step"):
            SceneSettings(shear_step=step)
