# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the deblender found, as the catalogues and model data of scarlet's slot."""

__all__ = ["Deblended", "collect"]

from dataclasses import dataclass
from typing import Any

import numpy as np

from .afw.adapters import typesOf
from .deblendingSchema import setObjectFields, setParentFields
from .simulation.geometry import stamp_origin


@dataclass
class Deblended:
    """All that columns are filled from.

    Attributes
    ----------
    cubes : `~.afw.adapters.Cubes`
        Pixels, in the network's bands.
    good : `numpy.ndarray` of `bool`, ``[band, y, x]``
        Those that can be used.
    matched : `~.deblending.matching.MatchedImages`
        The exposure as the network saw it.
    result : `~.deblending.DeblendResult` or `None`
        Models of all peaks, in the exposure's own pixels; `None` where
        nothing was deblended.
    depthMismatch : `numpy.ndarray` of `bool`, ``[n]``, or `None`
        Peaks where the noise does not suit the network.
    scene : `numpy.ndarray`, ``[band, y, x]``, or `None`
        Sum of all models.
    bands : `tuple` [`str`]
        The network's.
    reference : `int`
        Number of the reference band.
    psfs : `~.exposureChecks.ExposurePsfs`
        Tells where the PSF does not suit the network.
    missing : `list` [`str`]
        Bands that the exposure lacks.
    seconds : `float`
        Time that deblending took.
    nPeaks : `int`
        Peaks that were deblended.
    backgroundThresh : `float`
        Where a model's footprint ends, in sigma of the noise.
    noveltyLimit : `float`
        Novelty above which a source is flagged.
    """

    cubes: Any
    good: np.ndarray
    matched: Any
    result: Any
    depthMismatch: np.ndarray | None
    scene: np.ndarray | None
    bands: tuple
    reference: int
    psfs: Any
    missing: list
    seconds: float
    nPeaks: int
    backgroundThresh: float
    noveltyLimit: float

    def place(self, peak):
        """y and x of a peak in the pixels that the network saw."""
        return tuple(self.matched.places(np.array(self.cubes.place(peak))))

    def tried(self, job):
        """Were the peaks of a `~.deblendingParents.ParentJob` deblended, whether or not each got a model?"""
        return self.result is not None and not (job.skip or job.error)


def collect(jobs, found, schemas, modelData, parents, objects=None):
    """Fill the catalogues and the model data.

    Parameters
    ----------
    jobs : `list` [`~.deblendingParents.ParentJob`]
        All parents.
    found : `Deblended`
        What was found.
    schemas : `~.deblendingSchema.Schemas`
        Columns.
    modelData : `~.repo.VaeModelData`
        Where models and parents' pixels are added.
    parents : `~.afw.SourceCatalog` or afw's own
        The catalogue of the parents, for its ids.
    objects : `~.afw.SourceCatalog`, optional
        Catalogue to add objects to.

    Returns
    -------
    objects, objectParents : `~.afw.SourceCatalog`
        Isolated parents, then children, in the order of their parents' ids;
        all the parents.
    """
    types = typesOf(schemas.objects)
    if objects is None:
        objects = types.SourceCatalog(types.SourceTable.make(schemas.objects, parents.getIdFactory()))
    if objects.getIdFactory() is None:
        objects.getTable().setIdFactory(types.IdFactory.makeSimple())
    objects.getIdFactory().notify(max((job.record.getId() for job in jobs), default=0))
    objectParents = types.SourceCatalog(types.SourceTable.make(schemas.parents))
    rows = []
    for job in jobs:
        _addParent(objectParents, job, found, schemas)
        if found.tried(job):
            spans = [(s.getY(), s.getX0(), s.getX1()) for s in job.record.getFootprint().spans]
            modelData.addParent(job.record.getId(), spans)
        if job.isolated or not (job.skip or job.error):
            rows += [(0 if job.isolated else job.record.getId(), job, k) for k in range(len(job.peaks))]
    # An isolated pseudo-source of several peaks is one object all the same.
    rows = [row for row in rows if not (row[1].isolated and row[2])]
    for parentId, job, k in sorted(rows, key=lambda row: row[0]):
        record = objects.addNew()
        _copy(record, job.record, schemas.inputNames)
        if job.isolated:
            record.setId(job.record.getId())
        record.setParent(parentId)
        _copy(record, job.peaks[k], schemas.peakNames)
        if job.isolated:
            record.setFootprint(job.record.getFootprint())
        else:
            record.setFootprint(_childFootprint(job, k, found, schemas.peakNames))
        setObjectFields(record, job, k, found)
        if found.tried(job) and not found.result.failed[job.first + k]:
            _addModel(modelData, record, job.first + k, found)
    return objects, objectParents


def _copy(record, other, names):
    for name in names:
        record.set(name, other.get(name))


def _addParent(table, job, found, schemas):
    record = table.addNew()
    _copy(record, job.record, ["id", *schemas.inputNames])
    if job.peaks:
        # As scarlet: the first peak speaks for its parent, of sky objects say.
        _copy(record, job.peaks[0], [n for n in schemas.peakNames if n not in schemas.inputNames])
    record.setFootprint(job.record.getFootprint())
    setParentFields(record, job, found)


def _addModel(modelData, record, k, found):
    x0, y0 = found.cubes.xy0
    result = found.result
    modelData.add(
        record.getId(),
        record.getParent(),
        result.models[k],
        (int(result.origins[k][0]) + y0, int(result.origins[k][1]) + x0),
        result.latent_mean[k],
        result.latent_sigma[k],
        result.flux_errors[k],
    )


def _childFootprint(job, k, found, peakNames):
    """The parent's pixels under the child's stamp, with the child's own peak.

    The whole parent for each child would make files grow with the square of
    the number of peaks.
    """
    parent, peak = job.record.getFootprint(), job.peaks[k]
    x0, y0 = found.cubes.xy0
    size = found.result.models.shape[-1]
    # The whole pixel is somewhere, even where the position is NaN or infinite.
    places = (peak.getFx(), peak.getIx()), (peak.getFy(), peak.getIy())
    x, y = (place if abs(place - pixel) <= 1 else pixel for place, pixel in places)
    top, left = stamp_origin(x - x0, y - y0, size)
    types = typesOf(parent)
    box = types.Box2I(types.Point2I(left + x0, top + y0), types.Extent2I(size, size))
    child = types.Footprint(parent.spans.clippedTo(box), parent.peaks.schema)
    new = child.addPeak(x, y, peak.getPeakValue())
    for name in ("id", "f_x", "f_y", "i_x", "i_y", *peakNames):
        new.set(name, peak.get(name))
    return child
