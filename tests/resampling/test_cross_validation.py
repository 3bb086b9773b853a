"""Cross-validation against a loop of fits, predictions against the dense formula, scores against
SciPy.
"""

import numpy as np
import pandas as pd
import pytest
from helpers.cases import load_case
from helpers.fits import arguments, fitted, quiet_fit, sleepstudy
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from scipy import integrate, stats

import interlace_jax as interlace

SLOPES = "Reaction ~ Days + (1 + Days | Subject)"


@pytest.fixture(scope="module")
def logo():
    return fitted("sleepstudy_slope_REML").cross_val()


def honest(formula, frame, train, test, **kwargs):
    """Fit and predictions, as one would without this library's help."""
    fit = quiet_fit(formula, frame.iloc[train], **kwargs)
    return fit, fit.predict(frame.iloc[test]).to_numpy()


def dense_sd(fit, design, train, test):
    """Predictive SD of test rows by the definition: V as a matrix, beta by generalised least
    squares.
    """
    inverse_weights = np.ones(len(design.y)) if design.weights is None else 1.0 / design.weights
    V = np.zeros((len(design.y),) * 2)
    for f, L in zip(design.factors, fit.Lambdas, strict=True):
        V += f.Z @ L @ L.T @ f.Z.T * (f.codes[:, None] == f.codes)
    weights = np.linalg.solve(
        V[np.ix_(train, train)] + np.diag(inverse_weights[train]), V[np.ix_(train, test)]
    )
    X, lack = design.X[train], design.X[test] - weights.T @ design.X[train]
    known = np.linalg.inv(
        X.T @ np.linalg.solve(V[np.ix_(train, train)] + np.diag(inverse_weights[train]), X)
    )
    variance = (
        np.diag(V)[test]
        - np.sum(weights * V[np.ix_(train, test)], 0)
        + np.einsum("ij,jk,ik->i", lack, known, lack)
    )
    return fit.sigma * np.sqrt(variance + inverse_weights[test])


@pytest.mark.parametrize(
    "name, cv",
    [
        ("sleepstudy_slope_REML", "logo"),
        ("sleepstudy_slope_REML", "kfold-rows"),
        ("pastes_REML", "kfold"),
        ("penicillin_ML", "kfold-rows"),
        ("weighted_REML", "kfold"),
        ("offset_REML", "kfold-rows"),
    ],
)
def test_folds_are_fits_of_their_training_rows(name, cv):
    case, fit = load_case(name), fitted(name)
    found, design = fit.cross_val(cv, k=4), fit.model.design
    assert found.folds["converged"].all()
    position = np.arange(len(design.y))
    fold_of = found.predictions["fold"].to_numpy()
    for label in found.folds.index[:1]:
        test, train = position[fold_of == label], position[fold_of != label]
        one, predicted = honest(
            case.formula, case.frame.iloc[design.rows], train, test, **arguments(case)
        )
        row = found.predictions.iloc[test]
        assert_allclose(row["predicted"], predicted, rtol=1e-6)
        assert_allclose(row["sd"], dense_sd(one, design, train, test), rtol=1e-5)
        assert found.folds.loc[label, ["n_train", "n_test"]].tolist() == [len(train), len(test)]


def test_a_group_left_out_is_predicted_by_the_population_with_all_its_variance(logo):
    frame = sleepstudy()
    rest = frame[frame.Subject != "S309"]
    fit = quiet_fit(SLOPES, rest)
    row = logo.predictions[logo.predictions.fold == "S309"]
    z = np.stack([np.ones(10), np.arange(10.0)], 1)
    assert_allclose(row["predicted"], z @ fit.fe_params, rtol=1e-8)
    variance = (
        np.einsum("ij,jk,ik->i", z, fit.varcov.to_numpy() + fit.coefficients().vcov, z) + fit.scale
    )
    assert_allclose(row["sd"], np.sqrt(variance), rtol=1e-6)


def test_a_group_left_out_is_predicted_by_its_relatives():
    rng = np.random.default_rng(4)
    root, names = rng.normal(size=(15, 6)), [f"a{i:02d}" for i in range(15)]
    K = pd.DataFrame(root @ root.T / 6 + 0.3 * np.eye(15), names, names)
    codes = np.repeat(np.arange(15), 4)
    u = np.linalg.cholesky(K) @ rng.normal(size=15) * 2.0
    frame = pd.DataFrame({"animal": np.array(names)[codes], "x": rng.normal(size=60)})
    frame["y"] = frame.x + u[codes] + rng.normal(size=60)
    cov = {"animal": interlace.Known(K)}
    found = interlace.cross_val("y ~ x + (1 | animal)", frame, cov=cov).predictions
    test = codes == 5
    fit = quiet_fit("y ~ x + (1 | animal)", frame[~test], cov=cov)
    V = fit.theta[0] ** 2 * K.to_numpy()[np.ix_(codes, codes)]
    X = np.column_stack([np.ones(60), frame.x])
    weights = np.linalg.solve(V[np.ix_(~test, ~test)] + np.eye(56), V[np.ix_(~test, test)])
    lack = X[test] - weights.T @ X[~test]
    mean = X[test] @ fit.fe_params + weights.T @ (frame.y[~test] - X[~test] @ fit.fe_params)
    variance = np.diag(V)[test] - np.sum(weights * V[np.ix_(~test, test)], 0)
    variance = fit.scale * (1 + variance) + np.einsum("ij,jk,ik->i", lack, fit.fe_cov, lack)
    assert np.abs(mean - X[test] @ fit.fe_params).min() > 0.1
    assert_allclose(found.predicted[test], mean, rtol=1e-6)
    assert_allclose(found.sd[test], np.sqrt(variance), rtol=1e-6)


@pytest.mark.parametrize(
    "fixed", ["poly(Days, 2)", "scale(Days) + I(Days**2)", "center(Days) + C(Days > 4, contr.sum)"]
)
def test_transforms_of_equal_span_leak_nothing(fixed):
    frame, formula = sleepstudy(), f"Reaction ~ {fixed} + (1 + scale(Days) | Subject)"
    # so that means differ between folds
    uneven = frame[(frame.Subject != "S308") | (frame.Days > 5)]
    found = interlace.cross_val(formula, uneven, cv="kfold-rows", k=4)
    for label in (0, 1):
        test = np.flatnonzero(found.predictions.fold == label)
        train = np.flatnonzero(found.predictions.fold != label)
        _, predicted = honest(formula, uneven, train, test)
        assert_allclose(found.predictions["predicted"].iloc[test], predicted, rtol=1e-6)


def test_contrasts_of_columns_are_those_of_the_formula():
    """Without correlations random slopes of other codings are other models."""
    frame = sleepstudy().assign(late=lambda d: np.where(d["Days"] > 4, "yes", "no"))
    given = dict(cv="kfold", k=3)
    written = "Reaction ~ C(late, contr.sum) + (1 + C(late, contr.sum) || Subject)"
    expected = interlace.cross_val(written, frame, **given)
    formula, contrasts = "Reaction ~ late + (1 + late || Subject)", {"late": "sum"}
    found = interlace.cross_val(formula, frame, contrasts=contrasts, **given)
    assert_allclose(found.folds["log_score"], expected.folds["log_score"], rtol=1e-5)
    treatment = interlace.cross_val(formula, frame, **given)
    assert np.abs(treatment.folds["log_score"] - expected.folds["log_score"]).max() > 1e-3


def test_scores_are_those_of_normal_distributions(logo):
    p = logo.predictions
    normal = stats.norm(p["predicted"], p["sd"])
    assert_allclose(logo.pooled["log_score"], -normal.logpdf(p["observed"]).mean(), rtol=1e-12)
    assert_allclose(
        logo.pooled["rmse"], np.sqrt(np.mean((p["observed"] - p["predicted"]) ** 2)), rtol=1e-12
    )
    assert_allclose(logo.pooled["mae"], np.abs(p["observed"] - p["predicted"]).mean(), rtol=1e-12)
    some = p.iloc[:10]

    def crps(y, mean, sd):
        """Integral of (F - 1[y <= .])^2, by its definition."""
        below = integrate.quad(lambda q: stats.norm.cdf(q, mean, sd) ** 2, mean - 12 * sd, y)[0]
        return (
            below + integrate.quad(lambda q: stats.norm.sf(q, mean, sd) ** 2, y, mean + 12 * sd)[0]
        )

    by_definition = [crps(*row) for row in some[["observed", "predicted", "sd"]].to_numpy()]
    assert_allclose(logo.folds["crps"].iloc[0], np.mean(by_definition), rtol=1e-7)


def test_the_front_door_and_the_method_agree(logo):
    found = interlace.cross_val("Reaction ~ Days", sleepstudy(), random="(1 + Days | Subject)")
    assert_frame_equal(found.folds, logo.folds)
    assert found.folds.index.name == "fold"
    assert found.folds.index.tolist() == sorted(sleepstudy().Subject.unique())
    assert repr(logo).startswith("<18 folds, 18 converged: rmse 49.6")
    assert "log_score" in logo._repr_html_()


def test_a_fold_without_a_fit_says_why_and_the_others_count():
    frame = sleepstudy().assign(site=lambda d: np.where(d.Subject == "S309", "b", "a"))
    found = interlace.cross_val("Reaction ~ Days + site + (1 | Subject)", frame)
    lost = found.folds.loc["S309"]
    assert (
        lost["status"]
        == "the fixed effects are rank deficient in the rows that are left: 'site[T.b]'"
    )
    assert lost[["rmse", "crps"]].isna().all()
    assert not lost["converged"]
    known = found.predictions.dropna()
    assert len(known) == 170
    assert_allclose(found.pooled["mae"], np.abs(known.observed - known.predicted).mean())
    halves = [
        (np.flatnonzero(frame.Subject == "S308"), np.arange(10, 20)),
        (np.arange(90), np.arange(90, 180)),
    ]
    assert interlace.cross_val("Reaction ~ Days + (1 | Subject)", frame, cv=halves).folds[
        "status"
    ].tolist() == [
        "Subject has 1 level for 10 rows that are left",
        "converged",
    ]


def test_folds_partition_rows_or_groups():
    fit, frame = fitted("sleepstudy_slope_REML"), sleepstudy()
    groups = fit.cross_val("kfold", k=5, seed=3)
    assert groups.predictions.groupby(frame.Subject)["fold"].nunique().eq(1).all()
    assert groups.folds["n_test"].tolist() == [40, 40, 40, 30, 30]
    rows = fit.cross_val("kfold-rows", k=7)
    assert sorted(rows.folds["n_test"]) == [25, 25, 26, 26, 26, 26, 26]
    assert_frame_equal(rows.predictions, fit.cross_val("kfold-rows", k=7).predictions)
    assert fit.cross_val("kfold-rows", k=7, seed=1).pooled["rmse"] != rows.pooled["rmse"]
    assert_array_equal(fit.cross_val("loo").folds["n_test"], 1)
    week = frame.assign(week=np.where(frame.Days < 7, "first", "second"))
    found = interlace.cross_val(SLOPES, week, by="week")
    assert found.folds["n_test"].to_dict() == {"first": 126, "second": 54}


def test_positions_of_pairs_are_those_of_the_data():
    frame = sleepstudy()
    frame.loc[3, "Reaction"] = np.nan
    frame.index = [f"row {i}" for i in range(180)]
    test = [2, 3, 4]
    found = interlace.cross_val(SLOPES, frame, cv=[(np.arange(5, 180), test)])
    assert found.predictions.index.tolist() == ["row 2", "row 4"]
    assert found.folds.loc[0, ["n_train", "n_test"]].tolist() == [175, 2]
    assert_allclose(
        found.predictions["predicted"],
        honest(SLOPES, frame, np.arange(5, 180), [2, 4])[1],
        rtol=1e-7,
    )


def test_scikit_learn_splits_and_scores(logo):
    selection, metrics = (
        pytest.importorskip("sklearn.model_selection"),
        pytest.importorskip("sklearn.metrics"),
    )
    fit = fitted("sleepstudy_slope_REML")
    scoring = [metrics.get_scorer("neg_mean_absolute_error"), metrics.median_absolute_error]
    by_splitter = fit.cross_val(
        selection.LeaveOneGroupOut(), scoring={"ours": "mae", "neg": scoring[0], "med": scoring[1]}
    )
    assert_allclose(by_splitter.folds["ours"], logo.folds["mae"], rtol=1e-9)
    assert_allclose(by_splitter.folds["neg"], -logo.folds["mae"], rtol=1e-9)
    errors = (logo.predictions.observed - logo.predictions.predicted).abs()
    assert_allclose(
        by_splitter.folds["med"], errors.groupby(logo.predictions.fold).median(), rtol=1e-9
    )
    assert list(fit.cross_val("kfold", scoring=scoring).pooled.index) == [
        "score",
        "median_absolute_error",
    ]
    repeated = fit.cross_val(
        selection.ShuffleSplit(3, test_size=0.5, train_size=0.4, random_state=0), scoring="rmse"
    )
    assert len(repeated.predictions) == 270
    assert list(repeated.pooled.index) == ["rmse"]
    assert repeated.folds["n_train"].tolist() == [72] * 3


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(cv="logoo"), "cv must be 'logo' or 'kfold' or 'loo' or 'kfold-rows', not 'logoo'"),
        (
            dict(cv="kfold", k=19),
            r"k=19: the number of folds must lie between 2 and the 18 groups \(Subject\)",
        ),
        (
            dict(cv="kfold-rows", k=1),
            "k=1: the number of folds must lie between 2 and the 180 rows",
        ),
        (dict(by="subject"), "column 'subject'.*did you mean 'Subject'"),
        (dict(cv=3), "cv must be one of"),
        (dict(cv=[(0, [500])]), "cv must be one of.*among the 180 rows"),
        (dict(cv=[([0, 1], [])]), "fold 0 of cv has no row to predict"),
        (dict(cv=[]), "cv makes no folds"),
        (dict(scoring="r2"), "scoring must be 'rmse' or 'mae' or 'crps' or 'log_score', not 'r2'"),
        (dict(scoring=[3]), "scoring must be among .* not 3"),
        (dict(scoring=3), "scoring must be among .* not 3"),
    ],
)
def test_wrong_arguments_are_refused_in_words(kwargs, message):
    with pytest.raises((TypeError, ValueError), match=message):
        fitted("sleepstudy_slope_REML").cross_val(**kwargs)


def test_missing_groups_are_refused():
    frame = sleepstudy()
    frame["site"] = np.where(frame.Days == 3, None, "a")
    with pytest.raises(ValueError, match="by='site' is missing in 18 of the 180 rows used"):
        interlace.cross_val(SLOPES, frame, by="site")


def test_polars_frames_are_split_too(logo):
    polars = pytest.importorskip("polars")
    found = interlace.cross_val(SLOPES, polars.from_pandas(sleepstudy()), by="Subject")
    assert_allclose(found.folds["crps"], logo.folds["crps"], rtol=1e-10)


def test_groups_may_be_tuples(logo):
    frame = sleepstudy()
    frame["Subject"] = [(subject[0], int(subject[1:])) for subject in frame["Subject"]]
    found = interlace.cross_val(SLOPES, frame)
    assert found.folds.index[0] == ("S", 308)
    assert_allclose(found.folds["crps"], logo.folds["crps"], rtol=1e-10)
    assert interlace.cross_val(SLOPES, frame, by="Subject").folds.index.equals(found.folds.index)
