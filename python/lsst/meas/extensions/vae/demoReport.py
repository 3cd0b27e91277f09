# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demonstration wrote into its repository, as a report."""

__all__ = ["makeReport"]

import contextlib
import logging
import operator
import platform
from dataclasses import dataclass
from functools import reduce

import astropy.units as u
import numpy as np
from astropy.table import Table, vstack

from .afw.adapters import asCubes
from .errors import RepositoryError
from .evaluation import choose_examples, compare_objects, count_matches
from .evaluation.figures import COLOURS, colour_image, marked_image
from .evaluation.objects import BLENDED, EXAMPLE_RANGES
from .evaluation.report import Example, Report, blended_statistics
from .repo import SPLITS, openRepository
from .repo.execution import userCollection
from .simulation.geometry import overlap, stamp_origin
from .simulation.redraw import isolated_stamp, survey_with_psfs
from .survey import get_survey
from .version import __version__

_WANTED_SNR = 10.0  # galaxies above this are expected to be found
_GRI = ("g", "r", "i")
_STAMP = 64
_GALAXIES = {"cosmos": "COSMOS 25.2 (HST F814W < 25.2)", "synthetic": "synthetic"}
_PACKAGES = (
    *("numpy", "scipy", "astropy", "galsim", "photutils", "keras", "tensorflow-cpu", "tensorflow", "jax"),
    *("lsst-daf-butler", "lsst-pipe-base", "lsst-pex-config"),
)


@dataclass
class _Field:
    """One field with all that was made of it."""

    number: int
    survey: object
    cubes: object
    truth: Table
    models: object
    objects: Table
    counts: object
    nParents: int

    @property
    def gri(self):
        """Numbers of the bands that pictures are made of."""
        return [self.cubes.bands.index(band) for band in _GRI]

    def picture(self, images):
        """Colour picture of [band, y, x] in the field's common stretch."""
        band = self.cubes.bands.index("r")
        return colour_image(
            np.asarray(images)[self.gri], float(np.sqrt(np.median(self.cubes.variance[band])))
        )


def makeReport(repo, steps, package, args, warnings, *, density, survey):
    """Read what the chain wrote, and compare it with the truth.

    Parameters
    ----------
    repo : `str`
        The repository.
    steps : `list`
        The commands in their order, with ``what``, ``label``, ``command``,
        ``argv`` and ``output``.
    package : `~.network.package.ModelPackage`
        The model that was used.
    args : `argparse.Namespace`
        ``fields``, ``size`` and ``seed``.
    warnings : `list` [`str`]
        What a reader must know first.
    density : `float`
        Galaxies per square arcminute.
    survey : `str`
        Name of the survey.

    Returns
    -------
    report : `~.evaluation.report.Report`

    Raises
    ------
    RepositoryError
        If a product of the chain is not there.
    """
    collection = userCollection(steps[-1].output)
    skymap = steps[-1].argv[-1].split("'")[1]
    # That pandas is absent is no news to anybody here.
    logging.getLogger("lsst.daf.butler").setLevel(logging.ERROR)
    butler = openRepository(repo, writeable=False)
    try:
        butler = butler.clone(collections=[collection])
        ids = [{"skymap": skymap, "tract": SPLITS["fields"], "patch": patch} for patch in range(args.fields)]
        fields = [_readField(butler, dataId, survey) for dataId in ids]
        records = {
            step.label: [butler.get(f"{step.label}_metadata", dataId) for dataId in ids] for step in steps
        }
    finally:
        butler.close()
    table = vstack([field.objects for field in fields], metadata_conflicts="silent")
    examples = [(number, table[row]) for number, row in enumerate(choose_examples(table), 1)]
    seconds = {label: sum(map(_quantumSeconds, found)) for label, found in records.items()}
    bands = ", ".join(package.bands)
    simulated = [record["simulateBlends"] for record in records["simulateBlends"]]
    return Report(
        title="Galaxies deblended by a variational autoencoder",
        subtitle=f"{_shown(args.fields, 'simulated field')} of {args.size} x {args.size} pixels as LSST will "
        f"see {'it' if args.fields == 1 else 'them'} in ten years, in {bands}: detected, deblended by "
        f"{package.name}, and measured against the truth. Made by meas_extensions_vae {__version__}.",
        warnings=warnings,
        headline=_headline(fields, table, records["deblendVae"], seconds["deblendVae"]),
        field_svg=_fieldPicture(fields[0], examples),
        field_caption="g, r and i as blue, green and red (asinh stretch). Circles: detected peaks. "
        "Dashed: the blends below." + (" The first field is shown." if args.fields > 1 else ""),
        examples=[_example(fields, row, number) for number, row in examples],
        example_rule="Chosen without a look at the results, by turns from objects of a true signal to noise "
        f"in r of {_ranges(EXAMPLE_RANGES)}: the one of the largest true blendedness, of footprints with two "
        "peaks or more, 4″ or more from those chosen before (below "
        f"{BLENDED:g} only where no other is left). The object is in the middle, ringed in yellow; "
        "other peaks have blue rings. All pictures have one stretch. The residual is the image less all "
        "models. A dash is what could not be measured.",
        objects=table,
        detection=_detection(fields, table),
        steps=[(step.what, step.command, f"({seconds[step.label]:.1f} s)") for step in steps],
        facts={
            "Simulation": [
                ("galaxies", f"{_GALAXIES[simulated[0]['galaxies']]}, test split: no training saw them"),
                ("sha256 of the catalogue", simulated[0]["galaxiesSha256"]),
                ("density", f"{density} / arcmin², to the catalogue's own limit"),
                ("survey", f"{survey}, bands {bands}"),
                ("seed of the campaign", args.seed),
                ("seeds of the fields", ", ".join(str(record["seed"]) for record in simulated)),
                ("repository", f"{repo}, collection {collection}"),
            ],
            "Model": _describeModel(package),
            "Software": _versions(),
        },
    )


def _headline(fields, table, records, seconds):
    """The few numbers that come first."""
    blended = blended_statistics(table)
    none, vae = blended["none"], blended["vae"]
    deblended = [record["deblendVae"] for record in records]
    nSources = sum(record["nSources"] for record in deblended)
    rate = nSources / max(sum(record["deblendSeconds"] for record in deblended), 1e-9)
    nTruth = sum(int(field.truth["in_field"].sum()) for field in fields)
    nParents = sum(field.nParents for field in fields)
    return [
        (f"{nTruth} galaxies", f"simulated; {len(table)} objects detected in {nParents} footprints"),
        (
            f"{_number(none[0].half_width, 2)} → {_number(vae[0].half_width, 2)}",
            f"r magnitude error of the {none[0].number} blended objects, without → with deblending",
        ),
        (
            f"{_number(none[2].half_width, 2)} → {_number(vae[2].half_width, 2)}",
            "ellipticity error of the same, without → with deblending",
        ),
        (
            f"{rate:.0f} galaxies/s",
            f"deblended in {len(fields[0].cubes.bands)} bands; {nSources} in {seconds:.0f} s with reading, "
            "start and writing",
        ),
    ]


def _detection(fields, table):
    """How well the peaks stand for the galaxies."""
    counts = reduce(operator.add, (field.counts for field in fields))
    return [
        (
            f"completeness: galaxies with SNR above {_WANTED_SNR:g} in r that have an object",
            f"{counts.completeness:.0%} ({counts.n_found} of {counts.n_truth})",
        ),
        (
            "purity: objects within 0.8″ of a galaxy",
            f"{counts.purity:.0%} ({counts.n_matched} of {counts.n_objects})",
        ),
        (
            "unrecognised blends: objects with a second galaxy of a quarter of the flux or more within 0.8″",
            str(counts.n_unrecognised),
        ),
        (
            "objects that are compared (with a galaxy, 2″ or more from the edge)",
            str(int(((table["truth"] >= 0) & ~table["edge"]).sum())),
        ),
    ]


def _ranges(ranges) -> str:
    return " and ".join(
        f"{low:g} to {high:g}" if np.isfinite(high) else f"over {low:g}" for low, high in ranges
    )


def _shown(count: int, what: str) -> str:
    return f"A {what}" if count == 1 else f"{count} {what}s"


def _quantumSeconds(metadata) -> float:
    """Wall time of a quantum, reading and writing included [s]."""
    from datetime import datetime

    quantum = metadata["quantum"]
    times = [datetime.fromisoformat(quantum[name]) for name in ("prepUtc", "endUtc")]
    return (times[1] - times[0]).total_seconds()


def _describeModel(package) -> list:
    """The model card in a few lines; what it lacks is left out."""
    card = package.card
    rows = [
        ("name", package.name),
        ("architecture", card["architecture"]["name"]),
        ("latent dimension", card["latent_dim"]),
        ("stamps", f"{card['stamp_size']} x {card['stamp_size']} pixels of {card['pixel_scale'][0]:g}″"),
    ]
    for stage, training in card.get("training", {}).items():
        validation = training.get("validation", {})
        parts = [f"{training.get('samples_seen', 0):,} scenes seen"]
        if "seconds" in training:
            parts.append(f"{training['seconds'] / 60:.0f} minutes")
        with contextlib.suppress(KeyError):
            parts.append(
                f"validation: |e| half-width {validation['e_half_width']:.3f}, r magnitude "
                f"{validation['mag_half_width']:.3f}, alpha {validation['alpha_1']:+.2f}"
            )
        rows.append((f"training, {stage}", "; ".join(parts)))
    return [*rows, ("sha256 of its card", package.sha256)]


def _versions() -> list:
    from importlib.metadata import PackageNotFoundError, version

    rows = [("meas_extensions_vae", __version__), ("python", platform.python_version())]
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            rows.append((name, version(name)))
    return [*rows, ("machine", f"{platform.system()} {platform.machine()}")]


# -- one field -------------------------------------------------------------------------


def _get(butler, name, dataId):
    from lsst.daf.butler import DatasetNotFoundError, MissingDatasetTypeError

    try:
        return butler.get(name, dataId)
    except (DatasetNotFoundError, MissingDatasetTypeError):
        raise RepositoryError(
            f"no {name} of field {dataId['patch']} was made: if the field is too empty to hold an "
            "object, give a larger --size or another --seed"
        ) from None


def _readField(butler, dataId, surveyName):
    names = (
        "vae_field",
        "vae_fieldTruth",
        "vae_mergedDetections",
        "vae_modelData",
        "vae_shapes",
        "vae_deblendedCatalog",
    )
    exposure, truth, merged, models, shapes, catalog = (_get(butler, name, dataId) for name in names)
    cubes = asCubes(exposure)
    survey = survey_with_psfs(get_survey(surveyName, cubes.bands), truth)
    objects = _objects(catalog, shapes, survey.reference_band)
    zero = (0 * u.ABmag).to(cubes.unit).value
    ny, nx = cubes.images.shape[1:]
    objects, match = compare_objects(
        objects, truth, cubes.images, cubes.variance, cubes.psf(nx / 2, ny / 2), survey, zero
    )
    objects["field"] = dataId["patch"]
    wanted = np.asarray(truth["in_field"], bool) & (truth[f"snr_{survey.reference_band}"] > _WANTED_SNR)
    return _Field(
        dataId["patch"], survey, cubes, truth, models, objects, count_matches(match, wanted), len(merged)
    )


def _objects(catalog, shapes, band):
    """Deblended objects at the places of their peaks."""
    places = [
        next(
            (peak.getFx(), peak.getFy())
            for peak in record.getFootprint().peaks
            if peak.get("id") == record.get("deblend_peakId")
        )
        for record in catalog
    ]
    row = {int(value): k for k, value in enumerate(shapes["id"])}
    shapes = shapes[[row[record.getId()] for record in catalog]]
    table = Table({"id": shapes["id"], "parent": shapes["parent"]})
    table["x"], table["y"] = np.array(places, float).reshape(-1, 2).T
    table["n_peaks"] = np.array([record.get("deblend_parentNPeaks") for record in catalog], int)
    table["mag"], table["e1"], table["e2"] = (
        np.asarray(shapes[n], float) for n in (f"mag_{band}", "e1", "e2")
    )
    return table


# -- pictures ----------------------------------------------------------------------------


def _fieldPicture(field, examples):
    marks = [(x, y, COLOURS["mark"]) for x, y in zip(field.objects["x"], field.objects["y"], strict=True)]
    boxes = []
    for number, row in examples:
        if row["field"] == field.number:
            y0, x0 = stamp_origin(row["x"], row["y"], _STAMP)
            boxes.append((x0, y0, _STAMP, str(number)))
    ny, nx = field.cubes.images.shape[1:]
    label = f"Colour image of a field of {nx} x {ny} pixels with {len(marks)} detected peaks"
    return marked_image(field.picture(field.cubes.images), label, marks, radius=4, boxes=boxes)


def _cut(images, origin):
    """A stamp of [band, y, x], 0 beyond the edge."""
    stamp = np.zeros((len(images), _STAMP, _STAMP), np.float32)
    inImages, inStamp = overlap(origin, _STAMP, images.shape[1:])
    stamp[(slice(None), *inStamp)] = images[(slice(None), *inImages)]
    return stamp


def _example(fields, row, number):
    """One blend: input, model, truth and residual."""
    field = next(one for one in fields if one.number == row["field"])
    origin = stamp_origin(row["x"], row["y"], _STAMP)
    y0, x0 = origin
    scene = _cut(field.cubes.images, origin)
    box = (y0, y0 + _STAMP, x0, x0 + _STAMP)
    identifier = int(row["id"])
    model = field.models.render(box, [identifier] if identifier in field.models else [])
    truth, _ = isolated_stamp(field.truth[int(row["truth"])], field.survey, _STAMP, origin)
    marks = [
        (o["x"] - x0, o["y"] - y0, COLOURS["target" if o["id"] == identifier else "mark"])
        for o in field.objects
        if -0.5 <= o["x"] - x0 < _STAMP - 0.5 and -0.5 <= o["y"] - y0 < _STAMP - 0.5
    ]
    panels = [
        ("input", marked_image(field.picture(scene), f"Input of blend {number}", marks, radius=2)),
        ("model", marked_image(field.picture(model), f"Model of the middle object of blend {number}")),
        (
            "truth",
            marked_image(field.picture(truth), f"The same galaxy alone, without noise, of blend {number}"),
        ),
        (
            "residual",
            marked_image(
                field.picture(scene - field.models.render(box)), f"Image less all models of blend {number}"
            ),
        ),
    ]
    rows = [("", "r magnitude", "e1", "e2")]
    for name, suffix in (("truth", "true"), ("VAE", "vae"), ("no deblending", "none")):
        rows.append(
            (
                name,
                *(
                    _number(row[f"{what}_{suffix}"], digits)
                    for what, digits in (("mag", 2), ("e1", 3), ("e2", 3))
                ),
            )
        )
    title = (
        f"{number}. SNR {row['snr']:.0f}, blendedness {row['blendedness']:.2f}, one of "
        f"{row['n_peaks']} peaks of its footprint"
    )
    return Example(panels, title, rows)


def _number(value, digits):
    return f"{value:.{digits}f}".replace("-", "−") if np.isfinite(value) else "–"
