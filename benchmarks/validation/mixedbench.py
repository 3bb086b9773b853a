"""The models of MixedBench, here and by lme4, glmmTMB and ordinal: likelihoods compared, and every
difference named.

MixedBench (PyPI: mixedbench) documents 724 mixed models of 649 public data sets that nobody chose
for us. This fits those whose data an installed R package has and whose family is one of `FAMILIES`,
in R and here, and writes what came out. Normal responses are fitted by lmer, ordered categories by
clmm, others by glmmTMB, and binomial and Poisson ones by glmer too.

    pip install --no-deps --target peers mixedbench
    python benchmarks/validation/mixedbench.py peers/mixedbench/registry/files/registry.csv
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import interlace_jax as interlace

HERE = Path(__file__).parent
WORSE = 1e-6  # of log L: more than this below R is a failure
BETTER = 1e-4  # more than this above R is another optimum, or a closer search

# what the registry calls a family, or a response without one: family, link, zero inflation
FAMILIES = {
    "continuous": ("gaussian", "identity", ""),
    "gaussian": ("gaussian", "identity", ""),
    "binary": ("binomial", "logit", ""),
    "binomial": ("binomial", "logit", ""),
    "bernoulli(cloglog)": ("binomial", "cloglog", ""),
    "count": ("poisson", "log", ""),
    "zero_inflated_poisson": ("poisson", "log", "~ 1"),
    "negbinomial": ("nbinom2", "log", ""),
    "zero_inflated_negbinomial": ("nbinom2", "log", "~ 1"),
    "Gamma(log)": ("gamma", "log", ""),
    "Gamma(identity)": ("gamma", "identity", ""),
    "Beta": ("beta", "logit", ""),
    "ordinal": ("ordinal", "logit", ""),
    "cumulative(probit)": ("ordinal", "probit", ""),
}
CLASSES = {
    "binomial": interlace.Binomial,
    "poisson": interlace.Poisson,
    "nbinom2": interlace.NegativeBinomial,
    "gamma": interlace.Gamma,
    "beta": interlace.Beta,
    "ordinal": interlace.Ordinal,
}


def wanted(registry: Path, packages: set[str]) -> pd.DataFrame:
    """The models of a known family with data in one of the packages, one a row.

    Columns are `key places object response formula types family link zero_inflation weights`.
    """
    table = pd.read_csv(registry, dtype=str, keep_default_na=False)
    table["called"] = table["family"].where(table["family"] != "", table["response_type"])
    table["number"] = table.groupby("object").cumcount().astype(str)
    table["places"] = [
        ";".join(p for s in sources.split(";") if (p := s.split(":")[0]) in packages)
        for sources in table["sources"]
    ]
    table = table[table["called"].isin(list(FAMILIES)) & (table["places"] != "")]
    keys = table["object"] + "_" + table["model_index"] + "_" + table["number"]
    table["key"] = keys.str.replace(r"\W", "_", regex=True)
    facts = [FAMILIES[called] for called in table["called"]]
    table[["family", "link", "zero_inflation"]] = facts
    # some write the formula of the zeros behind a semicolon
    parts = table["formula"].str.split(r";\s*zi\s*=", n=1, expand=True).reindex(columns=[0, 1])
    table["formula"] = parts[0].str.strip()
    table["zero_inflation"] = parts[1].str.strip().fillna(table["zero_inflation"])
    proportion = table["formula"].str.match(r"[\w.]+\s*/\s*[\w.]+\s*~")
    table["weights"] = table["trials"].where(proportion & (table["family"] == "binomial"), "")
    columns = "key places object response formula types family link zero_inflation weights"
    return table[columns.split()].reset_index(drop=True)


def installed(rscript: str) -> set[str]:
    """Packages that R has."""
    found = subprocess.run(
        [rscript, "-e", "cat(rownames(installed.packages()))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(found.stdout.split())


def by_r(models: pd.DataFrame, rscript: str, folder: str, patience: float) -> pd.DataFrame:
    """What R's programs say, one row a model and program; the data are left in `folder`."""
    given = Path(folder, "models.csv")
    models.to_csv(given, index=False)
    subprocess.run([rscript, HERE / "mixedbench.R", given, folder, str(patience)], check=True)
    return pd.read_csv(Path(folder, "theirs.csv"), dtype={"text": str})


def read(model: Any, folder: str, text: set[str]) -> pd.DataFrame:
    """The rows that R fitted: `text` columns are categories."""
    data = pd.read_csv(
        Path(folder, f"{model.key}.csv"),
        dtype=dict.fromkeys(text, str),
        keep_default_na=False,
        na_values=["NA"],
    )
    if model.family == "ordinal" and model.response in data:
        return data.assign(**{model.response: pd.Categorical(data[model.response], ordered=True)})
    return data


def settings(model: Any) -> dict[str, Any]:
    """Arguments of `fit` beside formula and data."""
    if model.family == "gaussian":
        return {}
    found: dict[str, Any] = {"family": CLASSES[model.family](model.link)}
    if model.weights:
        found["weights"] = model.weights
    if model.zero_inflation:
        found["zero_inflation"] = model.zero_inflation
    return found


def ours(model: Any, data: pd.DataFrame) -> dict[str, Any]:
    """What one fit gives, or why there is none."""
    began = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = interlace.fit(model.formula, data, **settings(model))
    except Exception as err:  # whatever a stranger's data bring
        return {"our_error": f"{type(err).__name__}: {err}"}
    seconds = time.process_time() - began
    return dict(
        our_loglik=fit.llf,
        our_nobs=fit.nobs,
        our_singular=fit.is_singular,
        our_p=len(fit.fe_params),
        our_seconds=seconds,
        converged=fit.converged,
    )


def verdict(row: pd.Series) -> str:
    """How two fits of one model compare."""
    failed = isinstance(row["error"], str) or np.isnan(row["loglik"])
    if isinstance(row.get("our_error"), str):
        return "refused by both" if failed else "refused here"
    if failed:
        reason = "too long for" if "time limit" in str(row["error"]) else "refused by"
        return f"{reason} {row['program']}"
    if row["nobs"] != row["our_nobs"] or row["p"] != row["our_p"]:
        return "another model"
    gain = row["our_loglik"] - row["loglik"]
    return "worse" if gain < -WORSE else "better" if gain > BETTER else "same"


def counted(table: pd.DataFrame) -> dict[str, Any]:
    """What came out beside one program, in numbers."""
    both = table[table["verdict"].isin(["same", "better", "worse"])]
    said = both["said"].fillna("").str.contains("converge|rescale|unidentifiable", regex=True)
    return {
        "models": len(table),
        "verdicts": table["verdict"].value_counts().to_dict(),
        "lowest difference of log L": float(np.min(both["our_loglik"] - both["loglik"])),
        "not converged": int((~both["converged"].astype(bool)).sum()),
        "singular here": int(both["our_singular"].astype(bool).sum()),
        "singular in R": int((both["singular"] == True).sum()),  # noqa: E712 (missing is not)
        "warned in R": int(said.sum()),
        "CPU seconds here": float(both["our_seconds"].sum()),
        "CPU seconds in R": float(both["seconds"].sum()),
    }


def main() -> None:
    """Fit, compare, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("registry", type=Path)
    parser.add_argument("--rscript", default="Rscript")
    parser.add_argument("--generalised", action="store_true", help="other than normal responses")
    parser.add_argument("--objects", default=".", help="pattern of the data sets' names")
    parser.add_argument("--patience", type=float, default=60, help="CPU seconds a fit in R")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "mixedbench.json")
    options = parser.parse_args()
    models = wanted(options.registry, installed(options.rscript))
    if options.generalised:
        models = models[models["family"] != "gaussian"]
    models = models[[bool(re.search(options.objects, name)) for name in models["object"]]]
    with tempfile.TemporaryDirectory() as folder:
        theirs = by_r(models, options.rscript, folder, options.patience)
        rows = []
        for model in models.itertuples():
            told = theirs[theirs["key"] == model.key]
            if told.empty:  # R has no such data
                continue
            text = {name for names in told["text"].dropna() for name in names.split(";")}
            mine = ours(model, read(model, folder, text))
            facts = dict(formula=model.formula, family=model.family, link=model.link)
            rows += [facts | one | mine for one in told.drop(columns="text").to_dict("records")]
    table = pd.DataFrame(rows)
    table["verdict"] = table.apply(verdict, axis=1)
    found = {program: counted(part) for program, part in table.groupby("program")}
    print(json.dumps(found, indent=1))
    columns = "key program formula verdict loglik our_loglik error our_error nobs our_nobs p our_p"
    different = table.reindex(columns=columns.split())[table["verdict"] != "same"]
    print(different.to_string(index=False, max_colwidth=90))
    told = found | {"rows": json.loads(table.to_json(orient="records"))}
    options.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
