"""ExecuTorch: which operators XNNPACK runs, files that are none, and layers in 8 bits."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import hwnas
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.exporters import executorch, pt2e
from hwnas.exporters.mixed import MACS_PER_WEIGHT
from hwnas.exporters.pte import Delegation, executorch_model


def test_the_share_of_operators() -> None:
    assert Delegation(3, ("aten::mean",)).share == 0.75
    assert Delegation(0, ()).share == 0
    assert Delegation(7, ()).share == 1


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("executorch", reason="pip install 'hwnas[executorch]'")
    from hwnas.exporters.pte import delegation

    for content in (b"", b"no program", b"\xff" * 64):
        with pytest.raises(UserError, match=r"not a \.pte file"):
            delegation(content)
        (tmp_path / "m.pte").write_bytes(content)
        with pytest.raises(UserError, match=r"not a \.pte file"):
            executorch_model(tmp_path / "m.pte")


# --- 8 bits, with imitations of executorch and torchao ------------------------------------------


@dataclass(frozen=True)
class Activation:
    observer_or_fake_quant_ctr: Any = None


@dataclass(frozen=True)
class Rule:
    input_activation: Activation = Activation()
    output_activation: Activation = Activation()
    weight: Activation = Activation()


class Quantizer:
    def set_global(self, rule: Rule) -> Quantizer:
        self.rule = rule
        return self

    def set_filter_function(self, admits: Any) -> None:
        self.admits = admits


class Watched(torch.nn.Module):
    """Notes the sizes of batches."""

    def __init__(self, module: torch.nn.Module, quantizer: Quantizer) -> None:
        super().__init__()
        self.module, self.quantizer, self.sizes = module, quantizer, list[int]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        return self.module(x)


class Eight(torch.nn.Module):
    """All classes are wrong if the linear layer is in 8 bits."""

    graph = torch.fx.Graph()

    def __init__(self, watched: Watched) -> None:
        super().__init__()
        self.module = watched.module
        self.is_wrong = watched.quantizer.admits(SimpleNamespace(name="linear"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -self.module(x) if self.is_wrong else self.module(x)

    def recompile(self) -> None:
        """As of modules of torch.fx."""


def test_a_layer_that_costs_agreement_stays_in_float(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges come from one image at a time, as the program runs."""
    made: list[Watched] = []
    lowered: list[torch.export.ExportedProgram] = []

    def convert(watched: Watched) -> Eight:
        made.append(watched)
        return Eight(watched)

    def lower(program: torch.export.ExportedProgram, **_: Any) -> Any:
        lowered.append(program)
        return SimpleNamespace(to_executorch=lambda: SimpleNamespace(buffer=b"program"))

    names = {
        "executorch.backends.xnnpack.quantizer.xnnpack_quantizer": {
            "XNNPACKQuantizer": Quantizer,
            "get_symmetric_quantization_config": lambda *, is_per_channel: Rule(),
        },
        "executorch.backends.xnnpack.partition.xnnpack_partitioner": {"XnnpackPartitioner": object},
        "executorch.exir": {
            "EdgeCompileConfig": lambda **_: None,
            "to_edge_transform_and_lower": lower,
        },
        "torchao.quantization.pt2e": {
            "MinMaxObserver": torch.nn.Identity,
            "PerChannelMinMaxObserver": torch.nn.ReLU,
        },
        "torchao.quantization.pt2e.quantizer": {"QuantizationAnnotation": object},
        "torchao.quantization.pt2e.quantize_pt2e": {
            "prepare_pt2e": Watched,
            "convert_pt2e": convert,
        },
    }
    for name, values in names.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**values))
    monkeypatch.setattr(executorch, "delegation", lambda content: Delegation(2, ()))

    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(16, 5)
    images = rng(0, "images").standard_normal((6, 3, 4, 4)).astype(np.float32)
    (file,) = executorch.build(executorch.Config(precision="int8", weights="nearest")).export(
        torch.nn.Sequential(*layers), input_shape=(3, 4, 4), folder=tmp_path, images=images
    )
    assert (file.name, file.read_bytes()) == ("model.int8.pte", b"program")
    *tried, last = made
    assert [one.sizes for one in tried] == [[6]] * 4  # all, each layer, all but the linear one
    assert last.sizes == [1] * 6
    assert last.quantizer.rule == Rule(
        *map(Activation, (torch.nn.Identity,) * 2 + (torch.nn.ReLU,))
    )
    assert {n: last.quantizer.admits(SimpleNamespace(name=n)) for n in ("conv2d", "linear")} == {
        "conv2d": True,
        "linear": False,
    }
    x = torch.from_numpy(images[:1])
    with torch.no_grad():
        expected = torch.nn.Sequential(*layers)(x)
    torch.testing.assert_close(lowered[0].module()(x), expected)


# --- ReLU6 in 8 bits --------------------------------------------------------------------------


class Branches(torch.nn.Module):
    """Convolutions before ReLU6, before ReLU6 and a sum, and before ReLU."""

    def __init__(self, act: torch.nn.Module) -> None:
        super().__init__()
        self.a, self.b, self.c = (torch.nn.Conv2d(3, 3, 1) for _ in range(3))
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(self.act(self.a(x)))
        return torch.relu(self.c(self.act(y) + y))


class OfFunction(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.relu6(x)


@pytest.mark.parametrize(
    ("act", "operator"), [(torch.nn.ReLU6(), "hardtanh"), (OfFunction(), "relu6")]
)
def test_only_relu6_right_after_a_layer_becomes_relu(act: torch.nn.Module, operator: str) -> None:
    net = Branches(act)
    module = torch.export.export(net, (torch.zeros(1, 3, 4, 4),)).module()
    layers = [node for node in module.graph.nodes if str(node.target) in pt2e.LAYERS]
    first, *others = (pt2e._clipped(layer) for layer in layers)
    assert others == ["", ""]
    targets = {node.name: str(node.target) for node in module.graph.nodes}
    assert targets[first] == "aten.relu.default"
    assert list(targets.values()).count(f"aten.{operator}.default") == 1
    around = [list(pt2e._names_around(layer)) for layer in layers]
    assert [layer.name in names for layer, names in zip(layers, around, strict=True)] == [True] * 3
    assert [len(names) for names in around] == [4, 3, 4]  # weight, bias, and ReLU
    x = torch.linspace(-20, 20, 48).reshape(1, 3, 4, 4)
    y = net.b(torch.relu(net.a(x)))
    module.recompile()
    assert torch.equal(module(x), torch.relu(net.c(act(y) + y)))


def relu6_network(gain: float) -> torch.nn.Sequential:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU6(), torch.nn.Conv2d(8, 8, 1)]
    net = torch.nn.Sequential(*layers, torch.nn.ReLU6(), torch.nn.Flatten(), torch.nn.Linear(32, 4))
    for layer in (net[0], net[2]):
        layer.weight.data *= gain
    return net.eval()


@pytest.mark.parametrize("gain", [0.3, 30.0])
@pytest.mark.parametrize("but", [[], ["conv2d_1"]])
def test_relu6_is_rounded_in_its_own_range(
    gain: float, but: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Convolutions reach far beyond 6, or remain below it; the second one is in float or not."""
    pytest.importorskip("executorch", reason="pip install 'hwnas[executorch]'")
    net, x = relu6_network(gain), rng(0, "x").standard_normal((64, 3, 4, 4)).astype(np.float32)
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(net, (torch.zeros(2, 3, 4, 4),), dynamic_shapes=(batch,))
    with torch.no_grad():
        found, expected = pt2e.quantized(program, x, {}, but=but), net(torch.from_numpy(x))
        inner = net[:2](torch.from_numpy(x))
        assert (inner.max() > 5.9) == (gain > 1)
        error = (found(torch.from_numpy(x)) - expected).square().mean() / expected.var()
        monkeypatch.setattr(pt2e, "_clipped", lambda layer: "")
        other = pt2e.quantized(program, x, {}, but=but)(torch.from_numpy(x))
        worse = (other - expected).square().mean() / expected.var()
        monkeypatch.undo()
    assert 0 < error < 0.02 and (gain < 1 or error < 0.9 * worse)
    targets = [str(node.target) for node in found.graph.nodes]
    assert targets.count("aten.hardtanh.default") == len(but)
    (path,) = executorch.build(executorch.Config(precision="int8", target_agreement=0.1)).export(
        net, input_shape=(3, 4, 4), folder=tmp_path, images=x
    )
    opened = executorch_model(path)
    assert opened.delegated == 1.0
    error = np.square(opened.logits(x) - expected.numpy()).mean() / float(expected.var())
    assert 0 < error < 0.02


class Joined(torch.nn.Module):
    """Joins ReLU6 with another value; XNNPACK's rule rounds both in the same range."""

    def __init__(self, is_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(3, 4, 1)
        self.head, self.act = torch.nn.Linear(8, 4), torch.nn.ReLU6()
        self.is_first = is_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.act(self.a(x)), self.b(x)]
        joined = torch.cat(parts if self.is_first else parts[::-1], 1)
        return self.head(joined.mean((2, 3)))


@pytest.mark.parametrize("is_first", [True, False])
def test_relu6_whose_range_is_also_that_of_another_value(is_first: bool) -> None:
    pytest.importorskip("executorch", reason="pip install 'hwnas[executorch]'")
    net, x = Joined(is_first), 12 * rng(0, "x").standard_normal((64, 3, 4, 4)).astype(np.float32)
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(net, (torch.zeros(2, 3, 4, 4),), dynamic_shapes=(batch,))
    with torch.no_grad():
        expected = net(torch.from_numpy(x))
        assert net.b(torch.from_numpy(x)).max() > 9 < net.a(torch.from_numpy(x)).max()
        error = pt2e.quantized(program, x, {})(torch.from_numpy(x)) - expected
    assert 0 < error.square().mean() < 1e-2 * expected.var()


# --- means in 8 bits ------------------------------------------------------------------------------


class Mean(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3), keepdim=True)


@pytest.mark.parametrize("pool", [Mean(), torch.nn.AdaptiveAvgPool2d(1)], ids=["mean", "pool"])
def test_means_have_a_range_of_their_own(pool: torch.nn.Module, tmp_path: Path) -> None:
    """The values reach 20 times as far as their means."""
    pytest.importorskip("executorch", reason="pip install 'hwnas[executorch]'")
    torch.manual_seed(0)
    before = [torch.nn.Conv2d(3, 8, 1), torch.nn.ReLU(), pool]
    net = torch.nn.Sequential(*before, torch.nn.Flatten(), torch.nn.Linear(8, 4)).eval()
    x = rng(0, "x").standard_t(2, (64, 3, 16, 16)).astype(np.float32).clip(-40, 40)
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(net, (torch.zeros(2, 3, 16, 16),), dynamic_shapes=(batch,))
    with torch.no_grad():
        values, means = net[:2](torch.from_numpy(x)), net[:3](torch.from_numpy(x))
        expected = net(torch.from_numpy(x)).numpy()
        assert values.max() > 10 * means.max()
        found = pt2e.quantized(program, x, {})
    scales = [n.args[1] for n in found.graph.nodes if "quantize_per_tensor" in str(n.target)]
    assert any(abs(255 * scale - float(means.max())) < 1e-3 for scale in scales)
    made = executorch.build(executorch.Config(precision="int8", max_float_layers=0.0))
    (path,) = made.export(net, input_shape=(3, 16, 16), folder=tmp_path, images=x)
    opened = executorch_model(path)
    assert opened.delegated == 1.0
    assert 0 < np.square(opened.logits(x) - expected).mean() < 1e-3 * expected.var()


# --- layers in float ----------------------------------------------------------------------------


class Mixture(torch.nn.Module):
    """Convolutions of all kinds; two are joined, one of them through ReLU6, and one reads both."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.same = torch.nn.Conv2d(3, 4, 3, padding="same")
        self.a, self.b = torch.nn.Conv2d(4, 4, 1), torch.nn.Conv2d(4, 4, 1)
        self.c = torch.nn.Conv2d(8, 4, 1)
        self.up = torch.nn.ConvTranspose2d(4, 6, 4, 2, 1)
        self.grouped = torch.nn.ConvTranspose2d(6, 6, 2, 2, groups=2)
        self.head = torch.nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.same(x)
        x = self.c(torch.cat([torch.nn.functional.relu6(self.a(x)), self.b(x)], 1))
        x = torch.nn.functional.relu6(self.grouped(torch.nn.functional.relu6(self.up(x))))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def mixture() -> torch.export.ExportedProgram:
    batch = {0: torch.export.Dim("batch")}
    example = torch.zeros(2, 3, 6, 6)
    return torch.export.export(Mixture().eval(), (example,), dynamic_shapes=(batch,))


def test_layers_of_all_kinds_can_stay_in_float(mixture: torch.export.ExportedProgram) -> None:
    found = pt2e.savings(mixture)
    assert found == {
        "conv2d": 3 * 4 * 9 * (36 + MACS_PER_WEIGHT),
        **dict.fromkeys(("conv2d_1", "conv2d_2"), 4 * 4 * (36 + MACS_PER_WEIGHT)),
        "conv2d_3": 8 * 4 * (36 + MACS_PER_WEIGHT),
        "conv_transpose2d": 4 * 6 * 16 * (36 + MACS_PER_WEIGHT),  # XNNPACK has no grouped ones
        "linear": 6 * 4 * (1 + MACS_PER_WEIGHT),
    }


class Sequences(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Conv1d(3, 4, 3, padding=1)
        self.b = torch.nn.Conv1d(4, 4, 3, padding="same")
        self.head = torch.nn.Linear(36, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.b(self.a(x.flatten(2)))).mean(1)


def test_layers_of_sequences_can_stay_in_float() -> None:
    program = torch.export.export(Sequences().eval(), (torch.zeros(2, 3, 6, 6),))
    assert pt2e.savings(program) == {
        "conv1d": 3 * 4 * 3 * (36 + MACS_PER_WEIGHT),
        "conv1d_1": 4 * 4 * 3 * (36 + MACS_PER_WEIGHT),
        "linear": 36 * 5 * (4 + MACS_PER_WEIGHT),  # runs on 4 vectors of 36 values
    }


def test_joins_beside_float_layers() -> None:
    program = torch.export.export(Mixture().eval(), (torch.zeros(2, 3, 6, 6),))
    nodes = program.module().graph.nodes
    beside = {name: list(pt2e._joins_beside(nodes, [name])) for name in pt2e.savings(program)}
    (join,) = {node.name for node in nodes if node.target is pt2e.CAT}
    assert {name for name, found in beside.items() if found == [join]} == {
        "conv2d_1",
        "conv2d_2",
        "conv2d_3",
    }
    assert {name for name, found in beside.items() if not found} == {
        "conv2d",
        "conv_transpose2d",
        "linear",
    }


def in_8_bits(module: torch.nn.Module) -> dict[str, bool]:
    """Whether the weights of a layer, or all values of a join, are rounded; by kind and number."""
    found: dict[str, bool] = {}
    for node in module.graph.nodes:
        kind = str(node.target).removeprefix("aten.").partition(".")[0]
        if kind in ("conv2d", "conv_transpose2d", "linear", "cat"):
            place = f"{kind} {sum(name.startswith(kind + ' ') for name in found)}"
            around = [*node.all_input_nodes, *node.users]
            rounded = around if kind == "cat" else around[1:2]
            found[place] = all("quantize" in str(one.target) for one in rounded)
    return found


@pytest.mark.parametrize(
    ("only", "but", "rounded"),
    [
        ([], [], {"conv2d 0", "conv2d 1", "conv2d 2", "cat 0", "conv2d 3"}),
        ([], ["conv2d", "conv_transpose2d"], {"conv2d 1", "conv2d 2", "cat 0", "conv2d 3"}),
        ([], ["conv2d_1"], {"conv2d 0", "conv2d 2", "conv2d 3"}),
        ([], ["conv2d_3"], {"conv2d 0", "conv2d 1", "conv2d 2"}),
        (["conv2d"], [], {"conv2d 0"}),
        (["conv_transpose2d"], [], set()),
    ],
)
def test_a_join_stays_in_float_beside_float_layers(
    only: list[str], but: list[str], rounded: set[str], mixture: torch.export.ExportedProgram
) -> None:
    pytest.importorskip("executorch", reason="pip install 'hwnas[executorch]'")
    x = rng(0, "x").standard_normal((64, 3, 6, 6)).astype(np.float32)
    with torch.no_grad():
        module = pt2e.quantized(mixture, x, {}, only, but)
        found, expected = module(torch.from_numpy(x)), mixture.module()(torch.from_numpy(x))
    assert 0 < (found - expected).square().mean() < 0.01 * expected.var()
    places = in_8_bits(module)
    before = {name for name, is_rounded in places.items() if is_rounded}
    assert before & {"cat 0", *(f"conv2d {n}" for n in range(4))} == rounded
    is_up = "conv_transpose2d" in only or not (only or "conv_transpose2d" in but)
    assert places["conv_transpose2d 0"] == is_up and not places["conv_transpose2d 1"]


class Twice(torch.nn.Module):
    """One convolution, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.shared = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            x = self.shared(x if x.shape[1] == 8 else self.stem(x)).relu()
        return self.head(x.mean((2, 3)))


def test_layers_that_share_weights_get_their_own() -> None:
    x = torch.rand(2, 3, 6, 6)
    module = torch.export.export(Twice().eval(), (x,)).module()
    before = module(x)
    layers = [node for node in module.graph.nodes if pt2e._is_layer(node)]
    assert len({layer.args[1] for layer in layers}) == 3
    pt2e._unshare(module)
    assert len({given for layer in layers for given in layer.args[1:3]}) == 8
    torch.testing.assert_close(module(x), before, rtol=0, atol=0)


def test_a_file_with_layers_that_share_weights_runs(tmp_path: Path) -> None:
    pytest.importorskip("executorch", reason="pip install 'hwnas[executorch]'")
    torch.manual_seed(0)
    images = torch.rand(32, 3, 12, 12)
    files = hwnas.export(Twice().eval(), "executorch:int8", tmp_path, images=images)
    assert [file.name for file in files] == ["model.int8.pte"]


class Padded(torch.nn.Module):
    """Convolutions of stride 2 that pad as TensorFlow does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.a, self.b = (torch.nn.Conv2d(n, 8, 3, 2) for n in (3, 8, 8))
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.stem, self.a, self.b):
            x = layer(torch.nn.functional.pad(x, (0, 1, 0, 1))).relu()
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("in_float", [("conv2d_1",), ("conv2d_1", "conv2d_2"), ("conv2d",), ()])
def test_layers_behind_pads_can_stay_in_float(in_float: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("executorch", reason="pip install 'hwnas[executorch]'")
    x = torch.rand(16, 3, 16, 16)
    program = torch.export.export(Padded().eval(), (x[:1],))
    eight = pt2e.quantized(program, x.numpy(), {}, but=in_float, at_once=1)
    lowered = executorch._lowered(torch.export.export(eight, (x[:1],)))
    (tmp_path / "model.pte").write_bytes(lowered)
    found = executorch_model(tmp_path / "model.pte").logits(x.numpy())
    expected = torch.cat([eight(one) for one in x.split(1)]).detach().numpy()  # type: ignore[no-untyped-call]
    step = np.abs(expected).max() / 127
    assert np.abs(found - expected).max() <= 4 * step
    layers = [node for node in eight.graph.nodes if pt2e._is_layer(node)]  # type: ignore[union-attr]
    unrounded = {node.name for node in layers if node.args[1].op == "get_attr"}
    assert unrounded == {*in_float}
