"""Tests of hypotheses in every model are the single fit's, lane by lane."""

import numpy as np
import pandas as pd
import pytest
from helpers import many_maps
from numpy.testing import assert_allclose
from scipy.stats import false_discovery_control

FITTED = many_maps.LANES[:5]
T_COLUMNS = ["estimate", "se", "df", "lower", "upper", "t", "p"]
F_COLUMNS = ["F", "num_df", "den_df", "p"]


def _rows(table: pd.DataFrame, lane: str, column: str = "model") -> pd.DataFrame:
    return table[table[column] == lane].reset_index(drop=True)


@pytest.mark.parametrize("lane", FITTED)
def test_t_tests_are_those_of_the_fit(lane):
    many, fit = many_maps.many(), many_maps.single(lane)
    hypotheses = ["x = 0", "dose[T.low] = dose[T.none]", "2 * x - dose[T.low]:x = 1"]
    table = many.test(hypotheses, joint=False)
    assert list(table) == ["model", "hypothesis", *T_COLUMNS]
    expected = fit.test(hypotheses, joint=False)
    ours = _rows(table, lane)
    assert ours["hypothesis"].tolist() == list(expected.index)
    # The two searches end at most 1e-9 deviance units apart: numbers that depend on theta agree to
    # its root.
    for name in T_COLUMNS:
        assert_allclose(
            ours[name], expected[name], rtol=2e-3 if name in ("df", "p") else 1e-3, atol=1e-5
        )


@pytest.mark.parametrize("lane", FITTED)
@pytest.mark.parametrize(
    "hypothesis",
    [
        "dose[T.low]:x, dose[T.none]:x",
        ["x = 0", "dose[T.low] = 1", "dose[T.none] = 0.5"],
        ["x = 0", "2 * x = 0", "dose[T.low] = 0"],
    ],
)
def test_joint_tests_are_those_of_the_fit(lane, hypothesis):
    ours = _rows(many_maps.many().test(hypothesis), lane)
    expected = many_maps.single(lane).test(hypothesis)
    assert list(ours) == ["model", "hypothesis", *F_COLUMNS]
    for name in F_COLUMNS:
        assert_allclose(ours[name], expected[name], rtol=5e-3, atol=1e-5)


def test_numbers_that_do_not_depend_on_the_search_are_equal_to_rounding():
    """At the same theta: the quadratic forms against the fit's own functions."""
    many = many_maps.many()
    contrasts = np.array([[0.0, 1, -1, 0, 0, 0], [0, 0, 0, 1, 0.5, 0]])
    from interlace_jax.maps.contrasts import f_tests, lane_coefficients, t_tests  # isort: skip

    t, F = t_tests(many, contrasts), f_tests(many, contrasts)
    for place, alone in enumerate(lane_coefficients(many)[:5]):
        table, joint = alone.t_table(contrasts), alone.f_test(contrasts)
        for name in T_COLUMNS:
            assert_allclose(getattr(t, name)[place], table[name], rtol=1e-9)
        assert_allclose(
            [F.F[place], F.den_df[place], F.p[place]], [joint.F, joint.den_df, joint.p], rtol=1e-9
        )
        assert F.num_df == joint.num_df


def test_a_model_that_was_not_fitted_has_no_test():
    many = many_maps.many()
    assert _rows(many.test("x = 0"), "constant")[T_COLUMNS].isna().all(axis=None)
    assert (
        _rows(many.test("x, dose[T.low]"), "constant")[["F", "den_df", "p"]].isna().all(axis=None)
    )


@pytest.mark.parametrize("lane", ["whole", "other", "flat"])
def test_a_group_is_tested_on_the_coefficients_that_it_has(lane):
    many, fit = many_maps.by_group(), many_maps.of_group(lane)
    ours = _rows(
        many.test(["x = 0", "dose[T.low] = 0", "dose[T.none] = 0"], joint=False), lane, "lane"
    )
    for hypothesis, row in zip(
        ["x = 0", "dose[T.low] = 0", "dose[T.none] = 0"], ours.itertuples(), strict=True
    ):
        name = hypothesis.split(" ")[0]
        if name in fit.fe_params:
            expected = fit.test(hypothesis).iloc[0]
            assert_allclose(
                [row.estimate, row.se, row.df, row.p],
                expected[["estimate", "se", "df", "p"]],
                rtol=2e-3,
            )
        else:
            assert np.isnan([row.estimate, row.se, row.df, row.p]).all()
    joint = _rows(many.test("x, dose[T.none]"), lane, "lane")
    assert_allclose(joint[F_COLUMNS], fit.test("x, dose[T.none]")[F_COLUMNS], rtol=2e-3)


def test_normal_tests_have_infinite_df():
    many = many_maps.many(df_method="normal")
    assert np.isinf(many.test("x = 0")["df"][:5]).all()
    joint = many.test("x, dose[T.low]")
    assert np.isinf(joint["den_df"][:5]).all() and joint["den_df"][5:].isna().all()


def test_p_values_are_adjusted_over_the_models_for_each_hypothesis():
    table = many_maps.many().test(["x", "dose[T.low]"], joint=False, adjust="bh")
    for name in ("x", "dose[T.low]"):
        rows = table[table["hypothesis"] == name]
        assert_allclose(
            rows["p_adjusted"][:5], false_discovery_control(rows["p"].dropna()), rtol=1e-12
        )


def test_wide_tables_are_the_long_one():
    many = many_maps.many()
    wide, long = (many.test(["x", "dose[T.low]"], joint=False, wide=wide) for wide in (True, False))
    assert list(wide) == T_COLUMNS and wide["t"].shape == (6, 2)
    assert_allclose(wide["t"].to_numpy().ravel(), long["t"])


def test_what_cannot_be_read_is_refused():
    many = many_maps.many()
    for hypothesis, message in [("y = 0", "cannot be read"), ("", "empty|cannot be read")]:
        with pytest.raises(ValueError, match=message):
            many.test(hypothesis)
    with pytest.raises(ValueError, match="'none' or 'bh' or 'by'"):
        many.test("x", adjust="holm")
