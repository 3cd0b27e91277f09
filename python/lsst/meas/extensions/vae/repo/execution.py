# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one task's quantum graph in this process: what lies under ``pipetask``,
with the collections of DESIGN.md and with resuming as the ordinary case.
"""

__all__ = [
    "RunPlan",
    "RunSummary",
    "collectionMembers",
    "planRun",
    "resolveInputs",
    "runPlan",
    "userCollection",
    "userName",
]

import ast
import getpass
import logging
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..errors import RepositoryError, VaeError
from .noWork import TellingTaskFactory, dataIdValues, findNoWork, whyAbsent

_LOG = logging.getLogger("lsst.meas.extensions.vae.cli")

_MP_TIMEOUT = 30 * 86400.0  # seconds, pipetask's own default


def userCollection(name: str) -> str:
    """Return the full name of a user's collection.

    Parameters
    ----------
    name : `str`
        A name with a slash stays as it is; another becomes ``u/<user>/<name>``.
    """
    return name if "/" in name else f"u/{userName()}/{name}"


def userName() -> str:
    """Return the name of the user, ``anonymous`` if there is none."""
    user = os.environ.get("USER") or os.environ.get("LOGNAME")
    if not user:
        try:
            user = getpass.getuser()
        except (KeyError, OSError, ImportError):
            # A container may run as a number that has no name.
            user = "anonymous"
    return user


def collectionMembers(butler, name: str) -> tuple[str, ...]:
    """Return the children of a CHAINED collection; none if there is no such."""
    from lsst.daf.butler import CollectionType

    if name not in _allCollections(butler):
        return ()
    info = butler.collections.get_info(name)
    return tuple(info.children) if info.type is CollectionType.CHAINED else ()


@dataclass(frozen=True)
class RunPlan:
    """Which collections a command reads and writes.

    Parameters
    ----------
    label : `str`
        The task's label in the pipeline: its default name.
    output : `str`
        CHAINED collection.
    run : `str`
        RUN collection within it that takes this command's data.
    chain : `tuple` [`str`]
        Members that ``output`` is to have, ``run`` first.
    resume : `bool`
        Whether ``run`` is an earlier, unfinished or finished one.
    """

    label: str
    output: str
    run: str
    chain: tuple[str, ...]
    resume: bool


@dataclass
class RunSummary:
    """What came of a run.

    Parameters
    ----------
    nRun, nSkipped, nFailed : `int`
        Quanta that were run well, were done already, and failed or could not
        start because of one that failed.
    written : `dict` [`str`, `int`]
        Datasets that the RUN now holds, by dataset type.
    errors : `list` [`VaeError`]
        The errors for users to read that made quanta fail, each once.
    nUnexplained : `int`
        Quanta that failed of something else.
    noWork : `dict` [`str`, `list` [`str`]]
        Data IDs of the quanta of the RUN that found no work, by reason.
    seconds : `float`
        Wall time.
    interrupted : `bool`
        Whether Ctrl-C ended it.
    """

    nRun: int = 0
    nSkipped: int = 0
    nFailed: int = 0
    written: dict[str, int] = field(default_factory=dict)
    errors: list[VaeError] = field(default_factory=list)
    nUnexplained: int = 0
    noWork: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0
    interrupted: bool = False


def resolveInputs(butler, names: Iterable[str]) -> list[str]:
    """Find input collections by full or short name.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        The repository.
    names : iterable of `str`
        Collections; a short name that is not there is tried as
        ``u/<user>/<name>``.

    Returns
    -------
    collections : `list` [`str`]
        Their full names, in order, each once.

    Raises
    ------
    RepositoryError
        If one is not there.
    """
    known = _allCollections(butler)
    found = []
    for name in names:
        full = name if name in known else userCollection(name)
        if full not in known:
            raise RepositoryError(
                f"no input collection {name!r} in the repository: give one of these by -i: {_shown(known)}"
            )
        found.append(full)
    return list(dict.fromkeys(found))


def planRun(
    butler,
    label: str,
    config,
    output: str,
    inputs: Sequence[str] | None = None,
    *,
    defaultInputs: Sequence[str] = (),
    newRun: bool = False,
    dropOldRuns: bool = False,
) -> RunPlan:
    """Decide where a task's data go; nothing is written.

    The newest RUN of ``output`` that this task wrote with the same
    configuration is taken up again; without one, a new RUN is put on top. A
    RUN in which no quantum was finished binds nobody: where it differs from
    what is asked for, it leaves the chain.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        The repository.
    label : `str`
        The task's label.
    config : `lsst.pex.config.Config`
        Its configuration.
    output : `str`
        Name of the CHAINED collection; see `userCollection`.
    inputs : sequence of `str`, optional
        Collections to read. If not given, those that ``output`` has already,
        else ``defaultInputs``.
    newRun : `bool`, optional
        Whether to start a new RUN in any case.
    dropOldRuns : `bool`, optional
        Whether a new RUN takes the earlier ones' place in the chain; they
        stay in the repository.

    Raises
    ------
    RepositoryError
        If there is nothing to read, or an earlier RUN differs from what is
        asked for.
    """
    from lsst.daf.butler import CollectionType
    from lsst.pipe.base import Instrument

    output = userCollection(output)
    members: list[str] = []
    if output in (known := _allCollections(butler)):
        info = butler.collections.get_info(output)
        if info.type is not CollectionType.CHAINED:
            raise RepositoryError(
                f"output {output!r} is a {info.type.name} collection of the repository: choose another -o"
            )
        members = list(info.children)
    ownRuns = [name for name in members if name.startswith(output + "/")]
    others = [name for name in members if name not in ownRuns]
    # Its own chain is read in any case.
    given = [name for name in resolveInputs(butler, inputs or ()) if name != output]
    if not others and not given:
        given = [name for name in resolveInputs(butler, defaultInputs) if name != output]
    if not others and not given and not ownRuns:
        raise RepositoryError(
            f"no input collections for {label}: give -i; the repository has {_shown(known)}"
        )
    stored = {} if newRun else _storedConfigs(butler, label, ownRuns)
    dropped = False
    for run, text in stored.items():
        differences = _differences(text, config.saveToString())
        added = [name for name in given if name not in others]
        if not differences and not added:
            return RunPlan(label, output, run, tuple(members), True)
        if not _hasFinished(butler, label, run):
            ownRuns.remove(run)
            dropped = True
            continue
        if differences:
            more = "; ..." if len(differences) > 3 else ""
            raise RepositoryError(
                f"config of {label} differs from the one that {run} was made with "
                f"({'; '.join(differences[:3])}{more}): take the same values, "
                "or --new-run for a fresh RUN, or another -o"
            )
        raise RepositoryError(
            f"{output} was made from {', '.join(others)}, not from {', '.join(added)}: "
            "give the same inputs to go on, or --new-run or another -o"
        )
    if dropped and not ownRuns and given:
        others = []  # a failed attempt's inputs
    stem = run = f"{output}/{Instrument.makeCollectionTimestamp()}"
    count = 1
    while run in known:
        count += 1
        run = f"{stem}_{count}"
    # What is named now is found before what was named once.
    chain = dict.fromkeys([run, *(() if dropOldRuns else ownRuns), *given, *others])
    return RunPlan(label, output, run, tuple(chain), False)


def runPlan(
    butler,
    taskClass,
    config,
    plan: RunPlan,
    where: str = "",
    *,
    processes: int = 1,
    failFast: bool = False,
    versions: bool = True,
    lsstDebug: bool = False,
    timeout: float | None = None,
    showOnly=None,
) -> RunSummary:
    """Build the quantum graph of one task and run what is not done yet.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        A writeable repository.
    taskClass : `type`
        A `lsst.pipe.base.PipelineTask`.
    config : `lsst.pex.config.Config`
        Its configuration.
    plan : `RunPlan`
        The collections.
    where : `str`, optional
        Data query that limits the quanta.
    processes : `int`, optional
        Quanta to run at a time, each in a process of its own if more than 1.
    failFast : `bool`, optional
        Whether to stop at the first quantum that fails.
    versions : `bool`, optional
        Whether to store, and on resuming compare, the software's versions.
    lsstDebug : `bool`, optional
        Whether tasks import the user's ``debug`` module.
    timeout : `float`, optional
        Seconds that one quantum may take where ``processes`` is above 1.
    showOnly : callable, optional
        Called with the graph instead of running it; nothing is written.

    Returns
    -------
    summary : `RunSummary`
        What was done.

    Raises
    ------
    RepositoryError
        If the query or the inputs leave nothing to do.
    """
    from lsst.pipe.base import ExecutionResources
    from lsst.pipe.base.mp_graph_executor import MPGraphExecutor, MPGraphExecutorError
    from lsst.pipe.base.single_quantum_executor import SingleQuantumExecutor

    started = time.monotonic()
    summary = RunSummary()
    graph, summary.nSkipped = _buildGraph(butler, taskClass, config, plan, where)
    if showOnly is not None:
        showOnly(graph)
        return summary
    if len(graph) and processes > 1 and not taskClass.canMultiprocess:
        _LOG.info("%s runs in one process: -j %d is ignored", plan.label, processes)
        processes = 1
    if len(graph):
        own = _initOutput(butler, graph, plan, versions)
        executor = MPGraphExecutor(
            num_proc=processes,
            timeout=_MP_TIMEOUT if timeout is None else timeout,
            quantum_executor=SingleQuantumExecutor(
                butler=own,
                task_factory=TellingTaskFactory(),
                skip_existing_in=[plan.run],
                clobber_outputs=True,
                enable_lsst_debug=lsstDebug,
                resources=ExecutionResources(),
            ),
            fail_fast=failFast,
        )
        own.registry.resetConnectionPool()
        with _ErrorFilter(keepTraceback=failFast or lsstDebug) as gathered:
            try:
                executor.execute(graph)
            except MPGraphExecutorError as error:
                if failFast:
                    raise error.__cause__ or error  # noqa: B904 (its own cause stays)
                _LOG.debug("%s", error)
            except KeyboardInterrupt:
                summary.interrupted = True
        _count(summary, executor.getReport().quantaReports, gathered.errors)
    done = set()
    for name in _outputTypes(graph.pipeline_graph, plan.label):
        refs = butler.query_datasets(name, collections=plan.run, find_first=False, limit=None, explain=False)
        if refs:
            summary.written[name] = len(refs)
            done.update(dataIdValues(ref) for ref in refs)
    summary.noWork = findNoWork(butler, plan.label, [plan.run], done)
    summary.seconds = time.monotonic() - started
    return summary


class _ErrorFilter(logging.Filter):
    """Gather the errors for users to read from the executor's log, one a
    quantum that failed, and spare users their tracebacks."""

    def __init__(self, keepTraceback: bool):
        super().__init__()
        self.keepTraceback = keepTraceback
        self.errors: list[VaeError] = []
        self._logger = logging.getLogger("lsst.pipe.base.mp_graph_executor")

    def __enter__(self):
        self._logger.addFilter(self)
        return self

    def __exit__(self, *exc):
        self._logger.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        # Butler wraps what a formatter raises.
        while error is not None and not isinstance(error, VaeError):
            error = error.__cause__
        if error is not None:
            self.errors.append(error)
            if not self.keepTraceback:
                record.exc_info = None
        return True


def _count(summary: RunSummary, reports, errors: list[VaeError]) -> None:
    """Fill a summary from the executor's reports and the errors it logged."""
    errors = list(errors)
    for report in reports:
        # From processes of their own, errors come as text.
        info = report.exceptionInfo
        if report.exitCode is not None and info and info.className.startswith(VaeError.__module__ + "."):
            errors.append(VaeError(info.message))
    failed = sum(report.status.name in ("FAILURE", "TIMEOUT") for report in reports)
    summary.nRun = sum(report.status.name == "SUCCESS" for report in reports)
    summary.nFailed = len(reports) - summary.nRun
    summary.nUnexplained = max(0, failed - len(errors))
    summary.errors = list({str(error): error for error in errors}.values())


def _buildGraph(butler, taskClass, config, plan: RunPlan, where: str):
    """Return the graph of what is left to do and the count of what is done."""
    from lsst.daf.butler import MissingDatasetTypeError
    from lsst.daf.butler._exceptions import ButlerUserError
    from lsst.pipe.base import PipelineGraph
    from lsst.pipe.base.all_dimensions_quantum_graph_builder import AllDimensionsQuantumGraphBuilder
    from lsst.pipe.base.quantum_graph_builder import QuantumGraphBuilderError

    pipeline = PipelineGraph()
    pipeline.add_task(plan.label, taskClass, config)
    collections = [name for name in plan.chain if plan.resume or name != plan.run]
    where = _withSkymap(butler, pipeline.tasks[plan.label], where, collections)
    nothing = f"nothing to do for {plan.label}" + (f" where {where}" if where else "")
    try:
        builder = AllDimensionsQuantumGraphBuilder(
            pipeline,
            butler,
            where=where,
            input_collections=collections,
            output_run=plan.run,
            skip_existing_in=[plan.run] if plan.resume else [],
            clobber=True,
        )
        graph = builder.finish(
            plan.output, metadata={"data_query": where}, attach_datastore_records=False
        ).assemble()
    except (ButlerUserError, QuantumGraphBuilderError, FileNotFoundError) as error:
        text = " ".join(str(error).split())
        if "without constraining it" in text:
            text += " Name the campaign's skymap, such as skymap='vae_demo' AND (...)."
        raise RepositoryError(f"{nothing} in {', '.join(collections)}: {text}") from error
    done = 0
    if plan.resume:
        metadata = pipeline.tasks[plan.label].metadata_output.dataset_type_name
        try:
            refs = butler.query_datasets(
                metadata, collections=plan.run, where=where, find_first=False, limit=None, explain=False
            )
            done = len({ref.dataId for ref in refs})
        except MissingDatasetTypeError:
            pass
    if not len(graph) and not done:
        for name, _ in pipeline.iter_overall_inputs():
            try:
                present = butler.query_datasets(name, collections=collections, limit=1, explain=False)
            except MissingDatasetTypeError:
                present = []
            if not present:
                raise RepositoryError(
                    f"{nothing}: no {name} in {', '.join(collections)}"
                    f"{whyAbsent(butler, collections)}; make it first, or give its collection by -i"
                )
        raise RepositoryError(f"{nothing} in {', '.join(collections)}: check -d, --id and -i")
    return graph, done


def _withSkymap(butler, task, where: str, collections) -> str:
    """Complete a query that names no skymap, if the task's inputs have but
    one.

    Building a graph does so by itself, but not for a query with OR.
    """
    from lsst.daf.butler import MissingDatasetTypeError

    if not where or "skymap" in where:
        return where
    skymaps = set()
    for edge in task.inputs.values():
        if "skymap" not in edge.raw_dimensions:
            continue
        with butler.query() as query:
            try:
                found = query.join_dataset_search(edge.parent_dataset_type_name, collections)
                skymaps.update(dataId["skymap"] for dataId in found.data_ids(["skymap"]))
            except MissingDatasetTypeError:
                continue
    return f"skymap='{skymaps.pop()}' AND ({where})" if len(skymaps) == 1 else where


def _initOutput(butler, graph, plan: RunPlan, versions: bool):
    """Set up the output collections; return a Butler that writes there."""
    from lsst.daf.butler import CollectionType
    from lsst.daf.butler.registry import ConflictingDefinitionError

    graph.pipeline_graph.register_dataset_types(butler, include_packages=versions)
    butler.collections.register(plan.run, CollectionType.RUN)
    butler.collections.register(plan.output, CollectionType.CHAINED)
    # On top before the first quantum starts, so that all it finishes is found.
    butler.collections.redefine_chain(plan.output, plan.chain)
    own = butler.clone(collections=[plan.output], run=plan.run)
    if _storedConfig(own, plan.label, plan.run) is None:
        graph.write_configs(own, compare_existing=False)
    graph.write_init_outputs(own, skip_existing=True)
    if versions:
        try:
            graph.write_packages(own, compare_existing=True)
        except ConflictingDefinitionError as error:
            raise RepositoryError(
                f"{plan.run} was begun with other software versions ({' '.join(str(error).split())[:150]}): "
                "give --new-run, or --no-versions to go on in it"
            ) from error
    return own


def _storedConfigs(butler, label: str, runs: Sequence[str]) -> dict[str, str]:
    """Return the stored configs of the RUNs that a task wrote to, newest
    first."""
    texts = ((run, _storedConfig(butler, label, run)) for run in runs)
    return {run: text for run, text in texts if text is not None}


def _hasFinished(butler, label: str, run: str) -> bool:
    """Tell whether a RUN has a quantum that was finished."""
    from lsst.daf.butler import MissingDatasetTypeError

    try:
        return bool(
            butler.query_datasets(
                f"{label}_metadata", collections=run, find_first=False, limit=1, explain=False
            )
        )
    except MissingDatasetTypeError:
        return False


def _storedConfig(butler, label: str, run: str) -> str | None:
    """Return the text of a stored config. It is not executed, as reading it
    through Butler would."""
    from lsst.daf.butler import MissingDatasetTypeError

    try:
        ref = butler.find_dataset(f"{label}_config", collections=run)
    except MissingDatasetTypeError:
        return None
    return None if ref is None else butler.getURI(ref).read().decode()


def _differences(old: str, new: str) -> list[str]:
    """Compare two saved configs as text; return one phrase a difference."""
    before, after = _assignments(old), _assignments(new)
    return [
        f"{name}: {before.get(name, 'absent')} then, {after.get(name, 'absent')} now"
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]


def _assignments(text: str) -> dict[str, str]:
    """Read ``name = value`` lines of a saved config, as text."""
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            found[ast.unparse(node.targets[0]).removeprefix("config.")] = ast.unparse(node.value)
    return found


def _outputTypes(pipelineGraph, label: str) -> list[str]:
    """Return the dataset types of a task's own outputs, not its logs."""
    return [edge.parent_dataset_type_name for edge in pipelineGraph.tasks[label].outputs.values()]


def _allCollections(butler) -> list[str]:
    return sorted(butler.collections.query("*", include_chains=True))


def _shown(names: Sequence[str], limit: int = 8) -> str:
    names = list(names)
    return (", ".join(names[:limit]) + (", ..." if len(names) > limit else "")) or "none"
