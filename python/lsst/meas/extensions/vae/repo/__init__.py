# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Butler side: repositories, dataset types, formatters and campaigns."""

__all__ = [
    "DATASET_TYPES",
    "SPLITS",
    "SourceModel",
    "VaeModelData",
    "campaignCounts",
    "campaignMeta",
    "campaignRun",
    "ingestModelPackages",
    "listCampaigns",
    "openRepository",
    "pretrainedRun",
    "provideModelPackage",
    "registerCampaign",
    "registerSurvey",
    "selectWhere",
    "skymapName",
    "toScarletModelData",
]

from importlib import import_module

_HOMES = {
    "DATASET_TYPES": "repository",
    "SPLITS": "campaign",
    "SourceModel": "modelData",
    "VaeModelData": "modelData",
    "campaignCounts": "campaign",
    "campaignMeta": "campaign",
    "campaignRun": "campaign",
    "ingestModelPackages": "repository",
    "listCampaigns": "campaign",
    "openRepository": "repository",
    "pretrainedRun": "repository",
    "provideModelPackage": "repository",
    "registerCampaign": "campaign",
    "registerSurvey": "campaign",
    "selectWhere": "campaign",
    "skymapName": "campaign",
    "toScarletModelData": "scarletModelData",
}


def __getattr__(name: str):
    # Butler takes seconds to import: only who asks for it pays.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
