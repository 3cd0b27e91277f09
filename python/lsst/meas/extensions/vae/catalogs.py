# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Detections of the simulation room as the stack's catalogues."""

import numpy as np

from .afw import Footprint, IdFactory, PeakTable, SourceCatalog, SourceTable, SpanSet

__all__ = ["makeMergedDetections", "makeMergedSchema", "makePeakSchema"]


def makePeakSchema(bands):
    """Schema of peaks with a ``merge_peak_<band>`` flag for each band."""
    schema = PeakTable.makeMinimalSchema()
    for band in bands:
        schema.addField(f"merge_peak_{band}", type="Flag", doc=f"Peak is significant in the {band} band")
    schema.addField("merge_peak_sky", type="Flag", doc="Peak of a sky object (none are made here)")
    return schema


def makeMergedSchema(bands):
    """Schema of parents with merge flags for each band."""
    schema = SourceTable.makeMinimalSchema()
    for band in bands:
        schema.addField(
            f"merge_footprint_{band}", type="Flag", doc=f"Footprint is significant in the {band} band"
        )
        schema.addField(f"merge_peak_{band}", type="Flag", doc=f"Some peak is significant in the {band} band")
    schema.addField("merge_peak_sky", type="Flag", doc="A sky object (none are made here)")
    return schema


def makeMergedDetections(detection, bands, xy0=(0, 0), exposureId=0):
    """Catalogue of parents as the stack's merged detections.

    Parameters
    ----------
    detection : `~.simulation.detection.Detection`
        What was found.
    bands : sequence of `str`
        Bands, in the detection's order.
    xy0 : pair of `int`, optional
        Parent coordinates of the first pixel.
    exposureId : `int`, optional
        Makes ids differ between patches.

    Returns
    -------
    catalog : `~.afw.SourceCatalog`
        One record a parent, with its footprint and peaks.
    """
    x0, y0 = xy0
    peakSchema = makePeakSchema(bands)
    table = SourceTable.make(makeMergedSchema(bands), IdFactory.makeSource(exposureId, 40))
    catalog = SourceCatalog(table)
    for parent in detection.parents:
        record = catalog.addNew()
        top, _, left, _ = parent.bbox
        footprint = Footprint(SpanSet.fromArray(parent.mask, (left + x0, top + y0)), peakSchema)
        for peak, flags in zip(parent.peaks, parent.peak_bands, strict=True):
            x, y = peak.x + x0, peak.y + y0
            new = footprint.addPeak(x, y, peak.snr)
            # addPeak truncates, as afw's does; the peak's pixel is the nearest.
            new.setIx(int(np.floor(x + 0.5)))
            new.setIy(int(np.floor(y + 0.5)))
            for band, flag in zip(bands, flags, strict=True):
                new.set(f"merge_peak_{band}", bool(flag))
        record.setFootprint(footprint)
        for number, band in enumerate(bands):
            record.set(f"merge_footprint_{band}", bool(parent.footprint_bands[number]))
            record.set(f"merge_peak_{band}", bool(np.any(parent.peak_bands[:, number])))
    return catalog
