"""Cross-products of correlated rows, by classes of pairs of rows.

    C'R(psi)^-1 C = sum over pairs (s, t) of rows of one subject  r_st(psi) c_s c_t'
                  = sum_k f_k(psi) M_k

with C = [Z X y]. A *class* k is a set of pairs for which r_st is the same function f_k of psi: a
pair of places in a pattern of visits. M_k, the sum of c_s c_t' + c_t c_s' over the pairs of a
class, is computed once; after that an evaluation is one combination of K arrays, whatever the
number of rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from ...support.containers import container, stacked
from ...support.later import jax, jnp, lax
from ..covariance.residual import Patterns, ResidualCovariance, whiteners
from .layout import Plan
from .moments import (
    Basis,
    Moments,
    _core_columns,
    _outer,
    assemble,
    condition,
    respond,
    root_weights,
)


class Products(NamedTuple):
    """The cross-products of `Moments`; with a leading axis of classes where there are several."""

    G: tuple[jax.Array, ...]
    B: tuple[tuple[jax.Array, ...], ...]
    E: tuple[jax.Array, ...]
    ZX: tuple[jax.Array, ...]
    Zy: tuple[jax.Array, ...]
    XX: jax.Array
    Xy: jax.Array
    yy: jax.Array


class Answer(NamedTuple):
    """The part of the cross-products by class that depends on y, and y~ y~' by pattern."""

    Zy: tuple[jax.Array, ...]
    Xy: jax.Array
    yy: jax.Array
    squares: jax.Array


# by the names of their dimensions
SUBJECTS = dict(pattern="subjects", place="_ subjects")
SQUARES = "_ _ patterns"


class Pairs(NamedTuple):
    """Pairs of rows, in chunks of equal size; weight 1 for two rows, 1/2 for a row with itself,
    0 for padding.
    """

    left: Any  # (chunks, size) rows
    right: Any  # (chunks, size)
    kind: Any  # (chunks, size) their class
    weight: Any  # (chunks, size)


@container
class Classes:
    """Where the entries of R^-1 that the classes take their weight from stand: place a, place b
    of a pattern.
    """

    first: Any  # (K,)
    second: Any  # (K,)
    pattern: Any  # (K,)

    @property
    def generalised(self) -> Classes:
        """Any number of classes, by the names of dimensions."""
        return Classes("classes", "classes", "classes")

    def entries(self, inverse):
        """F (K,) from R^-1 (m, m, P)."""
        return inverse[self.first, self.second, self.pattern]


@container
class ByClass:
    """Cross-products of a model with correlated residuals, class by class."""

    structure: ResidualCovariance
    patterns: Patterns
    classes: Classes
    products: Products
    # (m, m, P): y~ y~' of least-squares residuals, summed over the subjects of every pattern
    squares: Any

    def described(self, plain: Moments) -> ByClass:
        """These cross-products for any number of patterns and classes; plain: the moments beside
        them, described so.
        """
        products = Products(*(getattr(plain, name) for name in Products._fields))
        return replace(
            self,
            patterns=self.patterns.generalised,
            classes=self.classes.generalised,
            products=stacked("classes", products),
            squares=SQUARES,
        )

    @property
    def answer(self) -> Answer:
        """What `with_answer` takes, of `generalised` ones by the names of dimensions."""
        return Answer(self.products.Zy, self.products.Xy, self.products.yy, self.squares)

    def with_answer(self, answer: Answer) -> ByClass:
        """These cross-products with those of another response."""
        Zy, Xy, yy, squares = answer
        return replace(self, products=self.products._replace(Zy=Zy, Xy=Xy, yy=yy), squares=squares)

    def at(self, psi, m: Moments):
        """Moments of the rows whitened by R(psi), and log|R|."""
        return self.of_matrices(self.structure.matrices(psi, self.patterns), m)

    def of_matrices(self, R, m: Moments):
        """Moments of the rows whitened by R (m, m, P) of the patterns, and log|R|."""
        f, logdet = self._weights(R)
        made = jax.tree.map(lambda a: jnp.tensordot(f, a, 1), self.products)
        return replace(m, **made._asdict()), logdet

    def _weights(self, R):
        """F (K,) of the classes, and log|R|."""
        logdet, half = whiteners(R, self.patterns.count)
        return self.classes.entries(jnp.einsum("iap,ibp->abp", half, half)), logdet

    def _weights_at(self, psi):
        return self._weights(self.structure.matrices(psi, self.patterns))

    def linearised(self, psi, m: Moments) -> Linearised:
        """The cross-products as linear functions of psi about a point."""
        f, by_psi = along_axes(lambda psi: self._weights_at(psi)[0], psi)
        value, slopes = (
            jax.tree.map(lambda a, w=w: jnp.tensordot(w, a, 1), self.products) for w in (f, by_psi)
        )
        return Linearised(psi, value, slopes)

    def curved(self, psi, gradient: Products, m: Moments):
        """Log|R| plus the inner product of the cross-products with a gradient by them: a function
        of psi without cross-products in it.
        """
        pairs = zip(jax.tree.leaves(self.products), jax.tree.leaves(gradient), strict=True)
        gamma = sum(jnp.tensordot(a, g, g.ndim) for a, g in pairs)

        def function(psi):
            f, logdet = self._weights_at(psi)
            return logdet + gamma @ f

        return function


def along_axes(function, x):
    """function(x), and its derivatives by every entry of x (r,) on a leading axis."""
    value, along = jax.linearize(function, x)
    return value, lax.map(along, jnp.eye(x.shape[0], dtype=x.dtype))


@container
class Linearised:
    """Cross-products that are linear in psi, without log|R|: first derivatives are those of the
    model.
    """

    psi: Any  # (r,)
    products: Products  # at psi
    slopes: Products  # with a leading axis (r,)

    def at(self, psi, m: Moments):
        """Moments at psi, and 0."""
        away = psi - self.psi
        pairs = self.products, self.slopes
        made = jax.tree.map(lambda a, slope: a + jnp.tensordot(away, slope, 1), *pairs)
        return replace(m, **made._asdict()), 0.0


@container
class ClassPlan:
    """How the rows of a model go into `ByClass`."""

    structure: ResidualCovariance
    patterns: Patterns
    pattern: Any  # (N,) of every subject
    place: Any  # (m, N) row of the data at every place of a subject, -1 where there is none
    classes: Classes
    pairs: Pairs

    @property
    def generalised(self) -> ClassPlan:
        """The same for any number of subjects, patterns, classes and pairs."""
        return replace(
            self,
            patterns=self.patterns.generalised,
            classes=self.classes.generalised,
            pairs=Pairs(*["chunks pairs"] * 4),
            **SUBJECTS,
        )

    def moments(self, plan: Plan, *rows) -> Moments:
        """Cross-products class by class. rows: y, X, Z, weights, offset, K as `moments` takes
        them.
        """
        m, XY, Z = conditioned_rows(plan, *rows)
        products = pair_products(plan, XY, Z, self.pairs, self.classes.first.shape[0])
        squares = self._squares(XY[:, -1])
        return replace(
            m, residual=ByClass(self.structure, self.patterns, self.classes, products, squares)
        )

    def answers(self, plan: Plan, basis: Basis, Y) -> Answer:
        """What several conditioned responses Y (n, r) change, with a leading axis r."""
        root = root_weights(basis.w)[:, None]
        X, Z = root * basis.X, [root * z for z in basis.Z]
        kinds = self.classes.first.shape[0]

        def one(y):
            return Answer(*response_pairs(plan, X, Z, y, self.pairs, kinds), self._squares(y))

        return lax.map(one, (root * Y).T)

    def _squares(self, y):
        return products_by_pattern(
            by_place(y[:, None], self.place)[0], self.pattern, self.patterns.count.shape[0]
        )


def by_place(rows, place):
    """Rows (n, c) of the data in the places of their subjects, (c, m, N); 0 where there is none."""
    seen = (place >= 0)[:, :, None]
    return jnp.moveaxis(jnp.where(seen, rows[jnp.maximum(place, 0)], 0.0), -1, 0)


def products_by_pattern(y, pattern, P: int):
    """Sum of y y' over the subjects of every pattern, (m, m, P), from y (m, N); a constant under
    differentiation.
    """
    y = lax.stop_gradient(y)
    return lax.map(lambda row: jnp.zeros((len(y), P), y.dtype).at[:, pattern].add(row[None] * y), y)


def joined(products: dict[str, Any], q: int) -> Products:
    """Cross-products of a design whose last column of X is the response; arrays may have leading
    axes.
    """
    XX = products["XX"]
    return Products(
        G=products["G"],
        B=products["B"],
        E=products["E"],
        ZX=tuple(z[..., :-1, :] for z in products["ZX"]),
        Zy=tuple(z[..., -1, :] for z in products["ZX"]),
        XX=XX[..., :-1, :-1],
        Xy=XX[..., :-1, -1],
        yy=XX[..., -1, -1],
    )


def pair_products(plan: Plan, X, Z, pairs: Pairs, kinds: int) -> Products:
    """M_k of every class.

    X (n, p + 1) with the response as its last column, Z per block (n, k): rows of weight 1.

    All rows of a pair share their level of every factor that is eliminated level by level.
    """

    def add(total, chunk):
        return jax.tree.map(jnp.add, total, _chunk_products(plan, X, Z, Pairs(*chunk), kinds)), None

    first = _chunk_products(plan, X, Z, Pairs(*(a[0] for a in pairs)), kinds)
    total, _ = lax.scan(add, first, tuple(a[1:] for a in pairs))
    return joined(total, plan.layout.q)


def response_pairs(plan: Plan, X, Z, y, pairs: Pairs, kinds: int):
    """Zy, Xy and yy of every class: those of `pair_products` for a response y (n,) alone."""
    layout, t = plan.layout, plan.layout.chain
    columns = _core_columns(layout, plan.codes)

    def of_chunk(left, right, kind, w):
        y_left, y_right = w * y[left], w * y[right]

        def both(a):
            """a_left y_right + a_right y_left."""
            return a[left] * y_right[:, None] + a[right] * y_left[:, None]

        Zy = []
        for j in range(t):
            none = jnp.zeros((kinds, layout.blocks[j].levels, Z[j].shape[1]), y.dtype)
            Zy.append(jnp.moveaxis(none.at[kind, plan.codes[j][left]].add(both(Z[j])), 1, -1))
        core = jnp.zeros((kinds, layout.q), y.dtype)
        for cols, z in zip(columns, Z[t:], strict=True):
            core = core.at[kind[:, None], cols[left]].add(z[left] * y_right[:, None])
            core = core.at[kind[:, None], cols[right]].add(z[right] * y_left[:, None])
        rest = jnp.zeros((kinds, X.shape[1]), y.dtype).at[kind].add(both(X))
        yy = jnp.zeros(kinds, y.dtype).at[kind].add(2.0 * y_left * y[right])
        return tuple(Zy), jnp.concatenate([core, rest], 1), yy

    def add(total, chunk):
        return jax.tree.map(jnp.add, total, of_chunk(*chunk)), None

    first = of_chunk(*(a[0] for a in pairs))
    return lax.scan(add, first, tuple(a[1:] for a in pairs))[0]


def _chunk_products(plan, X, Z, pairs, kinds):
    layout, t = plan.layout, plan.layout.chain
    q, p = layout.q, X.shape[1]
    left, right, kind, w = pairs
    XL, XR = X[left], X[right]
    ZL, ZR = [z[left] for z in Z], [z[right] for z in Z]
    columns = _core_columns(layout, plan.codes)

    def both(a, b, c, d):
        """A b' + c d' of every pair, times its weight."""
        return w[:, None, None] * (_outer(a, b) + _outer(c, d))

    def by_level(values, code, levels):
        summed = (
            jnp.zeros((kinds, levels, *values.shape[1:]), values.dtype).at[kind, code].add(values)
        )
        return jnp.moveaxis(summed, 1, -1)

    G, B, E, ZX = [], [], [], []
    for j in range(t):
        levels, code = layout.blocks[j].levels, plan.codes[j][left]
        G.append(by_level(both(ZL[j], ZR[j], ZR[j], ZL[j]), code, levels))
        nested = range(j + 1, t) if layout.parents else ()
        B.append(tuple(by_level(both(ZL[j], ZR[h], ZR[j], ZL[h]), code, levels) for h in nested))
        zx = by_level(both(ZL[j], XR, ZR[j], XL), code, levels)
        if q and not layout.entries:
            met = _met_dense(layout, columns, pairs, ZL, ZR, j, code, levels, kinds)
            zx = jnp.concatenate([met, zx], 2)
        elif q:
            E.append(_met_sparse(plan, pairs, ZL, ZR, j, kinds))
        ZX.append(zx)
    XX = _core_products(layout, columns, pairs, XL, XR, ZL[t:], ZR[t:], kinds)
    XX = XX.at[:, q:, q:].set(jnp.zeros((kinds, p, p), X.dtype).at[kind].add(both(XL, XR, XR, XL)))
    return dict(G=tuple(G), B=tuple(B), E=tuple(E), ZX=tuple(ZX), XX=XX)


def _met_dense(layout, columns, pairs, ZL, ZR, j, code, levels, kinds):
    """Z_j'R^-1 Z_core (kinds, k, q, levels) of the levels of a factor that is eliminated."""
    left, right, kind, w = pairs
    t, k = layout.chain, ZL[j].shape[1]
    met = jnp.zeros((kinds, levels, layout.q, k), ZL[j].dtype)
    for cols, zl, zr in zip(columns, ZL[t:], ZR[t:], strict=True):
        at = kind[:, None], code[:, None]
        met = met.at[(*at, cols[right])].add(_outer(zr, w[:, None] * ZL[j]))
        met = met.at[(*at, cols[left])].add(_outer(zl, w[:, None] * ZR[j]))
    return jnp.moveaxis(met, (1, 2, 3), (3, 2, 1))


def _met_sparse(plan, pairs, ZL, ZR, j, kinds):
    """Products with the core at the entries of a sparse one, (kinds, k, e): the rows of a pair
    meet the same level.
    """
    left, right, kind, w = pairs
    layout = plan.layout
    met = jnp.zeros((kinds, layout.entries[j].level.shape[0], ZL[j].shape[1]), ZL[j].dtype)
    for rows, zl, zr in zip(plan.rows[j], ZL[layout.chain :], ZR[layout.chain :], strict=True):
        width = jnp.arange(zl.shape[1])[None]
        met = met.at[kind[:, None], rows[right][:, None] + width].add(
            _outer(zr, w[:, None] * ZL[j])
        )
        met = met.at[kind[:, None], rows[left][:, None] + width].add(_outer(zl, w[:, None] * ZR[j]))
    return jnp.swapaxes(met, 1, 2)


def _core_products(layout, columns, pairs, XL, XR, ZL, ZR, kinds):
    """[Z_core X]'R^-1[Z_core X] (kinds, q + p, q + p) but for its last block."""
    left, right, kind, w = pairs
    q, p = layout.q, XL.shape[1]
    XX = jnp.zeros((kinds, q + p, q + p), XL.dtype)
    for cols, zl, zr in zip(columns, ZL, ZR, strict=True):
        wl, wr = w[:, None] * zl, w[:, None] * zr
        at, others_at = kind[:, None, None], kind[:, None]
        for others, other_l, other_r in zip(columns, ZL, ZR, strict=True):
            XX = XX.at[at, cols[left][:, :, None], others[right][:, None]].add(_outer(wl, other_r))
            XX = XX.at[at, cols[right][:, :, None], others[left][:, None]].add(_outer(wr, other_l))
        cross = jnp.zeros((kinds, q, p), XL.dtype)
        cross = (
            cross.at[others_at, cols[left]]
            .add(_outer(wl, XR))
            .at[others_at, cols[right]]
            .add(_outer(wr, XL))
        )
        XX = XX.at[:, :q, q:].add(cross).at[:, q:, :q].add(jnp.swapaxes(cross, 1, 2))
    return XX


def conditioned_rows(plan: Plan, y, X, Z, weights=None, offset=None, K=None):
    """Moments of uncorrelated residuals, and the rows they are made of: [X~ y~] (n, p + 1) and Z~
    per block, times the roots of the weights.
    """
    plan = replace(plan, residual=None)
    basis = condition(plan, X, Z, jnp.ones_like(y) if weights is None else weights, K)
    y = y if offset is None else y - offset
    response = jax.tree.map(lambda a: a[0], respond(plan, basis, y[:, None]))
    scaled = (y - basis.X @ (basis.R @ response.beta0)) / response.scale
    root = root_weights(basis.w)[:, None]
    rows = root * jnp.concatenate([basis.X, scaled[:, None]], 1)
    return assemble(plan, basis, response), rows, tuple(root * z for z in basis.Z)
