"""What rows and whole groups do to a fit: deletions, exact and to first order, and the infinitesimal jackknife."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import narwhals.stable.v1 as nw
import numpy as np
import pandas as pd

from . import compute, optimize, structure
from .batch import Lanes, alone, fit_lanes
from .covariance import to_user
from .crossproducts import assemble, condition, respond
from .design import Design
from .errors import one_of
from .grouping import Factor, is_nested, relative_factors
from .prediction import estimates_by_t
from .resampling import independent_groups
from .residuals import KINDS, LARGEST, leverage, leverage_arrays, residuals
from .scanning import is_scanned
from .sensitivity import case_pull, deletion_gradients
from .sources import chunk_size, filled, padded_model
from .variances import component_names, component_pairs

if TYPE_CHECKING:
    from .result import Fit

METHODS = ("exact", "onestep")
ROW_LANES = 2**21  # rows times deletions in one batch
LOST = 1e-9  # share of a direction of X that must be left for it to be estimated

_deletion_gradients, _case_pull = jax.jit(deletion_gradients), jax.jit(case_pull)
_condition = jax.jit(condition)


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
    outcome: dict[str, np.ndarray]
    "`status` (r,), and of refits whether they are `singular`."


def influence(fit: Fit, level: str | None = None, method: str = "exact") -> pd.DataFrame:
    """See `Fit.influence`."""
    one_of("method", method, METHODS)
    design = fit.model.design
    by = None if level is None else factor_named(design, level)
    group, index = (np.arange(fit.nobs), design.index) if by is None else (by.codes, by.levels)
    reasons = _unfit(design, group, len(index))
    sound = np.flatnonzero(reasons == "")
    if not len(sound):
        raise ValueError(f"no deletion leaves a model: {reasons[0]}")
    deleted = _exact(fit, group, sound) if method == "exact" else _one_step(fit, by, sound)
    table = _measures(fit, deleted).set_index(sound).reindex(range(len(index)))
    if method == "exact":
        table["singular"] = table["singular"].eq(True)
    table["status"] = np.where(reasons == "", table["status"], reasons)
    table.attrs["failed"] = int(table["cooksd"].isna().sum())
    return table.set_index(index)


def factor_named(design: Design, name: str) -> Factor:
    """A grouping factor by its name."""
    for f in design.factors:
        if f.name == name:
            return f
    raise ValueError(
        f"there is no grouping factor {name!r}; there are {', '.join(repr(f.name) for f in design.factors)}"
    )


def _unfit(design: Design, group: np.ndarray, count: int) -> np.ndarray:
    """Why the rows without a group do not determine the model, "" where they do: (count,), by group codes (n,)."""
    reasons = np.full(count, "", object)
    left = len(group) - np.bincount(group, minlength=count)
    for f in design.factors:
        pairs, rows = np.unique(group.astype(np.int64) * len(f.levels) + f.codes, return_counts=True)
        lost = pairs[rows == np.bincount(f.codes)[pairs % len(f.levels)]] // len(f.levels)
        levels = len(f.levels) - np.bincount(lost, minlength=count)
        for i in np.flatnonzero((levels < 2) | ((levels * max(f.sizes) >= left) & (not f.is_structured))):
            reasons[i] = f"{f.name} has {levels[i]} levels for the {left[i]} rows left"
    X = design.X if design.weights is None else np.sqrt(design.weights)[:, None] * design.X
    Q = np.linalg.qr(X)[0]
    kept = np.eye(Q.shape[1]) - _sum_by(group, count, Q[:, :, None] * Q[:, None, :])
    reasons[(np.linalg.eigvalsh(kept) < LOST).any(1)] = "the fixed effects are rank deficient in the rows left"
    reasons[left <= X.shape[1]] = "too few rows are left"
    return reasons


def _sum_by(group: np.ndarray, count: int, values: np.ndarray) -> np.ndarray:
    """Sums (count, ...) of the rows of values (n, ...) that share a code."""
    found = np.zeros((count, *values.shape[1:]))
    np.add.at(found, group, values)
    return found


# Exact: refits -------------------------------------------------------------------------------------------------------


@alone
@jax.jit
def _without(plan, basis, y, weights):
    """Moments of a conditioned design under each row of weights (r, n)."""

    def lane(w):
        part = basis._replace(w=w, n=(w > 0).sum().astype(w.dtype))
        return assemble(plan, part, jax.tree.map(lambda a: a[0], respond(plan, part, y[:, None])))

    return jax.vmap(lane)(weights)


def _exact(fit: Fit, group: np.ndarray, places: np.ndarray) -> Deleted:
    """Refits without each of the groups of some places: weights of zero on one design, started from the fit."""
    plan, y, X, Z, w, offset, K = padded_model(fit.model.design, structure.bucket)
    group = np.append(group, np.full(len(y) - len(group), -1))
    share = structure.power_of_two(-(-len(places) // (os.cpu_count() or 1)))
    most = min(chunk_size(plan.layout, X.shape[1]), structure.power_of_two(ROW_LANES // len(y)))
    size = max(32, min(share, most))

    def refits(part: np.ndarray):
        with compute.float64():
            weights = np.where(group == filled(part, size)[:, None], 0.0, w)
            lanes = Lanes(None, _without(plan, basis, y - offset, weights))
            e = fit_lanes(lanes, fit.method == "REML", np.broadcast_to(fit.estimate.t, (size, len(fit.theta))))
            status = np.where(e.converged, "converged", np.array(optimize.STATUS)[e.status])
            outcome = dict(singular=np.concatenate(e.vanishing, 1).any(1), status=status)
            found = Deleted(e.beta, e.vcov, e.theta, e.sigma, outcome)
            return jax.tree.map(lambda a: a[: len(part)], found)

    with compute.session(), ThreadPoolExecutor(os.cpu_count()) as pool:
        basis = _condition(plan, X, Z, w, K)
        parts = [places[a : a + size] for a in range(0, len(places), size)]
        return jax.tree.map(lambda *a: np.concatenate(a), *pool.map(refits, parts))


# To first order ------------------------------------------------------------------------------------------------------


def _by_row(fit: Fit, compiled: Callable[..., Any]) -> Any:
    """`deletion_gradients` or `case_pull` of the rows used."""
    plan, y, X, Z, w, offset, K = padded_model(fit.model.design, structure.bucket)
    found = compute.run(compiled, _x(fit), plan, y - offset, X, Z, w, K, fit.method == "REML")
    return jax.tree.map(lambda a: a[: fit.nobs], found)


def _x(fit: Fit) -> np.ndarray:
    return np.append(fit.estimate.t, np.log(fit.sigma))


def _one_step(fit: Fit, by: Factor | None, places: np.ndarray) -> Deleted:
    """Exact deletion with theta and sigma held, then a step of these."""
    gradient, dbeta, covariances = _without_rows(fit) if by is None else _without_groups(fit, by, places)
    dx = -0.5 * gradient @ fit.curvature.W  # a Newton step: W is twice the inverse Hessian
    x, beta = _x(fit) + dx, fit.estimate.beta + dbeta + dx[:, :-1] @ estimates_by_t(fit)[0].T
    covariances = covariances + np.einsum("rx,xpq->rpq", dx, fit.curvature.dvcov)
    theta = compute.run(_user_thetas, x[:, :-1], fit.model.moments)
    found = Deleted(beta, covariances, theta, np.exp(x[:, -1]), dict(status=np.full(len(x), "one step")))
    return jax.tree.map(lambda a: a[places], found)


def _without_rows(fit: Fit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradient of the deviance (n, d + 1), change of beta (n, p) and its covariance (n, p, p), x held: rank one."""
    weights, hats = fit.model.design.weights, leverage_arrays(fit)
    w, left = np.ones(fit.nobs) if weights is None else weights, 1.0 - hats.overall
    dbeta = -hats.VXC * (fit.resid.to_numpy() / left)[:, None]
    spread = fit.scale * hats.VXC / (w * left)[:, None]
    covariances = fit.estimate.vcov + spread[:, :, None] * hats.VXC[:, None, :]
    return _by_row(fit, _deletion_gradients), dbeta, covariances


def _without_groups(fit: Fit, by: Factor, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same without groups, the gradient to first order: minus its derivative by how often the group counts."""
    _check_independent(fit.model.design, by, "method='onestep'")
    pull, X, VXC = _by_row(fit, _case_pull), fit.model.design.X, leverage_arrays(fit).VXC
    rows = -pull.gradient, -pull.beta, X[:, :, None] * VXC[:, None, :]
    gradient, dbeta, shares = (_sum_by(by.codes, len(by.levels), a) for a in rows)
    kept = np.full_like(shares, np.nan)
    kept[places] = np.eye(X.shape[1]) - shares[places]  # of X'V^-1 X, times its inverse
    dbeta = np.linalg.solve(kept.mT, dbeta[:, :, None])[:, :, 0]
    return gradient, dbeta, fit.estimate.vcov @ np.linalg.inv(kept)


@jax.jit
def _user_thetas(t, m):
    return jax.vmap(lambda t: to_user(t, m.layout, m.A))(t)


def _check_independent(design: Design, by: Factor, what: str) -> None:
    """Refuse a factor whose levels share random effects."""
    if tied := [f.name for f in design.factors if f.across is not None]:
        raise ValueError(f"{what} needs groups that are independent of each other, but the levels of {tied[0]} covary")
    if crossed := [f.name for f in design.factors if not is_nested(f, by)]:
        raise ValueError(
            f"{what} needs groups that are independent of each other, but rows of different levels of {by.name!r} "
            f"share random effects of {crossed[0]!r}"
        )


# Measures ------------------------------------------------------------------------------------------------------------


def _measures(fit: Fit, deleted: Deleted) -> pd.DataFrame:
    design, e = fit.model.design, fit.estimate
    se, without = np.sqrt(np.diag(e.vcov)), np.sqrt(np.einsum("rpp->rp", deleted.vcov))
    change = (e.beta - deleted.beta) / se
    R, R_deleted = e.vcov / np.outer(se, se), deleted.vcov / np.outer(se, se)
    ratio, p = np.linalg.solve(R, R_deleted), max(len(se), 1)
    table = dict(
        cooksd=np.einsum("rp,rp->r", change, np.linalg.solve(R, change.T).T) / p,
        mdffits=np.einsum("rp,rp->r", change, np.linalg.solve(R_deleted, change[:, :, None])[:, :, 0]) / p,
        covtrace=np.abs(np.trace(ratio, axis1=1, axis2=2) - len(se)),
        covratio=np.linalg.det(ratio),
    )
    table |= {f"dfbetas.{name}": change[:, j] * se[j] / without[:, j] for j, name in enumerate(design.columns)}
    before, after = (_components(design, *at) for at in ((e.theta[None], np.array([fit.sigma])), deleted[2:4]))
    with np.errstate(divide="ignore", invalid="ignore"):
        table |= {f"rvc.{name}": after[name] / before[name] - 1.0 for name in before}
    return pd.DataFrame(table | deleted.outcome)


def _components(design: Design, theta: np.ndarray, sigma: np.ndarray) -> dict[str, np.ndarray]:
    """Variances and covariances (r,) by name, of theta (r, d) and sigma (r,)."""
    found = {}
    for f, Lam in zip(design.factors, relative_factors(design.factors, theta), strict=True):
        S = sigma[:, None, None] ** 2 * Lam @ Lam.mT
        for i, j in component_pairs(f.sizes):
            name = f"var_{f.columns[i]}|{f.name}" if i == j else f"cov_{f.columns[j]}.{f.columns[i]}|{f.name}"
            found[name] = S[:, i, j]
    return found | {"sigma2": sigma**2}


# The infinitesimal jackknife -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Jackknife:
    """Derivatives of all estimates by the weights of independent groups; made by `Fit.jackknife`."""

    by: str
    effects: pd.DataFrame = field(repr=False)
    "Groups x parameters: derivatives of the estimates by how many times the group counts."

    @property
    def cov(self) -> pd.DataFrame:
        """Covariance matrix of the estimates, sum_g effect_g effect_g': robust to misspecified covariances."""
        return self.effects.T @ self.effects

    @property
    def bse(self) -> pd.Series:
        """Standard errors: roots of the diagonal of `cov`."""
        return np.sqrt((self.effects**2).sum())


def jackknife(fit: Fit, by: str | None = None) -> Jackknife:
    """See `Fit.jackknife`."""
    design = fit.model.design
    factor = independent_groups(design, "the jackknife") if by is None else factor_named(design, by)
    _check_independent(design, factor, "the jackknife")
    pull = _by_row(fit, _case_pull)
    gradient, beta = (_sum_by(factor.codes, len(factor.levels), a) for a in (pull.gradient, pull.beta))
    dx = -0.5 * gradient @ fit.curvature.W
    beta = beta + dx[:, :-1] @ estimates_by_t(fit)[0].T
    effects = np.hstack([beta, dx @ fit.uncertainty.slopes_of_components().T])
    names = [*design.columns, *component_names(design.factors)]
    return Jackknife(factor.name, pd.DataFrame(effects, factor.levels, names))


# All of it beside the data -------------------------------------------------------------------------------------------


def rows_used(fit: Fit) -> pd.DataFrame:
    """The rows of the user's data that were used, as pandas."""
    if is_scanned(fit.model.data):
        raise ValueError("the data were read from files, and their rows are not kept: there is no frame to add to")
    return nw.from_native(fit.model.data, eager_only=True).to_pandas().iloc[fit.model.design.rows]


def augment(fit: Fit, influence_method: str | None = "onestep") -> pd.DataFrame:
    """See `Fit.augment`."""
    frame = rows_used(fit)
    columns: dict[str, Any] = {".fitted": fit.fittedvalues, ".population": fit.predict(include_re=False)}
    kinds = KINDS if fit.nobs <= LARGEST else KINDS[:-1]
    columns |= {f".resid_{kind}": residuals(fit, kind) for kind in kinds}
    columns |= {f".leverage_{name}": values for name, values in leverage(fit).items()}
    if influence_method is not None:
        found = influence(fit, None, influence_method)
        columns |= {f".{name}": values for name, values in found.items()}
    return frame.assign(**{name: np.asarray(values) for name, values in columns.items()})
