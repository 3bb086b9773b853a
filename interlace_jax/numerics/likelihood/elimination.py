"""THE MODEL: from theta to the profiled deviance.

    y = X beta + sum_g Z_g b_g + eps,
    b_g ~ N(0, sigma^2 (I (x) Lambda_g Lambda_g')),   eps ~ N(0, sigma^2 W^-1)

where the levels of a factor covary K_g = L_g L_g' in place of I, and L_g (x) Lambda_g in place of
Lambda below;

    M(theta) = I + Lambda' Z'WZ Lambda                                     (never formed whole)
    d(theta) = log|M| + [REML] log|R_X'R_X| + nu (1 + log(2 pi r2 / nu)) - sum(log w),
    nu = n or n - p

(Bates, Maechler, Bolker & Walker 2015, JSS 67(1), eqs. 34 and 41; blocked: Bates, Alday &
Kokandakar 2025, arXiv 2505.11674). R_X'R_X = X'V^-1 X sigma^2 and r2, the penalised residual sum of
squares, are what is left of the cross-products of X and y after every random effect has been
eliminated: with W_i = Lambda (Lambda' G_i Lambda + I)^-1 Lambda' for level i, eliminating it
subtracts C_i' W_i C_i from the cross-products C_i touches, linear in W_i.

All functions take conditioned parameters t (see `covariance`) and `Moments`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from ...support.later import jax, jnp
from ..covariance.parameters import conditioned_factors
from ..crossproducts.layout import Layout
from ..crossproducts.merged import MergedMoments
from ..crossproducts.moments import Moments
from ..crossproducts.pair_products import subtract_products
from ..crossproducts.rounds import RoundMoments
from ..linalg.levels import absorb, whiten
from ..linalg.matrices import cholesky, inverse_lower, logdet_quadratic, symmetric
from .coordinates import roots
from .merged import eliminate_by_class
from .rounds import eliminate_by_rounds


class Reduced(NamedTuple):
    """What remains after eliminating the random effects, in conditioned units."""

    logdet: jax.Array  # () log|M|
    XX: jax.Array  # (p, p) X~'V^-1 X~ sigma^2
    Xy: jax.Array  # (p,)
    yy: jax.Array  # ()


def _gram(U, V):
    return jnp.einsum("kam,kbm->ab", U, V)


def _pass_up(U, V, parent, like):
    """Sum U'V of every level into its parent's: (k_h, c, m_h)."""
    return jnp.zeros_like(like).at[:, :, parent].add(jnp.einsum("qam,qcm->acm", U, V))


def reduce(t, m: Moments) -> Reduced:
    """Eliminate the random effects: the chain level by level, then the core; before them,
    correlations of residuals.
    """
    whitened, logdet = m.whitened(t)
    reduced = reduce_factors(conditioned_factors(t, m.layout.blocks, m.A), roots(t, m), whitened)
    return reduced if m.residual is None else reduced._replace(logdet=reduced.logdet + logdet)


def reduce_factors(Lams, Ls, m: Moments) -> Reduced:
    """What is left for beta and sigma, from the relative factors Lambda~ (k, k) of the blocks,
    and of the core's the roots of K, or None.
    """
    if isinstance(m, RoundMoments):
        return _reduced(*eliminate_by_rounds(Lams, m))
    if isinstance(m, MergedMoments):
        return _reduced(*eliminate_by_class(Lams, m))
    form = _WEIGHT_FORM if _has_dense_core(m.layout) else _FACTOR_FORM
    return _reduce(form, Lams, Ls, m)


def reduce_covariances(Sigmas, Ks, m: Moments) -> Reduced:
    """What is left for beta and sigma, from the relative covariances Lambda~ Lambda~' (k, k) of
    the blocks, and of the core's K, or None.

    Slower, but linear in the covariances where it matters: smooth at and across the boundary.
    """
    return _reduce(_COVARIANCE_FORM, Sigmas, Ks, m)


class Level(NamedTuple):
    """What eliminating one factor of the chain leaves for `solve`, with L L' = I + Lambda'G
    Lambda at every level.
    """

    root: jax.Array  # (k, k, m) L^-1
    # per later factor of the chain (k, k_h, m): L^-1 Lambda'B Lambda_h
    later: tuple[jax.Array, ...]
    core: jax.Array  # (k, q, m) L^-1 Lambda'Z'W Z_core, or (k, e) at the entries of a sparse core


class Eliminated(NamedTuple):
    """M factored by elimination, for `solve`."""

    layout: Layout
    levels: list[Level]
    # (q, q) inverse of the root L L' of what is left of M in the core; None without a core
    core: jax.Array | None
    Lams: list[jax.Array]
    Ls: list[jax.Array | None]


class _Form(NamedTuple):
    """How a factor is eliminated: C'WC = left'right for every pair of blocks."""

    # (G, Lambda or Sigma, blocks) -> log-determinant, left and right of every block
    level: Callable
    # (Lambdas or Sigmas of the core, Ls or Ks, layout, `Cross`) -> log-determinant, explained (c,
    # c)
    core: Callable


class Cross(NamedTuple):
    """Cross-products of [Z_core X y], part by part."""

    core: jax.Array  # (q, q), of which the symmetric part counts
    beside: jax.Array  # (q, c)
    rest: jax.Array  # (c, c)


def parts(S, q: int) -> Cross:
    """The parts of a whole matrix whose first q columns are the core's."""
    return Cross(S[:q, :q], S[:q, q:], S[q:, q:])


def _cross_products(m) -> Cross:
    q = m.layout.q
    XX, Xy = m.XX, m.Xy[:, None]
    rest = jnp.block([[XX[q:, q:], Xy[q:]], [Xy[q:].T, m.yy[None, None]]])
    return Cross(XX[:q, :q], jnp.concatenate([XX[:q, q:], Xy[:q]], 1), rest)


def _has_dense_core(layout):
    return bool(layout.core) and not layout.entries


def _groups(zx, zy, layout):
    """Cross-products of a factor with [Z_core X y] in groups of columns (k, c_i, m).

    Beside a dense core one each, of which many models of one design share the first two; else one
    group of all.
    """
    if _has_dense_core(layout):
        return zx[:, : layout.q], zx[:, layout.q :], zy[:, None]
    return (jnp.concatenate([zx, zy[:, None]], 1),)


def _reduce(form, given, across, m):
    layout, q = m.layout, m.layout.q
    C = [_groups(zx, zy, layout) for zx, zy in zip(m.ZX, m.Zy, strict=True)]
    logdet, S, _ = _eliminate_chain(form, given, m, C, _cross_products(m))
    core_logdet, explained = (
        form.core(given[layout.chain :], across, layout, S) if q else (0.0, 0.0)
    )
    return _reduced(logdet + core_logdet, S.rest - explained)


def _reduced(logdet, S):
    """`Reduced` of what is left (p + 1, p + 1) of the cross-products of X and y."""
    return Reduced(logdet, S[:-1, :-1], S[:-1, -1], S[-1, -1])


def _eliminate_chain(form, given, m, C, S, keep=False):
    """Eliminate the nested factors one after another: log-determinant, what is left of S, and, if
    they are kept, the levels.

    C: per factor its cross-products with the core, X and y, in groups of columns (k, c_i, m). S:
    those of the latter.
    """
    layout = m.layout
    G, B, E = list(m.G), [list(b) for b in m.B], list(m.E)
    logdet, kept = 0.0, []
    for j in range(layout.chain):
        with_root = E or keep
        root_block = [_identities(G[j])] if with_root else []
        groups = len(C[j])
        added, left, right = form.level(G[j], given[j], [*C[j], *B[j], *root_block])
        UC, UB, VC, VB = left[:groups], left[groups:], right[:groups], right[groups:]
        logdet = logdet + added
        root, root_right = (UB.pop(), VB.pop()) if with_root else (None, None)
        if E:
            entries = layout.entries[j]
            UE, VE = (_at_entries(T, E[j], entries) for T in (root, root_right))
            S = _sparse_update(S, UE, VE, UC[0], VC[0], entries)
        else:
            UE = UC[0][:, : layout.q]
            S = Cross(*map(jnp.subtract, S, _explained(UC, VC, layout.q)))
        for h, parent in enumerate(layout.parents[j], j + 1):
            U, V = UB[h - j - 1], VB[h - j - 1]
            outer = VB[h - j :]
            G[h] = _less(G[h], U, V, parent)
            C[h] = tuple(_less(c, U, V, parent) for c, V in zip(C[h], VC, strict=True))
            B[h] = [_less(b, U, V, parent) for b, V in zip(B[h], outer, strict=True)]
            if E:
                fill = jnp.einsum("qae,qe->ae", U[:, :, entries.level], VE)
                E[h] = E[h].at[:, entries.up[h - j - 1]].add(-fill)
        kept.append(Level(root, tuple(UB), UE))
    return logdet, S, kept


def _identities(G):
    """I (k, k, m) of every level of G (k, k, m)."""
    k, levels = G.shape[1:]
    return jnp.broadcast_to(jnp.eye(k, dtype=G.dtype)[:, :, None], (k, k, levels))


def _at_entries(T, E, entries):
    """T (a, b, m) E (b, e), each entry of E at its level."""
    return jnp.einsum("abe,be->ae", T[:, :, entries.level], E)


def _less(A, U, V, parent):
    """A without what the levels below each of its own have taken over: U'V, summed by parent."""
    return A - _pass_up(U, V, parent, A)


def _explained(UC, VC, q):
    """Sum U'V of all levels, which is symmetric: `Cross` of the groups of columns."""
    if len(UC) == 1:
        return parts(_gram(*UC, *VC), q)
    (core, *rest), (core_right, *rest_right) = UC, VC
    beside = jnp.concatenate([_gram(core, right) for right in rest_right], 1)
    pairs = [[_gram(left, right) for right in rest_right] for left in rest]
    # what models differ in first: one product of them all with what they share
    return Cross(_gram(core_right, core), beside, jnp.block(pairs))


def _sparse_update(S, UE, VE, UC, VC, entries):
    """What eliminating one factor leaves of the cross-products, pair by pair of the columns that
    a level meets.
    """
    met = jnp.einsum("ke,kce->ec", UE, VC[:, :, entries.level])
    core = subtract_products(S.core, UE, VE, entries.column, entries.pairs)
    return Cross(core, S.beside.at[entries.column].add(-met), S.rest - _gram(UC, VC))


def _weighted_level(G, Lam, blocks):
    """What is given, and its products with W = Lambda (Lambda'G Lambda + I)^-1 Lambda'.

    Models that share the former go on sharing it, and one side of a product needs no derivative.
    """
    logdet, (U,) = whiten(G, Lam, [_identities(G)])
    W = jnp.einsum("qim,qjm->ijm", U, U)
    return logdet, list(blocks), [_weighted(W, C) for C in blocks]


def _weighted(W, C):
    """W C at every level: (k, k, m) and (k, c, m)."""
    return sum(W[:, j][:, None] * C[j][None] for j in range(len(W)))


def _scale_rows(Lams, Ls, layout, S):
    """(L (x) Lambda)' S for the block diagonal Lambda of the core."""
    if _is_diagonal(Ls, layout):
        return _diagonal(Lams, layout)[:, None] * S
    parts = []
    for Lam, L, block, start, end in zip(
        Lams, Ls, layout.core, layout.offsets, layout.offsets[1:], strict=False
    ):
        rows = S[start:end].reshape(block.levels, block.k, S.shape[1])
        scaled = jnp.einsum("mkc,kj->mjc", rows, Lam)
        if L is not None:
            scaled = jnp.einsum("ml,mjc->ljc", L, scaled)
        parts.append(scaled.reshape(end - start, S.shape[1]))
    return jnp.concatenate(parts)


def _scale_both(Lams, Ls, layout, S):
    """(L (x) Lambda)' S (L (x) Lambda), or its transpose."""
    if _is_diagonal(Ls, layout):
        scale = _diagonal(Lams, layout)
        return scale[:, None] * S * scale[None]
    if any(L is not None for L in Ls):
        return _scale_rows(Lams, Ls, layout, _scale_rows(Lams, Ls, layout, S).T)
    spans = list(zip(Lams, layout.core, layout.offsets, layout.offsets[1:], strict=False))
    pairs = [
        [_scaled(S[a:b, c:d], (Lam, other), (block, beside)) for other, beside, c, d in spans]
        for Lam, block, a, b in spans
    ]
    return jnp.block(pairs)


def _scaled(S, Lams, blocks):
    """Lambda'S Lambda_h for all levels of two factors of the core, as one product with their
    Kronecker product.
    """
    (m, k), (n, c) = ((block.levels, block.k) for block in blocks)
    by_level = jnp.swapaxes(S.reshape(m, k, n, c), 1, 2).reshape(m, n, k * c)
    scaled = by_level @ jnp.kron(*Lams)
    return jnp.swapaxes(scaled.reshape(m, n, k, c), 1, 2).reshape(S.shape)


def _is_diagonal(Ls, layout):
    return all(block.k == 1 for block in layout.core) and all(L is None for L in Ls)


def _diagonal(Lams, layout):
    return jnp.concatenate(
        [jnp.full(b.levels, Lam[0, 0]) for b, Lam in zip(layout.core, Lams, strict=True)]
    )


def _whitened_level(G, Lam, blocks):
    logdet, U = whiten(G, Lam, blocks)
    return logdet, U, list(U)


def whitened_core(Lams, Ls, layout, S):
    """Log-determinant of the core, and what it explains (c, c) of the rest."""
    M = _with_identity(_scale_both(Lams, Ls, layout, S.core))
    return logdet_quadratic(M, _scale_rows(Lams, Ls, layout, S.beside))


def _with_identity(M):
    """M + I, without an array of I's size that a search would keep and read again at every
    trial.
    """
    diagonal = jnp.arange(M.shape[0])
    return M.at[diagonal, diagonal].add(1.0)


def _absorbed_level(G, Sigma, blocks):
    logdet, V = absorb(G, Sigma, blocks)
    return logdet, list(blocks), V


def _absorbed_core(Sigmas, Ks, layout, S):
    core = _scale_rows(Sigmas, Ks, layout, symmetric(S.core))
    M = _with_identity(core)
    scaled = _scale_rows(Sigmas, Ks, layout, S.beside)
    return jnp.linalg.slogdet(M)[1], S.beside.T @ jnp.linalg.solve(M, scaled)


_WEIGHT_FORM = _Form(_weighted_level, whitened_core)
_FACTOR_FORM = _Form(_whitened_level, whitened_core)
_COVARIANCE_FORM = _Form(_absorbed_level, _absorbed_core)


def eliminate(Lams, Ls, m: Moments) -> Eliminated:
    """Factor M, from the factors Lambda~ (k, k) of the blocks, and of the core's the roots of K or
    None.

    Elimination of the scaled products: in the coordinates u of b = Lambda u, where nothing is
    divided by Lambda, which may be singular.
    """
    layout, chain = m.layout, m.layout.chain
    q = layout.q
    scaled = replace(
        m,
        G=tuple(_both_sides(Lam, G, Lam) for Lam, G in zip(Lams, m.G, strict=False)),
        B=tuple(
            tuple(_both_sides(Lams[j], B, Lams[h]) for h, B in enumerate(row, j + 1))
            for j, row in enumerate(m.B)
        ),
        E=tuple(jnp.einsum("ka,ke->ae", Lam, E) for Lam, E in zip(Lams, m.E, strict=False)),
    )
    C = [(_from_left(Lam, ZX),) for Lam, ZX in zip(Lams, m.ZX, strict=False)]
    identities = [jnp.eye(len(Lam), dtype=Lam.dtype) for Lam in Lams[:chain]]
    S = parts(m.XX, q)
    _, S, levels = _eliminate_chain(_FACTOR_FORM, identities, scaled, C, S, keep=True)
    core = None
    if layout.core:
        M = _with_identity(_scale_both(Lams[chain:], Ls, layout, S.core))
        core = inverse_lower(cholesky(M))
    return Eliminated(layout, levels, core, list(Lams), list(Ls))


def _from_left(Lam, C):
    """Lambda'C at every level: (k, c, m)."""
    return jnp.stack([sum(Lam[i, j] * C[i] for i in range(len(Lam))) for j in range(len(Lam))])


def _both_sides(Lam, G, right):
    """Lambda'G Lambda_h at every level."""
    return jnp.swapaxes(_from_left(right, jnp.swapaxes(_from_left(Lam, G), 0, 1)), 0, 1)


def _times(A, v):
    """A v at every level: (k, c, m) and (c, m)."""
    return sum(A[:, c] * v[c][None] for c in range(A.shape[1]))


def _times_transposed(A, v):
    """A'v at every level: (k, c, m) and (k, m)."""
    return sum(A[i] * v[i][None] for i in range(A.shape[0]))


def solve(e: Eliminated, r):
    """M^-1 r of effects r, per block (k, m): forward along the chain, the core, and back."""
    layout, chain = e.layout, e.layout.chain
    r, forward = list(r), []
    tail = core_vector(layout, r[chain:]) if layout.core else None
    for j, level in enumerate(e.levels):
        w = _times(level.root, r[j])
        for h, parent in enumerate(layout.parents[j], j + 1):
            met = _times_transposed(level.later[h - j - 1], w)
            r[h] = r[h] - jnp.zeros_like(r[h]).at[:, parent].add(met)
        if layout.core:
            tail = tail - _scaled_tail(e, _into_core(level, w, layout, j))
        forward.append(w)
    found: list = [None] * chain
    beside = None
    if layout.core:
        tail = e.core.T @ (e.core @ tail)
        beside = _scaled_tail(e, tail, transposed=True)
    for j in reversed(range(chain)):
        level, rest = e.levels[j], forward[j]
        for h, parent in enumerate(layout.parents[j], j + 1):
            rest = rest - _times(level.later[h - j - 1], found[h][:, parent])
        if layout.core:
            rest = rest - _from_core(level, beside, layout, j)
        found[j] = _times_transposed(level.root, rest)
    return [*found, *(core_effects(layout, tail) if layout.core else [])]


def _scaled_tail(e, v, transposed=False):
    """(L (x) Lambda)' v of the core (q,), or (L (x) Lambda) v."""
    Lams = e.Lams[e.layout.chain :]
    if transposed:
        Lams, Ls = [Lam.T for Lam in Lams], [None if L is None else L.T for L in e.Ls]
    else:
        Ls = e.Ls
    return _scale_rows(Lams, Ls, e.layout, v[:, None])[:, 0]


def _into_core(level, w, layout, j):
    """Sum over levels of what effects w (k, m) of a factor meet in the core: (q,)."""
    if not layout.entries:
        return sum(level.core[i] @ w[i] for i in range(len(w)))
    entries = layout.entries[j]
    met = jnp.sum(level.core * w[:, entries.level], 0)
    return jnp.zeros(layout.q, w.dtype).at[entries.column].add(met)


def _from_core(level, v, layout, j):
    """What a vector of the core (q,) meets at every level of a factor: (k, m)."""
    if not layout.entries:
        return jnp.stack([v @ level.core[i] for i in range(len(level.core))])
    entries = layout.entries[j]
    met = level.core * v[entries.column][None]
    return jnp.zeros((len(met), level.root.shape[-1]), v.dtype).at[:, entries.level].add(met)


def core_vector(layout, effects):
    """Effects of the core's factors, per block (k, m), as one vector (q,)."""
    return jnp.concatenate([b.T.reshape(-1) for b in effects])


def core_effects(layout, vector):
    """A vector (q,) of the core as effects per block (k, m)."""
    spans = zip(layout.core, layout.offsets, layout.offsets[1:], strict=False)
    return [vector[start:end].reshape(block.levels, block.k).T for block, start, end in spans]
