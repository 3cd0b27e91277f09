# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenes on stamps: a target at the centre, alone or among neighbours.

Scene ``i`` of a seed is drawn by its own random generator, whose seed the
truth keeps. So a scene depends neither on how many others are drawn nor on
the number of processes, and any one can be drawn again by itself.
"""

__all__ = ["SceneSettings", "simulate_stamps"]

import dataclasses
import math
import multiprocessing
import sys
import threading
from dataclasses import dataclass

import galsim
import numpy as np
from astropy.table import Table

from ..errors import CatalogError, VaeError
from ..version import __version__
from . import metrics
from .library import GalaxyLibrary
from .render import ProfileRenderer
from .shards import StampSample, pack_profiles

_CHUNK_SCENES = 128
_MAX_TRIES = 1000
_PSF_SIZE = 41

FIELD_MARGIN = 16
"""Pixels around a stamp where field neighbours may lie."""

PEAK_RADIUS = 1.5
"""Pixels within which a target must show a peak (placement "field")."""

# Neighbours that stay below this everywhere, in units of the sky's noise, in every band, get no rows.
_NEGLIGIBLE = 0.01


@dataclass(frozen=True)
class SceneSettings:
    """How scenes are made. Lengths are in arcsec unless said.

    Attributes
    ----------
    kind : `str`
        "blended", or "isolated": the target alone.
    placement : `str`
        "annulus": Arcelin et al. 2020, section 2.1.3. ``min_galaxies`` to
        ``max_galaxies`` galaxies, uniform in number; the one with the smallest
        reference-band magnitude is the target; the others are uniform *in
        area* in an annulus about it.
        "field": the target is any galaxy, neighbours fall as in the sky:
        Poisson in number, uniform over the stamp and a margin of 16 pixels.
    min_galaxies, max_galaxies : `int`
        Number of galaxies, the target included (placement "annulus").
    inner_radius, outer_radius : `float`
        The annulus of placement "annulus".
    mag_limit : `float` or `None`
        Every galaxy is brighter than this in the reference band, in the
        survey's own magnitudes; `None` for no cut.
    centring : `str`
        "none": the target sits on the crossing of the four central pixels;
        "pixelisation": shifted uniformly within a square of one pixel.
    centring_jitter : `float`
        Further Gaussian shift of the target, sigma of each axis [pixel].
    density_per_arcmin2 : `float`
        Neighbours per arcmin^2 (placement "field").
    close_fraction : `float`
        Probability of one or two more neighbours in the close annulus
        (placement "field").
    close_inner_radius, close_outer_radius : `float`
        The close annulus.
    target_snr_min : `float`
        Fainter targets are drawn again: isolated reference-band SNR.
    rotate : `bool`
        Rotate each galaxy by a random angle before drawing.
    colour_gradients : `bool`
        Bulge and disc have their own colours.
    sersic_round : `float`
        Rounding of the Sersic index.
    shear_g1, shear_g2 : `float`
        Lensing reduced shear of every galaxy; positions stay.
    """

    kind: str = "blended"
    placement: str = "annulus"
    min_galaxies: int = 1
    max_galaxies: int = 4
    inner_radius: float = 0.325
    outer_radius: float = 2.0
    mag_limit: float | None = 27.5
    centring: str = "none"
    centring_jitter: float = 0.0
    density_per_arcmin2: float = 50.0
    close_fraction: float = 0.5
    close_inner_radius: float = 0.4
    close_outer_radius: float = 2.5
    target_snr_min: float = 0.0
    rotate: bool = True
    colour_gradients: bool = True
    sersic_round: float = 0.05
    shear_g1: float = 0.0
    shear_g2: float = 0.0

    def __post_init__(self):
        for name, words in (
            ("kind", ("blended", "isolated")),
            ("placement", ("annulus", "field")),
            ("centring", ("none", "pixelisation")),
        ):
            if getattr(self, name) not in words:
                raise VaeError(f"{name} is {getattr(self, name)!r}: expected {' or '.join(words)}")
        if not 1 <= self.min_galaxies <= self.max_galaxies <= 100:
            raise VaeError(
                f"min_galaxies, max_galaxies are {self.min_galaxies}, {self.max_galaxies}: "
                "expected 1 <= min <= max <= 100"
            )
        for inner, outer in (("inner_radius", "outer_radius"), ("close_inner_radius", "close_outer_radius")):
            if not 0 <= getattr(self, inner) < getattr(self, outer) < math.inf:
                raise VaeError(
                    f"{inner}, {outer} are {getattr(self, inner)}, {getattr(self, outer)}: "
                    "expected 0 <= inner < outer"
                )
        if not 0 <= self.close_fraction <= 1:
            raise VaeError(f"close_fraction is {self.close_fraction}: expected 0 to 1")
        for name in ("density_per_arcmin2", "centring_jitter", "target_snr_min", "sersic_round"):
            if not 0 <= getattr(self, name) < math.inf:
                raise VaeError(f"{name} is {getattr(self, name)}: expected a number of at least 0")
        if not math.hypot(self.shear_g1, self.shear_g2) < 1:
            raise VaeError(f"shear is ({self.shear_g1}, {self.shear_g2}): expected |g| < 1")


@dataclass
class _Drawn:
    """One galaxy on the stamp."""

    index: int
    x: float  # offsets from the stamp's centre, arcsec
    y: float
    profiles: np.ndarray  # [component, kind, y, x]
    fluxes: np.ndarray  # [component, band]


class _SceneMaker:
    """Draws scene after scene; knows nothing of the others."""

    def __init__(self, library, survey, settings, seed, split):
        self.library, self.survey, self.settings, self.seed = library, survey, settings, seed
        self.split_key = ("train", "validation", "test", "all").index(split)
        self.size = survey.stamp_size
        self.renderer = ProfileRenderer(survey.profile_kinds)
        self.band_profile = np.asarray(survey.band_profile)
        self.reference = survey.band_names.index(survey.reference_band)
        band = survey.bands[self.reference]
        self.scale = band.pixel_scale
        self.psf = band.psf.kernel(self.scale, _PSF_SIZE)
        self.electrons_per_unit = np.array([b.electrons_per_unit for b in survey.bands])
        self.sky = np.array([b.sky_level for b in survey.bands])
        self.noise = np.sqrt(self.sky) / self.electrons_per_unit
        self.same_scale = np.array([b.pixel_scale == self.scale for b in survey.bands])
        # The SNR that a galaxy would have as a point source, which no galaxy exceeds.
        electrons = library.fluxes[:, :, self.reference].sum(axis=1) * self.electrons_per_unit[self.reference]
        brightest = electrons * self.psf.max()
        best_snr = np.sqrt(electrons * brightest / (brightest + self.sky[self.reference]))
        self.bright = np.flatnonzero(best_snr >= settings.target_snr_min)
        if len(self.bright) == 0:
            raise CatalogError(
                f"None of {len(library)} galaxies reaches target_snr_min = {settings.target_snr_min}: "
                "lower it"
            )

    def scene_seed(self, number):
        sequence = np.random.SeedSequence(self.seed, spawn_key=(self.split_key, number))
        return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))

    def make(self, number):
        """Scene ``number``: rows and truth."""
        seed = self.scene_seed(number)
        rng = np.random.default_rng(seed)
        for _ in range(_MAX_TRIES):
            drawn = self._field(rng) if self.settings.placement == "field" else self._annulus(rng)
            if drawn is None:
                continue
            truth = self._truth(drawn)
            if truth["snr"] < self.settings.target_snr_min:
                continue
            return drawn, dict(scene=number, **truth, seed=seed)
        raise CatalogError(
            f"No scene with target_snr_min = {self.settings.target_snr_min} in {_MAX_TRIES} tries: "
            "lower it, or the density of neighbours"
        )

    def _target_offset(self, rng):
        offset = np.zeros(2)
        if self.settings.centring == "pixelisation":
            offset += rng.uniform(-0.5, 0.5, 2) * self.scale
        if self.settings.centring_jitter > 0:
            offset += rng.normal(0.0, self.settings.centring_jitter, 2) * self.scale
        return offset

    @staticmethod
    def _in_annulus(rng, inner, outer):
        radius = math.sqrt(rng.uniform(inner**2, outer**2))
        angle = rng.uniform(0.0, 2 * math.pi)
        return radius * np.array([math.cos(angle), math.sin(angle)])

    def _draw(self, rng, index, offset):
        """Draw a galaxy, or `None` where GalSim cannot."""
        rotation = rng.uniform(0.0, 2 * math.pi) if self.settings.rotate else 0.0
        shear = (self.settings.shear_g1, self.settings.shear_g2)
        try:
            components = self.library.components(index, rotation, shear)
            profiles = np.stack([self.renderer.draw(p, *offset, size=self.size) for p, _ in components])
        except galsim.GalSimError:
            return None
        return _Drawn(int(index), *map(float, offset), profiles, np.stack([flux for _, flux in components]))

    def _annulus(self, rng):
        settings = self.settings
        count = (
            1
            if settings.kind == "isolated"
            else int(rng.integers(settings.min_galaxies, settings.max_galaxies + 1))
        )
        indices = rng.integers(len(self.library), size=count)
        # The brightest is the target.
        indices = indices[np.argsort(self.library.reference_magnitude[indices], kind="stable")]
        offset = self._target_offset(rng)
        drawn = [self._draw(rng, indices[0], offset)]
        for index in indices[1:]:
            place = offset + self._in_annulus(rng, settings.inner_radius, settings.outer_radius)
            drawn.append(self._draw(rng, index, place))
        return None if None in drawn else drawn

    def _field(self, rng):
        settings = self.settings
        offset = self._target_offset(rng)
        drawn = [self._draw(rng, self.bright[rng.integers(len(self.bright))], offset)]
        if drawn[0] is None or self._snr(drawn[0])[self.reference] < settings.target_snr_min:
            return None
        if settings.kind == "isolated":
            return drawn
        half_side = (self.size / 2 + FIELD_MARGIN) * self.scale
        count = rng.poisson(settings.density_per_arcmin2 * (2 * half_side / 60) ** 2)
        places = list(rng.uniform(-half_side, half_side, (count, 2)))
        if rng.random() < settings.close_fraction:
            for _ in range(rng.integers(1, 3)):
                places.append(
                    offset + self._in_annulus(rng, settings.close_inner_radius, settings.close_outer_radius)
                )
        for place in places[:126]:
            neighbour = self._draw(rng, rng.integers(len(self.library)), place)
            if neighbour is None:
                return None
            image = self._image(neighbour)
            if np.any(image.max(axis=(1, 2)) > _NEGLIGIBLE * self.noise):
                drawn.append(neighbour)
        return drawn if len(drawn) == 1 or self._target_is_peak(drawn) else None

    def _image(self, galaxy):
        """Noiseless image [band, y, x] of one galaxy."""
        profiles = galaxy.profiles[:, self.band_profile]
        return np.einsum("cb,cbyx->byx", galaxy.fluxes, profiles, dtype=np.float32, casting="same_kind")

    def _reference_image(self, galaxy):
        profiles = galaxy.profiles[:, self.band_profile[self.reference]]
        return np.tensordot(galaxy.fluxes[:, self.reference], profiles.astype(np.float64), axes=1)

    def _snr(self, galaxy):
        electrons = self._image(galaxy) * self.electrons_per_unit[:, None, None]
        return metrics.snr(electrons, self.sky)

    def _target_is_peak(self, drawn):
        """Whether the noiseless scene has a local maximum near the target."""
        chosen = self.same_scale
        weights = 1.0 / self.noise[chosen]
        scene = sum(np.tensordot(weights, self._image(galaxy)[chosen], axes=1) for galaxy in drawn)
        centre = (self.size - 1) / 2
        x, y = centre + drawn[0].x / self.scale, centre + drawn[0].y / self.scale
        low_x, low_y = math.ceil(x - PEAK_RADIUS), math.ceil(y - PEAK_RADIUS)
        for row in range(low_y, math.floor(y + PEAK_RADIUS) + 1):
            for column in range(low_x, math.floor(x + PEAK_RADIUS) + 1):
                inside = 1 <= row < self.size - 1 and 1 <= column < self.size - 1
                if not inside or math.hypot(row - y, column - x) > PEAK_RADIUS:
                    continue
                if scene[row, column] >= scene[row - 1 : row + 2, column - 1 : column + 2].max():
                    return True
        return False

    def _truth(self, drawn):
        """Truth of a scene, in the reference band where not said."""
        library, target = self.library, drawn[0]
        image = self._reference_image(target)
        centre = (self.size - 1) / 2
        x, y = centre + target.x / self.scale, centre + target.y / self.scale
        e1, e2, failed = metrics.ksb_shear(image, self.psf, x, y)
        snrs = self._snr(target)
        magnitudes = library.magnitudes[target.index]
        truth = dict(
            ident=library.ident[target.index],
            redshift=library.redshift[target.index],
            **{f"mag_{name}": magnitudes[b] for b, name in enumerate(self.survey.band_names)},
            r_mag=magnitudes[self.reference],
            e1=e1,
            e2=e2,
            hsm_failed=failed,
            snr=snrs[self.reference],
            **{f"snr_{name}": snrs[b] for b, name in enumerate(self.survey.band_names)},
            b_closest=0.0,
            b_tot=0.0,
            delta_mag_c=np.nan,
            neighbour_distance=np.nan,
            n_galaxies=len(drawn),
            x=x,
            y=y,
        )
        if len(drawn) > 1:
            distances = [math.hypot(other.x - target.x, other.y - target.y) for other in drawn[1:]]
            nearest = drawn[1 + int(np.argmin(distances))]
            images = [self._reference_image(other) for other in drawn[1:]]
            truth.update(
                b_closest=metrics.b_closest(image, images[int(np.argmin(distances))]),
                b_tot=metrics.b_tot(image, image + sum(images)),
                delta_mag_c=library.reference_magnitude[nearest.index] - truth["r_mag"],
                neighbour_distance=min(distances),
            )
        return truth


def _chunk(maker, first, last):
    """Scenes first to last - 1 as plain arrays."""
    profiles, fluxes, scene, galaxy, truths = [], [], [], [], []
    for number in range(first, last):
        drawn, truth = maker.make(number)
        truths.append(truth)
        for order, one in enumerate(drawn):
            profiles.append(pack_profiles(one.profiles))
            fluxes.append(one.fluxes.astype(np.float32))
            scene += [number] * len(one.fluxes)
            galaxy += [order] * len(one.fluxes)
    return np.concatenate(profiles), np.concatenate(fluxes), scene, galaxy, truths


_worker_maker = None


def _start_worker(maker):
    global _worker_maker
    _worker_maker = maker


def _work(span):
    return _chunk(_worker_maker, *span)


def _context():
    """How to start processes: forking is quick, but not safe once threads run, as TensorFlow's do."""
    threaded = threading.active_count() > 1 or "tensorflow" in sys.modules or "jax" in sys.modules
    can_fork = "fork" in multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("fork" if can_fork and not threaded else "spawn")


def survey_info(survey):
    """A survey's numbers as a json-able `dict`."""
    bands = []
    for band in survey.bands:
        numbers = dataclasses.asdict(band)
        numbers["sky_level"] = float(band.sky_level)
        bands.append(numbers)
    return {
        "name": survey.name,
        "magnitude_system": survey.magnitude_system,
        "image_unit": survey.image_unit,
        "stamp_size": survey.stamp_size,
        "reference_band": survey.reference_band,
        "bands": bands,
    }


def simulate_stamps(galaxies, survey, settings, n_scenes, seed, split="train", progress=None, processes=1):
    """Simulate scenes on stamps.

    Parameters
    ----------
    galaxies : `GalaxyCatalog`
        Any catalogue; only its galaxies of ``split`` are used.
    survey : `Survey`
    settings : `SceneSettings`
    n_scenes : `int`
        At least 1.
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

    Returns
    -------
    sample : `StampSample`

    Raises
    ------
    VaeError
        If a number is out of range or no galaxy passes the cuts.
    """
    if n_scenes < 1 or seed < 0 or processes < 1:
        raise VaeError(
            f"n_scenes, seed, processes are {n_scenes}, {seed}, {processes}: expected at least 1, 0 and 1"
        )
    library = GalaxyLibrary(
        galaxies.split(split), survey, settings.mag_limit, settings.colour_gradients, settings.sersic_round
    )
    maker = _SceneMaker(library, survey, settings, int(seed), split)
    spans = [(i, min(i + _CHUNK_SCENES, n_scenes)) for i in range(0, n_scenes, _CHUNK_SCENES)]
    processes = min(processes, len(spans))
    parts = []

    def collect(results):
        for span, result in zip(spans, results):
            parts.append(result)
            if progress is not None:
                progress(span[1], n_scenes)

    if processes > 1:
        with _context().Pool(processes, _start_worker, (maker,)) as pool:
            collect(pool.imap(_work, spans))
    else:
        collect(_chunk(maker, *span) for span in spans)
    truths = [truth for part in parts for truth in part[4]]
    return StampSample(
        survey=survey.name,
        bands=survey.band_names,
        kind=settings.kind,
        settings=dataclasses.asdict(settings),
        seed=int(seed),
        split=split,
        versions={
            "meas_extensions_vae": __version__,
            "galsim": galsim.__version__,
            "numpy": np.__version__,
            "galaxies": galaxies.source,
            "galaxies_sha256": galaxies.sha256 or "",
        },
        profiles=np.concatenate([part[0] for part in parts]),
        fluxes=np.concatenate([part[1] for part in parts]),
        scene=np.array([number for part in parts for number in part[2]], np.int32),
        galaxy=np.array([order for part in parts for order in part[3]], np.int8),
        truth=Table({name: [truth[name] for truth in truths] for name in truths[0]}),
        band_profile=np.asarray(survey.band_profile, np.int64),
        survey_info=survey_info(survey),
    )
