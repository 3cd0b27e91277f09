# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Likeness of images beside the definitions, written out; and what computations are said to cost."""

import time

import numpy as np
import pytest

from lsst.meas.extensions.vae.evaluation import cost
from lsst.meas.extensions.vae.evaluation.cost import CostMeter
from lsst.meas.extensions.vae.evaluation.metrics import (
    colour_pairs,
    cosine_similarity,
    residual_chi2,
    ssim,
)


def galaxy(width, noise=0.0, seed=1, size=40):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    image = 100 * np.exp(-0.5 * (x**2 + y**2) / width**2)
    return image + np.random.default_rng(seed).normal(0, 1, image.shape) * noise


def ssim_by_definition(image, target):
    """Equations 6 to 13 of Wang et al. 2004 (K1 0.01, K2 0.03, 11 x 11 Gaussian of sigma 1.5), in loops."""
    grid = np.arange(11) - 5
    window = np.exp(-(grid[:, None] ** 2 + grid**2) / (2 * 1.5**2))
    window /= window.sum()
    reach = target.max() - target.min()
    c1, c2 = (0.01 * reach) ** 2, (0.03 * reach) ** 2
    found = []
    for y in range(image.shape[0] - 10):
        for x in range(image.shape[1] - 10):
            a, b = image[y : y + 11, x : x + 11], target[y : y + 11, x : x + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            found.append(
                (2 * mean_a * mean_b + c1)
                * (2 * covariance + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
            )
    return np.mean(found)


@pytest.mark.parametrize("image", [galaxy(3, 4.0), galaxy(4), 0.7 * galaxy(3), -galaxy(3)])
def test_ssim_is_that_of_the_paper(image):
    target = galaxy(3)
    assert ssim(image, target) == pytest.approx(ssim_by_definition(image, target), abs=1e-9)


def test_ssim_of_the_same_is_1_and_does_not_depend_on_the_unit():
    target, image = galaxy(3), galaxy(3, 5.0)
    assert ssim(target, target) == pytest.approx(1)
    assert ssim(1e-3 * image, 1e-3 * target) == pytest.approx(ssim(image, target), rel=1e-9)
    stack = np.stack([[image, target], [target, image]])
    expected = [[ssim(image, target), 1], [1, ssim(image, target)]]
    np.testing.assert_allclose(ssim(stack, np.broadcast_to(target, stack.shape)), expected)


def test_what_has_no_likeness_is_nan():
    target, empty, bad = galaxy(3), np.zeros((40, 40)), galaxy(3)
    bad[20, 20] = np.nan
    assert np.isnan(ssim(target, empty)) and np.isnan(ssim(bad, target))
    assert np.isnan(cosine_similarity(empty, target)) and np.isnan(cosine_similarity(bad, target))
    assert np.isnan(residual_chi2(bad[None], target[None], 1.0))


def test_cosine_is_that_of_an_angle():
    a, b = np.zeros((2, 2, 2))
    a[0, 0], b[0, 0], b[1, 1] = 3, 1, np.sqrt(3)
    assert cosine_similarity(a, b) == pytest.approx(0.5)
    assert cosine_similarity(7 * b, b) == pytest.approx(1) and cosine_similarity(-b, b) == pytest.approx(-1)


def test_chi2_of_noise_is_1_and_of_an_offset_its_square():
    rng = np.random.default_rng(2)
    target = np.zeros((2, 3, 64, 64))
    variance = rng.uniform(1, 9, target.shape)
    noisy = target + rng.normal(size=target.shape) * np.sqrt(variance)
    np.testing.assert_allclose(residual_chi2(noisy, target, variance), 1, atol=0.05)
    np.testing.assert_allclose(residual_chi2(target + 2, target, 16.0), 0.25)


def test_colours_are_of_adjacent_bands_and_g_r():
    assert colour_pairs("ugr") == [("u", "g"), ("g", "r")]
    assert colour_pairs(("g", "i", "r")) == [("g", "i"), ("i", "r"), ("g", "r")]
    assert colour_pairs(("VIS",)) == []


def test_time_and_memory_are_counted_by_part():
    meter = CostMeter(["sleep", "fill"])
    assert meter.run("sleep", lambda x: time.sleep(0.05) or x, 3) == 3
    meter.run("fill", lambda: np.ones(20 * 2**17).sum())
    assert 0.05 <= meter.seconds["sleep"] < 1 and meter.cpu_seconds["sleep"] < 0.04
    if np.isfinite(meter.memory["fill"]):
        assert 15 < meter.memory["fill"] < 40 and meter.memory["sleep"] < 5
        meter.run("fill", lambda: None)
        assert meter.memory["fill"] > 15


def test_where_the_system_tells_no_memory_it_is_nan(monkeypatch, tmp_path):
    monkeypatch.setattr(cost, "_STATUS", tmp_path / "none" / "status")
    monkeypatch.setattr(cost, "_RESET", tmp_path / "none" / "clear_refs")
    meter = CostMeter(["fill"])
    meter.run("fill", lambda: np.ones(1000))
    assert np.isnan(meter.memory["fill"]) and meter.seconds["fill"] > 0
