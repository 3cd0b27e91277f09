# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is trained: an encoder before a decoder, or an encoder after its teacher."""

import keras
from keras import ops

from .layers import LatentSample

__all__ = ["DistillationModel", "VariationalModel", "encoder_inputs", "gaussian_divergence"]


def encoder_inputs(inputs):
    """What an encoder takes, from what a batch has.

    Parameters
    ----------
    inputs : tensor, ``[n, band, y, x]``, or `dict`
        Scaled images; for conditional architectures ``image`` and
        ``conditions``.

    Returns
    -------
    inputs : tensor, ``[n, y, x, band]``, or `list` of tensors
    """
    # Batches come with bands first; transposing is cheapest here.
    if isinstance(inputs, dict):
        return [ops.transpose(inputs["image"], (0, 2, 3, 1)), inputs["conditions"]]
    return ops.transpose(inputs, (0, 2, 3, 1))


def gaussian_divergence(mean, sigma):
    """Kullback-Leibler divergence of a diagonal Gaussian from the unit one.

    Parameters
    ----------
    mean, sigma : tensor, ``[n, latent]``
        The Gaussian.

    Returns
    -------
    divergence : tensor, ``[n]``
        In nats.
    """
    variance = ops.maximum(ops.square(sigma), 1e-12)
    return 0.5 * ops.sum(ops.square(mean) + variance - 1.0 - ops.log(variance), axis=1)


class VariationalModel(keras.Model):
    """Encoder, latent draw and decoder, with the loss of an architecture.

    Parameters
    ----------
    architecture : `~.architecture.Architecture`
        Its loss.
    encoder, decoder : `keras.Model`
        Its networks.
    settings : `~.settings.TrainingSettings`
        Seed of the draws and weight of the divergence.
    """

    def __init__(self, architecture, encoder, decoder, settings):
        super().__init__(name="variational_model")
        self.architecture = architecture
        self.encoder, self.decoder = encoder, decoder
        self.sample = LatentSample(seed=settings.seed)
        self.kl_weight = keras.Variable(
            settings.kl_weight, trainable=False, dtype="float32", name="kl_weight"
        )
        self.reconstruction_tracker = keras.metrics.Mean(name="reconstruction")
        self.kl_tracker = keras.metrics.Mean(name="kl")

    def call(self, inputs, training=False):
        mean, sigma = self.encoder(encoder_inputs(inputs), training=training)
        return {
            "mean": mean,
            "sigma": sigma,
            "output": self.decoder(self.sample(mean, sigma), training=training),
        }

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        kl = gaussian_divergence(y_pred["mean"], y_pred["sigma"])
        # For conditional architectures it comes with how it was observed.
        observed = dict(y) if isinstance(y, dict) else {"target": y}
        target = ops.transpose(observed.pop("target"), (0, 2, 3, 1))
        reconstruction = self.architecture.reconstruction_loss(target, y_pred["output"], **observed)
        self.reconstruction_tracker.update_state(reconstruction)
        self.kl_tracker.update_state(kl)
        return ops.mean(reconstruction + self.kl_weight * kl)


class DistillationModel(keras.Model):
    """An encoder that sees blends learns what its teacher says of their targets alone.

    The teacher is the prior's encoder.  It is shown the isolated target with
    the noise that the encoder sees: not the noiseless one, because it has
    never seen such an image and misreads it (decoded, its residuals are 2 to
    12 times those of noisy ones, in the shipped models), and not one with
    noise of its own, which the encoder could not foresee and would answer by
    falling back on the average galaxy.

    The loss is the distance from the teacher's means and sigmas, summed over
    latents.  The divergence of the two posteriors would be no guide: the
    teacher's sigmas are so small, and in some galaxies so much smaller than in
    others, that a few scenes outweigh all else; nor would a squared distance,
    for the few galaxies whose latents lie far out.

    Parameters
    ----------
    encoder, teacher : `keras.Model`
        The encoder that learns and the one that knows.
    """

    smoothing = 0.01
    """Distance below which the loss of a latent is quadratic: a typical sigma."""

    def __init__(self, encoder, teacher):
        super().__init__(name="distillation_model")
        teacher.trainable = False
        self.encoder, self.teacher = encoder, teacher
        self.kl_tracker = keras.metrics.Mean(name="kl")
        self.distillation_tracker = keras.metrics.Mean(name="distillation")

    def call(self, inputs, training=False):
        mean, sigma = self.encoder(encoder_inputs(inputs), training=training)
        return {"mean": mean, "sigma": sigma}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        known = [ops.stop_gradient(tensor) for tensor in self.teacher(encoder_inputs(y), training=False)]
        squared = ops.square(y_pred["mean"] - known[0]) + ops.square(y_pred["sigma"] - known[1])
        distance = ops.sum(ops.sqrt(squared + self.smoothing**2) - self.smoothing, axis=1)
        self.distillation_tracker.update_state(distance)
        self.kl_tracker.update_state(gaussian_divergence(y_pred["mean"], y_pred["sigma"]))
        return ops.mean(distance)
