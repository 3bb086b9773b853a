"""Kenward & Roger's covariance and degrees of freedom of the fixed effects, REML fits only.

    V(phi) = sum_i phi_i V_i
    phi = (coordinates of every sigma^2 Lambda Lambda' in a basis, sigma^2)
    P_i = -X'V^-1 V_i V^-1 X            = d X'V^-1X / d phi_i
    Q_ij + Q_ji,  Q_ij = X'V^-1 V_i V^-1 V_j V^-1 X,  = d^2 X'V^-1X / d phi_i d phi_j
    tr(V^-1 V_i V^-1 V_j)               = -d^2 log|V| / d phi_i d phi_j
    I_ij = 1/2 tr(V^-1 V_i V^-1 V_j) - tr(Phi Q_ij) + 1/2 tr(Phi P_i Phi P_j),
    W = I^-1,   Phi = (X'V^-1X)^-1
    Phi_A = Phi + 2 Phi [ sum_ij W_ij (Q_ij - P_i Phi P_j) ] Phi

(Kenward & Roger 1997, Biometrics 53, 983-997; V is linear in phi, so their R_ij vanishes.) The
derivatives are taken on the cross-products, never on an n x n matrix. The information is the
expected one: it is defined at the boundary too. The basis of a pattern are its free entries; a
structure has one if its covariances are a linear space. With prior weights V_i of sigma^2 is W^-1;
pbkrtest takes the identity.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...support.later import jax, jnp, lax
from ..covariance.parameters import conditioned_factors, has_prior
from ..crossproducts.moments import Moments
from ..likelihood.coordinates import roots
from ..likelihood.elimination import reduce_covariances
from ..linalg.matrices import inverse_upper
from .curvature import parameter_covariance

ALIKE = 1e-7  # relative difference of A1 and q A2 that is rounding
NEAR_TWO = 0.005  # 1 / E within a hundredth of 2 df


class Adjusted(NamedTuple):
    """What tests of beta need, on the user's scale."""

    vcov: jax.Array  # (p, p) Phi
    adjusted: jax.Array  # (p, p) Phi_A
    dvcov: jax.Array  # (f, p, p) derivatives of Phi by phi, -Phi P_i Phi
    W: jax.Array  # (f, f) covariance of phi


def kenward_roger(t, log_sigma, m: Moments) -> Adjusted:
    """Adjusted covariance of beta at a REML estimate. t (d,) conditioned parameters."""
    sigma2 = jnp.exp(2.0 * log_sigma) / m.scale**2
    bases = [_basis(block, A) for block, A in zip(m.layout.blocks, m.A, strict=True)]
    criteria = _criteria(bases, [None if L is None else L @ L.T for L in roots(t, m)], m)
    Lams = conditioned_factors(t, m.layout.blocks, m.A)
    coordinates = [_coordinates(Lam @ Lam.T, basis) for Lam, basis in zip(Lams, bases, strict=True)]
    phi = jnp.append(sigma2 * jnp.concatenate(coordinates), sigma2)
    units = jnp.eye(len(phi), dtype=t.dtype) * sigma2

    XX, P, twice_Q, trace = _second_derivatives(criteria, phi, units)
    Phi = jnp.linalg.inv(XX)
    PP = jnp.einsum("iab,bc,jcd->ijad", P, Phi, P)  # P_i Phi P_j
    information = 0.5 * (
        trace - jnp.einsum("ab,ijba->ij", Phi, twice_Q) + jnp.einsum("ab,ijba->ij", Phi, PP)
    )
    W = 0.5 * parameter_covariance(information)
    bias = jnp.einsum("ij,ijab->ab", W, 0.5 * twice_Q - PP)
    Phi_A = Phi + Phi @ (bias + bias.T) @ Phi

    back = inverse_upper(m.R)

    def to_user(S):
        """R^-1 S R^-T in units of the response."""
        return m.scale**2 * back @ S @ back.T

    return Adjusted(
        to_user(Phi), to_user(Phi_A), jax.vmap(lambda slope: to_user(-Phi @ slope @ Phi))(P), W
    )


def _criteria(bases, Ks, m: Moments):
    """X~'V^-1X~ (p, p) and log|V| up to its constant, as a function of phi (d + 1,)."""
    ends = np.cumsum([len(basis) for basis in bases])
    d = int(ends[-1])

    def criteria(phi):
        mine = jnp.split(phi[:d], ends[:-1])
        Sigmas = [
            jnp.einsum("i,ijk->jk", part, basis) / phi[d]
            for part, basis in zip(mine, bases, strict=True)
        ]
        reduced = reduce_covariances(Sigmas, Ks, m)
        return reduced.XX / phi[d], reduced.logdet + m.n * jnp.log(phi[d])

    return criteria


def _second_derivatives(criteria, phi, units):
    """X'V^-1X, all P_i, all Q_ij + Q_ji and all tr(V^-1 V_i V^-1 V_j), along the directions
    `units` (f, f).
    """
    rows, columns = np.tril_indices(len(phi))

    def along(pair):
        """Value, first derivative along one direction, second along both: ((XX, log|V|), ...)."""
        (value, slope), (_, bend) = jax.jvp(
            lambda x: jax.jvp(criteria, (x,), (pair[0],)), (phi,), (pair[1],)
        )
        return value[0], slope[0], bend

    # Pair by pair: a wide batch of core-sized matrices would cost memory, not save time.
    XX, slopes, (bends, logdet_bends) = lax.map(along, (units[rows], units[columns]))
    P = slopes[np.flatnonzero(rows == columns)]
    square = np.zeros((len(phi),) * 2, int)
    square[rows, columns] = square[columns, rows] = np.arange(len(rows))
    return XX[0], P, bends[square], -logdet_bends[square]


def why_not(blocks) -> str | None:
    """What keeps V from being linear in its parameters, or the fit from being REML; None if
    nothing does.
    """
    if has_prior(blocks):
        return "with a prior the estimates are not those of REML"
    within = [b.within for b in blocks if not b.is_pattern and b.within.basis(b.k) is None]
    across = [b.across for b in blocks if b.across is not None and not b.across.linear]
    if within or across:
        return (
            "the covariance is not linear in the parameters of "
            f"{type((within + across)[0]).__name__}"
        )
    return None


def _basis(block, A):
    """Symmetric matrices (f, k, k) that span the conditioned covariances of a block."""
    if not block.is_pattern:
        basis = block.within.basis(block.k)
        return jnp.einsum("ia,fab,jb->fij", A, basis, A) / jnp.sum(A**2)
    f, (rows, columns) = np.arange(len(block.parameters)), np.array(block.parameters).T
    basis = np.zeros((len(f), block.k, block.k))
    basis[f, rows, columns] = basis[f, columns, rows] = 1.0
    return basis


def _coordinates(S, basis):
    """Coordinates (f,) of S (k, k) in a basis (f, k, k), by least squares."""
    gram = jnp.einsum("fij,gij->fg", basis, basis)
    return jnp.linalg.solve(gram, jnp.einsum("fij,ij->f", basis, S))


def f_approximation(L: np.ndarray, a: Adjusted) -> tuple[float, float]:
    """Denominator degrees of freedom and scale of the Wald F statistic of L beta = 0; L (q, p) of
    full row rank.

    Kenward & Roger (1997), section 3, match mean E and variance V of the statistic. Where its
    components are alike, A1 = q A2, as they are for one row and in balanced designs, this comes to
    2 q / A2 df and a scale of 1, which are taken as they are: at 2 df, where E and V are infinite,
    their ratio is 0 / 0. So they are within a hundredth of 2 df for any components (pbkrtest takes
    a scale of 1 there).
    """
    q = len(L)
    M = L.T @ np.linalg.solve(L @ a.vcov @ L.T, L)
    T = M @ a.dvcov
    t = np.einsum("iaa->i", T)
    A1 = t @ a.W @ t
    A2 = np.einsum("ij,iab,jba->", a.W, T, T)
    rest = 1.0 - A2 / q  # 1 / E
    if abs(A1 - q * A2) <= ALIKE * A1 or abs(rest) < NEAR_TWO:
        return 2.0 * q / A2, 1.0
    B = (A1 + 6.0 * A2) / (2.0 * q)
    g = ((q + 1.0) * A1 - (q + 4.0) * A2) / ((q + 2.0) * A2)
    d = 3.0 * q + 2.0 * (1.0 - g)
    V0 = 1.0 + g / d * B
    V1 = 1.0 - (q - g) / d * B
    V2 = 1.0 - (q + 2.0 - g) / d * B
    # df = 4 + (q + 2) / (q rho - 1) with q rho = (rest / V1)^2 V0 / V2, which may be infinite
    df = 4.0 + (q + 2.0) * V2 / ((rest / V1) ** 2 * V0 - V2)
    return df, df * rest / (df - 2.0)
