#!/usr/bin/env python3
# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulate stamps or fields into a repository."""

import sys

from lsst.meas.extensions.vae.cli import main
from lsst.meas.extensions.vae.prepare import prepareCampaign
from lsst.meas.extensions.vae.simulateBlendsTask import SimulateBlendsTask

if __name__ == "__main__":
    sys.exit(main(SimulateBlendsTask, prepare=prepareCampaign))
