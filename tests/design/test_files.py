"""Data read in batches give the fit of the frame they hold."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers.fits import quiet_fit
from numpy.testing import assert_allclose
from pandas.testing import assert_frame_equal, assert_index_equal

import interlace_jax as interlace
from interlace_jax.design import files
from interlace_jax.engines import chunked_moments
from interlace_jax.plot import data as data_module

pyarrow = pytest.importorskip("pyarrow")
dataset = pytest.importorskip("pyarrow.dataset")

FORMULAS = {
    "crossed": "rt ~ condition + (1 + condition | subject) + (1 | item)",
    "nested, with transforms": "rt ~ condition * late + np.log(w) + (1 | subject/condition)",
}


@pytest.fixture(scope="module")
def words():
    """Missing values, integer ids, a bool, an ordered category whose levels are not all in every
    batch, weights.
    """
    frame = interlace.load_dataset("crossed")
    frame["subject"] = frame["subject"].str.extract(r"(\d+)", expand=False).astype("Int64")
    frame["late"] = np.arange(len(frame)) > 600
    frame["w"] = np.linspace(1, 2, len(frame))
    frame["day"] = pd.Categorical.from_codes(
        np.arange(len(frame)) // 300, ["mon", "tue", "wed"], ordered=True
    )
    frame.loc[3, "rt"] = np.nan
    frame.loc[700, "subject"] = pd.NA
    frame.loc[5, "w"] = 0.0
    return frame


@pytest.fixture(scope="module")
def file(words, tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "words.parquet"
    words.to_parquet(path)
    return path


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(files, "ROWS", 50)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_file_gives_the_fit_of_its_frame(words, file, name):
    formula = FORMULAS[name]
    with np.errstate(divide="ignore"):
        whole, read = (
            quiet_fit(formula, data, weights="w") for data in (words[words.w > 0], str(file))
        )
    assert (read.nobs, read.n_dropped, read.ngroups) == (whole.nobs, whole.n_dropped, whole.ngroups)
    assert_allclose(read.deviance, whole.deviance, rtol=1e-11)
    assert_allclose(read.fe_params, whole.fe_params, rtol=1e-10)
    assert_index_equal(read.fe_params.index, whole.fe_params.index)
    for factor, modes in whole.random_effects.items():
        assert_index_equal(read.random_effects[factor].index, modes.index)
        assert_allclose(read.random_effects[factor], modes, atol=1e-8)
    assert_allclose(read.resid, whole.resid, atol=1e-8)
    some = words[words.subject.notna()].head(20)
    assert_allclose(read.predict(some), whole.predict(some), rtol=1e-9)


def test_datasets_and_lazy_frames_are_read_like_files(file):
    formula = FORMULAS["crossed"]
    fits = [
        interlace.compile(formula, source)
        for source in (file, dataset.dataset(file), pl.scan_parquet(file))
    ]
    assert len({model.deviance(model.theta0) for model in fits}) == 1
    assert all(model.design.n_dropped == 2 for model in fits)


def test_categories_keep_their_order(words, file):
    formula = "rt ~ day + (1 | item)"
    assert (
        interlace.compile(formula, file).design.columns
        == interlace.compile(formula, words).design.columns
    )


def test_many_rows_go_through_chunks(words, monkeypatch):
    model = interlace.compile(FORMULAS["crossed"], words)
    expected = model.deviance(model.theta0)
    monkeypatch.setattr("interlace_jax.engines.dense.LARGE", 100)
    monkeypatch.setattr(chunked_moments, "ROWS", 128)
    again = interlace.compile(FORMULAS["crossed"], words)
    assert_allclose(again.deviance(model.theta0), expected, rtol=1e-12)


def refuses(data, formula, words, **arguments):
    with pytest.raises((ValueError, TypeError)) as error:
        interlace.fit(formula, data, **arguments)
    for word in words:
        assert word in str(error.value)


def test_what_a_batch_cannot_tell_is_refused_by_name(file):
    refuses(file, "rt ~ poly(w, 2) + (1 | item)", ["poly(w, 2)", "all rows"])
    refuses(file, "rt ~ C(cond_c) + (1 | item)", ["C(cond_c)", "text"])
    refuses(file, "rt ~ np.log(w - 1.5) + (1 | item)", ["np.log(w - 1.5)"])


def test_what_is_computed_from_other_rows_is_refused_by_name(words, tmp_path):
    path = tmp_path / "sorted.parquet"
    words.assign(
        x=np.linspace(-1, 1, len(words)), year=2000 + np.arange(len(words)) // 50
    ).to_parquet(path)
    for term in ("I(x - np.mean(x))", "x.rank()", "x.cumsum()"):
        refuses(path, f"rt ~ {term} + (1 | item)", [term, "all rows"])
    # Every batch is of one year, and only rows of two tell.
    refuses(path, "rt ~ I(year - min(year)) + (1 | item)", ["I(year - min(year))", "all rows"])
    refuses(path, "I(rt - rt.max()) ~ x + (1 | item)", ["I(rt - rt.max())", "all rows"])


def test_calls_row_by_row_are_read_in_batches(words, tmp_path):
    table = words.assign(x=np.random.default_rng(1).normal(size=len(words)))
    table.to_parquet(path := tmp_path / "rows.parquet")
    formula = "rt ~ x.clip(-1, 1) + I(x > 0 & x < 1) + np.where(x > 0, w, 0) + (1 | item)"
    assert_allclose(
        quiet_fit(formula, path).fe_params, quiet_fit(formula, table).fe_params, rtol=1e-6
    )


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_categories_of_whole_numbers_are_what_the_file_read_at_once_has(words, tmp_path, kind):
    """Parquet does not keep that they are categories, and pandas reads numbers; feather does."""
    table = words.assign(
        level=pd.Categorical.from_codes(np.arange(len(words)) % 3, [30, 10, 20])
    ).reset_index(drop=True)
    path = tmp_path / f"levels.{kind}"
    getattr(table, f"to_{kind}")(path)
    for formula in ("rt ~ level + (1 | item)", "rt ~ 1 + (1 | level:item)"):
        read, whole = (
            quiet_fit(formula, path),
            quiet_fit(formula, getattr(pd, f"read_{kind}")(path)),
        )
        assert_allclose(read.deviance, whole.deviance, rtol=1e-12)
        assert_index_equal(read.fe_params.index, whole.fe_params.index)
        assert_index_equal(read.design.factors[0].levels, whole.design.factors[0].levels)
    if kind == "feather":
        assert list(quiet_fit("rt ~ level + (1 | item)", path).fe_params.index[1:]) == [
            "level[T.10]",
            "level[T.20]",
        ]


def test_types_that_frames_refuse_are_refused(words, tmp_path):
    path = tmp_path / "types.parquet"
    times = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(len(words)) % 5, "D")
    words.assign(day=times, tags=[[1, 2]] * len(words)).to_parquet(path)
    refuses(path, "rt ~ day + (1 | item)", ["'day'", "timestamp", "numbers or text"])
    refuses(path, "rt ~ 1 + (1 | tags)", ["'tags'", "numbers or text"])


def first_day(data):
    """The level that has no column."""
    columns = interlace.compile("rt ~ day + (1 | item)", data).design.columns
    return {"day[T.mon]", "day[T.tue]", "day[T.wed]"}.difference(columns)


def test_categories_have_the_order_that_frames_of_their_library_have(words):
    days = words["day"].astype(str).where(words.index > 250, "wed")  # "wed" comes first in the rows
    frame = words.assign(day=pd.Categorical(days, categories=["tue", "wed", "mon"]))
    table = pyarrow.Table.from_pandas(frame)
    assert (
        first_day(frame) == first_day(table) == first_day(dataset.dataset(table)) == {"day[T.tue]"}
    )
    of_polars = pl.from_pandas(words.assign(day=days)).with_columns(
        pl.col("day").cast(pl.Categorical)
    )
    assert first_day(of_polars) == first_day(of_polars.lazy()) == {"day[T.mon]"}
    in_order = of_polars.with_columns(pl.col("day").cast(pl.Enum(["tue", "wed", "mon"])))
    assert first_day(in_order) == first_day(in_order.lazy()) == {"day[T.tue]"}


def test_views_of_text_are_text(words):
    table = pl.from_pandas(words[["rt", "item", "condition"]]).to_arrow(
        compat_level=pl.CompatLevel.newest()
    )
    assert "string_view" in map(str, table.schema.types)
    read, whole = (
        interlace.compile("rt ~ condition + (1 | item)", d) for d in (dataset.dataset(table), words)
    )
    assert_allclose(read.deviance(read.theta0), whole.deviance(whole.theta0), rtol=1e-12)


def test_empty_text_of_a_csv_file_is_missing(words, tmp_path):
    path, gaps = (
        tmp_path / "words.csv",
        words.assign(condition=words["condition"].where(words.index % 9 > 0)),
    )
    gaps.to_csv(path, index=False)
    designs = [
        interlace.compile("rt ~ condition + (1 | item)", data).design for data in (path, gaps)
    ]
    assert designs[0].columns == designs[1].columns
    assert designs[0].n_dropped == designs[1].n_dropped > 100


def test_mistakes_get_the_sentences_that_frames_get(file, tmp_path):
    refuses(file, "rt ~ conditon + (1 | item)", ["'conditon'", "'condition'"])
    refuses(file, "condition ~ rt + (1 | item)", ["response", "numeric"])
    refuses(file, "rt ~ condition + (1 | item)", ["'rt' (1)"], na_action="raise")
    refuses(file, "rt ~ condition + (1 | item)", ["weights", "name of a column"], weights=[1.0])
    refuses(file, "rt ~ condition + (1 | item)", ["'v'"], weights="v")
    refuses(tmp_path / "none.parquet", "rt ~ condition + (1 | item)", ["none.parquet"])
    with pytest.raises(TypeError, match="data frame"):
        interlace.fit_many("~ condition + (1 | item)", file, responses=["rt"])


@pytest.fixture(scope="module")
def both(words, file):
    """A fit of the frame, and that of the file."""
    return [quiet_fit("rt ~ condition * w + (1 | item)", data) for data in (words, file)]


def test_groups_of_a_file_can_be_drawn(both):
    whole, read = (fit.bootstrap(3, seed=1, kind="cases").estimates for fit in both)
    assert_allclose(read, whole, rtol=1e-6)


def test_a_file_is_checked_like_its_frame(both):
    whole, read = (interlace.check(fit, nsim=20) for fit in both)
    # rows left out have no number in a file
    columns = ["check", "verdict", "statistic", "p", "advice"]
    assert_frame_equal(read.table[columns], whole.table[columns], rtol=1e-6, atol=1e-6)
    assert_frame_equal(read.collinearity, whole.collinearity)


def test_what_needs_the_rows_says_that_those_of_a_file_are_not_kept(both):
    fit, rows = both[1], np.arange(600)
    asked = [
        lambda: fit.anova(),
        lambda: interlace.emmeans(fit, "condition"),
        lambda: fit.augment(),
        lambda: fit.cross_val(by="day"),
        lambda: fit.cross_val(cv=[(rows[:300], rows[300:])]),
        lambda: data_module.used_data(fit),
    ]
    for ask in asked:
        with pytest.raises(ValueError, match="rows of a file .* are not kept.*fit a data frame"):
            ask()
