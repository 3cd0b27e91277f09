# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Coverage counts truths that intervals hold, and the floors make it right."""

import dataclasses

import numpy as np
import pytest
from astropy.table import Table

pytest.importorskip("keras")

from lsst.meas.extensions.vae.deblending import DeblendSettings  # noqa: E402
from lsst.meas.extensions.vae.deblending.posterior import floor_errors  # noqa: E402
from lsst.meas.extensions.vae.errors import ShardError  # noqa: E402
from lsst.meas.extensions.vae.evaluation.coverage import coverage, fit_floors, posterior_errors  # noqa: E402
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies  # noqa: E402
from lsst.meas.extensions.vae.network.model import Network  # noqa: E402
from lsst.meas.extensions.vae.network.shipped import load_package  # noqa: E402
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps  # noqa: E402
from lsst.meas.extensions.vae.survey import get_survey  # noqa: E402

MAG = 2.5 / np.log(10)


def made_up(n, shape_floor, flux_floor, seed=0):
    """Errors of Gaussian noise of known widths, and of floors that the told widths leave out."""
    rng = np.random.default_rng(seed)
    e_sigma, mag_sigma = rng.uniform(0.01, 0.05, n), rng.uniform(0.02, 0.1, n)
    return Table(
        {
            "scene": np.arange(n),
            "snr": rng.uniform(5, 300, n),
            "e1_error": rng.normal(0, e_sigma) + shape_floor * floor_errors(rng, n),
            "e2_error": rng.normal(0, e_sigma) + shape_floor * floor_errors(rng, n),
            "mag_error": rng.normal(0, mag_sigma) + MAG * flux_floor * floor_errors(rng, n),
            "e1_sigma": e_sigma,
            "e2_sigma": e_sigma,
            "mag_sigma": mag_sigma,
        }
    )


def test_gaussian_errors_of_the_width_that_is_told_are_held_as_often_as_they_should_be():
    held = coverage(made_up(20_000, 0, 0), {"shape": 0.0, "flux": 0.0})
    assert held["n"] == 20_000
    for name in ("e", "mag"):
        assert held[f"{name}_68"] == pytest.approx(0.683, abs=0.01)
        assert held[f"{name}_95"] == pytest.approx(0.9545, abs=0.006)


def test_the_floors_that_were_left_out_are_found_and_mend_the_coverage():
    errors = made_up(8000, 0.04, 0.03)
    assert coverage(errors, {"shape": 0.0, "flux": 0.0})["e_68"] < 0.55
    floors = fit_floors(errors)
    assert floors["shape"] == pytest.approx(0.04, rel=0.05) and floors["flux"] == pytest.approx(
        0.03, rel=0.15
    )
    other = coverage(made_up(8000, 0.04, 0.03, seed=1), floors)
    assert other["e_68"] == pytest.approx(0.683, abs=0.012) and other["e_95"] == pytest.approx(
        0.95, abs=0.008
    )


@pytest.mark.parametrize("scale", [0.7, 1.6])
def test_intervals_that_are_too_wide_or_too_narrow_everywhere_are_scaled(scale):
    errors = made_up(8000, 0, 0)
    errors["e1_error"] *= scale
    errors["e2_error"] *= scale
    floors = fit_floors(errors)
    assert floors["shape_scale"] == pytest.approx(scale, rel=0.06) and floors["shape"] < 0.01
    assert floors["flux_scale"] == pytest.approx(1.0, rel=0.06)


def test_targets_without_errors_are_left_out_and_too_few_are_refused():
    errors = made_up(4000, 0.04, 0.03)
    errors["mag_sigma"][:1500] = np.nan
    floors = fit_floors(errors)
    assert list(floors) == ["shape", "flux", "shape_scale", "flux_scale", "tails"]
    assert floors["flux"] == pytest.approx(0.03, rel=0.5)
    with pytest.raises(ShardError, match="errors of 30 targets are known"):
        fit_floors(errors[1500:1530])


def test_tails_are_found_with_which_wide_intervals_hold_too():
    errors, rng = made_up(4000, 0, 0), np.random.default_rng(7)
    for name in ("e1", "e2", "mag"):
        errors[f"{name}_error"] = errors[f"{name}_sigma"] * rng.standard_t(3, 4000) / 1.197
    assert coverage(errors, {"shape": 0.0, "flux": 0.0})["e_95"] < 0.93
    floors = fit_floors(errors)
    assert floors["tails"] in (2.0, 3.0, 4.0)
    assert coverage(errors, floors)["e_95"] == pytest.approx(0.9545, abs=0.012)
    assert fit_floors(made_up(4000, 0, 0))["tails"] in (0.0, 8.0)


def test_scales_and_floors_together_hold_for_faint_and_bright_ones():
    errors = made_up(8000, 0.02, 0.02)
    faint = errors["e1_sigma"] > np.median(errors["e1_sigma"])
    for name in ("e1_error", "e2_error"):
        errors[name][faint] *= 1.4
    floors = fit_floors(errors)
    assert coverage(errors, floors)["e_68"] == pytest.approx(0.683, abs=0.008)
    for part in (errors[faint], errors[~faint]):
        assert coverage(part, floors)["e_68"] == pytest.approx(0.683, abs=0.04)


def test_coverage_can_be_told_by_signal_to_noise_and_leaves_out_what_was_not_measured():
    errors = made_up(1000, 0, 0)
    errors["e1_error"][:10] = np.nan
    assert coverage(errors, {"shape": 0.0, "flux": 0.0}, (50, 100))["n"] == np.sum(
        (errors["snr"] > 50) & (errors["snr"] <= 100)
    )
    assert np.isfinite(coverage(errors, {"shape": 0.0, "flux": 0.0})["e_68"])


@pytest.fixture(scope="module")
def network():
    return Network(load_package("lsst-ugrizy-morphology"))


@pytest.fixture(scope="module")
def sample(network):
    scenes = SceneSettings(placement="annulus", mag_limit=27.5, centring="none", colour_gradients=False)
    galaxies = synthetic_galaxies(5000, seed=3).split("test")
    return simulate_stamps(
        galaxies, get_survey("arcelin2020", network.bands), scenes, 8, seed=2, split="test"
    )


def test_targets_are_told_with_errors_and_widths_of_their_own_size(network, sample):
    errors = posterior_errors(sample, network, 8, n_samples=40)
    assert 6 <= len(errors) <= 8 and set(errors["scene"]) <= set(range(8))
    for name in ("e1", "e2", "mag"):
        assert (errors[f"{name}_sigma"] > 0).all() and (errors[f"{name}_sigma"] < 0.5).all()
        assert np.median(np.abs(errors[f"{name}_error"])) < 0.15
    again = posterior_errors(sample, network, 8, n_samples=40)
    np.testing.assert_allclose(again["e1_sigma"], errors["e1_sigma"])
    card = {**network.package.card, "posterior_floors": {"shape": 0.5, "flux": 0.5}}
    floored = Network(dataclasses.replace(network.package, card=card))
    one = posterior_errors(sample, floored, 2, n_samples=40, settings=DeblendSettings())
    assert (one["e1_sigma"] < 0.3).all()


def test_samples_without_a_table_of_objects_are_refused(network, sample):
    with pytest.raises(ShardError, match="0 objects"):
        posterior_errors(dataclasses.replace(sample, objects=Table()), network, 2)
