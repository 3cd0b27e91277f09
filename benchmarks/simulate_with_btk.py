# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds that blending-toolkit takes for a number of scenes; `simulate.py` runs this in a side environment.

Needs nothing of this project.  ``python simulate_with_btk.py CATALOG SCENES``
prints a line of JSON.  CATALOG holds galaxies in the columns of GalSim's
``*_fits.fits``, with RA, DEC, MAG and ``LSST_<band>`` (AB magnitudes) beside
them, from which the toolkit takes its fluxes.
"""

import importlib.metadata
import json
import sys
import time

import btk
import galsim
from astropy.table import Table

STAMP_ARCSEC = 12.8  # 64 pixels of 0.2 arcsec
BATCH = 5


def main(path, n_scenes):
    """Draw the scenes, after a batch that nobody times."""
    columns = ["RA", "DEC", "MAG"] + [f"LSST_{band}" for band in "ugrizy"]
    catalog = btk.catalog.CosmosCatalog(
        Table.read(path)[columns], galsim.COSMOSCatalog(path, use_real=False, exclusion_level="none")
    )
    sampling = btk.sampling_functions.DefaultSampling(
        stamp_size=STAMP_ARCSEC, max_number=4, max_shift=2.0, max_mag=27.5, mag_name="LSST_r", seed=1
    )
    generator = btk.draw_blends.CosmosGenerator(
        catalog,
        sampling,
        btk.survey.get_surveys("LSST"),
        batch_size=BATCH,
        gal_type="parametric",
        augment_data=True,
        seed=1,
    )
    for n in [0.05 * i for i in range(120, 5, -1)]:
        galsim.Sersic(n, half_light_radius=1.0).kValue(1.0, 0.0)
    next(generator)
    done = 0
    start = time.process_time()
    while done < n_scenes:
        shape = next(generator).blend_images.shape
        done += BATCH
    seconds = time.process_time() - start
    if shape[1:] != (6, 64, 64):
        raise SystemExit(f"blending-toolkit drew scenes of shape {shape[1:]}: expected (6, 64, 64)")
    versions = f"{importlib.metadata.version('blending-toolkit')}, GalSim {galsim.__version__}"
    print(json.dumps({"scenes": done, "seconds": seconds, "versions": versions}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
