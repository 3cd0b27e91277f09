# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors on stamps as Markdown and ECSV, beside the paper's."""

import math
from pathlib import Path

from ..files import replacing
from ..version import __version__
from .targets import MIN_NUMBER, judge

__all__ = ["stamp_markdown", "write_stamp_report"]

_QUANTITIES = {
    "snr": "signal to noise",
    "b_tot": "B_tot",
    "delta_mag_c": "magnitude of the nearest neighbour less the target's",
    "b_closest": "B_closest",
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
_NOTES = """Errors are the output's value less the noiseless target's: shapes by HSM's KSB, magnitudes from
the sum of all pixels. Half-widths are half the 16-84 % range; +- is a standard error. alpha is the slope of
output on true ellipticity less 1, outliers clipped at 3 sigma, with its bootstrap error; in brackets the
plain slope, which outliers drive. "none" is the noisy blend as it is, "isolated" the target alone with the
same noise. Failures are scenes without a shape whose noiseless target has one; after a comma, scenes whose
pixels do not sum to a magnitude."""


def stamp_markdown(summary, verdicts=None):
    """The tables of a summary, as text.

    Parameters
    ----------
    summary : `astropy.table.Table`
        As `~.stamp_table.summarise_stamps` gives it.
    verdicts : `astropy.table.Table`, optional
        As `~.targets.judge` gives it; made if absent.

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
    parts += ["## All scenes", _table(["sample", "method", "targets", *head], map(_overall_row, overall))]
    for kind in dict.fromkeys(summary["kind"].tolist()):
        for by, name in _QUANTITIES.items():
            rows = [row for row in summary if row["kind"] == kind and row["by"] == by]
            if rows:
                rows.sort(key=lambda row: row["low"])  # stable: methods stay in order
                parts.append(f"## {kind.capitalize()} targets, by {name}")
                parts.append(_table([by, "method", *head], map(_bin_row, rows)))
    return "\n\n".join(parts) + "\n"


def write_stamp_report(summary, folder):
    """Write a summary to a folder.

    Parameters
    ----------
    summary : `astropy.table.Table`
        As `~.stamp_table.summarise_stamps` gives it.
    folder : path-like
        Made if need be; files of the same names are replaced.

    Returns
    -------
    paths : `list` [`pathlib.Path`]
        stamps.md, stampSummary.ecsv, stampTargets.ecsv.

    Raises
    ------
    OSError
        If they cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    verdicts = judge(summary)
    paths = [folder / name for name in ("stamps.md", "stampSummary.ecsv", "stampTargets.ecsv")]
    with replacing(paths[0]) as temporary:
        Path(temporary).write_text(stamp_markdown(summary, verdicts))
    for path, table in zip(paths[1:], (summary, verdicts)):
        with replacing(path) as temporary:
            table.write(temporary, format="ascii.ecsv", overwrite=True)
    return paths


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


def _overall_row(row):
    targets = "all" if row["by"] == "all" else f"SNR > {row['low']:g}"
    return [row["kind"], row["method"], targets, *_cells(row)]


def _bin_row(row):
    return [f"{row['low']:.3g} to {row['high']:.3g}", row["method"], *_cells(row)]


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


def _signed(value):
    # Adding 0 takes the sign from a rounded -0.
    return f"{round(float(value), 3) + 0.0:+.3f}" if math.isfinite(value) else "-"


def _number(value):
    return _signed(value).removeprefix("+")


def _with_error(value, error):
    return f"{_signed(value)} +- {_number(error)}" if math.isfinite(error) else _signed(value)


def _range(low, high):
    return f"{_signed(low)} to {_signed(high)}"


def _table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
