"""fit_many: every model of a batch is the model that `fit` makes of its data."""

import os
import subprocess
import sys
import warnings
from functools import cache

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers.cases import load_case
from helpers.fits import assert_same_effects, quiet_fit
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_series_equal

import interlace_jax as interlace
from interlace_jax.many import chunks
from interlace_jax.numerics.crossproducts import layout

DESIGNS = {
    "slopes, weights and offset": ("x + (1 + x | g)", dict(weights="w", offset="o")),
    "independent slopes": ("x + (1 + x || g)", {}),
    "nested": ("x + (1 | a/b)", {}),
    "crossed": ("x + (1 + x | g) + (1 | h)", {}),
}
each_design = pytest.mark.parametrize("name", DESIGNS)


@cache
def _design_frame() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = 72
    frame = pd.DataFrame(
        {"x": rng.normal(size=n), "w": rng.uniform(0.3, 3, n), "o": rng.normal(0, 3, n)}
    )
    for name, levels in dict(g=9, h=6, a=6, b=3).items():
        frame[name] = [f"{name}{i}" for i in rng.permutation(np.arange(n) % levels)]
    return frame


@cache
def _responses() -> np.ndarray:
    """Twelve responses; the last four know no groups, so that variances are zero."""
    rng, frame = np.random.default_rng(2), _design_frame()
    Y = rng.normal(size=(len(frame), 12)) + frame[["o"]].to_numpy()
    for names in (["g"], ["h"], ["a"], ["a", "b"]):
        Y[:, :8] += 2 * rng.normal(size=(18, 8))[frame.groupby(names).ngroup()]
    Y[:, :8] += 2 * frame[["x"]].to_numpy() * rng.normal(size=(9, 8))[frame.groupby("g").ngroup()]
    return Y * np.geomspace(0.01, 100, 12)


@cache
def _many(name: str) -> interlace.Many:
    right, arguments = DESIGNS[name]
    return interlace.fit_many("~ " + right, _design_frame(), responses=_responses(), **arguments)


def _single(name: str, j: int) -> interlace.Fit:
    right, arguments = DESIGNS[name]
    return quiet_fit("y ~ " + right, _design_frame().assign(y=_responses()[:, j]), **arguments)


def _same(many: interlace.Many, label, fit: interlace.Fit) -> None:
    """One row of the tables against the fit of its data: the same optimum, to what rounding
    leaves of it.
    """
    assert_allclose(
        -2 * many.llf[label], fit.deviance, rtol=0, atol=1e-8 * max(1, abs(fit.deviance))
    )
    assert_allclose(many.fe_params.loc[label], fit.fe_params, rtol=0, atol=1e-4 * fit.fe_bse.min())
    assert_allclose(many.fe_bse.loc[label], fit.fe_bse, rtol=1e-4)
    assert_allclose(many.sigma[label], fit.sigma, rtol=1e-4)
    assert_allclose(many.theta.loc[label], fit.theta, rtol=1e-4, atol=2e-4)
    assert many.nobs[label] == fit.nobs
    assert many.is_singular[label] == fit.is_singular
    assert many.converged[label] and many.status[label] == "converged"


@each_design
def test_every_response_is_the_fit_of_its_own(name):
    many = _many(name)
    assert many.is_singular.any() and not many.is_singular.all()
    for j in range(0, 12, 2):
        _same(many, j, _single(name, j))


@each_design
def test_degrees_of_freedom_are_those_of_the_fit(name):
    many = _many(name)
    for j in (0, 5, 10):
        fit = _single(name, j)
        assert_allclose(many.fe_df.loc[j], fit.fe_df, rtol=1e-3)
        assert_allclose(many.fe_pvalues.loc[j], fit.fe_pvalues, rtol=1e-3)


def test_a_search_that_creeps_where_two_columns_all_but_vanish_goes_on():
    # One of 20,000 responses of noise ended at the step limit, 0.003 units too high. Deviances:
    # lme4, xtol_abs = 1e-12.
    frame, lme4 = interlace.load_dataset("sleepstudy"), [509.6170731, 534.3350006]
    Y = np.stack([np.random.default_rng(seed).normal(size=180) for seed in (6673, 42928)], 1)
    many = interlace.fit_many("~ Days + (1 + Days | Subject)", frame, responses=Y)
    fit = quiet_fit("y ~ Days + (1 + Days | Subject)", frame.assign(y=Y[:, 0]))
    assert many.converged.all() and fit.converged
    assert (-2 * many.llf < np.array(lme4) + 1e-6).all()
    _same(many, 0, fit)


@pytest.mark.parametrize("method", ["REML", "ML"])
def test_hundred_refits_are_lme4s(method):
    case = load_case(f"sleepstudy_sim_{method}")
    frame = pd.read_csv(
        os.path.join(os.path.dirname(os.path.dirname(__file__)), "reference", case["data"])
    )
    many = interlace.fit_many(
        "~ Days + (Days | Subject)", frame, responses=case["responses"], method=method
    )
    assert_allclose(-2 * many.llf, case["objective"], rtol=0, atol=1e-6)
    assert_allclose(many.fe_params, case["fixef"], rtol=1e-6)
    assert_allclose(many.fe_bse, case["se"], rtol=1e-4)
    assert_allclose(many.theta, case["theta"], rtol=0, atol=1e-4)
    assert_allclose(many.sigma, case["sigma"], rtol=1e-5)
    assert_array_equal(many.is_singular, case["singular"])
    assert many.converged.all()
    assert list(many.theta.columns) == case["theta_names"]


def test_responses_may_come_in_any_form(tmp_path):
    frame, Y = _design_frame(), _responses()
    names = [f"y{j}" for j in range(12)]
    table = pd.DataFrame(Y, columns=names)
    stored = np.lib.format.open_memmap(tmp_path / "Y.npy", mode="w+", dtype=float, shape=Y.shape)
    stored[:] = Y
    joined = pd.concat([frame, table], axis=1)
    forms = [
        (frame, table),
        (frame, pl.DataFrame(table)),
        (frame, np.load(tmp_path / "Y.npy", mmap_mode="r")),
        (joined, names),
        (pl.DataFrame(joined), names),
    ]
    forms += [(frame, pd.DataFrame(Y)), (frame, np.ma.masked_array(Y, mask=False))]
    expected = _many("crossed")
    for data, responses in forms:
        found = interlace.fit_many("~ x + (1 + x | g) + (1 | h)", data, responses=responses)
        assert_same_effects(found, expected)
        labels = (
            responses if isinstance(responses, list) else getattr(responses, "columns", range(12))
        )
        assert list(found.fe_params.index) == list(labels)


def test_what_is_masked_is_missing():
    Y = _responses()[:, :2]
    many = interlace.fit_many(
        "~ x + (1 | g)", _design_frame(), responses=np.ma.masked_array(Y, np.arange(144) % 7 == 0)
    )
    fit = quiet_fit(
        "y ~ x + (1 | g)",
        _design_frame().assign(y=np.where(np.arange(72) % 7 == 3, np.nan, Y[:, 1])),
    )
    _same(many, 1, fit)


def test_a_response_with_missing_values_is_refused_where_fit_refuses_it():
    Y = _responses()[:, :2].copy()
    Y[5, 1] = np.nan
    many = interlace.fit_many("~ x + (1 | g)", _design_frame(), responses=Y, na_action="raise")
    assert many.converged[0] and many.status[1] == "na_action='raise': 1 missing values"


@pytest.mark.parametrize("name", ["slopes, weights and offset", "crossed"])
def test_a_missing_value_leaves_out_that_row_of_that_response_only(name):
    right, arguments = DESIGNS[name]
    Y, rng = _responses().copy(), np.random.default_rng(3)
    Y[rng.random(len(Y)) < 0.2, 1] = np.nan
    Y[rng.random(len(Y)) < 0.3, 11] = np.nan
    many = interlace.fit_many("~ " + right, _design_frame(), responses=Y, **arguments)
    for j in (1, 11):
        fit = quiet_fit("y ~ " + right, _design_frame().assign(y=Y[:, j]), **arguments)
        assert fit.nobs < len(Y)
        _same(many, j, fit)
        assert_allclose(many.fe_df.loc[j], fit.fe_df, rtol=1e-3)
    whole = np.setdiff1d(np.arange(12), [1, 11])
    assert_same_effects(many, _many(name), whole)


def test_models_without_fixed_effects_may_have_missing_values():
    Y = _responses()[:, :3].copy()
    Y[5, 1] = np.nan
    many = interlace.fit_many("~ 0 + (1 | g)", _design_frame(), responses=Y)
    assert many.fe_df.shape == (3, 0)
    assert_allclose(
        -2 * many.llf[1], quiet_fit("y ~ 0 + (1 | g)", _design_frame().assign(y=Y[:, 1])).deviance
    )


def test_a_row_missing_in_the_design_is_left_out_of_every_response():
    frame = _design_frame().copy()
    frame.loc[[3, 40], "x"] = np.nan
    many = interlace.fit_many("~ x + (1 | g)", frame, responses=_responses()[:, :2])
    fit = quiet_fit("y ~ x + (1 | g)", frame.assign(y=_responses()[:, 1]))
    _same(many, 1, fit)
    assert_allclose(many[1].deviance, fit.deviance, atol=1e-9)


def test_a_response_that_cannot_be_fitted_says_why_and_stops_no_other():
    Y = _responses().copy()
    Y[:, 0] = 3.0
    Y[4, 1] = np.inf
    Y[2:, 2] = np.nan
    Y[:, 3] = np.nan
    Y[_design_frame()["g"] != "g0", 4] = np.nan
    many = interlace.fit_many("~ x + (1 | g)", _design_frame(), responses=Y)
    reasons = ["constant", "infinite", "2 rows", "0 rows", "1 level"]
    for j, reason in enumerate(reasons):
        assert reason in many.status[j]
        assert many.fe_params.loc[j].isna().all() and many.fe_df.loc[j].isna().all()
        assert not many.converged[j] and not many.is_singular[j] and many.nobs[j] == 0
    _same(many, 7, quiet_fit("y ~ x + (1 | g)", _design_frame().assign(y=Y[:, 7])))


@pytest.mark.parametrize("weights", [None, np.linspace(1e-30, 2e-30, 72)])
def test_what_fit_refuses_is_no_model_among_many(weights):
    frame, Y = _design_frame(), _responses()[:, :8].copy()
    Y[:, 0] = 2.0 * frame["x"] + 1.0
    Y[:, 1] = frame["g"].factorize()[0] ** 2
    Y[:, 2:4] = Y[:, :2]
    Y[5, 2:4] = np.nan
    Y[:, 4] *= 1e200
    Y[:, 5] *= 1e-160
    many = interlace.fit_many("~ x + (1 | g)", frame, responses=Y, weights=weights)
    for j in range(6):
        assert ("perfectly" if j < 4 else "out of floating-point range") in many.status[j]
        assert (
            many.fe_params.loc[j].isna().all()
            and many.fe_pvalues.loc[j].isna().all()
            and not many.converged[j]
        )
        with pytest.raises(ValueError, match="perfectly|out of floating-point range"):
            many[j]
    _same(many, 7, quiet_fit("y ~ x + (1 | g)", frame.assign(y=Y[:, 7]), weights=weights))


def test_one_of_many_is_the_full_fit():
    many = _many("slopes, weights and offset")
    fit = many[5]
    assert isinstance(fit, interlace.Fit)
    _same(many, 5, fit)
    assert_series_equal(fit.parameters, many.parameters.loc[5], rtol=1e-3, check_names=False)
    for label in (12, slice(2, 4), [2, 4]):
        with pytest.raises(ValueError, match="no model"):
            many[label]


def test_variances_are_those_of_the_fit():
    many, fit = _many("crossed"), _single("crossed", 2)
    ours = many.variance_components.loc[2]
    for factor, terms in fit.variance_components.items():
        for term, value in terms.items() if isinstance(terms, dict) else [("(Intercept)", terms)]:
            assert_allclose(ours[(factor, "" if factor == "residual" else term)], value, rtol=1e-4)


def test_the_larger_the_core_the_fewer_models_are_fitted_at_a_time():
    def size(levels, rows=0):
        codes = np.random.default_rng(0).integers(0, levels, (2, 20 * levels))
        return chunks.chunk_size(layout.plan(codes, [(1,)] * 2, [levels] * 2).layout, 2, rows)

    assert size(10) == chunks.MOST_LANES
    assert 32 > size(300) > size(1000) == 2
    assert size(10, rows=10**8) == chunks.FEWEST_COLUMNS


def test_the_size_of_chunks_does_not_matter(monkeypatch):
    right, arguments = DESIGNS["crossed"]
    Y = np.tile(_responses(), 6)
    monkeypatch.setattr("interlace_jax.many.chunks.MOST_LANES", 32)
    many = interlace.fit_many("~ " + right, _design_frame(), responses=Y, progress=False)
    assert len(many.work) == 3
    assert_allclose(many.llf, np.tile(_many("crossed").llf, 6), rtol=0, atol=1e-9)
    assert_allclose(many.fe_df, np.tile(_many("crossed").fe_df, (6, 1)), rtol=1e-4)


def test_threads_that_factor_matrices_do_not_wait_for_each_other_for_ever():
    # jaxlib's batched LAPACK calls block a thread of XLA's pool each; two of them used to hang on
    # two cores.
    script = """
import numpy as np, pandas as pd, interlace_jax as interlace
g, h = (codes.ravel() for codes in np.meshgrid(np.arange(24), np.arange(24)))
Y = np.random.default_rng(0).normal(size=(576, 512))
frame = pd.DataFrame({"g": g, "h": h})
many = interlace.fit_many("~ 1 + (1 | g) + (1 | h)", frame, responses=Y, progress=False)
assert len(many.work) > 1 and many.converged.all()
"""
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": root},
        timeout=180,
        check=True,
    )


def test_adjusted_p_values_are_scipys():
    from scipy.stats import false_discovery_control

    many = _many("nested")
    for method in ("bh", "by"):
        expected = false_discovery_control(many.fe_pvalues["x"], method=method)
        assert_allclose(many.adjusted_pvalues(method)["x"], expected)
    with pytest.raises(ValueError, match="'bh' or 'by'"):
        many.adjusted_pvalues("holm")


def test_a_model_without_result_does_not_count_as_a_test():
    Y = _responses().copy()
    Y[:, 0] = 1.0
    many = interlace.fit_many("~ x + (1 | g)", _design_frame(), responses=Y)
    without = interlace.fit_many("~ x + (1 | g)", _design_frame(), responses=Y[:, 1:])
    adjusted = many.adjusted_pvalues()
    assert adjusted.loc[0].isna().all()
    assert_allclose(adjusted.loc[1:], without.adjusted_pvalues(), rtol=1e-9)


def test_the_tidy_frame_has_a_row_for_every_model_and_coefficient():
    many = _many("crossed")
    tidy = many.to_frame()
    assert list(tidy.columns) == ["model", "coefficient", "estimate", "se", "df", "t", "p"]
    assert len(tidy) == 24
    row = tidy.set_index(["model", "coefficient"]).loc[(3, "x")]
    assert_allclose(row[["estimate", "se", "df", "t", "p"]].astype(float), [
        many.fe_params.loc[3, "x"],
        many.fe_bse.loc[3, "x"],
        many.fe_df.loc[3, "x"],
        many.fe_tvalues.loc[3, "x"],
        many.fe_pvalues.loc[3, "x"],
    ])  # fmt: skip


def test_normal_degrees_of_freedom_are_infinite():
    many = interlace.fit_many(
        "~ x + (1 | g)", _design_frame(), responses=_responses()[:, :2], df_method="normal"
    )
    assert np.isinf(many.fe_df).all().all()
    from scipy.stats import norm

    assert_allclose(many.fe_pvalues, 2 * norm.sf(many.fe_tvalues.abs()), rtol=1e-9)


@pytest.mark.parametrize("name", ["slopes, weights and offset", "crossed"])
def test_searches_in_float32_end_at_the_optimum(name):
    """The last steps are in float64."""
    right, arguments = DESIGNS[name]
    exact = _many(name)
    close = interlace.fit_many(
        "~ " + right, _design_frame(), responses=_responses(), dtype="float32", **arguments
    )
    rise = -2 * (close.llf - exact.llf)
    assert rise.abs().max() < 1e-7
    assert_same_effects(close, exact)
    assert_allclose(close.fe_bse, exact.fe_bse, rtol=1e-4)
    assert_allclose(close.sigma, exact.sigma, rtol=1e-5)
    assert close.converged.all()


def test_searches_in_float32_know_large_variances():
    """Single precision has no digits of a deviance where groups differ by hundreds of residual
    SDs.
    """
    rng, frame = np.random.default_rng(0), _design_frame()
    theta = np.geomspace(30.0, 1000.0, 12)
    b = theta * rng.normal(size=(9, 12))[frame.groupby("g").ngroup()]
    Y = b + frame[["x"]].to_numpy() * (1.0 + b) + rng.normal(size=(len(frame), 12))
    exact, close = (
        interlace.fit_many("~ x + (1 + x | g)", frame, responses=Y, dtype=dtype)
        for dtype in ("float64", "float32")
    )
    assert close.converged.all()
    assert_allclose(close.llf, exact.llf, rtol=0, atol=1e-7)


def test_float32_gives_lme4s_hundred_refits_to_three_digits():
    case = load_case("sleepstudy_sim_REML")
    frame = pd.read_csv(
        os.path.join(os.path.dirname(os.path.dirname(__file__)), "reference", case["data"])
    )
    many = interlace.fit_many(
        "~ Days + (Days | Subject)", frame, responses=case["responses"], dtype="float32"
    )
    assert_allclose(-2 * many.llf, case["objective"], rtol=0, atol=1e-4)
    # balanced: they do not depend on theta
    assert_allclose(many.fe_params, case["fixef"], rtol=1e-6)
    assert_allclose(many.fe_bse, case["se"], rtol=1e-3)
    assert_allclose(many.theta, case["theta"], rtol=0, atol=2e-3)
    assert_allclose(many.sigma, case["sigma"], rtol=3e-4)
    assert_array_equal(many.is_singular, case["singular"])


def test_responses_are_read_in_slices(monkeypatch):
    monkeypatch.setattr("interlace_jax.many.chunks.MOST_LANES", 32)
    Y, read = np.tile(_responses(), 6), []

    class Stored:
        """What is not in memory: columns can be read, never all of them."""

        ndim, shape, dtype = 2, Y.shape, Y.dtype

        def __len__(self):
            return len(Y)

        def __getitem__(self, key):
            read.append(Y[key].shape[1])
            return Y[key]

        def __array__(self, *_, **__):
            raise MemoryError

    many = interlace.fit_many(
        "~ x + (1 + x | g) + (1 | h)", _design_frame(), responses=Stored(), progress=False
    )
    assert sorted(read) == [8, 32, 32]
    assert_allclose(many.llf, np.tile(_many("crossed").llf, 6), rtol=0, atol=1e-9)


def test_input_that_fits_no_model_at_all_says_why():
    with pytest.raises(
        ValueError,
        match="none of the 1 models can be fitted; the first: the model fits .* perfectly",
    ):
        interlace.fit_many("~ x + (1 | g)", _design_frame(), responses=["x"])
    with pytest.raises(
        ValueError, match="none of the 3 models can be fitted; the first: the response is constant"
    ):
        interlace.fit_many("~ x + (1 | g)", _design_frame(), responses=np.ones((72, 3)))


# Groups of one frame ------------------------------------------------------------------------------


@cache
def _genes() -> pd.DataFrame:
    """Eleven genes with different rows and levels; the last five cannot be fitted as the formula
    says.
    """
    rng = np.random.default_rng(4)
    parts = []
    sizes = [(40, 5), (33, 5), (64, 8), (64, 8), (90, 11), (35, 7), (40, 5), (40, 1), (2, 2)]
    for gene, (rows, levels) in enumerate(sizes):
        g = np.arange(rows) % levels
        x = rng.normal(size=rows)
        y = (
            x * rng.normal(0.5, 1, size=levels)[g]
            + rng.normal(size=levels)[g]
            + rng.normal(size=rows)
        )
        parts.append(
            pd.DataFrame({"gene": f"gene{gene}", "g": [f"s{i}" for i in g], "x": x, "y": y})
        )
    parts[6]["x"] = 1.0  # aliased with the intercept
    parts.append(parts[0].assign(gene="gene9", y=7.0))
    return pd.concat(parts, ignore_index=True).sample(frac=1, random_state=5, ignore_index=True)


@cache
def _by_gene() -> interlace.Many:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return interlace.fit_many("y ~ x + (1 | g)", _genes(), by="gene")


def test_every_group_is_the_fit_of_its_rows():
    many, frame = _by_gene(), _genes()
    for gene in [f"gene{i}" for i in range(6)]:
        fit = quiet_fit("y ~ x + (1 | g)", frame[frame["gene"] == gene])
        _same(many, gene, fit)
        assert_allclose(many.fe_df.loc[gene], fit.fe_df, rtol=1e-3)


def test_a_group_of_lower_rank_has_no_estimate_for_the_dropped_coefficient():
    many = _by_gene()
    fit = quiet_fit("y ~ x + (1 | g)", _genes().query("gene == 'gene6'"))
    assert_allclose(many.fe_params.loc["gene6", "Intercept"], fit.fe_params["Intercept"], rtol=1e-5)
    assert np.isnan(many.fe_params.loc["gene6", "x"])
    assert_allclose(many.fe_df.loc["gene6", "Intercept"], fit.fe_df["Intercept"], rtol=1e-3)
    assert np.isnan(many.fe_df.loc["gene6", "x"]) and np.isnan(many.fe_pvalues.loc["gene6", "x"])
    assert many.converged["gene6"]


def test_a_group_that_cannot_be_fitted_says_why():
    many = _by_gene()
    assert "level" in many.status["gene7"]
    assert "2 rows" in many.status["gene8"]
    assert "constant" in many.status["gene9"]
    assert many.converged.sum() == 7
    assert many.fe_params.index.name == "gene"


def test_one_group_rebuilt_is_the_fit_of_its_rows():
    fit = _by_gene()["gene2"]
    assert fit.nobs == 64
    _same(_by_gene(), "gene2", fit)


def test_a_constant_response_with_an_offset_that_varies_is_no_constant():
    frame = _genes().assign(o=_genes()["y"] + _genes()["x"])
    many = interlace.fit_many("y ~ 1 + (1 | g)", frame, by="gene", offset="o")
    assert many.converged["gene9"]  # where y is 7 everywhere
    _same(many, "gene9", quiet_fit("y ~ 1 + (1 | g)", frame[frame["gene"] == "gene9"], offset="o"))


def test_groups_may_be_tuples():
    frame = _genes().copy()
    frame["gene"] = [(name[:4], name[4:]) for name in frame["gene"]]
    many = interlace.fit_many("y ~ x + (1 | g)", frame, by="gene")
    assert many.fe_params.index.name == "gene"
    assert_allclose(many.llf[[("gene", "2")]], _by_gene().llf["gene2"], rtol=1e-10)
    assert many["gene", "2"].nobs == 64


def test_groups_with_different_columns_share_a_table():
    frame = _genes()[lambda d: d["gene"].isin(["gene0", "gene2"])].copy()
    frame["kind"] = np.where(frame["gene"] == "gene0", "a", np.resize(["a", "b", "c"], len(frame)))
    many = interlace.fit_many("y ~ x + kind + (1 | g)", frame, by="gene")
    fit = quiet_fit("y ~ x + kind + (1 | g)", frame[frame["gene"] == "gene2"])
    assert_allclose(
        many.fe_params.loc["gene2", list(fit.fe_params.index)], fit.fe_params, rtol=1e-5
    )
    assert many.fe_params.loc["gene0", ["kind[T.b]", "kind[T.c]"]].isna().all()


def test_groups_with_nested_levels_are_fits_of_their_rows():
    frame = _genes()[lambda d: d["gene"].isin(["gene2", "gene3"])].reset_index(drop=True)
    frame["part"] = np.where(frame.groupby(["gene", "g"]).cumcount() % 2, "p", "q")
    many = interlace.fit_many("y ~ x + (1 | g/part)", frame, by="gene")
    for gene in ("gene2", "gene3"):
        _same(many, gene, quiet_fit("y ~ x + (1 | g/part)", frame[frame["gene"] == gene]))


@pytest.mark.parametrize(
    ("formula", "arguments", "message"),
    [
        ("~ x + (1 | g)", {}, "responses= .* or by="),
        ("y ~ x + (1 | g)", dict(responses=np.ones((72, 2))), "no left side"),
        ("~ x + (1 | g)", dict(responses=np.ones((70, 2))), "70 rows, but the data have 72"),
        ("~ x + (1 | g)", dict(responses=["x", "nowhere"]), "'nowhere'"),
        ("x ~ w + (1 | g)", dict(by="gene"), "by='gene' is not a column"),
        ("x ~ w + (1 | g)", dict(by="none"), "by='none' has no value in any row of the data"),
        (
            "x ~ w + (1 | g)",
            dict(by="h", weights=np.ones(72)),
            "weights must be the name of a column",
        ),
        ("~ x + (1 | g)", dict(responses=np.ones((72, 2)), method="reml"), "'REML' or 'ML'"),
        (
            "~ x + (1 | g)",
            dict(responses=np.ones((72, 2)), df_method="kenward-roger"),
            "'satterthwaite' or 'normal'",
        ),
        (
            "~ x + (1 | g)",
            dict(responses=np.ones((72, 2)), dtype="float16"),
            "'float64' or 'float32'",
        ),
    ],
)
def test_input_that_determines_no_model_is_refused(formula, arguments, message):
    with pytest.raises(ValueError, match=message):
        interlace.fit_many(formula, _design_frame().assign(none=np.nan), **arguments)


def test_responses_that_are_no_matrix_are_refused():
    with pytest.raises(TypeError, match="two-dimensional"):
        interlace.fit_many("~ x + (1 | g)", _design_frame(), responses=np.ones(72))
