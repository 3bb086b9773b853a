"""The front door: `fit` a formula, or `compile` it to functions of theta."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from . import structure
from .compute import island, run
from .covariance import factors, parameters, to_conditioned, to_user, user_blocks
from .crossproducts import Moments, moments
from .design import Design, build, is_constant
from .errors import one_of
from .estimation import Estimate, attempts, finish, moment_start, near_zero, search, settle
from .formula import parse
from .likelihood import deviance
from .many import Many, run_all
from .result import Fit, report
from .sources import Groups, Responses, padded_model, responses_of
from .traced import TracedModel

METHODS = ("REML", "ML")
SMALLEST = 1e-140  # size of a response whose variance can still be told from 0
ROUNDING = 1e-14  # least-squares residuals below this part of the response are rounding
PERFECT = 1e-6  # residual SD, relative to that of least squares, below which digits run out (theta^2 of them)
DF_METHODS = ("satterthwaite", "kenward-roger", "normal")


def fit(
    formula: str,
    data: Any,
    groups: str | Iterable[str] | None = None,
    random: str | Iterable[str] | None = None,
    *,
    method: str = "REML",
    weights: str | Iterable[float] | None = None,
    offset: str | Iterable[float] | None = None,
    df_method: str = "satterthwaite",
    theta0: Iterable[float] | None = None,
    na_action: str = "drop",
) -> Fit:
    """Fit a linear mixed model.

    Parameters
    ----------
    formula
        lme4's grammar, `"y ~ x + (1 + x | g)"`; the fixed part may use everything formulaic knows. Random effects may
        stand in the formula, in `groups` or in `random`, also mixed.
    data
        A pandas or polars frame (or another that narwhals reads). It is not modified.
    groups
        Factors with a random intercept: `"g"`, `["g1", "g2"]`.
    random
        Random-effects terms: `"(1 + x | g)"`, `["(1 + x || g)", "(1 | h)"]`. With `||` every column has its own
        variance and no correlations, dummy columns of a categorical included (lme4 keeps those correlated).
    method
        `"REML"` or `"ML"`.
    weights
        Prior weights w, Var(eps_i) = sigma^2 / w_i: a column name or one number per row. Rows of weight zero are left
        out.
    offset
        Known part of the mean: a column name or one number per row.
    df_method
        `"satterthwaite"`, `"kenward-roger"` (REML only) or `"normal"`.
    theta0
        Start values on lme4's theta scale, in place of moment estimates.
    na_action
        `"drop"` leaves out rows with missing values in the columns used, `"raise"` refuses them.

    Raises
    ------
    ValueError, TypeError
        For input that does not determine a model; the message names the column or term.
    """
    model = compile(formula, data, groups, random, weights=weights, offset=offset, na_action=na_action)
    return model.fit(method, df_method=df_method, theta0=theta0)


def fit_many(
    formula: str,
    data: Any,
    groups: str | Iterable[str] | None = None,
    random: str | Iterable[str] | None = None,
    *,
    responses: Any = None,
    by: str | None = None,
    method: str = "REML",
    weights: str | Iterable[float] | None = None,
    offset: str | Iterable[float] | None = None,
    df_method: str = "satterthwaite",
    na_action: str = "drop",
    checkpoint: str | os.PathLike | None = None,
    progress: bool | None = None,
) -> Many:
    """Fit one formula many times.

    Parameters
    ----------
    formula, data, groups, random, method, weights, offset, na_action
        As in `fit`. With `responses` the formula has no left side: `"~ x + (1 + x | g)"`.
    responses
        The responses, one column a model and one row for each row of `data`: a frame, an array (rows, models), a
        memory map (read in slices), or a list of column names of `data`. A missing value leaves that row out of that
        model only.
    by
        Instead of `responses`, a column of `data` whose values tell the models apart: one model per value, each with
        its own rows and levels.
    df_method
        `"satterthwaite"` or `"normal"`.
    checkpoint
        A folder. Results of finished chunks are kept there as Parquet files (needs pyarrow); a run that was killed
        goes on from them and ends with the same numbers as one that was not.
    progress
        Show a progress bar; by default when there is more than one chunk.

    A model that cannot be fitted (a constant response, one level, too few rows) does not stop the others: its row is
    missing and its `status` says why.

    Raises
    ------
    ValueError, TypeError
        For input that determines none of the models.
    """
    one_of("method", method, METHODS)
    one_of("df_method", df_method, ("satterthwaite", "normal"))
    if (responses is None) == (by is None):
        raise ValueError("fit_many needs either responses= (many responses of one design) or by= (one model per group)")
    parsed, arguments = parse(formula, groups, random), dict(weights=weights, offset=offset, na_action=na_action)
    work = responses_of(parsed, data, responses, arguments) if by is None else Groups(parsed, data, by, arguments)
    single = functools.partial(_one_of_many, work, dict(arguments, method=method, df_method=df_method))
    return Many(work, method, df_method, run_all(work, method, checkpoint, progress), single)


def _one_of_many(work: Responses | Groups, arguments: dict[str, Any], place: int) -> Fit:
    return fit(*work.problem(place), **arguments)


def compile(
    formula: str,
    data: Any,
    groups: str | Iterable[str] | None = None,
    random: str | Iterable[str] | None = None,
    *,
    weights: str | Iterable[float] | None = None,
    offset: str | Iterable[float] | None = None,
    na_action: str = "drop",
) -> Model:
    """Turn a formula and data into functions of theta, without fitting. Arguments and errors as in `fit`."""
    design = build(parse(formula, groups, random), data, weights=weights, offset=offset, na_action=na_action)
    return Model(design, data, dict(weights=weights, offset=offset, na_action=na_action))


class Model:
    """A mixed model as functions of theta: lme4's theta, relative scale, in lme4's order.

    `loglik` and `deviance` can be differentiated, batched and compiled by JAX; they are evaluated in float64 whatever
    JAX's setting, and return the dtype that they are given.
    """

    def __init__(self, design: Design, data: Any, arguments: dict[str, Any]):
        self.design, self.data, self.arguments = design, data, arguments
        if is_constant(y := design.y if design.offset is None else design.y - design.offset):
            raise ValueError(
                f"the response {design.response!r} is {y[0]:g} in all {len(y)} rows: there is nothing to fit"
            )
        if not SMALLEST < np.abs(y).max() < 1.0 / SMALLEST:
            raise ValueError(
                f"the response {design.response!r} is of size {np.abs(y).max():.0e}, and its variance out of "
                "floating-point range: give it in another unit"
            )

    @functools.cached_property
    def moments(self) -> Moments:
        """Conditioned cross-products of the data, as NumPy arrays."""
        return run(_moments, *padded_model(self.design, structure.bucket))

    @property
    def theta0(self) -> np.ndarray:
        """Moment estimates (d,): where the search for theta starts."""
        return run(_user_start, self.moments)

    def deviance(self, theta, reml: bool = True):
        """-2 log L_REML (or -2 log L) at theta (d,), with beta and sigma at their optimum."""
        if isinstance(theta, jax.Array):
            return island(lambda theta: _deviance(theta, self.moments, reml))(theta)
        return float(run(_deviance, self._theta(theta), self.moments, reml))

    def loglik(self, theta, reml: bool = True):
        """Log-likelihood (restricted by default) at theta (d,): minus half of `deviance`."""
        return -0.5 * self.deviance(theta, reml)

    def fit(
        self, method: str = "REML", *, df_method: str = "satterthwaite", theta0: Iterable[float] | None = None
    ) -> Fit:
        """Estimate the model. Arguments as in `fit`."""
        one_of("method", method, METHODS)
        one_of("df_method", df_method, DF_METHODS)
        if df_method == "kenward-roger" and method == "ML":
            raise ValueError("Kenward-Roger is defined for REML fits: use method='REML', or df_method='satterthwaite'")
        t = None if theta0 is None else run(_conditioned, self._theta(theta0), self.moments)
        found = Fit(self, _optimise(self.moments, method == "REML", t), method, df_method)
        self._check_residual(found.estimate)
        report(found)
        return found

    def _check_residual(self, found: Estimate) -> None:
        """Refuse a fit without residual: theta runs off to infinity, and no number of it would mean anything."""
        y, m = self.design.y, self.moments
        by = "the fixed effects" if m.scale <= ROUNDING * np.abs(y).max() else "the fixed and random effects"
        if by == "the fixed effects" or not found.sigma > PERFECT * m.scale:
            raise ValueError(
                f"{by} fit the response {self.design.response!r} perfectly, to rounding: there is no residual "
                "variance to estimate. Is the response computed from the predictors, or constant "
                "within the levels of a factor?"
            )

    def estimate(self, reml: bool = True) -> Estimate:
        """The fitted model as arrays, without names, tables or warnings."""
        return _optimise(self.moments, reml, None)

    def with_response(self, y, *, weights=None, offset=None) -> Model | TracedModel:
        """The same model of another response y (n,), and of other weights or offset (n,): one number per row used.

        Inside `jax.jit`, `grad` or `vmap` any of them may be traced; the model is then a `TracedModel`, with `moments`,
        `deviance`, `loglik` and `estimate`. So the fit of a formula has derivatives by its rows::

            jax.grad(lambda y: model.with_response(y).estimate().beta[1])(y)
        """
        given = {"y": y, "weights": weights, "offset": offset}
        given = {name: self._row_vector(name, values) for name, values in given.items() if values is not None}
        if any(isinstance(values, jax.core.Tracer) for values in given.values()):
            return TracedModel(self.design, given)
        return Model(replace(self.design, **given), self.data, self.arguments)

    def _row_vector(self, name, values):
        """One number for each row used, checked where it is known."""
        n = len(self.design.y)
        if np.shape(values) != (n,):
            raise ValueError(
                f"{name} has shape {np.shape(values)}, but the model has {n} rows: give one number for each row used"
            )
        if isinstance(values, jax.core.Tracer):
            return values
        values = np.asarray(values, float)
        if bad := np.count_nonzero(~np.isfinite(values)):
            raise ValueError(
                f"{name} has {bad} missing or infinite values: give one number for each of the {n} rows used"
            )
        if name == "weights" and values.min() <= 0:
            raise ValueError("weights must be positive here: leave rows out where the model is compiled")
        return values

    def update(self, formula: str | None = None, data: Any = None, **arguments: Any) -> Model:
        """The model of a changed formula or other data.

        In `formula` a dot stands for what was there: `". ~ . + x"`. arguments: `weights`, `offset`, `na_action`.
        """
        if unknown := set(arguments) - set(self.arguments):
            raise TypeError(f"update() takes {', '.join(self.arguments)}, not {', '.join(sorted(unknown))}")
        old = self.design.formula
        left, right = old.response or "", str(old).partition("~")[2].strip()
        new_left, tilde, new_right = (formula or ". ~ .").partition("~")
        text = _fill_dots(new_left, left) + tilde + _fill_dots(new_right, right)
        return compile(text, self.data if data is None else data, **self.arguments | arguments)

    def _theta(self, theta) -> np.ndarray:
        theta, d = np.asarray(theta, float), structure.parameter_count(self.moments.layout.blocks)
        if theta.shape != (d,) or not np.isfinite(theta).all():
            raise ValueError(f"theta of this model is {d} finite numbers, not {theta!r}")
        return theta


def _fill_dots(text: str, old: str) -> str:
    """Replace every `.` that is a term of its own."""
    return re.sub(r"(?<![\w.)\]])\.(?![\w.(])", old.replace("\\", r"\\"), text)


# Compiled pieces -----------------------------------------------------------------------------------------------------

_moments = jax.jit(moments)
_settle = jax.jit(settle)
_finish = jax.jit(finish)


@jax.jit
def _search(m, reml, t):
    found = search(m, reml, moment_start(m) if t is None else t)
    return finish(found.x, m, reml, found.g, found.predicted_decrease, found.steps, found.status)


@jax.jit
def _user_start(m):
    return parameters(to_user(factors(moment_start(m), m.layout.blocks), m.layout, m.A), user_blocks(m.layout))


@jax.jit
def _conditioned(theta, m):
    return to_conditioned(theta, m.layout, m.A)


@jax.jit
def _deviance(theta, m, reml):
    return deviance(to_conditioned(theta, m.layout, m.A), m, reml)


def _optimise(m: Moments, reml: bool, t: np.ndarray | None) -> Estimate:
    """`estimation.estimate`, compiled piece by piece: few fits need the boundary, which takes long to compile."""
    steps = 0
    for _ in range(attempts(m.layout.blocks)):
        made = run(_search, m, reml, t)
        steps += int(made.steps)
        if not near_zero(made.t, m.layout.blocks).any():
            break
        t, restart = run(_settle, made.t, m, reml)
        made = run(_finish, t, m, reml, made.gradient, made.predicted_decrease, made.steps, made.status)
        if not restart:
            break
    return replace(made, steps=steps)
