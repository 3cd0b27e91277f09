# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Peaks that nobody detected, found in what the models of the others leave, and given to their parents."""

__all__ = ["addHiddenPeaks"]

import numpy as np

from .afw.adapters import typesOf
from .deblending.iterate import middle_psfs, new_peaks
from .deblendingParents import peakPlaces

# A pixel above so many sigma shows its peak in a band.
_SHOWS = 3.0


def addHiddenPeaks(jobs, cubes, matched, psfs, network, settings, maxPasses, maxPeaks, deblend, log):
    """Detect on the residual of a quick deblending, and add peaks, until nothing is new.

    Parameters
    ----------
    jobs : `list` [`~.deblendingParents.ParentJob`]
        All parents; those that are deblended get the new peaks that lie in
        their footprints.
    cubes : `~.afw.adapters.Cubes`
        The exposure.
    matched : `~.deblending.matching.MatchedImages`
        The exposure as the network sees it.
    psfs : callable or `None`
        From centres to PSF images; `None` for the network's own.
    network : `~.network.model.Network`
        The network.
    settings : `~.deblending.IterationSettings`
        Of detection.
    maxPasses : `int`
        Passes at most, that of the peaks at hand the first.
    maxPeaks : `int`
        Peaks that a parent may have; 0 or less for no limit.
    deblend : callable
        Gives the `~.deblending.DeblendResult` of the peaks of all parents
        that are deblended, in the pixels that the network sees.
    log : `logging.Logger`
        For what was found.
    """
    shape = matched.images.shape[1:]
    middle = middle_psfs(psfs, network, shape)
    for number in range(2, maxPasses + 1):
        result = deblend()
        if result is None:
            return
        # Those that are not deblended hide what is next to them too.
        known = matched.places(peakPlaces(jobs, cubes))
        scene = result.scene(matched.images.shape)
        found = new_peaks(
            matched.images,
            matched.variance,
            matched.good,
            middle,
            scene,
            known,
            settings,
        )
        added = _shareOut(matched.own_places(found[:, :2]), jobs, cubes, number, maxPeaks)
        outside = len(found) - added
        log.info(
            "Pass %d: %d new peaks; %d more lie in no footprint that may have them", number, added, outside
        )
        if not added:
            return


def _shareOut(places, jobs, cubes, number, maxPeaks):
    """Give each new peak to the parent whose footprint it lies in; how many there were."""
    x0, y0 = cubes.xy0
    nextId = 1 + max((int(peak.get("id")) for job in jobs for peak in job.peaks), default=0)
    todo = [(job, job.record.getFootprint()) for job in jobs if not job.skip]
    types = typesOf(todo[0][1])
    added = 0
    for y, x in places:
        point = types.Point2I(round(x) + x0, round(y) + y0)
        for job, footprint in todo:
            if 0 < maxPeaks <= len(job.peaks):
                continue
            if footprint.getBBox().contains(point) and footprint.contains(point):
                # A footprint of its own, lest the caller's change.
                own = types.Footprint(footprint.spans, footprint.peaks.schema)
                pixels = cubes.images[:, round(y), round(x)], cubes.variance[:, round(y), round(x)]
                peak = own.addPeak(x + x0, y + y0, float(np.nan_to_num(pixels[0]).max()))
                peak.setIx(point[0])
                peak.setIy(point[1])
                peak.set("id", nextId + added)
                _flagBands(peak, cubes.bands, *pixels)
                job.addPeak(peak, number)
                added += 1
                break
    return added


def _flagBands(peak, bands, image, variance):
    """Set the flags of bands that show a peak, as merging detections does: later steps take one of these."""
    with np.errstate(all="ignore"):
        snr = np.nan_to_num(np.where(variance > 0, image / np.sqrt(variance), 0.0))
    names = set(peak.getSchema().getNames())
    for band, value in zip(bands, snr, strict=True):
        name = f"merge_peak_{band}"
        if name in names:
            peak.set(name, bool(value >= min(_SHOWS, snr.max())))
