# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Band fluxes of galaxies from their SED, redshift and F814W magnitude, as GalSim's COSMOSCatalog has them;
and of stars from their temperature.

Every galaxy or component has one of three SEDs of Coleman, Wu & Weedman, redshifted and normalised to its
F814W magnitude. So all that a band needs is one table for each SED: photons through the band over photons
through F814W as a function of redshift. A star's SED is a black body's: one table by temperature.
"""

__all__ = [
    "FLUX_RATIO_MAX_REDSHIFT",
    "SED_NAMES",
    "TEMPERATURE_RANGE",
    "blackbody_counts_per_second",
    "component_rates",
    "counts_per_second",
    "electrons_of_rates",
    "magnitudes_of_rates",
]

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import SurveyError

SED_NAMES = ("E", "Sbc", "Scd")
"""Name of each value of ``Components.sed``."""

F814W_ZEROPOINT = 25.94
"""Magnitude of one count per second in HST ACS F814W, as GalSim's COSMOSCatalog takes it."""

FLUX_RATIO_MAX_REDSHIFT = 6.5
"""Redshift where the tables end; farther galaxies get the colours of the end."""

TEMPERATURE_RANGE = (2000.0, 20000.0)
"""Of black bodies [K]."""

# Log of temperature between rows of a table: the colours are linear between them to 10^-4 mag.
_TEMPERATURE_STEP = 0.01

# Planck's constant times the speed of light over Boltzmann's [Angstrom K].
_HC_K = 1.438776877e8

# In log wavelength a redshift is a shift, so that one correlation gives all redshifts. This step is 2 A at
# 8000 A, finer than redshifts 0.002 apart.
_STEP = 2.5e-4


def _package_dir(name):
    """Folder of an installed package, found without importing it; None where it is absent."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _read_columns(path, scale):
    """Wavelength [Angstrom] and value of a text file with '#' comments and perhaps a line of names."""
    with open(path) as file:
        lines = [line for line in file if line.strip() and not line.startswith(("#", "wavelength"))]
    rows = [line.split()[:2] for line in lines]
    wave, value = np.array(rows, dtype=float).T
    return wave * scale, value


@lru_cache
def _read_sed(name):
    """Wavelength [Angstrom] and photons per wavelength (any unit), which GalSim interpolates between."""
    wave, flux = _read_columns(_package_dir("galsim") / f"share/SEDs/CWW_{name}_ext_more.sed", 1.0)
    return wave, flux * wave


@lru_cache
def _read_bandpass(instrument, name):
    """Wavelength [Angstrom] and throughput."""
    galsim_bandpasses = _package_dir("galsim") / "share/bandpasses"
    if instrument == "HST":
        return _read_columns(galsim_bandpasses / f"ACS_wfc_{name}.dat", 10.0)
    if instrument == "LSST" and name in ("u", "g", "r", "i", "z", "y"):
        return _read_columns(galsim_bandpasses / f"LSST_{name}.dat", 10.0)
    groups = {
        "Euclid_VIS": ("Euclid", ("VIS",)),
        "Euclid_NISP": ("Euclid", ("Y", "J", "H")),
        "HSC": ("hsc2017", ("g", "r", "i", "z", "y")),
    }
    group, known = groups.get(instrument, ("", ()))
    if name in known:
        speclite = _package_dir("speclite")
        if speclite is None:
            raise SurveyError(
                f"Band {name!r} needs a bandpass of {instrument}, which package speclite carries and which "
                "is not installed here: run 'pip install speclite' or leave the band out."
            )
        return _read_columns(speclite / f"data/filters/{group}-{name}.ecsv", 1.0)
    raise SurveyError(
        f"No bandpass is known for band {name!r} of instrument {instrument!r}: expected LSST's ugrizy, HSC's "
        "grizy, Euclid_VIS's VIS or Euclid_NISP's Y, J, H."
    )


def _log_grid(low, high):
    """Natural logs of wavelength, on multiples of the step."""
    return _STEP * np.arange(np.floor(np.log(low) / _STEP), np.ceil(np.log(high) / _STEP) + 1)


def _response(instrument, name):
    """Log wavelength [Angstrom] on the common grid, and throughput there."""
    wave, throughput = _read_bandpass(instrument, name)
    used = np.flatnonzero(throughput > 1e-6 * throughput.max())
    wave = wave[max(used[0] - 1, 0) : used[-1] + 2]
    throughput = throughput[max(used[0] - 1, 0) : used[-1] + 2]
    log_wave = _log_grid(wave[0], wave[-1])
    return log_wave, np.interp(np.exp(log_wave), wave, throughput, left=0.0, right=0.0)


@lru_cache
def _photons(instrument, name):
    """Photons through a bandpass for each SED and redshift, and for a source of constant f_nu.

    Returns
    -------
    photons : `numpy.ndarray`, float64 [3, n]
        At redshifts ln(1 + z) = 0, step, 2 step... The scale is common to all bandpasses.
    flat : `float`
        Integral of throughput d(ln wavelength): photons of a flat f_nu, as AB magnitudes refer to.
    """
    log_wave, response = _response(instrument, name)
    # Photons at redshift z: the integral of f(wave / (1 + z)) T(wave) d(wave), but for powers of (1 + z) that
    # are common to all bands. By Fourier transform, a correlation takes milliseconds.
    n_shifts = int(np.ceil(np.log1p(FLUX_RATIO_MAX_REDSHIFT) / _STEP)) + 1
    rest = log_wave[0] + _STEP * np.arange(1 - n_shifts, len(log_wave))
    weight = np.conj(np.fft.rfft(response * np.exp(log_wave), len(rest)))
    photons = []
    for sed in SED_NAMES:
        sed_wave, sed_flux = _read_sed(sed)
        flux = np.interp(np.exp(rest), sed_wave, sed_flux, left=0.0, right=0.0)
        # rest[n_shifts - 1] is where the bandpass begins; each step of redshift slides it a sample bluewards.
        correlation = np.fft.irfft(np.fft.rfft(flux) * weight, len(rest))
        photons.append(correlation[n_shifts - 1 :: -1])
    return np.array(photons) * _STEP, response.sum() * _STEP


@lru_cache
def _blackbody_photons(instrument, name):
    """Photons of black bodies through a bandpass [float64 [1, n]], at logs of temperature a step apart; and
    those of constant f_nu, as of `_photons`.
    """
    log_wave, response = _response(instrument, name)
    low, high = np.log(TEMPERATURE_RANGE)
    temperature = np.exp(low + _TEMPERATURE_STEP * np.arange(np.ceil((high - low) / _TEMPERATURE_STEP) + 1))
    # Per log wavelength, photons go as wavelength^-3 / (exp(hc / wavelength k T) - 1). In units of 10^4 A.
    wave = np.exp(log_wave)
    photons = (wave / 1e4) ** -3 / np.expm1(_HC_K / (wave * temperature[:, None]))
    return (photons @ response * _STEP)[None], response.sum() * _STEP


@lru_cache
def _ratio_table(instrument, name, magnitude_system, photons_of=_photons):
    """Photons through a band over those through F814W [float64 [SED, n]]; f_nu's where the system is AB."""
    photons, flat = photons_of(instrument, name)
    photons814, flat814 = photons_of("HST", "F814W")
    # The correlation's rounding may leave a tiny negative where the SED has no light.
    ratio = np.maximum(photons / photons814, 0.0)
    return ratio * (flat814 / flat) if magnitude_system == "AB" else ratio


def counts_per_second(survey, sed, redshift, magnitude):
    """Count rate of sources in every band.

    In system "arcelin2020" the rate is what the HST mirror would collect through the band (GalSim's
    convention); in "AB" it is what the survey's own telescope does, by its zero point.

    Parameters
    ----------
    survey : `~lsst.meas.extensions.vae.survey.Survey`
    sed : `numpy.ndarray`, int [...]
        Index into `SED_NAMES`.
    redshift : `numpy.ndarray` [...]
    magnitude : `numpy.ndarray` [...]
        F814W magnitude; infinite for no flux.

    Returns
    -------
    rate : `numpy.ndarray`, float64 [..., n_bands]
        Electrons per second, before `Band.area_ratio`.

    Raises
    ------
    SurveyError
        For a band whose bandpass is unknown or not installed.
    """
    shift = np.log1p(np.clip(redshift, 0.0, FLUX_RATIO_MAX_REDSHIFT)) / _STEP
    return _rates(survey, _photons, sed, shift, magnitude)


def component_rates(survey, sed, flux_fraction, redshift, magnitude, colour_gradients=True):
    """Count rates of the components of galaxies, in the manner of `counts_per_second`.

    Parameters
    ----------
    survey : `~lsst.meas.extensions.vae.survey.Survey`
    sed, flux_fraction : `numpy.ndarray` [N, 2]
        Index into `SED_NAMES` of each component, and its part of the F814W flux.
    redshift, magnitude : `numpy.ndarray` [N]
        F814W magnitude of the whole galaxy.
    colour_gradients : `bool`
        Each component has its own SED; otherwise both have that of the one brighter in F814W.

    Returns
    -------
    rate : `numpy.ndarray`, float64 [N, 2, n_bands]
        Electrons per second, before `Band.area_ratio`; 0 where there is no such component.
    """
    if not colour_gradients:
        dominant = np.argmax(flux_fraction, axis=1)
        sed = np.broadcast_to(np.take_along_axis(sed, dominant[:, None], axis=1), sed.shape)
    rates = counts_per_second(survey, sed, redshift[:, None], magnitude[:, None])
    return rates * flux_fraction[:, :, None]


def blackbody_counts_per_second(survey, temperature, magnitude):
    """Count rate of black bodies in every band, in the manner of `counts_per_second`.

    Parameters
    ----------
    survey : `~lsst.meas.extensions.vae.survey.Survey`
    temperature : `numpy.ndarray` [...]
        [K]; clipped to `TEMPERATURE_RANGE`.
    magnitude : `numpy.ndarray` [...]
        F814W magnitude.

    Returns
    -------
    rate : `numpy.ndarray`, float64 [..., n_bands]
        Electrons per second, before `Band.area_ratio`.

    Raises
    ------
    SurveyError
        For a band whose bandpass is unknown or not installed.
    """
    log_temperature = np.log(np.clip(temperature, *TEMPERATURE_RANGE))
    place = (log_temperature - np.log(TEMPERATURE_RANGE[0])) / _TEMPERATURE_STEP
    return _rates(survey, _blackbody_photons, 0, place, magnitude)


def _rates(survey, photons_of, sed, place, magnitude):
    """Count rates [..., n_bands] by a fractional place in the tables."""
    sed, place, magnitude = np.broadcast_arrays(sed, place, magnitude)
    below = np.floor(place).astype(np.int64)
    fraction = place - below
    rate = np.empty(sed.shape + (len(survey.bands),))
    anchor = 10 ** (-0.4 * magnitude)
    for index, band in enumerate(survey.bands):
        table = _ratio_table(*band.bandpass, survey.magnitude_system, photons_of)
        above = np.minimum(below + 1, table.shape[1] - 1)
        ratio = (1 - fraction) * table[sed, below] + fraction * table[sed, above]
        zeropoint = band.zeropoint if survey.magnitude_system == "AB" else F814W_ZEROPOINT
        rate[..., index] = ratio * anchor * 10 ** (0.4 * zeropoint)
    return rate


def electrons_of_rates(survey, rate):
    """Electrons of the survey's full exposure.

    Parameters
    ----------
    survey : `~lsst.meas.extensions.vae.survey.Survey`
    rate : `numpy.ndarray` [..., n_bands]
        As of `counts_per_second`.

    Returns
    -------
    electrons : `numpy.ndarray`, float64 [..., n_bands]
    """
    return rate * np.array([band.area_ratio * band.exposure_time for band in survey.bands])


def magnitudes_of_rates(survey, rate):
    """Magnitudes in the survey's own system.

    Parameters
    ----------
    survey : `~lsst.meas.extensions.vae.survey.Survey`
    rate : `numpy.ndarray` [..., n_bands]
        As of `counts_per_second`.

    Returns
    -------
    magnitudes : `numpy.ndarray`, float64 [..., n_bands]
        Infinite where there is no light.
    """
    with np.errstate(divide="ignore"):
        return np.array([band.zeropoint for band in survey.bands]) - 2.5 * np.log10(rate)
