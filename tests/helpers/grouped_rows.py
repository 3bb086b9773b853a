"""Rows of a layer of random effects, and their density by the dense textbook formula."""

import numpy as np

from interlace_jax.layers.factors import Factors


def classes_in_schools(seed=0):
    """Slopes by class, classes in schools, a crossed item; classes are numbered through."""
    rng = np.random.default_rng(seed)
    factors = Factors.of({"school": 3, "class": 7, "item": 4}, {"class": 1}, {"class": "school"})
    cls = np.arange(30) % 6  # class 6 has no rows
    groups = {"school": cls % 3, "class": cls, "item": rng.integers(0, 4, 30)}
    return factors, rng.standard_normal(30), groups, {"class": rng.standard_normal((30, 1))}


def random_raw(factors, seed=0):
    return 0.4 * np.random.default_rng([seed, 9]).standard_normal(factors.size)


def dense_effects(factors, raw, groups, features):
    """Z (n, q) of all effects, by factor, and their covariance (q, q) relative to sigma^2."""
    n, blocks, covariances, start = len(groups[factors.names[0]]), [], [], 0
    for name, levels, k in zip(factors.names, factors.levels, factors.columns, strict=True):
        z = np.column_stack(
            [np.ones(n), *np.asarray((features or {}).get(name, np.zeros((n, 0)))).T]
        )
        Z = np.zeros((n, levels, k))
        Z[np.arange(n), groups[name]] = z
        own = raw[start : start + k * (k + 1) // 2]
        start += len(own)
        L = lower_triangle(own, k)
        blocks.append(Z.reshape(n, -1))
        covariances.append(np.kron(np.eye(levels), L @ L.T))
    q = sum(map(len, covariances))
    G, at = np.zeros((q, q)), 0
    for C in covariances:
        G[at : at + len(C), at : at + len(C)] = C
        at += len(C)
    return np.hstack(blocks), G


def lower_triangle(raw, k):
    """Rows scaled by exp of their diagonal numbers, which are listed column by column with the
    others.
    """
    L = np.eye(k)
    L[tuple(np.array([(i, j) for j in range(k) for i in range(j, k)]).T)] = raw
    diagonal = np.exp(np.diag(L))
    np.fill_diagonal(L, 1.0)
    return diagonal[:, None] * np.tril(L)


def dense_nll(factors, raw, sigma, residual, groups, features):
    """-log N(residual; 0, sigma^2 (I + Z G Z'))."""
    Z, G = dense_effects(factors, raw, groups, features)
    V = sigma**2 * (np.eye(len(residual)) + Z @ G @ Z.T)
    return 0.5 * (np.linalg.slogdet(2 * np.pi * V)[1] + residual @ np.linalg.solve(V, residual))


def dense_conditional(factors, raw, sigma, residual, groups, features):
    """Mean (q,) and covariance (q, q) of all effects given the rows."""
    Z, G = dense_effects(factors, raw, groups, features)
    gain = G @ Z.T @ np.linalg.inv(np.eye(len(residual)) + Z @ G @ Z.T)
    return gain @ residual, sigma**2 * (G - gain @ Z @ G)
