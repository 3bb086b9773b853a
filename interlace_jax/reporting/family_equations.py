r"""The distribution of a response given its mean, as lines of LaTeX."""

from __future__ import annotations

from collections.abc import Iterator

from ..models import response
from ..models.generalized import FittedGeneralizedModel
from ..numerics.families.family import Distribution, Ordinal
from ..support.table import latex
from .numbers import decimals, shown

FUNCTIONS = {
    "identity": "{}",
    "logit": r"\operatorname{{logit}}({})",
    "log": r"\log({})",
    "sqrt": r"\sqrt{{{}}}",
    "inverse": "1 / {}",
    "1/mu^2": "1 / {}^{{2}}",
    "probit": r"\Phi^{{-1}}({})",
    "cloglog": r"\log(-\log(1 - {}))",
    "loglog": r"-\log(-\log({}))",
    "cauchit": r"\tan(\pi({} - \tfrac{{1}}{{2}}))",
}
"Links of what stands in their braces."

DISTRIBUTIONS = {
    "gaussian": r"\mathcal{{N}}\left({m},\; {a}^{{2}}{w}\right)",
    "student": r"t_{{{b}}}\left({m},\; {a}^{{2}}\right)",
    "gamma": r"\text{{Gamma}}\left({m},\; \text{{variance }} {a}\,{m}^{{2}}{w}\right)",
    "inverse_gaussian": r"\text{{IG}}\left({m},\; \text{{variance }} {a}\,{m}^{{3}}{w}\right)",
    "beta": r"\text{{Beta}}\left({m}\,{a},\; (1 - {m})\,{a}\right)",
    "bernoulli": r"\text{{Bernoulli}}\left({m}\right)",
    "binomial": r"\text{{Binomial}}\left(n_{{i}},\; {m}\right)",
    "betabinomial": r"\text{{BetaBinomial}}\left(n_{{i}},\; {m}\,{a},\; (1 - {m})\,{a}\right)",
    "poisson": r"\text{{Poisson}}\left({m}\right)",
    "nbinom2": r"\text{{NegBinomial}}\left({m},\; \text{{variance }} {m} + {m}^{{2}} / {a}\right)",
    "nbinom1": r"\text{{NegBinomial}}\left({m},\; \text{{variance }} (1 + {a})\,{m}\right)",
}
"By family: m its mean, a and b its other numbers, w the division by prior weights."

SYMBOLS = {"sigma": r"\sigma", "nu": r"\nu", "size": r"\theta", "alpha": r"\alpha"}


def word(name: str) -> str:
    """Text in a formula."""
    return rf"\text{{{latex(name)}}}"


def variable(name: str) -> str:
    """A column in row i; products as products."""
    return r" \times ".join(rf"{word(part)}_{{i}}" for part in str(name).split(":"))


def left_side(fit: FittedGeneralizedModel) -> str:
    """What the linear predictor is equal to."""
    family = fit.family
    if isinstance(family, Ordinal):
        return r"\eta_{i}"
    return FUNCTIONS[family.link].format(_mean_symbol(family))


def distribution(fit: FittedGeneralizedModel, values: bool) -> Iterator[str]:
    """Lines that say how responses are distributed given the linear predictor, and of what their
    other numbers are made.
    """
    response_i = rf"{word(fit.design.response)}_{{i}}"
    numbers = dict(_numbers(fit, values))
    if isinstance(fit.family, Ordinal):
        yield from _categories(fit, response_i, numbers)
        return
    yield rf"{response_i} \mid b &\sim {_named(fit.family, list(numbers.values()), fit)}"
    yield from _predictors(fit, values)


def _mean_symbol(family: Distribution) -> str:
    base = family
    while hasattr(base, "base"):
        base = base.base
    return "p_{i}" if base.has_trials else r"\mu_{i}"


def _named(family: Distribution, numbers: list[str], fit: FittedGeneralizedModel) -> str:
    if family.name.startswith("truncated"):
        return rf"{_named(family.base, numbers, fit)} \;\text{{given that it is not }} 0"
    if hasattr(family, "base"):
        rest = _named(family.base, numbers[:-1], fit)
        zero = numbers[-1]
        return (
            rf"\begin{{cases}} 0 & \text{{with probability }} {zero} \\ "
            rf"{rest} & \text{{otherwise}} \end{{cases}}"
        )
    if family.name not in DISTRIBUTIONS:
        inside = ",\\; ".join([_mean_symbol(family), *numbers])
        return rf"{word(family.name)}\left({inside}\right)"
    a, b = [*numbers, "", ""][:2]
    by = r" / w_{i}" if family.has_scale and fit.design.weights is not None else ""
    return DISTRIBUTIONS[family.name].format(m=_mean_symbol(family), a=a, b=b, w=by)


def _numbers(fit: FittedGeneralizedModel, values: bool) -> Iterator[tuple[str, str]]:
    """Numbers of the family by name: symbols, or values where they are the same in all rows."""
    natural = dict(
        zip(fit.family_names, response.natural_gamma(fit.design, fit.estimate.gamma), strict=True)
    )
    for used in fit.design.predictors:
        symbol = _symbol(used.parameter)
        if used.D is not None:
            yield used.parameter, f"{symbol}_{{i}}"
        elif values:
            yield used.parameter, _rounded(natural[used.parameter])
        else:
            yield used.parameter, symbol


def _symbol(parameter: str) -> str:
    return r"\pi" if parameter == "zero_probability" else SYMBOLS.get(parameter, r"\phi")


def _rounded(value: float) -> str:
    return shown(float(value), decimals(abs(float(value)) / 10.0) if value else 0)


def _predictors(fit: FittedGeneralizedModel, values: bool) -> Iterator[str]:
    """Linear predictors of the family's numbers."""
    start = 0
    for used in fit.design.predictors:
        own = fit.estimate.gamma[start : start + len(used.columns)]
        start += len(used.columns)
        if used.D is None:
            continue
        link = FUNCTIONS["logit" if used.parameter == "zero_probability" else "log"]
        letter = r"\zeta" if used.parameter == "zero_probability" else r"\gamma"
        terms = []
        for j, (name, value) in enumerate(zip(used.columns, own, strict=True)):
            number = _rounded(value) if values else f"{letter}_{{{j}}}"
            terms.append(number if name == "Intercept" else rf"{number}\,{variable(name)}")
        signed = " ".join(term if term.startswith("-") else f"+ {term}" for term in terms)
        symbol = rf"{_symbol(used.parameter)}_{{i}}"
        yield rf"{link.format(symbol)} &= {signed.removeprefix('+ ')}"


def _categories(
    fit: FittedGeneralizedModel, response_i: str, numbers: dict[str, str]
) -> Iterator[str]:
    """The cumulative model, with its thresholds."""
    inside = rf"P({response_i} \le j)"
    yield rf"{FUNCTIONS[fit.family.link].format(inside)} &= \tau_{{j}} - \eta_{{i}}"
    cuts = ",\\; ".join(word(name) for name in numbers)
    if all(value != r"\phi" for value in numbers.values()):
        cuts = ",\\; ".join(f"{word(name)}: {value}" for name, value in numbers.items())
    yield rf"\tau &\text{{ between }} {cuts}"
