"""Programs written as NumPy give XLA's numbers: operation by operation, in random programs, and
in our own.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from interlace_jax.runtime.programs import numpy_code

# a few operations of double precision on numbers of size one
ROUNDING = dict(rtol=1e-12, atol=1e-12)


@pytest.fixture(autouse=True)
def double(x64):
    """Programs are written in double precision."""


def both(function, *args):
    """Results of a function by XLA and by its NumPy source: two lists of arrays."""
    args = jax.tree.map(np.asarray, args)
    traced = jax.jit(function).trace(*args)
    program = numpy_code.write(traced.jaxpr).load()
    before = jax.tree.map(np.copy, args)
    with np.errstate(all="ignore"):
        found = [np.asarray(a) for a in program(*jax.tree.leaves(args))]
    jax.tree.map(np.testing.assert_array_equal, args, before)  # arguments are never written to
    return [np.asarray(a) for a in jax.tree.leaves(jax.jit(function)(*args))], found


def assert_same(function, *args, **tolerance):
    for expected, found in zip(*both(function, *args), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, **(ROUNDING | tolerance))


A = np.random.default_rng(0).normal(size=(4, 5))
S = A @ A.T + np.eye(4)
T = np.random.default_rng(1).normal(size=(3, 4, 5))
INDEX = np.array([3, 0, 0, 2, -1, 9])

OPERATIONS = {
    "arithmetic": lambda x: (x + 1.0) * x - x / (2.0 + x * x) + x**3 + x**-2.0 + jnp.abs(x) ** 0.3,
    "functions": lambda x: (
        jnp.exp(x)
        + jnp.log1p(x * x)
        + jnp.tanh(x)
        + jnp.sign(x)
        + jnp.cbrt(x)
        + lax.rsqrt(1 + x * x)
    ),
    "special functions": lambda x: (
        jax.nn.sigmoid(x) + lax.erf(x) + lax.lgamma(x * x + 0.5) + lax.digamma(x * x + 0.5)
    ),
    "whole quotients": lambda x: (
        lax.div((10 * x).astype(int), 3) + (10 * x).astype(int) // 3 + (10 * x).astype(int) % 3
    ),
    "choices": lambda x: (
        jnp.where(x > 0, x, -1.0)
        + jnp.clip(x, -0.5, 0.5)
        + lax.select_n((x > 0).astype(jnp.int32), x, 2 * x)
    ),
    "reductions": lambda x: (
        (
            x.sum(),
            x.max(0),
            x.min(1),
            x.prod(),
            (x > 0).all(0),
            (x > 9).any(),
            x.argmax(1),
            x.argmin(0),
        )
    ),
    "whole numbers are summed as they are": lambda x: (x > 0).astype(jnp.int32).sum(0),
    "accumulations": lambda x: (
        jnp.cumsum(x, 1),
        jnp.cumprod(x, 0),
        lax.cummax(x, 0),
        lax.cumsum(x, 0, reverse=True),
    ),
    "order": lambda x: (jnp.sort(x, 1), jnp.argsort(x, 0), lax.sort((x.round(), x), num_keys=2)),
    "shapes": lambda x: (
        x.T.reshape(2, 10),
        x[None, :, ::-1],
        jnp.broadcast_to(x[:, None], (4, 3, 5)),
        x.ravel(),
    ),
    "parts": lambda x: (
        x[1:3, ::2],
        jnp.split(x, [1, 3]),
        jnp.concatenate([x, x], 1),
        jnp.stack([x, x], 1),
        x[2],
    ),
    "padding": lambda x: (jnp.pad(x, ((1, 2), (0, 1))), lax.pad(x, 0.5, ((-1, 2, 1), (1, -2, 0)))),
    "slices that move": lambda x: (
        (lax.dynamic_slice(x, (1, 3), (2, 4)), lax.dynamic_update_slice(x, x[:2, :2], (3, -7)))
    ),
    "products": lambda x: (
        (
            x @ x.T,
            x.T @ x[:, 0],
            jnp.vdot(x, x),
            jnp.einsum("ij,ik->ijk", x, x),
            jnp.tensordot(x, x, 2),
        )
    ),
    "counting": lambda x: jnp.arange(5)[None] + x + lax.broadcasted_iota(float, (4, 5), 1),
    "rounding": lambda x: (
        (
            jnp.round(10 * x),
            lax.round(10 * x, lax.RoundingMethod.AWAY_FROM_ZERO),
            jnp.floor(x),
            jnp.ceil(x),
        )
    ),
    "numbers alone": lambda x: jnp.where(x[0, 0] > 0, x[0, 1], 1.0) + jnp.float64(2.0) * x[1, 1],
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_give_xla_numbers(name):
    assert_same(OPERATIONS[name], A)


MODES = ["fill", "clip", "promise_in_bounds"]


@pytest.mark.parametrize("mode", MODES)
def test_gathers_keep_their_promise_out_of_bounds(mode):
    index = INDEX if mode != "promise_in_bounds" else np.abs(INDEX) % 4
    assert_same(
        lambda x, i: (x.at[i].get(mode=mode), x.at[:, i].get(mode=mode), x.at[i, i].get(mode=mode)),
        A,
        index,
    )


@pytest.mark.parametrize("change", ["set", "add", "multiply", "min", "max"])
@pytest.mark.parametrize("known", [False, True], ids=["traced", "constant"])
def test_scatters_drop_what_is_out_of_bounds(change, known):
    # of two at one place either may stay
    index = np.array([3, 0, 9, 2]) if change == "set" else INDEX

    def function(x, i):
        i = jnp.asarray(index) if known else i
        u = 2.0 + jnp.arange(5.0 * len(index)).reshape(len(index), 5)
        zeros = jnp.zeros((4, 5))
        return (
            getattr(x.at[i], change)(u),
            getattr(x.at[i, 1], change)(u[:, 0]),
            getattr(zeros.at[:, i], change)(u[:, :4].T),
        )

    assert_same(function, A, index)


def test_a_scatter_writes_in_place_only_what_nothing_else_reads():
    def function(x, i):
        y = x + 1.0
        z = y.at[i].set(0.0)  # y is needed once more
        w = (x * 2.0).at[i].set(0.0)  # this one is not
        return y, z, w.at[0].set(5.0), x.at[i].add(1.0)

    assert_same(function, A, np.array([1, 2]))


def _rebuilt(values, vectors):
    return jnp.einsum("...ij,...j,...kj->...ik", vectors, values, vectors)


LINALG = {
    "cholesky": jnp.linalg.cholesky,
    "qr": jnp.linalg.qr,
    "r": lambda x: jnp.linalg.qr(x, mode="r"),
    "inverse": jnp.linalg.inv,
    "log-determinant": jnp.linalg.slogdet,
    "solution": lambda x: jnp.linalg.solve(x, x[..., :2]),
    "triangular": lambda x: jax.scipy.linalg.solve_triangular(jnp.tril(x), x, lower=True),
    "upper transposed": lambda x: jax.scipy.linalg.solve_triangular(jnp.triu(x), x, trans=1),
    "eigenvalues": lambda x: jnp.linalg.eigh(x)[0],
    "spectral": lambda x: _rebuilt(*jnp.linalg.eigh(x)),
    "differentiated": lambda x: jax.grad(
        lambda x: jnp.sum(jnp.linalg.slogdet(x)[1]) + jnp.sum(jnp.linalg.cholesky(x))
    )(x),
}


@pytest.mark.parametrize("batch", [False, True], ids=["one", "batch"])
@pytest.mark.parametrize("name", LINALG)
def test_linear_algebra_gives_xla_numbers(name, batch):
    x = np.stack([S, 2 * S + np.eye(4)]) if batch else S
    for expected, found in zip(*both(LINALG[name], x), strict=True):
        # of a column either is right
        sign = np.sign(expected) * np.sign(found) if name in ("qr", "r") else 1.0
        np.testing.assert_allclose(sign * found, expected, rtol=1e-10, atol=1e-10)


def test_a_matrix_that_is_not_positive_definite_gives_nan_and_leaves_the_others_of_a_batch():
    x = np.stack([S, -S])
    expected, found = both(jnp.linalg.cholesky, x)
    np.testing.assert_allclose(found[0], expected[0], **ROUNDING)
    assert np.isfinite(found[0][0]).all() and np.isnan(np.diag(found[0][1])).all()


def test_a_triangular_matrix_with_a_zero_pivot_divides_by_zero():
    L = np.array([[1.0, 0.0], [2.0, 0.0]])
    assert_same(lambda L: jax.scipy.linalg.solve_triangular(L, jnp.ones(2), lower=True), L)


LOOPS = {
    "while": lambda x: lax.while_loop(
        lambda s: s[1] < 10.0, lambda s: (s[0] * 0.9, s[1] + jnp.abs(s[0]) + 0.1), (x, 0.0)
    ),
    "scan": lambda x: lax.scan(lambda c, i: (c + i, c * i), x, jnp.arange(1.0, 4.0)),
    "backwards": lambda x: lax.scan(
        lambda c, i: (c + i, c * i), x, jnp.arange(1.0, 4.0), reverse=True
    ),
    "fori": lambda x: lax.fori_loop(0, 5, lambda i, c: c * 0.5 + i, x),
    "map": lambda x: lax.map(lambda i: i * x, jnp.arange(3.0)),
    "cond": lambda x: lax.cond(x > 0, lambda x: x * 2, lambda x: x - 1, x),
    "switch": lambda x: lax.switch(
        (x > 0).astype(int) + (x > 1), [lambda x: x, lambda x: 2 * x, lambda x: 3 * x], x
    ),
    "nested": lambda x: lax.while_loop(
        lambda s: jnp.abs(s) > 0.1,
        lambda s: lax.fori_loop(0, 3, lambda i, c: c * (0.7 + 0.01 * i), s),
        x,
    ),
}


@pytest.mark.parametrize("lanes", [False, True], ids=["one", "lanes"])
@pytest.mark.parametrize("name", LOOPS)
def test_loops_and_choices_run_as_often_as_in_xla(name, lanes):
    if lanes:
        assert_same(jax.vmap(LOOPS[name]), np.array([-2.0, -0.01, 0.3, 1.5]))
        assert_same(jax.vmap(jax.vmap(LOOPS[name])), np.array([[-2.0, 0.01], [0.3, 1.5]]))
    else:
        assert_same(LOOPS[name], np.float64(1.5))


def test_what_a_loop_does_not_change_is_computed_once():
    def function(x):
        return lax.fori_loop(0, 3, lambda i, c: c + jnp.exp(x).sum() * c, jnp.float64(1.0))

    source = numpy_code.write(jax.jit(function).trace(A).jaxpr).source
    before, _, inside = source.partition("while True")
    assert "np.exp" in before and "np.exp" not in inside


def test_derivatives_of_loops_and_solves():
    def function(x):
        return jnp.sum(
            lax.scan(lambda c, i: (jnp.tanh(c @ x + i), c.sum()), jnp.ones(4), jnp.arange(3.0))[1]
        )

    assert_same(jax.grad(function), S)
    assert_same(jax.hessian(function), S)
    assert_same(lambda x: jax.jvp(jnp.linalg.inv, (x,), (x,)), S, rtol=1e-10)


def test_an_unknown_operation_is_refused():
    with pytest.raises(numpy_code.NotWritten, match="fft"):
        numpy_code.write(jax.jit(lambda x: jnp.fft.fft(x)).trace(A[0]).jaxpr)


def test_a_program_that_holds_data_is_refused():
    data = np.random.default_rng(0).normal(size=100_000)
    with pytest.raises(numpy_code.NotWritten, match="data"):
        numpy_code.write(jax.jit(lambda x: x + data).trace(1.0).jaxpr)


@pytest.mark.parametrize("sizes", [(2, 3), (5, 1), (1, 7)])
def test_open_sizes_take_any_number(sizes):
    n, m = sizes
    scope = jax.export.SymbolicScope()
    shapes = [jax.export.symbolic_shape(s, scope=scope) for s in ("n, 2*m", "n")]

    def function(x, i):
        summed = jnp.zeros((3, x.shape[1])).at[i].add(x)
        return (
            summed,
            x @ x.T,
            jnp.arange(x.shape[0]) * x.shape[1],
            x.reshape(-1, 2, x.shape[1] // 2),
        )

    structs = jax.ShapeDtypeStruct(shapes[0], float), jax.ShapeDtypeStruct(shapes[1], int)
    program = numpy_code.write(jax.jit(function).trace(*structs).jaxpr, ("n", "m")).load()
    x, i = np.random.default_rng(0).normal(size=(n, 2 * m)), np.arange(n) % 3
    for found, expected in zip(program(x, i, n=n, m=m), function(x, i), strict=True):
        np.testing.assert_allclose(found, expected, **ROUNDING)


# Random programs ----------------------------------------------------------------------------------

STEPS = {
    "add": lambda x, y, i: x + y,
    "scaled": lambda x, y, i: jnp.tanh(x * y[:1]),
    "product": lambda x, y, i: jnp.tanh(x @ y.T @ y),
    "shuffled": lambda x, y, i: x[:, i],
    "rows": lambda x, y, i: x.at[i].get(mode="clip") - y,
    "summed": lambda x, y, i: jnp.zeros_like(x).at[i].add(y) / 3.0,
    "written": lambda x, y, i: (x * 0.5).at[i[0], 1].set(y[0, 0]),
    "centred": lambda x, y, i: x - y.mean(0, keepdims=True),
    "chosen": lambda x, y, i: jnp.where(x > y, x, y[::-1]),
    "turned": lambda x, y, i: jnp.tanh(x.T + y),
    "joined": lambda x, y, i: jnp.concatenate([x[:2], y[2:]]),
    "solved": lambda x, y, i: jnp.tanh(jnp.linalg.solve(x @ x.T + 4.0 * jnp.eye(4), y)),
    "factored": lambda x, y, i: jnp.linalg.cholesky(x @ x.T + jnp.eye(4)) - y,
    "looped": lambda x, y, i: lax.fori_loop(0, 3, lambda k, c: jnp.tanh(c + y * k), x),
    "while": lambda x, y, i: lax.while_loop(
        lambda c: jnp.sum(c * c) > 1.0, lambda c: 0.5 * c + 0.01 * y, x
    ),
    "scanned": lambda x, y, i: lax.scan(lambda c, r: (c * 0.5 + r, c), x[0], y)[1],
    "cond": lambda x, y, i: lax.cond(x[0, 0] > 0, lambda x, y: x + y, lambda x, y: x * y, x, y),
    "sorted": lambda x, y, i: jnp.sort(x, 0) + y,
    "summed up": lambda x, y, i: jnp.tanh(jnp.cumsum(x, 1)) * y,
}

programs = st.lists(
    st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 9), st.integers(0, 9)),
    min_size=1,
    max_size=7,
)


@settings(max_examples=20, deadline=None)
@given(programs, st.sampled_from(["value", "gradient", "lanes", "tangent"]), st.integers(0, 2**31))
def test_random_programs_give_xla_numbers(steps, kind, seed):
    rng = np.random.default_rng(seed)
    x, i = rng.normal(size=(4, 4)), rng.integers(0, 4, 4)

    def function(x, i):
        known = [x, jnp.sin(x)]
        for name, a, b in steps:
            known.append(STEPS[name](known[a % len(known)], known[b % len(known)], i))
        return known[-1]

    turned = {
        "value": function,
        "gradient": jax.grad(lambda x, i: jnp.sum(jnp.sin(function(x, i)))),
        "lanes": lambda x, i: jax.vmap(function, (0, None))(jnp.stack([x, 2 * x, -x]), i),
        "tangent": lambda x, i: jax.jvp(lambda x: function(x, i), (x,), (x,)),
    }[kind]
    if kind == "gradient" and any(name == "while" for name, _, _ in steps):
        turned = function  # has no gradient
    assert_same(turned, x, i, rtol=1e-8, atol=1e-8)  # solves of random matrices lose digits
