"""What users give as `groups`: read, checked, and refused in words that name the argument and its
shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..numerics.covariance.across import pair
from ..numerics.covariance.block import Block
from ..support.arguments import listed
from ..support.later import is_traced, jax, jnp
from .precision import in_own_precision

LARGEST_CODE = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Grouping:
    """One grouping factor as arrays."""

    key: str | int
    "Its name, or its place in the sequence."
    codes: Any
    "(n,) integers"
    Z: Any
    "(n, k); None for a random intercept."
    third: Any = None
    "Sizes of uncorrelated terms or a covariance; None: one term."

    @property
    def label(self) -> str:
        """How errors call it."""
        return f"groups[{self.key!r}]"

    @property
    def is_traced(self) -> bool:
        """Whether JAX is tracing the codes."""
        return is_traced(self.codes)

    def filled(self, n: int) -> Grouping:
        """With columns Z in JAX's own precision: a column of ones where there are none."""
        Z = jnp.ones((n, 1)) if self.Z is None else self.Z
        return replace(self, Z=in_own_precision(Z))

    def structure(self, levels: int) -> tuple[Block, Any]:
        """Its shape, and the arrays that the covariance across its levels is made of."""
        columns = self.Z.shape[1]
        third = (columns,) if self.third is None else self.third
        if _are_sizes(third):
            if sum(third) != columns:
                raise ValueError(
                    f"the terms {tuple(third)} have {sum(third)} columns, but Z has {columns}"
                )
            return Block(levels, tuple(third)), None
        within, across = pair(third)
        is_independent = within is not None and within.independent
        sizes = (1,) * columns if is_independent else (columns,)
        if across is None:
            return Block(levels, sizes, within), None
        K = jax.tree.map(in_own_precision, across.data)
        if wrong := [a.shape for a in jax.tree.leaves(K) if a.shape[:1] != (levels,)]:
            raise ValueError(
                f"the covariance of {levels} levels, codes 0 to {levels - 1}, has an array of "
                f"shape {wrong[0]}"
            )
        return Block(levels, sizes, within, across.static), K


def _are_sizes(third) -> bool:
    return isinstance(third, tuple | list) and all(
        isinstance(size, int | np.integer) for size in third
    )


def arrays_of(groups: Sequence[Grouping]) -> list[Any]:
    """All arrays of the grouping factors, those that covariances of levels are made of too."""
    found = [array for g in groups for array in (g.codes, g.Z)]
    thirds = [g.third for g in groups if g.third is not None and not _are_sizes(g.third)]
    across = [pair(third)[1] for third in thirds]
    return found + jax.tree.leaves([a.data for a in across if a is not None])


def read_groups(groups: Mapping[str, Any] | Sequence[tuple]) -> list[Grouping]:
    """The grouping factors of `{"subject": codes}`, `{"subject": (codes, Z)}` or `[(codes, Z)]`."""
    if isinstance(groups, Mapping):
        read = [_named(name, value) for name, value in groups.items()]
    elif all(isinstance(value, tuple | list) for value in groups):
        read = [Grouping(place, *value) for place, value in enumerate(groups)]
    else:
        raise TypeError(
            f"groups is a {type(groups).__name__}; name the factor that it is the codes of: "
            '{"subject": codes}, or {"subject": (codes, Z)} for other effects than intercepts'
        )
    if not read:
        raise ValueError(
            'groups is empty: give {"subject": (codes, Z)}, or codes alone for a random intercept'
        )
    return [replace(g, codes=_checked_codes(g)) for g in read]


def _named(name, value):
    return Grouping(name, *value) if isinstance(value, tuple) else Grouping(name, value, None)


def _checked_codes(group: Grouping):
    codes = group.codes
    if group.is_traced:
        if codes.dtype.kind not in "iu":
            raise TypeError(f"codes of {group.label} are whole numbers, not {codes.dtype}")
        return codes
    codes = np.asarray(codes)
    if codes.dtype.kind not in "iu" or codes.size == 0 or codes.min() < 0:
        raise ValueError(
            f"codes of {group.label} are integers from 0, one a row: make them with "
            "np.unique(labels, return_inverse=True)[1]"
        )
    if codes.max() > LARGEST_CODE:
        raise ValueError(f"codes of {group.label} are at most {LARGEST_CODE}, not {codes.max()}")
    return codes


def check_rows(y, X, groups: Sequence[Grouping], weights, offset) -> None:
    """Refuse arrays that do not have a row for each of y."""
    if y.ndim != 1:
        raise ValueError(
            f"y has shape {y.shape}; it must be one response (n,): use jax.vmap for several"
        )
    named = [("X", X, 2), ("weights", weights, 1), ("offset", offset, 1)]
    for g in groups:
        named += [(f"Z of {g.label}", g.Z, 2), (f"codes of {g.label}", g.codes, 1)]
    for name, values, ndim in named:
        if values is not None and (values.ndim != ndim or len(values) != len(y)):
            wanted = f"({len(y)}, columns)" if ndim == 2 else f"({len(y)},)"
            hint = (
                ": for a random intercept leave Z out"
                if name.startswith("Z of") and values.ndim == 1
                else ""
            )
            raise ValueError(
                f"{name} has shape {values.shape}; y has {len(y)} rows, so it must be "
                f"{wanted}{hint}"
            )


def check_numbers(y, X, groups: Sequence[Grouping], weights, offset) -> None:
    """Refuse what JAX does not trace and is no number, in rows that count, and negative weights.

    Which rows count is known where their codes and weights are.
    """
    if is_traced(weights) or any(g.is_traced for g in groups):
        return
    weights = np.ones(len(y)) if weights is None else np.asarray(weights)
    if not (np.isfinite(weights) & (weights >= 0.0)).all():
        raise ValueError("weights must be 0 (for rows to leave out) or positive, and finite")
    counts = weights > 0.0
    named = [("y", y), ("X", X), ("offset", offset), *((f"Z of {g.label}", g.Z) for g in groups)]
    for name, values in named:
        if values is None or is_traced(values):
            continue
        rows = np.asarray(values).reshape(len(counts), -1)
        if (bad := counts & ~np.isfinite(rows).all(1)).any():
            raise ValueError(
                f"{name} is NaN or infinite in {bad.sum()} rows, first in row {bad.argmax()}: "
                "leave them out, or give them weight 0"
            )


def level_counts(
    groups: Sequence[Grouping], levels: Mapping[str, int] | Sequence[int] | None
) -> list[int]:
    """How many levels every factor has: as `levels` says, or as known codes do."""
    given = dict(levels if isinstance(levels, Mapping) else enumerate(levels or ()))
    if unknown := [key for key in given if key not in [g.key for g in groups]]:
        raise ValueError(
            f"levels has {unknown[0]!r}, but groups has {listed(g.key for g in groups)}"
        )
    return [_count(g, given.get(g.key)) for g in groups]


def _count(group, given):
    if group.is_traced:
        if given is None:
            raise TypeError(
                f"codes of {group.label} are traced: say how many levels there are, "
                f"levels={{{group.key!r}: ...}}"
            )
        return int(given)
    least = int(group.codes.max()) + 1
    if given is not None and given < least:
        raise ValueError(
            f"levels={{{group.key!r}: {given}}}, but codes reach {least - 1}: they start at 0, so "
            "there are at least "
            f"{least} levels"
        )
    return least if given is None else int(given)


def check_nesting(groups: Sequence[Grouping], nested: Mapping[Any, Any]) -> dict[int, int]:
    """Places of the factors that lie in others, and of those; refused where known codes say
    otherwise.
    """
    place = {g.key: i for i, g in enumerate(groups)}
    if unknown := [key for link in nested.items() for key in link if key not in place]:
        raise ValueError(f"nested has {unknown[0]!r}, but groups has {listed(place)}")
    for child, parent in nested.items():
        inner, outer = groups[place[child]], groups[place[parent]]
        if not (inner.is_traced or outer.is_traced):
            _check_nested(inner, outer)
    return {place[child]: place[parent] for child, parent in nested.items()}


def _check_nested(inner, outer):
    found = np.zeros(inner.codes.max() + 1, np.int64)
    found[inner.codes] = outer.codes
    if wrong := np.flatnonzero(found[inner.codes] != outer.codes).tolist():
        level = inner.codes[wrong[0]]
        homes = np.unique(outer.codes[inner.codes == level])
        raise ValueError(
            f"{inner.key!r} is said to lie in {outer.key!r}, but its level {level} is in "
            f"{homes[0]} and {homes[1]}: "
            "number the levels through, so that each has one code of its own"
        )
