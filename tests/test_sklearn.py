"""The scikit-learn estimator: scikit-learn's own checks, the numbers of `fit`, and life in
pipelines and searches.
"""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from helpers.fits import fitted, quiet_fit, sleepstudy
from numpy.testing import assert_allclose
from scipy import special

import interlace_jax as interlace

pytest.importorskip("sklearn")

from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import estimator_checks

from interlace_jax.sklearn import MixedModelClassifier, MixedModelRegressor

EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": (
        "9 coefficients of 9 rows with positive weight are refused"
    ),
}


class ClassesInFours(MixedModelClassifier):
    """Rows in turn belong to four groups, as below."""

    def fit(self, X, y, groups=None, sample_weight=None):
        return super().fit(X, y, np.arange(len(X)) % 4, sample_weight)


class InFours(MixedModelRegressor):
    """Rows in turn belong to four groups: a mixed model of whatever rows the checks make up."""

    def fit(self, X, y, groups=None, sample_weight=None):
        return super().fit(X, y, np.arange(len(X)) % 4, sample_weight)


@pytest.fixture(scope="module")
def data():
    frame = sleepstudy()
    return frame[["Days", "Subject"]], frame["Reaction"]


@pytest.mark.filterwarnings(
    "ignore:nothing is random:UserWarning", "ignore::sklearn.exceptions.SkipTestWarning"
)
@estimator_checks.parametrize_with_checks(
    [MixedModelRegressor(), MixedModelClassifier()],
    expected_failed_checks=lambda _: EXPECTED_FAILURES,
)
def test_scikit_learn_finds_nothing_wrong(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_fit_idempotent,
        estimator_checks.check_dataframe_column_names_consistency,
        estimator_checks.check_estimators_pickle,
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nor_with_random_effects(check):
    check("InFours", InFours())
    check("ClassesInFours", ClassesInFours())


def test_it_is_the_fit_of_its_formula(data):
    model = MixedModelRegressor("~ Days + (1 + Days | Subject)").fit(*data)
    fit = fitted("sleepstudy_slope_REML")
    assert_allclose(model.result_.fe_params, fit.fe_params, rtol=1e-10)
    assert_allclose(model.predict(data[0]), fit.fittedvalues, rtol=1e-9)
    population = clone(model).set_params(include_re=False).fit(*data).predict(data[0])
    assert_allclose(population, fit.predict(include_re=False), rtol=1e-9)
    assert model.n_features_in_ == 2
    assert model.feature_names_in_.tolist() == ["Days", "Subject"]
    assert model.score(*data) == pytest.approx(1 - np.var(fit.resid) / np.var(data[1]), abs=1e-3)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(groups="Subject"),
        dict(formula="~ Days", groups=["Subject"]),
        dict(formula="~ Days", random="(1 | Subject)"),
        dict(formula="~ Days + (1 | Subject)"),
        dict(groups=1),
    ],
)
def test_every_spelling_of_the_groups_is_the_same_model(data, arguments):
    assert MixedModelRegressor(**arguments).fit(*data).result_.deviance == pytest.approx(
        1786.465, abs=1e-3
    )


def test_arrays_have_numbered_columns(data):
    X = np.column_stack([data[0]["Days"], pd.factorize(data[0]["Subject"])[0]])
    model = MixedModelRegressor(random="(1 + x0 | x1)").fit(X, data[1])
    assert model.result_.deviance == pytest.approx(1743.628, abs=1e-3)
    assert str(model.result_.model.design.formula) == "y ~ x0 + (1 + x0 | x1)"


def test_groups_may_come_apart_from_the_columns(data):
    X, y = data[0][["Days"]], data[1]
    model = MixedModelRegressor(random="(1 + Days | groups)").fit(X, y, groups=data[0]["Subject"])
    fit = fitted("sleepstudy_slope_REML")
    assert_allclose(model.predict(X, groups=data[0]["Subject"]), fit.fittedvalues, rtol=1e-9)
    assert_allclose(model.predict(X), fit.predict(include_re=False), rtol=1e-9)
    with pytest.raises(ValueError, match="groups are given to predict, but were not to fit"):
        MixedModelRegressor(groups="Subject").fit(*data).predict(data[0], groups=data[0]["Subject"])
    plain = MixedModelRegressor().fit(X, y, groups=pd.factorize(data[0]["Subject"])[0])
    assert list(plain.result_.ngroups) == ["groups"]
    assert_allclose(
        plain.predict(X.iloc[:3]), plain.result_.predict(include_re=False)[:3], rtol=1e-12
    )


def test_sample_weights_are_prior_weights(data):
    w = np.random.default_rng(0).uniform(0.5, 2.0, len(data[1]))
    model = MixedModelRegressor(groups="Subject").fit(*data, sample_weight=w)
    expected = quiet_fit("Reaction ~ Days + (1 | Subject)", sleepstudy(), weights=w)
    assert_allclose(model.result_.fe_params, expected.fe_params, rtol=1e-10)


def test_without_groups_it_is_least_squares_and_says_so(data):
    X, y = data[0][["Days"]], data[1]
    with pytest.warns(UserWarning, match="nothing is random in this model"):
        model = MixedModelRegressor("~ poly(Days, 2)").fit(X, y)
    features = np.column_stack([X["Days"], X["Days"] ** 2])
    assert_allclose(
        model.predict(X), LinearRegression().fit(features, y).predict(features), rtol=1e-10
    )
    lack = y - model.predict(X)
    assert_allclose(model.result_.sigma, np.sqrt(np.sum(lack**2) / 177), rtol=1e-12)
    full = np.column_stack([np.ones(180), features])
    variance = np.einsum("ij,jk,ik->i", full, np.linalg.inv(full.T @ full), full)
    assert_allclose(
        model.predict(X, return_std=True)[1], model.result_.sigma * np.sqrt(1 + variance), rtol=1e-8
    )


def test_standard_deviations_are_those_of_new_responses(data):
    model, fit = (
        MixedModelRegressor("~ Days + (1 + Days | Subject)").fit(*data),
        fitted("sleepstudy_slope_REML"),
    )
    new = data[0].iloc[3:5].assign(Subject="somebody new")
    mean, sd = model.predict(new, return_std=True)
    z = np.array([[1.0, 3.0], [1.0, 4.0]])
    spread = fit.varcov.to_numpy() + fit.fe_cov.to_numpy()
    assert_allclose(mean, z @ fit.fe_params, rtol=1e-9)
    assert_allclose(sd, np.sqrt(np.einsum("ij,jk,ik->i", z, spread, z) + fit.scale), rtol=1e-6)
    assert (model.predict(data[0].iloc[3:5], return_std=True)[1] < sd).all()


def test_it_stands_at_the_end_of_a_pipeline_and_is_searched(data):
    frame = data[0].assign(day=data[0]["Days"].map(lambda d: "late day" if d > 4 else "early"))
    columns = ColumnTransformer(
        [
            ("num", StandardScaler(), ["Days"]),
            ("cat", OneHotEncoder(drop="first", sparse_output=False), ["day"]),
            ("as", "passthrough", ["Subject"]),
        ]
    ).set_output(transform="pandas")
    pipeline = make_pipeline(columns, MixedModelRegressor(groups="as__Subject")).fit(frame, data[1])
    expected = quiet_fit("Reaction ~ Days + day + (1 | Subject)", frame.assign(Reaction=data[1]))
    assert_allclose(pipeline.predict(frame), expected.fittedvalues, rtol=1e-8)
    formulas = ["~ num__Days + (1 | as__Subject)", "~ num__Days + (num__Days | as__Subject)"]
    grid = {"mixedmodelregressor__formula": formulas, "mixedmodelregressor__method": ["REML", "ML"]}
    pipeline.set_params(mixedmodelregressor__groups=None)
    search = GridSearchCV(
        pipeline, grid, cv=[(np.arange(0, 180, 2), np.arange(1, 180, 2))], error_score="raise"
    )
    scores = search.fit(frame, data[1]).cv_results_["mean_test_score"]
    assert len(np.unique(scores)) == 4
    assert search.best_estimator_[-1].result_.nobs == 180


def test_lists_of_strings_go_through_an_encoder(data):
    X, y = data
    encoder = make_column_transformer(
        (OneHotEncoder(drop="first", sparse_output=False), [1]), ("passthrough", [0])
    )
    model = make_pipeline(encoder, MixedModelRegressor())
    rows = [[str(days), "even" if days % 2 == 0 else "odd"] for days in X["Days"]]
    model.fit(rows, y, mixedmodelregressor__groups=list(X["Subject"]))
    odd = X["Days"] % 2 == 1
    X = X.assign(odd=odd.astype(float))
    expected = MixedModelRegressor("~ odd + Days + (1 | Subject)").fit(X, y)
    assert_allclose(
        model.predict(rows[:4]), expected.predict(X.assign(Subject="new")[:4]), rtol=1e-9
    )


def test_scores_by_group_are_those_of_cross_val(data):
    scores = cross_val_score(
        MixedModelRegressor("~ Days + (1 + Days | Subject)"),
        *data,
        groups=data[0]["Subject"],
        cv=GroupKFold(2),
        scoring="neg_root_mean_squared_error",
        error_score="raise",
    )
    ours = fitted("sleepstudy_slope_REML").cross_val(GroupKFold(2), scoring="rmse")
    assert_allclose(-scores, ours.folds["rmse"], rtol=1e-6)


def test_groups_are_routed_to_fit(data):
    X, y, subject = data[0][["Days"]], data[1], data[0]["Subject"]
    with config_context(enable_metadata_routing=True):
        model = MixedModelRegressor("~ Days").set_fit_request(groups=True)
        scores = cross_val_score(
            model, X, y, params={"groups": subject}, cv=GroupKFold(2), error_score="raise"
        )
    plain = MixedModelRegressor("~ Days + (1 | Subject)")
    assert_allclose(
        scores, cross_val_score(plain, *data, groups=subject, cv=GroupKFold(2)), rtol=1e-6
    )


def test_a_pickled_model_predicts_the_same(data):
    model = MixedModelRegressor("~ Days + (1 | Subject)", method="ML").fit(*data)
    again = pickle.loads(pickle.dumps(model))
    assert_allclose(again.predict(data[0]), model.predict(data[0]), rtol=1e-10)
    assert again.get_params() == dict(
        formula="~ Days + (1 | Subject)",
        groups=None,
        random=None,
        method="ML",
        include_re=True,
        family="gaussian",
        contrasts=None,
    )


@pytest.mark.filterwarnings("ignore:nothing is random:UserWarning")
def test_contrasts_code_columns_with_groups_and_without(data, answers):
    X, (ids, right, _) = data[0].assign(late=np.where(data[0]["Days"] > 4, "yes", "no")), answers
    model = MixedModelRegressor("~ late + (1 | Subject)", contrasts={"late": "sum"})
    fit = clone(model).fit(X, data[1]).result_
    written = interlace.fit("y ~ C(late, contr.sum) + (1 | Subject)", X.assign(y=data[1]))
    assert_allclose(fit.fe_params, written.fe_params, rtol=1e-9)
    alone = clone(model).set_params(formula="~ late").fit(X, data[1]).result_.fe_params
    means = data[1].groupby(X["late"]).mean()
    assert_allclose(alone.iloc[1], (means["no"] - means["yes"]) / 2.0)
    half = ids.assign(half=np.where(ids["x"] > 0, "b", "a"))
    two = MixedModelClassifier("~ half", contrasts={"half": "sum"}).fit(half, right).result_
    share = pd.Series(right == "wrong").groupby(half["half"]).mean()
    assert_allclose(two.fe_params.iloc[1], -np.diff(special.logit(share))[0] / 2.0, rtol=1e-4)


def test_polars_frames_are_taken(data):
    polars = pytest.importorskip("polars")
    X = polars.from_pandas(data[0])
    model = MixedModelRegressor(groups="Subject").fit(X, data[1])
    assert_allclose(
        model.predict(X),
        MixedModelRegressor(groups="Subject").fit(*data).predict(data[0]),
        rtol=1e-12,
    )


@pytest.mark.parametrize(
    "arguments, change, message",
    [
        (dict(formula="Reaction ~ Days"), {}, "formula must be a right side"),
        (dict(formula="~ days + (1 | Subject)"), {}, "column 'days'.*did you mean 'Days'"),
        (dict(groups="Subjects"), {}, "column 'Subjects'.*did you mean 'Subject'"),
        (dict(groups=5), {}, "groups=5 is no position among the 2 columns of X"),
        (dict(groups="Subject", method="reml"), {}, "method must be 'REML' or 'ML', not 'reml'"),
        (
            dict(groups="Subject"),
            dict(groups=np.arange(180) % 6),
            "a grouping factor of its own, 'Subject'",
        ),
        (dict(groups="Subject"), dict(groups=[1, 2]), "inconsistent numbers of samples"),
        (
            dict(groups="Subject"),
            dict(sample_weight=-np.ones(180)),
            "weights are negative in 180 rows",
        ),
    ],
)
def test_wrong_arguments_are_refused_in_words(data, arguments, change, message):
    with pytest.raises(ValueError, match=message):
        MixedModelRegressor(**arguments).fit(*data, **change)


def test_missing_values_are_refused(data):
    X, y = data[0].astype({"Days": float}), data[1]
    holes = X.assign(Days=X["Days"].where(X.index > 2))
    with pytest.raises(
        ValueError, match=r"missing values in 'Days' \(3\): impute them, or leave out these rows$"
    ):
        MixedModelRegressor(groups="Subject").fit(holes, y)
    for groups in (X["Subject"].where(X.index > 0), np.where(X.index > 0, X["Subject"], None)):
        with pytest.raises(
            ValueError,
            match=r"missing values in 'groups' \(1\): impute them, or leave out these rows$",
        ):
            MixedModelRegressor().fit(X[["Days"]], y, groups=groups)
    with pytest.raises(ValueError, match="X has missing values in 3 rows"):
        MixedModelRegressor(groups="Subject").fit(X, y).predict(holes)


def test_the_package_does_not_need_scikit_learn():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import interlace_jax\n"
        "try: import interlace_jax.sklearn\n"
        "except ImportError as err: print(err)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "interlace_jax.sklearn needs scikit-learn" in done.stdout
    assert not hasattr(interlace, "MixedModelRegressor")


# Other families -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answers():
    rng = np.random.default_rng(7)
    g = np.repeat(np.arange(20), 15)
    x = rng.normal(size=300)
    p = special.expit(0.3 + 0.8 * x + rng.normal(size=20)[g])
    X = pd.DataFrame({"x": x, "g": g.astype(str)})
    return X, np.where(rng.random(300) < p, "right", "wrong"), rng.poisson(np.exp(x * 0.5 + 1))


def test_a_classifier_is_the_binomial_fit_of_its_formula(answers):
    X, y, _ = answers
    model = MixedModelClassifier("~ x + (1 | g)").fit(X, y)
    fit = interlace.fit("y ~ x + (1 | g)", X.assign(y=y), family="binomial")
    assert model.classes_.tolist() == ["right", "wrong"]  # the second is the one of P(...)
    assert_allclose(model.result_.fe_params, fit.fe_params, rtol=1e-10)
    assert_allclose(model.predict_proba(X)[:, 1], fit.fittedvalues, rtol=1e-9)
    assert_allclose(model.predict_proba(X).sum(1), 1.0)
    assert (model.predict(X) == np.where(fit.fittedvalues > 0.5, "wrong", "right")).all()
    assert model.score(X, y) > 0.6
    spelled = MixedModelClassifier(groups="g", link="probit", nagq=5).fit(X, y).result_
    assert spelled.nagq == 5 and spelled.family == interlace.Bernoulli("probit")


def test_groups_that_are_not_known_are_averaged_over(answers):
    X, y, counts = answers
    model = MixedModelClassifier("~ x + (1 | g)").fit(X, y)
    new = X.head(4).assign(g="somebody new")
    average = model.result_.predict(new, marginal=True)
    assert_allclose(model.predict_proba(new)[:, 1], average, rtol=1e-12)
    typical = model.result_.predict(new)
    assert (abs(average - 0.5) < abs(typical - 0.5)).all()
    without = clone(model).set_params(include_re=False).fit(X, y)
    assert_allclose(without.predict_proba(X)[:, 1], model.result_.predict(X, marginal=True))
    apart = MixedModelClassifier("~ x").fit(X[["x"]], y, groups=X["g"])
    assert_allclose(apart.predict_proba(X[["x"]], groups=X["g"]), model.predict_proba(X), rtol=1e-8)
    assert_allclose(apart.predict_proba(new[["x"]]), model.predict_proba(new), rtol=1e-8)


def test_counts_are_regressed_by_their_family(answers):
    X, _, counts = answers
    model = MixedModelRegressor("~ x + (1 | g)", family="poisson")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, counts)
        fit = interlace.fit("y ~ x + (1 | g)", X.assign(y=counts), family="poisson")
    assert_allclose(model.predict(X), fit.fittedvalues, rtol=1e-9)
    with pytest.raises(ValueError, match="return_std=True is for linear models"):
        model.predict(X, return_std=True)
    with pytest.raises(ValueError, match="nothing is random in this model of family='poisson'"):
        MixedModelRegressor(family="poisson").fit(X[["x"]], counts)


def test_what_is_no_pair_of_classes_is_refused(answers):
    X, y, counts = answers
    with pytest.raises(ValueError, match="3 classes: more belong to family='ordinal'"):
        MixedModelClassifier("~ x + (1 | g)").fit(X, np.arange(300) % 3)
    with pytest.raises(ValueError, match="The type of the target has 1 class"):
        MixedModelClassifier("~ x + (1 | g)").fit(X, np.ones(300))
    with pytest.raises(ValueError, match="those of one class, at most, are zero"):
        MixedModelClassifier("~ x + (1 | g)").fit(X, y, sample_weight=(y == "right") * 1.0)
    with pytest.raises(ValueError, match="nothing is random in this model with link='probit'"):
        MixedModelClassifier(link="probit").fit(X[["x"]], y)
    with pytest.warns(UserWarning, match="which is a logistic regression"):
        plain = MixedModelClassifier().fit(X[["x"]], y)
    p = plain.predict_proba(X[["x"]])[:, 1]
    assert_allclose(
        [np.sum(p - (y == "wrong")), np.sum(X["x"] * (p - (y == "wrong")))], 0, atol=1e-3
    )


def test_probabilities_are_scored_by_groups(answers):
    X, y, _ = answers
    model, folds = MixedModelClassifier("~ x + (1 | g)"), GroupKFold(2)
    arguments = dict(groups=X["g"], cv=folds, scoring="neg_log_loss", error_score="raise")
    scores = cross_val_score(model, X, y, **arguments)
    train, test = next(folds.split(X, y, X["g"]))
    fit = clone(model).fit(X.iloc[train], y[train]).result_
    p = fit.predict(X.iloc[test], marginal=True)
    assert scores[0] == pytest.approx(np.mean(np.log(np.where(y[test] == "wrong", p, 1 - p))))
