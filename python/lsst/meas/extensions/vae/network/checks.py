# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do samples, survey, settings and packages of a training fit together?"""

import numpy as np

from ..errors import TrainingError
from .settings import STAGES

__all__ = ["check_training"]


def check_training(
    stage, samples, validation, survey, settings, prior=None, start=None, normalisation_sample=None
):
    """Check what a training gets, as `~.training.train` takes it.

    Raises
    ------
    TrainingError
        Raised if something does not fit; its message says what to do.
    """
    if stage not in STAGES:
        raise TrainingError(f"unknown stage {stage!r}; the stages are {', '.join(STAGES)}")
    if stage == "deblender" and prior is None:
        raise TrainingError(
            "the deblender stage needs a prior: run the prior stage first and give its package"
        )
    _check_samples(stage, samples, validation, survey, settings)
    if normalisation_sample is not None:
        _check_fit(normalisation_sample, survey, samples[0])
    if stage == "deblender" and start is not None and settings.freeze_decoder:
        _check_decoders(prior, start)
    for package in (prior, start):
        if package is not None:
            other_bands = package is start and stage == "prior"
            _check_package(package, survey, samples[0].profiles.shape[-1], other_bands)
    if settings.distil_epochs:
        _check_distillation(stage, prior)


def _check_decoders(prior, start):
    # A decoder that was trained on from the start's still understands its encoder.
    if prior.card["training"].get("prior", {}).get("started_from", {}).get("sha256") == start.sha256:
        return
    ours, theirs = prior.part("decoder"), start.part("decoder")
    if set(ours) != set(theirs) or not all(np.array_equal(ours[name], theirs[name]) for name in ours):
        raise TrainingError(
            f"the decoders of the prior {prior.name!r} and of {start.name!r}, whose weights the training "
            "would start from, differ: give the prior that it was trained with, or one that was trained on "
            "from it"
        )


def _check_samples(stage, samples, validation, survey, settings):
    n_scenes = sum(sample.n_scenes for sample in samples)
    if n_scenes < settings.batch_size:
        raise TrainingError(
            f"the samples have {n_scenes} scenes, fewer than one batch of "
            f"{settings.batch_size}: simulate more or lower batchSize"
        )
    for sample in (*samples, validation):
        if sample.split == "test":
            raise TrainingError(
                "the test split may not be trained or validated on: take 'train' and 'validation'"
            )
        _check_fit(sample, survey, samples[0])
    if stage == "deblender" and not any(sample.kind == "blended" for sample in samples):
        raise TrainingError("the deblender stage needs a blended sample: simulate one with kind='blended'")


def _check_fit(sample, survey, first):
    if sample.survey != survey.name or tuple(sample.bands) != survey.band_names:
        raise TrainingError(
            f"a sample of {sample.survey} {''.join(sample.bands)} among samples of "
            f"{survey.name} {''.join(survey.band_names)}: train on one survey"
        )
    if sample.profiles.shape[1:] != first.profiles.shape[1:]:
        raise TrainingError(
            f"profiles of {sample.profiles.shape[1:]} [kind, y, x] among profiles of "
            f"{first.profiles.shape[1:]}: train on one size"
        )


def _check_package(package, survey, size, other_bands=False):
    card = package.card
    bands = list(card["bands"])
    for what, found, expected in (
        ("survey", survey.name, card["survey"]),
        ("bands", bands if other_bands else list(survey.band_names), bands),
        ("stamp size", size, card["stamp_size"]),
    ):
        if found != expected:
            raise TrainingError(
                f"the sample's {what} is {found!r}, the package {package.name!r} has {expected!r}: "
                "train the prior and the deblender on samples of one survey"
            )


def _check_distillation(stage, prior):
    if stage != "deblender":
        raise TrainingError(
            f"distilEpochs is for the deblender stage: the {stage} stage has no teacher; set it to 0"
        )
    if "prior_encoder" not in prior.parts:
        raise TrainingError(
            f"package {prior.name!r} has no prior_encoder, which is the teacher of distilEpochs: give the "
            "package of the prior stage, or set distilEpochs to 0"
        )
