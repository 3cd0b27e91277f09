# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a config field accepts, read from its pydantic annotation.

pydantic checks values; a `FieldSpec` says the same rule as plain data, for the
messages that users read and for the pex_config field that stands for it.
"""

__all__ = ["FieldSpec", "choiceDocs", "normalise", "readSpec"]

import numbers
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

_SCALARS = (bool, int, float, str)


@dataclass(frozen=True)
class FieldSpec:
    """The rule of one field, or of the items of a list or dict field.

    Parameters
    ----------
    kind : `str`
        ``"scalar"``, ``"choice"``, ``"list"``, ``"dict"`` or ``"config"``.
    dtype : `type`
        `bool`, `int`, `float` or `str`; the nested config's class.
    optional : `bool`
        Whether `None` is a value.
    minimum, maximum : `int`, `float` or `None`
        Bounds of a number.
    inclusiveMin, inclusiveMax : `bool`
        Whether the bounds are themselves allowed.
    minLength, maxLength : `int` or `None`
        Bounds of the length of a text, list or dict.
    choices : `tuple`
        The allowed values of a choice.
    item, key : `FieldSpec` or `None`
        The rule of a container's items, and of a dict's keys.
    others : `tuple` [`str`]
        Further constraints, in words.
    """

    kind: str
    dtype: type
    optional: bool = False
    minimum: float | None = None
    maximum: float | None = None
    inclusiveMin: bool = True
    inclusiveMax: bool = True
    minLength: int | None = None
    maxLength: int | None = None
    choices: tuple = ()
    item: "FieldSpec | None" = None
    key: "FieldSpec | None" = None
    others: tuple[str, ...] = ()

    def describe(self):
        """Say in words what is allowed, e.g. ``int in [1, 4096] or None``."""
        if self.kind == "choice":
            text = "one of " + ", ".join(repr(choice) for choice in self.choices)
        elif self.kind == "list":
            text = f"a list of {self.item.describe()}"
        elif self.kind == "dict":
            text = f"a dict of {self.key.describe()} to {self.item.describe()}"
        else:
            text = self.dtype.__name__
        if self.minimum is not None or self.maximum is not None:
            low = "-inf" if self.minimum is None else repr(self.minimum)
            high = "inf" if self.maximum is None else repr(self.maximum)
            opening = "[" if self.inclusiveMin and self.minimum is not None else "("
            closing = "]" if self.inclusiveMax and self.maximum is not None else ")"
            text += f" in {opening}{low}, {high}{closing}"
        low, high = self.minLength, self.maxLength
        unit = "character" if self.dtype is str and self.kind == "scalar" else "item"
        unit += "" if (high or low) == 1 else "s"
        if low is not None and low == high:
            text += f" of {low} {unit}"
        elif low is not None and high is not None:
            text += f" of {low} to {high} {unit}"
        elif low is not None:
            text += f" of at least {low} {unit}"
        elif high is not None:
            text += f" of at most {high} {unit}"
        text += "".join(f", {other}" for other in self.others)
        return text + (" or None" if self.optional else "")


def readSpec(annotation, metadata=(), inside=False):
    """Read the rule of a field.

    Parameters
    ----------
    annotation : `type`
        The field's annotation.
    metadata : iterable
        Its constraints, as pydantic's ``FieldInfo.metadata`` lists them.
    inside : `bool`
        Whether this is an item of a container, which must be simple.

    Returns
    -------
    spec : `FieldSpec`

    Raises
    ------
    TypeError
        For a type that pex_config could not hold: lists and dicts of
        containers, unions other than ``X | None``, any other class.
    """
    annotation, metadata = _unwrap(annotation, list(metadata))
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        members = [arg for arg in args if arg is not type(None)]
        if len(members) != 1 or inside:
            raise TypeError(f"{annotation} is a union other than X | None")
        spec = readSpec(members[0], metadata)
        if spec.kind == "config":
            raise TypeError("a nested config cannot be None")
        return replace(spec, optional=True)
    if annotation in _SCALARS:
        return _constrain(FieldSpec("scalar", annotation), metadata)
    if origin is Literal:
        dtypes = {type(arg) for arg in args}
        if len(dtypes) != 1 or not dtypes <= set(_SCALARS):
            raise TypeError(f"{annotation} mixes types: its choices must all be str, int or float")
        return _constrain(FieldSpec("choice", dtypes.pop(), choices=args), metadata)
    if inside:
        raise TypeError(f"items must be bool, int, float, str or a choice of them, not {annotation}")
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return _constrain(FieldSpec("list", tuple, item=readSpec(args[0], inside=True)), metadata)
    if origin is tuple and args:
        items = [readSpec(arg, inside=True) for arg in args]
        if any(item != items[0] for item in items):
            raise TypeError(f"{annotation} mixes types: a list field has items of one type")
        return FieldSpec("list", tuple, item=items[0], minLength=len(args), maxLength=len(args))
    if origin is dict:
        key, item = (readSpec(arg, inside=True) for arg in args)
        return _constrain(FieldSpec("dict", dict, key=key, item=item), metadata)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return FieldSpec("config", annotation)
    if origin is list or annotation is list:
        raise TypeError("use tuple[X, ...]: a list could be changed behind the config's back")
    raise TypeError(f"{annotation} is not bool, int, float, str, Literal, tuple[X, ...], dict or a Config")


def choiceDocs(spec, info):
    """Return what each choice means, from ``json_schema_extra["choices"]``.

    Parameters
    ----------
    spec : `FieldSpec`
        A choice.
    info : `pydantic.fields.FieldInfo`
        Its pydantic field.

    Returns
    -------
    docs : `dict` [value, `str`]
        Empty texts where nothing is said.
    """
    extra = info.json_schema_extra
    docs = extra.get("choices", {}) if isinstance(extra, Mapping) else {}
    return {choice: docs.get(choice, "") for choice in spec.choices}


def normalise(spec, value):
    """Turn what stands for a field's type into that very type.

    Lists, arrays and pex_config's list proxies become tuples, mappings plain
    dicts and NumPy scalars Python's; anything else is left for pydantic to
    judge. Texts are never split into letters and sets, which have no order,
    never become sequences.
    """
    if spec.kind == "list":
        if getattr(value, "ndim", None) == 1 and hasattr(value, "tolist"):
            value = value.tolist()
        if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | range):
            return tuple(normalise(spec.item, item) for item in value)
    elif spec.kind == "dict" and isinstance(value, Mapping):
        return {normalise(spec.key, k): normalise(spec.item, v) for k, v in value.items()}
    elif spec.kind in ("scalar", "choice") and not isinstance(value, bool):
        if spec.dtype is int and isinstance(value, numbers.Integral):
            return int(value)
        if spec.dtype is float and isinstance(value, numbers.Real):
            try:
                return float(value)
            except OverflowError:
                return value
        if spec.dtype is str and isinstance(value, str):
            return str(value)
    return value


def _unwrap(annotation, metadata):
    """Peel ``Annotated`` and type aliases off an annotation."""
    while True:
        if hasattr(annotation, "__value__"):  # type X = ..., Python 3.12
            annotation = annotation.__value__
        elif get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            for item in more:
                metadata.extend(item.metadata if isinstance(item, FieldInfo) else [item])
        else:
            return annotation, metadata


def _constrain(spec, metadata):
    """Add pydantic's constraints to a rule."""
    found, others = {}, []
    for item in metadata:
        if isinstance(item, annotated_types.GroupedMetadata):
            spec = _constrain(spec, list(item))
        elif isinstance(item, annotated_types.Ge):
            found.update(minimum=item.ge, inclusiveMin=True)
        elif isinstance(item, annotated_types.Gt):
            found.update(minimum=item.gt, inclusiveMin=False)
        elif isinstance(item, annotated_types.Le):
            found.update(maximum=item.le, inclusiveMax=True)
        elif isinstance(item, annotated_types.Lt):
            found.update(maximum=item.lt, inclusiveMax=False)
        elif isinstance(item, annotated_types.MinLen):
            found.update(minLength=item.min_length)
        elif isinstance(item, annotated_types.MaxLen):
            found.update(maxLength=item.max_length)
        else:
            others += _words(item)
    return replace(spec, **found, others=spec.others + tuple(others))


def _words(item: Any):
    """Say a constraint that pex_config has no field for."""
    if isinstance(item, annotated_types.MultipleOf):
        return [f"a multiple of {item.multiple_of}"]
    values = dict(getattr(item, "__dict__", {}))
    words = []
    if getattr(item, "allow_inf_nan", values.get("allow_inf_nan")) is False:
        words.append("finite")
    if values.get("pattern"):
        words.append(f"matching {values['pattern']!r}")
    return words
