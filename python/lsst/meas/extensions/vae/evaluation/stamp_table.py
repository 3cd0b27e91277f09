# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors on stamps in a few numbers: of all scenes, and in bins of what makes them hard."""

import numpy as np
from astropy.table import Table

from ..errors import VaeError
from ..simulation.statistics import clipped_slope, half_width, median

__all__ = ["BRIGHT_SNR", "PAPER_EDGES", "bin_edges", "summarise_stamps"]

PAPER_EDGES = {
    "snr": tuple(np.geomspace(20.0, 3000.0, 11)),
    "b_tot": tuple(np.linspace(0.0, 0.55, 11)),
    "delta_mag_c": tuple(np.linspace(0.0, 6.0, 11)),
    "b_closest": tuple(np.linspace(0.0, 0.9, 11)),
}
"""Edges of the ten bins of each row of figure 6 of Arcelin et al. 2020. The paper tells no numbers; these are
the limits and the kinds of scale (SNR logarithmic) of the last published notebook that draws that figure
(LSSTDESC/DeblenderVAE, notebooks/Plots_for_paper, before commit fe122c2). Scenes beyond the outer edges are
in no bin, and among all."""

BRIGHT_SNR = 50.0
"""Above this signal to noise, the half-width of |e| errors has a target of its own."""

_BLEND_COLUMNS = ("b_tot", "delta_mag_c", "b_closest")
_PERCENTILES = (2.3, 97.7)

_DOCS = {
    "method": "What gave the images",
    "kind": "Kind of the sample: isolated or blended",
    "by": "Quantity of the bins; all for no bins, snr_min for all targets above a signal to noise",
    "low": "Lower edge, included",
    "high": "Upper edge, included in the last bin only",
    "scenes": "Scenes in the bin",
    "number": "Scenes whose noiseless target has a shape",
    "failures": "Of those, scenes in which the method's image has none",
    "e_median": "Median of the |e| error",
    "e_median_error": "Standard error of the median, sqrt(pi/2) half-width / sqrt(number)",
    "e_half_width": "Half the 16-84 % range of the |e| error",
    "e_low": "2.3 % percentile of the |e| error",
    "e_high": "97.7 % percentile of the |e| error",
    "component_half_width": "Half the 16-84 % range of the errors of e1 and e2 together",
    "e1_std": "Plain standard deviation of the e1 error",
    "e2_std": "Plain standard deviation of the e2 error",
    "mag_failures": "Scenes in which the sum of all pixels is not above 0, reference band",
    "mag_median": "Median of the magnitude error, reference band",
    "mag_median_error": "Standard error of the median, as that of e_median",
    "mag_half_width": "Half the 16-84 % range of the magnitude error, reference band",
    "mag_low": "2.3 % percentile of the magnitude error, reference band",
    "mag_high": "97.7 % percentile of the magnitude error, reference band",
    "mag_std": "Plain standard deviation of the magnitude error, reference band",
}
for _i in (1, 2):
    _DOCS |= {
        f"alpha_{_i}": f"Slope of e{_i} against the target's, less 1, outliers clipped at 3 sigma",
        f"alpha_{_i}_error": "Its standard deviation over bootstrap samples of the scenes",
        f"alpha_{_i}_plain": "The same without clipping, which a few outliers drive",
    }


def bin_edges(values, by, bins="paper", number=10):
    """Edges of the bins of one quantity.

    Parameters
    ----------
    values : array-like
        The quantity.
    by : `str`
        Its name, a key of `PAPER_EDGES`.
    bins : {"paper", "quantiles"}
        Those of the paper's figure 6, or such that bins hold equal numbers.
    number : `int`, optional
        Bins by quantiles; fewer where many values are equal.

    Returns
    -------
    edges : `numpy.ndarray`
        Ascending.

    Raises
    ------
    VaeError
        If there are no such bins.
    """
    if bins == "paper":
        return np.array(PAPER_EDGES[by])
    if bins != "quantiles":
        raise VaeError(f"bins is {bins!r}: expected 'paper' or 'quantiles'")
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not values.size:
        return np.zeros(0)
    return np.unique(np.quantile(values, np.linspace(0, 1, number + 1)))


def summarise_stamps(errors, bins="paper", n_bootstrap=100, seed=0):
    """Describe the errors of every method, of all scenes and in bins.

    Parameters
    ----------
    errors : `astropy.table.Table`
        As `~.stamps.measure_stamps` gives it, or several joined.
    bins : {"paper", "quantiles"}, optional
        See `bin_edges`.
    n_bootstrap : `int`, optional
        Bootstrap samples for the errors of alpha; 0 for none (NaN).
    seed : `int`, optional
        Seed of the bootstrap.

    Returns
    -------
    summary : `astropy.table.Table`
        One row a kind of sample, method and bin; what its columns are is in their descriptions. Isolated
        galaxies have bins of signal to noise only. ``meta`` is that of the errors, with the bins, n_bootstrap
        and seed.

    Raises
    ------
    VaeError
        If the table lacks what is needed.
    """
    lacking = [name for name in ("bands", "reference_band") if name not in errors.meta]
    if lacking:
        raise VaeError(f"the table of errors has no {lacking[0]} in its metadata: measure it again")
    reference, bands = errors.meta["reference_band"], list(errors.meta["bands"])
    kinds, methods = (np.asarray(errors[name]).astype(str) for name in ("kind", "method"))
    rows = []
    for kind in _unique(kinds):
        for method in _unique(methods[kinds == kind]):
            chosen = (kinds == kind) & (methods == method)
            columns = {
                name: np.asarray(errors[name])[chosen]
                for name in errors.colnames
                if name not in ("kind", "method")
            }
            for by, low, high, inside in _bins(columns, kind, bins):
                part = {name: column[inside] for name, column in columns.items()}
                rng = np.random.default_rng([seed, len(rows)])
                rows.append(
                    {"method": method, "kind": kind, "by": by, "low": low, "high": high}
                    | _describe(part, reference, bands, n_bootstrap, rng)
                )
    summary = Table({name: np.array([row[name] for row in rows]) for name in rows[0]}) if rows else Table()
    for name in summary.colnames:
        summary[name].description = _DOCS.get(name, "")
    for band in bands:
        for name in ("median", "half_width"):
            summary[f"mag_{band}_{name}"].description = f"As mag_{name}, band {band}"
    summary.meta = dict(errors.meta) | {"bins": bins, "n_bootstrap": n_bootstrap, "bootstrap_seed": seed}
    return summary


def _unique(values):
    """Distinct values in the order in which they come first."""
    return list(dict.fromkeys(values.tolist()))


def _bins(columns, kind, bins):
    """Name of the quantity, lower and upper edge of each bin, and what is within."""
    snr = columns["snr"]
    yield "all", np.nan, np.nan, np.ones(len(snr), bool)
    yield "snr_min", BRIGHT_SNR, np.inf, snr >= BRIGHT_SNR
    for by in PAPER_EDGES:
        if by in _BLEND_COLUMNS and kind != "blended":
            continue
        values = columns[by]
        edges = bin_edges(values, by, bins)
        for low, high in zip(edges[:-1], edges[1:]):
            inside = (values >= low) & ((values <= high) if high == edges[-1] else (values < high))
            yield by, float(low), float(high), inside


def _describe(part, reference, bands, n_bootstrap, rng):
    known = ~part["truth_flag"]
    e_error = part["e_error"][known]
    components = [part[f"e{i}_error"][known] for i in (1, 2)]
    magnitude = part[f"mag_{reference}_error"]
    row = {
        "scenes": len(known),
        "number": int(known.sum()),
        "failures": int((part["shape_flag"] & known).sum()),
        **_spread(e_error, "e"),
        "component_half_width": half_width(np.concatenate(components)),
        "e1_std": _std(components[0]),
        "e2_std": _std(components[1]),
    }
    for i in (1, 2):
        slope, error, plain = _slope(part[f"e{i}_true"], part[f"e{i}"], n_bootstrap, rng)
        row |= {f"alpha_{i}": slope - 1, f"alpha_{i}_error": error, f"alpha_{i}_plain": plain - 1}
    row |= {
        "mag_failures": int(part[f"mag_{reference}_flag"].sum()),
        **_spread(magnitude, "mag"),
        "mag_std": _std(magnitude),
    }
    for band in bands:
        error = part[f"mag_{band}_error"]
        row |= {f"mag_{band}_median": median(error), f"mag_{band}_half_width": half_width(error)}
    return row


def _spread(values, name):
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, _PERCENTILES) if values.size else (np.nan, np.nan)
    width = half_width(values)
    return {
        f"{name}_median": median(values),
        f"{name}_median_error": float(np.sqrt(np.pi / 2) * width / np.sqrt(max(values.size, 1))),
        f"{name}_half_width": width,
        f"{name}_low": float(low),
        f"{name}_high": float(high),
    }


def _std(values):
    values = values[np.isfinite(values)]
    return float(np.std(values)) if values.size else float("nan")


def _slope(x, y, n_bootstrap, rng):
    """Clipped slope, its bootstrap error, and the plain slope."""
    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    drawn = [
        clipped_slope(x[chosen], y[chosen])
        for chosen in (rng.integers(0, x.size, x.size) for _ in range(n_bootstrap if x.size > 2 else 0))
    ]
    drawn = [slope for slope in drawn if np.isfinite(slope)]
    error = float(np.std(drawn, ddof=1)) if len(drawn) > 1 else float("nan")
    return clipped_slope(x, y), error, clipped_slope(x, y, clip=np.inf)
