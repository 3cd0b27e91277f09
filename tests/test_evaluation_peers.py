# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deblenders behind one interface: known truths, and failures that are told."""

import sys
import time
from collections import Counter
from dataclasses import replace

import galsim
import numpy as np
import pytest

pytest.importorskip("keras")

from lsst.meas.extensions.vae.deblending import DeblendSettings, deblend_blend  # noqa: E402
from lsst.meas.extensions.vae.errors import ImageError, ShardError, VaeError  # noqa: E402
from lsst.meas.extensions.vae.evaluation import stamps  # noqa: E402
from lsst.meas.extensions.vae.evaluation.comparison import (  # noqa: E402
    COLUMNS,
    Case,
    compare,
    field_case,
    stamp_cases,
)
from lsst.meas.extensions.vae.evaluation.peers import (  # noqa: E402
    PEERS,
    Blend,
    Peer,
    make_peer,
    matched,
    moved,
    peer_method,
    run_peer,
    stamp_blend,
)
from lsst.meas.extensions.vae.evaluation.peers_others import OTHERS, Scarlet2Peer  # noqa: E402
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies  # noqa: E402
from lsst.meas.extensions.vae.network.model import Network  # noqa: E402
from lsst.meas.extensions.vae.network.shipped import load_package  # noqa: E402
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps  # noqa: E402
from lsst.meas.extensions.vae.survey import get_survey  # noqa: E402

SCALE = 0.2
BANDS = ("g", "r", "i")
FLUXES = np.array([[900.0, 2000.0, 2600.0], [2200.0, 1500.0, 700.0]])
SIX = ("u", "g", "r", "i", "z", "y")


def draw(profile, x, y, shape):
    image = galsim.ImageD(shape[1], shape[0], scale=SCALE, xmin=0, ymin=0)
    profile.drawImage(image, center=galsim.PositionD(x, y))
    return image.array


def scene(centres=((32.0, 20.0), (30.0, 47.0)), noise=0.3, shape=(64, 68), size=32, seed=1):
    """Two round Gaussian galaxies, far apart, and what each is alone."""
    psf = galsim.Gaussian(fwhm=0.7)
    galaxies = [galsim.Convolve(psf, galsim.Gaussian(fwhm=fwhm)) for fwhm in (0.4, 0.6)]
    alone = [
        fluxes[:, None, None] * draw(galaxy, x, y, shape)
        for galaxy, fluxes, (y, x) in zip(galaxies, FLUXES, centres)
    ]
    noisy = sum(alone) + np.random.default_rng(seed).normal(0, noise, alone[0].shape)
    psfs = np.repeat(draw(psf, 12, 12, (25, 25))[None], len(BANDS), axis=0)
    variance = np.full(noisy.shape, noise**2)
    return Blend(noisy, variance, psfs / psfs[0].sum(), centres, BANDS, SCALE, size), alone


@pytest.fixture(scope="module")
def network():
    return Network(load_package("lsst-ugrizy-morphology"))


@pytest.fixture(scope="module")
def batch():
    survey, galaxies = get_survey("arcelin2020", SIX), synthetic_galaxies(500, seed=1)
    settings = SceneSettings(min_galaxies=2, max_galaxies=3)
    sample = simulate_stamps(galaxies, survey, settings, 3, seed=2, split="test")
    return next(stamps.scene_batches(sample, SIX, 3))


class Raising(Peer):
    name = "raising"

    def models(self, blend):
        raise RuntimeError("no convergence after 7 steps\nand a long tale")


class Scaled(Peer):
    """The truth of the first source, times a factor; NaN for all others."""

    def __init__(self, name, factor, targets):
        self.name, self.factor, self.targets = name, factor, iter(targets)

    def models(self, blend):
        models = np.full(blend.model_shape, np.nan)
        models[0] = self.factor * next(self.targets)
        return models


# -- what deblenders are told -----------------------------------------------------------------


def test_a_scene_of_a_sample_has_the_true_centres_the_targets_first(batch):
    for k in range(3):
        blend = stamp_blend(batch, k)
        assert len(blend.centres) == batch.sample.truth["n_galaxies"][k] >= 2
        # The target is the galaxy of the stamp's centre.
        assert np.abs(blend.centres[0] - 31.5).max() <= 0.51
        assert (blend.origins[0] == 0).all()
        np.testing.assert_array_equal(blend.images, batch.noisy[k])
        np.testing.assert_allclose(blend.variance[:, 0, 0], batch.noise() ** 2)
        np.testing.assert_allclose(blend.psfs.sum(axis=(1, 2)), 1, atol=0.02)


@pytest.mark.parametrize(
    "change, text",
    [
        ({"bands": ("g", "r")}, "bands: 2 do not fit 3 images"),
        ({"psfs": np.ones((3, 24, 25))}, r"sides of the PSFs: \(24, 25\)"),
        ({"psfs": np.ones((2, 25, 25))}, "PSF images"),
        ({"variance": np.ones((3, 4, 4))}, r"variances \(3, 4, 4\)"),
        ({"origins": np.zeros((3, 2))}, "origins: 3"),
        ({"isolated": np.zeros((2, 3, 5, 5))}, "isolated stamps"),
    ],
)
def test_a_scene_that_does_not_fit_together_is_refused(change, text):
    with pytest.raises(ImageError, match=text):
        replace(scene()[0], **change)


def test_unknown_names_and_ours_without_a_network_are_refused():
    with pytest.raises(VaeError, match="'galaxia': expected one of one_pass, refined"):
        make_peer("galaxia")
    with pytest.raises(VaeError, match="'refined' needs a network"):
        make_peer("refined")


def test_bands_of_several_pixel_scales_are_refused():
    survey = get_survey("arcelin2020", ("r", "VIS"))
    sample = simulate_stamps(
        synthetic_galaxies(300, seed=1), survey, SceneSettings(), 1, seed=1, split="test"
    )
    with pytest.raises(ShardError, match="0.1, 0.2 arcsec"):
        stamp_blend(next(stamps.scene_batches(sample, ("r", "VIS"), 1)), 0)


def test_images_move_by_whole_pixels_and_what_they_lack_is_0():
    image = np.arange(12.0).reshape(1, 3, 4)
    stamp = moved(image, (5, 5), (6, 3), 4)
    np.testing.assert_array_equal(stamp[0], [[0, 0, 4, 5], [0, 0, 8, 9], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_sources_are_matched_one_to_one_within_the_radius():
    blend, _ = scene(((10.0, 10.0), (10.0, 13.0)))
    # 0.8 arcsec are 4 pixels. The nearest of the first source is all that the second can have.
    assert list(matched([(10.0, 11.6), (10.0, 7.0), (40.0, 40.0)], blend)) == [1, 0]
    assert list(matched([(10.0, 14.5)], blend)) == [-1, 0]
    assert list(matched(np.zeros((0, 2)), blend)) == [-1, -1]


# -- floor, ceiling and ours ------------------------------------------------------------------


def test_none_returns_the_image_and_perfect_the_noisy_isolated_target(batch):
    images = {}
    for name in ("none", "perfect"):
        images[name] = peer_method(make_peer(name))(batch)
    np.testing.assert_array_equal(images["none"], batch.noisy)
    np.testing.assert_array_equal(images["perfect"], batch.lone)


def test_perfect_tells_that_it_does_not_know_the_neighbours(batch):
    result = run_peer(make_peer("perfect"), stamp_blend(batch, 0))
    assert not result.failed[0] and result.failed[1:].all()
    assert result.reason == "the scene does not tell what the source is alone"
    blend, _ = scene()
    assert run_peer(make_peer("perfect"), blend).failed.all()


@pytest.mark.parametrize("name", ["one_pass", "refined"])
def test_ours_are_what_deblend_blend_gives(batch, network, name):
    blend = stamp_blend(batch, 1)
    result = run_peer(make_peer(name, network), blend)
    settings = DeblendSettings(refine=name == "refined")
    direct = deblend_blend(blend.images, blend.variance, blend.centres, network, settings=settings)
    np.testing.assert_allclose(result.fluxes, direct.fluxes, rtol=0.02)
    np.testing.assert_allclose(result.models[0], direct.models[0], rtol=1e-5, atol=1e-3)
    assert not result.failed.any() and result.reason == ""
    assert result.seconds > 0 and result.processor_seconds > 0


def test_the_iterative_one_finds_bright_galaxies_by_itself(network):
    case = stamp_cases(synthetic_galaxies(2000, seed=1), SIX, 12, seed=4)
    case = case[int(np.argmax([c.snr[0] for c in case]))]
    result = run_peer(make_peer("iterative", network), case.blend)
    assert not result.failed[0]
    np.testing.assert_allclose(result.fluxes[0, 2], case.targets[0, 2].sum(), rtol=0.1)
    # Nothing is there that could be found.
    empty = replace(case.blend, images=np.zeros_like(case.blend.images))
    result = run_peer(make_peer("iterative", network), empty)
    assert result.failed.all() and "no source was detected within 0.8 arcsec" in result.reason


def test_a_network_of_other_bands_is_a_reason(network):
    result = run_peer(make_peer("one_pass", network), scene()[0])
    assert result.failed.all()
    assert "takes bands u, g, r, i, z, y, the scene has g, r, i" in result.reason


# -- others' ----------------------------------------------------------------------------------


def test_sep_splits_two_galaxies_that_are_far_apart():
    pytest.importorskip("sep")
    blend, alone = scene()
    result = run_peer(make_peer("sep"), blend)
    assert result.reason == ""
    # A Kron aperture holds 94 % of a galaxy's light at least.
    ratio = result.fluxes / FLUXES
    assert (ratio > 0.93).all() and (ratio < 1.02).all()
    # Each pixel of the aperture is one source's alone.
    middle = blend.stamp_of(blend.images, 0)[:, 14:18, 14:18]
    np.testing.assert_allclose(result.models[0][:, 14:18, 14:18], middle, rtol=1e-4)


def test_sep_shares_the_pixels_of_two_that_touch_and_makes_no_light():
    pytest.importorskip("sep")
    blend, alone = scene(((32.0, 28.0), (32.0, 36.0)), size=64)
    result = run_peer(make_peer("sep"), blend)
    assert result.reason == ""
    np.testing.assert_allclose(result.fluxes, FLUXES, rtol=0.2)
    total = sum(moved(m, o, (0, 0), 64) for m, o in zip(result.models, blend.origins))
    image = blend.images[:, :, :64]
    shared = (total != 0).all(axis=0)
    np.testing.assert_allclose(total[:, shared], image[:, shared], rtol=1e-3, atol=1e-3)


def test_sep_leaves_what_it_does_not_detect_without_a_model():
    pytest.importorskip("sep")
    blend, _ = scene()
    blend = replace(blend, centres=[*blend.centres, (6.0, 6.0)], origins=None)
    result = run_peer(make_peer("sep"), blend)
    assert list(result.failed) == [False, False, True]
    assert result.reason == "no source was detected within 0.8 arcsec"


def test_scarlet2_recovers_the_fluxes_of_two_galaxies_that_are_far_apart():
    pytest.importorskip("scarlet2")
    # Keras on TensorFlow is at work in the same process.
    assert "keras" in sys.modules
    blend, alone = scene()
    blend = replace(blend, centres=[*blend.centres, (200.0, 6.0)], origins=None)
    result = run_peer(Scarlet2Peer(max_iter=60), blend)
    assert list(result.failed) == [False, False, True], result.reason
    np.testing.assert_allclose(result.fluxes[:2], FLUXES, rtol=0.1)
    for k in (0, 1):
        truth = blend.stamp_of(alone[k], k)
        cosine = (result.models[k] * truth).sum() / np.sqrt((result.models[k] ** 2).sum() * (truth**2).sum())
        assert cosine > 0.99


def test_scarlet2_clears_what_was_compiled_after_many_sources(monkeypatch):
    jax = pytest.importorskip("jax")
    peer, cleared = Scarlet2Peer(), []
    monkeypatch.setattr(jax, "clear_caches", lambda: cleared.append(peer._compiled))
    # The process would die of its memory maps.
    for sources in (40, 60, 1, 300, 2):
        peer._make_room(sources)
    assert cleared == [100, 1, 300]


@pytest.mark.parametrize("name", ["scarlet2", "scarlet", "scarlet_lite", "sep"])
def test_who_is_not_installed_is_a_reason(monkeypatch, name):
    module = {"scarlet_lite": "lsst.scarlet.lite"}.get(name, name)
    monkeypatch.setitem(sys.modules, module, None)
    result = run_peer(make_peer(name), scene()[0])
    assert result.failed.all() and np.isnan(result.models).all() and np.isnan(result.fluxes).all()
    assert result.reason.startswith(("cannot be imported: ModuleNotFoundError", "cannot be imported: Import"))
    assert module in result.reason


def test_a_package_of_scarlets_name_is_not_taken_for_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "scarlet", type(sys)("scarlet"))
    result = run_peer(make_peer("scarlet"), scene()[0])
    assert result.reason == "cannot be imported: ImportError: the scarlet that is installed is no deblender"


def test_whoever_raises_or_gives_nonsense_is_a_reason():
    class Wrong(Peer):
        def models(self, blend):
            return np.zeros((1, 2))

    blend, _ = scene()
    result = run_peer(Raising(), blend)
    assert result.failed.all() and result.reason == "RuntimeError: no convergence after 7 steps"
    result = run_peer(Wrong(), blend)
    assert result.failed.all()
    assert result.reason == "gave models (1, 2): expected (2, 3, 32, 32)"


def test_every_name_makes_a_peer_of_that_name(network):
    assert set(OTHERS) < set(PEERS)
    assert [make_peer(name, network).name for name in PEERS] == list(PEERS)


# -- comparison -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cases():
    return stamp_cases(synthetic_galaxies(2000, seed=1), ("g", "r"), 24, seed=3)


def test_a_comparison_measures_errors_that_are_known(cases):
    targets = [case.targets[0] for case in cases]
    peers = [Scaled("exact", 1.0, targets), Scaled("bright", 1.1, targets), Raising()]
    comparison = compare(cases, peers, warm=False)
    table = comparison.table()
    exact, bright, raising = table[table["subset"] == "all"]
    assert exact["n"] == 24 and exact["no_model"] == exact["failed"] == 0
    np.testing.assert_allclose([exact["cosine"], bright["cosine"]], 1)
    for row, factor in ((exact, 1.0), (bright, 1.1)):
        np.testing.assert_allclose(row["mag_median"], -2.5 * np.log10(factor), atol=1e-5)
        np.testing.assert_allclose(row["flux_error"], factor - 1, atol=1e-5)
        for name in ("mag_half_width", "colour_half_width", "e_median", "component_half_width", "alpha_1"):
            np.testing.assert_allclose(row[name], 0, atol=1e-4)
    assert raising["no_model"] == 24
    assert raising["reason"] == "RuntimeError: no convergence after 7 steps"
    assert all(np.isnan(raising[name]) for name in COLUMNS)
    assert comparison.reasons["raising"] == Counter({raising["reason"]: 24})
    assert "24 without a model: RuntimeError: no convergence" in comparison.text()


def test_who_fails_on_some_is_compared_on_the_others_too(cases):
    targets = [case.targets[0] for case in cases]
    half = [t if k % 4 else np.full_like(t, np.nan) for k, t in enumerate(targets)]
    comparison = compare(
        cases, [Scaled("exact", 1.0, targets), Scaled("some", 1.0, half), Raising()], warm=False
    )
    table = comparison.table()
    common = table[table["subset"] == "flux measured by all"]
    # Who has nothing to compare takes nothing away.
    assert list(common["n"]) == [18, 18, 18] and list(common["no_model"]) == [0, 0, 18]


def test_costs_are_those_of_all_sources(cases):
    class Slow(Peer):
        name = "slow"

        def models(self, blend):
            until = time.process_time() + 0.01
            while time.process_time() < until:
                pass
            return np.zeros(blend.model_shape)

    comparison = compare(cases, [Slow()])
    n = sum(len(case.blend.centres) for case in cases)
    (row,) = comparison.table()[:1]
    assert comparison.sources == n > 24
    # The first look is not counted.
    assert 0.24 <= comparison.processor_seconds["slow"] < 0.5
    np.testing.assert_allclose(row["galaxies_per_core_second"], n / comparison.processor_seconds["slow"])
    np.testing.assert_allclose(row["seconds_per_source"], comparison.seconds["slow"] / n)


def test_fields_are_compared_too():
    case = field_case(synthetic_galaxies(2000, seed=1), ("g", "r"), 256, seed=5)
    assert isinstance(case, Case) and len(case.judged) > 2
    comparison = compare([case], [make_peer("perfect"), make_peer("none")])
    table = comparison.table()
    perfect, none = table[table["subset"] == "all"]
    assert perfect["n"] == len(case.judged) and perfect["no_model"] == none["no_model"] == 0
    assert perfect["mag_half_width"] < none["mag_half_width"] and none["mag_median"] < -0.1
    # Truth and noise are all that a field is made of.
    blend, k = case.blend, case.judged[0]
    residual = blend.isolated[k] - case.targets[0]
    assert 0.9 < np.std(residual / np.sqrt(np.median(blend.variance, axis=(1, 2)))[:, None, None]) < 1.2


def test_nothing_to_compare_is_refused(cases):
    with pytest.raises(VaeError, match="0 scenes"):
        compare([], [Raising()])
    with pytest.raises(VaeError, match="different names"):
        compare(cases[:1], [Raising(), Raising()])
    lacking = replace(cases[0], blend=replace(cases[0].blend, bands=("g", "i")))
    with pytest.raises(VaeError, match="r is needed too"):
        compare([lacking], [Raising()])


def test_peers_are_methods_of_the_table_of_errors(batch):
    reasons = {name: Counter() for name in ("none", "raising")}
    methods = {"none": peer_method(make_peer("none"), reasons["none"])}
    methods["raising"] = peer_method(Raising(), reasons["raising"])
    errors = stamps.measure_stamps([batch.sample], methods)
    failed = errors[errors["method"] == "raising"]
    assert failed["shape_flag"].all() and failed["mag_r_flag"].all() and np.isnan(failed["e_error"]).all()
    assert reasons == {
        "none": Counter(),
        "raising": Counter({"RuntimeError: no convergence after 7 steps": 3}),
    }
    total = int(np.sum(batch.sample.truth["n_galaxies"]))
    assert errors.meta["sources"]["blended"] == {"none": total, "raising": total}


def test_the_task_knows_the_names_and_takes_peers_beside_the_network(tmp_path):
    pytest.importorskip("lsst.pipe.base")
    from lsst.meas.extensions.vae import EvaluateDeblendersConfig, EvaluateDeblendersTask

    others = [name for name in PEERS if name not in ("none", "perfect")]
    assert list(EvaluateDeblendersConfig(peers=others).peers) == others
    for wrong in ({"peers": ["sep", "sep"]}, {"peers": ["sep"], "stages": ["prior"]}):
        with pytest.raises(VaeError, match="peers"):
            EvaluateDeblendersConfig(**wrong).validate()
    with pytest.raises(VaeError, match="peers"):
        EvaluateDeblendersConfig(peers=["galaxia"])
    package = load_package("lsst-ugrizy-morphology")
    survey, galaxies = get_survey("arcelin2020", SIX), synthetic_galaxies(500, seed=1)
    sample = simulate_stamps(
        galaxies, survey, SceneSettings(min_galaxies=2, max_galaxies=3), 6, seed=3, split="test"
    )
    config = EvaluateDeblendersConfig(
        stages=["deblender"], peers=["refined", "sep", "scarlet"], bootstrap=0, baselines=True
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "scarlet", None)
        struct = EvaluateDeblendersTask(config=config).run(package, blendStamps={0: sample})
    errors, summary = struct.stampErrors, struct.stampSummary
    overall = summary[summary["by"] == "all"]
    assert list(overall["method"]) == ["deblender", "refined", "sep", "scarlet", "none", "isolated"]
    assert np.isnan(errors["mag_r_error"][errors["method"] == "scarlet"]).all()
    refined = errors[errors["method"] == "refined"]
    assert np.isfinite(refined["mag_r_error"]).all() and not refined["shape_flag"].all()
    told = errors.meta["without_model"]
    assert told["refined"] == {} and sum(told["scarlet"].values()) == 6
    assert next(iter(told["scarlet"])).startswith("cannot be imported")
