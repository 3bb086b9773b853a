"""Code of formulas evaluated: numbers in double precision, logicals as in R, statistics of the
rows remembered.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np
import pandas as pd

from .expressions import alias, resolved

# What resolved code calls -------------------------------------------------------------------------


def _kind(values: Any) -> str | None:
    """NumPy's letter for the type of an array or series; None of anything else."""
    return getattr(getattr(values, "dtype", None), "kind", None)


def _as_number(values: Any) -> Any:
    """Whole numbers and logicals in double precision; anything else as it is."""
    if _kind(values) in ("i", "u", "b"):
        return values.astype(np.float64)
    return float(values) if isinstance(values, bool) else values


def _truth(values: Any) -> Any:
    """Logicals of logicals or numbers, as R takes them."""
    if isinstance(values, str) or _kind(values) not in (None, "b", "i", "u", "f"):
        raise TypeError("&, | and ! are of logicals and numbers")
    return values != 0


def _all_of(*values: Any) -> Any:
    return functools.reduce(np.logical_and, map(_truth, values))


def _any_of(*values: Any) -> Any:
    return functools.reduce(np.logical_or, map(_truth, values))


def _none_of(values: Any) -> Any:
    return np.logical_not(_truth(values))


def _is_in(values: Any, wanted: Any) -> Any:
    wanted = [wanted] if isinstance(wanted, str) or np.ndim(wanted) == 0 else list(wanted)
    return pd.Series(values).isin(wanted).to_numpy() if np.ndim(values) else values in wanted


def _remembered(values: Any, rows: int, _state: MutableMapping[str, Any], _spec: Any = None) -> Any:
    """A statistic of the rows of the fit, also for new rows; what has a value for each row as it
    is.
    """
    is_several = isinstance(values, np.ndarray | pd.Series | list | tuple) and np.ndim(values) > 0
    if pd.api.types.is_scalar(values) or (is_several and len(values) != rows):
        _state["value"] = values
    return values


_remembered.__is_stateful_transform__ = True  # type: ignore[attr-defined]

_HELPERS: dict[str, Any] = {
    "_number": _as_number,
    "_and": _all_of,
    "_or": _any_of,
    "_not": _none_of,
    "_in": _is_in,
    "_kept": _remembered,
}


# Evaluation ---------------------------------------------------------------------------------------


def evaluate(
    text: str,
    columns: Mapping[str, pd.Series],
    functions: Mapping[str, Any],
    states: MutableMapping[str, Any],
    rows: int,
    spec: Any,
) -> tuple[Any, list[str]]:
    """The value of code, and the columns that it uses.

    functions: functions and values by name, formulaic's stateful transforms among them.
    states: what these remember, by the code and the place in it; it is filled in the fit, and holds
    for new rows.
    rows: their number. spec: formulaic's.
    """
    tree, used = resolved(text, columns, functions)
    names = {**functions, **_HELPERS, "_rows": rows, "_spec": spec, "_states": states}
    names |= {alias(name): columns[name] for name in used}
    code = _Stateful(text, names, states).visit(tree)
    value = eval(compile(ast.fix_missing_locations(code), "<formula>", "eval"), names)
    return value, used


def with_state(states: Mapping[str, Any]) -> list[str]:
    """The code in which some call remembers what the rows of the fit were like."""
    return list(dict.fromkeys(key.rpartition(" [")[0] for key, state in states.items() if state))


class _Stateful(ast.NodeTransformer):
    """Gives calls what they remember; a statistic that is remembered is not computed again."""

    def __init__(self, text: str, names: Mapping[str, Any], states: MutableMapping[str, Any]):
        self.text, self.names, self.states = text, names, states
        self.count = 0

    def visit_Call(self, node: ast.Call) -> ast.expr:
        function = self.names.get(node.func.id) if isinstance(node.func, ast.Name) else None
        self.generic_visit(node)
        if not getattr(function, "__is_stateful_transform__", False):
            return node
        self.count += 1
        key = f"{self.text} [{self.count}]"
        state = ast.Subscript(ast.Name("_states", ast.Load()), ast.Constant(key), ast.Load())
        if "value" in self.states.setdefault(key, {}) and function is _remembered:
            return ast.Subscript(state, ast.Constant("value"), ast.Load())
        given = [ast.keyword("_state", state), ast.keyword("_spec", ast.Name("_spec", ast.Load()))]
        return ast.Call(node.func, node.args, [*node.keywords, *given])
