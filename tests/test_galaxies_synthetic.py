# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The synthetic population has the statistics that it is said to have."""

import galsim
import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import CatalogError
from lsst.meas.extensions.vae.galaxies import SED_NAMES, synthetic, synthetic_galaxies


@pytest.fixture(scope="module")
def galaxies():
    return synthetic_galaxies(60_000, seed=11)


def test_the_same_seed_gives_the_same_galaxies_and_another_others():
    first, again, other = (synthetic_galaxies(50, seed) for seed in (1, 1, 2))
    for name in first.table.colnames:
        np.testing.assert_array_equal(first.table[name], again.table[name])
    assert (first.mag_auto != other.mag_auto).all()


def test_a_sum_tells_populations_apart_and_is_the_same_for_all_their_splits():
    catalogs = [synthetic_galaxies(50), synthetic_galaxies(51), synthetic_galaxies(50, seed=2)]
    catalogs.append(synthetic_galaxies(50, mag_limit=25.0))
    assert len({catalog.sha256 for catalog in catalogs}) == 4
    assert all(len(catalog.sha256) == 64 for catalog in catalogs)
    assert synthetic_galaxies(50).sha256 == catalogs[0].sha256 == catalogs[0].split("test").sha256
    table = catalogs[0].table.copy()
    table["bulgefit"][7, 11] *= 1.0001
    assert synthetic._sha256(table) != catalogs[0].sha256
    # The last digit, in which processors differ, does not count.
    table = catalogs[0].table.copy()
    table["zphot"] = np.nextafter(table["zphot"], 9)
    assert synthetic._sha256(table) == catalogs[0].sha256


def test_number_density_has_the_known_counts():
    assert synthetic.number_density(25.0) == pytest.approx(46)
    assert synthetic.number_density(25.3) == pytest.approx(57, rel=0.01)
    assert synthetic.number_density(28.0) == pytest.approx(238, rel=0.01)
    limits = np.linspace(19, 28, 500)
    counts = synthetic.number_density(limits)
    assert (np.diff(counts) > 0).all()
    # No jump where one law takes over from the next.
    assert np.abs(np.diff(np.log(counts), 2)).max() < 5e-3


def test_magnitudes_follow_the_counts_to_the_limit(galaxies):
    magnitude = galaxies.mag_auto
    assert magnitude.max() <= 25.2
    assert (magnitude < 24.2).mean() == pytest.approx(10**-0.31, abs=0.01)
    deep = synthetic_galaxies(20_000, seed=12, mag_limit=28).mag_auto
    assert (deep < 25.3).mean() == pytest.approx(57 / 238, abs=0.015)


def test_sizes_follow_magnitude_and_stop_shrinking_at_25(galaxies):
    def sizes(catalog, magnitude):
        near = np.abs(catalog.mag_auto - magnitude) < 0.1
        return np.log(np.asarray(catalog.table["hlr"])[near, 0])

    at_24 = sizes(galaxies, 24.0)
    assert np.median(at_24) == pytest.approx(-0.99 - 0.324 * 2, abs=0.04)
    assert at_24.std() == pytest.approx(0.42, abs=0.03)
    deep = synthetic_galaxies(20_000, seed=12, mag_limit=28)
    assert np.median(sizes(deep, 27.0)) == pytest.approx(np.log(0.14), abs=0.05)


def test_population_is_like_cosmos(galaxies):
    percentiles = [5, 50, 95]
    hlr = np.asarray(galaxies.table["hlr"])[:, 0]
    np.testing.assert_allclose(np.percentile(galaxies.mag_auto, percentiles), [21.4, 24.2, 25.1], atol=0.15)
    np.testing.assert_allclose(np.percentile(hlr, percentiles), [0.07, 0.21, 0.64], rtol=0.25)
    two = np.asarray(galaxies.table["use_bulgefit"]) != 0
    assert two.mean() == pytest.approx(23_425 / 81_499, abs=0.02)
    share = np.bincount(galaxies.components.sed[~two, 0], minlength=3) / len(galaxies)
    cosmos = np.array([7_442, 7_565, 43_067]) / 81_499
    np.testing.assert_allclose(
        share, cosmos[["E Sbc Scd".split().index(name) for name in SED_NAMES]], atol=0.12
    )


def test_profiles_have_the_known_spread(galaxies):
    components = galaxies.components
    two = components.flux_fraction[:, 1] > 0
    bulge = components.flux_fraction[two, 0]
    np.testing.assert_allclose(
        np.percentile(bulge, [5, 16, 50, 84, 95]), [0.084, 0.119, 0.330, 0.699, 0.853], atol=0.02
    )
    log_n = np.log(components.sersic_n[~two, 0])
    # Truncated normal numbers: mean and sigma before truncation are 0.12 and 0.63.
    assert np.median(log_n) == pytest.approx(0.12, abs=0.03)
    assert np.exp(log_n).min() >= 0.3
    assert np.exp(log_n).max() <= 6.0
    np.testing.assert_allclose(components.hlr[two, 0] / components.hlr[two, 1], 0.38)


def test_ellipticities_are_isotropic_with_the_known_rms(galaxies):
    components = galaxies.components
    for column in (0, 1):
        present = components.flux_fraction[:, column] > 0
        ellipticity = (1 - components.q) / (1 + components.q)
        angle = 2 * components.position_angle[present, column]
        e1 = ellipticity[present, column] * np.cos(angle)
        e2 = ellipticity[present, column] * np.sin(angle)
        assert e1.std() == pytest.approx(0.261, abs=0.006)
        assert e2.std() == pytest.approx(0.261, abs=0.006)
        assert abs(e1.mean()) < 0.01
        assert abs(e2.mean()) < 0.01


def test_redshifts_deepen_with_magnitude(galaxies):
    # The mean of z^2 exp(-z / z0) is 3 z0.
    for magnitude in (22.0, 24.5):
        near = np.abs(galaxies.mag_auto - magnitude) < 0.1
        assert galaxies.redshift[near].mean() == pytest.approx(3 * (0.0417 * magnitude - 0.744), rel=0.06)


@pytest.mark.parametrize("share", [0.1, 0.33, 0.8])
def test_bulge_and_disc_together_have_the_half_light_radius_drawn(share):
    disc = float(synthetic._disc_radius_ratio(share))
    total = galsim.DeVaucouleurs(half_light_radius=0.38 * disc, flux=share)
    total += galsim.Exponential(half_light_radius=disc, flux=1 - share)
    assert total.calculateHLR(scale=0.02, size=800) == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize(("n", "limit"), [(0, 25.2), (2.5, 25.2), (10, 17.0), (10, 29.0), (10, float("nan"))])
def test_impossible_requests_are_refused(n, limit):
    with pytest.raises(CatalogError, match="ynthetic galaxies"):
        synthetic_galaxies(n, mag_limit=limit)
