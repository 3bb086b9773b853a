"""V, the covariance of the responses over sigma^2, block by block of rows that share random
effects or residuals.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy  # scipy.sparse takes long to import; this way that happens on first use

from ..design.design import Design
from .fitted import FittedModel
from .parameters import level_roots, relative_factors
from .residual import residual_covariances

# rows that share random effects, directly or through others, whose covariance matrix is still
# formed
LARGEST = 5000
WORKING_SET = 2**24  # numbers in the covariance matrices that are formed at a time


def components(design: Design) -> np.ndarray:
    """Label (n,) of the independent block of V that every row is in."""
    n = len(design.X)
    subject, _ = _subjects(design)
    nodes = [
        subject,
        *(f.codes if f.across is None else np.zeros_like(f.codes) for f in design.factors),
    ]
    starts = np.cumsum([n, *(code.max() + 1 for code in nodes)])
    edges = np.concatenate([start + codes for start, codes in zip(starts, nodes, strict=False)])
    rows = np.tile(np.arange(n), len(nodes))
    graph = scipy.sparse.csr_array(
        (np.ones(len(rows), np.int8), (rows, edges)), shape=(starts[-1],) * 2
    )
    return scipy.sparse.csgraph.connected_components(graph, directed=False)[1][:n]


def _subjects(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Subject (n,) whose residuals covary, and place (n,) within it; every row is its own where
    they do not.
    """
    if design.residual is None:
        return np.arange(len(design.X)), np.arange(len(design.X))
    return design.residual.rows.subject, design.residual.rows.slot


def blocks(design: Design, what: str, instead: str) -> Iterator[np.ndarray]:
    """Rows (blocks, size) of the independent blocks of V, those of one size together, each in the
    order of the data; of a subject whose residuals covary in the order of time. what, instead:
    words for a refusal of blocks too large.
    """
    label, (subject, slot) = components(design), _subjects(design)
    sizes, order = np.bincount(label), np.lexsort((slot, subject, label))
    if sizes.max() > LARGEST:
        raise ValueError(
            f"{what} the Cholesky factor of the covariance matrix of {sizes.max()} rows that are "
            f"connected by shared random effects, made for at most {LARGEST} rows; {instead}"
        )
    by_block = np.split(order, np.cumsum(sizes)[:-1])
    for size in np.unique(sizes[sizes > 0]):
        alike = np.stack([by_block[i] for i in np.flatnonzero(sizes == size)])
        most = max(1, WORKING_SET // int(size) ** 2)
        yield from (alike[a : a + most] for a in range(0, len(alike), most))


def covariance(fit: FittedModel, rows: np.ndarray) -> np.ndarray:
    """V (blocks, size, size) of the blocks with these rows (blocks, size), over sigma^2."""
    return covariance_at(fit.design, fit.theta, rows)


def covariance_at(design: Design, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """V (blocks, size, size) of the blocks with these rows (blocks, size) at theta (d,), over
    sigma^2.
    """
    V = residual_covariances(design, theta, rows)
    Lambdas, roots = relative_factors(design.factors, theta), level_roots(design.factors, theta)
    for f, Lam, L in zip(design.factors, Lambdas, roots, strict=True):
        U, a, b = (f.Z @ Lam)[rows], f.codes[rows][:, :, None], f.codes[rows][:, None, :]
        V += (U @ U.mT) * ((a == b) if L is None else (L @ L.T)[a, b])
    return V
