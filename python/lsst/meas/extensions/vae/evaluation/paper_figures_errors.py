# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of errors, as Arcelin et al. 2020 lay them out: 1, 4, 5, 6, 7, 8 and 9."""

import numpy as np

from ..errors import VaeError
from .paper_figures_data import (
    LEAST_BOX,
    LEAST_SLOPE,
    LEAST_WHISKER,
    QUANTITIES,
    alphas,
    counted,
    make_bins,
)
from .paper_figures_style import COLUMN, LEAST_FONT, PAGE, PaperFigure, light, looks, new_figure, styled

__all__ = ["alpha_by_snr", "distributions", "ellipticity_plane", "error_columns"]

_ERRORS = {"e_error": r"$\Delta |e|$", "mag_error": r"$\Delta {}$ [mag]"}
_SNR_TICKS = (3, 10, 30, 100, 300, 1000, 3000, 10000)

# Cells of the plane of ellipticities a side, and galaxies that one needs for an arrow.
_CELLS, _LEAST_ARROW = 15, 5
_REACH = 0.6

_BOXES = (
    "Boxes show the median and the 16 to 84 % range, whiskers the 2.3 to 97.7 % range, a few of which may "
    f"be cut; bins of fewer than {LEAST_BOX} scenes have no box, those of fewer than {LEAST_WHISKER} no "
    "whiskers. Below, the medians with their standard errors. Errors are the output's value less the "
    "noiseless target's; |<i>e</i>| is (<i>a</i>-<i>b</i>)/(<i>a</i>+<i>b</i>), by KSB."
)


@styled
def distributions(truth):
    """Figure 1: what the galaxies of a sample are.

    Parameters
    ----------
    truth : `astropy.table.Table`
        Columns e1_true and e2_true, or e1 and e2, of noiseless targets; r_mag; redshift, or else that panel
        is left out. One row a galaxy.

    Returns
    -------
    drawn : `~.paper_figures_style.PaperFigure`

    Raises
    ------
    VaeError
        Raised if a column is missing or has no value.
    """
    names = truth.colnames
    e = ("e1_true", "e2_true") if "e1_true" in names else ("e1", "e2")
    for name in (*e, "r_mag"):
        if name not in names:
            raise VaeError(f"the table of galaxies has no column {name!r}: simulate them again")
    values = {
        r"ellipticity $|e|$": (np.hypot(*(np.asarray(truth[name], float) for name in e)), (0.0, 1.0)),
        r"$r$ [mag]": (np.asarray(truth["r_mag"], float), None),
    }
    if "redshift" in names:
        values["redshift"] = np.asarray(truth["redshift"], float), None
    figure = new_figure(COLUMN, 1.25 * len(values), layout="constrained")
    for axes, (label, (column, span)) in zip(
        figure.subplots(len(values), squeeze=False)[:, 0], values.items()
    ):
        column = column[np.isfinite(column)]
        if not column.size:
            raise VaeError(f"no galaxy has a value of {label}: nothing can be drawn")
        low, high = np.percentile(column, [0.1, 99.9]) if span is None else span
        high = max(high, column.max()) if label.startswith("$r$") else high
        axes.hist(column, np.linspace(low, high, 41) if high > low else 10, color=light("#0072B2", 0.35))
        axes.set(xlabel=label, ylabel="galaxies", xlim=(low, high) if high > low else None)
        axes.margins(x=0)
    redshift = ", magnitude in <i>r</i> and redshift" if "redshift" in names else " and magnitude in <i>r</i>"
    return PaperFigure(
        figure,
        "Galaxies of the test sample",
        "Ellipticity |<i>e</i>| = (<i>a</i>-<i>b</i>)/(<i>a</i>+<i>b</i>) of the noiseless images "
        f"(KSB){redshift} of {counted(len(truth), 'galaxies')}; the outermost 0.1 % may be beyond the "
        "axes.",
    )


@styled
def ellipticity_plane(series):
    """Figure 4: measured against true ellipticity, and where images are driven to in the plane of both.

    Parameters
    ----------
    series : `~.paper_figures_data.Series`
        Errors of the prior on isolated galaxies, or of a deblender.

    Returns
    -------
    drawn : `~.paper_figures_style.PaperFigure`

    Raises
    ------
    VaeError
        Raised if columns are missing, or nothing was measured.
    """
    true, out = (np.array([series[f"e{i}{end}"] for i in (1, 2)]) for end in ("_true", ""))
    good = np.isfinite(true).all(axis=0) & np.isfinite(out).all(axis=0)
    if not good.any():
        raise VaeError(f"no shape of {series.label} was measured: nothing can be drawn")
    true, out = true[:, good], out[:, good]
    pairs = [
        ("$e_1$", true[0], out[0], (-1, 1)),
        ("$e_2$", true[1], out[1], (-1, 1)),
        ("$|e|$", np.hypot(*true), np.hypot(*out), (0, 1)),
    ]
    figure = new_figure(PAGE, 1.75, layout="constrained")
    panels = figure.subplots(1, 4)
    for axes, (name, x, y, span) in zip(panels, pairs):
        _density(axes, x, y, np.linspace(*span, 61))
        axes.axline((0, 0), slope=1, color="#D55E00", lw=0.7)
        axes.set(xlabel=f"{name} of the target", ylabel=f"{name} of the output")
        _square_ticks(axes, np.linspace(*span, 5))
    axes = panels[3]
    edges = np.linspace(-_REACH, _REACH, _CELLS + 1)
    _density(axes, *true, np.linspace(-_REACH, _REACH, 3 * _CELLS + 1))
    x, y, dx, dy = _arrows(true, out, edges)
    axes.quiver(
        x, y, dx, dy, angles="xy", scale_units="xy", scale=1, width=0.007, headwidth=4, headlength=4,
        headaxislength=3.5, color="black", zorder=3,
    )  # fmt: skip
    axes.set(xlabel="$e_1$ of the target", ylabel="$e_2$ of the target")
    _square_ticks(axes, (-0.5, 0, 0.5))
    return PaperFigure(
        figure,
        "Ellipticities before and after",
        f"Ellipticities of the {_noun(series)} output against those of the noiseless target (KSB), "
        f"{series.label.replace('$', '')}, {counted(len(true[0]), 'galaxies')}. The darker, the more "
        "galaxies (logarithmic); the line is equality. Right: arrows from the targets' ellipticities by "
        f"the median error of both components in each cell of at least {_LEAST_ARROW} galaxies, on the "
        "scale of the axes.",
    )


def _square_ticks(axes, ticks):
    texts = [f"{tick:g}".replace("-", "\u2212") for tick in ticks]
    axes.set_xticks(ticks, texts)
    axes.set_yticks(ticks, texts)


def _noun(series):
    return "prior's" if series.kind == "isolated" else "deblender's"


def _density(axes, x, y, edges):
    """Numbers of points in squares, logarithmic shades."""
    from matplotlib.colors import LogNorm

    counts = np.histogram2d(y, x, (edges, edges))[0]
    axes.imshow(
        np.where(counts > 0, counts, np.nan),
        extent=(edges[0], edges[-1]) * 2,
        origin="lower",
        interpolation="nearest",
        cmap="Blues",
        # The faintest shade is to be seen, the darkest leaves lines and arrows visible.
        norm=LogNorm(0.3, max(3.0 * counts.max(), 3.0)),
        aspect="equal",
    )


def _arrows(true, out, edges):
    """Middles of the cells, and the median errors of both components in them."""
    column, row = (np.digitize(e, edges) - 1 for e in true)
    rows = []
    for k in np.unique(row * 1000 + column):
        i, j = divmod(int(k), 1000)
        inside = (row == i) & (column == j)
        if 0 <= i < _CELLS and 0 <= j < _CELLS and inside.sum() >= _LEAST_ARROW:
            middle = (edges[j] + edges[j + 1]) / 2, (edges[i] + edges[i + 1]) / 2
            rows.append((*middle, *np.median(out[:, inside] - true[:, inside], axis=1)))
    return np.array(rows).reshape(-1, 4).T


@styled
def error_columns(series, rows, title, bins="paper", errors=("e_error", "mag_error")):
    """Figures 5, 6 and 7: errors by what makes scenes hard, in columns of three panels.

    On top how many scenes there are, in the middle the distributions of the errors in bins, below their
    medians. All rows of a column have the same scales.

    Parameters
    ----------
    series : sequence of `~.paper_figures_data.Series`
        Side by side; the first makes the bins and the upper panels.
    rows : sequence of `str`
        Of `~.paper_figures_data.QUANTITIES`.
    title : `str`
        What is shown, in a few words.
    bins : {"paper", "quantiles"}, optional
        See `~.stamp_table.bin_edges`.
    errors : sequence of `str`, optional
        Columns of errors, one a column of the figure.

    Returns
    -------
    drawn : `~.paper_figures_style.PaperFigure`

    Raises
    ------
    VaeError
        Raised if columns are missing, or no bin has enough scenes.
    """
    _need(series)
    made = {by: make_bins(series[0][by], by, bins) for by in rows}
    found = {
        (by, error): [made[by].percentiles(s[error], s[by]) for s in series]
        for by in rows
        for error in errors
    }
    if not any((counts >= LEAST_BOX).any() for column in found.values() for _, counts in column):
        raise VaeError(f"no bin has {LEAST_BOX} scenes: simulate more, or take bins of equal numbers")
    height = 0.45 + 2.1 * len(rows)
    figure = new_figure(PAGE, height)
    outer = figure.add_gridspec(
        len(rows), len(errors), left=0.105, right=0.975, top=1 - 0.3 / height, bottom=0.36 / height,
        hspace=0.25, wspace=0.28,
    )  # fmt: skip
    for column, error in enumerate(errors):
        lower_limit, middle_limit = _limits([found[by, error] for by in rows])
        for row, by in enumerate(rows):
            inner = outer[row, column].subgridspec(3, 1, height_ratios=(0.9, 2.5, 1.1), hspace=0)
            top, middle, bottom = (figure.add_subplot(inner[k]) for k in range(3))
            _counts(top, series[0][by], made[by])
            for number, (one, (levels, counts), look) in enumerate(
                zip(series, found[by, error], looks(len(series)))
            ):
                _boxes(middle, made[by], levels, counts, number, len(series), look)
                _medians(bottom, made[by], levels, counts, number, len(series), look, one.label)
            reference = series[0].reference
            middle.set(ylabel=_ERRORS[error].format(reference), ylim=(-middle_limit, middle_limit))
            bottom.set(ylim=(-lower_limit, lower_limit))
            bottom.set_ylabel("median", fontsize=LEAST_FONT)
            for axes in (middle, bottom):
                axes.axhline(0, color="0.5", lw=0.6, zorder=0)
                axes.set_yticks(_ticks(axes.get_ylim()[1]))
            middle.set_yticks(_ticks(middle_limit)[[0, 2]] / 2, minor=True)
            for axes in (top, middle, bottom):
                _x_axis(axes, made[by], axes is bottom)
                axes.yaxis.set_label_coords(-0.145, 0.5)
    handles, labels = bottom.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="upper center", ncols=len(series), bbox_to_anchor=(0.5, 1.0), fontsize=8
    )
    what = ", ".join(QUANTITIES[by].words for by in rows)
    sizes = "; ".join(f"{s.label.replace('$', '')}: {counted(s.n_scenes)}" for s in series)
    lost = "".join(_beyond(series[0], made[by]) for by in rows)
    return PaperFigure(
        figure,
        title,
        f"Errors of |<i>e</i>| and of the magnitude in <i>{series[0].reference}</i> of {series[0].kind} "
        f"targets, by {what}. {sizes}. On top the numbers of scenes of the first sample. {_BOXES}{lost}",
    )


def _need(series):
    if not series:
        raise VaeError("no method was measured on such scenes: measure one at least")


def _beyond(series, bins):
    values = series[bins.by]
    part = np.mean(bins.numbers(values[np.isfinite(values)]) < 0)
    return (
        f" {100 * part:.1f} % of the scenes are beyond the axis of {QUANTITIES[bins.by].words}."
        if part > 0.001
        else ""
    )


def _limits(cells):
    """Half heights of the panels of medians and of boxes, which all rows share.

    All boxes and medians are within; a few long whiskers and error bars must not make all else small.
    """
    levels, counts = (np.concatenate([pair[k] for cell in cells for pair in cell], axis=-1) for k in (0, 1))
    levels = np.where(counts >= LEAST_BOX, levels, 0)
    whiskers = np.abs(levels[[0, 4]][:, counts >= LEAST_WHISKER])
    middle = max(0.01, np.abs(levels[[1, 3]]).max(), np.percentile(whiskers, 97) if whiskers.size else 0)
    with_errors = np.abs(levels[2]) + _median_errors(levels, counts)
    return 1.2 * max(0.002, np.abs(levels[2]).max(), np.percentile(with_errors, 95)), 1.08 * middle


def _ticks(limit):
    """The largest round number within, its negative, and zero: nothing at the edge."""
    power = 10.0 ** np.floor(np.log10(limit))
    step = max(power * s for s in (0.5, 0.6, 0.8, 1, 1.5, 2, 3, 4, 5, 6) if power * s <= 0.75 * limit)
    return np.array([-step, 0, step])


def _median_errors(levels, counts):
    """Standard errors of medians of Gaussian errors, sqrt(pi/2) half-width / sqrt(number)."""
    return np.sqrt(np.pi / 2) * (levels[3] - levels[1]) / 2 / np.sqrt(np.maximum(counts, 1))


def _counts(axes, values, bins):
    values = values[np.isfinite(values)]
    ends = bins.edges[[0, -1]]
    edges = np.geomspace(*ends, 41) if bins.log else np.linspace(*ends, 41)
    if bins.by == "n_galaxies":
        edges = bins.edges
    axes.hist(values, edges, histtype="stepfilled", color="0.78")
    axes.set_ylabel("scenes", fontsize=LEAST_FONT)
    axes.margins(y=0.12)
    axes.locator_params(axis="y", nbins=3)
    # Zero would touch the panel below.
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 < tick < axes.get_ylim()[1]])


def _boxes(axes, bins, levels, counts, number, total, look):
    left, middle, right = bins.slots(number, total)
    boxed, whiskered = counts >= LEAST_BOX, counts >= LEAST_WHISKER
    axes.bar(
        left[boxed],
        (levels[3] - levels[1])[boxed],
        (right - left)[boxed],
        levels[1][boxed],
        align="edge",
        facecolor=light(look.colour, 0.7),
        edgecolor=look.colour,
        linewidth=0.7,
        hatch=("", "//////", r"\\\\\\", "xxxxxx")[number % 4],
    )
    axes.hlines(levels[2][boxed], left[boxed], right[boxed], look.colour, lw=1.4)
    for end, start in ((0, 1), (4, 3)):
        axes.vlines(middle[whiskered], levels[start][whiskered], levels[end][whiskered], look.colour, lw=0.8)
        axes.plot(middle[whiskered], levels[end][whiskered], "_", color=look.colour, ms=4, mew=0.8)


def _medians(axes, bins, levels, counts, number, total, look, label):
    middle, boxed = bins.slots(number, total)[1], counts >= LEAST_BOX
    axes.errorbar(
        middle[boxed],
        levels[2][boxed],
        _median_errors(levels, counts)[boxed],
        linestyle=look.line,
        linewidth=0.8,
        label=label,
        **look.errorbar(),
    )


def _x_axis(axes, bins, labelled):
    """Scale, limits and ticks; numbers and name on the lowest panel alone."""
    from matplotlib.ticker import NullFormatter

    if bins.log:
        axes.set_xscale("log")
        ticks = [t for t in _SNR_TICKS if bins.edges[0] <= t <= bins.edges[-1]]
        axes.set_xticks(ticks, [f"{t}" for t in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(bins.edges[0], bins.edges[-1])
    if labelled:
        axes.set_xlabel(QUANTITIES[bins.by].label, labelpad=1.5)
    else:
        axes.tick_params(axis="x", which="both", labelbottom=False, length=0)


@styled
def alpha_by_snr(series, title, bins="paper", n_bootstrap=100, note="", styles=None):
    """Figures 8 and 9: multiplicative bias of ellipticities by signal to noise.

    Parameters
    ----------
    series : sequence of `~.paper_figures_data.Series`
        Side by side; the first makes the bins and the upper panel.
    title : `str`
        What is shown, in a few words.
    bins : {"paper", "quantiles"}, optional
        See `~.stamp_table.bin_edges`.
    n_bootstrap : `int`, optional
        Bootstrap samples for the errors.
    note : `str`, optional
        HTML that goes to the end of the caption.
    styles : sequence of `~.paper_figures_style.Look`, optional
        How series are drawn.

    Returns
    -------
    drawn : `~.paper_figures_style.PaperFigure`

    Raises
    ------
    VaeError
        Raised if columns are missing, or no bin has enough scenes.
    """
    _need(series)
    made = make_bins(series[0]["snr"], "snr", bins, least=LEAST_SLOPE + 10)
    height = 2.75 + 0.16 * len(series)
    figure = new_figure(COLUMN, height)
    top, axes = figure.subplots(
        2, 1, height_ratios=(0.8, 3),
        gridspec_kw={"hspace": 0, "left": 0.17, "right": 0.95, "top": 0.985,
                     "bottom": (0.42 + 0.16 * len(series)) / height},
    )  # fmt: skip
    _counts(top, series[0]["snr"], made)
    low, high, drawn = [-0.01], [0.01], False
    for number, (one, look) in enumerate(zip(series, styles or looks(len(series)))):
        (overall,), (error,), (plain,), _ = alphas(one, None, n_bootstrap)
        alpha, errors, _, _ = alphas(one, made, n_bootstrap)
        known = np.isfinite(alpha)
        drawn |= known.any()
        low.append(np.min(alpha - np.nan_to_num(errors), initial=0, where=known))
        high.append(np.max(alpha + np.nan_to_num(errors), initial=0, where=known))
        axes.errorbar(
            made.slots(number, len(series))[1][known],
            alpha[known],
            errors[known],
            linestyle="none",
            label=f"{one.label}: {_signed(overall)} \u00b1 {error:.3f} (plain {_signed(plain)})",
            **look.errorbar(),
        )
    if not drawn:
        raise VaeError(f"no bin of signal to noise has {LEAST_SLOPE} scenes: simulate more")
    axes.axhline(0, color="0.5", lw=0.6, zorder=0)
    # Points between two lines are of one bin.
    for edge in made.edges[1:-1]:
        axes.axvline(edge, color="0.9", lw=0.5, zorder=0)
    margin = 0.08 * (max(high) - min(low))
    axes.set(ylim=(min(low) - margin, max(high) + margin), ylabel=r"$\alpha$, mean of both components")
    for panel in (top, axes):
        _x_axis(panel, made, panel is axes)
        panel.yaxis.set_label_coords(-0.16, 0.5)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="lower left", bbox_to_anchor=(0.02, 0.0), borderaxespad=0.2
    )
    sizes = "; ".join(f"{s.label.replace('$', '')}: {counted(s.n_scenes)}" for s in series)
    return PaperFigure(
        figure,
        title,
        "Multiplicative bias of the ellipticity, &alpha;: the slope of the output's ellipticity on that of "
        "the noiseless target less 1, the mean of both components, by the signal to noise of the target "
        "alone. Outliers are clipped at 3 sigma, bars are bootstrap errors; in the legend all scenes "
        f"together, in brackets without clipping, which outliers drive. {sizes}. On top the numbers of "
        "scenes of the first sample; bins of "
        f"fewer than {LEAST_SLOPE} scenes are left out. {note}".strip(),
    )


def _signed(value):
    return f"{round(float(value), 3) + 0.0:+.3f}".replace("-", "\u2212")
