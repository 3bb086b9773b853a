"""Programs run as NumPy where that is quicker, with XLA's numbers; a fit from stored programs
needs no JAX.
"""

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers.fits import quiet_fit
from numpy.testing import assert_allclose

import interlace_jax
from interlace_jax.runtime import calls
from interlace_jax.runtime.compilation import jit
from interlace_jax.runtime.programs import background, executables, store, tiers, trace
from interlace_jax.support.containers import container


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """One store for this file, so that each program is traced once."""
    folder = tmp_path_factory.getbasetemp() / "programs-of-this-file"
    monkeypatch.setattr(store.platformdirs, "user_cache_dir", lambda name: str(folder))
    monkeypatch.setattr(store, "SHIPPED", folder / "none")
    monkeypatch.delenv("INTERLACE_JAX_CACHE", raising=False)
    known = SimpleNamespace(doubled=doubled, doubled_within=doubled_within)
    monkeypatch.setitem(sys.modules, doubled.__module__, known)
    tiers.forget()


def frame(rows, groups, items, seed=0):
    rng = np.random.default_rng(seed)
    a, b, x = rng.integers(0, groups, rows), rng.integers(0, items, rows), rng.normal(size=rows)
    outer, slopes, items = (
        rng.normal(size=groups)[a // 3],
        rng.normal(size=groups)[a] * x,
        rng.normal(size=items)[b],
    )
    y = 1.0 + 0.5 * x + outer + rng.normal(size=groups)[a] + slopes + items + rng.normal(size=rows)
    return pd.DataFrame(dict(y=y, x=x, z=rng.normal(size=rows), a=a, b=b, c=a // 3))


def numbers(formula, data):
    """What a fit says, in one vector by name; theta and what follows to the digits that its
    search determines.
    """
    fit = quiet_fit(formula, data)
    new = fit.predict(data.iloc[:9], interval="prediction")
    parts = dict(
        deviance=[fit.deviance],
        beta=fit.fe_params,
        se=fit.fe_bse,
        df=fit.fe_df,
        theta=fit.theta,
        sigma=[fit.sigma],
        modes=np.concatenate([np.ravel(v) for v in fit.mode_arrays]),
        upper=new["upper"],
        kr=fit.anova(ddf="kenward-roger").iloc[:, 3],
        r2=fit.r2()["se"],
        leverage=fit.leverage()["overall"],
    )
    return {name: np.asarray(values, float) for name, values in parts.items()}


FORMULAS = [
    "y ~ x + z + (1 + x | a) + (1 | b)",
    "y ~ x + (1 | c) + (1 + x || a)",
]


@pytest.mark.slow
@pytest.mark.parametrize("formula", FORMULAS)
def test_both_tiers_give_the_same_numbers(formula, monkeypatch):
    found = {}
    for mode in ("numpy", "xla"):
        monkeypatch.setenv("INTERLACE_JAX_EXECUTION", mode)
        found[mode] = numbers(formula, frame(150, 18, 9))
    for name, expected in found["xla"].items():
        # Rounding moves the end of a search by what is left of it: 1e-15 of the deviance, its root
        # of theta.
        tolerance = 1e-12 if name == "deviance" else 1e-7
        assert_allclose(
            found["numpy"][name], expected, rtol=tolerance, atol=tolerance, err_msg=name
        )


SYMMETRIC = interlace_jax.Residual(interlace_jax.CompoundSymmetry(), time="t", subject="a")


def visits(subjects, seed):
    """Three visits of every subject, of which some are missing, in two regions."""
    rng = np.random.default_rng(seed)
    a, t = np.repeat(np.arange(subjects), 3), np.tile(np.arange(3), subjects)
    x = rng.normal(size=len(a))
    y = x + np.repeat(rng.normal(size=subjects), 3) + rng.normal(size=len(a))
    data = pd.DataFrame(dict(y=y, x=x, a=a, t=t, region=a % 2))
    return data[rng.random(len(data)) > 0.2]


def fit_rows(size):
    quiet_fit("y ~ x + (1 | a)", frame(10 * size, size, 4)).fe_df  # noqa: B018


def fit_patterns(size):
    interlace_jax.fit("y ~ x", visits(size, size), residual=SYMMETRIC)


def fit_regions(size):
    data = visits(2 * size, size)
    interlace_jax.fit_many("y ~ x", data, by="region", residual=SYMMETRIC, progress=False)


@pytest.mark.parametrize("fit_some", [fit_rows, fit_patterns, fit_regions])
def test_a_program_serves_data_of_every_size(fit_some, monkeypatch):
    traced = []
    kernel_program = trace.program
    monkeypatch.setattr(
        trace, "program", lambda *args: traced.append(args[0].__name__) or kernel_program(*args)
    )
    monkeypatch.setenv("INTERLACE_JAX_EXECUTION", "numpy")
    monkeypatch.setenv("INTERLACE_JAX_CACHE", "0")
    tiers.trace.__dict__.pop("program", None)
    for size in (20, 41, 33):
        fit_some(size)
    assert len(traced) == len(set(traced)) > 0


CODE = """
    import sys, warnings
    from pathlib import Path
    import interlace_jax
    from interlace_jax.runtime.programs import store
    store.SHIPPED = Path("none")
    data = interlace_jax.load_dataset({data!r})
    fit = interlace_jax.fit({formula!r}, data)
    str(fit.summary())
    fit.anova(), fit.predict(data.iloc[:5], interval="confidence"), fit.confint()
    fit.r2(), fit.leverage(), fit.random_effects_se, fit.anova(ddf="kenward-roger"), fit.fe_df
    print("jax" in sys.modules, fit.deviance)
"""


@pytest.mark.slow
@pytest.mark.parametrize("family", [None, "poisson"])
def test_a_program_serves_models_of_every_name_and_number_of_coefficients(family, monkeypatch):
    monkeypatch.setenv("INTERLACE_JAX_EXECUTION", "numpy")
    data = frame(200, 12, 5).assign(k=lambda d: (d["y"] - d["y"].min()).round())
    given = {} if family is None else {"family": family}

    def ask(formula, data):
        fit = quiet_fit(formula, data, **given)
        return fit.summary(), fit.r2(), fit.icc(), fit.varcorr

    ask(f"{'y' if family is None else 'k'} ~ x + (1 | a)", data)
    before = set(tiers._written)
    other = frame(150, 9, 5).assign(k=lambda d: (d["y"] - d["y"].min()).round())
    other.columns = ["score", "dose", "age", "clinic", "ward", "city", "events"]
    ask(f"{'score' if family is None else 'events'} ~ dose * age + (1 | clinic)", other)
    again = set(tiers._written) - before
    assert not {name for name, _ in again} & {name for name, _ in before}


def test_a_second_process_fits_without_importing_jax(tmp_path):
    code = CODE.format(data="sleepstudy", formula="Reaction ~ Days + (1 + Days | Subject)")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("INTERLACE_JAX")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    outputs = []
    for _ in range(2):
        command = [sys.executable, "-c", textwrap.dedent(code)]
        run = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert run.returncode == 0, run.stderr
        outputs.append(run.stdout.split())
    assert [was_imported for was_imported, _ in outputs] == ["True", "False"]
    assert outputs[0][1] == outputs[1][1]


def test_importing_the_package_imports_no_jax():
    code = (
        "import sys, interlace_jax; assert not {'jax', 'scipy.stats', 'scipy.special', 'tqdm'} & "
        "set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def doubled(x):
    return 2.0 * x


def doubled_within(lean):
    return 2.0 * lean.x


# as of the package's own
doubled.__module__ = doubled_within.__module__ = "interlace_jax.of_this_test"


def runs(program, x):
    """How often the program was run as NumPy so far, after one more run."""
    assert_allclose(calls.run(program, x), 2.0 * x)
    return [use.seconds > 0.0 for use in tiers._uses.values()].count(True)


def test_large_work_is_compiled_at_once(monkeypatch):
    monkeypatch.setattr(tiers, "LARGE", 10)
    program = jit(doubled)
    assert runs(program, np.ones(10)) == 1
    assert runs(program, np.ones(11)) == 1  # by XLA
    monkeypatch.setenv("INTERLACE_JAX_EXECUTION", "numpy")
    assert runs(program, np.ones(11)) == 2


def test_large_work_on_lean_arguments_is_not(monkeypatch):
    @container
    class Lean:
        x: np.ndarray
        is_lean: ClassVar[bool] = True

    monkeypatch.setattr(tiers, "LARGE", 10)
    program = jit(doubled_within)
    with tiers.ways() as ran:
        assert_allclose(calls.run(program, Lean(np.ones(11))), 2.0)
    assert ran == {"numpy"}


def test_what_has_run_for_long_is_compiled(monkeypatch):
    program = jit(doubled)
    runs(program, np.ones(3))
    (use,) = tiers._uses.values()
    monkeypatch.setattr(tiers, "SOON", 0.0)
    monkeypatch.setattr(tiers, "PATIENCE", 0.0)
    runs(program, np.ones(3))
    background.wait()
    assert use.is_compiled
    before = use.seconds
    with tiers.ways() as ran:
        runs(program, np.ones(3))
    assert use.seconds == before and ran == {"xla"}


def test_what_lies_on_disk_is_compiled_sooner(monkeypatch):
    program = jit(doubled)
    monkeypatch.setenv("INTERLACE_JAX_EXECUTION", "xla")
    runs(program, np.ones(4))
    tiers.forget()
    monkeypatch.delenv("INTERLACE_JAX_EXECUTION")
    monkeypatch.setattr(tiers, "SOON", 0.0)
    runs(program, np.ones(4))
    (use,) = tiers._uses.values()
    assert not use.is_compiled  # what has run once may never run again
    runs(program, np.ones(4))
    assert use.is_compiled and use.seconds < tiers.PATIENCE


def test_what_lies_on_disk_and_does_not_run_is_compiled_anew(monkeypatch):
    def lacks_something(*_):
        raise executables.Failed("NOT_FOUND: Function convert_fusion not found")

    program = jit(doubled)
    monkeypatch.setenv("INTERLACE_JAX_EXECUTION", "xla")
    runs(program, np.ones(6))
    tiers.forget()
    monkeypatch.setattr(executables, "_read", lambda description: lacks_something)
    runs(program, np.ones(6))
    (use,) = tiers._uses.values()
    assert executables.in_memory(use) is not lacks_something


def test_other_sizes_count_for_themselves(monkeypatch):
    program = jit(doubled)
    for size in (3, 4, 5):
        runs(program, np.ones(size))
    assert len(tiers._uses) == 3


def test_a_program_that_cannot_be_compiled_stays_numpy(monkeypatch):
    def broken(*_):
        raise RuntimeError

    program = jit(doubled)
    monkeypatch.setattr(tiers.executables, "make", broken)
    monkeypatch.setattr(tiers, "SOON", 0.0)
    monkeypatch.setattr(tiers, "PATIENCE", 0.0)
    runs(program, np.ones(7))
    background.wait()
    with tiers.ways() as ran:
        runs(program, np.ones(7))
    assert ran == {"numpy"}


def test_many_threads_get_the_same_numbers_while_programs_are_compiled(monkeypatch):
    """NumPy, the change to XLA and XLA, in eight threads at once."""
    program, x = jit(doubled), np.arange(5.0)
    monkeypatch.setattr(tiers, "SOON", 0.0)
    monkeypatch.setattr(tiers, "PATIENCE", 0.0)

    def work(seed):
        return [calls.run(program, seed + x + i) - 2.0 * (seed + x + i) for i in range(200)]

    with ThreadPoolExecutor(8) as pool:
        assert not np.any(list(pool.map(work, range(8))))
    background.wait()
    (use,) = tiers._uses.values()
    assert use.is_compiled


ENDING = """
    import sys, threading, time
    import jax, jax.numpy as jnp, numpy as np
    from interlace_jax.runtime import calls
    from interlace_jax.runtime.compilation import jit
    from interlace_jax.runtime.programs import background, tiers
    tiers.SOON = tiers.PATIENCE = 0.0

    def long(x):
        for i in range(40):
            x = jnp.linalg.cholesky(jnp.sin(x) @ jnp.cos(x).T + 9.0 * jnp.eye(3)) + i
        return x

    long.__module__ = "interlace_jax.of_this_test"
    sys.modules[long.__module__] = sys.modules["__main__"]
    program = jit(long)
    found = [calls.run(program, np.ones((3, 3))) for _ in range(2)][1]
    assert found.shape == (3, 3) and background._thread.is_alive()
    time.sleep({wait})
"""


@pytest.mark.slow
@pytest.mark.parametrize("wait", [0.0, 0.5])
def test_a_process_that_ends_while_a_program_is_compiled_ends_well(wait, tmp_path):
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(ENDING.format(wait=wait))]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert (run.returncode, run.stderr) == (0, "")


def test_a_fit_says_how_it_ran(monkeypatch):
    data = frame(60, 6, 4)
    assert quiet_fit("y ~ x + (1 | a)", data).optimum.execution == "numpy"
    monkeypatch.setenv("INTERLACE_JAX_EXECUTION", "xla")
    assert quiet_fit("y ~ x + (1 | a)", data).optimum.execution == "xla"


def test_a_program_that_fails_is_left_to_xla():
    program = jit(doubled)
    runs(program, np.ones(3))
    (use,) = tiers._uses.values()

    def broken(*_):
        raise IndexError

    use.run = broken
    assert_allclose(calls.run(program, np.ones(3)), 2.0)
    assert use.run is None


def test_functions_of_others_are_compiled_as_ever():
    calls.run(jit(lambda x: x + 1.0), np.ones(3))
    calls.run(jit(jnp.sin), np.ones(3))
    assert not tiers._uses


def test_an_unknown_way_to_run_is_refused(monkeypatch):
    monkeypatch.setenv("INTERLACE_JAX_EXECUTION", "gpu")
    with pytest.raises(ValueError, match="auto, numpy, xla"):
        calls.run(jit(doubled), np.ones(3))
