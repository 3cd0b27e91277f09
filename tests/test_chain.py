# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole chain through the commands, on a small campaign."""

import os

import numpy as np
import pytest

pytest.importorskip("lsst.daf.butler")
pytest.importorskip("keras")

from lsst.meas.extensions.vae import (  # noqa: E402
    DeblendVaeTask,
    MeasureShapesTask,
    SimulateBlendsTask,
    TrainDeblenderTask,
    TrainPriorTask,
)
from lsst.meas.extensions.vae.cli import main  # noqa: E402
from lsst.meas.extensions.vae.prepare import prepareCampaign, prepareModel  # noqa: E402
from lsst.meas.extensions.vae.repo import openRepository  # noqa: E402

SYNTHETIC = ["galaxies.name=synthetic", "galaxies.n=4000"]
CAMPAIGN = ["campaign=toy", "nTrain=1", "nValidation=1", "nFields=1"]


def simulate(repo, *overrides):
    return main(
        SimulateBlendsTask,
        [str(repo), "-c", *SYNTHETIC, *CAMPAIGN, *overrides],
        prepare=prepareCampaign,
        prog="simulateBlends.py",
    )


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    """A repository in which every command of the chain has run once."""
    root = tmp_path_factory.mktemp("chain")
    os.environ["USER"] = "tester"
    repo = root / "repo"
    stamps = ["nScenes=24", "scenes.placement=field", "scenes.magLimit=None", "scenes.targetSnrMin=10"]
    train = [
        "training.batchSize=8",
        "training.stepsPerEpoch=2",
        "training.epochs=1",
        "training.warmupSteps=1",
        "training.validationScenes=8",
        "training.precision=float32",
        f"training.directory={root / 'runs'}",
    ]
    assert simulate(repo, "kind=isolated", *stamps) == 0
    assert simulate(repo, "kind=blended", *stamps) == 0
    assert simulate(repo, "kind=field", "field.size=128", "field.densityPerArcmin2=60") == 0
    assert main(TrainPriorTask, [str(repo), "-i", "toy-isolated", "-o", "prior", "-c", *train]) == 0
    assert (
        main(
            TrainDeblenderTask,
            [str(repo), "-i", "toy-blended,prior", "-o", "deblender", "-c", "name=toy", *train],
        )
        == 0
    )
    assert (
        main(
            DeblendVaeTask,
            [str(repo), "-i", "toy-field,deblender", "-o", "deblended", "-c", "useTrainedModel=True"],
            prepare=prepareModel,
        )
        == 0
    )
    assert main(MeasureShapesTask, [str(repo), "-i", "deblended", "-o", "shapes"]) == 0
    return repo


def test_every_product_of_the_chain_is_in_the_repository(repo):
    butler = openRepository(repo, writeable=False)
    collections = "u/tester/*"
    for name in (
        "vae_isolatedStamps",
        "vae_blendStamps",
        "vae_field",
        "vae_fieldTruth",
        "vae_mergedDetections",
        "vae_priorPackage",
        "vae_trainedPackage",
        "vae_deblendedCatalog",
        "vae_modelData",
        "vae_objectParents",
        "vae_shapes",
    ):
        assert butler.query_datasets(name, collections=collections, find_first=False), name


def test_every_detected_peak_has_a_row_and_every_row_a_measurement_or_a_flag(repo):
    butler = openRepository(repo, writeable=False, campaign="toy")
    where = dict(tract=3, patch=0, collections=["u/tester/shapes", "u/tester/toy-field"])
    peaks = sum(len(record.getFootprint().peaks) for record in butler.get("vae_mergedDetections", **where))
    catalog, shapes = butler.get("vae_deblendedCatalog", **where), butler.get("vae_shapes", **where)
    models = butler.get("vae_modelData", **where)
    assert len(catalog) == len(shapes) == len(models) == peaks > 5
    good = ~np.asarray(shapes["shape_flag"])
    assert np.isfinite(shapes["e1"][good]).all()
    assert models.modelPackage == "toy"


def test_the_decoder_of_the_trained_package_is_the_priors(repo):
    butler = openRepository(repo, writeable=False, campaign="toy")
    where = dict(collections=["u/tester/deblender", "u/tester/prior"])
    prior, trained = butler.get("vae_priorPackage", **where), butler.get("vae_trainedPackage", **where)
    for name, value in prior.parts["decoder"].items():
        np.testing.assert_array_equal(trained.parts["decoder"][name], value)


def test_a_campaigns_fields_hold_test_galaxies_only(repo):
    butler = openRepository(repo, writeable=False, campaign="toy")
    truth = butler.get("vae_fieldTruth", tract=3, patch=0, collections="u/tester/toy-field")
    assert (np.asarray(truth["ident"]) % 16 == 0).all()
    train = butler.get("vae_blendStamps", tract=0, patch=0, collections="u/tester/toy-blended")
    assert (np.asarray(train.truth["ident"]) % 16 > 1).all()


def test_the_same_command_again_does_nothing_twice(repo, capfd):
    assert main(MeasureShapesTask, [str(repo), "-i", "deblended", "-o", "shapes"]) == 0
    assert "nothing left to do, all 1 quanta are done" in capfd.readouterr().out


def test_an_unknown_config_name_is_one_line_and_loses_nothing(repo, capfd):
    code = main(
        MeasureShapesTask,
        [str(repo), "-i", "deblended", "-o", "x", "-c", "refBand=r"],
        prog="measureShapes.py",
    )
    lines = [line for line in capfd.readouterr().err.splitlines() if line]
    assert code == 2 and len(lines) == 1 and "refBand" in lines[0]


def test_a_missing_catalogue_is_one_line_with_the_cure(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("MEAS_EXTENSIONS_VAE_CACHE", str(tmp_path / "empty"))
    code = main(
        SimulateBlendsTask,
        [str(tmp_path / "repo"), "-c", "galaxies.name=cosmos", "nScenes=2", *CAMPAIGN],
        prepare=prepareCampaign,
        prog="simulateBlends.py",
    )
    error = [line for line in capfd.readouterr().err.splitlines() if "simulateBlends.py: error" in line]
    assert code == 2 and error and "getCosmos" in error[0]


def test_an_empty_field_is_no_failure(tmp_path, capfd):
    repo = tmp_path / "repo"
    assert simulate(repo, "kind=field", "field.size=64", "field.densityPerArcmin2=0") == 0
    butler = openRepository(repo, writeable=False, campaign="toy")
    assert len(butler.get("vae_mergedDetections", tract=3, patch=0, collections="u/tester/toy-field")) == 0
    assert len(butler.get("vae_fieldTruth", tract=3, patch=0, collections="u/tester/toy-field")) == 0
