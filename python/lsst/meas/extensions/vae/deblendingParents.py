# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which parents are deblended, which are not and why, and what fails alone."""

__all__ = ["ParentJob", "deblendCatching", "numberPeaks", "peakPlaces", "planParents"]

import dataclasses

import numpy as np

from .errors import VaeError

# A failure is narrowed down to its parents by halving; past so many calls the
# rest is given up, lest an error that hits all of them cost a call for each.
_MAX_CALLS = 64


class ParentJob:
    """One parent on its way through `~.DeblendVaeTask.deblend`.

    Parameters
    ----------
    record : `~.afw.SourceRecord` or afw's own
        The parent.
    pseudoColumns : sequence of `str`
        Flags, of the parent or of its first peak, of what is no real source.

    Attributes
    ----------
    peaks : `list`
        Its peaks; none where the footprint was lost.
    pseudo : `bool`
        Not a real source.
    skip : `str` or `None`
        Why it is not deblended.
    error : `str`
        Kind of the error that deblending it raised, if it did.
    first : `int`
        Number of its first peak among all that are deblended.
    passes : `list` [`int`]
        The pass of detection that found each of the peaks.
    """

    def __init__(self, record, pseudoColumns=()):
        self.record, footprint = record, record.getFootprint()
        self.peaks = [] if footprint is None else list(footprint.peaks)
        holders = [record, *self.peaks[:1]]
        self.pseudo = any(
            holder.get(name)
            for holder in holders
            for name in pseudoColumns
            if name in holder.getSchema().getNames()
        )
        self.skip, self.error, self.first = None, "", 0
        self.passes = [1] * len(self.peaks)

    @property
    def isolated(self):
        """Is it passed on with its own id?"""
        return self.pseudo or len(self.peaks) == 1

    def addPeak(self, peak, number):
        """Give it a further peak, that a later pass of detection found."""
        self.peaks.append(peak)
        self.passes.append(number)

    @property
    def lost(self):
        """Is it a real loss that it is not deblended?"""
        return self.skip not in (None, "isPseudo", "isolatedParent")


def planParents(parents, cubes, settings, present, log):
    """Decide which parents are deblended.

    Parameters
    ----------
    parents : iterable of `~.afw.SourceRecord`
        Parents.
    cubes : `~.afw.adapters.Cubes`
        Pixels.
    settings : `~.DeblendVaeConfig`
        The limits.
    present : sequence of `int`
        Numbers of the bands that the exposure has.
    log : `logging.Logger`
        For a warning.

    Returns
    -------
    jobs : `list` [`ParentJob`]
        In the order of the parents; without those that ``useCiLimits`` drops.
    """
    jobs = [ParentJob(record, settings.pseudoColumns) for record in parents]
    if settings.useCiLimits:
        jobs = _ciSelection(jobs, settings, log)
    for job in jobs:
        job.skip = _skipReason(job, cubes, settings, present)
    return jobs


def _ciSelection(jobs, settings, log):
    low, high = settings.ciDeblendChildRange
    inRange = [job for job in jobs if low <= len(job.peaks) <= high and not job.isolated]
    chosen = set(map(id, inRange[: settings.ciNumParentsToDeblend]))
    if len(chosen) < settings.ciNumParentsToDeblend:
        log.warning(
            "useCiLimits: %d parents, not %d, have %d to %d peaks; widen ciDeblendChildRange for more",
            len(chosen),
            settings.ciNumParentsToDeblend,
            low,
            high,
        )
    return [job for job in jobs if job.isolated or id(job) in chosen]


def _skipReason(job, cubes, settings, present):
    footprint, n = job.record.getFootprint(), len(job.peaks)
    if job.pseudo:
        return "isPseudo"
    if not n:
        return "noPeaks"
    if n == 1 and not settings.processSingles:
        return "isolatedParent"
    if _isLarge(footprint, n, settings):
        return "parentTooBig"
    if _isMasked(footprint, cubes, settings.maskLimits, present):
        return "masked"
    if 0 < settings.maxNumberOfPeaks < n:
        return "tooManyPeaks"
    return None


def _isLarge(footprint, n, settings):
    """Is a footprint beyond a limit?  Areas are those of its box, as scarlet's."""
    box = footprint.getBBox()
    width, height = box.getWidth(), box.getHeight()
    return bool(
        0 < settings.maxFootprintArea < width * height
        or 0 < settings.maxFootprintSize < max(width, height)
        or 0 < settings.maxAreaTimesPeaks < width * height * n
        or (settings.minFootprintAxisRatio > 0 and _axisRatio(footprint) < settings.minFootprintAxisRatio)
    )


def _axisRatio(footprint):
    """Ratio of the axes of a footprint's second moments."""
    shape = footprint.getShape()
    xx, yy, xy = (shape.getIxx(), shape.getIyy(), shape.getIxy()) if hasattr(shape, "getIxx") else shape
    mean, split = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    return np.sqrt(max(mean - split, 0.0) / (mean + split)) if mean + split > 0 else 1.0


def _isMasked(footprint, cubes, limits, present):
    limits = {plane: limit for plane, limit in limits.items() if cubes.bitMask([plane])}
    if not limits:
        return False
    # A band that the exposure lacks is masked nowhere, which says nothing.
    bits = cubes.maskbits[present][:, *cubes.places(footprint)]
    return bits.size > 0 and any(
        ((bits & cubes.bitMask([plane])) != 0).mean(axis=1).min() > limit for plane, limit in limits.items()
    )


def numberPeaks(jobs):
    """Set ``first`` of parents whose peaks are deblended in their order, and forget what failed before.

    Parameters
    ----------
    jobs : `list` [`ParentJob`]
        Parents to deblend.
    """
    first = 0
    for job in jobs:
        job.first, job.error = first, ""
        first += len(job.peaks)


def peakPlaces(jobs, cubes):
    """Places of all peaks of parents.

    Parameters
    ----------
    jobs : `list` [`ParentJob`]
        Parents.
    cubes : `~.afw.adapters.Cubes`
        Pixels.

    Returns
    -------
    places : `numpy.ndarray`, float64 ``[n, 2]``
        y and x in the cubes [pixel].
    """
    return np.array([cubes.place(peak) for job in jobs for peak in job.peaks]).reshape(-1, 2)


def deblendCatching(jobs, deblend, log):
    """Deblend parents; where that fails, find those at fault and do the others.

    Parameters
    ----------
    jobs : `list` [`ParentJob`]
        Parents to deblend, with ``first`` set in their order. Of those that
        fail ``error`` is set, and the peaks count as failed.
    deblend : callable
        Given numbers of peaks (a `slice` or an array) it returns their
        `~.deblending.DeblendResult`.
    log : `logging.Logger`
        For failures.

    Returns
    -------
    result : `~.deblending.DeblendResult` or `None`
        Of all peaks; `None` if nothing worked.

    Raises
    ------
    VaeError
        Raised by ``deblend``, about the whole exposure or the config.
    """
    total, calls, pieces = sum(len(job.peaks) for job in jobs), 0, []
    # Depth first, the first half last in: pieces come in order.
    waiting = [jobs]
    while waiting:
        part = waiting.pop()
        first = part[0].first if part else 0
        peaks = slice(first, first + sum(len(job.peaks) for job in part))
        calls += 1
        try:
            pieces.append((peaks, deblend(peaks)))
        except VaeError:
            raise
        except Exception as error:
            if len(part) > 1 and calls < _MAX_CALLS:
                half = len(part) // 2
                waiting += [part[half:], part[:half]]
                continue
            for job in part:
                job.error = type(error).__name__
            log.error("Deblending %s failed: %s: %s", _names(part), type(error).__name__, error)
    if not pieces:
        return None
    if len(pieces) == 1:
        return _joined(pieces, total) if any(job.error for job in jobs) else pieces[0][1]
    # What is left is solved together, as if what failed had not been there; unless all of it is too much.
    left = [np.arange(job.first, job.first + len(job.peaks)) for job in jobs if not job.error]
    left = np.concatenate(left)
    try:
        return _joined([(left, deblend(left))], total)
    except VaeError:
        raise
    except Exception as error:
        log.warning("Parents are solved in %d parts: %s: %s", len(pieces), type(error).__name__, error)
        return _joined(pieces, total)


def _names(jobs):
    ids = ", ".join(str(job.record.getId()) for job in jobs[:5])
    return f"parent(s) {ids}{', ...' if len(jobs) > 5 else ''} ({len(jobs)})"


def _joined(pieces, total):
    """One result of several; peaks of none hold NaN, 0, True and `None`."""
    values, one = {}, pieces[0][1]
    for field in dataclasses.fields(one):
        like = getattr(one, field.name)
        if like is None:
            continue
        fill = {"f": np.nan, "b": True, "O": None}.get(like.dtype.kind, 0)
        whole = values[field.name] = np.full((total, *like.shape[1:]), fill, like.dtype)
        for peaks, piece in pieces:
            whole[peaks] = getattr(piece, field.name)
    return dataclasses.replace(one, **values)
