"""The Laplace approximation of a generalised linear mixed model, its gradient, and its derivatives
of every order.

    y_i ~ f(eta_i, phi_i),   eta = o + X c + Z Lambda u,   u ~ N(0, I)
    h(u) = -2 sum_i l(y_i, eta_i, phi_i) + |u|^2,   mode u^: Lambda'Z's = u,
    d(t, c, g) = h(u^) + log|M|,                    M = I + Lambda'Z'WZ Lambda               (1)

l is the log-density of a row, s = l' its score and W = -l'' its *observed* information, by eta. d
is the approximation to -2 log-likelihood that TMB makes (Kristensen et al. 2016, JSS 70(5)); with
the expected information in place of W it would be another function for links that are not
canonical, and a worse one. M is that of `elimination`, with weights of its own at every trial.

Columns are conditioned as those of the Gaussian model, theta is absolute: there is no sigma that it
could be relative to. Where the levels of a factor covary, L (x) Lambda stands in place of Lambda.
"""

from __future__ import annotations

import functools
from dataclasses import field, replace
from typing import Any, ClassVar, NamedTuple

from ...support.containers import container
from ...support.later import custom_jvp, jax, jnp, lax
from ..covariance.parameters import conditioned_factors
from ..crossproducts.layout import Plan
from ..crossproducts.moments import Moments, _sum_by, design_products
from ..families.density import Row
from ..families.family import Distribution
from ..families.rows import constants, rows_of
from .coordinates import roots
from .elimination import Eliminated, eliminate, reduce, solve

MOST_TRIPS = 60  # of Newton's method at one place
FORWARD = 2  # parameters of a family up to which forward derivatives are the cheaper


class Place(NamedTuple):
    """Where a model is looked at, in conditioned coordinates."""

    t: jax.Array  # (d,) parameters of the random effects
    c: jax.Array  # (p,) coefficients, less those in the offset
    g: jax.Array  # (r,) coefficients of the family's parameters


@container
class Data:
    """Rows of a generalised model in conditioned columns, factors in elimination order.

    A pytree: `vmap` over it.
    """

    family: Distribution = field(metadata={"static": True})
    plan: Plan
    row: Row
    offset: jax.Array  # (n,) with X beta0 in it
    X: jax.Array  # (n, p) X R^-1
    Z: tuple[jax.Array, ...]  # per block (n, k) Z A^-1
    # per parameter of the family the columns (n, r_j) of its predictor, or None
    D: tuple[jax.Array | None, ...]
    A: tuple[jax.Array, ...]
    K: tuple[Any, ...]
    R: jax.Array
    beta0: jax.Array  # (p,) in the user's units
    # of quadrature, in every dimension; 1: Laplace; 0: Laplace, with c beside u
    nodes: int = field(default=1, metadata={"static": True})

    sizes: ClassVar[dict[str, int]] = {}

    @property
    def layout(self):
        """Elimination order and index lists."""
        return self.plan.layout

    @functools.cached_property
    def generalised(self) -> Data | None:
        """These rows for any number of rows, levels and coefficients; see `Layout.generalised`."""
        plan = self.plan.generalised
        if plan is None:
            return None
        return replace(
            self,
            plan=plan,
            row=Row("n", "n", "n"),
            offset="n",
            X="n p",
            Z=("n _",) * len(self.Z),
            D=tuple(None if columns is None else "n _" for columns in self.D),
            A=("_ _",) * len(self.A),
            R="p p",
            beta0="p",
        )


@container
class Modes:
    """Effects u, per block (k, m), as an argument of a program."""

    parts: tuple[jax.Array, ...]

    sizes: ClassVar[dict[str, int]] = {}

    @functools.cached_property
    def generalised(self) -> Modes:
        """The same for any number of levels."""
        return Modes(tuple(f"_ m{j}" for j in range(len(self.parts))))


def widths(D) -> list[int]:
    """How many numbers of g belong to each parameter of the family."""
    return [1 if columns is None else columns.shape[1] for columns in D]


def free_parameters(g, data: Data) -> tuple:
    """The family's parameters on their free scale: () each, or (n,) where they have a predictor
    of their own.
    """
    found, start = [], 0
    for columns, width in zip(data.D, widths(data.D), strict=True):
        part = g[start : start + width]
        found.append(part[0] if columns is None else columns @ part)
        start += width
    return tuple(found)


# Random effects -----------------------------------------------------------------------------------


class Factors(NamedTuple):
    """What turns u into the random effects b = L (x) Lambda u, per block."""

    Lams: list  # (k, k)
    Ls: list  # (m, m), or None


def factors_at(t, data: Data) -> Factors:
    """Factors of all blocks; those of the chain have no L."""
    chain = [None] * data.layout.chain
    return Factors(conditioned_factors(t, data.layout.blocks, data.A), [*chain, *roots(t, data)])


def effects(factors: Factors, u):
    """Random effects b of u, per block (k, m)."""
    return [_small_product(Lam, _by_levels(v, L)) for Lam, L, v in zip(*factors, u, strict=True)]


def pulled_back(factors: Factors, b):
    """(L (x) Lambda)' b, per block (k, m)."""
    return [
        _small_product(Lam.T, _by_levels(v, None if L is None else L.T))
        for Lam, L, v in zip(*factors, b, strict=True)
    ]


def _small_product(Lam, v):
    return sum(Lam[:, j, None] * v[j][None] for j in range(len(Lam)))


def _by_levels(v, L):
    return v if L is None else v @ L.T


def dot(a, b):
    """Inner product of two lists of arrays."""
    return sum(jnp.sum(x * y) for x, y in zip(a, b, strict=True))


def plus(a, b, times=1.0):
    """Sum a + times b, per block."""
    return [x + times * y for x, y in zip(a, b, strict=True)]


def spread(data: Data, b):
    """Z b (n,) of effects b, per block (k, m).

    Column by column: an einsum over (n, k) is 13 times slower.
    """
    pairs = zip(data.Z, b, data.plan.codes, strict=True)
    return sum(z[:, j] * effect[j][code] for z, effect, code in pairs for j in range(z.shape[1]))


def collect(data: Data, r):
    """Z'r, per block (k, m)."""
    triples = zip(data.Z, data.plan.codes, data.layout.blocks, strict=True)
    return [_sum_by(z * r[:, None], code, block.levels) for z, code, block in triples]


def linear_predictor(x: Place, data: Data, factors: Factors, u):
    """Linear predictor eta (n,)."""
    return data.offset + data.X @ x.c + spread(data, effects(factors, u))


def products(data: Data, W) -> Moments:
    """Z'WZ as the moments of a model without fixed effects and without a response."""
    layout, zero = data.layout, jnp.zeros((), W.dtype)
    nothing = jnp.zeros(0, W.dtype)
    return Moments(
        layout,
        **design_products(data.plan, data.X[:, :0], data.Z, W),
        Zy=tuple(jnp.zeros((b.k, b.levels), W.dtype) for b in layout.blocks[: layout.chain]),
        Xy=jnp.zeros(layout.q, W.dtype),
        yy=zero,
        n=zero,
        log_weights=zero,
        A=data.A,
        K=data.K,
        R=jnp.zeros((0, 0), W.dtype),
        beta0=nothing,
        scale=zero + 1.0,
    )


def factored(factors: Factors, m: Moments) -> Eliminated:
    """M factored, for `elimination.solve`."""
    return eliminate(factors.Lams, factors.Ls[m.layout.chain :], m)


# One place and one u: Newton's step, and the gradient where u is the mode -----


class Look(NamedTuple):
    """What a trial shows."""

    h: jax.Array  # ()
    step: list  # Newton's step of u, per block
    decrement: jax.Array  # step'M step: what it lowers h by, to second order
    proper: jax.Array  # whether M is positive definite, as it is at a mode
    eta: jax.Array
    score: jax.Array
    W: jax.Array
    zs: list  # Z's
    factors: Factors
    moments: Moments
    eliminated: Eliminated


def look(x: Place, u, data: Data) -> Look:
    """One evaluation of the rows and one elimination.

    Where the family is not concave, M may be indefinite away from the mode: the root of a negative
    number shows it. Then the step is that of the weights that are not negative.
    """
    factors, free = factors_at(x.t, data), free_parameters(x.g, data)
    eta = linear_predictor(x, data, factors, u)
    value, score, W = rows_of(data.family, data.row, eta, free)
    zs = collect(data, score)
    slope = plus(pulled_back(factors, zs), u, -1.0)  # minus half of dh/du

    def newton(W):
        m = products(data, W)
        eliminated = factored(factors, m)
        step = solve(eliminated, slope)
        return m, eliminated.levels, eliminated.core, step, dot(step, slope)

    found, proper = newton(W), True
    if not data.family.is_concave:
        proper = jnp.isfinite(found[-1])
        found = lax.cond(proper, lambda: found, lambda: newton(jnp.maximum(W, 0.0)))
    m, levels, core, step, decrement = found
    eliminated = Eliminated(
        data.layout, levels, core, factors.Lams, factors.Ls[data.layout.chain :]
    )
    h = -2.0 * jnp.sum(value) + dot(u, u)
    return Look(h, step, decrement, proper, eta, score, W, zs, factors, m, eliminated)


def gradient(x: Place, u, at: Look, data: Data):
    """The Laplace deviance at the mode u, and its gradient by x: without unrolling the search for
    the mode.

    With lev = d log|M| / dW, W' = -l''', a = M^-1 Lambda'Z'(lev W') and e = Z Lambda a, all held,

        q = -2 s + lev W' - W e;   d/dc = X'q;
        d/dt = d/dt [(Z'q)'b(t, u) + (Z's)'b(t, a) + log|M| at W held];
        d/dg = d/dg sum [-2 l + lev W + e s].

    Newton's step that is left is counted with what it changes d by to first order.
    """
    parts = {name: getattr(at.moments, name) for name in ("G", "B", "E", "ZX", "XX")}

    def log_determinant(t, parts):
        return reduce(t, replace(at.moments, **parts)).logdet

    logdet, (by_t, by_parts) = jax.value_and_grad(log_determinant, (0, 1))(x.t, parts)
    (lev,) = jax.vjp(lambda W: design_products(data.plan, data.X[:, :0], data.Z, W), at.W)[1](
        by_parts
    )

    free = free_parameters(x.g, data)
    one = jnp.ones_like(at.eta)
    third = jax.jvp(lambda eta: rows_of(data.family, data.row, eta, free)[2], (at.eta,), (one,))[1]
    pulled = pulled_back(at.factors, collect(data, lev * third))
    a = solve(at.eliminated, pulled)
    e = spread(data, effects(at.factors, a))
    q = -2.0 * at.score + lev * third - at.W * e
    zq = collect(data, q)

    def held(t):
        factors = factors_at(t, data)
        return dot(zq, effects(factors, u)) + dot(at.zs, effects(factors, a))

    def by_family(g):
        free = free_parameters(g, data)
        value, score, W = rows_of(data.family, data.row, at.eta, free)
        constant = jnp.sum(constants(data.family, data.row, free))
        return jnp.sum(-2.0 * value + lev * W + e * score) - 2.0 * constant

    size = sum(widths(data.D))
    by_g = (jax.jacfwd if size <= FORWARD else jax.grad)(by_family)(x.g) if size else x.g
    left = dot(pulled, at.step) - at.decrement
    constant = jnp.sum(constants(data.family, data.row, free))
    return at.h + logdet + left - 2.0 * constant, Place(
        by_t + jax.grad(held)(x.t), data.X.T @ q, by_g
    )


def moved(x: Place, dx: Place, u, at: Look, data: Data):
    """Change du of the mode along dx: M du = d(Lambda'Z's).

    A prediction: the weights may be the step's.
    """

    def slope(t, eta, g):
        score = rows_of(data.family, data.row, eta, free_parameters(g, data))[1]
        return pulled_back(factors_at(t, data), collect(data, score))

    def eta_of(t, c):
        return linear_predictor(Place(t, c, x.g), data, factors_at(t, data), u)

    _, deta = jax.jvp(eta_of, (x.t, x.c), (dx.t, dx.c))
    _, right = jax.jvp(slope, (x.t, at.eta, x.g), (dx.t, deta, dx.g))
    return solve(at.eliminated, right)


class Newton(NamedTuple):
    """Newton's method for the mode at one place: the last u that was taken, and the step to the
    next.
    """

    u: list
    h: jax.Array
    step: list
    decrement: jax.Array
    a: jax.Array  # part of the step to take
    trips: jax.Array

    @property
    def trial(self):
        """The next u to look at."""
        return plus(self.u, self.step, self.a)


def started(u) -> Newton:
    """Before the first look, which is at u itself."""
    zero = jnp.zeros((), u[0].dtype)
    return Newton(
        u, zero + jnp.inf, [jnp.zeros_like(v) for v in u], zero + jnp.inf, zero, jnp.int32(0)
    )


def is_taken(newton: Newton, at: Look):
    """Whether h has not risen at the trial."""
    fell = at.h <= newton.h + 1e-11 * jnp.abs(newton.h)
    return jnp.isfinite(at.h) & jnp.isfinite(at.decrement) & fell


def advanced(newton: Newton, at: Look, taken) -> Newton:
    """The trial taken, with the step from there; or the step halved."""
    new = Newton(newton.trial, at.h, at.step, at.decrement, jnp.ones_like(newton.a), newton.trips)
    chosen = jax.tree.map(lambda a, b: jnp.where(taken, a, b), new, newton)
    return chosen._replace(a=jnp.where(taken, 1.0, 0.5 * newton.a), trips=newton.trips + 1)


def mode(x: Place, u, data: Data):
    """The mode u^ at x, searched from u."""

    def going(newton):
        return (newton.decrement > 1e-18) & (newton.trips < MOST_TRIPS)

    def trip(newton):
        at = look(x, newton.trial, data)
        return advanced(newton, at, is_taken(newton, at))

    return lax.while_loop(going, trip, started(list(u))).trial


# The deviance as a function with derivatives of every order -----


def stationarity(x: Place, data: Data, u):
    """Lambda'Z's with u held, per block: u itself where u is the mode."""
    factors = factors_at(x.t, data)
    eta = linear_predictor(x, data, factors, u)
    score = rows_of(data.family, data.row, eta, free_parameters(x.g, data))[1]
    return pulled_back(factors, collect(data, score))


@custom_jvp
def attach(x: Place, data: Data, u):
    """The mode u itself; its derivatives by x and the data are those of the implicit function."""
    return u


@attach.defjvp
def _attach_jvp(primals, tangents):
    """M du = d(Lambda'Z's), u held (implicit function theorem)."""
    x, data, u = primals
    u = attach(x, data, u)

    _, right = jax.jvp(
        lambda x, data: stationarity(x, data, u), (x, data), (tangents[0], tangents[1])
    )
    factors = factors_at(x.t, data)
    eta = linear_predictor(x, data, factors, u)
    W = rows_of(data.family, data.row, eta, free_parameters(x.g, data))[2]

    def times(v):
        return plus(v, pulled_back(factors, collect(data, W * spread(data, effects(factors, v)))))

    held_W, held_factors, held_data = lax.stop_gradient((W, factors, data))
    eliminated = factored(held_factors, products(held_data, held_W))

    def solved(_, v):
        return solve(eliminated, v)

    return u, lax.custom_linear_solve(times, right, solved, transpose_solve=solved, symmetric=True)


def deviance_at(x: Place, data: Data, u):
    """The Laplace deviance (1) at x with the mode u there: differentiable in x and the data at
    every order.
    """
    u = attach(x, data, lax.stop_gradient(u))
    free = free_parameters(x.g, data)
    eta = linear_predictor(x, data, factors_at(x.t, data), u)
    value, _, W = rows_of(data.family, data.row, eta, free)
    total = jnp.sum(value) + jnp.sum(constants(data.family, data.row, free))
    return -2.0 * total + dot(u, u) + reduce(x.t, products(data, W)).logdet
