"""What the numbers of a run depend on, as one hash: names, levels, rows and arrays."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from ..design.design import Design
from ..design.grouping import Factor
from ..models.parameters import theta_names
from ..support.later import jax

DIGITS = 16


def fingerprint(
    designs: Iterable[Design], words: Iterable[str], arrays: Iterable[np.ndarray]
) -> str:
    """A hash of designs, their names and rows included, and of further words and arrays."""
    designs = list(designs)
    found = hashlib.sha256()
    for word in itertools.chain(words, *map(_words, designs)):
        found.update(word.encode() + b"\0")
    for a in itertools.chain(*map(_arrays, designs), arrays):
        found.update(f"{a.shape}{a.dtype}".encode() + np.ascontiguousarray(a).tobytes())
    return found.hexdigest()[:DIGITS]


def _words(design: Design) -> Iterator[str]:
    yield from design.columns
    yield from (f"dropped {name}" for name in design.dropped_columns)
    for f in design.factors:
        yield from _words_of_factor(f)
    if design.residual is not None:
        yield f"{design.residual} {design.residual.visits} {design.residual.groups}"
    if design.observed is not None:
        yield f"{design.observed.family!r} {design.observed.nodes}"


def _words_of_factor(f: Factor) -> Iterator[str]:
    yield f"factor {f.name} {f.sizes} {type(f.within).__name__} {type(f.across).__name__}"
    yield from theta_names(f)
    yield from map(repr, f.levels.tolist())


def _arrays(design: Design) -> list[np.ndarray]:
    """Everything with numbers in it but the response."""
    by_factor = tuple((f.codes, f.Z, f.K) for f in design.factors)
    subjects = None if design.residual is None else tuple(design.residual.by_row)
    trials = None if design.observed is None else design.observed.trials
    of_family = trials, tuple(p.D for p in design.predictors)
    return jax.tree.leaves(
        (design.X, design.weights, design.offset, design.rows, by_factor, subjects, of_family)
    )
