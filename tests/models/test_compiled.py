"""The compiled model and the arguments of fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.cases import load_case
from helpers.fits import fitted, sleepstudy
from numpy.testing import assert_allclose

import interlace_jax as interlace

FORMULA = "Reaction ~ Days + (1 + Days | Subject)"


@pytest.fixture(scope="module")
def model():
    return interlace.compile(FORMULA, sleepstudy())


def test_compiling_does_not_fit_and_fitting_it_is_fit(model):
    assert_allclose(model.fit().deviance, fitted("sleepstudy_slope_REML").deviance, rtol=1e-12)
    assert_allclose(model.fit("ML").deviance, fitted("sleepstudy_slope_ML").deviance, rtol=1e-12)


def test_deviance_and_loglik_are_those_of_lme4_in_the_type_given(model):
    case = load_case("sleepstudy_slope_REML")
    assert type(model.deviance(case.theta)) is float
    assert type(model.deviance(case.theta.tolist())) is float
    assert_allclose(model.deviance(case.theta), case["objective"], rtol=0, atol=1e-8)
    assert_allclose(model.loglik(case.theta), -0.5 * case["objective"], rtol=0, atol=1e-8)
    assert_allclose(
        model.deviance(case.theta, reml=False), case["ml_deviance_at_theta"], rtol=0, atol=1e-8
    )
    assert isinstance(model.deviance(jnp.asarray(case.theta)), jax.Array)


def test_theta_of_the_fit_is_its_optimum(model):
    fit = fitted("sleepstudy_slope_REML")
    assert_allclose(model.deviance(fit.theta), fit.deviance, rtol=1e-12)
    for step in np.eye(3) * 1e-3:
        assert model.deviance(fit.theta + step) > fit.deviance < model.deviance(fit.theta - step)


@pytest.mark.parametrize("name", ["sleepstudy_slope_REML", "penicillin_REML", "pastes_REML"])
def test_start_values_are_on_the_users_scale_and_better_than_none(name):
    model = fitted(name).model
    theta0 = model.theta0
    assert theta0.shape == fitted(name).theta.shape and np.isfinite(theta0).all()
    assert model.deviance(theta0) < model.deviance(np.zeros_like(theta0))


def test_a_start_of_ones_own_changes_the_way_and_not_the_end(model):
    for theta0 in ([1, 0, 1], [0, 0, 0], [5, 3, 2.0]):
        fit = model.fit(theta0=theta0)
        assert_allclose(fit.deviance, fitted("sleepstudy_slope_REML").deviance, rtol=0, atol=1e-9)
        assert_allclose(fit.theta, fitted("sleepstudy_slope_REML").theta, atol=1e-6)


@pytest.mark.parametrize(
    "theta", [[1.0], [1, 2, 3, 4], [[1, 0, 1]], [1, np.nan, 1], [1, np.inf, 1]]
)
def test_theta_has_d_finite_entries(model, theta):
    with pytest.raises(ValueError, match="3 finite numbers"):
        model.deviance(theta)
    with pytest.raises(ValueError, match="3 finite numbers"):
        model.fit(theta0=theta)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(method="reml"), "method must be 'REML' or 'ML', not 'reml'"),
        (dict(method=True), "method must be"),
        (
            dict(df_method="kr"),
            "'satterthwaite' or 'kenward-roger' or 'kenward-roger-linear' or 'between-within' or "
            "'normal'",
        ),
        (dict(method="ML", df_method="kenward-roger"), "REML"),
    ],
)
def test_unknown_methods_are_refused_with_those_there_are(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.fit(**options)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(formula="Reaction ~ Dayz + (1 | Subject)"), "'Dayz'.*did you mean 'Days'"),
        (dict(formula="Reaction ~ Days", groups="Subjekt"), "'Subjekt'.*did you mean 'Subject'"),
        (dict(formula="Reaction ~ Days", random="(1 + zzz | Subject)"), "'zzz'"),
        (dict(formula="Reaction ~ Days", random=["(1 | Subject)", "(1 | zzz)"]), "'zzz'"),
        (dict(formula="Reaction ~ Days"), "random effects"),
        (dict(formula="Reaction ~ Days + (1 | Subject)", weights="zzz"), "'zzz'"),
        (dict(formula="Reaction ~ Days + (1 | Subject)", offset="zzz"), "'zzz'"),
        (dict(formula="Reaction ~ Days + (1 | Subject)", weights=[1, 2]), "2 values.*180 rows"),
        (dict(formula="Reaction ~ Days + (1 | Subject)", weights=-np.ones(180)), "negative"),
        (dict(formula="Subject ~ Days + (1 | Subject)"), "not numeric"),
        (dict(formula="Reaction ~ Days + (1 | Subject)", na_action="omit"), "'drop' or 'raise'"),
    ],
)
def test_wrong_input_is_a_value_error_that_names_it(arguments, message):
    with pytest.raises(ValueError, match=message):
        interlace.fit(data=sleepstudy(), **arguments)


def test_models_of_other_responses_share_the_design(model):
    other = model.with_response(np.arange(180.0))
    assert other.design.X is model.design.X
    assert other.deviance([1, 0, 1]) != model.deviance([1, 0, 1])


def test_update_keeps_weights_and_offset_unless_told_otherwise():
    frame = load_case("weighted_REML").frame
    model = interlace.compile("y ~ x + (1 | g)", frame, weights="w")
    theta = np.ones(1)
    assert_allclose(model.update(". ~ .").deviance(theta), model.deviance(theta), rtol=1e-12)
    assert model.update(". ~ .", weights=None).deviance(theta) != model.deviance(theta)
    assert model.update(". ~ . - x").design.columns == ("Intercept",)


def test_an_empty_left_side_keeps_the_response(model):
    updated = model.update("~ . - Days")
    assert (updated.design.response, updated.design.columns) == ("Reaction", ("Intercept",))


@pytest.mark.parametrize("text", [". ~ . + I(Days / 2. > 1.)", ". ~ . + np.sqrt(Days)"])
def test_only_dots_that_stand_alone_are_filled(model, text):
    updated = model.update(text)
    assert updated.design.response == "Reaction"
    assert len(updated.design.columns) == 3


@pytest.mark.parametrize("right", ["z * .", "z:.", "z - .", ". * z", "(. + z)", ". - ."])
def test_a_dot_that_is_no_summand_is_refused(model, right):
    """z * . would be read as z * a + b, where R has z * (a + b)."""
    with pytest.raises(ValueError, match="write the whole formula"):
        model.update(f"~ {right}")
