# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""EvaluateDeblendersTask: how well a trained network does on stamps with known truth."""

__all__ = ["EvaluateDeblendersConfig", "EvaluateDeblendersTask"]

import shlex
from collections import Counter
from typing import Literal

import lsst.pipe.base as pipeBase
from lsst.pipe.base import connectionTypes as cT
from lsst.utils.timer import timeMethod

from .config import Config, Field, toPexConfig
from .errors import RepositoryError, ShardError
from .repo.campaign import SPLITS
from .vaeTask import LoggedProgress, VaeTask, connection

_ENCODERS = {"prior": "prior_encoder", "deblender": "deblender_encoder"}


class EvaluateDeblendersConfig(Config):
    """Config of EvaluateDeblendersTask."""

    stages: tuple[Literal["prior", "deblender"], ...] = Field(
        ("prior", "deblender"),
        min_length=1,
        max_length=2,
        description="What to evaluate: the prior on stamps of isolated galaxies, the deblender on those of "
        "blends.",
    )
    modelPackage: str = Field(
        "lsst10yr-ugrizy",
        description="Name of a shipped model package or path of a *.vae.zip; a pipeline gives "
        "its own by connection.",
    )
    useTrainedModel: bool = Field(
        False,
        description="Take the campaign's own vae_trainedPackage (vae_priorPackage for the prior alone), not "
        "the pretrained vae_modelPackage?",
    )
    split: Literal["test", "validation"] = Field("test", description="Split of the stamps.")
    maxScenes: int = Field(0, ge=0, description="Scenes of each kind, the first ones; 0 for all.")
    noise: Literal["poisson", "normal", "sky"] = Field(
        "poisson", description="Noise, drawn from the seed of each scene: that of composed samples."
    )
    noiseCorrelation: float = Field(
        0.0, ge=0, le=0.6, description="Correlation of the noise of adjacent pixels; not with 'poisson'."
    )
    baselines: bool = Field(
        True, description="Measure the noisy blend as it is, and the target alone with the same noise, too?"
    )
    peers: tuple[
        Literal["one_pass", "refined", "iterative", "scarlet2", "scarlet", "scarlet_lite", "sep"], ...
    ] = Field(
        (),
        max_length=7,
        description="Further deblenders beside the network's bare output, on the same blends: this project's "
        "own (which get the true centres, but for 'iterative'), and other people's, where they are "
        "installed. Where one fails, its errors are NaN, and the log has the reason.",
    )
    bins: Literal["paper", "quantiles"] = Field(
        "paper",
        description="Bins: those of figure 6 of Arcelin et al. 2020, or ten of equal numbers.",
    )
    bootstrap: int = Field(100, ge=0, le=100_000, description="Bootstrap samples for errors of alpha.")
    seed: int = Field(0, ge=0, description="Seed of the bootstrap.")
    batchSize: int = Field(256, ge=1, le=65_536, description="Stamps that go through the network together.")
    directory: str = Field(
        "",
        description="Folder where all is written for people too: report.html with everything in it, tables "
        "(Markdown, ECSV, Parquet) and figures (PDF, PNG); nowhere if empty.",
    )
    examples: int = Field(
        12,
        ge=0,
        le=100,
        description="Blends of the folder's figure A1, and thrice the targets of C1; 0 for neither.",
    )
    draws: int = Field(
        10_000, ge=100, description="Posterior draws of each target of the folder's figure C1."
    )
    others: dict[str, str] = Field(
        {},
        description="Folders of other evaluations whose errors stand in the folder's figures beside these: "
        "'bands' (the other set of bands), 'pixelisation', 'peaks' (other centrings), 'real', 'transferred' "
        "(real galaxies, before and after training with some).",
    )

    def validate(self):
        super().validate()
        if len(set(self.stages)) < len(self.stages):
            raise self.invalid("stages", "each stage at most once")
        if len(set(self.peers)) < len(self.peers):
            raise self.invalid("peers", "each deblender at most once")
        if self.peers and "deblender" not in self.stages:
            raise self.invalid("peers", "stage 'deblender' among stages, whose blends they deblend")
        if self.noise == "poisson" and self.noiseCorrelation:
            raise self.invalid("noiseCorrelation", "counts of photons are independent; take noise 'normal'")


class EvaluateDeblendersConnections(pipeBase.PipelineTaskConnections, dimensions=("skymap",)):
    """All test shards of a campaign and a package to tables of errors."""

    isolatedStamps = connection(
        cT.Input, "vae_isolatedStamps", "Stamps of isolated galaxies.", multiple=True, deferLoad=True
    )
    blendStamps = connection(cT.Input, "vae_blendStamps", "Stamps of blends.", multiple=True, deferLoad=True)
    modelPackage = connection(cT.PrerequisiteInput, "vae_modelPackage", "Pretrained network.")
    trainedPackage = connection(cT.Input, "vae_trainedPackage", "Network trained in this campaign.")
    priorPackage = connection(cT.Input, "vae_priorPackage", "Prior trained in this campaign.")
    stampErrors = connection(cT.Output, "vae_stampErrors", "Errors, one row a scene and method.")
    stampSummary = connection(cT.Output, "vae_stampSummary", "Medians, widths, alpha and failures in bins.")

    def __init__(self, *, config=None):
        super().__init__(config=config)
        if "prior" not in config.stages:
            del self.isolatedStamps
        if "deblender" not in config.stages:
            del self.blendStamps
        if not config.useTrainedModel:
            del self.trainedPackage
            del self.priorPackage
            return
        del self.modelPackage
        if "deblender" in config.stages:
            del self.priorPackage
        else:
            del self.trainedPackage


class EvaluateDeblendersTask(VaeTask):
    """Measure the errors of a network on simulated stamps, beside those of Arcelin et al. 2020.

    The prior sees isolated galaxies, the deblender blends, both with the noise
    of each scene's own seed. Beside them stand the noisy blend as it is and
    the target alone with the same noise: floor and ceiling; and other
    deblenders, if any are asked for.
    """

    ConfigModel = EvaluateDeblendersConfig
    ConfigClass = toPexConfig(
        EvaluateDeblendersConfig,
        bases=(pipeBase.PipelineTaskConfig,),
        pipelineConnections=EvaluateDeblendersConnections,
    )
    _DefaultName = "evaluateDeblenders"

    def runQuantum(self, butlerQC, inputRefs, outputRefs):
        samples = {}
        for name in ("isolatedStamps", "blendStamps"):
            if hasattr(inputRefs, name):
                samples[name] = self._open(butlerQC.get(getattr(inputRefs, name)), name)
        (package,) = (
            butlerQC.get(getattr(inputRefs, name))
            for name in ("modelPackage", "trainedPackage", "priorPackage")
            if hasattr(inputRefs, name)
        )
        try:
            struct = self.run(package, **samples)
            if self.settings.directory:
                self._writeFiles(struct, package, samples)
        finally:
            for sample in (sample for shards in samples.values() for sample in shards.values()):
                sample.close()
        butlerQC.put(struct, outputRefs)

    def _writeFiles(self, struct, package, samples):
        """Write everything for people into the folder of the config."""
        from .evaluation.evaluation_files import read_stamp_errors, write_evaluation
        from .network.model import Network

        settings = self.settings
        shards = {"prior": samples.get("isolatedStamps"), "deblender": samples.get("blendStamps")}
        found = {stage: next(iter(some.values())) for stage, some in shards.items() if some}
        changed = " ".join(
            shlex.quote(f"{name}={value if isinstance(value, str) else repr(value)}")
            for name, value in settings.model_dump(mode="json", exclude_defaults=True).items()
        )
        command = "bin/evaluateDeblenders.py REPO -i COLLECTION" + (f" -c {changed}" if changed else "")
        try:
            paths, leftOut = write_evaluation(
                settings.directory,
                struct.stampErrors,
                struct.stampSummary,
                networks={stage: Network(package, encoder=_ENCODERS[stage]) for stage in found},
                samples=found,
                examples=settings.examples,
                draws=settings.draws,
                others={name: read_stamp_errors(folder) for name, folder in settings.others.items()},
                settings=settings.model_dump(mode="json"),
                repeat=[("The same on the same inputs, which are in this run's collection:", command)],
            )
        except OSError as error:
            raise RepositoryError(
                f"config.directory {settings.directory!r}: nothing can be written there "
                f"({error.strerror}); give another folder"
            ) from error
        for name, reason in leftOut.items():
            self.log.info("Not drawn: %s: %s", name, reason)
        self.log.info("The report is %s, with %d files beside it", paths[0], len(paths) - 1)

    def _open(self, handles, name):
        split = self.settings.split
        chosen = [handle for handle in handles if handle.dataId["tract"] == SPLITS[split]]
        if not chosen:
            raise ShardError(
                f"no {split} shard among the inputs vae_{name}: simulate some (n{split.capitalize()} of "
                "simulateBlends) and let the data query include their tract"
            )
        chosen.sort(key=lambda handle: handle.dataId["patch"])
        return {handle.dataId["patch"]: handle.get(parameters={"lazy": True}) for handle in chosen}

    @timeMethod
    def run(self, package, isolatedStamps=None, blendStamps=None):
        """Evaluate a model package.

        Parameters
        ----------
        package : `~.network.package.ModelPackage`
            The network, with the encoders of the config's stages.
        isolatedStamps, blendStamps : `dict` [`int`, `~.simulation.shards.StampSample`], optional
            Shards by number, opened or in memory; needed for the prior and
            for the deblender.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``stampErrors``, an `astropy.table.Table` as
            `~.evaluation.stamps.measure_stamps` gives it, with the peers'
            reasons in ``meta["without_model"]``, by peer, and how many
            targets each left without a model; and
            ``stampSummary``, one as `~.evaluation.stamp_table.summarise_stamps`
            does.

        Raises
        ------
        ModelPackageError
            Raised if the package lacks an encoder, or was made for another
            survey, other bands or another size of stamps.
        ShardError
            Raised if samples are missing, of another split or kind, or do not
            fit together.
        """
        from .evaluation.stamp_table import summarise_stamps
        from .evaluation.stamps import join_errors

        settings = self.settings
        samples = {"prior": isolatedStamps, "deblender": blendStamps}
        stages = [stage for stage in _ENCODERS if stage in settings.stages]
        for stage in stages:
            self._check(samples[stage] or {}, stage)
        reasons = {}
        errors = join_errors([self._evaluate(package, stage, samples[stage], reasons) for stage in stages])
        if reasons:
            errors.meta["without_model"] = {name: dict(count) for name, count in reasons.items()}
        errors.meta["package"] = {"name": package.name, "sha256": package.sha256}
        for name, count in reasons.items():
            for reason, number in count.most_common(5):
                self.log.warning("%s gave no model of %d targets: %s", name, number, reason)
        summary = summarise_stamps(errors, settings.bins, settings.bootstrap, settings.seed)
        self._tell(summary, stages)
        return pipeBase.Struct(stampErrors=errors, stampSummary=summary)

    def _check(self, shards, stage):
        kind, split = {"prior": "isolated", "deblender": "blended"}[stage], self.settings.split
        if not shards:
            raise ShardError(f"stage {stage!r} needs {kind} stamps: give some, or leave it out of stages")
        for number, sample in shards.items():
            if sample.split != split:
                raise ShardError(
                    f"shard {number} is of the {sample.split} split: expected {split}; only galaxies that no "
                    "network was trained on tell how well one does"
                )
            if sample.kind != kind:
                raise ShardError(
                    f"shard {number} has {sample.kind} stamps, stage {stage!r} needs {kind} ones"
                )

    def _evaluate(self, package, stage, shards, reasons):
        from .evaluation.peers import make_peer, peer_method
        from .evaluation.stamps import check_network, isolated, measure_stamps, network_method, undeblended
        from .network.model import Network

        settings = self.settings
        network = Network(package, encoder=_ENCODERS[stage])
        for sample in shards.values():
            check_network(network, sample)
        methods = {stage: network_method(network, settings.batchSize)}
        if stage == "deblender":
            for name in settings.peers:
                reasons[name] = Counter()
                methods[name] = peer_method(make_peer(name, network), reasons[name])
        if settings.baselines:
            if stage == "deblender":
                methods["none"] = undeblended
            methods["isolated"] = isolated
        return measure_stamps(
            shards.values(),
            methods,
            bands=network.bands,
            shards=shards,
            noise=settings.noise,
            noise_correlation=settings.noiseCorrelation,
            max_scenes=settings.maxScenes,
            progress=LoggedProgress(self.log, f"{stage}: scenes measured"),
        )

    def _tell(self, summary, stages):
        """Log the result, and keep it in the metadata."""
        from .evaluation.targets import judge

        for stage in stages:
            (row,) = summary[(summary["method"] == stage) & (summary["by"] == "all")]
            self.metadata[f"{stage}Scenes"] = int(row["scenes"])
            self.log.info(
                "%s, %d scenes, %d failures: |e| %+.4f +- %.4f, magnitude %+.4f +- %.4f (median and "
                "half-width), alpha %+.4f and %+.4f",
                stage,
                row["scenes"],
                row["failures"],
                *(row[name] for name in ("e_median", "e_half_width", "mag_median", "mag_half_width")),
                *(row[name] for name in ("alpha_1", "alpha_2")),
            )
        for row in judge(summary):
            self.log.info(
                "%s: %s %+.4f; better than the paper: %s, reached: %s, aim: %s",
                row["method"],
                row["quantity"],
                row["value"],
                *(row[name] or "-" for name in ("better_than_paper", "reached", "aim_reached")),
            )
