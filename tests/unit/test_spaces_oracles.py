"""Spaces against numbers that others published or measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.predictors.readers.accel_nasbench import READER
from hwnas.spaces.choice import Value
from hwnas.spaces.cost import cost
from hwnas.spaces.graphs import graph
from hwnas.spaces.load import build_space
from hwnas.spaces.space import Codes, SearchSpace


def codes_of(space: SearchSpace, *views: dict[str, Value]) -> Codes:
    """Rows of the archs with these values; choices that a view lacks have their first value."""
    rows = [
        [c.values.index(view.get(c.name, c.values[0])) for c in space.choices] for view in views
    ]
    return space.normalise(np.array(rows, dtype=np.int16))


ATTENTIVE_NAS = {  # its README: MFLOPs, which leave out the shortcuts' projections; conventions.md
    "A0": (203.4, 192, [16, 16, 24, 32, 64, 112, 192, 216, 1792], "3333333", "1444466", "1333331"),
    "A1": (279.2, 224, [16, 16, 24, 32, 64, 112, 192, 216, 1984], "3335353", "1444466", "1333331"),
    "A2": (316.7, 224, [16, 16, 24, 32, 64, 112, 200, 224, 1984], "3333353", "1454466", "1333341"),
    "A3": (356.5, 224, [16, 16, 24, 32, 64, 112, 208, 224, 1984], "3335333", "1444466", "2334351"),
    "A4": (443.5, 256, [16, 16, 24, 32, 64, 112, 192, 216, 1984], "3335353", "1445466", "1334351"),
    "A5": (490.5, 256, [16, 16, 24, 32, 72, 112, 192, 216, 1792], "3335333", "1454466", "1333461"),
    "A6": (709.0, 288, [16, 16, 24, 32, 64, 112, 216, 224, 1984], "3333353", "1465466", "1334461"),
}
PUBLISHED_MFLOPS = {"A0": 203, "A1": 279, "A2": 317, "A3": 357, "A4": 444, "A5": 491, "A6": 709}


@pytest.mark.parametrize("model", ATTENTIVE_NAS)
def test_attentive_nas_models_have_their_published_mflops(model: str):
    mflops, px, widths, kernels, expands, depths = ATTENTIVE_NAS[model]
    space = build_space("attentive_nas", num_classes=1000)
    view: dict[str, Value] = {"resolution": px, "stem.width": widths[0]}
    view["feature.width"] = widths[-1]
    for s in range(7):
        view[f"stage{s}.width"] = widths[s + 1]
        view[f"stage{s}.kernel"] = int(kernels[s])
        view[f"stage{s}.expand"] = int(expands[s])
        view[f"stage{s}.depth"] = int(depths[s])
    found = cost(space, codes_of(space, view), "macs")[0] / 1e6
    assert round(found, 1) == mflops
    assert abs(found - PUBLISHED_MFLOPS[model]) < 1  # shortcuts included: 0.2 % at most


def test_ofa_subnets_have_the_recorded_params_and_macs(test_data: Path):
    records = json.loads((test_data / "ofa_mbv3_imagenet" / "records.json").read_text())
    space = build_space("mobilenet_v3", num_classes=1000)
    codes = codes_of(space, *map(ofa_view, records))
    assert len(records) == 1081
    assert cost(space, codes, "macs").tolist() == [record["macs"] for record in records]
    assert cost(space, codes, "params").tolist() == [record["params"] for record in records]


OFA_COUNTS = {  # by width multiplier: params and MACs (fvcore) of the smallest and the largest
    1.0: ((3410792, 41476224), (7664760, 566170656)),
    1.2: ((4602456, 65536896), (10701632, 843101040)),
}


@pytest.mark.parametrize("width_mult", OFA_COUNTS)
def test_both_widths_of_once_for_all_have_the_counts_of_its_own_modules(width_mult: float):
    """`OFAMobileNetV3(width_mult=1.2)` of ofa 0.1.0 at 128 and 224 px, `get_active_subnet()`."""
    space = build_space("mobilenet_v3", {"width_mult": width_mult}, num_classes=1000)
    codes = space.codes([space.smallest(), space.largest()])
    counts = zip(cost(space, codes, "params"), cost(space, codes, "macs"), strict=True)
    assert tuple((int(params), int(macs)) for params, macs in counts) == OFA_COUNTS[width_mult]


def ofa_view(record: dict[str, Any]) -> dict[str, Value]:
    view: dict[str, Value] = {"resolution": record["r"]}
    for s, depth in enumerate(record["d"]):
        view[f"stage{s + 1}.depth"] = depth
        for b in range(4):
            view[f"stage{s + 1}.block{b}.kernel"] = record["ks"][4 * s + b]
            view[f"stage{s + 1}.block{b}.expand"] = record["e"][4 * s + b]
    return view


def test_nas_bench_macro_archs_have_the_recorded_params_and_flops(test_data: Path):
    records = json.loads((test_data / "nas_bench_macro" / "cifar10.json").read_text())
    space = build_space("nasbench_macro", num_classes=10)
    is_op = np.array([choice.role == "op" for choice in space.choices])
    codes = np.zeros((len(records), len(space.choices)), dtype=np.int16)
    codes[:, is_op] = [[int(digit) for digit in digits] for digits in records]
    assert len(records) == 3281
    assert space.validate(codes).all()
    assert space.size() == 3**8
    assert cost(space, codes, "macs").tolist() == [r["flops"] for r in records.values()]
    assert cost(space, codes, "params").tolist() == [r["params"] for r in records.values()]


def test_mnasnet_archs_have_the_recorded_params_and_macs(test_data: Path):
    """The source counted parameters; MACs of convolutions and linear layers are counted beside."""
    space = build_space("mnasnet", num_classes=1000)
    table = READER.read(test_data / "accel_nasbench" / "records.csv", space)
    assert len(table.codes) == 2569
    for metric, column in (("params", "params"), ("macs", "macs_conv")):
        recorded = table.columns[column]
        assert cost(space, table.codes, metric)[recorded.rows].tolist() == recorded.values.tolist()


@pytest.mark.parametrize(
    ("name", "params"),
    [("mobilenet_v2", 3504872), ("mobilenet_v3_large", 5483032), ("mobilenet_v3_small", 2542856)],
)
def test_shipped_mobilenets_are_those_of_timm(name: str, params: int):
    """`params` beside timm's own count, and MACs counted by fvcore on timm's own module."""
    import timm
    import torch
    from fvcore.nn import FlopCountAnalysis

    space = build_space(name, num_classes=1000)
    codes = space.codes([space.largest()])
    timm_name = name.replace("mobilenet_", "mobilenet").replace("v2", "v2_100")
    model = timm.create_model(timm_name + ("_100" if "v3" in name else "")).eval()
    assert sum(p.numel() for p in model.parameters()) == params
    assert cost(space, codes, "params")[0] == params
    count = FlopCountAnalysis(model, torch.zeros(1, 3, 224, 224)).unsupported_ops_warnings(False)
    layers = count.by_operator()["conv"] + count.by_operator()["linear"]
    assert cost(space, codes, "macs")[0] == layers


def test_nasbench201_largest_cell_has_its_published_size():
    """220.12 MFLOPs and 1.531546 M parameters (2001.00326; the benchmark's API, index 13714)."""
    space = build_space("nasbench201", num_classes=10)
    codes = space.codes([space.largest()])
    assert cost(space, codes, "params")[0] == 1531546
    assert round(cost(space, codes, "macs")[0] / 1e6, 2) == 220.12
    assert space.size() == 15625


def test_a_nasbench201_cell_is_its_dag():
    space = build_space("nasbench201", num_classes=10)
    view: dict[str, Value] = {
        "edge01": "nor_conv_3x3",
        "edge02": "none",
        "edge12": "skip_connect",
        "edge03": "avg_pool_3x3",
        "edge13": "none",
        "edge23": "nor_conv_1x1",
    }
    nodes, edges = graph(space, space.arch(codes_of(space, view)[0]))
    kinds = [(node.kind, node.kernel) for node in nodes]
    assert kinds == [  # input, 01, 12, 03, 23, output
        ("conv", 3),
        ("conv", 3),
        ("identity", 1),
        ("avg_pool", 3),
        ("conv", 1),
        ("pool", 1),
    ]
    assert edges == ((0, 1), (0, 3), (1, 2), (2, 4), (3, 5), (4, 5))


def test_sizes_are_exact():
    """Closed forms: values per decision, multiplied out by hand."""
    sizes = {name: build_space(name, num_classes=10).size() for name in SIZES}
    assert sizes == SIZES


SIZES = {
    "mobilenet_v3": 25 * sum((3 * 3) ** depth for depth in (2, 3, 4)) ** 5,
    "ofa_proxyless": 25 * sum((3 * 3) ** depth for depth in (2, 3, 4)) ** 5 * 9,
    "proxyless": 6**6 * 7**15,
    "fbnet": 9**22,
    "nasbench_macro": 3**8,
    "nasbench201": 5**6,
    "mnasnet": 3**6 * 4 * (2 * 3 * 2) ** 7,
    "attentive_nas": 4  # resolutions
    * 2  # stem
    * (2 * 2 * 2)  # widths x depths x kernels x expansions, stage by stage
    * (2 * 3 * 2 * 3)
    * (2 * 4 * 2 * 3)
    * (2 * 4 * 2 * 3)
    * (3 * 6 * 2 * 3)
    * (4 * 6 * 2)
    * (2 * 2 * 2)
    * 2,  # feature width
    "mobilenet_v2": 1,
}
