# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make and open the Butler repositories that hold our data."""

__all__ = [
    "DATASET_TYPES",
    "SHARD",
    "ingestModelPackages",
    "openRepository",
    "pretrainedRun",
    "provideModelPackage",
]

import filecmp
import logging
import os
import re
from pathlib import Path

from ..errors import RepositoryError, VaeError
from ..paths import getPackageDir

_LOG = logging.getLogger("lsst.meas.extensions.vae.repo")

SEED = "resource://lsst.meas.extensions.vae/configs/butler-seed.yaml"
"""The Butler configuration with our storage classes and formatters."""

SHARD = ("skymap", "tract", "patch")
"""Dimensions of what belongs to one shard or one field of a campaign."""

DATASET_TYPES = {
    "vae_campaign": (("skymap",), "StructuredDataDict"),
    "vae_isolatedStamps": (SHARD, "VaeStampSample"),
    "vae_blendStamps": (SHARD, "VaeStampSample"),
    "vae_isolatedScenes": (SHARD, "VaeComposedSample"),
    "vae_blendScenes": (SHARD, "VaeComposedSample"),
    "vae_field": (SHARD, "VaeMultibandExposure"),
    "vae_fieldTruth": (SHARD, "ArrowAstropy"),
    "vae_mergedDetections": (SHARD, "VaeSourceCatalog"),
    "vae_priorPackage": (("skymap",), "VaeModelPackage"),
    "vae_trainedPackage": (("skymap",), "VaeModelPackage"),
    "vae_modelPackage": ((), "VaeModelPackage"),
    "vae_deblendedCatalog": (SHARD, "VaeSourceCatalog"),
    "vae_objectParents": (SHARD, "VaeSourceCatalog"),
    "vae_modelData": (SHARD, "VaeModelData"),
    "vae_shapes": (SHARD, "ArrowAstropy"),
    "vae_stampErrors": (("skymap",), "ArrowAstropy"),
    "vae_stampSummary": (("skymap",), "ArrowAstropy"),
}
"""Dimensions and storage class of each dataset type, by name."""

_SURVEYS = ("arcelin2020", "hscwide", "lsst10yr")
_PACKAGE_SUFFIX = ".vae.zip"


def openRepository(root, *, writeable: bool = True, create: bool = True, campaign: str | None = None):
    """Open a data repository, made on first use.

    Parameters
    ----------
    root : `str` or `os.PathLike`
        Folder of the repository, its ``butler.yaml``, a URI, or an alias of
        ``$DAF_BUTLER_REPOSITORY_INDEX``.
    writeable : `bool`, optional
        Whether to write; if so, what ours lacks is registered.
    create : `bool`, optional
        Whether to make a SQLite repository where there is none.
    campaign : `str`, optional
        A registered campaign whose skymap becomes the default data ID.

    Returns
    -------
    butler : `lsst.daf.butler.Butler`
        The open repository.

    Raises
    ------
    RepositoryError
        If the folder holds something else, or a repository that does not know
        our storage classes, or none and ``create`` is False, or the campaign
        is not there.
    """
    from lsst.daf.butler import Butler, ButlerConfig

    root = os.fspath(root)
    if "://" not in root and root not in Butler.get_known_repos():
        _makeIfAbsent(Path(root), create and writeable)
    try:
        config = ButlerConfig(root)
    except Exception as error:
        raise RepositoryError(
            f"{root}: its Butler configuration cannot be read ({_line(error)}); "
            "give the folder of a repository"
        ) from error
    missing = [name for name in _ourStorageClasses() if f".storageClasses.{name}" not in config]
    if missing:
        raise RepositoryError(
            f"{root} is a Butler repository without our storage classes ({', '.join(missing)}): "
            f"add the two lines 'includeConfigs:' and '  - {SEED}' to {_yamlPath(root)}, "
            "or give a new folder"
        )
    try:
        butler = Butler.from_config(config, writeable=writeable)
    except Exception as error:
        raise RepositoryError(
            f"{root}: the repository cannot be opened ({_line(error)}); check that its database "
            "is there and is of a version that this Butler reads"
        ) from error
    if writeable:
        _register(butler)
    if campaign is not None:
        from .campaign import listCampaigns, skymapName

        skymap = skymapName(campaign)
        known = listCampaigns(butler)
        if campaign not in known:
            raise RepositoryError(
                f"{root} has no campaign {campaign!r}; it has {', '.join(known) or 'none'}: simulate it first"
            )
        butler = butler.clone(dataId={"skymap": skymap})
    return butler


def pretrainedRun(name: str) -> str:
    """Return the RUN collection of a pretrained model package."""
    return f"pretrained_models/{name}"


def provideModelPackage(butler, nameOrPath, package=None) -> str:
    """See that a repository holds a model package; return where.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        A writeable repository.
    nameOrPath : `str` or `os.PathLike`
        Name of a shipped package, or path of a ``*.vae.zip``.
    package : `~lsst.meas.extensions.vae.network.package.ModelPackage`, optional
        The package, if it is loaded already.

    Returns
    -------
    run : `str`
        RUN ``pretrained_models/<name>``, which now holds that very package; if
        it holds another one, RUN ``pretrained_models/<name>-<8 digits of the
        sha256>``.

    Raises
    ------
    ModelPackageError
        If there is no such package, or it is damaged; nothing is written then.
    """
    if package is None:
        from ..network.shipped import load_package

        package = load_package(nameOrPath)
    name = Path(os.fspath(nameOrPath).removeprefix("file://")).name.removesuffix(_PACKAGE_SUFFIX)
    # What a path may hold, a collection may not.
    name = re.sub(r"[^A-Za-z0-9_.+-]", "_", name)
    sha = package.sha256
    for run in (pretrainedRun(name), pretrainedRun(f"{name}-{sha[:8]}")):
        butler.collections.register(run)
        ref = butler.find_dataset("vae_modelPackage", collections=run)
        if ref is None:
            butler.put(package, "vae_modelPackage", run=run)
            return run
        if butler.get(ref).sha256 == sha:
            return run
        _LOG.info("%s holds another model package than %s", run, nameOrPath)
    raise RepositoryError(f"{run} holds another model package than {nameOrPath}: give that file another name")


def ingestModelPackages(butler, folder=None) -> list[str]:
    """Copy model packages into a repository, each into its own RUN.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        A writeable repository.
    folder : `str` or `os.PathLike`, optional
        Where files ``<name>.vae.zip`` lie; our package's own if not given.

    Returns
    -------
    runs : `list` [`str`]
        The RUNs ``pretrained_models/<name>`` that now hold a package, sorted;
        a package that was there already stays as it is.

    Raises
    ------
    ModelPackageError
        If a file of ``folder`` is not a sound model package.
    """
    from lsst.daf.butler import CollectionType, DataCoordinate, DatasetRef, FileDataset

    from ..network.package import ModelPackage

    shipped = folder is None
    folder = getPackageDir() / "models" if shipped else Path(folder)
    runs = []
    for path in sorted(folder.glob(f"*{_PACKAGE_SUFFIX}")):
        run = pretrainedRun(path.name.removesuffix(_PACKAGE_SUFFIX))
        butler.collections.register(run, CollectionType.RUN)
        ref = butler.find_dataset("vae_modelPackage", collections=run)
        if ref is None:
            try:
                ModelPackage.load(path)
            except VaeError as error:
                if not shipped:
                    raise
                # A damaged file of ours must not lock users out of their data.
                _LOG.warning("%s", error)
                continue
            nothing = DataCoordinate.make_empty(butler.dimensions)
            ref = DatasetRef(butler.get_dataset_type("vae_modelPackage"), nothing, run=run)
            butler.ingest(FileDataset(path=str(path), refs=[ref]), transfer="copy")
        elif _differs(butler, ref, path):
            # Results may hang on the old one: it is the user's to remove.
            _LOG.warning(
                "%s holds another package than %s, and keeps it; to take the new one, run: "
                "butler remove-runs REPO %s",
                run,
                path.name,
                run,
            )
        runs.append(run)
    return runs


def _makeIfAbsent(root: Path, create: bool) -> None:
    """Make a repository in a folder that is absent or empty."""
    from lsst.daf.butler import Butler, Config

    if root.is_file() or (root / "butler.yaml").is_file():
        return
    if root.is_dir() and any(root.iterdir()):
        shown = ", ".join(sorted(path.name for path in root.iterdir())[:3])
        raise RepositoryError(
            f"{root} is neither empty nor a Butler repository (it holds {shown}, ...): "
            "give a new folder or a repository"
        )
    if not create:
        raise RepositoryError(f"{root} is not a Butler repository: simulate into it first, or check the name")
    config = Config()
    # By reference, so that storage classes of later versions are known too.
    config["includeConfigs"] = [SEED]
    try:
        Butler.makeRepo(str(root), config=config)
    except OSError as error:
        raise RepositoryError(f"{root}: no repository can be made there ({_line(error)})") from error
    _LOG.info("Made a data repository in %s", root)


def _register(butler) -> None:
    """Register what a repository lacks of ours, and ship it our models."""
    from lsst.daf.butler import DatasetType
    from lsst.daf.butler.registry import ConflictingDefinitionError

    known = {datasetType.name for datasetType in butler.registry.queryDatasetTypes("vae_*")}
    if not known.issuperset(DATASET_TYPES):
        from ..survey import get_survey
        from .campaign import registerSurvey

        for name, (dimensions, storageClass) in DATASET_TYPES.items():
            try:
                butler.registry.registerDatasetType(
                    DatasetType(name, dimensions, storageClass, universe=butler.dimensions)
                )
            except ConflictingDefinitionError as error:
                raise RepositoryError(
                    f"dataset type {name} of the repository is defined otherwise ({_line(error)}): "
                    "it was made by another version; give a new folder"
                ) from error
        for survey in _SURVEYS:
            registerSurvey(butler, get_survey(survey))
    ingestModelPackages(butler)


def _differs(butler, ref, path: Path) -> bool:
    """Tell whether a repository's local file differs from one of ours."""
    uri = butler.getURI(ref)
    return uri.isLocal and os.path.exists(uri.ospath) and not filecmp.cmp(uri.ospath, path, shallow=False)


def _ourStorageClasses() -> list[str]:
    """Return the names of the storage classes that only our seed defines."""
    return sorted({storage for _, storage in DATASET_TYPES.values() if storage.startswith("Vae")})


def _yamlPath(root: str) -> str:
    return root if root.endswith((".yaml", ".json")) else os.path.join(root, "butler.yaml")


def _line(error: BaseException) -> str:
    """Return an error's message as one line of bearable length."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + "..."
