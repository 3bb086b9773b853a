"""Parameters of a residual covariance that the data cannot tell apart."""

import pytest
from helpers.visits import frame

import interlace_jax as interlace


def test_parameters_that_the_data_cannot_tell_apart_are_named():
    d = frame()
    for formula, residual, dispersion, message in [
        ("y ~ x + (1 | id)", "cs(visit | id)", None, r"cs within 'id' is what \(1 \| id\) is"),
        (
            "y ~ x + (1 | id)",
            "us(visit | id)",
            None,
            "us within 'id' contains every random effect of 'id' already",
        ),
        ("y ~ x + (1 | id)", "toep(visit | id)", None, r"cannot tell 'id.\(Intercept\)'.* apart"),
        (
            "y ~ x",
            "us(visit | id)",
            "~ visit",
            r"cannot tell 'sd V2'.*'log sd visit\[T.V2\]'.* apart",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            interlace.compile(formula, d, residual=residual, dispersion=dispersion)
    interlace.compile("y ~ x + (1 | id)", d, residual="ar1(visit | id)", dispersion="~ arm")
