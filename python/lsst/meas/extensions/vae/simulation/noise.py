# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Noise of sky and sources, white or correlated between pixels."""

__all__ = [
    "NOISE_KINDS",
    "NoiseModel",
    "QuickNormals",
    "add_noise",
    "check_noise",
    "expected_variance",
    "unit_noise",
]

import math

import numpy as np

from ..errors import VaeError

NOISE_KINDS = ("poisson", "normal", "sky")
"""True Poisson counts of source and sky; normal deviates of the same variance; normal deviates of the sky
alone (later commits of the published code).
"""

# Below this mean the series of `_poisson_counts` is wrong in more than 1 of 2 000 counts.
_SERIES_FROM = 10.0


def check_noise(kind, correlation=0.0):
    """Refuse noise that cannot be drawn.

    Parameters
    ----------
    kind : `str`
        One of `NOISE_KINDS`.
    correlation : `float`
        See `unit_noise`.

    Raises
    ------
    VaeError
        For an unknown kind, or a correlation that is out of range or meets kind "poisson".
    """
    if kind not in NOISE_KINDS:
        raise VaeError(f"Noise is {kind!r}: expected one of {', '.join(NOISE_KINDS)}")
    if not 0 <= correlation <= 0.6:
        raise VaeError(f"Noise correlation is {correlation!r}: expected 0 (white) to 0.6 between neighbours")
    if kind == "poisson" and correlation:
        raise VaeError(
            f"Poisson counts are independent, but the noise's correlation is {correlation!r}: take "
            "noise 'normal' for correlated noise"
        )


class QuickNormals:
    """Normal deviates by Box and Muller's method, twice as fast as NumPy's own; for `NoiseModel.add` and
    `unit_noise` in place of a generator.

    The logarithms and cosines are NumPy's, which may differ in the last bit between kinds of processors:
    enough for training, but samples that are kept take a `numpy.random.Generator`.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of uniform deviates.
    """

    def __init__(self, rng):
        self._rng = rng

    def standard_normal(self, size, dtype=np.float32, out=None):
        """As `numpy.random.Generator.standard_normal`, in single precision; no deviate exceeds 5.8."""
        if dtype != np.float32:
            raise VaeError(f"Quick normal deviates are asked for as {dtype}: expected float32")
        if out is None:
            out = np.empty(size, np.float32)
        flat = out.reshape(-1)
        if not np.shares_memory(flat, out):
            raise VaeError("Quick normal deviates go to a contiguous array only")
        half = -(-flat.size // 2)
        radius, angle = self._rng.random((2, half), dtype=np.float32)
        np.subtract(np.float32(1.0), radius, out=radius)  # never 0
        np.log(radius, out=radius)
        radius *= np.float32(-2.0)
        np.sqrt(radius, out=radius)
        angle *= np.float32(2 * math.pi)
        np.multiply(np.cos(angle), radius, out=flat[:half])
        rest = flat.size - half
        np.multiply(np.sin(angle[:rest]), radius[:rest], out=flat[half:])
        return out


class NoiseModel:
    """The noise of one set of bands, ready to be drawn many times.

    A noiseless image may have negative pixels, as those of galaxies with images do: their light is less
    than nothing by the noise of these images. The mean is the image's as long as source and sky together are
    not negative; below that it is none of both, the sky's negative once that is subtracted.

    Parameters
    ----------
    sky, electrons_per_unit : `numpy.ndarray` [band]
        Sky level [electrons per pixel] and electrons that an image unit stands for.
    kind : `str`
        One of `NOISE_KINDS`.
    correlation : `float`
        See `unit_noise`. Counts of photons are independent, so "poisson" takes none.

    Raises
    ------
    VaeError
        As `check_noise`.
    """

    def __init__(self, sky, electrons_per_unit, kind="poisson", correlation=0.0):
        check_noise(kind, correlation)
        self.kind, self.correlation = kind, correlation
        sky = np.asarray(sky, np.float64)[:, None, None]
        unit = np.asarray(electrons_per_unit, np.float64)[:, None, None]
        self._sky, self._sky_floor, self._unit = sky, np.floor(sky), unit.astype(np.float32)
        self._source_variance = (1.0 / unit).astype(np.float32)
        self._sky_variance = (sky / unit**2).astype(np.float32)
        self._no_electrons, self._no_light = -sky.astype(np.float32), (-sky / unit).astype(np.float32)

    def add(self, image, rng, out=None):
        """A noisy image, the expected sky subtracted.

        One generator state gives the same random numbers to every image of one shape: two images that
        differ little, as two sheared versions of a scene, get noise that differs little.

        Parameters
        ----------
        image : `numpy.ndarray`, float32 [..., band, y, x]
            Noiseless and sky-subtracted [image unit].
        rng : `numpy.random.Generator` or `QuickNormals`
        out : `numpy.ndarray`, float32, C-contiguous, optional
            Where to put it; not the image itself.

        Returns
        -------
        noisy : `numpy.ndarray`, float32 [..., band, y, x]
        """
        noisy = unit_noise(np.shape(image), rng, self.correlation, out=out)
        if self.kind == "poisson":
            source = np.multiply(image, self._unit, dtype=np.float32, casting="same_kind")
            np.maximum(source, self._no_electrons, out=source)
            counts = _poisson_counts(source, self._sky, self._sky_floor, noisy)
            counts -= (self._sky - self._sky_floor).astype(np.float32)
            return np.multiply(counts, self._source_variance, out=noisy)
        # Hardly ever is a pixel as dark as that, and to look is quicker than to clip.
        dark = (np.min(image, axis=(-2, -1), keepdims=True) <= 0.9 * self._no_light).any()
        if dark:
            image = np.maximum(image, self._no_light, dtype=np.float32, casting="same_kind")
        if self.kind == "sky":
            noisy *= np.sqrt(self._sky_variance)
        else:
            sigma = np.multiply(image, self._source_variance, dtype=np.float32, casting="same_kind")
            sigma += self._sky_variance
            if dark:
                # Rounding takes it below zero.
                np.maximum(sigma, np.float32(0.0), out=sigma)
            noisy *= np.sqrt(sigma, out=sigma)
        noisy += image
        return noisy


def _poisson_counts(source, sky, base, z):
    """Counts of Poisson's law that standard normal deviates stand for.

    Each count is where the cumulative distribution passes that of its deviate. Counts of close means are
    then close too, which drawing them by rejection would not give, and it is faster. The series is that of
    Giles 2016 (ACM TOMS 42, 7, algorithm 955): of 10^6 counts it has none wrong from a mean of 350 on (the
    faintest sky of the surveys), 15 at a mean of 100; means below 10 are summed up. Single precision moves
    1 % of the counts of a source of 2 x 10^5 by one, of a sigma of 450.

    Parameters
    ----------
    source : `numpy.ndarray`, float32
        Mean without the sky; with it, not negative.
    sky, base : `numpy.ndarray`, float64
        Mean of the sky, and a whole number to leave out of the counts: single precision has no room for
        the fractions of large means.
    z : `numpy.ndarray`, float32
        Standard normal deviates, of the shape of ``source``.

    Returns
    -------
    counts : `numpy.ndarray`, float32
        Less ``base``.
    """
    mean = source + sky.astype(np.float32)
    square = z * z
    root = np.sqrt(np.maximum(mean, np.float32(1.0)))
    # Terms of falling powers of the root, by Horner's rule.
    counts = square * np.float32(1 / 270)
    counts += np.float32(7 / 810)
    counts *= square
    counts -= np.float32(8 / 405)
    counts /= root
    third = square * np.float32(1 / 72)
    third += np.float32(1 / 36)
    third *= z
    counts -= third
    counts /= root
    square *= np.float32(1 / 6)
    square += (sky - base + 1 / 3).astype(np.float32)
    counts += square
    root *= z
    counts += root
    counts += source
    np.floor(counts, out=counts)
    small = mean < _SERIES_FROM
    if small.any():
        base = np.broadcast_to(base, source.shape)
        counts[small] = _small_counts(mean[small].astype(np.float64), z[small]) - base[small]
    return counts


def _small_counts(mean, z):
    """As `_poisson_counts`, by summing up the distribution."""
    from scipy.special import ndtr

    level = ndtr(z.astype(np.float64))
    counts = np.zeros(mean.shape)
    term = np.exp(-mean)
    total = term.copy()
    # Beyond 70 counts of a mean of 10 nothing is left in double precision.
    for number in range(1, 71):
        above = level > total
        if not above.any():
            break
        counts[above] = number
        term *= mean / number
        total += term
    return counts


def expected_variance(image, sky, electrons_per_unit, kind="poisson"):
    """Variance that `add_noise` gives each pixel.

    Parameters
    ----------
    image : `numpy.ndarray` [..., band, y, x]
        Noiseless and sky-subtracted [image unit]; may be negative, see `NoiseModel`.
    sky, electrons_per_unit : `numpy.ndarray` [band]
        Sky level [electrons per pixel] and electrons that an image unit stands for.
    kind : `str`
        One of `NOISE_KINDS`.

    Returns
    -------
    variance : `numpy.ndarray`, float64 [..., band, y, x]
        [image unit^2]
    """
    check_noise(kind)
    unit = np.asarray(electrons_per_unit, np.float64)[:, None, None]
    sky = np.asarray(sky, np.float64)[:, None, None]
    electrons = sky if kind == "sky" else np.maximum(image * unit + sky, 0.0)
    return np.broadcast_to(electrons / unit**2, np.shape(image)).copy()


def unit_noise(shape, rng, correlation=0.0, out=None):
    """Normal deviates of unit variance.

    Parameters
    ----------
    shape : `tuple` of `int`
        The last two axes are y and x.
    rng : `numpy.random.Generator` or `QuickNormals`
    correlation : `float`
        Correlation of pixels next to each other along an axis, 0 to 0.6: white noise is smoothed with
        (a, b, a) along each axis, so that pixels two apart share a^2, as images resampled onto a coadd do.
    out : `numpy.ndarray`, float32, C-contiguous, optional
        Where to put it.

    Returns
    -------
    noise : `numpy.ndarray`, float32
    """
    check_noise("normal", correlation)
    if correlation == 0:
        return rng.standard_normal(shape, dtype=np.float32, out=out)
    # 2 a^2 + b^2 = 1 keeps the variance; 2 a b is the correlation.
    a = math.sqrt((1 - math.sqrt(1 - 2 * correlation**2)) / 4)
    b = math.sqrt(1 - 2 * a * a)
    a, b = np.float32(a), np.float32(b)
    noise = rng.standard_normal((*shape[:-2], shape[-2] + 2, shape[-1] + 2), dtype=np.float32)
    noise = a * (noise[..., :-2, :] + noise[..., 2:, :]) + b * noise[..., 1:-1, :]
    return np.add(a * (noise[..., :-2] + noise[..., 2:]), b * noise[..., 1:-1], out=out)


def add_noise(image, sky, electrons_per_unit, rng, kind="poisson", correlation=0.0):
    """A noisy image, the expected sky subtracted.

    Parameters
    ----------
    image : `numpy.ndarray` [..., band, y, x]
        Noiseless and sky-subtracted [image unit].
    sky, electrons_per_unit, kind, correlation
        As `NoiseModel`.
    rng : `numpy.random.Generator`

    Returns
    -------
    noisy : `numpy.ndarray`, float32 [..., band, y, x]

    Raises
    ------
    VaeError
        As `check_noise`.
    """
    return NoiseModel(sky, electrons_per_unit, kind, correlation).add(image, rng)
