"""Cross-products of correlated rows by whitening them: R = L L' of every subject, L^-1 [Z X y] in
place of the rows.

For data in which few subjects share a pattern of visits, so that classes of pairs of rows
(`row_pairs`) would be as many as the pairs. Every subject must lie within one level of every
factor: whitening mixes its rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...support.containers import container
from ...support.later import jax, jnp, lax
from ..covariance.residual import Patterns, ResidualCovariance, whiteners
from .layout import Plan
from .moments import Basis, Moments, design_products, root_weights
from .row_pairs import by_place, conditioned_rows, joined, products_by_pattern


@container
class ByRow:
    """Rows of a model with correlated residuals, subject by subject: N subjects of at most m
    rows.
    """

    structure: ResidualCovariance
    patterns: Patterns
    pattern: Any  # (N,) of every subject
    plan: Plan  # of the m N rows, subjects on the last axis
    X: Any  # (c, m, N) with the response as its last column; 0 where there is no row
    Z: tuple[Any, ...]  # per block (k, m, N)
    # (m, m, P): y~ y~' of least-squares residuals, summed over the subjects of every pattern
    squares: Any

    def with_answer(self, answer) -> ByRow:
        """These rows with another response: (m, N), and y~ y~' by pattern."""
        y, squares = answer
        return replace(self, X=self.X.at[-1].set(y), squares=squares)

    def at(self, psi, m: Moments):
        """Moments of the rows whitened by R(psi), and log|R|."""
        return self.of_matrices(self.structure.matrices(psi, self.patterns), m)

    def of_matrices(self, R, m: Moments):
        """Moments of the rows whitened by R (m, m, P) of the patterns, and log|R|."""
        logdet, half = whiteners(R, self.patterns.count)
        half = half[:, :, self.pattern]

        def whitened(rows):
            return jnp.einsum("abn,cbn->anc", half, rows).reshape(-1, rows.shape[0])

        X = whitened(self.X)
        made = design_products(self.plan, X, [whitened(z) for z in self.Z], jnp.ones_like(X[:, 0]))
        return replace(m, **joined(made, m.layout.q)._asdict()), logdet


@container
class RowPlan:
    """How the rows of a model go into `ByRow`."""

    structure: ResidualCovariance
    patterns: Patterns
    pattern: Any  # (N,) of every subject
    place: Any  # (m, N) row of the data at every place of a subject, -1 where there is none

    def moments(self, plan: Plan, *rows) -> Moments:
        """The rows, to be whitened at every evaluation. rows: y, X, Z, weights, offset, K as
        `moments` takes them.
        """
        m, XY, Z = conditioned_rows(plan, *rows)
        at = jnp.maximum(self.place, 0).ravel()
        codes, entries = jax.tree.map(lambda a: a[at], (plan.codes, plan.rows))
        spread = replace(plan, codes=codes, rows=entries, residual=None)
        X, *Z = (by_place(a, self.place) for a in (XY, *Z))
        squares = products_by_pattern(X[-1], self.pattern, len(self.patterns.count))
        return replace(
            m,
            residual=ByRow(
                self.structure, self.patterns, self.pattern, spread, X, tuple(Z), squares
            ),
        )

    def answers(self, plan: Plan, basis: Basis, Y):
        """What several conditioned responses Y (n, r) change, with a leading axis r."""
        rows = by_place(root_weights(basis.w)[:, None] * Y, self.place)  # (r, m, N)
        P = len(self.patterns.count)
        return rows, lax.map(lambda y: products_by_pattern(y, self.pattern, P), rows)
