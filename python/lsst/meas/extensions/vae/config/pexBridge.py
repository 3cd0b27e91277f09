# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Between `Config` and real ``lsst.pex.config`` classes.

The pydantic model is the one source of truth; `toPexConfig` makes the class
that the middleware wants from it, so that ``pipetask -c``, ``--show config``,
stored configs and ``ConfigurableField.retarget`` work as for any Task.
"""

__all__ = ["PexAccess", "PexConfigMixin", "toPex", "toPexConfig"]

import linecache
import sys
import types
from typing import Annotated

from pydantic import TypeAdapter, ValidationError

import lsst.pex.config as pexConfig
from lsst.pex.config.callStack import StackFrame

from ..errors import VaeError
from .config import FieldValidationError
from .expressions import Refusal
from .fields import choiceDocs, normalise
from .values import sameValue, toPlain

_made = {}  # (model, name, module, bases, kwds) -> class


class PexConfigMixin:
    """What the generated classes have beyond ``lsst.pex.config.Config``."""

    _model = None

    def toPydantic(self):
        """Return the same values as the model that this class was made from.

        Fields that the model does not know, such as ``connections`` and
        ``saveLogOutput``, stay behind.

        Returns
        -------
        config : `Config`

        Raises
        ------
        FieldValidationError
            Raised for a value that the model refuses.
        """
        config = self._model()
        _fillModel(config, self)
        return config

    def validate(self):
        """Check each field, then the model's own rules.

        Raises
        ------
        lsst.pex.config.FieldValidationError
            Raised when a rule is broken.
        """
        super().validate()
        try:
            self.toPydantic().validate()
        except ValueError as error:
            raise _asPexError(self, error) from error


def toPexConfig(model, name=None, module=None, bases=None, **kwds):
    """Make the ``lsst.pex.config.Config`` class that stands for a model.

    Parameters
    ----------
    model : `type` [`Config`]
        The model.
    name : `str`, optional
        The class's name; ``"Pex"`` and the model's by default.
    module : `str`, optional
        The module that will hold it under this name, so that it can be saved
        and pickled; the calling module by default.
    bases : `tuple` [`type`], optional
        The bases, e.g. ``(PipelineTaskConfig,)``.
    **kwds
        Passed to the class creation, e.g. ``pipelineConnections``.

    Returns
    -------
    pexClass : `type` [`lsst.pex.config.Config`]
        The same class when asked again.

    Raises
    ------
    TypeError
        Raised where the module holds something else by that name, or the
        model has a field name that a base needs.
    """
    name = name or f"Pex{model.__name__}"
    module = module or sys._getframe(1).f_globals["__name__"]
    bases = tuple(bases or (pexConfig.Config,))
    key = (model, name, module, bases, tuple(sorted(kwds.items())))
    if key in _made:
        return _made[key]
    holder = sys.modules[module]
    there = getattr(holder, name, None)
    # A notebook cell that is run again defines its classes again.
    if there is not None and not (isinstance(there, type) and issubclass(there, PexConfigMixin)):
        raise TypeError(f"{module}.{name} exists already: give toPexConfig another name")
    reserved = set().union(*map(dir, bases)) | ({"connections"} if "pipelineConnections" in kwds else set())
    if taken := sorted(reserved & set(model._specs)):
        raise TypeError(
            f"{model.__name__}.{taken[0]} hides what its pex_config base needs: choose another name"
        )

    defaults = model()
    source = StackFrame(*model._source, model.__name__, content=f"class {model.__name__}")
    fields = {}
    for field, spec in model._specs.items():
        fields[field] = _makeField(model, field, spec, defaults._read(field))
        fields[field].source = source

    def body(namespace):
        namespace.update(fields, _model=model, __module__=module, __qualname__=name)
        namespace["__doc__"] = model.__doc__

    cls = types.new_class(name, (PexConfigMixin, *bases), kwds, body)
    cls._source = source
    setattr(holder, name, cls)
    model._pexNames += (f"{module}.{name}",)
    _made[key] = cls
    return cls


def toPex(config, pexClass=None):
    """Copy a model's values, with their history, into its pex_config class.

    Parameters
    ----------
    config : `Config`
        The values.
    pexClass : `type`, optional
        A class made by `toPexConfig`, or one derived from it; the plain one
        in the model's own module by default.

    Returns
    -------
    pex : `lsst.pex.config.Config`

    Raises
    ------
    TypeError
        Raised where the class was made from another model.
    """
    if pexClass is None:
        pexClass = toPexConfig(type(config), module=type(config).__module__)
    if getattr(pexClass, "_model", None) is not type(config):
        raise TypeError(f"{pexClass.__name__} was not made from {type(config).__name__} by toPexConfig")
    pex = pexClass()
    _fillPex(config, pex)
    return pex


# -- fields ----------------------------------------------------------------


def _makeField(model, name, spec, default):
    """Make the pex_config field that stands for a model's field."""
    info = model.model_fields[name]
    common = {"doc": info.description, "deprecated": info.deprecation_message if info.deprecated else None}
    if spec.kind == "config":
        sub = toPexConfig(spec.dtype, module=spec.dtype.__module__)
        # Only defaults of the parent's own making need to be written down.
        return pexConfig.ConfigField(
            dtype=sub, default=None if default == spec.dtype() else toPex(default, sub), **common
        )
    common.update(default=toPlain(default), optional=spec.optional)
    if spec.kind == "choice":
        return pexConfig.ChoiceField(dtype=spec.dtype, allowed=choiceDocs(spec, info), **common)
    if spec.kind == "list":
        if spec.minLength is not None and spec.minLength == spec.maxLength:
            lengths = {"length": spec.minLength}
        else:
            lengths = {"minLength": spec.minLength, "maxLength": spec.maxLength}
        return pexConfig.ListField(
            dtype=spec.item.dtype, itemCheck=_itemCheck(spec.item), **lengths, **common
        )
    if spec.kind == "dict":
        return pexConfig.DictField(
            keytype=spec.key.dtype,
            itemtype=spec.item.dtype,
            keyCheck=_itemCheck(spec.key),
            itemCheck=_itemCheck(spec.item),
            dictCheck=_wholeCheck(model, name, spec) if _hasLength(spec) else None,
            **common,
        )
    bounded = spec.minimum is not None or spec.maximum is not None
    if bounded and not spec.others:
        return pexConfig.RangeField(
            dtype=spec.dtype,
            min=spec.minimum,
            max=spec.maximum,
            inclusiveMin=spec.inclusiveMin,
            inclusiveMax=spec.inclusiveMax,
            **common,
        )
    check = _wholeCheck(model, name, spec) if bounded or spec.others or _hasLength(spec) else None
    return pexConfig.Field(dtype=spec.dtype, check=check, **common)


def _hasLength(spec):
    return spec.minLength is not None or spec.maxLength is not None


def _itemCheck(spec):
    """Make the check of a container's items, or `None` where any will do."""
    bounds = (spec.minimum, spec.maximum, spec.minLength, spec.maxLength)
    if spec.choices:
        return lambda value: value in spec.choices
    if spec.others or any(bound is not None for bound in bounds):
        return lambda value: _withinBounds(spec, value)
    return None


def _withinBounds(spec, value):
    if spec.minimum is not None and not (value > spec.minimum or spec.inclusiveMin and value == spec.minimum):
        return False
    if spec.maximum is not None and not (value < spec.maximum or spec.inclusiveMax and value == spec.maximum):
        return False
    if spec.minLength is not None and len(value) < spec.minLength:
        return False
    return spec.maxLength is None or len(value) <= spec.maxLength


def _wholeCheck(model, name, spec):
    """Make a check that asks pydantic, for rules that pex_config lacks."""
    info = model.model_fields[name]
    adapter = None

    def check(value):
        nonlocal adapter
        if adapter is None:
            annotation = info.annotation
            for item in info.metadata:
                annotation = Annotated[annotation, item]
            adapter = TypeAdapter(annotation)
        try:
            adapter.validate_python(normalise(spec, value), strict=True)
        except ValidationError:
            return False
        return True

    return check


# -- values ----------------------------------------------------------------


def _fillModel(config, pex):
    for name, spec in config._specs.items():
        value = getattr(pex, name)
        if spec.kind == "config":
            _fillModel(config._read(name), value)
        elif not sameValue(config._read(name), normalise(spec, value)):
            _, frames, label = pex.history[name][-1]
            at = (frames[-1].filename, frames[-1].lineno) if frames else config._source
            config._assign(name, toPlain(value), at, label)


def _fillPex(config, pex):
    for name, spec in config._specs.items():
        if spec.kind == "config":
            _fillPex(config._read(name), getattr(pex, name))
            continue
        entries = list(config.history[name][1:])  # the default is there already
        if not entries and not sameValue(normalise(spec, getattr(pex, name)), config._read(name)):
            entries = config.history[name]
        for value, at, label in entries:
            # Field.__set__ does not warn of deprecation: that was done once.
            pex._fields[name].__set__(pex, toPlain(value), at=[_frame(at)], label=label)


def _frame(at):
    file, line = at
    return StackFrame(file, line, "override", content=linecache.getline(file, line).strip())


def _asPexError(pex, error):
    """Make pex_config's error of one of ours."""
    if isinstance(error, pexConfig.FieldValidationError):
        return error
    owner, name, reason = pex, next(iter(pex._model._specs)), str(error)
    if isinstance(error, FieldValidationError):
        *path, name = error.fullname.split(".")[1:]
        for part in path:
            owner = getattr(owner, part)
        reason = f"{error.value!r}: {error.reason}"
    return pexConfig.FieldValidationError(owner._fields[name], owner, reason)


class PexAccess:
    """How the override reader touches pex_config's own classes."""

    @staticmethod
    def names(config):
        return set(_inside(config)._fields)

    @staticmethod
    def typeName(config):
        cls = type(_inside(config))
        return f"{cls.__module__}.{cls.__name__}"

    @classmethod
    def typeNames(cls, config):
        names = {cls.typeName(config)}
        if isinstance(_inside(config), PexConfigMixin):
            model = _inside(config)._model
            names |= {f"{model.__module__}.{model.__qualname__}", *model._pexNames}
        return names

    @staticmethod
    def rehearsal(config):
        return config.copy()

    @staticmethod
    def read(config, name):
        if name not in _inside(config)._fields:
            raise _unknown(config, name)
        value = getattr(config, name)
        return (
            value if isinstance(value, pexConfig.Config | pexConfig.ConfigurableInstance) else toPlain(value)
        )

    @staticmethod
    def assign(config, name, value, at, label):
        field = _inside(config)._fields.get(name)
        if field is None:
            raise _unknown(config, name)
        # pex_config would make letters of the text and 1 of True.
        if isinstance(field, pexConfig.ListField) and isinstance(value, str):
            raise VaeError(f"{_fullName(config, name)} = {value!r}: expected a list")
        if isinstance(value, bool) and field.dtype in (int, float):
            raise VaeError(f"{_fullName(config, name)} = {value!r}: expected {field.dtype.__name__}")
        try:
            config.__setattr__(name, value, at=[_frame(at)], label=label)
        except Exception as error:  # whatever a field's check may raise
            raise VaeError(str(error).partition("\nFor more information")[0]) from error

    @staticmethod
    def retarget(config, name, task, at, label):
        value = PexAccess.read(config, name)
        if not isinstance(value, pexConfig.ConfigurableInstance):
            raise Refusal(f"retargeting {_fullName(config, name)}, which holds no Task")
        if not issubclass(task.ConfigClass, pexConfig.Config):
            raise Refusal(f"the Task {task.__name__}, whose ConfigClass is not made by toPexConfig")
        try:
            value.retarget(task, at=[_frame(at)], label=label)
        except pexConfig.FieldValidationError as error:
            raise VaeError(str(error).partition("\nFor more information")[0]) from error


def _inside(config):
    """The config itself, where a retargetable field holds it."""
    return config.value if isinstance(config, pexConfig.ConfigurableInstance) else config


def _fullName(config, name):
    return f"{_inside(config)._name or 'config'}.{name}"


def _unknown(config, name):
    cls = type(_inside(config))
    where = f"{cls.__module__}.{cls.__name__} has no attribute {_fullName(config, name)}"
    return VaeError(f"{where}; its fields are {', '.join(_inside(config)._fields)}")
