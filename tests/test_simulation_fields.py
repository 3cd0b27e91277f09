# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole fields: noise, positions and truth."""

import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import SurveyError, VaeError
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.simulation.fields import FieldSettings, isolated_stamp, simulate_field
from lsst.meas.extensions.vae.survey import get_survey


@pytest.fixture(scope="module")
def galaxies():
    return synthetic_galaxies(2000, seed=5)


@pytest.fixture(scope="module")
def survey():
    return get_survey("lsst10yr", "gri")


@pytest.fixture(scope="module")
def field(galaxies, survey):
    return simulate_field(galaxies, survey, FieldSettings(size=(160, 200), density_per_arcmin2=60.0), seed=2)


def noiseless(field):
    """The field's sources, each drawn alone from the truth table."""
    total = np.zeros((len(field.bands), 160 + 512, 200 + 512), np.float32)
    for row in range(len(field.truth)):
        stamp, (y0, x0) = field.isolated(row, size=256)
        total[:, y0 + 256 : y0 + 512, x0 + 256 : x0 + 512] += stamp
    return total[:, 256:-256, 256:-256]


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


def test_field_is_the_sum_of_its_galaxies_and_noise(field):
    pull = (field.images - noiseless(field)) / np.sqrt(field.variance)
    assert pull.std() == pytest.approx(1.0, abs=0.02)
    assert abs(pull.mean()) < 0.02
    assert abs(pull).max() < 6


def test_variance_does_not_follow_the_noise(field, survey):
    sources = noiseless(field)
    for b, band in enumerate(survey.bands):
        expected = (sources[b] * band.electrons_per_unit + band.sky_level) / band.electrons_per_unit**2
        np.testing.assert_allclose(field.variance[b], expected, rtol=0.01)


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


def test_same_seed_gives_the_same_bits(galaxies, survey, field):
    again = simulate_field(galaxies, survey, FieldSettings(size=(160, 200), density_per_arcmin2=60.0), seed=2)
    np.testing.assert_array_equal(again.images, field.images)
    for name in field.truth.colnames:
        np.testing.assert_array_equal(again.truth[name], field.truth[name])


def test_psfs_are_the_bands_kernels(field, survey):
    assert field.psfs.shape == (3, 41, 41)
    np.testing.assert_allclose(field.psfs.sum(axis=(1, 2)), 1.0)
    np.testing.assert_allclose(field.psfs[2], survey["i"].psf.kernel(0.2, 41))


def test_bands_of_several_pixel_scales_are_refused(galaxies):
    with pytest.raises(SurveyError, match="pixel scales"):
        simulate_field(galaxies, get_survey("arcelin2020", ["r", "VIS"]), FieldSettings(size=64), seed=1)


@pytest.mark.parametrize(
    "wrong", [{"size": 2}, {"density_per_arcmin2": -1.0}, {"max_stamp": 8}, {"edge": -3}, {"shear_g2": 1.5}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(VaeError, match=next(iter(wrong))[:5]):
        FieldSettings(**wrong)
