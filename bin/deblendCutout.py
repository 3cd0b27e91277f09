#!/usr/bin/env python3
# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deblend one multi-band cutout of a FITS file; see --help."""

import sys

from lsst.meas.extensions.vae.deblendCutout import main

if __name__ == "__main__":
    sys.exit(main())
