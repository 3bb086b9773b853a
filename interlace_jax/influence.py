"""What rows and whole groups do to a fit: deletions, exact and to first order, and the infinitesimal jackknife."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import narwhals.stable.v1 as nw
import numpy as np
import pandas as pd

from . import compute, optimize, structure
from .covariance import to_user
from .deletion import refit_without
from .design import Design
from .errors import one_of
from .grouping import Factor, is_nested, relative_factors
from .prediction import estimates_by_t
from .resampling import independent_groups
from .residuals import KINDS, LARGEST, leverage, leverage_arrays, residuals
from .scanning import refuse_scanned
from .sensitivity import case_pull, deletion_gradients
from .sources import padded_model
from .variances import component_names, component_pairs

if TYPE_CHECKING:
    from .result import Fit

METHODS = ("exact", "onestep")
LOST = 1e-9  # share of a direction of X that must be left for it to be estimated

_deletion_gradients, _case_pull = jax.jit(deletion_gradients), jax.jit(case_pull)


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


def influence(fit: Fit, level: str | None = None, method: str = "exact") -> pd.DataFrame:
    """See `Fit.influence`."""
    one_of("method", method, METHODS)
    fit.model.core.require_matrix("influence()")
    design = fit.model.design
    by = None if level is None else factor_named(design, level)
    index = design.index if by is None else by.levels.rename(by.name)
    table = _measures(fit, *(_exact(fit, by) if method == "exact" else _one_step(fit, by)))
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


def _sum_by(group: np.ndarray, count: int, values: np.ndarray) -> np.ndarray:
    """Sums (count, ...) of the rows of values (n, ...) that share a code."""
    found = np.zeros((count, *values.shape[1:]))
    np.add.at(found, group, values)
    return found


# Exact: refits -------------------------------------------------------------------------------------------------------


def _exact(fit: Fit, by: Factor | None) -> tuple[Deleted, dict[str, np.ndarray]]:
    """Refits, missing where they cannot be made; how they ended, and whether they are singular."""
    design, n = fit.model.design, fit.nobs
    order, counts = (np.arange(n), np.ones(n, int)) if by is None else (np.argsort(by.codes), np.bincount(by.codes))
    refits = refit_without(design, np.split(order, np.cumsum(counts)[:-1]), fit.method)
    e, places = refits.estimate, refits.places
    status = np.full(len(counts), "", object)
    status[places] = np.where(e.converged, "converged", np.array(optimize.STATUS)[e.status])
    for place, reason in refits.failures:
        status[place] = reason
    singular = np.zeros(len(counts), bool)
    singular[places] = refits.singular
    found = Deleted(*(_put(len(counts), places, a) for a in (e.beta, e.vcov, e.theta, e.sigma)))
    return found, dict(singular=singular, status=status)


def _put(count: int, places: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values at their places, NaN elsewhere."""
    found = np.full((count, *values.shape[1:]), np.nan)
    found[places] = values
    return found


# To first order ------------------------------------------------------------------------------------------------------


def _by_row(fit: Fit, compiled: Callable[..., Any]) -> Any:
    """`deletion_gradients` or `case_pull` of the rows used."""
    plan, y, X, Z, w, offset, K = padded_model(fit.model.design, structure.bucket)
    found = compute.run(compiled, _x(fit), plan, y - offset, X, Z, w, K, fit.method == "REML")
    return jax.tree.map(lambda a: a[: fit.nobs], found)


def _x(fit: Fit) -> np.ndarray:
    return np.append(fit.estimate.t, np.log(fit.sigma))


def _one_step(fit: Fit, by: Factor | None) -> tuple[Deleted, dict[str, np.ndarray]]:
    """Exact deletion with theta and sigma held, then a step of these; missing where a coefficient is lost."""
    gradient, dbeta, covariances = _without_rows(fit) if by is None else _without_groups(fit, by)
    dx = -0.5 * gradient @ fit.curvature.W  # a Newton step: W is twice the inverse Hessian
    x, beta = _x(fit) + dx, fit.estimate.beta + dbeta + dx[:, :-1] @ estimates_by_t(fit)[0].T
    covariances = covariances + np.einsum("rx,xpq->rpq", dx, fit.curvature.dvcov)
    theta = compute.run(_user_thetas, x[:, :-1], fit.model.moments)
    lost = np.isnan(beta).any(1)
    status = np.where(lost, "the fixed effects are rank deficient in the rows that are left", "one step")
    return Deleted(beta, covariances, theta, np.where(lost, np.nan, np.exp(x[:, -1]))), dict(status=status)


def _without_rows(fit: Fit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradient of the deviance (n, d + 1), change of beta (n, p) and its covariance (n, p, p), x held: rank one."""
    weights, hats = fit.model.design.weights, leverage_arrays(fit)
    w, left = np.ones(fit.nobs) if weights is None else weights, 1.0 - hats.overall
    left = np.where(1.0 - hats.fixed > LOST, left, np.nan)
    dbeta = -hats.VXC * (fit.resid.to_numpy() / left)[:, None]
    spread = fit.scale * hats.VXC / (w * left)[:, None]
    covariances = fit.estimate.vcov + spread[:, :, None] * hats.VXC[:, None, :]
    return _by_row(fit, _deletion_gradients), dbeta, covariances


def _without_groups(fit: Fit, by: Factor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same without groups, the gradient to first order: minus its derivative by how often the group counts."""
    _check_independent(fit.model.design, by, "method='onestep'")
    pull, X, VXC = _by_row(fit, _case_pull), fit.model.design.X, leverage_arrays(fit).VXC
    rows = -pull.gradient, -pull.beta, X[:, :, None] * VXC[:, None, :]
    gradient, dbeta, shares = (_sum_by(by.codes, len(by.levels), a) for a in rows)
    kept = np.eye(X.shape[1]) - shares  # of X'V^-1 X, times its inverse
    kept[np.linalg.eigvals(kept).real.min(1, initial=1.0) < LOST] = np.nan
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


@np.errstate(divide="ignore", invalid="ignore")  # deletions that leave no model are NaN
def _measures(fit: Fit, deleted: Deleted, outcome: dict[str, np.ndarray]) -> pd.DataFrame:
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
    before, after = (_components(design, *at) for at in ((e.theta[None], np.array([fit.sigma])), deleted[2:]))
    table |= {f"rvc.{name}": after[name] / before[name] - 1.0 for name in before}
    return pd.DataFrame(table | outcome)


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
    fit.model.core.require_matrix("jackknife()")
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
    refuse_scanned(fit.model.data, "there is no frame to add to")
    return nw.from_native(fit.model.data, eager_only=True).to_pandas().iloc[fit.model.design.rows]


def augment(fit: Fit, influence_method: str | None = "onestep") -> pd.DataFrame:
    """See `Fit.augment`."""
    frame = rows_used(fit)
    has_leverages = fit.model.core.name == "dense"
    if influence_method is not None:
        fit.model.core.require_matrix("augment() with influence (without: influence=None)")
    left_out = {"normalized": fit.nobs > LARGEST, "standardized": not has_leverages}
    columns: dict[str, Any] = {".fitted": fit.fittedvalues, ".population": fit.predict(include_re=False)}
    columns |= {f".resid_{kind}": residuals(fit, kind) for kind in KINDS if not left_out.get(kind)}
    if has_leverages:
        columns |= {f".leverage_{name}": values for name, values in leverage(fit).items()}
    if influence_method is not None:
        found = influence(fit, None, influence_method)
        columns |= {f".{name}": values for name, values in found.items()}
    return frame.assign(**{name: np.asarray(values) for name, values in columns.items()})
