"""Densities against SciPy's, as probabilities, in their extremes and in their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from interlace_jax.numerics.families import family as F
from interlace_jax.numerics.families.density import Row
from interlace_jax.numerics.families.links import INVERSE, LINK
from interlace_jax.numerics.families.rows import constants, density, kernels, natural, rows_of

pytestmark = pytest.mark.usefixtures("x64")
TRIALS = 12
CATEGORIES = ("a", "b", "c", "d")


def nbinom(size):
    return lambda y, mu: stats.nbinom.logpmf(y, size(mu), size(mu) / (size(mu) + mu))


def truncated(log_density):
    return lambda y, mu: log_density(y, mu) - np.log(-np.expm1(log_density(0, mu)))


def inflated(log_density, zero):
    return lambda y, mu: np.log((y == 0) * zero + (1 - zero) * np.exp(log_density(y, mu)))


ODD = F.Family(
    "weibull",
    lambda y, mu, shape: jnp.log(shape / mu) + (shape - 1) * jnp.log(y / mu) - (y / mu) ** shape,
    link="log",
    parameters={"shape": "positive"},
)

# family by link, free parameters, log-density of SciPy at a mean, values of the response
CASES = {
    "gaussian": (F.Gaussian, [0.3], lambda y, mu: stats.norm.logpdf(y, mu, np.exp(0.3)), "real"),
    "student": (
        F.Student,
        [0.3, 1.2],
        lambda y, mu: stats.t.logpdf(y, np.exp(1.2), mu, np.exp(0.3)),
        "real",
    ),
    "gamma": (
        F.Gamma,
        [-0.4],
        lambda y, mu: stats.gamma.logpdf(y, np.exp(0.4), scale=mu * np.exp(-0.4)),
        "positive",
    ),
    "inverse_gaussian": (
        F.InverseGaussian,
        [-0.4],
        lambda y, mu: stats.invgauss.logpdf(y, mu * np.exp(-0.4), scale=np.exp(0.4)),
        "positive",
    ),
    "weibull": (
        lambda link="log": ODD,
        [0.4],
        lambda y, mu: stats.weibull_min.logpdf(y, np.exp(0.4), scale=mu),
        "positive",
    ),
    "beta": (
        F.Beta,
        [1.1],
        lambda y, mu: stats.beta.logpdf(y, mu * np.exp(1.1), (1 - mu) * np.exp(1.1)),
        "unit",
    ),
    "binomial": (F.Binomial, [], lambda y, mu: stats.binom.logpmf(y, TRIALS, mu), "successes"),
    "bernoulli": (F.Bernoulli, [], lambda y, mu: stats.bernoulli.logpmf(y, mu), "binary"),
    "betabinomial": (
        F.BetaBinomial,
        [1.1],
        lambda y, mu: stats.betabinom.logpmf(y, TRIALS, mu * np.exp(1.1), (1 - mu) * np.exp(1.1)),
        "successes",
    ),
    "poisson": (F.Poisson, [], lambda y, mu: stats.poisson.logpmf(y, mu), "counts"),
    "nbinom2": (F.NegativeBinomial, [0.3], nbinom(lambda mu: np.exp(0.3)), "counts"),
    "nbinom1": (
        lambda link="log": F.NegativeBinomial(link, "linear"),
        [0.3],
        nbinom(lambda mu: mu * np.exp(-0.3)),
        "counts",
    ),
    "truncated_poisson": (
        lambda link="log": F.Truncated(F.Poisson(link)),
        [],
        truncated(lambda y, mu: stats.poisson.logpmf(y, mu)),
        "some",
    ),
    "truncated_nbinom2": (
        lambda link="log": F.Truncated(F.NegativeBinomial(link)),
        [0.3],
        truncated(nbinom(lambda mu: np.exp(0.3))),
        "some",
    ),
    "truncated_nbinom1": (
        lambda link="log": F.Truncated(F.NegativeBinomial(link, "linear")),
        [0.3],
        truncated(nbinom(lambda mu: mu * np.exp(-0.3))),
        "some",
    ),
    "zero_inflated_poisson": (
        lambda link="log": F.ZeroInflated(F.Poisson(link)),
        [-0.7],
        inflated(lambda y, mu: stats.poisson.logpmf(y, mu), special.expit(-0.7)),
        "counts",
    ),
    "zero_inflated_nbinom2": (
        lambda link="log": F.ZeroInflated(F.NegativeBinomial(link)),
        [0.3, -0.7],
        inflated(nbinom(lambda mu: np.exp(0.3)), special.expit(-0.7)),
        "counts",
    ),
    "zero_inflated_binomial": (
        lambda link="logit": F.ZeroInflated(F.Binomial(link)),
        [-0.7],
        inflated(lambda y, mu: stats.binom.logpmf(y, TRIALS, mu), special.expit(-0.7)),
        "successes",
    ),
    "hurdle_poisson": (
        lambda link="log": F.ZeroInflated(F.Truncated(F.Poisson(link))),
        [-0.7],
        lambda y, mu: np.where(
            y == 0,
            np.log(special.expit(-0.7)),
            np.log(special.expit(0.7))
            + truncated(lambda y, mu: stats.poisson.logpmf(y, mu))(np.maximum(y, 1), mu),
        ),
        "counts",
    ),
}
LINKS = []
for name, (make, *_) in CASES.items():
    family = make()
    base = getattr(family, "base", family)
    base = getattr(base, "base", base)
    LINKS += [(name, link) for link in (base.links if name != "weibull" else ("log",))]
each_link = pytest.mark.parametrize(("name", "link"), LINKS)
each_family = pytest.mark.parametrize("name", CASES)


def values(kind, rng, n):
    """Responses, trials, and means they may have."""
    counts = rng.poisson(3.0, n) * 1.0
    return {
        "real": rng.normal(size=n),
        "positive": rng.gamma(2.0, 1.0, n),
        "unit": rng.uniform(0.01, 0.99, n),
        "binary": rng.integers(0, 2, n) * 1.0,
        "successes": rng.integers(0, TRIALS + 1, n) * 1.0,
        "counts": counts,
        "some": counts + 1.0,
    }[kind]


def trials(kind, n):
    return np.full(n, TRIALS * 1.0 if kind == "successes" else 1.0)


def predictor(name, link, rng, n):
    """Linear predictors inside the range of a link."""
    if name in ("gaussian", "student") and link == "identity":
        return rng.normal(size=n)
    if link in ("identity", "inverse", "1/mu^2", "sqrt"):
        return rng.uniform(0.4, 3.0, n)
    if link == "log" and name in ("binomial", "bernoulli", "zero_inflated_binomial"):
        return -rng.uniform(0.05, 3.0, n)
    return rng.normal(size=n)


def log_densities(family, row, eta, free):
    free = jnp.array(free)
    return kernels(family, row, eta, free) + constants(family, row, free)


@each_link
def test_log_densities_are_those_of_scipy(name, link):
    make, free, expected, kind = CASES[name]
    rng = np.random.default_rng(3)
    y, eta = values(kind, rng, 40), predictor(name, link, rng, 40)
    row = Row(jnp.array(y), jnp.ones(40), jnp.array(trials(kind, 40)))
    mu = np.array(INVERSE[link](jnp.array(eta)))
    found = log_densities(make(link), row, jnp.array(eta), free)
    # Both sum terms of some hundreds, each good to a few units in its last place.
    np.testing.assert_allclose(found, expected(y, mu), rtol=1e-12, atol=2e-13)


@each_family
def test_probabilities_add_up_to_one(name):
    make, free, _, kind = CASES[name]
    family = make()
    bounds = {"real": (-np.inf, np.inf), "positive": (0, np.inf), "unit": (0, 1)}
    eta = -0.4

    def density_at(y):
        y = np.atleast_1d(y) * 1.0
        row = Row(jnp.array(y), jnp.ones(len(y)), jnp.array(trials(kind, len(y))))
        return np.exp(log_densities(family, row, jnp.full(len(y), eta), free))

    if kind in bounds:
        nodes, weights = np.polynomial.legendre.leggauss(400)
        x = 0.5 * (nodes + 1.0)  # of the unit interval
        y, slope = {
            "real": (np.tan(np.pi * (x - 0.5)), np.pi / np.cos(np.pi * (x - 0.5)) ** 2),
            "positive": (x / (1 - x), 1 / (1 - x) ** 2),
            "unit": (x**3 * (10 - 15 * x + 6 * x * x), 30 * x * x * (1 - x) ** 2),
        }[kind]
        total = np.sum(0.5 * weights * slope * density_at(y))
    else:
        last = {"binary": 1, "successes": TRIALS}.get(kind, 400)
        total = np.sum(density_at(np.arange(1 if kind == "some" else 0, last + 1)))
    assert total == pytest.approx(1.0, abs=1e-7)


@each_family
def test_scores_and_weights_are_derivatives_and_finite_differences_agree(name):
    make, free, _, kind = CASES[name]
    rng = np.random.default_rng(5)
    y, eta = values(kind, rng, 12), jnp.array(rng.normal(size=12) - 1.0 * (kind == "binary"))
    row = Row(jnp.array(y), jnp.full(12, 1.7), jnp.array(trials(kind, 12)))
    _, score, weight = rows_of(make(), row, eta, jnp.array(free))
    h = 1e-5
    up, down = (kernels(make(), row, eta + s * h, jnp.array(free)) for s in (1, -1))
    np.testing.assert_allclose(score, (up - down) / (2 * h), atol=2e-8, rtol=1e-7)
    up, down = (rows_of(make(), row, eta + s * h, jnp.array(free))[1] for s in (1, -1))
    np.testing.assert_allclose(weight, -(up - down) / (2 * h), atol=2e-8, rtol=1e-7)


@each_link
def test_families_called_concave_are(name, link):
    make, free, _, kind = CASES[name]
    family, rng = make(link), np.random.default_rng(6)
    y, eta = values(kind, rng, 300), jnp.array(predictor(name, link, rng, 300))
    row = Row(jnp.array(y), jnp.ones(300), jnp.array(trials(kind, 300)))
    weight = rows_of(family, row, eta, jnp.array(free))[2]
    assert not family.is_concave or weight.min() >= 0.0


EXTREMES = {
    "successes": ([0.0, TRIALS, 5.0], [-40.0, 0.0, 40.0]),
    "binary": ([0.0, 1.0], [-40.0, 0.0, 40.0]),
    # the cube of a mean must be a number
    "counts": ([0.0, 1.0, 1e6], [-100.0, -30.0, 0.0, 13.0, 18.0]),
    "some": ([1.0, 2.0, 1e6], [-100.0, -30.0, 0.0, 13.0, 18.0]),
    "unit": ([1e-12, 0.5, 1 - 1e-12], [-12.0, 0.0, 12.0]),
    "positive": ([1e-8, 1.0, 1e8], [-18.0, 0.0, 18.0]),
    "real": ([-1e8, 0.0, 1e8], [-1e6, 0.0, 1e6]),
}


@each_family
def test_values_and_derivatives_are_finite_in_the_extremes(name):
    make, free, _, kind = CASES[name]
    y, eta = (a.ravel() for a in np.meshgrid(*EXTREMES[kind]))
    row = Row(jnp.array(y), jnp.ones(len(y)), jnp.array(trials(kind, len(y))))

    def parts(eta, free):
        return rows_of(make(), row, eta, free)

    for value in parts(jnp.array(eta), jnp.array(free)):
        assert np.isfinite(value).all()
    third = jax.jvp(
        lambda e: parts(e, jnp.array(free))[2], (jnp.array(eta),), (jnp.ones(len(eta)),)
    )[1]
    assert np.isfinite(third).all()
    if free:
        by_free = jax.jacfwd(lambda free: sum(parts(jnp.array(eta), free)))(jnp.array(free))
        assert np.isfinite(by_free).all()


@pytest.mark.parametrize("link", F.Ordinal("logit").links)
def test_ordinal_probabilities_are_differences_of_the_distribution_function(link):
    cdf = {
        "logit": special.expit,
        "probit": special.ndtr,
        "cloglog": lambda x: -np.expm1(-np.exp(x)),
        "loglog": lambda x: np.exp(-np.exp(-x)),
        "cauchit": lambda x: np.arctan2(1.0, -x) / np.pi,
    }[link]
    family, rng = F.Ordinal(link, CATEGORIES), np.random.default_rng(2)
    eta, y, free = rng.normal(size=60), rng.integers(0, 4, 60), np.array([-0.8, 0.1, 0.4])
    cuts = np.cumsum([-0.8, np.exp(0.1), np.exp(0.4)])
    np.testing.assert_allclose(natural(family, jnp.array(free)), cuts, rtol=1e-14)
    edges = cdf(np.hstack([np.full((60, 1), -40.0), cuts - eta[:, None], np.full((60, 1), 40.0)]))
    edges[:, 0], edges[:, -1] = 0.0, 1.0
    row = Row(jnp.array(y * 1.0), jnp.ones(60), jnp.ones(60))
    found = log_densities(family, row, jnp.array(eta), free)
    np.testing.assert_allclose(np.exp(found), np.diff(edges)[np.arange(60), y], atol=1e-14)
    whole = density(family).location(jnp.array(eta), natural(family, jnp.array(free)))
    np.testing.assert_allclose(whole, np.diff(edges), atol=1e-14)


@pytest.mark.parametrize("link", F.Ordinal("logit").links)
def test_ordinal_densities_keep_their_digits_where_probabilities_are_tiny(link):
    family, free = F.Ordinal(link, CATEGORIES), jnp.array([0.0, -2.0, -1.0])
    far = 3.0 if link in ("cloglog", "loglog") else 12.0
    eta, y = (jnp.array(a.ravel()) for a in np.meshgrid([-far, 0.0, far], np.arange(4.0)))
    row = Row(y, jnp.ones(12), jnp.ones(12))
    value, score, weight = rows_of(family, row, eta, free)
    assert np.isfinite(value).all() and np.isfinite(score).all() and np.isfinite(weight).all()
    if link != "cauchit":
        assert weight.min() > -1e-9
    lower, upper = (np.array(natural(family, free))[k] for k in (0, 1))
    # Phi(u) - Phi(l) = P(l < Z < u) by quadrature, at eta = -12 in the far upper tail
    if link == "probit":
        inside = integrate.quad(stats.norm.pdf, lower + far, upper + far, epsabs=0, epsrel=1e-12)[0]
        one = Row(jnp.ones(1), jnp.ones(1), jnp.ones(1))
        assert kernels(family, one, jnp.array([-far]), free)[0] == pytest.approx(
            np.log(inside), rel=1e-11
        )


def test_an_ordinal_response_of_two_categories_is_a_binary_one():
    family, eta = F.Ordinal("probit", ("no", "yes")), jnp.linspace(-3, 3, 7)
    y = jnp.array([0.0, 1, 0, 1, 1, 0, 1])
    row = Row(y, jnp.ones(7), jnp.ones(7))
    binary = kernels(F.Bernoulli("probit"), row, eta - 0.3, jnp.zeros(0))
    np.testing.assert_allclose(kernels(family, row, eta, jnp.array([0.3])), binary, rtol=1e-13)


def test_a_negative_binomial_of_great_size_is_poisson():
    y, eta = jnp.array([0.0, 1, 4, 30, 2e5]), jnp.array([-2.0, 0.1, 1.0, 3.0, 12.2])
    row = Row(y, jnp.ones(5), jnp.ones(5))
    poisson = log_densities(F.Poisson(), row, eta, [])
    found = log_densities(F.NegativeBinomial(), row, eta, [np.log(1e14)])
    # mu^2 / size is 4e-4 of the largest
    np.testing.assert_allclose(found, poisson, rtol=1e-7, atol=1e-9)


def test_weights_multiply_the_log_density_or_divide_the_dispersion():
    y, eta = jnp.array([0.5, 2.0, 3.0]), jnp.array([0.1, 0.4, -0.2])
    once, twice = (Row(y, jnp.full(3, w), jnp.ones(3)) for w in (1.0, 2.0))
    for family in (F.Gamma(), F.InverseGaussian(), F.Gaussian("log")):
        free = np.log(2.0) if family.name != "gaussian" else 0.5 * np.log(2.0)
        np.testing.assert_allclose(
            log_densities(family, twice, eta, [free + 0.3 * 2 ** -(family.name == "gaussian")]),
            log_densities(family, once, eta, [0.3 * 2 ** -(family.name == "gaussian")]),
            rtol=1e-13,
        )
    counts = [row._replace(y=jnp.array([0.0, 2.0, 3.0])) for row in (once, twice)]
    single, double = (log_densities(F.NegativeBinomial(), row, eta, [0.3]) for row in counts)
    np.testing.assert_allclose(double, 2.0 * single, rtol=1e-14)


def test_rows_of_weight_zero_have_no_density_whatever_stands_in_them():
    row = Row(jnp.array([np.nan, -1.0, 2.0]), jnp.array([0.0, 0.0, 1.0]), jnp.ones(3))
    parts = rows_of(F.Poisson(), row, jnp.array([0.1, 0.2, 0.3]), jnp.zeros(0))
    assert all(part[0] == part[1] == 0.0 and np.isfinite(part[2]) for part in parts)
    slope = jax.grad(lambda eta: kernels(F.Poisson(), row, eta, jnp.zeros(0)).sum())(
        jnp.array([0.1, 0.2, 0.3])
    )
    assert np.isfinite(slope).all()


@each_family
def test_means_and_variances_are_those_of_simulated_responses(name):
    make, free, _, kind = CASES[name]
    if name in ("weibull", "student"):
        return  # one has no simulate, the other no variance to compare at these degrees of freedom
    family, n = make(), 40_000
    phi = natural(family, jnp.array(free))
    made = density(family)
    mu = made.location(jnp.array([-0.4]), phi)
    m = trials(kind, 1)
    # the variance of a proportion has its trials as weights
    w = m if family.has_trials else np.ones(1)
    mean, variance = (
        float(f[0]) for f in (made.mean(mu, phi), made.variance(mu, phi, jnp.array(w)))
    )
    drawn = tuple(
        float(special.expit(x)) if p.domain == "logit" else float(x)
        for p, x in zip(family.parameters, phi, strict=True)
    )
    y = (
        family.simulate(
            np.random.default_rng(1), np.full(n, float(mu[0])), drawn, np.ones(n), trials(kind, n)
        )
        / m
    )
    # Four standard errors; that of a variance by the fourth moment of the draws themselves.
    assert abs(y.mean() - mean) < 4 * np.sqrt(variance / n)
    assert abs(y.var() - variance) < 4 * np.sqrt(((y - mean) ** 2).var() / n)


def test_simulated_categories_have_the_probabilities_of_the_model():
    family, n = F.Ordinal("logit", CATEGORIES), 40_000
    P = density(family).location(jnp.array([0.3]), natural(family, jnp.array([-0.8, 0.1, 0.4])))
    y = family.simulate(
        np.random.default_rng(1), np.repeat(np.array(P), n, 0), (), np.ones(n), np.ones(n)
    )
    share = np.bincount(y.astype(int), minlength=4) / n
    assert (abs(share - P[0]) < 4 * np.sqrt(P[0] * (1 - P[0]) / n)).all()


@pytest.mark.parametrize("link", INVERSE)
def test_links_are_the_inverses_of_their_inverses(link):
    mu = jnp.array([0.02, 0.3, 0.5, 0.97])
    np.testing.assert_allclose(INVERSE[link](LINK[link](mu)), mu, rtol=1e-13)


def test_rows_that_are_not_used_have_no_derivatives_whatever_the_link_is_there():
    row = Row(jnp.array([1.0, 0.0]), jnp.array([1.0, 0.0]), jnp.ones(2))
    for link in ("inverse", "log"):
        slopes = jax.grad(
            lambda free, link=link: kernels(F.Gamma(link), row, jnp.array([0.8, 0.0]), free).sum()
        )
        assert np.isfinite(slopes(jnp.array([0.1]))).all()
