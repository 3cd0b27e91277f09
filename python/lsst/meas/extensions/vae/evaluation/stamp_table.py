# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors on stamps in a few numbers: of all scenes, and in bins of what makes them hard."""

import numpy as np
from astropy.table import Table

from ..errors import VaeError
from ..simulation.statistics import clipped_slope, half_width, median
from .metrics import colour_pairs

__all__ = ["BRIGHT_SNR", "COUNT_EDGES", "OUTLIER", "PAPER_EDGES", "bin_edges", "summarise_stamps"]

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

COUNT_EDGES = (1, 2, 3, 4, 5, 8, 16, 128)
"""Edges of the bins by the number of galaxies in a scene, the target among them; empty ones are left out."""

OUTLIER = 3.0
"""Values farther from the median than so many half-widths are outliers, 0.29 % of a Gaussian's. It is a
choice of this project: one limit for all quantities, which tells of tails and not of how wide the core is."""

_BLEND_COLUMNS = ("b_tot", "delta_mag_c", "b_closest")
_PERCENTILES = (2.3, 16, 50, 84, 97.7)

# Relative standard error of half the 16-84 % range of n Gaussian deviates, times sqrt(n).
_WIDTH_ERROR = 0.964

_SPREAD_DOCS = {
    "median": "Median of {}",
    "median_error": "Standard error of the median, sqrt(pi/2) half-width / sqrt(number): {}",
    "half_width": "Half the 16-84 % range of {}",
    "low": "2.3 % percentile of {}",
    "high": "97.7 % percentile of {}",
    "outliers": "Fraction farther from the median than 3 half-widths: {}",
    "failures": "Scenes in which there is none: {}",
}

_DOCS = {
    "method": "What gave the images",
    "kind": "Kind of the sample: isolated or blended",
    "by": "Quantity of the bins; all for no bins, snr_min for all targets above a signal to noise",
    "low": "Lower edge, included",
    "high": "Upper edge, included in the last bin only",
    "scenes": "Scenes in the bin",
    "number": "Scenes whose noiseless target has a shape",
    "failures": "Of those, scenes in which the method's image has none",
    "component_half_width": "Half the 16-84 % range of the errors of e1 and e2 together",
    "e1_std": "Plain standard deviation of the e1 error",
    "e2_std": "Plain standard deviation of the e2 error",
    "mag_std": "Plain standard deviation of the magnitude error, reference band",
    "e_bound": "Median Cramer-Rao bound of |e| (see cramer_rao)",
    "e_ratio": "Half-width of the errors of |e|, each in units of its bound",
    "e_ratio_error": "Its standard error, for Gaussian errors",
    "component_bound": "Median Cramer-Rao bound of e1 and e2 (see cramer_rao)",
    "component_ratio": "Half-width of the errors of e1 and e2, each in units of its bound",
    "component_ratio_error": "Its standard error, for Gaussian errors",
    "mag_bound": "Median Cramer-Rao bound of the magnitude, reference band",
    "mag_ratio": "Half-width of the magnitude errors, each in units of its bound, reference band",
    "mag_ratio_error": "Its standard error, for Gaussian errors",
    "seconds_per_source": "Time by the clock [s]; of all scenes only",
    "sources_per_core_second": "Sources a second of processor time of all threads; of all scenes only",
    "memory": "Memory beyond what was held before [MiB]; of all scenes only",
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

    Shapes are described as ``e`` (|e|), ``e1`` and ``e2``, of targets whose noiseless image has one;
    magnitudes as ``mag`` (reference band) and ``mag_<b>``; colours as ``colour_<b>_<c>``; and ``cosine``,
    ``ssim`` and ``chi2``. Each has a median with its error, the half-width, the 2.3 and 97.7 % percentiles,
    the fraction of outliers (see `OUTLIER`) and the number of failures (of shapes in ``failures``).
    ``flux_<b>_residual`` is the mean of the absolute relative error of the flux.

    Parameters
    ----------
    errors : `astropy.table.Table`
        As `~.stamps.measure_stamps` gives it, or several joined; with `~.cramer_rao.add_bounds`, errors are
        compared with what noise allows.
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
                cost = _cost(errors.meta, kind, method) if by == "all" else _NO_COST
                rows.append(
                    {"method": method, "kind": kind, "by": by, "low": low, "high": high}
                    | _describe(part, reference, bands, n_bootstrap, rng)
                    | cost
                )
    summary = Table({name: np.array([row[name] for row in rows]) for name in rows[0]}) if rows else Table()
    docs = _docs(reference, bands)
    for name in summary.colnames:
        summary[name].description = docs.get(name, "")
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
    if kind == "blended":
        for low, high in zip(COUNT_EDGES[:-1], COUNT_EDGES[1:]):
            inside = (columns["n_galaxies"] >= low) & (columns["n_galaxies"] < high)
            if inside.any():
                yield "n_galaxies", float(low), float(high), inside


def _quantities(reference, bands):
    """Columns of errors, and what they are, by what they are called in the summary; shapes first."""
    found = {"e": ("e_error", "the |e| error")}
    found |= {f"e{i}": (f"e{i}_error", f"the e{i} error") for i in (1, 2)}
    found["mag"] = (f"mag_{reference}_error", "the magnitude error, reference band")
    found |= {f"mag_{band}": (f"mag_{band}_error", f"the magnitude error, {band}") for band in bands}
    for pair in colour_pairs(bands):
        name = "colour_{}_{}".format(*pair)
        found[name] = (f"{name}_error", "the error of the colour {} - {}".format(*pair))
    likeness = {
        "cosine": "the cosine similarity",
        "ssim": "the structural similarity",
        "chi2": "chi2 a pixel",
    }
    return found | {name: (name, words) for name, words in likeness.items()}


_SHAPES = ("e", "e1", "e2")


def _docs(reference, bands):
    docs = dict(_DOCS)
    for name, (_, words) in _quantities(reference, bands).items():
        docs |= {f"{name}_{part}": doc.format(words) for part, doc in _SPREAD_DOCS.items()}
    docs |= {f"flux_{band}_residual": f"Mean absolute relative flux error, {band}" for band in bands}
    return docs


def _describe(part, reference, bands, n_bootstrap, rng):
    known = ~part["truth_flag"]
    row = {
        "scenes": len(known),
        "number": int(known.sum()),
        "failures": int((part["shape_flag"] & known).sum()),
    }
    for name, (column, _) in _quantities(reference, bands).items():
        values = part[column][known] if name in _SHAPES else part[column]
        row |= _spread(values, name)
        if name not in _SHAPES:
            row[f"{name}_failures"] = int((~np.isfinite(values)).sum())
    e_error, *components = (part[f"{name}_error"][known] for name in _SHAPES)
    row["component_half_width"] = half_width(np.concatenate(components))
    row |= {f"e{i}_std": _std(component) for i, component in enumerate(components, 1)}
    row["mag_std"] = _std(part[f"mag_{reference}_error"])
    for band in bands:
        row[f"flux_{band}_residual"] = _mean_size(part[f"flux_{band}_error"])
    for i in (1, 2):
        slope, error, plain = _slope(part[f"e{i}_true"], part[f"e{i}"], n_bootstrap, rng)
        row |= {f"alpha_{i}": slope - 1, f"alpha_{i}_error": error, f"alpha_{i}_plain": plain - 1}
    if "e1_bound" in part:
        row |= _against_bound(e_error, [part["e_bound"][known]], "e")
        row |= _against_bound(
            np.concatenate(components), [part[f"e{i}_bound"][known] for i in (1, 2)], "component"
        )
        row |= _against_bound(part[f"mag_{reference}_error"], [part[f"mag_{reference}_bound"]], "mag")
    return row


def _against_bound(values, bounds, name):
    bounds = np.concatenate(bounds)
    pulls = values / bounds
    ratio, number = half_width(pulls), np.isfinite(pulls).sum()
    return {
        f"{name}_bound": median(bounds),
        f"{name}_ratio": ratio,
        f"{name}_ratio_error": float(_WIDTH_ERROR * ratio / np.sqrt(max(number, 1))),
    }


_NO_COST = dict.fromkeys(("seconds_per_source", "sources_per_core_second", "memory"), float("nan"))


def _cost(meta, kind, method):
    """What a method cost, as far as the metadata tell."""

    def told(name):
        return meta.get(name, {}).get(kind, {}).get(method, float("nan"))

    sources, cpu = told("sources"), told("cpu_seconds")
    found = (told("seconds") / sources, sources / cpu if cpu else float("nan"), told("memory"))
    return {name: float(value) for name, value in zip(_NO_COST, found)}


def _spread(values, name):
    values = values[np.isfinite(values)]
    # All at once: to sort is what takes the time.
    levels = np.percentile(values, _PERCENTILES) if values.size else np.full(len(_PERCENTILES), np.nan)
    low, lower, middle, upper, high = levels.tolist()
    width = (upper - lower) / 2
    outliers = np.mean(np.abs(values - middle) > OUTLIER * width) if values.size else np.nan
    return {
        f"{name}_median": middle,
        f"{name}_median_error": float(np.sqrt(np.pi / 2) * width / np.sqrt(max(values.size, 1))),
        f"{name}_half_width": width,
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_outliers": float(outliers),
    }


def _mean_size(values):
    values = values[np.isfinite(values)]
    return float(np.mean(np.abs(values))) if values.size else float("nan")


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
