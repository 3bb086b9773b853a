"""What the operations of a traced program are in NumPy, where that takes more than an expression.

Imports no JAX.

Written programs (`numpy_code`) import these functions. Each does what the operation of its name
does in XLA, out of bounds and with numbers that are not finite included. Where LAPACK refuses a
matrix the result is NaN.
"""

import math

import numpy as np
from scipy.linalg import lapack

from ...support.later import special  # noqa: F401 - for the programs

CLIP, FILL, PROMISED = "clip", "fill", "promised"  # what becomes of an index that is out of bounds
SMALL = 16  # equations of a system, of which many are solved side by side
COMBINED = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


# Indexing -----------------------------------------------------------------------------------------


def take(x, index, axis, mode, fill):
    """Slices of x along an axis; index (...) takes the place of that axis."""
    if mode == CLIP:
        return x.take(index, axis, mode="clip")
    size = x.shape[axis]
    if mode == PROMISED or not index.size or (index.min() >= 0 and index.max() < size):
        return x.take(index, axis)
    inside = (index >= 0) & (index < size)
    found = x.take(np.where(inside, index, 0), axis)
    after = x.ndim - axis - 1
    return np.where(inside.reshape(inside.shape + (1,) * after), found, fill)


def flat_places(shape, index, window, dims, rank, mode):
    """Where the entries of the windows of a gather or scatter are in the flattened operand, and
    which are inside it.

    index (..., r): starts of the windows in an operand of that shape. window: their size, one
    number a dimension.
    dims: the dimensions of the operand that the index is about, those that windows lack, the
    dimensions of the result (of some rank) that are the windows' others, and the dimensions that
    operand and index share, as numbered in either. Inside is None where all are, or have been made
    so.
    """
    indexed, dropped, offset, batch, index_batch = dims
    lead = np.shape(index)[:-1]
    outer = [d for d in range(rank) if d not in offset]
    kept = [d for d in range(len(shape)) if d not in dropped and d not in batch]

    def along(values, places):
        full = [1] * rank
        for d, size in zip(places, values.shape, strict=True):
            full[d] = size
        return values.reshape(full)

    flat, inside = np.zeros([1] * rank, np.intp), None
    for d, size in enumerate(shape):
        place = 0
        if d in indexed:
            start, last = index[..., indexed.index(d)].astype(np.intp), size - window[d]
            if mode == CLIP:
                start = start.clip(0, last)
            elif start.size and (start.min() < 0 or start.max() > last):
                sound = (start >= 0) & (start <= last)
                start, sound = np.where(sound, start, 0), along(sound, outer)
                inside = sound if inside is None else inside & sound
            place = along(start, outer)
        if d in batch:
            at = index_batch[batch.index(d)]
            place = place + along(np.arange(lead[at]), [outer[at]])
        if d in kept:
            place = place + along(np.arange(window[d]), [offset[kept.index(d)]])
        flat = flat * size + place
    return flat, inside


def gather(x, places, shape, fill):
    """Entries of x at `flat_places`, in a result of some shape."""
    flat, inside = places
    found = x.reshape(-1)[flat if flat.shape == shape else np.broadcast_to(flat, shape)]
    return found if inside is None else np.where(inside, found, fill)


def _within(places, updates):
    """Flat indices and updates, without what is outside."""
    flat, inside = places
    if flat.shape != updates.shape:
        flat = np.broadcast_to(flat, updates.shape)
    if inside is None:
        return flat.reshape(-1), updates.reshape(-1)
    inside = np.broadcast_to(inside, updates.shape)
    return flat[inside], updates[inside]


def summed(places, updates, shape):
    """Sums of the updates by `flat_places` in an array of some shape: counting with weights is
    quick.
    """
    flat, updates = _within(places, np.asarray(updates))
    if updates.dtype != np.float64:
        return scatter(np.zeros(shape, updates.dtype), (flat, None), updates, "add", True)
    return np.bincount(flat, updates, math.prod(shape)).reshape(shape)


def scatter(x, places, updates, combine, fresh):
    """X with updates set, added or multiplied into it at `flat_places`; x itself is changed if
    it is fresh.
    """
    flat, updates = _within(places, np.asarray(updates))
    if combine == "add" and x.dtype == np.float64 and 8 * flat.size > x.size:
        return x + np.bincount(flat, updates, x.size).reshape(x.shape)
    x = x if fresh and x.flags.c_contiguous else x.copy("C")
    entries = x.reshape(-1)
    if combine == "set":
        entries[flat] = updates
    else:
        COMBINED[combine].at(entries, flat, updates)
    return x


def dynamic_slice(x, starts, sizes):
    """A slice of x; starts are moved so that it is inside."""
    first = [min(max(int(s), 0), n - k) for s, n, k in zip(starts, x.shape, sizes, strict=True)]
    return x[tuple(slice(s, s + k) for s, k in zip(first, sizes, strict=True))]


def dynamic_update(x, update, starts, fresh):
    """X with a slice of it replaced."""
    x = x if fresh else x.copy()
    dynamic_slice(x, starts, np.shape(update))[...] = update
    return x


def pad(x, value, low_high_between):
    """X with `value` before, after and between its entries; negative widths cut."""
    into, wide = [], []
    for n, (low, high, between) in zip(x.shape, low_high_between, strict=True):
        step = between + 1
        spread = max((n - 1) * step + 1, 0)
        wide.append((spread, low, high))
        into.append(slice(max(low, 0), max(low, 0) + spread, step))
    padded = np.full([n + max(low, 0) + max(high, 0) for n, low, high in wide], value, x.dtype)
    padded[tuple(into)] = x
    if all(low >= 0 and high >= 0 for _, low, high in wide):
        return padded
    cut = [(max(-low, 0), n + max(high, 0) + max(low, 0) - max(-high, 0)) for n, low, high in wide]
    return padded[tuple(slice(first, max(last, first)) for first, last in cut)]


# Arithmetic ---------------------------------------------------------------------------------------


def quotient(a, b):
    """Whole quotients, rounded towards zero."""
    floor = np.floor_divide(a, b)
    return floor + ((floor * b != a) & ((np.less(a, 0)) != np.less(b, 0))).astype(floor.dtype)


def floordiv(a, b):
    """Floor quotient of sizes."""
    return a // b


def mod(a, b):
    """Remainder of sizes."""
    return a % b


# Order, choice, loops -----------------------------------------------------------------------------


def sort(arrays, axis, keys):
    """All arrays in the order of the first `keys` of them."""
    if len(arrays) == 1:
        return (np.sort(arrays[0], axis, kind="stable"),)
    order = (
        np.lexsort(arrays[:keys][::-1], axis)
        if keys > 1
        else np.argsort(arrays[0], axis, kind="stable")
    )
    return tuple(np.take_along_axis(a, order, axis) for a in arrays)


def select(which, *cases):
    """Of many cases the one with the number `which`, entry by entry."""
    return np.choose(which, cases, mode="clip")


def lanes(running, new, old):
    """What a loop over many lanes leaves: new values where a lane still runs, old ones where it
    has ended.
    """
    running = np.asarray(running)
    return np.where(running.reshape(running.shape + (1,) * (np.ndim(old) - running.ndim)), new, old)


def cumulative(function, x, axis, reverse):
    """Cumulative sums, products, maxima, minima from the first entry, or from the last."""
    if not reverse:
        return function(x, axis, dtype=x.dtype)
    return np.flip(function(np.flip(x, axis), axis, dtype=x.dtype), axis)


def rounded(x, to_even):
    """The nearest integers; halves to even ones, or away from zero."""
    return np.round(x) if to_even else np.trunc(x + np.copysign(np.nextafter(0.5, 0.0), x))


# Linear algebra -----------------------------------------------------------------------------------


def _by_matrix(function, x, *others):
    """The results of `function` for every matrix of a batch."""
    lead = x.shape[:-2]
    arrays = [a.reshape(-1, *a.shape[len(lead) :]) for a in (x, *others)]
    found = [function(*each) for each in zip(*arrays, strict=True)]
    return [np.reshape(part, lead + part[0].shape) for part in zip(*found, strict=True)]


def cholesky(x):
    """Lower triangular factors; NaN where a matrix is not positive definite."""
    try:
        return np.linalg.cholesky(x)
    except np.linalg.LinAlgError:
        if x.ndim == 2:
            return np.full_like(x, np.nan)
        return _by_matrix(lambda a: (cholesky(a),), x)[0]


def eigh(x, lower):
    """Eigenvectors and eigenvalues, ascending, of symmetric matrices of which one triangle is
    read.
    """
    try:
        values, vectors = np.linalg.eigh(x, "L" if lower else "U")
    except np.linalg.LinAlgError:
        if x.ndim > 2:
            return _by_matrix(lambda a: eigh(a, lower), x)
        values, vectors = np.full(x.shape[:-1], np.nan), np.full_like(x, np.nan)
    return vectors, values


def triangular_solve(a, b, left_side, lower, transpose, unit):
    """X with op(a) x = b, or x op(a) = b where a is not on the left side."""
    if not b.size:
        return b
    if not left_side:
        turned = b.swapaxes(-1, -2)
        return triangular_solve(a, turned, True, lower, not transpose, unit).swapaxes(-1, -2)
    if a.ndim > 2 and a.shape[-1] <= SMALL:
        return _substituted(a, b, lower, transpose, unit)
    if a.ndim > 2:
        return _by_matrix(
            lambda a, b: (triangular_solve(a, b, True, lower, transpose, unit),), a, b
        )[0]
    if a.shape[0] == 1:
        return b.copy() if unit else b / a
    if a.dtype == np.float32:
        solve = lapack.strtrs
    else:
        solve = lapack.dtrtrs
    if a.flags.c_contiguous:  # LAPACK reads by columns: the transpose, without a copy
        found, fault = solve(a.T, b, lower=not lower, trans=int(not transpose), unitdiag=unit)
    else:
        found, fault = solve(a, b, lower=lower, trans=int(transpose), unitdiag=unit)
    return found if fault == 0 else _substituted(a, b, lower, transpose, unit)


def _substituted(a, b, lower, transpose, unit):
    """Solutions by substitution, of many systems at once; by zero it divides, as XLA does."""
    if transpose:
        a, lower = a.swapaxes(-1, -2), not lower
    n = a.shape[-1]
    x = np.empty(b.shape, b.dtype)
    for i in range(n) if lower else reversed(range(n)):
        done = slice(0, i) if lower else slice(i + 1, None)
        rest = b[..., i, :] - (a[..., i, None, done] @ x[..., done, :])[..., 0, :]
        x[..., i, :] = rest if unit else rest / a[..., i, i, None]
    return x


def lu(x):
    """LU factors in one matrix, pivots, and the permutation of the rows."""
    if x.ndim > 2:
        return _by_matrix(lu, x)
    factor = lapack.sgetrf if x.dtype == np.float32 else lapack.dgetrf
    factors, pivots, _ = factor(x)
    return factors, pivots.astype(np.int32), permutation(pivots, x.shape[0])


def permutation(pivots, size):
    """The permutations that LAPACK's exchanges of rows make."""
    if pivots.ndim > 1:
        rows = [permutation(p, size) for p in pivots.reshape(-1, pivots.shape[-1])]
        return np.reshape(rows, (*pivots.shape[:-1], size))
    order = np.arange(size, dtype=np.int32)
    for i, j in enumerate(pivots):
        order[[i, j]] = order[[j, i]]
    return order


def qr(x, full):
    """Q and R."""
    return np.linalg.qr(x, "complete" if full else "reduced")


def triangle(x):
    """R of a QR decomposition."""
    return np.linalg.qr(x, "r")
