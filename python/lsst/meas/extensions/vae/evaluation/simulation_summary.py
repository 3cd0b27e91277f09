# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What simulated samples hold, in numbers and a few pictures.

Samples are taken shard after shard: their tables are kept, their pixels are
not, but for the few scenes that are shown.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from astropy.table import Table, vstack

from ..errors import ShardError
from ..simulation.composed import SeededNoise
from .simulation_figures import Distribution, colour_bands, grouped, scene_rgb

__all__ = [
    "SampleSummary",
    "ShardNote",
    "distributions",
    "fractions",
    "shear_versions",
    "summarise",
]

N_PICTURES = 36
"""Scenes that are shown: six rows of six."""

_TRUTH = (
    *("base_scene", "g1", "g2", "ident", "redshift", "r_mag", "r_mag_ab", "e1", "e2", "hsm_failed", "snr"),
    *("b_closest", "b_tot", "delta_mag_c", "neighbour_distance", "n_galaxies", "x", "y", "star", "real"),
    *("target_is_brightest", "noise_seed"),
)
_OBJECTS = ("star",)


@dataclass
class ShardNote:
    """One shard of a sample.

    Attributes
    ----------
    name : `str`
        File or dataset.
    scenes, bases, seed, rows : `int`
        Number of scenes; the same, where sheared versions are one; the
        shard's seed; drawn profiles.
    """

    name: str
    scenes: int
    bases: int
    seed: int
    rows: int


@dataclass
class SampleSummary:
    """A sample of any number of shards, without its pixels.

    Attributes
    ----------
    survey, kind, split, bands, settings, survey_info
        As `~..simulation.shards.StampSample` has them, the same in all shards.
    stamp_size : `int`
        Side of a stamp [pixel].
    versions : `dict` [`str`, `str`]
        What drew the scenes; where shards differ, all that occur.
    shards : `list` [`ShardNote`]
    truth : `astropy.table.Table`
        Scenes of all shards; column ``shard`` counts from 0.
    objects : `astropy.table.Table`
        Galaxies and stars of all shards, likewise.
    psf : `numpy.ndarray`, float32 [scene, kind, 3]
        FWHM [arcsec], e1 and e2 of each profile kind.
    reference_kind : `int`
        Kind of the reference band.
    pictures : `list` [(`int`, `numpy.ndarray`)]
        Row of the truth, and the noisy scene in colour, uint8 [y, x, 3].
    """

    survey: str
    kind: str
    split: str
    bands: tuple
    settings: dict
    survey_info: dict
    stamp_size: int
    versions: dict
    shards: list
    truth: Table
    objects: Table
    psf: np.ndarray
    reference_kind: int
    pictures: list = field(default_factory=list)

    @property
    def band(self):
        """The reference band's name."""
        return self.survey_info["reference_band"]

    @property
    def pixel_scale(self):
        """Pixel side of the reference band [arcsec]."""
        return self.survey_info["bands"][self.bands.index(self.band)]["pixel_scale"]

    @property
    def shown(self):
        """Scenes that distributions are of [`numpy.ndarray`, bool [scene]]:
        of a shear sample those of one version, the unsheared one.
        """
        return _main_version(self.truth)


def summarise(samples, n_pictures=N_PICTURES, seed=1):
    """Gather what a report needs from samples, one at a time.

    Parameters
    ----------
    samples : iterable of (`str`, `~..simulation.shards.StampSample`)
        Shards with their names, of one survey, kind, split and settings. Each
        may be closed once the next is asked for.
    n_pictures : `int`, optional
        Scenes to show at most, drawn at random from all shards alike.
    seed : `int`, optional
        Of that draw.

    Returns
    -------
    summary : `SampleSummary`

    Raises
    ------
    ShardError
        If there is no sample, they do not fit together, one comes twice, or
        one lacks what this version writes.
    """
    first, notes, versions, truths, objects, psfs, chosen = None, [], {}, [], [], [], []
    start = 0
    # Not by enumerate(), which would hold on to the shard before.
    for name, sample in samples:
        number = len(notes)
        _check_columns(name, sample)
        description = sample.describe()
        first = first or (name, description)
        _check_alike(first, (name, description), notes)
        bases = np.unique(sample.truth["base_scene"]).size
        notes.append(ShardNote(name, sample.n_scenes, bases, sample.seed, len(sample.scene)))
        for key, value in sample.versions.items():
            values = versions.setdefault(key, [])
            if str(value) not in values:
                values.append(str(value))
        truths.append(_numbered(sample.truth, number))
        objects.append(_numbered(sample.objects, number))
        psfs.append(np.asarray(sample.psf, np.float32))
        if number == 0:
            survey_info, band_profile = sample.survey_info, sample.band_profile
        # The smallest of random keys are a random choice among scenes whose number nobody knows yet.
        keys = np.random.default_rng([seed, number]).random(sample.n_scenes)
        keys[~_main_version(sample.truth)] = np.inf
        entries = chosen + [(key, start + k, k) for k, key in enumerate(keys) if key < np.inf]
        kept = sorted(entries, key=lambda entry: entry[0])[:n_pictures]
        chosen = [
            (key, row, what if isinstance(what, np.ndarray) else _picture(sample, what))
            for key, row, what in kept
        ]
        start += sample.n_scenes
        # The next one is made while this name still holds what it holds.
        del sample
    if first is None:
        raise ShardError("No samples to report on: expected one shard at least; simulate one")
    description = first[1]
    reference = description["bands"].index(survey_info["reference_band"])
    return SampleSummary(
        survey=description["survey"],
        kind=description["kind"],
        split=description["split"],
        bands=tuple(description["bands"]),
        settings=description["settings"],
        survey_info=survey_info,
        stamp_size=survey_info["stamp_size"],
        versions={key: "; ".join(values) for key, values in versions.items()},
        shards=notes,
        truth=vstack(truths, metadata_conflicts="silent"),
        objects=vstack(objects, metadata_conflicts="silent"),
        psf=np.concatenate(psfs),
        reference_kind=int(band_profile[reference]),
        pictures=[(row, rgb) for _, row, rgb in chosen],
    )


def _check_columns(name, sample):
    """Refuse a sample whose tables do not tell all that is shown."""
    for what, table, needed in (("truth", sample.truth, _TRUTH), ("objects", sample.objects, _OBJECTS)):
        missing = [column for column in needed if column not in table.colnames]
        if missing:
            raise ShardError(f"{name} has no {', '.join(missing)} in its table {what}: simulate it again")


def _check_alike(first, other, notes):
    """Refuse a shard that does not belong to those before it."""
    (first_name, ours), (name, theirs) = first, other
    for key in ("survey", "bands", "kind", "split", "settings"):
        if ours[key] != theirs[key]:
            a, b = ours[key], theirs[key]
            if key == "settings":
                differ = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
                key, a, b = (
                    f"settings {', '.join(differ)}",
                    [a.get(k) for k in differ],
                    [b.get(k) for k in differ],
                )
            raise ShardError(
                f"{first_name} and {name} differ in {key} ({a!r} and {b!r}): report on samples of one kind "
                "at a time"
            )
    for note in notes:
        # A scene's seed follows from the shard's: more scenes of one seed begin with the same ones.
        if note.seed == theirs["seed"]:
            raise ShardError(
                f"{note.name} and {name} have one seed, {note.seed}, so their scenes are the same: give each "
                "shard once"
            )


def _numbered(table, shard):
    """A copy of a shard's table that tells which shard it is of."""
    table = Table(table, copy=True)
    table["shard"] = np.full(len(table), shard, np.int32)
    return table


def _main_version(truth):
    g1, g2 = (np.asarray(truth[name], float) for name in ("g1", "g2"))
    unsheared = (g1 == 0) & (g2 == 0)
    if unsheared.any() or not len(truth):
        return unsheared
    return (g1 == g1[0]) & (g2 == g2[0])


def _picture(sample, index):
    """A noisy scene in colour, its noise drawn from the scene's own seed."""
    noisy = SeededNoise(sample).add(sample.image(index), index)
    return scene_rgb(noisy, sample.survey_info, colour_bands(sample.bands))


def distributions(summary):
    """Distributions that a report shows.

    Parameters
    ----------
    summary : `SampleSummary`

    Returns
    -------
    distributions : `list` [`~.simulation_figures.Distribution`]
        The first three, \\|e\\|, reference magnitude and redshift, are figure
        1 of the paper. What says nothing of this sample (overlaps of isolated
        galaxies, the width of a PSF that is the same everywhere) is left out.
    """
    shown = summary.shown
    truth = summary.truth[shown]
    get = {name: np.asarray(truth[name], float) for name in truth.colnames}
    band, system = summary.band, summary.survey_info["magnitude_system"]
    count = "galaxies" if not np.any(get["star"]) else "targets"
    many = get["n_galaxies"] > 1
    offsets = {name: get[name] - (summary.stamp_size - 1) / 2 for name in ("x", "y")}
    psf = np.asarray(summary.psf[shown, summary.reference_kind], float)

    def among(name):
        return {"all": np.where(many, get[name], np.nan)}

    def one(key, label, values, digits, **options):
        return Distribution(key, label, {"all": values}, digits, **options)

    found = [
        one("|e|", "ellipticity |e|", np.hypot(get["e1"], get["e2"]), 3, span=(0, 1), count=count),
        one(
            f"{band}",
            f"{band} magnitude ({system})",
            get["r_mag"],
            2,
            cut=summary.settings.get("mag_limit"),
            count=count,
        ),
        one("z", "redshift", get["redshift"], 2, span=(0, 1), count=count),
    ]
    more = [
        Distribution("e1, e2", "ellipticity components", {n: get[n] for n in ("e1", "e2")}, 3, span=(-1, 1)),
        one("SNR", f"signal to noise in {band}, alone", get["snr"], 1, scale="log"),
        Distribution("B_closest", "B_closest, with neighbours", among("b_closest"), 3, span=(0, 1)),
        Distribution("B_tot", "B_tot, with neighbours", among("b_tot"), 3, span=(0, 1)),
        Distribution("N", "number of galaxies and stars", {"all": get["n_galaxies"]}, 0, "integer"),
        one(
            "distance",
            "distance of the nearest neighbour [arcsec]",
            get["neighbour_distance"],
            2,
            span=(0, 1),
        ),
        one("Δ mag", f"{band} magnitude, nearest neighbour − target", get["delta_mag_c"], 2),
        Distribution(
            "offset x, y", f"target from the stamp's centre [pixels of {summary.pixel_scale:g}″]", offsets, 3
        ),
        one("PSF FWHM", f"PSF FWHM in {band} [arcsec]", psf[:, 0], 3),
        one("PSF |e|", f"PSF ellipticity in {band}", np.hypot(psf[:, 1], psf[:, 2]), 3),
    ]
    if system != "AB":
        more.insert(0, one(f"{band} AB", f"{band} magnitude (AB)", get["r_mag_ab"], 2))
    return found + [distribution for distribution in more if distribution.varies]


def fractions(summary):
    """Shares of the sample, and counts, each with what it is of.

    Parameters
    ----------
    summary : `SampleSummary`

    Returns
    -------
    rows : `list` [(`str`, `str`)]
        Sentence and value, such as "20.1 % (201 of 1000)".
    """
    truth = summary.truth[summary.shown]
    flag = {
        name: np.asarray(truth[name], bool) for name in ("hsm_failed", "star", "real", "target_is_brightest")
    }
    many = np.asarray(truth["n_galaxies"]) > 1
    rows = [("scenes with neighbours", _share(many))]
    if many.any():
        rows += [
            ("targets that are not the brightest of their scene", _share(~flag["target_is_brightest"])),
            ("the same, of scenes with neighbours", _share(~flag["target_is_brightest"][many])),
        ]
    stars = np.asarray(summary.objects["star"], bool)
    idents = np.asarray(truth["ident"])
    return rows + [
        ("targets that are stars", _share(flag["star"])),
        ("stars among all galaxies and stars drawn", _share(stars)),
        ("scenes of real galaxies", _share(flag["real"])),
        ("shapes that HSM could not measure", _share(flag["hsm_failed"])),
        ("different targets", f"{grouped(np.unique(idents).size)} of {grouped(len(idents))}"),
    ]


def _share(flags):
    n = len(flags)
    if not n:
        return "–"
    share = f"{100 * np.mean(flags):.1f}"
    return f"{share}\u202f% ({grouped(np.sum(flags))} of {grouped(n)})"


def shear_versions(summary):
    """Versions of sheared scenes.

    Parameters
    ----------
    summary : `SampleSummary`

    Returns
    -------
    versions : `astropy.table.Table`
        One row a version, in order of appearance: g1, g2, scenes, failed (by
        HSM), and e1, e2, the means over scenes that HSM measured in all
        versions.
    biases : `list` of two (`float`, `float`)
        Of each component: m = (<e>_+ - <e>_-) / (g_+ - g_-) - 1 of these
        targets alone and without noise, and its standard error; NaN where
        that component was not sheared both ways.
    """
    truth = summary.truth
    g = np.column_stack([np.asarray(truth[name], float) for name in ("g1", "g2")])
    e = np.column_stack([np.asarray(truth[name], float) for name in ("e1", "e2")])
    distinct, where, version = np.unique(g, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(where)
    version = np.argsort(order)[version.ravel()]
    distinct = distinct[order]
    keys = np.column_stack([np.asarray(truth["shard"]), np.asarray(truth["base_scene"])])
    _, base = np.unique(keys, axis=0, return_inverse=True)
    base = base.ravel()
    shapes = np.full((base.max() + 1, len(distinct), 2), np.nan)
    shapes[base, version] = e
    whole = shapes[np.isfinite(shapes).all(axis=(1, 2))]
    means = whole.mean(axis=0) if len(whole) else np.full((len(distinct), 2), np.nan)
    failed = np.asarray(truth["hsm_failed"], bool)
    table = Table(
        {
            "g1": distinct[:, 0],
            "g2": distinct[:, 1],
            "scenes": np.bincount(version, minlength=len(distinct)),
            "failed": np.bincount(version[failed], minlength=len(distinct)),
            "e1": means[:, 0],
            "e2": means[:, 1],
        }
    )
    biases = []
    for axis in (0, 1):
        alone = distinct[:, 1 - axis] == 0
        plus, minus = (np.flatnonzero(alone & (sign * distinct[:, axis] > 0)) for sign in (1, -1))
        if len(plus) != 1 or len(minus) != 1 or len(whole) < 2:
            biases.append((math.nan, math.nan))
            continue
        step = distinct[plus[0], axis] - distinct[minus[0], axis]
        slopes = (whole[:, plus[0], axis] - whole[:, minus[0], axis]) / step
        biases.append((float(slopes.mean() - 1), float(slopes.std(ddof=1) / math.sqrt(len(slopes)))))
    return table, biases
