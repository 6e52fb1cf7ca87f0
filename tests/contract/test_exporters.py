"""Every exporter: a default config, files in the folder it is given, parity with torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hwnas.core.rng import rng
from hwnas.exporters import REGISTRY
from hwnas.exporters.parity import check_parity, compare
from hwnas.nets.subnet import build_from_definition, build_subnet
from hwnas.spaces.space import SearchSpace


@pytest.mark.parametrize("name", REGISTRY.names)
def test_exports_a_subnet_that_agrees_with_torch(
    name: str, tiny_space: SearchSpace, tmp_path: Path
) -> None:
    module = REGISTRY.load(name)
    config = module.Config()
    assert config.name == name
    model = build_subnet(tiny_space, tiny_space.smallest())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    files = module.build(config).export(model, input_shape=(3, 16, 16), folder=tmp_path)
    assert files and set(files) == set(tmp_path.iterdir()), "writes its files and nothing else"
    assert model.training, "leaves the model as it was"
    for key, value in model.state_dict().items():
        assert value.equal(before[key]), key
    images = rng(0, "images").standard_normal((8, 3, 16, 16)).astype(np.float32)
    if files[0].suffix == ".onnx":
        assert check_parity(model, files[0], images).passed
    else:
        assert files[0].suffix == ".safetensors", "a new kind of file: say here how it runs"
        model.eval()
        with torch.no_grad():
            logits = model(torch.from_numpy(images)).numpy()
            found = reloaded(files[0])(torch.from_numpy(images)).numpy()
        assert compare(logits, found).relative <= 1e-6


def reloaded(weights: Path) -> nn.Module:
    """The network of the definition beside a file of weights."""
    model = build_from_definition(json.loads(weights.with_name("arch.json").read_text()), seed=1)
    model.load_state_dict(load_file(weights))
    return model.eval()


@pytest.mark.parametrize("name", REGISTRY.names)
def test_validating_its_config_imports_no_torch(name: str) -> None:
    code = (
        "import sys; from hwnas.exporters import REGISTRY; "
        f"module = REGISTRY.load({name!r}); module.build(module.Config()); "
        "sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
