"""Every array function under JAX's transformations and their compositions, in float64 and in
float32.

One small design with everything in it (slopes, weights, offset) and one program a question:
compiling takes the time.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle
from helpers.arrays import quick_jit
from helpers.differentiable import arrays, fitting, groups, strong
from numpy.testing import assert_allclose

import interlace_jax as interlace

PROBLEM = strong("weights")
THETA = np.array([1.2, 0.3, 0.8])
WIDTHS = pytest.mark.parametrize("wide", [True, False], ids=["float64", "float32"])
# float32 has 7 digits: 6 are left in a deviance, 4 in its derivatives (sums over rows that cancel),
# and 3 in a fit, whose search stops within 1e-5 deviance units of the optimum.
DIGITS = {
    True: dict(deviance=1e-10, derivatives=1e-6, fit=1e-6),
    False: dict(deviance=1e-6, derivatives=5e-4, fit=5e-3),
}


def close(ours, theirs, rtol):
    """Relative to the largest entry: small ones are differences of large ones."""
    theirs = np.asarray(theirs, float)
    assert_allclose(np.asarray(ours, float), theirs, rtol=rtol, atol=rtol * np.abs(theirs).max())


def inputs(wide):
    return jax.tree.map(
        lambda a: jnp.asarray(a, jnp.float64 if wide else jnp.float32), arrays(PROBLEM)
    )


def direction(seed=0):
    """One in every array, of a size that keeps weights positive."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda a: 0.1 * rng.standard_normal(a.shape) * np.maximum(np.abs(a), 0.1), arrays(PROBLEM)
    )


def moments(at):
    y, X, Z, w, offset = at
    return interlace.moments(y, X, groups(PROBLEM, Z), w, offset)


def deviance(at, theta):
    return interlace.deviance(theta, moments(at))


def moved(step, v):
    """The oracle's problem with its arrays moved along v."""
    y, X, [Z], w, offset = jax.tree.map(lambda a, d: a + step * d, arrays(PROBLEM), v)
    return oracle.Problem(y, X, (replace(PROBLEM.factors[0], Z=Z),), w, offset)


@pytest.fixture(scope="module")
def along():
    """A direction v, and d/ds and d2/ds2 of the oracle's deviance along it."""
    v = direction()

    def at(s):
        return oracle.deviance(moved(s[0], v), THETA, True)

    zero = np.zeros(1)
    return v, oracle.gradient(at, zero, step=0.2)[0], oracle.hessian(at, zero, step=0.2)[0, 0]


@WIDTHS
def test_the_deviance_has_first_and_second_derivatives_by_every_array(along, wide):
    v, slope, bend = along
    with jax.enable_x64(wide):
        at, theta = inputs(wide), jnp.asarray(THETA, jnp.float64 if wide else jnp.float32)
        v = jax.tree.map(lambda a: jnp.asarray(a, theta.dtype), v)

        @quick_jit
        def derivatives(at, theta, v):
            def pushed(by_array):
                return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, by_array, v)))

            value, gradient = jax.value_and_grad(deviance)(at, theta)
            _, product = jax.jvp(lambda at: jax.grad(deviance)(at, theta), (at,), (v,))
            reverse = jax.grad(lambda at: pushed(jax.grad(deviance)(at, theta)))(at)
            forward = jax.jvp(
                lambda at: jax.jvp(lambda at: deviance(at, theta), (at,), (v,))[1], (at,), (v,)
            )[1]
            return value, pushed(gradient), pushed(product), pushed(reverse), forward

        value, first, *second = derivatives(at, theta, v)
        assert value.dtype == theta.dtype
    close(value, oracle.deviance(PROBLEM, THETA, True), DIGITS[wide]["deviance"])
    close(first, slope, DIGITS[wide]["derivatives"])
    for found in second:
        close(found, bend, DIGITS[wide]["derivatives"])


@WIDTHS
def test_whole_hessians_by_theta_sigma_and_beta_are_the_same_in_every_mode(wide):
    def joint(p, m):
        return interlace.deviance(p[:3], m, False, sigma=p[3], beta=p[4:])

    with jax.enable_x64(wide):
        m = quick_jit(moments)(inputs(wide))
        p = jnp.concatenate(
            [jnp.asarray(THETA), jnp.array([1.3]), jnp.full(PROBLEM.X.shape[1], 0.7)]
        ).astype(m.yy.dtype)

        @quick_jit
        def hessians(p, m):
            modes = (
                jax.hessian,
                lambda f: jax.jacrev(jax.jacfwd(f)),
                lambda f: jax.jacrev(jax.jacrev(f)),
            )
            return [mode(joint)(p, m) for mode in modes] + [
                jax.grad(joint)(p, m),
                jax.vmap(jax.grad(joint), (0, None))(jnp.stack([p, 1.1 * p]), m),
            ]

        *found, slope, slopes = hessians(p, m)

    def dense(p):
        theta, sigma, r = p[:3], p[3], PROBLEM.y - PROBLEM.shift - PROBLEM.X @ p[4:]
        V = sigma**2 * PROBLEM.V(theta)
        return np.linalg.slogdet(2 * np.pi * V)[1] + r @ np.linalg.solve(V, r)

    at = np.asarray(p, float)
    expected = oracle.hessian(dense, at)
    for H in found:
        close(H, expected, DIGITS[wide]["derivatives"])
    close(slope, oracle.gradient(dense, at), DIGITS[wide]["derivatives"])
    close(slopes[0], slope, DIGITS[wide]["derivatives"])
    close(slopes[1], oracle.gradient(dense, 1.1 * at), DIGITS[wide]["derivatives"])


def scalar_of_fit(y, rest):
    """Something of everything that a fit gives."""
    theta, sigma, beta, value, [b], rows = fitting(PROBLEM)(y, *rest)
    return theta[0] + sigma + beta[1] + 0.1 * value + b[0, 0] + rows[0]


@pytest.fixture(scope="module")
def batched():
    """By width: (number of traces, fits and gradients of three responses in one batch), and one
    by one in float64.
    """
    found = {}
    for wide in (True, False):
        with jax.enable_x64(wide):
            y, *rest = inputs(wide)
            traces = []

            def gradients(ys, rest, traces=traces):
                traces.append(None)
                e = jax.vmap(interlace.estimate)(
                    jax.vmap(lambda *at: moments(at), (0, None, None, None, None))(ys, *rest)
                )
                return (
                    e.theta,
                    e.beta,
                    e.deviance,
                    jax.vmap(jax.grad(scalar_of_fit), (0, None))(ys, rest),
                )

            program, rng = quick_jit(gradients), np.random.default_rng(2)
            ys = y[None] + jnp.asarray(0.2 * rng.standard_normal((3, len(y))), y.dtype)
            found[wide] = jax.tree.map(np.asarray, program(ys, rest))
            again = jax.tree.map(np.asarray, program(ys[::-1], rest))
            found[wide, "reversed"], found[wide, "traces"] = again, len(traces)
            if wide:
                one = quick_jit(
                    lambda y, rest: (
                        fitting(PROBLEM)(y, *rest)[:4],
                        jax.grad(scalar_of_fit)(y, rest),
                    )
                )
                found["loop"] = [jax.tree.map(np.asarray, one(y, rest)) for y in ys]
    return found


@WIDTHS
def test_a_batch_of_fits_and_of_their_gradients_is_a_loop(batched, wide):
    theta, beta, value, gradients = batched[wide]
    rtol = DIGITS[wide]["fit"]
    for i, ((theta_1, _, beta_1, value_1), gradient_1) in enumerate(batched["loop"]):
        close(theta[i], theta_1, rtol)
        close(beta[i], beta_1, rtol)
        close(value[i], value_1, DIGITS[wide]["deviance"])
        close(gradients[i], gradient_1, rtol)


@WIDTHS
def test_new_data_of_the_same_shape_are_not_traced_again(batched, wide):
    assert batched[wide, "traces"] == 1
    close(batched[wide, "reversed"][0][::-1], batched[wide][0], DIGITS[wide]["fit"])


def test_numpy_and_whole_numbers_are_taken_and_traced_ones_have_jaxs_precision():
    [f] = PROBLEM.factors
    y, X = np.arange(60), PROBLEM.X.astype(np.float32)
    for wide in (True, False):
        with jax.enable_x64(wide):
            assert interlace.moments(y, X, [(f.codes, f.Z)]).yy.dtype == np.float64
            traced = jax.eval_shape(lambda y: interlace.moments(y, X, [(f.codes, f.Z)]), y)
            assert traced.yy.dtype == (jnp.float64 if wide else jnp.float32)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(y=np.ones((60, 1))), "y has shape"),
        (dict(X=np.ones(60)), r"X has shape \(60,\).*\(60, columns\)"),
        (dict(X=np.ones((59, 2))), "X has shape"),
        (dict(weights=np.ones(3)), r"weights has shape \(3,\)"),
        (dict(offset=np.ones((60, 1))), "offset has shape"),
        (dict(groups=[(np.zeros(60, int), np.ones(60))]), r"Z of groups\[0\]"),
        (dict(groups=[(np.zeros(59, int), np.ones((60, 1)))]), r"codes of groups\[0\]"),
        (dict(groups=[(np.zeros(60), np.ones((60, 1)))]), "integers from 0"),
        (dict(groups=[(np.full(60, -1), np.ones((60, 1)))]), "integers from 0"),
        (dict(groups=[]), "groups is empty"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused_by_name(change, message):
    arguments = dict(
        y=np.ones(60), X=np.ones((60, 1)), groups=[(np.arange(60) % 6, np.ones((60, 1)))]
    )
    with pytest.raises(ValueError, match=message):
        interlace.moments(**arguments | change)


def test_theta_of_the_wrong_length_is_refused():
    y, X = np.arange(60.0), np.ones((60, 1))
    m = interlace.moments(y, X, [(np.arange(60) % 6, X)])
    for call in (interlace.deviance, interlace.random_effects):
        with pytest.raises(ValueError, match=r"theta has shape \(2,\).*\(1,\)"):
            call(np.ones(2), m)
