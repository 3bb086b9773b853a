"""Adaptive Gauss-Hermite quadrature for one grouping factor of up to three effects: a correction of
Laplace's deviance.

    d_Q = h(u^) + log|M|
        - 2 sum_j log sum_q w_q exp( |z_q|^2/2 - [h_j(u^ + L_j'^-1 z_q) - h_j(u^)]/2 ),
    M_j = L_j L_j'

over the levels j and the nodes z_q of a standard normal with weights w_q (Liu & Pierce 1994,
Biometrika 81). One node is Laplace's approximation; as their number grows the sum is the integral.
"""

from __future__ import annotations

import itertools

import numpy as np

from ...support.later import jax, jnp, lax
from ..crossproducts.moments import _sum_by
from ..families.rows import constants, kernels, rows_of
from .elimination import solve
from .laplace import (
    Data,
    Look,
    Place,
    attach,
    deviance_at,
    dot,
    effects,
    factored,
    factors_at,
    free_parameters,
    gradient,
    linear_predictor,
    look,
    mode,
    plus,
    products,
    spread,
    stationarity,
)

NOTHING = -700.0  # log of a share of the integral that does not count


def rule(nodes: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (nodes^k, k) and logarithms of the weights of the standard normal in k dimensions."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.array(list(itertools.product(range(nodes), repeat=k)))
    return z[grid], np.log(w / w.sum())[grid].sum(1)


def objective(x: Place, u, data: Data):
    """-2 log-likelihood with the mode u at x: differentiable in x, u and the data."""
    factors, free = factors_at(x.t, data), free_parameters(x.g, data)
    base = data.offset + data.X @ x.c
    eta = linear_predictor(x, data, factors, u)
    value, _, W = rows_of(data.family, data.row, eta, free)
    (level,) = factored(factors, products(data, W)).levels
    (block,), (code,) = data.layout.blocks, data.plan.codes

    def by_level(rows, v):
        return _sum_by(-2.0 * rows[:, None], code, block.levels)[0] + jnp.sum(v[0] ** 2, 0)

    h0 = by_level(value, u)

    def add_node(total, node):
        z, log_weight = node
        away = sum(level.root[i] * z[i] for i in range(block.k))
        v = plus(u, [away])
        h = by_level(
            kernels(data.family, data.row, base + spread(data, effects(factors, v)), free), v
        )
        share = log_weight + 0.5 * jnp.sum(z**2) - 0.5 * (h - h0)
        share = jnp.maximum(jnp.where(jnp.isnan(share), NOTHING, share), NOTHING)
        return jnp.logaddexp(total, share), None

    nodes, log_weights = (jnp.asarray(a, eta.dtype) for a in rule(data.nodes, block.k))
    total, _ = lax.scan(jax.checkpoint(add_node), jnp.full_like(h0, -1e4), (nodes, log_weights))
    logdet = -2.0 * sum(jnp.sum(jnp.log(level.root[i, i])) for i in range(block.k))
    constant = jnp.sum(constants(data.family, data.row, free))
    return jnp.sum(h0) + logdet - 2.0 * jnp.sum(total) - 2.0 * constant


def quadrature_gradient(x: Place, u, at: Look, data: Data):
    """The deviance and its gradient by x, by the adjoint of the mode: F_x + d_x <a, Lambda'Z's>,
    a = M^-1 F_u.
    """
    u = plus(u, at.step)
    there = look(x, u, data)
    f, (by_x, by_u) = jax.value_and_grad(objective, (0, 1))(x, u, data)
    a = solve(there.eliminated, by_u)
    held = jax.grad(lambda x: dot(a, stationarity(x, data, u)))(x)
    return f, jax.tree.map(jnp.add, by_x, held)


def deviance_gradient(x: Place, u, at: Look, data: Data):
    """Deviance and gradient by as many nodes as the data say."""
    return (gradient if data.nodes <= 1 else quadrature_gradient)(x, u, at, data)


def deviance_with_mode(x: Place, data: Data, u):
    """The deviance at x with the mode u there, by as many nodes as the data say."""
    return (deviance_at if data.nodes <= 1 else quadrature_at)(x, data, u)


def deviance(x: Place, data: Data):
    """The same, with the mode searched from 0: a constant under differentiation."""
    held_x, held_data = lax.stop_gradient((x, data))
    start = [jnp.zeros((b.k, b.levels), data.offset.dtype) for b in data.layout.blocks]
    return deviance_with_mode(x, data, mode(held_x, start, held_data))


def quadrature_at(x: Place, data: Data, u):
    """The deviance at x with the mode u there: differentiable in x and the data at every order."""
    return objective(x, attach(x, data, lax.stop_gradient(u)), data)
