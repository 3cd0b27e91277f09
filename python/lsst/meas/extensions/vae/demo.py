# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demonstration: a field of galaxies, simulated, detected, deblended with
the shipped model, measured, and told in a report.

Every step is the ordinary command of ``bin/`` run in this process on an
ordinary repository, so that what the report says can be done again by hand.
"""

__all__ = ["main", "makeParser"]

import argparse
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .command import runCommand
from .errors import CatalogError, ModelPackageError, RepositoryError, VaeError

_SURVEY = "lsst10yr"
_MODEL = "lsst10yr-ugrizy"
_DENSITY = 50


def makeParser() -> argparse.ArgumentParser:
    """Make the argument parser of ``bin/demo.py``."""
    parser = argparse.ArgumentParser(
        prog="demo.py",
        description="Simulate a field of galaxies as LSST will see it in ten years, deblend it, measure it, "
        "and write OUTPUT/report.html. What is there already is not done again.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--output", default="demo", metavar="DIR", help="folder of repository and report [demo]"
    )
    parser.add_argument("--size", type=int, default=640, metavar="N", help="side of a field, pixels [640]")
    parser.add_argument("--fields", type=int, default=1, metavar="N", help="number of fields [1]")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the simulation [1]")
    parser.add_argument(
        "--galaxies",
        choices=("auto", "cosmos", "synthetic"),
        default="auto",
        help="COSMOS galaxies, fetched on first use; synthetic ones; or 'auto', COSMOS if it can be "
        "had [auto]",
    )
    parser.add_argument(
        "--model",
        default=_MODEL,
        metavar="NAME",
        help=f"shipped model package, or a *.vae.zip file [{_MODEL}]",
    )
    parser.add_argument(
        "--passes",
        type=int,
        default=1,
        metavar="N",
        help="passes of detection at most; from the second on, on what the models leave [1]",
    )
    parser.add_argument("--new-run", dest="newRun", action="store_true", help="do everything again")
    return parser


def main(argv=None) -> int:
    """Run the demonstration.

    Parameters
    ----------
    argv : sequence of `str`, optional
        Arguments; those of the process if not given.

    Returns
    -------
    code : `int`
        0 if all went well, 2 for bad input (told in one line), 1 if
        something else failed, 130 on Ctrl-C.
    """
    return runCommand(makeParser(), _run, argv, "interrupted; the same command resumes")


@dataclass
class _Step:
    """One command of the chain."""

    what: str
    label: str
    script: str
    argv: list
    output: str

    @property
    def command(self):
        """What a user would type."""
        words = (f'"{word}"' if "'" in word else shlex.quote(word) for word in self.argv)
        return f"bin/{self.script} {' '.join(words)}"


def _run(args) -> int:
    started = time.monotonic()
    bounds = ("size", 128, 20_000), ("fields", 1, 1000), ("seed", 0, 2**62), ("passes", 1, 20)
    for name, low, high in bounds:
        if not low <= getattr(args, name) <= high:
            raise VaeError(f"--{name} {getattr(args, name)}: expected {low} to {high}")
    # What may be missing comes first, before anything is written.
    package = _loadModel(args.model)
    output = Path(args.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RepositoryError(f"--output {output}: no folder can be made there ({error.strerror})") from None
    _tell("Galaxies")
    galaxies, warnings = _chooseGalaxies(args.galaxies)
    repo = str(output / "repo")
    pretrained = _provideModel(repo, package, args.model)
    steps = _plan(args, repo, galaxies, pretrained)
    for step in steps:
        _tell(f"{step.what}: {step.command}")
        code = _execute(step, args)
        if code:
            return code
    _tell("Report")
    from .demoReport import makeReport
    from .evaluation.report import write_report

    report = makeReport(repo, steps, package, args, warnings, density=_DENSITY, survey=_SURVEY)
    _writeTable(report.objects, output / "objects.ecsv")
    write_report(report, output / "report.html")
    for value, what in report.headline:
        print(f"  {value}: {what}")
    print(
        f"{output / 'report.html'} is written ({time.monotonic() - started:.0f} s in all); "
        f"all objects are in {output / 'objects.ecsv'}"
    )
    return 0


def _writeTable(table, path: Path) -> None:
    try:
        table.write(path, overwrite=True)
    except OSError as error:
        raise VaeError(f"cannot write {path} ({error.strerror}): give another --output") from None


def _tell(text: str) -> None:
    print(f"== {text}", flush=True)


# -- before the chain --------------------------------------------------------------


def _loadModel(name: str):
    from .network.shipped import load_package

    package = load_package(name)
    if package.card["survey"] != _SURVEY:
        raise ModelPackageError(
            f"model package {name!r} is made for {package.card['survey']}: the demo's fields are "
            f"{_SURVEY}; give a package of that survey"
        )
    package.part("deblender_encoder")
    return package


def _provideModel(repo: str, package, name: str) -> str:
    """Make the repository with the model in it; return the model's RUN."""
    from .repo import openRepository, provideModelPackage

    butler = openRepository(repo)
    try:
        return provideModelPackage(butler, name, package)
    finally:
        butler.close()


def _chooseGalaxies(name: str):
    """Settle which galaxies are drawn; return their name and warnings."""
    if name == "synthetic":
        return name, []
    from .galaxies import fetch_cosmos

    try:
        path, fetched = fetch_cosmos()
    except CatalogError as error:
        if name == "cosmos":
            raise
        text = f"COSMOS could not be had, so the galaxies are synthetic. {' '.join(str(error).split())}"
        print(text, file=sys.stderr)
        return "synthetic", [text]
    print(f"COSMOS 25.2 catalogue {'fetched to' if fetched else 'is there already:'} {path}")
    return "cosmos", []


# -- the chain -----------------------------------------------------------------------


def _plan(args, repo: str, galaxies: str, pretrained: str) -> list:
    # What another call differs by is in the name, so that calls never clash.
    campaign = f"demo-{galaxies}-{args.size}px-seed{args.seed}" + (
        f"-{args.fields}fields" if args.fields > 1 else ""
    )
    model = pretrained.rpartition("/")[2]
    where = f"skymap='vae_{campaign}' AND tract=3"
    settings = {
        "kind": "field",
        "survey": _SURVEY,
        "galaxies.name": galaxies,
        "field.size": args.size,
        "field.densityPerArcmin2": _DENSITY,
        "seed": args.seed,
        "campaign": campaign,
        "nTrain": 0,
        "nValidation": 0,
        "nFields": args.fields,
    }
    if args.passes != 1:
        model += f"-{args.passes}passes"
    field, deblended, shapes = (f"{campaign}-{suffix}" for suffix in ("field", model, f"{model}-shapes"))
    return [
        _Step(
            "Simulate and detect",
            "simulateBlends",
            "simulateBlends.py",
            [repo, "-c", *(f"{k}={v}" for k, v in settings.items()), "-o", field],
            field,
        ),
        _Step(
            "Deblend",
            "deblendVae",
            "deblendVae.py",
            [
                *(repo, "-i", f"{field},{pretrained}", "-o", deblended, "-d", where),
                *("-c", f"maxPasses={args.passes}"),
            ],
            deblended,
        ),
        _Step(
            "Measure",
            "measureShapes",
            "measureShapes.py",
            [repo, "-i", deblended, "-o", shapes, "-d", where],
            shapes,
        ),
    ]


def _execute(step, args) -> int:
    from . import cli
    from .deblendVaeTask import DeblendVaeTask
    from .measureShapesTask import MeasureShapesTask
    from .prepare import prepareCampaign
    from .simulateBlendsTask import SimulateBlendsTask

    tasks = {task._DefaultName: task for task in (SimulateBlendsTask, DeblendVaeTask, MeasureShapesTask)}
    prepare = prepareCampaign if step.label == "simulateBlends" else None
    argv = [*step.argv, *(["--new-run"] if args.newRun else [])]
    return cli.main(tasks[step.label], argv, prepare=prepare, prog=step.script)
