# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deblending of cubes of pixels: stamps, one pass of the network, joint fluxes, refinement, posteriors."""

from .blend import DeblendResult, DeblendSettings, deblend_blend
from .cutout import deblend
from .posterior import PosteriorDraws, draw_posterior
from .stamps import Stamps, cut_stamps

__all__ = [
    "DeblendResult",
    "DeblendSettings",
    "PosteriorDraws",
    "Stamps",
    "cut_stamps",
    "deblend",
    "deblend_blend",
    "draw_posterior",
]
