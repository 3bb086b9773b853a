"""Successes out of trials and categories, as the design holds them."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from interlace_jax.design.design import build
from interlace_jax.design.formula import parse
from interlace_jax.numerics.families.family import Binomial, Ordinal, Poisson


def frame():
    r = np.random.default_rng(0)
    size = r.integers(2, 9, 12)
    success = r.binomial(size, 0.4)
    return pd.DataFrame(
        {
            "g": np.tile(list("abc"), 4),
            "x": r.normal(size=12),
            "s": success,
            "f": size - success,
            "n": size,
            "share": success / size,
            "answer": np.where(success > 2, "yes", "no"),
            "stars": np.resize([1, 2, 3], 12),
        }
    )


def design(left, family, **options):
    return build(parse(f"{left} ~ x + (1 | g)"), frame(), family=family, **options)


@pytest.mark.parametrize(
    ("left", "options"),
    [
        ("cbind(s, f)", {}),
        ("s", {"trials": "n"}),
        ("share", {"trials": "n"}),
        ("share", {"weights": "n"}),
    ],
)
def test_every_spelling_gives_successes_and_trials(left, options):
    made = design(left, Binomial(), **options)
    np.testing.assert_allclose(made.y, frame()["s"])
    assert_array_equal(made.observed.trials, frame()["n"])


def test_proportions_are_shown_as_they_were_given():
    made = design("share", Binomial(), trials="n")
    np.testing.assert_allclose(made.observed.shown(made.y), frame()["share"])
    counts = design("cbind(s, f)", Binomial())
    assert_array_equal(counts.observed.shown(counts.y), frame()["s"])


def test_of_two_answers_the_second_is_counted_and_said():
    made = design("answer", Binomial())
    assert_array_equal(made.y, (frame()["answer"] == "yes").astype(float))
    assert "yes" in made.observed.outcome


def test_categories_are_numbered_in_their_order():
    made = design("stars", Ordinal())
    assert_array_equal(made.y, frame()["stars"] - 1.0)
    assert len(made.observed.family.categories) == 3


@pytest.mark.parametrize(
    ("left", "family", "message"),
    [
        ("cbind(s, f)", Poisson(), r"cbind\(successes, failures\) is a response of binomial"),
        ("cbind(s)", Binomial(), "two columns"),
        ("answer", Poisson(), "is not numeric"),
        ("answer", Ordinal(), "is text, whose order is not known"),
        ("stars", Binomial(), "stars"),
    ],
)
def test_responses_that_a_family_does_not_have_are_refused(left, family, message):
    with pytest.raises(ValueError, match=message):
        design(left, family)
