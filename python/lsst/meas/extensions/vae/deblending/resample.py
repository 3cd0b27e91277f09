# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""From pixels of one size to those of another, and models back again.

Images are interpolated by Lanczos' windowed sinc (Duchon 1979, J. Appl. Meteorol. 18, 1016), whose rows of
weights sum to one, so that a constant stays one.  Towards larger pixels the sinc is stretched: what they
cannot show, noise above all, is smoothed away and not aliased into them.
"""

import math

import numpy as np
from scipy.sparse import csr_matrix

from ..errors import ImageError
from ..simulation.geometry import stamp_origin

__all__ = ["Resampling", "scale_ratio"]

# Zeros of the sinc on each side of a pixel.
_ZEROS = 5


def scale_ratio(scale, network, tolerance=0.01, max_ratio=2.0, what="cutout"):
    """How much larger an image's pixels are than a network's.

    Parameters
    ----------
    scale : `float`
        Pixel scale of the image [arcsec].
    network : `~..network.model.Network`
        The network.
    tolerance : `float`, optional
        Largest relative difference that is none.
    max_ratio : `float`, optional
        How much larger or smaller pixels may be; 1 to take no others.
    what : `str`, optional
        What has these pixels, for the message.

    Returns
    -------
    ratio : `float`
        Of the image's pixel scale to the network's; 1 within the tolerance.

    Raises
    ------
    ImageError
        Raised if it is beyond ``max_ratio``, or if bands of the network have pixels of their own.
    """
    expected = sorted(set(network.package.card["pixel_scale"]))
    ratios = [scale / own for own in expected]
    if all(abs(ratio - 1) <= tolerance for ratio in ratios):
        return 1.0
    name = network.package.name
    if len(expected) > 1:
        raise ImageError(
            f"the {what} has {scale:g} arcsec a pixel, bands of model {name!r} have "
            f"{', '.join(f'{own:g}' for own in expected)}: take a model whose bands have one pixel scale"
        )
    # Not "ratio > max_ratio": NaN has to be refused too.
    if not 1 / max_ratio <= ratios[0] <= max_ratio:
        low, high = expected[0] / max_ratio, expected[0] * max_ratio
        raise ImageError(
            f"the {what} has {scale:g} arcsec a pixel, model {name!r} takes {expected[0]:g} and resamples "
            f"what has {low:g} to {high:g}: resample the {what} or take a model of its pixel scale"
        )
    return ratios[0]


class Resampling:
    """The grid of a network's pixels over an image, and the way there and back.

    The corner of the first pixel is the same in both.

    Parameters
    ----------
    shape : (`int`, `int`)
        Height and width of the image [pixel].
    ratio : `float`
        Of its pixel scale to the network's.
    """

    def __init__(self, shape, ratio):
        self._ratio, self._stretch = ratio, max(1.0, 1 / ratio)
        self._shape = tuple(math.ceil(side * ratio - 1e-6) for side in shape)
        self._ways = [
            _weights(self.own_places(np.arange(n)), side, self._stretch)
            for n, side in zip(self._shape, shape, strict=True)
        ]

    @property
    def noise_ratio(self):
        """Noise of a pixel of the image over that of one of the network's, for fluxes of the same error."""
        return self._ratio

    def places(self, own):
        """Coordinates in the network's pixels; elementwise."""
        return (own + 0.5) * self._ratio - 0.5

    def own_places(self, places):
        """Coordinates in the image's own pixels; elementwise."""
        return (places + 0.5) / self._ratio - 0.5

    def plane(self, image, variance, bad):
        """Resample one band.

        Parameters
        ----------
        image, variance : `numpy.ndarray`, ``[y, x]``
            All finite, flux a pixel and its square.
        bad : `numpy.ndarray` of `bool`, ``[y, x]``
            Pixels that tell nothing, however they were filled.

        Returns
        -------
        image, variance : `numpy.ndarray`, float32 ``[y, x]``
            In the network's pixels.  The variance is that which independent pixels would need for the
            noise of what is larger than a pixel: fluxes have the errors that they had before.
        lost : `numpy.ndarray`, float32 ``[y, x]``
            Weight of bad pixels, and of those beyond the edge, in each.
        """
        padded = np.pad(np.asarray(image, dtype=float), self._padding(), mode="edge")
        result = _both(self._ways, padded) / self._ratio**2
        squares = [_of_unit_rows(way.multiply(way)) for way in self._ways]
        noise = np.pad(np.asarray(variance, dtype=float), self._padding(), mode="edge")
        spread = _both(squares, noise) / self._ratio**2
        lost = _both([abs(way) for way in self._ways], np.pad(bad, self._padding(), constant_values=True))
        return result.astype(np.float32), spread.astype(np.float32), lost.astype(np.float32)

    def _padding(self):
        return _reach(self._stretch)

    def kernel(self, kernel):
        """A PSF image in the network's pixels, of unit sum and odd sides; centred as it was."""
        ways = []
        for side in kernel.shape:
            half = math.ceil((side // 2) * self._ratio)
            ways.append(_weights(np.arange(-half, half + 1) / self._ratio + side // 2, side, self._stretch))
        result = _both(ways, np.pad(kernel, self._padding()))
        return result / result.sum()

    def size(self, stamp_size):
        """Even side of stamps of the image's own pixels that hold one of the network's."""
        return 2 * math.ceil(((stamp_size + 1) / self._ratio + 1) / 2)

    def models(self, models, origins, own_centres):
        """Take models to the image's own pixels.

        Parameters
        ----------
        models : `numpy.ndarray`, ``[n, band, y, x]``
            Flux in each of the network's pixels.
        origins : `numpy.ndarray`, int ``[n, 2]``
            y and x of their first pixels in the network's.
        own_centres : `numpy.ndarray`, ``[n, 2]``
            y and x of the sources in the image's own pixels.

        Returns
        -------
        models : `numpy.ndarray`, float32 ``[n, band, y, x]``
            Flux in each of the image's own pixels.
        origins : `numpy.ndarray`, int64 ``[n, 2]``
            y and x of their first ones.
        """
        size, side = self.size(models.shape[-1]), models.shape[-1]
        own = np.array([stamp_origin(x, y, size) for y, x in own_centres], np.int64).reshape(-1, 2)
        result = np.empty((*models.shape[:2], size, size), np.float32)
        pad = _reach(1.0)
        for k, model in enumerate(models):
            # The pixels' own width is in the PSF, and a model has no noise: nothing is to be smoothed.
            ways = [
                _weights(self.places(first + np.arange(size)) - origin, side, 1.0).toarray()[:, pad:-pad]
                for first, origin in zip(own[k], origins[k], strict=True)
            ]
            result[k] = self._ratio**2 * (ways[0] @ model @ ways[1].T)
        return result, own


def _reach(stretch):
    return math.ceil(_ZEROS * stretch)


def _weights(places, n, stretch):
    """What pixels ``[n]``, padded by the reach on both sides, give at places: sparse ``[place, pixel]``."""
    reach = _reach(stretch)
    # Further out there is padding only.
    places = np.clip(places, -reach + 1, n + reach - 2)
    taps = np.floor(places).astype(int)[:, None] + np.arange(1 - reach, reach + 1)
    distance = (taps - places[:, None]) / stretch
    values = np.where(abs(distance) < _ZEROS, np.sinc(distance) * np.sinc(distance / _ZEROS), 0.0)
    values /= values.sum(axis=1, keepdims=True)
    taps = np.clip(taps + reach, 0, n + 2 * reach - 1)
    rows = np.broadcast_to(np.arange(len(places))[:, None], taps.shape)
    return csr_matrix((values.ravel(), (rows.ravel(), taps.ravel())), (len(places), n + 2 * reach))


def _of_unit_rows(matrix):
    return csr_matrix(matrix.multiply(1 / matrix.sum(axis=1)))


def _both(ways, plane):
    """Rows and columns of a plane through matrices."""
    return (ways[1] @ (ways[0] @ plane).T).T
