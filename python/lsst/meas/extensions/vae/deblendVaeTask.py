# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""DeblendVaeTask: deblend with a trained network, in scarlet's slot."""

__all__ = ["DeblendVaeConfig", "DeblendVaeTask"]

import time
from typing import Literal

import lsst.pipe.base as pipeBase
from lsst.pipe.base import connectionTypes as cT
from lsst.utils.timer import timeMethod

from .afw.adapters import fromCellCoadds
from .config import Config, Field, toPexConfig
from .deblending.blend import DeblendSettings, deblend_blend
from .deblending.iterate import IterationSettings
from .deblending.matching import match_images
from .deblending.stamps import check_cube
from .deblendingCatalogs import Deblended, collect
from .deblendingParents import deblendCatching, numberPeaks, peakPlaces, planParents
from .deblendingPasses import addHiddenPeaks
from .deblendingSchema import Schemas
from .exposureChecks import ExposurePsfs, depthMismatch, pixelRatio, psfsAt, selectBands
from .heavyFootprints import updateCatalogFootprints
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
    refine: bool = Field(
        True,
        description="Maximise the joint posterior of latents, centres and fluxes of all sources, from the "
        "network's answer on?  Shapes and fluxes are better by far, at ten times the time.",
    )
    maxRefineSteps: int = Field(4, ge=1, le=100, description="How often refinement visits a source at most.")
    latentWeight: float = Field(
        0.3,
        gt=0,
        description="Weight that refinement gives to what galaxies usually look like: at 1 it is the most "
        "probable one, and shapes of faint ones are biased towards round.",
    )
    modelError: float = Field(
        0.02, ge=0, le=1, description="Relative error that refinement expects of the models' pixels."
    )
    fluxTie: float = Field(
        0.05,
        ge=0,
        description="Relative width within which refinement holds fluxes to those of the one pass, lest it "
        "take the light of neighbours that were not detected; 0 for none.",
    )
    maxPasses: int = Field(
        1,
        ge=1,
        le=20,
        description="Passes of detection at most. From the second on, peaks that stand out of what all "
        "models leave are added to the parents whose footprints they lie in, up to maxNumberOfPeaks, with "
        "deblend_vae_detectionPass; 1 takes the peaks as they are.",
    )
    passThreshold: float = Field(
        5.0, gt=0, le=30, description="Detection threshold of those passes [Gaussian sigma]."
    )
    nSamples: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Draws from the posterior of each source, which give the errors of its shape and "
        "magnitude in referenceBand (half a millisecond each); 0 for none.",
    )
    noveltyLimit: float = Field(
        4.0,
        gt=0,
        description="deblend_vae_novelty above which a source is flagged as unlike the network's training "
        "sample.",
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
        0.01,
        gt=0,
        description="Relative difference of the pixel scale from the model's beyond which pixels are "
        "resampled, and models brought back.",
    )
    maxPixelScaleRatio: float = Field(
        2.0,
        ge=1,
        le=4,
        description="How much larger or smaller than the model's the pixels may be; an exposure beyond is "
        "refused. 1 to refuse all others.",
    )
    psfTolerance: float = Field(
        0.1,
        gt=0,
        description="Relative difference of the PSF's width, or of an axis by its ellipticity, beyond what "
        "the model takes, from which on it is homogenised or flagged.",
    )
    homogenisePsf: bool = Field(
        True,
        description="Widen a PSF that is sharper than the model takes, to the sharpest that it does take?  "
        "Models are sharpened again.  One that is too wide is flagged.",
    )
    depthTolerance: float = Field(
        0.25,
        ge=0,
        description="Relative difference of the noise, beyond that of the model's training, from which on "
        "objects are flagged.",
    )
    backgroundThresh: float = Field(
        1.0,
        ge=0,
        description="A model's footprint, in which overlaps are measured, ends where it is below this "
        "many sigma of the noise in all bands; 0 for no end.",
    )
    doConserveFlux: bool = Field(
        False,
        description="Give objects heavy footprints of the image's own pixels in referenceBand, shared in "
        "proportion to the models, so that they sum to the image?  (For other bands: "
        "updateCatalogFootprints.)",
    )
    exportScarletModels: bool | None = Field(
        None,
        description="Give the models as scarlet's LsstScarletModelData, in a holder's slot?  None: where "
        "lsst.meas.extensions.scarlet can be imported.",
    )
    processSingles: bool = Field(True, description="Model parents with one peak too?")
    maxNumberOfPeaks: int = Field(0, description="Skip parents with more peaks; 0 or less for no limit.")
    maxFootprintArea: int = Field(
        1_000_000, description="Skip footprints with a larger box [pixels]; 0 or less for no limit."
    )
    maxFootprintSize: int = Field(
        0, description="Skip footprints whose box has a longer side [pixels]; 0 or less for no limit."
    )
    minFootprintAxisRatio: float = Field(
        0.0,
        le=1,
        description="Skip footprints whose second moments have a smaller ratio of axes; 0 or less for "
        "no limit.",
    )
    maxAreaTimesPeaks: int = Field(
        0,
        description="Skip parents with a larger product of box [pixels] and peaks; 0 or less for no limit.",
    )
    maskLimits: dict[str, float] = Field(
        default_factory=lambda: {"NO_DATA": 0.25},
        description="Skip footprints with a larger fraction of pixels of these planes in every band.",
    )
    badMask: tuple[str, ...] = Field(
        ("BAD", "NO_DATA", "SAT", "SUSPECT", "EDGE"), description="Planes of pixels that are left out."
    )
    notDeblendedMask: str | None = Field(
        "NOT_DEBLENDED", description="Plane set on skipped footprints; None for none."
    )
    pseudoColumns: tuple[str, ...] = Field(
        ("merge_peak_sky", "sky_source"), description="Flags of rows that are no real sources."
    )
    catchFailures: bool = Field(True, description="Flag the parents that fail and go on, or raise?")
    useCiLimits: bool = Field(
        False, description="Keep only isolated parents and a few others, for continuous integration?"
    )
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
        self._network = self._packageSha = self._schemas = None
        # In a pipeline of its own the output is our storage class.
        self._inSlot = True
        if schema is not None:
            self._schemas = Schemas(schema, peakSchema)

    @property
    def schema(self):
        """Columns of the objects; `None` before they are known."""
        return self._schemas and self._schemas.objects

    @property
    def parentSchema(self):
        """Columns of the parents; `None` before they are known."""
        return self._schemas and self._schemas.parents

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
        self._schemas, self._inSlot = Schemas(merged.schema.copy(), _peakSchema(merged)), False
        butlerQC.put(self.run(inputs["field"], None, merged), outputRefs)

    @timeMethod
    def run(self, mExposure, mDeconvolved, mergedSources):
        """Deblend all the parents of a coadd.

        Parameters
        ----------
        mExposure : `~.afw.MultibandExposure`, afw's own, or `dict`
            Pixels, masks, variances and PSFs; a `dict` has a coadd of
            ``lsst.images`` for each band. ``notDeblendedMask`` is set in an
            exposure, not in coadds.
        mDeconvolved : any
            Deconvolved coadd of scarlet's callers; not used.
        mergedSources : `~.afw.SourceCatalog` or afw's own
            Parents with footprints and peaks.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``deblendedCatalog``: isolated parents (same id, parent 0), then
            children, ordered by parent; parents that were skipped or failed
            have none. ``scarletModelData``: a `~.repo.VaeModelData`, or
            scarlet's own (``exportScarletModels``). ``objectParents``: all
            the parents, with what became of them.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            Raised if there is no source at all.
        ImageError
            Raised if a band does not suit the model, or the pixel scale is too far off to be resampled.
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
        if isinstance(mExposure, dict):
            mExposure = fromCellCoadds(mExposure)
        if self._schemas is None:
            schema = parentCatalog.schema
            self._schemas = Schemas(type(schema)(schema), _peakSchema(parentCatalog))
        cubes, missing = selectBands(mExposure, self.network, self.log)
        good = check_cube(cubes.images, cubes.variance, self._bad(cubes))[2]
        matched = self._matched(mExposure, cubes, good)
        present = [k for k, band in enumerate(cubes.bands) if band not in missing]
        jobs = planParents(parentCatalog, cubes, self.settings, present, self.log)
        todo = [job for job in jobs if not job.skip]
        started = time.perf_counter()
        psfs = ExposurePsfs(cubes, self.network, self.settings.psfTolerance, self.log, matched)
        if self.settings.maxPasses > 1 and todo:
            addHiddenPeaks(
                jobs,
                cubes,
                matched,
                psfs if psfs.vary else None,
                self.network,
                IterationSettings(threshold=self.settings.passThreshold),
                self.settings.maxPasses,
                self.settings.maxNumberOfPeaks,
                lambda: self._deblendPeaks(matched, todo, peakPlaces(todo, cubes), psfs, quick=True),
                self.log,
            )
        centres = peakPlaces(todo, cubes)
        self.log.info(
            "Deblending %d peaks of %d parents; %d parents are skipped",
            len(centres),
            len(todo),
            sum(job.lost for job in jobs),
        )
        result = self._deblendPeaks(matched, todo, centres, psfs)
        off = None
        if result is not None:
            off = depthMismatch(result.noise, self.network, self.settings.depthTolerance)
        result = matched.restored(result, centres)
        psfs.warn()
        seconds = time.perf_counter() - started
        self.metadata["nSources"] = len(centres)
        self.metadata["deblendSeconds"] = seconds
        self._markSkipped(mExposure, jobs)
        bands = self.network.package.bands
        reference = self.settings.referenceBand if self.settings.referenceBand in bands else bands[0]
        modelData = self._modelData(cubes, reference)
        found = Deblended(
            cubes=cubes,
            good=good,
            matched=matched,
            result=result,
            depthMismatch=off,
            scene=None if result is None else result.scene(cubes.images.shape),
            bands=bands,
            reference=bands.index(reference),
            psfs=psfs,
            missing=missing,
            seconds=seconds,
            nPeaks=len(centres),
            backgroundThresh=self.settings.backgroundThresh,
            noveltyLimit=self.settings.noveltyLimit,
        )
        objects, parents = collect(jobs, found, self._schemas, modelData, parentCatalog, objectCatalog)
        if self.settings.doConserveFlux:
            self._conserveFlux(mExposure, objects, modelData, reference)
        if len(centres):
            self.log.info(
                "Deblended %d sources in %.2f s (%.0f a second)",
                len(centres),
                seconds,
                len(centres) / max(seconds, 1e-9),
            )
        return pipeBase.Struct(
            deblendedCatalog=objects,
            scarletModelData=self._exported(modelData, objects),
            objectParents=parents,
        )

    def _matched(self, mExposure, cubes, good):
        """The exposure in the network's pixels, and with a PSF that it takes."""
        settings = self.settings
        tolerances = settings.pixelScaleTolerance, settings.maxPixelScaleRatio
        ratio = pixelRatio(mExposure, self.network, *tolerances, self.log)
        return match_images(
            cubes.images,
            cubes.variance,
            good,
            self.network,
            psfsAt(cubes, self.log),
            ratio=ratio,
            homogenise=settings.homogenisePsf,
            psf_tolerance=settings.psfTolerance,
            log=self.log,
        )

    def _deblendPeaks(self, matched, jobs, centres, psfs, *, quick=False):
        settings, centres = self.settings, matched.places(centres)
        numberPeaks(jobs)

        def deblend(part):
            return deblend_blend(
                matched.images,
                matched.variance,
                centres[part],
                self.network,
                bad=~matched.good,
                psfs=psfs if psfs.vary else None,
                settings=DeblendSettings(
                    joint_fluxes=settings.jointFluxes,
                    prior_width=settings.priorWidth,
                    min_core_coverage=settings.minCoreCoverage,
                    batch_size=settings.batchSize,
                    refine=settings.refine and not quick,
                    max_steps=settings.maxRefineSteps,
                    latent_weight=settings.latentWeight,
                    model_error=settings.modelError,
                    flux_tie=settings.fluxTie,
                    n_samples=0 if quick else settings.nSamples,
                ),
                progress=LoggedProgress(self.log, "sources of this round deblended"),
            )

        if not settings.catchFailures:
            return deblend(slice(None))
        return deblendCatching(jobs, deblend, self.log)

    def _bad(self, cubes):
        """Pixels to leave out, ``[band, y, x]``."""
        return (cubes.maskbits & cubes.bitMask(self.settings.badMask)) != 0

    # -- outputs -------------------------------------------------------------------

    def _markSkipped(self, mExposure, jobs):
        """Set the mask plane of parents that should have been deblended and were not."""
        plane = self.settings.notDeblendedMask
        if not plane:
            return
        # Even where nothing is skipped: later steps name the plane.
        for band in mExposure.bands:
            mExposure.mask[band].addMaskPlane(plane)
        for job in jobs:
            footprint = job.record.getFootprint()
            if footprint is None or not (job.lost or job.error):
                continue
            spans = footprint.spans.clippedTo(mExposure.getBBox())
            for band in mExposure.bands:
                mask = mExposure.mask[band]
                spans.setMask(mask, mask.getPlaneBitMask(plane))

    def _modelData(self, cubes, reference):
        from .repo.modelData import VaeModelData

        (x0, y0), (ny, nx), package = cubes.xy0, cubes.images.shape[1:], self.network.package
        return VaeModelData(
            bands=package.bands,
            modelPackage=package.name,
            modelPackageSha256=self._packageSha,
            latentSize=self.network.latent_dim,
            metadata={
                "model": "vae",
                "referenceBand": reference,
                "bbox": [y0, y0 + ny, x0, x0 + nx],
                "backgroundThresh": self.settings.backgroundThresh,
            },
        )

    def _conserveFlux(self, mExposure, objects, modelData, reference):
        band = reference if reference in mExposure.bands else mExposure.bands[0]
        single = mExposure[band]
        updateCatalogFootprints(modelData, objects, band, imageForRedistribution=single)

    def _exported(self, modelData, objects):
        from .repo.scarletModelData import hasScarlet, toScarletModelData

        wanted = self.settings.exportScarletModels
        if not self._inSlot or wanted is False or (wanted is None and not hasScarlet()):
            return modelData
        return toScarletModelData(modelData, objects)


def _peakSchema(catalog):
    for record in catalog:
        footprint = record.getFootprint()
        if footprint is not None:
            return footprint.peaks.schema
    return None
