"""Calls in a formula, `log(x + 1)`: read as R reads them, written as Python evaluates them.

In R a name before a parenthesis is looked up among functions, any other name among columns first.
Python has one place for both, so that a column `C` would hide the function of that name. Here
columns get names of their own before code is evaluated. Numbers count as in R too: whole numbers
and logicals are computed with in double precision, and
`x > 0 & k > 1` compares before it joins.
"""

from __future__ import annotations

import ast
import builtins
import copy
import functools
import keyword
import re
import types
import unicodedata
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
from formulaic.transforms import TRANSFORMS

from .dialect import FUNCTIONS

# Reading ------------------------------------------------------------------------------------------

_ALIAS = re.compile(r"_x((?:[0-9a-f]{2})+)_")
"Names that Python would not take as they are stand in code as the digits of their letters."

_LETTER = r"[^\W\d]|[\u0300-\u036f]"
_NAME = rf"\.?(?:{_LETTER})(?:[\w.\u0300-\u036f])*"
_TOKEN = re.compile(
    rf"""
    (?P<text>[rbfRBF]{{0,2}}(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'))
    | `(?P<quoted>[^`]+)`
    | (?P<attribute>(?<=[)\]}}"'`])\s*\.\s*(?:{_LETTER})\w*)
    | (?P<whole>\d+)L\b
    | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    | (?P<name>{_NAME})
    | (?P<percent>%[^%\s]*%)
    | (?P<logical>&&?|\|\|?|!(?!=))
    """,
    re.VERBOSE,
)
_LOGICAL = {"&": " and ", "|": " or ", "!": " not "}
_PERCENT = {"%%": " % ", "%/%": " // ", "%in%": " in "}
_WORDS = ("lambda", "if", "else", "for", "and", "or", "is", "in", "not")  # of Python's expressions
_SYNTAX = ("True", "False", "None")


def normal(text: str) -> str:
    """Code as it is shown: Python's spacing and quotes, names as they were written."""
    try:
        tree = ast.parse(_aliased(text, logical=False), mode="eval")
    except SyntaxError:
        tree = _tree(text)
    return shown(ast.unparse(tree).replace("\n", " "))


def shown(text: str) -> str:
    """Code, or a message about it, with the names of the data in place of those that stand for
    them.
    """
    return _ALIAS.sub(lambda found: _spelled(bytes.fromhex(found[1]).decode()), text)


def alias(name: str) -> str:
    """The name that a column has in resolved code."""
    return f"_x{name.encode().hex()}_"


def _spelled(name: str) -> str:
    is_bare = re.fullmatch(_NAME, name) and (_is_strange(name) or name.isidentifier())
    return name if is_bare and name not in _WORDS + _SYNTAX else f"`{name}`"


def _is_strange(name: str) -> bool:
    """Whether Python would not read a name, or dotted names, as they are written."""
    parts = name.split(".")
    if (
        not all(part.isidentifier() for part in parts)
        or unicodedata.normalize("NFKC", name) != name
    ):
        return True
    if _ALIAS.fullmatch(name):
        return True
    return any(keyword.iskeyword(part) for part in parts) and name not in _SYNTAX


@functools.lru_cache(maxsize=4096)
def _tree(text: str) -> ast.Expression:
    return ast.parse(_aliased(text, logical=True), mode="eval")


def _aliased(text: str, logical: bool) -> str:
    """Python code of a call; logical: with `& | !` as Python's words, which bind as R's
    operators do.
    """

    def python(found: re.Match[str]) -> str:
        token = found[0]
        match found.lastgroup:
            case "quoted":
                return alias(found["quoted"])
            case "whole":
                return found["whole"]
            case "name":
                return alias(token) if _is_name(text, found) else token
            case "percent":
                return _percent(text, found)
            case "logical" if logical:
                return _LOGICAL[token[0]]
        return token

    return _TOKEN.sub(python, text).strip()


def _is_name(text: str, found: re.Match[str]) -> bool:
    """Whether a name of the data stands here that Python has no such name for, or a word of its
    own.
    """
    name = found[0]
    if name not in _WORDS:
        return _is_strange(name)
    before, after = text[: found.start()].rstrip()[-1:], text[found.end() :].lstrip()[:1]
    is_operand_before = bool(before) and before not in "([,=+-*/%^<>&|!~"
    if name == "lambda" and ":" in text:
        return False
    return not is_operand_before and (
        not after or after in "),+*/%^<>&|=!" or (after == "-" and name != "not")
    )


def _percent(text: str, found: re.Match[str]) -> str:
    """`%%`, `%/%` and `%in%`, which R binds more tightly than Python binds what stands for them."""
    if found[0] not in _PERCENT:
        raise ValueError(
            f"{found[0]} in {text!r} is unknown; compute it as a column of the data first"
        )
    looser = _operators(text[: found.start()][::-1], ")]")[-1:]
    if found[0] == "%in%":
        looser += _operators(text[found.end() :], "([")
    else:
        looser = looser.strip("+-")
    if looser:
        raise ValueError(
            f"{found[0]} in {text!r} comes before {looser[0]} in R: write parentheses around it"
        )
    return _PERCENT[found[0]]


def _operators(text: str, openers: str) -> str:
    """Operators of arithmetic between the start of a text and the end of the argument there, at
    its depth.
    """
    found, depth = "", 0
    for char in text:
        is_opener = char in openers
        depth += is_opener - (char in "()[]" and not is_opener)
        if depth < 0 or (depth == 0 and char in ",<>=!&|"):
            break
        if depth == 0 and char in "*/%+-":
            found += char
    return found


# Names --------------------------------------------------------------------------------------------


def columns_in(text: str, known: Container[str], functions: Mapping[str, Any]) -> list[str]:
    """The columns that code needs, those of them first that there are; and names that are neither
    column nor function.

    known: names of the columns that there are. functions: functions and values by name.
    """
    found = _Resolver(known, functions)
    found.visit(copy.deepcopy(_tree(text)))
    return list(found.used | found.unknown)


def resolved(
    text: str, known: Container[str], functions: Mapping[str, Any]
) -> tuple[ast.Expression, list[str]]:
    """Code that calls the functions of `evaluation`, and the columns that stand in it by their
    `alias`.
    """
    found = _Resolver(known, functions)
    return found.visit(copy.deepcopy(_tree(text))), list(found.used)


def asks_other_rows(text: str, known: Container[str], functions: Mapping[str, Any]) -> bool:
    """Whether code calls what may compute a row from others, as `x.rank()` does."""
    found = _Resolver(known, functions)
    found.visit(copy.deepcopy(_tree(text)))
    return found.has_open_calls


_RAW = ("C", "I", "c", "hashed", "len", "list", "str")
"Functions that take values as they are, whole numbers among them."

_RAW_METHODS = ("astype", "map", "apply")
_TYPES = ("bool", "float", "int", "str")


class _Resolver(ast.NodeTransformer):
    """Tells columns from functions, and writes R's arithmetic and logic as calls of `evaluation`'s
    functions.

    Columns get names of their own (`alias`), and calls that may be statistics of the rows are
    marked, to be remembered. After a visit `used` has the columns, `unknown` what is neither column
    nor function.
    """

    def __init__(self, known: Container[str], functions: Mapping[str, Any]):
        self.known, self.functions = known, functions
        self.used: dict[str, None] = {}
        self.unknown: dict[str, None] = {}
        self.bound: set[str] = set()
        self.has_open_calls = False

    def visit_Expression(self, node: ast.Expression) -> ast.Expression:
        for inner in ast.walk(node):
            if isinstance(inner, ast.arg):
                self.bound.add(inner.arg)
            elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                self.bound.add(inner.id)
        return ast.Expression(self.visit(node.body))

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._value([node.id], node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        path = _path(node)
        if path is not None:
            return self._value(path, node)
        return ast.Attribute(self.visit(node.value), node.attr, node.ctx)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        return self._kept(self.generic_visit(node))

    def visit_Call(self, node: ast.Call) -> ast.expr:
        path = _path(node.func)
        name = None if path is None else ".".join(path)
        quoted = [
            a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
        ]
        if name == "Q" and len(quoted) == 1:
            return (
                self._column(quoted[0])
                if quoted[0] in self.known
                else self._missing(quoted[0], node)
            )
        function = None if path is None else self._function(path)
        if function is None:
            return self._method(node)
        args = [self.visit(a) for a in node.args]
        keywords = [ast.keyword(k.arg, self.visit(k.value)) for k in node.keywords]
        if name not in _RAW:
            args = [_number(a) if _is_series(a) else a for a in args]
        call = ast.Call(node.func, args, keywords)
        is_closed = isinstance(function, np.ufunc) or name in TRANSFORMS or name in FUNCTIONS
        return call if is_closed else self._kept(call)

    def _method(self, node: ast.Call) -> ast.expr:
        args = [self.visit(a) for a in node.args]
        keywords = [ast.keyword(k.arg, self.visit(k.value)) for k in node.keywords]
        if not isinstance(node.func, ast.Attribute):
            is_name = isinstance(node.func, ast.Name)
            return self._kept(
                ast.Call(node.func if is_name else self.visit(node.func), args, keywords)
            )
        owner = self.visit(node.func.value)
        owner = owner if node.func.attr in _RAW_METHODS else _number(owner)
        return self._kept(
            ast.Call(ast.Attribute(owner, node.func.attr, ast.Load()), args, keywords)
        )

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        left, right = self.visit(node.left), self.visit(node.right)
        if isinstance(
            node.op, ast.Add | ast.Sub | ast.Mult | ast.Div | ast.Pow | ast.Mod | ast.FloorDiv
        ):
            left, right = _number(left), _number(right)
        return ast.BinOp(left, node.op, right)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        operand = self.visit(node.operand)
        if isinstance(node.op, ast.Not):
            return _helper("_not", operand)
        return ast.UnaryOp(
            node.op, _number(operand) if isinstance(node.op, ast.USub | ast.UAdd) else operand
        )

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        return _helper(
            "_and" if isinstance(node.op, ast.And) else "_or", *map(self.visit, node.values)
        )

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        values = [self.visit(value) for value in (node.left, *node.comparators)]
        pairs = zip(values, node.ops, values[1:], strict=False)
        made = [_compared(left, op, right) for left, op, right in pairs]
        return made[0] if len(made) == 1 else _helper("_and", *made)

    def _value(self, path: list[str], node: ast.expr) -> ast.expr:
        names = [_decoded(part) for part in path]
        if names[0] in self.bound:
            return node
        if ".".join(names) not in self.known and self._is_of_namespace(path):
            return node
        for size in range(len(names), 0, -1):
            name = ".".join(names[:size])
            if name in self.known:
                column: ast.expr = self._column(name)
                for attribute in names[size:]:
                    column = ast.Attribute(column, attribute, ast.Load())
                return column if size == len(names) else self._kept(column, is_open=False)
        if names[0] in self.functions or names[0] in _TYPES:
            return node
        return self._missing(".".join(names), node)

    def _column(self, name: str) -> ast.Name:
        self.used[name] = None
        return ast.Name(alias(name), ast.Load())

    def _missing(self, name: str, node: ast.expr) -> ast.expr:
        self.unknown[name] = None
        return node

    def _function(self, path: list[str]) -> Any:
        """The function of a name or dotted names; None where there is none, as of a method of a
        column.
        """
        found = self.functions.get(path[0])
        if found is None and len(path) == 1:
            found = getattr(builtins, path[0], None)
        for attribute in path[1:]:
            found = getattr(found, attribute, None)
        return found if callable(found) else None

    def _is_of_namespace(self, path: list[str]) -> bool:
        """Whether dotted names are of a module or the like: `np.pi`, `contr.sum`."""
        found = self.functions.get(path[0])
        if not isinstance(found, types.ModuleType | types.SimpleNamespace):
            return False
        for attribute in path[1:]:
            if not hasattr(found, attribute):
                return False
            found = getattr(found, attribute)
        return True

    def _kept(self, node: ast.expr, is_open: bool = True) -> ast.expr:
        if not any(
            isinstance(inner, ast.Name) and _ALIAS.fullmatch(inner.id) for inner in ast.walk(node)
        ):
            return node
        self.has_open_calls |= is_open
        return _helper("_kept", node, ast.Name("_rows", ast.Load()))


def _path(node: ast.AST) -> list[str] | None:
    """`a.b.c` as its names; None where it starts with anything else."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else None


def _decoded(name: str) -> str:
    found = _ALIAS.fullmatch(name)
    return bytes.fromhex(found[1]).decode() if found else name


def _helper(name: str, *args: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(args), [])


def _number(node: ast.expr) -> ast.expr:
    return node if isinstance(node, ast.Constant) else _helper("_number", node)


def _is_series(node: ast.AST) -> bool:
    return isinstance(node, ast.Compare) or (
        isinstance(node, ast.Name) and bool(_ALIAS.fullmatch(node.id))
    )


def _compared(left: ast.expr, op: ast.cmpop, right: ast.expr) -> ast.expr:
    if isinstance(op, ast.In):
        return _helper("_in", left, right)
    if isinstance(op, ast.NotIn):
        return _helper("_not", _helper("_in", left, right))
    return ast.Compare(left, [op], [right])
