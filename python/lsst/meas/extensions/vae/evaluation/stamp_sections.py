# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a summary of errors on stamps tells, as sections of a report: heading, notes and a table of words."""

import math
from dataclasses import dataclass

import numpy as np

from ..version import __version__
from .metrics import colour_pairs
from .targets import MIN_NUMBER

__all__ = ["Section", "stamp_facts", "stamp_sections"]

_QUANTITIES = {
    "snr": "signal to noise",
    "b_tot": "B_tot",
    "delta_mag_c": "magnitude of the nearest neighbour less the target's",
    "b_closest": "B_closest",
    "n_galaxies": "number of galaxies",
}
_HEAD = (
    "scenes",
    "failures",
    "abs(e) median",
    "abs(e) half-width",
    "2.3 to 97.7 %",
    "e1, e2 half-width",
    "{r} median",
    "{r} half-width",
    "2.3 to 97.7 %",
    "alpha_1",
    "alpha_2",
)
_MORE_HEAD = (
    "abs(e) outliers",
    "{r} outliers",
    "mean abs(d{r}/{r})",
    "{colour} median",
    "{colour} half-width",
    "cosine",
    "SSIM",
    "chi2 a pixel",
)
_BOUND_HEAD = ("scenes", "e1, e2 bound", "half-width", "ratio", "{r} bound", "half-width", "ratio")
_COST_HEAD = ("ms a source", "sources a second and core", "memory [MiB]")
_MORE_NOTES = """Outliers are farther from the median than three half-widths (0.29 % of a Gaussian's).
d{r}/{r} is the relative error of the flux. Of the pixels: medians of the cosine similarity and the structural
similarity in {r} (Wang et al. 2004), and of the mean of (image - noiseless target)^2 in units of the scene's
noise."""
_BOUND_NOTES = """The Cramer-Rao bound is what noise allows an unbiased measurement that knows how many
galaxies there are and what their profiles can be. Ratios are half-widths of errors in units of each scene's
own bound. What knows more, as a prior of what galaxies look like, or is biased, may have a ratio below 1: at
low signal to noise good methods do."""
_SHEAR_NOTES = """m is the mean response of e to shear less 1, from versions of a scene that share their
noise; c the mean of e without shear. Relative ones are those beside the noiseless targets, measured in the
same way: what deblending adds to KSB's own. +- is the standard error, a jackknife's over scenes."""
_TARGET_NOTES = f"The worst bin is among those with at least {MIN_NUMBER} measured scenes."
_COST_NOTES = """Times are those of this run, with what else the machine did; a source is a target, or for a
method that separates all galaxies of a scene any of these. Memory is the most that one call held beyond what
the process held before."""
_NOTES = """Errors are the output's value less the noiseless target's: shapes by HSM's KSB, magnitudes from
the sum of all pixels. Half-widths are half the 16-84 % range; +- is a standard error. alpha is the slope of
output on true ellipticity less 1, outliers clipped at 3 sigma, with its bootstrap error; in brackets the
plain slope, which outliers drive. "none" is the noisy blend as it is, "isolated" the target alone with the
same noise. Failures are scenes without a shape whose noiseless target has one; after a comma, scenes whose
pixels do not sum to a magnitude."""


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes
    ----------
    title, notes : `str`
        Heading, and what the numbers are.
    head : sequence of `str`
        Titles of columns.
    rows : `list` [`list` [`str`]]
        Cells.
    detail : `bool`
        One for those who want to know more.
    """

    title: str
    notes: str
    head: tuple
    rows: list
    detail: bool = False


def stamp_sections(summary, verdicts, shear=None):
    """Sections of a report.

    Parameters
    ----------
    summary : `astropy.table.Table`
        As `~.stamp_table.summarise_stamps` gives it.
    verdicts : `astropy.table.Table`
        As `~.targets.judge` gives it.
    shear : `astropy.table.Table`, optional
        As `~.shear_bias.shear_bias` gives it.

    Returns
    -------
    sections : `list` [`Section`]
        Those that have rows.
    """
    head = [name.format(r=summary.meta["reference_band"]) for name in _HEAD]
    overall = [row for row in summary if row["by"] in ("all", "snr_min")]
    sections = [
        _targets(verdicts) if len(verdicts) else None,
        Section("All scenes", _NOTES, [*_LEFT, *head], [_overall_row(row) for row in overall]),
        _more(summary, overall),
        _bounds(summary),
        _shear(shear) if shear is not None else None,
        _costs(summary),
    ]
    for kind in dict.fromkeys(summary["kind"].tolist()):
        for by, name in _QUANTITIES.items():
            rows = [row for row in summary if row["kind"] == kind and row["by"] == by]
            rows.sort(key=lambda row: row["low"])  # stable: methods stay in order
            title = f"{kind.capitalize()} targets, by {name}"
            sections.append(
                Section(title, "", [by, "method", *head], [_bin_row(row) for row in rows], detail=True)
            )
    return [section for section in sections if section is not None and section.rows]


def stamp_facts(summary):
    """What was measured, and by what.

    Parameters
    ----------
    summary : `astropy.table.Table`
        As `~.stamp_table.summarise_stamps` gives it.

    Returns
    -------
    facts : `list` [`str`]
    """
    meta = summary.meta
    lines = []
    for kind, samples in meta["samples"].items():
        scenes = {int(row["scenes"]) for row in summary if row["kind"] == kind and row["by"] == "all"}
        split = ", ".join(sorted({sample["split"] for sample in samples}))
        seeds = ", ".join(str(sample["seed"]) for sample in samples)
        seconds = ", ".join(f"{name} {value:.1f} s" for name, value in meta["seconds"][kind].items())
        lines.append(
            f"{max(scenes)} {kind} scenes of the {split} split of {meta['survey']}, seeds {seeds}; {seconds}"
        )
    package = meta.get("package")
    if package:
        lines.append(f"model package {package['name']}, sha256 {package['sha256'][:16]}")
    correlation = meta["noise_correlation"]
    lines.append(
        f"bands {', '.join(meta['bands'])}; {meta['noise']} noise"
        + (f", correlated by {correlation:g}" if correlation else "")
        + f"; bins: {meta['bins']}; {meta['n_bootstrap']} bootstrap samples"
        + f"; meas_extensions_vae {__version__}"
    )
    return lines


def _targets(verdicts):
    """What was to be reached."""

    def limit(row, name, met):
        return "" if math.isnan(row[name]) else f"{abs(row[name]):.3g}: {row[met]}"

    head = ["method", "quantity", "value", "where", "paper: as good", "reach", "aim"]
    rows = [
        [
            row["method"],
            row["quantity"].replace("|e|", "abs(e)"),
            _with_error(row["value"], row["error"]),
            row["where"],
            limit(row, "paper", "better_than_paper"),
            limit(row, "reach", "reached"),
            limit(row, "aim", "aim_reached"),
        ]
        for row in verdicts
    ]
    return Section("Targets", _TARGET_NOTES, head, rows)


def _more(summary, rows):
    """Colours, fluxes and pixels, of all scenes."""
    reference, bands = summary.meta["reference_band"], list(summary.meta["bands"])
    pairs = [pair for pair in (("g", "r"), *colour_pairs(bands)) if set(pair) <= set(bands)]
    # One band has no colour.
    pair = pairs[0] if pairs else ("", "")
    name = "colour_{}_{}".format(*pair)
    words = {"r": reference, "colour": " - ".join(pair)}

    def cells(row):
        colour = [_signed(row[f"{name}_median"]), _number(row[f"{name}_half_width"])] if pairs else ["-", "-"]
        return [
            *_left(row),
            _percent(row["e_outliers"]),
            _percent(row["mag_outliers"]),
            _number(row[f"flux_{reference}_residual"]),
            *colour,
            *(_number(row[f"{name}_median"], 4) for name in ("cosine", "ssim")),
            _number(row["chi2_median"]),
        ]

    head = [title.format(**words) for title in _MORE_HEAD]
    notes = _MORE_NOTES.format(**words)
    return Section("Colours, fluxes and pixels", notes, [*_LEFT, *head], [cells(row) for row in rows])


def _bounds(summary):
    """Errors beside what noise allows, of all scenes and by signal to noise; nothing where it is not told."""
    if "component_ratio" not in summary.colnames or not np.isfinite(summary["component_ratio"]).any():
        return None

    def cells(row):
        return [
            *_left(row),
            str(row["scenes"]),
            *(
                text
                for name in ("component", "mag")
                for text in (
                    _number(row[f"{name}_bound"], 4),
                    _number(row[f"{name}_half_width"], 4),
                    _with_error(row[f"{name}_ratio"], row[f"{name}_ratio_error"], sign=False),
                )
            ),
        ]

    rows = [row for row in summary if row["by"] in ("all", "snr") and np.isfinite(row["component_ratio"])]
    rows.sort(key=lambda row: (row["kind"], row["by"], row["low"] if row["by"] == "snr" else 0.0))
    head = [title.format(r=summary.meta["reference_band"]) for title in _BOUND_HEAD]
    return Section("Beside the Cramer-Rao bound", _BOUND_NOTES, [*_LEFT, *head], [cells(row) for row in rows])


def _shear(shear):
    """Biases of shear."""
    names = ("m_1", "m_2", "m_1_relative", "m_2_relative", "c_1_relative", "c_2_relative")
    head = ["sample", "method", "scenes", *(name.replace("_relative", ", relative") for name in names)]
    rows = [
        [
            row["kind"],
            row["method"],
            str(row["scenes"]),
            *(_with_error(row[name], row[f"{name}_error"], digits=4) for name in names),
        ]
        for row in shear
    ]
    return Section(f"Shear biases, step {shear.meta['shear_step']:g}", _SHEAR_NOTES, head, rows)


def _costs(summary):
    """What methods cost; nothing where it is not told."""
    if "seconds_per_source" not in summary.colnames:
        return None
    rows = [row for row in summary if row["by"] == "all" and math.isfinite(row["seconds_per_source"])]
    if not rows:
        return None

    def cells(row):
        memory = f"{row['memory']:.0f}" if math.isfinite(row["memory"]) else "-"
        rate = (
            f"{row['sources_per_core_second']:.3g}" if math.isfinite(row["sources_per_core_second"]) else "-"
        )
        return [row["kind"], row["method"], f"{1e3 * row['seconds_per_source']:.3g}", rate, memory]

    return Section("Cost", _COST_NOTES, ["sample", "method", *_COST_HEAD], [cells(row) for row in rows])


_LEFT = ("sample", "method", "targets")


def _left(row):
    targets = {"all": "all", "snr_min": f"SNR > {row['low']:g}"}.get(row["by"])
    return [row["kind"], row["method"], targets or f"SNR {row['low']:.3g} to {row['high']:.3g}"]


def _overall_row(row):
    return [*_left(row), *_cells(row)]


def _bin_row(row):
    low, high = row["low"], row["high"]
    if row["by"] == "n_galaxies":
        return [f"{low:g}" if high == low + 1 else f"{low:g} to {high - 1:g}", row["method"], *_cells(row)]
    return [f"{low:.3g} to {high:.3g}", row["method"], *_cells(row)]


def _cells(row):
    failures = str(row["failures"]) + (f", {row['mag_failures']}" if row["mag_failures"] else "")
    return [
        str(row["scenes"]),
        failures,
        _with_error(row["e_median"], row["e_median_error"]),
        _number(row["e_half_width"]),
        _range(row["e_low"], row["e_high"]),
        _number(row["component_half_width"]),
        _with_error(row["mag_median"], row["mag_median_error"]),
        _number(row["mag_half_width"]),
        _range(row["mag_low"], row["mag_high"]),
        *(
            f"{_with_error(row[f'alpha_{i}'], row[f'alpha_{i}_error'])} ({_signed(row[f'alpha_{i}_plain'])})"
            for i in (1, 2)
        ),
    ]


def _signed(value, digits=3):
    # Adding 0 takes the sign from a rounded -0.
    return f"{round(float(value), digits) + 0.0:+.{digits}f}" if math.isfinite(value) else "-"


def _number(value, digits=3):
    return _signed(value, digits).removeprefix("+")


def _percent(value):
    return f"{100 * value:.1f} %" if math.isfinite(value) else "-"


def _with_error(value, error, sign=True, digits=3):
    text = _signed(value, digits) if sign else _number(value, digits)
    return f"{text} +- {_number(error, digits)}" if math.isfinite(error) else text


def _range(low, high):
    return f"{_signed(low)} to {_signed(high)}"
