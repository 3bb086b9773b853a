"""Designs from text, for tests."""

from interlace_jax.design.design import build
from interlace_jax.design.formula import parse


def design(text, data, **options):
    """The design of a formula in data."""
    return build(parse(text), data, **options)
