"""What an engine lacks is refused in one sentence."""

from types import SimpleNamespace

import pytest

from interlace_jax.engines.dense import Dense
from interlace_jax.engines.engine import CAPABILITIES, Engine
from interlace_jax.engines.iterative import Iterative
from interlace_jax.engines.laplace import Laplace

ENGINES = [Dense, Iterative, Laplace]


@pytest.fixture(params=ENGINES)
def engine(request):
    """An engine of each kind, lacking what it can lack."""
    made = request.param.__new__(request.param)
    made.design = SimpleNamespace(is_power_of_fitted=True, residual=None)
    return made


def test_what_engines_lack_are_capabilities(engine):
    assert set(engine.missing) <= set(CAPABILITIES)


def test_a_refusal_names_what_was_asked_and_another_way(engine):
    for capability, what in CAPABILITIES.items():
        if engine.can(capability):
            engine.require(capability)
        else:
            with pytest.raises(ValueError) as refused:
                engine.require(capability)
            assert str(refused.value) == f"{what} {engine.missing[capability]}"


def test_capabilities_that_nobody_knows_are_errors():
    with pytest.raises(KeyError):
        Iterative.__new__(Iterative).require("everything")


def test_an_engine_must_say_all_that_needs_theta():
    with pytest.raises(TypeError, match="abstract"):
        Engine(None)
