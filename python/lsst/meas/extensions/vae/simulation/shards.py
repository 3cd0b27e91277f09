# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shards: many simulated stamps as profiles and fluxes, in memory and in HDF5.

A scene is ``sum_k profile_k * flux_kb``: one row per galaxy component, drawn
in place at unit flux through each distinct PSF. Training composes scenes from
rows and draws fresh noise, so a shard holds no noise.
"""

__all__ = ["PROFILE_SCALE", "SHARD_FORMAT", "StampSample", "pack_profiles"]

import dataclasses
import functools
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import ShardError
from ..files import replacing

PROFILE_SCALE = 256.0
"""Profiles are stored times this, which puts them into float16's range."""

SHARD_FORMAT = "vae_stamp_sample"
_FORMAT_VERSION = 1

# Profiles are rounded to this part of their peak's power of two: digits far below any noise would
# not compress.
_PROFILE_STEP = 2.0**-17

_MAX_BYTES = 32 * 2**30
_MAX_TEXT = 2**20
# DEFLATE cannot shrink more than this: a header that claims more lies about data that the file does not hold.
_MAX_COMPRESSION = 1100
_CHUNK_BYTES = 2**19


def pack_profiles(profiles):
    """Profiles as shards hold them.

    Parameters
    ----------
    profiles : `numpy.ndarray` [row, kind, y, x] of `float32`
        Fraction of the flux in each pixel.

    Returns
    -------
    packed : `numpy.ndarray` [row, kind, y, x] of `float16`
        Times `PROFILE_SCALE`, rounded to 10^-5 of the row's peak or better.
    """
    peak = profiles.max(axis=(1, 2, 3), keepdims=True).astype(np.float64)
    # A galaxy outside the stamp may leave next to nothing on it: float16 ends at 2^-24.
    step = np.exp2(np.ceil(np.log2(np.maximum(peak, 2.0**-24)))) * _PROFILE_STEP
    packed = profiles * (1.0 / step).astype(np.float32)
    np.rint(packed, out=packed)
    packed *= (step * PROFILE_SCALE).astype(np.float32)
    return packed.astype(np.float16)


def _unpack_profiles(packed):
    """Undo `pack_profiles`, six times faster than NumPy's own conversion.

    The exponent and the mantissa are moved to their places, and the
    difference of the exponents' biases, 112, is multiplied in with
    `PROFILE_SCALE`; that holds for subnormal numbers too, and profiles are
    always finite.
    """
    bits = packed.view(np.int16).astype(np.int32)
    # Shifting the sign-extended bits leaves the sign where it belongs.
    bits <<= 13
    bits &= np.int32(-1879056384)  # 0x8FFFE000: sign, five exponent bits, mantissa
    profiles = bits.view(np.float32)
    profiles *= np.float32(2.0**112 / PROFILE_SCALE)
    return profiles


@dataclass
class StampSample:
    """Scenes of one kind, drawn with one survey and one seed.

    Attributes
    ----------
    survey : `str`
        Name of the survey.
    bands : `tuple` [`str`]
        Bands, in the order of the band axis.
    kind : `str`
        "isolated" or "blended".
    settings : `dict`
        The settings of the simulation, json-able.
    seed : `int`
        The seed of the simulation.
    split : `str`
        The galaxies' split: "train", "validation", "test" or "all".
    versions : `dict`
        Versions of what drew the scenes.
    profiles : `numpy.ndarray` [row, kind, y, x] of `float16`
        Fraction of the flux in each pixel times `PROFILE_SCALE`; one row is
        one component of one galaxy, one kind is one (PSF, pixel scale).
    fluxes : `numpy.ndarray` [row, band] of `float32`
        Flux [the survey's image unit].
    scene : `numpy.ndarray` [row] of `int32`
        Which scene the row belongs to; ascending, every scene has rows.
    galaxy : `numpy.ndarray` [row] of `int8`
        0 the target, 1 and up its neighbours.
    truth : `astropy.table.Table`
        One row a scene, numbers only.
    band_profile : `numpy.ndarray` [band] of `int64`
        Which kind each band uses.
    survey_info : `dict`
        The survey's numbers (image unit, and of each band its pixel scale,
        zero point, sky level, electrons per unit, PSF), json-able.
    """

    survey: str
    bands: tuple
    kind: str
    settings: dict
    seed: int
    split: str
    versions: dict
    profiles: np.ndarray
    fluxes: np.ndarray
    scene: np.ndarray
    galaxy: np.ndarray
    truth: object
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

    @functools.cached_property
    def _offsets(self):
        return np.searchsorted(self.scene, np.arange(self.n_scenes + 1))

    def describe(self):
        """What rules the sample's scenes, json-able: two samples of one
        description hold the same scenes.

        Returns
        -------
        description : `dict`
            Survey, bands, kind, split, number of scenes, seed, settings and
            versions (the galaxies' source and checksum are among them).
        """
        return {
            "survey": self.survey,
            "bands": list(self.bands),
            "kind": self.kind,
            "split": self.split,
            "scenes": self.n_scenes,
            "seed": self.seed,
            "settings": self.settings,
            "versions": self.versions,
        }

    def rows(self, index):
        """Rows of one scene.

        Parameters
        ----------
        index : `int`
            Scene, 0-based; negative counts from the end.

        Returns
        -------
        rows : `slice`

        Raises
        ------
        IndexError
            If there is no such scene.
        """
        if not -self.n_scenes <= index < self.n_scenes:
            raise IndexError(f"Scene {index} of {self.n_scenes}")
        index %= self.n_scenes
        return slice(int(self._offsets[index]), int(self._offsets[index + 1]))

    def image(self, index, galaxies=None):
        """Noiseless image of one scene.

        Parameters
        ----------
        index : `int`
            Scene.
        galaxies : `str`, optional
            "target" or "neighbours" for a part of the scene; all by default.

        Returns
        -------
        image : `numpy.ndarray` [band, y, x] of `float32`
            In the survey's image unit.

        Raises
        ------
        ShardError
            If ``galaxies`` is another word.
        """
        rows = self.rows(index)
        profiles, fluxes = self.profiles[rows], self.fluxes[rows]
        if galaxies is not None:
            if galaxies not in ("target", "neighbours"):
                raise ShardError(f"galaxies is {galaxies!r}: expected None, 'target' or 'neighbours'")
            chosen = (self.galaxy[rows] == 0) == (galaxies == "target")
            profiles, fluxes = profiles[chosen], fluxes[chosen]
        image = np.zeros((len(self.bands),) + profiles.shape[2:], np.float32)
        for profile, flux in zip(_unpack_profiles(profiles), fluxes, strict=True):
            image += flux[:, None, None] * profile[self.band_profile]
        return image

    @classmethod
    def concatenate(cls, samples):
        """Join samples of one survey, kind and split; the first's description
        (settings, seed, versions) is kept.

        Parameters
        ----------
        samples : sequence of `StampSample`

        Returns
        -------
        sample : `StampSample`

        Raises
        ------
        ShardError
            If there is none or they do not fit together.
        """
        from astropy.table import vstack

        if not samples:
            raise ShardError("No samples to join: expected one at least")
        first = samples[0]
        for other in samples[1:]:
            for name in ("survey", "bands", "kind", "split"):
                ours, theirs = getattr(first, name), getattr(other, name)
                if ours != theirs:
                    raise ShardError(
                        f"Samples differ in {name}: {ours!r} and {theirs!r}; join equal ones only"
                    )
            if first.profiles.shape[1:] != other.profiles.shape[1:]:
                raise ShardError("Samples differ in the shape of their profiles; join equal ones only")
        if len(samples) == 1:
            return first
        starts = np.cumsum([0] + [sample.n_scenes for sample in samples])
        truth = vstack([sample.truth for sample in samples], metadata_conflicts="silent")
        if "scene" in truth.colnames:
            truth["scene"] = np.arange(len(truth))
        return dataclasses.replace(
            first,
            profiles=np.concatenate([sample.profiles for sample in samples]),
            fluxes=np.concatenate([sample.fluxes for sample in samples]),
            scene=np.concatenate([s.scene + np.int32(start) for s, start in zip(samples, starts)]),
            galaxy=np.concatenate([sample.galaxy for sample in samples]),
            truth=truth,
        )

    def write(self, path):
        """Write an HDF5 shard, whole or not at all.

        Parameters
        ----------
        path : path-like
            An existing file is replaced, once the new one is on disk.
        """
        import h5py

        with replacing(path) as temporary, h5py.File(temporary, "w") as file:
            self._write_into(file)

    def _write_into(self, file):
        file.attrs["format"] = SHARD_FORMAT
        file.attrs["format_version"] = _FORMAT_VERSION
        file.attrs["profile_scale"] = PROFILE_SCALE
        for name in ("survey", "kind", "split"):
            file.attrs[name] = getattr(self, name)
        file.attrs["seed"] = str(int(self.seed))
        file.attrs["n_scenes"] = self.n_scenes
        for name in ("bands", "settings", "versions", "survey_info"):
            file.attrs[name] = json.dumps(getattr(self, name), sort_keys=True)
        options = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}
        for name in ("profiles", "fluxes", "scene", "galaxy", "band_profile"):
            _write_array(file, name, getattr(self, name), options)
        truth = file.create_group("truth", track_order=True)
        for name in self.truth.colnames:
            _write_array(truth, name, np.asarray(self.truth[name]), options)

    @classmethod
    def read(cls, path):
        """Read a shard.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        sample : `StampSample`

        Raises
        ------
        ShardError
            If the file is absent, foreign, truncated, damaged, or its header
            claims what it does not hold.
        """
        import h5py

        path = Path(path)
        if not path.is_file():
            raise ShardError(f"No shard at {path}: expected an HDF5 file; simulate it first")
        try:
            with h5py.File(path, "r") as file:
                return cls._read_from(file)
        except ShardError as error:
            raise ShardError(f"Shard {path}: {error}") from None
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise ShardError(
                f"Shard {path} is truncated or damaged ({reason[:200]}): expected a whole {SHARD_FORMAT} "
                "file; delete it and simulate it again"
            ) from error

    @classmethod
    def _read_from(cls, file):
        from astropy.table import Table

        found = file.attrs.get("format")
        if not isinstance(found, str) or found != SHARD_FORMAT:
            raise ShardError(
                f"format is {str(found)[:40]!r}: expected {SHARD_FORMAT!r}; give a file of this program"
            )
        version = int(file.attrs["format_version"])
        if version != _FORMAT_VERSION:
            raise ShardError(f"format version is {version}: expected {_FORMAT_VERSION}; simulate it again")
        if float(file.attrs["profile_scale"]) != PROFILE_SCALE:
            raise ShardError(f"profile scale is {file.attrs['profile_scale']}: expected {PROFILE_SCALE}")
        texts = {}
        for name in ("survey", "kind", "split", "seed", "bands", "settings", "versions", "survey_info"):
            text = file.attrs[name]
            if not isinstance(text, str) or len(text) > _MAX_TEXT:
                raise ShardError(f"attribute {name} is not a text of at most {_MAX_TEXT} characters")
            texts[name] = text
        n_scenes = int(file.attrs["n_scenes"])
        bands = json.loads(texts["bands"])
        if not (isinstance(bands, list) and bands and all(isinstance(band, str) for band in bands)):
            raise ShardError("bands is not a list of names")
        dicts = {name: json.loads(texts[name]) for name in ("settings", "versions", "survey_info")}
        for name, value in dicts.items():
            if not isinstance(value, dict):
                raise ShardError(f"attribute {name} is not a JSON object")
        arrays = {
            name: _read_array(file, name, ndim)
            for name, ndim in (
                ("scene", 1),
                ("galaxy", 1),
                ("fluxes", 2),
                ("band_profile", 1),
                ("profiles", 4),
            )
        }
        truth = Table()
        for name in file["truth"]:
            truth[name] = _read_array(file["truth"], name, 1)
        if len(truth) != n_scenes:
            raise ShardError(f"truth has {len(truth)} rows: expected {n_scenes}, as the header says")
        return cls(
            survey=texts["survey"],
            bands=tuple(bands),
            kind=texts["kind"],
            split=texts["split"],
            seed=int(texts["seed"]),
            truth=truth,
            **dicts,
            **arrays,
        )


def _check_arrays(sample):
    """Refuse arrays that do not fit together."""
    n_rows, n_bands = len(sample.scene), len(sample.bands)
    expected = {
        "profiles": (
            sample.profiles.dtype == np.float16,
            sample.profiles.ndim == 4 and len(sample.profiles) == n_rows,
        ),
        "fluxes": (sample.fluxes.dtype == np.float32, sample.fluxes.shape == (n_rows, n_bands)),
        "scene": (sample.scene.dtype == np.int32, sample.scene.ndim == 1),
        "galaxy": (sample.galaxy.dtype == np.int8, sample.galaxy.shape == (n_rows,)),
        "band_profile": (sample.band_profile.dtype == np.int64, sample.band_profile.shape == (n_bands,)),
    }
    for name, (right_type, right_shape) in expected.items():
        if not (right_type and right_shape):
            array = getattr(sample, name)
            raise ShardError(
                f"{name} is {array.dtype} {array.shape}, which does not fit {n_rows} rows and {n_bands} bands"
            )
    kinds = sample.profiles.shape[1]
    if sample.band_profile.min(initial=0) < 0 or sample.band_profile.max(initial=0) >= max(kinds, 1):
        raise ShardError(f"band_profile is not within the {kinds} profile kinds")
    if not np.array_equal(np.unique(sample.scene), np.arange(len(sample.truth))) or np.any(
        np.diff(sample.scene) < 0
    ):
        raise ShardError(f"scene is not ascending over every one of {len(sample.truth)} scenes")
    if sample.galaxy.min(initial=0) < 0:
        raise ShardError("galaxy holds negative numbers: expected 0 for the target, 1 and up for neighbours")


def _write_array(group, name, array, options):
    if array.size == 0:
        group.create_dataset(name, data=array)
        return
    row_bytes = max(1, array.nbytes // len(array))
    chunk = min(len(array), max(1, _CHUNK_BYTES // row_bytes))
    group.create_dataset(name, data=array, chunks=(chunk,) + array.shape[1:], **options)


def _read_array(group, name, ndim):
    """A numeric dataset, once its header is known to tell the truth."""
    import h5py

    dataset = group.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise ShardError(f"{name} is missing")
    if dataset.dtype.kind not in "fiub" or dataset.ndim != ndim:
        raise ShardError(f"{name} is {dataset.dtype} of {dataset.ndim} axes: expected numbers on {ndim}")
    # Links to other files could make a shard read what is not its own.
    if dataset.external or dataset.is_virtual or dataset.file != group.file:
        raise ShardError(f"{name} lies outside the file: expected it within")
    size = 1
    for length in dataset.shape:
        size *= int(length)
    size *= dataset.dtype.itemsize
    if size > _MAX_BYTES or size > _MAX_COMPRESSION * dataset.id.get_storage_size():
        raise ShardError(
            f"{name} claims {dataset.shape} {dataset.dtype}, {size} bytes, more than the file can hold; "
            "delete it and simulate it again"
        )
    return dataset[()]
