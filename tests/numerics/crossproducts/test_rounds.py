"""The order of elimination: which columns go together, and what is left."""

import numpy as np

from interlace_jax.numerics.covariance.block import Block
from interlace_jax.numerics.crossproducts import rounds


def nearly_nested(r, albums=300, tracks=900):
    """Codes of albums and of artists, of whom few share an album."""
    album = r.integers(0, albums, tracks)
    artist = np.where(r.random(tracks) < 0.01, r.integers(0, albums // 2, tracks), album // 2)
    return rounds.separate([album, artist], [Block(albums, (1,)), Block(albums // 2, (1,))])


def test_nearly_nested_factors_leave_a_small_core():
    plan = nearly_nested(np.random.default_rng(0))
    order = rounds.rounds_of(plan, rounds.meetings(plan))
    assert order.q < 20


def test_columns_of_one_round_never_meet():
    plan = nearly_nested(np.random.default_rng(1))
    order = rounds.rounds_of(plan, rounds.meetings(plan), most=3)
    end = 0
    for made in order.rounds:
        end += made.size
        assert (made.row >= end).all()


def test_a_full_grid_has_no_rounds():
    everyone = np.repeat(np.arange(40), 40), np.tile(np.arange(40), 40)
    plan = rounds.separate(everyone, [Block(40, (1,)), Block(40, (1,))])
    order = rounds.rounds_of(plan, rounds.meetings(plan))
    assert (order.rounds, order.q) == ((), 80)
