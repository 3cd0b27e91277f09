# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors on stamps as Markdown and ECSV, beside the paper's."""

import re
from pathlib import Path

import numpy as np

from ..files import replacing
from .shear_bias import shear_bias
from .stamp_sections import stamp_facts, stamp_sections
from .targets import judge

__all__ = ["sheared", "stamp_markdown", "write_stamp_report"]


def stamp_markdown(summary, verdicts=None, shear=None):
    """The tables of a summary, as text.

    Parameters
    ----------
    summary : `astropy.table.Table`
        As `~.stamp_table.summarise_stamps` gives it.
    verdicts : `astropy.table.Table`, optional
        As `~.targets.judge` gives it; made if absent.
    shear : `astropy.table.Table`, optional
        As `~.shear_bias.shear_bias` gives it.

    Returns
    -------
    text : `str`
        Markdown.
    """
    verdicts = judge(summary) if verdicts is None else verdicts
    parts = ["# Errors on stamps", "\n".join(f"* {line}" for line in stamp_facts(summary))]
    for section in stamp_sections(summary, verdicts, shear):
        parts += [f"## {section.title}", section.notes, _table(section.head, section.rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_stamp_report(summary, folder, errors=None):
    """Write a summary to a folder.

    Parameters
    ----------
    summary : `astropy.table.Table`
        As `~.stamp_table.summarise_stamps` gives it.
    folder : path-like
        Made if need be; files of the same names are replaced.
    errors : `astropy.table.Table`, optional
        As `~.stamps.measure_stamps` gives it, or several joined: written too, one table a method, which takes
        pyarrow; and of scenes in sheared versions, m and c.

    Returns
    -------
    paths : `list` [`pathlib.Path`]
        stamps.md, stampSummary.ecsv, stampTargets.ecsv; shearBiases.ecsv of sheared scenes; and
        stampErrors-<method>.parquet of each method, what is neither letter nor digit in its name replaced by
        "-".

    Raises
    ------
    OSError
        If they cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    verdicts, shear = judge(summary), None
    if errors is not None and sheared(errors):
        shear = shear_bias(errors)
    tables = {"stampSummary.ecsv": summary, "stampTargets.ecsv": verdicts, "shearBiases.ecsv": shear}
    paths = [folder / "stamps.md"]
    with replacing(paths[0]) as temporary:
        Path(temporary).write_text(stamp_markdown(summary, verdicts, shear))
    for name, table in tables.items():
        if table is not None:
            paths.append(folder / name)
            with replacing(paths[-1]) as temporary:
                table.write(temporary, format="ascii.ecsv", overwrite=True)
    if errors is not None:
        methods = np.asarray(errors["method"]).astype(str)
        for method in dict.fromkeys(methods.tolist()):
            paths.append(folder / f"stampErrors-{re.sub('[^A-Za-z0-9]+', '-', method)}.parquet")
            with replacing(paths[-1]) as temporary:
                errors[methods == method].write(temporary, format="parquet", overwrite=True)
    return paths


def sheared(errors):
    """Whether the samples of a table of errors have their scenes in sheared versions."""
    samples = [sample for kind in errors.meta["samples"].values() for sample in kind]
    return all(sample["settings"].get("shear_step", 0.0) for sample in samples)


def _table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
