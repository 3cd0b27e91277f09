# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of a training, apart from the code that needs Keras."""

from dataclasses import dataclass

from ..errors import TrainingError, VaeError
from ..simulation.noise import check_noise
from .observation import ObservationSettings

__all__ = ["LATER", "STAGES", "TrainingSettings"]

STAGES = ("prior", "deblender")

LATER = {"ema": 0.0, "distil_epochs": 0, "likelihood": "default"}
LATER |= {"depth_min": 1.0, "depth_max": 1.0, "band_dropout": 0.0}
"""Settings that trainings of earlier versions lacked, at the values with which
they behave as those did: such trainings can still be resumed."""


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one stage of training.

    Parameters
    ----------
    architecture : `str`
        Name of the architecture (the deblender stage takes its prior's).
    likelihood : {"default", "gaussian"}
        Loss of the reconstruction: the architecture's own, or the likelihood
        of the pixels, which 'morphology' offers (the deblender stage takes
        its prior's).
    latent_dim : `int`
        Dimension of the latent space.
    batch_size, steps_per_epoch, epochs : `int`
        Scenes a step, steps an epoch, epochs in all.
    learning_rate : `float`
        Peak learning rate of Adam.
    schedule : {"cosine", "constant", "plateau"}
        Cosine decay to zero over all epochs, none, or a third after three
        epochs without progress on the validation loss.
    warmup_steps : `int`
        Steps over which the learning rate rises from zero.
    kl_weight : `float`
        Weight of the Kullback-Leibler term.
    kl_warmup_epochs : `int`
        Epochs over which that weight rises from zero.
    gradient_clip : `float`
        Largest norm of the whole gradient; 0 for no limit.  No number suits
        all: losses are sums over pixels, and the norm falls from some 1e5 to
        4e3 as 'morphology' learns, where 2e4 cuts outliers and evens the
        first epochs.
    ema : `float`
        Decay a step of the exponential moving average of the weights, which
        is what is validated and packed; 0 for the weights themselves.  See
        `~.optimizer.AveragingAdam`.
    distil_epochs : `int`
        Deblender stage only: first epochs in which the encoder learns the
        prior encoder's posteriors of the targets without their neighbours,
        before it learns from images; see `~.variational.DistillationModel`.
    precision : {"auto", "float32", "bfloat16"}
        Arithmetic of the convolutions; "auto" is bfloat16 for architectures
        that tolerate it (not the paper's, which is kept as published).
    encoder_init : {"prior", "random"}
        Where the deblender's encoder starts.
    freeze_decoder : `bool`
        Leave the prior's decoder as it is while the deblender is trained?
        The paper does; the published code trains it with ten bands.
    recompose : `bool`
        Exchange neighbours between scenes?
    augment : {"eight", "four", "none"}
        Flips and rotations of scenes: all, those of the published code, or
        none; see `~.composer.AUGMENTATIONS`.
    noise : {"normal", "poisson", "sky"}
        Noise of scenes; see `~..simulation.noise.NOISE_KINDS`.
    noise_correlation : `float`
        Correlation of the noise of adjacent pixels, 0 to 0.6.
    depth_min, depth_max, band_dropout : `float`
        How much depths of scenes differ, in units of the survey's exposure
        time, and how often a band is missing, for architectures that are told
        of it; see `~.observation.ObservationSettings`.
    window_megabytes : `int`
        Profiles [MiB] that are read at a time from opened shards; twice that
        is in memory.
    patience : `int`
        Stop after so many epochs without progress on the validation loss,
        and pack the best epoch's weights; 0 for never, and the last epoch's.
    validation_scenes : `int`
        Scenes of the fixed validation set.
    validation_every : `int`
        Epochs between measurements of ellipticity and magnitude errors.
    max_seconds : `float`
        Stop after so long, saving everything; 0 for no limit.
    collapse_epochs : `int`
        From this epoch on, fewer than two active latents are a collapse.
    seed : `int`
        Seed of initial weights, of batches and of latent draws.
    workers : `int`
        Threads that compose batches.
    """

    architecture: str = "factorised"
    likelihood: str = "default"
    latent_dim: int = 32
    batch_size: int = 128
    steps_per_epoch: int = 100
    epochs: int = 50
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup_steps: int = 100
    kl_weight: float = 1e-2
    kl_warmup_epochs: int = 0
    gradient_clip: float = 0.0
    ema: float = 0.0
    distil_epochs: int = 0
    precision: str = "auto"
    encoder_init: str = "prior"
    freeze_decoder: bool = True
    recompose: bool = True
    augment: str = "eight"
    noise: str = "normal"
    noise_correlation: float = 0.0
    depth_min: float = 1.0
    depth_max: float = 1.0
    band_dropout: float = 0.0
    window_megabytes: int = 512
    patience: int = 0
    validation_scenes: int = 512
    validation_every: int = 5
    max_seconds: float = 0.0
    collapse_epochs: int = 5
    seed: int = 0
    workers: int = 1

    def __post_init__(self):
        choices = {
            "schedule": ("cosine", "constant", "plateau"),
            "precision": ("auto", "float32", "bfloat16"),
            "encoder_init": ("prior", "random"),
            "likelihood": ("default", "gaussian"),
            "augment": ("eight", "four", "none"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise TrainingError(
                    f"{name} is {getattr(self, name)!r}: expected one of {', '.join(allowed)}"
                )
        least = dict.fromkeys(
            (
                "batch_size",
                "steps_per_epoch",
                "epochs",
                "latent_dim",
                "validation_scenes",
                "validation_every",
            ),
            1,
        )
        least |= {"workers": 1, "collapse_epochs": 1, "seed": 0, "warmup_steps": 0, "kl_warmup_epochs": 0}
        least |= {"window_megabytes": 1, "distil_epochs": 0}
        least |= {"kl_weight": 0, "gradient_clip": 0, "patience": 0, "max_seconds": 0}
        for name, value in least.items():
            if not getattr(self, name) >= value:
                raise TrainingError(f"{name} is {getattr(self, name)!r}: expected at least {value}")
        if self.distil_epochs and not self.freeze_decoder:
            raise TrainingError(
                f"distil_epochs is {self.distil_epochs!r} without freeze_decoder: the prior encoder's "
                "latents are those of the prior's decoder, so freeze it or set distil_epochs to 0"
            )
        if not 0 <= self.ema < 1:
            raise TrainingError(f"ema is {self.ema!r}: expected at least 0 and below 1, such as 0.999")
        if not 0 < self.learning_rate <= 1:
            raise TrainingError(f"learning_rate is {self.learning_rate!r}: expected above 0 and at most 1")
        ObservationSettings(self.depth_min, self.depth_max, self.band_dropout)
        try:
            check_noise(self.noise, self.noise_correlation)
        except VaeError as error:
            raise TrainingError(f"noise or noise_correlation: {error}") from None
