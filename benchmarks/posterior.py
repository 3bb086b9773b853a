"""Effective draws a second with and without random effects:
`python benchmarks/posterior.py FOLDER`.

Data of Lai, Domke and Sheldon (2024, arXiv 2410.24079), who integrate one factor out and sample the
other: ticks on grouse, in broods and locations, as normal responses; and ratings by students of
lecturers, here those of one department. FOLDER has both from R, by `write.csv(lme4::grouseticks,
"grouseticks.csv")` and `write.csv(lme4::InstEval, "insteval.csv")`. NUTS samples all effects, as
they stand (centred) or standardised, or none of them: both factors are integrated out.

Seconds are processor time of the draws alone, adaptation and compilation left out.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import jax
import machine
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS

import interlace_jax as interlace

jax.config.update("jax_enable_x64", True)
WARMUP, DRAWS = 300, 400
DEPARTMENT = 5  # 3,790 ratings by 302 students of 53 lecturers
SHOWN = ("beta", "sigma", "sd")  # whose least effective number counts


class Data(NamedTuple):
    """Responses (n,), predictors (n, p), and the codes of every factor (n,)."""

    y: np.ndarray
    X: np.ndarray
    codes: dict[str, np.ndarray]


def ticks(folder: Path) -> Data:
    """Ticks in standard deviations, by year and height."""
    data = pd.read_csv(folder / "grouseticks.csv")
    X = np.column_stack([np.ones(len(data)), data["YEAR"] - data["YEAR"].mean(), data["cHEIGHT"]])
    X[:, 2] /= X[:, 2].std()
    return _of(data, "TICKS", X, ("BROOD", "LOCATION"))


def ratings(folder: Path) -> Data:
    """Ratings in standard deviations, by whether the lecture is for other departments."""
    data = pd.read_csv(folder / "insteval.csv").query(f"dept == {DEPARTMENT}")
    return _of(data, "y", np.column_stack([np.ones(len(data)), data["service"]]), ("s", "d"))


def _of(data: pd.DataFrame, response: str, X: np.ndarray, factors: tuple[str, str]) -> Data:
    y = data[response].to_numpy(float)
    return Data(y / y.std(), X, {name: data[name].factorize()[0] for name in factors})


def priors(data: Data):
    """Coefficients, residual SD, and the SD of every factor relative to it."""
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand([data.X.shape[1]]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(5.0))
    return beta, sigma, numpyro.sample("sd", dist.HalfNormal(2.0).expand([2]).to_event(1))


def marginal(data: Data):
    """Both factors integrated out."""
    m = jax.jit(lambda y: interlace.moments(y, data.X, data.codes))(data.y)

    def model():
        beta, sigma, sd = priors(data)
        found = interlace.log_likelihood(sd, m, reml=False, sigma=sigma, beta=beta)
        numpyro.factor("y", found)

    return model


def with_effects(data: Data, is_centred: bool):
    """Every effect sampled."""

    def model():
        beta, sigma, sd = priors(data)
        mean = data.X @ beta
        for j, (name, codes) in enumerate(data.codes.items()):
            own, levels = sigma * sd[j], int(codes.max()) + 1
            spread = dist.Normal(0.0, own if is_centred else 1.0).expand([levels]).to_event(1)
            effects = numpyro.sample(name, spread)
            mean = mean + (effects if is_centred else own * effects)[codes]
        numpyro.sample("y", dist.Normal(mean, sigma).to_event(1), obs=data.y)

    return model


def measured(model) -> dict[str, float]:
    """The least effective number of the shown parameters, and seconds of the draws."""
    mcmc = MCMC(NUTS(model), num_warmup=WARMUP, num_samples=DRAWS, progress_bar=False)
    mcmc.warmup(jax.random.key(0), extra_fields=("diverging",))
    mcmc.run(jax.random.key(1), extra_fields=("diverging",))  # compiles
    start = time.process_time()
    mcmc.run(jax.random.key(2), extra_fields=("diverging",))
    seconds = time.process_time() - start
    draws = mcmc.get_samples()
    least = min(
        float(np.nanmin(effective_sample_size(np.asarray(draws[name])[None]))) for name in SHOWN
    )
    diverging = int(np.sum(mcmc.get_extra_fields()["diverging"]))
    return dict(least=least, seconds=seconds, a_second=least / seconds, diverging=diverging)


def main() -> None:
    """Sample by every model, print a table, and store the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of grouseticks.csv and insteval.csv")
    folder = parser.parse_args().folder
    path, results = Path(__file__).parent / "results" / "posterior.json", {}
    print(f"| data | effects | least effective draws of {DRAWS} | seconds | a second | diverging |")
    print("|---|---|---:|---:|---:|---:|")
    for name, data in dict(ticks=ticks(folder), ratings=ratings(folder)).items():
        models = dict(
            marginal=marginal(data),
            standardised=with_effects(data, False),
            centred=with_effects(data, True),
        )
        for way, model in models.items():
            found = results[f"{name}, {way}"] = measured(model)
            cells = f"{found['least']:.0f} | {found['seconds']:.1f} | {found['a_second']:.1f}"
            print(f"| {name} | {way} | {cells} | {found['diverging']} |", flush=True)
            path.write_text(json.dumps(dict(machine=machine.describe(), results=results), indent=1))


if __name__ == "__main__":
    main()
