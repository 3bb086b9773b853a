"""Names and values of the covariance parameters as users read them: Lambdas, SDs, correlations,
tables of them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..design.grouping import Factor
from ..numerics.covariance import parameters
from ..numerics.covariance.parameters import natural
from ..runtime.calls import run
from ..runtime.compilation import jit
from ..support.later import jax, jnp


def varcov(covariances: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Covariance matrices by factor, terms x terms, as one: block diagonal over (factor, term) when
    there are several.

    Variances are in squared units of the response.
    """
    if not covariances:
        return pd.DataFrame()
    if len(covariances) == 1:
        return next(iter(covariances.values()))
    keys = pd.MultiIndex.from_tuples(
        [(name, column) for name, S in covariances.items() for column in S.columns]
    )
    whole, start = np.zeros((len(keys),) * 2), 0
    for S in covariances.values():
        end = start + len(S)
        whole[start:end, start:end] = S
        start = end
    return pd.DataFrame(whole, index=keys, columns=keys)


def varcorr_table(
    factors: Sequence[Factor], covariances: Mapping[str, pd.DataFrame], scale: float
) -> pd.DataFrame:
    """Variances and covariances in lme4's order: columns `grp`, `var1`, `var2`, `vcov`, `sdcor`.

    Term by term the variances, then the covariances of its columns; last the residual variance
    `scale`. `sdcor` is the standard deviation, and in rows of two columns the correlation (NaN when
    one of them does not vary).
    """
    rows: list[tuple] = []
    for block in _blocks(factors, covariances):
        k, S, R = len(block.columns), block.covariance, block.correlations
        rows += [(block.factor, block.columns[i], None, S[i, i], block.sd[i]) for i in range(k)]
        pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
        rows += [
            (block.factor, block.columns[i], block.columns[j], S[i, j], R[i, j]) for i, j in pairs
        ]
    rows.append(("Residual", None, None, scale, np.sqrt(scale)))
    return pd.DataFrame(rows, columns=["grp", "var1", "var2", "vcov", "sdcor"])


@dataclass(frozen=True)
class _Block:
    """The columns of a factor that may correlate; independent of its others."""

    factor: str
    columns: tuple[str, ...]
    covariance: np.ndarray

    @property
    def sd(self) -> np.ndarray:
        return np.sqrt(np.diag(self.covariance))

    @property
    def correlations(self) -> np.ndarray:
        return _correlations(self.covariance)


def _blocks(factors: Iterable[Factor], covariances: Mapping[str, pd.DataFrame]) -> Iterator[_Block]:
    for f in factors:
        S, ends = covariances[f.name].to_numpy(), np.cumsum(f.sizes)
        for start, end in zip(ends - f.sizes, ends, strict=True):
            yield _Block(f.name, f.columns[start:end], S[start:end, start:end])


def _correlations(S: np.ndarray) -> np.ndarray:
    sd = np.sqrt(np.diag(S))
    with np.errstate(divide="ignore", invalid="ignore"):
        return S / sd[:, None] / sd


def component_pairs(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Columns (i, j) of every row of `varcorr` for one factor: per term the variances, then the
    covariances.
    """
    pairs, start = [], 0
    for size in sizes:
        term = range(start, start + size)
        pairs += [(i, i) for i in term] + [(i, j) for i in term for j in term if j > i]
        start += size
    return pairs


def component_name(f: Factor, i: int, j: int) -> str:
    """lme4's name of the SD of column i (= j) of a factor, or of its correlation with a later
    column j.
    """
    return (
        f"sd_{f.columns[i]}|{f.name}" if i == j else f"cor_{f.columns[j]}.{f.columns[i]}|{f.name}"
    )


def component_names(factors: Sequence[Factor]) -> list[str]:
    """Names of all SDs and correlations in the order of `varcorr`, and `sigma`."""
    return [
        *(component_name(f, i, j) for f in factors for i, j in component_pairs(f.sizes)),
        "sigma",
    ]


def relative_factors(factors: Sequence[Factor], theta: np.ndarray) -> list[np.ndarray]:
    """Lambda (..., k, k) of every factor from the user's theta (..., d)."""
    found, ends = [], np.cumsum([f.block.size for f in factors], dtype=int)
    for f, values in zip(factors, np.split(theta, ends, axis=-1)[:-1], strict=True):
        if f.block.is_pattern:
            Lam = np.zeros((*theta.shape[:-1], len(f.columns), len(f.columns)))
            Lam[(..., *np.array(f.block.parameters).T)] = values[..., : f.block.own]
        else:
            lanes = run(
                _factors_of_lanes, values.reshape(-1, values.shape[-1]), f.block.of_any_levels
            )
            Lam = lanes.reshape(*theta.shape[:-1], *lanes.shape[-2:])
        found.append(Lam)
    return found


@functools.partial(jit, static_argnums=1)
def _factors_of_lanes(theta, block):
    return jax.vmap(lambda values: parameters.factors(values, (block,))[0])(theta)


def level_roots(factors: Sequence[Factor], theta: np.ndarray) -> list[np.ndarray | None]:
    """Per factor a root L (m, m) of the covariance K = L L' of its levels; None where they do
    not covary.
    """
    ends = np.cumsum([f.block.size for f in factors], dtype=int)
    parts = zip(factors, np.split(theta, ends)[:-1], strict=True)
    return [
        None if f.across is None else run(_root, values[f.block.own :], f.K, f.across)
        for f, values in parts
    ]


@functools.partial(jit, static_argnums=2)
def _root(x, K, across):
    return across.root(x, K)


def natural_names(f: Factor) -> list[str]:
    """Names of the parameters of a factor's structures: `rho|g`, `length|g`."""
    within = () if f.block.is_pattern else f.within.names(len(f.columns))
    across = () if f.across is None else f.across.names
    return [f"{name}|{f.name}" for name in (*within, *across)]


def natural_values(factors: Sequence[Factor], theta: np.ndarray) -> np.ndarray:
    """The parameters of all structures (..., r), in the order of `natural_names`, from the
    user's theta (..., d).
    """
    blocks = tuple(f.block.of_any_levels for f in factors)
    if not any(map(natural_names, factors)):
        return np.empty((*theta.shape[:-1], 0))
    lanes = run(_natural_of_lanes, theta.reshape(-1, theta.shape[-1]), blocks)
    return lanes.reshape(*theta.shape[:-1], -1)


@functools.partial(jit, static_argnums=1)
def _natural_of_lanes(theta, blocks):
    return jax.vmap(lambda values: jnp.concatenate(natural(values, blocks)))(theta)


def theta_names(f: Factor) -> list[str]:
    """Names of the entries of theta: lme4's `g.(Intercept)`, `g.x.(Intercept)`, `g.x` for those of
    a Lambda; of a structure its `g.scale` and, as they are searched on a scale of their own,
    `g.free(rho)`.
    """
    free = [f"{f.name}.free({name.rpartition('|' + f.name)[0]})" for name in natural_names(f)]
    if not f.block.is_pattern:
        return [f"{f.name}.scale", *free]
    names = f.columns
    own = [
        f"{f.name}.{names[j]}" if i == j else f"{f.name}.{names[i]}.{names[j]}"
        for i, j in f.block.parameters
    ]
    return own + free
