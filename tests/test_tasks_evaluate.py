# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""EvaluateDeblendersTask on a tiny campaign, through its command and by itself."""

import numpy as np
import pytest
from astropy.table import Table

pytest.importorskip("lsst.daf.butler")
pytest.importorskip("keras")

from lsst.meas.extensions.vae import (  # noqa: E402
    EvaluateDeblendersConfig,
    EvaluateDeblendersTask,
    ModelPackage,
    SimulateBlendsTask,
)
from lsst.meas.extensions.vae.cli import main  # noqa: E402
from lsst.meas.extensions.vae.errors import ModelPackageError, ShardError, VaeError  # noqa: E402
from lsst.meas.extensions.vae.evaluation.evaluation_files import read_stamp_errors  # noqa: E402
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies  # noqa: E402
from lsst.meas.extensions.vae.network.architecture import make_architecture  # noqa: E402
from lsst.meas.extensions.vae.network.backend import load_keras  # noqa: E402
from lsst.meas.extensions.vae.network.model import Network, get_weights  # noqa: E402
from lsst.meas.extensions.vae.prepare import prepareCampaign, prepareModel  # noqa: E402
from lsst.meas.extensions.vae.repo import openRepository  # noqa: E402
from lsst.meas.extensions.vae.simulation.composed import compose  # noqa: E402
from lsst.meas.extensions.vae.simulation.metrics import ksb_shear  # noqa: E402
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps  # noqa: E402
from lsst.meas.extensions.vae.survey import get_survey  # noqa: E402

BANDS = ("g", "r")
SCENES = 12


def untrained(name="toy", bands=BANDS, parts=("prior_encoder", "decoder", "deblender_encoder")):
    """A package of random weights."""
    load_keras().utils.set_random_seed(1)
    survey = get_survey("arcelin2020", bands)
    architecture = make_architecture("morphology", len(bands), 64, 4, survey=survey)
    models = {
        part: architecture.build_decoder() if part == "decoder" else architecture.build_encoder()
        for part in parts
    }
    card = {
        "name": name,
        "architecture": {"name": "morphology", "options": architecture.options},
        "survey": survey.name,
        "bands": list(bands),
        "pixel_scale": [band.pixel_scale for band in survey.bands],
        "psf": [{"kind": b.psf.kind, "fwhm": b.psf.fwhm, "beta": b.psf.beta} for b in survey.bands],
        "stamp_size": 64,
        "latent_dim": 4,
        "normalisation": {"kind": architecture.normalisation},
    }
    return ModelPackage(card, {part: get_weights(model) for part, model in models.items()})


@pytest.fixture(scope="module")
def package():
    return untrained()


@pytest.fixture(scope="module")
def samples():
    survey, galaxies = get_survey("arcelin2020", BANDS), synthetic_galaxies(500, seed=1)
    return {
        kind: simulate_stamps(galaxies, survey, SceneSettings(kind=kind), 6, seed=2, split="test")
        for kind in ("isolated", "blended")
    }


@pytest.fixture(scope="module")
def repo(tmp_path_factory, package):
    """A repository with stamps of all splits, and packages that TrainDeblenderTask might have made."""
    repo = tmp_path_factory.mktemp("evaluate") / "repo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("USER", "tester")
        for kind in ("isolated", "blended"):
            overrides = [
                *("galaxies.name=synthetic", "galaxies.n=2000", "survey=arcelin2020", "bands=['g', 'r']"),
                *(
                    "campaign=toy",
                    "nTrain=1",
                    "nValidation=1",
                    "nTest=2",
                    f"nScenes={SCENES}",
                    f"kind={kind}",
                ),
            ]
            assert main(SimulateBlendsTask, [str(repo), "-c", *overrides], prepare=prepareCampaign) == 0
        butler = openRepository(repo, campaign="toy")
        for run in ("u/tester/trained", "u/tester/prior"):
            butler.collections.register(run)
        butler.put(package, "vae_trainedPackage", skymap="vae_toy", run="u/tester/trained")
        butler.put(package, "vae_priorPackage", skymap="vae_toy", run="u/tester/prior")
        butler.close()
        yield repo


def evaluate(repo, *overrides, inputs="toy-isolated,toy-blended,trained", output="errors"):
    return main(
        EvaluateDeblendersTask,
        [str(repo), "-i", inputs, "-o", output, "-c", "bootstrap=5", *overrides],
        prepare=prepareModel,
        prog="evaluateDeblenders.py",
    )


def read(repo, name, output="errors"):
    butler = openRepository(repo, writeable=False, campaign="toy")
    # The Butler leaves a table's metadata out unless it is asked for.
    return butler.get(name, collections=f"u/tester/{output}", parameters={"strip_astropy_meta_yaml": False})


def test_the_command_measures_every_test_scene_by_every_method(repo, tmp_path, package):
    written = (f"directory={tmp_path / 'out'}", "examples=3", "draws=100")
    assert evaluate(repo, "useTrainedModel=True", *written) == 0
    errors, summary = read(repo, "vae_stampErrors"), read(repo, "vae_stampSummary")
    counts = {}
    for kind, method, shard in zip(errors["kind"], errors["method"], errors["shard"]):
        counts[kind, method, shard] = counts.get((kind, method, shard), 0) + 1
    methods = [("isolated", "prior"), ("isolated", "isolated")]
    methods += [("blended", name) for name in ("deblender", "none", "isolated")]
    assert counts == {(*one, shard): SCENES for one in methods for shard in (0, 1)}
    # Galaxies of the test split.
    assert (np.asarray(errors["ident"]) % 16 == 0).all()
    assert np.isfinite(errors["e1"][~errors["shape_flag"]]).all()
    assert errors["mag_g_error"].unit == "mag"
    overall = summary[summary["by"] == "all"]
    assert [(row["kind"], row["method"]) for row in overall] == methods
    assert (overall["scenes"] == 2 * SCENES).all()
    for meta in (errors.meta, summary.meta):
        assert meta["package"] == {"name": "toy", "sha256": package.sha256}
        assert [sample["split"] for sample in meta["samples"]["blended"]] == ["test"] * 2
    page = (tmp_path / "out" / "stamps.md").read_text()
    assert f"{2 * SCENES} blended scenes of the test split of arcelin2020" in page
    np.testing.assert_array_equal(
        Table.read(tmp_path / "out" / "stampSummary.ecsv")["e_median"], summary["e_median"]
    )
    again = read_stamp_errors(tmp_path / "out")
    assert len(again) == len(errors) and again.meta["bands"] == errors.meta["bands"]
    report = (tmp_path / "out" / "report.html").read_text()
    assert "examples=3" in report and report.count("data:image/png") > 8
    for figure in ("figure3", "figure6", "figureA1", "figureC1", "compare_cost"):
        assert f'id="{figure}"' in report and (tmp_path / "out" / f"{figure}.pdf").stat().st_size > 2000
    assert "figure9: " in report


def test_the_prior_alone_needs_no_deblender(repo):
    assert (
        evaluate(
            repo,
            *("useTrainedModel=True", "stages=['prior']", "baselines=False", "maxScenes=5"),
            inputs="toy-isolated,prior",
            output="priorErrors",
        )
        == 0
    )
    errors = read(repo, "vae_stampErrors", "priorErrors")
    assert len(errors) == 5 and set(errors["method"]) == {"prior"}


def test_a_package_file_is_evaluated(repo, tmp_path):
    path = untrained("file").save(tmp_path / "file.vae.zip")
    overrides = (f"modelPackage={path}", "stages=['deblender']", "maxScenes=3", "split=validation")
    assert evaluate(repo, *overrides, inputs="toy-blended", output="file") == 0
    errors = read(repo, "vae_stampErrors", "file")
    assert errors.meta["package"]["name"] == "file"
    assert (np.asarray(errors["ident"]) % 16 == 1).all()


def test_the_shipped_model_of_another_survey_is_refused_in_one_line(repo, capfd):
    assert evaluate(repo, inputs="toy-isolated,toy-blended", output="shipped") == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if "evaluateDeblenders.py: error" in line]
    assert len(lines) == 1 and "survey 'lsst10yr', the sample of 'arcelin2020'" in lines[0]


def test_a_folder_that_cannot_be_made_is_told_in_one_line(repo, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    overrides = ("useTrainedModel=True", "maxScenes=2", f"directory={tmp_path / 'file' / 'out'}")
    assert evaluate(repo, *overrides, output="nowhere") == 2
    assert "config.directory" in capfd.readouterr().err


def test_errors_of_another_evaluation_must_be_there(repo, tmp_path, capfd):
    overrides = ("maxScenes=2", f"directory={tmp_path}", f"others={{'bands': '{tmp_path / 'none'}'}}")
    assert evaluate(repo, "useTrainedModel=True", *overrides, output="others") == 2
    assert "holds no stampErrors-*.parquet" in capfd.readouterr().err


def test_shards_of_the_split_must_be_among_the_inputs(repo, capfd):
    code = main(
        EvaluateDeblendersTask,
        [
            *(str(repo), "-i", "toy-blended,trained", "-o", "train", "-d", "tract=0"),
            *("-c", "useTrainedModel=True", "stages=['deblender']"),
        ],
        prepare=prepareModel,
        prog="evaluateDeblenders.py",
    )
    assert code == 2 and "no test shard among the inputs vae_blendStamps" in capfd.readouterr().err


def test_rows_of_the_network_are_its_answers(package, samples):
    task = EvaluateDeblendersTask(config=EvaluateDeblendersConfig(bootstrap=0))
    struct = task.run(package, {0: samples["isolated"]}, {4: samples["blended"]})
    survey = get_survey("arcelin2020", BANDS)
    noise = np.sqrt([band.sky_level for band in survey.bands])
    psf = survey["r"].psf.kernel(survey["r"].pixel_scale)
    for method, kind, encoder in (
        ("prior", "isolated", "prior_encoder"),
        ("deblender", "blended", "deblender_encoder"),
    ):
        composed = compose(samples[kind])
        models = Network(package, encoder).deblend(composed.noisy[:], noise)[0]
        rows = struct.stampErrors[struct.stampErrors["method"] == method]
        assert set(rows["shard"]) == {0 if method == "prior" else 4}
        for row, model, target in zip(rows, models, composed.target[:]):
            e1, e2, failed = ksb_shear(model[1], psf)
            assert failed == row["shape_flag"]
            np.testing.assert_allclose([row["e1"], row["e2"]], [e1, e2], atol=1e-4)
            with np.errstate(invalid="ignore"):
                error = -2.5 * np.log10(model[0].sum() / target[0].sum())
            assert row["mag_g_error"] == pytest.approx(error, abs=1e-4, nan_ok=True)


def run(package, isolated=None, blended=None, **settings):
    config = EvaluateDeblendersConfig(bootstrap=0, baselines=False, **settings)
    return EvaluateDeblendersTask(config=config).run(package, isolated, blended)


def test_samples_that_a_network_may_have_been_trained_on_are_refused(package, samples):
    survey, galaxies = get_survey("arcelin2020", BANDS), synthetic_galaxies(500, seed=1)
    train = simulate_stamps(galaxies, survey, SceneSettings(), 2, seed=2, split="train")
    for split in ("test", "validation"):
        with pytest.raises(ShardError, match=f"of the train split: expected {split}"):
            run(package, blended={0: train}, stages=("deblender",), split=split)
    with pytest.raises(ShardError, match="of the test split: expected validation"):
        run(package, blended={0: samples["blended"]}, stages=("deblender",), split="validation")


def test_stages_need_their_samples_and_their_encoders(package, samples):
    with pytest.raises(ShardError, match="stage 'prior' needs isolated stamps"):
        run(package, blended={0: samples["blended"]})
    with pytest.raises(ShardError, match="has blended stamps, stage 'prior' needs isolated"):
        run(package, isolated={0: samples["blended"]}, stages=("prior",))
    prior = ModelPackage(package.card, {k: v for k, v in package.parts.items() if k != "deblender_encoder"})
    with pytest.raises(ModelPackageError, match="no deblender_encoder"):
        run(prior, blended={0: samples["blended"]}, stages=("deblender",))


def test_a_network_of_fewer_bands_is_evaluated_in_those(samples):
    struct = run(untrained(bands=("r",)), blended={0: samples["blended"]}, stages=("deblender",))
    assert struct.stampErrors.meta["bands"] == ["r"] and "mag_g_error" not in struct.stampErrors.colnames


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"stages": ("prior", "prior")}, "each stage at most once"),
        ({"noiseCorrelation": 0.3}, "take noise 'normal'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, words):
    with pytest.raises(VaeError, match=words):
        EvaluateDeblendersConfig(**settings).validate()


def test_a_released_package_carries_the_errors_measured_for_it_and_no_other(repo, tmp_path, package, capsys):
    from lsst.meas.extensions.vae.releaseModel import main as release

    assert evaluate(repo, "useTrainedModel=True", output="forRelease") == 0
    path = tmp_path / "mine.vae.zip"
    command = [str(repo), "--campaign", "toy", "-i", "forRelease", "--output", str(path)]
    assert release([*command, "--floors", "0.01", "0.02", "1.1", "1.2", "4"]) == 0
    released, summary = ModelPackage.load(path), read(repo, "vae_stampSummary", "forRelease")
    assert released.name == "mine"
    assert released.card["posterior_floors"] == {
        "shape": 0.01, "flux": 0.02, "shape_scale": 1.1, "flux_scale": 1.2, "tails": 4.0,
    }  # fmt: skip
    assert set(released.parts) == set(package.parts)
    measured = released.card["measured"]
    assert [row["method"] for row in measured] == list(summary["method"])
    everyone = [row for row in measured if row["by"] == "all" and row["method"] == "deblender"]
    (truth,) = [row for row in summary if row["by"] == "all" and row["method"] == "deblender"]
    assert everyone[0]["number"] == truth["number"]
    assert everyone[0]["e_half_width"] == pytest.approx(truth["e_half_width"], rel=1e-3)

    capsys.readouterr()
    assert release([*command[:-1], str(tmp_path / "mine.zip")]) == 2
    assert "ends in .vae.zip" in capsys.readouterr().err
    assert release([*command[:-3], "toy-blended", *command[-2:]]) == 2
    assert "has no vae_trainedPackage" in capsys.readouterr().err
