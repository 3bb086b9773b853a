"""Linear hypotheses about the coefficients of many fits: t and F tests of every model at once."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..inference.coefficients import (
    RANK,
    SAME,
    Coefficients,
    SatterthwaiteCoefficients,
)
from ..inference.contrasts import Hypothesis, check_rows, contrast_matrix
from ..inference.tails import t_pvalue, t_quantile
from ..many.curvature import LaneCurvatures
from ..many.fits import ManyFits, false_discovery, with_labels
from ..many.kenward_roger import kenward_roger_coefficients
from ..numerics.uncertainty.curvature import Curvature
from ..support.arguments import check_level, chosen, one_of
from ..support.later import special

ADJUSTMENTS = ("none", "bh", "by")
KENWARD_ROGER = "kenward-roger"
RULES = ("satterthwaite", KENWARD_ROGER, "normal")


class TTests(NamedTuple):
    """Tests of q contrasts by t in every model; arrays (models, q), NaN where a model lacks a
    coefficient.
    """

    estimate: np.ndarray
    se: np.ndarray
    df: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    t: np.ndarray
    p: np.ndarray


class FTests(NamedTuple):
    """A joint test in every model; arrays (models,), NaN where a model does not determine it."""

    F: np.ndarray
    num_df: int
    den_df: np.ndarray
    p: np.ndarray


def test(
    many: ManyFits,
    hypothesis: Hypothesis,
    joint: bool = True,
    *,
    level: float = 0.95,
    adjust: str = "none",
    wide: bool = False,
    ddf: str | None = None,
) -> pd.DataFrame | dict[str, pd.DataFrame]:
    """Test linear hypotheses about the coefficients in every model.

    Parameters
    ----------
    hypothesis
        Text such as `"condition = 0"`, `"a = b"` or `"2 * a - b = 1"`, several joined by commas or
        in a list; a mapping name -> weight; or weights (p,) or (r, p) on `coefficients`.
    joint
        Several rows make one F test; False gives a t test each.
    level
        Of the intervals.
    adjust
        `"bh"` or `"by"` adds `p_adjusted`, adjusted over the models for each hypothesis (false
        discovery rate).
    wide
        True gives frames models x hypotheses by the name of the column, as maps need them.
    ddf
        "satterthwaite", "kenward-roger" or "normal"; by default the `df_method` of the fits.
        Kenward and Roger's (1997, Biometrics 53) is for few subjects: it adjusts standard errors
        too, and takes its time with many models.

    Returns
    -------
    DataFrame
        A row for each model and hypothesis: the label of the model, `hypothesis`, and `estimate se
        df lower upper t p`, or `F num_df den_df p` of a joint test. `.query("model == 'Cz'")` has
        the rows of `many["Cz"].test(...)`. Satterthwaite's degrees of freedom of F are those of Fai
        & Cornelius (1996, J. Stat. Comput. Simul. 54); those of "normal" are infinite. Numbers are
        missing where a model was not fitted, or has no such coefficient.

    Raises
    ------
    ValueError, TypeError
        For a hypothesis that cannot be read, that is empty or says nothing, or whose rows
        contradict each other; for Kenward and Roger's rule of fits by ML, of generalised models, of
        residuals that covary and of covariances that are not linear in their parameters.

    Examples
    --------
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> formula = "Reaction ~ Days + (1 + Days | Subject)"
    >>> responses = interlace_jax.fit(formula, sleep).simulate(4, seed=1).add_prefix("y")
    >>> many = interlace_jax.fit_many("~ Days + (1 + Days | Subject)", sleep, responses=responses)
    >>> many.test("Days = 10").round(2)
      model hypothesis  estimate    se    df  lower  upper     t     p
    0    y0  Days = 10     10.93  1.53  17.0   7.70  14.16  0.61  0.55
    1    y1  Days = 10      9.54  1.36  17.0   6.67  12.42 -0.33  0.74
    2    y2  Days = 10     10.22  1.35  17.0   7.38  13.06  0.16  0.87
    3    y3  Days = 10      9.00  0.98  17.0   6.94  11.07 -1.02  0.32
    """
    check_level(level)
    one_of("adjust", adjust, ADJUSTMENTS)
    L, rhs, labels = contrast_matrix(hypothesis, many.coefficients)
    check_rows(L, rhs, labels, joint and len(L) > 1)
    if joint and len(L) > 1:
        found = f_tests(many, L, rhs, ddf)
        names = [", ".join(labels)]
        columns = {
            name: np.broadcast_to(a, len(many))[:, None] for name, a in found._asdict().items()
        }
    else:
        names, columns = labels, t_tests(many, L, rhs, level, ddf)._asdict()
    if adjust != "none":
        adjusted = pd.DataFrame(columns["p"]).apply(lambda p: false_discovery(p, adjust))
        columns = columns | {"p_adjusted": adjusted.to_numpy()}
    return (
        wide_tables(many, names, columns)
        if wide
        else long_table(many, {"hypothesis": names}, columns)
    )


def wide_tables(
    many: ManyFits, names: list[str], columns: dict[str, np.ndarray]
) -> dict[str, pd.DataFrame]:
    """Frames models x names from arrays (models, q)."""
    return {column: pd.DataFrame(values, many.labels, names) for column, values in columns.items()}


def long_table(
    many: ManyFits, keys: dict[str, list[Any]], columns: dict[str, np.ndarray]
) -> pd.DataFrame:
    """A row for each model and key: labels of models, keys (q entries each), and arrays (models,
    q).
    """
    q = len(next(iter(keys.values())))
    repeated = {name: np.tile(np.array(values, object), len(many)) for name, values in keys.items()}
    flat = {name: np.asarray(values).ravel() for name, values in columns.items()}
    table = pd.DataFrame(repeated).infer_objects().assign(**flat)
    return with_labels(table, many.labels.repeat(q))


def t_tests(
    many: ManyFits, L: np.ndarray, rhs: Any = 0.0, level: float = 0.95, ddf: str | None = None
) -> TTests:
    """Test each row of L beta = rhs in every model; L (q, p) on the coefficients of all."""
    variances, df = _variances_and_df(many, L, rule_of(many, ddf))
    estimate, se = _combined(many, L), np.sqrt(variances)
    half = t_quantile(0.5 + level / 2.0, df) * se
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (estimate - rhs) / se
    return TTests(estimate, se, df, estimate - half, estimate + half, t, t_pvalue(t, df))


def rule_of(many: ManyFits, ddf: str | None) -> str:
    """The rule for degrees of freedom that is asked for, or that of the fits."""
    return many.df_method if ddf is None else chosen("ddf", ddf, RULES)


def _variances_and_df(many: ManyFits, L: np.ndarray, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Of every row of L (q, p) in every model: (models, q)."""
    if rule == KENWARD_ROGER:
        return _by_kenward_roger(many, L)

    def of_lanes(lanes: LaneCurvatures) -> tuple[np.ndarray, np.ndarray]:
        return lanes.variances(L), lanes.degrees_of_freedom(L)

    variances, df = many.over_curvatures(of_lanes)
    return variances, np.where(np.isnan(variances), np.nan, np.inf) if rule == "normal" else df


def _by_kenward_roger(many: ManyFits, L: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    variances, df = np.full((2, len(many), len(L)), np.nan)
    for place, alone in enumerate(kenward_roger_coefficients(many)):
        if alone is None:
            continue
        own, there = _on_own(many, alone, L)
        variances[place, there] = np.einsum("rp,pq,rq->r", own, alone.vcov, own)
        df[place, there] = alone.df(own)
    return variances, df


def _on_own(many: ManyFits, alone: Coefficients, L: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of L (q, p) that a model has the coefficients of, on these; and which they are."""
    at = [many.coefficients.index(name) for name in alone.names]
    there = ~np.delete(L, at, axis=1).any(1)
    return L[there][:, at], there


def _combined(many: ManyFits, L: np.ndarray) -> np.ndarray:
    """L beta (models, q), NaN where a model lacks a coefficient of a combination."""
    beta = many.fe_params.to_numpy()
    lacking = np.any((L != 0.0)[None] & np.isnan(beta)[:, None], axis=-1)
    return np.where(lacking, np.nan, np.nan_to_num(beta) @ L.T)


def f_tests(many: ManyFits, L: np.ndarray, rhs: Any = 0.0, ddf: str | None = None) -> FTests:
    """Joint tests of L beta = rhs in every model; L (q, p) on the coefficients of all.

    The rank of L is that of the hypothesis, the same for all models, so that their F are
    comparable; a model whose rows determine fewer combinations has none.
    """
    q = _rank(many, L)
    if q == 0:
        none = np.full(len(many), np.nan)
        return FTests(none, 0, none, none)
    rule = rule_of(many, ddf)
    if rule == KENWARD_ROGER:
        F, df = _f_by_kenward_roger(many, L, rhs, q)
        return FTests(F, q, df, f_pvalues(F, q, df))
    beta = many.fe_params.to_numpy()

    def of_lanes(lanes: LaneCurvatures) -> tuple[np.ndarray, np.ndarray]:
        return _f_of_lanes(lanes, np.nan_to_num(beta[lanes.places]), L, rhs, q)

    F, df = many.over_curvatures(of_lanes)
    if rule == "normal":
        df = np.where(np.isnan(F), np.nan, np.inf)
    return FTests(F, q, df, f_pvalues(F, q, df))


def _f_by_kenward_roger(
    many: ManyFits, L: np.ndarray, rhs: Any, q: int
) -> tuple[np.ndarray, np.ndarray]:
    """F and its denominator df (models,); none where a model determines fewer than q rows."""
    F, df = np.full((2, len(many)), np.nan)
    for place, alone in enumerate(kenward_roger_coefficients(many)):
        if alone is None:
            continue
        own, there = _on_own(many, alone, L)
        if there.all():
            found = alone.f_test(own, rhs)
            if found.num_df == q:
                F[place], df[place] = found.F, found.den_df
    return F, df


def _rank(many: ManyFits, L: np.ndarray) -> int:
    """How many independent combinations of coefficients L (r, p) has, seen in the units of the
    predictors.
    """
    if not len(L):
        return 0
    sizes = np.ones(L.shape[1])
    for _, design in reversed(many.work.named):
        at = [many.coefficients.index(name) for name in design.columns]
        sizes[at] = np.linalg.norm(design.X, axis=0)
    standardised = L / sizes
    lengths = np.linalg.norm(standardised, axis=1, keepdims=True)
    return int(
        np.linalg.matrix_rank(
            standardised / np.where(lengths > 0.0, lengths, 1.0), tol=np.sqrt(RANK)
        )
    )


def _f_of_lanes(
    lanes: LaneCurvatures, beta: np.ndarray, L: np.ndarray, rhs: Any, q: int
) -> tuple[np.ndarray, np.ndarray]:
    """F and its denominator df (lanes,), from q independent t statistics of each lane (Fai &
    Cornelius 1996).
    """
    S = L @ lanes.vcov @ L.T
    values, rows = _components(S, q)
    combinations = rows @ L
    difference = np.einsum("lqr,lr->lq", rows, beta @ L.T - rhs)
    with np.errstate(divide="ignore", invalid="ignore"):
        F = np.mean(difference**2 / values, axis=1)
        slopes = (
            np.einsum("lqp,lkps,lqs->lkq", combinations, lanes.along, combinations)
            / values[:, None]
        )
        nu = 2.0 / np.sum(slopes**2, axis=1)
    known = ~np.isnan(lanes.variances(L)).any(1) & np.isfinite(values).all(1)
    return np.where(known, F, np.nan), np.where(known, _joint_df(nu), np.nan)


def _components(S: np.ndarray, q: int) -> tuple[np.ndarray, np.ndarray]:
    """Variances (lanes, q) and rows (lanes, q, r) of independent combinations of r statistics of
    covariances S.

    Principal components of S, or of the correlations where S has fewer than these that count, as in
    a single test. NaN where there are fewer than q.
    """
    sd = np.sqrt(np.einsum("lrr->lr", S))
    sd = np.where(sd > 0.0, sd, 1.0)
    values, vectors = np.linalg.eigh(S)
    scaled_values, scaled_vectors = np.linalg.eigh(S / (sd[:, :, None] * sd[:, None]))
    counted, scaled_counted = (
        np.sum(v > RANK * v[:, -1:], axis=1) for v in (values, scaled_values)
    )
    take_scaled = (scaled_counted > counted)[:, None]
    rows = np.where(take_scaled[..., None], scaled_vectors.mT / sd[:, None], vectors.mT)
    values = np.where(take_scaled, scaled_values, values)
    is_enough = np.where(take_scaled[:, 0], scaled_counted, counted) >= q
    return np.where(is_enough[:, None], values[:, -q:], np.nan), rows[:, -q:]


def _joint_df(nu: np.ndarray) -> np.ndarray:
    """2 E / (E - q), E = sum nu / (nu - 2), of the df (lanes, q) of independent t statistics
    (lmerTest's rules).
    """
    q = nu.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        E = np.sum(nu / (nu - 2.0), axis=1)
        df = 2.0 * E / (E - q)
        is_one = np.ptp(nu, axis=1) < SAME  # not of infinite ones
    df = np.where((nu <= 2.0).any(1), 2.0, df)
    return np.where(is_one, nu.mean(1), df)


def f_pvalues(F: np.ndarray, q: int, df: np.ndarray) -> np.ndarray:
    """Upper tails of F(q, df); of chi-square(q) / q where df is infinite."""
    infinite = np.isinf(df)
    return np.where(
        infinite, special.chdtrc(q, q * F), special.fdtrc(q, np.where(infinite, 1.0, df), F)
    )


def lane_coefficients(many: ManyFits, ddf: str | None = None) -> list[Coefficients | None]:
    """Every model's coefficients with its rule for degrees of freedom, as a single fit has them;
    None without a fit.
    """
    rule = rule_of(many, ddf)
    if rule == KENWARD_ROGER:
        return list(kenward_roger_coefficients(many))
    found: list[Coefficients | None] = [None] * len(many)
    beta, names = many.fe_params.to_numpy(), np.array(many.coefficients, object)

    def keep(lanes: LaneCurvatures) -> tuple[np.ndarray]:
        for i, place in enumerate(lanes.places):
            at = np.flatnonzero(lanes.present[i])
            vcov, along = lanes.vcov[i][np.ix_(at, at)], lanes.along[i][:, at[:, None], at]
            facts = tuple(names[at]), beta[place, at], vcov
            if rule == "normal":
                found[place] = Coefficients(*facts)
            else:
                found[place] = SatterthwaiteCoefficients(
                    *facts, functools.partial(Curvature, vcov, along, np.eye(len(along)))
                )
        return (lanes.places,)

    many.over_curvatures(keep)
    return found
