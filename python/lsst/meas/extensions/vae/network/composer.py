# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compose training batches from samples: fresh neighbours, noise and flips.

A sample holds noiseless profiles and fluxes.  Each time a scene is used its
target may meet the neighbours of another scene, the whole stamp is flipped or
rotated and new noise is drawn, so that a network never sees the same pixels
twice.

What makes it fast: profiles are turned while they are packed, which moves a
small part of the pixels of all bands; the scale at the network's door goes
into the fluxes; and all is written straight into the batch.
"""

import itertools

import numpy as np

from ..simulation.noise import NoiseModel, QuickNormals
from ..simulation.shards import unpack_profiles
from .windows import Window, Windows, cut_pieces

__all__ = ["AUGMENTATIONS", "SceneComposer", "mean_peak", "remove_negative", "turn", "turn_psfs"]

AUGMENTATIONS = {"none": (0,), "four": (0, 1, 4, 5), "eight": tuple(range(8))}
"""Ways of `turn` by name.  "eight" are all flips and quarter turns, the
paper's words.  "four" are those of the last published code, which are not all
flips: as it is, mirrored in x, transposed, and mirrored in x and then
transposed, a quarter turn.  (Its early commits had the four flips; it drew
one way a batch, where here each scene has its own.)
"""

# Half the side of the central square in which the brightest pixel of the
# scene's heart must lie for the target to count as a peak; see `_Stock`.
_PEAK_HALF_WIDTH, _HEART_HALF_WIDTH = 2, 4

# Scenes that get their noise together.
_GROUP = 4

# Where cutting off negative pixels adds less than this share of the flux, that is all.
_NEGATIVE_SHARE = 1e-3

# Profiles that `mean_peak` reads at a time.
_PEAK_BYTES = 2**28

# Neighbours that are tried before a target keeps its own.
_TRIALS = 3

# Scenes of the paper exchange neighbours with those whose targets are as bright: this share of the
# window's blended scenes to each side in the order of brightness, and so many of them at least.
_NEAR_SHARE, _NEAR_LEAST = 0.02, 20


def turn(image, way):
    """Flip and turn an image.

    Parameters
    ----------
    image : `numpy.ndarray`, ``[..., y, x]``
        Square.
    way : `int`
        0 to 7: the bits say mirrored in x, in y, and then transposed.

    Returns
    -------
    turned : `numpy.ndarray`, ``[..., y, x]``
        A view.
    """
    if way & 1:
        image = image[..., ::-1]
    if way & 2:
        image = image[..., ::-1, :]
    return image.swapaxes(-1, -2) if way & 4 else image


def remove_negative(image):
    """Make an image the nearest one without negative pixels of the same flux.

    Losses compare shares of the flux or probabilities, which are not
    negative; but galaxies with HST images have these images' noise, and
    cutting off its negative half makes the worst of GalSim's examples
    0.3 mag brighter.  So what the cut adds is taken evenly from the pixels
    that stay positive, which gives the nearest image in the sense of least
    squares: their noise goes first, and the peaks of these examples keep
    99.75 % on average.

    Parameters
    ----------
    image : `numpy.ndarray`, float32 ``[..., y, x]``
        C-contiguous, changed in place; all zero where its flux is not
        positive.
    """
    pixels = image.reshape(-1, image.shape[-2] * image.shape[-1])
    # A product of matrices is the quickest sum, and the greater of two arrays
    # is found in a third of the time that it takes with a number.
    ones, zeros = np.ones(pixels.shape[1], np.float32), np.zeros(pixels.shape[1], np.float32)
    flux = pixels @ ones
    np.maximum(pixels, zeros, out=pixels)
    # Models ripple below zero by a part in 10^5, which counts for nothing.
    for k in np.flatnonzero(pixels @ ones - flux > _NEGATIVE_SHARE * flux):
        kept, less = pixels[k], np.inf
        while flux[k] > 0:
            less = (kept.sum(dtype=np.float64) - flux[k]) / len(kept)
            left = kept[kept > less]
            # Fewer each time; all of them at the end.
            if len(left) in (0, len(kept)):
                break
            kept = left
        np.maximum(pixels[k] - np.float32(less), np.float32(0.0), out=pixels[k])


def turn_psfs(packed, way):
    """Turn PSFs as `turn` turns images.

    Parameters
    ----------
    packed : `numpy.ndarray`, float32 ``[..., 3]``
        FWHM, e1, e2.
    way : `int`
        As in `turn`.

    Returns
    -------
    turned : `numpy.ndarray`, float32 ``[..., 3]``
    """
    # Either mirror changes the sign of e2, and transposing that of e1.
    mirrored = -1.0 if way in (1, 2, 5, 6) else 1.0
    return packed * np.array([1.0, -1.0 if way & 4 else 1.0, mirrored], np.float32)


def _deepen(noisy, scenes, noise):
    """Bring noisy scenes to other depths and into units of their own noise, in place.

    Parameters
    ----------
    noisy, scenes : `numpy.ndarray`, float32 ``[n, band, y, x]``
        With and without noise, in units of the survey's.
    noise : `numpy.ndarray` ``[n, band]``
        Noise in units of the survey's; bands of infinite noise are missing.
    """
    gain = 1.0 / noise
    noisy += scenes * (gain - 1.0)[:, :, None, None]
    noisy[gain == 0] = 0.0


class SceneComposer:
    """Batches of noisy scenes and the noiseless targets in them.

    Parameters
    ----------
    samples : sequence of `~..simulation.shards.StampSample`
        Profiles and fluxes, in memory or opened.  All of them give targets,
        the blended ones give neighbours.
    survey : `~..survey.Survey`
        Their survey, with their bands.
    recompose : `bool`, optional
        Exchange neighbours between scenes?  Scenes keep theirs nonetheless
        where they belong together: centred on detected peaks, or drawn
        through a PSF of their own.  Only scenes of one placement, one shear
        and of real or of modelled galaxies alike exchange them.
    augment : `str`, optional
        One of `AUGMENTATIONS`.
    isolated : `bool`, optional
        Leave the neighbours out?  A blended sample then serves as an
        isolated one.
    noise : `str`, optional
        One of `~..simulation.noise.NOISE_KINDS`.  "poisson" takes
        half as long again as "normal", which differs from it by a skewness
        of 1 / sqrt(electrons): 3 % in u, the faintest LSST band.
    noise_correlation : `float`, optional
        Correlation of the noise of adjacent pixels.
    window_bytes : `int`, optional
        Profiles read at a time from opened samples; twice that is in memory.
    observed : `~.observation.ObservationSettings`, optional
        How much depths and bands vary, for conditional architectures.
    observer : `~.observation.Observer`, optional
        Tells the transfer functions of the samples' PSFs, for these.
    seed : `int`, optional
        Seed; batch number ``i`` depends on the seed, the samples, these
        settings and ``i`` alone.
    """

    def __init__(
        self,
        samples,
        survey,
        *,
        recompose=True,
        augment="eight",
        isolated=False,
        noise="normal",
        noise_correlation=0.0,
        window_bytes=2**29,
        observed=None,
        observer=None,
        seed=0,
    ):
        self.samples, self.survey, self.seed = list(samples), survey, seed
        self._isolated, self._noise = isolated, (noise, noise_correlation)
        self._observed, self._observer = observed, observer
        self._sky = np.array([band.sky_level for band in survey.bands])
        self._unit = np.array([band.electrons_per_unit for band in survey.bands])
        self.noise = (np.sqrt(self._sky) / self._unit).astype(np.float32)
        """Standard deviation of the sky, float32 ``[band]`` [image unit]."""
        self._ways = np.array(AUGMENTATIONS[augment])
        NoiseModel(self._sky, self._unit, noise, noise_correlation)
        sample = self.samples[0]
        self.stamp_shape = sample.profiles.shape[-2:]
        # Bands of one profile come together: each run of them is one product of matrices.
        self._runs = [
            (int(kind), slice(run[0], run[-1] + 1))
            for kind, run in (
                (kind, list(run))
                for kind, run in itertools.groupby(range(len(survey.bands)), sample.band_profile.__getitem__)
            )
        ]
        self._profile_each = np.array_equal(sample.band_profile, np.arange(len(survey.bands)))
        exchangeable = np.array([recompose and not isolated and _exchangeable(s) for s in self.samples])
        reference = survey.band_names.index(survey.reference_band)
        self._windows = Windows(
            self.samples,
            window_bytes,
            seed,
            lambda window: _Stock(window, self.samples, exchangeable, reference, self.noise),
        )

    @property
    def n_scenes(self):
        """Number of scenes, all of which one pass takes."""
        return self._windows.n_scenes

    def batch(self, number, size, scale=None):
        """Compose a batch.

        Parameters
        ----------
        number : `int`
            Number of the batch since the start of the training.
        size : `int`
            Number of scenes.
        scale : array-like, ``[band]``, optional
            Divide by it.

        Returns
        -------
        noisy, clean : `numpy.ndarray`, float32 ``[n, band, y, x]``
            Scenes with noise and noiseless targets, in the image unit, or in
            units of the scale.  In the scenes is the target as it is drawn;
            by itself it comes as `remove_negative` leaves it.
        transfer, noise : `numpy.ndarray`, float32
            With an observer only: transfer functions of the PSFs
            ``[n, band, y, x/2+1]``, and the standard deviation of the noise
            ``[n, band]`` in units of the survey's own, in units of which the
            noisy scenes then come too; infinite for missing bands, which are
            zero.
        """
        rng = np.random.Generator(np.random.SFC64([self.seed, number]))
        ways = self._ways[rng.integers(len(self._ways), size=size)]
        draws = rng.random((size, _TRIALS))
        normals = QuickNormals(rng)
        scale = np.ones(len(self._unit)) if scale is None else np.asarray(scale, np.float64)
        factor = (1.0 / scale).astype(np.float32)
        noise = NoiseModel(self._sky, self._unit * scale, *self._noise)
        shape = (size, len(self._unit), *self.stamp_shape)
        noisy, clean = np.empty(shape, np.float32), np.empty(shape, np.float32)
        # Noise comes to several scenes together: threads that hand the interpreter over for every small
        # array wait for each other. More than these would not fit the cache.
        scenes = np.empty((min(size, _GROUP), *shape[1:]), np.float32)
        observed = None
        if self._observer is not None:
            observed = (
                np.empty((size, *self.samples[0].psf.shape[1:]), np.float32),
                self._observed.draw(np.random.default_rng([self.seed, number, 1]), *shape[:2]),
            )
        k = 0
        for stock, targets in self._windows.take(number * size, size):
            partners = stock.partners(targets, draws[k : k + len(targets)])
            for target, partner in zip(targets.tolist(), partners.tolist(), strict=True):
                scene = scenes[k % _GROUP]
                self._paint(stock.window.target(target), factor, ways[k], clean[k])
                rows = None if self._isolated else stock.window.neighbours(partner)
                if rows is not None and len(rows[0]):
                    self._paint(rows, factor, ways[k], scene)
                    scene += clean[k]
                else:
                    scene[...] = clean[k]
                remove_negative(clean[k])
                if observed is not None:
                    observed[0][k] = turn_psfs(stock.window.psf(target), ways[k])
                k += 1
                if k % _GROUP == 0 or k == size:
                    part = slice((k - 1) // _GROUP * _GROUP, k)
                    noise.add(scenes[: k - part.start], normals, out=noisy[part])
                    if observed is not None:
                        _deepen(noisy[part], scenes[: k - part.start], observed[1][part])
        if observed is None:
            return noisy, clean
        return noisy, clean, self._observer.transfer(observed[0]), observed[1]

    def _paint(self, rows, factor, way, out):
        """Sum of profiles times fluxes, turned, into ``out [band, y, x]``."""
        packed, fluxes = rows
        profiles = unpack_profiles(np.ascontiguousarray(turn(packed, way).swapaxes(0, 1)))
        profiles = profiles.reshape(*profiles.shape[:2], -1)
        fluxes = (fluxes * factor).T
        out = out.reshape(len(out), -1)
        # A product of matrices is slow where the sum has one term.
        product = np.multiply if len(packed) == 1 else np.matmul
        if self._profile_each:
            product(fluxes[:, None], profiles, out=out[:, None])
            return
        for kind, bands in self._runs:
            product(fluxes[bands], profiles[kind], out=out[bands])


class _Stock:
    """A window and which neighbours may meet which target in it.

    In the paper's scenes (placement "annulus") the target is the brightest
    galaxy, so a faint one has few and faint neighbours: a target meets those
    of another that is about as bright, as long as none is brighter than it.
    In a field neighbours know nothing of the target, so it meets any, as long
    as it stays a peak among them: the deblender is asked only about detected
    peaks, and scenes in which a neighbour's flank buries the target would
    teach it nothing.

    Parameters
    ----------
    window : `~.windows.Window`
        Scenes in memory.
    samples : sequence of `~..simulation.shards.StampSample`
        All samples.
    exchangeable : `numpy.ndarray`, bool ``[sample]``
        May scenes of it exchange neighbours?
    reference : `int`
        The band that tells who is brighter.
    noise : `numpy.ndarray`, float32 ``[band]``
        Weighs the bands of peaks.
    """

    def __init__(self, window, samples, exchangeable, reference, noise):
        self.window = window
        blended = np.array([sample.kind == "blended" for sample in samples])
        donors = np.flatnonzero((exchangeable & blended)[window.sample])
        self._donors = donors
        if not len(donors):
            return
        annulus = np.array([sample.settings.get("placement") == "annulus" for sample in samples])
        self._annulus = annulus[window.sample]
        # A galaxy may have two rows, its bulge and its disc.
        fluxes = window.sums(lambda _, fluxes: fluxes[:, reference], lambda galaxy: galaxy)
        self._target, self._others = fluxes[:, 0], fluxes[:, 1:].max(axis=1, initial=0.0)
        if not self._annulus[donors].all():
            band_profile = samples[0].band_profile
            weights = (np.arange(band_profile.max() + 1) == band_profile[:, None]) / noise[:, None]
            hearts = window.sums(
                lambda profiles, fluxes: _hearts(profiles, fluxes @ weights),
                lambda galaxy: np.minimum(galaxy, 1),
            )
            self._target_heart = hearts[:, 0]
            self._other_hearts = hearts[:, -1] * (hearts.shape[1] > 1)
        self._choose(_classes(window, samples, self._annulus), exchangeable[window.sample])

    def _choose(self, classes, exchangeable):
        """Sort the donors so that those of each scene are consecutive."""
        self._donors = self._donors[np.lexsort((self._target[self._donors], classes[self._donors]))]
        bounds = np.searchsorted(classes[self._donors], np.arange(classes.max() + 2))
        self._first, last = bounds[classes], bounds[classes + 1]
        for one in np.unique(classes[self._annulus]):
            mine, part = np.flatnonzero(classes == one), slice(bounds[one], bounds[one + 1])
            ranks = part.start + np.searchsorted(self._target[self._donors[part]], self._target[mine])
            near = max(_NEAR_LEAST, round(_NEAR_SHARE * (part.stop - part.start)))
            self._first[mine] = np.maximum(ranks - near, part.start)
            last[mine] = np.minimum(ranks + near + 1, part.stop)
        self._count = np.where(exchangeable, last - self._first, 0)
        self._first[self._count == 0] = 0

    def partners(self, scenes, draws):
        """Whose neighbours each target meets.

        Parameters
        ----------
        scenes : `numpy.ndarray`, int ``[n]``
            Targets.
        draws : `numpy.ndarray`, ``[n, trial]``
            Uniform in [0, 1).

        Returns
        -------
        partners : `numpy.ndarray`, int ``[n]``
            Scenes; a target's own if it keeps its neighbours.
        """
        if not len(self._donors):
            return scenes
        count = self._count[scenes, None]
        tried = self._donors[self._first[scenes, None] + (draws * count).astype(np.intp)]
        allowed = self._others[tried] <= self._target[scenes, None]
        field = np.flatnonzero(~self._annulus[scenes] & (count[:, 0] > 0))
        if len(field):
            allowed[field] = self._stays_peak(scenes[field, None], tried[field])
        allowed &= count > 0
        first = tried[np.arange(len(scenes)), allowed.argmax(axis=1)]
        return np.where(allowed.any(axis=1), first, scenes)

    def _stays_peak(self, targets, others):
        """Is a target the brightest of its heart among others' neighbours?"""
        hearts = self._target_heart[targets] + self._other_hearts[others]
        peaks = hearts.reshape(*others.shape, -1).argmax(axis=-1)
        centre = np.abs(np.stack(np.divmod(peaks, hearts.shape[-1])) - (_HEART_HALF_WIDTH - 0.5))
        return (centre < _PEAK_HALF_WIDTH).all(axis=0)


def _classes(window, samples, annulus):
    """Scenes among which neighbours are exchanged.

    Neighbours of another shear, through another PSF, or with the noise of HST
    images beside a target without, would be seen in no sky.

    Parameters
    ----------
    window : `~.windows.Window`
        Scenes in memory.
    samples : sequence of `~..simulation.shards.StampSample`
        All samples.
    annulus : `numpy.ndarray`, bool ``[scene]``
        Is it a scene of the paper?

    Returns
    -------
    classes : `numpy.ndarray`, int ``[scene]``
        Numbers from 0, equal where placement, shear, PSFs and kind of galaxies
        are.
    """
    psfs = np.stack([window.psf(scene).reshape(-1) for scene in range(window.n_scenes)])
    columns = np.zeros((window.n_scenes, 4 + psfs.shape[1]))
    columns[:, 0], columns[:, 4:] = annulus, psfs
    for number in np.unique(window.sample):
        mine, truth = window.sample == number, samples[number].truth
        for place, name in enumerate(("g1", "g2", "real"), start=1):
            if name in truth.colnames:
                columns[mine, place] = truth[name][window.index[mine]]
    return np.unique(columns, axis=0, return_inverse=True)[1].reshape(-1)


def _hearts(packed, weights):
    """Centres of stamps, kinds of profiles added with weights.

    Parameters
    ----------
    packed : `numpy.ndarray`, float16 ``[row, kind, y, x]``
        Packed profiles.
    weights : `numpy.ndarray` ``[row, kind]``
        Flux in units of the noise, of all bands that a profile serves.

    Returns
    -------
    hearts : `numpy.ndarray` ``[row, y, x]``
    """
    centre, h = packed.shape[-1] // 2, _HEART_HALF_WIDTH
    inner = packed[..., centre - h : centre + h, centre - h : centre + h]
    return np.einsum("rk,rkyx->ryx", weights, unpack_profiles(np.ascontiguousarray(inner)))


def _exchangeable(sample):
    """May this sample's scenes exchange neighbours?

    A scene that was centred on a detected peak owes its centre to its
    neighbours, and one with a PSF of its own shares it with them.
    """
    one_psf = bool((sample.psf == sample.psf[:1]).all())
    return one_psf and sample.settings.get("centring") != "peaks"


def mean_peak(samples, limit=5000):
    """Mean over samples of the brightest pixel of each band.

    This is M_b of Arcelin et al. 2020, section 2.3, of the noiseless targets.

    Parameters
    ----------
    samples : sequence of `~..simulation.shards.StampSample`
        The samples, in memory or opened.
    limit : `int`, optional
        Use at most so many scenes, the first ones.

    Returns
    -------
    mean : `numpy.ndarray`, float64 ``[band]``
        In the image unit.
    """
    peaks, band_profile = [], samples[0].band_profile
    for piece in cut_pieces(samples, _PEAK_BYTES):
        window = Window(samples, [piece])
        for i in range(min(window.n_scenes, limit - len(peaks))):
            packed, fluxes = window.target(i)
            profiles = unpack_profiles(packed)[:, band_profile]
            peaks.append(np.einsum("rb,rbyx->byx", fluxes, profiles).max(axis=(1, 2)))
        if len(peaks) == limit:
            break
    return np.mean(peaks, axis=0, dtype=np.float64)
