# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples in HDF5 files: a header of texts, arrays and tables, read with distrust."""

__all__ = ["SampleFile"]

import json
from pathlib import Path

from ..errors import ShardError
from ..files import replacing
from .hdf5 import ArrayOnDisk, read_array, read_table, reading, write_array, write_table

_MAX_TEXT = 2**20

# Attributes that are JSON, and what they have to be.
_JSON = {"bands": list, "settings": dict, "versions": dict, "survey_info": dict}


class SampleFile:
    """What a sample class inherits that is written to a file and read again.

    A subclass is a dataclass with the fields survey, kind, split, seed,
    bands, settings, versions, survey_info, truth and objects, and those that
    it names in the attributes below.
    """

    _format: str
    _format_version: int
    _what = "shard"
    """What it is called in messages."""
    _texts: tuple = ()
    """More fields that are texts."""
    _small: dict = {}
    """Arrays that are always read, and their numbers of axes."""
    _large: dict = {}
    """Arrays that stay in the file of an opened sample, and their numbers of axes."""

    def __len__(self):
        return len(self.truth)

    @property
    def n_scenes(self):
        """Number of scenes."""
        return len(self.truth)

    def write(self, path):
        """Write an HDF5 file, whole or not at all.

        Parameters
        ----------
        path : path-like
            An existing file is replaced, once the new one is on disk. Large
            arrays are written a few rows at a time.
        """
        import h5py

        with replacing(path) as temporary, h5py.File(temporary, "w") as file:
            file.attrs["format"] = self._format
            file.attrs["format_version"] = self._format_version
            for name in ("survey", "kind", "split", *self._texts):
                file.attrs[name] = getattr(self, name)
            file.attrs["seed"] = str(int(self.seed))
            file.attrs["n_scenes"] = self.n_scenes
            for name in _JSON:
                file.attrs[name] = json.dumps(getattr(self, name), sort_keys=True)
            file.attrs.update(self._numbers())
            for name in (*self._large, *self._small):
                write_array(file, name, getattr(self, name))
            for name in ("truth", "objects"):
                write_table(file, name, getattr(self, name))

    @classmethod
    def read(cls, path):
        """Read a file.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        sample
            Of this class.

        Raises
        ------
        ShardError
            If the file is absent, foreign, truncated, damaged, or its header
            claims what it does not hold.
        """
        return cls._load(path, read_array)

    @classmethod
    def open(cls, path):
        """Read all of a file but its large arrays, which are read slice by
        slice when they are asked for.

        Parameters
        ----------
        path : path-like
            It must not change while the sample is in use.

        Returns
        -------
        sample
            Does all that one in memory does. It can be pickled, as long as
            the file stays; it closes as a context manager, or by `close`.

        Raises
        ------
        ShardError
            As `read`.
        """
        return cls._load(path, lambda group, name, ndim: ArrayOnDisk(path, name, ndim))

    def close(self):
        """Close the file of a sample that was opened."""
        for name in self._large:
            if isinstance(getattr(self, name), ArrayOnDisk):
                getattr(self, name).close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _numbers(self):
        """Attributes of the file that are numbers."""
        return {}

    @classmethod
    def _fields_of_numbers(cls, attributes):
        """Fields that they stand for, once they are checked."""
        return {}

    @classmethod
    def _load(cls, path, load_large):
        import h5py

        path = Path(path)
        if not path.is_file():
            raise ShardError(f"No {cls._what} at {path}: expected an HDF5 file; simulate it first")
        with reading(path, cls._format), h5py.File(path, "r") as file:
            header = cls._read_header(file)
            n_scenes = int(file.attrs["n_scenes"])
            arrays = {name: read_array(file, name, ndim) for name, ndim in cls._small.items()}
            arrays |= {name: load_large(file, name, ndim) for name, ndim in cls._large.items()}
            tables = {name: read_table(file, name) for name in ("truth", "objects")}
            if len(tables["truth"]) != n_scenes:
                raise ShardError(
                    f"truth has {len(tables['truth'])} rows: expected {n_scenes}, as the header says"
                )
            return cls(**header, **arrays, **tables)

    @classmethod
    def _read_header(cls, file):
        """What the attributes say, once it is known to be what it should be."""
        found = file.attrs.get("format")
        if not isinstance(found, str) or found != cls._format:
            raise ShardError(
                f"format is {str(found)[:40]!r}: expected {cls._format!r}; give a {cls._what} of this program"
            )
        version = int(file.attrs["format_version"])
        if version != cls._format_version:
            raise ShardError(
                f"format version is {version}: expected {cls._format_version}; simulate it again"
            )
        header = {}
        for name in ("survey", "kind", "split", "seed", *cls._texts, *_JSON):
            text = file.attrs[name]
            if not isinstance(text, str) or len(text) > _MAX_TEXT:
                raise ShardError(f"attribute {name} is not a text of at most {_MAX_TEXT} characters")
            header[name] = text
        header["seed"] = int(header["seed"])
        for name, kind in _JSON.items():
            header[name] = json.loads(header[name])
            if not isinstance(header[name], kind):
                raise ShardError(f"attribute {name} is not a JSON {kind.__name__}")
        bands = header["bands"]
        if not (bands and all(isinstance(band, str) for band in bands)):
            raise ShardError("bands is not a list of names")
        return header | cls._fields_of_numbers(file.attrs)
