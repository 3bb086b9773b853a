"""The argument `cov`: covariance structures by the name of the grouping factor, given to the
factors of a design.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ..numerics.covariance.across import Kernel, Known, pair
from ..numerics.covariance.structures import Structure
from ..support.arguments import check_mapping, listed
from .grouping import Factor


def structured(factors: Sequence[Factor], cov: Mapping[str, Any] | None) -> tuple[Factor, ...]:
    """The factors with the structures that `cov` gives them by name."""
    if cov is None:
        return tuple(factors)
    names = [f.name for f in factors]
    if unknown := [name for name in cov if name not in names]:
        raise ValueError(
            f"cov has {unknown[0]!r}, which is no grouping factor; there are {listed(names)}"
        )
    return tuple(_structured(f, cov[f.name]) if f.name in cov else f for f in factors)


def snapshot_cov(cov: Any) -> Any:
    """The argument with the arrays of `Known` and `Kernel` as they are now."""
    return (
        {name: _copied(given) for name, given in cov.items()} if isinstance(cov, Mapping) else cov
    )


def _copied(given: Any) -> Any:
    if isinstance(given, tuple):
        return tuple(map(_copied, given))
    if not isinstance(given, Known | Kernel):
        return given
    name = "K" if isinstance(given, Known) else "coordinates"
    return replace(given, **{name: _own(getattr(given, name))})


def _own(held: Any) -> Any:
    """Arrays and frames copied, in tuples, lists and mappings too."""
    if isinstance(held, tuple | list):
        return type(held)(map(_own, held))
    if isinstance(held, Mapping):
        return {name: _own(inner) for name, inner in held.items()}
    return held.copy() if isinstance(held, np.ndarray | pd.DataFrame | pd.Series) else held


def tied_factors(cov: Any) -> list[str]:
    """Factors with structures that tie random effects together, so that there may be as many of
    them as rows.
    """
    check_mapping("cov", cov, '{"subject": AR1()}')
    pairs = {name: pair(given) for name, given in (cov or {}).items()}
    return [
        name
        for name, (within, across) in pairs.items()
        if across is not None or (within is not None and not within.pattern)
    ]


def _structured(f: Factor, given: Any) -> Factor:
    within, across = pair(given)
    if across is not None:
        f = replace(f, across=across.static, K=_ordered(f, across))
    if within is None:
        return f
    if within.independent:
        return replace(f, within=within, sizes=(1,) * len(f.columns))
    if len(f.sizes) > 1 and not within.pattern:
        raise ValueError(
            f"cov gives {f.name!r} the structure {type(within).__name__}, which is of all its "
            f"columns together, but its terms keep {listed(f.columns)} apart; write one term "
            "without ||, or copy the grouping column under another name for the others"
        )
    _check_structure(f, within)
    return replace(f, within=within)


def _check_structure(f: Factor, within: Structure) -> None:
    k = len(f.columns)
    names, start = within.names(k), within.start(k)
    if len(names) != len(start):
        raise ValueError(
            f"{type(within).__name__} has {len(names)} names, {names}, and {len(start)} start "
            f"values for {k} columns: there must be one each"
        )


def _ordered(f: Factor, across: Known | Kernel) -> Any:
    """The arrays of K in the order of the factor's levels."""
    what, given = (
        ("K", across.K) if isinstance(across, Known) else ("coordinates", across.coordinates)
    )
    both = isinstance(across, Known)
    if isinstance(given, pd.Series | pd.DataFrame):
        given = _by_label(f, given, what, both).to_numpy()
    m, shape = len(f.levels), np.shape(given)
    if not shape or shape[0] != m or (both and shape != (m, m)):
        raise ValueError(
            f"{what} of {f.name!r} is of shape {shape} for {m} levels; give one row a level in "
            "their sorted order, or a data frame labelled by the levels"
        )
    try:
        return (replace(across, K=given) if both else replace(across, coordinates=given)).data
    except ValueError as err:
        raise ValueError(f"cov of {f.name!r}: {err}") from None


def _by_label(
    f: Factor, frame: pd.Series | pd.DataFrame, what: str, both: bool
) -> pd.Series | pd.DataFrame:
    _check_labels(f, frame.index, f"rows of {what}")
    if both:
        _check_labels(f, frame.columns, f"columns of {what}")
    rows = frame.loc[f.levels]
    distances = (
        isinstance(frame, pd.DataFrame)
        and frame.shape[0] == frame.shape[1]
        and set(frame) == set(frame.index)
    )
    return rows[list(f.levels)] if both or distances else rows


def _check_labels(f: Factor, labels: pd.Index, where: str) -> None:
    if not labels.is_unique:
        raise ValueError(
            f"the {where} of {f.name!r} have {listed(labels[labels.duplicated()])} more than once"
        )
    if missing := [level for level in f.levels if level not in labels]:
        raise ValueError(f"the {where} of {f.name!r} lack the levels {listed(missing)}")
