# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a trained package out of a repository, with its measured errors in its card."""

__all__ = ["main", "makeParser", "measuredErrors"]

import argparse
import dataclasses
import math
from pathlib import Path

from .command import runCommand
from .errors import RepositoryError

# What a card holds of the errors of posteriors; see `~.network.model.Network.floors`.
FLOORS = "shape", "flux", "shape_scale", "flux_scale", "tails"


def makeParser() -> argparse.ArgumentParser:
    """Make the argument parser of ``bin/releaseModel.py``."""
    parser = argparse.ArgumentParser(
        prog="releaseModel.py",
        description="Write a trained model package to a file, with the errors that evaluateDeblenders.py "
        "measured for it in its card.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("repo", metavar="REPO", help="data repository")
    add("--campaign", required=True, metavar="NAME", help="campaign that it was trained in")
    add("-i", "--input", required=True, metavar="IN", help="collection of evaluateDeblenders.py")
    add("--output", required=True, metavar="FILE.vae.zip", help="file to write; an older one is replaced")
    add("--name", metavar="NAME", help="name of the package [the file's]")
    add(
        "--floors",
        nargs=len(FLOORS),
        type=float,
        metavar=tuple(name.upper() for name in FLOORS),
        help="errors that posteriors add, and how much they are widened, as benchmarks/coverage.py tells",
    )
    return parser


def main(argv=None) -> int:
    """Write a package.

    Parameters
    ----------
    argv : sequence of `str`, optional
        Arguments; those of the process if not given.

    Returns
    -------
    code : `int`
        0 if all went well, 2 for bad input (told in one line), 130 on Ctrl-C.
    """
    return runCommand(makeParser(), _run, argv)


# What a card tells of a summary's columns.
_ROW = ("method", "kind", "by", "low", "high", "scenes", "number", "failures", "component_half_width")
_TOLD = ("e_", "e1_", "e2_", "mag_", "alpha_")


def measuredErrors(summary) -> list[dict]:
    """Turn a summary of errors into what a card holds: the targets', not all that was measured.

    Parameters
    ----------
    summary : `astropy.table.Table`
        As `~.evaluation.stamp_table.summarise_stamps` gives it.

    Returns
    -------
    measured : `list` [`dict`]
        One entry a row; what is not finite is left out, since JSON knows no NaN.
    """
    measured = []
    for row in summary:
        entry = {}
        for name in summary.colnames:
            if name not in _ROW and not name.startswith(_TOLD):
                continue
            value = row[name].item() if hasattr(row[name], "item") else row[name]
            if isinstance(value, float):
                if not math.isfinite(value):
                    continue
                value = float(f"{value:.4g}")
            entry[name] = value
        measured.append(entry)
    return measured


def _run(args) -> int:
    from lsst.daf.butler import ButlerUserError

    from .repo import openRepository
    from .repo.execution import userCollection

    suffix = ".vae.zip"
    if not args.output.endswith(suffix):
        raise RepositoryError(f"--output {args.output}: expected a name that ends in {suffix}")
    butler = openRepository(args.repo, writeable=False, campaign=args.campaign)
    try:
        collection = userCollection(args.input)
        package = _get(butler, "vae_trainedPackage", collection)
        # Butler leaves the metadata of tables out unless it is asked for them.
        summary = _get(butler, "vae_stampSummary", collection, parameters={"strip_astropy_meta_yaml": False})
    except ButlerUserError as error:
        raise RepositoryError(str(error)) from error
    finally:
        butler.close()
    evaluated = summary.meta.get("package", {}).get("sha256")
    if evaluated != package.sha256:
        raise RepositoryError(
            f"the errors in {args.input} are of package {str(evaluated)[:12]}, the package there is "
            f"{package.sha256[:12]}: evaluate it with useTrainedModel=True"
        )
    name = args.name or Path(args.output).name.removesuffix(suffix)
    card = {**package.card, "name": name, "measured": measuredErrors(summary)}
    if args.floors:
        card["posterior_floors"] = dict(zip(FLOORS, args.floors, strict=True))
    path = dataclasses.replace(package, card=card).save(args.output)
    print(
        f"{path} is written: {name}, {path.stat().st_size / 2**20:.1f} MiB, with {len(summary)} measured rows"
    )
    return 0


def _get(butler, name, collection, **options):
    ref = butler.find_dataset(name, collections=collection)
    if ref is None:
        raise RepositoryError(
            f"{collection} has no {name}: give the collection of evaluateDeblenders.py, whose inputs hold "
            "the package"
        )
    return butler.get(ref, **options)
