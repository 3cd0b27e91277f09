# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The columns that scarlet's slot writes, and ours beside them."""

__all__ = ["addObjectFields", "addParentFields", "copyPeakFields", "setObjectFields"]

import numpy as np

from .simulation.geometry import overlap

_OBJECT_FIELDS = (
    ("deblend_peak_center_x", "I", "Centre of the detected peak, x (whole pixel)", "pixel"),
    ("deblend_peak_center_y", "I", "Centre of the detected peak, y (whole pixel)", "pixel"),
    ("deblend_nChild", "I", "Number of children of this object (0: objects have none)", ""),
    ("deblend_peakId", "I", "Id of the peak, unique within its footprint", ""),
    ("deblend_peak_instFlux", "D", "Image at the peak in the reference band", "nJy"),
    ("deblend_scarletFlux", "D", "Sum of the model in the reference band", "nJy"),
    ("deblend_edgePixels", "Flag", "The model's stamp reaches beyond the image", ""),
    ("deblend_dataCoverage", "F", "Fraction of good pixels of the stamp, in the best band", ""),
    ("deblend_zeroFlux", "Flag", "The model has no flux in the reference band", ""),
    (
        "deblend_maxOverlap",
        "D",
        "Largest pixel of the neighbours' models under this one, reference band",
        "nJy",
    ),
    (
        "deblend_fluxOverlap",
        "D",
        "Neighbours' flux within this model's bright pixels (over 1 % of its peak), reference band",
        "nJy",
    ),
    ("deblend_fluxOverlapFraction", "D", "deblend_fluxOverlap over the flux of this model", ""),
    ("deblend_blendedness", "D", "1 - <C,C>/<C,T>, C the model and T all models, reference band", ""),
    ("deblend_blendId", "L", "Id of the blend that was fitted together: the parent's", ""),
    ("deblend_blendNChild", "I", "Number of sources of that blend", ""),
    ("deblend_parentNPeaks", "I", "Number of peaks of the parent", ""),
    ("deblend_parentNChild", "I", "Number of children of the parent", ""),
    ("deblend_nComponents", "I", "Number of components of the model (one network model)", ""),
    (
        "deblend_chi2",
        "F",
        "Mean squared residual over the variance, all bands, where the model is bright",
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
    ("deblend_vae_psfMismatch", "Flag", "The PSF's width differs from the model's beyond the tolerance", ""),
    (
        "deblend_vae_latentSigma",
        "F",
        "Mean standard deviation of the latents: 1 where pixels tell nothing",
        "",
    ),
)

_PARENT_FIELDS = (
    ("deblend_runtime", "F", "Time to deblend, this parent's share", "ms"),
    ("deblend_iterations", "I", "Iterations (one pass)", ""),
    ("deblend_nChild", "I", "Number of children", ""),
    ("deblend_nPeaks", "I", "Number of peaks", ""),
    ("deblend_spectrumInitFlag", "Flag", "Not used by this deblender", ""),
    ("deblend_skipped", "Flag", "Not deblended", ""),
    ("deblend_skipped_isolatedParent", "Flag", "One peak, and processSingles is off", ""),
    ("deblend_skipped_isPseudo", "Flag", "No real source", ""),
    ("deblend_skipped_tooManyPeaks", "Flag", "More peaks than maxNumberOfPeaks", ""),
    ("deblend_skipped_parentTooBig", "Flag", "Footprint beyond the limits on area, size or shape", ""),
    ("deblend_skipped_masked", "Flag", "More masked pixels than maskLimits", ""),
    ("deblend_blendConvergenceFailedFlag", "Flag", "Not converged (one pass always is)", ""),
    ("deblend_failed", "Flag", "Deblending failed", ""),
    ("deblend_childFailed", "Flag", "Some child has no model", ""),
    ("deblend_incompleteData", "Flag", "Some band has no data", ""),
    ("deblend_nComponents", "I", "Number of components of all children", ""),
    ("deblend_chi2", "F", "Not filled: see the children", ""),
)


def addObjectFields(schema):
    """Add the object columns to a schema, in place (ours or afw's)."""
    _add(schema, _OBJECT_FIELDS)


def addParentFields(schema):
    """Add the parent columns to a schema, in place (ours or afw's)."""
    _add(schema, _PARENT_FIELDS)
    schema.addField("deblend_error", type="String", size=25, doc="Kind of the error, where deblending failed")


def copyPeakFields(schema, peakSchema, names):
    """Add the named peak fields to an object schema, where it lacks them."""
    present = set(schema.getNames())
    for name in names:
        if name not in present:
            field = peakSchema.find(name).field
            schema.addField(name, type=field.getTypeString(), doc=field.getDoc(), units=field.getUnits())


def _add(schema, fields):
    present = set(schema.getNames())
    for name, kind, doc, units in fields:
        if name not in present:
            schema.addField(name, type=kind, doc=doc, units=units)


def setObjectFields(record, job, peak, k, cubes, result, scene, reference, psfs, good):
    """Fill the columns of one object.

    Parameters
    ----------
    record : `~.afw.SourceRecord`
        The object.
    job : object
        Its parent, as `DeblendVaeTask` plans it (``peaks``, ``skip``,
        ``first``).
    peak : `~.afw.PeakRecord`
        Its peak.
    k : `int`
        Its number among the parent's peaks.
    cubes : `~.afw.adapters.Cubes`
        Pixels.
    result : `~.deblending.DeblendResult` or `None`
        Models.
    scene : `numpy.ndarray` or `None`
        Sum of all models.
    reference : `int`
        Number of the reference band.
    psfs : `~.exposureChecks.ExposurePsfs`
        Tells where the PSF does not suit the network.
    good : `numpy.ndarray` of `bool`, ``[band, y, x]``
        Pixels that can be used.
    """
    x0, y0 = cubes.xy0
    n = len(job.peaks)
    x, y = peak.getIx(), peak.getIy()
    record.set("deblend_peak_center_x", x)
    record.set("deblend_peak_center_y", y)
    record.set("deblend_peakId", int(peak.get("id")))
    record.set("deblend_nChild", 0)
    record.set("deblend_parentNPeaks", n)
    record.set("deblend_parentNChild", 0 if job.skip or n == 1 else n)
    record.set("deblend_blendId", job.record.getId())
    record.set("deblend_blendNChild", 0 if job.skip else n)
    record.set("deblend_vae_psfMismatch", psfs.mismatch((peak.getFy() - y0, peak.getFx() - x0)))
    ny, nx = cubes.images.shape[1:]
    if 0 <= y - y0 < ny and 0 <= x - x0 < nx and good[reference, y - y0, x - x0]:
        record.set("deblend_peak_instFlux", float(cubes.images[reference, y - y0, x - x0]))
    index = job.first + k
    tried = result is not None and not job.skip
    done = tried and not result.failed[index]
    record.set("deblend_failed", not done)
    record.set("deblend_incompleteData", bool(tried and result.missing_bands[index].any()))
    record.set("deblend_dataCoverage", float(result.coverage[index]) if tried else 0.0)
    if not done:
        return
    record.set("deblend_edgePixels", bool(result.edge[index]))
    record.set("deblend_nComponents", 1)
    record.set("deblend_vae_latentSigma", float(result.latent_sigma[index].mean()))
    flux = float(result.fluxes[index, reference])
    record.set("deblend_scarletFlux", flux)
    record.set("deblend_zeroFlux", not flux > 0)
    _setOverlaps(record, cubes, result, scene, reference, index, flux, good)


def _setOverlaps(record, cubes, result, scene, reference, index, flux, good):
    model = result.models[index]
    inCube, inStamp = overlap(result.origins[index], model.shape[-1], scene.shape[1:])
    own = model[(reference, *inStamp)].astype(np.float64)
    total = scene[(reference, *inCube)].astype(np.float64)
    others = np.maximum(total - own, 0.0)
    bright = own > 0.01 * own.max(initial=0.0)
    if not bright.any():
        return
    record.set("deblend_maxOverlap", float(others[bright].max()))
    record.set("deblend_fluxOverlap", float(others[bright].sum()))
    if flux > 0:
        record.set("deblend_fluxOverlapFraction", float(others[bright].sum() / flux))
    product = float(np.sum(own * total))
    if product > 0:
        record.set("deblend_blendedness", 1.0 - float(np.sum(own * own)) / product)
    used = good[:, *inCube] & bright
    residual = (cubes.images[:, *inCube] - scene[:, *inCube])[used]
    if residual.size:
        chi2 = residual**2 / cubes.variance[:, *inCube][used]
        record.set("deblend_chi2", float(np.mean(chi2, dtype=np.float64)))
