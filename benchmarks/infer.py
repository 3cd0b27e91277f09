# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Galaxies per second of each network on each engine, and how far each is from Keras, in one run.

Run as ``python benchmarks/infer.py [--galaxies N] [--cores C]``.  *plain Keras*
is the paper's network as its published code runs it, ``model.predict`` in
float32, first; *ratio* is a row's to it, in processor time.  Rates per core are galaxies per
second of processor time of all threads, which other work on the machine spoils
least.  Images go in and come out in their own unit, so scaling counts.  Rounds
of all rows take turns, and each row keeps its best.

The weights of the architectures are untrained, which takes as long.  The
shipped packages run on simulated galaxies of SNR above 10 too, and the worst
differences of e1, e2 and the r magnitude from Keras in float32 are beside
their rates: those that pass have both below 0.001.  Lower precisions (see
`reduced`) are offered by an engine only where they pass and are faster.
"""

import argparse
import logging
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.network import engines
from lsst.meas.extensions.vae.network.architecture import architecture_names
from lsst.meas.extensions.vae.network.backend import load_keras
from lsst.meas.extensions.vae.network.model import Network
from lsst.meas.extensions.vae.network.package import ModelPackage
from lsst.meas.extensions.vae.network.shipped import load_package, shipped_packages
from lsst.meas.extensions.vae.simulation.metrics import ksb_shear
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.survey import get_survey

BANDS = ("u", "g", "r", "i", "z", "y")
LIMIT = 1e-3
"""Of the worst differences that pass, in e1, e2 and magnitudes."""


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


class Row:
    """A line of the table.

    Parameters
    ----------
    network, engine, precision : `str`
        Its labels.
    runner : `Network` or `PlainKeras`
    package : `ModelPackage`
        Says which stamps go in.
    reference : `Row`, optional
        What to compare the galaxies with.
    """

    def __init__(self, network, engine, precision, runner, package, reference=None):
        self.labels = f"{network:<24}{engine:<13}{precision:<15}"
        self.runner, self.package, self.reference = runner, package, reference
        # Seconds on the clock and of the processor, for encode and decode.
        self.best = np.full((2, 2), np.inf)

    def time(self, stamps, noise, latents, keep):
        """Run once."""
        for i, (run, what) in enumerate(((self.runner.encode, stamps), (self.runner.decode, latents))):
            start = np.array([time.perf_counter(), time.process_time()])
            run(what, noise)
            spent = np.array([time.perf_counter(), time.process_time()]) - start
            if keep:
                self.best[:, i] = np.minimum(self.best[:, i], spent)


def reduced(network):
    """Yield the engine, the precision and the network of what calculates more coarsely.

    ``bf16``: all in bfloat16; ``bf16 convs``: the encoder up to its dense
    layers alone; ``f16 weights``: weights of half the bits, arithmetic in
    float32; ``int8 dense``: dense layers in 8 bits, quantised as they run.
    """
    there, models = engines.installed_engines(), (network.encoder, network.decoder)
    if "openvino" in there:
        from lsst.meas.extensions.vae.network.openvino_engine import CompiledModel

        encoder, decoder = (CompiledModel(model, "bf16") for model in models)
        yield "openvino", "bf16", _running(network, encoder, decoder)
        yield "openvino", "bf16 convs", _running(network, _mixed(network.encoder), CompiledModel(models[1]))
        parts = {
            name: {key: value.astype("f2").astype("f4") for key, value in part.items()}
            for name, part in network.package.parts.items()
        }
        package = ModelPackage(network.package.card, parts)
        yield "openvino", "f16 weights", Network(package, engine="openvino")
    if "onnx" in there:
        yield "onnx", "int8 dense", _running(network, *map(_quantised, models))


def _running(network, encoder, decoder):
    """The network with others in the place of its models."""
    copy = Network(network.package, engine="keras")

    class Reduced(engines.RebuiltEngine):
        name = library = "reduced"

        def __init__(self):
            self._encode, self._decode = encoder, decoder
            self._input_shapes = [None] * len(network.encoder.inputs)

        def _compiled(self, model):
            raise NotImplementedError

    copy.engine = Reduced()
    return copy


def _mixed(encoder):
    """An encoder whose dense layers alone are in float32."""
    import openvino

    from lsst.meas.extensions.vae.network.openvino_engine import CompiledModel, build_graph

    class Part(CompiledModel):
        def __init__(self, graph, outputs, precision):
            self._built = graph, outputs
            super().__init__(None, precision)

        def _build(self, model, batch_size):
            return self._built

    graph, structure = build_graph(encoder, 16)
    flat = next(op for op in graph.get_ordered_ops() if op.get_type_name() == "Reshape").output(0)
    convolutions = Part(openvino.Model([flat], graph.get_parameters()), 0, "bf16")
    dense = openvino.opset13.parameter(list(flat.get_shape()), np.float32)
    for target in flat.get_target_inputs():
        if target.get_node().get_type_name() != "Result":
            target.replace_source_output(dense.output(0))
    rest = Part(openvino.Model(graph.get_results(), [dense]), structure, "f32")
    return lambda images: rest(convolutions(images))


def _quantised(model):
    """A model whose matrix products are of 8-bit integers."""
    from onnxruntime.quantization import quantize_dynamic

    from lsst.meas.extensions.vae.network import onnx_engine

    class Quantised(onnx_engine.CompiledModel):
        def _build(self, model):
            graph, structure = onnx_engine.build_graph(model)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "model.onnx")
                quantize_dynamic(graph, path, op_types_to_quantize=["MatMul"])
                return onnx_engine.onnx.load(path), structure

    return Quantised(model)


def table(survey):
    """Make the rows."""
    from deblend import untrained

    package = untrained("arcelin2020", survey)
    rows = [Row("arcelin2020", "plain Keras", "f32", PlainKeras(Network(package, engine="keras")), package)]
    for name in architecture_names():
        package = untrained(name, survey)
        for engine in reversed(engines.installed_engines()):
            rows.append(Row(name, engine, "f32", Network(package, engine=engine), package))
    for name in shipped_packages():
        package = load_package(name)
        first = Row(name, "keras", "f32", Network(package, engine="keras"), package)
        rows.append(first)
        for engine in reversed(engines.installed_engines()[:-1]):
            rows.append(Row(name, engine, "f32", Network(package, engine=engine), package, first))
        for engine, precision, network in reduced(first.runner):
            rows.append(Row(name, engine, precision, network, package, first))
    return rows


def galaxies(package, n):
    """Stamps of a package's survey with a galaxy of SNR above 10 each, its noise added."""
    survey = get_survey(package.card["survey"], package.bands)
    scenes = SceneSettings(placement="field", mag_limit=None, target_snr_min=10.0)
    sample = simulate_stamps(synthetic_galaxies(2000, seed=3), survey, scenes, n, seed=11, split="test")
    noise = np.array(package.card["noise"], "f4")
    stamps = np.stack([sample.image(i) for i in range(n)])
    stamps += noise[:, None, None] * np.random.default_rng(5).standard_normal(stamps.shape)
    return stamps, noise, survey


def measured(row, stamps, noise, survey):
    """r magnitudes and ellipticities of a row's models of some stamps."""
    r, psf = survey.band_names.index("r"), survey["r"].psf.kernel(survey["r"].pixel_scale)
    images = row.runner.deblend(stamps, noise)[0][:, r]
    shapes = np.array([ksb_shear(image, psf)[:2] for image in images])
    return -2.5 * np.log10(images.sum(axis=(1, 2))), shapes


def worst(a, b):
    """Largest difference; infinite where a shape can be measured on one side alone."""
    if (np.isnan(a) != np.isnan(b)).any():
        return np.inf
    return np.nanmax(np.abs(a - b))


def verdicts(rows, n):
    """Worst differences of each row from its reference, as text."""
    found, seen = [], {}
    for row in rows:
        package = row.package.name
        if row.reference is None:
            found.append("")
            continue
        if package not in seen:
            stamps = galaxies(row.package, n)
            seen[package] = stamps, measured(row.reference, *stamps)
        stamps, expected = seen[package]
        magnitude, shape = (worst(a, b) for a, b in zip(measured(row, *stamps), expected))
        passes = "yes" if magnitude < LIMIT and shape < LIMIT else "no"
        found.append(f"{shape:>10.1e}{magnitude:>10.1e}{passes:>8}")
    return found


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--galaxies", type=int, default=256, help="galaxies of a round (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default %(default)s)")
    parser.add_argument("--cores", type=int, help="cores to run on (default: all that this process may use)")
    parser.add_argument("--compared", type=int, default=100, help="galaxies compared (default %(default)s)")
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: args.cores]
    # Before the engines start their threads.
    os.sched_setaffinity(0, cores)
    logging.disable(logging.WARNING)  # of retracing and of quantisation
    load_keras()
    survey = get_survey("lsst10yr", BANDS)
    rng = np.random.default_rng(1)
    noise = np.array([np.sqrt(band.sky_level) / band.electrons_per_unit for band in survey.bands], "f4")
    noise = np.broadcast_to(noise, (args.galaxies, len(BANDS)))
    images = (noise[:, :, None, None] * rng.standard_normal((args.galaxies, 6, 64, 64))).astype("f4")
    latents = rng.standard_normal((args.galaxies, 32)).astype("f4")

    rows = table(survey)
    for turn in range(args.rounds + 1):
        for row in rows:
            # The first round traces and warms up.
            row.time(images, noise, latents, keep=turn > 0)

    print(f"{args.galaxies} galaxies, 6 bands of 64 x 64, {len(cores)} cores; {args.compared} compared")
    print(f"{'':<52}{'galaxies/s':>24}{'galaxies/s/core':>24}{'':>8}{'worst difference':>20}")
    columns = "".join(f"{name:>8}" for name in ("encode", "decode", "both") * 2)
    print(
        f"{'network':<24}{'engine':<13}{'precision':<15}{columns}{'ratio':>8}{'e':>10}{'r':>10}{'passes':>8}"
    )
    plain = rows[0].best[1].sum()
    for row, verdict in zip(rows, verdicts(rows, args.compared)):
        rates = args.galaxies / np.column_stack([row.best, row.best.sum(axis=1)])
        columns = "".join(f"{rate:>8.0f}" for rate in rates.ravel())
        print(f"{row.labels}{columns}{plain / row.best[1].sum():>8.2f}{verdict}")


if __name__ == "__main__":
    main()
