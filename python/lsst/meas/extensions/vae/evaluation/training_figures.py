# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of a training: curves against samples seen, latents in a corner plot, signed images."""

import html
import math

import numpy as np

from ..errors import ImageError
from .figures import COLOURS
from .simulation_figures import labelled_ticks, subscripted

__all__ = ["corner_plot", "curves", "signed_image", "strongest_latents"]

_SERIES = (COLOURS["vae"], COLOURS["none"])
_WIDTH, _HEIGHT = 340, 222
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 26, 42
# Beyond this ratio an ordinate is logarithmic, if it may be.
_LOG_FROM = 5.0
_PANEL, _GAP, _EDGE = 120, 6, 44
_BINS = 40
_LEVELS = 6


def curves(samples, series, label, log=False, zero=False):
    """Numbers of a training against the samples that it has seen, as SVG.

    Parameters
    ----------
    samples : `dict` [`str`, sequence of `float`]
        Samples seen, by the names of the series.
    series : `dict` [`str`, sequence of `float`]
        One or two sets of numbers; what is not finite is left out.
    label : `str`
        Of the ordinate.
    log : `bool`, optional
        May the ordinate be logarithmic?
    zero : `bool`, optional
        Does zero belong on it?

    Returns
    -------
    svg : `str`
    """
    lines = {}
    for name, values in series.items():
        x, y = np.asarray(samples[name], float), np.asarray(values, float)
        lines[name] = (x[np.isfinite(y)] / 1e3, y[np.isfinite(y)])
    x_all, y_all = (np.concatenate(arrays) for arrays in zip(*lines.values(), strict=True))
    right = float(x_all.max()) if x_all.size else 1.0
    low, high = (float(y_all.min()), float(y_all.max())) if y_all.size else (0.0, 1.0)
    scale = "log" if log and low > 0 and high / low > _LOG_FROM else "linear"
    if scale == "log":
        low, high = low / 1.1, high * 1.1
    else:
        low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
        margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
        # An axis that ends at zero ends there exactly, as long as it has another end.
        flat = low == high
        low = low if zero and low == 0 and not flat else low - margin
        high = high if zero and high == 0 and not flat else high + margin

    def px(value):
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * value / right

    def py(value):
        part = (
            math.log(value / low) / math.log(high / low) if scale == "log" else (value - low) / (high - low)
        )
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * part

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(label)} against samples '
        f'seen: {html.escape(" and ".join(series))}" xmlns="http://www.w3.org/2000/svg" '
        'font-family="system-ui,DejaVu Sans,sans-serif" font-size="12" fill="currentColor">'
    ]
    for tick, text in labelled_ticks((low, high), scale):
        strong = 0.6 if tick == 0 else 0.15
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{py(tick):.1f}" y2="{py(tick):.1f}" '
            f'stroke="currentColor" stroke-opacity="{strong}"/>'
            f'<text x="{_LEFT - 6}" y="{py(tick) + 4:.1f}" text-anchor="end">{text}</text>'
        )
    floor = _HEIGHT - _BOTTOM
    parts.append(
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}" stroke="currentColor" '
        'stroke-opacity="0.6"/>'
    )
    for tick, text in labelled_ticks((0.0, right), "linear"):
        parts.append(
            f'<line x1="{px(tick):.1f}" x2="{px(tick):.1f}" y1="{floor}" y2="{floor + 4}" '
            f'stroke="currentColor"/><text x="{px(tick):.1f}" y="{floor + 17}" text-anchor="middle">'
            f"{text}</text>"
        )
    for number, (name, (x, y)) in enumerate(lines.items()):
        colour, dash = _SERIES[number], ' stroke-dasharray="5 3"' if number else ""
        points = [(px(a), py(b)) for a, b in zip(x, y, strict=True)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        if len(points) <= 30:
            parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.4" fill="{colour}"/>' for a, b in points]
        at = _LEFT + 140 * number
        last = f" {_short(y[-1])}" if len(y) else " no values"
        parts.append(
            f'<line x1="{at}" x2="{at + 18}" y1="11" y2="11" stroke="{colour}" stroke-width="3"{dash}/>'
            f'<text x="{at + 23}" y="15">{subscripted(name, svg=True)}{last}</text>'
        )
    parts.append(
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2:g}" y="{_HEIGHT - 7}" text-anchor="middle">thousand '
        f'samples seen</text><text transform="translate(12 {(_TOP + floor) / 2:g}) rotate(-90)" '
        f'text-anchor="middle">{subscripted(label, svg=True)}</text>'
    )
    return "".join(parts) + "</svg>"


def _short(value):
    text = f"{value:.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.3g}"
    return text.replace("-", "−")


def strongest_latents(mean, number=5):
    """Latents whose posterior means vary most.

    Parameters
    ----------
    mean : `numpy.ndarray` [scene, latent]
    number : `int`, optional
        How many at most.

    Returns
    -------
    latents : `list` [`int`]
        The greatest variance first.
    """
    variance = np.var(np.asarray(mean, float), axis=0)
    return [int(k) for k in np.argsort(-variance, kind="stable")[:number]]


def corner_plot(mean, latents):
    """Histograms of some latents, and below them the densities of their pairs, as SVG.

    The standard normal is drawn in: its curve, and circles at one and two sigma, all dashed. All axes share a
    range, about zero.

    Parameters
    ----------
    mean : `numpy.ndarray` [scene, latent]
        Posterior means; those beyond the axes are left out.
    latents : sequence of `int`
        Which, from the left and from the top.

    Returns
    -------
    svg : `str`

    Raises
    ------
    ImageError
        If there is nothing to draw.
    """
    chosen = np.asarray(mean, float)[:, list(latents)]
    if not chosen.size:
        raise ImageError("no latents to draw: expected one scene and one latent at least")
    reach = max(3.0, math.ceil(2 * float(np.percentile(np.abs(chosen), 99.8))) / 2)
    edges = np.linspace(-reach, reach, _BINS + 1)
    number, pitch = len(latents), _PANEL + _GAP
    full = _EDGE + number * pitch + 6
    parts = [
        f'<svg viewBox="0 0 {full} {full}" role="img" aria-label="Corner plot of the posterior means of '
        f'latents {", ".join(map(str, latents))}" xmlns="http://www.w3.org/2000/svg" '
        'font-family="system-ui,DejaVu Sans,sans-serif" font-size="12" fill="currentColor">'
    ]
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, math.inf) if reach / s < 3.5)
    ticks = [k * step for k in range(-3, 4) if abs(k * step) < reach] if math.isfinite(step) else [0]
    for row in range(number):
        y0 = 6 + row * pitch
        for column in range(row + 1):
            x0 = _EDGE + column * pitch
            panel = (
                _one_latent(chosen[:, row], edges)
                if row == column
                else _two_latents(chosen[:, column], chosen[:, row], edges)
            )
            marks = "".join(_tick(tick, reach, row == number - 1, column == 0 < row) for tick in ticks)
            parts.append(
                f'<g transform="translate({x0} {y0})">{panel}<rect width="{_PANEL}" height="{_PANEL}" '
                f'fill="none" stroke="currentColor" stroke-opacity="0.5"/>{marks}</g>'
            )
        middle = y0 + _PANEL / 2
        if row:
            parts.append(
                f'<text transform="translate(12 {middle:g}) rotate(-90)" text-anchor="middle">'
                f"z{latents[row]}</text>"
            )
        parts.append(
            f'<text x="{_EDGE + row * pitch + _PANEL / 2:g}" y="{full - 4}" text-anchor="middle">'
            f"z{latents[row]}</text>"
        )
    return "".join(parts) + "</svg>"


def _tick(tick, reach, below, left):
    at, text = _PANEL * (tick + reach) / (2 * reach), f"{tick:g}".replace("-", "−")
    marks = ""
    if below:
        marks += (
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_PANEL}" y2="{_PANEL + 3}" stroke="currentColor"/>'
            f'<text x="{at:.1f}" y="{_PANEL + 15}" font-size="10" text-anchor="middle">{text}</text>'
        )
    if left:
        marks += (
            f'<line x1="-3" x2="0" y1="{_PANEL - at:.1f}" y2="{_PANEL - at:.1f}" stroke="currentColor"/>'
            f'<text x="-6" y="{_PANEL - at + 3.5:.1f}" font-size="10" text-anchor="end">{text}</text>'
        )
    return marks


def _one_latent(values, edges):
    """Histogram, with the curve of as many standard normal numbers."""
    count = np.histogram(values, edges)[0]
    width, reach = edges[1] - edges[0], edges[-1]
    x = np.linspace(-reach, reach, 81)
    normal = len(values) * width * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    top = 1.08 * max(count.max(), normal.max())
    cell = _PANEL / len(count)
    path = f"M0 {_PANEL}" + "".join(
        f"V{_PANEL * (1 - n / top):.1f}H{(k + 1) * cell:.1f}" for k, n in enumerate(count)
    )
    line = " ".join(
        f"{_PANEL * (a + reach) / (2 * reach):.1f},{_PANEL * (1 - b / top):.1f}"
        for a, b in zip(x, normal, strict=True)
    )
    return (
        f'<path d="{path}V{_PANEL}" fill="{_SERIES[0]}" fill-opacity="0.75"/>'
        f'<polyline points="{line}" fill="none" stroke="{_SERIES[1]}" stroke-width="1.5" '
        'stroke-dasharray="4 3"/>'
    )


def _two_latents(x, y, edges):
    """Density as squares in steps of opacity, with circles at one and two sigma."""
    count = np.histogram2d(y, x, (edges, edges))[0]
    cell, parts = _PANEL / len(count), []
    # The square root shows what is thin too.
    level = np.ceil(_LEVELS * np.sqrt(count / max(count.max(), 1))).astype(int)
    for step in range(1, _LEVELS + 1):
        squares = "".join(
            f"M{column * cell:g} {_PANEL - (row + 1) * cell:g}h{cell:g}v{cell:g}h-{cell:g}z"
            for row, column in np.argwhere(level == step)
        )
        if squares:
            parts.append(f'<path d="{squares}" fill="{_SERIES[0]}" fill-opacity="{step / _LEVELS:.2f}"/>')
    for sigma in (1, 2):
        radius = _PANEL * sigma / (2 * edges[-1])
        parts.append(
            f'<circle cx="{_PANEL / 2}" cy="{_PANEL / 2}" r="{radius:.1f}" fill="none" stroke="{_SERIES[1]}" '
            'stroke-width="1.2" stroke-dasharray="4 3"/>'
        )
    return "".join(parts)


def signed_image(values, limit):
    """Picture of numbers of either sign: white is zero, blue below it, orange above.

    Parameters
    ----------
    values : array-like [y, x]
        NaN is black.
    limit : `float`
        What has the full colour.

    Returns
    -------
    rgb : `numpy.ndarray`, uint8 [y, x, 3]

    Raises
    ------
    ImageError
        If the shape or the limit is wrong.
    """
    values = np.asarray(values, float)
    if values.ndim != 2 or not limit > 0:
        raise ImageError(
            f"values of shape {values.shape}, limit {limit}: expected [y, x] and a positive limit"
        )
    part = np.clip(values / limit, -1, 1)[..., None]
    below, above = (np.array([int(c[k : k + 2], 16) for k in (1, 3, 5)]) for c in _SERIES)
    colour = 255 + np.abs(part) * (np.where(part < 0, below, above) - 255)
    return np.nan_to_num(np.round(colour)).astype(np.uint8)
