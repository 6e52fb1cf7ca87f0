"""DARTS: genotypes, the published network, and the network of the paper in plain torch."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hwnas
from hwnas.builders.onnx import network as build_onnx
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.nets.extract import extract
from hwnas.nets.subnet import build_subnet
from hwnas.nets.supernet import Supernet
from hwnas.predictors.open_records import open_records
from hwnas.reporting.cells import draw_cell
from hwnas.spaces.arch import Arch
from hwnas.spaces.cell_views import cell_views
from hwnas.spaces.cost import cost
from hwnas.spaces.graphs import is_connected
from hwnas.spaces.index import enumerate_ops, op_index
from hwnas.spaces.load import build_space, read_arch
from hwnas.spaces.lowering import lower
from tests.unit.test_spaces_network import onnx_peak

SPACE = build_space("darts", {"resolutions": [8], "width": 4, "n_cells": 4}, num_classes=10)
WHOLE = build_space("darts", num_classes=10)
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SEP3, SEP5, DIL3, DIL5 = "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"
MAX, AVG, SKIP = "max_pool_3x3", "avg_pool_3x3", "skip_connect"
CONCAT = (2, 3, 4, 5)
NORMAL = [(SEP3, 0), (SEP3, 1), (SEP3, 0), (SEP3, 1), (SEP3, 1), (SKIP, 0), (SKIP, 0), (DIL3, 2)]
REDUCE = [(MAX, 0), (MAX, 1), (SKIP, 2), (MAX, 1), (MAX, 0), (SKIP, 2), (SKIP, 2), (MAX, 1)]


def genotype(
    normal: object = NORMAL, reduce: object = REDUCE, concat: object = (2, 3, 4, 5)
) -> str:
    """An expression as in the released code; the default is DARTS_V2."""
    parts = f"normal={normal}, normal_concat={concat}, reduce={reduce}, reduce_concat={concat}"
    return f"Genotype({parts})"


def replaced(place: int, pair: object) -> str:
    """DARTS_V2 with another edge in the normal cell."""
    return genotype([*NORMAL[:place], pair, *NORMAL[place + 1 :]])


# --- genotypes ------------------------------------------------------------------------------------


def test_the_published_network_has_the_published_parameters():
    """DARTS_V2 with 36 channels and 20 cells, without its auxiliary head (1806.09055, table 1)."""
    space = build_space("darts", {"width": 36, "n_cells": 20}, num_classes=10)
    assert cost(space, space.codes([read_arch(space, genotype())]), "params")[0] == 3_349_342


def test_the_space_has_as_many_archs_as_its_formula_says():
    """C(k, 2) pairs of inputs and 7^2 operators per node, of k = 2 to 5 earlier values."""
    assert WHOLE.size() == (1 * 3 * 6 * 10 * 49**4) ** 2


@pytest.mark.parametrize(
    "text",
    [
        genotype(),
        genotype(concat="range(2, 6)"),
        f"genotypes.{genotype()}",
        genotype([NORMAL[1], NORMAL[0], *NORMAL[2:]]),
        json.dumps({"normal": NORMAL, "reduce": REDUCE}),
        json.dumps({"normal": [NORMAL[i : i + 2] for i in (0, 2, 4, 6)], "reduce": REDUCE}),
    ],
)
def test_every_form_of_a_genotype_is_read(text: str, tmp_path: Path):
    arch = read_arch(SPACE, text)
    assert SPACE.view(arch) == {
        "resolution": 8,
        **{f"normal.edge{e}": SEP3 for e in ("02", "12", "03", "13", "14")},
        **{"normal.edge04": SKIP, "normal.edge05": SKIP, "normal.edge25": DIL3},
        **{"normal.node3": "0+1", "normal.node4": "0+1", "normal.node5": "0+2"},
        **{f"reduce.edge{e}": MAX for e in ("02", "12", "13", "04", "15")},
        **{f"reduce.edge{e}": SKIP for e in ("23", "24", "25")},
        **{"reduce.node3": "1+2", "reduce.node4": "0+2", "reduce.node5": "1+2"},
    }
    if text.startswith("{"):
        (path := tmp_path / "cell.json").write_text(text)
        assert read_arch(SPACE, path) == arch


def test_a_written_genotype_is_read_again():
    for row in SPACE.sample(50, seed=0):
        arch = SPACE.arch(row)
        assert read_arch(SPACE, SPACE.macro.text_of(arch.codes)) == arch


def test_recorded_genotypes_are_read(test_data: Path):
    """107 random cells of antoyang/NAS-Benchmark, each trained for 600 epochs."""
    records = open_records(test_data / "darts_random214" / "records.json").records()
    assert len(records) == 107 and records.space == WHOLE
    assert (records.scores.min(), records.scores.max()) == (0.9654, 0.9745)
    assert is_connected(WHOLE, records.codes).all()


def test_notations_of_other_spaces_are_written_and_read_again():
    for name in ("nats_topology", "nats_size", "nasbench101"):
        space = build_space(name, num_classes=10)
        for row in space.sample(20, seed=0):
            arch = space.arch(row)
            assert Arch(space.id, space.macro.codes_of(space.macro.text_of(arch.codes))) == arch
    assert build_space("mobilenet_tiny", num_classes=10).macro.text_of((0,)) == ""


def test_a_notation_is_part_of_what_is_shown():
    shown = hwnas.space_validate(SPACE, genotype())
    assert read_arch(SPACE, shown.facts["notation"]).to_json() == shown.facts["arch"]
    row = hwnas.space_sample(SPACE, n=1, seed=3)[0]
    codes = [int(code) for code in row["codes"].split(",")]
    assert read_arch(SPACE, row["notation"]) == SPACE.arch(codes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (replaced(5, (SKIP, 1)), r"node 4 of the normal cell reads input 1 twice"),
        (genotype(reduce=[*REDUCE[:3], REDUCE[2], *REDUCE[4:]]), "node 3 of the reduce.*2 twice"),
        (replaced(0, ("nor_conv_3x3", 0)), "(?s)operator that is not in the space.*nor_conv_3x3"),
        (replaced(0, ("none", 0)), "(?s)operator that is not in the space.*none"),
        (replaced(0, (["x"], 0)), "operator that is not in the space"),
        (replaced(0, (SEP3, 2)), "(?s)node 2 .*invalid input.*0 to 1"),
        (replaced(0, (SEP3, -1)), "invalid input"),
        (replaced(0, (SEP3, True)), "invalid input"),
        (replaced(0, (SEP3, "0")), "invalid input"),
        (genotype(NORMAL[:7]), "(?s)normal cell has a wrong number of edges.*8.*7"),
        (genotype([*NORMAL, (SEP3, 0)]), "(?s)wrong number of edges.*9"),
        (genotype([NORMAL[:3], NORMAL[3:5], NORMAL[5:7], NORMAL[7:]]), "node 2 .* wrong number"),
        (genotype([NORMAL[:2]] * 3), "wrong number of edges"),
        (genotype([]), "not a list of edges"),
        (genotype(7), "not a list of edges"),
        (genotype([SEP3] * 8), "not a list of edges"),
        (genotype(concat=(4, 5)), "must concatenate all nodes"),
        (genotype(concat="range(999999999)"), "must concatenate all nodes"),
        (genotype(concat="range(1, 2, 0)"), "cannot read the genotype"),
        (f"Genotype(normal={NORMAL})", "no reduce cell"),
        (f"Genotype(normal={NORMAL}, cells=3)", "unknown part 'cells'"),
        (f"Genotype({NORMAL}, {REDUCE})", "cannot read the genotype"),
        ("Genotype(normal=open('x'))", "cannot read the genotype"),
        ("Genotype(normal=", "cannot read the genotype"),
        ("Genotype" + "(" * 5000, "cannot read the genotype"),
        ("Genotype", "cannot read the genotype"),
        ('{"normal"', "not JSON"),
        ("|skip_connect~0|+|none~0|none~1|+|none~0|none~1|none~2|", "cannot read the arch"),
        ('{"matrix": [[0, 1], [0, 0]], "ops": ["input", "output"]}', "unknown part 'matrix'"),
    ],
)
def test_a_bad_genotype_is_refused(text: str, message: str):
    with pytest.raises(UserError, match=message):
        read_arch(SPACE, text)


# --- the network of the paper ---------------------------------------------------------------------


def relu_conv_bn(before: int, width: int) -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width))


class Factorized(nn.Module):
    """FactorizedReduce of the released code, with one BN, retold."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, width // 2, 1, 2, bias=False)
        self.second = nn.Conv2d(before, width // 2, 1, 2, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        return self.bn(torch.cat([self.first(x), self.second(x[:, :, 1:, 1:])], 1))


def separable(width: int, kernel: int, stride: int, dilation: int) -> list[nn.Module]:
    padding, kept = dilation * (kernel // 2), {"bias": False}
    depthwise = nn.Conv2d(width, width, kernel, stride, padding, dilation, width, **kept)
    return [nn.ReLU(), depthwise, nn.Conv2d(width, width, 1, **kept), nn.BatchNorm2d(width)]


def edge(name: str, width: int, stride: int) -> nn.Module:
    """OPS of the released code, retold."""
    if name == SKIP:
        return nn.Identity() if stride == 1 else Factorized(width, width)
    if name == MAX:
        return nn.MaxPool2d(3, stride, 1)
    if name == AVG:
        return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    kernel = int(name[-1])
    if name.startswith("dil"):
        return nn.Sequential(*separable(width, kernel, stride, 2))
    first, second = separable(width, kernel, stride, 1), separable(width, kernel, 1, 1)
    return nn.Sequential(*first, *second)


class PaperCell(nn.Module):
    def __init__(
        self, pairs: list, before: list[int], width: int, steps: tuple[bool, bool]
    ) -> None:
        super().__init__()
        halves, follows = steps  # whether this cell, and the one before, is a reduction cell
        first = Factorized if follows else relu_conv_bn
        self.pre = nn.ModuleList([first(before[0], width), relu_conv_bn(before[1], width)])
        self.pairs = [sorted(pairs[i : i + 2], key=lambda pair: pair[1]) for i in (0, 2, 4, 6)]
        self.edges = nn.ModuleList(
            edge(name, width, 2 if halves and source < 2 else 1)
            for node in self.pairs
            for name, source in node
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        values, edges = [self.pre[0](first), self.pre[1](second)], iter(self.edges)
        for node in self.pairs:
            values.append(sum(next(edges)(values[source]) for _, source in node))
        return torch.cat(values[2:], 1)


class Paper(nn.Module):
    def __init__(self, cells: dict[str, list], width: int, n_cells: int) -> None:
        super().__init__()
        stem = 3 * width
        conv = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.stem = nn.Sequential(conv, nn.BatchNorm2d(stem))
        before, follows, self.cells = [stem, stem], False, nn.ModuleList()
        for c in range(n_cells):
            halves = c in (n_cells // 3, 2 * n_cells // 3)
            width *= 1 + halves
            pairs = cells["reduce" if halves else "normal"]
            self.cells.append(PaperCell(pairs, before, width, (halves, follows)))
            before, follows = [before[1], 4 * width], halves
        self.classifier = nn.Linear(before[1], 10)

    def forward(self, x: Tensor) -> Tensor:
        first = second = self.stem(x)
        for cell in self.cells:
            first, second = second, cell(first, second)
        return self.classifier(second.mean((2, 3)))


def paper(arch: Arch) -> Paper:
    text = SPACE.macro.text_of(arch.codes)
    cells = eval(text, {"Genotype": dict})
    return Paper(cells, SPACE.macro.width, SPACE.macro.n_cells)


def test_a_network_is_the_one_of_the_paper():
    """Layers in one order; one BN of a factorised reduction is two of ours."""
    archs = [SPACE.largest(), SPACE.smallest(), read_arch(SPACE, genotype())]
    for arch in [*archs, *(SPACE.arch(row) for row in SPACE.sample(6, seed=1))]:
        net, expected = build_subnet(SPACE, arch, seed=2).train(), paper(arch)
        ours = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        theirs = [m for m in expected.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert sum(p.numel() for p in expected.parameters()) == SPACE.cost([arch], "params")[0]
        with torch.no_grad():
            for source, target in zip(ours, theirs, strict=True):
                target.weight.copy_(source.weight)
            expected.classifier.bias.zero_()
            torch.testing.assert_close(net(IMAGES), expected(IMAGES), rtol=0, atol=2e-5)


def test_drop_path_drops_edges_but_no_identities():
    """An image whose edges are all dropped has the logits of an image of any content."""
    arch = SPACE.largest()
    network = lower(SPACE, arch)
    kinds = {network.ops[i].kind for i in network.branches}
    assert kinds == {"sep_conv"}
    skips = lower(SPACE, SPACE.smallest())
    assert {skips.ops[i].kind for i in skips.branches} == {"factorized"}
    supernet, generator = Supernet(SPACE, seed=0), torch.Generator().manual_seed(0)
    plain = supernet(IMAGES, arch)
    dropped = supernet(IMAGES, arch, generator, drop_path=0.3)
    assert not torch.equal(plain, dropped)
    again = supernet(IMAGES, arch, torch.Generator().manual_seed(0), drop_path=0.3)
    assert torch.equal(dropped, again)


# --- weights and files ----------------------------------------------------------------------------


def test_the_supernet_computes_what_extracted_networks_do():
    """In training mode, on random archs of a small space; 50 of the whole space below."""
    supernet = Supernet(SPACE, seed=0)
    with torch.no_grad():
        for row in SPACE.sample(10, rng=rng(0, "darts")):
            arch = SPACE.arch(row)
            expected = supernet(IMAGES, arch)
            torch.testing.assert_close(extract(supernet, arch)(IMAGES), expected, rtol=0, atol=1e-5)


@pytest.mark.full
def test_the_supernet_of_the_paper_computes_what_extracted_networks_do():
    """8 cells of 16 channels at 32 px, on 50 random archs, in double precision."""
    supernet = Supernet(WHOLE, seed=0).double()
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for row in WHOLE.sample(50, rng=rng(0, "darts")):
            arch = WHOLE.arch(row)
            expected = supernet(x, arch)
            torch.testing.assert_close(extract(supernet, arch)(x), expected, rtol=0, atol=1e-5)


def test_every_edge_of_every_cell_has_weights_for_each_operator():
    supernet = Supernet(SPACE, seed=0)
    for cell in range(4):
        for name in ("edge02", "edge35", "edge45"):
            path = f"cell{cell}.{name}"
            kernels = [supernet.elastic(f"{path}.{op}.dw1").weight for op in (DIL3, DIL5, SEP3)]
            assert [kernel.shape[-1] for kernel in kernels] == [3, 5, 3]
            assert supernet.elastic(f"{path}.{SEP5}.pw2").weight.shape[0] == 4 << (cell > 0) + (
                cell > 1
            )


def test_slots_depend_on_choices_that_the_largest_arch_does_not_use():
    """The largest arch reads no input of its cell in later nodes; other archs do."""
    ops = enumerate_ops(SPACE)
    codes = SPACE.sample(200, seed=4)
    for row, index in zip(codes, op_index(SPACE, codes), strict=True):
        assert tuple(ops[i] for i in index if i >= 0) == lower(SPACE, SPACE.arch(row)).ops


def test_peak_memory_is_that_of_the_graph_that_is_timed():
    codes = SPACE.sample(30, rng=rng(0, "memory"))
    found = cost(SPACE, codes, "peak_memory_bytes") // 4
    nets = [lower(SPACE, SPACE.arch(row)) for row in codes]
    assert [onnx_peak(build_onnx(net)) for net in nets] == found.tolist()
    assert len(np.unique(found)) > 1


# --- drawings -------------------------------------------------------------------------------------


def test_both_cells_are_drawn():
    arch = read_arch(SPACE, genotype())
    normal, reduce = cell_views(SPACE, arch)
    assert (normal.kind, reduce.kind) == ("normal", "reduce")
    drawings = [ElementTree.fromstring(draw_cell(cell)) for cell in (normal, reduce)]
    texts = [[t.text for t in svg.iter("text")] for svg in drawings]
    assert all(words[:3:2] == ["cell k-2", "cell k-1"] for words in texts)
    counts = [{word: words.count(word) for word in words} for words in texts]
    assert counts[0]["sep_conv 3x3"] == 5 and counts[0]["skip_connect"] == 2
    assert counts[0]["dil_conv 3x3"] == 1 and counts[0]["concat"] == 1
    assert counts[1]["max_pool 3x3"] == 5 and counts[1]["skip_connect"] == 3
    for svg in drawings:  # four nodes, at different places
        dots = {(dot.get("cx"), dot.get("cy")) for dot in svg.iter("circle")}
        assert len(dots) == 4
    chain = build_space("mobilenet_tiny", num_classes=10)
    assert cell_views(chain, chain.largest()) == ()
