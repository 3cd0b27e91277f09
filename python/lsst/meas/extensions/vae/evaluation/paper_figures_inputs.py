# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What figures of scenes and latents are drawn from: samples and networks to arrays."""

import numpy as np

from ..deblending.posterior import floor_errors
from ..errors import ShardError
from ..simulation.metrics import ksb_shear
from .coverage import target_first
from .paper_figures_images import Posterior, SceneImages
from .simulation_figures import colour_bands, scene_rgb
from .stamps import scene_batches

__all__ = ["latent_means", "posterior_examples", "scene_examples"]

# Draws whose images are in memory at a time.
_DRAWS = 500


def latent_means(network, sample, n_scenes=0):
    """Posterior means of a sample's scenes, for figure 3.

    Parameters
    ----------
    network : `~..network.model.Network`
        Prior or deblender.
    sample : `~..simulation.shards.StampSample`
        Scenes.
    n_scenes : `int`, optional
        The first so many; 0 for all.

    Returns
    -------
    mean : `numpy.ndarray`, float32 ``[scene, latent]``
    """
    number = min(n_scenes or sample.n_scenes, sample.n_scenes)
    means = [
        network.encode(batch.noisy, batch.noise(), psfs=_psfs(network, batch))[0]
        for batch in scene_batches(sample, network.bands, number)
    ]
    return np.concatenate(means)


def scene_examples(sample, methods, number=12, *, seed=0, scenes=None, bands=None):
    """Scenes at random with what methods make of them, for figures A1 and B1.

    Parameters
    ----------
    sample : `~..simulation.shards.StampSample`
        With a table of objects.
    methods : `dict` [`str`, callable]
        As `~.stamps.measure_stamps` takes them, by what is written above their images.
    number : `int`, optional
        How many scenes.
    seed : `int`, optional
        Of the choice.
    scenes : sequence of `int`, optional
        These scenes instead.
    bands : sequence of `str`, optional
        Bands that methods get; all of the sample by default.

    Returns
    -------
    scenes : `list` [`SceneImages`]

    Raises
    ------
    ShardError
        Raised if the sample does not tell its galaxies.
    """
    chosen, bands = _choose(sample, number, seed, scenes), tuple(bands or sample.bands)
    found = []
    for batch in scene_batches(chosen, bands, chosen.n_scenes):
        images = {"input": batch.noisy}
        images |= {name: np.asarray(method(batch)) for name, method in methods.items()}
        images["target"] = batch.target
        for k, scene in enumerate(batch.scenes):
            panels = {name: _rgb(chosen, bands, array[k]) for name, array in images.items()}
            found.append(SceneImages(panels, target_first(chosen, scene)))
    return found


def posterior_examples(sample, networks, number=4, *, n_samples=10_000, seed=0, scenes=None, refine=True):
    """Errors that posteriors allow, of single targets and several networks, for figure C1.

    Networks whose bands have one pixel scale deblend the whole scene, and `~..deblending.draw_posterior`
    draws; of others, latents are drawn from the encoder's posterior, as in the paper.

    Parameters
    ----------
    sample : `~..simulation.shards.StampSample`
        With a table of objects; it has the bands of all networks.
    networks : `dict` [`str`, `~..network.model.Network`]
        Deblenders, by what is written in the legend.
    number : `int`, optional
        How many targets.
    n_samples : `int`, optional
        Draws of each.
    seed : `int`, optional
        Of the choice and of the draws.
    scenes : sequence of `int`, optional
        These scenes instead.
    refine : `bool`, optional
        Draw about the refined model?

    Returns
    -------
    posteriors : `list` [`Posterior`]

    Raises
    ------
    ShardError
        Raised if the sample does not tell its galaxies.
    """
    chosen = _choose(sample, number, seed, scenes)
    reference = sample.survey_info["reference_band"]
    errors = [{} for _ in range(chosen.n_scenes)]
    for name, network in networks.items():
        several = len(set(network.package.card["pixel_scale"])) > 1
        draw = _encoder_draws if several else _posterior_draws
        for batch in scene_batches(chosen, network.bands, chosen.n_scenes):
            for k, scene in enumerate(batch.scenes):
                drawn = draw(network, batch, k, reference, n_samples, seed, refine)
                if drawn is not None:
                    errors[scene][name] = drawn
    (batch,) = scene_batches(chosen, chosen.bands, chosen.n_scenes)
    return [
        Posterior(
            _rgb(chosen, chosen.bands, batch.noisy[k]),
            target_first(chosen, scene),
            errors[scene],
            _facts(row),
        )
        for k, (scene, row) in enumerate(zip(batch.scenes, chosen.truth))
    ]


def _facts(row):
    return {
        "S/N": float(row["snr"]),
        r"$B_\mathrm{tot}$": float(row["b_tot"]),
        "galaxies": int(row["n_galaxies"]),
    }


def _choose(sample, number, seed, scenes):
    if not len(sample.objects):
        raise ShardError("the sample has no table of objects, so no centres to mark: simulate it again")
    if scenes is None:
        rng = np.random.default_rng(seed)
        scenes = np.sort(rng.choice(sample.n_scenes, min(number, sample.n_scenes), replace=False))
    return sample.select(scenes)


def _rgb(sample, bands, image):
    """Colours of an image in some of the sample's bands, in the stretch of the whole survey."""
    whole = np.zeros((len(sample.bands), *image.shape[1:]))
    numbers = [sample.bands.index(band) for band in bands]
    whole[numbers] = image
    return scene_rgb(whole, sample.survey_info, tuple(numbers[k] for k in colour_bands(bands)))


def _psfs(network, batch):
    return batch.psfs() if network.architecture.conditional else None


def _posterior_draws(network, batch, k, reference, n_samples, seed, refine):
    """Errors of |e| and magnitude of draws of the target; None where it has no model."""
    from ..deblending import DeblendSettings, deblend_blend, draw_posterior

    psfs, number = batch.psfs()[k], network.bands.index(reference)
    variance = np.broadcast_to(np.square(batch.noise())[:, None, None], batch.noisy.shape[1:])
    told = psfs if network.architecture.conditional else None
    centres = target_first(batch.sample, batch.scenes[k])
    settings = DeblendSettings(refine=refine)
    result = deblend_blend(batch.noisy[k], variance, centres, network, psfs=told, settings=settings)
    if result.failed[0]:
        return None
    draws = draw_posterior(result, 0, network, n_samples, seed=seed + batch.scenes[k], psfs=told)
    target = batch.target[k, number]
    e = np.hypot(*draws.ellipticities(reference, psfs[number]).T)
    true = np.hypot(*ksb_shear(target, psfs[number])[:2])
    return e - true, draws.magnitudes()[:, number] + 2.5 * np.log10(target.sum(dtype=float))


def _encoder_draws(network, batch, k, reference, n_samples, seed, refine):
    """The same from the encoder's posterior, with the floors of the network's card."""
    number, psf = network.bands.index(reference), batch.psfs()[k, network.bands.index(reference)]
    told = None if _psfs(network, batch) is None else batch.psfs()[k]
    mean, sigma = network.encode(batch.noisy[k : k + 1], batch.noise(), psfs=told)
    rng = np.random.default_rng([seed, batch.scenes[k]])
    latents = mean + rng.normal(size=(n_samples, mean.shape[1])) * sigma
    e, flux = np.empty((n_samples, 2)), np.empty(n_samples)
    for start in range(0, n_samples, _DRAWS):
        part = slice(start, start + _DRAWS)
        images = network.decode(latents[part], batch.noise(), psfs=told)[:, number]
        e[part] = [ksb_shear(image, psf)[:2] for image in images]
        flux[part] = images.sum(axis=(1, 2), dtype=float)
    e = np.hypot(*(e + network.floors["shape"] * floor_errors(rng, e.shape)).T)
    flux = flux * np.exp(network.floors["flux"] * floor_errors(rng, n_samples))
    target = batch.target[k, number]
    true = np.hypot(*ksb_shear(target, psf)[:2])
    with np.errstate(invalid="ignore", divide="ignore"):
        return e - true, -2.5 * np.log10(flux / target.sum(dtype=float))
