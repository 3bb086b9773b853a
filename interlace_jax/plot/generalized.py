"""What plots show of generalised models: names of scales, means, counts. Without plotnine."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
import pandas as pd

from ..diagnostics.generalized_findings import residuals_at_draws
from ..models import response
from ..models.generalized import FittedGeneralizedModel
from ..models.linear_predictor import _of_fit
from ..models.simulation import new_responses
from ..numerics.families.family import Ordinal
from ..result import Fit

BARS = 40  # of a rootogram
STEPS = 40  # of Newton's method for the estimates of a level alone
LONGEST = 2.0  # of these steps, on the scale of the link
FOUND = 1e-6  # step at which they have ended


def is_generalized(fit: Fit) -> TypeGuard[FittedGeneralizedModel]:
    """Whether a fit has a family."""
    return isinstance(fit, FittedGeneralizedModel)


def link_scale(fit: Fit) -> str:
    """What coefficients and random effects are measured in."""
    name = str(fit.design.response)
    if not is_generalized(fit) or fit.family.link == "identity":
        return name
    words = {"logit": "log odds of", "log": "log"}
    return f"{words.get(fit.family.link, fit.family.link)} {outcome(fit)}"


def ratio(fit: Fit) -> str:
    """What coefficients become by the exponential function."""
    names = {"logit": "odds ratio", "log": "ratio"}
    return names.get(fit.family.link, "exp(coefficient)") if is_generalized(fit) else "ratio"


def outcome(fit: Fit) -> str:
    """The response, or which outcome of it is modelled."""
    seen = fit.design.observed
    return str(fit.design.response) if seen is None or seen.outcome is None else seen.outcome


def mean_name(fit: Fit) -> str:
    """What means on the scale of the response are called."""
    if not is_generalized(fit) or isinstance(fit.family, Ordinal):
        return f"mean {link_scale(fit)}"
    if fit.family.has_trials:
        return f"probability of {outcome(fit)}"
    beside = " beside extra zeros" if hasattr(fit.family, "base") else ""
    return f"mean {fit.design.response}{beside}"


def observed(fit: Fit) -> np.ndarray:
    """Responses (n,), proportions where there are trials."""
    return fit.design.y if not is_generalized(fit) else fit.design.y / fit.design.observed.m


def reach(
    fit: Fit, x: np.ndarray, position: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """From where to where on x (n,) the line of each of `count` levels goes; position: of the rows.

    Curved lines end with the data of their level, as beyond them they may go anywhere.
    """
    low, high = np.full(count, x.min()), np.full(count, x.max())
    if is_generalized(fit) and fit.family.link != "identity":
        own = pd.Series(x[position >= 0]).groupby(position[position >= 0])
        low, high = own.min().to_numpy(), own.max().to_numpy()
    return low, high


def independent_residuals(fit: Fit) -> tuple[np.ndarray, str]:
    """Residuals (n,) of one size under the model, and what they are called."""
    if is_generalized(fit):
        found = residuals_at_draws(fit, np.random.default_rng(0))
        if found is not None:
            return found, "quantile residual"
    if covary(fit):
        return fit.residuals("normalized").to_numpy(), "normalized residual"
    return fit.residuals("pearson").to_numpy(), "residual"


def covary(fit: Fit) -> bool:
    """Whether residuals of one subject do."""
    return fit.design.residual is not None and fit.design.residual.is_correlated


def means(fit: Fit, eta: np.ndarray) -> np.ndarray:
    """Expected responses at linear predictors eta (n,).

    Numbers of the family are those of all rows: where they differ by row, and the mean depends on
    them, there is no such line.
    """
    if not is_generalized(fit):
        return eta
    if isinstance(fit.family, Ordinal):
        raise ValueError("an ordinal response has no line of means: plot.effects shows its link")
    if hasattr(fit.family, "base") and any(p.D is not None for p in fit.design.predictors):
        raise ValueError(
            "lines of means depend on the predictors of zero_inflation= and dispersion= here: "
            "predict() has them for rows of your own"
        )
    free = [np.full(len(eta), a.mean()) for a in fit.free_rows(_of_fit(fit.design))]
    return response.mean(fit.family, eta, free)


def own_estimates(fit: FittedGeneralizedModel, g: int) -> np.ndarray:
    """Effects (m, k) of every level of a factor by maximum likelihood in its rows alone.

    All other effects are as in the fit. NaN where there is no finite estimate, as for a level with
    one outcome only.
    """
    design, f, e = fit.design, fit.design.factors[g], fit.estimate
    b, free = fit.mode_arrays[g].copy(), fit.free_rows(_of_fit(design))
    rest = e.eta - np.einsum("nk,nk->n", f.Z, b[f.codes])
    m, k = np.ones(fit.nobs) * design.observed.m, len(f.columns)
    step = np.zeros_like(b)
    for _ in range(STEPS):
        eta = rest + np.einsum("nk,nk->n", f.Z, b[f.codes])
        score, W = response.derivatives(fit.family, design.y, design.w, m, eta, free)
        slope, curvature = np.zeros_like(b), np.zeros((len(b), k, k))
        np.add.at(slope, f.codes, f.Z * score[:, None])
        np.add.at(curvature, f.codes, W[:, None, None] * f.Z[:, :, None] * f.Z[:, None, :])
        step = np.einsum("mkl,ml->mk", np.linalg.pinv(curvature, rcond=1e-10), slope)
        size = np.abs(step).max(1, keepdims=True)
        b = b + step * np.minimum(1.0, LONGEST / np.maximum(size, LONGEST))
    rank = np.linalg.matrix_rank(curvature, tol=1e-8)
    known = (rank == k) & (np.abs(step).max(1) < FOUND) & np.isfinite(b).all(1)
    return np.where(known[:, None], b, np.nan)


def frequencies(fit: FittedGeneralizedModel, nsim: int, level: float, seed: Any) -> pd.DataFrame:
    """`first last observed expected lower upper`: rows by count, in the data and in simulated ones.

    Of many values the last bar has all that are beyond; where most counts are large, values share
    bars.
    """
    y, drawn = fit.design.y, new_responses(fit, nsim, seed)
    most = int(max(y.max(), drawn.max()))
    width = max(1, int(np.ceil((np.quantile(y, 0.9) + 1) / BARS)))
    edges = np.arange(min(BARS, most // width + 1) + 1) * width
    last = np.append(edges[1:-1] - 1, most)
    edges[-1] = most + 1
    simulated = np.array([np.histogram(column, edges)[0] for column in drawn.T])
    sides = np.quantile(simulated, [0.5 - level / 2, 0.5 + level / 2], axis=0)
    return pd.DataFrame(
        {
            "first": edges[:-1],
            "last": last,
            "observed": np.histogram(y, edges)[0],
            "expected": simulated.mean(0),
            "lower": sides[0],
            "upper": sides[1],
        }
    )
