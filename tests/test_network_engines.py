# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Engines: all give the same images, and a missing one is told or replaced."""

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("keras")

from lsst.meas.extensions.vae.errors import ModelPackageError  # noqa: E402
from lsst.meas.extensions.vae.network import engines  # noqa: E402
from lsst.meas.extensions.vae.network.architecture import architecture_names, make_architecture  # noqa: E402
from lsst.meas.extensions.vae.network.model import Network, get_weights  # noqa: E402
from lsst.meas.extensions.vae.network.package import ModelPackage  # noqa: E402
from lsst.meas.extensions.vae.network.shipped import load_package  # noqa: E402

SMALL = {
    "factorised": {"filters": (8, 12, 16, 20), "hidden": 32},
    "morphology": {"groups": (0, 1), "crop": 32},
}


LIBRARIES = {"onnx": "onnxruntime", "openvino": "openvino"}


@pytest.fixture
def without(monkeypatch):
    def hide(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, LIBRARIES[name], None)

    return hide


@pytest.fixture(params=list(LIBRARIES))
def library(request):
    """Name of an engine beside Keras, where it is installed."""
    if request.param not in engines.installed_engines():
        pytest.skip(f"{request.param} is not installed")
    return request.param


def module_of(library):
    return importlib.import_module(f"{engines.__package__}.{library}_engine")


def make_package(name, bands=("g", "r")):
    """A package whose every weight is drawn at random, biases and all."""
    architecture = make_architecture(name, len(bands), 32, 4, **SMALL.get(name, {}))
    rng = np.random.default_rng(7)
    parts = {}
    for part, model in (
        ("deblender_encoder", architecture.build_encoder()),
        ("decoder", architecture.build_decoder()),
    ):
        parts[part] = {
            key: (np.abs(value) + rng.uniform(0, 0.2, value.shape)).astype("f4")
            if key.endswith("variance")
            else (value + 0.05 * rng.standard_normal(value.shape)).astype("f4")
            for key, value in get_weights(model).items()
        }
    card = {
        "name": f"toy {name}",
        "architecture": {"name": name, "options": SMALL.get(name, {})},
        "survey": "lsst10yr",
        "bands": list(bands),
        "pixel_scale": [0.2] * 2,
        "psf": [{"kind": "gaussian", "fwhm": 0.7, "beta": None}] * 2,
        "noise": [2.0, 3.0],
        "stamp_size": 32,
        "latent_dim": 4,
        "normalisation": {"kind": architecture.normalisation, "scale": [2.0, 3.0]},
    }
    return ModelPackage(card, parts)


def test_an_unknown_engine_is_named_with_those_that_are_installed():
    with pytest.raises(ModelPackageError, match="unknown engine 'tensorrt'.*installed here: .*keras"):
        Network(make_package("factorised"), engine="tensorrt")


def test_without_libraries_auto_takes_keras_and_asking_for_one_tells_how_to_install_it(without):
    without(*LIBRARIES)
    package = make_package("factorised")
    assert engines.installed_engines() == ("keras",)
    assert Network(package).engine.name == "keras"
    for name in LIBRARIES:
        message = rf"{name}' is not installed.*meas-extensions-vae\[{name}\].*'keras'"
        with pytest.raises(ModelPackageError, match=message):
            Network(package, engine=name)


def test_auto_takes_the_fastest_that_is_installed(library, without):
    if library == "onnx":
        without("openvino")
    assert Network(make_package("factorised")).engine.name == library or engines._has_gpu()


def test_openvino_reports_to_nobody_that_it_is_used(tmp_path):
    pytest.importorskip("openvino")
    telemetry = tmp_path / "openvino_telemetry"
    telemetry.mkdir()
    (telemetry / "__init__.py").write_text("print('telemetry was loaded')\n")
    code = (
        "import sys\n"
        "from lsst.meas.extensions.vae.network import engines, openvino_engine\n"
        "assert 'openvino' in engines.installed_engines()\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "telemetry" not in done.stdout and not (tmp_path / "intel").exists()


def test_onnx_runtime_reports_to_nobody_unless_the_user_consents(monkeypatch):
    for told, found in ((None, "1"), ("0", "0")):
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
        if told:
            monkeypatch.setenv("ORT_DISABLE_TELEMETRY", told)
        monkeypatch.setitem(sys.modules, "onnx", None)
        assert "onnx" not in engines.installed_engines()
        assert os.environ["ORT_DISABLE_TELEMETRY"] == found


def test_auto_goes_on_with_keras_where_a_library_fails(monkeypatch, caplog, library):
    def fails(self, model):
        raise RuntimeError("no such processor\nat line 3")

    for cls in (engines.OnnxEngine, engines.OpenVinoEngine):
        monkeypatch.setattr(cls, "_compiled", fails)
    package = make_package("factorised")
    with caplog.at_level("WARNING"):
        assert Network(package).engine.name == "keras"
    assert "cannot build this network (no such processor)" in caplog.text
    with pytest.raises(ModelPackageError, match="no such processor.*use the engine 'keras'"):
        Network(package, engine=library)


def test_auto_leaves_a_gpu_to_keras(monkeypatch):
    monkeypatch.setattr(engines, "_has_gpu", lambda: True)
    assert Network(make_package("factorised")).engine.name == "keras"


def test_an_answer_does_not_depend_on_the_batch():
    network = Network(make_package("morphology"))
    rng = np.random.default_rng(2)
    stamps = rng.normal(0, 3, (21, 2, 32, 32)).astype("f4")
    noise = rng.uniform(1, 2, (21, 2))
    whole = network.deblend(stamps, noise)
    for single in (
        network.deblend(stamps, noise, batch_size=5),
        [np.concatenate(a) for a in zip(*(network.deblend(stamps[i : i + 1], noise[i]) for i in range(21)))],
    ):
        for a, b in zip(whole, single):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(a).max())


@pytest.mark.parametrize("name", [name for name in engines.ENGINES if name != "auto"])
def test_memory_does_not_grow_with_the_number_of_galaxies(name):
    psutil = pytest.importorskip("psutil")
    if name not in engines.installed_engines():
        pytest.skip(f"{name} is not installed")
    network = Network(make_package("morphology"), engine=name)
    rng = np.random.default_rng(6)
    stamps = rng.normal(0, 3, (128, 2, 32, 32)).astype("f4")

    def deblend(times):
        for n in rng.integers(64, 129, times):
            network.deblend(stamps[:n], [1.0, 2.0], batch_size=64)
        return psutil.Process().memory_info().rss

    before = deblend(40)
    grown = deblend(120) - before
    # Keeping one array of images of each call would take 90 MiB.
    assert grown < 30 * 2**20


@pytest.mark.parametrize("name", architecture_names())
def test_a_library_gives_what_keras_gives(name, library):
    package = make_package(name)
    ours, theirs = Network(package, engine=library), Network(package, engine="keras")
    assert ours.engine.name == library
    rng = np.random.default_rng(3)
    stamps = rng.normal(0, 20, (19, 2, 32, 32)).astype("f4")
    for a, b in zip(ours.deblend(stamps, [1.0, 2.0]), theirs.deblend(stamps, [1.0, 2.0])):
        assert a.shape == b.shape and a.dtype == b.dtype == np.float32
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())


def test_a_librarys_galaxies_are_keras_to_a_thousandth_in_shape_and_magnitude(library):
    from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
    from lsst.meas.extensions.vae.simulation.metrics import ksb_shear
    from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
    from lsst.meas.extensions.vae.survey import get_survey

    survey, package = get_survey("lsst10yr"), load_package("lsst10yr-ugrizy")
    scenes = SceneSettings(placement="field", mag_limit=None, target_snr_min=10.0)
    sample = simulate_stamps(synthetic_galaxies(2000, seed=3), survey, scenes, 40, seed=11, split="test")
    noise = np.array(package.card["noise"], "f4")
    stamps = np.stack([sample.image(i) for i in range(40)])
    stamps += noise[:, None, None] * np.random.default_rng(5).standard_normal(stamps.shape)
    r, psf = survey.band_names.index("r"), survey["r"].psf.kernel(0.2)
    flux, shape = [], []
    for engine in ("keras", library):
        models = Network(package, engine=engine).deblend(stamps, noise)[0]
        flux.append(models.sum(axis=(2, 3)))
        shape.append([ksb_shear(model[r], psf)[:2] for model in models])
    assert (flux[0][:, r] > 0).all() and np.isfinite(shape).all()
    bright = flux[0] > 0
    assert np.abs(2.5 * np.log10(flux[1][bright] / flux[0][bright])).max() < 1e-3
    assert np.abs(np.subtract(*shape)).max() < 1e-3


def conditioned_network():
    """An encoder of two inputs, with every layer such a one may have, and a decoder of three outputs."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(4)
    image, condition = keras.Input((8, 8, 2), name="image"), keras.Input((5,), name="condition")
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(image)
    gain = layers.Dense(6, activation="sigmoid")(layers.Dense(7, activation="silu")(condition))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 6))(gain)])
    x = layers.Concatenate()([x, image])
    x = layers.Concatenate(axis=1)([layers.Reshape((1, 512))(x), layers.Reshape((1, 512))(x)])
    x = layers.Concatenate()([layers.Flatten()(x), condition])
    x = layers.Add()([layers.Dense(3, activation="tanh")(x), layers.Dense(3)(condition)])
    encoder = keras.Model([image, condition], [x, layers.Activation("softplus")(x)])
    latent = keras.Input((3,))
    outputs = {"pixels": layers.Reshape((4, 4, 2))(layers.Dense(32)(latent))}
    outputs |= {name: layers.Dense(4)(latent) for name in ("flux", "noise")}
    return encoder, keras.Model(latent, outputs)


@pytest.mark.parametrize("name", [name for name in engines.ENGINES if name != "auto"])
def test_an_encoder_may_take_a_condition_and_a_decoder_give_three_things(name):
    if name not in engines.installed_engines():
        pytest.skip(f"{name} is not installed")
    encoder, decoder = conditioned_network()
    engine = engines.make_engine(name, encoder, decoder)
    rng = np.random.default_rng(8)
    images, condition = rng.normal(size=(21, 2, 8, 8)), rng.normal(size=(21, 5))
    images, condition = images.astype("f4"), condition.astype("f4")
    # 21 is a whole number of no engine's batches.
    found = engine.encode(images, 64, condition)
    expected = encoder([np.moveaxis(images, 1, -1), condition])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, np.asarray(b), atol=2e-5)
    found, expected = engine.decode(found[0], 64), decoder(np.asarray(expected[0]))
    assert set(found) == {"flux", "noise", "pixels"}
    for key, value in found.items():
        np.testing.assert_allclose(value, np.asarray(expected[key]), atol=2e-5)
    for wrong in (None, condition[:, :4], condition[:20]):
        with pytest.raises(ModelPackageError, match=r"takes a condition of shape \(21, 5\).*given is"):
            engine.encode(images, 64, wrong)


def test_an_encoder_of_images_alone_takes_no_condition():
    network = Network(make_package("factorised"), engine="keras")
    with pytest.raises(ModelPackageError, match="takes no condition beside 1 images, given is a condition"):
        network.engine.encode(np.zeros((1, 2, 32, 32), "f4"), 1, np.zeros((1, 3), "f4"))


def test_a_layer_that_a_library_would_get_wrong_is_refused(library):
    import keras

    inputs = keras.Input((8, 8, 2))
    for odd in (
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(3, 3),
        keras.layers.Conv2D(3, 3, padding="same", activation="gelu"),
        keras.layers.BatchNormalization(scale=False),
    ):
        model = keras.Model(inputs, odd(inputs))
        with pytest.raises(ModelPackageError, match=f"engine '{library}' knows no .*use the engine 'keras'"):
            module_of(library).CompiledModel(model)


def test_a_librarys_results_are_checked_before_they_are_trusted(monkeypatch, library):
    monkeypatch.setattr(module_of(library)._Builder, "_make_Stretch", lambda self, layer, x: x)
    with pytest.raises(ModelPackageError, match="differ from Keras's"):
        Network(make_package("factorised"), engine=library)
