"""What a fit says about any row x'beta + z'b without the rows it was made from: blocks of an
inverse, made once.

A row a = (x, z) of weight w adds w a a' to Henderson's matrix H (see `sensitivity`), and d log|H| /
dw = a' H^-1 a at w = 0 is Var(a'(estimate - truth)) over sigma^2. log|H| depends on the rows by
their cross-products alone, and its derivatives by these are all the blocks of H^-1 (in the units of
the cross-products) that a row can ask for: one reverse pass through the elimination, whatever its
order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ...support.later import jax
from ..covariance.parameters import conditioned_factors
from ..crossproducts.moments import Moments
from ..crossproducts.rounds import RoundMoments
from ..likelihood.elimination import reduce
from ..linalg.matrices import inverse_lower, inverse_upper, logdet_quadratic
from .curvature import jacobian


class Blocks(NamedTuple):
    """Derivatives of log|H| by the cross-products of `Moments`, in their shapes and conditioned
    units.
    """

    G: tuple[jax.Array, ...]  # per chain block (k, k, m)
    # B[j][h] (k_j, k_h, m_j) of later chain blocks, or (k_j, k_h, e) of levels that meet
    B: tuple[tuple[jax.Array, ...], ...]
    ZX: tuple[jax.Array, ...]  # per chain block (k, q + p, m)
    XX: jax.Array  # (q + p, q + p)
    unseen: list[jax.Array]  # per block (k, k): of a level that has no data, Lambda Lambda'


class Information(NamedTuple):
    """What variances of predictions are made of."""

    blocks: Blocks
    slopes: Blocks  # their derivatives by t, on a last axis (d,)
    X: jax.Array  # (p, p): a row x is conditioned as x X
    Z: list[jax.Array]  # per block (k, k): a row z is conditioned as z Z


def by_block(met, chain: int):
    """Numbers of every two blocks g < h, in order, as tuples by g."""
    each = iter(met)
    return tuple(tuple(next(each) for _ in range(g + 1, chain)) for g in range(chain))


def information(t, m: Moments) -> Information:
    """The blocks at t (d,), for a core that is absent or dense, or without one by rounds."""
    meets = "met" if isinstance(m, RoundMoments) else "B"
    parts = {name: getattr(m, name) for name in ("G", meets, "ZX", "XX")}

    def log_henderson(parts, t):
        reduced = reduce(t, replace(m, **parts))
        return reduced.logdet + logdet_quadratic(reduced.XX, reduced.Xy[:, None])[0]

    def blocks(t):
        by = jax.grad(log_henderson)(parts, t)
        by["B"] = by_block(by.pop("met"), len(m.G)) if meets == "met" else by["B"]
        factors = conditioned_factors(t, m.layout.blocks, m.A)
        return Blocks(**by, unseen=[Lam @ Lam.T for Lam in factors])

    return Information(*jacobian(blocks, t), inverse_upper(m.R), [inverse_lower(a) for a in m.A])
