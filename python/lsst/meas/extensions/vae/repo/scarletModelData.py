# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our models in scarlet's container, which the stack's later steps read.

Scarlet's files hold components of one shape and one colour. A network's model
has a shape in each band, so it becomes one component a band, with light in
that band alone. Its models are as sharp as a common PSF, ours are as the image
is: the same small PSF is named for both, and the kernel between them is one
pixel. A file takes some 20 bytes a pixel and band: tens of times
`VaeModelData`'s.

Written against ``scarlet_lite`` of October 2025 and ``meas_extensions_scarlet``
of February 2026, neither of which a package registry has. Run with these two
and the shim in afw's place: writing and reading ``.scarlet`` files, and scarlet's
``updateCatalogFootprints`` with and without an image, whose heavy footprints were
ours to 2e-7 inside the parent's box. (That ``scarlet_lite`` lacks the
``CubeComponent`` that is called there; a stand-in served.) Not run: a real stack,
real afw, Butler's ``ScarletModelFormatter``.
"""

__all__ = ["hasScarlet", "toScarletModelData"]

import importlib.util

import numpy as np

from ..errors import CatalogError

# Sigma [pixel] and half side of the PSF that stands for all: only its being
# the same everywhere matters.
_SIGMA, _HALF = 0.8, 2


def hasScarlet():
    """Whether ``lsst.meas.extensions.scarlet`` can be imported."""
    try:
        return importlib.util.find_spec("lsst.meas.extensions.scarlet") is not None
    except ImportError:
        return False


def toScarletModelData(modelData, catalog):
    """Models of deblended children as ``LsstScarletModelData``.

    Parameters
    ----------
    modelData : `VaeModelData`
        The models; those of isolated objects are replaced by their pixels, as
        scarlet has them.
    catalog : `~.afw.SourceCatalog` or afw's own
        The objects, with their peaks; the ids are those of the models.

    Returns
    -------
    scarletModelData : ``lsst.meas.extensions.scarlet.io.LsstScarletModelData``
        A blend for each parent, with models cut to the parent's box, beyond
        which scarlet's ``updateCatalogFootprints`` takes nothing.

    Raises
    ------
    ImportError
        Raised without ``lsst.meas.extensions.scarlet``.
    CatalogError
        Raised if a parent's pixels are unknown: files of version 1.
    """
    import lsst.scarlet.lite.io as lite
    from lsst.meas.extensions.scarlet.io import IsolatedSourceData, LsstScarletModelData

    parents = modelData.parents
    blends, isolated = {}, {}
    for record in catalog:
        sourceId = record.getId()
        if sourceId not in modelData:
            continue
        source = modelData.model(sourceId)
        blendId = source.blendId
        if blendId not in parents:
            raise CatalogError(
                f"the models tell no pixels of parent {blendId}, which scarlet's container needs: "
                "deblend again (files of version 1 do not have them)"
            )
        peak = (record.get("deblend_peak_center_y"), record.get("deblend_peak_center_x"))
        if not source.parentId:
            spans, origin = _array(parents[blendId])
            isolated[sourceId] = IsolatedSourceData(span_array=spans, origin=origin, peak=peak)
            continue
        if blendId not in blends:
            blends[blendId] = _blend(lite, blendId, parents[blendId])
        child = blends[blendId].children[blendId]
        components = _components(lite, source, peak, child.origin, child.shape)
        metadata = {"id": sourceId, "peak_id": record.get("deblend_peakId")}
        child.sources[sourceId] = lite.ScarletSourceData(components=components, metadata=metadata)
    psf = _psf()
    return LsstScarletModelData(
        isolated=isolated,
        blends=blends,
        metadata={
            "model_psf": psf,
            "psf": np.stack([psf] * len(modelData.bands)),
            "bands": tuple(modelData.bands),
            "model": "vae",
            "modelPackage": modelData.modelPackage,
        },
    )


def _blend(lite, blendId, spans):
    """A parent that is one blend: itself."""
    array, origin = _array(spans)
    child = lite.ScarletBlendData(origin=origin, shape=array.shape, sources={})
    return lite.HierarchicalBlendData(children={blendId: child}, metadata={"spans": array, "origin": origin})


def _components(lite, source, peak, origin, shape):
    """One component a band, on the part of the model inside the parent's box."""
    start = np.maximum(source.origin, origin)
    stop = np.minimum(np.add(source.origin, source.image.shape[1:]), np.add(origin, shape))
    # A peak at a parent's rim may have its stamp's good part outside.
    stop = np.maximum(stop, start + 1)
    (y0, x0), (y1, x1) = start - source.origin, stop - source.origin
    cut = np.zeros((len(source.image), y1 - y0, x1 - x0), np.float32)
    part = source.image[:, y0:y1, x0:x1]
    cut[:, : part.shape[1], : part.shape[2]] = part
    return [
        lite.ScarletFactorizedComponentData(
            origin=tuple(int(value) for value in start),
            peak=peak,
            spectrum=np.eye(len(cut), dtype=np.float32)[band],
            morph=morph,
        )
        for band, morph in enumerate(cut)
    ]


def _array(spans):
    """Spans as a bool array ``[y, x]`` and y and x of its first pixel."""
    y0, x0 = int(spans[:, 0].min()), int(spans[:, 1].min())
    array = np.zeros((int(spans[:, 0].max()) - y0 + 1, int(spans[:, 2].max()) - x0 + 1), bool)
    for y, first, last in spans:
        array[y - y0, first - x0 : last - x0 + 1] = True
    return array, (y0, x0)


def _psf():
    y, x = np.mgrid[-_HALF : _HALF + 1, -_HALF : _HALF + 1]
    psf = np.exp(-0.5 * (y**2 + x**2) / _SIGMA**2)
    return (psf / psf.sum()).astype(np.float32)
