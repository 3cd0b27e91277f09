# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shards on disk: whole or refused."""

import dataclasses
import multiprocessing
import pickle

import h5py
import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import ShardError
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.simulation.hdf5 import ArrayOnDisk
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.simulation.shards import PROFILE_SCALE, StampSample, pack_profiles
from lsst.meas.extensions.vae.survey import get_survey


@pytest.fixture(scope="module")
def sample():
    survey = get_survey("arcelin2020", "gri")
    settings = SceneSettings(psf_fwhm_scatter=0.1, shear_step=0.02)
    return simulate_stamps(synthetic_galaxies(500, seed=5), survey, settings, 4, seed=2**40 + 1)


@pytest.fixture
def shard(sample, tmp_path):
    path = tmp_path / "shard.h5"
    sample.write(path)
    return path


def test_shard_reads_back_as_written(sample, shard):
    read = StampSample.read(shard)
    for name in ("profiles", "fluxes", "scene", "galaxy", "band_profile", "psf"):
        one, other = getattr(sample, name), getattr(read, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    for name in ("survey", "bands", "kind", "settings", "seed", "split", "versions"):
        assert getattr(read, name) == getattr(sample, name), name
    assert read.survey_info["bands"][1]["name"] == "r"
    for table in ("truth", "objects"):
        one, other = getattr(sample, table), getattr(read, table)
        assert one.colnames == other.colnames
        for name in one.colnames:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])
    assert SceneSettings(**read.settings) == SceneSettings(psf_fwhm_scatter=0.1, shear_step=0.02)
    assert read.psf_models(7) == sample.psf_models(7)
    np.testing.assert_array_equal(read.image(3), sample.image(3))


def test_writing_leaves_no_other_file(shard):
    assert [path.name for path in shard.parent.iterdir()] == ["shard.h5"]


def test_failed_writing_keeps_the_old_shard(sample, shard, monkeypatch):
    before = shard.read_bytes()
    monkeypatch.setattr(StampSample, "_numbers", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sample.write(shard)
    assert shard.read_bytes() == before
    assert [path.name for path in shard.parent.iterdir()] == ["shard.h5"]


def test_rows_cover_every_scene_in_order(sample):
    stop = 0
    for scene in range(sample.n_scenes):
        rows = sample.rows(scene)
        assert rows.start == stop and (sample.scene[rows] == scene).all()
        stop = rows.stop
    assert stop == len(sample.scene)
    assert sample.rows(-1) == sample.rows(sample.n_scenes - 1)
    with pytest.raises(IndexError):
        sample.rows(sample.n_scenes)


def test_image_is_target_plus_neighbours(sample):
    for scene in range(sample.n_scenes):
        parts = sample.image(scene, "target") + sample.image(scene, "neighbours")
        np.testing.assert_allclose(parts, sample.image(scene), rtol=1e-5, atol=1e-3)
    assert sample.image(0).dtype == np.float32 and sample.image(0).shape == (3, 64, 64)
    with pytest.raises(ShardError, match="target"):
        sample.image(0, "friends")


def test_concatenation_renumbers_the_scenes(sample):
    both = StampSample.concatenate([sample, sample])
    assert both.n_scenes == 2 * sample.n_scenes
    np.testing.assert_array_equal(both.image(sample.n_scenes + 4), sample.image(4))
    np.testing.assert_array_equal(both.psf_kernels(sample.n_scenes + 4), sample.psf_kernels(4))
    np.testing.assert_array_equal(both.truth["scene"], np.arange(2 * sample.n_scenes))
    # Versions of a scene stay together, and apart from the other sample's.
    groups = np.unique(both.truth["base_scene"], return_counts=True)
    np.testing.assert_array_equal(groups[1], 5)
    counts = np.bincount(both.objects["scene"])
    np.testing.assert_array_equal(counts, both.truth["n_galaxies"])
    with pytest.raises(ShardError, match="No samples"):
        StampSample.concatenate([])


def test_packing_is_finer_than_any_noise():
    rng = np.random.default_rng(1)
    profiles = rng.random((5, 2, 64, 64)).astype(np.float32) ** 8
    profiles *= 10.0 ** rng.uniform(-4, 0, (5, 1, 1, 1)).astype(np.float32)
    packed = pack_profiles(profiles)
    assert packed.dtype == np.float16
    error = abs(packed.astype(np.float64) / PROFILE_SCALE - profiles)
    peak = profiles.max(axis=(1, 2, 3), keepdims=True)
    assert (error <= 1e-5 * peak + 6e-4 * profiles).all()
    assert (pack_profiles(np.zeros((1, 1, 8, 8), np.float32)) == 0).all()


@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.9, 0.999])
def test_truncated_shard_is_refused(shard, part):
    whole = shard.read_bytes()
    shard.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ShardError, match="shard.h5"):
        StampSample.read(shard)


def test_damaged_pixels_are_refused(shard):
    with h5py.File(shard) as file:
        place = file["profiles"].id.get_chunk_info(0).byte_offset
    content = bytearray(shard.read_bytes())
    content[place + 200] ^= 0xFF
    shard.write_bytes(content)
    with pytest.raises(ShardError, match="damaged"):
        StampSample.read(shard)


def test_foreign_files_are_refused(tmp_path):
    with pytest.raises(ShardError, match="No shard"):
        StampSample.read(tmp_path / "absent.h5")
    (tmp_path / "text.h5").write_text("not a shard at all")
    with pytest.raises(ShardError, match="damaged"):
        StampSample.read(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.arange(3)
    with pytest.raises(ShardError, match="expected 'vae_stamp_sample'"):
        StampSample.read(tmp_path / "other.h5")


def test_wild_header_is_refused_before_any_memory_is_taken(shard):
    with h5py.File(shard, "r+") as file:
        del file["profiles"]
        file.create_dataset("profiles", (2**40, 1, 64, 64), np.float16, chunks=(1, 1, 64, 64))
    with pytest.raises(ShardError, match="more than the file can hold"):
        StampSample.read(shard)


def test_selection_renumbers_the_scenes(sample):
    few = sample.select([7, -1, 2])
    assert few.n_scenes == 3
    for new, old in enumerate([7, 19, 2]):
        np.testing.assert_array_equal(few.image(new), sample.image(old))
        assert few.psf_models(new) == sample.psf_models(old)
        np.testing.assert_array_equal(
            few.objects["ident"][few.objects["scene"] == new],
            sample.objects["ident"][sample.objects["scene"] == old],
        )
    np.testing.assert_array_equal(few.truth["seed"], sample.truth["seed"][[7, 19, 2]])
    np.testing.assert_array_equal(few.truth["scene"], [0, 1, 2])
    # The sample itself is as it was.
    np.testing.assert_array_equal(sample.truth["scene"], np.arange(20))
    assert sample.select([]).n_scenes == 0


def test_opened_shard_is_the_read_one_but_profiles_stay_on_disk(sample, shard):
    with StampSample.open(shard) as opened:
        assert isinstance(opened.profiles, ArrayOnDisk)
        assert (opened.profiles.shape, opened.profiles.dtype) == (sample.profiles.shape, np.float16)
        assert len(opened.profiles) == len(sample.profiles)
        assert opened.profiles.nbytes == sample.profiles.nbytes
        for scene in (0, 13, 19):
            assert opened.rows(scene) == sample.rows(scene)
            for part in (None, "target", "neighbours"):
                np.testing.assert_array_equal(opened.image(scene, part), sample.image(scene, part))
        np.testing.assert_array_equal(opened.profiles[3:9, 0], sample.profiles[3:9, 0])
        np.testing.assert_array_equal(opened.fluxes, sample.fluxes)
        np.testing.assert_array_equal(np.asarray(opened.profiles), sample.profiles)
        np.testing.assert_array_equal(opened.select([4]).image(0), sample.image(4))
        both = StampSample.concatenate([opened, sample])
        np.testing.assert_array_equal(both.image(24), sample.image(4))
    # It can be written and closed more than once.
    opened.write(shard.with_name("copy.h5"))
    opened.close()
    np.testing.assert_array_equal(StampSample.read(shard.with_name("copy.h5")).profiles, sample.profiles)


def _image(sample):
    return sample.image(5)


def test_opened_shard_goes_to_other_processes(sample, shard):
    opened = StampSample.open(shard)
    opened.image(0)
    pickled = pickle.dumps(opened)
    assert len(pickled) < sample.profiles.nbytes / 4
    np.testing.assert_array_equal(pickle.loads(pickled).image(5), sample.image(5))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(_image, (opened,)), sample.image(5))


def test_opened_shard_tells_of_damage_when_it_meets_it(shard):
    with h5py.File(shard) as file:
        place = file["profiles"].id.get_chunk_info(0).byte_offset
    content = bytearray(shard.read_bytes())
    content[place + 200] ^= 0xFF
    shard.write_bytes(content)
    with StampSample.open(shard) as opened, pytest.raises(ShardError, match="shard.h5.*damaged"):
        opened.image(0)


def test_opened_shard_that_is_replaced_is_refused(sample, shard):
    opened = StampSample.open(shard)
    opened.close()
    sample.select([3, 4]).write(shard)
    with pytest.raises(ShardError, match="changed since"):
        opened.image(0)


def test_opening_refuses_what_reading_refuses(shard):
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ShardError, match="damaged"):
        StampSample.open(shard)
    with pytest.raises(ShardError, match="No shard"):
        StampSample.open(shard.parent / "absent.h5")


def test_a_shard_of_the_first_format_is_to_be_simulated_again(shard):
    with h5py.File(shard, "r+") as file:
        file.attrs["format_version"] = 1
    with pytest.raises(ShardError, match="format version is 1: expected 2; simulate it again$"):
        StampSample.read(shard)


def test_sample_that_knows_no_psf_says_so(sample):
    unknown = dataclasses.replace(sample, psf=None)
    assert unknown.psf.shape == sample.psf.shape
    with pytest.raises(ShardError, match="scene 3"):
        unknown.psf_models(3)
    with pytest.raises(ShardError, match="survey_info"):
        dataclasses.replace(sample, survey_info={}).psf_models(3)


def _drop_a_row(file):
    kept = file["fluxes"][:-1]
    del file["fluxes"]
    file["fluxes"] = kept


def _unsort(file):
    file["scene"][0] = 3


def _scene_without_rows(file):
    scene = file["scene"][()]
    scene[scene == 19] = 18
    file["scene"][...] = scene


def _wrong_profile(file):
    file["band_profile"][0] = 7


def _newer(file):
    file.attrs["format_version"] = 99


def _more_scenes(file):
    file.attrs["n_scenes"] = 21


def _text_column(file):
    file["truth"]["name"] = np.array([b"a"] * 20)


def _elsewhere(file):
    del file["fluxes"]
    file["fluxes"] = h5py.ExternalLink("other.h5", "x")


def _psf_of_other_kinds(file):
    psf = np.concatenate([file["psf"][()]] * 2, axis=1)
    del file["psf"]
    file["psf"] = psf


def _objects_of_no_scene(file):
    file["objects/scene"][-1] = 20


def _uneven_columns(file):
    del file["objects/x"]
    file["objects/x"] = np.zeros(3)


def _no_objects(file):
    del file["objects"]


def _not_json(file):
    del file.attrs["settings"]
    file.attrs["settings"] = "not json"


@pytest.mark.parametrize(
    "tamper",
    [
        _drop_a_row,
        _unsort,
        _scene_without_rows,
        _wrong_profile,
        _newer,
        _more_scenes,
        _text_column,
        _elsewhere,
        _psf_of_other_kinds,
        _objects_of_no_scene,
        _uneven_columns,
        _no_objects,
        _not_json,
    ],
)
def test_inconsistent_shard_is_refused(sample, shard, tamper):
    with h5py.File(shard.parent / "other.h5", "w") as file:
        file["x"] = sample.fluxes
    with h5py.File(shard, "r+") as file:
        tamper(file)
    with pytest.raises(ShardError, match="shard.h5") as caught:
        StampSample.read(shard)
    assert "\n" not in str(caught.value)


def test_unpacking_profiles_is_exact_for_every_finite_number():
    from lsst.meas.extensions.vae.simulation.shards import PROFILE_SCALE, unpack_profiles

    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    np.testing.assert_array_equal(unpack_profiles(halves), halves.astype(np.float32) / PROFILE_SCALE)
