"""Tables for papers: of one fit, of several side by side, of any frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..inference.marginal_means import MarginalMeans
from ..models.fitted import FittedModel, check_fit
from ..models.generalized import FittedGeneralizedModel
from ..support.arguments import check_level, check_mapping, listed, one_of, texts
from ..support.table import Table
from ..support.text import _significant
from ..support.wide import COUNTS
from .numbers import decimals, degrees, interval, p_value, shown
from .tidy import tidy

P_VALUES = {"p", "p_value", "p_adjusted", "pvalue"}
DEGREES = {"df", "den_df", "num_df", "NumDF", "DenDF", "df_residual"}
STATISTICS = {"t", "F", "z", "statistic", "F value", "t value", "Chisq"}
ESTIMATES = {"estimate", "emmean", "se", "std_error", "lower", "upper", "conf_low", "conf_high"}
PREDICTORS = {"dispersion": "Dispersion", "zero_inflation": "Zero inflation"}
BELOW = ("se", "interval", "p", "statistic", "nothing")
DDF = {
    "satterthwaite": "Satterthwaite",
    "kenward-roger": "Kenward-Roger",
    "kenward-roger-linear": "Kenward-Roger (linear)",
    "between-within": "between-within",
}


def table(
    what: FittedModel | pd.DataFrame | pd.Series | MarginalMeans,
    title: str | None = None,
    level: float = 0.95,
    labels: Mapping[str, str] | None = None,
) -> Table:
    r"""A table ready to print or to write into a paper: of a fit, or of any frame that this package
    returns.

    what: a fit gives its coefficients with standard errors, intervals, degrees of freedom and
        tests, and its standard deviations and correlations of random effects; a frame (of
        `anova()`, `contrasts()`, `confint()`) or marginal means give their columns, rounded to what
        their standard errors are worth.
    title: above the table; by default the formula of a fit. level: of a fit's intervals. labels:
        other words for terms, columns and groups, as {"Days": "Days of sleep restriction"}.

    Returns a `Table` with `to_latex()`, `to_markdown()`, `to_html()`, `to_typst()`,
    `to_great_tables()` and `frame`.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> print(interlace_jax.table(fit))
    Reaction ~ Days + (1 + Days | Subject)
    Term                                   Estimate   SE           95% CI   df     t     p
    Intercept                                251.41 6.82 [237.01, 265.80] 17.0 36.84 <.001
    Days                                      10.47 1.55    [7.21, 13.73] 17.0  6.77 <.001
    --------------------------------------------------------------------------------------
    SD (Intercept) | Subject                  24.74 5.84   [15.58, 39.28]
    SD Days | Subject                          5.92 1.25     [3.92, 8.95]
    Correlation (Intercept).Days | Subject     0.07 0.33    [-0.52, 0.61]
    SD residual                               25.59 1.51   [22.80, 28.72]
    180 observations, 18 levels of Subject. Fitted by REML, Satterthwaite degrees of
      freedom.
    >>> print(interlace_jax.table(fit.anova(), "Tests of the fixed effects").to_markdown())
    **Tests of the fixed effects**
    <BLANKLINE>
    |  | Sum Sq | Mean Sq | NumDF | DenDF | F value | Pr(\>F) |
    | :-- | --: | --: | --: | --: | --: | --: |
    | Days | 30031 | 30031 | 1 | 17.0 | 45.85 | \<.001 |
    """
    check_mapping("labels", labels, '{"x": "a longer name"}')
    check_level(level)
    words = dict(labels or {})
    if isinstance(what, FittedModel):
        return _of_fit(what, title, level, words)
    if isinstance(what, MarginalMeans):
        return _of_frame(what.frame, title or "", words)
    if isinstance(what, pd.Series):
        what = what.to_frame(what.name if what.name is not None else "value")
    if not isinstance(what, pd.DataFrame):
        raise TypeError(
            f"table takes a fit, a pandas frame or marginal means, not {type(what).__name__}"
        )
    return _of_frame(what, title or "", words)


# One fit ------------------------------------------------------------------------------------------


def _of_fit(fit: FittedModel, title: str | None, level: float, words: Mapping[str, str]) -> Table:
    frame = tidy(fit, level=level)
    is_z = np.isinf(frame["df"]).any()
    test = ("z", "p") if is_z else ("df", "t", "p")
    columns = ("Term", "Estimate", "SE", f"{level * 100:g}% CI", *test)
    cells = [_row_of(row, words, is_z) for row in frame.itertuples()]
    fixed = int((frame["effect"] == "fixed").sum())
    rules = [fixed] if 0 < fixed < len(frame) else []
    heading = str(fit.design.formula) if title is None else title
    return Table(heading, columns, cells, "l" + "r" * (len(columns) - 1), _notes(fit), rules)


def _row_of(row: Any, words: Mapping[str, str], is_z: bool) -> tuple[str, ...]:
    """One row of `tidy` as text; z tests have no degrees of freedom to show."""
    places = _places(row)
    estimate, error = shown(row.estimate, places), shown(row.std_error, places)
    limits = interval(row.conf_low, row.conf_high, places)
    test = (shown(row.statistic, 2), p_value(row.p_value))
    if not is_z:
        test = (degrees(row.df), *test)
    return (_term(row, words), estimate, error, limits, *test)


def _places(row: Any) -> int:
    """Decimals of the numbers of a term: those of its standard error."""
    return 2 if row.term.startswith(("cor__", "rho")) else decimals(row.std_error)


def _term(row: Any, words: Mapping[str, str]) -> str:
    """What a row of `tidy` is called in a paper."""
    if row.effect == "fixed":
        return words.get(row.term, row.term)
    if row.effect == "family":
        term = words.get(row.term, row.term)
        return term if row.group == "family" else f"{PREDICTORS[row.group]}: {term}"
    group, (kind, _, names) = words.get(row.group, row.group), row.term.partition("__")
    if row.group == "Residual":
        return "SD residual" if row.term == "sd__Observation" else f"Residual {row.term}"
    if not names:
        return f"{kind} | {group}"
    if kind == "sd":
        return f"SD {words.get(names, names)} | {group}"
    both = _both(names, words)
    renamed = ", ".join(words.get(name, name) for name in both)
    return f"Correlation {names if words.keys().isdisjoint(both) else renamed} | {group}"


def _both(names: str, words: Mapping[str, str]) -> tuple[str, ...]:
    """The two columns of a correlation `(Intercept).Days`; where names have dots themselves, those
    that have words.
    """
    parts = names.split(".")
    splits = [(".".join(parts[:i]), ".".join(parts[i:])) for i in range(1, len(parts))]
    return max(splits, key=lambda split: sum(name in words for name in split), default=(names,))


def _notes(fit: FittedModel) -> list[str]:
    groups = "".join(f", {m} levels of {name}" for name, m in fit.ngroups.items())
    rule = f", {DDF[fit.df_method]} degrees of freedom" if fit.df_method in DDF else ""
    said = [f"{fit.nobs} observations{groups}. Fitted by {fit.method}{rule}."]
    if isinstance(fit, FittedGeneralizedModel):
        said.append(f"Family {fit.family.title} ({fit.family.link}), {fit.integral}.")
        said += [f"Number of the family that ran off: {name}." for name in fit.runaway]
    if fit.design.residual is not None:
        place = fit.design.residual.reference
        said.append(
            "Covariance of the residuals: "
            f"{fit.design.residual}{f' (SD: {place})' if place else ''}."
        )
    if fit.is_singular:
        said.append(
            "The fit is singular: a variance is estimated at 0, or a correlation at 1 or -1."
        )
    if not fit.converged:
        said.append("The search for the estimates did not converge.")
    return said


# Several fits -------------------------------------------------------------------------------------


def compare(
    *fits: FittedModel,
    names: Sequence[str] | None = None,
    terms: Sequence[str] | Mapping[str, str] | None = None,
    below: str = "se",
    level: float = 0.95,
    stars: bool = False,
    title: str = "",
    labels: Mapping[str, str] | None = None,
) -> Table:
    """Models side by side: coefficients, standard deviations of random effects, and how well each
    fits.

    fits: one or more fits of this package. names: headings, by default (1), (2), ...
    terms: the coefficients to show, in this order; a mapping also gives them other names. By
        default all, in the order in which the models have them.
    below: what stands below each coefficient: "se" in parentheses, "interval" in brackets, "p",
        "statistic", or "nothing". level: of the intervals. stars: mark p < .05, .01 and .001.
    title: above the table. labels: other words for grouping factors and random-effect columns.

    Returns a `Table`, as `table`. It has a note where log-likelihood, AIC and BIC cannot be
    compared: models by REML with different fixed parts, or fitted to different numbers of rows.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> less = fit.update("~ Days + (1 | Subject)")
    >>> terms = {"Days": "Days of restriction"}
    >>> print(interlace_jax.compare(less, fit, names=["no slopes", "slopes"], terms=terms))
                                                           no slopes slopes
    Days of restriction                                        10.47  10.47
                                                              (0.80) (1.55)
    -----------------------------------------------------------------------
    SD (Intercept) | Subject                                   37.12  24.74
    SD Days of restriction | Subject                                   5.92
    Correlation (Intercept), Days of restriction | Subject             0.07
    SD residual                                                30.99  25.59
    -----------------------------------------------------------------------
    Observations                                                 180    180
    Levels of Subject                                             18     18
    Criterion                                                   REML   REML
    Log-likelihood                                            -893.2 -871.8
    AIC                                                       1794.5 1755.6
    BIC                                                       1807.2 1774.8
    Standard errors in parentheses.
    """
    if not fits:
        raise TypeError("compare takes one or more fits, as compare(m1, m2)")
    for fit in fits:
        check_fit("compare", fit)
    one_of("below", below, BELOW)
    check_level(level)
    heads = list(names) if names is not None else [f"({i})" for i in range(1, len(fits) + 1)]
    if len(heads) != len(fits):
        raise ValueError(f"names has {len(heads)} headings for {len(fits)} fits")
    words = dict(labels or {}) | (dict(terms) if isinstance(terms, Mapping) else {})
    frames = [tidy(fit, level=level) for fit in fits]
    parts = [
        _coefficient_rows(frames, terms, below, stars, words),
        _random_rows(frames, words),
        _criteria_rows(fits, words),
    ]
    rows = [row for part in parts for row in part]
    starts = np.cumsum([len(part) for part in parts[:-1]]).tolist()
    rules = [start for start, part in zip(starts, parts[1:], strict=True) if start and part]
    notes = _notes_of_all(fits, below, level, stars)
    return Table(title, ("", *heads), rows, "l" + "r" * len(fits), notes, sorted(set(rules)))


def _coefficient_rows(frames, terms, below, stars, words) -> list[list[str]]:
    fixed = [frame[frame["effect"] == "fixed"].set_index("term") for frame in frames]
    known = list(dict.fromkeys(term for frame in fixed for term in frame.index))
    wanted = known if terms is None else list(texts("terms", list(terms), "x"))
    if unknown := [term for term in wanted if term not in known]:
        raise ValueError(
            f"terms has {listed(unknown)}, of which no model has a coefficient; there are "
            f"{listed(known)}"
        )
    rows = []
    for term in wanted:
        found = [
            next(frame.loc[[term]].itertuples()) if term in frame.index else None for frame in fixed
        ]
        rows.append(
            [
                words.get(term, term),
                *("" if row is None else _estimate(row, stars) for row in found),
            ]
        )
        if below != "nothing":
            rows.append(["", *("" if row is None else _beneath(row, below) for row in found)])
    return rows


def _estimate(row: Any, stars: bool) -> str:
    marks = sum(row.p_value < bound for bound in (0.05, 0.01, 0.001)) if stars else 0
    return shown(row.estimate, decimals(row.std_error)) + "*" * marks


def _beneath(row: Any, below: str) -> str:
    places = decimals(row.std_error)
    if below == "interval":
        return interval(row.conf_low, row.conf_high, places)
    if below == "p":
        return p_value(row.p_value)
    value, places = (row.std_error, places) if below == "se" else (row.statistic, 2)
    return "" if np.isnan(value) else f"({shown(value, places)})"


def _random_rows(frames, words) -> list[list[str]]:
    random = [frame[frame["effect"].isin(("ran_pars", "family"))] for frame in frames]
    residual = [("Residual", "sd__Observation")]
    found = dict.fromkeys((row.group, row.term) for frame in random for row in frame.itertuples())
    keys = [key for key in found if key not in residual] + [key for key in residual if key in found]
    tables = [{(row.group, row.term): row for row in frame.itertuples()} for frame in random]
    rows = []
    for key in keys:
        here = [table.get(key) for table in tables]
        label = _term(next(row for row in here if row is not None), words)
        rows.append(
            [label, *("" if row is None else shown(row.estimate, _places(row)) for row in here)]
        )
    return rows


def _criteria_rows(fits: Sequence[FittedModel], words: Mapping[str, str]) -> list[list[str]]:
    groups = dict.fromkeys(name for fit in fits for name in fit.ngroups)
    rows = [["Observations", *(str(fit.nobs) for fit in fits)]]
    for name in groups:
        rows.append(
            [
                f"Levels of {words.get(name, name)}",
                *(str(fit.ngroups.get(name, "")) for fit in fits),
            ]
        )
    rows.append(["Criterion", *(fit.method for fit in fits)])
    for label, values in {
        "Log-likelihood": [fit.llf for fit in fits],
        "AIC": [fit.aic for fit in fits],
        "BIC": [fit.bic for fit in fits],
    }.items():
        rows.append([label, *(shown(value, 1) for value in values)])
    return rows


def _notes_of_all(fits: Sequence[FittedModel], below: str, level: float, stars: bool) -> list[str]:
    said = {
        "se": "Standard errors in parentheses.",
        "interval": f"{level * 100:g}% intervals in brackets.",
        "p": "p-values below the estimates.",
        "statistic": "t or z statistics in parentheses.",
        "nothing": "",
    }[below]
    notes = [said] * bool(said)
    if stars:
        notes.append("* p < .05, ** p < .01, *** p < .001.")
    parts = {(fit.method, *sorted(fit.design.columns)) for fit in fits}
    if len({fit.nobs for fit in fits}) > 1:
        notes.append(
            "The models were fitted to different numbers of rows: their criteria cannot be "
            "compared."
        )
    elif len(parts) > 1 and any(fit.method == "REML" for fit in fits):
        notes.append("Criteria by REML of models with different fixed parts cannot be compared.")
    if singular := [i for i, fit in enumerate(fits, 1) if fit.is_singular]:
        notes.append(
            "Singular, a variance at 0 or a correlation at 1 or -1: model "
            f"{', '.join(map(str, singular))}."
        )
    if unfinished := [i for i, fit in enumerate(fits, 1) if not fit.converged]:
        notes.append(f"Not converged: model {', '.join(map(str, unfinished))}.")
    return notes


# Frames -------------------------------------------------------------------------------------------


def _of_frame(frame: pd.DataFrame, title: str, words: Mapping[str, str]) -> Table:
    plain = isinstance(frame.index, pd.RangeIndex) and frame.index.name is None
    names = [name if name is not None else "" for name in frame.index.names]
    whole = frame if plain else frame.reset_index(names=[f"\0{i}" for i in range(len(names))])
    heads = ([] if plain else names) + list(frame.columns)
    uncertainty = next(
        (frame[name].to_numpy(float) for name in ("se", "std_error") if name in frame), None
    )
    columns = [_cells(head, whole.iloc[:, i], uncertainty, words) for i, head in enumerate(heads)]
    align = "".join("r" if _is_number(whole.iloc[:, i]) else "l" for i in range(len(heads)))
    header = [
        " ".join(map(str, head)) if isinstance(head, tuple) else words.get(head, str(head))
        for head in heads
    ]
    return Table(title, header, list(zip(*columns, strict=True)), align)


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _cells(
    head: Any, column: pd.Series, uncertainty: np.ndarray | None, words: Mapping[str, str]
) -> list[str]:
    """One column as text: by what it holds, which its name says."""
    if not _is_number(column):
        return ["" if pd.isna(value) else words.get(str(value), str(value)) for value in column]
    values = column.to_numpy(float)
    if pd.api.types.is_integer_dtype(column):
        return [str(value) for value in column]
    if head in P_VALUES or str(head).startswith("Pr("):
        return list(map(p_value, values))
    if head in DEGREES:
        return list(map(degrees, values))
    if head in COUNTS:
        return ["" if np.isnan(value) else f"{value:.0f}" for value in values]
    if head in STATISTICS:
        return [shown(value, 2) for value in values]
    if head in ESTIMATES and uncertainty is not None:
        return [shown(value, decimals(se)) for value, se in zip(values, uncertainty, strict=True)]
    return [
        "" if np.isnan(value) else cell
        for value, cell in zip(values, _significant(values), strict=True)
    ]
