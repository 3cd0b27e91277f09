# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configs: pydantic models with pex_config's manners, override files that are
read and never executed, and the bridge to ``lsst.pex.config``.

``toPexConfig`` and ``toPex`` import ``lsst.pex.config`` on first use; nothing
else here needs an lsst package.
"""

from pydantic import Field

from .config import Config, FieldValidationError, UnknownFieldError
from .overrides import OverrideReader
from .show import showConfig, showHistory

__all__ = [
    "Config",
    "Field",
    "FieldValidationError",
    "OverrideReader",
    "UnknownFieldError",
    "showConfig",
    "showHistory",
    "toPex",
    "toPexConfig",
]


def __getattr__(name):
    if name in ("toPex", "toPexConfig"):
        from . import pexBridge

        return getattr(pexBridge, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
