"""Random effects around any regressor, and ids as their random effects."""

import numpy as np
import pandas as pd
import pytest
from helpers.fits import quiet_fit
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeRegressor
from sklearn.utils import estimator_checks

from interlace_jax.sklearn import MixedEffects, RandomEffectsEncoder


def groups_of_rows(seed=0, groups=40, rows=8):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), rows)
    x = rng.standard_normal(len(g))
    noise = 0.5 * rng.standard_normal(len(g))
    b = rng.standard_normal(groups)[g]
    return pd.DataFrame({"x": x, "g": [f"g{i:02}" for i in g]}), 2 * x + b + noise, noise


@pytest.mark.filterwarnings("ignore:nothing is random:UserWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@estimator_checks.parametrize_with_checks(
    [MixedEffects(Ridge()), RandomEffectsEncoder(random_state=0)]
)
def test_scikit_learn_finds_nothing_wrong(estimator, check):
    check(estimator)


def test_with_a_linear_regressor_it_goes_to_the_mixed_model():
    X, y, _ = groups_of_rows()
    model = MixedEffects(LinearRegression(), groups="g", tol=1e-9, rounds=60).fit(X, y)
    fit = quiet_fit("y ~ x + (1 | g)", X.assign(y=y), method="ML")
    # Each round is one step of a contraction: 1e-9 deviance units a row are some 1e-4 of an SE.
    assert_allclose(model.regressor_.coef_[0], fit.fe_params["x"], atol=1e-3 * fit.fe_bse["x"])
    assert_allclose(model.predict(X), fit.fittedvalues, atol=5e-3)
    assert_allclose(model.effects_.sigma, fit.sigma, rtol=1e-4)
    assert model.sigma_ > model.effects_.sigma


def test_unseen_groups_have_no_effect_and_the_variance_of_their_prior():
    X, y, _ = groups_of_rows()
    model = MixedEffects(LinearRegression(), groups="g", random_state=0).fit(X, y)
    new = pd.DataFrame({"x": [0.3, 0.3], "g": ["g00", "nobody"]})
    mean, sd = model.predict(new, return_std=True)
    assert_allclose(mean[1], model.regressor_.predict(new[["x"]])[1], rtol=1e-12)
    b = model.effects_.random_effects["g"].squeeze()["g00"]
    assert_allclose(mean[0] - mean[1], b, rtol=1e-8)
    prior = model.effects_.covariances["g"].iloc[0, 0]
    assert_allclose(sd[1] ** 2, prior + model.sigma_**2, rtol=0.05)  # and that of the intercept
    assert model.sigma_ < sd[0] < sd[1]


def test_groups_may_come_apart_and_slopes_are_terms():
    X, y, _ = groups_of_rows()
    apart = MixedEffects(LinearRegression(), random_state=0).fit(X[["x"]], y, groups=X["g"])
    within = MixedEffects(LinearRegression(), groups="g", random_state=0).fit(X, y)
    assert_allclose(apart.predict(X[["x"]], groups=X["g"]), within.predict(X), rtol=1e-8)
    assert_allclose(apart.predict(X[["x"]]), apart.regressor_.predict(X[["x"]]), rtol=1e-12)
    slopes = MixedEffects(LinearRegression(), random="(1 + x | g)", random_state=0).fit(X, y)
    assert slopes.effects_.random_effects["g"].shape == (40, 2)


def test_what_learns_its_rows_by_heart_is_refused_or_judged_out_of_fold():
    X, y, noise = groups_of_rows(groups=60)
    with pytest.raises(ValueError, match="reproduces its training rows.*out_of_fold=True"):
        MixedEffects(DecisionTreeRegressor(), groups="g").fit(X, y)
    tree = MixedEffects(
        DecisionTreeRegressor(random_state=0),
        groups="g",
        out_of_fold=True,
        tol=0.05,
        random_state=0,
    ).fit(X, y)
    sd = float(tree.effects_.covariances["g"].iloc[0, 0]) ** 0.5
    # The SD of 60 groups' effects, 1, is known to a tenth; the noise of a tree's leaf is its own.
    assert 0.6 < sd < 1.4
    assert tree.sigma_ > noise.std()


def test_arguments_are_refused_in_words():
    X, y, _ = groups_of_rows()
    with pytest.raises(ValueError, match="by must be 'rows' or 'groups'"):
        MixedEffects(Ridge(), by="columns").fit(X, y)
    with pytest.raises(ValueError, match="groups are given to predict, but were not to fit"):
        MixedEffects(Ridge(), groups="g").fit(X, y).predict(X, groups=X["g"])


def test_codes_of_the_training_rows_have_nothing_of_their_own_response():
    ids = np.repeat(np.arange(400), 3)
    _, _, noise = groups_of_rows(1, 400, 3)
    b = np.random.default_rng(2).standard_normal(400)[ids]
    encoder = RandomEffectsEncoder(random_state=0)
    codes = encoder.fit_transform(ids[:, None], b + noise)[:, 0]
    in_sample = encoder.transform(ids[:, None])[:, 0]
    assert abs(np.corrcoef(codes, noise)[0, 1]) < 3 / 1200**0.5
    assert np.corrcoef(in_sample, noise)[0, 1] > 3 / 1200**0.5
    assert np.corrcoef(codes, b)[0, 1] > 0.7


def test_codes_of_noise_tell_nothing_of_it():
    ids, y = np.repeat(np.arange(300), 3)[:, None], np.random.default_rng(3).standard_normal(900)
    codes = RandomEffectsEncoder(random_state=0).fit_transform(ids, y)[:, 0]
    if codes.std() > 0:
        assert np.corrcoef(codes, y)[0, 1] < 3 / 900**0.5


def test_transformed_ids_are_the_effects_of_the_joint_model():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {"user name": rng.integers(0, 12, 120), "item": rng.choice(list("abcde"), 120)}
    )
    y = 0.5 * X["user name"] + rng.standard_normal(120)
    encoder = RandomEffectsEncoder(with_sd=True, random_state=0).fit(X, y)
    names = ["user name", "item", "user name_sd", "item_sd"]
    assert_array_equal(encoder.get_feature_names_out(), names)
    fit = quiet_fit(
        "y ~ 1 + (1 | u) + (1 | item)", X.rename(columns={"user name": "u"}).assign(y=y)
    )
    new = pd.DataFrame({"user name": [3, 99], "item": ["a", "z"]})
    found = encoder.transform(new)
    effects, errors = fit.random_effects, fit.random_effects_se
    assert_allclose(
        found[0, :2], [effects["u"].squeeze()[3], effects["item"].squeeze()["a"]], rtol=1e-6
    )
    assert_allclose(found[0, 2], errors["u"].squeeze()[3], rtol=1e-6)
    assert_array_equal(found[1, :2], 0.0)
    assert_allclose(found[1, 2], fit.covariances["u"].iloc[0, 0] ** 0.5, rtol=1e-6)


def test_it_stands_in_a_pipeline():
    X, y, _ = groups_of_rows()
    columns = make_column_transformer(
        (RandomEffectsEncoder(random_state=0), ["g"]), remainder="passthrough"
    )
    assert make_pipeline(columns, LinearRegression()).fit(X, y).score(X, y) > 0.85
