# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""SimulateBlendsTask: stamps and fields of galaxies with truth."""

__all__ = ["FieldConfig", "GalaxiesConfig", "SceneConfig", "SimulateBlendsConfig", "SimulateBlendsTask"]

from dataclasses import replace
from functools import lru_cache
from typing import Literal

import numpy as np

import lsst.pipe.base as pipeBase
from lsst.pipe.base import connectionTypes as cT
from lsst.utils.timer import timeMethod

from .config import Config, Field, toPexConfig
from .config.settings import makeSettings
from .errors import CatalogError
from .repo.campaign import SPLITS
from .survey import get_survey, survey_variant
from .vaeTask import SHARD, LoggedProgress, VaeTask, connection

_KINDS = {"isolated": 0, "blended": 1, "field": 2}


class GalaxiesConfig(Config):
    """Which galaxies to draw."""

    name: Literal["auto", "cosmos", "synthetic"] = Field(
        "auto",
        description="Population: COSMOS 25.2, synthetic, or COSMOS where it was fetched (bin/getCosmos.py).",
    )
    path: str | None = Field(
        None, description="A catalogue file in GalSim's *_fits.fits format, for name 'cosmos'."
    )
    n: int = Field(100_000, ge=100, le=10_000_000, description="Number of synthetic galaxies.")
    seed: int = Field(1, ge=0, description="Seed of the synthetic population.")
    realPath: str | None = Field(
        None,
        description="GalSim's real_galaxy_catalog*.fits with HST images, for scenes.realFraction above 0.",
    )


class SceneConfig(Config):
    """How stamps are composed; the fiducial values are Arcelin et al. 2020's."""

    placement: Literal["annulus", "field"] = Field(
        "annulus",
        description="Neighbours in an annulus about the brightest galaxy, or as they fall in a field.",
    )
    minGalaxies: int = Field(1, ge=1, le=20, description="Fewest galaxies of a blend (annulus).")
    maxGalaxies: int = Field(4, ge=1, le=20, description="Most galaxies of a blend (annulus).")
    innerRadius: float = Field(0.325, ge=0, le=30, description="Inner radius of the annulus [arcsec].")
    outerRadius: float = Field(
        2.0, gt=0, le=30, description="Outer radius of the annulus [arcsec]; the published code has 1.5."
    )
    magLimit: float | None = Field(
        27.5, description="Faintest reference-band magnitude, in the survey's own system; None for no cut."
    )
    centring: Literal["none", "pixelisation", "peaks"] = Field(
        "none",
        description="Target on the central pixel crossing, shifted within a square of one pixel, or where a "
        "detected peak puts it.",
    )
    peakCentring: Literal["pixel", "centroid"] = Field(
        "pixel",
        description="Stamps about the pixel crossing nearest the peak (the paper), or about the peak's very "
        "centroid (the published code).",
    )
    detectionSize: int = Field(
        128, ge=16, le=1024, description="Side of the scene searched for peaks [pixels]."
    )
    detectionThreshold: float = Field(5.0, gt=0, le=100, description="Threshold of peaks [sigma of the sky].")
    maxPeaks: int = Field(4, ge=1, le=100, description="Most peaks that are looked at.")
    minNeighbourDistance: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Scenes whose target has a nearer neighbour are drawn again [arcsec]; a test sample "
        "keeps all its scenes.",
    )
    centringJitter: float = Field(
        0.0, ge=0, le=5, description="Further Gaussian shift of the target [pixels]."
    )
    densityPerArcmin2: float = Field(
        50.0, ge=0, le=1000, description="Neighbours per square arcminute (field)."
    )
    closeFraction: float = Field(
        0.5, ge=0, le=1, description="Fraction of scenes with close neighbours (field)."
    )
    closeInnerRadius: float = Field(0.4, ge=0, le=30, description="Nearest of the close neighbours [arcsec].")
    closeOuterRadius: float = Field(
        2.5, gt=0, le=30, description="Farthest of the close neighbours [arcsec]."
    )
    targetSnrMin: float = Field(0.0, ge=0, description="Least reference-band SNR of the isolated target.")
    rotate: bool = Field(True, description="Rotate every galaxy by a random angle?")
    colourGradients: bool = Field(True, description="Give bulges and discs SEDs of their own?")
    sersicRound: float = Field(
        0.05, ge=0, le=1, description="Sersic indices are rounded to multiples of this; 0 for as they are."
    )
    shearG1: float = Field(0.0, gt=-1, lt=1, description="Reduced shear of every scene, along x.")
    shearG2: float = Field(0.0, gt=-1, lt=1, description="Reduced shear of every scene, along the diagonal.")
    shearStep: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="Above 0, each scene comes five times, sheared by (0, 0), (+-g, 0) and (0, +-g).",
    )
    shearPositions: bool = Field(True, description="Does shear move the neighbours about the target too?")
    psfFwhmScatter: float = Field(
        0.0, ge=0, le=0.5, description="Scatter of ln(FWHM) of the PSF from scene to scene."
    )
    psfShearSigma: float = Field(
        0.0, ge=0, le=0.1, description="Scatter of each component of the PSF's shear from scene to scene."
    )
    starFraction: float = Field(0.0, ge=0, le=1, description="Fraction of objects that are stars.")
    realFraction: float = Field(
        0.0, ge=0, le=1, description="Fraction of scenes of galaxies with HST images (galaxies.realPath)."
    )

    def validate(self):
        super().validate()
        if self.innerRadius >= self.outerRadius:
            raise self.invalid("innerRadius", f"must be below outerRadius, {self.outerRadius}")
        if self.minGalaxies > self.maxGalaxies:
            raise self.invalid("minGalaxies", f"must not exceed maxGalaxies, {self.maxGalaxies}")


class FieldConfig(Config):
    """How whole fields are composed and searched; all defects are off by default."""

    size: int = Field(512, ge=64, le=20_000, description="Side of the square field [pixels].")
    densityPerArcmin2: float = Field(
        50.0, ge=0, le=1000, description="Objects per square arcminute, stars included."
    )
    positions: Literal["poisson", "clustered"] = Field(
        "poisson", description="Galaxies know nothing of each other, or some fall in clusters."
    )
    clusterFraction: float = Field(0.4, ge=0, le=1, description="Fraction of galaxies in clusters.")
    clusterMembers: float = Field(4.0, gt=0, le=1000, description="Mean number of galaxies in a cluster.")
    clusterRadius: float = Field(
        10.0, gt=0, le=600, description="Gaussian sigma of a cluster on each axis [arcsec]."
    )
    starFraction: float = Field(0.0, ge=0, le=1, description="Fraction of objects that are stars.")
    magLimit: float | None = Field(None, description="Faintest reference-band magnitude; None for no cut.")
    colourGradients: bool = Field(True, description="Give bulges and discs SEDs of their own?")
    edge: int = Field(
        16, ge=0, le=1000, description="Objects are centred up to this far outside the image [pixels]."
    )
    shearG1: float = Field(0.0, gt=-1, lt=1, description="Reduced shear of every galaxy, along x.")
    shearG2: float = Field(0.0, gt=-1, lt=1, description="Reduced shear of every galaxy, along the diagonal.")
    shearPositions: bool = Field(
        True, description="Does shear move galaxies about the centre of the field, too?"
    )
    psfFwhmScatter: float = Field(
        0.0, ge=0, le=0.5, description="Scatter of ln(FWHM) of each PSF from field to field."
    )
    psfShearSigma: float = Field(
        0.0, ge=0, le=0.1, description="Scatter of each component of the PSF's shear from field to field."
    )
    saturation: float | None = Field(
        None, gt=0, description="Full well of all bands [image unit]; None for no saturation."
    )
    badPixels: float = Field(0.0, ge=0, le=1, description="Fraction of pixels that are hot or dead.")
    badColumns: float = Field(
        0.0, ge=0, le=1000, description="Mean number of hot or dead columns among a thousand."
    )
    edgeWidth: int = Field(0, ge=0, le=1000, description="Width of the border marked EDGE [pixels].")
    gapWidth: int = Field(
        0, ge=0, le=1000, description="Width of a stripe without data in each band [pixels]."
    )
    missingCorner: float = Field(
        0.0, ge=0, le=1, description="Part of the sides that a corner without data cuts off."
    )
    threshold: float = Field(
        5.0, gt=0, le=100, description="Detection threshold [sigma], all bands combined."
    )


class SimulateBlendsConfig(Config):
    """Config of SimulateBlendsTask."""

    kind: Literal["isolated", "blended", "field"] = Field("blended", description="What to simulate.")
    survey: Literal["arcelin2020", "hscwide", "lsst10yr"] = Field(
        "lsst10yr", description="Survey that is simulated."
    )
    visBandpass: Literal["VIS", "Y"] = Field(
        "VIS", description="Throughput of Euclid's VIS in arcelin2020; the published code reads NISP Y's."
    )
    nirSky: Literal["paper", "code"] = Field(
        "paper", description="Sky of Euclid's Y and H in arcelin2020; the published code exchanges them."
    )
    bands: tuple[str, ...] = Field(
        ("u", "g", "r", "i", "z", "y"),
        min_length=1,
        description="Bands, in the order of the images' first axis.",
    )
    galaxies: GalaxiesConfig = Field(default_factory=GalaxiesConfig, description="Which galaxies to draw.")
    scenes: SceneConfig = Field(default_factory=SceneConfig, description="How stamps are composed.")
    field: FieldConfig = Field(default_factory=FieldConfig, description="How fields are composed.")
    nScenes: int = Field(
        1000, ge=1, le=1_000_000, description="Scenes a shard of stamps (the five sheared ones are one)."
    )
    composed: bool = Field(False, description="Write the noisy scenes themselves, too?")
    noise: Literal["poisson", "normal", "sky"] = Field(
        "poisson",
        description="Noise of composed scenes and fields: Poisson counts of source and sky, normal deviates "
        "of the same variance, or of the sky alone (the published code's later commits).",
    )
    noiseCorrelation: float = Field(
        0.0,
        ge=0,
        le=0.6,
        description="Correlation of the noise of adjacent pixels; not with noise 'poisson'.",
    )
    seed: int = Field(1, ge=0, description="Seed of the campaign; each shard's seed follows from it.")
    campaign: str = Field("demo", description="Campaign: its skymap is vae_<campaign> (command line only).")
    nTrain: int = Field(
        1, ge=0, le=65_536, description="Training shards of the campaign (command line only)."
    )
    nValidation: int = Field(1, ge=0, le=65_536, description="Validation shards (command line only).")
    nTest: int = Field(0, ge=0, le=65_536, description="Test shards (command line only).")
    nFields: int = Field(1, ge=0, le=65_536, description="Fields (command line only).")

    def surveyName(self):
        """Name of the survey with its options [`str`], as `~.survey.get_survey` takes it."""
        return survey_variant(self.survey, visAsY=self.visBandpass == "Y", codeNirSky=self.nirSky == "code")

    def validate(self):
        super().validate()
        for name, default in (("visBandpass", "VIS"), ("nirSky", "paper")):
            if self.survey != "arcelin2020" and getattr(self, name) != default:
                raise self.invalid(
                    name, f"survey {self.survey} knows {default!r} only; take survey arcelin2020"
                )
        survey = get_survey(self.surveyName())
        unknown = [band for band in self.bands if band not in survey.band_names]
        if unknown:
            raise self.invalid(
                "bands", f"{self.survey} has no band {unknown[0]!r}; it has {', '.join(survey.band_names)}"
            )
        if self.noise == "poisson" and self.noiseCorrelation:
            raise self.invalid("noiseCorrelation", "counts of photons are independent; take noise 'normal'")
        if self.scenes.realFraction and not self.galaxies.realPath:
            raise self.scenes.invalid(
                "realFraction", "needs galaxies.realPath, GalSim's catalogue of real galaxies"
            )
        # What further rules there are tell of themselves now, before anything is written.
        if self.kind == "field":
            self.fieldSettings()
        else:
            self.sceneSettings()

    def sceneSettings(self):
        """Settings of stamps [`~.simulation.SceneSettings`]."""
        from .simulation.scene_settings import SceneSettings

        return makeSettings(SceneSettings, self.scenes, kind=self.kind)

    def fieldSettings(self):
        """Settings of fields [`~.simulation.FieldSettings`]."""
        from .simulation.fields import FieldSettings

        return makeSettings(
            FieldSettings, self.field, noise=self.noise, noise_correlation=self.noiseCorrelation
        )


class SimulateBlendsConnections(pipeBase.PipelineTaskConnections, dimensions=SHARD):
    """One shard of stamps, or one field with truth and detections."""

    campaign = connection(cT.Input, "vae_campaign", "What defines the campaign.")
    isolatedStamps = connection(cT.Output, "vae_isolatedStamps", "Stamps of isolated galaxies.")
    blendStamps = connection(cT.Output, "vae_blendStamps", "Stamps of blends.")
    isolatedScenes = connection(cT.Output, "vae_isolatedScenes", "Noisy images of isolated galaxies.")
    blendScenes = connection(cT.Output, "vae_blendScenes", "Noisy images of blends.")
    field = connection(cT.Output, "vae_field", "Multi-band coadd.")
    fieldTruth = connection(cT.Output, "vae_fieldTruth", "Every galaxy of the field.")
    mergedDetections = connection(
        cT.Output, "vae_mergedDetections", "Footprints and peaks detected on all bands."
    )

    def __init__(self, *, config=None):
        super().__init__(config=config)
        outputs = {
            "isolated": ("isolatedStamps", "isolatedScenes"),
            "blended": ("blendStamps", "blendScenes"),
            "field": ("field", "fieldTruth", "mergedDetections"),
        }
        for kind, names in outputs.items():
            for name in names:
                if kind != config.kind or (name.endswith("Scenes") and not config.composed):
                    delattr(self, name)

    def adjustQuantum(self, inputs, outputs, label, data_id):
        # Fields live in their own tract, stamps in the others.
        isField = data_id["tract"] == SPLITS["fields"]
        if isField != (self.config.kind == "field"):
            raise pipeBase.NoWorkFound(f"tract {data_id['tract']} holds no {self.config.kind} samples")
        return super().adjustQuantum(inputs, outputs, label, data_id)


class SimulateBlendsTask(VaeTask):
    """Simulate stamps of galaxies, alone or blended, or whole fields, with truth.

    Stamps are stored as unit-flux profiles and fluxes, from which training
    composes scenes with fresh noise; fields as coadds with their detections.
    """

    ConfigModel = SimulateBlendsConfig
    ConfigClass = toPexConfig(
        SimulateBlendsConfig,
        bases=(pipeBase.PipelineTaskConfig,),
        pipelineConnections=SimulateBlendsConnections,
    )
    _DefaultName = "simulateBlends"

    def runQuantum(self, butlerQC, inputRefs, outputRefs):
        dataId = butlerQC.quantum.dataId
        galaxies = _loadGalaxies(*(getattr(self.settings.galaxies, n) for n in ("name", "path", "n", "seed")))
        campaign = butlerQC.get(inputRefs.campaign)
        for key, found in (("galaxies", galaxies.source), ("galaxiesSha256", galaxies.sha256 or "")):
            # One campaign never mixes populations, under pipetask neither.
            if campaign.get(key) and campaign[key] != found:
                raise CatalogError(
                    f"the campaign's {key} is {campaign[key]!r}, this command has {found!r}: give the same "
                    "galaxies (config.galaxies, bin/getCosmos.py) or choose another campaign"
                )
        result = self.run(galaxies, tract=dataId["tract"], patch=dataId["patch"])
        butlerQC.put(result, outputRefs)

    @timeMethod
    def run(self, galaxies, tract=0, patch=0):
        """Simulate one shard or one field.

        Parameters
        ----------
        galaxies : `~.galaxies.GalaxyCatalog`
            The whole population; the split is chosen here, by ``tract``.
        tract : `int`, optional
            0 training, 1 validation, 2 test, 3 fields (of test galaxies).
        patch : `int`, optional
            Number of the shard; with the config's seed it rules every draw.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``isolatedStamps`` or ``blendStamps`` (`~.simulation.StampSample`)
            and, with config ``composed``, ``isolatedScenes`` or
            ``blendScenes`` (`~.simulation.composed.ComposedSample`);
            or ``field`` (`~.afw.MultibandExposure`), ``fieldTruth``
            (`astropy.table.Table`) and ``mergedDetections``
            (`~.afw.SourceCatalog`).
        """
        settings = self.settings
        survey = get_survey(settings.surveyName(), settings.bands)
        split = {number: name for name, number in SPLITS.items()}[tract]
        chosen = galaxies.split("test" if split == "fields" else split)
        seed = shardSeed(settings.seed, tract, patch, settings.kind)
        self.metadata["galaxies"] = galaxies.source
        self.metadata["galaxiesSha256"] = galaxies.sha256 or ""
        self.metadata["seed"] = seed
        progress = LoggedProgress(self.log, f"{settings.kind} {split} shard {patch}")
        if settings.kind == "field":
            return self._field(chosen, survey, seed, patch, progress)
        from .simulation.scenes import simulate_stamps

        scenes = settings.sceneSettings()
        if split == "test":
            # Close pairs are left out where networks learn, not where they are judged (section 2.1.4).
            scenes = replace(scenes, min_neighbour_distance=0.0)
        real = _loadReal(settings.galaxies.realPath) if settings.scenes.realFraction else None
        sample = simulate_stamps(
            chosen, survey, scenes, settings.nScenes, seed=seed, split=split, progress=progress, real=real
        )
        kind = "isolated" if settings.kind == "isolated" else "blend"
        result = pipeBase.Struct(**{f"{kind}Stamps": sample})
        if settings.composed:
            from .simulation.composed import compose

            composed = compose(sample, noise=settings.noise, correlation=settings.noiseCorrelation)
            setattr(result, f"{kind}Scenes", composed)
        return result

    def _field(self, galaxies, survey, seed, patch, progress):
        from .afw import AnalyticPsf, MultibandExposure
        from .catalogs import makeMergedDetections
        from .simulation.defects import flagged, set_detected
        from .simulation.detection import detect
        from .simulation.fields import simulate_field

        config = self.settings.field
        settings = self.settings.fieldSettings()
        field = simulate_field(galaxies, survey, settings, seed, split="test", progress=progress)
        detection = detect(
            field.images,
            field.variance,
            field.psfs,
            mask=flagged(field.mask),
            threshold=config.threshold,
            saturated=flagged(field.mask, "SAT"),
        )
        set_detected(field.mask, detection)
        self.log.info(
            "Field of %d objects: %d parents with %d peaks",
            len(field.truth),
            len(detection.parents),
            detection.n_peaks,
        )
        exposure = MultibandExposure.fromArrays(
            survey.band_names,
            field.images,
            field.mask.astype(np.int32),
            field.variance,
            unit=survey.image_unit,
            psfs=[AnalyticPsf.fromModel(band.psf, band.pixel_scale) for band in field.survey.bands],
            metadata={"PIXSCALE": survey.bands[0].pixel_scale, "SURVEY": survey.name, "SEED": seed},
        )
        return pipeBase.Struct(
            field=exposure,
            fieldTruth=field.truth,
            mergedDetections=makeMergedDetections(detection, survey.band_names, exposureId=patch),
        )


def shardSeed(seed, tract, patch, kind):
    """Seed of one shard, from the campaign's.

    Returns
    -------
    seed : `int`
        Below 2^63.
    """
    return int(
        np.random.SeedSequence([seed, tract, patch, _KINDS[kind]]).generate_state(1, np.uint64)[0] >> 1
    )


@lru_cache(maxsize=1)
def _loadGalaxies(name, path, n, seed):
    # One process runs many shards; the catalogue is read once.
    from .galaxies import load_galaxies

    return load_galaxies(name, path=path, n=n, seed=seed)


@lru_cache(maxsize=1)
def _loadReal(path):
    from .galaxies.real_images import load_real_galaxies

    return load_real_galaxies(path)
