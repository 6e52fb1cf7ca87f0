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
from hwnas.nets.features import features_only
from hwnas.nets.subnet import build_subnet, definition_of
from hwnas.spaces.lowering import resolution
from tests.mobile_spaces import MOBILE_SPACES, headless, some_archs

FOLDERS = """
import importlib.util, json, pathlib, sys
sys.modules["hwnas"] = None  # as if it were not installed
FORBIDDEN
import numpy, torch
from safetensors.torch import load_file

def load(folder):
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    model = importlib.util.module_from_spec(spec)
    sys.modules["model"] = model
    spec.loader.exec_module(model)
    name = json.loads((folder / "arch.json").read_text())["name"]
    CREATE
    return net.eval(), features.eval()

for folder in map(pathlib.Path, sys.argv[1:]):
    net, features = load(folder)
    images = torch.from_numpy(numpy.load(folder / "images.npy"))
    with torch.no_grad():
        numpy.save(folder / "logits.npy", net(images).numpy())
        numpy.savez(folder / "maps.npz", *(found.numpy() for found in features(images)))
"""
WITH_TIMM = FOLDERS.replace("FORBIDDEN", "import timm").replace(
    "CREATE",
    """net = timm.create_model(name, pretrained=True)
    assert timm.create_model(name, num_classes=3).classifier.out_features == 3
    assert type(net).__module__.startswith("timm.")
    features = timm.create_model(name, pretrained=True, features_only=True, out_indices=(0, -1))
    assert features.feature_info.channels()""",
)
WITH_TORCH = FOLDERS.replace("FORBIDDEN", 'sys.modules["timm"] = None').replace(
    "CREATE",
    """net = model.create_model()
    net.load_state_dict(load_file(folder / "weights.safetensors"))
    features = model.create_model(features_only=True, out_indices=(0, -1))
    left = features.load_state_dict(load_file(folder / "weights.safetensors"), strict=False)
    assert not left.missing_keys""",
)


@pytest.mark.parametrize(
    ("form", "code", "names"),
    [
        (
            "timm",
            WITH_TIMM,
            {*("mobilenet_tiny", "mobilenet_v3", "proxyless", "ofa_proxyless", "fbnet", "mixed")}
            | {"mnasnet", "mobilenet_v4", "nasbench_macro", "timm"},
        ),
        ("torch", WITH_TORCH, {"attentive_nas", "fbnet", "resnet_pgonas", "strange", "headless"}),
    ],
)
def test_the_artifacts_of_every_space_give_the_logits_without_hwnas(
    form: str, code: str, names: set[str], tmp_path: Path
) -> None:
    expected = {}
    for name, space in {**MOBILE_SPACES, "headless": headless(33)}.items():
        for number, arch in enumerate(some_archs(space, 3)[1:]):
            px = resolution(space, arch)
            images = torch.randn(4, space.macro.in_channels, px, px)
            net = recalibrate(build_subnet(space, arch), [images])
            if definition_of(net)["form"] != form:
                continue
            folder = tmp_path / f"{name}{number}"
            folder.mkdir()
            files = build(Config()).export(net, input_shape=images.shape[1:], folder=folder)
            assert [file.name for file in files] == [WEIGHTS, *COMPANIONS]
            np.save(folder / "images.npy", images.numpy())
            with torch.no_grad():
                expected[folder] = net(images).numpy(), features_only(net)(images)
    assert {folder.name[:-1] for folder in expected} == names
    command = [sys.executable, "-c", code, *map(str, expected)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for folder, (logits, maps) in expected.items():
        assert np.ptp(logits) > 0.1
        np.testing.assert_allclose(np.load(folder / "logits.npy"), logits, rtol=1e-4, atol=1e-5)
        found = np.load(folder / "maps.npz")
        for number, expected_map in enumerate((maps[0], maps[-1])):
            ours = expected_map.numpy()
            np.testing.assert_allclose(found[f"arr_{number}"], ours, rtol=1e-4, atol=1e-4)


def test_the_code_for_timm_is_short_and_needs_only_timm(tmp_path: Path) -> None:
    space = MOBILE_SPACES["mobilenet_v3"]
    net = build_subnet(space, space.smallest())
    build(Config()).export(
        net, input_shape=(3, 40, 40), folder=tmp_path, metadata={"arch_key": "abc"}
    )
    source = (tmp_path / "model.py").read_text()
    assert len(source.splitlines()) <= 48
    imported = re.findall(r"^ *(?:import|from) (\w+)", source, re.MULTILINE)
    assert set(imported) - sys.stdlib_module_names == {"timm"}
    assert json.loads((tmp_path / "arch.json").read_text()) == definition_of(net)
    with safe_open(str(tmp_path / WEIGHTS), framework="pt") as weights:
        assert weights.metadata()["arch_key"] == "abc" and "hwnas_version" in weights.metadata()


def test_a_network_without_a_definition_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="hwnas did not build the network"):
        build(Config()).export(nn.Linear(2, 2), input_shape=(2,), folder=tmp_path)
    assert not list(tmp_path.iterdir())
