"""The shipped data sets: the ones the documentation and the reference results speak of."""

from pathlib import Path

import pandas as pd
import pytest

from interlace_jax.datasets import DATASETS, load_dataset

SHIPPED = Path(__file__).parents[1] / "interlace_jax" / "data"
REFERENCE = Path(__file__).parent / "reference" / "data"

# Rows and mean response as printed by R from lme4's and nlme's own copies (crossed: from the
# reference script).
FACTS = {
    "sleepstudy": (180, "Reaction", 298.507891666667),
    "dyestuff": (30, "Yield", 1527.5),
    "dyestuff2": (30, "Yield", 5.6656),
    "penicillin": (144, "diameter", 22.9722222222222),
    "pastes": (60, "strength", 60.0533333333333),
    "cake": (270, "angle", 32.1222222222222),
    "machines": (54, "score", 59.65),
    "cbpp": (56, "incidence", 99 / 56),
    "crossed": (893, "rt", 620.2216573348263),
}
LEVELS = {
    "sleepstudy": {"Subject": 18},
    "dyestuff": {"Batch": 6},
    "dyestuff2": {"Batch": 6},
    "penicillin": {"plate": 24, "sample": 6},
    "pastes": {"batch": 10, "cask": 3},
    "cake": {"recipe": 3, "temp": 6, "replicate": 15},
    "machines": {"Machine": 3, "Worker": 6},
    "cbpp": {"herd": 15, "period": 4},
    "crossed": {"condition": 2, "subject": 40, "item": 24},
}


@pytest.mark.parametrize("name", FACTS)
def test_rows_and_mean_response_are_those_of_the_published_data(name):
    rows, response, mean = FACTS[name]
    frame = load_dataset(name)
    assert len(frame) == rows
    assert frame[response].mean() == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("name", LEVELS)
def test_grouping_columns_are_strings_with_the_documented_levels(name):
    frame = load_dataset(name)
    text = {
        column: frame[column].nunique()
        for column in frame
        if not pd.api.types.is_numeric_dtype(frame[column])
    }
    assert text == LEVELS[name]
    assert all(isinstance(value, str) for column in text for value in frame[column])


@pytest.mark.parametrize("name", DATASETS)
def test_there_are_no_missing_values(name):
    assert not load_dataset(name).isna().any().any()


@pytest.mark.parametrize("name", DATASETS)
def test_the_documentation_names_every_column_and_the_right_number_of_rows(name):
    lines = load_dataset.__doc__.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:1] == [name])
    entry = [lines[start]]
    for line in lines[start + 1 :]:
        if not line.startswith(" " * 20):
            break
        entry.append(line)
    frame = load_dataset(name)
    assert int(entry[0].split()[1]) == len(frame)
    assert [column for column in frame if f"``{column}``" not in " ".join(entry)] == []


def test_exactly_the_listed_data_sets_are_shipped():
    assert sorted(path.stem for path in SHIPPED.iterdir()) == sorted(DATASETS) == sorted(FACTS)


@pytest.mark.parametrize("name", DATASETS)
def test_the_reference_fits_are_fits_of_the_shipped_numbers(name):
    assert (SHIPPED / f"{name}.csv").read_bytes() == (REFERENCE / f"{name}.csv").read_bytes()


def test_each_call_returns_a_new_frame():
    first = load_dataset("dyestuff")
    first["Yield"] = 0
    assert load_dataset("dyestuff")["Yield"].sum() == 45825


@pytest.mark.parametrize("typo", ["sleepstudi", "SleepStudy"])
def test_an_unknown_name_gets_a_hint_and_the_list(typo):
    with pytest.raises(ValueError, match="Did you mean 'sleepstudy'") as error:
        load_dataset(typo)
    assert all(name in str(error.value) for name in DATASETS)


@pytest.mark.parametrize("name", ["iris", "", None, 3, "../data/cake"])
def test_a_name_unlike_any_other_is_refused_as_a_value(name):
    with pytest.raises(ValueError, match="There is no data set"):
        load_dataset(name)
