# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""TrainPriorTask: learn what isolated galaxies look like."""

__all__ = ["TrainPriorConfig", "TrainPriorTask", "TrainingConfig", "runTraining"]

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Literal

import lsst.pipe.base as pipeBase
from lsst.pipe.base import connectionTypes as cT
from lsst.utils.timer import timeMethod

from .config import Config, Field, toPexConfig
from .config.settings import makeSettings
from .errors import TrainingError
from .network.settings import LATER, TrainingSettings
from .repo.campaign import SPLITS
from .vaeTask import VaeTask, connection


class TrainingConfig(Config):
    """How a network is trained; an epoch is a number of steps."""

    batchSize: int = Field(128, ge=1, le=65_536, description="Scenes a step.")
    stepsPerEpoch: int = Field(100, ge=1, description="Steps an epoch.")
    epochs: int = Field(50, ge=1, description="Epochs in all.")
    learningRate: float = Field(1e-3, gt=0, le=1, description="Peak learning rate of Adam.")
    schedule: Literal["cosine", "constant", "plateau"] = Field(
        "cosine",
        description="Learning rate: to zero over all epochs, constant, or a third upon each plateau.",
    )
    warmupSteps: int = Field(100, ge=0, description="Steps over which the learning rate rises.")
    klWeight: float = Field(1e-2, ge=0, description="Weight of the Kullback-Leibler term.")
    klWarmupEpochs: int = Field(0, ge=0, description="Epochs over which that weight rises.")
    gradientClip: float = Field(0.0, ge=0, description="Largest norm of the whole gradient; 0 for no limit.")
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay a step of the average of the weights that is validated and packed, such as 0.999; "
        "0 for the weights themselves.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Arithmetic of the convolutions; auto is float32 for the paper's network only."
    )
    recompose: bool = Field(True, description="Exchange neighbours between scenes?")
    augment: Literal["eight", "four", "none"] = Field(
        "eight",
        description="Flips and rotations of scenes: all eight, the four of the published code, or none.",
    )
    noise: Literal["normal", "poisson", "sky"] = Field(
        "normal",
        description="Noise drawn for every batch: normal deviates of the Poisson variance, which is fast, "
        "Poisson counts, or normal deviates of the sky alone (the published code's later commits).",
    )
    noiseCorrelation: float = Field(
        0.0, ge=0, le=0.6, description="Correlation of the noise of adjacent pixels; not with 'poisson'."
    )
    depthMin: float = Field(
        1.0,
        ge=0.001,
        le=1000,
        description="Least exposure time of scenes in units of the survey's, for architecture 'conditional'.",
    )
    depthMax: float = Field(1.0, ge=0.001, le=1000, description="Largest exposure time of scenes, likewise.")
    bandDropout: float = Field(
        0.0, ge=0, le=0.9, description="Probability that a band is missing, for architecture 'conditional'."
    )
    patience: int = Field(
        0,
        ge=0,
        description="Stop after so many epochs without progress and take the best epoch's weights; 0 for "
        "never, and the last epoch's.",
    )
    validationScenes: int = Field(512, ge=1, description="Scenes of the validation set.")
    validationEvery: int = Field(5, ge=1, description="Epochs between measurements of shapes and magnitudes.")
    maxSeconds: float = Field(0.0, ge=0, description="Stop after so long [s], saving all; 0 for no limit.")
    collapseEpochs: int = Field(5, ge=1, description="From this epoch on, look for posterior collapse.")
    startFrom: str | None = Field(
        None,
        description="Model package (shipped name or *.vae.zip) whose weights the stage starts from: to train "
        "it further, on other scenes, or (the prior, where the architecture allows it) for other bands.",
    )
    seed: int = Field(0, ge=0, description="Seed of weights, batches and latent draws.")
    workers: int = Field(1, ge=1, le=64, description="Threads that compose batches.")
    windowMegabytes: int = Field(
        512,
        ge=1,
        description="Profiles of the samples that are held in memory at a time, twice [MB]; all training "
        "samples pass through it.",
    )
    directory: str = Field(
        "runs",
        description="Folder of checkpoints, histories and TensorBoard logs; a training resumes from it.",
    )


class TrainPriorConfig(Config):
    """Config of TrainPriorTask."""

    name: str = Field("", description="Name of the package; survey and architecture if empty.")
    architecture: Literal["arcelin2020", "conditional", "factorised", "morphology"] = Field(
        "factorised",
        description="Network: the project's own ('factorised': each band has its own shape; 'morphology': "
        "bands of one PSF differ by flux alone; 'conditional': PSFs, depths and bands vary), or that of "
        "Arcelin et al. 2020 exactly.",
    )
    likelihood: Literal["default", "gaussian"] = Field(
        "default",
        description="Loss of the reconstruction: the architecture's own, or, of 'morphology', the likelihood "
        "of the pixels with their known noise.",
    )
    latentDim: int = Field(32, ge=2, le=1024, description="Dimension of the latent space.")
    normalisationSplit: Literal["train", "test"] = Field(
        "train",
        description="Sample whose mean peak pixels M_b normalise the images of architecture 'arcelin2020'; "
        "the published code takes the test sample, which leaks.",
    )
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="How it is trained.")


class TrainPriorConnections(pipeBase.PipelineTaskConnections, dimensions=("skymap",)):
    """All shards of a campaign to one package."""

    isolatedStamps = connection(
        cT.Input, "vae_isolatedStamps", "Stamps of isolated galaxies.", multiple=True, deferLoad=True
    )
    priorPackage = connection(cT.Output, "vae_priorPackage", "Prior encoder and decoder.")


class TrainPriorTask(VaeTask):
    """Train the prior: a variational autoencoder of isolated galaxies.

    The encoder sees a noisy image, the decoder learns the noiseless one
    (Arcelin et al. 2020, section 3).
    """

    ConfigModel = TrainPriorConfig
    ConfigClass = toPexConfig(
        TrainPriorConfig, bases=(pipeBase.PipelineTaskConfig,), pipelineConnections=TrainPriorConnections
    )
    _DefaultName = "trainPrior"
    canMultiprocess = False

    def runQuantum(self, butlerQC, inputRefs, outputRefs):
        handles = butlerQC.get(inputRefs.isolatedStamps)
        train, validation = loadSplits(handles)
        normalisation = None
        if self.settings.normalisationSplit == "test":
            normalisation = firstShard(handles, "test")
        butlerQC.put(self.run(train, validation, normalisation), outputRefs)

    @timeMethod
    def run(self, train, validation, normalisation=None):
        """Train the prior.

        Parameters
        ----------
        train : `list` [`~.simulation.shards.StampSample`]
            Training samples.
        validation : `~.simulation.shards.StampSample`
            Validation sample.
        normalisation : `~.simulation.shards.StampSample`, optional
            Sample whose mean peak pixels normalise; the training sample by
            default.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``priorPackage``, a `~.network.package.ModelPackage`.

        Raises
        ------
        TrainingError
            Raised if the samples do not fit, the loss is not finite or the
            posterior collapses.
        """
        settings = makeSettings(
            TrainingSettings,
            self.settings.training,
            architecture=self.settings.architecture,
            likelihood=self.settings.likelihood,
            latent_dim=self.settings.latentDim,
        )
        package = runTraining(self, "prior", train, validation, settings, normalisation=normalisation)
        if self.settings.name:
            package.card["name"] = self.settings.name
        return pipeBase.Struct(priorPackage=package)


def loadSplits(handles, validate=True):
    """Load shards of the training and validation splits.

    Parameters
    ----------
    handles : sequence of `lsst.daf.butler.DeferredDatasetHandle`
        Shards of any split; those of the test split are left alone.
    validate : `bool`, optional
        Is a validation shard wanted too?

    Returns
    -------
    train : `list` [`~.simulation.shards.StampSample`]
        Training shards, in order; their profiles stay in the files until
        they are wanted.
    validation : `~.simulation.shards.StampSample` or `None`
        The first validation shard: the settings' ``validationScenes`` are
        taken from its start.

    Raises
    ------
    TrainingError
        Raised if a split is absent.
    """
    validation = firstShard(handles, "validation") if validate else None
    train = _ofSplit(handles, "train")
    return [handle.get(parameters={"lazy": True}) for handle in train], validation


def firstShard(handles, split):
    """Load the first shard of a split.

    Raises
    ------
    TrainingError
        Raised if there is none.
    """
    return _ofSplit(handles, split)[0].get()


def _ofSplit(handles, split):
    chosen = [handle for handle in handles if handle.dataId["tract"] == SPLITS[split]]
    if not chosen:
        raise TrainingError(
            f"no {split} shard among the inputs: simulate some (n{split.capitalize()} of "
            "simulateBlends) and let the data query include their tract"
        )
    return sorted(chosen, key=lambda handle: handle.dataId["patch"])


def runTraining(task, stage, train, validation, settings, prior=None, normalisation=None):
    """Train a stage in a folder of its own, resuming what was begun there.

    The folder's name follows from everything that rules the outcome, so two
    different trainings never meet.

    Parameters
    ----------
    task : `lsst.pipe.base.Task`
        For its log and metadata.
    stage, train, validation, settings, prior
        As `~.network.training.train`.
    normalisation : `~.simulation.shards.StampSample`, optional
        As its ``normalisation_sample``.

    Returns
    -------
    package : `~.network.package.ModelPackage`
        The trained package.
    """
    from .network.backend import load_keras
    from .survey import get_survey

    load_keras()
    from .network.shipped import load_package
    from .network.training import train as trainNetwork

    start = load_package(task.settings.training.startFrom) if task.settings.training.startFrom else None

    survey = get_survey(validation.survey, validation.bands)
    free = ("epochs", "workers", "max_seconds", "patience", "validation_every")
    # Trainings that began before some settings existed are found in their old folders.
    asked = {k: v for k, v in dataclasses.asdict(settings).items() if LATER.get(k, ...) != v}
    rules = {
        "stage": stage,
        "samples": [sample.describe() for sample in (*train, validation)],
        "prior": prior.sha256 if prior else None,
        "normalisation": normalisation.describe() if normalisation else None,
        "settings": {k: v for k, v in asked.items() if k not in free},
    }
    if start:
        rules["start"] = start.sha256
    digest = hashlib.sha256(json.dumps(rules, sort_keys=True, default=str).encode()).hexdigest()[:12]
    directory = Path(task.settings.training.directory) / f"{survey.name}-{stage}-{digest}"
    task.log.info("Checkpoints and logs go to %s", directory)
    task.metadata["directory"] = str(directory)
    package = trainNetwork(
        stage,
        train,
        validation,
        survey,
        settings,
        directory,
        prior=prior,
        normalisation_sample=normalisation,
        start=start,
    )
    stageCard = package.card["training"][stage]
    task.metadata["samplesSeen"] = stageCard["samples_seen"]
    task.metadata["stopped"] = stageCard["stopped"]
    return package
