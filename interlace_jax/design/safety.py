"""Whether a formula only computes: what may be read from a file of others, as its code is
evaluated in new data.
"""

from __future__ import annotations

import ast

import numpy as np
from formulaic.transforms import TRANSFORMS

from .dialect import FUNCTIONS
from .formula import Formula
from .model_matrices import parts_of

NODES = (
    ast.Expression, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp, ast.BoolOp,
    ast.Compare, ast.Call, ast.keyword, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.List,
    ast.Tuple, ast.Dict,
)  # fmt: skip
NUMPY = ("np", "numpy")


def why_unsafe(formula: Formula) -> str | None:
    """What a formula does beyond computing with columns by functions that formulas know; None
    where it does not.
    """
    for part in parts_of(formula).values():
        for term in part.formula:
            for factor in term.factors:
                is_code = factor.eval_method.value == "python"
                reason = _why(factor.expr) if is_code else None
                if reason:
                    return f"{reason} in {factor.expr!r}"
    return None


def _why(code: str) -> str | None:
    try:
        tree = ast.parse(code, mode="eval")
    except (SyntaxError, ValueError):
        return "text that cannot be read"
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    within = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if not _is_plain_function(ast.unparse(node)):
                return f"{ast.unparse(node)!r}"
        elif not isinstance(node, NODES):
            return f"{type(node).__name__.lower()}"
        elif id(node) in called and not (isinstance(node, ast.Name) and _is_known(node.id)):
            return f"a call of {ast.unparse(node)!r}"
        elif isinstance(node, ast.Name) and id(node) not in within and node.id.startswith("__"):
            return f"{node.id!r}"
    return None


def _is_known(name: str) -> bool:
    return name in TRANSFORMS and name not in NUMPY or name in FUNCTIONS or name == "cbind"


def _is_plain_function(path: str) -> bool:
    """Whether a dotted name is a function of numbers by NumPy, or a coding of categories."""
    root, _, name = path.partition(".")
    if root in NUMPY:
        return name.isidentifier() and isinstance(getattr(np, name, None), np.ufunc)
    return root == "contr" and name.isidentifier() and not name.startswith("_")
