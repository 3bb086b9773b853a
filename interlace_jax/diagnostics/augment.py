"""Fitted values, residuals, leverages and influence beside the data."""

from __future__ import annotations

from typing import Any

import narwhals.stable.v1 as nw
import numpy as np
import pandas as pd

from ..design.files import refuse_scanned
from ..inference.prediction import predict
from ..models.covariance import LARGEST
from ..models.fitted import FittedModel
from .influence import influence as influence_of_rows
from .residuals import KINDS, leverage, residuals


def rows_used(fit: FittedModel) -> pd.DataFrame:
    """The rows of the user's data that were used, as pandas."""
    refuse_scanned(fit.model.data, "there is no frame to add to")
    return nw.from_native(fit.model.data, eager_only=True).to_pandas().iloc[fit.design.rows]


def augment(fit: FittedModel, influence: str | None = "onestep") -> pd.DataFrame:
    """The rows used as pandas, with columns `.fitted`, `.population` (without random effects),
    `.resid_conditional` and the other kinds, `.leverage_fixed` ..., and the measures of
    `influence`.

    influence: its method, "exact" or "onestep", or None. Normalized residuals are left out above
    5000 rows. A fit by the iterative core has no leverages, hence no standardized residuals either,
    and takes influence=None only.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.augment().iloc[:3, :6].round(2)
       Reaction  Days Subject  .fitted  .population  .resid_conditional
    0    249.56     0    S308   253.66       251.41               -4.10
    1    258.70     1    S308   273.33       261.87              -14.63
    2    250.80     2    S308   293.00       272.34              -42.20
    """
    frame = rows_used(fit)
    has_leverages = fit.model.engine.can("leverages")
    if influence is not None:
        fit.model.engine.require("deletion_beside_the_data")
    left_out = {"normalized": fit.nobs > LARGEST, "standardized": not has_leverages}
    columns: dict[str, Any] = {
        ".fitted": fit.fittedvalues,
        ".population": predict(fit, include_re=False),
    }
    columns |= {f".resid_{kind}": residuals(fit, kind) for kind in KINDS if not left_out.get(kind)}
    if has_leverages:
        columns |= {f".leverage_{name}": values for name, values in leverage(fit).items()}
    if influence is not None:
        found = influence_of_rows(fit, None, influence)
        columns |= {f".{name}": values for name, values in found.items()}
    return frame.assign(**{name: np.asarray(values) for name, values in columns.items()})
