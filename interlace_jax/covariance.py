"""theta and the relative covariance factors Lambda: the one place that knows how the first fills the second.

Two coordinates. *User* theta is lme4's: factors in the order of the fit, terms in theirs, each lower triangle of Lambda
column by column. *Conditioned* t holds the same entries of Lambda~ = A Lambda, factors in elimination order: the
coordinates of the optimiser. A is lower triangular, so the map is linear and keeps zero columns.
"""

import jax.numpy as jnp
import numpy as np

from .structure import Layout


def _slices(blocks):
    ends = np.cumsum([len(b.parameters) for b in blocks])
    return [slice(int(e) - len(b.parameters), int(e)) for e, b in zip(ends, blocks, strict=True)]


def factors(t, blocks):
    """The lower triangular Lambda (k, k) of every block, from its parameters (d,)."""
    return [_fill(t[s], b) for s, b in zip(_slices(blocks), blocks, strict=True)]


def _fill(values, block):
    rows, columns = np.array(block.parameters).T
    return jnp.zeros((block.k, block.k), values.dtype).at[rows, columns].set(values)


def parameters(Lams, blocks):
    """The entries (d,) that `factors` takes, read from every Lambda (k, k)."""
    return jnp.concatenate([Lam[tuple(np.array(b.parameters).T)] for Lam, b in zip(Lams, blocks, strict=True)])


def to_user(Lams, layout: Layout, A):
    """Relative factors on the user's scale and in the user's order, `Lambda = A^-1 Lambda~`."""
    return [jnp.linalg.solve(A[j], Lams[j]) for j in layout.order]


def user_blocks(layout: Layout):
    """The blocks in the user's order."""
    return tuple(layout.blocks[j] for j in layout.order)


def to_conditioned(theta, layout: Layout, A):
    """Conditioned parameters t (d,) of the user's theta (d,)."""
    Lams = factors(theta, user_blocks(layout))
    return parameters([A[j] @ Lams[layout.order.index(j)] for j in range(len(A))], layout.blocks)


def columns(blocks):
    """For every column of every Lambda: indices of its free entries in the parameter vector, diagonal first."""
    found, start = [], 0
    for block in blocks:
        place = np.array(block.parameters)
        found += [start + np.flatnonzero(place[:, 1] == c) for c in range(block.k)]
        start += len(place)
    return found


def canonical(Lam, tol=1e-7):
    """The lower triangular factor of Lam Lam' (k, k) with a nonnegative diagonal.

    Where a diagonal entry vanishes (below tol of its row) the column below it does too, as in lme4's singular fits.
    """
    S = Lam @ Lam.T
    k = Lam.shape[0]
    L = jnp.zeros_like(Lam)
    for j in range(k):
        column = S[:, j] - L[:, :j] @ L[j, :j]
        regular = column[j] > tol**2 * S[j, j]
        pivot = jnp.sqrt(jnp.where(regular, column[j], 1.0))
        L = L.at[:, j].set(jnp.where(regular & (jnp.arange(k) >= j), column / pivot, 0.0))
    return L
