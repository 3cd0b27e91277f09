# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line runs a task's quantum graph, resumes it, and tells bad
input in one line, without having touched anything."""

import os

import pytest

pytest.importorskip("lsst.ctrl.mpexec")

import lsst.pipe.base.connectionTypes as cT
from lsst.pipe.base import NoWorkFound, PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct
from pydantic import Field

from lsst.meas.extensions.vae.cli import dataQuery, main
from lsst.meas.extensions.vae.config import Config, toPexConfig
from lsst.meas.extensions.vae.errors import ImageError, RepositoryError
from lsst.meas.extensions.vae.repo import openRepository, registerCampaign


class ToyInnerConfig(Config):
    offset: float = Field(0.0, ge=-10, le=10, description="Added to each number.")


class ToyConfig(Config):
    factor: float = Field(2.0, gt=0, description="What a shard's number is multiplied by.")
    word: str = Field("none", description="Any word.")
    inner: ToyInnerConfig = Field(default_factory=ToyInnerConfig, description="A nested config.")


class ToyConnections(PipelineTaskConnections, dimensions=("skymap", "tract", "patch")):
    campaign = cT.Input(
        doc="The campaign.", name="vae_campaign", storageClass="StructuredDataDict", dimensions=("skymap",)
    )
    number = cT.Output(
        doc="A number.",
        name="toy_number",
        storageClass="StructuredDataDict",
        dimensions=("skymap", "tract", "patch"),
    )


PexToyConfig = toPexConfig(ToyConfig, bases=(PipelineTaskConfig,), pipelineConnections=ToyConnections)

TROUBLE = {}  # exception to raise, by shard
DONE = []  # shards that were run


class ToyTask(PipelineTask):
    """Multiply shard numbers.

    The rest of the docstring is not shown.
    """

    ConfigModel = ToyConfig
    ConfigClass = PexToyConfig
    _DefaultName = "toy"

    def runQuantum(self, butlerQC, inputRefs, outputRefs):
        shard = butlerQC.quantum.dataId["patch"]
        DONE.append(shard)
        if shard in TROUBLE:
            raise TROUBLE[shard]
        if self.config.word == "idle":
            raise NoWorkFound("no sources there")
        butlerQC.put(self.run(shard, butlerQC.get(inputRefs.campaign)), outputRefs)

    def run(self, shard, campaign):
        settings = self.config
        return Struct(
            number={"number": shard * settings.factor + settings.inner.offset, "seed": campaign["seed"]}
        )


class ReaderConnections(PipelineTaskConnections, dimensions=("skymap", "tract", "patch")):
    number = cT.Input(
        doc="A number.",
        name="toy_idle",
        storageClass="StructuredDataDict",
        dimensions=("skymap", "tract", "patch"),
    )


class ReaderConfig(Config):
    pass


class ReaderTask(PipelineTask):
    """Read numbers."""

    ConfigModel = ReaderConfig
    ConfigClass = toPexConfig(
        ReaderConfig, bases=(PipelineTaskConfig,), pipelineConnections=ReaderConnections
    )
    _DefaultName = "reader"


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    """A repository with a campaign of three training shards and a field."""
    root = tmp_path_factory.mktemp("cli") / "repo"
    registerCampaign(openRepository(root), "demo", 3, 0, 0, 1, {"seed": 5})
    return str(root)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setenv("USER", "someone")
    monkeypatch.setenv("LOGNAME", "someone")
    TROUBLE.clear()
    DONE.clear()


TRAIN = ("-i", "sim/demo", "-d", "skymap='vae_demo' AND tract=0")


def run(repo, *arguments, versions=False, **kwargs):
    fast = () if versions else ("--no-versions",)
    return main(ToyTask, [str(repo), *map(str, arguments), *fast], prog="toy.py", **kwargs)


def numbers(repo, collection):
    """Return the numbers of a collection by (tract, patch)."""
    butler = openRepository(repo, writeable=False)
    refs = butler.query_datasets("toy_number", collections=collection, explain=False)
    return {(ref.dataId["tract"], ref.dataId["patch"]): butler.get(ref)["number"] for ref in refs}


def runsOf(repo, collection):
    return openRepository(repo, writeable=False).collections.get_info(collection).children


def test_a_run_writes_every_shard_and_says_so(repo, capsys):
    assert run(repo, *TRAIN, "-o", "first", "-c", "factor=3", "inner.offset=0.5", versions=True) == 0
    out = capsys.readouterr().out
    assert "toy: 3 quanta run, 0 skipped (done before), 0 failed" in out
    assert "3 toy_number in u/someone/first/" in out
    assert numbers(repo, "u/someone/first") == {(0, 0): 0.5, (0, 1): 3.5, (0, 2): 6.5}
    children = runsOf(repo, "u/someone/first")
    assert children[0].startswith("u/someone/first/2") and children[1:] == ("sim/demo",)
    butler = openRepository(repo, writeable=False)
    for name in ("toy_config", "packages"):
        assert butler.find_dataset(name, collections=children[0]) is not None
    assert "python" in butler.get("packages", collections=children[0])


def test_the_same_command_resumes_and_then_has_nothing_to_do(repo, capsys):
    arguments = (*TRAIN, "-o", "resumed")
    TROUBLE[1] = RuntimeError("power cut")
    assert run(repo, *arguments) == 1
    assert "1 failed" in capsys.readouterr().out
    assert set(numbers(repo, "u/someone/resumed")) == {(0, 0), (0, 2)}
    TROUBLE.clear()
    DONE.clear()
    assert run(repo, *arguments) == 0
    assert DONE == [1], "shards that are done must not be run again"
    assert "1 quanta run, 2 skipped" in capsys.readouterr().out
    assert run(repo, *arguments) == 0
    assert DONE == [1]
    assert "nothing left to do, all 3 quanta" in capsys.readouterr().out
    assert len(runsOf(repo, "u/someone/resumed")) == 2


def test_a_resumed_output_needs_no_input_again_and_may_grow(repo, capsys):
    assert run(repo, "-i", "sim/demo", "-d", "skymap='vae_demo' AND tract=0 AND patch=0", "-o", "grown") == 0
    assert run(repo, "-d", "skymap='vae_demo' AND tract=0", "-o", "u/someone/grown") == 0
    assert DONE == [0, 1, 2]
    assert len(numbers(repo, "u/someone/grown")) == 3


def test_another_config_does_not_go_into_the_same_run(repo, capsys):
    arguments = (*TRAIN, "-o", "configs")
    assert run(repo, *arguments) == 0
    assert run(repo, *arguments, "-c", "inner.offset=1") == 2
    err = capsys.readouterr().err
    assert "inner.offset: 0.0 then, 1.0 now" in err and "--new-run" in err
    assert numbers(repo, "u/someone/configs")[0, 1] == 2
    assert run(repo, *arguments, "-c", "inner.offset=1", "--new-run") == 0
    assert numbers(repo, "u/someone/configs")[0, 1] == 3
    assert len(runsOf(repo, "u/someone/configs")) == 3
    assert run(repo, *arguments, "-c", "inner.offset=2", "--clobber-output") == 0
    assert len(runsOf(repo, "u/someone/configs")) == 2


def test_other_inputs_do_not_go_into_the_same_run(repo, capsys):
    openRepository(repo).collections.register("sim/other")
    assert run(repo, *TRAIN, "-o", "inputs") == 0
    assert run(repo, "-i", "sim/demo,sim/other", *TRAIN[2:], "-o", "inputs") == 2
    assert "was made from sim/demo, not from sim/other" in capsys.readouterr().err


def test_named_inputs_are_found_before_those_of_earlier_runs(repo):
    openRepository(repo).collections.register("sim/newer")
    assert run(repo, *TRAIN, "-o", "order") == 0
    assert run(repo, "-i", "sim/newer", *TRAIN[2:], "-o", "order", "--new-run") == 0
    assert runsOf(repo, "u/someone/order")[2:] == ("sim/newer", "sim/demo")


def test_a_run_without_a_finished_quantum_binds_nobody(repo):
    openRepository(repo).collections.register("sim/wrong")
    TROUBLE.update({shard: RuntimeError("a bad path") for shard in range(3)})
    assert run(repo, "-i", "sim/demo,sim/wrong", *TRAIN[2:], "-o", "retried", "-c", "word=bad") == 1
    TROUBLE.clear()
    assert run(repo, *TRAIN, "-o", "retried", "-c", "word=good") == 0
    assert len(numbers(repo, "u/someone/retried")) == 3
    children = runsOf(repo, "u/someone/retried")
    assert len(children) == 2 and children[1] == "sim/demo", "the failed attempt leaves the chain"
    assert run(repo, *TRAIN, "-o", "retried", "-c", "word=bad") == 2


def test_quanta_without_work_are_told_with_the_reason(repo, capsys):
    arguments = (*TRAIN, "-o", "idle", "-c", "word=idle")
    assert run(repo, *arguments) == 0
    told = (
        "toy: no work found for skymap=vae_demo tract=0 patch=0, skymap=vae_demo tract=0 patch=1, "
        "skymap=vae_demo tract=0 patch=2: no sources there\n"
    )
    assert told in capsys.readouterr().out
    assert run(repo, *arguments) == 0
    out = capsys.readouterr().out
    assert "nothing left to do" in out and told in out


def test_the_reason_comes_from_other_processes_too(repo, capsys):
    where = f"{TRAIN[3]} AND patch=2"
    assert run(repo, "-i", "sim/demo", "-d", where, "-o", "idle2", "-j", "2", "-c", "word=idle") == 0
    assert "no work found for skymap=vae_demo tract=0 patch=2: no sources" in capsys.readouterr().out


def test_a_missing_input_is_told_with_what_found_no_work(repo, capsys):
    overrides = ("-c", "word=idle", "connections.number=toy_idle")
    assert run(repo, *TRAIN, "-o", "upstream", *overrides) == 0
    capsys.readouterr()
    assert main(ReaderTask, [repo, "-i", "upstream", "-o", "down", *TRAIN[2:]], prog="reader.py") == 2
    err = capsys.readouterr().err
    assert "no toy_idle in" in err and err.count("\n") == 1
    assert "toy found no work for skymap=vae_demo tract=0 patch=0, ...: no sources there" in err


def test_ctrl_c_keeps_what_is_finished(repo, capsys):
    TROUBLE[1] = KeyboardInterrupt()
    assert run(repo, *TRAIN, "-o", "stopped") == 130
    captured = capsys.readouterr()
    assert "the same command resumes" in captured.err
    assert set(numbers(repo, "u/someone/stopped")) == {(0, 0)}
    TROUBLE.clear()
    DONE.clear()
    assert run(repo, *TRAIN, "-o", "stopped") == 0
    assert DONE == [1, 2]


def test_bad_data_in_a_quantum_is_one_line_and_code_2(repo, capsys, caplog):
    TROUBLE[2] = ImageError("band 'q' is not in the model (g, r): choose other bands")
    assert run(repo, *TRAIN, "-o", "bad") == 2
    err = capsys.readouterr().err
    assert "toy.py: error: band 'q' is not in the model (g, r): choose other bands\n" in err
    assert "Traceback" not in err + caplog.text
    assert len(numbers(repo, "u/someone/bad")) == 2, "the other shards are kept"
    TROUBLE[2] = ZeroDivisionError("a mistake of ours")
    assert run(repo, *TRAIN, "-o", "bad") == 1
    assert run(repo, *TRAIN, "-o", "bad", "--noExit") == 0
    with pytest.raises(ZeroDivisionError):
        run(repo, *TRAIN, "-o", "bad", "--doraise")


def test_quanta_run_in_processes_of_their_own(repo):
    where = f"{TRAIN[3]} AND patch=2"
    assert run(repo, "-i", "sim/demo", "-d", where, "-o", "parallel", "-j", "2", "-c", "factor=5") == 0
    assert numbers(repo, "u/someone/parallel") == {(0, 2): 10}
    assert DONE == [], "the quantum should run in another process"


def test_the_former_spellings_are_understood(repo, tmp_path, capsys):
    override = tmp_path / "override.py"
    override.write_text("config.factor = 7\nconfig.inner.offset = 1.0\n")
    arguments = ("--rerun", "sim/demo:old", "--configfile", override, "-c", "inner.offset=2")
    identity = ("--id", "skymap=vae_demo", "tract=0", "patch=0^2", "--id", "skymap=vae_demo", "tract=3")
    assert run(repo, *arguments, *identity, "--longlog", "--clobber-config", "-L", "ERROR") == 0
    assert numbers(repo, "u/someone/old") == {(0, 0): 2, (0, 2): 16, (3, 0): 2}
    assert run(repo, "--rerun", "old:new", "--output", "too") == 2
    assert "--rerun stands for" in capsys.readouterr().err


def test_overrides_apply_from_left_to_right(repo, tmp_path, capsys):
    override = tmp_path / "override.py"
    override.write_text("config.factor = 7\n")
    assert run(repo, "-c", "factor=3", "-C", override, "--show", "config=factor") == 0
    assert capsys.readouterr().out.strip().endswith("config.factor=7.0")
    assert run(repo, "-C", override, "-c", "factor=3", "--show", "config=factor") == 0
    assert capsys.readouterr().out.strip().endswith("config.factor=3.0")


def test_a_site_config_comes_before_the_overrides(repo, tmp_path, monkeypatch, capsys):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "toy.py").write_text("config.factor = 11\nconfig.word = 'site'\n")
    monkeypatch.setenv("MEAS_EXTENSIONS_VAE_DIR", str(tmp_path))
    assert run(repo, "-c", "factor=3", "--show", "config") == 0
    out = capsys.readouterr().out
    assert "config.factor=3.0" in out and "config.word='site'" in out


def test_connections_can_be_renamed(repo):
    assert run(repo, *TRAIN, "-o", "renamed", "-c", "connections.number=toy_renamed") == 0
    butler = openRepository(repo, writeable=False)
    assert len(butler.query_datasets("toy_renamed", collections="u/someone/renamed")) == 3


def test_show_tells_and_runs_only_if_asked(repo, tmp_path, capsys):
    absent = tmp_path / "absent"
    assert run(absent, "--show", "config", "tasks") == 0
    out = capsys.readouterr().out
    assert "# What a shard's number is multiplied by.\nconfig.factor=2.0" in out and "ToyTask" in out
    assert run(absent, "-c", "factor=4", "--show", "history=factor") == 0
    assert "--config" in capsys.readouterr().out
    assert not absent.exists() and DONE == []
    assert run(repo, *TRAIN, "-o", "shown", "--show", "data") == 0
    assert "toy skymap=vae_demo tract=0 patch=2" in capsys.readouterr().out
    assert DONE == []
    assert run(repo, *TRAIN, "-o", "shown", "--show", "config", "run") == 0
    assert DONE == [0, 1, 2]


def test_arguments_come_from_a_file(repo, tmp_path):
    arguments = tmp_path / "arguments"
    arguments.write_text("-i sim/demo -o fromFile  # a comment\n-d \"skymap='vae_demo' AND tract=3\"\n")
    assert run(repo, f"@{arguments}") == 0
    assert DONE == [0]


def test_a_hostile_override_file_executes_nothing(tmp_path, capsys):
    mark = tmp_path / "mark"
    evil = tmp_path / "evil.py"
    evil.write_text(f"config.factor = 3\n__import__('os').system('touch {mark}')\n")
    assert run(tmp_path / "repo", *TRAIN, "-o", "evil", "-C", evil) == 2
    err = capsys.readouterr().err
    assert err.startswith("toy.py: error:") and f"{evil}:2" in err and err.count("\n") == 1
    assert run(
        tmp_path / "repo", *TRAIN, "-o", "evil", "-c", f"word=__import__('os').system('touch {mark}')"
    ) in (0, 2)
    assert not mark.exists()


@pytest.mark.parametrize(
    "arguments, told",
    [
        (("-c", "factor=-1"), "config.factor"),
        (("-c", "factor='3'"), "config.factor"),
        (("-c", "fctor=3"), "did you mean factor"),
        (("-c", "factor"), "NAME=VALUE"),
        (("-C", "/does/not/exist.py"), "exist.py"),
        (("-c", "connections.nmber=x"), "nmber"),
        (("--show", "everything"), "everything"),
        (("-j", "0"), "-j 0"),
        (("-L", "LOUD"), "LOUD"),
        (("--id", "patch=5..2"), "5..2"),
        (("--id", "patch"), "KEY=V1"),
        (("-i", "nowhere"), "'nowhere'"),
        (("-d", "tract ="), "tract"),
        (("-d", "skymap='vae_demo' AND planet=3"), "planet"),
        (("-d", "skymap='vae_demo' AND tract=1"), "nothing to do"),
        (("-o", "sim/demo"), "RUN collection"),
    ],
)
def test_bad_arguments_are_one_line_and_code_2(repo, capsys, arguments, told):
    rest = [argument for key in ("-i", "-d") if key not in arguments for argument in TRAIN[:2] if key == "-i"]
    if "-d" not in arguments and "--id" not in arguments:
        rest += TRAIN[2:]
    output = () if "-o" in arguments else ("-o", "refused")
    assert run(repo, *rest, *output, *arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("toy.py: error:") and err.count("\n") == 1 and told in err
    assert DONE == []


def test_bad_arguments_leave_no_output(repo):
    assert run(repo, "-i", "sim/demo", "-d", "skymap='vae_demo' AND tract=1", "-o", "refused") == 2
    assert not openRepository(repo, writeable=False).collections.query("u/someone/refused*")


def test_a_query_needs_no_skymap_where_the_inputs_have_one(repo, capsys):
    registerCampaign(openRepository(repo), "second", 2, 0, 0, 0, {"seed": 6})
    assert run(repo, "-i", "sim/demo", "-d", "tract=0", "-o", "inferred") == 0
    assert DONE == [0, 1, 2]
    assert run(repo, "-d", "tract=0", "-o", "inferred") == 0
    assert "all 3 quanta are done" in capsys.readouterr().out
    assert run(repo, "-i", "sim/demo", "-d", "tract=0 AND patch<2 OR tract=3", "-o", "either") == 0
    assert set(numbers(repo, "u/someone/either")) == {(0, 0), (0, 1), (3, 0)}
    for query in ("tract=0", "tract=0 OR tract=3"):
        assert run(repo, "-i", "sim/demo,sim/second", "-d", query, "-o", "ambiguous") == 2
        assert "such as skymap='vae_demo' AND (...)" in capsys.readouterr().err


def test_missing_collections_are_told(repo, capsys):
    assert run(repo, "-o", "noInput", *TRAIN[2:]) == 2
    assert "give -i" in capsys.readouterr().err
    assert run(repo, *TRAIN) == 2
    assert "give one by -o" in capsys.readouterr().err
    openRepository(repo).collections.register("sim/empty")
    assert run(repo, "-i", "sim/empty", *TRAIN[2:], "-o", "empty") == 2
    assert "no vae_campaign in sim/empty" in capsys.readouterr().err


def test_a_foreign_directory_is_refused(tmp_path, capsys):
    (tmp_path / "mine").write_text("")
    assert run(tmp_path, *TRAIN, "-o", "x") == 2
    assert "neither empty nor a Butler repository" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["mine"]


def test_prepare_makes_what_the_graph_needs(tmp_path, capsys):
    def prepare(butler, config, args):
        args.input = [registerCampaign(butler, "made", 2, 0, 0, 0, {"seed": config.factor})]
        args.dataQuery = "skymap='vae_made'"

    assert run(tmp_path / "fresh", prepare=prepare, defaultOutput="made") == 0
    assert numbers(tmp_path / "fresh", "u/someone/made") == {(0, 0): 0, (0, 1): 2}


def test_default_inputs_serve_where_none_are_named(repo):
    assert run(repo, *TRAIN[2:], "-o", "defaults", defaultInputs=["sim/demo"]) == 0
    assert DONE == [0, 1, 2]


def test_a_user_without_a_name_is_anonymous(repo, monkeypatch):
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    assert run(repo, *TRAIN, "-o", "mine") == 0
    assert len(numbers(repo, "u/anonymous/mine")) == 3


def test_ids_become_a_query():
    assert dataQuery([["tract=0", "patch=0^2..8:2"]]) == "(tract IN (0) AND patch IN (0, 2..8:2))"
    assert dataQuery([["skymap=vae_a"], ["patch=1"]]) == "(skymap IN ('vae_a')) OR (patch IN (1))"
    assert dataQuery([[]]) == ""
    for bad in ("skymap=a'b", "patch=", "patch=1..4:0", "=3", "1=2"):
        with pytest.raises(RepositoryError):
            dataQuery([[bad]])


def test_help_tells_of_the_task(capsys):
    assert main(ToyTask, ["-h"], prog="toy.py") == 0
    out = capsys.readouterr().out
    assert "Multiply shard numbers." in out and "not shown" not in out
    assert main(ToyTask, [], prog="toy.py") == 2
