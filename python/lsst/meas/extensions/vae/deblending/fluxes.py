# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fluxes of overlapping models, solved together.

Each source has one template a band.  The amplitudes of all templates are the
non-negative weighted least-squares solution, so that neighbours share the
light of the pixels between them as their shapes say.
"""

import numpy as np
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import splu

from ..simulation.geometry import overlap

__all__ = ["solve_amplitudes"]


def solve_amplitudes(image, weight, templates, origins, prior_width=0.0):
    """Amplitudes of the templates of one band.

    Minimises ``sum_p w_p (image_p - sum_k a_k T_kp)^2`` over ``a >= 0``, plus
    ``sum_k ((a_k - 1) / prior_width)^2`` if a width is given.

    Parameters
    ----------
    image, weight : `numpy.ndarray`, ``[y, x]``
        Pixels, and their inverse variance, 0 where there is no data.
    templates : `numpy.ndarray`, ``[n, y, x]``
        Square stamps.
    origins : `numpy.ndarray`, int ``[n, 2]``
        y and x of each stamp's first pixel.
    prior_width : `float`, optional
        How far, relative to one, amplitudes are expected to lie from the
        network's own fluxes; 0 for no such expectation.

    Returns
    -------
    amplitudes, errors : `numpy.ndarray`, float64 ``[n]``
        Amplitudes, and the standard deviations that pixel noise gives them
        when all overlapping ones are free and nothing is expected of them;
        NaN where a template has no weight at all.
    """
    n, size = len(templates), templates.shape[-1]
    gram, data = _normal_equations(image, weight, templates, origins, size)
    diagonal = gram.diagonal()
    seen = diagonal > 0
    # Two templates of one shape at one place make the matrix singular; a
    # ridge far below any real weight shares the flux between them.
    ridge = 1e-8 * diagonal
    expectation = prior_width**-2.0 if prior_width > 0 else 0.0
    amplitudes = np.full(n, np.nan)
    amplitudes[seen] = 0.0
    free = np.flatnonzero(seen)
    # Every round takes one amplitude at least out of the game.
    while free.size:
        matrix = gram[free][:, free] + diags(ridge[free] + expectation)
        solution = splu(matrix.tocsc()).solve(data[free] + expectation)
        if (solution >= 0).all():
            amplitudes[free] = solution
            break
        free = free[solution >= 0]
    return amplitudes, _errors(gram, ridge, seen)


def _errors(gram, ridge, seen):
    """Standard deviation of each amplitude, with all that overlap it free.

    Templates that do not overlap the source itself hardly matter, so each
    error needs the inverse of a small matrix only, and the cost grows with
    the number of sources and not with its cube.
    """
    errors = np.full(len(ridge), np.nan)
    for k in np.flatnonzero(seen):
        near = gram.indices[gram.indptr[k] : gram.indptr[k + 1]]
        near = near[seen[near]]
        block = gram[near][:, near].toarray() + np.diag(ridge[near])
        inverse = np.linalg.solve(block, (near == k).astype(float))
        errors[k] = np.sqrt(max(inverse[near == k][0], 0.0))
    return errors


def _normal_equations(image, weight, templates, origins, size):
    rows, columns, values, data = [], [], [], np.zeros(len(templates))
    weighted = []
    for k, (template, origin) in enumerate(zip(templates, origins, strict=True)):
        in_cube, in_stamp = overlap(origin, size, image.shape)
        product = np.zeros((size, size))
        product[in_stamp] = template[in_stamp] * weight[in_cube]
        weighted.append(product)
        data[k] = np.sum(product[in_stamp] * image[in_cube])
    # Sorted by y, the stamps that can overlap stamp k follow it closely.
    order = np.argsort(origins[:, 0], kind="stable")
    for position, k in enumerate(order):
        for j in order[position:]:
            dy, dx = origins[j] - origins[k]
            if dy >= size:
                break
            if abs(dx) >= size:
                continue
            in_k, in_j = overlap((dy, dx), size, (size, size))
            value = np.sum(weighted[k][in_k] * templates[j][in_j])
            rows += [k, j] if j != k else [k]
            columns += [j, k] if j != k else [k]
            values += [value, value] if j != k else [value]
    return coo_matrix((values, (rows, columns)), shape=(len(templates),) * 2).tocsc(), data
