# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exposures and catalogues to and from one FITS file each.

Files say what they are (``VAEFMT``) and everything that a header promises is
checked against the file's size before anything is read, so that a damaged or
foreign file gives one line of error and no huge allocation.
"""

__all__ = [
    "MultibandExposureReader",
    "readMultibandExposure",
    "readSourceCatalog",
    "writeMultibandExposure",
    "writeSourceCatalog",
]

import contextlib
import json
import os
import warnings

import astropy.units as u
import numpy as np
from astropy.io import fits

from ..errors import CatalogError, ImageError, VaeError
from .detection import Footprint, HeavyFootprint, PeakCatalog, PeakTable
from .geometry import Box2I, Extent2I, Point2I
from .image import Mask, locate
from .multiband import MultibandExposure
from .psf import AnalyticPsf, GridPsf, KernelPsf
from .schema import Field, Schema
from .spans import SpanSet
from .table import IdFactory, SourceCatalog, SourceTable

_VERSION = 1


@contextlib.contextmanager
def _opened(path, kind, error):
    """Open one of our files and check all its headers.

    Yields
    ------
    hdus : `astropy.io.fits.HDUList`

    Raises
    ------
    error
        If the file is missing, damaged, foreign or of another kind.
    """
    path = os.fspath(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # astropy's warnings become our errors below
            with fits.open(path, memmap=True, lazy_load_hdus=False) as hdus:
                _checkHdus(hdus, path, kind, error)
                yield hdus
    except VaeError:
        raise
    except FileNotFoundError:
        raise error(f"There is no file {path}.") from None
    except Exception as bad:  # a damaged file can make astropy and json fail in any way
        reason = " ".join(str(bad).split()) or type(bad).__name__
        raise error(
            f"Cannot read the {kind} file {path}: {reason}; it is damaged or from another program."
        ) from bad


def _checkHdus(hdus, path, kind, error):
    """Check the kind of a file and that all its data are there."""
    found = hdus[0].header.get("VAEFMT")
    if found != kind:
        what = "has no VAEFMT card" if found is None else f"is a {found} file"
        raise error(f"{path} is not a {kind} file of this package: it {what}.")
    if hdus[0].header.get("VAEVER") != _VERSION:
        raise error(
            f"{path} has format version {hdus[0].header.get('VAEVER')}; this program reads {_VERSION}."
        )
    size = os.path.getsize(path)
    for number, hdu in enumerate(hdus):
        place = hdu.fileinfo()
        if place["datLoc"] + place["datSpan"] > size:
            raise error(
                f"{path} is truncated: its part {number} ({hdu.name}) ends at byte "
                f"{place['datLoc'] + place['datSpan']}, the file at {size}."
            )
    if len(hdus) != hdus[0].header.get("VAENHDU"):
        raise error(f"{path} is truncated: it has {len(hdus)} parts of {hdus[0].header.get('VAENHDU')}.")


def _primary(kind, metadata):
    """The first HDU: what the file is, and simple metadata."""
    hdu = fits.PrimaryHDU()
    hdu.header["VAEFMT"] = (kind, "what this file is")
    hdu.header["VAEVER"] = (_VERSION, "version of the format")
    hdu.header["ORIGIN"] = "meas_extensions_vae"
    try:
        hdu.header["VAEMETA"] = (json.dumps(metadata), "metadata, JSON")
    except (TypeError, ValueError) as error:
        raise VaeError(f"Metadata has to be simple values (text, lists, dicts): {error}.") from error
    return hdu


def _write(hdus, path):
    hdus[0].header["VAENHDU"] = (len(hdus), "number of HDUs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # long values and keywords are fine
        fits.HDUList(hdus).writeto(os.fspath(path), overwrite=True)


# Exposures


def writeMultibandExposure(exposure, path):
    """Write a `MultibandExposure` to one FITS file.

    The cubes, units, origin, mask planes, PSFs, world coordinates (of
    `astropy.wcs.WCS`) and metadata are kept; photometric calibrations are not.

    Parameters
    ----------
    exposure : `MultibandExposure`
        What to write.
    path : path-like
        Where to; a file there is replaced.
    """
    primary = _primary("MultibandExposure", exposure.metadata)
    primary.header["VAEBANDS"] = (json.dumps(exposure.bands), "bands, in order, JSON")
    primary.header["VAEUNIT"] = (
        "" if exposure.unit is None else exposure.unit.to_string(),
        "unit of the image",
    )
    # Band names differ by case alone (y, Y), which FITS names cannot: PSFs go by number.
    psfs = [_psfHdu(psf, n + 1) for n, psf in enumerate(exposure.getPsfs().values()) if psf is not None]
    cubes = [
        _cubeHdu("IMAGE", exposure.image.array, exposure, exposure.unit),
        _cubeHdu("MASK", exposure.mask.array, exposure, None),
        _cubeHdu("VARIANCE", exposure.variance.array, exposure, exposure.variance.unit),
    ]
    for name, bit in Mask.getMaskPlaneDict().items():
        cubes[1].header[f"HIERARCH MP_{name}"] = bit
    _write([primary, *cubes, *psfs], path)


def _cubeHdu(name, array, exposure, unit):
    hdu = fits.ImageHDU(array, name=name)
    x0, y0 = exposure.getXY0()
    if hasattr(exposure.getWcs(), "to_header"):
        header = exposure.getWcs().to_header(relax=True)
        header["CRPIX1"] = header.get("CRPIX1", 0.0) - x0  # from parent to this array's pixels
        header["CRPIX2"] = header.get("CRPIX2", 0.0) - y0
        hdu.header.update(header)
    hdu.header["LTV1"], hdu.header["LTV2"] = -x0, -y0
    if unit is not None:
        hdu.header["BUNIT"] = unit.to_string()
    return hdu


def _psfHdu(psf, number):
    if isinstance(psf, AnalyticPsf):
        hdu = fits.ImageHDU(name="PSF", ver=number)
        settings = {n: getattr(psf, n) for n in ("kind", "fwhm", "pixelScale", "size", "beta", "e1", "e2")}
    elif isinstance(psf, GridPsf):
        region = psf.region and [*psf.region.getMin(), *psf.region.getDimensions()]
        hdu = fits.ImageHDU(psf.kernels, name="PSF", ver=number)
        settings = {"kind": "grid", "x": psf.x.tolist(), "y": psf.y.tolist(), "region": region}
    elif isinstance(psf, KernelPsf):
        hdu = fits.ImageHDU(psf.computeKernelImage().array, name="PSF", ver=number)
        settings = {"kind": "kernel"}
    else:
        raise ImageError(
            f"Cannot write a PSF of type {type(psf).__name__}: make a KernelPsf or a GridPsf of it."
        )
    hdu.header["VAEPSF"] = (json.dumps(settings), "kind of PSF, JSON")
    return hdu


def _psf(hdu):
    settings = json.loads(hdu.header["VAEPSF"])
    kind = settings.pop("kind")
    if kind == "kernel":
        return KernelPsf(hdu.data)
    if kind == "grid":
        region = settings["region"]
        if region is not None:
            region = Box2I(Point2I(region[0], region[1]), Extent2I(region[2], region[3]))
        return GridPsf(settings["x"], settings["y"], hdu.data, region)
    return AnalyticPsf(kind, **settings)


class MultibandExposureReader:
    """Reads a multiband exposure, or parts of it without the rest.

    Parameters
    ----------
    path : path-like
        A file of `writeMultibandExposure`.

    Raises
    ------
    ImageError
        If the file is missing, damaged or of another kind.
    """

    def __init__(self, path):
        self.path = path
        with self._open() as hdus:
            header = hdus[0].header
            self._bands = tuple(json.loads(header["VAEBANDS"]))
            self._unit = u.Unit(header["VAEUNIT"]) if header["VAEUNIT"] else None
            self._metadata = json.loads(header["VAEMETA"])
            cubes = [hdus[n] for n in (1, 2, 3)]
            if [cube.name for cube in cubes] != ["IMAGE", "MASK", "VARIANCE"]:
                raise ValueError("it lacks IMAGE, MASK and VARIANCE")
            shapes = {cube.shape for cube in cubes}
            if len(shapes) != 1 or len(cubes[0].shape) != 3 or cubes[0].shape[0] != len(self._bands):
                raise ValueError(f"{len(self._bands)} bands and cubes of shapes {sorted(shapes)} do not fit")
            for axis in ("LTV1", "LTV2"):
                if cubes[0].header[axis] != int(cubes[0].header[axis]):
                    raise ValueError(f"{axis} is not a whole number")
            _, ny, nx = cubes[0].shape
            corner = Point2I(-int(cubes[0].header["LTV1"]), -int(cubes[0].header["LTV2"]))
            self._bbox = Box2I(corner, Extent2I(nx, ny))

    def _open(self):
        return _opened(self.path, "MultibandExposure", ImageError)

    def readBands(self):
        """The names of the bands, a `tuple`."""
        return self._bands

    def readBBox(self):
        """The box, `Box2I`."""
        return Box2I(self._bbox)

    def readUnit(self):
        """The unit of the image, or `None`."""
        return self._unit

    def readMetadata(self):
        """The metadata, a `dict`."""
        return dict(self._metadata)

    def readPsfs(self, bands=None):
        """The PSFs (or `None`) of some bands, a `dict`."""
        with self._open() as hdus:
            psfs = {self._bands[hdu.ver - 1]: _psf(hdu) for hdu in hdus[4:] if hdu.name == "PSF"}
        return {band: psfs.get(band) for band in self._chosen(bands)}

    def _chosen(self, bands):
        bands = self._bands if bands is None else ((bands,) if isinstance(bands, str) else tuple(bands))
        for band in bands:
            if band not in self._bands:
                raise ImageError(f"{self.path} has no band {band!r}; it has {', '.join(self._bands)}.")
        return bands

    def read(self, bands=None, bbox=None):
        """Read the exposure.

        Parameters
        ----------
        bands : `str` or sequence of `str`, optional
            The bands to read; all if not given.
        bbox : `Box2I`, optional
            The box to read; all if not given.

        Returns
        -------
        exposure : `MultibandExposure`

        Raises
        ------
        ImageError
            If the file lacks a band, or the box reaches out of it.
        """
        bands = self._chosen(bands)
        rows, columns, bbox = locate(self._bbox if bbox is None else bbox, self._bbox)
        with self._open() as hdus:
            image, mask, variance = (
                np.stack([_native(hdu.section[self._bands.index(band), rows, columns]) for band in bands])
                for hdu in hdus[1:4]
            )
            mask = _translated(mask.astype(np.int32, copy=False), hdus[2].header)
            wcs = self._wcs(hdus[1].header)
        exposure = MultibandExposure.fromArrays(
            bands, image, mask, variance, bbox, self._unit, psfs=self.readPsfs(bands), wcs=wcs
        )
        exposure.metadata = self.readMetadata()
        return exposure

    def _wcs(self, header):
        if "CTYPE1" not in header:
            return None
        from astropy.wcs import WCS

        header = header.copy()
        header["CRPIX1"] += self._bbox.getMinX()
        header["CRPIX2"] += self._bbox.getMinY()
        return WCS(header, naxis=2)


def _native(array):
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _translated(mask, header):
    """A mask with a file's bits moved to where this process has the planes."""
    bits = {card[3:]: int(value) for card, value in header.items() if card.startswith("MP_")}
    moves = {bit: Mask.addMaskPlane(name) for name, bit in bits.items()}
    if all(old == new for old, new in moves.items()):
        return mask
    result = np.zeros_like(mask)
    for old, new in moves.items():
        result |= ((mask >> old) & 1) << new
    return result


def readMultibandExposure(path, bands=None, bbox=None):
    """Read a file of `writeMultibandExposure`; see `MultibandExposureReader.read`."""
    return MultibandExposureReader(path).read(bands, bbox)


# Catalogues


def writeSourceCatalog(catalog, path, heavy=True):
    """Write a `SourceCatalog`, footprints included, to one FITS file.

    Parameters
    ----------
    catalog : `SourceCatalog`
        What to write.
    path : path-like
        Where to; a file there is replaced.
    heavy : `bool`
        Write the pixel values of heavy footprints too; otherwise those
        footprints come back without.
    """
    hdus = [_primary("SourceCatalog", catalog.metadata), _tableHdu("CATALOG", catalog)]
    owners = [(row, record.getFootprint()) for row, record in enumerate(catalog)]
    owners = [(row, footprint) for row, footprint in owners if footprint is not None]
    if owners:
        hdus += _footprintHdus(owners)
        loaded = [(row, footprint) for row, footprint in owners if footprint.isHeavy()]
        if heavy and loaded:
            hdus.append(_heavyHdu(loaded))
    _write(hdus, path)


def _tableHdu(name, catalog):
    """A catalogue's columns as a FITS table with types, units and docs."""
    columns = []
    for item in catalog.schema:
        field, values = item.field, catalog[item.key]
        code = {"b": "L", "i": "J", "u": "I", "f": "E", "U": "A"}[field.dtype.kind]
        code = {np.dtype("i8"): "K", np.dtype("u1"): "B", np.dtype("f8"): "D"}.get(field.dtype, code)
        count = str(field.size) if field.size and (field.isArray or code == "A") else ""
        if code == "A" and not all(value.isascii() for value in values.tolist()):
            raise CatalogError(f"The strings of field '{item.key}' are not all ASCII, as FITS wants.")
        zero = 1 << 15 if field.dtype == np.uint16 else None
        columns.append(fits.Column(item.key, count + code, field.units or None, array=values, bzero=zero))
    hdu = fits.BinTableHDU.from_columns(columns, nrows=len(catalog), name=name)
    for number, item in enumerate(catalog.schema, 1):
        hdu.header[f"TVTYP{number}"] = item.field.type
        hdu.header[f"TVDOC{number}"] = item.field.doc.encode("ascii", "replace").decode()
    return hdu


def _schema(hdu):
    """The schema of a table."""
    schema = Schema()
    header = hdu.header
    for number, column in enumerate(hdu.columns, 1):
        kind = header[f"TVTYP{number}"]
        size = int(column.format.repeat) if kind == "String" or kind.startswith("Array") else None
        doc = header.get(f"TVDOC{number}", "")
        schema.addField(Field(column.name, kind, doc, column.unit or "", size), parse_strict="silent")
    return schema


def _fill(catalog, hdu, schema):
    """Fill a catalogue with the rows of a table."""
    catalog.resize(len(hdu.data))
    for number, item in enumerate(schema):
        catalog[item.key] = np.asarray(hdu.data.field(number))  # by number: names may differ by case alone
    return catalog


def _footprintHdus(owners):
    """The pixels and the peaks of footprints, each with the row it belongs to."""
    spans = np.concatenate([fp.spans.spans for _, fp in owners])
    counts = [len(fp.spans) for _, fp in owners]
    rows = np.repeat([row for row, _ in owners], counts)
    table = [fits.Column("row", "J", array=rows)]
    table += [fits.Column(name, "J", array=spans[:, k]) for k, name in enumerate(("y", "x0", "x1"))]
    regions = [[row, *fp.region.getMin(), *fp.region.getDimensions()] for row, fp in owners]
    regions = np.array(regions, dtype=np.int32)
    names = ("row", "x", "y", "width", "height")
    places = [fits.Column(name, "J", array=regions[:, k]) for k, name in enumerate(names)]
    schema = owners[0][1].peaks.schema
    peaks = PeakCatalog(PeakTable.make(schema))
    for row, footprint in owners:
        if footprint.peaks.schema != schema:
            raise CatalogError(
                f"The peaks of record {row} have other fields than those of record {owners[0][0]}."
            )
        peaks.extend(footprint.peaks, deep=True)
    hdu = _tableHdu("PEAKS", peaks)
    peakRows = np.repeat([row for row, _ in owners], [len(fp.peaks) for _, fp in owners])
    return [
        fits.BinTableHDU.from_columns(places, name="FOOTPRINTS"),
        fits.BinTableHDU.from_columns(table, name="SPANS"),
        hdu,
        fits.BinTableHDU.from_columns([fits.Column("row", "J", array=peakRows)], name="PEAKROWS"),
    ]


def _heavyHdu(loaded):
    """The pixel values of heavy footprints, one after the other."""
    values = [(fp.getImageArray(), fp.getMaskArray(), fp.getVarianceArray()) for _, fp in loaded]
    image, mask, variance = (np.concatenate(parts) for parts in zip(*values))
    rows = np.repeat([row for row, _ in loaded], [fp.getArea() for _, fp in loaded])
    units = {fp.unit for _, fp in loaded}
    if len(units) > 1:
        raise CatalogError(f"Heavy footprints of one catalogue need one unit, not {sorted(map(str, units))}.")
    code = "D" if image.dtype == np.float64 else "E"
    hdu = fits.BinTableHDU.from_columns(
        [
            fits.Column("row", "J", array=rows),
            fits.Column("image", code, array=image),
            fits.Column("mask", "J", array=mask),
            fits.Column("variance", code, array=variance),
        ],
        name="HEAVY",
    )
    unit = units.pop()
    hdu.header["VAEUNIT"] = "" if unit is None else unit.to_string()
    for name, bit in Mask.getMaskPlaneDict().items():
        hdu.header[f"HIERARCH MP_{name}"] = bit
    return hdu


def readSourceCatalog(path):
    """Read a file of `writeSourceCatalog`.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    catalog : `SourceCatalog`

    Raises
    ------
    CatalogError
        If the file is missing, damaged or of another kind.
    """
    with _opened(path, "SourceCatalog", CatalogError) as hdus:
        schema = _schema(hdus["CATALOG"])
        catalog = _fill(SourceCatalog(SourceTable(schema)), hdus["CATALOG"], schema)
        catalog.table.metadata = json.loads(hdus[0].header["VAEMETA"])
        catalog.table.setIdFactory(_idsAfter(catalog))
        if "FOOTPRINTS" in hdus:
            footprints = _footprints(hdus, len(catalog))
            if "HEAVY" in hdus:
                footprints.update(_heavies(hdus["HEAVY"], footprints))
            for row, footprint in footprints.items():
                catalog[row].setFootprint(footprint)
    return catalog


def _idsAfter(catalog):
    factory = IdFactory.makeSimple()
    if len(catalog) and catalog["id"].max() > 0:
        factory.notify(catalog["id"].max())
    return factory


def _byRow(data, rows):
    """The slice of the table for each row number in ``rows``; both are sorted."""
    owner = np.asarray(data.field(0))
    if np.any(np.diff(owner) < 0) or not np.isin(owner, rows).all():
        raise ValueError("its footprints belong to records that are not there")
    return zip(rows.tolist(), np.searchsorted(owner, rows), np.searchsorted(owner, rows, side="right"))


def _footprints(hdus, n):
    """The footprints by row."""
    places = np.stack([np.asarray(hdus["FOOTPRINTS"].data.field(k)) for k in range(5)], axis=1).astype(
        np.int64
    )
    rows = places[:, 0]
    if np.any(np.diff(rows) <= 0) or (len(rows) and not (0 <= rows[0] and rows[-1] < n)):
        raise ValueError("its footprints belong to records that are not there")
    spans = np.stack([np.asarray(hdus["SPANS"].data.field(k)) for k in (1, 2, 3)], axis=1).astype(np.int32)
    if np.any(spans[:, 2].astype(np.int64) - spans[:, 1] >= 1 << 20):
        raise ValueError("it has spans of more than a million pixels")
    schema = _schema(hdus["PEAKS"])
    # All peaks share one table; each footprint has its rows.
    peaks = _fill(PeakCatalog(PeakTable.make(schema)), hdus["PEAKS"], schema)
    if len(hdus["PEAKROWS"].data) != len(peaks):
        raise ValueError("its peaks belong to records that are not there")
    result = {}
    for (row, first, last), place in zip(_byRow(hdus["SPANS"].data, rows), places.tolist()):
        region = Box2I(Point2I(place[1], place[2]), Extent2I(place[3], place[4]))
        result[row] = Footprint(SpanSet(spans[first:last]), schema, region=region)
    for row, first, last in _byRow(hdus["PEAKROWS"].data, rows):
        result[row].setPeakCatalog(peaks[first:last])
    return result


def _heavies(hdu, footprints):
    """The heavy footprints by row."""
    rows = np.unique(np.asarray(hdu.data.field(0)))
    image, mask, variance = (_native(np.asarray(hdu.data.field(k))) for k in (1, 2, 3))
    mask = _translated(mask.astype(np.int32, copy=False), hdu.header)
    unit = u.Unit(hdu.header["VAEUNIT"]) if hdu.header["VAEUNIT"] else None
    return {
        row: HeavyFootprint(footprints[row], image[i:j], mask[i:j], variance[i:j], unit)
        for row, i, j in _byRow(hdu.data, rows)
    }
