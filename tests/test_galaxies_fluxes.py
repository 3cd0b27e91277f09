# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fluxes of galaxies agree with GalSim's chromatic COSMOSCatalog, and magnitudes with the AB definition."""

import os
from pathlib import Path

import galsim
import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import SurveyError
from lsst.meas.extensions.vae.galaxies import (
    SED_NAMES,
    GalaxyCatalog,
    fluxes,
    load_cosmos,
    synthetic_galaxies,
)
from lsst.meas.extensions.vae.simulation.library import GalaxyLibrary
from lsst.meas.extensions.vae.survey import get_survey

SHARED = Path(os.environ.get("MEAS_EXTENSIONS_VAE_SHARED") or Path(__file__).parents[2] / "shared")
EXAMPLE = SHARED / "data/cosmos_galsim_example/real_galaxy_catalog_23.5_example_fits.fits"

HAS_SPECLITE = fluxes._package_dir("speclite") is not None


@pytest.mark.skipif(not EXAMPLE.is_file(), reason="the shared GalSim example catalogue is absent")
def test_fluxes_agree_with_galsims_chromatic_galaxies():
    catalog = load_cosmos(EXAMPLE)
    reference = galsim.COSMOSCatalog(str(EXAMPLE), use_real=False, exclusion_level="none")
    survey = get_survey("arcelin2020", list("ugrizy"))
    bandpasses = [galsim.Bandpass(f"LSST_{name}.dat", "nm") for name in survey.band_names]
    ours = catalog.fluxes(survey).sum(axis=1)
    n_two = 0
    for index in range(0, len(catalog), 7):
        galaxy = reference.makeGalaxy(index, gal_type="parametric", chromatic=True, sersic_prec=0)
        rates = np.array([galaxy.calculateFlux(bandpass) for bandpass in bandpasses])
        scale = np.array([band.exposure_time for band in survey.bands]) * 44.6224 / 5.132736
        np.testing.assert_allclose(ours[index], rates * scale, rtol=1e-4)
        n_two += catalog.table["use_bulgefit"][index] != 0
    assert n_two > 2


@pytest.mark.skipif(not EXAMPLE.is_file(), reason="the shared GalSim example catalogue is absent")
def test_components_agree_with_galsims_profiles():
    catalog = load_cosmos(EXAMPLE)
    reference = galsim.COSMOSCatalog(str(EXAMPLE), use_real=False, exclusion_level="none")
    components = catalog.components
    for index in range(0, len(catalog), 7):
        galaxy = reference.makeGalaxy(index, gal_type="parametric", sersic_prec=0)
        ours = []
        for k in range(2 if components.flux_fraction[index, 1] > 0 else 1):
            profile = galsim.Sersic(components.sersic_n[index, k], half_light_radius=components.hlr[index, k])
            q, angle = components.q[index, k], components.position_angle[index, k] * galsim.radians
            ours.append(profile.shear(q=q, beta=angle) * components.flux_fraction[index, k])
        psf = galsim.Gaussian(fwhm=0.5)
        image = galsim.Convolve(galsim.Add(ours), psf).drawImage(nx=33, ny=33, scale=0.2).array
        expected = galsim.Convolve(galaxy / galaxy.flux, psf).drawImage(nx=33, ny=33, scale=0.2).array
        np.testing.assert_allclose(image, expected, atol=1e-3 * expected.max())


@pytest.mark.parametrize("sed", range(3))
@pytest.mark.parametrize("redshift", [0.0, 0.7, 3.1])
def test_lsst10yr_magnitudes_are_galsims_photon_counting_ab(sed, redshift):
    survey = get_survey("lsst10yr")
    spectrum = galsim.SED(f"CWW_{SED_NAMES[sed]}_ext_more.sed", "Ang", "flambda").atRedshift(redshift)
    anchor = galsim.Bandpass("ACS_wfc_F814W.dat", "nm").withZeropoint("AB")
    spectrum = spectrum.withMagnitude(24.0, anchor)
    rate = fluxes.counts_per_second(survey, sed, redshift, 24.0)
    for index, band in enumerate(survey.bands):
        expected = spectrum.calculateMagnitude(
            galsim.Bandpass(f"LSST_{band.name}.dat", "nm").withZeropoint("AB")
        )
        assert band.zeropoint - 2.5 * np.log10(rate[index]) == pytest.approx(expected, abs=2e-3)


@pytest.mark.skipif(not HAS_SPECLITE, reason="speclite is not installed")
def test_euclid_fluxes_go_through_the_true_bandpasses():
    """Against speclite's own AB magnitudes of the same SED."""
    import astropy.units as u
    from speclite.filters import load_filter

    spectrum = galsim.SED("CWW_Scd_ext.sed", "Ang", "flambda")
    wave = np.geomspace(2900, 22040, 20000)
    f_lambda = spectrum(wave / 10) / wave * u.Unit("erg / (s cm2 Angstrom)")
    colour = load_filter("Euclid-VIS").get_ab_magnitude(f_lambda, wave * u.Angstrom)
    colour -= load_filter("Euclid-H").get_ab_magnitude(f_lambda, wave * u.Angstrom)
    vis = fluxes._ratio_table("Euclid_VIS", "VIS", "AB")[SED_NAMES.index("Scd"), 0]
    h = fluxes._ratio_table("Euclid_NISP", "H", "AB")[SED_NAMES.index("Scd"), 0]
    assert -2.5 * np.log10(vis / h) == pytest.approx(colour, abs=5e-3)


def test_euclid_without_speclite_is_a_survey_error_that_says_what_to_install(monkeypatch):
    find = fluxes._package_dir
    monkeypatch.setattr(fluxes, "_package_dir", lambda name: None if name == "speclite" else find(name))
    for table in (fluxes._read_bandpass, fluxes._photons, fluxes._ratio_table):
        table.cache_clear()
    galaxies = synthetic_galaxies(3)
    assert np.isfinite(galaxies.fluxes(get_survey("arcelin2020", ["r"]))).all()
    with pytest.raises(SurveyError, match="'VIS'.*pip install speclite"):
        galaxies.fluxes(get_survey("arcelin2020", ["r", "VIS"]))


def test_paper_r_magnitude_is_ab_plus_about_2_2():
    galaxies = synthetic_galaxies(500, seed=3)
    paper = galaxies.magnitudes(get_survey("arcelin2020", ["r"]))
    honest = galaxies.magnitudes(get_survey("lsst10yr", ["r"]))
    assert (paper - honest).min() > 2.0
    assert (paper - honest).max() < 2.5


@pytest.mark.parametrize("name", ["arcelin2020", "lsst10yr"])
def test_magnitudes_are_those_of_the_fluxes(name):
    survey = get_survey(name, list("ugrizy"))
    galaxies = synthetic_galaxies(200, seed=4)
    flux = galaxies.fluxes(survey).sum(axis=1)
    for index, band in enumerate(survey.bands):
        magnitude = galaxies.magnitudes(survey)[:, index]
        rate = flux[:, index] / band.exposure_time / band.area_ratio
        np.testing.assert_allclose(magnitude, band.zeropoint - 2.5 * np.log10(rate), atol=1e-9)
        if survey.image_unit == "nJy":
            np.testing.assert_allclose(
                31.4 - 2.5 * np.log10(flux[:, index] / band.electrons_per_unit), magnitude, atol=1e-9
            )


def test_absent_components_have_no_flux_and_two_components_add_up():
    survey = get_survey("lsst10yr")
    galaxies = synthetic_galaxies(300, seed=5)
    flux = galaxies.fluxes(survey)
    assert flux.shape == (300, 2, 6)
    two = np.asarray(galaxies.table["use_bulgefit"]) != 0
    assert (flux[~two, 1] == 0).all()
    assert (flux[two] > 0).all()


def test_without_colour_gradients_both_components_have_the_brighter_ones_colour():
    survey = get_survey("lsst10yr")
    galaxies = synthetic_galaxies(300, seed=6)
    two = np.asarray(galaxies.table["use_bulgefit"]) != 0
    galaxies = galaxies[two]
    with_gradients, without = galaxies.fluxes(survey), galaxies.fluxes(survey, colour_gradients=False)
    fraction = galaxies.components.flux_fraction
    np.testing.assert_allclose(without[:, 0] / fraction[:, :1], without[:, 1] / fraction[:, 1:])
    bulge_dominates = fraction[:, 0] > 0.5
    assert 0 < bulge_dominates.sum() < len(galaxies)
    np.testing.assert_allclose(without[bulge_dominates, 0], with_gradients[bulge_dominates, 0])
    np.testing.assert_allclose(without[~bulge_dominates, 1], with_gradients[~bulge_dominates, 1])
    # The bulge of a galaxy with gradients is redder than its disc.
    red = with_gradients[:, :, 3] / with_gradients[:, :, 1]
    assert (red[:, 0] > red[:, 1]).mean() > 0.95


def test_fluxes_of_a_catalogue_as_large_as_cosmos_are_finite_and_not_negative():
    flux = synthetic_galaxies(81_499).fluxes(get_survey("arcelin2020", list("ugrizy")))
    assert np.isfinite(flux).all()
    assert (flux >= 0).all()


def galaxies_of_magnitude(survey, band, magnitude):
    """Synthetic galaxies, one- and two-component, all of one magnitude in a band."""
    galaxies = synthetic_galaxies(40, seed=8)
    off = magnitude - galaxies.magnitudes(survey)[:, survey.band_names.index(band)]
    table = galaxies.table.copy()
    table["mag_auto"] += off
    return GalaxyCatalog(table, "synthetic")


def test_ab_25_in_lsst10yr_r_is_363_njy_and_98_615_electrons_by_hand():
    survey = get_survey("lsst10yr", list("gri"))
    galaxies = galaxies_of_magnitude(survey, "r", 25.0)
    electrons = galaxies.fluxes(survey).sum(axis=1)[:, 1]
    # Zero point 28.13 for an electron a second, 184 visits of 30 s: 5520 x 10^(0.4 x 3.13).
    np.testing.assert_allclose(electrons, 98_615, rtol=1e-5)
    # 3631 Jy at AB 0: 10^(0.4 x 6.4), as the AB zero point of a nanojansky is 31.4.
    library = GalaxyLibrary(galaxies, survey)
    np.testing.assert_allclose(library.fluxes.sum(axis=1)[:, 1], 363.078, rtol=1e-5)
    np.testing.assert_allclose(library.fluxes.sum(axis=1)[:, 1] * 1e-9 / 3631, 1e-10, rtol=1e-4)


def test_r_25_in_arcelin2020_is_428_660_electrons_by_hand():
    survey = get_survey("arcelin2020", list("gri"))
    galaxies = galaxies_of_magnitude(survey, "r", 25.0)
    # 10^(0.4 x 3.13) = 17.8649 e-/s of the HST mirror, 184 exposures of 15 s, LSST's mirror over HST's.
    hst, lsst = 2.4**2 * (1 - 0.33**2), 6.68**2
    assert lsst / hst == pytest.approx(8.69369, rel=1e-5)
    expected = 17.864876 * 184 * 15 * lsst / hst
    assert expected == pytest.approx(428_660, rel=1e-5)
    np.testing.assert_allclose(galaxies.fluxes(survey).sum(axis=1)[:, 1], expected, rtol=1e-5)
    np.testing.assert_allclose(GalaxyLibrary(galaxies, survey).fluxes.sum(axis=1)[:, 1], expected, rtol=1e-5)


@pytest.mark.skipif(not HAS_SPECLITE, reason="speclite is not installed")
def test_vis_25_in_arcelin2020_is_853_electrons_by_hand():
    survey = get_survey("arcelin2020", ["r", "VIS"])
    galaxies = galaxies_of_magnitude(survey, "VIS", 25.0)
    # 10^(0.4 x 0.58) = 1.70608 e-/s of the HST mirror for 1800 s, and Euclid's mirror is smaller.
    area = (1.25**2 - 0.37**2) / (2.4**2 * (1 - 0.33**2))
    expected = 1.706082 * 1800 * area
    assert expected == pytest.approx(852.96, rel=1e-4)
    np.testing.assert_allclose(galaxies.fluxes(survey).sum(axis=1)[:, 1], expected, rtol=1e-5)


def test_five_magnitudes_are_a_factor_of_a_hundred_in_every_band():
    survey = get_survey("lsst10yr")
    bright = galaxies_of_magnitude(survey, "i", 20.0).fluxes(survey)
    faint = galaxies_of_magnitude(survey, "i", 25.0).fluxes(survey)
    np.testing.assert_allclose(bright, 100 * faint, rtol=1e-9)
