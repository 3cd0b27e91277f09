# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model packages that are shipped with this distribution."""

from pathlib import Path

from ..errors import ModelPackageError
from .package import ModelPackage

__all__ = ["load_package", "shipped_packages"]

_SUFFIX = ".vae.zip"


def _folder():
    return Path(__file__).resolve().parents[1] / "models"


def shipped_packages():
    """Names of the shipped packages.

    Returns
    -------
    names : `tuple` [`str`]
        Sorted.
    """
    return tuple(sorted(path.name.removesuffix(_SUFFIX) for path in _folder().glob(f"*{_SUFFIX}")))


def load_package(name_or_path):
    """Load a shipped package by name, or any by path or ``file:`` URI.

    Parameters
    ----------
    name_or_path : `str` or path-like
        Such as ``"lsst10yr-ugrizy"`` or ``"runs/mine.vae.zip"``.

    Returns
    -------
    package : `ModelPackage`
        The package, its sums checked.

    Raises
    ------
    ModelPackageError
        Raised if there is none, or it is damaged.
    """
    text = str(name_or_path).removeprefix("file://")
    if text in shipped_packages():
        return ModelPackage.load(_folder() / f"{text}{_SUFFIX}")
    if Path(text).exists():
        return ModelPackage.load(text)
    raise ModelPackageError(
        f"no model package {text!r}: give the path of a *.vae.zip file or one of the shipped "
        f"names: {', '.join(shipped_packages()) or 'none'}"
    )
