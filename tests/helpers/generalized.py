"""Small generalised models as arrays, and the dense Laplace approximation that they are compared
with.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from helpers.arrays import quick_jit

from interlace_jax.numerics.crossproducts import layout
from interlace_jax.numerics.estimation import generalized
from interlace_jax.numerics.families.density import Row
from interlace_jax.numerics.families.rows import constants, kernels
from interlace_jax.numerics.likelihood import laplace
from interlace_jax.runtime import calls


class Case(NamedTuple):
    """Rows of a model before they are conditioned."""

    plan: layout.Plan
    given: generalized.Given


def case(
    family,
    y,
    X,
    codes,
    Z,
    *,
    sizes=None,
    m=None,
    w=None,
    offset=None,
    D=None,
    g0=(),
    K=None,
    covariances=None,
):
    """A model of these rows."""
    n = len(y)
    sizes = [(z.shape[1],) for z in Z] if sizes is None else sizes
    levels = [int(c.max()) + 1 for c in codes]
    plan = layout.plan(codes, sizes, levels, False, covariances)
    row = Row(y * 1.0, np.ones(n) if w is None else w, np.ones(n) if m is None else m * 1.0)
    offset = np.zeros(n) if offset is None else offset
    D = [None] * len(family.parameters) if D is None else D
    given = generalized.Given(
        family, row, offset, X, Z, [None] * len(Z) if K is None else K, D, np.array(g0, float)
    )
    return Case(plan, given)


def begun(case: Case) -> generalized.Begun:
    """Conditioned rows and the start of the search."""
    return calls.run(_prepare, *case)


def zero_modes(data) -> list[np.ndarray]:
    """The modes before any search for them."""
    return [np.zeros((b.k, b.levels)) for b in data.layout.blocks]


_prepare = quick_jit(generalized.prepare)
search = quick_jit(generalized.search)
facts = quick_jit(generalized.facts)
mode = quick_jit(laplace.mode)
deviance_at = quick_jit(laplace.deviance_at)


@quick_jit
def gradient(x, u, data):
    """Deviance and gradient by the explicit formula."""
    return laplace.gradient(x, u, laplace.look(x, u, data), data)


@quick_jit
def factors_of(x, data):
    """Lambda and L of every block."""
    return laplace.factors_at(x.t, data)


def log_densities(data, eta, g):
    """Of the rows (n,)."""
    free = laplace.free_parameters(g, data)
    return kernels(data.family, data.row, eta, free) + constants(data.family, data.row, free)


@quick_jit
def derivatives(data, eta, g):
    """Score and observed information of the rows, by reverse mode: another way than the
    library's.
    """
    score = jax.grad(lambda eta: jnp.sum(log_densities(data, eta, g)))
    _, change = jax.jvp(score, (eta,), (jnp.ones_like(eta),))
    return score(eta), -change


def dense_effects(x: Any, data: Any) -> np.ndarray:
    """Z Lambda (n, all effects) as one dense matrix."""
    factors, n = calls.run(factors_of, x, data), len(data.offset)
    wide = []
    for z, code, block, Lam, L in zip(
        data.Z, data.plan.codes, data.layout.blocks, *factors, strict=True
    ):
        Z = np.zeros((n, block.levels, block.k))
        Z[np.arange(n), np.asarray(code)] = z
        Z = Z @ Lam if L is None else np.einsum("nmk,kj,ml->nlj", Z, Lam, L)
        wide.append(Z.reshape(n, -1))
    return np.hstack(wide)


def dense_laplace(x: Any, data: Any) -> tuple[float, np.ndarray]:
    """The Laplace deviance by dense matrices and Newton's method, and Z Lambda u^ at the mode."""
    A = dense_effects(x, data)
    base, u = np.asarray(data.offset + data.X @ x.c), np.zeros(A.shape[1])
    for _ in range(100):
        score, W = calls.run(derivatives, data, base + A @ u, x.g)
        M = np.eye(len(u)) + A.T @ (np.maximum(W, 0.0)[:, None] * A)
        step = np.linalg.solve(M, A.T @ score - u)
        u = u + step / max(1.0, np.abs(step).max())
    _, W = calls.run(derivatives, data, base + A @ u, x.g)
    M = np.eye(len(u)) + A.T @ (W[:, None] * A)
    value = calls.run(quick_jit(log_densities), data, base + A @ u, x.g).sum()
    return -2.0 * value + u @ u + np.linalg.slogdet(M)[1], A @ u
