"""Ordered categories by a cumulative link: P(y <= j) = F(threshold_j - eta)."""

from __future__ import annotations

from ...support.later import jnp
from .density import Density
from .links import INVERSE, LOGS
from .special import log1mexp, softplus


def thresholds(free):
    """Thresholds in order, from free numbers: the first, then logarithms of the gaps between
    them.
    """
    cuts = list(free[:1])
    for log_gap in free[1:]:
        cuts.append(cuts[-1] + jnp.exp(log_gap))
    return tuple(cuts)


def cumulative(family) -> Density:
    """y: category from 0; phi: thresholds, in order."""
    last = len(family.categories) - 1
    log_sides = LOGS[family.link]

    def limits(row, eta, phi):
        """Standardised limits of the category (n,); of the outer two one is an arbitrary finite
        number.
        """
        cuts = jnp.stack(phi)
        j = jnp.clip(row.y.astype(int), 0, last)
        return cuts[jnp.maximum(j - 1, 0)] - eta, cuts[jnp.minimum(j, last - 1)] - eta, j

    def kernel(row, eta, phi):
        lower, upper, j = limits(row, eta, phi)
        # F(u) - F(l) = F(u) F(-l) (1 - e^(l - u)), of which the last is free of eta
        if family.link == "logit":
            below = jnp.where(j == last, 0.0, -softplus(-upper))
            above = jnp.where(j == 0, 0.0, -softplus(lower))
            return row.w * (below + above)
        first, final = j == 0, j == last
        inner = ~(first | final)
        upper = jnp.where(inner, upper, lower + 1.0)
        low, low_above = log_sides(jnp.where(first, phi[0] - eta, lower))
        high, high_above = log_sides(upper)
        # The difference of two probabilities in the tail that is the smaller
        left = upper + lower < 0.0
        big, small = jnp.where(left, high, low_above), jnp.where(left, low, high_above)
        between = big + log1mexp(jnp.where(inner, big - small, 1.0))
        return row.w * jnp.where(first, low, jnp.where(final, low_above, between))

    def constant(row, phi):
        if family.link != "logit" or last < 2:
            return jnp.zeros_like(row.y)
        cuts = jnp.stack(phi)
        j = jnp.clip(row.y.astype(int), 0, last)
        inner = (j > 0) & (j < last)
        gaps = cuts[jnp.minimum(j, last - 1)] - cuts[jnp.maximum(j - 1, 0)]
        return row.w * jnp.where(inner, log1mexp(jnp.where(inner, gaps, 1.0)), 0.0)

    def probabilities(eta, phi):
        below = INVERSE[family.link](jnp.stack(phi)[None] - eta[:, None])
        edge = jnp.zeros_like(below[:, :1])
        return jnp.diff(jnp.concatenate([edge, below, edge + 1.0], 1), axis=1)

    return Density(
        kernel, lambda row: jnp.zeros_like(row.y), probabilities, variance=None, constant=constant
    )
