"""Models of one design: many responses."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import narwhals.stable.v1 as nw
import numpy as np
import pandas as pd

from ..design.alignment import in_order_of
from ..design.design import Design, build
from ..design.determinacy import is_flat, is_out_of_range, why_unusable
from ..design.formula import Formula
from ..design.frames import as_frame, snapshot, snapshot_vector
from ..design.selection import selected
from ..engines.packing import plan_of
from ..models.identifiability import is_confounded, weighted_size
from ..numerics.crossproducts.layout import Plan, power_of_two
from ..numerics.crossproducts.moments import Basis, Moments, assemble, condition, moments, respond
from ..runtime.calls import placed, run, run_inside
from ..runtime.compilation import jit, light
from ..runtime.devices import workers
from ..support.arguments import listed
from ..support.later import jax, jnp
from .chunks import Chunk, Chunking, Failure, chunk_size, filled, unfit_rows
from .columns import Columns, Labelled, matrix_of_numbers
from .designs import chunk_of, parts_of_one_shape
from .dimensions import has_dimensions, stacked
from .fingerprints import fingerprint
from .lanes import ROUNDS, Lanes, in_slices

HASHED = 1024  # responses that are read at a time to tell a run from others

MOST_CORRELATED = 256  # lanes with cross-products by class at a time
SLICE = 32  # lanes with missing values whose rows are held at a time


class Responses:
    """Many responses of one design: the cross-products of the design are computed once."""

    is_kept = False  # see `Designs`

    def __init__(
        self,
        design: Design,
        data: Any,
        Y: Columns,
        labels: pd.Index,
        rows: np.ndarray,
        arguments: dict[str, Any],
        start: np.ndarray | None = None,
        dtype: str = "float64",
        weights: Columns | None = None,
    ):
        """weights: a column for each response, in place of those of the design, which all have
        in common.
        """
        self.design, self.data, self.Y, self.labels, self.rows = design, data, Y, labels, rows
        self.weights = weights
        self.formula, self.arguments, self.start, self.dtype = (
            design.formula,
            arguments,
            start,
            dtype,
        )
        share = -(-len(labels) // (len(workers()) * jax.process_count()))
        size = chunk_size(self.plan.layout, design.X.shape[1], len(rows))
        most = MOST_CORRELATED if design.residual is not None else size
        self.chunking = Chunking(min(size, most, max(32, power_of_two(share))), ROUNDS)

    def rechunked(self, chunking: Chunking) -> Self:
        """These models, divided into other chunks."""
        again = copy.copy(self)
        again.chunking = chunking
        return again

    @property
    def named(self) -> list[tuple[np.ndarray, Design]]:
        """Places of the models whose parameters bear the same names, with a design that has
        them: here all do.
        """
        return [(np.arange(len(self.labels)), self.design)]

    def __len__(self) -> int:
        return -(-len(self.labels) // self.chunking.size)

    @functools.cached_property
    def plan(self) -> Plan:
        """Layout and codes of the design."""
        return plan_of(self.design)

    @functools.cached_property
    def prepared(self) -> tuple[Basis, Moments]:
        """The conditioned design, and its moments with a response that stands for all."""
        d = self.design
        weights = np.ones(len(d.X)) if d.weights is None else d.weights
        return run(
            _prepare, self.plan, d.X, [f.Z for f in d.factors], weights, [f.K for f in d.factors]
        )

    def chunk(self, i: int) -> tuple[list[Chunk], list[Failure]]:
        """The models of one chunk, and those of it that cannot be fitted."""
        start = i * self.chunking.size
        Y, W = self.adjusted(start, start + self.chunking.size)
        low, high = Y.min(0), Y.max(0)  # NaN where there is one
        with np.errstate(invalid="ignore"):
            size = np.maximum(high, -low)
            is_plain = ~(is_out_of_range(size) | is_flat(low, high))
        if W is not None:
            is_plain[:] = False  # every response has a design of its own
        others = np.flatnonzero(~is_plain)
        reasons = {int(j): self._unfit(Y[:, j], None if W is None else W[:, j]) for j in others}
        failures = [Failure(start + j, reason) for j, reason in reasons.items() if reason]
        holes = np.array([j for j, reason in reasons.items() if not reason], int)
        whole = np.flatnonzero(is_plain)
        chunks = []
        if len(whole):
            sizes = weighted_size(self.design, size[whole])
            chunks.append(Chunk(start + whole, [self.design], self._complete(Y, whole), sizes))
        if len(holes) and self.design.residual is not None:
            chunks += self._of_rows_left(start, Y, W, holes)
        elif len(holes):
            some = Y[:, holes].T
            sizes = weighted_size(self.design, np.nanmax(np.abs(some), 1))
            if W is not None:
                sizes = sizes * np.sqrt(np.nanmax(W[:, holes], 0))
            chunks.append(
                Chunk(
                    start + holes, [self.design], self._masked(Y, W, holes), sizes, ~np.isnan(some)
                )
            )
        return chunks, failures

    def _of_rows_left(self, start: int, Y, W, holes: np.ndarray) -> list[Chunk]:
        """Models whose residuals covary: each has a design of the rows that it has."""
        designs, used = [], ~np.isnan(Y[:, holes].T)
        for j, there in zip(holes, used, strict=True):
            weights = self.design.weights if W is None else W[:, j]
            rows = np.flatnonzero(there)
            designs.append(
                selected(replace(self.design, y=Y[:, j], offset=None, weights=weights), rows)
            )
        parts = parts_of_one_shape(designs)
        return [
            chunk_of(start + holes[part], [designs[i] for i in part], used[part], self.is_kept)
            for part in parts
        ]

    def adjusted(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Responses less the offset, missing where their own weight is 0 or missing; and these
        weights, if any.
        """
        Y, W = self.read(start, stop)
        return Y if self.design.offset is None else Y - self.design.offset[:, None], W

    def read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Responses (n, r), missing where their own weight is 0 or missing; and these weights, if
        any.
        """
        Y = self.Y.read(start, stop)
        Y = Y if len(self.rows) == len(Y) else Y[self.rows]
        if self.weights is None:
            return Y, None
        W = self.weights.read(start, stop)[self.rows]
        return np.where((W == 0.0) | np.isnan(W), np.nan, Y), W

    def are_confounded(self, chunk: Chunk) -> np.ndarray:
        """Whether the residual variance of each model is a part of those of its random effects."""
        if chunk.used is None:
            return np.repeat(self.confounded, len(chunk.places))
        return is_confounded(self.design, chunk.used)

    @functools.cached_property
    def confounded(self) -> np.ndarray:
        """Whether the residual variance of a model with all rows is a part of those of its
        random effects: (1,).
        """
        return is_confounded(self.design)

    def _complete(self, Y, part) -> Lanes:
        size = self.chunking.size
        if len(part) < size:
            Y = Y[:, filled(part, size)]
        (basis, shared), Y = placed((self.prepared, Y), self.is_kept)
        return Lanes(shared, run_inside(_respond, self.plan, basis, Y))

    def _masked(self, Y, W, part) -> Lanes:
        """Missing values are rows of weight zero, so every lane has a design of its own, as with
        weights of its own.
        """
        every = filled(part, max(SLICE, power_of_two(len(part))))
        Y = Y[:, every].T
        weights = self.design.w[None] if W is None else W[:, every].T
        weights = np.where(np.isnan(Y), 0.0, weights)
        Z, K = ([getattr(f, name) for f in self.design.factors] for name in ("Z", "K"))
        rows = placed((self.plan, np.nan_to_num(Y), self.design.X, Z, weights, K), self.is_kept)
        return Lanes(None, run_inside(_masked_moments, *rows))

    def _unfit(self, y: np.ndarray, w: np.ndarray | None) -> str | None:
        """Why there is no model of a response (n,) with weights (n,) of its own, or with those
        of all.
        """
        used = ~np.isnan(y)
        missing = ~used if w is None else ~used & (w != 0.0)  # a row of weight 0 is not there
        if np.isinf(y).any():
            return "infinite values"
        if w is not None and ((w < 0.0) | np.isinf(w)).any():
            return "weights that are negative or infinite"
        if self.arguments["na_action"] == "raise" and missing.any():
            return f"na_action='raise': {np.count_nonzero(missing)} missing values"
        if used.sum() <= self.design.X.shape[1]:
            return f"{used.sum()} rows without missing values are too few"
        return self._unusable(y, used) or unfit_rows(self.design, used)

    def _unusable(self, y: np.ndarray, used: np.ndarray) -> str | None:
        """Why there is no model of a response (n,) in the rows used, whatever the design."""
        return why_unusable(y[used])

    def with_design(self, design: Design) -> Self:
        """Models of these responses with another design of the same rows."""
        return type(self)(
            design,
            self.data,
            self.Y,
            self.labels,
            self.rows,
            self.arguments,
            None,
            self.dtype,
            self.weights,
        )

    def fingerprint(self) -> str:
        """A hash of the design, of labels, and of all responses, some hundreds of them at a
        time.
        """
        starts = range(0, len(self.labels), HASHED)
        words = [repr(self.labels[place : place + HASHED].tolist()) for place in starts]
        sources = [self.Y] if self.weights is None else [self.Y, self.weights]
        return fingerprint(
            [self.design],
            words,
            (columns.read(a, a + HASHED) for a in starts for columns in sources),
        )

    def problem(self, place: int) -> tuple[str, Any, dict[str, Any]]:
        """Formula, data and further arguments of one of the models, for `fit`."""
        frame = nw.from_native(self.data, eager_only=True)
        name = "response"
        while name in frame.columns:
            name += "_"
        more = (
            {}
            if self.weights is None
            else {"weights": np.nan_to_num(self.weights.read(place, place + 1)[:, 0])}
        )
        y = np.full(len(frame), np.nan)
        y[self.design.rows] = self.Y.read(place, place + 1)[self.rows, 0]
        y = nw.new_series(name, y, backend=frame.implementation)
        formula = replace(self.formula, response=name)
        return str(formula), frame.with_columns(y).to_native(), more


def responses_of(
    formula: Formula,
    data: Any,
    responses: Any,
    arguments: dict[str, Any],
    dtype: str = "float64",
    kind: type[Responses] | None = None,
) -> Responses:
    """Models of the responses given by a user, one row for each row of the data; kind: a class of
    such models.
    """
    if formula.response is not None:
        raise ValueError(
            f"with responses= the formula has no left side: write '~ ...' in place of '{formula}'"
        )
    as_frame(data)
    Y, labels = _as_matrix(in_order_of(data, responses, "responses"), data, "responses")
    if Y.shape[0] != len(data):
        raise ValueError(f"responses has {Y.shape[0]} rows, but the data have {len(data)}")
    weights = _weights_by_response(data, arguments["weights"], Y.shape, labels)
    if weights is not None:
        arguments = arguments | {"weights": None}
    held = {
        what: snapshot_vector(arguments[what])
        for what in ("weights", "offset", "trials")
        if what in arguments
    }
    arguments = arguments | held
    design = build(formula, data, **arguments, response=False)
    columns = Columns.snapshot(Y)
    whole = design, snapshot(data), columns, labels, design.rows, arguments, None, dtype, weights
    return (kind or Responses)(*whole)


def _weights_by_response(
    data: Any, weights: Any, shape: tuple[int, int], labels: pd.Index
) -> Columns | None:
    """A matrix of weights, a column for each response; None where all have the same."""
    if has_dimensions(weights):
        weights = stacked(data, weights, "weights", labels.names)
    if getattr(weights, "ndim", 0) != 2 and not hasattr(weights, "columns"):
        return None
    W, names = _as_matrix(in_order_of(data, weights, "weights"), data, "weights")
    if W.shape != shape:
        raise ValueError(
            f"weights has the shape {W.shape}, but responses {shape}: give one weight for each "
            "value"
        )
    if (
        hasattr(weights, "columns")
        and not isinstance(labels, pd.RangeIndex)
        and list(names) != list(labels)
    ):
        raise ValueError(
            f"the columns of weights, {listed(names, 3)}, are not those of responses, "
            f"{listed(labels, 3)}, in their order"
        )
    return Columns.snapshot(W)


def _as_matrix(responses: Any, data: Any, what: str) -> tuple[Any, pd.Index]:
    """Responses, or weights, as something with columns to slice, and their labels."""
    if has_dimensions(responses):
        responses = stacked(data, responses, what)
    if isinstance(responses, list | tuple) and all(isinstance(name, str) for name in responses):
        responses = columns_of(data, responses)
    if not hasattr(responses, "columns"):
        Y = matrix_of_numbers(responses, what)
        return Y, pd.RangeIndex(Y.shape[1])
    labels = (
        responses.columns
        if isinstance(responses, pd.DataFrame | Labelled)
        else pd.Index(responses.columns)
    )
    if not len(labels):
        raise ValueError(f"{what} has no columns")
    if not labels.is_unique:
        twice = labels[labels.duplicated()].unique()
        raise ValueError(
            f"{what} has {listed(twice)} more than once: a label stands for one model; rename the "
            "others"
        )
    if isinstance(responses, Labelled):
        return matrix_of_numbers(responses.values, what), labels
    if isinstance(responses, pd.DataFrame):
        # whatever labels narwhals cannot have
        responses = responses.set_axis(range(len(labels)), axis=1)
    frame = nw.from_native(responses, eager_only=True)
    is_text = [not frame.get_column(name).dtype.is_numeric() for name in frame.columns]
    if any(is_text):
        raise ValueError(f"{what} has columns that are not numeric: {listed(labels[is_text])}")
    return frame.to_numpy(), labels


def columns_of(data: Any, names: Sequence[str]) -> Any:
    """Columns of the data by name."""
    frame = nw.from_native(data, eager_only=True)
    if not names:
        raise ValueError("responses has no columns: it is an empty list")
    unknown = [name for name in names if name not in frame.columns]
    if unknown:
        raise ValueError(f"responses has {unknown[0]!r}, which is not a column of the data")
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ValueError(f"responses has {listed(twice)} more than once")
    return frame.select(names).to_native()


_respond = light(jit(respond))


@jit
def _masked_moments(plan, Y, X, Z, weights, K):
    return in_slices(
        lambda lane: moments(plan, lane[0], X, Z, lane[1], None, K), (Y, weights), SLICE
    )


@light
@jit
def _prepare(plan, X, Z, weights, K):
    basis = condition(plan, X, Z, weights, K)
    if plan.residual is not None:
        return basis, moments(plan, jnp.ones_like(weights), X, Z, weights, None, K)
    some = jax.tree.map(lambda a: a[0], respond(plan, basis, jnp.ones((X.shape[0], 1))))
    return basis, assemble(plan, basis, some)
