# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arrays and tables of numbers in HDF5 files: chunked, compressed, with checksums, and read with distrust."""

__all__ = [
    "ArrayOnDisk",
    "checked_dataset",
    "read_array",
    "read_table",
    "reading",
    "write_array",
    "write_table",
]

import contextlib
import os
from pathlib import Path

import numpy as np

from ..errors import ShardError

_MAX_BYTES = 32 * 2**30
# DEFLATE cannot shrink more than this: a header that claims more lies about data that the file does not hold.
_MAX_COMPRESSION = 1100
_CHUNK_BYTES = 2**19
_STEP_BYTES = 2**22
_OPTIONS = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}


def write_array(group, name, array):
    """Write an array of numbers, in chunks of whole rows.

    Parameters
    ----------
    group : `h5py.Group`
    name : `str`
    array : `numpy.ndarray`, `ArrayOnDisk` or alike
        One axis or more. Of what is no `numpy.ndarray` a few rows at a time
        are in memory.
    """
    if 0 in array.shape:
        group.create_dataset(name, data=np.asarray(array))
        return
    row_bytes = max(1, int(np.prod(array.shape[1:], dtype=np.int64)) * array.dtype.itemsize)
    chunk = min(len(array), max(1, _CHUNK_BYTES // row_bytes))
    dataset = group.create_dataset(
        name, shape=array.shape, dtype=array.dtype, chunks=(chunk, *array.shape[1:]), **_OPTIONS
    )
    step = len(array) if isinstance(array, np.ndarray) else chunk * max(1, _STEP_BYTES // (chunk * row_bytes))
    for start in range(0, len(array), step):
        dataset[start : start + step] = array[start : start + step]


def write_table(file, name, table):
    """Write a table of numbers as a group with a dataset for each column.

    Parameters
    ----------
    file : `h5py.Group`
    name : `str`
    table : `astropy.table.Table`
    """
    group = file.create_group(name, track_order=True)
    for column in table.colnames:
        write_array(group, column, np.asarray(table[column]))


def checked_dataset(group, name, ndim):
    """A dataset of numbers, once its header is known to tell the truth.

    Parameters
    ----------
    group : `h5py.Group`
    name : `str`
    ndim : `int`
        Number of axes.

    Returns
    -------
    dataset : `h5py.Dataset`

    Raises
    ------
    ShardError
        If it is missing, of another kind, lies outside the file, or claims more than the file can hold.
    """
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
    return dataset


def read_array(group, name, ndim):
    """Read an array: see `checked_dataset`."""
    return checked_dataset(group, name, ndim)[()]


def read_table(file, name):
    """Read a table of numbers.

    Parameters
    ----------
    file : `h5py.Group`
    name : `str`

    Returns
    -------
    table : `astropy.table.Table`

    Raises
    ------
    ShardError
        If it is missing, or a column is not an array of numbers.
    """
    import h5py
    from astropy.table import Table

    group = file.get(name)
    if not isinstance(group, h5py.Group):
        raise ShardError(f"table {name} is missing")
    columns = {column: read_array(group, column, 1) for column in group}
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise ShardError(f"columns of table {name} have {sorted(lengths)} rows: expected one length")
    return Table(columns, copy=False)


@contextlib.contextmanager
def reading(path, what):
    """Tell what goes wrong while a file is read as one `ShardError` that names the file.

    Parameters
    ----------
    path : path-like
    what : `str`
        Its format.

    Raises
    ------
    ShardError
        For whatever h5py, or a check, finds wrong.
    """
    try:
        yield
    except ShardError as error:
        raise ShardError(f"Shard {path}: {error}") from None
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ShardError(
            f"Shard {path} is truncated or damaged ({reason[:200]}): expected a whole {what} "
            "file; delete it and simulate it again"
        ) from error


class ArrayOnDisk:
    """An array in an HDF5 file, of which only the slices asked for are read.

    It can be pickled: it is then opened again by its path. Each process opens
    the file for itself.

    Parameters
    ----------
    path : path-like
    name : `str`
        Of the dataset.
    ndim : `int`
        Number of axes.

    Raises
    ------
    ShardError
        If the dataset cannot be trusted, or, later, if the file was changed.
    """

    def __init__(self, path, name, ndim):
        self.path, self.name = Path(path).absolute(), name
        self._file = self._dataset = self._process = None
        self._stamp = self._file_stamp()
        dataset = self._open(ndim)
        self.shape, self.dtype, self.ndim = dataset.shape, dataset.dtype, ndim

    @property
    def nbytes(self):
        """Bytes that the whole array would take in memory [`int`]."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, key):
        with reading(self.path, "HDF5"):
            return self._open(self.ndim)[key]

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[()], dtype)

    def _file_stamp(self):
        status = os.stat(self.path)
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _open(self, ndim):
        import h5py

        # A handle of HDF5 does not survive a fork.
        if self._dataset is None or self._process != os.getpid():
            if self._file_stamp() != self._stamp:
                raise ShardError("the file was changed since it was opened: open it again")
            self._file = h5py.File(self.path, "r", rdcc_nbytes=2**24)
            self._dataset = checked_dataset(self._file, self.name, ndim)
            self._process = os.getpid()
        return self._dataset

    def close(self):
        """Close the file; the next slice opens it again."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._file = self._dataset = None

    def __getstate__(self):
        return {**self.__dict__, "_file": None, "_dataset": None}
