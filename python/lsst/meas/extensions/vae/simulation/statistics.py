# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers that describe errors without being led astray by a few outliers."""

import numpy as np

__all__ = ["clipped_slope", "half_width", "median"]


def median(values):
    """Median of the finite values [`float`]; NaN if there is none."""
    values = _finite(values)
    return float(np.median(values)) if values.size else float("nan")


def half_width(values):
    """Half the distance between the 16th and the 84th percentile.

    Parameters
    ----------
    values : array-like
        Values; those that are not finite are left out.

    Returns
    -------
    width : `float`
        NaN if no value is finite.
    """
    values = _finite(values)
    return float(np.diff(np.percentile(values, [16, 84]))[0] / 2) if values.size else float("nan")


def clipped_slope(x, y, clip=3.0, rounds=10):
    """Slope of a straight line fitted with outliers clipped.

    The plain slope of measured against true ellipticity is driven by a few
    failed measurements, so alpha is reported from this one first.

    Parameters
    ----------
    x, y : array-like
        Abscissae and ordinates; pairs that are not finite are left out.
    clip : `float`, optional
        Residuals beyond so many standard deviations are left out; infinity
        for the plain least-squares line.
    rounds : `int`, optional
        Most rounds of clipping.

    Returns
    -------
    slope : `float`
        NaN with fewer than three points, or if all have the same x.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    keep = np.ones(x.size, bool)
    slope = float("nan")
    for _ in range(rounds):
        kept_x, kept_y = x[keep], y[keep]
        if kept_x.size < 3:
            return float("nan")
        mean_x, mean_y = kept_x.mean(), kept_y.mean()
        offset = kept_x - mean_x
        square = offset @ offset
        if not square > 0:
            return float("nan")
        slope = float(offset @ kept_y / square)
        if np.isinf(clip):
            break
        residual = (y - mean_y) - slope * (x - mean_x)
        # Residuals of a fit with an intercept have no mean.
        new = np.abs(residual) <= clip * np.sqrt(np.mean(np.square(residual[keep])))
        if np.array_equal(new, keep):
            break
        keep = new
    return slope


def _finite(values):
    values = np.asarray(values, dtype=float).ravel()
    return values[np.isfinite(values)]
