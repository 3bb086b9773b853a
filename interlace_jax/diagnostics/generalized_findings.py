"""The checks that generalised models have beside, or in place of, those of linear ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..models import response
from ..models.generalized import MOST_EFFECTS, FittedGeneralizedModel
from ..models.linear_predictor import _of_fit, expected
from ..models.simulation import new_responses
from ..numerics.families.family import Bernoulli, Ordinal
from ..support.arguments import listed
from ..support.later import special
from .findings import (
    ALPHA,
    NORMALITY,
    SMALL_SHARE,
    Finding,
    _effects_shape,
    _finding,
    _numeric,
    _optimum,
    _shape,
    standardised_effects,
)
from .residuals import NUMBERS
from .response_residuals import quantile_residuals

MODES_FOUND = 1e-6  # deviance units that modes may be away from theirs
FEW_EVENTS = 5.0  # of the rarer outcome a coefficient (Vittinghoff & McCulloch 2007, AJE 165)
RARE_CATEGORY = 5  # rows of a category below which its threshold is hardly known
MOVED = (0.2, 1.0)  # standard errors that quadrature moves an estimate: a look, and trouble
NODES = {1: 7, 2: 5, 3: 5}  # of the quadrature that judges, by random effects a level
LONG = 1 << 22  # rows times nodes up to which it is quick
ONE_SIDED = 0.5  # share of levels with one outcome only from which Laplace is doubtful
SMALL_DISPERSION = 1.1  # factor of the variance that nobody need care about
KNOWN_EFFECTS = 0.7  # share of their variance that modes must explain to have a shape of their own


def search(fit: FittedGeneralizedModel) -> Iterator[Finding]:
    """The optimum, and the modes of the random effects there; separation has its own finding."""
    if fit.separation is not None:
        return
    left = fit.estimate.mode_decrement
    if fit.converged and left > MODES_FOUND:
        advice = "Are there several modes? Scale the predictors, or start elsewhere by theta0=."
        yield Finding(
            "optimum",
            "trouble",
            f"the modes of the random effects lack {left:.1e}",
            left,
            advice=advice,
        )
    else:
        yield _optimum(fit)


def separation(fit: FittedGeneralizedModel) -> Iterator[Finding]:
    """Coefficients without a finite estimate."""
    if fit.separation is not None:
        found, _, rest = fit.separation.message.partition(". ")
        yield Finding("separation", "trouble", found, advice=f"{rest}.")
    elif fit.family.is_count or isinstance(fit.family, Ordinal):
        yield Finding("separation", "fine", "no predictor tells the outcomes apart without error")


def limits(fit: FittedGeneralizedModel) -> Iterator[Finding]:
    """Numbers of the family that run off to where it is another family."""
    for name, meaning in fit.runaway.items():
        advice = f"{meaning[0].upper()}{meaning[1:]}."
        yield Finding("family", "look", f"{name} runs off to infinity", advice=advice)


def rare_outcomes(fit: FittedGeneralizedModel) -> Iterator[Finding]:
    """Successes or failures for each coefficient; rows of the smallest category."""
    design, family = fit.design, fit.family
    if isinstance(family, Ordinal):
        counts = np.bincount(design.y.astype(int), minlength=len(family.categories))
        least = int(counts.argmin())
        found = f"the smallest, {family.categories[least]!r}, has {counts[least]} rows"
        advice = (
            "Thresholds beside it are hardly known: join it with its neighbour, if it makes sense."
        )
        yield _looked_at("categories", counts[least] < RARE_CATEGORY, found, counts[least], advice)
    elif family.has_trials:
        rarer = min(design.y.sum(), (design.observed.m - design.y).sum())
        slopes = max(1, len([name for name in design.columns if name != "Intercept"]))
        several = "s" * (slopes > 1)
        found = f"the rarer one {rarer:g} times, for {slopes} coefficient{several}"
        advice = (
            "Estimates are biased away from 0, intervals too narrow: fewer predictors, or say so."
        )
        yield _looked_at("outcomes", rarer < FEW_EVENTS * slopes, found, rarer, advice)


def _looked_at(check: str, is_doubtful: bool, found: str, statistic: float, advice: str) -> Finding:
    """A finding without a p-value, with its advice where it is wanted."""
    if is_doubtful:
        return Finding(check, "look", found, statistic, advice=advice)
    return Finding(check, "fine", found, statistic)


# Laplace's approximation --------------------------------------------------------------------------


def approximation(fit: FittedGeneralizedModel) -> Iterator[Finding]:
    """What quadrature would change; where there is none, how many levels say little."""
    factors = fit.design.factors
    f = factors[0]
    if fit.nagq > 1:
        yield Finding(
            "approximation", "fine", f"the likelihood is by quadrature with {fit.nagq} nodes"
        )
    elif len(factors) == 1 and len(f.columns) <= MOST_EFFECTS and f.across is None:
        nodes = NODES[len(f.columns)]
        if nodes ** len(f.columns) * fit.nobs <= LONG:
            yield from _by_quadrature(fit, nodes)
    else:
        yield from _one_sided(fit)


def _by_quadrature(fit: FittedGeneralizedModel, nodes: int) -> Iterator[Finding]:
    """How far one Newton step on the likelihood by quadrature goes from Laplace's optimum."""
    e, V = fit.estimate, fit.conditioned_covariance
    slope = fit.model.engine.quadrature_gradient(e, nodes)
    if not np.isfinite(slope).all():
        return
    step = e.jacobian @ (-0.5 * V @ slope)  # V is twice the inverse Hessian
    se = np.sqrt(np.diag(fit.joint_covariance))
    moved = np.abs(np.divide(step, se, out=np.zeros_like(step), where=se > 0.0))
    names = ["a standard deviation of the random effects"] * len(e.theta)
    names += [f"the coefficient of {name}" for name in fit.design.columns]
    names += [f"{name} of the family" for name in fit.family_names]
    most = int(moved.argmax())
    verdict = "fine" if moved[most] < MOVED[0] else "look" if moved[most] < MOVED[1] else "trouble"
    found = (
        f"quadrature would move {names[most]} by {moved[most]:.2g} standard errors, "
        "the others by less"
    )
    shows = f"Laplace's approximation shows in these groups: compare with nagq={nodes}."
    poor = f"Laplace's approximation is not good enough for these groups: fit with nagq={nodes}."
    advice = {"fine": "", "look": shows, "trouble": poor}[verdict]
    yield Finding("approximation", verdict, found, moved[most], advice=advice)


def _one_sided(fit: FittedGeneralizedModel) -> Iterator[Finding]:
    """Levels whose rows have one outcome only, of binary and binomial responses."""
    if not fit.family.has_trials:
        return
    y, m = fit.design.y, np.ones(fit.nobs) * fit.design.observed.m
    for f in fit.design.factors:
        success, trials = np.bincount(f.codes, y), np.bincount(f.codes, m)
        share = np.mean((success == 0.0) | (success == trials))
        found = f"{share:.0%} of the levels of {f.name} have one outcome only"
        advice = (
            f"Laplace's approximation is poor for such levels, and SDs of {f.name} come out too "
            "small: compare with a fit of this factor alone by nagq=7."
        )
        yield _looked_at(f"approximation, {f.name}", share > ONE_SIDED, found, share, advice)


# Simulated data -----------------------------------------------------------------------------------


def _simulated_p(observed: float, drawn: np.ndarray) -> float:
    """Two-sided p-value of a statistic among simulated ones; by the normal distribution where it is
    beyond them all.
    """
    above, below = np.sum(drawn >= observed), np.sum(drawn <= observed)
    p = min(1.0, 2.0 * (1 + min(above, below)) / (len(drawn) + 1))
    if min(above, below) > 0:
        return float(p)
    sd = max(drawn.std(), 0.5 * np.abs(drawn).max() / len(drawn), 1e-300)
    return float(min(p, 2.0 * special.ndtr(-abs(observed - drawn.mean()) / sd)))


def effective_parameters(fit: FittedGeneralizedModel) -> float:
    """Coefficients, and what the random effects have taken from the data: sum of 1 - Var(b | y) /
    Var(b).
    """
    total = float(len(fit.estimate.beta))
    pieces = zip(fit.Lambdas, fit.level_roots, fit.mode_covariances, strict=True)
    for Lam, L, given in pieces:
        prior = Lam @ Lam.T
        scale = np.ones(len(given)) if L is None else (L**2).sum(1)
        left = np.einsum("ab,mba->m", np.linalg.pinv(prior, rcond=1e-10), given) / scale
        total += float((np.linalg.matrix_rank(prior, tol=1e-10) - left).clip(0.0).sum())
    return total


def dispersion(
    fit: FittedGeneralizedModel, nsim: int, rng: np.random.Generator
) -> Iterator[Finding]:
    """Pearson's chi-square over its degrees of freedom, among responses simulated with these random
    effects.
    """
    family, design = fit.family, fit.design
    if isinstance(family, Bernoulli | Ordinal) or not _has_moments(fit):
        return
    if any(len(f.levels) == fit.nobs for f in design.factors):
        yield Finding("dispersion", "fine", "a random effect for every row takes up what there is")
        return
    free = fit.free_rows(_of_fit(design))
    m = np.ones(fit.nobs) * design.observed.m
    mean = (m * fit.fittedvalues.to_numpy())[:, None]
    variance = (m**2 * response.variance(family, fit.estimate.eta, free, design.w * m))[:, None]
    left = fit.nobs - effective_parameters(fit)
    ratio = float(np.sum((design.y[:, None] - mean) ** 2 / variance) / max(left, 1.0))
    rounds = _chunks(fit, nsim)
    drawn = [((new_responses(fit, k, rng, True) - mean) ** 2 / variance).mean(0) for k in rounds]
    p = _simulated_p(np.log(ratio), np.log(np.concatenate(drawn)))
    matters = not 1.0 / SMALL_DISPERSION < ratio < SMALL_DISPERSION
    side = "over" if ratio > 1 else "under"
    found = f"{side}-dispersed: Pearson's chi-square is {ratio:.2g} times what it should be"
    fine = f"Pearson's chi-square over its degrees of freedom is {ratio:.2g}"
    yield _finding("dispersion", p, ratio, matters, fine, found, _remedy(fit, ratio))


def _has_moments(fit: FittedGeneralizedModel) -> bool:
    """Whether the family has a variance and random draws; one of the user's own may lack either."""
    own = fit.family
    return not hasattr(own, "log_density") or (own.variance is not None and own.draw is not None)


def _chunks(fit: FittedGeneralizedModel, nsim: int) -> list[int]:
    """How many responses to draw at a time, until there are nsim."""
    at_once = max(1, NUMBERS // fit.nobs)
    return [min(at_once, nsim - start) for start in range(0, nsim, at_once)]


def _remedy(fit: FittedGeneralizedModel, ratio: float) -> str:
    if ratio < 1.0:
        return (
            "Standard errors are too large rather than too small. Are rows computed from each "
            "other, or rounded?"
        )
    small = "Standard errors are too small:"
    known = {
        "poisson": f"{small} family='nbinom2', or a random effect a row.",
        "binomial": f"{small} family='betabinomial', or a random effect a row.",
    }
    other = "The variance is another: change the family, give dispersion=, or add a predictor."
    return known.get(getattr(fit.family, "base", fit.family).name, other)


def zeros(fit: FittedGeneralizedModel, nsim: int, rng: np.random.Generator) -> Iterator[Finding]:
    """How many counts are 0, among responses simulated from the model."""
    family = fit.family
    if not family.is_count or family.has_trials or family.outside(np.zeros(1), np.ones(1)).any():
        return
    observed = int((fit.design.y == 0.0).sum())
    drawn = np.concatenate([(new_responses(fit, k, rng) == 0.0).sum(0) for k in _chunks(fit, nsim)])
    expected = drawn.mean()
    p = _simulated_p(observed, drawn)
    more = observed > expected
    side = "more" if more else "fewer"
    found = f"{observed} counts are 0, {side} than the {expected:.3g} that the model expects"
    excess = "Compare, by AIC, with family='nbinom2' and with zero_inflation='~ 1'."
    lack = "Can there be zeros? If not, a truncated family; if in another way, a hurdle model."
    advice = f"See plot.rootogram. {excess if more else lack}"
    matters = abs(observed - expected) > SMALL_SHARE * fit.nobs
    yield _finding(
        "zeros",
        p,
        observed,
        matters,
        f"{observed} counts are 0, {expected:.3g} expected",
        found,
        advice,
    )


def as_a_whole(
    fit: FittedGeneralizedModel, nsim: int, rng: np.random.Generator
) -> Iterator[Finding]:
    """Kolmogorov and Smirnov's distance of the scaled residuals from the uniform distribution, by
    simulation.

    Rows of one group are alike, so that simulated responses in turn take the place of the data. Of
    very many rows a random part is looked at.
    """
    if hasattr(fit.family, "log_density") and fit.family.draw is None:
        return
    rows = np.arange(fit.nobs)
    most = max(1, NUMBERS // (nsim + 1))
    if len(rows) > most:
        rows = np.sort(rng.choice(len(rows), most, replace=False))
    Y = np.concatenate(
        [fit.design.y[rows, None], *(new_responses(fit, k, rng)[rows] for k in _chunks(fit, nsim))],
        1,
    )
    distances = _distances((_ranks(Y + 0.0, rng) + 0.5) / Y.shape[1])
    p = float((1 + np.sum(distances[1:] >= distances[0])) / (nsim + 1))
    yield _finding(
        "data as a whole",
        p,
        float(distances[0]),
        True,
        "distributed like data simulated from the model",
        "distributed otherwise than data simulated from the model",
        "See whether the other lines say why, and compare plot.qq; the family may be wrong for "
        "this response.",
    )


def _ranks(Y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ranks of the entries of every row among those of the row, ties in random order."""
    mixed = rng.permuted(np.broadcast_to(np.arange(Y.shape[1]), Y.shape), axis=1)
    order = np.take_along_axis(
        mixed, np.argsort(np.take_along_axis(Y, mixed, 1), axis=1, kind="stable"), 1
    )
    ranks = np.empty(Y.shape)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(Y.shape[1], dtype=float), Y.shape), 1)
    return ranks


def _distances(u: np.ndarray) -> np.ndarray:
    """Largest distance between the distribution of each column (n, r) and the uniform one."""
    n = len(u)
    return np.abs(np.sort(u, 0) - (np.arange(n)[:, None] + 0.5) / n).max(0) + 0.5 / n


# Quantile residuals -------------------------------------------------------------------------------


def residuals_at_draws(fit: FittedGeneralizedModel, rng: np.random.Generator) -> np.ndarray | None:
    """Randomized quantile residuals (n,), given random effects that are drawn from what is known
    of them; None for a family whose distribution function is not known.

    Standard normal under the model (Waagepetersen 2006, Scand. J. Stat. 33), where those given the
    modes have lighter tails: modes follow their rows.
    """
    if hasattr(fit.family, "log_density"):
        return None
    rows, away = _of_fit(fit.design), [_drawn(S, rng) for S in fit.mode_covariances]
    moved = expected(rows, np.zeros(rows.X.shape[1]), away) - fit.design.shift
    return quantile_residuals(fit, fit.estimate.eta + moved, rng)


def _drawn(covariances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Normal numbers (m, k) with covariances (m, k, k), which may be singular."""
    values, vectors = np.linalg.eigh(covariances)
    z = np.sqrt(np.maximum(values, 0.0)) * rng.normal(size=values.shape)
    return np.einsum("mij,mj->mi", vectors, z)


def shape(residuals: np.ndarray | None) -> Iterator[Finding]:
    """Whether quantile residuals are normal."""
    if residuals is None or len(residuals) < NORMALITY[0]:
        return
    statistic, p, matters, look = _shape(residuals)
    advice = (
        "See plot.qq: the family may have other tails than the response, or a predictor is missing."
    )
    yield _finding(
        "shape of residuals", p, statistic, matters, "quantile residuals are normal", look, advice
    )


def outliers(fit: FittedGeneralizedModel, residuals: np.ndarray | None) -> Iterator[Finding]:
    """Quantile residuals too large for the largest of n normal ones: Bonferroni."""
    if residuals is None:
        return
    z = np.abs(residuals)
    each = np.minimum(1.0, 2.0 * len(z) * special.ndtr(-z))
    rows = fit.design.index[np.argsort(-z)[: max(1, (each < ALPHA).sum())]].tolist()
    found = f"largest quantile residual {z.max():.2g}, in row {rows[0]!r}"
    several = "s" * (len(rows) > 1)
    advice = (
        f"Look at the data of row{several} {listed(rows, 5)}: the response is improbable there."
    )
    yield _finding("outliers", float(each.min()), float(z.max()), True, found, found, advice)


def curvature(fit: FittedGeneralizedModel, residuals: np.ndarray | None) -> Iterator[Finding]:
    """Correlation of quantile residuals with the square of every numeric column, given the fixed
    part.

    What varies between levels only has been taken by the random effects: there the test sees less
    than there is.
    """
    if residuals is None:
        return
    design = fit.design
    basis = np.linalg.qr(design.X)[0]
    for j, name in _numeric(design):
        q = (design.X[:, j] - design.X[:, j].mean()) ** 2
        left = q - basis @ (basis.T @ q)
        if np.sum(left**2) < 1e-8 * np.sum(q**2):
            continue
        r = float(left @ residuals / np.sqrt(np.sum(left**2) * np.sum(residuals**2)))
        z = r * np.sqrt(len(q))
        yield _finding(
            f"curve over {name}",
            float(2.0 * special.ndtr(-abs(z))),
            z,
            r**2 > SMALL_SHARE,
            "straight on the scale of the link",
            f"the response bends {'up' if z > 0 else 'down'} on the scale of the link, which a "
            f"straight line misses",
            f"Add the square, as by poly({name}, 2), or a transformation of {name}; see "
            f"plot.residuals.",
        )


def effects(fit: FittedGeneralizedModel) -> Iterator[Finding]:
    """Shape of the random effects of levels that say enough about theirs."""
    known = known_effects(fit)
    for finding in _effects_shape(fit):
        if finding.check.removeprefix("random effects, ") in known:
            yield finding


def known_effects(fit: FittedGeneralizedModel) -> dict[str, np.ndarray]:
    """Those of `standardised_effects` whose modes explain most of their variance; others have the
    shape of the response rather than their own.
    """
    found, there = {}, standardised_effects(fit)
    for f, given in zip(fit.design.factors, fit.mode_covariances, strict=True):
        for j, column in enumerate(f.columns):
            name, prior = f"{f.name}: {column}", fit.covariances[f.name].iloc[j, j]
            if name in there and given[:, j, j].mean() < (1.0 - KNOWN_EFFECTS) * prior:
                found[name] = there[name]
    return found
