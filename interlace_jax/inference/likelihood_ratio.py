"""Likelihood-ratio tests between fits of nested models, at the boundary of the parameter space too."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pandas as pd

from ..design.design import Design
from ..design.grouping import Factor
from ..models.fitted import FittedModel
from ..models.parameters import natural_names
from ..models.residual_nesting import allows
from ..models.simulation import draw_responses
from ..numerics.covariance.parameters import has_prior
from ..runtime.programs.trees import Flat
from ..support.later import special

PROBES = 3  # random vectors on which linear identities between n x n matrices are checked
IN_SPAN = 1e-7  # relative residual below which an array is in the span of others
REFITTED = "REML fits are refitted by ML: REML criteria of different fixed parts cannot be compared"


def anova(*fits: FittedModel, refit: bool = True, nsim: int = 0, seed: int | None = None) -> pd.DataFrame:
    """Likelihood-ratio tests between nested fits to the same data, as lme4's `anova(m1, m2, ...)`.

    fits: in any order; each is compared with the next smaller one.
    refit: refit REML fits by ML first, as models with different fixed parts need, and say so in a warning.
        False compares the fits as they are: REML fits must then have the same fixed part.
    nsim: also simulate so many responses from the smaller model, fit both models to each, and give the share of
        statistics at least as large in `Pr(>Chisq) simulated` (seed: of the random numbers).

    Returns a frame with one row a model: `npar AIC BIC logLik deviance Chisq Df Pr(>Chisq)`, and `Pr(>Chisq) boundary`:
    a variance of 0 lies on the boundary, where the naive p-value is too large. If one variance and its k covariances
    are tested, the null distribution is the 50:50 mixture of chi-square(k) and chi-square(k + 1) (Stram & Lee 1994,
    Biometrics 50); the column is NaN for other comparisons of variances (use nsim), and repeats the naive p-value where
    no variance is tested. `attrs["models"]` has the formulas.

    Where a fit is by the iterative core, `Chisq noise` is the standard error of the statistic because of random probes,
    of which the p-values know nothing; a statistic that is not several times as large decides nothing. Where both fits
    had the same probes it is found from the differences of these few, roughly, and hardly there for fixed effects.
    (`optimum.noise` is that of one deviance, AIC or BIC.)

    Of residual structures that of the larger model must be known to include the smaller's, as us includes all and toep
    includes ar1; their parameters are not at a boundary.

    Raises ValueError for models that are not nested or were fitted to different data.
    """
    if len(fits) < 2:
        raise ValueError("anova compares two or more fits; use fit.anova() for F tests of the terms of one")
    if wrong := [a for a in fits if not isinstance(a, FittedModel)]:
        raise TypeError(f"anova compares fits of this package, not {type(wrong[0]).__name__}")
    for a, b in itertools.pairwise(fits):
        _check_families(a.model.design, b.model.design)
        _check_same_data(a.model.design, b.model.design)
    ordered = sorted(enumerate(fits, 1), key=lambda pair: pair[1].nparams)
    names, fits = [f"m{i}" for i, _ in ordered], [f for _, f in ordered]
    if refit and any(f.method == "REML" for f in fits):
        warnings.warn(REFITTED, stacklevel=2)
        fits = [f.by("ML") for f in fits]
    _check_methods(fits)
    table = pd.DataFrame([_criteria(f) for f in fits], index=pd.Index(names, dtype=object))
    named = list(zip(names, fits, strict=True))
    tests = [_compare(small, big, nsim, seed) for small, big in itertools.pairwise(named)]
    table = table.join(pd.DataFrame(tests, index=table.index[1:]))
    table.attrs["models"] = {name: str(f.model.design.formula) for name, f in named}
    return table


def _criteria(f: FittedModel) -> dict[str, float]:
    return dict(npar=f.nparams, AIC=f.aic, BIC=f.bic, logLik=f.llf, deviance=f.deviance)


def _compare(small, big, nsim, seed):
    (name, a), (other, b) = small, big
    nested = _nested(a, b)
    if nested:
        raise ValueError(f"{name} and {other} are not nested: {nested}; compare them by AIC or BIC instead")
    statistic, df = max(a.deviance - b.deviance, 0.0), b.nparams - a.nparams
    p = float(special.chdtrc(df, statistic)) if df else np.nan
    row = {"Chisq": statistic, "Df": df, "Pr(>Chisq)": p, "Pr(>Chisq) boundary": _boundary_pvalue(a, b, statistic, p)}
    if noise := a.model.engine.noise_of_difference(a.estimate, b.model.engine, b.estimate):
        row["Chisq noise"] = noise
    if nsim:
        row["Pr(>Chisq) simulated"] = _simulated_pvalue(a, b, statistic, nsim, np.random.default_rng(seed))
    return row


def _check_methods(fits):
    if any(has_prior([factor.block for factor in f.model.design.factors]) for f in fits):
        raise ValueError("estimates with a prior do not maximise the likelihood: fit without it to compare likelihoods")
    methods = {f.method for f in fits}
    if len(methods) > 1:
        raise ValueError("the fits are by ML and by REML, which do not compare: use refit=True, or one method for all")
    if methods == {"REML"}:
        X = fits[0].model.design.X
        if any(f.model.design.X.shape != X.shape or not np.allclose(f.model.design.X, X) for f in fits[1:]):
            raise ValueError("REML fits can be compared only if their fixed parts are the same: use refit=True")


def _check_families(a: Design, b: Design) -> None:
    """Refuse to compare likelihoods of different distributions."""
    names = [_family_of(design) for design in (a, b)]
    if names[0] != names[1]:
        raise ValueError(
            f"the fits have different distributions or approximations, {names[0]} and {names[1]}, neither of which is "
            "a special case of the other inside its parameter space: compare them by AIC or BIC"
        )
    if a.observed is not None and not np.array_equal(a.observed.m, b.observed.m):
        raise ValueError("the fits differ in their trials: only models of the same data can be compared")


def _family_of(design: Design) -> str:
    if design.observed is None:
        return "gaussian (identity)"
    family, nodes = design.observed.family, design.observed.nodes
    by = "" if nodes == 1 else f", {nodes} quadrature nodes"
    return f"{family.name} ({family.link}{by})".replace("bernoulli", "binomial")


def _check_same_data(a: Design, b: Design) -> None:
    if len(a.y) != len(b.y):
        raise ValueError(
            f"the fits use {len(a.y)} and {len(b.y)} rows: fit both to the same rows (missing values in a variable of "
            "one model leave rows out there only)"
        )
    for what in ("y", "weights", "offset"):
        mine, theirs = getattr(a, what), getattr(b, what)
        if (mine is None) != (theirs is None) or (mine is not None and not np.array_equal(mine, theirs)):
            name = "response" if what == "y" else what
            raise ValueError(f"the fits differ in their {name}: only models of the same data can be compared")


def _nested(small: FittedModel, big: FittedModel) -> str:
    """Why `small` is no special case of `big`; empty if it is."""
    a, b = small.model.design, big.model.design
    outside = _outside(a.X, b.X)
    if outside.any():
        names = [repr(a.columns[j]) for j in np.flatnonzero(outside)]
        return f"the larger model's fixed part lacks {', '.join(names)} of the smaller's"
    if name := _predicted_otherwise(a, b):
        return f"the larger model's {name}= lacks columns of the smaller's"
    if name := _tied_otherwise(a, b):
        return f"the covariance structure of {name!r} in the larger model does not include the smaller's"
    if not allows(b.residual, a.residual):
        return f"{b.residual or 'independent residuals'} in the larger model do not include {a.residual} of the smaller"
    probes = np.random.default_rng(0).normal(size=(len(a.y), PROBES))
    mine, theirs = _covariance_terms(a, probes), _covariance_terms(b, probes)
    if _outside(np.column_stack([v for _, v in mine]), np.column_stack([v for _, v in theirs])).any():
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
        same = g is not None and (f.within, f.across) == (g.within, g.across) and _same_arrays(f.K, g.K)
        freed = g is not None and f.across is None and not g.is_structured  # its structure is lifted
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
            found.append((f.name, (product if i == j else product + _apply(f, j, i, probes)).ravel()))
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
    """The right p-value if one variance (with its k covariances) is tested, NaN where no simple mixture is known."""
    small, big = ({f.name: set(f.columns) for f in fit.design.factors} for fit in (a, b))
    q = len(b.theta) - len(a.theta)
    if q == 0:
        return naive
    others = [sum(len(p.columns) for p in f.model.design.predictors) for f in (a, b)]
    same_fixed = a.model.design.X.shape[1] == b.model.design.X.shape[1] and others[0] == others[1]
    if not same_fixed or any(not columns <= big.get(group, set()) for group, columns in small.items()):
        return np.nan
    added = sum(map(len, big.values())) - sum(map(len, small.values()))
    if added == 0:  # correlations alone are not at a boundary
        return naive
    psi = [fit.design.residual.covariance.size if fit.design.residual else 0 for fit in (a, b)]
    if added > 1 or psi[0] != psi[1] or any(natural_names(f) for f in b.model.design.factors):
        return np.nan
    return 0.5 * (_chi2_tail(q - 1, statistic) + _chi2_tail(q, statistic))


def _chi2_tail(df: int, statistic: float) -> float:
    return float(special.chdtrc(df, statistic)) if df else float(statistic <= 0.0)


def _simulated_pvalue(a, b, statistic, nsim, rng):
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # half of the simulated fits are singular, as they should be
        for _ in range(nsim):
            y = draw_responses(a.design, a.estimate.beta, a.Lambdas, a.level_roots, a.theta, a.sigma, 1, rng)[:, 0]
            small, big = (f.refit(y) for f in (a, b))
            found.append(small.deviance - big.deviance)
    return (1.0 + np.count_nonzero(np.array(found) >= statistic)) / (nsim + 1.0)
