# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Before the graph: the model package that the user meant is the one that is
used, and a campaign keeps which galaxies it is drawn from."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("lsst.ctrl.mpexec")

from lsst.daf.butler import CollectionType

from lsst.meas.extensions.vae.deblendVaeTask import DeblendVaeConfig
from lsst.meas.extensions.vae.errors import CatalogError, ModelPackageError, RepositoryError
from lsst.meas.extensions.vae.network import shipped
from lsst.meas.extensions.vae.network.package import ModelPackage
from lsst.meas.extensions.vae.prepare import prepareCampaign, prepareModel
from lsst.meas.extensions.vae.repo import campaignMeta, listCampaigns, openRepository, provideModelPackage
from lsst.meas.extensions.vae.repo.execution import planRun
from lsst.meas.extensions.vae.simulateBlendsTask import SimulateBlendsConfig


def package(scale=1.0):
    card = {
        "name": "toy",
        "architecture": {"name": "toy", "options": {}},
        "survey": "lsst10yr",
        "bands": ["g"],
        "pixel_scale": [0.2],
        "psf": [{"kind": "gaussian", "fwhm": 0.7}],
        "stamp_size": 64,
        "latent_dim": 4,
        "normalisation": {"kind": "noise"},
    }
    return ModelPackage(card, {"decoder": {"kernel": np.full(3, scale, dtype=np.float32)}})


@pytest.fixture(scope="module")
def butler(tmp_path_factory):
    """A repository whose only shipped package is "lsst10yr-ugrizy"."""
    root = tmp_path_factory.mktemp("prepare")
    (root / "models").mkdir()
    package(0.5).save(root / "models" / "lsst10yr-ugrizy.vae.zip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipped, "_folder", lambda: root / "models")
        patch.setenv("USER", "someone")
        butler = openRepository(root / "repo")
        butler.collections.register("sim/field")
        yield butler
        butler.close()


def prepared(butler, modelPackage=None, input=None, output=None):
    """Return the inputs that `prepareModel` leaves."""
    config = DeblendVaeConfig()
    if modelPackage is not None:
        config.modelPackage = str(modelPackage)
    args = SimpleNamespace(input=input, output=output)
    prepareModel(butler, config, args)
    return args.input


def scaleOf(butler, run):
    return butler.get("vae_modelPackage", collections=run).part("decoder")["kernel"][0]


def chain(butler, name, *children):
    butler.collections.register(f"u/someone/{name}", CollectionType.CHAINED)
    butler.collections.redefine_chain(f"u/someone/{name}", children)


def test_a_package_file_becomes_an_input(butler, tmp_path):
    path = package(3.0).save(tmp_path / "mine.vae.zip")
    inputs = prepared(butler, path, ["sim/field"])
    assert inputs == ["pretrained_models/mine", "sim/field"]
    assert scaleOf(butler, inputs[0]) == 3
    assert prepared(butler, path, ["sim/field"]) == inputs


def test_a_retrained_package_at_the_same_path_is_used(butler, tmp_path):
    path = package(4.0).save(tmp_path / "again.vae.zip")
    prepared(butler, path, ["sim/field"])
    package(5.0).save(path)
    run = prepared(butler, path, ["sim/field"])[0]
    assert run.startswith("pretrained_models/again-") and scaleOf(butler, run) == 5


def test_a_chain_with_an_old_package_does_not_hide_the_new_one(butler, tmp_path):
    old = provideModelPackage(butler, "old.vae.zip", package(6.0))
    chain(butler, "chained", "sim/field", old)
    path = package(7.0).save(tmp_path / "newer.vae.zip")
    inputs = prepared(butler, path, ["u/someone/chained"])
    assert scaleOf(butler, inputs) == 7
    plan = planRun(butler, "deblendVae", None, "chained", prepared(butler, path, None, "chained"))
    assert scaleOf(butler, plan.chain[1:]) == 7


@pytest.mark.parametrize("inputs", [["sim/field"], None])
def test_a_package_that_cannot_be_read_is_told_and_leaves_nothing(butler, tmp_path, inputs):
    before = set(butler.collections.query("*"))
    with pytest.raises(ModelPackageError, match="no model package 'lsst10yr-ugriz': .*lsst10yr-ugrizy"):
        prepared(butler, "lsst10yr-ugriz", inputs)
    (tmp_path / "broken.vae.zip").write_bytes(b"PK no zip")
    with pytest.raises(ModelPackageError, match="broken"):
        prepared(butler, tmp_path / "broken.vae.zip", inputs)
    assert set(butler.collections.query("*")) == before


def test_the_default_gives_way_to_a_named_run_but_an_explicit_one_does_not(butler, tmp_path):
    named = provideModelPackage(butler, "named.vae.zip", package(8.0))
    assert prepared(butler, None, ["sim/field", named]) == ["sim/field", named]
    same = package(8.0).save(tmp_path / "same.vae.zip")
    assert prepared(butler, same, ["sim/field", named]) == ["sim/field", named]
    for other in ("lsst10yr-ugrizy", package(9.0).save(tmp_path / "other.vae.zip")):
        with pytest.raises(RepositoryError, match="are different model packages"):
            prepared(butler, other, ["sim/field", named])
    absent = ["sim/field", "pretrained_models/absent"]
    assert prepared(butler, "lsst10yr-ugrizy", absent) == absent


def test_an_output_that_goes_on_keeps_its_package(butler, tmp_path):
    named = provideModelPackage(butler, "kept.vae.zip", package(10.0))
    chain(butler, "goesOn", "sim/field", named)
    assert prepared(butler, None, None, "goesOn") is None
    path = package(11.0).save(tmp_path / "kept.vae.zip")
    (run,) = prepared(butler, path, None, "goesOn")
    assert scaleOf(butler, run) == 11
    assert prepared(butler, None, None, "unknown") is None


def campaign(**galaxies):
    config = SimulateBlendsConfig()
    config.campaign = "toy"
    for name, value in galaxies.items():
        setattr(config.galaxies, name, value)
    return config, SimpleNamespace(input=None, output=None, dataQuery=None, id=None)


def test_a_campaign_keeps_what_auto_stands_for(tmp_path, monkeypatch):
    monkeypatch.setenv("MEAS_EXTENSIONS_VAE_CACHE", str(tmp_path / "empty"))
    butler = openRepository(tmp_path / "repo")
    with pytest.raises(CatalogError, match=r"nope\.fits"):
        prepareCampaign(butler, *campaign(name="cosmos", path="/nope.fits"))
    assert listCampaigns(butler) == [], "a missing catalogue must leave nothing"
    prepareCampaign(butler, *campaign(n=500))
    meta = campaignMeta(butler, "toy")
    assert meta["galaxies"] == "synthetic" and meta["galaxiesN"] == 500
    prepareCampaign(butler, *campaign(n=500, name="synthetic"))
    butler.put(package(), "vae_priorPackage", skymap="vae_toy", run="sim/toy")
    with pytest.raises(RepositoryError, match=r"galaxiesN \(500, not 600\)"):
        prepareCampaign(butler, *campaign(n=600))
    butler.close()
