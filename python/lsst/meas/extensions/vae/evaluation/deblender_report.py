# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""A page on an evaluation of deblenders: figures, tables, settings, and how to repeat it."""

import base64
import html
import math
import re
from pathlib import Path

from ..files import write_texts
from ..version import __version__
from .stamp_sections import stamp_facts, stamp_sections
from .style import CSS
from .targets import judge

__all__ = ["write_deblender_report"]

_MORE_CSS = """
.figures{display:grid;grid-template-columns:1fr;gap:28px;margin:1em 0}
.figures img{display:block;max-width:100%;height:auto;background:#fff;border-radius:6px;margin:0 auto}
.figures figcaption{max-width:46em;margin:.5em auto 0}.figures h3{margin:0 0 .4em}
.numbers th,.numbers td{padding:.2em .5em}.numbers tbody td:first-child{text-align:left}
main{max-width:1360px}.headline b{font-size:1.3rem}.note,header p{max-width:60em}
.numbers .text,.numbers thead th.text{text-align:left}
.wide{font-size:.82rem}.wide th,.wide td{padding:.2em .35em}
tr.ours td.text{font-weight:600}
details{margin:.6em 0}summary{cursor:pointer;font-weight:600}
nav{display:flex;flex-wrap:wrap;gap:4px 16px;margin:.6em 0}
"""

_PICTURES = {"svg": "image/svg+xml", "png": "image/png"}


def write_deblender_report(
    folder, summary, *, figures=(), shear=None, settings=None, repeat=(), title=None, ours=("deblender",)
):
    """Write ``report.html``, which holds all that it shows.

    Parameters
    ----------
    folder : path-like
        Existing folder.
    summary : `astropy.table.Table`
        As `~.stamp_table.summarise_stamps` gives it.
    figures : sequence of `~.paper_figures.WrittenFigure`, optional
        Those with an SVG or PNG file are shown; of those left out the reason is told.
    shear : `astropy.table.Table`, optional
        As `~.shear_bias.shear_bias` gives it.
    settings : `dict`, optional
        Names and values of the configuration.
    repeat : sequence of (`str`, `str`), optional
        Commands: what each does, and itself.
    title : `str`, optional
        Heading of the page.
    ours : sequence of `str`, optional
        Methods whose rows stand out.

    Returns
    -------
    path : `pathlib.Path`

    Raises
    ------
    VaeError
        If it cannot be written.
    """
    verdicts = judge(summary)
    sections = stamp_sections(summary, verdicts, shear)
    main, detail = ([s for s in sections if s.detail is which] for which in (False, True))
    name = summary.meta.get("package", {}).get("name")
    title = title or f"Deblenders compared{f': {name}' if name else ''}"
    drawn = [figure for figure in figures if _picture(figure)]
    parts = [_headline(summary, verdicts, ours), _contents(main, drawn, detail)]
    parts += [_section(section, ours) for section in main]
    parts += _figures(drawn, [figure for figure in figures if not _picture(figure)])
    if detail:
        parts.append('<h2 id="bins">In bins</h2>')
        parts += [
            f"<details><summary>{html.escape(s.title)}</summary>{_table(s, ours)}</details>" for s in detail
        ]
    if repeat:
        commands = "".join(f"<p>{html.escape(what)}</p><pre>{html.escape(how)}</pre>" for what, how in repeat)
        parts.append(f'<h2 id="repeat">How to repeat it</h2>{commands}')
    parts.append(f'<h2 id="facts">What was measured, and how</h2>{_facts(summary, settings)}')
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{CSS}{_MORE_CSS}</style></head><body><main>
<header><h1>{html.escape(title)}</h1><p>{html.escape(_subtitle(summary))}</p></header>
{"".join(parts)}
</main></body></html>
"""
    write_texts(folder, {"report.html": page})
    return Path(folder) / "report.html"


def _subtitle(summary):
    meta = summary.meta
    scenes = {
        kind: max(int(row["scenes"]) for row in summary if row["kind"] == kind and row["by"] == "all")
        for kind in dict.fromkeys(summary["kind"].tolist())
    }
    counts = " and ".join(f"{number:,} {kind}".replace(",", " ") for kind, number in scenes.items())
    return (
        f"{counts} scenes of survey {meta['survey']}, bands {', '.join(meta['bands'])}, {meta['noise']} "
        f"noise. Made by meas_extensions_vae {__version__}."
    )


def _headline(summary, verdicts, ours):
    rows = [row for row in summary if row["method"] in ours and row["by"] == "all"]
    if not rows:
        return ""
    row, reference = rows[0], summary.meta["reference_band"]
    boxes = [
        (f"{row['e_half_width']:.3f}", f"half-width of the |e| error, {row['method']}"),
        (f"{row['mag_half_width']:.3f}", f"half-width of the {reference} magnitude error"),
        (f"{row['alpha_1']:+.3f}, {row['alpha_2']:+.3f}", "alpha of e1 and e2 (0 is perfect)"),
    ]
    rate = row["sources_per_core_second"] if "sources_per_core_second" in summary.colnames else math.nan
    if math.isfinite(rate):
        boxes.append((f"{float(f'{rate:.3g}'):g}", "sources a second and core"))
    if len(verdicts):
        met = sum(verdict == "yes" for verdict in verdicts["better_than_paper"])
        judged = sum(verdict != "" for verdict in verdicts["better_than_paper"])
        boxes.append((f"{met} of {judged}", "numbers of the paper matched or bettered"))
    cells = "".join(f"<div><b>{html.escape(v)}</b><span>{html.escape(w)}</span></div>" for v, w in boxes)
    return f'<div class="headline">{cells}</div>'


def _contents(main, drawn, detail):
    links = [(_anchor(section.title), section.title) for section in main]
    links += [("figures", "Figures")] if drawn else []
    links += [("bins", "In bins")] if detail else []
    links.append(("facts", "Facts"))
    text = "".join(f'<a href="#{anchor}">{html.escape(title)}</a>' for anchor, title in links)
    return f"<nav>{text}</nav>"


def _anchor(title):
    return re.sub("[^a-z0-9]+", "-", title.lower()).strip("-")


def _section(section, ours):
    notes = f'<p class="note">{html.escape(section.notes)}</p>' if section.notes else ""
    return (
        f'<h2 id="{_anchor(section.title)}">{html.escape(section.title)}</h2>{notes}{_table(section, ours)}'
    )


def _table(section, ours):
    columns = map("".join, zip(*section.rows))
    words = [any(c.isalpha() for c in column.replace(" to ", "")) for column in columns]

    def cells(tag, values):
        return "".join(
            f"<{tag}{' class=text' if text else ''}>{html.escape(value)}</{tag}>"
            for value, text in zip(values, words)
        )

    body = "".join(
        f"<tr{' class=ours' if any(name in ours for name in row[:2]) else ''}>{cells('td', row)}</tr>"
        for row in section.rows
    )
    head = f"<thead><tr>{cells('th', section.head)}</tr></thead>"
    css = "numbers wide" if len(section.head) > 12 else "numbers"
    return f'<div class="scroll"><table class="{css}">{head}<tbody>{body}</tbody></table></div>'


def _picture(figure):
    return next((kind for kind in _PICTURES if kind in (figure.paths or {})), None)


def _figures(drawn, missing):
    if not drawn and not missing:
        return []
    shown = []
    for figure in drawn:
        kind = _picture(figure)
        data = base64.b64encode(Path(figure.paths[kind]).read_bytes()).decode()
        # Captions are HTML of our own.
        shown.append(
            f'<figure id="{html.escape(figure.name)}"><h3>{html.escape(figure.title)}</h3>'
            f'<img alt="{html.escape(figure.title)}" src="data:{_PICTURES[kind]};base64,{data}">'
            f"<figcaption>{figure.caption}</figcaption></figure>"
        )
    parts = [f'<h2 id="figures">Figures</h2><div class="figures">{"".join(shown)}</div>']
    if missing:
        reasons = "".join(
            f"<li>{html.escape(figure.name)}: {html.escape(figure.reason)}</li>" for figure in missing
        )
        parts.append(f'<div class="note">Not drawn:<ul>{reasons}</ul></div>')
    return parts


def _facts(summary, settings):
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in stamp_facts(summary))
    rows = "".join(
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in (settings or {}).items()
    )
    table = f'<h3>Settings</h3><table class="facts"><tbody>{rows}</tbody></table>' if rows else ""
    return f"<ul>{lines}</ul>{table}"
