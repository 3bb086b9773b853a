"""Ordinal responses by the column: categories are found in all columns together."""

from functools import cache

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import interlace_jax as interlace
from interlace_jax.many.categories import numbered

FORMULA, NAMES = "~ x + (1 | g)", ["low", "mid", "high"]


@cache
def frame() -> pd.DataFrame:
    """A hundred rows of ten groups."""
    return pd.DataFrame(
        {"g": np.repeat(np.arange(10), 10), "x": np.random.default_rng(2).normal(size=100)}
    )


@cache
def ratings() -> pd.DataFrame:
    """From 1 to 3; one has a gap and the next no 3."""
    rng = np.random.default_rng(3)
    effects = np.repeat(rng.normal(size=(10, 3)), 10, axis=0)
    scale = frame()[["x"]].to_numpy() * [0.5, 1.0, -0.4] + effects + rng.logistic(size=(100, 3))
    found = pd.DataFrame(1.0 + (scale > -0.5) + (scale > 1), columns=["a", "gap", "two"])
    found.loc[7, "gap"] = np.nan
    return found.assign(two=found["two"].clip(upper=2))


def named(column: pd.Series) -> list:
    """Numbers as names of categories."""
    return [None if np.isnan(value) else NAMES[int(value) - 1] for value in column]


def categorical() -> pd.DataFrame:
    """Ratings as ordered categories."""
    kind = pd.CategoricalDtype(NAMES, ordered=True)
    return pd.DataFrame({key: pd.Series(named(ratings()[key]), dtype=kind) for key in ratings()})


def enumerated() -> pl.DataFrame:
    """The same in polars."""
    found = {key: pl.Series(named(ratings()[key]), dtype=pl.Enum(NAMES)) for key in ratings()}
    return pl.DataFrame(found)


@cache
def alone(name: str) -> interlace.GeneralizedFit:
    """The fit of one column."""
    data = frame().assign(y=categorical()[name])
    return interlace.fit("y" + FORMULA, data, family="ordinal")


def test_every_column_has_the_fit_that_it_has_alone():
    many = interlace.fit_many(FORMULA, frame(), responses=enumerated(), family="ordinal")
    assert many.family.categories == tuple(NAMES)
    assert list(many.family_params) == ["low|mid", "mid|high"]
    for name in ("a", "gap"):
        fit = alone(name)
        assert many.converged[name] and many.nobs[name] == fit.nobs
        assert many.llf[name] == pytest.approx(fit.llf, abs=1e-7)
        assert_allclose(many.fe_params.loc[name], fit.fe_params, atol=1e-5)
        assert_allclose(many.fe_bse.loc[name], fit.fe_bse, rtol=2e-5)
        assert_allclose(many.family_params.loc[name], fit.family_params["estimate"], atol=1e-5)
    assert many.status["two"] == "no row of the response is 'high'"
    single = many["gap"]
    assert single.llf == pytest.approx(alone("gap").llf, abs=1e-7)
    assert list(single.family_params.index) == list(many.family_params)


@pytest.mark.parametrize(
    ("given", "categories"),
    [
        (lambda: ratings(), ("1", "2", "3")),
        (lambda: ratings().to_numpy(), ("1", "2", "3")),
        (lambda: categorical(), tuple(NAMES)),
        (lambda: ratings()[["a"]].astype(int), ("1", "2", "3")),
        (lambda: ratings()[["a"]] > 2, ("False", "True")),
    ],
    ids=["numbers", "array", "categories", "whole numbers", "bools"],
)
def test_responses_are_the_numbers_of_the_categories_of_all_columns(given, categories):
    found, family = numbered(given(), frame(), interlace.Ordinal("probit"))
    assert family == interlace.Ordinal("probit", categories)
    expected = ratings().to_numpy()[:, : found.values.shape[1]]
    expected = expected > 2 if "True" in categories else expected - 1.0
    assert_array_equal(found.values, expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.astype(object), "'a' is text, whose order is not known"),
        (lambda c: c.assign(two=1), "'a' is categorical, and 'two' is int64"),
        (
            lambda c: c.assign(gap=c["gap"].cat.reorder_categories(NAMES[::-1])),
            "'gap' has the categories 'high', 'mid', 'low', and another one 'low', 'mid', 'high'",
        ),
    ],
)
def test_categories_that_are_not_known_together_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        numbered(change(categorical()), frame(), interlace.Ordinal())
