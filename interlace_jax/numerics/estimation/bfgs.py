"""BFGS as one flat loop: a value-and-gradient a trip, accept or backtrack by selection.

Knows nothing of mixed models.

The same code serves one problem and, under `vmap`, many: there is no inner line-search loop for
lanes to wait in, and the objective appears once in the program, which halves the time to compile
it.
"""

from __future__ import annotations

from typing import NamedTuple

from ...support.later import jax, jnp, lax

RUNNING, CONVERGED, STALLED, EXHAUSTED = range(4)
STATUS = ("running", "converged", "stalled", "step limit")
MAX_STEPS = 300
FIRST_STEP, LONGEST_STEP = 0.5, 4.0  # no trial moves farther than this many times max(1, |x|)
FAR = 1e3  # |x| beyond which it is running off


class Bfgs(NamedTuple):
    """State of one minimisation; every field has a leading lane axis under `vmap`."""

    x: jax.Array  # (d,)
    f: jax.Array  # ()
    g: jax.Array  # (d,) gradient at x
    H: jax.Array  # (d, d) inverse Hessian approximation
    direction: jax.Array  # (d,) of the next trial
    a: jax.Array  # () its step length
    steps: jax.Array  # () evaluations so far
    status: jax.Array  # () RUNNING, ...

    @property
    def predicted_decrease(self):
        """0.5 g'Hg: how far f is above its minimum if the quadratic model holds; free of scale."""
        return 0.5 * jnp.einsum("...i,...ij,...j", self.g, self.H, self.g)

    @property
    def optimum(self):
        """The last x, less the step that is left where the search has converged, which need not
        be evaluated.
        """
        left = jnp.einsum("...ij,...j->...i", self.H, self.g)
        # on a saddle, H may be infinite
        is_step = (self.status == CONVERGED) & (self.predicted_decrease > 0.0)
        return self.x - jnp.where(is_step[..., None], left, 0.0)


def tolerance(dtype) -> float:
    """Predicted decrease that may be left after the last step: far below statistical meaning,
    above rounding.
    """
    return 1e-15 if dtype == jnp.float64 else 1e-5


def start(x, curvature) -> Bfgs:
    """The state before the first evaluation, which `step` makes at x itself. curvature (d,):
    rough Hessian diagonal.
    """
    return resume(x, jnp.diag(1.0 / jnp.maximum(curvature, 1e-6 * jnp.max(curvature))))


def resume(x, H) -> Bfgs:
    """The state before the first evaluation, with the inverse Hessian H (d, d) of a similar
    function.
    """
    zero, nowhere = jnp.zeros((), x.dtype), jnp.zeros_like(x)
    return Bfgs(x, zero + jnp.inf, nowhere, H, nowhere, zero, jnp.int32(0), jnp.int32(RUNNING))


def step(value_and_grad, s: Bfgs, tol) -> Bfgs:
    """Evaluate one trial: take it and update the curvature, or shorten the step.

    Finished states stay as they are.
    """
    first = s.steps == 0
    x = s.x + s.a * s.direction
    f, g = value_and_grad(x)
    slope = s.g @ s.direction
    ok = _is_accepted(s, f, g, slope)

    H = jnp.where(ok & ~first, _updated(s.H, x - s.x, g - s.g), s.H)
    shortened = _shortened(s, f, slope)
    x, f, g = jnp.where(ok, x, s.x), jnp.where(ok, f, s.f), jnp.where(ok, g, s.g)
    direction = jnp.where(ok, -H @ g, s.direction)
    reach = jnp.where(first, FIRST_STEP, LONGEST_STEP) * jnp.maximum(1.0, jnp.linalg.norm(x))
    longest = jnp.minimum(1.0, reach / jnp.maximum(jnp.linalg.norm(direction), 1e-30))
    a = jnp.where(ok, longest, shortened)
    new = Bfgs(x, f, g, H, direction, a, s.steps + 1, s.status)
    new = new._replace(status=_status(s, new, ok, tol))
    return jax.tree.map(lambda old, now: jnp.where(s.status == RUNNING, now, old), s, new)


def _is_accepted(s: Bfgs, f, g, slope):
    """Whether a trial with value f and gradient g is taken; slope: along the step, where it
    began.
    """
    noise = 1e-12 if g.dtype == jnp.float64 else 1e-6
    slope_at_trial = g @ s.direction
    armijo = f <= s.f + 1e-4 * s.a * slope
    # Near the optimum f drowns in rounding while gradients still tell (approximate Wolfe, Hager &
    # Zhang 2005, eq. 4.1).
    flat = (f <= s.f + noise * jnp.abs(s.f)) & (jnp.abs(slope_at_trial) <= 0.9 * jnp.abs(slope))
    return (armijo | flat) & jnp.isfinite(f) & jnp.all(jnp.isfinite(g))


def _shortened(s: Bfgs, f, slope):
    """The step length after a trial that was not taken: the minimum of the parabola, within
    bounds.
    """
    parabola = -slope * s.a**2 / (2.0 * (f - s.f - slope * s.a))
    shortened = jnp.clip(parabola, 0.1 * s.a, 0.5 * s.a)
    return jnp.where(jnp.isfinite(shortened), shortened, 0.1 * s.a)


def _status(s: Bfgs, new: Bfgs, ok, tol):
    """How things stand after a trial; tol: predicted decrease that may be left."""
    first, x = s.steps == 0, new.x
    last = 1e3 if x.dtype == jnp.float64 else 1.0
    gain, before = new.predicted_decrease, s.predicted_decrease
    # The last step, which is not evaluated, may gain so many times what it may leave if it goes on
    # as it went.
    left = gain * jnp.minimum(gain / jnp.where(before > 0, before, 1.0), 1.0)
    # Where x runs off to infinity, f keeps a limit but loses the digits of |x|^2, and the search
    # would end by chance.
    tol = jnp.where(x @ x > FAR**2, jnp.maximum(100.0 * jnp.finfo(x.dtype).eps * (x @ x), tol), tol)
    flat_enough = ok & (~first & (left < tol) & (gain < last * tol) | jnp.all(new.g == 0))
    status = jnp.where(
        new.a < 1e-10, STALLED, jnp.where(new.steps >= MAX_STEPS, EXHAUSTED, RUNNING)
    )
    return jnp.where(flat_enough, CONVERGED, jnp.where(first & ~ok, STALLED, status)).astype(
        jnp.int32
    )


def _updated(H, dx, dg):
    """BFGS update of the inverse Hessian (Nocedal & Wright 2006, eq. 6.17); none without
    positive curvature.
    """
    curvature = dx @ dg
    curved = curvature > 1e-14 * jnp.linalg.norm(dx) * jnp.linalg.norm(dg)
    rho = 1.0 / jnp.where(curved, curvature, 1.0)
    Hg = H @ dg
    cross = jnp.outer(dx, Hg)
    updated = H - rho * (cross + cross.T) + rho * (1.0 + rho * (dg @ Hg)) * jnp.outer(dx, dx)
    return jnp.where(curved, updated, H)


def minimise(value_and_grad, begun: Bfgs, tol=None) -> Bfgs:
    """Run to the end from a state before the first evaluation. value_and_grad: (d,) -> (scalar,
    (d,)).
    """
    tol = tolerance(begun.x.dtype) if tol is None else tol
    return lax.while_loop(
        lambda s: s.status == RUNNING, lambda s: step(value_and_grad, s, tol), begun
    )
