# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do the intervals of posteriors hold the truth as often as they say?  And the floors that make them."""

import copy
from dataclasses import replace
from functools import lru_cache

import numpy as np
from astropy.table import Table
from scipy.optimize import brentq

from ..deblending import DeblendSettings, deblend_blend, draw_posterior
from ..deblending.posterior import floor_errors, tails
from ..errors import ShardError
from ..simulation.metrics import ksb_shear
from ..simulation.statistics import half_width
from .stamps import scene_batches

__all__ = ["coverage", "fit_floors", "posterior_errors"]

_MAG = 2.5 / np.log(10)

# Scales that are tried, and groups of equal size by what is expected in which intervals ought to hold.
_SCALES, _GROUPS = np.geomspace(0.5, 4.0, 41), 4

# Degrees of freedom that are tried; 0 for a Gaussian.
_TAILS = (0.0, 8.0, 4.0, 3.0, 2.0)

# Targets that a fit takes at least.
_LEAST = 50


def posterior_errors(sample, network, n_scenes, *, n_samples=100, settings=None, seed=0, progress=None):
    """Errors of targets, and what their posteriors say these are.

    All galaxies of a scene are deblended, from their true centres; the floors of the network's card are left
    out.

    Parameters
    ----------
    sample : `~..simulation.shards.StampSample`
        Scenes, with a table of their objects.
    network : `~..network.model.Network`
        Deblender; its bands have one pixel scale.
    n_scenes : `int`
        The first so many.
    n_samples : `int`, optional
        Draws of each.
    settings : `~..deblending.DeblendSettings`, optional
        Refined by default.
    seed : `int`, optional
        Of the draws.
    progress : callable, optional
        Called as ``progress(done, n_scenes)``.

    Returns
    -------
    errors : `astropy.table.Table`
        One row a target whose noiseless image has a shape: scene, snr; e1_error, e2_error, mag_error, of the
        most probable image in the reference band; e1_sigma, e2_sigma, mag_sigma, half of the draws' 68 %
        interval.

    Raises
    ------
    ShardError
        If the sample has no table of objects, or bands of several pixel scales.
    """
    reference = sample.survey_info.get("reference_band")
    scales = set(network.package.card["pixel_scale"])
    if len(scales) > 1 or not len(sample.objects) or reference not in network.bands:
        raise ShardError(
            "posteriors are tested on scenes of one pixel scale, with a table of objects and the reference "
            f"band: this sample has {len(sample.objects)} objects, and the model {len(scales)} pixel scales"
        )
    plain = _without_floors(network)
    number, settings = network.bands.index(reference), settings or DeblendSettings(refine=True)
    rows, n_scenes = [], min(n_scenes, sample.n_scenes)
    for batch in scene_batches(sample, network.bands, n_scenes):
        variance = np.broadcast_to(np.square(batch.noise())[:, None, None], batch.noisy.shape[1:])
        psfs = batch.psfs()
        for k, scene in enumerate(batch.scenes):
            e_true = np.array(ksb_shear(batch.target[k, number], psfs[k, number])[:2])
            if np.isfinite(e_true).all():
                told = psfs[k] if network.architecture.conditional else None
                centres = target_first(sample, scene)
                result = deblend_blend(batch.noisy[k], variance, centres, plain, psfs=told, settings=settings)
                if not result.failed[0]:
                    draws = draw_posterior(result, 0, plain, n_samples, seed=seed + scene, psfs=told)
                    rows.append(
                        (
                            scene,
                            sample.truth["snr"][scene],
                            *_row(
                                result,
                                draws,
                                batch.target[k, number],
                                e_true,
                                psfs[k, number],
                                number,
                                reference,
                            ),
                        )
                    )
            if progress is not None:
                progress(scene + 1, n_scenes)
    names = ("scene", "snr", "e1_error", "e2_error", "mag_error", "e1_sigma", "e2_sigma", "mag_sigma")
    return Table(rows=rows, names=names)


def target_first(sample, scene):
    """Centres of a scene's galaxies ``[n, 2]``, y and x [pixel], the target's first."""
    objects = sample.objects[np.asarray(sample.objects["scene"]) == scene]
    objects = objects[np.argsort(objects["galaxy"], kind="stable")]
    return np.column_stack([objects["y"], objects["x"]]).astype(float)


def _row(result, draws, target, e_true, psf, number, reference):
    model = result.models[0, number]
    e = draws.ellipticities(reference, psf)
    with np.errstate(all="ignore"):
        magnitude = -2.5 * np.log10(model.sum(dtype=float) / target.sum(dtype=float))
    sigma = [_half_width(e[:, 0]), _half_width(e[:, 1]), _half_width(draws.magnitudes()[:, number])]
    return *(np.array(ksb_shear(model, psf)[:2]) - e_true), magnitude, *sigma


def _half_width(values):
    # Of fewer, no interval can be told.
    return half_width(values) if np.isfinite(values).sum() >= 10 else np.nan


def _without_floors(network):
    """The same network as if its card told no floors."""
    plain = copy.copy(network)
    card = {key: value for key, value in network.package.card.items() if key != "posterior_floors"}
    plain.package = replace(network.package, card=card)
    return plain


@lru_cache
def _held_widths(freedom):
    """Half 68.27 % and 95.45 % intervals of noise of width 1 and the errors of a floor together.

    Returns
    -------
    floors : `numpy.ndarray`
        Floors in units of the noise.
    widths : `numpy.ndarray`, ``[2, floor]``
    """
    rng = np.random.default_rng(0)
    noise = rng.normal(size=100_000) * tails(rng, 100_000, freedom)
    errors = floor_errors(rng, 100_000)
    floors = np.concatenate([[0.0], np.geomspace(0.01, 1000, 60)])
    widths = [np.percentile(np.abs(noise + floor * errors), [68.27, 95.45]) for floor in floors]
    return floors, np.transpose(widths)


def _pulls(errors, floors, level=0):
    """Errors in units of the half-widths of what is expected of them, ellipticities' and magnitudes'."""
    grid, widths = _held_widths(floors.get("tails", 0.0))

    def pull(error, sigma, floor):
        error, sigma = np.asarray(error, dtype=float), np.maximum(np.asarray(sigma, dtype=float), 1e-9)
        found = np.abs(error) / (sigma * np.interp(floor / sigma, grid, widths[level]))
        return found[np.isfinite(found)]

    scale = floors.get("shape_scale", 1.0), floors.get("flux_scale", 1.0)
    e = [pull(errors[f"e{i}_error"], scale[0] * errors[f"e{i}_sigma"], floors["shape"]) for i in (1, 2)]
    return np.concatenate(e), pull(errors["mag_error"], scale[1] * errors["mag_sigma"], _MAG * floors["flux"])


def fit_floors(errors):
    """The scales, floors and tails with which the 68.27 % and 95.45 % intervals hold as many truths.

    For each scale there is a floor with which the 68.27 % intervals do, over all targets, unless they are too
    wide without; of these the one is taken with which they hold most evenly for those with small and large
    errors. The tails rule the others.

    Parameters
    ----------
    errors : `astropy.table.Table`
        As `posterior_errors` gives them, of the validation split.

    Returns
    -------
    floors : `dict` [`str`, `float`]
        ``shape`` and ``flux``, ``shape_scale`` and ``flux_scale``, and ``tails``, as a card holds them.

    Raises
    ------
    ShardError
        If there are too few targets with errors.
    """
    told = np.all([np.isfinite(errors[name]) for name in errors.colnames], axis=0)
    errors = errors[told]
    if len(errors) < _LEAST:
        raise ShardError(
            f"errors of {len(errors)} targets are known: expected {_LEAST} at least; give more scenes"
        )
    fits = [_fit(errors, freedom) for freedom in _TAILS]
    held = [coverage(errors, floors) for floors in fits]
    return fits[int(np.argmin([abs(h["e_95"] - 0.9545) + abs(h["mag_95"] - 0.9545) for h in held]))]


def _fit(errors, freedom):
    floors = dict.fromkeys(("shape", "flux", "shape_scale", "flux_scale"), 0.0) | {"tails": freedom}
    for number, (name, column) in enumerate((("shape", "e1_sigma"), ("flux", "mag_sigma"))):
        groups = [errors[part] for part in np.array_split(np.argsort(errors[column]), _GROUPS)]

        def pulls(table, floor, scale, number=number):
            both = {"shape": floor, "flux": floor, "shape_scale": scale, "flux_scale": scale}
            return _pulls(table, {**both, "tails": freedom})[number]

        best = np.inf
        for scale in _SCALES:
            floor = _root(lambda floor, scale=scale: np.percentile(pulls(errors, floor, scale), 68.27) - 1)
            held = [np.mean(pulls(group, floor, scale) < 1) for group in [errors, *groups]]
            if (uneven := np.square(np.array(held) - 0.6827).sum()) < best:
                best = uneven
                floors |= {name: round(floor, 5), f"{name}_scale": round(float(scale), 3)}
    return floors


def _root(missing):
    """Where a falling function is zero, from 0 to 1; an end if it is nowhere."""
    if missing(0.0) <= 0:
        return 0.0
    return brentq(missing, 0.0, 1.0, xtol=1e-5) if missing(1.0) < 0 else 1.0


def coverage(errors, floors, snr=(0, np.inf)):
    """How many truths intervals hold.

    Parameters
    ----------
    errors : `astropy.table.Table`
        As `posterior_errors` gives them.
    floors : `dict`
        As `fit_floors` gives them.
    snr : pair of `float`, optional
        Range of the signal to noise of the targets.

    Returns
    -------
    held : `dict` [`str`, `float`]
        Fractions that the 68.27 % and the 95.45 % intervals hold: e_68, e_95, mag_68, mag_95; and n, how
        many targets there are.
    """
    chosen = errors[(errors["snr"] > snr[0]) & (errors["snr"] <= snr[1])]
    held = {"n": len(chosen)}
    for level, percent in enumerate((68, 95)):
        for name, pull in zip(("e", "mag"), _pulls(chosen, floors, level), strict=True):
            held[f"{name}_{percent}"] = float(np.mean(pull < 1))
    return held
