"""The model of a formula whose rows are traced: a fit inside `jit`, `grad` or `vmap`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from ..design.design import Design
from ..engines.packing import padded_model
from ..numerics.crossproducts.moments import Moments, moments
from ..numerics.estimation.estimate import Estimate, estimate
from ..numerics.likelihood.coordinates import to_conditioned
from ..numerics.likelihood.gaussian import deviance
from ..runtime.calls import own_rules
from ..runtime.compilation import jit
from ..runtime.island import island
from ..support.later import is_traced, jax, jnp


class TracedModel:
    """A mixed model as functions of its rows: what `Model.with_response` gives of arrays that JAX
    traces.

    `deviance`, `loglik` and `estimate` have derivatives of every order, forward and reverse, by the
    traced rows (and by theta). They are evaluated in float64 whatever JAX's setting, and return the
    dtype of the rows. Outside 64-bit mode every derivative is made of the whole Jacobian, which is
    dear only where thousands of numbers by thousands of rows are asked for. Rows are not checked: a
    missing value gives missing results.
    """

    def __init__(self, design: Design, rows: dict[str, Any]):
        """rows: `y X weights offset`, those given, as NumPy arrays or traced; the design has the
        others.
        """
        concrete = {name: a for name, a in rows.items() if not is_traced(a)}
        self.design = replace(design, **concrete)
        self.traced = {name: a for name, a in rows.items() if name not in concrete}

    @property
    def moments(self) -> Moments:
        """Cross-products of the rows for the array-level functions, in JAX's own precision."""
        plan, Z, rows, K = self._arguments()
        rows, Z, K = jax.tree.map(
            partial(jnp.asarray, dtype=jnp.result_type(float, *self.traced.values())),
            (rows | self.traced, Z, K),
        )
        return moments(plan, Z=Z, K=K, **rows)

    def deviance(self, theta, reml: bool = True):
        """-2 log L_REML (or -2 log L) at theta (d,), with beta and sigma at their optimum."""
        return self._in_float64(_deviance, reml, jnp.asarray(theta))

    @own_rules()
    def loglik(self, theta, reml: bool = True):
        """Log-likelihood (restricted by default) at theta (d,): minus half of `deviance`."""
        return -0.5 * self.deviance(theta, reml)

    def estimate(self, reml: bool = True) -> Estimate:
        """The fitted model, as arrays; its derivatives are those of `interlace_jax.estimate`."""
        found = self._in_float64(_estimate, reml)
        steps, status = found.steps.astype(jnp.int32), found.status.astype(jnp.int32)
        return replace(
            found, steps=steps, status=status, vanishing=[v.astype(bool) for v in found.vanishing]
        )

    def _in_float64(self, function, reml, *theta):
        """`function` of the rows, to be differentiated by those that are traced and by theta."""
        plan, Z, rows, K = self._arguments()

        def of_arrays(*arrays):
            given = rows | dict(zip(self.traced, arrays, strict=False))
            return function(plan, Z, given, K, reml, *arrays[len(self.traced) :])

        return island(of_arrays)(*self.traced.values(), *theta)

    def _arguments(self):
        plan, y, X, Z, weights, offset, K = padded_model(self.design, int)
        return plan, Z, dict(y=y, X=X, weights=weights, offset=offset), K


@jit
def _deviance(plan, Z, rows, K, reml, theta):
    m = moments(plan, Z=Z, K=K, **rows)
    return deviance(to_conditioned(theta, m.layout, m.A), m, reml)


@jit
def _estimate(plan, Z, rows, K, reml):
    """All in floating point, as what is differentiated must be."""
    found = estimate(moments(plan, Z=Z, K=K, **rows), reml)
    return jax.tree.map(lambda a: a.astype(rows["y"].dtype), found)
