"""Coefficients estimated beside the random effects and theta alone outside, as glmer's nAGQ = 0.

    (u^, c^) minimise h(u, c) = -2 sum_i l(y_i, eta_i) + |u|^2,    d_0(t) = h(u^, c^) + log|M|

with the symbols of `likelihood.laplace`: c joins u without a penalty (penalised iteratively
reweighted least squares; Bates, Maechler, Bolker & Walker 2015, JSS 67(1), section 3, with weights
of its own at every step). The search is over t only, but d_0 is not the minimum of Laplace's
deviance over c: log|M| does not take part in the choice of c^.

Given t, curvature in c is S = X'WX - X'WZ Lambda M^-1 Lambda'Z'WX, from the elimination that gives
the steps of u.
"""

from __future__ import annotations

from typing import NamedTuple

from ...support.later import Later, jax, jnp, lax
from ..covariance.parameters import canonical_parameters
from ..likelihood.elimination import solve
from ..likelihood.laplace import (
    MOST_TRIPS,
    Data,
    Look,
    Modes,
    Place,
    advanced,
    collect,
    dot,
    effects,
    factors_at,
    gradient,
    is_taken,
    look,
    pulled_back,
    spread,
    started,
    stationarity,
)
from ..linalg.matrices import inverse
from . import bfgs
from .boundary import Settled, settled
from .generalized import DIFFERENCE, LONGEST, TOLERANCE, Found, flat

scipy_linalg = Later("jax.scipy.linalg")


class Beside(NamedTuple):
    """What coefficients and random effects have to do with each other."""

    moved: list  # per block (p, k, m): M^-1 Lambda'Z'WX, by which u gives way to c
    S: jax.Array  # (p, p) curvature in c


def beside(at: Look, data: Data) -> Beside:
    """The coefficients' part of a look, column by column."""

    def met(column):
        return solve_for(at, data, at.W * column)

    def seen(v):
        return spread(data, effects(at.factors, v))

    moved = lax.map(met, data.X.T)
    left = data.X - lax.map(seen, moved).T
    return Beside(moved, (data.X * at.W[:, None]).T @ left)


def solve_for(at: Look, data: Data, rows):
    """M^-1 Lambda'Z' rows, per block (k, m)."""
    return solve(at.eliminated, pulled_back(at.factors, collect(data, rows)))


def joint_look(x: Place, u, data: Data) -> Look:
    """A look whose step and decrement are those of u and, last in the list, of c."""
    at = look(x, u, data)
    found = beside(at, data)
    held = spread(data, effects(at.factors, at.step))
    slope = data.X.T @ (at.score - at.W * held)
    dc = inverse(found.S) @ slope
    du = [step - jnp.tensordot(dc, v, 1) for step, v in zip(at.step, found.moved, strict=True)]
    # of both together: that of u with c held, and what moving c brings beyond it
    return at._replace(step=[*du, dc], decrement=at.decrement + slope @ dc)


def joint_mode(x: Place, u, data: Data) -> tuple[Place, list]:
    """The place x with c^ in place of c, and u^, searched from both."""

    def going(newton):
        return (newton.decrement > 1e-18) & (newton.trips < MOST_TRIPS)

    def trip(newton):
        *v, c = newton.trial
        at = joint_look(x._replace(c=c), v, data)
        return advanced(newton, at, is_taken(newton, at))

    *u, c = lax.while_loop(going, trip, started([*u, x.c])).trial
    return x._replace(c=c), u


def deviance_gradient(x: Place, u, data: Data):
    """d_0 at t = x.t, its gradient by t, and the joint mode: x with c^, and u^.

    To the gradient of Laplace's deviance by t at c held comes that by c along c^(t), as S dc is
    the change of X's: with k = S^-1 dd/dc, r = W X k and a = M^-1 Lambda'Z'r, all held,

        -d/dt [r'Z b(t, u) + <a, Lambda'Z's>].
    """
    x, u = joint_mode(x, u, data)
    at = look(x, u, data)
    f, slopes = gradient(x, u, at, data)
    r = at.W * (data.X @ (inverse(beside(at, data).S) @ slopes.c))
    a, met = solve_for(at, data, r), collect(data, r)

    def along(t):
        given = dot(met, effects(factors_at(t, data), u))
        return given + dot(a, stationarity(x._replace(t=t), data, u))

    return f, slopes.t - jax.grad(along)(x.t), x, u


class State(NamedTuple):
    """Of the search."""

    outer: bfgs.Bfgs  # over t
    place: Place  # the last trial, with c^
    u: list


def search(data: Data, x: Place, H, near: Modes) -> Found:
    """To the optimum from x; joint modes are searched from x.c and `near`, then from the last."""

    def trip(s: State) -> State:
        trial = s.place._replace(t=s.outer.x + s.outer.a * s.outer.direction)
        f, g, place, u = deviance_gradient(trial, s.u, data)
        return State(bfgs.step(lambda _: (f, g), s.outer, TOLERANCE), place, u)

    def runs(s: State):
        return s.outer.status == bfgs.RUNNING

    d = x.t.shape[0]
    begun = State(bfgs.resume(x.t, H[:d, :d]), x, list(near.parts))
    o, place, u = lax.while_loop(runs, trip, begun)
    end = place._replace(t=canonical_parameters(o.optimum, data.layout.blocks))
    end, u = joint_mode(end, u, data)
    return Found(
        v=flat(end),
        u=u,
        f=o.f,
        gradient=flat(Place(o.g, 0.0 * end.c, end.g)),
        predicted_decrease=o.predicted_decrease,
        H=scipy_linalg.block_diag(o.H, 0.5 * inverse(beside(look(end, u, data), data).S)),
        steps=o.steps,
        trips=o.steps,
        status=o.status,
    )


def settle(data: Data, x: Place, near: Modes) -> Settled:
    """`boundary.settle` of d_0."""

    def at(t):
        return deviance_gradient(x._replace(t=t), list(near.parts), data)

    return settled(x.t, data.layout.blocks, lambda t: at(t)[0], lambda t: at(t)[1])


def joint_hessian(data: Data, x: Place, H, near: Modes):
    """Curvature of t by central differences of the gradient, and 2 S for c given t, as glmer has
    it; nothing between them.

    H: inverse curvature as the search has it, which says how long the differences are.
    """
    d = x.t.shape[0]
    spread_of = jnp.sqrt(2.0 * jnp.maximum(jnp.diagonal(H)[:d], 1e-12))
    step = jnp.minimum(DIFFERENCE * spread_of, LONGEST)

    def slope(t):
        return deviance_gradient(x._replace(t=t), list(near.parts), data)[1]

    def one(direction):
        ahead, behind = lax.map(
            lambda side: slope(x.t + side * direction), jnp.array([1.0, -1.0], x.t.dtype)
        )
        return ahead - behind

    found = lax.map(one, jnp.diag(step)) / (2.0 * step[:, None])
    S = beside(look(x, list(near.parts), data), data).S
    return scipy_linalg.block_diag(0.5 * (found + found.T), 2.0 * S)
