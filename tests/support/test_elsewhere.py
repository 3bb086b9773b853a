"""Words of other packages are answered with the words that are used here."""

import copy
import pickle
import re

import pytest
from helpers.fits import quiet_fit

import interlace_jax as interlace
from interlace_jax.support.elsewhere import ARGUMENTS, ATTRIBUTES, FUNCTIONS

FORMULA = "Reaction ~ Days + (1 | Subject)"


@pytest.fixture(scope="module")
def sleepstudy():
    return interlace.load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def fit(sleepstudy):
    return quiet_fit(FORMULA, sleepstudy)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_name_of_another_package_is_answered_with_the_name_here(fit, name):
    with pytest.raises(AttributeError, match=re.escape(f"has no {name!r}: write ")):
        getattr(fit, name)
    assert name not in dir(fit)
    for word in re.split(r", or |, as | and ", ATTRIBUTES[name]):
        word = re.match(r"(?:interlace_jax\.)?(\w+)", word)[1]
        assert hasattr(fit, word) or hasattr(interlace, word) or word == "plot"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_another_package_is_answered_with_what_is_here(fit, name):
    with pytest.raises(AttributeError, match=f"interlace_jax has no {name!r}: write "):
        getattr(interlace, name)
    word = FUNCTIONS[name]
    if word.startswith("fit(...)."):
        assert hasattr(fit, name)
    elif " " not in word:
        assert hasattr(interlace, word)


@pytest.mark.parametrize("name", ["VarCorr", "ranef", "fixef"])
def test_what_a_fit_is_asked_for_is_answered_by_the_package_too(name):
    wanted = f"interlace_jax has no {name!r}: of a fit, write {ATTRIBUTES[name]}"
    with pytest.raises(AttributeError, match=re.escape(wanted)):
        getattr(interlace, name)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_of_another_package_is_answered_with_the_argument_here(sleepstudy, name):
    with pytest.raises(TypeError, match=re.escape(f"argument {name!r}: write {ARGUMENTS[name]}")):
        interlace.fit(FORMULA, sleepstudy, **{name: 1})


def test_unknown_names_are_refused_as_everywhere(fit, sleepstudy):
    with pytest.raises(AttributeError, match="object has no attribute 'nothing'"):
        fit.nothing  # noqa: B018
    with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'$"):
        interlace.fit(FORMULA, sleepstudy, nothing=1)


def test_an_error_inside_a_property_is_not_hidden(fit):
    class Own(type(fit)):
        @property
        def mine(self):
            return (1).nothing

    with pytest.raises(AttributeError, match="'int' object has no attribute 'nothing'"):
        Own.__new__(Own).mine  # noqa: B018


def test_fits_are_copied_and_pickled_as_before(fit):
    for twin in (copy.copy(fit), pickle.loads(pickle.dumps(fit))):
        assert twin.fe_params.equals(fit.fe_params)
