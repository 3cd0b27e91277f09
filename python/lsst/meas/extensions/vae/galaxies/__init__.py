# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Galaxies as profiles with colours: the COSMOS catalogue of HST and a synthetic stand-in; and stars."""

__all__ = [
    "SED_NAMES",
    "Components",
    "GalaxyCatalog",
    "StarCatalog",
    "cosmos_path",
    "fetch_cosmos",
    "load_cosmos",
    "load_galaxies",
    "synthetic_galaxies",
    "synthetic_stars",
]

from .catalog import Components, GalaxyCatalog
from .cosmos import cosmos_path, fetch_cosmos, load_cosmos, load_galaxies
from .fluxes import SED_NAMES
from .stars import StarCatalog, synthetic_stars
from .synthetic import synthetic_galaxies
