# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deblenders beside each other: the same scenes of known truth, in one run."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from astropy.table import Table

from ..errors import VaeError
from ..simulation.fields import FieldSettings, simulate_field
from ..simulation.metrics import ksb_shear
from ..simulation.scenes import SceneSettings, simulate_stamps
from ..simulation.statistics import clipped_slope, half_width, median
from ..survey import get_survey
from .peers import Blend, run_peer, stamp_blend
from .stamps import scene_batches

__all__ = ["COLUMNS", "Case", "Comparison", "compare", "field_case", "stamp_cases"]

# Galaxies nearer to the edge of a field are not judged: what lies beyond it is modelled by nobody.
_EDGE = 40

# Galaxies of a field that are deblended, and those that are judged, have this SNR at least.
_DEBLENDED, _JUDGED = 5, 10

# Side of the part of a scene on which deblenders warm up [pixel].
_WARM = 64

COLUMNS = {
    "mag_median": "Median error of the magnitude in r",
    "mag_half_width": "Half of the 16-84 % range of the error of the magnitude in r",
    "flux_error": "Mean of |model / truth - 1| of the flux in r",
    "colour_half_width": "Half of the 16-84 % range of the error of g - r",
    "cosine": "Median cosine similarity of model and truth in r",
    "e_median": "Median error of |e| in r (KSB)",
    "e_half_width": "Half of the 16-84 % range of the error of |e|",
    "component_half_width": "The same of the errors of e1 and e2 together",
    "alpha_1": "Slope of e1 against the truth, less 1, outliers clipped",
    "alpha_2": "Slope of e2 against the truth, less 1, outliers clipped",
}
"""What summaries tell, with descriptions; half-widths and medians are of those that could be measured."""


@dataclass(frozen=True)
class Case:
    """A scene with the truth of those of its sources that are judged.

    Attributes
    ----------
    blend : `~.peers.Blend`
        Scene.
    judged : `numpy.ndarray`, int64 ``[j]``
        Their numbers among the blend's sources.
    targets : `numpy.ndarray`, float32 ``[j, band, y, x]``
        Each of them alone and without noise, on its stamp.
    snr, b_tot : `numpy.ndarray`, ``[j]``
        Signal to noise, and how blended they are.
    """

    blend: Blend
    judged: np.ndarray
    targets: np.ndarray
    snr: np.ndarray
    b_tot: np.ndarray


@dataclass
class Comparison:
    """What some deblenders made of the same J judged sources.

    Attributes
    ----------
    rows : `dict` [`str`, `numpy.ndarray`]
        By deblender ``[J, 8]``: e1 and e2 of the truth and of the model, errors of the magnitude in r and of
        g - r, |model / truth - 1| of the flux in r, cosine similarity in r; NaN for what could not be
        measured.
    snr, b_tot : `numpy.ndarray`, ``[J]``
        Signal to noise, and how blended the sources are.
    sources : `int`
        Sources that were deblended, judged or not.
    seconds, processor_seconds : `dict` [`str`, `float`]
        What each deblender took for all of them.
    reasons : `dict` [`str`, `collections.Counter`]
        Why judged sources are without a model, and how many.
    """

    rows: dict
    snr: np.ndarray
    b_tot: np.ndarray
    sources: int = 0
    seconds: dict = field(default_factory=dict)
    processor_seconds: dict = field(default_factory=dict)
    reasons: dict = field(default_factory=dict)

    def subsets(self):
        """Parts of the sources that are worth a look: masks by name."""
        snr = self.snr
        parts = {
            "all": np.ones(len(snr), bool),
            "SNR < 30": snr < 30,
            "SNR 30 to 100": (snr >= 30) & (snr < 100),
            "SNR > 100": snr >= 100,
            "blended (b_tot > 0.05)": self.b_tot > 0.05,
        }
        # Who fails on what is hard looks good on the rest. Who fails on most would leave none to compare.
        told = [np.isfinite(rows[:, 4]) for rows in self.rows.values()]
        working = [finite for finite in told if finite.mean() >= 0.5]
        common = np.all(working, axis=0) if working else parts["all"]
        return parts if common.all() else parts | {"flux measured by all": common}

    def table(self):
        """Summary of each subset and deblender.

        Returns
        -------
        table : `astropy.table.Table`
            subset, method, n, those of `COLUMNS`, no_model (sources that the deblender gave none), failed
            (sources whose noiseless image has a shape, and their model none, or that have no model),
            seconds_per_source (by the clock), galaxies_per_core_second (by processor time), and reason, the
            commonest, why sources have no model.
        """
        lines = [
            {"subset": subset, "method": name, **self._line(name, chosen)}
            for subset, chosen in self.subsets().items()
            for name in self.rows
        ]
        table = Table(rows=lines)
        for name, text in COLUMNS.items():
            table[name].description = text
        return table

    def _line(self, name, chosen):
        rows, reasons = self.rows[name][chosen], self.reasons[name]
        e_true, e, (mag, colour, relative, cosine) = rows[:, :2], rows[:, 2:4], rows[:, 4:].T
        has_shape = np.isfinite(e_true).all(axis=1)
        size = np.hypot(*e.T) - np.hypot(*e_true.T)
        slopes = [clipped_slope(e_true[has_shape, i], e[has_shape, i]) - 1 for i in (0, 1)]
        processor, finite = self.processor_seconds[name], relative[np.isfinite(relative)]
        return {
            "n": len(rows),
            "mag_median": median(mag),
            "mag_half_width": half_width(mag),
            "flux_error": float(np.mean(finite)) if finite.size else np.nan,
            "colour_half_width": half_width(colour),
            "cosine": median(cosine),
            "e_median": median(size),
            "e_half_width": half_width(size),
            "component_half_width": half_width(e - e_true),
            "alpha_1": slopes[0],
            "alpha_2": slopes[1],
            "no_model": int(np.isnan(cosine).sum()),
            "failed": int((has_shape & ~np.isfinite(size)).sum()),
            "seconds_per_source": self.seconds[name] / max(self.sources, 1),
            "galaxies_per_core_second": self.sources / processor if processor > 0 else np.nan,
            "reason": reasons.most_common(1)[0][0] if reasons else "",
        }

    def text(self):
        """The table as lines of text."""
        lines = [
            f"{'':<40}{'n':>5}  {'r median, width':>16} {'|dr/r|':>7} {'g-r':>6} {'cosine':>7}  "
            f"{'|e| median, width':>17} {'e1, e2':>6}  {'alpha_1, alpha_2':>16} {'failed':>6} {'no model':>8}"
        ]
        table = self.table()
        for row in table:
            label = row["method"] + ("" if row["subset"] == "all" else f", {row['subset']}")
            lines.append(
                f"{label:<40}{row['n']:>5}  {row['mag_median']:>+8.3f} {row['mag_half_width']:>7.3f} "
                f"{row['flux_error']:>7.4f} {row['colour_half_width']:>6.3f} {row['cosine']:>7.4f}  "
                f"{row['e_median']:>+9.3f} {row['e_half_width']:>7.3f} {row['component_half_width']:>6.3f}  "
                f"{row['alpha_1']:>+8.3f} {row['alpha_2']:>+7.3f} {row['failed']:>6} {row['no_model']:>8}"
            )
        for row in table[table["subset"] == "all"]:
            lines.append(
                f"{row['method']}: {1e3 * row['seconds_per_source']:.1f} ms a source, "
                f"{row['galaxies_per_core_second']:.1f} galaxies/s/core"
            )
            for reason, number in self.reasons[row["method"]].most_common():
                lines.append(f"    {number} without a model: {reason}")
        return "\n".join(lines)


def compare(cases, peers, *, warm=True, progress=None):
    """Run some deblenders on some scenes, and measure what they made of the judged sources.

    Parameters
    ----------
    cases : sequence of `Case`
        Scenes of the same bands, g and r among them.
    peers : sequence of `~.peers.Peer`
        Deblenders; of one's name there is one.
    warm : `bool`, optional
        Let each deblender first see a part of the first scene, untimed: what a process does but once, such as
        imports and compilation for all scenes, is no cost of a source.
    progress : callable, optional
        Called as ``progress(done, number)`` after each scene of each deblender.

    Returns
    -------
    comparison : `Comparison`
        Whatever went wrong in a deblender is told in it.

    Raises
    ------
    VaeError
        Raised if there is no scene, a band is missing, or two deblenders share a name.
    """
    cases, peers = list(cases), list(peers)
    names = [peer.name for peer in peers]
    if not cases or not names or len(set(names)) < len(names):
        raise VaeError(
            f"{len(cases)} scenes and deblenders {', '.join(names) or 'none'}: expected one scene at least, "
            "and deblenders of different names"
        )
    bands = tuple(cases[0].blend.bands)
    if missing := {"g", "r"} - set(bands):
        raise VaeError(
            f"the scenes have bands {', '.join(bands)}: {', '.join(sorted(missing))} is needed too"
        )
    result = Comparison(
        rows={},
        snr=np.concatenate([case.snr for case in cases]),
        b_tot=np.concatenate([case.b_tot for case in cases]),
        sources=sum(len(case.blend.centres) for case in cases),
    )
    for number, peer in enumerate(peers):
        if warm:
            run_peer(peer, _part(cases[0].blend))
        rows, reasons, seconds, processor = [], Counter(), 0.0, 0.0
        for done, case in enumerate(cases, 1):
            made = run_peer(peer, case.blend)
            seconds, processor = seconds + made.seconds, processor + made.processor_seconds
            psf = case.blend.psfs[bands.index("r")]
            for k, target in zip(case.judged, case.targets):
                rows.append(_measured(made.models[k], target, psf, bands))
            if failed := int(made.failed[case.judged].sum()):
                reasons[made.reason] += failed
            if progress is not None:
                progress(number * len(cases) + done, len(peers) * len(cases))
        result.rows[peer.name] = np.array(rows, float).reshape(-1, 8)
        result.seconds[peer.name], result.processor_seconds[peer.name] = seconds, processor
        result.reasons[peer.name] = reasons
    return result


def stamp_cases(galaxies, bands, n_scenes, *, survey="arcelin2020", seed=1, split="test"):
    """Stamps as Arcelin et al. 2020 have them: one to four galaxies, the central one judged.

    Noise is Poisson, the variance that deblenders are told that of the sky.

    Parameters
    ----------
    galaxies : `~..galaxies.GalaxyCatalog`
        Of ``split`` alone.
    bands : sequence of `str`
        Bands, of one pixel scale.
    n_scenes : `int`
        How many.
    survey : `str`, optional
        Its name.
    seed : `int`, optional
        Of the scenes.
    split : `str`, optional
        Of the galaxies.

    Returns
    -------
    cases : `list` [`Case`]
    """
    settings = SceneSettings(
        placement="annulus", min_galaxies=1, max_galaxies=4, inner_radius=0.325, outer_radius=2.0,
        mag_limit=27.5, centring="none", colour_gradients=False,
    )  # fmt: skip
    sample = simulate_stamps(
        galaxies, get_survey(survey, tuple(bands)), settings, n_scenes, seed=seed, split=split
    )
    snr, b_tot = (np.asarray(sample.truth[name], float) for name in ("snr", "b_tot"))
    return [
        Case(stamp_blend(batch, k), np.zeros(1, np.int64), batch.target[k : k + 1], snr[[i]], b_tot[[i]])
        for batch in scene_batches(sample, tuple(bands), sample.n_scenes)
        for k, i in enumerate(batch.scenes)
    ]


def field_case(galaxies, bands, side, *, survey="lsst10yr", seed=1, split="test"):
    """A field: galaxies of SNR above 5 are known, those above 10 and 40 pixels from the edge judged.

    Parameters
    ----------
    galaxies, bands, survey, seed, split
        As `stamp_cases`.
    side : `int`
        Side of the field [pixel].

    Returns
    -------
    case : `Case`
    """
    made = simulate_field(
        galaxies, get_survey(survey, tuple(bands)), FieldSettings(size=side), seed=seed, split=split
    )
    known = np.flatnonzero((made.truth["snr_r"] > _DEBLENDED) & made.truth["in_field"])
    truth = made.truth[known]
    centres = np.column_stack([truth["y"], truth["x"]]).astype(float)
    inner = ((centres > _EDGE) & (centres < side - _EDGE)).all(axis=1)
    judged = np.flatnonzero(inner & (truth["snr_r"] > _JUDGED))
    blend = Blend(
        made.images, made.variance, made.psfs, centres, tuple(bands), float(made.survey.bands[0].pixel_scale)
    )
    targets = [
        made.isolated(int(known[k]), blend.size, tuple(int(v) for v in blend.origins[k]))[0] for k in judged
    ]
    targets = np.array(targets, np.float32).reshape(-1, *blend.model_shape[1:])
    noise = made.images - made.noiseless()
    isolated = np.full(blend.model_shape, np.nan, np.float32)
    for k, target in zip(judged, targets):
        isolated[k] = target + blend.stamp_of(noise, k)
    object.__setattr__(blend, "isolated", isolated)
    return Case(
        blend, judged, targets, *(np.asarray(truth[name], float)[judged] for name in ("snr_r", "b_tot"))
    )


def _part(blend):
    """A corner of a scene with the sources in it, the first ones at least."""
    if max(blend.images.shape[1:]) <= _WARM or not len(blend.centres):
        return blend
    first = np.clip(blend.centres[0].astype(int) - _WARM // 2, 0, np.array(blend.images.shape[1:]) - _WARM)
    cut = (slice(None), *(slice(int(v), int(v) + _WARM) for v in first))
    centres = blend.centres - first
    inside = ((centres >= 0) & (centres < _WARM)).all(axis=1)
    return Blend(
        blend.images[cut], blend.variance[cut], blend.psfs, centres[inside], blend.bands, blend.pixel_scale
    )


def _measured(model, target, psf, bands):
    """True and found e1, e2; errors of r and of g - r; |dr/r|; cosine in r."""
    r, g = bands.index("r"), bands.index("g")
    flux, truth = model.sum(axis=(1, 2), dtype=float), target.sum(axis=(1, 2), dtype=float)
    with np.errstate(all="ignore"):
        error = -2.5 * np.log10(flux / truth)
        colour = error[g] - error[r]
    a, b = model[r].ravel().astype(float), target[r].ravel().astype(float)
    shape = ksb_shear(model[r], psf)[:2] if np.isfinite(model[r]).all() else (np.nan, np.nan)
    return (
        *ksb_shear(target[r], psf)[:2],
        *shape,
        error[r],
        colour,
        abs(flux[r] / truth[r] - 1),
        a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-30),
    )
