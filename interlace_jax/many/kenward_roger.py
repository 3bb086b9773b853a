"""Kenward and Roger's adjusted covariances of many fits, model by model, for small samples."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from ..inference.coefficients import KenwardRogerCoefficients
from ..models.fitted import check_kenward_roger
from ..numerics.uncertainty.kenward_roger import Adjusted, kenward_roger
from ..runtime.calls import run_inside
from .chunks import Chunk, filled, theta_names_of
from .curvature import CACHED
from .fits import ManyFits
from .lanes import over_lanes


class _At(NamedTuple):
    """Coefficients of one model, by their names, and its place among all."""

    place: int
    columns: tuple[str, ...]
    adjusted: Adjusted


def kenward_roger_coefficients(many: ManyFits) -> list[KenwardRogerCoefficients | None]:
    """Every model's coefficients with Kenward and Roger's covariance and degrees of freedom, as a
    single fit has them; None without a fit.

    Computed anew at each call, and kept in none: f (f + 1) / 2 second derivatives a model with f
    variance parameters. Raises ValueError where the rule is not defined, or not computed for many.
    """
    _require(many)
    t, log_sigma = many.optima, np.log(many.sigma.to_numpy())
    beta = {name: column.to_numpy() for name, column in many.fe_params.items()}
    found: list[KenwardRogerCoefficients | None] = [None] * len(many)
    for part in many.over_chunks(lambda chunk: _adjusted(chunk, t, log_sigma)):
        for place, columns, adjusted in part:
            if np.isfinite(adjusted.adjusted).all():
                own = np.array([beta[name][place] for name in columns])
                found[place] = KenwardRogerCoefficients(columns, own, adjusted.adjusted, adjusted)
    return found


def _require(many: ManyFits) -> None:
    for _, design in many.work.named:
        check_kenward_roger(design, many.method, "ddf='satterthwaite'")
        if design.residual is not None:
            raise ValueError(
                "Kenward-Roger is not computed for many models whose residuals covary: test them "
                "one by one, many[label].test(..., ddf='kenward-roger'), or use "
                "ddf='satterthwaite'"
            )


def _adjusted(chunk: Chunk, t: np.ndarray, log_sigma: np.ndarray) -> list[_At]:
    """What tests of the models of a chunk need, at the estimates t (models, d) and log sigma
    (models,) of all models.
    """
    every = filled(chunk.places, chunk.lanes.count)
    at = t[every, : len(theta_names_of(chunk.designs[0]))], log_sigma[every]
    whole = [np.asarray(a) for a in run_inside(_kenward_roger, chunk.lanes, True, *at)]
    return [
        _At(int(chunk.places[lane]), tuple(design.columns), Adjusted(*(a[lane] for a in whole)))
        for lanes, design in chunk.alike()
        for lane in lanes
    ]


@functools.partial(over_lanes, size=CACHED)
def _kenward_roger(m, reml, t, log_sigma):
    return kenward_roger(t, log_sigma, m)
