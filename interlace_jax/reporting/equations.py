"""The model of a fit as an equation in LaTeX."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..design.grouping import Factor
from ..models.fitted import FittedModel, check_fit
from ..models.generalized import FittedGeneralizedModel
from ..models.parameters import _blocks
from ..support.table import latex
from .family_equations import distribution, left_side, variable, word
from .numbers import decimals, shown

TERMS = 4  # of a line
LONG = 40  # characters of a name that takes a line to itself


def equation(fit: FittedModel, values: bool = False) -> str:
    r"""The model as LaTeX: the mean, the distributions of random effects and of the residual.

    Of generalised models the distribution of the response given its mean, and the linear predictor.

    values: estimates in place of beta, Sigma and sigma. Returns an `aligned` block to stand between
    `\[` and `\]` (package amsmath), or in MathJax; row i has level g[i] of the grouping factor g.

    >>> yarn = interlace_jax.load_dataset("dyestuff")
    >>> fit = interlace_jax.fit("Yield ~ 1 + (1 | Batch)", yarn)
    >>> print(interlace_jax.equation(fit))
    \begin{aligned}
    \text{Yield}_{i} &= \beta_{0} + b_{0,\,\text{Batch}[i]} + \varepsilon_{i} \\
    b_{0,\,g} &\sim \mathcal{N}\left(0,\; \sigma^{2}_{\text{Batch}}\right) \\
    \varepsilon_{i} &\sim \mathcal{N}\left(0,\; \sigma^{2}\right)
    \end{aligned}
    """
    check_fit("equation", fit)
    fit.model.engine.require("equation")
    if isinstance(fit, FittedGeneralizedModel):
        lines = [*distribution(fit, values), *_mean(fit, values), *_random(fit, values)]
    else:
        lines = [*_mean(fit, values), *_random(fit, values), _residual(fit, values)]
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def _mean(fit: FittedModel, values: bool) -> Iterator[str]:
    is_linear = not isinstance(fit, FittedGeneralizedModel)
    left = rf"{word(fit.design.response)}_{{i}}" if is_linear else left_side(fit)
    terms = [*_fixed_terms(fit, values), *_random_terms(fit)]
    if fit.design.offset is not None:
        terms.append(r"\text{offset}_{i}")
    if is_linear:
        terms.append(r"\varepsilon_{i}")
    signed = [term if term.startswith("-") else f"+ {term}" for term in terms]
    signed[0] = signed[0].removeprefix("+ ")
    length = 1 if max(map(len, fit.design.columns), default=0) > LONG else TERMS
    for start in range(0, len(signed), length):
        head = f"{left} &= " if start == 0 else r"&\quad "
        yield head + " ".join(signed[start : start + length])


def _fixed_terms(fit: FittedModel, values: bool) -> Iterator[str]:
    for j, (name, estimate) in enumerate(fit.fe_params.items()):
        number = _number(estimate, fit, j) if values else rf"\beta_{{{j}}}"
        yield number if name == "Intercept" else rf"{number}\,{variable(str(name))}"


def _number(estimate: float, fit: FittedModel, j: int) -> str:
    return shown(float(estimate), decimals(float(np.sqrt(fit.beta_covariance[j, j]))))


def _effect(f: Factor, column: str, level: str) -> str:
    """The symbol of a random effect."""
    return rf"b_{{{f.columns.index(column)},\,{level}}}"


def _random_terms(fit: FittedModel) -> Iterator[str]:
    for f in fit.design.factors:
        level = rf"{word(f.name)}[i]"
        for column in f.columns:
            effect = _effect(f, column, level)
            yield effect if column == "(Intercept)" else rf"{effect}\,{variable(column)}"


def _random(fit: FittedModel, values: bool) -> Iterator[str]:
    factors = {f.name: f for f in fit.design.factors}
    counts: dict[str, int] = dict.fromkeys(factors, 0)
    several = {name: len(f.sizes) > 1 for name, f in factors.items()}
    for block in _blocks(fit.design.factors, fit.covariances):
        f = factors[block.factor]
        counts[f.name] += 1
        which = rf"{word(f.name)}{counts[f.name] if several[f.name] else ''}"
        effects = [_effect(f, column, "g") for column in block.columns]
        left = effects[0] if len(effects) == 1 else rf"({', '.join(effects)})^\top"
        spread = _matrix(block.covariance) if values else _symbol(which, len(effects))
        yield rf"{left} &\sim \mathcal{{N}}\left(0,\; {spread}\right){_structure(f)}"


def _symbol(which: str, size: int) -> str:
    return rf"\Sigma_{{{which}}}" if size > 1 else rf"\sigma^{{2}}_{{{which}}}"


def _structure(f: Factor) -> str:
    """A remark on levels or columns that covary otherwise than freely."""
    names = [type(part).__name__ for part in (f.within, f.across) if part is not None]
    across = r"\text{ with levels related}" if f.across is not None else ""
    return rf" \quad \text{{({latex(' and '.join(names))})}}{across}" if names else ""


def _matrix(S: np.ndarray) -> str:
    cells = [[_rounded(value) for value in row] for row in S]
    if len(S) == 1:
        return cells[0][0]
    return r"\begin{pmatrix} " + r" \\ ".join(map(" & ".join, cells)) + r" \end{pmatrix}"


def _rounded(value: float) -> str:
    return shown(float(value), decimals(abs(float(value)) / 10.0) if value else 0)


def _residual(fit: FittedModel, values: bool) -> str:
    if fit.design.residual is not None:
        words = latex(str(fit.design.residual))
        return rf"\varepsilon &\sim \mathcal{{N}}\left(0,\; R\right) \quad \text{{({words})}}"
    variance = _rounded(fit.scale) if values else r"\sigma^{2}"
    by = r" / w_{i}" if fit.design.weights is not None else ""
    return rf"\varepsilon_{{i}} &\sim \mathcal{{N}}\left(0,\; {variance}{by}\right)"
