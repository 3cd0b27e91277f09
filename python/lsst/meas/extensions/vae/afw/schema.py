# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fields of a catalogue, with the names of ``afw.table``."""

__all__ = ["Field", "Key", "Point2DKey", "Point2IKey", "Schema", "SchemaItem", "SchemaMapper"]

import dataclasses
import fnmatch
import functools
import operator
from typing import NamedTuple

import astropy.units as u
import numpy as np

from ..errors import CatalogError
from .geometry import Point2D, Point2I

_DTYPES = {
    "Flag": np.bool_,
    "B": np.uint8,
    "U": np.uint16,
    "I": np.int32,
    "L": np.int64,
    "F": np.float32,
    "D": np.float64,
    "Angle": np.float64,
    "String": np.str_,
}
_PYTHON_TYPES = {
    bool: "Flag", int: "L", float: "D", str: "String", np.uint8: "B", np.uint16: "U", np.int32: "I",
    np.int64: "L", np.float32: "F", np.float64: "D", np.bool_: "Flag",
}  # fmt: skip


class FieldNotFoundError(CatalogError, KeyError):
    """A field that the schema lacks; a `KeyError`, as in afw."""

    __str__ = Exception.__str__  # KeyError would quote the message


class Key(str):
    """What finds a field in a record: its name."""

    __slots__ = ()

    def asKey(self):
        """The key itself."""
        return self


@dataclasses.dataclass(frozen=True)
class Field:
    """What a schema says of one column.

    Parameters
    ----------
    name : `str`
        The name.
    type : `str` or `type`
        "Flag", "B" (uint8), "U" (uint16), "I" (int32), "L" (int64), "F"
        (float32), "D" (float64), "Angle" (float64 radians), "String", or
        "Array" and one of those letters.
    doc : `str`
        What the column means.
    units : `str`
        Its unit, as astropy spells it, or nothing.
    size : `int`, optional
        The most characters of a string, or the length of an array.

    Raises
    ------
    CatalogError
        If a part is not one of these.
    """

    name: str
    type: str
    doc: str = ""
    units: str = ""
    size: int | None = None

    def __post_init__(self):
        if not isinstance(self.type, str):
            object.__setattr__(self, "type", _PYTHON_TYPES.get(self.type, str(self.type)))
        if not self.name or not all(c.isascii() and (c.isalnum() or c in "_.-") for c in self.name):
            raise CatalogError(
                f"A field's name has ASCII letters, digits, '_', '.' and '-', not {self.name!r}."
            )
        kind = self.type.removeprefix("Array")
        if kind not in _DTYPES or (self.isArray and kind in ("Flag", "Angle", "String")):
            raise CatalogError(
                f"Field '{self.name}' has type '{self.type}'; there are {', '.join(_DTYPES)}, ArrayD, ..."
            )
        if (self.isArray or kind == "String") and not (
            isinstance(self.size, (int, np.integer)) and self.size > 0
        ):
            raise CatalogError(f"The {self.type} field '{self.name}' needs a positive size, not {self.size}.")

    @functools.cached_property
    def isArray(self):
        """Whether a record has several values of this field."""
        return self.type.startswith("Array")

    @functools.cached_property
    def dtype(self):
        """The dtype of the column."""
        kind = _DTYPES[self.type.removeprefix("Array")]
        return np.dtype((kind, int(self.size))) if self.type == "String" else np.dtype(kind)

    @functools.cached_property
    def _limits(self):
        """The least and the largest integer."""
        limits = np.iinfo(self.dtype)
        return int(limits.min), int(limits.max)

    def getName(self):
        """The name."""
        return self.name

    def getDoc(self):
        """What the column means."""
        return self.doc

    def getUnits(self):
        """The unit, or an empty string."""
        return self.units

    def getTypeString(self):
        """The type."""
        return self.type

    def getSize(self):
        """The most characters of a string, or the length of an array."""
        return 1 if self.size is None else self.size

    def makeColumn(self, n):
        """A column [n] (or [n, size]) of defaults: NaN, 0, False or ''."""
        column = np.zeros((n, self.size) if self.isArray else n, dtype=self.dtype)
        if self.dtype.kind == "f":
            column.fill(np.nan)
        return column

    def _refused(self, value):
        size = f" of at most {self.size} characters" if self.type == "String" else ""
        shape = f" of {self.size} values" if self.isArray else ""
        return CatalogError(f"The field '{self.name}' takes {self.dtype.name}{size}{shape}, not {value!r}.")

    def check(self, value):
        """One record's value, or `CatalogError` if it does not fit."""
        kind = self.dtype.kind
        try:
            if self.isArray:
                return self.checkAll(np.asarray(value)[np.newaxis])[0]
            if kind == "f" and not isinstance(value, (str, u.Quantity)):
                return float(value)
            if kind in "iu":
                value = operator.index(value)
                if self._limits[0] <= value <= self._limits[1]:
                    return value
            elif kind == "b" and value in (True, False):
                return bool(value)
            elif kind == "U" and isinstance(value, str) and len(value) <= self.size:
                return value
            elif isinstance(value, u.Quantity):
                return float(self.checkAll(value))
        except (TypeError, ValueError):
            pass
        raise self._refused(value) from None

    def checkAll(self, values):
        """A whole column's values, or `CatalogError` if they do not fit."""
        if isinstance(values, u.Quantity):
            try:
                values = values.to_value(u.Unit(self.units))
            except u.UnitConversionError as error:
                raise CatalogError(
                    f"The field '{self.name}' is in '{self.units}'; values in '{values.unit}' do not convert."
                ) from error
        values = np.asarray(values)
        kind = self.dtype.kind
        if kind == "U":
            fits = values.dtype.kind == "U" and values.dtype.itemsize // 4 <= self.size
            fits = fits or (values.dtype.kind in "UO" and all(
                isinstance(v, str) and len(v) <= self.size for v in values.ravel().tolist()
            ))  # fmt: skip
        elif kind == "b":
            fits = values.dtype.kind == "b" or (values.dtype.kind in "iu" and np.isin(values, (0, 1)).all())
        else:
            fits = values.dtype.kind in "biuf" and (
                np.can_cast(values.dtype, self.dtype, "same_kind") or kind == "u"
            )
            if fits and kind in "iu" and values.size:
                low, high = self._limits
                fits = values.dtype.kind in "biu" and low <= values.min() and values.max() <= high
        if self.isArray and values.ndim and values.shape[-1] != self.size:
            fits = False
        if not fits:
            raise self._refused(values)
        return values


class SchemaItem(NamedTuple):
    """A field and the key that finds it."""

    key: Key
    field: Field

    def getKey(self):
        """The key."""
        return self.key

    def getField(self):
        """The field."""
        return self.field


class Schema:
    """The fields of a catalogue, in order.

    Parameters
    ----------
    fields : `Schema` or iterable of `Field`, optional
        A schema to copy, or the first fields.
    """

    def __init__(self, fields=()):
        if isinstance(fields, Schema):
            self._fields = dict(fields._fields)
        else:
            self._fields = {field.name: field for field in fields or ()}

    def addField(self, field, type=None, doc="", units="", size=None, doReplace=False, parse_strict="raise"):
        """Add a field, in place, and return its key.

        Parameters
        ----------
        field : `str` or `Field`
            The name, or all about it.
        type, doc, units, size
            See `Field`.
        doReplace : `bool`
            Replace a field of this name.
        parse_strict : `str`
            What `astropy.units.Unit` does with an unknown unit: "raise",
            "warn" or "silent".

        Raises
        ------
        CatalogError
            If there is a field of this name, or the unit or type is unknown.
        """
        if not isinstance(field, Field):
            field = Field(str(field), type, doc, units, size)
        try:
            u.Unit(field.units, parse_strict=parse_strict)
        except ValueError as error:
            raise CatalogError(
                f"The unit '{field.units}' of field '{field.name}' is unknown to astropy."
            ) from error
        if field.name in self._fields and not doReplace:
            raise CatalogError(f"There is a field '{field.name}' already; use doReplace=True to replace it.")
        self._fields[field.name] = field
        return Key(field.name)

    def find(self, name):
        """The key and field of a name, `SchemaItem`; an error (`CatalogError`,
        also a `KeyError`) if there is none.
        """
        try:
            return SchemaItem(Key(name), self._fields[name])
        except KeyError:
            pass
        import difflib

        near = difflib.get_close_matches(str(name), self._fields, 3)
        hint = f"near are {', '.join(near)}" if near else f"there are {', '.join(self._fields)}"
        raise FieldNotFoundError(f"There is no field '{name}'; {hint}.")

    def __getitem__(self, name):
        return self.find(name).key

    def getNames(self):
        """The names, a `set`."""
        return set(self._fields)

    def getOrderedNames(self):
        """The names in the order in which they were added, a `list`."""
        return list(self._fields)

    names = property(getOrderedNames)

    def getFieldCount(self):
        """The number of fields."""
        return len(self._fields)

    def __len__(self):
        return len(self._fields)

    def __iter__(self):
        return iter([SchemaItem(Key(name), field) for name, field in self._fields.items()])

    def __contains__(self, item):
        return (item.key if isinstance(item, SchemaItem) else item) in self._fields

    def contains(self, other):
        """Whether a field, or each field of a schema with its type, is here."""
        if isinstance(other, Schema):
            return all(n in self._fields and self._fields[n].type == f.type for n, f in other._fields.items())
        return other in self

    def extract(self, *patterns):
        """The items whose names match one of some shell-like patterns, a `dict`."""
        return {i.key: i for i in self if any(fnmatch.fnmatchcase(i.key, pattern) for pattern in patterns)}

    @staticmethod
    def join(*names):
        """A field's name made of parts."""
        return "_".join(names)

    def copy(self):
        """A copy that can be added to."""
        return Schema(self)

    __copy__ = copy

    def __eq__(self, other):
        if not isinstance(other, Schema):
            return NotImplemented
        return list(self._fields.values()) == list(other._fields.values())

    __hash__ = None

    def __repr__(self):
        return f"Schema({', '.join(f'{f.name}: {f.type}' for f in self._fields.values())})"


class SchemaMapper:
    """Which fields of one schema go to which of another.

    Parameters
    ----------
    input : `Schema`
        Where values come from.
    output : `Schema`, optional
        Where they go; copied, and grown by what is mapped.
    """

    def __init__(self, input, output=None):
        self._input, self._output = Schema(input), Schema(output)
        self._pairs = {}

    def addMapping(self, key, field=None, doReplace=False):
        """Map a field, under its own or another name, and return the key there."""
        source = self._input.find(key).field
        if field is None or isinstance(field, str):
            field = dataclasses.replace(source, name=str(field or source.name))
        present = self._output._fields.get(field.name)
        if present is None or (doReplace and present != field):
            self._output.addField(field, doReplace=doReplace)
        elif present.type != field.type:
            raise CatalogError(f"The field '{field.name}' is of type {present.type} there, not {field.type}.")
        self._pairs[source.name] = field.name
        return Key(field.name)

    def addMinimalSchema(self, minimal, doMap=True):
        """Add the fields of a schema to the output, mapped from those of their names."""
        for item in minimal:
            if doMap:
                self.addMapping(item.key, item.field)
            elif item.key not in self._output:
                self._output.addField(item.field)

    def addOutputField(self, field, doReplace=False):
        """Add a field that nothing is mapped to, and return its key."""
        return self._output.addField(field, doReplace=doReplace)

    def getInputSchema(self):
        """The schema that values come from."""
        return self._input

    def getOutputSchema(self):
        """A copy of the schema that values go to."""
        return Schema(self._output)

    def editOutputSchema(self):
        """The schema that values go to, to add fields."""
        return self._output

    def isMapped(self, key):
        """Whether a field of the input is mapped."""
        return key in self._pairs

    def pairs(self):
        """The (input, output) names, a `list`."""
        return list(self._pairs.items())


class _PointKey:
    """A point kept in the fields ``name_x`` and ``name_y``."""

    _type, _point = "D", Point2D

    def __init__(self, x, y):
        self._keys = (Key(x), Key(y))

    @classmethod
    def addFields(cls, schema, name, doc, unit):
        """Add both fields to a schema and return the key of the point."""
        axes = (("x", "column"), ("y", "row"))
        return cls(
            *(
                schema.addField(f"{name}_{a}", type=cls._type, doc=f"{doc} ({axis})", units=unit)
                for a, axis in axes
            )
        )

    def getX(self):
        """The key of x."""
        return self._keys[0]

    def getY(self):
        """The key of y."""
        return self._keys[1]

    def get(self, record):
        """A record's point."""
        return self._point(*(record.get(key) for key in self._keys))

    def set(self, record, point):
        """Set a record's point."""
        for key, value in zip(self._keys, point):
            record.set(key, value)


class Point2IKey(_PointKey):
    """A pixel kept in two int32 fields."""

    _type, _point = "I", Point2I


class Point2DKey(_PointKey):
    """A position kept in two float64 fields."""
