# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""All state of a training in one file, from which it goes on."""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import TrainingError
from ..files import replacing
from .model import get_weights, set_weights
from .settings import LATER

__all__ = ["Checkpoint", "check_same_training"]


class Checkpoint:
    """One safetensors file with all state; replaced whole at every save."""

    def __init__(self, path):
        self.path = Path(path)

    def save(self, model, optimizer, state, best=None):
        """Write all state.

        Parameters
        ----------
        model : `keras.Model`
            Has ``encoder``, ``decoder`` and ``sample``.
        optimizer : `~.optimizer.AveragingAdam`
            What trains it at the moment.
        state : `dict`
            What else there is, for JSON.
        best : `dict` [`str`, `dict`], optional
            Weights of the best epoch, ``encoder`` and ``decoder``.
        """
        # Encoder and decoder are what would be packed: the averages, if there are any.
        with optimizer.averaged():
            tensors = {f"encoder/{k}": v for k, v in get_weights(model.encoder).items()}
            tensors |= {f"decoder/{k}": v for k, v in get_weights(model.decoder).items()}
        tensors |= {f"trained/{i}": np.array(v.numpy()) for i, (v, _) in enumerate(optimizer.averages)}
        tensors |= {f"optimizer/{i}": np.array(v.numpy()) for i, v in enumerate(optimizer.variables)}
        tensors["sample/state"] = np.array(model.sample.generator.state.numpy())
        for part, weights in (best or {}).items():
            tensors |= {f"best/{part}/{k}": v for k, v in weights.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            save_file(tensors, str(temporary), metadata={"state": json.dumps(state)})

    def exists(self):
        return self.path.exists()

    def read_state(self):
        try:
            with safe_open(str(self.path), framework="numpy") as file:
                return json.loads(file.metadata()["state"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(
                f"checkpoint {self.path} cannot be read ({error}); delete it to start again"
            ) from error

    def restore(self, model, optimizer):
        """Put a model and its optimizer into the state that was saved.

        Returns
        -------
        best : `dict` [`str`, `dict`] or `None`
            Weights of the best epoch, if they were saved.
        """
        with safe_open(str(self.path), framework="numpy") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        for part, target in (("encoder", model.encoder), ("decoder", model.decoder)):
            set_weights(target, _below(tensors, part), f"checkpoint {self.path}")
        variables = optimizer.variables
        if len(variables) != len(_below(tensors, "optimizer")):
            raise TrainingError(f"checkpoint {self.path} is of another optimizer; delete it to start again")
        for i, variable in enumerate(variables):
            variable.assign(tensors[f"optimizer/{i}"])
        for i, (variable, _) in enumerate(optimizer.averages):
            variable.assign(tensors[f"trained/{i}"])
        model.sample.generator.state.assign(tensors["sample/state"])
        best = {part: _below(tensors, f"best/{part}") for part in ("encoder", "decoder")}
        return best if best["encoder"] else None


def _below(tensors, part):
    return {k.removeprefix(f"{part}/"): v for k, v in tensors.items() if k.startswith(f"{part}/")}


def check_same_training(found, wanted, path):
    """A checkpoint may be continued longer, but not under other settings.

    Older checkpoints lack the settings of `LATER`: they were trained with
    those values.
    """
    free = {"epochs", "max_seconds", "patience", "workers", "validation_every"}
    before = {**LATER, **found["settings"]}
    for key, value in wanted["settings"].items():
        if key not in free and before.get(key) != value:
            raise TrainingError(
                f"checkpoint {path} was trained with {key}={before.get(key)!r}, now "
                f"{key}={value!r}: use the old value, another directory, or delete it"
            )
    if found.get("start") != wanted.get("start"):
        raise TrainingError(
            f"checkpoint {path} was started from other weights: start from the same, use another directory, "
            "or delete it"
        )
    if found["samples"] != wanted["samples"]:
        raise TrainingError(
            f"checkpoint {path} was trained on other samples: give the same ones, another directory, or "
            "delete it"
        )
