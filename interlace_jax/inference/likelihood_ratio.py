"""Likelihood-ratio tests between fits of nested models, at the boundary of the parameter space
too.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..design.design import Design
from ..design.grouping import Factor
from ..models.fitted import FittedModel
from ..models.parameters import natural_names
from ..models.residual_nesting import allows
from ..models.simulation import new_responses
from ..numerics.covariance.parameters import has_prior
from ..runtime.programs.trees import Flat
from ..support.arguments import texts
from ..support.wide import WideFrame
from .tails import chi2_pvalue

PROBES = 3  # random vectors on which linear identities between n x n matrices are checked
IN_SPAN = 1e-7  # relative residual below which an array is in the span of others
REFITTED = "REML fits are refitted by ML: REML criteria of different fixed parts cannot be compared"
REFITTED_ALIKE = (
    "REML fits are refitted by ML; as their fixed parts are the same, refit=False can compare them "
    "as they are"
)


def anova(
    *fits: FittedModel,
    names: Sequence[str] | None = None,
    refit: bool = True,
    nsim: int = 0,
    seed: int | None = None,
) -> pd.DataFrame:
    """Likelihood-ratio tests between nested fits to the same data, as lme4's `anova(m1, m2, ...)`.

    fits: in any order; each is compared with the next smaller one. Their rows may be in different
        orders if unique labels, the index of the data, tell which is which.
    names: of the models in the table, by default `m1`, `m2`, ... as given.
    refit: refit REML fits by ML first, as models with different fixed parts need, and say so in a
        warning. False compares the fits as they are: REML fits must then have the same fixed part.
    nsim: also simulate so many responses from the smaller model, fit both models to each, and give
        the share of statistics at least as large in `Pr(>Chisq) simulated` (seed: of the random
        numbers).

    Returns a frame with one row a model: `npar AIC BIC logLik deviance Chisq Df Pr(>Chisq)`, and
    `Pr(>Chisq) boundary`: a variance of 0 lies on the boundary, where the naive p-value is too
    large. If one variance and its k covariances are tested, the null distribution is the 50:50
    mixture of chi-square(k) and chi-square(k + 1) (Stram & Lee 1994, Biometrics 50); the column is
    NaN for other comparisons of variances (use nsim), and repeats the naive p-value where no
    variance is tested. `attrs["models"]` has the formulas.

    Where a fit is by the iterative core, `Chisq noise` is the standard error of the statistic
    because of random probes, of which the p-values know nothing; a statistic that is not several
    times as large decides nothing. Where both fits had the same probes it is found from the
    differences of these few, roughly, and hardly there for fixed effects. (`optimum.noise` is that
    of one deviance, AIC or BIC.)

    Of residual structures that of the larger model must be known to include the smaller's, as us
    includes all and toep includes ar1; their parameters are not at a boundary.

    Raises ValueError for models that are not nested or were fitted to different data.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> slopes = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep, method="ML")
    >>> less = slopes.update("~ Days + (1 | Subject)")
    >>> interlace_jax.anova(less, slopes, names=["same", "differ"])["Chisq"].round(2).tolist()
    [nan, 42.14]
    """
    if len(fits) < 2:
        raise ValueError(
            "anova compares two or more fits; use fit.anova() for F tests of the terms of one"
        )
    if wrong := [a for a in fits if not isinstance(a, FittedModel)]:
        raise TypeError(f"anova compares fits of this package, not {type(wrong[0]).__name__}")
    labels = _labels(names, len(fits))
    orders = [_order(fit.design, fits[0].design) for fit in fits]
    if refit and any(f.method == "REML" for f in fits):
        alike = len({fit.design.columns for fit in fits}) == 1
        warnings.warn(REFITTED_ALIKE if alike else REFITTED, stacklevel=2)
        fits = tuple(f.by("ML") for f in fits)
    compared = [_Compared(*parts) for parts in zip(labels, fits, orders, strict=True)]
    for one, other in itertools.pairwise(compared):
        _check_families(one, other)
        _check_same_data(one.design, other.design)
    _check_methods(compared)
    compared.sort(key=lambda one: one.fit.nparams)
    index = pd.Index([one.name for one in compared], dtype=object)
    table = WideFrame([_criteria(one.fit) for one in compared], index=index)
    tests = [_compare(small, big, nsim, seed) for small, big in itertools.pairwise(compared)]
    table = table.join(pd.DataFrame(tests, index=index[1:]))
    table.attrs["models"] = {one.name: str(one.design.formula) for one in compared}
    return table


@dataclass(frozen=True, eq=False)
class _Compared:
    """A fit, its name in the table, and the order in which its rows are those of the first fit."""

    name: str
    fit: FittedModel
    order: np.ndarray

    @functools.cached_property
    def design(self) -> Design:
        """The design of the fit with its rows in that order."""
        d, order = self.fit.design, self.order
        w, shift = (None if a is None else a[order] for a in (d.weights, d.offset))
        factors = tuple(replace(f, codes=f.codes[order], Z=f.Z[order]) for f in d.factors)
        predictors = tuple(p if p.D is None else replace(p, D=p.D[order]) for p in d.predictors)
        return replace(
            d,
            X=d.X[order],
            y=d.y[order],
            weights=w,
            offset=shift,
            factors=factors,
            predictors=predictors,
        )

    def deviance(self, y: np.ndarray) -> float:
        """The deviance of the model of another response, whose rows are in that order."""
        own = np.empty_like(y)
        own[self.order] = y
        return self.fit.refit(own).deviance


def _labels(names: Sequence[str] | None, count: int) -> list[str]:
    labels = (
        [f"m{i + 1}" for i in range(count)]
        if names is None
        else list(texts("names", names, "without slope"))
    )
    if len(labels) != count or len(set(labels)) != count:
        raise ValueError(f"names must be {count} different texts, one for each fit, not {names!r}")
    return labels


def _order(design: Design, first: Design) -> np.ndarray:
    """Rows of a design in the order of the first, where labels of rows tell; as they are
    otherwise.
    """
    asis = np.arange(len(design.y))
    labels, wanted = design.index, first.index
    if (
        len(labels) != len(wanted)
        or labels.equals(wanted)
        or not (labels.is_unique and wanted.is_unique)
    ):
        return asis
    order = labels.get_indexer(wanted)
    is_there = (order >= 0).all() and np.array_equal(design.y[order], first.y)
    if is_there and (design.residual is not None or first.residual is not None):
        raise ValueError(
            "the fits have the same rows in different orders, which models with residual= or "
            "dispersion= cannot be compared in: fit both to the data in one order"
        )
    return order if is_there else asis


def _criteria(f: FittedModel) -> dict[str, float]:
    return dict(npar=f.nparams, AIC=f.aic, BIC=f.bic, logLik=f.llf, deviance=f.deviance)


def _compare(a: _Compared, b: _Compared, nsim: int, seed: int | None) -> dict[str, float]:
    """The row of the larger model: how much better it is than the smaller, and how likely that
    is by chance.
    """
    small, big = a.fit, b.fit
    if reason := _not_nested(a.design, b.design):
        raise ValueError(
            f"{a.name} and {b.name} are not nested: {reason}; compare them by AIC or BIC instead"
        )
    statistic, df = max(small.deviance - big.deviance, 0.0), big.nparams - small.nparams
    p = chi2_pvalue(statistic, df) if df else np.nan
    row = {"Chisq": statistic, "Df": df, "Pr(>Chisq)": p}
    row["Pr(>Chisq) boundary"] = _boundary_pvalue(small, big, statistic, p)
    if noise := small.model.engine.noise_of_difference(
        small.estimate, big.model.engine, big.estimate
    ):
        row["Chisq noise"] = noise
    if nsim:
        row["Pr(>Chisq) simulated"] = _simulated_pvalue(
            a, b, statistic, nsim, np.random.default_rng(seed)
        )
    return row


def _check_methods(compared: Sequence[_Compared]) -> None:
    """Refuse criteria that are not to be compared."""
    if any(has_prior([factor.block for factor in one.design.factors]) for one in compared):
        raise ValueError(
            "estimates with a prior do not maximise the likelihood: fit without it to compare "
            "likelihoods"
        )
    methods = {one.fit.method for one in compared}
    if len(methods) > 1:
        raise ValueError(
            "the fits are by ML and by REML, which do not compare: use refit=True, or one method "
            "for all"
        )
    X = compared[0].design.X
    same = all(one.design.X.shape == X.shape and np.allclose(one.design.X, X) for one in compared)
    if methods == {"REML"} and not same:
        raise ValueError(
            "REML fits can be compared only if their fixed parts are the same: use refit=True"
        )


def _check_families(a: _Compared, b: _Compared) -> None:
    """Refuse to compare likelihoods of different distributions."""
    names = [_family_of(one.design) for one in (a, b)]
    if names[0] != names[1]:
        raise ValueError(
            f"the fits have different distributions or approximations, {names[0]} and {names[1]}, "
            "neither of which is a special case of the other inside its parameter space: compare "
            "them by AIC or BIC"
        )
    trials = [
        None if one.design.observed is None else one.design.observed.m[one.order] for one in (a, b)
    ]
    if trials[0] is not None and not np.array_equal(*trials):
        raise ValueError(
            "the fits differ in their trials: only models of the same data can be compared"
        )


def _family_of(design: Design) -> str:
    if design.observed is None:
        return "gaussian (identity)"
    family, nodes = design.observed.family, design.observed.nodes
    by = {0: ", nagq=0", 1: ""}.get(nodes, f", {nodes} quadrature nodes")
    return f"{family.name} ({family.link}{by})".replace("bernoulli", "binomial")


def _check_same_data(a: Design, b: Design) -> None:
    """Refuse designs whose rows are not the same."""
    if len(a.y) != len(b.y):
        raise ValueError(
            f"the fits use {len(a.y)} and {len(b.y)} rows: fit both to the same rows (missing "
            "values in a variable of one model leave rows out there only)"
        )
    for what in ("y", "weights", "offset"):
        mine, theirs = getattr(a, what), getattr(b, what)
        if (mine is None) != (theirs is None) or (
            mine is not None and not np.array_equal(mine, theirs)
        ):
            name = "response" if what == "y" else what
            if what == "y" and np.array_equal(np.sort(mine), np.sort(theirs)):
                raise ValueError(
                    "the fits have the same values of the response in another order, and the "
                    "labels of their rows do not tell which is which: fit both to rows in one "
                    "order, or leave the index of the data as it was"
                )
            raise ValueError(
                f"the fits differ in their {name}: only models of the same data can be compared"
            )


def _not_nested(a: Design, b: Design) -> str:
    """Why the model of design a is no special case of that of b; empty if it is."""
    if a.is_power_of_fitted or b.is_power_of_fitted:
        return 'dispersion Power("fitted") is a fixed point and maximises no likelihood'
    outside = _outside(a.X, b.X)
    if outside.any():
        names = [repr(a.columns[j]) for j in np.flatnonzero(outside)]
        return f"the larger model's fixed part lacks {', '.join(names)} of the smaller's"
    if name := _predicted_otherwise(a, b):
        return f"the larger model's {name}= lacks columns of the smaller's"
    if name := _tied_otherwise(a, b):
        return (
            f"the covariance structure of {name!r} in the larger model does not include the "
            "smaller's"
        )
    if not allows(b.residual, a.residual):
        return (
            f"{b.residual or 'independent residuals'} in the larger model do not include "
            f"{a.residual} of the smaller"
        )
    probes = np.random.default_rng(0).normal(size=(len(a.y), PROBES))
    mine, theirs = _covariance_terms(a, probes), _covariance_terms(b, probes)
    if _outside(
        np.column_stack([v for _, v in mine]), np.column_stack([v for _, v in theirs])
    ).any():
        return "the larger model's random effects cannot reproduce the smaller's"
    return ""


def _predicted_otherwise(a: Design, b: Design) -> str | None:
    """The argument with a predictor in a that the one in b cannot reproduce."""
    for mine, theirs in zip(a.predictors, b.predictors, strict=True):
        if mine.D is not None and (theirs.D is None or _outside(mine.D, theirs.D).any()):
            return mine.key
    return None


def _tied_otherwise(a: Design, b: Design) -> str | None:
    """A factor of both whose structure in b is not known to allow for all that it may be in a."""
    theirs = {f.name: f for f in b.factors}
    for f in a.factors:
        g = theirs.get(f.name)
        same = (
            g is not None
            and (f.within, f.across) == (g.within, g.across)
            and _same_arrays(f.K, g.K)
        )
        # its structure is lifted
        freed = g is not None and f.across is None and not g.is_structured
        if (f.is_structured or (g is not None and g.is_structured)) and not (same or freed):
            return f.name
    return None


def _same_arrays(a, b) -> bool:
    a, b = Flat(a, general=False), Flat(b, general=False)
    return a.tree == b.tree and all(map(np.array_equal, a.leaves, b.leaves))


def _outside(columns: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Which columns are no linear combination of the basis."""
    if basis.shape[1] == 0:
        return np.linalg.norm(columns, axis=0) > 0
    fitted = basis @ np.linalg.lstsq(basis, columns, rcond=None)[0]
    return np.linalg.norm(columns - fitted, axis=0) > IN_SPAN * np.linalg.norm(columns, axis=0)


def _covariance_terms(design: Design, probes: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """V_i u for every matrix V_i that Cov(y) is a combination of, on the probes u, raveled."""
    weights = 1.0 if design.weights is None else 1.0 / design.weights[:, None]
    found = [("residual", (weights * probes).ravel())]
    for f in design.factors:
        for i, j in _pattern(f):
            product = _apply(f, i, j, probes)
            found.append(
                (f.name, (product if i == j else product + _apply(f, j, i, probes)).ravel())
            )
    return found


def _pattern(f: Factor) -> list[tuple[int, int]]:
    pairs, start = [], 0
    for size in f.sizes:
        pairs += [(i, j) for i in range(start, start + size) for j in range(start, i + 1)]
        start += size
    return pairs


def _apply(f, i, j, probes):
    sums = np.zeros((len(f.levels), probes.shape[1]))
    np.add.at(sums, f.codes, f.Z[:, j, None] * probes)
    return f.Z[:, i, None] * sums[f.codes]


def _boundary_pvalue(a: FittedModel, b: FittedModel, statistic: float, naive: float) -> float:
    """The right p-value if one variance (with its k covariances) is tested, NaN where no simple
    mixture is known.
    """
    small, big = ({f.name: set(f.columns) for f in fit.design.factors} for fit in (a, b))
    q = len(b.theta) - len(a.theta)
    if q == 0:
        return naive
    others = [sum(len(p.columns) for p in f.model.design.predictors) for f in (a, b)]
    same_fixed = a.model.design.X.shape[1] == b.model.design.X.shape[1] and others[0] == others[1]
    if not same_fixed or any(
        not columns <= big.get(group, set()) for group, columns in small.items()
    ):
        return np.nan
    added = sum(map(len, big.values())) - sum(map(len, small.values()))
    if added == 0:  # correlations alone are not at a boundary
        return naive
    psi = [fit.design.residual.covariance.size if fit.design.residual else 0 for fit in (a, b)]
    if added > 1 or psi[0] != psi[1] or any(natural_names(f) for f in b.model.design.factors):
        return np.nan
    return 0.5 * (_chi2_tail(q - 1, statistic) + _chi2_tail(q, statistic))


def _chi2_tail(df: int, statistic: float) -> float:
    return chi2_pvalue(statistic, df) if df else float(statistic <= 0.0)


def _simulated_pvalue(
    a: _Compared, b: _Compared, statistic: float, nsim: int, rng: np.random.Generator
) -> float:
    """The share of statistics at least as large among responses simulated from the smaller
    model, the one seen too.
    """
    small, found = a.fit, []
    with warnings.catch_warnings():
        # half of the simulated fits are singular, as they should be
        warnings.simplefilter("ignore")
        for _ in range(nsim):
            y = new_responses(small, 1, rng)[a.order, 0]
            found.append(a.deviance(y) - b.deviance(y))
    return (1.0 + np.count_nonzero(np.array(found) >= statistic)) / (nsim + 1.0)
