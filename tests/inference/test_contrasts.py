"""Linear hypotheses: how they are written, and which cannot be."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from interlace_jax.inference import contrasts

NAMES = ("Intercept", "recipe[T.B]", "temp[T.T185]", "recipe[T.B]:temp[T.T185]", "x", "x2")


@pytest.mark.parametrize(
    ("written", "weights", "rhs"),
    [
        ("x = 0", [0, 0, 0, 0, 1, 0], 0),
        ("x", [0, 0, 0, 0, 1, 0], 0),
        ("x2 = x", [0, 0, 0, 0, -1, 1], 0),
        ("2 * x - x2 = 1", [0, 0, 0, 0, 2, -1], 1),
        ("recipe[T.B]:temp[T.T185] = recipe[T.B]", [0, -1, 0, 1, 0, 0], 0),
        ("`temp[T.T185]` + Intercept = 250", [1, 0, 1, 0, 0, 0], 250),
        ({"x": 1, "x2": -0.5}, [0, 0, 0, 0, 1, -0.5], 0),
    ],
)
def test_a_row_may_be_text_or_weights_by_name(written, weights, rhs):
    L, right, _ = contrasts.contrast_matrix(written, NAMES)
    assert_allclose(L, [weights])
    assert_allclose(right, [rhs])


def test_several_rows_may_be_one_text_a_list_or_a_matrix():
    wanted = np.eye(6)[[4, 5]]
    for written in ("x = 0, x2 = 0", ["x", "x2 = 0"], wanted, wanted.tolist()):
        assert_allclose(contrasts.contrast_matrix(written, NAMES)[0], wanted)


@pytest.mark.parametrize("written", ["z = 0", "x == 0", {"z": 1}, [1, 2], [[np.nan] * 6], "x = "])
def test_what_cannot_be_read_is_said_with_the_names_there_are(written):
    with pytest.raises(ValueError, match="x2"):
        contrasts.contrast_matrix(written, NAMES)


@pytest.mark.parametrize(
    ("written", "rhs", "culprits"),
    [
        (["x = 1", "x2 = x", "x2 = 2"], None, ["x = 1", "x2 = x", "x2 = 2"]),
        (["x2 = 0", "x = 2", "x = 5"], None, ["x = 2", "x = 5"]),
        (["1000000 * x = 2", "x = 0"], None, ["1000000 * x = 2", "x = 0"]),
    ],
)
def test_a_contradiction_names_the_rows_that_make_it(written, rhs, culprits):
    with pytest.raises(ValueError) as said:
        contrasts.check_rows(*contrasts.contrast_matrix(written, NAMES), joint=True)
    assert (
        str(said.value) == f"the hypotheses {', '.join(map(repr, culprits))} contradict each other"
    )


@pytest.mark.parametrize(
    "written", [["x = 1", "2 * x = 2"], ["x = 0", "x2 = 0", "x = x2"], ["x = 1e9", "3 * x = 3e9"]]
)
def test_redundant_rows_contradict_nothing(written):
    contrasts.check_rows(*contrasts.contrast_matrix(written, NAMES), joint=True)
