# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole fields: noise, positions and truth."""

import json
from dataclasses import replace

import galsim
import numpy as np
import pytest
from scipy.spatial import cKDTree

from lsst.meas.extensions.vae.errors import SurveyError, VaeError
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.simulation import metrics
from lsst.meas.extensions.vae.simulation.fields import FieldSettings, isolated_stamp, simulate_field
from lsst.meas.extensions.vae.simulation.redraw import noiseless_field, survey_with_psfs
from lsst.meas.extensions.vae.survey import get_survey

SHAPE = (160, 200)
SETTINGS = FieldSettings(size=SHAPE, density_per_arcmin2=60.0)
# All at once: PSFs that vary, stars, clusters, shear, small stamps.
RICH = replace(
    SETTINGS,
    star_fraction=0.3,
    positions="clustered",
    psf_fwhm_scatter=0.1,
    psf_shear_sigma=0.03,
    shear_g1=0.03,
    shear_g2=-0.02,
)


@pytest.fixture(scope="module")
def galaxies():
    return synthetic_galaxies(2000, seed=5)


@pytest.fixture(scope="module")
def survey():
    return get_survey("lsst10yr", "gri")


@pytest.fixture(scope="module")
def field(galaxies, survey):
    return simulate_field(galaxies, survey, SETTINGS, seed=2)


@pytest.fixture(scope="module")
def rich(galaxies, survey):
    return simulate_field(galaxies, survey, RICH, seed=6)


def expectation(field):
    """The noiseless image that the field was drawn from, by its variance, and the sky's noise."""
    unit, sky = (
        np.array([getattr(band, name) for band in field.survey.bands])[:, None, None]
        for name in ("electrons_per_unit", "sky_level")
    )
    return (field.variance * unit**2 - sky) / unit, np.sqrt(sky) / unit


def test_blank_field_has_the_skys_noise(galaxies, survey):
    blank = simulate_field(galaxies, survey, FieldSettings(size=256, density_per_arcmin2=0.0), seed=1)
    assert len(blank.truth) == 0 and "flux_r" in blank.truth.colnames
    for image, variance, band in zip(blank.images, blank.variance, survey.bands):
        expected = band.sky_level / band.electrons_per_unit**2
        np.testing.assert_allclose(variance, expected, rtol=1e-6)
        # The sample variance of N Gaussian pixels scatters by sqrt(2 / N).
        assert image.var() == pytest.approx(expected, rel=5 * np.sqrt(2 / image.size))
        assert abs(image.mean()) < 5 * np.sqrt(expected / image.size)
        # No pixel correlation.
        neighbour = np.mean(image[:, 1:] * image[:, :-1]) / expected
        assert abs(neighbour) < 5 / np.sqrt(image.size)


@pytest.mark.parametrize("name", ["field", "rich"])
def test_isolated_stamps_of_all_objects_add_up_to_the_noiseless_field(name, request):
    field = request.getfixturevalue(name)
    total = np.zeros((3, SHAPE[0] + 512, SHAPE[1] + 512), np.float32)
    for row in range(len(field.truth)):
        stamp, (y0, x0) = field.isolated(row, size=None)
        side = field.truth["stamp_size"][row]
        assert stamp.shape == (3, side, side)
        total[:, y0 + 256 : y0 + 256 + side, x0 + 256 : x0 + 256 + side] += stamp
    total = total[:, 256:-256, 256:-256]
    expected, noise = expectation(field)
    # Variances are kept to 6e-8 of the sky's 1.9e5 electrons.
    np.testing.assert_allclose((total - expected) / noise, 0.0, atol=1e-3)
    assert (expected / noise).max() > 30
    np.testing.assert_allclose(field.noiseless(), total, atol=1e-3 * noise.min())
    # Any other size shows the same galaxies within the drawing's error.
    some = [row for row in range(len(field.truth)) if field.truth["in_field"][row]][:10]
    for row in some:
        large, origin = field.isolated(row, size=256)
        small, inner = field.isolated(row, size=None)
        y, x = inner[0] - origin[0], inner[1] - origin[1]
        side = small.shape[-1]
        error = np.abs(large[:, y : y + side, x : x + side] - small).max(axis=(1, 2))
        assert (error < 1e-3 * small.max(axis=(1, 2))).all()


def test_noiseless_field_of_some_rows_is_their_sum(rich):
    one, other = rich.noiseless([3]), rich.noiseless([5])
    np.testing.assert_allclose(rich.noiseless([3, 5]), one + other, rtol=1e-5, atol=1e-7)
    assert (noiseless_field(rich.truth, rich.survey, SHAPE, []) == 0).all()


@pytest.mark.parametrize(
    "noise, correlation", [("poisson", 0.0), ("normal", 0.0), ("normal", 0.3), ("sky", 0.0)]
)
def test_noise_has_the_variance_of_the_variance_plane(galaxies, survey, noise, correlation):
    settings = replace(SETTINGS, size=256, noise=noise, noise_correlation=correlation, star_fraction=0.5)
    field = simulate_field(galaxies, survey, settings, seed=4)
    pull = (field.images - field.noiseless()) / np.sqrt(field.variance)
    # Bright pixels have noise of their own light, in a variance that knows it.
    bright = (
        field.noiseless() * np.array([b.electrons_per_unit for b in survey.bands])[:, None, None]
        > 0.3 * (np.array([b.sky_level for b in survey.bands])[:, None, None])
    )
    assert bright.sum() > 200
    for chosen in (bright, ~bright):
        # Correlation of 0.3 leaves a third as many independent pixels, at least.
        tolerance = 5 / np.sqrt(2 * chosen.sum() / (1 if correlation == 0 else 3))
        assert pull[chosen].std() == pytest.approx(1.0, abs=tolerance)
        assert abs(pull[chosen].mean()) < 2 * tolerance
    for along in (pull[:, :, 1:] * pull[:, :, :-1], pull[:, 1:] * pull[:, :-1]):
        assert along.mean() == pytest.approx(correlation, abs=6 / np.sqrt(pull.size))
    assert abs(pull).max() < 6.5


def test_number_and_places_are_the_skys(galaxies, survey):
    settings = FieldSettings(size=(200, 100), density_per_arcmin2=300.0, edge=10, mag_limit=26.0)
    truth = simulate_field(galaxies, survey.select("r"), settings, seed=7).truth
    expected = 300.0 * 220 * 120 * (0.2 / 60) ** 2
    assert len(truth) == pytest.approx(expected, abs=5 * np.sqrt(expected))
    assert truth["x"].min() < 5 and truth["x"].max() > 95 and truth["y"].max() > 195
    assert truth["x"].min() >= -10.5 and truth["x"].max() <= 109.5
    inside = (truth["x"] >= -0.5) & (truth["x"] < 99.5) & (truth["y"] >= -0.5) & (truth["y"] < 199.5)
    np.testing.assert_array_equal(truth["in_field"], inside)
    assert truth["mag_r"].max() < 26.0


def test_truth_fluxes_and_magnitudes_agree(field):
    truth = field.truth
    assert len(truth) > 10 and list(truth["id"]) == list(range(1, len(truth) + 1))
    for name in field.bands:
        np.testing.assert_allclose(
            31.4 - 2.5 * np.log10(truth[f"flux_{name}"]), truth[f"mag_{name}"], atol=1e-6
        )
        parts = truth[f"flux_0_{name}"] + truth[f"flux_1_{name}"]
        np.testing.assert_allclose(parts, truth[f"flux_{name}"], rtol=1e-10)
    brightest = int(np.argmax(truth["snr_r"]))
    stamp, _ = field.isolated(brightest, size=128)
    assert stamp[1].sum() == pytest.approx(truth["flux_r"][brightest], rel=0.02)


def test_isolated_stamp_is_centred_on_the_nearest_pixel_crossing(field):
    for row in range(10):
        _, (y0, x0) = field.isolated(row)
        x, y = field.truth["x"][row] - x0, field.truth["y"][row] - y0
        assert abs(x - 31.5) <= 0.5 and abs(y - 31.5) <= 0.5
    row = int(np.argmin(np.hypot(field.truth["x"] - 100, field.truth["y"] - 80)))
    here, origin = field.isolated(row)
    there, given = field.isolated(row, origin=(origin[0] + 3, origin[1] - 2))
    assert given == (origin[0] + 3, origin[1] - 2)
    np.testing.assert_allclose(there[:, :-3, 2:], here[:, 3:, :-2], atol=2e-4 * here.max())
    again, _ = isolated_stamp(dict(zip(field.truth.colnames, field.truth[row])), field.survey)
    np.testing.assert_array_equal(again, here)


def test_same_seed_gives_the_same_bits(galaxies, survey, rich):
    again = simulate_field(galaxies, survey, RICH, seed=6)
    for name in ("images", "variance", "mask", "psfs"):
        np.testing.assert_array_equal(getattr(again, name), getattr(rich, name))
    assert again.truth.colnames == rich.truth.colnames
    for name in rich.truth.colnames:
        np.testing.assert_array_equal(again.truth[name], rich.truth[name])
    assert not np.array_equal(simulate_field(galaxies, survey, RICH, seed=7).images, rich.images)


def test_stars_are_their_fraction_and_have_splits_of_their_own(galaxies, survey):
    settings = replace(SETTINGS, density_per_arcmin2=400.0, star_fraction=0.6, mag_limit=26.0)
    truth = simulate_field(galaxies, survey.select("r"), settings, seed=1, split="test").truth
    star = np.asarray(truth["star"])
    assert star.mean() == pytest.approx(0.6, abs=5 * np.sqrt(0.24 / len(star)))
    expected = 400.0 * (SHAPE[0] + 32) * (SHAPE[1] + 32) * (0.2 / 60) ** 2
    assert len(truth) == pytest.approx(expected, abs=5 * np.sqrt(expected))
    assert (truth["ident"][star] < 0).all() and np.isnan(truth["redshift"][star]).all()
    np.testing.assert_array_equal(truth["split"], np.where(star, -1, 2))
    assert (truth["ident"][~star] % 16 == 0).all() and not truth["real"].any()
    assert truth["mag_r"].max() < 26.0
    others = simulate_field(galaxies, survey.select("r"), settings, seed=1, split="train").truth
    assert set(others["split"]) == {-1, 0} and not set(others["ident"]) & set(truth["ident"])
    # lsst10yr's magnitudes are AB.
    np.testing.assert_allclose(truth["r_mag_ab"], truth["mag_r"], atol=1e-6)


def test_light_of_an_isolated_star_is_its_flux(galaxies, survey):
    settings = FieldSettings(size=400, density_per_arcmin2=3.0, star_fraction=1.0, edge=0, mag_limit=22.0)
    field = simulate_field(galaxies, survey, settings, seed=11)
    truth = field.truth
    border = np.min([truth["x"], truth["y"], 399 - truth["x"], 399 - truth["y"]], axis=0)
    usable = (border > 60) & (truth["neighbour_distance"] > 20.0)
    row = int(np.argmax(np.where(usable, truth["snr_r"], 0.0)))
    assert truth["snr_r"][row] > 500
    rows, columns = np.mgrid[:400, :400]
    inside = np.hypot(columns - truth["x"][row], rows - truth["y"][row]) < 45
    for b, band in enumerate(survey.bands):
        measured, error = field.images[b, inside].sum(), np.sqrt(field.variance[b, inside].sum())
        # What Kolmogorov's wings have beyond the aperture, by GalSim.
        light = band.psf.profile().drawImage(nx=401, ny=401, scale=0.2).array
        yy, xx = np.mgrid[-200:201, -200:201]
        within = light[np.hypot(yy, xx) < 45].sum()
        flux = truth[f"flux_{band.name}"][row]
        assert measured == pytest.approx(within * flux, abs=4 * error + 2e-3 * flux)
        assert error < 0.05 * flux


def test_psfs_of_a_field_vary_and_are_kept(rich, survey):
    assert rich.psf_models != tuple(band.psf for band in survey.bands)
    for name in ("fwhm", "e1", "e2"):
        assert set(rich.truth[f"psf_{name}_i"]) == {getattr(rich.psf_models[2], name)}
    assert set(rich.truth["seed"]) == {6}
    for model, nominal, kernel in zip(rich.psf_models, survey.bands, rich.psfs):
        assert 0 < abs(np.log(model.fwhm / nominal.psf.fwhm)) <= 0.3
        np.testing.assert_array_equal(kernel, model.kernel(0.2, 41))
    # Star after star has the PSF: its drawing is that of GalSim.
    row = int(np.argmax(rich.truth["star"] * rich.truth["snr_r"] * rich.truth["in_field"]))
    stamp, (y0, x0) = rich.isolated(row, size=64)
    offset = rich.truth["x"][row] - x0 - 31.5, rich.truth["y"][row] - y0 - 31.5
    direct = rich.psf_models[1].profile() * rich.truth["flux_r"][row]
    direct = direct.drawImage(nx=64, ny=64, scale=0.2, offset=offset).array
    np.testing.assert_allclose(stamp[1], direct, atol=1e-3 * direct.max())
    # The truth alone gives the survey as it was, of all bands or some.
    assert survey_with_psfs(survey, rich.truth).bands == rich.survey.bands
    one = survey_with_psfs(survey.select("r"), rich.truth)
    alone, _ = isolated_stamp(rich.truth[row], one)
    np.testing.assert_allclose(alone[0], stamp[1], atol=1e-4 * direct.max())


def test_a_stored_truth_draws_its_objects_again_with_the_psfs_of_its_field(rich, survey, tmp_path):
    pytest.importorskip("lsst.daf.butler")
    from lsst.meas.extensions.vae.repo import openRepository, registerCampaign

    butler = openRepository(tmp_path / "repo")
    registerCampaign(butler, "demo", 0, 0, 0, 2, {})
    butler.collections.register("run")
    butler = butler.clone(run="run", collections=["run"])
    try:
        for patch, table in enumerate((rich.truth, rich.truth[:0])):
            butler.put(table, "vae_fieldTruth", skymap="vae_demo", tract=3, patch=patch)
        truth, empty = (
            butler.get("vae_fieldTruth", skymap="vae_demo", tract=3, patch=patch) for patch in (0, 1)
        )
    finally:
        butler.close()
    restored = survey_with_psfs(survey, truth)
    assert restored.bands == rich.survey.bands != survey.bands
    for row in (0, len(truth) - 1):
        again, origin = isolated_stamp(truth[row], restored, size=None)
        drawn, expected = rich.isolated(row, size=None)
        assert origin == expected
        np.testing.assert_array_equal(again, drawn)
        assert not np.array_equal(isolated_stamp(truth[row], survey, size=None)[0], drawn)
    assert len(empty) == 0 and survey_with_psfs(survey, empty) is survey


def test_psfs_that_a_truth_does_not_tell_are_never_guessed(rich, survey):
    old = rich.truth.copy()
    old.remove_columns([name for name in old.colnames if name.startswith("psf_")])
    with pytest.raises(SurveyError, match="lacks the columns psf_fwhm_g.*simulate the field again"):
        survey_with_psfs(survey, old)
    with pytest.raises(SurveyError, match="psf_fwhm_z"):
        survey_with_psfs(get_survey("lsst10yr", "iz"), rich.truth)
    two = rich.truth.copy()
    two["psf_e1_r"][0] += 0.01
    with pytest.raises(SurveyError, match="2 values of psf_e1_r.*one field"):
        survey_with_psfs(survey, two)


def test_bands_of_one_psf_keep_one_and_others_have_their_own(galaxies):
    settings = FieldSettings(size=64, psf_fwhm_scatter=0.1)
    shared = simulate_field(galaxies, get_survey("arcelin2020", "gr"), settings, seed=1)
    assert shared.psf_models[0] == shared.psf_models[1]
    own = simulate_field(galaxies, get_survey("lsst10yr", "gr"), settings, seed=1)
    widening = [
        model.fwhm / band.psf.fwhm for model, band in zip(own.psf_models, get_survey("lsst10yr", "gr").bands)
    ]
    assert widening[0] != pytest.approx(widening[1], rel=1e-3)


def test_shear_moves_galaxies_about_the_centre_and_turns_their_shapes(galaxies, survey):
    settings = FieldSettings(size=300, density_per_arcmin2=100.0, star_fraction=0.3, mag_limit=25.0, edge=20)
    one = survey.select("r")
    plain = simulate_field(galaxies, one, settings, seed=3).truth
    fields = {
        (g1, g2): simulate_field(galaxies, one, replace(settings, shear_g1=g1, shear_g2=g2), seed=3).truth
        for g1, g2 in ((0.05, 0.0), (-0.05, 0.0), (0.0, 0.05), (0.0, -0.05))
    }
    star = np.asarray(plain["star"])
    for (g1, g2), sheared in fields.items():
        np.testing.assert_array_equal(sheared["ident"], plain["ident"])
        x, y = plain["x"] - 149.5, plain["y"] - 149.5
        matrix = galsim.Shear(g1=g1, g2=g2).getMatrix()
        moved = np.stack([x, y], axis=1) @ matrix.T + 149.5
        np.testing.assert_allclose(sheared["x"], np.where(star, plain["x"], moved[:, 0]), atol=1e-9)
        np.testing.assert_allclose(sheared["y"], np.where(star, plain["y"], moved[:, 1]), atol=1e-9)
        assert (sheared["g1"][~star] == g1).all() and (sheared["g1"][star] == 0).all()
        stay = simulate_field(
            galaxies, one, replace(settings, shear_g1=g1, shear_g2=g2, shear_positions=False), seed=3
        ).truth
        np.testing.assert_array_equal(stay["x"], plain["x"])
    good = ~star & np.all([~truth["hsm_failed"] for truth in fields.values()], axis=0)
    assert good.sum() > 60
    response = (fields[0.05, 0.0]["e1"] - fields[-0.05, 0.0]["e1"])[good].mean() / 0.1
    # Single shapes respond by 1 - |e|^2 at most, and KSB is good to some per cent.
    assert 0.8 < response < 1.1
    assert abs((fields[0.0, 0.05]["e1"] - fields[0.0, -0.05]["e1"])[good].mean()) < 0.005


def test_shear_that_would_empty_the_corners_is_refused(galaxies):
    with pytest.raises(VaeError, match="edge is 16.* give edge 37"):
        FieldSettings(size=1000, shear_g1=0.05)
    FieldSettings(size=1000, shear_g1=0.05, edge=37)
    FieldSettings(size=1000, shear_g1=0.05, shear_positions=False)
    FieldSettings(size=1000, shear_g1=0.02)


def test_truth_tells_how_blended_each_object_is(rich):
    truth, scene = rich.truth, rich.noiseless()[1]
    magnitude = np.asarray(truth["mag_r"])
    places = np.stack([truth["x"], truth["y"]], axis=1) * 0.2
    for row in range(len(truth)):
        distance = np.hypot(*(places - places[row]).T)
        assert truth["n_neighbours"][row] == (distance < 2.0).sum() - 1
        distance[row] = np.inf
        nearest = int(np.argmin(distance))
        assert truth["neighbour_distance"][row] == pytest.approx(distance[nearest])
        assert truth["delta_mag_c"][row] == pytest.approx(magnitude[nearest] - magnitude[row])
        if not 20 < truth["x"][row] < 180 or not 20 < truth["y"][row] < 140:
            continue
        size = min(64, truth["stamp_size"][row])
        mine, origin = rich.isolated(row, size=size)
        other, _ = rich.isolated(nearest, size=size, origin=origin)
        rows, columns = (slice(max(o, 0), o + size) for o in origin)
        part = (
            slice(max(-origin[0], 0), SHAPE[0] - origin[0]),
            slice(max(-origin[1], 0), SHAPE[1] - origin[1]),
        )
        expected = metrics.b_tot(mine[1][part], scene[rows, columns])
        assert truth["b_tot"][row] == pytest.approx(expected, abs=2e-3)
        assert truth["b_closest"][row] == pytest.approx(
            metrics.b_closest(mine[1][part], other[1][part]), abs=2e-3
        )
    known = np.isfinite(truth["b_tot"])
    assert (truth["b_tot"][known] >= 0).all() and (truth["b_tot"][known] < 1).all()
    assert (truth["b_tot"] > 0.1).sum() > 2 and (truth["b_tot"] < 0.01).sum() > 2
    assert (known | ~truth["in_field"]).all()


def test_an_object_alone_has_no_neighbour(galaxies, survey):
    for seed in range(20):
        truth = simulate_field(
            galaxies, survey.select("r"), replace(SETTINGS, density_per_arcmin2=2), seed
        ).truth
        if len(truth) == 1:
            break
    (row,) = truth
    assert np.isnan(row["neighbour_distance"]) and np.isnan(row["delta_mag_c"]) and row["n_neighbours"] == 0
    assert not row["b_tot"] > 1e-3 and not row["b_closest"] > 0


def test_clustered_galaxies_have_closer_neighbours_and_the_same_density(galaxies, survey):
    settings = FieldSettings(size=500, density_per_arcmin2=100.0, mag_limit=25.0, max_stamp=32, edge=0)
    clustered = replace(
        settings, positions="clustered", cluster_fraction=1.0, cluster_members=8.0, cluster_radius=2.0
    )
    counts, numbers = [], []
    for chosen in (settings, clustered):
        truth = simulate_field(galaxies, survey.select("r"), chosen, seed=5).truth
        places = np.stack([truth["x"], truth["y"]], axis=1) * 0.2
        counts.append(cKDTree(places).count_neighbors(cKDTree(places), 2.0) - len(truth))
        numbers.append(len(truth))
    area = (500 * 0.2 / 60) ** 2
    assert numbers[0] == pytest.approx(100 * area, abs=5 * np.sqrt(100 * area))
    assert numbers[1] == pytest.approx(100 * area, abs=5 * np.sqrt(9 * 100 * area))
    # A pair excess of 8 / (4 pi (2/60)^2 100) = 5.7 at no distance, 4.5 on average within 2 arcsec.
    assert counts[1] / numbers[1] > 3 * counts[0] / numbers[0]


def test_blank_fields_have_the_columns_of_others(galaxies, survey, field):
    blank = simulate_field(galaxies, survey, replace(SETTINGS, size=64, density_per_arcmin2=0.0), seed=1)
    assert blank.truth.colnames == field.truth.colnames
    assert [blank.truth[n].dtype.kind for n in blank.truth.colnames] == [
        field.truth[n].dtype.kind for n in field.truth.colnames
    ]


def test_settings_are_kept_as_json(rich):
    assert json.loads(json.dumps(rich.settings))["cluster_radius"] == 10.0
    assert rich.survey_info["bands"][1]["psf"]["fwhm"] == rich.psf_models[1].fwhm


def test_psfs_are_the_bands_kernels(field, survey):
    assert field.psfs.shape == (3, 41, 41)
    np.testing.assert_allclose(field.psfs.sum(axis=(1, 2)), 1.0)
    np.testing.assert_allclose(field.psfs[2], survey["i"].psf.kernel(0.2, 41))


def test_bands_of_several_pixel_scales_are_refused(galaxies):
    with pytest.raises(SurveyError, match="pixel scales"):
        simulate_field(galaxies, get_survey("arcelin2020", ["r", "VIS"]), FieldSettings(size=64), seed=1)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_that_the_truth_could_not_hold_are_refused(galaxies, survey, seed):
    with pytest.raises(VaeError, match="seed is"):
        simulate_field(galaxies, survey, FieldSettings(size=64), seed=seed)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 2},
        {"density_per_arcmin2": -1.0},
        {"max_stamp": 8},
        {"edge": -3},
        {"shear_g2": 1.5},
        {"positions": "grid"},
        {"noise": "none"},
        {"noise_correlation": 0.2},
        {"noise": "normal", "noise_correlation": 0.7},
        {"star_fraction": 1.1},
        {"cluster_radius": 0.0},
        {"psf_fwhm_scatter": -0.1},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(
        VaeError, match=next(iter(wrong)).removeprefix("psf_")[:5].replace("noise", "[Nn]oise")
    ):
        FieldSettings(**wrong)
