"""The front door: `fit` a formula, or `compile` it to functions of theta."""

from __future__ import annotations

import functools
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from .design.design import Design, build
from .design.determinacy import is_constant, is_out_of_range, largest
from .design.files import is_scanned, scan
from .design.formula import parse
from .engines.choice import wants_iterative
from .engines.dense import Dense
from .engines.iterative import Iterative
from .many.designs import Groups
from .many.many import Many
from .many.responses import Responses, responses_of
from .many.run import run_all
from .models.identifiability import confounded_message, is_perfect, is_rounding, weighted_size
from .models.traced import TracedModel
from .numerics.covariance.block import parameter_count
from .numerics.crossproducts.moments import Moments
from .numerics.estimation.estimate import Estimate
from .numerics.uncertainty.kenward_roger import why_not
from .result import Fit, report
from .support.arguments import numbers, one_of
from .support.warnings import SingularFitWarning

METHODS = ("REML", "ML")
CORES = ("auto", "dense", "iterative")
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
    cov: Mapping[str, Any] | None = None,
    core: str = "auto",
) -> Fit:
    """Fit a linear mixed model.

    Parameters
    ----------
    formula
        lme4's grammar, `"y ~ x + (1 + x | g)"`; the fixed part may use everything formulaic knows. Random effects may
        stand in the formula, in `groups` or in `random`, also mixed.
    data
        A pandas or polars frame (or another that narwhals reads). It is not modified. Or rows that do not fit into
        memory: the path of a Parquet file (or of a folder of them), a pyarrow dataset, or a lazy frame of polars or
        duckdb. They are read in batches, twice (needs pyarrow).
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
    cov
        Covariance structures by grouping factor, `{"subject": AR1(), "id": Known(kinship)}`: how the columns of a level
        covary (`Unstructured`, `Diagonal`, `HomogeneousDiagonal`, `CompoundSymmetry`, `AR1`, or a `Structure` of your
        own), how the levels do (`Known`, `Kernel`), or a tuple of both; with priors, if wanted.
    core
        How crossed factors are handled. `"dense"` holds the levels that cannot be eliminated one by one as a matrix:
        exact, up to a few thousand of them. `"iterative"` never forms it: linear time and memory, for any number of
        levels; the log-likelihood is known up to a small noise and `theta` to a small part of its standard error,
        given in `optimum.noise` and `optimum.theta_noise`. `"auto"` takes the dense core where an evaluation of it is
        predicted to take under a second and two gigabytes.

    Raises
    ------
    ValueError, TypeError
        For input that does not determine a model; the message names the column or term.
    """
    arguments = dict(weights=weights, offset=offset, na_action=na_action, cov=cov)
    model = compile(formula, data, groups, random, **arguments, core=core)
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
    dtype: str = "float64",
    cov: Mapping[str, Any] | None = None,
    checkpoint: str | os.PathLike | None = None,
    progress: bool | None = None,
) -> Many:
    """Fit one formula many times.

    Parameters
    ----------
    formula, data, groups, random, method, weights, offset, na_action, cov
        As in `fit`. With `responses` the formula has no left side: `"~ x + (1 + x | g)"`.
    responses
        The responses, one column a model and one row for each row of `data`: a frame, an array (rows, models), a
        memory map (read in slices), or a list of column names of `data`. A missing value leaves that row out of that
        model only. The formula is evaluated once, so `poly(x, 2)` or `scale(x)` is that of all rows in every model;
        `many[label]` evaluates it in the rows that this model has, and its coefficients then differ in unit.
    by
        Instead of `responses`, a column of `data` whose values tell the models apart: one model per value, each with
        its own rows and levels.
    df_method
        `"satterthwaite"` or `"normal"`.
    dtype
        Of the search, `"float64"` or `"float32"` (quicker where double precision is slow). Cross-products, the test of
        the boundary and the estimates at the end of the search are in double precision either way. Measured with
        `"float32"` (sleepstudy, crossed subjects and items): deviances at most 1.2e-5 above their minimum, standard
        errors to 3 digits, degrees of freedom within 0.2% for 99 of 100 models. A variance close to 0 may be left there
        that `"float64"` finds to be 0 (4 models of 2000; deviance up to 7e-4 too high, degrees of freedom up to 27%
        off).
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
    one_of("dtype", dtype, ("float64", "float32"))
    if is_scanned(data):
        raise TypeError(f"fit_many takes a pandas or polars data frame, not {type(data).__name__}: read the file first")
    if (responses is None) == (by is None):
        raise ValueError("fit_many needs either responses= (many responses of one design) or by= (one model per group)")
    arguments = dict(weights=weights, offset=offset, na_action=na_action, cov=cov)
    source = (parse(formula, groups, random), data, responses if by is None else by, arguments, dtype)
    work = responses_of(*source) if by is None else Groups(*source)
    if isinstance(work, Responses) and work.confounded.any():
        warnings.warn(f"in all models {confounded_message(work.design)}", SingularFitWarning, stacklevel=2)
    single = functools.partial(_one_of_many, work, dict(arguments, method=method, df_method=df_method))
    many = Many(work, method, df_method, run_all(work, method, checkpoint, progress), single)
    if jax.process_count() > 1:
        many.fe_df  # noqa: B018 - while all processes are here
    return many


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
    cov: Mapping[str, Any] | None = None,
    core: str = "auto",
) -> Model:
    """Turn a formula and data into functions of theta, without fitting. Arguments and errors as in `fit`."""
    one_of("core", core, CORES)
    arguments = dict(weights=weights, offset=offset, na_action=na_action, cov=cov)
    parsed, scanned = parse(formula, groups, random), is_scanned(data)
    return Model((scan if scanned else build)(parsed, data, **arguments), data, arguments, core)


class Model:
    """A mixed model as functions of theta: lme4's theta, relative scale, in lme4's order.

    Of a factor with a covariance structure theta has the scale and the free numbers of the structure, then those of the
    covariance across levels (logs of a kernel's parameters).
    `loglik` and `deviance` can be differentiated, batched and compiled by JAX; they are evaluated in float64 whatever
    JAX's setting, and return the dtype that they are given.
    """

    def __init__(self, design: Design, data: Any, arguments: dict[str, Any], core: str = "auto"):
        self.design, self.data, self.arguments, self.core_choice = design, data, arguments, core
        if is_constant(y := design.y if design.offset is None else design.y - design.offset):
            raise ValueError(
                f"the response {design.response!r} is {y[0]:g} in all {len(y)} rows: there is nothing to fit"
            )
        if is_out_of_range(largest(y)):
            raise ValueError(
                f"the response {design.response!r} is of size {largest(y):.0e}, and its variance out of "
                "floating-point range: give it in another unit"
            )

    @functools.cached_property
    def core(self) -> Dense | Iterative:
        """What computes with the data: see `core=` of `fit`."""
        return (Iterative if wants_iterative(self.design, self.core_choice) else Dense)(self.design)

    @property
    def moments(self) -> Moments:
        """Conditioned cross-products of the data, as NumPy arrays; those of the iterative core are `core.products`."""
        return self.core.moments

    @property
    def theta0(self) -> np.ndarray:
        """Moment estimates (d,): where the search for theta starts."""
        return self.core.start()

    def deviance(self, theta, reml: bool = True):
        """-2 log L_REML (or -2 log L) at theta (d,), with beta and sigma at their optimum; without priors."""
        return self.core.deviance(theta if isinstance(theta, jax.Array) else self._theta(theta), reml)

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
        if df_method == "kenward-roger" and (reason := why_not([f.block for f in self.design.factors])):
            raise ValueError(f"Kenward-Roger does not apply: {reason}; use df_method='satterthwaite'")
        if df_method == "kenward-roger":
            self.core.require_matrix("Kenward-Roger")
        start = None if theta0 is None else self._theta(theta0)
        found = Fit(self, self.core.estimate(method == "REML", start), method, df_method)
        self._check_residual(found.estimate)
        report(found)
        return found

    def _check_residual(self, found: Estimate) -> None:
        """Refuse a fit without residual: theta runs off to infinity, and no number of it would mean anything."""
        size, scale = weighted_size(self.design, largest(self.design.y)), self.core.products.scale
        by = "the fixed effects" if is_rounding(size, scale) else "the fixed and random effects"
        if is_perfect(size, scale, found.sigma):
            raise ValueError(
                f"{by} fit the response {self.design.response!r} perfectly, to rounding: there is no residual "
                "variance to estimate. Is the response computed from the predictors, or constant "
                "within the levels of a factor?"
            )

    def estimate(self, reml: bool = True) -> Estimate:
        """The fitted model as arrays, without names, tables or warnings."""
        return self.core.estimate(reml, None)

    def with_response(self, y, *, weights=None, offset=None) -> Model | TracedModel:
        """The same model of another response y (n,), and of other weights or offset (n,): one number per row used.

        Inside `jax.jit`, `grad` or `vmap` any of them may be traced; the model is then a `TracedModel`, with `moments`,
        `deviance`, `loglik` and `estimate`. So the fit of a formula has derivatives by its rows::

            jax.grad(lambda y: model.with_response(y).estimate().beta[1])(y)
        """
        given = {"y": y, "weights": weights, "offset": offset}
        given = {name: self._row_vector(name, values) for name, values in given.items() if values is not None}
        if any(isinstance(values, jax.core.Tracer) for values in given.values()):
            self.core.require_matrix("a fit of traced rows")
            return TracedModel(self.design, given)
        return Model(replace(self.design, **given), self.data, self.arguments, self.core_choice)

    def _row_vector(self, name, values):
        """One number for each row used, checked where it is known."""
        n = len(self.design.y)
        if np.shape(values) != (n,):
            raise ValueError(
                f"{name} has shape {np.shape(values)}, but the model has {n} rows: give one number for each row used"
            )
        if isinstance(values, jax.core.Tracer):
            return values
        values = numbers(name, values)
        if bad := np.count_nonzero(~np.isfinite(values)):
            raise ValueError(
                f"{name} has {bad} missing or infinite values: give one number for each of the {n} rows used"
            )
        if name == "weights" and values.min() <= 0:
            raise ValueError("weights must be positive here: leave rows out where the model is compiled")
        return values

    def update(self, formula: str | None = None, data: Any = None, **arguments: Any) -> Model:
        """The model of a changed formula or other data.

        In `formula` a dot stands for what was there, and so does an empty left side: `". ~ . + x"`, `"~ . + x"`. On the
        right it is a summand: a product or power of it is refused.
        arguments: `weights offset na_action cov core`.
        """
        core = arguments.pop("core", self.core_choice)
        if unknown := set(arguments) - set(self.arguments):
            raise TypeError(f"update() takes {', '.join(self.arguments)}, core, not {', '.join(sorted(unknown))}")
        old = self.design.formula
        left, right = old.response or "", str(old).partition("~")[2].strip()
        new_left, tilde, new_right = (formula or ". ~ .").partition("~")
        _check_dots(new_right)
        text = _fill_dots(new_left if new_left.strip() else ".", left) + tilde + _fill_dots(new_right, right)
        return compile(text, self.data if data is None else data, **self.arguments | arguments, core=core)

    def _theta(self, theta) -> np.ndarray:
        theta, d = numbers("theta", theta), parameter_count([f.block for f in self.design.factors])
        if theta.shape != (d,) or not np.isfinite(theta).all():
            raise ValueError(f"theta of this model is {d} finite numbers, not {theta!r}")
        return theta


_DOT = re.compile(r"(?<![\w.)\]])\.(?![\w.(])")
"A `.` that is a term of its own."


def _check_dots(right: str) -> None:
    """Refuse dots that are no summands: the terms that they stand for would be torn apart, as in z * x + f."""
    for dot in _DOT.finditer(right):
        before, after = right[: dot.start()].rstrip(), right[dot.end() :].lstrip()
        if not (before.endswith("+") or not before) or not (after.startswith(("+", "-")) or not after):
            raise ValueError(
                f"the '.' in {right.strip()!r} stands for all terms there were, which can have others added or taken "
                'away, as in "~ . + x"; write the whole formula for anything else'
            )


def _fill_dots(text: str, old: str) -> str:
    return _DOT.sub(old.replace("\\", r"\\"), text)
