# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does an exposure suit a network?  Bands, units, pixel scale, depth and PSF."""

__all__ = ["ExposurePsfs", "depthMismatch", "pixelRatio", "psfsAt", "selectBands"]

import contextlib
import dataclasses

import numpy as np

from .afw.adapters import asCubes, psfCube
from .afw.multiband import IncompleteDataError
from .deblending.matching import is_psf
from .deblending.psf_range import PsfRange, noise_range
from .deblending.resample import scale_ratio
from .errors import ImageError
from .network.observation import resized


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
    # A conditional network compares the noise with the survey's.
    absolute = fixed or network.architecture.conditional
    if absolute and cubes.unit is not None and unit and str(cubes.unit) != unit:
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


def pixelRatio(mExposure, network, tolerance, maxRatio, log):
    """How much larger the exposure's pixels are than the network's.

    The scale is that of the WCS, or else of the metadata's ``PIXSCALE``
    [arcsec].

    Parameters
    ----------
    mExposure : `~.afw.MultibandExposure` or afw's own
        The exposure.
    network : `~.network.model.Network`
        The network.
    tolerance : `float`
        Largest relative difference that is none.
    maxRatio : `float`
        How much larger or smaller pixels may be.
    log : `logging.Logger`
        For a warning where nothing tells the scale.

    Returns
    -------
    ratio : `float`
        1 within the tolerance, or where nothing tells the scale.

    Raises
    ------
    ImageError
        Raised if it is beyond ``maxRatio``, or no number.
    """
    scale = _pixelScale(mExposure)
    if scale is None:
        log.warning(
            "The exposure has neither a WCS nor PIXSCALE: its pixels are taken to be those of model %r",
            network.package.name,
        )
        return 1.0
    return scale_ratio(scale, network, tolerance, maxRatio, "exposure")


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


def psfsAt(cubes, log):
    """The PSFs of an exposure by place.

    Parameters
    ----------
    cubes : `~.afw.adapters.Cubes`
        The exposure.
    log : `logging.Logger`
        For a warning, once, where it does not tell a PSF.

    Returns
    -------
    psfsAt : callable
        Gives, of y and x in the cubes [pixel], a `list` of PSF images
        ``[y, x]``, one for each band: `None` where there is none, NaN of a
        band that is missing.
    """
    warned = []

    def psfs(y, x):
        x0, y0 = cubes.xy0
        try:
            return list(cubes.psf(x0 + x, y0 + y))
        except Exception as error:  # afw's PSFs raise errors of C++
            if not warned:
                kind = "" if isinstance(error, ImageError) else f"{type(error).__name__}: "
                log.warning("No PSF to compare with the model's, which stands in: %s%s", kind, error)
            warned.append(True)
            partial = isinstance(error, IncompleteDataError)
            return _partial(error, cubes.bands) if partial else [None] * len(cubes.images)

    return psfs


class ExposurePsfs:
    """PSF images of an exposure where sources are, and whether they suit a network.

    A conditional network takes the PSF at each source, and suits all widths
    and ellipticities that it was trained with. Any other knows one PSF, which
    that at the middle of the exposure is compared with. Where the exposure
    does not tell the PSF of one of its bands the network's own stands in, and
    does not suit.

    Parameters
    ----------
    cubes : `~.afw.adapters.Cubes`
        The exposure.
    network : `~.network.model.Network`
        The network.
    tolerance : `float`
        Relative difference of the widths, or of an axis by its ellipticity,
        that suits.
    log : `logging.Logger`
        For a warning.
    matched : `~.deblending.matching.MatchedImages`, optional
        The exposure as the network sees it, in whose pixels places then are.
    """

    def __init__(self, cubes, network, tolerance, log, matched=None):
        self._psfsAt = psfsAt(cubes, log) if matched is None else matched.psfs
        self._tolerance, self._log = tolerance, log
        self._name, self._off = network.package.name, {}
        self.vary = network.architecture.conditional
        """Are they wanted at each source?"""
        self._range = PsfRange(network)
        self._size, self._nBands = network.stamp_size - 1, len(cubes.images)
        self._worst = 0.0
        if not self.vary:
            ny, nx = (cubes if matched is None else matched).images.shape[1:]
            self._middle = self._at((ny - 1) / 2, (nx - 1) / 2)[1]

    def __call__(self, centres):
        """PSF images at sources.

        Parameters
        ----------
        centres : `numpy.ndarray` ``[n, 2]``
            y and x in the cube [pixel].

        Returns
        -------
        psfs : `numpy.ndarray`, float32 ``[n, band, y, x]``
        """
        psfs = np.empty((len(centres), self._nBands, self._size, self._size), np.float32)
        for k, (y, x) in enumerate(centres):
            kernels, self._off[y, x] = self._at(y, x)
            for band, kernel in enumerate(kernels):
                psfs[k, band] = resized(kernel, self._size)
        return psfs

    def reference(self, centre, number):
        """The PSF image of one band at a place.

        Parameters
        ----------
        centre : sequence of `float`
            y and x in the cube [pixel].
        number : `int`
            Of the band.

        Returns
        -------
        psf : `numpy.ndarray`, ``[y, x]``
            The network's own where the exposure cannot tell it.
        """
        return self._at(*centre)[0][number]

    def mismatch(self, centre):
        """Does the PSF at a source, in any band, not suit?

        Of a source whose PSF was not asked for, a conditional network says no.

        Parameters
        ----------
        centre : sequence of `float`
            y and x, as they were given before.

        Returns
        -------
        mismatch : `bool`
        """
        return self._off.get(tuple(centre), False) if self.vary else self._middle

    def warn(self):
        """Tell, once all sources are done, if PSFs did not suit."""
        if self._worst > self._tolerance:
            self._log.warning(
                "The PSF differs by %.0f %%, in width or in an axis, from %s of model %r: objects are "
                "flagged deblend_vae_psfMismatch",
                100 * self._worst,
                "those" if self.vary else "that",
                self._name,
            )

    def _at(self, y, x):
        """PSF images of all bands at a place, and whether one of them does not suit."""
        kernels, worst, untold = [], 0.0, False
        for band, kernel in enumerate(self._psfsAt(y, x)):
            untold |= kernel is None
            # A kernel that could not be had is NaN: its band is missing.
            if not is_psf(kernel):
                kernels.append(self._range.own(band, self._size))
                continue
            kernels.append(kernel)
            worst = max(worst, self._range.departure(band, kernel).worst)
        self._worst = max(self._worst, worst)
        return kernels, bool(untold or worst > self._tolerance)


def depthMismatch(noise, network, tolerance):
    """Which sources were observed deeper, or less deep, than a network was trained for.

    Parameters
    ----------
    noise : `numpy.ndarray`, ``[n, band]``
        Standard deviation of the background, in the network's pixels and
        unit; not finite for bands without data.
    network : `~.network.model.Network`
        The network.
    tolerance : `float`
        Relative difference of the noise beyond that of its training that does
        not matter.

    Returns
    -------
    mismatch : `numpy.ndarray` of `bool`, ``[n]``
        In some band.
    """
    lowest, highest = noise_range(network)
    with np.errstate(invalid="ignore"):
        off = (noise > highest * (1 + tolerance)) | (noise < lowest / (1 + tolerance))
    return (off & np.isfinite(noise)).any(axis=1)


def _partial(error, bands):
    """The PSFs that an `IncompleteDataError` has, in the order of bands; `None` for the others."""
    found = {}
    with contextlib.suppress(ImageError):
        if error.partialPsf is not None:
            found = dict(zip(error.partialPsf.bands, psfCube(error.partialPsf), strict=True))
    return [found.get(band) for band in bands]


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
