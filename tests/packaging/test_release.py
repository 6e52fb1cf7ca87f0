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
from tests.old_runs import unpack

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.10", "3.12", "3.13")
MAX_WHEEL_BYTES = 15_000_000
TESTS_OF_THE_SDIST = (
    "tests/integration/test_old_work.py",
    "tests/integration/test_public_face.py",
    "tests/unit/test_core_config.py",
)
"""Files of other Pythons are read, nothing heavy is imported too early, settings are checked."""


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
def test_a_fresh_installation_works(version: str, dist: Path, tmp_path: Path) -> None:
    """Wheel and sdist, one after the other in one environment, whose packages take gigabytes."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} here (python{version}, pyenv, uv)")
    run(python, "-m", "venv", "env", cwd=tmp_path)
    try:
        for kind in ("whl", "tar.gz"):
            (tmp_path / kind).mkdir()
            _install(tmp_path / "env", next(dist.glob(f"*.{kind}")), tmp_path / kind)
            _use(tmp_path / "env", tmp_path / kind)
        _test(tmp_path / "env", next(dist.glob("*.tar.gz")), tmp_path)
    finally:
        shutil.rmtree(tmp_path / "env")


def _pip(env: Path, *arguments: str | Path, cwd: Path) -> None:
    """`pip install` in an environment.

    Raises:
        Skipped: a package has no file for this Python, or the index cannot be reached.
    """
    extra = ["--extra-index-url", url] if (url := os.environ.get("HWNAS_TEST_TORCH_INDEX")) else []
    options = ["--quiet", "--no-compile", "--prefer-binary", *extra]
    try:
        run(env / "bin" / "python", "-m", "pip", "install", *options, *arguments, cwd=cwd)
    except AssertionError as error:
        if re.search(
            r"No matching distribution|Could not find a version|Connection|Temporary failure",
            str(error),
        ):
            pytest.skip(f"a dependency cannot be installed in {env}: no network?")
        raise


def _install(env: Path, file: Path, cwd: Path) -> None:
    """hwnas from this file, in place of the one that is there, with its dependencies."""
    run(env / "bin" / "python", "-m", "pip", "uninstall", "--quiet", "--yes", "hwnas", cwd=cwd)
    _pip(env, file, cwd=cwd)


def _use(env: Path, cwd: Path) -> None:
    """The version, `doctor`, a small run, and a bundle that predicts."""
    command = env / "bin" / "hwnas"
    assert run(command, "--version", cwd=cwd).strip() == f"hwnas {hwnas.__version__}"
    run(command, "doctor", cwd=cwd, HWNAS_CACHE=str(cwd / "cache"))
    mini = ROOT / "tests" / "integration" / "mini.yaml"
    run(command, "run", mini, "--run", "run", "--report-only", cwd=cwd)
    code = (
        "import hwnas\n"
        "bundle = hwnas.load_bundle('run/bundles/main/local')\n"
        "print(bundle.predict(next(bundle.folder.glob('samples/*'))))\n"
    )
    assert "%" in run(env / "bin" / "python", "-c", code, cwd=cwd)


def _test(env: Path, sdist: Path, cwd: Path) -> None:
    """The plugin with its tests, and tests out of the sdist, against the installed package."""
    (source,) = unpack(sdist, cwd / "sdist").iterdir()
    (source / "hwnas").rename(cwd / "not-imported")
    _pip(env, "pytest", "hypothesis", "jsonschema", cwd=cwd)
    _pip(env, "--no-deps", source / "examples" / "plugin", cwd=cwd)
    assert "thin" in run(env / "bin" / "hwnas", "list", "spaces", cwd=cwd)
    pytest_ = [env / "bin" / "python", "-m", "pytest", "-p", "no:cacheprovider"]
    plugin = source / "examples" / "plugin"
    options = [f"--rootdir={plugin}", "-c", os.devnull, "-W", "ignore"]
    assert " passed" in run(*pytest_, *options, "tests", cwd=plugin)
    needs_source = ["-k", "not type_checkers"]  # reads hwnas/__init__.py beside the tests
    assert " passed" in run(
        *pytest_, "-m", "not full", *needs_source, *TESTS_OF_THE_SDIST, cwd=source
    )
