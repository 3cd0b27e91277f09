# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole fields: multi-band coadds of galaxies as they fall on the sky."""

__all__ = ["MASK_PLANES", "Field", "FieldSettings", "isolated_stamp", "simulate_field"]

import dataclasses
import math
from dataclasses import dataclass, field

import galsim
import numpy as np
from astropy.table import Table

from ..errors import CatalogError, SurveyError, VaeError
from ..version import __version__
from . import metrics
from .geometry import overlap, stamp_origin
from .library import GalaxyLibrary
from .render import ProfileRenderer, component_profile
from .scenes import survey_info

MASK_PLANES = {
    "BAD": 0,
    "SAT": 1,
    "INTRP": 2,
    "CR": 3,
    "EDGE": 4,
    "DETECTED": 5,
    "DETECTED_NEGATIVE": 6,
    "SUSPECT": 7,
    "NO_DATA": 8,
}
"""Bit of each mask plane, as LSST's images number them."""

_PSF_SIZE = 41
_SHAPE_STAMP = 64
_MAX_TRIES = 100

# A galaxy's stamp grows until its edge is below this part of the sky's noise.
_EDGE_NOISE = 0.05


@dataclass(frozen=True)
class FieldSettings:
    """How a field is made.

    Attributes
    ----------
    size : `int` or (`int`, `int`)
        Side, or (ny, nx) [pixel].
    density_per_arcmin2 : `float`
        Galaxies per arcmin^2; their number is Poisson.
    mag_limit : `float` or `None`
        Reference-band cut in the survey's magnitudes; `None` for no cut.
    colour_gradients : `bool`
        Bulge and disc have their own colours.
    edge : `int`
        Galaxies are centred up to this many pixels outside the image, too.
    max_stamp : `int`
        Largest stamp that one galaxy is drawn on [pixel]; the smallest is 32.
    rotate : `bool`
        Rotate each galaxy by a random angle before drawing.
    sersic_round : `float`
        Rounding of the Sersic index.
    shear_g1, shear_g2 : `float`
        Lensing reduced shear of every galaxy; positions stay.
    """

    size: int | tuple[int, int] = 512
    density_per_arcmin2: float = 50.0
    mag_limit: float | None = None
    colour_gradients: bool = True
    edge: int = 16
    max_stamp: int = 256
    rotate: bool = True
    sersic_round: float = 0.05
    shear_g1: float = 0.0
    shear_g2: float = 0.0

    def __post_init__(self):
        if len(self.shape) != 2 or not all(8 <= side <= 20000 for side in self.shape):
            raise VaeError(f"size is {self.size}: expected a side or (ny, nx) of 8 to 20000 pixels")
        for name in ("density_per_arcmin2", "edge", "sersic_round"):
            if not 0 <= getattr(self, name) < math.inf:
                raise VaeError(f"{name} is {getattr(self, name)}: expected a number of at least 0")
        if not 32 <= self.max_stamp <= 1024:
            raise VaeError(f"max_stamp is {self.max_stamp}: expected 32 to 1024 pixels")
        if not math.hypot(self.shear_g1, self.shear_g2) < 1:
            raise VaeError(f"shear is ({self.shear_g1}, {self.shear_g2}): expected |g| < 1")

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
    images : `numpy.ndarray` [band, y, x] of `float32`
        Sky-subtracted pixels [the survey's image unit].
    variance : `numpy.ndarray` [band, y, x] of `float32`
        Expected variance, of sky and noiseless sources [image unit^2]; so it
        does not follow the noise.
    mask : `numpy.ndarray` [band, y, x] of `uint32`
        Bits of ``mask_planes``; all clear.
    psfs : `numpy.ndarray` [band, 41, 41] of `float64`
        PSF with the pixel, of unit sum.
    truth : `astropy.table.Table`
        One row a galaxy: id, ident, x, y [pixel], redshift, in_field (centred
        on the image), flux_<b> [image unit], mag_<b> [survey's system],
        snr_<b> (isolated), e1, e2 (KSB of the noiseless isolated galaxy in the
        reference band; NaN where hsm_failed), and what draws it again, of
        component c = 0, 1: sersic_n_<c>, hlr_<c> [arcsec], q_<c>, angle_<c>
        [rad], flux_<c>_<b> [image unit]; g1, g2 its shear.
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

    def isolated(self, row, size=64, origin=None):
        """Noiseless image of one galaxy alone: see `isolated_stamp`."""
        return isolated_stamp(self.truth[row], self.survey, size, origin)


def isolated_stamp(truth, survey, size=64, origin=None, renderer=None):
    """Draw one galaxy of a field again: alone and without noise.

    Parameters
    ----------
    truth : `astropy.table.Row` or mapping
        Row of a field's truth table.
    survey : `Survey`
        The field's; its bands are drawn.
    size : `int`
        Side of the stamp [pixel].
    origin : (`int`, `int`), optional
        (y0, x0), the field's pixel that is the stamp's first; by default the
        stamp is centred on the pixel crossing nearest the galaxy.
    renderer : `ProfileRenderer`, optional
        The survey's, kept from an earlier call.

    Returns
    -------
    stamp : `numpy.ndarray` [band, size, size] of `float32`
        [image unit]
    origin : (`int`, `int`)
        (y0, x0).
    """
    renderer = renderer or _renderer(survey)
    if origin is None:
        origin = stamp_origin(truth["x"], truth["y"], size)
    components = []
    for c in (0, 1):
        fluxes = np.array([truth[f"flux_{c}_{name}"] for name in survey.band_names], np.float64)
        if np.any(fluxes > 0):
            shape = [float(truth[f"{name}_{c}"]) for name in ("sersic_n", "hlr", "q", "angle")]
            profile = component_profile(
                *shape, shear=(float(truth["g1"]), float(truth["g2"])), sersic_round=0
            )
            components.append((profile, fluxes))
    return _draw(renderer, survey, components, truth["x"], truth["y"], origin, size), origin


def _renderer(survey):
    if len({scale for _, scale in survey.profile_kinds}) != 1:
        raise SurveyError(
            f"Bands of {survey.name} have {len({scale for _, scale in survey.profile_kinds})} pixel scales: "
            "a field needs one; select bands that share it"
        )
    return ProfileRenderer(survey.profile_kinds)


def _draw(renderer, survey, components, x, y, origin, size):
    """Components at (x, y) of the field on the stamp [band, y, x] at origin."""
    scale = survey.bands[0].pixel_scale
    centre = (size - 1) / 2
    dx, dy = (x - origin[1] - centre) * scale, (y - origin[0] - centre) * scale
    image = np.zeros((len(survey.bands), size, size), np.float32)
    for profile, fluxes in components:
        drawn = renderer.draw(profile, dx, dy, size)
        image += fluxes.astype(np.float32)[:, None, None] * drawn[survey.band_profile]
    return image


def _add(images, stamp, origin):
    """Add the part of the stamp that lies on the images."""
    in_images, in_stamp = overlap(origin, stamp.shape[-1], images.shape[1:])
    images[:, *in_images] += stamp[:, *in_stamp]


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
        Not negative; the same seed gives the same bits. Galaxies and noise
        have their own streams, so sheared fields share both.
    split : `str`
        Use only these galaxies: "train", "validation", "test" or "all".
    progress : callable, optional
        Called as ``progress(done, number)`` for each galaxy.

    Returns
    -------
    field : `Field`

    Raises
    ------
    SurveyError
        If pixel scales differ.
    CatalogError
        If no galaxy passes the cuts or none can be drawn.
    """
    renderer = _renderer(survey)
    library = GalaxyLibrary(
        galaxies.split(split), survey, settings.mag_limit, settings.colour_gradients, settings.sersic_round
    )
    placing, noising = (np.random.default_rng(s) for s in np.random.SeedSequence(int(seed)).spawn(2))
    ny, nx = settings.shape
    scale = survey.bands[0].pixel_scale
    edge = settings.edge
    area = (ny + 2 * edge) * (nx + 2 * edge) * (scale / 60) ** 2
    number = int(placing.poisson(settings.density_per_arcmin2 * area))
    # Pixels reach half a pixel beyond their centres.
    positions = placing.uniform((-0.5 - edge, -0.5 - edge), (nx - 0.5 + edge, ny - 0.5 + edge), (number, 2))

    to_electrons = np.array([band.electrons_per_unit for band in survey.bands])[:, None, None]
    sky = np.array([band.sky_level for band in survey.bands])[:, None, None]
    images = np.zeros((len(survey.bands), ny, nx), np.float32)
    psfs = np.stack([band.psf.kernel(scale, _PSF_SIZE) for band in survey.bands])
    reference = survey.band_names.index(survey.reference_band)
    rows = []
    for i, (x, y) in enumerate(positions):
        galaxy, stamp, origin = _place(placing, library, renderer, survey, settings, x, y, sky, to_electrons)
        _add(images, stamp, origin)
        row = {"id": i + 1, "ident": galaxy.pop("ident"), "x": x, "y": y, "redshift": galaxy.pop("redshift")}
        row["in_field"] = bool(-0.5 <= x < nx - 0.5 and -0.5 <= y < ny - 0.5)
        snrs = metrics.snr(stamp * to_electrons, sky[:, 0, 0])
        row.update({f"snr_{name}": snrs[b] for b, name in enumerate(survey.band_names)})
        row.update(galaxy)
        alone, start = isolated_stamp(row, survey, _SHAPE_STAMP, renderer=renderer)
        shape = metrics.ksb_shear(alone[reference], psfs[reference], x - start[1], y - start[0])
        row.update(zip(("e1", "e2", "hsm_failed"), shape))
        rows.append(row)
        if progress is not None:
            progress(i + 1, number)

    # Fourier ripples of a part in 10^5 may dip below zero, where Poisson has no meaning.
    expected = np.clip(images * to_electrons, 0.0, None) + sky
    noisy = (noising.poisson(expected) - sky) / to_electrons
    return Field(
        survey=survey,
        images=noisy.astype(np.float32),
        variance=(expected / to_electrons**2).astype(np.float32),
        mask=np.zeros(images.shape, np.uint32),
        psfs=psfs,
        truth=Table(rows) if rows else _empty_truth(survey),
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


def _place(rng, library, renderer, survey, settings, x, y, sky, to_electrons):
    """Choose a galaxy and draw it at (x, y): its truth, stamp and origin."""
    shear = (settings.shear_g1, settings.shear_g2)
    for _ in range(_MAX_TRIES):
        index = int(rng.integers(len(library)))
        rotation = rng.uniform(0.0, 2 * math.pi) if settings.rotate else 0.0
        try:
            components = library.components(index, rotation, shear)
            size, stamp = 32, None
            while stamp is None or (size < settings.max_stamp and _too_small(stamp, sky, to_electrons)):
                size = size if stamp is None else min(2 * size, settings.max_stamp)
                origin = stamp_origin(x, y, size)
                stamp = _draw(renderer, survey, components, x, y, origin, size)
        except galsim.GalSimError:
            continue
        return library.describe(index, rotation, shear, survey.band_names), stamp, origin
    raise CatalogError(f"None of {_MAX_TRIES} galaxies could be drawn: give a catalogue of sane profiles")


def _too_small(stamp, sky, to_electrons):
    """Whether light at the stamp's edge would show."""
    border = np.concatenate([stamp[:, 0], stamp[:, -1], stamp[:, :, 0], stamp[:, :, -1]], axis=1)
    return np.any(border.max(axis=1) > _EDGE_NOISE * (np.sqrt(sky) / to_electrons)[:, 0, 0])


def _empty_truth(survey):
    """The truth of a field without galaxies."""
    names = ["x", "y", "redshift", "e1", "e2", "g1", "g2"]
    names += [f"{kind}_{b}" for b in survey.band_names for kind in ("flux", "mag", "snr", "flux_0", "flux_1")]
    names += [f"{name}_{c}" for c in (0, 1) for name in ("sersic_n", "hlr", "q", "angle")]
    table = Table({"id": np.zeros(0, np.int64), "ident": np.zeros(0, np.int64)})
    table.add_columns([np.zeros(0)] * len(names), names=names)
    table.add_columns([np.zeros(0, bool)] * 2, names=["in_field", "hsm_failed"])
    return table
