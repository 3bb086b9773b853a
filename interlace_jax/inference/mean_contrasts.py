"""Contrasts of means: their weights by name, and p-values and intervals adjusted for a family of
them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import gcd, lcm
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
import scipy

from ..support.arguments import listed, numbers
from .tails import t_quantile

ADJUSTMENTS = ("tukey", "holm", "bonferroni", "none")
DEGREES = ("linear", "quadratic", "cubic", "quartic")
HIGHEST = 6  # degree of polynomial contrasts
OPERATORS = frozenset("+-*/^")

Named = tuple[list[str], np.ndarray]
"Labels (c) and weights (c, r) of contrasts of r means."


def level_label(levels: Sequence[Any]) -> str:
    """What a contrast calls a mean: its levels, in parentheses where they could be read as
    arithmetic.
    """
    text = " ".join(map(str, levels))
    return f"({text})" if OPERATORS & set(text) else text


def contrast_weights(
    method: str | Mapping[str, Sequence[float]], levels: Sequence[tuple], ref: Any = None
) -> Named:
    """Labels and weights of the contrasts of the means of one family; levels: those that each
    mean stands for.
    """
    labels = [level_label(found) for found in levels]
    if isinstance(method, Mapping):
        C = numbers("weights of a contrast", list(method.values()))
        if C.ndim != 2 or C.shape[1] != len(labels):
            raise ValueError(
                f"a contrast needs one weight for each of the means {', '.join(map(repr, labels))}"
            )
        return list(method), C
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(
            f"method must be {' or '.join(map(repr, METHODS))} or {{label: weights}}, not "
            f"{method!r}"
        )
    if method == "trt.vs.ctrl":
        return _against(labels, _control(levels, labels, ref))
    return METHODS[method](labels)


def interaction_weights(
    methods: Sequence[Any], levels: Sequence[Sequence[Any]], ref: Any = None
) -> Named:
    """Products of the contrasts of several factors: differences of differences. levels: those of
    each factor.
    """
    parts = [
        contrast_weights(method, [(v,) for v in found], ref)
        for method, found in zip(methods, levels, strict=True)
    ]
    labels = [" : ".join(names) for names in itertools.product(*(names for names, _ in parts))]
    C = np.ones((1, 1))
    for _, weights in parts:
        C = np.kron(C, weights)
    return labels, C


def _differences(labels: Sequence[str], pairs: Sequence[tuple[int, int]]) -> Named:
    one = np.eye(len(labels))
    C = np.array([one[i] - one[j] for i, j in pairs]).reshape(-1, len(labels))
    return [f"{labels[i]} - {labels[j]}" for i, j in pairs], C


def _pairwise(labels: Sequence[str]) -> Named:
    return _differences(labels, list(itertools.combinations(range(len(labels)), 2)))


def _consecutive(labels: Sequence[str]) -> Named:
    return _differences(labels, [(i + 1, i) for i in range(len(labels) - 1)])


def _against(labels: Sequence[str], control: int = 0) -> Named:
    return _differences(labels, [(i, control) for i in range(len(labels)) if i != control])


def _effects(labels: Sequence[str]) -> Named:
    r = len(labels)
    return [f"{label} effect" for label in labels], np.eye(r) - 1.0 / r


def _polynomial(labels: Sequence[str]) -> Named:
    """Orthogonal polynomials at equal distances, in the smallest whole numbers, the last of them
    positive.
    """
    r = len(labels)
    found = [[Fraction(1)] * r]
    for degree in range(1, min(r - 1, HIGHEST) + 1):
        column = [Fraction(i**degree) for i in range(r)]
        for other in found:
            along = sum(map(Fraction.__mul__, column, other), Fraction()) / sum(
                x * x for x in other
            )
            column = [x - along * y for x, y in zip(column, other, strict=True)]
        found.append(column)
    names = [DEGREES[d] if d < len(DEGREES) else f"degree {d + 1}" for d in range(len(found) - 1)]
    return names, np.array([_whole(column) for column in found[1:]]).reshape(-1, r)


def _whole(values: Sequence[Fraction]) -> list[float]:
    """Fractions times the number that makes them the smallest whole ones."""
    common = lcm(*(x.denominator for x in values))
    whole = [int(x * common) for x in values]
    return [x / gcd(*whole) for x in whole]


METHODS: dict[str, Callable[[Sequence[str]], Named]] = {
    "pairwise": _pairwise,
    "trt.vs.ctrl": _against,
    "consec": _consecutive,
    "eff": _effects,
    "poly": _polynomial,
}


def _control(levels: Sequence[tuple], labels: Sequence[str], ref: Any) -> int:
    """Which mean the others are compared with: by its level or label, else by its position; the
    first by default.
    """
    if ref is None:
        return 0
    wanted = ref if isinstance(ref, tuple) else (ref,)
    for i, (found, label) in enumerate(zip(levels, labels, strict=True)):
        if found == wanted or str(ref) in (label, " ".join(map(str, found))):
            return i
    is_position = isinstance(ref, Integral) and not isinstance(ref, bool)
    if is_position and 0 <= ref < len(levels):
        return int(ref)
    raise ValueError(f"ref must be one of {listed(labels)} or its position, not {ref!r}")


def adjustment(method: Any, adjust: str | None) -> str:
    """The adjustment asked for, or the usual one of a method."""
    default = (
        {"pairwise": "tukey", "trt.vs.ctrl": "holm"}.get(method, "none")
        if isinstance(method, str)
        else "none"
    )
    adjust = adjust or default
    if adjust not in ADJUSTMENTS:
        raise ValueError(f"adjust must be {' or '.join(map(repr, ADJUSTMENTS))}, not {adjust!r}")
    if adjust == "tukey" and method != "pairwise":
        raise ValueError('the Tukey adjustment is for method="pairwise"; use adjust="holm"')
    return adjust


def adjusted(table: pd.DataFrame, adjust: str, means: int, level: float) -> pd.DataFrame:
    """p-values and intervals for the whole family of contrasts (of `means` means)."""
    p, c = table["p"].to_numpy(), max(len(table), 1)
    df = table["df"].to_numpy()
    if adjust == "none" or (c == 1 and adjust != "tukey"):
        return table
    if adjust == "tukey":
        p = scipy.stats.studentized_range.sf(
            np.sqrt(2.0) * np.abs(table["t"].to_numpy()), means, df
        )
        quantile = scipy.stats.studentized_range.ppf(level, means, df) / np.sqrt(2.0)
    else:
        quantile = t_quantile(1.0 - (1.0 - level) / (2.0 * c), df)
        p = np.minimum(1.0, c * p) if adjust == "bonferroni" else _holm(p)
    half = quantile * table["se"]
    return table.assign(lower=table["estimate"] - half, upper=table["estimate"] + half, p=p)


def _holm(p: np.ndarray) -> np.ndarray:
    order = np.argsort(p)
    found = np.empty_like(p)
    found[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))))
    return found
