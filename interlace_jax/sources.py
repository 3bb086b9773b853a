"""Where the models of a batch come from: the responses of one design, or the groups of one long frame."""

from __future__ import annotations

import abc
import functools
import hashlib
import itertools
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import narwhals.stable.v1 as nw
import numpy as np
import pandas as pd

from . import compute, structure
from .batch import ROUNDS, Lanes, in_slices
from .crossproducts import Basis, Moments, assemble, condition, moments, respond
from .design import Design, build, independent_columns, is_constant, is_flat, is_out_of_range, largest
from .errors import RankWarning, listed, numbers
from .formula import Formula
from .frames import as_frame
from .grouping import theta_names
from .saturation import is_confounded, weighted_size

MOST_LANES, MOST_LANES_ACCELERATOR = 1024, 2**17  # what stays in a processor's cache; what keeps an accelerator busy
WORKING_SET, ROWS = 64 * 2**20, 256 * 2**20  # bytes that one evaluation of a chunk and its rows may take in a processor
HASHED = 1024  # responses that are read at a time to tell a run from others
BYTES = 4 * 8  # of a number, of which there are about four copies at a time
FEWEST_COLUMNS = 32  # of responses to take at a time: from a file by rows, one is read as slowly as many
SLICE = 32  # lanes with missing values whose rows are held at a time


class Chunk(NamedTuple):
    """Models that are fitted together: their places among all, a design with their columns, and their lanes."""

    places: np.ndarray
    design: Design
    lanes: Lanes
    size: np.ndarray
    "(r,) of each response, in the unit of its residual variance."
    used: np.ndarray | None = None
    "(r, n) rows that each model has of those of the design; None: all."


class Failure(NamedTuple):
    """A model that cannot be fitted."""

    place: int
    reason: str


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
        share = -(-len(labels) // (len(compute.workers()) * jax.process_count()))
        size = chunk_size(self.plan.layout, design.X.shape[1], len(rows))
        self.size = min(size, max(32, structure.power_of_two(share)))

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)

    @functools.cached_property
    def plan(self) -> structure.Plan:
        """Layout and codes of the design."""
        return plan_of(self.design)

    @functools.cached_property
    def prepared(self) -> tuple[Basis, Moments]:
        """The conditioned design, and its moments with a response that stands for all."""
        d = self.design
        weights = np.ones(len(d.X)) if d.weights is None else d.weights
        return compute.run(_prepare, self.plan, d.X, [f.Z for f in d.factors], weights, [f.K for f in d.factors])

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
        Y = Y[:, filled(part, max(SLICE, structure.power_of_two(len(part))))].T
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


class Designs(abc.ABC):
    """Models with a design each; those of similar size and structure share their programs."""

    start = None  # every model has its own moment estimates
    size = None  # chunks depend on the designs alone
    rounds = ROUNDS

    def __init__(self, formula: Formula, labels: pd.Index, arguments: dict[str, Any], dtype: str = "float64"):
        self.formula, self.labels, self.arguments, self.dtype = formula, labels, arguments, dtype
        alike: dict[Any, list[int]] = {}
        self.designs: list[Design | None] = []
        self.failures: list[Failure] = []
        for place in range(len(labels)):
            try:
                design = self.make(place)
                alike.setdefault(_shape(design), []).append(place)
            except ValueError as err:
                design = None
                self.failures.append(Failure(place, str(err)))
            self.designs.append(design)
        self.parts = []
        for places in alike.values():
            first = self.designs[places[0]]
            size = chunk_size(plan_of(first, structure.power_of_two).layout, first.X.shape[1])
            self.parts += [places[a : a + size] for a in range(0, len(places), size)]
        sound = [d for d in self.designs if d is not None]
        if not sound:
            raise ValueError(f"none of the {len(labels)} models can be fitted; the first: {self.failures[0].reason}")
        self.design = max(sound, key=lambda d: len(d.columns))

    @abc.abstractmethod
    def make(self, place: int) -> Design:
        """The design of one model, or a ValueError that says why there is none."""

    def __len__(self) -> int:
        return len(self.parts)

    def chunk(self, i: int) -> tuple[list[Chunk], list[Failure]]:
        """The models of one chunk; with the first, all that cannot be fitted."""
        places = np.array(self.parts[i])
        designs = [self.designs[p] for p in self.parts[i]]
        models = [padded_model(d, structure.power_of_two) for d in designs]
        alike = [models[j] for j in filled(np.arange(len(models)), structure.power_of_two(len(models)))]
        lanes = _group_moments(*jax.tree.map(lambda *a: np.stack(a), *alike))
        sizes = np.array([weighted_size(d, largest(d.y)) for d in designs])
        return [Chunk(places, designs[0], Lanes(None, lanes), sizes)], self.failures if i == 0 else []

    def are_confounded(self, chunk: Chunk) -> np.ndarray:
        """Whether the residual variance of each model is a part of those of its random effects."""
        return np.concatenate([is_confounded(self.designs[place]) for place in chunk.places])

    def fingerprint(self) -> str:
        """A hash of all designs and responses."""
        sound = [d for d in self.designs if d is not None]
        return _hash(sound, [d.y for d in sound])


class Groups(Designs):
    """One model per group of rows."""

    def __init__(self, formula: Formula, data: Any, by: str, arguments: dict[str, Any], dtype: str = "float64"):
        self.data = nw.from_native(nw.to_native(as_frame(data), pass_through=True), eager_only=True).to_pandas()
        if not pd.api.types.is_hashable(by) or by not in self.data.columns:
            raise ValueError(
                f"by={by!r} is not a column of the data; there are {', '.join(map(str, self.data.columns))}"
            )
        for name in ("weights", "offset"):
            if not (arguments[name] is None or isinstance(arguments[name], str)):
                raise ValueError(f"with by=, {name} must be the name of a column")
        self.rows = list(self.data.groupby(by, sort=True, observed=True).indices.items())
        if not self.rows:
            raise ValueError(f"by={by!r} has no value in any row of the data")
        labels = pd.Index([label for label, _ in self.rows], name=by, tupleize_cols=False)
        super().__init__(formula, labels, arguments, dtype)

    def make(self, place: int) -> Design:
        """The design of one group."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RankWarning)  # dropped coefficients are missing from their row
            design = build(self.formula, self._part(place), **self.arguments)
        if reason := why_unusable(design.y if design.offset is None else design.y - design.offset):
            raise ValueError(reason)
        return design

    def _part(self, place: int) -> pd.DataFrame:
        return self.data.iloc[self.rows[place][1]]

    def problem(self, place: int) -> tuple[str, Any]:
        """Formula and data of one of the models, for `fit`."""
        return str(self.formula), self._part(place)


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


def plan_of(design: Design, rounded: Callable[[int], int] = int) -> structure.Plan:
    """Layout and codes of a design, levels rounded up."""
    used = design.factors
    levels, covariances = [len(f.levels) for f in used], [(f.within, f.across) for f in used]
    codes, sizes = ([getattr(f, name) for f in used] for name in ("codes", "sizes"))
    return structure.plan(codes, sizes, levels, rounded, covariances, compute.memory())


def _hash(designs: Iterable[Design], more: Iterable[np.ndarray]) -> str:
    arrays = [(d.X, d.weights, d.offset, *((f.codes, f.Z, f.K) for f in d.factors)) for d in designs]
    found = hashlib.sha256()
    for f in (f for d in designs for f in d.factors if f.is_structured):
        found.update(" ".join([type(f.within).__name__, type(f.across).__name__, *theta_names(f)]).encode())
    for a in itertools.chain(jax.tree.leaves(arrays), more):
        found.update(f"{a.shape}{a.dtype}".encode() + np.ascontiguousarray(a).tobytes())
    return found.hexdigest()[:16]


def padded_model(design: Design, rounded: Callable[[int], int]) -> tuple:
    """Arguments of `moments`, rows and levels rounded up.

    Rows of zeros have weight zero: they change nothing, and data of similar size share an executable.
    """
    plan, n = plan_of(design, rounded), len(design.y)
    weights = np.ones(n) if design.weights is None else design.weights
    offset = np.zeros(n) if design.offset is None else design.offset
    by_row = plan.codes, plan.rows, design.y, design.X, [f.Z for f in design.factors], weights, offset
    codes, entries, *arrays = structure.pad_rows(by_row, rounded(n) - n)
    return replace(plan, codes=codes, rows=entries), *arrays, [f.K for f in design.factors]


def _shape(design: Design):
    """What models must have in common to be lanes of one batch."""
    leaves, tree = jax.tree.flatten(padded_model(design, structure.power_of_two))
    return tree, tuple(a.shape for a in leaves)


def filled(index: np.ndarray, size: int) -> np.ndarray:
    """The index, repeated from its first entry up to a size, so that all chunks have one shape."""
    return np.concatenate([index, np.full(size - len(index), index[0])])


def why_unusable(y: np.ndarray) -> str | None:
    """Why there is no model of a response (n,), whatever the design."""
    if is_constant(y):
        return "the response is constant"
    if is_out_of_range(size := largest(y)):
        return f"the response is of size {size:.0e}, and its variance out of floating-point range"
    return None


def unfit_rows(design: Design, used: np.ndarray, which: str = "without missing values") -> str | None:
    """Why some of the rows of a design do not determine the model; which: words for the rows used (n,)."""
    columns, n = design.columns, int(used.sum())
    if lost := set(range(len(columns))) - set(independent_columns(design.X[used])):
        return f"the fixed effects are rank deficient in the rows {which}: {listed(columns[j] for j in sorted(lost))}"
    for f in design.factors:
        levels = len(np.unique(f.codes[used]))
        if levels < 2 or (levels * max(f.sizes) >= n and not f.is_structured):
            return f"{f.name} has {levels} level{'s' * (levels != 1)} for {n} rows {which}"
    return None


def chunk_size(layout: structure.Layout, p: int, rows: int = 0) -> int:
    """Lanes whose working set fits, and their rows, where those are held."""
    q = layout.q
    floats = sum(b.levels * b.k * (b.k + p + 1 + q) for b in layout.blocks[: layout.chain]) + (q + p + 1) ** 2
    memory = compute.accelerator_memory()
    most, room, for_rows = MOST_LANES, WORKING_SET, ROWS
    if memory is not None:
        most, room, for_rows = MOST_LANES_ACCELERATOR, memory // 8, memory // 8
    fitting = room / (BYTES * floats)
    held = max(FEWEST_COLUMNS, for_rows / (BYTES * max(rows, 1)))
    return max(2, min(most, 1 << int(np.log2(min(fitting, held) + 1))))


# Compiled pieces -----------------------------------------------------------------------------------------------------

_respond = compute.light(jax.jit(respond))
_group_moments = compute.light(jax.jit(jax.vmap(moments)))


@jax.jit
def _masked_moments(plan, Y, X, Z, weights, K):
    return in_slices(lambda lane: moments(plan, lane[0], X, Z, lane[1], None, K), (Y, weights), SLICE)


@compute.light
@jax.jit
def _prepare(plan, X, Z, weights, K):
    basis = condition(plan, X, Z, weights, K)
    some = jax.tree.map(lambda a: a[0], respond(plan, basis, jnp.ones((X.shape[0], 1))))
    return basis, assemble(plan, basis, some)
