# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many galaxies each pass of an iterative detection finds, rightly or wrongly."""

import numpy as np
from astropy.table import Table
from scipy.spatial import cKDTree

from ..errors import ImageError
from .matching import RADIUS, count_matches, match_objects

__all__ = ["BLEND_RADIUS", "detection_by_pass"]

BLEND_RADIUS = 1.5
"""An object is an unrecognised blend if a galaxy that nothing stands for lies this near to it [arcsec]."""


def detection_by_pass(
    centres, detection_pass, truth, survey, min_snr=10.0, radius=RADIUS, blend_radius=BLEND_RADIUS
):
    """Completeness and purity after each pass.

    Parameters
    ----------
    centres : array-like, ``[n, 2]``
        y and x of the sources, pixels.
    detection_pass : array-like of `int`, ``[n]``
        The pass that found each, from 1.
    truth : `astropy.table.Table`
        As `~..simulation.fields.Field` has it: x, y [pixel], in_field,
        flux_<reference band>, and snr_<band> of all bands.
    survey : `~..survey.Survey`
        Bands and pixel scale of the field.
    min_snr : `float`, optional
        Galaxies in the field are wanted if their SNR, all bands added in
        quadrature, is at least this; sources may be galaxies of any.
    radius : `float`, optional
        Farthest that a source lies from its galaxy [arcsec].
    blend_radius : `float`, optional
        See `BLEND_RADIUS`.

    Returns
    -------
    table : `astropy.table.Table`
        One row a pass. Of all sources up to it: sources, false (no galaxy),
        wanted (galaxies), found, completeness, purity, and unrecognised, the
        sources with a galaxy of their own and a wanted one, that nothing
        stands for, within ``blend_radius``. Of its own: new, new_false, and
        recognised, the new sources whose galaxies made sources of earlier
        passes unrecognised blends. Completeness and purity are NaN without
        any galaxy or source.

    Raises
    ------
    ImageError
        Raised if there is not one pass, from 1, for each centre.
    """
    centres, passes = np.asarray(centres, float).reshape(-1, 2), np.asarray(detection_pass)
    if passes.shape != centres.shape[:1] or (passes.size and passes.min() < 1):
        raise ImageError(
            f"there are {len(centres)} centres and passes {passes[:10].tolist()} of shape {passes.shape}: "
            "expected one for each, from 1"
        )
    band = survey.reference_band
    scale = survey[band].pixel_scale
    x, y, flux = (np.asarray(truth[name], float) for name in ("x", "y", f"flux_{band}"))
    squares = [np.asarray(truth[f"snr_{name}"], float) ** 2 for name in survey.band_names]
    wanted = np.asarray(truth["in_field"], bool) & (np.sqrt(np.sum(squares, axis=0)) >= min_snr)
    rows, hidden = [], np.zeros(len(truth), bool)
    for number in range(1, passes.max(initial=1) + 1):
        index = np.flatnonzero(passes <= number)
        match = match_objects(centres[index, 1], centres[index, 0], x, y, flux, scale, radius)
        counts = count_matches(match, wanted)
        new = passes[index] == number
        newly = match.truth[new & match.matched]
        recognised = int(hidden[newly].sum())
        left = wanted.copy()
        left[match.truth[match.matched]] = False
        unrecognised, hidden = _blends(centres[index][match.matched], y, x, left, blend_radius / scale)
        rows.append(
            {
                "pass": number,
                "sources": counts.n_objects,
                "false": counts.n_objects - counts.n_matched,
                "wanted": counts.n_truth,
                "found": counts.n_found,
                "completeness": counts.completeness,
                "purity": counts.purity,
                "unrecognised": unrecognised,
                "new": int(new.sum()),
                "new_false": int((new & ~match.matched).sum()),
                "recognised": recognised,
            }
        )
    return Table(rows)


def _blends(centres, y, x, left, radius):
    """How many centres have a galaxy left over near them, and which galaxies have a centre near."""
    hidden = np.zeros(len(left), bool)
    if not len(centres) or not left.any():
        return 0, hidden
    places, rows = np.column_stack([y, x])[left], np.flatnonzero(left)
    nearest, _ = cKDTree(places).query(centres)
    hidden[rows] = cKDTree(centres).query(places)[0] <= radius
    return int((nearest <= radius).sum()), hidden
