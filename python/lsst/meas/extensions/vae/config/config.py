# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""`Config`, a pydantic model with pex_config's manners.

A config is a tree of typed, documented fields. Values are set by dotted
attributes, checked as they are set, remembered with the file and line that set
them, and frozen when a Task runs.
"""

__all__ = ["Config", "FieldValidationError", "UnknownFieldError"]

import difflib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from ..errors import VaeError
from ..files import replacing
from .fields import FieldSpec, normalise, readSpec
from .values import FieldDict, callerLocation, close, literal, sameValue, shorten, toPlain


class FieldValidationError(VaeError):
    """A value that a config field does not accept.

    Parameters
    ----------
    fullname : `str`
        The field's full dotted name, e.g. ``config.net.latentDim``.
    value : `object`
        The refused value.
    reason : `str`
        Why, and what is allowed.
    """

    def __init__(self, fullname, value, reason):
        super().__init__(fullname, value, reason)
        self.fullname = fullname
        self.value = value
        self.reason = reason

    def __str__(self):
        return f"{self.fullname} = {shorten(self.value)}: {self.reason}"


class UnknownFieldError(VaeError, AttributeError):
    """A name that is no field of a config."""


class Config(BaseModel):
    """Base of every config.

    Fields are declared as pydantic declares them, each with a default and a
    description::

        class NetConfig(Config):
            latentDim: int = Field(32, ge=1, le=4096, description="Latent dimensions.")

    Accepted types are `bool`, `int`, `float`, `str`, ``Literal[...]``,
    ``tuple[X, ...]``, ``dict[str, X]``, any of them ``| None``, and other
    configs (``Field(default_factory=NetConfig, description=...)``).

    Parameters
    ----------
    **values
        Values of fields; a `dict` may stand for a nested config here.

    Raises
    ------
    FieldValidationError
        For a value of the wrong type or out of range.
    UnknownFieldError
        For a name that is no field.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        validate_default=True,
        ser_json_inf_nan="constants",
        protected_namespaces=(),
    )

    _specs: ClassVar[dict[str, FieldSpec]] = {}
    # (file, line) of the class statement: where defaults come from.
    _source: ClassVar[tuple[str, int]] = (__file__, 0)
    # Full names of the pex_config classes that stand for this class.
    _pexNames: ClassVar[tuple[str, ...]] = ()

    _name: str = PrivateAttr(default="config")
    _frozen: bool = PrivateAttr(default=False)
    _history: dict[str, list] = PrivateAttr(default_factory=dict)

    # -- declaration -------------------------------------------------------

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any):
        super().__pydantic_init_subclass__(**kwargs)
        cls._source = callerLocation()
        cls._pexNames = ()
        cls._specs = {}
        for decorator in cls.__pydantic_decorators__.model_validators.values():
            if decorator.info.mode == "after":
                raise TypeError(
                    f"{cls.__name__} has a model_validator(mode='after'), which would judge a config "
                    "half way through its overrides: write validate() instead"
                )
        for name, info in cls.model_fields.items():
            where = f"{cls.__name__}.{name}"
            if hasattr(Config, name):
                raise TypeError(f"{where} hides a method of Config: choose another name")
            if not info.description:
                raise TypeError(
                    f"{where} has no description: every field needs Field(..., description='...')"
                )
            if info.is_required():
                raise TypeError(f"{where} has no default: every field needs one (None for X | None)")
            try:
                spec = readSpec(info.annotation, info.metadata)
            except TypeError as error:
                raise TypeError(f"{where}: {error}") from None
            if spec.kind == "config" and not issubclass(spec.dtype, Config):
                raise TypeError(f"{where}: {spec.dtype.__name__} is not a Config")
            cls._specs[name] = spec

    def __init__(self, /, **values):
        try:
            super().__init__()
        except ValidationError as error:
            detail = error.errors()[0]
            name = str(detail["loc"][0])
            reason = f"the default does not fit; expected {self._specs[name].describe()}"
            raise FieldValidationError(f"{type(self).__name__}.{name}", detail["input"], reason) from None
        self._adopt("config")
        for name in self._specs:
            self._record(name, self._source, "default")
        self.setDefaults()
        at = callerLocation()
        for name, value in values.items():
            self._require(name)
            if self._specs[name].kind == "config" and isinstance(value, Mapping):
                value = self._specs[name].dtype(**value)
            self._assign(name, value, at, "constructor")

    def setDefaults(self):
        """Set defaults that the fields alone cannot say; for subclasses.

        Call ``super().setDefaults()`` first.
        """

    def validate(self):
        """Check rules between fields; for subclasses.

        Called when a Task is made, never in between. Call
        ``super().validate()`` first and ``raise self.invalid(name, reason)``.

        Raises
        ------
        FieldValidationError
            Raised when a rule is broken.
        """
        for _, child in self._children():
            child.validate()

    def invalid(self, name, reason):
        """Make the error of a broken rule.

        Parameters
        ----------
        name : `str`
            The field to blame.
        reason : `str`
            What is wrong and what is allowed.

        Returns
        -------
        error : `FieldValidationError`
            To be raised by `validate`.
        """
        return FieldValidationError(f"{self._name}.{name}", self._read(name), reason)

    # -- access ------------------------------------------------------------

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_"):
                raise
            raise self._unknown(name) from None

    def __setattr__(self, name, value):
        if name in type(self).__private_attributes__:
            super().__setattr__(name, value)
            return
        self._assign(name, value, callerLocation(), "assignment")

    def __delattr__(self, name):
        self._require(name)
        self._assign(name, None, callerLocation(), "deletion")

    def _read(self, name):
        """Read a field, without the warning of a deprecated one."""
        self._require(name)
        return self.__dict__[name]

    def _assign(self, name, value, at, label):
        """Check a value, set it and remember where it came from.

        Parameters
        ----------
        name : `str`
            A field.
        value : `object`
            Its new value.
        at : `tuple` [`str`, `int`]
            File and line that set it.
        label : `str`
            What set it.
        """
        self._require(name)
        self._requireThawed(name, value)
        info, spec = type(self).model_fields[name], self._specs[name]
        if info.deprecated:
            message = f"{self._name}.{name} is deprecated: {info.deprecation_message}"
            warnings.warn_explicit(message, FutureWarning, at[0], at[1])
        if spec.kind == "config":
            self._assignConfig(name, value, at, label)
        else:
            self._check(name, spec, value)
            if isinstance(self.__dict__[name], dict):
                self.__dict__[name] = FieldDict(self.__dict__[name], self, name)
        self._record(name, at, label)

    def _check(self, name, spec, value):
        """Let pydantic check a value and set it."""
        fullname = f"{self._name}.{name}"
        reason = f"expected {spec.describe()}"
        fitting = normalise(spec, value)
        # 1, 1.0 and True are the same choice to pydantic, not to us.
        if spec.kind == "choice" and fitting is not None and type(fitting) is not spec.dtype:
            raise FieldValidationError(fullname, value, reason)
        try:
            self.__pydantic_validator__.validate_assignment(self, name, fitting)
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            if detail["type"] in ("value_error", "assertion_error"):  # a field_validator of the author's
                reason = f"{detail['msg'].split(', ', 1)[-1]}; {reason}"
            raise FieldValidationError(fullname, value, reason) from None

    def _assignConfig(self, name, value, at, label):
        """Copy a config's values into the one that is there."""
        child = self.__dict__[name]
        if value is type(child):
            value = value()
        if type(value) is not type(child):
            reason = f"expected a {type(child).__name__}; set its fields one by one"
            raise FieldValidationError(f"{self._name}.{name}", value, reason)
        # An assignment to itself must not read what it has just written.
        for field, new in [(field, value._read(field)) for field in value]:
            if isinstance(new, Config) or not sameValue(child._read(field), new):
                child._assign(field, new, at, label)

    def _require(self, name):
        if name not in self._specs:
            raise self._unknown(name)

    def _requireThawed(self, name, value):
        if self._frozen:
            raise FieldValidationError(f"{self._name}.{name}", value, "Cannot modify a frozen Config")

    def _unknown(self, name):
        close = difflib.get_close_matches(name, self._specs, n=1)
        hint = f"did you mean {close[0]}?" if close else f"its fields are {', '.join(self._specs) or 'none'}"
        cls = type(self)
        return UnknownFieldError(
            f"{cls.__module__}.{cls.__qualname__} has no attribute {self._name}.{name}; {hint}"
        )

    def _record(self, name, at, label):
        self._history.setdefault(name, []).append((self._plain(name), tuple(at), label))

    def _plain(self, name):
        """A field's value for keeping: immutable, or a copy."""
        value = self._read(name)
        if isinstance(value, Config):
            return "config value set"
        return dict(value) if isinstance(value, dict) else value

    def _children(self):
        return [(name, self.__dict__[name]) for name, spec in self._specs.items() if spec.kind == "config"]

    def _adopt(self, name):
        """Take a full name, give the children theirs, bind the dicts."""
        self._name = name
        for field, value in list(self.__dict__.items()):
            if isinstance(value, Config):
                value._adopt(f"{name}.{field}")
            elif isinstance(value, dict):
                self.__dict__[field] = FieldDict(value, self, field)

    # -- the mapping manners of pex_config ---------------------------------

    def __iter__(self):
        return iter(self._specs)

    def __contains__(self, name):
        return name in self._specs

    def keys(self):
        """Return the names of the fields."""
        return self._specs.keys()

    def values(self):
        """Return the values of the fields."""
        return {name: self._read(name) for name in self}.values()

    def items(self):
        """Return the fields' names and values."""
        return {name: self._read(name) for name in self}.items()

    def names(self):
        """Return the dotted names of all fields, nested ones included."""
        found = []
        for name in self:
            value = self._read(name)
            found += [f"{name}.{sub}" for sub in value.names()] if isinstance(value, Config) else [name]
        return found

    def toDict(self):
        """Return the values as nested plain dicts and lists."""
        values = ((name, self._read(name)) for name in self)
        return {name: v.toDict() if isinstance(v, Config) else toPlain(v) for name, v in values}

    def update(self, **values):
        """Set several fields."""
        at = callerLocation()
        for name in values:
            self._require(name)
        for name, value in values.items():
            self._assign(name, value, at, "update")

    def freeze(self):
        """Make this config and the nested ones read-only."""
        self._frozen = True
        for _, child in self._children():
            child.freeze()

    def copy(self):
        """Return a deep copy, history included, that is not frozen."""
        return self._clone(frozen=False)

    def _clone(self, frozen):
        new = type(self)()
        for name in self:
            value = self._read(name)
            new.__dict__[name] = value._clone(frozen) if isinstance(value, Config) else value
        new._history = {name: list(entries) for name, entries in self._history.items()}
        new._frozen = frozen and self._frozen
        new._adopt(self._name)
        return new

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo=None):
        return self.copy()

    def model_copy(self, *, update=None, deep=False):
        """Return a copy with some fields changed, checked like any other."""
        new = self.copy()
        new.update(**(update or {}))
        return new

    def __setstate__(self, state):
        super().__setstate__(state)
        self._adopt(self._name)

    def __eq__(self, other):
        if type(other) is not type(self):
            return NotImplemented
        return all(sameValue(self._read(name), other._read(name)) for name in self)

    __hash__ = None

    def __str__(self):
        return str(self.toDict())

    def compare(self, other, shortcut=True, rtol=1e-8, atol=1e-8, output=None):
        """Compare with another config, numbers within a tolerance.

        Parameters
        ----------
        other : `Config`
            Of the same class, or the configs differ.
        shortcut : `bool`
            Whether to stop at the first difference.
        rtol, atol : `float`
            Relative and absolute tolerance.
        output : callable, optional
            Told each difference, one line of text at a time.

        Returns
        -------
        isEqual : `bool`
        """
        tell = output or (lambda text: None)
        if type(other) is not type(self):
            tell(f"{self._name}: {type(self).__name__} is not {type(other).__name__}")
            return False
        equal = True
        for name in self:
            mine, theirs = self._read(name), other._read(name)
            if isinstance(mine, Config):
                same = mine.compare(theirs, shortcut, rtol, atol, output)
            else:
                same = close(mine, theirs, rtol, atol)
                if not same:
                    tell(f"{self._name}.{name}: {mine!r} != {theirs!r}")
            equal = equal and same
            if shortcut and not equal:
                break
        return equal

    # -- history -----------------------------------------------------------

    @property
    def history(self):
        """For each field, a list of ``(value, (file, line), label)``."""
        return self._history

    def formatHistory(self, name):
        """Tell how a field came by its value.

        Parameters
        ----------
        name : `str`
            A field, dotted where nested.

        Returns
        -------
        text : `str`
            The full name, then a line for each value: value, file:line, label.
        """
        owner, field = self._find(name)
        owner._require(field)
        entries = [
            (shorten(value), f"{file}:{line}", label) for value, (file, line), label in owner.history[field]
        ]
        width = max(len(value) for value, _, _ in entries)
        place = max(len(where) for _, where, _ in entries)
        lines = [f"{value:<{width}}  {where:<{place}}  {label}" for value, where, label in entries]
        return "\n".join([f"{owner._name}.{field}", *lines])

    def _find(self, name):
        """Find the config that holds a dotted name; return it and the field."""
        *path, field = name.split(".")
        owner = self
        for part in path:
            child = owner._read(part)
            if not isinstance(child, Config):
                raise owner._unknown(f"{part}.{field}")
            owner = child
        return owner, field

    # -- files -------------------------------------------------------------

    def load(self, filename, tasks=None):
        """Apply an override file; it is read, never executed.

        Parameters
        ----------
        filename : path
            The file.
        tasks : `~collections.abc.Mapping` [`str`, `type`], optional
            The Tasks that ``retarget`` may name.

        Raises
        ------
        lsst.meas.extensions.vae.errors.OverrideError
            Raised for anything that is not a plain override; the config is
            then unchanged.
        """
        from .overrides import OverrideReader

        OverrideReader(self, tasks=tasks).readFile(filename)

    def loadFromString(self, code, root="config", filename=None, tasks=None):
        """Apply override text; see `load`."""
        from .overrides import OverrideReader

        OverrideReader(self, tasks=tasks, root=root).readString(code, filename or "<string>")

    def saveToString(self, root="config", skipImports=False):
        """Return the override text that reproduces this config.

        Parameters
        ----------
        root : `str`
            The variable that stands for the config.
        skipImports : `bool`
            Whether to leave out the lines that tie the text to this class.

        Returns
        -------
        code : `str`
            It can also be loaded into the pex_config class made by
            ``toPexConfig``.
        """
        lines = []
        if not skipImports:
            cls = type(self)
            names = {cls.__name__: None, f"Pex{cls.__name__}": None}
            names.update(dict.fromkeys(name.rpartition(".")[2] for name in cls._pexNames))
            lines += [
                f"import {cls.__module__}\n",
                f"assert type({root}).__name__ in {tuple(names)!r}, 'config is not a {cls.__name__}'\n\n",
            ]
        self._saveTo(lines, root)
        return "".join(lines)

    def save(self, filename, root="config"):
        """Write the override file that reproduces this config, atomically.

        Raises
        ------
        lsst.meas.extensions.vae.errors.VaeError
            Raised where the file cannot be written.
        """
        path = Path(filename)
        try:
            with replacing(path) as temporary:
                temporary.write_text(self.saveToString(root=root), encoding="utf-8")
        except OSError as error:
            raise VaeError(
                f"cannot write the config to {path}: {error.strerror}; choose a writable file"
            ) from error

    def _saveTo(self, lines, root):
        for name, info in type(self).model_fields.items():
            value = self._read(name)
            if isinstance(value, Config):
                value._saveTo(lines, f"{root}.{name}")
                continue
            doc = info.description
            if info.deprecated:
                if sameValue(value, self._history[name][0][0]):
                    continue
                doc += f" Deprecated: {info.deprecation_message}"
            comment = "# " + doc.replace("\n", "\n# ")
            lines.append(f"{comment}\n{root}.{name}={literal(value)}\n\n")
