# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""PSFs that vary about the survey's."""

import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import ImageError, VaeError
from lsst.meas.extensions.vae.simulation.psfs import MAX_ELLIPTICITY, PsfVariation, pack_psfs, unpack_psfs
from lsst.meas.extensions.vae.survey import PsfModel, get_survey

KINDS = get_survey("arcelin2020", ["r", "VIS", "H"]).profile_kinds


def drawn(variation, kinds, number, seed=3):
    rng = np.random.default_rng(seed)
    return np.stack([pack_psfs(variation.draw(rng, kinds)) for _ in range(number)])


def test_no_variation_is_the_surveys_own_psfs_and_uses_no_random_number():
    rng = np.random.default_rng(1)
    assert PsfVariation().draw(rng, KINDS) == tuple(model for model, _ in KINDS)
    assert rng.random() == np.random.default_rng(1).random()
    assert not PsfVariation().varies
    assert PsfVariation(fwhm_scatter=0.1).varies
    assert PsfVariation(shear_sigma=0.01).varies


def test_fwhm_and_ellipticity_scatter_as_asked():
    numbers = drawn(PsfVariation(fwhm_scatter=0.1, shear_sigma=0.02), KINDS, 4000)
    relative = np.log(numbers[:, :, 0] / [model.fwhm for model, _ in KINDS])
    np.testing.assert_allclose(relative.mean(axis=0), 0.0, atol=0.006)
    np.testing.assert_allclose(relative.std(axis=0), 0.1, rtol=0.05)
    assert abs(relative).max() <= 0.3 + 1e-6
    np.testing.assert_allclose(numbers[:, :, 1:].mean(axis=0), 0.0, atol=0.002)
    np.testing.assert_allclose(numbers[:, :, 1:].std(axis=0), 0.02, rtol=0.05)
    # Bands with PSFs of their own vary by themselves.
    assert abs(np.corrcoef(relative.T)[0, 1]) < 0.06


def test_ellipticities_are_added_to_the_surveys_and_stay_below_the_limit():
    round_one, elliptical = PsfModel("gaussian", 0.7), PsfModel("moffat", 0.7, 3.0, e1=0.05, e2=-0.1)
    kinds = [(round_one, 0.2), (elliptical, 0.2)]
    numbers = drawn(PsfVariation(shear_sigma=0.02), kinds, 2000)
    np.testing.assert_allclose(numbers[:, 1, 1:].mean(axis=0), [0.05, -0.1], atol=0.003)
    np.testing.assert_array_equal(numbers[:, :, 0], np.float32(0.7))
    extreme = PsfModel("gaussian", 0.7, e1=0.2, e2=0.2)
    sizes = np.hypot(*drawn(PsfVariation(shear_sigma=0.1), [(extreme, 0.2)], 500)[:, 0, 1:].T)
    assert sizes.max() <= MAX_ELLIPTICITY
    assert (sizes > MAX_ELLIPTICITY - 1e-4).any()


def test_kinds_that_differ_in_pixel_scale_only_share_their_psf():
    model, other = PsfModel("gaussian", 0.7), PsfModel("gaussian", 0.8)
    fine, coarse, second = PsfVariation(0.1, 0.02).draw(
        np.random.default_rng(5), [(model, 0.1), (model, 0.3), (other, 0.3)]
    )
    assert fine == coarse
    assert second.fwhm != fine.fwhm * 0.8 / 0.7


def test_packed_psfs_come_back_exactly():
    models = PsfVariation(0.1, 0.02).draw(np.random.default_rng(6), KINDS)
    packed = pack_psfs(models)
    assert packed.dtype == np.float32
    assert packed.shape == (3, 3)
    assert unpack_psfs(packed, KINDS) == models
    nominal = tuple(model for model, _ in KINDS)
    # 0.65 is no single-precision number.
    assert unpack_psfs(pack_psfs(nominal), KINDS) == nominal


@pytest.mark.parametrize(
    "packed, words",
    [
        (np.ones((2, 3)), r"\(2, 3\).*expected \(3, 3\)"),
        (np.array([[0.6, 0, 0], [np.nan, 0, 0], [0.2, 0, 0]]), "positive FWHM"),
        (np.array([[0.6, 0, 0], [-0.1, 0, 0], [0.2, 0, 0]]), "positive FWHM"),
        (np.array([[0.6, 0, 0], [0.1, 0.9, 0.9], [0.2, 0, 0]]), "below 1"),
    ],
)
def test_parameters_that_make_no_psf_are_refused(packed, words):
    with pytest.raises(ImageError, match=words):
        unpack_psfs(packed, KINDS)


@pytest.mark.parametrize("numbers", [(-0.1, 0.0), (0.0, 0.2), (np.nan, 0.0), (0.6, 0.0)])
def test_variation_out_of_range_is_refused(numbers):
    with pytest.raises(VaeError, match="expected 0"):
        PsfVariation(*numbers)
