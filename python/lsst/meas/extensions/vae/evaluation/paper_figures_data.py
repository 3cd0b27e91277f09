# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What figures of errors are drawn from: columns of one method, edges of bins, and percentiles in them."""

from dataclasses import dataclass

import numpy as np

from ..errors import VaeError
from ..simulation.statistics import clipped_slope
from .simulation_figures import grouped
from .stamp_table import COUNT_EDGES, bin_edges

__all__ = [
    "LEAST_BOX",
    "LEAST_SLOPE",
    "LEAST_WHISKER",
    "PERCENTILES",
    "QUANTITIES",
    "Bins",
    "Quantity",
    "Series",
    "alphas",
    "band_label",
    "counted",
    "find_series",
    "make_bins",
    "methods_of",
]

PERCENTILES = (2.3, 16.0, 50.0, 84.0, 97.7)
"""Ends of whiskers and boxes, and the median between them [%]: 1 and 2 sigma of a Gaussian."""

LEAST_BOX, LEAST_WHISKER, LEAST_SLOPE = 10, 44, 30
"""Scenes that a bin needs for a box, for its whiskers (one is beyond 2.3 %), and for a slope."""

_SIX = frozenset("ugrizy")


@dataclass(frozen=True)
class Quantity:
    """What errors are sorted by.

    Attributes
    ----------
    label : `str`
        With the unit, in matplotlib's mathematical text.
    words : `str`
        The same in HTML.
    log : `bool`
        Is its axis logarithmic?
    """

    label: str
    words: str
    log: bool = False


QUANTITIES = {
    "snr": Quantity("signal to noise $S/N$", "the signal to noise <i>S/N</i> of the target alone", True),
    "delta_mag_c": Quantity(
        r"$\Delta\mathrm{mag}_\mathrm{c}$ [mag]", "the magnitude of the nearest neighbour less the target's"
    ),
    "b_closest": Quantity(
        r"$B_\mathrm{c}$", "the blendedness <i>B</i><sub>c</sub> with the nearest neighbour"
    ),
    "b_tot": Quantity(r"$B_\mathrm{tot}$", "the total blendedness <i>B</i><sub>tot</sub>"),
    "n_galaxies": Quantity("galaxies in the scene", "the number of galaxies in the scene"),
}


class Series:
    """Errors of one method on scenes of one kind.

    Parameters
    ----------
    label : `str`
        Name in the figures.
    errors : `astropy.table.Table`
        As `~.stamps.measure_stamps` gives it.
    kind : `str`
        Kind of scenes.
    method : `str`
        Whose errors.

    Raises
    ------
    VaeError
        Raised if there are none.
    """

    def __init__(self, label, errors, kind, method):
        self.label, self.kind, self.method = label, kind, method
        _need(errors, f"of {label}", ("kind", "method"))
        kinds, methods = (np.asarray(errors[name]).astype(str) for name in ("kind", "method"))
        chosen = (kinds == kind) & (methods == method)
        if not chosen.any():
            raise VaeError(f"the table of {label} has no {kind} scenes of method {method!r}: measure some")
        self._columns = {name: np.asarray(errors[name])[chosen] for name in errors.colnames}
        reference = errors.meta.get("reference_band")
        self.reference = reference if reference is not None else "r"
        self.n_scenes = int(chosen.sum())

    def __contains__(self, name):
        return self._name(name) in self._columns

    def __getitem__(self, name):
        """A column as `float`; "mag_error" and "flux_error" are those of the reference band.

        Shapes are NaN where the noiseless target has none.
        """
        found = self._name(name)
        if found not in self._columns:
            raise VaeError(f"the table of {self.label} has no column {found!r}: measure it again")
        values = np.asarray(self._columns[found], float)
        if name.startswith("e") and "truth_flag" in self._columns:
            values = np.where(self._columns["truth_flag"], np.nan, values)
        return values

    def _name(self, name):
        band = {"mag_error": "mag_{}_error", "flux_error": "flux_{}_error"}.get(name, name)
        return band.format(self.reference)

    def part(self, chosen):
        """The same with the chosen scenes alone (a `bool` each)."""
        found = object.__new__(Series)
        found.__dict__ |= self.__dict__
        found._columns = {name: values[chosen] for name, values in self._columns.items()}
        found.n_scenes = int(np.sum(chosen))
        return found


def band_label(meta):
    """Name of the bands of a table [`str`], from its metadata."""
    bands = list(meta.get("bands", ()))
    survey = str(meta.get("survey", ""))
    if _SIX <= set(bands):
        return "LSST + Euclid" if set(bands) - _SIX else "LSST $ugrizy$"
    return f"{survey} ${''.join(bands)}$" if bands else survey or "these images"


def _need(table, which, names):
    for name in names:
        if name not in table.colnames:
            raise VaeError(f"the table {which} has no column {name!r}: measure it again")


def methods_of(errors, kind):
    """Methods that were measured on scenes of a kind, in order `list` [`str`]."""
    _need(errors, "of errors", ("kind", "method"))
    kinds, methods = (np.asarray(errors[name]).astype(str) for name in ("kind", "method"))
    return list(dict.fromkeys(methods[kinds == kind].tolist()))


def find_series(errors, kind, method=None, label=None):
    """Errors of our own method.

    Parameters
    ----------
    errors : `astropy.table.Table`
        As `~.stamps.measure_stamps` gives it.
    kind : `str`
        "isolated" or "blended".
    method : `str`, optional
        Whose errors; the first of the usual names by default.
    label : `str`, optional
        The bands by default.

    Returns
    -------
    series : `Series`

    Raises
    ------
    VaeError
        Raised if there is none.
    """
    usual = ("prior",) if kind == "isolated" else ("deblender", "refined", "one_pass")
    found = methods_of(errors, kind)
    names = [name for name in usual if name in found] if method is None else [method]
    label = band_label(errors.meta) if label is None else label
    if not names:
        others = f", but of {', '.join(found)}" if found else ""
        raise VaeError(
            f"the table of {label} has no {kind} scenes of {' or '.join(usual)}{others}: measure some"
        )
    return Series(label, errors, kind, names[0])


@dataclass(frozen=True)
class Bins:
    """Bins of one quantity.

    Attributes
    ----------
    by : `str`
        One of `QUANTITIES`.
    edges : `numpy.ndarray`
        Ascending; the last one is included.
    """

    by: str
    edges: np.ndarray

    @property
    def log(self):
        """Whether the axis is logarithmic."""
        return QUANTITIES[self.by].log

    def numbers(self, values):
        """Number of each value's bin, -1 beyond the edges and for NaN."""
        found = np.searchsorted(self.edges, values, "right") - 1
        found = np.where(values == self.edges[-1], len(self.edges) - 2, found)
        inside = np.isfinite(values) & (values >= self.edges[0]) & (values <= self.edges[-1])
        return np.where(inside, found, -1)

    def percentiles(self, values, sorted_by):
        """Percentiles and counts of values in the bins.

        Parameters
        ----------
        values, sorted_by : `numpy.ndarray` ``[scene]``
            NaN is left out.

        Returns
        -------
        levels : `numpy.ndarray` ``[5, bin]``
            At `PERCENTILES`; NaN in empty bins.
        counts : `numpy.ndarray` ``[bin]``
        """
        numbers = np.where(np.isfinite(values), self.numbers(sorted_by), -1)
        groups = [values[numbers == k] for k in range(len(self.edges) - 1)]
        empty = np.full(len(PERCENTILES), np.nan)
        levels = [np.percentile(group, PERCENTILES) if group.size else empty for group in groups]
        return np.array(levels).T, np.array([group.size for group in groups])

    def slots(self, number, total, part=0.7):
        """Left ends, middles and right ends of one of several places side by side in each bin."""
        edges = np.log10(self.edges) if self.log else self.edges
        room = np.diff(edges) * 0.9
        pitch = room / total
        left = edges[:-1] + np.diff(edges) * 0.05 + pitch * (number + (1 - part) / 2)
        places = left, left + pitch * part / 2, left + pitch * part
        return tuple(10**place if self.log else place for place in places)


def make_bins(values, by, kind="paper", number=10, least=25):
    """Bins of a quantity.

    Parameters
    ----------
    values : `numpy.ndarray`
        The quantity.
    by : `str`
        One of `QUANTITIES`.
    kind : {"paper", "quantiles"}
        See `~.stamp_table.bin_edges`.
    number : `int`, optional
        Bins by quantiles at most.
    least : `int`, optional
        Values that one of them has at least, as long as there are three.

    Returns
    -------
    bins : `Bins`

    Raises
    ------
    VaeError
        Raised if the values leave no bin.
    """
    values = values[np.isfinite(values)]
    if by == "n_galaxies":
        edges = np.array([k for k in COUNT_EDGES if k <= values.max(initial=0) + 1], float) - 0.5
        edges = np.append(edges, values.max(initial=0) + 0.5) if len(edges) else edges
        edges = np.unique(edges)
    else:
        number = min(number, max(3, len(values) // least))
        edges = bin_edges(values[values > 0] if QUANTITIES[by].log else values, by, kind, number)
    if len(edges) < 2:
        raise VaeError(f"all values of {by} are equal or missing: no bins can be made")
    return Bins(by, np.asarray(edges, float))


def alphas(series, bins=None, n_bootstrap=100, seed=0):
    """Slope of measured on true ellipticity less 1, the mean of both components.

    Parameters
    ----------
    series : `Series`
        Errors.
    bins : `Bins`, optional
        Of signal to noise; all scenes by default.
    n_bootstrap : `int`, optional
        Bootstrap samples of the scenes for the errors.
    seed : `int`, optional
        Of the bootstrap.

    Returns
    -------
    alpha, error, plain : `numpy.ndarray` ``[bin]``
        Outliers clipped at 3 sigma, its standard deviation, and without clipping; NaN in bins of fewer than
        `LEAST_SLOPE` scenes.
    counts : `numpy.ndarray` ``[bin]``
        Scenes with a shape.
    """
    true, out = (
        np.array([series[f"e{i}_true"] for i in (1, 2)]),
        np.array([series[f"e{i}"] for i in (1, 2)]),
    )
    good = np.isfinite(true).all(axis=0) & np.isfinite(out).all(axis=0)
    numbers = np.zeros(len(good), int) if bins is None else bins.numbers(series["snr"])
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(1 if bins is None else len(bins.edges) - 1):
        x, y = true[:, good & (numbers == k)], out[:, good & (numbers == k)]
        n = x.shape[1]
        if n < LEAST_SLOPE:
            rows.append((np.nan, np.nan, np.nan, n))
            continue
        drawn = [
            _alpha(x[:, chosen], y[:, chosen])
            for chosen in (rng.integers(0, n, n) for _ in range(n_bootstrap))
        ]
        error = np.std(drawn, ddof=1) if len(drawn) > 1 else np.nan
        rows.append((_alpha(x, y), error, _alpha(x, y, clip=np.inf), n))
    alpha, error, plain, counts = (np.array(column) for column in zip(*rows))
    return alpha, error, plain, counts


def _alpha(x, y, **kwargs):
    return float(np.mean([clipped_slope(a, b, **kwargs) for a, b in zip(x, y)])) - 1


def counted(number, what="scenes"):
    """A number with its noun, for a caption [`str`]."""
    return f"{grouped(number)} {what if number != 1 else what.removesuffix('s')}"
