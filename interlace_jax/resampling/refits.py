"""A design refitted without some of its rows, for many sets of rows as one batch.

Rows left out have weight zero. All refits then share the layout of the design, whole levels may go,
and a level without rows keeps the random effects that nothing is known about: mean zero, and their
own covariance.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..design.design import Design
from ..design.determinacy import is_constant
from ..design.selection import selected
from ..engines.packing import padded_model
from ..many.chunks import WORKING_SET, Failure, chunk_size, filled, unfit_rows
from ..many.designs import chunk_of, parts_of_one_shape
from ..many.lanes import ROUNDS, Lanes, fit_lanes
from ..many.run import are_singular
from ..models.identifiability import NO_RESIDUAL, is_confounded, is_perfect, weighted_size
from ..numerics.crossproducts.layout import Layout, Plan, bucket, power_of_two
from ..numerics.crossproducts.moments import moments
from ..numerics.estimation.estimate import Estimate
from ..runtime import devices
from ..runtime.calls import float64, placed, run_inside
from ..runtime.compilation import jit
from ..runtime.devices import workers
from ..support.later import jax
from ..support.progress import progress_bar

# smallest eigenvalue of Q'Q, Q orthonormal before rows were left out, that needs no closer look
CLEAR = 1e-6


class Rows(NamedTuple):
    """Arguments of `moments` for the lanes of a chunk; only the weights have a lane axis."""

    plan: Plan
    y: np.ndarray
    X: np.ndarray
    Z: list[np.ndarray]
    weights: np.ndarray  # (lanes, n)
    offset: np.ndarray
    K: list[Any]


class Refits(NamedTuple):
    """Refits of a design; all arrays have a leading axis over `places`."""

    places: np.ndarray
    "Which of the sets of rows could be left out."
    estimate: Estimate
    more: Any
    "What `each` made of them."
    singular: np.ndarray
    "Whether each is singular, as `Fit.is_singular` says it."
    failures: list[Failure]


def refit_without(
    design: Design,
    left_out: Sequence[np.ndarray],
    method: str,
    each: Callable[[np.ndarray, Rows, Estimate], Any] = lambda places, rows, estimate: (),
    progress: bool | None = None,
) -> Refits:
    """Fit a design again without each of several sets of rows.

    left_out: per refit positions among the n rows used. method: "REML" or "ML". each: makes arrays
    with a leading lane axis of the places, rows and estimates of a chunk, repeated up to its size.

    A refit is what `fit` gives for the rows that are left, to the last digits that its search
    determines. Where residuals covary each refit has a design of its own, and `each` is not asked:
    see `without`.
    """
    if design.residual is not None:
        return _refits_of_designs(design, left_out, method == "REML")
    model = padded_model(design, bucket)
    size = _lanes_at_once(design, model[0].layout, len(left_out))
    one = functools.partial(_chunk, design, model, left_out, size, method == "REML", each)
    starts = range(0, len(left_out), size)
    show = len(starts) > 1 if progress is None else progress
    bar = progress_bar(len(left_out), "refit", "refitting", show)
    parts = []
    for part in devices.spread(one, starts):
        parts.append(part)
        bar.update(len(part.places) + len(part.failures))
    bar.close()
    failures = [failure for part in parts for failure in part.failures]
    parts = [part for part in parts if len(part.places)]
    if not parts:
        raise ValueError(
            f"none of the {len(left_out)} refits can be made; the first: {failures[0].reason}"
        )
    arrays = [(part.places, part.estimate, part.more, part.singular) for part in parts]
    return Refits(*jax.tree.map(lambda *a: np.concatenate(a), *arrays), failures)


def _lanes_at_once(design: Design, layout: Layout, count: int) -> int:
    """Refits a chunk, a power of two: as many as memory allows, and work for every core."""
    n, p = design.X.shape
    columns = p + sum(f.Z.shape[1] for f in design.factors)
    share = max(ROUNDS.smallest, -(-count // len(workers())))
    most = min(chunk_size(layout, p), max(1, WORKING_SET // (8 * n * columns)))
    return min(max(ROUNDS.smallest, power_of_two(min(share, count))), 1 << int(np.log2(most)))


def _chunk(design, model, left_out, size, reml, each, start) -> Refits:
    """The refits of one chunk."""
    part = left_out[start : start + size]
    used = _rows_used(part, len(design.y))
    y = design.y - design.shift
    reasons = {int(j): _unfit(design, y, used[j]) for j in _doubtful(design, y, used)}
    failures = [Failure(start + j, reason) for j, reason in reasons.items() if reason]
    sound = np.array([j for j in range(len(part)) if not reasons.get(j)], int)
    if not len(sound):
        return Refits(sound, None, None, None, failures)
    found, more, singular, scale = _fitted(
        model, used[sound], size, reml, each, start + filled(sound, size)
    )
    largest = np.where(used[sound], np.abs(y), 0.0).max(1)
    perfect = is_perfect(
        weighted_size(design, largest), scale[: len(sound)], found.sigma[: len(sound)]
    )
    failures += [Failure(start + int(j), NO_RESIDUAL) for j in sound[perfect]]
    kept = np.flatnonzero(~perfect)
    estimate, more, singular = jax.tree.map(lambda a: a[kept], (found, more, singular))
    confounded = is_confounded(design, used[sound[kept]])
    return Refits(start + sound[kept], estimate, more, singular | confounded, failures)


def _rows_used(left_out: Sequence[np.ndarray], n: int) -> np.ndarray:
    """Which of n rows each refit has: (refits, n)."""
    used = np.ones((len(left_out), n), bool)
    for lane, rows in zip(used, left_out, strict=True):
        lane[rows] = False
    return used


def _fitted(model, used: np.ndarray, size: int, reml: bool, each, places: np.ndarray) -> tuple:
    """Estimates, what `each` makes of them, whether they are singular, and scales, of `size` lanes
    as NumPy arrays.

    used (refits, n): rows of each refit; lanes beyond them repeat the first. places (size,): which
    refits they are.
    """
    with float64():
        plan, y, X, Z, weights, offset, K = model
        every = used[filled(np.arange(len(used)), size)]
        padded = np.pad(every, ((0, 0), (0, len(y) - used.shape[1])))
        rows = Rows(plan, y, X, Z, weights * padded, offset, K)
        lanes = Lanes(None, run_inside(_moments, *placed(rows)))
        found = fit_lanes(lanes, reml)
        made = found, each(places, rows, found), are_singular(lanes, found, reml), lanes.each.scale
        return jax.tree.map(np.asarray, made)


def without(design: Design, rows: np.ndarray) -> Design:
    """The design without some of its rows; levels that lose all of theirs stay."""
    used = _rows_used([rows], len(design.y))[0]
    return selected(design, np.flatnonzero(used))


def _refits_of_designs(design: Design, left_out: Sequence[np.ndarray], reml: bool) -> Refits:
    """Refits whose rows are not independent: leaving some out is another covariance matrix, not a
    weight of zero.
    """
    used = _rows_used(left_out, len(design.y))
    y = design.y - design.shift
    reasons = [_unfit(design, y, lane) for lane in used]
    failures = [Failure(place, reason) for place, reason in enumerate(reasons) if reason]
    sound = np.array([place for place, reason in enumerate(reasons) if not reason], int)
    designs = [selected(design, np.flatnonzero(used[place])) for place in sound]
    parts = []
    for part in parts_of_one_shape(designs):
        chunk, found, singular, scale = _estimated(sound[part], [designs[i] for i in part], reml)
        perfect = is_perfect(chunk.size, scale, found.sigma)
        failures += [Failure(int(place), NO_RESIDUAL) for place in chunk.places[perfect]]
        kept = np.flatnonzero(~perfect)
        parts.append(
            (chunk.places[kept], *jax.tree.map(lambda a, kept=kept: a[kept], (found, singular)))
        )
    if not parts:
        raise ValueError(
            f"none of the {len(left_out)} refits can be made; the first: {failures[0].reason}"
        )
    places, estimate, singular = jax.tree.map(lambda *a: np.concatenate(a), *parts)
    return Refits(places, estimate, (), singular | is_confounded(design, used[places]), failures)


def _estimated(places: np.ndarray, designs: list[Design], reml: bool) -> tuple:
    """Models of one shape, their estimates, whether they are singular, and scales."""
    with float64():
        chunk = chunk_of(places, designs)
        found = fit_lanes(chunk.lanes, reml)
        made = found, are_singular(chunk.lanes, found, reml), chunk.lanes.each.scale
        return chunk, *jax.tree.map(lambda a: np.asarray(a)[: len(places)], made)


def _doubtful(design: Design, y: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Lanes of used (lanes, n) that may not determine the model, found for all of them at once."""
    (lanes, _), count = used.shape, used.sum(1)
    Q = np.linalg.qr(design.X)[0]
    gone = np.stack([Q[~lane].T @ Q[~lane] for lane in used])
    doubt = np.linalg.eigvalsh(np.eye(Q.shape[1]) - gone).min(-1, initial=1.0) < CLEAR
    spread = np.where(used, y, -np.inf).max(1) - np.where(used, y, np.inf).min(1)
    doubt |= (count <= Q.shape[1]) | (spread <= CLEAR * np.abs(y).max())
    lane, row = np.nonzero(used)
    for f in design.factors:
        m = len(f.levels)
        levels = np.count_nonzero(
            np.bincount(lane * m + f.codes[row], minlength=lanes * m).reshape(lanes, m), axis=1
        )
        doubt |= (levels < 2) | (levels * max(f.sizes) >= count) & (not f.is_structured)
    return np.flatnonzero(doubt)


def _unfit(design: Design, y: np.ndarray, used: np.ndarray) -> str | None:
    """Why the rows used (n,) do not determine the model."""
    if used.sum() <= design.X.shape[1]:
        return f"{used.sum()} rows that are left are too few"
    if is_constant(y[used]):
        return "the response is constant"
    return unfit_rows(design, used, "that are left")


@jit
def _moments(*rows):
    """Moments of one design with many weights."""
    return jax.vmap(moments, in_axes=(None, None, None, None, 0, None, None))(*rows)
