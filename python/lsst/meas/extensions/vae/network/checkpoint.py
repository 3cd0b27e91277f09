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

__all__ = ["Checkpoint", "check_same_training"]


class Checkpoint:
    """One safetensors file with all state; replaced whole at every save."""

    def __init__(self, path):
        self.path = Path(path)

    def save(self, model, state):
        tensors = {f"encoder/{k}": v for k, v in get_weights(model.encoder).items()}
        tensors |= {f"decoder/{k}": v for k, v in get_weights(model.decoder).items()}
        tensors |= {f"optimizer/{i}": np.array(v.numpy()) for i, v in enumerate(model.optimizer.variables)}
        tensors["sample/state"] = np.array(model.sample.generator.state.numpy())
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

    def restore(self, model):
        with safe_open(str(self.path), framework="numpy") as file:
            keys = list(file.keys())
            for part, target in (("encoder", model.encoder), ("decoder", model.decoder)):
                set_weights(
                    target,
                    {
                        k.removeprefix(part + "/"): file.get_tensor(k)
                        for k in keys
                        if k.startswith(part + "/")
                    },
                    f"checkpoint {self.path}",
                )
            variables = model.optimizer.variables
            if len(variables) != sum(k.startswith("optimizer/") for k in keys):
                raise TrainingError(
                    f"checkpoint {self.path} is of another optimizer; delete it to start again"
                )
            for i, variable in enumerate(variables):
                variable.assign(file.get_tensor(f"optimizer/{i}"))
            model.sample.generator.state.assign(file.get_tensor("sample/state"))


def check_same_training(found, wanted, path):
    """A checkpoint may be continued longer, but not under other settings."""
    free = {"epochs", "max_seconds", "patience", "workers", "validation_every"}
    for key, value in wanted["settings"].items():
        if key not in free and found["settings"].get(key) != value:
            raise TrainingError(
                f"checkpoint {path} was trained with {key}={found['settings'].get(key)!r}, now "
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
