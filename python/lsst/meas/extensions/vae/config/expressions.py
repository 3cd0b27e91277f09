# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Override text made into a syntax tree, and expressions into values.

Nothing here compiles, imports or executes what it reads. Text passes three
gates: its tokens are looked at first, so that no text can exhaust Python's own
parser; then it is parsed; then only listed kinds of nodes are given a value,
with bounds on the size of every number and text.
"""

__all__ = ["Assertion", "Refusal", "evaluate", "parseText", "sourceOf"]

import ast
import io
import keyword
import math
import operator
import re
import tokenize
import warnings
from dataclasses import dataclass

MAX_CHARACTERS = 1_000_000
_MAX_NESTING = 200  # tokens that can lie inside one another
_MAX_BITS = 1024  # of an integer: no less than a float's range
_MAX_ITEMS = 10_000

_KEYWORDS = {"True", "False", "None", "import", "from", "as", "pass"}
_CONTINUES = (tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER)
_F_STRINGS = {
    getattr(tokenize, name, None)
    for name in ("FSTRING_START", "TSTRING_START")  # Python 3.12, 3.14
} - {None}

# The two forms of the line that ties a saved file to a class. Its text is
# matched as a whole, its message never looked at.
_NAME = r"[A-Za-z_][\w.]*"
_TEXT = r"[^\"'\\{}]|\{type\(\w+\)\.__(?:module|name)__\}"
_MESSAGE = rf"(?:, ?f?(?:\"(?:{_TEXT}|')*\"|'(?:{_TEXT}|\")*'))?(?:\s*#.*)?"
_ASSERT_PEX = re.compile(rf"assert type\((\w+)\) ?(?:is|==) ?({_NAME}) ?{_MESSAGE}")
_ASSERT_NAMES = re.compile(rf"assert type\((\w+)\)\.__name__ in \(((?:'\w+', ?)*'\w+',?)\){_MESSAGE}")


class Refusal(Exception):
    """Something an override may not hold.

    Parameters
    ----------
    what : `str`
        What was refused, and why.
    line : `int`, optional
        Its line, where the statement's own line is not it.
    """

    def __init__(self, what, line=None):
        super().__init__(what)
        self.what = what
        self.line = line


@dataclass(frozen=True)
class Assertion:
    """The line that says which class a file is for.

    Parameters
    ----------
    line : `int`
        Its line.
    root : `str`
        The variable it speaks of.
    names : `tuple` [`str`]
        The class's full name, or the bare names that are acceptable.
    """

    line: int
    root: str
    names: tuple[str, ...]


def parseText(text, mode="exec"):
    """Parse override text.

    Parameters
    ----------
    text : `str`
        Statements, or one expression.
    mode : `str`
        ``"exec"`` or ``"eval"``.

    Returns
    -------
    tree : `ast.Module` or `ast.Expression`
    assertions : `list` [`Assertion`]
        The type assertions, which the tree lacks.

    Raises
    ------
    Refusal
        Raised for text that is not plain enough to be parsed.
    """
    if len(text) > MAX_CHARACTERS:
        raise Refusal(f"{len(text)} characters of overrides (at most {MAX_CHARACTERS})", 1)
    if "\0" in text:
        raise Refusal("a null byte", text.count("\n", 0, text.index("\0")) + 1)
    # Python ends lines at these alone; str.splitlines would count others too.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    try:
        assertions = _screen(lines)
        for assertion in assertions:
            lines[assertion.line - 1] = "pass"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse("\n".join(lines), mode=mode), assertions
    except SyntaxError as error:
        raise Refusal(f"text that is not Python ({error.msg})", error.lineno or 1) from None
    except (ValueError, MemoryError, RecursionError, OverflowError) as error:
        raise Refusal(f"text that Python cannot parse ({type(error).__name__})", 1) from None


def _screen(lines):
    """Look at the tokens: refuse blocks, keywords that make code, f-strings
    and deep nesting; collect the type assertions.
    """
    assertions = []
    depth = [0]  # tokens since the last separator, for each open bracket
    opened = []  # lines of the open brackets
    starting = True
    skipping = 0
    for token in _tokens(lines, opened):
        line = token.start[0]
        if token.type in _CONTINUES or line <= skipping and token.type != tokenize.NEWLINE:
            continue
        if token.type == tokenize.NEWLINE or token.type == tokenize.OP and token.string == ";":
            starting, depth = True, [0]
            opened.clear()
            continue
        if token.type in (tokenize.INDENT, tokenize.DEDENT):
            raise Refusal("an indented line", line)
        if token.type == tokenize.NAME:
            if token.string == "assert" and starting:
                assertions.append(_readAssertion(lines[line - 1], line))
                skipping = line
                continue
            if keyword.iskeyword(token.string) and token.string not in _KEYWORDS:
                raise Refusal(f"`{token.string}`", line)
        if token.type in _F_STRINGS or (
            token.type == tokenize.STRING and "f" in re.split("['\"]", token.string, maxsplit=1)[0].lower()
        ):
            raise Refusal("an f-string", line)
        starting = False
        depth[-1] += 1
        if token.type == tokenize.OP:
            if token.string in "([{":
                depth.append(0)
                opened.append(line)
            elif token.string in ")]}" and opened:
                depth.pop()
                opened.pop()
            elif token.string == ",":
                depth[-1] = 0
        if sum(depth) > _MAX_NESTING:
            raise Refusal(f"an expression of more than {_MAX_NESTING} nested parts", line)
    return assertions


def _tokens(lines, opened):
    try:
        yield from tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline)
    except tokenize.TokenError as error:
        message, (line, _) = error.args
        if opened and "statement" in message:  # the end of the text was met first
            raise Refusal("a bracket that is never closed", opened[-1]) from None
        raise Refusal(f"text that is not Python ({message})", line) from None


def _readAssertion(text, line):
    if match := _ASSERT_PEX.fullmatch(text.strip()):
        return Assertion(line, match[1], (match[2],))
    if match := _ASSERT_NAMES.fullmatch(text.strip()):
        return Assertion(line, match[1], tuple(re.findall(r"\w+", match[2])))
    raise Refusal("an assertion other than `assert type(config) is module.Class, '...'`", line)


def evaluate(node, lookup, bareWords=False):
    """Give an expression its value.

    Parameters
    ----------
    node : `ast.expr`
        The expression.
    lookup : callable
        Called with a node that names a config field; returns its value.
    bareWords : `bool`
        Whether a plain name stands for itself as a text, as on the command
        line, where arithmetic and references are not read.

    Returns
    -------
    value : `object`
        Numbers, texts, booleans, `None`, lists, tuples, dicts of them, or
        what ``lookup`` gives.

    Raises
    ------
    Refusal
        Raised for everything else.
    """

    def walk(node):
        match node:
            case ast.Constant(value=value) if value is None or isinstance(value, bool | int | float | str):
                return _bounded(value)
            case ast.List(elts=elements):
                return [walk(element) for element in elements]
            case ast.Tuple(elts=elements) | ast.Set(elts=elements):
                # A set keeps its order and loses its repetitions.
                values = tuple(walk(element) for element in elements)
                if isinstance(node, ast.Tuple):
                    return values
                return tuple(dict.fromkeys(map(_key, values)))
            case ast.Dict(keys=keys, values=values) if None not in keys:
                return {_key(walk(key)): walk(value) for key, value in zip(keys, values, strict=True)}
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                value = walk(operand)
                if not _isNumber(value):
                    raise Refusal(f"a sign before {sourceOf(operand)}, which is no number")
                return -value if isinstance(node.op, ast.USub) else value
            case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=value)]) if not node.keywords:
                return _toFloat(value)
            case ast.Name(id=name) if bareWords:
                return name
            case ast.BinOp(left=left, op=op, right=right) if not bareWords:
                return arithmetic(op, walk(left), walk(right), node)
            case ast.Attribute() | ast.Subscript() if not bareWords:
                return lookup(node)
            case ast.Name(id=name):
                raise Refusal(f"the name `{name}`, which stands for no value here")
        raise Refusal(f"`{sourceOf(node)}`")

    return walk(node)


_OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def arithmetic(op, left, right, node):
    """Do one operation on numbers, or join two texts or two sequences.

    Parameters
    ----------
    op : `ast.operator`
        The operation.
    left, right : `object`
        Its operands.
    node : `ast.AST`
        Where it stands, for the message.

    Raises
    ------
    Refusal
        Raised for other operands, and for results without bound.
    """
    sequences = (list, tuple)
    if isinstance(op, ast.Add) and isinstance(left, str) and isinstance(right, str):
        return _bounded(left + right)
    if isinstance(op, ast.Add) and isinstance(left, sequences) and isinstance(right, sequences):
        return _bounded([*left, *right])
    operation = _OPERATIONS.get(type(op))
    if operation is None or not (_isNumber(left) and _isNumber(right)):
        raise Refusal(
            f"`{sourceOf(node)}`: only numbers are calculated with, texts and lists are joined by +"
        )
    try:
        if isinstance(op, ast.Pow) and isinstance(left, int) and isinstance(right, int):
            if left and math.log2(abs(left)) * right > _MAX_BITS:
                raise OverflowError
        value = operation(left, right)
    except (ArithmeticError, ValueError) as error:
        problem = "division by zero" if isinstance(error, ZeroDivisionError) else "the result is too large"
        raise Refusal(f"`{sourceOf(node)}`: {problem}") from None
    if isinstance(value, complex):
        raise Refusal(f"`{sourceOf(node)}`: the result is a complex number")
    return _bounded(value)


def sourceOf(node, limit=60):
    """Return a node's source, on one line and cut to a length."""
    try:
        text = ast.unparse(node)
    except (ValueError, RecursionError):
        text = type(node).__name__
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _isNumber(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _key(value):
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise Refusal("a dict key or set item that is no number or text")


def _toFloat(value):
    try:
        if not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise Refusal(f"float({value!r:.60}), which is no number")


def _bounded(value):
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise Refusal(f"an integer of more than {_MAX_BITS} bits")
    if isinstance(value, str) and len(value) > MAX_CHARACTERS:
        raise Refusal(f"a text of more than {MAX_CHARACTERS} characters")
    if isinstance(value, list) and len(value) > _MAX_ITEMS:
        raise Refusal(f"a list of more than {_MAX_ITEMS} items")
    return value
