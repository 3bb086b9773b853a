"""A generalised model by Laplace's approximation: everything that needs its parameters and the
data.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace

import numpy as np

from ..numerics.crossproducts.layout import bucket
from ..numerics.estimation import bfgs, generalized
from ..numerics.estimation.boundary import near_zero
from ..numerics.estimation.estimate import NEGLIGIBLE, attempts
from ..numerics.estimation.generalized import Begun
from ..numerics.families.family import Distribution
from ..numerics.likelihood import quadrature
from ..numerics.likelihood.coordinates import to_conditioned
from ..numerics.likelihood.laplace import Modes, Place
from ..numerics.uncertainty.curvature import Curvature, parameter_covariance
from ..runtime.calls import run
from ..runtime.compilation import brief, in_order, jit, light
from ..runtime.island import island
from ..support.later import is_jax_array, jnp
from .engine import CAPABILITIES, Engine
from .packing import padded_rows

# curvature of the deviance by a free number of the family below which it is not determined
FLAT = 1e-3
AVAILABLE = (
    "checks",
    "plots_of_rows",
    "profiles",
    "bootstrap",
    "report",
    "equation",
    "cross_validation",
    "deletion",
)
LARGE = 1 << 17  # numbers of a model from which on programs are waited for while XLA compiles them


def program(function):
    """A kernel compiled to run fast, as is done aside while it runs as NumPy, and to be compiled
    fast.
    """
    return in_order(jit(function)), light(jit(function))


@dataclass(frozen=True, eq=False)
class GeneralizedEstimate:
    """A fitted generalised model as arrays, in the user's units unless said otherwise."""

    theta: np.ndarray
    "(d,) lme4's order; absolute: b ~ N(0, Lambda Lambda')."
    beta: np.ndarray
    gamma: np.ndarray
    "(r,) of the family's parameters, on their free scales."
    deviance: np.ndarray
    gradient: np.ndarray
    "(d,) absolute derivatives by conditioned t; 0 for columns of Lambda that are zero."
    predicted_decrease: np.ndarray
    steps: int
    trips: int
    status: int
    zero: np.ndarray
    "(d,) whether the column of Lambda that an entry belongs to is zero, in conditioned order."
    vanishing: list
    x: Place = field(repr=False)
    "Conditioned coordinates."
    H: np.ndarray = field(repr=False)
    "Inverse curvature in conditioned coordinates as BFGS has it."
    u: list = field(repr=False)
    b: list = field(repr=False)
    "Modes of the random effects (m, k) by factor; m may be padded."
    mode_decrement: float
    "How far the modes are from theirs, in deviance units."
    mode_residual: float
    eta: np.ndarray = field(repr=False)
    score: np.ndarray = field(repr=False)
    W: np.ndarray = field(repr=False)
    W0: np.ndarray = field(repr=False)
    "(n,) observed information of the rows, and what it would be had all rows one mean."
    jacobian: np.ndarray = field(repr=False)
    "Of (theta, beta, gamma) by conditioned coordinates."

    sigma = 1.0
    noise = theta_noise = 0.0

    @property
    def t(self) -> np.ndarray:
        """Conditioned parameters of the random effects (d,)."""
        return self.x.t

    @property
    def converged(self) -> bool:
        """Whether what is left to gain is negligible."""
        done = np.isfinite(self.deviance) & (self.predicted_decrease < NEGLIGIBLE)
        return bool((self.status == bfgs.CONVERGED) | done)


class Laplace(Engine):
    """A generalised model by the rows themselves, which are looked at again at every trial."""

    name = "laplace"
    missing = {
        name: "is for linear mixed models so far, not for one with a family"
        for name in CAPABILITIES
        if name not in AVAILABLE
    } | {
        "moments": "needs moments of the rows, which do not suffice for a likelihood that is not "
        "Gaussian",
    }
    search = program(generalized.search)
    settle = program(generalized.settle)
    differences = program(generalized.joint_hessian)

    @property
    def family(self) -> Distribution:
        """The distribution of the response."""
        return self.design.observed.family

    def _run(self, programs, *args):
        """Run one of the programs, compiled as befits the size of the model."""
        usual, quick = programs
        size = self.design.X.size + sum(f.Z.size for f in self.design.factors)
        return run(usual if size < LARGE else quick, *args)

    @functools.cached_property
    def begun(self) -> Begun:
        """Conditioned rows and where the search starts, as NumPy arrays."""
        begun = self._run(_prepare, *padded_rows(self.design, bucket))
        self._require_start(begun)
        return begun

    @property
    def products(self):
        """The conditioned rows: what functions of theta need of layout and units."""
        return self.begun.data

    def _require_start(self, begun):
        """Refuse rows at which the family has no value, where the search would begin."""
        n = len(self.design.y)
        bad = ~np.isfinite(begun.values)[:n]
        if bad.any():
            i = int(np.argmax(bad))
            raise ValueError(
                f"the log-density of family {self.family.name!r} has no value where the search "
                f"would start, first in row {self.design.index[i]!r} (response "
                f"{self.design.y[i]:g}): is it a value that the family can have?"
            )

    def start(self) -> np.ndarray:
        """Moment estimates of theta (d,)."""
        return self.joint_start().t

    def joint_start(self) -> Place:
        """Where the search starts: theta, beta, gamma in the user's units, as `t c g`."""
        begun = self.begun
        return run(_user, begun.x, begun.data, begun.RD)

    def estimate(self, reml: bool, theta0: np.ndarray | None) -> GeneralizedEstimate:
        """Search for the optimum; a search that ends on a saddle, or too early, is repeated from
        there.
        """
        begun, steps, trips = self.begun, 0, 0
        data, x, H = begun.data, begun.x, begun.H
        u = [np.zeros((b.k, b.levels)) for b in data.layout.blocks]
        if theta0 is not None:
            x = x._replace(t=run(_conditioned_theta, theta0, data))
        for _ in range(attempts(data.layout.blocks)):
            found = self._run(self.search, data, x, H, Modes(tuple(u)))
            steps, trips = steps + int(found.steps), trips + int(found.trips)
            x, restart = _split(found.v, x), found.status == bfgs.EXHAUSTED and np.isfinite(found.f)
            if near_zero(x.t, data.layout.blocks).any() and np.isfinite(found.f):
                t, is_saddle = self._run(self.settle, data, x, Modes(tuple(found.u)))
                x, restart = x._replace(t=t), restart or bool(is_saddle)
            if not restart:
                break
        return self._described(x, found, steps, trips)

    def _described(self, x, found, steps, trips) -> GeneralizedEstimate:
        n, begun = len(self.design.y), self.begun
        facts = self._run(_facts, begun.data, x, Modes(tuple(found.u)), begun.RD)
        rows = {name: getattr(facts, name)[:n] for name in ("eta", "score", "W", "W0")}
        return GeneralizedEstimate(
            theta=facts.theta,
            beta=facts.beta,
            gamma=facts.gamma,
            deviance=facts.deviance,
            gradient=np.where(facts.zero, 0.0, np.abs(found.gradient[: len(x.t)])),
            predicted_decrease=found.predicted_decrease,
            steps=steps,
            trips=trips,
            status=int(found.status),
            zero=facts.zero,
            vanishing=facts.vanishing,
            x=x,
            H=found.H,
            u=facts.u,
            b=facts.b,
            mode_decrement=float(facts.decrement),
            mode_residual=float(facts.residual),
            jacobian=facts.jacobian,
            **rows,
        )

    def modes(self, e: GeneralizedEstimate) -> list[np.ndarray]:
        """Conditional modes (m, k) by factor; m may be padded."""
        return e.b

    def mode_covariances(self, e: GeneralizedEstimate) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Covariances given theta and beta (m, k, k) by factor, and the errors (m, k) of
        variances: none.
        """
        found = self._run(_mode_covariances, self.products, e.x, Modes(tuple(e.u)))
        return found, [np.zeros(S.shape[:2]) for S in found]

    def quadrature_gradient(self, e: GeneralizedEstimate, nodes: int) -> np.ndarray:
        """Gradient of the deviance by so many nodes in every dimension, in conditioned coordinates,
        at an estimate.
        """
        data = replace(self.products, nodes=nodes)
        return self._run(_evaluate, data, e.x, Modes(tuple(e.u)))[1]

    def joint_hessian(self, e: GeneralizedEstimate) -> np.ndarray:
        """Hessian of the deviance in all conditioned coordinates."""
        return self._run(self.differences, self.products, e.x, e.H, Modes(tuple(e.u)))

    def evaluate(self, e: GeneralizedEstimate, v: np.ndarray, near: list):
        """Deviance, gradient and mode at all conditioned coordinates v, which are like those of e.

        near: effects from which the mode is searched.
        """
        place = _split(v, e.x)
        f, gradient, u = self._run(_evaluate, self.products, place, Modes(tuple(near)))
        return float(f), gradient, u

    def runaway_numbers(self, H: np.ndarray, e: GeneralizedEstimate) -> np.ndarray:
        """Which numbers of the family (r,) run off to infinity: the deviance does not know their
        logarithm.
        """
        own = np.diagonal(H)[len(H) - len(e.gamma) :]
        return np.abs(own) < FLAT

    def hessian(self, e: GeneralizedEstimate, reml: bool) -> np.ndarray:
        """Hessian in the conditioned parameters of the random effects (d, d)."""
        d = len(e.x.t)
        return self.joint_hessian(e)[:d, :d]

    def curvature(self, e: GeneralizedEstimate, reml: bool) -> Curvature:
        """Covariances of the coefficients, and of the parameters of the random effects beside a
        sigma that is known.
        """
        return curvature_of(self.conditioned_covariance(e), e)

    def deviance(self, theta, reml: bool):
        """Refused: it is a function of all parameters, not of theta alone."""
        raise ValueError(
            "the deviance of a generalised model is a function of theta, beta and the family's "
            "numbers"
        )

    def joint_deviance(self, theta, beta, gamma, offset=None):
        """-2 log-likelihood at (theta, beta, gamma): a number for NumPy arrays, traceable for
        JAX arrays. offset (n,): in place of the design's.
        """
        begun, given = self.begun, (theta, beta, gamma)
        if offset is not None:
            given = (*given, offset - self.design.shift)
        if any(is_jax_array(a) for a in given):
            return island(lambda *at: _deviance(*at[:3], _moved(begun.data, *at[3:]), begun.RD))(
                *map(jnp.asarray, given)
            )
        return float(run(_deviance, *given[:3], _moved(begun.data, *given[3:]), begun.RD))

    def conditioned_covariance(self, e: GeneralizedEstimate) -> np.ndarray:
        """Covariance of all conditioned coordinates."""
        H = self.joint_hessian(e)
        flat = self.runaway_numbers(H, e)
        free = np.concatenate([~e.zero, np.ones(len(e.beta), bool), ~flat])
        V = np.zeros_like(H)
        V[np.ix_(free, free)] = run(_parameter_covariance, H[np.ix_(free, free)])
        return V


def curvature_of(V: np.ndarray, e: GeneralizedEstimate) -> Curvature:
    """What verbs ask of the covariance V of all conditioned coordinates."""
    d, p = len(e.theta), len(e.beta)
    W = np.zeros((d + 1, d + 1))
    W[:d, :d] = V[:d, :d]
    vcov = (e.jacobian @ V @ e.jacobian.T)[d : d + p, d : d + p]
    return Curvature(vcov, np.zeros((d + 1, p, p)), W)


def _split(v: np.ndarray, like: Place) -> Place:
    return Place(*np.split(v, np.cumsum([len(part) for part in like])[:-1]))


_prepare = program(generalized.prepare)
_facts = program(generalized.facts)
_evaluate = program(generalized.evaluate)
_mode_covariances = program(generalized.mode_covariances)
_parameter_covariance = brief(jit(parameter_covariance))


@brief
@jit
def _user(x, data, RD):
    return generalized.in_user_units(generalized.flat(x), data, x, RD)


@brief
@jit
def _conditioned_theta(theta, data):
    return to_conditioned(theta, data.layout, data.A)


def _moved(data, change=None):
    """The data with more in their offset; change (n,): of the rows used."""
    if change is None:
        return data
    xp = jnp if is_jax_array(change) else np
    unused = len(data.offset) - len(change)
    return replace(data, offset=data.offset + xp.concatenate([change, np.zeros(unused)]))


@jit
def _deviance(theta, beta, gamma, data, RD):
    return quadrature.deviance(generalized.in_conditioned_units(theta, beta, gamma, data, RD), data)
