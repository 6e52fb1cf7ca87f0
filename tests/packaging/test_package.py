"""What a built wheel contains, what an installed one can do, and that the layers hold."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="build backend is not installed")
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(out),
            str(ROOT),
        ],
        check=True,
        capture_output=True,
    )
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_ships_code_and_data_and_nothing_else(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "hwnas/interfaces/__init__.py",
        "hwnas/spaces/networks/mobilenetv2_100.yaml",
        "hwnas/_data/configs/quickstart.yaml",
        "hwnas/_data/configs/devices/local.yaml",
        "hwnas/_data/datasets/sign_digits/train.npz",
        "hwnas/_data/datasets/sign_digits/val.npz",
        "hwnas/_data/datasets/sign_digits/LICENSE",
        "hwnas/_data/datasets/sign_digits/NOTICE",
        "hwnas/_data/export/bench.py",
        "hwnas/_data/export/ort_run.py",
        "hwnas/_data/export/web/bench.js",
        "hwnas/_data/latency_tables/README.md",
        "hwnas/py.typed",
        "hwnas/nets/shipped/mobilenet_v2_1.0_224_quant.npz",
        "hwnas/nets/shipped/mobilenet_v2_1.0_224_quant.json",
        "hwnas/nets/shipped/NOTICE",
        "hwnas/nets/shipped/LICENSE",
    ):
        assert needed in names, needed
    assert wheel.stat().st_size <= 15e6
    tops = {name.split("/")[0] for name in names}
    assert all(top == "hwnas" or top.endswith(".dist-info") for top in tops), tops
    assert any(name.endswith("licenses/LICENSE") for name in names)
    source = {
        str(path.relative_to(ROOT)) for path in (ROOT / "hwnas").rglob("*.py") if path.is_file()
    }
    assert source <= set(names)
    assert wheel.stat().st_size <= 15e6


def test_the_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path):
    """Unpacked into an empty folder, data and photos are found and configs validate."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import hwnas, sys\n"
        "from pathlib import Path\n"
        f"assert Path(hwnas.__file__).is_relative_to({str(tmp_path)!r}), hwnas.__file__\n"
        "from hwnas.core.resources import resource\n"
        f"assert resource('export', 'bench.py').is_relative_to({str(tmp_path)!r})\n"
        "from hwnas.cli.main import main\n"
        "main(['run', 'quickstart', '--dry-run'])\n"
        "from hwnas.interfaces import DatasetContext\n"
        "from hwnas.training.datasets import sign_digits\n"
        "data = sign_digits.build(sign_digits.Config(base_px=8), DatasetContext(0))\n"
        "assert sum(data.info.n_images.values()) == 1645\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "search/main" in done.stdout


def test_public_names_exist():
    import importlib
    import pkgutil

    import hwnas

    for module in pkgutil.walk_packages(hwnas.__path__, "hwnas."):
        names = getattr(importlib.import_module(module.name), "__all__", [])
        assert all(hasattr(importlib.import_module(module.name), name) for name in names)


@pytest.mark.full
def test_the_whole_pipeline_runs_from_an_installed_wheel(wheel: Path, tmp_path: Path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    mini = ROOT / "tests" / "integration" / "mini.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "hwnas", "run", str(mini), "--run", "elsewhere"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "elsewhere" / "report.html").is_file()
