"""Results as JSON files and as tables.

`python benchmarks/table.py` writes the stored results into README.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MARKERS = "<!-- results -->\n", "<!-- end of results -->"


def save(result: dict[str, Any]) -> None:
    """One file a benchmark; a run on fewer cores than the machine has goes to a file of its own."""
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    cores, used = result["machine"]["cores"], result["machine"]["cores_used"]
    suffix = "" if used == cores else f"-{used}-core"
    (folder / f"{result['name']}{suffix}.json").write_text(json.dumps(result, indent=1) + "\n")


def markdown(result: dict[str, Any]) -> str:
    """One table: a row a runner; the last columns say how many times longer than each of ours it
    took.

    Two figures each: the median over rounds, and the fastest call against the fastest call.
    """
    ours = list(result["ratios"])
    head = ["runner", "first call", "median", "min to max", "peak MB", "-2 log L above best"]
    rows = [head + [f"vs {name.partition(', ')[2]}" for name in ours]]
    rows += [_row(name, report, result["ratios"]) for name, report in result["runners"].items()]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" + "|---:" * (len(rows[0]) - 1) + "|")
    return "\n".join(
        [
            f"\n### {result['name']}: {result['title']}\n",
            _setting(result),
            "",
            *lines,
            *_notes(result),
        ]
    )


def _setting(result: dict[str, Any]) -> str:
    machine = result["machine"]
    loads = [*result["load_average"]["rounds"], result["load_average"]["after"][0]]
    return (
        f"`{result['formula']}`, REML. {machine['cpu']}, {machine['cores_used']} of "
        f"{machine['cores']} cores, load average {min(loads):.1f} to {max(loads):.1f}; "
        f"{machine['date'][:10]}."
    )


def _row(name: str, report: dict[str, Any], ratios: dict[str, dict[str, Any]]) -> list[str]:
    if report["status"] != "ok":
        return [name, report["status"], *[""] * (4 + len(ratios))]
    span = f"{_time(report['min_s'])} to {_time(report['max_s'])}"
    peak = f"{report['rss_peak_mb']:.0f}" if report.get("rss_peak_mb") else ""
    first = _time(report["first_s"]) if "first_s" in report else ""
    times = [_ratio(ours[name]) if name in ours else "" for ours in ratios.values()]
    return [name, first, _time(report["median_s"]), span, peak, f"{report['excess']:.1e}", *times]


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _ratio(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.3g}x, {ratio['of_fastest']:.3g}x"


def _notes(result: dict[str, Any]) -> list[str]:
    absent = {
        name: report for name, report in result["runners"].items() if report["status"] == "missing"
    }
    missing = [f"- Missing: {name} ({report['reason']})" for name, report in absent.items()]
    failed = [f"- **Failed**: {failure}" for failure in result["failures"]]
    return ["", *missing, *failed] if missing or failed else []


def stored() -> str:
    found = (json.loads(path.read_text()) for path in sorted((HERE / "results").glob("*.json")))
    return "\n".join(markdown(result) for result in found if "ratios" in result)


def main() -> None:
    readme = HERE / "README.md"
    before, rest = readme.read_text().split(MARKERS[0])
    after = rest.split(MARKERS[1])[1]
    readme.write_text(f"{before}{MARKERS[0]}{stored()}\n\n{MARKERS[1]}{after}")


if __name__ == "__main__":
    main()
