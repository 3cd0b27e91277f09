# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""VaeModelData keeps what the deblender drew, and refuses damaged files."""

import h5py
import numpy as np
import pytest

from lsst.meas.extensions.vae.errors import ImageError, ShardError
from lsst.meas.extensions.vae.repo.modelData import VaeModelData

BANDS = ("g", "r", "y")


def makeData(n=4, latentSize=5):
    rng = np.random.default_rng(3)
    data = VaeModelData(BANDS, "starter", "ab" * 32, latentSize, {"unit": "nJy"})
    for i in range(n):
        shape = (len(BANDS), int(rng.integers(1, 9)), int(rng.integers(1, 9)))
        latent = rng.normal(size=(2, latentSize))
        data.add(2**40 + i, 7 + i // 2, rng.normal(size=shape), (10 * i, -3 + i), *latent)
    return data


def test_a_file_gives_back_every_stamp_of_its_own_size(tmp_path):
    data = makeData()
    data.write(tmp_path / "models.h5")
    back = VaeModelData.read(tmp_path / "models.h5")
    assert (back.bands, back.modelPackage, back.modelPackageSha256) == (BANDS, "starter", "ab" * 32)
    assert back.metadata == {"unit": "nJy"} and back.latentSize == 5
    np.testing.assert_array_equal(back.sourceIds, 2**40 + np.arange(4))
    assert len({source.image.shape for source in back}) > 1, "the stamps should be ragged"
    for source in data:
        other = back.model(source.sourceId)
        assert (other.parentId, other.origin) == (source.parentId, source.origin)
        for name in ("image", "latentMean", "latentSigma"):
            np.testing.assert_array_equal(getattr(other, name), getattr(source, name))
    assert [s.sourceId for s in back.children(8)] == [2**40 + 2, 2**40 + 3]


def test_the_pixels_of_the_parents_come_back(tmp_path):
    data = makeData()
    data.addParent(8, [(5, 1, 4), (6, -2, 3)])
    data.addParent(2**41, [(0, 0, 0)])
    data.addParent(7, np.zeros((0, 3), int))
    data.write(tmp_path / "models.h5")
    back = VaeModelData.read(tmp_path / "models.h5")
    np.testing.assert_array_equal(back.parents[8], [(5, 1, 4), (6, -2, 3)])
    np.testing.assert_array_equal(back.parents[2**41], [(0, 0, 0)])
    with pytest.raises(ImageError, match="spans of parent 3"):
        data.addParent(3, [(0, 5, 4)])


def test_a_file_of_version_1_has_no_parents(tmp_path):
    path = tmp_path / "models.h5"
    makeData().write(path)
    with h5py.File(path, "r+") as file:
        del file["parentSpans"]
        file.attrs["version"] = 1
    back = VaeModelData.read(path)
    assert len(back) == 4 and back.parents == {}


def test_no_sources_and_no_latents_are_fine(tmp_path):
    VaeModelData(BANDS).write(tmp_path / "empty.h5")
    assert len(VaeModelData.read(tmp_path / "empty.h5")) == 0


def test_render_adds_up_the_stamps_where_they_overlap_the_box():
    data = VaeModelData(("r",))
    data.add(1, 0, np.ones((1, 3, 3)), (0, 0))
    data.add(2, 0, np.full((1, 2, 4), 10.0), (2, 1))
    expected = np.array([[1, 0, 0], [11, 10, 10], [10, 10, 10]])
    np.testing.assert_array_equal(data.render((1, 4, 2, 5))[0], expected)
    np.testing.assert_array_equal(
        data.render((1, 4, 2, 5), sourceIds=[1])[0], expected % 10 * (expected != 10)
    )
    assert data.render((50, 52, 0, 2)).sum() == 0


def test_wrong_shapes_and_doubles_are_refused():
    data = VaeModelData(BANDS, latentSize=2)
    with pytest.raises(ImageError, match=r"expected \(3, ny, nx\)"):
        data.add(1, 0, np.ones((2, 3, 3)), (0, 0))
    with pytest.raises(ImageError, match="latentMean"):
        data.add(1, 0, np.ones((3, 3, 3)), (0, 0), [1.0, 2.0, 3.0])
    data.add(1, 0, np.ones((3, 3, 3)), (0, 0))
    with pytest.raises(ImageError, match="already"):
        data.add(1, 0, np.ones((3, 3, 3)), (0, 0))
    with pytest.raises(KeyError, match="source 9"):
        data.model(9)
    with pytest.raises(ImageError, match="distinct"):
        VaeModelData(("r", "r"))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-500])


def otherKind(path):
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = "something else"


def wrongShapes(path):
    with h5py.File(path, "r+") as file:
        file["shape"][0] = (2_000_000_000, 2_000_000_000)


def lackingColumn(path):
    with h5py.File(path, "r+") as file:
        del file["parentId"]


def shorterColumn(path):
    with h5py.File(path, "r+") as file:
        del file["parentId"]
        file["parentId"] = np.zeros(1, dtype=np.int64)


def outsideData(path):
    """An HDF5 file may name any file of the machine as its data."""
    secret = path.with_name("secret")
    secret.write_bytes(bytes(32))
    with h5py.File(path, "r+") as file:
        del file["parentId"]
        file.create_dataset("parentId", (4,), np.int64, external=[(str(secret), 0, 32)])


def emptyColumn(path):
    """Allocated nowhere: 800 MB of fill values from a file of some KB."""
    with h5py.File(path, "r+") as file:
        for name in ("sourceId", "parentId"):
            del file[name]
            file.create_dataset(name, (10**7,), np.int64, chunks=(10**6,))


def hugeColumn(path):
    with h5py.File(path, "r+") as file:
        del file["sourceId"]
        file.create_dataset("sourceId", (10**12,), np.int64, chunks=(10**6,))


def backwardSpans(path):
    with h5py.File(path, "r+") as file:
        del file["parentSpans"]
        file["parentSpans"] = np.array([[7, 0, 5, 4]], dtype=np.int64)


def hugeSpans(path):
    with h5py.File(path, "r+") as file:
        del file["parentSpans"]
        file["parentSpans"] = np.array([[7, 2**40, 5, 9]], dtype=np.int64)


@pytest.mark.parametrize(
    "harm",
    [
        truncate,
        otherKind,
        wrongShapes,
        lackingColumn,
        shorterColumn,
        outsideData,
        emptyColumn,
        hugeColumn,
        backwardSpans,
        hugeSpans,
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, harm):
    path = tmp_path / "models.h5"
    makeData().write(path)
    harm(path)
    with pytest.raises(ShardError, match="models.h5"):
        VaeModelData.read(path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "models.h5"
    makeData().write(path)
    before = path.read_bytes()
    data = makeData()
    data.metadata["bad"] = object()
    with pytest.raises(TypeError):
        data.write(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["models.h5"]
