"""What the first call of every verb takes: fresh processes, with programs stored or not.

    python benchmarks/first_call.py [data set ...]

CPU and wall milliseconds of the first and the second call in a process, and of the whole process,
with an empty store of programs (`empty`), and in a second process that finds the programs of the
first (`filled`).
"""

import json
import os
import subprocess
import sys
import tempfile
import textwrap

CASES = {
    "sleepstudy": "Reaction ~ Days + (1 + Days | Subject)",
    "dyestuff": "Yield ~ 1 + (1 | Batch)",
    "crossed": "rt ~ condition + (1 + condition | subject) + (1 | item)",
}
VERBS = {
    "fit": "interlace_jax.fit(formula, data)",
    "summary": "str(fit.summary())",
    "predict, 7 intervals": "fit.predict(data.iloc[:7], interval='prediction')",
    "predict, 9 intervals": "fit.predict(data.iloc[:9], interval='prediction')",
    "random_effects_se": "fit.random_effects_se",
    "anova, Kenward-Roger": "fit.anova(ddf='kenward-roger')",
    "r2": "fit.r2()",
    "leverage": "fit.leverage()",
    "confint, profile": "fit.confint(method='profile')",
    "bootstrap, 200": "fit.bootstrap(200, seed=1, progress=False)",
    "influence": "fit.influence()",
}
SESSION = """
    import json, sys, time, warnings
    began = time.process_time(), time.perf_counter()
    warnings.simplefilter("ignore")
    import numpy, pandas, formulaic
    others = time.process_time()
    import interlace_jax
    imported = time.process_time()
    data, formula = interlace_jax.load_dataset({data!r}), {formula!r}
    fit, rows = None, {{}}
    for name, verb in {verbs!r}.items():
        times = []
        for _ in range(2):
            start = time.process_time(), time.perf_counter()
            result = eval(verb)
            spent = time.process_time() - start[0], time.perf_counter() - start[1]
            times += [1e3 * seconds for seconds in spent]
            fit = fit or result
        rows[name] = times
    resident = int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
    print(json.dumps(dict(
        rows=rows, others=1e3 * (others - began[0]), package=1e3 * (imported - others),
        jax="jax" in sys.modules, whole=1e3 * (time.process_time() - began[0]), resident=resident,
    )))
"""


def session(data, home, verbs):
    """What one fresh process measured."""
    code = textwrap.dedent(SESSION.format(data=data, formula=CASES[data], verbs=verbs))
    environment = os.environ | {"XDG_CACHE_HOME": home}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    return json.loads(run.stdout)


def report(data, state, found):
    """Print it."""
    print(f"\n{data}, store {state}: JAX imported: {found['jax']}; {found['resident']:.0f} MB")
    print(
        f"  imports: NumPy, pandas, formulaic {found['others']:.0f}, this package "
        f"{found['package']:.0f} ms of CPU"
    )
    print(f"  {'':24s}{'first CPU':>10s}{'wall':>8s}{'again CPU':>11s}{'wall':>8s}")
    for name, times in found["rows"].items():
        print(f"  {name:24s}{times[0]:10.0f}{times[1]:8.0f}{times[2]:11.1f}{times[3]:8.1f}")


def main(wanted):
    """All data sets, with an empty store and with a filled one."""
    for data in wanted:
        with tempfile.TemporaryDirectory() as home:
            for state in ("empty", "filled"):
                report(data, state, session(data, home, VERBS))


if __name__ == "__main__":
    main(sys.argv[1:] or CASES)
