"""Write the programs of common models into the package, so that the first fit after an installation
is already quick.

    python scripts/ship_programs.py [archive]

Fits, summarises and predicts models of common shapes with an empty store, and packs what the store
then holds. To be run after every change of the kernels or of what writes programs, before a
release; a test says when it is due.
"""

import itertools
import os
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

os.environ |= {"INTERLACE_JAX_EXECUTION": "numpy", "INTERLACE_JAX_CACHE": "1"}

import numpy as np
import pandas as pd

import interlace_jax
from interlace_jax.runtime.programs import store

SLOPES = ("1", "1 + x", "1 + x + z")
ONE = [*SLOPES, "1 + x + z + u"]
FORMULAS = [
    *(
        f"y ~ x + ({term} {bar} a)"
        for term in ONE
        for bar in ("|", "||")
        if not (term == "1" and bar == "||")
    ),
    *(
        f"y ~ x + ({first} | a) + ({second} | b)"
        for first, second in itertools.product(SLOPES[:2], repeat=2)
    ),
    *(
        f"y ~ x + ({first} | c) + ({second} | a)"
        for first, second in itertools.product(SLOPES[:2], repeat=2)
    ),
    "y ~ x + (0 + x | a)",
    "y ~ x + (1 | a) + (1 | b) + (1 | e)",
    "y ~ x + (1 | c) + (1 | a) + (1 | b)",
]
RESAMPLED = ["y ~ x + (1 | a)", "y ~ x + (1 + x | a)", "y ~ x + (1 | a) + (1 | b)"]
GENERALIZED = ["(1 | a)", "(1 + x | a)", "(1 | a) + (1 | b)", "(1 | c) + (1 | a)"]
FAMILIES = {
    "success": "binomial",
    "cbind(success, failures)": "binomial",
    "count": "poisson",
    "many": "nbinom2",
}
CROSSED_SLOPES = ["(1 + x | a) + (1 | b)", "(1 + x | a) + (1 + x | b)"]
COMMONEST = {"success": "binomial", "count": "poisson"}
INTERCEPTS = ["(1 | a)", "(1 | a) + (1 | b)"]  # with families that are met less often
FURTHER = {"rating": "ordinal", "many": "nbinom1", "share": "beta", "amount": "gamma"}
VISITS = [3, 4, 5]


def frame(rows=240, seed=0):
    """Data for all formulas: a within c, crossed with b and e."""
    rng = np.random.default_rng(seed)
    a, b, e = rng.integers(0, 24, rows), rng.integers(0, 10, rows), rng.integers(0, 6, rows)
    numbers = {name: rng.normal(size=rows) for name in ("x", "z", "u")}
    effects = [
        rng.normal(size=size)[codes] for size, codes in ((24, a), (8, a // 3), (10, b), (6, e))
    ]
    y = sum(effects) + (1.0 + rng.normal(size=24)[a]) * numbers["x"] + rng.normal(size=rows)
    eta = 0.3 * numbers["x"] + 0.5 * rng.normal(size=24)[a]
    success = 1 * (rng.random(rows) < 1.0 / (1.0 + np.exp(-eta)))
    responses = dict(
        noise=rng.normal(size=rows),
        count=rng.poisson(np.exp(eta)),
        many=rng.poisson(np.exp(eta) * rng.gamma(2.0, 0.5, rows)),
        success=success,
        failures=4 - success,
        rating=pd.Categorical(np.digitize(eta + rng.logistic(size=rows), [-1, 0, 1]), ordered=True),
        share=1.0 / (1.0 + np.exp(-eta - 0.5 * rng.normal(size=rows))),
        amount=np.exp(eta) * rng.gamma(2.0, 0.5, rows),
    )
    return pd.DataFrame(dict(y=y, a=a, b=b, c=a // 3, e=e, **numbers, **responses))


def visits(count, subjects=40, seed=0):
    """Data of a trial: so many visits of every subject."""
    rng, rows = np.random.default_rng(seed), subjects * count
    person, visit = np.repeat(np.arange(subjects), count), np.tile(np.arange(count), subjects)
    y = rng.normal(size=subjects)[person] + rng.normal(size=rows)
    x = rng.normal(size=rows)
    return pd.DataFrame(dict(y=y, x=x, id=person, visit=pd.Categorical(visit)))


def ask(formula, data):
    """Everything that a first session asks of a fit."""
    for method in ("REML", "ML"):
        fit = interlace_jax.fit(formula, data, method=method)
        str(fit.summary())
    fit = interlace_jax.fit(formula, data)
    fit.predict(data.iloc[:5], interval="prediction")
    fit.anova(ddf="kenward-roger")
    fit.random_effects_se, fit.leverage(), fit.r2(), fit.icc(), fit.varcorr  # noqa: B018
    fit.confint(), fit.confint(method="profile"), str(fit.optimum)
    interlace_jax.fit(formula, data.assign(y=data["noise"]))  # singular: what looks at the boundary
    if formula in RESAMPLED:
        fit.bootstrap(40, seed=1, progress=False)
        fit.influence("a")


def ask_generalized(formula, data, family):
    """Everything that a first session asks of a fit of a generalised model."""
    fit = interlace_jax.fit(formula, data, family=family)
    str(fit.summary())
    fit.predict(data.iloc[:5]), fit.confint()
    fit.random_effects_se, fit.r2(), fit.icc(), fit.varcorr  # noqa: B018
    others = {name: data[name].to_numpy()[::-1] for name in ("a", "b", "c")}
    interlace_jax.fit(formula, data.assign(**others), family=family)  # of no effect: the boundary


def _kernels_of_what_is_kept():
    """The names of the kernels whose programs are kept from now on: a set that grows."""
    found, keep = set(), store.keep

    def noted(description, source):
        found.add(description.partition("\n")[0])
        keep(description, source)

    store.keep = noted
    return found


def main(archive):
    """Fill an empty store and pack it."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as home:
        store.platformdirs.user_cache_dir = lambda name: home
        store.SHIPPED = Path(home) / "none"
        kernels = _kernels_of_what_is_kept()
        for formula in FORMULAS:
            ask(formula, frame())
            print(formula, flush=True)
        for bars, (response, family) in (
            *itertools.product(GENERALIZED, FAMILIES.items()),
            *itertools.product(CROSSED_SLOPES, COMMONEST.items()),
            *itertools.product(INTERCEPTS, FURTHER.items()),
        ):
            formula = f"{response} ~ x + {bars}"
            ask_generalized(formula, frame(), family)
            print(formula, flush=True)
        for count in VISITS:
            trial = interlace_jax.fit("y ~ x + visit", visits(count), residual="us(visit | id)")
            str(trial.summary())
            print(count, "visits", flush=True)
        found = sorted(Path(home).rglob("p*.py"))
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as packed:
            packed.comment = store.provenance(kernels).encode()
            for path in found:
                packed.writestr(zipfile.ZipInfo(path.name), path.read_bytes(), zipfile.ZIP_LZMA)
    print(f"{len(found)} programs, {os.path.getsize(archive) / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else store.SHIPPED)
