"""Residual structures as text and as objects."""

import pytest

import interlace_jax as interlace
from interlace_jax.design.formula import parse
from interlace_jax.design.residual_formula import TAGS, residual_of
from interlace_jax.numerics.covariance.correlations import Toeplitz
from interlace_jax.numerics.covariance.structures import AR1, Structure


def test_text_and_objects_say_the_same():
    assert residual_of("ar1h(visit | arm / id)") == interlace.Residual(
        AR1(heterogeneous=True), time="visit", subject="id", by="arm"
    )
    assert residual_of("sp_exp(a, b | id)").time == ("a", "b")
    assert residual_of(" us( `my visit` | id )").time == ("my visit",)
    for tag in TAGS:
        assert str(residual_of(f"{tag}(visit | id)")) == f"{tag}(visit | id)"


def test_objects_are_checked():
    with pytest.raises(TypeError, match=r"the structure of a Residual is one such as AR1\(\)"):
        interlace.Residual("ar1", time="t", subject="id")
    with pytest.raises(TypeError, match="subject must be the name of a column"):
        interlace.Residual(Toeplitz(), time="t", subject=3)
    with pytest.raises(TypeError, match="residual must be text"):
        parse("y ~ x", residual=AR1())
    assert issubclass(Toeplitz, Structure)
