"""What scikit-learn hands over, as the library takes it: frames, and the names of groups."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from sklearn.utils.validation import check_consistent_length, column_or_1d, validate_data

from ..design.frames import as_frame, get_column

GROUPS = "groups"  # the column that holds the groups given to fit


def frame_of(estimator: Any, X: Any, groups: Any, reset: bool) -> pd.DataFrame:
    """X as pandas, checked, with the groups, if there are any, as a column."""
    if nw.dependencies.is_into_dataframe(X):
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        source = as_frame(X)
        columns = [get_column(source, name, "X") for name in source.columns]
    else:
        X = validate_data(estimator, X, reset=reset, ensure_min_samples=2 if reset else 1)
        columns = list(X.T)
    names = getattr(estimator, "feature_names_in_", [f"x{j}" for j in range(len(columns))])
    frame = pd.DataFrame(dict(zip(names, columns, strict=True)))
    if groups is None:
        return frame
    if GROUPS in frame:
        raise ValueError(f"X has a column {GROUPS!r} already: rename it, or do not give groups")
    groups = column_or_1d(groups, input_name="groups")
    check_consistent_length(frame, groups)
    return frame.assign(**{GROUPS: groups})


def group_names(groups: str | int | Iterable[str | int] | None, names: list[str]) -> list[str]:
    """Names of the columns of X that `groups` has by name or by position."""
    given = [groups] if isinstance(groups, str | Integral) else list(groups or ())
    if wrong := [g for g in given if isinstance(g, Integral) and not 0 <= g < len(names)]:
        raise ValueError(f"groups={wrong[0]} is no position among the {len(names)} columns of X")
    return [names[g] if isinstance(g, Integral) else g for g in given]


def complete(predictions: pd.Series) -> np.ndarray:
    """Predictions as an array; refused where X has missing values."""
    if missing := np.count_nonzero(predictions.isna()):
        raise ValueError(
            f"X has missing values in {missing} rows, for which nothing can be predicted: impute "
            "them"
        )
    return predictions.to_numpy()
