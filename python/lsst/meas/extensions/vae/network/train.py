# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Train from shards on a bare node: ``python -m lsst.meas.extensions.vae.network.train``.

Needs NumPy, astropy, GalSim, h5py, safetensors and Keras, and no ``lsst-*``
package.  The Tasks TrainPriorTask and TrainDeblenderTask run the same `train`.
"""

import argparse
import dataclasses
import logging
import sys
from pathlib import Path

from ..errors import VaeError

__all__ = ["main"]


def _parser(settings_class):
    parser = argparse.ArgumentParser(prog="train", description="Train a prior or a deblender from shards.")
    parser.add_argument("stage", choices=("prior", "deblender"), help="which network to train")
    parser.add_argument("--train", nargs="+", required=True, metavar="SHARD", help="training shards (*.h5)")
    parser.add_argument("--validation", nargs="+", required=True, metavar="SHARD", help="validation shards")
    parser.add_argument(
        "--directory", default="runs/train", help="checkpoints, history and logs (default %(default)s)"
    )
    parser.add_argument("--prior", metavar="PACKAGE", help="package of the prior stage, for the deblender")
    parser.add_argument("--start", metavar="PACKAGE", help="package whose weights the stage starts from")
    parser.add_argument(
        "--output", metavar="PACKAGE", help="package to write (default DIRECTORY/STAGE.vae.zip)"
    )
    parser.add_argument(
        "--normalisation-sample",
        metavar="SHARD",
        help="shard whose mean peaks normalise images, for networks of a fixed scale (default: --train)",
    )
    parser.add_argument("--name", help="name of the package, kept in its card")
    for field in dataclasses.fields(settings_class):
        kind = field.type if isinstance(field.type, type) else type(field.default)
        option = "--" + field.name.replace("_", "-")
        if kind is bool:
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=field.default)
        else:
            parser.add_argument(option, type=kind, default=field.default, help="default %(default)s")
    return parser


def main(argv=None):
    """Run the command.

    Parameters
    ----------
    argv : `list` [`str`], optional
        Arguments; those of the process by default.

    Returns
    -------
    status : `int`
        0, or 2 for bad input (told in one line), 130 when interrupted.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    # The heavy framework is loaded after the arguments have been understood.
    from .settings import TrainingSettings

    args = _parser(TrainingSettings).parse_args(argv)
    names = [field.name for field in dataclasses.fields(TrainingSettings)]
    try:
        settings = TrainingSettings(**{name: getattr(args, name) for name in names})
        return _run(args, settings)
    except VaeError as error:
        print(f"train: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"train: interrupted; the same command resumes from {args.directory}", file=sys.stderr)
        return 130


def _run(args, settings):
    from ..simulation.shards import StampSample
    from ..survey import get_survey
    from .package import ModelPackage

    prior, start = (ModelPackage.load(path) if path else None for path in (args.prior, args.start))
    samples = [StampSample.open(path) for path in args.train]
    validation = StampSample.concatenate([StampSample.read(path) for path in args.validation])
    survey = get_survey(samples[0].survey, samples[0].bands)
    from .backend import load_keras

    load_keras()
    from .training import train

    package = train(
        args.stage,
        samples,
        validation,
        survey,
        settings,
        args.directory,
        prior=prior,
        start=start,
        normalisation_sample=StampSample.open(args.normalisation_sample)
        if args.normalisation_sample
        else None,
    )
    if args.name:
        package.card["name"] = args.name
    path = package.save(args.output or Path(args.directory) / f"{args.stage}.vae.zip")
    logging.getLogger(__name__).info("wrote %s", path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
