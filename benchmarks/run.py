"""Race this package against its peers: `python benchmarks/run.py [names ...]`. See README.md."""

from __future__ import annotations

import argparse
import os
import sys

import machine
import race
import table
from cases import BENCHMARKS


def main() -> int:
    options = _options()
    if options.cores:
        machine.use_cores(options.cores)
    failures = []
    for name in options.names:
        result = race.run(BENCHMARKS[name], _interpreters(options))
        table.save(result)
        print(table.markdown(result), flush=True)
        failures += result["failures"]
    return 1 if failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", help=f"which of {', '.join(BENCHMARKS)}; all of them if none is given"
    )
    peers = os.environ.get("INTERLACE_PEERS_PYTHON", "python")
    parser.add_argument(
        "--peers-python",
        default=peers,
        help="Python that has mixedlm and statsmodels (%(default)s)",
    )
    lme = os.environ.get("INTERLACE_LME_PYTHON")
    parser.add_argument(
        "--interlace-lme-python", default=lme, help="Python that has interlace-lme (--peers-python)"
    )
    parser.add_argument(
        "--rscript", default="Rscript", help="R with lme4, lmerTest and jsonlite (%(default)s)"
    )
    parser.add_argument("--cores", type=int, help="keep everything to this many cores (Linux)")
    options = parser.parse_args()
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(
            f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}"
        )
    options.names = options.names or list(BENCHMARKS)
    return options


def _interpreters(options: argparse.Namespace) -> dict[str, str]:
    return {
        "drive_interlace_jax.py": sys.executable,
        "cold_interlace_jax.py": sys.executable,
        "drive_mixedlm.py": options.peers_python,
        "cold_mixedlm.py": options.peers_python,
        "drive_statsmodels.py": options.peers_python,
        "drive_interlace_lme.py": options.interlace_lme_python or options.peers_python,
        "drive_lme4.R": options.rscript,
        "cold_lme4.R": options.rscript,
    }


if __name__ == "__main__":
    sys.exit(main())
