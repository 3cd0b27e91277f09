# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""A report of a deblended field as one HTML page that needs nothing else."""

import html
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import VaeError
from .baseline import APERTURE_RADIUS
from .errors import SNR_BINS, binned_statistics, error_statistic
from .figures import COLOURS, error_diagram
from .objects import BLENDED
from .style import CSS

__all__ = ["Example", "Report", "blended_statistics", "write_report"]

_METHODS = (("none", "none"), ("vae", "VAE"))


@dataclass
class Example:
    """One blend in four pictures.

    Attributes
    ----------
    panels : `list` [(`str`, `str`)]
        Title and SVG of each picture.
    title : `str`
        What it is.
    rows : `list` [`tuple` [`str`, ...]]
        A small table; the first row is its head.
    """

    panels: list
    title: str
    rows: list


@dataclass
class Report:
    """What the page tells.

    Attributes
    ----------
    title, subtitle : `str`
    warnings : `list` [`str`]
        What a reader must know first.
    headline : `list` [(`str`, `str`)]
        Numbers and what they are.
    field_svg, field_caption : `str`
        Picture of the field.
    examples : `list` [`Example`]
    example_rule : `str`
        How they were chosen.
    objects : `astropy.table.Table`
        All objects of all fields, as `~.objects.compare_objects` makes it.
    detection : `list` [(`str`, `str`)]
        How well detection did.
    steps : `list` [(`str`, `str`, `str`)]
        What was done, by which command, and how long it took.
    facts : `dict` [`str`, `list` [(`str`, `str`)]]
        Tables of names and values by their headings.
    """

    title: str
    subtitle: str
    warnings: list
    headline: list
    field_svg: str
    field_caption: str
    examples: list
    example_rule: str
    objects: object
    detection: list = field(default_factory=list)
    steps: list = field(default_factory=list)
    facts: dict = field(default_factory=dict)


def write_report(report, path):
    """Write the page, whole or not at all.

    Parameters
    ----------
    report : `Report`
    path : path-like
        Replaced if it is there.

    Raises
    ------
    VaeError
        If it cannot be written.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(_page(report), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise VaeError(f"cannot write {path} ({error.strerror}): give another --output") from None


def _clean(objects):
    """Objects that are compared: with a galaxy, and whole on the image."""
    return objects[(np.asarray(objects["truth"]) >= 0) & ~np.asarray(objects["edge"], bool)]


def blended_statistics(objects, snr_min=10.0, blendedness_min=BLENDED):
    """Errors of blended objects: what deblending is for.

    Parameters
    ----------
    objects : `astropy.table.Table`
        As `~.objects.compare_objects` makes it.
    snr_min, blendedness_min : `float`, optional
        Objects above both, with a galaxy and away from the edge, are taken.

    Returns
    -------
    statistics : `dict` [`str`, `tuple` of three `~.errors.ErrorStatistic`]
        By method, ``none`` and ``vae``: r magnitude, \\|e\\|, and e1 and e2
        together.
    """
    objects = _clean(objects)
    objects = objects[(objects["snr"] >= snr_min) & (objects["blendedness"] > blendedness_min)]
    return {
        method: tuple(error_statistic(*pair) for pair in _errors(objects, method)) for method, _ in _METHODS
    }


def _errors(objects, method):
    """Measured and true magnitude, |e|, and (e1, e2)."""
    measured, true = (np.column_stack([objects[f"e1_{m}"], objects[f"e2_{m}"]]) for m in (method, "true"))
    return (
        (np.asarray(objects[f"mag_{method}"]), np.asarray(objects["mag_true"])),
        (np.hypot(*measured.T), np.hypot(*true.T)),
        (measured, true),
    )


def _groups(objects):
    """Rows of the table of errors: heading and statistics by method."""
    bins = {
        method: [binned_statistics(*pair, objects["snr"]) for pair in _errors(objects, method)]
        for method, _ in _METHODS
    }
    for number, (low, high) in enumerate(SNR_BINS):
        name = "all" if not number else f"{low:g}&ndash;{high:g}" if np.isfinite(high) else f"&gt; {low:g}"
        yield name, {method: [kind[number] for kind in bins[method]] for method, _ in _METHODS}
    yield "blended", blended_statistics(objects)


def _error_tables(objects):
    """Two tables side by side: magnitudes and shapes."""
    magnitudes, shapes = [], []
    for name, group in _groups(_clean(objects)):
        for k, (method, shown) in enumerate(_METHODS):
            mag, size, e = group[method]
            head = f'<th rowspan="2" scope="rowgroup">{name}</th>' if k == 0 else ""
            start = f'<tr class="{"first" if k == 0 else ""}">{head}<td class="{method}">{shown}</td>'
            magnitudes.append(start + _cells(mag.number, mag.failures, _error(mag)))
            shapes.append(
                start + _cells(size.number, size.failures, _error(size), f"&plusmn; {_plain(e.half_width)}")
            )
    tables = (
        ("r magnitude", ("error",), magnitudes),
        ("ellipticity", ("|e| error", "e1, e2 error"), shapes),
    )
    return (
        '<div class="pair">'
        + "".join(
            f'<div class="scroll"><table class="numbers"><caption>{caption}</caption><thead><tr>'
            + '<th class="left">SNR</th><th></th>'
            + "".join(f"<th>{head}</th>" for head in ("number", "failed", *heads))
            + f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
            for caption, heads, rows in tables
        )
        + "</div>"
    )


def _cells(*values):
    return "".join(f"<td>{value}</td>" for value in values) + "</tr>"


def _error(statistic):
    return f"{_signed(statistic.median)} &plusmn; {_plain(statistic.half_width)}"


def _signed(value):
    return f"{value:+.3f}".replace("-", "&minus;") if np.isfinite(value) else "&ndash;"


def _plain(value):
    return f"{value:.3f}" if np.isfinite(value) else "&ndash;"


def _diagrams(objects):
    objects = _clean(objects)
    figures = []
    for which, label, limit in ((0, "r magnitude error", 1.0), (1, "|e| error", 0.6)):
        series = {}
        for method, _ in _METHODS:
            measured, true = _errors(objects, method)[which]
            series[method] = measured - true
        figures.append(
            "<figure>" + error_diagram(objects["snr"], series, label, SNR_BINS[1:], limit) + "</figure>"
        )
    key = (
        f'<p class="key"><span style="color:{COLOURS["none"]}">&#9651;</span> no deblending &nbsp; '
        f'<span style="color:{COLOURS["vae"]}">&#9679;</span> VAE &nbsp; Bars: 16&ndash;84&nbsp;% and median '
        "of each bin. What lies beyond an axis is drawn at its end.</p>"
    )
    return '<div class="pair">' + "".join(figures) + "</div>" + key


def _table(rows, css="facts"):
    body = "".join(
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in rows
    )
    return f'<table class="{css}"><tbody>{body}</tbody></table>'


def _example(example):
    panels = "".join(
        f"<figure>{svg}<figcaption>{html.escape(title)}</figcaption></figure>"
        for title, svg in example.panels
    )
    head, *rows = example.rows
    table = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th>{html.escape(name)}</th>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    return (
        f'<article><h3>{html.escape(example.title)}</h3><div class="panels">{panels}</div>'
        f'<table class="small"><thead><tr>{table}</tr></thead><tbody>{body}</tbody></table></article>'
    )


def _page(report):
    clean = _clean(report.objects)
    stamp = error_statistic(clean["mag_stamp"], clean["mag_true"])
    warnings = "".join(f'<p class="warning">{html.escape(text)}</p>' for text in report.warnings)
    headline = "".join(
        f"<div><b>{html.escape(value)}</b><span>{html.escape(what)}</span></div>"
        for value, what in report.headline
    )
    examples = "".join(_example(example) for example in report.examples) or "<p>No blend fits the rule.</p>"
    steps = "".join(
        f"<li><b>{html.escape(what)}</b> {html.escape(seconds)}<pre>{html.escape(command)}</pre></li>"
        for what, command, seconds in report.steps
    )
    facts = "".join(
        f"<section><h3>{html.escape(name)}</h3>{_table(rows)}</section>"
        for name, rows in report.facts.items()
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(report.title)}</title><style>{CSS}</style></head><body><main>
<header><h1>{html.escape(report.title)}</h1><p>{html.escape(report.subtitle)}</p></header>
{warnings}<div class="headline">{headline}</div>
<h2>The field</h2><figure class="field">{report.field_svg}
<figcaption>{html.escape(report.field_caption)}</figcaption></figure>
<h2>Blends</h2><p>{html.escape(report.example_rule)}</p>{examples}
<h2>Errors</h2><p>Measured minus true, in the r band, of detected objects that have a galaxy, by its true
signal to noise: median &plusmn; half-width, which is half the distance between the 16th and the 84th
percentile. True shapes are those of the noiseless galaxy alone, measured in the same way (HSM, KSB).</p>
{_error_tables(report.objects)}
<p class="note"><b>None</b>: no deblending; measured at the same detected position, with the neighbours left
in. Magnitude: a circular aperture of {APERTURE_RADIUS:g}&Prime; radius, corrected for the part of a star's
light outside it; a smaller one has less scatter for faint galaxies and more for large ones. (The sum
over the whole stamp, which is what a model's magnitude is, would be off by {_error(stamp)}.)
Shape: KSB on the noisy 64 x 64 stamp. <b>Blended</b>: true blendedness
(1 &minus; &lt;C,C&gt;/&lt;C,T&gt; of the galaxy C and all galaxies T) above {BLENDED:g} and SNR above 10.
<b>Failed</b>: could not be measured, and is in no error. <b>e1, e2</b>: both components together.</p>
{_diagrams(report.objects)}
<h2>Detection</h2>{_table(report.detection)}
<h2>What was done</h2><ol>{steps}</ol>
<h2>Origin</h2><div class="pair">{facts}</div>
</main></body></html>
"""
