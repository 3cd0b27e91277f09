# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Composing batches: what is in them, in which order, and how much of the samples is in memory."""

import dataclasses
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy.table import Table
from scipy import stats

from lsst.meas.extensions.vae.errors import ShardError
from lsst.meas.extensions.vae.network import composer as composer_module
from lsst.meas.extensions.vae.network.composer import (
    AUGMENTATIONS,
    SceneComposer,
    mean_peak,
    remove_negative,
    turn,
)
from lsst.meas.extensions.vae.network.windows import Windows, cut_pieces, deal_windows
from lsst.meas.extensions.vae.simulation.shards import StampSample, pack_profiles, unpack_profiles
from lsst.meas.extensions.vae.survey import get_survey

BANDS = ("g", "r", "i")
SIZE = 16


def make_sample(
    n=20, seed=0, kind="blended", placement="annulus", centring="none", neighbours=2, band_profile=(0, 1, 1)
):
    """Scenes of random blobs: the target, of one or two rows, is the brightest in every band."""
    rng = np.random.default_rng(seed)
    scene, galaxy, fluxes, centres = [], [], [], []
    for i in range(n):
        count = 0 if kind == "isolated" else neighbours
        for number in range(count + 1):
            for _ in range(1 + (number == 0 and i % 3 == 0)):
                scene.append(i)
                galaxy.append(number)
                fluxes.append(rng.uniform(50, 90, 3) if number == 0 else rng.uniform(10, 40, 3))
                centres.append((SIZE - 1) / 2 + rng.uniform(-0.5, 0.5, 2) + 5 * (number > 0))
    y, x = np.mgrid[:SIZE, :SIZE]
    width = rng.uniform(1.0, 2.5, (len(scene), max(band_profile) + 1))
    centres = np.array(centres)[:, :, None, None]
    r2 = (y - centres[:, 0]) ** 2 + 2 * (x - centres[:, 1]) ** 2
    profiles = np.exp(-r2[:, None] / (2 * width[..., None, None] ** 2))
    profiles /= profiles.sum(axis=(2, 3), keepdims=True)
    return StampSample(
        survey="lsst10yr",
        bands=BANDS,
        kind=kind,
        settings={"placement": placement, "centring": centring},
        seed=seed,
        split="train",
        versions={},
        profiles=pack_profiles(profiles.astype(np.float32)),
        fluxes=np.array(fluxes, np.float32),
        scene=np.array(scene, np.int32),
        galaxy=np.array(galaxy, np.int8),
        truth=Table({"scene": np.arange(n, dtype=np.int32)}),
        band_profile=np.array(band_profile),
    )


@pytest.fixture(scope="module")
def survey():
    return get_survey("lsst10yr", BANDS)


class NoNoise:
    """Stands in for the noise model."""

    def __init__(self, *_):
        pass

    def add(self, image, rng, out):
        out[...] = image


@pytest.fixture
def no_noise(monkeypatch):
    monkeypatch.setattr(composer_module, "NoiseModel", NoNoise)


def find(clean, sample, ways=AUGMENTATIONS["eight"]):
    """Which scene, turned which way, a target is."""
    found = [
        (i, way)
        for i in range(sample.n_scenes)
        for way in ways
        if np.allclose(clean, turn(sample.image(i, "target"), way), rtol=1e-5, atol=1e-7)
    ]
    assert len(found) == 1
    return found[0]


def rest(noisy, clean, way):
    """Neighbours of a scene without noise, turned back."""
    return next(
        turn(noisy - clean, back) for back in range(8) if np.array_equal(turn(turn(MARKS, way), back), MARKS)
    )


MARKS = np.arange(SIZE * SIZE).reshape(SIZE, SIZE)


# -- what is in a batch ------------------------------------------------------------


def test_the_eight_ways_are_all_different_and_the_four_are_those_of_the_published_code():
    assert len({turn(MARKS, way).tobytes() for way in AUGMENTATIONS["eight"]}) == 8
    mirrored = MARKS[:, ::-1]
    for way, expected in zip(AUGMENTATIONS["four"], (MARKS, mirrored, MARKS.T, mirrored.T), strict=True):
        np.testing.assert_array_equal(turn(MARKS, way), expected)


@pytest.mark.parametrize("augment", ["eight", "four", "none"])
def test_scenes_are_the_samples_own_turned_in_each_way_that_is_allowed(survey, no_noise, augment):
    sample = make_sample()
    composer = SceneComposer([sample], survey, recompose=False, augment=augment)
    seen = set()
    for number in range(4):
        noisy, clean = composer.batch(number, 20)
        for k in range(20):
            i, way = find(clean[k], sample)
            seen.add(way)
            np.testing.assert_allclose(noisy[k], turn(sample.image(i), way), rtol=1e-5, atol=1e-6)
    assert seen == set(AUGMENTATIONS[augment])


@pytest.mark.parametrize("band_profile", [(0, 0, 0), (0, 1, 2), (1, 0, 1)])
def test_bands_share_profiles_in_any_way(survey, no_noise, band_profile):
    sample = make_sample(band_profile=band_profile)
    composer = SceneComposer([sample], survey, recompose=False, augment="none")
    noisy, clean = composer.batch(0, 20)
    for k in range(20):
        i, _ = find(clean[k], sample, ways=(0,))
        np.testing.assert_allclose(noisy[k], sample.image(i), rtol=1e-5, atol=1e-6)


def test_an_isolated_scene_has_no_neighbours(survey, no_noise):
    noisy, clean = SceneComposer([make_sample()], survey, isolated=True).batch(0, 20)
    np.testing.assert_array_equal(noisy, clean)


def test_rows_of_a_sample_may_come_in_any_order_within_a_scene(survey, no_noise):
    sample, shuffled = make_sample(), make_sample()
    order = np.lexsort((-shuffled.galaxy, shuffled.scene))
    for name in ("profiles", "fluxes", "galaxy"):
        setattr(shuffled, name, getattr(shuffled, name)[order])
    for one, other in zip(
        SceneComposer([sample], survey).batch(0, 20),
        SceneComposer([shuffled], survey).batch(0, 20),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_scale_divides_scene_and_target(survey):
    composer, scale = SceneComposer([make_sample()], survey), np.array([2.0, 5.0, 11.0])
    for plain, scaled in zip(composer.batch(3, 16), composer.batch(3, 16, scale), strict=True):
        np.testing.assert_allclose(
            scaled * scale[:, None, None], plain, rtol=1e-4, atol=1e-4 * composer.noise.max()
        )


@pytest.mark.parametrize("noise", ["normal", "poisson", "sky"])
def test_noise_has_the_variance_of_sky_and_of_source_where_it_counts(survey, noise):
    sample = make_sample()
    unit = np.array([band.electrons_per_unit for band in survey.bands])
    sky = np.array([band.sky_level for band in survey.bands])
    # As bright as the sky in the brightest pixels.
    sample.fluxes = (sample.fluxes * (sky / unit)).astype(np.float32)
    composer = SceneComposer([sample], survey, isolated=True, noise=noise)
    noisy, clean = (
        np.concatenate(parts) for parts in zip(*(composer.batch(i, 64) for i in range(8)), strict=True)
    )
    source = np.zeros_like(clean) if noise == "sky" else clean
    expected = (source * unit[:, None, None] + sky[:, None, None]) / unit[:, None, None] ** 2
    z = (noisy - clean) / np.sqrt(expected)
    bright = clean > 0.5 * clean.max(axis=(0, 2, 3), keepdims=True)
    assert z[bright].std() == pytest.approx(1, abs=0.03)
    assert z.std() == pytest.approx(1, abs=0.01)
    assert abs(z.mean()) < 0.01


def test_each_batch_and_each_scene_in_it_has_noise_of_its_own(survey):
    composer = SceneComposer([make_sample()], survey, isolated=True, noise="sky")
    noise = [noisy - clean for noisy, clean in (composer.batch(number, 6) for number in range(2))]
    correlation = np.corrcoef(np.concatenate(noise).reshape(12, -1) / composer.noise.max())
    assert np.abs(correlation - np.eye(12)).max() < 0.2


def test_noise_of_adjacent_pixels_is_correlated_as_asked(survey):
    composer = SceneComposer([make_sample()], survey, isolated=True, noise_correlation=0.4)
    noisy, clean = composer.batch(0, 256)
    noise = (noisy - clean) / composer.noise[:, None, None]
    for a, b in ((noise[..., 1:], noise[..., :-1]), (noise[..., 1:, :], noise[..., :-1, :])):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] == pytest.approx(0.4, abs=0.02)


def make_noisy_sample(n=20):
    """Targets with noise of their own, as galaxies with images have it."""
    sample = make_sample(n)
    rng = np.random.default_rng(8)
    profiles = unpack_profiles(sample.profiles)
    profiles += rng.normal(0.0, 0.003, profiles.shape).astype(np.float32)
    sample.profiles = pack_profiles(profiles)
    return sample


@pytest.mark.parametrize("isolated", [False, True])
def test_scenes_keep_the_negative_pixels_of_their_galaxies(survey, no_noise, isolated):
    sample = make_noisy_sample()
    composer = SceneComposer([sample], survey, recompose=False, augment="none", isolated=isolated)
    noisy, clean = composer.batch(0, 20)
    images = np.stack([sample.image(i, "target" if isolated else None) for i in range(20)])
    order = [int(np.argmin(np.abs(images - scene).max(axis=(1, 2, 3)))) for scene in noisy]
    assert sorted(order) == list(range(20))
    np.testing.assert_allclose(noisy, images[order], rtol=1e-5, atol=1e-5)
    assert noisy.min() < -0.1
    # The network's target has none, but the flux of what is in the scene.
    targets = np.stack([sample.image(i, "target") for i in order])
    assert clean.min() == 0
    np.testing.assert_allclose(clean.sum(axis=(2, 3)), targets.sum(axis=(2, 3)), rtol=1e-4)
    cut = np.maximum(targets, 0)
    assert (cut.sum(axis=(2, 3)) > 1.05 * targets.sum(axis=(2, 3))).any()
    assert np.abs(clean - targets).max() < 0.15 * targets.max()


def test_the_mean_of_noisy_scenes_is_the_noiseless_one_with_negative_pixels(survey):
    sample = make_noisy_sample(1)
    composer = SceneComposer([sample], survey, augment="none", noise="poisson")
    # In units of the sky's noise: pixels of -1 sigma and below.
    sample.fluxes = (sample.fluxes * composer.noise / 0.15).astype(np.float32)
    image = sample.image(0)
    noisy = np.concatenate([composer.batch(number, 256)[0] for number in range(8)])
    z = (noisy.mean(axis=0, dtype=np.float64) - image) / composer.noise[:, None, None] * np.sqrt(len(noisy))
    negative = image < -0.5 * composer.noise[:, None, None]
    assert negative.sum() > 20
    assert abs(z[negative].mean()) < 4 / np.sqrt(negative.sum())


def test_the_nearest_image_without_negative_pixels_is_the_one_found_by_hand():
    image = np.array(
        [[[5.0, 1.0], [-2.0, 0.5]], [[1.0, -3.0], [0.5, 0.5]], [[4.0, 0.0], [2.0, 1.0]]], np.float32
    )
    image[2, 0, 1] = -1e-4
    remove_negative(image)
    # 4.5 in all: 0.75 off the first leaves 4.25 and 0.25; nothing left; a ripple, which is cut off.
    np.testing.assert_allclose(
        image, [[[4.25, 0.25], [0, 0]], [[0, 0], [0, 0]], [[4, 0], [2, 1]]], rtol=1e-6, atol=0
    )


# -- neighbours --------------------------------------------------------------------


def owners(noisy, clean, sample):
    """Scene of each target and scene of its neighbours."""
    pairs = []
    for k in range(len(clean)):
        i, way = find(clean[k], sample)
        others = rest(noisy[k], clean[k], way)
        j = [
            j
            for j in range(sample.n_scenes)
            if np.allclose(others, sample.image(j, "neighbours"), rtol=1e-3, atol=1e-4)
        ]
        assert len(j) == 1
        pairs.append((i, j[0]))
    return pairs


def test_targets_meet_neighbours_of_other_scenes(survey, no_noise):
    sample = make_sample()
    pairs = owners(*SceneComposer([sample], survey).batch(0, 40), sample)
    assert sorted(i for i, _ in pairs) == sorted(2 * list(range(20)))
    assert np.mean([i == j for i, j in pairs]) < 0.3


def test_exchanged_neighbours_are_no_brighter_than_the_target_of_the_papers_scenes(survey, no_noise):
    sample = make_sample()
    # One target is fainter than the neighbours of all scenes, one is fainter than those of half of them.
    target = sample.galaxy == 0
    brightest = [sample.fluxes[(sample.scene == i) & ~target, 1].max() for i in range(20)]
    sample.fluxes[(sample.scene == 4) & target] = 1.0
    sample.fluxes[(sample.scene == 5) & target] = np.median(brightest)
    composer = SceneComposer([sample], survey)
    pairs = [pair for n in range(6) for pair in owners(*composer.batch(n, 20), sample)]
    assert {j for i, j in pairs if i == 4} == {4}
    exchanged = [j for i, j in pairs if i == 5 and j != 5]
    assert exchanged and all(brightest[j] <= np.median(brightest) for j in exchanged)


def test_exchanged_neighbours_leave_the_target_of_a_field_a_peak(survey, no_noise):
    sample = make_sample(placement="field")
    # Neighbours of every second scene bury any target.
    buries = (sample.scene % 2 == 1) & (sample.galaxy > 0)
    sample.fluxes[buries] *= 1e4
    sample.profiles[buries] = np.roll(sample.profiles[buries], -2, axis=(-1, -2))
    pairs = owners(*SceneComposer([sample], survey).batch(0, 40), sample)
    assert all(i == j or j % 2 == 0 for i, j in pairs)
    assert any(i != j for i, j in pairs)


def make_population(placement, n=4000, seed=0):
    """Scenes of single pixels: the target's in the middle, each neighbour's at the edge.

    Fluxes follow the counts of galaxies; in the paper's scenes the brightest is the target, in a field the
    first one drawn. Bands are alike.
    """
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 5, n)
    fluxes = []
    for count in counts:
        flux = rng.uniform(0.0, 1.0, count) ** -1.3
        fluxes.append(np.sort(flux)[::-1] if placement == "annulus" else flux)
    galaxy = np.concatenate([np.arange(count) for count in counts])
    profiles = np.zeros((4, 1, SIZE, SIZE), np.float32)
    profiles[0, 0, SIZE // 2, SIZE // 2] = 1.0
    profiles[[1, 2, 3], 0, 0, [1, 2, 3]] = 1.0
    return StampSample(
        survey="lsst10yr",
        bands=BANDS,
        kind="blended",
        settings={"placement": placement},
        seed=seed,
        split="train",
        versions={},
        profiles=pack_profiles(profiles)[galaxy],
        fluxes=np.repeat(np.concatenate(fluxes)[:, None], 3, axis=1).astype(np.float32),
        scene=np.repeat(np.arange(n), counts).astype(np.int32),
        galaxy=galaxy.astype(np.int8),
        truth=Table({"scene": np.arange(n, dtype=np.int32)}),
        band_profile=np.array([0, 0, 0]),
    )


@pytest.mark.parametrize("placement", ["annulus", "field"])
@pytest.mark.parametrize("isolated_too", [False, True])
def test_exchange_keeps_number_and_brightness_of_neighbours_of_bright_and_of_faint_targets(
    survey, no_noise, placement, isolated_too
):
    sample = make_population(placement)
    samples, n = [sample], sample.n_scenes
    if isolated_too:
        # The same targets without neighbours, which meet those of scenes that have some.
        alone = sample.galaxy == 0
        samples.append(
            dataclasses.replace(
                sample,
                kind="isolated",
                profiles=sample.profiles[alone],
                fluxes=sample.fluxes[alone],
                scene=sample.scene[alone],
                galaxy=sample.galaxy[alone],
            )
        )
    composer = SceneComposer(samples, survey, augment="none")
    noisy, clean = composer.batch(0, composer.n_scenes)
    composed = noisy[:, 1, 0, 1:4], clean[:, 1, SIZE // 2, SIZE // 2]
    truth = np.zeros((n, 4))
    truth[sample.scene, sample.galaxy] = sample.fluxes[:, 1]
    edges = [0.0, *np.quantile(truth[:, 0], [0.03, 0.15, 0.5, 0.85, 0.97]), np.inf]
    for low, high in zip(edges, edges[1:], strict=False):
        ours = composed[0][(composed[1] > low) & (composed[1] <= high)]
        theirs = truth[(truth[:, 0] > low) & (truth[:, 0] <= high), 1:]
        assert len(ours) > 100
        for number in range(4):
            share, expected = (((part > 0).sum(axis=1) == number).mean() for part in (ours, theirs))
            spread = np.sqrt(
                (expected * (1 - expected) + 1 / len(theirs)) * (1 / len(ours) + 1 / len(theirs))
            )
            assert abs(share - expected) < 4 * spread
        brightest = [part.max(axis=1)[(part > 0).any(axis=1)] for part in (ours, theirs)]
        assert stats.ks_2samp(*brightest).pvalue > 1e-3
    # And exchanged they are.
    own = {round(float(target), 3): row for target, row in zip(truth[:, 0], truth[:, 1:], strict=True)}
    some = (composed[0] > 0).any(axis=1)
    kept = [
        np.allclose(row, own[round(float(target), 3)], rtol=1e-3)
        for row, target in zip(composed[0][some], composed[1][some], strict=True)
        if round(float(target), 3) in own
    ]
    assert len(kept) > 1000 and np.mean(kept) < 0.15
    if placement == "annulus":
        assert (composed[0] <= composed[1][:, None] * 1.001).all()


@pytest.mark.parametrize("column", ["g1", "g2", "real"])
def test_neighbours_come_from_scenes_of_the_same_shear_and_the_same_kind_of_galaxies(
    survey, no_noise, column
):
    sample = make_sample(30)
    values = np.arange(30) % 2 == 0 if column == "real" else np.array([0.0, 0.02, -0.02])[np.arange(30) % 3]
    sample.truth[column] = values
    composer = SceneComposer([sample], survey)
    pairs = [pair for number in range(3) for pair in owners(*composer.batch(number, 30), sample)]
    assert all(values[i] == values[j] for i, j in pairs)
    assert np.mean([i == j for i, j in pairs]) < 0.4


def test_scenes_of_one_placement_keep_out_of_those_of_another(survey, no_noise):
    samples = [make_sample(12, 1, placement="annulus"), make_sample(12, 2, placement="field")]
    composer = SceneComposer(samples, survey)
    pairs = owners(*composer.batch(0, 48), StampSample.concatenate(samples))
    assert all((i < 12) == (j < 12) for i, j in pairs)
    assert np.mean([i == j for i, j in pairs]) < 0.5


def test_scenes_keep_out_of_those_seen_through_another_psf(survey, no_noise):
    samples = [make_sample(12, 1), make_sample(12, 2)]
    for sample, fwhm in zip(samples, (0.7, 0.8), strict=True):
        sample.psf[..., 0] = fwhm
    pairs = owners(*SceneComposer(samples, survey).batch(0, 48), StampSample.concatenate(samples))
    assert all((i < 12) == (j < 12) for i, j in pairs)
    assert np.mean([i == j for i, j in pairs]) < 0.5


@pytest.mark.parametrize("why", ["centred on peaks", "PSFs of their own"])
def test_scenes_whose_parts_belong_together_keep_their_neighbours(survey, no_noise, why):
    sample = make_sample(centring="peaks" if why == "centred on peaks" else "none")
    if why == "PSFs of their own":
        sample.psf = np.random.default_rng(0).uniform(0.6, 0.8, sample.psf.shape).astype(np.float32)
    pairs = owners(*SceneComposer([sample], survey).batch(0, 20), sample)
    assert all(i == j for i, j in pairs)


def test_isolated_targets_find_neighbours_in_every_window(survey, no_noise):
    samples = [make_sample(64, 1, "isolated"), make_sample(64, 2)]
    composer = SceneComposer(samples, survey, window_bytes=samples[1].profiles.nbytes // 3)
    noisy, clean = composer.batch(0, 128)
    assert (noisy != clean).any(axis=(1, 2, 3)).mean() > 0.9


# -- order and windows -------------------------------------------------------------


def shards(tmp_path, count=5, n=24):
    """The same shards in memory and opened."""
    samples = [make_sample(n, seed) for seed in range(count)]
    for number, sample in enumerate(samples):
        sample.write(tmp_path / f"{number}.h5")
    return samples, [StampSample.open(tmp_path / f"{number}.h5") for number in range(count)]


def test_a_batch_depends_on_seed_number_and_shards_alone(survey, tmp_path):
    samples, opened = shards(tmp_path)
    options = dict(seed=3, window_bytes=samples[0].profiles.nbytes)
    whole = SceneComposer(samples, survey, **options)
    batches = [whole.batch(number, 16) for number in range(16)]
    # Two passes, resumed in the middle, out of order, from files.
    resumed = SceneComposer(opened, survey, **options)
    for number in (9, 10, 3, 15, 0):
        for one, other in zip(resumed.batch(number, 16), batches[number], strict=True):
            np.testing.assert_array_equal(one, other)
    with ThreadPoolExecutor(3) as pool:
        for one, other in zip(pool.map(lambda i: resumed.batch(i, 16), range(16)), batches, strict=True):
            np.testing.assert_array_equal(one[0], other[0])
    assert not np.array_equal(batches[7][0], batches[8][0])
    other = SceneComposer(samples, survey, **options | {"seed": 4})
    assert not np.array_equal(other.batch(7, 16)[0], batches[7][0])


@pytest.mark.parametrize("windows", [1, 3, 7])
def test_every_scene_comes_once_in_each_pass_and_in_another_order(tmp_path, windows):
    samples, _ = shards(tmp_path)
    total = sum(sample.profiles.nbytes for sample in samples)
    passes = Windows(samples, -(-total // windows), seed=1)
    assert passes.n_scenes == 120
    orders = []
    for number in range(3):
        taken = [
            (int(window.sample[i]), int(window.index[i]))
            for start in range(0, 120, 40)
            for window, scenes in passes.take(number * 120 + start, 40)
            for i in scenes
        ]
        assert sorted(taken) == [(s, i) for s in range(5) for i in range(24)]
        orders.append(taken)
    assert orders[0] != orders[1] != orders[2]


def test_windows_do_not_depend_on_what_kinds_are_called(tmp_path):
    # As they would if kinds came in the order of a set, which for words changes from process to process.
    samples, _ = shards(tmp_path, count=8)
    pieces = cut_pieces(samples, samples[0].profiles.nbytes)
    one, other = (
        deal_windows(pieces, names * 4, samples[0].profiles.nbytes, np.random.default_rng(3))
        for names in ([0, 1], [1, 0])
    )
    assert one == other


def test_memory_holds_two_windows_however_many_shards_there_are(tmp_path):
    _, opened = shards(tmp_path, count=12)
    size = 2 * max(sample.profiles.nbytes for sample in opened)
    alive, most, rows = weakref.WeakSet(), [], []

    def load(window):
        alive.add(window)
        most.append(len(alive))
        rows.append(window.n_scenes)
        return window

    passes = Windows(opened, size, seed=1, load=load)
    for position in range(0, 2 * passes.n_scenes, 8):
        for _window, scenes in passes.take(position, 8):
            assert len(scenes)
        del _window
    # The last one may still be on its way.
    passes._reader.shutdown(wait=True)
    # The one in use and the next, and the one that is just being let go.
    assert max(most) <= 3
    assert len(rows) >= 12
    assert max(rows) <= 2 * 24 * 1.3
    assert all(sample.profiles._dataset is None for sample in opened)


def test_the_next_window_is_read_while_one_is_used(tmp_path):
    _, opened = shards(tmp_path)
    read = []
    passes = Windows(opened, opened[0].profiles.nbytes, seed=1, load=lambda window: read.append(window))
    list(passes.take(0, 2))
    assert len(read) == 1
    list(passes.take(12, 2))
    passes._reader.shutdown()
    assert len(read) == 2


def test_a_shard_that_goes_bad_stops_the_training_with_its_name(survey, tmp_path):
    _, opened = shards(tmp_path, count=2)
    (tmp_path / "1.h5").write_bytes(b"gone")
    composer = SceneComposer(opened, survey)
    with pytest.raises(ShardError, match=r"1\.h5"):
        composer.batch(0, 8)


def test_the_mean_peak_is_that_of_the_first_targets(tmp_path):
    samples, opened = shards(tmp_path, count=3)
    peaks = np.array([sample.image(i, "target").max(axis=(1, 2)) for sample in samples for i in range(24)])
    np.testing.assert_allclose(mean_peak(opened), peaks.mean(axis=0), rtol=1e-6)
    # The last shard is not even looked at.
    (tmp_path / "2.h5").unlink()
    np.testing.assert_allclose(mean_peak(opened, limit=30), peaks[:30].mean(axis=0), rtol=1e-6)
