"""Contract tests of search spaces: sampling, sizes, costs, shapes, and equal networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.interfaces import SpaceModule
from hwnas.nets.bn import recalibrate
from hwnas.nets.extract import extract
from hwnas.nets.subnet import build_from_definition, definition_of
from hwnas.nets.supernet import Supernet
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import (
    AnalyticMetric,
    Precision,
    cost,
    op_macs,
    op_params,
    op_weight_bytes,
)
from hwnas.spaces.graphs import graph, is_connected, smallest_connected
from hwnas.spaces.index import enumerate_ops, op_index, op_sum, slot_ops
from hwnas.spaces.lowering import lower, resolution, slot_names
from hwnas.spaces.ops import OpSpec, layers
from hwnas.spaces.space import SearchSpace
from hwnas.testing.suite import Suite, quick
from hwnas.training.sandwich import SandwichSettings, label_loss, sandwich_step

__all__ = ["SpaceSuite", "lacks_networks", "shaken"]

N_IMAGES = 4
N_STEPS = 25  # tokens per segment
ANALYTIC: dict[AnalyticMetric, Callable[[OpSpec], int]] = {"macs": op_macs, "params": op_params}


def lacks_networks(space: SearchSpace) -> str:
    """The reason why the space has no supernet or static networks; empty if it has them."""
    lacks = space.macro.lacks
    return lacks.get("supernet", "") or lacks.get("static net", "")


def shaken(space: SearchSpace) -> Supernet:
    """A supernet in double precision with noise on all parameters, so no BN scale is 1."""
    supernet = Supernet(space, seed=0)
    generator = torch.Generator().manual_seed(1)
    strength = 0.3 if space.macro.reads_tokens else 0.1  # words start with small weights
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.add_(strength * torch.randn(parameter.shape, generator=generator))
    return supernet.double()


_shaken = lru_cache(maxsize=1)(shaken)  # shared by several tests of one space


def _some_archs(space: SearchSpace, n: int) -> list[Arch]:
    ends = [space.largest(), space.smallest()]
    return [*ends, *map(space.arch, space.sample(n - 2, rng=rng(0, "archs")))]


def _inputs(space: SearchSpace, arch: Arch, n: int) -> torch.Tensor:
    """Random images [n, C, px, px], or tokens [n, 2, N_STEPS]."""
    px = resolution(space, arch)
    generator = torch.Generator().manual_seed(0)
    if space.macro.reads_tokens:
        return torch.randint(space.macro.num_classes, (n, 2, N_STEPS), generator=generator)
    shape = n, space.macro.in_channels, px, px
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class SpaceSuite(Suite):
    """Contract of a space. Tests that run its networks use the settings in `QUICK`.

    Override `space` and `small_space` to test an instance with other settings.
    """

    CONTRACT = SpaceModule

    @pytest.fixture
    def space(self, variant: Any, config: Any) -> SearchSpace:
        """The space with 10 classes."""
        space: SearchSpace = variant.build(config, num_classes=10)
        return space

    @pytest.fixture
    def small_space(self, variant: Any, config: Any) -> SearchSpace:
        """The space, with settings that make its networks run in milliseconds."""
        space: SearchSpace = variant.build(quick(variant, config), num_classes=10)
        return space

    @pytest.fixture
    def with_networks(self, small_space: SearchSpace) -> SearchSpace:
        """`small_space`; if its skeleton lacks networks, checks the error and skips the test."""
        if reason := lacks_networks(small_space):
            with pytest.raises(UserError) as caught:
                extract(Supernet(small_space, seed=0), small_space.smallest())
            assert reason in str(caught.value)
            pytest.skip(reason)
        return small_space

    def test_operators_are_closed(self, space: SearchSpace) -> None:
        """Sampling, mutation and crossover give archs of the space."""
        codes = space.sample(400, rng=rng(0, "closed"))
        assert space.validate(codes).all()
        assert space.validate(space.mutate(codes, rng(1, "closed"), 0.3)).all()
        assert space.validate(space.crossover(codes[:200], codes[200:], rng(2, "c"))).all()
        for row in codes[:20]:
            assert space.check(space.arch(row)).codes == tuple(row.tolist())
        assert space.validate(space.codes([space.largest(), space.smallest()])).all()

    def test_encode_and_decode_are_inverse(self, space: SearchSpace) -> None:
        """One-hot codes of active choices are decoded to the same codes."""
        codes = space.sample(300, rng=rng(3, "encode"))
        encoded = space.encode(codes)
        assert (space.decode(encoded) == codes).all()
        assert (encoded.sum(axis=1) == space.active(codes).sum(axis=1)).all()

    def test_the_size_counts_what_sampling_finds_in_a_small_part(self, space: SearchSpace) -> None:
        """The space is restricted to so few archs that random samples include all of them."""
        random = rng(4, "narrow")
        kept = {choice.name: (choice.values[-1],) for choice in space.choices}
        for column in random.permutation(len(space.choices)):
            choice = space.choices[column]
            narrowed = space.restrict(kept | {choice.name: choice.values})
            if narrowed.size() > 40:
                break
            kept[choice.name] = choice.values
        narrowed = space.restrict(kept)
        drawn = {narrowed.arch(row) for row in narrowed.sample(4000, rng=random)}
        assert len(drawn) == narrowed.size()

    def test_the_index_equals_lower(self, space: SearchSpace) -> None:
        """Operators from table lookup are those of `lower()`, in order."""
        ops = enumerate_ops(space)
        assert len(set(ops)) == len(ops)
        codes = space.sample(1000, rng=rng(5, "index"))
        for row, index in zip(codes, op_index(space, codes), strict=True):
            assert tuple(ops[i] for i in index if i >= 0) == lower(space, space.arch(row)).ops

    def test_a_restriction_has_its_own_fingerprint_and_fewer_operators(
        self, space: SearchSpace
    ) -> None:
        """A restricted space has the same id, and refuses removed values."""
        choices = [choice for choice in space.choices if len(choice.values) > 1]
        if not choices:
            assert space.size() == 1
            return
        narrowed = space.restrict({choice.name: choice.values[:1] for choice in choices})
        assert narrowed.id == space.id
        assert narrowed.fingerprint != space.fingerprint
        assert narrowed.size() == 1
        assert set(enumerate_ops(narrowed)) == set(lower(space, space.smallest()))
        with pytest.raises(UserError, match=r"invalid code for"):
            narrowed.check(space.largest())
        with pytest.raises(UserError, match="does not allow"):
            cost(narrowed, space.codes([space.largest()]), "macs")

    def test_costs_of_arrays_are_sums_over_lower(self, space: SearchSpace) -> None:
        """MACs, parameters, bytes in every precision, and any price per operator are such sums."""
        codes = space.sample(40, rng=rng(6, "cost"))
        archs = [lower(space, space.arch(row)) for row in codes]
        for metric, of_op in ANALYTIC.items():
            expected = [sum(map(of_op, ops)) for ops in archs]
            assert cost(space, codes, metric).tolist() == expected
        for precision in get_args(Precision):
            expected = [sum(op_weight_bytes(op, precision) for op in ops) for ops in archs]
            found = cost(space, codes, "weight_bytes", precision=precision)
            assert found.tolist() == expected
        prices = rng(7, "prices").random(len(enumerate_ops(space)))
        index = op_index(space, codes)
        by_index = np.where(index >= 0, prices[index], 0).sum(axis=1)
        np.testing.assert_allclose(op_sum(space, codes, prices), by_index, rtol=1e-12)

    def test_slots_have_names_and_know_their_operators(self, space: SearchSpace) -> None:
        """Every operator of an arch is among the operators of its slot."""
        names = slot_names(space)
        assert len(set(names)) == len(names)
        per_slot = slot_ops(space)
        for row in space.sample(50, rng=rng(8, "slots")):
            codes = (0, *space.arch(row).codes[1:])  # at the smallest resolution, as in `slot_ops`
            slots = space.macro.lower_slots(codes)
            assert len(slots) == len(names) == len(per_slot)
            for op, known in zip(slots, per_slot, strict=True):
                assert op is None or op in known

    def test_operators_chain(self, space: SearchSpace) -> None:
        """In a chain, an operator reads the output of the one before it."""
        if not space.macro.is_chain:
            pytest.skip("not a chain")
        for row in space.sample(50, rng=rng(9, "chain")):
            arch = space.arch(row)
            ops = lower(space, arch).ops
            assert ops[0].in_hw == resolution(space, arch)
            for before, after in pairwise(ops):
                assert (before.out_channels, before.out_hw) == (after.in_channels, after.in_hw)

    def test_layers_of_an_operator_chain(self, space: SearchSpace) -> None:
        """A layer of an operator reads the output of the one before, except gates and shortcuts."""
        if not space.macro.is_chain:
            pytest.skip("not a chain")
        for op in enumerate_ops(space):
            main = [
                layer for layer in layers(op) if not layer.name.startswith(("se.", "conv_short"))
            ]
            for before, after in pairwise(main):
                assert (before.out_channels, before.out_hw) == (after.in_channels, after.in_hw)
            if main:
                assert (main[0].in_channels, main[0].in_hw) == (op.in_channels, op.in_hw)
                assert (main[-1].out_channels, main[-1].out_hw) == (op.out_channels, op.out_hw)
            for layer in layers(op):
                assert layer.in_channels % layer.groups == layer.out_channels % layer.groups == 0

    def test_graphs_are_topologically_ordered_and_hold_the_operators(
        self, space: SearchSpace
    ) -> None:
        """Sources come before their readers; edges of a chain join neighbours."""
        for row in space.sample(30, rng=rng(11, "graph")):
            arch = space.arch(row)
            nodes, edges = graph(space, arch)
            assert all(source < reader < len(nodes) for source, reader in edges)
            if space.macro.is_chain:
                assert nodes == lower(space, arch).ops
                assert edges == tuple((i, i + 1) for i in range(len(nodes) - 1))

    @torch.no_grad()
    def test_supernet_extracted_and_static_networks_compute_the_same(
        self, with_networks: SearchSpace
    ) -> None:
        """They run in double precision, because statistics of four images amplify rounding."""
        space, supernet = with_networks, _shaken(with_networks)
        for arch in _some_archs(space, 4):
            x = _inputs(space, arch, N_IMAGES)
            expected = supernet(x, arch)
            positions = (N_STEPS,) * space.macro.reads_tokens
            assert expected.shape == (N_IMAGES, space.macro.num_classes, *positions)
            assert expected.std() > 0.1 or not is_connected(space, space.codes([arch]))
            extracted = extract(supernet, arch)
            torch.testing.assert_close(extracted(x), expected, rtol=0, atol=1e-9)
            static = build_from_definition(definition_of(extracted)).double().train()
            static.load_state_dict(extracted.state_dict())
            torch.testing.assert_close(static(x), expected, rtol=0, atol=1e-9)
            n_parameters = sum(p.numel() for p in static.parameters())
            steps = lower(space, arch).program  # without operators that only compute constants
            assert n_parameters == sum(op_params(step.op) for step in steps if step.op)

    def test_the_gradient_of_a_sandwich_step_is_the_sum_of_those_of_its_archs(
        self, with_networks: SearchSpace
    ) -> None:
        """The two archs begin with the same operators, which the step runs only once."""
        space, supernet = with_networks, shaken(with_networks)
        arch = smallest_connected(space)
        *others, last = arch.codes
        values = [code for code in space.allowed[-1] if code != last]
        archs = [arch, *(space.arch([*others, code]) for code in values[:1])]
        x = _inputs(space, arch, N_IMAGES)
        shape = (N_IMAGES, N_STEPS) if space.macro.reads_tokens else (N_IMAGES,)
        generator = torch.Generator().manual_seed(2)
        y = torch.randint(space.macro.num_classes, shape, generator=generator)
        for one in archs:
            label_loss(supernet, x, y, one).backward()  # type: ignore[no-untyped-call]
        alone = {name: p.grad for name, p in supernet.named_parameters() if p.grad is not None}
        supernet.zero_grad()
        sandwich_step(supernet, x, y, archs, SandwichSettings(in_place=False))
        together = {name: p.grad for name, p in supernet.named_parameters() if p.grad is not None}
        assert together.keys() == alone.keys()
        most = max(float(gradient.abs().max()) for gradient in alone.values())
        for name, gradient in together.items():  # some are zero but for rounding: BN behind BN
            torch.testing.assert_close(gradient, alone[name], rtol=1e-10, atol=1e-10 * most)

    def test_the_exported_network_computes_the_same(
        self, with_networks: SearchSpace, tmp_path: Path
    ) -> None:
        """ONNX Runtime and torch run the smallest connected arch, with its own BN statistics."""
        from hwnas.exporters import onnx as exporter
        from hwnas.exporters.opened import onnxruntime_model

        space = with_networks
        arch = smallest_connected(space)
        x = _inputs(space, arch, 64)
        x = x.float() if x.is_floating_point() else x  # fewer would amplify rounding errors
        model = recalibrate(extract(_shaken(space), arch).float(), [x])
        (path, *_) = exporter.build(exporter.Config()).export(
            model, input_shape=tuple(x.shape[1:]), folder=tmp_path
        )
        with torch.no_grad():
            expected = model(x).numpy()
        found = onnxruntime_model(path).logits(x.numpy())
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
