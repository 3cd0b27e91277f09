# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compose training batches from a sample: fresh neighbours, noise and flips.

A sample holds noiseless profiles and fluxes.  Each time a scene is used its
target may meet the neighbours of another scene, the whole stamp is flipped or
rotated (eight ways) and new noise is drawn, so that a network never sees the
same pixels twice.
"""

import numpy as np

__all__ = ["SceneComposer"]

# Half the side of the central square in which the brightest pixel of the
# scene's heart must lie for the target to count as a peak; see `_is_peak`.
_PEAK_HALF_WIDTH, _HEART_HALF_WIDTH = 2, 4


class SceneComposer:
    """Batches of noisy scenes and the noiseless targets in them.

    Parameters
    ----------
    samples : sequence of `~..simulation.shards.StampSample`
        Profiles and fluxes.  All of them give targets, the blended ones give
        neighbours; they stay apart in memory, so nothing is copied.
    survey : `~..survey.Survey`
        Their survey, with their bands.
    recompose : `bool`, optional
        Exchange neighbours between scenes?
    augment : `bool`, optional
        Flip and rotate?
    isolated : `bool`, optional
        Leave the neighbours out?  A blended sample then serves as an
        isolated one.
    seed : `int`, optional
        Seed; batch number ``i`` depends on the seed and on ``i`` alone.
    """

    def __init__(self, samples, survey, *, recompose=True, augment=True, isolated=False, seed=0):
        self.samples, self.survey = list(samples), survey
        self.recompose, self.augment, self.isolated, self.seed = recompose, augment, isolated, seed
        unit = np.array([band.electrons_per_unit for band in survey.bands], dtype=np.float32)
        sky = np.array([band.sky_level for band in survey.bands], dtype=np.float32)
        self.sky_variance = sky / unit**2
        self.source_variance = 1.0 / unit
        self.noise = np.sqrt(self.sky_variance)
        counts = [sample.n_scenes for sample in self.samples]
        self._starts = np.cumsum([0] + counts)
        self.n_scenes = int(self._starts[-1])
        blended = [
            np.arange(start, start + count)
            for sample, start, count in zip(self.samples, self._starts, counts, strict=False)
            if sample.kind == "blended"
        ]
        self._with_neighbours = np.concatenate(blended) if blended else np.arange(0)
        self.stamp_shape = self.samples[0].profiles.shape[-2:]
        # In the paper's scenes the target is the brightest galaxy, in a field
        # it is any peak; exchanging neighbours has to keep to that.
        self._brightest_target = any(s.settings.get("placement") == "annulus" for s in self.samples)
        if self._brightest_target:
            self._target_flux, self._neighbour_flux = self._reference_fluxes()
        self._pass = None

    def _reference_fluxes(self):
        """Of each scene, the target's flux and the brightest neighbour's."""
        band = self.survey.band_names.index(self.survey.reference_band)
        target, brightest = np.zeros(self.n_scenes), np.zeros(self.n_scenes)
        for sample, start in zip(self.samples, self._starts, strict=False):
            # A galaxy may have two rows, its bulge and its disc.
            galaxies = np.zeros((sample.n_scenes, int(sample.galaxy.max(initial=0)) + 1))
            np.add.at(galaxies, (sample.scene, sample.galaxy), sample.fluxes[:, band])
            part = slice(start, start + sample.n_scenes)
            target[part] = galaxies[:, 0]
            brightest[part] = galaxies[:, 1:].max(axis=1, initial=0.0)
        return target, brightest

    def _image(self, i, galaxies):
        """Noiseless target or neighbours of scene ``i`` of all samples."""
        number = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self.samples[number].image(int(i - self._starts[number]), galaxies)

    def scene(self, i, j=None):
        """Noiseless target of scene ``i`` and its neighbours, those of ``j``.

        Parameters
        ----------
        i, j : `int`
            Scene of the target and scene of the neighbours (default: ``i``).

        Returns
        -------
        target, neighbours : `numpy.ndarray`, float32 ``[band, y, x]``
            In the image unit.
        """
        target = self._image(i, "target")
        neighbours = (
            np.zeros_like(target) if self.isolated else self._image(i if j is None else j, "neighbours")
        )
        return np.maximum(target, 0.0, out=target), neighbours

    def _mixed_scene(self, i, rng):
        """Target ``i`` among the neighbours of another scene, if they may meet."""
        if self.recompose and not self.isolated and len(self._with_neighbours):
            for _ in range(3):
                j = rng.choice(self._with_neighbours)
                if self._brightest_target:
                    if self._neighbour_flux[j] <= self._target_flux[i]:
                        return self.scene(i, j)
                    continue
                target, neighbours = self.scene(i, j)
                if self._is_peak(target, neighbours):
                    return target, neighbours
        return self.scene(i)

    def _is_peak(self, target, neighbours):
        """Is the target still a peak among these neighbours?

        The deblender is asked only about detected peaks, so scenes in which
        a neighbour's flank buries the target would teach it nothing.
        """
        c, h = target.shape[-1] // 2, _HEART_HALF_WIDTH
        heart = slice(c - h, c + h)
        image = np.tensordot(1.0 / self.noise, target[:, heart, heart] + neighbours[:, heart, heart], axes=1)
        y, x = np.unravel_index(np.argmax(image), image.shape)
        inner = range(h - _PEAK_HALF_WIDTH, h + _PEAK_HALF_WIDTH)
        return y in inner and x in inner

    def add_noise(self, image, rng):
        """Add the noise of sky and source to a noiseless image, in place.

        Poisson noise at these counts (884 sky electrons a pixel in u, the
        faintest LSST band) is Gaussian to a few per cent of its skewness;
        test samples are written with true Poisson noise.
        """
        sigma = np.maximum(image, 0.0)
        sigma *= self.source_variance[:, None, None]
        sigma += self.sky_variance[:, None, None]
        np.sqrt(sigma, out=sigma)
        sigma *= rng.standard_normal(image.shape, dtype=np.float32)
        image += sigma
        return image

    def batch(self, number, size, scale=None):
        """Compose a batch.

        Parameters
        ----------
        number : `int`
            Number of the batch since the start of the training.
        size : `int`
            Number of scenes.
        scale : array-like, ``[band]``, optional
            Divide by it.

        Returns
        -------
        noisy, clean : `numpy.ndarray`, float32 ``[n, band, y, x]``
            Scenes with noise and noiseless targets, in the image unit, or in
            units of the scale.
        """
        rng = np.random.default_rng([self.seed, number])
        shape = (size, len(self.survey.bands), *self.stamp_shape)
        noisy, clean = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
        for k in range(size):
            # A shuffled pass through all the scenes before any comes again.
            target, neighbours = self._mixed_scene(self._shuffled(number * size + k), rng)
            neighbours += target
            image = self.add_noise(neighbours, rng)
            turns, flip = (int(rng.integers(4)), bool(rng.integers(2))) if self.augment else (0, False)
            for source, destination in ((image, noisy), (target, clean)):
                turned = np.rot90(source, turns, axes=(-2, -1))
                destination[k] = turned[..., ::-1] if flip else turned
        if scale is not None:
            factor = (1.0 / np.asarray(scale, dtype=np.float32))[:, None, None]
            noisy *= factor
            clean *= factor
        return noisy, clean

    def _shuffled(self, position):
        """Scene at a place of an endless sequence of shuffled passes."""
        epoch, index = divmod(position, self.n_scenes)
        current = self._pass
        if current is None or current[0] != epoch:
            rng = np.random.default_rng([self.seed, 1 << 30, epoch])
            current = self._pass = (epoch, rng.permutation(self.n_scenes))
        return int(current[1][index])

    def mean_peak(self, limit=5000):
        """Mean over the sample of the brightest pixel of each band.

        This is M_b of Arcelin et al. 2020, section 2.3, of the noiseless
        targets.

        Parameters
        ----------
        limit : `int`, optional
            Use at most so many scenes, the first ones.

        Returns
        -------
        mean : `numpy.ndarray`, float64 ``[band]``
            In the image unit.
        """
        n = min(limit, self.n_scenes)
        return np.mean([self.scene(i)[0].max(axis=(1, 2)) for i in range(n)], axis=0, dtype=np.float64)
