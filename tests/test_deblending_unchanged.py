# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever happens to a source, those that share no light with it keep every bit; with real networks."""

import numpy as np
import pytest

pytest.importorskip("keras")

from test_deblending_bad_input import (  # noqa: E402
    CENTRES,
    NOISE,
    SMALL,
    KnownNetwork,
    box_about,
    by_run,
    run,
    scene,
    small_network,
)

from lsst.meas.extensions.vae.afw import AnalyticPsf  # noqa: E402
from lsst.meas.extensions.vae.deblending import DeblendSettings, deblend_blend  # noqa: E402
from lsst.meas.extensions.vae.deblending.fluxes import solve_amplitudes  # noqa: E402

PLAIN = DeblendSettings(prior_width=0.0)


@pytest.fixture(scope="module")
def networks():
    return {name: small_network(name) for name in SMALL}


FAR = np.array([(30.5, 160.2), (38.1, 166.7), (80.3, 192.4), (60.0, 230.9)])
NEAR = np.array([(40.2, 40.6), (47.0, 46.1)])


def field(seed=0, centres=None, shape=(110, 270)):
    centres, rng = np.concatenate([NEAR, FAR]) if centres is None else centres, np.random.default_rng(seed)
    images, _ = scene(shape, centres, rng.uniform(1000, 8000, len(centres)))
    noise = np.reshape(NOISE, (2, 1, 1))
    images = (images + rng.normal(size=images.shape) * noise).astype("f4")
    return images, np.broadcast_to(noise**2, images.shape).astype("f4"), centres


def damage(kind, images, variance, centres):
    """Something happens left of column 110."""
    bad, here = np.zeros(images.shape[1:], bool), np.s_[:, 25:60, 20:70]
    if kind in ("nan", "huge"):
        images[here] = {"nan": np.nan, "huge": 1e17}[kind]
    elif kind == "variance":
        variance[here] = 0
    elif kind == "mask":
        bad[:, :110] = True
    elif kind == "noisy":
        images[here] += np.random.default_rng(1).normal(0, 1e4, images[here].shape)
    else:
        nowhere = [(np.nan, 3.0), (-9.0, 4.0)]
        near = {"gone": NEAR[:0], "lost": nowhere, "copies": np.repeat(NEAR, 9, axis=0)}[kind]
        centres = np.concatenate([near, FAR])
    return images, variance, centres, bad


def differing(result, other, n):
    """Names of what differs, by any bit, of the last n sources."""
    names = ("models", "fluxes", "flux_errors", "latent_mean", "latent_sigma", "failed", "noise", "novelty",
             "chi2", "iterations", "converged", "shifts", "covariance")  # fmt: skip
    pairs = [(name, getattr(result, name), getattr(other, name)) for name in names]
    return [
        name for name, a, b in pairs if a is not None and not np.array_equal(a[-n:], b[-n:], equal_nan=True)
    ]


@pytest.mark.parametrize("refined", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_far_sources_keep_every_bit_whatever_happens(networks, name, refined):
    settings = DeblendSettings(refine=refined, max_steps=2)
    images, variance, centres = field()
    plain = deblend_blend(images, variance, centres, networks[name], settings=settings)
    assert np.isfinite(plain.models).all()
    for kind in ("nan", "huge", "variance", "mask", "noisy", "gone", "lost", "copies"):
        images, variance, centres, bad = damage(kind, *field())
        result = deblend_blend(images, variance, centres, networks[name], bad=bad, settings=settings)
        assert not differing(result, plain, len(FAR)), kind


CROWD = np.array([(30.3 + 25 * j, 140.2 + 25 * i) for i in range(8) for j in range(3)])


@pytest.mark.parametrize("refined", [False, True])
def test_of_many_sources_that_overlap_none_changes_with_a_far_one(networks, refined):
    images, variance, centres = field(2, np.concatenate([[(60.0, 30.0)], CROWD]), (110, 360))
    settings = DeblendSettings(refine=refined, max_steps=2)
    whole, part = (
        deblend_blend(images, variance, some, networks["morphology"], settings=settings)
        for some in (centres, centres[1:])
    )
    assert not differing(whole, part, len(CROWD))


def test_a_source_alone_keeps_every_bit(networks):
    images, variance, centres = field(centres=np.array([(50.5, 40.5), (60.5, 150.5)]))
    whole, alone = (
        deblend_blend(images, variance, some, networks["morphology"], settings=PLAIN)
        for some in (centres, centres[-1:])
    )
    assert not differing(whole, alone, 1)


def test_draws_of_a_source_do_not_change_with_the_number_of_others(networks):
    images, variance, centres = field()
    whole, part = (
        deblend_blend(images, variance, some, networks["conditional"], settings=DeblendSettings(n_samples=5))
        for some in (centres, centres[2:])
    )
    np.testing.assert_array_equal(whole.draws[-1].fluxes, part.draws[-1].fluxes)


class Failing(KnownNetwork):
    """Raises where a pixel is above 1e4."""

    def deblend(self, images, *args):
        if (images > 1e4).any():
            raise FloatingPointError("too bright")
        return super().deblend(images, *args)


def test_a_parent_that_fails_leaves_the_others_solved_together():
    images, variance = scene()
    images[:, 60, 150] = 2e4
    one, other, failing = ((box_about([centre]), [centre]) for centre in CENTRES)
    result = run(Failing(), images, variance, [one, failing, other])
    assert list(result.objectParents["deblend_failed"]) == [False, True, False]
    objects = result.deblendedCatalog
    fluxes = objects["deblend_scarletFlux"][~objects["deblend_failed"]]
    assert fluxes == pytest.approx([800, 400], rel=2e-3)


def test_amplitudes_keep_every_bit_whoever_is_far():
    y, x = np.mgrid[:16, :16] - 7.5
    for seed in range(5):
        rng = np.random.default_rng(seed)
        origins, width = rng.integers(-5, 195, (300, 2)), rng.uniform(1.5, 3, (300, 1, 1))
        far = rng.random(300) < 0.5
        origins[~far, 1] += 300
        templates = np.exp(-(y**2 + x**2) / 2 / width**2)[:, None]
        image = rng.normal(size=(1, 200, 520))
        whole = solve_amplitudes(image, np.ones_like(image), templates, origins, 0.3)
        part = solve_amplitudes(image, np.ones_like(image), templates[far], origins[far], 0.3)
        for a, b in zip(whole, part, strict=True):
            np.testing.assert_array_equal(a[far], b)


def test_variances_far_too_small_give_finite_errors(networks):
    images, variance, centres = field()
    variance[:, ::3, ::3] = 1e-30
    settings = DeblendSettings(refine=True, max_steps=2)
    result = deblend_blend(images, variance, centres, networks["conditional"], settings=settings)
    assert np.isfinite(result.latent_sigma[~result.failed]).all()


def test_in_a_homogenised_exposure_absurd_pixels_do_no_harm_to_far_sources(networks):
    psfs = [AnalyticPsf("gaussian", 0.35, 0.2)] * 2
    images, variance, centres = field()
    plain = by_run(images, variance, centres, networks["conditional"], psfs=psfs)
    variance[:, 25:60, 20:70] = 1e30
    result = by_run(images, variance, centres, networks["conditional"], psfs=psfs)
    np.testing.assert_array_equal(result.failed[2:], plain.failed[2:])
    np.testing.assert_allclose(result.models[2:], plain.models[2:], atol=1e-3 * plain.models[2:].max())
