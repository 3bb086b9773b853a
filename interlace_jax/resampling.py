"""New responses from a fitted model, and what refitting them says about the estimates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .design import Design
from .errors import one_of
from .many import Many, Responses, run_all

if TYPE_CHECKING:
    from .result import Fit


def simulate(
    design: Design, beta: np.ndarray, Lambdas: list[np.ndarray], sigma: float, nsim: int, seed: Any
) -> np.ndarray:
    """Responses (n, nsim) for the rows used, with new random effects and new residuals."""
    rng = np.random.default_rng(seed)
    mean = design.X @ beta + (0.0 if design.offset is None else design.offset)
    Y = np.repeat(mean[:, None], nsim, axis=1)
    for f, Lam in zip(design.factors, Lambdas, strict=True):
        b = sigma * rng.standard_normal((len(f.levels), nsim, len(f.columns))) @ Lam.T
        Y += np.einsum("nk,nrk->nr", f.Z, b[f.codes])
    spread = sigma if design.weights is None else (sigma / np.sqrt(design.weights))[:, None]
    return Y + spread * rng.standard_normal(Y.shape)


class Bootstrap:
    """Parametric bootstrap: a model refitted to responses simulated from its fit.

    Every replicate counts: those that are singular, or did not converge, are in the estimates and in `outcomes`.
    """

    def __init__(self, fit: Fit, Y: np.ndarray, progress: bool | None):
        self.fit = fit
        model = fit.model
        work = Responses(
            model.design, model.data, Y, pd.RangeIndex(Y.shape[1]), np.arange(len(Y)), model.arguments, fit.estimate.t
        )
        table = run_all(work, fit.method, progress=progress)
        self.many = Many(work, fit.method, "satterthwaite", table, lambda place: fit.refit(Y[:, place]))

    @property
    def estimates(self) -> pd.DataFrame:
        """Replicates x parameters: coefficients, `sd_x|g`, `cor_x.(Intercept)|g`, `sigma`."""
        return self.many.parameters

    @property
    def bse(self) -> pd.Series:
        """Standard deviations of the replicates."""
        return self.estimates.std()

    @property
    def outcomes(self) -> pd.Series:
        """How many replicates ended with which status, and how many are `singular`."""
        return pd.concat([self.many.status.value_counts(), pd.Series({"singular": int(self.many.is_singular.sum())})])

    def confint(self, level: float = 0.95, kind: str = "percentile") -> pd.DataFrame:
        """Intervals `lower upper` of every parameter: "percentile", or "basic" (reflected about the estimate)."""
        one_of("kind", kind, ("percentile", "basic"))
        low, high = (self.estimates.quantile(q) for q in ((1 - level) / 2, (1 + level) / 2))
        if kind == "basic":
            low, high = 2 * self.fit.parameters - high, 2 * self.fit.parameters - low
        return pd.DataFrame({"lower": low, "upper": high})

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items())
        return f"<{len(self.many)} bootstrap replicates of {self.fit.model.design.formula}: {counts}>"
