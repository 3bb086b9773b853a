"""The page of checks: what the residuals, random effects, predictors and groups of a fit say, in
words.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from ..models.fitted import FittedModel, check_fit
from ..models.generalized import FittedGeneralizedModel
from ..support.text import LINE
from . import generalized_findings as family
from .findings import (
    Finding,
    _as_a_whole,
    _boundary,
    _collinear,
    _curvature,
    _effects_shape,
    _groups,
    _optimum,
    _outliers,
    _residual_shape,
    _spread,
    _spread_by_group,
    collinearity,
    group_sizes,
)

UNBROKEN = "\N{NO-BREAK SPACE}"


def check(fit: FittedModel, nsim: int = 250, seed: Any = 0) -> Check:
    """Look a fit over: its optimum, variances, groups, predictors, residuals and random effects.

    Returns a page in words; `print` it, or let a notebook show it. A check is `fine` if its p-value
    is 0.01 or more, or if the deviation is detected but small; a `look` is worth some minutes,
    `trouble` should be dealt with.

    Of generalised models also: separation, numbers of the family that run off, rare outcomes, what
    quadrature would change in Laplace's approximation, over-dispersion, zeros, and residuals by
    quantiles.

    nsim, seed: of the data simulated to compare with.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> print(interlace_jax.check(fit, nsim=100))
    Check of Reaction ~ Days + (1 + Days | Subject)
    180 rows, 18 levels of Subject, fitted by REML
    Worth attention, 2 of 11 checks: shape of residuals; outliers.
    <BLANKLINE>
    fine     optimum: the search for the estimates converged
    fine     variances: none is estimated at 0, no correlation at 1 or -1
    fine     groups of Subject: 18 levels of 10 rows each
    trouble  shape of residuals: heavier tails than normal (excess kurtosis 7.7),
             p < 0.0001
             -> See plot.qq. Estimates of effects bear this, predictions and small
                p-values less. Try log or sqrt of a skewed response; with heavy
                tails look for wrong values first, and compare bootstrap intervals.
    trouble  outliers: largest residual 5.7 SD, in row 56, p < 0.0001
             -> Look at the data of rows 56, 7, 59. Correct errors; otherwise report
                the fit with and without, as by influence().
    ...
    """
    check_fit("check", fit)
    fit.model.engine.require("checks")
    made = _of_generalized if isinstance(fit, FittedGeneralizedModel) else _of_linear
    return Check(_heading(fit), tuple(made(fit, nsim, seed)), collinearity(fit), group_sizes(fit))


def _of_linear(fit: FittedModel, nsim: int, seed: Any) -> list[Finding]:
    return [
        _optimum(fit),
        _boundary(fit),
        *_groups(fit),
        *_collinear(fit),
        _residual_shape(fit),
        _outliers(fit),
        *_spread(fit),
        *_spread_by_group(fit),
        *_curvature(fit),
        *_effects_shape(fit),
        _as_a_whole(fit, nsim, seed),
    ]


def _of_generalized(fit: FittedGeneralizedModel, nsim: int, seed: Any) -> list[Finding]:
    rng = np.random.default_rng(seed)
    residuals = family.residuals_at_draws(fit, rng.spawn(1)[0])
    return [
        *family.search(fit),
        _boundary(fit),
        *family.separation(fit),
        *family.limits(fit),
        *_groups(fit),
        *family.rare_outcomes(fit),
        *family.approximation(fit),
        *_collinear(fit),
        *family.dispersion(fit, nsim, rng),
        *family.zeros(fit, nsim, rng),
        *family.shape(residuals),
        *family.outliers(fit, residuals),
        *family.curvature(fit, residuals),
        *family.effects(fit),
        *family.as_a_whole(fit, nsim, rng),
    ]


def _heading(fit: FittedModel) -> str:
    groups = ", ".join(f"{m} levels of {name}" for name, m in fit.ngroups.items())
    return f"Check of {fit.design.formula}\n{fit.nobs} rows, {groups}, fitted by {fit.method}"


@dataclass(frozen=True)
class Check:
    """What `check` found: `str()` is a page."""

    heading: str
    findings: Sequence[Finding] = field(repr=False)
    collinearity: pd.DataFrame = field(repr=False)
    "Variance inflation by term: `df gvif vif`."
    groups: pd.DataFrame = field(repr=False)
    "Sizes by grouping factor."

    @property
    def table(self) -> pd.DataFrame:
        """A row a check: `check verdict found statistic p advice`."""
        return pd.DataFrame([asdict(finding) for finding in self.findings])

    @property
    def result(self) -> str:
        """The page in a sentence."""
        wanting = [f for f in self.findings if f.verdict != "fine"]
        if not wanting:
            return f"All {len(self.findings)} checks are fine."
        names = "; ".join(f.check for f in wanting)
        return f"Worth attention, {len(wanting)} of {len(self.findings)} checks: {names}."

    def __str__(self) -> str:
        lines = [*self.heading.split("\n"), *_wrapped(self.result, "", ""), ""]
        for f in self.findings:
            lines += _wrapped(f"{f.check}: {_said(f)}", f"{f.verdict:9}", " " * 9)
            lines += _wrapped(f.advice, " " * 9 + "-> ", " " * 12) if f.advice else []
        return "\n".join(lines).replace(UNBROKEN, " ")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        colours = {"fine": "#009E73", "look": "#E69F00", "trouble": "#D55E00"}
        rows = "".join(
            f'<tr><td style="text-align:left;color:{colours[f.verdict]};font-weight:bold">'
            f"{f.verdict}</td>"
            f'<td style="text-align:left">{escape(f.check)}</td>'
            f'<td style="text-align:left">{escape(_said(f))}'
            f"{f'<br/><i>{escape(f.advice)}</i>' if f.advice else ''}</td></tr>"
            for f in self.findings
        )
        heading = escape(self.heading).replace("\n", "<br/>")
        return (
            f"<div><p><b>{heading}</b></p><p>{escape(self.result)}</p>"
            f"<table><tbody>{rows}</tbody></table></div>"
        )


def _said(f: Finding) -> str:
    if np.isnan(f.p):
        return f.found
    p = "p < 0.0001" if f.p < 0.0001 else f"p = {f.p:.2g}"
    return f"{f.found}, {p.replace(' ', UNBROKEN)}"


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, LINE, initial_indent=first, subsequent_indent=rest, break_long_words=False
    )
