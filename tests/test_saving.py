"""Saved fits predict as the fits did; files of others execute nothing."""

import io
import json
import zipfile

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers.fits import quiet_fit
from numpy.testing import assert_allclose

import interlace_jax


def frame(rows=160, seed=0):
    rng = np.random.default_rng(seed)
    a, b, x = rng.integers(0, 15, rows), rng.integers(0, 6, rows), rng.normal(size=rows)
    kind = np.array(["p", "q", "r"])[rng.integers(0, 3, rows)]
    y = (
        1.0
        + x
        + rng.normal(size=15)[a] * (1.0 + x)
        + rng.normal(size=6)[b]
        + (kind == "q")
        + rng.normal(size=rows)
    )
    return pd.DataFrame(dict(y=y, x=x, kind=kind, a=a, b=b.astype(str), off=rng.normal(size=rows)))


FORMULAS = {
    "y ~ x + (1 + x | a)": {},
    "y ~ C(kind, contr.sum) * poly(x, 2) + bs(x, df=4) + (1 | a) + (1 | b)": {},
    "y ~ kind + np.exp(x) + (kind | a)": dict(method="ML", df_method="normal"),
    "y ~ scale(x) + kind + (1 | a)": dict(df_method="kenward-roger"),
    "y ~ x + (1 | b)": dict(offset="off"),
}


@pytest.fixture(params=FORMULAS)
def fit(request):
    return quiet_fit(request.param, frame(), **FORMULAS[request.param])


def test_a_saved_fit_predicts_as_the_fit(fit, tmp_path):
    fit.save(tmp_path / "fit.npz")
    saved = interlace_jax.load(tmp_path / "fit.npz")
    new = frame(40, seed=1)
    new.loc[3, "a"], new.loc[5, "b"] = 99, "unseen"
    for options in (
        dict(),
        dict(interval="confidence"),
        dict(interval="prediction"),
        dict(include_re=False),
    ):
        expected, found = fit.predict(new, **options), saved.predict(new, **options)
        assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    inner = dict(interval="confidence", include_re=False)
    assert_allclose(saved.predict(new, **inner), fit.predict(new, **inner), rtol=1e-10)


def test_a_saved_fit_has_the_tables_of_the_fit(fit, tmp_path):
    fit.save(tmp_path / "fit.npz")
    saved = interlace_jax.load(tmp_path / "fit.npz")
    for name in ("fe_params", "fe_bse", "fe_df", "fe_pvalues"):
        pd.testing.assert_series_equal(getattr(saved, name), getattr(fit, name))
    assert saved.varcorr["sdcor"].tolist() == fit.varcorr["sdcor"].tolist()
    assert saved.deviance == fit.deviance and saved.nobs == fit.nobs and saved.method == fit.method
    assert saved.summary() == str(fit.summary())
    for name, effects in fit.random_effects.items():
        assert_allclose(saved.random_effects[name], effects)
        assert list(saved.random_effects[name].index) == list(effects.index)


def fading(distance, length):
    return jnp.exp(-distance / length)


@pytest.mark.parametrize("kind", ["known", "kernel"])
def test_a_saved_fit_predicts_the_levels_that_covary(kind, tmp_path):
    distance = np.abs(np.subtract.outer(np.arange(6.0), np.arange(6.0)))
    known = interlace_jax.Known(0.3 + 0.7 * np.eye(6))
    kernel = interlace_jax.Kernel(fading, distance, {"length": 1.0})
    fit = quiet_fit("y ~ x + (1 | b)", frame(), cov={"b": known if kind == "known" else kernel})
    fit.save(tmp_path / "fit.npz")
    saved, new = interlace_jax.load(tmp_path / "fit.npz"), frame(30, seed=1)
    assert_allclose(saved.predict(new), fit.predict(new), rtol=1e-10)
    expected = fit.predict(new, interval="prediction")
    assert_allclose(saved.predict(new, interval="prediction"), expected, rtol=1e-12)
    assert_allclose(saved.random_effects["b"], fit.random_effects["b"])
    with pytest.raises(ValueError, match="how a new one does with them is not known"):
        saved.predict(new.assign(b="unseen"), interval="prediction")


REPEATED = {
    "kenward-roger": ("y ~ x * kind", "us(visit | id)", None),
    "between-within": ("y ~ x + kind", "ar1h(visit | id)", "~ x"),
    "satterthwaite": ("y ~ x + (1 | a)", "sp_exp(visit | id)", interlace_jax.Power("visit")),
}


@pytest.mark.parametrize("rule", REPEATED)
def test_a_saved_fit_with_a_residual_covariance_predicts_means(rule, tmp_path):
    formula, residual, dispersion = REPEATED[rule]
    data = frame().assign(id=lambda d: d.index // 4, visit=lambda d: 1 + d.index % 4)
    options = dict(residual=residual, dispersion=dispersion, df_method=rule)
    fit = quiet_fit(formula, data.assign(a=lambda d: d["id"] % 9), **options)
    fit.save(tmp_path / "fit.npz")
    saved, new = interlace_jax.load(tmp_path / "fit.npz"), frame(30, seed=1)
    assert_allclose(saved.predict(new), fit.predict(new), rtol=1e-10)
    population = dict(interval="confidence", include_re=False)
    assert_allclose(saved.predict(new, **population), fit.predict(new, **population), rtol=1e-10)
    assert_allclose(saved.fe_df, fit.fe_df)
    assert saved.summary() == str(fit.summary())
    with pytest.raises(ValueError, match="needs the data of the fit"):
        saved.predict(new.assign(visit=1, id=0), interval="prediction")


def test_what_needs_the_data_is_refused_in_words(tmp_path):
    quiet_fit("y ~ x + (1 | a)", frame()).save(tmp_path / "fit.npz")
    saved = interlace_jax.load(tmp_path / "fit.npz")
    with pytest.raises(AttributeError, match="'resid' needs the data"):
        saved.resid  # noqa: B018
    with pytest.raises(AttributeError, match="no 'bootstrap'"):
        saved.bootstrap()


def test_a_file_is_small_whatever_the_rows(tmp_path):
    for rows in (200, 20_000):
        quiet_fit("y ~ x + (1 | a)", frame(rows)).save(tmp_path / f"{rows}.npz")
    assert (tmp_path / "20000.npz").stat().st_size < 1.2 * (tmp_path / "200.npz").stat().st_size


def edited(path, change):
    """A file with its text changed."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    text = json.loads(np.load(io.BytesIO(parts["text.npy"])).tobytes().decode())
    change(text)
    target = io.BytesIO()
    np.save(target, np.frombuffer(json.dumps(text).encode(), np.uint8))
    parts["text.npy"] = target.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.fixture
def path(tmp_path):
    quiet_fit("y ~ np.exp(x) + (1 | a)", frame()).save(tmp_path / "fit.npz")
    return tmp_path / "fit.npz"


def test_a_later_version_is_refused(path):
    edited(path, lambda text: text.update(version=99))
    with pytest.raises(ValueError, match="later version"):
        interlace_jax.load(path)


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\x80\x04pickle"]
)
def test_a_damaged_file_is_refused(path, damage):
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="damaged"):
        interlace_jax.load(path)


def test_a_missing_file_is_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        interlace_jax.load(tmp_path / "none.npz")


HOSTILE = [
    "__import__('os').system('touch hacked')",
    "np.load('hacked')",
    "np.exp.__class__(x)",
    "x.__class__(x)",
    "I((lambda: x)())",
    "open('hacked', 'w')",
    "I([x for x in x])",
]


@pytest.mark.parametrize("code", HOSTILE)
def test_a_formula_that_does_more_than_compute_is_refused_and_not_evaluated(
    path, code, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    def change(text):
        fields = dict(text["content"]["dict"])["design"]["fields"]["formula"]["fields"]
        fields["fixed"] = f"1 + {code}"

    edited(path, change)
    with pytest.raises(ValueError):
        interlace_jax.load(path).predict(frame())
    assert not (tmp_path / "hacked").exists()


def test_classes_that_are_not_listed_are_not_made(path):
    def change(text):
        dict(text["content"]["dict"])["design"]["class"] = "Popen"

    edited(path, change)
    with pytest.raises(ValueError, match="damaged"):
        interlace_jax.load(path)


def test_formulas_that_do_more_than_compute_are_not_saved(tmp_path):
    fit = quiet_fit("y ~ x.clip(0) + (1 | a)", frame())
    with pytest.raises(ValueError, match="clip"):
        fit.save(tmp_path / "fit.npz")
