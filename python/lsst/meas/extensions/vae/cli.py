# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The front of every command in ``bin/``.

A command reads a task's configuration, makes or opens a Butler repository,
and runs the task's ordinary quantum graph in this process. The spellings of
the stack's former command-line tasks are understood too.
"""

__all__ = ["dataQuery", "main", "makeParser"]

import argparse
import logging
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from .errors import RepositoryError, VaeError
from .paths import getDataDir

_LOG = logging.getLogger("lsst.meas.extensions.vae.cli")

_LEVELS = ("TRACE", "DEBUG", "VERBOSE", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL")
# What the machinery tells about itself is no news to a user; where the graph
# stays empty we tell why ourselves.
_QUIET = {
    "lsst.pipe.base.all_dimensions_quantum_graph_builder": "CRITICAL",
    "lsst.pipe.base.quantum_graph_builder": "CRITICAL",
    "lsst.pipe.base.single_quantum_executor": "WARNING",
    "lsst.utils.packages": "ERROR",  # that there is no eups
}
_SHOWN = ("config", "history", "data", "tasks", "run")


def main(
    taskClass,
    argv: Sequence[str] | None = None,
    *,
    prepare: Callable | None = None,
    defaultInputs: Sequence[str] = (),
    defaultOutput: str | None = None,
    prog: str | None = None,
) -> int:
    """Run a task's command.

    Parameters
    ----------
    taskClass : `type`
        A `lsst.pipe.base.PipelineTask` with ``ConfigModel`` (the pydantic
        config), ``ConfigClass`` (made from it by ``toPexConfig``) and
        ``_DefaultName``.
    argv : sequence of `str`, optional
        Arguments; those of the process if not given.
    prepare : callable, optional
        ``prepare(butler, config, args)`` is called with the open repository,
        the validated pydantic config and the arguments before the graph is
        built. It may register dimensions or put datasets, and set
        ``args.input`` (list), ``args.output`` and ``args.dataQuery`` where
        they are None.
    defaultInputs : sequence of `str`, optional
        Input collections where neither user nor ``prepare`` names any.
    defaultOutput : `str`, optional
        Output collection where the user names none; if None, one is required.
    prog : `str`, optional
        Name of the command in messages; that of the process if not given.

    Returns
    -------
    code : `int`
        0 if all went well, 1 if quanta failed, 2 if the input is bad, 130 on
        Ctrl-C.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = makeParser(taskClass, prog)
    if not argv:
        parser.print_help()
        return 2
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    code = 0
    try:
        code = _command(taskClass, parser.prog, args, prepare, defaultInputs, defaultOutput)
    except VaeError as error:
        code = 2
        _complain(parser.prog, error, args)
    except KeyboardInterrupt:
        code = 130
        print(f"{parser.prog}: interrupted; what is finished is kept", file=sys.stderr)
    except Exception as error:
        if args.doraise:
            raise
        code = 1
        if not args.debug:
            traceback.print_exc()
        _complain(parser.prog, error, args)
    return 0 if args.noExit else code


def makeParser(taskClass, prog: str | None = None) -> argparse.ArgumentParser:
    """Make the argument parser of a task's command.

    Parameters
    ----------
    taskClass : `type`
        The task; the head of its docstring becomes the description.
    prog : `str`, optional
        Name of the command.

    Returns
    -------
    parser : `argparse.ArgumentParser`
        Its results are those that ``prepare`` of `main` gets.
    """
    head = (taskClass.__doc__ or "").strip().split("\n\n")[0]
    parser = argparse.ArgumentParser(
        prog=prog,
        description=" ".join(head.split()),
        epilog="@file stands for the arguments in that file; '#' starts a comment there.",
        fromfile_prefix_chars="@",
        allow_abbrev=False,
    )
    parser.convert_arg_line_to_args = lambda line: shlex.split(line, comments=True)
    add = parser.add_argument
    add("repo", metavar="REPO", help="data repository; made on first use")
    group = parser.add_argument_group("data").add_argument
    group("-i", "--input", action=_Names, metavar="IN", help="input collections, comma-separated")
    group("-o", "--output", metavar="OUT", help="output collection; NAME stands for u/<user>/NAME")
    group("--rerun", metavar="[IN:]OUT", help="the same as -i u/<user>/IN -o u/<user>/OUT")
    group(
        "-d",
        "--data-query",
        dest="dataQuery",
        metavar="QUERY",
        help="such as \"skymap='vae_demo' AND tract=0\"",
    )
    group(
        "--id",
        nargs="*",
        action="append",
        metavar="KEY=V1[^V2][^A..B[:STEP]]",
        help="data to take, such as tract=0 patch=0..3; repeat it for more",
    )
    group("--new-run", dest="newRun", action="store_true", help="start afresh, not where the last run ended")
    group = parser.add_argument_group("configuration, applied from left to right").add_argument
    group("-c", "--config", nargs="+", action=_Overrides, metavar="NAME=VALUE", help="override one field")
    group(
        *("-C", "--config-file", "--configfile"),
        nargs="+",
        action=_Overrides,
        metavar="FILE",
        help="override file: lines 'config.name = value', read, never executed",
    )
    group(
        "--show",
        nargs="+",
        action="extend",
        metavar="WHAT",
        help="config[=PATTERN], history=PATTERN, data, tasks; ends there unless 'run' is among them",
    )
    group = parser.add_argument_group("execution").add_argument
    group("-j", "--processes", type=int, default=1, metavar="N", help="quanta to run at a time")
    group("-t", "--timeout", type=float, metavar="S", help="seconds that one quantum may take, with -j")
    group("-L", "--loglevel", nargs="+", action="extend", metavar="[NAME=]LEVEL", help=", ".join(_LEVELS))
    group("--longlog", action="store_true", help="log time and place as well")
    group("--debug", action="store_true", help="import the user's module 'debug', and show tracebacks")
    group("--doraise", action="store_true", help="stop at the first failure and raise it")
    group("--noExit", action="store_true", help="exit with 0 even upon failure")
    group("--profile", metavar="FILE", help="write a cProfile of the execution")
    group("--no-versions", dest="noVersions", action="store_true", help="neither store nor check versions")
    group = parser.add_argument_group("former spellings").add_argument
    group("--clobber-output", dest="clobberOutput", action="store_true", help="--new-run, hiding older runs")
    group("--clobber-config", dest="clobberConfig", action="store_true", help="the same as --new-run")
    group("--clobber-versions", dest="clobberVersions", action="store_true", help="the same as --no-versions")
    group(
        "--no-backup-config", dest="noBackupConfig", action="store_true", help="has no effect: none is lost"
    )
    parser.set_defaults(overrides=[])
    return parser


class _Names(argparse.Action):
    """Gather comma-separated names."""

    def __call__(self, parser, namespace, values, option=None):
        names = getattr(namespace, self.dest) or []
        setattr(namespace, self.dest, names + [name for name in values.split(",") if name])


class _Overrides(argparse.Action):
    """Gather overrides of both kinds in the order they were given."""

    def __call__(self, parser, namespace, values, option=None):
        kind = "value" if option in ("-c", "--config") else "file"
        namespace.overrides = namespace.overrides + [(kind, value) for value in values]


def dataQuery(groups: Sequence[Sequence[str]]) -> str:
    """Turn ``--id`` groups into a Butler query.

    Parameters
    ----------
    groups : sequence of sequences of `str`
        One group a ``--id``; each item ``KEY=V1[^V2][^A..B[:STEP]]``. The keys
        of a group are crossed, the groups are joined.

    Returns
    -------
    where : `str`
        Such as ``(tract IN (0) AND patch IN (0, 2..8:2))``; empty for none.

    Raises
    ------
    RepositoryError
        If an item cannot be read.
    """
    joined = []
    for group in groups:
        crossed = []
        for item in group:
            key, equals, values = item.partition("=")
            if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", key):
                raise RepositoryError(
                    f"--id {item}: expected KEY=V1[^V2][^A..B[:STEP]], such as patch=0^2..8:2"
                )
            crossed.append(f"{key} IN ({', '.join(_idValue(item, value) for value in values.split('^'))})")
        if crossed:
            joined.append(f"({' AND '.join(crossed)})")
    return " OR ".join(joined)


def _idValue(item: str, value: str) -> str:
    """Write one value of ``--id`` for a query: numbers bare, words quoted."""
    if re.fullmatch(r"-?\d+", value):
        return value
    span = re.fullmatch(r"(\d+)\.\.(\d+)(?::(\d+))?", value)
    if span:
        first, last, step = span.groups()
        if int(first) > int(last) or step == "0":
            raise RepositoryError(
                f"--id {item}: the range {value} is empty; expected A..B[:STEP] with A <= B"
            )
        return value
    if not value or re.search(r"['\"\\\s]", value):
        raise RepositoryError(
            f"--id {item}: value {value!r}; expected a number, a range A..B[:STEP] or a name"
        )
    return f"'{value}'"


def _command(taskClass, prog: str, args, prepare, defaultInputs, defaultOutput) -> int:
    """Do what the arguments ask for; return the exit code."""
    shown = _checkArguments(args)
    # The configuration first: a bad override must not touch a repository.
    config, pexConfig = _configure(taskClass, args)
    _showConfig(taskClass, config, args.show or [])
    execute = not shown or "run" in shown
    if not execute and "data" not in shown:
        return 0
    where = " AND ".join(f"({part})" for part in (args.dataQuery, dataQuery(args.id or [])) if part)
    args.dataQuery = where or None
    if args.rerun:
        _rerun(args)
    from lsst.daf.butler.cli.cliLog import CliLog

    root = logging.getLogger()
    handlers, own = list(root.handlers), not CliLog.configState
    _setUpLog(CliLog, args)
    try:
        return _execute(
            taskClass, prog, args, config, pexConfig, execute, prepare, defaultInputs, defaultOutput
        )
    finally:
        # Other commands may follow in this process.
        if own:
            CliLog.resetLog()
            root.handlers[:] = handlers


def _execute(taskClass, prog, args, config, pexConfig, execute, prepare, defaultInputs, defaultOutput) -> int:
    """Open the repository, run the graph, and tell what came of it."""
    from lsst.daf.butler._exceptions import ButlerUserError
    from lsst.utils.timer import profile

    from .repo.execution import planRun, runPlan, userName
    from .repo.repository import openRepository

    label = taskClass._DefaultName
    # LSST asks for the user's name too, and does not bear that there is none.
    os.environ.setdefault("LOGNAME", userName())
    butler = openRepository(args.repo)
    try:
        if prepare is not None:
            prepare(butler, config, args)
        output = args.output or defaultOutput
        if output is None:
            raise RepositoryError("no output collection: give one by -o, such as -o demo")
        plan = planRun(
            butler,
            label,
            pexConfig,
            output,
            args.input,
            defaultInputs=defaultInputs,
            newRun=args.newRun or args.clobberConfig or args.clobberOutput,
            dropOldRuns=args.clobberOutput,
        )
        options = {
            "processes": args.processes,
            "failFast": args.doraise,
            "versions": not (args.noVersions or args.clobberVersions),
            "lsstDebug": args.debug,
            "timeout": args.timeout,
        }
        if "data" in (args.show or []):
            runPlan(butler, taskClass, pexConfig, plan, args.dataQuery or "", showOnly=_showData)
            if not execute:
                return 0
        with profile(args.profile or ""):
            summary = runPlan(butler, taskClass, pexConfig, plan, args.dataQuery or "", **options)
    except ButlerUserError as error:
        raise RepositoryError(" ".join(str(error).split())) from error
    finally:
        butler.close()
    return _report(prog, label, args, plan, summary)


def _report(prog: str, label: str, args, plan, summary) -> int:
    """Print what was done; return the exit code."""
    if summary.nRun + summary.nFailed == 0 and not summary.interrupted:
        print(f"{label}: nothing left to do, all {summary.nSkipped} quanta are done")
    else:
        print(
            f"{label}: {summary.nRun} quanta run, {summary.nSkipped} skipped (done before), "
            f"{summary.nFailed} failed in {summary.seconds:.1f} s"
        )
    held = ", ".join(f"{count} {name}" for name, count in summary.written.items()) or "no datasets"
    print(f"{label}: {held} in {plan.run}; read them by collection {plan.output} of {args.repo}")
    for reason, dataIds in summary.noWork.items():
        more = f" and {len(dataIds) - 3} more" if len(dataIds) > 3 else ""
        print(f"{label}: no work found for {', '.join(dataIds[:3])}{more}: {reason}")
    sys.stdout.flush()
    if summary.interrupted:
        print(f"{prog}: interrupted; the same command resumes", file=sys.stderr)
        return 130
    if not summary.nFailed:
        return 0
    for error in summary.errors:
        _complain(prog, error, args)
    print(f"{prog}: {summary.nFailed} quanta failed; the same command tries them again", file=sys.stderr)
    # Bad input has its own code, as long as nothing else went wrong.
    return 2 if summary.errors and summary.nUnexplained == 0 else 1


def _complain(prog: str, error: BaseException, args) -> None:
    """Print an error as one line, after its traceback if that is asked for."""
    if args.debug:
        traceback.print_exception(error)
    print(f"{prog}: error: {' '.join(str(error).split())}", file=sys.stderr)


def _checkArguments(args) -> list[str]:
    """Refuse what argparse lets pass; return what is to be shown."""
    shown = args.show or []
    for what in shown:
        if what.partition("=")[0] not in _SHOWN:
            raise RepositoryError(f"--show {what}: expected {', '.join(_SHOWN)}")
    if args.processes < 1:
        raise RepositoryError(f"-j {args.processes}: expected 1 or more processes")
    if args.timeout is not None and not args.timeout > 0:
        raise RepositoryError(f"--timeout {args.timeout}: expected seconds above 0")
    for level in args.loglevel or []:
        if level.rpartition("=")[2].upper() not in _LEVELS:
            raise RepositoryError(
                f"--loglevel {level}: expected [NAME=]LEVEL with one of {', '.join(_LEVELS)}"
            )
    if args.rerun and (args.output or args.input):
        raise RepositoryError("--rerun stands for -i and -o: give the one or the others")
    return [what.partition("=")[0] for what in shown]


def _rerun(args) -> None:
    """Turn ``--rerun [IN:]OUT`` into input and output collections."""
    source, colon, target = args.rerun.rpartition(":")
    if not target or (colon and not source):
        raise RepositoryError(f"--rerun {args.rerun}: expected [IN:]OUT")
    args.input = [source] if source else None
    args.output = target


def _setUpLog(cliLog, args) -> None:
    """Log as the stack's other commands do, to stderr."""
    cliLog.initLog(longlog=args.longlog)
    levels = [] if args.loglevel or args.debug else list(_QUIET.items())
    for level in args.loglevel or []:
        name, _, value = level.rpartition("=")
        levels.append((name or None, value.upper()))
    cliLog.setLogLevels(levels)


def _configure(taskClass, args):
    """Read the configuration; return it as pydantic and as pex_config model.

    The overrides go from left to right upon those of
    ``config/<_DefaultName>.py``, which users and sites may edit.
    """
    from .config import OverrideReader, toPex

    config = taskClass.ConfigModel()
    reader = OverrideReader(config)
    site = getDataDir("config") / f"{taskClass._DefaultName}.py"
    if site.is_file():
        reader.readFile(site)
    connections = []
    for kind, text in args.overrides:
        if kind == "file":
            reader.readFile(Path(text).expanduser())
        elif re.match(r"\s*(config\.)?connections\.", text):
            # Names of dataset types are LSST's own part of a config.
            connections.append(text)
        else:
            reader.readOption(text)
    config.validate()
    pexConfig = toPex(config, taskClass.ConfigClass)
    for text in connections:
        OverrideReader(pexConfig).readOption(text)
    pexConfig.validate()
    return config, pexConfig


def _showConfig(taskClass, config, patterns: Sequence[str]) -> None:
    """Print what ``--show`` asks for that needs no repository."""
    from .config import showConfig, showHistory

    for what in patterns:
        kind, _, pattern = what.partition("=")
        if kind == "config":
            print(showConfig(config, pattern or None).rstrip("\n"))
        elif kind == "history":
            print(showHistory(config, pattern or "*").rstrip("\n"))
        elif kind == "tasks":
            print(f"{taskClass._DefaultName}: {taskClass.__module__}.{taskClass.__qualname__}")


def _showData(graph) -> None:
    """Print the data IDs of the quanta that would be run."""
    for label, quanta in graph.quanta_by_task.items():
        for dataId in sorted(quanta):
            print(label, " ".join(f"{key}={value}" for key, value in dataId.required.items()))
        print(f"{label}: {len(quanta)} quanta")
