# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shear biases m and c of measured ellipticities, from scenes in sheared versions that share their noise.

Five versions of a scene, sheared by (0, 0), (+-g, 0) and (0, +-g), hold the same galaxies under the same
random numbers (`SceneSettings.shear_step`; Arcelin et al. 2020, section 4.3). The difference of two of them
is nearly free of the galaxies' own shapes and of the noise, and so m_i = <(e_i+ - e_i-) / 2 g> - 1 takes few
scenes. c_i = <e_i> of the unsheared ones is not free of shapes: c_i less that of the noiseless targets nearly
is.
"""

import math

import numpy as np
from astropy.table import Table

from ..errors import VaeError

__all__ = ["TARGET", "shear_bias"]

TARGET = "target"
"""What the noiseless targets, measured in the same way, are called among the methods."""

_COLUMNS = ("method", "kind", "shard", "base_scene", "g1", "g2", "snr", "e1", "e2", "e1_true", "e2_true")

# Signs of the two components of shear in the versions of a scene: none, and up and down of each.
_VERSIONS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))

_DOCS = {
    "method": "What gave the images; target for the noiseless targets",
    "kind": "Kind of the sample",
    "scenes": "Base scenes that have all five versions",
    "number_{}": "Of those, scenes whose two versions sheared in e{} have a shape by the method",
    "m_{}": "Multiplicative bias of e{} as a measure of shear",
    "m_{}_error": "Its standard error",
    "c_{}": "Mean e{} without shear, with the galaxies' own shapes in it",
    "c_{}_error": "Its standard error",
    "m_{}_relative": "Response of e{} in that of the noiseless targets, less 1",
    "m_{}_relative_error": "Its standard error",
    "c_{}_relative": "Mean e{} without shear, less that of the noiseless targets",
    "c_{}_relative_error": "Its standard error",
    "scenes_needed": "Base scenes with which the errors of m_1 and m_2 would be the goal",
}


def shear_bias(errors, snr_min=0.0, goal=3e-3):
    """Shear biases of every method on sheared samples.

    A response counts where both of its versions have a shape, so that scenes are cut by no more than what the
    two have in common; standard errors are a jackknife's over base scenes, whose versions stay together. No
    outlier is clipped: clipped responses have another mean.

    Parameters
    ----------
    errors : `astropy.table.Table`
        As `~.stamps.measure_stamps` gives it, of samples with a ``shear_step``.
    snr_min : `float`, optional
        Only scenes whose target has at least this signal to noise, without shear.
    goal : `float`, optional
        Standard error of m for which scenes_needed is told.

    Returns
    -------
    biases : `astropy.table.Table`
        One row a kind of sample and method, the noiseless targets first: what its columns are is in their
        descriptions. NaN where there are not enough scenes. ``meta`` is that of the errors, with shear_step,
        snr_min and goal.

    Raises
    ------
    VaeError
        If the table lacks a column, or its scenes are not sheared in five ways by one step.
    """
    lacking = [name for name in _COLUMNS if name not in errors.colnames]
    if lacking:
        raise VaeError(f"the table of errors has no column {lacking[0]}: measure it again")
    step = float(np.max(np.abs([errors["g1"], errors["g2"]]), initial=0.0))
    if not step > 0:
        raise VaeError(
            "no scene of the table is sheared: measure a sample that was simulated with scenes.shearStep"
        )
    rows = []
    kinds, methods = (np.asarray(errors[name]).astype(str) for name in ("kind", "method"))
    for kind in dict.fromkeys(kinds.tolist()):
        for method in dict.fromkeys(methods[kinds == kind].tolist()):
            part = errors[(kinds == kind) & (methods == method)]
            e, truth = _by_base(part, step, snr_min)
            if not any(row["kind"] == kind for row in rows):
                rows.append({"method": TARGET, "kind": kind} | _describe(truth, truth, step, goal))
            rows.append({"method": method, "kind": kind} | _describe(e, truth, step, goal))
    table = Table(rows=rows)
    for name in table.colnames:
        pattern = name.replace("_1", "_{}").replace("_2", "_{}")
        table[name].description = _DOCS[pattern].format(name.split("_")[1] if pattern != name else "")
    table.meta = dict(errors.meta) | {"shear_step": step, "snr_min": float(snr_min), "goal": float(goal)}
    return table


def _by_base(part, step, snr_min):
    """Ellipticities of a method and of the noiseless targets, float64 ``[base, version, component]``."""
    names = np.stack([np.asarray(part["shard"], int), np.asarray(part["base_scene"], int)])
    _, base = np.unique(names, axis=1, return_inverse=True)
    base = base.ravel()
    signs = np.stack([np.asarray(part[name], float) / step for name in ("g1", "g2")], axis=1)
    near = np.abs(signs[:, None] - np.array(_VERSIONS)) < 1e-3
    version = near.all(axis=2)
    if not version.any(axis=1).all():
        row = int(np.flatnonzero(~version.any(axis=1))[0])
        raise VaeError(
            f"scene {part['base_scene'][row]} is sheared by ({part['g1'][row]:g}, {part['g2'][row]:g}): "
            f"expected none or +-{step:g} in one component; measure samples of one shear step"
        )
    version = version.argmax(axis=1)
    number = base.max() + 1
    found = np.full((2, number, len(_VERSIONS), 2), np.nan)
    there = np.zeros((number, len(_VERSIONS)), bool)
    there[base, version] = True
    for place, suffix in enumerate(("", "_true")):
        for i in (1, 2):
            found[place, base, version, i - 1] = part[f"e{i}{suffix}"]
    snr = np.full(number, np.nan)
    snr[base[version == 0]] = np.asarray(part["snr"])[version == 0]
    kept = there.all(axis=1) & (snr >= snr_min)
    return found[0][kept], found[1][kept]


def _describe(e, truth, step, goal):
    row = {"scenes": len(e)}
    worst = 0.0
    for i in (0, 1):
        up, down = 1 + 2 * i, 2 + 2 * i
        response, known = ((array[:, up, i] - array[:, down, i]) / (2 * step) for array in (e, truth))
        both = np.isfinite(response) & np.isfinite(known)
        m, m_error = _jackknife(response[np.isfinite(response)])
        relative, relative_error = _jackknife(response[both], known[both])
        shape, own = e[:, 0, i], truth[:, 0, i]
        c, c_error = _jackknife(shape[np.isfinite(shape)])
        more = shape - own
        c_relative, c_relative_error = _jackknife(more[np.isfinite(more)])
        row |= {
            f"number_{i + 1}": int(np.isfinite(response).sum()),
            f"m_{i + 1}": m - 1,
            f"m_{i + 1}_error": m_error,
            f"c_{i + 1}": c,
            f"c_{i + 1}_error": c_error,
            f"m_{i + 1}_relative": relative - 1,
            f"m_{i + 1}_relative_error": relative_error,
            f"c_{i + 1}_relative": c_relative,
            f"c_{i + 1}_relative_error": c_relative_error,
        }
        worst = np.maximum(worst, row[f"number_{i + 1}"] * (m_error / goal) ** 2)
    # Scenes are lost to failures in the same part as here.
    lost = len(e) / max(min(row["number_1"], row["number_2"]), 1)
    row["scenes_needed"] = float(np.ceil(worst * lost))
    return row


def _jackknife(values, others=None):
    """Mean of values, or its ratio to that of others, and the standard error by leaving one out at a time."""
    number = len(values)
    if number < 2:
        return float("nan"), float("nan")
    others = np.ones(number) if others is None else others
    total, norm = values.sum(), others.sum()
    left = (total - values) / (norm - others)
    error = math.sqrt((number - 1) / number * np.square(left - left.mean()).sum())
    return float(total / norm), error
