# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Arcelin et al. 2020 reached on their test sample, what this project means to reach, and who does."""

import math
from dataclasses import dataclass

import numpy as np
from astropy.table import Table

__all__ = ["MIN_NUMBER", "Target", "judge", "stamp_targets"]

MIN_NUMBER = 30
"""Bins with fewer measured scenes do not count among those of which the worst is judged: the median of 29
errors of a half-width of 0.05 is not known to 0.01."""

_LSST = ("u", "g", "r", "i", "z", "y")
_EUCLID = ("VIS", "Y", "J", "H")
_NAN = float("nan")


@dataclass(frozen=True)
class Target:
    """A number and how far it may be from 0.

    Attributes
    ----------
    method : `str`
        "prior" or "deblender".
    quantity : `str`
        What it is, in words.
    columns : `tuple` [`str`]
        Columns of the summary; the number farthest from 0 counts.
    by : `str`
        Which rows of the summary; of several, the one farthest from 0 counts.
    at : `float`
        Only the bin that holds this value; NaN for all bins.
    paper, reach, aim : `float`
        The paper's value or limit, and the project's; NaN where there is none.
    """

    method: str
    quantity: str
    columns: tuple
    by: str = "all"
    at: float = _NAN
    paper: float = _NAN
    reach: float = _NAN
    aim: float = _NAN


def stamp_targets(survey, bands, centring="none"):
    """Targets for a sample.

    The paper's values are those of its text: sections 4.2 (prior: medians within 0.025 in bins of SNR,
    magnitude errors below 0.2 at 2 sigma) and 4.3 (deblender: medians within 0.015 and 0.08; 0.008 and 0.035
    at B_closest of 80 %), and 4.4 (alpha: -0.056 for LSST, -0.016 for LSST+Euclid; -0.081 and -0.084 for
    targets off the centre, by pixels and by peaks). Figures 5 and 6 show spreads without telling numbers.
    The standard deviations and the median magnitude error of the prior are those of the authors' own stored
    results for isolated LSST galaxies (LSSTDESC/DeblenderVAE). What is to be reached and aimed at is the
    project's own choice (doc/models.rst).

    Parameters
    ----------
    survey : `str`
        Name of the sample's survey.
    bands : sequence of `str`
        Bands that were measured.
    centring : `str`, optional
        Where targets are: the sample's setting, "none" for the centre.

    Returns
    -------
    targets : `tuple` [`Target`]
        None for other surveys than the paper's, or other bands.
    """
    six, ten = set(bands) == set(_LSST), set(bands) == {*_LSST, *_EUCLID}
    if survey.partition("+")[0] != "arcelin2020" or not (six or ten):
        return ()
    if centring != "none":
        paper = {"pixelisation": -0.081, "peaks": -0.084}.get(centring)
        if ten or paper is None:
            return ()
        return tuple(Target("deblender", f"alpha_{i}", (f"alpha_{i}",), paper=paper) for i in (1, 2))
    goals = {
        "e": (0.010, 0.005),
        "mag": (0.05, 0.02),
        "alpha": (0.03, 0.01),
        "width": (0.05, 0.03),
    }
    if ten:
        goals = dict.fromkeys(goals, (_NAN, _NAN)) | {"alpha": (0.01, 0.005)}
    e, mag, alpha, width = goals.values()
    found = [
        Target("prior", "median |e| error, worst SNR bin", ("e_median",), "snr", paper=0.025),
        Target("prior", "median r error, worst SNR bin", ("mag_median",), "snr", paper=0.025),
        Target("prior", "r error at 2 sigma", ("mag_low", "mag_high"), paper=0.2),
    ]
    if six:
        found += [
            Target("prior", "standard deviation of e1 errors", ("e1_std",), paper=0.073),
            Target("prior", "standard deviation of e2 errors", ("e2_std",), paper=0.077),
            Target("prior", "standard deviation of r errors", ("mag_std",), paper=0.053),
            Target("prior", "median r error", ("mag_median",), paper=0.023),
        ]
    found += [
        Target("deblender", "median |e| error, worst SNR bin", ("e_median",), "snr", _NAN, 0.015, *e),
        Target("deblender", "median r error, worst SNR bin", ("mag_median",), "snr", _NAN, 0.08, *mag),
        Target("deblender", "median |e| error, worst B_tot bin", ("e_median",), "b_tot", paper=0.015),
        Target("deblender", "median r error, worst B_tot bin", ("mag_median",), "b_tot", paper=0.08),
        *(
            Target("deblender", f"alpha_{i}", (f"alpha_{i}",), "all", _NAN, -0.056 if six else -0.016, *alpha)
            for i in (1, 2)
        ),
        Target("deblender", "|e| half-width, SNR > 50", ("e_half_width",), "snr_min", _NAN, _NAN, *width),
        Target("deblender", "median |e| error, B_closest of 0.8", ("e_median",), "b_closest", 0.8, 0.008),
        Target("deblender", "median r error, B_closest of 0.8", ("mag_median",), "b_closest", 0.8, 0.035),
    ]
    return tuple(found)


def judge(summary, targets=None):
    """Compare a summary with targets.

    Parameters
    ----------
    summary : `astropy.table.Table`
        As `~.stamp_table.summarise_stamps` gives it.
    targets : sequence of `Target`, optional
        Those of the sample by default.

    Returns
    -------
    verdicts : `astropy.table.Table`
        One row a target whose method was measured: method, quantity, where (the bin), number (of measured
        scenes in it), value, error; paper, reach, aim; better_than_paper, reached, aim_reached: "yes", "no",
        or empty without such a number. A limit is met by what is not farther from 0.
    """
    if targets is None:
        targets = stamp_targets(summary.meta["survey"], summary.meta["bands"], _centring(summary))
    rows = []
    for target in targets:
        chosen = summary[(summary["method"] == target.method) & (summary["by"] == target.by)]
        if np.isfinite(target.at):
            chosen = chosen[(chosen["low"] <= target.at) & (target.at < chosen["high"])]
        if not len(chosen):
            continue
        rows.append(_verdict(target, chosen))
    names = [
        "method",
        "quantity",
        "where",
        "number",
        "value",
        "error",
        *(name for pair in _LIMITS for name in pair),
    ]
    texts = {"method", "quantity", "where", *(verdict for _, verdict in _LIMITS)}
    table = Table(
        {
            name: np.array(
                [row[name] for row in rows],
                dtype=str if name in texts else int if name == "number" else float,
            )
            for name in names
        }
    )
    table.meta = dict(summary.meta)
    return table


_LIMITS = (("paper", "better_than_paper"), ("reach", "reached"), ("aim", "aim_reached"))


def _centring(summary):
    """Centring of the samples; "mixed" if they differ."""
    found = {
        sample["settings"].get("centring", "none")
        for samples in summary.meta["samples"].values()
        for sample in samples
    }
    return found.pop() if len(found) == 1 else "mixed"


def _verdict(target, rows):
    counts = rows["number"] - rows["failures"] if target.columns[0].startswith("e") else rows["scenes"]
    number, value, where, error = 0, _NAN, "", _NAN
    for row, count in zip(rows, counts):
        for column in target.columns:
            if len(rows) > 1 and count < MIN_NUMBER:
                continue
            if math.isfinite(row[column]) and not abs(row[column]) <= abs(value):
                number, value = int(count), float(row[column])
                error = float(row[f"{column}_error"]) if f"{column}_error" in rows.colnames else _NAN
                if math.isfinite(row["low"]) and math.isfinite(row["high"]):
                    where = f"{target.by} {row['low']:.3g} to {row['high']:.3g}"
    verdict = {
        "method": target.method,
        "quantity": target.quantity,
        "where": where,
        "number": number,
        "value": value,
        "error": error,
    }
    for name, met in _LIMITS:
        limit = getattr(target, name)
        verdict[name] = limit
        verdict[met] = "" if math.isnan(limit) else "yes" if abs(value) <= abs(limit) else "no"
    return verdict
