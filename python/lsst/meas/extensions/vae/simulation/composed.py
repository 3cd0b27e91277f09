# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples written whole: noisy scenes beside the noiseless targets in them.

A shard holds no noise, and training draws it afresh. A test sample is kept
with the noise that every method is to be measured on, drawn from each scene's
own seed: the versions of one sheared scene share it.
"""

__all__ = ["COMPOSED_FORMAT", "ComposedSample", "compose"]

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.table import Table

from ..errors import ShardError
from ..files import replacing
from .hdf5 import ArrayOnDisk, read_array, read_table, reading, write_array, write_table
from .noise import NoiseModel, check_noise, expected_variance
from .survey_info import SurveyNumbers

COMPOSED_FORMAT = "vae_composed_sample"
_FORMAT_VERSION = 1

_MAX_TEXT = 2**20
_CHUNK_BYTES = 2**19
# Scenes that are composed at a time while a sample is written.
_STEP = 64

_TEXTS = ("survey", "kind", "split", "noise")
_JSON = {"bands": list, "settings": dict, "versions": dict, "survey_info": dict}
_IMAGES = ("noisy", "target", "scene")


@dataclass
class ComposedSample(SurveyNumbers):
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
        _check_arrays(self)

    def __len__(self):
        return len(self.truth)

    @property
    def n_scenes(self):
        """Number of scenes."""
        return len(self.truth)

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

    def write(self, path):
        """Write an HDF5 file, whole or not at all.

        Parameters
        ----------
        path : path-like
            An existing file is replaced, once the new one is on disk.
            Images are written a few scenes at a time.
        """
        import h5py

        with replacing(path) as temporary, h5py.File(temporary, "w") as file:
            file.attrs["format"] = COMPOSED_FORMAT
            file.attrs["format_version"] = _FORMAT_VERSION
            for name in _TEXTS:
                file.attrs[name] = getattr(self, name)
            file.attrs["noise_correlation"] = float(self.noise_correlation)
            file.attrs["seed"] = str(int(self.seed))
            file.attrs["n_scenes"] = self.n_scenes
            for name in _JSON:
                file.attrs[name] = json.dumps(getattr(self, name), sort_keys=True)
            for name in ("psf", "band_profile"):
                write_array(file, name, getattr(self, name))
            for name in ("truth", "objects"):
                write_table(file, name, getattr(self, name))
            for name in _IMAGES:
                self._write_images(file, name)

    def _write_images(self, file, name):
        """Write images a few scenes at a time, so that they need not be in memory."""
        images = getattr(self, name)
        chunk = min(self.n_scenes, max(1, _CHUNK_BYTES // (4 * int(np.prod(images.shape[1:])))))
        dataset = file.create_dataset(
            name,
            shape=images.shape,
            dtype=np.float32,
            chunks=(chunk, *images.shape[1:]),
            compression="gzip",
            compression_opts=1,
            shuffle=True,
            fletcher32=True,
        )
        for start in range(0, self.n_scenes, _STEP):
            part = slice(start, min(start + _STEP, self.n_scenes))
            dataset[part] = images[part]

    @classmethod
    def read(cls, path):
        """Read a file.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        sample : `ComposedSample`

        Raises
        ------
        ShardError
            If the file is absent, foreign, truncated, damaged, or its header
            claims what it does not hold.
        """
        return cls._load(path, read_array)

    @classmethod
    def open(cls, path):
        """Read all of a file but its images, which are read slice by slice
        when they are asked for.

        Parameters
        ----------
        path : path-like
            It must not change while the sample is in use.

        Returns
        -------
        sample : `ComposedSample`
            It closes as a context manager, or by `close`.

        Raises
        ------
        ShardError
            As `read`.
        """
        return cls._load(path, lambda group, name, ndim: ArrayOnDisk(path, name, ndim))

    def close(self):
        """Close the file of a sample that was opened."""
        for name in _IMAGES:
            if isinstance(getattr(self, name), ArrayOnDisk):
                getattr(self, name).close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @classmethod
    def _load(cls, path, load_images):
        import h5py

        path = Path(path)
        if not path.is_file():
            raise ShardError(f"No composed sample at {path}: expected an HDF5 file; simulate it first")
        with reading(path, COMPOSED_FORMAT), h5py.File(path, "r") as file:
            header = _read_header(file)
            images = {name: load_images(file, name, 4) for name in _IMAGES}
            return cls(
                **header,
                **images,
                psf=read_array(file, "psf", 3),
                band_profile=read_array(file, "band_profile", 1),
                truth=read_table(file, "truth"),
                objects=read_table(file, "objects"),
            )


class _Drawn:
    """Images of scenes that are drawn when a slice of them is asked for.

    Parameters
    ----------
    name : `str`
        Which of a composed sample's images.
    sample : `StampSample`
    model : `NoiseModel`
    """

    dtype = np.dtype(np.float32)

    def __init__(self, name, sample, model):
        self._name, self._sample, self._model = name, sample, model
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
        if self._name == "noisy":
            rng = np.random.default_rng(int(self._sample.truth["noise_seed"][index]))
            return self._model.add(scene, rng, out=np.empty_like(scene))
        return scene


def compose(sample, noise="poisson", correlation=0.0):
    """Draw the noise of a sample's scenes, each from its own seed.

    Parameters
    ----------
    sample : `StampSample`
        Its truth has a ``noise_seed``; opened or in memory.
    noise : `str`
        One of `NOISE_KINDS`.
    correlation : `float`
        Correlation of the noise of adjacent pixels, 0 to 0.6; see `unit_noise`.

    Returns
    -------
    composed : `ComposedSample`
        Its images are drawn when they are asked for, a slice or a scene at a
        time, always the same; `ComposedSample.write` needs no more memory
        than a few scenes take.

    Raises
    ------
    VaeError
        If the noise cannot be drawn, or the sample does not tell its sky and seeds.
    """
    model = NoiseModel(*sample.sky_and_unit(), noise, correlation)
    if "noise_seed" not in sample.truth.colnames:
        raise ShardError("the sample's truth has no noise_seed: simulate it again")
    shared = ("survey", "bands", "kind", "settings", "seed", "split", "versions", "survey_info")
    shared += ("truth", "objects", "psf", "band_profile")
    return ComposedSample(
        **{name: getattr(sample, name) for name in shared},
        noise=noise,
        noise_correlation=float(correlation),
        **{name: _Drawn(name, sample, model) for name in _IMAGES},
    )


def _read_header(file):
    """What the attributes say, once it is known to be what it should be."""
    found = file.attrs.get("format")
    if not isinstance(found, str) or found != COMPOSED_FORMAT:
        raise ShardError(
            f"format is {str(found)[:40]!r}: expected {COMPOSED_FORMAT!r}; give a file of composed scenes"
        )
    version = int(file.attrs["format_version"])
    if version != _FORMAT_VERSION:
        raise ShardError(f"format version is {version}: expected {_FORMAT_VERSION}; simulate it again")
    header = {}
    for name in (*_TEXTS, "seed", *_JSON):
        text = file.attrs[name]
        if not isinstance(text, str) or len(text) > _MAX_TEXT:
            raise ShardError(f"attribute {name} is not a text of at most {_MAX_TEXT} characters")
        header[name] = text
    header["seed"] = int(header["seed"])
    for name, kind in _JSON.items():
        header[name] = json.loads(header[name])
        if not isinstance(header[name], kind):
            raise ShardError(f"attribute {name} is not a JSON {kind.__name__}")
    header["noise_correlation"] = float(file.attrs["noise_correlation"])
    check_noise(header["noise"], header["noise_correlation"])
    n_scenes = int(file.attrs["n_scenes"])
    if "truth" in file and any(len(column) != n_scenes for column in file["truth"].values()):
        raise ShardError(f"truth has not the {n_scenes} rows that the header says")
    return header


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
