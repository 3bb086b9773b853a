"""Singular fits in words: which variance is 0, which correlation is 1, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .parameters import _Block, _blocks

if TYPE_CHECKING:
    from ..design.formula import Term
    from ..design.grouping import Factor
    from ..result import Fit


ZERO = 1e-4  # standard deviation relative to sigma, per unit RMS of its column, that counts as none
PERFECT = 1e-4  # distance from -1 or 1 at which a correlation counts as perfect


def singular_message(fit: Fit) -> str:
    """What it is about a singular fit: by factor which variances are 0 or correlations perfect, and what to try."""
    found = [finding for factor, columns in fit.singular_terms for finding in _findings(fit, factor, columns)]
    found += [fit.residual_doubt] if fit.residual_doubt else []
    return f"singular fit, the data do not support all of the random effects: {'; '.join(found)}"


def _findings(fit: Fit, factor: Factor, vanishing: Sequence[int]) -> Iterator[str]:
    still = _without_variance(fit, factor)
    terms = [t for t in fit.model.design.formula.terms if set(t.group) == set(factor.variables)]
    start = 0
    for block in _blocks([factor], fit.covariances):
        end = start + len(block.columns)
        here = [j for j in vanishing if start <= j < end]
        none = [factor.columns[j] for j in here if still[j]]
        if none and factor.is_structured:
            yield _no_scale(factor, none)
        elif none:
            yield _no_variance(factor, none, terms if len(block.columns) > 1 else [])
        elif here and not factor.block.is_pattern:
            yield f"the covariance of {factor.name!r} is at the edge of what {type(factor.within).__name__} allows"
        elif here:
            yield _dependent(block, terms)
        start = end


def _without_variance(fit: Fit, factor: Factor) -> np.ndarray:
    """Whether the variance of each column is nothing next to the residual: (k,)."""
    weights = fit.model.design.weights
    squares = factor.Z**2 if weights is None else factor.Z**2 * weights[:, None]
    return np.diag(fit.covariances[factor.name]) * squares.mean(axis=0) < ZERO**2 * fit.scale


def _no_variance(factor: Factor, columns: Sequence[str], correlated: Sequence[Term]) -> str:
    if factor.columns == ("(Intercept)",):
        return (
            f"the standard deviation of '(Intercept)' across {factor.name!r} is estimated as 0 (the data show no "
            f"differences between levels of {factor.name!r} beyond the residual); "
            f"consider leaving (1 | {_group(factor.variables)}) out"
        )
    names = _listed(map(repr, columns))
    simpler = f"try {_uncorrelated(correlated)}, or leave" if correlated else "consider leaving"
    return (
        f"the standard deviation of {names} across {factor.name!r} is estimated as 0 (its levels do not differ there "
        f"beyond the residual); {simpler} {names} out of the random effects of {factor.name!r}"
    )


def _no_scale(factor: Factor, columns: Sequence[str]) -> str:
    return (
        f"the standard deviation of {_listed(map(repr, columns))} across {factor.name!r} is estimated as 0 (its "
        f"levels do not differ there beyond the residual, covarying as cov says); consider leaving them out"
    )


def _dependent(block: _Block, terms: Sequence[Term]) -> str:
    names, R, k = block.columns, block.correlations, len(block.columns)
    pairs = [(i, j) for i in range(k) for j in range(i) if 1.0 - abs(R[i, j]) < PERFECT]
    if pairs:
        said = _listed(f"{names[j]!r} and {names[i]!r} ({R[i, j]:+.2f})" for i, j in pairs)
        what = f"the random effects {said} of {block.factor!r} are perfectly correlated"
    else:
        what = f"the random effects {_listed(map(repr, names))} of {block.factor!r} determine each other"
    return f"{what} (the data do not tell them apart); try {_uncorrelated(terms)}, without correlations"


def _uncorrelated(terms: Iterable[Term]) -> str:
    """The correlated terms of one factor as they would be written without correlations."""
    wide = [t for t in terms if not t.independent and t.columns.strip() != "1"]
    return " + ".join(f"({t.columns} || {_group(t.group)})" for t in wide)


def _group(variables: Iterable[str]) -> str:
    return ":".join(name if re.fullmatch(r"[\w.]+", name) else f"`{name}`" for name in variables)


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
