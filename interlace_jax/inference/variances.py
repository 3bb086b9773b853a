"""Uncertainty of variance parameters and of whatever is made of them: SDs, correlations, ICC, R
squared, any function.

Intervals are Wald intervals on a scale without bounds: log for standard deviations, Fisher's z for
correlations, logit for shares. Where a variance is estimated at 0 the likelihood has no quadratic
there: SE and limits are NaN.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..design.design import Design
from ..models.fitted import FittedModel
from ..models.parameters import (
    component_names,
    component_pairs,
    level_roots,
    natural_names,
    natural_values,
    varcorr_table,
)
from ..models.residual import residual_names, residual_scales
from ..numerics.covariance.block import Block
from ..numerics.covariance.parameters import natural, shape_places
from ..numerics.covariance.residual import ResidualCovariance, reported
from ..numerics.crossproducts.moments import Moments
from ..numerics.estimation.estimate import Estimate
from ..numerics.likelihood.coordinates import user_blocks
from ..numerics.uncertainty.delta import Parameters, propagate, slopes
from ..runtime.calls import run
from ..runtime.compilation import jit
from ..support.arguments import check_level
from ..support.later import jax, jnp, special
from .coefficients import coefficients
from .tails import normal_quantile

_propagate = functools.partial(jit, static_argnums=(0, 1))(propagate)
_slopes = functools.partial(jit, static_argnums=(0, 1))(slopes)

Names = tuple[tuple[str, ...], tuple[str, ...]]  # of columns, and of grouping factors
UNNAMED: Names = (), ()
ROUNDING = 1e-12  # standard error of a correlation that is 1 or -1

SCALES: dict[str, tuple[Callable, Callable, Callable]] = {
    "identity": (lambda v: v, np.ones_like, lambda z: z),
    "log": (np.log, lambda v: 1.0 / v, np.exp),
    "logit": (
        lambda v: special.logit(v),
        lambda v: 1.0 / (v * (1.0 - v)),
        lambda v: special.expit(v),
    ),
    "fisher": (np.arctanh, lambda v: 1.0 / (1.0 - v**2), np.tanh),
}
"By name: the scale of the interval, its derivative, and the way back."


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Estimates and their covariance: what functions of all parameters need."""

    design: Design
    moments: Moments
    estimate: Estimate
    vcov: np.ndarray
    "(p, p) of beta"
    W: np.ndarray
    "(d + 1, d + 1) of (t, log sigma)"

    def propagate(
        self, fn: Callable, *data: Any, names: Names = UNNAMED
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values (r,) of fn(parameters, *data) and their covariance (r, r).

        names: of columns and grouping factors, for a function that asks by name; programs of one
        that does not serve all models of a structure.
        """
        m, e = self.moments, self.estimate
        given = e.beta, e.sigma, e.t, self.vcov, self.W, m.layout, m.A, data
        return run(_propagate, fn, names, *given)

    @property
    def names(self) -> Names:
        """What a function of the parameters may ask for."""
        return self.design.columns, tuple(f.name for f in self.design.factors)

    def slopes_of_components(self) -> np.ndarray:
        """Derivatives (r, d + 1) by (t, log sigma) of all SDs, correlations and sigma, then of the
        numbers of the residual covariance; 0 at the boundary.
        """
        by_x = self._slopes(_components)
        of_effects = by_x[len(by_x) // 2 :]
        given = self.design.residual
        if given is None:
            return of_effects
        by_x = self._slopes(_Residual(given.covariance), given.unit)
        return np.concatenate([of_effects, by_x[: len(by_x) // 2]])

    def _slopes(self, fn: Callable, *data: Any) -> np.ndarray:
        m, e = self.moments, self.estimate
        return run(_slopes, fn, UNNAMED, e.beta, e.sigma, e.t, m.layout, m.A, data)[2]


def uncertainty(fit: FittedModel) -> Uncertainty:
    """What functions of all parameters of a fit need: estimates and their covariance."""
    pieces = fit.design, fit.model.engine.products, fit.estimate
    return Uncertainty(*pieces, coefficients(fit).vcov, fit.curvature.W)


def intervals(
    estimate: np.ndarray, se: np.ndarray, level: float, scale: str = "identity"
) -> tuple[np.ndarray, np.ndarray]:
    """Wald limits computed on one of SCALES and taken back; NaN where the scale ends."""
    to, slope, back = SCALES[scale]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        centre, half = to(estimate), normal_quantile(0.5 + level / 2.0) * se * slope(estimate)
        lower, upper = back(centre - half), back(centre + half)
    sound = np.isfinite(centre) & np.isfinite(half)
    return np.where(sound, lower, np.nan), np.where(sound, upper, np.nan)


def delta(
    fit: FittedModel, fn: Callable[[Parameters], Any], level: float = 0.95, scale: str = "identity"
) -> pd.Series | pd.DataFrame:
    """Estimate, SE and Wald interval of any function of the parameters, by the delta method with
    JAX's derivatives.

    fn: takes `p` with `p.beta` (p,), `p.theta` (d,), `p.sigma`, `p["x"]` (a coefficient) and
    `p.covariance("g")` (k, k), and returns a number (the result is a Series) or a vector (a
    DataFrame); write it with `jax.numpy`.
    scale: where the interval is computed: "identity", "log", "logit" or "fisher". A variance
    estimated at 0 counts as known to be 0: the likelihood has no quadratic there.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.delta(lambda p: p["Days"] / p.sigma).round(3)
    estimate    0.409
    se          0.065
    lower       0.282
    upper       0.536
    dtype: float64
    """
    check_level(level)
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(map(repr, SCALES))}, not {scale!r}")
    if not callable(fn):
        raise TypeError(
            f"delta takes a function of the parameters, such as lambda p: p.sigma**2, not {fn!r}"
        )
    try:
        given = uncertainty(fit)
        values, cov = given.propagate(fn, names=given.names)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        raise TypeError(
            "delta differentiates its function: write it with jax.numpy in place of numpy"
        ) from None
    table = _table(values, cov, level, scale)
    return table.iloc[0].rename(None) if len(table) == 1 else table


def _table(values, cov, level, scale, index=None):
    se = np.sqrt(np.diag(cov))
    lower, upper = intervals(values, se, level, scale)
    return pd.DataFrame(dict(estimate=values, se=se, lower=lower, upper=upper), index=index)


def _components(p: Parameters):
    """Every row of `varcorr`, first as (co)variance, then as SD or correlation."""
    vcov, sdcor = [], []
    for S, block in zip(p.covariances, p.blocks, strict=True):
        S = p.sigma**2 * S
        for i, j in component_pairs(block.sizes):
            vcov.append(S[i, j])
            product = S[i, i] * S[j, j]
            inside = product > 0.0
            root = jnp.sqrt(jnp.where(inside, product, 1.0))
            ratio, otherwise = (jnp.sqrt(root), 0.0) if i == j else (S[i, j] / root, jnp.nan)
            sdcor.append(jnp.where(inside, ratio, otherwise))
    return jnp.stack([*vcov, p.sigma**2, *sdcor, p.sigma])


def components(fit: Uncertainty, level: float = 0.95) -> pd.DataFrame:
    """`estimate se lower upper` of every SD and correlation, and `vcov_se` of its (co)variance;
    see `Fit.varcorr`.
    """
    check_level(level)
    values, cov = fit.propagate(_components)
    r = len(values) // 2
    with np.errstate(invalid="ignore"):
        se = np.sqrt(np.diag(cov))
    se = np.where(se > 0.0, se, np.nan)  # a parameter at the boundary has no derivative
    correlation = np.array(
        [*(i != j for f in fit.design.factors for i, j in component_pairs(f.sizes)), False]
    )
    # nor has a correlation of 1, whose rounding may have one
    se[r:][correlation & (se[r:] < ROUNDING)] = np.nan
    log, fisher = (intervals(values[r:], se[r:], level, scale) for scale in ("log", "fisher"))
    lower, upper = (np.where(correlation, b, a) for a, b in zip(log, fisher, strict=True))
    columns = dict(estimate=values[r:], se=se[r:], lower=lower, upper=upper, vcov_se=se[:r])
    return pd.DataFrame(columns, index=component_names(fit.design.factors))


def structure(fit: FittedModel) -> pd.DataFrame:
    """Parameters of the covariance structures, `rho|g` or `length|g`: `estimate se lower upper`.

    Then those of the residuals: `sd VIS2`, `rho | visit within id`, `range`, `log sd age`. The 95%
    Wald interval is computed on the scale on which the parameter is free, log or that of Fisher's
    z.
    """
    of_effects = structure_table(uncertainty(fit))
    if fit.design.residual is None:
        return of_effects
    of_residuals = residual_table(uncertainty(fit))
    return pd.concat([of_effects, of_residuals]) if len(of_effects) else of_residuals


def varcorr(fit: FittedModel) -> pd.DataFrame:
    """Variances, covariances, SDs and correlations: `grp var1 var2 vcov sdcor`, as lme4's VarCorr
    data frame.

    Then their standard errors `vcov_se sdcor_se` and the 95% Wald interval `lower upper` of
    `sdcor`, computed on the log scale for SDs and on Fisher's z for correlations; NaN for what is
    at the boundary.
    """
    found = components(uncertainty(fit)).rename(columns={"se": "sdcor_se"})
    table = varcorr_table(fit.design.factors, fit.covariances, fit.scale)
    return table.assign(
        **{name: found[name].to_numpy() for name in ("vcov_se", "sdcor_se", "lower", "upper")}
    )


def structure_table(fit: Uncertainty, level: float = 0.95) -> pd.DataFrame:
    """Parameters of the covariance structures, `rho|g` or `length|g`: `estimate se lower upper`.

    The Wald interval is computed on the scale on which the parameter is free, log or that of
    Fisher's z.
    """
    check_level(level)
    factors, blocks = fit.design.factors, user_blocks(fit.moments.layout)
    names = [name for f in factors for name in natural_names(f)]
    if not names:
        return pd.DataFrame(columns=["estimate", "se", "lower", "upper"], dtype=float)
    values, cov = fit.propagate(_structure)
    r = len(names)
    se, half = (
        np.sqrt(np.diag(cov)[:r]),
        normal_quantile(0.5 + level / 2.0) * np.sqrt(np.diag(cov)[r:]),
    )
    # a parameter that has no meaning beside a variance of 0 has no variance either
    known = half > 0.0
    limits = []
    for step in (-half, half):
        moved = fit.estimate.theta.copy()
        moved[_places(blocks)] += step
        limits.append(np.where(known, natural_values(factors, moved), np.nan))
    columns = dict(
        estimate=values[:r], se=np.where(known, se, np.nan), lower=limits[0], upper=limits[1]
    )
    return pd.DataFrame(columns, index=names, dtype=float)


def residual_table(fit: Uncertainty, level: float = 0.95) -> pd.DataFrame:
    """Numbers of the residual covariance: `estimate se lower upper`; limits on the scale on
    which each is free.
    """
    given = fit.design.residual
    values, cov = fit.propagate(_Residual(given.covariance), given.unit)
    r = len(values) // 2
    se, half = (
        np.sqrt(np.diag(cov)[:r]),
        normal_quantile(0.5 + level / 2.0) * np.sqrt(np.diag(cov)[r:]),
    )
    backs = [SCALES[scale][2] for scale in residual_scales(given)]
    lower, upper = (
        [back(v) for back, v in zip(backs, values[r:] + h, strict=True)] for h in (-half, half)
    )
    return pd.DataFrame(
        dict(estimate=values[:r], se=se, lower=lower, upper=upper), index=residual_names(given)
    )


@dataclass(frozen=True)
class _Residual:
    """Function of the parameters: the numbers of the residual covariance, as they are reported
    and without bounds.
    """

    structure: ResidualCovariance

    def __call__(self, p: Parameters, unit):
        psi = p.theta[p.theta.shape[0] - self.structure.size :]
        return jnp.concatenate(reported(self.structure, psi, p.sigma, unit))


def _structure(p: Parameters):
    """The parameters of the covariance structures as they are reported, then as they are
    searched.
    """
    return jnp.concatenate([*natural(p.theta, p.blocks), p.theta[_places(p.blocks)]])


def _places(blocks: tuple[Block, ...]) -> np.ndarray:
    """Where theta has the free parameters of structures."""
    starts = np.cumsum([0, *(b.size for b in blocks[:-1])])
    return np.concatenate(
        [start + places for start, places in zip(starts, shape_places(blocks), strict=True)]
    )


def _shares(p: Parameters, X_cov, ZZ, residual):
    """Variance of the fixed part, mean variance of the random part (Johnson 2014) and of the
    residuals.
    """
    fixed = p.beta @ X_cov @ p.beta
    random = p.sigma**2 * sum(jnp.sum(S * zz) for S, zz in zip(p.covariances, ZZ, strict=True))
    if residual is None:
        return fixed, random, p.sigma**2
    structure, patterns = residual
    squares = jnp.exp(
        2.0 * structure.log_sds(p.theta[p.theta.shape[0] - structure.size :], patterns)
    )
    rows = jnp.where(patterns.seen, patterns.count[None], 0.0)
    return fixed, random, p.sigma**2 * jnp.sum(squares * rows) / jnp.sum(rows)


def _icc(p, X_cov, ZZ, residual):
    fixed, random, residual = _shares(p, X_cov, ZZ, residual)
    return jnp.stack([random / (random + residual), random / (fixed + random + residual)])


def _r2(p, X_cov, ZZ, residual):
    fixed, random, residual = _shares(p, X_cov, ZZ, residual)
    return jnp.stack([fixed, fixed + random]) / (fixed + random + residual)


def _second_moments(fit):
    """Covariance of X, and Z'Z / n of every factor, each row times the K_ii of its level."""
    design, ZZ = fit.design, []
    for f, L in zip(design.factors, level_roots(design.factors, fit.estimate.theta), strict=True):
        Z = f.Z if L is None else f.Z * np.sqrt(np.sum(L**2, 1))[f.codes, None]
        ZZ.append(Z.T @ Z / len(Z))
    given = design.residual
    residual = None if given is None else (given.covariance, given.rows.patterns)
    return np.atleast_2d(np.cov(design.X, rowvar=False)), ZZ, residual


def icc(fit: FittedModel, level: float = 0.95) -> pd.DataFrame:
    """Intraclass correlation, `adjusted` for the fixed effects and `unadjusted`, with intervals
    (logit scale).

    Share of the random effects' mean variance (over the rows, so that slopes count; Johnson 2014,
    Methods Ecol. Evol. 5) in the variance without and with that of the fixed part (Nakagawa et al.
    2017).

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.icc().round(2)
                estimate    se  lower  upper
    adjusted        0.72  0.07   0.56   0.84
    unadjusted      0.52  0.10   0.34   0.70
    """
    check_level(level)
    if not fit.design.factors:
        raise ValueError(
            "an intraclass correlation is a share of random effects, and this model has none"
        )
    found = uncertainty(fit).propagate(_icc, *_second_moments(fit))
    return _table(*found, level, "logit", ["adjusted", "unadjusted"])


def r2(fit: FittedModel, level: float = 0.95) -> pd.DataFrame:
    """Nakagawa & Schielzeth's R squared, `marginal` and `conditional`, with intervals (logit
    scale).

    Shares of the fixed part, and of fixed and random parts, in the total variance; random slopes as
    Johnson (2014).

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.r2().round(2)
                 estimate    se  lower  upper
    marginal         0.28  0.08   0.15   0.45
    conditional      0.80  0.04   0.70   0.87
    """
    check_level(level)
    found = uncertainty(fit).propagate(_r2, *_second_moments(fit))
    return _table(*found, level, "logit", ["marginal", "conditional"])
