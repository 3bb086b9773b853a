"""Formulas of R's grammar span what Wilkinson and Rogers (1973) say, on frames with odd names and
types.

A formula is drawn as a tree, which is written as text for the package, and expanded here to terms
by the rules of R's `?formula`. Each term is the product of the indicators of its factors and of its
numbers; the model is their sum. Only what is spanned is compared, so that the coding of factors
does not matter.
"""

import warnings
from functools import reduce

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from interlace_jax.design.design import build
from interlace_jax.design.formula import parse
from interlace_jax.design.new_data import new_data

N = 160
NAMES = [
    "x",
    "C",
    "I",
    "log",
    "class",
    "lambda",
    "a.b",
    "my x",
    "~",
    "+",
    "\u00b5",
    "a:b",
    "T",
    "np",
    "0",
    "|",
    "if",
]
NUMBERS = ["float64", "float32", "int16", "uint8", "Int64", "object", "double[pyarrow]"]
TEXTS = ["object", "str", "category", "string", "string[pyarrow]"]

INTERCEPT = frozenset()


@st.composite
def frames(draw):
    """Two numbers, three factors and a group, under drawn names: the frame, and the values of
    each atom by its text.
    """
    names = draw(st.lists(st.sampled_from(NAMES), min_size=5, max_size=5, unique=True))
    r = np.random.default_rng(draw(st.integers(0, 50)))
    frame = pd.DataFrame({"response": r.normal(size=N), "group": np.arange(N) % 3})
    atoms = {}
    for name in names[:2]:
        values = r.integers(1, 9, N)
        frame[name] = pd.Series(values).astype(draw(st.sampled_from(NUMBERS)))
        number = values[:, None].astype(float)
        atoms |= {
            f"`{name}`": number,
            f"log(`{name}`)": np.log(number),
            f"I(`{name}`^2 - 1)": number**2 - 1,
        }
    for name, size in zip(names[2:], (2, 3, 2), strict=True):
        codes = r.integers(0, size, N)
        levels = np.array([f"{name}{k}" for k in range(size)])
        frame[name] = pd.Series(levels[codes]).astype(draw(st.sampled_from(TEXTS)))
        indicators = np.eye(size)[codes]
        atoms |= {f"`{name}`": indicators, f"C(`{name}`, contr.sum)": indicators}
    return frame, atoms


@st.composite
def formulas(draw, atoms, depth=3):
    """A formula without its intercept: its text, its terms, and how tightly its last operator
    binds.
    """
    kind = draw(
        st.sampled_from(["atom"] * 2 + (["+", "-", ":", "*", "/", "^", "%in%"] if depth else []))
    )
    if kind == "atom":
        atom = draw(st.sampled_from(atoms))
        return atom, [frozenset([atom])], 9
    left, left_terms, left_binds = draw(formulas(atoms, depth - 1))
    binds = {"+": 1, "-": 1, "*": 2, "/": 2, "%in%": 3, ":": 4, "^": 5}[kind]
    left = left if left_binds >= binds and kind != "^" else f"({left})"
    if kind == "^":
        return f"{left}^2", crossed(left_terms, left_terms), binds
    if kind == "%in%":
        right = draw(st.sampled_from(atoms))
        return f"{left} %in% {right}", [term | {right} for term in left_terms], binds
    right, right_terms, right_binds = draw(formulas(atoms, depth - 1))
    right = right if right_binds > binds else f"({right})"
    return f"{left} {kind} {right}", OPERATORS[kind](left_terms, right_terms), binds


def unique(terms):
    return list(dict.fromkeys(terms))


def products(left, right):
    return unique(a | b for a in left for b in right)


def crossed(left, right):
    return unique([*left, *right, *products(left, right)])


def nested(left, right):
    return (
        unique([*left, *(reduce(frozenset.union, left) | term for term in right)]) if left else []
    )


OPERATORS = {
    "+": lambda left, right: unique([*left, *right]),
    "-": lambda left, right: [term for term in left if term not in right],
    ":": products,
    "*": crossed,
    "/": nested,
}


def spanned(terms, atoms):
    """Columns (N, p) of all terms: products of indicators and numbers."""
    found = []
    for term in terms:
        product = np.ones((N, 1))
        for atom in sorted(term):
            product = (product[:, :, None] * atoms[atom][:, None, :]).reshape(N, -1)
        found.append(product)
    return np.hstack(found) if found else np.zeros((N, 0))


def assert_same_span(found, expected):
    """Both ways: nothing of the one is outside the other."""
    scaled = [M / np.maximum(np.linalg.norm(M, axis=0), 1e-300) for M in (found, expected)]
    for inner, outer in (scaled, scaled[::-1]):
        left = inner - outer @ np.linalg.lstsq(outer, inner, rcond=1e-10)[0]
        assert np.abs(left).max(initial=0.0) < 1e-6


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_formulas_of_r_span_what_their_terms_do(data):
    frame, atoms = data.draw(frames())
    text, terms, _ = data.draw(formulas(list(atoms)))
    start, has_intercept = data.draw(
        st.sampled_from([("", True), ("1 + ", True), ("0 + ", False), ("-1 + ", False)])
    )
    expected = spanned([INTERCEPT] * has_intercept + terms, atoms)
    if not terms or np.linalg.matrix_rank(expected) > N // 3:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        design = build(parse(f"response ~ {start}{text} + (1 | group)"), frame)
    assert_same_span(design.X, expected)
    rows = [3, 77, 3]
    assert_allclose(new_data(design, frame.iloc[rows]).X, design.X[rows], rtol=1e-9, atol=1e-12)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_slopes_of_r_span_what_their_terms_do(data):
    frame, atoms = data.draw(frames())
    text, terms, _ = data.draw(formulas(list(atoms), depth=1))
    expected = spanned([INTERCEPT, *terms], atoms)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        design = build(parse(f"response ~ 1 + ({text} | group)"), frame)
    assert_same_span(design.factors[0].Z, expected)
