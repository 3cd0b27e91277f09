# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Train the prior and the deblender, resumably.

`train` runs one stage: ``"prior"`` learns isolated galaxies (encoder and
decoder); ``"deblender"`` puts a new encoder before the prior's decoder, which
is frozen unless told otherwise (Arcelin et al. 2020, section 3).  An *epoch* is a number of steps, not a pass
through the sample: scenes are composed afresh for every batch.
"""

import contextlib
import json
import logging
import subprocess
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
from keras import ops

from ..errors import TrainingError
from ..version import __version__
from .architecture import make_architecture
from .checkpoint import Checkpoint, check_same_training
from .checks import check_training
from .composer import SceneComposer, mean_peak
from .devices import all_devices, has_gpu
from .model import get_weights, set_weights
from .observation import CONDITIONS_PER_BAND, ObservationSettings, conditions
from .optimizer import make_optimizer
from .package import ModelPackage, short_weights
from .transfer import start_from
from .validation import ValidationSet
from .variational import DistillationModel, VariationalModel

__all__ = ["train"]

_log = logging.getLogger(__name__)


def _batches(composer, scale, settings, epoch, teacher=None):
    """Batches in order, composed ahead of their use by threads.

    Batch number ``i`` is the same however the training came there, so a
    resumed one sees the data that it would have seen.  With a teacher's
    composer, of the same seed and without neighbours, targets are noisy: what
    is left of each scene, its noise too, without the neighbours.
    """
    ahead = 2 * settings.workers + 2
    number = epoch * settings.steps_per_epoch

    def compose(number):
        inputs, target = _told(composer.batch(number, settings.batch_size, scale))
        if teacher is not None:
            target = _told(teacher.batch(number, settings.batch_size, scale))[0]
        return inputs, target

    with ThreadPoolExecutor(settings.workers) as pool:
        waiting = deque()
        while True:
            while len(waiting) < ahead:
                waiting.append(pool.submit(compose, number))
                number += 1
            yield waiting.popleft().result()


def _told(batch):
    """What an encoder takes, and what its loss needs, of a composer's batch."""
    if len(batch) == 2:
        return batch
    noisy, clean, transfer, noise = batch
    inputs = {"image": noisy, "conditions": conditions(transfer, noise)}
    # Missing bands are to be guessed, as well as at the survey's depth.
    noise = np.where(np.isfinite(noise), noise, np.float32(1.0))
    return inputs, {"target": clean, "transfer": transfer, "noise": noise}


class _Loop(keras.callbacks.Callback):
    """What happens around epochs: KL warm-up, measurements, checkpoints, stops."""

    def __init__(self, trainer):
        super().__init__()
        self.trainer = trainer
        self.started = time.monotonic()
        self.reason, self.stopped = "all epochs done", False

    def on_epoch_begin(self, epoch, logs=None):
        settings = self.trainer.settings
        rise = min(1.0, (epoch + 1) / settings.kl_warmup_epochs) if settings.kl_warmup_epochs else 1.0
        self.trainer.model.kl_weight.assign(settings.kl_weight * rise)
        self.epoch_started = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        trainer, settings, state = self.trainer, self.trainer.settings, self.trainer.state
        row = {
            "epoch": epoch,
            "samples": (epoch + 1) * settings.steps_per_epoch * settings.batch_size,
            "seconds": round(time.monotonic() - self.epoch_started, 2),
            **{k: float(v) for k, v in logs.items()},
        }
        row["samples_per_second"] = round(settings.steps_per_epoch * settings.batch_size / row["seconds"], 1)
        if not np.isfinite(row["loss"]):
            raise TrainingError(
                f"the loss became {row['loss']} in epoch {epoch}: lower learningRate (now "
                f"{settings.learning_rate}) or set gradientClip; the last checkpoint is "
                f"{trainer.checkpoint.path}"
            )
        last = epoch + 1 >= settings.epochs
        over_time = settings.max_seconds and time.monotonic() - self.started > settings.max_seconds
        measure = last or over_time or (epoch + 1) % settings.validation_every == 0
        with trainer.optimizer.averaged():
            row |= trainer.validate(shapes=bool(measure))
            if row["validation_loss"] < state["best_loss"]:
                state["best_loss"], state["best_epoch"] = row["validation_loss"], epoch
                if settings.patience:
                    trainer.best = trainer.weights()
        state["history"].append(row)
        state["seconds"] += row["seconds"]
        state["epoch"] = epoch + 1
        if epoch + 1 >= settings.collapse_epochs and row["active_latents"] < 2:
            self._save()
            raise TrainingError(
                f"posterior collapse: {row['active_latents']} of {settings.latent_dim} latents are active "
                f"after epoch {epoch}; lower klWeight (now {settings.kl_weight}) or raise klWarmupEpochs"
            )
        # What the teacher cannot teach is no lack of progress.
        stale = epoch - max(state["best_epoch"], settings.distil_epochs - 1)
        if settings.schedule == "plateau" and stale > 0 and stale % 3 == 0:
            rate = trainer.optimizer.learning_rate
            rate.assign(ops.convert_to_numpy(rate) / 3.0)
        if state["epoch"] == trainer.distilled:
            trainer.end_distillation()
        self._save()
        trainer.report(row)
        if settings.patience and stale >= settings.patience:
            self._stop(f"no progress for {stale} epochs")
        elif over_time and not last:
            self._stop(f"time limit of {settings.max_seconds:g} s")

    def _save(self):
        trainer = self.trainer
        trainer.checkpoint.save(trainer.model, trainer.optimizer, trainer.state, trainer.best)

    def _stop(self, reason):
        self.reason, self.stopped = reason, True
        self.model.stop_training = True


class _Trainer:
    """One stage of training; see `train`."""

    def __init__(
        self,
        stage,
        samples,
        validation,
        survey,
        settings,
        directory,
        prior,
        on_epoch,
        normalisation_sample,
        start,
    ):
        self.stage, self.settings, self.survey, self.prior = stage, settings, survey, prior
        self.start = start
        self.distilled = min(settings.distil_epochs, settings.epochs)
        self.best = None
        """Weights of the best epoch, as `weights` gives them, where ``patience`` asks for them."""
        self.samples, self.on_epoch = list(samples), on_epoch
        self.directory = Path(directory)
        self.checkpoint = Checkpoint(self.directory / f"{stage}.checkpoint.safetensors")
        size, n_bands = self.samples[0].profiles.shape[-1], len(survey.bands)
        isolated = stage == "prior"
        self.normalisation_sample = None
        origin = start if prior is None else prior
        if origin is None or tuple(origin.card["bands"]) != survey.band_names:
            options = {} if settings.likelihood == "default" else {"likelihood": settings.likelihood}
            name, latent_dim = settings.architecture, settings.latent_dim
            if origin is not None:
                name, latent_dim = origin.card["architecture"]["name"], origin.card["latent_dim"]
            self.architecture = make_architecture(name, n_bands, size, latent_dim, survey=survey, **options)
            self.normalisation = {"kind": self.architecture.normalisation}
            if self.architecture.normalisation == "fixed":
                self.normalisation_sample = normalisation_sample
                peaks = mean_peak(self.samples if normalisation_sample is None else [normalisation_sample])
                scale = peaks / self.architecture.beta
                self.normalisation["scale"] = [float(v) for v in scale]
        else:
            card = origin.card
            self.architecture = make_architecture(
                card["architecture"]["name"],
                n_bands,
                size,
                card["latent_dim"],
                **card["architecture"]["options"],
            )
            self.normalisation = dict(card["normalisation"])
        self.observations = self._observations()
        self.composer = self._make_composer(isolated)
        scale = self.architecture.scale(self.composer.noise, self.normalisation.get("scale"))
        self.scale = scale
        self.validation = ValidationSet(
            validation,
            survey,
            settings.validation_scenes,
            isolated=isolated,
            scale=scale,
            seed=settings.seed,
            kl_weight=settings.kl_weight,
            noise=settings.noise,
            noise_correlation=settings.noise_correlation,
            observer=self.observations.get("observer"),
        )
        measured = [self.normalisation_sample] if self.normalisation_sample is not None else []
        self.state = {
            "samples": _jsonable([s.describe() for s in (*self.samples, validation, *measured)]),
            "stage": stage,
            "start": start.sha256 if start is not None else None,
            "settings": asdict(settings),
            "epoch": 0,
            "seconds": 0.0,
            "history": [],
            "best_loss": float("inf"),
            "best_epoch": -1,
        }

    def _make_composer(self, isolated):
        settings = self.settings
        return SceneComposer(
            self.samples,
            self.survey,
            recompose=settings.recompose and not isolated,
            augment=settings.augment,
            isolated=isolated,
            noise=settings.noise,
            noise_correlation=settings.noise_correlation,
            window_bytes=settings.window_megabytes * 2**20,
            seed=settings.seed,
            **self.observations,
        )

    def _observations(self):
        """How much observations differ, if the architecture is told of them."""
        settings, survey = self.settings, self.survey
        observed = ObservationSettings(settings.depth_min, settings.depth_max, settings.band_dropout)
        if self.architecture.conditional:
            if not all((sample.psf[..., 0] > 0).all() for sample in self.samples):
                raise TrainingError(
                    f"architecture {self.architecture.name!r} is told the PSF of each scene, and a sample "
                    "does not tell it: simulate it again"
                )
            observer = self.architecture.observer(survey.profile_kinds, survey.band_profile)
            return {"observed": observed, "observer": observer}
        if observed != ObservationSettings():
            raise TrainingError(
                "depth_min, depth_max and band_dropout are for architectures that are told of them, "
                f"{self.architecture.name!r} is not: take 'conditional', or leave them at 1, 1 and 0"
            )
        return {}

    @contextlib.contextmanager
    def _arithmetic(self):
        """Within it, networks are built in the settings' precision."""
        precision = self.settings.precision
        if precision == "auto":
            precision = "float32" if self.architecture.name == "arcelin2020" else "bfloat16"
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
        try:
            yield
        finally:
            keras.config.set_dtype_policy(policy)

    def build(self):
        settings = self.settings
        keras.utils.set_random_seed(settings.seed)
        with self._arithmetic():
            encoder, decoder = self.architecture.build_encoder(), self.architecture.build_decoder()
            if self.stage == "deblender":
                set_weights(decoder, self.prior.part("decoder"), f"prior {self.prior.name}")
                decoder.trainable = not settings.freeze_decoder
                if self.start is not None:
                    start_from(encoder, self.start, "deblender_encoder", self.survey.band_names)
                elif settings.encoder_init == "prior":
                    set_weights(encoder, self.prior.part("prior_encoder"), f"prior {self.prior.name}")
            elif self.start is not None:
                start_from(encoder, self.start, "prior_encoder", self.survey.band_names)
                start_from(decoder, self.start, "decoder", self.survey.band_names)
            self.model = VariationalModel(self.architecture, encoder, decoder, settings)
        self._compile(self.model, settings.epochs - self.distilled)

    def _build_distillation(self):
        """The same encoder, with the prior's encoder as the teacher and an optimizer of its own.

        Gradients of the two losses differ by a factor of thousands; the
        moments of the one would make the first hundred steps of the other
        several times too large.
        """
        with self._arithmetic():
            teacher = self.architecture.build_encoder("teacher")
            set_weights(teacher, self.prior.part("prior_encoder"), f"prior {self.prior.name}")
            model = DistillationModel(self.model.encoder, teacher)
        self._compile(model, self.distilled)
        return model

    def end_distillation(self):
        """Go on from the averages of the encoder's weights, with the optimizer of the full loss."""
        self.optimizer.settle()
        self.optimizer = self.model.optimizer

    def _compile(self, model, epochs):
        # XLA compiles convolutions for GPUs better, and for CPUs worse, than
        # TensorFlow's own kernels do.
        jit = "auto" if keras.backend.backend() != "tensorflow" else has_gpu()
        self.optimizer = make_optimizer(self.settings, epochs)
        model.compile(optimizer=self.optimizer, jit_compile=jit)
        size, n_bands = self.architecture.stamp_size, self.architecture.n_bands
        example = np.zeros((1, n_bands, size, size), np.float32)
        if self.architecture.conditional:
            told = np.zeros((1, n_bands * CONDITIONS_PER_BAND), np.float32)
            example = {"image": example, "conditions": told}
        model(example)
        self.optimizer.build(model.trainable_variables)

    def weights(self):
        """Weights of both networks: encoder's and decoder's, by name."""
        return {"encoder": get_weights(self.model.encoder), "decoder": get_weights(self.model.decoder)}

    def validate(self, shapes):
        return self.validation.measure(self.architecture, self.model, shapes=shapes)

    def report(self, row):
        """Append a row to the history file and tell whoever listens."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self.directory / f"{self.stage}.history.jsonl", "a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        parts = [
            f"epoch {row['epoch'] + 1}/{self.settings.epochs}",
            f"loss {row['loss']:.4g}",
            f"validation {row['validation_loss']:.4g}",
            f"KL {row['kl']:.3g}",
            f"{row['active_latents']} active latents",
            f"{row['samples_per_second']:.0f} samples/s",
        ]
        if "alpha_1" in row:
            parts.append(
                f"|e| half-width {row['e_half_width']:.3f}, alpha {row['alpha_1']:+.3f} "
                f"{row['alpha_2']:+.3f}, r mag {row['mag_median']:+.3f} +- {row['mag_half_width']:.3f}"
            )
        _log.info("%s: %s", self.stage, ", ".join(parts))
        if self.on_epoch is not None:
            self.on_epoch(row)

    def run(self):
        self.build()
        resumes = self.checkpoint.exists()
        if resumes:
            state = self.checkpoint.read_state()
            check_same_training(state, self.state, self.checkpoint.path)
            self.state = state
        distils = self.state["epoch"] < self.distilled
        model = self._build_distillation() if distils else self.model
        if resumes:
            self.best = self.checkpoint.restore(self.model, self.optimizer)
            _log.info("%s: resumes after epoch %d of %d", self.stage, state["epoch"], self.settings.epochs)
        loop = _Loop(self)
        if distils:
            self._fit(model, self.distilled, loop, teacher=self._make_composer(isolated=True))
        if self.state["epoch"] < self.settings.epochs and not loop.stopped:
            self._fit(self.model, self.settings.epochs, loop)
        _log.info("%s: stopped after epoch %d: %s", self.stage, self.state["epoch"], loop.reason)
        with self.optimizer.averaged():
            return self.package(loop.reason)

    def _fit(self, model, epochs, loop, teacher=None):
        callbacks = [loop]
        board = _tensorboard(self.directory / "tensorboard" / self.stage)
        if board is not None:
            callbacks.append(board)
        batches = _batches(self.composer, self.scale, self.settings, self.state["epoch"], teacher)
        try:
            model.fit(
                batches,
                steps_per_epoch=self.settings.steps_per_epoch,
                epochs=epochs,
                initial_epoch=self.state["epoch"],
                verbose=int(sys.stdout.isatty()),  # a bar for each epoch on a terminal
                shuffle=False,
                callbacks=callbacks,
            )
        finally:
            # TensorFlow may still be inside it, and then closes it itself.
            with contextlib.suppress(ValueError):
                batches.close()

    def _take_best(self):
        """Put the best epoch's weights, if ``patience`` asks for them, in the place of the last's.

        Returns
        -------
        epoch : `int`
            The epoch that the weights are of.
        validation : `dict`
            Its errors of shapes and magnitudes.
        """
        rows = {row["epoch"]: row for row in self.state["history"]}
        last, best = self.state["epoch"] - 1, self.state["best_epoch"]
        if not self.settings.patience or best == last:
            return last, next((row for row in reversed(self.state["history"]) if "alpha_1" in row), {})
        if self.best is None:
            _log.warning(
                "%s: packs the last epoch's weights; those of the best one, %d, were trained without "
                "patience and not kept",
                self.stage,
                best + 1,
            )
            return last, self.validate(shapes=True)
        set_weights(self.model.encoder, self.best["encoder"], "best encoder")
        set_weights(self.model.decoder, self.best["decoder"], "best decoder")
        row = rows.get(best, {})
        return best, row if "alpha_1" in row else {**row, **self.validate(shapes=True)}

    def package(self, reason="not said"):
        """Pack the present weights with a card that tells how they came."""
        epoch, validation = self._take_best()
        stage_card = {
            "settings": asdict(self.settings),
            "epochs": self.state["epoch"],
            "packed_epoch": epoch,
            "samples_seen": self.state["epoch"] * self.settings.steps_per_epoch * self.settings.batch_size,
            "seconds": round(self.state["seconds"], 1),
            "stopped": reason,
            "samples": [s.describe() for s in self.samples],
            "versions": {
                "meas_extensions_vae": __version__,
                "keras": keras.__version__,
                "backend": keras.backend.backend(),
                "git": _git_version(),
            },
            "validation": validation,
        }
        if self.start is not None:
            earlier = self.start.card["training"].get(self.stage, {})
            stage_card["started_from"] = {
                "name": self.start.name,
                "sha256": self.start.sha256,
                "samples_seen": earlier.get("samples_seen", 0)
                + earlier.get("started_from", {}).get("samples_seen", 0),
            }
        if self.normalisation_sample is not None:
            stage_card["normalisation_sample"] = self.normalisation_sample.describe()
        encoder, decoder = map(short_weights, self.weights().values())
        if self.stage == "deblender":
            card = json.loads(json.dumps(self.prior.card))
            card["training"]["deblender"] = stage_card
            parts = {"decoder": decoder, "deblender_encoder": encoder}
            # A decoder that was trained on no longer understands the prior's encoder.
            if self.settings.freeze_decoder:
                parts = {**self.prior.parts, **parts}
            return ModelPackage(card, parts)
        survey = self.survey
        card = {
            "name": f"{survey.name}-{self.architecture.name}",
            "architecture": {"name": self.architecture.name, "options": _jsonable(self.architecture.options)},
            "survey": survey.name,
            "bands": list(survey.band_names),
            "image_unit": survey.image_unit,
            "pixel_scale": [band.pixel_scale for band in survey.bands],
            "psf": [{"kind": b.psf.kind, "fwhm": b.psf.fwhm, "beta": b.psf.beta} for b in survey.bands],
            "noise": [float(v) for v in self.composer.noise],
            "stamp_size": self.architecture.stamp_size,
            "latent_dim": self.architecture.latent_dim,
            "latent_prior": self.validation.latent_prior(self.model.encoder),
            "centring": str(self.samples[0].settings.get("centring", "none")),
            "normalisation": self.normalisation,
            "training": {"prior": stage_card},
        }
        if self.architecture.conditional:
            fwhm = np.concatenate([sample.psf[:, survey.band_profile, 0] for sample in self.samples])
            # The outermost ones were seen too seldom.
            card["psf_fwhm_range"] = np.percentile(fwhm, [1, 99], axis=0).T.round(4).tolist()
        return ModelPackage(card, {"prior_encoder": encoder, "decoder": decoder})


def train(
    stage,
    samples,
    validation,
    survey,
    settings,
    directory,
    *,
    prior=None,
    on_epoch=None,
    normalisation_sample=None,
    start=None,
):
    """Train one stage, resuming from the checkpoint in ``directory`` if any.

    Parameters
    ----------
    stage : {"prior", "deblender"}
        Which network to train.
    samples : sequence of `~..simulation.shards.StampSample`
        Training samples, in memory or opened.  The prior stage leaves the neighbours out, so
        blended samples serve for it too; the deblender stage puts the
        neighbours of the blended ones around the targets of all.
    validation : `~..simulation.shards.StampSample`
        Validation sample.
    survey : `~..survey.Survey`
        Survey of all, with their bands.
    settings : `~.settings.TrainingSettings`
        Settings.
    directory : path-like
        Where checkpoint, history and TensorBoard logs are written.
    prior : `ModelPackage`, optional
        Result of the prior stage, for the deblender stage.
    on_epoch : callable, optional
        Called with each row of the history, a `dict`.
    normalisation_sample : `~..simulation.shards.StampSample`, optional
        Sample whose mean peaks M_b normalise the images, for architectures
        that have a fixed scale (Arcelin et al. 2020, section 2.3); the
        training samples by default.  It may be of the test split, which the
        published code takes; nothing else of it is used.
    start : `ModelPackage`, optional
        Package whose weights the stage starts from, to train it further or on
        other scenes. The prior stage takes its architecture and normalisation
        too; the deblender stage its ``deblender_encoder``.

    Returns
    -------
    package : `ModelPackage`
        The prior stage's has a prior encoder and a decoder; the deblender
        stage's all three parts, or, with ``freeze_decoder`` off, its own
        encoder and decoder.

    Raises
    ------
    TrainingError
        Raised if the samples do not fit, the loss is not finite, the
        posterior collapses, or the checkpoint is of another training.
    """
    samples = list(samples)
    check_training(stage, samples, validation, survey, settings, prior, start, normalisation_sample)
    trainer = _Trainer(
        stage, samples, validation, survey, settings, directory, prior, on_epoch, normalisation_sample, start
    )
    with all_devices(settings.batch_size):
        return trainer.run()


def _git_version():
    """Commit of the clone that this code runs from; empty elsewhere."""
    folder = Path(__file__).resolve().parent
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def _tensorboard(directory):
    """TensorBoard's callback, where it can be had."""
    if keras.backend.backend() != "tensorflow":
        return None
    return keras.callbacks.TensorBoard(log_dir=str(directory), write_graph=False, update_freq="epoch")


def _jsonable(options):
    return json.loads(json.dumps(options))
