# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what a simulated sample holds: a page with its distributions and scenes.

Shards are files, or those of a campaign in a data repository; one after the
other is opened, so that memory stays flat with their number.
"""

__all__ = ["main", "makeParser"]

import argparse
import re
import shlex
from pathlib import Path

from .command import runCommand
from .errors import RepositoryError, VaeError

_KINDS = {"blended": "vae_blendStamps", "isolated": "vae_isolatedStamps"}
_SPLITS = ("train", "validation", "test")


def makeParser() -> argparse.ArgumentParser:
    """Make the argument parser of ``bin/reportSimulation.py``."""
    parser = argparse.ArgumentParser(
        prog="reportSimulation.py",
        description="Report on simulated stamps: DIR/report.html with distributions and 36 random scenes, "
        "and its figures as SVG; figure1.svg is figure 1 of Arcelin et al. 2020.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="REPO|FILE.h5", help="a data repository, or shards of one sample")
    add("--output", required=True, metavar="DIR", help="folder of the report; made if need be")
    add("--seed", type=int, default=1, metavar="N", help="seed of the choice of scenes that are shown [1]")
    group = parser.add_argument_group("of a repository").add_argument
    group("--campaign", metavar="NAME", help="campaign of the repository")
    group("--split", choices=_SPLITS, help="split of the campaign [test]")
    group("--kind", choices=tuple(_KINDS), help="kind of stamps [blended]")
    group("-i", "--input", metavar="IN", help="collection to read [any, where each shard is in one only]")
    return parser


def main(argv=None) -> int:
    """Write a simulation report.

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


def _run(args) -> int:
    if args.seed < 0:
        raise VaeError(f"--seed {args.seed}: expected 0 or more")
    if args.campaign is None:
        for name in ("split", "kind", "input"):
            if getattr(args, name) is not None:
                raise VaeError(f"--{name} selects shards of a campaign: give --campaign NAME too")
        for path in args.inputs:
            if Path(path).is_dir():
                raise RepositoryError(f"{path} is a folder: give --campaign NAME if it is a data repository")
        names = [Path(path).name for path in args.inputs]
        # What tells shards apart is shown, and no more.
        names = names if len(set(names)) == len(names) else args.inputs
        return _report(args, list(zip(names, args.inputs)), [], lambda summary: [])
    if len(args.inputs) != 1:
        raise RepositoryError(f"{len(args.inputs)} repositories with --campaign: give one")
    from lsst.daf.butler import ButlerUserError

    from .repo import openRepository

    butler = openRepository(args.inputs[0], writeable=False, campaign=args.campaign)
    try:
        return _reportCampaign(butler, args)
    except ButlerUserError as error:
        raise RepositoryError(str(error)) from error
    finally:
        butler.close()


def _reportCampaign(butler, args) -> int:
    from .repo.campaign import SPLITS, campaignMeta
    from .repo.execution import userCollection

    repo, campaign = args.inputs[0], args.campaign
    split, kind = args.split or "test", args.kind or "blended"
    collection = userCollection(args.input) if args.input else None
    refs = butler.query_datasets(
        _KINDS[kind],
        collections=collection or "*",
        find_first=collection is not None,
        where="tract = split",
        bind={"split": SPLITS[split]},
        limit=None,
        explain=False,
    )
    where = f"in {collection}" if collection else "in the repository"
    if not refs:
        raise RepositoryError(
            f"campaign {campaign} has no {kind} stamps of the {split} split {where}: simulate some, such as "
            f"bin/simulateBlends.py {repo} -c campaign={campaign} kind={kind} n{split.capitalize()}=1"
        )
    byPatch = {}
    for ref in refs:
        byPatch.setdefault(ref.dataId["patch"], []).append(ref)
    for patch, found in byPatch.items():
        if len(found) > 1:
            runs = ", ".join(sorted(ref.run for ref in found))
            raise RepositoryError(
                f"{kind} shard {patch} of the {split} split of {campaign} is in several runs ({runs}): "
                "choose by -i COLLECTION"
            )
    shards = [(f"shard {patch}", butler.getURI(byPatch[patch][0])) for patch in sorted(byPatch)]
    facts = [("campaign", campaign), ("runs", ", ".join(sorted({ref.run for ref in refs})))]
    meta = campaignMeta(butler, campaign) or {}

    def repeat(summary):
        report = ["bin/reportSimulation.py", repo, "--campaign", campaign, "--split", split, "--kind", kind]
        report += (["-i", collection] if collection else []) + ["--output", args.output]
        simulate = _simulation(repo, campaign, meta, summary, max(byPatch) + 1)
        return [("The shards:", shlex.join(simulate)), ("This report:", shlex.join(report))]

    return _report(args, shards, facts, repeat)


def _simulation(repo, campaign, meta, summary, nShards):
    """The command that simulates a campaign's shards of one split and kind."""
    from .config.settings import makeSettings
    from .repo.campaign import SPLITS
    from .simulateBlendsTask import SceneConfig, SimulateBlendsConfig
    from .simulation import SceneSettings

    survey, *options = summary.survey.split("+")
    values = {
        "campaign": campaign,
        "kind": summary.kind,
        "survey": survey,
        "visBandpass": "Y" if "visAsY" in options else "VIS",
        "nirSky": "code" if "codeNirSky" in options else "paper",
        "bands": summary.bands,
        "galaxies.name": meta.get("galaxies", summary.versions.get("galaxies")),
        "seed": meta.get("seed"),
        "nScenes": summary.shards[0].bases,
        **{f"n{name.capitalize()}": nShards if name == summary.split else 0 for name in SPLITS},
    }
    values |= {
        f"galaxies.{k}": meta[f"galaxies{k.capitalize()}"] for k in ("n", "seed") if "galaxiesN" in meta
    }
    if summary.settings.get("real_fraction"):
        values["galaxies.realPath"] = "PATH"
    usual = makeSettings(SceneSettings, SceneConfig())
    for name in SceneConfig.model_fields:
        # As makeSettings spells them.
        snake = re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)
        if summary.settings.get(snake) != getattr(usual, snake):
            values[f"scenes.{name}"] = summary.settings[snake]
    usual = SimulateBlendsConfig()
    chosen = [
        f"{name}={list(value) if isinstance(value, tuple) else value}"
        for name, value in values.items()
        if "." in name or (value is not None and value != getattr(usual, name))
    ]
    return ["bin/simulateBlends.py", repo, "-c", *chosen]


def _report(args, shards, facts, repeat) -> int:
    from .evaluation.simulation_report import write_simulation_report
    from .evaluation.simulation_summary import summarise

    output = Path(args.output)
    summary = summarise(_open(shards), seed=args.seed)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VaeError(f"--output {output}: no folder can be made there ({error.strerror})") from None
    size = sum(_size(place) for _, place in shards)
    facts = [
        *facts,
        ("size of the shards", f"{size / 1e6:.1f} MB, {size / len(summary.truth):.0f} bytes a scene"),
    ]
    page, *figures = write_simulation_report(summary, output, facts=facts, repeat=repeat(summary))
    names = ", ".join(path.name for path in figures)
    count = f"{len(shards)} shard{'s' * (len(shards) > 1)} of {len(summary.truth)} scenes"
    print(f"{page} is written, from {count}; beside it {names}")
    return 0


def _open(shards):
    """Open one shard after the other."""
    from .simulation.shards import StampSample

    for name, place in shards:
        if isinstance(place, str):
            with StampSample.open(place) as sample:
                yield name, sample
        else:
            with place.as_local() as local, StampSample.open(local.ospath) as sample:
                yield name, sample


def _size(place) -> int:
    return Path(place).stat().st_size if isinstance(place, str) else place.size()
