"""Which columns are independent, which responses can be fitted, and which numbers are constant
or out of range.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SMALLEST = 1e-140  # size of a response whose variance can still be told from 0
_CONSTANT = 1e-13
"Relative spread below which a response does not vary."

_ALIASED = 1e-7
"""R's tolerance (dqrdc2): a column is aliased when its residual on the columns before it is
below this part of its norm.
"""

ESTIMABLE = 1e-6
"What rounding, and the tolerance of aliasing, leave of `NewDesign.unknown` where it is 0."

_CLEARLY_INDEPENDENT = 1e-10
"""No residual is below the root of the least eigenvalue of the columns' correlations, which is good
to some 1e-13. (The pivots of a factorisation tell less: behind a small one, the next may be all
rounding.)
"""


def independent_columns(X: np.ndarray) -> list[int]:
    """The columns that R keeps: scanned from the left, each measured against those kept before
    it.
    """
    if X.shape[1] == 0:
        return []
    norms = np.sqrt(np.einsum("ij,ij->j", X, X))
    if norms.all():
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                correlations = X.T @ X / np.outer(norms, norms)
            if np.linalg.eigvalsh(correlations)[0] > _CLEARLY_INDEPENDENT:
                return list(range(X.shape[1]))
        except np.linalg.LinAlgError:
            pass
    basis = np.empty(X.T.shape)
    kept: list[int] = []
    for j in np.flatnonzero(norms):
        Q = basis[: len(kept)]
        residual = X[:, j] / norms[j]
        for _ in range(2):  # the second pass removes the rounding of the first
            residual = residual - Q.T @ (Q @ residual)
        size = np.linalg.norm(residual)
        if size >= _ALIASED:
            basis[len(kept)] = residual / size
            kept.append(int(j))
    return kept


def _dependence(X: np.ndarray, kept: Sequence[int]) -> np.ndarray:
    """The other columns as sums of those kept."""
    Q, R = np.linalg.qr(X[:, kept])
    return np.linalg.solve(R, Q.T @ np.delete(X, kept, axis=1))


def is_constant(y: np.ndarray) -> bool:
    """Whether a response (n,) does not vary."""
    return bool(is_flat(y.min(), y.max()))


def is_flat(low, high):
    """Whether values between two limits are one value, to rounding."""
    return high - low <= _CONSTANT * np.maximum(abs(low), abs(high))


def is_out_of_range(size):
    """Whether the variance of responses of a size cannot be told from 0 or infinity."""
    return np.logical_not((size > SMALLEST) & (size < 1.0 / SMALLEST))


def largest(y: np.ndarray) -> float:
    """The largest absolute value, without an array of absolute values."""
    return max(y.max(), -y.min())


def why_unusable(y: np.ndarray) -> str | None:
    """Why there is no model of a response (n,), whatever the design."""
    if is_constant(y):
        return "the response is constant"
    size = largest(y)
    if is_out_of_range(size):
        return f"the response is of size {size:.0e}, and its variance out of floating-point range"
    return None
