# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demonstration runs on a small field with an untrained network, resumes,
and tells what is wrong in one line."""

import re
import subprocess
import sys

import numpy as np
import pytest
from astropy.table import Table

from lsst.meas.extensions.vae import demo
from lsst.meas.extensions.vae.errors import CatalogError
from lsst.meas.extensions.vae.network.architecture import make_architecture
from lsst.meas.extensions.vae.network.model import get_weights
from lsst.meas.extensions.vae.network.package import ModelPackage
from lsst.meas.extensions.vae.survey import get_survey

pytest.importorskip("lsst.ctrl.mpexec")

SIZE = "160"


def untrained(name="untrained", **changes):
    """A whole package with initial weights: it draws something everywhere."""
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(1)
    survey = get_survey("lsst10yr")
    architecture = make_architecture("factorised", 6, latent_dim=4)
    encoder, decoder = (
        get_weights(build()) for build in (architecture.build_encoder, architecture.build_decoder)
    )
    card = {
        "name": name,
        "architecture": {"name": "factorised", "options": architecture.options},
        "survey": survey.name,
        "bands": list(survey.band_names),
        "image_unit": survey.image_unit,
        "pixel_scale": [band.pixel_scale for band in survey.bands],
        "psf": [{"kind": b.psf.kind, "fwhm": b.psf.fwhm, "beta": b.psf.beta} for b in survey.bands],
        "noise": [1.0] * 6,
        "stamp_size": 64,
        "latent_dim": 4,
        "normalisation": {"kind": "noise"},
        "training": {},
    }
    parts = {"prior_encoder": encoder, "decoder": decoder, "deblender_encoder": encoder}
    return ModelPackage({**card, **changes}, parts)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(untrained().save(tmp_path_factory.mktemp("model") / "untrained.vae.zip"))


@pytest.fixture(scope="module")
def made(tmp_path_factory, model):
    """Output folder of a demo, and its arguments."""
    output = tmp_path_factory.mktemp("demo") / "out"
    args = [
        "--output",
        str(output),
        "--size",
        SIZE,
        "--galaxies",
        "synthetic",
        "--model",
        model,
        "--seed",
        "2",
    ]
    assert demo.main(args) == 0
    return output, args


def test_the_demo_writes_a_report_and_a_table(made):
    output, _ = made
    page = (output / "report.html").read_text(encoding="utf-8")
    for text in ("The field", "Blends", "Errors", "Detection", "What was done", "galaxies/s", "untrained"):
        assert text in page
    assert "bin/simulateBlends.py" in page and "synthetic, test split" in page
    assert not re.search(r"\bnan\b", page)
    objects = Table.read(output / "objects.ecsv")
    assert len(objects) > 5 and (objects["truth"] >= 0).mean() > 0.7
    good = objects[objects["snr"] > 30]
    assert np.abs(np.median(good["mag_none"] - good["mag_true"])) < 0.3


def test_the_products_are_in_the_repository(made):
    from lsst.meas.extensions.vae.repo import openRepository

    butler = openRepository(made[0] / "repo", writeable=False)
    for name in ("vae_field", "vae_fieldTruth", "vae_modelData", "vae_deblendedCatalog", "vae_shapes"):
        assert len(butler.query_datasets(name, collections="*", find_first=False)) == 1
    butler.close()


def test_a_second_run_does_nothing_again_and_writes_the_report(made, capfd):
    output, args = made
    (output / "report.html").unlink()
    assert demo.main(args) == 0
    said = capfd.readouterr().out
    assert said.count("nothing left to do") == 3
    assert (output / "report.html").is_file()


def test_more_passes_are_collections_of_their_own(made, capfd):
    output, args = made
    assert demo.main([*args, "--passes", "2"]) == 0
    said = capfd.readouterr().out
    # The field is there already.
    assert (
        said.count("nothing left to do") == 1 and "maxPasses=2" in said + (output / "report.html").read_text()
    )
    assert len(Table.read(output / "objects.ecsv")) > 5


def test_another_package_of_the_same_name_is_another_model(made):
    from lsst.meas.extensions.vae.repo import openRepository

    output, args = made
    name, changed = args[args.index("--model") + 1], untrained(noise=[2.0] * 6)
    run = demo._provideModel(str(output / "repo"), changed, name)
    assert run.startswith("pretrained_models/untrained-")
    butler = openRepository(output / "repo", writeable=False)
    assert butler.get("vae_modelPackage", collections=run).sha256 == changed.sha256
    butler.close()


def test_an_empty_field_is_told_by_every_command(tmp_path, model, capfd, monkeypatch):
    from lsst.meas.extensions.vae import DeblendVaeTask, MeasureShapesTask, SimulateBlendsTask, cli
    from lsst.meas.extensions.vae.prepare import prepareCampaign, prepareModel

    monkeypatch.setenv("USER", "someone")
    repo = str(tmp_path / "repo")
    settings = ("kind=field", "galaxies.name=synthetic", "galaxies.n=500", "campaign=void", "field.size=64")
    settings = (*settings, "field.densityPerArcmin2=0", "nTrain=0", "nValidation=0")
    assert cli.main(SimulateBlendsTask, [repo, "-c", *settings], prepare=prepareCampaign) == 0
    argv = [repo, "-i", "void-field", "-o", "deblended", "-c", f"modelPackage={model}"]
    assert cli.main(DeblendVaeTask, argv, prepare=prepareModel) == 0
    reason = "no detected sources: nothing to deblend"
    assert f"no work found for skymap=vae_void tract=3 patch=0: {reason}\n" in capfd.readouterr().out
    assert cli.main(MeasureShapesTask, [repo, "-i", "deblended", "-o", "shapes"]) == 2
    assert f"deblendVae found no work for skymap=vae_void tract=3 patch=0: {reason}" in capfd.readouterr().err


def oneLine(capsys):
    error = capsys.readouterr().err
    assert error.startswith("demo.py: error: ") and error.count("\n") == 1
    return error


def test_a_missing_model_is_told_before_anything_is_made(tmp_path, capsys):
    args = ["--output", str(tmp_path / "out"), "--model", "absent", "--galaxies", "synthetic"]
    assert demo.main(args) == 2
    assert "no model package 'absent'" in oneLine(capsys)
    assert not (tmp_path / "out").exists()


def test_a_model_of_another_survey_is_refused(tmp_path, capsys):
    path = untrained(survey="arcelin2020").save(tmp_path / "other.vae.zip")
    assert demo.main(["--output", str(tmp_path / "out"), "--model", str(path)]) == 2
    assert "made for arcelin2020" in oneLine(capsys)


@pytest.mark.parametrize(
    ("option", "value"), [("--size", "10"), ("--fields", "0"), ("--seed", "-1"), ("--passes", "0")]
)
def test_values_out_of_range_are_told(tmp_path, capsys, option, value):
    assert demo.main(["--output", str(tmp_path / "out"), option, value]) == 2
    assert f"{option} {value}: expected" in oneLine(capsys)


def test_an_output_that_is_a_file_is_told(tmp_path, capsys, model):
    (tmp_path / "file").write_text("mine")
    assert demo.main(["--output", str(tmp_path / "file"), "--model", model]) == 2
    assert "no folder can be made there" in oneLine(capsys)
    assert (tmp_path / "file").read_text() == "mine"


def test_galaxies_that_cannot_be_fetched_are_synthetic_only_if_auto(monkeypatch):
    def refuse():
        raise CatalogError("pip could not download it: check the network")

    monkeypatch.setattr("lsst.meas.extensions.vae.galaxies.fetch_cosmos", refuse)
    name, warnings = demo._chooseGalaxies("auto")
    assert name == "synthetic" and "check the network" in warnings[0]
    with pytest.raises(CatalogError):
        demo._chooseGalaxies("cosmos")
    assert demo._chooseGalaxies("synthetic") == ("synthetic", [])


def test_help_costs_no_heavy_import():
    code = (
        "import sys; from lsst.meas.extensions.vae.demo import main; assert main(['--help']) == 0; "
        "assert not {'keras', 'tensorflow', 'galsim', 'lsst.daf.butler'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
