"""One response, very many candidate predictors: each tested with the variances of the model without
it.

With R = L L' the covariance of the residuals over sigma^2, W the weights, and all rows times
L^-1 W^1/2, so that they have independent residuals of variance sigma^2: with C = [Z Lambda, X], and
Henderson's H = C'C + diag(I, 0) = T T' of the null model,

    P = V^-1 - V^-1 X (X'V^-1X)^-1 X'V^-1 = I - C H^-1 C'
    b = g'Py,   a = g'g - |T^-1 C'g|^2,   beta = b / a
    sigma^2 = (y'Py - b^2 / a) / (n - p - 1),   se = sigma / sqrt(a)

for a candidate g: matrix products (EMMAX: Kang et al. 2010, Nat. Genet. 42). By ML sigma^2 is over
n.

Degrees of freedom are Satterthwaite's of this se: 2 / Var(log se^2) by the delta method. For given
variance parameters t log sigma^2 has the variance 2 / (n - p - 1), and is independent of their
estimates, whose covariance W_tt is that of the null model. With u = Pg and e = P(y - g beta), the
derivative of log se^2 by t is

    slope = u'dV u / a - e'dV e / y'Py_g,   y'Py_g = y'Py - b^2 / a
    df = 2 / (slope' W_tt slope + 2 / (n - p - 1))

and Z'u, Z'e follow from the products above, without rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import scipy

from ..design.design import Design
from ..design.grouping import Factor
from ..inference.tails import t_pvalue
from ..many.columns import matrix_of_numbers
from ..many.designs import Designs
from ..many.fits import ManyFits
from ..models.fitted import FittedModel
from ..models.residual import whitener
from ..support.arguments import whole_number
from ..support.progress import progress_bar
from .contrasts import t_tests
from .predictor_files import ParquetColumns, is_file
from .variance_slopes import VarianceSlopes

BLOCK = 2000  # candidates that are read and multiplied at a time
COLLINEAR = 1e-9  # part of a column's size below which what the model leaves of it is rounding
CANDIDATE = "candidate"


@dataclass(frozen=True, eq=False)
class Scan:
    """Tests of many candidate predictors of one response, each added alone; made by
    `fit_many(predictors=...)`.
    """

    table: pd.DataFrame
    """A row per candidate: `estimate se df t p`, `status` ("null variances", "exact", or why there
    is no test), and `imputed`, how many missing values have the mean of the others.
    """
    null: FittedModel = field(repr=False)
    "The model without candidates."

    def top(self, n: int = 10) -> pd.DataFrame:
        """The n candidates with the smallest p-values."""
        return self.table.nsmallest(n, "p")

    def __repr__(self) -> str:
        exact = int((self.table["status"] == "exact").sum())
        return (
            f"<scan of {len(self.table)} predictors of {self.null.design.formula}, {exact} fitted "
            "exactly>"
        )


def scan(null: FittedModel, predictors: Any, exact: int = 0, progress: bool | None = None) -> Scan:
    """Test each of many predictors, added to a fitted model one at a time.

    null: the fit without them. predictors: an array (rows of the data, candidates), a memory map,
    a frame, or the path of a Parquet file or a pyarrow dataset (needs pyarrow), whose columns are
    read some at a time and give their names; a missing value gets the mean of its column.
    exact: so many of the candidates with the smallest p-values are fitted anew, with variances of
    their own.

    All other tests have the variances of the null model, so that strong effects, whose variance is
    a part of what that model estimates, get a p-value that is too large rather than too small.
    Degrees of freedom are Satterthwaite's, of every candidate: those of the exact ones by their own
    variances, of all others by the variances, and their covariance, of the null model.

    Raises ValueError, TypeError for predictors that are no numbers, or have other rows than the
    data.
    """
    whole_number("exact", exact, 0)
    G, labels = _matrix(predictors)
    rows = null.design.rows
    if len(G) != len(null.model.data):
        raise ValueError(f"predictors has {len(G)} rows, but the data have {len(null.model.data)}")
    products = _Products.of(null)
    starts = range(0, len(labels), BLOCK)
    bar = progress_bar(
        len(labels), "predictor", "scanning", len(starts) > 1 if progress is None else progress
    )
    parts = []
    for start in starts:
        part, imputed = _filled(np.asarray(G[:, start : start + BLOCK], float)[rows])
        parts.append(pd.DataFrame(products.tests(part)).assign(imputed=imputed))
        bar.update(part.shape[1])
    bar.close()
    table = pd.concat(parts, ignore_index=True)
    if exact:
        _refit(null, table, G, table["p"].nsmallest(exact).index.to_numpy())
    return Scan(table.set_axis(labels), null)


def _matrix(predictors: Any) -> tuple[Any, pd.Index]:
    """Candidates as something with columns to slice, and their labels."""
    if is_file(predictors):
        G = ParquetColumns(predictors)
        return G, pd.Index(G.names, name="predictor")
    if hasattr(predictors, "columns"):
        return matrix_of_numbers(predictors.to_numpy(), "predictors"), pd.Index(
            predictors.columns, name="predictor"
        )
    G = matrix_of_numbers(predictors, "predictors")
    return G, pd.RangeIndex(G.shape[1], name="predictor")


def _filled(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns with their means for missing values, and how many there were."""
    missing = np.isnan(part)
    counts = missing.sum(0)
    if counts.any():
        known = len(part) - counts
        means = np.where(missing, 0.0, part).sum(0) / np.where(known > 0, known, 1)
        part = np.where(missing, means, part)
    return part, counts


@dataclass(frozen=True, eq=False)
class _Products:
    """What every candidate needs of the null model."""

    half: Any
    "(n, n) L^-1 W^1/2, sparse."
    base: Any
    "(n, q + p) [Z, X] times half, sparse where levels do not covary: Z times a root across levels."
    Lambda: Any
    "(q + p, q + p) sparse, with C = base Lambda."
    root: np.ndarray
    "(q + p, q + p) lower triangular T."
    cross: np.ndarray
    "(q, q + p) Z'C."
    Py: np.ndarray
    ZPy: np.ndarray
    "(q,) Z'Py."
    yPy: float
    degrees: float
    "n - p - 1, or n by ML."
    slopes: VarianceSlopes | None
    "None in a model without variance parameters beside sigma."
    W: np.ndarray
    "(d, d) covariance of the variance parameters, sigma aside."

    @classmethod
    def of(cls, null: FittedModel) -> _Products:
        d = null.design
        (n, p), half = d.X.shape, whitener(d, null.theta)
        parts = [_effects(f, L) for f, L in zip(d.factors, null.level_roots, strict=True)]
        base = half @ scipy.sparse.hstack([*parts, scipy.sparse.csr_array(d.X)], format="csr")
        q = base.shape[1] - p
        Lambdas = [
            scipy.sparse.kron(scipy.sparse.eye_array(len(f.levels)), Lam)
            for f, Lam in zip(d.factors, null.Lambdas, strict=True)
        ]
        Lambda = scipy.sparse.block_diag([*Lambdas, scipy.sparse.eye_array(p)], format="csr")
        cross = (base.T @ base @ Lambda).toarray()
        H = Lambda.T @ cross
        H[np.arange(q), np.arange(q)] += 1.0
        root = np.linalg.cholesky(H)
        y = half @ (d.y - d.shift)
        Py = y - base @ (Lambda @ scipy.linalg.cho_solve((root, True), Lambda.T @ (base.T @ y)))
        ZPy = (base.T @ Py)[:q]
        degrees = n - p - 1.0 if null.method == "REML" else float(n)
        slopes = VarianceSlopes.of(null) if len(null.theta) else None
        W = null.curvature.W[:-1, :-1]
        sizes = float(y @ Py), degrees
        return cls(half, base, Lambda, root, cross[:q], Py, ZPy, *sizes, slopes, W)

    def tests(self, G: np.ndarray) -> dict[str, Any]:
        """Estimates and tests of candidates G (n, r)."""
        whitened = self.half @ G
        size = np.einsum("nr,nr->r", whitened, whitened)
        by_effect = self.base.T @ whitened
        inside = scipy.linalg.solve_triangular(self.root, self.Lambda.T @ by_effect, lower=True)
        a = size - np.einsum("kr,kr->r", inside, inside)
        is_new = a > COLLINEAR * size
        a = np.where(is_new, a, np.nan)
        b = whitened.T @ self.Py
        estimate = b / a
        left = self.yPy - b * estimate
        se = np.sqrt(left / self.degrees / a)
        df = self._df(whitened, by_effect, inside, a, estimate, left)
        t = estimate / se
        status = np.where(is_new, "null variances", "depends linearly on the fixed effects")
        return dict(estimate=estimate, se=se, df=df, t=t, p=t_pvalue(t, df), status=status)

    def _df(
        self,
        whitened: np.ndarray,
        by_effect: np.ndarray,
        inside: np.ndarray,
        a: np.ndarray,
        estimate: np.ndarray,
        left: np.ndarray,
    ) -> np.ndarray:
        """Satterthwaite's degrees of freedom (r,), from what the tests have."""
        if self.slopes is None:
            return np.where(np.isnan(a), np.nan, self.degrees)
        modes = scipy.linalg.solve_triangular(self.root, inside, lower=True, trans="T")
        z = by_effect[: len(self.cross)] - self.cross @ modes
        z_left = self.ZPy[:, None] - z * estimate
        u, u_left = None, None
        if self.slopes.residual:
            u = whitened - self.base @ (self.Lambda @ modes)
            u_left = self.Py[:, None] - u * estimate
        slope = self.slopes.forms(z, u) / a - self.slopes.forms(z_left, u_left) / left
        return 2.0 / (np.einsum("dr,de,er->r", slope, self.W, slope) + 2.0 / self.degrees)


def _effects(f: Factor, L: np.ndarray | None) -> Any:
    """Z (n, m k) of a factor, times the root L (m, m) of levels that covary."""
    n, k = f.Z.shape
    columns = f.codes[:, None] * k + np.arange(k)
    Z = scipy.sparse.csr_array(
        (f.Z.ravel(), columns.ravel(), np.arange(0, n * k + 1, k)), shape=(n, len(f.levels) * k)
    )
    return Z if L is None else scipy.sparse.csr_array(Z @ scipy.sparse.kron(L, np.eye(k)))


class _WithCandidate(Designs):
    """The model of a fit with one candidate more, for each of several."""

    def __init__(self, null: FittedModel, candidates: np.ndarray):
        self.null, self.candidates = null, candidates
        super().__init__(
            null.design.formula, pd.RangeIndex(candidates.shape[1]), null.model.arguments
        )

    def make(self, place: int) -> Design:
        """The design with a candidate as its last column."""
        d = self.null.design
        X = np.column_stack([d.X, self.candidates[:, place]])
        return replace(
            d, X=X, columns=(*d.columns, CANDIDATE), kept=np.arange(X.shape[1]), specs=None
        )


def _refit(null: FittedModel, table: pd.DataFrame, G: Any, at: np.ndarray) -> None:
    """Put the tests of exact fits into rows of the table."""
    at = at[table["p"].to_numpy()[at] >= 0.0]  # those that have a test
    if not len(at):
        return
    candidates, _ = _filled(
        np.column_stack([np.asarray(G[:, j], float) for j in at])[null.design.rows]
    )
    work = _WithCandidate(null, candidates)

    def single(place: int) -> FittedModel:
        return null.refitted(work.designs[place])

    many = ManyFits.of(work, null.method, "satterthwaite", single, progress=False)
    is_candidate = np.array(many.coefficients) == CANDIDATE
    found = t_tests(many, is_candidate[None].astype(float))
    for name in ("estimate", "se", "df", "t", "p"):
        table.loc[at, name] = getattr(found, name)[:, 0]
    table.loc[at, "status"] = np.where(many.converged, "exact", many.status.astype(str))
