# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sheared versions of scenes, and shear that is calibrated by them, against GalSim and known responses."""

import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import ImageError
from lsst.meas.extensions.vae.evaluation.shear_response import (
    ShearedVersions,
    ShearOperator,
    calibrated_bias,
    shear_estimate,
)

galsim = pytest.importorskip("galsim")

PSF = galsim.Moffat(beta=3.5, fwhm=0.8)
SCALE, SIZE = 0.2, 32
STEP = 0.01


def drawn(galaxy):
    return galsim.Convolve(galaxy, PSF).drawImage(nx=SIZE, ny=SIZE, scale=SCALE).array


@pytest.fixture(scope="module")
def psf():
    return PSF.drawImage(nx=31, ny=31, scale=SCALE).array


@pytest.fixture(scope="module")
def versions(psf):
    return ShearedVersions([psf], SIZE, STEP)


@pytest.mark.parametrize("shear", [(0.0, 0.0), (0.02, 0.0), (-0.01, 0.03)])
def test_a_sheared_image_is_the_image_of_the_sheared_galaxies(psf, shear):
    blend = galsim.Exponential(half_light_radius=0.4).shear(g1=0.3, g2=-0.1)
    blend += galsim.Gaussian(sigma=0.3, flux=0.5).shift(0.7, -0.5)
    truth = drawn(blend.shear(g1=shear[0], g2=shear[1]))
    made = ShearOperator(psf, SIZE, *shear)(drawn(blend))
    np.testing.assert_allclose(made, truth, atol=1e-3 * truth.max())
    if shear[1]:
        assert np.abs(drawn(blend) - truth).max() > 0.02 * truth.max()


def test_what_is_no_psf_no_shear_or_no_stamp_is_refused(psf):
    with pytest.raises(ImageError, match="odd sides"):
        ShearOperator(psf[:30], SIZE, 0, 0)
    with pytest.raises(ImageError, match=r"shear is \(1, 0\)"):
        ShearOperator(psf, SIZE, 1, 0)
    with pytest.raises(ImageError, match=r"expected \[..., 32, 32\]"):
        ShearOperator(psf, SIZE, 0, 0)(np.zeros((2, 30, 30)))


def moments(images):
    """Ellipticities of Gaussian-weighted moments: not corrected for the PSF, so they answer too little."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    weighted = images * np.exp(-(x**2 + y**2) / (2 * 5.0**2))
    size = (weighted * (x**2 + y**2)).sum(axis=(-2, -1))
    e1 = (weighted * (x**2 - y**2)).sum(axis=(-2, -1)) / size
    return np.stack([e1, (weighted * 2 * x * y).sum(axis=(-2, -1)) / size], axis=-1) / 2


def shapes(versions, scenes, sigma, seed):
    made = versions(scenes[:, None], sigma, seed)
    return {name: moments(images[:, 0]) for name, images in made.items()}


@pytest.mark.parametrize("component", [1, 2])
def test_shear_comes_out_right_though_the_measurement_answers_too_little(versions, component):
    rng = np.random.default_rng(5)
    true = 0.02
    galaxies = [
        galsim.Exponential(half_light_radius=r).shear(g1=e1, g2=e2).rotate(angle * galsim.degrees)
        for r, e1, e2 in zip(rng.uniform(0.5, 0.7, 12), rng.normal(0, 0.15, 12), rng.normal(0, 0.15, 12))
        # Pairs at right angles have no mean ellipticity of their own.
        for angle in (0, 90)
    ]
    found = {}
    for sign in (1, -1):
        lens = galsim.Shear(**{f"g{component}": sign * true})
        scenes = np.stack([drawn(galaxy.shear(lens)) for galaxy in galaxies])
        found[sign] = shapes(versions, scenes, 0.0, 1)
    bias = calibrated_bias(found[1], found[-1], component, true, STEP)
    assert bias["m_raw"] < -0.4
    assert bias["m"] == pytest.approx(0, abs=3e-3)
    assert bias["c"] == pytest.approx(0, abs=1e-4)
    estimate = shear_estimate(found[1], component, STEP)
    assert estimate.number == 24 and estimate.shear == pytest.approx(true, rel=0.02)


def test_noise_of_the_scene_answers_to_no_shear_and_its_variance_is_doubled(versions):
    rng = np.random.default_rng(2)
    n, sigma = 1500, 0.01
    scene = drawn(galsim.Gaussian(sigma=0.4))
    scenes = scene + rng.normal(0, sigma, (n, SIZE, SIZE))
    made = versions(scenes[:, None], sigma, 3)
    clean = versions(scene[None, None], 0.0, 3)

    def response(images):
        # Second moments of the power of what is noise alone.
        power = np.abs(np.fft.fft2(images)) ** 2
        k = np.fft.fftfreq(SIZE)
        weight = np.cos(2 * np.pi * k)[None, :] - np.cos(2 * np.pi * k)[:, None]
        return (power * weight).mean() / power.mean()

    residual = {name: made[name][:, 0] - clean[name][:, 0] for name in ("1p", "1m", "noshear")}
    alone = versions(rng.normal(0, sigma, (n, 1, SIZE, SIZE)), 0.0, 3)
    sheared = response(alone["1p"][:, 0]) - response(alone["1m"][:, 0])
    both = response(residual["1p"]) - response(residual["1m"])
    assert abs(sheared) > 5 * abs(both)
    low = np.abs(np.fft.fft2(residual["noshear"])[:, :4, :4][:, 1:, 1:]) ** 2
    assert low.mean() / (SIZE * sigma) ** 2 == pytest.approx(2, rel=0.05)


def test_the_bias_of_a_known_response_is_found_with_its_error():
    rng = np.random.default_rng(8)
    n, true, answer, constant = 4000, 0.02, 0.7, 1e-3
    intrinsic, noise = rng.normal(0, 0.1, n), {}
    found = {}
    for sign in (1, -1):
        found[sign] = {}
        for name, step in (("noshear", 0), ("1p", STEP), ("1m", -STEP)):
            noise[name] = rng.normal(0, 2e-4, n)
            e = answer * (intrinsic + sign * true + step) + constant + noise[name]
            found[sign][name] = np.column_stack([e, e])
    bias = calibrated_bias(found[1], found[-1], 1, true, STEP)
    assert bias["number"] == n and bias["response"] == pytest.approx(answer, abs=1e-3)
    assert bias["m_raw"] == pytest.approx(answer - 1, abs=1e-3)
    assert abs(bias["m"]) < 4 * bias["m_error"] < 4e-3
    assert bias["c"] == pytest.approx(constant / answer, abs=4 * bias["c_error"])
    # Without the answer to one of the shears a scene counts nowhere.
    found[1]["1p"][:1000] = np.nan
    assert calibrated_bias(found[1], found[-1], 1, true, STEP)["number"] == 3000
