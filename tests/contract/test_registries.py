"""Every registry: names are files, facts come without importing, variants are torch-free."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hwnas.core.errors import UserError
from hwnas.core.plugins import faults
from hwnas.core.registry import Registry
from hwnas.pipeline.config import REGISTRIES

VARIANTS = [(kind, name) for kind, registry in REGISTRIES.items() for name in registry.names]


@pytest.mark.parametrize(("kind", "name"), VARIANTS)
def test_a_variant_has_a_summary_and_what_its_kind_asks_for(kind: str, name: str):
    registry = REGISTRIES[kind]
    variant = registry.describe(name)
    assert variant.summary
    if variant.missing:
        pytest.skip(f"{name} needs {', '.join(variant.missing)}: {variant.install}")
    assert faults(registry.load(name), registry.contract, name) == []


@pytest.mark.parametrize("kind", REGISTRIES)
def test_an_unknown_name_lists_the_known_ones(kind: str):
    registry = REGISTRIES[kind]
    with pytest.raises(UserError) as caught:
        registry.load(registry.names[0] + "x")
    assert registry.names[0] in str(caught.value)
    assert "did you mean" in str(caught.value)


def test_configuration_needs_no_torch():
    code = (
        "import sys\n"
        "from hwnas.pipeline.config import REGISTRIES, load_config, read_config_data\n"
        "from hwnas.core.resources import resource_names\n"
        "for registry in REGISTRIES.values():\n"
        "    for name in registry.names:\n"
        "        if not registry.describe(name).missing:\n"
        "            registry.load(name)\n"
        "for name in resource_names('configs', '.yaml'):\n"
        "    load_config(read_config_data(name)[0], where=name)\n"
        "heavy = {'torch', 'timm', 'torchvision', 'onnxruntime', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_variant_whose_package_is_missing_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    package = tmp_path / "zoo"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "exotic.py").write_text(
        '"""An exotic thing."""\nREQUIRES = ("no_such_package_x",)\nEXTRA = "exotic"\n'
        "import no_such_package_x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry(kind="animal", package="zoo")
    variant = registry.describe("exotic")
    assert variant.missing == ("no_such_package_x",)
    with pytest.raises(UserError, match=r"pip install 'hwnas\[exotic\]'"):
        registry.load("exotic")
