# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""A synthetic galaxy population, for where the COSMOS catalogue has not been fetched and for deeper galaxies.

Counts, redshifts, sizes, profiles and ellipticities follow published fits and the statistics of COSMOS. The
share of two-component fits by magnitude was measured on the COSMOS 25.2 catalogue itself: 46 % at F814W 20
falling to 26 %.
"""

__all__ = ["number_density", "synthetic_galaxies"]

import hashlib

import numpy as np

from ..errors import CatalogError

_BRIGHTEST = 18.0
_FAINTEST = 28.0

# Where the slope of the counts changes.
_KNEE, _FLATTENING = 23.5, 26.5

# Circularised half-light radii stop shrinking here, at 0.14", which is 0.2" along the typical major axis.
_SIZE_FLOOR_MAGNITUDE = 25.0

_BULGE_DISC_RADII = 0.38
_ELLIPTICITY_RMS = 0.261
_MAX_ELLIPTICITY = 0.9

# Percentiles of bulge over total light of the two-component fits.
_BULGE_PERCENT = [0.0, 5.0, 16.0, 50.0, 84.0, 95.0, 100.0]
_BULGE_TO_TOTAL = [0.05, 0.084, 0.119, 0.330, 0.699, 0.853, 0.95]


def number_density(mag_limit):
    """Galaxies brighter than a limit.

    Parameters
    ----------
    mag_limit : `float` or `numpy.ndarray`
        I or F814W magnitude, 28 at most.

    Returns
    -------
    density : as ``mag_limit``
        [per arcmin^2]
    """
    limit = np.asarray(mag_limit, dtype=float)
    knee = 46 * 10 ** (0.31 * (_KNEE - 25))
    middle = 46 * 10 ** (0.31 * (np.clip(limit, _KNEE, _FLATTENING) - 25))
    # Past the flattening the differential counts go on and fall as 10^(-0.2 i), to a total of 238 at 28.
    fall = 0.2 * np.log(10)
    slope = 0.31 * np.log(10) * 46 * 10 ** (0.31 * (_FLATTENING - 25))
    faint = slope / fall * -np.expm1(-fall * np.maximum(limit - _FLATTENING, 0))
    bright = knee * 10 ** (0.335 * (limit - _KNEE))
    return np.where(limit < _KNEE, bright, middle + faint)[()]


def _two_component_share(magnitude):
    """Fraction of galaxies that are better fit by bulge + disc."""
    return np.interp(magnitude, [20.0, 22.0, 24.5], [0.46, 0.34, 0.26])


def _disc_radius_ratio(bulge_to_total):
    """Half-light radius of the disc over that of bulge + disc, both round and concentric."""
    from scipy.special import gammainc, gammaincinv

    def within(radius, n):
        """Light of a Sersic profile within a radius in half-light radii."""
        return gammainc(2 * n, gammaincinv(2 * n, 0.5) * radius ** (1 / n))

    radius = np.geomspace(0.2, 1.2, 400)[:, None]
    share = np.linspace(0, 1, 101)
    light = share * within(radius / _BULGE_DISC_RADII, 4) + (1 - share) * within(radius, 1)
    half = [np.interp(0.5, column, radius[:, 0]) for column in light.T]
    return 1 / np.interp(bulge_to_total, share, half)


def synthetic_galaxies(n, seed=1, mag_limit=25.2):
    """Draw galaxies.

    Parameters
    ----------
    n : `int`
        How many.
    seed : `int`
        The same seed gives the same galaxies.
    mag_limit : `float`
        Faintest F814W magnitude, taken as I; above 18 and 28 at most.

    Returns
    -------
    catalog : `~lsst.meas.extensions.vae.galaxies.GalaxyCatalog`
        In GalSim's columns, IDENT from 0, so that splits have their shares. Its ``sha256`` tells populations
        apart, as a file's does: it is that of all columns, to single precision.

    Raises
    ------
    CatalogError
        For an ``n`` below 1 or a limit out of range.
    """
    # Here, as the catalogue is what this module fills, not what it is made of.
    from astropy.table import Table

    from .catalog import GalaxyCatalog

    if int(n) != n or n < 1:
        raise CatalogError(f"Cannot draw {n!r} synthetic galaxies: expected a whole number, 1 at least.")
    if not _BRIGHTEST < mag_limit <= _FAINTEST:
        raise CatalogError(
            f"Synthetic galaxies to magnitude {mag_limit!r}: expected more than {_BRIGHTEST} and "
            f"{_FAINTEST} at most."
        )
    n = int(n)
    rng = np.random.default_rng(seed)

    grid = np.linspace(_BRIGHTEST, mag_limit, 2001)
    cumulative = number_density(grid)
    magnitude = np.interp(rng.uniform(cumulative[0], cumulative[-1], n), cumulative, grid)
    # p(z) = z^2 exp(-z / z0) is a gamma distribution. The tables of colours end at 6.5.
    redshift = np.clip(rng.gamma(3.0, 0.0417 * magnitude - 0.744), 0.005, 6.5)

    two = rng.random(n) < _two_component_share(magnitude)
    size = np.exp(rng.normal(-0.99 - 0.324 * (np.minimum(magnitude, _SIZE_FLOOR_MAGNITUDE) - 22.0), 0.42, n))
    sersic_n = np.exp(_truncated_normal(rng, n, 0.12, 0.63, np.log(0.3), np.log(6.0)))
    bulge_to_total = np.interp(100 * rng.random(n), _BULGE_PERCENT, _BULGE_TO_TOTAL)
    disc_hlr = size * _disc_radius_ratio(bulge_to_total)
    bulge_hlr = _BULGE_DISC_RADII * disc_hlr

    q, angle = _shapes(rng, n)
    bulge_q, bulge_angle = _shapes(rng, n)
    # Discs take the galaxy's shape, and bulges are aligned with it within some 20 degrees.
    bulge_angle = angle + 0.35 * np.sin(bulge_angle)

    flux = 10 ** (-0.4 * (magnitude - 25.94))
    zero = np.zeros(n)
    # Major axis in COSMOS pixels of 0.03", as the fits have it; surface brightness and centres are not used.
    sersicfit = np.stack([zero, size / np.sqrt(q) / 0.03, sersic_n, q, zero, zero, zero, angle], axis=1)
    disc = [zero, disc_hlr / np.sqrt(q) / 0.03, zero + 1, q, zero, zero, zero, angle]
    bulge = [zero, bulge_hlr / np.sqrt(bulge_q) / 0.03, zero + 4, bulge_q, zero, zero, zero, bulge_angle]
    table = Table(
        {
            "IDENT": np.arange(n, dtype=np.int32),
            "mag_auto": magnitude,
            "flux_radius": size / 0.03,
            "zphot": redshift,
            "sersicfit": sersicfit,
            "bulgefit": np.stack(disc + bulge, axis=1),
            "fit_status": np.ones((n, 5), dtype=np.int32),
            "use_bulgefit": two.astype(np.int32),
            "viable_sersic": np.ones(n, dtype=np.int32),
            "hlr": np.stack([size, bulge_hlr, disc_hlr], axis=1),
            "flux": np.stack([flux, flux * bulge_to_total, flux * (1 - bulge_to_total), flux], axis=1),
        }
    )
    table.meta.update(SEED=seed, MAGLIM=mag_limit)
    return GalaxyCatalog(table, "synthetic", _sha256(table))


def _sha256(table):
    """Sum of a table's names and numbers."""
    digest = hashlib.sha256()
    for name in table.colnames:
        column = np.asarray(table[name])
        # The last digits of double precision depend on the processor, by NumPy's exponentials.
        dtype = "<f4" if column.dtype.kind == "f" else "<i8"
        digest.update(f"{name} {column.shape};".encode())
        digest.update(np.ascontiguousarray(column, dtype).tobytes())
    return digest.hexdigest()


def _truncated_normal(rng, n, mean, sigma, low, high):
    """Normal numbers, redrawn until within bounds."""
    drawn = rng.normal(mean, sigma, n)
    while (out := np.flatnonzero((drawn < low) | (drawn > high))).size:
        drawn[out] = rng.normal(mean, sigma, out.size)
    return drawn


def _shapes(rng, n):
    """Axis ratios and position angles [rad] from ellipticities (1 - q) / (1 + q) of normal components."""
    e1, e2 = rng.normal(0.0, _ELLIPTICITY_RMS, (2, n))
    while (out := np.flatnonzero(np.hypot(e1, e2) > _MAX_ELLIPTICITY)).size:
        e1[out], e2[out] = rng.normal(0.0, _ELLIPTICITY_RMS, (2, out.size))
    ellipticity = np.hypot(e1, e2)
    return (1 - ellipticity) / (1 + ellipticity), 0.5 * np.arctan2(e2, e1)
