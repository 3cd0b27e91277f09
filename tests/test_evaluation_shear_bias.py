# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shear biases of images and tables whose biases are known."""

import numpy as np
import pytest
from astropy.table import Table, vstack

from lsst.meas.extensions.vae.errors import VaeError
from lsst.meas.extensions.vae.evaluation.shear_bias import TARGET, shear_bias
from lsst.meas.extensions.vae.evaluation.stamps import isolated, measure_stamps
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.survey import get_survey

# Pixels of samples are rounded, which a larger step drowns.
STEP, N = 0.05, 16
SHEARS = [(0.0, 0.0), (STEP, 0.0), (-STEP, 0.0), (0.0, STEP), (0.0, -STEP)]


def sheared(step):
    galaxies, survey = synthetic_galaxies(1000, seed=1), get_survey("arcelin2020", ("r",))
    settings = SceneSettings(kind="isolated", shear_step=step)
    return simulate_stamps(galaxies, survey, settings, N, seed=2, split="test")


@pytest.fixture(scope="module")
def measured():
    """Besides the noisy target, the same galaxies sheared by 1 % more than the truth tells."""
    sample, more = sheared(STEP), sheared(1.01 * STEP)
    np.testing.assert_array_equal(sample.truth["ident"], more.truth["ident"])

    def stronger(batch):
        return np.stack([more.image(index, "target") for index in batch.scenes])

    return measure_stamps([sample], {"stronger": stronger, "isolated": isolated})


def table(n=500, m=(0.0, 0.0), c=(0.0, 0.0), noise=0.0, response=1.0, method="one", seed=1):
    """Ellipticities of known bias, as `measure_stamps` names them; noise is each version's own."""
    rng = np.random.default_rng(seed)
    shapes = rng.normal(0, 0.25, (n, 2))
    parts = []
    for shear in SHEARS:
        part = Table({"base_scene": np.arange(n), "snr": np.linspace(5, 100, n)})
        part["g1"], part["g2"] = (np.full(n, value) for value in shear)
        for i in (0, 1):
            part[f"e{i + 1}_true"] = shapes[:, i] + response * shear[i]
            part[f"e{i + 1}"] = shapes[:, i] + (1 + m[i]) * response * shear[i] + c[i]
            part[f"e{i + 1}"] += rng.normal(0, 1, n) * noise
        parts.append(part)
    found = vstack(parts)
    found["method"], found["kind"], found["shard"] = method, "blended", 0
    found.meta = {"survey": "arcelin2020"}
    return found[rng.permutation(len(found))]


def test_images_sheared_by_one_percent_more_have_an_m_of_001(measured):
    target, stronger, _ = shear_bias(measured)
    assert target["method"] == TARGET and stronger["scenes"] == N
    for i in (1, 2):
        assert stronger[f"number_{i}"] >= N - 2
        assert stronger[f"m_{i}_relative"] == pytest.approx(0.01, abs=1e-3)
        assert stronger[f"m_{i}_relative"] - 0.01 < 4 * stronger[f"m_{i}_relative_error"] < 4e-3
        expected = 1.01 * (1 + target[f"m_{i}"]) - 1
        assert stronger[f"m_{i}"] == pytest.approx(expected, abs=1e-3)
        assert stronger[f"c_{i}_relative"] == 0 and target[f"m_{i}_relative"] == 0
        # KSB of a noiseless galaxy is a few percent off.
        assert abs(target[f"m_{i}"]) < 0.25


def test_an_added_constant_is_c_and_moves_no_m(measured):
    moved = measured.copy()
    moved["e1"] += 0.003
    moved["e2"] -= 0.005
    for before, after in list(zip(shear_bias(measured), shear_bias(moved)))[1:]:
        assert after["c_1"] - before["c_1"] == pytest.approx(0.003)
        assert after["c_2_relative"] - before["c_2_relative"] == pytest.approx(-0.005)
        assert after["m_1"] == pytest.approx(before["m_1"], abs=1e-9)


def test_shared_noise_and_shapes_cancel(measured):
    """The scatter of shapes themselves, over twice the step and the root of the number, would be 0.6."""
    alone = shear_bias(measured)[2]
    assert alone["method"] == "isolated" and alone["m_1_error"] < 0.15
    assert alone["c_1_relative_error"] < alone["c_1_error"]


def test_biases_are_those_put_in():
    found = shear_bias(table(m=(0.02, -0.03), c=(1e-3, -2e-3), response=1.1))
    target, one = found
    assert target["m_1"] == pytest.approx(0.1) and target["m_1_error"] < 1e-9
    assert (one["m_1_relative"], one["m_2_relative"]) == (pytest.approx(0.02), pytest.approx(-0.03))
    assert one["m_1"] == pytest.approx(1.1 * 1.02 - 1)
    assert (one["c_1_relative"], one["c_2_relative"]) == (pytest.approx(1e-3), pytest.approx(-2e-3))
    assert found.meta["shear_step"] == STEP and found.meta["survey"] == "arcelin2020"
    assert all(found[name].description for name in found.colnames)


def test_errors_are_the_scatter_over_base_scenes():
    many = [shear_bias(table(100, noise=0.002, seed=seed))[1] for seed in range(150)]
    for name, expected in (
        ("m_1", 0.002 * np.sqrt(2) / (2 * STEP) / 10),
        ("m_2_relative", 0.002 * np.sqrt(2) / (2 * STEP) / 10),
        ("c_1", np.hypot(0.25, 0.002) / 10),
        ("c_2_relative", 0.002 / 10),
    ):
        assert np.std([row[name] for row in many]) == pytest.approx(expected, rel=0.2), name
        assert np.median([row[f"{name}_error"] for row in many]) == pytest.approx(expected, rel=0.05), name
    # Errors fall with the root of the number.
    needed = np.median([row["scenes_needed"] for row in many])
    assert needed == pytest.approx(100 * (many[0]["m_1_error"] / 3e-3) ** 2, rel=0.25)


def test_a_scene_counts_by_the_versions_that_have_a_shape():
    errors = table(50, m=(0.01, 0.01))
    base, g1, g2 = (np.asarray(errors[name]) for name in ("base_scene", "g1", "g2"))
    errors["e1"][(base < 4) & (g1 > 0)] = np.nan
    errors["e2"][(base == 7) & (g2 == 0) & (g1 == 0)] = np.nan
    row = shear_bias(errors)[1]
    assert (row["scenes"], row["number_1"], row["number_2"]) == (50, 46, 50)
    assert row["m_1"] == pytest.approx(0.01) and row["m_2"] == pytest.approx(0.01)
    # One that lacks a version altogether is none.
    lacking = errors[~((base == 9) & (g2 < 0))]
    assert shear_bias(lacking)[1]["scenes"] == 49


def test_scenes_are_chosen_by_their_signal_to_noise_without_shear():
    errors = table(96)
    errors["snr"] = np.where(errors["g1"] == 0, errors["snr"], 0.0)
    found = shear_bias(errors, snr_min=50)
    assert found["scenes"].tolist() == [51, 51] and found.meta["snr_min"] == 50


def test_methods_and_shards_are_kept_apart():
    one, other = table(30, m=(0.1, 0.1)), table(30, method="two")
    twice = table(30, m=(0.3, 0.3))
    twice["shard"] = 1
    found = shear_bias(vstack([one, twice, other], metadata_conflicts="silent"))
    assert found["method"].tolist() == [TARGET, "one", "two"] and found["scenes"].tolist() == [60, 60, 30]
    np.testing.assert_allclose(found["m_1"], [0, 0.2, 0], atol=1e-9)


def test_too_few_scenes_have_no_bias():
    row = shear_bias(table(1))[1]
    assert np.isnan([row["m_1"], row["m_1_error"], row["c_2"], row["scenes_needed"]]).all()


def test_tables_without_versions_are_refused():
    errors = table(5)
    with pytest.raises(VaeError, match="no scene of the table is sheared"):
        shear_bias(errors[(errors["g1"] == 0) & (errors["g2"] == 0)])
    errors["g2"][0] = 0.004
    with pytest.raises(VaeError, match="one shear step"):
        shear_bias(errors)
    errors.remove_column("base_scene")
    with pytest.raises(VaeError, match="no column base_scene"):
        shear_bias(errors)
