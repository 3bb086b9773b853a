"""Models of one design: many responses."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import narwhals.stable.v1 as nw
import numpy as np
import pandas as pd

from ..design.design import Design, build
from ..design.determinacy import is_flat, is_out_of_range, why_unusable
from ..design.formula import Formula
from ..design.frames import as_frame
from ..engines.packing import plan_of
from ..models.identifiability import is_confounded, weighted_size
from ..numerics.crossproducts.layout import Plan, power_of_two
from ..numerics.crossproducts.moments import Basis, Moments, assemble, condition, moments, respond
from ..runtime.calls import run
from ..runtime.compilation import jit, light
from ..runtime.devices import workers
from ..support.arguments import listed, numbers
from ..support.later import jax, jnp
from .chunks import Chunk, Failure, _hash, chunk_size, filled, unfit_rows
from .lanes import ROUNDS, Lanes, in_slices

HASHED = 1024  # responses that are read at a time to tell a run from others

SLICE = 32  # lanes with missing values whose rows are held at a time


class Responses:
    """Many responses of one design: the cross-products of the design are computed once."""

    rounds = ROUNDS

    def __init__(
        self,
        design: Design,
        data: Any,
        Y: Any,
        labels: pd.Index,
        rows: np.ndarray,
        arguments: dict[str, Any],
        start: np.ndarray | None = None,
        dtype: str = "float64",
    ):
        self.design, self.data, self.Y, self.labels, self.rows = design, data, Y, labels, rows
        self.formula, self.arguments, self.start, self.dtype = design.formula, arguments, start, dtype
        share = -(-len(labels) // (len(workers()) * jax.process_count()))
        size = chunk_size(self.plan.layout, design.X.shape[1], len(rows))
        self.size = min(size, max(32, power_of_two(share)))

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)

    @functools.cached_property
    def plan(self) -> Plan:
        """Layout and codes of the design."""
        return plan_of(self.design)

    @functools.cached_property
    def prepared(self) -> tuple[Basis, Moments]:
        """The conditioned design, and its moments with a response that stands for all."""
        d = self.design
        weights = np.ones(len(d.X)) if d.weights is None else d.weights
        return run(_prepare, self.plan, d.X, [f.Z for f in d.factors], weights, [f.K for f in d.factors])

    def chunk(self, i: int) -> tuple[list[Chunk], list[Failure]]:
        """The models of one chunk, and those of it that cannot be fitted."""
        start = i * self.size
        Y = np.asarray(self.Y[:, start : start + self.size], float)
        Y = Y if len(self.rows) == len(Y) else Y[self.rows]
        if self.design.offset is not None:
            Y = Y - self.design.offset[:, None]
        low, high = Y.min(0), Y.max(0)  # NaN where there is one
        with np.errstate(invalid="ignore"):
            size = np.maximum(high, -low)
            plain = ~(is_out_of_range(size) | is_flat(low, high))
        reasons, holes = {}, []
        for j in map(int, np.flatnonzero(~plain)):
            if reason := self._unfit(Y[:, j]):
                reasons[j] = reason
            else:
                holes.append(j)
        chunks = []
        if len(part := np.flatnonzero(plain)):
            sizes = weighted_size(self.design, size[part])
            chunks.append(Chunk(start + part, self.design, self._complete(Y, part), sizes))
        if len(part := np.array(holes, int)):
            some = Y[:, part].T
            sizes = weighted_size(self.design, np.nanmax(np.abs(some), 1))
            chunks.append(Chunk(start + part, self.design, self._masked(Y, part), sizes, ~np.isnan(some)))
        return chunks, [Failure(start + j, reason) for j, reason in reasons.items()]

    def are_confounded(self, chunk: Chunk) -> np.ndarray:
        """Whether the residual variance of each model is a part of those of its random effects."""
        if chunk.used is None:
            return np.repeat(self.confounded, len(chunk.places))
        return is_confounded(self.design, chunk.used)

    @functools.cached_property
    def confounded(self) -> np.ndarray:
        """The same of a model with all rows: (1,)."""
        return is_confounded(self.design)

    def _complete(self, Y, part) -> Lanes:
        basis, shared = jax.device_put(self.prepared)
        if len(part) < self.size:
            Y = Y[:, filled(part, self.size)]
        return Lanes(shared, _respond(self.plan, basis, Y))

    def _masked(self, Y, part) -> Lanes:
        """Missing values are rows of weight zero, so every lane has a design of its own."""
        Y = Y[:, filled(part, max(SLICE, power_of_two(len(part))))].T
        weights = np.where(np.isnan(Y), 0.0, self.prepared[0].w[None])
        Z, K = ([getattr(f, name) for f in self.design.factors] for name in ("Z", "K"))
        return Lanes(None, _masked_moments(self.plan, np.nan_to_num(Y), self.design.X, Z, weights, K))

    def _unfit(self, y: np.ndarray) -> str | None:
        """Why there is no model of a response with infinite or missing values, or a constant one."""
        used = ~np.isnan(y)
        if np.isinf(y).any():
            return "infinite values"
        if self.arguments["na_action"] == "raise" and not used.all():
            return f"na_action='raise': {np.count_nonzero(~used)} missing values"
        if used.sum() <= self.design.X.shape[1]:
            return f"{used.sum()} rows without missing values are too few"
        return why_unusable(y[used]) or unfit_rows(self.design, used)

    def with_design(self, design: Design) -> Responses:
        """The same responses on another design of the same rows."""
        return Responses(design, self.data, self.Y, self.labels, self.rows, self.arguments, dtype=self.dtype)

    def fingerprint(self) -> str:
        """A hash of the design and of all responses, some hundreds of them at a time."""
        starts = range(0, len(self.labels), HASHED)
        return _hash([self.design], (np.asarray(self.Y[:, a : a + HASHED], float) for a in starts))

    def problem(self, place: int) -> tuple[str, Any]:
        """Formula and data of one of the models, for `fit`."""
        frame = nw.from_native(self.data, eager_only=True)
        name = "response"
        while name in frame.columns:
            name += "_"
        y = np.full(len(frame), np.nan)
        y[self.design.rows] = np.asarray(self.Y[:, place], float)[self.rows]
        y = nw.new_series(name, y, backend=frame.implementation)
        formula = replace(self.formula, response=name)
        return str(formula), frame.with_columns(y).to_native()


def responses_of(
    formula: Formula, data: Any, responses: Any, arguments: dict[str, Any], dtype: str = "float64"
) -> Responses:
    """Models of the responses given by a user, one row for each row of the data."""
    if formula.response is not None:
        raise ValueError(f"with responses= the formula has no left side: write '~ ...' in place of '{formula}'")
    Y, labels = _as_matrix(responses, data)
    if len(Y) != len(data):
        raise ValueError(f"responses has {len(Y)} rows, but the data have {len(data)}")
    design = build(formula, data, **arguments, response=False)
    return Responses(design, data, Y, labels, design.rows, arguments, dtype=dtype)


def _as_matrix(responses: Any, data: Any) -> tuple[Any, pd.Index]:
    """Responses as something with columns to slice, and their labels."""
    as_frame(data)
    if isinstance(responses, list | tuple) and all(isinstance(name, str) for name in responses):
        frame = nw.from_native(data, eager_only=True)
        if unknown := [name for name in responses if name not in frame.columns]:
            raise ValueError(f"responses has {unknown[0]!r}, which is not a column of the data")
        if twice := [name for name in dict.fromkeys(responses) if responses.count(name) > 1]:
            raise ValueError(f"responses has {listed(twice)} more than once")
        responses = frame.select(responses).to_native()
    if not hasattr(responses, "columns"):
        if getattr(responses, "ndim", 0) != 2:
            raise TypeError(
                "responses must be a frame, a two-dimensional array (rows, models), or a list of column names"
            )
        if not responses.shape[1]:
            raise ValueError("responses has no columns")
        is_plain = responses.dtype.kind in "fiu" and not np.ma.isMaskedArray(responses)
        Y = responses if is_plain else numbers("responses", responses)
        return Y, pd.RangeIndex(Y.shape[1])
    frame = nw.from_native(responses, eager_only=True)
    if text := [name for name in frame.columns if not frame.get_column(name).dtype.is_numeric()]:
        raise ValueError(f"responses has columns that are not numeric: {listed(text)}")
    return frame.to_numpy(), pd.Index(list(frame.columns))


_respond = light(jit(respond))


@jit
def _masked_moments(plan, Y, X, Z, weights, K):
    return in_slices(lambda lane: moments(plan, lane[0], X, Z, lane[1], None, K), (Y, weights), SLICE)


@light
@jit
def _prepare(plan, X, Z, weights, K):
    basis = condition(plan, X, Z, weights, K)
    some = jax.tree.map(lambda a: a[0], respond(plan, basis, jnp.ones((X.shape[0], 1))))
    return basis, assemble(plan, basis, some)
