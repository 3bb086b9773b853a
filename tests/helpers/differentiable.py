"""A fit as a function of its arrays, and designs whose optimum is inside."""

import numpy as np
from helpers import oracle

import interlace_jax as interlace


def arrays(problem):
    """(y, X, Z, weights, offset): everything a fit can be differentiated by."""
    return problem.y, problem.X, [f.Z for f in problem.factors], problem.w, problem.shift


def groups(problem, Z):
    return [
        (f.codes, z, tuple(len(t) for t in f.terms))
        for f, z in zip(problem.factors, Z, strict=True)
    ]


def fitting(problem):
    """Everything a fit gives, as a function of the arrays."""

    def fit(y, X, Z, w, offset):
        m = interlace.moments(y, X, groups(problem, Z), w, offset)
        e = interlace.estimate(m)
        rows = interlace.predict(e, m, X, groups(problem, Z))
        return e.theta, e.sigma, e.beta, e.deviance, interlace.random_effects(e, m), rows

    return fit


def strong(kind):
    """A design of the oracle with a response of large random effects, so that the optimum is
    inside.
    """
    if kind == "singular":
        return without_slopes(strong("slope"))
    problem = oracle.random_design(3, kind)
    theta = np.where(problem.theta0 > 0, 1.5, 0.3)
    rng = np.random.default_rng(5)
    y = np.linalg.cholesky(problem.V(theta)) @ rng.standard_normal(len(problem.y)) + problem.X.sum(
        1
    )
    return oracle.Problem(y, problem.X, problem.factors, problem.weights, problem.offset)


def without_slopes(problem):
    """The same with slopes that vary less between the levels than chance would have it: a
    correlation of 1 or -1.
    """
    [f] = problem.factors
    slopes = np.array(
        [np.polyfit(f.Z[f.codes == i, 1], problem.y[f.codes == i], 1)[0] for i in range(f.m)]
    )
    y = problem.y - 0.95 * (slopes - slopes.mean())[f.codes] * f.Z[:, 1]
    return oracle.Problem(y, problem.X, problem.factors)
