"""From the linear predictor to the scale of the response, for the rows of a design or new ones.

Host NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..design.auxiliary import Predictor
from ..design.design import Design
from ..design.grouping import Factor
from ..numerics.crossproducts.layout import bucket
from ..numerics.families import rows as families
from ..numerics.families.family import Distribution, Ordinal
from ..numerics.families.rows import At
from ..runtime.calls import run
from ..runtime.compilation import brief, jit
from .linear_predictor import _of_fit

NODES = 32  # of the quadrature over random effects


def by_parameter(used: Sequence[Predictor], gamma: np.ndarray) -> list[np.ndarray]:
    """Coefficients of the predictor of each parameter of the family."""
    return np.split(gamma, np.cumsum([len(p.columns) for p in used])[:-1]) if used else []


def family_names(design: Design) -> list[str]:
    """Names of all numbers of the family, as `size`; with a predictor one for each column, after a
    colon.
    """
    return [
        p.parameter if p.D is None else f"{p.parameter}:{column}"
        for p in design.predictors
        for column in p.columns
    ]


def free_rows(
    design: Design, gamma: np.ndarray, D: Mapping[str, np.ndarray], n: int
) -> list[np.ndarray]:
    """Parameters of the family on their free scales in n rows, (n,) each.

    D: model matrices by argument.
    """
    found = []
    for used, own in zip(design.predictors, by_parameter(design.predictors, gamma), strict=True):
        found.append(np.full(n, own[0]) if used.D is None else D[used.key] @ own)
    return found


def location(family: Distribution, eta: np.ndarray, free: Sequence[np.ndarray]) -> np.ndarray:
    """Inverse link of eta (n,); of an ordinal response the probabilities (n, categories)."""
    return _by_row(_location, family, eta, free)


def mean(family: Distribution, eta: np.ndarray, free: Sequence[np.ndarray]) -> np.ndarray:
    """Expected response (n,) (of binomial families a proportion); of an ordinal one the
    probabilities.
    """
    return _by_row(_mean, family, eta, free)


def slope(family: Distribution, eta: np.ndarray, free: Sequence[np.ndarray]) -> np.ndarray:
    """Derivative of `mean` by eta."""
    return _by_row(_slope, family, eta, free)


def variance(
    family: Distribution, eta: np.ndarray, free: Sequence[np.ndarray], w: np.ndarray
) -> np.ndarray:
    """Variance of a response (n,), of a proportion where there are trials: w has the weights
    times trials.
    """
    return _by_row(_variance, family, eta, free, w)


def deviance_residuals(family: Distribution, y, w, m, eta, free) -> np.ndarray:
    """Signed roots (n,) of twice what the log-density lacks of that of a row's own best mean."""
    return _by_row(_deviance_residuals, family, eta, free, y, w, m)


def labelled(family: Distribution, values: np.ndarray, index: pd.Index) -> pd.Series | pd.DataFrame:
    """Means (n,) as a Series, probabilities of the categories of an ordinal response as a frame."""
    if values.ndim == 1:
        return pd.Series(values, index=index)
    return pd.DataFrame(values, index=index, columns=list(family.categories))


def derivatives(family: Distribution, y, w, m, eta, free) -> np.ndarray:
    """Scores and observed information of rows (2, n): derivatives of log-densities by eta."""
    return _by_row(_derivatives, family, eta, free, y, w, m).T


def _by_row(function, family, eta, free, *more):
    """A function of rows, which are padded so that similar numbers of them share a program."""
    n = len(eta)
    padded = [np.resize(a, bucket(max(n, 1))) if n else np.ones(1) for a in (eta, *free, *more)]
    parameters = len(free)
    at = At(family, padded[0], tuple(padded[1 : 1 + parameters]))
    return run(function, at, *padded[1 + parameters :])[:n]


_location = brief(jit(families.location_at))
_mean = brief(jit(families.mean_at))
_slope = brief(jit(families.slope_at))
_variance = brief(jit(families.variance_at))
_derivatives = brief(jit(families.derivatives_at))
_log_density = brief(jit(families.log_density_at))
_deviance_residuals = brief(jit(families.deviance_residuals_at))


def natural_parameters(family: Distribution, free: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What `Distribution.simulate` takes: parameters on the scale that they are reported on."""
    return [_BACK.get(p.domain, _expit)(x) for p, x in zip(family.parameters, free, strict=True)]


def _expit(x):
    return 1.0 / (1.0 + np.exp(-x))


_BACK = {"real": lambda x: x, "positive": np.exp}


def random_variances(factors: Sequence[Factor], Lambdas, roots, Z, codes=None) -> np.ndarray:
    """Variance (n,) of z'b in rows of all factors: that of new levels, or of levels that covary
    by their own.
    """
    total = 0.0
    for f, Lam, L, z in zip(factors, Lambdas, roots, Z, strict=True):
        own = np.sum((z @ Lam) ** 2, axis=1)
        if L is not None:
            code = f.codes if codes is None else codes[f.name]
            own = own * np.sum(L**2, axis=1)[code]
        total = total + own
    return total


def averaged(
    family: Distribution, eta: np.ndarray, free: Sequence[np.ndarray], variances: np.ndarray
) -> np.ndarray:
    """Expected response (n,) over random effects that add a normal of these variances (n,) to eta:
    by quadrature.

    Whatever the number of factors, the integral has one dimension: eta depends on them through one
    normal number.
    """
    z, w = np.polynomial.hermite_e.hermegauss(NODES)
    w = w / w.sum()
    shifted = eta[:, None] + np.sqrt(variances)[:, None] * z
    repeated = [np.repeat(a, NODES) for a in free]
    values = mean(family, shifted.ravel(), repeated)
    return np.tensordot(w, values.reshape(len(eta), NODES, *values.shape[1:]), (0, 1))


def averaged_log_density(
    family: Distribution, y, w, m, eta: np.ndarray, free: Sequence[np.ndarray], variances
) -> np.ndarray:
    """Log-density (n,) of responses y over random effects that add a normal of these variances to
    eta: by quadrature, as `averaged`.
    """
    z, share = np.polynomial.hermite_e.hermegauss(NODES)
    shifted = eta[:, None] + np.sqrt(variances)[:, None] * z
    repeated = [np.repeat(a, NODES) for a in (*free, y, w, m)]
    own = len(free)
    values = _by_row(_log_density, family, shifted.ravel(), repeated[:own], *repeated[own:])
    values = values.reshape(len(eta), NODES) + np.log(share / share.sum())
    top = values.max(axis=1)
    return top + np.log(np.exp(values - top[:, None]).sum(axis=1))


def natural_gamma(design: Design, gamma: np.ndarray) -> np.ndarray:
    """Numbers of the family (r,) on their natural scale; coefficients of predictors as they are."""
    family, found = design.observed.family, []
    if isinstance(family, Ordinal):
        return np.cumsum(np.append(gamma[:1], np.exp(gamma[1:])))
    for parameter, used, own in zip(
        family.parameters, design.predictors, by_parameter(design.predictors, gamma), strict=True
    ):
        found.append(own if used.D is not None else _BACK.get(parameter.domain, _expit)(own))
    return np.concatenate(found) if found else gamma


def draw(
    design: Design, eta: np.ndarray, gamma: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Responses (n, r) of linear predictors (n, r) of the rows used; successes where there are
    trials.
    """
    seen, (n, r) = design.observed, eta.shape
    free = [np.repeat(a, r) for a in free_rows(design, gamma, _of_fit(design).D, n)]
    family = seen.family
    mu = location(family, eta.ravel(), free)
    natural = [] if isinstance(family, Ordinal) else natural_parameters(family, free)
    y = family.simulate(rng, mu, natural, np.repeat(design.w, r), np.repeat(np.ones(n) * seen.m, r))
    return y.reshape(n, r)
