# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the parts of ``lsst.afw`` and ``lsst.geom`` that deblending
needs, on `astropy.nddata` and numpy alone, with afw's names and manners.

`lsst.meas.extensions.vae.afw.adapters` turns these objects, real afw ones and
``lsst.images`` coadds into plain cubes.
"""

from .detection import *
from .exposure import *
from .geometry import *
from .image import *
from .multiband import *
from .psf import *
from .schema import *
from .spans import *
from .table import *
