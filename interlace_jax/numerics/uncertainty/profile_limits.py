"""Profile likelihood: the value of one quantity at which the deviance, all else re-optimised, has
risen by z^2.

A *question* asks for one limit of one quantity c = centre + unit u. The constraint is built into
the parametrisation y = (t, log sigma, u), so that every other coordinate stays free:

    SD of column j      row j of Lambda is replaced by c / sigma times its direction
    correlation (i, j)  row j by its length times (sin c v + cos c w), v the direction of row i, w
                        that of what row j has at a right angle to v; the lengths of both rows are
                        the squares of what is free, so that nothing has a kink where one of them is
                        0, which is where many such minima are
    sigma               log sigma is c
    coefficient         r2(c) = r2 + (c - a'b)^2 / (a' (X'V^-1X)^-1 a) for a'b = c
    residual            one of the numbers psi is c less the others, and less log sigma, that c is
    the sum of; of a Toeplitz matrix the partial autocorrelation that makes tanh c a correlation

Each is smooth up to and at the boundary. The limit is a root of zeta(c) = sqrt(d(c) - d_min) - |z|,
found by walking outward and then by Newton steps inside a bracket; dd/dc is the partial derivative,
as all others vanish at the inner optimum. The inner minimum has several basins where groups are
few: a search that starts afresh at each c lands in one or another of them, and its zeta jumps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ...support.later import jax, jnp, lax
from ..covariance.parameters import columns, conditioned_factors
from ..crossproducts.moments import Moments
from ..estimation.bfgs import minimise, resume
from ..likelihood.coordinates import roots
from ..likelihood.elimination import reduce_factors
from ..linalg.matrices import inverse_lower, logdet_quadratic

# diagonals of Lambda smaller than this start here: a zero column would be stationary even at a
# saddle
AWAY = 0.1
ZERO = 1e-8  # diagonals below this give a row no direction, in which its SD could be held
PRECISE = 1e-8  # of |z|, where the search for a root ends
CLOSE = 1e-4  # of |z|, within which a limit has been found
CLOSED = 1e-12  # relative width of a bracket in which there is nothing left to try
STRIDE = 0.25  # of |z|, by which zeta may grow from one trial to the next on the way out
MAX_ROOT_STEPS = 50


class Question(NamedTuple):
    """One limit of one quantity; with a leading axis, many. Every unused mask is zero."""

    i: tuple[jax.Array, ...]  # per block (k,) one at the row of Lambda a correlation is with
    j: tuple[jax.Array, ...]  # per block (k,) one at the row that c describes
    lengths: jax.Array  # (2,) typical ones of these two rows
    is_correlation: jax.Array
    is_sigma: jax.Array
    psi: jax.Array  # (r,) one at the number of the residual covariance that c describes
    others: (
        jax.Array
    )  # (r + 1,) ones at the other numbers, and at the end for log sigma, that are in c
    order: (
        jax.Array
    )  # (k,) by visit its place where correlations are numbered; () without residuals
    a: jax.Array  # (p,) coefficient as a contrast of the conditioned ones
    reml: jax.Array
    centre: jax.Array  # c at the optimum
    unit: jax.Array  # about a standard error
    minimum: jax.Array  # deviance at the optimum
    bound: jax.Array  # the largest |u| that makes sense on this side
    z: jax.Array  # signed target
    first: jax.Array  # |u| to try first
    y: jax.Array  # (d + 2,) where to start
    H: jax.Array  # (d + 2, d + 2) inverse Hessian to start with; its last row and column are zero


class Limit(NamedTuple):
    """Answer to a question."""

    c: jax.Array
    zeta: jax.Array  # signed root of the rise of the deviance
    at_bound: jax.Array  # the deviance does not rise by z^2 before the bound
    found: jax.Array
    y: jax.Array  # (d + 2,)


def _direction(v):
    """A vector over its length; zero where it is."""
    square = jnp.sum(v**2)
    return v / jnp.sqrt(jnp.where(square > 0.0, square, 1.0))


def _constrained(Lam, c, sigma, i, j, lengths, is_correlation):
    """Lam (k, k) on the user's scale with its row j, and i for a correlation, moved to where c
    wants it.
    """
    other, row = i @ Lam, j @ Lam
    v = _direction(other)
    w = _direction(row - (row @ v) * v)
    first, second = jnp.sum(other**2) / lengths[0], jnp.sum(row**2) / lengths[1]
    new = jnp.where(
        is_correlation, second * (jnp.sin(c) * v + jnp.cos(c) * w), c / sigma * _direction(row)
    )
    return Lam + jnp.outer(i, first * v - other) + jnp.outer(j, new - row)


def deviance_at(y, q: Question, m: Moments):
    """Joint deviance under the constraint of a question: a scalar. y (d + 2,)."""
    c, blocks = q.centre + q.unit * y[-1], m.layout.blocks
    log_sigma = jnp.where(q.is_sigma, c, y[-2])
    sigma = jnp.exp(log_sigma)
    t = _with_residual(y[:-2], c, log_sigma, q, m)
    Lams = []
    for Lam, A, i, j in zip(conditioned_factors(t, blocks, m.A), m.A, q.i, q.j, strict=True):
        Lams.append(
            A @ _constrained(inverse_lower(A) @ Lam, c, sigma, i, j, q.lengths, q.is_correlation)
        )
    whitened, logdet_residual = _ordered(m, q.order).whitened(t)
    reduced = reduce_factors(Lams, roots(t, m), whitened)
    logdet_x, explained = logdet_quadratic(reduced.XX, jnp.stack([reduced.Xy, q.a], 1))
    is_coefficient = explained[1, 1] > 0.0
    gap = (c - explained[0, 1]) ** 2 / jnp.where(is_coefficient, explained[1, 1], 1.0)
    r2 = m.scale**2 * (reduced.yy - explained[0, 0] + jnp.where(is_coefficient, gap, 0.0))
    logdet_r = 2.0 * jnp.sum(jnp.log(jnp.abs(jnp.diagonal(m.R))))
    logdet = logdet_residual + reduced.logdet + jnp.where(q.reml, logdet_x + logdet_r, 0.0)
    nu = m.n - jnp.where(q.reml, m.p, 0)
    return logdet + nu * (jnp.log(2.0 * jnp.pi) + 2.0 * log_sigma) + r2 / sigma**2 - m.log_weights


def _with_residual(t, c, log_sigma, q, m):
    """T (d,) with the number of the residual covariance that c describes set to what c says."""
    if m.residual is None:
        return t
    r = q.psi.shape[0]
    psi = t[t.shape[0] - r :]
    held = m.residual.structure.held(psi, c - q.others @ jnp.append(psi, log_sigma))
    return jnp.append(t[: t.shape[0] - r], jnp.where(q.psi > 0.0, held, psi))


def _ordered(m, order):
    """The moments with the visits that correlations know in another order."""
    if m.residual is None:
        return m
    patterns = m.residual.patterns
    return replace(
        m,
        residual=replace(m.residual, patterns=replace(patterns, position=order[patterns.position])),
    )


def _off_saddles(y, blocks, near):
    """Y (d + 2,) with AWAY in place of diagonals of Lambda smaller than `near`."""
    for c in columns(blocks):
        y = y.at[c[0]].set(jnp.where(jnp.abs(y[c[0]]) < near, AWAY, y[c[0]]))
    return y


class _Root(NamedTuple):
    s: jax.Array  # |u| to try
    inside: jax.Array  # largest |u| known to be too small
    outside: jax.Array  # smallest known to be too large; infinite if none is
    zeta: jax.Array  # at the last |u| tried
    tried: jax.Array
    y: jax.Array  # the lowest point there
    y_inside: jax.Array  # the lowest point at `inside`
    H_inside: jax.Array
    steps: jax.Array
    exact: jax.Array
    done: jax.Array


def limit(q: Question, m: Moments) -> Limit:
    """Answer one question: walk outward from the optimum, then close in on the root from inside.

    Every inner search starts at the last lowest point inside, so that the deviance found there is
    that of a path from the optimum, which has no jumps; a second one starts beside it, off saddles.
    """
    side, z = jnp.sign(q.z), jnp.abs(q.z)
    value_and_grad = jax.value_and_grad(lambda y: deviance_at(y, q, m))

    def lowest(s, y, H):
        """The lowest point (d + 2,) at |u| = s found from a point inside, its deviance, gradient
        and H.
        """
        starts = [_off_saddles(y, m.layout.blocks, near) for near in (ZERO, AWAY)]
        starts = jnp.stack(starts).at[:, -1].set(side * s)
        found = jax.vmap(lambda start: minimise(value_and_grad, resume(start, H)))(starts)
        best = jnp.argmin(jnp.where(jnp.isfinite(found.f), found.f, jnp.inf))
        return jax.tree.map(lambda a: a[best], (found.x, found.f, found.g, found.H))

    def body(r):
        y, f, g, H = lowest(r.s, r.y_inside, r.H_inside)
        zeta = jnp.sqrt(jnp.maximum(f - q.minimum, 0.0))
        slope = side * g[-1] / (2.0 * jnp.where(zeta > 0.0, zeta, 1.0))
        short = zeta < z
        inside, outside = jnp.where(short, r.s, r.inside), jnp.where(short, r.outside, r.s)
        s = jnp.minimum(_next(r.s, zeta, slope, inside, outside, z), q.bound)
        exact = jnp.abs(zeta - z) <= PRECISE * z
        closed = jnp.isfinite(outside) & (outside - inside <= CLOSED * outside)
        return _Root(
            s=s,
            inside=inside,
            outside=outside,
            zeta=zeta,
            tried=r.s,
            y=y,
            y_inside=jnp.where(short, y, r.y_inside),
            H_inside=jnp.where(short, H, r.H_inside),
            steps=r.steps + 1,
            exact=exact,
            done=exact | (short & (r.s >= q.bound)) | closed,
        )

    zero, never = jnp.zeros_like(q.first), jnp.bool(False)
    first = jnp.minimum(q.first, q.bound)
    start = _Root(
        first, zero, zero + jnp.inf, zero, zero, q.y, q.y, q.H, jnp.int32(0), never, never
    )
    r = lax.while_loop(lambda r: ~r.done & (r.steps < MAX_ROOT_STEPS), body, start)
    at_bound = (r.zeta < z * (1.0 - PRECISE)) & (r.tried >= q.bound)
    is_found = at_bound | (jnp.abs(r.zeta - z) <= CLOSE * z)
    return Limit(q.centre + q.unit * side * r.tried, side * r.zeta, at_bound, is_found, r.y)


def _next(s, zeta, slope, inside, outside, z):
    """The |u| to try after s: outward by a quarter of the way at most, then by Newton's method
    inside the bracket.
    """
    rising = slope > 0.0
    steep = jnp.where(rising, slope, 1.0)
    step = jnp.minimum(z - zeta, STRIDE * z) / steep
    walked = s + jnp.where(rising, jnp.minimum(step, s), s)
    newton = s + (z - zeta) / steep
    within = rising & (newton > inside) & (newton < outside)
    return jnp.where(
        jnp.isinf(outside), walked, jnp.where(within, newton, 0.5 * (inside + outside))
    )


def limits(questions: Question, m: Moments) -> Limit:
    """Answer many questions at once."""
    return jax.vmap(lambda q: limit(q, m))(questions)
