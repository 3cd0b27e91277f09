# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects of a field drawn again from its truth: alone, or all without noise."""

__all__ = [
    "add_stamp",
    "draw_components",
    "field_renderer",
    "isolated_stamp",
    "noiseless_field",
    "psf_columns",
    "survey_with_psfs",
]

from dataclasses import replace

import numpy as np

from ..errors import SurveyError
from .geometry import overlap, stamp_origin
from .render import ProfileRenderer, component_profile, point_source

_PSF_NUMBERS = ("fwhm", "e1", "e2")


def psf_columns(survey):
    """Columns by which a truth table keeps the PSFs of its field: psf_fwhm_<b>, psf_e1_<b>, psf_e2_<b>.

    Parameters
    ----------
    survey : `Survey`
        With the PSFs that the field is drawn with.

    Returns
    -------
    columns : `dict` [`str`, `float`]
        FWHM [arcsec] and ellipticity [reduced shear] of each band, the same for all rows.
    """
    return {
        f"psf_{name}_{band.name}": float(getattr(band.psf, name))
        for band in survey.bands
        for name in _PSF_NUMBERS
    }


def survey_with_psfs(survey, truth):
    """A survey with the PSFs that a field was drawn with.

    Parameters
    ----------
    survey : `Survey`
        That of the field's settings; or some of its bands.
    truth : `astropy.table.Table`
        The field's, whole or some of its rows, as the repository gives it or a `Field` has it.

    Returns
    -------
    survey : `Survey`
        The same where the PSFs are the survey's own. So they are of a table without rows, in which there is
        nothing to draw.

    Raises
    ------
    SurveyError
        If the table does not tell the PSF of a band, or has more than one.
    """
    missing = [name for name in psf_columns(survey) if name not in truth.colnames]
    if missing:
        raise SurveyError(
            f"The truth table lacks the columns {', '.join(missing)}, which tell the field's PSFs: expected "
            "the table of a field of these bands; if an older version made it, simulate the field again"
        )
    if len(truth) == 0:
        return survey
    bands = []
    for band in survey.bands:
        found = {name: np.unique(np.asarray(truth[f"psf_{name}_{band.name}"])) for name in _PSF_NUMBERS}
        several = [name for name, values in found.items() if len(values) > 1]
        if several:
            raise SurveyError(
                f"The truth table has {len(found[several[0]])} values of psf_{several[0]}_{band.name}: "
                "expected one, as a field has one PSF in each band; give the rows of one field"
            )
        bands.append(
            replace(band, psf=replace(band.psf, **{name: float(value[0]) for name, value in found.items()}))
        )
    bands = tuple(bands)
    return survey if bands == survey.bands else replace(survey, bands=bands)


def field_renderer(survey):
    """The renderer of a survey whose bands share one pixel scale.

    Raises
    ------
    SurveyError
        If they do not.
    """
    scales = {scale for _, scale in survey.profile_kinds}
    if len(scales) != 1:
        raise SurveyError(
            f"Bands of {survey.name} have {len(scales)} pixel scales: a field needs one; select bands that "
            "share it"
        )
    return ProfileRenderer(survey.profile_kinds)


def draw_components(renderer, survey, components, x, y, origin, size):
    """Draw an object's components on a stamp of a field.

    Parameters
    ----------
    renderer : `ProfileRenderer`
        Of the survey's profile kinds.
    survey : `Survey`
    components : `list` [(`galsim.GSObject`, `numpy.ndarray` [band])]
        Unit-flux profile and fluxes [image unit] of each.
    x, y : `float`
        Centre [pixel of the field].
    origin : (`int`, `int`)
        (y0, x0), the field's pixel that is the stamp's first.
    size : `int`
        Side of the stamp [pixel].

    Returns
    -------
    stamp : `numpy.ndarray` [band, size, size] of `float32`
        [image unit]
    """
    scale = survey.bands[0].pixel_scale
    centre = (size - 1) / 2
    dx, dy = (x - origin[1] - centre) * scale, (y - origin[0] - centre) * scale
    image = np.zeros((len(survey.bands), size, size), np.float32)
    for profile, fluxes in components:
        drawn = renderer.draw(profile, dx, dy, size)
        image += fluxes.astype(np.float32)[:, None, None] * drawn[survey.band_profile]
    return image


def add_stamp(images, stamp, origin):
    """Add the part of a stamp that lies on the images, in place."""
    in_images, in_stamp = overlap(origin, stamp.shape[-1], images.shape[1:])
    images[:, *in_images] += stamp[:, *in_stamp]


def isolated_stamp(truth, survey, size=64, origin=None, renderer=None):
    """Draw one object of a field again: alone and without noise.

    Parameters
    ----------
    truth : `astropy.table.Row` or mapping
        Row of a field's truth table.
    survey : `Survey`
        The field's own, `Field.survey`, or what `survey_with_psfs` gives; its bands are drawn.
    size : `int` or `None`
        Side of the stamp [pixel]; `None` for that which the field was drawn with, so that the stamp is
        exactly what the field got. Another size gives the same within the drawing's error.
    origin : (`int`, `int`), optional
        (y0, x0), the field's pixel that is the stamp's first; by default the
        stamp is centred on the pixel crossing nearest the object.
    renderer : `ProfileRenderer`, optional
        The survey's, kept from an earlier call.

    Returns
    -------
    stamp : `numpy.ndarray` [band, size, size] of `float32`
        [image unit]
    origin : (`int`, `int`)
        (y0, x0).
    """
    renderer = renderer or field_renderer(survey)
    size = int(truth["stamp_size"]) if size is None else size
    if origin is None:
        origin = stamp_origin(truth["x"], truth["y"], size)
    components = []
    for c in (0, 1):
        fluxes = np.array([truth[f"flux_{c}_{name}"] for name in survey.band_names], np.float64)
        if np.any(fluxes > 0):
            components.append((_profile(truth, c), fluxes))
    return draw_components(renderer, survey, components, truth["x"], truth["y"], origin, size), origin


def _profile(truth, c):
    if truth["star"]:
        return point_source()
    shape = [float(truth[f"{name}_{c}"]) for name in ("sersic_n", "hlr", "q", "angle")]
    return component_profile(*shape, shear=(float(truth["g1"]), float(truth["g2"])), sersic_round=0)


def noiseless_field(truth, survey, shape, rows=None):
    """Sum of a field's objects, without noise and defects.

    Parameters
    ----------
    truth : `astropy.table.Table`
        The field's.
    survey : `Survey`
        As in `isolated_stamp`.
    shape : (`int`, `int`)
        Height and width of the field.
    rows : iterable of `int`, optional
        Rows of the objects that are wanted; all by default.

    Returns
    -------
    images : `numpy.ndarray` [band, y, x] of `float32`
        [image unit]
    """
    renderer = field_renderer(survey)
    images = np.zeros((len(survey), *shape), np.float32)
    for row in range(len(truth)) if rows is None else rows:
        add_stamp(images, *isolated_stamp(truth[row], survey, None, renderer=renderer))
    return images
