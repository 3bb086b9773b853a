"""Many models of one shape at a time: vmapped BFGS in rounds, with the lanes still running gathered between rounds.

Lanes differ in how many steps they need (9 on average, 50 for the slowest of thousands); a plain `vmap` of the whole
fit makes every lane wait for the slowest. Here all lanes take a few steps, then those that are not done are gathered
into the next power of two, and so on. Sizes depend on the numbers alone, so a run can be repeated exactly.
"""

import threading
from typing import NamedTuple

import jax
import numpy as np

from . import estimation, linalg, optimize
from .crossproducts import Moments, Response
from .likelihood import objective
from .structure import power_of_two

FIRST_ROUND, NEXT_ROUNDS = 8, 4  # steps
SMALLEST = 32  # lanes in a gathered batch


class Lanes(NamedTuple):
    """Models of one shape. What they have in common has no lane axis."""

    shared: Moments | None  # with any response, where only responses differ
    each: Moments | Response  # leading lane axis

    @property
    def design(self) -> Moments:
        """Moments with what the lanes have in common."""
        return self.each if self.shared is None else self.shared

    @property
    def is_unrolled(self) -> bool:
        """Whether the deviance is computed without LAPACK."""
        layout = self.design.layout
        return max(layout.q, self.design.p, *(b.k for b in layout.blocks)) <= linalg.UNROLL


def _of(shared: Moments | None, lane: Moments | Response) -> Moments:
    return lane if shared is None else shared.with_response(lane)


_one_at_a_time = threading.Lock()


def alone(compiled):
    """A compiled function with batched LAPACK calls, run by one thread at a time, to its end.

    jaxlib spreads a batch over XLA's threads from one of these threads, which waits for the others meanwhile: two such
    calls on two threads wait for each other for ever.
    """

    def call(*args):
        with _one_at_a_time:
            return jax.block_until_ready(compiled(*args))

    return call


def over_lanes(function):
    """Compile function(moments, reml, *arrays of one lane) for all lanes at once."""

    def batched(lanes, reml, *arrays):
        return jax.vmap(lambda lane, *a: function(_of(lanes.shared, lane), reml, *a))(lanes.each, *arrays)

    return alone(jax.jit(batched))


def _start(m, reml, t):
    return optimize.start(t, estimation.curvature(t, m))


_moment_starts = over_lanes(lambda m, reml: estimation.moment_start(m))
_begin = over_lanes(_start)
_settle = over_lanes(lambda m, reml, t: estimation.settle(t, m, reml))
_finish = over_lanes(lambda m, reml, t, *ended: estimation.finish(t, m, reml, *ended))


@jax.jit
def _advance(lanes, reml, states, trips):
    def one(lane, state):
        m = _of(lanes.shared, lane)
        value_and_grad = jax.value_and_grad(lambda t: objective(t, m, reml))
        return optimize.step(value_and_grad, state, optimize.tolerance(state.x.dtype))

    return jax.lax.fori_loop(0, trips, lambda _, s: jax.vmap(one)(lanes.each, s), states)


_advance_alone = alone(_advance)


@jax.jit
def _take(tree, index):
    return jax.tree.map(lambda a: a[index], tree)


def _gathered(tree, index):
    """The lanes of an index, padded to the next power of two with copies of the first."""
    size = max(SMALLEST, power_of_two(len(index)))
    return _take(tree, np.concatenate([index, np.full(size - len(index), index[0])]))


def _first(tree, count):
    """The first lanes, as NumPy."""
    return jax.tree.map(lambda a: np.asarray(a)[:count], tree)


def _put(whole, index, part):
    for to, new in zip(whole, part, strict=True):
        to[index] = new


def _search(lanes: Lanes, reml, t) -> optimize.Bfgs:
    """BFGS of every lane from t (r, d); NumPy leaves."""
    advance = _advance if lanes.is_unrolled else _advance_alone
    states, waiting, trips = _begin(lanes, reml, t), np.arange(t.shape[0]), FIRST_ROUND
    result = jax.tree.map(np.array, states)
    while len(waiting):
        states = advance(lanes, reml, states, trips)
        host = _first(states, len(waiting))
        _put(result, waiting, host)
        left = np.flatnonzero(host.status == optimize.RUNNING)
        waiting, trips = waiting[left], NEXT_ROUNDS
        if len(left):
            states, each = _gathered((states, lanes.each), left)
            lanes = lanes._replace(each=each)
    return result


def fit_lanes(lanes: Lanes, reml, t=None) -> estimation.Estimate:
    """`estimation.estimate` for every lane: an Estimate with a leading lane axis and NumPy leaves. t (r, d): starts."""
    t = np.asarray(_moment_starts(lanes, reml) if t is None else t)
    found = _search(lanes, reml, t)
    t, steps = np.array(found.x), np.array(found.steps)
    waiting = np.arange(len(t))
    for _ in range(estimation.attempts(lanes.design.layout.blocks)):
        near = estimation.near_zero(t[waiting], lanes.design.layout.blocks).any(-1) & np.isfinite(found.f[waiting])
        waiting = waiting[near]
        if not len(waiting):
            break
        each, at = _gathered((lanes.each, t), waiting)
        settled = _first(_settle(Lanes(lanes.shared, each), reml, at), len(waiting))
        t[waiting] = settled.t
        waiting = waiting[settled.restart]
        if len(waiting):
            each, at = _gathered((lanes.each, t), waiting)
            again = _first(_search(Lanes(lanes.shared, each), reml, at), len(waiting))
            _put(found, waiting, again)
            t[waiting], steps[waiting] = again.x, steps[waiting] + again.steps
    return jax.tree.map(np.asarray, _finish(lanes, reml, t, found.g, found.predicted_decrease, steps, found.status))
