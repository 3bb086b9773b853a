"""Which engine fits a model: the dense core, the sparse one or the iterative one."""

from __future__ import annotations

from ..design.design import Design
from ..numerics.covariance.parameters import has_prior
from ..numerics.crossproducts.layout import FLOPS_PER_PAIR, MATRICES, eliminated_and_core
from ..support.later import Later
from .dense import Dense
from .engine import Engine
from .laplace import Laplace
from .penalised import Penalised
from .sparse import Sparse

iterative = Later(f"{__package__}.iterative")  # brings JAX with it

DENSE_SECONDS, DENSE_BYTES = 1.0, 2e9  # an evaluation of the dense core may take so much
SECONDS_PER_CUBE = 8e-11  # of a core of q columns: factorisation and inverse take so many times q^3
SECONDS_PER_FLOP = 2.5e-11
# An order of sparse elimination is looked for where a level meets at most so many of other factors,
# on average and counted by rows, and all of them so many: that takes up to some seconds.
MOST_MET, MOST_MEETINGS = 16, 5_000_000


def engine_for(design: Design, choice: str) -> Engine:
    """The engine of a design; choice: "auto", "dense", "sparse" or "iterative", as `core=` of
    `fit`.
    """
    if design.observed is not None:
        return (Laplace if design.observed.nodes else Penalised)(design)
    if choice == "sparse":
        return _sparse(design)
    if not wants_iterative(design, choice):
        return Dense(design)
    if choice == "auto" and _is_worth_ordering(design):
        found = Sparse(design)
        if SECONDS_PER_FLOP * found.rounds.flops <= DENSE_SECONDS:
            return found
    return iterative.Iterative(design)


def _sparse(design):
    if reason := _why_not(design):
        raise ValueError(f'core="sparse" {reason}; use core="auto"')
    return Sparse(design)


def _is_worth_ordering(design):
    factors = design.factors
    meetings = len(design.y) * len(factors) * (len(factors) - 1) // 2
    levels = sum(len(f.levels) for f in factors)
    return 2 * meetings <= MOST_MET * levels and meetings <= MOST_MEETINGS


def wants_iterative(design: Design, choice: str) -> bool:
    """Whether a model is too large for the dense core; choice: "auto", "dense" or "iterative"."""
    reason = _why_not(design)
    if choice == "iterative" and reason:
        raise ValueError(f'core="iterative" {reason}; use core="auto"')
    if choice != "auto" or reason:
        return choice == "iterative"
    codes, sizes, levels = zip(
        *((f.codes, f.sizes, len(f.levels)) for f in design.factors), strict=True
    )
    columns, q = eliminated_and_core(codes, sizes, levels)
    rows = len(design.y) * sum(map(sum, sizes))
    # of core columns that meet at a level that is eliminated
    pairs = 0.5 * rows * min(q, rows / columns)
    flops = 2.0 * min(columns * q**2, FLOPS_PER_PAIR * pairs)
    size = 8.0 * (MATRICES * q**2 + min(4.0 * columns * q, 6.0 * pairs))
    return SECONDS_PER_CUBE * q**3 + SECONDS_PER_FLOP * flops > DENSE_SECONDS or size > DENSE_BYTES


def _why_not(design):
    """Why the iterative core does not apply; empty where it does."""
    if design.residual is not None:
        return f"does not know a residual structure, and there is {design.residual}"
    if len(design.factors) == 1:
        return f"is for crossed factors, and {design.factors[0].name!r} is alone"
    if across := [f.name for f in design.factors if f.across is not None]:
        return f"is for levels that do not covary, and those of {across[0]!r} do"
    return "does not know priors" if has_prior([f.block for f in design.factors]) else ""
