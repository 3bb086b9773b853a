"""Many generalised models: responses of one design, or groups of rows, and their fits as labelled
tables.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, Self

import narwhals as nw
import numpy as np
import pandas as pd

from ..design.auxiliary import starts
from ..design.counts import WHOLE, check_response
from ..design.design import Design
from ..design.formula import Formula
from ..engines.packing import padded_rows
from ..inference.family_parameters import natural_jacobian
from ..models.generalized import SETTLED, with_nodes
from ..models.response import family_names, natural_gamma
from ..models.separation import Information, are_suspect, rows_of, separation
from ..numerics.crossproducts.layout import power_of_two
from ..numerics.estimation import generalized
from ..numerics.estimation.bfgs import CONVERGED, STATUS
from ..numerics.families.density import Row
from ..numerics.families.family import Bernoulli, Distribution, Ordinal
from ..runtime.calls import run
from ..runtime.compilation import jit, light
from ..runtime.devices import accelerator_memory
from ..support.arguments import listed
from ..support.later import jax
from .chunks import Chunk, Chunking, Failure, filled, theta_names_of
from .curvature import LaneCurvatures
from .designs import Groups
from .fits import ManyFits, _united
from .lanes import _first
from .laplace import LAPLACE_ROUNDS, LaneEstimates, LaplaceLanes, fit_lanes
from .responses import Responses

BYTES = 5 << 18  # of an array (rows, lanes) that stays in a processor's cache
ARRAYS = 64  # such arrays at a time, on an accelerator
FEWEST, MOST = 16, 1024

_in_common = light(jit(generalized.in_common))


def _lanes_at_once(n: int) -> int:
    """Models of n rows to take at a time: a power of two."""
    memory = accelerator_memory()
    room = BYTES if memory is None else memory // (8 * ARRAYS)
    fitting = 1 << int(np.log2(max(room / (8 * n), 1.0)))
    return int(np.clip(fitting, FEWEST, MOST if memory is None else MOST << 4))


def _check_nodes(nodes: int | None) -> None:
    if nodes == 0:
        raise ValueError("nagq=0 is for single fits: fit_many needs nagq=1 or more")


class GeneralizedResponses(Responses):
    """Many responses of one design with a family: rows and conditioned columns are shared."""

    def __init__(self, design: Design, *facts: Any, nodes: int | None = None):
        _check_nodes(nodes)
        super().__init__(design if nodes is None else with_nodes(design, nodes), *facts)
        size = min(self.chunking.size, _lanes_at_once(len(design.X)))
        self.chunking = Chunking(max(2, size), LAPLACE_ROUNDS)

    @functools.cached_property
    def prepared(self):
        """Layout and rows of the design, and its conditioned columns."""
        plan, given = padded_rows(self.design, int)
        return plan, given, run(_in_common, plan, given)

    def chunk(self, i: int) -> tuple[list[Chunk], list[Failure]]:
        """The models of one chunk, and those of it that cannot be fitted."""
        start = i * self.chunking.size
        Y, W = self.read(start, start + self.chunking.size)
        others = np.arange(Y.shape[1]) if W is not None else np.flatnonzero(self._are_doubtful(Y))
        reasons = {int(j): self._unfit(Y[:, j], None if W is None else W[:, j]) for j in others}
        failures = [Failure(start + j, reason) for j, reason in reasons.items() if reason]
        sound = np.setdiff1d(np.arange(Y.shape[1]), [j for j, reason in reasons.items() if reason])
        gaps = np.isnan(Y).any(0) | (W is not None)
        parts = [sound[~gaps[sound]], sound[gaps[sound]]]
        return [self._chunk(Y, W, part, start) for part in parts if len(part)], failures

    def _are_doubtful(self, Y: np.ndarray) -> np.ndarray:
        """Which responses (n, r) want a closer look."""
        family, m = self.design.observed.family, self.design.observed.m
        with np.errstate(invalid="ignore"):
            outside = family.outside(
                Y.ravel(), np.broadcast_to(np.reshape(m, (-1, 1)), Y.shape).ravel()
            )
            doubtful = ~np.isfinite(Y) | outside.reshape(Y.shape)
            if family.is_count:
                doubtful |= np.abs(Y - np.round(Y)) > WHOLE
        flat = Y.min(0) == Y.max(0)
        if family.has_trials:
            flat |= (Y == 0).all(0) | (np.reshape(m, (-1, 1)) == Y).all(0)
        if isinstance(family, Ordinal):
            flat |= ~np.all([(Y == k).any(0) for k in range(len(family.categories))], axis=0)
        if family.name.startswith("zero_inflated"):
            flat |= ~(Y == 0).any(0)
        return doubtful.any(0) | flat

    def _chunk(self, Y: np.ndarray, W: np.ndarray | None, part: np.ndarray, start: int) -> Chunk:
        """Lanes of some of the responses; missing values are rows of weight zero."""
        plan, given, common = self.prepared
        every = filled(part, self.chunking.size)
        y, w, used = Y[:, every].T, given.row.w, None
        gaps = np.isnan(y)
        if W is not None or gaps.any():
            w = np.where(gaps, 0.0, given.row.w if W is None else W[:, every].T)
            used = ~gaps[: len(part)]
        y = np.where(gaps, 0.0, y)
        g0 = np.stack([starts(given.family, self.design.predictors, lane) for lane in y])
        lanes = LaplaceLanes(plan, replace(given, row=Row(y, w, given.row.m), g0=g0), common)
        return Chunk(start + part, [self.design], lanes, np.ones(len(part)), used)

    def _unusable(self, y: np.ndarray, used: np.ndarray) -> str | None:
        seen, index = self.design.observed, self.design.index
        broken = np.abs(y[used] - np.round(y[used])) > WHOLE
        if seen.family.has_trials and not isinstance(seen.family, Bernoulli) and broken.any():
            i = np.flatnonzero(used)[np.argmax(broken)]
            return (
                f"row {index[i]!r}: {y[i]:g} is no whole number, and responses= has successes, out "
                "of as many as trials= says"
            )
        if isinstance(seen.family, Ordinal):
            there = set(y[used])
            lacking = [name for k, name in enumerate(seen.family.categories) if k not in there]
            return f"no row of the response is {listed(lacking)}" if lacking else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                check_response(seen, y, used, "response", index)
        except ValueError as err:
            return str(err)
        return None


class OrdinalResponses(GeneralizedResponses):
    """Many responses in ordered categories, the same for all: their numbers, from 0."""

    def problem(self, place: int) -> tuple[str, Any, dict[str, Any]]:
        """As `Responses.problem`, with the response as categories."""
        formula, data, more = super().problem(place)
        frame = nw.from_native(data, eager_only=True)
        name, categories = frame.columns[-1], self.design.observed.family.categories
        texts = [None if np.isnan(code) else categories[int(code)] for code in frame[name]]
        kind = nw.Enum(categories)
        y = nw.new_series(name, texts, kind, backend=frame.implementation)
        return formula, frame.with_columns(y).to_native(), more


class GeneralizedGroups(Groups):
    """One model with a family per group of rows."""

    def __init__(
        self, formula: Formula, data: Any, by: str, arguments: dict[str, Any], nodes: int = 1
    ):
        _check_nodes(nodes)
        trials = arguments.get("trials")
        if not (trials is None or isinstance(trials, str) or np.isscalar(trials)):
            raise ValueError("with by=, trials must be the name of a column, or one number")
        self.nodes = nodes
        super().__init__(formula, data, by, arguments)
        self.chunking = Chunking(None, LAPLACE_ROUNDS)

    def checked(self, design: Design) -> Design:
        """The design with its nodes of quadrature."""
        return with_nodes(design, self.nodes)

    def shape(self, design: Design) -> Hashable:
        """What models must have in common to be lanes of one batch."""
        leaves, tree = jax.tree.flatten(padded_rows(design, power_of_two))
        return tree, tuple(a.shape for a in leaves)

    def lanes_at_once(self, design: Design) -> int:
        """How many models like one to take at a time."""
        return _lanes_at_once(power_of_two(len(design.X)))

    def chunk(self, i: int) -> tuple[list[Chunk], list[Failure]]:
        """The models of one chunk; with the first, all that cannot be fitted."""
        places = np.array(self.parts[i])
        designs = [self.designs[p] for p in self.parts[i]]
        models = [padded_rows(d, power_of_two) for d in designs]
        every = [models[j] for j in filled(np.arange(len(models)), power_of_two(len(models)))]
        plan, given = jax.tree.map(lambda *a: np.stack(a), *every)
        chunk = Chunk(places, designs, LaplaceLanes(plan, given, None), np.ones(len(places)))
        return [chunk], self.failures if i == 0 else []


def generalized_tables(
    work: GeneralizedResponses | GeneralizedGroups, method: str, i: int
) -> tuple[list[pd.DataFrame], list[Failure]]:
    """Tables of the models of the i-th part of the work, and those that could not be fitted."""
    chunks, failures = work.chunk(i)
    tables = []
    for chunk in chunks:
        e = _first(fit_lanes(chunk.lanes, work.chunking.rounds), len(chunk.places))
        failures = failures + [
            Failure(place, _no_start(chunk)) for place in chunk.places[~e.has_start]
        ]
        if e.has_start.any():
            tables.append(_table(chunk, e)[e.has_start])
    return tables, failures


def _no_start(chunk: Chunk) -> str:
    family = chunk.designs[0].observed.family.name
    return f"the log-density of family {family!r} has no value where the search would start"


def _table(chunk: Chunk, e: LaneEstimates) -> pd.DataFrame:
    """Estimates of the models of a chunk, a row each, every number under the name that it has
    there.
    """
    separated = _separations(chunk, e)
    ended = (e.predicted_decrease < SETTLED) & e.runaway.any(1)
    converged = (e.converged | ended) & (separated == "")
    words = np.array(STATUS, object)[np.where(converged, CONVERGED, e.status)]
    columns = {
        "status": pd.Categorical(np.where(separated == "", words, separated)),
        "converged": converged,
        "singular": e.vanishing,
        "nobs": _rows_used(chunk),
        "deviance": e.deviance,
        "steps": e.steps,
        "predicted_decrease": e.predicted_decrease,
        "gradient": e.gradient,
    }
    columns |= {f"t:{j}": e.t[:, j] for j in range(e.t.shape[1])}
    plain = pd.DataFrame(columns, index=chunk.places)
    tables = [
        plain.iloc[lanes].join(_named(e, lanes, design, plain.index))
        for lanes, design in chunk.alike()
    ]
    return tables[0] if len(tables) == 1 else pd.concat(tables).loc[chunk.places]


def _rows_used(chunk: Chunk) -> np.ndarray:
    if chunk.used is not None:
        return np.count_nonzero(
            chunk.used & (chunk.lanes.given.row.w[: len(chunk.places)] > 0), axis=1
        )
    sizes = [len(design.X) for design in chunk.designs]
    return np.broadcast_to(np.array(sizes), chunk.places.shape)


def _named(e: LaneEstimates, lanes: np.ndarray, design: Design, places: pd.Index) -> pd.DataFrame:
    """Numbers of lanes whose parameters have the names of a design, and their standard errors."""
    d, p = e.theta.shape[1], e.beta.shape[1]
    V = e.covariance[lanes]
    se = np.sqrt(np.einsum("rxx->rx", V))
    kinds = {
        "beta": (design.columns, e.beta, se[:, d : d + p]),
        "theta": (theta_names_of(design), e.theta, se[:, :d]),
    }
    columns = {}
    for kind, (names, values, errors) in kinds.items():
        columns |= {f"{kind}:{name}": values[lanes, j] for j, name in enumerate(names)}
        columns |= {f"{_ERRORS[kind]}:{name}": errors[:, j] for j, name in enumerate(names)}
    gamma, slopes = e.gamma[lanes], [natural_jacobian(design, g) for g in e.gamma[lanes]]
    own = np.einsum("rij,rjk,rik->ri", slopes, V[:, d + p :, d + p :], slopes)
    for j, name in enumerate(family_names(design)):
        columns[f"family:{name}"] = [natural_gamma(design, g)[j] for g in gamma]
        columns[f"family_se:{name}"] = np.where(own[:, j] > 0, np.sqrt(own[:, j]), np.nan)
    columns |= {f"vcov:{i}:{j}": V[:, d + i, d + j] for i in range(p) for j in range(i + 1)}
    return pd.DataFrame(columns, index=places[lanes])


_ERRORS = {"beta": "bse", "theta": "theta_se"}


def _separations(chunk: Chunk, e: LaneEstimates) -> np.ndarray:
    """What separates the outcomes of each model, in words; empty where nothing does."""
    found = np.full(len(chunk.places), "", object)
    y = np.asarray(chunk.lanes.given.row.y)
    for k, design in enumerate(chunk.designs):
        lanes = np.arange(len(found)) if len(chunk.designs) == 1 else np.array([k])
        n = len(design.X)
        for lane in lanes[are_suspect(design, e.W[lanes, :n], e.W0[lanes, :n])]:
            used = np.ones(n, bool) if chunk.used is None else chunk.used[lane]
            known = Information(e.W[lane, :n][used], e.W0[lane, :n][used])
            there = separation(rows_of(design, y[lane, :n], used), known)
            found[lane] = "" if there is None else f"separated: {there.message}"
    return found


class ManyGeneralizedFits(ManyFits):
    """Fits of many generalised models: tables with one row a model.

    Coefficients are on the scale of the link; `theta` is absolute; tests are z tests.
    """

    _tables_of = staticmethod(generalized_tables)

    def by(self, method: str) -> Self:
        """Itself: generalised models are fitted by maximum likelihood."""
        return self

    @property
    def family(self) -> Distribution:
        """The distribution of the responses; of ordinal `responses=` with the categories that all
        columns have together.
        """
        return self.work.named[0][1].observed.family

    @property
    def sigma(self) -> pd.Series:
        """1.0 in every model: theta is absolute. Numbers that scatter the responses are in
        `family_params`.
        """
        return pd.Series(self.effect_scale, self.labels, name="sigma")

    @property
    def effect_scale(self) -> np.ndarray:
        """1.0 in every model that was fitted (models,): theta is absolute."""
        return np.where(self.nobs > 0, 1.0, np.nan)

    def _family_names(self) -> list[str]:
        return _united(family_names(design) for _, design in self.work.named)

    @property
    def family_params(self) -> pd.DataFrame:
        """Numbers of the family besides the mean, as `size`, on their natural scale; coefficients
        of predictors.
        """
        return self._part("family", self._family_names())

    @property
    def family_params_bse(self) -> pd.DataFrame:
        """Standard errors of `family_params`; missing where a number runs off to infinity."""
        return self._part("family_se", self._family_names())

    @property
    def theta_bse(self) -> pd.DataFrame:
        """Standard errors of `theta`; 0 where a variance is estimated as 0, and counts as known."""
        return self._part("theta_se", list(self.theta))

    @property
    def variance_components(self) -> pd.DataFrame:
        """Variances on the scale of the link, columns (factor, term)."""
        return super().variance_components.drop(columns=("residual", ""))

    @property
    def parameters(self) -> pd.DataFrame:
        """Coefficients, standard deviations `sd_x|g`, correlations `cor_x.(Intercept)|g`, numbers
        of the family.
        """
        return pd.concat([super().parameters.drop(columns="sigma"), self.family_params], axis=1)

    def over_curvatures(
        self, function: Callable[[LaneCurvatures], tuple[np.ndarray, ...]]
    ) -> tuple[np.ndarray, ...]:
        """Arrays (models, ...) that a function makes of the covariances of lanes, NaN for what was
        not fitted.
        """
        lanes = self._covariances
        made = function(lanes)
        whole = tuple(np.full((len(self), *a.shape[1:]), np.nan) for a in made)
        for to, values in zip(whole, made, strict=True):
            to[lanes.places] = values
        return whole

    @functools.cached_property
    def _covariances(self) -> LaneCurvatures:
        """Covariances of the coefficients of all models that were fitted, on those that all have
        together.
        """
        names, fitted = self.coefficients, self.nobs.to_numpy() > 0
        p = len(names)
        V, present = np.zeros((len(self), p, p)), np.zeros((len(self), p), bool)
        for places, design in self.work.named:
            at = [names.index(name) for name in design.columns]
            present[np.ix_(places, at)] = True
            for i, row in enumerate(at):
                for j, column in enumerate(at[: i + 1]):
                    values = self._table[f"vcov:{i}:{j}"].to_numpy()[places]
                    V[places, row, column] = V[places, column, row] = values
        places = np.flatnonzero(fitted)
        return LaneCurvatures(places, V[places], np.zeros((len(places), 1, p, p)), present[places])
