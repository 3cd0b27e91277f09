# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Data folders are found in an EUPS product, a clone and a wheel."""

from lsst.meas.extensions.vae import paths


def fake(monkeypatch, package):
    package.mkdir(parents=True)
    monkeypatch.delenv("MEAS_EXTENSIONS_VAE_DIR", raising=False)
    monkeypatch.setattr(paths, "getPackageDir", lambda: package)


def test_a_clone_has_them_at_its_top(monkeypatch, tmp_path):
    fake(monkeypatch, tmp_path / "clone" / "python" / "lsst" / "meas" / "extensions" / "vae")
    (tmp_path / "clone" / "config").mkdir()
    (tmp_path / "clone" / "setup.py").touch()
    assert paths.getDataDir("config") == tmp_path / "clone" / "config"


def test_a_wheel_has_them_inside_whatever_lies_around(monkeypatch, tmp_path):
    package = tmp_path / "lib" / "python" / "lsst" / "meas" / "extensions" / "vae"
    fake(monkeypatch, package)
    (tmp_path / "lib" / "config").mkdir()
    assert paths.getDataDir("config") == package / "_data" / "config"


def test_a_product_that_is_set_up_comes_first(monkeypatch, tmp_path):
    fake(monkeypatch, tmp_path / "clone" / "python" / "lsst" / "meas" / "extensions" / "vae")
    (tmp_path / "clone" / "config").mkdir()
    (tmp_path / "clone" / "setup.py").touch()
    (tmp_path / "product" / "config").mkdir(parents=True)
    monkeypatch.setenv("MEAS_EXTENSIONS_VAE_DIR", str(tmp_path / "product"))
    assert paths.getDataDir("config") == tmp_path / "product" / "config"
    assert paths.getDataDir("pipelines") != tmp_path / "product" / "pipelines", (
        "only folders that exist count"
    )


def test_the_seed_of_repositories_lies_in_the_package():
    assert (paths.getPackageDir() / "configs" / "butler-seed.yaml").is_file()
