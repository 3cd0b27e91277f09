# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What commands do to a repository before their quantum graph is built."""

__all__ = ["prepareCampaign", "prepareModel"]

import logging

from .errors import RepositoryError
from .repo.campaign import registerCampaign

_LOG = logging.getLogger("lsst.meas.extensions.vae.cli")


def prepareCampaign(butler, config, args):
    """Register the campaign of a command before its graph is built.

    The galaxies are loaded first, so that a missing catalogue leaves nothing
    behind, and so that what ``auto`` stands for is kept and never mixed.
    """
    from .simulateBlendsTask import _loadGalaxies  # the task finds them loaded

    asked = config.galaxies
    galaxies = _loadGalaxies(asked.name, asked.path, asked.n, asked.seed)
    meta = {
        "survey": config.surveyName(),
        "bands": list(config.bands),
        "seed": config.seed,
        "galaxies": galaxies.source,
        "galaxiesSha256": galaxies.sha256,
    }
    if galaxies.source == "synthetic":
        meta |= {"galaxiesN": asked.n, "galaxiesSeed": asked.seed}
    run = registerCampaign(
        butler, config.campaign, config.nTrain, config.nValidation, config.nTest, config.nFields, meta
    )
    if not args.input:
        args.input = [run]
    if not args.output:
        args.output = f"{config.campaign}-{config.kind}"
    if not args.dataQuery and not args.id:
        tracts = "tract = 3" if config.kind == "field" else "tract < 3"
        args.dataQuery = f"skymap = 'vae_{config.campaign}' AND {tracts}"


def prepareModel(butler, config, args):
    """Put the config's pretrained package among a command's inputs.

    A shipped package is in the repository already; a file is copied into it
    once. A package given by ``-i pretrained_models/<name>`` takes the place of
    the config's default; one of both that the user named must not contradict
    the other.
    """
    if config.useTrainedModel:
        return
    from .repo.execution import collectionMembers, userCollection
    from .repo.repository import provideModelPackage

    # The default is the first entry of the history.
    chosen = len(config.history["modelPackage"]) > 1
    named = [name for name in args.input or () if name.startswith("pretrained_models/")]
    earlier = () if args.input or not args.output else collectionMembers(butler, userCollection(args.output))
    if not chosen and (named or _findPackage(butler, earlier)):
        return
    run = provideModelPackage(butler, config.modelPackage)
    found = _findPackage(butler, named or earlier)
    if found is not None:
        wanted = butler.get("vae_modelPackage", collections=run)
        if butler.get(found).sha256 == wanted.sha256:
            return
    if named and found is None:
        return  # planning tells that there is no such collection
    if named:
        raise RepositoryError(
            f"-i {named[0]} and config.modelPackage {config.modelPackage!r} are different model packages: "
            f"give the one or the other (the latter is in {run})"
        )
    _LOG.info("Model package: %s", run)
    if args.input or earlier:
        # In front: a chain among the inputs may hold another package.
        args.input = [run, *(args.input or ())]


def _findPackage(butler, collections):
    """Find the first pretrained package in collections that exist, or None."""
    present = set(butler.collections.query("*", include_chains=True))
    known = [name for name in collections if name in present]
    return butler.find_dataset("vae_modelPackage", collections=known) if known else None
