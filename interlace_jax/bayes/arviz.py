"""Draws with names, as ArviZ takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..resampling.bootstrap import Bootstrap


def to_arviz(
    samples: Mapping[str, Any] | Bootstrap,
    effects: Mapping[str, Any] | None = None,
    *,
    levels: Mapping[str, Any] | None = None,
    columns: Mapping[str, Any] | None = None,
    observed: Any = None,
    log_likelihood: Mapping[str, Any] | None = None,
    chains: int = 1,
) -> dict[str, Any]:
    """The arguments of `arviz.from_dict` for draws of a mixed model, with factors and levels named.

    samples: by parameter draws, with the draws first, those of the chains one after another; or
    `fit.bootstrap(...)`, whose estimates are then the draws. effects: by factor draws of its
    effects, [draws, levels, k]. levels: by factor the labels of its levels, as `Encoder.levels` or
    `fit.random_effects[factor].index` has them; columns: by factor the names of its k columns.
    observed: responses, Float[n]. chains: how many there are.

    log_likelihood: by name draws of pointwise values. Say in the name what they are of: by row,
    `Normal(loc + Zb, sigma).log_prob(y)`, they are conditional on the effects, and loo and waic
    judge new rows of known groups; by group, marginal, new groups.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> from interlace_jax.bayes.arviz import to_arviz
    >>> boot = fit.bootstrap(50, seed=1, progress=False)
    >>> sorted(to_arviz(boot))
    ['coords', 'dims', 'posterior']
    """
    if isinstance(samples, Bootstrap):
        estimates = samples.estimates
        samples = {name: estimates[name].to_numpy() for name in estimates}
    named = {f"b_{name}": values for name, values in (effects or {}).items()}
    dims = {f"b_{name}": [name, f"{name}_effect"] for name in effects or {}}
    coords = {name: list(labels) for name, labels in (levels or {}).items()}
    coords |= {f"{name}_effect": list(labels) for name, labels in (columns or {}).items()}
    found = dict(
        posterior={
            name: _by_chain(values, chains) for name, values in {**samples, **named}.items()
        },
        dims=dims,
        coords=coords,
    )
    if observed is not None:
        found["observed_data"] = {"y": np.asarray(observed)}
    if log_likelihood is not None:
        found["log_likelihood"] = {
            name: _by_chain(values, chains) for name, values in log_likelihood.items()
        }
    return found


def _by_chain(values, chains):
    values = np.asarray(values)
    if len(values) % chains:
        raise ValueError(f"{len(values)} draws are no whole number for each of {chains} chains")
    return values.reshape(chains, -1, *values.shape[1:])
