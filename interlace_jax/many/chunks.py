"""Chunks of models: how many at a time, and what became of those that cannot be fitted."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..design.design import Design
from ..design.determinacy import independent_columns
from ..models.parameters import theta_names
from ..models.residual import free_names
from ..numerics.crossproducts.layout import Layout
from ..runtime.devices import accelerator_memory
from ..support.arguments import listed
from .lanes import Lanes, Rounds

# what stays in a processor's cache; what keeps an accelerator busy
MOST_LANES, MOST_LANES_ACCELERATOR = 1024, 2**17
# bytes that one evaluation of a chunk and its rows may take in a processor
WORKING_SET, ROWS = 64 * 2**20, 256 * 2**20

BYTES = 4 * 8  # of a number, of which there are about four copies at a time
# of responses to take at a time: from a file by rows, one is read as slowly as many
FEWEST_COLUMNS = 32


class Chunking(NamedTuple):
    """How a run is divided: models of a chunk (None: the designs alone decide), and how its
    lanes are gathered.
    """

    size: int | None
    rounds: Rounds


class Chunk(NamedTuple):
    """Models that are fitted together: their places among all, their designs, and their lanes."""

    places: np.ndarray
    designs: Sequence[Design]
    "One for each model, or one that all have."
    lanes: Lanes
    size: np.ndarray
    "(r,) of each response, in the unit of its residual variance."
    used: np.ndarray | None = None
    "(r, n) rows that each model has of those of the design; None: all."

    def alike(self) -> Iterator[tuple[np.ndarray, Design]]:
        """Lanes whose parameters bear the same names, and a design that has the names."""
        if len(self.designs) == 1:
            yield np.arange(len(self.places)), self.designs[0]
        else:
            yield from alike(range(len(self.designs)), self.designs)


def alike(places: Sequence[int], designs: Sequence[Design]) -> list[tuple[np.ndarray, Design]]:
    """Places of designs whose parameters bear the same names, each with the first such design."""
    found: dict[Hashable, tuple[list[int], Design]] = {}
    for place, design in zip(places, designs, strict=True):
        found.setdefault(_names(design), ([], design))[0].append(place)
    return [(np.array(same), design) for same, design in found.values()]


def _names(design: Design) -> Hashable:
    return (
        design.columns,
        tuple(theta_names_of(design)),
        tuple((p.parameter, p.columns) for p in design.predictors),
    )


def theta_names_of(design: Design) -> list[str]:
    """Names of the entries of theta, factor by factor, then of the residual covariance."""
    names = [name for f in design.factors for name in theta_names(f)]
    return names if design.residual is None else names + free_names(design.residual)


class Failure(NamedTuple):
    """A model that cannot be fitted."""

    place: int
    reason: str


def filled(index: np.ndarray, size: int) -> np.ndarray:
    """The index, repeated from its first entry up to a size, so that all chunks have one shape."""
    return np.concatenate([index, np.full(size - len(index), index[0])])


def unfit_rows(
    design: Design, used: np.ndarray, which: str = "without missing values"
) -> str | None:
    """Why some of the rows of a design do not determine the model; which: words for the rows
    used (n,).
    """
    columns, n = design.columns, int(used.sum())
    scatters_by_itself = design.observed is not None and design.observed.family.is_count
    lost = set(range(len(columns))) - set(independent_columns(design.X[used]))
    if lost:
        return (
            f"the fixed effects are rank deficient in the rows {which}: "
            f"{listed(columns[j] for j in sorted(lost))}"
        )
    for f in design.factors:
        levels = len(np.unique(f.codes[used]))
        is_full = levels * max(f.sizes) >= n and not (f.is_structured or scatters_by_itself)
        if levels < 2 or is_full:
            return f"{f.name} has {levels} level{'s' * (levels != 1)} for {n} rows {which}"
    if design.residual is None:
        return None
    try:
        design.residual.selected(np.flatnonzero(used)).check()
    except ValueError as err:
        return f"in the rows {which}, {err}"
    return None


def chunk_size(layout: Layout, p: int, rows: int = 0) -> int:
    """Lanes whose working set fits, and their rows, where those are held."""
    q = layout.q
    floats = (
        sum(b.levels * b.k * (b.k + p + 1 + q) for b in layout.blocks[: layout.chain])
        + (q + p + 1) ** 2
    )
    memory = accelerator_memory()
    most, room, for_rows = MOST_LANES, WORKING_SET, ROWS
    if memory is not None:
        most, room, for_rows = MOST_LANES_ACCELERATOR, memory // 8, memory // 8
    fitting = room / (BYTES * floats)
    held = max(FEWEST_COLUMNS, for_rows / (BYTES * max(rows, 1)))
    return max(2, min(most, 1 << int(np.log2(min(fitting, held) + 1))))
