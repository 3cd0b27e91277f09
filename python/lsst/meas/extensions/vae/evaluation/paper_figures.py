# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""All figures of Arcelin et al. 2020 that are of results, and comparisons of deblenders, as files.

Each figure is a function of tables or arrays; `write_figures` draws those for which it is given what they
need, and tells why it left others out. Drawing takes matplotlib (extra ``report``).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import VaeError
from . import paper_figures_compare as compare
from .paper_figures_data import band_label, find_series, methods_of
from .paper_figures_errors import alpha_by_snr, distributions, ellipticity_plane, error_columns
from .paper_figures_images import deblended_scenes, latent_corner, posterior_distributions
from .paper_figures_style import FORMATS, method_look, save_figure
from .paper_figures_summary import compare_bound, compare_cost, compare_shear

__all__ = ["OTHERS", "WrittenFigure", "write_figures"]

OTHERS = {
    "bands": "of the other set of bands, for figures 5, 6 and 8",
    "pixelisation": "of targets shifted within a pixel, for figures 7 and 8",
    "peaks": "of targets that stamps are centred on by peaks, for figures 7 and 8",
    "real": "of real galaxies by the network that was trained on parametric ones, for figure 9",
    "transferred": "of the same galaxies by the network that was trained on with real ones, for figure 9",
}
"""Tables of errors beside the first one that `write_figures` takes, and what they are for."""

_ROWS = ("snr", "delta_mag_c", "b_closest", "b_tot")

# Figure 9 of the paper has galaxies brighter than this [mag].
_REAL_LIMIT = 26.0


@dataclass(frozen=True)
class WrittenFigure:
    """A figure as it was written, or why it was not.

    Attributes
    ----------
    name : `str`
        Of the files, such as "figure6" or "compare_magnitude".
    title : `str`
        A few words, plain text; empty if it was left out.
    caption : `str`
        HTML; empty if it was left out.
    paths : `dict` [`str`, `pathlib.Path`]
        Files by format.
    reason : `str`
        Why it was left out; else empty.
    """

    name: str
    title: str = ""
    caption: str = ""
    paths: dict = None
    reason: str = ""


def write_figures(
    errors,
    summary,
    directory,
    formats=("pdf", "png"),
    *,
    others=None,
    truth=None,
    latents=None,
    scenes=(),
    real_scenes=(),
    posteriors=(),
    biases=None,
    method=None,
    bins=None,
    n_bootstrap=100,
    only=None,
):
    """Draw all figures that can be drawn.

    Parameters
    ----------
    errors : `astropy.table.Table`
        As `~.stamps.measure_stamps` gives it, or several joined: isolated scenes for figures 4 and 5, blended
        ones for 6 to 9 and for comparisons.
    summary : `astropy.table.Table` or None
        As `~.stamp_table.summarise_stamps` gives it of these errors; for the comparisons of cost and bound.
    directory : path-like
        Made if need be; files of the same names are replaced.
    formats : sequence of `str`, optional
        Of "pdf", "png" and "svg".
    others : `dict` [`str`, `astropy.table.Table`], optional
        More tables of errors, by the keys of `OTHERS`.
    truth : `astropy.table.Table`, optional
        Truth of the test sample, for figure 1; of the isolated scenes in the errors by default, which know no
        redshift.
    latents : `numpy.ndarray` ``[scene, latent]``, optional
        As `~.paper_figures_inputs.latent_means` gives them, for figure 3.
    scenes, real_scenes : sequence of `~.paper_figures_images.SceneImages`, optional
        As `~.paper_figures_inputs.scene_examples` gives them, for figures A1 and B1.
    posteriors : sequence of `~.paper_figures_images.Posterior`, optional
        As `~.paper_figures_inputs.posterior_examples` gives them, for figure C1.
    biases : `astropy.table.Table`, optional
        As `~.shear_bias.shear_bias` gives it, for the comparison of shear biases.
    method : `str`, optional
        Our deblender's name in the tables; "deblender", "refined" or "one_pass", the first that is there, by
        default.
    bins : {"paper", "quantiles"}, optional
        See `~.stamp_table.bin_edges`; those of the summary by default, or the paper's.
    n_bootstrap : `int`, optional
        Bootstrap samples for the errors of alpha.
    only : sequence of `str`, optional
        Names of the figures to draw; all by default.

    Returns
    -------
    figures : `list` [`WrittenFigure`]
        One a figure, in order; those left out have a reason.

    Raises
    ------
    VaeError
        Raised for unknown formats, figures or keys of ``others``, or if files cannot be written.
    """
    others = dict(others or {})
    for what, given, known in (("format", formats, FORMATS), ("others: table", others, OTHERS)):
        for name in given:
            if name not in known:
                raise VaeError(f"{what} {name!r} is unknown: expected one of {', '.join(known)}")
    if bins is None:
        bins = "paper" if summary is None else summary.meta.get("bins", "paper")
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VaeError(f"cannot make {directory} ({error.strerror}): give another folder") from error
    draws = _draws(errors, others, method, bins, n_bootstrap)
    draws |= {
        "figure1": lambda: distributions(_truth(errors) if truth is None else truth),
        "figure3": lambda: latent_corner(_given(latents, "latents"), "the prior"),
        "figureA1": lambda: deblended_scenes(_given(scenes, "scenes"), "Deblended scenes"),
        "figureB1": lambda: deblended_scenes(
            _given(real_scenes, "real_scenes"), "Deblended scenes of real galaxies", note=_REAL_NOTE
        ),
        "figureC1": lambda: posterior_distributions(_given(posteriors, "posteriors"), note=_POSTERIOR_NOTE),
    }
    figures = {name: draws[name] for name in sorted(draws)}
    figures |= _comparisons(errors, summary, n_bootstrap)
    figures["compare_shear"] = lambda: compare_shear(_given(biases, "biases"))
    for name in only or ():
        if name not in figures:
            raise VaeError(f"figure {name!r} is unknown: expected one of {', '.join(figures)}")
    chosen = figures if only is None else [name for name in figures if name in only]
    return [_write(name, figures[name], directory, formats) for name in chosen]


_REAL_NOTE = (
    "Images of real galaxies have noise of their own, correlated from pixel to pixel, and residuals of "
    "processing, which the targets keep."
)
_POSTERIOR_NOTE = (
    "Draws of networks whose bands have one pixel scale are about the refined model, those of others from "
    "the encoder's posterior; the networks' own errors are in them as far as their cards tell these."
)


def _write(name, draw, directory, formats):
    try:
        drawn = draw()
    except VaeError as error:
        return WrittenFigure(name, paths={}, reason=str(error))
    paths = {kind: save_figure(drawn.figure, directory / f"{name}.{kind}") for kind in formats}
    return WrittenFigure(name, drawn.title, drawn.caption, paths)


def _draws(errors, others, method, bins, n_bootstrap):
    """Figures of errors by name."""

    def of(kind, *keys):
        """Our errors, and those of other tables that are given, with their names."""
        mine = None if kind == "isolated" else method
        found = [find_series(errors, kind, mine)]
        for key in keys:
            if key in others:
                label = None if key == "bands" else _CENTRED.get(key)
                found.append(find_series(others[key], kind, mine, label))
        return found

    def centring():
        found = of("blended", "pixelisation", "peaks")
        if len(found) < 2:
            raise VaeError("no table of errors of decentred targets: give others 'pixelisation' or 'peaks'")
        found[0].label += ", centred"
        return error_columns(found, ("snr", "b_tot"), "Decentred targets", bins)

    def real():
        missing = [key for key in _REAL if key not in others]
        if missing:
            raise VaeError(
                f"no table of errors of real galaxies: give others {' and '.join(map(repr, missing))}"
            )
        found = [find_series(errors, "blended", method, "parametric galaxies")]
        found += [find_series(others[key], "blended", method, label) for key, label in _REAL.items()]
        return alpha_by_snr(
            [one.part(one["r_mag"] < _REAL_LIMIT) for one in found],
            "Real galaxies before and after transfer learning", bins, n_bootstrap,
            f"{band_label(errors.meta).replace('$', '')}; galaxies brighter than <i>r</i> = {_REAL_LIMIT:g}.",
        )  # fmt: skip

    return {
        "figure4": lambda: ellipticity_plane(find_series(errors, "isolated")),
        "figure5": lambda: error_columns(of("isolated", "bands"), ("snr",), "Errors of the prior", bins),
        "figure6": lambda: error_columns(of("blended", "bands"), _ROWS, "Errors of the deblender", bins),
        "figure7": centring,
        "figure8": lambda: alpha_by_snr(
            of("blended", "bands", "pixelisation", "peaks"),
            "Multiplicative bias of ellipticities",
            bins,
            n_bootstrap,
        ),
        "figure9": real,
    }


_CENTRED = {"pixelisation": "shifted within a pixel", "peaks": "centred on peaks"}
_REAL = {"real": "real galaxies", "transferred": "real, fine-tuned"}


def _comparisons(errors, summary, n_bootstrap):
    """Comparisons of all methods by name."""
    bands = errors.meta.get("bands", ())

    def one(metric):
        return lambda: compare.compare_methods(compare.compared_series(errors), metric, bands)

    def alpha():
        found = compare.compared_series(errors)
        styles = [method_look(s.method, k) for k, s in enumerate(found)]
        return alpha_by_snr(
            found, "Deblenders compared: bias of ellipticities", "quantiles", n_bootstrap, styles=styles
        )

    def told(draw):
        return lambda: draw(_given(summary, "summary"))

    draws = {f"compare_{metric}": one(metric) for metric in compare.METRICS}
    draws |= {"compare_alpha": alpha, "compare_cost": told(compare_cost)}
    return draws | {"compare_bound": told(compare_bound)}


def _truth(errors):
    """Isolated galaxies in a table of errors, each once; targets of blends where there are none."""
    for kind in ("isolated", "blended"):
        if found := methods_of(errors, kind):
            kinds, methods = (np.asarray(errors[name]).astype(str) for name in ("kind", "method"))
            return errors[(kinds == kind) & (methods == found[0])]
    raise VaeError("the table of errors has no scenes: measure some")


def _given(values, name):
    if values is None or not len(values):
        raise VaeError(f"nothing to draw from: give {name}")
    return values
