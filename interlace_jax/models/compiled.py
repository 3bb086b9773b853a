"""A compiled model: a formula and data as functions of theta.

State; what can be done with it is listed above.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np

from ..design.column_contrasts import Declared, declared
from ..design.covariances import snapshot_cov
from ..design.design import Design, build
from ..design.determinacy import is_constant, is_out_of_range, largest
from ..design.files import is_scanned, scan
from ..design.formula import parse
from ..design.frames import snapshot, snapshot_vector
from ..design.residual_formula import Power, Residual
from ..design.selection import with_least_squares_sizes
from ..engines.choice import engine_for
from ..engines.engine import Engine
from ..numerics.crossproducts.moments import Moments
from ..numerics.estimation.estimate import Estimate
from ..runtime.calls import own_rules
from ..support.arguments import numbers, one_of
from ..support.later import catch_up, is_jax_array, is_traced
from .residual_identifiability import check_residual_covariance
from .traced import TracedModel

CORES = ("auto", "dense", "sparse", "iterative")
_HELD = {
    "weights": snapshot_vector,
    "offset": snapshot_vector,
    "trials": snapshot_vector,
    "cov": snapshot_cov,
    "contrasts": declared,
}


def held(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments as they are now, whatever is done to their arrays later."""
    return {name: _HELD.get(name, lambda value: value)(value) for name, value in arguments.items()}


class CompiledModel:
    """A mixed model as functions of theta: lme4's theta, relative scale, in lme4's order.

    Of a factor with a covariance structure theta has the scale and the free numbers of the
    structure, then those of the covariance across levels (logs of a kernel's parameters).
    `loglik` and `deviance` can be differentiated, batched and compiled by JAX; they are evaluated
    in float64 whatever JAX's setting, and return the dtype that they are given.
    """

    def __init__(self, design: Design, data: Any, arguments: dict[str, Any], core: str = "auto"):
        self.design, self.data, self.arguments, self.core_choice = design, data, arguments, core
        y = design.y if design.offset is None else design.y - design.offset
        if is_constant(y):
            raise ValueError(
                f"the response {design.response!r} is {y[0]:g} in all {len(y)} rows: there is "
                "nothing to fit"
            )
        if is_out_of_range(largest(y)):
            raise ValueError(
                f"the response {design.response!r} is of size {largest(y):.0e}, and its variance "
                "out of floating-point range: give it in another unit"
            )

    def __repr__(self) -> str:
        return f"<Model of {self.design.formula}, {len(self.design.y)} rows>"

    @classmethod
    def of(
        cls,
        formula: str,
        data: Any,
        groups: str | Iterable[str] | None = None,
        random: str | Iterable[str] | None = None,
        core: str = "auto",
        residual: str | Residual | None = None,
        dispersion: str | Power | None = None,
        contrasts: Mapping[str, Any] | Declared | None = None,
        **arguments: Any,
    ) -> Self:
        """The model of a formula and data; arguments: `weights offset na_action cov` of `fit`,
        all of them.
        """
        one_of("core", core, CORES)
        parsed = parse(formula, groups, random, residual, dispersion, contrasts=contrasts)
        arguments = held(arguments)
        if is_scanned(data):
            if parsed.residual or parsed.dispersion:
                raise TypeError(
                    "residual= and dispersion= need data in memory: read the file into a data "
                    "frame first"
                )
            return cls(scan(parsed, data, **arguments), data, arguments, core)
        data = snapshot(data)
        design = with_least_squares_sizes(build(parsed, data, **arguments))
        check_residual_covariance(design)
        return cls(design, data, arguments, core)

    @functools.cached_property
    def engine(self) -> Engine:
        """What computes with the data: see `core=` of `fit`."""
        return engine_for(self.design, self.core_choice)

    @property
    def moments(self) -> Moments:
        """Conditioned cross-products of the data, as NumPy arrays; those of any engine are
        `engine.products`.
        """
        catch_up()  # they may be handed to JAX
        return self.engine.moments

    @property
    def theta0(self) -> np.ndarray:
        """Moment estimates (d,): where the search for theta starts."""
        return self.engine.start()

    def deviance(self, theta, reml: bool = True):
        """-2 log L_REML (or -2 log L) at theta (d,), with beta and sigma at their optimum;
        without priors.

        >>> sleep = interlace_jax.load_dataset("sleepstudy")
        >>> model = interlace_jax.compile("Reaction ~ Days + (1 + Days | Subject)", sleep)
        >>> round(float(model.deviance([0.97, 0.02, 0.23], reml=False)), 2)
        1752.0
        """
        return self.engine.deviance(
            theta if is_jax_array(theta) else self.checked_theta(theta), reml
        )

    @own_rules()
    def loglik(self, theta, reml: bool = True):
        """Log-likelihood (restricted by default) at theta (d,): minus half of `deviance`.

        >>> sleep = interlace_jax.load_dataset("sleepstudy")
        >>> model = interlace_jax.compile("Reaction ~ Days + (1 + Days | Subject)", sleep)
        >>> round(float(model.loglik([0.97, 0.02, 0.23])), 2)
        -871.82
        """
        return -0.5 * self.deviance(theta, reml)

    def loss(self, theta, y=None, X=None, *, reml: bool = True):
        """Minus the log-likelihood (restricted by default), Float[], for gradients by anything.

        theta: Float[d]. y: another response, Float[n]; X: other fixed-effects columns, Float[n, p],
        with any number p, such as the last layer of a network. beta and sigma are at their optimum.
        Each may be traced, all are differentiated, and all is computed in float64::

            jax.grad(lambda w: model.loss(theta, X=features(w)))(w)

        >>> sleep = interlace_jax.load_dataset("sleepstudy")
        >>> model = interlace_jax.compile("Reaction ~ Days + (1 + Days | Subject)", sleep)
        >>> round(float(model.loss([0.97, 0.02, 0.23])), 2)
        871.82
        """
        if X is not None and (np.ndim(X) != 2 or len(X) != len(self.design.y)):
            raise ValueError(
                f"X has shape {np.shape(X)}, but the model has {len(self.design.y)} rows: it must "
                f"be ({len(self.design.y)}, columns)"
            )
        self.engine.require("traced_rows")
        y = None if y is None else self._row_vector("y", y)
        rows = {name: values for name, values in (("y", y), ("X", X)) if values is not None}
        theta = theta if is_jax_array(theta) else self.checked_theta(theta)
        return 0.5 * TracedModel(self.design, rows).deviance(theta, reml)

    def estimate(self, reml: bool = True) -> Estimate:
        """The fitted model as arrays, without names, tables or warnings.

        >>> sleep = interlace_jax.load_dataset("sleepstudy")
        >>> model = interlace_jax.compile("Reaction ~ Days + (1 + Days | Subject)", sleep)
        >>> model.estimate().beta.round(2).tolist()
        [251.41, 10.47]
        """
        return self.engine.estimate(reml, None)

    def with_response(self, y, *, weights=None, offset=None) -> Self | TracedModel:
        """The model of another response y (n,), and of other weights or offset (n,): one number
        per row used.

        Inside `jax.jit`, `grad` or `vmap` any of them may be traced; the model is then a
        `TracedModel`, with `moments`, `deviance`, `loglik` and `estimate`. So the fit of a formula
        has derivatives by its rows::

            jax.grad(lambda y: model.with_response(y).estimate().beta[1])(y)

        >>> sleep = interlace_jax.load_dataset("sleepstudy")
        >>> model = interlace_jax.compile("Reaction ~ Days + (1 + Days | Subject)", sleep)
        >>> model.with_response(sleep["Reaction"] / 1000).fit()
        <Fit of Reaction ~ Days + (1 + Days | Subject) by REML, 180 rows>
        """
        given = {"y": y, "weights": weights, "offset": offset}
        given = {
            name: self._row_vector(name, values)
            for name, values in given.items()
            if values is not None
        }
        if any(is_traced(values) for values in given.values()):
            self.engine.require("traced_rows")
            return TracedModel(self.design, given)
        return self.with_design(replace(self.design, **given))

    def with_design(self, design: Design) -> Self:
        """A model of another design, with the data and arguments of this one."""
        return type(self)(design, self.data, self.arguments, self.core_choice)

    def _row_vector(self, name, values):
        """One number for each row used, checked where it is known."""
        n = len(self.design.y)
        if np.shape(values) == (n, 1):  # as simulate(1) has it
            values = (values if hasattr(values, "reshape") else values.to_numpy()).reshape(n)
        if np.shape(values) != (n,):
            raise ValueError(
                f"{name} has shape {np.shape(values)}, but the model has {n} rows: give one "
                "number for each row used"
            )
        if is_traced(values):
            return values
        values = numbers(name, values)
        if bad := np.count_nonzero(~np.isfinite(values)):
            raise ValueError(
                f"{name} has {bad} missing or infinite values: give one number for each of the "
                f"{n} rows used"
            )
        if name == "weights" and values.min() <= 0:
            raise ValueError(
                "weights must be positive here: leave rows out where the model is compiled"
            )
        return values

    def update(self, formula: str | None = None, data: Any = None, **arguments: Any) -> Self:
        """The model of a changed formula or other data.

        In `formula` a dot stands for what was there, and so does an empty left side: `". ~ . + x"`,
        `"~ . + x"`. On the right it is a summand: a product or power of it is refused.
        arguments: `weights offset na_action cov residual dispersion contrasts core`.

        >>> sleep = interlace_jax.load_dataset("sleepstudy")
        >>> model = interlace_jax.compile("Reaction ~ Days + (1 + Days | Subject)", sleep)
        >>> model.update("~ . - Days")
        <Model of Reaction ~ Days - Days + (1 + Days | Subject), 180 rows>
        """
        old = self.design.formula
        dispersion = f"~ {old.dispersion}" if isinstance(old.dispersion, str) else old.dispersion
        kept: dict[str, Any] = dict(core=self.core_choice, contrasts=old.contrasts)
        kept |= dict(residual=old.residual, dispersion=dispersion)
        kept |= {name: self.arguments[name] for name in kept if name in self.arguments}
        is_coded_anew = "contrasts" in arguments
        given = {name: arguments.pop(name, value) for name, value in kept.items()}
        if unknown := set(arguments) - set(self.arguments):
            known = ", ".join([*self.arguments, *kept])
            raise TypeError(f"update() takes {known}, not {', '.join(sorted(unknown))}")
        left, right = old.response or "", str(old).partition("~")[2].strip()
        new_left, tilde, new_right = (formula or ". ~ .").partition("~")
        _check_dots(new_right)
        text = (
            _fill_dots(new_left if new_left.strip() else ".", left)
            + tilde
            + _fill_dots(new_right, right)
        )
        if not is_coded_anew:
            given["contrasts"] = tuple(pair for pair in old.contrasts if _names(text, pair[0]))
        return self.of(
            text, self.data if data is None else data, **self.arguments | arguments | given
        )

    def checked_theta(self, theta: Any) -> np.ndarray:
        """Theta (d,) as finite floats, refused otherwise."""
        theta, d = numbers("theta", theta), self.design.parameter_count
        if theta.shape != (d,) or not np.isfinite(theta).all():
            raise ValueError(f"theta of this model is {d} finite numbers, not {theta!r}")
        return theta


_DOT = re.compile(r"(?<![\w.)\]])\.(?![\w.(])")
"A `.` that is a term of its own."


def _check_dots(right: str) -> None:
    """Refuse dots that are no summands: the terms that they stand for would be torn apart, as in
    z * x + f.
    """
    for dot in _DOT.finditer(right):
        before, after = right[: dot.start()].rstrip(), right[dot.end() :].lstrip()
        if not (before.endswith("+") or not before) or not (
            after.startswith(("+", "-")) or not after
        ):
            raise ValueError(
                f"the '.' in {right.strip()!r} stands for all terms there were, which can have "
                'others added or taken away, as in "~ . + x"; write the whole formula for anything '
                "else"
            )


def _names(text: str, variable: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(variable)}(?![\w.])", text) is not None


def _fill_dots(text: str, old: str) -> str:
    return _DOT.sub(old.replace("\\", r"\\"), text)
