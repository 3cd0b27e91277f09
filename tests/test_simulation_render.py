# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Profiles drawn in Fourier space against GalSim's own drawing."""

from dataclasses import replace

import galsim
import numpy as np
import pytest

from lsst.meas.extensions.vae.simulation.profiles import GalsimProfile, KGrid
from lsst.meas.extensions.vae.simulation.render import (
    PROFILE_ERROR,
    ProfileRenderer,
    component_profile,
    point_source,
    turned_profile,
)
from lsst.meas.extensions.vae.survey import PsfModel, get_survey

SURVEYS = {
    "arcelin2020": get_survey("arcelin2020", ["r", "VIS", "H"]).profile_kinds,
    "lsst10yr": get_survey("lsst10yr", "ury").profile_kinds,
    # Undersampled, aliased and elliptical.
    "elliptical": [
        (PsfModel("moffat", 0.22, 2.5, e1=0.15, e2=-0.1), 0.3),
        (PsfModel("moffat", 0.18, 2.5, e1=-0.2, e2=0.1), 0.1),
        (PsfModel("kolmogorov", 0.8, e1=-0.1, e2=0.2), 0.2),
        (PsfModel("gaussian", 0.6, e1=0.05), 0.2),
    ],
}

# GalSim's own drawing with less aliasing of its own.
ACCURATE = galsim.GSParams(folding_threshold=2e-3, maxk_threshold=2e-4, kvalue_accuracy=1e-5)


def random_components(number, seed):
    """Sersic index (on the rounding's grid), hlr, q, angle, dx, dy: all over what a catalogue holds."""
    rng = np.random.default_rng(seed)
    for index in range(number):
        # One in three anywhere on an LSST stamp, up to its edge and beyond those of finer pixels.
        reach = 6.4 if index % 3 == 0 else 2.0
        yield (
            (0.3, 0.5, 1.0, 1.35, 2.5, 4.0)[index % 6] if index else 6.0,
            np.clip(np.exp(rng.normal(np.log(0.21), 0.7)), 0.01, 1.0),
            rng.uniform(0.08, 1.0),
            rng.uniform(0.0, np.pi),
            *rng.uniform(-reach, reach, 2),
        )


def drawn_by_galsim(component, psf, scale, size=64, gsparams=None):
    sersic_n, hlr, q, angle, dx, dy = component
    galaxy = galsim.Sersic(sersic_n, half_light_radius=hlr).shear(q=q, beta=angle * galsim.radians)
    scene = galsim.Convolve(galaxy.shift(dx, dy), psf, gsparams=gsparams)
    return scene.drawImage(nx=size, ny=size, scale=scale, dtype=float).array


@pytest.mark.parametrize("name", SURVEYS)
def test_drawing_agrees_with_galsim_for_any_galaxy_anywhere_on_the_stamp(name):
    kinds = SURVEYS[name]
    renderer = ProfileRenderer(kinds)
    for component in random_components(18, seed=11):
        images = renderer.draw(component_profile(*component[:4]), *component[4:])
        assert images.dtype == np.float32
        for image, (psf, scale) in zip(images, kinds):
            expected = drawn_by_galsim(component, psf.profile(), scale, gsparams=ACCURATE)
            centred = drawn_by_galsim((*component[:4], 0.0, 0.0), psf.profile(), scale, 3, ACCURATE)
            np.testing.assert_allclose(image, expected, rtol=0, atol=PROFILE_ERROR * centred.max())


@pytest.mark.parametrize(
    "component", [(1.0, 2.0, 0.08, 0.3), (6.0, 0.5, 0.5, 1.0), (4.0, 0.02, 0.9, 0.0), (0.3, 0.5, 0.5, 2.0)]
)
def test_extreme_galaxies_agree_with_galsim_in_aliased_pixels(component):
    for psf, scale in [*SURVEYS["arcelin2020"][1:], *SURVEYS["elliptical"][:1]]:
        [image] = ProfileRenderer([(psf, scale)]).draw(component_profile(*component), 0.13, -0.58)
        expected = drawn_by_galsim((*component, 0.13, -0.58), psf.profile(), scale, gsparams=ACCURATE)
        np.testing.assert_allclose(image, expected, rtol=0, atol=PROFILE_ERROR * expected.max())


@pytest.mark.parametrize("size", [33, 100, 200])
def test_stamps_of_other_sizes_agree_with_galsim(size):
    component = (2.5, 0.3, 0.6, 1.0, 1.7, -2.2)
    kinds = SURVEYS["arcelin2020"]
    for image, (psf, scale) in zip(
        ProfileRenderer(kinds).draw(component_profile(*component[:4]), *component[4:], size=size), kinds
    ):
        expected = drawn_by_galsim(component, psf.profile(), scale, size)
        np.testing.assert_allclose(image, expected, rtol=0, atol=PROFILE_ERROR * expected.max())


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


@pytest.mark.parametrize("wrapped", [False, True])
def test_transform_with_lensing_shear_is_galsims(wrapped):
    profile = component_profile(1.0, 0.3, 0.5, 0.4, shear=(0.1, -0.05))
    expected = galsim.Sersic(1.0, half_light_radius=0.3).shear(q=0.5, beta=0.4 * galsim.radians)
    # GalSim's defaults are good to 2e-4.
    expected = expected.shear(g1=0.1, g2=-0.05).withGSParams(kvalue_accuracy=1e-6)
    grid = KGrid(0.2, 64, 32, wrapped)
    values = profile.fourier(grid)
    for row, column in [(0, 0), (3, 5), (40, 12), (63, 32)]:
        k = float(grid.kx[column]), float(grid.ky[row])
        assert values[row, column] == pytest.approx(expected.kValue(*k).real, abs=5e-5)
    np.testing.assert_allclose(GalsimProfile(expected).fourier(grid), values, rtol=0, atol=5e-5)


def test_turned_profile_is_turned_first_and_sheared_then():
    galaxy = galsim.Gaussian(sigma=0.3).shear(q=0.5, beta=0.2 * galsim.radians).shift(0.1, 0.0)
    expected = galaxy.rotate(0.7 * galsim.radians).shear(g1=0.1, g2=-0.05)
    turned = turned_profile(galaxy, 0.7, (0.1, -0.05))
    assert turned.flux == pytest.approx(1.0)
    assert turned.kValue(2.0, -1.0) == pytest.approx(expected.kValue(2.0, -1.0))


def test_coarse_and_fine_drawing_share_each_frequency_without_a_seam():
    """A box about a point source adds what the pixels alone cannot show, in step with its subpixel place."""
    renderer = ProfileRenderer(SURVEYS["arcelin2020"][2:])
    for dx in np.linspace(-0.3, 0.3, 5):
        [image] = renderer.draw(point_source(), dx, 0.5 * dx)
        psf, scale = SURVEYS["arcelin2020"][2]
        star = psf.profile().shift(dx, 0.5 * dx)
        expected = star.drawImage(nx=64, ny=64, scale=scale, dtype=float).array
        np.testing.assert_allclose(image, expected, rtol=0, atol=2e-4 * expected.max())


@pytest.mark.parametrize(
    "bad", [(np.nan, 0.3, 0.5, 0.0), (1.0, 0.0, 0.5, 0.0), (1.0, 0.3, 0.0, 0.0), (1.0, 0.3, 0.5, np.inf)]
)
def test_undrawable_component_is_refused(bad):
    with pytest.raises(galsim.GalSimError):
        component_profile(*bad)


def test_shear_that_is_none_is_refused():
    with pytest.raises(galsim.GalSimError, match="below 1"):
        component_profile(1.0, 0.3, shear=(0.8, 0.7))
