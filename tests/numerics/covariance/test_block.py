"""The parameters of one factor and their order."""

from helpers import arrays, oracle

from interlace_jax.numerics.covariance import block as block_module


def test_parameters_are_lower_triangles_by_column_as_the_oracle_has_them():
    for kind in oracle.KINDS:
        for factor in oracle.random_design(0, kind).factors:
            block = block_module.Block(factor.m, tuple(len(t) for t in factor.terms))
            assert list(block.parameters) == factor.pattern
            assert block.k == factor.Z.shape[1]


def test_parameter_count_is_the_length_of_theta():
    for kind in oracle.KINDS:
        problem = oracle.random_design(0, kind)
        assert block_module.parameter_count(arrays.plan(problem).layout.blocks) == problem.d
