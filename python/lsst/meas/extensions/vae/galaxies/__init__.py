# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Galaxies as parametric profiles with colours: the COSMOS catalogue of HST and a synthetic stand-in."""

__all__ = [
    "SED_NAMES",
    "Components",
    "GalaxyCatalog",
    "cosmos_path",
    "fetch_cosmos",
    "load_cosmos",
    "load_galaxies",
    "synthetic_galaxies",
]

from .catalog import Components, GalaxyCatalog
from .cosmos import cosmos_path, fetch_cosmos, load_cosmos, load_galaxies
from .fluxes import SED_NAMES
from .synthetic import synthetic_galaxies
