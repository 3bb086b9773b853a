"""Conjugate gradients for many right-hand sides at once, and the Gauss quadrature hidden in them.

For a symmetric positive definite N (q, q) that is known by its products. The coefficients of a run
from z are those of a Lanczos tridiagonal T of N, and z' f(N) z is nearly |z|^2 e1' f(T) e1 (Golub &
Meurant 2010, Matrices, Moments and Quadrature, ch. 6): one run yields N^-1 z and z' log(N) z.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .batching import eigh


class Run(NamedTuple):
    """State of conjugate gradients for the columns of a right-hand side (q, c)."""

    X: jax.Array  # (q, c) solution so far
    residual: jax.Array  # (q, c)
    direction: jax.Array  # (q, c)
    size: jax.Array  # (c,) squared norm of the residual
    first: jax.Array  # (c,) squared norm of the right-hand side
    steps: jax.Array  # ()
    alpha: jax.Array  # (most, c) step lengths, 0 where there was no step
    beta: jax.Array  # (most, c)


def begin(B, most: int = 1) -> Run:
    """No step yet; the coefficients of the first `most` will be remembered."""
    size = jnp.sum(B * B, 0)
    memory = jnp.zeros((most, B.shape[1]), B.dtype)
    return Run(jnp.zeros_like(B), B, B, size, size, jnp.int32(0), memory, memory)


def columns(run: Run, which: slice) -> Run:
    """The run of some of the columns."""
    return Run(*(a[..., which] if a.ndim else a for a in run))


def advance(product, run: Run, tol, most: int) -> Run:
    """Go on until every residual is below tol (c,) of its right-hand side, for at most so many
    steps in all.
    """

    def unfinished(run):
        return (run.steps < most) & jnp.any(run.size > tol**2 * run.first)

    return lax.while_loop(unfinished, lambda run: _step(product, run), run)


def _step(product, run):
    live = run.size > 1e-28 * run.first  # a column that is solved to rounding rests
    ND = product(run.direction)
    curvature = jnp.where(live, jnp.sum(run.direction * ND, 0), 1.0)
    alpha = jnp.where(live, run.size / curvature, 0.0)
    residual = run.residual - alpha[None] * ND
    size = jnp.where(live, jnp.sum(residual * residual, 0), run.size)
    beta = jnp.where(live, size / jnp.where(live, run.size, 1.0), 0.0)
    return Run(
        run.X + alpha[None] * run.direction,
        residual,
        residual + beta[None] * run.direction,
        size,
        run.first,
        run.steps + 1,
        run.alpha.at[run.steps].set(alpha, mode="drop"),
        run.beta.at[run.steps].set(beta, mode="drop"),
    )


def quadrature(f, run: Run):
    """Z' f(N) z of every right-hand side z of a run: (c,), or (c, i) where f returns (i, nodes).
    f(1) must be 0.
    """
    alpha, beta = run.alpha, run.beta
    made = alpha > 0
    inverse = jnp.where(made, 1.0 / jnp.where(made, alpha, 1.0), 0.0)
    before = jnp.zeros_like(alpha[:1])
    diagonal = inverse + jnp.concatenate([before, (beta * inverse)[:-1]])
    diagonal = jnp.where(made, diagonal, 1.0)
    off = jnp.where(made[1:], (jnp.sqrt(beta) * inverse)[:-1], 0.0)

    def one(diagonal, off, size):
        nodes, vectors = eigh(jnp.diag(diagonal) + jnp.diag(off, 1) + jnp.diag(off, -1))
        return size * f(nodes) @ vectors[0] ** 2

    return jax.vmap(one, (1, 1, 0))(diagonal, off, run.first)


def dominant(product, Q, steps: int):
    """Orthonormal columns (q, r) near the dominant eigenvectors, by subspace iteration from the
    columns Q.
    """
    Q = jnp.linalg.qr(Q)[0]
    return lax.fori_loop(0, steps, lambda _, Q: jnp.linalg.qr(product(Q))[0], Q)
