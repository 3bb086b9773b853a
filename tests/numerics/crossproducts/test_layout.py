"""The integer side: elimination order, nesting, index lists, padding; all against brute force."""

import jax
import numpy as np
import pytest
from helpers import arrays, oracle

from interlace_jax.numerics.crossproducts import layout as layout_module

every_kind = pytest.mark.parametrize("kind", oracle.KINDS)
crossed_kinds = pytest.mark.parametrize("kind", [k for k in oracle.KINDS if "crossed" in k])


@pytest.fixture
def sparse(monkeypatch):
    monkeypatch.setattr(layout_module, "FLOPS_PER_PAIR", 0)


@every_kind
def test_order_leads_from_the_users_factors_to_the_blocks(kind):
    problem = oracle.random_design(0, kind)
    plan = arrays.plan(problem)
    for factor, place in zip(problem.factors, plan.layout.order, strict=True):
        assert plan.layout.blocks[place].levels == factor.m
        np.testing.assert_array_equal(plan.codes[place], factor.codes)


@every_kind
def test_parents_are_the_level_of_the_next_factors_in_every_row(kind):
    plan = arrays.plan(oracle.random_design(1, kind))
    for j in range(plan.layout.chain):
        for h, parent in enumerate(plan.layout.parents[j], j + 1):
            np.testing.assert_array_equal(parent[plan.codes[j]], plan.codes[h])


@pytest.mark.parametrize(
    "kind, chain", [("nested", 2), ("nested_chain", 3), ("nested_crossed", 2), ("crossed_three", 1)]
)
def test_a_factor_comes_before_the_one_it_is_nested_in_and_only_crossed_ones_are_core(kind, chain):
    layout = arrays.plan(oracle.random_design(0, kind)).layout
    assert layout.chain == chain
    levels = [block.levels for block in layout.blocks[:chain]]
    assert levels == sorted(levels, reverse=True)
    assert layout.q == sum(b.levels * b.k for b in layout.blocks[chain:])


def test_the_order_of_factors_in_the_formula_does_not_change_the_elimination():
    problem = oracle.random_design(0, "nested_crossed")
    codes, levels = [f.codes for f in problem.factors], [f.m for f in problem.factors]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        layout = layout_module.plan(
            [codes[g] for g in order], [(1,)] * 3, [levels[g] for g in order]
        ).layout
        assert [b.levels for b in layout.blocks] == [levels[0], levels[2], levels[1]]


def test_the_largest_of_crossed_factors_is_eliminated():
    rng = np.random.default_rng(0)
    small, large = rng.permutation(np.arange(40) % 4), rng.permutation(np.arange(40) % 10)
    layout = layout_module.plan([small, large], [(1,), (1,)]).layout
    assert [b.levels for b in layout.blocks] == [10, 4]
    # Columns count, not levels: 4 levels of 3 columns are more than 10 of one.
    assert layout_module.plan([small, large], [(3,), (1,)]).layout.blocks[0].levels == 4


def test_factors_with_the_same_partition_are_nested_in_each_other():
    codes = np.repeat(np.arange(5), 4)
    layout = layout_module.plan([codes, codes[::-1].copy()], [(1,), (1,)]).layout
    assert (layout.chain, layout.q) == (2, 0)


@crossed_kinds
def test_entries_of_a_sparse_core_are_the_meetings_of_the_rows(kind, sparse):
    plan = arrays.plan(oracle.random_design(0, kind))
    layout = plan.layout
    assert len(layout.entries) == layout.chain
    for j, entries in enumerate(layout.entries):
        met = list(zip(entries.level[:-1].tolist(), entries.column[:-1].tolist(), strict=True))
        expected = set()
        for code, offset, block in zip(
            plan.codes[layout.chain :], layout.offsets, layout.core, strict=False
        ):
            pairs = set(zip(plan.codes[j].tolist(), code.tolist(), strict=True))
            expected |= {(a, offset + b * block.k + c) for a, b in pairs for c in range(block.k)}
        assert met == sorted(expected)  # and one empty entry, for padding


@crossed_kinds
def test_rows_of_a_sparse_core_add_to_their_own_entries(kind, sparse):
    plan = arrays.plan(oracle.random_design(0, kind))
    layout = plan.layout
    for j, entries in enumerate(layout.entries):
        core = zip(
            plan.rows[j], plan.codes[layout.chain :], layout.offsets, layout.core, strict=False
        )
        for first, code, offset, block in core:
            for c in range(block.k):
                np.testing.assert_array_equal(entries.level[first + c], plan.codes[j])
                np.testing.assert_array_equal(
                    entries.column[first + c], offset + code * block.k + c
                )


def test_fill_is_passed_up_to_the_entry_of_the_parent_in_the_same_column(sparse):
    layout = arrays.plan(oracle.random_design(0, "nested_crossed")).layout
    child, parent = layout.entries
    real = slice(0, len(child.level) - 1)
    np.testing.assert_array_equal(
        parent.level[child.up[0][real]], layout.parents[0][0][child.level[real]]
    )
    np.testing.assert_array_equal(parent.column[child.up[0][real]], child.column[real])


def test_the_core_is_kept_dense_when_that_is_cheaper(monkeypatch):
    problem = oracle.random_design(0, "crossed")
    monkeypatch.setattr(layout_module, "FLOPS_PER_PAIR", 1e9)
    assert arrays.plan(problem).layout.entries == ()
    monkeypatch.setattr(layout_module, "FLOPS_PER_PAIR", 0)
    assert len(arrays.plan(problem).layout.entries) == 1


def test_a_core_that_no_memory_holds_is_refused():
    codes = np.random.default_rng(0).integers(0, 50_000, (2, 60_000))
    with pytest.raises(
        ValueError, match='a dense core of 50,000 columns, which takes 120 GB.*core="iterative"'
    ):
        layout_module.plan(codes, [(1,)] * 2, [50_000] * 2)
    with pytest.raises(ValueError, match="120 GB of memory, and there are 25"):
        layout_module.plan(codes, [(1,)] * 2, [50_000] * 2, memory=25 * 10**9)
    assert layout_module.plan(codes % 100, [(1,)] * 2, [100] * 2, memory=25 * 10**9).layout.q == 100


def test_buckets_hold_their_size_and_are_at_most_an_eighth_larger():
    sizes = np.arange(1, 5000)
    buckets = np.array([layout_module.bucket(int(s)) for s in sizes])
    assert np.all(buckets >= sizes) and np.all(buckets <= sizes * 1.125)
    assert np.all(np.diff(buckets) >= 0)
    np.testing.assert_array_equal([layout_module.bucket(int(b)) for b in buckets], buckets)
    assert len(set(buckets[1000:])) < 30


@every_kind
def test_padding_adds_levels_and_empty_entries_only(kind, sparse):
    problem = oracle.random_design(0, kind)
    exact, padded = arrays.plan(problem), arrays.plan(problem, pad=True)
    assert padded.layout.order == exact.layout.order and padded.layout.chain == exact.layout.chain
    for a, b in zip(exact.layout.blocks, padded.layout.blocks, strict=True):
        assert (b.levels, b.sizes) == (layout_module.bucket(a.levels), a.sizes)
    for a, b in zip(exact.layout.entries, padded.layout.entries, strict=True):
        assert len(b.level) == layout_module.bucket(len(a.level))
        for exact_list, padded_list in zip(
            jax.tree.leaves(a.pairs), jax.tree.leaves(b.pairs), strict=True
        ):
            assert len(padded_list) == layout_module.bucket(len(exact_list))


def test_designs_of_similar_size_have_one_shape():
    rng = np.random.default_rng(0)
    shapes = set()
    for m in (97, 100, 104):
        plan = layout_module.plan([rng.permutation(np.arange(1000) % m)], [(2,)], pad=True)
        leaves, tree = jax.tree.flatten(plan)
        shapes.add((tree, tuple(leaf.shape for leaf in leaves)))
    assert len(shapes) == 1
