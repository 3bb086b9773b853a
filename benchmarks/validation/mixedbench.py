"""The Gaussian models of MixedBench, here and by lme4: likelihoods compared, and every difference
named.

MixedBench (PyPI: mixedbench) documents 724 mixed models of 649 public data sets that nobody chose
for us. This fits those with a continuous response whose data an installed R package has, in R and
here, and writes what came out.

    pip install --no-deps --target peers mixedbench
    python benchmarks/validation/mixedbench.py peers/mixedbench/registry/files/registry.csv
"""

from __future__ import annotations

import argparse
import json
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
WORSE = 1e-6  # of log L: more than this below lme4 is a failure


def wanted(registry: Path, packages: set[str]) -> pd.DataFrame:
    """`key package object formula types` of the models with a Gaussian response and data in one
    of the packages.
    """
    table = pd.read_csv(registry, dtype=str, keep_default_na=False)
    table = table[(table["response_type"] == "continuous") & table["family"].isin(["", "gaussian"])]
    places = [
        [s.split(":") for s in sources.split(";") if s.split(":")[0] in packages]
        for sources in table["sources"]
    ]
    table = table.assign(place=[found[0] if found else None for found in places]).dropna(
        subset="place"
    )
    keys = (
        table["object"]
        + "_"
        + table["model_index"]
        + "_"
        + table.groupby("object").cumcount().astype(str)
    )
    parts = dict(zip(("package", "object"), zip(*table["place"], strict=True), strict=True))
    return pd.DataFrame(
        {
            "key": keys.str.replace(r"\W", "_", regex=True),
            **parts,
            "formula": table["formula"].str.strip(),
        }
    ).assign(types=table["types"])


def installed(rscript: str) -> set[str]:
    """Packages that R has."""
    found = subprocess.run(
        [rscript, "-e", "cat(rownames(installed.packages()))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(found.stdout.split())


def ours(formula: str, data: pd.DataFrame) -> dict[str, Any]:
    """What one fit gives, or why there is none."""
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = interlace.fit(formula, data)
    except Exception as err:  # whatever a stranger's data bring
        return {"our_error": f"{type(err).__name__}: {err}"}
    seconds = time.perf_counter() - began
    facts = dict(
        our_loglik=fit.llf,
        our_nobs=fit.nobs,
        our_singular=fit.is_singular,
        our_p=len(fit.fe_params),
    )
    return facts | dict(our_seconds=seconds, converged=fit.converged)


def verdict(row: pd.Series) -> str:
    """How two fits of one model compare."""
    if isinstance(row.get("our_error"), str):
        return "refused by both" if isinstance(row["error"], str) else "refused here"
    if isinstance(row["error"], str):
        return "refused by lme4"
    if row["nobs"] != row["our_nobs"] or row["p"] != row["our_p"]:
        return "another model"
    gain = row["our_loglik"] - row["loglik"]
    return "worse" if gain < -WORSE else "better" if gain > 1e-4 else "same"


def main() -> None:
    """Fit, compare, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("registry", type=Path)
    parser.add_argument("--rscript", default="Rscript")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "mixedbench.json")
    options = parser.parse_args()
    models = wanted(options.registry, installed(options.rscript))
    with tempfile.TemporaryDirectory() as folder:
        models.to_csv(Path(folder, "models.csv"), index=False)
        subprocess.run(
            [options.rscript, HERE / "mixedbench.R", Path(folder, "models.csv"), folder], check=True
        )
        theirs = pd.read_csv(Path(folder, "lme4.csv"))
        rows = []
        for model, told in zip(models.itertuples(), theirs.to_dict("records"), strict=True):
            path = Path(folder, f"{model.key}.csv")
            if not path.exists():
                continue
            text = [] if not isinstance(told["text"], str) else told["text"].split(";")
            data = pd.read_csv(
                path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=["NA"]
            )
            rows.append(
                dict(package=model.package, formula=model.formula)
                | told
                | ours(model.formula, data)
            )
    table = pd.DataFrame(rows)
    table["verdict"] = table.apply(verdict, axis=1)
    both = table[table["verdict"].isin(["same", "better", "worse"])]
    told = {
        "models": len(table),
        "verdicts": table["verdict"].value_counts().to_dict(),
        "lowest difference of log L": float(np.min(both["our_loglik"] - both["loglik"])),
        "not converged": int((~both["converged"].astype(bool)).sum()),
        "singular here": int(both["our_singular"].astype(bool).sum()),
        "singular by lme4": int(both["singular"].astype(bool).sum()),
        "warned by lme4": int(
            both["said"]
            .fillna("")
            .str.contains("converge|rescale|unidentifiable", regex=True)
            .sum()
        ),
        "seconds here": float(both["our_seconds"].sum()),
        "seconds of lme4": float(both["seconds"].sum()),
    }
    print(json.dumps(told, indent=1))
    different = table[~table["verdict"].isin(["same"])]
    columns = [
        "key",
        "formula",
        "verdict",
        "loglik",
        "our_loglik",
        "error",
        "our_error",
        "nobs",
        "our_nobs",
        "p",
        "our_p",
    ]
    print(different.reindex(columns=columns).to_string(index=False, max_colwidth=90))
    options.out.write_text(
        json.dumps(told | {"rows": json.loads(table.to_json(orient="records"))}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
