"""Networks that are graphs: supernet, extraction, static network and file of NATS-Bench's cells."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from hwnas.builders.onnx import network as build_onnx
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.exporters import onnx as onnx_format
from hwnas.exporters import timm as code_format
from hwnas.interfaces import SamplerContext
from hwnas.nets.bn import recalibrate
from hwnas.nets.extract import extract
from hwnas.nets.features import features_only
from hwnas.nets.subnet import build_from_definition, build_subnet, definition_of, input_shape_of
from hwnas.nets.supernet import Supernet
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import op_params
from hwnas.spaces.graphs import is_connected, smallest_connected
from hwnas.spaces.load import build_space, read_arch
from hwnas.spaces.lowering import lower
from hwnas.training.curves import curve_archs
from hwnas.training.samplers import fair, sandwich, uniform
from tests.unit.test_spaces_reference import nasbench201_net

CELLS = build_space(
    "nats_topology", {"resolutions": [8], "width": 4, "cells_per_stage": 2}, num_classes=10
)
NO_PATH = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|none~2|"
DIAMOND = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|nor_conv_1x1~1|avg_pool_3x3~2|"
IMAGES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    return Supernet(CELLS, seed=0)


def drawn(n: int) -> list[Arch]:
    return [CELLS.arch(row) for row in CELLS.sample(n, rng=rng(0, "cells"))]


# --- the space ------------------------------------------------------------------------------------


def test_both_names_build_one_space():
    first, second = (build_space(name, num_classes=10) for name in ("nasbench201", "nats_topology"))
    assert first == second and first.id == "nasbench201-f5a89150"


def test_a_cell_is_read_in_the_notation_of_the_benchmark():
    arch = read_arch(CELLS, DIAMOND)
    assert CELLS.view(arch) == {
        "resolution": 8,
        "edge01": "nor_conv_3x3",
        "edge02": "skip_connect",
        "edge12": "none",
        "edge03": "none",
        "edge13": "nor_conv_1x1",
        "edge23": "avg_pool_3x3",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("|skip_connect~0|+|none~0|none~1|", "not a cell of this space"),  # three nodes
        ("|skip_connect~0|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", "not a cell"),
        ("|skip_connect~0|+|none~1|none~0|+|none~0|none~1|none~2|", "not a cell"),
        ("|skip_connect~0|", "not a cell"),
        ("||", "not a cell"),
        (
            DIAMOND.replace("avg_pool_3x3", "sep_conv_3x3"),
            "edge23 of the cell has an operator that is not in the space",
        ),
        (NO_PATH, "no path from its input to its output"),
        ("0,4,4,0,0,0,0", "no path from its input to its output"),
    ],
)
def test_a_cell_of_another_space_or_without_a_path_is_refused(text: str, message: str):
    with pytest.raises(UserError, match=message):
        read_arch(CELLS, text)


@pytest.mark.parametrize("name", ["mobilenet_tiny", "nasbench_macro"])
def test_a_cell_is_no_arch_of_a_chain(name: str):
    with pytest.raises(UserError, match=f"cannot read the arch[\\s\\S]*where: an arch of {name}"):
        read_arch(build_space(name, num_classes=10), DIAMOND)


def test_records_of_the_benchmark_are_met_exactly(test_data: Path):
    """Parameters and FLOPs of 9,445 cells on CIFAR-10 (NAS-Bench-Suite-Zero).

    The recorded FLOPs also count BN, ReLU (0.43008 M per convolution), pooling (1.29024 M) and the
    fixed part (0.16083 M).
    """
    with np.load(test_data / "nasbench201_zero_cost" / "proxies.npz") as stored:
        index, proxies = stored["index"], stored["proxies"]
        recorded = {str(name): proxies[:, i] for i, name in enumerate(stored["columns"])}
    with np.load(test_data / "latency_nasbench201" / "latency.npz") as stored:
        texts = stored["arch"][index]
    space = build_space("nats_topology", num_classes=10)
    codes = np.array([space.macro.codes_of(str(text)) for text in texts], dtype=np.int16)
    assert len(codes) == 9445 and (~is_connected(space, codes)).sum() == 1  # all edges are none
    names = np.array(space.choices[1].values)
    n_convs = np.isin(codes[:, 1:], np.flatnonzero(np.char.startswith(names, "nor_conv"))).sum(1)
    n_pools = (codes[:, 1:] == list(names).index("avg_pool_3x3")).sum(1)
    params = space.cost(codes, "params") / 1e6
    np.testing.assert_allclose(recorded["params"], params, rtol=1e-6)
    flops = space.cost(codes, "macs") / 1e6 + 0.16083 + 0.43008 * n_convs + 1.29024 * n_pools
    np.testing.assert_allclose(recorded["flops"], flops, rtol=1e-6)


# --- weights --------------------------------------------------------------------------------------


def test_the_supernet_computes_what_extracted_networks_do(supernet: Supernet):
    """In training mode, on 50 random archs."""
    with torch.no_grad():
        for arch in drawn(50):
            expected = supernet(IMAGES, arch)
            found = extract(supernet, arch)(IMAGES)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_every_edge_of_every_cell_has_weights_for_each_operator(supernet: Supernet):
    edges = [f"stage{s}.cell{c}.edge{e}" for s in range(3) for c in range(2) for e in ("01", "23")]
    for edge in edges:
        kernels = [(op, supernet.elastic(f"{edge}.{op}.conv")) for op in CELLS.macro.ops[3:]]
        assert [w.weight.shape[-1] for _, w in kernels] == [1, 3]
    shared = Supernet(CELLS, seed=0, share_ops=True)
    assert sum(p.numel() for p in shared.parameters()) < sum(
        p.numel() for p in supernet.parameters()
    )


def test_a_network_is_the_one_of_the_paper(supernet: Supernet):
    """The reference in torch with the same weights; cells without dead operators."""
    space = build_space("nats_topology", {"resolutions": [8]}, num_classes=10)
    checked = 0
    for row in space.sample(12, rng=rng(1, "cells")):
        arch = space.arch(row)
        net = build_subnet(space, arch, seed=1).eval()
        if sum(p.numel() for p in net.parameters()) != space.cost([arch], "params")[0]:
            continue
        view = space.view(arch)
        edges = {(i, j): str(view[f"edge{i}{j}"]) for i, j in space.macro.edges}
        reference = nasbench201_net(edges).eval()
        ours = [p for m in net.modules() for p in own_tensors(m)]
        theirs = [p for m in reference.modules() for p in own_tensors(m)]
        with torch.no_grad():
            for source, target in zip(ours, theirs, strict=True):
                target.copy_(source)
            torch.testing.assert_close(net(IMAGES), reference(IMAGES), rtol=0, atol=1e-4)
        checked += 1
    assert checked > 2


def own_tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(recurse=False)]


def test_operators_on_no_path_have_no_module_and_change_nothing(supernet: Supernet):
    arch = read_arch(CELLS, DIAMOND.replace("skip_connect~0", "nor_conv_3x3~0", 1))
    dead = read_arch(CELLS, "|nor_conv_1x1~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|")
    lean = read_arch(CELLS, "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|")
    assert "stage0.cell0.edge13" in dict(extract(supernet, arch).named_modules())
    names = dict(extract(supernet, dead).named_parameters())
    assert names.keys() == dict(extract(supernet, lean).named_parameters()).keys()
    with torch.no_grad():
        torch.testing.assert_close(supernet(IMAGES, dead), supernet(IMAGES, lean))
    steps = lower(CELLS, dead).program
    assert sum(p.numel() for p in names.values()) == sum(op_params(s.op) for s in steps if s.op)


def test_logits_without_a_path_do_not_depend_on_the_image(supernet: Supernet):
    codes = CELLS.macro.codes_of(NO_PATH)
    for arch in (CELLS.arch(codes), CELLS.smallest()):
        assert not is_connected(CELLS, CELLS.codes([arch]))[0]
        logits = supernet(IMAGES, arch)
        logits.sum().backward()
        net = recalibrate(extract(supernet, arch), [IMAGES])
        assert np.ptp(logits.detach().numpy(), axis=0).max() < 1e-6
        assert torch.equal(net(IMAGES), net(-IMAGES))
        assert np.isfinite(net(IMAGES).detach().numpy()).all()


def test_gradients_of_a_step_reach_only_the_live_operators(supernet: Supernet):
    supernet.zero_grad(set_to_none=True)
    supernet(IMAGES, read_arch(CELLS, DIAMOND)).sum().backward()
    names = {name for name, p in supernet.named_parameters() if p.grad is not None}
    inner = {".".join(n.split(".")[2:4]) for n in names if n.startswith("stage1.cell1")}
    assert inner == {"edge01.nor_conv_3x3", "edge13.nor_conv_1x1"}
    supernet.zero_grad(set_to_none=True)


# --- training -------------------------------------------------------------------------------------


def test_the_smallest_arch_of_the_sandwich_rule_has_a_path():
    assert smallest_connected(CELLS) == read_arch(
        CELLS, "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    )
    built = sandwich.build(sandwich.Config(), SamplerContext(CELLS, 0, 10))
    (largest,), (smallest,), *_ = (slot.candidates for slot in built.slots(3))
    assert (largest, smallest) == (CELLS.largest(), smallest_connected(CELLS))
    assert curve_archs(CELLS)["smallest"] == smallest
    without = CELLS.restrict({"edge03": ("none",)})
    assert [
        c
        for c, choice in zip(smallest_connected(without).codes, CELLS.choices, strict=True)
        if choice.role == "op" and c
    ] == [1, 1]
    chain = build_space("mobilenet_tiny", num_classes=10)
    assert smallest_connected(chain) == chain.smallest()
    assert is_connected(chain, chain.sample(5, seed=0)).all()


def test_random_archs_of_training_have_a_path():
    built = uniform.build(uniform.Config(), SamplerContext(CELLS, 0, 10))
    archs = [arch for step in range(150) for slot in built.slots(step) for arch in slot.candidates]
    assert is_connected(CELLS, CELLS.codes(archs)).all()
    assert not is_connected(CELLS, CELLS.sample(150, seed=0)).all(), "the test needs some without"


def test_fair_sampling_trains_every_operator_of_every_edge_once():
    slots = fair.build(fair.Config(), SamplerContext(CELLS, 0, 10)).slots(2)
    codes = CELLS.codes([arch for slot in slots for arch in slot.candidates])
    assert (np.sort(codes[:, 1:], axis=0) == np.arange(5)[:, None]).all()


# --- files ----------------------------------------------------------------------------------------


def kinds(model: onnx.ModelProto) -> list[str]:
    """Operators of a graph in order; of equal ones only the first, as in an optimised file."""
    names: dict[str, str] = {}
    first: dict[str, str] = {}
    found = []
    for node in model.graph.node:
        inputs = [names.get(name, name) for name in node.input]
        key = f"{node.op_type} {inputs} {sorted(map(str, node.attribute))}"
        names[node.output[0]] = first.setdefault(key, node.output[0])
        if first[key] == node.output[0]:
            found.append(node.op_type)
    return found


def test_the_file_has_the_nodes_of_the_timed_graph(tmp_path: Path):
    """Apart from activations and sums that several edges share; runtimes compute them once."""
    small = {"resolutions": [8], "width": 4, "cells_per_stage": 1}
    space = build_space("nats_topology", small, num_classes=10)
    for arch in (read_arch(space, DIAMOND), read_arch(space, "0,4,2,2,2,2,4")):
        model = recalibrate(build_subnet(space, arch), [IMAGES])
        (path, *_) = onnx_format.build(onnx_format.Config()).export(
            model, input_shape=(3, 8, 8), folder=tmp_path
        )
        assert kinds(onnx.load(path)) == kinds(build_onnx(lower(space, arch), batch=None))


def test_the_exported_code_builds_the_network_without_hwnas(tmp_path: Path):
    from safetensors.torch import load_file

    arch = read_arch(CELLS, DIAMOND)
    model = recalibrate(build_subnet(CELLS, arch, seed=3), [IMAGES])
    assert input_shape_of(model) == (3, 8, 8)
    code_format.build(code_format.Config()).export(model, input_shape=(3, 8, 8), folder=tmp_path)
    assert "import hwnas" not in (tmp_path / "model.py").read_text()
    assert "from hwnas" not in (tmp_path / "model.py").read_text()
    rebuilt = runpy.run_path(str(tmp_path / "model.py"))["create_model"]().eval()
    rebuilt.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(IMAGES), model(IMAGES), rtol=0, atol=1e-6)
    definition = json.loads(json.dumps(definition_of(model)))
    again = build_from_definition(definition, seed=None)
    assert again.state_dict().keys() == model.state_dict().keys()
    first, same, other = (build_subnet(CELLS, arch, seed=seed) for seed in (3, 3, 4))
    weights = [net.get_parameter("stem.conv.weight") for net in (first, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_feature_maps_of_cells_are_refused():
    with pytest.raises(UserError, match="cannot take feature maps"):
        features_only(build_subnet(CELLS, CELLS.largest()))
