# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Override files and ``-c name=value`` options, read and never executed."""

__all__ = ["OverrideReader"]

import ast
import os
import re
import stat
import sys
import warnings
from pathlib import Path

from ..errors import OverrideError, VaeError
from .config import Config
from .expressions import MAX_CHARACTERS, Refusal, arithmetic, evaluate, parseText, sourceOf
from .values import shorten, toPlain

_MAX_DEPTH = 8
_MAX_LOADS = 256
_ALLOWED = (
    "allowed are `config.name = value` with literal values, references to config fields and bounded "
    "arithmetic, imports (ignored), .append/.extend/.update, config.load('file.py') and .retarget(Task); "
    "nothing is executed"
)
_OPTION = re.compile(r"\s*([A-Za-z_][\w.]*)\s*=(.*)", re.DOTALL)


class OverrideReader:
    """Applies overrides to a config by reading their syntax tree.

    A file or text is applied as a whole or not at all: it is rehearsed on a
    copy of the config first.

    Parameters
    ----------
    config : `Config` or `lsst.pex.config.Config`
        What is overridden. pex_config's own classes are taken too, so that
        connections and subtasks can be overridden as safely.
    tasks : `~collections.abc.Mapping` [`str`, `type`], optional
        The Tasks that ``retarget`` may name, by class name or full name.
        Without it nothing can be retargeted.
    root : `str`
        The variable that stands for the config.
    maxDepth : `int`
        How many files may be loaded inside one another.
    """

    def __init__(self, config, tasks=None, root="config", maxDepth=_MAX_DEPTH):
        self.config = config
        self.tasks = dict(tasks or {})
        self.root = root
        self.maxDepth = maxDepth

    def readFile(self, path):
        """Apply an override file.

        Parameters
        ----------
        path : path
            A UTF-8 text file.

        Raises
        ------
        OverrideError
            Raised, with file and line, for anything but plain overrides, and
            for values that the config refuses. The config is then unchanged.
        """
        self._perform(lambda run, config: run.file(config, Path(path), f"{path}:1"))

    def readString(self, text, filename="<string>"):
        """Apply override text.

        Parameters
        ----------
        text : `str` or `bytes`
            As a file would hold it.
        filename : `str`
            The name in messages and history; files that the text loads are
            looked for beside it.

        Raises
        ------
        OverrideError
            As `readFile`.
        """
        filename = os.fspath(filename)
        if isinstance(text, bytes):
            text = _decode(text, filename)
        self._perform(lambda run, config: run.text(config, text, filename, Path(filename).parent))

    def readOption(self, option, source="--config"):
        """Apply an option such as ``net.latentDim=16``.

        Parameters
        ----------
        option : `str`
            A dotted name, ``=``, and a literal; what is no literal is taken
            as text, so that ``survey=lsst10yr`` needs no quotes.
        source : `str`
            The name in messages and history.

        Raises
        ------
        OverrideError
            As `readFile`.
        """
        match = _OPTION.fullmatch(option)
        if match is None:
            raise OverrideError(
                f"{source}: {shorten(option)} is not NAME=VALUE; give a dotted name and a value, e.g. a.b=1"
            )
        name, value = match[1], match[2].strip()
        first = name.partition(".")
        if first[0] == self.root and first[2] and self.root not in _access(self.config).names(self.config):
            name = first[2]
        self._perform(lambda run, config: run.option(config, name.split("."), value, source))

    def _perform(self, read):
        files = {}
        access = _access(self.config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(_Run(self, files), access.rehearsal(self.config))
        read(_Run(self, files), self.config)


class _Run:
    """One pass over a text and the files that it loads."""

    def __init__(self, reader, files):
        self.tasks = reader.tasks
        self.root = reader.root
        self.maxDepth = reader.maxDepth
        self.files = files  # what was read, so that both passes see the same
        self.open = []
        self.loads = 0

    def file(self, config, path, where):
        """Apply a file; ``where`` is who asked for it."""
        self.loads += 1
        key = os.path.realpath(path)
        if key in self.open:
            raise OverrideError(f"{where}: {path} loads itself; remove the circle")
        if len(self.open) >= self.maxDepth or self.loads > _MAX_LOADS:
            raise OverrideError(
                f"{where}: too many files loaded inside one another "
                f"(at most {self.maxDepth} deep, {_MAX_LOADS} in all)"
            )
        if key not in self.files:
            self.files[key] = _readText(path, where)
        self.open.append(key)
        self.text(config, self.files[key], os.fspath(path), path.parent)
        self.open.pop()

    def text(self, config, text, filename, directory):
        """Apply the statements of a text, one after the other."""
        try:
            tree, assertions = parseText(text)
        except Refusal as refusal:
            raise _asError(refusal, filename, 1) from None
        imports = {}
        tasks = [(item.line, item) for item in assertions] + [(node.lineno, node) for node in tree.body]
        for line, node in sorted(tasks, key=lambda pair: pair[0]):
            statement = _Statement(self, config, filename, line, directory, imports)
            try:
                statement.apply(node)
            except Refusal as refusal:
                raise _asError(refusal, filename, line) from None
            except OverrideError:
                raise  # from a file that this one loads
            except (VaeError, RecursionError) as error:
                raise OverrideError(f"{filename}:{line}: {_oneLine(error)}") from error

    def option(self, config, path, value, source):
        """Apply a name=value option."""
        try:
            tree, _ = parseText(value, mode="eval")
            value = evaluate(tree.body, None, bareWords=True)
        except Refusal:
            pass  # no literal: the text itself
        try:
            statement = _Statement(self, config, source, 1, None, {}, label="option")
            statement.set(statement.owner(path[:-1]), path[-1], value)
        except Refusal as refusal:
            raise OverrideError(f"{source} {'.'.join(path)}: {refusal.what}") from None
        except VaeError as error:
            raise OverrideError(f"{source}: {_oneLine(error)}") from error


class _Statement:
    """One statement, applied at one place of one file."""

    def __init__(self, run, config, filename, line, directory, imports, label="override"):
        self.run = run
        self.config = config
        self.at = (filename, line)
        self.directory = directory
        self.imports = imports
        self.label = label

    def apply(self, node):
        """Apply a statement.

        Raises
        ------
        Refusal
            Raised for any other statement.
        """
        match node:
            case ast.Pass() | ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.Import(names=names):
                for alias in names:
                    first = alias.name.partition(".")[0]
                    self.imports[alias.asname or first] = alias.name if alias.asname else first
            case ast.ImportFrom(module=module, names=names):
                for alias in names:
                    self.imports[alias.asname or alias.name] = f"{module or ''}.{alias.name}"
            case ast.Assign(targets=targets, value=value):
                value = self.value(value)
                for target in targets:
                    self.assign(target, value)
            case ast.AugAssign(target=target, op=op, value=value):
                self.assign(target, self.augmented(op, self.lookup(target), self.value(value), node))
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=owner, attr=method)) as call):
                self.call(owner, method, call)
            case ast.AST():
                raise Refusal(f"`{sourceOf(node)}`")
            case _:
                self.check(node)

    def check(self, assertion):
        """Check the class that the text says it is for."""
        if assertion.root != self.run.root:
            raise Refusal(f"an assertion about `{assertion.root}`; the config is called `{self.run.root}`")
        access = _access(self.config)
        known = access.typeNames(self.config)
        known |= {name.rpartition(".")[2] for name in known if len(assertion.names) > 1}
        if known.isdisjoint(assertion.names):
            raise OverrideError(
                f"{self.at[0]}:{self.at[1]}: this file is for {' or '.join(assertion.names)}, "
                f"but the config is a {access.typeName(self.config)}; give a file of that class"
            )

    # -- values ------------------------------------------------------------

    def value(self, node):
        return evaluate(node, self.lookup)

    def lookup(self, node):
        """Return the value that ``config.a.b`` or ``config.a[0]`` names."""
        if isinstance(node, ast.Subscript):
            container, key = self.lookup(node.value), self.key(node)
            if not isinstance(container, list | dict):
                raise Refusal(f"`{sourceOf(node)}`: only lists and dicts have items")
            try:
                return container[key]
            except (LookupError, TypeError):
                raise Refusal(f"`{sourceOf(node)}`: there is no item {key!r}") from None
        path = self.path(node)
        return _access(self.config).read(self.owner(path[:-1]), path[-1]) if path else self.config

    def key(self, node):
        if isinstance(node.slice, ast.Slice):
            raise Refusal(f"the slice `{sourceOf(node)}`")
        return self.value(node.slice)

    def path(self, node):
        """Return the names in ``config.a.b``: ``["a", "b"]``."""
        names, inner = [], node
        while isinstance(inner, ast.Attribute):
            names.append(inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name):
            raise Refusal(f"`{sourceOf(node)}`")
        if inner.id != self.run.root:
            raise Refusal(f"`{sourceOf(node)}`: only `{self.run.root}` is known here")
        return names[::-1]

    def owner(self, path):
        """Return the config at a path."""
        config = self.config
        for i, name in enumerate(path):
            config = _access(config).read(config, name)
            if not _isConfig(config):
                full = ".".join([self.run.root, *path[: i + 1]])
                raise Refusal(f"{full} is {shorten(config)}, not a config: it has no fields")
        return config

    # -- changes -----------------------------------------------------------

    def assign(self, target, value):
        if isinstance(target, ast.Subscript):
            container, key = self.lookup(target.value), self.key(target)
            if not isinstance(container, list | dict):
                raise Refusal(f"`{sourceOf(target)}`: only lists and dicts have items")
            try:
                container[key] = value  # a copy: the whole is set, and so checked
            except (LookupError, TypeError):
                raise Refusal(f"`{sourceOf(target)}`: there is no item {key!r}") from None
            self.assign(target.value, container)
        elif isinstance(target, ast.Attribute):
            path = self.path(target)
            self.set(self.owner(path[:-1]), path[-1], value)
        else:
            raise Refusal(f"the target `{sourceOf(target)}`: only fields of `{self.run.root}` are set")

    def set(self, owner, name, value):
        _access(owner).assign(owner, name, value, self.at, self.label)

    def augmented(self, op, old, new, node):
        """Return what ``old op= new`` sets."""
        if isinstance(old, dict):
            if isinstance(op, ast.BitOr) and isinstance(new, dict):
                return {**old, **new}
            raise Refusal(f"`{sourceOf(node)}`: a dict takes `|=` and a dict")
        return arithmetic(op, old, new, node)

    def call(self, owner, method, call):
        """Apply one of the few calls that change a config."""
        if any(keyword.arg is None for keyword in call.keywords):
            raise Refusal(f"`{sourceOf(call)}`")
        try:
            path = self.path(owner) if not isinstance(owner, ast.Subscript) else None
        except Refusal:
            raise Refusal(f"the call `{sourceOf(call)}`") from None
        if method == "load" and path is not None:
            self.load(self.owner(path), call)
        elif method == "retarget" and path:
            self.retarget(path, call)
        elif method in ("append", "extend", "update") and path != []:
            self.grow(owner, method, call)
        elif method == "update":
            self.updateConfig(self.config, call)
        else:
            raise Refusal(f"the call `{sourceOf(call)}`")

    def grow(self, target, method, call):
        """Add to a list or dict field."""
        container = self.lookup(target)
        if method == "update" and _isConfig(container):
            self.updateConfig(container, call)
            return
        arguments = [self.value(argument) for argument in call.args]
        named = {keyword.arg: self.value(keyword.value) for keyword in call.keywords}
        match container, method, arguments:
            case list(), "append", [item] if not named:
                self.assign(target, arithmetic(ast.Add(), container, [item], call))
            case list(), "extend", [list() | tuple() as items] if not named:
                self.assign(target, arithmetic(ast.Add(), container, items, call))
            case dict(), "update", [] | [dict()]:
                self.assign(target, {**container, **(arguments[0] if arguments else {}), **named})
            case _:
                raise Refusal(f"`{sourceOf(call)}`, which does not fit {shorten(container)}")

    def updateConfig(self, config, call):
        if call.args:
            raise Refusal(f"`{sourceOf(call)}`: a config's update takes name=value")
        for keyword in call.keywords:
            self.set(config, keyword.arg, self.value(keyword.value))

    def load(self, config, call):
        """Apply a further file to a config."""
        match call:
            case ast.Call(args=[ast.Constant(value=str() as name)], keywords=[]) if "\0" not in name:
                self.run.file(config, self.directory / name, f"{self.at[0]}:{self.at[1]}")
            case _:
                raise Refusal(f"`{sourceOf(call)}`: load takes one file name, looked for beside this file")

    def retarget(self, path, call):
        """Retarget a subtask to one of the known Tasks."""
        named = {keyword.arg: keyword.value for keyword in call.keywords}
        nodes = [*call.args, *(named.pop(key) for key in ["target"] if key in named)]
        if len(nodes) != 1 or not set(named) <= {"ConfigClass"}:
            raise Refusal(f"`{sourceOf(call)}`: retarget takes the name of one Task")
        task = self.task(nodes[0])
        if "ConfigClass" in named:
            full = self.dotted(named["ConfigClass"])
            cls = task.ConfigClass
            if full not in (f"{cls.__module__}.{cls.__name__}", cls.__name__):
                raise Refusal(f"ConfigClass={full}; {task.__name__} has {cls.__module__}.{cls.__name__}")
        owner = self.owner(path[:-1])
        _access(owner).retarget(owner, path[-1], task, self.at, self.label)

    def task(self, node):
        """Find a Task by the name it has in the text."""
        full = self.dotted(node)
        tasks = self.run.tasks
        if full in tasks:
            return tasks[full]
        module, _, name = full.rpartition(".")
        task = tasks.get(name)
        # A package may show a class that one of its modules holds.
        if task is not None and f"{task.__module__}.".startswith(f"{module}."):
            return task
        known = ", ".join(sorted(tasks)) or "none"
        raise Refusal(f"the Task {full}; the Tasks that can be named here: {known}")

    def dotted(self, node):
        """Return the full name that an imported or dotted name stands for."""
        names = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            raise Refusal(f"`{sourceOf(node)}`, which is no class name")
        if node.id not in self.imports:
            raise Refusal(f"the name `{node.id}`, which is not imported above")
        return ".".join([self.imports[node.id], *reversed(names)])


class ModelAccess:
    """How the reader touches a `Config`. `pexBridge.PexAccess` is its like."""

    @staticmethod
    def names(config):
        return set(config)

    @staticmethod
    def typeName(config):
        return f"{type(config).__module__}.{type(config).__qualname__}"

    @classmethod
    def typeNames(cls, config):
        return {cls.typeName(config), *type(config)._pexNames}

    @staticmethod
    def rehearsal(config):
        return config._clone(frozen=True)

    @staticmethod
    def read(config, name):
        return toPlain(config._read(name))

    @staticmethod
    def assign(config, name, value, at, label):
        config._assign(name, value, at, label)

    @staticmethod
    def retarget(config, name, task, at, label):
        config._require(name)
        raise Refusal(f"retargeting {config._name}.{name}, which holds no Task")


def _isPex(value):
    """Whether a value is pex_config's; it is then already imported."""
    pexConfig = sys.modules.get("lsst.pex.config")
    return pexConfig is not None and isinstance(value, pexConfig.Config | pexConfig.ConfigurableInstance)


def _isConfig(value):
    return isinstance(value, Config) or _isPex(value)


def _access(config):
    if _isPex(config):
        from .pexBridge import PexAccess

        return PexAccess
    return ModelAccess


def _readText(path, where):
    """Read a file, which must be an ordinary one of bounded size."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise OverrideError(f"{where}: {path} is no ordinary file; give an override file")
        if status.st_size > 4 * MAX_CHARACTERS:
            raise OverrideError(f"{where}: {path} has {status.st_size} bytes, too many for an override file")
        with open(path, "rb") as stream:
            return _decode(stream.read(4 * MAX_CHARACTERS), os.fspath(path))
    except (OSError, ValueError) as error:
        if isinstance(error, VaeError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise OverrideError(f"{where}: cannot read {path} ({reason}); check the name") from None


def _decode(data, filename):
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise OverrideError(
            f"{filename}:{line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8 text"
        ) from None


def _asError(refusal, filename, line):
    return OverrideError(f"{filename}:{refusal.line or line}: {refusal.what} is refused; {_ALLOWED}")


def _oneLine(error):
    """The message of an error; of pex_config's, the part that tells it."""
    if isinstance(error, RecursionError):
        return "too deeply nested; write it simpler"
    text = str(error).partition("For more information")[0]
    return " ".join(text.split())
