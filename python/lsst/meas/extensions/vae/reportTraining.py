# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell how a training went, or goes: a page with its curves, its cost, latents and reconstructions."""

__all__ = ["main", "makeParser"]

import argparse
import contextlib
import os
import shlex
import sys
from pathlib import Path

from .command import runCommand
from .errors import TrainingError, VaeError


def makeParser() -> argparse.ArgumentParser:
    """Make the argument parser of ``bin/reportTraining.py``."""
    parser = argparse.ArgumentParser(
        prog="reportTraining.py",
        description="Report on a training: DIR/report.html with its curves, samples per second and their "
        "share of the machine's rate of matrix multiplication, and, of validation scenes, a corner plot of "
        "latents and reconstructions; figures as SVG, figure3.svg is figure 3 of Arcelin et al. 2020.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("input", metavar="RUN|FILE.vae.zip", help="folder of a run, which may go on meanwhile, or a package")
    add("--output", required=True, metavar="DIR", help="folder of the report; made if need be")
    add("--validation", metavar="FILE.h5", help="shard of validation scenes, for latents and reconstructions")
    add("--stage", choices=("prior", "deblender"), help="which, where there are both [a package's last]")
    add("--scenes", type=int, default=1000, metavar="N", help="scenes of the shard that are encoded [1000]")
    add(
        "--prior",
        metavar="FILE.vae.zip",
        help="what a run took its network from: a deblender's prior, or a start",
    )
    add(
        "--normalisation-sample", metavar="FILE.h5", help="shard that normalises a prior's run of fixed scale"
    )
    add("--peak", type=float, metavar="GFLOPS", help="rate of float32 matrix multiplication [measured here]")
    return parser


def main(argv=None) -> int:
    """Write a training report.

    Parameters
    ----------
    argv : sequence of `str`, optional
        Arguments; those of the process if not given.

    Returns
    -------
    code : `int`
        0 if all went well, 2 for bad input (told in one line), 130 on Ctrl-C.
    """
    given = sys.argv[1:] if argv is None else list(argv)
    command = shlex.join(["bin/reportTraining.py", *given])
    return runCommand(makeParser(), lambda args: _run(args, command), given)


def _run(args, command) -> int:
    if args.scenes < 1:
        raise VaeError(f"--scenes {args.scenes}: expected 1 or more")
    if args.peak is not None and not args.peak > 0:
        raise VaeError(f"--peak {args.peak}: expected a positive rate [Gflop/s]")
    if not Path(args.input).exists():
        raise TrainingError(f"{args.input} is not there: give a run's folder or a model package")
    from .evaluation.training_report import write_training_report
    from .evaluation.training_run import ENCODERS, load_run
    from .evaluation.training_summary import count_flops, look_at, matmul_rate
    from .network.package import ModelPackage
    from .simulation.shards import StampSample

    prior = ModelPackage.load(args.prior) if args.prior else None
    with contextlib.ExitStack() as stack:
        sample, normalisation = (
            stack.enter_context(StampSample.open(path)) if path else None
            for path in (args.validation, args.normalisation_sample)
        )
        run = load_run(args.input, args.stage, prior, sample, normalisation)
        flops = peak = look = None
        if run.package:
            from .network.model import Network

            network = Network(run.package, ENCODERS[run.stage])
            frozen = run.stage == "deblender" and run.settings.get("freeze_decoder", True)
            flops = count_flops(network, frozen)
            peak = _given(args.peak) if args.peak else _measured(matmul_rate())
            if sample is not None:
                look = look_at(
                    network,
                    sample,
                    args.scenes,
                    isolated=run.stage == "prior",
                    noise=run.settings.get("noise", "normal"),
                    noise_correlation=run.settings.get("noise_correlation", 0.0),
                )
    output = Path(args.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VaeError(f"--output {output}: no folder can be made there ({error.strerror})") from None
    page, *figures = write_training_report(
        run, output, flops, peak, look, repeat=[("This report, of the training as it is then:", command)]
    )
    names = ", ".join(path.name for path in figures) or "nothing"
    print(f"{page} is written, of {run.epochs} epochs; beside it {names}")
    if run.missing:
        print(f"It has no latents, reconstructions and cost: {run.missing}")
    return 0


def _given(gflops):
    return gflops * 1e9, "given to the report"


def _measured(found):
    from .network.backend import load_keras

    (rate, side), load = found, os.getloadavg()[0]
    keras = load_keras()
    return rate, (
        "measured when this report was made, on the machine that made it: the quickest of a second's "
        f"products of float32 matrices of {side} x {side}, by {keras.backend.backend()}, at a load of "
        f"{load:.1f} on {os.cpu_count()} cores. What else runs lowers it and raises the share; of another "
        "machine's training it says nothing"
    )
