"""Models with a design each, as the groups of one long frame."""

from __future__ import annotations

import abc
import copy
import functools
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import fields
from typing import Any, ClassVar, Self

import narwhals.stable.v1 as nw
import numpy as np
import pandas as pd

from ..design.design import Design, build
from ..design.determinacy import largest, why_unusable
from ..design.formula import Formula
from ..design.frames import as_frame, get_column, snapshot
from ..engines.packing import padded_model
from ..models.identifiability import is_confounded, weighted_size
from ..models.residual_identifiability import check_residual_covariance
from ..numerics.crossproducts.layout import Plan, power_of_two
from ..numerics.crossproducts.moments import moments
from ..runtime.calls import placed, run_inside
from ..runtime.compilation import jit, light
from ..support.containers import container, stacked
from ..support.later import jax
from ..support.warnings import RankWarning
from .chunks import Chunk, Chunking, Failure, alike, chunk_size, filled
from .fingerprints import fingerprint
from .lanes import ROUNDS, Lanes

LANES_NUMBERS = 1 << 25  # of cross-products by class that the lanes of a chunk may hold together


class Designs(abc.ABC):
    """Models with a design each; those of similar size and structure share their programs."""

    start = None  # every model has its own moment estimates
    is_kept = False  # in a checkpoint, and then always computed in one way, to the last digit

    def __init__(
        self, formula: Formula, labels: pd.Index, arguments: dict[str, Any], dtype: str = "float64"
    ):
        self.formula, self.labels, self.arguments, self.dtype = formula, labels, arguments, dtype
        self.chunking = Chunking(None, ROUNDS)
        self.designs: list[Design | None] = []
        self.failures: list[Failure] = []
        for place in range(len(labels)):
            try:
                self.designs.append(self.make(place))
            except ValueError as err:
                self.designs.append(None)
                self.failures.append(Failure(place, str(err)))
        sound = [place for place, design in enumerate(self.designs) if design is not None]
        if not sound:
            raise ValueError(
                f"none of the {len(labels)} models can be fitted; the first: "
                f"{self.failures[0].reason}"
            )
        self.parts = self._parts(sound)
        self.named = alike(sound, [self.designs[place] for place in sound])
        """Places of the models whose parameters bear the same names, with a design that has the
        names.
        """

    def _parts(self, sound: list[int]) -> list[list[int]]:
        """Places of the models by chunk: those of a chunk have one shape."""
        sound_designs = [self.designs[place] for place in sound]
        parts = parts_of_one_shape(sound_designs, self.shape, self.lanes_at_once)
        return [[sound[i] for i in part] for part in parts]

    def shape(self, design: Design) -> Hashable:
        """What models must have in common to be lanes of one batch."""
        return _shape(design)

    def lanes_at_once(self, design: Design) -> int:
        """How many models like one to take at a time."""
        return _lanes_at_once(design)

    def rechunked(self, chunking: Chunking) -> Self:
        """These models, their lanes gathered otherwise."""
        again = copy.copy(self)
        again.chunking = chunking
        return again

    @abc.abstractmethod
    def make(self, place: int) -> Design:
        """The design of one model, or a ValueError that says why there is none."""

    def __len__(self) -> int:
        return len(self.parts)

    def chunk(self, i: int) -> tuple[list[Chunk], list[Failure]]:
        """The models of one chunk; with the first, all that cannot be fitted."""
        places = np.array(self.parts[i])
        designs = [self.designs[p] for p in self.parts[i]]
        return [chunk_of(places, designs, None, self.is_kept)], self.failures if i == 0 else []

    def are_confounded(self, chunk: Chunk) -> np.ndarray:
        """Whether the residual variance of each model is a part of those of its random effects."""
        return np.concatenate([is_confounded(self.designs[place]) for place in chunk.places])

    def fingerprint(self) -> str:
        """A hash of all designs and responses, of labels, and of what cannot be fitted and why."""
        sound = [d for d in self.designs if d is not None]
        words = [
            *map(repr, self.labels.tolist()),
            *(f"{place} {reason}" for place, reason in self.failures),
        ]
        return fingerprint(sound, words, [d.y for d in sound])


class Groups(Designs):
    """One model per group of rows."""

    def __init__(
        self,
        formula: Formula,
        data: Any,
        by: str,
        arguments: dict[str, Any],
        dtype: str = "float64",
    ):
        frame = as_frame(data)
        if isinstance(by, list):
            raise ValueError(
                f"by takes one column, not {by}: make one of them, such as data.assign(cell="
                "data['a'] + data['b']) of text, and give its name"
            )
        if not pd.api.types.is_hashable(by) or by not in frame.columns:
            raise ValueError(
                f"by={by!r} is not a column of the data; there are "
                f"{', '.join(map(str, frame.columns))}"
            )
        key = get_column(frame, by, "argument by=")
        for name in ("weights", "offset"):
            if not (arguments[name] is None or isinstance(arguments[name], str)):
                raise ValueError(f"with by=, {name} must be the name of a column")
        _check_keys(by, int(key.isna().sum()), len(key), arguments["na_action"])
        self.data = snapshot(
            nw.from_native(nw.to_native(frame, pass_through=True), eager_only=True).to_pandas()
        )
        self.rows = list(self.data.groupby(by, sort=True, observed=True).indices.items())
        labels = pd.Index([label for label, _ in self.rows], name=by, tupleize_cols=False)
        super().__init__(formula, labels, arguments, dtype)

    def make(self, place: int) -> Design:
        """The design of one group."""
        with warnings.catch_warnings():
            # dropped coefficients are missing from their row
            warnings.simplefilter("ignore", RankWarning)
            return self.checked(build(self.formula, self._part(place), **self.arguments))

    def checked(self, design: Design) -> Design:
        """The design of a group, refused where there is no model of its response."""
        if reason := why_unusable(design.y - design.shift):
            raise ValueError(reason)
        check_residual_covariance(design)
        return design

    def _part(self, place: int) -> pd.DataFrame:
        return self.data.iloc[self.rows[place][1]]

    def problem(self, place: int) -> tuple[str, Any, dict[str, Any]]:
        """Formula, data and further arguments of one of the models, for `fit`."""
        return str(self.formula), self._part(place), {}


def _check_keys(by: str, missing: int, rows: int, na_action: str) -> None:
    """Refuse rows without a key, or say that there are some."""
    if missing == rows:
        raise ValueError(f"by={by!r} has no value in any row of the data")
    if missing and na_action == "raise":
        raise ValueError(
            f"na_action='raise': by={by!r} is missing in {missing} of the {rows} rows; drop or "
            "fill them, or use na_action='drop'"
        )
    if missing:
        warnings.warn(
            f"by={by!r} is missing in {missing} of the {rows} rows: they are in no model",
            stacklevel=5,
        )


def parts_of_one_shape(
    designs: Sequence[Design],
    shape: Callable[[Design], Hashable] | None = None,
    lanes_at_once: Callable[[Design], int] | None = None,
) -> list[list[int]]:
    """Places of designs that can be lanes of one batch, as many at a time as memory allows.

    shape, lanes_at_once: what tells that, where the models are not linear ones.
    """
    shape, lanes_at_once = shape or _shape, lanes_at_once or _lanes_at_once
    by_shape: dict[Hashable, list[int]] = {}
    for place, design in enumerate(designs):
        by_shape.setdefault(shape(design), []).append(place)
    parts = []
    for places in by_shape.values():
        size = lanes_at_once(designs[places[0]])
        parts += [places[a : a + size] for a in range(0, len(places), size)]
    return parts


@container
class Rows:
    """The rows of models of one shape as `moments` takes them, with a leading axis of models."""

    plan: Plan
    y: Any
    X: Any
    Z: Any  # per factor
    weights: Any
    offset: Any
    K: Any  # per factor what the covariance of its levels is made of, or None

    sizes: ClassVar[dict[str, int]] = {}

    @functools.cached_property
    def generalised(self) -> Rows | None:
        """The same for any number of models, of rows, levels and coefficients."""
        plan = self.plan.generalised
        if plan is None:
            return None
        one = Rows(plan, "n", "n p", ("n _",) * len(self.Z), "n", "n", (None,) * len(self.K))
        return stacked("r", one)


def chunk_of(
    places: np.ndarray,
    designs: Sequence[Design],
    used: np.ndarray | None = None,
    is_kept: bool = False,
) -> Chunk:
    """Models of one shape as lanes; used: as in `Chunk`; is_kept: as in `Designs`."""
    models = [padded_model(d, power_of_two) for d in designs]
    alike = [models[j] for j in filled(np.arange(len(models)), power_of_two(len(models)))]
    rows = Rows(*placed(jax.tree.map(lambda *a: np.stack(a), *alike), is_kept))
    lanes = run_inside(_stacked_moments, rows)
    sizes = np.array([weighted_size(d, largest(d.y)) for d in designs])
    return Chunk(places, designs, Lanes(None, lanes), sizes, used)


def _lanes_at_once(design: Design) -> int:
    model = padded_model(design, power_of_two)
    size = chunk_size(model[0].layout, design.X.shape[1])
    if design.residual is None:
        return size
    numbers = sum(a.size for a in jax.tree.leaves(jax.eval_shape(moments, *model)))
    return min(size, max(1, 1 << int(np.log2(max(1, LANES_NUMBERS // numbers)))))


def _shape(design: Design):
    """What models must have in common to be lanes of one batch."""
    leaves, tree = jax.tree.flatten(padded_model(design, power_of_two))
    return tree, tuple(a.shape for a in leaves)


@light
@jit
def _stacked_moments(rows: Rows):
    arguments = [getattr(rows, f.name) for f in fields(rows)]
    return jax.vmap(moments)(*arguments)
