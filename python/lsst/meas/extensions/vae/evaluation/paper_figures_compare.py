# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deblenders beside each other on the same scenes: one figure a metric."""

from dataclasses import dataclass

import numpy as np

from ..errors import VaeError
from .metrics import colour_pairs
from .paper_figures_data import LEAST_BOX, PERCENTILES, QUANTITIES, Series, counted, make_bins, methods_of
from .paper_figures_style import (
    LEAST_FONT,
    PAGE,
    REFERENCES,
    PaperFigure,
    method_label,
    method_look,
    new_figure,
    plain_log,
    styled,
)

__all__ = ["METRICS", "Metric", "compare_methods", "compared_series"]

_BY = ("snr", "b_tot", "b_closest", "delta_mag_c", "n_galaxies")

# Bins of equal numbers: of few hundred scenes each holds enough.
_BINS = 5

_SNR_TICKS = (10, 30, 100, 300, 1000, 3000)


@dataclass(frozen=True)
class Metric:
    """What deblenders are compared by.

    Attributes
    ----------
    label : `str`
        With the unit, in matplotlib's mathematical text; {r} is the reference band.
    words : `str`
        The same in HTML.
    columns : `tuple` [`str`]
        Of errors; several are taken together. Empty for the colour, whose columns depend on the bands.
    distance : `str`
        "" for errors about 0, whose medians and half-widths are told; "size" of errors, whose mean is told;
        "below one" for what is best at 1; "size of score" for what is best at 0: of these, medians.
    """

    label: str
    words: str
    columns: tuple
    distance: str = ""


METRICS = {
    "e": Metric(r"$\Delta |e|$", "errors of |<i>e</i>| (KSB)", ("e_error",)),
    "components": Metric(
        r"$\Delta e_1, \Delta e_2$", "errors of <i>e</i><sub>1</sub> and <i>e</i><sub>2</sub> together (KSB)",
        ("e1_error", "e2_error"),
    ),
    "magnitude": Metric(r"$\Delta {r}$ [mag]", "errors of the magnitude in <i>{r}</i>", ("mag_error",)),
    "colour": Metric(r"$\Delta ({c})$ [mag]", "errors of the colour <i>{c}</i>", ()),
    "flux": Metric(
        r"$|\Delta f / f|$ in ${r}$", "absolute relative errors of the flux in <i>{r}</i>",
        ("flux_error",), "size",
    ),
    "cosine": Metric(
        "1 - cosine similarity", "1 less the cosine similarity of the images in <i>{r}</i>",
        ("cosine",), "below one",
    ),
    "ssim": Metric(
        "1 - SSIM", "1 less the structural similarity (SSIM) of the images in <i>{r}</i>",
        ("ssim",), "below one",
    ),
    "chi2": Metric(
        r"residual $\chi^2$ a pixel",
        "mean squares of the images' errors in units of the scenes' noise, all bands",
        ("chi2",), "size of score",
    ),
}  # fmt: skip
"""Metrics of `compare_methods`, by name."""


def compared_series(errors, kind="blended"):
    """Errors of all methods on scenes of a kind.

    Parameters
    ----------
    errors : `astropy.table.Table`
        As `~.stamps.measure_stamps` gives it.
    kind : `str`, optional
        Kind of scenes.

    Returns
    -------
    series : `list` [`~.paper_figures_data.Series`]
        In the table's order, the floor and the ceiling last.
    """
    # What is no deblender goes last.
    names = sorted(methods_of(errors, kind), key=lambda name: name in REFERENCES)
    return [Series(method_label(name), errors, kind, name) for name in names]


@styled
def compare_methods(series, metric, bands=(), bins="quantiles"):
    """How deblenders do by one metric: of all scenes, and by what makes scenes hard.

    Parameters
    ----------
    series : sequence of `~.paper_figures_data.Series`
        As `compared_series` gives them.
    metric : `str`
        One of `METRICS`.
    bands : sequence of `str`, optional
        Bands that were measured, for the colour: g - r, or else the first two.
    bins : {"quantiles", "paper"}, optional
        Five of equal numbers, or those of figure 6.

    Returns
    -------
    drawn : `~.paper_figures_style.PaperFigure`

    Raises
    ------
    VaeError
        Raised if columns are missing, or nothing was measured.
    """
    series, metric = list(series), METRICS[metric]
    if not series:
        raise VaeError("no method was measured on blends: nothing can be compared")
    columns, names = _columns(metric, series[0], bands)
    values = [_values(one, columns, metric.distance) for one in series]
    if not any(np.isfinite(one).any() for one in values):
        raise VaeError(f"no method has a value of {columns[0]}: nothing can be compared")
    rows = [by for by in _BY if by in series[0]]
    found = {}
    for by in rows:
        try:
            found[by] = make_bins(series[0][by], by, bins, _BINS)
        except VaeError:
            continue
    signed = not metric.distance
    n_rows = 2 if signed else 1
    strip = 0.2 + 0.19 * len(series)
    height = strip + 0.62 + 1.28 * n_rows + 0.55
    figure = new_figure(PAGE, height)
    label = metric.label.format(**names)
    top = figure.add_axes((0.175, 1 - (strip + 0.02) / height, 0.53, (strip - 0.17) / height))
    _strip(top, series, values, label, metric.distance)
    if found:
        panels = figure.subplots(
            n_rows, len(found), squeeze=False, sharey="row",
            gridspec_kw={"left": 0.1, "right": 0.985, "top": 1 - (strip + 0.62) / height,
                         "bottom": 0.42 / height, "wspace": 0.08, "hspace": 0.08},
        )  # fmt: skip
        _by_panels(panels, series, values, found, label, metric.distance)
    statistic = {"": "Medians and half-widths (half the 16 to 84 % range)", "size": "Means"}.get(
        metric.distance, "Medians"
    )
    edges = "bins of equal numbers" if bins == "quantiles" else "bins as in figure 6"
    gone = " What was not deblended, or is alone, may be beyond the axes." if _has_reference(series) else ""
    return PaperFigure(
        figure,
        "Deblenders compared: " + _plain(metric.words.format(**names)),
        f"Of each method {metric.words.format(**names)}, on the same {counted(series[0].n_scenes)}. "
        "Above, all of them: bars are the 16 to 84 % ranges with their medians, lines the 2.3 to 97.7 % "
        "ranges; in the table failures are scenes in which the method gave no value although the truth "
        f"has one. Below, {statistic[0].lower() + statistic[1:]} in {edges}, of at least {LEAST_BOX} "
        f"scenes, by {', '.join(QUANTITIES[by].words for by in found) or 'nothing'}.{gone}",
    )


def _plain(words):
    for tag in ("<i>", "</i>", "<sub>", "</sub>"):
        words = words.replace(tag, "")
    return words


def _has_reference(series):
    return any(one.method in REFERENCES for one in series)


def _columns(metric, one, bands):
    """Columns of a metric, and the names that labels take."""
    names = {"r": one.reference, "c": ""}
    if metric.columns:
        return metric.columns, names
    pairs = colour_pairs(bands)
    if not pairs:
        raise VaeError(f"there is no colour in bands {', '.join(bands) or 'none'}: measure two at least")
    pair = ("g", "r") if ("g", "r") in pairs else pairs[0]
    return ("colour_{}_{}_error".format(*pair),), names | {"c": " - ".join(pair)}


def _values(one, columns, distance):
    """Values of a metric ``[column, scene]``, distances from the best unless they have a sign."""
    values = np.array([one[name] for name in columns])
    return {"": values, "size": np.abs(values), "below one": 1 - values}.get(distance, values)


def _centre(values, distance):
    values = values[np.isfinite(values)]
    if not values.size:
        return np.nan
    return float(np.mean(values) if distance == "size" else np.median(values))


def _strip(axes, series, values, label, distance):
    """All scenes: a bar a method, and its numbers beside it."""
    from matplotlib.transforms import blended_transform_factory

    levels = np.array(
        [
            np.percentile(v[np.isfinite(v)], PERCENTILES) if np.isfinite(v).any() else np.full(5, np.nan)
            for v in values
        ]
    )
    heads = (
        ("median", "half-width", "failures")
        if not distance
        else ("mean" if distance == "size" else "median", "failures")
    )
    beside = {
        "transform": blended_transform_factory(axes.figure.transFigure, axes.transData),
        "ha": "right",
        "fontsize": LEAST_FONT,
    }
    places = (0.79, 0.89, 0.98)
    for place, head in zip(places, heads):
        axes.text(place, len(series) - 0.35, head, va="bottom", **beside)
    for number, (one, value, row) in enumerate(zip(series, values, levels)):
        y, look = len(series) - 1 - number, method_look(one.method, number)
        axes.hlines(y, row[0], row[4], look.colour, lw=0.9)
        axes.hlines(y, row[1], row[3], look.colour, lw=4.5, alpha=0.45)
        axes.plot(row[2], y, look.marker, color=look.colour, ms=4.5, mew=1.0)
        numbers = [_number(_centre(value, distance), not distance)]
        numbers += [] if distance else [_number((row[3] - row[1]) / 2)]
        numbers += [str(_failures(one, value))]
        for place, text in zip(places, numbers):
            axes.text(place, y, text, va="center", **beside)
    axes.set_yticks(range(len(series))[::-1], [one.label for one in series])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(series) - 0.4)
    axes.set_xlabel(label, labelpad=1.5)
    chosen = levels[_judged(series)]
    chosen = chosen[np.isfinite(chosen).all(axis=1)]
    positive = chosen[chosen > 0]
    if distance and positive.size:
        axes.set_xlim(max(positive.min(), positive.max() * 1e-4) / 1.3, positive.max() * 1.3)
        axes.set_xscale("log")
        plain_log(axes.xaxis)
    elif chosen.size and not distance:
        reach = max(1.1 * np.abs(chosen).max(), 1e-4)
        axes.set_xlim(-reach, reach)
        axes.axvline(0, color="0.5", lw=0.6, zorder=0)
    low, high = axes.get_xlim()
    for number, (one, row) in enumerate(zip(series, levels)):
        if not low <= row[2] <= high and np.isfinite(row[2]):
            edge, marker = (high, ">") if row[2] > high else (low, "<")
            axes.plot(
                edge,
                len(series) - 1 - number,
                marker,
                color=method_look(one.method, number).colour,
                clip_on=False,
            )


def _judged(series):
    """Which methods set the scales: deblenders, or all where there is none."""
    found = np.array([one.method not in REFERENCES for one in series])
    return found if found.any() else ~found


def _failures(one, value):
    """Scenes without a value; of shapes, those whose truth has one."""
    missing = ~np.isfinite(value).all(axis=0)
    if one.n_scenes and "truth_flag" in one and "e1_true" in one:
        missing &= np.isfinite(one["e1_true"])
    return int(missing.sum())


def _number(value, signed=False):
    if not np.isfinite(value):
        return "-"
    if signed:
        return f"{round(value, 4) + 0.0:+.4f}".replace("-", "\u2212")
    return np.format_float_positional(float(f"{value:.3g}"), trim="-")


def _by_panels(panels, series, values, found, label, distance):
    signed = not distance
    lines = np.full((len(panels), len(found), len(series), 0), np.nan).tolist()
    for column, (by, bins) in enumerate(found.items()):
        numbers = bins.numbers(series[0][by])
        sorted_by = series[0][by]
        middles = np.array([_centre(sorted_by[numbers == k], "") for k in range(len(bins.edges) - 1)])
        for number, (one, value) in enumerate(zip(series, values)):
            groups = [value[:, numbers == k] for k in range(len(middles))]
            counts = np.array([np.isfinite(group).any(axis=0).sum() for group in groups])
            centres = np.array([_centre(group, distance) for group in groups])
            widths = np.array([_half_width(group) for group in groups])
            enough = counts >= LEAST_BOX
            look = method_look(one.method, number)
            style = {"color": look.colour, "marker": look.marker, "linestyle": look.line, "ms": 3.2}
            style |= {"lw": 1.3 if look.line == "-" else 0.9, "label": one.label}
            for row, level in enumerate((centres, widths) if signed else (centres,)):
                panels[row, column].plot(middles[enough], level[enough], **style)
                lines[row][column][number] = level[enough]
        for row in range(len(panels)):
            _panel_axis(panels[row, column], bins, middles[np.isfinite(middles)], row == len(panels) - 1)
    judged = np.flatnonzero(_judged(series))
    for row in range(len(panels)):
        level = np.concatenate([lines[row][c][k] for c in range(len(found)) for k in judged])
        axes = panels[row, 0]
        level = level[np.isfinite(level)]
        if signed and row == 0:
            axes.set_ylabel(f"median {label}")
            for panel in panels[0]:
                panel.axhline(0, color="0.5", lw=0.6, zorder=0)
            if level.size:
                low, high = min(level.min(), 0), max(level.max(), 0)
                margin = 0.12 * max(high - low, 1e-4)
                axes.set_ylim(low - margin, high + margin)
        else:
            axes.set_ylabel("half-width" if signed else ("mean" if distance == "size" else "median"))
            level = level[level > 0]
            if level.size:
                axes.set_ylim(level.min() / 1.25, level.max() * 1.25)
                axes.set_yscale("log")
                plain_log(axes.yaxis)
        axes.yaxis.set_label_coords(-0.38, 0.5)


def _half_width(values):
    values = values[np.isfinite(values)]
    return float(np.diff(np.percentile(values, (16, 84)))[0] / 2) if values.size else np.nan


def _panel_axis(axes, bins, places, labelled):
    """Scale, limits about the places of the points, and ticks."""
    from matplotlib.ticker import NullFormatter, NullLocator

    low, high = np.log10(places[[0, -1]]) if bins.log else places[[0, -1]]
    margin = 0.09 * max(high - low, 1e-3)
    low, high = low - margin, high + margin
    axes.set_xlim(*((10**low, 10**high) if bins.log else (low, high)))
    if bins.log:
        axes.set_xscale("log")
        ticks = [t for t in _SNR_TICKS if 10**low <= t <= 10**high]
        # Beside each other, all do not have room.
        ticks = ticks[:: 1 + (len(ticks) > 4)]
        axes.set_xticks(ticks, [f"{t}" for t in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.locator_params(axis="x", nbins=4, prune="both")
    if labelled:
        axes.set_xlabel(QUANTITIES[bins.by].label, labelpad=1.5, fontsize=7)
    axes.tick_params(axis="x", labelbottom=labelled)
