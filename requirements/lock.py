# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the pinned dependencies that ``make`` installs: ``make lock``.

Every extra of ``pyproject.toml`` that a set-up needs is resolved by pip on each
Python that is named, oldest first, and nothing is installed.  The oldest one's
answers bind the others, so that one version serves all wherever it can; what
they do not share is marked with the Pythons it is for.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES = {"run.txt": ("lsst", "train", "sim", "report"), "test.txt": ("test", "onnx", "openvino", "compare")}
# Their newest releases leave the oldest Python behind; the others shall have them.
NEWEST_EVERYWHERE = {"lsst-pipe-base", "lsst-ctrl-mpexec"}


def resolve(python, extras, constraints):
    """Ask pip for the closure of some extras on one Python.

    Parameters
    ----------
    python : `str`
        An interpreter.
    extras : `tuple` [`str`]
        Names of extras.
    constraints : `list` [`str`]
        Lines of a constraints file.

    Returns
    -------
    version : `str`
        The Python's, such as "3.12".
    pins : `dict` [`str`, `str`]
        Version of each distribution, by normalised name.

    Raises
    ------
    subprocess.CalledProcessError
        If the extras cannot be resolved there.
    """
    with tempfile.TemporaryDirectory() as folder:
        venv, report = Path(folder, "venv"), Path(folder, "report.json")
        subprocess.run([python, "-m", "venv", venv], check=True)
        Path(folder, "c.txt").write_text("\n".join(constraints) + "\n")
        subprocess.run(
            [venv / "bin/python", "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed",
             "--report", report, "-c", Path(folder, "c.txt"), f"{HERE.parent}[{','.join(extras)}]"],
            check=True,
        )  # fmt: skip
        result = json.loads(report.read_text())
    pins = {}
    for item in result["install"]:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        if name != "meas-extensions-vae":
            pins[name] = item["metadata"]["version"]
    return ".".join(result["environment"]["python_full_version"].split(".")[:2]), pins


def merge(found):
    """Write the pins of several Pythons as the lines of one file.

    Parameters
    ----------
    found : `dict` [`str`, `dict` [`str`, `str`]]
        Pins by Python, oldest first.

    Returns
    -------
    lines : `list` [`str`]
    """
    lines = []
    for name in sorted(set().union(*found.values())):
        pythons = {}
        for python, pins in found.items():
            if name in pins:
                pythons.setdefault(pins[name], []).append(python)
        for version, where in pythons.items():
            marker = " or ".join(f"python_version == '{python}'" for python in where)
            lines.append(f"{name}=={version}" + ("" if len(where) == len(found) else f" ; {marker}"))
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pythons", nargs="+", metavar="PYTHON", help="interpreters, oldest first")
    parser.add_argument("--upgrade", action="store_true", help="forget the present pins")
    args = parser.parse_args()
    kept = []
    if not args.upgrade:
        lines = [line for file in FILES for line in (HERE / file).read_text().splitlines()]
        kept = [line for line in lines if "==" in line and not line.startswith("#")]
    extras, common = sum(FILES.values(), ()), {}
    run, test = {}, {}
    for python in args.pythons:
        bound = kept + [f"{n}=={v}" for n, v in common.items() if n not in NEWEST_EVERYWHERE]
        version, everything = resolve(python, extras, bound)
        bound = [f"{name}=={pin}" for name, pin in everything.items()]
        _, run[version] = resolve(python, FILES["run.txt"], bound)
        test[version] = {name: pin for name, pin in everything.items() if name not in run[version]}
        common = common or everything
    for file, found, first in (("run.txt", run, []), ("test.txt", test, ["-r run.txt"])):
        head = f"# Written by `make lock` for Python {', '.join(found)}; see README.md."
        scratch = HERE / (file + ".tmp")
        scratch.write_text("\n".join([head, *first, *merge(found)]) + "\n")
        os.replace(scratch, HERE / file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
