# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes, magnitudes and blendedness of deblended sources, on plain arrays."""

from .sources import SourceMeasurement, measure_source

__all__ = ["SourceMeasurement", "measure_source"]
