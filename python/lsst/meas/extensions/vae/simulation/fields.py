# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole fields: multi-band coadds of galaxies and stars as they fall on the sky."""

__all__ = ["MASK_PLANES", "Field", "FieldSettings", "isolated_stamp", "noiseless_field", "simulate_field"]

import dataclasses
import math
from dataclasses import dataclass, field

import galsim
import numpy as np
import scipy.spatial
from astropy.table import Table

from ..errors import CatalogError, VaeError
from ..galaxies.splits import split_of
from ..version import __version__
from . import metrics
from .clustering import Clustering, poisson_positions, thomas_positions
from .defects import MASK_PLANES, add_defects, full_well
from .geometry import overlap, sheared, stamp_origin
from .library import GalaxyLibrary, StarLibrary
from .noise import add_noise, check_noise, expected_variance
from .psfs import PsfVariation
from .redraw import (
    add_stamp,
    draw_components,
    field_renderer,
    isolated_stamp,
    noiseless_field,
    psf_columns,
)
from .survey_info import survey_info

_PSF_SIZE = 41
_SHAPE_STAMP = 64
_MAX_TRIES = 100

# A galaxy's stamp grows until its edge is below this part of the sky's noise.
_EDGE_NOISE = 0.05

NEIGHBOUR_RADIUS = 2.0
"""Objects closer than this count as neighbours [arcsec]: the outer radius of the paper's blends."""

# Different stars to draw from; each may come several times, as galaxies do.
_N_STARS = 2000


@dataclass(frozen=True)
class FieldSettings:
    """How a field is made. All defects are off by default.

    Attributes
    ----------
    size : `int` or (`int`, `int`)
        Side, or (ny, nx) [pixel].
    density_per_arcmin2 : `float`
        Objects per arcmin^2, stars included; their number is Poisson, or
        clustered.
    positions : `str`
        "poisson": galaxies know nothing of each other; "clustered": some fall
        in clusters (a Thomas process, see `clustering`). Stars never cluster.
    cluster_fraction : `float`
        Part of the galaxies that are in clusters.
    cluster_members : `float`
        Mean number of galaxies in a cluster.
    cluster_radius : `float`
        Gaussian sigma of the members' scatter on each axis [arcsec]. The
        defaults give 8 % more close pairs than Poisson at 50 arcmin^-2.
    star_fraction : `float`
        Part of the objects that are stars.
    mag_limit : `float` or `None`
        Reference-band cut in the survey's magnitudes; `None` for no cut.
    colour_gradients : `bool`
        Bulge and disc have their own colours.
    edge : `int`
        Objects are centred up to this many pixels outside the image, too.
    max_stamp : `int`
        Largest stamp that one object is drawn on [pixel]; the smallest is 32.
    rotate : `bool`
        Rotate each galaxy by a random angle before drawing.
    sersic_round : `float`
        Rounding of the Sersic index.
    shear_g1, shear_g2 : `float`
        Lensing reduced shear of every galaxy.
    shear_positions : `bool`
        Shear moves galaxies, too, about the centre of the image; stars stay.
    psf_fwhm_scatter : `float`
        Each distinct PSF of the survey is drawn once a field: sigma of the
        logarithm of its FWHM.
    psf_shear_sigma : `float`
        Sigma of each component of the ellipticity added to it [reduced shear].
    noise : `str`
        One of `noise.NOISE_KINDS`.
    noise_correlation : `float`
        Correlation of neighbouring pixels' noise; needs ``noise`` "normal" or "sky".
    saturation : `float`, `tuple` of `float` or `None`
        Full well of all bands, or of each [image unit]: see `defects`.
    bad_pixels : `float`
        Part of the pixels of each band that is hot or dead.
    bad_columns : `float`
        Mean number of hot or dead columns among a thousand of each band.
    edge_width : `int`
        Width of the border that is marked EDGE [pixel].
    gap_width : `int`
        Width of a stripe without data in each band, each at its own place
        [pixel].
    missing_corner : `float`
        Part of the sides that a missing corner cuts off, the same in all
        bands.
    """

    size: int | tuple[int, int] = 512
    density_per_arcmin2: float = 50.0
    positions: str = "poisson"
    cluster_fraction: float = 0.4
    cluster_members: float = 4.0
    cluster_radius: float = 10.0
    star_fraction: float = 0.0
    mag_limit: float | None = None
    colour_gradients: bool = True
    edge: int = 16
    max_stamp: int = 256
    rotate: bool = True
    sersic_round: float = 0.05
    shear_g1: float = 0.0
    shear_g2: float = 0.0
    shear_positions: bool = True
    psf_fwhm_scatter: float = 0.0
    psf_shear_sigma: float = 0.0
    noise: str = "poisson"
    noise_correlation: float = 0.0
    saturation: float | tuple[float, ...] | None = None
    bad_pixels: float = 0.0
    bad_columns: float = 0.0
    edge_width: int = 0
    gap_width: int = 0
    missing_corner: float = 0.0

    def __post_init__(self):
        if len(self.shape) != 2 or not all(8 <= side <= 20000 for side in self.shape):
            raise VaeError(f"size is {self.size}: expected a side or (ny, nx) of 8 to 20000 pixels")
        for name in ("density_per_arcmin2", "edge", "sersic_round"):
            if not 0 <= getattr(self, name) < math.inf:
                raise VaeError(f"{name} is {getattr(self, name)}: expected a number of at least 0")
        if self.positions not in ("poisson", "clustered"):
            raise VaeError(f"positions is {self.positions!r}: expected poisson or clustered")
        for name, highest in (
            ("star_fraction", 1),
            ("bad_pixels", 1),
            ("bad_columns", 1000),
            ("missing_corner", 1),
            ("edge_width", min(self.shape) / 2 - 1),
            ("gap_width", min(self.shape) - 1),
        ):
            if not 0 <= getattr(self, name) <= highest:
                raise VaeError(f"{name} is {getattr(self, name)}: expected 0 to {highest:g}")
        if not 32 <= self.max_stamp <= 1024:
            raise VaeError(f"max_stamp is {self.max_stamp}: expected 32 to 1024 pixels")
        self._check_shear()
        # These refuse numbers of theirs that are out of range.
        Clustering(self.cluster_fraction, self.cluster_members, self.cluster_radius)
        PsfVariation(self.psf_fwhm_scatter, self.psf_shear_sigma)
        check_noise(self.noise, self.noise_correlation)
        if self.saturation is not None and not np.all(np.asarray(self.saturation, float) > 0):
            raise VaeError(f"saturation is {self.saturation}: expected levels above 0 or None")

    def _check_shear(self):
        shear = math.hypot(self.shear_g1, self.shear_g2)
        if not shear < 1:
            raise VaeError(f"shear is ({self.shear_g1}, {self.shear_g2}): expected |g| < 1")
        # The corners move most. Beyond the margin there are no galaxies that could move in.
        corner = math.hypot(*self.shape) / 2
        moved = corner * (math.sqrt((1 + shear) / (1 - shear)) - 1)
        if self.shear_positions and moved > self.edge:
            raise VaeError(
                f"edge is {self.edge}, but shear {shear:g} moves galaxies of a field of {self.size} by up to "
                f"{moved:.0f} pixels: give edge {math.ceil(moved)} at least, or shear_positions False"
            )

    @property
    def shape(self):
        """(ny, nx) [pixel]."""
        return (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)


@dataclass
class Field:
    """A simulated multi-band coadd with its truth.

    Attributes
    ----------
    survey : `Survey`
        With the PSFs that the field was drawn with.
    images : `numpy.ndarray` [band, y, x] of `float32`
        Sky-subtracted pixels [the survey's image unit].
    variance : `numpy.ndarray` [band, y, x] of `float32`
        Expected variance, of sky and noiseless sources [image unit^2]; so it
        does not follow the noise. Infinite where there is no data.
    mask : `numpy.ndarray` [band, y, x] of `uint32`
        Bits of ``mask_planes``: see `defects`.
    psfs : `numpy.ndarray` [band, 41, 41] of `float64`
        PSF with the pixel, of unit sum.
    truth : `astropy.table.Table`
        One row an object: id, x, y [pixel], ident, split (0 train, 1
        validation, 2 test, by IDENT; -1 for stars), star, real, redshift (NaN
        for stars), in_field (centred on the image), flux_<b> [image unit],
        mag_<b> [survey's system], r_mag_ab (AB, of the reference band), snr_<b>
        (isolated, the paper's), e1, e2 (KSB of the noiseless isolated object in
        the reference band; NaN where hsm_failed); how blended it is, among all
        others: b_tot and b_closest (reference band, of the part of its stamp, of
        64 pixels at most, that lies on the image; NaN where none does),
        neighbour_distance [arcsec] and delta_mag_c (magnitude of the nearest
        less its own, reference band; NaN where it is alone), n_neighbours
        (within 2 arcsec); and what draws it again: stamp_size [pixel], of
        component c = 0, 1 sersic_n_<c>, hlr_<c> [arcsec], q_<c>, angle_<c>
        [rad], flux_<c>_<b> [image unit], rotation [rad] (angles have it), g1,
        g2; and of the field, the same in all rows: psf_fwhm_<b> [arcsec],
        psf_e1_<b>, psf_e2_<b> (see `redraw.survey_with_psfs`), seed.
    settings : `dict`
        The settings, json-able.
    seed : `int`
    mask_planes : `dict`
    versions : `dict`
    survey_info : `dict`
    """

    survey: object
    images: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    psfs: np.ndarray
    truth: Table
    settings: dict
    seed: int
    mask_planes: dict = field(default_factory=lambda: dict(MASK_PLANES))
    versions: dict = field(default_factory=dict)
    survey_info: dict = field(default_factory=dict)

    @property
    def bands(self):
        """Names of the bands, in order."""
        return self.survey.band_names

    @property
    def psf_models(self):
        """PSF of each band [`tuple` of `PsfModel`], without the pixel."""
        return tuple(band.psf for band in self.survey.bands)

    def isolated(self, row, size=64, origin=None):
        """Noiseless stamp of one object alone, and its first pixel: see `isolated_stamp`."""
        return isolated_stamp(self.truth[row], self.survey, size, origin)

    def noiseless(self, rows=None):
        """Noiseless image of all objects, or some: see `noiseless_field`."""
        return noiseless_field(self.truth, self.survey, self.images.shape[1:], rows)


class _Painter:
    """Adds objects to the images of a field."""

    def __init__(self, survey, settings, images):
        self.survey, self.settings, self.images = survey, settings, images
        self.renderer = field_renderer(survey)
        self.to_electrons = np.array([band.electrons_per_unit for band in survey.bands])
        self.sky = np.array([band.sky_level for band in survey.bands])
        self.faint = _EDGE_NOISE * np.sqrt(self.sky) / self.to_electrons

    def paint(self, rng, library, x, y, shear, rotate):
        """Choose a source and draw it at (x, y): its row of the truth."""
        for _ in range(_MAX_TRIES):
            index = int(rng.integers(len(library)))
            rotation = rng.uniform(0.0, 2 * math.pi) if rotate else 0.0
            try:
                stamp, origin = self._stamp(library.components(index, rotation, shear), x, y)
            except galsim.GalSimError:
                continue
            add_stamp(self.images, stamp, origin)
            return self._row(library.describe(index, rotation, shear, self.survey.band_names), x, y, stamp)
        raise CatalogError(f"None of {_MAX_TRIES} galaxies could be drawn: give a catalogue of sane profiles")

    def _stamp(self, components, x, y):
        size = 32
        while True:
            origin = stamp_origin(x, y, size)
            stamp = draw_components(self.renderer, self.survey, components, x, y, origin, size)
            border = np.concatenate([stamp[:, 0], stamp[:, -1], stamp[:, :, 0], stamp[:, :, -1]], axis=1)
            if size >= self.settings.max_stamp or np.all(border.max(axis=1) <= self.faint):
                return stamp, origin
            size = min(2 * size, self.settings.max_stamp)

    def _row(self, described, x, y, stamp):
        ny, nx = self.images.shape[1:]
        snrs = metrics.snr(stamp * self.to_electrons[:, None, None], self.sky)
        return {
            "x": x,
            "y": y,
            **described,
            "in_field": bool(-0.5 <= x < nx - 0.5 and -0.5 <= y < ny - 0.5),
            **{f"snr_{name}": snrs[b] for b, name in enumerate(self.survey.band_names)},
            "stamp_size": stamp.shape[-1],
        }


def simulate_field(galaxies, survey, settings, seed, split="all", progress=None):
    """Simulate a field.

    Parameters
    ----------
    galaxies : `GalaxyCatalog`
        Drawn from with replacement.
    survey : `Survey`
        Its bands share one pixel scale.
    settings : `FieldSettings`
    seed : `int`
        0 to 2^63 - 1; the same seed gives the same bits. Galaxies, noise, PSFs,
        defects and stars have their own streams, so that sheared fields share
        all of them, and a field with defects is that without, spoiled.
    split : `str`
        Use only these galaxies: "train", "validation", "test" or "all". Each
        has stars of its own.
    progress : callable, optional
        Called as ``progress(done, number)`` for each object.

    Returns
    -------
    field : `Field`

    Raises
    ------
    SurveyError
        If pixel scales differ, or full wells do not fit the bands.
    CatalogError
        If no galaxy passes the cuts or none can be drawn.
    VaeError
        If the seed is out of range.
    """
    if not 0 <= seed < 2**63:
        raise VaeError(f"seed is {seed}: expected 0 to 2^63 - 1")
    placing, noising, seeing, spoiling, starring = (
        np.random.default_rng(s) for s in np.random.SeedSequence(int(seed)).spawn(5)
    )
    full_well(settings.saturation, survey)
    survey = _observed(survey, settings, seeing)
    ny, nx = settings.shape
    images = np.zeros((len(survey), ny, nx), np.float32)
    painter = _Painter(survey, settings, images)
    library = GalaxyLibrary(
        galaxies.split(split), survey, settings.mag_limit, settings.colour_gradients, settings.sersic_round
    )
    rows = []
    places, stars = _positions(placing, starring, settings, survey.bands[0].pixel_scale)
    number = len(places) + len(stars)
    shear = (settings.shear_g1, settings.shear_g2)

    def paint(rng, sources, positions, shear, rotate):
        for x, y in positions:
            rows.append({"id": len(rows) + 1, **painter.paint(rng, sources, x, y, shear, rotate)})
            if progress is not None:
                progress(len(rows), number)

    paint(placing, library, places, shear, settings.rotate)
    if len(stars):
        # The same stars whatever the field's seed, as the galaxies are.
        library = StarLibrary(survey, _N_STARS, 0, settings.mag_limit, split)
        paint(starring, library, stars, (0.0, 0.0), False)
    psfs = np.stack([band.psf.kernel(band.pixel_scale, _PSF_SIZE) for band in survey.bands])
    truth = _table(rows, library, survey)
    _measure(truth, survey, images, psfs)
    # As columns, since tables' meta does not survive every storage.
    for name, value in {**psf_columns(survey), "seed": int(seed)}.items():
        truth[name] = np.full(len(truth), value)

    mask = np.zeros(images.shape, np.uint32)
    variance = np.empty_like(images)
    for b, band in enumerate(survey.bands):
        # Band by band, so that little more than the three cubes is in memory.
        one = slice(b, b + 1)
        sky, unit = [band.sky_level], [band.electrons_per_unit]
        variance[one] = expected_variance(images[one], sky, unit, settings.noise)
        images[one] = add_noise(images[one], sky, unit, noising, settings.noise, settings.noise_correlation)
    add_defects(images, variance, mask, survey, settings, spoiling)
    return Field(
        survey=survey,
        images=images,
        variance=variance,
        mask=mask,
        psfs=psfs,
        truth=truth,
        settings={**dataclasses.asdict(settings), "split": split},
        seed=int(seed),
        versions={
            "meas_extensions_vae": __version__,
            "galsim": galsim.__version__,
            "numpy": np.__version__,
            "galaxies": galaxies.source,
            "galaxies_sha256": galaxies.sha256 or "",
        },
        survey_info=survey_info(survey),
    )


def _observed(survey, settings, rng):
    """The survey with one field's PSFs."""
    variation = PsfVariation(settings.psf_fwhm_scatter, settings.psf_shear_sigma)
    models = variation.draw(rng, survey.profile_kinds)
    models = [models[kind] for kind in survey.band_profile]
    bands = tuple(dataclasses.replace(band, psf=psf) for band, psf in zip(survey.bands, models))
    return dataclasses.replace(survey, bands=bands)


def _positions(placing, starring, settings, scale):
    """Where galaxies and stars are [object, (x, y)] [pixel]."""
    ny, nx = settings.shape
    # Pixels reach half a pixel beyond their centres.
    low = -0.5 - settings.edge
    box = (low, low, nx - 1 - low, ny - 1 - low)
    density = settings.density_per_arcmin2 * (scale / 60) ** 2
    of_galaxies = density * (1 - settings.star_fraction)
    if settings.positions == "clustered":
        clustering = Clustering(
            settings.cluster_fraction, settings.cluster_members, settings.cluster_radius / scale
        )
        places = thomas_positions(placing, of_galaxies, box, clustering)
    else:
        places = poisson_positions(placing, of_galaxies, box)
    if settings.shear_positions and (settings.shear_g1 or settings.shear_g2):
        places = sheared(places, ((nx - 1) / 2, (ny - 1) / 2), settings.shear_g1, settings.shear_g2)
    if settings.star_fraction == 0:
        return places, np.zeros((0, 2))
    return places, poisson_positions(starring, density * settings.star_fraction, box)


def _table(rows, library, survey):
    """The truth, with all columns where there is no object, too."""
    empty = not rows
    if empty:
        described = library.describe(0, 0.0, (0.0, 0.0), survey.band_names)
        blank = np.zeros((len(survey), 2, 2), np.float32)
        rows = [{"id": 1, **_Painter(survey, None, blank)._row(described, 0.0, 0.0, blank)}]
    table = Table({name: [row[name] for row in rows] for name in rows[0]})
    table["split"] = split_of(table["ident"])
    return table[:0] if empty else table


def _measure(truth, survey, images, psfs):
    """Add shapes and blendedness to the truth, from noiseless images."""
    reference = survey.band_names.index(survey.reference_band)
    one_band = survey.select([survey.reference_band])
    renderer = field_renderer(one_band)
    scene = images[reference]
    distance, nearest, close = _neighbours(truth, one_band.bands[0].pixel_scale)
    shapes, blending = [], []
    for row, other in zip(truth, nearest):
        (stamp,), origin = isolated_stamp(row, one_band, _SHAPE_STAMP, renderer=renderer)
        shapes.append(metrics.ksb_shear(stamp, psfs[reference], row["x"] - origin[1], row["y"] - origin[0]))
        # No more of its light than the field has.
        cut = max(0, (_SHAPE_STAMP - row["stamp_size"]) // 2)
        stamp = stamp[cut : _SHAPE_STAMP - cut, cut : _SHAPE_STAMP - cut]
        origin = (origin[0] + cut, origin[1] + cut)
        in_scene, in_stamp = overlap(origin, len(stamp), scene.shape)
        mine = stamp[in_stamp]
        closest = 0.0 if mine.size else np.nan
        if other >= 0 and mine.size:
            (neighbour,), _ = isolated_stamp(truth[other], one_band, len(stamp), origin, renderer)
            closest = metrics.b_closest(mine, neighbour[in_stamp])
        # Rounding may leave an object alone a little below 0.
        blending.append(np.maximum([metrics.b_tot(mine, scene[in_scene]), closest], 0.0))
    shapes, blending = np.array(shapes, np.float64).reshape(-1, 3), np.array(blending).reshape(-1, 2)
    truth["e1"], truth["e2"], truth["hsm_failed"] = shapes[:, 0], shapes[:, 1], shapes[:, 2] > 0
    truth["b_tot"], truth["b_closest"] = blending[:, 0], blending[:, 1]
    magnitude = np.asarray(truth[f"mag_{survey.reference_band}"], np.float64)
    truth["neighbour_distance"] = distance
    truth["delta_mag_c"] = np.where(nearest >= 0, magnitude[nearest] - magnitude, np.nan)
    truth["n_neighbours"] = close


def _neighbours(truth, scale):
    """Distance [arcsec] and row of the nearest neighbour, and how many are close."""
    number = len(truth)
    if number < 2:
        return np.full(number, np.nan), np.full(number, -1), np.zeros(number, np.int64)
    places = np.column_stack([truth["x"], truth["y"]]) * scale
    tree = scipy.spatial.cKDTree(places)
    distances, indices = tree.query(places, k=2)
    # An object at the very same place may come first in the list of its own neighbours.
    itself = indices[:, 0] == np.arange(number)
    close = tree.query_ball_point(places, NEIGHBOUR_RADIUS, return_length=True) - 1
    return distances[:, 1], np.where(itself, indices[:, 1], indices[:, 0]), close
