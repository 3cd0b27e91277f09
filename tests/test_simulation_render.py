# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Profiles drawn in Fourier space against GalSim's own drawing."""

from dataclasses import replace

import galsim
import numpy as np
import pytest

from lsst.meas.extensions.vae.simulation.render import PROFILE_ERROR, ProfileRenderer, component_profile
from lsst.meas.extensions.vae.survey import PsfModel, get_survey


def random_components(number, seed):
    """Sersic index (on the rounding's grid), hlr, q, angle, dx, dy."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        yield (
            rng.choice([0.5, 1.0, 1.35, 2.5, 4.0, 5.8]),
            np.exp(rng.normal(np.log(0.21), 0.6)),
            rng.uniform(0.15, 1.0),
            rng.uniform(0.0, np.pi),
            *rng.uniform(-2.0, 2.0, 2),
        )


def drawn_by_galsim(component, psf, scale, size=64):
    sersic_n, hlr, q, angle, dx, dy = component
    galaxy = galsim.Sersic(sersic_n, half_light_radius=hlr).shear(q=q, beta=angle * galsim.radians)
    image = galsim.Convolve(galaxy.shift(dx, dy), psf).drawImage(nx=size, ny=size, scale=scale, dtype=float)
    return image.array


@pytest.mark.parametrize(
    "survey, number",
    [(get_survey("lsst10yr", "ury"), 12), (get_survey("arcelin2020", ["r", "VIS", "H"]), 12)],
    ids=["lsst10yr", "arcelin2020"],
)
def test_drawing_agrees_with_galsim(survey, number):
    renderer = ProfileRenderer(survey.profile_kinds)
    assert len(survey.profile_kinds) == 3
    for component in random_components(number, seed=11):
        images = renderer.draw(component_profile(*component[:4]), *component[4:])
        for image, (psf, scale) in zip(images, survey.profile_kinds):
            expected = drawn_by_galsim(component, psf.profile(), scale)
            centred = drawn_by_galsim((*component[:4], 0.0, 0.0), psf.profile(), scale, size=65)
            np.testing.assert_allclose(image, expected, rtol=0, atol=PROFILE_ERROR * centred.max())


def test_elliptical_psf_is_drawn_as_galsim_does():
    psf = PsfModel("moffat", 0.7, beta=3.0, e1=0.1, e2=-0.05)
    image = ProfileRenderer([(psf, 0.2)]).draw(component_profile(1.0, 0.3, 0.5, 0.4), 0.3, -0.7)[0]
    expected = drawn_by_galsim((1.0, 0.3, 0.5, 0.4, 0.3, -0.7), psf.profile(), 0.2)
    np.testing.assert_allclose(image, expected, rtol=0, atol=PROFILE_ERROR * expected.max())


def test_renderer_with_other_psfs_draws_through_them():
    renderer = ProfileRenderer(get_survey("arcelin2020", ["r", "VIS", "H"]).profile_kinds)
    models = [replace(m, fwhm=1.1 * m.fwhm, e1=0.05, e2=-0.03) for m, _ in renderer.profile_kinds]
    component = (1.0, 0.3, 0.5, 0.4, 0.3, -0.7)
    images = renderer.with_psfs(models).draw(component_profile(*component[:4]), *component[4:])
    for image, model, (_, scale) in zip(images, models, renderer.profile_kinds):
        expected = drawn_by_galsim(component, model.profile(), scale)
        np.testing.assert_allclose(image, expected, rtol=0, atol=PROFILE_ERROR * expected.max())
    assert renderer.with_psfs([model for model, _ in renderer.profile_kinds]) is renderer
    with pytest.raises(ValueError, match="longer"):
        renderer.with_psfs(models[:2])


def test_flux_is_conserved_and_lost_only_beyond_the_stamp():
    renderer = ProfileRenderer([(PsfModel("gaussian", 0.65), 0.2)])
    small = component_profile(1.0, 0.2, 0.7, 0.3)
    assert renderer.draw(small, 0.1, -0.4).sum() == pytest.approx(1.0, abs=1e-3)
    # Centred on the corner of the stamp, a round galaxy leaves a quarter of its light there.
    corner = 32 * 0.2
    round_one = component_profile(1.0, 0.2)
    assert renderer.draw(round_one, corner, corner).sum() == pytest.approx(0.25, abs=1e-3)
    # Well outside nothing is left: no copy comes in at the other side.
    assert abs(renderer.draw(round_one, corner + 3.2, 0.0)).max() < 1e-5


def test_galaxy_sits_where_it_is_put():
    renderer = ProfileRenderer([(PsfModel("gaussian", 0.65), 0.2)])
    image = renderer.draw(component_profile(1.0, 0.2, 0.6, 1.0), 0.5, -0.3)[0].astype(float)
    y, x = np.mgrid[:64, :64]
    assert (x * image).sum() / image.sum() == pytest.approx(31.5 + 0.5 / 0.2, abs=2e-3)
    assert (y * image).sum() / image.sum() == pytest.approx(31.5 - 0.3 / 0.2, abs=2e-3)


def test_lensing_shear_is_galsims():
    profile = component_profile(1.0, 0.3, 0.5, 0.4, shear=(0.1, -0.05))
    expected = galsim.Sersic(1.0, half_light_radius=0.3).shear(q=0.5, beta=0.4 * galsim.radians)
    expected = expected.shear(g1=0.1, g2=-0.05)
    for k in [(1.0, 0.5), (-3.0, 2.0), (6.0, 4.0)]:
        assert profile.kValue(*k) == pytest.approx(expected.kValue(*k), abs=2e-4)


@pytest.mark.parametrize(
    "bad", [(np.nan, 0.3, 0.5, 0.0), (1.0, 0.0, 0.5, 0.0), (1.0, 0.3, 0.0, 0.0), (1.0, 0.3, 0.5, np.inf)]
)
def test_undrawable_component_is_refused(bad):
    with pytest.raises(galsim.GalSimError):
        component_profile(*bad)
