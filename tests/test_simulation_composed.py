# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples with their noise: what is drawn, what comes back from a file, and which files are refused."""

import dataclasses
import json
import tracemalloc

import h5py
import numpy as np
import pytest
from astropy.table import Table

from lsst.meas.extensions.vae.errors import ShardError, VaeError
from lsst.meas.extensions.vae.galaxies import synthetic_galaxies
from lsst.meas.extensions.vae.simulation.composed import ComposedSample, compose
from lsst.meas.extensions.vae.simulation.scenes import SceneSettings, simulate_stamps
from lsst.meas.extensions.vae.simulation.shards import StampSample
from lsst.meas.extensions.vae.survey import get_survey


@pytest.fixture(scope="module")
def survey():
    return get_survey("arcelin2020", ("u", "r"))


@pytest.fixture(scope="module")
def sheared(survey):
    """Two scenes, each in its five sheared versions."""
    galaxies = synthetic_galaxies(500, seed=1)
    settings = SceneSettings(shear_step=0.01, psf_fwhm_scatter=0.1)
    return simulate_stamps(galaxies, survey, settings, 2, seed=3, split="test")


@pytest.fixture(scope="module")
def composed(sheared):
    return compose(sheared)


@pytest.fixture
def written(composed, tmp_path):
    composed.write(tmp_path / "scenes.h5")
    return tmp_path / "scenes.h5"


def equal(one, other):
    for name in (field.name for field in dataclasses.fields(ComposedSample)):
        a, b = getattr(one, name), getattr(other, name)
        if isinstance(a, Table):
            assert a.colnames == b.colnames
            for column in a.colnames:
                np.testing.assert_array_equal(a[column], b[column], err_msg=column)
        elif hasattr(a, "shape"):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=name)
        else:
            # JSON has lists for tuples.
            assert json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True), name


def test_noise_is_the_counts_of_source_and_sky_less_the_sky(sheared, composed, survey):
    band = survey.bands[0]
    counts = composed.noisy[:][:, 0].astype(np.float64) * band.electrons_per_unit + band.sky_level
    np.testing.assert_allclose(counts, np.rint(counts), atol=0.01)
    for i in (0, 7):
        np.testing.assert_array_equal(composed.scene[i], sheared.image(i))
        np.testing.assert_array_equal(composed.target[i], sheared.image(i, "target"))
    z = [(composed.noisy[i] - composed.scene[i]) / np.sqrt(composed.variance(i)) for i in (0, 5)]
    assert np.std(z) == pytest.approx(1, abs=0.02)


def test_composing_twice_gives_the_same_bits_and_other_seeds_others(sheared, composed):
    equal(composed, compose(sheared))
    assert not np.array_equal(composed.noisy[0], composed.noisy[5])


def test_the_versions_of_a_sheared_scene_share_their_noise(composed):
    noise = composed.noisy[:] - composed.scene[:]
    for version in range(1, 5):
        assert not np.array_equal(composed.scene[0], composed.scene[version])
        assert np.corrcoef(noise[0].ravel(), noise[version].ravel())[0, 1] > 0.99
    assert abs(np.corrcoef(noise[0].ravel(), noise[5].ravel())[0, 1]) < 0.05


def test_a_file_gives_back_what_was_written_and_may_be_written_from_an_opened_shard(sheared, tmp_path):
    expected = compose(sheared, noise="normal", correlation=0.2)
    expected.write(tmp_path / "whole.h5")
    sheared.write(tmp_path / "shard.h5")
    with StampSample.open(tmp_path / "shard.h5") as opened:
        compose(opened, noise="normal", correlation=0.2).write(tmp_path / "streamed.h5")
    for name in ("whole.h5", "streamed.h5"):
        equal(expected, ComposedSample.read(tmp_path / name))
        with ComposedSample.open(tmp_path / name) as lazy:
            np.testing.assert_array_equal(lazy.noisy[3:5], expected.noisy[3:5])
            equal(expected, lazy)


def test_memory_stays_flat_while_a_long_sample_is_written(sheared, tmp_path):
    long = sheared.select([i % 10 for i in range(400)])
    long.write(tmp_path / "long.h5")
    with StampSample.open(tmp_path / "long.h5") as opened:
        tracemalloc.start()
        compose(opened, noise="sky").write(tmp_path / "composed.h5")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # The images are 26 MB; 64 scenes of them are 4 MB.
    assert most < 13e6
    assert len(ComposedSample.open(tmp_path / "composed.h5")) == 400


def test_each_scene_has_its_psf(sheared, composed):
    assert not np.array_equal(composed.psf[0], composed.psf[5])
    for i in (0, 5):
        np.testing.assert_array_equal(composed.psf_kernels(i), sheared.psf_kernels(i))
        assert composed.psf_models(i) == sheared.psf_models(i) != composed.psf_models(5 - i)
    unknown = dataclasses.replace(composed, psf=np.zeros_like(composed.psf))
    with pytest.raises(ShardError, match="scene 0: .*FWHM"):
        unknown.psf_kernels(0)


def test_what_cannot_be_composed_is_told(sheared):
    with pytest.raises(VaeError, match="independent"):
        compose(sheared, "poisson", 0.3)
    with pytest.raises(ShardError, match="does not tell the sky"):
        compose(dataclasses.replace(sheared, survey_info={}))
    bare = dataclasses.replace(sheared, truth=sheared.truth["scene", "snr"])
    with pytest.raises(ShardError, match="no noise_seed"):
        compose(bare)


# -- files that are refused --------------------------------------------------------


@pytest.mark.parametrize("reader", [ComposedSample.read, ComposedSample.open])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused_by_its_name(written, part, reader):
    data = written.read_bytes()
    written.write_bytes(data[: int(part * len(data))])
    with pytest.raises(ShardError, match=r"scenes\.h5.*(truncated|damaged)"):
        reader(written)


def test_flipped_bits_of_an_image_are_found_by_its_checksum(written):
    with h5py.File(written) as file:
        chunk = file["noisy"].id.get_chunk_info(0)
    data = bytearray(written.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 0x10
    written.write_bytes(bytes(data))
    with pytest.raises(ShardError, match="damaged"):
        ComposedSample.read(written)
    with ComposedSample.open(written) as opened, pytest.raises(ShardError, match="damaged"):
        opened.noisy[0:1]


def test_an_absent_file_and_a_shard_are_no_composed_sample(sheared, tmp_path):
    with pytest.raises(ShardError, match="No composed sample"):
        ComposedSample.read(tmp_path / "none.h5")
    sheared.write(tmp_path / "shard.h5")
    with pytest.raises(ShardError, match="'vae_stamp_sample': expected 'vae_composed_sample'"):
        ComposedSample.read(tmp_path / "shard.h5")
    compose(sheared).write(tmp_path / "composed.h5")
    with pytest.raises(ShardError, match="'vae_composed_sample': expected 'vae_stamp_sample'"):
        StampSample.read(tmp_path / "composed.h5")


def replace_images(file):
    del file["target"]
    file["target"] = np.zeros((10, 3, 64, 64), np.float32)


def claim(file):
    del file["noisy"]
    file.create_dataset("noisy", (10**6, 2, 64, 64), np.float32, chunks=(1, 2, 64, 64), compression="gzip")


def link_out(file):
    del file["noisy"]
    file["noisy"] = h5py.ExternalLink("/etc/other.h5", "noisy")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda file: file.attrs.__setitem__("format_version", 7), "format version is 7"),
        (lambda file: file.attrs.__setitem__("n_scenes", 11), "expected 11"),
        (lambda file: file.attrs.__setitem__("noise", "pink"), "pink"),
        (lambda file: file.attrs.__setitem__("noise_correlation", 0.3), "independent"),
        (lambda file: file.attrs.__setitem__("settings", "[1]"), "settings is not a JSON dict"),
        (lambda file: file.attrs.__setitem__("seed", "x"), "damaged"),
        (lambda file: file.attrs.__delitem__("survey"), "damaged"),
        (lambda file: file.__delitem__("truth"), "truth is missing"),
        (lambda file: file["band_profile"].__setitem__(0, 9), "band_profile"),
        (replace_images, "target is float32 .*expected"),
        (claim, "more than the file can hold"),
        (link_out, "scenes.h5"),
    ],
)
def test_a_header_that_lies_is_refused(written, change, message):
    with h5py.File(written, "r+") as file:
        change(file)
    for reader in (ComposedSample.read, ComposedSample.open):
        with pytest.raises(ShardError, match=message):
            reader(written)
