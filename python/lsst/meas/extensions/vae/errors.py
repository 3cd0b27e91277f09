# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors that users meet: each is one line that tells what was wrong, the
value, what was expected and what to do.

The command line prints them without a traceback and exits with code 2.
"""

__all__ = [
    "VaeError",
    "CatalogError",
    "ImageError",
    "ModelPackageError",
    "OverrideError",
    "RepositoryError",
    "ShardError",
    "SurveyError",
    "TrainingError",
]


class VaeError(ValueError):
    """Base of every error that this package raises for a user to read."""


class SurveyError(VaeError):
    """An unknown survey or band, or bands that do not fit together."""


class CatalogError(VaeError):
    """A galaxy catalogue that is missing, damaged or lacks a column."""


class ImageError(VaeError):
    """Pixels, variances, PSFs or centres that cannot be used."""


class ShardError(VaeError):
    """A sample file that is truncated, damaged or of another kind."""


class ModelPackageError(VaeError):
    """A model package that is damaged, tampered with or unsuited to the data."""


class TrainingError(VaeError):
    """A training that cannot start, cannot resume or has collapsed."""


class RepositoryError(VaeError):
    """A data repository that is absent, foreign or lacks what is asked for."""


class OverrideError(VaeError):
    """A config override that is refused, with its file and line."""
