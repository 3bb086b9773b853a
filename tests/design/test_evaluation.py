"""Numbers, conditions and calls in formulas, evaluated as R evaluates them."""

import numpy as np
import pytest
from helpers import expressions
from helpers.expressions import N, columns
from numpy.testing import assert_allclose

from interlace_jax.design.design import build
from interlace_jax.design.formula import parse


@pytest.fixture
def frame():
    return expressions.frame()


@pytest.mark.parametrize(
    "text, value",
    [
        ("I(big^3)", lambda d: d.big.astype(float) ** 3),
        ("I(big * big * big)", lambda d: d.big.astype(float) ** 3),
        ("big:I(big^2)", lambda d: d.big.astype(float) ** 3),
        (
            "poly(big, 3, raw=TRUE)",
            lambda d: np.c_[[d.big.astype(float) ** p for p in (1, 2, 3)]].T,
        ),
        (
            "scale(big, center=FALSE)",
            lambda d: d.big / np.sqrt((d.big.astype(float) ** 2).sum() / (N - 1)),
        ),
        ("I(big.pow(3))", lambda d: d.big.astype(float) ** 3),
        ("np.power(big, 3)", lambda d: d.big.astype(float) ** 3),
        ("I(k^-1)", lambda d: 1.0 / d.k),
        ("I(10^-k)", lambda d: 10.0**-d.k),
        ("I(b + b)", lambda d: 2.0 * d.b),
        ("I(b * b)", lambda d: d.b),
        ("I(-b)", lambda d: -1.0 * d.b),
        ("I((x > 1.5) + (k > 2))", lambda d: 1.0 * (d.x > 1.5) + (d.k > 2)),
        ("I(x > 1.5 & k > 2)", lambda d: (d.x > 1.5) & (d.k > 2)),
        ("I(x > 1.5 | k > 2 & b)", lambda d: (d.x > 1.5) | ((d.k > 2) & d.b)),
        ("I(!b)", lambda d: ~d.b),
        ("I(!k == 2)", lambda d: d.k != 2),
        ("I(!b & x > 1.2)", lambda d: ~d.b & (d.x > 1.2)),
        ("I(b == TRUE)", lambda d: d.b),
        ("I(k & 1)", lambda d: d.k != 0),
        ("I(1 < k & k <= 3)", lambda d: d.k.between(2, 3)),
        ("I(1 < k <= 3)", lambda d: d.k.between(2, 3)),
        ("I(f %in% c('p', 'r'))", lambda d: d.f.isin(["p", "r"])),
        ("I(!f %in% 'p')", lambda d: d.f != "p"),
        ("I(k %in% c(1, 4))", lambda d: d.k.isin([1, 4])),
        ("I(k %% 2 == 0)", lambda d: d.k % 2 == 0),
        ("I(k %/% 2)", lambda d: d.k // 2),
        ("I(2L * k)", lambda d: 2.0 * d.k),
        ("log(k, 2)", lambda d: np.log2(d.k)),
        ("exp10(x)", lambda d: 10.0**d.x),
        ("I(-k^2)", lambda d: -1.0 * d.k**2),
    ],
)
def test_arithmetic_and_logic_are_those_of_r(frame, text, value):
    frame = frame.assign(k=np.r_[0, frame.k[1:]]) if text == "I(k & 1)" else frame
    frame = frame.sample(frac=1.0, random_state=1) if text == "I(b == TRUE)" else frame
    found = build(parse(f"y ~ 0 + {text} + (1 | g)"), frame).X
    assert_allclose(found, np.reshape(np.asarray(value(frame), float), (N, -1)), rtol=1e-12)


@pytest.mark.parametrize("kind", ["int8", "int16", "uint8", "int64", "float32", "float64"])
def test_the_width_of_numbers_does_not_matter_in_calls(frame, kind):
    text = "I(k^9) + I(100 * k * k)"
    assert_allclose(columns(text, frame.astype({"k": kind})), columns(text, frame), rtol=1e-6)


def test_what_has_no_value_is_refused(frame):
    with pytest.raises(ValueError, match="it has no value"):
        build(parse("y ~ print(x) + (1 | g)"), frame)
