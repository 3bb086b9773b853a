"""The likelihood of a generalised model as a function of its offset."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import interlace_jax as interlace


@pytest.mark.usefixtures("x64")
def test_an_offset_may_be_given_and_has_derivatives():
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"y": rng.poisson(2.0, 70) * 1.0, "g": np.repeat(np.arange(10), 7)})
    offset = 0.3 * rng.normal(size=70)
    plain = interlace.compile("y ~ 1 + (1 | g)", data, family="poisson")
    model = interlace.compile("y ~ 1 + (1 | g)", data, family="poisson", offset=offset)
    at = np.array([0.4]), np.array([0.6])
    assert plain.deviance(*at, offset=offset) == pytest.approx(model.deviance(*at), rel=1e-10)
    assert model.deviance(*at, offset=0.0 * offset) == pytest.approx(plain.deviance(*at), rel=1e-10)

    def loglik(o):
        return plain.loglik(*map(jnp.asarray, at), offset=o)

    slopes = jax.jit(jax.grad(loglik))(jnp.asarray(offset))
    for i in (0, 33, 69):
        step = 1e-4 * (np.arange(70) == i)
        change = plain.loglik(*at, offset=offset + step) - plain.loglik(*at, offset=offset - step)
        assert slopes[i] == pytest.approx(change / 2e-4, abs=1e-6)
    assert_allclose(
        slopes.sum(),
        jax.grad(lambda b: plain.loglik(at[0], b, offset=offset))(jnp.asarray(at[1]))[0],
        rtol=1e-6,
    )
    with pytest.raises(ValueError, match="offset has shape"):
        plain.loglik(*at, offset=offset[:5])
