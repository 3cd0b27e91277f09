# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``--show config`` and ``--show history=PATTERN`` print."""

__all__ = ["showConfig", "showHistory"]

import fnmatch
import re

from ..errors import VaeError

_EXACT_CASE = ":NOIGNORECASE"


def showConfig(config, pattern=None):
    """Return a config as override text, each field with its description.

    Parameters
    ----------
    config : `Config` or `lsst.pex.config.Config`
        The config.
    pattern : `str`, optional
        Shell pattern of the dotted names to show, with or without
        ``config.``; a nested config's name shows all of it. Upper and lower
        case are one unless the pattern ends in ``:NOIGNORECASE``.

    Returns
    -------
    text : `str`

    Raises
    ------
    VaeError
        Raised where no name matches.
    """
    text = config.saveToString(skipImports=True)
    if not pattern:
        return text
    chosen = set(_matching(config, pattern))
    # Each block is a comment and an assignment; texts are written in one line.
    blocks = [block for block in re.split(r"(?<=\n)\n", text) if block]
    return "".join(f"{block}\n" for block in blocks if _assigned(block) in chosen)


def showHistory(config, pattern):
    """Return the history of the fields that match a pattern.

    Parameters
    ----------
    config : `Config` or `lsst.pex.config.Config`
        The config.
    pattern : `str`
        As for `showConfig`.

    Returns
    -------
    text : `str`
        For each field its full name, then its values with file and line.

    Raises
    ------
    VaeError
        Raised where no name matches.
    """
    blocks = []
    for name in _matching(config, pattern):
        *path, field = name.split(".")
        owner = config
        for part in path:
            owner = getattr(owner, part)
        blocks.append(owner.formatHistory(field))
    return "\n\n".join(blocks) + "\n"


def _assigned(block):
    return block.rstrip("\n").rpartition("\n")[2].partition("=")[0].removeprefix("config.")


def _matching(config, pattern):
    """Return the dotted names that match a pattern."""
    glob = pattern.removesuffix(_EXACT_CASE).removeprefix("config.")
    flags = 0 if pattern.endswith(_EXACT_CASE) else re.IGNORECASE
    whole = re.compile(f"{fnmatch.translate(glob)}|{fnmatch.translate(glob + '.*')}", flags)
    # pex_config lists the lines of the text, so a name may come twice.
    names = [name for name in dict.fromkeys(config.names()) if whole.match(name)]
    if not names:
        raise VaeError(f"no config field matches {pattern!r}; --show config lists all names")
    return names
