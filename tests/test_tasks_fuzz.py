# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random damage to what DeblendVaeTask is given: no crash, no NaN that no flag tells of, no harm to others.

A few seconds of it run with the suite; ``VAE_FUZZ_SECONDS=60`` gives it a minute, and
``VAE_FUZZ_SEED=n`` repeats the round of that number alone.
"""

import logging
import os
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

pytest.importorskip("lsst.pipe.base")
pytest.importorskip("keras")

from lsst.pipe.base import NoWorkFound  # noqa: E402
from test_deblending_bad_input import (  # noqa: E402
    BANDS,
    GOOD,
    NOISE,
    SMALL,
    X0,
    Y0,
    RawPsf,
    as_inputs,
    box_about,
    make_task,
    small_network,
)

from lsst.meas.extensions.vae.afw import AnalyticPsf, Box2I, Extent2I, Mask, Point2I, SpanSet  # noqa: E402
from lsst.meas.extensions.vae.deblending.stamps import check_cube  # noqa: E402
from lsst.meas.extensions.vae.deblendVaeTask import DeblendVaeConfig  # noqa: E402

SHAPE = (120, 420)
# Stamps of the sources right of FAR see nothing right of REACH, left of which is all damage.
REACH, FAR = 250, 290
PARENTS = (
    ((40.2, 50.6), (47.0, 55.1), (36.4, 60.0)),
    ((84.0, 120.3),),
    ((30.5, 320.2), (39.1, 325.7)),
    ((88.3, 352.4),),
    ((20.4, 400.1), (29.0, 411.6)),
)


@pytest.fixture(scope="module")
def networks():
    return {name: small_network(name) for name in SMALL}


@dataclass
class Case:
    """What is damaged: pixels, PSFs, parents [(spans, peaks [y, x])]; and the settings."""

    image: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    psfs: list
    parents: list
    scale: float
    bands: tuple = BANDS
    settings: dict = field(default_factory=dict)
    done: list = field(default_factory=list)


def clean_case(fwhm=0.7, scale=0.2):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *SHAPE)) * np.reshape(NOISE, (2, 1, 1))
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for y0, x0 in sum(PARENTS, ()):
        blob = np.exp(-((y - y0) ** 2 + (x - x0) ** 2) / 18)
        image += rng.uniform(20, 200) * blob * np.array([1.0, 1.5])[:, None, None]
    variance = np.broadcast_to(np.reshape(NOISE, (2, 1, 1)) ** 2, image.shape)
    return Case(
        image.astype("f4"),
        variance.astype("f4"),
        np.zeros(image.shape, np.int32),
        [AnalyticPsf("gaussian", fwhm, scale) for _ in BANDS],
        [(box_about(peaks), list(peaks)) for peaks in PARENTS],
        scale,
    )


# FWHM [arcsec] of a PSF so sharp that exposures are homogenised, by transforms that spread bits of damage.
SHARP = 0.35


# -- damage ----------------------------------------------------------------------------------


def odd_number(rng, *more):
    """Most often one that is none."""
    others = (0.0, 1e30, -1e30, 3e38, 1e10, -1e4, 1e-30, 1e-45, *more)
    return rng.choice((np.nan, np.inf, -np.inf) if rng.random() < 0.5 else others)


def somewhere(case, rng):
    """A band or all of them, and a box from one pixel to all, about a source or not, left of REACH."""
    peaks = sum(PARENTS[:2], ())
    place = peaks[rng.integers(len(peaks))] if rng.random() < 0.7 else rng.uniform(0, [SHAPE[0], REACH])
    sides = rng.choice([1, 3, 20, 64, 500], 2)
    top, left = (max(int(middle - side / 2), 0) for middle, side in zip(place, sides, strict=True))
    band = int(rng.integers(len(case.bands)))
    bands = slice(band, band + 1) if rng.random() < 0.5 else slice(None)
    return bands, slice(top, top + sides[0]), slice(left, min(left + sides[1], REACH))


def put(array, where, value):
    with np.errstate(all="ignore"):
        array[where] = np.asarray(value).astype(array.dtype)


def odd_pixels(case, rng):
    put(case.image, somewhere(case, rng), odd_number(rng))


def odd_variance(case, rng):
    put(case.variance, somewhere(case, rng), odd_number(rng, -1.0))


def scattered(case, rng):
    part = (case.image, case.variance)[rng.integers(2)][:, :, :REACH]
    put(part, rng.random(part.shape) < 0.1, odd_number(rng))


def masked(case, rng):
    planes = rng.choice(["BAD", "SAT", "NO_DATA", "EDGE", "SUSPECT", "CR", "DETECTED"], 2)
    case.mask[somewhere(case, rng)] |= Mask.getPlaneBitMask(list(planes))


def saturated(case, rng):
    y0, x0 = rng.uniform(0, [SHAPE[0], REACH - 60])
    y, x = np.mgrid[: case.image.shape[1], : case.image.shape[2]]
    star = rng.choice([1e4, 1e6, 1e9]) * (1 + ((y - y0) ** 2 + (x - x0) ** 2) / 9) ** -2.5 * (x < REACH)
    put(case.image, slice(None), case.image + star)
    put(case.variance, slice(None), case.variance + star)
    case.image[:, star > 3e3] = 3e3
    if rng.random() < 0.8:
        case.mask[:, star > 3e3] |= Mask.getPlaneBitMask("SAT")
    case.parents[1] = (box_about([(y0, x0)]), [(y0, x0)])


def odd_peaks(case, rng):
    number = rng.integers(2)
    spans, peaks = case.parents[number]
    ny, nx = case.image.shape[1:]
    places = [
        (-0.5, 30.0), (-0.51, 30.0), (0.0, 0.0), (ny - 0.5, 20.0), (ny - 0.51, 20.0), (-200.0, 40.0),
        (40.0, -33.0), (1e6, 1e6), (-1e9, 3.0), (3.0, 1e30),
        (np.nan, 50.0), (50.0, np.nan), (np.nan, np.nan), (np.inf, 20.0), (20.0, -np.inf),
    ]  # fmt: skip
    new = [places[k] for k in rng.integers(len(places), size=rng.integers(1, 4))]
    case.parents[number] = (spans, new + (peaks if rng.random() < 0.5 else []))


def duplicate_peaks(case, rng):
    spans, peaks = case.parents[number := rng.integers(2)]
    if peaks:
        copies = np.repeat([peaks[0]], rng.integers(1, 12), axis=0) + rng.choice([0.0, 1e-6, 0.3])
        case.parents[number] = (spans, [*peaks, *map(tuple, copies)])


def shared_peak(case, rng):
    case.parents[0] = (case.parents[0][0], [*case.parents[0][1], *case.parents[1][1]])


def odd_footprint(case, rng):
    peaks = case.parents[number := rng.integers(2)][1]
    boxes = [((-500, -500), (20, 20)), ((-100, -100), (300, 1000)), ((50, 40), (1, 1)), ((-5, -5), (10, 10))]
    spans = [SpanSet(Box2I(Point2I(X0 + x, Y0 + y), Extent2I(*size))) for (x, y), size in boxes]
    case.parents[number] = ([SpanSet(), None, *spans][rng.integers(6)], peaks)


def no_peaks(case, rng):
    number = rng.integers(2)
    case.parents[number] = (case.parents[number][0], [])


def no_parent(case, rng):
    case.parents[1] = (None, [])


def huge_footprint(case, rng):
    spans = SpanSet(Box2I(Point2I(X0 - 900, Y0 - 900), Extent2I(3000, 2000)))
    case.parents[0] = (spans, case.parents[0][1])


def odd_psf(case, rng):
    ring = np.zeros((5, 5))
    ring[0, 0] = ring[4, 4] = 1.0
    holed = np.where(np.arange(GOOD.size).reshape(GOOD.shape) == 90, np.nan, GOOD)
    kernels = [
        0 * GOOD, np.nan * GOOD, holed, np.inf * GOOD, -GOOD, 7.5 * GOOD, 1e-40 * GOOD, 1e40 * GOOD, ring,
        GOOD + 0.02 * rng.normal(size=GOOD.shape), GOOD[:40, :40], GOOD[1:, :], GOOD[15:26, 15:26],
        GOOD[:, 20:21], GOOD - GOOD.mean(), np.ones((1, 1)), np.ones((2, 2)), np.ones((201, 201)),
    ]  # fmt: skip
    psf = None if rng.random() < 0.1 else RawPsf(kernels[rng.integers(len(kernels))])
    case.psfs[rng.integers(len(case.psfs))] = psf


def missing_band(case, rng):
    k = int(rng.integers(len(case.bands)))
    case.bands, case.psfs = case.bands[k : k + 1], case.psfs[k : k + 1]
    case.image, case.variance, case.mask = (a[k : k + 1] for a in (case.image, case.variance, case.mask))


def reversed_bands(case, rng):
    case.bands, case.psfs = case.bands[::-1], case.psfs[::-1]
    case.image, case.variance, case.mask = (a[::-1] for a in (case.image, case.variance, case.mask))


def other_memory(case, rng):
    kind = ("f8", ">f4", ">f8", "f4")[rng.integers(4)]
    with np.errstate(over="ignore"):
        case.image, case.variance = case.image.astype(kind), case.variance.astype(kind)
    if rng.random() < 0.5:
        arrays = case.image, case.variance, case.mask
        case.image, case.variance, case.mask = (np.asfortranarray(a) for a in arrays)


def whole_numbers(case, rng):
    case.image = np.nan_to_num(case.image).clip(-3e4, 3e4).astype(rng.choice(["i4", "i8", "i2"]))


def other_shape(case, rng):
    ny, nx = [(1, 1), (1, 300), (30, 40), (63, 65), (2, 2)][rng.integers(5)]
    arrays = case.image, case.variance, case.mask
    case.image, case.variance, case.mask = (np.ascontiguousarray(a[:, :ny, :nx]) for a in arrays)


# What keeps to the pixels left of REACH and their parents; and what concerns all.
LOCAL = (odd_pixels, odd_pixels, odd_variance, scattered, scattered, masked, saturated, odd_peaks,
         duplicate_peaks, shared_peak, odd_footprint, no_peaks, no_parent)  # fmt: skip
WHOLE = (huge_footprint, odd_psf, missing_band, reversed_bands, other_memory, whole_numbers, other_shape)


def draw_settings(rng):
    return {
        "refine": bool(rng.random() < 0.5),
        "jointFluxes": bool(rng.random() < 0.8),
        "priorWidth": float(rng.choice([0.0, 0.3])),
        "fluxTie": float(rng.choice([0.0, 0.05])),
        "nSamples": int(rng.choice([0, 0, 12])),
        "doConserveFlux": bool(rng.random() < 0.5),
        "batchSize": int(rng.choice([256, 3])),
        "maxRefineSteps": 2,
        "processSingles": bool(rng.random() < 0.9),
        "minCoreCoverage": float(rng.choice([0.0, 0.2, 1.0])),
        "catchFailures": bool(rng.random() < 0.5),
        "backgroundThresh": float(rng.choice([0.0, 1.0])),
    }


# -- what has to hold ---------------------------------------------------------------------------


ALWAYS = ("deblend_scarletFlux", "deblend_maxOverlap", "deblend_fluxOverlap", "deblend_fluxOverlapFraction",
          "deblend_vae_latentSigma")  # fmt: skip


def check(result, case):
    """Every row has finite values, or a flag that tells why not."""
    objects, parents, models = result.deblendedCatalog, result.objectParents, result.scarletModelData
    settings = case.settings
    assert len(parents) == len(case.parents)
    for record in objects:
        told = f"object {record.getId()}: "
        assert np.isfinite(record["deblend_dataCoverage"]), told + "coverage"
        if record["deblend_failed"]:
            assert record.getId() not in models, told + "failed, with a model"
            continue
        model = models.model(record.getId())
        for name in ("image", "latentMean", "latentSigma"):
            assert np.isfinite(getattr(model, name)).all(), told + name
        if (settings["jointFluxes"] or settings["refine"]) and not record["deblend_incompleteData"]:
            assert np.isfinite(model.fluxErrors).all(), told + "flux errors"
        for name in ALWAYS + ("deblend_vae_novelty",) * settings["refine"]:
            assert np.isfinite(record[name]), told + name
        # Of a source that needs no good pixel about its centre, none may tell.
        excused = record["deblend_zeroFlux"] or not settings["minCoreCoverage"]
        for name in ("deblend_peak_instFlux", "deblend_blendedness", "deblend_chi2"):
            # The mean of squares over absurd variances may be beyond single precision.
            assert not np.isnan(record[name]) or excused, told + name
        if record.getFootprint().isHeavy():
            assert np.isfinite(record.getFootprint().getImageArray()).all(), told + "heavy footprint"
    for record in parents:
        told = f"parent {record.getId()}: "
        assert settings["catchFailures"] or not record["deblend_failed"], told + "failed"
        if record["deblend_nComponents"] and good_pixels(record.getFootprint(), case):
            assert not np.isnan(record["deblend_chi2"]), told + "chi2"


def good_pixels(footprint, case):
    """How many pixels of a footprint tell something."""
    ny, nx = case.image.shape[1:]
    y, x = footprint.spans.clippedTo(Box2I(Point2I(X0, Y0), Extent2I(nx, ny))).indices()
    bad = (case.mask & Mask.getPlaneBitMask(list(DeblendVaeConfig().badMask))) != 0
    return int(check_cube(case.image, case.variance, bad)[2][:, y - Y0, x - X0].sum())


def far_rows(result):
    """All that far sources have, as bytes, by their place."""
    rows = {}
    for record in result.deblendedCatalog:
        place = record["deblend_peak_center_y"], record["deblend_peak_center_x"]
        if not FAR + X0 <= place[1] < SHAPE[1] + X0:
            continue
        names = record.schema.getNames() - {"id"}
        row = rows[place] = {name: np.asarray(record[name]).tobytes() for name in names}
        if record.getFootprint().isHeavy():
            row["heavy"] = record.getFootprint().getImageArray().tobytes()
        if record.getId() in result.scarletModelData:
            model = result.scarletModelData.model(record.getId())
            for name in ("image", "latentMean", "latentSigma", "fluxErrors"):
                row[name] = getattr(model, name).tobytes()
    return rows


def differences(one, other):
    """Places and names of what differs."""
    places = sorted(one.keys() | other.keys())
    rows = [(place, one.get(place, {}), other.get(place, {})) for place in places]
    return [(place, n) for place, a, b in rows for n in sorted(a.keys() | b.keys()) if a.get(n) != b.get(n)]


def run(case, network):
    parts = (case.image, case.variance, case.mask, case.parents, case.bands, case.psfs, case.scale)
    exposure, merged = as_inputs(*parts)
    return make_task(network, **case.settings).run(exposure, None, merged)


def fuzz_once(seed, networks):
    rng = np.random.default_rng(seed)
    name, local = list(SMALL)[rng.integers(2)], rng.random() < 0.6
    # A PSF that suits, one that is too sharp, one that is too wide; and other pixels.
    seeing, scale = float(rng.choice([0.7, 0.7, 0.35, 1.3])), float(rng.choice([0.2, 0.2, 0.2, 0.17]))
    case, plain = clean_case(seeing, scale), clean_case(seeing, scale)
    case.settings = plain.settings = draw_settings(rng)
    kinds = LOCAL if local else LOCAL + WHOLE
    for k in rng.integers(len(kinds), size=rng.integers(2, 9)):
        kinds[k](case, rng)
        case.done.append(kinds[k].__name__)
    told = f"seed {seed}: {name}, seeing {seeing}, pixels {scale}, {case.settings}, {case.done}"
    before = case.image.copy(), case.variance.copy()
    try:
        with np.errstate(all="ignore"):
            result = run(case, networks[name])
    except NoWorkFound:
        return
    except Exception as error:
        raise AssertionError(f"{told}\nraised {type(error).__name__}: {error}") from error
    try:
        check(result, case)
        for now, then in zip((case.image, case.variance), before, strict=True):
            np.testing.assert_array_equal(now, then, "what was given was changed")
    except AssertionError as error:
        raise AssertionError(f"{told}\n{error}") from error
    if local and seeing != SHARP:
        found = differences(far_rows(run(plain, networks[name])), far_rows(result))
        assert not found, f"{told}\nfar sources differ: {found[:8]}"


def test_random_damage_is_survived_told_and_kept_to_its_place(networks, caplog):
    caplog.set_level(logging.CRITICAL)
    seconds, seed = float(os.environ.get("VAE_FUZZ_SECONDS", 0)), os.environ.get("VAE_FUZZ_SEED")
    if seed is not None:
        fuzz_once(int(seed), networks)
        return
    # As many rounds on any machine, unless time is given.
    start, number, rounds = time.monotonic(), 0, 20
    while number < rounds or time.monotonic() - start < seconds:
        fuzz_once(number, networks)
        number += 1
