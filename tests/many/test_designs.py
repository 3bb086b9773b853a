"""Groups of a frame: everything about a group is its own, and tables join by name."""

import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
from helpers.fits import quiet_fit
from numpy.testing import assert_allclose

import interlace_jax as interlace
from interlace_jax.models.parameters import theta_names

FORMULA, CROSSED = "y ~ dose + z + (0 + phase | item)", "y ~ 1 + (1 | rater) + (1 | item)"


@cache
def _frame() -> pd.DataFrame:
    """Groups that differ in levels of factors, in constant columns, in sizes, and in which
    factor has more levels.
    """
    rng = np.random.default_rng(11)
    kinds = [
        dict(raters=9, items=7, doses=["none", "low"], phases=["a", "b"]),
        dict(raters=7, items=9, doses=["none", "high"], phases=["a", "c"]),
        dict(raters=9, items=7, doses=["low", "high"], phases=["b", "c"], n=110),
        dict(raters=7, items=9, doses=["none", "high"], phases=["a", "b"], constant="z"),
    ]
    return pd.concat(
        [_group(rng, f"lab{i}", **kind) for i, kind in enumerate(kinds)], ignore_index=True
    )


def _group(rng, lab, raters, items, doses, phases, n=100, constant=None):
    rater, item = rng.integers(0, raters, n), rng.integers(0, items, n)
    frame = pd.DataFrame({"lab": lab, "rater": rater, "item": [f"i{i}" for i in item]})
    frame = frame.assign(
        dose=rng.choice(doses, n), phase=rng.choice(phases, n), z=rng.normal(size=n)
    )
    frame["y"] = (
        rng.normal(size=raters)[rater]
        + 2 * rng.normal(size=items)[item]
        + frame["z"]
        + rng.normal(size=n)
    )
    return frame.assign(**({constant: 1.0} if constant else {}))


@cache
def _many(formula: str = FORMULA) -> interlace.Many:
    return interlace.fit_many(formula, _frame(), by="lab")


@cache
def _single(lab: str, formula: str = FORMULA) -> interlace.Fit:
    frame = _frame()
    return quiet_fit(formula, frame[frame["lab"] == lab])


EVERY = [(f"lab{i}", FORMULA) for i in range(4)] + [("lab0", CROSSED), ("lab1", CROSSED)]


@pytest.mark.parametrize(("lab", "formula"), EVERY)
def test_every_table_has_the_numbers_of_the_single_fit_under_its_names(lab, formula):
    many, fit = _many(formula), _single(lab, formula)
    variances = {
        (f, t): v
        for f, terms in fit.variance_components.items()
        if f != "residual"
        for t, v in _by_term(terms)
    }
    pairs = [
        (many.fe_params, fit.fe_params, 1e-4),
        (many.fe_bse, fit.fe_bse, 1e-3),
        (many.fe_df, fit.fe_df, 1e-2),
        (many.fe_pvalues, fit.fe_pvalues, 1e-2),
        (many.parameters, fit.parameters, 5e-3),
        (many.variance_components, pd.Series(variances | {("residual", ""): fit.scale}), 5e-3),
    ]
    for table, expected, tolerance in pairs:
        ours = table.loc[lab].dropna()
        assert set(ours.index) == set(expected.dropna().index)
        assert_allclose(ours[expected.dropna().index], expected.dropna(), rtol=tolerance, atol=1e-3)
    names = [name for f in fit.design.factors for name in theta_names(f)]
    assert_allclose(many.theta.loc[lab, names], fit.theta, rtol=5e-3, atol=2e-3)
    assert many.theta.loc[lab].notna().sum() == len(names)
    assert_allclose(many.llf[lab], fit.llf, atol=1e-6)


def _by_term(terms):
    return terms.items() if isinstance(terms, dict) else [("(Intercept)", terms)]


def test_the_tidy_frame_joins_by_name_too():
    tidy = _many().to_frame().dropna(subset="estimate").set_index("lab")
    for lab in ("lab1", "lab2", "lab3"):
        fit = _single(lab)
        assert set(tidy.loc[lab, "coefficient"]) == set(fit.fe_params.index)
        ours = tidy.loc[lab].set_index("coefficient")["estimate"]
        assert_allclose(ours[fit.fe_params.index], fit.fe_params, rtol=1e-4, atol=1e-4)


def test_groups_with_other_names_are_fitted_in_one_batch():
    # Names are a lane's own; only the shape decides which lanes go together.
    assert len(_many().work) < len(_many())


def test_rows_without_a_key_are_said_or_refused():
    frame = _frame().assign(lab=lambda d: d["lab"].where(d["lab"] != "lab3"))
    with pytest.warns(
        UserWarning, match="by='lab' is missing in 100 of the 410 rows: they are in no model"
    ):
        many = interlace.fit_many("y ~ z + (1 | rater)", frame, by="lab")
    assert many.nobs.sum() == 310
    with pytest.raises(
        ValueError, match="na_action='raise': by='lab' is missing in 100 of the 410 rows"
    ):
        interlace.fit_many("y ~ z + (1 | rater)", frame, by="lab", na_action="raise")


def test_a_group_is_what_it_was_when_it_was_fitted():
    frame = _frame().query("lab in ('lab0', 'lab1')").copy()
    many = interlace.fit_many("y ~ z + (1 | rater)", frame, by="lab")
    frame["y"] = 0.0
    frame.index = frame.index[::-1]
    del frame["rater"]
    assert_allclose(many["lab1"].fe_params, many.fe_params.loc["lab1"], rtol=1e-5)
    assert many.fe_df.notna().all(axis=None)


@pytest.mark.parametrize("name", ["t", "df", "coefficient", "estimate"])
def test_the_column_of_labels_may_have_any_name(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = _frame().query("lab in ('lab0', 'lab1')").rename(columns={"lab": name})
        tidy = interlace.fit_many("y ~ z + (1 | rater)", frame, by=name).to_frame()
    assert list(tidy) == ["model", "coefficient", "estimate", "se", "df", "t", "p"]
    assert tidy["model"].tolist() == ["lab0", "lab0", "lab1", "lab1"]
