# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of simulated samples: histograms, scenes in colour, and grids of them.

Every figure is an SVG that stands in a page or in a file by itself.
"""

import html
import math
import re
from dataclasses import dataclass

import numpy as np

from ..errors import ImageError
from .figures import COLOURS, colour_image

__all__ = [
    "Distribution",
    "colour_bands",
    "grouped",
    "histogram",
    "labelled_ticks",
    "panel_grid",
    "scene_rgb",
    "subscripted",
]

_SERIES = (COLOURS["vae"], COLOURS["none"])
_GRI = ("g", "r", "i")
_WIDTH, _HEIGHT = 340, 232
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 18, 26, 42
_MAX_BINS = 50
_MAX_TICKS = 6


@dataclass
class Distribution:
    """Values of one quantity over a sample.

    Attributes
    ----------
    key : `str`
        Short name, for the table of numbers.
    label : `str`
        Of the abscissa, with the unit; ``B_tot`` is shown with a subscript.
    series : `dict` [`str`, `numpy.ndarray` [scene]]
        One or two sets of values by name; NaN where it is undefined.
    digits : `int`
        Decimals of numbers of this quantity.
    scale : `str`
        "linear", "log" or "integer".
    span : (`float`, `float`), optional
        What the abscissa covers at least.
    cut : `float`, optional
        A cut that the sample was made with, drawn as a dashed line.
    count : `str`
        What is counted.
    """

    key: str
    label: str
    series: dict
    digits: int = 2
    scale: str = "linear"
    span: tuple | None = None
    cut: float | None = None
    count: str = "scenes"

    @property
    def varies(self):
        """Whether there are two different values."""
        values = np.concatenate([np.asarray(v, float) for v in self.series.values()])
        return np.unique(values[np.isfinite(values)]).size > 1


def colour_bands(bands):
    """Numbers of the three bands that colour pictures are made of.

    Parameters
    ----------
    bands : sequence of `str`
        Bands of a sample, in order.

    Returns
    -------
    numbers : `tuple` of three `int`
        Those of g, r and i; the r band thrice (grey), or else the first,
        where not all three are there.
    """
    bands = tuple(bands)
    if set(_GRI) <= set(bands):
        return tuple(bands.index(band) for band in _GRI)
    return (bands.index("r") if "r" in bands else 0,) * 3


def scene_rgb(image, survey_info, bands):
    """Colour picture of one scene, in a stretch that all scenes of a survey share.

    Parameters
    ----------
    image : `numpy.ndarray` [band, y, x]
        Pixels, in the survey's image unit.
    survey_info : `dict`
        The survey's numbers, as a `StampSample` has them.
    bands : `tuple` of three `int`
        As `colour_bands` gives them.

    Returns
    -------
    rgb : `numpy.ndarray`, uint8 [y, x, 3]
        Row 0 is y = 0.

    Raises
    ------
    ImageError
        If the image has not the survey's bands.
    """
    numbers = survey_info["bands"]
    image = np.asarray(image, float)
    if image.ndim != 3 or len(image) != len(numbers):
        raise ImageError(f"image has shape {image.shape}: expected {len(numbers)} bands [band, y, x]")
    # To one flux scale: as counts, a long exposure would tint all galaxies.
    scale = np.array(
        [
            b["electrons_per_unit"] / b["exposure_time"] * 10 ** (-0.4 * (b["zeropoint"] - 30))
            for b in (numbers[k] for k in bands)
        ]
    )
    middle = numbers[bands[1]]
    noise = math.sqrt(middle["sky_level"]) / middle["electrons_per_unit"] * scale[1]
    images = image[list(bands)] * scale[:, None, None]
    if len(set(bands)) == 1:
        # The weights of the colours would tint what is to be grey.
        return np.repeat(colour_image(images, noise)[..., 1:2], 3, axis=2)
    return colour_image(images, noise)


def subscripted(text, svg=False):
    """Escape a label; what follows an underscore becomes a subscript.

    Parameters
    ----------
    text : `str`
        Such as ``B_tot of the target``.
    svg : `bool`, optional
        Write SVG, not HTML.

    Returns
    -------
    markup : `str`
    """
    below = '<tspan dy="3" font-size="9">{}</tspan><tspan dy="-3">&#8203;</tspan>' if svg else "<sub>{}</sub>"
    return re.sub(r"_(\w+)", lambda m: below.format(m[1]), html.escape(text))


def grouped(value):
    """A number with thin spaces between thousands.

    Parameters
    ----------
    value : `int` or `float`

    Returns
    -------
    text : `str`
        Whole numbers in full, others to six digits.
    """
    text = f"{int(value):,}" if float(value).is_integer() else f"{value:,g}"
    return text.replace(",", "\u202f")


def histogram(distribution):
    """Histogram of one quantity, as SVG.

    Parameters
    ----------
    distribution : `Distribution`
        Of one set of values the median and the 16-84 % range are written
        above; of two, their names.

    Returns
    -------
    svg : `str`
    """
    named = {
        name: np.asarray(values, float)[np.isfinite(values)] for name, values in distribution.series.items()
    }
    if distribution.scale == "log":
        named = {name: values[values > 0] for name, values in named.items()}
    everything = np.concatenate(list(named.values()))
    edges = _edges(everything, distribution)
    # Rounding may leave the least and the most a hair outside.
    counts = [np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] for values in named.values()]
    top = max(1, max(int(count.max()) for count in counts))
    steps = _ticks(0, top, whole=True)
    # The word at a cut has its place above the bars.
    top = max(steps[-1], top * (1.04 if distribution.cut is None else 1.18))

    def px(value):
        low, high = edges[0], edges[-1]
        part = (
            np.log(value / low) / np.log(high / low)
            if distribution.scale == "log"
            else (value - low) / (high - low)
        )
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * part

    def py(count):
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * count / top

    what = " and ".join(named)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Histogram of '
        f'{html.escape(distribution.label)}: {html.escape(what)}" xmlns="http://www.w3.org/2000/svg" '
        'font-family="system-ui,DejaVu Sans,sans-serif" font-size="12" fill="currentColor">'
    ]
    for step in steps:
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{py(step):.1f}" y2="{py(step):.1f}" '
            f'stroke="currentColor" stroke-opacity="{0.6 if step == 0 else 0.15}"/>'
            f'<text x="{_LEFT - 6}" y="{py(step) + 4:.1f}" text-anchor="end">{grouped(step)}</text>'
        )
    for number, count in enumerate(counts):
        parts.append(_bars(count, edges, px, py, number, len(counts), distribution.scale == "integer"))
    for tick, text in labelled_ticks(edges, distribution.scale):
        parts.append(
            f'<line x1="{px(tick):.1f}" x2="{px(tick):.1f}" y1="{py(0):.1f}" y2="{py(0) + 4:.1f}" '
            f'stroke="currentColor"/><text x="{px(tick):.1f}" y="{py(0) + 17:.1f}" '
            f'text-anchor="middle">{text}</text>'
        )
    if distribution.cut is not None and edges[0] <= distribution.cut <= edges[-1]:
        x = px(distribution.cut)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{py(0):.1f}" stroke="currentColor" '
            f'stroke-dasharray="4 3"/><text x="{x - 5:.1f}" y="{_TOP + 11}" text-anchor="end">cut</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle:g}" y="{_HEIGHT - 7}" text-anchor="middle">'
        f"{subscripted(distribution.label, svg=True)}</text>"
        f'<text transform="translate(13 {(_TOP + _HEIGHT - _BOTTOM) / 2:g}) rotate(-90)" '
        f'text-anchor="middle">{html.escape(distribution.count)}</text>'
    )
    parts.append(_legend(named, distribution))
    return "".join(parts) + "</svg>"


def panel_grid(panels, columns, captions=None, gap=12, colour="#000", background="#fff"):
    """Put panels of one size side by side, as an SVG for a file.

    Parameters
    ----------
    panels : sequence of `str`
        SVGs with one viewBox.
    columns : `int`
        Panels in a row.
    captions : sequence of `str`, optional
        A short text under each.
    gap : `float`, optional
        Between the panels.
    colour, background : `str`, optional
        Of text and paper: a file does not know whether it is night.

    Returns
    -------
    svg : `str`

    Raises
    ------
    ImageError
        If there is no panel, or they differ in size.
    """
    boxes = {re.match(r'<svg viewBox="0 0 (\S+) (\S+)"', panel).groups() for panel in panels}
    if len(boxes) != 1:
        raise ImageError(f"panels are of {len(boxes)} sizes: expected one or more panels of one size")
    width, height = map(float, boxes.pop())
    # Texts are in parts of the panel, whatever its units are.
    font = width / 9 if captions is not None else 0
    pitch_x, pitch_y = width + gap, height + gap + 1.4 * font
    rows = math.ceil(len(panels) / columns)
    full = (gap + min(columns, len(panels)) * pitch_x, gap + rows * pitch_y)
    parts = [
        f'<svg viewBox="0 0 {full[0]:g} {full[1]:g}" width="{full[0]:g}" height="{full[1]:g}" '
        'xmlns="http://www.w3.org/2000/svg" '
        f'color="{colour}" fill="{colour}" font-family="system-ui,DejaVu Sans,sans-serif">'
        f'<rect width="100%" height="100%" fill="{background}"/>'
    ]
    for number, panel in enumerate(panels):
        x, y = gap + number % columns * pitch_x, gap + number // columns * pitch_y
        parts.append(
            panel.replace("<svg ", f'<svg x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" ', 1)
        )
        if captions is not None:
            parts.append(
                f'<text x="{x + width / 2:g}" y="{y + height + 1.1 * font:g}" font-size="{font:.3g}" '
                f'text-anchor="middle">{html.escape(captions[number])}</text>'
            )
    return "".join(parts) + "</svg>"


# -- parts of a histogram ---------------------------------------------------------------


def _edges(values, distribution):
    """Edges of the bins, which are also the ends of the abscissa."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if distribution.span is not None:
        low, high = min(low, distribution.span[0]), max(high, distribution.span[1])
    if distribution.scale == "integer":
        return np.arange(math.floor(low), math.ceil(high) + 2) - 0.5
    # Fine enough for the shape, coarse enough for the counts; round widths make fewer of them.
    number = int(np.clip(3 * max(values.size, 1) ** (1 / 3), 8, _MAX_BINS))
    if distribution.scale == "log":
        low = low if values.size and low > 0 else 1.0
        high = max(high, low * 1.5)
        return np.geomspace(low * 0.999, high * 1.001, number + 1)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    width = _nice((high - low) / number)
    # No bin reaches across a cut: it would look emptier than it is.
    start = 0.0 if distribution.cut is None else distribution.cut
    first, last = math.floor((low - start) / width + 1e-9), math.ceil((high - start) / width - 1e-9)
    return start + np.arange(first, last + 1) * width


def _nice(width):
    """The smallest of 1, 2, 2.5 or 5 times a power of ten that is no less."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= width * (1 - 1e-9))


def _ticks(low, high, whole=False):
    """Round numbers from low to high, `_MAX_TICKS` at most."""
    step = _nice((high - low) / (_MAX_TICKS - 1))
    if whole:
        step = max(1.0, step if step >= 5 else math.ceil(step))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def labelled_ticks(edges, scale):
    """Ticks of an axis and their texts.

    Parameters
    ----------
    edges : sequence of `float`
        Its ends are those of the axis.
    scale : `str`
        "linear", "log" or "integer".

    Returns
    -------
    ticks : `list` of (`float`, `str`)
    """
    low, high = edges[0], edges[-1]
    if scale == "integer":
        step = max(1, round((high - low) / _MAX_TICKS))
        return [(k, str(k)) for k in range(math.ceil(low), math.floor(high) + 1, step)]
    if scale == "log":
        decades = math.log10(high / low)
        leading = (1,) if decades > 3.2 else (1, 3) if decades > 1 else (1, 2, 3, 5, 7)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [round(k * 10.0**p, 12) for p in powers for k in leading]
        return [(t, grouped(t)) for t in ticks if low <= t <= high]
    ticks = _ticks(low, high)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    # A step of 2.5 needs one digit more than its size tells.
    if any(abs(round(t, digits) - t) > 1e-9 for t in ticks):
        digits += 1
    return [(t, f"{t + 0.0:.{digits}f}".replace("-", "−")) for t in ticks]


def _bars(count, edges, px, py, number, total, apart):
    """One set of bins: filled alone; of two, the second is a dashed line."""
    colour = _SERIES[number]
    if apart:
        rects = (
            f'<rect x="{px(a + 0.15):.1f}" width="{px(b - 0.15) - px(a + 0.15):.1f}" y="{py(n):.1f}" '
            f'height="{py(0) - py(n):.1f}"/>'
            for a, b, n in zip(edges[:-1], edges[1:], count)
            if n
        )
        return f'<g fill="{colour}">{"".join(rects)}</g>'
    path = f"M{px(edges[0]):.1f} {py(0):.1f}" + "".join(
        f"V{py(n):.1f}H{px(b):.1f}" for n, b in zip(count, edges[1:])
    )
    path += f"V{py(0):.1f}"
    style = (
        f'fill="{colour}"'
        if total == 1
        else f'fill="{colour}" fill-opacity="0.35" stroke="{colour}" stroke-width="1.5"'
        if number == 0
        else f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="5 3"'
    )
    return f'<path d="{path}" {style}/>'


def _legend(named, distribution):
    """What stands above the axes."""
    if len(named) == 1:
        (values,) = named.values()
        if not values.size:
            text = "no values"
        elif distribution.scale == "integer":
            text = f"mean {values.mean():.2f}"
        else:
            low, middle, high = (
                f"{v:.{distribution.digits}f}".replace("-", "−") for v in np.percentile(values, [16, 50, 84])
            )
            text = f"median {middle}, 16–84 %: {low} to {high}"
        return f'<text x="{_LEFT}" y="15">{text}</text>'
    parts = []
    for number, name in enumerate(named):
        x = _LEFT + 90 * number
        parts.append(
            f'<line x1="{x}" x2="{x + 22}" y1="11" y2="11" stroke="{_SERIES[number]}" stroke-width="3"'
            + (' stroke-dasharray="5 3"' if number else "")
            + f'/><text x="{x + 28}" y="15">{subscripted(name, svg=True)}</text>'
        )
    return "".join(parts)
