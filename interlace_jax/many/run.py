"""All chunks of a batch run, and joined to one table."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from ..design.design import Design
from ..models.identifiability import NO_RESIDUAL, RISE, _with_less_effect, is_perfect
from ..numerics.estimation.bfgs import CONVERGED, STATUS
from ..numerics.estimation.boundary import NEAR_ZERO
from ..numerics.estimation.estimate import Estimate
from ..runtime.devices import gathered, is_first, share, spread
from ..support.later import jax
from ..support.progress import progress_bar
from .checkpoint import Store
from .chunks import Chunk, Failure, theta_names_of
from .designs import Designs
from .lanes import Lanes, deviances, fit_lanes
from .responses import Responses


def run_all(
    work: Responses | Designs,
    method: str,
    tables_of: Callable[..., tuple[list[pd.DataFrame], list[Failure]]],
    checkpoint: Any = None,
    progress: bool | None = None,
) -> tuple[Responses | Designs, pd.DataFrame]:
    """Fit all chunks: the work as it was divided, and a table with one row a model, in order.

    tables_of: what fits the i-th part of the work, `tables_of(work, method, i)`. All local devices
    take part, and those of the other processes of a job (`jax.distributed`): each process takes its
    share of the chunks and gets the whole table. The first process decides how the work is divided.
    """
    identity = _identity(work, method) if checkpoint is not None else {}
    store = Store(Path(checkpoint), identity) if checkpoint is not None and is_first() else None
    chunking = work.chunking if store is None else store.chunking(work.chunking)
    work = work.rechunked(gathered([chunking])[0])
    work.is_kept = checkpoint is not None
    if checkpoint is not None and store is None:
        store = Store(Path(checkpoint), identity)
    one = functools.partial(_chunk_table, functools.partial(tables_of, work, method), store)
    mine = share(len(work))
    show = (len(mine) > 1 if progress is None else progress) and is_first()
    total = len(work.labels) // jax.process_count()
    bar = progress_bar(total, "model", "fitting", show)
    tables = []
    for table in spread(one, mine):
        tables.append(table)
        bar.update(len(table))
    bar.close()
    table = _joined(gathered(tables))
    if not table["nobs"].any():
        raise ValueError(
            f"none of the {len(table)} models can be fitted; the first: {table['status'].iloc[0]}"
        )
    return work, table


def _identity(work: Responses | Designs, method: str) -> dict[str, Any]:
    """What the numbers of a run depend on, by the name that a message gives it."""
    return dict(
        formula=str(work.formula),
        method=method,
        dtype=str(work.dtype),
        na_action=work.arguments["na_action"],
        models=len(work.labels),
        data=work.fingerprint(),
    )


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Rows of tables whose index is the place, in order.

    Statuses are categories: as strings, those of a million models would take more memory than all
    numbers.
    """
    status = union_categoricals([table["status"] for table in tables], sort_categories=True)
    table = pd.concat([table.drop(columns="status") for table in tables])
    table.insert(0, "status", status.remove_unused_categories())
    return table.sort_index()


def linear_tables(
    work: Responses | Designs, method: str, i: int
) -> tuple[list[pd.DataFrame], list[Failure]]:
    """Tables of the linear models of a part of the work, and those that could not be fitted."""
    chunks, failures = work.chunk(i)
    tables = []
    for chunk in chunks:
        table = _table(chunk, method == "REML", work)
        scale = np.asarray(chunk.lanes.each.scale)[: len(table)]
        perfect = is_perfect(chunk.size, scale, table["sigma"].to_numpy())
        failures = failures + [Failure(place, NO_RESIDUAL) for place in chunk.places[perfect]]
        tables += [] if perfect.all() else [table[~perfect]]
    return tables, failures


def _chunk_table(tables_of, store, i) -> pd.DataFrame:
    """Results of one chunk, a row per model, indexed by place."""
    found = None if store is None else store.read(i)
    if found is not None:
        return found
    tables, failures = tables_of(i)
    if failures:
        nothing = dict(
            status=pd.Categorical([f.reason for f in failures]),
            converged=False,
            singular=False,
            nobs=0,
        )
        tables.append(pd.DataFrame(nothing, index=[f.place for f in failures]))
    table = _joined(tables)
    if store is not None:
        store.write(i, table)
    return table


def _table(chunk: Chunk, reml: bool, work: Responses | Designs) -> pd.DataFrame:
    """Estimates of the models of a chunk, a row each in their order, every number under the name
    that it has there.
    """
    start = (
        None
        if work.start is None
        else np.broadcast_to(work.start, (chunk.lanes.count, len(work.start)))
    )
    e = fit_lanes(chunk.lanes, reml, start, work.chunking.rounds, work.dtype)
    plain = _unnamed(chunk, e, reml, work)
    tables = [
        plain.iloc[lanes].join(_named(e, lanes, design, plain.index))
        for lanes, design in chunk.alike()
    ]
    return tables[0] if len(tables) == 1 else pd.concat(tables).loc[chunk.places]


def _unnamed(chunk: Chunk, e: Estimate, reml: bool, work: Responses | Designs) -> pd.DataFrame:
    """What all models have: how the search ended, and numbers by position."""
    singular = are_singular(chunk.lanes, e, reml)
    singular[: len(chunk.places)] |= work.are_confounded(chunk)
    columns = {
        "status": pd.Categorical.from_codes(np.where(e.converged, CONVERGED, e.status), STATUS),
        "converged": e.converged,
        "singular": singular,
        "nobs": np.broadcast_to(np.asarray(chunk.lanes.design.n, int), e.status.shape),
        "deviance": e.deviance,
        "sigma": e.sigma,
        "steps": e.steps,
        "predicted_decrease": e.predicted_decrease,
        "gradient": np.max(e.gradient, 1),
    }
    columns |= {f"t:{j}": e.t[:, j] for j in range(e.t.shape[1])}
    r = len(chunk.places)
    return pd.DataFrame({name: values[:r] for name, values in columns.items()}, index=chunk.places)


def _named(e: Estimate, lanes: np.ndarray, design: Design, places: pd.Index) -> pd.DataFrame:
    """Coefficients, their standard errors and theta of lanes whose parameters have the names of
    a design.
    """
    columns = {f"beta:{name}": e.beta[lanes, j] for j, name in enumerate(design.columns)}
    columns |= {
        f"bse:{name}": np.sqrt(e.vcov[lanes, j, j]) for j, name in enumerate(design.columns)
    }
    columns |= {f"theta:{name}": e.theta[lanes, j] for j, name in enumerate(theta_names_of(design))}
    return pd.DataFrame(columns, index=places[lanes])


def are_singular(lanes: Lanes, e: Estimate, reml: bool) -> np.ndarray:
    """Whether a column of Lambda vanishes in each of many models, or its residual: (r,); see
    also `is_confounded`.
    """
    if not e.vanishing:  # no random effects
        return np.zeros(e.status.shape, bool)
    return np.concatenate(e.vanishing, 1).any(1) | _are_doubtful(lanes, e, reml)


def _are_doubtful(lanes: Lanes, e: Estimate, reml: bool) -> np.ndarray:
    """Whether the residual SD of each of many models is estimated as 0, as `residual_doubt` says
    it in words: (r,).
    """
    doubtful = e.sigma < NEAR_ZERO * np.asarray(lanes.each.scale)
    some = np.flatnonzero(doubtful)
    if len(some):
        less = _with_less_effect(e.t[some], lanes.design.layout.blocks)
        doubtful[some] = deviances(lanes, some, reml, less) - e.deviance[some] < RISE
    return doubtful
