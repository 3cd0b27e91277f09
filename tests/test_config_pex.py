# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bridge to lsst.pex.config, and parity of our reader with its exec."""

import copy
import math
import pickle
import sys
from typing import Annotated, Literal

import pytest

pexConfig = pytest.importorskip("lsst.pex.config")

from lsst.meas.extensions.vae.config import (  # noqa: E402
    Config,
    Field,
    FieldValidationError,
    OverrideReader,
    showConfig,
    showHistory,
    toPex,
    toPexConfig,
)
from lsst.meas.extensions.vae.errors import OverrideError, VaeError  # noqa: E402


class OptimizerConfig(Config):
    """How weights are learned."""

    rate: float = Field(1e-3, gt=0, lt=1, description="Learning rate.")


class NetConfig(Config):
    """The network."""

    latentDim: int = Field(32, ge=1, le=4096, description="Latent dimensions.")
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="The optimizer.")


class DemoConfig(Config):
    """One field of each kind."""

    net: NetConfig = Field(default_factory=NetConfig, description="The network.")
    second: NetConfig = Field(default_factory=NetConfig, description="Another.")
    bands: tuple[str, ...] = Field(("g", "r"), min_length=1, max_length=4, description="Bands.")
    window: tuple[float, float] = Field((0.0, 1.0), description="From, to.")
    layers: tuple[Annotated[int, Field(gt=0, le=512)], ...] = Field((64,), description="Sizes.")
    modes: tuple[Literal["a", "b"], ...] = Field((), description="Modes.")
    weights: dict[str, float] = Field({"g": 1.0}, description="Weights.")
    counts: dict[str, Annotated[int, Field(ge=0)]] = Field({}, max_length=2, description="Counts.")
    placement: Literal["annulus", "field"] = Field(
        "annulus", description="Where.", json_schema_extra={"choices": {"annulus": "the paper's"}}
    )
    magLimit: float | None = Field(None, ge=0, description="Faintest magnitude.\nNone: no limit.")
    even: int = Field(2, ge=0, multiple_of=2, description="Even.")
    code: str = Field("abc", pattern="^[a-z]+$", max_length=5, description="A code.")
    sigma: float = Field(0.5, description="Any number.")
    name: str = Field("demo", description="A name.")
    flag: bool = Field(True, description="Yes or no.")
    old: int = Field(1, description="Not used.", deprecated="it does nothing")

    def setDefaults(self):
        super().setDefaults()
        self.net.latentDim = 16

    def validate(self):
        super().validate()
        if self.window[0] >= self.window[1]:
            raise self.invalid("window", "the first must be below the second")
        if self.net.latentDim == 13:
            raise self.net.invalid("latentDim", "13 brings bad luck")


PexDemo = toPexConfig(DemoConfig, name="PexDemo")


class DemoTask:
    """A configurable, as pex_config knows it."""

    ConfigClass = PexDemo

    def __init__(self, config):
        self.config = config


class OtherTask:
    """Another one."""

    ConfigClass = toPexConfig(NetConfig, name="OtherTaskConfig")


class NotATask:
    """A class whose config is pydantic's alone."""

    ConfigClass = NetConfig


class PlainTask:
    """The target that fields have before they are retargeted."""

    class ConfigClass(pexConfig.Config):
        """Its config."""

        x = pexConfig.Field(doc="A number.", dtype=int, default=1)


class HolderConfig(pexConfig.Config):
    """A pex_config class with a subtask."""

    task = pexConfig.ConfigurableField(doc="A subtask.", target=PlainTask)
    y = pexConfig.Field(doc="A number.", dtype=float, default=1.0)


# -- the generated class -----------------------------------------------------


def test_each_field_becomes_pex_config_s_kind_of_field():
    fields = PexDemo._fields
    kinds = {name: type(field).__name__ for name, field in fields.items()}
    assert kinds == {
        "net": "ConfigField",
        "second": "ConfigField",
        "bands": "ListField",
        "window": "ListField",
        "layers": "ListField",
        "modes": "ListField",
        "weights": "DictField",
        "counts": "DictField",
        "placement": "ChoiceField",
        "magLimit": "RangeField",
        "even": "Field",
        "code": "Field",
        "sigma": "Field",
        "name": "Field",
        "flag": "Field",
        "old": "Field",
    }
    assert issubclass(PexDemo, pexConfig.Config) and PexDemo.__doc__ == DemoConfig.__doc__
    latent = PexDemo().net._fields["latentDim"]
    assert (latent.dtype, latent.rangeString, latent.default) == (int, "[1,4096]", 32)
    assert PexDemo().net.optimizer._fields["rate"].rangeString == "(0,1)"
    assert (fields["window"].length, fields["bands"].minLength, fields["bands"].maxLength) == (2, 1, 4)
    assert fields["placement"].allowed == {"annulus": "the paper's", "field": ""}
    assert fields["magLimit"].optional and not fields["sigma"].optional
    assert fields["magLimit"].doc == "Faintest magnitude.\nNone: no limit."
    assert fields["old"].deprecated == "it does nothing"
    assert fields["sigma"].source.filename.endswith("test_config_pex.py")
    assert PexDemo().toDict() == DemoConfig().toDict(), "setDefaults counts too"


def test_the_generated_class_is_an_attribute_of_the_calling_module_and_made_once():
    module = sys.modules[__name__]
    assert module.PexNetConfig.__module__ == __name__ and module.PexOptimizerConfig._model is OptimizerConfig
    assert toPexConfig(DemoConfig, name="PexDemo") is PexDemo
    assert PexDemo().net.__class__ is PexDemo().second.__class__ is module.PexNetConfig
    made = toPexConfig(OptimizerConfig, name="Made")
    assert module.Made is made and issubclass(made, pexConfig.Config)
    with pytest.raises(TypeError, match="DemoTask exists already"):
        toPexConfig(DemoConfig, name="DemoTask")


def test_a_redefined_model_replaces_its_class_as_a_notebook_needs():
    def define(default):
        class CellConfig(Config):
            x: int = Field(default, description="A number.")

        return toPexConfig(CellConfig)

    first, second = define(1), define(2)
    assert first is not second and sys.modules[__name__].PexCellConfig is second
    assert pickle.loads(pickle.dumps(second())).x == 2


def test_pex_values_are_checked_as_they_are_set():
    pex = PexDemo()
    for name, value in [
        ("even", 3),
        ("even", -2),
        ("code", "ABC"),
        ("code", "abcdef"),
        ("placement", "x"),
        ("magLimit", -1.0),
        ("layers", [0]),
        ("layers", [513]),
        ("modes", ["c"]),
        ("counts", {"a": -1}),
        ("sigma", "1"),
    ]:
        with pytest.raises(pexConfig.FieldValidationError):
            setattr(pex, name, value)
    pex.layers, pex.modes, pex.counts, pex.even, pex.code = [1, 512], ["b"], {"a": 0}, 4, "z"
    pex.validate()


def test_generated_validate_runs_the_model_s_rules_and_blames_the_field():
    pex = PexDemo()
    pex.window = [2.0, 1.0]
    with pytest.raises(pexConfig.FieldValidationError, match="the first must be below") as caught:
        pex.validate()
    assert caught.value.fieldName == "window" and caught.value.fieldType is pexConfig.ListField
    pex = PexDemo()
    pex.net.latentDim = 13
    with pytest.raises(pexConfig.FieldValidationError, match="bad luck") as caught:
        pex.validate()
    assert caught.value.fullname == "net.latentDim"
    pex = PexDemo()
    pex.counts = {"a": 1, "b": 1, "c": 1}
    with pytest.raises(pexConfig.FieldValidationError, match="counts"):
        pex.validate()
    pex = PexDemo()
    pex.sigma = None
    with pytest.raises(pexConfig.FieldValidationError, match="Required value cannot be None"):
        pex.validate()


def changed(config):
    config.net.latentDim = 8
    config.second.optimizer.rate = 0.25
    config.bands = ["i", "z"]
    config.weights["r"] = 2.0
    config.magLimit = 25.5
    config.sigma = math.inf
    config.name = "a 'b'\n\"c\""
    return config


def test_values_and_history_go_from_pydantic_to_pex_and_back():
    config = changed(DemoConfig())
    pex = toPex(config, PexDemo)
    assert type(pex) is PexDemo and pex.toDict() == config.toDict()
    back = pex.toPydantic()
    assert back == config and type(back.bands) is tuple
    line = changed.__code__.co_firstlineno + 1
    assert back.net.history["latentDim"][-1] == (8, config.net.history["latentDim"][-1][1], "assignment")
    assert f":{line}" in pex.net.formatHistory("latentDim")
    assert toPex(back, PexDemo).compare(pex)
    with pytest.raises(TypeError, match="was not made from NetConfig"):
        toPex(NetConfig(), PexDemo)


def test_values_set_in_pex_come_back_with_the_line_that_set_them():
    pex = changed(PexDemo())
    config = pex.toPydantic()
    assert config == changed(DemoConfig())
    file, line = config.net.history["latentDim"][-1][1]
    assert file.endswith("test_config_pex.py") and line == changed.__code__.co_firstlineno + 1
    pex.even = 4
    pex.layers.append(8)
    assert pex.toPydantic().layers == (64, 8)


def test_saved_text_loads_on_either_side():
    config = changed(DemoConfig())
    pex = toPex(config, PexDemo)
    assert pex.saveToString(skipImports=True) == config.saveToString(skipImports=True)
    fromModel, fromPex = PexDemo(), DemoConfig()
    fromModel.loadFromString(config.saveToString())  # pex_config's exec
    fromPex.loadFromString(pex.saveToString())
    assert fromModel.toDict() == config.toDict() and fromPex == config
    for text in (config.saveToString(), pex.saveToString()):
        other = PexDemo()
        OverrideReader(other).readString(text)
        assert other.toDict() == config.toDict()
        with pytest.raises(
            OverrideError, match="this file is for .*PexDemo, but the config is a .*NetConfig"
        ):
            NetConfig().loadFromString(text)
        with pytest.raises(AssertionError):
            PlainTask.ConfigClass().loadFromString(text)


def test_generated_configs_pickle_copy_and_go_through_yaml():
    yaml = pytest.importorskip("yaml")
    pex = changed(PexDemo())
    for other in (
        pickle.loads(pickle.dumps(pex)),
        pex.copy(),
        copy.deepcopy(pex),
        yaml.safe_load(yaml.dump(pex)),
    ):
        assert type(other) is PexDemo and other.toDict() == pex.toDict() and other.compare(pex)


def test_frozen_pex_config_stays_frozen_under_the_reader():
    pex = PexDemo()
    pex.freeze()
    with pytest.raises(OverrideError, match=r"^<string>:1: .*Cannot modify a frozen Config"):
        OverrideReader(pex).readString("config.net.latentDim = 3")
    assert pex.toPydantic() == DemoConfig()


# -- parity ------------------------------------------------------------------

SNIPPETS = [
    "config.sigma = 2",
    "config.sigma = 2.5",
    "config.sigma = -3",
    "config.sigma = float('inf')",
    "config.sigma = float('-inf')",
    "config.sigma = 1e400",
    "config.sigma = '2'",
    "config.sigma = 2 ** 0.5 * 3 - 1 / 4 + 7 // 2 + 7 % 4",
    "config.net.latentDim = 4096",
    "config.net.latentDim = 4097",
    "config.net.latentDim = 0",
    "config.net.latentDim = 3.0",
    "config.net.latentDim = '3'",
    "config.net.optimizer.rate = 0.999",
    "config.net.optimizer.rate = 1",
    "config.net.optimizer.rate = 0",
    "config.net.optimizer.rate = float('nan')",
    "config.net.nothing = 3",
    "config.nothing = 3",
    "config.nothing.rate = 3",
    "config.magLimit = None",
    "config.magLimit = 24\nconfig.magLimit = None",
    "config.magLimit = -1",
    "config.placement = 'field'",
    "config.placement = 'fields'",
    "config.placement = 3",
    "config.bands = ['r', 'i']",
    "config.bands = ('r', 'i')",
    "config.bands = 'r', 'i'",
    "config.bands = {'r'}",
    "config.bands = []",
    "config.bands = ['u', 'g', 'r', 'i', 'z']",
    "config.bands = ['g', 3]",
    "config.bands = 3",
    "config.bands = ['g', 'r', None]",
    "config.bands += ['i']",
    "config.bands.append('i')",
    "config.bands.append(3)",
    "config.bands.extend(['i', 'z'])",
    "config.bands[0] = 'u'",
    "config.bands[-1] = 'u'",
    "config.bands[9] = 'u'",
    "config.bands['a'] = 'u'",
    "config.window = [1, 2]",
    "config.window = [1]",
    "config.window = [2, 1]",
    "config.layers = [1, 2, 512]",
    "config.layers = [0]",
    "config.modes = ['a', 'b', 'a']",
    "config.modes = ['c']",
    "config.weights = {'r': 2}",
    "config.weights = {'r': '2'}",
    "config.weights = {2: 2.0}",
    "config.weights = ['r']",
    "config.weights['r'] = 2",
    "config.weights['r'] = 'x'",
    "config.weights.update({'r': 2, 'i': 3})",
    "config.weights.update(r=2)",
    "config.weights['g'] += 1",
    "config.sigma = config.weights['q']",
    "config.counts = {'a': 1, 'b': 0}",
    "config.counts = {'a': 1, 'b': 0, 'c': 0}",
    "config.counts = {'a': -1}",
    "config.even = 4",
    "config.even = 5",
    "config.code = 'xyz'",
    "config.code = 'XYZ'",
    "config.name = 'a' + 'b' 'c'",
    "config.name = 5",
    "config.flag = False",
    "config.flag = 'no'",
    "config.flag = 0",
    "config.sigma = config.net.latentDim",
    "config.net.latentDim = 7\nconfig.second.latentDim = config.net.latentDim * 2",
    "config.net.latentDim = 7\nconfig.second = config.net",
    "config.net = {'latentDim': 3}",
    "config.net = None",
    "config.net = 3",
    "config.net.update(latentDim=5)",
    "config.net.update(nothing=5)",
    "config.sigma = config.second.optimizer.rate = 0.5",
    "import os\nfrom math import pi\nconfig.sigma = 3",
    "'''text'''\npass\nconfig.sigma = 3; config.flag = False",
    "config.net.latentDim = 13",
    "config.sigma = undefined",
    "config.sigma = 1 / 0",
    "config.sigma =",
    "  config.sigma = 1",
    "config.net.optimizer = 5",
    "config.freeze = 5",
    "config.load('nowhere.py')",
]
# Where our reader is stricter on purpose: what pex_config makes of it.
STRICTER = {
    "config.bands = 'gri'": "letters of a text",
    "config.bands += 'i'": "letters of a text",
    "config.bands.extend('iz')": "letters of a text",
    "config.net.latentDim = True": "1 of True",
    "config.sigma = True": "1.0 of True",
    "config.layers = [True]": "1 of True",
    "config.sigma = None\nconfig.sigma = 1": "None until validate",
    "for b in 'iz': config.bands.append(b)": "code",
    "config.bands = [b for b in 'iz']": "code",
    "config.sigma = max(1, 2)": "code",
    "import math\nconfig.sigma = math.pi": "code",
    "x = 3\nconfig.sigma = x": "code",
    "if config.flag: config.sigma = 3": "code",
    "config.name = f'{config.sigma}'": "code",
    "config.name = 'a' * 3": "code",
    "config.bands.insert(0, 'u')": "other methods",
    "config.bands[0:1] = ['u']": "slices",
    "del config.weights['g']": "deletions",
    "config.net.freeze()": "other methods",
}
# Where it is laxer: pex_config's list and dict proxies lack these operators.
LAXER = {
    "config.bands = config.bands + ['i']": ["g", "r", "i"],
    "config.weights |= {'r': 2}": {"g": 1.0, "r": 2.0},
}


def byPex(snippet):
    """Run a snippet as pex_config does; return the values or None."""
    pex = PexDemo()
    try:
        pex.loadFromString(snippet)
        pex.validate()
    except (Exception, SystemExit):
        return None
    return pex.toDict()


def byReader(snippet, make):
    config = make()
    try:
        OverrideReader(config).readString(snippet, "over.py")
        config.validate()
    except (VaeError, pexConfig.FieldValidationError) as error:
        assert not isinstance(error, OverrideError) or str(error).startswith("over.py:")
        return None
    return config.toDict()


@pytest.mark.parametrize("snippet", SNIPPETS)
@pytest.mark.parametrize("make", [DemoConfig, PexDemo])
def test_the_reader_and_pex_config_agree(tmp_path, monkeypatch, snippet, make):
    monkeypatch.chdir(tmp_path)
    assert repr(byReader(snippet, make)) == repr(byPex(snippet))


@pytest.mark.parametrize("snippet", STRICTER)
@pytest.mark.parametrize("make", [DemoConfig, PexDemo])
def test_the_reader_refuses_more_where_documented(snippet, make):
    assert byPex(snippet) is not None
    if make is PexDemo and STRICTER[snippet].startswith("None"):
        assert byReader(snippet, make) == byPex(snippet)  # pex_config's own fields decide
    elif make is PexDemo and snippet == "config.layers = [True]":
        assert byReader(snippet, make)["layers"] == [1]
    else:
        assert byReader(snippet, make) is None


@pytest.mark.parametrize("snippet", LAXER)
@pytest.mark.parametrize("make", [DemoConfig, PexDemo])
def test_the_reader_takes_two_operators_more(snippet, make):
    assert byPex(snippet) is None
    assert LAXER[snippet] in byReader(snippet, make).values()


# -- pex_config classes under the reader -------------------------------------


def test_the_reader_overrides_pex_configs_with_file_line_and_all_or_nothing():
    pex = PexDemo()
    reader = OverrideReader(pex)
    reader.readString("\nconfig.net.latentDim = 8\nconfig.bands += ['i']", "over.py")
    reader.readOption("placement=field")
    assert pex.net.latentDim == 8 and list(pex.bands) == ["g", "r", "i"] and pex.placement == "field"
    assert "over.py:2" in pex.net.formatHistory("latentDim")
    assert "over.py:2" in showHistory(pex, "net.latent*")
    assert showConfig(pex, "net") == showConfig(pex.toPydantic(), "net")
    before, events = pex.toDict(), len(pex.history["sigma"])
    with pytest.raises(
        OverrideError, match=r"^over\.py:2: .*net\.latentDim.* outside of valid range"
    ) as caught:
        reader.readString("config.sigma = 3\nconfig.net.latentDim = 0", "over.py")
    assert "\n" not in str(caught.value)
    for snippet in (
        "config.nothing = 1",
        "config._name = 'x'",
        "config.__class__ = 3",
        "config.saveToString()",
    ):
        with pytest.raises(OverrideError):
            reader.readString(snippet)
    assert pex.toDict() == before and len(pex.history["sigma"]) == events


def test_retarget_to_our_task_by_pex_config_and_by_the_reader():
    tasks = {"DemoTask": DemoTask, "other.name.Task": OtherTask, "NotATask": NotATask}
    executed, read = HolderConfig(), HolderConfig()
    text = f"from {__name__} import DemoTask\nconfig.task.retarget(DemoTask)\nconfig.task.net.latentDim = 8\n"
    executed.loadFromString(text)
    OverrideReader(read, tasks=tasks).readString(text)
    for config in (executed, read):
        assert config.task.target is DemoTask and config.task.net.latentDim == 8
        assert config.task.apply().config.toPydantic().net.latentDim == 8
        config.validate()
    assert read.compare(executed)
    saved = HolderConfig()
    OverrideReader(saved, tasks=tasks).readString(read.saveToString())
    assert saved.compare(read) and saved.task.target is DemoTask
    OverrideReader(saved, tasks=tasks).readString(
        "import other.name\nconfig.task.retarget(target=other.name.Task)"
    )
    assert saved.task.target is OtherTask


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "from os import system\nconfig.task.retarget(system)",
            "the Task os.system; .*here: DemoTask, NotATask",
        ),
        ("config.task.retarget(DemoTask)", "`DemoTask`, which is not imported"),
        ("from evil import DemoTask\nconfig.task.retarget(DemoTask)", "the Task evil.DemoTask"),
        ("from x import NotATask\nconfig.task.retarget(NotATask)", "the Task x.NotATask"),
        ("from {0} import NotATask\nconfig.task.retarget(NotATask)", "not made by toPexConfig"),
        ("from {0} import DemoTask\nconfig.y.retarget(DemoTask)", "config.y, which holds no Task"),
        ("from {0} import DemoTask\nconfig.retarget(DemoTask)", "the call"),
        ("from {0} import DemoTask\nconfig.task.retarget()", "one Task"),
        ("from {0} import DemoTask\nconfig.task.retarget(DemoTask, label='x')", "one Task"),
        ("from {0} import DemoTask, X\nconfig.task.retarget(DemoTask, ConfigClass=X)", "ConfigClass="),
        ("config.task.retarget(__import__('os').system)", "which is no class name"),
        ("config.task.target = 3", "has no attribute task.target"),
    ],
)
def test_retarget_to_anything_else_is_refused(text, message):
    config = HolderConfig()
    reader = OverrideReader(config, tasks={"DemoTask": DemoTask, "NotATask": NotATask})
    with pytest.raises(OverrideError, match=message):
        reader.readString(text.format(__name__))
    assert config.task.target is PlainTask


def test_retarget_of_a_pydantic_config_is_refused():
    with pytest.raises(OverrideError, match="config.net, which holds no Task"):
        OverrideReader(DemoConfig(), tasks={"DemoTask": DemoTask}).readString(
            f"from {__name__} import DemoTask\nconfig.net.retarget(DemoTask)"
        )


# -- PipelineTasks -----------------------------------------------------------


@pytest.fixture(scope="module")
def pipelineTask():
    """Make a PipelineTask as a Task file of ours does."""
    pipeBase = pytest.importorskip("lsst.pipe.base")
    types = pipeBase.connectionTypes

    class DemoConnections(pipeBase.PipelineTaskConnections, dimensions=()):
        samples = types.Input(doc="In.", name="samples", storageClass="StructuredDataDict", dimensions=())
        models = types.Output(doc="Out.", name="models", storageClass="StructuredDataDict", dimensions=())

    class DemoPipelineTask(pipeBase.PipelineTask):
        ConfigClass = toPexConfig(
            DemoConfig,
            name="DemoPipelineTaskConfig",
            bases=(pipeBase.PipelineTaskConfig,),
            pipelineConnections=DemoConnections,
        )
        _DefaultName = "demo"

        def __init__(self, *, config=None, **kwargs):
            if isinstance(config, Config):
                config = toPex(config, self.ConfigClass)
            super().__init__(config=config, **kwargs)
            self.settings = self.config.toPydantic()
            self.settings.freeze()

    DemoPipelineTask.__qualname__ = "DemoPipelineTask"
    sys.modules[__name__].DemoPipelineTask = DemoPipelineTask
    return DemoPipelineTask


def test_a_pipeline_task_takes_either_config_and_has_frozen_settings(pipelineTask):
    config = DemoConfig(sigma=3.0)
    task = pipelineTask(config=config)
    assert task.settings == config and type(task.config).__name__ == "DemoPipelineTaskConfig"
    with pytest.raises(FieldValidationError, match="frozen"):
        task.settings.sigma = 1.0
    pex = pipelineTask.ConfigClass()
    pex.connections.samples, pex.saveLogOutput, pex.sigma = "other", False, 2.0
    assert pipelineTask(config=pex).settings.sigma == 2.0
    assert pickle.loads(pickle.dumps(pex)).connections.samples == "other"
    assert pipelineTask().settings == DemoConfig()
    config.window = (2.0, 1.0)
    with pytest.raises(pexConfig.FieldValidationError, match="the first must be below"):
        pipelineTask(config=config)


def test_the_reader_reaches_the_connections_of_a_pipeline_task_s_config(pipelineTask):
    pex = pipelineTask.ConfigClass()
    OverrideReader(pex).readString("config.connections.samples = 'other'\nconfig.net.latentDim = 8")
    assert pex.connections.samples == "other" and pex.toPydantic().net.latentDim == 8
    again = pipelineTask.ConfigClass()
    OverrideReader(again).readString(pex.saveToString())
    assert again.compare(pex)
    OverrideReader(again).readString(DemoConfig().saveToString())
    assert again.toPydantic() == DemoConfig() and again.connections.samples == "other"


def test_pipetask_s_own_overrides_and_displays_work(pipelineTask, caplog):
    pipetask = pytest.importorskip("lsst.ctrl.mpexec.cli.pipetask")
    from click.testing import CliRunner

    build = ["build", "-t", f"{__name__}.DemoPipelineTask:demo", "-c", "demo:bands=[r, i]"]
    show = ["--show", "config=demo::net.*", "--show", "history=demo::net.latentDim"]
    done = CliRunner().invoke(pipetask.cli, [*build, "-c", "demo:net.latentDim=8", *show])
    assert done.exit_code == 0, done.output
    assert "# Latent dimensions.\nconfig.net.latentDim=8" in done.output
    assert "config.sigma" not in done.output
    done = CliRunner().invoke(pipetask.cli, [*build, "-c", "demo:net.latentDim=0", *show])
    assert done.exit_code != 0 and "outside of valid range [1,4096]" in done.output + caplog.text


def test_a_field_that_would_hide_the_connections_is_refused(pipelineTask):
    pipeBase = pytest.importorskip("lsst.pipe.base")

    class BadConfig(Config):
        connections: int = Field(1, description="A name that the middleware needs.")

    with pytest.raises(TypeError, match="BadConfig.connections hides"):
        toPexConfig(
            BadConfig,
            bases=(pipeBase.PipelineTaskConfig,),
            pipelineConnections=pipelineTask.ConfigClass.ConnectionsClass,
        )
