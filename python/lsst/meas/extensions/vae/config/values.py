# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""The values of config fields: compared, written down, changed in place."""

__all__ = ["FieldDict", "callerLocation", "close", "literal", "sameValue", "shorten", "toPlain"]

import math
import os
import sys
from collections.abc import Mapping, Sequence

import pydantic

# Frames in these directories are not who set a value.
_INTERNAL = tuple(
    os.path.join(os.path.dirname(os.path.abspath(f)), "") for f in (__file__, pydantic.__file__)
)


class FieldDict(dict):
    """The value of a dict field: its changes are checked and remembered."""

    def __init__(self, value, owner, name):
        super().__init__(value)
        self._owner = owner
        self._name = name

    def _change(self, new, label):
        owner, name = self._owner, self._name
        if owner.__dict__.get(name) is self:
            owner._assign(name, new, callerLocation(), label)
            new = owner.__dict__[name]
            owner.__dict__[name] = self  # whoever holds this dict goes on holding the field
        # Otherwise the field has got another value since, and this is just a dict.
        dict.clear(self)
        dict.update(self, new)

    def __setitem__(self, key, value):
        self._change({**self, key: value}, "setitem")

    def __delitem__(self, key):
        self[key]  # a KeyError as of any dict
        self._change({k: v for k, v in self.items() if k != key}, "delitem")

    def update(self, *args, **kwargs):
        self._change({**self, **dict(*args, **kwargs)}, "update")

    def __ior__(self, other):
        self._change({**self, **dict(other)}, "update")
        return self

    def clear(self):
        self._change({}, "clear")

    def setdefault(self, key, default=None):
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key, *default):
        if key not in self and default:
            return default[0]
        value = self[key]
        del self[key]
        return value

    def popitem(self):
        key = next(reversed(self))
        return key, self.pop(key)

    def copy(self):
        return dict(self)

    def __reduce__(self):
        return dict, (dict(self),)

    def __deepcopy__(self, memo=None):
        return dict(self)


def callerLocation():
    """Return the (file, line) of the nearest caller outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INTERNAL):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def shorten(value, limit=80):
    """Return a value's text on one line, cut to a length."""
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def toPlain(value):
    """Return a field's value with plain lists and dicts."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return value


def sameValue(a, b):
    """Whether two field values are equal, NaN being equal to NaN."""
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(sameValue, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(sameValue(a[key], b[key]) for key in a)
    return a == b


def literal(value):
    """Write a value as Python reads it back; repr alone loses infinities."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value!r}')"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(literal, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
    return repr(value)


def close(a, b, rtol, atol):
    """Whether two values agree within NumPy's kind of tolerance."""
    if isinstance(a, float) and isinstance(b, float):
        return sameValue(a, b) or abs(a - b) <= atol + rtol * abs(b)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(close(x, y, rtol, atol) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key], rtol, atol) for key in a)
    return a == b
