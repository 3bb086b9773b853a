"""The core without a matrix: crossed factors with any number of levels, in time and memory linear
in the rows.

The log-likelihood is an average over random probes, the same ones in the whole fit, and so a smooth
function of theta. What the choice of probes does is measured at the optimum, and more are taken
until it is small.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import jax
import numpy as np

from ..design.design import Design
from ..numerics.covariance.block import Block
from ..numerics.covariance.parameters import canonical_parameters, columns
from ..numerics.crossproducts.cells import Products, assemble, by_size
from ..numerics.crossproducts.layout import bucket
from ..numerics.crossproducts.moments import Moments
from ..numerics.estimation.bfgs import CONVERGED, RUNNING, Bfgs, resume, step
from ..numerics.estimation.boundary import (
    FREE_RISE,
    NEAR_ZERO,
    PROBE,
    Settled,
    leave_saddle,
    near_zero,
    zero_columns,
)
from ..numerics.estimation.estimate import Estimate, attempts, describe
from ..numerics.estimation.start import begin, moment_start
from ..numerics.likelihood import stochastic
from ..numerics.likelihood.coordinates import to_conditioned, to_user
from ..numerics.likelihood.stochastic import Evaluation, deviance, evaluate
from ..numerics.likelihood.stochastic_effects import mode_covariances, modes
from ..numerics.uncertainty.curvature import Curvature, parameter_covariance
from ..runtime.calls import float64, run
from ..runtime.compilation import brief, in_order, jit, light
from ..runtime.devices import devices, gathered, local_devices
from ..runtime.island import island
from .chunked_moments import moments_by_chunks
from .engine import Engine

ROWS = 1 << 20  # of a chunk
SEED = 20250711  # of the probes: the same data give the same numbers
PROBES = (8, 16, 32, 64, 128)
NOISE = 0.05  # standard error of the deviance above which more probes are taken
# deviance units by which the probes may move the optimum, per parameter: 0.5% of a standard error
EXCESS = 2e-5
# predicted decrease at which the search stops, before and after the noise is known
COARSE, FINE = 1e-4, 1e-9
# relative standard error of conditional standard deviations above which more probes are taken
SD_ERROR = 0.01


@dataclass(frozen=True)
class NoisyEstimate(Estimate):
    """An estimate that depends on random probes."""

    excess: float
    "Expected rise of the deviance above its minimum because the probes move theta."
    by_probe: np.ndarray
    "(T,) the part of the deviance that is estimated, by every probe."
    noise: float
    "Standard error of the deviance."

    @property
    def probes(self):
        """Number of probes."""
        return len(self.by_probe)

    @property
    def theta_noise(self):
        """Error of theta, root mean square in its standard errors: the deviance rises by the
        squares of these.
        """
        return float(np.sqrt(self.excess / max(len(self.t), 1)))

    @property
    def converged(self):
        """Whether what is left to gain is less than what the probes hide."""
        return self.status == CONVERGED


NEED_MATRIX = (
    "moments",
    "traced_rows",
    "kenward_roger",
    "prediction_intervals",
    "profiles",
    "leverages",
    "deletion",
    "deletion_beside_the_data",
    "jackknife",
    "bootstrap",
    "cross_validation",
    "power",
)
NEEDS_MATRIX = (
    'needs the dense core, but this model is fitted with core="iterative"; fit it '
    'with core="dense" where its levels are few enough'
)


class Iterative(Engine):
    """A model by its sparse `Products`."""

    name = "iterative"
    missing = dict.fromkeys(NEED_MATRIX, NEEDS_MATRIX)

    @functools.cached_property
    def products(self) -> Products:
        """Conditioned sparse cross-products of the data: NumPy arrays, and the cells on all of
        JAX's devices.
        """
        return self._assembled(devices())

    @functools.cached_property
    def own_products(self) -> Products:
        """The products on this process's devices: a program of the user's must not hold arrays
        that are elsewhere.
        """
        return self.products if devices() == local_devices() else self._assembled(local_devices())

    def _assembled(self, places):
        d = self.design
        Z = [f.Z for f in d.factors]
        plan = by_size([f.codes for f in d.factors], [_padded(f.block) for f in d.factors])
        moments = moments_by_chunks(plan, d.y, d.X, Z, d.weights, d.offset, rows=ROWS)
        if places != local_devices():
            _require_agreement(d, moments)
        with float64():
            return assemble(plan, moments, Z, d.weights, places)

    def __getstate__(self):
        """Without the products: arrays on devices do not travel."""
        return {"design": self.design}

    def start(self) -> np.ndarray:
        """Moment estimates of lme4's theta (d,)."""
        return run(_start, self.products)

    def probes(self, count: int) -> np.ndarray:
        """Random signs (q, count) for the factors that iterations work on."""
        return _signs(self.products.G[1:], count)

    def deviance(self, theta, reml: bool):
        """-2 log L_REML or -2 log L at theta (d,), a NumPy or a JAX array.

        Second derivatives are differences of the gradient. Of a batch, thetas are evaluated one
        after the other.
        Traced, in a job of several processes, it is the work of each process alone: see
        `own_products`.
        """
        m = self.own_products if isinstance(theta, jax.core.Tracer) else self.products
        probes = _signs(m.G[1:], PROBES[0])
        if isinstance(theta, jax.Array):
            return island(lambda theta: _deviance(theta, m, probes, reml))(theta)
        return float(run(_deviance, theta, m, probes, reml))

    def estimate(self, reml: bool, theta0: np.ndarray | None) -> NoisyEstimate:
        """Search for the optimum, with as many probes as it takes."""
        t = None if theta0 is None else run(_conditioned, theta0, self.products)
        state = run(_begin, t, self.products)
        steps, count, needed = 0, 0, PROBES[0]
        while needed > count:
            count = needed
            search = Search(self.products, self.probes(count), reml)
            state = search.minimise(run(_resume, state.x, state.H), COARSE)
            excess = 0.5 * float(np.sum(state.H * search.at.gradient_cov))
            steps += int(state.steps)
            needed = _probes_for(
                count * max((search.at.noise / NOISE) ** 2, excess / (EXCESS * len(state.x)))
            )
        fine = max(FINE, 0.1 * excess)
        state, more = search.finish(state._replace(status=np.int32(RUNNING)), fine)
        return search.describe(state, steps + more, excess)

    def modes(self, e: NoisyEstimate) -> list[np.ndarray]:
        """Conditional modes (m, k) by factor."""
        return run(_modes, e.t, self.products)

    def mode_covariances(self, e: NoisyEstimate) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Conditional covariances over sigma^2 (m, k, k) by factor, and standard errors (m, k) of
        their diagonals.

        To SD_ERROR, or with as many probes as there may be.
        """
        m = self.products
        count, needed = 0, _probes_for(32)
        while needed > count:
            count = needed
            signs = self.probes(count), _signs(m.G[:1], count)
            covariances, errors = run(_mode_covariances, e.t, m, *signs)
            variances = [np.einsum("mkk->mk", c) for c in covariances]
            relative = [
                0.5 * error / np.maximum(v, 1e-300)
                for v, error in zip(variances, errors, strict=True)
            ]
            worst = max(float(r.max()) for r in relative)
            needed = _probes_for(count * (worst / SD_ERROR) ** 2)
        if worst > SD_ERROR:
            warnings.warn(
                f"conditional standard deviations of random effects are estimated from {count} "
                f"random probes, to within a standard error of {worst:.1%} or less: see "
                "`random_effects_se_noise`",
                stacklevel=2,
            )
        return covariances, errors

    def curvature(self, e: NoisyEstimate, reml: bool) -> Curvature:
        """Second-order facts at an estimate, by central differences of the gradient at fixed
        probes.
        """
        m, d, sigma = self.products, len(e.t), float(e.sigma)
        free = np.append(self._free(e), True)
        both = free[:, None] & free[None]
        H, dvcov = np.eye(d + 1), np.zeros((d + 1, *e.vcov.shape))
        lack = (float(m.scale) / sigma) ** 2
        for i, (slope, high, low, width) in self._differences(e, reml, sigma):
            H[i, :d] = slope
            H[i, d] = H[d, i] = -2.0 * lack * (high.r2 - low.r2) / width
            dvcov[i] = (_vcov(high, m, sigma) - _vcov(low, m, sigma)) / width
        H[d, d] = 4.0 * lack * self.evaluate(e.t, e, reml).r2
        H[:d, :d] = 0.5 * (H[:d, :d] + H[:d, :d].T)
        dvcov[d] = 2.0 * e.vcov
        W = run(_parameter_covariance, np.where(both, H, np.eye(d + 1)))
        return Curvature(e.vcov, dvcov, np.where(both, W, 0.0))

    def hessian(self, e: NoisyEstimate, reml: bool) -> np.ndarray:
        """Hessian (d, d) of the profiled deviance in conditioned parameters, by the same
        differences.
        """
        H = np.zeros((len(e.t),) * 2)
        for i, (slope, *_) in self._differences(e, reml, 0.0):
            H[i] = slope
        return 0.5 * (H + H.T)

    def noise_of_difference(self, e: NoisyEstimate, other: Engine, theirs: Estimate) -> float:
        """From the differences by probe where both fits had the same ones: much of the noise
        cancels.

        They have, where what iterations work on has the same size.
        """
        if not isinstance(other, Iterative):
            return super().noise_of_difference(e, other, theirs)
        if not np.array_equal(self.probes(e.probes), other.probes(theirs.probes)):
            return super().noise_of_difference(e, other, theirs)
        return float(np.std(e.by_probe - theirs.by_probe, ddof=1) / np.sqrt(e.probes))

    def remarks(self, e: NoisyEstimate) -> list[str]:
        """How far the random probes leave the criterion and theta uncertain."""
        return [
            f"Iterative core: the criterion is known to within a standard error of {e.noise:.2g}, "
            f"theta to within {e.theta_noise:.1g} of its standard errors"
        ]

    def _free(self, e):
        _, zero = zero_columns(e.t, self.products.layout.blocks)
        return ~np.asarray(zero)

    def evaluate(
        self, t: np.ndarray, e: NoisyEstimate, reml: bool, sigma: float = 0.0
    ) -> Evaluation:
        """`iterative.evaluate` at t (d,) with the probes of an estimate."""
        return run(_evaluate, t, self.products, self.probes(e.probes), reml, sigma)

    def _differences(self, e, reml, sigma):
        """For every parameter of a column that is not zero: slope of the gradient, both
        evaluations, their distance.
        """
        for i in np.flatnonzero(self._free(e)):
            along = np.diag(stochastic.steps(e.t))[i]
            high, low = (self.evaluate(e.t + s * along, e, reml, sigma) for s in (1.0, -1.0))
            width = 2.0 * along[i]
            yield i, ((high.gradient - low.gradient) / width, high, low, width)


class Search:
    """The search for the optimum with one set of probes."""

    def __init__(self, products: Products, probes: np.ndarray, reml: bool):
        self.products, self.probes, self.reml = products, probes, reml
        self.at = None  # the evaluation at the best point

    def evaluate(self, t: np.ndarray) -> Evaluation:
        """Deviance, gradient and what they are made of."""
        return run(_evaluate, t, self.products, self.probes, self.reml, 0.0)

    def minimise(self, state: Bfgs, tol: float) -> Bfgs:
        """BFGS until the predicted decrease is below tol."""
        while state.status == RUNNING:
            found = self.evaluate(state.x + state.a * state.direction)
            state = run(_judge, state, found.deviance, found.gradient, tol)
            if self.at is None or state.f == found.deviance:
                self.at = found
        return state

    def finish(self, state: Bfgs, tol: float) -> tuple[Bfgs, int]:
        """Go on to the end, and look at columns of Lambda that are nearly zero; and how many
        evaluations it took.
        """
        before, steps = int(state.steps), 0
        for _ in range(attempts(self.products.layout.blocks)):
            state = self.minimise(state, tol)
            steps += int(state.steps) - before + 1
            t = run(_last, state, self.products)
            self.at = self.evaluate(t)
            if not near_zero(t, self.products.layout.blocks).any():
                break
            t, restart = self.settle(t)
            if not restart:
                break
            state, before = run(_begin, t, self.products), 0
        return state._replace(x=t), steps

    def settle(self, t: np.ndarray) -> Settled:
        """`estimation.settle` by evaluations one by one: compiled as one program they take
        longer than the fit.
        """
        blocks = self.products.layout.blocks
        for i in [column[0] for column in columns(blocks)]:
            if abs(t[i]) < NEAR_ZERO:
                candidate = run(_canonical, np.where(np.arange(len(t)) == i, 0.0, t), self.products)
                found = self.evaluate(candidate)
                if found.deviance <= self.at.deviance + FREE_RISE:
                    t, self.at = candidate, found
        probed = np.zeros((len(t),) * 2)
        for i in np.flatnonzero(zero_columns(t, blocks)[1]):
            probed[i] = self.evaluate(t + PROBE * np.eye(len(t))[i]).gradient / PROBE
        return run(_leave_saddle, t, probed, self.products)

    def describe(self, state: Bfgs, steps: int, excess: float) -> NoisyEstimate:
        """The estimate at the end."""
        gradient = self.at.gradient
        decrease = 0.5 * gradient @ state.H @ gradient
        status = np.int32(CONVERGED) if decrease < COARSE else state.status
        made = run(
            _describe,
            state.x,
            self.at.reduced,
            self.products,
            self.reml,
            gradient,
            decrease,
            steps,
            status,
        )
        known = {f.name: getattr(made, f.name) for f in fields(made)}
        return NoisyEstimate(
            **known, excess=excess, noise=float(self.at.noise), by_probe=self.at.by_probe
        )


def _probes_for(wanted: float) -> int:
    """The number of probes that is at least as wanted, or the largest there is."""
    return next((count for count in PROBES if count >= wanted), PROBES[-1])


def _require_agreement(design: Design, moments: Moments) -> None:
    """All processes that share the cells must have the same data, or they would wait for each
    other for ever.
    """
    facts = str(design.formula), len(design.y), f"{moments.scale:.6g}", f"{moments.log_weights:.6g}"
    if len(set(gathered([facts]))) > 1:
        raise ValueError(
            "the processes of this job have different data, but fit a model of this size "
            "together: give all of them the same, or fit apart, each inside `with "
            "jax.default_device(jax.local_devices()[0])`"
        )


def _padded(block: Block) -> Block:
    """A block with more levels, so that similar data share compiled programs."""
    return replace(block, levels=bucket(block.levels))


def _signs(G: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Random signs (rows, count) for all levels of some factors, and 0 for those without data:
    padded ones.
    """
    has_data = np.concatenate([np.tile(g.any((0, 1)), len(g)) for g in G])
    rows, found = np.count_nonzero(has_data), np.zeros((len(has_data), count))
    found[has_data] = np.random.default_rng([SEED, rows, count]).choice([-1.0, 1.0], (rows, count))
    return found


def _vcov(found: Evaluation, m: Products, sigma: float) -> np.ndarray:
    half = np.linalg.inv(m.R)
    return sigma**2 * half @ np.linalg.inv(found.reduced.XX) @ half.T


def _is_slim(t: np.ndarray, m: Products, *rest) -> bool:
    """Whether an evaluation is little more than gathers, and of so few rows that the rest is
    nothing to compiling.
    """
    return max(b.k for b in m.layout.blocks) <= 2 and m.n < 1e7


_evaluate = light(in_order(jit(evaluate)), _is_slim)
_modes = light(in_order(jit(modes)), _is_slim)
_mode_covariances = light(in_order(jit(mode_covariances)), _is_slim)
_parameter_covariance = brief(jit(parameter_covariance))
_describe = brief(jit(describe))
_resume = brief(jit(resume))


@brief
@jit
def _conditioned(theta, m):
    return to_conditioned(theta, m.layout, m.A)


@brief
@jit
def _start(m):
    return to_user(moment_start(m), m.layout, m.A)


@brief
@jit
def _canonical(t, m):
    return canonical_parameters(t, m.layout.blocks)


@brief
@jit
def _begin(t, m):
    return begin(t, m)


@brief
@jit
def _last(state, m):
    return canonical_parameters(state.optimum, m.layout.blocks)


@brief
@jit
def _judge(state, value, gradient, tol):
    return step(lambda t: (value, gradient), state, tol)


@jit
def _deviance(theta, m, probes, reml):
    return deviance(to_conditioned(theta, m.layout, m.A), m, probes, reml)


@brief
@jit
def _leave_saddle(t, probed, m):
    return leave_saddle(t, probed, m.layout.blocks)
