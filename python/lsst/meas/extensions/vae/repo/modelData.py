# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The models that the deblender drew, one small stamp a source: what heavy
footprints are rebuilt from.
"""

__all__ = ["SourceModel", "VaeModelData"]

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ImageError, ShardError
from ..files import replacing

_FORMAT = "vae_modelData"
_VERSION = 2
# Files of version 1 tell no parents' pixels.
_READ_VERSIONS = (1, 2)
# Bounds that no real file reaches; they keep a damaged header from asking for
# the machine's whole memory.
_MAX_SOURCES = 10_000_000
_MAX_PIXELS = 4_000_000_000
_MAX_SPANS = 1_000_000_000
_MAX_SIDE = 100_000
_MAX_BANDS = 100
_MAX_LATENT = 4096
# DEFLATE cannot shrink more: a header that claims more has no data behind it.
_MAX_COMPRESSION = 1100


@dataclass(frozen=True)
class SourceModel:
    """One source's model in all bands, cut to its footprint's box.

    Parameters
    ----------
    sourceId, parentId : `int`
        The rows of the object and of the parent catalogue.
    image : `numpy.ndarray`, (n_bands, ny, nx)
        The model in the image's unit, float32.
    origin : `tuple` [`int`, `int`]
        ``(y, x)`` of the stamp's first pixel in the parent image, pixels.
    latentMean, latentSigma : `numpy.ndarray`, (n_latent,)
        The posterior that the image was decoded from, float32; NaN where the
        source has none.
    fluxErrors : `numpy.ndarray`, (n_bands,)
        Standard deviations of the image's sums, float32; NaN where unknown.
    """

    sourceId: int
    parentId: int
    image: np.ndarray
    origin: tuple[int, int]
    latentMean: np.ndarray
    latentSigma: np.ndarray
    fluxErrors: np.ndarray

    @property
    def blendId(self) -> int:
        """The id of the parent whose pixels it shares; an isolated source is its own."""
        return self.parentId or self.sourceId

    @property
    def box(self) -> tuple[int, int, int, int]:
        """``(y0, y1, x0, x1)`` in the parent image, ends excluded, pixels."""
        y, x = self.origin
        return y, y + self.image.shape[1], x, x + self.image.shape[2]


@dataclass
class VaeModelData:
    """All the source models of one patch.

    Parameters
    ----------
    bands : `tuple` [`str`]
        Names of the bands, in the order of the stamps' first axis.
    modelPackage : `str`
        Name of the model package that drew them.
    modelPackageSha256 : `str`
        Its checksum; empty where unknown.
    latentSize : `int`
        Length of the latent vector.
    metadata : `dict`
        Further JSON-able facts, kept in the file.
    """

    bands: tuple[str, ...]
    modelPackage: str = ""
    modelPackageSha256: str = ""
    latentSize: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)
    _sources: dict[int, SourceModel] = field(default_factory=dict, repr=False)
    _parents: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.bands = tuple(str(band) for band in self.bands)
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise ImageError(f"bands {self.bands!r} of a VaeModelData: expected distinct names, at least one")

    def add(
        self, sourceId, parentId, image, origin, latentMean=None, latentSigma=None, fluxErrors=None
    ) -> SourceModel:
        """Add one source's model.

        Parameters
        ----------
        sourceId, parentId : `int`
            The rows of the object and of the parent catalogue.
        image : array-like, (n_bands, ny, nx)
            The model in the image's unit; copied as float32.
        origin : `tuple` [`int`, `int`]
            ``(y, x)`` of its first pixel in the parent image, pixels.
        latentMean, latentSigma : array-like, (n_latent,), optional
            The posterior; NaN if not given.
        fluxErrors : array-like, (n_bands,), optional
            Standard deviations of the image's sums; NaN if not given.

        Returns
        -------
        source : `SourceModel`
            What was stored.

        Raises
        ------
        ImageError
            If a shape is wrong or the source is already there.
        """
        image = np.array(image, dtype=np.float32)
        if image.ndim != 3 or image.shape[0] != len(self.bands) or 0 in image.shape:
            raise ImageError(
                f"model of source {sourceId} has shape {image.shape}; expected ({len(self.bands)}, ny, nx) "
                f"for bands {','.join(self.bands)}"
            )
        vectors = []
        for name, values, length in (
            ("latentMean", latentMean, self.latentSize),
            ("latentSigma", latentSigma, self.latentSize),
            ("fluxErrors", fluxErrors, len(self.bands)),
        ):
            values = np.array(np.full(length, np.nan) if values is None else values, dtype=np.float32)
            if values.shape != (length,):
                raise ImageError(
                    f"{name} of source {sourceId} has shape {values.shape}; expected ({length},)"
                )
            vectors.append(values)
        if int(sourceId) in self._sources:
            raise ImageError(f"source {sourceId} has a model already: each source has one")
        y, x = origin
        source = SourceModel(int(sourceId), int(parentId), image, (int(y), int(x)), *vectors)
        self._sources[source.sourceId] = source
        return source

    def addParent(self, parentId: int, spans) -> None:
        """Add the pixels of a parent that was deblended.

        Parameters
        ----------
        parentId : `int`
            Its id; of one peak alone, the source's own.
        spans : array-like, int (n, 3)
            Rows of (y, x0, x1) in the parent image, both ends included,
            pixels, as an ``afw`` SpanSet has them.

        Raises
        ------
        ImageError
            If they are no spans.
        """
        spans = np.array(spans, dtype=np.int32).reshape(-1, np.shape(spans)[-1] if np.size(spans) else 3)
        if spans.shape[1] != 3 or (spans[:, 2] < spans[:, 1]).any():
            raise ImageError(
                f"spans of parent {parentId} have shape {spans.shape}; expected rows of y, x0 <= x1"
            )
        self._parents[int(parentId)] = spans

    @property
    def parents(self) -> dict[int, np.ndarray]:
        """Spans of the parents that were deblended, by id; see `addParent`."""
        return dict(self._parents)

    def clear(self) -> None:
        """Forget every source and parent, to free their memory."""
        self._sources.clear()
        self._parents.clear()

    def __len__(self) -> int:
        return len(self._sources)

    def __contains__(self, sourceId) -> bool:
        return int(sourceId) in self._sources

    def __iter__(self) -> Iterator[SourceModel]:
        return iter(self._sources.values())

    @property
    def sourceIds(self) -> np.ndarray:
        """The sources' ids in the order they were added, int64."""
        return np.fromiter(self._sources, dtype=np.int64, count=len(self._sources))

    def model(self, sourceId: int) -> SourceModel:
        """Return one source's model.

        Raises
        ------
        KeyError
            If there is none.
        """
        try:
            return self._sources[int(sourceId)]
        except KeyError:
            raise KeyError(f"no model of source {sourceId} among {len(self)} of this VaeModelData") from None

    def children(self, parentId: int) -> list[SourceModel]:
        """Return the models of one parent's sources."""
        return [source for source in self if source.parentId == int(parentId)]

    def render(self, box: tuple[int, int, int, int], sourceIds=None) -> np.ndarray:
        """Add models up on a piece of the image.

        Parameters
        ----------
        box : `tuple` [`int`]
            ``(y0, y1, x0, x1)`` in the parent image, ends excluded, pixels.
        sourceIds : iterable of `int`, optional
            Which sources; all if not given.

        Returns
        -------
        image : `numpy.ndarray`, (n_bands, y1 - y0, x1 - x0)
            Their sum in the image's unit, float32.
        """
        y0, y1, x0, x1 = box
        total = np.zeros((len(self.bands), y1 - y0, x1 - x0), dtype=np.float32)
        sources = self if sourceIds is None else (self.model(i) for i in sourceIds)
        for source in sources:
            sy0, sy1, sx0, sx1 = source.box
            top, bottom, left, right = max(y0, sy0), min(y1, sy1), max(x0, sx0), min(x1, sx1)
            if top < bottom and left < right:
                total[:, top - y0 : bottom - y0, left - x0 : right - x0] += source.image[
                    :, top - sy0 : bottom - sy0, left - sx0 : right - sx0
                ]
        return total

    def write(self, path) -> None:
        """Write to an HDF5 file, whole or not at all.

        Parameters
        ----------
        path : `str` or `os.PathLike`
            Replaced if it exists.
        """
        import json

        import h5py

        sources = list(self)
        n = len(sources)
        pixels = [source.image.ravel() for source in sources]
        spans = [np.column_stack([np.full(len(s), i, np.int64), s]) for i, s in self._parents.items()]
        latent = (n, self.latentSize)
        with replacing(path) as temporary, h5py.File(temporary, "w") as file:
            file.attrs["format"] = _FORMAT
            file.attrs["version"] = _VERSION
            file.attrs["bands"] = json.dumps(self.bands)
            file.attrs["modelPackage"] = self.modelPackage
            file.attrs["modelPackageSha256"] = self.modelPackageSha256
            file.attrs["metadata"] = json.dumps(self.metadata)
            file.attrs["axes"] = (
                "pixels: band, y, x of each source in turn; origin and shape: y, x; "
                "parentSpans: parent's id, y, first x, last x"
            )
            columns = {
                "sourceId": self.sourceIds,
                "parentId": np.array([s.parentId for s in sources], dtype=np.int64),
                "origin": np.array([s.origin for s in sources], dtype=np.int32).reshape(n, 2),
                "shape": np.array([s.image.shape[1:] for s in sources], dtype=np.int32).reshape(n, 2),
                "latentMean": np.array([s.latentMean for s in sources], dtype=np.float32).reshape(latent),
                "latentSigma": np.array([s.latentSigma for s in sources], dtype=np.float32).reshape(latent),
                "fluxErrors": np.array([s.fluxErrors for s in sources], dtype=np.float32).reshape(
                    n, len(self.bands)
                ),
                "pixels": np.concatenate(pixels) if pixels else np.zeros(0, dtype=np.float32),
                "parentSpans": np.concatenate(spans) if spans else np.zeros((0, 4), dtype=np.int64),
            }
            for name, values in columns.items():
                packed = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
                file.create_dataset(name, data=values, **(packed if values.size else {}))

    @classmethod
    def read(cls, path) -> "VaeModelData":
        """Read a file that `write` wrote.

        Parameters
        ----------
        path : `str` or `os.PathLike`
            The file.

        Returns
        -------
        modelData : `VaeModelData`
            Its models.

        Raises
        ------
        ShardError
            If the file is truncated, of another kind, or its parts do not fit
            together.
        """
        import json

        import h5py

        path = os.fspath(path)
        try:
            with h5py.File(path, "r") as file:
                kind, version = file.attrs.get("format"), file.attrs.get("version")
                if kind != _FORMAT or version not in _READ_VERSIONS:
                    raise ShardError(
                        f"{path} holds {kind!r} version {version!r}; expected {_FORMAT!r} version "
                        f"{' or '.join(map(str, _READ_VERSIONS))}: give a vae_modelData file"
                    )
                bands = json.loads(file.attrs["bands"])
                if not isinstance(bands, list) or not 0 < len(bands) <= _MAX_BANDS:
                    raise ShardError(
                        f"{path} names bands {str(bands)[:80]}; expected a list of 1 to {_MAX_BANDS}"
                    )
                n, columns = None, {}
                for name, dtype, width, bound in (
                    ("sourceId", np.int64, None, _MAX_SOURCES),
                    ("parentId", np.int64, None, _MAX_SOURCES),
                    ("origin", np.int32, 2, _MAX_SOURCES),
                    ("shape", np.int32, 2, _MAX_SOURCES),
                    ("latentMean", np.float32, -1, _MAX_SOURCES),
                    ("latentSigma", np.float32, -1, _MAX_SOURCES),
                    ("fluxErrors", np.float32, len(bands), _MAX_SOURCES),
                    ("pixels", np.float32, None, _MAX_PIXELS),
                ):
                    columns[name] = _column(file, path, name, dtype, width, bound)
                    n = len(columns["sourceId"]) if n is None else n
                    if name != "pixels" and len(columns[name]) != n:
                        raise ShardError(f"{path}: {name} has {len(columns[name])} rows; expected {n}")
                spans = np.zeros((0, 4), dtype=np.int64)
                if version > 1:
                    spans = _column(file, path, "parentSpans", np.int64, 4, _MAX_SPANS)
                metadata = json.loads(file.attrs["metadata"])
                package, sha = str(file.attrs["modelPackage"]), str(file.attrs["modelPackageSha256"])
        except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            if isinstance(error, (ShardError, FileNotFoundError)):
                raise
            raise ShardError(
                f"{path} cannot be read as a vae_modelData file ({str(error)[:200]}): "
                "it is truncated or of another kind; write it again"
            ) from error
        shapes = columns["shape"].astype(np.int64)
        sizes = len(bands) * shapes[:, 0] * shapes[:, 1]
        if (shapes <= 0).any() or (shapes > _MAX_SIDE).any() or sizes.sum() != len(columns["pixels"]):
            raise ShardError(
                f"{path} holds {len(columns['pixels'])} pixels; its stamps' shapes ask for {sizes.sum()}: "
                "it is damaged; write it again"
            )
        latentSize = columns["latentMean"].shape[1]
        if columns["latentSigma"].shape[1] != latentSize:
            raise ShardError(f"{path}: latentMean and latentSigma differ in length; it is damaged")
        result = cls(tuple(bands), package, sha, latentSize, metadata)
        ends = np.cumsum(sizes)
        for i in range(n):
            image = columns["pixels"][ends[i] - sizes[i] : ends[i]].reshape(len(bands), *shapes[i])
            result.add(
                columns["sourceId"][i],
                columns["parentId"][i],
                image,
                columns["origin"][i],
                columns["latentMean"][i],
                columns["latentSigma"][i],
                columns["fluxErrors"][i],
            )
        ids, places = np.unique(spans[:, 0], return_inverse=True)
        order = np.argsort(places, kind="stable")
        for parentId, rows in zip(ids, np.split(order, np.cumsum(np.bincount(places))[:-1]), strict=False):
            if (np.abs(spans[rows, 1:]) >= 1 << 31).any() or (spans[rows, 3] < spans[rows, 2]).any():
                raise ShardError(f"{path}: the spans of parent {parentId} are none; it is damaged")
            result.addParent(parentId, spans[rows, 1:])
        return result


def _column(file, path, name, dtype, width, bound) -> np.ndarray:
    """Read one data set after its type and size have been checked.

    ``width`` is None for one number a row, -1 for any up to the longest latent
    vector. Only data inside the file itself are read: an HDF5 file may name
    other files of the machine as its data.
    """
    import h5py

    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise ShardError(f"{path} has no data set {name}: it is not a vae_modelData file")
    data = file[name]
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
        raise ShardError(f"{path}: {name} lies outside the file; expected data inside it")
    shape = data.shape
    ndim = 1 if width is None else 2
    wide = len(shape) == 2 and (shape[1] <= _MAX_LATENT if width == -1 else shape[1] == width)
    if data.dtype != dtype or len(shape) != ndim or shape[0] > bound or not (ndim == 1 or wide):
        raise ShardError(
            f"{path}: {name} is {data.dtype} of shape {shape}; expected {np.dtype(dtype)}, {ndim}-d"
        )
    if data.id.get_storage_size() * _MAX_COMPRESSION < data.nbytes:
        raise ShardError(
            f"{path}: {name} claims {data.nbytes} bytes that the file does not hold; it is damaged"
        )
    return data[()]
