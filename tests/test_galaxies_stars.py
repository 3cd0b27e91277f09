# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stars: counts, and colours against direct integrations of black bodies."""

import galsim
import numpy as np
import pytest
from scipy.integrate import quad

from lsst.meas.extensions.vae.errors import CatalogError
from lsst.meas.extensions.vae.galaxies import fluxes, synthetic_stars
from lsst.meas.extensions.vae.survey import get_survey


def planck_photons(temperature, bandpass):
    """Photons of a black body through a bandpass, and of constant f_nu, by quadrature [any unit]."""
    exponent = 6.62607015e-34 * 2.99792458e8 / 1.380649e-23 / temperature

    def through(photons_per_metre):
        def integrand(nm):
            return bandpass(nm) * photons_per_metre(nm * 1e-9)

        return quad(integrand, bandpass.blue_limit, bandpass.red_limit, limit=2000, epsrel=1e-6)[0]

    return through(lambda m: m**-4 / np.expm1(exponent / m) * 1e-30), through(lambda m: 1e-7 / m)


@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")
@pytest.mark.parametrize("temperature", [3000.0, 4321.0, 7500.0])
def test_colours_are_those_of_a_direct_integration(temperature):
    survey = get_survey("lsst10yr", ["g", "r", "y"])
    rate = fluxes.blackbody_counts_per_second(survey, temperature, 22.0)
    magnitudes = fluxes.magnitudes_of_rates(survey, rate)
    photons, flat = planck_photons(temperature, galsim.Bandpass("ACS_wfc_F814W.dat", "nm"))
    for magnitude, band in zip(magnitudes, survey.bands):
        in_band, flat_in_band = planck_photons(temperature, galsim.Bandpass(f"LSST_{band.name}.dat", "nm"))
        expected = 22.0 - 2.5 * np.log10(in_band / flat_in_band * flat / photons)
        assert magnitude == pytest.approx(expected, abs=2e-3)


def test_paper_survey_counts_stars_as_it_counts_galaxies():
    """The same AB + 2.2 in r, whatever the source."""
    stars = synthetic_stars(100)
    paper = stars.magnitudes(get_survey("arcelin2020", ["r"]))
    honest = stars.magnitudes(get_survey("lsst10yr", ["r"]))
    np.testing.assert_allclose(paper - honest, 2.2, atol=0.3)


@pytest.mark.parametrize("name", ["arcelin2020", "lsst10yr"])
def test_magnitudes_are_those_of_the_fluxes(name):
    survey = get_survey(name, list("ugrizy"))
    stars = synthetic_stars(50, seed=2)
    electrons = stars.fluxes(survey)
    assert electrons.shape == (50, 6)
    for b, band in enumerate(survey.bands):
        rate = electrons[:, b] / band.exposure_time / band.area_ratio
        np.testing.assert_allclose(stars.magnitudes(survey)[:, b], band.zeropoint - 2.5 * np.log10(rate))


def test_counts_and_temperatures_follow_their_laws():
    stars = synthetic_stars(200_000, seed=3)
    assert 18.0 <= stars.mag_auto.min() and stars.mag_auto.max() <= 25.2
    counts, _ = np.histogram(stars.mag_auto, [20.0, 21.0, 24.0, 25.0])
    assert np.log10(counts[2] / counts[0]) == pytest.approx(4 * 0.13, abs=0.02)
    assert 3000.0 <= stars.temperature.min() and stars.temperature.max() <= 7500.0
    assert np.median(stars.temperature) == pytest.approx(3939, abs=15)
    assert synthetic_stars(1000, mag_limit=20.0).mag_auto.max() <= 20.0


def test_each_split_has_its_own_stars_and_none_is_a_galaxy():
    splits = [synthetic_stars(300, seed=4, split=split) for split in ("train", "validation", "test", "all")]
    idents = np.concatenate([stars.ident for stars in splits])
    assert len(set(idents)) == len(idents)
    assert idents.max() == -1
    assert len({stars.mag_auto[0] for stars in splits}) == 4
    again = synthetic_stars(300, seed=4, split="test")
    np.testing.assert_array_equal(again.mag_auto, splits[2].mag_auto)
    assert synthetic_stars(300, seed=5).mag_auto[0] != splits[0].mag_auto[0]


@pytest.mark.parametrize(
    "bad, words",
    [
        ({"n": 0}, "1 at least"),
        ({"n": 5, "seed": -1}, "0 at least"),
        ({"n": 5, "split": "dev"}, "Unknown split 'dev'"),
        ({"n": 5, "mag_limit": 17.0}, "more than 18"),
        ({"n": 5, "mag_limit": np.nan}, "more than 18"),
    ],
)
def test_stars_that_cannot_be_drawn_are_refused(bad, words):
    with pytest.raises(CatalogError, match=words):
        synthetic_stars(**bad)
