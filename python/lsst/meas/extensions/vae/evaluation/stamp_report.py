# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors on stamps as Markdown and ECSV, beside the paper's."""

import math
import re
from pathlib import Path

import numpy as np

from ..files import replacing
from ..version import __version__
from .metrics import colour_pairs
from .shear_bias import shear_bias
from .targets import MIN_NUMBER, judge

__all__ = ["stamp_markdown", "write_stamp_report"]

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
_COST_NOTES = """Times are those of this run, with what else the machine did; a source is a target, or for a
method that separates all galaxies of a scene any of these. Memory is the most that one call held beyond what
the process held before."""
_NOTES = """Errors are the output's value less the noiseless target's: shapes by HSM's KSB, magnitudes from
the sum of all pixels. Half-widths are half the 16-84 % range; +- is a standard error. alpha is the slope of
output on true ellipticity less 1, outliers clipped at 3 sigma, with its bootstrap error; in brackets the
plain slope, which outliers drive. "none" is the noisy blend as it is, "isolated" the target alone with the
same noise. Failures are scenes without a shape whose noiseless target has one; after a comma, scenes whose
pixels do not sum to a magnitude."""


def stamp_markdown(summary, verdicts=None, shear=None):
    """The tables of a summary, as text.

    Parameters
    ----------
    summary : `astropy.table.Table`
        As `~.stamp_table.summarise_stamps` gives it.
    verdicts : `astropy.table.Table`, optional
        As `~.targets.judge` gives it; made if absent.
    shear : `astropy.table.Table`, optional
        As `~.shear_bias.shear_bias` gives it.

    Returns
    -------
    text : `str`
        Markdown.
    """
    verdicts = judge(summary) if verdicts is None else verdicts
    parts = ["# Errors on stamps", _facts(summary), _NOTES]
    if len(verdicts):
        parts += ["## Targets", _verdict_table(verdicts)]
        parts.append(f"The worst bin is among those with at least {MIN_NUMBER} measured scenes.")
    reference = summary.meta["reference_band"]
    head = [name.format(r=reference) for name in _HEAD]
    overall = [row for row in summary if row["by"] in ("all", "snr_min")]
    parts += ["## All scenes", _table([*_LEFT, *head], map(_overall_row, overall))]
    parts += _more(summary, overall)
    parts += _bounds(summary)
    if shear is not None:
        parts += [f"## Shear biases, step {shear.meta['shear_step']:g}", _SHEAR_NOTES, _shear_table(shear)]
    parts += _costs(summary)
    for kind in dict.fromkeys(summary["kind"].tolist()):
        for by, name in _QUANTITIES.items():
            rows = [row for row in summary if row["kind"] == kind and row["by"] == by]
            if rows:
                rows.sort(key=lambda row: row["low"])  # stable: methods stay in order
                parts.append(f"## {kind.capitalize()} targets, by {name}")
                parts.append(_table([by, "method", *head], map(_bin_row, rows)))
    return "\n\n".join(parts) + "\n"


def write_stamp_report(summary, folder, errors=None):
    """Write a summary to a folder.

    Parameters
    ----------
    summary : `astropy.table.Table`
        As `~.stamp_table.summarise_stamps` gives it.
    folder : path-like
        Made if need be; files of the same names are replaced.
    errors : `astropy.table.Table`, optional
        As `~.stamps.measure_stamps` gives it, or several joined: written too, one table a method, which takes
        pyarrow; and of scenes in sheared versions, m and c.

    Returns
    -------
    paths : `list` [`pathlib.Path`]
        stamps.md, stampSummary.ecsv, stampTargets.ecsv; shearBiases.ecsv of sheared scenes; and
        stampErrors-<method>.parquet of each method, what is neither letter nor digit in its name replaced by
        "-".

    Raises
    ------
    OSError
        If they cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    verdicts, shear = judge(summary), None
    if errors is not None and _sheared(errors):
        shear = shear_bias(errors)
    tables = {"stampSummary.ecsv": summary, "stampTargets.ecsv": verdicts, "shearBiases.ecsv": shear}
    paths = [folder / "stamps.md"]
    with replacing(paths[0]) as temporary:
        Path(temporary).write_text(stamp_markdown(summary, verdicts, shear))
    for name, table in tables.items():
        if table is not None:
            paths.append(folder / name)
            with replacing(paths[-1]) as temporary:
                table.write(temporary, format="ascii.ecsv", overwrite=True)
    if errors is not None:
        methods = np.asarray(errors["method"]).astype(str)
        for method in dict.fromkeys(methods.tolist()):
            paths.append(folder / f"stampErrors-{re.sub('[^A-Za-z0-9]+', '-', method)}.parquet")
            with replacing(paths[-1]) as temporary:
                errors[methods == method].write(temporary, format="parquet", overwrite=True)
    return paths


def _sheared(errors):
    """Whether the samples have their scenes in sheared versions."""
    samples = [sample for kind in errors.meta["samples"].values() for sample in kind]
    return all(sample["settings"].get("shear_step", 0.0) for sample in samples)


def _facts(summary):
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
    return "\n".join(f"* {line}" for line in lines)


def _verdict_table(verdicts):
    def limit(row, name, met):
        return "" if math.isnan(row[name]) else f"{abs(row[name]):.3g}: {row[met]}"

    return _table(
        ["method", "quantity", "value", "where", "paper: as good", "reach", "aim"],
        (
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
        ),
    )


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
    return ["## Colours, fluxes and pixels", notes, _table([*_LEFT, *head], map(cells, rows))]


def _bounds(summary):
    """Errors beside what noise allows, of all scenes and by signal to noise; nothing where it is not told."""
    if "component_ratio" not in summary.colnames or not np.isfinite(summary["component_ratio"]).any():
        return []

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
    return ["## Beside the Cramer-Rao bound", _BOUND_NOTES, _table([*_LEFT, *head], map(cells, rows))]


def _shear_table(shear):
    names = ("m_1", "m_2", "m_1_relative", "m_2_relative", "c_1_relative", "c_2_relative")
    return _table(
        ["sample", "method", "scenes", *(name.replace("_relative", ", relative") for name in names)],
        (
            [
                row["kind"],
                row["method"],
                str(row["scenes"]),
                *(_with_error(row[name], row[f"{name}_error"], digits=4) for name in names),
            ]
            for row in shear
        ),
    )


def _costs(summary):
    """What methods cost; nothing where it is not told."""
    if "seconds_per_source" not in summary.colnames:
        return []
    rows = [row for row in summary if row["by"] == "all" and math.isfinite(row["seconds_per_source"])]
    if not rows:
        return []

    def cells(row):
        memory = f"{row['memory']:.0f}" if math.isfinite(row["memory"]) else "-"
        rate = (
            f"{row['sources_per_core_second']:.3g}" if math.isfinite(row["sources_per_core_second"]) else "-"
        )
        return [row["kind"], row["method"], f"{1e3 * row['seconds_per_source']:.3g}", rate, memory]

    return ["## Cost", _COST_NOTES, _table(["sample", "method", *_COST_HEAD], map(cells, rows))]


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


def _table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
