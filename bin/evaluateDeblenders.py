#!/usr/bin/env python3
# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run EvaluateDeblendersTask on a repository; see --help."""

import sys

from lsst.meas.extensions.vae.cli import main
from lsst.meas.extensions.vae.evaluateDeblendersTask import EvaluateDeblendersTask
from lsst.meas.extensions.vae.prepare import prepareModel

if __name__ == "__main__":
    sys.exit(main(EvaluateDeblendersTask, prepare=prepareModel))
