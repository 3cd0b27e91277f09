# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""A training as it is found: a run's folder, which may still grow, or the model package that came of one."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import ModelPackageError, TrainingError
from ..network.package import ModelPackage
from ..network.settings import STAGES
from ..survey import get_survey

__all__ = ["ENCODERS", "TrainingRun", "load_run"]

ENCODERS = {"prior": "prior_encoder", "deblender": "deblender_encoder"}
"""Part of a package that a stage trains."""

_NEEDED = ("epoch", "samples", "seconds", "loss", "validation_loss")


@dataclass
class TrainingRun:
    """One stage of training.

    Attributes
    ----------
    source : `str`
        Where it was found.
    stage : {"prior", "deblender"}
        Which network was trained.
    settings : `dict`
        Settings of the training, as `~..network.settings.TrainingSettings` names them.
    samples : `list` [`dict`]
        Descriptions of the samples, the training's first.
    history : `list` [`dict`]
        One row an epoch, in order; empty where none was found.
    samples_seen, epochs : `int`
        Scenes that went through the network, and epochs.
    seconds : `float`
        Time of the epochs, their validation left out [s].
    package : `ModelPackage`, optional
        The weights as they are now.
    missing : `str`
        Why there is no package.
    facts : `list` [(`str`, `str`)]
        What else is known: names and values.
    """

    source: str
    stage: str
    settings: dict
    samples: list = field(default_factory=list)
    history: list = field(default_factory=list)
    samples_seen: int = 0
    epochs: int = 0
    seconds: float = 0.0
    package: ModelPackage | None = None
    missing: str = ""
    facts: list = field(default_factory=list)

    def rate(self):
        """Samples a second: the median of the epochs after the first, which compiles; else the mean; NaN if
        nothing is known."""
        rates = [row["samples"] for row in self.history]
        rates = np.diff(rates) / [max(row["seconds"], 1e-9) for row in self.history[1:]] if rates else []
        if len(rates):
            return float(np.median(rates))
        return self.samples_seen / self.seconds if self.seconds > 0 else float("nan")


def load_run(path, stage=None, prior=None, sample=None, normalisation=None):
    """Read a run's folder or a model package.

    Parameters
    ----------
    path : path-like
        A folder with ``STAGE.checkpoint.safetensors`` or ``STAGE.history.jsonl``, or a ``*.vae.zip``.
    stage : {"prior", "deblender"}, optional
        Which, where there are both.
    prior : `ModelPackage`, optional
        What tells the architecture and the scale of a run: a deblender's prior, or the package that the
        training started from.
    sample : `~..simulation.shards.StampSample`, optional
        Tells the size of the stamps, and the survey where the checkpoint does not.
    normalisation : `~..simulation.shards.StampSample`, optional
        What a prior of fixed scale was normalised by.

    Returns
    -------
    run : `TrainingRun`
        Of a folder, that of the checkpoint, which a training may replace meanwhile.

    Raises
    ------
    TrainingError
        If there is no training, or it cannot be read.
    ModelPackageError
        If the package cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path, stage, prior, sample, normalisation)
    package = ModelPackage.load(path)
    cards = package.card.get("training") or {}
    stage = _one_stage([s for s in reversed(STAGES) if s in cards][:1] if not stage else cards, stage, path)
    card = cards[stage]
    run = TrainingRun(
        str(path),
        stage,
        dict(card.get("settings", {})),
        list(card.get("samples", [])),
        samples_seen=int(card.get("samples_seen", 0)),
        epochs=int(card.get("epochs", 0)),
        seconds=float(card.get("seconds", 0.0)),
        facts=[("stopped", str(card.get("stopped", "not said"))), *card.get("versions", {}).items()],
    )
    if start := card.get("started_from"):
        before = start.get("samples_seen", "an unknown number of")
        run.facts.append(("started from", f"{start.get('name')}, after {before} samples"))
    if ENCODERS[stage] in package.parts:
        run.package = package
    else:
        run.missing = f"the package has no {ENCODERS[stage].replace('_', ' ')}"
    beside = path.with_name(f"{stage}.history.jsonl")
    rows = _read_history(beside) if beside.is_file() else []
    measured = card.get("validation") or None
    # A history that lies beside it need not be its own.
    if measured in rows and rows[-1]["epoch"] + 1 == run.epochs:
        run.history = rows
    elif measured and not any(key not in measured for key in _NEEDED):
        run.history = [measured]
    return run


def _one_stage(found, wanted, path):
    if wanted is not None and wanted not in found:
        raise TrainingError(
            f"{path} has no training of the stage {wanted!r}; it has {', '.join(found) or 'none'}"
        )
    if not found:
        raise TrainingError(f"{path} tells of no training: give a run's folder or a model package")
    if wanted is None and len(found) > 1:
        raise TrainingError(f"{path} has the stages {', '.join(found)}: choose one by --stage")
    return wanted or found[0]


def _from_folder(path, stage, prior, sample, normalisation):
    found = [
        s
        for s in STAGES
        if any((path / f"{s}.{end}").is_file() for end in ("checkpoint.safetensors", "history.jsonl"))
    ]
    stage = _one_stage(found, stage, path)
    history, checkpoint = path / f"{stage}.history.jsonl", path / f"{stage}.checkpoint.safetensors"
    if not checkpoint.is_file():
        run = TrainingRun(str(path), stage, {}, missing=f"the folder has no {checkpoint.name}")
        run.history = _read_history(history)
    else:
        state, parts = _read_checkpoint(checkpoint, stage)
        run = TrainingRun(str(path), stage, state["settings"], state.get("samples", []))
        run.history = _checked(state["history"], checkpoint)
        if state.get("start"):
            run.facts.append(("started from", f"a package of sha256 {str(state['start'])[:12]}..."))
        try:
            run.package = _pack(run, parts, prior, sample, normalisation)
        except ModelPackageError as error:
            run.missing = str(error)
    if not run.history:
        raise TrainingError(f"{path}: no epoch is done yet; wait for the first")
    run.samples_seen, run.epochs = run.history[-1]["samples"], run.history[-1]["epoch"] + 1
    run.seconds = float(sum(row["seconds"] for row in run.history))
    return run


def _read_history(path):
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"history {path} cannot be read ({error})") from error
    rows = {}
    # What follows the last line's end is being written.
    for line in filter(str.strip, text.split("\n")[:-1]):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise TrainingError(f"history {path}: a line is not JSON ({error}): {line[:60]!r}") from error
        # A training that was begun again writes its epochs again.
        rows[row.get("epoch") if isinstance(row, dict) else None] = row
    return _checked([rows[k] for k in sorted(rows, key=lambda k: -1 if k is None else k)], path)


def _checked(rows, path):
    for row in rows:
        good = isinstance(row, dict) and all(isinstance(row.get(k), int | float) for k in _NEEDED)
        if not good:
            raise TrainingError(
                f"history {path} has a row {str(row)[:60]!r}: expected numbers named {', '.join(_NEEDED)}"
            )
    return rows


def _read_checkpoint(path, stage):
    """State and weights of one moment: the file is opened once."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            state = json.loads(file.metadata()["state"])
            parts = {name: {} for name in ("encoder", "decoder")}
            for key in file.keys():  # noqa: SIM118 - not a dict
                part, _, name = key.partition("/")
                if part in parts:
                    parts[part][name] = file.get_tensor(key)
        if not isinstance(state["settings"], dict) or not isinstance(state["history"], list):
            raise ValueError("its state has no settings and history")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"checkpoint {path} cannot be read ({error})") from error
    return state, {ENCODERS[stage]: parts["encoder"], "decoder": parts["decoder"]}


def _pack(run, parts, prior, sample, normalisation):
    """A package of a checkpoint's weights, with as much of a card as it takes to run it."""
    if prior is not None:
        return ModelPackage(dict(prior.card), parts)
    described = run.samples[0] if run.samples else None
    if described is None and sample is None:
        raise ModelPackageError(
            "the checkpoint does not tell its survey: give a shard, or the prior's package"
        )
    name, bands = (described["survey"], described["bands"]) if described else (sample.survey, sample.bands)
    survey = get_survey(name, tuple(bands))
    size = _stamp_size(parts, sample)
    from ..network.architecture import make_architecture
    from ..network.backend import load_keras

    load_keras()
    kind, latents = run.settings["architecture"], run.settings["latent_dim"]
    architecture = make_architecture(kind, len(survey.bands), size, latents, survey=survey)
    scale = {"kind": architecture.normalisation}
    if architecture.normalisation == "fixed":
        if normalisation is None:
            raise ModelPackageError(
                f"the checkpoint does not tell the scale of the images of {kind!r}: give the prior's package "
                "(--prior), or the shard that normalises them (--normalisation-sample)"
            )
        from ..network.composer import mean_peak

        scale["scale"] = [float(v) for v in mean_peak([normalisation]) / architecture.beta]
    card = {
        "name": f"{survey.name}-{kind}",
        "architecture": {"name": kind, "options": json.loads(json.dumps(architecture.options))},
        "survey": survey.name,
        "bands": list(survey.band_names),
        "pixel_scale": [band.pixel_scale for band in survey.bands],
        "psf": [{"kind": b.psf.kind, "fwhm": b.psf.fwhm} for b in survey.bands],
        "stamp_size": size,
        "latent_dim": latents,
        "normalisation": scale,
    }
    return ModelPackage(card, parts)


def _stamp_size(parts, sample):
    """Side of the stamps: what the weights have of it, or a sample's."""
    # Both of the project's own decoders end in a learned image.
    learned = parts["decoder"].get("centre/bias")
    if learned is None:
        # The paper's: slopes of each pixel.
        learned = parts["decoder"].get("deconv0_1_prelu/alpha")
    if learned is not None and learned.ndim == 3:
        return int(learned.shape[0])
    if sample is None:
        raise ModelPackageError("the checkpoint does not tell the size of its stamps: give a shard")
    return int(sample.profiles.shape[-1])
