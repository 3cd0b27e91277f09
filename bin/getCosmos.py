#!/usr/bin/env python
# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch and check the COSMOS galaxy catalogue; see --help."""

import sys

from lsst.meas.extensions.vae.galaxies.cosmos import main

if __name__ == "__main__":
    sys.exit(main())
