# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the files that travel with this package lie: an EUPS product, a clone
and an installed wheel keep them in three different places.
"""

__all__ = ["getDataDir", "getPackageDir"]

import os
from pathlib import Path


def getPackageDir() -> Path:
    """Return the folder of the package ``lsst.meas.extensions.vae`` itself.

    Returns
    -------
    folder : `pathlib.Path`
        Holds ``models/`` and ``configs/``, in a clone and in a wheel alike.
    """
    return Path(__file__).resolve().parent


def getDataDir(name: str) -> Path:
    """Return a folder of data files: ``config`` or ``pipelines``.

    Parameters
    ----------
    name : `str`
        Its name at the top of the product.

    Returns
    -------
    folder : `pathlib.Path`
        The first that exists of ``$MEAS_EXTENSIONS_VAE_DIR/<name>`` (a product
        that EUPS has set up), the same folder of the clone this file lies in,
        and the copy in a wheel. The last is returned, existing or not, where
        none does.
    """
    candidates = []
    product = os.environ.get("MEAS_EXTENSIONS_VAE_DIR")
    if product:
        candidates.append(Path(product) / name)
    package = getPackageDir()
    clone = package.parents[4]
    # Any folder may be called "config": only a clone of ours has setup.py and
    # this very package below it.
    if package.parents[3].name == "python" and (clone / "setup.py").is_file():
        candidates.append(clone / name)
    candidates.append(package / "_data" / name)
    return next((folder for folder in candidates if folder.is_dir()), candidates[-1])
