"""One formula, very many models: the responses of one design, or the groups of one long frame."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import narwhals.stable.v1 as nw
import numpy as np
import pandas as pd
import scipy  # scipy.stats takes long to import; this way that happens on first use
from scipy import special
from tqdm.auto import tqdm

from . import compute, estimation, inference, optimize, structure
from .batch import Lanes, alone, fit_lanes, over_lanes
from .crossproducts import Basis, Moments, assemble, condition, moments, respond
from .design import Design, build, is_constant
from .errors import RankWarning, one_of
from .formula import Formula
from .permutation import PermutationTest, permutation_test
from .variances import component_names, component_pairs

MOST_LANES = 2048  # a chunk that stays in the processor's cache is twice as fast as one that does not
WORKING_SET = 64 * 2**20  # bytes that one evaluation of a chunk may touch
STATUS = {optimize.CONVERGED: "converged", optimize.STALLED: "stalled", optimize.EXHAUSTED: "step limit"}


class Chunk(NamedTuple):
    """Models that are fitted together: their places among all, a design with their columns, and their lanes."""

    places: np.ndarray
    design: Design
    lanes: Lanes


class Failure(NamedTuple):
    """A model that cannot be fitted."""

    place: int
    reason: str


# Where the models come from ------------------------------------------------------------------------------------------


class Responses:
    """Many responses of one design: the cross-products of the design are computed once."""

    def __init__(
        self,
        design: Design,
        data: Any,
        Y: Any,
        labels: pd.Index,
        rows: np.ndarray,
        arguments: dict[str, Any],
        start: np.ndarray | None = None,
    ):
        self.design, self.data, self.Y, self.labels, self.rows = design, data, Y, labels, rows
        self.formula, self.arguments, self.start = design.formula, arguments, start
        share = -(-len(labels) // (os.cpu_count() or 1))
        self.size = min(_chunk_size(self.plan.layout, design.X.shape[1]), max(32, _power_of_two(share)))

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)

    @functools.cached_property
    def plan(self) -> structure.Plan:
        """Layout and codes of the design."""
        return _plan(self.design)

    @functools.cached_property
    def prepared(self) -> tuple[Basis, Moments]:
        """The conditioned design, and its moments with a response that stands for all."""
        d = self.design
        weights = np.ones(len(d.X)) if d.weights is None else d.weights
        return compute.run(_prepare, self.plan, d.X, [f.Z for f in d.factors], weights)

    def chunk(self, i: int) -> tuple[list[Chunk], list[Failure]]:
        """The models of one chunk, and those of it that cannot be fitted."""
        start = i * self.size
        Y = np.array(self.Y[:, start : start + self.size], dtype=float)[self.rows]
        if self.design.offset is not None:
            Y -= self.design.offset[:, None]
        missing = np.isnan(Y)
        reasons = {int(j): reason for j, reason in self._unfit(Y, missing)}
        sound = np.array([j for j in range(Y.shape[1]) if j not in reasons], int)
        holes = missing[:, sound].any(0)
        makers = (self._complete, sound[~holes]), (self._masked, sound[holes])
        chunks = [Chunk(start + part, self.design, make(Y, missing, part)) for make, part in makers if len(part)]
        return chunks, [Failure(start + j, reason) for j, reason in reasons.items()]

    def _complete(self, Y, missing, part) -> Lanes:
        basis, shared = self.prepared
        return Lanes(shared, _respond(self.plan, basis, Y[:, _filled(part, self.size)]))

    def _masked(self, Y, missing, part) -> Lanes:
        """Missing values are rows of weight zero, so every lane has a design of its own."""
        part = _filled(part, max(32, 1 << (len(part) - 1).bit_length()))
        weights = np.where(missing[:, part], 0.0, self.prepared[0].w[:, None]).T
        Z = [f.Z for f in self.design.factors]
        return Lanes(None, _masked_moments(self.plan, np.nan_to_num(Y[:, part]).T, self.design.X, Z, weights))

    def _unfit(self, Y, missing) -> Iterable[tuple[int, str]]:
        """Models that cannot be fitted, with the reason."""
        for j in range(Y.shape[1]):
            used = ~missing[:, j]
            y = Y[used, j]
            if np.isinf(y).any():
                yield j, "infinite values"
            elif len(y) <= self.design.X.shape[1]:
                yield j, f"{len(y)} rows without missing values are too few"
            elif is_constant(y):
                yield j, "the response is constant"
            elif missing[:, j].any() and (reason := _unfit_rows(self.design, used)):
                yield j, reason

    def with_design(self, design: Design) -> Responses:
        """The same responses on another design of the same rows."""
        return Responses(design, self.data, self.Y, self.labels, self.rows, self.arguments)

    def fingerprint(self) -> str:
        """A hash of the design and of some of the responses."""
        some = np.linspace(0, len(self.labels) - 1, 16).astype(int)
        return _hash([self.design], [np.asarray(self.Y[:, j], float) for j in some])

    def problem(self, place: int) -> tuple[str, Any]:
        """Formula and data of one of the models, for `fit`."""
        frame = nw.from_native(self.data, eager_only=True)
        name = "response"
        while name in frame.columns:
            name += "_"
        y = np.full(len(frame), np.nan)
        y[self.design.rows] = np.asarray(self.Y[:, place], float)[self.rows]
        y = nw.new_series(name, y, backend=frame.implementation)
        formula = replace(self.formula, response=name)
        return str(formula), frame.with_columns(y).to_native()


class Designs:
    """Models with a design each; those of similar size and structure share their programs."""

    start = None  # every model has its own moment estimates
    size = None  # chunks depend on the designs alone

    def __init__(self, formula: Formula, labels: pd.Index, arguments: dict[str, Any]):
        self.formula, self.labels, self.arguments = formula, labels, arguments
        alike: dict[Any, list[int]] = {}
        self.designs: list[Design | None] = []
        self.failures: list[Failure] = []
        for place in range(len(labels)):
            try:
                design = self.make(place)
                alike.setdefault(_shape(design), []).append(place)
            except ValueError as err:
                design = None
                self.failures.append(Failure(place, str(err)))
            self.designs.append(design)
        self.parts = []
        for places in alike.values():
            first = self.designs[places[0]]
            size = _chunk_size(_plan(first, _power_of_two).layout, first.X.shape[1])
            self.parts += [places[a : a + size] for a in range(0, len(places), size)]
        sound = [d for d in self.designs if d is not None]
        if not sound:
            raise ValueError(f"none of the {len(labels)} models can be fitted; the first: {self.failures[0].reason}")
        self.design = max(sound, key=lambda d: len(d.columns))

    def make(self, place: int) -> Design:
        """The design of one model, or a ValueError that says why there is none."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.parts)

    def chunk(self, i: int) -> tuple[list[Chunk], list[Failure]]:
        """The models of one chunk; with the first, all that cannot be fitted."""
        places = np.array(self.parts[i])
        designs = [self.designs[p] for p in self.parts[i]]
        models = [_padded_model(d) for d in designs]
        filled = [models[j] for j in _filled(np.arange(len(models)), _power_of_two(len(models)))]
        lanes = _group_moments(*jax.tree.map(lambda *a: np.stack(a), *filled))
        return [Chunk(places, designs[0], Lanes(None, lanes))], self.failures if i == 0 else []

    def fingerprint(self) -> str:
        """A hash of all designs and responses."""
        sound = [d for d in self.designs if d is not None]
        return _hash(sound, [d.y for d in sound])


class Groups(Designs):
    """One model per group of rows."""

    def __init__(self, formula: Formula, data: Any, by: str, arguments: dict[str, Any]):
        self.data = nw.from_native(data, eager_only=True).to_pandas()
        if by not in self.data.columns:
            raise ValueError(
                f"by={by!r} is not a column of the data; there are {', '.join(map(str, self.data.columns))}"
            )
        for name in ("weights", "offset"):
            if not (arguments[name] is None or isinstance(arguments[name], str)):
                raise ValueError(f"with by=, {name} must be the name of a column")
        self.rows = list(self.data.groupby(by, sort=True, observed=True).indices.items())
        super().__init__(formula, pd.Index([label for label, _ in self.rows], name=by), arguments)

    def make(self, place: int) -> Design:
        """The design of one group."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RankWarning)  # dropped coefficients are missing from their row
            design = build(self.formula, self._part(place), **self.arguments)
        if is_constant(design.y):
            raise ValueError("the response is constant")
        return design

    def _part(self, place: int) -> pd.DataFrame:
        return self.data.iloc[self.rows[place][1]]

    def problem(self, place: int) -> tuple[str, Any]:
        """Formula and data of one of the models, for `fit`."""
        return str(self.formula), self._part(place)


def responses_of(formula: Formula, data: Any, responses: Any, arguments: dict[str, Any]) -> Responses:
    """Models of the responses given by a user, one row for each row of the data."""
    if formula.response is not None:
        raise ValueError(f"with responses= the formula has no left side: write '~ ...' in place of '{formula}'")
    Y, labels = _as_matrix(responses, data)
    if len(Y) != len(data):
        raise ValueError(f"responses has {len(Y)} rows, but the data have {len(data)}")
    design = build(formula, data, **arguments, response=False)
    return Responses(design, data, Y, labels, design.rows, arguments)


def _as_matrix(responses: Any, data: Any) -> tuple[Any, pd.Index]:
    """Responses as something with columns to slice, and their labels."""
    if isinstance(responses, list | tuple) and all(isinstance(name, str) for name in responses):
        frame = nw.from_native(data, eager_only=True)
        if unknown := [name for name in responses if name not in frame.columns]:
            raise ValueError(f"responses has {unknown[0]!r}, which is not a column of the data")
        responses = frame.select(responses).to_native()
    if not hasattr(responses, "columns"):
        if getattr(responses, "ndim", 0) != 2:
            raise TypeError(
                "responses must be a frame, a two-dimensional array (rows, models), or a list of column names"
            )
        return responses, pd.RangeIndex(responses.shape[1])
    frame = nw.from_native(responses, eager_only=True)
    return frame.to_numpy(), pd.Index(list(frame.columns))


def _plan(design: Design, rounded=int) -> structure.Plan:
    used = design.factors
    return structure.plan([f.codes for f in used], [f.sizes for f in used], [len(f.levels) for f in used], rounded)


def _hash(designs: Iterable[Design], more: Iterable[np.ndarray]) -> str:
    arrays = [(d.X, d.weights, d.offset, *((f.codes, f.Z) for f in d.factors)) for d in designs]
    found = hashlib.sha256()
    for a in [*jax.tree.leaves(arrays), *more]:
        found.update(f"{a.shape}{a.dtype}".encode() + np.ascontiguousarray(a).tobytes())
    return found.hexdigest()[:16]


def _power_of_two(size: int) -> int:
    return 1 << max(size - 1, 1).bit_length()


def _padded_model(design: Design):
    """Arguments of `moments`, with rows and levels padded to powers of two."""
    plan, n = _plan(design, _power_of_two), len(design.y)
    weights = np.ones(n) if design.weights is None else design.weights
    offset = np.zeros(n) if design.offset is None else design.offset
    rows = (plan.codes, plan.rows, design.y, design.X, [f.Z for f in design.factors], weights, offset)
    codes, entries, *arrays = structure.pad_rows(rows, _power_of_two(n) - n)
    return replace(plan, codes=codes, rows=entries), *arrays


def _shape(design: Design):
    """What models must have in common to be lanes of one batch."""
    leaves, tree = jax.tree.flatten(_padded_model(design))
    return tree, tuple(a.shape for a in leaves)


def _filled(index: np.ndarray, size: int) -> np.ndarray:
    """The index, repeated from its first entry up to a size, so that all chunks have one shape."""
    return np.concatenate([index, np.full(size - len(index), index[0])])


def _unfit_rows(design: Design, used: np.ndarray) -> str | None:
    """Why some of the rows of a design do not determine the model."""
    X = design.X[used]
    if np.linalg.matrix_rank(X) < X.shape[1]:
        return "the fixed effects are rank deficient in the rows without missing values"
    for f in design.factors:
        levels = len(np.unique(f.codes[used]))
        if levels < 2 or levels * max(f.sizes) >= len(X):
            return f"{f.name} has {levels} levels for {len(X)} rows without missing values"
    return None


def _chunk_size(layout: structure.Layout, p: int) -> int:
    """Lanes whose working set fits."""
    q = layout.q
    floats = sum(b.levels * b.k * (b.k + p + 1 + q) for b in layout.blocks[: layout.chain]) + (q + p + 1) ** 2
    return max(32, min(MOST_LANES, 1 << int(np.log2(WORKING_SET / (8 * 4 * floats) + 1))))


# Running them --------------------------------------------------------------------------------------------------------


def run_all(
    work: Responses | Designs, method: str, checkpoint: Any = None, progress: bool | None = None
) -> pd.DataFrame:
    """Fit all chunks, as many at a time as there are cores: one row a model, in order."""
    store = None if checkpoint is None else _Store(Path(checkpoint), work, method)
    one = functools.partial(_chunk_table, work, method == "REML", store)
    with compute.session(), ThreadPoolExecutor(os.cpu_count()) as pool:
        show = len(work) > 1 if progress is None else progress
        bar = tqdm(total=len(work.labels), unit="model", disable=not show, desc="fitting", delay=1.0)
        tables = []
        for table in pool.map(one, range(len(work))):
            tables.append(table)
            bar.update(len(table))
        bar.close()
    return pd.concat(tables).sort_index()


def _chunk_table(work, reml, store, i) -> pd.DataFrame:
    """Results of one chunk, a row per model, indexed by place."""
    if store is not None and (found := store.read(i)) is not None:
        return found
    with compute.float64():
        chunks, failures = work.chunk(i)
        tables = [_table(chunk, reml, work.start) for chunk in chunks]
    if failures:
        nothing = dict(status=[f.reason for f in failures], converged=False, singular=False, nobs=0)
        tables.append(pd.DataFrame(nothing, index=[f.place for f in failures]))
    table = pd.concat(tables).sort_index()
    if store is not None:
        store.write(i, table)
    return table


def _table(chunk: Chunk, reml: bool, start: np.ndarray | None) -> pd.DataFrame:
    lanes = len(jax.tree.leaves(chunk.lanes.each)[0])
    e = fit_lanes(chunk.lanes, reml, None if start is None else np.broadcast_to(start, (lanes, len(start))))
    done = (e.status == optimize.CONVERGED) | (np.isfinite(e.deviance) & (e.predicted_decrease < estimation.NEGLIGIBLE))
    columns = {
        "status": np.where(done, "converged", [STATUS[s] for s in e.status.tolist()]),
        "converged": done,
        "singular": np.any(np.concatenate(e.vanishing, 1), 1),
        "nobs": np.broadcast_to(
            np.asarray(chunk.lanes.design.n, int), e.status.shape
        ),
        "deviance": e.deviance,
        "sigma": e.sigma,
        "steps": e.steps,
        "predicted_decrease": e.predicted_decrease,
        "gradient": np.max(e.gradient, 1),
    }
    columns |= {f"beta:{name}": e.beta[:, j] for j, name in enumerate(chunk.design.columns)}
    columns |= {f"bse:{name}": np.sqrt(e.vcov[:, j, j]) for j, name in enumerate(chunk.design.columns)}
    columns |= {f"theta:{name}": e.theta[:, j] for j, name in enumerate(_theta_names(chunk.design))}
    columns |= {f"t:{j}": e.t[:, j] for j in range(e.t.shape[1])}
    return pd.DataFrame({name: values[: len(chunk.places)] for name, values in columns.items()}, index=chunk.places)


def _theta_names(design: Design) -> list[str]:
    """lme4's names: `g.(Intercept)`, `g.x.(Intercept)`, `g.x`."""
    names = []
    for f in design.factors:
        for i, j in structure.Block(len(f.levels), f.sizes).parameters:
            names.append(f"{f.name}.{f.columns[j]}" if i == j else f"{f.name}.{f.columns[i]}.{f.columns[j]}")
    return names


class _Store:
    """Finished chunks in a folder; a file is complete or not there.

    Their size is kept with them and used again: it depends on the machine, and with it the last digits of the results.
    """

    def __init__(self, folder: Path, work: Responses | Designs, method: str):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, plan = folder, folder / "run.json"
        mine = dict(formula=str(work.formula), method=method, models=len(work.labels), data=work.fingerprint())
        if plan.exists():
            found = json.loads(plan.read_text())
            work.size = found.pop("size")
            if other := [name for name in mine if mine[name] != found[name]]:
                raise ValueError(
                    f"the checkpoint {str(folder)!r} belongs to another run: its {other[0]} is {found[other[0]]!r}, "
                    f"here it is {mine[other[0]]!r}; give this run a folder of its own"
                )
        else:
            _write(plan, lambda path: path.write_text(json.dumps(mine | dict(size=work.size))))

    def _path(self, i: int) -> Path:
        return self.folder / f"chunk-{i:06d}.parquet"

    def read(self, i: int) -> pd.DataFrame | None:
        return pd.read_parquet(self._path(i)) if self._path(i).exists() else None

    def write(self, i: int, table: pd.DataFrame) -> None:
        _write(self._path(i), table.to_parquet)


def _write(path: Path, write) -> None:
    temporary = path.with_name(path.name + ".part")
    write(temporary)
    os.replace(temporary, path)


# The result ----------------------------------------------------------------------------------------------------------


class Many:
    """Results of `fit_many`: tables with one row a model (its response name, its number, or its group).

    `many[label]` is the full `Fit` of one model.
    """

    def __init__(
        self, work: Responses | Designs, method: str, df_method: str, table: pd.DataFrame, single: Callable[[int], Any]
    ):
        self.method, self.df_method, self._work, self._single = method, df_method, work, single
        self._table = table.set_axis(work.labels)

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._table.index)

    def __getitem__(self, label: Any) -> Any:
        try:
            place = self._table.index.get_loc(label)
        except KeyError:
            raise ValueError(
                f"there is no model {label!r}; the labels are {self._table.index[:5].tolist()} ..."
            ) from None
        return self._single(place)

    def _part(self, kind: str) -> pd.DataFrame:
        names = [name for name in self._table if name.startswith(kind + ":")]
        return self._table[names].rename(columns=lambda name: name[len(kind) + 1 :])

    @property
    def fe_params(self) -> pd.DataFrame:
        """Coefficients, models x coefficients."""
        return self._part("beta")

    @property
    def fe_bse(self) -> pd.DataFrame:
        """Standard errors of the coefficients."""
        return self._part("bse")

    @property
    def fe_tvalues(self) -> pd.DataFrame:
        """Coefficients over their standard errors."""
        return self.fe_params / self.fe_bse

    @functools.cached_property
    def fe_df(self) -> pd.DataFrame:
        """Degrees of freedom by `df_method`: computed on first access."""
        found = pd.DataFrame(np.inf, index=range(len(self)), columns=self.fe_params.columns)
        if self.df_method == "satterthwaite":
            with compute.session(), ThreadPoolExecutor(os.cpu_count()) as pool:
                for places, columns, df in itertools.chain(*pool.map(self._chunk_df, range(len(self._work)))):
                    found.loc[places, columns] = df
        found = found.set_axis(self._table.index)
        return found.where(self.fe_params.notna())

    def _chunk_df(self, i: int):
        with compute.float64():
            results = []
            for places, design, lanes in self._work.chunk(i)[0]:
                t = self._part("t").to_numpy()[places][:, : len(_theta_names(design))]
                sigma = self.sigma.to_numpy()[places]
                filled = _filled(np.arange(len(places)), len(jax.tree.leaves(lanes.each)[0]))
                df = np.asarray(_degrees_of_freedom(lanes, self.method == "REML", t[filled], np.log(sigma[filled])))
                results.append((places, list(design.columns), df[: len(places)]))
            return results

    @property
    def fe_pvalues(self) -> pd.DataFrame:
        """Two-sided p-values of the coefficients."""
        t, df = -self.fe_tvalues.abs(), self.fe_df
        values = np.where(np.isinf(df), special.ndtr(t), special.stdtr(df, t))
        return pd.DataFrame(2.0 * values, index=t.index, columns=t.columns)

    @property
    def theta(self) -> pd.DataFrame:
        """Entries of the relative covariance factors Lambda, named as lme4 does."""
        return self._part("theta")

    @property
    def sigma(self) -> pd.Series:
        """Residual standard deviations."""
        return self._table["sigma"]

    @property
    def variance_components(self) -> pd.DataFrame:
        """Variances, columns (factor, term) and ("residual", "")."""
        found = {}
        for f, S in zip(self._work.design.factors, self._covariances, strict=True):
            found |= {(f.name, column): S[:, j, j] for j, column in enumerate(f.columns)}
        return pd.DataFrame(found | {("residual", ""): self.sigma.to_numpy() ** 2}, index=self._table.index)

    @property
    def _covariances(self) -> list[np.ndarray]:
        """Covariance matrices (models, k, k) of the random effects, by factor."""
        found, theta, scale = [], iter(self.theta.to_numpy().T), self.sigma.to_numpy()[:, None, None] ** 2
        for f in self._work.design.factors:
            Lam = np.zeros((len(self), len(f.columns), len(f.columns)))
            for i, j in structure.Block(len(f.levels), f.sizes).parameters:
                Lam[:, i, j] = next(theta)
            found.append(scale * Lam @ Lam.mT)
        return found

    @property
    def parameters(self) -> pd.DataFrame:
        """All parameters: coefficients, standard deviations `sd_x|g`, correlations `cor_x.(Intercept)|g`, `sigma`."""
        columns = []
        for f, S in zip(self._work.design.factors, self._covariances, strict=True):
            sd = np.sqrt(np.einsum("rkk->rk", S))
            with np.errstate(invalid="ignore"):  # a correlation with an effect of variance zero
                columns += [
                    sd[:, i] if i == j else S[:, i, j] / (sd[:, i] * sd[:, j]) for i, j in component_pairs(f.sizes)
                ]
        values = np.column_stack([*columns, self.sigma])
        return self.fe_params.join(pd.DataFrame(values, self._table.index, component_names(self._work.design.factors)))

    @property
    def llf(self) -> pd.Series:
        """Log-likelihoods; restricted for REML."""
        return (-0.5 * self._table["deviance"]).rename("llf")

    @property
    def nobs(self) -> pd.Series:
        """Rows used; 0 for a model that could not be fitted."""
        return self._table["nobs"]

    @property
    def converged(self) -> pd.Series:
        """Whether what is left to gain is negligible."""
        return self._table["converged"]

    @property
    def is_singular(self) -> pd.Series:
        """Whether a variance is 0 or a correlation +-1."""
        return self._table["singular"].rename("is_singular")

    @property
    def status(self) -> pd.Series:
        """How each search ended: "converged", "stalled", "step limit"; or why a model could not be fitted."""
        return self._table["status"]

    @property
    def certificate(self) -> pd.DataFrame:
        """Largest `gradient` (absolute, conditioned parameters), `predicted_decrease` (deviance units) and `steps`."""
        return self._table[["gradient", "predicted_decrease", "steps"]]

    def adjusted_pvalues(self, method: str = "bh") -> pd.DataFrame:
        """p-values adjusted over the models, each coefficient for itself: false discovery rate by "bh" or "by"."""
        one_of("method", method, ("bh", "by"))
        p = self.fe_pvalues
        return p.apply(lambda column: _false_discovery(column, method))

    def of(self, work: Responses) -> Many:
        """The same models of another design."""
        return Many(work, self.method, self.df_method, run_all(work, self.method, progress=False), self._single)

    def permutation_test(
        self,
        predictor: str,
        n: int = 1000,
        *,
        within: str | None = None,
        between: str | None = None,
        seed: Any = None,
        progress: bool | None = None,
    ) -> PermutationTest:
        """Permutation test of a predictor in every model, and in all of them together by the largest |t| (max-T).

        The values of the predictor are shuffled n times, the same way for all responses, and every model is refitted.

        Parameters
        ----------
        predictor
            A column of the data. All coefficients that it enters are tested.
        within
            A column: values move among the rows of each of its levels, as for a condition that varies within subjects.
        between
            A column: whole levels exchange their values, as for a property of subjects. Without either, rows exchange
            theirs.
        seed
            Anything `numpy.random.default_rng` takes; the same seed gives the same permutations.
        """
        if not isinstance(self._work, Responses):
            raise ValueError("a permutation test needs models that share a design: use responses= in place of by=")
        return permutation_test(self, self._work, predictor, n, within, between, seed, progress)

    def to_frame(self) -> pd.DataFrame:
        """One tidy frame: a row per model and coefficient with `estimate se df t p`."""
        pieces = dict(estimate=self.fe_params, se=self.fe_bse, df=self.fe_df, t=self.fe_tvalues, p=self.fe_pvalues)
        tidy = pd.DataFrame({name: piece.stack() for name, piece in pieces.items()})
        return tidy.rename_axis([self._table.index.name or "model", "coefficient"]).reset_index()

    def __repr__(self) -> str:
        fitted, singular = int(self.converged.sum()), int(self.is_singular.sum())
        return f"<{len(self)} fits of {self._work.formula} by {self.method}: {fitted} converged, {singular} singular>"


def _false_discovery(p: pd.Series, method: str) -> pd.Series:
    known = p.dropna()
    return pd.Series(scipy.stats.false_discovery_control(known, method=method), index=known.index).reindex(p.index)


# Compiled pieces -----------------------------------------------------------------------------------------------------

_respond = jax.jit(respond)
_masked_moments = alone(jax.jit(jax.vmap(moments, in_axes=(None, 0, None, None, 0))))
_group_moments = alone(jax.jit(jax.vmap(moments)))


@jax.jit
def _prepare(plan, X, Z, weights):
    basis = condition(plan, X, Z, weights)
    some = jax.tree.map(lambda a: a[0], respond(plan, basis, jnp.ones((X.shape[0], 1))))
    return basis, assemble(plan, basis, some)


@over_lanes
def _degrees_of_freedom(m, reml, t, log_sigma):
    return inference.satterthwaite(t, log_sigma, jnp.eye(m.p, dtype=t.dtype), m, reml)
