# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The version of this package, the one place where it is written."""

__all__ = ["__version__"]

__version__ = "0.1.0"
