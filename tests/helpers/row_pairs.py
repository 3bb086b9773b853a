"""Correlated rows as the library lays them out."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import oracle, residual_oracle
from helpers.arrays import quick_jit

from interlace_jax.numerics.covariance import correlations
from interlace_jax.numerics.covariance.residual import ResidualCovariance
from interlace_jax.numerics.covariance.structures import AR1, CompoundSymmetry
from interlace_jax.numerics.crossproducts import layout
from interlace_jax.numerics.crossproducts.moments import moments
from interlace_jax.numerics.likelihood.coordinates import to_conditioned
from interlace_jax.numerics.likelihood.gaussian import deviance

M = 4  # visits


STRUCTURES = {
    "us": correlations.FreeCorrelations(),
    "cs": CompoundSymmetry(),
    "ar1": AR1(),
    "toep": correlations.Toeplitz(),
    "ad": correlations.Antedependence(),
    "arma11": correlations.ARMA11(),
}


_moments = quick_jit(moments)


def plan_of(problem, subject):
    sizes = [tuple(len(term) for term in f.terms) for f in problem.factors]
    return layout.plan(
        [f.codes for f in problem.factors], sizes, [f.m for f in problem.factors], subject=subject
    )


@quick_jit
def _value(theta, m, reml):
    return deviance(to_conditioned(theta, m.layout, m.A), m, reml)


def drawn(name, rows, seed=3):
    """psi of a heterogeneous structure with parameters by group, theta, and R entry by entry."""
    rng = np.random.default_rng(seed)
    structure = ResidualCovariance(STRUCTURES[name], M, M, 2)
    psi = 0.4 * rng.normal(size=structure.size)
    own = np.append(0.0, psi).reshape(2, -1)
    sds = np.exp(own[:, :1] + np.column_stack([np.zeros(2), own[:, 1:M]]))
    with jax.enable_x64(True):
        natural = [
            np.asarray(STRUCTURES[name].shape_natural(jnp.asarray(x), M)) for x in own[:, M:]
        ]
    R = residual_oracle.covariance(rows, name, sds, np.array(natural))
    theta = oracle.random_theta(rows.problem, seed) if rows.problem.factors else np.zeros(0)
    return structure, psi, theta, residual_oracle.Repeated(rows.problem, R)
