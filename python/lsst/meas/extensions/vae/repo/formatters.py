# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Formatters: how our objects become the files of a Butler datastore.

Nothing is pickled. Each file also tells which dataset it is, which quantum
wrote it and from what: as cards of a FITS header, as one attribute of an HDF5
file, as the comment of a model package's zip (which leaves its members, and
so its sums, as they are).
"""

__all__ = [
    "ComposedSampleFormatter",
    "ModelDataFormatter",
    "ModelPackageFormatter",
    "MultibandExposureDelegate",
    "MultibandExposureFormatter",
    "SourceCatalogFormatter",
    "StampSampleFormatter",
    "readProvenance",
]

import json
import logging
import os
import zipfile
from typing import Any

from lsst.daf.butler import DatasetProvenance, FormatterV2, StorageClassDelegate

_LOG = logging.getLogger("lsst.meas.extensions.vae.repo")

# A zip comment and an HDF5 attribute hold 64 KB; more inputs than this are
# counted, and the quantum graph and the task metadata list them.
_MAX_INPUTS = 150
_PREFIX = "lsst.butler"


class _FileFormatter(FormatterV2):
    """Write an object to a local file, then note its provenance there."""

    can_read_from_local_file = True
    _provenance: dict[str, Any] | None = None

    def add_provenance(
        self, in_memory_dataset: Any, /, *, provenance: DatasetProvenance | None = None
    ) -> Any:
        # Kept until the file exists: the object in memory is the caller's.
        provenance = DatasetProvenance() if provenance is None else provenance
        self._provenance = provenance.to_flat_dict(
            self.dataset_ref, prefix=_PREFIX, sep=".", simple_types=True, max_inputs=_MAX_INPUTS
        )
        return in_memory_dataset

    def write_local_file(self, in_memory_dataset: Any, uri) -> None:
        self._write(in_memory_dataset, uri.ospath)
        if self._provenance is not None:
            try:
                self._note(uri.ospath, self._provenance)
            except (OSError, ValueError, RuntimeError) as error:
                # The data are whole; the registry holds the same facts.
                _LOG.warning("No provenance in the file of %s: %s", self.dataset_ref, error)

    def _write(self, dataset: Any, path: str) -> None:
        raise NotImplementedError

    def _note(self, path: str, provenance: dict[str, Any]) -> None:
        raise NotImplementedError


class _Hdf5Formatter(_FileFormatter):
    default_extension = ".h5"

    def _write(self, dataset: Any, path: str) -> None:
        dataset.write(path)

    def _note(self, path: str, provenance: dict[str, Any]) -> None:
        import h5py

        with h5py.File(path, "r+") as file:
            file.attrs["butlerProvenance"] = json.dumps(provenance)


class StampSampleFormatter(_Hdf5Formatter):
    """HDF5 shards of simulated stamps; with parameter ``lazy`` profiles stay in the file until asked for."""

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        from ..simulation.shards import StampSample

        lazy = (self.file_descriptor.parameters or {}).get("lazy", False)
        return StampSample.open(path) if lazy else StampSample.read(path)


class ComposedSampleFormatter(_Hdf5Formatter):
    """HDF5 files of noisy scenes."""

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        from ..simulation.composed import ComposedSample

        return ComposedSample.read(path)


class ModelDataFormatter(_Hdf5Formatter):
    """HDF5 files of the deblender's models."""

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        from .modelData import VaeModelData

        return VaeModelData.read(path)


class ModelPackageFormatter(_FileFormatter):
    """Model packages: zips of a card and safetensors, with checked sums."""

    default_extension = ".zip"

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        from ..network.package import ModelPackage

        return ModelPackage.load(path)

    def _write(self, dataset: Any, path: str) -> None:
        dataset.save(path)

    def _note(self, path: str, provenance: dict[str, Any]) -> None:
        comment = json.dumps(provenance).encode()
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = comment


class _FitsFormatter(_FileFormatter):
    default_extension = ".fits"

    def _note(self, path: str, provenance: dict[str, Any]) -> None:
        from astropy.io import fits

        # Cards named HIERARCH LSST BUTLER ..., as the stack's own formatters.
        with fits.open(path, mode="update", memmap=False) as hdus:
            header = hdus[0].header
            for key, value in provenance.items():
                keyword = "HIERARCH " + key.upper().replace(".", " ")
                if isinstance(value, str):
                    # One card is 80 characters, and a HIERARCH card has no
                    # continuation: the head of a longer run name must do.
                    value = value[: max(0, 80 - len(keyword) - len(" = ''"))]
                header[keyword] = value


class MultibandExposureFormatter(_FitsFormatter):
    """Multi-band FITS images; parameters ``bands`` and ``bbox`` cut them."""

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        from ..afw.persistence import MultibandExposureReader, readMultibandExposure

        if component == "bands":
            return list(MultibandExposureReader(path).readBands())
        return readMultibandExposure(path, **(self.file_descriptor.parameters or {}))

    def _write(self, dataset: Any, path: str) -> None:
        from ..afw.persistence import writeMultibandExposure

        writeMultibandExposure(dataset, path)


class SourceCatalogFormatter(_FitsFormatter):
    """Source catalogues with schema, footprints and peaks, in FITS."""

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        from ..afw.persistence import readSourceCatalog

        return readSourceCatalog(path)

    def _write(self, dataset: Any, path: str) -> None:
        from ..afw.persistence import writeSourceCatalog

        writeSourceCatalog(dataset, path)


class MultibandExposureDelegate(StorageClassDelegate):
    """Components and parameters of a multi-band image already in memory."""

    def getComponent(self, composite: Any, componentName: str) -> Any:
        if componentName != "bands":
            raise AttributeError(f"a multi-band image has no component {componentName!r}: expected bands")
        return list(composite.bands)

    def handleParameters(self, inMemoryDataset: Any, parameters=None) -> Any:
        bands, bbox = ((parameters or {}).get(name) for name in ("bands", "bbox"))
        if bbox is not None:
            inMemoryDataset = inMemoryDataset[:, bbox]
        if bands is not None:
            bands = [bands] if isinstance(bands, str) else list(bands)
            part = inMemoryDataset[bands]
            # As in afw, one band alone is a single-band exposure.
            inMemoryDataset = type(inMemoryDataset).fromExposures(bands, [part]) if len(bands) == 1 else part
        return inMemoryDataset


def readProvenance(path) -> dict[str, Any]:
    """Read what a file of ours tells about its own making.

    Parameters
    ----------
    path : `str` or `os.PathLike`
        A file that one of these formatters wrote.

    Returns
    -------
    provenance : `dict`
        Keys such as ``lsst.butler.id``, ``lsst.butler.run`` and
        ``lsst.butler.input.0.id``; empty if the file tells nothing.
    """
    path = os.fspath(path)
    if path.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.comment) if archive.comment else {}
    if path.endswith(".h5"):
        import h5py

        with h5py.File(path, "r") as file:
            return json.loads(file.attrs.get("butlerProvenance", "{}"))
    from astropy.io import fits

    header = fits.getheader(path)
    prefix = _PREFIX.upper().replace(".", " ") + " "
    return {
        key.lower().replace(" ", "."): value
        for key, value in header.items()
        if key.upper().startswith(prefix)
    }
