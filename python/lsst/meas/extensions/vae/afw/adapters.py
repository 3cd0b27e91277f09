# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the images of the shim, of real afw or of ``lsst.images`` to plain cubes.

Nothing here imports ``lsst.afw``: objects are known by what they can do.
"""

__all__ = ["Cubes", "asCubes", "fromCellCoadds", "psfCube", "typesOf"]

import dataclasses
import sys
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from ..errors import ImageError
from .geometry import Box2I, Extent2I, Point2D, Point2I
from .image import Mask
from .multiband import IncompleteDataError, MultibandExposure
from .psf import Psf, PsfDomainError, _checkedKernel


@dataclasses.dataclass(frozen=True)
class Cubes:
    """A multiband exposure as arrays.

    Parameters
    ----------
    images : `numpy.ndarray`
        float32 [band, y, x], in ``unit``; the exposure's own memory where
        that is float32 already.
    variance : `numpy.ndarray`
        float32 [band, y, x], in ``unit`` squared.
    maskbits : `numpy.ndarray`
        int [band, y, x].
    planeDict : `dict` [`str`, `int`]
        The bit number of each mask plane.
    bands : `tuple` of `str`
        The names of the bands.
    xy0 : (`int`, `int`)
        The parent coordinates (x, y) of array pixel [0, 0].
    psf : callable
        ``psf(x, y)`` gives float64 [band, k, k] (k odd, each of unit sum) at
        a position in parent coordinates, and raises `IncompleteDataError`
        where a band has none.
    unit : `astropy.units.Unit` or `None`
        The unit of the images, where they say.
    """

    images: np.ndarray
    variance: np.ndarray
    maskbits: np.ndarray
    planeDict: dict
    bands: tuple
    xy0: tuple
    psf: Callable
    unit: object = None

    def bitMask(self, names):
        """The value of the bits of those planes that exist, as an `int`."""
        return sum(1 << self.planeDict[name] for name in names if name in self.planeDict)

    def place(self, peak):
        """y and x in the arrays of a peak."""
        x0, y0 = self.xy0
        return peak.getFy() - y0, peak.getFx() - x0

    def places(self, footprint):
        """y and x in the arrays of a footprint's pixels, those that lie on the exposure."""
        x0, y0 = self.xy0
        ny, nx = self.images.shape[1:]
        # Clipped first: a footprint may be far larger than the exposure.
        types = typesOf(footprint)
        box = types.Box2I(types.Point2I(x0, y0), types.Extent2I(nx, ny))
        y, x = (np.asarray(places) for places in footprint.spans.clippedTo(box).indices())
        return y - y0, x - x0


def asCubes(mExposure):
    """A multiband exposure as plain cubes.

    Parameters
    ----------
    mExposure : `MultibandExposure` (ours or afw's) or `dict` [`str`, coadd]
        The exposure, or ``lsst.images`` coadds by band.

    Returns
    -------
    cubes : `Cubes`

    Raises
    ------
    ImageError
        If it is none of these, or the shapes differ.
    """
    if isinstance(mExposure, dict):
        mExposure = fromCellCoadds(mExposure)
    try:
        parts = [mExposure.image.array, mExposure.variance.array, mExposure.mask.array]
        bands, box = tuple(mExposure.bands), mExposure.getBBox()
        planes = dict(mExposure.mask.getMaskPlaneDict())
    except AttributeError as error:
        raise ImageError(
            f"Cannot take a {type(mExposure).__name__} for a multiband exposure ({error}): give a "
            "MultibandExposure or a dict of coadds by band."
        ) from error
    shape = (len(bands), box.getHeight(), box.getWidth())
    for name, part in zip(("image", "variance", "mask"), parts):
        if part.shape != shape:
            raise ImageError(
                f"The {name} has shape {part.shape}; bands {', '.join(bands)} and box need {shape}."
            )

    def psf(x, y):
        try:
            return psfCube(mExposure.computePsfKernelImage((x, y)))
        except IncompleteDataError:
            raise
        except Exception as error:  # afw's own, which only its stack can name
            if not hasattr(error, "missingBands"):
                raise
            raise IncompleteDataError(bands, Point2D(x, y), error.partialPsf) from error

    return Cubes(
        images=np.asarray(parts[0], dtype=np.float32),
        variance=np.asarray(parts[1], dtype=np.float32),
        maskbits=np.asarray(parts[2]),
        planeDict=planes,
        bands=bands,
        xy0=(box.getMinX(), box.getMinY()),
        psf=psf,
        unit=getattr(mExposure, "unit", None),
    )


def psfCube(image):
    """A multiband kernel image as a cube whose middle is the kernels' (0, 0)."""
    array, box = np.asarray(image.array, dtype=np.float64), image.getBBox()
    edges = (box.getMinX(), box.getMaxX(), box.getMinY(), box.getMaxY())
    reach = max(map(abs, edges))
    cube = np.zeros((len(array), 2 * reach + 1, 2 * reach + 1))
    cube[:, reach + edges[2] : reach + edges[3] + 1, reach + edges[0] : reach + edges[1] + 1] = array
    return np.stack([_checkedKernel(kernel) for kernel in cube])


class _CellPsf(Psf):
    """The PSF of an ``lsst.images`` coadd."""

    def __init__(self, psf):
        self._psf = psf

    def _kernel(self, position):
        try:
            kernel = self._psf.compute_kernel_image(x=position[0], y=position[1])
        except Exception as error:  # BoundsError, which only lsst.images can name
            raise PsfDomainError(f"There is no PSF at ({position[0]:g}, {position[1]:g}): {error}") from error
        return _checkedKernel(kernel.array)


# What lsst.images calls planes that have another name in afw, and in configs.
_AFW_PLANES = {
    "COSMIC_RAY": "CR",
    "DETECTION_EDGE": "EDGE",
    "INTERPOLATED": "INTRP",
    "SATURATED": "SAT",
    "UNMASKED_NAN": "UNMASKEDNAN",
}


def fromCellCoadds(coadds):
    """A multiband exposure of ``lsst.images`` coadds (or alike).

    Tried with the `CellCoadd` of lsst-images 30.2026.4300 on Python 3.13:
    pixels, masks, units, WCS, cutouts, kernels and missing cells.

    Parameters
    ----------
    coadds : `dict` [`str`, ``lsst.images.cells.CellCoadd``]
        The coadd of each band, all with the same box and unit.

    Returns
    -------
    exposure : `MultibandExposure`
        A copy of the pixels, with the WCS of the first coadd that has one. Mask
        planes have afw's names (SAT for SATURATED); new ones are added.

    Raises
    ------
    ImageError
        If the boxes or units differ.
    """
    if not coadds:
        raise ImageError("No coadds are given.")
    boxes = {
        band: (coadd.bbox.x.start, coadd.bbox.y.start, *coadd.image.array.shape)
        for band, coadd in coadds.items()
    }
    units = {band: getattr(coadd, "unit", None) for band, coadd in coadds.items()}
    for what, values in (("box (x0, y0, ny, nx)", boxes), ("unit", units)):
        if len(set(values.values())) > 1:
            raise ImageError(f"The coadds of the bands need one {what}, not {values}.")
    (x0, y0, ny, nx), unit = next(iter(boxes.values())), next(iter(units.values()))
    masks = np.zeros((len(coadds), ny, nx), dtype=np.int32)
    for target, coadd in zip(masks, coadds.values()):
        for name in coadd.mask.schema.names:
            bit = np.int32(1 << Mask.addMaskPlane(_AFW_PLANES.get(name, name)))
            target |= np.where(coadd.mask.get(name), bit, np.int32(0))
    return MultibandExposure.fromArrays(
        tuple(coadds),
        np.stack([coadd.image.array for coadd in coadds.values()]),
        masks,
        np.stack([coadd.variance.array for coadd in coadds.values()]),
        Box2I(Point2I(x0, y0), Extent2I(nx, ny)),
        unit,
        psfs=[_CellPsf(coadd.psf) for coadd in coadds.values()],
        wcs=next(filter(None, map(_parentWcs, coadds.values())), None),
    )


def _parentWcs(coadd):
    """The `astropy.wcs.WCS` of a coadd's parent pixels; `None` where there is none."""
    projection = getattr(coadd, "sky_projection", None)
    if projection is None:
        return None
    # Of a box that starts at (0, 0) the array's pixels are the parent's.
    return projection.as_fits_wcs(type(coadd.bbox).from_shape(coadd.image.array.shape), True)


_SHIM_TYPES = (
    "Box2I", "Extent2I", "Footprint", "IdFactory", "Image", "Mask", "MaskedImage", "PeakTable", "Point2D",
    "Point2I", "Point2IKey", "Schema", "SchemaMapper", "SourceCatalog", "SourceTable", "SpanSet",
    "makeHeavyFootprint",
)  # fmt: skip


def typesOf(thing):
    """The classes to make more of the same family: the shim's or real afw's.

    Parameters
    ----------
    thing : `object`
        A schema, catalogue or image of either family.

    Returns
    -------
    types : `types.SimpleNamespace`
        ``SourceCatalog``, ``SourceTable``, ``SchemaMapper``, ``Footprint``,
        ``Point2I`` and so on.
    """
    if any(cls.__module__.startswith(("lsst.afw.", "lsst.geom")) for cls in type(thing).__mro__):
        import importlib

        rooms = [
            importlib.import_module(f"lsst.{name}") for name in ("afw.table", "afw.detection", "afw.image")
        ]
        rooms += [importlib.import_module(f"lsst.{name}") for name in ("afw.geom", "geom")]
    else:
        rooms = [sys.modules[__package__]]
    return SimpleNamespace(
        **{name: next(getattr(room, name) for room in rooms if hasattr(room, name)) for name in _SHIM_TYPES}
    )
