"""Which engine a design gets."""

import numpy as np
import pandas as pd
import pytest

from interlace_jax.design.design import build
from interlace_jax.design.formula import parse
from interlace_jax.engines.choice import engine_for, wants_iterative
from interlace_jax.engines.dense import Dense


def design(formula, rows=400, levels=20):
    r = np.random.default_rng(0)
    g, h = r.integers(0, levels, (2, rows))
    return build(parse(formula), pd.DataFrame({"y": r.normal(size=rows), "g": g, "h": h}))


def test_small_crossed_factors_are_dense_unless_asked_otherwise():
    crossed = design("y ~ 1 + (1 | g) + (1 | h)")
    assert not wants_iterative(crossed, "auto")
    assert wants_iterative(crossed, "iterative")
    assert isinstance(engine_for(crossed, "auto"), Dense)


def test_the_iterative_core_is_refused_where_there_is_nothing_to_iterate_on():
    alone = design("y ~ 1 + (1 | g)")
    assert not wants_iterative(alone, "auto")
    with pytest.raises(ValueError, match="'g' is alone; use core=\"auto\""):
        wants_iterative(alone, "iterative")


def test_a_core_that_would_take_too_long_is_iterative():
    r = np.random.default_rng(0)
    many = pd.DataFrame({"y": r.normal(size=40_000)})
    many["g"], many["h"] = r.integers(0, 12_000, (2, len(many)))
    large = build(parse("y ~ 1 + (1 | g) + (1 | h)"), many)
    assert wants_iterative(large, "auto") and not wants_iterative(large, "dense")
