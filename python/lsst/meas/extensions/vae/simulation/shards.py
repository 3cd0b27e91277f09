# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shards: many simulated stamps as profiles and fluxes, in memory and in HDF5.

A scene is ``sum_k profile_k * flux_kb``: one row per galaxy component, drawn
in place at unit flux through each distinct PSF. Training composes scenes from
rows and draws fresh noise, so a shard holds no noise.
"""

__all__ = ["PROFILE_SCALE", "SHARD_FORMAT", "StampSample", "pack_profiles", "unpack_profiles"]

import dataclasses
import functools
from dataclasses import dataclass, field

import numpy as np
from astropy.table import Table, vstack

from ..errors import ShardError
from .sample_file import SampleFile
from .survey_info import SurveyNumbers

PROFILE_SCALE = 256.0
"""Profiles are stored times this, which puts them into float16's range."""

SHARD_FORMAT = "vae_stamp_sample"

# Profiles are rounded to this part of their peak's power of two: digits far below any noise would
# not compress.
_PROFILE_STEP = 2.0**-17


def pack_profiles(profiles):
    """Profiles as shards hold them.

    Parameters
    ----------
    profiles : `numpy.ndarray` [row, kind, y, x] of `float32`
        Fraction of the flux in each pixel.

    Returns
    -------
    packed : `numpy.ndarray` [row, kind, y, x] of `float16`
        Times `PROFILE_SCALE`, rounded to 10^-5 of the row's peak or better.
    """
    peak = profiles.max(axis=(1, 2, 3), keepdims=True).astype(np.float64)
    # A galaxy outside the stamp may leave next to nothing on it: float16 ends at 2^-24.
    step = np.exp2(np.ceil(np.log2(np.maximum(peak, 2.0**-24)))) * _PROFILE_STEP
    packed = profiles * (1.0 / step).astype(np.float32)
    np.rint(packed, out=packed)
    packed *= (step * PROFILE_SCALE).astype(np.float32)
    return packed.astype(np.float16)


def unpack_profiles(packed):
    """Undo `pack_profiles`, six times faster than NumPy's own conversion.

    The exponent and the mantissa are moved to their places, and the
    difference of the exponents' biases, 112, is multiplied in with
    `PROFILE_SCALE`; that holds for subnormal numbers too, and profiles are
    always finite.
    """
    bits = packed.view(np.int16).astype(np.int32)
    # Shifting the sign-extended bits leaves the sign where it belongs.
    bits <<= 13
    bits &= np.int32(-1879056384)  # 0x8FFFE000: sign, five exponent bits, mantissa
    profiles = bits.view(np.float32)
    profiles *= np.float32(2.0**112 / PROFILE_SCALE)
    return profiles


@dataclass
class StampSample(SampleFile, SurveyNumbers):
    """Scenes of one kind, drawn with one survey and one seed.

    Attributes
    ----------
    survey : `str`
        Name of the survey.
    bands : `tuple` [`str`]
        Bands, in the order of the band axis.
    kind : `str`
        "isolated" or "blended".
    settings : `dict`
        The settings of the simulation, json-able.
    seed : `int`
        The seed of the simulation.
    split : `str`
        The galaxies' split: "train", "validation", "test" or "all".
    versions : `dict`
        Versions of what drew the scenes.
    profiles : `numpy.ndarray` [row, kind, y, x] of `float16`
        Fraction of the flux in each pixel times `PROFILE_SCALE`; one row is
        one component of one galaxy, one kind is one (PSF, pixel scale). An
        `ArrayOnDisk`, which gives slices, where the sample was opened rather
        than read.
    fluxes : `numpy.ndarray` [row, band] of `float32`
        Flux [the survey's image unit].
    scene : `numpy.ndarray` [row] of `int32`
        Which scene the row belongs to; ascending, every scene has rows.
    galaxy : `numpy.ndarray` [row] of `int8`
        0 the target, 1 and up its neighbours.
    truth : `astropy.table.Table`
        One row a scene, numbers only; of the target, in the reference band,
        where not said. scene; base_scene, which the versions of one sheared
        scene share; g1, g2, the shear; split (0 train, 1 validation, 2 test,
        -1 a star); ident; redshift; mag_<b> and r_mag (the survey's system),
        r_mag_ab (AB), all of the parametric galaxy, which the pixels of a real
        one follow within 0.75 mag; e1, e2 (KSB, NaN where hsm_failed); snr, snr_<b>;
        b_closest, b_tot; delta_mag_c (nearest neighbour's magnitude less the
        target's) and neighbour_distance [arcsec], NaN for a target alone;
        n_galaxies; x, y [pixel]; star; real; target_is_brightest; n_peaks
        (-1 where none were looked for); seed, of the scene; noise_seed, for
        noise that the versions of one scene share.
    band_profile : `numpy.ndarray` [band] of `int64`
        Which kind each band uses.
    survey_info : `dict`
        The survey's numbers (image unit, and of each band its pixel scale,
        zero point, sky level, electrons per unit, PSF), json-able.
    objects : `astropy.table.Table`, optional
        One row a galaxy or star, in order: scene, galaxy (0 the target),
        ident, star, real, x, y [pixel of the reference band], redshift,
        mag_<b>, r_mag_ab, rotation [rad], g1, g2.
    psf : `numpy.ndarray` [scene, kind, 3] of `float32`, optional
        FWHM [arcsec] and ellipticity e1, e2 of each scene's PSFs; an FWHM of
        0 where they are not known.
    """

    _format, _format_version = SHARD_FORMAT, 2
    _small = {"fluxes": 2, "scene": 1, "galaxy": 1, "band_profile": 1, "psf": 3}
    _large = {"profiles": 4}

    survey: str
    bands: tuple
    kind: str
    settings: dict
    seed: int
    split: str
    versions: dict
    profiles: np.ndarray
    fluxes: np.ndarray
    scene: np.ndarray
    galaxy: np.ndarray
    truth: object
    band_profile: np.ndarray
    survey_info: dict = field(default_factory=dict)
    objects: object = None
    psf: np.ndarray | None = None

    def __post_init__(self):
        self.bands = tuple(self.bands)
        if self.objects is None:
            self.objects = Table()
        if self.psf is None:
            self.psf = np.zeros((len(self.truth), self.profiles.shape[1], 3), np.float32)
        _check_arrays(self)

    @functools.cached_property
    def _offsets(self):
        return np.searchsorted(self.scene, np.arange(self.n_scenes + 1))

    def describe(self):
        """What rules the sample's scenes, json-able: two samples of one
        description hold the same scenes.

        Returns
        -------
        description : `dict`
            Survey, bands, kind, split, number of scenes, seed, settings and
            versions (the galaxies' source and checksum are among them).
        """
        return {
            "survey": self.survey,
            "bands": list(self.bands),
            "kind": self.kind,
            "split": self.split,
            "scenes": self.n_scenes,
            "seed": self.seed,
            "settings": self.settings,
            "versions": self.versions,
        }

    def rows(self, index):
        """Rows of one scene.

        Parameters
        ----------
        index : `int`
            Scene, 0-based; negative counts from the end.

        Returns
        -------
        rows : `slice`

        Raises
        ------
        IndexError
            If there is no such scene.
        """
        if not -self.n_scenes <= index < self.n_scenes:
            raise IndexError(f"Scene {index} of {self.n_scenes}")
        index %= self.n_scenes
        return slice(int(self._offsets[index]), int(self._offsets[index + 1]))

    def image(self, index, galaxies=None):
        """Noiseless image of one scene.

        Parameters
        ----------
        index : `int`
            Scene.
        galaxies : `str`, optional
            "target" or "neighbours" for a part of the scene; all by default.

        Returns
        -------
        image : `numpy.ndarray` [band, y, x] of `float32`
            In the survey's image unit.

        Raises
        ------
        ShardError
            If ``galaxies`` is another word.
        """
        rows = self.rows(index)
        profiles, fluxes = self.profiles[rows], self.fluxes[rows]
        if galaxies is not None:
            if galaxies not in ("target", "neighbours"):
                raise ShardError(f"galaxies is {galaxies!r}: expected None, 'target' or 'neighbours'")
            chosen = (self.galaxy[rows] == 0) == (galaxies == "target")
            profiles, fluxes = profiles[chosen], fluxes[chosen]
        image = np.zeros((len(self.bands),) + profiles.shape[2:], np.float32)
        for profile, flux in zip(unpack_profiles(profiles), fluxes, strict=True):
            image += flux[:, None, None] * profile[self.band_profile]
        return image

    def select(self, scenes):
        """Some of the scenes, numbered anew.

        Parameters
        ----------
        scenes : sequence of `int`
            In the order wanted.

        Returns
        -------
        sample : `StampSample`
        """
        scenes = [range(self.n_scenes)[index] for index in scenes]
        numbers = np.arange(len(scenes), dtype=np.int32)
        spans = [self.rows(index) for index in scenes]
        rows = _within(spans)
        truth, objects = self.truth[scenes], self.objects
        if "scene" in truth.colnames:
            truth["scene"] = numbers
        if "scene" in objects.colnames:
            bounds = np.searchsorted(objects["scene"], np.arange(self.n_scenes + 1))
            parts = [slice(bounds[index], bounds[index + 1]) for index in scenes]
            objects = objects[_within(parts)]
            objects["scene"] = np.repeat(numbers, [part.stop - part.start for part in parts])
        return dataclasses.replace(
            self,
            profiles=np.concatenate([self.profiles[:0], *(self.profiles[span] for span in spans)]),
            fluxes=self.fluxes[rows],
            scene=np.repeat(numbers, [span.stop - span.start for span in spans]),
            galaxy=self.galaxy[rows],
            truth=truth,
            objects=objects,
            psf=self.psf[scenes],
        )

    @classmethod
    def concatenate(cls, samples):
        """Join samples of one survey, kind and split; the first's description
        (settings, seed, versions) is kept.

        Parameters
        ----------
        samples : sequence of `StampSample`

        Returns
        -------
        sample : `StampSample`

        Raises
        ------
        ShardError
            If there is none or they do not fit together.
        """
        if not samples:
            raise ShardError("No samples to join: expected one at least")
        first = samples[0]
        for other in samples[1:]:
            for name in ("survey", "bands", "kind", "split"):
                ours, theirs = getattr(first, name), getattr(other, name)
                if ours != theirs:
                    raise ShardError(
                        f"Samples differ in {name}: {ours!r} and {theirs!r}; join equal ones only"
                    )
            if first.profiles.shape[1:] != other.profiles.shape[1:]:
                raise ShardError("Samples differ in the shape of their profiles; join equal ones only")
        if len(samples) == 1:
            return first
        starts = np.cumsum([0] + [sample.n_scenes for sample in samples]).astype(np.int32)
        truth, objects = (
            vstack([getattr(sample, name) for sample in samples], metadata_conflicts="silent")
            for name in ("truth", "objects")
        )
        if "scene" in truth.colnames:
            truth["scene"] = np.arange(len(truth), dtype=np.int32)
        if "base_scene" in truth.colnames:
            # Numbers of scenes are as good as any to tell bases of different samples apart.
            bases = [s.truth["base_scene"] + start for s, start in zip(samples, starts)]
            truth["base_scene"] = np.concatenate(bases)
        if "scene" in objects.colnames:
            numbers = [s.objects["scene"] + start for s, start in zip(samples, starts)]
            objects["scene"] = np.concatenate(numbers)
        return dataclasses.replace(
            first,
            profiles=np.concatenate([sample.profiles for sample in samples]),
            fluxes=np.concatenate([sample.fluxes for sample in samples]),
            scene=np.concatenate([s.scene + start for s, start in zip(samples, starts)]),
            galaxy=np.concatenate([sample.galaxy for sample in samples]),
            truth=truth,
            objects=objects,
            psf=np.concatenate([sample.psf for sample in samples]),
        )

    def _numbers(self):
        return {"profile_scale": PROFILE_SCALE}

    @classmethod
    def _fields_of_numbers(cls, attributes):
        found = float(attributes["profile_scale"])
        if found != PROFILE_SCALE:
            raise ShardError(f"profile scale is {found}: expected {PROFILE_SCALE}")
        return {}


def _within(spans):
    """Every index within some slices [int64 array]."""
    return np.concatenate([np.arange(0), *(np.arange(span.start, span.stop) for span in spans)])


def _check_arrays(sample):
    """Refuse arrays that do not fit together."""
    n_rows, n_bands = len(sample.scene), len(sample.bands)
    expected = {
        "profiles": (
            sample.profiles.dtype == np.float16,
            sample.profiles.ndim == 4 and len(sample.profiles) == n_rows,
        ),
        "fluxes": (sample.fluxes.dtype == np.float32, sample.fluxes.shape == (n_rows, n_bands)),
        "scene": (sample.scene.dtype == np.int32, sample.scene.ndim == 1),
        "galaxy": (sample.galaxy.dtype == np.int8, sample.galaxy.shape == (n_rows,)),
        "band_profile": (sample.band_profile.dtype == np.int64, sample.band_profile.shape == (n_bands,)),
    }
    for name, (right_type, right_shape) in expected.items():
        if not (right_type and right_shape):
            array = getattr(sample, name)
            raise ShardError(
                f"{name} is {array.dtype} {array.shape}, which does not fit {n_rows} rows and {n_bands} bands"
            )
    kinds = sample.profiles.shape[1]
    if sample.psf.dtype != np.float32 or sample.psf.shape != (len(sample.truth), kinds, 3):
        raise ShardError(
            f"psf is {sample.psf.dtype} {sample.psf.shape}, which does not fit {len(sample.truth)} scenes "
            f"and {kinds} profile kinds"
        )
    if sample.band_profile.min(initial=0) < 0 or sample.band_profile.max(initial=0) >= max(kinds, 1):
        raise ShardError(f"band_profile is not within the {kinds} profile kinds")
    if not np.array_equal(np.unique(sample.scene), np.arange(len(sample.truth))) or np.any(
        np.diff(sample.scene) < 0
    ):
        raise ShardError(f"scene is not ascending over every one of {len(sample.truth)} scenes")
    if sample.galaxy.min(initial=0) < 0:
        raise ShardError("galaxy holds negative numbers: expected 0 for the target, 1 and up for neighbours")
    if len(sample.objects):
        scenes = np.asarray(sample.objects["scene"])
        if np.any(np.diff(scenes) < 0) or scenes[0] < 0 or scenes[-1] >= len(sample.truth):
            raise ShardError(f"the table of objects is not in order of the {len(sample.truth)} scenes")
