"""What was fitted and found, as a paragraph in the style of the American Psychological
Association.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ..inference.family_parameters import family_params, predictor_table
from ..models.fitted import FittedModel, check_fit
from ..models.generalized import FittedGeneralizedModel
from ..models.parameters import _blocks
from ..numerics.families.family import Ordinal
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
HUGE = 50.0  # coefficient on the scale of a link whose exponential function says nothing
SHOWN = 12  # coefficients that a paragraph can bear


def report(fit: FittedModel, level: float = 0.95) -> str:
    """A paragraph for a paper: model, data, every coefficient with its interval and test, random
    effects, caveats.

    It says what was estimated, and no more: a coefficient that does not differ clearly from 0 is
    not called absent, and a fit that is singular or did not converge says so. level: of the
    intervals. Of more than 12 coefficients the first are written out. Returns text in one line;
    `textwrap.fill` breaks it.

    Of generalised models also the family, the outcome, odds ratios or ratios of means or rates with
    their intervals (they hold for given random effects, not for averages over them), and the
    numbers of the family.

    >>> import textwrap
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> print(textwrap.fill(interlace_jax.report(fit), 90))
    A linear mixed model of Reaction was fitted by restricted maximum likelihood (formula:
    Reaction ~ Days + (1 + Days | Subject)), with random intercepts and random effects of Days
    by Subject (correlated). It was fitted to 180 observations of 18 levels of Subject. Tests
    and intervals use Satterthwaite's degrees of freedom. The intercept was estimated as b =
    251.41, SE = 6.82, 95% CI [237.01, 265.80]. The coefficient of Days differed from 0, b =
    10.47, SE = 1.55, 95% CI [7.21, 13.73], t(17.0) = 6.77, p < .001. The standard deviations
    of the random effects were estimated as follows. Subject: 24.74 for (Intercept) and 5.92
    for Days (correlation 0.07); residual: 25.59.
    """
    check_fit("report", fit)
    fit.model.engine.require("report")
    check_level(level)
    if isinstance(fit, FittedGeneralizedModel):
        said = [*_generalized_model(fit), _rows(fit), *_effects(fit, level)]
        said += [*_predictors(fit), _spread_on_link(fit), *_numbers(fit, level)]
        return " ".join([*said, *_generalized_caveats(fit)])
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


def _generalized_model(fit: FittedGeneralizedModel) -> Iterator[str]:
    yield (
        f"A generalised linear mixed model of {fit.design.response} ({fit.family.title}, "
        f"{fit.family.link} link) was fitted by maximum likelihood with {fit.integral} (formula: "
        f"{fit.design.formula}), with {_listed(list(_random_parts(fit)))}."
    )
    if fit.design.observed.outcome is not None:
        yield f"The outcome modelled is {fit.design.observed.outcome}."


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
        yield _effect(row, level, _ratio(fit, row, level))
    if len(rows) > SHOWN:
        yield f"The other {len(rows) - SHOWN} coefficients are in the table."


def _effect(row: Any, level: float, ratio: str = "") -> str:
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
    return f"The coefficient of {row.term} {verdict}, {numbers}, {limits}, {test}{ratio}."


def _ratio(fit: FittedModel, row: Any, level: float) -> str:
    """What the exponential function of a coefficient is, given the random effects; empty where it
    is nothing.
    """
    name = _ratio_name(fit) if isinstance(fit, FittedGeneralizedModel) else None
    if name is None or not np.isfinite(row.p_value) or abs(row.estimate) + row.std_error > HUGE:
        return ""
    values = np.exp([row.estimate, row.conf_low, row.conf_high])
    places = decimals(values[0] * row.std_error)
    limits = f"{level * 100:g}% CI {interval(values[1], values[2], places)}"
    return f"; given the random effects, {name} of {shown(values[0], places)}, {limits}"


def _ratio_name(fit: FittedGeneralizedModel) -> str | None:
    link, family = fit.family.link, fit.family
    if link == "logit":
        return "a cumulative odds ratio" if isinstance(family, Ordinal) else "an odds ratio"
    if link != "log":
        return None
    if family.has_trials:
        return "a ratio of probabilities"
    if family.is_count and fit.design.offset is not None:
        return "a ratio of rates"
    return "a ratio of means before extra zeros" if hasattr(family, "base") else "a ratio of means"


def _predictors(fit: FittedGeneralizedModel) -> Iterator[str]:
    """Coefficients of zero inflation and dispersion."""
    for key, name in (
        ("zero_inflation", "zero inflation (logit)"),
        ("dispersion", "dispersion (log)"),
    ):
        table = predictor_table(fit, key)
        if len(table):
            parts = [_with_error(str(term), row) for term, row in table.iterrows()]
            yield f"Coefficients of the {name} were {_listed(parts)}."


def _with_error(term: str, row: pd.Series) -> str:
    places = decimals(row.se)
    return f"{term} {shown(row.estimate, places)} (SE {shown(row.se, places)})"


def _numbers(fit: FittedGeneralizedModel, level: float) -> Iterator[str]:
    """Numbers of the family, with their intervals."""
    table = family_params(fit, level)
    parts = []
    for name, row in table.drop(index=list(fit.runaway), errors="ignore").iterrows():
        places = decimals(row.se)
        limits = interval(row.lower, row.upper, places)
        parts.append(f"{name} {shown(row.estimate, places)}{f' {limits}' * bool(limits)}")
    if parts:
        what = "Thresholds" if isinstance(fit.family, Ordinal) else "Numbers of the family"
        yield f"{what} were estimated as {_listed(parts)} (with {level * 100:g}% CIs)."


def _spread_on_link(fit: FittedGeneralizedModel) -> str:
    scale = {"logit": "log odds", "log": "logarithms", "identity": "the response"}
    unit = scale.get(fit.family.link, f"the {fit.family.link} link")
    return (
        "The standard deviations of the random effects, on the scale of "
        f"{unit}, were estimated as follows. {'; '.join(_spread_parts(fit))}."
    )


def _generalized_caveats(fit: FittedGeneralizedModel) -> Iterator[str]:
    if fit.separation is None:
        yield from _caveats(fit)
    else:
        yield f"Predictors separate the outcomes: {fit.separation.message}."
    for name, meaning in fit.runaway.items():
        yield f"The estimate of {name} ran off to infinity: {meaning}."


def _spread_parts(fit: FittedModel) -> list[str]:
    """Standard deviations of the random effects, a part a factor."""
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
    return parts


def _spread(fit: FittedModel) -> str:
    parts = _spread_parts(fit)
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
