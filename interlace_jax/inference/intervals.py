"""Confidence intervals of every parameter, by name: Wald, profile and bootstrap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import special

from ..design.design import Design
from ..models.parameters import natural_names
from ..support.arguments import check_level, one_of, texts, whole_number
from .profiles import Profiles, places
from .variances import components, structure

if TYPE_CHECKING:
    from ..result import Fit


METHODS = ("wald", "profile", "boot")


def confint(
    fit: Fit,
    method: str = "wald",
    level: float = 0.95,
    parm: str | Iterable[str] | None = None,
    criterion: str = "ML",
    nsim: int = 1000,
    seed: Any = None,
) -> pd.DataFrame:
    """See `Fit.confint`."""
    check_level(level)
    one_of("method", method, METHODS)
    names = _chosen(fit.model.design, parm)
    if method == "wald":
        return _wald(fit, level).loc[names]
    if method == "boot":
        return fit.bootstrap(nsim, seed).confint(level).loc[names]
    z = special.ndtri(0.5 + level / 2.0)
    profiles = Profiles(fit, names, criterion)
    lower, upper = profiles.reach(z)
    table = pd.DataFrame({"lower": lower.value, "upper": upper.value}, index=pd.Index(names, dtype=object))
    sides = (("lower", lower), ("upper", upper))
    reached = [(name, side) for side, found in sides for name, at in zip(names, found.at_bound, strict=True) if at]
    table.attrs |= {"criterion": profiles.criteria, "at_boundary": reached}
    return table


def profile(
    fit: Fit, parm: str | Iterable[str] | None = None, criterion: str = "ML", zmax: float = 3.0, points: int = 6
) -> pd.DataFrame:
    """See `Fit.profile`."""
    whole_number("points", points, 1)
    if not zmax > 0:
        raise ValueError(f"zmax must be positive, not {zmax!r}")
    names = _chosen(fit.model.design, parm)
    profiles = Profiles(fit, names, criterion)
    curves = {name: [(value, 0.0)] for name, value in zip(names, profiles.estimates, strict=True)}
    for z in np.linspace(0.0, zmax, points + 1)[1:]:
        for side in profiles.reach(z):
            for name, *point in zip(names, side.value, side.zeta, strict=True):
                curves[name].append(tuple(point))
    rows = [(name, *point) for name, curve in curves.items() for point in sorted(set(curve))]
    table = pd.DataFrame(rows, columns=["parameter", "value", "zeta"])
    table.attrs["criterion"] = profiles.criteria
    return table


def _wald(fit: Fit, level: float) -> pd.DataFrame:
    names = pd.Index(fit.model.design.columns, dtype=object)
    beta = fit.coefficients().t_table(np.eye(len(names)), level=level).set_axis(names, axis=0)
    tables = [components(fit.uncertainty, level), beta]
    if any(map(natural_names, fit.model.design.factors)):
        tables.append(structure(fit.uncertainty, level))
    return pd.concat(tables)[["lower", "upper"]]


def _chosen(design: Design, parm: Any) -> list[str]:
    """The names wanted; "beta_" stands for the coefficients, "theta_" for SDs, correlations and sigma."""
    known = places(design)
    groups = {
        "beta_": [name for name, place in known.items() if place.kind == "beta"],
        "theta_": [name for name, place in known.items() if place.kind != "beta"],
    }
    wanted = list(known) if parm is None else texts("parm", parm, "sigma")
    for name in wanted:
        if name not in known and name not in groups:
            raise ValueError(f"there is no parameter {name!r}; there are {', '.join(map(repr, known))}")
    return list(dict.fromkeys(name for chosen in wanted for name in groups.get(chosen, [chosen])))
