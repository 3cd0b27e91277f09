# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""DeblendVaeTask: deblend with a trained network, in scarlet's slot."""

__all__ = ["DeblendVaeConfig", "DeblendVaeTask"]

import time
from typing import Literal

import numpy as np

import lsst.pipe.base as pipeBase
from lsst.pipe.base import connectionTypes as cT
from lsst.utils.timer import timeMethod

from .afw import PeakTable, SourceCatalog, SourceTable
from .config import Config, Field, toPexConfig
from .deblendingSchema import addObjectFields, addParentFields, copyPeakFields, setObjectFields
from .errors import VaeError
from .exposureChecks import ExposurePsfs, checkPixelScale, selectBands
from .vaeTask import SHARD, LoggedProgress, VaeTask, connection


class DeblendVaeConfig(Config):
    """Config of DeblendVaeTask; skip rules have the names of scarlet's."""

    modelPackage: str = Field(
        "lsst10yr-ugrizy",
        description="Name of a shipped model package or path of a *.vae.zip; a pipeline gives "
        "its own by connection.",
    )
    useTrainedModel: bool = Field(
        False, description="Take the campaign's own vae_trainedPackage, not the pretrained vae_modelPackage?"
    )
    jointFluxes: bool = Field(True, description="Solve the fluxes of all overlapping models together?")
    priorWidth: float = Field(
        0.3,
        ge=0,
        description="Relative width of the expectation that fluxes are the network's own, which rules "
        "where a band is too faint to be measured; 0 for none.",
    )
    minCoreCoverage: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Least fraction of good pixels, of the central 8 x 8 in the best band; a peak "
        "in the very corner of an image has a quarter.",
    )
    batchSize: int = Field(256, ge=1, le=65_536, description="Stamps that go through the network together.")
    engine: Literal["auto", "keras", "onnx", "openvino"] = Field(
        "auto",
        description="What runs the network: auto takes openvino or onnx where installed and there is no GPU, "
        "keras otherwise.",
    )
    referenceBand: str = Field("r", description="Band of the single-band columns; the first if it is absent.")
    pixelScaleTolerance: float = Field(
        0.01, gt=0, description="Largest relative difference of the pixel scale."
    )
    psfTolerance: float = Field(
        0.1,
        gt=0,
        description="Relative difference of the PSF's width from the model's beyond which it is flagged.",
    )
    processSingles: bool = Field(True, description="Model parents with one peak too?")
    maxNumberOfPeaks: int = Field(0, ge=0, description="Skip parents with more peaks; 0 for no limit.")
    maxFootprintArea: int = Field(
        1_000_000, ge=0, description="Skip larger footprints [pixels]; 0 for no limit."
    )
    maxFootprintSize: int = Field(
        0, ge=0, description="Skip footprints with a longer side [pixels]; 0 for no limit."
    )
    minFootprintAxisRatio: float = Field(
        0.0, ge=0, le=1, description="Skip footprints whose box has a smaller ratio of sides; 0 for no limit."
    )
    maxAreaTimesPeaks: int = Field(0, ge=0, description="Skip parents with a larger product; 0 for no limit.")
    maskLimits: dict[str, float] = Field(
        default_factory=lambda: {"NO_DATA": 0.25},
        description="Skip footprints with a larger fraction of pixels of these planes in every band.",
    )
    badMask: tuple[str, ...] = Field(
        ("BAD", "NO_DATA", "SAT", "SUSPECT", "EDGE"), description="Planes of pixels that are left out."
    )
    notDeblendedMask: str = Field(
        "NOT_DEBLENDED", description="Plane set on skipped footprints; empty for none."
    )
    pseudoColumns: tuple[str, ...] = Field(
        ("merge_peak_sky", "sky_source"), description="Flags of rows that are no real sources."
    )
    catchFailures: bool = Field(True, description="Flag a failure and go on, or raise it?")
    useCiLimits: bool = Field(False, description="Deblend a few parents only, for continuous integration?")
    ciDeblendChildRange: tuple[int, ...] = Field(
        (5, 10), min_length=2, max_length=2, description="With useCiLimits: numbers of peaks to take."
    )
    ciNumParentsToDeblend: int = Field(10, ge=1, description="With useCiLimits: most parents.")


class DeblendVaeConnections(pipeBase.PipelineTaskConnections, dimensions=SHARD):
    """One multi-band coadd with its merged detections."""

    field = connection(cT.Input, "vae_field", "Multi-band coadd.")
    mergedDetections = connection(cT.Input, "vae_mergedDetections", "Footprints and peaks.")
    modelPackage = connection(cT.PrerequisiteInput, "vae_modelPackage", "Pretrained network.")
    trainedPackage = connection(cT.Input, "vae_trainedPackage", "Network trained in this campaign.")
    deblendedCatalog = connection(
        cT.Output, "vae_deblendedCatalog", "Objects: isolated parents and children."
    )
    scarletModelData = connection(cT.Output, "vae_modelData", "Model of every object in every band.")
    objectParents = connection(cT.Output, "vae_objectParents", "Parents of the children.")

    def __init__(self, *, config=None):
        super().__init__(config=config)
        if config.useTrainedModel:
            del self.modelPackage
        else:
            del self.trainedPackage


class DeblendVaeTask(VaeTask):
    """Give every detected peak its own model in all bands, with a trained network.

    It takes the place of ``ScarletDeblendTask``: retarget
    ``DeblendCoaddSourcesMultiTask.multibandDeblend`` or
    ``MultiBandMeasurementDriverTask.deblend`` to it, or run it by itself.

    Parameters
    ----------
    schema : `~.afw.Schema`, optional
        Schema of the merged detections; our fields are added to it in place.
    peakSchema : `~.afw.Schema`, optional
        Schema of their peaks; its fields beyond the minimum are added too.
    **kwargs
        As `lsst.pipe.base.PipelineTask`.
    """

    ConfigModel = DeblendVaeConfig
    ConfigClass = toPexConfig(
        DeblendVaeConfig, bases=(pipeBase.PipelineTaskConfig,), pipelineConnections=DeblendVaeConnections
    )
    _DefaultName = "deblendVae"

    def __init__(self, schema=None, peakSchema=None, **kwargs):
        super().__init__(**kwargs)
        self._network = self._packageSha = None
        self.schema = None
        if schema is not None:
            self._prepareSchemas(schema, peakSchema)

    def _prepareSchemas(self, schema, peakSchema):
        self.inputSchema = type(schema)(schema)
        self.parentSchema = type(schema)(schema)
        addParentFields(self.parentSchema)
        minimal = set(PeakTable.makeMinimalSchema().getNames())
        self.peakNames = [
            name for name in (peakSchema.getNames() if peakSchema is not None else ()) if name not in minimal
        ]
        copyPeakFields(schema, peakSchema, self.peakNames)
        addObjectFields(schema)
        self.schema = schema

    # -- the network ---------------------------------------------------------

    def setModelPackage(self, package):
        """Use this package from now on.

        Parameters
        ----------
        package : `~.network.package.ModelPackage`
            Needs a deblender encoder and a decoder.
        """
        from .network.model import Network

        if package.sha256 != self._packageSha:
            self._network, self._packageSha = (
                Network(package, engine=self.settings.engine),
                package.sha256,
            )
            self.log.info("Network %s runs on %s", package.name, self._network.engine.name)

    @property
    def network(self):
        """The network; the config's package unless one was set."""
        if self._network is None:
            from .network.shipped import load_package

            self.setModelPackage(load_package(self.settings.modelPackage))
        return self._network

    # -- running -------------------------------------------------------------

    def runQuantum(self, butlerQC, inputRefs, outputRefs):
        inputs = butlerQC.get(inputRefs)
        self.setModelPackage(inputs.get("modelPackage") or inputs.get("trainedPackage"))
        merged = inputs["mergedDetections"]
        self._prepareSchemas(merged.schema.copy(), _peakSchema(merged))
        butlerQC.put(self.run(inputs["field"], None, merged), outputRefs)

    @timeMethod
    def run(self, mExposure, mDeconvolved, mergedSources):
        """Deblend all the parents of a coadd.

        Parameters
        ----------
        mExposure : `~.afw.MultibandExposure` or afw's own
            Pixels, masks, variances and PSFs.
        mDeconvolved : any
            Deconvolved coadd of scarlet's callers; not used.
        mergedSources : `~.afw.SourceCatalog` or afw's own
            Parents with footprints and peaks.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``deblendedCatalog``: isolated parents (same id, parent 0), then
            children, ordered by parent; ``scarletModelData``: a
            `~.repo.VaeModelData`; ``objectParents``: the parents that have
            more than one peak, or were skipped.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            Raised if there is no source at all.
        ImageError
            Raised if a band or the pixel scale does not suit the model.
        """
        return self.deblend(mExposure, mDeconvolved, None, mergedSources)

    def deblend(self, mExposure, mDeconvolved, objectCatalog, parentCatalog):
        """Deblend; as `run`, with scarlet's split of the catalogues.

        Parameters
        ----------
        mExposure, mDeconvolved
            As `run`.
        objectCatalog : `~.afw.SourceCatalog` or `None`
            Catalogue to add objects to; a new one if `None`.
        parentCatalog : `~.afw.SourceCatalog`
            Parents.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            As `run`.
        """
        if len(parentCatalog) == 0:
            raise pipeBase.NoWorkFound("no detected sources: nothing to deblend")
        if self.schema is None:
            self._prepareSchemas(parentCatalog.schema.copy(), _peakSchema(parentCatalog))
        cubes, self._missing = selectBands(mExposure, self.network, self.log)
        checkPixelScale(mExposure, self.network, self.settings.pixelScaleTolerance, self.log)
        jobs = self._plan(mExposure, cubes, parentCatalog)
        peaks = [(job, peak) for job in jobs if not job.skip for peak in job.peaks]
        x0, y0 = cubes.xy0
        centres = np.array([(peak.getFy() - y0, peak.getFx() - x0) for _, peak in peaks]).reshape(-1, 2)
        self.log.info(
            "Deblending %d peaks of %d parents; %d parents are skipped",
            len(peaks),
            sum(not job.skip for job in jobs),
            sum(job.skip is not None for job in jobs),
        )
        started = time.perf_counter()
        psfs = ExposurePsfs(cubes, self.network, self.settings.psfTolerance, self.log)
        result, failure = self._deblendPeaks(cubes, centres, psfs)
        psfs.warn()
        seconds = time.perf_counter() - started
        self.metadata["nSources"] = len(peaks)
        self.metadata["deblendSeconds"] = seconds
        struct = self._collect(
            cubes, jobs, peaks, psfs, result, failure, seconds, objectCatalog, parentCatalog
        )
        if peaks:
            self.log.info(
                "Deblended %d sources in %.2f s (%.0f a second)",
                len(peaks),
                seconds,
                len(peaks) / max(seconds, 1e-9),
            )
        return struct

    def _deblendPeaks(self, cubes, centres, psfs):
        from .deblending import DeblendSettings, deblend_blend

        settings = self.settings
        try:
            return deblend_blend(
                cubes.images,
                cubes.variance,
                centres,
                self.network,
                bad=self._bad(cubes),
                psfs=psfs if psfs.vary else None,
                settings=DeblendSettings(
                    joint_fluxes=settings.jointFluxes,
                    prior_width=settings.priorWidth,
                    min_core_coverage=settings.minCoreCoverage,
                    batch_size=settings.batchSize,
                ),
                progress=LoggedProgress(self.log, "sources deblended"),
            ), ""
        except Exception as error:
            if not settings.catchFailures or isinstance(error, VaeError):
                raise
            self.log.error("Deblending failed: %s", error)
            return None, type(error).__name__

    def _bad(self, cubes):
        """Pixels to leave out, ``[band, y, x]``."""
        return (cubes.maskbits & cubes.bitMask(self.settings.badMask)) != 0

    # -- parents -----------------------------------------------------------------

    def _plan(self, mExposure, cubes, parents):
        """Decide which parents are deblended, and mark those that are not."""
        jobs = [_Job(record) for record in parents]
        settings = self.settings
        pseudo = [name for name in settings.pseudoColumns if name in parents.schema.getNames()]
        nCi = 0
        for job in jobs:
            job.pseudo = any(job.record.get(name) for name in pseudo)
            job.isolated = job.pseudo or len(job.peaks) == 1
            job.skip = self._skipReason(job, cubes)
            if job.skip is None and settings.useCiLimits and not job.isolated:
                low, high = settings.ciDeblendChildRange
                if not low <= len(job.peaks) <= high or nCi >= settings.ciNumParentsToDeblend:
                    job.skip = "ciLimits"
                nCi += job.skip is None
            if job.skip not in (None, "isPseudo", "isolatedParent"):
                self._markSkipped(mExposure, job)
        return jobs

    def _skipReason(self, job, cubes):
        settings, footprint = self.settings, job.record.getFootprint()
        if job.pseudo:
            return "isPseudo"
        if not job.peaks:
            return "noPeaks"
        if len(job.peaks) == 1 and not settings.processSingles:
            return "isolatedParent"
        n, area, box = len(job.peaks), footprint.getArea(), footprint.getBBox()
        sides = sorted((box.getWidth(), box.getHeight()))
        if settings.maxNumberOfPeaks and n > settings.maxNumberOfPeaks:
            return "tooManyPeaks"
        if (
            (settings.maxFootprintArea and area > settings.maxFootprintArea)
            or (settings.maxFootprintSize and sides[1] > settings.maxFootprintSize)
            or (settings.maxAreaTimesPeaks and area * n > settings.maxAreaTimesPeaks)
            or sides[0] < settings.minFootprintAxisRatio * sides[1]
        ):
            return "parentTooBig"
        y, x = footprint.spans.indices()
        x0, y0 = cubes.xy0
        ny, nx = cubes.images.shape[1:]
        inside = (y >= y0) & (y < y0 + ny) & (x >= x0) & (x < x0 + nx)
        bits = cubes.maskbits[:, y[inside] - y0, x[inside] - x0]
        for plane, limit in settings.maskLimits.items():
            bit = cubes.bitMask([plane])
            if bit and bits.size and ((bits & bit) != 0).mean(axis=1).min() > limit:
                return "masked"
        return None

    def _markSkipped(self, mExposure, job):
        plane = self.settings.notDeblendedMask
        if not plane:
            return
        mask = mExposure.mask
        if job.record.getFootprint() is None:
            return
        if plane not in mask.getMaskPlaneDict():
            mask.addMaskPlane(plane)
        spans = job.record.getFootprint().spans.clippedTo(mExposure.getBBox())
        for band in mExposure.bands:
            spans.setMask(mask[band], mask.getPlaneBitMask(plane))

    # -- outputs -------------------------------------------------------------------

    def _collect(self, cubes, jobs, peaks, psfs, result, failure, seconds, objects, parents):
        from .deblending.stamps import check_cube
        from .repo.modelData import VaeModelData

        package = self.network.package
        reference = (
            package.bands.index(self.settings.referenceBand)
            if (self.settings.referenceBand in package.bands)
            else 0
        )
        modelData = VaeModelData(
            bands=package.bands,
            modelPackage=package.name,
            modelPackageSha256=self._packageSha,
            latentSize=self.network.latent_dim,
            metadata={"model": "vae", "referenceBand": package.bands[reference]},
        )
        idFactory = parents.getIdFactory()
        for job in jobs:
            idFactory.notify(job.record.getId())
        if objects is None:
            objects = SourceCatalog(SourceTable.make(self.schema, idFactory))
        parentTable = SourceCatalog(SourceTable.make(self.parentSchema))
        scene = result.scene(cubes.images.shape) if result is not None else None
        good = check_cube(cubes.images, cubes.variance, self._bad(cubes))[2]
        place = 0
        rows = []
        for job in jobs:
            job.first = place
            place += 0 if job.skip else len(job.peaks)
            if not job.isolated or job.skip not in (None, "isPseudo", "isolatedParent"):
                self._addParent(parentTable, job, result, failure, seconds, len(peaks))
            if job.isolated or not job.skip:
                rows += [(0 if job.isolated else job.record.getId(), job, k) for k in range(len(job.peaks))]
        for parentId, job, k in sorted(rows, key=lambda row: row[0]):
            record = objects.addNew()
            for name in self.inputSchema.getNames():
                if name != "id":
                    record.set(name, job.record.get(name))
            if job.isolated:
                record.setId(job.record.getId())
            record.setParent(parentId)
            peak = job.peaks[k]
            for name in self.peakNames:
                record.set(name, peak.get(name))
            record.setFootprint(_childFootprint(job.record.getFootprint(), peak, self.peakNames))
            setObjectFields(
                record,
                job,
                peak,
                k,
                cubes,
                result,
                scene,
                reference,
                psfs,
                good,
            )
            if result is not None and not job.skip and not result.failed[job.first + k]:
                self._addModel(modelData, cubes, record, job.first + k, result)
        return pipeBase.Struct(
            deblendedCatalog=objects, scarletModelData=modelData, objectParents=parentTable
        )

    def _addModel(self, modelData, cubes, record, k, result):
        x0, y0 = cubes.xy0
        origin = (int(result.origins[k][0]) + y0, int(result.origins[k][1]) + x0)
        modelData.add(
            record.getId(),
            record.getParent(),
            result.models[k],
            origin,
            result.latent_mean[k],
            result.latent_sigma[k],
            result.flux_errors[k],
        )

    def _addParent(self, table, job, result, failure, seconds, nPeaks):
        record = table.addNew()
        for name in self.inputSchema.getNames():
            record.set(name, job.record.get(name))
        record.setFootprint(job.record.getFootprint())
        n = len(job.peaks)
        record.set("deblend_nPeaks", n)
        record.set("deblend_nChild", 0 if job.skip else n)
        record.set("deblend_skipped", job.skip is not None)
        for reason in ("isolatedParent", "isPseudo", "tooManyPeaks", "parentTooBig", "masked"):
            record.set(f"deblend_skipped_{reason}", job.skip == reason)
        record.set("deblend_incompleteData", bool(self._missing))
        if job.skip:
            return
        # One call deblends all parents: each bears its share of the time.
        record.set("deblend_runtime", 1e3 * seconds * n / max(nPeaks, 1))
        record.set("deblend_iterations", 1)
        record.set("deblend_nComponents", n)
        record.set("deblend_failed", bool(failure))
        record.set("deblend_error", failure[:25])
        if result is not None:
            record.set("deblend_childFailed", bool(result.failed[job.first : job.first + n].any()))


class _Job:
    """One parent on its way through `DeblendVaeTask.deblend`."""

    def __init__(self, record):
        self.record, footprint = record, record.getFootprint()
        # A parent whose footprint was lost has nothing to deblend, and says so.
        self.peaks = [] if footprint is None else list(footprint.peaks)
        self.pseudo = self.isolated = False
        self.skip = None
        self.first = 0


def _childFootprint(parent, peak, peakNames):
    """A footprint with the parent's spans and the child's own peak."""
    child = type(parent)(parent.spans, parent.peaks.schema)
    new = child.addPeak(peak.getFx(), peak.getFy(), peak.getPeakValue())
    for name in ("id", "i_x", "i_y", *peakNames):
        new.set(name, peak.get(name))
    return child


def _peakSchema(catalog):
    for record in catalog:
        footprint = record.getFootprint()
        if footprint is not None:
            return footprint.peaks.schema
    return None
