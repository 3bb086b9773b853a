"""All chunks of a batch run, and joined to one table."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from ..design.design import Design
from ..models.identifiability import NO_RESIDUAL, RISE, _with_less_effect, is_perfect
from ..models.parameters import theta_names
from ..numerics.estimation.bfgs import CONVERGED, STATUS
from ..numerics.estimation.boundary import NEAR_ZERO
from ..numerics.estimation.estimate import Estimate
from ..runtime.devices import gathered, is_first, share, spread
from ..support.later import jax
from ..support.progress import progress_bar
from .checkpoint import Store
from .chunks import Chunk, Failure
from .designs import Designs
from .lanes import Lanes, deviances, fit_lanes
from .responses import Responses


def run_all(
    work: Responses | Designs, method: str, checkpoint: Any = None, progress: bool | None = None
) -> pd.DataFrame:
    """Fit all chunks, one row a model, in order: on all local devices, and on those of the other processes of a job.

    In a job of several processes (`jax.distributed`), each takes its share of the chunks and gets the whole table.
    """
    store = None if checkpoint is None or not is_first() else Store(Path(checkpoint), work, method)
    work.size, work.rounds = gathered([(work.size, work.rounds)])[0]  # the first process decides on chunks
    if checkpoint is not None and store is None:
        store = Store(Path(checkpoint), work, method)
    one = functools.partial(_chunk_table, work, method == "REML", store)
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
    if "sigma" not in table:
        raise ValueError(f"none of the {len(table)} models can be fitted; the first: {table['status'].iloc[0]}")
    return table


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """All rows in order. As strings, a million statuses would take more memory than all numbers."""
    status = union_categoricals([table["status"] for table in tables], sort_categories=True)
    table = pd.concat([table.drop(columns="status") for table in tables])
    table.insert(0, "status", status.remove_unused_categories())
    return table.sort_index()


def _chunk_table(work, reml, store, i) -> pd.DataFrame:
    """Results of one chunk, a row per model, indexed by place."""
    if store is not None and (found := store.read(i)) is not None:
        return found
    chunks, failures = work.chunk(i)
    tables = []
    for chunk in chunks:
        table = _table(chunk, reml, work)
        perfect = is_perfect(chunk.size, np.asarray(chunk.lanes.each.scale)[: len(table)], table["sigma"].to_numpy())
        failures = failures + [Failure(place, NO_RESIDUAL) for place in chunk.places[perfect]]
        if not perfect.all():
            tables.append(table[~perfect])
    if failures:
        nothing = dict(status=pd.Categorical([f.reason for f in failures]), converged=False, singular=False, nobs=0)
        tables.append(pd.DataFrame(nothing, index=[f.place for f in failures]))
    table = _joined(tables)
    if store is not None:
        store.write(i, table)
    return table


def _table(chunk: Chunk, reml: bool, work: Responses | Designs) -> pd.DataFrame:
    start = None if work.start is None else np.broadcast_to(work.start, (chunk.lanes.count, len(work.start)))
    e = fit_lanes(chunk.lanes, reml, start, work.rounds, work.dtype)
    status = np.where(e.converged, CONVERGED, e.status)
    singular = are_singular(chunk.lanes, e, reml)
    singular[: len(chunk.places)] |= work.are_confounded(chunk)
    columns = {
        "status": pd.Categorical.from_codes(status, STATUS),
        "converged": e.converged,
        "singular": singular,
        "nobs": np.broadcast_to(np.asarray(chunk.lanes.design.n, int), e.status.shape),
        "deviance": e.deviance,
        "sigma": e.sigma,
        "steps": e.steps,
        "predicted_decrease": e.predicted_decrease,
        "gradient": np.max(e.gradient, 1),
    }
    columns |= {f"beta:{name}": e.beta[:, j] for j, name in enumerate(chunk.design.columns)}
    columns |= {f"bse:{name}": np.sqrt(e.vcov[:, j, j]) for j, name in enumerate(chunk.design.columns)}
    columns |= {f"theta:{name}": e.theta[:, j] for j, name in enumerate(_theta_names(chunk.design))}
    columns |= {f"t:{j}": e.t[:, j] for j in range(e.t.shape[1])}
    return pd.DataFrame({name: values[: len(chunk.places)] for name, values in columns.items()}, index=chunk.places)


def _theta_names(design: Design) -> list[str]:
    return [name for f in design.factors for name in theta_names(f)]


def are_singular(lanes: Lanes, e: Estimate, reml: bool) -> np.ndarray:
    """Whether a column of Lambda vanishes in each of many models, or its residual: (r,); see also `is_confounded`."""
    return np.concatenate(e.vanishing, 1).any(1) | _are_doubtful(lanes, e, reml)


def _are_doubtful(lanes: Lanes, e: Estimate, reml: bool) -> np.ndarray:
    """Whether the residual SD of each of many models is estimated as 0, as `residual_doubt` says it in words: (r,)."""
    doubtful = e.sigma < NEAR_ZERO * np.asarray(lanes.each.scale)
    if len(some := np.flatnonzero(doubtful)):
        less = _with_less_effect(e.t[some], lanes.design.layout.blocks)
        doubtful[some] = deviances(lanes, some, reml, less) - e.deviance[some] < RISE
    return doubtful
