"""Distribution functions in NumPy: against closed forms and SciPy, far out in the tails."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special

from interlace_jax.inference import tails

DF = 10.0 ** np.random.default_rng(0).uniform(-3.0, 8.0, 500)
T = 10.0 ** np.random.default_rng(1).uniform(-3.0, 2.5, 500)
SMALLEST = 1e-300


def far_and_near(p, expected):
    """Equal to 1e-12 of itself wherever a tail is a normal number."""
    kept = expected > SMALLEST
    assert kept.sum() > 300
    assert_allclose(p[kept], expected[kept], rtol=1e-12)


@pytest.mark.parametrize("q", [2.0, 4.0])
def test_tails_of_f_are_their_closed_forms(q):
    # of F(2, df) the tail is (1 + w)^(-df/2), of F(4, df) times 1 + df/2 w/(1 + w); w = qF/df
    w = q * T**2 / DF
    more = 0.5 * DF * w / (1.0 + w) if q == 4.0 else 0.0
    far_and_near(tails.f_tail(T**2, q, DF), np.exp(-0.5 * DF * np.log1p(w)) * (1.0 + more))


def test_tails_of_t_normal_and_chi_square_are_scipys():
    far_and_near(tails.f_tail(T**2, 1.0, DF), 2.0 * special.stdtr(DF, -T))
    near = T[T < 30.0]
    assert_allclose(tails.f_tail(near**2, 1.0, np.inf), 2.0 * special.ndtr(-near), rtol=1e-12)
    df = np.arange(1, 501)
    far_and_near(tails.f_tail(T, df, np.inf), special.chdtrc(df, df * T))
    one_scale = DF > 1.0
    f = T[one_scale] % 3.0
    many = tails.f_tail(f, 60.0, DF[one_scale])
    assert_allclose(many, special.fdtrc(60.0, DF[one_scale], f), rtol=1e-9)  # SciPy's is the worse
    few = tails.f_tail(T, 60.0, np.minimum(DF, 1.0))
    assert_allclose(few, special.fdtrc(60.0, np.minimum(DF, 1.0), T), rtol=1e-7)


def test_ends_of_the_distributions_and_what_is_missing():
    F, df = [0.0, np.inf, np.nan, 1.0], [3.0, 3.0, 3.0, np.nan]
    assert_allclose(tails.f_tail(F, 1.0, df), [1.0, 0.0, np.nan, np.nan])
    assert_allclose(tails.f_tail(1e300, 1.0, 1.0), 2e-150 / np.pi, rtol=1e-12)
    assert_allclose(tails.f_quantile(0.05, 1.0, [1e-3, np.nan]), [np.inf, np.nan])


@pytest.mark.parametrize("p", [0.9, 0.05, 1e-6])
def test_quantiles_have_the_tails_that_are_asked_for(p):
    df = np.concatenate([DF[DF > 0.1], [np.inf]])
    F = tails.f_quantile(p, 1.0, df)
    assert_allclose(tails.f_tail(F, 1.0, df), p, rtol=1e-12)
    assert_allclose(F[-1], special.ndtri(0.5 * p) ** 2, rtol=1e-12)


def test_normal_tests_are_scipys_without_scipy():
    z = np.array([[0.0, -1.3], [2.5, 37.0]])
    infinite = np.full(z.shape, np.inf)
    assert_allclose(tails.t_pvalue(z, infinite), 2.0 * special.ndtr(-abs(z)), rtol=1e-13)
    found = tails.t_quantile(0.975, infinite)
    assert_allclose(found, np.full(z.shape, special.ndtri(0.975)), rtol=1e-14)
    many = np.linspace(-5, 5, 2000)
    values = tails.t_pvalue(many, np.full(2000, np.inf))
    assert_allclose(values, 2.0 * special.ndtr(-abs(many)))


def test_a_process_begins_without_scipys_functions_and_goes_on_with_them():
    code = """
        import sys
        import numpy as np
        from interlace_jax.inference import tails
        t, df = np.linspace(0.0, 9.0, 90), np.append(np.linspace(0.5, 80.0, 89), np.inf)

        def everything():
            low, high = (tails.t_quantile(p, df) for p in (0.025, 0.975))
            few = tails.f_pvalue(2.5, 3, 17.2), tails.chi2_pvalue(7.0, 2)
            return np.concatenate([tails.t_pvalue(t, df), low, high, few])

        tails.FEW = 1000
        was_there = "scipy.special" in sys.modules  # some versions of others import it
        first = everything()
        assert ("scipy.special" in sys.modules) == was_there
        tails.FEW = 0
        np.testing.assert_allclose(first, everything(), rtol=1e-11)
        assert "scipy.special" in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
