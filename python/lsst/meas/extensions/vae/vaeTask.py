# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What our Tasks share: connections, a pydantic config, progress in the log."""

__all__ = ["SHARD", "LoggedProgress", "VaeTask", "connection"]

import lsst.pipe.base as pipeBase
from lsst.utils.logging import PeriodicLogger

from .config import Config, toPex
from .repo.repository import DATASET_TYPES, SHARD


def connection(kind, name, doc, **options):
    """Connect a Task to one of our dataset types.

    Parameters
    ----------
    kind : `type`
        Of `lsst.pipe.base.connectionTypes`, such as ``Input``.
    name : `str`
        Name of the dataset type, which tells its dimensions and its storage
        class (`~.repo.repository.DATASET_TYPES`).
    doc : `str`
        What it holds.
    **options
        Further arguments of ``kind``.
    """
    dimensions, storageClass = DATASET_TYPES[name]
    return kind(name=name, doc=doc, storageClass=storageClass, dimensions=dimensions, **options)


class VaeTask(pipeBase.PipelineTask):
    """A PipelineTask whose config is made from a pydantic one.

    Subclasses have ``ConfigModel`` and, made from it, ``ConfigClass``.

    Parameters
    ----------
    config : `~.config.Config` or its ``lsst.pex.config`` twin, optional
        Either will do; the defaults if absent.
    **kwargs
        As `lsst.pipe.base.PipelineTask`.

    Attributes
    ----------
    settings : `~.config.Config`
        The pydantic config, validated and frozen.
    """

    ConfigModel = None

    def __init__(self, *, config=None, **kwargs):
        if isinstance(config, Config):
            config = toPex(config, self.ConfigClass)
        super().__init__(config=config, **kwargs)
        self.settings = self.config.toPydantic()
        self.settings.validate()
        self.settings.freeze()


class LoggedProgress:
    """Report progress through a Task's log, at intervals.

    Parameters
    ----------
    log : `logging.Logger`
        The Task's log.
    what : `str`
        What is being done.
    """

    def __init__(self, log, what):
        self.log, self.what = PeriodicLogger(log), what

    def __call__(self, done, total):
        self.log.log("%s: %d of %d", self.what, done, total)
