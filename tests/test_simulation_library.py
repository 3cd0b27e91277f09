# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Libraries of sources: what scenes are drawn from."""

import galsim
import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import CatalogError
from lsst.meas.extensions.vae.galaxies import SED_NAMES, synthetic_galaxies
from lsst.meas.extensions.vae.simulation.library import GalaxyLibrary, StarLibrary
from lsst.meas.extensions.vae.simulation.render import ProfileRenderer, component_profile
from lsst.meas.extensions.vae.survey import get_survey

GALAXIES = synthetic_galaxies(300, seed=7)


def check_common_shape(library, survey):
    number, bands = len(library), len(survey.bands)
    assert library.ident.dtype == np.int64
    assert library.star.dtype == library.real.dtype == bool
    for name in ("ident", "redshift", "ab_magnitude", "reference_magnitude", "star", "real"):
        assert getattr(library, name).shape == (number,)
    assert library.magnitudes.shape == (number, bands)
    assert library.fluxes.shape[0::2] == (number, bands)
    assert np.isfinite(library.ab_magnitude).all()
    assert np.isfinite(library.fluxes).all()
    # Magnitudes are those of the fluxes.
    for b, band in enumerate(survey.bands):
        electrons = library.fluxes[:, :, b].sum(axis=1) * band.electrons_per_unit
        rate = electrons / band.exposure_time / band.area_ratio
        np.testing.assert_allclose(library.magnitudes[:, b], band.zeropoint - 2.5 * np.log10(rate), atol=1e-6)
    components = library.components(3, 0.4, (0.02, -0.01))
    np.testing.assert_allclose(sum(flux for _, flux in components), library.fluxes[3].sum(axis=0), rtol=1e-12)
    for profile, _ in components:
        image = ProfileRenderer(survey.profile_kinds[:1]).draw(profile, size=256)
        assert image.sum() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("name", ["arcelin2020", "lsst10yr"])
def test_galaxies_have_the_common_shape(name):
    survey = get_survey(name, list("ugrizy"))
    library = GalaxyLibrary(GALAXIES, survey)
    check_common_shape(library, survey)
    assert not library.star.any()
    assert not library.real.any()
    np.testing.assert_array_equal(library.ident, GALAXIES.ident)


def test_ab_magnitude_is_the_surveys_own_where_that_is_ab_and_honest_in_arcelin2020():
    honest = GalaxyLibrary(GALAXIES, get_survey("lsst10yr"))
    np.testing.assert_allclose(honest.ab_magnitude, honest.reference_magnitude, atol=1e-9)
    paper = GalaxyLibrary(GALAXIES, get_survey("arcelin2020", ["g", "r"]))
    np.testing.assert_allclose(paper.ab_magnitude, honest.ab_magnitude, atol=1e-9)
    assert (paper.reference_magnitude - paper.ab_magnitude).mean() == pytest.approx(2.2, abs=0.1)
    one_sed = GalaxyLibrary(GALAXIES, get_survey("arcelin2020", ["r"]), colour_gradients=False)
    assert abs(one_sed.ab_magnitude - honest.ab_magnitude).max() > 0.01


def test_ab_magnitude_agrees_with_galsims():
    index = int(np.flatnonzero(GALAXIES.components.flux_fraction[:, 1] == 0)[0])
    sed, redshift = SED_NAMES[GALAXIES.components.sed[index, 0]], GALAXIES.redshift[index]
    spectrum = galsim.SED(f"CWW_{sed}_ext_more.sed", "Ang", "flambda").atRedshift(redshift)
    anchor = galsim.Bandpass("ACS_wfc_F814W.dat", "nm").withZeropoint("AB")
    spectrum = spectrum.withMagnitude(GALAXIES.mag_auto[index], anchor)
    expected = spectrum.calculateMagnitude(galsim.Bandpass("LSST_r.dat", "nm").withZeropoint("AB"))
    library = GalaxyLibrary(GALAXIES, get_survey("arcelin2020", ["r"]))
    assert library.ab_magnitude[index] == pytest.approx(expected, abs=2e-3)


def test_only_galaxies_brighter_than_the_limit_are_kept_in_step():
    survey = get_survey("arcelin2020", ["r", "i"])
    whole, cut = GalaxyLibrary(GALAXIES, survey), GalaxyLibrary(GALAXIES, survey, mag_limit=26.5)
    kept = whole.reference_magnitude < 26.5
    assert 0 < kept.sum() < len(whole)
    for name in ("ident", "redshift", "ab_magnitude", "magnitudes", "fluxes"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name)[kept])
    with pytest.raises(CatalogError, match="None of 300 galaxies has r < 10"):
        GalaxyLibrary(GALAXIES, survey, mag_limit=10)


def test_description_draws_the_galaxy_again():
    survey = get_survey("lsst10yr", list("gri"))
    library = GalaxyLibrary(GALAXIES, survey)
    index = int(np.flatnonzero((library.fluxes > 0).all(axis=(1, 2)))[0])
    rotation, shear = 2.9, (0.03, -0.02)
    row = library.describe(index, rotation, shear, survey.band_names)
    assert (row["rotation"], row["g1"], row["g2"]) == (rotation, *shear)
    assert row["ident"] == library.ident[index]
    assert row["r_mag_ab"] == library.ab_magnitude[index]
    assert not row["star"]
    assert not row["real"]
    renderer = ProfileRenderer(survey.profile_kinds)
    for c, (profile, flux) in enumerate(library.components(index, rotation, shear)):
        shape = [row[f"{name}_{c}"] for name in ("sersic_n", "hlr", "q", "angle")]
        again = component_profile(*shape, shear=shear, sersic_round=0)
        np.testing.assert_allclose(renderer.draw(again), renderer.draw(profile), atol=1e-7)
        np.testing.assert_array_equal([row[f"flux_{c}_{name}"] for name in survey.band_names], flux)


@pytest.mark.parametrize("name", ["arcelin2020", "lsst10yr"])
def test_stars_have_the_common_shape(name):
    survey = get_survey(name, list("ugrizy"))
    library = StarLibrary(survey, 200, seed=3)
    check_common_shape(library, survey)
    assert len(library) == 200
    assert library.star.all()
    assert not library.real.any()
    assert np.isnan(library.redshift).all()
    assert (library.ident < 0).all()
    row = library.describe(5, 0.3, (0.0, 0.0), survey.band_names)
    assert set(row) == set(GalaxyLibrary(GALAXIES, survey).describe(5, 0.3, (0.0, 0.0), survey.band_names))
    assert row["star"]
    assert row["flux_r"] == row["flux_0_r"] == library.fluxes[5, 0, 2]
    assert row["flux_1_r"] == 0


def test_stars_brighter_than_the_limit_are_kept_in_step_and_splits_share_none():
    survey = get_survey("lsst10yr", ["r", "i"])
    whole, cut = StarLibrary(survey, 400, seed=3), StarLibrary(survey, 400, seed=3, mag_limit=23.5)
    kept = whole.reference_magnitude < 23.5
    assert 0 < kept.sum() < len(whole)
    for name in ("ident", "ab_magnitude", "magnitudes", "fluxes"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name)[kept])
    assert not set(whole.ident) & set(StarLibrary(survey, 400, seed=3, split="test").ident)
    with pytest.raises(CatalogError, match="None of 400 stars has r < 17"):
        StarLibrary(survey, 400, seed=3, mag_limit=17)


def test_a_star_is_drawn_as_the_psf_whatever_its_rotation_and_shear():
    survey = get_survey("arcelin2020", ["r", "VIS", "H"])
    library = StarLibrary(survey, 10, seed=3)
    [(profile, flux)] = library.components(2, 1.0, (0.1, 0.0))
    np.testing.assert_array_equal(flux, library.fluxes[2, 0])
    for image, (psf, scale) in zip(
        ProfileRenderer(survey.profile_kinds).draw(profile, 0.31, -1.24), survey.profile_kinds
    ):
        star = psf.profile().shift(0.31, -1.24)
        expected = star.drawImage(nx=64, ny=64, scale=scale, dtype=float).array
        np.testing.assert_allclose(image, expected, rtol=0, atol=2e-4 * expected.max())
