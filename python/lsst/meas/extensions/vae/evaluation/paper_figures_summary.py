# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deblenders beside each other, from summaries: what they cost, how near the bound they come, and shear."""

import numpy as np

from ..errors import VaeError
from .paper_figures_data import LEAST_BOX, QUANTITIES, counted
from .paper_figures_style import (
    COLUMN,
    PAGE,
    REFERENCES,
    PaperFigure,
    method_label,
    method_look,
    new_figure,
    plain_log,
    styled,
)

__all__ = ["compare_bound", "compare_cost", "compare_shear"]


@styled
def compare_cost(summary, kind="blended"):
    """What deblenders reach, and what it costs.

    Parameters
    ----------
    summary : `astropy.table.Table`
        As `~.stamp_table.summarise_stamps` gives it, with seconds_per_source.
    kind : `str`, optional
        Kind of scenes.

    Returns
    -------
    drawn : `~.paper_figures_style.PaperFigure`

    Raises
    ------
    VaeError
        Raised if costs are not told.
    """
    rows = _rows(summary, kind, ("seconds_per_source", "e_half_width", "mag_half_width"), ("all",))
    rows = [row for row in rows if row["method"] not in REFERENCES and np.isfinite(row["seconds_per_source"])]
    if not rows:
        raise VaeError("no deblender's seconds are told: measure stamps again")
    legend = 0.16 * -(-len(rows) // 3) + 0.1
    height = 3.0 + legend
    figure = new_figure(COLUMN, height)
    panels = figure.subplots(
        2, 1, sharex=True,
        gridspec_kw={"left": 0.19, "right": 0.95, "top": 1 - legend / height, "bottom": 0.4 / height,
                     "hspace": 0.08},
    )  # fmt: skip
    reference = summary.meta.get("reference_band", "r")
    for axes, name, label in zip(
        panels, ("e", "mag"), (r"half-width of $\Delta |e|$", rf"half-width of $\Delta {reference}$ [mag]")
    ):
        for number, row in enumerate(rows):
            method = str(row["method"])
            look = method_look(method, number)
            width = row[f"{name}_half_width"]
            axes.plot(
                1e3 * row["seconds_per_source"], width, look.marker, color=look.colour, ms=6,
                ls="none", label=method_label(method),
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.12 * max(row[f"{name}_half_width"] for row in rows))
        axes.margins(x=0.12)
        axes.grid(color="0.9", lw=0.5)
        axes.set_axisbelow(True)
    plain_log(panels[1].xaxis)
    panels[1].set_xlabel("time of one source [ms]")
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="upper center",
        ncols=3,
        columnspacing=1.0,
        borderaxespad=0.1,
    )
    return PaperFigure(
        figure,
        "Deblenders compared: errors and time",
        "Half-widths (half the 16 to 84 % range) of the errors of |<i>e</i>| and of the magnitude in "
        f"<i>{reference}</i> against the time by the clock that each method takes for one source, in this "
        f"run, on {counted(int(rows[0]['scenes']))}. What is lower and farther left is better.",
    )


@styled
def compare_bound(summary, kind="blended"):
    """Errors in units of the Cramer-Rao bound, by signal to noise.

    Parameters
    ----------
    summary : `astropy.table.Table`
        As `~.stamp_table.summarise_stamps` gives it of errors with bounds (see `~.cramer_rao`).
    kind : `str`, optional
        Kind of scenes.

    Returns
    -------
    drawn : `~.paper_figures_style.PaperFigure`

    Raises
    ------
    VaeError
        Raised if bounds are not told.
    """
    rows = _rows(summary, kind, ("component_ratio", "mag_ratio"), ("snr", "all"))
    binned = [row for row in rows if row["by"] == "snr" and row["scenes"] >= LEAST_BOX]
    if not any(np.isfinite(row["component_ratio"]) for row in binned):
        raise VaeError("no bin of signal to noise has a Cramer-Rao bound: add bounds to the errors first")
    methods = sorted(dict.fromkeys(str(row["method"]) for row in binned), key=lambda name: name in REFERENCES)
    figure = new_figure(PAGE, 2.75)
    panels = figure.subplots(
        1, 2, gridspec_kw={"left": 0.08, "right": 0.985, "top": 0.78, "bottom": 0.16, "wspace": 0.2}
    )
    reference = summary.meta.get("reference_band", "r")
    for axes, name, label in zip(panels, ("component", "mag"), (r"$e_1, e_2$", f"${reference}$")):
        for number, method in enumerate(methods):
            mine = sorted((row for row in binned if row["method"] == method), key=lambda row: row["low"])
            x = [np.sqrt(row["low"] * row["high"]) * 1.03 ** (number - len(methods) / 2) for row in mine]
            look = method_look(method, number)
            axes.errorbar(
                x,
                [row[f"{name}_ratio"] for row in mine],
                [
                    row[f"{name}_ratio_error"] if f"{name}_ratio_error" in row.colnames else np.nan
                    for row in mine
                ],
                linestyle=look.line,
                linewidth=1.0,
                label=method_label(method),
                **look.errorbar(),
            )
        axes.axhline(1, color="0.3", lw=0.7, ls="--", zorder=0)
        axes.set(
            xscale="log", yscale="log", ylabel=f"error of {label} / bound", xlabel=QUANTITIES["snr"].label
        )
        for axis in (axes.xaxis, axes.yaxis):
            plain_log(axis)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="upper center",
        ncols=min(4, len(methods)),
        columnspacing=1.2,
    )
    return PaperFigure(
        figure,
        "Deblenders compared: errors and what noise allows",
        "Half-widths (half the 16 to 84 % range) of errors of <i>e</i><sub>1</sub> and "
        f"<i>e</i><sub>2</sub>, and of the magnitude in <i>{reference}</i>, each in units of its scene's "
        "Cramer-Rao bound, by the signal to noise of the target alone; bars are standard errors. Dashed: "
        "the bound of an unbiased measurement. What knows what galaxies look like, or is biased, may be "
        "below it.",
    )


@styled
def compare_shear(biases, kind="blended"):
    """Multiplicative and additive biases of shear, uncalibrated, of deblenders and of the noiseless targets.

    Parameters
    ----------
    biases : `astropy.table.Table`
        As `~.shear_bias.shear_bias` gives it.
    kind : `str`, optional
        Kind of scenes.

    Returns
    -------
    drawn : `~.paper_figures_style.PaperFigure`

    Raises
    ------
    VaeError
        Raised if columns or rows are missing.
    """
    for name in (
        "kind",
        "method",
        "scenes",
        *(f"{x}_{i}{e}" for x in "mc" for i in (1, 2) for e in ("", "_error")),
    ):
        if name not in biases.colnames:
            raise VaeError(f"the table of shear biases has no column {name!r}: measure them again")
    rows = [row for row in biases if str(row["kind"]) == kind]
    if not rows:
        raise VaeError(f"the table of shear biases has no {kind} scenes: measure some")
    height = 0.75 + 0.24 * len(rows)
    figure = new_figure(PAGE, height)
    panels = figure.subplots(
        1, 2, sharey=True,
        gridspec_kw={"left": 0.175, "right": 0.985, "top": 1 - 0.25 / height, "bottom": 0.4 / height,
                     "wspace": 0.08},
    )  # fmt: skip
    for axes, name in zip(panels, "mc"):
        for number, row in enumerate(rows):
            look = method_look(str(row["method"]), number)
            for i in (1, 2):
                axes.errorbar(
                    row[f"{name}_{i}"], len(rows) - 1 - number + (0.15, -0.15)[i - 1],
                    xerr=row[f"{name}_{i}_error"], linestyle="none", color=look.colour, elinewidth=0.8, ms=4,
                    marker=("o", "s")[i - 1], markerfacecolor=(look.colour, "white")[i - 1],
                )  # fmt: skip
        axes.axvline(0, color="0.5", lw=0.6, zorder=0)
        axes.set_xlabel(f"${name}$")
        axes.locator_params(axis="x", nbins=6)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(rows))[::-1], [method_label(str(row["method"])) for row in rows])
    panels[0].set_ylim(-0.6, len(rows) - 0.4)
    marks = [
        panels[0].plot([], [], marker, color="0.2", mfc=fill)[0]
        for marker, fill in (("o", "0.2"), ("s", "white"))
    ]
    figure.legend(marks, ["component 1", "component 2"], loc="upper center", ncols=2, borderaxespad=0.1)
    return PaperFigure(
        figure,
        "Deblenders compared: shear biases",
        "Multiplicative bias <i>m</i> and additive bias <i>c</i> of shear, not calibrated, of "
        f"{counted(int(rows[0]['scenes']))} in five sheared versions each; discs are the first component, "
        "squares the second, bars are jackknife errors. What the noiseless targets have is the shape "
        "measurement's own.",
    )


def _rows(summary, kind, columns, by):
    for name in ("kind", "method", "by", "low", "high", "scenes", *columns):
        if name not in summary.colnames:
            raise VaeError(f"the summary has no column {name!r}: summarise the errors again")
    return [row for row in summary if str(row["kind"]) == kind and str(row["by"]) in by]
