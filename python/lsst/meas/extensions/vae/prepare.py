# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What commands do to a repository before their quantum graph is built."""

__all__ = ["prepareCampaign", "prepareModel"]

from pathlib import Path

from .repo.campaign import registerCampaign


def prepareCampaign(butler, config, args):
    """Register the campaign of a command before its graph is built."""
    meta = {
        "survey": config.survey,
        "bands": list(config.bands),
        "seed": config.seed,
        "galaxies": config.galaxies.name,
    }
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

    A shipped package is in the repository already; a file is copied into RUN
    ``pretrained_models/<file name>`` once.
    """
    if config.useTrainedModel:
        return
    from .network.shipped import load_package
    from .repo.repository import pretrainedRun

    run = pretrainedRun(Path(config.modelPackage).name.removesuffix(".vae.zip"))
    if any(name.startswith("pretrained_models/") for name in args.input or ()):
        return
    if not butler.collections.query(run):
        butler.put(load_package(config.modelPackage), "vae_modelPackage", run=run)
    if args.input:
        args.input = [*args.input, run]
