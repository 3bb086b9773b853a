"""What rows and whole groups do to a fit: deletions, exact and to first order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..design.design import Design
from ..design.grouping import Factor
from ..engines.packing import padded_model
from ..inference.prediction import estimates_by_t
from ..models.fitted import FittedModel
from ..models.generalized import FittedGeneralizedModel
from ..models.parameters import component_pairs, relative_factors
from ..models.residual import residual_names, residual_values
from ..models.response import family_names, natural_gamma
from ..numerics.crossproducts.layout import bucket
from ..numerics.estimation.bfgs import STATUS
from ..numerics.likelihood.coordinates import to_user
from ..numerics.uncertainty.sensitivity import case_pull, deletion_gradients
from ..resampling.generalized_refits import ending, fit_without, unfit
from ..resampling.refits import refit_without
from ..resampling.regrouping import _check_independent, factor_named
from ..runtime.calls import run
from ..runtime.compilation import jit
from ..support.arguments import one_of
from ..support.later import jax
from ..support.wide import WideFrame
from .correlated_rows import Pull, pulls
from .residuals import leverage_arrays

METHODS = ("exact", "onestep")
LOST = 1e-9  # share of a direction of X that must be left for it to be estimated

_deletion_gradients, _case_pull = jit(deletion_gradients), jit(case_pull)


class Deleted(NamedTuple):
    """Estimates without each of r sets of rows, on the user's scale."""

    beta: np.ndarray
    "(r, p)"
    vcov: np.ndarray
    "(r, p, p)"
    theta: np.ndarray
    "(r, d)"
    sigma: np.ndarray
    "(r,)"


def influence(fit: FittedModel, level: str | None = None, method: str = "exact") -> pd.DataFrame:
    """What deleting each row, or each level of a grouping factor, does to the fit.

    level: None for the rows used, or the name of a factor (or of the subjects whose residuals
    covary). method: "exact" refits without the rows, all deletions as one batch. "onestep" has no
    refits: exact deletion for theta and sigma held, and one Newton step of these (for levels, to
    first order in how much of the group is deleted); levels must not share random effects with each
    other. Good where single deletions move theta little. Where residuals covary it is for levels
    only.

    Columns, with (i) for a fit without the rows and p coefficients (as HLMdiag's):

    - `cooksd`: (beta - beta(i))' Cov(beta)^-1 (beta - beta(i)) / p;
    - `mdffits`: the same with Cov(beta(i));
    - `covtrace`: |tr(Cov(beta)^-1 Cov(beta(i))) - p|; `covratio`: det Cov(beta(i)) / det Cov(beta);
    - `dfbetas.x`: (beta_x - beta_x(i)) / SE(beta_x(i)), as Belsley, Kuh & Welsch (1980); lme4 has
      the other sign;
    - `rvc.var_x|g`, `rvc.cov_y.x|g`, `rvc.sigma2`: relative change of (co)variances, component(i) /
      component - 1, and of the parameters of `residual=` and `dispersion=`;
    - `singular`: whether that fit is (exact only); `status`: how it ended, or why there is none.

    Where the rows left do not determine the model (too few levels, a coefficient lost) numbers are
    NaN; `attrs["failed"]` counts them. A fit by the iterative core has no leverages and deletions.
    Generalised models are refitted one after the other from the estimates of the fit; there is no
    `rvc.sigma2`, and the numbers of the family have an `rvc` each.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.influence("Subject")[["cooksd", "covratio"]].nlargest(3, "cooksd").round(2)
             cooksd  covratio
    Subject
    S309       0.15      0.89
    S335       0.13      0.94
    S337       0.13      0.95
    """
    one_of("method", method, METHODS)
    fit.model.engine.require("deletion")
    design = fit.design
    by = None if level is None else factor_named(design, level)
    index = design.index if by is None else by.levels.rename(by.name)
    if isinstance(fit, FittedGeneralizedModel):
        if method != "exact":
            raise ValueError("method='onestep' is for linear mixed models: use method='exact'")
        found = _one_by_one(fit, by)
    else:
        found = _exact(fit, by) if method == "exact" else _one_step(fit, by)
    table = _measures(fit, *found)
    table.attrs["failed"] = int(table["cooksd"].isna().sum())
    return table.set_index(index)


def _sum_by(group: np.ndarray, count: int, values: np.ndarray) -> np.ndarray:
    """Sums (count, ...) of the rows of values (n, ...) that share a code."""
    found = np.zeros((count, *values.shape[1:]))
    np.add.at(found, group, values)
    return found


def _exact(fit: FittedModel, by: Factor | None) -> tuple[Deleted, dict[str, np.ndarray]]:
    """Refits, missing where they cannot be made; how they ended, and whether they are singular."""
    design, n = fit.design, fit.nobs
    order, counts = (
        (np.arange(n), np.ones(n, int))
        if by is None
        else (np.argsort(by.codes), np.bincount(by.codes))
    )
    refits = refit_without(design, np.split(order, np.cumsum(counts)[:-1]), fit.method)
    e, places = refits.estimate, refits.places
    status = np.full(len(counts), "", object)
    status[places] = np.where(e.converged, "converged", np.array(STATUS)[e.status])
    for place, reason in refits.failures:
        status[place] = reason
    singular = np.zeros(len(counts), bool)
    singular[places] = refits.singular
    found = Deleted(*(_put(len(counts), places, a) for a in (e.beta, e.vcov, e.theta, e.sigma)))
    return found, dict(singular=singular, status=status)


def _one_by_one(
    fit: FittedGeneralizedModel, by: Factor | None
) -> tuple[Deleted, dict[str, np.ndarray]]:
    """Refits of a generalised model, missing where they cannot be made or outcomes are separated;
    how they ended, whether they are singular, and the family's numbers.
    """
    design, n = fit.design, fit.nobs
    codes, count = (np.arange(n), n) if by is None else (by.codes, len(by.levels))
    p, names = len(design.columns), family_names(design)
    own = natural_gamma(design, fit.estimate.gamma)
    shapes = (p,), (p, p), (len(fit.theta),), (len(names),)
    beta, vcov, theta, numbers = (np.full((count, *shape), np.nan) for shape in shapes)
    status, singular = np.full(count, "", object), np.zeros(count, bool)
    for i in range(count):
        used = codes != i
        status[i] = unfit(design, used) or ""
        if status[i]:
            continue
        less = fit_without(fit.model, used, fit.theta)
        status[i], singular[i] = ending(less), less.is_singular
        if less.separation is None:
            beta[i], vcov[i], theta[i] = less.estimate.beta, less.beta_covariance, less.theta
            numbers[i] = natural_gamma(design, less.estimate.gamma)
    change = {f"rvc.{name}": numbers[:, j] / own[j] - 1.0 for j, name in enumerate(names)}
    found = Deleted(beta, vcov, theta, np.ones(count))
    return found, change | dict(singular=singular, status=status)


def _put(count: int, places: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values at their places, NaN elsewhere."""
    found = np.full((count, *values.shape[1:]), np.nan)
    found[places] = values
    return found


def _by_row(fit: FittedModel, compiled: Callable[..., Any]) -> Any:
    """`deletion_gradients` or `case_pull` of the rows used."""
    plan, y, X, Z, w, offset, K = padded_model(fit.design, bucket)
    found = run(compiled, _x(fit), plan, y - offset, X, Z, w, K, fit.method == "REML")
    return jax.tree.map(lambda a: a[: fit.nobs], found)


def group_pulls(fit: FittedModel, by: Factor) -> Pull:
    """What the count of each group does to the gradient and to beta; groups share no random effect
    or residual.
    """
    if fit.design.residual is not None:
        return pulls(fit, by)
    of_rows = _by_row(fit, _case_pull)
    return Pull(*(_sum_by(by.codes, len(by.levels), a) for a in of_rows))


def _x(fit: FittedModel) -> np.ndarray:
    return np.append(fit.estimate.t, np.log(fit.sigma))


def _one_step(fit: FittedModel, by: Factor | None) -> tuple[Deleted, dict[str, np.ndarray]]:
    """Exact deletion with theta and sigma held, then a step of these; missing where a
    coefficient is lost.
    """
    gradient, dbeta, covariances = _without_rows(fit) if by is None else _without_groups(fit, by)
    dx = -0.5 * gradient @ fit.curvature.W  # a Newton step: W is twice the inverse Hessian
    x, beta = _x(fit) + dx, fit.estimate.beta + dbeta + dx[:, :-1] @ estimates_by_t(fit)[0].T
    covariances = covariances + np.einsum("rx,xpq->rpq", dx, fit.curvature.dvcov)
    theta = run(_user_thetas, x[:, :-1], fit.model.moments)
    lost = np.isnan(beta).any(1)
    status = np.where(
        lost, "the fixed effects are rank deficient in the rows that are left", "one step"
    )
    return Deleted(beta, covariances, theta, np.where(lost, np.nan, np.exp(x[:, -1]))), dict(
        status=status
    )


def _without_rows(fit: FittedModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradient of the deviance (n, d + 1), change of beta (n, p) and its covariance (n, p, p), x
    held: rank one.
    """
    if fit.design.residual is not None:
        raise ValueError(
            "one step without single rows is for rows whose residuals are independent and of one "
            "variance; method='exact' (augment(influence='exact')) refits without each, and levels "
            "may be left out by 'onestep'"
        )
    w, hats = fit.design.w, leverage_arrays(fit)
    left = 1.0 - hats.overall
    left = np.where(1.0 - hats.fixed > LOST, left, np.nan)
    dbeta = -hats.VXC * (fit.resid.to_numpy() / left)[:, None]
    spread = fit.scale * hats.VXC / (w * left)[:, None]
    covariances = fit.estimate.vcov + spread[:, :, None] * hats.VXC[:, None, :]
    return _by_row(fit, _deletion_gradients), dbeta, covariances


def _without_groups(fit: FittedModel, by: Factor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradient, change of beta and its covariance without each group, x held.

    The gradient is to first order: minus its derivative by how often the group counts.
    """
    _check_independent(fit.design, by, "method='onestep'")
    pull, X, VXC = group_pulls(fit, by), fit.design.X, leverage_arrays(fit).VXC
    gradient, dbeta = -pull.gradient, -pull.beta
    shares = _sum_by(by.codes, len(by.levels), X[:, :, None] * VXC[:, None, :])
    kept = np.eye(X.shape[1]) - shares  # of X'V^-1 X, times its inverse
    kept[np.linalg.eigvals(kept).real.min(1, initial=1.0) < LOST] = np.nan
    dbeta = np.linalg.solve(kept.mT, dbeta[:, :, None])[:, :, 0]
    return gradient, dbeta, fit.estimate.vcov @ np.linalg.inv(kept)


@jit
def _user_thetas(t, m):
    return jax.vmap(lambda t: to_user(t, m.layout, m.A))(t)


@np.errstate(divide="ignore", invalid="ignore")  # deletions that leave no model are NaN
def _measures(fit: FittedModel, deleted: Deleted, outcome: dict[str, np.ndarray]) -> pd.DataFrame:
    design, e, vcov = fit.design, fit.estimate, fit.beta_covariance
    se = np.sqrt(np.diag(vcov))
    without = np.sqrt(np.einsum("rpp->rp", deleted.vcov))
    change = (e.beta - deleted.beta) / se
    R, R_deleted = vcov / np.outer(se, se), deleted.vcov / np.outer(se, se)
    ratio, p = np.linalg.solve(R, R_deleted), max(len(se), 1)
    weighed = np.linalg.solve(R, change.T).T
    weighed_deleted = np.linalg.solve(R_deleted, change[:, :, None])[:, :, 0]
    table = dict(
        cooksd=np.einsum("rp,rp->r", change, weighed) / p,
        mdffits=np.einsum("rp,rp->r", change, weighed_deleted) / p,
        covtrace=np.abs(np.trace(ratio, axis1=1, axis2=2) - len(se)),
        covratio=np.linalg.det(ratio),
    )
    table |= {
        f"dfbetas.{name}": change[:, j] * se[j] / without[:, j]
        for j, name in enumerate(design.columns)
    }
    is_linear = design.observed is None
    scale = fit.sigma if is_linear else 1.0
    before = _components(design, e.theta[None], np.array([scale]))
    after = _components(design, deleted.theta, deleted.sigma)
    names = [name for name in before if is_linear or name != "sigma2"]
    table |= {f"rvc.{name}": after[name] / before[name] - 1.0 for name in names}
    return WideFrame(table | outcome)


def _components(design: Design, theta: np.ndarray, sigma: np.ndarray) -> dict[str, np.ndarray]:
    """Variances, covariances and numbers of the residual covariance (r,) by name, of theta (r, d)
    and sigma (r,).
    """
    found = {}
    for f, Lam in zip(design.factors, relative_factors(design.factors, theta), strict=True):
        S = sigma[:, None, None] ** 2 * Lam @ Lam.mT
        for i, j in component_pairs(f.sizes):
            name = (
                f"var_{f.columns[i]}|{f.name}"
                if i == j
                else f"cov_{f.columns[j]}.{f.columns[i]}|{f.name}"
            )
            found[name] = S[:, i, j]
    if design.residual is not None:
        values = np.stack([residual_values(design, *at) for at in zip(theta, sigma, strict=True)])
        found |= dict(zip(residual_names(design.residual), values.T, strict=True))
    return found | {"sigma2": sigma**2}
