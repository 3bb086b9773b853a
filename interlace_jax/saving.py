"""Fits as small files without the data: to predict elsewhere.

A file is NumPy's archive of arrays (`.npz`) with one text in it, JSON, which says what they are.
Nothing of a file is executed: classes are made by name from a short list, and formulas that do more
than compute are refused.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from formulaic.model_spec import ModelSpec, ModelSpecs
from formulaic.parser.types import Factor as Expression
from formulaic.transforms import contrasts

from .design.auxiliary import Predictor
from .design.column_contrasts import MatrixContrasts
from .design.counts import Observed
from .design.design import Design
from .design.formula import Formula, Term
from .design.grouping import Factor
from .design.model_matrices import parts_of
from .design.residual_formula import Power, Residual
from .design.residual_groups import ResidualGroups
from .design.safety import why_unsafe
from .inference.coefficients import (
    BetweenWithinCoefficients,
    Coefficients,
    KenwardRogerCoefficients,
    SatterthwaiteCoefficients,
    coefficients,
)
from .inference.prediction import predict
from .inference.response_prediction import predict_generalized
from .inference.row_variances import Kept, kept_information
from .models import response
from .models.fitted import FittedModel
from .models.generalized import FittedGeneralizedModel
from .models.linear_predictor import Rows
from .models.parameters import level_roots, relative_factors
from .numerics.covariance.across import Kernel, Known
from .numerics.covariance.block import Block
from .numerics.covariance.correlations import (
    ARMA11,
    Antedependence,
    Exponential,
    FreeCorrelations,
    Matern,
    SquaredExponential,
    Toeplitz,
)
from .numerics.covariance.residual import ResidualCovariance
from .numerics.covariance.structures import (
    AR1,
    BoundaryAvoiding,
    CompoundSymmetry,
    Diagonal,
    HomogeneousDiagonal,
    Unstructured,
)
from .numerics.crossproducts.layout import Layout
from .numerics.estimation.estimate import Estimate
from .numerics.families.family import (
    Bernoulli,
    Beta,
    BetaBinomial,
    Binomial,
    Distribution,
    Gamma,
    Gaussian,
    InverseGaussian,
    NegativeBinomial,
    Ordinal,
    Poisson,
    Student,
    Truncated,
    ZeroInflated,
)
from .numerics.uncertainty.curvature import Curvature
from .numerics.uncertainty.kenward_roger import Adjusted
from .support.arguments import check_level
from .support.elsewhere import refuse_attribute


@dataclasses.dataclass(frozen=True, eq=False)
class Parameters:
    """Estimates of a generalised model: theta (d,) absolute, beta (p,), gamma (r,) on free
    scales.
    """

    theta: np.ndarray
    beta: np.ndarray
    gamma: np.ndarray


VERSION = 1
CLASSES = {
    cls.__name__: cls
    for cls in (
        Formula, Term, Factor, Design, Block, Layout, Estimate, Curvature, Adjusted, Kept,
        Unstructured, Diagonal, HomogeneousDiagonal, CompoundSymmetry, AR1, BoundaryAvoiding, Known,
        Residual, Power, ResidualGroups, ResidualCovariance, FreeCorrelations, Toeplitz,
        Antedependence, ARMA11, Exponential, SquaredExponential, Matern, Observed, Predictor,
        Parameters, Bernoulli, Beta, BetaBinomial, Binomial, Gamma, Gaussian, InverseGaussian,
        NegativeBinomial, Ordinal, Poisson, Student, Truncated, ZeroInflated,
    )
}  # fmt: skip
CODINGS = ("Treatment", "SAS", "Sum", "Helmert", "Diff", "Poly", "Custom")
CONTRASTS = {f"{name}Contrasts": getattr(contrasts, f"{name}Contrasts") for name in CODINGS}
CONTRASTS["MatrixContrasts"] = MatrixContrasts
ENGINES = ("dense", "sparse", "iterative")  # of linear models
LABELS = re.compile(r"str|string|object|bool|u?int\d+|float\d+")  # types of levels
OF_FAMILIES = ("family_params", "parameter_cov")
TABLES = ("fe_params", "fe_bse", "fe_df", "fe_tvalues", "fe_pvalues", "fe_conf_int", "varcorr")


# Values as JSON and arrays ------------------------------------------------------------------------


class _Writer:
    """Turns values into JSON; arrays are put aside."""

    def __init__(self):
        self.arrays: list[np.ndarray] = []

    def json(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, np.generic):
            return self.json(value.item())
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            self.arrays.append(value)
            return {"array": len(self.arrays) - 1}
        if isinstance(value, list | tuple) and type(value).__name__ not in CLASSES:
            return {
                type(value).__name__ if type(value) is tuple else "list": [
                    self.json(v) for v in value
                ]
            }
        if isinstance(value, frozenset):
            return {"set": [self.json(v) for v in sorted(value)]}
        if isinstance(value, dict):
            return {"dict": [[self.json(k), self.json(v)] for k, v in value.items()]}
        if isinstance(value, pd.Index):
            return {
                "index": [self.json(v) for v in value],
                "dtype": str(value.dtype),
                "name": self.json(value.name),
            }
        if isinstance(value, pd.Series):
            return {
                "series": [
                    self.json(value.to_numpy()),
                    self.json(value.index),
                    self.json(value.name),
                ]
            }
        if isinstance(value, pd.DataFrame):
            columns = [[self.json(name), self.json(_plain(value[name]))] for name in value.columns]
            return {"frame": columns, "rows": self.json(value.index)}
        if isinstance(value, Expression.Kind):
            return {"kind": value.value}
        if isinstance(value, contrasts.ContrastsState):
            return {"coding": self.json(value.contrasts), "levels": self.json(list(value.levels))}
        name = type(value).__name__
        if name in CONTRASTS:
            options = {k: v for k, v in vars(value).items() if v is not contrasts.UNSET}
            return {"contrasts": name, "options": self.json(options)}
        if CLASSES.get(name) is type(value):
            return {"class": name, "fields": {k: self.json(v) for k, v in _fields(value).items()}}
        raise ValueError(
            f"a file cannot hold {type(value).__name__} objects: pickle the fit instead"
        )


def _plain(column: pd.Series) -> Any:
    return (
        column.to_numpy()
        if column.dtype.kind in "biuf"
        else [v if isinstance(v, str) else None for v in column]
    )


def _fields(value: Any) -> dict[str, Any]:
    if hasattr(value, "_asdict"):
        return value._asdict()
    return {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}


class _Reader:
    """Turns JSON and arrays into values. What it does not know is an error."""

    def __init__(self, arrays: list[np.ndarray]):
        self.arrays = arrays

    def value(self, found: Any) -> Any:
        if not isinstance(found, dict):
            if isinstance(found, list):
                raise ValueError("a list without a name")
            return found
        (kind, inner), *more = found.items()
        rest = dict(more)
        if kind == "array":
            return self.arrays[inner]
        if kind in ("list", "tuple"):
            return (list if kind == "list" else tuple)(map(self.value, inner))
        if kind == "set":
            return frozenset(map(self.value, inner))
        if kind == "dict":
            return {self.value(k): self.value(v) for k, v in inner}
        if kind == "index" and LABELS.fullmatch(rest["dtype"]):
            return pd.Index(
                [self.value(v) for v in inner], dtype=rest["dtype"], name=self.value(rest["name"])
            )
        if kind == "series":
            values, index, name = map(self.value, inner)
            return pd.Series(values, index=index, name=name)
        if kind == "frame":
            columns = {self.value(name): self.value(values) for name, values in inner}
            return pd.DataFrame(columns, index=self.value(rest["rows"]))
        if kind == "kind":
            return Expression.Kind(inner)
        if kind == "coding":
            return contrasts.ContrastsState(self.value(inner), self.value(rest["levels"]))
        if kind == "contrasts":
            return CONTRASTS[inner](**self.value(rest["options"]))
        return CLASSES[inner](**{name: self.value(part) for name, part in rest["fields"].items()})


# Saving -------------------------------------------------------------------------------------------


def save(fit: FittedModel, path: str | os.PathLike) -> None:
    """Write what predictions and tables need into a small file, without the data.

    path: ends in `.npz`. `interlace_jax.load(path)` gives a `SavedFit`, in other processes and on
    other machines. No pickle is in it, and reading it executes nothing. A fit is refused, with the
    reason, if its formula calls functions of yours, or if a structure within levels or subjects is
    yours. Of levels that covary, and of subjects whose residuals do, there is what predictions
    need: not the matrix or kernel, nor intervals that the rows of the fit enter. Of generalised
    models there are all predictions, with their intervals; a family of yours is refused.

    >>> import os, tempfile
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "sleep.npz")
    ...     fit.save(path)
    ...     saved = interlace_jax.load(path)
    >>> saved.predict(sleep.head(2), interval="prediction").round(1)
         fit  lower  upper    se
    0  253.7  197.6  309.7  28.4
    1  273.3  218.7  328.0  27.7
    """
    if reason := why_unsafe(fit.design.formula):
        raise ValueError(
            "a file can hold formulas that compute with functions they know only; there is "
            f"{reason}"
        )
    if isinstance(fit, FittedGeneralizedModel):
        if tied := [f.name for f in fit.design.factors if f.across is not None]:
            raise ValueError(
                f"a file cannot hold the covariance of the levels of {tied[0]!r} in a generalised "
                "model: pickle the fit instead"
            )
    elif fit.model.engine.name not in ENGINES:
        raise ValueError("a file cannot hold this model: pickle the fit instead")
    writer = _Writer()
    text = json.dumps(dict(version=VERSION, content=writer.json(_content(fit))))
    arrays = {f"a{i}": np.asarray(a) for i, a in enumerate(writer.arrays)}
    with open(path, "wb") as file:
        np.savez_compressed(file, text=np.frombuffer(text.encode(), np.uint8), **arrays)


def _content(fit: FittedModel) -> dict[str, Any]:
    design, e, by_rule = fit.design, fit.estimate, coefficients(fit)
    specs = (
        None
        if design.specs is None
        else {key: _state(design.specs[key]) for key in _keys(design.formula)}
    )
    is_linear = not isinstance(fit, FittedGeneralizedModel)
    return dict(
        design=_without_rows(design),
        specs=specs,
        estimate=e if is_linear else Parameters(e.theta, e.beta, e.gamma),
        joint=None if is_linear else fit.joint_covariance,
        modes=list(fit.mode_arrays),
        curvature=Curvature(*map(np.asarray, fit.curvature)),
        vcov=by_rule.vcov,
        adjusted=getattr(by_rule, "adjusted", None),
        by_column=getattr(by_rule, "by_column", None),
        information=_information(fit) if is_linear else None,
        facts={
            name: getattr(fit, name)
            for name in ("method", "df_method", "nobs", "sigma", "deviance", "llf", "aic", "bic")
        },
        tables={name: getattr(fit, name) for name in TABLES + OF_FAMILIES * (not is_linear)},
        random_effects=fit.random_effects,
        summary=str(fit.summary()),
    )


def _keys(formula: Formula) -> list[str]:
    return [key for key in parts_of(formula) if key != "y"]


def _state(spec: ModelSpec) -> dict[str, Any]:
    return dict(transforms=dict(spec.transform_state), codings=dict(spec.encoder_state))


def _information(fit: FittedModel) -> Kept | None:
    """What variances of predictions are made of; None where the rows of the fit enter them."""
    found = None if fit.design.residual is not None else kept_information(fit)
    if found is None:
        return None
    blocks = tuple(dataclasses.replace(b, across=_mark(b.across)) for b in found.layout.blocks)
    return dataclasses.replace(found, layout=dataclasses.replace(found.layout, blocks=blocks))


def _mark(across: Known | Kernel | None) -> Known | None:
    """That levels covary, without how."""
    return None if across is None else Known()


def _without_rows(design: Design) -> Design:
    """The design without its rows; that it had an offset of its own is remembered, and that levels
    covary.
    """
    none = np.empty(0, np.int32)
    factors = tuple(
        dataclasses.replace(
            f, codes=none, Z=np.empty((0, len(f.columns))), across=_mark(f.across), K=None
        )
        for f in design.factors
    )
    given = design.residual
    if given is not None:
        given = dataclasses.replace(given, rows=None, subjects=pd.RangeIndex(0), by_row=None)
    return dataclasses.replace(
        design,
        y=None,
        X=np.empty((0, design.X.shape[1])),
        weights=None,
        offset=None if design.offset is None else np.empty(0),
        factors=factors,
        index=pd.RangeIndex(0),
        rows=np.empty(0, int),
        specs=None,
        residual=given,
        observed=_without_trials(design.observed),
        predictors=tuple(_without_values(p) for p in design.predictors),
    )


def _without_trials(seen: Observed | None) -> Observed | None:
    return None if seen is None else dataclasses.replace(seen, trials=None)


def _without_values(p: Predictor) -> Predictor:
    return dataclasses.replace(p, D=None if p.D is None else np.empty((0, len(p.columns))))


# Loading ------------------------------------------------------------------------------------------


def load(path: str | os.PathLike) -> SavedFit:
    """A fit that `save` has written.

    Raises
    ------
    ValueError
        For a file that is damaged or none of ours, of a later version, or whose formula does more
        than compute.

    Examples
    --------
    >>> import os, tempfile
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "sleep.npz")
    ...     fit.save(path)
    ...     saved = interlace_jax.load(path)
    >>> saved
    <SavedFit of Reaction ~ Days + (1 + Days | Subject) by REML, 180 rows>
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = [archive[f"a{i}"] for i in range(len(archive.files) - 1)]
            text = json.loads(archive["text"].tobytes().decode())
        version = text["version"]
        if version == VERSION:
            content = _Reader(arrays).value(text["content"])
    except FileNotFoundError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it
        raise ValueError(
            f"{os.fspath(path)!r} is no fit saved by interlace_jax, or it is damaged"
        ) from error
    if version != VERSION:
        raise ValueError(
            f"{os.fspath(path)!r} was saved by a later version of interlace_jax (format "
            f"{version}): update the package"
        )
    is_linear = content["design"].observed is None
    return SavedFit(content) if is_linear else SavedGeneralizedFit(content)


@dataclasses.dataclass(frozen=True)
class _Engine:
    """What is left of an engine without data: nothing can be computed anew."""

    has_intervals: bool

    def require(self, capability: str) -> None:
        if capability != "prediction_intervals" or not self.has_intervals:
            raise ValueError("this needs the data of the fit, which a saved fit does not have")


@dataclasses.dataclass(frozen=True)
class _Model:
    engine: _Engine


class SavedFit:
    """A fit from a file: predictions with intervals, and its tables.

    What needs the data is not there.

    `fe_params fe_bse fe_df fe_tvalues fe_pvalues fe_conf_int varcorr random_effects sigma theta
    deviance llf aic bic nobs method` are as those of the fit that was saved; `summary()` is its
    text.

    >>> import os, tempfile
    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "sleep.npz")
    ...     fit.save(path)
    ...     saved = interlace_jax.load(path)
    >>> saved.fe_params.round(2)
    Intercept    251.41
    Days          10.47
    dtype: float64
    >>> saved.random_effects["Subject"].head(2).round(2)
          (Intercept)  Days
    S308         2.26  9.20
    S309       -40.40 -8.62
    """

    def __init__(self, content: dict[str, Any]):
        design: Design = content["design"]
        if reason := why_unsafe(design.formula):
            raise ValueError(f"the formula of this file does more than compute: there is {reason}")
        if content["specs"] is not None:
            design = dataclasses.replace(design, specs=_specs(design.formula, content["specs"]))
        self._content = content
        self.design, self.estimate = design, content["estimate"]
        self.mode_arrays, self.curvature = content["modes"], content["curvature"]
        self.method, self.df_method = content["facts"]["method"], content["facts"]["df_method"]
        self.random_effects = content["random_effects"]
        self.model = _Model(_Engine(content["information"] is not None))

    def __getattr__(self, name: str) -> Any:
        content = self.__dict__.get("_content", {})
        for known in ("facts", "tables"):
            if name in content.get(known, {}):
                return content[known][name]
        if not name.startswith("_") and hasattr(FittedModel, name):
            _refuse(f"{name!r}")
        refuse_attribute(name)
        raise AttributeError(f"a saved fit has no {name!r}; what needs the data is not there")

    @property
    def theta(self) -> np.ndarray:
        """Relative covariance parameters, lme4's theta."""
        return self.estimate.theta

    @property
    def scale(self) -> float:
        """Residual variance."""
        return float(self.estimate.sigma) ** 2

    def summary(self) -> str:
        """The summary as text."""
        return self._content["summary"]

    def remembered(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What the fit had kept."""
        kept = {
            "information": lambda: self._content["information"],
            ("coefficients", self.df_method): self._coefficients,
        }
        if key not in kept:
            _refuse(f"{key!r}")
        return kept[key]()

    def _coefficients(self) -> Coefficients:
        given = self.design.columns, self.estimate.beta, self._content["vcov"]
        if self._content["adjusted"] is not None:
            return KenwardRogerCoefficients(*given, self._content["adjusted"])
        if self._content.get("by_column") is not None:
            return BetweenWithinCoefficients(*given, self._content["by_column"])
        if self.df_method == "normal" or not self.design.columns:
            return Coefficients(*given)
        return SatterthwaiteCoefficients(*given, lambda: self.curvature)

    def predict(
        self,
        data: Any,
        include_re: bool | Iterable[str] = True,
        allow_new_levels: bool = True,
        offset: str | Iterable[float] | None = None,
        interval: str | None = None,
        level: float = 0.95,
    ) -> pd.Series | pd.DataFrame:
        """Predictions for new rows, as by `predict` of the fit."""
        check_level(level)
        return predict(self, data, include_re, allow_new_levels, offset, interval, level)

    def __repr__(self) -> str:
        return f"<SavedFit of {self.design.formula} by {self.method}, {self.nobs} rows>"


class SavedGeneralizedFit(SavedFit):
    """A generalised fit from a file: predictions on every scale with their intervals, and tables.

    Beside those of `SavedFit`: `family`, `family_params`, `parameter_cov`.
    """

    @property
    def family(self) -> Distribution:
        """The distribution of the response."""
        return self.design.observed.family

    @property
    def scale(self) -> float:
        """1: theta is absolute."""
        return 1.0

    @functools.cached_property
    def Lambdas(self) -> list[np.ndarray]:  # noqa: N802 - as of a fit
        """Covariance factors (k, k), lower triangular."""
        return relative_factors(self.design.factors, self.estimate.theta)

    @property
    def level_roots(self) -> list[np.ndarray | None]:
        """None for each factor: levels do not covary."""
        return level_roots(self.design.factors, self.estimate.theta)

    @property
    def joint_covariance(self) -> np.ndarray:
        """Covariance of (theta, beta, gamma)."""
        return self._content["joint"]

    @property
    def beta_covariance(self) -> np.ndarray:
        """Covariance of the coefficients (p, p)."""
        return self._content["vcov"]

    def free_rows(self, rows: Rows) -> list[np.ndarray]:
        """Parameters of the family in rows, on their free scales: (n,) each."""
        return response.free_rows(self.design, self.estimate.gamma, rows.D, len(rows.X))

    def labelled(self, values: np.ndarray, index: pd.Index) -> pd.Series | pd.DataFrame:
        """Means (n,) as a Series, probabilities of categories as a frame."""
        return response.labelled(self.family, values, index)

    def with_parameters(
        self, theta: np.ndarray, beta: np.ndarray, gamma: np.ndarray
    ) -> SavedGeneralizedFit:
        """The same fit with other estimates, for what is computed of them alone."""
        return SavedGeneralizedFit(self._content | {"estimate": Parameters(theta, beta, gamma)})

    def predict(self, data: Any, *args: Any, **options: Any) -> pd.Series | pd.DataFrame:
        """Predictions for new rows, as by `predict` of the fit, with its arguments."""
        return predict_generalized(self, data, *args, **options)


def _refuse(what: str) -> NoReturn:
    raise AttributeError(f"{what} needs the data of the fit, which a saved fit does not have")


def _specs(formula: Formula, states: dict[str, Any]) -> ModelSpecs:
    parts = parts_of(formula)
    return ModelSpecs(
        **{
            key: ModelSpec(
                parts[key].formula,
                transform_state=state["transforms"],
                encoder_state=state["codings"],
            )
            for key, state in states.items()
        }
    )
