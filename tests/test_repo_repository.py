# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""A data repository is made on first use, holds campaigns, and keeps what it
is given."""

import shutil

import numpy as np
import pytest

pytest.importorskip("lsst.daf.butler")

from lsst.daf.butler import Butler, Config

from lsst.meas.extensions.vae.errors import ModelPackageError, RepositoryError
from lsst.meas.extensions.vae.network.package import ModelPackage
from lsst.meas.extensions.vae.repo import (
    DATASET_TYPES,
    VaeModelData,
    campaignCounts,
    campaignMeta,
    ingestModelPackages,
    listCampaigns,
    openRepository,
    pretrainedRun,
    provideModelPackage,
    registerCampaign,
    selectWhere,
)
from lsst.meas.extensions.vae.repo.formatters import readProvenance

META = {"survey": "lsst10yr", "seed": 7, "bands": ("g", "r", "i"), "density": np.float32(0.5)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A repository with a campaign of a few shards."""
    root = tmp_path_factory.mktemp("repo") / "new" / "deep"
    butler = openRepository(root)
    registerCampaign(butler, "demo", 2, 1, 0, 1, META)
    return root


@pytest.fixture(scope="module")
def butler(root):
    return openRepository(root)


def makePackage(name="toy", scale=1.0):
    card = {
        "name": name,
        "architecture": {"name": "toy", "options": {}},
        "survey": "lsst10yr",
        "bands": ["g", "r"],
        "pixel_scale": [0.2, 0.2],
        "psf": [{"kind": "gaussian", "fwhm": 0.7}] * 2,
        "stamp_size": 64,
        "latent_dim": 4,
        "normalisation": {"kind": "noise"},
    }
    weights = {"dense/kernel": np.full((3, 4), scale, dtype=np.float32)}
    return ModelPackage(card, {"decoder": weights})


def put(butler, obj, name, run, **dataId):
    """Put a dataset into a RUN of its own; return its reference and file."""
    butler.collections.register(run)
    ref = butler.put(obj, name, run=run, **dataId)
    return ref, butler.getURI(ref).ospath


def test_a_new_repository_knows_our_types_and_bands(butler):
    for name, (dimensions, storageClass) in DATASET_TYPES.items():
        datasetType = butler.get_dataset_type(name)
        assert set(datasetType.dimensions.required) == set(dimensions)
        assert datasetType.storageClass_name == storageClass
    bands = {record.name for record in butler.query_dimension_records("band")}
    assert bands >= {"u", "g", "r", "i", "z", "y", "VIS", "Y", "J", "H"}


def test_opening_twice_changes_nothing(root, butler):
    again = openRepository(root)
    assert len(again.query_dimension_records("physical_filter")) == len(
        butler.query_dimension_records("physical_filter")
    )
    assert listCampaigns(again) == ["demo"]


def test_a_campaign_has_a_tract_a_split_and_a_patch_a_shard(butler):
    assert campaignCounts(butler, "demo") == {"train": 2, "validation": 1, "test": 0, "fields": 1}
    assert campaignMeta(butler, "demo")["bands"] == ["g", "r", "i"]
    assert campaignMeta(butler, "demo")["density"] == 0.5
    ids = butler.query_data_ids(["patch"], where=selectWhere("demo", ["train", "fields"], [0]))
    assert {(i["tract"], i["patch"]) for i in ids} == {(0, 0), (3, 0)}
    assert selectWhere("demo", "test") == "skymap='vae_demo' AND tract=2"
    with pytest.raises(RepositoryError, match="'tset'"):
        selectWhere("demo", "tset")


def test_shards_can_be_added_to_a_campaign_later(butler):
    registerCampaign(butler, "grows", 1, 0, 0, 0, META)
    assert registerCampaign(butler, "grows", 3, 1, 0, 0, META) == "sim/grows"
    assert campaignCounts(butler, "grows") == {"train": 3, "validation": 1, "test": 0, "fields": 0}
    registerCampaign(butler, "grows", 1, 1, 0, 0, META)
    assert campaignCounts(butler, "grows")["train"] == 3, "shards that exist must stay"


def test_a_campaign_is_not_redefined_once_it_has_data(butler):
    registerCampaign(butler, "fixed", 2, 1, 0, 1, META)
    registerCampaign(butler, "fixed", 2, 1, 0, 1, {**META, "seed": 9})
    assert campaignMeta(butler, "fixed")["seed"] == 9, "nothing was made of it yet"
    put(butler, makePackage(), "vae_priorPackage", "u/test/fixed", skymap="vae_fixed")
    with pytest.raises(RepositoryError, match=r"seed \(9, not 8\)"):
        registerCampaign(butler, "fixed", 2, 1, 0, 1, {**META, "seed": 8})
    assert campaignMeta(butler, "fixed")["seed"] == 9


def test_what_a_campaigns_definition_lacks_is_filled_in_and_then_binds(butler):
    registerCampaign(butler, "pipe", 1, 0, 0, 0, {})
    put(butler, makePackage(), "vae_priorPackage", "u/test/pipe", skymap="vae_pipe")
    registerCampaign(butler, "pipe", 1, 0, 0, 0, {"seed": 1})
    with pytest.raises(RepositoryError, match=r"seed \(1, not 2\)"):
        registerCampaign(butler, "pipe", 1, 0, 0, 0, {"seed": 2})


@pytest.mark.parametrize("name", ["", "a b", "x'; drop", "../up", "é", 3, "n" * 60])
def test_a_bad_campaign_name_is_refused(butler, name):
    with pytest.raises(RepositoryError, match="campaign name"):
        registerCampaign(butler, name, 1, 0, 0, 0, META)


def test_bad_shard_counts_are_refused(butler):
    for counts in ((0, 0, 0, 0), (-1, 0, 0, 0), (1.5, 0, 0, 0), (70000, 0, 0, 0)):
        with pytest.raises(RepositoryError, match="shards"):
            registerCampaign(butler, "bad", *counts, META)
    assert "bad" not in listCampaigns(butler)


def test_a_campaign_becomes_the_default_data_id(root):
    butler = openRepository(root, campaign="demo")
    assert len(butler.query_data_ids(["patch"], where="tract=0")) == 2
    with pytest.raises(RepositoryError, match="no campaign 'other'; it has demo"):
        openRepository(root, campaign="other")


def test_a_foreign_directory_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RepositoryError, match=r"neither empty nor a Butler repository .*thesis.tex"):
        openRepository(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RepositoryError, match="cannot be read"):
        openRepository(tmp_path / "thesis.tex")


def test_an_absent_repository_is_made_only_if_wanted(tmp_path):
    with pytest.raises(RepositoryError, match="not a Butler repository"):
        openRepository(tmp_path / "typo", create=False)
    assert not (tmp_path / "typo").exists()


def test_a_repository_of_another_program_is_told_how_to_take_us_in(tmp_path):
    Butler.makeRepo(str(tmp_path), config=Config())
    with pytest.raises(RepositoryError, match="includeConfigs") as refused:
        openRepository(tmp_path)
    # The message's own two lines are the cure.
    yaml = tmp_path / "butler.yaml"
    lines = [
        part for part in str(refused.value).split("'") if "includeConfigs" in part or "resource:" in part
    ]
    yaml.write_text(yaml.read_text() + "\n".join(lines) + "\n")
    butler = openRepository(tmp_path)
    assert butler.get_dataset_type("vae_modelData").storageClass_name == "VaeModelData"


def test_a_damaged_configuration_is_one_line(tmp_path):
    (tmp_path / "butler.yaml").write_text("datastore: [unclosed")
    with pytest.raises(RepositoryError) as refused:
        openRepository(tmp_path)
    assert "\n" not in str(refused.value)


def test_model_packages_are_ingested_once_and_stay(butler, tmp_path, caplog):
    makePackage().save(tmp_path / "toy.vae.zip")
    assert ingestModelPackages(butler, tmp_path) == [pretrainedRun("toy")]
    assert ingestModelPackages(butler, tmp_path) == [pretrainedRun("toy")]
    refs = butler.query_datasets("vae_modelPackage", collections=pretrainedRun("toy"))
    assert len(refs) == 1
    assert butler.get(refs[0]).part("decoder")["dense/kernel"].sum() == 12
    makePackage(scale=2.0).save(tmp_path / "toy.vae.zip")
    ingestModelPackages(butler, tmp_path)
    assert butler.get(refs[0]).part("decoder")["dense/kernel"].sum() == 12
    assert "butler remove-runs REPO pretrained_models/toy" in caplog.text


def test_a_changed_package_of_the_same_name_has_a_run_of_its_own(butler, tmp_path):
    path = makePackage("mine").save(tmp_path / "my model.vae.zip")
    first = provideModelPackage(butler, path)
    assert first == provideModelPackage(butler, f"file://{path}") == "pretrained_models/my_model"
    makePackage("mine", scale=2.0).save(path)
    second = provideModelPackage(butler, path)
    assert second == provideModelPackage(butler, path)
    assert second.startswith(first + "-") and len(second) == len(first) + 9
    sums = [
        butler.get("vae_modelPackage", collections=run).part("decoder")["dense/kernel"].sum()
        for run in (first, second)
    ]
    assert sums == [12, 24]


def test_a_damaged_package_is_not_ingested(butler, tmp_path):
    (tmp_path / "broken.vae.zip").write_bytes(makePackage().to_bytes()[:-40])
    with pytest.raises(ModelPackageError, match="broken"):
        ingestModelPackages(butler, tmp_path)
    assert not butler.query_datasets("vae_modelPackage", collections=pretrainedRun("broken"), explain=False)


def test_a_model_package_is_the_same_with_its_provenance(butler):
    package = makePackage("trained")
    ref, path = put(butler, package, "vae_trainedPackage", "u/test/package", skymap="vae_demo")
    back = butler.get(ref)
    assert back.card == package.card
    np.testing.assert_array_equal(
        back.part("decoder")["dense/kernel"], package.part("decoder")["dense/kernel"]
    )
    provenance = readProvenance(path)
    assert provenance["lsst.butler.id"] == str(ref.id)
    assert provenance["lsst.butler.dataid.skymap"] == "vae_demo"


def test_model_data_come_back_with_their_provenance(butler):
    data = VaeModelData(("g", "r"), "starter", latentSize=3)
    data.add(5, 1, np.arange(24.0).reshape(2, 3, 4), (10, 20), [1, 2, 3], [0.1, 0.2, 0.3])
    ref, path = put(butler, data, "vae_modelData", "u/test/models", skymap="vae_demo", tract=3, patch=0)
    np.testing.assert_array_equal(butler.get(ref).model(5).image, data.model(5).image)
    assert path.endswith(".h5")
    assert readProvenance(path)["lsst.butler.run"] == "u/test/models"


def test_a_damaged_file_in_the_repository_is_named(butler):
    data = VaeModelData(("g",))
    ref, path = put(butler, data, "vae_modelData", "u/test/damaged", skymap="vae_demo", tract=0, patch=1)
    shutil.copy(__file__, path)
    with pytest.raises(Exception, match="vae_modelData"):
        butler.get(ref)
