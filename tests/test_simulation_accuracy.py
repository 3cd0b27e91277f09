# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulated scenes agree with GalSim's own drawing of the same galaxies."""

import dataclasses
from importlib.util import find_spec

import galsim
import numpy as np
import pytest

from lsst.meas.extensions.vae.galaxies import GalaxyCatalog, synthetic_galaxies
from lsst.meas.extensions.vae.network.composer import SceneComposer
from lsst.meas.extensions.vae.simulation.noise import add_noise
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.survey import get_survey

needs_speclite = pytest.mark.skipif(find_spec("speclite") is None, reason="speclite is not installed")

TOLERANCE = 1e-3
"""Largest error of a pixel, as a fraction of its band's brightest: the issue's."""


@pytest.fixture(scope="module")
def galaxies():
    """Synthetic galaxies of COSMOS's extremes: 0.003 to 2 arcsec, axis ratios from 0.05, n from 0.3 to 6."""
    table = synthetic_galaxies(3000, seed=12).table
    rng = np.random.default_rng(12)
    wide = rng.random(len(table)) < 0.3
    scale = np.where(wide, 10 ** rng.uniform(-1.5, 0.4, len(table)), 1.0)
    table["hlr"] = np.clip(table["hlr"] * scale[:, None], 0.003, 2.0)
    table["sersicfit"][wide, 2] = rng.uniform(0.2, 6.5, wide.sum())
    table["sersicfit"][wide, 3] = table["bulgefit"][wide, 3] = rng.uniform(0.05, 1.0, wide.sum())
    return GalaxyCatalog(table, "synthetic")


class Reference:
    """Draws the scenes of a sample with plain GalSim.

    Nothing of the simulation's own drawing is used: the sample tells which galaxies lie where, the catalogue
    what they look like.
    """

    def __init__(self, galaxies, survey):
        self.survey = survey
        self.row = {int(ident): row for row, ident in enumerate(galaxies.ident)}
        self.components = galaxies.components
        unit = [band.electrons_per_unit for band in survey.bands]
        self.fluxes = galaxies.fluxes(survey) / unit
        self.size = survey.stamp_size
        reference = survey[survey.reference_band]
        self.scale = reference.pixel_scale

    def profiles(self, one):
        """(galsim.GSObject of unit flux in its place on the sky, band fluxes) of an object's components."""
        row = self.row[int(one["ident"])]
        dx, dy = ((one[axis] - (self.size - 1) / 2) * self.scale for axis in ("x", "y"))
        shapes = self.components[row]
        for k in range(2):
            if shapes.flux_fraction[k] == 0:
                continue
            n = min(max(round(shapes.sersic_n[k] / 0.05) * 0.05, 0.3), 6.0)
            profile = galsim.Sersic(round(n, 2), half_light_radius=shapes.hlr[k])
            profile = profile.shear(q=shapes.q[k], beta=shapes.position_angle[k] * galsim.radians)
            profile = profile.rotate(one["rotation"] * galsim.radians).shear(g1=one["g1"], g2=one["g2"])
            yield profile.shift(dx, dy), self.fluxes[row, k]

    def image(self, one, psfs):
        """Image [band, y, x] of one object through the PSF of each profile kind."""
        survey, size = self.survey, self.size
        image = np.zeros((len(survey), size, size))
        for profile, flux in self.profiles(one):
            # Bands of one PSF and pixel scale share the drawing: GalSim's is the slow part.
            drawn = [
                galsim.Convolve(profile, psf.profile()).drawImage(nx=size, ny=size, scale=scale, dtype=float)
                for psf, (_, scale) in zip(psfs, survey.profile_kinds)
            ]
            image += flux[:, None, None] * np.array([one.array for one in drawn])[survey.band_profile]
        return image


def objects_of(sample, scene):
    """Rows of a scene's objects, target first."""
    objects = sample.objects[sample.objects["scene"] == scene]
    return objects[np.argsort(objects["galaxy"])]


def check(sample, galaxies, survey):
    """Compare every scene, and its target alone, with GalSim's; how many objects there were."""
    reference = Reference(galaxies, survey)
    n_objects = 0
    for scene in range(sample.n_scenes):
        objects, psfs = objects_of(sample, scene), sample.psf_models(scene)
        images = [reference.image(one, psfs) for one in objects]
        for part, expected in ((None, sum(images)), ("target", images[0]))[: len(objects)]:
            peak = expected.max(axis=(1, 2))
            error = np.abs(sample.image(scene, part) - expected).max(axis=(1, 2))
            assert (error < TOLERANCE * peak).all(), (scene, part, error / peak)
        n_objects += len(objects)
    return n_objects


def test_a_hundred_six_band_scenes_agree_with_galsim(galaxies):
    survey = get_survey("arcelin2020", "ugrizy")
    sample = simulate_stamps(galaxies, survey, SceneSettings(centring="pixelisation"), 100, seed=31)
    assert check(sample, galaxies, survey) > 200


@needs_speclite
def test_ten_band_scenes_agree_with_galsim(galaxies):
    survey = get_survey("arcelin2020")
    sample = simulate_stamps(galaxies, survey, SceneSettings(), 20, seed=32)
    assert check(sample, galaxies, survey) > 35


@needs_speclite
def test_galaxies_alone_agree_with_galsim_at_every_pixel_scale(galaxies):
    """No neighbour hides a galaxy's own error here, and Euclid's PSFs are narrower than pixels."""
    survey = get_survey("arcelin2020", ["r", "VIS", "H"])
    settings = SceneSettings(kind="isolated", centring="pixelisation")
    check(simulate_stamps(galaxies, survey, settings, 30, seed=39), galaxies, survey)


def test_lsst10yr_scenes_agree_with_galsim(galaxies):
    survey = get_survey("lsst10yr")
    sample = simulate_stamps(galaxies, survey, SceneSettings(), 20, seed=33)
    assert check(sample, galaxies, survey) > 35


def test_sheared_scenes_of_varying_psf_agree_with_galsim(galaxies):
    survey = get_survey("lsst10yr", "gr")
    settings = SceneSettings(shear_step=0.05, psf_fwhm_scatter=0.15, psf_shear_sigma=0.05)
    sample = simulate_stamps(galaxies, survey, settings, 3, seed=34)
    assert sample.n_scenes == 15
    assert np.ptp(sample.psf[:, 0, 0]) > 0.05 and np.abs(sample.psf[:, :, 1:]).max() > 0.02
    assert np.ptp(sample.objects["g1"]) == pytest.approx(0.1)
    check(sample, galaxies, survey)


def test_fluxes_of_scenes_are_those_of_their_magnitudes_by_hand(galaxies):
    """What a galaxy's magnitude says is what its stamp holds, but for the wings beyond the stamp."""
    by_hand = {
        # Electrons: 184 exposures of 15 s of a mirror 8.69369 times HST's.
        "arcelin2020": lambda r: 10 ** (-0.4 * (r - 28.13)) * 2760 * 8.69369,
        # Nanojanskys of an AB magnitude.
        "lsst10yr": lambda r: 10 ** (-0.4 * (r - 31.4)),
    }
    for name, flux in by_hand.items():
        survey = get_survey(name, "r")
        sample = simulate_stamps(galaxies, survey, SceneSettings(kind="isolated"), 60, seed=35)
        total = np.array([sample.image(scene).sum(dtype=float) for scene in range(60)])
        ratio = total / flux(np.asarray(sample.truth["r_mag"]))
        assert ratio.max() < 1.002
        assert np.median(ratio) > 0.99
        # All of its light, on and off the stamp, is in the fluxes.
        electrons = np.bincount(sample.scene, sample.fluxes[:, 0])
        np.testing.assert_allclose(electrons, flux(np.asarray(sample.truth["r_mag"])), rtol=1e-5)


def test_stars_are_the_psf_times_the_flux_of_their_magnitude(galaxies):
    survey = get_survey("lsst10yr", "gri")
    settings = SceneSettings(star_fraction=1.0, max_galaxies=2, mag_limit=24.0, psf_shear_sigma=0.05)
    sample = simulate_stamps(galaxies, survey, settings, 10, seed=36)
    assert sample.objects["star"].all() and (sample.objects["ident"] < 0).all()
    for scene in range(sample.n_scenes):
        expected = np.zeros((3, 64, 64))
        for one in objects_of(sample, scene):
            for b, (name, psf) in enumerate(zip("gri", sample.psf_models(scene))):
                njy = 10 ** (-0.4 * (one[f"mag_{name}"] - 31.4))
                star = (psf.profile() * njy).shift(0.2 * (one["x"] - 31.5), 0.2 * (one["y"] - 31.5))
                expected[b] += star.drawImage(nx=64, ny=64, scale=0.2, dtype=float).array
        np.testing.assert_allclose(sample.image(scene), expected, rtol=0, atol=TOLERANCE * expected.max())


def test_galsims_chromatic_cosmos_galaxies_give_the_same_images(tmp_path):
    """As the published code draws: SED times profile, through the bandpass."""
    survey = get_survey("arcelin2020", "ugrizy")
    galaxies = synthetic_galaxies(1000, seed=13)
    two = galaxies.components.flux_fraction[:, 1] > 0
    galaxies = galaxies[np.concatenate([np.flatnonzero(two)[:50], np.flatnonzero(~two)[:50]])]
    file = tmp_path / "galaxies_fits.fits"
    galaxies.table.write(file)
    catalog = galsim.COSMOSCatalog(str(file), use_real=False, exclusion_level="none")
    settings = SceneSettings(kind="isolated", centring="pixelisation")
    sample = simulate_stamps(galaxies, survey, settings, 15, seed=37, split="all")
    n_two = 0
    for scene in range(sample.n_scenes):
        (one,) = objects_of(sample, scene)
        row = int(np.flatnonzero(galaxies.ident == one["ident"])[0])
        galaxy = catalog.makeGalaxy(row, gal_type="parametric", chromatic=True)
        galaxy = galaxy.rotate(one["rotation"] * galsim.radians)
        galaxy = galaxy.shift(0.2 * (one["x"] - 31.5), 0.2 * (one["y"] - 31.5))
        seen = galsim.Convolve(galaxy, galsim.Kolmogorov(fwhm=0.65))
        n_two += bool(galaxies.table["use_bulgefit"][row])
        image = sample.image(scene)
        for b, (name, number) in enumerate(zip("ugrizy", (56, 80, 184, 184, 160, 160))):
            bandpass = galsim.Bandpass(f"LSST_{name}.dat", "nm")
            expected = seen.drawImage(bandpass, nx=64, ny=64, scale=0.2, dtype=float).array
            expected = expected * number * 15 * 6.68**2 / (2.4**2 * (1 - 0.33**2))
            assert image[b].sum(dtype=float) == pytest.approx(expected.sum(), rel=0.01), (scene, name)
            np.testing.assert_allclose(image[b], expected, rtol=0, atol=0.01 * expected.max())
    assert 2 < n_two < sample.n_scenes - 2


ELECTRONS = {"u": 884, "g": 12_746, "r": 65_329, "i": 93_565, "z": 126_597, "y": 145_354, "VIS": 353}
"""Sky of a pixel as the paper's settings give it."""


@pytest.mark.parametrize("kind", ["poisson", "normal", "sky"])
def test_noise_of_an_empty_scene_has_the_variance_of_the_papers_sky(kind):
    survey = get_survey("arcelin2020", ELECTRONS)
    sky = [band.sky_level for band in survey.bands]
    empty = np.zeros((50, len(survey), 64, 64), np.float32)
    noisy = add_noise(empty, sky, [1.0] * len(survey), np.random.default_rng(41), kind)
    variance = noisy.astype(float).var(axis=(0, 2, 3))
    # 204 800 pixels give a variance to 0.3 %; the paper's numbers are those of 2.512 for 10^0.4.
    np.testing.assert_allclose(variance, list(ELECTRONS.values()), rtol=0.013)
    mean = noisy.astype(float).mean(axis=(0, 2, 3))
    assert (np.abs(mean) < 5 * np.sqrt(variance / 204_800)).all()


def test_noise_of_an_empty_composed_scene_is_the_sky(galaxies):
    """Through the trainer's door: scenes without light, in nanojanskys."""
    survey = get_survey("lsst10yr")
    sample = simulate_stamps(galaxies, survey, SceneSettings(), 20, seed=38)
    sample = dataclasses.replace(sample, fluxes=np.zeros_like(sample.fluxes))
    noisy, clean = SceneComposer([sample], survey, seed=3).batch(0, 60)
    assert (clean == 0).all()
    # Electrons of zero point, sky, pixel and time, over electrons per nanojansky.
    expected = [
        10 ** (0.4 * (band.zeropoint - band.sky_brightness)) * 0.04 * band.exposure_time
        for band in survey.bands
    ]
    expected /= (
        np.array([band.exposure_time * 10 ** (0.4 * (band.zeropoint - 31.4)) for band in survey.bands]) ** 2
    )
    np.testing.assert_allclose(noisy.astype(float).var(axis=(0, 2, 3)), expected, rtol=0.013)
