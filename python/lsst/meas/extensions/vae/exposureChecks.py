# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does an exposure suit a network?  Bands, units, pixel scale and PSF."""

__all__ = ["checkPixelScale", "psfMismatch", "selectBands"]

import dataclasses

import numpy as np

from .afw.adapters import asCubes
from .errors import ImageError


def selectBands(mExposure, network, log):
    """Plain cubes of an exposure in the network's bands.

    Parameters
    ----------
    mExposure : `~.afw.MultibandExposure` or afw's own
        The exposure.
    network : `~.network.model.Network`
        The network.
    log : `logging.Logger`
        For a warning about missing bands.

    Returns
    -------
    cubes : `~.afw.adapters.Cubes`
        In the network's order; a missing band has zero variance, which marks
        every pixel of it as unusable.
    missing : `list` [`str`]
        Bands that the exposure lacks.

    Raises
    ------
    ImageError
        Raised if the network lacks a band, needs one that is missing, or
        takes another unit.
    """
    cubes = asCubes(mExposure)
    wanted, name = network.bands, network.package.name
    unknown = [band for band in cubes.bands if band not in wanted]
    if unknown:
        raise ImageError(
            f"model {name!r} has no band {unknown[0]!r} (it has {', '.join(wanted)}): leave that "
            "band out of the exposure or take a model that has it"
        )
    fixed = network.architecture.normalisation == "fixed"
    unit = network.package.card.get("image_unit")
    if fixed and cubes.unit is not None and unit and str(cubes.unit) != unit:
        raise ImageError(f"the exposure is in {cubes.unit}, model {name!r} takes {unit}: convert it first")
    missing = [band for band in wanted if band not in cubes.bands]
    if missing and fixed:
        raise ImageError(
            f"the exposure lacks band {missing[0]!r}, which model {name!r} needs (bands "
            f"{', '.join(wanted)}): add it or take a model without it"
        )
    if missing:
        log.warning(
            "The exposure lacks band(s) %s: the model guesses them from the others", ", ".join(missing)
        )
    order = [cubes.bands.index(band) if band in cubes.bands else None for band in wanted]
    if order == list(range(len(wanted))):
        return cubes, missing
    return _reordered(cubes, order, wanted), missing


def checkPixelScale(mExposure, network, tolerance, log):
    """Compare the exposure's pixel scale with the network's.

    The scale is that of the WCS, or else of the metadata's ``PIXSCALE``
    [arcsec].

    Raises
    ------
    ImageError
        Raised if it differs, in any band, by more than the tolerance
        (relative).
    """
    name = network.package.name
    scale = _pixelScale(mExposure)
    if scale is None:
        log.warning(
            "The exposure has neither a WCS nor PIXSCALE: its pixels are taken to be those of model %r", name
        )
        return
    for band, expected in zip(network.bands, network.package.card["pixel_scale"], strict=True):
        # Not "> tolerance": NaN has to be refused too.
        if not abs(scale / expected - 1) <= tolerance:
            raise ImageError(
                f"the exposure has {scale:g} arcsec a pixel, model {name!r} takes {expected:g} in {band}: "
                "resample the exposure or take a model of its pixel scale"
            )


def _pixelScale(mExposure):
    """Pixel scale [arcsec], or `None` where nothing tells it."""
    wcs = mExposure.getWcs() if hasattr(mExposure, "getWcs") else None
    if hasattr(wcs, "getPixelScale"):
        return wcs.getPixelScale().asArcseconds()
    if hasattr(wcs, "proj_plane_pixel_scales"):
        return float(wcs.proj_plane_pixel_scales()[0].to_value("arcsec"))
    metadata = mExposure.getMetadata() if hasattr(mExposure, "getMetadata") else None
    value = (metadata or {}).get("PIXSCALE")
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        raise ImageError(f"PIXSCALE of the exposure is {value!r}: expected a number of arcsec") from None


def psfMismatch(cubes, network, tolerance, log):
    """Is the PSF, in any band, wider or narrower than the network's?

    Parameters
    ----------
    cubes : `~.afw.adapters.Cubes`
        The exposure; its PSF is taken at the centre.
    network : `~.network.model.Network`
        The network.
    tolerance : `float`
        Relative difference of the widths.
    log : `logging.Logger`
        For a warning.

    Returns
    -------
    mismatch : `bool`
        True also where there is no PSF to compare.
    """
    from .survey import PsfModel

    card = network.package.card
    ny, nx = cubes.images.shape[1:]
    try:
        kernels = cubes.psf(cubes.xy0[0] + nx / 2, cubes.xy0[1] + ny / 2)
    except ImageError as error:
        log.warning("No PSF to compare with the model's: %s", error)
        return True
    worst = 0.0
    for kernel, psf, scale in zip(kernels, card["psf"], card["pixel_scale"], strict=True):
        # A kernel that could not be had is NaN: its band is missing.
        if np.isfinite(kernel).all():
            expected = PsfModel(psf["kind"], psf["fwhm"], psf["beta"]).kernel(scale, size=len(kernel))
            worst = max(worst, abs(np.sqrt(_effectiveArea(kernel) / _effectiveArea(expected)) - 1))
    if worst > tolerance:
        log.warning(
            "The PSF differs by %.0f %% in width from that of model %r: objects are flagged "
            "deblend_vae_psfMismatch",
            100 * worst,
            network.package.name,
        )
    return bool(worst > tolerance)


def _effectiveArea(kernel):
    """Pixels that a kernel covers, 1 / sum k^2: noise hardly moves it."""
    return 1.0 / np.sum((kernel / kernel.sum()) ** 2)


def _reordered(cubes, order, bands):
    """Cubes with bands in another order; `None` stands for one without data."""

    def take(array, fill):
        return np.stack(
            [array[k] if k is not None else np.full(array.shape[1:], fill, array.dtype) for k in order]
        )

    def psf(x, y):
        kernels = cubes.psf(x, y)
        return np.stack([kernels[k] if k is not None else np.full(kernels.shape[1:], np.nan) for k in order])

    return dataclasses.replace(
        cubes,
        images=take(cubes.images, 0),
        variance=take(cubes.variance, 0),
        maskbits=take(cubes.maskbits, 0),
        bands=tuple(bands),
        psf=psf,
    )
