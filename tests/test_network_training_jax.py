# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Training on JAX, on one device and on two: the same, resumed or not."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.survey import get_survey

pytest.importorskip("jax")

TRAIN = textwrap.dedent("""
    import json, sys
    from pathlib import Path
    import numpy as np
    from lsst.meas.extensions.vae.errors import TrainingError
    from lsst.meas.extensions.vae.network.backend import load_keras
    from lsst.meas.extensions.vae.network.settings import TrainingSettings
    from lsst.meas.extensions.vae.simulation.shards import StampSample
    from lsst.meas.extensions.vae.survey import get_survey

    keras = load_keras()
    from lsst.meas.extensions.vae.network.training import train

    folder, work = Path(sys.argv[1]), Path(sys.argv[2])
    sample, validation = (StampSample.read(folder / f"{s}.h5") for s in ("train", "validation"))
    common = ([sample], validation, get_survey("lsst10yr", ("g", "r")))
    options = dict(
        architecture="morphology", latent_dim=4, batch_size=8, steps_per_epoch=2, epochs=3, warmup_steps=1,
        validation_scenes=8, validation_every=3, precision="float32", collapse_epochs=100, ema=0.5,
    )
    try:
        train("prior", *common, TrainingSettings(**{**options, "batch_size": 7}), work / "odd")
        told = ""
    except TrainingError as error:
        told = str(error)
    rows = []
    prior = train("prior", *common, TrainingSettings(**options), work / "prior", on_epoch=rows.append)
    settings = TrainingSettings(**options, distil_epochs=2, encoder_init="random")
    whole = train(
        "deblender", *common, settings, work / "whole", prior=prior, on_epoch=rows.append
    )

    def stop(row):
        if row["epoch"] in (0, 1):
            raise KeyboardInterrupt

    for _ in range(2):
        try:
            train("deblender", *common, settings, work / "cut", prior=prior, on_epoch=stop)
        except KeyboardInterrupt:
            pass
    resumed = train("deblender", *common, settings, work / "cut", prior=prior)
    assert set(whole.parts) == {"prior_encoder", "decoder", "deblender_encoder"}
    print(json.dumps({
        "devices": len(keras.distribution.list_devices()),
        "backend": keras.backend.backend(),
        "told": told,
        "losses": [row[k] for row in rows for k in ("loss", "validation_loss")],
        "distilled": ["distillation" in row for row in rows],
        "resumed": max(
            float(np.abs(resumed.parts["deblender_encoder"][k] - v).max())
            for k, v in whole.parts["deblender_encoder"].items()
        ),
        "decoder": all(
            np.array_equal(whole.parts["decoder"][k], v) for k, v in prior.parts["decoder"].items()
        ),
    }))
""")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What the script tells on one device and on two, by their number."""
    folder = tmp_path_factory.mktemp("jax")
    survey, galaxies = get_survey("lsst10yr", ("g", "r")), synthetic_galaxies(3000, seed=1)
    scenes = SceneSettings(placement="field", mag_limit=None, target_snr_min=20.0)
    for split, n in (("train", 32), ("validation", 8)):
        sample = simulate_stamps(galaxies.split(split), survey, scenes, n, seed=5, split=split)
        sample.write(folder / f"{split}.h5")
    told = {}
    for n in (1, 2):
        flags = f"--xla_force_host_platform_device_count={n}"
        result = subprocess.run(
            [sys.executable, "-c", TRAIN, str(folder), str(folder / f"on{n}")],
            env=dict(os.environ, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu", XLA_FLAGS=flags),
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        told[n] = json.loads(result.stdout.splitlines()[-1])
        assert (told[n]["devices"], told[n]["backend"]) == (n, "jax")
    return told


@pytest.mark.parametrize("n", [1, 2])
def test_jax_distils_averages_and_resumes_to_the_same_weights(trained, n):
    assert trained[n]["distilled"] == [False] * 3 + [True] * 2 + [False]
    assert trained[n]["resumed"] < 1e-5
    assert trained[n]["decoder"]


def test_two_devices_learn_what_one_learns(trained):
    assert trained[2]["losses"] == pytest.approx(trained[1]["losses"], rel=1e-3)


def test_a_batch_that_devices_cannot_share_is_refused_with_a_size_that_they_can(trained):
    assert trained[1]["told"] == ""
    assert "a batch of 7 scenes" in trained[2]["told"] and "such as 8" in trained[2]["told"]
