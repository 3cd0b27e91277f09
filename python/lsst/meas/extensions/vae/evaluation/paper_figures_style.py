# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""How figures for print look: sizes, fonts, and colours that any eye tells apart.

Unlike the pictures of reports, these are drawn by matplotlib (extra ``report``): journals want PDF. Nothing
here uses pyplot, so no window opens and no figure stays behind.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import VaeError
from ..files import replacing

__all__ = [
    "COLUMN",
    "FORMATS",
    "LEAST_FONT",
    "PAGE",
    "REFERENCES",
    "Look",
    "PaperFigure",
    "light",
    "looks",
    "method_label",
    "method_look",
    "new_figure",
    "plain_log",
    "save_figure",
    "styled",
]

COLUMN, PAGE = 3.5, 7.1
"""Widths of a journal's column and page [inch]."""

LEAST_FONT = 7.0
"""Size of the smallest letters, but for indices [point]."""

FORMATS = ("pdf", "png", "svg")

REFERENCES = ("none", "isolated", "perfect")
"""Methods that are no deblenders: the floor and the ceiling."""

_DPI = 220

_STYLE = {
    "font.family": "DejaVu Sans",
    "mathtext.fontset": "dejavusans",
    "font.size": 8.0,
    "axes.labelsize": 8.0,
    "axes.titlesize": 8.0,
    "axes.linewidth": 0.6,
    "xtick.labelsize": LEAST_FONT,
    "ytick.labelsize": LEAST_FONT,
    "legend.fontsize": LEAST_FONT,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "hatch.linewidth": 0.5,
}

# TrueType, which journals take and readers search; as paths, an SVG looks the same everywhere.
_SAVED = {"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "meas_extensions_vae"}
# Without a date, equal data give equal files.
_METADATA = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}


@dataclass(frozen=True)
class PaperFigure:
    """A figure with what is said below it.

    Attributes
    ----------
    figure : `matplotlib.figure.Figure`
        Figure.
    title : `str`
        A few words, plain text.
    caption : `str`
        HTML: what is drawn, of how many scenes, and what boxes and bars are.
    """

    figure: object
    title: str
    caption: str


@dataclass(frozen=True)
class Look:
    """How one set of numbers is drawn: by colour, marker and line, so that grey print will do."""

    colour: str
    marker: str
    line: object = "-"

    def errorbar(self):
        """Keywords of a point with an error."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "markeredgewidth": 0.8,
            "elinewidth": 0.8,
            "capsize": 0,
        }


# Okabe and Ito's colours; their yellow is too faint on paper.
_LOOKS = (
    Look("#0072B2", "o", "-"),
    Look("#D55E00", "s", (0, (5, 1.5))),
    Look("#009E73", "^", (0, (3, 1, 1, 1))),
    Look("#CC79A7", "D", (0, (1.5, 1))),
    Look("#000000", "v", (0, (6, 1, 1, 1, 1, 1))),
    Look("#E69F00", "P", (0, (4, 1))),
    Look("#56B4E9", "X", (0, (2, 0.7))),
)

_OURS = Look("#0072B2", "o", "-")
_METHODS = {
    "deblender": _OURS,
    "prior": _OURS,
    "one_pass": _OURS,
    "refined": Look("#009E73", "s", "-"),
    "iterative": Look("#56B4E9", "D", "-"),
    "scarlet2": Look("#D55E00", "^", (0, (5, 1.5))),
    "scarlet": Look("#E69F00", "v", (0, (5, 1.5))),
    "scarlet_lite": Look("#CC79A7", "<", (0, (5, 1.5))),
    "sep": Look("#000000", "P", (0, (3, 1, 1, 1))),
    "target": Look("#808080", "*", (0, (1, 1.2))),
    "none": Look("#808080", "x", (0, (1, 1.2))),
    "isolated": Look("#808080", "+", (0, (1, 1.2))),
    "perfect": Look("#808080", "+", (0, (1, 1.2))),
}
_LABELS = {
    "deblender": "VAE deblender",
    "prior": "VAE prior",
    "one_pass": "VAE, one pass",
    "refined": "VAE, refined",
    "iterative": "VAE, iterative",
    "scarlet_lite": "scarlet lite",
    "sep": "SEP",
    "target": "noiseless target",
    "none": "not deblended",
    "isolated": "target alone, noisy",
    "perfect": "target alone, noisy",
}


def plain_log(axis):
    """Few numbers in full, without exponents, on a logarithmic axis whose limits are set."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    leading = (1, 2, 5) if high / low < 15 else (1, 3) if high / low < 150 else (1,)
    axis.set_major_locator(LogLocator(subs=leading, numticks=8))
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: np.format_float_positional(value, 3, False, False, "-"))
    )
    axis.set_minor_formatter(NullFormatter())


def looks(number):
    """Looks of some sets of numbers, in order.

    Parameters
    ----------
    number : `int`
        How many.

    Returns
    -------
    looks : `list` [`Look`]
    """
    return [_LOOKS[k % len(_LOOKS)] for k in range(number)]


def method_look(name, number=0):
    """Look of a deblender, the same in every figure.

    Parameters
    ----------
    name : `str`
        As in tables of errors.
    number : `int`, optional
        Tells unknown ones apart.

    Returns
    -------
    look : `Look`
    """
    # From the end: what is known to be compared has the first ones.
    return _METHODS.get(name, _LOOKS[-1 - number % len(_LOOKS)])


def method_label(name):
    """Name of a deblender for readers [`str`]."""
    return _LABELS.get(name, name.replace("_", " "))


def light(colour, part=0.75):
    """A colour with so much white in it, as three numbers from 0 to 1."""
    rgb = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return tuple(float(c) for c in rgb + (1 - rgb) * part)


def styled(draw):
    """Draw a figure in this style, whatever matplotlib's settings are."""

    @functools.wraps(draw)
    def drawn(*args, **kwargs):
        matplotlib = _matplotlib()
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            return draw(*args, **kwargs)

    return drawn


def new_figure(width, height, **kwargs):
    """An empty figure [inch]."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), **kwargs)


def save_figure(figure, path):
    """Write a figure, whole or not at all.

    Parameters
    ----------
    figure : `matplotlib.figure.Figure`
        Figure.
    path : path-like
        Its ending tells the format, one of `FORMATS`; the folder exists.

    Returns
    -------
    path : `pathlib.Path`

    Raises
    ------
    VaeError
        Raised for another format, or if the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise VaeError(f"format {kind!r} of {path.name!r}: expected one of {', '.join(FORMATS)}")
    try:
        with _matplotlib().rc_context(_STYLE | _SAVED), replacing(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=_DPI, metadata=_METADATA[kind])
    except OSError as error:
        raise VaeError(f"cannot write {path} ({error.strerror}): give another folder") from error
    return path


def _matplotlib():
    try:
        import matplotlib
    except ImportError:
        raise VaeError(
            "figures need matplotlib, which is not installed: pip install 'meas-extensions-vae[report]'"
        ) from None
    return matplotlib
