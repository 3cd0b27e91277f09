# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped model deblends: galaxies that it never saw, with known truth."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("keras")

from lsst.meas.extensions.vae.deblending import DeblendSettings, deblend_blend  # noqa: E402
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies  # noqa: E402
from lsst.meas.extensions.vae.network.model import Network  # noqa: E402
from lsst.meas.extensions.vae.network.shipped import load_package, shipped_packages  # noqa: E402
from lsst.meas.extensions.vae.simulation.fields import FieldSettings, simulate_field  # noqa: E402
from lsst.meas.extensions.vae.simulation.metrics import ksb_shear  # noqa: E402
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps  # noqa: E402
from lsst.meas.extensions.vae.survey import get_survey  # noqa: E402

NAME = "lsst10yr-ugrizy"


@pytest.fixture(scope="module")
def deblended():
    """Models of blended targets of SNR above 60, beside their truth."""
    survey = get_survey("lsst10yr")
    scenes = SceneSettings(
        placement="field", mag_limit=None, centring="pixelisation", target_snr_min=60.0, close_fraction=1.0
    )
    sample = simulate_stamps(synthetic_galaxies(20_000, seed=3), survey, scenes, 40, seed=11, split="test")
    rng = np.random.default_rng(5)
    unit = np.array([band.electrons_per_unit for band in survey.bands])[:, None, None]
    sky = np.array([band.sky_level for band in survey.bands])[:, None, None]
    network = Network(load_package(NAME))
    r, psf = survey.band_names.index("r"), survey["r"].psf.kernel(0.2)
    rows = []
    for i in range(sample.n_scenes):
        scene, target = sample.image(i), sample.image(i, "target")
        expected = np.maximum(scene, 0) * unit + sky
        noisy = (rng.poisson(expected) - sky) / unit
        # The target alone is asked for, so its flux has to be the network's own:
        # a joint solution would need templates of the neighbours too.
        centre = [(sample.truth["y"][i], sample.truth["x"][i])]
        settings = DeblendSettings(joint_fluxes=False)
        result = deblend_blend(noisy, expected / unit**2, centre, network, settings=settings)
        assert tuple(result.origins[0]) == (0, 0)
        model = result.models[0]
        rows.append(
            (
                -2.5 * np.log10(model[r].sum() / target[r].sum()),
                *(np.array(ksb_shear(model[r], psf)[:2]) - [sample.truth["e1"][i], sample.truth["e2"][i]]),
                *(
                    np.array([abs(model[r] - target[r]).sum(), abs(scene[r] - target[r]).sum()])
                    / target[r].sum()
                ),
            )
        )
    return np.array(rows)


def test_the_shipped_model_names_its_galaxies_and_no_test_split():
    assert NAME in shipped_packages()
    card = load_package(NAME).card
    for stage in ("prior", "deblender"):
        for sample in card["training"][stage]["samples"]:
            assert sample["split"] == "train" and sample["versions"]["galaxies"] == "cosmos"
            assert sample["versions"]["galaxies_sha256"].startswith("028f2b9f")


def test_magnitudes_of_bright_blended_galaxies_are_right_to_some_per_cent(deblended):
    error = deblended[:, 0]
    assert abs(np.median(error)) < 0.05
    # The network's own; those of DeblendVaeTask are solved for.
    assert np.percentile(np.abs(error), 68) < 0.20


def test_shapes_of_bright_blended_galaxies_are_right_to_a_tenth(deblended):
    for component in (1, 2):
        error = deblended[:, component]
        # KSB fails on a noiseless truth now and then.
        error = error[np.isfinite(error)]
        assert len(error) >= 36
        assert np.percentile(np.abs(error), 68) < 0.10


def test_the_models_are_nearer_to_the_targets_than_the_pixels_are(deblended):
    model, pixels = deblended[:, 3], deblended[:, 4]
    blended = pixels > 0.2
    assert blended.sum() > 15
    assert np.median(model[blended]) < 0.5 * np.median(pixels[blended])


@pytest.fixture(scope="module")
def field():
    """A small field, its galaxies of SNR above 5, and those of them that are judged."""
    survey = get_survey("lsst10yr")
    galaxies = synthetic_galaxies(20_000, seed=4).split("test")
    made = simulate_field(galaxies, survey, FieldSettings(size=220, density_per_arcmin2=70.0), seed=8)
    known = np.flatnonzero((made.truth["snr_r"] > 5) & made.truth["in_field"])
    centres = np.column_stack([made.truth["y"], made.truth["x"]]).astype(float)[known]
    judged = ((centres > 30) & (centres < 190)).all(axis=1) & (made.truth["snr_r"][known] > 30)
    return made, known, centres, judged


def test_refinement_betters_shapes_and_fluxes_and_tells_how_sure_they_are(field):
    made, known, centres, judged = field
    network, r = Network(load_package(NAME)), 2
    errors, shapes, results = {}, {}, {}
    for refined in (False, True):
        settings = DeblendSettings(refine=refined, n_samples=60 if refined else 0)
        result = results[refined] = deblend_blend(
            made.images, made.variance, centres, network, settings=settings
        )
        rows = []
        for k in np.flatnonzero(judged):
            target = made.isolated(int(known[k]), 64, tuple(int(v) for v in result.origins[k]))[0][r]
            e, truth = (ksb_shear(image, made.psfs[r])[:2] for image in (result.models[k, r], target))
            flux = result.models[k, r].sum() / target.sum() - 1
            rows.append((flux, *np.subtract(e, truth)))
        rows = np.array(rows)
        errors[refined], shapes[refined] = np.abs(rows[:, 0]), np.abs(rows[:, 1:][np.isfinite(rows[:, 1])])
    assert len(errors[True]) >= 12
    assert shapes[True].mean() < 0.85 * shapes[False].mean()
    assert np.median(errors[True]) < 0.03
    result = results[True]
    assert result.converged.mean() > 0.8 and np.median(result.chi2) == pytest.approx(1, abs=0.05)
    assert np.median(result.novelty) < 1
    # Faint galaxies are less sure than bright ones; floors rule those.
    snr = np.log(made.truth["snr_r"][known])
    told = result.flux_errors[:, r] / result.fluxes[:, r]
    assert np.corrcoef(np.log(told), snr)[0, 1] < -0.9
    drawn = [
        np.diff(np.percentile(d.fluxes[:, r], [16, 84]))[0] / d.fluxes[:, r].mean() for d in result.draws
    ]
    assert np.corrcoef(np.log(drawn), snr)[0, 1] < -0.5


def test_a_card_that_lacks_later_options_keeps_its_loss_and_runs():
    package = load_package("lsst-ugrizy-morphology")
    # Packages of before knew one likelihood only.
    architecture = package.card["architecture"]
    options = {k: v for k, v in architecture["options"].items() if k not in ("likelihood", "sky")}
    assert options != architecture["options"]
    older = {**package.card, "architecture": {**architecture, "options": options}}
    network = Network(dataclasses.replace(package, card=older))
    assert network.architecture.options["likelihood"] == "factorised"
    noise = np.ones((1, 6))
    images = np.random.default_rng(0).normal(size=(1, 6, 64, 64))
    assert np.isfinite(network.deblend(images, noise)[0]).all()
