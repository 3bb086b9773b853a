"""The single checks of a fit, each a `Finding`: what was looked at, what it says, and how sure
that is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy

from ..design.design import Design
from ..design.determinacy import is_constant
from ..inference.coefficients import coefficients
from ..inference.tails import t_pvalue
from ..inference.terms import term_columns
from ..models.fitted import FittedModel
from ..models.residual import relative_sds
from ..support.arguments import listed
from ..support.later import special
from .residuals import _simulations, independent_residuals, residuals

ALPHA = 0.01  # p-value below which a check wants a look
CLEAR = 1e-4  # p-value below which it reports trouble

FEW_LEVELS = 5  # levels below which a variance is hardly estimated
# sizes of samples that are tested by Shapiro and Wilk; larger ones by D'Agostino and Pearson
NORMALITY = (8, 5000)
COLLINEAR = (5.0, 10.0)  # variance inflation from which to look, and to worry
# Deviations that large samples detect though nobody need care.
SMALL_SKEWNESS, SMALL_KURTOSIS = 0.3, 0.6
# of the kurtosis: a smaller squared skewness goes with heavy tails (gamma 0.67, log-normal above
# 0.3)
SKEWED = 0.35
SMALL_CORRELATION = 0.1
SMALL_SHARE = 0.005  # of the residual variance


def standardised_effects(fit: FittedModel) -> dict[str, np.ndarray]:
    """Modes (m,) over the SD that they have under the model, by "factor: column".

    None of variance 0, and none of levels that covary, which are no sample of independent values.
    """
    found = {}
    for f, b, given in zip(fit.design.factors, fit.mode_arrays, fit.mode_covariances, strict=True):
        for j, column in enumerate(f.columns if f.across is None else ()):
            prior = fit.covariances[f.name].iloc[j, j]
            explained = prior - given[:, j, j]  # Var(b) = E Var(b | y) + Var E(b | y)
            if prior > 0 and explained.min() > 1e-6 * prior:
                found[f"{f.name}: {column}"] = b[:, j] / np.sqrt(explained)
    return found


def _marginal_sd(fit: FittedModel) -> np.ndarray:
    """Standard deviation (n,) of the response in each row, over groups and residuals."""
    design = fit.design
    variance = relative_sds(design, fit.theta) ** 2
    for f, Lam, L in zip(design.factors, fit.Lambdas, fit.level_roots, strict=True):
        variance = variance + ((f.Z @ Lam) ** 2).sum(1) * (
            1.0 if L is None else (L**2).sum(1)[f.codes]
        )
    return fit.sigma * np.sqrt(variance)


def collinearity(fit: FittedModel) -> pd.DataFrame:
    """Generalised variance inflation `df gvif vif` of every term of the fixed part (Fox & Monette
    1992, JASA 87).

    How many times larger the squared volume of a term's confidence region is than without
    correlations to the other terms; `vif` is its df-th root, comparable between terms (of one
    column: the usual variance inflation factor).
    """
    terms = term_columns(fit.design)
    used = [j for columns in terms.values() for j in columns]
    V = coefficients(fit).vcov[np.ix_(used, used)]
    sd = np.sqrt(np.diag(V))
    R = V / sd[:, None] / sd
    rows, start = {}, 0
    for name, columns in terms.items():
        inside = np.isin(np.arange(len(used)), np.arange(start, start + len(columns)))
        parts = (R[np.ix_(k, k)] for k in (inside, ~inside))
        gvif = np.exp(sum(np.linalg.slogdet(part)[1] for part in parts) - np.linalg.slogdet(R)[1])
        rows[name] = (len(columns), gvif, gvif ** (1.0 / len(columns)))
        start += len(columns)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["df", "gvif", "vif"])


def group_sizes(fit: FittedModel) -> pd.DataFrame:
    """By grouping factor the `levels`, their `effects` each, and rows a level: `smallest median
    largest`.

    `thin` is the share of levels with no more rows than effects, which say nothing about the
    residual; none is where a covariance structure ties the effects together.
    """
    rows = {}
    for f in fit.design.factors:
        sizes, k = np.bincount(f.codes), len(f.columns)
        thin = 0.0 if f.is_structured else np.mean(sizes <= k)
        rows[f.name] = (len(sizes), k, sizes.min(), np.median(sizes), sizes.max(), thin)
    columns = ["levels", "effects", "smallest", "median", "largest", "thin"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


@dataclass(frozen=True)
class Finding:
    """One line of the page."""

    check: str
    verdict: str
    "`fine`, `look` or `trouble`."
    found: str
    statistic: float = np.nan
    p: float = np.nan
    advice: str = ""


def _finding(check, p, statistic, matters, fine, found, advice) -> Finding:
    """A finding by its p-value; a deviation that does not matter is fine, and is told."""
    if p >= ALPHA:
        return Finding(check, "fine", fine, statistic, p)
    if not matters:
        return Finding(check, "fine", f"{found}, but little", statistic, p)
    return Finding(check, "look" if p >= CLEAR else "trouble", found, statistic, p, advice)


def _optimum(fit: FittedModel) -> Finding:
    left = fit.optimum.predicted_decrease
    if fit.converged:
        return Finding("optimum", "fine", "the search for the estimates converged", left)
    advice = "Simplify the random effects, or start elsewhere by theta0=."
    return Finding(
        "optimum",
        "trouble",
        f"the search did not converge: {fit.optimum.message}",
        left,
        advice=advice,
    )


def _boundary(fit: FittedModel) -> Finding:
    if not fit.is_singular:
        return Finding("variances", "fine", "none is estimated at 0, no correlation at 1 or -1")
    found, _, rest = fit.singularity.partition(": ")
    return Finding("variances", "look", found, advice=rest[0].upper() + rest[1:] + ".")


def _groups(fit: FittedModel) -> Iterator[Finding]:
    for name, row in group_sizes(fit).iterrows():
        levels, k = int(row["levels"]), int(row["effects"])
        found = (
            f"{levels} levels of {row['smallest']:.0f} to {row['largest']:.0f} rows, median "
            f"{row['median']:g}"
        )
        if row["smallest"] == row["largest"]:
            found = (
                f"{levels} levels of {row['smallest']:.0f} "
                f"row{'s' if row['smallest'] > 1 else ''} each"
            )
        advice = ""
        if levels < FEW_LEVELS:
            advice = (
                f"A variance between {levels} levels is hardly known: enter {name} as a fixed "
                'effect, or report the interval by confint("profile").'
            )
        elif row["thin"] > 0.5 and fit.design.observed is None:
            found += f"; {row['thin']:.0%} have no more rows than random effects ({k})"
            advice = (
                "Such levels cannot tell their own effects from the residual: fewer random "
                "slopes, or more rows each."
            )
        yield Finding(
            f"groups of {name}", "look" if advice else "fine", found, levels, advice=advice
        )


def _collinear(fit: FittedModel) -> Iterator[Finding]:
    table = collinearity(fit)
    if len(table) < 2:
        return
    worst = table["vif"].max()
    involved = table.index[table["vif"] > 0.5 * worst].tolist()[:4]
    verdict = "fine" if worst < COLLINEAR[0] else "look" if worst < COLLINEAR[1] else "trouble"
    found = f"largest variance inflation {worst:.3g}, of {table['vif'].idxmax()}"
    advice = (
        f"{listed(involved)} share most of their information, so that each effect is uncertain. "
        "Centre predictors that enter products or powers; of two that measure the same, keep one "
        "or their mean."
    )
    yield Finding("predictors", verdict, found, worst, advice="" if verdict == "fine" else advice)


def _shape(z: np.ndarray) -> tuple[float, float, bool, str]:
    """Statistic and p-value of a test of normality, whether the deviation matters, and what it
    looks like.
    """
    statistic, p = scipy.stats.shapiro(z) if len(z) <= NORMALITY[1] else scipy.stats.normaltest(z)
    skewness, kurtosis = scipy.stats.skew(z), scipy.stats.kurtosis(z)
    skewed = f"skewed to the {'right' if skewness > 0 else 'left'} (skewness {skewness:.2g})"
    tails = (
        f"{'heavier' if kurtosis > 0 else 'lighter'} tails than normal (excess kurtosis "
        f"{kurtosis:.2g})"
    )
    first_skewed = skewness**2 > SKEWED * abs(kurtosis)
    large = {skewed: abs(skewness) > SMALL_SKEWNESS, tails: abs(kurtosis) > SMALL_KURTOSIS}
    words = [skewed, tails] if first_skewed else [tails, skewed]
    look = ", ".join([word for word in words if large[word]] or words[:1])
    return float(statistic), float(p), any(large.values()), look


def _residual_shape(fit: FittedModel) -> Finding:
    statistic, p, matters, look = _shape(independent_residuals(fit).to_numpy())
    advice = (
        "See plot.qq. Estimates of effects bear this, predictions and small p-values less. Try "
        "log or sqrt of a skewed response; with heavy tails look for wrong values first, and "
        "compare bootstrap intervals."
    )
    return _finding("shape of residuals", p, statistic, matters, "normal", look, advice)


def _outliers(fit: FittedModel) -> Finding:
    """Residuals too large for the largest of n normal ones: Bonferroni."""
    r = independent_residuals(fit).to_numpy()
    z = np.abs(r) / r.std()
    each = np.minimum(1.0, 2.0 * len(z) * special.ndtr(-z))
    rows = fit.design.index[np.argsort(-z)[: max(1, (each < ALPHA).sum())]].tolist()
    found = f"largest residual {z.max():.2g} SD, in row {rows[0]!r}"
    several = "s" * (len(rows) > 1)
    advice = (
        f"Look at the data of row{several} {listed(rows, 5)}. Correct errors; otherwise report "
        "the fit with and without, as by influence()."
    )
    return _finding("outliers", each.min(), z.max(), True, found, found, advice)


def _spread(fit: FittedModel) -> Iterator[Finding]:
    """Trend of the size of residuals over fitted values: Spearman's rank correlation."""
    if is_constant(fit.fittedvalues.to_numpy()):
        return
    rho, p = scipy.stats.spearmanr(np.abs(independent_residuals(fit).to_numpy()), fit.fittedvalues)
    found = (
        f"{'grows' if rho > 0 else 'shrinks'} with the fitted value (rank correlation {rho:.2g})"
    )
    advice = (
        "Try log or sqrt of the response, or give weights= if the variance of the rows is known "
        "up to a factor."
    )
    matters = abs(rho) > SMALL_CORRELATION
    yield _finding(
        "spread of residuals",
        p,
        rho,
        matters,
        "the same for small and large fitted values",
        found,
        advice,
    )


def _spread_by_group(fit: FittedModel) -> Iterator[Finding]:
    """Levene's test with medians (Brown & Forsythe 1974, JASA 69), between the levels of a
    factor.
    """
    r = pd.Series(residuals(fit, "pearson").to_numpy())
    for f in fit.design.factors:
        if np.median(np.bincount(f.codes)) < 3:
            continue
        groups = (r - r.groupby(f.codes).transform("median")).abs().groupby(f.codes)
        F, p, share = _one_way(groups)
        widest = f.levels[groups.mean().argmax()]
        yield _finding(
            f"spread by {f.name}",
            p,
            F,
            share > 2 * SMALL_SHARE,
            f"similar in all levels of {f.name}",
            f"differs between levels of {f.name}, largest in {widest}",
            "Look at that level's data. Intervals of the average effects bear this; those of "
            "single levels do not.",
        )


def _one_way(groups: Any) -> tuple[float, float, float]:
    """F test of equal means, and the share of variance between groups, corrected for chance
    (omega squared).
    """
    sizes, means = groups.size(), groups.mean()
    n, m = sizes.sum(), len(sizes)
    within = (groups.var(ddof=0) * sizes).sum()
    between = (sizes * (means - (sizes * means).sum() / n) ** 2).sum()
    F = (between / (m - 1)) / (within / (n - m))
    share = (m - 1) * (F - 1) / ((m - 1) * (F - 1) + n)
    return float(F), float(scipy.special.fdtrc(m - 1, n - m, F)), float(share)


def _curvature(fit: FittedModel) -> Iterator[Finding]:
    """Score test of the square of every numeric column of the fixed part."""
    design = fit.design
    all_df = coefficients(fit).df(np.eye(len(design.columns)))
    for j, name in _numeric(design):
        z, df = score(fit, design.X[:, j] ** 2), all_df[j]
        if np.isnan(z):
            continue
        yield _finding(
            f"curve over {name}",
            float(t_pvalue(z, df)),
            z,
            z**2 > SMALL_SHARE * len(design.y),
            "straight",
            f"the response bends {'up' if z > 0 else 'down'}, which a straight line misses",
            f"Add the square, as by poly({name}, 2), or a transformation of {name}; see "
            "plot.residuals.",
        )


def _numeric(design: Design) -> Iterator[tuple[int, str]]:
    """Columns of the fixed part that are one predictor with more than two values."""
    for j, name in enumerate(design.columns):
        if ":" not in name and len(np.unique(design.X[:, j])) > 2:
            yield j, name


def score(fit: FittedModel, q: np.ndarray) -> float:
    """Score statistic z of one more column q (n,) of the fixed part; NaN if it depends on those
    there are.

    With residuals e = R P y, where R = sigma^2 W^-1 and P = V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1, the
    score of q's coefficient at 0 is q'P y = q'W e(y) / sigma^2 and its variance q'P q = q'W e(q) /
    sigma^2, both at the theta and sigma of the fit.
    """
    design = fit.design
    w = design.w
    q = q - q.mean()
    size = np.sqrt(np.mean(q**2))
    if not size > 0:
        return np.nan
    q = q / size
    b = fit.model.with_response(q + design.shift).engine.modes(fit.estimate)
    random = sum(
        np.einsum("nk,nk->n", f.Z, bf[f.codes]) for f, bf in zip(design.factors, b, strict=True)
    )
    left = np.sqrt(w) * (q - random)
    # given the modes, coefficients are those of least squares
    basis = np.linalg.qr(np.sqrt(w)[:, None] * design.X)[0]
    variance = np.sum(np.sqrt(w) * q * (left - basis @ (basis.T @ left)))
    if variance < 1e-8 * np.sum(w * q**2):
        return np.nan
    return float(np.sum(w * q * fit.resid.to_numpy()) / (fit.sigma * np.sqrt(variance)))


def _effects_shape(fit: FittedModel) -> Iterator[Finding]:
    factors = {f"{f.name}: {column}": f for f in fit.design.factors for column in f.columns}
    for name, z in standardised_effects(fit).items():
        if len(z) < NORMALITY[0]:
            continue
        statistic, p, matters, look = _shape(z)
        found = (
            f"{look}; farthest out is {factors[name].levels[np.abs(z).argmax()]} "
            f"({np.abs(z).max():.2g} SD)"
        )
        advice = (
            "A few special groups, or two kinds of them? Add the predictor that tells them "
            "apart, or look at their data. Fixed effects bear this well."
        )
        yield _finding(f"random effects, {name}", p, statistic, matters, "normal", found, advice)


def _as_a_whole(fit: FittedModel, nsim: int, seed: Any) -> Finding:
    """Kolmogorov and Smirnov's distance of the scaled residuals from their distribution under the
    model.

    Rows of one group are alike, so the p-value comes from simulated responses. Those and the data
    are put to mean 0 and SD 1 first (as Lilliefors did), because the model has been fitted to the
    data only.
    """
    design = fit.design
    mean, sd = (design.X @ fit.estimate.beta + design.shift)[:, None], _marginal_sd(fit)[:, None]
    observed = _distance((design.y[:, None] - mean) / sd)[0]
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([_distance((Y - mean) / sd) for Y in _simulations(fit, nsim, rng)])
    p = (1 + np.sum(drawn >= observed)) / (nsim + 1)
    return _finding(
        "data as a whole",
        float(p),
        float(observed),
        True,
        "distributed like data simulated from the model",
        "distributed otherwise than data simulated from the model",
        "See whether the other lines say why, and compare plot.qq; the kind of model may be "
        "wrong for this response.",
    )


def _distance(z: np.ndarray) -> np.ndarray:
    """Largest distance between the distribution of each column (n, r), standardised, and the
    normal one.
    """
    n = len(z)
    u = special.ndtr(np.sort((z - z.mean(0)) / z.std(0), 0))
    return np.abs(u - (np.arange(n)[:, None] + 0.5) / n).max(0) + 0.5 / n
