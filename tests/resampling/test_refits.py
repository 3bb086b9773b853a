"""Refits without rows: what a fit of the remaining rows gives, or the reason why there is none."""

import numpy as np
import pandas as pd
import pytest
from helpers.cases import load_case
from helpers.fits import arguments, fitted, quiet_fit
from numpy.testing import assert_allclose

import interlace_jax as interlace
from interlace_jax.resampling.refits import refit_without


@pytest.mark.parametrize("name", ["sleepstudy_slope_REML", "weighted_REML"])
def test_a_refit_is_the_fit_of_the_remaining_rows(name):
    case, design = load_case(name), fitted(name).model.design
    codes = design.factors[-1].codes
    sets = [np.flatnonzero(codes == 1), np.array([0]), np.flatnonzero(codes == 4)]
    found = refit_without(design, sets, case["method"])
    assert not found.failures
    assert found.places.tolist() == [0, 1, 2]
    for i, rows in enumerate(sets):
        one = quiet_fit(
            case.formula, case.frame.drop(index=case.frame.index[rows]), **arguments(case)
        )
        assert_allclose(found.estimate.deviance[i], one.deviance, rtol=1e-11)
        assert_allclose(found.estimate.beta[i], one.fe_params, rtol=1e-7)
        assert_allclose(found.estimate.vcov[i], one.fe_cov, rtol=1e-6, atol=1e-12)
        assert_allclose(found.estimate.theta[i], one.theta, atol=1e-6)


def test_chunks_make_no_difference():
    design = fitted("sleepstudy_slope_REML").model.design
    sets = [np.array([i]) for i in range(70)]
    seen = []

    def note(places, rows, estimate):
        seen.append(len(places))
        return np.where(rows.weights[:, :180] == 0.0, np.arange(180.0), 0.0).sum(1)

    found = refit_without(design, sets, "REML", note)
    assert sum(seen) > 70  # padded
    assert_allclose(found.more, np.arange(70.0))
    alone = refit_without(design, sets[40:41], "REML")
    assert_allclose(found.estimate.beta[40], alone.estimate.beta[0], rtol=1e-9)


@pytest.fixture(scope="module")
def design():
    frame = pd.DataFrame({"g": np.repeat(list("abc"), 6), "x": np.tile(["u", "v", "v"], 6)})
    frame["y"] = np.random.default_rng(3).normal(size=18) + 2.0 * (frame.g == "b")
    return interlace.compile(
        "y ~ x + (1 | g)", frame.assign(y=np.where(frame.x == "u", 1.5, frame.y))
    ).design


@pytest.mark.parametrize(
    "rows, reason",
    [
        (np.arange(12), "g has 1 level for 6 rows that are left"),
        (
            np.arange(0, 18, 3),
            r"the fixed effects are rank deficient in the rows that are left: 'x\[T.v\]'",
        ),
        (np.arange(16), "2 rows that are left are too few"),
        (np.flatnonzero(np.arange(18) % 3), "the response is constant"),
        (np.delete(np.arange(18), [0, 7, 13]), "g has 3 levels for 3 rows"),
    ],
)
def test_what_cannot_be_refitted_says_why(design, rows, reason):
    with pytest.raises(ValueError, match="none of the 1 refits can be made; the first: "):
        refit_without(design, [rows], "REML")
    found = refit_without(design, [rows, np.array([1])], "REML")
    assert found.places.tolist() == [1]
    assert len(found.estimate.sigma) == 1
    assert [failure.place for failure in found.failures] == [0]
    assert pd.Series(found.failures[0].reason).str.match(reason).all()


def test_refits_without_a_residual_are_refused_as_fits_are():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"g": np.repeat(list("abcdef"), 5), "x": rng.normal(size=30)})
    frame["y"] = 2 * frame.x + np.repeat(rng.normal(size=6), 5)
    frame.loc[3, "y"] += 1.0  # the only row that is not on the lines
    with pytest.raises(ValueError, match="perfectly, to rounding"):
        interlace.fit("y ~ x + (1 | g)", frame.drop(index=3))
    table = quiet_fit("y ~ x + (1 | g)", frame).influence()
    assert (
        table.index[table.cooksd.isna()].tolist() == [3]
        and "perfectly, to rounding" in table.status[3]
    )
    folds = interlace.cross_val("y ~ x + (1 | g)", frame, cv="loo").folds
    assert (
        folds.index[folds.log_score.isna()].tolist() == [3]
        and "perfectly, to rounding" in folds.status[3]
    )


def test_refits_are_singular_where_their_residual_variance_means_nothing():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {"s": np.repeat(np.arange(10), 3), "t": list("abc") * 10, "x": rng.normal(size=30)}
    )
    frame["y"] = frame.x + rng.normal(size=10).repeat(3) + rng.normal(size=30)
    arguments = dict(formula="y ~ x + (0 + t | s)", cov={"s": interlace.CompoundSymmetry()})
    again = frame.iloc[:1].assign(y=frame.y[0] + 0.8)
    # two rows share an effect until one is left out
    twice = pd.concat([frame, again], ignore_index=True)
    fits = [quiet_fit(data=twice.drop(index=i), **arguments) for i in range(31)]
    alone = [fit.is_singular for fit in fits]
    assert not all(alone)
    assert [i for i, fit in enumerate(fits) if fit.residual_doubt] == [0, 30]
    assert quiet_fit(data=twice, **arguments).influence().singular.tolist() == alone
    assert interlace.cross_val(data=twice, cv="loo", **arguments).folds.singular.tolist() == alone
