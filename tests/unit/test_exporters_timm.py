"""The timm artifact runs where hwnas is not installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from hwnas.core.errors import UserError
from hwnas.exporters.timm import COMPANIONS, WEIGHTS, Config, build
from hwnas.nets.bn import recalibrate
from hwnas.nets.subnet import build_subnet, definition_of
from tests.mobile_spaces import MOBILE_SPACES, some_archs

WITH_TIMM = """
import sys
sys.modules["hwnas"] = None  # as if it were not installed
import numpy, timm, torch
import model
net = timm.create_model("NAME", pretrained=True).eval()
assert timm.create_model("NAME", num_classes=3).classifier.out_features == 3
assert type(net).__module__.startswith("timm.")
with torch.no_grad():
    numpy.save("logits.npy", net(torch.from_numpy(numpy.load("images.npy"))).numpy())
"""
WITH_TORCH = """
import sys
sys.modules["hwnas"] = sys.modules["timm"] = None
import numpy, torch
from safetensors.torch import load_file
import model
net = model.create_model().eval()
net.load_state_dict(load_file("weights.safetensors"))
with torch.no_grad():
    numpy.save("logits.npy", net(torch.from_numpy(numpy.load("images.npy"))).numpy())
"""


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("mobilenet_v3", WITH_TIMM),
        ("nasbench_macro", WITH_TIMM),
        ("strange", WITH_TORCH),
    ],
)
def test_the_artifact_gives_the_logits_without_hwnas(name: str, code: str, tmp_path: Path) -> None:
    space = MOBILE_SPACES[name]
    arch = some_archs(space, 3)[-1]
    px = space.view(arch)["resolution"]
    images = torch.randn(4, space.macro.in_channels, px, px)
    net = recalibrate(build_subnet(space, arch), [images])
    files = build(Config()).export(net, input_shape=images.shape[1:], folder=tmp_path)
    assert [file.name for file in files] == [WEIGHTS, *COMPANIONS]
    np.save(tmp_path / "images.npy", images.numpy())
    done = subprocess.run(
        [sys.executable, "-c", code.replace("NAME", f"hwnas_{arch.key}")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = net(images).numpy()
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-5, atol=1e-6)


def test_the_code_for_timm_is_short_and_needs_only_timm(tmp_path: Path) -> None:
    space = MOBILE_SPACES["mobilenet_v3"]
    net = build_subnet(space, space.smallest())
    build(Config()).export(
        net, input_shape=(3, 40, 40), folder=tmp_path, metadata={"arch_key": "abc"}
    )
    source = (tmp_path / "model.py").read_text()
    assert len(source.splitlines()) <= 40
    imported = re.findall(r"^ *(?:import|from) (\w+)", source, re.MULTILINE)
    assert set(imported) - sys.stdlib_module_names == {"timm"}
    assert json.loads((tmp_path / "arch.json").read_text()) == definition_of(net)
    with safe_open(str(tmp_path / WEIGHTS), framework="pt") as weights:
        assert weights.metadata()["arch_key"] == "abc" and "hwnas_version" in weights.metadata()


def test_a_network_without_a_definition_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no definition"):
        build(Config()).export(nn.Linear(2, 2), input_shape=(2,), folder=tmp_path)
    assert not list(tmp_path.iterdir())
