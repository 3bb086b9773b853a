"""Programs run as NumPy where that is quicker, with XLA's numbers; a fit from stored programs
needs no JAX.
"""

import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers.fits import quiet_fit
from numpy.testing import assert_allclose

from interlace_jax.runtime import calls
from interlace_jax.runtime.compilation import jit
from interlace_jax.runtime.programs import store, tiers, trace


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """One store for this file, so that each program is traced once."""
    folder = tmp_path_factory.getbasetemp() / "programs-of-this-file"
    monkeypatch.setattr(store.platformdirs, "user_cache_dir", lambda name: str(folder))
    monkeypatch.delenv("INTERLACE_JAX_CACHE", raising=False)
    monkeypatch.setitem(sys.modules, doubled.__module__, SimpleNamespace(doubled=doubled))
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
    "y ~ x + (1 + x | a)",
    "y ~ x + z + (1 | a) + (1 | b)",
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


def test_a_program_serves_data_of_every_size(monkeypatch):
    traced = []
    kernel_program = trace.program
    monkeypatch.setattr(
        trace, "program", lambda *args: traced.append(args[0].__name__) or kernel_program(*args)
    )
    monkeypatch.setenv("INTERLACE_JAX_EXECUTION", "numpy")
    monkeypatch.setenv("INTERLACE_JAX_CACHE", "0")
    tiers.trace.__dict__.pop("program", None)
    for rows, groups in ((60, 7), (500, 41), (97, 3)):
        quiet_fit("y ~ x + (1 | a)", frame(rows, groups, 4)).fe_df  # noqa: B018
    assert len(traced) == len(set(traced)) > 0


CODE = """
    import sys, warnings
    import interlace_jax
    data = interlace_jax.load_dataset({data!r})
    fit = interlace_jax.fit({formula!r}, data)
    str(fit.summary())
    fit.anova(), fit.predict(data.iloc[:5], interval="confidence"), fit.confint()
    fit.r2(), fit.leverage(), fit.random_effects_se, fit.anova(ddf="kenward-roger"), fit.fe_df
    print("jax" in sys.modules, fit.deviance)
"""


@pytest.mark.slow
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


doubled.__module__ = "interlace_jax.of_this_test"  # as one of the package's own


def runs(program, x):
    """How often the program was run as NumPy so far, after one more run."""
    assert_allclose(calls.run(program, x), 2.0 * x)
    return [entry.seconds > 0.0 for entry in tiers._entries.values()].count(True)


def test_large_work_is_compiled_at_once(monkeypatch):
    monkeypatch.setattr(tiers, "LARGE", 10)
    program = jit(doubled)
    assert runs(program, np.ones(10)) == 1
    assert runs(program, np.ones(11)) == 1  # by XLA
    monkeypatch.setenv("INTERLACE_JAX_EXECUTION", "numpy")
    assert runs(program, np.ones(11)) == 2


def test_what_has_run_for_long_is_compiled(monkeypatch):
    program = jit(doubled)
    runs(program, np.ones(3))
    (entry,) = tiers._entries.values()
    monkeypatch.setattr(tiers, "PATIENCE", entry.seconds / 2)
    before = entry.seconds
    runs(program, np.ones(3))
    assert entry.seconds == before


def test_a_program_that_fails_is_left_to_xla():
    program = jit(doubled)
    runs(program, np.ones(3))
    (entry,) = tiers._entries.values()

    def broken(*_):
        raise IndexError

    entry.run = broken
    assert_allclose(calls.run(program, np.ones(3)), 2.0)
    assert entry.run is None


def test_functions_of_others_are_compiled_as_ever():
    calls.run(jit(lambda x: x + 1.0), np.ones(3))
    calls.run(jit(jnp.sin), np.ones(3))
    assert not tiers._entries


def test_an_unknown_way_to_run_is_refused(monkeypatch):
    monkeypatch.setenv("INTERLACE_JAX_EXECUTION", "gpu")
    with pytest.raises(ValueError, match="auto, numpy, xla"):
        calls.run(jit(doubled), np.ones(3))
