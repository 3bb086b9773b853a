"""F tests of the terms of the fixed part, in every model."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..inference.terms import F_COLUMNS, Terms, variables
from ..many.designs import Designs
from ..many.fits import ManyFits, with_labels
from ..support.arguments import one_of
from .contrasts import f_tests, lane_coefficients, long_table

TYPES = (1, 2, 3)


def anova(many: ManyFits, type: int = 3, ddf: str | None = None) -> pd.DataFrame:
    """F tests of the terms of the fixed part in every model, as `Fit.anova` has them for one.

    type: 1, terms in their order; 2, each after all that do not contain it; 3, each after all
    others, with cells counting alike whatever the coding of the factors. With `responses=` the
    hypotheses are those of the rows of the design, in models with missing values too; with `by=`
    each group has its own. ddf: "satterthwaite", "kenward-roger" or "normal", as in `test`.

    Returns a row for each model and term: the label of the model, `term`, and `Sum Sq, Mean Sq,
    NumDF, DenDF, F value, Pr(>F)`. Raises ValueError for another type, and as `test` does for
    "kenward-roger".

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> responses = interlace_jax.fit(formula, sleep).simulate(4, seed=1).add_prefix("y")
    >>> many = interlace_jax.fit_many("~ Days + (1 + Days | Subject)", sleep, responses=responses)
    >>> many.anova().round(2)
      model  term    Sum Sq   Mean Sq  NumDF  DenDF  F value  Pr(>F)
    0    y0  Days  30965.81  30965.81      1   17.0    50.87     0.0
    1    y1  Days  36573.61  36573.61      1   17.0    49.05     0.0
    2    y2  Days  38182.04  38182.04      1   17.0    57.48     0.0
    3    y3  Days  50288.36  50288.36      1   17.0    84.84     0.0
    """
    one_of("type", type, TYPES)
    return _by_term(many, type, ddf)


def _by_term(many: ManyFits, type: int, ddf: str | None = None) -> pd.DataFrame:
    of_models = _of_groups if isinstance(many.work, Designs) else _of_responses
    return of_models(many, type, ddf)


def _of_responses(many: ManyFits, type: int, ddf: str | None) -> pd.DataFrame:
    """All models have the terms and hypotheses of one design."""
    design = many.work.design
    terms = Terms(design, variables(design, many.work.data))
    tests = [f_tests(many, terms.hypothesis(name, type), ddf=ddf) for name in terms.columns]
    scale = many.sigma.to_numpy() ** 2
    rows = [
        (scale * t.F * t.num_df, scale * t.F, np.full(len(many), t.num_df), t.den_df, t.F, t.p)
        for t in tests
    ]
    columns = {
        name: np.stack(values, axis=1)
        for name, values in zip(F_COLUMNS, zip(*rows, strict=True), strict=True)
    }
    return long_table(many, {"term": list(terms.columns)}, columns)


def _of_groups(many: ManyFits, type: int, ddf: str | None) -> pd.DataFrame:
    """Every group has terms and hypotheses of its own."""
    sigma, tables = many.sigma.to_numpy(), []
    for place, coefficients in enumerate(lane_coefficients(many, ddf)):
        if coefficients is None:
            continue
        design = many.work.designs[place]
        terms = Terms(design, variables(design, many.work.problem(place)[1]))
        rows = []
        for name in terms.columns:
            t = coefficients.f_test(terms.hypothesis(name, type))
            mean_square = sigma[place] ** 2 * t.F
            rows.append((name, mean_square * t.num_df, mean_square, t.num_df, t.den_df, t.F, t.p))
        table = pd.DataFrame(rows, columns=["term", *F_COLUMNS])
        tables.append(with_labels(table, many.labels[[place]].repeat(len(table))))
    return pd.concat(tables, ignore_index=True)


CHI_SQUARE_COLUMNS = ("Chisq", "Df", "Pr(>Chisq)")


def chi_squares(many: ManyFits, type: int = 3) -> pd.DataFrame:
    """Wald chi-square tests of the terms of the fixed part in every generalised model.

    type: 2, each term after all that do not contain it; 3, each after all others, with cells
    counting alike.

    Returns a row for each model and term: the label of the model, `term`, and `Chisq, Df,
    Pr(>Chisq)`, as the `anova` of one fit has them. Raises ValueError for another type.

    >>> cbpp = interlace_jax.load_dataset("cbpp")
    >>> formula = "incidence ~ period + (1 | herd)"
    >>> fit = interlace_jax.fit(formula, cbpp, family="binomial", trials="size")
    >>> responses = fit.simulate(3, seed=1)
    >>> given = dict(responses=responses, family="binomial", trials="size")
    >>> many = interlace_jax.fit_many("~ period + (1 | herd)", cbpp, **given)
    >>> many.anova().round(4)
       model    term    Chisq  Df  Pr(>Chisq)
    0      0  period  28.8204   3         0.0
    1      1  period  37.7672   3         0.0
    2      2  period  22.5742   3         0.0
    """
    one_of("type", type, TYPES[1:])
    table = _by_term(many, type)
    values = table["F value"] * table["NumDF"], table["NumDF"], table["Pr(>F)"]
    columns = dict(zip(CHI_SQUARE_COLUMNS, values, strict=True))
    return table.drop(columns=list(F_COLUMNS)).assign(**columns)
