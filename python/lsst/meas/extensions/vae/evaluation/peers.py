# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deblenders behind one interface: a `Blend` in, a model of each of its sources out.

`make_peer` makes one by its name, `run_peer` runs it, whatever happens in it, and `peer_method` makes it a
method of `~.stamps.measure_stamps`. Other people's deblenders are in `.peers_others`.
"""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from ..deblending import DeblendSettings, deblend_blend, deblend_field
from ..deblending.stamps import check_cube
from ..errors import ImageError, ShardError, VaeError
from ..simulation.geometry import overlap, stamp_origin
from .coverage import target_first
from .matching import RADIUS
from .stamps import psf_images

__all__ = [
    "PEERS",
    "Blend",
    "Peer",
    "PeerResult",
    "make_peer",
    "matched",
    "moved",
    "peer_method",
    "run_peer",
    "stamp_blend",
]

# Side of the PSF images that peers get with stamps [pixel].
_PSF_SIZE = 41


@dataclass(frozen=True)
class Blend:
    """What deblenders are told of a scene, and where their models are wanted.

    Parameters
    ----------
    images, variance : `numpy.ndarray`, ``[band, y, x]``
        Background-subtracted pixels and their variance; pixels that are not finite, or of no positive
        variance, are to be left out.
    psfs : `numpy.ndarray`, ``[band, y, x]``
        PSF images with the pixel, of odd sides and unit sum.
    centres : array-like, ``[n, 2]``
        y and x of the sources [pixel].
    bands : `tuple` [`str`]
        Names of the bands.
    pixel_scale : `float`
        [arcsec]
    size : `int`, optional
        Side of the models' stamps, even [pixel].
    origins : array-like, ``[n, 2]``, optional
        y and x of each stamp's first pixel in the scene; those of `~..deblending.cut_stamps` by default.
    isolated : `numpy.ndarray`, ``[n, band, y, x]``, optional
        Stamps of the sources as if each were alone, with the noise of the scene, NaN where that is not known:
        for the peer "perfect" alone.

    Raises
    ------
    ImageError
        Raised if shapes do not fit together.
    """

    images: np.ndarray
    variance: np.ndarray
    psfs: np.ndarray
    centres: np.ndarray
    bands: tuple
    pixel_scale: float
    size: int = 64
    origins: np.ndarray | None = None
    isolated: np.ndarray | None = None

    def __post_init__(self):
        def put(name, value):
            object.__setattr__(self, name, value)

        put("centres", np.asarray(self.centres, float).reshape(-1, 2))
        if self.origins is None:
            put("origins", [stamp_origin(x, y, self.size) for y, x in self.centres])
        put("origins", np.asarray(self.origins, np.int64).reshape(-1, 2))
        if np.ndim(self.images) != 3 or np.shape(self.images) != np.shape(self.variance):
            raise ImageError(
                f"images have shape {np.shape(self.images)} and variances {np.shape(self.variance)}: "
                "expected one shape [band, y, x] for both"
            )
        sides = np.shape(self.psfs)[1:]
        for what, got, right in (
            ("bands", len(self.bands), len(self.bands) == len(self.images)),
            ("PSF images", np.shape(self.psfs), np.shape(self.psfs) == (len(self.images), *sides)),
            ("sides of the PSFs", sides, len(sides) == 2 and all(side % 2 for side in sides)),
            ("origins", len(self.origins), len(self.origins) == len(self.centres)),
            ("isolated stamps", np.shape(self.isolated), np.shape(self.isolated) in ((), self.model_shape)),
        ):
            if not right:
                raise ImageError(
                    f"{what}: {got} do not fit {len(self.images)} images with {len(self.centres)} sources on "
                    f"stamps of {self.size} pixels; PSFs have odd sides"
                )

    @property
    def model_shape(self):
        """Shape of the models of all sources, (n, band, y, x)."""
        return len(self.centres), len(self.images), self.size, self.size

    def good(self):
        """Pixels to use, `bool` ``[band, y, x]``."""
        return check_cube(self.images, self.variance)[2]

    def filled(self):
        """Pixels, with those that are of no use 0, and weights, with theirs 0, float32 ``[band, y, x]``.

        Weights are inverse variances.
        """
        good = self.good()
        return (
            np.where(good, self.images, 0).astype(np.float32),
            np.where(good, 1.0 / np.where(good, self.variance, 1.0), 0).astype(np.float32),
        )

    def inside(self):
        """Sources that are centred on the scene, `bool` ``[n]``."""
        with np.errstate(invalid="ignore"):
            return ((self.centres >= -0.5) & (self.centres < np.array(self.images.shape[1:]) - 0.5)).all(
                axis=1
            )

    def stamp_of(self, scene, k):
        """The stamp of source ``k`` out of its model on the whole scene, float32 ``[band, y, x]``."""
        return moved(scene, (0, 0), self.origins[k], self.size)


class Peer(ABC):
    """A deblender.

    Attributes
    ----------
    name : `str`
        What tables call it.
    missing : `str`
        Why a source may be without a model.
    """

    name = ""
    missing = "the model is not finite"

    def load(self):
        """Import what it takes.

        Raises
        ------
        ImportError
            Raised if it is not installed.
        """
        return None

    @abstractmethod
    def models(self, blend):
        """Deblend.

        Parameters
        ----------
        blend : `Blend`
            Scene.

        Returns
        -------
        models : `numpy.ndarray`, ``[n, band, y, x]``
            Images of the sources with the PSF of each band, on the stamps of ``blend.origins``; NaN for those
            that it has none of.
        """


@dataclass
class PeerResult:
    """What a deblender made of the n sources of a blend.

    Attributes
    ----------
    models : `numpy.ndarray`, float32 ``[n, band, y, x]``
        On the stamps of the blend's ``origins``; NaN where ``failed``.
    fluxes : `numpy.ndarray`, float64 ``[n, band]``
        Sums of the models; NaN where ``failed``.
    failed : `numpy.ndarray` of `bool`, ``[n]``
        No finite model.
    reason : `str`
        Why any failed; empty if none did.
    seconds, processor_seconds : `float`
        By the clock, and processor time of this process, its threads included.
    """

    models: np.ndarray
    fluxes: np.ndarray
    failed: np.ndarray
    reason: str
    seconds: float
    processor_seconds: float


def run_peer(peer, blend):
    """Run a deblender; what goes wrong in it is a reason, not an error.

    Parameters
    ----------
    peer : `Peer`
        Deblender.
    blend : `Blend`
        Scene.

    Returns
    -------
    result : `PeerResult`
        Models, or NaN with the reason.
    """
    models, reason = None, ""
    try:
        peer.load()
    except (ImportError, OSError) as error:
        reason = f"cannot be imported: {_told(error)}"
    started, processor = time.perf_counter(), time.process_time()
    if not reason:
        try:
            models = np.asarray(peer.models(blend), np.float32)
        # Whatever another's code raises is what it has to say of the scene.
        except Exception as error:
            reason = _told(error)
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    if models is not None and models.shape != blend.model_shape:
        models, reason = None, f"gave models {models.shape}: expected {blend.model_shape}"
    if models is None:
        models = np.full(blend.model_shape, np.nan, np.float32)
    failed = ~np.isfinite(models).all(axis=(1, 2, 3))
    models[failed] = np.nan
    if failed.any() and not reason:
        reason = peer.missing
    fluxes = models.sum(axis=(2, 3), dtype=np.float64)
    return PeerResult(models, fluxes, failed, reason, seconds, processor)


def _told(error):
    """An error in one line."""
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first[:160]}" if first else type(error).__name__


def moved(image, origin, wanted, size):
    """An image on another stamp, 0 where it does not reach.

    Parameters
    ----------
    image : `numpy.ndarray`, ``[band, y, x]``
        Image.
    origin, wanted : pair of `int`
        y and x of the first pixels of the image and of the stamp.
    size : `int`
        Side of the stamp [pixel].

    Returns
    -------
    stamp : `numpy.ndarray`, float32 ``[band, size, size]``
    """
    stamp = np.zeros((len(image), size, size), np.float32)
    in_image, in_stamp = overlap(np.subtract(wanted, origin), size, image.shape[1:])
    stamp[:, *in_stamp] = image[:, *in_image]
    return stamp


def matched(found, blend):
    """Which detected sources stand for those wanted: one to one, within the radius of `~.matching`.

    Parameters
    ----------
    found : array-like, ``[m, 2]``
        y and x of detected sources [pixel].
    blend : `Blend`
        Scene.

    Returns
    -------
    chosen : `numpy.ndarray`, int64 ``[n]``
        Number of the detected source; -1 where there is none. As many as can be, at the least total distance.
    """
    chosen = np.full(len(blend.centres), -1)
    if len(found) and len(chosen):
        radius = RADIUS / blend.pixel_scale
        distance = cdist(blend.centres, np.asarray(found, float).reshape(-1, 2))
        # A pair beyond the radius is none, and costs more than any that is.
        wanted, which = linear_sum_assignment(np.where(distance <= radius, distance, 1e3 * radius))
        near = distance[wanted, which] <= radius
        chosen[wanted[near]] = which[near]
    return chosen


class NetworkPeer(Peer):
    """This project's network with the centres given: one pass, or refined from there.

    Parameters
    ----------
    network : `~..network.model.Network`
        Of the blends' bands.
    refine : `bool`, optional
        Refine? With the defaults of `~..deblending.DeblendSettings`, as DeblendVaeTask does.
    """

    missing = "too few good pixels at the centre"

    def __init__(self, network, refine=False):
        self.network, self.settings = network, DeblendSettings(refine=refine)
        self.name = "refined" if refine else "one_pass"

    def models(self, blend):
        self._check(blend)
        result = deblend_blend(
            blend.images,
            blend.variance,
            blend.centres,
            self.network,
            psfs=self._psfs(blend),
            settings=self.settings,
        )
        models = np.full(blend.model_shape, np.nan, np.float32)
        for k in np.flatnonzero(~result.failed):
            models[k] = moved(result.models[k], result.origins[k], blend.origins[k], blend.size)
        return models

    def _check(self, blend):
        if tuple(blend.bands) != tuple(self.network.bands):
            raise ImageError(
                f"model {self.network.package.name!r} takes bands {', '.join(self.network.bands)}, the scene "
                f"has {', '.join(blend.bands)}"
            )

    def _psfs(self, blend):
        return blend.psfs if self.network.architecture.conditional else None


class IterativePeer(NetworkPeer):
    """This project's detection and deblending in turns, refined after the last: it is told no centres.

    Its sources are matched with those wanted. What it finds beyond them takes its share of the light, as in
    a field where nobody knows the truth.
    """

    missing = f"no source was detected within {RADIUS} arcsec"

    def __init__(self, network):
        super().__init__(network, refine=True)
        self.name = "iterative"

    def models(self, blend):
        self._check(blend)
        found = deblend_field(
            blend.images,
            blend.variance,
            self.network,
            psfs=self._psfs(blend),
            deblend_settings=self.settings,
        )
        models = np.full(blend.model_shape, np.nan, np.float32)
        for k, source in enumerate(matched(found.centres, blend)):
            if source >= 0:
                made = found.deblended
                models[k] = moved(made.models[source], made.origins[source], blend.origins[k], blend.size)
        return models


class NonePeer(Peer):
    """No deblending: the scene as it is."""

    name = "none"

    def models(self, blend):
        images, _ = blend.filled()
        models = np.empty(blend.model_shape, np.float32)
        for k in range(len(models)):
            models[k] = blend.stamp_of(images, k)
        return models


class PerfectPeer(Peer):
    """What no deblender can do better than: each source alone, with the scene's noise."""

    name = "perfect"
    missing = "the scene does not tell what the source is alone"

    def models(self, blend):
        if blend.isolated is None:
            raise ImageError(self.missing)
        return np.array(blend.isolated, np.float32)


def stamp_blend(batch, k):
    """A scene of a sample as deblenders get it: the true centres are given, the target's first.

    Parameters
    ----------
    batch : `~.stamps.StampBatch`
        Some scenes.
    k : `int`
        Number of the scene in the batch.

    Returns
    -------
    blend : `Blend`
        The target's stamp is the whole scene, and its isolated image the batch's.

    Raises
    ------
    ShardError
        Raised if the sample does not tell its galaxies, or has bands of several pixel scales.
    """
    sample, scene = batch.sample, batch.scenes[k]
    if not len(sample.objects):
        raise ShardError("the sample has no table of objects, so no centres to deblend at: simulate it again")
    kinds = [int(sample.band_profile[sample.bands.index(band)]) for band in batch.bands]
    scales = {float(sample.profile_kinds[kind][1]) for kind in kinds}
    if len(scales) > 1:
        raise ShardError(
            f"bands have pixels of {', '.join(f'{s:g}' for s in sorted(scales))} arcsec: deblenders that are "
            "compared take one scale; choose bands of one instrument"
        )
    centres = target_first(sample, scene)
    size = batch.noisy.shape[-1]
    origins = np.array([stamp_origin(x, y, size) for y, x in centres])
    origins[0] = 0
    isolated = np.full((len(centres), *batch.lone.shape[1:]), np.nan, np.float32)
    isolated[0] = batch.lone[k]
    return Blend(
        images=batch.noisy[k],
        variance=np.broadcast_to(np.square(batch.noise())[:, None, None], batch.noisy.shape[1:]),
        psfs=psf_images(sample, [scene], batch.bands, _PSF_SIZE)[0],
        centres=centres,
        bands=batch.bands,
        pixel_scale=scales.pop(),
        size=size,
        origins=origins,
        isolated=isolated,
    )


def peer_method(peer, reasons=None):
    """A deblender as a method of `~.stamps.measure_stamps`: its images of the targets, scene by scene.

    Parameters
    ----------
    peer : `Peer`
        Deblender.
    reasons : `collections.Counter`, optional
        Gets why targets are without a model, and how many.

    Returns
    -------
    method : callable
        From a `~.stamps.StampBatch` to images, NaN where the deblender failed.
    """

    def method(batch):
        images = np.empty(batch.noisy.shape, np.float32)
        for k in range(len(images)):
            result = run_peer(peer, stamp_blend(batch, k))
            images[k] = result.models[0]
            if result.failed[0] and reasons is not None:
                reasons[result.reason] += 1
        return images

    # As `measure_stamps` asks of who separates all galaxies of a scene.
    method.whole_scenes = True
    return method


def make_peer(name, network=None):
    """Make a deblender by its name.

    Parameters
    ----------
    name : `str`
        One of `PEERS`.
    network : `~..network.model.Network`, optional
        For those of this project.

    Returns
    -------
    peer : `Peer`
        It imports what it takes when it is run.

    Raises
    ------
    VaeError
        Raised for an unknown name, or if one of ours gets no network.
    """
    if name not in PEERS:
        raise VaeError(f"there is no deblender {name!r}: expected one of {', '.join(PEERS)}")
    if name in _OURS:
        if network is None:
            raise VaeError(f"deblender {name!r} needs a network: give one")
        return _OURS[name](network)
    if name in _REFERENCES:
        return _REFERENCES[name]()
    from . import peers_others

    return peers_others.OTHERS[name]()


_OURS = {
    "one_pass": NetworkPeer,
    "refined": lambda network: NetworkPeer(network, refine=True),
    "iterative": IterativePeer,
}
_REFERENCES = {"none": NonePeer, "perfect": PerfectPeer}

PEERS = (*_OURS, "scarlet2", "scarlet", "scarlet_lite", "sep", *_REFERENCES)
"""Names of all deblenders: ours, others', and the floor and the ceiling."""
