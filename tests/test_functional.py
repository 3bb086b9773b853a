"""The array-level door: values against the labelled API, derivatives of the fit against refits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle
from helpers.arrays import quick_jit
from helpers.differentiable import arrays, fitting, groups, strong
from numpy.testing import assert_allclose, assert_array_equal

import interlace_jax as interlace

pytestmark = pytest.mark.usefixtures("x64")

KINDS = ["slope", "nested", "crossed", "weights", "singular"]
STEP = 4e-3


@pytest.fixture(scope="module", params=KINDS)
def case(request):
    """A problem, a direction in its arrays, the jvp of the fit along it, and the same by
    differences of refits.
    """
    with jax.enable_x64(True):
        problem = strong(request.param)
        at = jax.tree.map(jnp.asarray, arrays(problem))
        rng = np.random.default_rng(0)
        # Rows that were 1 stay in the model; a weight must stay positive.
        v = jax.tree.map(
            lambda a: (
                jnp.asarray(0.1 * rng.standard_normal(a.shape)) * jnp.maximum(jnp.abs(a), 0.1)
            ),
            at,
        )
        fit = quick_jit(lambda a, v: jax.jvp(fitting(problem), a, v))
        value, tangent = fit(at, v)
        moved = [
            fit(jax.tree.map(lambda a, d, s=s: a + s * STEP * d, at, v), v)[0]
            for s in (-2, -1, 1, 2)
        ]
        differences = jax.tree.map(lambda a, b, c, d: (a - 8 * b + 8 * c - d) / (12 * STEP), *moved)
        return problem, at, v, (value, tangent), differences


def test_derivatives_of_the_fit_are_those_of_refits(case):
    *_, (_, tangent), differences = case
    # Refits are off their optimum by up to 1e-8 in theta, which the step of the differences turns
    # into a few 1e-6.
    for found, expected in zip(jax.tree.leaves(tangent), jax.tree.leaves(differences), strict=True):
        assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("case", ["crossed"], indirect=True)
def test_reverse_mode_is_the_transpose_of_forward_mode(case):
    problem, at, v, (_, tangent), _ = case
    gradient = quick_jit(jax.grad(lambda a: fitting(problem)(*a)[2][-1]))(at)
    products = jax.tree.map(lambda g, d: jnp.vdot(g, d), gradient, v)
    assert_allclose(sum(jax.tree.leaves(products)), tangent[2][-1], rtol=1e-9)


@pytest.mark.parametrize("case", ["singular"], indirect=True)
def test_the_singular_case_is_singular_and_stays_so(case):
    *_, (value, tangent), differences = case
    assert value[0][2] == tangent[0][2] == differences[0][2] == 0.0
    assert value[0][0] > 0.1


def test_at_the_boundary_the_variance_stays_zero_and_the_rest_is_that_of_least_squares():
    frame = interlace.load_dataset("dyestuff2")
    codes = np.unique(frame.Batch, return_inverse=True)[1]
    y, X = jnp.asarray(frame.Yield.to_numpy()), jnp.ones((len(frame), 1))

    def fit(y):
        e = interlace.estimate(interlace.moments(y, X, [(codes, X)]))
        return e.theta[0], e.beta[0]

    theta, beta = quick_jit(jax.jacrev(fit))(y)
    assert np.all(np.asarray(theta) == 0.0)
    assert_allclose(beta, np.full(len(y), 1 / len(y)), rtol=1e-10)


def test_the_fit_is_the_labelled_one():
    frame = interlace.load_dataset("sleepstudy")
    design = interlace.compile("Reaction ~ Days + (1 + Days | Subject)", frame).design
    [f] = design.factors
    labelled = interlace.fit("Reaction ~ Days + (1 + Days | Subject)", frame)

    @quick_jit
    def everything(y, X, Z, theta):
        m = interlace.moments(y, X, [(f.codes, Z)])
        e = interlace.estimate(m)
        rows = interlace.predict(e, m, X, [(f.codes, Z)])
        unknown = interlace.predict(e, m, X, [(jnp.where(f.codes == 0, 99, -1), Z)])
        return e, interlace.random_effects(e, m), interlace.deviance(theta, m), rows, unknown

    found, [blups], at_theta, rows, unknown = everything(design.y, design.X, f.Z, labelled.theta)
    assert_allclose(found.deviance, labelled.deviance, rtol=1e-12)
    assert_allclose(found.beta, labelled.fe_params, rtol=1e-9)
    assert_allclose(blups, labelled.random_effects["Subject"], rtol=1e-5)
    assert_allclose(at_theta, labelled.deviance, rtol=1e-12)
    assert_allclose(rows, labelled.fittedvalues, rtol=1e-7)
    assert_allclose(unknown, labelled.predict(include_re=False), rtol=1e-9)


@pytest.mark.parametrize("reml", [True, False])
def test_deviances_of_every_kind_are_the_oracles(reml):
    problem = oracle.random_design(1, "crossed")
    theta, at = oracle.random_theta(problem, 1), jax.tree.map(jnp.asarray, arrays(problem))
    m = interlace.moments(at[0], at[1], groups(problem, at[2]), *at[3:])
    assert_allclose(
        interlace.deviance(theta, m, reml), oracle.deviance(problem, theta, reml), rtol=1e-10
    )
    assert_allclose(
        interlace.deviance(theta, m, reml, sigma=1.3),
        oracle.joint_deviance(problem, theta, 1.3, reml),
        rtol=1e-10,
    )


def test_the_deviance_of_a_given_beta_is_the_density_of_y():
    problem = oracle.random_design(1, "slope")
    theta, beta, sigma = oracle.random_theta(problem, 1), np.full(problem.X.shape[1], 0.7), 1.3
    at = jax.tree.map(jnp.asarray, arrays(problem))
    m = interlace.moments(at[0], at[1], groups(problem, at[2]), *at[3:])
    r, V = problem.y - problem.shift - problem.X @ beta, sigma**2 * problem.V(theta)
    expected = np.linalg.slogdet(2 * np.pi * V)[1] + r @ np.linalg.solve(V, r)
    assert_allclose(
        interlace.deviance(theta, m, False, sigma=sigma, beta=beta), expected, rtol=1e-10
    )
    with pytest.raises(ValueError, match="reml=False"):
        interlace.deviance(theta, m, True, beta=beta)


def test_traced_codes_are_refused_by_name():
    X = jnp.ones((6, 1))
    with pytest.raises(TypeError, match="codes"):
        quick_jit(lambda c: interlace.moments(X[:, 0], X, [(c, X)]))(jnp.array([0, 0, 1, 1, 2, 2]))


def test_rows_may_be_lists():
    y, X, codes, w = (
        [1.0, 2.0, 4.0, 9.0],
        [[1.0], [1.0], [1.0], [1.0]],
        [0, 0, 1, 1],
        [1.0, 2.0, 1.0, 2.0],
    )
    found = interlace.moments(y, X, [(codes, X)], w)
    expected = interlace.moments(
        jnp.array(y), jnp.array(X), [(np.array(codes), jnp.array(X))], jnp.array(w)
    )
    jax.tree.map(assert_array_equal, found, expected)


@pytest.fixture(scope="module")
def six_rows():
    """Moments, estimate, codes and X of a small model with two coefficients and an intercept by
    group.
    """
    with jax.enable_x64(True):
        g, X = np.array([0, 0, 1, 1, 2, 2]), jnp.stack([jnp.ones(6), jnp.arange(6.0) ** 2], 1)
        m = interlace.moments(jnp.array([1.0, 3.0, 2.0, 5.0, 4.0, 9.0]), X, [(g, X[:, :1])])
        return m, quick_jit(interlace.estimate)(m), g, X


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (
            "terms .1, 2. have 3 columns, but Z has 2",
            lambda m, e, g, X: interlace.moments(X[:, 1], X, [(g, X, (1, 2))]),
        ),
        (
            "3 levels, .* array of shape .2, 2.",
            lambda m, e, g, X: interlace.moments(
                X[:, 1], X, [(g, X[:, :1], interlace.Known(np.eye(2)))]
            ),
        ),
        (
            "beta has shape .1,.; .* 2 coeff",
            lambda m, e, g, X: interlace.deviance([1.0], m, False, beta=jnp.ones(1)),
        ),
        (
            "X has shape .6, 1.",
            lambda m, e, g, X: interlace.predict(e, m, X[:, :1], [(g, X[:, :1])]),
        ),
        ("groups has 0 entries", lambda m, e, g, X: interlace.predict(e, m, X, [])),
        ("they must be .6,. and .6, 1.", lambda m, e, g, X: interlace.predict(e, m, X, [(g, X)])),
        (
            "they must be .2,. and .2, 1.",
            lambda m, e, g, X: interlace.predict(e, m, X[:2], [(g, X[:, :1])]),
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(message, call, six_rows):
    with pytest.raises(ValueError, match=message):
        call(*six_rows)


def test_what_are_no_moments_is_refused():
    for function in (interlace.estimate, lambda m: interlace.deviance([1.0], m)):
        with pytest.raises(TypeError, match="interlace_jax.moments"):
            function(jnp.ones(3))


def test_a_known_covariance_in_float32_warns_of_nothing():
    g, X = np.array([0, 0, 1, 1, 2, 2]), np.ones((6, 1))
    with jax.enable_x64(False):
        m = interlace.moments(np.arange(6.0) ** 2, X, [(g, X, interlace.Known(np.eye(3)))])
        assert interlace.deviance(np.ones(1), m).dtype == np.float32


def test_in_single_precision_known_rows_keep_their_digits_at_any_theta():
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(6), 10), rng.normal(size=60)
    X = np.column_stack([np.ones(60), x])
    y = 1 + 0.5 * x + rng.normal(size=6)[g] + rng.normal(size=60)
    D = np.column_stack([X, y])
    mean = D.reshape(6, 10, 3).mean(1)
    within = (D - mean[g]).T @ (D - mean[g])

    def exact(theta):  # one way and balanced: sums within groups and between them kept apart
        S = within + 10 / (1 + 10 * theta**2) * mean.T @ mean
        r2 = S[2, 2] - S[:2, 2] @ jnp.linalg.solve(S[:2, :2], S[:2, 2])
        logdet = 6 * jnp.log1p(10 * theta**2) + jnp.linalg.slogdet(S[:2, :2])[1]
        return logdet + 58 * (1 + jnp.log(2 * jnp.pi * r2 / 58))

    thetas = np.array([1e-3, 0.1, 1.0, 100.0, 1e3, 1e4, 1e5, 1e6], np.float32)
    right, slope = jax.vmap(jax.value_and_grad(exact))(thetas.astype(float))
    wide = interlace.estimate(interlace.moments(y, X, {"g": g}))
    with jax.enable_x64(False):
        m = interlace.moments(y, X, {"g": g})
        found = jax.jit(jax.vmap(jax.value_and_grad(lambda t: interlace.deviance(t[None], m))))
        value, gradient = found(thetas)
        narrow = interlace.estimate(m)
        effects = interlace.random_effects(narrow, m)["g"]
    # Sums of 60 rows lose what 1 - 1/(10 theta^2) leaves of 1, in float64 too.
    assert value.dtype == narrow.theta.dtype == effects.dtype == np.float32
    assert np.all(np.abs(value - right) < 1e-7 * np.abs(right) + 2e-14 * thetas.astype(float) ** 2)
    # So does the slope: 10 theta^2 of its units of rounding, a few times over.
    lost = 1e-6 + 4 * np.finfo(float).eps * 10 * thetas.astype(float) ** 2
    assert np.all(np.abs(gradient / slope - 1) < lost)
    for name in ("theta", "beta", "sigma", "vcov", "deviance"):
        assert_allclose(getattr(narrow, name), getattr(wide, name), rtol=2e-7, err_msg=name)


def test_what_is_not_traced_compiles_once_for_each_shape(caplog):
    codes, X = np.arange(12) % 4, np.ones((12, 1))

    def fitted(y):
        m = interlace.moments(y, X, {"g": codes})
        e = interlace.estimate(m)
        return interlace.deviance(e.theta, m), interlace.random_effects(e, m, with_variance=True)

    y = np.random.default_rng(1).normal(size=12) + codes
    fitted(y)
    with jax.log_compiles():
        fitted(y[::-1] + codes)
    assert not [message for message in caplog.messages if message.startswith("Compiling")]
