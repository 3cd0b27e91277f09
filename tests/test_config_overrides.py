# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The override reader: what it applies, what it refuses, and that it executes
nothing."""

import math
import os
import re
import time
from typing import Literal

import pytest

from lsst.meas.extensions.vae.config import Config, Field, FieldValidationError, OverrideReader
from lsst.meas.extensions.vae.errors import OverrideError


class NetConfig(Config):
    """The network."""

    latentDim: int = Field(32, ge=1, le=4096, description="Latent dimensions.")
    rate: float = Field(1e-3, gt=0, description="Learning rate.")


class OtherConfig(Config):
    """Another class."""

    latentDim: int = Field(32, description="Latent dimensions.")


class DemoConfig(Config):
    """One field of each kind."""

    net: NetConfig = Field(default_factory=NetConfig, description="The network.")
    second: NetConfig = Field(default_factory=NetConfig, description="Another one.")
    other: OtherConfig = Field(default_factory=OtherConfig, description="Of another class.")
    bands: tuple[str, ...] = Field(("g", "r"), min_length=1, description="Bands.")
    layers: tuple[int, ...] = Field((64, 32), description="Layer sizes.")
    weights: dict[str, float] = Field({"g": 1.0}, description="Weight of each band.")
    placement: Literal["annulus", "field"] = Field("annulus", description="Where neighbours are.")
    limit: float | None = Field(None, description="Faintest magnitude.")
    layers2: tuple[int, ...] | None = Field(None, description="More layers.")
    sigma: float = Field(0.5, description="Any number.")
    name: str = Field("demo", description="A name.")
    flag: bool = Field(False, description="Yes or no.")


@pytest.fixture
def config():
    return DemoConfig()


ACCEPTED = [
    ("", "sigma", 0.5),
    ('"""A docstring."""\n# a comment\npass', "sigma", 0.5),
    ("import os\nfrom os import path as p, sep\nfrom . import x\nconfig.sigma = 2", "sigma", 2.0),
    ("config.net.latentDim = 8; config.sigma = 1", "net.latentDim", 8),
    ("config.sigma = -1.5e-3", "sigma", -1.5e-3),
    ("config.sigma = +-1", "sigma", -1.0),
    ("config.sigma = float('inf')", "sigma", math.inf),
    ('config.sigma = -float("Infinity")', "sigma", -math.inf),
    ("config.limit = 3\nconfig.limit = None", "limit", None),
    ("config.flag = True", "flag", True),
    ("config.bands = ['r', 'i']", "bands", ("r", "i")),
    ("config.bands = 'r', 'i'", "bands", ("r", "i")),
    ("config.bands = {'z', 'g', 'z', 'a'}", "bands", ("z", "g", "a")),
    ("config.bands = [\n    'r',  # red\n    'i',\n]", "bands", ("r", "i")),
    ("config.weights = {'g': 1, 'r': float('inf')}", "weights", {"g": 1.0, "r": math.inf}),
    ("config.sigma = 2 * 3 + 10 / 4 - 7 // 2 + 9 % 5 + 2 ** -1", "sigma", 10.0),
    ("config.net.latentDim = 2 ** 10", "net.latentDim", 1024),
    ("config.sigma = 2 ** 1000 / 2 ** 999 + 0 ** 5", "sigma", 2.0),
    ("config.name = 'a' 'b' + 'c'", "name", "abc"),
    ("config.bands = config.bands + ['i']", "bands", ("g", "r", "i")),
    ("config.sigma = config.net.latentDim / 2", "sigma", 16.0),
    ("config.net.latentDim = 8\nconfig.second.latentDim = config.net.latentDim * 2", "second.latentDim", 16),
    ("config.net.latentDim = 8\nconfig.second = config.net", "second.latentDim", 8),
    ("config.sigma = config.weights['g'] + config.layers[-1]", "sigma", 33.0),
    ("config.sigma += 1", "sigma", 1.5),
    ("config.net.latentDim *= 2", "net.latentDim", 64),
    ("config.bands += ['i', 'z']", "bands", ("g", "r", "i", "z")),
    ("config.bands += ('i',)", "bands", ("g", "r", "i")),
    ("config.weights |= {'r': 2}", "weights", {"g": 1.0, "r": 2.0}),
    ("config.weights['r'] = 2", "weights", {"g": 1.0, "r": 2.0}),
    ("config.weights['g'] += 2", "weights", {"g": 3.0}),
    ("config.layers[0] = 8\nconfig.layers[-1] = 4", "layers", (8, 4)),
    ("config.bands.append('i')", "bands", ("g", "r", "i")),
    ("config.bands.extend(['i', 'z'])", "bands", ("g", "r", "i", "z")),
    ("config.weights.update({'r': 2}, z=3)", "weights", {"g": 1.0, "r": 2.0, "z": 3.0}),
    ("config.weights.update(g=5)", "weights", {"g": 5.0}),
    ("config.net.update(latentDim=4, rate=1)", "net.rate", 1.0),
    ("config.update(sigma=4)", "sigma", 4.0),
    ("config.sigma = config.net.rate = 3", "net.rate", 3.0),
    (f"assert type(config) is {__name__}.DemoConfig, 'for DemoConfig'\nconfig.sigma=1", "sigma", 1.0),
    (f"assert type(config)=={__name__}.DemoConfig\nconfig.sigma=1", "sigma", 1.0),
    (
        f'assert type(config) is {__name__}.DemoConfig, f"config is of type {{type(config).__module__}}.'
        f'{{type(config).__name__}} instead of {__name__}.DemoConfig"\nconfig.sigma=1',
        "sigma",
        1.0,
    ),
    ("assert type(config).__name__ in ('X', 'DemoConfig'), 'no'\nconfig.sigma=1", "sigma", 1.0),
    ("\ufeffconfig.sigma = 1\r\nconfig.sigma = 2\r\n", "sigma", 2.0),
    ("config.name = 'é☃ \\u0416'", "name", "é☃ Ж"),
]


@pytest.mark.parametrize("text, name, value", ACCEPTED)
def test_plain_overrides_are_applied(tmp_path, config, text, name, value):
    path = tmp_path / "over.py"
    path.write_bytes(text.encode())
    OverrideReader(config).readFile(path)
    for part in name.split("."):
        config = getattr(config, part)
    assert config == value and type(config) in (type(value), type(DemoConfig().weights))


CANARY = "CANARY"
OPEN = f"open({CANARY!r}, 'w').write('x')"
ATTACKS = {
    "system": f"import os\nos.system('touch {CANARY}')",
    "value from a call": f"import os\nconfig.sigma = os.system('touch {CANARY}')",
    "dunder import": f"config.sigma = __import__('os').system('touch {CANARY}')",
    "eval": f"config.sigma = eval({OPEN!r})",
    "exec": f"exec({OPEN!r})",
    "open": OPEN,
    "lambda": f"config.sigma = (lambda: {OPEN})()",
    "list comprehension": f"config.bands = [{OPEN} for _ in [1]]",
    "generator": f"config.bands.extend({OPEN} for _ in [1])",
    "dict comprehension": f"config.weights = {{'a': {OPEN} for _ in [1]}}",
    "f-string": f'config.name = f"{{{OPEN}}}"',
    "f-string without a call": 'config.name = f"{config.sigma}"',
    "raw f-string": f'config.name = rF"{{{OPEN}}}"',
    "f-string in an assertion": f'assert type(config) is {__name__}.DemoConfig, f"{{{OPEN}}}"',
    "call in an assertion": f"assert type(config) is {__name__}.DemoConfig, {OPEN}",
    "assertion of a call": f"assert {OPEN}",
    "two statements in an assertion": f"assert type(config) is {__name__}.DemoConfig; {OPEN}",
    "format": "config.name = '{0.__class__}'.format(config)",
    "percent": "config.name = '%s' % config.name",
    "class": "config.__class__ = 1",
    "class chain": "config.sigma = config.__class__.__mro__[1].__subclasses__()",
    "dict attribute": "config.__dict__['sigma'] = 5",
    "private": "config._frozen = True",
    "private history": "config._history.update({})",
    "method": "config.freeze()",
    "method as a value": "config.sigma = config.freeze",
    "method of a value": "config.name = config.name.upper()",
    "method to be replaced": "config.validate = None",
    "save": f"config.save({CANARY!r})",
    "pydantic": "config.sigma = config.model_fields",
    "dunder name": "config.name = __file__",
    "builtins": "config.sigma = __builtins__",
    "walrus": "config.sigma = (config := 5)",
    "walrus to a field": "(y := 3)",
    "decorator": "@config.freeze\ndef f(): pass",
    "function": f"def f():\n    {OPEN}\nf()",
    "async": "async def f(): pass",
    "class statement": f"class X:\n    {OPEN}",
    "while": "while True: pass",
    "for": f"for i in [1]: {OPEN}",
    "if": f"if True: {OPEN}",
    "conditional": "config.sigma = 1 if True else 2",
    "with": f"with open({CANARY!r}, 'w'): pass",
    "try": f"try:\n    {OPEN}\nexcept Exception: pass",
    "del": "del config.net",
    "global": "global config",
    "return": "return 1",
    "yield": "yield 1",
    "await": "await config",
    "raise": "raise SystemExit",
    "star": "config.bands = [*config.bands]",
    "star target": "config.sigma, *config.bands = 1, 'a'",
    "tuple target": "config.sigma, config.limit = 1, 2",
    "double star": "config.weights = {**config.weights}",
    "double star argument": "config.weights.update(**config.weights)",
    "annotation": f"config.sigma: {OPEN} = 3",
    "rebinding": "config = None",
    "new name": "x = 5",
    "another root": "self.sigma = 3",
    "import star call": "from os import *\nsystem('x')",
    "slice": "config.layers[0:2] = [1, 2]",
    "read slice": "config.layers = config.layers[::2]",
    "ellipsis": "config.sigma = ...",
    "bytes": "config.name = b'x'",
    "complex": "config.sigma = 1j",
    "comparison": "config.flag = 1 < 2",
    "boolean operation": "config.flag = True or False",
    "not": "config.flag = not False",
    "invert": "config.layers[0] = ~5",
    "shift": "config.layers[0] = 1 << 100000000",
    "matrix product": "config.sigma = 1 @ 1",
    "huge exponent": "config.sigma = 9**9**9",
    "huge exponents": "config.sigma = 2.0**99999",
    "huge product": "config.sigma = " + " * ".join(["2**1000"] * 3),
    "huge power of a power": "config.sigma = (2**512) ** 3",
    "huge power of ten": "config.sigma = 10 ** 10 ** 300",
    "huge text": "config.name = 'x' * 10**12",
    "huge list": "config.bands = ['x'] * 10**12",
    "growing text": "config.name = 'xxxxxxxxxxxxxxxx'\n" + "config.name += config.name\n" * 64,
    "growing list": "config.layers += config.layers\n" * 64,
    "extending list": "config.layers.extend(config.layers)\n" * 64,
    "huge integer": "config.layers[0] = " + "9" * 4000,
    "huger integer": "config.layers[0] = " + "9" * 9000,
    "complex result": "config.sigma = (-1) ** 0.5",
    "division by zero": "config.sigma = 1 / 0",
    "modulo by zero": "config.sigma = 1 % 0",
    "zero to a negative power": "config.sigma = 0 ** -1",
    "integer of float": "config.net.latentDim = 8 / 2",
    "arithmetic of booleans": "config.layers[0] = True + True",
    "parentheses": "config.sigma = " + "(" * 10_000 + "1" + ")" * 10_000,
    "open parentheses": "config.sigma = " + "(" * 10_000,
    "brackets": "config.bands = " + "[" * 199 + "]" * 199,
    "braces": "config.weights = " + "{'a':" * 5_000 + "1" + "}" * 5_000,
    "minus signs": "config.sigma = " + "-" * 10_000 + "1",
    "minus signs in an f-string": 'config.name = f"{' + "-" * 10_000 + '1}"',
    "sums": "config.sigma = " + "+".join(["1"] * 10_000),
    "powers": "config.sigma = " + "**".join(["1"] * 10_000),
    "attributes": "config" + ".net" * 10_000 + ".latentDim = 1",
    "items": "config.layers" + "[0]" * 10_000 + " = 1",
    "calls": "config" + "()" * 10_000,
    "lambdas": "config.sigma = " + "lambda a,b: " * 10_000 + "1",
    "conditionals": "config.sigma = " + "1 if 1 else " * 10_000 + "1",
    "nots": "config.flag = " + "not " * 10_000 + "1",
    "elifs": "if 1: pass\n" + "elif 1: pass\n" * 10_000,
    "indents": "".join(" " * i + "if 1:\n" for i in range(200)),
    "null byte": "config.sigma = 1\nconfig.name = 'a\0b'",
    "not UTF-8": b"config.sigma = 1\nconfig.name = '\xff'",
    "UTF-16": "config.sigma = 1".encode("utf-16"),
    "syntax": "config.sigma = = 1",
    "unterminated": "config.name = '''abc",
    "unterminated line": "config.name = 'abc",
    "line continued for ever": "config.sigma = \\",
    "control": "config.sigma = 1 \x01",
    "dollar": "config.sigma = $HOME",
    "print statement": "print 'x'",
    "magic": "%load_ext x",
    "indented": "  config.sigma = 1",
    "too long": "#" * 1_100_000,
    "not a float": "config.sigma = float('x')",
    "float of a field": "config.sigma = float(config.name)",
    "float of a flag": "config.sigma = float(True)",
    "float of nothing": "config.sigma = float()",
    "other call": "config.net.latentDim = int('5')",
    "unknown name": "config.nothing = 1",
    "unknown nested name": "config.net.nothing = 1",
    "through a number": "config.sigma.real = 1",
    "item of a number": "config.sigma[0] = 1",
    "item that is not there": "config.layers[5] = 1",
    "item by a text": "config.layers['a'] = 1",
    "key that is not there": "config.sigma = config.weights['x']",
    "unhashable key": "config.weights[[1]] = 1",
    "unhashable key in a dict": "config.weights = {[1]: 1}",
    "unhashable set": "config.bands = {['a']}",
    "dict for a config": "config.net = {'latentDim': 3}",
    "config of another class": "config.net = config.other",
    "root for a nested config": "config.net = config",
    "config in a list": "config.bands = [config.net]",
    "wrong type": "config.net.latentDim = '5'",
    "out of range": "config.net.latentDim = 0",
    "flag for a number": "config.net.latentDim = True",
    "text for a list": "config.bands = 'gri'",
    "text added to a list": "config.bands += 'gri'",
    "number added to a list": "config.layers += 1",
    "list added to a dict": "config.weights += ['a']",
    "append to a number": "config.sigma.append(1)",
    "append to none": "config.layers2.append(1)",
    "append of two": "config.bands.append('a', 'b')",
    "append of a wrong type": "config.bands.append(1)",
    "extend by a text": "config.bands.extend('gri')",
    "append to root": "config.append(1)",
    "update of root by a dict": "config.update({'sigma': 1})",
    "insert": "config.bands.insert(0, 'u')",
    "clear": "config.weights.clear()",
    "pop": "config.weights.pop('g')",
    "load of a call": "config.load(str('x.py'))",
    "load of two": "config.load('x.py', 'y.py')",
    "load with a root": "config.load('x.py', root='y')",
    "load of nothing": "config.load('nowhere.py')",
    "load of a null byte": "config.load('x\\0.py')",
    "load of a directory": "config.load('.')",
    "load of a device": "config.load('/dev/zero')",
    "retarget without Tasks": "from os import system\nconfig.net.retarget(system)",
    "another class": "assert type(config) is other.NetConfig",
    "another class by name": "assert type(config).__name__ in ('NetConfig',), 'x'",
    "assertion about another root": "assert type(other) is x.Y",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_and_nonsense_are_refused_with_file_and_line_and_nothing_happens(
    tmp_path, monkeypatch, config, attack
):
    monkeypatch.chdir(tmp_path)
    config.name = "before"
    before, history = config.toDict(), {name: list(events) for name, events in config.history.items()}
    text = ATTACKS[attack]
    path = tmp_path / "attack.py"
    # A good line first: it must not stay when a later one is refused.
    first = "config.net.rate = 0.25\n"
    path.write_bytes((first.encode() + text) if isinstance(text, bytes) else (first + text).encode())
    start = time.perf_counter()
    with pytest.raises(OverrideError) as caught:
        OverrideReader(config).readFile(path)
    assert time.perf_counter() - start < 5
    message = str(caught.value)
    assert re.match(rf"{re.escape(str(path))}:[1-9]\d*: ", message) and "\n" not in message, message
    assert len(message) < 700 and "object has no attribute" not in message, "not one of Python's own errors"
    assert config.toDict() == before and config.history == history
    assert os.listdir(tmp_path) == ["attack.py"], "something was executed"


@pytest.mark.parametrize(
    "attack",
    ["parentheses", "braces", "minus signs", "sums", "attributes", "items", "calls", "lambdas", "elifs"],
)
def test_deep_nesting_never_reaches_python_s_parser(monkeypatch, config, attack):
    parsed = []

    def parse(*args, **kwargs):
        parsed.append(args)
        raise SyntaxError("parsed")

    for name, message in [
        (attack, "nested parts|`lambda`|`if`"),
        ("minus signs in an f-string", "an f-string"),
    ]:
        with monkeypatch.context() as patch, pytest.raises(OverrideError) as caught:
            patch.setattr("ast.parse", parse)
            OverrideReader(config).readString(ATTACKS[name])
        assert re.search(message, str(caught.value)) and not parsed


def test_long_flat_lists_are_no_deep_nesting(config):
    text = "config.layers = [" + ", ".join(["-1"] * 5000) + "]\n" + "config.sigma = 1; " * 500
    OverrideReader(config).readString(text)
    assert len(config.layers) == 5000


def test_the_line_in_the_message_is_the_line_that_is_wrong(config):
    text = (
        "import os\n\nconfig.sigma = 1\nconfig.bands = [\n    'a',\n]\nconfig.net.latentDim = 0\nconfig.x = 1"
    )
    with pytest.raises(
        OverrideError, match=r"^over\.py:7: config\.net\.latentDim = 0: expected int in \[1, 4096\]$"
    ):
        OverrideReader(config).readString(text, "over.py")
    for bad, line in [("config.sigma = os.x()", 3), ("while 1: pass", 3), ("config.sigma = (", 3), ("\0", 3)]:
        with pytest.raises(OverrideError, match=rf"^over\.py:{line}: "):
            OverrideReader(config).readString("# one\n# two\n" + bad, "over.py")
    with pytest.raises(OverrideError, match=r"^over\.py:2: byte 0xff is not UTF-8"):
        OverrideReader(config).readString(b"# one\n\xff", "over.py")


def test_refusals_say_what_is_allowed_and_unknown_names_what_was_meant(config):
    with pytest.raises(
        OverrideError, match="`os.getcwd\\(\\)` is refused; allowed are .*nothing is executed"
    ):
        OverrideReader(config).readString("import os\nconfig.name = os.getcwd()")
    with pytest.raises(
        OverrideError, match="NetConfig has no attribute config.net.latentDims; did you mean latentDim"
    ):
        OverrideReader(config).readString("config.net.latentDims = 3")


def test_history_points_into_the_override_file(tmp_path, config):
    path = tmp_path / "over.py"
    path.write_text("# first\n\nconfig.net.latentDim = 8\nconfig.bands += [\n    'i',\n]\n")
    config.load(path)
    assert config.net.history["latentDim"][1:] == [(8, (str(path), 3), "override")]
    assert config.history["bands"][1:] == [(("g", "r", "i"), (str(path), 4), "override")]


def test_frozen_configs_take_no_overrides(config):
    config.net.freeze()
    with pytest.raises(
        OverrideError, match=r"^<string>:2: config\.net\.latentDim = 8: Cannot modify a frozen"
    ):
        config.loadFromString("config.sigma = 1\nconfig.net.latentDim = 8")
    assert config.sigma == 0.5


def test_deprecated_field_warns_once_at_the_override_s_line():
    class Old(Config):
        old: int = Field(1, description="Old.", deprecated="use new")

    with pytest.warns(FutureWarning, match="config.old is deprecated: use new") as caught:
        Old().loadFromString("\nconfig.old = 2", filename="over.py")
    assert [(warning.filename, warning.lineno) for warning in caught] == [("over.py", 2)]


# -- files that load files ---------------------------------------------------


def test_loaded_files_are_looked_for_beside_the_file_that_loads_them(tmp_path, monkeypatch, config):
    monkeypatch.chdir("/")
    (tmp_path / "deep").mkdir()
    (tmp_path / "top.py").write_text("config.load('deep/all.py')\nconfig.second.load('deep/net.py')")
    (tmp_path / "deep" / "all.py").write_text("config.net.load('net.py')\nconfig.sigma = 2")
    (tmp_path / "deep" / "net.py").write_text("config.latentDim = 9  # config is the nested one here")
    config.load(tmp_path / "top.py")
    assert (config.net.latentDim, config.second.latentDim, config.sigma) == (9, 9, 2.0)
    assert config.net.history["latentDim"][-1][1] == (str(tmp_path / "deep" / "net.py"), 1)


def test_an_error_in_a_loaded_file_names_that_file_and_undoes_everything(tmp_path, config):
    (tmp_path / "top.py").write_text("config.sigma = 2\n\nconfig.net.load('net.py')")
    (tmp_path / "net.py").write_text("config.rate = 1\nconfig.latentDim = 0")
    with pytest.raises(
        OverrideError, match=rf"^{re.escape(str(tmp_path / 'net.py'))}:2: config\.net\.latentDim = 0"
    ):
        config.load(tmp_path / "top.py")
    assert config == DemoConfig()


def test_circles_and_towers_of_files_are_refused(tmp_path, config):
    (tmp_path / "self.py").write_text("config.sigma = 2\nconfig.load('self.py')")
    with pytest.raises(OverrideError, match=r"self\.py:2: .*self\.py loads itself"):
        config.load(tmp_path / "self.py")
    os.symlink(tmp_path / "self.py", tmp_path / "alias.py")
    (tmp_path / "self.py").write_text("config.load('alias.py')")
    with pytest.raises(OverrideError, match="loads itself"):
        config.load(tmp_path / "self.py")
    for i in range(12):
        (tmp_path / f"{i}.py").write_text(f"config.load('{i + 1}.py')")
    with pytest.raises(OverrideError, match=r"7\.py:1: too many files .*at most 8 deep"):
        config.load(tmp_path / "0.py")
    for i in range(4):
        (tmp_path / f"w{i}.py").write_text(f"config.load('w{i + 1}.py')\n" * 100)
    (tmp_path / "w4.py").write_text("")
    with pytest.raises(OverrideError, match="256 in all"):
        config.load(tmp_path / "w0.py")
    assert config == DemoConfig()


@pytest.mark.parametrize("kind", ["absent", "directory", "fifo", "large"])
def test_what_is_no_override_file_is_refused_at_once(tmp_path, config, kind):
    path = tmp_path / "over.py"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "large":
        with open(path, "wb") as stream:
            stream.truncate(1 << 33)
    reason = {"absent": "No such file", "large": "8589934592 bytes, too many"}.get(kind, "no ordinary file")
    with pytest.raises(OverrideError, match=rf"^{re.escape(str(path))}:1: .*{reason}"):
        config.load(path)


# -- options -----------------------------------------------------------------

OPTIONS = [
    ("net.latentDim=8", "net.latentDim", 8),
    ("config.net.latentDim = 8 ", "net.latentDim", 8),
    ("sigma=-2", "sigma", -2.0),
    ("sigma=float('inf')", "sigma", math.inf),
    ("limit=None", "limit", None),
    ("flag=True", "flag", True),
    ("placement=field", "placement", "field"),
    ("placement='field'", "placement", "field"),
    ("name=a/b-c.d", "name", "a/b-c.d"),
    ("name=1-2", "name", "1-2"),
    ("name=2024-01-02", "name", "2024-01-02"),
    ("name=a=b", "name", "a=b"),
    ("name=", "name", ""),
    ("name=for", "name", "for"),
    ("name=config.sigma", "name", "config.sigma"),
    ("name=__import__('os').getcwd()", "name", "__import__('os').getcwd()"),
    ("bands=[r, i]", "bands", ("r", "i")),
    ("bands=r,i", "bands", ("r", "i")),
    ("weights={g: 1, 'r': 2}", "weights", {"g": 1.0, "r": 2.0}),
]


@pytest.mark.parametrize("option, name, value", OPTIONS)
def test_options_take_literals_and_bare_words(config, option, name, value):
    OverrideReader(config).readOption(option)
    owner, field = config._find(name)
    assert getattr(owner, field) == value
    assert owner.history[field][-1][1:] == (("--config", 1), "option")


@pytest.mark.parametrize(
    "option, message",
    [
        ("net.latentDim", "is not NAME=VALUE"),
        ("=3", "is not NAME=VALUE"),
        ("net.latentDim=0", r"config\.net\.latentDim = 0: expected int in \[1, 4096\]"),
        ("net.latentDim='8'", "config.net.latentDim = '8': expected int"),
        ("net.latentDim=2*3", r"config\.net\.latentDim = '2\*3': expected int"),
        ("net.latentDim=" + "(" * 10_000, "expected int"),
        ("net.latentDim=" + "-" * 10_000 + "1", "expected int"),
        ("net.latentDims=3", "did you mean latentDim"),
        ("nothing.latentDim=3", "has no attribute config.nothing"),
        ("sigma.real=3", "config.sigma is 0.5, not a config"),
        ("net={}", "expected a NetConfig"),
        ("__class__=3", "has no attribute config.__class__"),
        ("_frozen=True", "has no attribute config._frozen"),
        ("net.=3", "has no attribute config.net."),
        ("net..rate=3", "has no attribute config.net."),
        ("bands=gri", "config.bands = 'gri': expected a list"),
        ("name=a\0b\nc", None),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(config, option, message):
    if message is None:  # a text is a text
        OverrideReader(config).readOption(option)
        assert config.name == "a\0b\nc"
        return
    with pytest.raises(OverrideError, match=message) as caught:
        OverrideReader(config).readOption(option, source="-c")
    assert str(caught.value).startswith("-c") and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert config == DemoConfig()


def test_reading_twice_and_in_order_the_last_value_wins(config):
    reader = OverrideReader(config)
    reader.readString("config.sigma = 1")
    reader.readOption("sigma=2")
    reader.readString("config.sigma += 0.5")
    assert [value for value, _, _ in config.history["sigma"]] == [0.5, 1.0, 2.0, 2.5]


def test_override_errors_keep_the_refused_field_as_their_cause(config):
    with pytest.raises(OverrideError) as caught:
        config.loadFromString("config.net.latentDim = 0")
    assert isinstance(caught.value.__cause__, FieldValidationError)
    assert caught.value.__cause__.fullname == "config.net.latentDim"
