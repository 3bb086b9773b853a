"""Cross-products made chunk by chunk are those of all rows at once."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import arrays, oracle
from numpy.testing import assert_allclose

from interlace_jax.engines import chunked_moments
from interlace_jax.runtime import calls


@pytest.mark.parametrize("kind", ["slope", "nested", "crossed"])
@pytest.mark.parametrize("rows", [7, 1000])
def test_every_number_of_the_model_is_that_of_all_rows_at_once(kind, rows):
    problem = oracle.random_design(1, kind).used()
    theta = oracle.random_theta(problem, 1)
    by_chunks = chunked_moments.moments_by_chunks(
        arrays.plan(problem), *arrays.rows(problem), rows=rows
    )
    found, expected = (
        arrays.kernel(theta, m, True) for m in (by_chunks, arrays.condition(problem))
    )
    assert_allclose(found["deviance"], oracle.deviance(problem, theta, True), rtol=1e-10)
    for name, value in expected.items():
        for a, b in zip(
            *(v if isinstance(v, list) else [v] for v in (found[name], value)), strict=True
        ):
            assert_allclose(a, b, rtol=1e-9, atol=1e-10, err_msg=name)


def test_columns_are_conditioned_as_well_as_from_all_rows_at_once():
    problem = oracle.random_design(2, "slope").used()
    shifted = replace(problem, X=np.column_stack([problem.X[:, :1], 2000 + 0.1 * problem.X[:, 1]]))
    m = chunked_moments.moments_by_chunks(arrays.plan(shifted), *arrays.rows(shifted), rows=11)
    assert_allclose(m.XX, np.eye(2), atol=1e-9)
    assert_allclose(m.Xy, 0, atol=1e-9 * m.n)
    assert_allclose(m.yy, m.n, rtol=1e-9)


def test_padded_levels_and_a_part_filled_last_chunk_change_nothing():
    problem = oracle.random_design(3, "crossed").used()
    theta = oracle.random_theta(problem, 3)
    padded, exact = (
        chunked_moments.moments_by_chunks(arrays.plan(problem, pad), *arrays.rows(problem), rows=64)
        for pad in (True, False)
    )
    values = [calls.run(_deviance, theta, m) for m in (padded, exact)]
    assert_allclose(*values, rtol=1e-12)


@arrays.quick_jit
def _deviance(theta, m):
    return arrays.of_theta(theta, m, False)
