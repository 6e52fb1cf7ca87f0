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

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.exporters import executorch
from hwnas.exporters.pte import Delegation


def test_the_share_of_operators() -> None:
    assert Delegation(3, ("aten::mean",)).share == 0.75
    assert Delegation(0, ()).share == 0
    assert Delegation(7, ()).share == 1


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("executorch", reason="pip install 'hwnas[executorch]'")
    from hwnas.exporters.pte import delegation, executorch_model

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

    def __init__(self, watched: Watched) -> None:
        super().__init__()
        self.module = watched.module
        self.is_wrong = watched.quantizer.admits(SimpleNamespace(name="linear"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -self.module(x) if self.is_wrong else self.module(x)


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
        "torchao.quantization.pt2e": {"MinMaxObserver": "extremes"},
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
    (file,) = executorch.build(executorch.Config(precision="int8")).export(
        torch.nn.Sequential(*layers), input_shape=(3, 4, 4), folder=tmp_path, images=images
    )
    assert (file.name, file.read_bytes()) == ("model.int8.pte", b"program")
    *tried, last = made
    assert [one.sizes for one in tried] == [[6]] * 4  # all, each layer, all but the linear one
    assert last.sizes == [1] * 6
    assert last.quantizer.rule == Rule(Activation("extremes"), Activation("extremes"))
    assert {n: last.quantizer.admits(SimpleNamespace(name=n)) for n in ("conv2d", "linear")} == {
        "conv2d": True,
        "linear": False,
    }
    x = torch.from_numpy(images[:1])
    with torch.no_grad():
        expected = torch.nn.Sequential(*layers)(x)
    torch.testing.assert_close(lowered[0].module()(x), expected)
