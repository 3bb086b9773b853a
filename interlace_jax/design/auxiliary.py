"""Predictors of the family's other parameters: the arguments dispersion= and zero_inflation=, as
model matrices.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..numerics.families.family import Distribution, Ordinal, ZeroInflated
from ..support.arguments import listed
from ..support.later import special
from .determinacy import independent_columns
from .model_matrices import Matrices


@dataclass(frozen=True, eq=False)
class Predictor:
    """Coefficients of one parameter of the family."""

    parameter: str
    columns: tuple[str, ...]
    "Names; ('Intercept',) where the parameter is one number."
    D: np.ndarray | None = field(repr=False)
    "(n, r), or None."
    key: str | None = None
    "The argument whose formula it is."


def with_zero_inflation(family: Distribution, zero_inflation: str | None) -> Distribution:
    """The family, mixed with zeros where that is asked for."""
    return family if zero_inflation is None else ZeroInflated(family)


def check_dispersion(family: Distribution, dispersion: str | None) -> None:
    """Refuse a formula for a parameter that there is not."""
    if dispersion is None:
        return
    base = getattr(family, "base", family)
    if isinstance(base, Ordinal) or not base.parameters:
        raise ValueError(
            f"family {base.name!r} has no dispersion that dispersion={dispersion!r} could model; "
            "families that have: gaussian, gamma, inverse_gaussian, beta, betabinomial, nbinom1, "
            "nbinom2, student"
        )


def predictors(family: Distribution, matrices: Matrices) -> tuple[Predictor, ...]:
    """One for each parameter of the family, from the evaluated arguments."""
    found = []
    for j, parameter in enumerate(family.parameters):
        is_zero = isinstance(family, ZeroInflated) and j == len(family.parameters) - 1
        key = "zero_inflation" if is_zero else "dispersion" if j == 0 else None
        if key not in matrices or matrices[key][1] == ("Intercept",):
            found.append(Predictor(parameter.name, ("Intercept",), None))
            continue
        D, names = matrices[key]
        kept = independent_columns(D)
        if len(kept) < D.shape[1]:
            lost = [name for i, name in enumerate(names) if i not in kept]
            raise ValueError(
                f"{key}= has columns that depend linearly on those before them: leave "
                f"{listed(lost)} out"
            )
        if D.shape[1] == 0:
            raise ValueError(f'{key}= has no columns: write "~ 1" for one number')
        found.append(Predictor(parameter.name, names, D, key))
    return tuple(found)


def starts(family: Distribution, used: tuple[Predictor, ...], y: np.ndarray) -> np.ndarray:
    """Free numbers (r,) of the family at which the search starts."""
    if isinstance(family, Ordinal):
        return _thresholds(family, y)
    found = []
    for parameter, predictor in zip(family.parameters, used, strict=True):
        value = parameter.start
        if parameter.domain == "logit":
            share = np.clip((y == 0).mean(), 0.02, 0.98)
            value = special.logit(
                share if family.name.startswith("zero_inflated_truncated") else 0.5 * share
            )
        if predictor.D is None:
            found.append([value])
        else:
            found.append(np.linalg.lstsq(predictor.D, np.full(len(y), value), rcond=None)[0])
    return np.concatenate(found) if found else np.zeros(0)


_QUANTILE = {
    "logit": lambda p: special.logit(p),
    "probit": lambda p: special.ndtri(p),
    "cloglog": lambda p: np.log(-np.log1p(-p)),
    "loglog": lambda p: -np.log(-np.log(p)),
    "cauchit": lambda p: np.tan(np.pi * (p - 0.5)),
}


def _thresholds(family, y):
    """Of the shares of the categories: the first threshold, and the logarithms of the gaps."""
    counts = np.bincount(y.astype(int), minlength=len(family.categories)) + 0.5
    cuts = _QUANTILE[family.link](np.cumsum(counts)[:-1] / counts.sum())
    return np.append(cuts[:1], np.log(np.diff(cuts)))
