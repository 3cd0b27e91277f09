# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""One table of all objects of a field: truth, deblended, and undeblended."""

import numpy as np
from astropy.table import Table

from ..errors import ImageError
from ..measurement.sources import magnitudes
from ..simulation.fields import isolated_stamp
from ..simulation.geometry import overlap
from ..simulation.metrics import b_tot
from ..simulation.render import ProfileRenderer
from .baseline import undeblended
from .matching import match_objects

__all__ = ["BLENDED", "choose_examples", "compare_objects", "true_blendedness"]

BLENDED = 0.05
"""True blendedness from which an object counts as blended."""

EXAMPLE_RANGES = ((60.0, np.inf), (20.0, 60.0))
"""Ranges of true SNR from which `choose_examples` takes by turns."""


def true_blendedness(truth, survey, shape, rows, size=64):
    """Blendedness B_tot of galaxies among all others, from the truth alone.

    Parameters
    ----------
    truth : `astropy.table.Table`
        The field's truth.
    survey : `~..survey.Survey`
        The field's survey.
    shape : pair of `int`
        (ny, nx) of the field.
    rows : array-like of `int`
        Rows of the truth that are wanted.
    size : `int`, optional
        Side of the stamps that galaxies are drawn on [pixel].

    Returns
    -------
    blendedness : `numpy.ndarray`, float64 ``[row]``
        1 - <C,C> / <C,T> in the reference band, 0 alone.
    """
    band = survey.select([survey.reference_band])
    renderer = ProfileRenderer(band.profile_kinds)
    scene = np.zeros(shape)
    stamps = []
    for row in truth:
        stamp, origin = isolated_stamp(row, band, size, renderer=renderer)
        in_scene, in_stamp = overlap(origin, size, shape)
        scene[in_scene] += stamp[0][in_stamp]
        stamps.append((stamp[0], in_scene, in_stamp))
    values = []
    for row in rows:
        stamp, in_scene, in_stamp = stamps[row]
        values.append(b_tot(stamp[in_stamp], scene[in_scene]))
    return np.array(values, float)


def compare_objects(objects, truth, images, variance, psfs, survey, zero_flux, edge=2.0, stamp=64):
    """Put what was measured of a field's objects beside the truth.

    Parameters
    ----------
    objects : `astropy.table.Table`
        Detected and deblended objects: id, parent (0 if alone), x, y (of the
        peak [pixel]), n_peaks (of the parent), mag, e1, e2 (of the model in
        the reference band, NaN where there is none).
    truth : `astropy.table.Table`
        As `~..simulation.fields.Field` has it.
    images, variance : `numpy.ndarray` ``[band, y, x]``
        Pixels and variances, image unit.
    psfs : `numpy.ndarray` ``[band, y, x]``
        PSFs.
    survey : `~..survey.Survey`
        Bands of the images, in their order.
    zero_flux : `float`
        Flux of magnitude zero in the reference band [image unit].
    edge : `float`, optional
        Objects nearer than this to the edge of the image, which cuts their
        light, are marked [arcsec].
    stamp : `int`, optional
        Side of the stamps; objects of whose stamp a quarter lies beyond the
        image, or more, are marked ``cut`` [pixel].

    Returns
    -------
    table : `astropy.table.Table`
        One row an object: id, parent, x, y, n_peaks, truth (row of the truth,
        -1 for none), distance [arcsec], unrecognised, edge, cut, snr and
        blendedness (true), mag_true, e1_true, e2_true, and mag_, e1_, e2_
        with ``vae`` and ``none``, and mag_stamp, of the undeblended stamp.
    match : `~.matching.Match`

    Raises
    ------
    ImageError
        If images and survey differ in their bands.
    """
    names = survey.band_names
    if len(images) != len(names):
        raise ImageError(f"the images have {len(images)} bands, the survey {len(names)} ({', '.join(names)})")
    r = survey.reference_band
    band = names.index(r)
    scale = survey.bands[band].pixel_scale
    x, y = np.asarray(objects["x"], float), np.asarray(objects["y"], float)
    match = match_objects(x, y, truth["x"], truth["y"], truth[f"flux_{r}"], scale)
    plain = undeblended(images[band], variance[band], psfs[band], x, y, scale)
    ny, nx = images.shape[1:]
    table = Table({name: objects[name] for name in ("id", "parent", "x", "y", "n_peaks")})
    table["truth"], table["distance"] = match.truth, match.distance
    table["unrecognised"] = match.unrecognised
    inside = np.min([x, y, nx - 1 - x, ny - 1 - y], axis=0) if len(x) else np.zeros(0)
    table["edge"], table["cut"] = inside < edge / scale, inside < stamp / 4
    true = {"snr": f"snr_{r}", "mag_true": f"mag_{r}", "e1_true": "e1", "e2_true": "e2"}
    for name, column in true.items():
        table[name] = np.full(len(table), np.nan)
        table[name][match.matched] = truth[column][match.truth[match.matched]]
    table["blendedness"] = np.full(len(table), np.nan)
    table["blendedness"][match.matched] = true_blendedness(
        truth, survey, (ny, nx), match.truth[match.matched]
    )
    for name in ("mag", "e1", "e2"):
        table[f"{name}_vae"] = objects[name]
    for name, flux in (("mag_none", plain.flux), ("mag_stamp", plain.stamp_flux)):
        table[name] = magnitudes(flux, np.nan, zero_flux)[0]
    table["e1_none"], table["e2_none"] = plain.e.T
    return table, match


def choose_examples(table, number=6, ranges=EXAMPLE_RANGES, apart=20.0):
    """Choose blends to show, by a rule that does not look at the results.

    The ranges of true signal to noise take turns.  Each takes the matched
    object of the largest true blendedness that is left, of footprints with
    two peaks or more, not cut by the edge, and apart from those chosen before,
    so that no blend is shown twice.  Objects that hardly are blended come only
    when all ranges have no others.

    Parameters
    ----------
    table : `astropy.table.Table`
        As `compare_objects` makes it; with a column ``field`` where it is of
        several fields.
    number : `int`, optional
        How many, at most.
    ranges : sequence of pairs of `float`, optional
        Ranges of signal to noise.
    apart : `float`, optional
        Least distance of two chosen objects [pixel].

    Returns
    -------
    rows : `list` [`int`]
        Rows of the table, by signal to noise.
    """
    snr, blended, x, y = (np.asarray(table[name], float) for name in ("snr", "blendedness", "x", "y"))
    place = np.asarray(table["field"]) if "field" in table.colnames else np.zeros(len(table))
    usable = (table["truth"] >= 0) & ~table["cut"] & (table["n_peaks"] > 1) & np.isfinite(blended)
    order = [int(k) for k in np.argsort(-np.nan_to_num(blended), kind="stable") if usable[k]]
    rows = []

    def apart_from_chosen(k):
        return all(place[j] != place[k] or np.hypot(x[j] - x[k], y[j] - y[k]) >= apart for j in rows)

    def next_of(low, high, least):
        fit = (k for k in order if low <= snr[k] < high and blended[k] > least)
        return [k for k in fit if apart_from_chosen(k)][:1]

    for least in (BLENDED, -np.inf):
        before = -1
        while before < len(rows) < number:
            before = len(rows)
            for low, high in ranges:
                rows += next_of(low, high, least)[: number - len(rows)]
    return sorted(rows, key=lambda k: snr[k])
