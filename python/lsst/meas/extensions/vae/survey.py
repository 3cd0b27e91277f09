# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Surveys: what the images of a telescope look like, band by band.

A `Survey` is a tuple of `Band`; a band knows its pixel scale, PSF, zero point, sky and exposure time. Three
are named. They are never to be mixed in one table:

``arcelin2020``
    The ten bands of Arcelin et al. 2020, like for like: zero points are applied to counts per second of the
    HST mirror and only the image is scaled to the telescope's mirror, so its r magnitude is AB + about 2.2.
    Images are in electrons. ``arcelin2020+visAsY``, ``arcelin2020+codeNirSky`` and
    ``arcelin2020+visAsY+codeNirSky`` are the same with what the published code does otherwise than the paper.
``lsst10yr``
    LSST after ten years in honest AB magnitudes, with the constants of `surveycodex`. Images are in nJy.
``hscwide``
    Hyper Suprime-Cam's wide layer, grizy, in AB, with the constants of `surveycodex`. Images are in nJy.
"""

__all__ = ["Band", "PsfModel", "Survey", "get_survey", "survey_names", "survey_variant"]

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from math import pi

import numpy as np

from .errors import SurveyError

# Collecting areas [m^2] of the arcelin2020 flux scale. 6.68 m is LSST's effective diameter, obscuration
# included.
HST_AREA = pi / 4 * 2.4**2 * (1 - 0.33**2)
LSST_AREA = pi / 4 * 6.68**2
EUCLID_AREA = pi / 4 * (1.25**2 - 0.37**2)

NJY_ZEROPOINT = 31.4
"""AB magnitude of a source of 1 nJy."""


@dataclass(frozen=True)
class PsfModel:
    """An analytic PSF, the same over the whole image.

    Parameters
    ----------
    kind : `str`
        "kolmogorov", "moffat" or "gaussian".
    fwhm : `float`
        Full width at half maximum [arcsec] of the round profile.
    beta : `float`, optional
        Moffat's exponent; for a Moffat only.
    e1, e2 : `float`
        Ellipticity [reduced shear] that the round profile is sheared by.
    """

    kind: str
    fwhm: float
    beta: float | None = None
    e1: float = 0.0
    e2: float = 0.0

    def __post_init__(self):
        if self.kind not in ("kolmogorov", "moffat", "gaussian"):
            raise SurveyError(
                f"Unknown PSF kind {self.kind!r}: expected 'kolmogorov', 'moffat' or 'gaussian'; change "
                "psf.kind."
            )
        if not (np.isfinite(self.fwhm) and self.fwhm > 0):
            raise SurveyError(f"PSF FWHM {self.fwhm!r} is not a positive number of arcsec; change psf.fwhm.")
        if (self.kind == "moffat") != (self.beta is not None):
            raise SurveyError(
                f"PSF beta is {self.beta!r} for kind {self.kind!r}: a Moffat needs it and no other kind "
                "takes it."
            )
        if not np.hypot(self.e1, self.e2) < 1:
            raise SurveyError(
                f"PSF ellipticity ({self.e1!r}, {self.e2!r}) is not below 1; change psf.e1 and psf.e2."
            )

    def profile(self):
        """The PSF above the atmosphere-and-optics, without the pixel.

        Returns
        -------
        profile : `galsim.GSObject`
            Of unit flux, centred.
        """
        import galsim

        if self.kind == "kolmogorov":
            profile = galsim.Kolmogorov(fwhm=self.fwhm)
        elif self.kind == "moffat":
            profile = galsim.Moffat(beta=self.beta, fwhm=self.fwhm)
        else:
            profile = galsim.Gaussian(fwhm=self.fwhm)
        if self.e1 or self.e2:
            profile = profile.shear(g1=self.e1, g2=self.e2)
        return profile

    def kernel(self, pixel_scale, size=41):
        """The PSF as an image, the pixel included.

        Parameters
        ----------
        pixel_scale : `float`
            Pixel side [arcsec].
        size : `int`
            Side of the image [pixels], odd, so that the PSF is centred on a pixel.

        Returns
        -------
        kernel : `numpy.ndarray`, float64 [size, size]
            Of unit sum.

        Raises
        ------
        SurveyError
            If ``size`` is not odd and positive.
        """
        if size < 1 or size % 2 != 1:
            raise SurveyError(f"PSF kernel size {size!r} is not an odd positive number of pixels; use 41.")
        image = self.profile().drawImage(nx=size, ny=size, scale=pixel_scale, dtype=float)
        return image.array / image.array.sum()


@dataclass(frozen=True)
class Band:
    """One band of a survey.

    Parameters
    ----------
    name : `str`
        Case matters: LSST's y and Euclid's Y are two bands.
    instrument, physical_filter : `str`
        What took it.
    pixel_scale : `float`
        Pixel side [arcsec].
    psf : `PsfModel`
    zeropoint : `float`
        Magnitude [in the survey's system] of one electron per second.
    sky_brightness : `float`
        [mag/arcsec^2].
    exposure_time : `float`
        Of all exposures together [s].
    area_ratio : `float`
        Collecting area over HST's that scales fluxes into electrons; 1 where fluxes are AB.
    electrons_per_unit : `float`
        Electrons that one image unit stands for.
    bandpass : (`str`, `str`)
        Instrument and band whose throughput makes the fluxes; the band's own by default.
    """

    name: str
    instrument: str
    physical_filter: str
    pixel_scale: float
    psf: PsfModel
    zeropoint: float
    sky_brightness: float
    exposure_time: float
    area_ratio: float = 1.0
    electrons_per_unit: float = 1.0
    bandpass: tuple[str, str] | None = None

    def __post_init__(self):
        if self.bandpass is None:
            object.__setattr__(self, "bandpass", (self.instrument, self.name))

    @property
    def sky_level(self):
        """Sky [electrons per pixel, float] of the whole exposure."""
        rate = 10 ** (-0.4 * (self.sky_brightness - self.zeropoint))
        return rate * self.pixel_scale**2 * self.exposure_time


@dataclass(frozen=True)
class Survey:
    """Bands that are observed together.

    Parameters
    ----------
    name : `str`
    bands : `tuple` of `Band`
        In the order of every cube's band axis.
    magnitude_system : `str`
        "arcelin2020" or "AB".
    image_unit : `str`
        "electron" or "nJy".
    stamp_size : `int`
        Side of a stamp [pixels].
    reference_band : `str`
        Band of the magnitude cuts; the first band where it is not among the bands.
    """

    name: str
    bands: tuple[Band, ...]
    magnitude_system: str
    image_unit: str
    stamp_size: int = 64
    reference_band: str = "r"

    def __post_init__(self):
        if not self.bands:
            raise SurveyError(f"Survey {self.name!r} has no bands: name one at least.")
        names = self.band_names
        if len(set(names)) != len(names):
            raise SurveyError(f"Survey {self.name!r} names a band twice in {list(names)}: name each once.")
        if self.reference_band not in names:
            object.__setattr__(self, "reference_band", names[0])

    @property
    def band_names(self):
        """Names of the bands [`tuple` of `str`], in order."""
        return tuple(band.name for band in self.bands)

    def __len__(self):
        return len(self.bands)

    def __getitem__(self, name):
        for band in self.bands:
            if band.name == name:
                return band
        raise SurveyError(
            f"Unknown band {name!r} in survey {self.name!r}: expected one of {', '.join(self.band_names)} "
            "(case matters)."
        )

    def select(self, names):
        """The same survey with some of its bands.

        Parameters
        ----------
        names : iterable of `str`
            In the order wanted.

        Returns
        -------
        survey : `Survey`

        Raises
        ------
        SurveyError
            For unknown bands, each of which it names, a band named twice, or none.
        """
        names = tuple(names)
        unknown = [name for name in names if name not in self.band_names]
        if unknown:
            raise SurveyError(
                f"Unknown bands {', '.join(map(repr, unknown))} in survey {self.name!r}: expected a choice "
                f"of {', '.join(self.band_names)} (case matters)."
            )
        return replace(self, bands=tuple(self[name] for name in names))

    @cached_property
    def profile_kinds(self):
        """The distinct (`PsfModel`, pixel scale [arcsec]) [`tuple`]: a galaxy is rendered once for each."""
        return tuple(dict.fromkeys((band.psf, band.pixel_scale) for band in self.bands))

    @cached_property
    def band_profile(self):
        """Which of the profile kinds each band uses [`numpy.ndarray`, int64 [n_bands]]."""
        index = [self.profile_kinds.index((band.psf, band.pixel_scale)) for band in self.bands]
        return np.array(index, dtype=np.int64)


def _arcelin2020(vis_as_y=False, code_nir_sky=False):
    """The ten bands of Arcelin et al. 2020, table 1 and their published code."""
    lsst_psf = PsfModel("kolmogorov", fwhm=0.65)
    vis_psf = PsfModel("moffat", fwhm=0.18, beta=2.5)
    nisp_psf = PsfModel("moffat", fwhm=0.22, beta=2.5)
    # name, zero point, sky brightness, number of 15 s exposures
    lsst = [
        ("u", 26.50, 22.95, 56),
        ("g", 28.30, 22.24, 80),
        ("r", 28.13, 21.20, 184),
        ("i", 27.79, 20.47, 184),
        ("z", 27.40, 19.60, 160),
        ("y", 26.58, 18.63, 160),
    ]
    # The NISP skies scale VIS's.
    nir_sky = {"Y": 22.35 * 22.57 / 21.95, "J": 22.35 * 22.53 / 21.95, "H": 22.35 * 21.90 / 21.95}
    if code_nir_sky:
        # The published code lists the skies as Y, J, H beside the filters H, J, Y.
        nir_sky["Y"], nir_sky["H"] = nir_sky["H"], nir_sky["Y"]
    # name, instrument, pixel scale, PSF, zero point, sky brightness
    euclid = [
        ("VIS", "Euclid_VIS", 0.1, vis_psf, 25.58, 22.35),
        ("Y", "Euclid_NISP", 0.3, nisp_psf, 24.25, nir_sky["Y"]),
        ("J", "Euclid_NISP", 0.3, nisp_psf, 24.29, nir_sky["J"]),
        ("H", "Euclid_NISP", 0.3, nisp_psf, 24.92, nir_sky["H"]),
    ]
    bands = [
        Band(name, "LSST", f"LSST_{name}", 0.2, lsst_psf, zeropoint, sky, 15.0 * number, LSST_AREA / HST_AREA)
        for name, zeropoint, sky, number in lsst
    ] + [
        Band(
            name, instrument, f"Euclid_{name}", scale, psf, zeropoint, sky, 4 * 450.0, EUCLID_AREA / HST_AREA
        )
        for name, instrument, scale, psf, zeropoint, sky in euclid
    ]
    if vis_as_y:
        # The published code reads the throughput of NISP Y for VIS.
        bands = [replace(b, bandpass=("Euclid_NISP", "Y")) if b.name == "VIS" else b for b in bands]
    name = survey_variant("arcelin2020", visAsY=vis_as_y, codeNirSky=code_nir_sky)
    return Survey(name, tuple(bands), "arcelin2020", "electron")


def _codex(name, telescope, bands):
    """A survey of `surveycodex` in AB, in nJy, through Kolmogorov PSFs."""
    import surveycodex

    codex = surveycodex.get_survey(telescope)
    made = []
    for band in bands:
        found = codex.get_filter(band)
        zeropoint = float(found.zeropoint.to_value("mag"))
        exposure_time = float(found.full_exposure_time.to_value("s"))
        made.append(
            Band(
                band,
                telescope,
                f"{telescope}_{band}",
                float(codex.pixel_scale.to_value("arcsec")),
                PsfModel("kolmogorov", fwhm=float(found.psf_fwhm.to_value("arcsec"))),
                zeropoint,
                float(found.sky_brightness.value),
                exposure_time,
                electrons_per_unit=exposure_time * 10 ** (-0.4 * (NJY_ZEROPOINT - zeropoint)),
            )
        )
    return Survey(name, tuple(made), "AB", "nJy")


def survey_variant(name, **options):
    """Name of a survey with some of its options on.

    Parameters
    ----------
    name : `str`
        Plain name.
    **options : `bool`
        Such as ``visAsY=True``.

    Returns
    -------
    name : `str`
        Such as "arcelin2020+visAsY", which `get_survey` takes.
    """
    return "+".join([name] + [option for option, on in options.items() if on])


_MAKERS = {
    survey_variant("arcelin2020", visAsY=vis, codeNirSky=sky): partial(_arcelin2020, vis, sky)
    for vis in (False, True)
    for sky in (False, True)
} | {
    "lsst10yr": partial(_codex, "lsst10yr", "LSST", "ugrizy"),
    "hscwide": partial(_codex, "hscwide", "HSC", "grizy"),
}


@lru_cache
def _whole_survey(name):
    return _MAKERS[name]()


def survey_names():
    """Names that `get_survey` knows [`tuple` of `str`]."""
    return tuple(_MAKERS)


def get_survey(name, bands=None):
    """A survey by name.

    Parameters
    ----------
    name : `str`
        One of `survey_names`.
    bands : iterable of `str`, optional
        The bands wanted, in order; all by default.

    Returns
    -------
    survey : `Survey`

    Raises
    ------
    SurveyError
        For an unknown survey or band.
    """
    if name not in _MAKERS:
        raise SurveyError(f"Unknown survey {name!r}: expected one of {', '.join(_MAKERS)}.")
    survey = _whole_survey(name)
    return survey if bands is None else survey.select(bands)
