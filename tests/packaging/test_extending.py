"""The worked files of docs/extending.md pass the shipped suites, as a package of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"^```python (\S+\.py)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))
SHARED = {name: text for name, text in FILES.items() if "/" in name}
OWN = {name: text for name, text in FILES.items() if "/" not in name}
TESTS = """
import numpy as np
import pytest
from mine import bayes, climber, codes_csv, improvement, neighbours, shapes
from hwnas.testing import (
    AcquisitionSuite, DatasetSuite, PredictorSuite, ReaderSuite, SamplerSuite, SearcherSuite
)
from hwnas.testing.suite import tiny_space

def gives(module):
    return pytest.fixture(lambda self: module)

class TestData(DatasetSuite):
    variant = gives(shapes)

class TestSampler(SamplerSuite):
    variant = gives(neighbours)

class TestPredictor(PredictorSuite):
    variant = gives(bayes)

class TestSearcher(SearcherSuite):
    variant = gives(climber)

class TestAcquisition(AcquisitionSuite):
    variant = gives(improvement)

class TestReader(ReaderSuite):
    variant = gives(codes_csv)

    @pytest.fixture
    def example(self, tmp_path, space):
        archs = space.sample(8, rng=np.random.default_rng(0))
        lines = ["-".join(map(str, row)) + f",{0.5 + i / 100}" for i, row in enumerate(archs)]
        path = tmp_path / "codes.csv"
        path.write_text("\\n".join(["codes,top1", *lines, ""]))
        return path
"""
POINTS = """
[hwnas.datasets]
shapes = mine.shapes
[hwnas.samplers]
neighbours = mine.neighbours
[hwnas.predictors]
bayes = mine.bayes
[hwnas.searchers]
climber = mine.climber
[hwnas.acquisitions]
improvement = mine.improvement
[hwnas.readers]
codes_csv = mine.codes_csv
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with the document's files as the package `mine`."""
    folder = tmp_path_factory.mktemp("extending")
    (folder / "mine").mkdir()
    (folder / "mine" / "__init__.py").write_text('"""Variants of mine."""\n')
    for name, text in OWN.items():
        (folder / "mine" / name).write_text(text)
    info = folder / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    (folder / "test_mine.py").write_text(TESTS)
    return folder


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_there_is_a_worked_file_of_every_kind():
    from hwnas.pipeline.config import REGISTRIES

    assert len(FILES) == len(REGISTRIES) == 10
    assert len(OWN) == POINTS.count("[hwnas.") == TESTS.count("Suite):")


@pytest.mark.parametrize("name", SHARED)
def test_files_of_the_example_package_are_shown_as_they_are(name: str):
    assert SHARED[name] == (ROOT / name).read_text()


def test_the_steps_are_those_of_the_example_package():
    """The entry point and the test class that the text shows are in the package."""
    plugin = ROOT / "examples" / "plugin"
    (toml,) = re.findall(r"^ +```toml\n(.*?)^ +```", TEXT, re.MULTILINE | re.DOTALL)
    (suite,) = re.findall(r"^ +```python\n(.*?)^ +```", TEXT, re.MULTILINE | re.DOTALL)
    declared = (plugin / "pyproject.toml").read_text()
    assert all(line.strip() in declared for line in toml.splitlines())
    tests = (plugin / "tests" / "test_variants.py").read_text().replace(" -> ModuleType", "")
    assert re.sub(r"^   ", "", suite, flags=re.MULTILINE).strip() in tests


def test_the_others_pass_the_suites(folder: Path):
    out = run(folder, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir=.", "test_mine.py")
    assert " passed" in out


def test_the_others_are_found_by_name(folder: Path):
    code = (
        "from hwnas.pipeline.config import REGISTRIES\n"
        "mine = [r.load(n) for r in REGISTRIES.values() for n in r.names\n"
        "        if r.describe(n).package == 'mine 1.0']\n"
        f"assert len(mine) == {len(OWN)}"
    )
    run(folder, "-c", code)


def test_they_are_formatted_like_our_own(folder: Path):
    for arguments in (["format", "--check"], ["check", "--ignore", "I001"]):
        config = ["--config", str(ROOT / "pyproject.toml")]
        run(folder, "-m", "ruff", *arguments, "--no-cache", *config, "mine")
