# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every test gets: this clone's package, in subprocesses too, and none of
the user's own set-up.
"""

import logging
import os
from pathlib import Path

import pytest

PYTHON = str(Path(__file__).resolve().parents[1] / "python")

# pyproject.toml puts python/ on this process's path; commands that tests start find it here.
os.environ["PYTHONPATH"] = os.pathsep.join(p for p in (PYTHON, os.environ.get("PYTHONPATH")) if p)
# A product that EUPS has set up would lend its config/, a user's Keras its backend.
os.environ.pop("MEAS_EXTENSIONS_VAE_DIR", None)
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(autouse=True)
def log_levels_as_they_were():
    """Commands that tests run in this process set levels of the stack's logs, for no other test."""
    yield
    for name, logger in logging.root.manager.loggerDict.items():
        if name.partition(".")[0] == "lsst" and isinstance(logger, logging.Logger):
            logger.setLevel(logging.NOTSET)
