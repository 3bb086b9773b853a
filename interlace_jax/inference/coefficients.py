"""Fixed effects with a rule for degrees of freedom: t and F tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..models.fitted import DF_METHODS, FittedModel, check_kenward_roger_of, subjects_of
from ..numerics.uncertainty.curvature import Curvature, degrees_of_freedom
from ..numerics.uncertainty.kenward_roger import Adjusted, f_approximation, kenward_roger
from ..numerics.uncertainty.kenward_roger_2009 import kenward_roger_2009
from ..runtime.calls import run
from ..runtime.compilation import jit, light
from ..support.arguments import chosen
from ..support.wide import WideFrame
from .contrasts import Hypothesis, check_rows, contrast_matrix
from .tails import f_pvalue, t_pvalue, t_quantile

# eigenvalues of a hypothesis's covariance below this part of the largest are redundant rows
RANK = 1e-8
SAME = 1e-8  # degrees of freedom that differ by less are equal (lmerTest)

_kenward_roger = jit(kenward_roger)
_kenward_roger_2009 = light(jit(kenward_roger_2009))


class FTest(NamedTuple):
    """Outcome of a joint test; Kenward and Roger multiply Wald's F by `scale`."""

    F: float
    num_df: int
    den_df: float
    p: float
    scale: float


@dataclass(frozen=True, eq=False, repr=False)
class Coefficients:
    """Fixed effects with their covariance, and the rule for degrees of freedom as subclasses
    define it.
    """

    names: tuple[str, ...]
    beta: np.ndarray
    "(p,)"
    vcov: np.ndarray
    "(p, p)"

    def __repr__(self) -> str:
        return repr(self.t_table(np.eye(len(self.names))).set_axis(list(self.names)))

    def df(self, L: np.ndarray) -> np.ndarray:
        """Degrees of freedom (r,) of the t statistics of L beta; L (r, p)."""
        return np.full(len(L), np.inf)

    def scale_and_df(self, L: np.ndarray) -> tuple[float, float]:
        """Factor of the Wald F statistic of L beta = 0, and its denominator df; L (q, p) of full
        row rank.
        """
        return 1.0, np.inf

    def t_table(
        self, L: np.ndarray, rhs: Any = 0.0, level: float = 0.95, shift: float = 0.0
    ) -> pd.DataFrame:
        """Estimate, SE, df, interval, t and p of every row of L beta - rhs = 0 (shift: added to
        the estimates).
        """
        estimate, se, df = (
            L @ self.beta + shift,
            np.sqrt(np.einsum("rp,pq,rq->r", L, self.vcov, L)),
            self.df(L),
        )
        half, t = t_quantile(0.5 + level / 2.0, df) * se, _ratio(estimate - rhs, se)
        limits = dict(lower=estimate - half, upper=estimate + half)
        return WideFrame(dict(estimate=estimate, se=se, df=df, **limits, t=t, p=t_pvalue(t, df)))

    def f_test(self, L: np.ndarray, rhs: Any = 0.0) -> FTest:
        """Joint test of L beta = rhs; redundant rows do not count."""
        variances, combinations = independent(L @ self.vcov @ L.T)
        q = len(variances)
        if q == 0:
            return FTest(np.nan, 0, np.nan, np.nan, 1.0)
        difference = combinations @ (L @ self.beta - rhs)
        scale, df = self.scale_and_df(combinations @ L)
        F = scale * float(np.sum(difference**2 / variances)) / q
        return FTest(F, q, df, f_pvalue(F, q, df), scale)


def independent(S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances (q,) and rows (q, r) of independent combinations of r statistics of covariance S,
    largest last.

    They are principal components of S, as lmerTest has them, or of the correlations where the
    statistics differ so much in size that the small ones would pass for redundant.
    """
    sd = np.sqrt(np.diag(S))
    sd = np.where(sd > 0.0, sd, 1.0)
    plain, scaled = _components(S), _components(S / np.outer(sd, sd))
    return (scaled[0], scaled[1] / sd) if len(scaled[0]) > len(plain[0]) else plain


def _components(S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (q,) of S that are not 0, and their eigenvectors (q, r)."""
    values, vectors = np.linalg.eigh(S)
    used = values > RANK * max(values.max(initial=0.0), 0.0)
    return values[used], vectors[:, used].T


@dataclass(frozen=True, eq=False, repr=False)
class SatterthwaiteCoefficients(Coefficients):
    """Satterthwaite's rule (lmerTest's)."""

    curvature: Callable[[], Curvature]  # made when degrees of freedom are asked for

    def df(self, L: np.ndarray) -> np.ndarray:
        """Giesbrecht & Burns (1985)."""
        return degrees_of_freedom(L, self.curvature())

    def scale_and_df(self, L: np.ndarray) -> tuple[float, float]:
        """Fai & Cornelius (1996): 2 E / (E - q), E = sum nu / (nu - 2), the nu of independent t
        statistics.
        """
        nu = self.df(L)
        if np.ptp(nu) < SAME:
            return 1.0, float(nu.mean())
        if (nu <= 2.0).any():
            return 1.0, 2.0
        E = np.sum(nu / (nu - 2.0))
        return 1.0, float(2.0 * E / (E - len(nu)))


@dataclass(frozen=True, eq=False, repr=False)
class KenwardRogerCoefficients(Coefficients):
    """Kenward and Roger's rule; `vcov` is the adjusted covariance."""

    adjusted: Adjusted

    def df(self, L: np.ndarray) -> np.ndarray:
        """Kenward and Roger's, those of F tests with one numerator degree of freedom."""
        return np.array([f_approximation(row[None], self.adjusted)[0] for row in L])

    def scale_and_df(self, L: np.ndarray) -> tuple[float, float]:
        """Kenward & Roger (1997)."""
        df, scale = f_approximation(L, self.adjusted)
        return float(scale), float(df)


@dataclass(frozen=True, eq=False, repr=False)
class BetweenWithinCoefficients(Coefficients):
    """Degrees of freedom by what a column varies over, as if the design were balanced (Schluchter &
    Elashoff 1990).

    A column that varies within some subject has n - N - p_within, one that does not N - p_between
    less one for the intercept, which itself counts as within; a contrast has the least of those of
    its columns. As in mmrm; SAS differs.
    """

    by_column: np.ndarray
    "(p,)"

    def df(self, L: np.ndarray) -> np.ndarray:
        """The least of the columns of every row of L (r, p)."""
        return np.where(L != 0.0, self.by_column[None], np.inf).min(1)

    def scale_and_df(self, L: np.ndarray) -> tuple[float, float]:
        """The least of the columns involved; rounding of independent combinations does not
        involve one.
        """
        used = np.abs(L) > RANK * np.abs(L).max()
        return 1.0, float(self.by_column[used.any(0)].min())


def between_within(X: np.ndarray, names: Sequence[str], subject: np.ndarray) -> np.ndarray:
    """Degrees of freedom (p,) of the columns X (n, p), given the subject (n,) of every row."""
    first = np.unique(subject, return_index=True)[1]
    within = (X != X[first[subject]]).any(0)
    intercept = np.array([name == "Intercept" for name in names])
    n, N = len(X), len(first)
    of_within = n - N - np.count_nonzero(within)
    of_between = N - np.count_nonzero(~within)
    return np.where(within | intercept, of_within, of_between).astype(float)


def _ratio(a, b):
    with np.errstate(divide="ignore", invalid="ignore"):
        return a / b


def wald_test(
    coefficients: Coefficients, hypothesis: Hypothesis, joint: bool = True, level: float = 0.95
) -> pd.DataFrame:
    """Test linear hypotheses about coefficients, as `test` does for those of a fit."""
    L, rhs, labels = contrast_matrix(hypothesis, coefficients.names)
    check_rows(L, rhs, labels, joint)
    if joint and len(L) > 1:
        outcome = coefficients.f_test(L, rhs)._asdict()
        del outcome["scale"]
        return pd.DataFrame(outcome, index=[", ".join(labels)])
    return coefficients.t_table(L, rhs, level).set_axis(pd.Index(labels), axis=0)


def test(
    fit: FittedModel,
    hypothesis: Hypothesis,
    joint: bool = True,
    ddf: str | Coefficients | None = None,
) -> pd.DataFrame:
    """Test linear hypotheses about the coefficients.

    hypothesis: text such as "condition = 0", "a = b" or "2 * a - b = 1", several joined by commas
    or in a list; a mapping name -> weight; or weights (p,) or (r, p). One row gives its t test with
    an interval; several the joint F test, or with joint=False a t test each. ddf: "satterthwaite",
    "kenward-roger" or "normal", or the `coefficients` of `fit.robust()`.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.test("Days = 10").round(3)
               estimate     se    df  lower   upper      t      p
    Days = 10    10.467  1.546  17.0  7.206  13.729  0.302  0.766
    """
    return wald_test(coefficients(fit, ddf), hypothesis, joint)


def coefficients(fit: FittedModel, ddf: str | Coefficients | None = None) -> Coefficients:
    """Fixed effects as arrays with a rule for degrees of freedom, by default the `df_method` of the
    fit.

    ddf: "satterthwaite", "kenward-roger" or "normal"; what the rule needs is computed once for a
    fit. Coefficients of this fit, as `fit.robust().coefficients`, are returned as they are.
    """
    if isinstance(ddf, Coefficients):
        if not np.array_equal(ddf.beta, fit.estimate.beta):
            raise ValueError(
                "these coefficients are of another fit: make them of the fit that is tested"
            )
        return ddf
    rule = chosen("ddf", ddf or fit.df_method, DF_METHODS)
    return fit.remembered(("coefficients", rule), lambda: _by_rule(fit, rule))


def _by_rule(fit: FittedModel, rule: str) -> Coefficients:
    names, e, engine = tuple(fit.design.columns), fit.estimate, fit.model.engine
    if rule.startswith("kenward-roger"):
        check_kenward_roger_of(fit.model, fit.method, rule, 'ddf="satterthwaite"')
    if rule == "normal" or not names:
        return Coefficients(names, e.beta, fit.beta_covariance)
    if rule == "between-within":
        df = between_within(fit.design.X, names, subjects_of(fit.design))
        return BetweenWithinCoefficients(names, e.beta, e.vcov, df)
    if rule == "satterthwaite":
        engine.require("satterthwaite")
        return SatterthwaiteCoefficients(names, e.beta, fit.beta_covariance, lambda: fit.curvature)
    if fit.design.residual is not None:
        arguments = (
            e.t,
            np.log(e.sigma),
            fit.curvature.W,
            engine.moments,
            rule == "kenward-roger-linear",
        )
        adjusted = run(_kenward_roger_2009, *arguments)
        return KenwardRogerCoefficients(names, e.beta, adjusted.adjusted, adjusted)
    engine.require("kenward_roger")
    adjusted = run(_kenward_roger, e.t, np.log(e.sigma), engine.moments)
    return KenwardRogerCoefficients(names, e.beta, adjusted.adjusted, adjusted)
