"""Intervals and profiles of every parameter, by name, from the likelihood of one fit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from ..design.design import Design
from ..models.fitted import FittedModel
from ..models.generalized import FittedGeneralizedModel
from ..models.parameters import component_names, natural_names
from ..models.response import family_names
from ..support.arguments import texts, whole_number
from .coefficients import coefficients
from .family_parameters import wald_table
from .generalized_profiles import GeneralizedProfiles
from .profiles import Profiles, Reached, places
from .tails import normal_quantile
from .variances import components, residual_table, structure_table, uncertainty


def wald_intervals(fit: FittedModel, names: list[str], level: float) -> pd.DataFrame:
    """Intervals `lower upper` by the quadratic at the optimum: t for coefficients, on log and z
    scales otherwise.
    """
    if isinstance(fit, FittedGeneralizedModel):
        return wald_table(fit, level).loc[names]
    index = pd.Index(fit.design.columns, dtype=object)
    beta = coefficients(fit).t_table(np.eye(len(index)), level=level).set_axis(index, axis=0)
    known = uncertainty(fit)
    tables = [components(known, level), beta]
    if any(map(natural_names, fit.design.factors)):
        tables.append(structure_table(known, level))
    if fit.design.residual is not None:
        tables.append(residual_table(known, level))
    return pd.concat(tables)[["lower", "upper"]].loc[names]


def _profiles(fit: FittedModel, names: list[str], criterion: str) -> Profiles | GeneralizedProfiles:
    if isinstance(fit, FittedGeneralizedModel):
        if criterion != "ML":
            raise ValueError("generalised models are fitted by maximum likelihood: criterion='ML'")
        fit.model.engine.require("profiles")
        return GeneralizedProfiles(fit, names)
    return Profiles(fit, names, criterion)


def profile_intervals(
    fit: FittedModel, names: list[str], level: float, criterion: str
) -> pd.DataFrame:
    """Intervals `lower upper` where the profiles have risen by the chi-square quantile; see
    `confint` for `attrs`.
    """
    profiles = _profiles(fit, names, criterion)
    lower, upper = profiles.reach(normal_quantile(0.5 + level / 2.0))
    table = pd.DataFrame(
        {"lower": lower.value, "upper": upper.value}, index=pd.Index(names, dtype=object)
    )
    sides = (("lower", lower), ("upper", upper))
    reached = [
        (name, side)
        for side, found in sides
        for name, at in zip(names, found.at_bound, strict=True)
        if at
    ]
    table.attrs |= {"criterion": profiles.criteria, "at_boundary": reached}
    return table


def profile(
    fit: FittedModel,
    parm: str | Iterable[str] | None = None,
    criterion: str = "ML",
    zmax: float = 3.0,
    points: int = 6,
) -> pd.DataFrame:
    """Profiles as a frame `parameter value zeta`: zeta is the signed root of the rise of the
    deviance.

    A straight line of zeta over value means that Wald intervals are right. zmax: the largest
    |zeta|; points: so many on each side of the estimate, fewer where the parameter comes to its
    bound. parm, criterion: as in `confint`.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> fit.profile("Days", points=2).round(2)
      parameter  value  zeta
    0      Days   5.33  -3.0
    1      Days   8.14  -1.5
    2      Days  10.47   0.0
    3      Days  12.79   1.5
    4      Days  15.60   3.0
    """
    whole_number("points", points, 1)
    if not zmax > 0:
        raise ValueError(f"zmax must be positive, not {zmax!r}")
    names = chosen_names(fit.design, parm)
    profiles = _profiles(fit, names, criterion)
    curves = {name: [(value, 0.0)] for name, value in zip(names, profiles.estimates, strict=True)}
    ended: set[tuple[str, int]] = set()
    for z in np.linspace(0.0, zmax, points + 1)[1:]:
        for side, reached in enumerate(profiles.reach(z)):
            _extend(curves, ended, side, reached)
    rows = [(name, *point) for name, curve in curves.items() for point in sorted(curve)]
    table = pd.DataFrame(rows, columns=["parameter", "value", "zeta"])
    table.attrs["criterion"] = profiles.criteria
    return table


def _extend(
    curves: dict[str, list[tuple[float, float]]],
    ended: set[tuple[str, int]],
    side: int,
    reached: Reached,
) -> None:
    """Add one point to each curve that has not come to the bound of its parameter on this side."""
    for (name, curve), *point, at_bound in zip(
        curves.items(), reached.value, reached.zeta, reached.at_bound, strict=True
    ):
        is_new = point[0] not in [value for value, _ in curve]
        if is_new and (name, side) not in ended:
            curve.append((point[0], point[1]))
        if at_bound:
            ended.add((name, side))


def _known(design: Design) -> dict[str, bool]:
    """All parameters by name, and whether each is a coefficient."""
    if design.observed is None:
        return {name: place.kind == "beta" for name, place in places(design).items()}
    structures = [name for f in design.factors for name in natural_names(f)]
    names = [*component_names(design.factors)[:-1], *structures]
    coefficients = dict.fromkeys(design.columns, True)
    return dict.fromkeys(names, False) | coefficients | dict.fromkeys(family_names(design), False)


def chosen_names(design: Design, parm: Any) -> list[str]:
    """The names wanted; "beta_" stands for the coefficients, "theta_" for all others: SDs,
    correlations, sigma or the numbers of a family.
    """
    known = _known(design)
    groups = {
        "beta_": [name for name, is_beta in known.items() if is_beta],
        "theta_": [name for name, is_beta in known.items() if not is_beta],
    }
    wanted = list(known) if parm is None else texts("parm", parm, "sigma")
    for name in wanted:
        if name not in known and name not in groups:
            raise ValueError(
                f"there is no parameter {name!r}; there are {', '.join(map(repr, known))}"
            )
    return list(dict.fromkeys(name for chosen in wanted for name in groups.get(chosen, [chosen])))
