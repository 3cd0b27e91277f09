# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""All files of an evaluation in one folder: tables, figures and a page; and tables of errors read again."""

from pathlib import Path

import numpy as np
from astropy.table import Table

from ..errors import VaeError
from .deblender_report import write_deblender_report
from .paper_figures import write_figures
from .paper_figures_inputs import latent_means, posterior_examples, scene_examples
from .shear_bias import shear_bias
from .stamp_report import sheared, write_stamp_report
from .stamps import join_errors, network_method

__all__ = ["read_stamp_errors", "write_evaluation"]

# Scenes whose latents are drawn in figure 3.
_LATENTS = 2000


def read_stamp_errors(folder):
    """Errors that an evaluation wrote.

    Parameters
    ----------
    folder : path-like
        Where `~.stamp_report.write_stamp_report` put its ``stampErrors-*.parquet``.

    Returns
    -------
    errors : `astropy.table.Table`
        Of all methods.

    Raises
    ------
    VaeError
        If there are none, or they cannot be read.
    """
    paths = sorted(Path(folder).glob("stampErrors-*.parquet"))
    if not paths:
        raise VaeError(f"{folder} holds no stampErrors-*.parquet: give the directory of an evaluation")
    try:
        return join_errors([_read(path) for path in paths])
    except Exception as error:  # pyarrow's are of many kinds
        raise VaeError(
            f"the tables of errors in {folder} cannot be read ({error}): evaluate again"
        ) from error


def _read(path):
    """A table that astropy wrote; its own reader needs pandas."""
    from astropy.table.meta import get_header_from_yaml
    from pyarrow import parquet

    found = parquet.read_table(path)
    told = get_header_from_yaml(found.schema.metadata[b"table_meta_yaml"].decode().split("\n"))
    table = Table({name: np.array(found[name].to_pylist()) for name in found.column_names})
    table.meta = dict(told.get("meta", {}))
    return table


def write_evaluation(
    folder,
    errors,
    summary,
    *,
    networks=None,
    samples=None,
    examples=0,
    draws=10_000,
    others=None,
    settings=None,
    repeat=(),
    formats=("pdf", "png"),
):
    """Write tables, figures and ``report.html``.

    Parameters
    ----------
    folder : path-like
        Made if need be; files of the same names are replaced.
    errors : `astropy.table.Table`
        As `~.stamps.measure_stamps` gives it, or several joined.
    summary : `astropy.table.Table`
        Of these errors, as `~.stamp_table.summarise_stamps` gives it.
    networks : `dict` [`str`, `~..network.model.Network`], optional
        By stage, "prior" and "deblender".
    samples : `dict` [`str`, `~..simulation.shards.StampSample`], optional
        One sample for each stage, from which examples are taken.
    examples : `int`, optional
        Scenes of figure A1, and a third as many of figure C1; 0 for no figures of single scenes.
    draws : `int`, optional
        Posterior draws of each target of figure C1.
    others : `dict` [`str`, `astropy.table.Table`], optional
        More errors, by the keys of `~.paper_figures.OTHERS`.
    settings : `dict`, optional
        For the page.
    repeat : sequence of (`str`, `str`), optional
        Commands, for the page.
    formats : sequence of `str`, optional
        Of the figures.

    Returns
    -------
    paths : `list` [`pathlib.Path`]
        Everything that was written, the page first.
    left_out : `dict` [`str`, `str`]
        Why figures were not drawn.

    Raises
    ------
    OSError, VaeError
        If something cannot be written.
    """
    tables = write_stamp_report(summary, folder, errors)
    given = {}
    for stage, sample in (samples or {}).items():
        network = (networks or {}).get(stage)
        if network is None:
            continue
        if stage == "prior":
            given["latents"] = latent_means(network, sample, _LATENTS)
        elif examples and len(sample.objects):
            methods = {stage: network_method(network)}
            given["scenes"] = scene_examples(sample, methods, examples, bands=network.bands)
            number = max(examples // 3, 1)
            given["posteriors"] = posterior_examples(
                sample, {network.package.name: network}, number, n_samples=draws
            )
    biases = shear_bias(errors) if sheared(errors) else None
    figures = write_figures(errors, summary, folder, formats, others=others, biases=biases, **given)
    methods = np.unique(np.asarray(errors["method"]).astype(str))
    ours = tuple(name for name in ("deblender", "one_pass", "refined", "iterative") if name in methods)
    page = write_deblender_report(
        folder,
        summary,
        figures=figures,
        shear=biases,
        settings=settings,
        repeat=repeat,
        ours=ours or ("prior",),
    )
    drawn = [path for figure in figures for path in (figure.paths or {}).values()]
    return [page, *tables, *drawn], {f.name: f.reason for f in figures if f.reason}
