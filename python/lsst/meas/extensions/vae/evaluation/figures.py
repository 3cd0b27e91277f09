# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures for reports: colour images as PNG, marks and diagrams as SVG.

All are text that stands in an HTML page by itself; nothing is drawn by a
plotting library.  Colours are of Okabe and Ito's set, which people with any
colour vision tell apart, and shapes differ too.
"""

import base64
import html
import struct
import zlib

import numpy as np

from ..errors import ImageError

__all__ = ["COLOURS", "colour_image", "encode_png", "error_diagram", "marked_image"]

COLOURS = {"vae": "#0072B2", "none": "#D55E00", "mark": "#56B4E9", "target": "#F0E442"}

# Noises below the sky that are black: what a model takes too much shows as dark.
_FLOOR = 1.5

# gri of a typical galaxy come out about white with these weights.
_WEIGHTS = {"g": 1.6, "r": 1.0, "i": 0.8}


def colour_image(images, noise, softening=8.0, stretch=13.0):
    """Colour image of three bands, by Lupton et al. 2004's asinh.

    Parameters
    ----------
    images : array-like ``[3, y, x]``
        g, r and i (or any three, blue to red), one flux unit; NaN is black.
    noise : `float`
        Standard deviation of the pixels in the middle band, the same unit: it
        sets what is dark, so that pictures of one field compare.
    softening : `float`, optional
        Lupton's Q.
    stretch : `float`, optional
        Brightness of the linear part, in units of the noise.

    Returns
    -------
    rgb : `numpy.ndarray`, uint8 ``[y, x, 3]``
        Red, green and blue; row 0 is y = 0.

    Raises
    ------
    ImageError
        If there are not three bands or the noise is not positive.
    """
    from astropy.visualization import make_lupton_rgb

    images = np.asarray(images, float)
    if images.ndim != 3 or len(images) != 3:
        raise ImageError(f"images have shape {images.shape}: expected three bands [3, y, x]")
    if not noise > 0:
        raise ImageError(f"noise is {noise}: expected a positive standard deviation")
    blue, green, red = np.nan_to_num(images) * np.array(list(_WEIGHTS.values()))[:, None, None] / noise
    return make_lupton_rgb(red, green, blue, minimum=-_FLOOR, stretch=stretch, Q=softening)


def encode_png(rgb):
    """Encode an image as PNG.

    Parameters
    ----------
    rgb : `numpy.ndarray`, uint8 ``[row, column, 3]``
        The first row on top.

    Returns
    -------
    data : `bytes`
    """
    rgb = np.ascontiguousarray(rgb)
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ImageError(f"image is {rgb.dtype} {rgb.shape}: expected uint8 [row, column, 3]")
    height, width = rgb.shape[:2]
    # Each row starts with its filter: 0, none.
    rows = np.concatenate([np.zeros((height, 1), np.uint8), rgb.reshape(height, -1)], axis=1)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def marked_image(rgb, label, marks=(), radius=3.0, boxes=()):
    """Image with circles and boxes about some positions, as SVG.

    Parameters
    ----------
    rgb : `numpy.ndarray`, uint8 ``[y, x, 3]``
        Row 0 is y = 0, and is drawn at the bottom.
    label : `str`
        What the picture shows, for those who do not see it.
    marks : sequence of (x, y, colour), optional
        Circles [pixel].
    radius : `float`, optional
        Radius of the circles [pixel].
    boxes : sequence of (x0, y0, size, text), optional
        Squares by their first pixel, with a text at their upper left.

    Returns
    -------
    svg : `str`
    """
    height, width = rgb.shape[:2]
    data = base64.b64encode(encode_png(rgb[::-1])).decode()
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(label)}" '
        'xmlns="http://www.w3.org/2000/svg">',
        f'<image width="{width}" height="{height}" style="image-rendering:pixelated" '
        f'href="data:image/png;base64,{data}"/>',
    ]
    line = f'fill="none" stroke-width="{max(width / 400, 0.35):.2g}"'
    for x, y, colour in marks:
        centre = f'cx="{x + 0.5:.1f}" cy="{height - 0.5 - y:.1f}"'
        parts.append(f'<circle {centre} r="{radius:g}" stroke="{colour}" {line}/>')
    for x0, y0, size, text in boxes:
        top = height - y0 - size
        parts.append(
            f'<rect x="{x0}" y="{top}" width="{size}" height="{size}" stroke="#fff" {line} '
            'stroke-dasharray="4 3"/>'
        )
        # Kept inside the picture where the box is cut by its edge.
        tx, ty = min(max(x0 + 3, 4), width - 14), min(max(top + 13, 14), height - 4)
        parts.append(
            f'<text x="{tx}" y="{ty}" font-size="13" font-weight="bold" fill="#fff" stroke="#000" '
            f'stroke-width="2.5" paint-order="stroke">{html.escape(text)}</text>'
        )
    return "".join(parts) + "</svg>"


def error_diagram(snr, series, label, bins, limit):
    """Errors against signal to noise, as SVG.

    Parameters
    ----------
    snr : array-like ``[object]``
        True signal to noise; drawn on a logarithmic axis.
    series : `dict` [`str`, array-like ``[object]``]
        Errors by the names of `COLOURS`: ``none`` (triangles) and ``vae``
        (discs).  NaN is left out; what lies beyond the limit is drawn at it.
    label : `str`
        Of the ordinate.
    bins : sequence of pairs of `float`
        Bins whose medians and 16-84 % ranges are drawn as bars.
    limit : `float`
        The ordinate reaches from minus to plus this.

    Returns
    -------
    svg : `str`
    """
    snr = np.asarray(snr, float)
    width, height, left, right, top, bottom = 440, 270, 52, 8, 8, 40
    positive = snr[np.isfinite(snr) & (snr > 0)]
    low = min(positive.min(), 10.0) / 1.15 if positive.size else 3.0
    high = max(positive.max(), 200.0) * 1.15 if positive.size else 300.0

    def px(value):
        return left + (width - left - right) * np.log(value / low) / np.log(high / low)

    def py(value):
        return top + (height - top - bottom) * (1 - np.clip(value / limit, -1, 1)) / 2

    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(label)} against signal to '
        'noise" xmlns="http://www.w3.org/2000/svg" font-size="12" fill="currentColor">'
    ]
    for tick in np.linspace(-limit, limit, 5):
        parts.append(
            f'<line x1="{left}" x2="{width - right}" y1="{py(tick):.1f}" y2="{py(tick):.1f}" '
            f'stroke="currentColor" stroke-opacity="{0.6 if tick == 0 else 0.15}"/>'
            f'<text x="{left - 6}" y="{py(tick) + 4:.1f}" text-anchor="end">{tick:+.2g}</text>'
        )
    for tick in (3, 10, 30, 100, 300, 1000, 3000):
        if low <= tick <= high:
            parts.append(
                f'<line x1="{px(tick):.1f}" x2="{px(tick):.1f}" y1="{height - bottom}" '
                f'y2="{height - bottom + 4}" stroke="currentColor"/>'
                f'<text x="{px(tick):.1f}" y="{height - bottom + 17}" text-anchor="middle">{tick}</text>'
            )
    parts.append(
        f'<text x="{(left + width - right) / 2}" y="{height - 5}" text-anchor="middle">true signal to noise '
        "in r</text>"
        f'<text transform="translate(12 {(top + height - bottom) / 2}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(label)}</text>"
    )
    for name, errors in series.items():
        errors = np.asarray(errors, float)
        for s, e in zip(snr, errors, strict=True):
            if np.isfinite(s) and s > 0 and np.isfinite(e):
                parts.append(_point(name, px(s), py(e)))
    for number, (name, errors) in enumerate(series.items()):
        errors = np.asarray(errors, float)
        for start, end in bins:
            inside = errors[(snr >= start) & (snr < end) & np.isfinite(errors)]
            if inside.size >= 3:
                middle = np.sqrt(max(start, low) * min(end, high))
                x = px(middle) + (10 if number else -10)
                lower, median, upper = np.percentile(inside, [16, 50, 84])
                parts.append(
                    f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{py(lower):.1f}" y2="{py(upper):.1f}" '
                    f'stroke="{COLOURS[name]}" stroke-width="5"/>'
                    f'<line x1="{x - 8:.1f}" x2="{x + 8:.1f}" y1="{py(median):.1f}" y2="{py(median):.1f}" '
                    f'stroke="{COLOURS[name]}" stroke-width="5"/>'
                )
    return "".join(parts) + "</svg>"


def _point(name, x, y):
    """One error: a disc, or a triangle for what was not deblended."""
    if name == "none":
        return (
            f'<path d="M{x:.1f} {y - 3.5:.1f}l3.5 6h-7z" fill="none" stroke="{COLOURS[name]}" '
            'stroke-opacity="0.7"/>'
        )
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{COLOURS[name]}" fill-opacity="0.6"/>'
