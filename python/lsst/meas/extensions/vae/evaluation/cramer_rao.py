# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What noise allows: the Cramer-Rao bound of shape and magnitude of the target of a scene.

No unbiased measurement has a variance below J^T F^-1 J, with J how the measured number follows the parameters
of all galaxies of the scene, and F their Fisher matrix, the sum over pixels of dI/dp dI/dq / variance. What
is measured are the numbers that deblenders are judged by: KSB's e1, e2 and |e| of the noiseless target, and
the magnitude of the sum of its pixels.

A galaxy has these parameters: its centre x and y [arcsec]; log_size, how much all of it is stretched; a shear
g1, g2 of all of it; concentration, which is the Sersic index, or of a galaxy of bulge and disc the logit of
the bulge's share of the light, one number for all bands; and log_flux_<b> of each band. A star has its centre
and fluxes. So position, size, shape, profile and colours of each galaxy can be any, by as few parameters as
that takes: a galaxy of two components has as many as one of one. With shapes of its components apart there
would be more to measure, and more parameters never make a bound lower: what holds for the few holds for the
many.

What is not bounded: a measurement that is biased, or knows more than the pixels. A deblender's prior knows
what galaxies look like, and a shape that noise drowns is best guessed to be round, which scatters less than
any unbiased measurement. So ratios to the bound say little below a signal to noise of some tens. Noise is
taken as independent between pixels and of known variance, and the number of galaxies as known: where a
deblender misses one, or sees two in one, its error is of another kind.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from astropy.table import Table

from ..errors import ShardError, VaeError
from ..simulation.metrics import ksb_shear
from ..simulation.noise import expected_variance
from ..simulation.profiles import SERSIC_RANGE, component_profile, point_source, rounded_index
from ..simulation.render import ProfileRenderer
from .stamps import psf_images

__all__ = [
    "SHAPE_PARAMETERS",
    "Fisher",
    "ParametricGalaxy",
    "add_bounds",
    "fisher",
    "parametric_scenes",
    "scene_bounds",
    "stamp_bounds",
]

SHAPE_PARAMETERS = ("x", "y", "log_size", "g1", "g2", "concentration")
"""Parameters of a galaxy beside its fluxes."""

# Half the distance over which derivatives are taken, by parameter: where the error of the finite difference
# and that of single precision are both below 10^-3.
_STEPS = {"x": 0.02, "y": 0.02, "log_size": 0.02, "g1": 0.01, "g2": 0.01, "concentration": 0.1}

# Smallest eigenvalue of a Fisher matrix of unit diagonal that is more than rounding.
_DEGENERATE = 1e-9

# Part of the square of a gradient that may lie where pixels tell nothing: leaving it out lowers the bound.
_MOST_LOST = 1e-3

# Neighbours with less signal to noise on the stamp are left out: their own rounding would count as pixels.
_FAINTEST = 0.1

_MAG = 2.5 / math.log(10)

# PSF images of scenes drawn at a time, and their side [pixel].
_STEP, _PSF_SIZE = 256, 41


@dataclass(frozen=True)
class ParametricGalaxy:
    """A galaxy of one Sersic profile or bulge and disc, or a star.

    Attributes
    ----------
    shapes : `tuple` [(`float`, `float`, `float`, `float`)]
        Sersic index, circularised half-light radius [arcsec], axis ratio and position angle [rad] of each
        component, the bulge first; empty for a star.
    fluxes : `numpy.ndarray`, float64 ``[component, band]``
        [image unit]; a star has one.
    x, y : `float`
        Centre, from the stamp's [arcsec].
    log_size : `float`
        Logarithm of a factor of all radii.
    g1, g2 : `float`
        Shear after all else [reduced shear].
    concentration : `float`
        Added to the Sersic index, or to the logit of the bulge's share of the flux.
    """

    shapes: tuple
    fluxes: np.ndarray
    x: float = 0.0
    y: float = 0.0
    log_size: float = 0.0
    g1: float = 0.0
    g2: float = 0.0
    concentration: float = 0.0

    @property
    def parameters(self):
        """Names of what can vary beside the fluxes [`tuple` of `str`]."""
        return SHAPE_PARAMETERS if self.shapes else SHAPE_PARAMETERS[:2]

    def image(self, renderer, band_profile, size):
        """Draw it, without noise.

        Parameters
        ----------
        renderer : `~..simulation.render.ProfileRenderer`
            Of the profile kinds; each component is drawn once for each of them, not for each band.
        band_profile : `numpy.ndarray`, int64 ``[band]``
            Which kind each band has.
        size : `int`
            Side of the stamp [pixel].

        Returns
        -------
        image : `numpy.ndarray`, float64 ``[band, y, x]``
            [image unit]
        """
        fluxes = self._fluxes()
        image = np.zeros((len(band_profile), size, size))
        for profile, flux in zip(self._profiles(), fluxes, strict=True):
            drawn = renderer.draw(profile, self.x, self.y, size)
            image += flux[:, None, None] * drawn[band_profile]
        return image

    def _profiles(self):
        if not self.shapes:
            return [point_source()]
        factor = math.exp(self.log_size)
        # Steps of the index that the tables of drawn galaxies have already, where those are of rounded ones.
        step = self.concentration if len(self.shapes) == 1 else 0.0
        return [
            component_profile(round(n + step, 4), factor * hlr, q, angle, (self.g1, self.g2), sersic_round=0)
            for n, hlr, q, angle in self.shapes
        ]

    def _fluxes(self):
        if len(self.shapes) < 2 or not self.concentration:
            return self.fluxes
        total = self.fluxes.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            odds = self.fluxes[0] / self.fluxes[1] * math.exp(self.concentration)
            share = np.where(np.isinf(odds), 1.0, odds / (1 + odds))
        share = np.where(total > 0, share, 0.0)
        return np.stack([share * total, (1 - share) * total])

    def steps(self, name):
        """The same galaxy with a parameter lower and higher, and how far these are apart."""
        low, high = (getattr(self, name) + sign * _STEPS[name] for sign in (-1, 1))
        if name == "concentration" and len(self.shapes) == 1:
            index = self.shapes[0][0]
            low, high = max(low, SERSIC_RANGE[0] - index), min(high, SERSIC_RANGE[1] - index)
        return replace(self, **{name: low}), replace(self, **{name: high}), high - low


@dataclass(frozen=True)
class Fisher:
    """What a scene's pixels tell of the parameters of its galaxies.

    Attributes
    ----------
    names : `tuple` [(`int`, `str`)]
        Galaxy and parameter of each row.
    matrix : `numpy.ndarray`, float64 ``[parameter, parameter]``
        Fisher matrix.
    """

    names: tuple
    matrix: np.ndarray

    def without(self, known):
        """The same with some parameters known.

        Parameters
        ----------
        known : sequence of `str`
            Parameters of all galaxies, such as x and y.

        Returns
        -------
        fisher : `Fisher`
        """
        free = [row for row, (_, name) in enumerate(self.names) if name not in known]
        return Fisher(tuple(self.names[row] for row in free), self.matrix[np.ix_(free, free)])

    def sigma(self, gradients):
        """The least standard deviation of unbiased estimates of some functions of the parameters.

        Parameters
        ----------
        gradients : `numpy.ndarray`, float64 ``[..., parameter]``
            Derivatives of each function by the parameters.

        Returns
        -------
        sigma : `numpy.ndarray`, float64 ``[...]``
            NaN where a gradient is not finite, or the pixels cannot tell the parameters apart.
        """
        gradients = np.asarray(gradients, np.float64)
        scale = np.sqrt(np.diag(self.matrix))
        nothing = np.full(gradients.shape[:-1], np.nan)
        seen = scale > 0
        if (gradients[..., ~seen] != 0).any():
            return nothing
        scale, gradients = scale[seen], gradients[..., seen]
        matrix = self.matrix[np.ix_(seen, seen)] / np.outer(scale, scale)
        if not np.isfinite(matrix).all():
            return nothing
        values, vectors = np.linalg.eigh(matrix)
        # Of what leaves next to no trace in the pixels, as the shape of a neighbour beyond the stamp's edge.
        told = values > _DEGENERATE
        along = np.square((gradients / scale) @ vectors)
        lost = along[..., ~told].sum(axis=-1) > _MOST_LOST * along.sum(axis=-1)
        variance = (along[..., told] / values[told]).sum(axis=-1)
        return np.where(lost, np.nan, np.sqrt(variance))


def fisher(galaxies, variance, draw, bands):
    """The Fisher matrix of all parameters of a scene's galaxies.

    Parameters
    ----------
    galaxies : sequence of `ParametricGalaxy`
    variance : `numpy.ndarray`, float ``[band, y, x]``
        Of the noise, above 0 [image unit^2].
    draw : callable
        From a galaxy to its image, float ``[band, y, x]`` [image unit]; see `ParametricGalaxy.image`.
    bands : sequence of `str`
        Names of the bands.

    Returns
    -------
    fisher : `Fisher`
        Rows galaxy by galaxy, each with the parameters of its shape and then its fluxes.
    """
    drawn = [_Drawn.of(galaxy, draw) for galaxy in galaxies]
    return _fisher(drawn, variance, bands)


@dataclass(frozen=True)
class _Drawn:
    """Images of a galaxy: as it is, and of each parameter lower and higher with how far these are apart."""

    image: np.ndarray
    varied: dict

    @classmethod
    def of(cls, galaxy, draw):
        varied = {}
        for name in galaxy.parameters:
            low, high, distance = galaxy.steps(name)
            varied[name] = (draw(low), draw(high), distance)
        return cls(draw(galaxy), varied)


def _fisher(drawn, variance, bands):
    names = [
        (number, name)
        for number, one in enumerate(drawn)
        for name in (*one.varied, *(f"log_flux_{band}" for band in bands))
    ]
    derivatives = np.zeros((len(names), *variance.shape))
    row = 0
    for one in drawn:
        for low, high, distance in one.varied.values():
            derivatives[row] = (high - low) / distance
            row += 1
        for band in range(len(bands)):
            derivatives[row, band] = one.image[band]
            row += 1
    derivatives /= np.sqrt(variance)
    flat = derivatives.reshape(len(names), -1)
    return Fisher(tuple(names), flat @ flat.T)


def scene_bounds(galaxies, variance, draw, bands, reference, psf, known=()):
    """Bounds of shape and magnitudes of the first galaxy of a scene.

    Parameters
    ----------
    galaxies : sequence of `ParametricGalaxy`
        The target first.
    variance, draw, bands
        As `fisher`.
    reference : `str`
        Band of the shapes.
    psf : `numpy.ndarray` ``[y, x]``
        PSF of that band, by which shapes are corrected.
    known : sequence of `str`, optional
        Parameters of all galaxies that need not be measured, such as x and y where centres are given.

    Returns
    -------
    bounds : `dict` [`str`, `float`]
        Of e1, e2 and e (KSB), and mag_<b>: the least standard deviation of an unbiased measurement; NaN where
        there is none to be told. That of e is of small errors: near e = 0 no measurement of |e| is unbiased.
    """
    target, number = _Drawn.of(galaxies[0], draw), list(bands).index(reference)
    others = [_Drawn.of(galaxy, draw) for galaxy in galaxies[1:]]
    others = [one for one in others if (np.square(one.image) / variance).sum() > _FAINTEST**2]
    found = _fisher([target, *others], variance, bands).without(known)
    shape = np.array(ksb_shear(target.image[number], psf)[:2])
    gradients = np.zeros((3 + len(bands), len(found.names)))
    total = target.image.sum(axis=(1, 2))
    for row, (galaxy, name) in enumerate(found.names):
        if galaxy:
            break
        if name in target.varied:
            low, high, distance = target.varied[name]
            ends = [np.array(ksb_shear(image[number], psf)[:2]) for image in (high, low)]
            gradients[:2, row] = (ends[0] - ends[1]) / distance
            gradients[3:, row] = -_MAG * (high - low).sum(axis=(1, 2)) / (distance * total)
        else:
            gradients[3 + bands.index(name.removeprefix("log_flux_")), row] = -_MAG
    with np.errstate(invalid="ignore"):
        gradients[2] = shape @ gradients[:2] / np.hypot(*shape)
    names = ("e1", "e2", "e", *(f"mag_{band}" for band in bands))
    return dict(zip(names, found.sigma(gradients).tolist(), strict=True))


def parametric_scenes(sample, galaxies, n_scenes, bands=None):
    """The galaxies of a sample's scenes, as the parameters that drew them.

    Parameters
    ----------
    sample : `~..simulation.shards.StampSample`
        With a table of its objects.
    galaxies : `~..galaxies.catalog.GalaxyCatalog`
        What it was drawn from, whole or its split.
    n_scenes : `int`
        The first so many.
    bands : sequence of `str`, optional
        Bands of the fluxes; all by default.

    Yields
    ------
    scene : `list` [`ParametricGalaxy`] or `None`
        The target first; `None` for a scene with a galaxy that was drawn from an image.

    Raises
    ------
    ShardError
        If these are not the sample's galaxies, or its objects are not known.
    """
    expected = sample.versions.get("galaxies_sha256", "")
    if (galaxies.sha256 or "") != expected or galaxies.source != sample.versions.get("galaxies"):
        raise ShardError(
            f"galaxies are of {galaxies.source} {(galaxies.sha256 or '')[:12]}, the sample's of "
            f"{sample.versions.get('galaxies')} {expected[:12]}: give what it was drawn from"
        )
    if not len(sample.objects):
        raise ShardError("the sample has no table of its objects: simulate it again")
    order = [sample.bands.index(band) for band in (sample.bands if bands is None else bands)]
    place = {int(ident): row for row, ident in enumerate(galaxies.ident)}
    kind = int(sample.band_profile[sample.bands.index(sample.survey_info["reference_band"])])
    scale = sample.profile_kinds[kind][1]
    centre = (sample.profiles.shape[-1] - 1) / 2
    starts = np.searchsorted(np.asarray(sample.objects["scene"]), np.arange(n_scenes + 1))
    for index in range(n_scenes):
        objects = sample.objects[starts[index] : starts[index + 1]]
        if np.any(objects["real"]):
            yield None
            continue
        rows = sample.rows(index)
        numbers, fluxes = sample.galaxy[rows], sample.fluxes[rows].astype(np.float64)[:, order]
        scene = []
        for one in objects[np.argsort(objects["galaxy"], kind="stable")]:
            own = fluxes[numbers == one["galaxy"]]
            scene.append(
                ParametricGalaxy(
                    () if one["star"] else _shapes(galaxies, place, sample, one, len(own)),
                    own,
                    x=(float(one["x"]) - centre) * scale,
                    y=(float(one["y"]) - centre) * scale,
                    g1=float(one["g1"]),
                    g2=float(one["g2"]),
                )
            )
        yield scene


def _shapes(galaxies, place, sample, one, n_components):
    """Sersic index, radius, axis ratio and turned angle of the components of an object that have light."""
    row = place.get(int(one["ident"]))
    if row is None:
        raise ShardError(f"the galaxies have no number {one['ident']}, which is in the sample: give all")
    components = galaxies.components[row]
    lit = np.flatnonzero(components.flux_fraction > 0)
    if len(lit) != n_components:
        raise ShardError(
            f"galaxy {one['ident']} has {len(lit)} components, in the sample {n_components}: give what that "
            "was drawn from"
        )
    rounding = sample.settings.get("sersic_round", 0.0)
    return tuple(
        (
            rounded_index(float(components.sersic_n[c]), rounding),
            float(components.hlr[c]),
            float(components.q[c]),
            float(components.position_angle[c]) + float(one["rotation"]),
        )
        for c in lit
    )


def stamp_bounds(
    sample,
    galaxies,
    *,
    bands=None,
    shard=0,
    max_scenes=0,
    known=(),
    alone=False,
    noise="poisson",
    progress=None,
):
    """Bounds of shape and magnitudes of the targets of a sample.

    Parameters
    ----------
    sample : `~..simulation.shards.StampSample`
        Of parametric galaxies and stars; with others, scenes of these have no bounds.
    galaxies : `~..galaxies.catalog.GalaxyCatalog`
        What it was drawn from, whole or its split.
    bands : sequence of `str`, optional
        Bands that are measured together; all by default.
    shard : `int`, optional
        Number of the sample, for the table.
    max_scenes : `int`, optional
        Use so many scenes at most, the first ones; 0 for all.
    known : sequence of `str`, optional
        As `scene_bounds`.
    alone : `bool`, optional
        Of the target as if it had no neighbours?
    noise : `str`, optional
        Kind of the noise, as `~.stamps.measure_stamps`; not correlated.
    progress : callable, optional
        Called as ``progress(done, n_scenes)``.

    Returns
    -------
    bounds : `astropy.table.Table`
        One row a scene: kind, shard, scene; e1_bound, e2_bound, e_bound and mag_<b>_bound as `scene_bounds`,
        and bound_flag: there are no bounds.

    Raises
    ------
    VaeError
        If the bands lack the reference band or are not the sample's, a parameter that is said to be known is
        none, or as `parametric_scenes`.
    """
    bands = tuple(sample.bands if bands is None else bands)
    reference = sample.survey_info.get("reference_band")
    if reference not in bands or not set(bands) <= set(sample.bands):
        raise VaeError(
            f"bands are {', '.join(bands)}: expected some of {', '.join(sample.bands)}, the reference band "
            f"{reference!r} among them"
        )
    strange = set(known) - {*SHAPE_PARAMETERS, *(f"log_flux_{band}" for band in bands)}
    if strange:
        raise VaeError(
            f"known parameter {sorted(strange)[0]!r}: expected {', '.join(SHAPE_PARAMETERS)} "
            "or log_flux_<band>"
        )
    total = min(sample.n_scenes, max_scenes) if max_scenes else sample.n_scenes
    order = [sample.bands.index(band) for band in bands]
    profile, size = np.asarray(sample.band_profile)[order], sample.profiles.shape[-1]
    sky, unit = (numbers[order] for numbers in sample.sky_and_unit())
    usual, psfs = ProfileRenderer(sample.profile_kinds), None
    names = ("e1", "e2", "e", *(f"mag_{band}" for band in bands))
    found = {name: np.full(total, np.nan) for name in names}
    for index, scene in enumerate(parametric_scenes(sample, galaxies, total, bands)):
        if index % _STEP == 0:
            scenes = range(index, min(index + _STEP, total))
            psfs = psf_images(sample, scenes, (reference,), _PSF_SIZE)[:, 0]
        if scene is not None:
            renderer = usual.with_psfs(sample.psf_models(index))

            def draw(galaxy, renderer=renderer):
                return galaxy.image(renderer, profile, size)

            scene = scene[:1] if alone else scene
            light = sum(draw(galaxy) for galaxy in scene)
            variance = expected_variance(light, sky, unit, noise)
            bounds = scene_bounds(scene, variance, draw, bands, reference, psfs[index % _STEP], known)
            for name, value in bounds.items():
                found[name][index] = value
        if progress is not None:
            progress(index + 1, total)
    table = Table({"kind": np.full(total, sample.kind), "shard": np.full(total, shard, np.int32)})
    table["scene"] = np.asarray(sample.truth["scene"][:total])
    for name, values in found.items():
        table[f"{name}_bound"] = values
        table[f"{name}_bound"].description = f"Cramer-Rao bound of {name}"
    table["bound_flag"] = np.isnan(np.stack(list(found.values()))).any(axis=0)
    return table


def add_bounds(errors, bounds):
    """Errors of targets with their bounds.

    Parameters
    ----------
    errors : `astropy.table.Table`
        As `~.stamps.measure_stamps` gives it.
    bounds : `astropy.table.Table`
        As `stamp_bounds` gives it, or several joined.

    Returns
    -------
    errors : `astropy.table.Table`
        The same rows with the columns of ``bounds`` in addition; NaN, with a flag, where there are none of a
        scene. `~.stamp_table.summarise_stamps` compares with them.
    """
    keys = [
        list(zip(*(np.asarray(table[name]).tolist() for name in ("kind", "shard", "scene")), strict=True))
        for table in (errors, bounds)
    ]
    place = {key: row for row, key in enumerate(keys[1])}
    rows = np.array([place.get(key, -1) for key in keys[0]])
    joined = errors.copy()
    for name in bounds.colnames[3:]:
        missing = True if name == "bound_flag" else np.nan
        joined[name] = np.where(rows >= 0, np.asarray(bounds[name])[rows], missing)
        joined[name].description = bounds[name].description
    return joined
