# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a training went, as a page, with figure 3 of Arcelin et al. 2020."""

import html
import math
from pathlib import Path

import numpy as np

from ..files import write_texts
from ..version import __version__
from .figures import marked_image
from .simulation_figures import grouped, panel_grid, subscripted
from .style import CSS
from .training_figures import corner_plot, curves, signed_image, strongest_latents

__all__ = ["write_training_report"]

# Of the residuals' colours, in units of the sky's noise.
_LIMIT = 3.0
_MORE_CSS = """
.triple{display:grid;grid-template-columns:repeat(3,1fr);gap:14px 16px}
.scenes{display:grid;grid-template-columns:1fr 1fr;gap:14px 22px}
.four{display:grid;grid-template-columns:repeat(4,1fr);gap:4px}.four svg{border-radius:4px;
outline:1px solid var(--line);outline-offset:-1px}
.scenes figcaption{margin:.15em 0 0;font-variant-numeric:tabular-nums;font-size:.85rem}
.heads{color:var(--soft);font-size:.8rem;text-align:center}
.corner{max-width:720px;margin:0 auto}
.numbers th:first-child{text-align:left}
@media(max-width:900px){.triple{grid-template-columns:1fr 1fr}}
@media(max-width:640px){.triple,.scenes{grid-template-columns:1fr}
.second{display:none}.corner svg{min-width:520px}}
"""
_CURVES = (
    # Label, whether it may be logarithmic, whether zero belongs to it, series.
    ("loss", True, False, {"training": "loss", "validation": "validation_loss"}),
    ("KL divergence [nat]", True, False, {"training": "kl"}),
    ("active latents", False, True, {"validation": "active_latents"}),
    (
        "half-width of the |e| error",
        False,
        True,
        {"SNR > 10": "e_half_width", "SNR > 50": "e_half_width_snr50"},
    ),
    ("alpha of e1 and e2", False, True, {"alpha_1": "alpha_1", "alpha_2": "alpha_2"}),
    ("r magnitude error", False, True, {"median": "mag_median", "half-width": "mag_half_width"}),
    ("samples per second", False, True, {"training": "samples_per_second"}),
)


def write_training_report(run, folder, flops=None, peak=None, look=None, title=None, repeat=()):
    """Write the page and its figures; each file whole or not at all.

    Parameters
    ----------
    run : `~.training_run.TrainingRun`
    folder : path-like
        An existing folder: ``report.html``, ``curves.svg`` where there is a history, and ``figure3.svg``
        where scenes were looked at, are written into it.
    flops : `~.training_summary.Flops`, optional
        What a sample costs.
    peak : (`float`, `str`), optional
        Rate of float32 matrix multiplication [operations/s], and how it was had.
    look : `~.training_summary.Look`, optional
        What the network makes of validation scenes.
    title : `str`, optional
        Heading of the page.
    repeat : sequence of (`str`, `str`), optional
        Commands: what each does, and itself.

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
    drawn = _draw_curves(run.history)
    latents = strongest_latents(look.mean) if look else []
    corner = corner_plot(look.mean, latents) if look else ""
    contents = {}
    if drawn:
        contents["curves.svg"] = panel_grid(drawn, 3)
    if look:
        # A file does not know whether it is night.
        contents["figure3.svg"] = panel_grid([corner], 1)
    # Last, so that a page never lacks its figures.
    contents["report.html"] = _page(run, drawn, corner, latents, flops, peak, look, title, repeat)
    write_texts(folder, contents)
    return [folder / name for name in reversed(contents)]


def _draw_curves(history):
    """Curves of what the rows have."""
    if len(history) < 2:
        return []
    drawn = []
    for label, log, zero, series in _CURVES:
        rows = {name: [r for r in history if key in r] for name, key in series.items()}
        if any(rows.values()):
            samples = {name: [r["samples"] for r in found] for name, found in rows.items()}
            values = {name: [r[series[name]] for r in found] for name, found in rows.items()}
            drawn.append(curves(samples, values, label, log=log, zero=zero))
    return drawn


def _page(run, drawn, corner, latents, flops, peak, look, title, repeat):
    card = run.package.card if run.package else {}
    title = title or " ".join(["Training of the", run.stage, *([card["name"]] if card else [])])
    measured = next((row for row in reversed(run.history) if "e_half_width" in row), {})
    boxes = [
        (_grouped(run.samples_seen), f"samples seen, in {run.epochs} epochs"),
        (_duration(run.seconds), "of training, validation left out"),
        (_rate(run.rate()), "samples per second"),
    ]
    if flops and peak and math.isfinite(run.rate()):
        share = flops.training * run.rate() / peak[0]
        # Above 1 it is no share of what the training had.
        if share <= 1:
            boxes.append((f"{100 * share:.3g} %", "of the float32 matrix-multiply rate measured"))
    if measured:
        boxes.append((_number(measured["e_half_width"], 3), "half-width of the |e| error, SNR > 10"))
    boxes = "".join(f"<div><b>{html.escape(v)}</b><span>{html.escape(w)}</span></div>" for v, w in boxes)
    sections = [_curve_section(run, drawn, measured), _cost_section(run, flops, peak)]
    if look:
        sections += [_latent_section(look, corner, latents), _scene_section(look)]
    elif run.missing:
        sections.append(
            f'<p class="warning">No latents and no reconstructions: {html.escape(run.missing)}.</p>'
        )
    else:
        sections.append(
            '<p class="note">No latents and no reconstructions: no shard of validation scenes was given.</p>'
        )
    if repeat:
        commands = "".join(f"<p>{html.escape(w)}</p><pre>{html.escape(c)}</pre>" for w, c in repeat)
        sections.append(f"<h2>How to repeat it</h2>{commands}")
    settings = [(name, _value(value)) for name, value in sorted(run.settings.items())]
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{CSS}{_MORE_CSS}</style></head><body><main>
<header><h1>{html.escape(title)}</h1><p>{html.escape(_subtitle(run, card))}</p></header>
<div class="headline">{boxes}</div>
{"".join(sections)}
<div class="pair"><section><h3>Training</h3>{_facts(_training_facts(run, card))}</section>
<section><h3>Settings</h3>{_facts(settings) if settings else "<p>Not known.</p>"}</section></div>
</main></body></html>
"""


def _subtitle(run, card):
    words = [f"From {run.source}."]
    if card:
        size = card["stamp_size"]
        words.insert(
            0,
            f"Architecture {card['architecture']['name']}, {card['latent_dim']} latents, stamps of "
            f"{size} x {size} pixels in {', '.join(card['bands'])} of {card['survey']}.",
        )
    wanted = run.settings.get("epochs")
    if wanted and run.epochs < wanted:
        words.append(f"{run.epochs} of {wanted} epochs were done when this was written.")
    return " ".join([*words, f"Reported by meas_extensions_vae {__version__}."])


def _curve_section(run, drawn, measured):
    if not run.history:
        return '<p class="warning">No curves: no history of this training was found.</p>'
    panels = "".join(f"<figure>{svg}</figure>" for svg in drawn)
    last = run.history[-1]
    best = min(run.history, key=lambda row: row["validation_loss"])
    names = {
        "e_median": ("|e| error, median", 4),
        "e_half_width": ("|e| error, half-width", 4),
        "e_half_width_snr50": ("|e| error, half-width at SNR > 50", 4),
        "e1_half_width": ("e1 error, half-width", 4),
        "alpha_1": ("alpha_1", 3),
        "alpha_2": ("alpha_2", 3),
        "mag_median": ("r magnitude error, median", 4),
        "mag_half_width": ("r magnitude error, half-width", 4),
        "failures": ("shapes that failed", 0),
        "measured": ("galaxies measured", 0),
    }
    rows = [
        (
            "loss, validation loss",
            f"{last['loss']:.5g}, {last['validation_loss']:.5g}, after {_grouped(last['samples'])} samples",
        ),
        (
            "least validation loss",
            f"{best['validation_loss']:.5g}, after {_grouped(best['samples'])} samples",
        ),
        *([("shapes and magnitudes", f"after {_grouped(measured['samples'])} samples:")] if measured else []),
        *((name, _number(measured[k], digits)) for k, (name, digits) in names.items() if k in measured),
    ]
    body = "".join(f"<tr><th>{subscripted(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in rows)
    curve = (
        f"""<h2>Curves</h2><div class="triple">{panels}</div>
<p class="note">Of the posterior means of fixed validation scenes: active latents (variance of the means
above 0.01) and, every few epochs, errors of shapes (KSB, PSF-corrected) and of magnitudes for targets of SNR
above 10. Half-width: half the 16-84 % range. Alpha: slope of measured on true ellipticity, clipped at 3
sigma, minus 1. The KL divergence is summed over the latents. Numbers above a panel are the last ones.</p>"""
        if drawn
        else ""
    )
    return f'{curve}<h3>Last numbers</h3><table class="facts"><tbody>{body}</tbody></table>'


def _cost_section(run, flops, peak):
    if not flops:
        return ""
    frozen = flops.decoder_frozen
    decoder = (
        "two times the decoder's (it is frozen: no gradient of its weights)"
        if frozen
        else "three times the decoder's"
    )
    rows = [
        ("encoder, forward", f"{flops.encoder / 1e6:.4g} Mflop a sample"),
        ("decoder, forward", f"{flops.decoder / 1e6:.4g} Mflop a sample"),
        ("training", f"{flops.training / 1e6:.4g} Mflop a sample"),
    ]
    note = ""
    if math.isfinite(run.rate()):
        rows.append(
            ("reached", f"{flops.training * run.rate() / 1e9:.4g} Gflop/s at {_rate(run.rate())} samples/s")
        )
    if peak:
        rows.append(("float32 matrix multiplication", f"{peak[0] / 1e9:.4g} Gflop/s"))
        note = f" The rate of matrix multiplication was {peak[1]}."
        if _precision(run) == "bfloat16":
            note += (
                " The training multiplies in bfloat16, whose own peak is another on machines that have it: "
                "the share is of float32's, and not to be compared with one of a float32 training."
            )
    if math.isfinite(run.rate()) and peak:
        share = flops.training * run.rate() / peak[0]
        rows.append(("share", f"{100 * share:.3g} %{' (not comparable)' if share > 1 else ''}"))
        if share > 1:
            note += (
                " A share above 100 % tells that the training had more of a machine, or a quicker "
                "arithmetic, than that product."
            )
    return f"""<h2>Cost</h2>{_facts(rows)}
<p class="note">Counted from the layers: a multiplication and an addition are two operations; Conv2D,
Conv2DTranspose and Dense alone, edges included, without biases, activations, stretch and loss. Training is
three times the encoder's forward pass and {decoder}: forward, the gradient of the inputs, that of the
weights. Samples per second: the median over the epochs after the first, composing of scenes and waiting
included, validation left out.{html.escape(note)}</p>"""


def _latent_section(look, corner, latents):
    mean, sigma = np.asarray(look.mean, float), np.asarray(look.sigma, float)
    rows = []
    for k in latents:
        variance, own = float(np.var(mean[:, k])), float(np.mean(sigma[:, k] ** 2))
        cells = (np.mean(mean[:, k]), variance, own, variance + own)
        rows.append(f"<tr><th>z{k}</th>" + "".join(f"<td>{_short(c)}</td>" for c in cells) + "</tr>")
    active = int(np.sum(np.var(mean, axis=0) > 0.01))
    heads = "".join(
        f"<th>{head}</th>"
        for head in ("mean of means", "variance of means", "mean of sigma<sup>2</sup>", "sum of both")
    )
    split = html.escape(look.sample["split"])
    return f"""<h2>Latents</h2><figure class="corner"><div class="scroll">{corner}</div>
<figcaption>Posterior means of the {len(latents)} latents of greatest variance on {grouped(len(mean))} scenes
of the {split} split, as figure 3 of Arcelin et al. 2020: densities in steps of their square root. Dashed: the
standard normal, its circles at 1 and 2 sigma. {active} of {mean.shape[1]} latents are active (variance of the
means above 0.01).</figcaption></figure>
<div class="scroll"><table class="numbers"><thead><tr><th></th>{heads}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div>
<p class="note">Means alone are narrower than the prior by what the posteriors are wide: it is the sum that is
1 where the latents of all galaxies together are standard normal.</p>"""


def _scene_section(look):
    figures = []
    for scene in look.scenes:
        label = f"scene {scene.index}, signal to noise {_snr(scene.snr)}"
        pictures = (
            ("Noisy input", scene.noisy),
            ("Target", scene.target),
            ("Output", scene.output),
            ("Residual", signed_image(scene.residual, _LIMIT)),
        )
        panels = "".join(marked_image(rgb, f"{what} of {label}") for what, rgb in pictures)
        figures.append(
            f'<figure><div class="four">{panels}</div><figcaption>SNR {_snr(scene.snr)} · '
            f"{html.escape(look.band)} {_number(scene.magnitude_error, 3, True)} mag</figcaption></figure>"
        )
    heads = "".join(f"<span>{h}</span>" for h in ("input", "target", "output", "residual"))
    band = html.escape(look.band)
    colours = "g, r and i as blue, green and red" if look.gri else f"{band} alone"
    what = "targets without their neighbours" if look.isolated else "scenes"
    return f"""<h2>Reconstructions</h2><figure><div class="scenes"><div class="four heads">{heads}</div>
<div class="four heads second">{heads}</div>{"".join(figures)}</div>
<figcaption>{len(look.scenes)} {what} of the {html.escape(look.sample["split"])} split, evenly from faint to
bright: with noise ({html.escape(look.noise)}), the noiseless target, the decoded posterior mean ({colours},
one asinh stretch), and output less target in {band} in units of the sky's noise, orange above and blue below,
full at {_LIMIT:g}. Below: the target's signal to noise in {band}, and the error of the output's magnitude.
</figcaption></figure>"""


def _training_facts(run, card):
    trained = [s for s in run.samples if s.get("split") == "train"]
    facts = [("stage", run.stage), *run.facts]
    if trained:
        kinds = ", ".join(sorted({str(s.get("kind")) for s in trained}))
        count = sum(int(s.get("scenes", 0)) for s in trained)
        facts.append(("training scenes", f"{_grouped(count)} in {len(trained)} shards, {kinds}"))
        facts.append(
            (
                "galaxies",
                ", ".join(
                    sorted(
                        {str(s["versions"].get("galaxies", "not said")) for s in trained if "versions" in s}
                    )
                ),
            )
        )
    if card:
        facts.append(("normalisation", str(card["normalisation"]["kind"])))
    if run.package:
        weights = {part: sum(v.size for v in values.values()) for part, values in run.package.parts.items()}
        facts += [(f"weights of the {part.replace('_', ' ')}", _grouped(n)) for part, n in weights.items()]
    return [*facts, ("precision", _precision(run))]


def _precision(run):
    """Arithmetic of the convolutions, as the training understands "auto"."""
    found = run.settings.get("precision", "not known")
    if found != "auto":
        return str(found)
    name = run.package.card["architecture"]["name"] if run.package else run.settings.get("architecture")
    return "float32" if name == "arcelin2020" else "bfloat16"


def _facts(rows):
    body = "".join(
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in rows
    )
    return f'<table class="facts"><tbody>{body}</tbody></table>'


def _value(value):
    return "yes" if value is True else "no" if value is False else "none" if value is None else str(value)


def _grouped(value):
    return grouped(int(value))


def _short(value):
    return f"{value:.3g}".replace("-", "&minus;")


def _snr(value):
    return f"{value:.1f}" if value < 10 else grouped(round(value))


def _rate(value):
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}" if math.isfinite(value) else "–"


def _number(value, digits, plus=False):
    if not np.isfinite(value):
        return "–"
    # Adding 0 takes the sign from what rounds to nothing.
    value = round(float(value), digits) + 0.0
    return f"{value:{'+' if plus else ''}.{digits}f}".replace("-", "−")


def _duration(seconds):
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
