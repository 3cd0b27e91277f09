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
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from ..simulation.geometry import overlap

__all__ = ["solve_amplitudes"]

# Neighbours whose freedom counts for the error of an amplitude, at most.
_MOST_NEIGHBOURS = 60

# Elements of such matrices that are looked up at once.
_MOST_ELEMENTS = 1_000_000


def solve_amplitudes(images, weights, templates, origins, prior_width=0.0):
    """Amplitudes of the templates of each band.

    Minimises, band by band, ``sum_p w_p (image_p - sum_k a_k T_kp)^2`` over
    ``a >= 0``, plus ``sum_k ((a_k - 1) / prior_width)^2`` if a width is given.

    Parameters
    ----------
    images, weights : `numpy.ndarray`, ``[band, y, x]``
        Pixels, and their inverse variance, 0 where there is no data.
    templates : `numpy.ndarray`, ``[n, band, y, x]``
        Square stamps.
    origins : `numpy.ndarray`, int ``[n, 2]``
        y and x of each stamp's first pixel.
    prior_width : `float`, optional
        How far, relative to one, amplitudes are expected to lie from the
        network's own fluxes; 0 for no such expectation.

    Returns
    -------
    amplitudes, errors : `numpy.ndarray`, float64 ``[n, band]``
        Amplitudes, and the standard deviations that pixel noise gives them
        when all overlapping ones are free and nothing is expected of them;
        NaN where a template has no weight at all.
    """
    pairs, shared, diagonals, data = _normal_equations(images, weights, templates, origins)
    n, expectation = len(templates), prior_width**-2.0 if prior_width > 0 else 0.0
    amplitudes, errors = np.full(data.shape, np.nan), np.full(data.shape, np.nan)
    own = np.arange(n)
    rows = np.concatenate([own, pairs[:, 0], pairs[:, 1]])
    columns = np.concatenate([own, pairs[:, 1], pairs[:, 0]])
    for band, diagonal in enumerate(diagonals.T):
        values = np.concatenate([diagonal, shared[:, band], shared[:, band]])
        gram = coo_matrix((values, (rows, columns)), shape=(n, n)).tocsc()
        gram.eliminate_zeros()
        seen = diagonal > 0
        # Two templates of one shape at one place make the matrix singular; a
        # ridge far below any real weight shares the flux between them.
        ridge = 1e-8 * diagonal
        # One group at a time: rounding differs with the order in which a whole field's matrix is factorised,
        # and a source must not change with others that share no light with it.
        order, ends = _groups(gram, np.flatnonzero(seen))
        matrix = (gram + diags(ridge + expectation)).tocsc()[:, order][order]
        for start, end in zip(ends, ends[1:]):
            part, group = slice(start, end), order[start:end]
            amplitudes[group, band] = _non_negative(matrix[part, part], data[group, band] + expectation)
        errors[:, band] = _errors(gram, ridge, seen)
    return amplitudes, errors


def _groups(gram, members):
    """Members in groups whose templates overlap, if through others, and where each group ends."""
    _, label = connected_components(gram[:, members][members], directed=False)
    order = members[np.argsort(label, kind="stable")]
    return order, np.concatenate([[0], np.cumsum(np.bincount(label))])


def _non_negative(matrix, data):
    """Solve for amplitudes of at least zero."""
    amplitudes, free = np.zeros(len(data)), np.arange(len(data))
    # Every round takes one amplitude at least out of the game.
    while free.size:
        solution = splu(matrix).solve(data[free]) if len(free) > 1 else data[free] / matrix.toarray()[0]
        if (solution >= 0).all():
            amplitudes[free] = solution
            break
        kept = np.flatnonzero(solution >= 0)
        matrix, free = matrix[:, kept][kept], free[kept]
    return amplitudes


def _errors(gram, ridge, seen):
    """Standard deviation of each amplitude, with all that overlap it free.

    Templates that overlap the source little, or not at all, hardly matter, so
    each error needs the inverse of a small matrix only, and the cost grows
    with the number of sources and not with its cube.
    """
    errors = np.full(len(ridge), np.nan)
    diagonal, together = gram.diagonal(), {}
    for k in np.flatnonzero(seen):
        part = slice(gram.indptr[k], gram.indptr[k + 1])
        near, shared = gram.indices[part], gram.data[part]
        near, shared = near[seen[near]], shared[seen[near]]
        if len(near) > _MOST_NEIGHBOURS:
            correlation = shared**2 / diagonal[near]
            near = near[np.argpartition(-correlation, _MOST_NEIGHBOURS)[:_MOST_NEIGHBOURS]]
        together.setdefault(len(near), []).append((k, near))
    # Matrices of one size are solved at once, and each by itself all the same.
    for size, members in together.items():
        step = max(_MOST_ELEMENTS // size**2, 1)
        for start in range(0, len(members), step):
            numbers, near = (np.array(column) for column in zip(*members[start : start + step], strict=True))
            rows, columns = (v.ravel() for v in np.broadcast_arrays(near[:, :, None], near[:, None, :]))
            blocks = np.asarray(gram[rows, columns]).reshape(-1, size, size)
            blocks[:, range(size), range(size)] += ridge[near]
            own = near == numbers[:, None]
            inverse = np.linalg.solve(blocks, own[..., None].astype(float))[..., 0]
            errors[numbers] = np.sqrt(np.maximum(inverse[own], 0.0))
    return errors


def _normal_equations(images, weights, templates, origins):
    """Weighted products of templates that overlap, of each with itself, and of each with the image.

    Returns
    -------
    pairs : `numpy.ndarray`, int ``[pair, 2]``
        Templates that share pixels, the first before the second.
    shared : `numpy.ndarray`, float64 ``[pair, band]``
    diagonals, data : `numpy.ndarray`, float64 ``[n, band]``
    """
    n, n_bands, size = templates.shape[:3]
    origins = np.asarray(origins, dtype=np.int64).reshape(-1, 2)
    pairs = np.zeros((0, 2), np.int64)
    if n > 1:
        pairs = cKDTree(origins).query_pairs(size - 1, p=np.inf, output_type="ndarray").astype(np.int64)
        pairs = pairs[np.lexsort(pairs.T[::-1])]
    starts = np.searchsorted(pairs[:, 0], np.arange(n + 1))
    shared = np.zeros((len(pairs), n_bands))
    diagonals, data = np.zeros((n, n_bands)), np.zeros((n, n_bands))
    weighted = np.empty((n_bands, size, size))
    for k, origin in enumerate(origins):
        in_image, in_stamp = overlap(origin, size, images.shape[1:])
        weighted[:] = 0
        weighted[:, *in_stamp] = templates[k][:, *in_stamp] * weights[:, *in_image].astype(np.float64)
        diagonals[k] = _products(weighted, templates[k])
        data[k] = _products(weighted[:, *in_stamp], images[:, *in_image])
        for pair in range(starts[k], starts[k + 1]):
            other = pairs[pair, 1]
            y, x = origins[other] - origin
            mine = slice(max(y, 0), size + min(y, 0)), slice(max(x, 0), size + min(x, 0))
            theirs = slice(max(-y, 0), size - max(y, 0)), slice(max(-x, 0), size - max(x, 0))
            shared[pair] = _products(weighted[:, *mine], templates[other][:, *theirs])
    return pairs, shared, diagonals, data


def _products(a, b):
    """Sum over pixels of the product of two images of each band."""
    return np.einsum("bij,bij->b", a, b)
