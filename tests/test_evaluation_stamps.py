# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of methods on stamps, beside direct calculation and methods whose errors are known."""

from types import SimpleNamespace

import galsim
import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import ModelPackageError, ShardError, VaeError
from lsst.meas.extensions.vae.evaluation import stamps
from lsst.meas.extensions.vae.evaluation.metrics import ssim
from lsst.meas.extensions.vae.evaluation.stamp_table import summarise_stamps
from lsst.meas.extensions.vae.evaluation.stamps import (
    TRUTH_COLUMNS,
    check_network,
    isolated,
    join_errors,
    measure_stamps,
    network_method,
    undeblended,
)
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.simulation.composed import compose
from lsst.meas.extensions.vae.simulation.metrics import ksb_shear
from lsst.meas.extensions.vae.simulation.noise import add_noise
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.simulation.shards import StampSample
from lsst.meas.extensions.vae.survey import get_survey

BANDS = ("g", "r", "i")
N = 30


def simulate(seed, kind="blended", n=N, bands=BANDS, **settings):
    survey = get_survey("arcelin2020", bands)
    galaxies = synthetic_galaxies(2000, seed=1)
    return simulate_stamps(galaxies, survey, SceneSettings(kind=kind, **settings), n, seed=seed, split="test")


@pytest.fixture(scope="module")
def blends():
    return simulate(1)


@pytest.fixture(scope="module")
def measured(blends):
    methods = {"target": lambda batch: batch.target, "none": undeblended, "isolated": isolated}
    return measure_stamps([blends], methods)


def rows(table, method):
    return table[table["method"] == method]


def same(one, other):
    assert one.colnames == other.colnames
    for name in one.colnames:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_the_noiseless_target_has_no_errors_and_alpha_0(measured):
    perfect = rows(measured, "target")
    good = ~perfect["truth_flag"]
    assert good.sum() > 0.8 * N
    for name in ("e_error", "e1_error", "e2_error"):
        assert (perfect[name][good] == 0).all() and np.isnan(perfect[name][~good]).all()
    for band in BANDS:
        assert (perfect[f"mag_{band}_error"] == 0).all() and not perfect[f"mag_{band}_flag"].any()
        assert (perfect[f"flux_{band}_error"] == 0).all()
    assert (perfect["colour_g_r_error"] == 0).all() and (perfect["colour_r_i_error"] == 0).all()
    assert (perfect["chi2"] == 0).all()
    np.testing.assert_allclose([perfect["cosine"], perfect["ssim"]], 1)
    overall = summarise_stamps(measured, n_bootstrap=0)
    (row,) = overall[(overall["method"] == "target") & (overall["by"] == "all")]
    assert row["alpha_1"] == pytest.approx(0, abs=1e-12) and row["alpha_2"] == pytest.approx(0, abs=1e-12)
    assert row["alpha_1_plain"] == pytest.approx(0, abs=1e-12)
    assert row["failures"] == 0 and row["scenes"] == N and row["number"] == good.sum()


def test_truth_is_the_samples(measured, blends):
    for method in ("target", "none", "isolated"):
        table = rows(measured, method)
        for name in TRUTH_COLUMNS:
            np.testing.assert_array_equal(table[name], blends.truth[name])
        # Profiles of shards are rounded.
        np.testing.assert_allclose(table["e1_true"], blends.truth["e1"], atol=2e-3)


@pytest.mark.parametrize("noise, correlation", [("poisson", 0.0), ("normal", 0.3)])
def test_baselines_agree_with_direct_calculation(blends, noise, correlation):
    table = measure_stamps(
        [blends], {"none": undeblended, "isolated": isolated}, noise=noise, noise_correlation=correlation
    )
    composed = compose(blends, noise, correlation)
    survey = get_survey("arcelin2020", BANDS)
    sky = np.array([band.sky_level for band in survey.bands])
    unit = np.array([band.electrons_per_unit for band in survey.bands])
    psf = survey["r"].psf.kernel(survey["r"].pixel_scale)
    measurable = 0
    for i in range(6):
        target, variance = composed.target[i], composed.variance(i)
        rng = np.random.default_rng(int(blends.truth["noise_seed"][i]))
        lone = add_noise(target, sky, unit, rng, noise, correlation)
        for method, image in (("none", composed.noisy[i]), ("isolated", lone)):
            row = rows(table, method)[i]
            e1, e2, failed = ksb_shear(image[1], psf)
            assert row["shape_flag"] == failed
            np.testing.assert_array_equal([row["e1"], row["e2"]], [e1, e2])
            for number, band in enumerate(BANDS):
                error = -2.5 * np.log10(image[number].sum() / target[number].sum())
                assert row[f"mag_{band}_error"] == pytest.approx(error, abs=1e-4, nan_ok=True)
                assert row[f"mag_{band}_flag"] == (not image[number].sum() > 0)
                assert row[f"flux_{band}_error"] == pytest.approx(
                    image[number].sum() / target[number].sum() - 1, abs=1e-4
                )
            colour = row["mag_g_error"] - row["mag_r_error"]
            assert row["colour_g_r_error"] == pytest.approx(colour, abs=1e-9, nan_ok=True)
            a, b = image[1].ravel().astype(float), target[1].ravel().astype(float)
            assert row["cosine"] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
            assert row["chi2"] == pytest.approx((np.square(image - target) / variance).mean(), rel=1e-5)
            assert row["ssim"] == pytest.approx(float(ssim(image[1], target[1])))
            t1, t2, unknown = ksb_shear(target[1], psf)
            if not failed and not unknown:
                measurable += 1
                assert row["e_error"] == pytest.approx(np.hypot(e1, e2) - np.hypot(t1, t2), abs=1e-12)
                assert row["e2_error"] == pytest.approx(e2 - t2, abs=1e-12)
    assert measurable > 6


def test_an_isolated_target_differs_from_the_truth_by_its_noise(measured):
    alone = rows(measured, "isolated")
    # The scene's noise, in units of which that of the target alone is told, has its neighbours' photons too.
    np.testing.assert_allclose(np.median(alone["chi2"]), 1, atol=0.03)
    assert (alone["chi2"] < 1.1).all() and rows(measured, "none")["chi2"].max() > 2
    assert np.median(alone["cosine"]) > np.median(rows(measured, "none")["cosine"])


def test_output_of_half_the_light_has_half_of_every_flux_and_no_colour(blends):
    table = measure_stamps([blends], {"half": lambda batch: 0.5 * batch.target})
    for band in BANDS:
        np.testing.assert_allclose(table[f"flux_{band}_error"], -0.5, atol=1e-6)
        np.testing.assert_allclose(table[f"mag_{band}_error"], 2.5 * np.log10(2), atol=1e-5)
    np.testing.assert_allclose(table["colour_g_r_error"], 0, atol=1e-5)
    np.testing.assert_allclose(table["cosine"], 1)
    assert (table["ssim"] < 0.99).all()


def test_cost_is_told_and_shared_among_the_sources_that_a_method_separates(blends):
    def whole(batch):
        return batch.lone

    whole.whole_scenes = True
    meta = measure_stamps([blends], {"one": isolated, "all": whole}, max_scenes=7).meta
    galaxies = int(blends.truth["n_galaxies"][:7].sum())
    assert galaxies > 7 and meta["sources"]["blended"] == {"one": 7, "all": galaxies}
    for name in ("seconds", "cpu_seconds", "memory"):
        assert set(meta[name]["blended"]) == {"compose", "measure", "one", "all"}
    assert 0 < meta["cpu_seconds"]["blended"]["compose"] < 60


def test_scenes_come_in_slices_and_shards_one_after_the_other(blends, tmp_path, monkeypatch):
    blends.write(tmp_path / "shard.h5")
    methods = {"none": undeblended, "isolated": isolated}
    whole = measure_stamps([blends, blends], methods, shards=[3, 7], max_scenes=N + 7)
    seen = []

    def watching(batch):
        seen.append(len(batch.noisy))
        return batch.noisy

    monkeypatch.setattr(stamps, "_STEP", 8)
    with StampSample.open(tmp_path / "shard.h5") as opened:
        sliced = measure_stamps(
            [opened, opened], methods | {"none": watching}, shards=[3, 7], max_scenes=N + 7
        )
    same(whole, sliced)
    assert seen == [8, 8, 8, 6, 7]
    assert rows(whole, "none")["shard"].tolist() == [3] * N + [7] * 7


def test_noise_does_not_depend_on_the_bands_that_are_measured(blends, measured):
    some = measure_stamps([blends], {"none": undeblended}, bands=("r", "g"))
    for name in ("e1", "e_error", "mag_g_error", "mag_r_error"):
        np.testing.assert_array_equal(some[name], rows(measured, "none")[name])
    assert "mag_i_error" not in some.colnames


def test_a_network_sees_the_noisy_scenes_and_the_skys_noise(blends):
    calls = []

    def deblend(images, noise, batch_size):
        calls.append((images.copy(), noise, batch_size))
        return images, None, None

    network = SimpleNamespace(deblend=deblend, architecture=SimpleNamespace(conditional=False))
    table = measure_stamps([blends], {"deblender": network_method(network, 5)}, bands=("i", "r"))
    images, noise, batch_size = calls[0]
    np.testing.assert_array_equal(images, compose(blends).noisy[:][:, [2, 1]])
    # Images are in electrons.
    survey = get_survey("arcelin2020", BANDS)
    np.testing.assert_allclose(noise, [np.sqrt(survey[band].sky_level) for band in ("i", "r")])
    assert batch_size == 5 and set(table["method"]) == {"deblender"}


def test_a_conditional_network_is_told_the_psfs_of_each_scene():
    sample = simulate(6, kind="isolated", n=3, psf_fwhm_scatter=0.2, psf_shear_sigma=0.05)
    seen = []

    def deblend(images, noise, batch_size, psfs):
        seen.append(psfs)
        return images, None, None

    network = SimpleNamespace(deblend=deblend, architecture=SimpleNamespace(conditional=True))
    measure_stamps([sample], {"deblender": network_method(network)}, bands=("i", "r"))
    assert seen[0].shape == (3, 2, 63, 63)
    for index in range(3):
        for place, band in enumerate(("i", "r")):
            kind = sample.band_profile[BANDS.index(band)]
            expected = sample.psf_models(index)[kind].kernel(0.2, 63)
            np.testing.assert_allclose(seen[0][index, place], expected, atol=1e-7)
    assert abs(seen[0][0] - seen[0][1]).max() > 1e-3


def test_images_without_light_or_with_nan_are_flagged(blends):
    def broken(batch):
        images = batch.target.copy()
        images[0] = np.nan
        images[1] = 0
        return images

    table = measure_stamps([blends], {"broken": broken})
    assert table["shape_flag"][:2].all() and table["mag_r_flag"][:2].all()
    for name in ("e1", "e_error", "e1_error", "mag_g_error"):
        assert np.isnan(table[name][:2]).all(), name
    assert not table["shape_flag"][2:][~table["truth_flag"][2:]].any()
    row = summarise_stamps(table, n_bootstrap=0)[0]
    assert row["failures"] == (~table["truth_flag"][:2]).sum() and row["mag_failures"] == 2


def test_shapes_are_corrected_for_the_psf_of_each_scene():
    sample = simulate(2, kind="isolated", n=8, psf_fwhm_scatter=0.2, psf_shear_sigma=0.1)
    table = measure_stamps([sample], {"target": lambda batch: batch.target})
    np.testing.assert_allclose(table["e1_true"], sample.truth["e1"], atol=2e-3)
    usual = get_survey("arcelin2020", BANDS)["r"]
    wrong = [ksb_shear(sample.image(i)[1], usual.psf.kernel(usual.pixel_scale))[0] for i in range(8)]
    assert np.nanmax(np.abs(wrong - table["e1_true"])) > 0.02


def test_an_isolated_galaxy_is_its_own_scene():
    sample = simulate(3, kind="isolated", n=4)
    table = measure_stamps([sample], {"none": undeblended, "isolated": isolated})
    np.testing.assert_array_equal(rows(table, "none")["e1"], rows(table, "isolated")["e1"])


def test_a_galaxy_sheared_by_a_method_has_that_error():
    """A bright round galaxy, replaced by one of known shape: the error is that shape."""
    sample = simulate(4, kind="isolated", n=3)
    psf = sample.psf_models(0)[0].profile()
    galaxy = galsim.Convolve(galsim.Exponential(half_light_radius=0.5).shear(g1=0.2, g2=-0.1), psf)
    image = galaxy.drawImage(nx=64, ny=64, scale=0.2).array

    def replace(batch):
        return np.broadcast_to(image, batch.target.shape)

    table = measure_stamps([sample], {"known": replace})
    np.testing.assert_allclose(table["e1"], 0.2, atol=0.02)
    np.testing.assert_allclose(table["e2"], -0.1, atol=0.02)
    np.testing.assert_allclose(table["e1_error"], table["e1"] - table["e1_true"])


def test_tables_of_two_kinds_are_joined_with_what_they_came_from(measured):
    sample = simulate(5, kind="isolated", n=4)
    joined = join_errors([measure_stamps([sample], {"isolated": isolated}), measured])
    assert len(joined) == 4 + 3 * N
    assert set(joined["kind"][:4]) == {"isolated"} and set(joined["kind"][4:]) == {"blended"}
    assert set(joined.meta["samples"]) == set(joined.meta["seconds"]) == {"isolated", "blended"}
    assert joined.meta["samples"]["isolated"][0]["scenes"] == 4


def network(survey="arcelin2020", bands=BANDS, stamp_size=64):
    package = SimpleNamespace(name="toy", card={"survey": survey})
    return SimpleNamespace(package=package, bands=bands, stamp_size=stamp_size)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"survey": "lsst10yr"}, "survey 'lsst10yr', the sample of 'arcelin2020'"),
        ({"bands": ("r", "z")}, "no z"),
        ({"stamp_size": 32}, "32 pixels, the sample's have 64"),
    ],
)
def test_a_network_of_other_images_is_refused(blends, changes, words):
    check_network(network(bands=("i", "r")), blends)
    with pytest.raises(ModelPackageError, match=words):
        check_network(network(**changes), blends)


def test_samples_that_do_not_fit_are_refused(blends):
    with pytest.raises(ShardError, match="differ in kind"):
        measure_stamps([blends, simulate(6, kind="isolated", n=2)], {"none": undeblended})
    with pytest.raises(ShardError, match="no samples"):
        measure_stamps([], {"none": undeblended})
    with pytest.raises(ShardError, match="no band 'z'"):
        measure_stamps([blends], {"none": undeblended}, bands=("z",))
    with pytest.raises(VaeError, match="reference band is 'r'"):
        measure_stamps([blends], {"none": undeblended}, bands=("g",))
    with pytest.raises(VaeError, match="a method gave images"):
        measure_stamps([blends], {"odd": lambda batch: batch.noisy[:, :1]})
