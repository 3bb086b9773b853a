"""Single-term deletion: what a model loses without each of its fixed or random terms."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import formulaic
import numpy as np
import pandas as pd

from ..design.design import Design, without_intercept
from ..design.determinacy import independent_columns
from ..design.formula import Term
from ..design.grouping import Factor
from ..design.model_matrices import evaluated, key_of, parts_of
from ..models.fitted import FittedModel
from ..models.generalized import FittedGeneralizedModel
from ..numerics.families.family import Ordinal
from ..support.arguments import one_of
from ..support.wide import WideFrame
from .generalized_profiles import deviance_without_effects
from .tails import chi2_pvalue
from .terms import Terms, f_table, variables

LRT_COLUMNS = ("Df", "AIC", "LRT", "Pr(>Chisq)")
RANDOM_COLUMNS = ("npar", "logLik", "AIC", "LRT", "Df", "Pr(>Chisq)", "Pr(>Chisq) boundary")
WHOLE = "<none>"


def drop1(fit: FittedModel, test: str | None = None) -> pd.DataFrame:
    """Tests of every term of the fixed part that can be left out while all others stay.

    A term that another one contains (`a` beside `a:b`) stays: without it the other would mean
    something else.

    test: "F", with the fit's rule for degrees of freedom (the default of linear models; lmerTest's
    `drop1`), or "LRT", likelihood-ratio tests of refits by maximum likelihood (the default of
    generalised models; lme4's).

    Returns a row for each term, `Sum Sq, Mean Sq, NumDF, DenDF, F value, Pr(>F)`; or `Df AIC LRT
    Pr(>Chisq)` under a row `<none>` of the whole model. Raises ValueError for a test that there is
    not.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.drop1().round(3)
             Sum Sq    Mean Sq  NumDF  DenDF  F value  Pr(>F)
    Days  30031.015  30031.015      1   17.0   45.853     0.0
    """
    is_linear = not isinstance(fit, FittedGeneralizedModel)
    one_of("test", test or "LRT", ("F", "LRT") if is_linear else ("LRT",))
    terms = Terms(fit.design, variables(fit.design, fit.model.data))
    names = _droppable([(name, _parts(terms, name)) for name in terms.columns])
    if is_linear and test != "LRT":
        return f_table(fit, 2).loc[names]
    whole = fit.by("ML")
    rows = [(np.nan, whole.aic, np.nan, np.nan)]
    for name in names:
        less = _quietly_refitted(whole, _without_fixed(fit.design, terms.frame, name))
        df = whole.nparams - less.nparams
        statistic = max(less.deviance - whole.deviance, 0.0)
        rows.append((df, less.aic, statistic, chi2_pvalue(statistic, df) if df else np.nan))
    index = pd.Index([WHOLE, *names], dtype=object)
    return WideFrame(rows, columns=list(LRT_COLUMNS), index=index, dtype=float)


def _parts(terms: Terms, name: str) -> frozenset[str]:
    """The variables and functions that a term is a product of."""
    return next(_products(s.term) for s in terms.spec.structure if str(s.term) == name)


def _products(term) -> frozenset[str]:
    return frozenset(factor.expr for factor in term.factors)


def _droppable(terms: Iterable[tuple[str, frozenset[str]]]) -> list[str]:
    """Names of the terms that no other contains."""
    terms = list(terms)
    return [name for name, mine in terms if not any(mine < other for _, other in terms)]


def _without_fixed(design: Design, frame: pd.DataFrame, name: str) -> Design:
    """The design without a term of the fixed part, evaluated anew in the rows used (n, v)."""
    whole = parts_of(design.formula)["X"].formula
    matrix = evaluated(
        formulaic.SimpleFormula([term for term in whole if str(term) != name]),
        frame,
        design.formula.contrasts,
    )
    X, names = np.asarray(matrix, float).reshape(len(frame), -1), tuple(matrix.columns)
    if design.observed is not None and isinstance(design.observed.family, Ordinal):
        X, names = without_intercept(X, names)
    kept = independent_columns(X * np.sqrt(design.w)[:, None])
    return replace(
        design,
        X=X[:, kept],
        columns=tuple(names[j] for j in kept),
        kept=np.array(kept, int),
        dropped_columns=(),
        dependence=np.zeros((len(kept), 0)),
        formula=replace(design.formula, fixed=f"{design.formula.fixed} - {name}"),
    )


def _quietly_refitted(fit: FittedModel, design: Design) -> FittedModel:
    """The fit of another design by the same method; warnings are about the model that is asked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return fit.refitted(design, fit.method, "normal")


def ranova(fit: FittedModel, reduce_terms: bool = True) -> pd.DataFrame:
    """Likelihood-ratio tests of every random-effects term: lmerTest's `ranova`.

    Models without a term are refitted by the method of the fit, as the fixed part stays; where no
    random effects are left, the comparison is with the model without any.

    reduce_terms: a term with slopes loses these one at a time, `(x | g)` to `(1 | g)`; False leaves
    out whole terms. Effects that are tied together by `cov=` go as a whole.

    Returns a row for each reduction, under `<none>`, the whole model: `npar logLik AIC LRT Df
    Pr(>Chisq)`, and `Pr(>Chisq) boundary`: where a single variance (with its covariances) goes, the
    p-value of the 50:50 mixture of chi-square(Df - 1) and chi-square(Df) (Stram & Lee 1994,
    Biometrics 50), as a variance cannot be negative; missing for others.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.ranova()[["npar", "logLik", "LRT", "Df", "Pr(>Chisq)"]].round(2)
                                  npar  logLik    LRT  Df  Pr(>Chisq)
    <none>                           6 -871.81    NaN NaN         NaN
    Days in (1 + Days | Subject)     4 -893.23  42.84   2         0.0
    """
    rows = [(fit.nparams, fit.llf, fit.aic, np.nan, np.nan, np.nan, np.nan)]
    names = [WHOLE]
    for reduction in _reductions(fit.design, reduce_terms):
        less = _with_factors(fit, reduction.factors)
        df, deviance = fit.nparams - less.nparams, less.deviance
        statistic = max(deviance - fit.deviance, 0.0)
        p = chi2_pvalue(statistic, df)
        boundary = 0.5 * (_tail(df - 1, statistic) + p) if reduction.effects == 1 else np.nan
        llf, aic = -0.5 * deviance, deviance + 2.0 * less.nparams
        rows.append((less.nparams, llf, aic, statistic, df, p, boundary))
        names.append(reduction.name)
    index = pd.Index(names, dtype=object)
    table = WideFrame(rows, columns=list(RANDOM_COLUMNS), index=index, dtype=float)
    return table.astype({"npar": int})


def _tail(df: int, statistic: float) -> float:
    return chi2_pvalue(statistic, df) if df else float(statistic <= 0.0)


class _Reduction(NamedTuple):
    name: str
    factors: tuple[Factor, ...]
    "What is left."
    effects: int
    "Columns that go."


class _Fitted(NamedTuple):
    deviance: float
    nparams: int


def _with_factors(fit: FittedModel, factors: tuple[Factor, ...]) -> _Fitted:
    """The model with these random effects, by the method of the fit."""
    if factors or fit.design.residual is not None:
        less = _quietly_refitted(fit, replace(fit.design, factors=factors))
        return _Fitted(less.deviance, less.nparams)
    if isinstance(fit, FittedGeneralizedModel):
        deviance = deviance_without_effects(fit)
    else:
        deviance = fit.model.engine.deviance(np.zeros_like(fit.theta), fit.method == "REML")
    return _Fitted(deviance, fit.nparams - len(fit.theta))


def _reductions(design: Design, reduce_terms: bool) -> Iterator[_Reduction]:
    """Every way to leave out one random term, or one of its slopes."""
    for g, factor in enumerate(design.factors):
        for term, places in _terms_of(design, factor):
            for name, gone in _parts_to_leave_out(design, factor, term, places, reduce_terms):
                left = _without_columns(factor, gone)
                factors = design.factors[:g] + left + design.factors[g + 1 :]
                yield _Reduction(name, factors, len(gone))


def _terms_of(design: Design, factor: Factor) -> Iterator[tuple[Term, list[int]]]:
    """The terms of a factor with the places of their columns."""
    start = 0
    known = {key_of(t): t for t in design.formula.terms if set(t.group) == set(factor.variables)}
    sizes = list(factor.sizes)
    for key in factor.parts:
        term = known[key]
        count = _width(design, key, term) if term.independent else sizes[0]
        sizes = sizes[count:] if term.independent else sizes[1:]
        yield term, list(range(start, start + count))
        start += count


def _width(design: Design, key: str, term: Term) -> int:
    if design.specs is not None:
        return sum(len(s.columns) for s in design.specs[key].structure)
    return len(parts_of(design.formula)[key].formula)


def _parts_to_leave_out(
    design: Design, factor: Factor, term: Term, places: list[int], reduce_terms: bool
) -> Iterator[tuple[str, list[int]]]:
    """Names of reductions and the columns that go."""
    bar = "||" if term.independent else "|"
    text = f"({term.columns} {bar} {term.factor})"
    own = _columns_by_part(design, factor, term, places)
    is_tied = factor.is_structured
    slopes = [(name, parts) for name, parts, _ in own if parts]
    if is_tied or len(own) == 1 or not (reduce_terms and slopes):
        yield text, places
        return
    free = [name for name, *_ in own] if term.independent else _droppable(slopes)
    for name, _, columns in own:
        if name in free:
            yield f"{name} in {text}", columns


def _columns_by_part(
    design: Design, factor: Factor, term: Term, places: list[int]
) -> list[tuple[str, frozenset[str], list[int]]]:
    """The summands of a random term: name, what it is a product of (intercept: none), places."""
    if design.specs is None:
        names = [factor.columns[j] for j in places]
        return [
            (name, frozenset() if name == "(Intercept)" else frozenset([name]), [j])
            for name, j in zip(names, places, strict=True)
        ]
    found, at = [], places[0]
    for s in design.specs[key_of(term)].structure:
        name = "(Intercept)" if str(s.term) == "1" else str(s.term)
        products = frozenset() if name == "(Intercept)" else _products(s.term)
        found.append((name, products, list(range(at, at + len(s.columns)))))
        at += len(s.columns)
    return [part for part in found if part[2]]


def _without_columns(factor: Factor, gone: Sequence[int]) -> tuple[Factor, ...]:
    """The factor without some of its columns; nothing where none are left."""
    kept = [j for j in range(len(factor.columns)) if j not in gone]
    if not kept:
        return ()
    sizes, start = [], 0
    for size in factor.sizes:
        sizes.append(sum(start <= j < start + size for j in kept))
        start += size
    columns = tuple(factor.columns[j] for j in kept)
    sizes = tuple(size for size in sizes if size)
    return (replace(factor, Z=factor.Z[:, kept], columns=columns, sizes=sizes),)
