# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples as a whole: who is in them, and how they are distributed."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lsst.meas.extensions.vae.galaxies import cosmos_path, load_cosmos, synthetic_galaxies
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.survey import get_survey

DATA = Path(__file__).parent / "data"
SPLITS = {"train": 0, "validation": 1, "test": 2}

needs_cosmos = pytest.mark.skipif(
    not cosmos_path().is_file(), reason="COSMOS has not been fetched (bin/getCosmos.py)"
)


@pytest.fixture(scope="module")
def cosmos():
    return load_cosmos()


@pytest.fixture(scope="module")
def maker():
    """The script that made the stored histograms."""
    spec = importlib.util.spec_from_file_location("makeCosmosHistograms", DATA / "makeCosmosHistograms.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def probability(counts, reference):
    """Probability that both were drawn from one distribution, by chi-square of the Poisson errors of both."""
    counts, reference = np.asarray(counts, float), np.asarray(reference, float)
    ratio = counts.sum() / reference.sum()
    expected = reference * ratio
    # Bins are joined until Poisson is normal.
    joined = np.searchsorted(np.arange(10, expected.sum(), 10), np.cumsum(expected), side="right")
    counts, expected = (np.bincount(joined, values) for values in (counts, expected))
    chosen = expected > 0
    chi2 = ((counts - expected)[chosen] ** 2 / (expected[chosen] * (1 + ratio))).sum()
    return stats.chi2(chosen.sum() - 1).sf(chi2)


@needs_cosmos
def test_ellipticity_magnitude_and_redshift_of_cosmos_are_the_stored_ones(cosmos, maker):
    stored = json.loads((DATA / "cosmos_histograms.json").read_text())
    found = maker.histograms(1500, seed=77, galaxies=cosmos)
    assert set(found) == set(stored)
    for name, counts in found.items():
        assert counts.sum() > 1450 and len(counts) == len(stored[name])
        assert probability(counts, stored[name]) > 1e-3, name


@needs_cosmos
def test_another_population_is_told_from_the_stored_one(cosmos, maker):
    """A tenth of a magnitude in the cut, and synthetic galaxies, show."""
    stored = json.loads((DATA / "cosmos_histograms.json").read_text())
    cut = dataclasses.replace(maker.SETTINGS, mag_limit=27.2)
    assert probability(maker.histograms(1500, 77, cosmos, cut)["r_mag"], stored["r_mag"]) < 1e-4
    other = maker.histograms(1500, 77, synthetic_galaxies(20_000, seed=1))
    assert min(probability(other[name], stored[name]) for name in stored) < 1e-6


@needs_cosmos
def test_a_fifth_of_peak_centred_blends_are_not_about_the_brightest_galaxy(cosmos):
    """Arcelin et al. 2020, section 2.1.4: about 20 %; 0.183 in 1524 of our blends."""
    settings = SceneSettings(
        centring="peaks", min_galaxies=2, min_neighbour_distance=0.0, colour_gradients=False
    )
    truth = simulate_stamps(cosmos, get_survey("arcelin2020", "r"), settings, 400, seed=3).truth
    fraction = np.mean(~np.asarray(truth["target_is_brightest"]))
    assert 0.14 < fraction < 0.26
    # The flag and the magnitudes tell the same of the nearest neighbour.
    assert not np.any(np.asarray(truth["target_is_brightest"]) & (truth["delta_mag_c"] < 0))


@pytest.mark.parametrize("split", list(SPLITS))
def test_no_galaxy_of_another_split_is_in_a_sample(split):
    galaxies = synthetic_galaxies(3000, seed=5)
    settings = SceneSettings(star_fraction=0.2)
    sample = simulate_stamps(galaxies, get_survey("arcelin2020", "r"), settings, 100, seed=1, split=split)
    objects = sample.objects
    star, ident = np.asarray(objects["star"]), np.asarray(objects["ident"])
    remainder = ident[~star] % 16
    number = np.where(remainder == 0, 2, np.where(remainder == 1, 1, 0))
    assert (objects["galaxy"] > 0).sum() > 100 and (number == SPLITS[split]).all()
    assert (ident[star] < 0).all() and (ident[~star] >= 0).all()
    expected = np.where(sample.truth["star"], -1, SPLITS[split])
    np.testing.assert_array_equal(sample.truth["split"], expected)


def test_no_star_is_in_two_splits():
    galaxies = synthetic_galaxies(1000, seed=5)
    settings = SceneSettings(kind="isolated", star_fraction=1.0)
    stars = {}
    for split in SPLITS:
        sample = simulate_stamps(galaxies, get_survey("arcelin2020", "r"), settings, 100, seed=1, split=split)
        stars[split] = set(sample.objects["ident"].tolist())
    assert len(stars["train"]) > 90
    assert not stars["train"] & stars["validation"] and not stars["test"] & (
        stars["train"] | stars["validation"]
    )


def test_every_object_passes_the_magnitude_limit():
    galaxies = synthetic_galaxies(3000, seed=5)
    for name, limit in (("arcelin2020", 25.5), ("lsst10yr", 24.0)):
        settings = SceneSettings(mag_limit=limit, star_fraction=0.3)
        sample = simulate_stamps(galaxies, get_survey(name, "gr"), settings, 60, seed=1)
        magnitudes = np.asarray(sample.objects["mag_r"])
        assert limit - 0.5 < magnitudes.max() < limit


def test_stars_have_their_share_of_objects_and_of_targets():
    galaxies = synthetic_galaxies(3000, seed=5)
    settings = SceneSettings(star_fraction=0.3)
    sample = simulate_stamps(galaxies, get_survey("lsst10yr", "r"), settings, 200, seed=1)
    share = np.mean(sample.objects["star"])
    assert share == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / len(sample.objects)))
    # Stars are brighter than galaxies, so more often the target.
    assert np.mean(sample.truth["star"]) > share
    assert np.isnan(sample.objects["redshift"][sample.objects["star"]]).all()
