# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other people's deblenders, each configured as its own documentation tells.

None of them is needed but for comparisons, and all are imported when they are run.
"""

import contextlib
import io
import warnings
from functools import partial

import numpy as np

from .matching import RADIUS
from .peers import Peer, matched

__all__ = ["OTHERS", "Scarlet2Peer", "ScarletLitePeer", "ScarletPeer", "SepPeer"]


@contextlib.contextmanager
def _quiet():
    """Leave out what a library prints and warns of: it would bury a comparison's own words."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class SepPeer(Peer):
    """SEP, which is Source Extractor as a library: detection, multi-threshold deblending, Kron apertures.

    It is told no centres; its sources are matched with those wanted. It detects on the sum of all bands,
    weighted by their inverse variances, and measures the bands in the apertures found there (what Source
    Extractor calls two images). From SEP's tutorial and its page on apertures are the threshold of 1.5 sigma,
    the default kernel and contrasts of deblending, and the apertures: ellipses of 2.5 Kron radii, found with
    neighbours masked, of 1.75 pixels at least. A background is not fitted: it has been subtracted.

    SEP itself gives a pixel to one source. Here the pixels that several apertures cover are shared in
    proportion to the sources' Gaussians, of the moments that SEP measured: the rule by which Source Extractor
    chooses the one.
    """

    name = "sep"
    missing = f"no source was detected within {RADIUS} arcsec"

    threshold = 1.5
    least_radius = 1.75

    def load(self):
        import sep

        return sep

    def models(self, blend):
        sep = self.load()
        images, weights = blend.filled()
        total = weights.sum(axis=0, dtype=float)
        seen = total > 0
        detection = (images * weights).sum(axis=0, dtype=float) / np.sqrt(np.where(seen, total, 1))
        objects, segments = sep.extract(detection, self.threshold, err=1.0, mask=~seen, segmentation_map=True)
        models = np.full(blend.model_shape, np.nan, np.float32)
        if not len(objects):
            return models
        ellipses = _ellipses(sep, detection, ~seen, objects, segments, self.least_radius)
        light = np.zeros(detection.shape)
        for box, share in ellipses:
            light[box] += share
        for k, source in enumerate(matched(np.column_stack([objects["y"], objects["x"]]), blend)):
            if source >= 0:
                box, share = ellipses[source]
                scene = np.zeros(images.shape, np.float32)
                part = np.divide(share, light[box], out=np.zeros(share.shape), where=share > 0)
                scene[:, *box] = images[:, *box] * part
                models[k] = blend.stamp_of(scene, k)
        return models


def _ellipses(sep, image, mask, objects, segments, least_radius):
    """Box and Gaussian of each object, 0 outside its aperture."""
    x, y, a, b = (np.asarray(objects[name], float) for name in ("x", "y", "a", "b"))
    numbers = np.arange(1, len(objects) + 1, dtype=np.int32)
    kron, _ = sep.kron_radius(
        image, x, y, a, b, objects["theta"], 6.0, mask=mask, seg_id=numbers, segmap=segments
    )
    radius = 2.5 * np.where(np.isfinite(kron), kron, 0)
    found = []
    for k in range(len(objects)):
        circle = not radius[k] * np.sqrt(a[k] * b[k]) >= least_radius
        reach = int(np.ceil(least_radius if circle else radius[k] * a[k])) + 1
        box = tuple(
            slice(max(int(at) - reach, 0), max(min(int(at) + reach + 2, side), 0))
            for at, side in zip((y[k], x[k]), image.shape)
        )
        dy, dx = (np.arange(part.start, part.stop) - at for part, at in zip(box, (y[k], x[k])))
        dy = dy[:, None]
        square = (objects["cxx"][k] * dx**2 + objects["cyy"][k] * dy**2 + objects["cxy"][k] * dx * dy).astype(
            float
        )
        held = dx**2 + dy**2 <= least_radius**2 if circle else square <= radius[k] ** 2
        # Never quite 0 within an aperture, where nobody else may be.
        gaussian = max(float(objects["cpeak"][k]), 1e-6) * np.exp(-0.5 * np.minimum(square, 600))
        found.append((box, np.where(held, gaussian, 0.0)))
    return found


class Scarlet2Peer(Peer):
    """scarlet2 on JAX, as its "Real-World Example" recommends.

    That is the model frame that it chooses itself (a Gaussian PSF of 0.7 pixels), spectra and morphologies
    from Gaussian moments with compact ones where that fails, positive spectra with steps of 5 %, morphologies
    between 0 and 1 with relative steps of 0.001, 1 000 iterations at most to a relative change of 1e-4. Its
    checks, which only print, are off. Each scene's shapes are new to JAX, which compiles for each: that is
    part of its cost.

    JAX keeps what it compiled, and after some 150 scenes of six bands the process holds more memory maps than
    Linux allows (65 530), and dies. So JAX's caches, those of other users in the process too, are cleared
    after each 100 sources.

    Two things are added, as without them whole scenes become NaN: initial spectra are made positive, as their
    constraint demands, and moments that are not finite count as failed.

    Parameters
    ----------
    max_iter : `int`, optional
        Iterations at most.
    e_rel : `float`, optional
        Relative change of the parameters at which it stops.
    """

    name = "scarlet2"

    most_sources = 100

    def __init__(self, max_iter=1000, e_rel=1e-4):
        self.max_iter, self.e_rel = max_iter, e_rel
        self._compiled = 0

    def load(self):
        import scarlet2

        return scarlet2

    def _make_room(self, sources):
        """Clear JAX's caches before so many more sources are compiled for, if there are many."""
        import jax

        if self._compiled and self._compiled + sources > self.most_sources:
            jax.clear_caches()
            self._compiled = 0
        self._compiled += sources

    def models(self, blend):
        import jax.numpy as jnp

        scarlet2 = self.load()
        scarlet2.set_validation(False)
        images, weights = blend.filled()
        models = np.full(blend.model_shape, np.nan, np.float32)
        inside = np.flatnonzero(blend.inside())
        if not inside.size:
            return models
        self._make_room(inside.size)
        with _quiet():
            observation = scarlet2.Observation(
                jnp.asarray(images),
                weights=jnp.asarray(weights),
                psf=jnp.asarray(blend.psfs, jnp.float32),
                channels=list(blend.bands),
            )
            frame = scarlet2.Frame.from_observations(observation)
            observation.match(frame)
            with scarlet2.Scene(frame) as scene:
                for k in inside:
                    centre = jnp.asarray(blend.centres[k], jnp.float32)
                    scarlet2.Source(centre, *_scarlet2_start(scarlet2, observation, centre))
            _scarlet2_parameters(scarlet2, scene)
            fitted = scene.fit(observation, max_iter=self.max_iter, e_rel=self.e_rel, progress_bar=False)
            # Later releases give the observations, too.
            fitted = fitted[0] if isinstance(fitted, tuple) else fitted
            for k, source in zip(inside, fitted.sources, strict=True):
                seen = observation.render(fitted.evaluate_source(source))
                models[k] = blend.stamp_of(np.asarray(seen), k)
        return models


def _scarlet2_start(scarlet2, observation, centre):
    """Spectrum and morphology to start from."""
    import jax.numpy as jnp

    try:
        spectrum, morphology = scarlet2.init.from_gaussian_moments(observation, centre)
        moments = bool(jnp.isfinite(spectrum).all() & jnp.isfinite(morphology).all())
    except ValueError:
        moments = False
    if not moments:
        spectrum = scarlet2.init.pixel_spectrum(observation, centre)
        morphology = scarlet2.init.compact_morphology()
    least = 1e-3 * jnp.maximum(jnp.abs(spectrum).max(), 1e-6)
    return jnp.maximum(spectrum, least), morphology


def _scarlet2_parameters(scarlet2, scene):
    """Constraints and steps of all that is fitted."""
    from numpyro.distributions import constraints

    fitted = (
        ("spectrum", constraints.positive, partial(scarlet2.relative_step, factor=0.05)),
        ("morphology", constraints.unit_interval, partial(scarlet2.relative_step, factor=1e-3)),
    )
    with scarlet2.Parameters(scene):
        for k, source in enumerate(scene.sources):
            for name, constraint, step in fitted:
                scarlet2.Parameter(
                    getattr(source, name), name=f"{name}:{k}", constraint=constraint, stepsize=step
                )


class ScarletPeer(Peer):
    """scarlet 1, as its "Quick Start Guide" does it: two components where signal to noise allows.

    It is not on PyPI, where a package of that name is something else. With autograd 1.9 it fails on NumPy 2;
    1.8 serves.
    """

    name = "scarlet"
    missing = "the source could not be initialised"

    def load(self):
        import scarlet

        if not hasattr(scarlet, "Observation"):
            raise ImportError("the scarlet that is installed is no deblender")
        import scarlet.initialization

        return scarlet

    def models(self, blend):
        scarlet = self.load()
        images, weights = blend.filled()
        inside = np.flatnonzero(blend.inside())
        models = np.full(blend.model_shape, np.nan, np.float32)
        with _quiet():
            frame = scarlet.Frame(
                images.shape,
                psf=scarlet.GaussianPSF(sigma=(0.8,) * len(images)),
                channels=list(blend.bands),
            )
            observation = scarlet.Observation(
                images,
                psf=scarlet.ImagePSF(np.asarray(blend.psfs, np.float32)),
                weights=weights,
                channels=list(blend.bands),
            ).match(frame)
            sources, skipped = scarlet.initialization.init_all_sources(
                frame,
                [tuple(blend.centres[k]) for k in inside],
                observation,
                max_components=2,
                min_snr=50,
                thresh=1,
                fallback=True,
                silent=True,
                set_spectra=True,
            )
            scarlet.Blend(sources, observation).fit(100, e_rel=1e-4)
            for k, source in zip(np.delete(inside, skipped), sources, strict=True):
                models[k] = blend.stamp_of(observation.render(source.get_model(frame=frame)), k)
        return models


class ScarletLitePeer(Peer):
    """scarlet_lite, as its "Getting Started" does it, with proximal ADAM, which that guide calls best.

    Initialisation, convergence and resizing are the guide's, with the 300 iterations at most of LSST's
    ScarletDeblendTask. The task's thresholds of initialisation are not taken: they make models that are too
    small, and are for measurements on pixels that are shared in proportion to these. Steps have an absolute
    size, and diverge with bright pixels of any unit: pixels are given in one of ten sigma of the noise, near
    that of the guide's data.

    It is not on PyPI; the LSST stack has it.
    """

    name = "scarlet_lite"
    missing = "the source has no component"

    unit = 10.0

    def load(self):
        import lsst.scarlet.lite as lite

        return lite

    def models(self, blend):
        lite = self.load()
        images, weights = blend.filled()
        models = np.full(blend.model_shape, np.nan, np.float32)
        if not (weights > 0).any():
            return models
        unit = self.unit / np.sqrt(np.median(weights[weights > 0]))
        images, weights = images / unit, weights * unit**2
        # Pixels without weight have a variance, too, as the noise is taken from its mean.
        usual = [np.median(band[band > 0]) if (band > 0).any() else 1.0 for band in weights]
        variance = 1 / np.where(weights > 0, weights, np.reshape(usual, (-1, 1, 1)).astype(np.float32))
        inside = np.flatnonzero(blend.inside())
        with _quiet():
            observation = lite.Observation(
                images,
                variance,
                weights,
                np.asarray(blend.psfs, np.float32),
                lite.utils.integrated_circular_gaussian(sigma=0.8)[None].astype(np.float32),
                bands=tuple(blend.bands),
            )
            sources = lite.initialization.FactorizedInitialization(
                observation,
                [tuple(int(round(v)) for v in blend.centres[k]) for k in inside],
                monotonicity=lite.operators.Monotonicity((51, 51)),
            ).sources
            fit = lite.Blend(sources, observation).fit_spectra()
            steps = partial(
                lite.component.default_adaprox_parameterization, noise_rms=observation.noise_rms / 10
            )
            fit.parameterize(steps)
            fit.fit(300, e_rel=1e-4, min_iter=15, resize=10)
            for k, source in zip(inside, sources, strict=True):
                if source.components:
                    model = source.get_model().project(bbox=observation.bbox)
                    models[k] = unit * blend.stamp_of(observation.convolve(model).data, k)
        return models


OTHERS = {peer.name: peer for peer in (Scarlet2Peer, ScarletPeer, ScarletLitePeer, SepPeer)}
"""Classes by name."""
