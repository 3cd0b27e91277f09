# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deblend a cutout in a notebook: arrays in, galaxies out."""

import logging
from dataclasses import replace
from functools import lru_cache

import numpy as np

from ..errors import ImageError
from ..network.observation import resized
from .blend import DeblendSettings, deblend_blend
from .matching import is_psf, match_images
from .psf_range import PsfRange
from .resample import scale_ratio
from .stamps import check_cube

__all__ = ["check_bands", "deblend"]

_LOG = logging.getLogger(__name__)

# Relative difference of PSFs from what a model takes that does not matter.
_PSF_TOLERANCE = 0.1


def deblend(
    images,
    variance,
    psfs,
    centres,
    *,
    bands,
    model="lsst10yr-ugrizy",
    zero_point=None,
    pixel_scale=None,
    bad=None,
    settings=DeblendSettings(refine=True),  # noqa: B008  it is frozen
):
    """Give every galaxy of a multi-band cutout its own model.

    Parameters
    ----------
    images, variance : array-like, ``[band, y, x]``
        Background-subtracted pixels and their variance. Pixels that are not
        finite, or have no positive variance, are left out.
    psfs : sequence of array-like ``[y, x]``, or `None`
        PSF images of the bands, with the pixel, centred on their middle
        pixel; of any sum and size. `None` for the survey's own. Where they are
        sharper than the model takes images are homogenised, and models
        sharpened again; what is too wide for it is told in a log message.
    centres : array-like, ``[n, 2]``
        y and x of the galaxies [pixel], 0-based, centres of pixels at
        integers.
    bands : sequence of `str`
        Names of the bands, in the order of the arrays. Bands that the model
        knows and the cutout lacks are guessed from the others.
    model : `str`, path-like or `~..network.model.Network`, optional
        A shipped package by name, a ``*.vae.zip`` by path, or a network that
        is there already. Packages are kept in memory for the next call.
    zero_point : `float` or array-like ``[band]``, optional
        Magnitude of one unit of the images, in AB, for a model that takes
        nJy. By default the images are in the model's own unit.
    pixel_scale : `float`, optional
        [arcsec]; if it is not the model's, images are resampled, and models
        brought back, with a log message.
    bad : array-like of `bool`, ``[y, x]`` or ``[band, y, x]``, optional
        Pixels to leave out.
    settings : `DeblendSettings`, optional
        Settings; refined by default. ``DeblendSettings(refine=True,
        n_samples=1000)`` draws from each galaxy's posterior too.

    Returns
    -------
    result : `DeblendResult`
        In the order of ``centres``; models, fluxes and draws in the order of
        ``bands`` and the unit of ``images``; without the covariance. Draws
        are in the model's pixels, through the PSF that it saw: give none to
        their ``ellipticities``.

    Raises
    ------
    ImageError
        Raised if shapes do not fit, a band is not the model's, pixels are more
        than twice as large or small as the model's, or a PSF is none.
    ModelPackageError
        Raised if there is no such model.

    Examples
    --------
    >>> result = deblend(images, variance, psfs, [(40.2, 51.7), (48.9, 60.1)], bands="ugrizy")
    >>> result.models[0]  # the first galaxy alone, [band, 64, 64] from result.origins[0] on
    """
    network = _network(model) if not hasattr(model, "deblend") else model
    bands = tuple(bands)
    check_bands(bands, len(check_cube(images, variance, bad)[0]), network)
    ratio = 1.0 if pixel_scale is None else scale_ratio(pixel_scale, network)
    unit = _unit(zero_point, bands, network)[:, None, None]
    # Some units have no room in single precision.
    images, variance, good = check_cube(np.multiply(images, unit), np.multiply(variance, unit**2), bad)
    order = [bands.index(band) if band in bands else None for band in network.bands]
    shape = (len(order), *images.shape[1:])
    # A band that is not there has no good pixel.
    cube, its_variance = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for place, k in enumerate(order):
        if k is not None:
            cube[place] = np.where(good[k], images[k], 0)
            its_variance[place] = np.where(good[k], variance[k], 0)
    kernels = _psfs(psfs, bands, order, network)
    matched = match_images(
        cube,
        its_variance,
        its_variance > 0,
        network,
        lambda y, x: kernels,
        ratio=ratio,
        psf_tolerance=_PSF_TOLERANCE,
        log=_LOG,
    )
    centres = np.asarray(centres, dtype=float)
    result = deblend_blend(
        matched.images,
        matched.variance,
        matched.places(centres),
        network,
        bad=~matched.good,
        psfs=None if psfs is None else _checked_psfs(matched.psfs(0.0, 0.0), network, _LOG),
        settings=settings,
    )
    result = matched.restored(result, centres)
    kept = [network.bands.index(band) for band in bands]
    draws = result.draws
    if draws is not None:
        draws = np.full(len(draws), None)
        for k in np.flatnonzero(~result.failed):
            own = result.draws[k]
            draws[k] = replace(own, fluxes=own.fluxes[:, kept] / unit[:, 0, 0])
    return replace(
        result,
        draws=draws,
        # It is in the network's unit.
        covariance=None,
        models=(result.models[:, kept] / unit).astype(np.float32),
        fluxes=result.fluxes[:, kept] / unit[:, 0, 0],
        flux_errors=result.flux_errors[:, kept] / unit[:, 0, 0],
        missing_bands=result.missing_bands[:, kept],
        noise=result.noise[:, kept] / unit[:, 0, 0],
    )


@lru_cache(maxsize=4)
def _network(model):
    from ..network.model import Network
    from ..network.shipped import load_package

    return Network(load_package(model))


def check_bands(bands, n_images, network):
    """Refuse bands that do not fit the images, or that a network does not know or lacks.

    Parameters
    ----------
    bands : sequence of `str`
        Names of the bands.
    n_images : `int`
        How many images there are.
    network : `~..network.model.Network`
        The network.

    Raises
    ------
    ImageError
        Raised if they do not fit.
    """
    if len(bands) != n_images:
        raise ImageError(f"there are {n_images} images and {len(bands)} bands ({', '.join(bands)})")
    name, known = network.package.name, ", ".join(network.bands)
    for band in bands:
        if band not in network.bands:
            raise ImageError(
                f"model {name!r} has no band {band!r} (it has {known}): leave it out, or take a model that "
                "has it"
            )
        if bands.count(band) > 1:
            raise ImageError(f"band {band!r} is given twice")
    missing = [band for band in network.bands if band not in bands]
    if missing and network.architecture.normalisation == "fixed":
        raise ImageError(f"model {name!r} needs all of its bands ({known}), {missing[0]!r} is not given")


def _unit(zero_point, bands, network):
    """The image unit in the model's, ``[band]``."""
    if zero_point is None:
        return np.ones(len(bands))
    unit = network.package.card["image_unit"]
    if unit != "nJy":
        raise ImageError(
            f"model {network.package.name!r} takes images in {unit}, which has no AB zero point: give "
            "images in that unit, without zero_point"
        )
    zero_point = np.broadcast_to(np.asarray(zero_point, dtype=float), len(bands))
    if not np.isfinite(zero_point).all():
        raise ImageError(f"zero_point is {zero_point.tolist()}: expected the AB magnitude of one image unit")
    return 10 ** (-0.4 * (zero_point - 31.4))


def _psfs(psfs, bands, order, network):
    """PSF images of odd sides in the network's order; `None` for the survey's own."""
    if psfs is None:
        return [None] * len(order)
    # Images of the bands may differ in size.
    psfs = [np.asarray(psf, dtype=float) for psf in psfs]
    if len(psfs) != len(bands) or any(psf.ndim != 2 for psf in psfs):
        raise ImageError(
            f"PSF images have shape {', '.join(str(psf.shape) for psf in psfs[:10])}: expected "
            f"[{len(bands)} bands, y, x]"
        )
    return [None if k is None else resized(psfs[k], max(psfs[k].shape) | 1) for k in order]


def _checked_psfs(psfs, network, log):
    """PSF images as the network takes them, ``[band, y, x]``; what it was not trained with is told."""
    psf_range = PsfRange(network)
    worst = max((psf_range.departure(k, psf).worst for k, psf in enumerate(psfs) if is_psf(psf)), default=0)
    if worst > _PSF_TOLERANCE:
        log.warning(
            "The PSF differs by %.0f %%, in width or in an axis, from what model %r takes",
            100 * worst,
            network.package.name,
        )
    if not network.architecture.conditional:
        return None
    own = network.own_psfs()
    # What is given and is none is for the network to refuse.
    return np.stack([own[k] if psf is None else resized(psf, own.shape[-1]) for k, psf in enumerate(psfs)])
