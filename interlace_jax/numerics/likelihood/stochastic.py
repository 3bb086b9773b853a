"""The deviance of crossed factors without a matrix of their levels: Krylov methods and random
probes.

Eliminate the largest factor level by level, W = Lambda_0 (Lambda_0' G_0 Lambda_0 + I)^-1 Lambda_0'.
On the others

    S = I + Lambda' (Z'WZ - K W K') Lambda = D^(1/2) (I - C) D^(1/2),

D the diagonal blocks of S, of which C has none.

With L L' = D and U = L^-1 Lambda',  C V = U [ K W K' - E - K_off ] U'V, where E are the diagonal
blocks of K W K' and K_off are the blocks between different factors. Then log|M| = log|M_00| +
log|D| + log|I - C|, and

    log|I - C| = tr( log(I - C) + C )      as tr C = 0: subtracting C leaves nothing of first order
               ~ sum_j q_j' f(C) q_j + mean_i z_i' P f(C) P z_i,
    f(C) = log(I - C) + C,    P = I - QQ'

with Rademacher probes z (Hutchinson 1990) that are the same at every theta, and Q near the dominant
eigenvectors of C: the directions in which the levels of a factor move together (its intercept is
nearly confounded with that of the eliminated factor). This is unbiased for every Q, and leaves C
small on the probes. The gradient is the estimate of tr((I - C)^-1 dN) = tr((I - C)^-1 C dN) from
the same probes (N = I - C has a constant trace). Everything that depends on y and X is solved by
conjugate gradients to TIGHT, and differentiated at the solution, exactly.

All functions take conditioned parameters t (see `covariance`) and `Products`. Vectors over the
levels of the factors that are left are arrays (q, c): factor by factor (k, m, c), flattened.
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import sequential_vmap

from ..covariance.parameters import conditioned_factors
from ..crossproducts.cells import Products, congruence, product
from ..linalg.krylov import advance, begin, columns, dominant, quadrature
from ..linalg.levels import whiten
from ..linalg.matrices import symmetric
from .elimination import Reduced, parts, whitened_core
from .gaussian import profile

POWERS = 2  # subspace iterations that improve the deflated directions
# relative residuals: of probes, whose own noise is larger, and of what must be exact
ROUGH, TIGHT = 1e-5, 1e-9
MEMORY = 64  # nodes of a quadrature at most
MOST = 2000  # steps of conjugate gradients at most
STEP = 1e-3  # of central differences, relative to theta


class Factored(NamedTuple):
    """What a theta makes of the products, level by level."""

    logdet: jax.Array  # () log|M_00| + log|D|
    W: jax.Array  # (k, k, m) of the eliminated factor
    E: tuple[jax.Array, ...]  # per factor that is left (k, k, m)
    U: tuple[jax.Array, ...]  # per factor that is left (k, k, m)


def factor(t, m: Products) -> Factored:
    """Eliminate the largest factor, and factor the diagonal blocks of what is left."""
    Lam, *Lams = conditioned_factors(t, m.layout.blocks, m.A)[: m.layout.chain]
    logdet, half = _whitened(m.G[0], Lam)
    W = _gram(half)
    E = tuple(congruence(m, h, 0, W) for h in range(1, len(m.G)))
    pairs = [_whitened(G - e, Lam) for G, e, Lam in zip(m.G[1:], E, Lams, strict=True)]
    return Factored(logdet + sum(d for d, _ in pairs), W, E, tuple(U for _, U in pairs))


def _whitened(G, Lam):
    k, levels = G.shape[1:]
    logdet, (U,) = whiten(
        G, Lam, [jnp.broadcast_to(jnp.eye(k, dtype=Lam.dtype)[:, :, None], (k, k, levels))]
    )
    return logdet, U


def _gram(U):
    """U'U of every level."""
    return jnp.sum(U[:, :, None] * U[:, None], 0)


def _times(B, V):
    """B V of every level: (k, k, m) and (k, m, c)."""
    return sum(B[:, j, :, None] * V[j][None] for j in range(V.shape[0]))


def _transposed(B):
    return jnp.swapaxes(B, 0, 1)


def _split(V, m):
    """A vector over the levels that are left, factor by factor."""
    ends = np.cumsum([b.levels * b.k for b in m.rest])
    parts = [V[e - b.levels * b.k : e] for e, b in zip(ends, m.rest, strict=True)]
    return [v.reshape(b.k, b.levels, -1) for v, b in zip(parts, m.rest, strict=True)]


def _join(parts):
    return jnp.concatenate([v.reshape(-1, v.shape[-1]) for v in parts])


def _down(m, B):
    """K_0' B of effects B of the factors that are left: onto the eliminated one, (k, m, c)."""
    return sum(product(m, 0, h, b) for h, b in enumerate(B, 1))


def _spread(f, m, V):
    """U'V of a vector over the levels that are left: effects, factor by factor."""
    return [_times(_transposed(U), v) for U, v in zip(f.U, _split(V, m), strict=True)]


def _collect(f, parts):
    """U times every factor's part, as one vector."""
    return _join([_times(U, v) for U, v in zip(f.U, parts, strict=True)])


def _explain(f, m, C, B):
    """What effects B of the factors that are left leave of scores C, factor by factor (k, m, c).

    Of the eliminated factor e = C_0 - K_0'B, of the others C_h - K_h W e - E_h B_h - K_off B: a
    level's own diagonal block is not in it.
    """
    e = C[0] - _down(m, B)
    eliminated, left = _times(f.W, e), []
    for h, (E, b) in enumerate(zip(f.E, B, strict=True), 1):
        met = C[h] - product(m, h, 0, eliminated) - _times(E, b)
        for g, other in enumerate(B, 1):
            if g != h:
                met = met - product(m, h, g, other)
        left.append(met)
    return e, left


def coupling(f: Factored, m: Products, V):
    """C V of V (q, c)."""
    # Tied to V the cells stay where they are: XLA would copy their lists out of a loop, one place
    # after the other.
    V, cells = lax.optimization_barrier((V, m.cells))
    m, B = replace(m, cells=cells), _spread(f, m, V)
    return _collect(f, _explain(f, m, [0.0] * len(m.G), B)[1])


def _scores(m):
    """Z'[Z_core X y] of every factor (k, m, c + 1)."""
    C = [jnp.concatenate([zx, zy[:, None]], 1) for zx, zy in zip(m.ZX, m.Zy, strict=True)]
    return [jnp.swapaxes(c, 1, 2) for c in C]


def _remainder(f, m):
    """[Z_core X y]'[Z_core X y] and U Z'[Z_core X y] (q, c + 1) after eliminating the first
    factor.
    """
    C = _scores(m)
    eliminated = _times(f.W, C[0])
    whole = jnp.block([[m.XX, m.Xy[:, None]], [m.Xy[None], m.yy[None, None]]])
    whole = whole - jnp.einsum("kmc,kmd->cd", C[0], eliminated)
    return whole, _collect(f, [c - product(m, h, 0, eliminated) for h, c in enumerate(C[1:], 1)])


class Solved(NamedTuple):
    """Everything that is solved for at one theta."""

    probes: jax.Array  # (q, T + r) P z and Q
    solved: jax.Array  # (q, T + r) (I - C)^-1 of them
    logs: jax.Array  # (T + r,) z' f(C) z of them
    squares: jax.Array  # (T + r,) z' f(C)^2 z of them
    fourths: jax.Array  # (T + r,) z' C^4 z of them
    fixed: jax.Array  # (q, c + 1) (I - C)^-1 U Z'[Z_core X y]
    logdet: jax.Array  # () log|M| without the core
    S: jax.Array  # (c + 1, c + 1) what is left of [Z_core X y]'[Z_core X y]


def _directions(f, m):
    """Columns (q, r) near those along which all levels of a factor move together, one for each
    of its columns.
    """
    found, width = [], sum(b.k for b in m.rest)
    start = 0
    for U, G, b in zip(f.U, m.G[1:], m.rest, strict=True):
        moved = _times(U, jnp.swapaxes(G, 1, 2))
        found.append(jnp.pad(moved, [(0, 0), (0, 0), (start, width - start - b.k)]))
        start += b.k
    return _join(found)


def solve(f: Factored, m: Products, probes) -> Solved:
    """Probes (q, T), and what depends on X and y, through (I - C)^-1: one run of conjugate
    gradients for all.
    """

    def remove(V):
        return V - coupling(f, m, V)

    Q = dominant(partial(coupling, f, m), _directions(f, m), POWERS)
    Z = jnp.concatenate([probes - Q @ (Q.T @ probes), Q], 1)
    whole, right = _remainder(f, m)
    count, T = Z.shape[1], probes.shape[1]
    tol = jnp.where(jnp.arange(count + right.shape[1]) < count, ROUGH, 1.0)
    run = advance(remove, begin(jnp.concatenate([Z, right], 1), MEMORY), tol, MEMORY)
    random, exact = columns(run, slice(count)), columns(run, slice(count, None))
    logs, squares, fourths = quadrature(_with_powers, random).T
    exact = advance(remove, exact, jnp.full(right.shape[1], TIGHT), MOST)
    # What a residual leaves out of right'(I - C)^-1 right: with it S errs as the square of what is
    # left unsolved.
    S = whole - right.T @ exact.X - exact.X.T @ exact.residual
    logdet = f.logdet + jnp.mean(logs[:T]) + jnp.sum(logs[T:])
    return Solved(Z, random.X, logs, squares, fourths, exact.X, logdet, symmetric(S))


def _with_powers(x):
    """Of eigenvalues x of I - C: f(C), f(C)^2 and C^4."""
    f = jnp.log(jnp.maximum(x, 1e-30)) + 1.0 - x
    return jnp.stack([f, f**2, (1.0 - x) ** 4])


def condense(t, m: Products, logdet, S) -> Reduced:
    """Eliminate the core, whose columns are the first of S."""
    q = m.layout.q
    if q:
        Lams = conditioned_factors(t, m.layout.blocks, m.A)[m.layout.chain :]
        added, explained = whitened_core(Lams, [None] * len(Lams), m.layout, parts(S, q))
        logdet, S = logdet + added, S[q:, q:] - explained
    return Reduced(logdet, S[:-1, :-1], S[:-1, -1], S[-1, -1])


class Evaluation(NamedTuple):
    """The deviance at one theta, its gradient, and what the choice of probes does to both."""

    deviance: jax.Array  # () with beta and sigma at their optimum
    gradient: jax.Array  # (d,) of it, or of the joint deviance at the sigma given
    r2: jax.Array  # () penalised residual sum of squares
    reduced: Reduced
    noise: jax.Array  # () standard error of the deviance
    # (T,) what the log-determinant, which is their mean and more, is by every probe
    by_probe: jax.Array
    gradient_cov: jax.Array  # (d, d) covariance of the errors of the gradient


def evaluate(t, m: Products, probes, reml, sigma=0.0) -> Evaluation:
    """The profiled deviance of t (d,) and its gradient; the gradient of the joint deviance where
    sigma is not 0.
    """
    f, moved = jax.linearize(lambda t: factor(t, m), t)
    s, T = solve(f, m, probes), probes.shape[1]
    reduced = condense(t, m, s.logdet, s.S)
    profiled = profile(reduced, m, reml)

    def criterion(t, S):
        p = profile(condense(t, m, s.logdet, S), m, reml)
        return jnp.where(sigma > 0, p.at(jnp.log(jnp.where(sigma > 0, sigma, 1.0))), p.deviance)

    of_core, weights = jax.grad(criterion, argnums=(0, 1))(t, s.S)
    slope, coupled = _slope(f, m, s, symmetric(weights))
    forms, exact = lax.map(lambda along: slope(moved(along)), jnp.eye(t.shape[0], dtype=t.dtype))
    own = jnp.einsum("dcc->dc", forms)
    gradient = of_core + exact + jnp.mean(own[:, :T], 1) + jnp.sum(own[:, T:], 1)
    value, by_probe = profiled.deviance - m.log_weights, s.logs[:T]
    noise = _standard_error(by_probe, s.squares[:T], jnp.mean(jnp.sum(probes**2, 0)))
    gradient_cov = _covariance(forms[:, :T, :T], coupled[:, :T], s.fourths[:T], probes)
    return Evaluation(value, gradient, profiled.r2, reduced, noise, by_probe, gradient_cov)


def _standard_error(forms, squares, q):
    """Of the mean of forms z'Az (T,) of random signs z (q,), from squares z'A^2z (T,).

    Their variance is 2 (|A|^2 - sum A_ii^2), |A|^2 = E z'A^2z, of which at least tr(A)^2 / q is
    taken away: eight probes know this to a few per cent, and so they do not know their own spread.
    """
    return jnp.sqrt(
        2.0 * jnp.maximum(jnp.mean(squares) - jnp.mean(forms) ** 2 / q, 0.0) / forms.shape[0]
    )


def _covariance(forms, images, fourths, signs):
    """Of the means of z'M_j z (d,) over random signs z (q, T), from the forms z_i'M_j z_l of every
    two (d, T, T).

    For symmetric M, z'M_j z and z'M_k z covary by 2 <M_j, M_k> less the diagonals, and E (z_i'M
    z_l)^2 = |M|^2. Eight probes are 28 pairs, which know this to a fifth only. A few eigenvectors
    of C make most of it, and so of
    M_j = a_j C^2 + the rest, by least squares over the pairs, C^2 has most: its forms are products
    of images C z, and fourths z'C^4z know its norm to a few per cent. The part tr(M) / q of the
    identity has no error, as z'z = q.
    """
    T, overlaps = signs.shape[1], signs.T @ signs
    q = jnp.mean(jnp.diag(overlaps))

    def of_two(F):
        mean = jnp.mean(jnp.diag(F)) / q
        return (symmetric(F) - mean * overlaps) * (1.0 - jnp.eye(T, dtype=F.dtype)), mean

    known, mean = of_two(images.T @ images)
    norm, total = jnp.maximum(jnp.mean(fourths) - q * mean**2, 0.0), jnp.sum(known**2)
    forms = jax.vmap(lambda F: of_two(F)[0])(forms)
    a = jnp.einsum("jil,il->j", forms, known) / jnp.where(total > 0, total, 1.0)
    rest = forms - a[:, None, None] * known[None]
    pairs = T * (T - 1) - 2  # each counts twice, and one is spent on a
    return 2.0 / T * (norm * jnp.outer(a, a) + jnp.einsum("jil,kil->jk", rest, rest) / pairs)


def _slope(f, m, s, weights):
    """From the derivative of f along a direction to that of what `solve` solved for; and C times
    its probes.

    By the envelope theorem solutions are held, and C = U M U' is moved through U, and through W and
    E in M: left'dC right = left'dU (M U'right) + right'dU (M U'left) + e_left'dW e_right -
    (U'left)'dE (U'right).
    Of the random part these are forms of every two probes (T + r, T + r), of the rest the sum of
    all that is exact.
    """
    count, zero = s.probes.shape[1], [(0, 0), (0, 0)]
    V = jnp.concatenate([s.solved - s.probes, s.probes, s.fixed], 1)
    C = [jnp.pad(c, [*zero, (2 * count, 0)]) for c in _scores(m)]
    B = _spread(f, m, V)
    e, met = _explain(f, m, C, B)
    coupled = _collect(f, [v[..., count : 2 * count] for v in met])

    def random(v):
        return v[..., :count], v[..., count : 2 * count]

    def exact(v):
        return v[..., 2 * count :] @ weights, v[..., 2 * count :]

    def moved(d, form, pair):
        found = -form(d.W, *pair(e))
        for dU, dE, *three in zip(d.U, d.E, _split(V, m), B, met, strict=True):
            v, b, r = map(pair, three)
            found = found + form(dE, *b) - form(dU, v[0], r[1]) - form(dU, v[1], r[0]).T
        return found

    return lambda d: (moved(d, _forms, random), d.logdet + moved(d, _form, exact)), coupled


def _forms(B, left, right):
    """Sums over levels of left'B right of every two columns, of (k, k, m) and (k, m, c)."""
    return jnp.einsum("kmc,kmd->cd", left, _times(B, right))


def _form(B, left, right):
    """Sum over the columns of the form of each with itself."""
    return jnp.sum(left * _times(B, right))


@jax.custom_jvp
def deviance(t, m: Products, probes, reml):
    """The profiled deviance of t (d,), with the first derivatives by t that `evaluate` gives,
    and their differences.
    """
    return _value_and_gradient(t, m, probes, reml)[0]


@deviance.defjvp
def _deviance_jvp(primals, tangents):
    value, gradient = _value_and_gradient(*primals)
    return value, gradient @ tangents[0]


def steps(t):
    """Lengths (d,) of the steps of central differences by t (d,), a NumPy or a JAX array."""
    return STEP * abs(t).clip(0.1)


@jax.custom_jvp
@sequential_vmap  # of many thetas together, each would wait for the last and need memory of its own
def _value_and_gradient(t, m, probes, reml):
    found = evaluate(t, m, probes, reml)
    return found.deviance, found.gradient


@_value_and_gradient.defjvp
def _value_and_gradient_jvp(primals, tangents):
    t, *data = primals
    value, gradient = _value_and_gradient(*primals)
    widths = steps(t)

    def difference(along):
        high, low = (_value_and_gradient(t + s * along, *data)[1] for s in (1.0, -1.0))
        return high - low

    rows = lax.map(difference, jnp.diag(widths)) / (2.0 * widths[:, None])
    return (value, gradient), (gradient @ tangents[0], symmetric(rows) @ tangents[0])
