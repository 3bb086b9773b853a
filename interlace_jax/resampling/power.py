"""Power by simulation: new data from a fit with another effect and more levels, refitted,
tested, counted.
"""

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
from ..many.columns import Columns
from ..many.fits import ManyFits
from ..many.responses import Responses
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
    """Power of the t test of a coefficient, for effects of several sizes and several numbers of
    levels.

    Data are simulated from the fit: its design, its other coefficients, its variances. All effects
    are tested on the same draws, so that curves are smooth.

    Parameters
    ----------
    fit
        Of a pilot study, or of data like those planned.
    coefficient
        A name in `fit.fe_params`.
    effect
        True values of the coefficient, by default the estimate. 0 gives the rate of false alarms.
    n_levels
        Numbers of levels by grouping factor, `{"subject": [20, 40]}`: levels beyond those of the
        fit are copies of its levels in their order, row by row, with random effects of their own.
        With several factors, all combinations.
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
    A row for each effect and combination: `effect`, a column per factor of `n_levels`, `nobs`,
    `power`, `lower` and `upper` (Wilson's 95% interval for the simulation error), and the shares of
    `converged` and `singular` fits.
    `failed` counts the data sets that could not be fitted: they are no evidence, and all shares are
    of the others.

    Raises
    ------
    ValueError, TypeError
        For a coefficient or factor that the fit does not have, for numbers of levels that determine
        no model, and where no data set of a combination can be fitted.

    Examples
    --------
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> table = interlace_jax.power(
    ...     fit, "Days", [0, 5], {"Subject": 12}, nsim=20, seed=1, progress=False
    ... )
    >>> table[["effect", "Subject", "nobs", "power"]]
       effect  Subject  nobs  power
    0     0.0       12   120   0.10
    1     5.0       12   120   0.65
    """
    check_fit("power", fit)
    fit.model.engine.require("power")
    one_of("df_method", df_method, ("satterthwaite", "normal"))
    whole_number("nsim", nsim, 1)
    check_level(alpha, "alpha")
    effects = _effects(fit, coefficient, effect)
    wanted = _combinations(fit.design, n_levels)
    seeds = np.random.SeedSequence(seed).spawn(len(wanted))
    bar = progress_bar(len(wanted) * len(effects), "cell", "power", progress is not False)
    rows = []
    for levels, own_seed in zip(wanted, seeds, strict=True):
        larger = extended(fit.design, levels)
        draws = _draws(fit, larger, coefficient, nsim, own_seed)
        column = larger.X[:, [larger.columns.index(coefficient)]]
        for value in effects:
            many = _refitted(fit, larger, draws + value * column, df_method)
            rows.append(dict(effect=value) | levels | _counted(many, coefficient, alpha))
            bar.update()
    bar.close()
    return pd.DataFrame(rows).sort_values(["effect", *(n_levels or {})], ignore_index=True)


def _effects(
    fit: FittedModel, coefficient: str, effect: float | Iterable[float] | None
) -> np.ndarray:
    """True values of the coefficient, by default its estimate."""
    names = fit.design.columns
    if coefficient not in names:
        raise ValueError(
            f"there is no coefficient {coefficient!r}; there are {', '.join(map(repr, names))}"
        )
    estimate = fit.estimate.beta[names.index(coefficient)]
    return np.atleast_1d(estimate if effect is None else numbers("effect", effect))


def _combinations(
    design: Design, n_levels: Mapping[str, int | Iterable[int]] | None
) -> list[dict[str, int]]:
    """Every combination of numbers of levels, by the name of the factor."""
    check_mapping("n_levels", n_levels, '{"subject": [20, 40]}')
    sizes = {name: np.atleast_1d(m).tolist() for name, m in (n_levels or {}).items()}
    _check_sizes(design, sizes)
    return [dict(zip(sizes, levels, strict=True)) for levels in itertools.product(*sizes.values())]


def _draws(
    fit: FittedModel, design: Design, coefficient: str, nsim: int, seed: np.random.SeedSequence
) -> np.ndarray:
    """Responses (n, nsim) of a design, drawn from the fit with the coefficient at 0."""
    beta = fit.estimate.beta.copy()
    beta[design.columns.index(coefficient)] = 0.0
    rng = np.random.default_rng(seed)
    return draw_responses(
        design, beta, fit.Lambdas, fit.level_roots, fit.theta, fit.sigma, nsim, rng
    )


def extended(design: Design, n_levels: Mapping[str, int]) -> Design:
    """The design with so many levels of each factor: the first ones, or copies of all in turn."""
    tied = [f.name for f in design.factors if f.across is not None]
    if n_levels and tied:
        raise ValueError(
            f"n_levels needs levels that are independent, but those of {tied[0]} covary as cov says"
        )
    for name, m in n_levels.items():
        factor = factor_named(design, name)
        design = regrouped(design, factor, np.arange(m) % len(factor.levels))
    if len(independent_columns(design.X)) < design.X.shape[1]:
        raise ValueError(
            f"with {dict(n_levels)} levels the coefficients cannot be told apart: take more levels"
        )
    return replace(design, index=pd.RangeIndex(len(design.X)), rows=np.arange(len(design.X)))


def _check_sizes(design: Design, sizes: Mapping[str, list[int]]) -> None:
    for name, counts in sizes.items():
        factor_named(design, name)
        if not all(isinstance(m, int) and m > 1 for m in counts):
            raise ValueError(f"n_levels[{name!r}] must be whole numbers above 1, not {counts}")


def _refitted(fit: FittedModel, design: Design, Y: np.ndarray, df_method: str) -> ManyFits:
    arguments = fit.model.arguments
    work = Responses(
        design, fit.model.data, Columns(Y), pd.RangeIndex(Y.shape[1]), np.arange(len(Y)), arguments
    )

    def single(place: int) -> FittedModel:
        return fit.refitted(replace(design, y=Y[:, place]), df_method=df_method)

    return ManyFits.of(work, fit.method, df_method, single, progress=False)


def _counted(many: ManyFits, coefficient: str, alpha: float) -> dict[str, Any]:
    """Power and its interval among the data sets that could be fitted, and how the fits ended."""
    p = many.fe_pvalues[coefficient]
    is_fitted = p.notna()
    detected, n = int((p < alpha).sum()), int(is_fitted.sum())
    interval = scipy.stats.binomtest(detected, n).proportion_ci(method="wilson")
    return dict(
        nobs=int(many.nobs.max()),
        power=detected / n,
        lower=interval.low,
        upper=interval.high,
        converged=many.converged[is_fitted].mean(),
        singular=many.is_singular[is_fitted].mean(),
        failed=len(many) - n,
    )
