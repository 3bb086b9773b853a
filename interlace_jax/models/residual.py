"""The residual covariance of a fit as users read it: names and values of its numbers, matrices
by visit, SDs by row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy

from ..design.design import Design
from ..design.residual_groups import ResidualGroups
from ..numerics.covariance.correlations import FreeCorrelations
from ..numerics.covariance.residual import Patterns, reported
from ..numerics.covariance.structures import Correlated
from ..numerics.crossproducts.row_layout import RowLayout
from ..runtime.calls import run
from ..runtime.compilation import brief, jit
from ..support.later import jnp


def psi_of(design: Design, theta: np.ndarray) -> np.ndarray:
    """The free numbers (..., r) of the residual covariance, which follow those of the random
    effects in theta.
    """
    return theta[..., theta.shape[-1] - design.residual.covariance.size :]


def residual_names(given: ResidualGroups) -> list[str]:
    """Names of the numbers that are reported: `sd VIS2`, `rho | visit within id`, `range`, `log sd
    age`; with several groups each with the group, ` | PBO`.
    """
    names = []
    for group in given.groups or ("",):
        own = _sd_names(given) + _shape_names(given)
        names += [f"{name} | {group}" if given.groups else name for name in own]
    return names + list(given.slopes)


def free_names(given: ResidualGroups) -> list[str]:
    """Names of the free numbers psi in theta."""
    covariance = given.covariance
    own = [f"sd {visit}" for visit in given.visits] if covariance.visits > 1 else ["sd"]
    names = []
    for group in given.groups or ("",):
        tail = f" | {group}" if given.groups else ""
        names += [f"residual.free({name}{tail})" for name in own + _shape_names(given)]
    return names[1:] + [f"residual.free({name})" for name in given.slopes]  # the first SD is sigma


def _sd_names(given: ResidualGroups) -> list[str]:
    if given.covariance.visits > 1:
        return [f"sd {visit}" for visit in given.visits]
    return ["sd"] if given.groups else []


def _shape_names(given: ResidualGroups) -> list[str]:
    covariance, visits = given.covariance, given.visits
    within, k = covariance.within, covariance.positions
    if within is None:
        return []
    if not isinstance(within, Correlated):
        return list(within.names(k))
    names = within.shape_names(k)
    if within.over == "distances":
        return list(names)
    if isinstance(within, FreeCorrelations):
        names = [f"rho {visits[j]},{visits[i]}" for i in range(k) for j in range(i)]
    elif within.over == "order":
        names = [f"rho {a},{b}" for a, b in zip(visits, visits[1:], strict=False)]
    else:
        names = [name.replace("rho", "rho ").strip() for name in names]
    return [f"{name} | {given.residual.time[0]} within {given.residual.subject}" for name in names]


def residual_scales(given: ResidualGroups) -> list[str]:
    """By number the scale on which it is free: "log", "fisher", "logit" or "identity"."""
    covariance, found = given.covariance, []
    within = covariance.within
    for _ in given.groups or ("",):
        found += ["log"] * len(_sd_names(given))
        if within is None:
            continue
        if not isinstance(within, Correlated):
            found += ["identity"] * covariance.shape
        elif within.over == "distances":
            found += ["log", "logit"][: covariance.shape]
        else:
            found += ["fisher"] * covariance.shape
    return found + ["identity"] * covariance.slopes


def residual_values(design: Design, theta: np.ndarray, sigma: float) -> np.ndarray:
    """The numbers (r,) in the order of `residual_names`."""
    given = design.residual
    return run(_reported, psi_of(design, theta), sigma, given.unit, given.covariance)[0]


def matrices_by_pattern(design: Design, theta: np.ndarray) -> np.ndarray:
    """R (P, m, m) of every pattern of a subject's rows, relative to sigma^2, weights aside."""
    return matrices_of(design.residual.rows, design.residual, psi_of(design, theta))


def relative_sds(design: Design, theta: np.ndarray) -> np.ndarray:
    """SDs (n,) of the residuals of the rows used, relative to sigma."""
    n = len(design.X)
    own = np.ones(n)
    if design.residual is not None:
        rows = design.residual.rows
        by_pattern = np.sqrt(np.einsum("paa->pa", matrices_by_pattern(design, theta)))
        own = by_pattern[rows.pattern[rows.subject], rows.slot]
    return own if design.weights is None else own / np.sqrt(design.weights)


def residual_covariances(design: Design, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Covariances (blocks, size, size) of the residuals of blocks of rows (blocks, size), over
    sigma^2.
    """
    n = rows.shape[1]
    if design.residual is None:
        V = np.zeros((*rows.shape, n))
        V[:, range(n), range(n)] = 1.0
    else:
        V = of_rows(design.residual.rows, matrices_by_pattern(design, theta), rows)
    if design.weights is None:
        return V
    sd = 1.0 / np.sqrt(design.weights[rows])
    return V * sd[:, :, None] * sd[:, None]


def of_rows(layout: RowLayout, R: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """R (blocks, size, size) of blocks of rows (blocks, size), from that of every pattern (P, m,
    m).
    """
    subject, slot = layout.subject[rows], layout.slot[rows]
    pattern = layout.pattern[subject]
    return R[pattern[:, :, None], slot[:, :, None], slot[:, None]] * (
        subject[:, :, None] == subject[:, None]
    )


def matrices_of(layout: RowLayout, given: ResidualGroups, psi: np.ndarray) -> np.ndarray:
    """R (P, m, m) of the patterns of other rows than those of the fit."""
    return np.moveaxis(run(_matrices, layout.patterns, psi, given.covariance), -1, 0)


def whitener(design: Design, theta: np.ndarray) -> scipy.sparse.csr_array:
    """L^-1 W^1/2 (n, n), with R = L L' and W the weights: rows times it have independent residuals
    of variance sigma^2.
    """
    root = np.sqrt(design.w)
    if design.residual is None:
        return scipy.sparse.diags_array(root, format="csr")
    inverse = np.linalg.inv(np.linalg.cholesky(matrices_by_pattern(design, theta)))
    return row_blocks(design.residual.rows, inverse) @ scipy.sparse.diags_array(root)


def row_blocks(layout: RowLayout, matrices: np.ndarray) -> scipy.sparse.csr_array:
    """A matrix (n, n) with a block for every subject: that of its pattern among matrices (P, m,
    m).
    """
    place = layout.place.T  # (N, m)
    seen = place >= 0
    subject, a, b = np.nonzero(seen[:, :, None] & seen[:, None])
    values = matrices[layout.pattern[subject], a, b]
    found = scipy.sparse.csr_array((values, (place[subject, a], place[subject, b])))
    found.eliminate_zeros()
    return found


def draws(
    design: Design, theta: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    """Residuals (n, *shape) relative to sigma, drawn anew."""
    u = rng.standard_normal((len(design.X), *shape))
    if design.residual is not None:
        rows = design.residual.rows
        roots = np.linalg.cholesky(matrices_by_pattern(design, theta))
        u = _mixed(roots, rows, u)
    return (
        u if design.weights is None else u / np.sqrt(design.weights).reshape(-1, *(1,) * len(shape))
    )


def _mixed(roots: np.ndarray, rows, u: np.ndarray) -> np.ndarray:
    """L u of every subject, L (P, m, m) by pattern, u (n, ...) by row."""
    seen = rows.place.T >= 0  # (N, m)
    spread = np.where(seen.reshape(*seen.shape, *(1,) * (u.ndim - 1)), u[rows.place.T], 0.0)
    return np.einsum("iab,ib...->ia...", roots[rows.pattern], spread)[rows.subject, rows.slot]


def residual_matrices(design: Design, theta: np.ndarray, sigma: float | None) -> Any:
    """Covariance matrices by visit of the residuals of a subject, or with sigma None their
    correlations.

    A frame, a dict of frames by group, or, over coordinates, functions of distances in place of
    frames.
    """
    given = design.residual
    if given is None or given.residual is None:
        found = given or "independent residuals of one variance"
        raise ValueError(
            f"the covariance of residuals by visit needs residual=, and this model has {found}; "
            "see residual_sd for SDs by row"
        )
    if not given.visits:
        found = _by_distance(design, theta, sigma)
    else:
        found = {group: _scaled(R, sigma) for group, R in by_visit(design, theta).items()}
    return found if given.groups else found[None]


def _scaled(R: pd.DataFrame, sigma: float | None) -> pd.DataFrame:
    sd = np.sqrt(np.diag(R))
    return R / np.outer(sd, sd) if sigma is None else sigma**2 * R


def _by_distance(design: Design, theta: np.ndarray, sigma: float | None) -> dict:
    """By group a function of distances."""
    given = design.residual
    values = psi_of(design, theta)

    def of_group(g):
        def function(distances):
            """Covariance or correlation of two residuals of a subject so far apart; 0: of a row
            with itself.
            """
            apart = np.asarray(distances, float) / given.unit
            log_sd, correlation = run(_at_distances, values, apart, given.covariance)
            size = 1.0 if sigma is None else sigma**2 * np.exp(2.0 * log_sd[g, 0])
            return size * correlation[g]

        return function

    return {group: of_group(g) for g, group in enumerate(given.groups or (None,))}


def by_visit(design: Design, theta: np.ndarray) -> dict:
    """R (visits, visits), relative to sigma^2, by group; None stands for all subjects.

    Covariates of log SD are 0.
    """
    given = design.residual
    covariance, m = given.covariance, len(given.visits)
    groups = given.groups or (None,)
    P = len(groups)
    position = np.repeat(given.positions[:, None], P, 1)
    visit = np.arange(m) if covariance.visits > 1 else np.zeros(m, int)
    patterns = Patterns(
        seen=np.ones((m, P), bool),
        group=np.arange(P, dtype=np.int32),
        position=position.astype(np.int32),
        visit=np.repeat(visit[:, None], P, 1).astype(np.int32),
        distance=None,
        slopes=np.zeros((covariance.slopes, m, P)),
        count=np.ones(P),
    )
    R = run(_matrices, patterns, psi_of(design, theta), covariance)
    return {
        group: pd.DataFrame(R[..., g], given.visits, given.visits) for g, group in enumerate(groups)
    }


@brief
@jit
def _matrices(patterns, psi, structure):
    return structure.matrices(psi, patterns)


@brief
@jit
def _reported(psi, sigma, unit, structure):
    return reported(structure, psi, sigma, unit)


@brief
@jit
def _at_distances(psi, apart, structure):
    log_sd, x, _ = structure.split(psi)
    between = [
        jnp.where(apart == 0.0, 1.0, structure.within.between(values, apart)) for values in x
    ]
    return log_sd, jnp.stack(between)
