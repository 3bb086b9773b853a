"""Rounds over lanes: every lane ends where a fit of its own ends, whatever its neighbours do."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import oracle
from helpers.arrays import batched_lapack, plan, rows
from numpy.testing import assert_allclose, assert_array_equal

from interlace_jax.many import curvature
from interlace_jax.many import lanes as lanes_module
from interlace_jax.many.lanes import Lanes, Rounds, fit_lanes
from interlace_jax.numerics.crossproducts import moments
from interlace_jax.numerics.estimation import bfgs, estimate
from interlace_jax.runtime import calls
from interlace_jax.runtime.programs import store, tiers, trace

LANES = 40
KINDS = ["slope", "crossed_slopes"]
each_kind = pytest.mark.parametrize("kind", KINDS)

_basis = jax.jit(
    lambda p, X, Z, w: (b := moments.condition(p, X, Z, w), moments.respond(p, b, X[:, :1]))
)
_respond = jax.jit(moments.respond)
_assemble = jax.jit(moments.assemble)
_single = jax.jit(estimate.estimate)


@cache
def _lanes(kind: str) -> Lanes:
    """Responses of one design; every other one is noise, so that variances vanish."""
    problem, rng = oracle.random_design(3, kind), np.random.default_rng(4)
    _, X, Z, w, _ = rows(problem)
    V = np.linalg.cholesky(problem.V(oracle.random_theta(problem, 3)))
    noise = rng.normal(size=(len(X), LANES))
    Y = np.where(np.arange(LANES) % 2, noise, V @ noise)
    p = plan(problem)
    basis, some = calls.run(_basis, p, X, Z, w)
    shared = calls.run(_assemble, p, basis, jax.tree.map(lambda a: a[0], some))
    return Lanes(shared, calls.run(_respond, p, basis, Y))


@cache
def _found(kind: str) -> estimate.Estimate:
    with calls.session():
        return fit_lanes(_lanes(kind), True)


def _one(kind: str, j: int) -> estimate.Estimate:
    lanes = _lanes(kind)
    return calls.run(
        _single, lanes.shared.with_response(jax.tree.map(lambda a: a[j], lanes.each)), True
    )


def test_slices_of_lanes_give_what_all_lanes_give_without_entries_too():
    a = np.arange(24.0).reshape(8, 3)
    for size in (2, 8, 16):
        total, none = lanes_module.in_slices(lambda lane: (lane.sum(), lane[:0]), a, size)
        assert_array_equal(total, a.sum(1))
        assert none.shape == (8, 0)


@each_kind
def test_every_lane_is_the_fit_of_its_own(kind):
    found = _found(kind)
    vanishing = np.concatenate(found.vanishing, 1).any(1)
    assert vanishing.any() and not vanishing.all()
    for j in range(0, LANES, 3):
        one = _one(kind, j)
        assert_allclose(found.deviance[j], one.deviance, rtol=0, atol=1e-8)
        assert_allclose(found.beta[j], one.beta, rtol=1e-4, atol=1e-5)
        assert_array_equal(np.concatenate(found.vanishing, 1)[j], np.concatenate(one.vanishing))


@each_kind
def test_lanes_that_start_on_a_saddle_leave_it(kind):
    # At Lambda = 0 every gradient is exactly zero, whether it is the optimum or not.
    with calls.session():
        found = fit_lanes(_lanes(kind), True, np.zeros_like(_found(kind).t))
    done = found.status == bfgs.CONVERGED
    assert done.mean() > 0.9
    assert_allclose(found.deviance[done], _found(kind).deviance[done], rtol=0, atol=1e-7)


def test_lanes_do_not_see_each_other():
    lanes, few = _lanes("slope"), np.array([7, 30, 2])
    with calls.session():
        found = fit_lanes(replace(lanes, each=jax.tree.map(lambda a: a[few], lanes.each)), True)
    assert_allclose(found.t, _found("slope").t[few], rtol=0, atol=1e-9)
    # Searches of other roundings may need a step more or less.
    assert_allclose(found.steps, _found("slope").steps[few], atol=3)


def test_as_numpy_one_program_serves_any_number_of_lanes(monkeypatch):
    monkeypatch.setenv("INTERLACE_JAX_EXECUTION", "numpy")
    monkeypatch.setenv("INTERLACE_JAX_CACHE", "0")
    monkeypatch.setattr(store, "SHIPPED", Path("none"))
    tiers.forget()
    traced, real = [], trace.program
    monkeypatch.setattr(
        tiers.trace, "program", lambda *args: traced.append(args[0].__name__) or real(*args)
    )
    lanes = _lanes("slope")
    for few in (np.arange(LANES), np.array([7, 30, 2])):
        some = replace(lanes, each=jax.tree.map(lambda a, few=few: a[few], lanes.each))
        with calls.session():
            found = fit_lanes(some, True)
        assert_allclose(found.t, _found("slope").t[few], rtol=0, atol=1e-7)
        assert_allclose(found.deviance, _found("slope").deviance[few], rtol=1e-12)
    assert len(traced) == len(set(traced)) > 3


def test_the_length_of_rounds_does_not_matter():
    with calls.session():
        found = fit_lanes(_lanes("slope"), True, rounds=Rounds(first=1, later=3, smallest=8))
    assert_allclose(found.t, _found("slope").t, rtol=0, atol=1e-9)
    assert_allclose(found.steps, _found("slope").steps, atol=3)


def test_lanes_with_a_large_core_end_alone_as_they_do_beside_others(monkeypatch):
    advance, sizes, in_slices = lanes_module._advance.__wrapped__, [], lanes_module.in_slices
    monkeypatch.setattr(lanes_module, "LARGE_CORE", 1)
    monkeypatch.setattr(lanes_module, "_advance", jax.jit(lambda *args: advance(*args)))
    monkeypatch.setattr(
        lanes_module, "in_slices", lambda *args: (sizes.append(args[2]), in_slices(*args))[1]
    )
    few = np.arange(4)
    lanes = replace(
        _lanes("crossed_slopes"),
        each=jax.tree.map(lambda a: a[few], _lanes("crossed_slopes").each),
    )
    with calls.session():
        found = fit_lanes(lanes, True)
    assert set(sizes) == {1}
    assert_allclose(found.deviance, _found("crossed_slopes").deviance[few], rtol=0, atol=1e-8)
    assert_allclose(found.beta, _found("crossed_slopes").beta[few], rtol=1e-4, atol=1e-5)


def test_no_round_has_more_lanes_than_there_are(monkeypatch):
    lanes, sizes, advance = _lanes("slope"), [], lanes_module._advance
    monkeypatch.setattr(
        lanes_module, "_advance", lambda *args: (sizes.append(args[0].count), advance(*args))[1]
    )
    with calls.session():
        fit_lanes(lanes, True, rounds=Rounds(first=1, later=3, smallest=2 * LANES))
    assert len(sizes) > 1
    assert set(sizes) == {LANES}


def test_a_lane_of_nonsense_ends_and_leaves_the_others_alone():
    lanes = _lanes("slope")
    each = jax.tree.map(np.array, lanes.each)
    each.yy[5] = np.nan
    with calls.session():
        found = fit_lanes(replace(lanes, each=each), True)
    others = np.arange(LANES) != 5
    assert not np.isfinite(found.deviance[5])
    assert_allclose(found.deviance[others], _found("slope").deviance[others], rtol=0, atol=1e-9)


def test_programs_of_many_models_give_lapack_one_matrix_at_a_time():
    lanes, t = _lanes("crossed_slopes"), _found("crossed_slopes").t
    _, X, Z, w, _ = rows(oracle.random_design(3, "crossed_slopes"))
    each = jax.vmap(moments.moments, (None, None, None, None, 0))
    with calls.session():
        states = lanes_module._begin(lanes, True, t)
        programs = [
            jax.jit(lanes_module._advance.__wrapped__).lower(lanes, True, states, 4),
            jax.jit(lanes_module._settle.__wrapped__).lower(lanes, True, t),
            jax.jit(curvature._derivatives.__wrapped__).lower(lanes, True, t, np.zeros(LANES)),
            jax.jit(each).lower(
                plan(oracle.random_design(3, "crossed_slopes")), X[:, 0], X, Z, np.stack([w] * 3)
            ),
        ]
        assert [batched_lapack(p.compile()) for p in programs] == [[]] * 4
