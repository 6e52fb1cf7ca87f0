"""Spaces and their lowering: closure, exact sizes, canonical codes, and the vectorised index."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.spaces.arch import Arch
from hwnas.spaces.chains import divisible
from hwnas.spaces.cost import cost, op_macs, op_params
from hwnas.spaces.graphs import graph
from hwnas.spaces.index import enumerate_ops, op_index
from hwnas.spaces.lowering import lower, network_key
from hwnas.spaces.memory import op_peak_values
from hwnas.spaces.mobilenet_tiny import Config, build
from hwnas.spaces.ops import OpSpec, layers
from hwnas.spaces.space import SearchSpace

SMALL = {  # 2 widths x (2 expands + 2 expands x 2 kernels of a second block) = 12 archs
    "resolution": (16,),
    "stem.width": (8,),
    "stage0.width": (16, 32),
    "stage0.depth": (1, 2),
    "stage0.block0.expand": (2, 6),
    "stage0.block1.kernel": (3, 5),
}


def small_space(space: SearchSpace) -> SearchSpace:
    """A space small enough to enumerate: `SMALL`, and the largest value of everything else."""
    largest = {choice.name: (choice.values[-1],) for choice in space.choices}
    shallow = {"stage1.depth": (1,), "stage2.depth": (1,)}
    return space.restrict(largest | shallow | SMALL)


def every_arch(space: SearchSpace) -> set[Arch]:
    return {space.arch(codes) for codes in product(*space.allowed)}


def test_size_counts_distinct_archs_exactly(tiny_space: SearchSpace):
    small = small_space(tiny_space)
    assert small.size() == len(every_arch(small)) == 2 * (2 + 2 * 2)


def test_the_full_space_is_large_enough_and_its_size_is_closed_form(tiny_space: SearchSpace):
    per_stage = 3 * sum((2 * 3) ** depth for depth in (1, 2, 3))
    assert tiny_space.size() == 2 * 2 * per_stage**3
    assert tiny_space.size() >= 10**6


@pytest.mark.parametrize("restricted", [False, True])
def test_operators_are_closed(tiny_space: SearchSpace, restricted: bool):
    space = small_space(tiny_space) if restricted else tiny_space
    codes = space.sample(500, rng=rng(0, "closure"))
    assert space.validate(codes).all()
    assert space.validate(space.mutate(codes, rng(1, "closure"), 0.3)).all()
    assert space.validate(space.crossover(codes[:250], codes[250:], rng(2, "closure"))).all()
    for row in codes[:20]:
        space.check(space.arch(row))
    assert space.validate(space.codes([space.largest(), space.smallest()])).all()


def test_sampling_reaches_every_arch_of_a_small_space(tiny_space: SearchSpace):
    small = small_space(tiny_space)
    drawn = {small.arch(row) for row in small.sample(2000, rng=rng(0, "reach"))}
    assert drawn == every_arch(small)


def test_mutation_changes_archs_and_crossover_mixes_parents(tiny_space: SearchSpace):
    codes = tiny_space.sample(400, rng=rng(3, "m"))
    assert (tiny_space.mutate(codes, rng(4, "m"), 0.05) != codes).any(axis=1).mean() > 0.3
    first, second = codes[:200], codes[200:]
    child = tiny_space.crossover(first, second, rng(5, "m"))
    both = tiny_space.active(first) & tiny_space.active(second) & tiny_space.active(child)
    assert ((child == first) | (child == second))[both].all()


def test_one_network_is_one_value(tiny_space: SearchSpace):
    codes = list(tiny_space.largest().codes)
    depth = next(i for i, c in enumerate(tiny_space.choices) if c.name == "stage2.depth")
    last = next(i for i, c in enumerate(tiny_space.choices) if c.name == "stage2.block2.expand")
    codes[depth] = 0
    same = list(codes)
    same[last] = 0
    assert tiny_space.arch(codes) == tiny_space.arch(same)
    assert tiny_space.arch(codes).key == tiny_space.arch(same).key
    with pytest.raises(UserError, match=r"stage2\.block"):
        tiny_space.check(Arch(tiny_space.id, tuple(codes)))


def test_different_archs_have_different_keys(tiny_space: SearchSpace):
    archs = {tiny_space.arch(row) for row in tiny_space.sample(2000, rng=rng(6, "keys"))}
    assert len({arch.key for arch in archs}) == len(archs)
    assert len({network_key(tiny_space, arch) for arch in archs}) == len(archs)


def test_encode_and_decode_are_inverse(tiny_space: SearchSpace):
    codes = tiny_space.sample(300, rng=rng(7, "encode"))
    encoded = tiny_space.encode(codes)
    assert (tiny_space.decode(encoded) == codes).all()
    assert (encoded.sum(axis=1) == tiny_space.active(codes).sum(axis=1)).all()


def test_restricting_keeps_ids_and_changes_the_fingerprint(tiny_space: SearchSpace):
    small = small_space(tiny_space)
    assert small.id == tiny_space.id
    assert small.fingerprint != tiny_space.fingerprint
    assert small.smallest().space == tiny_space.id
    tiny_space.check(small.smallest())
    with pytest.raises(UserError, match="invalid code for resolution"):
        tiny_space.restrict({"resolution": (16,)}).check(tiny_space.largest())


def test_restricting_to_nothing_or_to_unknown_values_is_refused(tiny_space: SearchSpace):
    with pytest.raises(UserError, match=r"unknown choice 'stage9\.width'"):
        tiny_space.restrict({"stage9.width": (8,)})
    with pytest.raises(UserError, match="cannot restrict"):
        tiny_space.restrict({"resolution": (16, 17)})


def test_archs_of_other_spaces_are_refused(tiny_space: SearchSpace):
    other = build(Config(resolutions=(16, 32)), num_classes=10)
    with pytest.raises(UserError, match="another space"):
        lower(tiny_space, other.largest())
    with pytest.raises(UserError, match="number of codes"):
        lower(tiny_space, Arch(tiny_space.id, (0,)))


def test_the_index_equals_lower(tiny_space: SearchSpace):
    ops = enumerate_ops(tiny_space)
    assert len(set(ops)) == len(ops)
    codes = tiny_space.sample(1000, rng=rng(8, "index"))
    for row, index in zip(codes, op_index(tiny_space, codes), strict=True):
        assert tuple(ops[i] for i in index if i >= 0) == lower(tiny_space, tiny_space.arch(row)).ops


def test_a_restricted_space_enumerates_only_what_it_reaches(tiny_space: SearchSpace):
    small = small_space(tiny_space)
    reached = {op for arch in every_arch(small) for op in lower(small, arch)}
    assert set(enumerate_ops(small)) == reached
    outside = tiny_space.codes([tiny_space.largest()])
    for refused in (lambda: cost(small, outside, "macs"), lambda: op_index(small, outside)):
        with pytest.raises(UserError, match="does not allow"):
            refused()


def test_costs_of_arrays_equal_costs_of_single_archs(tiny_space: SearchSpace):
    codes = tiny_space.sample(50, rng=rng(9, "cost"))
    per_op = {
        "macs": op_macs,
        "params": op_params,
        "peak_memory_bytes": lambda op: 4 * op_peak_values(op),
    }
    for metric, of_op in per_op.items():
        reduce = max if metric == "peak_memory_bytes" else sum
        expected = [
            reduce(of_op(op) for op in lower(tiny_space, tiny_space.arch(c))) for c in codes
        ]
        assert cost(tiny_space, codes, metric).tolist() == expected


def test_costs_of_a_block_match_hand_computation():
    block = OpSpec("mbconv", 16, 24, 8, 4, mid_channels=64, kernel=5, stride=2, padding=2)
    assert op_macs(block) == 8 * 8 * 16 * 64 + 4 * 4 * 64 * 25 + 4 * 4 * 64 * 24
    bn = 2 * (64 + 64 + 24)
    assert op_params(block) == 16 * 64 + 64 * 25 + 64 * 24 + bn
    assert op_peak_values(block) == 64 * 64 + 64 * 16  # depthwise: input and output
    gated = replace(block, se_channels=16)
    assert op_macs(gated) - op_macs(block) == 2 * 64 * 16
    assert op_params(gated) - op_params(block) == 2 * 64 * 16 + 64 + 16


def test_a_residual_keeps_its_input_alive():
    block = OpSpec("mbconv", 16, 16, 8, 8, mid_channels=32, kernel=3, padding=1, skip=True)
    assert op_peak_values(block) == 64 * (32 + 32 + 16)


def test_layers_chain(tiny_space: SearchSpace):
    for op in enumerate_ops(tiny_space):
        chain = [layer for layer in layers(op) if not layer.name.startswith("se.")]
        if not chain:
            continue
        assert (chain[0].in_channels, chain[0].in_hw) == (op.in_channels, op.in_hw)
        assert (chain[-1].out_channels, chain[-1].out_hw) == (op.out_channels, op.out_hw)
        for before, after in pairwise(chain):
            assert (before.out_channels, before.out_hw) == (after.in_channels, after.in_hw)


def test_the_graph_of_a_chain_space_is_its_chain(tiny_space: SearchSpace):
    nodes, edges = graph(tiny_space, tiny_space.largest())
    assert nodes == lower(tiny_space, tiny_space.largest()).ops
    assert edges == tuple((i, i + 1) for i in range(len(nodes) - 1))


def test_operators_of_one_arch_chain(tiny_space: SearchSpace):
    for row in tiny_space.sample(50, rng=rng(10, "chain")):
        ops = lower(tiny_space, tiny_space.arch(row))
        for before, after in pairwise(ops):
            assert (before.out_channels, before.out_hw) == (after.in_channels, after.in_hw)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(4, 8), (8, 8), (12, 16), (16 * 1.4, 24), (33, 32), (18.0, 24), (10, 16)],
)
def test_channel_rounding_never_loses_more_than_a_tenth(value: float, expected: int):
    assert divisible(value) == expected
    assert divisible(value) >= 0.9 * value


def test_larger_choices_cost_more(tiny_space: SearchSpace):
    largest = np.array(tiny_space.largest().codes)
    top = cost(tiny_space, largest[None], "macs")[0]
    for column in range(len(largest)):
        lowered = largest.copy()
        lowered[column] = 0
        assert cost(tiny_space, tiny_space.normalise(lowered[None]), "macs")[0] < top
