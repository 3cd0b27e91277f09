# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is put into a repository comes back the same, in files that tell where
they come from, and never as a pickle."""

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

pytest.importorskip("lsst.daf.butler")

from astropy.io import fits
from lsst.daf.butler import DatasetProvenance, DatasetRef

from lsst.meas.extensions.vae import afw
from lsst.meas.extensions.vae.repo import openRepository, registerCampaign
from lsst.meas.extensions.vae.repo.formatters import readProvenance
from lsst.meas.extensions.vae.simulation.shards import StampSample

BANDS = ("g", "y", "Y")


@pytest.fixture(scope="module")
def butler(tmp_path_factory):
    butler = openRepository(tmp_path_factory.mktemp("formatters") / "repo")
    registerCampaign(butler, "demo", 1, 0, 0, 1, {})
    butler.collections.register("u/test/run")
    return butler.clone(run="u/test/run", collections=["u/test/run"])


@pytest.fixture(scope="module")
def exposure():
    rng = np.random.default_rng(1)
    cube = rng.normal(size=(3, 20, 30)).astype(np.float32)
    box = afw.Box2I(afw.Point2I(100, 200), afw.Extent2I(30, 20))
    return afw.MultibandExposure.fromArrays(BANDS, cube, np.zeros(cube.shape, np.int32), cube**2, bbox=box)


@pytest.fixture(scope="module")
def stored(butler, exposure):
    """The reference and the file of a multi-band image."""
    ref = butler.put(exposure, "vae_field", skymap="vae_demo", tract=3, patch=0)
    return ref, butler.getURI(ref).ospath


def makeSample():
    rng = np.random.default_rng(2)
    return StampSample(
        survey="lsst10yr",
        bands=("g", "r"),
        kind="isolated",
        settings={},
        seed=1,
        split="train",
        versions={},
        profiles=rng.random((3, 1, 8, 8)).astype(np.float16),
        fluxes=rng.random((3, 2)).astype(np.float32),
        scene=np.array([0, 1, 1], dtype=np.int32),
        galaxy=np.zeros(3, dtype=np.int8),
        truth=Table({"id": [4, 5]}),
        band_profile=np.zeros(2, dtype=np.int64),
    )


def test_a_multiband_image_comes_back(butler, exposure, stored):
    back = butler.get(stored[0])
    assert back.bands == BANDS and back.getBBox() == exposure.getBBox()
    for name in ("image", "mask", "variance"):
        np.testing.assert_array_equal(getattr(back, name).array, getattr(exposure, name).array)


def test_parameters_cut_bands_and_box(butler, exposure, stored):
    box = afw.Box2I(afw.Point2I(110, 205), afw.Extent2I(4, 6))
    expected = exposure.image.array[2:, 5:11, 10:14]
    part = butler.get(stored[0], parameters={"bands": ["Y"], "bbox": box})
    assert part.bands == ("Y",) and part.getBBox() == box
    np.testing.assert_array_equal(part.image.array, expected)
    assert butler.get("vae_field.bands", skymap="vae_demo", tract=3, patch=0) == list(BANDS)


def test_the_same_cuts_work_on_an_image_in_memory(butler, exposure):
    delegate = butler.get_dataset_type("vae_field").storageClass.delegate()
    box = afw.Box2I(afw.Point2I(110, 205), afw.Extent2I(4, 6))
    part = delegate.handleParameters(exposure, {"bands": ["Y"], "bbox": box})
    assert part.bands == ("Y",) and part.getBBox() == box
    np.testing.assert_array_equal(part.image.array, exposure.image.array[2:, 5:11, 10:14])
    assert delegate.handleParameters(exposure, {"bands": ("y", "g")}).bands == ("y", "g")
    assert delegate.getComponent(exposure, "bands") == list(BANDS)


def test_a_fits_header_tells_the_dataset_and_its_inputs(butler, exposure, stored):
    provenance = DatasetProvenance()
    provenance.add_input(stored[0])
    butler.collections.register("u/test/" + "long" * 15)
    ref = butler.put(
        exposure,
        "vae_field",
        skymap="vae_demo",
        tract=3,
        patch=0,
        run="u/test/" + "long" * 15,
        provenance=provenance,
    )
    path = butler.getURI(ref).ospath
    header = fits.getheader(path)
    assert header["LSST BUTLER ID"] == str(ref.id)
    assert header["LSST BUTLER DATAID PATCH"] == 0
    assert header["LSST BUTLER INPUT 0 ID"] == str(stored[0].id)
    assert readProvenance(path)["lsst.butler.input.0.datasettype"] == "vae_field"
    assert ref.run.startswith(header["LSST BUTLER RUN"])
    assert butler.get(ref).bands == BANDS


def test_many_inputs_are_counted_only(butler):
    provenance = DatasetProvenance()
    campaign = butler.registry.expandDataId(skymap="vae_demo")
    for n in range(400):
        provenance.add_input(DatasetRef(butler.get_dataset_type("vae_campaign"), campaign, run=f"u/test/{n}"))
    ref = butler.put(
        makeSample(), "vae_blendStamps", skymap="vae_demo", tract=0, patch=0, provenance=provenance
    )
    told = readProvenance(butler.getURI(ref).ospath)
    assert told["lsst.butler.n_inputs"] == 400 and "lsst.butler.input.0.id" not in told


def test_a_shard_comes_back_with_its_provenance(butler):
    sample = makeSample()
    ref = butler.put(sample, "vae_isolatedStamps", skymap="vae_demo", tract=0, patch=0)
    back = butler.get(ref)
    np.testing.assert_array_equal(back.profiles, sample.profiles)
    np.testing.assert_array_equal(back.truth["id"], sample.truth["id"])
    assert readProvenance(butler.getURI(ref).ospath)["lsst.butler.id"] == str(ref.id)


def test_a_source_catalogue_comes_back(butler):
    schema = afw.SourceTable.makeMinimalSchema()
    key = schema.addField("deblend_nChild", type=np.int32, doc="Children.")
    catalog = afw.SourceCatalog(schema)
    for n in range(3):
        catalog.addNew().set(key, n)
    ref = butler.put(catalog, "vae_deblendedCatalog", skymap="vae_demo", tract=3, patch=0)
    back = butler.get(ref)
    assert [record.get("deblend_nChild") for record in back] == [0, 1, 2]
    assert readProvenance(butler.getURI(ref).ospath)["lsst.butler.id"] == str(ref.id)


def test_a_table_is_kept_as_parquet(butler):
    table = Table({"id": [1, 2], "mag": [20.5, np.nan]})
    ref = butler.put(table, "vae_shapes", skymap="vae_demo", tract=3, patch=0)
    assert butler.getURI(ref).getExtension() == ".parq"
    np.testing.assert_array_equal(butler.get(ref)["mag"], table["mag"])


def test_no_file_of_the_repository_is_a_pickle(butler):
    """Runs last: looks at what the tests above have written."""
    run = Path(butler.getURI(butler.query_datasets("vae_shapes")[0]).ospath).parents[3]
    files = [path for path in run.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".fits", ".h5", ".parq"}
    # Every pickle protocol since 2 starts with this byte.
    assert not [path for path in files if path.read_bytes()[:1] == b"\x80"]
