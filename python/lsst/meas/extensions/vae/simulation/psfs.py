# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""PSFs that vary from scene to scene about those of the survey.

What a scene's PSFs are is kept as three numbers for each profile kind; all else about them (Kolmogorov or
Moffat, its exponent) is the survey's.
"""

__all__ = ["MAX_ELLIPTICITY", "PsfVariation", "pack_psfs", "unpack_psfs"]

import math
from dataclasses import dataclass, replace

import numpy as np

from ..errors import ImageError, VaeError

MAX_ELLIPTICITY = 0.3
"""No PSF is drawn with a larger ellipticity [reduced shear]."""

_MAX_SIGMAS = 3.0


@dataclass(frozen=True)
class PsfVariation:
    """How much PSFs vary.

    Parameters
    ----------
    fwhm_scatter : `float`
        Sigma of the logarithm of the FWHM, which is clipped at 3 sigma; 0 to 0.5.
    shear_sigma : `float`
        Sigma of each component of the ellipticity [reduced shear] that is added; 0 to 0.1. The sum stays
        below `MAX_ELLIPTICITY`.

    Raises
    ------
    VaeError
        For numbers out of range.
    """

    fwhm_scatter: float = 0.0
    shear_sigma: float = 0.0

    def __post_init__(self):
        for name, highest in (("fwhm_scatter", 0.5), ("shear_sigma", 0.1)):
            value = getattr(self, name)
            if not 0.0 <= value <= highest:
                raise VaeError(
                    f"PSF variation {name} is {value!r}: expected 0 (no variation) to {highest}; change it."
                )

    @property
    def varies(self):
        """Whether PSFs differ from the survey's at all [`bool`]."""
        return self.fwhm_scatter > 0 or self.shear_sigma > 0

    def draw(self, rng, profile_kinds):
        """Draw the PSFs of one scene or field.

        Kinds that differ in pixel scale only are one PSF. Where nothing varies no random number is used, and
        otherwise three for each distinct PSF, whatever the sigmas.

        Parameters
        ----------
        rng : `numpy.random.Generator`
        profile_kinds : sequence of (`PsfModel`, `float`)
            `Survey.profile_kinds`.

        Returns
        -------
        models : `tuple` of `PsfModel`
            One for each kind, with parameters that `pack_psfs` keeps exactly.
        """
        if not self.varies:
            return tuple(model for model, _ in profile_kinds)
        drawn = {}
        for model, _ in profile_kinds:
            if model not in drawn:
                drawn[model] = self._vary(model, rng.normal(size=3))
        return tuple(drawn[model] for model, _ in profile_kinds)

    def _vary(self, model, normal):
        widening = math.exp(self.fwhm_scatter * np.clip(normal[0], -_MAX_SIGMAS, _MAX_SIGMAS))
        ellipticity = np.array([model.e1, model.e2]) + self.shear_sigma * normal[1:]
        # A little inside the limit, so that rounding to single precision does not pass it.
        size = float(np.hypot(*ellipticity))
        if size > MAX_ELLIPTICITY:
            ellipticity *= (1 - 1e-6) * MAX_ELLIPTICITY / size
        fwhm, e1, e2 = np.float32([model.fwhm * widening, *ellipticity]).tolist()
        return replace(model, fwhm=fwhm, e1=e1, e2=e2)


def pack_psfs(models):
    """PSFs as samples keep them.

    Parameters
    ----------
    models : sequence of `PsfModel`
        One for each profile kind.

    Returns
    -------
    packed : `numpy.ndarray`, float32 [kind, 3]
        FWHM [arcsec], e1, e2 [reduced shear].
    """
    return np.array([[model.fwhm, model.e1, model.e2] for model in models], np.float32).reshape(-1, 3)


def unpack_psfs(packed, profile_kinds):
    """Undo `pack_psfs`.

    Parameters
    ----------
    packed : `numpy.ndarray`, float32 [kind, 3]
        FWHM [arcsec], e1, e2.
    profile_kinds : sequence of (`PsfModel`, `float`)
        `Survey.profile_kinds`, which say the rest. A number that is theirs in single precision is given in
        their full precision, so that a PSF that does not vary is exactly the survey's.

    Returns
    -------
    models : `tuple` of `PsfModel`

    Raises
    ------
    ImageError
        If the shape does not fit, or the numbers make no PSF.
    """
    packed = np.asarray(packed, np.float32)
    if packed.shape != (len(profile_kinds), 3):
        raise ImageError(
            f"PSF parameters have shape {packed.shape}: expected ({len(profile_kinds)}, 3), FWHM, e1 and e2 "
            "of each profile kind of the survey; give those of the same survey and bands."
        )
    if not (np.isfinite(packed).all() and (packed[:, 0] > 0).all() and _ellipticity(packed) < 1):
        raise ImageError(
            f"PSF parameters are {packed.tolist()}: expected a positive FWHM and |e| below 1; the sample is "
            "damaged, simulate it again."
        )
    models = []
    for (nominal, _), numbers in zip(profile_kinds, packed):
        exact = {}
        for name, number in zip(("fwhm", "e1", "e2"), numbers):
            theirs = getattr(nominal, name)
            exact[name] = theirs if np.float32(theirs) == number else float(number)
        models.append(replace(nominal, **exact))
    return tuple(models)


def _ellipticity(packed):
    """Largest ellipticity."""
    return np.hypot(packed[:, 1], packed[:, 2]).max(initial=0.0)
