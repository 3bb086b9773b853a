"""Singular fits, said in words with a remedy."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import summaries
from helpers.summaries import at, with_estimate

import interlace_jax as interlace


@pytest.fixture
def sleepstudy():
    return summaries.sleepstudy()


@pytest.fixture
def slope():
    return summaries.slope()


ALTERNATIVE = "try (1 + Days || Subject), "


def test_a_factor_without_variance_is_named_and_what_to_do():
    with pytest.warns(interlace.SingularFitWarning) as caught:
        fit = interlace.fit("Yield ~ 1 + (1 | Batch)", interlace.load_dataset("dyestuff2"))
    message = str(caught[0].message)
    assert message == fit.singularity
    assert "the standard deviation of '(Intercept)' across 'Batch' is estimated as 0" in message
    assert message.endswith("consider leaving (1 | Batch) out")
    assert message in " ".join(str(fit.summary()).split())


def test_a_nested_factor_without_variance_is_written_as_a_term_of_its_own():
    fit = interlace.fit("strength ~ 1 + (1 | batch/cask)", interlace.load_dataset("pastes"))
    message = at(fit, theta=np.array([0.0, 1.0])).singularity
    assert "consider leaving (1 | cask:batch) out" in message
    assert message.count("estimated as 0") == 1


@pytest.mark.parametrize(
    ("theta", "pieces"),
    [
        (
            [0.9, 0.2, 0.0],
            ["'(Intercept)' and 'Days' (+1.00) of 'Subject' are perfectly correlated", ALTERNATIVE],
        ),
        (
            [0.9, -0.2, 0.0],
            ["'(Intercept)' and 'Days' (-1.00) of 'Subject' are perfectly correlated", ALTERNATIVE],
        ),
        ([0.9, 0.0, 0.0], ["deviation of 'Days' across 'Subject' is estimated as 0", ALTERNATIVE]),
        (
            [0.0, 0.0, 0.2],
            ["deviation of '(Intercept)' across 'Subject' is estimated as 0", ALTERNATIVE],
        ),
        (
            [0.0, 0.0, 0.0],
            [
                "deviation of '(Intercept)' and 'Days' across 'Subject' is estimated as 0",
                ALTERNATIVE,
            ],
        ),
    ],
)
def test_a_singular_correlated_term_is_told_by_what_is_wrong(slope, theta, pieces):
    fit = at(slope, theta=np.array(theta))
    assert fit.is_singular
    message = fit.singularity
    assert all(piece in message for piece in pieces), message


def test_an_uncorrelated_slope_without_variance_is_to_be_left_out(sleepstudy, slope):
    model = interlace.compile("Reaction ~ Days + (1 + Days || Subject)", sleepstudy)
    estimate = replace(slope.estimate, theta=np.array([0.9, 0.0]))
    message = with_estimate(model, estimate).singularity
    assert "consider leaving 'Days' out of the random effects of 'Subject'" in message
    assert "||" not in message


def test_three_effects_of_rank_two_determine_each_other(slope):
    model = interlace.compile(
        "score ~ 1 + (0 + Machine | Worker)", interlace.load_dataset("machines")
    )
    estimate = replace(slope.estimate, theta=np.array([1.0, 0.5, 0.4, 1.0, 0.7, 0.0]))
    message = with_estimate(model, estimate).singularity
    assert "'Machine[A]', 'Machine[B]' and 'Machine[C]' of 'Worker' determine each other" in message
    assert "try (0 + Machine || Worker)" in message
