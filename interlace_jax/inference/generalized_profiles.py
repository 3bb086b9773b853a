"""Profile likelihoods of generalised models: all but one quantity re-optimised, at the exact
gradient of the approximated likelihood.

With all parameters x, the quantity c(x) is held at some value and the deviance d minimised: a step
p of sequential quadratic programming solves

    [ B   a ] [ p  ]     [ g             ]
    [ a'  0 ] [ -l ] = - [ c(x) - value  ],   a = dc/dx, g = dd/dx,

with B the Hessian of d at the optimum, updated on the way (Nocedal & Wright 2006, eq. 18.9 and
procedure 18.2). The multiplier l is dd/dc along the profile, so that the value at which d has risen
by z^2 is found by Newton's method in the signed root zeta = sqrt(d - d_min).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..models.generalized import FittedGeneralizedModel
from ..models.parameters import component_name, component_pairs, relative_factors
from ..models.response import family_names, natural_gamma
from ..numerics.families.family import Ordinal
from ..support.arguments import listed
from .family_parameters import thresholds_by_free
from .profiles import Reached

SETTLED = 1e-9  # deviance units that may be left to gain at a value that is held
PRECISE = 1e-7  # of |z|, where the search for a limit ends
CLOSE = 1e-4  # of |z|, within which a limit has been found
MOST_STEPS = 60  # at one value
MOST_VALUES = 40  # tried for one limit
AWAY = 0.1  # diagonals of Lambda that are 0 start here: they are stationary even at a saddle
STRIDE = 0.5  # of |z|, by which zeta may grow from one value to the next on the way out
EDGE = 1e-4  # of an angle, how near to a correlation of 1 it is held
LEAST_CURVATURE = 1e-6  # of the largest, of the Hessian that a search starts with


class Quantity(NamedTuple):
    """What a profile is of: a function c of all parameters w = (theta, beta, gamma)."""

    value: Callable[[np.ndarray], float]
    slope: Callable[[np.ndarray], np.ndarray]
    "(D,)"
    reported: Callable[[float], float]
    "The parameter as tables show it."
    bounds: tuple[float, float]
    none: np.ndarray | None = None
    "Rows of w that are all 0 where a standard deviation is: (k, D)."
    ends: tuple[str, ...] = ()
    "Standard deviations without which a correlation means nothing."


class _Held(NamedTuple):
    """The lowest point at a value that is held."""

    x: np.ndarray
    u: list
    deviance: float
    multiplier: float
    B: np.ndarray


def quantities(fit: FittedGeneralizedModel) -> dict[str, Quantity]:
    """Every parameter by its name, in the order of `confint`; not those of structures."""
    design, size = fit.design, len(fit.joint_covariance)
    found, d, p = {}, len(fit.theta), len(design.columns)
    rows = _rows_of_factors(design.factors, d, size)
    for f, own in zip(design.factors, rows, strict=True):
        if f.block.is_pattern:
            for j, i in sorted(component_pairs(f.sizes)):
                found[component_name(f, j, i)] = (
                    _deviation(own[i])
                    if i == j
                    else _angle(own[j], own[i], [component_name(f, k, k) for k in (j, i)])
                )
    for j, name in enumerate(design.columns):
        found[name] = _coordinate(d + j, size)
    for j, name in enumerate(family_names(design)):
        found[name] = _number(design, j, d + p, size)
    return found


def _rows_of_factors(factors, d: int, size: int) -> list[np.ndarray]:
    """By factor (k, k, size): what w is multiplied by to give the rows of Lambda."""
    parts = [relative_factors(factors, unit) for unit in np.eye(d)]
    found = []
    for g in range(len(factors)):
        along = np.stack([part[g] for part in parts], axis=-1)
        found.append(np.concatenate([along, np.zeros((*along.shape[:2], size - d))], axis=-1))
    return found


def _coordinate(place: int, size: int) -> Quantity:
    unit = np.eye(size)[place]
    return Quantity(lambda w: w[place], lambda w: unit, float, (-np.inf, np.inf))


def _number(design, j: int, start: int, size: int) -> Quantity:
    """A number of the family: on its free scale, a threshold as it is."""
    if isinstance(design.observed.family, Ordinal):

        def slope(w):
            found = np.zeros(size)
            found[start:] = thresholds_by_free(w[start:])[j]
            return found

        def threshold(w):
            return float(w[start] + np.exp(w[start + 1 : start + 1 + j]).sum())

        return Quantity(threshold, slope, float, (-np.inf, np.inf))

    def reported(c):
        return float(natural_gamma(design, np.full(size - start, c))[j])

    return _coordinate(start + j, size)._replace(reported=reported)


def _deviation(row: np.ndarray) -> Quantity:
    """The standard deviation of an effect whose row of Lambda is row (k, size) times w."""
    used = row[np.abs(row).any(axis=1)]

    def value(w):
        return float(np.linalg.norm(used @ w))

    def slope(w):
        entries = used @ w
        return used.T @ (entries / np.linalg.norm(entries))

    if len(used) == 1:  # with its sign, so that it has a derivative at 0
        return Quantity(lambda w: float(used[0] @ w), lambda w: used[0], float, (0, np.inf), used)
    return Quantity(value, slope, float, (0.0, np.inf), used)


def _angle(first: np.ndarray, second: np.ndarray, ends: list[str]) -> Quantity:
    """The arc sine of the correlation of two effects."""

    def correlation(w):
        a, b = first @ w, second @ w
        return a, b, (a @ b) / np.sqrt((a @ a) * (b @ b))

    def slope(w):
        a, b, r = correlation(w)
        size = np.sqrt((a @ a) * (b @ b))
        by_a, by_b = b / size - r * a / (a @ a), a / size - r * b / (b @ b)
        return (first.T @ by_a + second.T @ by_b) / np.sqrt(max(1.0 - r * r, 1e-16))

    edge = np.pi / 2 * (1.0 - EDGE)
    value = lambda w: float(np.arcsin(np.clip(correlation(w)[2], -1.0, 1.0)))  # noqa: E731
    return Quantity(value, slope, lambda c: float(np.sin(c)), (-edge, edge), ends=tuple(ends))


class GeneralizedProfiles:
    """The profiles of the named parameters of a fit."""

    def __init__(self, fit: FittedGeneralizedModel, names: list[str]):
        known = quantities(fit)
        if lost := [name for name in names if name not in known]:
            raise ValueError(
                "there are no profiles of the parameters of covariance structures: "
                f'{listed(lost)}; use method="wald" or "boot", or choose others by parm'
            )
        self.fit, self.names, self.known = fit, list(names), known
        self.criteria = dict.fromkeys(names, "ML")
        e = fit.estimate
        self.x0, self.w0 = np.concatenate(e.x), np.concatenate([e.theta, e.beta, e.gamma])
        self.B = _definite(fit.model.engine.joint_hessian(e))
        self.last: dict[tuple[str, float], tuple[float, float, _Held]] = {}
        self.none: dict[str, float] = {}

    @property
    def estimates(self) -> np.ndarray:
        """Where the profiles are lowest."""
        return np.array([self.known[n].reported(self.known[n].value(self.w0)) for n in self.names])

    def reach(self, z: float) -> list[Reached]:
        """The points at which the signed roots are -z and z."""
        found, lost = [], []
        for side in (-1.0, 1.0):
            points = [self._limit(name, side, z) for name in self.names]
            lost += [n for n, (*_, done) in zip(self.names, points, strict=True) if not done]
            values, zetas, at_bound, _ = zip(*points, strict=True)
            found.append(Reached(np.array(values), side * np.array(zetas), np.array(at_bound)))
        if lost:
            warnings.warn(
                f"the profile of {', '.join(dict.fromkeys(lost))} did not reach its target; the "
                "limit is approximate",
                stacklevel=5,
            )
        return found

    def _limit(self, name: str, side: float, z: float) -> tuple[float, float, bool, bool]:
        """Value, |zeta|, whether it is a bound, and whether the search ended."""
        q = self.known[name]
        if (free := min((self._zeta_without(end) for end in q.ends), default=np.inf)) < z:
            return side, free, True, True
        centre, unit = q.value(self.w0), self._unit(q)
        bound = abs((q.bounds[int(side > 0)] - centre) / unit)
        start = _Held(self.x0, self.fit.estimate.u, self.fit.deviance, 0.0, self.B)
        s, inside, outside, held = z, 0.0, np.inf, start
        if (name, side) in self.last:
            before, inside, held = self.last[name, side]
            s = inside * z / before
        s = min(s, bound)
        for _ in range(MOST_VALUES):
            there = self.lowest(q, centre + side * s * unit, held)
            zeta = np.sqrt(max(there.deviance - self.fit.deviance, 0.0))
            slope = side * there.multiplier * unit / (2.0 * max(zeta, 1e-12))
            if zeta < z:
                inside, held = s, there
            else:
                outside = s
            if abs(zeta - z) <= PRECISE * z or zeta < z and s >= bound:
                break
            s = min(_next(s, zeta, slope, inside, outside, z), bound)
        at_bound = bool(zeta < z * (1.0 - CLOSE) and s >= bound)
        if not at_bound:
            self.last[name, side] = z, s, there
        edge = side if q.ends else q.reported(q.bounds[int(side > 0)]) if at_bound else np.nan
        value = edge if at_bound else q.reported(centre + side * s * unit)
        return value, zeta, at_bound, at_bound or abs(zeta - z) <= CLOSE * z

    def _unit(self, q: Quantity) -> float:
        """About a standard error of a quantity, by the curvature at the optimum."""
        if q.none is not None and not np.any(q.none @ self.w0):
            a = self.fit.estimate.jacobian.T @ q.none[-1]
        else:
            a = self.fit.estimate.jacobian.T @ q.slope(self.w0)
        unit = float(np.sqrt(2.0 * a @ np.linalg.solve(self.B, a)))
        return min(unit, 0.4) if q.ends else unit

    def _zeta_without(self, name: str) -> float:
        """The signed root at which a standard deviation is 0."""
        if name not in self.none:
            start = _Held(self.x0, self.fit.estimate.u, self.fit.deviance, 0.0, self.B)
            there = self.lowest(self.known[name], 0.0, start)
            self.none[name] = np.sqrt(max(there.deviance - self.fit.deviance, 0.0))
        return self.none[name]

    def lowest(self, q: Quantity, value: float, start: _Held) -> _Held:
        """The lowest point at which the quantity has a value, searched from another point."""
        J, evaluate = self.fit.estimate.jacobian, self.fit.model.engine.evaluate
        is_none = q.none is not None and value == 0.0

        def lack(x):
            w = self.w0 + J @ (x - self.x0)
            return q.none @ w if is_none else np.array([q.value(w) - value])

        def slopes(x):
            w = self.w0 + J @ (x - self.x0)
            return q.none @ J if is_none else (q.slope(w) @ J)[None]

        x, B = self._off_saddles(start.x), start.B
        f, g, u = evaluate(self.fit.estimate, x, start.u)
        C, a = lack(x), slopes(x)
        penalty, multiplier = 0.0, np.zeros(len(C))
        for _ in range(MOST_STEPS):
            p, multiplier = _step(B, g, a, C)
            left = -(g @ p) + multiplier @ C
            if abs(left) + np.abs(multiplier) @ np.abs(C) < SETTLED:
                break
            penalty = max(penalty, 2.0 * np.abs(multiplier).max())
            merit, drop = f + penalty * np.abs(C).sum(), g @ p - penalty * np.abs(C).sum()
            length = 1.0
            while True:
                new = x + length * p
                f_new, g_new, u_new = evaluate(self.fit.estimate, new, u)
                C_new = lack(new)
                there = f_new + penalty * np.abs(C_new).sum()
                if there <= merit + 1e-4 * length * drop + 1e-10 * abs(f) or length < 1e-8:
                    break
                length *= 0.5
            if length < 1e-8 or not np.isfinite(f_new):
                break
            a_new = slopes(new)
            change = (g_new - multiplier @ a_new) - (g - multiplier @ a)
            B = _updated(B, new - x, change)
            x, f, g, u, C, a = new, f_new, g_new, u_new, C_new, a_new
        return _Held(x, u, f, float(multiplier[0]), B)

    def _off_saddles(self, x: np.ndarray) -> np.ndarray:
        """Coordinates with AWAY in place of entries of columns of Lambda that are 0."""
        x = x.copy()
        zero = self.fit.estimate.zero
        x[: len(zero)] = np.where(zero & (np.abs(x[: len(zero)]) < 1e-8), AWAY, x[: len(zero)])
        return x


def deviance_without_effects(fit: FittedGeneralizedModel) -> float:
    """The deviance of the model without any random effects, all else re-optimised."""
    profiles, d = GeneralizedProfiles(fit, []), len(fit.theta)
    rows = np.eye(len(profiles.w0))[:d]
    none = Quantity(lambda w: 0.0, lambda w: rows[0], float, (0.0, 0.0), rows)
    start = _Held(profiles.x0, fit.estimate.u, fit.deviance, 0.0, profiles.B)
    return profiles.lowest(none, 0.0, start).deviance


def _step(B, g, a, C) -> tuple[np.ndarray, np.ndarray]:
    """The step p and the multipliers of the quadratic programme with the constraints a p = -C."""
    solved = np.linalg.solve(B, np.column_stack([g, a.T]))
    Bg, Ba = solved[:, 0], solved[:, 1:]
    multiplier = np.linalg.solve(a @ Ba, a @ Bg - C)
    return Ba @ multiplier - Bg, multiplier


def _updated(B, dx, change):
    """Damped BFGS update, which keeps B positive definite."""
    Bd = B @ dx
    curvature, wanted = dx @ Bd, dx @ change
    if curvature <= 0.0:
        return B
    share = 1.0 if wanted >= 0.2 * curvature else 0.8 * curvature / (curvature - wanted)
    change = share * change + (1.0 - share) * Bd
    return B - np.outer(Bd, Bd) / curvature + np.outer(change, change) / (dx @ change)


def _definite(H: np.ndarray) -> np.ndarray:
    """A Hessian with the curvature that a search needs in every direction."""
    values, vectors = np.linalg.eigh(H)
    values = np.maximum(np.abs(values), LEAST_CURVATURE * np.abs(values).max())
    return (vectors * values) @ vectors.T


def _next(s, zeta, slope, inside, outside, z) -> float:
    """The |u| to try after s: outward in strides, then by Newton's method inside the bracket."""
    if np.isinf(outside):
        step = min(z - zeta, STRIDE * z) / slope if slope > 0.0 else s
        return s + min(step, s)
    newton = s + (z - zeta) / slope if slope > 0.0 else np.nan
    return newton if inside < newton < outside else 0.5 * (inside + outside)
