# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples written whole: noisy scenes beside the noiseless targets in them.

A shard holds no noise, and training draws it afresh. A test sample is kept
with the noise that every method is to be measured on, drawn from each scene's
own seed: the versions of one sheared scene share it.
"""

__all__ = ["COMPOSED_FORMAT", "ComposedSample", "SeededNoise", "compose"]

from dataclasses import dataclass, field

import numpy as np
from astropy.table import Table

from ..errors import ShardError
from .noise import NoiseModel, check_noise, expected_variance
from .sample_file import SampleFile
from .survey_info import SurveyNumbers

COMPOSED_FORMAT = "vae_composed_sample"
_IMAGES = ("noisy", "target", "scene")


@dataclass
class ComposedSample(SampleFile, SurveyNumbers):
    """Noisy scenes, drawn from a `StampSample`.

    Attributes
    ----------
    survey, bands, kind, settings, seed, split, versions, survey_info
        As in the `StampSample`.
    noise : `str`
        Kind of the noise, one of `NOISE_KINDS`.
    noise_correlation : `float`
        Correlation of the noise of adjacent pixels.
    noisy : `numpy.ndarray` [scene, band, y, x] of `float32`
        Scenes with noise, the expected sky subtracted [image unit]. It and
        the other images give slices alone where the sample was composed or
        opened rather than read.
    target : `numpy.ndarray` [scene, band, y, x] of `float32`
        The target alone, without noise [image unit].
    scene : `numpy.ndarray` [scene, band, y, x] of `float32`
        The whole scene without noise [image unit].
    truth, objects, psf, band_profile
        As in the `StampSample`.
    """

    _format, _format_version = COMPOSED_FORMAT, 1
    _what = "composed sample"
    _texts = ("noise",)
    _small = {"psf": 3, "band_profile": 1}
    _large = dict.fromkeys(_IMAGES, 4)

    survey: str
    bands: tuple
    kind: str
    settings: dict
    seed: int
    split: str
    versions: dict
    noise: str
    noise_correlation: float
    noisy: np.ndarray
    target: np.ndarray
    scene: np.ndarray
    truth: Table
    objects: Table
    psf: np.ndarray
    band_profile: np.ndarray
    survey_info: dict = field(default_factory=dict)

    def __post_init__(self):
        self.bands = tuple(self.bands)
        check_noise(self.noise, self.noise_correlation)
        _check_arrays(self)

    def variance(self, index):
        """Variance of the noise of one scene, its sources' included.

        Parameters
        ----------
        index : `int`
            Scene.

        Returns
        -------
        variance : `numpy.ndarray`, float64 [band, y, x]
            [image unit^2]
        """
        sky, unit = self.sky_and_unit()
        return expected_variance(self.scene[index], sky, unit, self.noise)

    def _numbers(self):
        return {"noise_correlation": float(self.noise_correlation)}

    @classmethod
    def _fields_of_numbers(cls, attributes):
        return {"noise_correlation": float(attributes["noise_correlation"])}


class SeededNoise:
    """The noise of a sample's scenes, each drawn from the scene's own seed.

    Parameters
    ----------
    sample : `StampSample`
        Its truth has a ``noise_seed``; opened or in memory.
    noise : `str`
        One of `NOISE_KINDS`.
    correlation : `float`
        Correlation of the noise of adjacent pixels, 0 to 0.6; see `unit_noise`.

    Raises
    ------
    VaeError
        If the noise cannot be drawn, or the sample does not tell its sky and seeds.
    """

    def __init__(self, sample, noise="poisson", correlation=0.0):
        self._model = NoiseModel(*sample.sky_and_unit(), noise, correlation)
        if "noise_seed" not in sample.truth.colnames:
            raise ShardError("the sample's truth has no noise_seed: simulate it again")
        self._seeds = sample.truth["noise_seed"]

    def add(self, image, index):
        """A noisy image, the expected sky subtracted.

        Parameters
        ----------
        image : `numpy.ndarray`, float32 [band, y, x]
            Of the scene, or of its target alone: both get the same random
            numbers [image unit].
        index : `int`
            Scene.

        Returns
        -------
        noisy : `numpy.ndarray`, float32 [band, y, x]
        """
        return self._model.add(image, np.random.default_rng(int(self._seeds[index])))


class _Drawn:
    """Images of scenes that are drawn when a slice of them is asked for.

    Parameters
    ----------
    name : `str`
        Which of a composed sample's images.
    sample : `StampSample`
    noise : `SeededNoise`
    """

    dtype = np.dtype(np.float32)

    def __init__(self, name, sample, noise):
        self._name, self._sample, self._noise = name, sample, noise
        self.shape = (sample.n_scenes, len(sample.bands), *sample.profiles.shape[2:])

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        if isinstance(index, slice):
            chosen = range(len(self))[index]
            images = [self._draw(i) for i in chosen]
            return np.stack(images) if images else np.empty((0, *self.shape[1:]), np.float32)
        return self._draw(range(len(self))[index])

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[:], dtype)

    def _draw(self, index):
        if self._name == "target":
            return self._sample.image(index, "target")
        scene = self._sample.image(index)
        return self._noise.add(scene, index) if self._name == "noisy" else scene


def compose(sample, noise="poisson", correlation=0.0):
    """Draw the noise of a sample's scenes, each from its own seed.

    Parameters
    ----------
    sample, noise, correlation
        As `SeededNoise`.

    Returns
    -------
    composed : `ComposedSample`
        Its images are drawn when they are asked for, a slice or a scene at a
        time, always the same; `ComposedSample.write` needs no more memory
        than a few scenes take.

    Raises
    ------
    VaeError
        As `SeededNoise`.
    """
    seeded = SeededNoise(sample, noise, correlation)
    shared = ("survey", "bands", "kind", "settings", "seed", "split", "versions", "survey_info")
    shared += ("truth", "objects", "psf", "band_profile")
    return ComposedSample(
        **{name: getattr(sample, name) for name in shared},
        noise=noise,
        noise_correlation=float(correlation),
        **{name: _Drawn(name, sample, seeded) for name in _IMAGES},
    )


def _check_arrays(sample):
    """Refuse arrays that do not fit together."""
    n_scenes, n_bands = len(sample.truth), len(sample.bands)
    if not n_bands or not all(isinstance(band, str) for band in sample.bands):
        raise ShardError("bands is not a list of names")
    for name in _IMAGES:
        image = getattr(sample, name)
        if image.dtype != np.float32 or image.shape != (n_scenes, n_bands, *sample.noisy.shape[2:]):
            raise ShardError(
                f"{name} is {image.dtype} {image.shape}: expected float32 of {n_scenes} scenes, {n_bands} "
                f"bands and {sample.noisy.shape[2:]} pixels"
            )
    profile = sample.band_profile
    kinds = sample.psf.shape[1] if sample.psf.ndim == 3 else 0
    if sample.psf.dtype != np.float32 or sample.psf.shape != (n_scenes, kinds, 3):
        raise ShardError(
            f"psf is {sample.psf.dtype} {sample.psf.shape}, which does not fit {n_scenes} scenes"
        )
    if (
        profile.dtype != np.int64
        or profile.shape != (n_bands,)
        or not 0 <= profile.min() <= profile.max() < kinds
    ):
        raise ShardError(f"band_profile does not give each of {n_bands} bands one of the {kinds} PSFs")
