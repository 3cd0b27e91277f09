# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""A catalogue of parametric galaxies in GalSim's columns."""

__all__ = ["REQUIRED_COLUMNS", "Components", "GalaxyCatalog", "check_columns"]

import logging
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from ..errors import CatalogError
from .fluxes import SED_NAMES
from .photometry import SedGalaxies

_LOG = logging.getLogger(__name__)

REQUIRED_COLUMNS = {
    "IDENT": (),
    "mag_auto": (),
    "zphot": (),
    "sersicfit": (8,),
    "bulgefit": (16,),
    "use_bulgefit": (),
    "viable_sersic": (),
    "hlr": (3,),
    "flux": (4,),
}
"""Columns of GalSim's ``*_fits.fits`` that are read, with the shape of one row."""

# GalSim's limits of the Sersic index.
_MIN_SERSIC_N, _MAX_SERSIC_N = 0.3, 6.0

_E, _SBC, _SCD = (SED_NAMES.index(name) for name in ("E", "Sbc", "Scd"))


@dataclass(frozen=True)
class Components:
    """The one or two profiles of each galaxy, arrays [N, 2].

    A two-component galaxy is a bulge (0) and a disc (1); any other is one Sersic profile (0), with flux
    fraction 0 and harmless values in 1.

    Attributes
    ----------
    sersic_n : float64
    hlr : float64
        Half-light radius [arcsec], circularised: sqrt(q) times that of the major axis.
    q : float64
        Minor over major axis.
    position_angle : float64
        Of the major axis from +x towards +y [rad].
    flux_fraction : float64
        Of the galaxy's F814W flux; 0 where the component is absent.
    sed : int64
        Index into `SED_NAMES`: bulges E, discs Scd; Sersic profiles Scd below n = 1.5, Sbc below 3, E above.
    """

    sersic_n: np.ndarray
    hlr: np.ndarray
    q: np.ndarray
    position_angle: np.ndarray
    flux_fraction: np.ndarray
    sed: np.ndarray

    def __len__(self):
        return len(self.q)

    def __getitem__(self, index):
        return Components(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


class GalaxyCatalog(SedGalaxies):
    """Parametric galaxies.

    Rows without a usable profile, redshift or magnitude, which GalSim too would refuse, are dropped here, and
    the log tells how many.

    Parameters
    ----------
    table : `astropy.table.Table`
        With GalSim's columns; `REQUIRED_COLUMNS` at least.
    source : `str`
        "cosmos" or "synthetic".
    sha256 : `str`, optional
        Sum of the file that it came from, or of its numbers; samples and campaigns tell populations apart by
        it.

    Raises
    ------
    CatalogError
        If columns are missing or of another shape, or no galaxy is left.
    """

    def __init__(self, table, source, sha256=None):
        check_columns(table, source)
        usable = _usable(table)
        if not usable.any():
            raise CatalogError(
                f"No usable galaxy among the {len(table)} of the {source} catalogue: expected finite "
                "magnitudes, redshifts and fits; use another catalogue."
            )
        self.n_dropped = int((~usable).sum())
        if self.n_dropped:
            _LOG.warning(
                "Dropped %d of %d galaxies of the %s catalogue: no finite magnitude, redshift or viable fit.",
                self.n_dropped,
                len(table),
                source,
            )
            table = table[usable]
        self.table = table
        self.source = source
        self.sha256 = sha256

    def __len__(self):
        return len(self.table)

    def __getitem__(self, index):
        """Some galaxies, by a mask, indices or a slice [`GalaxyCatalog`]."""
        chosen = object.__new__(GalaxyCatalog)
        if not isinstance(index, slice):
            index = np.atleast_1d(index)
        chosen.table = self.table[index]
        chosen.source, chosen.sha256, chosen.n_dropped = self.source, self.sha256, self.n_dropped
        if "components" in self.__dict__:
            chosen.__dict__["components"] = self.components[index]
        return chosen

    def __repr__(self):
        return f"<GalaxyCatalog {self.source}: {len(self)} galaxies>"

    def _column(self, name, dtype=np.float64):
        return np.asarray(self.table[name]).astype(dtype)

    @cached_property
    def ident(self):
        """Catalogue number [int64 [N]]."""
        return self._column("IDENT", np.int64)

    @cached_property
    def redshift(self):
        """Photometric redshift [float64 [N]]."""
        return self._column("zphot")

    @cached_property
    def mag_auto(self):
        """F814W magnitude, AB [float64 [N]]."""
        return self._column("mag_auto")

    @cached_property
    def components(self):
        """The profiles of each galaxy [`Components`], by GalSim's rules."""
        two = self._column("use_bulgefit", np.int64) != 0
        sersic, bulge_disc = self._column("sersicfit"), self._column("bulgefit")
        hlr, flux = self._column("hlr"), self._column("flux")
        n = np.clip(sersic[:, 2], _MIN_SERSIC_N, _MAX_SERSIC_N)
        sersic_sed = np.where(n < 1.5, _SCD, np.where(n < 3.0, _SBC, _E))
        # GalSim's bulge fit holds the disc in its first eight numbers and the bulge in the others. Totals
        # that are not positive can only be those of fits not used.
        total = flux[:, 1] + flux[:, 2]
        bulge_fraction = np.where(two, flux[:, 1] / np.where(total > 0, total, 1.0), 1.0)

        def pair(bulge, disc, single, absent):
            """Column [N, 2] of (bulge, disc) where there are two components, else (single, absent)."""
            return np.stack([np.where(two, bulge, single), np.where(two, disc, absent)], axis=1)

        return Components(
            sersic_n=pair(4.0, 1.0, n, 1.0),
            hlr=pair(hlr[:, 1], hlr[:, 2], hlr[:, 0], hlr[:, 0]),
            q=np.minimum(pair(bulge_disc[:, 11], bulge_disc[:, 3], sersic[:, 3], 1.0), 1.0),
            position_angle=pair(bulge_disc[:, 15], bulge_disc[:, 7], sersic[:, 7], 0.0),
            flux_fraction=np.stack([bulge_fraction, 1 - bulge_fraction], axis=1),
            sed=pair(_E, _SCD, sersic_sed, _SCD),
        )

    def _seds(self):
        return self.components.sed, self.components.flux_fraction


def check_columns(table, name):
    """Refuse a table that lacks GalSim's columns or has others under their names.

    Parameters
    ----------
    table : `astropy.table.Table`
    name : `str` or path
        What the message calls it.

    Raises
    ------
    CatalogError
        Naming every column that is missing, or the first of another shape or type.
    """
    missing = [column for column in REQUIRED_COLUMNS if column not in table.colnames]
    if missing:
        raise CatalogError(
            f"Galaxy catalogue {name} lacks the columns {', '.join(missing)}: expected those of GalSim's "
            "parametric '*_fits.fits' file; give that file."
        )
    for column, shape in REQUIRED_COLUMNS.items():
        found, dtype = table[column].shape[1:], table[column].dtype
        if found != shape or dtype.kind not in "iufb":
            raise CatalogError(
                f"Column {column!r} of galaxy catalogue {name} has rows of shape {found} and type {dtype}: "
                f"expected numbers of shape {shape}; give GalSim's parametric '*_fits.fits' file."
            )


def _usable(table):
    """Galaxies that have all that a profile needs [bool [N]]."""
    two = np.asarray(table["use_bulgefit"]) != 0
    sersic, bulge_disc = np.asarray(table["sersicfit"]), np.asarray(table["bulgefit"])
    hlr, flux = np.asarray(table["hlr"]), np.asarray(table["flux"])
    single = (
        (np.asarray(table["viable_sersic"]) != 0)
        & np.isfinite(sersic[:, [2, 3, 7]]).all(axis=1)
        & np.isfinite(hlr[:, 0])
        & (hlr[:, 0] > 0)
        & (sersic[:, 3] > 0)
    )
    double = (
        np.isfinite(bulge_disc[:, [3, 7, 11, 15]]).all(axis=1)
        & (bulge_disc[:, [3, 11]] > 0).all(axis=1)
        & (np.isfinite(hlr[:, 1:]) & (hlr[:, 1:] > 0)).all(axis=1)
        & (np.isfinite(flux[:, 1:3]) & (flux[:, 1:3] >= 0)).all(axis=1)
        & (flux[:, 1] + flux[:, 2] > 0)
    )
    redshift, magnitude = np.asarray(table["zphot"]), np.asarray(table["mag_auto"])
    good = np.isfinite(magnitude) & np.isfinite(redshift) & (redshift >= 0)
    return good & np.where(two, double, single)
