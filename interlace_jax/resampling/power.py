"""Power by simulation: new data from a fit with another effect and more levels, refitted, tested, counted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import scipy

from ..design.design import Design
from ..design.determinacy import independent_columns
from ..many.many import Many
from ..many.responses import Responses
from ..many.run import run_all
from ..models.fitted import FittedModel, check_fit
from ..models.simulation import draw_responses
from ..support.arguments import check_level, check_mapping, numbers, one_of, whole_number
from ..support.progress import progress_bar
from .regrouping import factor_named, regrouped


def power(
    fit: FittedModel,
    coefficient: str,
    effect: float | Iterable[float] | None = None,
    n_levels: Mapping[str, int | Iterable[int]] | None = None,
    nsim: int = 1000,
    *,
    alpha: float = 0.05,
    df_method: str = "satterthwaite",
    seed: Any = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Power of the t test of a coefficient, for effects of several sizes and several numbers of levels.

    Data are simulated from the fit: its design, its other coefficients, its variances. All effects are tested on the
    same draws, so that curves are smooth.

    Parameters
    ----------
    fit
        Of a pilot study, or of data like those planned.
    coefficient
        A name in `fit.fe_params`.
    effect
        True values of the coefficient, by default the estimate. 0 gives the rate of false alarms.
    n_levels
        Numbers of levels by grouping factor, `{"subject": [20, 40]}`: levels beyond those of the fit are copies of its
        levels in their order, row by row, with random effects of their own. With several factors, all combinations.
    nsim
        Simulated data sets for each combination.
    alpha
        Level of the two-sided test.
    df_method
        `"satterthwaite"` or `"normal"`.
    seed
        Anything that `numpy.random.SeedSequence` takes; the same seed gives the same draws.
    progress
        Show a progress bar; by default when it takes longer than a second.

    Returns
    -------
    A row for each effect and combination: `effect`, a column per factor of `n_levels`, `nobs`, `power`, `lower` and
    `upper` (Wilson's 95% interval for the simulation error), and the shares of `converged` and `singular` fits. A data
    set that cannot be fitted counts as no detection.
    """
    check_fit("power", fit)
    fit.model.engine.require("power")
    design = fit.design
    if coefficient not in design.columns:
        raise ValueError(f"there is no coefficient {coefficient!r}; there are {', '.join(map(repr, design.columns))}")
    one_of("df_method", df_method, ("satterthwaite", "normal"))
    j = design.columns.index(coefficient)
    whole_number("nsim", nsim, 1)
    check_level(alpha, "alpha")
    check_mapping("n_levels", n_levels, '{"subject": [20, 40]}')
    effects = np.atleast_1d(fit.estimate.beta[j] if effect is None else numbers("effect", effect))
    sizes = {name: np.atleast_1d(m).tolist() for name, m in (n_levels or {}).items()}
    _check_sizes(design, sizes)
    combinations = list(itertools.product(*sizes.values()))
    seeds = np.random.SeedSequence(seed).spawn(len(combinations))
    rows = []
    bar = progress_bar(len(combinations) * len(effects), "cell", "power", progress is not False)
    for levels, own_seed in zip(combinations, seeds, strict=True):
        wanted = dict(zip(sizes, levels, strict=True))
        larger = extended(design, wanted)
        beta = fit.estimate.beta.copy()
        beta[j] = 0.0
        rng = np.random.default_rng(own_seed)
        Y = draw_responses(larger, beta, fit.Lambdas, fit.level_roots, fit.theta, fit.sigma, nsim, rng)
        for value in effects:
            many = _refitted(fit, larger, Y + value * larger.X[:, [j]], df_method)
            rows.append(dict(effect=value) | wanted | _counted(many, coefficient, alpha))
            bar.update()
    bar.close()
    return pd.DataFrame(rows).sort_values(["effect", *sizes], ignore_index=True)


def extended(design: Design, n_levels: Mapping[str, int]) -> Design:
    """The design with so many levels of each factor: the first ones, or copies of all in turn."""
    if n_levels and (tied := [f.name for f in design.factors if f.across is not None]):
        raise ValueError(f"n_levels needs levels that are independent, but those of {tied[0]} covary as cov says")
    for name, m in n_levels.items():
        factor = factor_named(design, name)
        design = regrouped(design, factor, np.arange(m) % len(factor.levels))
    if len(independent_columns(design.X)) < design.X.shape[1]:
        raise ValueError(f"with {dict(n_levels)} levels the coefficients cannot be told apart: take more levels")
    return replace(design, index=pd.RangeIndex(len(design.X)), rows=np.arange(len(design.X)))


def _check_sizes(design: Design, sizes: Mapping[str, list[int]]) -> None:
    for name, counts in sizes.items():
        factor_named(design, name)
        if not all(isinstance(m, int) and m > 1 for m in counts):
            raise ValueError(f"n_levels[{name!r}] must be whole numbers above 1, not {counts}")


def _refitted(fit: FittedModel, design: Design, Y: np.ndarray, df_method: str) -> Many:
    arguments = fit.model.arguments
    work = Responses(design, fit.model.data, Y, pd.RangeIndex(Y.shape[1]), np.arange(len(Y)), arguments)
    table = run_all(work, fit.method, progress=False)

    def single(place: int) -> FittedModel:
        return fit.refitted(replace(design, y=Y[:, place]), df_method=df_method)

    return Many(work, fit.method, df_method, table, single)


def _counted(many: Many, coefficient: str, alpha: float) -> dict[str, Any]:
    n, detected = len(many), int((many.fe_pvalues[coefficient] < alpha).sum())
    interval = scipy.stats.binomtest(detected, n).proportion_ci(method="wilson")
    return dict(
        nobs=int(many.nobs.max()),
        power=detected / n,
        lower=interval.low,
        upper=interval.high,
        converged=many.converged.mean(),
        singular=many.is_singular.mean(),
    )
