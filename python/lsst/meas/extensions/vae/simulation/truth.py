# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Truth tables: one row a scene, and one row a galaxy or star in it."""

__all__ = ["PSF_SIZE", "TruthWriter"]

import math

import numpy as np

from ..galaxies.splits import split_of
from . import metrics
from .placement import nearest_neighbour

PSF_SIZE = 41
"""Side of the PSF image that shapes are corrected for [pixel]."""


class TruthWriter:
    """Measures scenes and writes their truth.

    Parameters
    ----------
    survey : `Survey`
    """

    def __init__(self, survey):
        self.band_names = survey.band_names
        self.reference = survey.band_names.index(survey.reference_band)
        band = survey.bands[self.reference]
        self.scale = band.pixel_scale
        self.centre = (survey.stamp_size - 1) / 2
        self.band_profile = np.asarray(survey.band_profile)
        self.electrons_per_unit = np.array([b.electrons_per_unit for b in survey.bands], np.float32)
        self.sky = np.array([b.sky_level for b in survey.bands])

    def band_images(self, drawn):
        """Noiseless image of one object.

        Parameters
        ----------
        drawn : `Drawn`

        Returns
        -------
        image : `numpy.ndarray`, float32 [band, y, x]
            [image unit]
        """
        image = np.zeros((len(self.band_names),) + drawn.profiles.shape[2:], np.float32)
        for profile, flux in zip(drawn.profiles, drawn.fluxes.astype(np.float32)):
            image += flux[:, None, None] * profile[self.band_profile]
        return image

    def snr(self, drawn):
        """Signal-to-noise ratio of an isolated object in every band.

        Parameters
        ----------
        drawn : `Drawn`

        Returns
        -------
        snr : `numpy.ndarray`, float64 [band]
        """
        return metrics.snr(self.band_images(drawn) * self.electrons_per_unit[:, None, None], self.sky)

    def _reference_image(self, drawn):
        profiles = drawn.profiles[:, self.band_profile[self.reference]]
        return np.tensordot(drawn.fluxes[:, self.reference], profiles.astype(np.float64), axes=1)

    def measure(self, scene, psf):
        """What only pixels and the whole scene tell.

        Parameters
        ----------
        scene : `list` [`Drawn`]
            The target first.
        psf : `numpy.ndarray` [y, x]
            PSF of the reference band.

        Returns
        -------
        measures : `dict` [`str`, number]
            Columns of the truth; in the reference band where not said.
        """
        placed = [drawn.placed for drawn in scene]
        target = self._reference_image(scene[0])
        x, y = self.centre + placed[0].x / self.scale, self.centre + placed[0].y / self.scale
        e1, e2, failed = metrics.ksb_shear(target, psf, x, y)
        snrs = self.snr(scene[0])
        number, distance = nearest_neighbour(placed)
        blendedness = (0.0, 0.0)
        if number is not None:
            images = [self._reference_image(drawn) for drawn in scene[1:]]
            blendedness = (
                metrics.b_closest(target, images[number - 1]),
                metrics.b_tot(target, target + sum(images)),
            )
        magnitudes = [one.magnitude for one in placed]
        return {
            "e1": e1,
            "e2": e2,
            "hsm_failed": failed,
            "snr": snrs[self.reference],
            **{f"snr_{name}": snr for name, snr in zip(self.band_names, snrs)},
            "b_closest": blendedness[0],
            "b_tot": blendedness[1],
            "delta_mag_c": math.nan if number is None else magnitudes[number] - magnitudes[0],
            "neighbour_distance": math.nan if number is None else distance,
            "n_galaxies": len(scene),
            "target_is_brightest": magnitudes[0] <= min(magnitudes),
        }

    def objects(self, scenes):
        """Every galaxy and star of some scenes.

        Parameters
        ----------
        scenes : sequence of `list` [`Drawn`]

        Returns
        -------
        columns : `dict` [`str`, `numpy.ndarray`]
            Columns of the table of objects, scenes numbered from 0.
        """
        drawn = [
            (number, order, one) for number, scene in enumerate(scenes) for order, one in enumerate(scene)
        ]
        placed = [one.placed for _, _, one in drawn]

        def gather(name, dtype):
            return np.array([getattr(one.library, name)[one.index] for one in placed], dtype)

        magnitudes = gather("magnitudes", np.float64)
        shears = np.array([one.shear for _, _, one in drawn], np.float64)
        return {
            "scene": np.array([number for number, _, _ in drawn], np.int32),
            "galaxy": np.array([order for _, order, _ in drawn], np.int8),
            "ident": gather("ident", np.int64),
            "star": gather("star", bool),
            "real": gather("real", bool),
            "x": self.centre + np.array([one.x for one in placed]) / self.scale,
            "y": self.centre + np.array([one.y for one in placed]) / self.scale,
            "redshift": gather("redshift", np.float64),
            **{f"mag_{name}": magnitudes[:, b].copy() for b, name in enumerate(self.band_names)},
            "r_mag_ab": gather("ab_magnitude", np.float64),
            "rotation": np.array([one.rotation for one in placed]),
            "g1": shears[:, 0].copy(),
            "g2": shears[:, 1].copy(),
        }

    def scenes(self, objects, measures):
        """The table of scenes.

        Parameters
        ----------
        objects : `dict`
            As `objects` gives them.
        measures : sequence of `dict`
            Of each scene, what `measure` gives and what else its maker knows:
            base_scene, n_peaks, seed, noise_seed.

        Returns
        -------
        columns : `dict` [`str`, `numpy.ndarray`]
            Scenes numbered from 0.
        """
        target = {name: column[objects["galaxy"] == 0] for name, column in objects.items()}
        measured = {name: np.array([row[name] for row in measures]) for name in measures[0]}
        magnitudes = [f"mag_{name}" for name in self.band_names]
        columns = {"scene": target["scene"], "base_scene": measured.pop("base_scene").astype(np.int32)}
        columns |= {name: target[name] for name in ("g1", "g2")}
        columns["split"] = split_of(target["ident"])
        columns |= {name: target[name] for name in ("ident", "redshift", *magnitudes)}
        columns["r_mag"] = target[magnitudes[self.reference]]
        columns["r_mag_ab"] = target["r_mag_ab"]
        columns |= {name: target[name] for name in ("x", "y", "star", "real")}
        return columns | measured
