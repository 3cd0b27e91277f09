# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cramer-Rao bounds, beside closed forms of a Gaussian in white noise and what has to hold of any scene."""

import dataclasses

import galsim
import numpy as np
import pytest
from astropy.table import vstack

from lsst.meas.extensions.vae.errors import ShardError, VaeError
from lsst.meas.extensions.vae.evaluation import cramer_rao
from lsst.meas.extensions.vae.evaluation.cramer_rao import (
    SHAPE_PARAMETERS,
    ParametricGalaxy,
    add_bounds,
    fisher,
    parametric_scenes,
    scene_bounds,
    stamp_bounds,
)
from lsst.meas.extensions.vae.evaluation.stamp_table import summarise_stamps
from lsst.meas.extensions.vae.evaluation.stamps import isolated, measure_stamps
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.simulation.render import ProfileRenderer
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.survey import PsfModel, get_survey

SCALE, SIZE, FLUX, NOISE = 0.2, 64, 1e4, 2.0
PSF = PsfModel("gaussian", fwhm=1.2)
RENDERER = ProfileRenderer([(PSF, SCALE)])
MAG = 2.5 / np.log(10)

# Sigma of a Gaussian that is a Sersic profile of index 0.5, of the PSF, and of both with the pixel.
HLR = 0.9
SIGMA = HLR / np.sqrt(2 * np.log(2))
SIGMA_PSF = PSF.fwhm / np.sqrt(8 * np.log(2))
SIGMA_SEEN = np.sqrt(SIGMA**2 + SIGMA_PSF**2 + SCALE**2 / 12)
RESOLUTION = SIGMA**2 / SIGMA_SEEN**2


def draw(galaxy, bands=1):
    return galaxy.image(RENDERER, np.zeros(bands, int), SIZE)


def gaussian(flux=FLUX, n=0.5, bands=1, **changes):
    return ParametricGalaxy(((n, HLR, 1.0, 0.0),), np.full((1, bands), flux), **changes)


def white(noise=NOISE, bands=1):
    return np.full((bands, SIZE, SIZE), noise**2)


def bounds(galaxies, noise=NOISE, known=(), bands=("r",)):
    return scene_bounds(
        galaxies,
        white(noise, len(bands)),
        lambda galaxy: draw(galaxy, len(bands)),
        bands,
        bands[0],
        PSF.kernel(SCALE, 41),
        known,
    )


def test_the_bounds_of_a_gaussian_in_white_noise_are_the_closed_forms():
    """I = F p^2 / (2 pi s^2) exp(-r^2 / 2 s^2) in pixels of side p, of noise n each, s the width as seen.

    Sums over pixels are integrals over p^2. By F alone, sum (dI/dlnF)^2 / n^2 = F^2 p^2 / (4 pi s^2 n^2), the
    square of the signal to noise S. By x, dI/dx = I x / s^2, which gives S^2 / (2 s^2): sigma of x is
    sqrt(2) s / S. The logarithm of the size before the PSF, of which ln s has the part R = sigma^2 / s^2,
    gives dI = I R (r^2 / s^2 - 2), so 2 R^2 S^2 by itself and -R S^2 with ln F: when both are free, sigma of
    ln F is sqrt(2) / S and that of the size 1 / (R S). A shear stretches x and squeezes y, dI = I R
    (x^2 - y^2) / s^2, which gives R^2 S^2, and nothing with the others: sigma of g1 is 1 / (R S).
    """
    snr = FLUX * SCALE / (np.sqrt(4 * np.pi) * SIGMA_SEEN * NOISE)
    found = fisher([gaussian()], white(), draw, ["r"])

    def sigma(name, *free):
        some = found.without([other for _, other in found.names if other not in (name, *free)])
        return some.sigma([float(other == name) for _, other in some.names])

    assert sigma("log_flux_r") == pytest.approx(1 / snr, rel=2e-3)
    assert sigma("x") == pytest.approx(np.sqrt(2) * SIGMA_SEEN / snr, rel=3e-3)
    assert sigma("y", "x", "g1", "g2", "log_flux_r") == pytest.approx(sigma("x"), rel=1e-3)
    assert sigma("log_size") == pytest.approx(1 / (np.sqrt(2) * RESOLUTION * snr), rel=3e-3)
    assert sigma("log_size", "log_flux_r") == pytest.approx(1 / (RESOLUTION * snr), rel=3e-3)
    assert sigma("log_flux_r", "log_size") == pytest.approx(np.sqrt(2) / snr, rel=3e-3)
    for name in ("g1", "g2"):
        everything = sigma(name, *SHAPE_PARAMETERS, "log_flux_r")
        assert sigma(name) == pytest.approx(1 / (RESOLUTION * snr), rel=5e-3)
        assert everything == pytest.approx(sigma(name), rel=1e-3)
    # What is measured: KSB's e1 is the shear, and the magnitude the logarithm of the flux.
    measured = bounds([gaussian(g1=0.01)], known=("concentration",))
    assert measured["e1"] == pytest.approx(1 / (RESOLUTION * snr), rel=0.02)
    assert measured["e"] == pytest.approx(measured["e1"], rel=0.01)
    assert measured["mag_r"] == pytest.approx(np.sqrt(2) * MAG / snr, rel=5e-3)


def test_bounds_go_with_the_noise_and_with_one_over_the_flux():
    first, noisy = bounds([gaussian(g1=0.1)]), bounds([gaussian(g1=0.1)], noise=3 * NOISE)
    faint = bounds([gaussian(FLUX / 5, g1=0.1)])
    for name, value in first.items():
        assert noisy[name] == pytest.approx(3 * value, rel=1e-6)
        assert faint[name] == pytest.approx(5 * value, rel=1e-3)


def test_bands_tell_of_one_shape_together():
    one, four = bounds([gaussian(g1=0.1)]), bounds([gaussian(g1=0.1, bands=4)], bands="rgiz")
    assert four["e1"] == pytest.approx(one["e1"] / 2, rel=1e-6)
    # Shape and size are better known; the photons of the band itself are not more.
    snr = FLUX * SCALE / (np.sqrt(4 * np.pi) * SIGMA_SEEN * NOISE)
    assert MAG / snr < four["mag_r"] < one["mag_r"]


def test_a_neighbour_never_helps_and_the_nearer_the_worse():
    alone = bounds([gaussian(g1=0.1)])
    found = [bounds([gaussian(g1=0.1), gaussian(x=x)]) for x in (5.0, 3.0, 2.0, 1.0)]
    for name, value in alone.items():
        wanted = [value, *(one[name] for one in found)]
        assert all(b > a * (1 - 1e-9) for a, b in zip(wanted, wanted[1:]))
    assert found[0]["mag_r"] == pytest.approx(alone["mag_r"], rel=0.05)
    assert found[-1]["mag_r"] > 3 * alone["mag_r"]


def test_what_is_known_lowers_bounds():
    scene = [gaussian(g1=0.1), gaussian(x=1.2, y=0.3)]
    free, placed = bounds(scene), bounds(scene, known=("x", "y"))
    assert all(placed[name] <= free[name] for name in free) and placed["e1"] < 0.9 * free["e1"]
    shapes = bounds(scene, known=SHAPE_PARAMETERS)
    assert shapes["e1"] == 0 and 0 < shapes["mag_r"] < placed["mag_r"]


def test_pixels_that_cannot_tell_galaxies_apart_bound_nothing():
    scene = [gaussian(), gaussian()]
    assert np.isnan(bounds(scene)["mag_r"])
    # A neighbour that leaves no trace does not matter.
    outside = bounds([gaussian(g1=0.1), gaussian(x=200.0)])
    assert outside["mag_r"] == pytest.approx(bounds([gaussian(g1=0.1)])["mag_r"], rel=1e-6)


@pytest.mark.parametrize("index, low, high", [(2.0, 1.9, 2.1), (0.3, 0.3, 0.4), (6.2, 6.1, 6.2)])
def test_derivatives_are_those_of_galsim(index, low, high):
    """Drawn by GalSim itself, which shares nothing with the renderer but its tables of transforms."""
    # The PSF of the LSST surveys.
    model = PsfModel("kolmogorov", fwhm=0.7)
    renderer = ProfileRenderer([(model, SCALE)])

    def by_galsim(n=index, dx=0.0, g2=0.0):
        profile = galsim.Sersic(n, half_light_radius=0.6, trunc=0).shear(
            galsim.Shear(q=0.6, beta=0.3 * galsim.radians)
        )
        profile = galsim.Convolve(profile.shear(g2=g2).shift(dx, 0.0), model.profile())
        return FLUX * profile.drawImage(nx=SIZE, ny=SIZE, scale=SCALE, dtype=float).array

    galaxy = ParametricGalaxy(((index, 0.6, 0.6, 0.3),), np.array([[FLUX]]))

    def ours(name):
        one, other, distance = galaxy.steps(name)
        images = [g.image(renderer, np.zeros(1, int), SIZE)[0] for g in (one, other)]
        return (images[1] - images[0]) / distance

    for name, expected in (
        ("x", (by_galsim(dx=0.02) - by_galsim(dx=-0.02)) / 0.04),
        ("g2", (by_galsim(g2=0.01) - by_galsim(g2=-0.01)) / 0.02),
        ("concentration", (by_galsim(high) - by_galsim(low)) / (high - low)),
    ):
        np.testing.assert_allclose(ours(name), expected, atol=0.02 * np.abs(expected).max(), err_msg=name)


def test_the_bulges_share_of_the_light_moves_none_of_the_total():
    shapes = ((4.0, 0.4, 0.8, 0.1), (1.0, 0.9, 0.5, 0.2))
    galaxy = ParametricGalaxy(shapes, np.array([[30.0, 0.0], [10.0, 20.0]]))
    low, high, distance = galaxy.steps("concentration")
    step = (high._fluxes() - low._fluxes()) / distance
    # Of a logit, f (1 - f) of the whole: 3/4 and 1/4 of 40; no bulge at all stays none.
    np.testing.assert_allclose(step, [[7.5, 0.0], [-7.5, 0.0]], atol=0.02)
    np.testing.assert_allclose(high._fluxes().sum(axis=0), [40, 20])
    assert high.image(RENDERER, np.zeros(2, int), SIZE)[0].max() > draw(galaxy, 2)[0].max()


@pytest.fixture(scope="module")
def galaxies():
    return synthetic_galaxies(2000, seed=1)


def simulate(galaxies, n=8, survey="arcelin2020", **settings):
    survey = get_survey(survey, ("g", "r", "i"))
    return simulate_stamps(galaxies, survey, SceneSettings(**settings), n, seed=5, split="test")


@pytest.fixture(scope="module")
def blends(galaxies):
    return simulate(galaxies)


@pytest.fixture(scope="module")
def bounded(blends, galaxies):
    return stamp_bounds(blends, galaxies)


@pytest.mark.parametrize(
    "settings",
    [
        {"centring": "pixelisation", "shear_step": 0.1},
        {"star_fraction": 0.5, "colour_gradients": False},
        {"placement": "field", "psf_fwhm_scatter": 0.1, "sersic_round": 0.0},
    ],
)
def test_the_parameters_of_a_sample_draw_its_scenes(galaxies, settings):
    sample = simulate(galaxies, 5, "lsst10yr", **settings)
    for index, scene in enumerate(parametric_scenes(sample, galaxies, sample.n_scenes)):
        renderer = ProfileRenderer(sample.profile_kinds).with_psfs(sample.psf_models(index))
        image = sum(galaxy.image(renderer, sample.band_profile, 64) for galaxy in scene)
        expected = sample.image(index)
        np.testing.assert_allclose(image, expected, atol=1e-3 * expected.max())
        assert len(scene) == sample.truth["n_galaxies"][index]
        target = scene[0].image(renderer, sample.band_profile, 64)
        np.testing.assert_allclose(target, sample.image(index, "target"), atol=1e-3 * target.max())


def test_a_blends_bound_is_not_below_that_of_its_target_alone(blends, galaxies, bounded):
    alone = stamp_bounds(blends, galaxies, alone=True)
    assert bounded["scene"].tolist() == list(range(8))
    assert not bounded["bound_flag"].any() and not alone["bound_flag"].any()
    single = blends.truth["n_galaxies"] == 1
    assert 0 < single.sum() < 8
    for name in ("e1_bound", "e2_bound", "mag_r_bound", "mag_i_bound"):
        assert (bounded[name] >= alone[name] * (1 - 1e-9)).all()
        np.testing.assert_allclose(bounded[name][single], alone[name][single])
        assert (bounded[name][~single] > 1.001 * alone[name][~single]).any()
    # No magnitude is better known than by the signal to noise of a known profile.
    assert (alone["mag_r_bound"] > MAG / blends.truth["snr"]).all()


def test_fewer_bands_tell_less(blends, galaxies, bounded):
    fewer = stamp_bounds(blends, galaxies, bands=("r",), max_scenes=3)
    assert len(fewer) == 3 and "mag_g_bound" not in fewer.colnames
    for name in ("e1_bound", "mag_r_bound"):
        assert (fewer[name] > bounded[name][:3]).all()


def test_errors_get_the_bounds_of_their_scenes(blends, bounded):
    errors = measure_stamps([blends, blends], {"isolated": isolated}, shards=[4, 6])
    some, other = bounded[:5].copy(), bounded[:5].copy()
    some["shard"], other["shard"] = 6, 5
    joined = add_bounds(errors, vstack([some, other]))
    assert len(joined) == 16 and joined["bound_flag"][:8].all() and np.isnan(joined["e1_bound"][:8]).all()
    np.testing.assert_array_equal(joined["e1_bound"][8:13], bounded["e1_bound"][:5])
    assert np.isnan(joined["e1_bound"][13:]).all() and not joined["bound_flag"][8:13].any()
    row = summarise_stamps(joined, n_bootstrap=0)[0]
    pulls = joined["mag_r_error"][8:13] / bounded["mag_r_bound"][:5]
    assert row["mag_ratio"] == pytest.approx(np.diff(np.percentile(pulls, [16, 84]))[0] / 2)
    assert joined.meta == errors.meta


def test_a_target_without_a_shape_has_bounds_of_its_magnitudes_alone(blends, galaxies, monkeypatch):
    monkeypatch.setattr(cramer_rao, "ksb_shear", lambda image, psf: (np.nan, np.nan, True))
    table = stamp_bounds(blends, galaxies, max_scenes=1)
    assert (
        table["bound_flag"][0] and np.isnan([table[f"{name}_bound"][0] for name in ("e1", "e2", "e")]).all()
    )
    assert table["mag_r_bound"][0] > 0


def test_scenes_of_images_have_no_bounds(blends, galaxies):
    objects = blends.objects.copy()
    objects["real"][0] = True
    table = stamp_bounds(dataclasses.replace(blends, objects=objects), galaxies, max_scenes=2)
    assert table["bound_flag"].tolist() == [True, False] and np.isnan(table["mag_r_bound"][0])


def test_what_does_not_fit_is_refused(blends, galaxies):
    with pytest.raises(ShardError, match="give what it was drawn from"):
        stamp_bounds(blends, synthetic_galaxies(2000, seed=2))
    with pytest.raises(ShardError, match="which is in the sample: give all"):
        stamp_bounds(blends, galaxies.split("train"))
    with pytest.raises(ShardError, match="no table of its objects"):
        stamp_bounds(dataclasses.replace(blends, objects=None), galaxies)
    with pytest.raises(VaeError, match="the reference band 'r' among them"):
        stamp_bounds(blends, galaxies, bands=("g",))
    with pytest.raises(VaeError, match="known parameter 'size': expected x, y"):
        stamp_bounds(blends, galaxies, known=("size",))
