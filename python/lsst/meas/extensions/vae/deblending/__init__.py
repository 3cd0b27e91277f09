# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deblending of cubes of pixels: stamps, one pass of the network, joint fluxes, refinement, posteriors."""

from .blend import DeblendResult, DeblendSettings, deblend_blend
from .cutout import deblend
from .iterate import FieldResult, IterationSettings, deblend_field
from .posterior import PosteriorDraws, draw_posterior
from .stamps import Stamps, cut_stamps

__all__ = [
    "DeblendResult",
    "DeblendSettings",
    "FieldResult",
    "IterationSettings",
    "PosteriorDraws",
    "Stamps",
    "cut_stamps",
    "deblend",
    "deblend_blend",
    "deblend_field",
    "draw_posterior",
]
