"""Profile likelihoods of every parameter, by name, and the limits read off them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..design.design import Design
from ..models.fitted import FittedModel
from ..models.parameters import component_name, component_pairs, natural_names
from ..models.residual import residual_values
from ..numerics.covariance.parameters import has_prior
from ..numerics.uncertainty.profile_limits import STRIDE, Limit, Question, limits
from ..runtime.calls import run
from ..runtime.compilation import jit
from ..support.arguments import listed
from ..support.later import jax
from .residual_coordinates import Coordinate, in_order, residual_coordinates
from .variances import components, residual_table, uncertainty

CRITERIA = ("ML", "REML")
LANES_NUMBERS = 1 << 24  # float64 numbers that the lanes run at once may keep
TYPICAL = 0.4  # first step for a correlation without standard error, in radians
_limits = jit(limits)


class Place(NamedTuple):
    """What a parameter is, and where."""

    kind: str  # "sd", "cor", "structure", "residual", "sigma" or "beta"
    factor: int = 0
    i: int = 0  # row of Lambda; the coefficient of "beta"
    j: int = 0  # row that a correlation is with; i of an "sd"
    coordinate: Coordinate | None = None  # of "residual"


def places(design: Design) -> dict[str, Place]:
    """Every parameter by its name, as lme4 orders them: SDs and correlations as in theta, sigma,
    coefficients.
    """
    found = {}
    for g, f in enumerate(design.factors):
        for j, i in sorted(component_pairs(f.sizes)):
            found[component_name(f, j, i)] = Place("sd" if i == j else "cor", g, i, j)
        found |= {name: Place("structure", g) for name in natural_names(f)}
    if design.residual is not None:
        found |= {
            name: _residual_place(name, at)
            for name, at in residual_coordinates(design.residual).items()
        }
    return (
        found
        | {"sigma": Place("sigma")}
        | {name: Place("beta", i=i) for i, name in enumerate(design.columns)}
    )


def _residual_place(name: str, at: Coordinate | None) -> Place:
    """An SD that is sigma is as good as that."""
    return Place("sigma") if at is not None and at.at < 0 else Place("residual", coordinate=at)


def _check_profiles(design: Design, names: Iterable[str], known: dict[str, Place]) -> None:
    """Refuse profiles that are not defined, or not of one coordinate."""
    others = 'use method="wald" or "boot"'
    if has_prior([f.block for f in design.factors]):
        raise ValueError(
            f"a profile is of the likelihood alone, but these estimates have a prior too: {others}"
        )
    tied = {g for g, f in enumerate(design.factors) if not f.block.is_pattern}
    of_factors = [
        (name, known[name]) for name in names if known[name].kind in ("sd", "cor", "structure")
    ]
    if refused := [
        name for name, place in of_factors if place.kind == "structure" or place.factor in tied
    ]:
        raise ValueError(
            "there are no profiles of the parameters of covariance structures: "
            f"{listed(refused)}; {others}, or choose others by parm"
        )
    of_residuals = [name for name in names if known[name] == Place("residual")]
    if of_residuals:
        raise ValueError(
            f"there are no profiles of {listed(of_residuals)}, numbers of a structure of your "
            f"own: {others}, or choose others by parm"
        )


def _ends(place: Place) -> list[Place]:
    """The SDs of the two effects of a correlation."""
    return [Place("sd", place.factor, i, i) for i in (place.i, place.j)]


@dataclass(frozen=True)
class Reached:
    """Where the profiles of some parameters reach one target: arrays, one entry a parameter."""

    value: np.ndarray
    zeta: np.ndarray
    at_bound: np.ndarray


def _stacked(questions: list[Question]) -> Question:
    """Many questions as one, with a leading axis."""
    fields = zip(*questions, strict=True)
    stacked = (
        tuple(map(np.stack, zip(*f, strict=True))) if isinstance(f[0], tuple) else np.stack(f)
        for f in fields
    )
    return Question(*stacked)


class Profiles:
    """The profiles of the named parameters of a fit.

    The last points found on each side are the next starts.
    """

    def __init__(self, fit: FittedModel, names: list[str], criterion: str):
        if criterion not in CRITERIA:
            raise ValueError(f"criterion must be 'ML' or 'REML', not {criterion!r}")
        fit.model.engine.require("profiles")
        known, self.design = places(fit.design), fit.design
        _check_profiles(fit.design, names, known)
        self.m, self.wanted = fit.model.engine.products, len(names)
        sds = {place: name for name, place in known.items() if place.kind == "sd"}
        ends = [
            sds[end] for name in names if known[name].kind == "cor" for end in _ends(known[name])
        ]
        self.names = list(dict.fromkeys([*names, *ends]))
        self.places = [known[name] for name in self.names]
        criteria = {name: "ML" if known[name].kind == "beta" else criterion for name in self.names}
        centres = {method: _Centre(fit.by(method)) for method in set(criteria.values())}
        self.criteria = {name: criteria[name] for name in names}
        self.questions = [
            centres[criteria[name]].question(name, known[name]) for name in self.names
        ]
        self.last: dict[float, tuple[float, Limit]] = {}

    @property
    def estimates(self) -> np.ndarray:
        """Where the profiles are lowest."""
        return self._values([question.centre for question, _ in self.questions])[: self.wanted]

    def reach(self, z: float) -> list[Reached]:
        """The points at which the signed roots are -z and z."""
        count, sides = len(self.places), (-1.0, 1.0)
        asked = [self._aimed(i, side * z) for side in sides for i in range(count)]
        found = self._answered(asked)
        parts = [Limit(*(a[start : start + count] for a in found)) for start in (0, count)]
        for side, part in zip(sides, parts, strict=True):
            self._warn(part)
            self.last[side] = z, part
        free = np.array([self._free(place, parts[0]) for place in self.places])
        return [self._reached(side, part, free) for side, part in zip(sides, parts, strict=True)]

    def _free(self, place: Place, lower: Limit) -> float:
        """|zeta| at which a correlation may be anything, as one of its SDs is 0; infinite if
        that is out of reach.
        """
        ends = [self.places.index(end) for end in _ends(place)] if place.kind == "cor" else []
        return min((abs(lower.zeta[end]) for end in ends if lower.at_bound[end]), default=np.inf)

    def _reached(self, side: float, part: Limit, free: np.ndarray) -> Reached:
        none = part.at_bound & np.array([place.kind == "sd" for place in self.places])
        beyond = np.abs(part.zeta) > free
        value = np.where(beyond, side, np.where(none, 0.0, self._values(part.c)))
        found = value, np.where(beyond, side * free, part.zeta), part.at_bound | beyond
        return Reached(*(a[: self.wanted] for a in found))

    def _aimed(self, i: int, z: float) -> Question:
        question, bounds = self.questions[i]
        bound, first = bounds[int(z > 0)], STRIDE * abs(z)
        question = question._replace(
            z=np.float64(z), bound=np.float64(bound), first=np.float64(first)
        )
        if np.sign(z) not in self.last:
            return question
        before, found = self.last[np.sign(z)]
        return question._replace(first=np.abs(found.y[i, -1] * z) / before, y=found.y[i])

    def _answered(self, asked: list[Question]) -> Limit:
        """Answers, to so many questions at once as there is room for; the last few are padded, as
        programs are compiled for exact numbers.
        """
        times = -(-len(asked) // self._lanes(len(asked)))
        size = -(-len(asked) // times)
        padded = asked + asked[-1:] * (times * size - len(asked))
        parts = [padded[start : start + size] for start in range(0, len(padded), size)]
        found = [run(_limits, _stacked(part), self.m) for part in parts]
        return Limit(*(np.concatenate(a)[: len(asked)] for a in zip(*found, strict=True)))

    def _lanes(self, asked: int) -> int:
        m = self.m
        numbers = m.XX.size + sum(a.size for part in (m.G, m.E, m.ZX, *m.B) for a in part)
        if m.residual is not None:
            numbers += sum(a.size for a in jax.tree.leaves(m.residual))
        return int(np.clip(LANES_NUMBERS // (4 * numbers), 1, asked))

    def _warn(self, part: Limit) -> None:
        if not part.found.all():
            names = ", ".join(
                name for name, found in zip(self.names, part.found, strict=True) if not found
            )
            warnings.warn(
                f"the profile of {names} did not reach its target; the limit is approximate",
                stacklevel=5,
            )

    def _values(self, c: Iterable[float]) -> np.ndarray:
        return np.array([self._value(place, v) for place, v in zip(self.places, c, strict=True)])

    def _value(self, place: Place, c: float) -> float:
        """The parameter itself, from the coordinate that `Question` gives it."""
        if place.kind == "beta":
            return self.m.beta0[place.i] + self.m.scale * c
        if place.kind == "residual":
            return _residual_value(self.design, place.coordinate, c)
        return {"sd": float, "cor": np.sin, "sigma": np.exp}[place.kind](c)


def _residual_value(design: Design, at: Coordinate, c: float) -> float:
    """The number of the residual covariance that a coordinate stands for."""
    if at.is_log_sd:
        return float(np.exp(c))
    if at.of_lag:
        return float(np.tanh(c))
    if at.order:
        return float(c / np.sqrt(1.0 + c**2))
    theta = np.zeros(design.parameter_count)
    theta[len(theta) - design.residual.covariance.size + at.at] = c
    names = residual_coordinates(design.residual)
    return float(residual_values(design, theta, 1.0)[list(names.values()).index(at)])


class _Centre:
    """Questions about one optimum, with the target still open."""

    def __init__(self, fit: FittedModel):
        self.fit, self.m, e = fit, fit.model.engine.products, fit.estimate
        self.table = components(uncertainty(fit))
        self.y = np.concatenate([e.t, [np.log(e.sigma), 0.0]])
        self.r = 0 if fit.design.residual is None else fit.design.residual.covariance.size
        self.order = np.arange(fit.design.residual.covariance.positions if self.r else 0)
        self.H = np.zeros((len(self.y),) * 2)
        self.H[:-1, :-1] = 0.5 * fit.curvature.W
        diagonal = np.diag(self.H)[:-1]
        at_boundary = np.flatnonzero(diagonal == 0.0)
        self.H[at_boundary, at_boundary] = np.median(diagonal[diagonal > 0.0])

    def question(self, name: str, place: Place) -> tuple[Question, tuple[float, float]]:
        """The question, and how far its coordinate may go down and up, in its units."""
        centre, unit, bounds = getattr(self, f"_{place.kind}")(name, place)
        is_correlation = place.kind == "cor"
        i, j = ([np.zeros(b.k) for b in self.m.layout.blocks] for _ in range(2))
        if place.kind in ("sd", "cor"):
            block = self.m.layout.order[place.factor]
            j[block][place.i] = 1.0
            i[block][place.j] = float(is_correlation)
        a = np.zeros(self.m.p)
        if place.kind == "beta":
            a = np.linalg.solve(self.m.R.T, np.eye(self.m.p)[place.i])
        question = Question(
            i=tuple(i),
            j=tuple(j),
            lengths=self._lengths(place) if is_correlation else np.ones(2),
            is_correlation=np.bool_(is_correlation),
            is_sigma=np.bool_(place.kind == "sigma"),
            psi=np.zeros(self.r),
            others=np.zeros(self.r + 1 if self.r else 0),
            order=self.order,
            a=a,
            reml=np.bool_(self.fit.method == "REML"),
            centre=np.float64(centre),
            unit=np.float64(unit),
            minimum=np.float64(self.fit.deviance),
            bound=np.float64(np.inf),
            z=np.float64(0.0),
            first=np.float64(1.0),
            y=self.y,
            H=self.H,
        )
        if place.kind == "residual":
            question = self._of_residual(question, place.coordinate)
        return question, (bounds[0] / unit, bounds[1] / unit)

    def _of_residual(self, question: Question, at: Coordinate) -> Question:
        """The question with the coordinate that it holds."""
        y, H = self._ordered(at.order)
        psi, others = np.zeros(self.r), np.zeros(self.r + 1)
        psi[at.at] = 1.0
        others[[*at.others, *([self.r] if at.is_log_sd else [])]] = 1.0
        order = np.argsort(at.order) if at.order else self.order
        return question._replace(psi=psi, others=others, order=order, y=y, H=H)

    def _ordered(self, order: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Y and H with the correlations of residuals numbered in another order of the visits."""
        if not order:
            return self.y, self.H
        at = slice(len(self.y) - 2 - self.r, len(self.y) - 2)
        psi, slopes = in_order(self.fit.design.residual.covariance, self.y[at], order)
        y, J = self.y.copy(), np.eye(len(self.y))
        y[at], J[at, at] = psi, slopes
        return y, J @ self.H @ J.T

    def _residual(self, name, place):
        at = place.coordinate
        if at.of_lag:
            estimate, se = residual_table(uncertainty(self.fit)).loc[name, ["estimate", "se"]]
            return np.arctanh(estimate), se / (1.0 - estimate**2), (np.inf, np.inf)
        y, H = self._ordered(at.order)
        start = len(y) - 2 - self.r
        parts = [start + i for i in (at.at, *at.others)] + ([len(y) - 2] if at.is_log_sd else [])
        return y[parts].sum(), np.sqrt(2.0 * H[np.ix_(parts, parts)].sum()), (np.inf, np.inf)

    def _beta(self, _, place):
        e, scale = self.fit.estimate, self.m.scale
        centre = (e.beta[place.i] - self.m.beta0[place.i]) / scale
        return centre, np.sqrt(e.vcov[place.i, place.i]) / scale, (np.inf, np.inf)

    def _sigma(self, *_):
        estimate, se = self.table.loc["sigma", ["estimate", "se"]]
        return np.log(estimate), se / estimate, (np.inf, np.inf)

    def _sd(self, name, place):
        estimate, se = self.table.loc[name, ["estimate", "se"]]
        if not np.isfinite(se):
            se = self.fit.sigma * self._small(place.factor)[place.i]
        return estimate, se, (estimate, np.inf)

    def _small(self, factor):
        """SDs (k,) over sigma of which each adds a hundredth of sigma^2 to the variance of a
        typical row.
        """
        A = self.m.A[self.m.layout.order[factor]]
        return 0.1 / np.linalg.norm(A, axis=0)

    def _lengths(self, place):
        """Lengths (2,) of the rows of Lambda that a correlation is about, none of them 0."""
        of_rows = np.linalg.norm(self.fit.Lambdas[place.factor], axis=1)
        lengths = np.maximum(of_rows, self._small(place.factor))
        return lengths[[place.j, place.i]]

    def _cor(self, name, _):
        estimate, se = self.table.loc[name, ["estimate", "se"]]
        # undetermined beside a variance of 0
        angle = np.arcsin(np.clip(np.nan_to_num(estimate), -1.0, 1.0))
        unit = min(se / np.cos(angle), TYPICAL) if np.isfinite(se) else TYPICAL
        return angle, unit, (angle + np.pi / 2, np.pi / 2 - angle)
