# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deblend galaxies with variational autoencoders, in the LSST Science Pipelines.

Tasks and the classes that storage is made of are found here by name and
loaded on first use, so that importing the package costs next to nothing.
"""

from importlib import import_module

from .version import __version__

_HOMES = {
    "DeblendVaeConfig": "deblendVaeTask",
    "DeblendVaeTask": "deblendVaeTask",
    "EvaluateDeblendersConfig": "evaluateDeblendersTask",
    "EvaluateDeblendersTask": "evaluateDeblendersTask",
    "MeasureShapesConfig": "measureShapesTask",
    "MeasureShapesTask": "measureShapesTask",
    "ModelPackage": "network.package",
    "MultibandExposure": "afw",
    "SimulateBlendsConfig": "simulateBlendsTask",
    "SimulateBlendsTask": "simulateBlendsTask",
    "SourceCatalog": "afw",
    "TrainDeblenderConfig": "trainDeblenderTask",
    "TrainDeblenderTask": "trainDeblenderTask",
    "TrainPriorConfig": "trainPriorTask",
    "TrainPriorTask": "trainPriorTask",
    "deblend": "deblending",
    "updateCatalogFootprints": "heavyFootprints",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
