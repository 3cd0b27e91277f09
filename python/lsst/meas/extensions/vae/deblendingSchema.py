# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The columns that scarlet's slot writes, and ours beside them."""

__all__ = ["Schemas", "setObjectFields", "setOverlaps", "setParentFields"]

import numpy as np

from .afw.adapters import typesOf
from .deblending.overlaps import measure_overlaps, model_footprint
from .simulation.geometry import overlap
from .simulation.statistics import half_width

# Names and types are scarlet's; what stands under deblend_vae_ is ours alone.
_OBJECT_FIELDS = (
    ("deblend_peak_center_x", "I", "Centre of the detected peak, x (whole pixel)", "pixel"),
    ("deblend_peak_center_y", "I", "Centre of the detected peak, y (whole pixel)", "pixel"),
    ("deblend_nChild", "I", "Number of children of this object (0: objects have none)", ""),
    ("deblend_peakId", "I", "Id of the peak, unique within its footprint", ""),
    ("deblend_peak_instFlux", "D", "The deblended model at the peak, in the reference band", "nJy"),
    ("deblend_scarletFlux", "F", "Sum of the model in the reference band", "nJy"),
    ("deblend_edgePixels", "Flag", "The model's stamp reaches beyond the image", ""),
    ("deblend_dataCoverage", "F", "Fraction of good pixels of the stamp, in the best band", ""),
    ("deblend_zeroFlux", "Flag", "The model has no flux in the reference band", ""),
    (
        "deblend_maxOverlap",
        "F",
        "Largest pixel of the neighbours' models within this one's footprint (backgroundThresh), "
        "reference band",
        "nJy",
    ),
    (
        "deblend_fluxOverlap",
        "F",
        "Neighbours' flux within this model's footprint (backgroundThresh), reference band",
        "nJy",
    ),
    ("deblend_fluxOverlapFraction", "F", "deblend_fluxOverlap over the flux of this model", ""),
    ("deblend_blendedness", "F", "1 - <C,C>/<C,T>, C the model and T all models, reference band", ""),
    ("deblend_blendId", "L", "Id of the blend that was fitted together: the parent's; 0 if isolated", ""),
    ("deblend_blendNChild", "I", "Number of sources of that blend; 0 if isolated", ""),
    ("deblend_parentNPeaks", "I", "Number of peaks of the parent; 0 if isolated", ""),
    ("deblend_parentNChild", "I", "Number of children of the parent; 0 if isolated", ""),
    ("deblend_nComponents", "I", "Number of components of the model: one network model, or none", ""),
    (
        "deblend_chi2",
        "F",
        "Mean squared residual over the variance, of the good pixels of all bands within the model's "
        "footprint",
        "",
    ),
    (
        "deblend_failed",
        "Flag",
        "This source has no model: its parent was skipped, or it has too few good pixels",
        "",
    ),
    (
        "deblend_incompleteData",
        "Flag",
        "Some band has no data here; its model is a guess from the others",
        "",
    ),
    (
        "deblend_vae_psfMismatch",
        "Flag",
        "The PSF's width or ellipticity is beyond the model's, and homogenising did not mend it",
        "",
    ),
    (
        "deblend_vae_depthMismatch",
        "Flag",
        "The noise is beyond that of the model's training, in some band",
        "",
    ),
    (
        "deblend_vae_homogenised",
        "Flag",
        "Some band's PSF is sharper than the model takes: deblended with a wider one",
        "",
    ),
    ("deblend_vae_resampled", "Flag", "Deblended on pixels of the model's size, not the image's own", ""),
    (
        "deblend_vae_latentSigma",
        "F",
        "Mean standard deviation of the latents: 1 where pixels tell nothing",
        "",
    ),
    (
        "deblend_vae_detectionPass",
        "I",
        "Pass of detection that found the peak: 1, or later on a residual",
        "",
    ),
    ("deblend_vae_iterations", "I", "Steps of refinement after the one pass that improved the source", ""),
    ("deblend_vae_notConverged", "Flag", "Refinement had not come to rest when its steps were spent", ""),
    (
        "deblend_vae_novelty",
        "F",
        "Squared distance of the latents from those of training galaxies, in their covariance, a latent",
        "",
    ),
    (
        "deblend_vae_outOfDistribution",
        "Flag",
        "The novelty is above the limit: no galaxy like those known",
        "",
    ),
    ("deblend_vae_e1Err", "F", "Half the 68 % interval of e1 = (a-b)/(a+b) cos 2 phi, of nSamples draws", ""),
    ("deblend_vae_e2Err", "F", "Half the 68 % interval of e2 = (a-b)/(a+b) sin 2 phi, of nSamples draws", ""),
    ("deblend_vae_magErr", "F", "Half the 68 % interval of the magnitude, of nSamples draws", "mag"),
)

_PARENT_FIELDS = (
    ("deblend_runtime", "F", "Time to deblend, this parent's share", "ms"),
    ("deblend_iterations", "I", "One pass, and the most steps of refinement of a child", ""),
    ("deblend_nChild", "I", "Number of children in the object catalogue", ""),
    ("deblend_nPeaks", "I", "Number of peaks", ""),
    ("deblend_spectrumInitFlag", "Flag", "Not used by this deblender", ""),
    ("deblend_skipped", "Flag", "Not deblended, though a blend or a source to model", ""),
    ("deblend_skipped_isolatedParent", "Flag", "One peak, and not modelled: processSingles is off", ""),
    ("deblend_skipped_isPseudo", "Flag", "No real source", ""),
    ("deblend_skipped_tooManyPeaks", "Flag", "More peaks than maxNumberOfPeaks", ""),
    ("deblend_skipped_parentTooBig", "Flag", "Footprint beyond the limits on area, size or shape", ""),
    ("deblend_skipped_masked", "Flag", "More masked pixels than maskLimits", ""),
    ("deblend_blendConvergenceFailedFlag", "Flag", "Refinement of some child ended before it converged", ""),
    ("deblend_failed", "Flag", "Deblending failed", ""),
    ("deblend_childFailed", "Flag", "Some child has no model", ""),
    ("deblend_incompleteData", "Flag", "Some band has no data", ""),
    ("deblend_nComponents", "I", "Number of components of all children", ""),
    (
        "deblend_chi2",
        "F",
        "Mean squared residual over the variance, of the good pixels of all bands within the footprint",
        "",
    ),
)


class Schemas:
    """The columns of scarlet's slot, added to those of merged detections.

    Parameters
    ----------
    schema : `~.afw.Schema` or afw's own
        Columns of the merged detections; those of objects are added in place.
    peakSchema : `~.afw.Schema` or afw's own, optional
        Columns of their peaks; those beyond the minimum go to objects, and to
        parents too.

    Attributes
    ----------
    objects, parents : `~.afw.Schema` or afw's own
        The grown schema that was given, and that of the parents.
    inputNames, peakNames : `list` [`str`]
        Columns to copy from detections (all but the id) and from peaks.
    """

    def __init__(self, schema, peakSchema=None):
        self.inputNames = sorted(schema.getNames() - {"id"})
        minimal = typesOf(schema).PeakTable.makeMinimalSchema().getNames()
        present = peakSchema.getNames() if peakSchema is not None else ()
        self.peakNames = sorted(name for name in present if name not in minimal)
        for name in self.peakNames:
            if name not in schema.getNames():
                field = peakSchema.find(name).field
                schema.addField(name, type=field.getTypeString(), doc=field.getDoc(), units=field.getUnits())
        self.parents = type(schema)(schema)
        _add(self.parents, _PARENT_FIELDS)
        self.parents.addField(
            "deblend_error", type="String", size=25, doc="Kind of the error, where deblending failed"
        )
        _add(schema, _OBJECT_FIELDS)
        self.objects = schema


def _add(schema, fields):
    present = set(schema.getNames())
    for name, kind, doc, units in fields:
        if name not in present:
            schema.addField(name, type=kind, doc=doc, units=units)


def setParentFields(record, job, found):
    """Fill the columns of one parent.

    Parameters
    ----------
    record : `~.afw.SourceRecord` or afw's own
        The parent's row.
    job : `~.deblendingParents.ParentJob`
        The parent.
    found : `~.deblendingCatalogs.Deblended`
        What was found.
    """
    n, result = len(job.peaks), found.result
    failed, modelled = bool(job.error), found.tried(job)
    rows = slice(job.first, job.first + n)
    record.set("deblend_nPeaks", n)
    record.set("deblend_nChild", n if modelled and not job.isolated else 0)
    # As scarlet: what failed was skipped; isolated and pseudo-sources lose nothing.
    record.set("deblend_skipped", job.lost or failed)
    for reason in ("isolatedParent", "isPseudo", "tooManyPeaks", "parentTooBig", "masked"):
        record.set(f"deblend_skipped_{reason}", job.skip == reason)
    record.set("deblend_failed", failed)
    record.set("deblend_error", job.error[:25])
    record.set("deblend_incompleteData", bool(found.missing))
    if not modelled:
        return
    # One call deblends all parents: each bears its share of the time.
    record.set("deblend_runtime", 1e3 * found.seconds * n / max(found.nPeaks, 1))
    done = ~result.failed[rows]
    record.set("deblend_childFailed", not done.all())
    record.set("deblend_nComponents", int(done.sum()))
    record.set("deblend_iterations", 1 + int(_refinement(result, "iterations", 0)[rows].max(initial=0)))
    converged = _refinement(result, "converged", True)[rows]
    record.set("deblend_blendConvergenceFailedFlag", not converged[done].all())
    record.set("deblend_chi2", _chi2(found, found.cubes.places(job.record.getFootprint())))


def _refinement(result, name, fill):
    """What refinement tells of each source; ``fill`` in one pass."""
    values = getattr(result, name, None)
    return np.full(len(result.failed), fill) if values is None else values


def _chi2(found, places, within=True):
    """Mean of residual^2 / variance over good pixels of all bands; NaN without any."""
    cubes, index = found.cubes, (slice(None), *places)
    used = found.good[index] & within
    if not used.any():
        return np.nan
    residual = (cubes.images[index] - found.scene[index])[used].astype(np.float64)
    return float(np.mean(residual**2 / cubes.variance[index][used]))


def setObjectFields(record, job, k, found):
    """Fill the columns of one object.

    Parameters
    ----------
    record : `~.afw.SourceRecord` or afw's own
        The object.
    job : `~.deblendingParents.ParentJob`
        Its parent.
    k : `int`
        Number of its peak among the parent's.
    found : `~.deblendingCatalogs.Deblended`
        What was found.
    """
    peak, result, index = job.peaks[k], found.result, job.first + k
    x0, y0 = found.cubes.xy0
    x, y = peak.getIx(), peak.getIy()
    record.set("deblend_peak_center_x", x)
    record.set("deblend_peak_center_y", y)
    record.set("deblend_peakId", int(peak.get("id")))
    record.set("deblend_nChild", 0)
    members = 0 if job.isolated else len(job.peaks)
    record.set("deblend_blendId", 0 if job.isolated else job.record.getId())
    for name in ("blendNChild", "parentNPeaks", "parentNChild"):
        record.set(f"deblend_{name}", members)
    record.set("deblend_vae_detectionPass", job.passes[k])
    place = found.place(peak)
    record.set("deblend_vae_psfMismatch", found.psfs.mismatch(place))
    record.set("deblend_vae_homogenised", found.matched.homogenised(*place))
    record.set("deblend_vae_resampled", found.matched.resampled)
    tried = found.tried(job)
    done = bool(tried and not result.failed[index])
    record.set("deblend_failed", not done)
    record.set("deblend_incompleteData", bool(tried and result.missing_bands[index].any()))
    record.set("deblend_dataCoverage", float(result.coverage[index]) if tried else 0.0)
    if not done:
        return
    record.set("deblend_edgePixels", bool(result.edge[index]))
    record.set("deblend_nComponents", 1)
    record.set("deblend_vae_depthMismatch", bool(found.depthMismatch[index]))
    record.set("deblend_vae_latentSigma", float(result.latent_sigma[index].mean()))
    record.set("deblend_vae_iterations", int(_refinement(result, "iterations", 0)[index]))
    record.set("deblend_vae_notConverged", not _refinement(result, "converged", True)[index])
    record.set("deblend_vae_novelty", float(result.novelty[index]))
    record.set("deblend_vae_outOfDistribution", bool(result.novelty[index] > found.noveltyLimit))
    if result.draws is not None:
        _setErrors(record, found, result.draws[index], place)
    model, flux = result.models[index], float(result.fluxes[index, found.reference])
    record.set("deblend_scarletFlux", flux)
    record.set("deblend_zeroFlux", not flux > 0)
    row, column = np.array([y - y0, x - x0]) - result.origins[index]
    if 0 <= row < model.shape[1] and 0 <= column < model.shape[2]:
        record.set("deblend_peak_instFlux", float(model[found.reference, row, column]))
    _measureOverlaps(record, found, model, result.origins[index])


def _setErrors(record, found, draws, centre):
    """What draws from the posterior tell of the reference band."""
    band = found.bands[found.reference]
    e = draws.ellipticities(band, found.psfs.reference(centre, found.reference))
    for name, values in (("e1", e[:, 0]), ("e2", e[:, 1]), ("mag", draws.magnitudes()[:, found.reference])):
        # Of fewer, no interval can be told.
        if np.isfinite(values).sum() >= 10:
            record.set(f"deblend_vae_{name}Err", half_width(values))


def _measureOverlaps(record, found, model, origin):
    inCube, inStamp = overlap(origin, model.shape[1:], found.scene.shape[1:])
    own = model[:, *inStamp]
    # Every fourth pixel tells the noise as well.
    good, variance = (cube[:, *inCube][:, ::4, ::4] for cube in (found.good, found.cubes.variance))
    sigma = [np.sqrt(np.median(v[g])) if g.any() else np.nan for v, g in zip(variance, good, strict=True)]
    footprint = model_footprint(own, sigma, found.backgroundThresh)
    one = slice(found.reference, found.reference + 1)
    setOverlaps(record, measure_overlaps(own[one], found.scene[one, *inCube], footprint))
    record.set("deblend_chi2", _chi2(found, inCube, footprint))


def setOverlaps(record, overlaps):
    """Fill the columns of an object's overlap with its neighbours.

    Parameters
    ----------
    record : `~.afw.SourceRecord` or afw's own
        The object.
    overlaps : `~.deblending.overlaps.Overlaps`
        Of one band.
    """
    for name in ("maxOverlap", "fluxOverlap", "fluxOverlapFraction", "blendedness"):
        record.set(f"deblend_{name}", float(getattr(overlaps, name)[0]))
