"""The core as one dense matrix, or none at all: exact numbers, for cores of up to a few thousand
columns.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from functools import partial

import numpy as np

from ..numerics.crossproducts.layout import bucket
from ..numerics.crossproducts.merged import by_level, merged
from ..numerics.crossproducts.moments import Moments, moments
from ..numerics.estimation.boundary import near_zero, settle
from ..numerics.estimation.estimate import Estimate, attempts, finish, is_exhausted, search
from ..numerics.estimation.start import begin, moment_start
from ..numerics.likelihood.coordinates import to_conditioned, to_user
from ..numerics.likelihood.gaussian import deviance, objective
from ..numerics.likelihood.random_effects import (
    mode_covariances,
    mode_covariances_by_level,
    modes,
    modes_by_class,
)
from ..numerics.uncertainty.curvature import Curvature, curvature, jacobian
from ..runtime.calls import run
from ..runtime.compilation import brief, jit, light
from ..runtime.island import island
from ..support.later import is_jax_array, jax
from .chunked_moments import LARGE, moments_by_chunks
from .engine import Engine
from .packing import padded_model, plan_of

# conditioned parameters of a user's start below this start at 0, where saddles are recognised
AT_ZERO = 1e-4
LARGE_CURVATURE = 1 << 22  # numbers of residuals times parameters from which a Hessian takes long
SMALL = 1 << 23  # numbers of a model up to which a search takes a tenth of a second or less


OF_FITTED = (
    'is not offered with dispersion=Power("fitted"), whose variances depend on the fit itself: '
    "give the power of a column"
)
REFITS = ("profiles", "deletion", "bootstrap", "cross_validation", "power", "jackknife")


class Dense(Engine):
    """A model by its `Moments`."""

    name = "dense"

    @property
    def missing(self) -> dict[str, str]:
        """What variances leave out that depend on the fit itself."""
        return dict.fromkeys(REFITS, OF_FITTED) if self.design.is_power_of_fitted else {}

    @functools.cached_property
    def products(self) -> Moments:
        """Conditioned cross-products of the data, as NumPy arrays."""
        d = self.design
        if len(d.y) < LARGE or d.residual is not None:
            return run(_moments, *padded_model(d, bucket))
        Z, K = ([getattr(f, name) for f in d.factors] for name in ("Z", "K"))
        return moments_by_chunks(plan_of(d, bucket), d.y, d.X, Z, d.weights, d.offset, K)

    @functools.cached_property
    def searched(self) -> Moments:
        """What the likelihood is computed from: the products, or sums of them that say the same."""
        return merged(self.products)

    @property
    def _is_merged(self) -> bool:
        return self.searched is not self.products

    def start(self) -> np.ndarray:
        """Moment estimates of lme4's theta (d,)."""
        return run(_start, self.products)

    def deviance(self, theta, reml: bool):
        """-2 log L_REML or -2 log L at theta (d,), a NumPy or a JAX array."""
        if is_jax_array(theta):
            return island(lambda theta: _deviance(theta, self.searched, reml))(theta)
        return float(run(_deviance, theta, self.searched, reml))

    def estimate(self, reml: bool, theta0: np.ndarray | None) -> Estimate:
        """`estimation.estimate`, compiled piece by piece: few fits need the boundary, which
        takes long to compile.
        """
        m, steps = self.searched, 0
        t = None if theta0 is None else run(_conditioned, theta0, m)
        t = None if t is None else np.where(np.abs(t) < AT_ZERO, 0.0, t)
        for _ in range(attempts(m.layout.blocks)):
            made = run(_search, m, reml, t)
            steps += int(made.steps)
            t, restart = made.t, is_exhausted(made.status, made.deviance)
            if near_zero(t, m.layout.blocks).any():
                t, is_saddle = run(_settle, t, m, reml)
                made = run(
                    _finish,
                    t,
                    m,
                    reml,
                    made.gradient,
                    made.predicted_decrease,
                    made.steps,
                    made.status,
                )
                restart |= is_saddle
            if not restart:
                break
        return replace(made, steps=steps)

    def modes(self, e: Estimate) -> list[np.ndarray]:
        """Conditional modes (m, k) by factor; m may be padded."""
        m = self.products
        if self._is_merged:
            return run(_modes_by_class, e.t, self.searched, m.ZX, m.E)
        return run(_modes, e.t, m)

    def mode_covariances(self, e: Estimate) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Conditional covariances over sigma^2 (m, k, k) by factor, and the errors (m, k) of
        variances: none.
        """
        if self._is_merged:
            found = run(_mode_covariances_by_level, e.t, by_level(self.products))
        else:
            found = run(_mode_covariances, e.t, self.products)
        return found, [np.zeros(S.shape[:2]) for S in found]

    def curvature(self, e: Estimate, reml: bool) -> Curvature:
        """Second-order facts at an estimate."""
        made = _straight_curvature if self._is_long(len(e.t)) else _curvature
        return run(made, e.t, np.log(e.sigma), self.searched, reml)

    def _is_long(self, directions: int) -> bool:
        """Whether residuals that covary make the curvature long; without them JAX is not needed."""
        residual = self.products.residual
        if residual is None:
            return False
        return sum(map(np.size, jax.tree.leaves(residual))) * directions > LARGE_CURVATURE

    def hessian(self, e: Estimate, reml: bool) -> np.ndarray:
        """Hessian (d, d) of the profiled deviance in conditioned parameters."""
        return run(_hessian, e.t, self.searched, reml)


def _is_small(*args) -> bool:
    """Whether what a light program runs longer is nothing to what its compilation saves."""
    return sum(map(np.size, jax.tree.leaves(args))) <= SMALL


_moments = light(jit(moments))
_finish = light(jit(finish))
_modes = light(jit(modes))
_mode_covariances = light(jit(mode_covariances))
_modes_by_class = light(jit(modes_by_class))
_mode_covariances_by_level = light(jit(mode_covariances_by_level))
_light_if_small = partial(light, where=_is_small)
_settle = _light_if_small(jit(settle))
_curvature = _light_if_small(jit(curvature))


@jit
def _straight_curvature(t, log_sigma, m, reml):
    return curvature(t, log_sigma, m, reml, straight=True)


@_light_if_small
@jit
def _search(m, reml, t):
    found = search(m, reml, begin(t, m))
    return finish(
        found.optimum, m, reml, found.g, found.predicted_decrease, found.steps, found.status
    )


@_light_if_small
@jit
def _hessian(t, m, reml):
    return jacobian(lambda t: jax.grad(objective)(t, m, reml), t)[1]


@brief
@jit
def _start(m):
    return to_user(moment_start(m), m.layout, m.A)


@brief
@jit
def _conditioned(theta, m):
    return to_conditioned(theta, m.layout, m.A)


@jit
def _deviance(theta, m, reml):
    return deviance(to_conditioned(theta, m.layout, m.A), m, reml)
