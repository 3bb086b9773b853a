"""Modules and rules that wait until they are used."""

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np

from interlace_jax.support import later


def test_a_module_is_imported_when_something_of_it_is_used():
    code = """
        import sys
        from interlace_jax.support.later import Later
        module = Later("colorsys")
        assert "colorsys" not in sys.modules
        assert module.rgb_to_hsv(0.0, 0.0, 1.0)[2] == 1.0
        assert "colorsys" in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_what_was_asked_for_once_is_remembered():
    module = later.Later("math")
    first = module.sqrt
    assert module.__dict__["sqrt"] is first


def test_arrays_of_jax_are_told_from_others_and_traced_ones_from_both():
    assert later.is_imported()
    assert later.is_jax_array(jnp.ones(2)) and not later.is_jax_array(np.ones(2))
    assert not later.is_traced(jnp.ones(2))
    seen = []
    jax.make_jaxpr(lambda x: seen.append((later.is_traced(x), later.is_jax_array(x))) or x)(1.0)
    assert seen == [(True, True)]


@later.custom_jvp
def tripled(x):
    """Its rule is wrong on purpose, so that it shows."""
    return 3.0 * x


@tripled.defjvp
def _tripled_jvp(primals, tangents):
    return tripled(*primals), 5.0 * tangents[0]


def test_a_rule_is_that_of_custom_jvp():
    assert tripled(2.0) == 6.0
    assert jax.grad(tripled)(2.0) == 5.0
    assert tripled.__name__ == "tripled"
