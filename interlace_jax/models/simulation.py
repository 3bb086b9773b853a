"""New responses from a fitted model: random effects and residuals drawn anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..design.design import Design
from ..design.grouping import Factor
from ..support.arguments import whole_number
from .fitted import FittedModel
from .residual import draws
from .response import draw


def simulate(fit: FittedModel, nsim: int = 1, seed: Any = None) -> pd.DataFrame:
    """New responses from the fitted model: rows used x nsim, with new random effects and residuals.

    Of generalised models in the form of the response: counts where it was counts, proportions where
    it was those, and for an ordinal response numbers of categories from 0.
    seed: anything `numpy.random.default_rng` takes; the same seed gives the same draws.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.simulate(3, seed=1).head(2).round(1)
           0      1      2
    0  304.8  256.7  256.2
    1  279.1  257.6  309.1
    """
    Y, seen = new_responses(fit, nsim, seed), fit.design.observed
    return pd.DataFrame(Y if seen is None else seen.shown(Y), index=fit.design.index)


def new_responses(fit: FittedModel, nsim: int, seed: Any, conditional: bool = False) -> np.ndarray:
    """What `simulate` draws, as an array (n, nsim) in the form of `Design.y`; conditional: given
    the random effects.
    """
    design, e = fit.design, fit.estimate
    if conditional:
        return _given_effects(fit, nsim, seed)
    if design.observed is None:
        return draw_responses(
            design, e.beta, fit.Lambdas, fit.level_roots, e.theta, fit.sigma, nsim, seed
        )
    whole_number("nsim", nsim, 0)
    rng = np.random.default_rng(seed)
    eta = np.repeat((design.X @ e.beta + design.shift)[:, None], nsim, axis=1)
    for f, Lam, L in zip(design.factors, fit.Lambdas, fit.level_roots, strict=True):
        b = new_effects(f, Lam, L, (nsim,), rng)
        eta += np.einsum("nk,nrk->nr", f.Z, b[f.codes])
    return draw(design, eta, e.gamma, rng)


def _given_effects(fit: FittedModel, nsim: int, seed: Any) -> np.ndarray:
    """Responses (n, nsim) whose random effects are the estimated ones."""
    design, e, rng = fit.design, fit.estimate, np.random.default_rng(seed)
    if design.observed is None:
        return fit.fittedvalues.to_numpy()[:, None] + fit.sigma * draws(
            design, e.theta, (nsim,), rng
        )
    return draw(design, np.repeat(e.eta[:, None], nsim, axis=1), e.gamma, rng)


def draw_responses(
    design: Design,
    beta: np.ndarray,
    Lambdas: list[np.ndarray],
    roots: list[np.ndarray | None],
    theta: np.ndarray,
    sigma: float,
    nsim: int,
    seed: Any,
) -> np.ndarray:
    """Responses (n, nsim) for the rows used, with new random effects and new residuals."""
    whole_number("nsim", nsim, 0)
    rng = np.random.default_rng(seed)
    mean = design.X @ beta + design.shift
    Y = np.repeat(mean[:, None], nsim, axis=1)
    for f, Lam, L in zip(design.factors, Lambdas, roots, strict=True):
        b = sigma * new_effects(f, Lam, L, (nsim,), rng)
        Y += np.einsum("nk,nrk->nr", f.Z, b[f.codes])
    return Y + sigma * draws(design, theta, (nsim,), rng)


def new_effects(
    f: Factor,
    Lam: np.ndarray,
    L: np.ndarray | None,
    size: tuple[int, ...],
    rng: np.random.Generator,
) -> np.ndarray:
    """Random effects (m, *size, k) of a factor, relative to sigma: draws with covariance L L'
    (x) Lam Lam'.
    """
    u = rng.standard_normal((len(f.levels), *size, len(f.columns)))
    return (u if L is None else np.tensordot(L, u, 1)) @ Lam.T
