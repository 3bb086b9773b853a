"""A Problem of the oracle in the arrays of the library, and its kernels compiled once per shape."""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from helpers.oracle import Array, Problem

from interlace_jax.numerics.covariance import block
from interlace_jax.numerics.crossproducts import cells, layout, moments, rounds
from interlace_jax.numerics.estimation import bfgs, estimate
from interlace_jax.numerics.likelihood import coordinates, elimination, gaussian, random_effects
from interlace_jax.runtime import calls as calls_
from interlace_jax.runtime import compilation, devices

# Tiny arrays run as fast without optimisations, and compile in a third of the time.
quick_jit = partial(
    jax.jit, compiler_options=compilation._BRIEF if compilation._are_known() else None
)


def plan(problem: Problem, pad: bool = False) -> layout.Plan:
    """Layout and codes, factors in the problem's order."""
    factors = problem.factors
    sizes = [tuple(len(term) for term in f.terms) for f in factors]
    return layout.plan([f.codes for f in factors], sizes, [f.m for f in factors], pad=pad)


def rows(problem: Problem) -> tuple:
    """(y, X, Z, weights, offset), all of them arrays."""
    return problem.y, problem.X, [f.Z for f in problem.factors], problem.w, problem.shift


def condition(problem: Problem, pad: bool = False) -> moments.Moments:
    """The Moments of a problem in float64, as NumPy."""
    return calls_.run(_moments, plan(problem, pad), *rows(problem))


def of_theta(theta: Any, m: moments.Moments, reml: Any) -> Any:
    """The deviance as a function of lme4's theta, as the oracle has it."""
    return gaussian.deviance(coordinates.to_conditioned(theta, m.layout, m.A), m, reml)


def kernel(theta: Array, m: moments.Moments, reml: bool) -> dict[str, Any]:
    """Everything that the library makes of a theta, by one compiled program."""
    return calls_.run(_kernel, theta, m, reml)


@quick_jit
def _kernel(theta, m, reml):
    t = coordinates.to_conditioned(theta, m.layout, m.A)
    made = estimate.finish(t, m, reml, jnp.zeros_like(t), 0.0, 0, bfgs.CONVERGED)
    value, gradient = jax.value_and_grad(of_theta)(theta, m, reml)
    joint = gaussian.profile(elimination.reduce(t, m), m, reml).at(jnp.log(1.7)) - m.log_weights
    covariances = random_effects.mode_covariances(t, m)
    found = dict(
        beta=made.beta, sigma=made.sigma, vcov=made.vcov, deviance=value, gradient=gradient
    )
    return found | dict(joint=joint, modes=random_effects.modes(t, m), mode_covariances=covariances)


hessian = quick_jit(jax.hessian(of_theta))
_moments = quick_jit(moments.moments)


def sparse(problem: Problem, empty: int = 0) -> cells.Products:
    """The sparse Products of a problem in float64, on one device; with so many levels without
    data in every factor.
    """
    factors = problem.factors
    blocks = [block.Block(f.m + empty, tuple(len(term) for term in f.terms)) for f in factors]
    plan = cells.by_size([f.codes for f in factors], blocks)
    y, X, Z, w, offset = rows(problem)
    m = calls_.run(_moments, plan, y, X, Z, w, offset)
    with calls_.float64():
        return cells.assemble(plan, m, Z, w, [devices.device()])


def by_rounds(problem: Problem, most: int) -> rounds.RoundMoments:
    """The moments of a problem for an elimination by at most so many rounds, as NumPy."""
    factors = problem.factors
    blocks = [block.Block(f.m, tuple(len(term) for term in f.terms)) for f in factors]
    plan = rounds.separate([f.codes for f in factors], blocks)
    y, X, Z, w, offset = rows(problem)
    m, met = calls_.run(_moments, plan, y, X, Z, w, offset), rounds.meetings(plan)
    return rounds.with_rounds(plan, m, met, rounds.rounds_of(plan, met, most), Z, w)


def batched_lapack(compiled) -> list[str]:
    """The LAPACK calls of a compiled program that are given more than one matrix."""
    calls = re.findall(
        r"= \(?(.*?)\)? custom-call\(.*custom_call_target=\"lapack_", compiled.as_text()
    )
    shapes = [
        [int(n) for n in dims.split(",")]
        for call in calls
        for dims in re.findall(r"f\d\d\[([\d,]+)\]", call)
    ]
    return [str(shape) for shape in shapes if np.prod(shape[:-2]) > 1]
