# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenes on stamps: a target at the centre, alone or among neighbours.

Scene ``i`` of a seed is drawn by its own random generator, whose seed the
truth keeps. So a scene depends neither on how many others are drawn nor on
the number of processes, and any one can be drawn again by itself.
"""

__all__ = ["SceneSettings", "draw_again", "simulate_stamps"]

import dataclasses
import importlib.metadata
import multiprocessing
import sys
import threading
from dataclasses import dataclass

import galsim
import numpy as np
from astropy.table import Table

from ..errors import ShardError, VaeError
from ..galaxies.splits import SPLITS
from ..version import __version__
from .library import GalaxyLibrary, RealLibrary, StarLibrary
from .placement import Population
from .psfs import pack_psfs
from .scene_maker import SceneMaker
from .scene_settings import SceneSettings
from .shards import StampSample, pack_profiles
from .survey_info import survey_info

_CHUNK_SCENES = 128

# The same stars for every sample, so that their numbers mean the same everywhere; each split has its own.
_N_STARS, _STARS_SEED = 20_000, 1


@dataclass
class _Chunk:
    """Scenes in a row, as arrays; scenes are numbered from 0."""

    profiles: np.ndarray
    fluxes: np.ndarray
    scene: np.ndarray
    galaxy: np.ndarray
    psf: np.ndarray
    objects: dict
    truth: dict


def _draw_chunk(maker, seeds):
    scenes, measures, psfs = [], [], []
    for base, seed in enumerate(seeds):
        versions, rows, models = maker.make(seed)
        scenes += versions
        measures += [{"base_scene": base} | row for row in rows]
        psfs += [pack_psfs(models)] * len(versions)
    drawn = [(number, order, one) for number, scene in enumerate(scenes) for order, one in enumerate(scene)]
    counts = [len(one.fluxes) for _, _, one in drawn]
    objects = maker.writer.objects(scenes)
    return _Chunk(
        profiles=np.concatenate([pack_profiles(one.profiles) for _, _, one in drawn]),
        fluxes=np.concatenate([one.fluxes for _, _, one in drawn]).astype(np.float32),
        scene=np.repeat(objects["scene"], counts),
        galaxy=np.repeat(objects["galaxy"], counts),
        psf=np.stack(psfs),
        objects=objects,
        truth=maker.writer.scenes(objects, measures),
    )


_worker_maker = None


def _start_worker(maker):
    global _worker_maker
    _worker_maker = maker


def _work(seeds):
    return _draw_chunk(_worker_maker, seeds)


def _context():
    """How to start processes: forking is quick, but not safe once threads run, as TensorFlow's do."""
    threaded = threading.active_count() > 1 or "tensorflow" in sys.modules or "jax" in sys.modules
    can_fork = "fork" in multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("fork" if can_fork and not threaded else "spawn")


def _scene_seed(seed, split, number):
    sequence = np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), number))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def _scene_maker(galaxies, survey, settings, split, real):
    """The maker of scenes of one split."""
    if settings.real_fraction > 0 and real is None:
        raise VaeError(
            f"real_fraction is {settings.real_fraction} but there are no real galaxies: give real=, as "
            "galaxies.real_images.load_real_galaxies reads them, or set real_fraction to 0"
        )
    stars = real_library = None
    if settings.star_fraction > 0:
        stars = StarLibrary(survey, _N_STARS, _STARS_SEED, settings.mag_limit, split)
    if settings.real_fraction > 0:
        real_library = RealLibrary(real.split(split), survey, settings.mag_limit, settings.colour_gradients)
    library = GalaxyLibrary(
        galaxies.split(split), survey, settings.mag_limit, settings.colour_gradients, settings.sersic_round
    )
    population = Population(
        library, stars, real_library, settings.star_fraction, settings.real_fraction, settings.rotate
    )
    return SceneMaker(population, survey, settings)


class _Growing:
    """An array that grows along its first axis and is never in memory twice."""

    def __init__(self):
        self.array = None

    def append(self, part):
        if self.array is None:
            self.array = np.empty((0,) + part.shape[1:], part.dtype)
        filled = len(self.array)
        # The allocator moves pages, not bytes, when an array of this size grows.
        self.array.resize((filled + len(part),) + part.shape[1:], refcheck=False)
        self.array[filled:] = part


class _Collector:
    """Puts chunks of scenes together."""

    def __init__(self):
        self.arrays = {name: _Growing() for name in ("profiles", "fluxes", "scene", "galaxy", "psf")}
        self.tables = {"objects": {}, "truth": {}}
        self.n_scenes = self.n_bases = 0

    def append(self, chunk):
        chunk.scene += self.n_scenes
        for name, array in self.arrays.items():
            array.append(getattr(chunk, name))
        for name, columns in self.tables.items():
            new = getattr(chunk, name)
            # The two tables may share an array.
            new["scene"] = new["scene"] + np.int32(self.n_scenes)
            for column, values in new.items():
                columns.setdefault(column, _Growing()).append(values)
        base = self.tables["truth"]["base_scene"].array[self.n_scenes :]
        base += self.n_bases
        self.n_scenes += len(chunk.psf)
        self.n_bases = int(base[-1]) + 1

    def fields(self):
        """Arrays and tables of a `StampSample`, by name."""
        tables = {
            name: Table({column: values.array for column, values in columns.items()}, copy=False)
            for name, columns in self.tables.items()
        }
        return {name: array.array for name, array in self.arrays.items()} | tables


def simulate_stamps(
    galaxies, survey, settings, n_scenes, seed, split="train", progress=None, processes=1, real=None
):
    """Simulate scenes on stamps.

    Parameters
    ----------
    galaxies : `GalaxyCatalog`
        Any catalogue; only its galaxies of ``split`` are used.
    survey : `Survey`
    settings : `SceneSettings`
    n_scenes : `int`
        At least 1; with a ``shear_step`` every one comes five times.
    seed : `int`
        Not negative. The same seed gives the same bits, whatever the number
        of processes; more scenes begin with the same ones.
    split : `str`
        "train", "validation", "test" or "all".
    progress : callable, optional
        Called as ``progress(done, n_scenes)`` from time to time.
    processes : `int`
        Processes that draw. Where threads or TensorFlow run, new ones are
        spawned, so a script then needs the ``if __name__ == "__main__"`` guard.
    real : `RealGalaxies`, optional
        Galaxies with images, needed where the settings' ``real_fraction`` is
        not 0; only those of ``split`` are used.

    Returns
    -------
    sample : `StampSample`

    Raises
    ------
    VaeError
        If a number is out of range, no galaxy passes the cuts, or the
        settings demand what cannot be had.
    """
    if n_scenes < 1 or seed < 0 or processes < 1:
        raise VaeError(
            f"n_scenes, seed, processes are {n_scenes}, {seed}, {processes}: expected at least 1, 0 and 1"
        )
    maker = _scene_maker(galaxies, survey, settings, split, real)
    ends = [min(start + _CHUNK_SCENES, n_scenes) for start in range(0, n_scenes, _CHUNK_SCENES)]
    seeds = [_scene_seed(int(seed), split, number) for number in range(n_scenes)]
    chunks = [seeds[start:end] for start, end in zip([0, *ends], ends)]
    processes = min(processes, len(chunks))
    collector = _Collector()

    def collect(results):
        for end, chunk in zip(ends, results):
            collector.append(chunk)
            if progress is not None:
                progress(end, n_scenes)

    if processes > 1:
        with _context().Pool(processes, _start_worker, (maker,)) as pool:
            collect(pool.imap(_work, chunks))
    else:
        collect(_draw_chunk(maker, chunk) for chunk in chunks)
    return _sample(collector, galaxies, survey, settings, seed, split, real)


def draw_again(sample, index, galaxies, survey, real=None):
    """Draw one scene of a sample again, by itself.

    Parameters
    ----------
    sample : `StampSample`
    index : `int`
        Scene.
    galaxies, survey, real
        As in `simulate_stamps`; those that the sample was drawn with.

    Returns
    -------
    again : `StampSample`
        One scene, the same bits as in the sample.

    Raises
    ------
    ShardError
        If the galaxies, real ones too, or the survey are not the sample's.
    """
    settings = SceneSettings(**sample.settings)
    found = {"survey": survey.name, "bands": survey.band_names} | _sources(galaxies, settings, real)
    kept = {"survey": sample.survey, "bands": sample.bands} | sample.versions
    for name, ours in found.items():
        if ours != kept.get(name):
            raise ShardError(
                f"{name} is {ours!r}, the sample's is {kept.get(name)!r}: give what it was drawn with"
            )
    maker = _scene_maker(galaxies, survey, settings, sample.split, real)
    base = sample.truth["base_scene"]
    version = int(np.count_nonzero(base[: index % len(base)] == base[index]))
    collector = _Collector()
    collector.append(_draw_chunk(maker, [int(sample.truth["seed"][index])]))
    again = _sample(collector, galaxies, survey, settings, sample.seed, sample.split, real)
    return again.select([version])


def _sources(galaxies, settings, real):
    """What tells the populations of a sample, by its key in ``versions``."""
    sources = {"galaxies": galaxies.source, "galaxies_sha256": galaxies.sha256 or ""}
    if settings.real_fraction > 0 and real is not None:
        sources["real_galaxies_sha256"] = real.sha256
    return sources


def _sample(collector, galaxies, survey, settings, seed, split, real):
    versions = {
        "meas_extensions_vae": __version__,
        "galsim": galsim.__version__,
        "numpy": np.__version__,
        **_sources(galaxies, settings, real),
    }
    if settings.seeks_peaks:
        versions["photutils"] = importlib.metadata.version("photutils")
    return StampSample(
        survey=survey.name,
        bands=survey.band_names,
        kind=settings.kind,
        settings=dataclasses.asdict(settings),
        seed=int(seed),
        split=split,
        versions=versions,
        band_profile=np.asarray(survey.band_profile, np.int64),
        survey_info=survey_info(survey),
        **collector.fields(),
    )
