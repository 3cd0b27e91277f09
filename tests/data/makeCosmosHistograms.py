# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make cosmos_histograms.json, which test_simulation_statistics.py compares with.

Run it again only when the population is meant to change, with the COSMOS
catalogue fetched (bin/getCosmos.py), and look at what the change does:

    python tests/data/makeCosmosHistograms.py
"""

import json
from pathlib import Path

import numpy as np

from lsst.meas.extensions.vae.galaxies import load_cosmos
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.survey import get_survey

BINS = {
    "ellipticity": np.linspace(0.0, 1.0, 21),
    "r_mag": np.arange(20.0, 27.75, 0.25),
    "redshift": np.concatenate([np.arange(0.0, 3.0, 0.15), [3.0, 3.5, 4.0, 5.0, 7.0]]),
}
"""Edges; values outside are counted in the first and last bin."""

SETTINGS = SceneSettings(kind="isolated", colour_gradients=False)


def histograms(n_scenes, seed, galaxies, settings=SETTINGS, processes=1):
    """Counts of |e| (shapes that failed left out), r and z of isolated galaxies of the paper's sample."""
    survey = get_survey("arcelin2020", "r")
    truth = simulate_stamps(galaxies, survey, settings, n_scenes, seed, processes=processes).truth
    values = {
        "ellipticity": np.hypot(truth["e1"], truth["e2"])[~np.asarray(truth["hsm_failed"])],
        "r_mag": np.asarray(truth["r_mag"]),
        "redshift": np.asarray(truth["redshift"]),
    }
    return {
        name: np.histogram(np.clip(values[name], edges[0], edges[-1]), edges)[0]
        for name, edges in BINS.items()
    }


if __name__ == "__main__":
    counts = histograms(40_000, 20_200_526, load_cosmos(), processes=2)
    path = Path(__file__).with_name("cosmos_histograms.json")
    path.write_text(json.dumps({name: found.tolist() for name, found in counts.items()}, indent=1) + "\n")
    print(f"{path}: {', '.join(counts)}")
