"""How a model reacts to its rows: leverages, variances of predictions, derivatives of the estimates
by weights. Pure.

Henderson's equations for u = [beta; Lambda^-1 b] have row i in them as h_i = [x_i; Lambda' z_i]:

    H = [X'WX, X'WZ Lambda; Lambda'Z'WX, M] = sum_i w_i h_i h_i' + [0, 0; 0, I],
    log|H| = log|M| + log|X'V^-1 X|

H^-1 sigma^2 is the covariance of [beta^; b^] - [beta; b], so what a row's fitted value is uncertain
by is a derivative, also for a row of weight zero, which is one to be predicted:

    Var(x_i'(beta^ - beta) + z_i'(b^ - b)) / sigma^2 = h_i' H^-1 h_i = d log|H| / d w_i

and log|X'V^-1 X| gives V^-1 X (X'V^-1 X)^-1 = 1/2 d log|H| / dX. One reverse pass through the
cross-products does all rows, whatever the layout.
"""

from __future__ import annotations

from typing import NamedTuple

from ...support.later import jax, jnp
from ..covariance.parameters import conditioned_factors
from ..crossproducts.layout import Layout, Plan
from ..crossproducts.moments import assemble, condition, moments, respond
from ..likelihood.coordinates import to_conditioned, to_user
from ..likelihood.elimination import reduce, reduce_factors
from ..linalg.matrices import inverse, inverse_upper, logdet_quadratic
from .curvature import jacobian


def _log_henderson(theta, plan, X, Z, w, K):
    m = moments(plan, jnp.zeros_like(w), X, Z, w, None, K)
    reduced = reduce(to_conditioned(theta, m.layout, m.A), m)
    return reduced.logdet + logdet_quadratic(reduced.XX, reduced.Xy[:, None])[0]


def row_variances(theta, plan: Plan, X, Z, w, K):
    """h_i' H^-1 h_i (n,): variances of the rows' predictions over sigma^2, at the user's theta
    (d,).

    Z and K as in `moments`.
    """
    return jax.grad(_log_henderson, 4)(theta, plan, X, Z, w, K)


def prediction_variances(t, layout: Layout, A, plan: Plan, X, Z, w, K):
    """`row_variances` of the rows after those with weights w (n,), and their derivatives by t: (r,)
    and (r, d).

    t (d,): conditioned parameters of a layout and A. The plan may have more rows and levels than
    that layout.
    """
    none = jnp.zeros(X.shape[0] - w.shape[0], w.dtype)

    def variances(t):
        theta = to_user(t, layout, A)
        return jax.grad(
            lambda more: _log_henderson(theta, plan, X, Z, jnp.concatenate([w, more]), K)
        )(none)

    return jacobian(variances, t)


class Leverages(NamedTuple):
    """Diagonals of hat matrices, fitted = offset + (fixed + random) (y - offset), and what the
    fixed one is made of.
    """

    overall: jax.Array  # (n,)
    fixed: jax.Array  # (n,) of X (X'V^-1 X)^-1 X'V^-1
    VXC: jax.Array  # (n, p) V^-1 X (X'V^-1 X)^-1


def leverages(theta, plan: Plan, X, Z, w, K) -> Leverages:
    """Leverage of every row at the user's theta (d,)."""
    by_X, by_w = jax.grad(_log_henderson, (2, 4))(theta, plan, X, Z, w, K)
    return Leverages(w * by_w, 0.5 * jnp.sum(X * by_X, 1), 0.5 * by_X)


def deletion_gradients(x, plan: Plan, y, X, Z, w, K, reml):
    """Gradients (n, d + 1) by x = (t, log sigma) of the joint deviance without each row.

    Deleting row i takes w_i h_i h_i' from H (and its random part from M), so that with a_i and h_i
    its leverages given beta and overall, and its residual e_i,

        log|M| + log(1 - a_i),    log|H| + log(1 - h_i),    r2 - w_i e_i^2 / (1 - h_i),    nu - 1

    are those of the other rows; a_i, h_i - a_i and w_i e_i^2 are the derivatives of log|M|,
    log|X'V^-1 X| and r2 by the logarithm of w_i. y (n,) without the offset. Rows of weight zero are
    not there.
    """
    basis, d = condition(plan, X, Z, w, K), x.shape[0] - 1

    def pieces(t, c):
        part = basis._replace(w=w * c)
        m = assemble(plan, part, _one_response(plan, part, y))
        reduced = reduce(t, m)
        logdet, explained = logdet_quadratic(reduced.XX, reduced.Xy[:, None])
        return jnp.stack([reduced.logdet, logdet, m.scale**2 * (reduced.yy - explained[0, 0])])

    def changes(t):
        a, rest, lack = jax.jacrev(pieces, 1)(t, jnp.ones_like(w))
        change = jnp.stack([jnp.log1p(-a - jnp.where(reml, rest, 0.0)), -lack / (1.0 - a - rest)])
        return change, change[1]

    by_t, lack = jax.jacfwd(changes, has_aux=True)(x[:d])
    precision = jnp.exp(-2.0 * x[d])
    by_log_sigma = -2.0 * (w > 0) - 2.0 * precision * lack
    return jnp.concatenate([by_t[0] + precision * by_t[1], by_log_sigma[:, None]], 1)


def _one_response(plan, basis, y):
    return jax.tree.map(lambda a: a[0], respond(plan, basis, y[:, None]))


class Pull(NamedTuple):
    """What the count c_g of a group does to the estimates at first order, at c = 1, as
    contributions of its rows.

    d x / d c = -H^-1 gradient with the Hessian H of the joint deviance in x = (t, log sigma), and
    d beta / d c = beta + (d beta / d t) (d t / d c).
    """

    gradient: jax.Array  # (n, d + 1) derivative by c of the joint deviance's gradient by x
    beta: jax.Array  # (n, p) derivative of beta by c with x held


def case_pull(x, plan: Plan, y, X, Z, w, K, reml) -> Pull:
    """Contributions of rows to the pull of a *group* that counts c times, with all of its random
    effects.

    Add them up over the rows of a group whose rows share no random effect with other rows: then the
    log-likelihood is sum_g c_g l_g and X'V^-1 X = sum_g c_g X_g'V_g^-1 X_g. y (n,) without the
    offset.

    With r = y - X beta and C = (X'V^-1 X)^-1, all in conditioned units, the deviance is log|V| +
    r'V^-1 r / sigma^2 + [REML] log|X'V^-1 X|, and at theta held d beta / d c_g = C X_g'V_g^-1 r_g,
    the step of the group's rows.
    """
    basis, d = condition(plan, X, Z, w, K), x.shape[0] - 1
    t = x[:d]
    m = assemble(plan, basis, _one_response(plan, basis, y))
    reduced = reduce(t, m)
    C = inverse(reduced.XX)
    b = C @ reduced.Xy

    by_theta, by_Q, by_y = _by_rows(t, basis, y, C, b, plan)
    # V^-1 r over the scale of y, V^-1 X (X'V^-1 X)^-1
    Vr, VXC = 0.5 * m.scale * by_y[1], 0.5 * by_Q[2]
    r = (y - basis.X @ (m.R @ m.beta0 + m.scale * b)) / m.scale
    score_by_t, XX_by_t = _at_beta_by_t(t, b, m)
    step = (basis.X * Vr[:, None]) @ C
    lack = jnp.exp(2.0 * (jnp.log(m.scale) - x[d]))
    restricted = by_theta[2] - jnp.einsum("na,ab,bck,nc->nk", basis.X, C, XX_by_t, VXC)
    by_t = (
        by_theta[0]
        + lack * (by_theta[1] - 2.0 * step @ score_by_t)
        + jnp.where(reml, restricted, 0.0)
    )
    by_log_sigma = 2.0 * (w > 0) - 2.0 * lack * r * Vr
    beta = m.scale * step @ inverse_upper(m.R).T
    return Pull(jnp.concatenate([by_t, by_log_sigma[:, None]], 1), beta)


def _by_rows(t, basis, y, C, b, plan):
    """Derivatives of log|V|, r'V^-1 r (beta held) and tr(C X'V^-1 X) (C held) by theta, X~ and y of
    every row.

    Every sum over groups S = sum_g S_g is differentiated by a theta of each row's own, which enters
    as
    Z_i Lambda(theta_i): the derivatives by the rows of a group add up to d S_g / d theta.
    """
    blocks = plan.layout.blocks
    unit = [jnp.eye(block.k, dtype=t.dtype) for block in blocks], [None] * len(plan.layout.core)

    def sums(thetas, Q, y):
        Lams = jax.vmap(lambda t: conditioned_factors(t, blocks, basis.A))(thetas)
        Z = tuple(jnp.einsum("nk,nkj->nj", z, Lam) for z, Lam in zip(basis.Z, Lams, strict=True))
        part = basis._replace(X=Q, Z=Z)
        found = reduce_factors(*unit, assemble(plan, part, _one_response(plan, part, y)))
        r2 = found.yy - 2.0 * b @ found.Xy + b @ found.XX @ b
        return jnp.stack([found.logdet, r2, jnp.sum(C * found.XX)])

    return jax.jacrev(sums, (0, 1, 2))(jnp.broadcast_to(t, (len(y), t.shape[0])), basis.X, y)


def _at_beta_by_t(t, b, m):
    """Derivatives by t of X'V^-1 r at beta held (p, d), and of X'V^-1 X (p, p, d)."""

    def at_beta(t):
        found = reduce(t, m)
        return found.Xy - found.XX @ b, found.XX

    return jax.jacfwd(at_beta)(t)
