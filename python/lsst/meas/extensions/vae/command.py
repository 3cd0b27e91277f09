# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The front of commands that are no Tasks: arguments in, exit code and errors for people out."""

__all__ = ["runCommand"]

import sys

from .errors import VaeError


def runCommand(parser, run, argv=None, interrupted="interrupted") -> int:
    """Run a command, telling bad input in one line.

    Parameters
    ----------
    parser : `argparse.ArgumentParser`
        Of the command's arguments.
    run : callable
        Called with the parsed arguments; gives the exit code.
    argv : sequence of `str`, optional
        Arguments; those of the process if not given.
    interrupted : `str`, optional
        What is said upon Ctrl-C.

    Returns
    -------
    code : `int`
        That of ``run``, 2 for bad input, 130 on Ctrl-C.
    """
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        return run(args)
    except VaeError as error:
        print(f"{parser.prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: {interrupted}", file=sys.stderr)
        return 130
