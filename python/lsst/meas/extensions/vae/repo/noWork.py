# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why quanta found no work, kept where the next command finds it: the executor
only logs it, and in other processes not even that is heard."""

__all__ = ["TellingTaskFactory", "dataIdValues", "findNoWork", "whyAbsent"]

from lsst.pipe.base import NoWorkFound, TaskFactory

_NO_WORK = "noWorkFound"  # key in a task's metadata
_MAX_REASONS = 1000  # metadata files that are read to tell of them


class TellingTaskFactory(TaskFactory):
    """Make tasks that keep in their metadata why they found no work."""

    def makeTask(self, task_node, /, butler, initInputRefs):
        task = super().makeTask(task_node, butler, initInputRefs)
        runQuantum = task.runQuantum

        def tellingRunQuantum(*args, **kwargs):
            try:
                return runQuantum(*args, **kwargs)
            except NoWorkFound as reason:
                task.metadata[_NO_WORK] = " ".join(str(reason).split()) or "no reason given"
                raise

        task.runQuantum = tellingRunQuantum
        return task


def findNoWork(butler, label: str, collections, done=frozenset()) -> dict[str, list[str]]:
    """Return the data IDs of quanta that found no work, by reason.

    ``done`` are the data IDs, as `dataIdValues` gives them, that need not be
    looked at.
    """
    from lsst.daf.butler import MissingDatasetTypeError

    try:
        refs = butler.query_datasets(
            f"{label}_metadata", collections=collections, find_first=False, limit=None, explain=False
        )
    except MissingDatasetTypeError:
        return {}
    found: dict[str, list[str]] = {}
    for ref in sorted((ref for ref in refs if dataIdValues(ref) not in done), key=dataIdValues)[
        :_MAX_REASONS
    ]:
        reason = butler.get(ref).get(f"{label}.{_NO_WORK}")
        if reason is not None:
            dataId = " ".join(f"{key}={value}" for key, value in ref.dataId.required.items())
            found.setdefault(reason, []).append(dataId)
    return found


def dataIdValues(ref) -> tuple:
    """Return the values of a dataset's data ID, to compare and to sort."""
    return tuple(ref.dataId.required_values)


def whyAbsent(butler, collections) -> str:
    """Tell in brackets of earlier tasks that found no work; else nothing."""
    told = []
    for datasetType in butler.registry.queryDatasetTypes("*_metadata"):
        if datasetType.storageClass_name != "TaskMetadata":
            continue
        label = datasetType.name.removesuffix("_metadata")
        told += [
            f"{label} found no work for {dataIds[0]}{', ...' if len(dataIds) > 1 else ''}: {reason}"
            for reason, dataIds in findNoWork(butler, label, collections).items()
        ]
    return f" ({'; '.join(told[:3])})" if told else ""
