# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Surveys have the paper's and surveycodex's constants."""

from dataclasses import replace

import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import SurveyError
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.survey import Band, PsfModel, Survey, get_survey, survey_names


def test_arcelin2020_has_the_ten_bands_of_the_paper_in_order():
    survey = get_survey("arcelin2020")
    assert survey.band_names == ("u", "g", "r", "i", "z", "y", "VIS", "Y", "J", "H")
    assert (survey.magnitude_system, survey.image_unit, survey.stamp_size) == ("arcelin2020", "electron", 64)
    assert [band.pixel_scale for band in survey.bands] == [0.2] * 6 + [0.1] + [0.3] * 3
    assert [band.zeropoint for band in survey.bands] == [
        *(26.50, 28.30, 28.13, 27.79, 27.40, 26.58),
        *(25.58, 24.25, 24.29, 24.92),
    ]
    assert sum(band.exposure_time for band in survey.bands[:6]) == 824 * 15
    assert {band.exposure_time for band in survey.bands[6:]} == {1800}


def test_arcelin2020_sky_levels_agree_with_the_papers_electrons_per_pixel():
    survey = get_survey("arcelin2020")
    expected = {"u": 884, "g": 12746, "r": 65329, "i": 93565, "z": 126597, "y": 145354, "VIS": 353}
    for name, electrons in expected.items():
        # The published code has 2.512 for 10^0.4, and the small VIS number is rounded.
        assert survey[name].sky_level == pytest.approx(electrons, rel=1.2e-3 if name == "VIS" else 1e-3)


def test_arcelin2020_nisp_sky_levels_are_right_by_hand():
    survey = get_survey("arcelin2020")
    # Sky 22.35 of VIS times the ratio of a model's skies (22.57, 22.53, 21.90 to 21.95), through the zero
    # points 24.25, 24.29, 24.92: 3.2172, 3.4656, 11.178 e-/s/arcsec^2, on 0.09 arcsec^2 for 1800 s.
    sky = {"Y": 22.98130, "J": 22.94057, "H": 22.29909}
    rate = {"Y": 3.21722, "J": 3.46555, "H": 11.17801}
    electrons = {"Y": 521.19, "J": 561.42, "H": 1810.84}
    for name in "YJH":
        assert survey[name].sky_brightness == pytest.approx(sky[name], abs=1e-5)
        assert rate[name] * 0.3**2 * 4 * 450 == pytest.approx(electrons[name], rel=1e-4)
        assert survey[name].sky_level == pytest.approx(electrons[name], rel=1e-5)


def test_lsst10yr_sky_level_is_right_by_hand():
    # r: 21.2 mag/arcsec^2, zero point 28.13: 591.6 e-/s/arcsec^2, on 0.04 arcsec^2 for 184 visits of 30 s.
    assert get_survey("lsst10yr")["r"].sky_level == pytest.approx(591.56 * 0.04 * 184 * 30, rel=1e-4)


def test_nanojanskys_of_lsst10yr_are_right_by_hand():
    # An electron a second is AB 28.13, 10^(0.4 x (31.4 - 28.13)) = 20.324 nJy, for 5520 s.
    assert get_survey("lsst10yr")["r"].electrons_per_unit == pytest.approx(5520 / 20.3236, rel=1e-5)


def test_sky_level_is_right_by_hand():
    # 20 mag/arcsec^2 where 25 is one electron a second: 100 e-/s/arcsec^2, on 0.04 arcsec^2 for 10 s.
    band = Band("r", "LSST", "LSST_r", 0.2, PsfModel("gaussian", 0.7), 25.0, 20.0, 10.0)
    assert band.sky_level == pytest.approx(40.0)


def test_arcelin2020_mirrors_are_scaled_to_hst():
    survey = get_survey("arcelin2020")
    assert survey["g"].area_ratio == pytest.approx(44.6224 / 5.132736)
    assert survey["VIS"].area_ratio == survey["H"].area_ratio == pytest.approx(1.4256 / 5.132736)


def test_lsst10yr_counts_an_ab_source_by_its_zero_point():
    survey = get_survey("lsst10yr")
    assert survey.band_names == ("u", "g", "r", "i", "z", "y")
    assert (survey.magnitude_system, survey.image_unit) == ("AB", "nJy")
    for band in survey.bands:
        # A source at the zero point gives an electron a second.
        njy = 10 ** (-0.4 * (band.zeropoint - 31.4))
        assert njy * band.electrons_per_unit == pytest.approx(band.exposure_time)
        assert band.area_ratio == 1
        assert band.psf.kind == "kolmogorov"
    assert survey["r"].exposure_time == 184 * 30
    assert len(survey.profile_kinds) == 6


def test_profile_kinds_are_shared_by_bands_of_one_psf_and_pixel_scale():
    survey = get_survey("arcelin2020")
    assert survey.band_profile.tolist() == [0, 0, 0, 0, 0, 0, 1, 2, 2, 2]
    assert [scale for _, scale in survey.profile_kinds] == [0.2, 0.1, 0.3]
    nisp = survey.select(["H", "Y"])
    assert nisp.band_profile.tolist() == [0, 0]
    assert nisp.profile_kinds == (survey.profile_kinds[2],)


def test_select_keeps_the_order_asked_and_tells_y_from_capital_y():
    survey = get_survey("arcelin2020", ["Y", "y", "r"])
    assert survey.band_names == ("Y", "y", "r")
    assert survey["y"].instrument == "LSST"
    assert survey["Y"].instrument == "Euclid_NISP"
    assert survey.reference_band == "r"
    assert survey.select(["Y", "y"]).reference_band == "Y"


def test_reference_band_comes_back_with_its_band_in_a_fresh_survey():
    get_survey("arcelin2020", ["g"])
    assert get_survey("arcelin2020").reference_band == "r"


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: get_survey("lsst"), ["'lsst'", "arcelin2020", "lsst10yr"]),
        (lambda: get_survey("lsst10yr", ["r", "VIS", "q"]), ["'VIS'", "'q'", "ugrizy"[0]]),
        (lambda: get_survey("lsst10yr")["Y"], ["'Y'", "case"]),
        (lambda: get_survey("lsst10yr", ["r", "r"]), ["twice"]),
        (lambda: get_survey("lsst10yr", []), ["no bands"]),
        (lambda: PsfModel("airy", 0.7), ["'airy'", "kolmogorov"]),
        (lambda: PsfModel("gaussian", float("nan")), ["nan", "positive"]),
        (lambda: PsfModel("moffat", 0.7), ["beta", "None"]),
        (lambda: PsfModel("gaussian", 0.7, e1=0.8, e2=0.8), ["0.8"]),
        (lambda: PsfModel("gaussian", 0.7).kernel(0.2, 40), ["40", "odd"]),
    ],
)
def test_wrong_values_are_named_in_one_line(call, named):
    with pytest.raises(SurveyError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in named:
        assert word in message


def test_kernel_is_the_psf_through_the_pixel():
    kernel = PsfModel("gaussian", fwhm=0.8).kernel(0.2)
    assert kernel.shape == (41, 41)
    assert kernel.dtype == np.float64
    assert kernel.sum() == pytest.approx(1)
    assert np.unravel_index(kernel.argmax(), kernel.shape) == (20, 20)
    y, x = np.mgrid[:41, :41] - 20
    sigma = 0.8 / 2.354820 / 0.2
    # A pixel adds a twelfth to the variance.
    assert (kernel * x**2).sum() == pytest.approx(sigma**2 + 1 / 12, rel=1e-3)
    assert (kernel * y**2).sum() == pytest.approx(sigma**2 + 1 / 12, rel=1e-3)


def test_psf_ellipticity_is_a_reduced_shear_along_x():
    kernel = PsfModel("gaussian", fwhm=2.0, e1=0.1).kernel(0.2)
    y, x = np.mgrid[:41, :41] - 20
    xx, yy = (kernel * x**2).sum() - 1 / 12, (kernel * y**2).sum() - 1 / 12
    assert np.sqrt(yy / xx) == pytest.approx(0.9 / 1.1, rel=1e-3)


@pytest.mark.parametrize("kind", ["kolmogorov", "moffat"])
def test_profile_has_unit_flux_and_the_fwhm_asked(kind):
    profile = PsfModel(kind, fwhm=0.65, beta=2.5 if kind == "moffat" else None).profile()
    assert profile.flux == pytest.approx(1)
    assert profile.calculateFWHM() == pytest.approx(0.65, rel=1e-3)


def test_surveys_are_values_that_hash_alike():
    for name in survey_names():
        survey = get_survey(name)
        assert isinstance(survey, Survey)
        assert hash(survey) == hash(survey.select(survey.band_names))
        assert survey == survey.select(survey.band_names)


def test_published_code_s_nir_skies_are_a_variant_that_swaps_y_and_h_alone():
    paper, code = get_survey("arcelin2020"), get_survey("arcelin2020+codeNirSky")
    assert code.name == "arcelin2020+codeNirSky"
    assert code["Y"].sky_brightness == paper["H"].sky_brightness
    assert code["H"].sky_brightness == paper["Y"].sky_brightness
    assert code.select("ugrizyJ") == replace(paper.select("ugrizyJ"), name=code.name)


def test_published_code_s_vis_has_the_throughput_of_nisp_y_and_is_otherwise_itself():
    paper, code = get_survey("arcelin2020"), get_survey("arcelin2020+visAsY")
    assert paper["VIS"].bandpass == ("Euclid_VIS", "VIS")
    assert code["VIS"] == replace(paper["VIS"], bandpass=("Euclid_NISP", "Y"))
    galaxies = synthetic_galaxies(50, seed=3)
    rate = galaxies.fluxes(code).sum(axis=1) / [b.area_ratio * b.exposure_time for b in code.bands]
    vis, y = (code.band_names.index(name) for name in ("VIS", "Y"))
    np.testing.assert_allclose(rate[:, vis], rate[:, y], rtol=1e-12)
