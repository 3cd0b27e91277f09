# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of scenes and of latents, as Arcelin et al. 2020 lay them out: 3, A1, B1 and C1."""

from dataclasses import dataclass

import numpy as np

from ..errors import VaeError
from .paper_figures_data import counted
from .paper_figures_style import COLUMN, PAGE, PaperFigure, light, looks, new_figure, styled
from .training_figures import strongest_latents

__all__ = ["Posterior", "SceneImages", "deblended_scenes", "latent_corner", "posterior_distributions"]

_BINS = 40
# Side by side on a page: examples, and their images.
_ROW = 2
_TARGET, _OTHERS = "#56B4E9", "#D55E00"


@dataclass(frozen=True)
class SceneImages:
    """Images of one scene, for the eye.

    Attributes
    ----------
    panels : `dict` [`str`, `numpy.ndarray`]
        uint8 ``[y, x, 3]`` by what they show, row 0 is y = 0; noisy scene first, noiseless target last.
    centres : `numpy.ndarray` ``[n, 2]``
        y and x of the galaxies [pixel], the target's first.
    """

    panels: dict
    centres: np.ndarray


@dataclass(frozen=True)
class Posterior:
    """Draws from the posteriors of one target by several methods.

    Attributes
    ----------
    image : `numpy.ndarray`, uint8 ``[y, x, 3]``
        The noisy scene.
    centres : `numpy.ndarray` ``[n, 2]``
        y and x of the galaxies [pixel], the target's first.
    errors : `dict` [`str`, (`numpy.ndarray`, `numpy.ndarray`)]
        By method, errors of |e| and of the magnitude in the reference band ``[draw]``; NaN for draws without.
    facts : `dict` [`str`, `float`]
        What is written on the image, such as the signal to noise.
    """

    image: np.ndarray
    centres: np.ndarray
    errors: dict
    facts: dict


@styled
def latent_corner(mean, label="", number=5):
    """Figure 3: histograms of latents, and below them the densities of their pairs.

    Parameters
    ----------
    mean : `numpy.ndarray` ``[scene, latent]``
        Posterior means; those beyond the axes are left out.
    label : `str`, optional
        Whose latents, for the caption.
    number : `int`, optional
        How many: those that vary most, see `~.training_figures.strongest_latents`.

    Returns
    -------
    drawn : `~.paper_figures_style.PaperFigure`

    Raises
    ------
    VaeError
        Raised if there is nothing to draw.
    """
    mean = np.asarray(mean, float)
    if mean.ndim != 2 or not mean.size:
        raise VaeError(f"latents have shape {mean.shape}: expected [scene, latent], one of each at least")
    chosen = strongest_latents(mean, number)
    values, number = mean[:, chosen], len(chosen)
    reach = max(3.0, np.ceil(2 * np.percentile(np.abs(values), 99.8)) / 2)
    edges = np.linspace(-reach, reach, _BINS + 1)
    figure = new_figure(COLUMN, COLUMN)
    panels = figure.subplots(
        number, number, squeeze=False,
        gridspec_kw={"left": 0.13, "right": 0.98, "bottom": 0.13, "top": 0.98,
                     "hspace": 0.08, "wspace": 0.08},
    )  # fmt: skip
    tick = float(max(1, int(0.65 * reach)))
    x = np.linspace(-reach, reach, 101)
    for row, column in np.ndindex(number, number):
        axes = panels[row, column]
        if column > row:
            axes.remove()
            continue
        if row == column:
            axes.hist(
                values[:, row], edges, density=True, histtype="stepfilled", color=light("#0072B2", 0.35)
            )
            axes.plot(x, np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), "--", color="#D55E00", lw=0.8)
            axes.set_yticks([])
        else:
            _pairs(axes, values[:, column], values[:, row], edges)
        axes.set_xlim(-reach, reach)
        texts = [f"{t:g}".replace("-", "\u2212") for t in (-tick, 0.0, tick)]
        axes.set_xticks([-tick, 0, tick], texts if row == number - 1 else [""] * 3)
        if row != column:
            axes.set_yticks([-tick, 0, tick], texts if column == 0 else [""] * 3)
        if row == number - 1:
            axes.set_xlabel(f"$z_{{{chosen[column]}}}$", labelpad=1)
        if column == 0 and row:
            axes.set_ylabel(f"$z_{{{chosen[row]}}}$", labelpad=0)
    of = f" of {label.replace('$', '')}" if label else ""
    return PaperFigure(
        figure,
        "Latents",
        f"Posterior means of the {number} latents{of} that vary most, of {mean.shape[1]}, on "
        f"{counted(len(mean))}: histograms, and below them densities of pairs (shades by the square root "
        "of the number). Dashed: the standard normal, its circles at 1 and 2 sigma.",
    )


def _pairs(axes, x, y, edges):
    from matplotlib.patches import Circle

    counts = np.histogram2d(y, x, (edges, edges))[0]
    extent = (edges[0], edges[-1]) * 2
    # The square root shows what is thin too.
    shades = np.sqrt(np.where(counts > 0, counts, np.nan))
    axes.imshow(
        shades, vmin=0, extent=extent, origin="lower", cmap="Blues", interpolation="nearest", aspect="auto"
    )
    for sigma in (1, 2):
        axes.add_patch(Circle((0, 0), sigma, fill=False, ec="#D55E00", ls="--", lw=0.6))


@styled
def deblended_scenes(scenes, title, crop=0.5, in_row=None, note=""):
    """Figures A1 and B1: noisy scenes, what deblenders make of them, and the noiseless targets.

    Parameters
    ----------
    scenes : sequence of `SceneImages`
        All with the same panels; those of few panels stand two in a row.
    title : `str`
        What is shown, in a few words.
    crop : `float`, optional
        Part of the images' sides that is shown, about the middle.
    in_row : `int`, optional
        Scenes in a row.
    note : `str`, optional
        HTML that goes to the end of the caption.

    Returns
    -------
    drawn : `~.paper_figures_style.PaperFigure`

    Raises
    ------
    VaeError
        Raised if there is no scene, or they have other panels.
    """
    names = {tuple(scene.panels) for scene in scenes}
    if len(names) != 1:
        raise VaeError(f"scenes have {len(names)} sets of panels: expected one scene or more, all of one set")
    (names,) = names
    in_row = in_row or (_ROW if len(names) <= 3 else 1)
    in_row = min(in_row, len(scenes))
    rows = -(-len(scenes) // in_row)
    width = PAGE if in_row * len(names) > 4 else COLUMN
    gap, top = 0.12, 0.19
    side = (width - gap * (in_row - 1)) / (in_row * len(names))
    figure = new_figure(width, rows * side + top)
    for number, scene in enumerate(scenes):
        row, column = divmod(number, in_row)
        for k, name in enumerate(names):
            left = column * (side * len(names) + gap) + k * side
            box = (left / width, 1 - (top + (row + 1) * side) / (rows * side + top))
            axes = figure.add_axes((*box, 0.97 * side / width, 0.97 * side / (rows * side + top)))
            _picture(axes, scene.panels[name], scene.centres, crop, 5 if side > 1 else 3.5)
            if row == 0:
                axes.set_title(name, pad=2, fontsize=8 if side > 1 else 7)
    return PaperFigure(
        figure,
        title,
        f"{counted(len(scenes))} at random, in <i>g</i>, <i>r</i> and <i>i</i> where there are these "
        f"bands: {', '.join(names)}. Pluses are on the targets, crosses on the other galaxies"
        + (f"; the middle {100 * crop:.0f} % of each side is shown." if crop < 1 else ".")
        + (f" {note}" if note else ""),
    )


def _picture(axes, rgb, centres, crop=1.0, size=5.0):
    """An image with marks: sky blue on the target, vermilion on others, in other forms too."""
    from matplotlib.patheffects import withStroke

    height, width = rgb.shape[:2]
    axes.imshow(rgb, origin="lower", interpolation="nearest")
    for k, (y, x) in enumerate(np.asarray(centres, float).reshape(-1, 2)):
        marker, colour = ("x", _OTHERS) if k else ("+", _TARGET)
        (mark,) = axes.plot(x, y, marker, color=colour, ms=size, mew=0.18 * size)
        mark.set_path_effects([withStroke(linewidth=0.4 * size, foreground="black")])
    reach = crop / 2
    axes.set_xlim((width - 1) / 2 - reach * width, (width - 1) / 2 + reach * width)
    axes.set_ylim((height - 1) / 2 - reach * height, (height - 1) / 2 + reach * height)
    axes.set_axis_off()


@styled
def posterior_distributions(posteriors, title="Posteriors of single targets", note=""):
    """Figure C1: errors of shape and magnitude that the posteriors of single targets allow.

    Parameters
    ----------
    posteriors : sequence of `Posterior`
        One a row.
    title : `str`, optional
        What is shown, in a few words.
    note : `str`, optional
        HTML that goes to the end of the caption.

    Returns
    -------
    drawn : `~.paper_figures_style.PaperFigure`

    Raises
    ------
    VaeError
        Raised if there is none.
    """
    if not len(posteriors):
        raise VaeError("no posteriors are given: draw those of one target at least")
    names = list(dict.fromkeys(name for one in posteriors for name in one.errors))
    height = 0.62 + 1.12 * len(posteriors)
    figure = new_figure(PAGE, height)
    grid = figure.add_gridspec(
        len(posteriors), 3, width_ratios=(1.0, 2.1, 2.1), left=0.01, right=0.985, top=1 - 0.28 / height,
        bottom=0.4 / height, wspace=0.12, hspace=0.18,
    )  # fmt: skip
    limits = [
        max(0.01, *(_reach(one.errors[name][k]) for one in posteriors for name in one.errors)) for k in (0, 1)
    ]
    draws = 0
    for row, one in enumerate(posteriors):
        picture = figure.add_subplot(grid[row, 0])
        _picture(picture, one.image, one.centres, 0.5)
        text = "\n".join(
            f"{name} {value:.2g}" if value < 1 else f"{name} {value:.0f}" for name, value in one.facts.items()
        )
        for k in (0, 1):
            axes = figure.add_subplot(grid[row, k + 1])
            edges = np.linspace(-limits[k], limits[k], 81)
            for name, look in zip(names, looks(len(names))):
                if name in one.errors:
                    values = one.errors[name][k]
                    values = values[np.isfinite(values)]
                    draws = max(draws, values.size)
                    counts = np.histogram(values, edges)[0] / max(values.size, 1)
                    axes.stairs(counts, edges, color=light(look.colour, 0.65), fill=True, alpha=0.6)
                    axes.stairs(counts, edges, color=look.colour, lw=1.1, linestyle=look.line, label=name)
                    axes.axvline(
                        np.median(values) if values.size else np.nan, color=look.colour, lw=0.7, ls=":"
                    )
            axes.axvline(0, color="0.4", lw=0.7)
            axes.set(xlim=(-limits[k], limits[k]), yticks=[])
            axes.tick_params(labelbottom=row == len(posteriors) - 1)
            if k == 0 and text:
                axes.text(0.02, 0.95, text, transform=axes.transAxes, va="top", fontsize=7)
            if row == 0 and k == 1:
                handles = axes.get_legend_handles_labels()
    for k, label in enumerate((r"$\Delta |e|$", r"$\Delta r$ [mag]")):
        figure.axes[3 * len(posteriors) - 2 + k].set_xlabel(label, labelpad=2)
    figure.legend(*handles, loc="upper center", ncols=len(names), bbox_to_anchor=(0.6, 1.0), fontsize=8)
    return PaperFigure(
        figure,
        title,
        f"What the posteriors of {counted(len(posteriors), 'targets')} allow, in {counted(draws, 'draws')} "
        "each: errors of |<i>e</i>| (KSB) and of the magnitude in the reference band against the noiseless "
        "target. Dotted lines are medians, the solid one is the truth. Left the noisy scenes, a plus on "
        "the target and crosses on other "
        f"galaxies. {note}".strip(),
    )


def _reach(values):
    values = values[np.isfinite(values)]
    return 1.1 * float(np.percentile(np.abs(values), 99)) if values.size else 0.0
