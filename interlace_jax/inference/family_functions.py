"""Functions of all parameters of a generalised model: any of the user's, R squared and intraclass
correlations.

The last two need the variance of a single observation on the scale of the link, as Nakagawa,
Johnson & Schielzeth (2017, J. R. Soc. Interface 14) define it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ..models import response
from ..models.generalized import FittedGeneralizedModel
from ..models.linear_predictor import _of_fit
from ..numerics.families import rows as families
from ..numerics.families.family import BetaBinomial, Binomial, Distribution, Ordinal
from ..numerics.families.links import LINK
from ..numerics.families.special import polygamma
from ..numerics.uncertainty.delta import FamilyParameters, propagate_jointly
from ..runtime.calls import run
from ..runtime.compilation import jit
from ..support.arguments import check_level, one_of
from ..support.later import jax, jnp
from .variances import SCALES, _second_moments, _table

METHODS = ("theoretical", "lognormal", "trigamma", "delta")
LATENT = {
    "logit": np.pi**2 / 3.0,
    "probit": 1.0,
    "cloglog": np.pi**2 / 6.0,
    "loglog": np.pi**2 / 6.0,
}
"""Variance of the latent variable that a threshold model cuts: logistic, normal, and of extreme
values.
"""

Names = tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, str], ...]]
UNNAMED: Names = (), (), ()
_propagate = functools.partial(jit, static_argnums=(0, 1))(propagate_jointly)


def propagate(
    fit: FittedGeneralizedModel, fn: Callable, *data: Any, names: Names = UNNAMED
) -> tuple[np.ndarray, np.ndarray]:
    """Values (r,) of fn(parameters, *data) and their covariance (r, r), by the delta method over
    all parameters.

    names: of columns, grouping factors and numbers of the family with their domains, for a function
    that asks by name; programs of one that does not serve all models of a structure.
    """
    e, layout = fit.estimate, fit.model.engine.products.layout
    at = e.theta, e.beta, e.gamma
    return run(_propagate, fn, names, *at, fit.joint_covariance, layout, data)


def _names(fit: FittedGeneralizedModel) -> Names:
    """What a function of the parameters may ask for."""
    design = fit.design
    domains = [
        parameter.domain if used.D is None else "coefficient"
        for parameter, used in zip(fit.family.parameters, design.predictors, strict=True)
        for _ in used.columns
    ]
    numbers = tuple(zip(fit.family_names, domains, strict=True))
    return design.columns, tuple(f.name for f in design.factors), numbers


def delta(
    fit: FittedGeneralizedModel,
    fn: Callable[[FamilyParameters], Any],
    level: float = 0.95,
    scale: str = "identity",
) -> pd.Series | pd.DataFrame:
    """Estimate, SE and Wald interval of any function of the parameters, by the delta method with
    JAX's derivatives.

    fn: takes `p` with `p.beta` (p,), `p.theta` (d,) (absolute), `p["x"]` (a coefficient),
    `p.covariance("g")` (k, k) and `p.number("size")` (a number of the family, on its natural
    scale), and returns a number (the result is a Series) or a vector (a DataFrame); write it with
    `jax.numpy`. scale: where the interval is computed: "identity", "log", "logit" or "fisher". A
    variance estimated at 0 counts as known to be 0.

    >>> import jax.numpy as jnp
    >>> cbpp = interlace_jax.load_dataset("cbpp")
    >>> formula = "incidence ~ period + (1 | herd)"
    >>> fit = interlace_jax.fit(formula, cbpp, family="binomial", trials="size")
    >>> fit.delta(lambda p: jnp.exp(p["period[T.p2]"]), scale="log").round(2)  # an odds ratio
    estimate    0.37
    se          0.11
    lower       0.20
    upper       0.68
    dtype: float64
    """
    check_level(level)
    one_of("scale", scale, SCALES)
    if not callable(fn):
        raise TypeError(
            f'delta takes a function of the parameters, such as lambda p: p["x"] ** 2, not {fn!r}'
        )
    try:
        values, cov = propagate(fit, fn, names=_names(fit))
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        raise TypeError(
            "delta differentiates its function: write it with jax.numpy in place of numpy"
        ) from None
    table = _table(values, cov, level, scale)
    return table.iloc[0].rename(None) if len(table) == 1 else table


def r2(fit: FittedGeneralizedModel, level: float = 0.95, method: str | None = None) -> pd.DataFrame:
    """Nakagawa & Schielzeth's R squared on the scale of the link, `marginal` and `conditional`,
    with intervals.

    Shares of the fixed part, and of fixed and random parts, in their sum with the variance of an
    observation (Nakagawa, Johnson & Schielzeth 2017); random slopes as Johnson (2014). Where there
    are trials an observation is one of them, so that it does not matter how they are put into rows.

    method: how that variance is found, by default the first that there is. "theoretical", of
    binomial and ordinal responses: that of the latent variable, pi^2/3 for logit, 1 for probit,
    pi^2/6 for cloglog. "lognormal" and "trigamma", of log links: log(1 + Var/mu^2) and
    trigamma(mu^2/Var). "delta": Var over the squared slope of the inverse link. The mean mu is that
    of the model with an intercept alone over all levels, exp(b0 + s^2/2) for a log link, and counts
    as known. Intervals are on the logit scale.

    >>> cbpp = interlace_jax.load_dataset("cbpp")
    >>> formula = "incidence ~ period + (1 | herd)"
    >>> fit = interlace_jax.fit(formula, cbpp, family="binomial", trials="size")
    >>> fit.r2().round(3)
                 estimate     se  lower  upper
    marginal        0.085  0.036  0.037  0.187
    conditional     0.187  0.053  0.104  0.313
    """
    return _table(
        *_of_shares(fit, "r2", level, method), level, "logit", ["marginal", "conditional"]
    )


def icc(
    fit: FittedGeneralizedModel, level: float = 0.95, method: str | None = None
) -> pd.DataFrame:
    """Intraclass correlation on the scale of the link, `adjusted` for the fixed effects and
    `unadjusted`.

    Share of the random effects' mean variance in its sum with the variance of an observation,
    without and with the fixed part's (Nakagawa, Johnson & Schielzeth 2017). method: of the variance
    of an observation, as of `r2`. Intervals are on the logit scale.

    >>> cbpp = interlace_jax.load_dataset("cbpp")
    >>> formula = "incidence ~ period + (1 | herd)"
    >>> fit = interlace_jax.fit(formula, cbpp, family="binomial", trials="size")
    >>> fit.icc().round(3)
                estimate     se  lower  upper
    adjusted       0.111  0.055  0.040  0.272
    unadjusted     0.102  0.051  0.036  0.254
    """
    return _table(
        *_of_shares(fit, "icc", level, method), level, "logit", ["adjusted", "unadjusted"]
    )


def _of_shares(fit, what, level, method):
    """Values (2,) and covariance of one of the two tables."""
    check_level(level)
    method = _checked_method(fit.family, method)
    mu = np.float64(np.nan) if method == "theoretical" else _usual_mean(fit)
    X_cov, ZZ, _ = _second_moments(fit)
    D = tuple(used.D for used in fit.design.predictors)
    columns = tuple(len(used.columns) for used in fit.design.predictors)
    return propagate(fit, _Shares(what, fit.family, method, columns), X_cov, ZZ, mu, D)


def _checked_method(family: Distribution, method: str | None) -> str:
    """The way asked for, or the first that a family has."""
    there_are = list(_methods(family))
    if not there_are:
        raise ValueError(
            f"R squared and ICC of family {family.name!r} with link {family.link!r} need the "
            "variance of an observation on the scale of the link, which it does not have"
        )
    if method is not None:
        one_of("method", method, METHODS)
        if method not in there_are:
            known = " or ".join(map(repr, there_are))
            raise ValueError(
                f"method={method!r} is not for family {family.name!r} with link {family.link!r}: "
                f"{known}"
            )
    return method or there_are[0]


def _methods(family: Distribution):
    if isinstance(family, Binomial | BetaBinomial | Ordinal) and family.link in LATENT:
        yield "theoretical"
    if isinstance(family, Ordinal) or families.density(family).variance is None:
        return
    if family.link == "log" and not family.has_trials:
        yield from ("lognormal", "trigamma")
    yield "delta"


def _usual_mean(fit: FittedGeneralizedModel) -> np.float64:
    """Mean over all levels in the model whose fixed part is an intercept alone, before any zeros
    are mixed in.
    """
    null = fit.remembered("intercept alone", lambda: _intercept_alone(fit))
    design, family = null.design, null.family
    rows = _of_fit(design)
    variances = response.random_variances(design.factors, null.Lambdas, null.level_roots, rows.Z)
    while hasattr(family, "base"):
        family = family.base
    free = null.free_rows(rows)[: len(family.parameters)]
    eta = design.X @ null.estimate.beta + design.shift
    return response.averaged(family, eta, free, np.full(len(eta), variances.mean())).mean()


def _intercept_alone(fit: FittedGeneralizedModel) -> FittedGeneralizedModel:
    design = fit.design
    if design.columns == ("Intercept",):
        return fit
    model = fit.model.with_design(
        replace(design, X=np.ones((len(design.y), 1)), columns=("Intercept",))
    )
    return type(fit)(model, model.engine.estimate(False, fit.theta), "ML", "normal")


@dataclass(frozen=True)
class _Shares:
    """Function of the parameters: R squared or ICC, from the variances of fixed part, random
    part and observation.
    """

    what: str
    family: Distribution
    method: str
    columns: tuple[int, ...]  # how many of gamma each parameter of the family has

    def __call__(self, p: FamilyParameters, X_cov, ZZ, mu, D):
        fixed = p.beta @ X_cov @ p.beta
        random = sum(jnp.sum(S * zz) for S, zz in zip(p.covariances, ZZ, strict=True))
        own = self._observation(p, mu, D)
        if self.what == "r2":
            return jnp.stack([fixed, fixed + random]) / (fixed + random + own)
        return jnp.stack([random / (random + own), random / (fixed + random + own)])

    def _observation(self, p, mu, D):
        """Variance of an observation on the scale of the link, on average over the rows where it
        depends on them.
        """
        if self.method == "theoretical":
            return LATENT[self.family.link]
        n = next((len(own) for own in D if own is not None), 1)
        at = families.At(self.family, jnp.full(n, LINK[self.family.link](mu)), self._free(p, D, n))
        variance = families.variance_at(at, jnp.ones(n))
        if self.method == "delta":
            return jnp.mean(variance / families.slope_at(at) ** 2)
        relative = variance / families.mean_at(at) ** 2
        return jnp.mean(
            jnp.log1p(relative) if self.method == "lognormal" else polygamma(1, 1.0 / relative)
        )

    def _free(self, p, D, n):
        """Parameters of the family in rows, on their free scales."""
        found, start = [], 0
        for own, size in zip(D, self.columns, strict=True):
            gamma = p.gamma[start : start + size]
            found.append(jnp.full(n, gamma[0]) if own is None else own @ gamma)
            start += size
        return tuple(found)
