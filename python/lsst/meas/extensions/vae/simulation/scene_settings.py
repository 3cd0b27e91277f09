# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The choices that rule scenes on stamps."""

__all__ = ["SceneSettings"]

import math
from dataclasses import dataclass

from ..errors import VaeError
from .psfs import PsfVariation


@dataclass(frozen=True)
class SceneSettings:
    """How scenes are made. Lengths are in arcsec unless said.

    Attributes
    ----------
    kind : `str`
        "blended", or "isolated": the target alone.
    placement : `str`
        "annulus": Arcelin et al. 2020, section 2.1.3. ``min_galaxies`` to
        ``max_galaxies`` galaxies, uniform in number; the one with the smallest
        reference-band magnitude is the target; the others are uniform *in
        area* in an annulus about it.
        "field": the target is any galaxy, neighbours fall as in the sky:
        Poisson in number, uniform over the stamp and a margin of 16 pixels.
    min_galaxies, max_galaxies : `int`
        Number of galaxies, the target included (placement "annulus").
    inner_radius, outer_radius : `float`
        The annulus of placement "annulus".
    mag_limit : `float` or `None`
        Every galaxy and star is brighter than this in the reference band, in
        the survey's own magnitudes; `None` for no cut.
    centring : `str`
        "none": the target sits on the crossing of the four central pixels;
        "pixelisation": shifted uniformly within a square of one pixel;
        "peaks": section 2.1.4 (ii). A scene as with "pixelisation", but the
        stamp's centre is where the brightest peak of a noisy reference-band
        image is, and the target is the galaxy nearest it. Isolated galaxies
        get that shift and then one from `centring.BETA_PRIME`.
    peak_centring : `str`
        The stamp's centre with centring "peaks": "pixel", the crossing of
        pixels nearest the peak (the paper); "centroid", the peak's exact
        centre of mass (the published code).
    detection_size : `int`
        Side of the image that peaks are sought in [pixel], even.
    detection_threshold : `float`
        Least height of a peak, in units of the sky's noise.
    max_peaks : `int`
        No more peaks than these, the brightest, are counted.
    centring_jitter : `float`
        Further Gaussian shift of the target, sigma of each axis [pixel].
    min_neighbour_distance : `float`
        Scenes whose target has a nearer neighbour are drawn again.
    density_per_arcmin2 : `float`
        Neighbours per arcmin^2 (placement "field").
    close_fraction : `float`
        Probability of one or two more neighbours in the close annulus
        (placement "field").
    close_inner_radius, close_outer_radius : `float`
        The close annulus.
    target_snr_min : `float`
        Fainter targets are drawn again: isolated reference-band SNR.
    rotate : `bool`
        Rotate each galaxy by a random angle before drawing.
    colour_gradients : `bool`
        Bulge and disc have their own colours.
    sersic_round : `float`
        Rounding of the Sersic index.
    shear_g1, shear_g2 : `float`
        Lensing reduced shear of every scene. What is chosen by looking (the
        peak, the target's SNR, which neighbours show) is chosen on the scene
        without shear, so samples that differ in shear hold the same galaxies.
    shear_step : `float`
        Above 0, every scene comes five times in a row, with the shears (0, 0),
        (+step, 0), (-step, 0), (0, +step), (0, -step) and the same noise seed.
    shear_positions : `bool`
        Shear moves the neighbours about the target too.
    psf_fwhm_scatter, psf_shear_sigma : `float`
        How much PSFs vary between scenes: see `PsfVariation`.
    star_fraction : `float`
        Each object is a star with this probability.
    real_fraction : `float`
        Each scene is of galaxies with HST images, and of no stars, with this
        probability.

    Raises
    ------
    VaeError
        For values out of range or that do not go together.
    """

    kind: str = "blended"
    placement: str = "annulus"
    min_galaxies: int = 1
    max_galaxies: int = 4
    inner_radius: float = 0.325
    outer_radius: float = 2.0
    mag_limit: float | None = 27.5
    centring: str = "none"
    peak_centring: str = "pixel"
    detection_size: int = 128
    detection_threshold: float = 5.0
    max_peaks: int = 4
    centring_jitter: float = 0.0
    min_neighbour_distance: float = 0.0
    density_per_arcmin2: float = 50.0
    close_fraction: float = 0.5
    close_inner_radius: float = 0.4
    close_outer_radius: float = 2.5
    target_snr_min: float = 0.0
    rotate: bool = True
    colour_gradients: bool = True
    sersic_round: float = 0.05
    shear_g1: float = 0.0
    shear_g2: float = 0.0
    shear_step: float = 0.0
    shear_positions: bool = True
    psf_fwhm_scatter: float = 0.0
    psf_shear_sigma: float = 0.0
    star_fraction: float = 0.0
    real_fraction: float = 0.0

    def __post_init__(self):
        for name, words in (
            ("kind", ("blended", "isolated")),
            ("placement", ("annulus", "field")),
            ("centring", ("none", "pixelisation", "peaks")),
            ("peak_centring", ("pixel", "centroid")),
        ):
            if getattr(self, name) not in words:
                raise VaeError(f"{name} is {getattr(self, name)!r}: expected {' or '.join(words)}")
        if not 1 <= self.min_galaxies <= self.max_galaxies <= 100:
            raise VaeError(
                f"min_galaxies, max_galaxies are {self.min_galaxies}, {self.max_galaxies}: "
                "expected 1 <= min <= max <= 100"
            )
        for inner, outer in (("inner_radius", "outer_radius"), ("close_inner_radius", "close_outer_radius")):
            if not 0 <= getattr(self, inner) < getattr(self, outer) < math.inf:
                raise VaeError(
                    f"{inner}, {outer} are {getattr(self, inner)}, {getattr(self, outer)}: "
                    "expected 0 <= inner < outer"
                )
        for name in ("close_fraction", "star_fraction", "real_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise VaeError(f"{name} is {getattr(self, name)}: expected 0 to 1")
        for name in (
            "density_per_arcmin2",
            "centring_jitter",
            "target_snr_min",
            "sersic_round",
            "min_neighbour_distance",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise VaeError(f"{name} is {getattr(self, name)}: expected a number of at least 0")
        if self.mag_limit is not None and not math.isfinite(self.mag_limit):
            raise VaeError(f"mag_limit is {self.mag_limit}: expected a magnitude, or None for no cut")
        self._check_peaks()
        self._check_shear()
        self.psf_variation  # noqa: B018  raises for numbers out of range

    def _check_peaks(self):
        if not 16 <= self.detection_size <= 1024 or self.detection_size % 2:
            raise VaeError(
                f"detection_size is {self.detection_size}: expected an even number of pixels, 16 to 1024"
            )
        if not 0 < self.detection_threshold < math.inf:
            raise VaeError(f"detection_threshold is {self.detection_threshold}: expected a positive number")
        if not 1 <= self.max_peaks <= 100:
            raise VaeError(f"max_peaks is {self.max_peaks}: expected 1 to 100")
        if self.seeks_peaks and self.placement == "field":
            # The brightest peak of a whole field is seldom near its middle.
            raise VaeError(
                "centring is 'peaks' with placement 'field': expected placement 'annulus'; for targets of "
                "fields take centring 'pixelisation' and a centring_jitter"
            )
        if self.placement == "annulus" and self.min_neighbour_distance >= self.outer_radius:
            raise VaeError(
                f"min_neighbour_distance is {self.min_neighbour_distance}: expected less than outer_radius, "
                f"{self.outer_radius}"
            )

    def _check_shear(self):
        if not math.hypot(self.shear_g1, self.shear_g2) < 1:
            raise VaeError(f"shear is ({self.shear_g1}, {self.shear_g2}): expected |g| < 1")
        if not 0 <= self.shear_step < 1:
            raise VaeError(f"shear_step is {self.shear_step}: expected 0 (one version a scene) to below 1")
        if self.shear_step and (self.shear_g1 or self.shear_g2):
            raise VaeError(
                f"shear_step is {self.shear_step} and shear ({self.shear_g1}, {self.shear_g2}): expected one "
                "or the other; set shear_g1 and shear_g2 to 0 for five versions a scene"
            )

    @property
    def seeks_peaks(self):
        """Whether scenes are centred by looking for peaks [`bool`]."""
        return self.centring == "peaks" and self.kind == "blended"

    @property
    def shears(self):
        """The shears (g1, g2) of a scene's versions, in order [`tuple`]."""
        if not self.shear_step:
            return ((self.shear_g1, self.shear_g2),)
        g = self.shear_step
        return ((0.0, 0.0), (g, 0.0), (-g, 0.0), (0.0, g), (0.0, -g))

    @property
    def psf_variation(self):
        """How PSFs vary [`PsfVariation`]."""
        return PsfVariation(self.psf_fwhm_scatter, self.psf_shear_sigma)
