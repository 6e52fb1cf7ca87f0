"""The wheel and the sdist, installed on every Python that is promised: `make test-full`.

A Python that this machine lacks is skipped with the reason. Interpreters are looked for as
`pythonX.Y`, in pyenv and in uv.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import hwnas

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.10", "3.12", "3.13")
MAX_WHEEL_BYTES = 15_000_000


def interpreter(version: str) -> Path | None:
    """A Python of this version that starts, or None."""
    found = [shutil.which(f"python{version}")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found += [str(path) for path in sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    if uv := shutil.which("uv"):
        listed = subprocess.run(
            [uv, "python", "find", "--no-python-downloads", version],
            capture_output=True,
            text=True,
            check=False,
        )
        found += listed.stdout.split()
    for path in found:
        if path and _version(path) == version:
            return Path(path)
    return None


def _version(path: str) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    pytest.importorskip("hatchling", reason="build backend is not installed")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return out


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.full
def test_the_files_of_a_release_have_its_version_and_are_small(dist: Path) -> None:
    wheel, sdist = next(dist.glob("*.whl")), next(dist.glob("*.tar.gz"))
    assert f"hwnas-{hwnas.__version__}" in wheel.name and hwnas.__version__ in sdist.name
    assert wheel.stat().st_size <= MAX_WHEEL_BYTES
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"pyproject.toml", "README.md", "CHANGELOG.md", "CITATION.cff", "SECURITY.md"}
    needed |= {"mkdocs.yml", "docs/index.md", "examples/notebook.ipynb", "tests/conftest.py"}
    assert needed <= names


@pytest.mark.full
@pytest.mark.parametrize("version", PYTHONS)
@pytest.mark.parametrize("kind", ["whl", "tar.gz"])
def test_a_fresh_installation_works(version: str, kind: str, dist: Path, tmp_path: Path) -> None:
    """Installed with its dependencies: a run, a bundle that predicts, the plugin beside it."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} here (python{version}, pyenv, uv)")
    run(python, "-m", "venv", "env", cwd=tmp_path)
    new = tmp_path / "env" / "bin" / "python"
    install = [new, "-m", "pip", "install", "--quiet", "--prefer-binary"]
    extra = ["--extra-index-url", url] if (url := os.environ.get("HWNAS_TEST_TORCH_INDEX")) else []
    file = next(dist.glob(f"*.{kind}"))
    try:
        run(*install, *extra, file, cwd=tmp_path)
    except AssertionError as error:
        if re.search(
            r"No matching distribution|Could not find a version|Connection|Temporary failure",
            str(error),
        ):
            pytest.skip(f"a dependency cannot be installed for Python {version}: no network?")
        raise
    command = tmp_path / "env" / "bin" / "hwnas"
    shown = run(command, "--version", cwd=tmp_path)
    assert shown.strip() == f"hwnas {hwnas.__version__}"
    run(command, "doctor", cwd=tmp_path, HWNAS_CACHE=str(tmp_path / "cache"))
    mini = ROOT / "tests" / "integration" / "mini.yaml"
    run(command, "run", mini, "--run", "run", "--report-only", cwd=tmp_path)
    code = (
        "import hwnas\n"
        "bundle = hwnas.load_bundle('run/bundles/main/local')\n"
        "print(bundle.predict(next(bundle.folder.glob('samples/*'))))\n"
    )
    assert "%" in run(new, "-c", code, cwd=tmp_path)
    plugin = shutil.copytree(ROOT / "examples" / "plugin", tmp_path / "plugin")
    run(*install, "--no-deps", plugin, cwd=tmp_path)
    assert "thin" in run(command, "list", "spaces", cwd=tmp_path)
