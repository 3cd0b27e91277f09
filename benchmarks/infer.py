# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Galaxies per second of each network on each engine, side by side in one run.

Run as ``python benchmarks/infer.py [--galaxies N] [--cores C]``.  *plain Keras*
is the paper's network as its published code runs it, ``model.predict`` in
float32, first; the last column is a row's ratio to it.  Rates per core are
galaxies per second of processor time of all threads, which other work on the
machine spoils least.  Weights are untrained, which takes as long.  Images go
in and come out in their own unit, so scaling counts.  Rounds of all rows take
turns, and each row keeps its best.  bf16 is too coarse to be offered
(doc/models.md); it shows what a better one would give.
"""

import argparse
import os
import time

import numpy as np

from lsst.meas.extensions.vae.network.architecture import architecture_names
from lsst.meas.extensions.vae.network.backend import load_keras
from lsst.meas.extensions.vae.survey import get_survey

BANDS = ("u", "g", "r", "i", "z", "y")


class PlainKeras:
    """What the published code does: ``predict`` of each model, and NumPy."""

    def __init__(self, network):
        self.network = network

    def encode(self, images, noise):
        """Posterior of images ``[n, band, y, x]``."""
        scaled = self.network.architecture.to_network(images, self.network.scale(noise))
        return self.network.encoder.predict(scaled, batch_size=100, verbose=0)

    def decode(self, latents, noise):
        """Images of latents ``[n, latent]``."""
        output = self.network.decoder.predict(latents, batch_size=100, verbose=0)
        scale = self.network.scale(noise)[:, :, None, None]
        return self.network.architecture.scaled_images(output) * scale


def runners(survey):
    """Yield the label and what runs, of every row."""
    from deblend import untrained

    from lsst.meas.extensions.vae.network.engines import OpenVinoEngine, installed_engines
    from lsst.meas.extensions.vae.network.model import Network

    yield (
        "arcelin2020",
        "plain Keras",
        "f32",
        PlainKeras(Network(untrained("arcelin2020", survey), engine="keras")),
    )
    for name in architecture_names():
        package = untrained(name, survey)
        for engine in reversed(installed_engines()):
            yield name, engine, "f32", Network(package, engine=engine)
        if "openvino" in installed_engines():
            network = Network(package, engine="keras")
            network.engine = OpenVinoEngine(network.encoder, network.decoder, "bf16")
            yield name, "openvino", "bf16", network


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--galaxies", type=int, default=256, help="galaxies of a round (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default %(default)s)")
    parser.add_argument("--cores", type=int, help="cores to run on (default: all that this process may use)")
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: args.cores]
    # Before the engines start their threads.
    os.sched_setaffinity(0, cores)
    load_keras()
    survey = get_survey("lsst10yr", BANDS)
    rng = np.random.default_rng(1)
    noise = np.array([np.sqrt(band.sky_level) / band.electrons_per_unit for band in survey.bands], "f4")
    noise = np.broadcast_to(noise, (args.galaxies, len(BANDS)))
    images = (noise[:, :, None, None] * rng.standard_normal((args.galaxies, 6, 64, 64))).astype("f4")
    latents = rng.standard_normal((args.galaxies, 32)).astype("f4")

    rows = list(runners(survey))
    # Seconds on the clock and of the processor, for encode and decode.
    best = np.full((len(rows), 2, 2), np.inf)
    for turn in range(args.rounds + 1):
        for i, (*_, runner) in enumerate(rows):
            for j, (run, what) in enumerate(((runner.encode, images), (runner.decode, latents))):
                start = np.array([time.perf_counter(), time.process_time()])
                run(what, noise)
                # The first round traces and warms up.
                if turn:
                    spent = np.array([time.perf_counter(), time.process_time()]) - start
                    best[i, :, j] = np.minimum(best[i, :, j], spent)

    print(f"{args.galaxies} galaxies, 6 bands of 64 x 64, {len(cores)} cores")
    print(f"{'':<38}{'galaxies/s':>24}{'galaxies/s/core':>32}")
    columns = "".join(f"{name:>8}" for name in ("encode", "decode", "both") * 2)
    print(f"{'network':<14}{'engine':<13}{'precision':<11}{columns}{'ratio':>8}")
    plain = best[0, 1].sum()
    for (name, engine, precision, _), seconds in zip(rows, best):
        rates = args.galaxies / np.column_stack([seconds, seconds.sum(axis=1)])
        columns = "".join(f"{rate:>8.0f}" for rate in rates.ravel())
        print(f"{name:<14}{engine:<13}{precision:<11}{columns}{plain / seconds[1].sum():>8.2f}")


if __name__ == "__main__":
    main()
