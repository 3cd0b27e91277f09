# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Model packages: what is refused, and that nothing is lost on the way."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import ModelPackageError
from lsst.meas.extensions.vae.network.package import ModelPackage, short_weights
from lsst.meas.extensions.vae.network.shipped import load_package


def make_package():
    rng = np.random.default_rng(1)
    card = {
        "name": "toy",
        "architecture": {"name": "factorised", "options": {}},
        "survey": "lsst10yr",
        "bands": ["g", "r"],
        "pixel_scale": [0.2, 0.2],
        "psf": [{"kind": "gaussian", "fwhm": 0.7, "beta": None}] * 2,
        "stamp_size": 64,
        "latent_dim": 4,
        "normalisation": {"kind": "noise"},
    }
    weights = {"dense/kernel": rng.normal(size=(3, 4)).astype("f4"), "dense/bias": np.zeros(4, "f4")}
    return ModelPackage(card, {"decoder": weights, "prior_encoder": {"a/b": np.ones((2, 2), "f4")}})


def rewrite(path, change):
    """Rewrite a zip after ``change(members)``, members being name -> bytes."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.fixture
def saved(tmp_path):
    return make_package().save(tmp_path / "toy.vae.zip")


def test_a_package_survives_saving_and_loading_unchanged(saved):
    package, again = make_package(), ModelPackage.load(saved)
    assert again.card == package.card
    assert set(again.parts) == set(package.parts)
    for part, weights in package.parts.items():
        for name, value in weights.items():
            np.testing.assert_array_equal(again.parts[part][name], value)


def test_the_same_package_gives_the_same_bytes():
    assert make_package().to_bytes() == make_package().to_bytes()


def test_a_part_that_was_tampered_with_is_refused_by_its_sum(saved):
    def flip(members):
        data = bytearray(members["decoder.safetensors"])
        data[-1] ^= 1
        members["decoder.safetensors"] = bytes(data)

    rewrite(saved, flip)
    with pytest.raises(ModelPackageError, match="decoder.safetensors has sha256 .* damaged or tampered with"):
        ModelPackage.load(saved)


def test_a_truncated_package_is_refused_in_one_line(saved):
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(ModelPackageError, match="not a readable model package") as caught:
        ModelPackage.load(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil", "decoder.pkl"])
def test_a_member_that_does_not_belong_is_refused_and_never_written(saved, name, tmp_path):
    rewrite(saved, lambda members: members.update({name: b"x"}))
    with pytest.raises(ModelPackageError, match="unexpected member"):
        ModelPackage.load(saved)
    assert not (tmp_path.parent / "evil.py").exists()


def test_a_part_missing_from_the_zip_is_noticed(saved):
    rewrite(saved, lambda members: members.pop("decoder.safetensors"))
    with pytest.raises(ModelPackageError, match="its card lists"):
        ModelPackage.load(saved)


def test_a_card_of_another_version_asks_for_an_update(saved):
    def age(members):
        card = json.loads(members["card.json"])
        card["format_version"] = 99
        members["card.json"] = json.dumps(card).encode()

    rewrite(saved, age)
    with pytest.raises(ModelPackageError, match="99.*update"):
        ModelPackage.load(saved)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06" + b"\0" * 18])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "x.vae.zip"
    path.write_bytes(content)
    with pytest.raises(ModelPackageError):
        ModelPackage.load(path)


def test_an_absent_file_and_an_unknown_name_say_what_to_give(tmp_path):
    with pytest.raises(ModelPackageError, match="cannot read model package"):
        ModelPackage.load(tmp_path / "none.vae.zip")
    with pytest.raises(ModelPackageError, match="no model package 'nonesuch'.*shipped names"):
        load_package("nonesuch")


def test_a_failed_save_leaves_the_old_package_alone(saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr(ModelPackage, "to_bytes", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_package().save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_reading_a_package_imports_no_deep_learning_framework(saved):
    code = (
        "import sys\n"
        "from lsst.meas.extensions.vae.network.package import ModelPackage\n"
        f"ModelPackage.load({str(saved)!r})\n"
        "sys.exit(any(name in sys.modules for name in ('keras', 'tensorflow', 'jax', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "factorised"},
        {"architecture": {"name": 3, "options": {}}},
        {"bands": 2},
        {"bands": ["g", "g"]},
        {"stamp_size": 63},
        {"stamp_size": 1e9},
        {"latent_dim": "4"},
        {"latent_dim": True},
        {"normalisation": None},
        {"normalisation": {"kind": "fixed", "scale": [1.0]}},
        {"pixel_scale": [0.2]},
        {"psf": [{"kind": "gaussian"}] * 2},
        {"name": [1]},
    ],
)
def test_a_card_that_says_something_else_than_it_should_is_refused_by_name(change):
    card = {**make_package().card, **change}
    with pytest.raises(ModelPackageError, match=f"has {next(iter(change))} .*expected"):
        ModelPackage(card)


def test_any_flipped_byte_gives_a_model_package_error_or_the_same_package(saved):
    data, rng = saved.read_bytes(), np.random.default_rng(4)
    for _ in range(400):
        broken = bytearray(data)
        for place in rng.integers(len(data), size=2):
            broken[place] ^= int(rng.integers(1, 256))
        try:
            ModelPackage.from_bytes(bytes(broken))
        except ModelPackageError as error:
            assert "\n" not in str(error)


def test_the_sum_of_a_package_outlives_saving_and_tells_any_change(saved):
    package = make_package()
    assert ModelPackage.load(saved).sha256 == package.sha256
    shuffled = ModelPackage(package.card, dict(reversed(package.parts.items())))
    assert shuffled.sha256 == package.sha256
    assert ModelPackage({**package.card, "name": "other"}, package.parts).sha256 != package.sha256
    before = package.sha256
    package.parts["decoder"]["dense/bias"][0] = 1e-3
    assert package.sha256 != before


def test_weights_of_few_digits_take_half_the_room_and_come_back_as_they_were():
    package = make_package()
    rng = np.random.default_rng(3)
    weights = {"a/b": rng.normal(size=(300, 200)).astype("f4"), "huge": np.array([1e6, 1.5], "f4")}
    short = short_weights(weights)
    np.testing.assert_allclose(short["a/b"], weights["a/b"], rtol=2**-11, atol=2**-25)
    np.testing.assert_array_equal(short["huge"], weights["huge"])
    packed = ModelPackage(package.card, {"decoder": short})
    again = ModelPackage.from_bytes(packed.to_bytes())
    for name, value in short.items():
        assert again.parts["decoder"][name].dtype == np.float32
        np.testing.assert_array_equal(again.parts["decoder"][name], value)
    full = ModelPackage(package.card, {"decoder": weights})
    assert len(packed.to_bytes()) < 0.6 * len(full.to_bytes())
    assert again.sha256 == packed.sha256


@pytest.mark.parametrize(
    "prior",
    [
        7,
        {"mean": [0.0] * 4},
        {"mean": [0.0] * 3, "covariance": np.eye(3).tolist()},
        {"mean": [0.0, 0.0, 0.0, float("nan")], "covariance": np.eye(4).tolist()},
        {"mean": [0.0] * 4, "covariance": np.diag([1, 1, 1, -1]).tolist()},
        {"mean": [0.0] * 4, "covariance": "all"},
    ],
)
def test_a_prior_of_the_latents_that_is_no_gaussian_is_refused(prior):
    package = make_package()
    with pytest.raises(ModelPackageError, match="latent_prior"):
        ModelPackage({**package.card, "latent_prior": prior}, package.parts)
    good = {"mean": [0.0] * 4, "covariance": np.eye(4).tolist()}
    assert ModelPackage({**package.card, "latent_prior": good}, package.parts).card["latent_prior"] == good
