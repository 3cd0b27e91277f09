# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pass the scenes of many shards through memory, a window at a time.

A pass through the scenes takes every scene once.  Samples are cut into
pieces, the pieces are dealt into windows of a bounded size, and the scenes of
a window are shuffled.  All of it follows from the seed and the number of the
pass, so that training resumes anywhere; while one window is used the next is
read.
"""

import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

__all__ = ["Piece", "Window", "Windows", "deal_windows", "cut_pieces"]

# Pieces of a window: enough of them to mix shards and kinds of samples.
_PIECES_PER_WINDOW = 16


@dataclass(frozen=True)
class Piece:
    """Some consecutive scenes of a sample.

    Parameters
    ----------
    sample : `int`
        Number of the sample.
    first, last : `int`
        Its scenes from ``first`` to just before ``last``.
    n_bytes : `int`
        Size of their profiles.
    """

    sample: int
    first: int
    last: int
    n_bytes: int


class Window:
    """Scenes in memory; each is told by its place, from 0 to just before
    ``n_scenes``.

    Parameters
    ----------
    samples : sequence of `~..simulation.shards.StampSample`
        The samples.
    pieces : sequence of `Piece`
        Which of their scenes.

    Attributes
    ----------
    sample, index : `numpy.ndarray`, int ``[scene]``
        The sample of each scene and its place in it.
    """

    def __init__(self, samples, pieces):
        self.sample = np.concatenate([np.full(p.last - p.first, p.sample) for p in pieces])
        self.index = np.concatenate([np.arange(p.first, p.last) for p in pieces])
        self._piece = np.concatenate([np.full(p.last - p.first, k) for k, p in enumerate(pieces)])
        self._rows, bounds = [], []
        for piece in pieces:
            sample = samples[piece.sample]
            part = slice(sample.rows(piece.first).start, sample.rows(piece.last - 1).stop)
            scene, galaxy = sample.scene[part] - piece.first, sample.galaxy[part]
            rows = (scene, galaxy, sample.profiles[part], sample.fluxes[part])
            # Open files would add up, however few scenes are read of each.
            sample.close()
            order = np.lexsort((galaxy, scene))
            # Targets come first as a rule; a copy is made only where they do not.
            if not np.array_equal(order, np.arange(len(order))):
                rows = tuple(column[order] for column in rows)
            starts = np.searchsorted(scene, np.arange(piece.last - piece.first + 1))
            targets = np.bincount(scene[galaxy == 0], minlength=len(starts) - 1)
            bounds.append(np.column_stack([starts[:-1], starts[:-1] + targets, starts[1:]]))
            self._rows.append(rows)
        self._bounds = np.concatenate(bounds)
        self._psf = np.concatenate([samples[p.sample].psf[p.first : p.last] for p in pieces])

    @property
    def n_scenes(self):
        """Number of scenes."""
        return len(self.index)

    def target(self, scene):
        """Rows of the target.

        Returns
        -------
        profiles : `numpy.ndarray`, float16 ``[row, kind, y, x]``
            Packed, see `~..simulation.shards.pack_profiles`.
        fluxes : `numpy.ndarray`, float32 ``[row, band]``
            In the image unit.
        """
        return self._part(scene, 0, 1)

    def neighbours(self, scene):
        """Rows of the neighbours, as `target`; there may be none."""
        return self._part(scene, 1, 2)

    def psf(self, scene):
        """PSFs through which a scene was drawn, float32 ``[kind, 3]``."""
        return self._psf[scene]

    def _part(self, scene, start, stop):
        _, _, profiles, fluxes = self._rows[self._piece[scene]]
        part = slice(self._bounds[scene, start], self._bounds[scene, stop])
        return profiles[part], fluxes[part]

    def sums(self, values, groups):
        """Sums over the rows of each scene, by groups of them.

        Parameters
        ----------
        values : callable
            From profiles and fluxes, as `target` gives them, to an array
            ``[row, ...]``.
        groups : callable
            From the number of the galaxy of each row, int8 ``[row]``, to
            that of the group, an array of int.

        Returns
        -------
        sums : `numpy.ndarray`, float32 ``[scene, group, ...]``
        """
        parts = []
        for scene, galaxy, profiles, fluxes in self._rows:
            value, group = values(profiles, fluxes), groups(galaxy)
            part = np.zeros((scene[-1] + 1, group.max() + 1, *value.shape[1:]), np.float32)
            np.add.at(part, (scene, group), value)
            parts.append(part)
        most = max(part.shape[1] for part in parts)
        sums = np.zeros((self.n_scenes, most, *parts[0].shape[2:]), np.float32)
        start = 0
        for part in parts:
            sums[start : start + len(part), : part.shape[1]] = part
            start += len(part)
        return sums


def cut_pieces(samples, window_bytes):
    """Cut samples into pieces, each a small part of a window.

    Parameters
    ----------
    samples : sequence of `~..simulation.shards.StampSample`
        The samples.
    window_bytes : `int`
        Size of a window's profiles.

    Returns
    -------
    pieces : `list` [`Piece`]
        All scenes, in order.
    """
    pieces = []
    for number, sample in enumerate(samples):
        shape, itemsize = sample.profiles.shape, sample.profiles.dtype.itemsize
        total = int(np.prod(shape, dtype=np.int64)) * itemsize
        count = min(sample.n_scenes, -(-total * _PIECES_PER_WINDOW // window_bytes))
        edges = np.linspace(0, sample.n_scenes, max(count, 1) + 1).astype(int).tolist()
        pieces += [
            Piece(number, first, last, total * (last - first) // sample.n_scenes)
            for first, last in zip(edges, edges[1:], strict=False)
        ]
    return pieces


def deal_windows(pieces, kinds, window_bytes, rng):
    """Deal pieces into windows, in an order drawn at random.

    Every window gets its share of each kind of sample, so that isolated
    targets find neighbours in it.

    Parameters
    ----------
    pieces : sequence of `Piece`
        The pieces.
    kinds : sequence
        Kind of each sample.
    window_bytes : `int`
        Size of a window; one has at most a piece more than that.
    rng : `numpy.random.Generator`
        Draws the order.

    Returns
    -------
    windows : `list` [`list` [`Piece`]]
        None is empty.
    """
    total = sum(piece.n_bytes for piece in pieces)
    count = max(1, -(-total // window_bytes))
    if count == 1:
        return [list(pieces)]
    shuffled = [pieces[i] for i in rng.permutation(len(pieces))]
    place = {}
    for kind in dict.fromkeys(kinds):  # in an order that does not change between processes, as a set's does
        same = [piece for piece in shuffled if kinds[piece.sample] == kind]
        share = rng.random()
        place |= {piece: (rank + share) / len(same) for rank, piece in enumerate(same)}
    shuffled.sort(key=place.__getitem__)
    windows, seen = [[] for _ in range(count)], 0
    for piece in shuffled:
        middle = seen + piece.n_bytes / 2
        windows[min(int(middle * count / total), count - 1)].append(piece)
        seen += piece.n_bytes
    return [window for window in windows if window]


class Windows:
    """An endless sequence of shuffled passes through all scenes.

    Parameters
    ----------
    samples : sequence of `~..simulation.shards.StampSample`
        The samples, in memory or opened.
    window_bytes : `int`
        Size of a window's profiles; two windows are held at a time.
    seed : `int`
        Seed of the order.
    load : callable, optional
        Makes what `take` gives of a `Window`.
    """

    def __init__(self, samples, window_bytes, seed, load=lambda window: window):
        self._samples, self._window_bytes, self._seed, self._load = samples, window_bytes, seed, load
        self.n_scenes = sum(sample.n_scenes for sample in samples)
        self._kinds = [sample.kind for sample in samples]
        self._pieces = cut_pieces(samples, window_bytes)
        self._lock = threading.Lock()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="windows")
        self._plans, self._held = OrderedDict(), OrderedDict()

    def take(self, position, count):
        """Scenes at consecutive places of the sequence.

        Parameters
        ----------
        position, count : `int`
            The first place and how many.

        Yields
        ------
        window : `Window`
            Or what ``load`` made of it.
        scenes : `numpy.ndarray`, int
            Places in the window.
        """
        while count:
            number, place = divmod(position, self.n_scenes)
            windows, starts, orders = self._plan(number)
            k = int(np.searchsorted(starts, place, side="right")) - 1
            scenes = orders[k][place - starts[k] :][:count]
            window = self._hold(number, k)
            yield window, scenes
            if len(windows) > 1 and place - starts[k] > len(orders[k]) // 4:
                # Nobody needs the window before this one any more.
                following = (number, k + 1) if k + 1 < len(windows) else (number + 1, 0)
                self._hold(*following, wait=False)
            position += len(scenes)
            count -= len(scenes)

    def _plan(self, number):
        """Windows of a pass, where each starts, and the order in each."""
        with self._lock:
            if number not in self._plans:
                rng = np.random.default_rng([self._seed, 1 << 30, number])
                windows = deal_windows(self._pieces, self._kinds, self._window_bytes, rng)
                counts = [sum(piece.last - piece.first for piece in window) for window in windows]
                starts = np.cumsum([0, *counts])[:-1]
                self._plans[number] = windows, starts, [rng.permutation(n) for n in counts]
                while len(self._plans) > 2:
                    self._plans.popitem(last=False)
            return self._plans[number]

    def _hold(self, number, k, wait=True):
        """Read a window, unless it is there, and let the oldest go."""
        windows = self._plan(number)[0]
        key = (number, k) if len(windows) > 1 else None
        with self._lock:
            if key not in self._held:
                self._held[key] = self._reader.submit(lambda: self._load(Window(self._samples, windows[k])))
            self._held.move_to_end(key)
            while len(self._held) > 2:
                self._held.popitem(last=False)
            future = self._held[key]
        return future.result() if wait else None
