"""What was fitted and found, as a paragraph in the style of the American Psychological
Association.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..models.fitted import FittedModel, check_fit
from ..models.parameters import _blocks
from ..support.arguments import check_level
from .numbers import decimals, degrees, interval, p_value, shown
from .tidy import tidy

METHODS = {"REML": "restricted maximum likelihood", "ML": "maximum likelihood"}
DDF = {
    "satterthwaite": "Tests and intervals use Satterthwaite's degrees of freedom.",
    "kenward-roger": "Tests and intervals use Kenward and Roger's standard errors and "
    "degrees of freedom.",
    "kenward-roger-linear": "Tests and intervals use Kenward and Roger's standard errors and df, "
    "linear.",
    "between-within": "Tests and intervals use between-within degrees of freedom.",
    "normal": "Tests and intervals take statistics to be normal.",
}
SHOWN = 12  # coefficients that a paragraph can bear


def report(fit: FittedModel, level: float = 0.95) -> str:
    """A paragraph for a paper: model, data, every coefficient with its interval and test, random
    effects, caveats.

    It says what was estimated, and no more: a coefficient that does not differ clearly from 0 is
    not called absent, and a fit that is singular or did not converge says so. level: of the
    intervals. Of more than 12 coefficients the first are written out. Returns text in one line;
    `textwrap.fill` breaks it.

    >>> print(interlace_jax.report(fit))
    """
    check_fit("report", fit)
    fit.model.engine.require("report")
    check_level(level)
    sentences = [_model(fit), _rows(fit), *_effects(fit, level), _spread(fit), *_caveats(fit)]
    return " ".join(sentences)


def _model(fit: FittedModel) -> str:
    what = "A linear mixed model" if fit.design.factors else "A linear model"
    parts = list(_random_parts(fit))
    if fit.design.residual is not None:
        parts.append(f"a covariance of the residuals ({fit.design.residual})")
    return (
        f"{what} of {fit.design.response} was fitted by {METHODS[fit.method]} "
        f"(formula: {fit.design.formula}), with {_listed(parts)}."
    )


def _random_parts(fit: FittedModel) -> Iterator[str]:
    for block in _blocks(fit.design.factors, fit.covariances):
        slopes = [name for name in block.columns if name != "(Intercept)"]
        parts = ["random intercepts"] * ("(Intercept)" in block.columns)
        if slopes:
            parts.append(f"random effects of {_listed(slopes)}")
        correlated = " (correlated)" if len(block.columns) > 1 else ""
        yield f"{' and '.join(parts)} by {block.factor}{correlated}"


def _rows(fit: FittedModel) -> str:
    levels = [f"{m} levels of {name}" for name, m in fit.ngroups.items()]
    groups = f" of {_listed(levels)}" if levels else ""
    dropped = (
        f"; {fit.n_dropped} further rows had missing values and were left out"
        if fit.n_dropped
        else ""
    )
    return f"It was fitted to {fit.nobs} observations{groups}{dropped}."


def _effects(fit: FittedModel, level: float) -> Iterator[str]:
    rows = list(tidy(fit, "fixed", level).itertuples())
    if not rows:
        yield "It has no fixed effects."
        return
    yield DDF[fit.df_method]
    for row in rows[:SHOWN]:
        yield _effect(row, level)
    if len(rows) > SHOWN:
        yield f"The other {len(rows) - SHOWN} coefficients are in the table."


def _effect(row: Any, level: float) -> str:
    places = decimals(row.std_error)
    numbers = f"b = {shown(row.estimate, places)}, SE = {shown(row.std_error, places)}"
    limits = f"{level * 100:g}% CI {interval(row.conf_low, row.conf_high, places)}"
    statistic = "z" if np.isinf(row.df) else f"t({degrees(row.df)})"
    p = p_value(row.p_value)
    test = (
        f"{statistic} = {shown(row.statistic, 2)}, p "
        f"{p.replace('<', '< ') if p.startswith('<') else f'= {p}'}"
    )
    if row.term == "Intercept":
        return f"The intercept was estimated as {numbers}, {limits}."
    if not np.isfinite(row.p_value):
        return (
            f"The coefficient of {row.term} was estimated as b = {shown(row.estimate, places)}, "
            "without a test."
        )
    outside = row.conf_low > 0.0 or row.conf_high < 0.0
    verdict = "differed from 0" if outside else "could not be told from 0"
    return f"The coefficient of {row.term} {verdict}, {numbers}, {limits}, {test}."


def _spread(fit: FittedModel) -> str:
    parts = []
    for block in _blocks(fit.design.factors, fit.covariances):
        sds = _listed(
            [
                f"{_sd(value)} for {name}"
                for name, value in zip(block.columns, block.sd, strict=True)
            ]
        )
        pair = block.correlations[1, 0] if len(block.columns) == 2 else np.nan
        correlation = f" (correlation {shown(pair, 2)})" if np.isfinite(pair) else ""
        parts.append(f"{block.factor}: {sds}{correlation}")
    if fit.design.residual is not None:
        residual = (
            "The standard deviation of the residuals was estimated as "
            f"{_sd(fit.sigma)}{_where(fit)}."
        )
        random = f"Those of the random effects were estimated as follows. {'; '.join(parts)}."
        return f"{residual} {random}" if parts else residual
    return (
        "The standard deviations of the random effects were estimated as follows. "
        f"{'; '.join(parts)}; residual: {_sd(fit.sigma)}."
    )


def _where(fit: FittedModel) -> str:
    """Of which rows sigma is the residual SD, where that of others differs."""
    place = fit.design.residual.reference
    return f" ({place})" if place else ""


def _sd(value: float) -> str:
    return shown(float(value), decimals(value / 10.0))


def _caveats(fit: FittedModel) -> Iterator[str]:
    if fit.dropped_columns:
        yield (
            "Coefficients that the data cannot tell from others were left out: "
            f"{', '.join(fit.dropped_columns)}."
        )
    if fit.is_singular:
        yield (
            "The fit was singular: the random effects vary in fewer ways than the model allows, "
            "as a variance was estimated at 0 or a correlation at 1 or -1."
        )
    if not fit.converged:
        yield (
            "The search for the estimates did not converge, so none of these numbers should be "
            "relied on."
        )


def _listed(parts: list[str]) -> str:
    """Several parts in a sentence."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
