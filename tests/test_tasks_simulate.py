# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""SimulateBlendsTask gives what its config asks for."""

import numpy as np
import pytest

pytest.importorskip("lsst.pipe.base")

from lsst.meas.extensions.vae import SimulateBlendsTask
from lsst.meas.extensions.vae.config import OverrideReader
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.simulateBlendsTask import SimulateBlendsConfig
from lsst.meas.extensions.vae.survey import get_survey


@pytest.fixture(scope="module")
def galaxies():
    return synthetic_galaxies(4000, seed=5)


def task(**values):
    """A Task of these settings, nested ones by double underscores."""
    config = SimulateBlendsConfig()
    reader = OverrideReader(config)
    for key, value in {"nScenes": 6, **values}.items():
        reader.readOption(f"{key.replace('__', '.')}={value}")
    return SimulateBlendsTask(config=config)


def test_composed_scenes_come_beside_the_stamps_with_the_noise_that_was_asked_for(galaxies):
    paper = dict(survey="arcelin2020", scenes__colourGradients=False, composed=True)
    poisson = task(**paper).run(galaxies, tract=2, patch=1)
    sky = task(**paper, noise="sky").run(galaxies, tract=2, patch=1)
    assert len(poisson.blendScenes) == len(poisson.blendStamps) == 6
    assert poisson.blendScenes.noise == "poisson" and sky.blendScenes.noise == "sky"
    level = np.array([band.sky_level for band in get_survey("arcelin2020", "ugrizy").bands])
    for result in (poisson, sky):
        for number in range(6):
            residual = result.blendScenes.noisy[number] - result.blendStamps.image(number)
            border = np.concatenate([residual[:, :6].reshape(6, -1), residual[:, -6:].reshape(6, -1)], axis=1)
            np.testing.assert_allclose(border.var(axis=1) / level, 1, atol=0.25)
            np.testing.assert_array_equal(
                result.blendScenes.target[number], result.blendStamps.image(number, "target")
            )


def test_sheared_scenes_come_five_by_five(galaxies):
    sample = task(scenes__shearStep=0.01, kind="isolated").run(galaxies, tract=2).isolatedStamps
    assert len(sample) == 30
    shears = np.column_stack([sample.truth["g1"], sample.truth["g2"]]).reshape(6, 5, 2)
    np.testing.assert_allclose(shears[0], [(0, 0), (0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)])
    assert (shears == shears[0]).all()


def test_published_code_s_survey_is_kept_by_name_in_the_sample(galaxies):
    config = dict(survey="arcelin2020", nirSky="code", bands='["r", "Y", "H"]', nScenes=2)
    sample = task(**config).run(galaxies).blendStamps
    assert sample.survey == "arcelin2020+codeNirSky"
    levels = {band["name"]: band["sky_brightness"] for band in sample.survey_info["bands"]}
    paper = get_survey("arcelin2020")
    assert (levels["Y"], levels["H"]) == (paper["H"].sky_brightness, paper["Y"].sky_brightness)


def test_shards_of_one_campaign_differ_and_each_repeats_bit_for_bit(galaxies):
    first, again, other = (task(nScenes=3).run(galaxies, patch=patch).blendStamps for patch in (0, 0, 1))
    np.testing.assert_array_equal(first.profiles, again.profiles)
    np.testing.assert_array_equal(first.fluxes, again.fluxes)
    assert first.profiles.shape != other.profiles.shape or (first.profiles != other.profiles).any()


def test_splits_of_a_campaign_never_share_a_galaxy(galaxies):
    idents = [
        set(np.asarray(task(nScenes=40).run(galaxies, tract=tract).blendStamps.objects["ident"]).tolist())
        for tract in (0, 1, 2)
    ]
    assert {i % 16 for i in idents[1]} == {1} and {i % 16 for i in idents[2]} == {0}
    assert not {i % 16 for i in idents[0]} & {0, 1}


def test_field_is_masked_and_detected_around_its_defects(galaxies):
    result = task(kind="field", field__size=200, field__gapWidth=12, field__edgeWidth=4).run(
        galaxies, tract=3
    )
    mask = np.asarray(result.field.mask.array)
    planes = result.field.mask.getMaskPlaneDict() if hasattr(result.field.mask, "getMaskPlaneDict") else None
    bits = {name: 1 << number for name, number in planes.items()}
    no_data = (mask & bits["NO_DATA"]) != 0
    assert (no_data.sum(axis=(1, 2)) == 12 * 200).all()
    assert not np.asarray(result.field.image.array)[no_data].any()
    assert ((mask[:, 0] & bits["EDGE"]) != 0).all() and not (mask[:, 100, 100] & bits["EDGE"]).any()
    detected = (mask & bits["DETECTED"]) != 0
    assert detected.any() and not (detected.all(axis=0) & no_data.all(axis=0)).any()
    assert len(result.mergedDetections) > 5


def test_close_pairs_are_left_out_of_training_but_not_of_the_test_sample(galaxies):
    config = dict(nScenes=60, scenes__minNeighbourDistance=1.0, scenes__minGalaxies=2, survey="arcelin2020")
    nearest = [
        np.nanmin(task(**config).run(galaxies, tract=tract).blendStamps.truth["neighbour_distance"])
        for tract in (0, 2)
    ]
    assert nearest[0] >= 1.0 > nearest[1]


def test_truth_of_a_field_tells_the_psfs_that_its_image_has(galaxies):
    from lsst.meas.extensions.vae.simulation.redraw import survey_with_psfs

    settings = dict(kind="field", field__size=100, bands='["g", "r"]')
    result = task(**settings, field__psfFwhmScatter=0.1, field__psfShearSigma=0.02).run(galaxies, tract=3)
    nominal = get_survey("lsst10yr", "gr")
    survey = survey_with_psfs(nominal, result.fieldTruth)
    kernels = result.field.computePsfKernelImage((50, 50)).array
    for kernel, band, other in zip(kernels, survey.bands, nominal.bands):
        assert band.psf != other.psf
        middle = [one.psf.kernel(0.2, kernel.shape[-1]) for one in (band, other)]
        np.testing.assert_allclose(kernel, middle[0], atol=1e-6 * kernel.max())
        assert abs(kernel - middle[1]).max() > 1e-3 * kernel.max()
    assert set(result.fieldTruth["seed"]) == {result.field.getMetadata()["SEED"]}


def test_samples_of_two_populations_are_told_apart(galaxies):
    settings = dict(nScenes=1, bands='["r"]')
    one, other = (task(**settings).run(g).blendStamps for g in (galaxies, synthetic_galaxies(4000, seed=6)))
    assert one.versions["galaxies_sha256"] == galaxies.sha256 != other.versions["galaxies_sha256"]
