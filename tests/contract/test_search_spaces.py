"""Every space: closed operators, exact sizes, one value per arch, an index equal to `lower()`."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.spaces.cost import cost, op_macs, op_params, op_weight_bytes
from hwnas.spaces.graphs import graph
from hwnas.spaces.index import enumerate_ops, op_index, op_sum, slot_ops
from hwnas.spaces.lowering import lower, resolution, slot_names
from hwnas.spaces.ops import layers
from hwnas.spaces.space import SearchSpace
from tests.zoo import MOBILE_SPACES, SPACES, space


@pytest.fixture(params=SPACES)
def any_space(request: pytest.FixtureRequest) -> SearchSpace:
    return space(request.param)


@pytest.fixture(params=MOBILE_SPACES)
def any_mobile_space(request: pytest.FixtureRequest) -> SearchSpace:
    return space(request.param)


def test_operators_are_closed(any_space: SearchSpace):
    codes = any_space.sample(rng(0, "closed"), 400)
    assert any_space.validate(codes).all()
    assert any_space.validate(any_space.mutate(codes, rng(1, "closed"), 0.3)).all()
    assert any_space.validate(any_space.crossover(codes[:200], codes[200:], rng(2, "c"))).all()
    for row in codes[:20]:
        assert any_space.check(any_space.arch(row)).codes == tuple(row.tolist())
    assert any_space.validate(any_space.codes([any_space.largest(), any_space.smallest()])).all()


def test_encode_and_decode_are_inverse(any_space: SearchSpace):
    codes = any_space.sample(rng(3, "encode"), 300)
    encoded = any_space.encode(codes)
    assert (any_space.decode(encoded) == codes).all()
    assert (encoded.sum(axis=1) == any_space.active(codes).sum(axis=1)).all()


def test_the_size_counts_what_sampling_finds_in_a_small_part(any_space: SearchSpace):
    """Narrowed to few enough archs that random draws meet them all."""
    random = rng(4, "narrow")
    kept = {choice.name: (choice.values[-1],) for choice in any_space.choices}
    for column in random.permutation(len(any_space.choices)):
        choice = any_space.choices[column]
        narrowed = any_space.restrict(kept | {choice.name: choice.values})
        if narrowed.size() > 40:
            break
        kept[choice.name] = choice.values
    narrowed = any_space.restrict(kept)
    drawn = {narrowed.arch(row) for row in narrowed.sample(random, 4000)}
    assert len(drawn) == narrowed.size()


def test_the_index_equals_lower(any_space: SearchSpace):
    ops = enumerate_ops(any_space)
    assert len(set(ops)) == len(ops)
    codes = any_space.sample(rng(5, "index"), 1000)
    for row, index in zip(codes, op_index(any_space, codes), strict=True):
        assert tuple(ops[i] for i in index if i >= 0) == lower(any_space, any_space.arch(row)).ops


def test_a_restriction_has_its_own_fingerprint_and_fewer_operators(any_space: SearchSpace):
    choices = [choice for choice in any_space.choices if len(choice.values) > 1]
    if not choices:
        assert any_space.size() == 1
        return
    narrowed = any_space.restrict({choice.name: choice.values[:1] for choice in choices})
    assert narrowed.id == any_space.id
    assert narrowed.fingerprint != any_space.fingerprint
    assert narrowed.size() == 1
    assert set(enumerate_ops(narrowed)) == set(lower(any_space, any_space.smallest()))
    with pytest.raises(UserError, match=r"invalid code for"):
        narrowed.check(any_space.largest())
    with pytest.raises(UserError, match="does not allow"):
        cost(narrowed, any_space.codes([any_space.largest()]), "macs")


def test_costs_of_arrays_are_sums_over_lower(any_space: SearchSpace):
    codes = any_space.sample(rng(6, "cost"), 40)
    archs = [lower(any_space, any_space.arch(row)) for row in codes]
    sums = {"macs": op_macs, "params": op_params}
    for metric, of_op in sums.items():
        assert cost(any_space, codes, metric).tolist() == [sum(map(of_op, ops)) for ops in archs]
    for precision in ("fp32", "fp16", "int8"):
        expected = [sum(op_weight_bytes(op, precision) for op in ops) for ops in archs]
        found = cost(any_space, codes, "weight_bytes", precision=precision)
        assert found.tolist() == expected
    prices = rng(7, "prices").random(len(enumerate_ops(any_space)))
    index = op_index(any_space, codes)
    by_index = np.where(index >= 0, prices[index], 0).sum(axis=1)
    np.testing.assert_allclose(op_sum(any_space, codes, prices), by_index, rtol=1e-12)


def test_slots_have_names_and_know_their_operators(any_space: SearchSpace):
    names = slot_names(any_space)
    assert len(set(names)) == len(names)
    per_slot = slot_ops(any_space)
    for row in any_space.sample(rng(8, "slots"), 50):
        codes = (0, *any_space.arch(row).codes[1:])  # at the smallest resolution, as `slot_ops`
        slots = any_space.macro.lower_slots(codes)
        assert len(slots) == len(names) == len(per_slot)
        for op, known in zip(slots, per_slot, strict=True):
            assert op is None or op in known


def test_operators_chain(any_mobile_space: SearchSpace):
    for row in any_mobile_space.sample(rng(9, "chain"), 50):
        arch = any_mobile_space.arch(row)
        ops = lower(any_mobile_space, arch).ops
        assert ops[0].in_hw == resolution(any_mobile_space, arch)
        for before, after in pairwise(ops):
            assert (before.out_channels, before.out_hw) == (after.in_channels, after.in_hw)


def test_layers_of_an_operator_chain(any_mobile_space: SearchSpace):
    for op in enumerate_ops(any_mobile_space):
        main = [layer for layer in layers(op) if not layer.name.startswith(("se.", "conv_short"))]
        for before, after in pairwise(main):
            assert (before.out_channels, before.out_hw) == (after.in_channels, after.in_hw)
        if main:
            assert (main[0].in_channels, main[0].in_hw) == (op.in_channels, op.in_hw)
            assert (main[-1].out_channels, main[-1].out_hw) == (op.out_channels, op.out_hw)
        for layer in layers(op):
            assert layer.in_channels % layer.groups == layer.out_channels % layer.groups == 0


def test_graphs_are_topologically_ordered_and_hold_the_operators(any_space: SearchSpace):
    for row in any_space.sample(rng(11, "graph"), 30):
        arch = any_space.arch(row)
        nodes, edges = graph(any_space, arch)
        assert all(source < reader < len(nodes) for source, reader in edges)
        if any_space.macro.is_chain:
            assert nodes == lower(any_space, arch).ops
            assert edges == tuple((i, i + 1) for i in range(len(nodes) - 1))
