# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Config: a pydantic model with pex_config's manners."""

import copy
import math
import pickle
import subprocess
import sys
import warnings
from typing import Annotated, Literal

import numpy as np
import pytest

from lsst.meas.extensions.vae.config import (
    Config,
    Field,
    FieldValidationError,
    UnknownFieldError,
    showConfig,
    showHistory,
)
from lsst.meas.extensions.vae.errors import VaeError


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
    bands: tuple[str, ...] = Field(("g", "r"), min_length=1, max_length=6, description="Bands.")
    window: tuple[float, float] = Field((0.0, 1.0), description="From, to.")
    layers: tuple[Annotated[int, Field(gt=0)], ...] = Field((64,), description="Layer sizes.")
    weights: dict[str, float] = Field({"g": 1.0}, description="Weight of each band.")
    placement: Literal["annulus", "field"] = Field("annulus", description="Where neighbours are.")
    stamp: Literal[32, 64] = Field(64, description="Pixels.")
    magLimit: float | None = Field(None, ge=0, description="Faintest magnitude.\nNone: no limit.")
    sigma: float = Field(0.5, description="Any number.")
    name: str = Field("demo", description="A name.")
    rotate: bool = Field(True, description="Turn galaxies.")
    old: int = Field(1, description="Not used.", deprecated="it does nothing")

    def setDefaults(self):
        super().setDefaults()
        self.net.latentDim = 16

    def validate(self):
        super().validate()
        if self.window[0] >= self.window[1]:
            raise self.invalid("window", "the first must be below the second")


@pytest.fixture
def config():
    return DemoConfig()


def defineLine(function):
    return function.__code__.co_firstlineno


REFUSED = [
    ("latentDim", "5", "int in [1, 4096]"),
    ("latentDim", 0, "int in [1, 4096]"),
    ("latentDim", 4097, "int in [1, 4096]"),
    ("latentDim", 3.0, "int in [1, 4096]"),
    ("latentDim", True, "int in [1, 4096]"),
    ("latentDim", None, "int in [1, 4096]"),
]


@pytest.mark.parametrize("name, value, allowed", REFUSED)
def test_refused_value_names_field_value_and_range(config, name, value, allowed):
    with pytest.raises(FieldValidationError) as caught:
        setattr(config.net, name, value)
    assert str(caught.value) == f"config.net.{name} = {value!r}: expected {allowed}"
    assert caught.value.fullname == f"config.net.{name}"
    assert isinstance(caught.value, VaeError) and isinstance(caught.value, ValueError)
    assert config.net.latentDim == 16, "a refused value leaves the field as it was"
    assert len(config.net.history[name]) == 2


@pytest.mark.parametrize(
    "name, value",
    [
        ("bands", "gri"),
        ("bands", {"g", "r"}),
        ("bands", ["g", 1]),
        ("bands", []),
        ("bands", list("ugrizyY")),
        ("window", [1.0]),
        ("window", ["0", "1"]),
        ("layers", [4, 0]),
        ("layers", [4, True]),
        ("weights", {"g": "1"}),
        ("weights", {1: 1.0}),
        ("weights", [1.0]),
        ("placement", "Annulus"),
        ("stamp", 48),
        ("stamp", 64.0),
        ("stamp", True),
        ("magLimit", -1),
        ("magLimit", math.nan),
        ("sigma", "0.5"),
        ("sigma", False),
        ("sigma", 1j),
        ("sigma", 10**400),
        ("name", b"demo"),
        ("name", None),
        ("rotate", 1),
        ("net", {"latentDim": 3}),
        ("net", None),
        ("net", OptimizerConfig()),
    ],
)
def test_wrong_types_and_values_are_refused(config, name, value):
    before = config.toDict()
    with pytest.raises(FieldValidationError, match=rf"^config\.{name} = .*: expected "):
        setattr(config, name, value)
    assert config.toDict() == before


@pytest.mark.parametrize(
    "name, value, kept",
    [
        ("sigma", 2, 2.0),
        ("sigma", np.float32(0.5), 0.5),
        ("sigma", math.inf, math.inf),
        ("bands", ["r", "i"], ("r", "i")),
        ("window", np.array([0.25, 0.5]), (0.25, 0.5)),
        ("layers", (np.int64(8), 16), (8, 16)),
        ("weights", {"r": 2}, {"r": 2.0}),
        ("magLimit", 25, 25.0),
        ("magLimit", None, None),
        ("stamp", np.int32(32), 32),
    ],
)
def test_accepted_values_get_exactly_the_field_s_type(config, name, value, kept):
    setattr(config, name, value)
    got = getattr(config, name)
    assert got == kept and isinstance(got, type(kept))
    if isinstance(kept, tuple):
        assert [type(item) for item in got] == [type(item) for item in kept]
    else:
        assert isinstance(got, dict) or type(got) is type(kept)


@pytest.mark.parametrize(
    "act",
    [
        lambda c: setattr(c.net, "latentDims", 3),
        lambda c: c.net.latentDims,
        lambda c: delattr(c.net, "latentDims"),
        lambda c: c.net.update(latentDims=3),
        lambda c: NetConfig(latentDims=3),
    ],
)
def test_unknown_names_are_refused_with_class_full_name_and_a_hint(config, act):
    with pytest.raises(AttributeError) as caught:
        act(config)
    message = str(caught.value)
    assert f"{__name__}.NetConfig has no attribute config." in message
    assert message.endswith("latentDims; did you mean latentDim?") and "\n" not in message
    assert isinstance(caught.value, UnknownFieldError) and isinstance(caught.value, VaeError)
    assert not hasattr(config, "nothing")


def test_constructor_takes_values_and_dicts_and_refuses_like_an_assignment():
    config = DemoConfig(sigma=1, net={"latentDim": 8, "optimizer": {"rate": 0.5}})
    assert (config.sigma, config.net.latentDim, config.net.optimizer.rate) == (1.0, 8, 0.5)
    with pytest.warns(FutureWarning, match="config.old"):
        assert DemoConfig.model_validate(config.toDict()) == config
    with pytest.raises(FieldValidationError, match="latentDim = 0"):
        DemoConfig(net={"latentDim": 0})


def test_update_sets_nothing_when_a_name_is_unknown(config):
    config.update(sigma=2.0, name="x")
    assert (config.sigma, config.name) == (2.0, "x")
    with pytest.raises(UnknownFieldError):
        config.update(sigma=3.0, nothing=1)
    assert config.sigma == 2.0


def test_assigning_a_config_copies_its_values_into_the_nested_one(config):
    net, other = config.net, NetConfig(latentDim=7)
    config.net = other
    assert config.net is net and net.latentDim == 7
    other.latentDim = 9
    assert net.latentDim == 7
    assert net.history["latentDim"][-1] == (7, config.history["net"][-1][1], "assignment")
    with pytest.raises(FieldValidationError, match=r"^config\.net\.optimizer\.rate = 5: "):
        config.net.optimizer.rate = 5
    config.net = NetConfig  # the class stands for its defaults
    assert net.latentDim == 32
    config.net = config.net
    assert net.latentDim == 32


def test_history_tells_value_file_line_and_label_of_each_change(config):
    config.net.latentDim = 8
    line = sys._getframe().f_lineno - 1
    history = config.net.history["latentDim"]
    assert [(value, label) for value, _, label in history] == [
        (32, "default"),
        (16, "assignment"),
        (8, "assignment"),
    ]
    assert all(file == __file__ for _, (file, _), _ in history)
    assert history[1][1][1] == defineLine(DemoConfig.setDefaults) + 2
    assert history[2][1][1] == line
    text = config.formatHistory("net.latentDim").splitlines()
    assert text[0] == "config.net.latentDim" and len(text) == 4
    assert text[3].split() == ["8", f"{__file__}:{line}", "assignment"]


def test_dict_fields_check_and_remember_changes_in_place(config):
    weights = config.weights
    weights["r"] = 2
    weights.update(i=3)
    weights |= {"z": 4}
    del weights["g"]
    assert weights.pop("z") == 4.0
    assert config.weights == {"r": 2.0, "i": 3.0} and config.weights is weights
    with pytest.raises(FieldValidationError, match="config.weights"):
        weights["r"] = "2"
    assert config.weights == {"r": 2.0, "i": 3.0}
    labels = [label for _, _, label in config.history["weights"]]
    assert labels == ["default", "setitem", "update", "update", "delitem", "delitem"]
    config.weights = {"y": 1}
    weights["r"] = 5  # no longer the field's value
    assert config.weights == {"y": 1.0}
    config.freeze()
    with pytest.raises(FieldValidationError, match="frozen"):
        config.weights["y"] = 2


def test_defaults_are_not_shared_between_configs(config):
    config.weights["r"] = 2.0
    config.net.latentDim = 1
    assert DemoConfig().weights == {"g": 1.0} and DemoConfig().net.latentDim == 16


def test_freeze_is_recursive_and_copies_are_not_frozen(config):
    config.freeze()
    for act in (
        lambda: setattr(config, "sigma", 1.0),
        lambda: setattr(config.net.optimizer, "rate", 0.1),
        lambda: config.net.update(latentDim=2),
        lambda: setattr(config, "net", NetConfig()),
        lambda: delattr(config, "magLimit"),
    ):
        with pytest.raises(FieldValidationError, match="Cannot modify a frozen Config"):
            act()
    thawed = config.copy()
    thawed.net.optimizer.rate = 0.1
    assert config.net.optimizer.rate == 1e-3


def test_validate_checks_rules_between_fields_when_asked_and_not_before(config):
    config.window = (2.0, 1.0)  # half way through two overrides
    with pytest.raises(FieldValidationError, match=r"^config\.window = \(2\.0, 1\.0\): the first must"):
        config.validate()
    config.window = (2.0, 3.0)
    config.validate()


def test_validate_reaches_nested_configs():
    class Outer(Config):
        demo: DemoConfig = Field(default_factory=DemoConfig, description="Nested.")

    outer = Outer()
    outer.demo.window = (1.0, 0.0)
    with pytest.raises(FieldValidationError, match="config.demo.window"):
        outer.validate()


def test_equality_ignores_history_and_takes_nan_for_equal():
    a, b = DemoConfig(), DemoConfig()
    a.sigma = 3.0
    a.sigma = math.nan
    b.sigma = math.nan
    assert a == b and a != NetConfig()
    b.net.optimizer.rate = 0.5
    assert a != b


def test_copy_is_deep_and_keeps_history(config):
    config.weights["r"] = 2.0
    for other in (config.copy(), copy.copy(config), copy.deepcopy(config), config.model_copy()):
        assert other == config and other.history == config.history
        other.weights["g"] = 9.0
        other.net.latentDim = 1
        assert config.weights["g"] == 1.0 and config.net.latentDim == 16
        assert other.history["weights"] != config.history["weights"]
    with pytest.raises(FieldValidationError):
        config.model_copy(update={"sigma": "1"})


def test_pickle_keeps_values_history_and_checks(config):
    config.weights["r"] = 2.0
    config.freeze()
    other = pickle.loads(pickle.dumps(config))
    assert other == config and other.history == config.history
    with pytest.raises(FieldValidationError, match="frozen"):
        other.weights["i"] = 1.0
    error = pickle.loads(pickle.dumps(FieldValidationError("config.a", 1, "expected str")))
    assert str(error) == "config.a = 1: expected str"


def test_mapping_manners(config):
    assert list(config) == list(config.keys()) == list(DemoConfig.model_fields)
    assert "sigma" in config and "nothing" not in config
    assert dict(config.items())["sigma"] == 0.5 and len(config.values()) == len(config.keys())
    assert config.names()[:3] == ["net.latentDim", "net.optimizer.rate", "bands"]
    plain = config.toDict()
    assert plain["net"] == {"latentDim": 16, "optimizer": {"rate": 1e-3}}
    assert plain["bands"] == ["g", "r"] and type(plain["weights"]) is dict
    plain["bands"].append("x")
    assert config.bands == ("g", "r")


def test_compare_tells_every_difference_beyond_the_tolerance(config):
    other, told = config.copy(), []
    other.sigma += 1e-12
    assert config.compare(other)
    other.sigma, other.net.latentDim, other.bands = 1.0, 3, ("g",)
    assert not config.compare(other, shortcut=False, output=told.append)
    assert told == [
        "config.net.latentDim: 16 != 3",
        "config.bands: ('g', 'r') != ('g',)",
        "config.sigma: 0.5 != 1.0",
    ]


def test_saved_text_is_pex_config_s_and_loads_back(tmp_path, config):
    config.sigma, config.magLimit, config.name = -math.inf, 25.5, "a 'b'\n\"c\" #"
    config.window = (-math.inf, 1e-300)
    config.weights = {"g": math.inf, "r": -0.0}
    with pytest.warns(FutureWarning, match="config.old"):
        config.old = 2
    text = config.saveToString()
    assert text.startswith(f"import {__name__}\nassert type(config).__name__ in ('DemoConfig', ")
    assert "# Latent dimensions.\nconfig.net.latentDim=16\n\n" in text
    assert "# Faintest magnitude.\n# None: no limit.\nconfig.magLimit=25.5\n\n" in text
    assert "config.sigma=float('-inf')\n" in text and "config.bands=['g', 'r']\n" in text
    assert "# Not used. Deprecated: it does nothing\nconfig.old=2\n" in text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config.save(tmp_path / "saved.py")
        for load in ("load", "loadFromString"):
            other = DemoConfig()
            getattr(other, load)(tmp_path / "saved.py" if load == "load" else text)
            assert other == config
    assert other.saveToString() == text
    assert "old" not in DemoConfig().saveToString()
    assert list(tmp_path.iterdir()) == [tmp_path / "saved.py"]


def test_save_to_an_impossible_place_says_so(tmp_path, config):
    with pytest.raises(VaeError, match="cannot write the config to .*nowhere.* choose"):
        config.save(tmp_path / "nowhere" / "c.py")


def test_root_name_of_saved_text_can_be_chosen(config):
    text = config.saveToString(root="root", skipImports=True)
    assert "root.net.latentDim=16" in text and "config." not in text
    config.loadFromString("root.sigma = 3", root="root")
    assert config.sigma == 3.0


def test_deprecated_field_warns_once_with_the_setter_s_line_and_not_when_read(config):
    with pytest.warns(FutureWarning, match="config.old is deprecated: it does nothing") as caught:
        config.old = 3
    assert [(w.filename, w.lineno) for w in caught] == [(__file__, sys._getframe().f_lineno - 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DemoConfig(), config.copy(), config.toDict(), config.saveToString(), config == config
        config.names(), config.compare(config.copy()), config.validate()


def test_show_config_filters_by_pattern(config):
    assert showConfig(config) == config.saveToString(skipImports=True)
    assert showConfig(config, "*.RATE") == "# Learning rate.\nconfig.net.optimizer.rate=0.001\n\n"
    assert showConfig(config, "config.sigma") == "# Any number.\nconfig.sigma=0.5\n\n"
    assert showConfig(config, "net").count("config.net.") == 2
    assert "config.magLimit=None" in showConfig(config, "mag*")
    for pattern in ("nothing", "*.RATE:NOIGNORECASE"):
        with pytest.raises(VaeError, match="no config field matches"):
            showConfig(config, pattern)


def test_show_history_names_each_field_that_matches(config):
    config.loadFromString("config.net.optimizer.rate = 0.5", filename="over.py")
    text = showHistory(config, "net.*")
    assert [line for line in text.splitlines() if line.startswith("config.")] == [
        "config.net.latentDim",
        "config.net.optimizer.rate",
    ]
    assert "over.py:1" in text
    with pytest.raises(VaeError, match="no config field matches 'x'"):
        showHistory(config, "x")


def define(annotation, field):
    return type(
        "Broken", (Config,), {"__annotations__": {"x": annotation}, "x": field, "__module__": __name__}
    )


@pytest.mark.parametrize(
    "annotation, field, message",
    [
        (int, Field(1), "Broken.x has no description"),
        (int, Field(description="No default."), "Broken.x has no default"),
        (list[int], Field([], description="A list."), "Broken.x: use tuple"),
        (int | str, Field(1, description="A union."), "Broken.x: .*union other than"),
        (dict[str, tuple[int, ...]], Field({}, description="Nested."), "Broken.x: items must be"),
        (tuple[int, str], Field((1, ""), description="Mixed."), "Broken.x: .*mixes types"),
        (Literal[1, "a"], Field(1, description="Mixed."), "Broken.x: .*mixes types"),
        (NetConfig | None, Field(None, description="None."), "Broken.x: a nested config cannot be None"),
        (bytes, Field(b"", description="Bytes."), "Broken.x: .*is not bool"),
    ],
)
def test_a_field_that_pex_config_could_not_hold_fails_when_the_class_is_made(annotation, field, message):
    with pytest.raises(TypeError, match=message):
        define(annotation, field)


def test_a_field_named_as_a_method_and_an_after_validator_fail_when_the_class_is_made():
    from pydantic import model_validator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TypeError, match="Bad.freeze hides a method"):

            class Bad(Config):
                freeze: bool = Field(True, description="A method's name.")

    with pytest.raises(TypeError, match="write validate"):

        class Worse(Config):
            @model_validator(mode="after")
            def check(self):
                return self


def test_a_default_that_does_not_fit_is_told_with_class_and_field():
    class Off(Config):
        x: int = Field(0, ge=1, description="From one.")

    with pytest.raises(
        FieldValidationError, match=r"^Off\.x = 0: the default does not fit; expected int in \[1"
    ):
        Off()


def test_an_author_s_field_validator_is_heard_and_its_words_are_shown():
    from pydantic import field_validator

    class Even(Config):
        x: int = Field(2, description="Even.")

        @field_validator("x")
        @classmethod
        def even(cls, value):
            if value % 2:
                raise ValueError("must be even")
            return value

    config = Even()
    with pytest.raises(FieldValidationError, match=r"^config\.x = 3: must be even; expected int"):
        config.x = 3
    assert config.x == 2


def test_importing_the_config_room_imports_no_lsst_package_but_this_one():
    code = (
        "import sys, lsst.meas.extensions.vae.config\n"
        "print([m for m in sys.modules if m.startswith('lsst.') and not m.startswith('lsst.meas')])\n"
        "print([m for m in ('keras', 'tensorflow', 'astropy', 'galsim') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]
