"""Many models of one shape at a time: vmapped BFGS in rounds, with the lanes still running gathered
between rounds.

Lanes differ in how many steps they need (9 on average, 50 for the slowest of thousands); a plain
`vmap` of the whole fit makes every lane wait for the slowest. Here all lanes take a few steps, then
those that are not done are gathered into the next power of two, and so on. Sizes depend on the
numbers alone, so a run can be repeated exactly.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import ClassVar, NamedTuple

import numpy as np

from ..numerics.crossproducts.layout import power_of_two
from ..numerics.crossproducts.moments import Moments, Response
from ..numerics.estimation.bfgs import CONVERGED, RUNNING, step, tolerance
from ..numerics.estimation.boundary import near_zero, settle
from ..numerics.estimation.estimate import NEGLIGIBLE, Estimate, attempts, finish, is_exhausted
from ..numerics.estimation.start import begin, moment_start
from ..numerics.likelihood.gaussian import deviance, objective
from ..runtime.calls import float32, run_inside
from ..runtime.compilation import jit, light
from ..runtime.devices import device
from ..support.containers import container, stacked
from ..support.later import jax, jnp


class Rounds(NamedTuple):
    """Steps of the first round and of the later ones, and the smallest batch that lanes are
    gathered into.
    """

    first: int = 8
    later: int = 4
    smallest: int = 32


ROUNDS = Rounds()
LARGE_CORE = 32  # columns


@container
class Lanes:
    """Models of one shape. What they have in common has no lane axis."""

    shared: Moments | None  # with any response, where only responses differ
    each: Moments | Response  # leading lane axis

    @functools.cached_property
    def generalised(self) -> Lanes | None:
        """These lanes for any number of them, of levels and of coefficients."""
        design = self.design.generalised
        if design is None or any(K is not None for K in design.K):
            return None
        if self.shared is None:
            return Lanes(None, stacked("r", design))
        one = {name: getattr(design, name) for name in Response._fields}
        if self.has_residual:
            one["residual"] = design.residual.answer
        return Lanes(design, stacked("r", Response(**one)))

    sizes: ClassVar[dict[str, int]] = {}

    @property
    def has_residual(self) -> bool:
        """Whether residuals covary."""
        return self.design.residual is not None

    @property
    def count(self) -> int:
        """Lanes, those that only fill up included."""
        return self.each.yy.shape[0]

    @property
    def design(self) -> Moments:
        """Moments with what the lanes have in common."""
        return self.each if self.shared is None else self.shared


def _of(shared: Moments | None, lane: Moments | Response) -> Moments:
    return lane if shared is None else shared.with_response(lane)


def in_slices(function, arrays, size):
    """`function` of every lane, for `size` lanes at a time; both numbers are powers of two.

    `jax.lax.map(batch_size=...)` fails where a result has no entries, as coefficients of a model
    without fixed effects.
    """
    lanes = jax.tree.leaves(arrays)[0].shape[0]
    if not isinstance(lanes, int) or lanes <= size:  # any number of them: as NumPy
        return jax.vmap(function)(arrays)
    slices = jax.tree.map(lambda a: jnp.reshape(a, (lanes // size, size, *a.shape[1:])), arrays)
    found = jax.lax.map(jax.vmap(function), slices)
    return jax.tree.map(lambda a: jnp.reshape(a, (lanes, *a.shape[2:])), found)


def _on_all(function, arrays, size):
    """`function` of every lane, all at once; on a CPU for `size` at a time, if given."""
    if size is None or device().platform != "cpu":
        return jax.vmap(function)(arrays)
    return in_slices(function, arrays, size)


def _is_large(layout) -> bool:
    """Whether a model's core is so large that products of one model keep a processor busy: then
    none waits for the steps of others.
    """
    return isinstance(layout.q, int) and layout.q >= LARGE_CORE


def over_lanes(function, size=None):
    """Compile function(moments, reml, *arrays of one lane) for all lanes at once; on a CPU, for
    `size` at a time.
    """

    @functools.wraps(function)
    def batched(lanes, reml, *arrays):
        def one(lane):
            return function(_of(lanes.shared, lane[0]), reml, *lane[1:])

        return _on_all(one, (lanes.each, *arrays), size)

    return light(jit(batched))


@over_lanes
def _deviances(m, reml, t):
    return deviance(t, m, reml)


@over_lanes
def _moment_starts(m, reml):
    return moment_start(m)


@over_lanes
def _begin(m, reml, t):
    return begin(t, m)


@over_lanes
def _settle(m, reml, t):
    return settle(t, m, reml)


@over_lanes
def _finish(m, reml, t, *ended):
    return finish(t, m, reml, *ended)


@light
@jit
def _advance(lanes, reml, states, trips):
    """States after so many steps, and what the host looks at (r, 2 d + 4): one array, as every
    transfer costs.
    """

    def one(lane_and_state):
        lane, begun = lane_and_state
        m = _of(lanes.shared, lane)
        value_and_grad = jax.value_and_grad(lambda t: objective(t, m, reml))

        def goes_on(so_far):
            taken, state = so_far
            return (taken < trips) & (state.status == RUNNING)

        def further(so_far):
            taken, state = so_far
            return taken + 1, step(value_and_grad, state, tolerance(state.x.dtype))

        return jax.lax.while_loop(goes_on, further, (jnp.zeros_like(trips), begun))[1]

    states = _on_all(one, (lanes.each, states), 1 if _is_large(lanes.design.layout) else None)
    numbers = (states.f, states.predicted_decrease, states.steps, states.status)
    return states, jnp.column_stack(
        [states.optimum, states.g, *(a.astype(states.x.dtype) for a in numbers)]
    )


class Ended(NamedTuple):
    """How the searches of lanes ended."""

    x: np.ndarray  # (r, d)
    g: np.ndarray  # (r, d)
    f: np.ndarray  # (r,)
    predicted_decrease: np.ndarray  # (r,)
    steps: np.ndarray  # (r,)
    status: np.ndarray  # (r,)

    @classmethod
    def read(cls, packed: np.ndarray) -> Ended:
        """From what `_advance` packs."""
        d = (packed.shape[1] - 4) // 2
        f, gain, steps, status = packed[:, 2 * d :].T
        return cls(
            packed[:, :d],
            packed[:, d : 2 * d],
            f,
            gain,
            steps.astype(np.int32),
            status.astype(np.int32),
        )


@jit
def _take(tree, index):
    return jax.tree.map(lambda a: a[index], tree)


def _gathered(tree, index, size):
    """The lanes of an index, padded to a size with copies of the first."""
    index = np.concatenate([index, np.full(size - len(index), index[0])])
    if all(isinstance(a, np.ndarray) for a in jax.tree.leaves(tree)):
        return jax.tree.map(lambda a: a[index], tree)
    return _take(tree, index)


def _size_for(count, there, smallest):
    """Lanes to gather so many into, of those there are: the next power of two."""
    return min(max(smallest, power_of_two(count)), there)


def _first(tree, count):
    """The first lanes, as NumPy."""
    return jax.tree.map(lambda a: np.asarray(a)[:count], tree)


def _put(whole, index, part):
    for to, new in zip(whole, part, strict=True):
        to[index] = new


def _lowered(lanes: Lanes, dtype) -> Lanes:
    """The lanes in another precision.

    Their responses have unit scale: the deviance's constants take digits.
    """
    ones = jnp.ones_like(lanes.each.scale)
    each = (
        lanes.each._replace(scale=ones)
        if lanes.shared is not None
        else replace(lanes.each, scale=ones)
    )
    return jax.tree.map(
        lambda a: jnp.asarray(a, dtype) if a.dtype == np.float64 else a,
        replace(lanes, each=each),
    )


def _search(lanes: Lanes, reml, t, rounds: Rounds, dtype) -> Ended:
    """BFGS of every lane from t (r, d).

    In single precision its end is not known to be an optimum: the last steps are in double.
    """
    if dtype == "float64":
        return _in_rounds(lanes, reml, t, rounds)
    low, start = _lowered(lanes, dtype), jnp.asarray(t, dtype)
    with float32():
        near = _in_rounds(low, reml, start, rounds)
    found = _in_rounds(lanes, reml, np.where(np.isfinite(near.x), near.x, t), rounds)
    found = found._replace(steps=near.steps + found.steps)
    waiting = np.flatnonzero((found.status != CONVERGED) & ~(found.predicted_decrease < NEGLIGIBLE))
    if len(waiting):  # too near to the boundary to learn the curvature: from the beginning
        size = _size_for(len(waiting), len(t), rounds.smallest)
        each, start = _gathered((lanes.each, np.asarray(t)), waiting, size)
        again = _in_rounds(Lanes(lanes.shared, each), reml, start, rounds)
        _put(found, waiting, _first(again, len(waiting)))
    return found


def _in_rounds(lanes, reml, t, rounds):
    states, waiting = run_inside(_begin, lanes, reml, t), np.arange(t.shape[0])
    whole, trips = None, rounds.first
    while len(waiting):
        states, packed = run_inside(_advance, lanes, reml, states, np.asarray(trips))
        packed = np.array(packed)[: len(waiting)]
        whole = packed if whole is None else whole
        whole[waiting] = packed
        left = np.flatnonzero(Ended.read(packed).status == RUNNING)
        waiting, trips = waiting[left], rounds.later
        if len(left):
            size = _size_for(len(left), len(states.x), rounds.smallest)
            states, each = _gathered((states, lanes.each), left, size)
            lanes = replace(lanes, each=each)
    return Ended.read(whole)


def fit_lanes(lanes: Lanes, reml, t=None, rounds=ROUNDS, dtype="float64") -> Estimate:
    """`estimation.estimate` for every lane: an Estimate with a leading lane axis and NumPy leaves.

    t (r, d): starts. dtype: of the search; what is done once a lane, the boundary and the estimate,
    is in float64.
    """
    t = np.asarray(run_inside(_moment_starts, lanes, reml) if t is None else t)
    found = _search(lanes, reml, t, rounds, dtype)
    t, steps = np.array(found.x), np.array(found.steps)
    waiting = np.arange(len(t))
    for _ in range(attempts(lanes.design.layout.blocks)):
        exhausted = is_exhausted(found.status, found.f)
        near = near_zero(t[waiting], lanes.design.layout.blocks).any(-1) & np.isfinite(
            found.f[waiting]
        )
        waiting = waiting[near | exhausted[waiting]]
        if not len(waiting):
            break
        each, at = _gathered(
            (lanes.each, t), waiting, _size_for(len(waiting), len(t), rounds.smallest)
        )
        settled = run_inside(_settle, Lanes(lanes.shared, each), reml, at)
        settled = _first(settled, len(waiting))
        t[waiting] = settled.t
        waiting = waiting[settled.restart | exhausted[waiting]]
        if len(waiting):
            each, at = _gathered(
                (lanes.each, t), waiting, _size_for(len(waiting), len(t), rounds.smallest)
            )
            again = _first(
                _search(Lanes(lanes.shared, each), reml, at, rounds, dtype), len(waiting)
            )
            _put(found, waiting, again)
            t[waiting], steps[waiting] = again.x, steps[waiting] + again.steps
    ended = found.g, found.predicted_decrease, steps, found.status
    return jax.tree.map(np.asarray, run_inside(_finish, lanes, reml, t, *ended))


def deviances(lanes: Lanes, which: np.ndarray, reml, t: np.ndarray) -> np.ndarray:
    """Deviances (w,) of some of the lanes at parameters t (w, d) of theirs."""
    size = _size_for(len(which), lanes.count, ROUNDS.smallest)
    each, at = _gathered(lanes.each, which, size), _gathered(t, np.arange(len(which)), size)
    return _first(run_inside(_deviances, Lanes(lanes.shared, each), reml, at), len(which))
