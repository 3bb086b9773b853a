"""Generalised linear mixed models: where the search starts, one flat loop to the optimum,
differences of the gradient.

The search is for the Laplace deviance of `likelihood.laplace` over x = (t, c, g). A trip of its
loop looks at one trial (x, u) and makes a step of Newton's method on u, or halves one, or, where u
is the mode, takes the gradient and makes one step of BFGS on x. There is no loop within the loop,
so that of many models under `vmap` none waits for another's modes. Modes are predicted along the
step of x, which leaves two or three looks to a gradient.
"""

from __future__ import annotations

import functools
from dataclasses import field, replace
from typing import ClassVar, NamedTuple

from ...support.containers import container
from ...support.later import Later, jax, jnp, lax
from ..covariance.parameters import canonical_parameters, factors
from ..crossproducts.layout import Plan
from ..crossproducts.moments import Basis, assemble, condition, respond
from ..families.density import Row
from ..families.family import Distribution
from ..families.rows import constants, density, kernels, rows_of
from ..likelihood.coordinates import to_conditioned, to_user, user_blocks
from ..likelihood.elimination import reduce
from ..likelihood.laplace import (
    Data,
    Look,
    Modes,
    Newton,
    Place,
    advanced,
    effects,
    free_parameters,
    is_taken,
    look,
    mode,
    moved,
    plus,
    pulled_back,
    started,
    widths,
)
from ..likelihood.quadrature import deviance_gradient, deviance_with_mode
from ..likelihood.random_effects import mode_covariances as gaussian_mode_covariances
from ..linalg.batching import eigh, triangular_factor
from ..linalg.matrices import inverse, inverse_lower, inverse_upper
from . import bfgs
from .bfgs import Bfgs
from .boundary import Settled, settled, zero_columns
from .estimate import vanishing_columns
from .start import _diagonals, _start, curvature

scipy_linalg = Later("jax.scipy.linalg")
TOLERANCE = 1e-12  # predicted decrease that may be left
# decrement of h from which the next step is the last: a share of BFGS's gain
LEAST, MOST, SHARE = 1e-11, 1e-6, 1e-3
SCORINGS = 8  # steps of the model without random effects
SHORTER = (0.1, 1.0)
NEWTONS = 8  # steps of the family's own parameters
LEAST_START = 0.05  # of its standard error, that a variance starts with
MOST_START = 4.0  # the largest variance on the scale of the link that a search starts with
DIFFERENCE = 3e-4  # step of the differences, in standard deviations of each coordinate
LONGEST = 0.03  # their step where the curvature is next to none


@container
class Given:
    """A model's rows in the user's order and units, before they are conditioned."""

    family: Distribution = field(metadata={"static": True})
    row: Row
    offset: jax.Array  # (n,)
    X: jax.Array  # (n, p)
    Z: list  # per factor (n, k)
    K: list  # per factor what the covariance of its levels is made of, or None
    D: list  # per parameter of the family (n, r_j), or None
    g0: jax.Array  # (r,) where the family's numbers start
    nodes: int = field(default=1, metadata={"static": True})

    sizes: ClassVar[dict[str, int]] = {}

    @functools.cached_property
    def generalised(self) -> Given | None:
        """The same for any number of rows and coefficients; None where levels covary."""
        if any(K is not None for K in self.K):
            return None
        D = [None if columns is None else "n _" for columns in self.D]
        row = Row("n", "n", "n")
        return replace(self, row=row, offset="n", X="n p", Z=["n _"] * len(self.Z), D=D, g0="_")


class Begun(NamedTuple):
    """Conditioned rows, and where the search starts."""

    data: Data
    x: Place
    H: jax.Array  # inverse of the rough curvature at x
    RD: list  # per parameter of the family, what its columns were divided by, or None
    values: jax.Array  # (n,) log-densities there


class Columns(NamedTuple):
    """Columns of the fixed part and of the family's predictors, made orthonormal without regard to
    a response.
    """

    X: jax.Array  # (n, p) X R^-1
    R: jax.Array
    D: tuple  # per parameter of the family (n, r_j), of unit mean square, or None
    RD: list  # what these were divided by


def orthonormal(given: Given) -> Columns:
    """The columns in the rows of positive weight."""
    used = given.row.w > 0
    R = (
        triangular_factor(jnp.where(used[:, None], given.X, 0.0))
        if given.X.shape[1]
        else jnp.zeros((0, 0))
    )
    RD = [
        None if D is None else triangular_factor(jnp.where(used[:, None], D, 0.0)) for D in given.D
    ]
    size = jnp.sqrt(jnp.sum(used))
    D = tuple(
        None if D is None else size * D @ inverse_upper(R) for D, R in zip(given.D, RD, strict=True)
    )
    return Columns(given.X @ inverse_upper(R), R, D, [None if R is None else R / size for R in RD])


class Common(NamedTuple):
    """Conditioned columns that many responses of one design share."""

    columns: Columns
    basis: Basis


def in_common(plan: Plan, given: Given) -> Common:
    """The columns of a design conditioned by its own weights: those that responses give differ too
    little to matter.
    """
    w = given.row.w
    columns = orthonormal(given)
    return Common(
        columns, condition(plan, given.X, given.Z, w / (jnp.sum(w) / jnp.sum(w > 0)), given.K)
    )


def prepare(plan: Plan, given: Given, common: Common | None = None) -> Begun:
    """Condition the rows by a model without random effects, and estimate from it where the search
    starts.

    common: columns as they have been conditioned already.
    """
    family, row, w = given.family, given.row, given.row.w
    used = w > 0
    X0, R0, D, RD = orthonormal(given) if common is None else common.columns
    g = _conditioned_numbers(given.g0, RD)
    bare = Data(family, plan, row, given.offset, X0, (), D, (), (), R0, jnp.zeros(X0.shape[1]))
    eta0 = density(family).start(
        Row(*(jnp.where(used, a, b) for a, b in zip(row, (0.5, 0.0, 1.0), strict=True)))
    )
    c0 = _scored(bare, g, jnp.where(used, eta0, 0.0))
    bare = _shifted(bare, c0)
    if widths(D):
        g = _own_numbers(bare, g)
        change = _scored(bare, g, bare.offset)
        c0, bare = c0 + change, _shifted(bare, change)

    _, score, W = rows_of(family, row, bare.offset, free_parameters(g, bare))
    W = jnp.where(used, jnp.maximum(W, 1e-8 * jnp.max(W)), 0.0)
    # t and c are on the scale of the link: columns are orthonormal by weights of mean 1.
    if common is None:
        basis = condition(plan, given.X, given.Z, W / (jnp.sum(W) / jnp.sum(used)), given.K)
    else:
        basis = common.basis
    basis = basis._replace(w=W, n=jnp.sum(used).astype(W.dtype))
    response = respond(plan, basis, (score / jnp.where(used, W, 1.0))[:, None])
    m = assemble(plan, basis, jax.tree.map(lambda a: a[0], response))
    t = _variance_start(m, basis, score, W)
    beta0 = inverse_upper(R0) @ c0
    data = Data(
        family,
        plan,
        row,
        bare.offset,
        basis.X,
        basis.Z,
        D,
        basis.A,
        basis.K,
        basis.R,
        beta0,
        given.nodes,
    )
    x = Place(t, jnp.zeros(given.X.shape[1]), g)
    values = kernels(family, row, data.offset, free_parameters(g, data))
    return Begun(data, x, _rough_inverse(x, data, m), RD, values)


def _conditioned_numbers(g0, RD):
    """The family's numbers in conditioned columns."""
    parts, start = [], 0
    for R in RD:
        width = 1 if R is None else R.shape[1]
        own = g0[start : start + width]
        parts.append(own if R is None else R @ own)
        start += width
    return jnp.concatenate(parts) if parts else g0


def _shifted(data, c):
    return replace(data, offset=data.offset + data.X @ c)


def _scored(data: Data, g, eta0):
    """Coefficients c (p,) of the model without random effects, by scoring from eta0 (n,), in
    orthonormal columns.
    """
    free = free_parameters(g, data)

    def likelihood(eta):
        return jnp.sum(kernels(data.family, data.row, eta, free))

    def trip(_, carry):
        c, eta, best = carry
        _, score, W = rows_of(data.family, data.row, eta, free)
        W = jnp.maximum(W, 1e-10 * jnp.max(W))
        XW = data.X * W[:, None]
        new = inverse(XW.T @ data.X) @ (XW.T @ (eta - data.offset) + data.X.T @ score)
        for part in SHORTER:  # of the step, where the whole of it goes too far
            to = c + part * (new - c)
            there = data.offset + data.X @ to
            value = likelihood(there)
            better = jnp.isfinite(value) & (value >= best)
            c, eta = jnp.where(better, to, c), jnp.where(better, there, eta)
            best = jnp.where(better, value, best)
        return c, eta, best

    used = data.row.w > 0
    plain = data.X.T @ jnp.where(used, eta0 - data.offset, 0.0)
    begun = (plain, eta0, jnp.asarray(-jnp.inf, eta0.dtype))
    return lax.fori_loop(0, SCORINGS, trip, begun)[0]


def _own_numbers(data: Data, g):
    """The family's numbers (r,) where the linear predictor is the offset, by Newton's method
    with short steps.
    """
    if not widths(data.D):
        return g

    def lack(g):
        free = free_parameters(g, data)
        parts = kernels(data.family, data.row, data.offset, free) + constants(
            data.family, data.row, free
        )
        return -2.0 * jnp.sum(parts)

    def trip(_, carry):
        g, f, reach = carry
        slope, H = jax.grad(lack)(g), jax.hessian(lack)(g)
        values, vectors = eigh(0.5 * (H + H.T))
        step = -vectors @ ((vectors.T @ slope) / jnp.maximum(jnp.abs(values), 1e-6))
        step = step * jnp.minimum(1.0, reach / jnp.maximum(jnp.linalg.norm(step), 1e-30))
        value = lack(g + step)
        better = value <= f
        return (
            jnp.where(better, g + step, g),
            jnp.where(better, value, f),
            jnp.where(better, reach, 0.25 * reach),
        )

    return lax.fori_loop(0, NEWTONS, trip, (g, lack(g), jnp.asarray(2.0, g.dtype)))[0]


def _variance_start(m, basis, score, W):
    """Variances from pairs of rows of a level, each factor as if alone: t (d,).

    E sum_{i != j} (z s)_i (z s)_j = variance * sum_{i != j} (W z^2)_i (W z^2)_j over the rows of a
    level; where levels have a row each, from what the rows vary too much.
    """
    found = []
    for block, z, G, scores in zip(m.layout.blocks, basis.Z, *_diagonals(m), strict=True):
        between, whole = jnp.sum((scores * m.scale) ** 2, 1), jnp.sum(G**2, 1)
        own = jnp.sum((W[:, None] * z**2) ** 2, 0)
        alone = whole - own < 0.02 * whole
        pairs = (between - jnp.sum((score[:, None] * z) ** 2, 0)) / jnp.where(
            alone, 1.0, whole - own
        )
        excess = (between - jnp.sum(G, 1)) / whole
        variance = jnp.where(alone, excess, pairs)
        least = LEAST_START * jnp.sqrt(2.0 / whole)
        found.append(_start(jnp.sqrt(jnp.clip(variance, least, MOST_START)), block))
    return jnp.concatenate(found)


def _rough_inverse(x: Place, data: Data, m):
    rough = curvature(x.t, m)
    parts = [
        jnp.diag(1.0 / jnp.maximum(rough, 1e-6 * jnp.max(rough))),
        0.5 * inverse(reduce(x.t, m).XX),
    ]
    if widths(data.D):

        def lack(g):
            free = free_parameters(g, data)
            value = kernels(data.family, data.row, data.offset, free) + constants(
                data.family, data.row, free
            )
            return -2.0 * jnp.sum(value)

        own = jnp.abs(jnp.diagonal(jax.hessian(lack)(x.g)))
        parts.append(jnp.diag(1.0 / jnp.maximum(own, 1.0)))
    return scipy_linalg.block_diag(*parts)


def flat(x: Place):
    """All coordinates (d + p + r,)."""
    return jnp.concatenate(x)


def split(v, x: Place) -> Place:
    """Coordinates like those of x."""
    d, p = x.t.shape[0], x.c.shape[0]
    return Place(v[:d], v[d : d + p], v[d + p :])


# The search ---------------------------------------------------------------------------------------


class State(NamedTuple):
    """Of the search."""

    outer: Bfgs
    inner: Newton  # at the trial of `outer`
    u: list  # the mode at outer.x
    du: list  # its derivative along outer.direction
    trips: jax.Array


def begin(x: Place, H, u) -> State:
    """The search before its first look."""
    zero = [jnp.zeros_like(v) for v in u]
    return State(bfgs.resume(flat(x), H), started(u), u, zero, jnp.int32(0))


def _select(pred, new, old):
    return jax.tree.map(lambda a, b: jnp.where(pred, a, b), new, old)


class _Judged(NamedTuple):
    """What a look at the trial of a search comes to."""

    taken: jax.Array  # h has not risen
    ready: jax.Array  # the trial is the mode, to the last step of Newton's method
    failed: jax.Array  # there is no mode to be found


def _judged(s: State, at: Look) -> _Judged:
    outer, inner = s.outer, s.inner
    taken = is_taken(inner, at)
    near = jnp.clip(
        SHARE * jnp.where(outer.steps > 0, outer.predicted_decrease, jnp.inf), LEAST, MOST
    )
    is_last = (
        (inner.decrement < near) & (inner.a == 1.0) | (at.decrement < 1e-15) | (inner.trips > 40)
    )
    ready = taken & is_last
    failed = ~taken & ((inner.a < 1e-6) | (inner.trips > 40)) | ready & ~at.proper
    return _Judged(taken, ready & at.proper, failed)


def _trial(s: State, like: Place) -> Place:
    return split(s.outer.x + s.outer.a * s.outer.direction, like)


def approach(data: Data, like: Place, s: State) -> State:
    """A trip without a gradient, for batches, where all lanes pay for one: a lane that is ready for
    it waits.
    """
    at = look(_trial(s, like), s.inner.trial, data)
    judged = _judged(s, at)
    moves = (s.outer.status == bfgs.RUNNING) & ~judged.ready & ~judged.failed
    return _select(
        moves, s._replace(inner=advanced(s.inner, at, judged.taken), trips=s.trips + 1), s
    )


def trip(data: Data, like: Place, s: State) -> State:
    """One look, and what follows from it. Finished searches stay as they are."""
    outer, inner = s.outer, s.inner
    x, u = _trial(s, like), inner.trial
    at = look(x, u, data)
    taken, ready, failed = _judged(s, at)
    nothing = jnp.asarray(jnp.inf, outer.f.dtype), jnp.zeros_like(outer.g)

    def evaluated():
        f, slopes = deviance_gradient(x, u, at, data)
        return f, flat(slopes)

    f, g = lax.cond(ready, evaluated, lambda: nothing)
    new = _select(ready | failed, bfgs.step(lambda _: (f, g), outer, TOLERANCE), outer)
    accepted = ready & jnp.all(new.x == flat(x)) & jnp.isfinite(f)
    u_mode = _select(accepted, plus(u, at.step), s.u)
    du = lax.cond(accepted, lambda: moved(x, split(new.direction, like), u, at, data), lambda: s.du)
    inner = _select(ready | failed, started(plus(u_mode, du, new.a)), advanced(inner, at, taken))
    return _select(outer.status == bfgs.RUNNING, State(new, inner, u_mode, du, s.trips + 1), s)


class Found(NamedTuple):
    """How a search ended."""

    v: jax.Array  # all coordinates, with a canonical t
    u: list  # near the mode there
    f: jax.Array  # the deviance at the last place that was evaluated
    gradient: jax.Array
    predicted_decrease: jax.Array
    H: jax.Array  # inverse curvature as BFGS has it
    steps: jax.Array
    trips: jax.Array
    status: jax.Array


def search(data: Data, x: Place, H, near: Modes) -> Found:
    """To the optimum from x, with the inverse curvature H; the modes are searched from `near`."""
    begun = begin(x, H, list(near.parts))
    return ended(
        data,
        x,
        lax.while_loop(lambda s: s.outer.status == bfgs.RUNNING, lambda s: trip(data, x, s), begun),
    )


def ended(data: Data, like: Place, s: State) -> Found:
    """What a search has found that has ended."""
    o, end = s.outer, split(s.outer.optimum, like)
    end = end._replace(t=canonical_parameters(end.t, data.layout.blocks))
    return Found(flat(end), s.u, o.f, o.g, o.predicted_decrease, o.H, o.steps, s.trips, o.status)


# What follows from the optimum --------------------------------------------------------------------


def evaluate(data: Data, x: Place, near: Modes):
    """The deviance, its gradient by all coordinates, and the mode; it is searched from `near`."""
    u = mode(x, list(near.parts), data)
    f, slopes = deviance_gradient(x, u, look(x, u, data), data)
    return f, flat(slopes), u


def settle(data: Data, x: Place, near: Modes) -> Settled:
    """`boundary.settle` of a generalised model: columns of Lambda that are all but zero, and
    saddles.
    """
    u = list(near.parts)

    def value(t):
        at = x._replace(t=t)
        return deviance_with_mode(at, data, mode(at, u, data))

    def gradient(t):
        at = x._replace(t=t)
        there = mode(at, u, data)
        return deviance_gradient(at, there, look(at, there, data), data)[1].t

    return settled(x.t, data.layout.blocks, value, gradient)


def joint_hessian(data: Data, x: Place, H, near: Modes):
    """Hessian of the deviance in all coordinates, by central differences of the exact gradient.

    H: inverse curvature as BFGS has it. Steps are parts of the standard deviation of each
    coordinate: standard errors are right to 1e-7 and better. Modes are predicted to first order:
    what that leaves is even in the step, and cancels.
    """
    u = mode(x, list(near.parts), data)
    at = look(x, u, data)
    v = flat(x)
    step = jnp.minimum(DIFFERENCE * jnp.sqrt(2.0 * jnp.maximum(jnp.diagonal(H), 1e-12)), LONGEST)

    def one(direction):
        du = moved(x, split(direction, x), u, at, data)

        def beside(side):
            there, near = split(v + side * direction, x), plus(u, du, side)
            return flat(deviance_gradient(there, near, look(there, near, data), data)[1])

        ahead, behind = lax.map(beside, jnp.array([1.0, -1.0], v.dtype))
        return ahead - behind

    found = lax.map(one, jnp.diag(step)) / (2.0 * step[:, None])
    return 0.5 * (found + found.T)


class Facts(NamedTuple):
    """What is known at a place, with the mode there."""

    u: list
    b: list  # modes of the random effects per factor (m, k), in the user's order and units
    deviance: jax.Array
    decrement: jax.Array  # how far h is above its minimum by Newton's quadratic model
    residual: jax.Array  # largest |Lambda'Z's - u|
    eta: jax.Array  # (n,)
    score: jax.Array
    W: jax.Array
    W0: jax.Array  # weights of rows that all have one mean
    theta: jax.Array  # (d,) absolute, lme4's order
    beta: jax.Array  # (p,)
    gamma: jax.Array  # (r,) of the family's predictors in the user's columns, on their free scales
    jacobian: jax.Array  # of (theta, beta, gamma) by all coordinates
    zero: jax.Array  # (d,) whether the column of Lambda that an entry of t belongs to is zero
    vanishing: list  # per factor, in the user's order (k,): columns of Lambda that are singular


def facts(data: Data, x: Place, near: Modes, RD) -> Facts:
    """Everything at x that a fit reports; the mode is searched from `near`."""
    u = mode(x, list(near.parts), data)
    at = look(x, u, data)
    free = free_parameters(x.g, data)
    slope = plus(pulled_back(at.factors, at.zs), u, -1.0)
    user = in_user_units(flat(x), data, x, RD)
    jacobian = jax.jacfwd(lambda v: flat(in_user_units(v, data, x, RD)))(flat(x))
    W0 = rows_of(data.family, data.row, _common_predictor(data), free)[2]
    vanishing = vanishing_columns(factors(user.t, user_blocks(data.layout)), data)
    return Facts(
        u=u,
        b=_user_effects(effects(at.factors, u), data),
        deviance=deviance_with_mode(x, data, u),
        decrement=at.decrement,
        residual=jnp.max(jnp.stack([jnp.max(jnp.abs(s)) for s in slope])),
        eta=at.eta,
        score=at.score,
        W=at.W,
        W0=W0,
        theta=user.t,
        beta=user.c,
        gamma=user.g,
        jacobian=jacobian,
        zero=zero_columns(x.t, data.layout.blocks)[1],
        vanishing=vanishing,
    )


def _common_predictor(data):
    """The link of the mean of all responses (n,)."""
    used = data.row.w > 0
    mean = jnp.sum(jnp.where(used, data.row.y, 0.0)) / jnp.sum(jnp.where(used, data.row.m, 0.0))
    whole = Row(mean + 0.0 * data.row.y, data.row.w, jnp.ones_like(data.row.y))
    if data.family.has_trials:  # the start adds half a success and half a failure
        whole = Row(2.0 * mean - 0.5 + 0.0 * data.row.y, data.row.w, jnp.ones_like(data.row.y))
    return density(data.family).start(whole)


def _user_effects(b, data: Data):
    """Conditioned effects per block (k, m) as (m, k) per factor, in the user's order and units."""
    return [b[j].T @ inverse_lower(data.A[j]).T for j in data.layout.order]


def mode_covariances(data: Data, x: Place, modes: Modes):
    """Cov(b | y, beta, theta) of every level, one array (m, k, k) per factor, in the user's
    order and units.
    """
    m = look(x, list(modes.parts), data).moments
    return gaussian_mode_covariances(x.t, m)


def in_user_units(v, data: Data, like: Place, RD) -> Place:
    """The user's (theta, beta, gamma) of conditioned coordinates v; theta is absolute."""
    x = split(v, like)
    parts, start = [], 0
    for R in RD:
        width = 1 if R is None else R.shape[1]
        own = x.g[start : start + width]
        parts.append(own if R is None else inverse_upper(R) @ own)
        start += width
    gamma = jnp.concatenate(parts) if parts else x.g
    return Place(to_user(x.t, data.layout, data.A), data.beta0 + inverse_upper(data.R) @ x.c, gamma)


def in_conditioned_units(theta, beta, gamma, data: Data, RD) -> Place:
    """Conditioned coordinates of the user's parameters."""
    t = to_conditioned(theta, data.layout, data.A)
    return Place(t, data.R @ (beta - data.beta0), _conditioned_numbers(gamma, RD))
