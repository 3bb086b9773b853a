"""Every string and table the user sees."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .covariance import has_prior
from .grouping import natural_names

if TYPE_CHECKING:
    from .design import Factor
    from .formula import Term
    from .result import Fit

LINE = 80  # characters to which text is wrapped
NUMBER = 14  # characters; a column with longer numbers turns to scientific notation
DIGITS = 4  # significant digits of the smallest number of a column
GAIN = 1e-9  # deviance units below which nobody needs to know more
LIMITS = ["estimate", "lower", "upper"]
CORRELATIONS = 12  # fixed effects up to which their correlations are shown
ZERO = 1e-4  # standard deviation relative to sigma, per unit RMS of its column, that counts as none
PERFECT = 1e-4  # distance from -1 or 1 at which a correlation counts as perfect

METHODS = {"REML": "REML", "ML": "maximum likelihood"}
DF_METHODS = {
    "satterthwaite": "Satterthwaite df",
    "kenward-roger": "Kenward-Roger df",
    "normal": "normal approximation",
}
STARS = {0.001: "***", 0.01: "**", 0.05: "*", 0.1: "."}
LEGEND = "Signif. codes: 0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1"


# Data frames ---------------------------------------------------------------------------------------------------------


def varcov(covariances: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Covariance matrices by factor, terms x terms, as one: block diagonal over (factor, term) when there are several.

    Variances are in squared units of the response.
    """
    if len(covariances) == 1:
        return next(iter(covariances.values()))
    keys = pd.MultiIndex.from_tuples([(name, column) for name, S in covariances.items() for column in S.columns])
    whole, start = np.zeros((len(keys),) * 2), 0
    for S in covariances.values():
        end = start + len(S)
        whole[start:end, start:end] = S
        start = end
    return pd.DataFrame(whole, index=keys, columns=keys)


def varcorr(factors: Sequence[Factor], covariances: Mapping[str, pd.DataFrame], scale: float) -> pd.DataFrame:
    """Variances and covariances in lme4's order: columns `grp`, `var1`, `var2`, `vcov`, `sdcor`.

    Term by term the variances, then the covariances of its columns; last the residual variance `scale`. `sdcor` is the
    standard deviation, and in rows of two columns the correlation (NaN when one of them does not vary).
    """
    rows: list[tuple] = []
    for block in _blocks(factors, covariances):
        k, S, R = len(block.columns), block.covariance, block.correlations
        rows += [(block.factor, block.columns[i], None, S[i, i], block.sd[i]) for i in range(k)]
        pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
        rows += [(block.factor, block.columns[i], block.columns[j], S[i, j], R[i, j]) for i, j in pairs]
    rows.append(("Residual", None, None, scale, np.sqrt(scale)))
    return pd.DataFrame(rows, columns=["grp", "var1", "var2", "vcov", "sdcor"])


@dataclass(frozen=True)
class _Block:
    """The columns of a factor that may correlate; independent of its others."""

    factor: str
    columns: tuple[str, ...]
    covariance: np.ndarray

    @property
    def sd(self) -> np.ndarray:
        return np.sqrt(np.diag(self.covariance))

    @property
    def correlations(self) -> np.ndarray:
        return _correlations(self.covariance)


def _blocks(factors: Iterable[Factor], covariances: Mapping[str, pd.DataFrame]) -> Iterator[_Block]:
    for f in factors:
        S, ends = covariances[f.name].to_numpy(), np.cumsum(f.sizes)
        for start, end in zip(ends - f.sizes, ends, strict=True):
            yield _Block(f.name, f.columns[start:end], S[start:end, start:end])


def _correlations(S: np.ndarray) -> np.ndarray:
    sd = np.sqrt(np.diag(S))
    with np.errstate(divide="ignore", invalid="ignore"):
        return S / sd[:, None] / sd


# Singular fits -------------------------------------------------------------------------------------------------------


def singular_message(fit: Fit) -> str:
    """What it is about a singular fit: by factor which variances are 0 or correlations perfect, and what to try."""
    found = [finding for factor, columns in fit.singular_terms for finding in _findings(fit, factor, columns)]
    found += [fit.residual_doubt] if fit.residual_doubt else []
    return f"singular fit, the data do not support all of the random effects: {'; '.join(found)}"


def _findings(fit: Fit, factor: Factor, vanishing: Sequence[int]) -> Iterator[str]:
    still = _without_variance(fit, factor)
    terms = [t for t in fit.model.design.formula.terms if set(t.group) == set(factor.variables)]
    start = 0
    for block in _blocks([factor], fit.covariances):
        end = start + len(block.columns)
        here = [j for j in vanishing if start <= j < end]
        none = [factor.columns[j] for j in here if still[j]]
        if none and factor.is_structured:
            yield _no_scale(factor, none)
        elif none:
            yield _no_variance(factor, none, terms if len(block.columns) > 1 else [])
        elif here and not factor.block.is_pattern:
            yield f"the covariance of {factor.name!r} is at the edge of what {type(factor.within).__name__} allows"
        elif here:
            yield _dependent(block, terms)
        start = end


def _without_variance(fit: Fit, factor: Factor) -> np.ndarray:
    """Whether the variance of each column is nothing next to the residual: (k,)."""
    weights = fit.model.design.weights
    squares = factor.Z**2 if weights is None else factor.Z**2 * weights[:, None]
    return np.diag(fit.covariances[factor.name]) * squares.mean(axis=0) < ZERO**2 * fit.scale


def _no_variance(factor: Factor, columns: Sequence[str], correlated: Sequence[Term]) -> str:
    if factor.columns == ("(Intercept)",):
        return (
            f"the standard deviation of '(Intercept)' across {factor.name!r} is estimated as 0 (the data show no "
            f"differences between levels of {factor.name!r} beyond the residual); "
            f"consider leaving (1 | {_group(factor.variables)}) out"
        )
    names = _listed(map(repr, columns))
    simpler = f"try {_uncorrelated(correlated)}, or leave" if correlated else "consider leaving"
    return (
        f"the standard deviation of {names} across {factor.name!r} is estimated as 0 (its levels do not differ there "
        f"beyond the residual); {simpler} {names} out of the random effects of {factor.name!r}"
    )


def _no_scale(factor: Factor, columns: Sequence[str]) -> str:
    return (
        f"the standard deviation of {_listed(map(repr, columns))} across {factor.name!r} is estimated as 0 (its "
        f"levels do not differ there beyond the residual, covarying as cov says); consider leaving them out"
    )


def _dependent(block: _Block, terms: Sequence[Term]) -> str:
    names, R, k = block.columns, block.correlations, len(block.columns)
    pairs = [(i, j) for i in range(k) for j in range(i) if 1.0 - abs(R[i, j]) < PERFECT]
    if pairs:
        said = _listed(f"{names[j]!r} and {names[i]!r} ({R[i, j]:+.2f})" for i, j in pairs)
        what = f"the random effects {said} of {block.factor!r} are perfectly correlated"
    else:
        what = f"the random effects {_listed(map(repr, names))} of {block.factor!r} determine each other"
    return f"{what} (the data do not tell them apart); try {_uncorrelated(terms)}, without correlations"


def _uncorrelated(terms: Iterable[Term]) -> str:
    """The correlated terms of one factor as they would be written without correlations."""
    wide = [t for t in terms if not t.independent and t.columns.strip() != "1"]
    return " + ".join(f"({t.columns} || {_group(t.group)})" for t in wide)


def _group(variables: Iterable[str]) -> str:
    return ":".join(name if re.fullmatch(r"[\w.]+", name) else f"`{name}`" for name in variables)


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


# The summary ---------------------------------------------------------------------------------------------------------


class Summary:
    """A fit as text (`str`, `print`) and, in a notebook, as HTML."""

    def __init__(self, fit: Fit):
        self._parts: list[str | _Table] = [
            _heading(fit),
            _criteria(fit),
            _scaled_residuals(fit),
            _random_effects(fit),
            *_structures(fit),
            _observations(fit),
            *_fixed_effects(fit),
            *_correlations_of_fixed(fit),
            *_notes(fit),
        ]

    def __str__(self) -> str:
        return "\n\n".join(map(_text, self._parts))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<div>{''.join(map(_html, self._parts))}</div>"


def _heading(fit: Fit) -> str:
    lines = [f"Linear mixed model fit by {METHODS[fit.method]} ({DF_METHODS[fit.df_method]})"]
    lines.append(f"Formula: {fit.model.design.formula}")
    given = {name: fit.model.arguments[name] for name in ("weights", "offset")}
    lines += [f"{k.title()}: {v if isinstance(v, str) else 'an array'}" for k, v in given.items() if v is not None]
    return "\n".join(lines)


def _criteria(fit: Fit) -> _Table:
    last = "REML criterion" if fit.method == "REML" else "deviance"
    values = _fixed([fit.aic, fit.bic, fit.llf, fit.deviance], 3)
    return _Table("", ("AIC", "BIC", "logLik", last), [values], "rrrr")


def _scaled_residuals(fit: Fit) -> _Table:
    weights = fit.model.design.weights
    resid = fit.resid.to_numpy() * (1.0 if weights is None else np.sqrt(weights))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.quantile(resid / fit.sigma, [0.0, 0.25, 0.5, 0.75, 1.0])
    return _Table("Scaled residuals:", ("Min", "1Q", "Median", "3Q", "Max"), [_fixed(values, 4)], "rrrrr")


def _random_effects(fit: Fit) -> _Table:
    factors = fit.model.design.factors
    blocks = list(_blocks(factors, fit.covariances))
    variances = np.concatenate([*(np.diag(b.covariance) for b in blocks), [fit.scale]])
    numbers = zip(_significant(variances), _significant(np.sqrt(variances)), strict=True)
    width = max(len(b.columns) for b in blocks) - 1
    rows: list[Sequence[str]] = []
    for previous, block in zip([None, *blocks], blocks, strict=False):
        label = "" if previous and previous.factor == block.factor else block.factor
        for i, (name, R) in enumerate(zip(block.columns, block.correlations, strict=True)):
            rows.append(["" if i else label, name, *next(numbers), *_fixed(R[:i], 2), *[""] * (width - i)])
    rows.append(["Residual", "", *next(numbers), *[""] * width])
    header = ("Groups", "Name", "Variance", "Std.Dev.", *("Corr", *[""] * width)[:width])
    return _Table("Random effects:", header, rows, "llrr" + "r" * width)


def _structures(fit: Fit) -> Iterator[_Table]:
    """Covariance structures other than the default, with the parameters that they have."""
    factors = [f for f in fit.model.design.factors if f.within is not None or f.across is not None]
    numbers = fit.structure if any(map(natural_names, factors)) else pd.DataFrame()
    rows: list[Sequence[str]] = []
    for f in factors:
        parts = [type(part).__name__ for part in (f.within, f.across) if part is not None]
        label = [f.name, " and ".join([*parts, *["a prior"] * has_prior([f.block])])]
        names = natural_names(f)
        shown = [[name.removesuffix(f"|{f.name}"), *_significant(numbers.loc[name, LIMITS])] for name in names]
        rows += [[*label, *cells] if i == 0 else ["", "", *cells] for i, cells in enumerate(shown or [[""] * 4])]
    if rows:
        yield _Table("Covariance structures:", ("Groups", "Structure", "", "Estimate", "2.5%", "97.5%"), rows, "lllrrr")


def _observations(fit: Fit) -> str:
    groups = "; ".join(f"{name}, {m}" for name, m in fit.ngroups.items())
    lines = [f"Number of obs: {fit.nobs}, groups: {groups}"]
    if fit.n_dropped:
        rows = "1 row" if fit.n_dropped == 1 else f"{fit.n_dropped} rows"
        lines.append(f"{rows} with missing values left out")
    return "\n".join(lines)


def _fixed_effects(fit: Fit) -> Iterator[str | _Table]:
    if len(fit.fe_params):
        yield _coefficients(fit)
        if any(map(_stars, fit.fe_pvalues)):
            yield LEGEND
    else:
        yield "No fixed effects"
    if fit.dropped_columns:
        yield f"Left out, as they depend linearly on the columns before them: {', '.join(fit.dropped_columns)}"


def _coefficients(fit: Fit) -> _Table:
    letter = "z" if fit.df_method == "normal" else "t"
    decimals = _decimals(fit.fe_bse)  # an estimate is worth as many as its standard error
    columns = {
        "": list(map(str, fit.fe_params.index)),
        "Estimate": _fixed(fit.fe_params, decimals),
        "Std. Error": _fixed(fit.fe_bse, decimals),
        "df": _significant(fit.fe_df),
        f"{letter} value": _fixed(fit.fe_tvalues, 3),
        f"Pr(>|{letter}|)": list(map(_p_value, fit.fe_pvalues)),
        " ": list(map(_stars, fit.fe_pvalues)),
    }
    if fit.df_method == "normal":
        del columns["df"]
    align = "l" + "r" * (len(columns) - 2) + "l"
    return _Table("Fixed effects:", tuple(columns), list(zip(*columns.values(), strict=True)), align)


def _correlations_of_fixed(fit: Fit) -> Iterator[_Table]:
    names = list(map(str, fit.fe_params.index))
    if 2 <= len(names) <= CORRELATIONS:
        R = _correlations(fit.fe_cov.to_numpy())
        heads = names
        if sum(map(len, names)) > LINE:  # the names are too long to stand side by side
            heads = [f"({i})" for i in range(1, len(names) + 1)]
            names = list(map(" ".join, zip(heads, names, strict=True)))
        rows = [[name, *_fixed(R[i, :i], 3), *[""] * (len(R) - i - 1)] for i, name in enumerate(names)]
        shown = rows if heads is not names else rows[1:]
        yield _Table("Correlation of fixed effects:", ("", *heads[:-1]), shown, "l" + "r" * (len(R) - 1))


def _notes(fit: Fit) -> Iterator[str]:
    if fit.converged:
        gain = max(GAIN, fit.optimum.predicted_decrease)
        yield f"Optimum: {fit.optimum.status}, less than {gain:.0e} deviance units to gain"
    else:
        yield f"Warning: the fit did not converge: {fit.optimum.message}"
    if fit.model.core.name == "iterative":
        yield (
            f"Iterative core: the criterion is known to within a standard error of {fit.optimum.noise:.2g}, "
            f"theta to within {fit.optimum.theta_noise:.1g} of its standard errors"
        )
    if fit.is_singular:
        yield f"Note: {singular_message(fit)}"


# Numbers -------------------------------------------------------------------------------------------------------------


def _decimals(values: Iterable[float]) -> int:
    """How many the smallest number (but 0) needs to show its significant digits."""
    sizes = np.abs(np.asarray(values, float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    return max(0, DIGITS - 1 - int(np.floor(np.log10(sizes.min())))) if len(sizes) else DIGITS - 1


def _fixed(values: Iterable[float], decimals: int) -> list[str]:
    """The numbers of one column with the same decimals, or in scientific notation when one gets too long."""
    values = [float(v) for v in values]
    shown = [_number(v, f"z.{decimals}f") for v in values]
    return shown if all(len(s) <= NUMBER for s in shown) else [_number(v, f".{DIGITS}e") for v in values]


def _significant(values: Iterable[float]) -> list[str]:
    return _fixed(values, _decimals(values))


def _number(value: float, form: str) -> str:
    if np.isfinite(value):
        return format(value, form)
    return "NaN" if np.isnan(value) else "Inf" if value > 0 else "-Inf"


def _p_value(p: float) -> str:
    if p < 2e-16:
        return "<2e-16"
    return _number(p, ".2e" if p < 0.001 else ".4f")


def _stars(p: float) -> str:
    return next((stars for bound, stars in STARS.items() if p < bound), "")


# Text and HTML -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str
    "`l` or `r` by column."


def _text(part: str | _Table) -> str:
    if isinstance(part, str):
        wrap: Callable[[str], str] = textwrap.TextWrapper(
            LINE, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        ).fill
        return "\n".join(map(wrap, part.split("\n")))
    cells = [part.header, *part.rows]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = [" ".join(map(_padded, row, widths, part.align)).rstrip() for row in cells]
    return "\n".join([part.title, *lines] if part.title else lines)


def _padded(cell: str, width: int, align: str) -> str:
    space = " " * (width - _width(cell))
    return cell + space if align == "l" else space + cell


def _width(text: str) -> int:
    """Columns of a terminal that the text takes: none for accents, two for East Asian letters."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text)


def _html(part: str | _Table) -> str:
    if isinstance(part, str):
        return f"<p>{escape(part).replace(chr(10), '<br/>')}</p>"
    sides = {"l": "left", "r": "right"}

    def row(cells: Sequence[str], tag: str) -> str:
        pairs = zip(cells, part.align, strict=True)
        return "".join(
            f'<{tag} style="text-align:{sides[side]};padding:0.1em 0.6em">{escape(cell)}</{tag}>'
            for cell, side in pairs
        )

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in part.rows)
    title = f"<b>{escape(part.title)}</b>" if part.title else ""
    return f"{title}<table><thead><tr>{row(part.header, 'th')}</tr></thead><tbody>{body}</tbody></table>"
