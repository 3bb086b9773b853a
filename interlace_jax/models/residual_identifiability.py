"""Whether a residual covariance can be told from the random effects, and its own numbers from each
other.

They can if the derivatives of V by all variance parameters are linearly independent at a generic
point. V is formed for some of the rows: a subject of every pattern of visits, and its neighbours in
the levels that subjects share.
"""

from __future__ import annotations

import numpy as np

from ..design.design import Design
from ..design.grouping import Factor
from ..numerics.covariance.correlations import FreeCorrelations
from ..numerics.covariance.parameters import shape_start
from ..numerics.covariance.structures import CompoundSymmetry
from ..support.arguments import listed
from .parameters import level_roots, relative_factors, theta_names
from .residual import free_names, residual_covariances

MOST_ROWS = 160  # in which V is formed
MOST_PATTERNS = 24
# least singular value of the scaled derivatives; where they depend it is rounding of differences
INDEPENDENT = 1e-6
STEP = 1e-4
INVOLVED = 0.03  # part of a null vector that makes a parameter part of it


def check_residual_covariance(design: Design) -> None:
    """Refuse a residual covariance that the data cannot tell from the random effects, naming the
    parameters.
    """
    given = design.residual
    if given is None or (not design.factors and not given.slopes and _is_free(design)):
        return
    names = _confounded(design)
    if not names:
        return
    raise ValueError(_words(design) or _listing(design, names))


def _is_free(design: Design) -> bool:
    """Whether the visits seen determine every number on their own."""
    return isinstance(design.residual.covariance.within, FreeCorrelations | CompoundSymmetry | None)


def _words(design: Design) -> str:
    """What is the matter in the commonest cases."""
    given = design.residual
    subject = given.residual.subject if given.residual else None
    factor = next((f for f in design.factors if f.variables == (subject,)), None)
    if factor and isinstance(given.covariance.within, CompoundSymmetry):
        return f"cs within {subject!r} is what (1 | {subject}) is: leave one of them out"
    if factor and isinstance(given.covariance.within, FreeCorrelations):
        return (
            f"us within {subject!r} contains every random effect of {subject!r} already: leave "
            "one of them out"
        )
    return ""


def _listing(design: Design, names: list[str]) -> str:
    return (
        f"{design.residual}: the data cannot tell {listed(names)} apart, so that they have no "
        "estimates of their own; leave one of them out, or use a structure with fewer parameters"
    )


def _confounded(design: Design) -> list[str]:
    """Names of parameters whose derivatives of V depend on each other; none if all are
    independent.
    """
    rows = _sample(design)
    found = []
    for seed in (0, 1):
        theta = _generic(design, np.random.default_rng(seed))
        J = _derivatives(design, theta, rows)
        size = np.linalg.norm(J, axis=0)
        triangle = np.linalg.qr(J / np.where(size > 0, size, 1.0), mode="r")  # J has many rows
        _, values, vectors = np.linalg.svd(triangle)
        if len(values) == J.shape[1] and values[-1] > INDEPENDENT:
            return []
        found.append(np.abs(vectors[-1]))
    names = _names(design)
    return [name for name, part in zip(names, np.max(found, 0), strict=True) if part > INVOLVED]


def _names(design: Design) -> list[str]:
    psi = [name.removeprefix("residual.free(")[:-1] for name in free_names(design.residual)]
    return [*(name for f in design.factors for name in theta_names(f)), *psi, "sigma"]


def _derivatives(design: Design, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """DV / d(theta, log sigma^2) of some rows, one column a parameter."""
    first = len(theta) - design.residual.covariance.size
    steps = STEP * np.eye(len(theta))

    def residuals(theta):
        return residual_covariances(design, theta, rows[None])[0].ravel()

    def effects(theta):
        return _effects(design, theta, rows).ravel()

    def slope(part, step):
        return (part(theta + step) - part(theta - step)) / (2.0 * STEP)

    of_effects = [slope(effects, step) for step in steps[:first]]
    of_residuals = [slope(residuals, step) for step in steps[first:]]
    return np.column_stack([*of_effects, *of_residuals, residuals(theta) + effects(theta)])


def _effects(design: Design, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Covariance (r, r) of the random effects in some rows, columns of Z scaled to size 1."""
    total = np.zeros((len(rows), len(rows)))
    Lambdas, roots = relative_factors(design.factors, theta), level_roots(design.factors, theta)
    for f, Lam, L in zip(design.factors, Lambdas, roots, strict=True):
        code, U = f.codes[rows], f.Z[rows] @ Lam / np.sqrt(np.mean(f.Z[rows] ** 2))
        across = code[:, None] == code[None] if L is None else (L @ L.T)[code[:, None], code[None]]
        total = total + (U @ U.T) * across
    return total


def _generic(design: Design, rng: np.random.Generator) -> np.ndarray:
    """Theta where nothing is special."""
    parts = [_of_factor(f, rng) for f in design.factors]
    return np.concatenate([*parts, rng.uniform(0.2, 0.6, design.residual.covariance.size)])


def _of_factor(f: Factor, rng: np.random.Generator) -> np.ndarray:
    block = f.block
    within, across = map(np.asarray, shape_start(block))
    if block.is_pattern:
        own = np.array([1.0 if i == j else 0.4 for i, j in block.parameters]) + rng.uniform(
            0.0, 0.3, block.own
        )
    else:
        own = np.append(1.0, within + rng.uniform(0.2, 0.6, len(within)))
    return np.append(own, across + rng.uniform(0.0, 0.3, len(across)))


def _sample(design: Design) -> np.ndarray:
    """Rows of a subject of every pattern, and of the others that share a level with it."""
    layout = design.residual.rows
    first = np.unique(layout.pattern, return_index=True)[1]
    wide = np.argsort(-layout.patterns.seen.sum(0)[layout.pattern[first]], kind="stable")
    chosen = list(first[wide][:MOST_PATTERNS])
    for f in design.factors:
        level = np.zeros(len(layout.pattern), int)
        level[layout.subject] = f.codes
        for who in chosen[:4]:
            chosen += [int(other) for other in np.flatnonzero(level == level[who])[:3]]
    subjects = list(dict.fromkeys(chosen))
    places = layout.place[:, subjects].T
    return np.concatenate([place[place >= 0] for place in places])[:MOST_ROWS]
