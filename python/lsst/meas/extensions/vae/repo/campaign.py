# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulation campaigns as Butler dimensions.

A campaign is a skymap record ``vae_<name>``; its tracts are the splits and
its patches the shards, so that an ordinary quantum graph spreads the work and
``-d "skymap='vae_demo' AND tract=0"`` selects it.
"""

__all__ = [
    "MAX_SHARDS",
    "SPLITS",
    "campaignCounts",
    "campaignMeta",
    "campaignRun",
    "listCampaigns",
    "registerCampaign",
    "registerSurvey",
    "selectWhere",
    "skymapName",
]

import hashlib
import re
from collections.abc import Iterable, Mapping

from ..errors import RepositoryError

SPLITS = {"train": 0, "validation": 1, "test": 2, "fields": 3}
"""Tract of each split; ``fields`` are whole images, drawn from test galaxies."""

MAX_SHARDS = 65536
"""Shards that a split may have. Written once into the skymap record, so large."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,50}\Z")


def skymapName(campaign: str) -> str:
    """Return the skymap of a campaign, ``vae_<name>``.

    Raises
    ------
    RepositoryError
        If the name could not stand in a collection and in a query.
    """
    if not isinstance(campaign, str) or not _NAME.match(campaign):
        raise RepositoryError(
            f"campaign name {campaign!r}: expected 1 to 51 letters, digits, '_', '.', '+' or '-', "
            "the first a letter or a digit"
        )
    return f"vae_{campaign}"


def campaignRun(campaign: str) -> str:
    """Return the RUN collection that holds what defines a campaign."""
    skymapName(campaign)
    return f"sim/{campaign}"


def listCampaigns(butler) -> list[str]:
    """Return the names of a repository's campaigns, sorted."""
    records = butler.query_dimension_records("skymap", explain=False)
    return sorted(r.name.removeprefix("vae_") for r in records if r.name.startswith("vae_"))


def campaignCounts(butler, campaign: str) -> dict[str, int]:
    """Return how many shards each split of a campaign has.

    Returns
    -------
    counts : `dict` [`str`, `int`]
        By the names in `SPLITS`; all 0 if there is no such campaign.
    """
    patches = butler.query_dimension_records(
        "patch", where="skymap = name", bind={"name": skymapName(campaign)}, limit=None, explain=False
    )
    tracts = [record.tract for record in patches]
    return {split: tracts.count(tract) for split, tract in SPLITS.items()}


def campaignMeta(butler, campaign: str) -> dict | None:
    """Return what was kept of a campaign at its start, None if it is not there."""
    ref = _findMeta(butler, campaign)
    return None if ref is None else butler.get(ref)


def registerCampaign(
    butler, name: str, nTrain: int, nValidation: int, nTest: int, nFields: int, meta: Mapping
) -> str:
    """Write a campaign's records, or add shards to one that exists.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        A writeable repository.
    name : `str`
        Name of the campaign.
    nTrain, nValidation, nTest, nFields : `int`
        Shards that each split shall have at least; shards that exist stay.
    meta : mapping
        What defines the campaign (survey, galaxies, seed, scenes a shard, ...),
        plain YAML-able values. Kept as dataset ``vae_campaign``; what is kept
        already binds once the campaign has other datasets, and what it lacks
        is filled in.

    Returns
    -------
    run : `str`
        RUN collection ``sim/<name>``: the input collection for its simulation.

    Raises
    ------
    RepositoryError
        If a count is out of range, or the campaign exists with another
        definition.
    """
    from lsst.daf.butler import CollectionType
    from lsst.daf.butler.registry import ConflictingDefinitionError

    skymap, run = skymapName(name), campaignRun(name)
    wanted = dict(zip(SPLITS, (nTrain, nValidation, nTest, nFields), strict=True))
    for split, count in wanted.items():
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_SHARDS:
            raise RepositoryError(
                f"{count!r} {split} shards of campaign {name}: expected an integer from 0 to {MAX_SHARDS}; "
                "put more scenes into each shard instead"
            )
    if not sum(wanted.values()):
        raise RepositoryError(f"campaign {name} has no shards: ask for at least one of any split")
    meta = _plain(meta)
    refuse = f"campaign {name} exists with other {{}}: choose another campaign name, or take the same values"
    old = campaignMeta(butler, name)
    if old is not None:
        changed = [key for key in meta if key in old and old[key] != meta[key]]
        if changed and _hasData(butler, skymap):
            shown = ", ".join(f"{key} ({old[key]!r}, not {meta[key]!r})" for key in changed)
            raise RepositoryError(refuse.format(shown))
    record = {
        "skymap": skymap,
        "hash": hashlib.sha1(skymap.encode()).digest(),
        "tract_max": len(SPLITS),
        "patch_nx_max": MAX_SHARDS,
        "patch_ny_max": 1,
    }
    try:
        butler.registry.syncDimensionData("skymap", record)
    except ConflictingDefinitionError as error:
        raise RepositoryError(refuse.format("skymap dimensions")) from error
    # Records may be absent for one shard alone after an interruption, so every
    # one is offered; those that exist are skipped by the database itself.
    tracts = [{"skymap": skymap, "tract": tract} for tract in SPLITS.values()]
    patches = [
        {"skymap": skymap, "tract": SPLITS[split], "patch": shard, "cell_x": shard, "cell_y": 0}
        for split, count in wanted.items()
        for shard in range(count)
    ]
    butler.registry.insertDimensionData("tract", *tracts, skip_existing=True)
    butler.registry.insertDimensionData("patch", *patches, skip_existing=True)
    butler.collections.register(run, CollectionType.RUN)
    kept = {**(old or {}), **meta}
    if kept != old:
        if old is not None:
            ref = _findMeta(butler, name)
            butler.pruneDatasets([ref], disassociate=True, unstore=True, purge=True)
        butler.put(kept, "vae_campaign", skymap=skymap, run=run)
    return run


def registerSurvey(butler, survey) -> None:
    """Write the rows of a survey's instruments, filters and bands.

    A band exists in Butler only through an instrument's filter; without it no
    dataset of that band can be stored.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        A writeable repository.
    survey : `lsst.meas.extensions.vae.survey.Survey`
        The survey. Rows that exist, ours or a real instrument's, stay as they
        are.
    """
    registry = butler.registry
    instruments = {r.name for r in butler.query_dimension_records("instrument", explain=False)}
    filters = {
        (r.instrument, r.name) for r in butler.query_dimension_records("physical_filter", explain=False)
    }
    for band in survey.bands:
        if band.instrument not in instruments:
            registry.insertDimensionData(
                "instrument",
                {
                    "instrument": band.instrument,
                    "visit_max": 1,
                    "exposure_max": 1,
                    "detector_max": 1,
                    "class_name": "lsst.pipe.base.Instrument",
                    "visit_system": 0,
                },
                skip_existing=True,
            )
            instruments.add(band.instrument)
        if (band.instrument, band.physical_filter) not in filters:
            row = {"instrument": band.instrument, "physical_filter": band.physical_filter, "band": band.name}
            registry.insertDimensionData("physical_filter", row, skip_existing=True)
            filters.add((band.instrument, band.physical_filter))


def selectWhere(
    campaign: str, split: str | int | Iterable[str | int] | None = None, shards: Iterable[int] | None = None
) -> str:
    """Return the data query that selects shards of a campaign.

    Parameters
    ----------
    campaign : `str`
        Name of the campaign.
    split : `str`, `int` or iterable of these, optional
        Names or tracts of `SPLITS`; all if not given.
    shards : iterable of `int`, optional
        Shard numbers; all if not given.

    Returns
    -------
    where : `str`
        Such as ``skymap='vae_demo' AND tract IN (0, 1) AND patch IN (0)``.
    """
    where = [f"skymap='{skymapName(campaign)}'"]
    if split is not None:
        tracts = []
        for one in [split] if isinstance(split, (str, int)) else split:
            tract = SPLITS.get(one, one)
            if tract not in SPLITS.values():
                raise RepositoryError(
                    f"split {one!r} of campaign {campaign}: expected one of {', '.join(SPLITS)}"
                )
            tracts.append(tract)
        where.append(
            f"tract IN ({', '.join(map(str, tracts))})" if len(tracts) != 1 else f"tract={tracts[0]}"
        )
    if shards is not None:
        where.append(f"patch IN ({', '.join(str(int(shard)) for shard in shards)})")
    return " AND ".join(where)


def _findMeta(butler, campaign: str):
    """Find the dataset that defines a campaign, or None."""
    from lsst.daf.butler import DataIdValueError, MissingCollectionError, MissingDatasetTypeError

    try:
        return butler.find_dataset(
            "vae_campaign", skymap=skymapName(campaign), collections=campaignRun(campaign)
        )
    except (DataIdValueError, MissingCollectionError, MissingDatasetTypeError):
        return None


def _hasData(butler, skymap: str) -> bool:
    """Tell whether a campaign has datasets besides the one that defines it."""
    from .repository import DATASET_TYPES

    return any(
        butler.query_datasets(
            name,
            collections="*",
            where="skymap = name",
            bind={"name": skymap},
            find_first=False,
            limit=1,
            explain=False,
        )
        for name, (dimensions, _) in DATASET_TYPES.items()
        if "skymap" in dimensions and name != "vae_campaign"
    )


def _plain(value):
    """Turn tuples, sets and NumPy scalars into what YAML keeps unchanged."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    return str(value)
