"""Reference results (tests/reference) as Python objects; the README there explains the fields."""

import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from formulaic import model_matrix
from helpers.oracle import Factor, Problem

REFERENCE = Path(__file__).parents[1] / "reference"
SMALL = 1000  # rows; up to here a dense n x n matrix is cheap


@dataclass(frozen=True)
class Case:
    """One JSON file: `case["fixef"]` is a field of it, `case.frame` its data, `case.problem` its
    arrays.
    """

    name: str
    fields: dict[str, Any]

    def __getitem__(self, field: str) -> Any:
        return self.fields[field]

    def get(self, field: str, default: Any = None) -> Any:
        return self.fields.get(field, default)

    @property
    def reml(self) -> bool:
        return self["method"] == "REML"

    @property
    def frame(self) -> pd.DataFrame:
        """The data, a fresh copy; the columns listed under `factors` are strings."""
        return _frame(self["data"], tuple(self["factors"])).copy()

    @property
    def formula(self) -> str:
        """Fixed and random part in one text, as the library takes it."""
        return " + ".join([self["fixed"], *self["random"]])

    @property
    def theta(self) -> np.ndarray:
        return np.asarray(self["theta"], float)

    def values(self, field: str) -> np.ndarray:
        """Numbers by coefficient, such as `fixef` or `se`, in the order of `coef_names`."""
        return np.asarray([self[field][name] for name in self["coef_names"]], float)

    @cached_property
    def problem(self) -> Problem:
        """The arrays of the model, built from the names in the JSON, without the library."""
        frame = self.frame
        y, X = model_matrix(self["fixed"], frame)
        return Problem(
            y=y.to_numpy().ravel(),
            X=X[self["coef_names_formulaic"]].to_numpy(),
            factors=tuple(_factor(self, name, frame) for name in self["n_levels"]),
            weights=frame[self["weights"]].to_numpy() if self["weights"] else None,
            offset=frame[self["offset"]].to_numpy() if self["offset"] else None,
        )


@cache
def load_case(name: str) -> Case:
    """One case by the name of its file, such as `load_case("sleepstudy_slope_REML")`."""
    return Case(name, json.loads((REFERENCE / "cases" / f"{name}.json").read_text()))


def lmm_cases(*, method: str | None = None, max_rows: int = SMALL) -> list:
    """Every linear-mixed-model case with at most `max_rows` rows, ready for
    `pytest.mark.parametrize`.
    """
    cases = [load_case(path.stem) for path in sorted((REFERENCE / "cases").glob("*.json"))]
    chosen = [case for case in cases if case["kind"] == "lmm" and method in (None, case["method"])]
    return [pytest.param(case, id=case.name) for case in chosen if case["nobs"] <= max_rows]


@cache
def _frame(path: str, text_columns: tuple[str, ...]) -> pd.DataFrame:
    return pd.read_csv(REFERENCE / path, dtype=dict.fromkeys(text_columns, str))


def _factor(case: Case, name: str, frame: pd.DataFrame) -> Factor:
    terms = [term for term in case["var_terms"] if term["group"] == name]
    labels = frame[terms[0]["group_vars"]].agg(":".join, axis=1)
    levels = case["ranef"][name]["levels"]
    widths = [len(term["columns"]) for term in terms]
    ends = np.cumsum(widths)
    return Factor(
        codes=labels.map({level: code for code, level in enumerate(levels)}).to_numpy(),
        Z=np.column_stack([_column(frame, column) for term in terms for column in term["columns"]]),
        m=len(levels),
        terms=tuple(
            tuple(range(end - width, end)) for width, end in zip(widths, ends, strict=True)
        ),
    )


def _column(frame: pd.DataFrame, name: str) -> np.ndarray:
    """A random-effects column by R's name for it: `(Intercept)`, a numeric variable, or variable
    plus level.
    """
    if name == "(Intercept)":
        return np.ones(len(frame))
    if name in frame:
        return frame[name].to_numpy(float)
    variable = next(column for column in frame if name.startswith(column))
    return (frame[variable] == name.removeprefix(variable)).to_numpy(float)
