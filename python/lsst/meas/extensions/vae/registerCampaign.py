# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Register a campaign for ``pipetask``, which makes no repositories itself."""

__all__ = ["main"]

import argparse

from .command import runCommand


def makeParser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="registerCampaign.py",
        description="Register a simulation campaign in a data repository (made on first "
        "use), so that pipetask can run pipelines/VaeDeblend.yaml on it.",
    )
    parser.add_argument("repo", metavar="REPO", help="data repository")
    parser.add_argument("name", metavar="NAME", help="name of the campaign; its skymap is vae_NAME")
    for option, default, what in (
        ("--train", 1, "training shards"),
        ("--validation", 1, "validation shards"),
        ("--test", 0, "test shards"),
        ("--fields", 1, "fields"),
    ):
        parser.add_argument(
            option, type=int, default=default, metavar="N", help=f"{what} (default %(default)s)"
        )
    return parser


def main(argv=None) -> int:
    """Make the repository if need be, and the campaign's records in it.

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
    from .repo import openRepository, registerCampaign

    butler = openRepository(args.repo)
    try:
        # What defines it is filled in by the first simulateBlends.py, if any.
        run = registerCampaign(butler, args.name, args.train, args.validation, args.test, args.fields, {})
    finally:
        butler.close()
    print(f"campaign {args.name} is in {args.repo}: give pipetask -i {run} -d \"skymap='vae_{args.name}'\"")
    return 0
