"""A generalised model refitted without some of its rows, one fit after the other.

Rows left out have weight zero: all refits share the layout, and say what they predict for all rows.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from ..design.counts import check_response
from ..design.design import Design
from ..many.chunks import unfit_rows
from ..models.generalized import CompiledGeneralizedModel, FittedGeneralizedModel


def ending(fit: FittedGeneralizedModel) -> str:
    """How the search ended, or what separates the outcomes."""
    if fit.separation is not None:
        return f"separated: {fit.separation.message}"
    return "converged" if fit.converged else fit.optimum.status


def unfit(design: Design, used: np.ndarray) -> str | None:
    """Why the rows used (n,) do not determine the model."""
    if used.sum() <= design.X.shape[1]:
        return f"{used.sum()} rows that are left are too few"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            check_response(design.observed, design.y, used, design.response, design.index)
    except ValueError as err:
        return str(err)
    return unfit_rows(design, used, "that are left")


def fit_without(
    model: CompiledGeneralizedModel, used: np.ndarray, theta0: np.ndarray | None = None
) -> FittedGeneralizedModel:
    """The model fitted to the rows used (n,): the others have weight 0, and predictions all the
    same.
    """
    design = replace(model.design, weights=np.where(used, model.design.w, 0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return FittedGeneralizedModel.of(model.with_design(design), theta0=theta0)
