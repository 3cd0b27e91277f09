# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Galaxies as profiles with colours: HST's COSMOS catalogue, its images, and a synthetic stand-in; stars."""

__all__ = [
    "SED_NAMES",
    "Components",
    "GalaxyCatalog",
    "RealGalaxies",
    "StarCatalog",
    "cosmos_path",
    "fetch_cosmos",
    "load_cosmos",
    "load_galaxies",
    "load_real_galaxies",
    "synthetic_galaxies",
    "synthetic_stars",
]

from .catalog import Components, GalaxyCatalog
from .cosmos import cosmos_path, fetch_cosmos, load_cosmos, load_galaxies
from .fluxes import SED_NAMES
from .real_images import RealGalaxies, load_real_galaxies
from .stars import StarCatalog, synthetic_stars
from .synthetic import synthetic_galaxies
