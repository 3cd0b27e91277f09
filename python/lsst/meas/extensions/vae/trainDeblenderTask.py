# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""TrainDeblenderTask: learn to see the central galaxy of a blend."""

__all__ = ["DeblenderTrainingConfig", "TrainDeblenderConfig", "TrainDeblenderTask"]

from typing import Literal

import lsst.pipe.base as pipeBase
from lsst.pipe.base import connectionTypes as cT
from lsst.utils.timer import timeMethod

from .config import Config, Field, toPexConfig
from .config.settings import makeSettings
from .network.settings import TrainingSettings
from .trainPriorTask import TrainingConfig, loadSplits, runTraining
from .vaeTask import VaeTask, connection


class DeblenderTrainingConfig(TrainingConfig):
    """How a deblender is trained."""

    distilEpochs: int = Field(
        0,
        ge=0,
        description="First epochs in which the encoder learns the prior encoder's latents of the targets "
        "without their neighbours, which takes no decoder, before it learns from images.",
    )


class TrainDeblenderConfig(Config):
    """Config of TrainDeblenderTask."""

    name: str = Field("", description="Name of the package; the prior's if empty.")
    encoderInit: Literal["prior", "random"] = Field(
        "prior", description="Where the encoder starts: at the prior's encoder, or at random."
    )
    useIsolated: bool = Field(
        False, description="Take targets from the isolated stamps too, under the blends' neighbours?"
    )
    freezeDecoder: bool = Field(
        True,
        description="Leave the prior's decoder as it is? The published code trains it with ten bands.",
    )
    training: DeblenderTrainingConfig = Field(
        default_factory=DeblenderTrainingConfig, description="How it is trained."
    )


class TrainDeblenderConnections(pipeBase.PipelineTaskConnections, dimensions=("skymap",)):
    """All shards of a campaign and a prior to one package."""

    blendStamps = connection(cT.Input, "vae_blendStamps", "Stamps of blends.", multiple=True, deferLoad=True)
    isolatedStamps = connection(
        cT.Input,
        "vae_isolatedStamps",
        "Stamps of isolated galaxies, more targets.",
        multiple=True,
        deferLoad=True,
    )
    priorPackage = connection(cT.Input, "vae_priorPackage", "Prior encoder and decoder.")
    trainedPackage = connection(cT.Output, "vae_trainedPackage", "Prior, decoder and deblender.")

    def __init__(self, *, config=None):
        super().__init__(config=config)
        if not config.useIsolated:
            del self.isolatedStamps


class TrainDeblenderTask(VaeTask):
    """Train the deblender: a new encoder before the prior's frozen decoder.

    It sees noisy blends and learns to give the noiseless image of the galaxy
    at the stamp's centre (Arcelin et al. 2020, section 3).
    """

    ConfigModel = TrainDeblenderConfig
    ConfigClass = toPexConfig(
        TrainDeblenderConfig,
        bases=(pipeBase.PipelineTaskConfig,),
        pipelineConnections=TrainDeblenderConnections,
    )
    _DefaultName = "trainDeblender"
    canMultiprocess = False

    def runQuantum(self, butlerQC, inputRefs, outputRefs):
        train, validation = loadSplits(butlerQC.get(inputRefs.blendStamps))
        if self.settings.useIsolated:
            train += loadSplits(butlerQC.get(inputRefs.isolatedStamps), validate=False)[0]
        butlerQC.put(self.run(train, validation, butlerQC.get(inputRefs.priorPackage)), outputRefs)

    @timeMethod
    def run(self, train, validation, priorPackage):
        """Train the deblender.

        Parameters
        ----------
        train : `list` [`~.simulation.shards.StampSample`]
            Training samples, at least one blended.
        validation : `~.simulation.shards.StampSample`
            Blended validation sample.
        priorPackage : `~.network.package.ModelPackage`
            What TrainPriorTask gave.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``trainedPackage``, a `~.network.package.ModelPackage` with all
            three parts; its decoder is the prior's, bit for bit, unless the
            config says otherwise.

        Raises
        ------
        TrainingError
            Raised if samples and prior do not fit, the loss is not finite or
            the posterior collapses.
        """
        card = priorPackage.card
        settings = makeSettings(
            TrainingSettings,
            self.settings.training,
            encoder_init=self.settings.encoderInit,
            freeze_decoder=self.settings.freezeDecoder,
            architecture=card["architecture"]["name"],
            latent_dim=card["latent_dim"],
        )
        package = runTraining(self, "deblender", train, validation, settings, prior=priorPackage)
        if self.settings.name:
            package.card["name"] = self.settings.name
        return pipeBase.Struct(trainedPackage=package)
