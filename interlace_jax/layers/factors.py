"""What a layer of random effects is made of: factors, levels, columns. Where it changes, JAX
compiles again.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np

from ..numerics.covariance.block import Block
from ..numerics.covariance.parameters import factors as covariance_factors
from ..support.arguments import listed, whole_number
from ..support.later import is_jax_array, jnp


@dataclass(frozen=True)
class Factors:
    """Grouping factors by name. Hashable: a network keeps it as metadata, beside its parameters."""

    names: tuple[str, ...]
    levels: tuple[int, ...]
    sizes: tuple[tuple[int, ...], ...]
    "Per factor the columns of its mutually uncorrelated terms; the first column is the intercept."
    nested: tuple[tuple[str, str], ...] = ()
    "Pairs of a factor and the one it lies in."

    @classmethod
    def of(
        cls,
        groups: Mapping[str, int],
        slopes: Mapping[str, int] | None = None,
        nested: Mapping[str, str] | None = None,
        terms: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Factors:
        """From how many levels and slopes each factor has, as the layers take them; refused in
        words.
        """
        slopes, nested, terms = slopes or {}, nested or {}, terms or {}
        if not isinstance(groups, Mapping) or not groups:
            raise ValueError(
                f'groups is how many levels a factor has, as in {{"subject": 18}}, not {groups!r}'
            )
        for argument, given in ("slopes", slopes), ("nested", nested), ("terms", terms):
            if unknown := [name for name in given if name not in groups]:
                raise ValueError(f"{argument} has {unknown[0]!r}, but groups has {listed(groups)}")
        if unknown := [parent for parent in nested.values() if parent not in groups]:
            raise ValueError(f"nested has {unknown[0]!r}, but groups has {listed(groups)}")
        for name, levels in groups.items():
            whole_number(f"groups[{name!r}], how many levels there are,", levels, 1)
            whole_number(
                f"slopes[{name!r}], how many columns have a slope,", slopes.get(name, 0), 0
            )
        sizes = tuple(
            _sizes(name, 1 + int(slopes.get(name, 0)), terms.get(name)) for name in groups
        )
        return cls(tuple(groups), tuple(map(int, groups.values())), sizes, tuple(nested.items()))

    @functools.cached_property
    def columns(self) -> tuple[int, ...]:
        """Per factor the random effects of a level: 1 for an intercept, and the slopes."""
        return tuple(sum(sizes) for sizes in self.sizes)

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The factors as the kernels know them."""
        return tuple(Block(m, sizes) for m, sizes in zip(self.levels, self.sizes, strict=True))

    @functools.cached_property
    def size(self) -> int:
        """How many covariance parameters there are."""
        return sum(block.size for block in self.blocks)

    @functools.cached_property
    def lies_in(self) -> dict[int, int]:
        """Places of factors that lie in others, and of those."""
        return {self.names.index(child): self.names.index(parent) for child, parent in self.nested}

    @functools.cached_property
    def _diagonal(self) -> tuple[np.ndarray, np.ndarray]:
        """Which parameters are diagonal entries, and for each the place of the diagonal entry of
        its row.
        """
        is_diagonal, own, start = [], [], 0
        for block in self.blocks:
            entries = block.parameters
            is_diagonal += [row == column for row, column in entries]
            own += [start + entries.index((row, row)) for row, _ in entries]
            start += len(entries)
        return np.array(is_diagonal), np.array(own, np.int32)

    def theta(self, raw):
        """lme4's theta (d,) of free numbers (d,): L_ii = exp(a_i), L_ij = exp(a_i) c_ij, the SDs
        relative to sigma.

        All zeros are independent effects with the SD of the residual. c_ij has no unit, and a_i is
        only shifted where that of a feature changes, so that one learning rate suits them all.
        """
        is_diagonal, own = self._diagonal
        return jnp.exp(raw[own]) * jnp.where(is_diagonal, 1.0, raw)

    def raw(self, theta):
        """The free numbers (d,) of a theta (d,) whose diagonal entries are positive."""
        is_diagonal, own = self._diagonal
        return jnp.where(is_diagonal, jnp.log(theta[own]), theta / theta[own])

    def with_levels(self, levels: Mapping[str, int] | None) -> Factors:
        """The same factors with other numbers of levels, as the codes of a batch have them."""
        if unknown := [name for name in levels or {} if name not in self.names]:
            raise ValueError(f"levels has {unknown[0]!r}, but this layer has {listed(self.names)}")
        own = dict(zip(self.names, self.levels, strict=True)) | dict(levels or {})
        return replace(self, levels=tuple(map(int, own.values())))

    def without(self, names: Iterable[str]) -> tuple[Factors, np.ndarray]:
        """The other factors, and the places of their parameters."""
        kept = [i for i, name in enumerate(self.names) if name not in names]
        if not kept:
            raise ValueError(
                "given has effects of every factor: at least one must be left to be integrated out"
            )
        ends = np.cumsum([block.size for block in self.blocks])
        places = [np.arange(ends[i] - self.blocks[i].size, ends[i]) for i in kept]
        links = tuple(link for link in self.nested if not set(link) & set(names))
        found = Factors(
            names=tuple(self.names[i] for i in kept),
            levels=tuple(self.levels[i] for i in kept),
            sizes=tuple(self.sizes[i] for i in kept),
            nested=links,
        )
        return found, np.concatenate(places)

    def relative_factors(self, raw) -> list[Any]:
        """Lambda (k, k) of every factor."""
        return covariance_factors(self.theta(raw), self.blocks)

    def read(
        self, groups: Mapping[str, Any], features: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Codes, 32-bit Int[n] by factor, -1 for unseen ids; and features, Float[n, slopes], of
        those with slopes.

        Refused in words: other factors than these, and shapes that do not fit.
        """
        if not isinstance(groups, Mapping) or set(groups) != set(self.names):
            given = listed(groups) if isinstance(groups, Mapping) else type(groups).__name__
            raise ValueError(f"groups has {given}; this layer takes codes of {listed(self.names)}")
        slopes = {name: k - 1 for name, k in zip(self.names, self.columns, strict=True) if k > 1}
        if set(features or {}) != set(slopes):
            wanted = ", ".join(f"{name!r}: (n, {k})" for name, k in slopes.items())
            raise ValueError(
                f"features has {listed(features or {})}; this layer takes {{{wanted}}}"
            )
        n = np.shape(groups[self.names[0]])
        for name in self.names:
            if np.shape(groups[name]) != n or len(n) != 1:
                raise ValueError(
                    f"groups[{name!r}] has shape {np.shape(groups[name])}; codes are (n,), one a "
                    "row"
                )
        for name, k in slopes.items():
            shape = np.shape(features[name])
            if shape != (*n, k) and not (k == 1 and shape == n):
                raise ValueError(
                    f"features[{name!r}] has shape {shape}; for {n[0]} rows it must be {(*n, k)}"
                )
        codes = {
            name: _codes(name, groups[name], m)
            for name, m in zip(self.names, self.levels, strict=True)
        }
        own = jnp.result_type(float)
        return codes, {
            name: jnp.asarray(features[name], own).reshape(*n, k) for name, k in slopes.items()
        }


def _codes(name, codes, levels):
    lib = jnp if is_jax_array(codes) else np
    codes = codes if is_jax_array(codes) else np.asarray(codes)
    if codes.dtype.kind not in "iu":
        raise TypeError(
            f"groups[{name!r}] has {codes.dtype}; codes are whole numbers, one for each level"
        )
    return lib.where((codes >= 0) & (codes < levels), codes, -1).astype(np.int32)


def _sizes(name, columns, terms):
    if terms is None:
        return (columns,)
    terms = (int(terms),) if isinstance(terms, Integral) else tuple(map(int, terms))
    if sum(terms) != columns or min(terms) < 1:
        raise ValueError(
            f"terms[{name!r}] is {terms}, but with its intercept {name!r} has {columns} columns"
        )
    return terms
