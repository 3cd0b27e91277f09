# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Heavy footprints of deblended objects, rebuilt band by band from their models."""

__all__ = ["updateCatalogFootprints"]

import numpy as np

from .afw import Box2I, Extent2I, Point2I, SpanSet
from .afw.adapters import typesOf
from .deblending.conserve import share_pixels
from .deblending.overlaps import measure_overlaps, model_footprint
from .deblendingSchema import setOverlaps
from .simulation.geometry import overlap


def updateCatalogFootprints(
    modelData,
    catalog,
    band,
    imageForRedistribution=None,
    removeScarletData=False,
    updateFluxColumns=True,
):
    """Give every modelled object the heavy footprint of one band, in place.

    It is called, and fills columns, as the function of this name of
    ``lsst.meas.extensions.scarlet.io``. With an image the pixels of each
    parent are shared among its own children in proportion to their models, and
    those outside all parents among all models that reach them: over both the
    footprints sum to the image. Scarlet shares pixels inside the parent alone.

    Parameters
    ----------
    modelData : `~.repo.VaeModelData`
        The models.
    catalog : `~.afw.SourceCatalog` or afw's own
        Objects with the ids of the models. A child without a model gets one
        pixel of zero; an isolated object without one keeps its footprint.
    band : `str`
        The band.
    imageForRedistribution : `~.afw.Exposure`, `~.afw.MaskedImage`, optional
        The coadd of that band (afw's own will do). Without it footprints hold
        the models themselves.
    removeScarletData : `bool`, optional
        Forget the models afterwards, to free memory?
    updateFluxColumns : `bool`, optional
        Fill ``deblend_zeroFlux``, ``deblend_scarletFlux``,
        ``deblend_peak_instFlux`` and, with an image,
        ``deblend_dataCoverage`` and the overlaps, for this band?

    Raises
    ------
    lsst.pipe.base.NoWorkFound
        Raised if there are no models of that band.
    """
    if band not in modelData.bands:
        from lsst.pipe.base import NoWorkFound

        raise NoWorkFound(f"the models have no band {band!r}; they have {', '.join(modelData.bands)}")
    maker = _Maker(catalog, imageForRedistribution, modelData)
    index = modelData.bands.index(band)
    found = [record.getId() in modelData for record in catalog]
    sources = [modelData.model(record.getId()) for record, has in zip(catalog, found, strict=True) if has]
    stamps = [source.image[index] for source in sources]
    shares = maker.shares(sources, stamps)
    overlaps = maker.overlaps(sources, stamps) if updateFluxColumns else None
    place = 0
    for record, has in zip(catalog, found, strict=True):
        if not has:
            if record.getParent():
                maker.setEmpty(record, updateFluxColumns)
            continue
        maker.setHeavy(record, shares[place], sources[place].origin, updateFluxColumns)
        if updateFluxColumns:
            record.set("deblend_scarletFlux", float(stamps[place].sum(dtype=np.float64)))
            if overlaps is not None:
                setOverlaps(record, overlaps[place])
        place += 1
    if removeScarletData:
        modelData.clear()


class _Maker:
    """Makes the footprints of one band.

    Parameters
    ----------
    catalog : `~.afw.SourceCatalog`
        Tells whether footprints are the shim's or real afw's.
    exposure : `~.afw.Exposure`, `~.afw.MaskedImage` or `None`
        Pixels to share.
    modelData : `~.repo.VaeModelData`
        Tells the parents' pixels and the box of the image.
    """

    def __init__(self, catalog, exposure, modelData):
        self.types, self.exposure, self.modelData = typesOf(catalog.schema), exposure, modelData
        self.unit = getattr(exposure, "unit", None)
        self.corner = self.shape = None
        if exposure is not None:
            box = exposure.image.getBBox()
            self.corner, self.shape = (box.getMinY(), box.getMinX()), exposure.image.array.shape
        elif "bbox" in modelData.metadata:
            y0, y1, x0, x1 = modelData.metadata["bbox"]
            self.corner, self.shape = (y0, x0), (y1 - y0, x1 - x0)

    def shares(self, sources, stamps):
        """What each source gets of the pixels, or its model where there are none."""
        if self.exposure is not None:
            numbers = {}
            groups = [numbers.setdefault(source.blendId, len(numbers) + 1) for source in sources]
            return share_pixels(
                self.exposure.image.array,
                stamps,
                self._places(sources),
                groups=groups,
                owners=self._owners(numbers),
            )
        if self.corner is None:
            return stamps
        cut = [np.zeros_like(stamp) for stamp in stamps]
        for part, stamp, place in zip(cut, stamps, self._places(sources), strict=True):
            inside = overlap(place, stamp.shape, self.shape)[1]
            part[inside] = stamp[inside]
        return cut

    def overlaps(self, sources, stamps):
        """Overlaps of the models with each other; `None` without an image, which tells the noise."""
        if self.exposure is None:
            return None
        variance, threshold = self.exposure.variance.array, self.modelData.metadata.get("backgroundThresh", 1)
        places = self._places(sources)
        windows = [
            overlap(place, stamp.shape, self.shape) for place, stamp in zip(places, stamps, strict=True)
        ]
        scene = np.zeros(self.shape)
        for stamp, (inImage, inStamp) in zip(stamps, windows, strict=True):
            scene[inImage] += stamp[inStamp]
        result = []
        for stamp, (inImage, inStamp) in zip(stamps, windows, strict=True):
            model, noise = stamp[inStamp][np.newaxis], variance[inImage]
            noise = noise[np.isfinite(noise) & (noise > 0)]
            sigma = np.sqrt(np.median(noise)) if noise.size else np.nan
            footprint = model_footprint(model, [sigma], threshold)
            result.append(measure_overlaps(model, scene[inImage][np.newaxis], footprint))
        return result

    def setHeavy(self, record, values, origin, updateFluxColumns):
        """Attach a stamp's pixels that are not zero."""
        valid = values != 0
        if not valid.any():
            self.setEmpty(record, updateFluxColumns)
            return
        self._attach(record, valid, values, origin)
        if not updateFluxColumns:
            return
        record.set("deblend_zeroFlux", False)
        y, x = _peak(record)
        y, x = y - origin[0], x - origin[1]
        inside = 0 <= y < values.shape[0] and 0 <= x < values.shape[1]
        record.set("deblend_peak_instFlux", float(values[y, x]) if inside else np.nan)
        if self.exposure is not None:
            record.set("deblend_dataCoverage", self._coverage(valid, origin))

    def setEmpty(self, record, updateFluxColumns):
        """Attach one pixel of zero: measurements need a pixel, and must not take the blend's."""
        self._attach(record, np.ones((1, 1), bool), np.zeros((1, 1)), _peak(record))
        if updateFluxColumns:
            record.set("deblend_zeroFlux", True)

    def _attach(self, record, valid, values, origin):
        corner = self.types.Point2I(int(origin[1]), int(origin[0]))
        # Units are the shim's own.
        unit = {} if self.unit is None else {"unit": self.unit}
        array = np.ascontiguousarray(values, np.float32)
        image = self.types.Image(array=array, xy0=corner, dtype=np.float32, **unit)
        spans = self.types.SpanSet.fromMask(self.types.Mask(valid.astype(np.int32), xy0=corner))
        footprint, old = self.types.Footprint(spans), record.getFootprint()
        if old is not None and len(old.peaks):
            footprint.setPeakCatalog(old.peaks)
        else:
            y, x = _peak(record)
            footprint.addPeak(x, y, float(array.max()))
        masked = self.types.MaskedImage(image, dtype=np.float32)
        record.setFootprint(self.types.makeHeavyFootprint(footprint, masked))

    def _coverage(self, valid, origin):
        """Fraction of a footprint's pixels that are not NO_DATA."""
        mask = self.exposure.mask
        place = (origin[0] - self.corner[0], origin[1] - self.corner[1])
        inImage, inStamp = overlap(place, valid.shape, self.shape)
        noData = (mask.array[inImage] & (1 << mask.getMaskPlaneDict()["NO_DATA"])) != 0
        used = valid[inStamp]
        return float(1 - (noData & used).sum() / max(used.sum(), 1))

    def _places(self, sources):
        """First pixels of the stamps in the image's array, int ``[n, 2]``."""
        return np.array([source.origin for source in sources], dtype=np.int64).reshape(-1, 2) - self.corner

    def _owners(self, numbers):
        """Whose each pixel is: the number of the parent's blend, 0 for nobody's."""
        owners = np.zeros(self.shape, np.int32)
        (y0, x0), (ny, nx) = self.corner, self.shape
        box = Box2I(Point2I(x0, y0), Extent2I(nx, ny))
        for parentId, spans in self.modelData.parents.items():
            y, x = SpanSet(spans).clippedTo(box).indices()
            # Of a parent none of whose children has a model the pixels are nobody's too.
            owners[y - y0, x - x0] = numbers.get(parentId, 0)
        return owners


def _peak(record):
    """y and x of an object's peak, whole pixels."""
    footprint = record.getFootprint()
    if footprint is not None and len(footprint.peaks):
        return footprint.peaks[0].getIy(), footprint.peaks[0].getIx()
    return int(record.get("deblend_peak_center_y")), int(record.get("deblend_peak_center_x"))
