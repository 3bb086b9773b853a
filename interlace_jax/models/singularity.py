"""Singular fits in words: which variance is 0, which correlation is 1, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from ..design.design import Design
from ..design.formula import Term
from ..design.grouping import Factor
from .parameters import _Block, _blocks

ZERO = 1e-4  # standard deviation relative to sigma, per unit RMS of its column, that counts as none
PERFECT = 1e-4  # distance from -1 or 1 at which a correlation counts as perfect


def singular_message(
    design: Design,
    vanishing: Iterable[tuple[Factor, Sequence[int]]],
    covariances: Mapping[str, pd.DataFrame],
    scale: float,
    doubt: str | None,
) -> str:
    """What it is about a singular fit: by factor which variances are 0 or correlations perfect, and
    what to try.

    vanishing: factors with the columns of Lambda that vanish. covariances: by factor, terms x
    terms. scale: the residual variance. doubt: why it means nothing, if so.
    """
    found = []
    for factor, columns in vanishing:
        covariance = covariances[factor.name]
        still = _without_variance(design, factor, covariance, scale)
        found += _findings(design, factor, covariance, columns, still)
    found += [doubt] if doubt else []
    return f"singular fit, the data do not support all of the random effects: {'; '.join(found)}"


def _findings(
    design: Design,
    factor: Factor,
    covariance: pd.DataFrame,
    vanishing: Sequence[int],
    still: np.ndarray,
) -> Iterator[str]:
    """Sentences about one factor; still (k,): which columns have no variance."""
    terms = [t for t in design.formula.terms if set(t.group) == set(factor.variables)]
    start = 0
    for block in _blocks([factor], {factor.name: covariance}):
        end = start + len(block.columns)
        here = [j for j in vanishing if start <= j < end]
        none = [factor.columns[j] for j in here if still[j]]
        if none and factor.is_structured:
            yield _no_scale(factor, none)
        elif none:
            yield _no_variance(factor, none, terms if len(block.columns) > 1 else [])
        elif here and not factor.block.is_pattern:
            yield (
                f"the covariance of {factor.name!r} is at the edge of what "
                f"{type(factor.within).__name__} allows"
            )
        elif here:
            yield _dependent(block, terms)
        start = end


def _without_variance(
    design: Design, factor: Factor, covariance: pd.DataFrame, scale: float
) -> np.ndarray:
    """Whether the variance of each column is nothing next to the residual: (k,)."""
    squares = factor.Z**2 * design.w[:, None]
    return np.diag(covariance) * squares.mean(axis=0) < ZERO**2 * scale


def _no_variance(factor: Factor, columns: Sequence[str], correlated: Sequence[Term]) -> str:
    if factor.columns == ("(Intercept)",):
        return (
            f"the standard deviation of '(Intercept)' across {factor.name!r} is estimated as 0 "
            f"(the data show no differences between levels of {factor.name!r} beyond the "
            f"residual); consider leaving (1 | {_group(factor.variables)}) out"
        )
    names = _listed(map(repr, columns))
    simpler = f"try {_uncorrelated(correlated)}, or leave" if correlated else "consider leaving"
    return (
        f"the standard deviation of {names} across {factor.name!r} is estimated as 0 (its levels "
        f"do not differ there beyond the residual); {simpler} {names} out of the random effects "
        f"of {factor.name!r}"
    )


def _no_scale(factor: Factor, columns: Sequence[str]) -> str:
    return (
        f"the standard deviation of {_listed(map(repr, columns))} across {factor.name!r} is "
        "estimated as 0 (its levels do not differ there beyond the residual, covarying as cov "
        "says); consider leaving them out"
    )


def _dependent(block: _Block, terms: Sequence[Term]) -> str:
    names, R, k = block.columns, block.correlations, len(block.columns)
    pairs = [(i, j) for i in range(k) for j in range(i) if 1.0 - abs(R[i, j]) < PERFECT]
    if pairs:
        said = _listed(f"{names[j]!r} and {names[i]!r} ({R[i, j]:+.2f})" for i, j in pairs)
        what = f"the random effects {said} of {block.factor!r} are perfectly correlated"
    else:
        what = (
            f"the random effects {_listed(map(repr, names))} of {block.factor!r} determine each "
            "other"
        )
    return (
        f"{what} (the data do not tell them apart); try {_uncorrelated(terms)}, without "
        "correlations"
    )


def _uncorrelated(terms: Iterable[Term]) -> str:
    """The correlated terms of one factor as they would be written without correlations."""
    wide = [t for t in terms if not t.independent and t.columns.strip() != "1"]
    return " + ".join(f"({t.columns} || {_group(t.group)})" for t in wide)


def _group(variables: Iterable[str]) -> str:
    return ":".join(name if re.fullmatch(r"[\w.]+", name) else f"`{name}`" for name in variables)


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
