"""Invented YAML spaces: refused with the path to the bad choice, or all their networks run."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.core.config import build_model
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.nets.extract import extract
from hwnas.nets.supernet import Supernet
from hwnas.spaces import mobile
from hwnas.spaces.cost import cost, op_macs, op_params
from hwnas.spaces.index import enumerate_ops, op_index
from hwnas.spaces.lowering import lower, resolution
from hwnas.spaces.space import SearchSpace

ACTS = st.sampled_from(["none", "relu", "relu6", "hard_swish", "swish"])
WIDTHS = st.lists(st.sampled_from([1, 3, 8, 12, 16, 21]), min_size=1, max_size=2)
KERNELS = st.lists(st.sampled_from([1, 3, 5, 7]), min_size=1, max_size=2)
EXPANDS = st.lists(st.sampled_from([1, 1.5, 2.3, 3]), min_size=1, max_size=2)
OP = st.fixed_dictionaries(
    {"kind": st.sampled_from(["mbconv", "mbconv", "dsconv", "skip"])},
    optional={
        "kernel": st.sampled_from([1, 3, 5]),
        "expand": st.sampled_from([1, 2.5, 3]),
        "groups": st.sampled_from([2, 3, 4]),
    },
)


def named(ops: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": f"op{i}.{op['kind']}", **op} for i, op in enumerate(ops)]


OPS = st.lists(OP, min_size=1, max_size=3).map(named)
STAGE = st.fixed_dictionaries(
    {"widths": WIDTHS},
    optional={
        "depths": st.sampled_from([[1], [2], [1, 2]]),
        "stride": st.sampled_from([1, 2]),
        "act": ACTS,
        "out_act": ACTS,
        "skip_act": ACTS,
        "se_ratio": st.sampled_from([0.0, 0.1, 0.25]),
        "project_shortcut": st.booleans(),
    },
).flatmap(
    lambda stage: st.one_of(
        st.fixed_dictionaries(
            {"kernels": KERNELS, "expands": EXPANDS}, optional={"per_stage": st.booleans()}
        ),
        st.fixed_dictionaries({"ops": OPS}, optional={"first_ops": OPS}),
    ).map(lambda choices: stage | choices)
)
SPACE = st.fixed_dictionaries(
    {
        "name": st.just("mobile"),
        "resolutions": st.lists(st.sampled_from([8, 9, 14]), min_size=1, max_size=2),
        "stem": st.fixed_dictionaries(
            {"widths": WIDTHS}, optional={"stride": st.sampled_from([1, 2]), "act": ACTS}
        ),
        "stages": st.lists(STAGE, min_size=1, max_size=4),
        "head": st.fixed_dictionaries(
            {"act": ACTS},
            optional={
                "feature_widths": st.sampled_from([[], [9], [8, 24]]),
                "feature_bias": st.booleans(),
            },
        ).flatmap(lambda head: st.sampled_from([head | {"width": 20}, head | {"expand": 2}])),
    }
)


@settings(max_examples=40)
@given(SPACE)
def test_an_invented_space_is_refused_by_name_or_works(data: dict[str, Any]):
    try:
        space = mobile.build(
            build_model(mobile.Config, data, where="invented"), num_classes=5, in_channels=2
        )
    except UserError as error:
        assert "stages." in str(error)
        return
    assert_costs_are_those_of_lower(space)
    supernet = Supernet(space, seed=0).double()
    rows = space.sample(2, rng=rng(0, "invented"))
    for arch in (space.largest(), space.smallest(), *map(space.arch, rows)):
        px = resolution(space, arch)
        x = torch.randn(6, 2, px, px, generator=torch.Generator().manual_seed(0)).double()
        logits, alone = supernet(x, arch), extract(supernet, arch)
        assert logits.shape == (6, 5)
        torch.testing.assert_close(alone(x), logits, rtol=1e-6, atol=1e-6)
        n_params = sum(parameter.numel() for parameter in alone.parameters())
        assert n_params == cost(space, space.codes([arch]), "params")[0]


def assert_costs_are_those_of_lower(space: SearchSpace) -> None:
    codes = space.mutate(space.sample(20, rng=rng(1, "invented")), rng(2, "invented"))
    codes = np.concatenate([codes, space.codes([space.largest(), space.smallest()])])
    assert space.validate(codes).all()
    ops = enumerate_ops(space)
    lowered = [lower(space, space.arch(row)).ops for row in codes]
    for index, expected in zip(op_index(space, codes), lowered, strict=True):
        assert tuple(ops[i] for i in index if i >= 0) == expected
    assert cost(space, codes, "macs").tolist() == [sum(map(op_macs, row)) for row in lowered]
    assert cost(space, codes, "params").tolist() == [sum(map(op_params, row)) for row in lowered]


def test_a_block_may_depend_on_very_many_combinations_of_choices():
    """64 resolutions, 24 widths before the block and 24 behind it: more than an int16 counts."""
    widths = list(range(8, 8 + 24))
    data = {
        "name": "mobile",
        "resolutions": list(range(32, 96)),
        "stem": {"widths": widths},
        "stages": [{"widths": widths, "kernels": [3], "expands": [1], "stride": 2}],
        "head": {"width": 16},
    }
    config = build_model(mobile.Config, data, where="wide")
    assert_costs_are_those_of_lower(mobile.build(config, num_classes=3))
