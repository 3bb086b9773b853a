"""Conditional modes and covariances of the random effects by Krylov methods and random probes."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..covariance.parameters import conditioned_factors
from ..crossproducts.cells import Products, congruence, product
from ..linalg.krylov import advance, begin, dominant
from ..linalg.matrices import logdet_quadratic
from .stochastic import (
    MOST,
    POWERS,
    ROUGH,
    TIGHT,
    _directions,
    _down,
    _gram,
    _join,
    _remainder,
    _scores,
    _split,
    _spread,
    _times,
    _transposed,
    _whitened,
    condense,
    coupling,
    factor,
)


def _exact_solution(f, m):
    """S of `Solved`, and the effects that go with every column of [Z_core X y]: per chain block
    (k, m, c + 1).
    """
    whole, right = _remainder(f, m)
    tol = jnp.full(right.shape[1], TIGHT)
    fixed = advance(lambda V: V - coupling(f, m, V), begin(right), tol, MOST).X
    S = whole - right.T @ fixed
    B = _spread(f, m, fixed)
    return 0.5 * (S + S.T), [_times(f.W, _scores(m)[0] - _down(m, B)), *B]


def modes(t, m: Products):
    """Conditional modes b, one array (m, k) per factor, in the user's order and units."""
    S, B = _exact_solution(factor(t, m), m)

    def r2(v):
        reduced = condense(t, m, 0.0, S.at[:-1, -1].set(v).at[-1, :-1].set(v))
        return reduced.yy - logdet_quadratic(reduced.XX, reduced.Xy[:, None])[1][0, 0]

    coefficients = -0.5 * jax.grad(r2)(S[:-1, -1])  # as in `modes`: r2 is a minimum over them
    residual = jnp.append(-coefficients, 1.0)
    found = [b @ residual for b in B]
    for block, start, end in zip(
        m.layout.core, m.layout.offsets, m.layout.offsets[1:], strict=False
    ):
        found.append(coefficients[start:end].reshape(block.levels, block.k).T)
    return [m.scale * jnp.linalg.solve(m.A[j], found[j]).T for j in m.layout.order]


def mode_covariances(t, m: Products, probes, eliminated_probes):
    """Cov(b | y, beta) / sigma^2 of every level and the standard errors of its diagonal, from
    random probes.

    Two lists of one array (m, k, k), and (m, k), per factor, in the user's order and units. Of the
    covariances U'(I - C)^-1 U = U'U + U'AU only what A = (I - C)^-1 C contributes is estimated,
    from probes (q, T) and, for the eliminated factor, (k m, T); along the dominant directions Q it
    is exact.
    """
    f = factor(t, m)
    couple = partial(coupling, f, m)

    def apply_A(V):
        tol = jnp.full(V.shape[1], ROUGH)
        return advance(lambda V: V - couple(V), begin(V), tol, MOST).X - V

    Q = dominant(couple, _directions(f, m), POWERS)
    AQ = apply_A(Q)

    def without_Q(V):
        return apply_A(V - Q @ (Q.T @ V))

    known = _of_eliminated(t, f, m, Q, AQ, without_Q, eliminated_probes)
    found = [_averaged(known, m.A[0])]
    split = [_split(V, m) for V in (AQ, Q, without_Q(probes), probes)]
    for U, A, aq, q, az, z in zip(f.U, m.A[1:], *split, strict=False):
        part = _Known(U, _gram(U), _gram(U), aq, q, _level_samples(az, z))
        found.append(_averaged(part, A))
    return _user_covariances(_with_core(found, t, f, m) if m.layout.q else found, m)


class _Known(NamedTuple):
    """What is known of the covariances of one factor, level by level, and samples of the rest."""

    U: Any  # (k, k, m): the covariances are U'U + U'AU, or of the eliminated factor as `known` says
    least: Any  # (k, k, m)
    known: Any  # (k, k, m)
    aq: Any  # AQ and Q (k, m, r) on the levels
    q: Any
    samples: Any  # (k, k, m, T)


def _of_eliminated(t, f, m, Q, AQ, without_Q, probes) -> _Known:
    """The factor that was eliminated, whose effects follow those of the others."""
    first = m.layout.blocks[0]
    half = _whitened(m.G[0], conditioned_factors(t, m.layout.blocks, m.A)[0])[1]
    inner = sum(congruence(m, 0, h, _gram(U)) for h, U in enumerate(f.U, 1))

    def onto_levels(V):
        return _times(half, _down(m, _spread(f, m, V)))

    Z = probes.reshape(first.k, first.levels, -1)
    met = _times(_transposed(half), Z)
    image = _join([_times(U, product(m, h, 0, met)) for h, U in enumerate(f.U, 1)])
    samples = _level_samples(onto_levels(without_Q(image)), Z)
    known = f.W + _sandwich(f.W, inner)
    return _Known(half, f.W, known, onto_levels(AQ), onto_levels(Q), samples)


def _averaged(part: _Known, A):
    """Mean over probes (k, k, m) of known + U'(AQQ' + samples)U, what is least possible, and errors
    of the diagonal.

    Samples are whitened: they err in proportion to what they estimate. Errors (k, m) are in the
    user's units.
    """
    U = part.U
    T, unit = part.samples.shape[-1], jnp.linalg.inv(A)
    samples = jnp.sum(U[:, :, None, :, None] * part.samples[:, None], 0)
    samples = jnp.sum(samples[:, :, None] * U[None, :, :, :, None], 1)
    along_Q = _sandwich(_transposed(U), _level_blocks(part.aq, part.q))
    S = part.known + along_Q + jnp.mean(samples, -1)
    of_probes = jnp.einsum("ia,ib,abmt->imt", unit, unit, samples)
    return S, part.least, jnp.std(of_probes, -1) / jnp.sqrt(T - 1.0)


def _with_core(found, t, f, m):
    """Covariances of the core, and what they add to those of the others."""
    q = m.layout.q
    S, B = _exact_solution(f, m)
    core = jax.grad(lambda core: condense(t, m, 0.0, S.at[:q, :q].set(core)).logdet)(S[:q, :q])
    core = 0.5 * (core + core.T)  # as in `mode_covariances`: the derivative of the log-determinant
    added = [_level_blocks(b[:, :, :q] @ core, b[:, :, :q]) for b in B]
    found = [
        (S + more, least, errors) for (S, least, errors), more in zip(found, added, strict=True)
    ]
    for block, start, end in zip(
        m.layout.core, m.layout.offsets, m.layout.offsets[1:], strict=False
    ):
        within = core[start:end, start:end].reshape(block.levels, block.k, block.levels, block.k)
        S = jnp.einsum("mamb->abm", within)
        found.append((S, S, jnp.zeros((block.k, block.levels))))
    return found


def _sandwich(B, S):
    """B S B' of every level (k, k, m)."""
    half = jnp.sum(B[:, :, None] * S[None], 1)
    return jnp.sum(half[:, None] * B[None], 2)


def _level_samples(V, Z):
    """The symmetric blocks of V Z' of every level and column: (k, k, m, c)."""
    blocks = V[:, None] * Z[None]
    return 0.5 * (blocks + jnp.swapaxes(blocks, 0, 1))


def _level_blocks(V, Z):
    return jnp.sum(_level_samples(V, Z), -1)


def _user_covariances(found, m):
    covariances, errors = [], []
    for j in m.layout.order:
        S, least, e = found[j]
        back = jnp.linalg.inv(m.A[j])
        S, least = (jnp.einsum("ia,abm,jb->mij", back, a, back) for a in (S, least))
        # probes may say less than if the others were known
        lack = jnp.einsum("mii->mi", least - S).clip(0.0)
        covariances.append(S + lack[:, :, None] * jnp.eye(lack.shape[1])[None])
        errors.append(e.T)
    return covariances, errors
