"""Recurrent cells of DARTS: genotypes, the cell of the paper in plain torch, steps in ONNX."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from hwnas.builders.onnx import network as build_onnx
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.devices.spec import load_device
from hwnas.exporters import onnx as onnx_exporter
from hwnas.exporters.opened import onnxruntime_model
from hwnas.measure.networks import network_models
from hwnas.nets.extract import extract
from hwnas.nets.recurrent_net import RecurrentNetwork
from hwnas.nets.subnet import build_subnet
from hwnas.nets.supernet import Supernet
from hwnas.reporting.cells import draw_cell
from hwnas.spaces.arch import Arch
from hwnas.spaces.cell_views import cell_views
from hwnas.spaces.load import build_space, read_arch
from hwnas.spaces.lowering import lower
from hwnas.spaces.space import SearchSpace

WORDS, WIDTH = 40, 32
SPACE = build_space("darts_ptb", {"width": WIDTH}, num_classes=WORDS)
NODES = [
    *(("sigmoid", 0), ("relu", 1), ("relu", 1), ("identity", 1)),
    *(("tanh", 2), ("sigmoid", 5), ("tanh", 3), ("relu", 5)),
]
ACTS = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "identity": lambda x: x}


def genotype(nodes: object = NODES, concat: object = "range(1, 9)") -> str:
    """An expression as in the released code; the default is DARTS_V2."""
    return f"Genotype(recurrent={nodes}, concat={concat})"


def replaced(place: int, node: object) -> str:
    return genotype([*NODES[:place], node, *NODES[place + 1 :]])


def tokens(n: int = 3, n_segments: int = 2, n_steps: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(WORDS, (n, n_segments, n_steps), generator=generator)


def strong(space: SearchSpace = SPACE) -> Supernet:
    """A supernet whose weights are large enough for all activations to matter."""
    supernet = Supernet(space, seed=0)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.mul_(4)
    return supernet


def some_archs(n: int) -> list[Arch]:
    archs = map(SPACE.arch, SPACE.sample(n, rng=rng(0, "recurrent")))
    return [SPACE.largest(), SPACE.smallest(), read_arch(SPACE, genotype()), *archs]


# --- genotypes ------------------------------------------------------------------------------------


def test_the_space_has_as_many_archs_as_its_formula_says():
    """Node i reads one of i values, and has one of 4 activations."""
    assert SPACE.size() == np.prod([4 * i for i in range(1, 9)])


def test_the_network_of_the_paper_has_its_parameters():
    """23 M with 850 units and the 10,000 words of Penn Treebank (1806.09055, table 2)."""
    space = build_space("darts_ptb", {"width": 850}, num_classes=10_000)
    arch = read_arch(space, genotype())
    by_hand = 10_000 * 851 + 2 * 850 * (1700 + 8 * 850)
    assert space.cost([arch], "params")[0] == by_hand == 22_960_000


@pytest.mark.parametrize(
    "text",
    [
        genotype(),
        genotype(concat=[*range(1, 9)]),
        f"genotypes.{genotype()}",
        f"Genotype(recurrent={NODES})",
        json.dumps({"recurrent": NODES}),
    ],
)
def test_every_form_of_a_genotype_is_read(text: str, tmp_path: Path):
    arch = read_arch(SPACE, text)
    view = SPACE.view(arch)
    assert [view[f"node{i}.act"] for i in range(1, 9)] == [act for act, _ in NODES]
    assert [view[f"node{i}.input"] for i in range(2, 9)] == [source for _, source in NODES[1:]]
    if text.startswith("{"):
        (path := tmp_path / "cell.json").write_text(text)
        assert read_arch(SPACE, path) == arch


def test_a_written_genotype_is_read_again():
    for arch in some_archs(30):
        assert read_arch(SPACE, SPACE.macro.text_of(arch.codes)) == arch


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (replaced(0, ("relu", 1)), "(?s)node 1 .*invalid input.*0 to 0"),
        (replaced(3, ("relu", 4)), "(?s)node 4 .*invalid input.*0 to 3"),
        (replaced(3, ("relu", True)), "invalid input"),
        (replaced(3, ("swish", 1)), "(?s)node 4 .*unknown activation.*tanh.*swish"),
        (replaced(3, ([], 1)), "unknown activation"),
        (genotype(NODES[:7]), "(?s)wrong number of nodes.*8.*7"),
        (genotype([*NODES, ("relu", 0)]), "wrong number of nodes"),
        (genotype(7), r"no list of \(activation, input\)"),
        (genotype([NODES[:2]] * 8), "unknown activation"),
        (genotype(concat=[1, 2]), "must be the mean of all nodes"),
        ("Genotype(normal=[], reduce=[])", "unknown part 'normal'"),
        ("Genotype(recurrent=open('x'))", "cannot read the genotype"),
        ("Genotype()", r"no list of \(activation, input\)"),
        ('{"recurrent"', "not JSON"),
    ],
)
def test_a_bad_genotype_is_refused(text: str, message: str):
    with pytest.raises(UserError, match=message):
        read_arch(SPACE, text)


# --- the cell of the paper ------------------------------------------------------------------------


def paper_logits(network: RecurrentNetwork, text: str, seen: Tensor) -> Tensor:
    """`DARTSCell` of the released code, retold, over tokens [B, n]: logits [B, n, words]."""
    nodes = eval(text, {"Genotype": dict})["recurrent"]
    words = network.classifier.weight
    state, found = torch.zeros(len(seen), WIDTH), []
    for token in seen.T:
        both = torch.cat([words[token], state], dim=-1) @ network.weights["join"].T
        gate, value = both.split(WIDTH, dim=-1)
        states = [state + gate.sigmoid() * (value.tanh() - state)]
        for i, (act, source) in enumerate(nodes, start=1):
            before = states[source]
            gate, value = (before @ network.weights[f"node{i}"].T).split(WIDTH, dim=-1)
            states.append(before + gate.sigmoid() * (ACTS[act](value) - before))
        state = torch.stack(states[1:]).mean(0)
        found.append(state @ words.T + network.classifier.bias)
    return torch.stack(found, 1)


def test_a_network_is_the_one_of_the_paper():
    """The state is carried through segments, and the logits are those of the last one."""
    x, supernet = tokens(), strong()
    for arch in some_archs(6):
        network = extract(supernet, arch)
        assert isinstance(network, RecurrentNetwork)
        expected = paper_logits(network, SPACE.macro.text_of(arch.codes), x.flatten(1))
        with torch.no_grad():
            found = network(x)
        assert found.shape == (3, WORDS, 9)
        torch.testing.assert_close(found.transpose(1, 2), expected[:, 9:], rtol=0, atol=1e-5)


def test_the_supernet_computes_what_extracted_networks_do():
    supernet, x = strong(), tokens()
    with torch.no_grad():
        for arch in some_archs(50):
            expected = supernet(x, arch)
            torch.testing.assert_close(extract(supernet, arch)(x), expected, rtol=0, atol=1e-5)


def test_gradients_flow_only_within_the_last_segment():
    """Truncated backpropagation: words that only earlier segments have get no gradient as input."""
    supernet, arch = strong(), SPACE.largest()
    x = tokens()
    x[:, 0], x[:, 1] = x[:, 0] % 20, x[:, 1] % 20 + 20
    words = supernet.elastic("classifier.linear").weight
    supernet(x, arch)[:, 20:].sum().backward()  # logits of words of the last segment
    assert words.grad is not None
    assert not words.grad[:20].any() and words.grad[20:].any(dim=1).all()
    plain = supernet(x[:, 1:], arch)
    assert not torch.allclose(plain, supernet(x, arch), atol=1e-3)  # but the state is carried


def test_dropout_is_the_same_at_all_tokens_of_a_text():
    """With a repeated token and a state that is always dropped, all outputs are equal."""
    network = build_subnet(SPACE, SPACE.largest(), seed=0)
    assert isinstance(network, RecurrentNetwork)
    x = torch.full((4, 1, 6), 7)
    network.dropout, network.rng = 0.5, torch.Generator().manual_seed(0)
    dropped = network.train()(x)
    assert torch.equal(dropped, type(network).forward(_seeded(network), x))
    assert not torch.allclose(dropped, network(x))  # other masks
    assert torch.equal(network.eval()(x), network(x))
    logits = dropped - network.classifier.bias[:, None]
    units = torch.linalg.lstsq(network.classifier.weight, logits[0]).solution  # of one text
    off = units.abs() < 1e-4
    assert off[:, :1].expand_as(off).equal(off) and 0 < off[:, 0].sum() < WIDTH
    supernet = strong()
    with pytest.raises(UserError, match=r"need a random generator[\s\S]*torch\.Generator"):
        supernet(x, SPACE.largest(), dropout=0.5)
    one = supernet(x, SPACE.largest(), torch.Generator().manual_seed(1), dropout=0.5)
    again = supernet(x, SPACE.largest(), torch.Generator().manual_seed(1), dropout=0.5)
    assert torch.equal(one, again) and not torch.equal(one, supernet(x, SPACE.largest()))


def _seeded(network: RecurrentNetwork) -> RecurrentNetwork:
    network.rng = torch.Generator().manual_seed(0)
    return network


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 3, 8, 8), "the input is not a batch of tokens"),
        (torch.zeros(2, 8, dtype=torch.int64), "the input is not a batch of tokens"),
        (torch.zeros(0, 1, 8, dtype=torch.int64), "the input is not a batch of tokens"),
        (torch.full((2, 1, 8), WORDS), f"(?s)vocabulary.*0 to {WORDS - 1}.*{WORDS}"),
        (torch.full((2, 1, 8), -1), "vocabulary"),
    ],
)
def test_other_batches_than_tokens_of_the_vocabulary_are_refused(x: Tensor, message: str):
    with pytest.raises(UserError, match=message):
        Supernet(SPACE, seed=0)(x, SPACE.largest())


# --- files ----------------------------------------------------------------------------------------


def test_steps_of_the_exported_network_compute_the_same(tmp_path: Path):
    """Over 50 steps whose state goes in and out; the timed graph has the same nodes."""
    arch = read_arch(SPACE, genotype())
    network = extract(strong(), arch).eval()
    x = tokens(n=4, n_steps=50, n_segments=1)
    exporter = onnx_exporter.build(onnx_exporter.Config())
    (path,) = exporter.export(network, input_shape=(1, 50), folder=tmp_path)
    with torch.no_grad():
        expected = network(x).numpy()
    found = onnxruntime_model(path).logits(x.numpy(), 2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    deployed, timed = onnx.load(path), build_onnx(lower(SPACE, arch), batch=None)
    kinds = [Counter(node.op_type for node in model.graph.node) for model in (deployed, timed)]
    assert kinds[0] == kinds[1]
    assert [value.name for value in (*timed.graph.input, *timed.graph.output)] == [
        value.name for value in (*deployed.graph.input, *deployed.graph.output)
    ]


def test_the_weights_of_words_are_stored_once(tmp_path: Path):
    network = extract(strong(), SPACE.largest()).eval()
    exporter = onnx_exporter.build(onnx_exporter.Config())
    (path,) = exporter.export(network, input_shape=(1, 5), folder=tmp_path)
    sizes = [int(np.prod(tensor.dims)) for tensor in onnx.load(path).graph.initializer]
    assert sizes.count(WORDS * WIDTH) == 1


@pytest.mark.parametrize("device", ["local_int8", "local_litert", "local_torch"])
def test_devices_that_cannot_run_recurrent_cells_are_refused(device: str):
    codes = SPACE.codes([SPACE.largest()])
    with pytest.raises(UserError, match="recurrent cells"):
        network_models(SPACE, codes, load_device(device), seed=0)


def test_a_cell_is_drawn_without_its_edges():
    (view,) = cell_views(SPACE, read_arch(SPACE, genotype()))
    assert view.sources[1:9] == tuple((source,) for _, source in NODES)
    assert view.sources[9] == tuple(range(1, 9)) and view.inputs[0] == "token, state"
    assert draw_cell(view).count("sigmoid") == 4  # two nodes, each in its title as well
