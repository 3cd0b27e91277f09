# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of measurements: median, half-width and failures, in bins of SNR."""

from dataclasses import dataclass

import numpy as np

from ..simulation.statistics import half_width

__all__ = ["SNR_BINS", "ErrorStatistic", "binned_statistics", "error_statistic"]

SNR_BINS = ((0.0, np.inf), (10.0, 30.0), (30.0, 100.0), (100.0, np.inf))
"""Lower edge, included, and upper edge of each bin; the first is all."""


@dataclass(frozen=True)
class ErrorStatistic:
    """A distribution of errors in a few numbers.

    Attributes
    ----------
    number : `int`
        Measured errors.
    failures : `int`
        Objects that could not be measured though their truth is known.
    median : `float`
        NaN without any error.
    half_width : `float`
        Half the distance between the 16th and 84th percentile; NaN without
        any error.
    """

    number: int
    failures: int
    median: float
    half_width: float


def error_statistic(measured, truth):
    """Describe the errors of some measurements.

    Parameters
    ----------
    measured : array-like
        NaN where the measurement failed.
    truth : array-like
        The same shape and unit; NaN, where it is not known, does not count.

    Returns
    -------
    statistic : `ErrorStatistic`
        Of measured - truth.
    """
    measured, truth = (np.asarray(a, float).ravel() for a in (measured, truth))
    known = np.isfinite(truth)
    errors = (measured - truth)[known]
    errors = errors[np.isfinite(errors)]
    median = float(np.median(errors)) if errors.size else float("nan")
    return ErrorStatistic(errors.size, int(known.sum()) - errors.size, median, half_width(errors))


def binned_statistics(measured, truth, snr, bins=SNR_BINS):
    """Describe the errors in bins of signal to noise.

    Parameters
    ----------
    measured, truth : array-like ``[object, ...]``
        As `error_statistic` takes them.
    snr : array-like ``[object]``
        True signal to noise; objects with NaN are in no bin.
    bins : sequence of pairs of `float`, optional
        Lower edge, included, and upper edge of each bin.

    Returns
    -------
    statistics : `list` [`ErrorStatistic`]
        One a bin.
    """
    measured, truth, snr = np.asarray(measured, float), np.asarray(truth, float), np.asarray(snr, float)
    chosen = [(snr >= low) & (snr < high) for low, high in bins]
    return [error_statistic(measured[mask], truth[mask]) for mask in chosen]
