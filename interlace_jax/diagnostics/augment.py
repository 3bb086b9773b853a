"""Fitted values, residuals, leverages and influence beside the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import narwhals.stable.v1 as nw
import numpy as np
import pandas as pd

from ..design.files import refuse_scanned
from .influence import influence
from .residuals import KINDS, LARGEST, leverage, residuals

if TYPE_CHECKING:
    from ..result import Fit


def rows_used(fit: Fit) -> pd.DataFrame:
    """The rows of the user's data that were used, as pandas."""
    refuse_scanned(fit.model.data, "there is no frame to add to")
    return nw.from_native(fit.model.data, eager_only=True).to_pandas().iloc[fit.model.design.rows]


def augment(fit: Fit, influence_method: str | None = "onestep") -> pd.DataFrame:
    """See `Fit.augment`."""
    frame = rows_used(fit)
    has_leverages = fit.model.core.name == "dense"
    if influence_method is not None:
        fit.model.core.require_matrix("augment() with influence (without: influence=None)")
    left_out = {"normalized": fit.nobs > LARGEST, "standardized": not has_leverages}
    columns: dict[str, Any] = {".fitted": fit.fittedvalues, ".population": fit.predict(include_re=False)}
    columns |= {f".resid_{kind}": residuals(fit, kind) for kind in KINDS if not left_out.get(kind)}
    if has_leverages:
        columns |= {f".leverage_{name}": values for name, values in leverage(fit).items()}
    if influence_method is not None:
        found = influence(fit, None, influence_method)
        columns |= {f".{name}": values for name, values in found.items()}
    return frame.assign(**{name: np.asarray(values) for name, values in columns.items()})
