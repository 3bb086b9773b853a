"""What `residual=` and `dispersion=` say, and every input that they refuse in a sentence."""

import numpy as np
import pandas as pd
import pytest
from helpers.visits import frame
from numpy.testing import assert_array_equal

import interlace_jax as interlace
from interlace_jax.design.design import build
from interlace_jax.design.formula import parse


def groups(d=None, formula="y ~ x", **arguments):
    d = frame() if d is None else d
    return build(parse(formula, **arguments), d).residual


def test_subjects_with_the_same_visits_share_a_pattern():
    d = frame().query("not (id == 'S3' and t == 2)")
    found = groups(d, residual="us(visit | id)")
    assert_array_equal(np.sort(found.rows.patterns.count), [1, 11])
    assert found.visits == ("V1", "V2", "V3", "V4")
    # A row's place in its subject is its rank in time, whatever the order of the rows.
    for row in range(5):
        mine = d[d["id"] == d["id"].iloc[row]]
        assert found.rows.slot[row] == (mine["t"] < d["t"].iloc[row]).sum()
        assert found.subjects[found.rows.subject[row]] == d["id"].iloc[row]


def test_differences_of_numbers_count_and_labels_are_ranks():
    d = frame().query("t != 1")
    assert_array_equal(groups(d, residual="ar1(t | id)").positions, [0, 2, 3])
    assert_array_equal(groups(d, residual="ar1(visit | id)").positions, [0, 1, 2])
    weeks = d.assign(t=d["t"] * 7 + 2000)
    assert_array_equal(groups(weeks, residual="toep(t | id)").positions, [0, 2, 3])


def test_an_ordered_categorical_has_its_own_order():
    order = ["V3", "V1", "V2", "V4"]
    d = frame().assign(visit=lambda d: pd.Categorical(d["visit"], categories=order, ordered=True))
    assert groups(d, residual="ar1(visit | id)").visits == tuple(order)


def test_dates_are_days():
    d = frame().assign(day=lambda d: pd.Timestamp("2024-01-01") + pd.to_timedelta(3 * d["t"], "D"))
    assert groups(d, residual="sp_exp(day | id)").unit == 3.0


def test_rows_with_a_missing_visit_are_left_out():
    d = frame()
    d.loc[3, "visit"] = None
    design = build(parse("y ~ x", residual="us(visit | id)"), d)
    assert (len(design.y), design.n_dropped) == (47, 1)


REFUSED = {
    "us(visit | who)": "column 'who'.* is not in the data",
    "us(visit id)": r"cannot be read; write structure\(visit \| subject\)",
    "un(visit | id)": "there is no structure 'un'; there are 'us', 'cs'",
    "ar1(visit | x / id)": "parameters by 'x', which changes within 'id'",
    "us(visit, t | id)": "has several columns 'visit', 't'; visits are in one",
    "us(visit | row)": "every 'row' has one row only",
    "ar1(uneven | id)": "needs times in whole multiples of their least gap",
    "ar1(week | id)": "depends on the order of 'week', whose labels sort as 'WEEK 12', 'WEEK 2'",
    "us(arm | id)": "id .* has arm .* twice",
    "sp_exp(visit | id)": "needs distances, but column 'visit' is",
    "us(one | row)": "every 'row' has one row only",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_residual_covariance_is_refused_in_a_sentence(text):
    d = frame().assign(
        row=lambda d: np.arange(len(d)), uneven=lambda d: d["t"] ** 2 + 0.3 * d["t"], one="a"
    )
    d["week"] = d["t"].map({0: "WEEK 2", 1: "WEEK 4", 2: "WEEK 8", 3: "WEEK 12"})
    with pytest.raises(ValueError, match=REFUSED[text]):
        groups(d, residual=text)


def test_rare_visits_are_refused():
    d = frame()
    d.loc[d.index[0], "visit"] = "V9"
    with pytest.raises(ValueError, match="'V9' is seen once"):
        groups(d, residual="csh(visit | id)")
    pairs = pd.DataFrame(
        {"id": np.repeat(np.arange(8), 2), "visit": ["a", "b"] * 4 + ["b", "c"] * 4}
    )
    pairs["y"] = np.arange(16.0) % 5
    with pytest.raises(ValueError, match="'a' and 'c' are seen together in 0 subjects"):
        groups(pairs, "y ~ 1", residual="us(visit | id)")
    long = pd.DataFrame({"id": np.repeat(np.arange(3), 31), "t": np.tile(np.arange(31), 3)})
    long["y"] = np.sin(np.arange(93.0))
    with pytest.raises(ValueError, match="over 31 visits has 496 parameters"):
        groups(long, "y ~ 1", residual="us(t | id)")


def test_dispersions_that_say_nothing_are_refused():
    for given, message in {
        "y ~ x": "must be a formula with a right side only",
        "x": "must be a formula with a right side only",
        "~ 1": "has no covariate: sigma is the constant already",
        "~ 0 + arm": "depends linearly on the columns before it and the constant",
        "~ x + (1 | id)": "has a random effect",
    }.items():
        with pytest.raises(ValueError, match=message):
            groups(dispersion=given)
    with pytest.raises(
        ValueError, match="'t' is 0 in 12 rows, where the SD would be 0 or infinite"
    ):
        groups(dispersion=interlace.Power("t"))
    with pytest.raises(TypeError, match='dispersion must be a formula such as "~ sex'):
        groups(dispersion=3)


def test_a_structure_in_the_formula_points_to_the_argument():
    with pytest.raises(ValueError, match=r"is an argument, residual='us\(visit \| id\)'"):
        parse("y ~ x + us(visit | id)")


def test_without_random_effects_the_arguments_are_named():
    with pytest.raises(ValueError, match="or give residual= or dispersion="):
        parse("y ~ x")
