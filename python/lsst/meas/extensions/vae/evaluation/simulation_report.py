# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a simulated sample holds, as a page, with figure 1 of Arcelin et al. 2020."""

import dataclasses
import html
import math
from pathlib import Path

import numpy as np

from ..files import write_texts
from ..simulation import SceneSettings
from ..version import __version__
from .figures import COLOURS, marked_image
from .simulation_figures import colour_bands, grouped, histogram, panel_grid, subscripted
from .simulation_summary import distributions, fractions, shear_versions
from .style import CSS

__all__ = ["figure1", "write_simulation_report"]

_COLUMNS = 6
_OVERLAPS = """, and, of what compares the target with its neighbours, where it has none.
B<sub>closest</sub> = &lt;C,N&gt;/&radic;(&lt;C,C&gt;&lt;N,N&gt;) with the nearest neighbour N of the target
C; B<sub>tot</sub> = 1 &minus; &lt;C,C&gt;/&lt;C,T&gt; with the whole scene T; both noiseless."""
_MORE_CSS = """
.triple{display:grid;grid-template-columns:repeat(3,1fr);gap:10px 16px}
.scenes{display:grid;grid-template-columns:repeat(6,1fr);gap:6px}.scenes svg{border-radius:4px}
.scenes figcaption{text-align:center;margin:.1em 0 .2em;font-size:.8rem;font-variant-numeric:tabular-nums}
.numbers th:first-child,.bands th:first-child{text-align:left}
.triple+.scroll{margin-top:1.2em}
.bands{font-size:.9rem}.bands td{white-space:nowrap}
@media(max-width:900px){.triple{grid-template-columns:1fr 1fr}}
@media(max-width:640px){.triple{grid-template-columns:1fr}.scenes{grid-template-columns:repeat(3,1fr)}}
"""


# -- figures --------------------------------------------------------------------------------


def figure1(summary):
    """Figure 1 of the paper: ellipticity, magnitude and redshift of the targets.

    Parameters
    ----------
    summary : `SampleSummary`

    Returns
    -------
    svg : `str`
    """
    return panel_grid([histogram(d) for d in distributions(summary)[:3]], 3)


def _scenes(summary):
    """Pictures of scenes and what stands under each."""
    panels, captions = [], []
    for number, (row, rgb) in enumerate(summary.pictures, 1):
        scene = summary.truth[row]
        label = f"Scene {number}: signal to noise {scene['snr']:.0f}, {scene['n_galaxies']} galaxies or stars"
        panels.append(marked_image(rgb, label, [(scene["x"], scene["y"], COLOURS["target"])], radius=2))
        captions.append(f"SNR {_snr(scene['snr'])} · N {scene['n_galaxies']}")
    return panels, captions


def _snr(value):
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


# -- the page -------------------------------------------------------------------------------


def write_simulation_report(summary, folder, title=None, facts=None, repeat=()):
    """Write the page and its figures; each file whole or not at all.

    Parameters
    ----------
    summary : `SampleSummary`
    folder : path-like
        An existing folder: ``report.html``, ``figure1.svg``,
        ``distributions.svg`` and ``scenes.svg`` are written into it.
    title : `str`, optional
        Heading of the page.
    facts : `list` [(`str`, `str`)], optional
        Where the sample comes from: names and values.
    repeat : sequence of (`str`, `str`), optional
        Further ways to make the sample again: what it is, and the command.

    Returns
    -------
    paths : `list` [`pathlib.Path`]
        What was written, the page first.

    Raises
    ------
    VaeError
        If a file cannot be written.
    """
    folder = Path(folder)
    every = distributions(summary)
    panels, captions = _scenes(summary)
    contents = {
        "figure1.svg": figure1(summary),
        "distributions.svg": panel_grid([histogram(d) for d in every], 3),
        "scenes.svg": panel_grid(panels, _COLUMNS, captions, gap=4),
        # Last, so that a page never lacks its figures.
        "report.html": _page(summary, every, title, facts or [], repeat),
    }
    write_texts(folder, contents)
    return [folder / name for name in reversed(contents)]


def _page(summary, every, title, facts, repeat):
    title = title or f"Simulated {summary.kind} scenes of {summary.survey}"
    shown = summary.truth[summary.shown]
    versions, biases = shear_versions(summary)
    headline = [
        (grouped(len(shown)), f"{summary.kind} scenes, {summary.split} split"),
        (grouped(len(summary.objects)), "galaxies and stars drawn in all"),
        (
            f"{np.nanmedian(shown['r_mag']):.2f}",
            f"median {summary.band} magnitude ({summary.survey_info['magnitude_system']})",
        ),
        (_snr(np.nanmedian(shown["snr"])), f"median signal to noise in {summary.band}"),
    ]
    boxes = "".join(f"<div><b>{html.escape(v)}</b><span>{html.escape(w)}</span></div>" for v, w in headline)
    pictures = "".join(
        f"<figure>{svg}<figcaption>{html.escape(text)}</figcaption></figure>"
        for svg, text in zip(*_scenes(summary))
    )
    gri = len(set(colour_bands(summary.bands))) == 3
    how = "g, r and i as blue, green and red" if gri else f"{summary.band} alone"
    shear = _shear_section(versions, biases) if len(versions) > 1 else ""
    more = "".join(f"<figure>{histogram(d)}</figure>" for d in every[3:])
    settings = sorted((name, _value(value)) for name, value in summary.settings.items())
    commands = "".join(
        f"<p>{html.escape(what)}</p><pre>{html.escape(command)}</pre>"
        for what, command in [*repeat, _snippet(summary)]
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{CSS}{_MORE_CSS}</style></head><body><main>
<header><h1>{html.escape(title)}</h1><p>{html.escape(_subtitle(summary))}</p></header>
<div class="headline">{boxes}</div>
<h2>Figure 1</h2><figure><div class="triple">{"".join(histogram(d) for d in every[:3])}</div>
<figcaption>Ellipticity, {html.escape(summary.band)} magnitude and redshift of the targets of the
{html.escape(summary.split)} sample, as figure 1 of Arcelin et al. 2020. |e| = (a &minus; b)/(a + b), by HSM
(KSB) on the noiseless target, corrected for the PSF.{_system_note(summary)}</figcaption></figure>
<h2>Scenes</h2><figure><div class="scenes">{pictures}</div>
<figcaption>{len(summary.pictures)} scenes drawn at random, with noise: {how}, in one asinh stretch. The ring
is about the target's centre. Below: the target's signal to noise in {html.escape(summary.band)} were it
alone, and the number of galaxies and stars.</figcaption></figure>
<h2>Distributions</h2><div class="triple">{more}</div>
{_number_table(every)}
<p class="note">Of the targets{", in the unsheared version" if shear else ""}. Undefined: where HSM failed
and for stars' redshifts{_OVERLAPS if np.any(shown["n_galaxies"] > 1) else "."}</p>
<h2>Shares</h2>{_facts(fractions(summary))}
{shear}<h2>How to repeat it</h2>{commands}
<div class="pair"><section><h3>Sample</h3>{_facts(_sample_facts(summary, facts))}</section>
<section><h3>Settings</h3>{_facts(settings)}</section></div>
<h3>Survey</h3>{_band_table(summary)}
<h3>Shards</h3>{_shard_table(summary)}
</main></body></html>
"""


def _subtitle(summary):
    stamps = f"{summary.stamp_size} x {summary.stamp_size} pixels of {summary.pixel_scale:g}″"
    shards = f"{grouped(len(summary.shards))} shard{'s' * (len(summary.shards) > 1)}"
    bands = f"band{'s' * (len(summary.bands) > 1)} {', '.join(summary.bands)}"
    return (
        f"{grouped(len(summary.truth))} scenes on stamps of {stamps} in {bands}, from {shards} of the "
        f"{summary.split} split. Reported by meas_extensions_vae {__version__}."
    )


def _system_note(summary):
    system = summary.survey_info["magnitude_system"]
    if system == "AB":
        return ""
    shift = np.nanmedian(summary.truth["r_mag"] - summary.truth["r_mag_ab"])
    return (
        f" Magnitudes are of the system {html.escape(system)}: {html.escape(summary.band)} is AB"
        f" {_signed(shift, 2)} (median)."
    )


def _number_table(every):
    """Median and range of every distribution."""
    rows = []
    for distribution in every:
        for name, values in distribution.series.items():
            key = name if len(distribution.series) > 1 else distribution.key
            key = f"offset {name}" if distribution.key.startswith("offset") else key
            values = np.asarray(values, float)
            finite = values[np.isfinite(values)]
            cells = [grouped(len(finite)), grouped(len(values) - len(finite))]
            if len(finite):
                numbers = np.percentile(finite, [50, 16, 84, 0, 100])
                cells += [_signed(v, distribution.digits, plus=False) for v in numbers]
            else:
                cells += ["&ndash;"] * 5
            rows.append(
                f"<tr><th>{subscripted(key)}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
            )
    heads = "".join(
        f"<th>{head}</th>"
        for head in ("number", "undefined", "median", "16&nbsp;%", "84&nbsp;%", "least", "most")
    )
    return (
        f'<div class="scroll"><table class="numbers"><thead><tr><th></th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _shear_section(versions, biases):
    rows = "".join(
        f"<tr><td>{_signed(v['g1'], 3)}</td><td>{_signed(v['g2'], 3)}</td><td>{grouped(v['scenes'])}</td>"
        f"<td>{grouped(v['failed'])}</td><td>{_signed(v['e1'], 5)}</td><td>{_signed(v['e2'], 5)}</td></tr>"
        for v in versions
    )
    heads = "".join(
        f"<th>{head}</th>" for head in ("g1", "g2", "scenes", "HSM failed", "&lt;e1&gt;", "&lt;e2&gt;")
    )
    known = [
        f"m<sub>{k}</sub> = {_signed(m, 4)} &plusmn; {error:.4f}"
        for k, (m, error) in enumerate(biases, 1)
        if math.isfinite(m)
    ]
    bias = (
        f" The targets alone, without noise: {', '.join(known)} (standard error), with m = "
        "(&lt;e&gt;<sub>+</sub> &minus; &lt;e&gt;<sub>&minus;</sub>)/"
        "(g<sub>+</sub> &minus; g<sub>&minus;</sub>) &minus; 1."
        if known
        else ""
    )
    return (
        f'<h2>Shear</h2><div class="scroll"><table class="bands"><thead><tr>{heads}</tr></thead>'
        f'<tbody>{rows}</tbody></table></div><p class="note">The same scenes, sheared. Means are over those '
        f"that HSM measured in all versions.{bias}</p>"
    )


def _sample_facts(summary, facts):
    kinds, info = summary.psf.shape[1], summary.survey_info
    profiles = grouped(sum(note.rows for note in summary.shards))
    rows = [
        *facts,
        (
            "survey",
            f"{summary.survey}, magnitudes {info['magnitude_system']}, images in {info['image_unit']}",
        ),
        ("kind", summary.kind),
        ("split", summary.split),
        ("scenes", grouped(len(summary.truth))),
        ("galaxies and stars drawn", grouped(len(summary.objects))),
        ("profiles stored", f"{profiles}, each for {kinds} kind{'s' * (kinds > 1)} of pixel and PSF"),
        ("stamps", f"{len(summary.bands)} bands of {summary.stamp_size} x {summary.stamp_size} pixels"),
    ]
    return rows + [(name, value or "none") for name, value in summary.versions.items()]


def _band_table(summary):
    heads = (
        "band",
        "pixel [arcsec]",
        "PSF FWHM [arcsec]",
        "zero point [mag]",
        "exposure [s]",
        "sky [e⁻/pixel]",
    )
    rows = []
    for band in summary.survey_info["bands"]:
        psf = band["psf"]
        cells = (
            f"{band['pixel_scale']:g}",
            f"{psf['fwhm']:g} {psf['kind']}",
            f"{band['zeropoint']:.2f}",
            grouped(round(band["exposure_time"])),
            grouped(round(band["sky_level"])),
        )
        rows.append(
            f"<tr><th>{html.escape(band['name'])}</th>"
            + "".join(f"<td>{html.escape(c)}</td>" for c in cells)
            + "</tr>"
        )
    return (
        '<div class="scroll"><table class="bands"><thead><tr>'
        + "".join(f"<th>{html.escape(head)}</th>" for head in heads)
        + f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _shard_table(summary):
    rows = "".join(
        f"<tr><th>{html.escape(n.name)}</th><td>{grouped(n.scenes)}</td><td>{n.seed}</td></tr>"
        for n in summary.shards
    )
    return (
        '<div class="scroll"><table class="bands"><thead><tr><th>shard</th><th>scenes</th><th>seed</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _snippet(summary):
    """Python that draws the first shard again; what is not named has its default."""
    first = summary.shards[0]
    usual = dataclasses.asdict(SceneSettings())
    changed = {k: v for k, v in summary.settings.items() if k not in usual or v != usual[k]}
    pairs = ", ".join(f"{key}={value!r}" for key, value in sorted(changed.items()))
    galaxies = summary.versions.get("galaxies", "")
    # Their number and seed are not in the shard.
    remark = "  # of the n and the seed that they were made with" if galaxies == "synthetic" else ""
    real = ', real=load_real_galaxies("PATH")' if summary.settings.get("real_fraction") else ""
    return (
        f"In Python, {first.name}; the other shards likewise, by their seeds below:",
        "from lsst.meas.extensions.vae.galaxies import load_galaxies\n"
        + ("from lsst.meas.extensions.vae.galaxies.real_images import load_real_galaxies\n" if real else "")
        + "from lsst.meas.extensions.vae.simulation import SceneSettings, simulate_stamps\n"
        "from lsst.meas.extensions.vae.survey import get_survey\n\n"
        f"settings = SceneSettings({pairs})\n"
        f"survey = get_survey({summary.survey!r}, {list(summary.bands)!r})\n"
        f"galaxies = load_galaxies({galaxies!r}){remark}\n"
        f"sample = simulate_stamps(galaxies, survey, settings, {first.bases}, seed={first.seed}, "
        f"split={summary.split!r}{real})",
    )


def _facts(rows):
    body = "".join(
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in rows
    )
    return f'<table class="facts"><tbody>{body}</tbody></table>'


def _value(value):
    return "yes" if value is True else "no" if value is False else "none" if value is None else str(value)


def _signed(value, digits, plus=True):
    if not np.isfinite(value):
        return "&ndash;"
    # Adding 0 takes the sign from what rounds to nothing.
    value = round(float(value), digits) + 0.0
    return f"{value:{'+' if plus else ''}.{digits}f}".replace("-", "&minus;")
