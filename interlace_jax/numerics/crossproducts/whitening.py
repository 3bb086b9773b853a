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
from .row_pairs import (
    SQUARES,
    SUBJECTS,
    Linearised,
    Products,
    along_axes,
    by_place,
    conditioned_rows,
    joined,
    products_by_pattern,
)


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

    def described(self, plain: Moments) -> ByRow:
        """These rows for any number of subjects and patterns; plain: the moments beside them,
        described so.
        """
        c, m = self.X.shape[-3:-1]
        rows = f"{m}*subjects"
        plan = Plan(
            plain.layout,
            (rows,) * len(self.plan.codes),
            tuple((rows,) * len(r) for r in self.plan.rows),
        )
        return replace(
            self,
            patterns=self.patterns.generalised,
            pattern="subjects",
            plan=plan,
            X=f"{'p+1' if c > 1 else '_'} _ subjects",
            Z=("_ _ subjects",) * len(self.Z),
            squares=SQUARES,
        )

    @property
    def answer(self) -> tuple[str, str]:
        """What `with_answer` takes, by the names of dimensions."""
        return "_ subjects", SQUARES

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
        return replace(m, **self._products(half, m)._asdict()), logdet

    def _products(self, half, m: Moments) -> Products:
        """Cross-products of the rows whitened by L^-1 (m, m, P)."""
        half = half[:, :, self.pattern]

        def whitened(rows):
            return jnp.einsum("abn,cbn->anc", half, rows).reshape(-1, rows.shape[0])

        X = whitened(self.X)
        Z = [whitened(z) for z in self.Z]
        return joined(design_products(self.plan, X, Z, jnp.ones_like(X[:, 0])), m.layout.q)

    def _whiteners_at(self, psi):
        R = self.structure.matrices(psi, self.patterns)
        return R, *whiteners(R, self.patterns.count)

    def linearised(self, psi, m: Moments) -> Linearised:
        """The cross-products as linear functions of psi about a point."""
        found = along_axes(lambda psi: self._products(self._whiteners_at(psi)[2], m), psi)
        return Linearised(psi, *found)

    def curved(self, psi, gradient: Products, m: Moments):
        """Log|R| plus the inner product of the cross-products with a gradient by them: a function
        of psi without rows in it.

        The inner product is tr(S R^-1), summed over patterns; its derivative by L^-1 is 2 L^-1 S.
        """
        R, _, half = self._whiteners_at(psi)

        def inner(half):
            pairs = zip(
                jax.tree.leaves(self._products(half, m)), jax.tree.leaves(gradient), strict=True
            )
            return sum(jnp.sum(a * g) for a, g in pairs)

        root = jnp.einsum("abp,cbp->acp", R, half)  # L = R L^-T
        S = 0.5 * jnp.einsum("abp,bcp->acp", root, jax.grad(inner)(half))

        def function(psi):
            _, logdet, half = self._whiteners_at(psi)
            return logdet + jnp.sum(S * jnp.einsum("iap,ibp->abp", half, half))

        return function


@container
class RowPlan:
    """How the rows of a model go into `ByRow`."""

    structure: ResidualCovariance
    patterns: Patterns
    pattern: Any  # (N,) of every subject
    place: Any  # (m, N) row of the data at every place of a subject, -1 where there is none

    @property
    def generalised(self) -> RowPlan:
        """The same for any number of subjects and patterns."""
        return replace(self, patterns=self.patterns.generalised, **SUBJECTS)

    def moments(self, plan: Plan, *rows) -> Moments:
        """The rows, to be whitened at every evaluation. rows: y, X, Z, weights, offset, K as
        `moments` takes them.
        """
        m, XY, Z = conditioned_rows(plan, *rows)
        at = jnp.maximum(self.place, 0).ravel()
        codes, entries = jax.tree.map(lambda a: a[at], (plan.codes, plan.rows))
        spread = replace(plan, codes=codes, rows=entries, residual=None)
        X, *Z = (by_place(a, self.place) for a in (XY, *Z))
        squares = products_by_pattern(X[-1], self.pattern, self.patterns.count.shape[0])
        return replace(
            m,
            residual=ByRow(
                self.structure, self.patterns, self.pattern, spread, X, tuple(Z), squares
            ),
        )

    def answers(self, plan: Plan, basis: Basis, Y):
        """What several conditioned responses Y (n, r) change, with a leading axis r."""
        rows = by_place(root_weights(basis.w)[:, None] * Y, self.place)  # (r, m, N)
        P = self.patterns.count.shape[0]
        return rows, lax.map(lambda y: products_by_pattern(y, self.pattern, P), rows)
