"""The model as an equation: every term is there, escaped, and lines balance."""

import re

import numpy as np
import pytest
from helpers.fits import fitted, quiet_fit, sleepstudy

import interlace_jax as interlace

SLEEP = fitted("sleepstudy_slope_REML")


def test_equation_of_a_random_slope():
    assert interlace.equation(SLEEP).splitlines() == [
        r"\begin{aligned}",
        r"\text{Reaction}_{i} &= \beta_{0} + \beta_{1}\,\text{Days}_{i} + b_{0,\,\text{Subject}[i]}"
        r" + b_{1,\,\text{Subject}[i]}\,\text{Days}_{i} \\",
        r"&\quad + \varepsilon_{i} \\",
        r"(b_{0,\,g}, b_{1,\,g})^\top"
        r" &\sim \mathcal{N}\left(0,\; \Sigma_{\text{Subject}}\right) \\",
        r"\varepsilon_{i} &\sim \mathcal{N}\left(0,\; \sigma^{2}\right)",
        r"\end{aligned}",
    ]


def test_values_are_the_estimates_with_their_signs():
    text = interlace.equation(
        quiet_fit("Reaction ~ I(-Days) + (1 | Subject)", sleepstudy()), values=True
    )
    assert r"251.41 -10.47\,\text{I(-Days)}_{i} + b_{0" in text
    assert rf"\mathcal{{N}}\left(0,\; {SLEEP.scale:.2f}\right)" in interlace.equation(
        SLEEP, values=True
    )


@pytest.mark.parametrize("values", [False, True])
def test_hard_names_weights_offsets_and_structures_keep_lines_balanced(values):
    data = sleepstudy().rename(columns={"Subject": "sub_ject & co", "Days": "Days_100%"})
    data["w"], data["o"], data["a#b"] = (
        1.0 + np.arange(180) % 2,
        1.0,
        np.where(np.arange(180) % 3, "^x", "{y}"),
    )
    bars = "(1 + `Days_100%` || `sub_ject & co`)"
    fit = quiet_fit(f"Reaction ~ `Days_100%` * `a#b` + {bars}", data, weights="w", offset="o")
    text = interlace.equation(fit, values)
    plain = re.sub(r"\\[{}&%#_]", "", text)
    assert plain.count("{") == plain.count("}")
    lines = plain.splitlines()[1:-1]
    assert all(line.count("&") == 1 for line in lines)
    assert all(line.endswith(r"\\") for line in lines[:-1])
    assert r"\text{offset}_{i}" in text and "/ w_{i}" in text and text.count(r"\sim") == 3


def test_covariance_structures_are_named():
    cov = {"Worker": interlace.CompoundSymmetry()}
    fit = quiet_fit(
        "score ~ Machine + (0 + Machine | Worker)", interlace.load_dataset("machines"), cov=cov
    )
    assert r"\text{(CompoundSymmetry)}" in interlace.equation(fit)
