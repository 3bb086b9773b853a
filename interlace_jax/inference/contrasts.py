"""Hypotheses about the fixed effects, written as text, weights or arrays, as contrast matrices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from formulaic.errors import FormulaicError
from formulaic.utils.constraints import LinearConstraints

from ..support.arguments import listed

# a number that formulaic takes for a name
EXPONENT = r"(?<![\w.])(\d+\.?\d*|\.\d+)[eE][+-]?\d+(?![\w.])"
ROUNDING = 1e-9  # relative size of what rounding leaves of 0

Hypothesis = str | Mapping[str, float] | Sequence[Any] | np.ndarray


def contrast_matrix(
    hypothesis: Hypothesis, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """L (r, p), the right-hand sides (r,) and a label for every row.

    hypothesis: text such as "x = 0", "a = b" or "2 * a - b = 1" (several joined by commas, or in a
    list); the name of a coefficient; a mapping name -> weight; or an array of weights, (p,) or (r,
    p).
    """
    if isinstance(hypothesis, Mapping | list | tuple) and not hypothesis:
        return np.zeros((0, len(names))), np.zeros(0), []
    if isinstance(hypothesis, str):
        return _parsed(hypothesis, names)
    if isinstance(hypothesis, Mapping):
        _check_names(hypothesis, names)
        row = np.array([float(hypothesis.get(name, 0.0)) for name in names])
        return (
            row[None],
            np.zeros(1),
            [" + ".join(f"{w:g}*{name}" for name, w in hypothesis.items())],
        )
    if isinstance(hypothesis, list | tuple) and any(
        isinstance(h, str | Mapping) for h in hypothesis
    ):
        parts = [contrast_matrix(h, names) for h in hypothesis]
        return (
            np.vstack([p[0] for p in parts]),
            np.concatenate([p[1] for p in parts]),
            [x for p in parts for x in p[2]],
        )
    return _matrix(hypothesis, names)


def check_rows(L: np.ndarray, rhs: np.ndarray, labels: Sequence[str], joint: bool) -> None:
    """Refuse hypotheses about no coefficient, and joint ones that cannot all be true."""
    if not len(L):
        raise ValueError("the hypothesis is empty: write equations such as 'x = 0'")
    if empty := [label for label, row in zip(labels, L, strict=True) if not row.any()]:
        raise ValueError(
            f"the hypothesis {listed(empty)} says nothing about the coefficients: all of them "
            "cancel"
        )
    against = _contradiction(L, rhs) if joint else []
    if against:
        raise ValueError(
            f"the hypotheses {listed([labels[i] for i in against])} contradict each other"
        )


def _contradiction(L: np.ndarray, rhs: np.ndarray) -> list[int]:
    """Rows, few of them, that no coefficients fulfil together; none where there are such
    coefficients.
    """
    for last in range(1, len(L)):
        sizes = np.linalg.norm(L[: last + 1], axis=1)
        before, row = L[:last] / sizes[:last, None], L[last] / sizes[last]
        weights = np.linalg.lstsq(before.T, row, rcond=None)[0]
        implied = weights @ (rhs[:last] / sizes[:last])
        size = np.abs(rhs[: last + 1] / sizes).max()
        if np.allclose(weights @ before, row, rtol=0.0, atol=ROUNDING) and (
            abs(implied - rhs[last] / sizes[last]) > ROUNDING * size
        ):
            return [*np.flatnonzero(np.abs(weights) > ROUNDING).tolist(), last]
    return []


def _matrix(values, names):
    try:
        L = np.atleast_2d(np.asarray(values, float))
    except (TypeError, ValueError):
        raise TypeError(
            f'a hypothesis is text such as "x = 0", a mapping or weights, not {values!r}'
        ) from None
    if L.ndim != 2 or L.shape[1] != len(names) or not np.isfinite(L).all():
        raise ValueError(
            f"a contrast has one finite weight for each of the {len(names)} coefficients "
            f"{', '.join(map(repr, names))}; this one has shape {np.shape(values)}"
        )
    return L, np.zeros(len(L)), [f"L{i + 1}" for i in range(len(L))]


def _check_names(used: Iterable[str], names: Sequence[str]) -> None:
    for name in used:
        if name not in names:
            raise ValueError(
                f"there is no coefficient {name!r}; there are {', '.join(map(repr, names))}"
            )


def _parsed(text: str, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Equations are read by formulaic, once every coefficient is written as a plain name."""
    plain = [f"coefficient_{i}" for i in range(len(names))]
    by_length = sorted(names, key=len, reverse=True)
    alternatives = "|".join(
        rf"`{re.escape(n)}`|(?<![\w.]){re.escape(n)}(?![\w.\[:])" for n in by_length
    )
    replaced = (
        re.sub(alternatives, lambda found: plain[names.index(found[0].strip("`"))], text)
        if names
        else text
    )
    replaced = re.sub(
        EXPONENT, lambda found: np.format_float_positional(float(found[0]), trim="-"), replaced
    )
    try:
        constraints = LinearConstraints.from_spec(replaced, variable_names=plain)
    except (FormulaicError, ValueError, KeyError, RuntimeError) as err:
        raise ValueError(
            f"the hypothesis {text!r} cannot be read; write equations in "
            f'{", ".join(map(repr, names))}, as in "{names[-1]} = 0"'
        ) from err
    L = np.atleast_2d(np.asarray(constraints.constraint_matrix, float))
    labels = (
        [part.strip() for part in text.split(",")]
        if text.count(",") == len(L) - 1
        else [text] * len(L)
    )
    return L, np.atleast_1d(np.asarray(constraints.constraint_values, float)), labels
