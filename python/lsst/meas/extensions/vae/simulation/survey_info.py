# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""A survey's numbers, as samples keep them to describe themselves, and what is read from them."""

__all__ = ["SurveyNumbers", "survey_info"]

import dataclasses
import functools

import numpy as np

from ..errors import ImageError, ShardError
from ..survey import PsfModel
from .psfs import unpack_psfs


def survey_info(survey):
    """A survey's numbers as a json-able `dict`.

    Parameters
    ----------
    survey : `Survey`

    Returns
    -------
    info : `dict`
        name, magnitude_system, image_unit, stamp_size, reference_band, and of each of the ``bands`` its
        fields and sky_level [electrons per pixel].
    """
    bands = []
    for band in survey.bands:
        numbers = dataclasses.asdict(band)
        numbers["sky_level"] = float(band.sky_level)
        bands.append(numbers)
    return {
        "name": survey.name,
        "magnitude_system": survey.magnitude_system,
        "image_unit": survey.image_unit,
        "stamp_size": survey.stamp_size,
        "reference_band": survey.reference_band,
        "bands": bands,
    }


class SurveyNumbers:
    """PSFs and skies of a sample that has ``survey_info``, ``band_profile`` [band] and ``psf``
    [scene, kind, 3].
    """

    @functools.cached_property
    def profile_kinds(self):
        """PSF model and pixel scale [arcsec] of each profile kind, as the survey has them [`tuple`]; a
        `ShardError` if that is not known.
        """
        number = self.psf.shape[1]
        try:
            found = {
                int(kind): (PsfModel(**band["psf"]), float(band["pixel_scale"]))
                for band, kind in zip(self.survey_info["bands"], self.band_profile, strict=True)
            }
            return tuple(found[kind] for kind in range(number))
        except (KeyError, TypeError, ValueError) as error:
            raise ShardError(
                f"survey_info does not tell the PSFs of the sample's {number} profile kinds ({error!r}): "
                "simulate it again"
            ) from None

    def psf_models(self, index):
        """PSFs of one scene.

        Parameters
        ----------
        index : `int`
            Scene.

        Returns
        -------
        models : `tuple` [`PsfModel`]
            Of each profile kind.

        Raises
        ------
        ShardError
            If they are not known.
        """
        try:
            return unpack_psfs(self.psf[index], self.profile_kinds)
        except ImageError as error:
            raise ShardError(f"scene {index}: {error}") from None

    def psf_kernels(self, index, size=41):
        """PSF images of one scene, the pixel included.

        Parameters
        ----------
        index : `int`
            Scene.
        size : `int`
            Side [pixel], odd.

        Returns
        -------
        kernels : `numpy.ndarray`, float64 [band, size, size]
            Each of unit sum.

        Raises
        ------
        ShardError
            If the PSFs are not known.
        """
        scales = [scale for _, scale in self.profile_kinds]
        kernels = [model.kernel(scale, size) for model, scale in zip(self.psf_models(index), scales)]
        return np.stack(kernels)[self.band_profile]

    def sky_and_unit(self):
        """What noise follows from.

        Returns
        -------
        sky, unit : `numpy.ndarray`, float64 [band]
            Sky level [electrons per pixel] and electrons per image unit.

        Raises
        ------
        ShardError
            If they are not known.
        """
        try:
            bands = self.survey_info["bands"]
            return tuple(
                np.array([float(band[name]) for band in bands])
                for name in ("sky_level", "electrons_per_unit")
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ShardError(
                f"survey_info does not tell the sky of the sample's bands ({error!r}): simulate it again"
            ) from None
