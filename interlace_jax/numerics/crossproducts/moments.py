"""Rows to cross-products, once: everything the likelihood needs of the data.

The columns are conditioned exactly on the way, by constants that the likelihood does not depend on
and that are therefore constants under differentiation:

    X~ = X R^-1            orthonormal columns (R from the QR of W^1/2 X)
    y~ = (y - X beta0) / s least-squares residual of unit mean square
    Z~ = Z A^-1            per term, Z~'W Z~ / n = I, A lower triangular; terms of one column are
                           only scaled

With A lower triangular, Lambda = A^-1 Lambda~ stays lower triangular and keeps its zero columns, so
that theta is a linear function of the conditioned parameters. Rescaling a predictor leaves Z~ as it
was, shifting one rotates it.
Where the levels of a factor covary, A takes the size of K too: 1/n of its Z~'WZ~, weighted by K_ii,
is I.
"""

from __future__ import annotations

import functools
from dataclasses import field, replace
from typing import Any, ClassVar, NamedTuple

from ...support.containers import container
from ...support.later import jax, jnp, lax
from ..covariance.parameters import beyond, shape_start
from ..linalg.batching import triangular_factor
from ..linalg.matrices import inverse_lower, inverse_upper
from .layout import Layout, Plan

# below this relative size of its pivots a term is scaled by columns instead of made orthonormal
COLLINEAR = 1e-9


@container
class Moments:
    """Conditioned cross-products of a model, in elimination order; c = q + p where the core is
    dense, else p.

    A pytree: `vmap` over it fits many models of one shape.
    """

    layout: Layout
    G: tuple[jax.Array, ...]  # per chain block (k, k, m): Z'WZ
    B: tuple[tuple[jax.Array, ...], ...]  # B[j][h] (k_j, k_h, m_j): Z_j'W Z_h of later chain blocks
    E: tuple[jax.Array, ...]  # sparse core only, per chain block (k, e): Z'W Z_core at the entries
    ZX: tuple[jax.Array, ...]  # per chain block (k, c, m): Z'W [Z_core X]
    Zy: tuple[jax.Array, ...]  # per chain block (k, m): Z'Wy
    XX: jax.Array  # (q + p, q + p): [Z_core X]'W[Z_core X]
    Xy: jax.Array  # (q + p,)
    yy: jax.Array  # ()
    n: jax.Array  # () rows of positive weight
    log_weights: jax.Array  # () sum of log w
    A: tuple[jax.Array, ...]  # per block (k, k), lower triangular
    # per block what its covariance across levels is made of; None where there is none
    K: tuple[Any, ...]
    R: jax.Array  # (p, p) upper triangular
    beta0: jax.Array  # (p,)
    scale: jax.Array  # () s
    # `ByClass` or `ByRow`: whitens by R(psi); None where R = I
    residual: Any = field(default=None, kw_only=True)

    @property
    def p(self) -> int:
        """Fixed-effect columns."""
        return self.R.shape[-1]

    sizes: ClassVar[dict[str, int]] = {}

    @functools.cached_property
    def generalised(self) -> Moments | None:
        """These moments for any number of levels and coefficients; see `Layout.generalised`."""
        layout = self.layout.generalised
        if layout is None:
            return None
        p = "p" if self.p else ""
        used = [size for size in (self.layout.open_q, p) if size]
        whole = "+".join(used) or "0"
        c = (p or "0") if self.layout.entries else whole
        each = range(len(self.G))
        plain = Moments(
            layout=layout,
            G=tuple(f"_ _ m{j}" for j in each),
            B=tuple(tuple(f"_ _ m{j}" for _ in self.B[j]) for j in each),
            E=tuple(f"_ e{j}" for j in range(len(self.E))),
            ZX=tuple(f"_ {c} m{j}" for j in each),
            Zy=tuple(f"_ m{j}" for j in each),
            XX=f"{whole} {whole}",
            Xy=whole,
            yy="",
            n="",
            log_weights="",
            A=("_ _",) * len(self.A),
            K=self.K,
            R=f"{p or '_'} {p or '_'}",
            beta0=p or "_",
            scale="",
        )
        if self.residual is None:
            return plain
        return replace(plain, residual=self.residual.described(plain))

    def whitened(self, t):
        """The moments of the rows whitened by the residual covariance R(psi) of t = (conditioned
        theta, psi), as if of independent residuals, and log|R|.
        """
        if self.residual is None:
            return self, 0.0
        made, logdet = self.residual.at(beyond(t, self.layout.blocks), self)
        return replace(made, residual=None), logdet

    def with_response(self, response: Response) -> Moments:
        """The moments of this design with another response."""
        given = response._asdict()
        answer = given.pop("residual")
        residual = self.residual if answer is None else self.residual.with_answer(answer)
        return replace(self, **given, residual=residual)


class Basis(NamedTuple):
    """Conditioned rows of a design, in elimination order, and the constants that condition them."""

    X: jax.Array  # (n, p)
    Z: tuple[jax.Array, ...]  # per block (n, k)
    w: jax.Array  # (n,)
    n: jax.Array  # () rows of positive weight
    A: tuple[jax.Array, ...]
    K: tuple[Any, ...]
    R: jax.Array


class Response(NamedTuple):
    """The part of the moments that depends on y; with a leading axis for several responses to
    one design.
    """

    Zy: tuple[jax.Array, ...]
    Xy: jax.Array
    yy: jax.Array
    beta0: jax.Array
    scale: jax.Array
    residual: Any = None  # the same for residuals that covary: `Answer`, or rows


def moments(plan: Plan, y, X, Z, weights=None, offset=None, K=None) -> Moments:
    """Cross-products of the rows; pure, and differentiable in every array.

    plan: `structure.plan` of the level codes. y (n,). X (n, p) of full column rank. Z: per factor,
    in the order the plan was made in, (n, k). weights (n,): Var(eps_i) = sigma^2 / w_i, rows of
    weight zero are left out. offset (n,).
    K: per factor the arrays that the covariance of its levels is made of, or None.
    """
    if plan.residual is not None:
        return plan.residual.moments(plan, y, X, Z, weights, offset, K)
    basis = condition(plan, X, Z, jnp.ones_like(y) if weights is None else weights, K)
    y = y if offset is None else y - offset
    response = jax.tree.map(lambda a: a[0], respond(plan, basis, y[:, None]))
    return assemble(plan, basis, response)


def assemble(plan: Plan, basis: Basis, response: Response) -> Moments:
    """The moments of a conditioned design and one response to it."""
    constants = dict(n=basis.n, log_weights=log_weights(basis.w), A=basis.A, K=basis.K, R=basis.R)
    given = response._replace(residual=None)._asdict()
    return Moments(plan.layout, **design_products(plan, *basis[:3]), **given, **constants)


def log_weights(w):
    """Sum of log w over the rows of positive weight."""
    return jnp.sum(jnp.log(jnp.where(w > 0, w, 1.0)))


def condition(plan: Plan, X, Z, w, K=None) -> Basis:
    """Make the columns of X (n, p) and of every term of Z orthonormal."""
    n = jnp.sum(w > 0).astype(X.dtype)
    root = root_weights(w)[:, None]
    R = triangular_factor(lax.stop_gradient(root * X)) if X.shape[1] else jnp.zeros((0, 0), X.dtype)
    K = eliminated_order(plan.layout, K)
    A = conditioners(plan, [root * z for z in Z], n, K)
    return apply_constants(plan, X, Z, w, n, A, K, R)


def root_weights(w):
    """Square roots of weights (n,), differentiable at 0."""
    return jnp.sqrt(jnp.where(w > 0, w, 1.0)) * (w > 0)


def eliminated_order(layout: Layout, K) -> tuple[Any, ...]:
    """What K is made of by block, from a sequence by factor or None."""
    return tuple(None if K is None else K[layout.order.index(j)] for j in range(len(layout.blocks)))


def conditioners(plan: Plan, Z, n, K) -> tuple[jax.Array, ...]:
    """A of every block, from weighted columns Z (any number of rows, k) with the cross-products
    of n rows.
    """
    order, blocks = plan.layout.order, plan.layout.blocks
    each = enumerate(zip(blocks, K, strict=True))
    return tuple(
        _conditioner(lax.stop_gradient(Z[order.index(j)]), n, block)
        * lax.stop_gradient(_size_across(block, data))
        for j, (block, data) in each
    )


def apply_constants(plan: Plan, X, Z, w, n, A, K, R) -> Basis:
    """Rows conditioned by the constants A and R of a design with n rows of positive weight."""
    Z = [Z[plan.layout.order.index(j)] for j in range(len(Z))]
    Z = tuple(z @ inverse_lower(a) for a, z in zip(A, Z, strict=True))
    return Basis(X @ inverse_upper(R), Z, w, n, A, K, R)


def respond(plan: Plan, basis: Basis, Y) -> Response:
    """Cross-products of responses Y (n, r) with the design; every array of the result has a
    leading axis r.
    """
    X, _, w, n = basis[:4]
    b0 = lax.stop_gradient((w[:, None] * X).T @ Y)
    residual = Y - X @ b0
    size = jnp.max(jnp.abs(residual), 0)
    size = jnp.where(size > 0, size, 1.0)  # first, or squares under- and overflow
    scale = lax.stop_gradient(
        size * jnp.sqrt(jnp.sum(w[:, None] * (residual / size[None]) ** 2, 0) / n)
    )
    return response_products(plan, basis, Y, b0, jnp.where(scale > 0, scale, 1.0))


def response_products(plan: Plan, basis: Basis, Y, b0, scale) -> Response:
    """`respond` with given constants: least-squares coefficients b0 (p, r) of the basis, and
    scale (r,).
    """
    layout, codes, t = plan.layout, plan.codes, plan.layout.chain
    X, Z, w = basis[:3]
    wX = w[:, None] * X
    Y = (Y - X @ b0) / scale[None]
    wY = w[:, None] * Y

    def by_level(z, code, levels):
        # (r, k, m)
        return jnp.stack([_sum_by(z[:, c, None] * wY, code, levels) for c in range(z.shape[1])], 1)

    blocks = layout.blocks
    Zy = [by_level(z, code, block.levels) for z, code, block in zip(Z, codes, blocks, strict=True)]
    core = [jnp.swapaxes(zy, 1, 2).reshape(Y.shape[1], -1) for zy in Zy[t:]]
    Xy = jnp.concatenate([*core, (wX.T @ Y).T], 1)
    beta0 = (inverse_upper(basis.R) @ b0).T
    answer = None if plan.residual is None else plan.residual.answers(plan, basis, Y)
    return Response(tuple(Zy[:t]), Xy, jnp.sum(wY * Y, 0), beta0, scale, answer)


def _size_across(block, K):
    """Root mean square over the levels of the SDs that K gives them; 1 without K."""
    if block.across is None:
        return 1.0
    start = jnp.asarray(shape_start(block)[1], jax.tree.leaves(K)[0].dtype)
    return jnp.sqrt(jnp.mean(jnp.sum(block.across.root(start, K) ** 2, 1)))


def _conditioner(Z, n, block):
    """Lower triangular A with A'A = Z'Z / n term by term: the reversed R of a QR of the reversed
    columns.
    """
    A = jnp.zeros((block.k, block.k), Z.dtype)
    start = 0
    for size in block.sizes:
        columns = Z[:, start : start + size] / jnp.sqrt(n)
        rms = jnp.sqrt(jnp.sum(columns**2, 0))
        scales = jnp.where(rms > 0, rms, 1.0)[None]
        a = triangular_factor((columns / scales)[:, ::-1])[::-1, ::-1]
        sound = jnp.min(jnp.abs(jnp.diagonal(a))) > COLLINEAR
        a = (
            jnp.where(sound, a * jnp.sign(jnp.diagonal(a))[:, None], jnp.eye(size, dtype=Z.dtype))
            * scales
        )
        A = A.at[start : start + size, start : start + size].set(a)
        start += size
    return A


def _sum_by(values, index, size):
    """Sum the rows of values (n, ...) that share an index: (..., size)."""
    summed = jnp.zeros((size, *values.shape[1:]), values.dtype).at[index].add(values)
    return jnp.moveaxis(summed, 0, -1)


def _outer(a, b):
    return a[:, :, None] * b[:, None, :]


def _core_columns(layout, codes):
    """Per core block (n, k): the core columns that a row touches."""
    return [
        offset + code[:, None] * block.k + jnp.arange(block.k)[None]
        for block, offset, code in zip(
            layout.core, layout.offsets, codes[layout.chain :], strict=False
        )
    ]


def design_products(plan: Plan, X, Z, w) -> dict[str, Any]:
    """The part of the moments that does not depend on the response; sums over rows, so that
    chunks of them add up.
    """
    layout, codes, t = plan.layout, plan.codes, plan.layout.chain
    columns = _core_columns(layout, codes)
    core = list(zip(columns, Z[t:], strict=True))
    G, B, E, ZX = [], [], [], []
    for j in range(t):
        levels = layout.blocks[j].levels
        wz = w[:, None] * Z[j]
        G.append(_sum_by(_outer(wz, Z[j]), codes[j], levels))
        nested = range(j + 1, t) if layout.parents else ()  # those of a sparse plan are not
        B.append(tuple(_sum_by(_outer(wz, Z[h]), codes[j], levels) for h in nested))
        zx = _sum_by(_outer(wz, X), codes[j], levels)
        if layout.q and not layout.entries:
            met = jnp.zeros((levels, layout.q, wz.shape[1]), X.dtype)
            for cols, z in core:
                met = met.at[codes[j][:, None], cols].add(_outer(z, wz))
            zx = jnp.concatenate([jnp.moveaxis(met, (0, 1, 2), (2, 1, 0)), zx], 1)
        elif layout.q:
            met = jnp.zeros((layout.entries[j].level.shape[0], wz.shape[1]), X.dtype)
            for row, (_, z) in zip(plan.rows[j], core, strict=True):
                entry = row[:, None] + jnp.arange(z.shape[1])[None]
                met = met.at[entry].add(_outer(z, wz))
            E.append(met.T)
        ZX.append(zx)
    XX = _core_products(core, layout.q, X, w)
    return dict(G=tuple(G), B=tuple(B), E=tuple(E), ZX=tuple(ZX), XX=XX)


def _core_products(core, q, X, w):
    """[Z_core X]'W[Z_core X] (q + p, q + p). core: per block its columns (n, k) and Z (n, k)."""
    p = X.shape[1]
    XX = jnp.zeros((q + p, q + p), X.dtype).at[q:, q:].set(X.T @ (w[:, None] * X))
    for cols, z in core:
        wz = w[:, None] * z
        for others, other in core:
            XX = XX.at[cols[:, :, None], others[:, None, :]].add(_outer(wz, other))
        cross = jnp.zeros((q, p), X.dtype).at[cols].add(_outer(wz, X))
        XX = XX.at[:q, q:].add(cross).at[q:, :q].add(cross.T)
    return XX
