"""The printed page of a fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from .inference.coefficients import coefficients
from .inference.family_parameters import family_params, predictor_table
from .inference.variances import residual_table, structure, uncertainty
from .models.fitted import FittedModel
from .models.generalized import FittedGeneralizedModel
from .models.parameters import _blocks, _correlations, natural_names
from .models.residual import relative_sds
from .numerics.covariance.parameters import has_prior
from .support.table import Table, as_html, as_text
from .support.text import LEGEND, LINE, _decimals, _fixed, _p_value, _significant, _stars

GAIN = 1e-9  # deviance units below which nobody needs to know more
LIMITS = ["estimate", "lower", "upper"]
CORRELATIONS = 12  # fixed effects up to which their correlations are shown

METHODS = {"REML": "REML", "ML": "maximum likelihood"}
DF_METHODS = {
    "satterthwaite": "Satterthwaite df",
    "kenward-roger": "Kenward-Roger df",
    "kenward-roger-linear": "Kenward-Roger df, linear",
    "between-within": "between-within df",
    "normal": "normal approximation",
}


class Summary:
    """A fit as text (`str`, `print`) and, in a notebook, as HTML."""

    def __init__(self, fit: FittedModel):
        self._parts = list(self._made_of(fit))

    @staticmethod
    def _made_of(fit: FittedModel) -> Iterator[str | Table]:
        yield _heading(fit)
        yield _criteria(fit)
        yield _scaled_residuals(fit)
        yield _random_effects(fit)
        yield from _structures(fit)
        yield from _residual_covariance(fit)
        yield _observations(fit)
        yield from _fixed_effects(fit)
        yield from _correlations_of_fixed(fit)
        yield from _notes(fit)

    def __str__(self) -> str:
        return "\n\n".join(map(as_text, self._parts))

    __repr__ = __str__

    def to_html(self) -> str:
        """The page as HTML."""
        return f"<div>{''.join(map(as_html, self._parts))}</div>"

    _repr_html_ = to_html

    @property
    def tables(self) -> dict[str, Table]:
        """Its tables by title, each with `to_latex()`, `to_markdown()`, `frame` and more."""
        tables = [part for part in self._parts if isinstance(part, Table)]
        return {table.title.rstrip(":") or "Criteria": table for table in tables}


class GeneralizedSummary(Summary):
    """A generalised fit as text and as HTML."""

    @staticmethod
    def _made_of(fit: FittedGeneralizedModel) -> Iterator[str | Table]:
        yield _generalized_heading(fit)
        yield _criteria(fit)
        yield _random_effects(fit, has_residual=False)
        yield from _structures(fit)
        yield _observations(fit)
        yield from _fixed_effects(fit)
        yield from _family_parts(fit)
        yield from _correlations_of_fixed(fit)
        yield from _generalized_notes(fit)


def _generalized_heading(fit: FittedGeneralizedModel) -> str:
    by = {0: "Laplace with nagq=0", 1: "Laplace"}.get(fit.nagq, f"{fit.nagq} quadrature nodes")
    lines = [f"Generalised linear mixed model: {fit.family.title} ({fit.family.link}), {by}"]
    seen, arguments = fit.design.observed, fit.model.arguments
    if seen.outcome is not None:
        lines.append(f"P({seen.outcome})")
    lines.append(f"Formula: {fit.design.formula}")
    for name in ("trials", "weights", "offset", "dispersion", "zero_inflation"):
        given = arguments.get(name)
        if given is not None:
            shown = given if isinstance(given, str | int | float) else "an array"
            lines.append(f"{name.replace('_', ' ').capitalize()}: {shown}")
    return "\n".join(lines)


def _family_parts(fit: FittedGeneralizedModel) -> Iterator[Table]:
    """Predictors of the family's parameters, and its other numbers."""
    for key, title in (
        ("zero_inflation", "Zero inflation (logit):"),
        ("dispersion", "Dispersion (log):"),
    ):
        table = predictor_table(fit, key)
        if len(table):
            yield _z_table(title, table)
    numbers = family_params(fit)
    if len(numbers):
        rows = _named_rows(numbers)
        title = "Thresholds:" if fit.family.name == "ordinal" else "Family:"
        yield Table(title, ("", "Estimate", "Std. Error", "2.5%", "97.5%"), rows, "lrrrr")


def _named_rows(table: pd.DataFrame) -> list[list[str]]:
    """Rows of numbers with their names in front."""
    return [
        [name, *_significant(numbers)]
        for name, numbers in zip(table.index, table.to_numpy(), strict=True)
    ]


def _z_table(title: str, table: pd.DataFrame) -> Table:
    decimals = _decimals(table["se"])
    columns = {
        "": list(map(str, table.index)),
        "Estimate": _fixed(table["estimate"], decimals),
        "Std. Error": _fixed(table["se"], decimals),
        "z value": _fixed(table["t"], 3),
        "Pr(>|z|)": list(map(_p_value, table["p"])),
        " ": list(map(_stars, table["p"])),
    }
    return Table(title, tuple(columns), list(zip(*columns.values(), strict=True)), "lrrrrl")


def _generalized_notes(fit: FittedGeneralizedModel) -> Iterator[str]:
    if fit.separation is not None:
        yield f"Warning: {fit.separation.message}"
        if fit.is_singular:
            yield f"Note: {fit.singularity}"
    else:
        yield from _notes(fit)
    for name, meaning in fit.runaway.items():
        yield f"Note: {name!r} runs off to infinity: {meaning}"


def _heading(fit: FittedModel) -> str:
    what = "Linear mixed model" if fit.design.factors else "Linear model with a residual covariance"
    lines = [f"{what} fit by {METHODS[fit.method]} ({DF_METHODS[fit.df_method]})"]
    lines.append(f"Formula: {fit.design.formula}")
    if residual := fit.design.residual:
        lines += [part[0].upper() + part[1:].replace(" ", ": ", 1) for part in residual.parts]
    given = {name: fit.model.arguments[name] for name in ("weights", "offset")}
    lines += [
        f"{k.title()}: {v if isinstance(v, str) else 'an array'}"
        for k, v in given.items()
        if v is not None
    ]
    return "\n".join(lines)


def _criteria(fit: FittedModel) -> Table:
    last = "REML criterion" if fit.method == "REML" else "deviance"
    values = _fixed([fit.aic, fit.bic, fit.llf, fit.deviance], 3)
    return Table("", ("AIC", "BIC", "logLik", last), [values], "rrrr")


def _scaled_residuals(fit: FittedModel) -> Table:
    resid = fit.resid.to_numpy() / relative_sds(fit.design, fit.theta)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.quantile(resid / fit.sigma, [0.0, 0.25, 0.5, 0.75, 1.0])
    return Table(
        "Scaled residuals:", ("Min", "1Q", "Median", "3Q", "Max"), [_fixed(values, 4)], "rrrrr"
    )


def _random_effects(fit: FittedModel, has_residual: bool = True) -> Table:
    factors = fit.design.factors
    blocks = list(_blocks(factors, fit.covariances))
    residual = [[fit.scale]] if has_residual else []
    variances = np.concatenate([*(np.diag(b.covariance) for b in blocks), *residual])
    numbers = zip(_significant(variances), _significant(np.sqrt(variances)), strict=True)
    width = max((len(b.columns) for b in blocks), default=1) - 1
    rows: list[Sequence[str]] = []
    for previous, block in zip([None, *blocks], blocks, strict=False):
        label = "" if previous and previous.factor == block.factor else block.factor
        for i, (name, R) in enumerate(zip(block.columns, block.correlations, strict=True)):
            rows.append(
                ["" if i else label, name, *next(numbers), *_fixed(R[:i], 2), *[""] * (width - i)]
            )
    if has_residual:
        rows.append(["Residual", "", *next(numbers), *[""] * width])
    header = ("Groups", "Name", "Variance", "Std.Dev.", *("Corr", *[""] * width)[:width])
    return Table("Random effects:" if blocks else "Residual:", header, rows, "llrr" + "r" * width)


def _structures(fit: FittedModel) -> Iterator[Table]:
    """Covariance structures other than the default, with the parameters that they have."""
    factors = [f for f in fit.design.factors if f.within is not None or f.across is not None]
    numbers = structure(fit) if any(map(natural_names, factors)) else pd.DataFrame()
    rows: list[Sequence[str]] = []
    for f in factors:
        parts = [type(part).__name__ for part in (f.within, f.across) if part is not None]
        label = [f.name, " and ".join([*parts, *["a prior"] * has_prior([f.block])])]
        names = natural_names(f)
        shown = [
            [name.removesuffix(f"|{f.name}"), *_significant(numbers.loc[name, LIMITS])]
            for name in names
        ]
        rows += [
            [*label, *cells] if i == 0 else ["", "", *cells]
            for i, cells in enumerate(shown or [[""] * 4])
        ]
    if rows:
        yield Table(
            "Covariance structures:",
            ("Groups", "Structure", "", "Estimate", "2.5%", "97.5%"),
            rows,
            "lllrrr",
        )


def _residual_covariance(fit: FittedModel) -> Iterator[str | Table]:
    """Numbers of the residual covariance, and what sigma is."""
    given = fit.design.residual
    if given is None:
        return
    table = residual_table(uncertainty(fit))
    rows = _named_rows(table[LIMITS])
    yield Table("Residual covariance:", ("", "Estimate", "2.5%", "97.5%"), rows, "lrrr")
    if reference := given.reference:
        yield f"The residual variance above is that {reference}."


def _observations(fit: FittedModel) -> str:
    given, counts = fit.design.residual, dict(fit.ngroups)
    if given is not None and given.residual is not None:
        counts.setdefault(given.residual.subject, len(given.subjects))
    groups = "; ".join(f"{name}, {m}" for name, m in counts.items())
    lines = [f"Number of obs: {fit.nobs}" + (f", groups: {groups}" if groups else "")]
    if fit.n_dropped:
        rows = "1 row" if fit.n_dropped == 1 else f"{fit.n_dropped} rows"
        lines.append(f"{rows} with missing values left out")
    return "\n".join(lines)


def _fixed_effects(fit: FittedModel) -> Iterator[str | Table]:
    if len(fit.fe_params):
        table = coefficients(fit).t_table(np.eye(len(fit.fe_params)))
        yield _coefficients(fit, table)
        if any(map(_stars, table["p"])):
            yield LEGEND
    else:
        yield "No fixed effects"
    if fit.dropped_columns:
        yield (
            "Left out, as they depend linearly on the columns before them: "
            f"{', '.join(fit.dropped_columns)}"
        )


def _coefficients(fit: FittedModel, table: pd.DataFrame) -> Table:
    letter = "z" if fit.df_method == "normal" else "t"
    decimals = _decimals(table["se"])  # an estimate is worth as many as its standard error
    columns = {
        "": list(map(str, fit.fe_params.index)),
        "Estimate": _fixed(fit.fe_params, decimals),
        "Std. Error": _fixed(table["se"], decimals),
        "df": _significant(table["df"]),
        f"{letter} value": _fixed(table["t"], 3),
        f"Pr(>|{letter}|)": list(map(_p_value, table["p"])),
        " ": list(map(_stars, table["p"])),
    }
    if fit.df_method == "normal":
        del columns["df"]
    align = "l" + "r" * (len(columns) - 2) + "l"
    return Table("Fixed effects:", tuple(columns), list(zip(*columns.values(), strict=True)), align)


def _correlations_of_fixed(fit: FittedModel) -> Iterator[Table]:
    names = list(map(str, fit.fe_params.index))
    if 2 <= len(names) <= CORRELATIONS:
        R = _correlations(coefficients(fit).vcov)
        heads = names
        if sum(map(len, names)) > LINE:  # the names are too long to stand side by side
            heads = [f"({i})" for i in range(1, len(names) + 1)]
            names = list(map(" ".join, zip(heads, names, strict=True)))
        rows = [
            [name, *_fixed(R[i, :i], 3), *[""] * (len(R) - i - 1)] for i, name in enumerate(names)
        ]
        shown = rows if heads is not names else rows[1:]
        yield Table(
            "Correlation of fixed effects:", ("", *heads[:-1]), shown, "l" + "r" * (len(R) - 1)
        )


def _notes(fit: FittedModel) -> Iterator[str]:
    if fit.converged:
        gain = max(GAIN, fit.optimum.predicted_decrease)
        yield f"Optimum: {fit.optimum.status}, less than {gain:.0e} deviance units to gain"
    else:
        yield f"Warning: the fit did not converge: {fit.optimum.message}"
    yield from fit.model.engine.remarks(fit.estimate)
    if fit.is_singular:
        yield f"Note: {fit.singularity}"
