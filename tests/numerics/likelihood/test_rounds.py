"""Elimination by rounds against the dense oracle."""

import pytest
from helpers import arrays, oracle

from .test_elimination import check


@pytest.mark.parametrize(("kind", "most"), [("crossed_slopes", 9), ("nested_crossed", 2)])
def test_rounds_give_the_oracles_numbers(kind, most):
    problem = oracle.random_design(0, kind)
    m = arrays.by_rounds(problem, most)
    assert 1 < len(m.rounds.rounds) <= most
    check(problem, m=m)
