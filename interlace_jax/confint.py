"""Confidence intervals and profiles of every parameter, by name. Host."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd
from scipy import special

from .compute import run
from .moments import Moments
from .profile import Limit, Question, limits
from .variances import check_level, component_names, component_pairs, components

if TYPE_CHECKING:
    from .result import Fit

METHODS = ("wald", "profile")
CRITERIA = ("ML", "REML")
LANES_NUMBERS = 1 << 24  # float64 numbers that the lanes run at once may keep
_limits = functools.partial(jax.jit, static_argnums=2)(limits)


def confint(
    fit: Fit, method: str = "wald", level: float = 0.95, parm: str | Iterable[str] | None = None, criterion: str = "ML"
) -> pd.DataFrame:
    """See `Fit.confint`."""
    check_level(level)
    names = _chosen(fit, parm)
    if method == "wald":
        return _wald(fit, level).loc[names]
    if method != "profile":
        raise ValueError(f"method must be {' or '.join(map(repr, METHODS))}, not {method!r}")
    z = special.ndtri(0.5 + level / 2.0)
    asked = _Asked(fit, names, criterion)
    lower, upper = asked.at([-z, z])
    table = pd.DataFrame({"lower": lower.value, "upper": upper.value}, index=pd.Index(names, dtype=object))
    sides = (("lower", lower), ("upper", upper))
    reached = [(name, side) for side, found in sides for name, at in zip(names, found.at_bound, strict=True) if at]
    table.attrs |= {"criterion": asked.criteria, "at_boundary": reached}
    return table


def profile(
    fit: Fit, parm: str | Iterable[str] | None = None, criterion: str = "ML", zmax: float = 3.0, points: int = 6
) -> pd.DataFrame:
    """See `Fit.profile`."""
    names = _chosen(fit, parm)
    asked = _Asked(fit, names, criterion)
    steps = np.linspace(0.0, zmax, points + 1)[1:]
    found = [(n, c, 0.0) for n, c in zip(names, asked.estimates, strict=True)]
    for z in steps:
        for side in asked.at([-z, z]):
            found += [(n, v, s) for n, v, s, b in zip(names, side.value, side.zeta, side.at_bound, strict=True)]
    table = pd.DataFrame(found, columns=["parameter", "value", "zeta"]).drop_duplicates()
    order = {n: i for i, n in enumerate(names)}
    table = table.sort_values(["parameter", "value"], key=lambda c: c.map(order) if c.name == "parameter" else c)
    table.attrs["criterion"] = asked.criteria
    return table.reset_index(drop=True)


def _chosen(fit: Fit, parm: Any) -> list[str]:
    """The names wanted: all by default; "beta_" stands for the coefficients, "theta_" for SDs, correlations, sigma."""
    theta, beta = component_names(fit.model.design.factors), list(fit.model.design.columns)
    wanted = [parm] if isinstance(parm, str) else theta_order(fit) + ["sigma"] + beta if parm is None else list(parm)
    names = []
    for name in wanted:
        group = {"beta_": beta, "theta_": theta_order(fit) + ["sigma"]}.get(name, [name])
        if group == [name] and name not in theta + beta:
            raise ValueError(f"there is no parameter {name!r}; there are {', '.join(map(repr, theta + beta))}")
        names += group
    return names


def theta_order(fit: Fit) -> list[str]:
    """Names of SDs and correlations in the order of theta, as lme4 lists them."""
    names = []
    for f in fit.model.design.factors:
        pairs = sorted(component_pairs(f.sizes))
        names += [f"sd_{f.columns[i]}|{f.name}" if i == j else f"cor_{f.columns[j]}.{f.columns[i]}|{f.name}" for i, j in pairs]
    return names


def _wald(fit: Fit, level: float) -> pd.DataFrame:
    beta = fit.coefficients().t_table(np.eye(len(fit.fe_params)), level=level)
    beta = beta[["lower", "upper"]].set_axis(pd.Index(fit.fe_params.index, dtype=object), axis=0)
    return pd.concat([components(fit.uncertainty, level)[["lower", "upper"]], beta])


# Profiles ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Answer:
    value: np.ndarray
    zeta: np.ndarray
    at_bound: np.ndarray


class _Asked:
    """The questions about the named parameters of a fit, at any targets; keeps the last answers as starts."""

    def __init__(self, fit: Fit, names: list[str], criterion: str):
        if criterion not in CRITERIA:
            raise ValueError(f"criterion must be 'ML' or 'REML', not {criterion!r}")
        self.fit, self.names, self.m = fit, names, fit.model.moments
        fits = {method: _fitted(fit, method) for method in {criterion, "ML"}}
        columns = list(fit.model.design.columns)
        self.criteria = {n: "ML" if n in columns else criterion for n in names}
        self.centres = {key: _Centre(f) for key, f in fits.items()}
        self.questions = [self.centres[self.criteria[n]].question(n) for n in names]
        self.last: dict[int, tuple[float, Limit]] = {}

    @property
    def estimates(self) -> np.ndarray:
        return self._user(np.array([q.centre for q in self.questions]))

    def at(self, targets: list[float]) -> list[_Answer]:
        """The values at which the signed roots reach each target."""
        asked = [self._aimed(i, z) for z in targets for i in range(len(self.names))]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *asked)
        found = run(_limits, stacked, self.m, self._lanes(len(asked)))
        if not found.found.all():
            stuck = sorted({self.names[i % len(self.names)] for i in np.flatnonzero(~found.found)})
            warnings.warn(f"the profile of {', '.join(stuck)} did not reach its target; its limits are approximate", stacklevel=4)
        parts = [jax.tree.map(lambda v, k=k: v[k :: 1][: len(self.names)], found) for k in range(0, len(asked), len(self.names))]
        for z, part in zip(targets, parts, strict=True):
            self.last[int(np.sign(z))] = (z, part)
        return [_Answer(self._user(p.c), p.zeta, p.at_bound) for p in parts]

    def _aimed(self, i, z):
        q = self.questions[i]
        bound = q.bound[0 if z < 0 else 1]
        first, y = abs(z), q.y
        if int(np.sign(z)) in self.last:
            before, found = self.last[int(np.sign(z))]
            first, y = abs(found.y[i, -1]) * z / before, found.y[i]
        return q._replace(bound=bound, z=np.float64(z), first=np.float64(first), y=y)

    def _lanes(self, asked):
        each = sum(a.size for a in jax.tree.leaves((self.m.G, self.m.B, self.m.E, self.m.ZX, self.m.XX)))
        return int(np.clip(LANES_NUMBERS // max(4 * each, 1), 1, asked))

    def _user(self, c):
        """Coordinates as the parameters themselves."""
        values = []
        for name, value in zip(self.names, c, strict=True):
            column = self.fit.fe_params.index.get_indexer([name])[0]
            if column >= 0:
                values.append(self.m.beta0[column] + self.m.scale * value)
            else:
                values.append(np.exp(value) if name == "sigma" else np.sin(value) if name.startswith("cor_") else value)
        return np.array(values)


def _fitted(fit: Fit, method: str) -> Fit:
    """The same model by another method."""
    if fit.method == method:
        return fit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit.model.fit(method, df_method="normal")


class _Centre:
    """Questions about one optimum; `bound` is a pair and `z` open until a target is chosen."""

    def __init__(self, fit: Fit):
        self.fit, self.m, e = fit, fit.model.moments, fit.estimate
        self.table = components(fit.uncertainty)
        self.y = np.concatenate([e.t, [np.log(e.sigma), 0.0]])
        d = len(e.t)
        H = np.zeros((d + 2, d + 2))
        H[:-1, :-1] = 0.5 * fit.curvature.W
        scale = np.diag(H)[:-1]
        typical = np.median(scale[scale > 0.0])
        H[np.arange(d + 1), np.arange(d + 1)] = np.where(scale > 0.0, scale, typical)
        self.H = H

    def question(self, name: str) -> Question:
        m, layout = self.m, self.m.layout
        rows = {"i": [np.zeros(b.k) for b in layout.blocks], "j": [np.zeros(b.k) for b in layout.blocks]}
        a, centre, bound = np.zeros(m.p), 0.0, (np.inf, np.inf)
        kind, place = self._locate(name)
        if kind == "beta":
            a = np.linalg.solve(m.R.T, np.eye(m.p)[place])
            centre = (self.fit.estimate.beta[place] - m.beta0[place]) / m.scale
            unit = np.sqrt(self.fit.estimate.vcov[place, place]) / m.scale
        else:
            estimate, se = self.table.loc[name, ["estimate", "se"]]
            if kind == "sigma":
                centre, unit = np.log(estimate), se / estimate
            else:
                g, i, j = place
                rows["j"][layout.order[g]][j] = 1.0
            if kind == "sd":
                centre, bound = estimate, (estimate, np.inf)
                unit = se if np.isfinite(se) else 0.1 * self._unit(g, j)
            if kind == "cor":
                rows["i"][layout.order[g]][i] = 1.0
                centre = np.arcsin(np.clip(np.nan_to_num(estimate), -1.0, 1.0))
                bound = (centre + np.pi / 2, np.pi / 2 - centre)
                unit = min(se / np.cos(centre), 0.4) if np.isfinite(se) else 0.4
        return Question(
            tuple(rows["i"]),
            tuple(rows["j"]),
            np.bool_(kind == "cor"),
            np.bool_(kind == "sigma"),
            a,
            np.bool_(self.fit.method == "REML"),
            np.float64(centre),
            np.float64(unit),
            np.float64(self.fit.deviance),
            tuple(np.float64(b / unit) for b in bound),
            np.float64(0.0),
            np.float64(1.0),
            self.y,
            self.H,
        )

    def _locate(self, name):
        columns = list(self.fit.model.design.columns)
        if name in columns:
            return "beta", columns.index(name)
        if name == "sigma":
            return "sigma", None
        for g, f in enumerate(self.fit.model.design.factors):
            for i, j in component_pairs(f.sizes):
                known = f"sd_{f.columns[i]}|{f.name}" if i == j else f"cor_{f.columns[j]}.{f.columns[i]}|{f.name}"
                if known == name:
                    return ("sd" if i == j else "cor"), (g, i, j)
        raise AssertionError(name)

    def _unit(self, g, j):
        """An SD of column j of factor g that adds sigma^2 to the variance of a typical row."""
        A = self.m.A[self.m.layout.order[g]]
        return self.fit.sigma / np.sqrt((A.T @ A)[j, j])
