# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The training report tells how a training went: curves, cost, latents and reconstructions."""

import json
import re
import shutil
import types
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from safetensors.numpy import save_file

pytest.importorskip("galsim")
pytest.importorskip("keras")

from lsst.meas.extensions.vae.errors import ImageError, ModelPackageError, ShardError, TrainingError
from lsst.meas.extensions.vae.evaluation.training_figures import (
    corner_plot,
    curves,
    signed_image,
    strongest_latents,
)
from lsst.meas.extensions.vae.evaluation.training_run import load_run
from lsst.meas.extensions.vae.evaluation.training_summary import (
    Flops,
    choose_scenes,
    count_flops,
    layer_flops,
    look_at,
    matmul_rate,
)
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.network.package import short_weights
from lsst.meas.extensions.vae.network.settings import TrainingSettings
from lsst.meas.extensions.vae.reportTraining import main
from lsst.meas.extensions.vae.simulation import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.survey import get_survey

SVG = "{http://www.w3.org/2000/svg}"
BANDS = ("g", "r", "i")
ROW = {"epoch": 0, "samples": 100, "seconds": 2.0, "loss": 3.0, "validation_loss": 4.0}


@pytest.fixture(scope="module")
def survey():
    return get_survey("arcelin2020", BANDS)


@pytest.fixture(scope="module")
def samples(survey):
    galaxies = synthetic_galaxies(3000, seed=1)
    scenes = SceneSettings(mag_limit=25.0, min_galaxies=2)
    return {
        split: simulate_stamps(galaxies.split(split), survey, scenes, n, seed=5, split=split)
        for split, n in (("train", 32), ("validation", 20))
    }


@pytest.fixture(scope="module")
def shard(samples, tmp_path_factory):
    path = tmp_path_factory.mktemp("shards") / "validation.h5"
    samples["validation"].write(path)
    return path


@pytest.fixture(scope="module")
def trained(samples, survey, tmp_path_factory):
    """Folder of a run of a few steps, and its package."""
    from lsst.meas.extensions.vae.network.training import train

    settings = TrainingSettings(
        architecture="morphology",
        latent_dim=6,
        batch_size=8,
        steps_per_epoch=2,
        epochs=3,
        warmup_steps=1,
        validation_scenes=8,
        validation_every=2,
        precision="float32",
        collapse_epochs=100,
    )
    folder = tmp_path_factory.mktemp("runs") / "run"
    package = train("prior", [samples["train"]], samples["validation"], survey, settings, folder)
    package.save(folder / "prior.vae.zip")
    return folder, package


def write_history(folder, rows, end="\n"):
    folder.mkdir(exist_ok=True)
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "prior.history.jsonl").write_text(text + end)
    return folder


# -- runs ---------------------------------------------------------------------------------


def test_a_run_is_read_from_its_checkpoint_with_the_weights_of_that_moment(trained):
    folder, package = trained
    run = load_run(folder)
    assert (run.stage, run.epochs, run.samples_seen, len(run.history)) == ("prior", 3, 48, 3)
    assert run.seconds == pytest.approx(sum(row["seconds"] for row in run.history))
    assert run.settings["latent_dim"] == 6 and not run.missing
    assert run.package.card["stamp_size"] == 64 and run.package.bands == BANDS
    # Packages keep the digits of float16.
    read = short_weights(run.package.parts["prior_encoder"])
    for name, value in package.parts["prior_encoder"].items():
        np.testing.assert_array_equal(read[name], value, err_msg=name)


def test_a_package_takes_the_history_beside_it_if_it_is_its_own(trained, tmp_path):
    folder, package = trained
    assert len(load_run(folder / "prior.vae.zip").history) == 3
    path = package.save(tmp_path / "other.vae.zip")
    write_history(tmp_path, [ROW, {**ROW, "epoch": 1, "samples": 200}, {**ROW, "epoch": 2, "samples": 300}])
    run = load_run(path)
    assert [row["epoch"] for row in run.history] == [2] and "e_half_width" in run.history[0]
    assert run.samples_seen == 48 and run.rate() == pytest.approx(48 / run.seconds)


def test_a_history_alone_gives_curves_and_says_why_there_is_no_more(tmp_path):
    # The second epoch was begun again, and a fourth is being written.
    rows = [ROW, {**ROW, "epoch": 1, "samples": 200, "loss": 9.0}, {**ROW, "epoch": 1, "samples": 200}]
    rows += [{**ROW, "epoch": 2, "samples": 300, "seconds": 4.0}, '{"epoch": 3, "sam']
    run = load_run(write_history(tmp_path / "run", rows, end=""))
    assert [row["loss"] for row in run.history] == [3.0, 3.0, 3.0]
    assert run.rate() == pytest.approx(np.median([50.0, 25.0]))
    assert run.package is None and "prior.checkpoint.safetensors" in run.missing


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["{}"], "expected numbers named"),
        (["no json"], "not JSON"),
        (["[1]"], "expected numbers"),
        ([], "yet"),
    ],
)
def test_a_damaged_or_empty_history_is_refused(tmp_path, rows, message):
    with pytest.raises(TrainingError, match=message):
        load_run(write_history(tmp_path / "run", rows))


def test_a_folder_without_training_or_without_the_wanted_stage_is_refused(trained, tmp_path):
    with pytest.raises(TrainingError, match="no training"):
        load_run(tmp_path)
    with pytest.raises(TrainingError, match="it has prior"):
        load_run(trained[0], "deblender")
    with pytest.raises(TrainingError, match="it has prior"):
        load_run(trained[0] / "prior.vae.zip", "deblender")


def test_two_stages_in_a_folder_must_be_chosen_between(trained, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(trained[0], folder)
    shutil.copy(folder / "prior.history.jsonl", folder / "deblender.history.jsonl")
    with pytest.raises(TrainingError, match="--stage"):
        load_run(folder)
    assert load_run(folder, "deblender").stage == "deblender"


def test_a_damaged_checkpoint_is_refused(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    path = folder / "prior.checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TrainingError, match="cannot be read"):
        load_run(folder)


def test_a_fixed_scale_is_asked_for_and_taken_from_the_normalising_sample(samples, survey, tmp_path):
    from lsst.meas.extensions.vae.network.composer import mean_peak

    state = {
        "settings": {"architecture": "arcelin2020", "latent_dim": 2},
        "samples": [samples["train"].describe()],
        "history": [ROW],
    }
    tensors = {"encoder/a": np.zeros(1, np.float32), "decoder/deconv0_1_prelu/alpha": np.zeros((64, 64, 32))}
    save_file(tensors, str(tmp_path / "prior.checkpoint.safetensors"), metadata={"state": json.dumps(state)})
    run = load_run(tmp_path)
    assert run.package is None and "--normalisation-sample" in run.missing
    card = load_run(tmp_path, normalisation=samples["train"]).package.card
    np.testing.assert_allclose(card["normalisation"]["scale"], mean_peak([samples["train"]]) / 2.5)


# -- cost ---------------------------------------------------------------------------------


def test_operations_of_layers_are_those_counted_by_hand():
    import keras
    from keras import layers

    inputs = keras.Input((16, 16, 3))
    down = layers.Conv2D(8, 3, strides=2, padding="same")
    up = layers.Conv2DTranspose(4, 5, strides=2, padding="same")
    dense = layers.Dense(7)
    x = layers.Flatten()(up(layers.ReLU()(down(inputs))))
    model = keras.Model(inputs, dense(x))
    assert layer_flops(down) == 2 * 8 * 8 * 9 * 3 * 8
    assert layer_flops(up) == 2 * 8 * 8 * 25 * 8 * 4
    assert layer_flops(dense) == 2 * 16 * 16 * 4 * 7
    total = layer_flops(down) + layer_flops(up) + layer_flops(dense)
    network = types.SimpleNamespace(encoder=model, decoder=model)
    assert count_flops(network) == Flops(total, total, False)


def test_a_frozen_decoder_has_no_gradient_of_its_weights():
    assert Flops(10, 7).training == 51
    assert Flops(10, 7, decoder_frozen=True).training == 44


def test_the_matrix_multiply_rate_is_of_the_matrices_that_it_tells():
    rate, side = matmul_rate(seconds=0.02, side=64)
    assert side >= 64 and side % 64 == 0
    # Between a calculator and a thousand accelerators.
    assert 1e6 < rate < 1e18


# -- scenes -------------------------------------------------------------------------------


class Flat:
    """A network that gives every galaxy one flux, and as its only latent the sum of what it saw."""

    bands, stamp_size = ("r", "g"), 64
    package = types.SimpleNamespace(name="flat", card={"survey": "arcelin2020"})
    architecture = types.SimpleNamespace(conditional=False)

    def encode(self, images, noise, batch_size=256, psfs=None):
        total = images.sum(axis=(1, 2, 3))[:, None]
        return total, np.ones_like(total)

    def decode(self, latents, noise, psfs=None):
        return np.full((len(latents), 2, 64, 64), 100.0 / 64**2, np.float32)


def test_scenes_are_seen_with_their_own_noise_and_compared_with_their_targets(samples):
    sample = samples["validation"]
    look = look_at(Flat(), sample, 15, noise="sky")
    alone = look_at(Flat(), sample, 15, isolated=True, noise="sky")
    assert len(look.mean) == 15 and len(look.scenes) == 12 and look.band == "r" and not look.gri
    neighbours = [sample.image(i, "neighbours")[:2].sum() for i in range(15)]
    np.testing.assert_allclose((look.mean - alone.mean)[:, 0], neighbours, rtol=1e-3, atol=1)
    snr = [scene.snr for scene in look.scenes]
    assert snr == sorted(snr) and len({scene.index for scene in look.scenes}) == 12
    scene = look.scenes[-1]
    target = sample.image(scene.index, "target")[1]
    assert scene.magnitude_error == pytest.approx(-2.5 * np.log10(100 / target.sum()), abs=1e-4)
    sky, unit = sample.sky_and_unit()
    expected = (100 / 64**2 - target) / (np.sqrt(sky[1]) / unit[1])
    np.testing.assert_allclose(scene.residual, expected, rtol=1e-4, atol=1e-5)


def test_scenes_are_spread_evenly_in_the_logarithm_of_signal_to_noise():
    snr = np.append(np.geomspace(1, 1e4, 1001), [np.nan, 0.0, -3.0])
    chosen = choose_scenes(snr, 5)
    steps = np.diff(np.log(snr[chosen]))
    np.testing.assert_allclose(steps, steps[0], rtol=0.02)
    assert choose_scenes(np.array([5.0, np.nan, 2.0])) == [2, 0]
    with pytest.raises(ShardError, match="signal to noise"):
        choose_scenes(np.array([np.nan, 0.0]))


def test_a_network_of_another_survey_is_refused(samples):
    other = Flat()
    other.package = types.SimpleNamespace(name="other", card={"survey": "lsst10yr"})
    with pytest.raises(ModelPackageError, match="lsst10yr"):
        look_at(other, samples["validation"])


# -- figures ------------------------------------------------------------------------------


def test_the_latents_of_greatest_variance_come_first():
    mean = np.random.default_rng(1).standard_normal((500, 7)) * [0.1, 3, 0.2, 2, 1, 0.5, 0.05]
    assert strongest_latents(mean) == [1, 3, 4, 5, 2]
    assert strongest_latents(mean[:, :2]) == [1, 0]


def test_a_corner_plot_has_a_panel_for_each_latent_and_pair_and_the_standard_normal():
    mean = np.random.default_rng(2).standard_normal((4000, 5))
    root = ET.fromstring(corner_plot(mean, [0, 1, 2, 3, 4]))
    assert len(root.findall(f".//{SVG}rect")) == 15
    assert len(root.findall(f".//{SVG}polyline")) == 5
    assert len(root.findall(f".//{SVG}circle")) == 20
    # Normal numbers fill the curve: bars and curve are equally high within the counts' noise.
    group = root.find(f"{SVG}g")
    bars = [float(v) for v in re.findall(r"V([\d.]+)H", group.find(f"{SVG}path").get("d"))]
    curve = [float(p.split(",")[1]) for p in group.find(f"{SVG}polyline").get("points").split()]
    assert np.mean(np.abs(np.array(bars) - curve[1::2])) < 4
    with pytest.raises(ImageError):
        corner_plot(mean[:0], [0])


def test_a_corner_plot_shows_which_way_two_latents_go_together():
    x = np.linspace(-2, 2, 400)
    root = ET.fromstring(corner_plot(np.column_stack([x, x]), [0, 1]))
    pair = root.findall(f"{SVG}g")[1]
    squares = re.findall(r"M([\d.]+) ([\d.]+)h", "".join(p.get("d") for p in pair.findall(f"{SVG}path")))
    across, down = np.array(squares, float).T
    np.testing.assert_allclose(across + down, across[0] + down[0], atol=1e-6)


def test_curves_leave_out_what_is_not_finite_and_draw_a_constant():
    root = ET.fromstring(curves({"a": [1e3, 2e3, 3e3]}, {"a": [5.0, float("nan"), 1.0]}, "loss", log=True))
    (line,) = root.findall(f"{SVG}polyline")
    points = np.array([p.split(",") for p in line.get("points").split()], float)
    assert len(points) == 2 and points[0, 0] < points[1, 0] and points[0, 1] < points[1, 1]
    ET.fromstring(curves({"a": [1e3, 2e3]}, {"a": [0.0, 0.0]}, "constant", zero=True))
    assert "no values" in curves({"a": [1e3]}, {"a": [float("nan")]}, "nothing")


def test_signed_images_are_white_at_zero_and_full_at_the_limit():
    rgb = signed_image([[0.0, 9.0], [-3.0, np.nan]], 3.0)
    assert rgb[0, 0].tolist() == [255] * 3 and rgb[1, 1].tolist() == [0] * 3
    assert rgb[0, 1].tolist() == [0xD5, 0x5E, 0x00] and rgb[1, 0].tolist() == [0x00, 0x72, 0xB2]
    with pytest.raises(ImageError):
        signed_image([[1.0]], 0.0)


# -- the command --------------------------------------------------------------------------


def test_the_page_stands_by_itself_and_has_every_part(trained, shard, tmp_path, capsys):
    output = tmp_path / "report"
    arguments = [str(trained[0]), "--output", str(output), "--validation", str(shard), "--scenes", "12"]
    assert main([*arguments, "--peak", "100"]) == 0
    assert "report.html" in capsys.readouterr().out
    page = (output / "report.html").read_text()
    for part in ("Curves", "Cost", "Latents", "Reconstructions", "How to repeat it", "given to the report"):
        assert part in page, part
    assert not re.search(r'(src|href)="(?!data:)', page) and "nan" not in re.sub(r"base64,[^\"]*", "", page)
    run = load_run(trained[0])
    (share,) = re.findall(r"<th>share</th><td>(\S+) %", page)
    (training,) = re.findall(r"<th>training</th><td>(\S+) Mflop", page)
    assert float(share) == pytest.approx(float(training) * 1e6 * run.rate() / 1e11 * 100, rel=0.01)
    svgs = re.findall(r"<svg.*?</svg>", page, flags=re.S)
    assert len(svgs) == 7 + 1 + 4 * 12
    for svg in [*svgs, (output / "curves.svg").read_text(), (output / "figure3.svg").read_text()]:
        ET.fromstring(svg.replace("<svg ", '<svg xmlns:x="x" ', 1))


def test_without_a_shard_the_page_has_curves_and_cost_alone(trained, tmp_path):
    assert main([str(trained[0] / "prior.vae.zip"), "--output", str(tmp_path), "--peak", "100"]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "Cost" in page and "no shard" in page and not (tmp_path / "figure3.svg").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--scenes", "0"], "--scenes 0"),
        (["--peak", "-1"], "--peak"),
        (["--validation", "absent.h5"], "absent.h5"),
        (["--stage", "deblender"], "it has prior"),
    ],
)
def test_bad_input_is_told_in_one_line(trained, tmp_path, capsys, more, message):
    assert main([str(trained[0]), "--output", str(tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("reportTraining.py: error:") and message in error
    assert not (tmp_path / "out").exists()
