"""Private names of timm and torch that we use: the first test to fail when one of them goes."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USES = {
    "timm.models._efficientnet_blocks.ConvBnAct": "nets/from_timm.py: name the class's new home",
    "timm.models._efficientnet_blocks.DepthwiseSeparableConv": "nets/from_timm.py, likewise",
    "timm.models._efficientnet_blocks.InvertedResidual": "nets/from_timm.py, likewise",
    "timm.models._efficientnet_blocks.EdgeResidual": "nets/timm_blocks.py, likewise",
    "timm.models._efficientnet_blocks.UniversalInvertedResidual": "nets/timm_blocks.py, likewise",
    "timm.models._efficientnet_blocks.SqueezeExcite": "nets/from_timm.py and timm_net.py, likewise",
    "timm.models._features.FeatureGetterNet": "nets/timm_net.py: build the feature network with"
    " timm.create_model(features_only=True)",
    "torch.nn.modules.batchnorm._BatchNorm": "nets/bn.py: test for (BatchNorm1d, BatchNorm2d,"
    " BatchNorm3d, SyncBatchNorm)",
    "torch.utils._python_dispatch.TorchDispatchMode": "exporters/layer_calls.py:"
    " take the class from its new home, or watch the modules with forward hooks",
    "torch.utils._pytree.tree_leaves": "exporters/fold.py and weight_rounding.py: flatten lists,"
    " tuples and dicts",
}
"""What to do in hwnas when the name is gone."""


@pytest.mark.parametrize("name", USES)
def test_a_private_name_is_still_there(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    try:
        found = hasattr(importlib.import_module(module), attribute)
    except ImportError:
        found = False
    assert found, f"{name} is gone; in hwnas/{USES[name]}"


def test_no_other_private_name_is_imported() -> None:
    """A module or a name that begins with an underscore."""
    found = set()
    for path in sorted(ROOT.glob("hwnas/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                if node.module.partition(".")[0] in ("timm", "torch", "torchvision"):
                    found |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {
                    alias.name
                    for alias in node.names
                    if alias.name.partition(".")[0] in ("timm", "torch", "torchvision")
                }
            elif isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                text = ast.unparse(node)
                if text.startswith(("timm.", "torch.", "torchvision.")):
                    found.add(text)
    assert {name for name in found if any(map(is_private, name.split(".")))} == set(USES)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")
