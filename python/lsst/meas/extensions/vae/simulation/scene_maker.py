# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""One scene on stamps, from a seed to drawn profiles and what truth tells of it."""

__all__ = ["PEAK_RADIUS", "Drawn", "SceneMaker"]

import math
from dataclasses import dataclass

import galsim
import numpy as np

from ..errors import CatalogError
from .centring import brightest_peak, stamp_centre, target_offset
from .noise import add_noise
from .placement import Placed, nearest_neighbour, place_annulus, place_field, sheared_about_target
from .render import ProfileRenderer
from .truth import PSF_SIZE, TruthWriter

PEAK_RADIUS = 1.5
"""Pixels within which a target must show a peak (placement "field")."""

_MAX_TRIES = 1000

# Neighbours that stay below this everywhere, in units of the sky's noise, in every band, get no rows.
_NEGLIGIBLE = 0.01


@dataclass(frozen=True)
class Drawn:
    """One object of a scene, drawn on the stamp.

    Attributes
    ----------
    placed : `Placed`
    shear : pair of `float`
        Lensing reduced shear (g1, g2).
    profiles : `numpy.ndarray`, float32 [component, kind, y, x]
        Fraction of the flux in each pixel.
    fluxes : `numpy.ndarray`, float64 [component, band]
        [image unit]
    """

    placed: Placed
    shear: tuple
    profiles: np.ndarray
    fluxes: np.ndarray


@dataclass(frozen=True)
class _Optics:
    """What the PSFs of one scene rule."""

    psfs: tuple  # PsfModel of each profile kind
    renderer: ProfileRenderer
    kernel: np.ndarray  # PSF image of the reference band


class SceneMaker:
    """Draws scene after scene; knows nothing of the others.

    Parameters
    ----------
    population : `Population`
    survey : `Survey`
    settings : `SceneSettings`

    Raises
    ------
    CatalogError
        If no object reaches ``target_snr_min``.
    """

    def __init__(self, population, survey, settings):
        self.population, self.survey, self.settings = population, survey, settings
        self.size = survey.stamp_size
        self.writer = TruthWriter(survey)
        self.reference = self.writer.reference
        band = survey.bands[self.reference]
        self.scale = band.pixel_scale
        self.electrons_per_unit, self.sky = band.electrons_per_unit, band.sky_level
        self.noise = np.array([math.sqrt(b.sky_level) / b.electrons_per_unit for b in survey.bands])
        self.same_scale = np.array([b.pixel_scale == self.scale for b in survey.bands])
        self.kind = int(survey.band_profile[self.reference])
        self.variation = settings.psf_variation
        self.renderer = ProfileRenderer(survey.profile_kinds)
        self.optics = self._optics(tuple(model for model, _ in survey.profile_kinds))
        if settings.seeks_peaks:
            self.detection_renderer = ProfileRenderer(survey.profile_kinds[self.kind : self.kind + 1])
        if settings.target_snr_min > 0:
            population.restrict_targets(self._may_be_target)

    def _optics(self, psfs):
        kernel = psfs[self.kind].kernel(self.scale, PSF_SIZE)
        return _Optics(psfs, self.renderer.with_psfs(psfs), kernel)

    def _may_be_target(self, library):
        """Objects whose SNR, were they point sources, is enough; none has more than that."""
        electrons = library.fluxes[:, :, self.reference].sum(axis=1) * self.electrons_per_unit
        # A PSF that varies is narrower by three sigma at most.
        sharpest = self.optics.kernel.max() * math.exp(6 * self.settings.psf_fwhm_scatter)
        brightest = electrons * min(sharpest, 1.0)
        return np.sqrt(electrons * brightest / (brightest + self.sky)) >= self.settings.target_snr_min

    def make(self, seed):
        """Draw a scene in all its versions.

        Parameters
        ----------
        seed : `int`
            Of the scene; it rules everything about it.

        Returns
        -------
        scenes : `list` [`list` [`Drawn`]]
            One for each of the settings' shears, the target first.
        measures : `list` [`dict`]
            What truth tells of each.
        psfs : `tuple` [`PsfModel`]
            Of each profile kind.

        Raises
        ------
        CatalogError
            If no scene fulfils what the settings demand.
        """
        rng = np.random.default_rng(seed)
        noise_seed = int(np.random.SeedSequence(seed, spawn_key=(1,)).generate_state(1, np.uint64)[0] >> 1)
        for _ in range(_MAX_TRIES):
            try:
                made = self._try(rng)
            except galsim.GalSimError:
                continue
            if made is not None:
                scenes, optics, n_peaks = made
                extra = {"n_peaks": n_peaks, "seed": seed, "noise_seed": noise_seed}
                measures = [self.writer.measure(scene, optics.kernel) | extra for scene in scenes]
                return scenes, measures, optics.psfs
        raise CatalogError(
            f"No scene fulfils target_snr_min = {self.settings.target_snr_min}, min_neighbour_distance = "
            f"{self.settings.min_neighbour_distance} and centring = {self.settings.centring!r} in "
            f"{_MAX_TRIES} tries: lower them, or the density of neighbours"
        )

    def _try(self, rng):
        """One scene in all versions, its optics and number of peaks; `None` if refused."""
        settings, optics = self.settings, self.optics
        if self.variation.varies:
            optics = self._optics(self.variation.draw(rng, self.survey.profile_kinds))
        offset = target_offset(rng, settings, self.scale)
        real = self.population.draw_real(rng)
        if settings.placement == "field":
            half_stamp = self.size / 2 * self.scale
            placed = place_field(rng, self.population, settings, offset, real, half_stamp, self.scale)
        else:
            placed = place_annulus(rng, self.population, settings, offset, real)
        n_peaks = -1
        if settings.seeks_peaks:
            placed, n_peaks = self._centre_on_peak(rng, placed, optics)
        if placed is None or nearest_neighbour(placed)[1] < settings.min_neighbour_distance:
            return None
        scene = self._select(placed, optics)
        if scene is None:
            return None
        return [self._sheared(scene, optics, shear) for shear in settings.shears], optics, n_peaks

    def _centre_on_peak(self, rng, placed, optics):
        """The scene about the brightest peak of a noisy image, its nearest galaxy first; and how many peaks
        there are. `None` and 0 where there is none.
        """
        size = self.settings.detection_size
        renderer = self.detection_renderer.with_psfs(optics.psfs[self.kind : self.kind + 1])
        image = np.zeros((1, size, size), np.float32)
        for one in placed:
            for profile, fluxes in one.library.components(one.index, one.rotation):
                image += fluxes[self.reference] * renderer.draw(profile, one.x, one.y, size=size)
        noisy = add_noise(image, np.array([self.sky]), np.array([self.electrons_per_unit]), rng)[0]
        threshold = self.settings.detection_threshold * self.noise[self.reference]
        peak, n_peaks = brightest_peak(noisy, threshold, self.settings.max_peaks)
        if peak is None:
            return None, 0
        middle = (size - 1) / 2
        x, y = ((value - middle) * self.scale for value in peak)
        target = min(placed, key=lambda one: math.hypot(one.x - x, one.y - y))
        others = [one for one in placed if one is not target]
        dx, dy = stamp_centre(*peak, size, self.size, self.settings.peak_centring)
        return [one.moved(-dx * self.scale, -dy * self.scale) for one in (target, *others)], n_peaks

    def _draw(self, placed, optics, shear=(0.0, 0.0)):
        components = placed.library.components(placed.index, placed.rotation, shear)
        draw = optics.renderer.draw
        profiles = np.stack([draw(profile, placed.x, placed.y, size=self.size) for profile, _ in components])
        return Drawn(placed, shear, profiles, np.stack([fluxes for _, fluxes in components]))

    def _select(self, placed, optics):
        """Draw the scene without shear and leave out what does not show; `None` if the scene is refused."""
        target = self._draw(placed[0], optics)
        if self.settings.target_snr_min > 0:
            if self.writer.snr(target)[self.reference] < self.settings.target_snr_min:
                return None
        others = [self._draw(one, optics) for one in placed[1:]]
        if self.settings.placement == "annulus":
            return [target, *others]
        images = [self.writer.band_images(one) for one in others]
        seen = [np.any(image.max(axis=(1, 2)) > _NEGLIGIBLE * self.noise) for image in images]
        if any(seen):
            total = self.writer.band_images(target) + sum(i for i, shows in zip(images, seen) if shows)
            if not self._shows_peak(placed[0], total):
                return None
        return [target, *(one for one, shows in zip(others, seen) if shows)]

    def _shows_peak(self, target, image):
        """Whether the noiseless scene [band, y, x] has a local maximum near the target."""
        chosen = self.same_scale
        scene = np.tensordot(1.0 / self.noise[chosen], image[chosen], axes=1)
        centre = (self.size - 1) / 2
        x, y = centre + target.x / self.scale, centre + target.y / self.scale
        low_x, low_y = math.ceil(x - PEAK_RADIUS), math.ceil(y - PEAK_RADIUS)
        for row in range(low_y, math.floor(y + PEAK_RADIUS) + 1):
            for column in range(low_x, math.floor(x + PEAK_RADIUS) + 1):
                inside = 1 <= row < self.size - 1 and 1 <= column < self.size - 1
                if not inside or math.hypot(row - y, column - x) > PEAK_RADIUS:
                    continue
                if scene[row, column] >= scene[row - 1 : row + 2, column - 1 : column + 2].max():
                    return True
        return False

    def _sheared(self, scene, optics, shear):
        if shear == (0.0, 0.0):
            return scene
        placed = [one.placed for one in scene]
        if self.settings.shear_positions:
            placed = sheared_about_target(placed, shear)
        return [self._draw(one, optics, shear) for one in placed]
