"""Fitted values and predictions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .design import Design, new_data


def fitted_values(design: Design, beta: np.ndarray, modes: Sequence[np.ndarray]) -> np.ndarray:
    """X beta + Z b + offset for the rows of the fit: (n,)."""
    return design.X @ beta + _random_part(
        modes, [f.codes for f in design.factors], [f.Z for f in design.factors], design.offset
    )


def _random_part(modes, codes, Z, offset):
    total = 0.0 if offset is None else offset
    for b, code, z in zip(modes, codes, Z, strict=True):
        total = total + np.where(code >= 0, np.einsum("nk,nk->n", z, b[code]), 0.0)
    return total


def predict(
    design: Design,
    beta: np.ndarray,
    modes: Sequence[np.ndarray],
    data: Any = None,
    include_re: bool = True,
    allow_new_levels: bool = True,
    offset: str | Iterable[float] | None = None,
) -> pd.Series:
    """See `Fit.predict`."""
    if data is None:
        used = modes if include_re else [np.zeros_like(b) for b in modes]
        return pd.Series(fitted_values(design, beta, used), index=design.index)
    new = new_data(design, data, offset, random=include_re)
    if not allow_new_levels:
        for factor, codes in zip(design.factors, new.codes, strict=False):
            if unseen := np.count_nonzero((codes < 0) & ~new.missing):
                raise ValueError(
                    f"{unseen} rows of newdata have levels of {factor.name!r} that the fit has not seen; "
                    "allow_new_levels=True predicts the population value for them"
                )
    random = _random_part(modes if include_re else (), new.codes, new.Z, new.offset)
    return pd.Series(new.X @ beta + random, index=new.index)
