"""A Problem of the oracle in the arrays of the library, and its kernels compiled once per shape."""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from oracle import Array, Problem

from interlace_jax import (
    compute,
    covariance,
    crossproducts,
    estimation,
    likelihood,
    modes,
    optimize,
    sparse_products,
    structure,
)

# Tiny arrays run as fast without optimisations, and compile in a third of the time.
quick_jit = partial(jax.jit, compiler_options=compute._BRIEF if compute._are_known() else None)


def plan(problem: Problem, pad: bool = False) -> structure.Plan:
    """Layout and codes, factors in the problem's order."""
    factors = problem.factors
    sizes = [tuple(len(term) for term in f.terms) for f in factors]
    return structure.plan([f.codes for f in factors], sizes, [f.m for f in factors], pad=pad)


def rows(problem: Problem) -> tuple:
    """(y, X, Z, weights, offset), all of them arrays."""
    return problem.y, problem.X, [f.Z for f in problem.factors], problem.w, problem.shift


def condition(problem: Problem, pad: bool = False) -> crossproducts.Moments:
    """The Moments of a problem in float64, as NumPy."""
    return compute.run(_moments, plan(problem, pad), *rows(problem))


def of_theta(theta: Any, m: crossproducts.Moments, reml: Any) -> Any:
    """The deviance as a function of lme4's theta, as the oracle has it."""
    return likelihood.deviance(covariance.to_conditioned(theta, m.layout, m.A), m, reml)


def kernel(theta: Array, m: crossproducts.Moments, reml: bool) -> dict[str, Any]:
    """Everything that the library makes of a theta, by one compiled program."""
    return compute.run(_kernel, theta, m, reml)


@quick_jit
def _kernel(theta, m, reml):
    t = covariance.to_conditioned(theta, m.layout, m.A)
    made = estimation.finish(t, m, reml, jnp.zeros_like(t), 0.0, 0, optimize.CONVERGED)
    value, gradient = jax.value_and_grad(of_theta)(theta, m, reml)
    joint = likelihood.profile(likelihood.reduce(t, m), m, reml).at(jnp.log(1.7)) - m.log_weights
    covariances = modes.mode_covariances(t, m)
    found = dict(beta=made.beta, sigma=made.sigma, vcov=made.vcov, deviance=value, gradient=gradient)
    return found | dict(joint=joint, modes=modes.modes(t, m), mode_covariances=covariances)


hessian = quick_jit(jax.hessian(of_theta))
_moments = quick_jit(crossproducts.moments)


def sparse(problem: Problem, empty: int = 0) -> sparse_products.Products:
    """The sparse Products of a problem in float64, on one device; with so many levels without data in every factor."""
    factors = problem.factors
    blocks = [structure.Block(f.m + empty, tuple(len(term) for term in f.terms)) for f in factors]
    plan = sparse_products.by_size([f.codes for f in factors], blocks)
    y, X, Z, w, offset = rows(problem)
    m = compute.run(_moments, plan, y, X, Z, w, offset)
    with compute.float64():
        return sparse_products.assemble(plan, m, Z, w, [compute.device()])


def batched_lapack(compiled) -> list[str]:
    """The LAPACK calls of a compiled program that are given more than one matrix."""
    calls = re.findall(r"= \(?(.*?)\)? custom-call\(.*custom_call_target=\"lapack_", compiled.as_text())
    shapes = [[int(n) for n in dims.split(",")] for call in calls for dims in re.findall(r"f\d\d\[([\d,]+)\]", call)]
    return [str(shape) for shape in shapes if np.prod(shape[:-2]) > 1]
