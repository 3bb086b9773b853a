"""Many generalised models of one shape at a time: the flat loop of `estimation.generalized`,
vmapped, in rounds.

A trip of the loop with a gradient costs all lanes as much as one, so that trips without one come
between them, in which lanes go on towards their modes. Lanes still running are gathered between
rounds, as in `lanes`.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..engines.laplace import FLAT
from ..numerics.crossproducts.layout import Plan
from ..numerics.estimation import bfgs, generalized
from ..numerics.estimation.boundary import near_zero
from ..numerics.estimation.estimate import NEGLIGIBLE, attempts
from ..numerics.estimation.generalized import Begun, Common, Found, Given, State
from ..numerics.families.density import Row
from ..numerics.likelihood.laplace import Data, Modes, Place
from ..numerics.uncertainty.curvature import FLAT as NO_INFORMATION
from ..runtime.compilation import brief, in_order, jit
from ..support.later import jax, jnp
from .lanes import Rounds, _first, _gathered

LAPLACE_ROUNDS = Rounds(first=8, later=3, smallest=32)
SMALL = 1 << 15  # rows of all lanes up to which they run in milliseconds however they are compiled


class LaplaceLanes(NamedTuple):
    """Models of one shape before they are fitted. What they have in common has no lane axis."""

    plan: Plan
    given: Given
    common: Common | None
    """Conditioned columns that all share, where only responses and weights differ; None: each has a
    design of its own.
    """

    @property
    def count(self) -> int:
        """Lanes, those that only fill up included."""
        return self.given.row.y.shape[0]


class LaneEstimates(NamedTuple):
    """Fitted lanes as arrays with a leading lane axis; fields as in `GeneralizedEstimate`."""

    t: np.ndarray
    theta: np.ndarray
    beta: np.ndarray
    gamma: np.ndarray
    deviance: np.ndarray
    gradient: np.ndarray
    """(r,) largest absolute derivative by conditioned t; columns of Lambda that are zero do not
    count.
    """
    predicted_decrease: np.ndarray
    steps: np.ndarray
    status: np.ndarray
    covariance: np.ndarray
    "(r, x, x) of (theta, beta, gamma); what is zero, or runs off to infinity, counts as known."
    runaway: np.ndarray
    "(r, g) whether a number of the family runs off to infinity."
    vanishing: np.ndarray
    "(r,) whether a column of Lambda vanishes."
    has_start: np.ndarray
    "(r,) whether all rows have a density where the search begins."
    W: np.ndarray
    W0: np.ndarray
    "(r, n) observed information of the rows, and what it would be had all rows one mean."

    @property
    def converged(self) -> np.ndarray:
        """Whether what is left to gain is negligible, by lane."""
        done = np.isfinite(self.deviance) & (self.predicted_decrease < NEGLIGIBLE)
        return (self.status == bfgs.CONVERGED) | done


def _given_axes(given: Given, own: bool) -> Any:
    """Where the lanes are in what lanes are given."""
    if own:
        return 0
    row = Row(0, 0 if np.ndim(given.row.w) == 2 else None, None)
    return replace(given, row=row, offset=None, X=None, Z=None, K=None, D=None, g0=0)


def _data_axes(given: Given | Data, own: bool) -> Any:
    """Where the lanes are in conditioned rows, which have been made or will be."""
    if own:
        return 0
    row = Row(0, 0 if np.ndim(given.row.w) == 2 else None, None)
    return Data(given.family, None, row, 0, None, None, None, None, None, None, 0, given.nodes)


def _program(function):
    """A kernel of lanes, compiled without optimising it where they are few and short.

    Else the slower of XLA's generators of code is worth its time: what `light` makes takes 1.7
    times as long to run.
    """
    quick, usual = brief(jit(function)), in_order(jit(function))

    @functools.wraps(function)
    def call(first, *more):
        rows = first.given.row if isinstance(first, LaplaceLanes) else first.row
        return (quick if rows.y.size <= SMALL else usual)(first, *more)

    return call


@_program
def _prepare(lanes: LaplaceLanes) -> tuple[Begun, State]:
    """Conditioned rows and starts of all lanes, and their searches before the first look."""
    own = lanes.common is None
    inside = (0 if own else None, _given_axes(lanes.given, own), None)
    outside = Begun(_data_axes(lanes.given, own), 0, 0, 0 if own else None, 0)
    begun = jax.vmap(generalized.prepare, inside, outside)(*lanes)
    return begun, _started(begun.data, begun.x, begun.H)


@_program
def _restarted(data: Data, x: Place, H) -> State:
    return _started(data, x, H)


def _started(data: Data, x: Place, H) -> State:
    def one(x, H):
        u = [jnp.zeros((b.k, b.levels), H.dtype) for b in data.layout.blocks]
        return generalized.begin(x, H, u)

    return jax.vmap(one)(x, H)


@_program
def _advance(data: Data, x: Place, states: State, trips) -> tuple[State, Found]:
    """States after so many trips, each after one without gradient, and what they have found."""

    def one(data, x, state):
        return generalized.trip(data, x, generalized.approach(data, x, state))

    axes = (_axes(data), 0, 0)
    lanes = jax.vmap(one, axes)
    states = jax.lax.fori_loop(0, trips, lambda _, s: lanes(data, x, s), states)
    return states, jax.vmap(generalized.ended, axes)(data, x, states)


def _axes(data: Data) -> Any:
    return _data_axes(data, data.X.ndim == 3)


@_program
def _settle(data: Data, x: Place, u):
    return jax.vmap(lambda d, x, u: generalized.settle(d, x, Modes(tuple(u))), (_axes(data), 0, 0))(
        data, x, u
    )


@_program
def _facts(data: Data, x: Place, H, u, RD):
    """What is reported of every lane."""

    def one(data, x, H, u, RD):
        facts = generalized.facts(data, x, Modes(tuple(u)), RD)
        return facts, generalized.joint_hessian(data, x, H, Modes(tuple(facts.u)))

    return jax.vmap(one, (_axes(data), 0, 0, 0, 0 if data.X.ndim == 3 else None))(data, x, H, u, RD)


def _some(data: Data, x: Place, more: Any, index: np.ndarray, size: int):
    """Some of the lanes, padded to a size with copies of the first."""
    if data.X.ndim == 3:
        return _gathered((data, x, more), index, size)
    row = data.row
    taken = dict(y=row.y, offset=data.offset, beta0=data.beta0, x=x, more=more)
    taken |= {"w": row.w} if row.w.ndim == 2 else {}
    got = _gathered(taken, index, size)
    row = Row(got["y"], got.get("w", row.w), row.m)
    return replace(data, row=row, offset=got["offset"], beta0=got["beta0"]), got["x"], got["more"]


def _quarter_for(count: int, there: int, smallest: int) -> int:
    """Lanes to gather so many into, of those there are: a quarter of them, or of that. Every size
    is a program.
    """
    while there >= 4 * max(count, smallest):
        there //= 4
    return there


def _in_rounds(data: Data, x: Place, states: State, rounds: Rounds) -> Found:
    """The ends of the searches of all lanes."""
    waiting, trips, whole = np.arange(len(states.trips)), rounds.first, None
    while True:
        states, found = _advance(data, x, states, trips)
        part = _first(found, len(waiting))
        whole = jax.tree.map(np.array, part) if whole is None else whole
        _put_lanes(whole, waiting, part)
        left = np.flatnonzero(part.status == bfgs.RUNNING)
        waiting, trips = waiting[left], rounds.later
        if not len(left):
            return whole
        size = _quarter_for(len(left), len(states.trips), rounds.smallest)
        data, x, states = _some(data, x, states, left, size)


def _put_lanes(whole: Found, at: np.ndarray, part: Found) -> None:
    """The part in its place."""
    for to, new in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
        to[at] = new


def fit_lanes(lanes: LaplaceLanes, rounds: Rounds = LAPLACE_ROUNDS) -> LaneEstimates:
    """Fit every lane, as `engines.laplace` does one."""
    begun, states = _prepare(lanes)
    data, x = begun.data, begun.x
    found = _in_rounds(data, x, states, rounds)
    at, steps = _off_the_boundary(begun, found, rounds)
    facts, H = jax.tree.map(np.asarray, _facts(data, at, found.H, found.u, begun.RD))
    has_start = np.isfinite(np.asarray(begun.values)).all(axis=1)
    return _described(at, facts, H, found, steps, has_start)


def _off_the_boundary(begun: Begun, found: Found, rounds: Rounds) -> tuple[Place, np.ndarray]:
    """Where the lanes end, and after how many evaluations.

    Columns of Lambda that are all but zero are settled; lanes that end on a saddle, or too early,
    search on.
    """
    data, x, blocks = begun.data, begun.x, begun.data.layout.blocks
    v, steps, waiting = found.v.copy(), found.steps.copy(), np.arange(len(found.v))
    for _ in range(attempts(blocks)):
        at, sound = _split(v, x), np.isfinite(found.f[waiting])
        restart = (found.status[waiting] == bfgs.EXHAUSTED) & sound
        near = near_zero(at.t[waiting], blocks).any(-1) & sound
        waiting, restart, near = (a[near | restart] for a in (waiting, restart, near))
        if not len(waiting):
            break
        size = _quarter_for(len(waiting), len(v), rounds.smallest)
        moved = _first(_settle(*_some(data, at, found.u, waiting, size)), len(waiting))
        v[waiting, : at.t.shape[1]] = np.where(near[:, None], moved.t, at.t[waiting])
        waiting = waiting[restart | near & moved.restart]
        if not len(waiting):
            break
        size = _quarter_for(len(waiting), len(v), rounds.smallest)
        mine, here, H = _some(data, _split(v, x), begun.H, waiting, size)
        again = _first(_in_rounds(mine, here, _restarted(mine, here, H), rounds), len(waiting))
        _put_lanes(found, waiting, again)
        v[waiting], steps[waiting] = again.v, steps[waiting] + again.steps
    return _split(v, x), steps


def _split(v: np.ndarray, like: Place) -> Place:
    return Place(*np.split(v, np.cumsum([part.shape[1] for part in like])[:-1], axis=1))


def _described(
    x: Place, facts, H: np.ndarray, found, steps: np.ndarray, has_start: np.ndarray
) -> LaneEstimates:
    d, r = x.t.shape[1], x.g.shape[1]
    runaway = np.abs(np.einsum("lxx->lx", H)[:, H.shape[1] - r :]) < FLAT
    free = np.concatenate([~facts.zero, np.ones(x.c.shape, bool), ~runaway], axis=1)
    V = _covariances(H, free)
    return LaneEstimates(
        t=x.t,
        theta=facts.theta,
        beta=facts.beta,
        gamma=facts.gamma,
        deviance=facts.deviance,
        gradient=np.max(
            np.where(facts.zero, 0.0, np.abs(found.gradient[:, :d])), axis=1, initial=0.0
        ),
        predicted_decrease=found.predicted_decrease,
        steps=steps,
        status=found.status,
        covariance=facts.jacobian @ V @ facts.jacobian.mT,
        runaway=runaway,
        vanishing=np.concatenate(facts.vanishing, axis=1).any(axis=1),
        has_start=has_start,
        W=facts.W,
        W0=facts.W0,
    )


def _covariances(H: np.ndarray, free: np.ndarray) -> np.ndarray:
    """2 H^-1 (r, x, x) over what is free (r, x), 0 elsewhere; NaN where a Hessian is not finite."""
    both = free[:, :, None] & free[:, None]
    H = np.where(both, H, np.eye(H.shape[1]))
    sound = np.isfinite(H).all(axis=(1, 2))
    values, vectors = np.linalg.eigh(np.where(sound[:, None, None], H, np.eye(H.shape[1])))
    used = values > NO_INFORMATION * values[:, -1:]
    inverse = np.where(used, 2.0 / np.where(used, values, 1.0), 0.0)
    V = (vectors * inverse[:, None]) @ vectors.mT
    return np.where(sound[:, None, None], np.where(both, V, 0.0), np.nan)
