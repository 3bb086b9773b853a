"""Random effects of many models, and what follows from them: tables, predictions, shares of
variance.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from ..design.design import Design
from ..design.frames import as_frame, get_column
from ..design.grouping import Factor
from ..design.new_data import new_data
from ..inference.prediction import included_factors
from ..many.chunks import Chunk, filled, theta_names_of
from ..many.designs import Designs
from ..many.fits import ManyFits, with_labels
from ..many.lanes import over_lanes
from ..models.linear_predictor import Rows, expected
from ..models.parameters import relative_factors
from ..numerics.likelihood.random_effects import modes

_modes = over_lanes(lambda m, reml, t: modes(t, m))


def over_modes(many: ManyFits, function: Callable[[Chunk, list[np.ndarray]], Any]) -> list[Any]:
    """What a function makes of each chunk of models and the conditional modes (models, m, k) of
    their factors.
    """
    t = many.optima
    return many.over_chunks(lambda chunk: function(chunk, _modes_of(chunk, t)))


def _modes_of(chunk: Chunk, t: np.ndarray) -> list[np.ndarray]:
    every = filled(chunk.places, chunk.lanes.count)
    found = _modes(chunk.lanes, True, t[every, : len(theta_names_of(chunk.designs[0]))])
    return [np.asarray(b)[: len(chunk.places)] for b in found]


def _design_of(chunk: Chunk, lane: int) -> Design:
    return chunk.designs[lane if len(chunk.designs) > 1 else 0]


def _used(chunk: Chunk, lane: int) -> np.ndarray:
    """Which rows (n,) of its design a model has."""
    return np.ones(len(_design_of(chunk, lane).X), bool) if chunk.used is None else chunk.used[lane]


def random_effects(many: ManyFits) -> dict[str, pd.DataFrame]:
    """Conditional modes (BLUPs) of every model, by grouping factor: `model level term value`, a row
    for each.

    The levels are those that have rows in the model. They are computed on call, chunk by chunk, and
    not kept.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> responses = interlace_jax.fit(formula, sleep).simulate(4, seed=1).add_prefix("y")
    >>> many = interlace_jax.fit_many("~ Days + (1 + Days | Subject)", sleep, responses=responses)
    >>> many.random_effects()["Subject"].head(3).round(1)
      model level         term  value
    0    y0  S308  (Intercept)   11.0
    1    y0  S308         Days    4.2
    2    y0  S309  (Intercept)   15.5
    """
    found: dict[str, list[pd.DataFrame]] = {}

    def of_chunk(chunk: Chunk, all_modes: list[np.ndarray]) -> list[tuple[str, pd.DataFrame]]:
        tables = []
        for lane, place in enumerate(chunk.places):
            used = _used(chunk, lane)
            for f, b in zip(_design_of(chunk, lane).factors, all_modes, strict=True):
                tables.append((f.name, _table_of_modes(many, place, f, b[lane], used)))
        return tables

    for name, table in itertools.chain(*over_modes(many, of_chunk)):
        found.setdefault(name, []).append(table)
    return {name: pd.concat(tables, ignore_index=True) for name, tables in found.items()}


def _table_of_modes(
    many: ManyFits, place: int, f: Factor, b: np.ndarray, used: np.ndarray
) -> pd.DataFrame:
    present = np.unique(f.codes[used])
    level = f.levels[present].repeat(len(f.columns))
    term = np.tile(np.array(f.columns, object), len(present))
    table = pd.DataFrame({"level": level, "term": term, "value": b[present].ravel()})
    return with_labels(table, many.labels[[place]].repeat(len(table)))


def predict(
    many: ManyFits, newdata: Any = None, include_re: bool | Iterable[str] = True, offset: Any = None
) -> pd.DataFrame | pd.Series:
    """Expected responses of every model for the rows of a frame, by default those of the design:
    rows x models.

    newdata: a frame with the columns of the formula; a row with missing values gives NaN. With
    `by=` it needs that column too: every row is predicted by the model of its group, and the result
    is a Series.
    include_re: add the random effects of the levels known; False gives population values; names of
    factors add those of these factors only. Levels that a model has not seen have random effect 0.
    offset: needed again when the fit's was an array.

    Transforms and categories are those of all rows of the design. Raises ValueError where columns
    are missing.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> responses = interlace_jax.fit(formula, sleep).simulate(4, seed=1).add_prefix("y")
    >>> many = interlace_jax.fit_many("~ Days + (1 + Days | Subject)", sleep, responses=responses)
    >>> many.predict().head(2).round(1)
          y0     y1     y2     y3
    0  259.2  237.0  268.0  251.7
    1  274.3  243.2  280.7  266.3
    """
    if isinstance(many.work, Designs):
        return _predicted_by_group(many, newdata, include_re)
    design = many.work.design
    rows = _rows(design, newdata, included_factors(design, include_re), offset)
    found = np.full((len(rows.X), len(many)), np.nan)
    beta = many.fe_params.to_numpy()

    def of_chunk(chunk: Chunk, all_modes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        by_level = [np.moveaxis(b, 0, -1) for b in all_modes]
        return chunk.places, _expected(rows, beta[chunk.places].T, by_level)

    for places, values in over_modes(many, of_chunk):
        found[:, places] = values
    return pd.DataFrame(found, rows.index, many.labels)


def _expected(rows: Rows, beta: np.ndarray, by_level: list[np.ndarray]) -> np.ndarray:
    """X beta + Z b + offset (n, models)."""
    total = expected(Rows(rows.X, rows.Z, rows.codes), beta, by_level)
    return total if rows.offset is None else total + rows.offset[:, None]


def _rows(design: Design, data: Any, included: tuple[str, ...], offset: Any) -> Rows:
    """Rows of the design or of new data, with Z = 0 for factors left out."""
    keep = [f.name in included for f in design.factors]
    if data is None:
        Z, codes = [f.Z for f in design.factors], [f.codes for f in design.factors]
        rows = Rows(design.X, Z, codes, design.offset, design.index)
    else:
        new = new_data(design, data, offset)
        rows = Rows(new.X, new.Z, new.codes, new.offset, new.index)
    Z = [z if kept else np.zeros_like(z) for z, kept in zip(rows.Z, keep, strict=True)]
    return Rows(rows.X, Z, rows.codes, rows.offset, rows.index)


def _predicted_by_group(
    many: ManyFits, newdata: Any, include_re: bool | Iterable[str]
) -> pd.Series:
    """Every row by the model of its group."""
    data = many.work.data if newdata is None else newdata
    groups = get_column(as_frame(data), many.labels.name, "groups of by=")
    index = data.index if isinstance(data, pd.DataFrame) else pd.RangeIndex(len(groups))
    found = np.full(len(groups), np.nan)
    beta = many.fe_params

    def of_chunk(chunk: Chunk, all_modes: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        made = []
        for lane, place in enumerate(chunk.places):
            design = _design_of(chunk, lane)
            at = np.flatnonzero((groups == many.labels[place]).to_numpy())
            if len(at):
                rows = _rows(design, _taken(data, at), included_factors(design, include_re), None)
                own = beta.iloc[place][list(design.columns)].to_numpy()
                made.append((at, expected(rows, own, [b[lane] for b in all_modes])))
        return made

    for at, values in itertools.chain(*over_modes(many, of_chunk)):
        found[at] = values
    return pd.Series(found, index)


def _taken(data: Any, rows: np.ndarray) -> Any:
    return data.iloc[rows] if isinstance(data, pd.DataFrame) else data[rows.tolist()]


def variance_fractions(many: ManyFits) -> pd.DataFrame:
    """Shares of the variance of the response in every model: `fixed`, each grouping factor,
    `residual`; they sum to 1.

    `fixed` is the sample variance of X beta; that of a factor the mean over the rows of z'Sigma z,
    so that slopes count (Johnson 2014, Methods Ecol. Evol. 5); `fixed` is the marginal R squared of
    Nakagawa & Schielzeth.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> responses = interlace_jax.fit(formula, sleep).simulate(4, seed=1).add_prefix("y")
    >>> many = interlace_jax.fit_many("~ Days + (1 + Days | Subject)", sleep, responses=responses)
    >>> many.variance_fractions().round(2)
        fixed  Subject  residual
    y0   0.28     0.55      0.17
    y1   0.26     0.48      0.26
    y2   0.32     0.43      0.25
    y3   0.33     0.38      0.29
    """

    def of_chunk(chunk: Chunk) -> list[pd.DataFrame]:
        return [_variances_of(many, chunk, lanes, design) for lanes, design in chunk.alike()]

    whole = pd.concat(list(itertools.chain(*many.over_chunks(of_chunk))))
    whole = whole[[name for name in whole if name != "residual"] + ["residual"]]
    shares = whole.div(whole.sum(axis=1), axis=0)
    return shares.reindex(range(len(many))).set_axis(many.labels)


def _variances_of(many: ManyFits, chunk: Chunk, lanes: np.ndarray, design: Design) -> pd.DataFrame:
    """Variances of the components of models that have the names of a design, by place."""
    places = chunk.places[lanes]
    sigma2 = many.sigma.to_numpy()[places] ** 2
    theta = many.theta[theta_names_of(design)].to_numpy()[places]
    beta = many.fe_params[list(design.columns)].to_numpy()[places]
    fixed, ZZ = [], []
    for lane, b in zip(lanes, beta, strict=True):
        own, used = _design_of(chunk, lane), _used(chunk, lane)
        fixed.append(np.var(own.X[used] @ b, ddof=1))
        ZZ.append([f.Z[used].T @ f.Z[used] / used.sum() for f in own.factors])
    columns = {"fixed": np.array(fixed)}
    for f, Lam, zz in zip(
        design.factors, relative_factors(design.factors, theta), zip(*ZZ, strict=True), strict=True
    ):
        columns[f.name] = sigma2 * np.einsum("rij,rij->r", Lam @ Lam.mT, np.array(zz))
    return pd.DataFrame(columns | {"residual": sigma2}, places)
