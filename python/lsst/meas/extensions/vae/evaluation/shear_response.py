# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shear response of a whole chain, measured on its own input: scenes are sheared, and deblended again.

A deblender that shrinks ellipticities, and a shape measurement that does, answer a shear by less than the
shear.  Shearing the pixels themselves tells by how much (Huff & Mandelbaum 2017; Sheldon & Huff 2017,
"metacalibration"): the scene is deconvolved from its PSF, sheared, and seen through the PSF again.  That
shears its noise as well, which answers for nothing in the sky; so noise that is sheared the opposite way is
added (Sheldon & Huff 2017, section 2.2), and what is measured is as noisy as a scene of twice the variance.

All of this is linear in the pixels: one matrix for each PSF and shear, for any number of scenes.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import ImageError

__all__ = [
    "VERSIONS",
    "ShearEstimate",
    "ShearOperator",
    "ShearedVersions",
    "calibrated_bias",
    "shear_estimate",
]

VERSIONS = {"noshear": (0, 0), "1p": (1, 0), "1m": (-1, 0), "2p": (0, 1), "2m": (0, -1)}
"""Versions of a scene by their usual names: shears (g1, g2) in units of the step."""

# Where the PSF passes less than this share, images have no modes that matter.
_LEAST_TRANSFER = 1e-3

# The period of the transforms, in sides of a stamp: light that a shear takes over an edge leaves.
_PADDING = 2


class ShearOperator:
    """Shears images as lensing would have, before the PSF.

    Parameters
    ----------
    psf : array-like ``[y, x]``
        PSF image on the images' pixels, odd sides, with the pixel.
    size : `int`
        Side of the images [pixel].
    g1, g2 : `float`
        Reduced shear about the images' middle; areas are kept.

    Raises
    ------
    ImageError
        Raised if the shear is no shear or the PSF no image.

    Notes
    -----
    With ``I(k)`` the transform of the pixels, ``P`` that of the PSF and ``A`` the matrix of the shear, the
    image has ``I(A k) P(k) / P(A k)``.  Transforms at sheared wave vectors are sums over all pixels, not
    interpolations.
    """

    def __init__(self, psf, size, g1, g2):
        psf = np.asarray(psf, dtype=np.float64)
        if psf.ndim != 2 or not all(side % 2 for side in psf.shape) or not psf.sum() > 0:
            raise ImageError(
                f"the PSF image has shape {psf.shape} and sum {psf.sum():g}: expected [y, x], odd sides, and "
                "a positive sum"
            )
        if not np.hypot(g1, g2) < 1:
            raise ImageError(f"shear is ({g1}, {g2}): expected |g| < 1")
        psf = psf / psf.sum()
        self.size, self.shear = size, (float(g1), float(g2))
        stretch = np.array([[1 + g1, g2], [g2, 1 - g1]]) / np.sqrt(1 - g1**2 - g2**2)
        period = _PADDING * size
        side = np.arange(-(period // 2) + 1, period // 2) * (2 * np.pi / period)
        kx, ky = (k.ravel() for k in np.meshgrid(side, side))
        # Images are real: half of the plane tells all.
        half = (ky > 0) | ((ky == 0) & (kx >= 0))
        k = np.stack([kx[half], ky[half]])
        there = np.abs(_transform(psf, k)) > _LEAST_TRANSFER
        k = k[:, there]
        sheared = stretch @ k
        ratio = _transform(psf, k) / _transform(psf, sheared)
        weight = np.where((k == 0).all(axis=0), 1.0, 2.0) / period**2
        into = _waves(size, sheared).conj() * (ratio * weight)[:, None]
        out = _waves(size, k)
        self.matrix = np.ascontiguousarray(
            out.real.T.astype(np.float32) @ into.real.astype(np.float32)
            - out.imag.T.astype(np.float32) @ into.imag.astype(np.float32)
        )

    def __call__(self, images):
        """Shear images.

        Parameters
        ----------
        images : array-like ``[..., y, x]``
            Seen through the PSF, about which they are sheared in the middle.

        Returns
        -------
        images : `numpy.ndarray`, float32 ``[..., y, x]``
        """
        images = np.asarray(images, dtype=np.float32)
        if images.shape[-2:] != (self.size, self.size):
            raise ImageError(f"images have shape {images.shape}: expected [..., {self.size}, {self.size}]")
        return (images.reshape(-1, self.size**2) @ self.matrix.T).reshape(images.shape)


def _waves(size, k):
    """``exp(i k x)`` of all pixels about the middle, ``[k, pixel]``."""
    side = np.arange(size) - (size - 1) / 2
    x, y = np.exp(1j * k[0][:, None] * side), np.exp(1j * k[1][:, None] * side)
    return (y[:, :, None] * x[:, None, :]).reshape(k.shape[1], -1)


def _transform(image, k):
    """Fourier transform of an image about its middle pixel, at any wave vectors."""
    y, x = (np.arange(side) - side // 2 for side in image.shape)
    rows = np.exp(-1j * np.outer(k[1], y)) @ image
    return (rows * np.exp(-1j * np.outer(k[0], x))).sum(axis=1)


class ShearedVersions:
    """Five versions of every scene, of opposite shears and none, with noise that answers to no shear.

    Parameters
    ----------
    psfs : array-like ``[band, y, x]``
        PSF images; equal ones share their matrices.
    size : `int`
        Side of the scenes [pixel].
    step : `float`, optional
        Shear of the versions.
    names : sequence of `str`, optional
        Which of `VERSIONS`.
    """

    def __init__(self, psfs, size, step=0.01, names=tuple(VERSIONS)):
        self.step, self.names = float(step), tuple(names)
        psfs = np.asarray(psfs, dtype=np.float64)
        keys = [psf.tobytes() for psf in psfs]
        self._kind = [keys.index(key) for key in keys]
        self._operators = {
            (kind, g): ShearOperator(psfs[kind], size, g[0] * self.step, g[1] * self.step)
            for kind in sorted(set(self._kind))
            for g in {sign for name in self.names for sign in (VERSIONS[name], _opposite(VERSIONS[name]))}
        }

    def __call__(self, images, sigma, seed):
        """Make them.

        Parameters
        ----------
        images : `numpy.ndarray`, ``[n, band, y, x]``
            Scenes with noise.
        sigma : array-like, broadcasts to ``images``
            Standard deviation of their noise.
        seed : `int` or `numpy.random.SeedSequence`
            Of the noise that is added.

        Returns
        -------
        versions : `dict` [`str`, `numpy.ndarray`]
            float32 ``[n, band, y, x]`` by name; of twice the variance.
        """
        images = np.asarray(images, dtype=np.float32)
        noise = np.random.default_rng(seed).standard_normal(images.shape, dtype=np.float32)
        noise *= np.asarray(sigma, dtype=np.float32)
        versions = {name: np.empty_like(images) for name in self.names}
        for name, made in versions.items():
            g = VERSIONS[name]
            for band, kind in enumerate(self._kind):
                made[:, band] = self._operators[kind, g](images[:, band])
                made[:, band] += self._operators[kind, _opposite(g)](noise[:, band])
        return versions


def _opposite(g):
    return -g[0], -g[1]


@dataclass(frozen=True)
class ShearEstimate:
    """One component of shear, and the response it was divided by.

    Attributes
    ----------
    shear, shear_error : `float`
        Mean ellipticity over mean response, and its jackknife error.
    response : `float`
        Mean change of an ellipticity by a unit of shear.
    number : `int`
        Scenes, all versions of which have a shape.
    """

    shear: float
    shear_error: float
    response: float
    number: int


def shear_estimate(shapes, component, step):
    """Shear of a sample from the shapes of its versions.

    Parameters
    ----------
    shapes : `dict` [`str`, array-like ``[n, 2]``]
        e1 and e2 of the versions ``noshear``, ``1p`` and ``1m`` (or ``2p`` and ``2m``); NaN is left out.
    component : {1, 2}
        Which.
    step : `float`
        Shear of the versions.

    Returns
    -------
    estimate : `ShearEstimate`
    """
    e, response = _columns(shapes, component, step)
    good = np.isfinite(e) & np.isfinite(response)
    e, response = e[good], response[good]
    shear, error = _jackknife(lambda a, b: a / b, e, response)
    return ShearEstimate(shear, error, float(response.mean()) if e.size else float("nan"), int(e.size))


def calibrated_bias(plus, minus, component, shear, step):
    """Multiplicative and additive bias of calibrated shear, from scenes under opposite true shears.

    Parameters
    ----------
    plus, minus : `dict` [`str`, array-like ``[n, 2]``]
        Shapes of the versions, as `shear_estimate` takes them, of the same scenes with the same noise under
        true shears ``shear`` and ``-shear``.
    component : {1, 2}
        Which.
    shear : `float`
        True reduced shear.
    step : `float`
        Shear of the versions.

    Returns
    -------
    bias : `dict` [`str`, `float`]
        m, m_error, c, c_error (jackknife over scenes, whose galaxies and noise are common to both); m_raw,
        m_raw_error and c_raw without the response; response; number.
    """
    columns = [*_columns(plus, component, step), *_columns(minus, component, step)]
    good = np.isfinite(columns).all(axis=0)
    columns = [column[good] for column in columns]
    told = {"number": int(good.sum()), "response": float(np.mean(columns[1::2])) if good.any() else np.nan}
    for name, scale in (("", 1), ("_raw", 0)):

        def bias(ep, rp, em, rm, scale=scale):
            divided = (ep / rp, em / rm) if scale else (ep, em)
            return np.array([(divided[0] - divided[1]) / (2 * shear) - 1, (divided[0] + divided[1]) / 2])

        (m, c), (m_error, c_error) = _jackknife(bias, *columns)
        told |= {f"m{name}": m, f"m{name}_error": m_error, f"c{name}": c, f"c{name}_error": c_error}
    return {name: float(value) if name != "number" else value for name, value in told.items()}


def _columns(shapes, component, step):
    """Ellipticity and response of each scene."""
    i = component - 1
    e = np.asarray(shapes["noshear"], dtype=float)[:, i]
    plus, minus = (np.asarray(shapes[f"{component}{sign}"], dtype=float)[:, i] for sign in "pm")
    return e, (plus - minus) / (2 * step)


def _jackknife(function, *columns, groups=100):
    """A function of the means of some columns, and its error."""
    n = len(columns[0])
    if n < 2:
        nan = function(*(np.float64("nan") for _ in columns))
        return nan, nan
    groups = min(groups, n)
    label = np.arange(n) * groups // n
    counts = np.bincount(label, minlength=groups)
    sums = [np.bincount(label, column, groups) for column in columns]
    whole = function(*(total.sum() / n for total in sums))
    left = [(total.sum() - total) / (n - counts) for total in sums]
    parts = np.array([function(*(column[g] for column in left)) for g in range(groups)])
    return whole, np.sqrt((groups - 1) / groups * np.square(parts - parts.mean(axis=0)).sum(axis=0))
