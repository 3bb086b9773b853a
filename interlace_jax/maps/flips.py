"""Sign flips of subjects' scores: the distribution of a map of statistics without an effect, one
product a batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..support.later import special

BATCH = 2**22  # numbers of statistics that are held at a time


def signs(subjects: int, n: int, seed: int | None) -> tuple[np.ndarray, bool]:
    """Signs (flips, subjects), the first row all 1: all 2^subjects of them if that is no more than
    n + 1, else n drawn.

    Also says whether they are all.
    """
    if subjects < 32 and 2**subjects <= n + 1:
        numbers = np.arange(2**subjects)
        bits = (numbers[:, None] >> np.arange(subjects)[None]) & 1
        return 1.0 - 2.0 * bits, True
    drawn = np.random.default_rng(seed).choice([-1.0, 1.0], (n, subjects))
    return np.vstack([np.ones(subjects), drawn]), False


def flip_statistics(u: np.ndarray, signs: np.ndarray) -> Iterator[np.ndarray]:
    """Statistics (flips, models) of scores u (subjects, models) for some flips at a time.

    With T = sum_s f_s u_s and Q = sum_s u_s^2, which no flip changes, T / sqrt((Q - T^2 / S) S / (S
    - 1)): the one-sample t of the flipped scores, studentised by the subjects themselves. Where the
    number S of subjects with rows differs between models, it is turned into the normal quantile of
    the same tail, so that all models are on one scale.
    """
    there = u != 0.0
    S, Q = there.sum(0), np.sum(u**2, axis=0)
    differ = np.ptp(S) > 0
    step = max(1, BATCH // max(u.shape[1], 1))
    for start in range(0, len(signs), step):
        T = signs[start : start + step] @ u
        spread = np.maximum(Q - T**2 / S, np.finfo(float).tiny)
        t = T / np.sqrt(spread * S / (S - 1.0))
        yield normal_scores(t, S - 1.0) if differ else t


def normal_scores(t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Normal quantiles with the tails of t statistics."""
    return -np.sign(t) * special.ndtri(special.stdtr(df, -np.abs(t)))
