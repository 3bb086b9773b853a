"""Where the search for the numbers of a residual covariance begins: moment estimates, and the
expected information.
"""

from __future__ import annotations

from ...support.later import jax, jnp
from ..covariance.residual import ResidualCovariance, whiteners
from ..covariance.structures import Correlated
from ..crossproducts.moments import Moments
from ..linalg.batching import eigh
from ..linalg.matrices import inverse, symmetric

BESIDE_EFFECTS = 0.3  # correlation of neighbours where random effects account for others
LEAST = 0.05  # eigenvalue of the correlations a search starts from, relative to the largest
RIDGE = 1e-6  # added to the information, relative to its largest diagonal entry


def residual_start(m: Moments):
    """Psi (r,) from squares and products of least-squares residuals; coefficients of log SD
    start at 0.
    """
    structure, patterns, squares = m.residual.structure, m.residual.patterns, m.residual.squares
    log_sd = _log_sds(structure, patterns, jnp.diagonal(squares, axis1=0, axis2=1))
    own = jnp.concatenate([log_sd[:, :1] - log_sd[0, 0], log_sd[:, 1:] - log_sd[:, :1]], 1)
    if structure.shape:
        sd = jnp.exp(log_sd[patterns.group[None], patterns.visit])
        C = _correlations(
            structure, patterns, squares / (sd[:, None] * sd[None]), bool(m.layout.blocks)
        )
        own = jnp.concatenate(
            [own, jnp.stack([_shape_start(structure, c) for c in C]).astype(own.dtype)], 1
        )
    return jnp.append(own.ravel()[1:], jnp.zeros(structure.slopes, own.dtype))


def _log_sds(structure, patterns, squares):
    """Log of the RMS residual by group and visit; squares (P, m)."""
    at = patterns.group[:, None], patterns.visit.T
    rows = jnp.where(patterns.seen.T, patterns.count[:, None], 0.0)
    none = jnp.zeros((structure.groups, structure.visits), squares.dtype)
    total = none.at[at].add(jnp.where(patterns.seen.T, squares, 0.0))
    mean = total / jnp.maximum(none.at[at].add(rows), 1.0)
    return 0.5 * jnp.log(jnp.maximum(mean, 1e-6 * jnp.max(mean)))


def _correlations(structure: ResidualCovariance, patterns, products, has_effects: bool):
    """Positive definite correlations (groups, k, k) of the positions; products (m, m, P) of
    residuals of unit size.
    """
    k = structure.positions
    if has_effects:
        apart = jnp.abs(jnp.arange(k)[:, None] - jnp.arange(k)[None])
        return jnp.broadcast_to(BESIDE_EFFECTS**apart, (structure.groups, k, k))
    both = patterns.seen[:, None] & patterns.seen[None]
    at = patterns.group[None, None], patterns.position[:, None], patterns.position[None]
    none = jnp.zeros((structure.groups, k, k), products.dtype)
    total = none.at[at].add(jnp.where(both, products, 0.0))
    pairs = none.at[at].add(jnp.where(both, patterns.count[None, None], 0.0))
    off = 1.0 - jnp.eye(k)[None]
    mean = jnp.sum(total * off, (1, 2)) / jnp.maximum(jnp.sum(pairs * off, (1, 2)), 1.0)
    seen = jnp.where(pairs > 0, total / jnp.maximum(pairs, 1.0), mean[:, None, None])
    return jnp.stack([_proper(C) for C in seen])


def _proper(C):
    """The nearest sound correlation matrix, roughly."""
    k = len(C)
    values, vectors = eigh(jnp.where(jnp.eye(k, dtype=bool), 1.0, symmetric(C)))
    sound = (vectors * jnp.maximum(values, LEAST * values[-1])[None]) @ vectors.T
    sd = jnp.sqrt(jnp.diagonal(sound))
    return sound / (sd[:, None] * sd[None])


def _shape_start(structure: ResidualCovariance, C):
    within = structure.within
    if isinstance(within, Correlated):
        return within.near(C, structure.positions)
    return jnp.asarray(within.start(structure.positions), C.dtype)


def residual_curvature(psi, m: Moments):
    """Expected Hessian (r, r) of the deviance by psi, with sigma at its optimum, beta and random
    effects aside.

    It is the sum over subjects of tr(R^-1 R_i R^-1 R_j), less what sigma takes of it.
    """
    structure, patterns = m.residual.structure, m.residual.patterns
    count = patterns.count
    _, half = whiteners(structure.matrices(psi, patterns), count)
    slopes = jax.jacfwd(structure.matrices)(psi, patterns)
    relative = jnp.einsum("abp,bcpi,dcp->adpi", half, slopes, half)
    by_sigma = jnp.einsum("aapi,p->i", relative, count)
    found = (
        jnp.einsum("adpi,adpj,p->ij", relative, relative, count)
        - jnp.outer(by_sigma, by_sigma) / m.n
    )
    return found + RIDGE * jnp.max(jnp.diagonal(found)) * jnp.eye(len(psi), dtype=psi.dtype)


def inverse_curvature(psi, m: Moments):
    """Rough inverse Hessian (r, r) of the deviance by psi."""
    return inverse(residual_curvature(psi, m))
