# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of deblenders on stamps whose truth is known: one row a scene and method.

A method is any function from a `StampBatch` to images of the targets. A network is one; so are `undeblended`,
which leaves the blend as it is, and `isolated`, which has the target without its neighbours: the floor and
the ceiling of what a deblender reaches.
"""

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.table import Table

from ..errors import ModelPackageError, ShardError, VaeError
from ..simulation.composed import SeededNoise
from ..simulation.metrics import ksb_shear
from ..simulation.noise import expected_variance
from .cost import CostMeter
from .metrics import colour_pairs, cosine_similarity, residual_chi2, ssim

__all__ = [
    "TRUTH_COLUMNS",
    "StampBatch",
    "check_network",
    "isolated",
    "join_errors",
    "measure_stamps",
    "network_method",
    "psf_images",
    "scene_batches",
    "undeblended",
]

TRUTH_COLUMNS = (
    "scene",
    "base_scene",
    "g1",
    "g2",
    "ident",
    "snr",
    "b_closest",
    "b_tot",
    "delta_mag_c",
    "n_galaxies",
    "neighbour_distance",
    "r_mag",
)
"""Columns of a sample's truth that go with the errors."""

# Scenes that are in memory at a time: 100 MB of ten bands.
_STEP = 256

# Side of the PSF images by which shapes are corrected [pixel].
_PSF_SIZE = 41

_DOCS = {
    "method": "What gave the image that is measured",
    "kind": "Kind of the sample: isolated or blended",
    "shard": "Number of the shard",
    "snr": "Signal to noise of the target alone, in the reference band",
    "e1_true": "Ellipticity of the noiseless target, (a-b)/(a+b) cos 2 phi, PSF-corrected (KSB)",
    "e2_true": "Ellipticity of the noiseless target, (a-b)/(a+b) sin 2 phi",
    "truth_flag": "The noiseless target itself has no measurable shape",
    "e1": "Ellipticity of the method's image",
    "e2": "Ellipticity of the method's image",
    "shape_flag": "The method's image has no measurable shape",
    "e_error": "|e| less that of the target",
    "e1_error": "e1 less that of the target",
    "e2_error": "e2 less that of the target",
    "cosine": "Cosine similarity with the target, reference band",
    "ssim": "Structural similarity with the target (Wang et al. 2004), reference band",
    "chi2": "Mean of (image - target)^2 in units of the scene's noise, all pixels and bands",
}


@dataclass(frozen=True)
class StampBatch:
    """Some scenes of a sample, as deblenders meet them.

    Attributes
    ----------
    sample : `~..simulation.shards.StampSample`
        Knows truth, PSFs and skies.
    scenes : `range`
        Numbers of the scenes in the sample.
    bands : `tuple` [`str`]
        Bands of the images.
    noisy : `numpy.ndarray`, float32 ``[n, band, y, x]``
        Scenes with noise, the expected sky subtracted [image unit]; those of a composed sample of the same
        noise.
    lone : `numpy.ndarray`, float32 ``[n, band, y, x]``
        The targets without neighbours, with noise of the same seeds.
    target : `numpy.ndarray`, float32 ``[n, band, y, x]``
        The targets alone, without noise.
    noise_kind : `str`
        Kind of the noise.
    """

    sample: object
    scenes: range
    bands: tuple
    noisy: np.ndarray
    lone: np.ndarray
    target: np.ndarray
    noise_kind: str = "poisson"

    def noise(self):
        """Standard deviation of the sky's noise [image unit], float64 ``[band]``."""
        sky, unit = self.sample.sky_and_unit()
        order = [self.sample.bands.index(band) for band in self.bands]
        return (np.sqrt(sky) / unit)[order]

    def variance(self):
        """Variance of the scenes' noise, of sky and sources [image unit^2], float64 ``[n, band, y, x]``."""
        sky, unit = self.sample.sky_and_unit()
        scenes = np.stack([self.sample.image(index) for index in self.scenes])
        order = [self.sample.bands.index(band) for band in self.bands]
        return expected_variance(scenes, sky, unit, self.noise_kind)[:, order]

    def psfs(self):
        """PSF images; see `psf_images`."""
        return psf_images(self.sample, self.scenes, self.bands)


def psf_images(sample, scenes, bands, size=63):
    """PSF images, with the pixel, of some scenes of a sample.

    Parameters
    ----------
    sample : `~..simulation.shards.StampSample`
        Knows the PSFs.
    scenes : sequence of `int`
        Numbers of the scenes.
    bands : sequence of `str`
        Bands wanted.
    size : `int`, optional
        Side of the images, odd [pixel].

    Returns
    -------
    psfs : `numpy.ndarray`, float64 ``[n, band, y, x]``
        Of unit sum; equal ones are drawn once.
    """
    kinds = [int(sample.band_profile[sample.bands.index(band)]) for band in bands]
    drawn, psfs = {}, np.empty((len(scenes), len(kinds), size, size))
    for k, index in enumerate(scenes):
        for b, kind in enumerate(kinds):
            key = kind, sample.psf[index, kind].tobytes()
            if key not in drawn:
                drawn[key] = sample.psf_models(index)[kind].kernel(sample.profile_kinds[kind][1], size)
            psfs[k, b] = drawn[key]
    return psfs


def undeblended(batch):
    """Method "none": the noisy blend as it is."""
    return batch.noisy


def isolated(batch):
    """Method "isolated": the target as if it were alone, with its noise."""
    return batch.lone


def network_method(network, batch_size=256):
    """A network as a method: its image of the central galaxy, of the posterior's mean.

    A conditional network is told the PSFs of each scene.

    Parameters
    ----------
    network : `~..network.model.Network`
        Prior or deblender.
    batch_size : `int`, optional
        Stamps that go through it together.

    Returns
    -------
    method : callable
    """
    if not network.architecture.conditional:
        return lambda batch: network.deblend(batch.noisy, batch.noise(), batch_size)[0]
    return lambda batch: network.deblend(batch.noisy, batch.noise(), batch_size, batch.psfs())[0]


def check_network(network, sample):
    """Refuse a network that was made for other images than a sample's.

    Parameters
    ----------
    network : `~..network.model.Network`
        It may take fewer bands than the sample has.
    sample : `~..simulation.shards.StampSample`
        Sample.

    Raises
    ------
    ModelPackageError
        If survey, bands or size of stamps differ.
    """
    name, survey = network.package.name, network.package.card["survey"]
    if survey != sample.survey:
        raise ModelPackageError(
            f"model {name!r} is of survey {survey!r}, the sample of {sample.survey!r}: take a model that was "
            "trained for the sample's survey, or simulate stamps of the model's"
        )
    missing = [band for band in network.bands if band not in sample.bands]
    if missing:
        raise ModelPackageError(
            f"model {name!r} takes bands {', '.join(network.bands)}, the sample has "
            f"{', '.join(sample.bands)} and no {missing[0]}: take a model of the sample's bands, or simulate "
            "stamps of the model's"
        )
    size = sample.profiles.shape[-1]
    if network.stamp_size != size:
        raise ModelPackageError(
            f"model {name!r} takes stamps of {network.stamp_size} pixels, the sample's have {size}: simulate "
            "stamps of the model's size"
        )


def measure_stamps(
    samples,
    methods,
    *,
    bands=None,
    shards=None,
    noise="poisson",
    noise_correlation=0.0,
    max_scenes=0,
    progress=None,
):
    """Measure shapes and magnitudes of the targets of some samples, by several methods.

    The noiseless target is measured in the same way, and every error is the difference to that (Arcelin et
    al. 2020, section 4.1): shapes by KSB in the reference band, corrected for the PSF of the scene, from the
    stamp's centre on; magnitudes from the sum of all pixels. A few scenes at a time are in memory.

    Parameters
    ----------
    samples : sequence of `~..simulation.shards.StampSample`
        Of one survey and kind; opened or in memory.
    methods : `dict` [`str`, callable]
        Functions from a `StampBatch` to images, float ``[n, band, y, x]``. One that separates all galaxies of
        a scene to get at the target may say so by an attribute ``whole_scenes`` that is true: its cost is
        then shared among them.
    bands : sequence of `str`, optional
        Bands that methods get and give; all of the samples by default. Noise is drawn for all, so that it
        does not depend on this.
    shards : sequence of `int`, optional
        Number of each sample, for the table; from 0 by default.
    noise, noise_correlation
        As `~..simulation.composed.compose`.
    max_scenes : `int`, optional
        Use so many scenes at most, the first ones; 0 for all.
    progress : callable, optional
        Called as ``progress(done, n_scenes)``.

    Returns
    -------
    errors : `astropy.table.Table`
        One row a scene and method, methods in order: method, kind, shard, `TRUTH_COLUMNS`, e1_true, e2_true,
        truth_flag; e1, e2, shape_flag; e_error, e1_error, e2_error; of each band mag_<b>_error with
        mag_<b>_flag, and flux_<b>_error, relative; colour_<b>_<c>_error of adjacent bands and of g and r; of
        the pixels cosine and ssim in the reference band, and chi2 of all (see `~.metrics`). What could not be
        measured is NaN, with a flag where one is told. ``meta`` has survey, bands, reference_band, noise,
        noise_correlation, and by kind the samples' descriptions and what composing, measuring and each
        method took: seconds, cpu_seconds of all threads, memory beyond what was held before [MiB], and the
        sources that share that.

    Raises
    ------
    VaeError
        If the samples do not fit together, or do not tell their skies, PSFs or seeds.
    """
    samples = list(samples)
    bands = _check_samples(samples, bands)
    first = samples[0]
    reference = first.survey_info.get("reference_band")
    if reference not in bands:
        raise VaeError(
            f"the samples' reference band is {reference!r}, the bands to be measured are "
            f"{', '.join(bands)}: shapes need it among them"
        )
    cost = CostMeter(("compose", "measure", *methods))
    total = sum(sample.n_scenes for sample in samples)
    total = min(total, max_scenes) if max_scenes else total
    parts = {name: [] for name in methods}
    sources = dict.fromkeys(methods, 0)
    done = 0
    for shard, sample in zip(range(len(samples)) if shards is None else shards, samples, strict=True):
        n_scenes = min(sample.n_scenes, total - done)
        compose = _composer(sample, bands, noise, noise_correlation)
        for start in range(0, n_scenes, _STEP):
            scenes = range(start, min(start + _STEP, n_scenes))
            batch = cost.run("compose", compose, scenes)
            psfs = cost.run("measure", psf_images, sample, scenes, (reference,), _PSF_SIZE)[:, 0]
            truth = cost.run("measure", _truth, batch, shard, reference, psfs)
            variance = cost.run("measure", batch.variance)
            counts = np.asarray(sample.truth["n_galaxies"][scenes.start : scenes.stop])
            for name, method in methods.items():
                images = cost.run(name, method, batch)
                measured = cost.run("measure", _measure, images, batch, truth, reference, psfs, variance)
                parts[name].append({**truth, **measured})
                whole = getattr(method, "whole_scenes", False)
                sources[name] += int(counts.sum()) if whole else len(scenes)
            if progress is not None:
                progress(done + scenes.stop, total)
        done += n_scenes
    table = _table(parts, first.kind, bands)
    table.meta |= {
        "survey": first.survey,
        "bands": list(bands),
        "reference_band": reference,
        "noise": noise,
        "noise_correlation": float(noise_correlation),
        "samples": {first.kind: [sample.describe() for sample in samples]},
        "seconds": {first.kind: {name: round(value, 3) for name, value in cost.seconds.items()}},
        "cpu_seconds": {first.kind: {name: round(value, 3) for name, value in cost.cpu_seconds.items()}},
        "memory": {first.kind: {name: round(value, 1) for name, value in cost.memory.items()}},
        "sources": {first.kind: sources},
    }
    return table


def join_errors(tables):
    """One table of errors from those of several kinds of samples.

    Parameters
    ----------
    tables : sequence of `astropy.table.Table`
        As `measure_stamps` gives them, of one survey and the same bands.

    Returns
    -------
    errors : `astropy.table.Table`
    """
    from astropy.table import vstack

    tables = list(tables)
    joined = vstack(tables, metadata_conflicts="silent", join_type="exact")
    joined.meta = dict(tables[0].meta)
    for name in ("samples", "seconds", "cpu_seconds", "memory", "sources"):
        joined.meta[name] = {kind: value for t in tables for kind, value in t.meta.get(name, {}).items()}
    return joined


def _check_samples(samples, bands):
    """Bands that are to be measured, once the samples are known to fit together."""
    if not sum(sample.n_scenes for sample in samples):
        raise ShardError("no samples to measure on: expected one scene at least")
    first = samples[0]
    for sample in samples:
        for name in ("survey", "bands", "kind"):
            if getattr(sample, name) != getattr(first, name):
                raise ShardError(
                    f"samples differ in {name}: {getattr(first, name)!r} and {getattr(sample, name)!r}; "
                    "measure equal ones together"
                )
        missing = [name for name in TRUTH_COLUMNS if name not in sample.truth.colnames]
        if missing:
            raise ShardError(f"a sample's truth has no {missing[0]}: simulate it again")
    bands = first.bands if bands is None else tuple(bands)
    absent = [band for band in bands if band not in first.bands]
    if absent:
        raise ShardError(f"the samples have no band {absent[0]!r}; they have {', '.join(first.bands)}")
    return bands


def scene_batches(sample, bands, n_scenes, noise="poisson", noise_correlation=0.0):
    """Scenes of a sample, a few at a time, with the noise of `~..simulation.composed.compose`.

    Parameters
    ----------
    sample : `~..simulation.shards.StampSample`
    bands : sequence of `str`
        Bands wanted.
    n_scenes : `int`
        The first so many.
    noise, noise_correlation
        As `~..simulation.composed.compose`.

    Yields
    ------
    batch : `StampBatch`
    """
    compose = _composer(sample, bands, noise, noise_correlation)
    for start in range(0, n_scenes, _STEP):
        yield compose(range(start, min(start + _STEP, n_scenes)))


def _composer(sample, bands, noise, noise_correlation):
    """A function from a range of scenes to their `StampBatch`.

    Noise is that of `~..simulation.composed.compose`.
    """
    seeded = SeededNoise(sample, noise, noise_correlation)
    order = [sample.bands.index(band) for band in bands]
    shape = (len(bands), *sample.profiles.shape[2:])

    def compose(scenes):
        noisy, lone, target = (np.empty((len(scenes), *shape), np.float32) for _ in range(3))
        for k, index in enumerate(scenes):
            scene, alone = sample.image(index), sample.image(index, "target")
            noisy[k] = seeded.add(scene, index)[order]
            # One galaxy is its own scene, bit for bit.
            lone[k] = noisy[k] if np.array_equal(scene, alone) else seeded.add(alone, index)[order]
            target[k] = alone[order]
        return StampBatch(sample, scenes, bands, noisy, lone, target, noise)

    return compose


def _shapes(images, batch, reference, psfs):
    """Ellipticities ``[n, 2]`` in the reference band; NaN where there is none."""
    number = batch.bands.index(reference)
    e = np.full((len(images), 2), np.nan)
    for k, (image, psf) in enumerate(zip(images[:, number], psfs, strict=True)):
        if np.isfinite(image).all():
            e[k] = ksb_shear(image, psf)[:2]
    return e


def _truth(batch, shard, reference, psfs):
    truth = batch.sample.truth
    part = slice(batch.scenes.start, batch.scenes.stop)
    e = _shapes(batch.target, batch, reference, psfs)
    return {
        "shard": np.full(len(e), shard, np.int32),
        **{name: np.asarray(truth[name][part]) for name in TRUTH_COLUMNS},
        "e1_true": e[:, 0],
        "e2_true": e[:, 1],
        "truth_flag": np.isnan(e).any(axis=1),
    }


def _measure(images, batch, truth, reference, psfs, variance):
    images = np.asarray(images)
    if images.shape != batch.target.shape:
        raise VaeError(f"a method gave images {images.shape} for scenes {batch.target.shape}")
    e = _shapes(images, batch, reference, psfs)
    e1, e2, e1_true, e2_true = e[:, 0], e[:, 1], truth["e1_true"], truth["e2_true"]
    columns = {
        "e1": e1,
        "e2": e2,
        "shape_flag": np.isnan(e).any(axis=1),
        "e_error": np.hypot(e1, e2) - np.hypot(e1_true, e2_true),
        "e1_error": e1 - e1_true,
        "e2_error": e2 - e2_true,
    }
    flux, true_flux = (array.sum(axis=(2, 3), dtype=np.float64) for array in (images, batch.target))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = flux / true_flux
        good = np.isfinite(ratio) & (ratio > 0)
        errors = np.where(good, -2.5 * np.log10(np.where(good, ratio, 1.0)), np.nan)
    relative = np.where(np.isfinite(ratio), ratio - 1, np.nan)
    for number, band in enumerate(batch.bands):
        columns |= {f"mag_{band}_error": errors[:, number], f"mag_{band}_flag": ~good[:, number]}
        columns[f"flux_{band}_error"] = relative[:, number]
    for pair in colour_pairs(batch.bands):
        blue, red = (errors[:, batch.bands.index(band)] for band in pair)
        columns["colour_{}_{}_error".format(*pair)] = blue - red
    number = batch.bands.index(reference)
    columns["cosine"] = cosine_similarity(images[:, number], batch.target[:, number])
    columns["ssim"] = ssim(images[:, number], batch.target[:, number])
    return columns | {"chi2": residual_chi2(images, batch.target, variance)}


def _table(parts, kind, bands):
    """One table of the columns that each method has in parts."""
    names = [part for part in next(iter(parts.values()))[0]]
    counts = {method: sum(len(part["scene"]) for part in found) for method, found in parts.items()}
    table = Table()
    table["method"] = np.repeat(list(counts), list(counts.values()))
    table["kind"] = np.full(len(table), kind)
    for name in names:
        table[name] = np.concatenate([part[name] for found in parts.values() for part in found])
    for name, doc in _DOCS.items():
        table[name].description = doc
    for band in bands:
        table[f"mag_{band}_error"].unit = u.mag
        table[f"mag_{band}_error"].description = "Magnitude of the sum of all pixels, less the target's"
        table[f"mag_{band}_flag"].description = "The sum of all pixels is not above 0"
        table[f"flux_{band}_error"].description = "Sum of all pixels in that of the target, less 1"
    for pair in colour_pairs(bands):
        name = "colour_{}_{}_error".format(*pair)
        table[name].unit = u.mag
        table[name].description = "Colour {} - {} less the target's".format(*pair)
    for name in ("delta_mag_c", "r_mag"):
        table[name].unit = u.mag
    table["neighbour_distance"].unit = u.arcsec
    return table
