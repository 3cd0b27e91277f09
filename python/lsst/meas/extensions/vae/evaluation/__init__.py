# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare deblended objects with the truth: matching, errors, figures, reports, and the paper's numbers."""

from .baseline import undeblended
from .detection_quality import detection_by_pass
from .errors import ErrorStatistic, binned_statistics, error_statistic
from .matching import Match, count_matches, match_objects
from .objects import choose_examples, compare_objects
from .stamp_report import stamp_markdown, write_stamp_report
from .stamp_table import summarise_stamps
from .stamps import join_errors, measure_stamps, network_method
from .targets import judge

__all__ = [
    "ErrorStatistic",
    "Match",
    "binned_statistics",
    "choose_examples",
    "compare_objects",
    "count_matches",
    "detection_by_pass",
    "error_statistic",
    "join_errors",
    "judge",
    "match_objects",
    "measure_stamps",
    "network_method",
    "stamp_markdown",
    "summarise_stamps",
    "undeblended",
    "write_stamp_report",
]
