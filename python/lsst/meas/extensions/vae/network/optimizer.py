# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adam with its learning rate over time and an average of the weights."""

import contextlib

import keras
from keras import ops

__all__ = ["AveragingAdam", "make_optimizer"]


class AveragingAdam(keras.optimizers.Adam):
    """Adam that keeps an exponential moving average of the weights.

    Keras's own ``use_ema`` starts at the weights of the first step and
    remembers them for 1 / (1 - decay) steps; here the decay rises with the
    number of steps, t / (10 + t) after t of them, so that the average is
    always one of about the last tenth of the training, until ``decay`` is
    reached.  All of it lies in `variables`, so a training resumes it.

    Parameters
    ----------
    learning_rate : `float` or `keras.optimizers.schedules.LearningRateSchedule`
        Learning rate.
    decay : `float`, optional
        What the average keeps of itself at each step; 0 for no average.
    **kwargs
        As `keras.optimizers.Adam` takes them.
    """

    def __init__(self, learning_rate, decay=0.0, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.decay = decay

    def build(self, var_list):
        if self.built:
            return
        super().build(var_list)
        self._averages = self.add_optimizer_variables(var_list, "weight_average") if self.decay else []

    def apply(self, grads, trainable_variables=None):
        super().apply(grads, trainable_variables)
        if not self.decay:
            return
        before = ops.cast(self.iterations, "float32") - 1.0
        keep = ops.minimum(self.decay, before / (10.0 + before))
        for variable, average in zip(self._trainable_variables, self._averages, strict=True):
            average.assign(keep * average + (1.0 - keep) * variable)

    @property
    def averages(self):
        """Pairs of a trained variable and its average; none without ``decay``."""
        return list(zip(self._trainable_variables, self._averages, strict=True)) if self.decay else []

    @contextlib.contextmanager
    def averaged(self):
        """Put the averages in the place of the weights for a while."""
        # Copies: a compiled step may reuse the memory of the variables themselves.
        kept = [(variable, _copy(variable)) for variable, _ in self.averages]
        self.settle()
        try:
            yield
        finally:
            for variable, value in kept:
                variable.assign(value)

    def settle(self):
        """Put the averages in the place of the weights for good."""
        for variable, average in self.averages:
            variable.assign(_copy(average))


def _copy(variable):
    return variable.numpy().copy()


def make_optimizer(settings, epochs=None):
    """Make the optimizer of a training.

    Parameters
    ----------
    settings : `~.settings.TrainingSettings`
        Its learning rate, schedule, warm-up, gradient clip and average.
    epochs : `int`, optional
        Epochs that the schedule spans; those of the settings by default.

    Returns
    -------
    optimizer : `AveragingAdam`
    """
    total = (settings.epochs if epochs is None else epochs) * settings.steps_per_epoch
    warmup = min(settings.warmup_steps, total // 2)
    rate = settings.learning_rate
    if settings.schedule == "cosine" and total > warmup:
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else rate,
            total - warmup,
            alpha=0.0,
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
    return AveragingAdam(rate, settings.ema, global_clipnorm=settings.gradient_clip or None)
