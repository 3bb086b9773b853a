"""A fit as tables of one shape for all models: a row a term, or a row a model, in broom's words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from ..inference.coefficients import coefficients
from ..inference.family_parameters import family_params, predictor_table
from ..inference.variances import components, residual_table, structure_table, uncertainty
from ..models.fitted import FittedModel
from ..models.generalized import FittedGeneralizedModel
from ..models.parameters import component_pairs, natural_names
from ..support.arguments import check_level, one_of, texts
from ..support.wide import WideFrame

EFFECTS = ("fixed", "ran_pars", "family", "ran_vals")
COLUMNS = [
    "effect",
    "group",
    "level",
    "term",
    "estimate",
    "std_error",
    "statistic",
    "df",
    "p_value",
]
LIMITS = ["conf_low", "conf_high"]


def tidy(
    fit: FittedModel,
    effects: str | Iterable[str] = ("fixed", "ran_pars", "family"),
    level: float = 0.95,
    ddf: str | None = None,
    exponentiate: bool = False,
) -> pd.DataFrame:
    """A row a term, with the same columns for every model, as R's broom.mixed.

    effects: "fixed", the coefficients; "ran_pars", standard deviations (`sd__x`), correlations
        (`cor__x.z`) and the parameters of covariance structures, with those of the residuals as
        group "Residual"; "family", of generalised models the numbers of the family on their natural
        scale (group "family") and the coefficients of `dispersion=` and `zero_inflation=` (groups
        of these names); "ran_vals", the random effects.
    level: of the intervals `conf_low conf_high`; t intervals for coefficients, Wald intervals on
        the log or Fisher's z scale for standard deviations and correlations, normal ones for random
        effects.
    ddf: the rule for degrees of freedom, as `df_method` of `fit`; by default the fit's.
    exponentiate: exp of the coefficients and of their limits, with the standard error by the delta
        method; for models of log y, and odds and rate ratios.

    Returns `effect group level term estimate std_error statistic df p_value conf_low conf_high`, in
    the units of the response (of the predictor's effect on it); what a row does not have is
    missing, `level` left out unless asked for.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.tidy().iloc[:, :6].round(2)
         effect     group                   term  estimate  std_error  statistic
    0     fixed       NaN              Intercept    251.41       6.82      36.84
    1     fixed       NaN                   Days     10.47       1.55       6.77
    2  ran_pars   Subject        sd__(Intercept)     24.74       5.84        NaN
    3  ran_pars   Subject               sd__Days      5.92       1.25        NaN
    4  ran_pars   Subject  cor__(Intercept).Days      0.07       0.33        NaN
    5  ran_pars  Residual        sd__Observation     25.59       1.51        NaN
    >>> fit.tidy("ran_vals").query("level == 'S308'").iloc[:, :6].round(2)
         effect    group level         term  estimate  std_error
    0  ran_vals  Subject  S308  (Intercept)      2.26      12.07
    1  ran_vals  Subject  S308         Days      9.20       2.30
    """
    check_level(level)
    wanted = texts("effects", effects, "fixed")
    for name in wanted:
        one_of("effects", name, EFFECTS)
    makers = {
        "fixed": lambda: _fixed(fit, level, ddf, exponentiate),
        "ran_pars": lambda: _ran_pars(fit, level),
        "ran_vals": lambda: _ran_vals(fit, level),
        "family": lambda: _of_family(fit, level),
    }
    tables = [makers[name]().assign(effect=name) for name in wanted]
    columns = [name for name in COLUMNS if name != "level" or "ran_vals" in wanted]
    rows: list[dict[str, Any]] = [row for table in tables for row in table.to_dict("records")]
    frame = WideFrame(rows, columns=columns + LIMITS)
    return frame.astype({name: float for name in (*columns[columns.index("estimate") :], *LIMITS)})


def _fixed(fit: FittedModel, level: float, ddf: str | None, exponentiate: bool) -> pd.DataFrame:
    table = coefficients(fit, ddf).t_table(np.eye(len(fit.fe_params)), level=level)
    estimate, se, limits = table["estimate"], table["se"], table[["lower", "upper"]]
    if exponentiate:
        estimate, limits = np.exp(estimate), np.exp(limits)
        se = estimate * se
    tests = dict(statistic=table["t"], df=table["df"], p_value=table["p"])
    numbers = dict(
        estimate=estimate,
        std_error=se,
        **tests,
        conf_low=limits["lower"],
        conf_high=limits["upper"],
    )
    return pd.DataFrame(numbers).assign(term=list(map(str, fit.fe_params.index)))


def _ran_pars(fit: FittedModel, level: float) -> pd.DataFrame:
    known, factors = uncertainty(fit), fit.design.factors
    places: list[tuple[str, str]] = []
    for f in factors:
        names = f.columns
        pairs = component_pairs(f.sizes)
        places += [
            (f.name, f"sd__{names[i]}" if i == j else f"cor__{names[i]}.{names[j]}")
            for i, j in pairs
        ]
    table = components(known, level).drop(columns="vcov_se")
    if fit.has_residual:
        places.append(("Residual", "sd__Observation"))
    tables = [table.iloc[: len(places)]]
    if any(map(natural_names, factors)):
        tables.append(structure_table(known, level))
        places += [
            (f.name, name.removesuffix(f"|{f.name}")) for f in factors for name in natural_names(f)
        ]
    if fit.design.residual is not None:
        tables.append(residual_table(known, level))
        places += [("Residual", name) for name in tables[-1].index]
    table = pd.concat(tables).reset_index(drop=True)
    table = table.rename(columns={"se": "std_error", "lower": "conf_low", "upper": "conf_high"})
    return table.assign(group=[group for group, _ in places], term=[term for _, term in places])


def _of_family(fit: FittedModel, level: float) -> pd.DataFrame:
    """Numbers of the family, and coefficients of their predictors."""
    if not isinstance(fit, FittedGeneralizedModel):
        return pd.DataFrame()
    numbers = family_params(fit, level)
    numbers.loc[[name for name in numbers.index if name in fit.runaway]] = np.nan
    tables = [numbers.assign(group="family")]
    for key in ("dispersion", "zero_inflation"):
        tables.append(predictor_table(fit, key, level).assign(group=key))
    table = pd.concat([part for part in tables if len(part)] or tables[:1])
    names = {"se": "std_error", "t": "statistic", "p": "p_value"}
    limits = {"lower": "conf_low", "upper": "conf_high"}
    return table.rename(columns=names | limits).assign(term=list(map(str, table.index)))


def _ran_vals(fit: FittedModel, level: float) -> pd.DataFrame:
    tables = []
    limits = fit.random_effects_ci(level)
    for f, b, covariance in zip(
        fit.design.factors, fit.mode_arrays, fit.mode_covariances, strict=True
    ):
        bounds = limits[f.name].to_numpy().reshape(*b.shape, 2)
        variance = np.einsum("mkk->mk", covariance)
        table = {
            "group": f.name,
            "level": np.repeat(f.levels.to_numpy(), len(f.columns)),
            "term": np.tile(np.array(f.columns, object), len(b)),
            "estimate": b.ravel(),
            "std_error": np.sqrt(variance).ravel(),
            "conf_low": bounds[..., 0].ravel(),
            "conf_high": bounds[..., 1].ravel(),
        }
        tables.append(pd.DataFrame(table))
    return pd.concat(tables) if tables else pd.DataFrame()


def glance(fit: FittedModel) -> pd.DataFrame:
    """A row a model, for tables of many: what it was fitted to, and how well.

    Returns one row: `nobs`, `nparams`, `df_residual` (rows less parameters), `sigma` (units of the
    response), `log_lik`, `aic`, `bic`, `deviance` (-2 log L; the REML criterion of a REML fit),
    `method`, `converged`, `singular`. Criteria of models with different fixed parts can be compared
    if `method` is "ML".

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.glance().round(1).T
                      0
    nobs            180
    nparams           6
    df_residual     174
    sigma          25.6
    log_lik      -871.8
    aic          1755.6
    bic          1774.8
    deviance     1743.6
    method         REML
    converged      True
    singular      False
    """
    row = {
        "nobs": fit.nobs,
        "nparams": fit.nparams,
        "df_residual": fit.nobs - fit.nparams,
        "sigma": fit.sigma,
        "log_lik": fit.llf,
        "aic": fit.aic,
        "bic": fit.bic,
        "deviance": fit.deviance,
        "method": fit.method,
        "converged": fit.converged,
        "singular": fit.is_singular,
    }
    return WideFrame([row])
