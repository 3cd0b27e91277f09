# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The override files of config/ fit their Tasks and say what they promise."""

import re
from pathlib import Path

import pytest

pytest.importorskip("lsst.pipe.base")

from lsst.meas.extensions.vae import SimulateBlendsTask, TrainDeblenderTask, TrainPriorTask
from lsst.meas.extensions.vae.config import OverrideReader
from lsst.meas.extensions.vae.errors import VaeError
from lsst.meas.extensions.vae.survey import get_survey

FOLDER = Path(__file__).parents[1] / "config"
TASKS = {
    "simulateBlends": SimulateBlendsTask,
    "trainPrior": TrainPriorTask,
    "trainDeblender": TrainDeblenderTask,
}


def configured(task, *names, **values):
    config = TASKS[task].ConfigModel()
    reader = OverrideReader(config)
    for name in names:
        reader.readFile(FOLDER / name)
    for key, value in values.items():
        reader.readOption(f"{key.replace('__', '.')}={value}")
    config.validate()
    return config


def tasks_of(path):
    """Tasks that a file's opening comment names."""
    comment = re.match(r"(#.*\n)+", path.read_text()).group().replace("#", " ")
    return re.findall(r"\b(simulateBlends|trainPrior|trainDeblender)\b", comment)


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.py")))
def test_every_file_applies_to_the_tasks_that_it_names(name):
    named = tasks_of(FOLDER / name)
    assert named, f"{name} does not say which Task it is for"
    for task in named:
        values = {"galaxies__realPath": "real_galaxy_catalog.fits"} if name == "realGalaxies.py" else {}
        before = ["lsst.py"] if "after lsst.py" in (FOLDER / name).read_text() else []
        config = configured(task, *before, name, **values)
        if task == "simulateBlends":
            config.fieldSettings() if config.kind == "field" else config.sceneSettings()
            get_survey(config.surveyName(), config.bands)


def test_lsst_and_euclid_stamps_are_the_papers():
    six, ten = configured("simulateBlends", "lsst.py"), configured("simulateBlends", "lsstEuclid.py")
    for config in (six, ten):
        scenes = config.scenes
        assert config.surveyName() == "arcelin2020"
        assert (scenes.minGalaxies, scenes.maxGalaxies, scenes.magLimit) == (1, 4, 27.5)
        assert (scenes.innerRadius, scenes.outerRadius) == (0.65 / 2, 2.0)
        assert (scenes.centring, scenes.colourGradients, config.noise) == ("none", False, "poisson")
    assert ten.scenes == six.scenes
    assert ten.bands == (*six.bands, "VIS", "Y", "J", "H")


def test_published_code_has_the_other_value_of_every_switch_of_simulations():
    paper = configured("simulateBlends", "lsstEuclid.py", "peakCentring.py")
    code = configured("simulateBlends", "lsstEuclid.py", "peakCentring.py", "publishedCode.py")
    assert code.surveyName() == "arcelin2020+visAsY+codeNirSky"
    assert (paper.noise, code.noise) == ("poisson", "sky")
    changed = {
        name
        for name in type(code.scenes).model_fields
        if getattr(code.scenes, name) != getattr(paper.scenes, name)
    }
    assert changed == {"outerRadius", "peakCentring", "colourGradients"}


def test_euclid_options_are_refused_for_another_survey():
    with pytest.raises(VaeError, match="visBandpass.*arcelin2020"):
        configured("simulateBlends", visBandpass="Y")


def test_correlated_poisson_noise_is_refused():
    with pytest.raises(VaeError, match="noiseCorrelation.*'normal'"):
        configured("simulateBlends", noiseCorrelation="0.2")


def test_real_scenes_without_a_catalogue_are_refused():
    with pytest.raises(VaeError, match="realFraction.*realPath"):
        configured("simulateBlends", "lsst.py", "realGalaxies.py")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scenes__centring": "peaks", "scenes__placement": "field"}, "peaks.*annulus|annulus.*peaks"),
        ({"scenes__shearStep": 0.01, "scenes__shearG1": 0.02}, "shear_step.*shear_g1"),
        ({"scenes__detectionSize": 65}, "detection_size.*even"),
        ({"scenes__psfShearSigma": 0.15}, "psfShearSigma"),
        ({"kind": "field", "field__shearG1": 0.9, "field__shearG2": 0.9}, "shear"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_before_anything_is_written(values, message):
    with pytest.raises(VaeError, match=message):
        configured("simulateBlends", **values)
