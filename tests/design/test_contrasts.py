"""R's contrasts: `contr.*` by name, called with a number of levels, a base or the levels;
refused where R errs.
"""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from interlace_jax.design.design import build
from interlace_jax.design.formula import parse
from interlace_jax.design.new_data import new_data


@pytest.fixture(scope="module")
def frame():
    r = np.random.default_rng(5)
    k = np.tile([0, 1, 2, 3], 6)
    return pd.DataFrame(
        {
            "y": r.normal(size=24),
            "g": np.repeat(np.arange(6), 4),
            "k": k,
            "f": np.array(list("abcd"))[k],
        }
    )


TREATMENT = np.eye(4)[:, 1:]
SAS = np.eye(4)[:, :3]
SECOND = np.eye(4)[:, [0, 2, 3]]
SUM = np.r_[np.eye(3), -np.ones((1, 3))]
HELMERT = np.array([[-1, -1, -1], [1, -1, -1], [0, 2, -1], [0, 0, 3.0]])
POLY = np.array(  # contr.poly(4), R 4.2
    [
        [-0.6708203932, 0.5, -0.2236067977],
        [-0.2236067977, -0.5, 0.6708203932],
        [0.2236067977, -0.5, -0.6708203932],
        [0.6708203932, 0.5, 0.2236067977],
    ]
)
POLY_1248 = np.array(  # contr.poly(4, scores = c(1, 2, 4, 8)), R 4.2
    [
        [-0.51287764453, 0.5296271413, -0.45436946740],
        [-0.32637668288, -0.1059254283, 0.79514656795],
        [0.04662524041, -0.7679593549, -0.39757328397],
        [0.79262908700, 0.3442576419, 0.05679618342],
    ]
)


@pytest.mark.parametrize("variable", ["f", "k"])
@pytest.mark.parametrize(
    "contrast, coding",
    [
        ("contr.treatment", TREATMENT),
        ("contr.treatment()", TREATMENT),
        ("contr.treatment(4)", TREATMENT),
        ("contr.treatment(n=4)", TREATMENT),
        ("contr.treatment(4, base=2)", SECOND),
        ("contr.treatment(4, 2)", SECOND),
        ("contr.treatment(c('a', 'b', 'c', 'd'), base = 2)", SECOND),
        ("contr.treatment, base=2", SECOND),
        ("contr.SAS", SAS),
        ("contr.SAS(4)", SAS),
        ("contr.sum(4)", SUM),
        ("'contr.sum'", SUM),
        ("contr.sum", SUM),
        ("Sum", SUM),
        ("contr.helmert", HELMERT),
        ("contr.helmert(4)", HELMERT),
        ("contr.poly", POLY),
        ("contr.poly(4)", POLY),
        ("contr.poly(4, scores=c(1, 2, 4, 8))", POLY_1248),
    ],
)
def test_contrasts_are_those_of_r(frame, variable, contrast, coding):
    """The coding matrices of the functions of the same call in R, by level."""
    design = build(parse(f"y ~ C({variable}, {contrast}) + (1 | g)"), frame)
    assert_allclose(design.X[:, 1:], coding[frame.k], atol=1e-9)
    some = frame.iloc[[2, 1]]
    assert_allclose(new_data(design, some).X[:, 1:], coding[some.k], atol=1e-9)


def test_a_level_by_its_name_is_the_reference(frame):
    for made in ("contr.treatment('b')", "contr.treatment(base='b')", "Treatment('b')"):
        assert_allclose(
            build(parse(f"y ~ C(f, {made}) + (1 | g)"), frame).X[:, 1:], SECOND[frame.k]
        )
    assert_allclose(
        build(parse("y ~ C(k, contr.treatment(base=1)) + (1 | g)"), frame).X[:, 1:], SECOND[frame.k]
    )


@pytest.mark.parametrize(
    "made, reason",
    [
        ("C(f, contr.treatment(3))", "is for 3 levels, but there are 4"),
        ("C(f, contr.sum(5))", "is for 5 levels, but there are 4"),
        ("C(k, contr.helmert(3))", "is for 3 levels"),
        ("C(f, contr.treatment(4, base=5))", "no position among the 4 levels"),
        ("C(f, contr.treatment(4, base='b'))", "no position"),
        ("C(f, contr.treatment(4, contrasts=FALSE))", "write 0 \\+ f"),
        ("C(f, contr.sum(contrasts=FALSE))", "write 0 \\+ f"),
        ("C(f, contr.sum(2.5))", "number of levels"),
        ("C(f, contr.treatment(base='z'))", "'z'"),
        ("factor(f, labels=c('a', 'b'))", "no 'labels'"),
        ("C(f, contr.none)", "contr"),
    ],
)
def test_contrasts_that_do_not_fit_are_refused(frame, made, reason):
    with pytest.raises(ValueError, match=reason):
        build(parse(f"y ~ {made} + (1 | g)"), frame)


def test_levels_of_factor_are_an_order(frame):
    design = build(parse("y ~ factor(f, levels=c('c', 'a', 'b', 'd')) + (1 | g)"), frame)
    assert_allclose(design.X[:, 1:], np.eye(4)[:, [0, 1, 3]][frame.k])


def test_the_number_of_levels_is_that_of_the_rows_used(frame):
    some = frame.assign(y=np.where(frame.k == 3, np.nan, frame.y))
    design = build(parse("y ~ C(f, contr.sum(3)) + (1 | g)"), some)
    assert design.X.shape == (18, 3)
