# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare deblended objects with the truth: matching, errors, figures, report."""

from .baseline import undeblended
from .errors import ErrorStatistic, binned_statistics, error_statistic
from .matching import Match, count_matches, match_objects
from .objects import choose_examples, compare_objects

__all__ = [
    "ErrorStatistic",
    "Match",
    "binned_statistics",
    "choose_examples",
    "compare_objects",
    "count_matches",
    "error_statistic",
    "match_objects",
    "undeblended",
]
