# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Detect and deblend a field in turns, with no assumed number of objects.

Sources are detected and deblended, all models are subtracted, and what stands
out of the residual is added; then everything is deblended anew, until nothing
stands out any more.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import fftconvolve
from scipy.spatial import cKDTree

from ..errors import ImageError
from ..network.observation import resized
from ..simulation.detection import detect, effective_area
from .blend import DeblendResult, DeblendSettings, deblend_blend
from .stamps import check_cube

__all__ = ["FieldResult", "IterationSettings", "deblend_field", "middle_psfs", "new_peaks"]

# Light that models miss: how far it lies about a source (scale of (1 + r^2 / scale^2)^-1.5, in FWHM of
# the PSF), and how far at most [pixel]. Galaxies' wings reach beyond stamps, and fall off as slowly.
_SPREAD, _REACH = 4.0, 64


@dataclass(frozen=True)
class IterationSettings:
    """Settings of `deblend_field`.

    The defaults are chosen on fields of lsst10yr with 640 x 640 pixels and 228
    galaxies each, all of them above SNR 10, deblended in one pass by the
    shipped model: ``benchmarks/detect.py`` makes them.

    Parameters
    ----------
    threshold : `float`
        Detection threshold of every pass [Gaussian sigma]; at 5, noise alone
        makes one false peak in five fields of 1 000 x 1 000 pixels.
    model_error : `float`
        How much of the models' light, spread about the sources, counts as an
        error of the residual's light. Of 0.4, 0.5 and 0.6, with which the
        second pass finds 164, 152 and 146 of the 263 galaxies that the first
        misses in 30 fields, and 47, 31 and 24 false ones, the middle.
    min_separation : `float`
        New sources keep this distance from those known [FWHM of the PSF]. Of
        40 galaxies found, none lay nearer to another source than 0.9; 0.5
        keeps residuals of wrong centres out.
    min_edge_distance : `float`
        After the first pass, sources keep this distance from the edge of the
        images, which cuts the stamps of their neighbours, so that models fail
        [FWHM of the PSF]. 2 loses 11 of 162 galaxies, and 32 of 76 false ones.
    max_passes : `int`
        Passes at most. In 30 fields, the third one finds 4 galaxies and 9
        false ones, two further ones a galaxy and 5 false ones.

    Raises
    ------
    ImageError
        Raised for numbers out of range.
    """

    threshold: float = 5.0
    model_error: float = 0.5
    min_separation: float = 0.5
    min_edge_distance: float = 2.0
    max_passes: int = 3

    def __post_init__(self):
        if not 0 < self.threshold <= 30:
            raise ImageError(f"threshold is {self.threshold!r}: expected 0 to 30 sigma")
        for name in ("model_error", "min_separation", "min_edge_distance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ImageError(f"{name} is {getattr(self, name)!r}: expected a number of at least 0")
        if not self.max_passes >= 1:
            raise ImageError(f"max_passes is {self.max_passes!r}: expected at least 1")


@dataclass
class FieldResult:
    """The n sources of a field.

    Attributes
    ----------
    deblended : `DeblendResult`
        Models, fluxes and flags of the last joint solve.
    centres : `numpy.ndarray`, float64 ``[n, 2]``
        y and x, pixels.
    detection_pass : `numpy.ndarray`, int64 ``[n]``
        The pass that found the source, from 1; sources are in this order.
    snr : `numpy.ndarray`, float64 ``[n]``
        Matched-filter signal to noise of all bands where the source was
        found; after the first pass, the noise includes ``model_error``.
    n_passes : `int`
        Passes made. The last one may have found nothing.
    stopped : {"nothing new", "max_passes"}
        Why there was no further one.
    """

    deblended: DeblendResult
    centres: np.ndarray
    detection_pass: np.ndarray
    snr: np.ndarray
    n_passes: int
    stopped: str


def deblend_field(
    images,
    variance,
    network,
    *,
    bad=None,
    saturated=None,
    psfs=None,
    settings=IterationSettings(),
    deblend_settings=DeblendSettings(),  # noqa: B008  it is frozen
    progress=None,
):
    """Detect and deblend the sources of a cube, in turns.

    Parameters
    ----------
    images, variance : array-like, ``[band, y, x]``
        Background-subtracted pixels and their variance, bands in the
        network's order. Pixels that are not finite, or have no positive
        variance, are left out.
    network : `~..network.model.Network`
        A trained network.
    bad : array-like of `bool`, ``[y, x]`` or ``[band, y, x]``, optional
        Pixels to leave out.
    saturated : array-like of `bool`, ``[y, x]`` or ``[band, y, x]``, optional
        Pixels cut at the full well; each such plateau is one peak.
    psfs : array-like, ``[band, y, x]``, or callable, optional
        PSF images, as `deblend_blend` takes them. Detection uses that of the
        middle of the cube.
    settings : `IterationSettings`, optional
        Of detection.
    deblend_settings : `DeblendSettings`, optional
        Of `deblend_blend`. Refinement comes once, after the last pass: refined
        models hide more of the galaxies that are still to be found.
    progress : callable, optional
        Called with the number of sources done and their total, each batch of
        each pass.

    Returns
    -------
    result : `FieldResult`
        Models, centres, and the passes that found them.

    Raises
    ------
    ImageError
        Raised if shapes do not fit, the number of bands is not the
        network's, or a PSF is none.
    """
    images, variance, good = check_cube(images, variance, bad)

    def solve(centres, solve_settings, known=None):
        return deblend_blend(
            images,
            variance,
            centres,
            network,
            bad=bad,
            psfs=psfs,
            settings=solve_settings,
            known=known,
            progress=progress if len(centres) else None,
        )

    quick = replace(deblend_settings, refine=False, n_samples=0)
    result = solve(np.zeros((0, 2)), quick)  # which checks all shapes
    psf = middle_psfs(psfs, network, images.shape[1:])
    found, passes, stopped = np.zeros((0, 3)), [], "max_passes"
    for number in range(1, settings.max_passes + 1):
        scene = result.scene(images.shape) if len(found) else None
        new = new_peaks(images, variance, good, psf, scene, found[:, :2], settings, saturated)
        if not len(new):
            stopped = "nothing new"
            break
        found, passes = np.concatenate([found, new]), passes + [number] * len(new)
        # Models rule the memory, and are drawn again.
        result.models = None
        result = solve(found[:, :2], quick, result)
    if deblend_settings != quick:
        result.models = None
        result = solve(found[:, :2], deblend_settings, result)
    return FieldResult(
        result, found[:, :2].copy(), np.array(passes, np.int64), found[:, 2].copy(), number, stopped
    )


def new_peaks(images, variance, good, psfs, scene, known, settings, saturated=None):
    """Sources that stand out of a cube, or of what models leave of it.

    Parameters
    ----------
    images, variance : `numpy.ndarray`, ``[band, y, x]``
        Background-subtracted pixels and their variance.
    good : `numpy.ndarray` of `bool`, ``[band, y, x]``
        Pixels to use.
    psfs : `numpy.ndarray`, ``[band, y, x]``
        PSF images; see `middle_psfs`.
    scene : `numpy.ndarray`, ``[band, y, x]``, or `None`
        Sum of the models of the known sources; `None` if there are none.
    known : `numpy.ndarray`, ``[n, 2]``
        Their y and x [pixel].
    settings : `IterationSettings`
        Settings.
    saturated : array-like of `bool`, optional
        As `deblend_field` takes it.

    Returns
    -------
    peaks : `numpy.ndarray`, float64 ``[m, 3]``
        y, x and SNR.
    """
    # Bands without data would only raise the threshold.
    seen = good.any(axis=(1, 2))
    if not seen.any():
        return np.zeros((0, 3))
    cube, noise2, psf = images[seen], variance[seen], psfs[seen]
    if scene is not None:
        cube = cube - scene[seen]
        noise2 = _with_model_error(noise2, scene[seen], psf, settings.model_error)
    new = _peaks(cube, noise2, psf, good[seen], _of_bands(saturated, seen), settings)
    known = known[np.isfinite(known).all(axis=1)]
    return new[_apart(new, known, images.shape[1:], _fwhm(psf), settings)] if len(known) else new


def middle_psfs(psfs, network, shape):
    """PSF images in the middle of a cube.

    Parameters
    ----------
    psfs : array-like, callable or `None`
        As `deblend_field` takes them.
    network : `~..network.model.Network`
        Whose PSFs stand in for `None`.
    shape : sequence of `int`
        Height and width of the cube.

    Returns
    -------
    psfs : `numpy.ndarray`, float64 ``[band, y, x]``
        Of odd sides.

    Raises
    ------
    ImageError
        Raised if the shape is wrong.
    """
    if psfs is None:
        return network.own_psfs()
    if callable(psfs):
        psfs = psfs((np.array(shape) - 1)[None] / 2)[0]
    psfs = np.asarray(psfs, dtype=float)
    if psfs.ndim != 3 or len(psfs) != len(network.bands):
        raise ImageError(
            f"PSF images have shape {psfs.shape}: expected [{len(network.bands)} bands, y, x], or a function "
            "of centres"
        )
    return resized(psfs, max(psfs.shape[1:]) // 2 * 2 + 1)


def _of_bands(plane, bands):
    """A mask of some bands only; one plane serves all."""
    if plane is None:
        return None
    plane = np.asarray(plane, dtype=bool)
    return plane[bands] if plane.ndim == 3 and len(plane) == len(bands) else plane


def _peaks(images, variance, psfs, good, saturated, settings):
    """y, x and SNR of all peaks, ``[n, 3]``."""
    found = detect(images, variance, psfs, mask=~good, threshold=settings.threshold, saturated=saturated)
    return np.array([(p.y, p.x, p.snr) for parent in found.parents for p in parent.peaks]).reshape(-1, 3)


def _fwhm(psfs):
    """Median FWHM of the bands [pixel], of Gaussians that cover as much."""
    return math.sqrt(np.median([effective_area(psf) for psf in psfs]) * 2 * math.log(2) / math.pi)


def _with_model_error(variance, scene, psfs, fraction):
    """The variance, and what models may be wrong by, float32 ``[band, y, x]``.

    Errors of models do not average out within a PSF as noise does, so they
    count as often as it has pixels.
    """
    scale = _SPREAD * _fwhm(psfs)
    line = np.arange(-_REACH, _REACH + 1)
    spread = (1 + (line[:, None] ** 2 + line**2) / scale**2) ** -1.5
    spread /= spread.sum()
    total = np.empty(variance.shape, np.float32)
    for band, psf in enumerate(psfs):
        error = fraction * fftconvolve(scene[band].astype(float), spread, mode="same")
        total[band] = variance[band] + effective_area(psf) * error**2
    return total


def _apart(new, found, shape, fwhm, settings):
    """Which new peaks lie apart from the sources found and from the edge."""
    to_edge = np.minimum(new[:, :2], np.array(shape) - 1 - new[:, :2]).min(axis=1)
    nearest, _ = cKDTree(found[:, :2]).query(new[:, :2])
    return (nearest >= settings.min_separation * fwhm) & (to_edge >= settings.min_edge_distance * fwhm)
