"""Mutation run: one small change of our code at a time, and which of them no test notices.

    python tests/mutants.py [--n 200] [--seed 0] [--only latency] [--limit 0.2]

Everything is imported once. A test file first runs with traced modules, which shows the tests that
reach a statement; build/mutants keeps that. A mutant is a forked process in which the code object
of one function is replaced. It runs the tests that reach the changed statement, quick ones first,
up to the first that fails: those of files that import the module, then those of files that name its
package. What survives is printed; the exit status is 1 if more than `--limit` of the mutants do,
equivalent ones aside.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import importlib
import io
import os
import re
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import pytest  # noqa: E402

from tests.conftest import EXPENSIVE  # noqa: E402
from tests.mutant_code import Mutant, apply, module_name, mutants_of  # noqa: E402
from tests.mutant_tests import OPTIONS, Chosen, Reach, in_child, kept_reach, reach_of  # noqa: E402

AREAS = {
    "controller": "hwnas/controller/*.py",
    "latency": "hwnas/latency/*.py",
    "step": "hwnas/training/step.py",
    "stages": "hwnas/pipeline/stages/*.py",
    "measure": "hwnas/measure/*.py",
    "exporters": "hwnas/exporters/*.py",
}
EQUIVALENT: dict[str, str] = {
    "hwnas/controller/record_log.py append_records: size < len(head) -> size <= len(head)":
    "the same first line is written again",
    "hwnas/controller/per_device.py search_per_device: time.monotonic() - saved >= SAVE_EVERY_S ->"
    " time.monotonic() - saved > SAVE_EVERY_S": "two readings of a clock",
    "hwnas/exporters/float_graph.py _translated: 2 if dynamic_batch else 1"
    " -> 3 if dynamic_batch else 1": "any batch but 1 stands for every batch",
    "hwnas/exporters/labels.py Labelled.describe: file.name.replace(f'.{self.label}.', '.', 1)"
    " -> file.name.replace(f'.{self.label}.', '.', 2)": "a name contains its label once",
    "hwnas/exporters/mil.py _expanded: sizes(v['axes'], 0, 0) -> sizes(v['axes'], 0, 1)":
    "the value of none",
    "hwnas/exporters/mil.py _pad: sizes(v['pad'], 0, 0) -> sizes(v['pad'], 0, 1)":
    "the value of none",
    "hwnas/exporters/quantize.py _logits: 1 -> 2": "threads of a session",
    "hwnas/latency/construction.py op_rows: median < MIN_SHARE * whole.median_ms ->"
    " median <= MIN_SHARE * whole.median_ms": "the row is the same; only its warning is not",
    "hwnas/latency/correction.py Validation.within: e <= limit -> e < limit":
    "x - 1, whose last bit is worth 2**-52, is never exactly 0.05 or 0.1",
    "hwnas/pipeline/stages/finetune.py finetune_all: data.info.n_images['train'] //"
    " config.batch_size -> data.info.n_images['train'] * config.batch_size": "the unit of progress",
    "hwnas/training/step.py SupernetStep.__call__: True -> False": "as many parts of x as of y",
    "hwnas/training/step.py SupernetStep._settings: 0.0 if config.teacher is None else"
    " config.teacher.weight -> 1.0 if config.teacher is None else config.teacher.weight":
    "the weight of no teacher",
    "hwnas/training/step.py Trials._images: True -> False": "batches are pairs",
    "hwnas/training/step.py _pair_sampler: data.calibration_batches(1,"
    " config.calibration.batch_size) -> data.calibration_batches(2, config.calibration.batch_size)":
    "the first of two batches is the same",
}  # fmt: skip
"""Mutants that compute the same, as they are printed without the line number, and why."""

SLOW_IMPORTS = (
    "hwnas.cli.main",
    "hypothesis",
    "onnxruntime",
    "plotly",
    "scipy.stats",
    "sklearn.ensemble",
)
"""Imported once, not in every fork."""

CANNOT_BE_MADE = 99
NO_TESTS = 5  # exit status of pytest
BUDGET_S = 60  # processor time of the tests of one mutant
HANGS_AFTER_S = 600


@functools.cache
def all_mutants() -> dict[str, list[Mutant]]:
    """Mutants by area."""
    return {
        name: [mutant for path in sorted(ROOT.glob(glob)) for mutant in mutants_of(path)]
        for name, glob in AREAS.items()
    }


def drawn(n: int, seed: int, only: str | None) -> list[Mutant]:
    """Equal shares of every area, in random order; which, changes little when the code does."""

    def order(mutant: Mutant, what: str = "chosen") -> str:
        return hashlib.sha256(f"{what} {seed} {mutant.key}".encode()).hexdigest()

    areas = {name: known for name, known in all_mutants().items() if only in (None, name)}
    found: list[Mutant] = []
    for known in areas.values():
        found += sorted(known, key=order)[: -(-n // len(areas))]
    return sorted(found, key=lambda mutant: order(mutant, "run"))[:n]


def candidates(module: str) -> list[list[str]]:
    """Test files that import a module, then others that name its package; unit tests first.

    Of these, files that are called like it come first, and then those that are called like its
    package. Without the most expensive ones, which would take longer than all others together.
    """
    package, _, name = module.removesuffix(".py").replace("/", ".").rpartition(".")
    direct = rf"from {package}\.{name} import|from {package} import (?:\([^)]*|.*)\b{name}\b"
    groups: list[list[str]] = [[], [], [], []]
    for folder in ("unit", "contract", "integration"):
        for path in sorted((ROOT / "tests" / folder).glob("test_*.py")):
            text = path.read_text() if path.stem not in EXPENSIVE else ""
            is_direct = re.search(direct, text) is not None
            if is_direct or package in text:
                number = 2 * (not is_direct) + (folder == "integration")
                groups[number].append(str(path.relative_to(ROOT)))
    for group in groups:
        group.sort(
            key=lambda file: (name not in file, package.rpartition(".")[2] not in file, file)
        )
    return groups


def tests_of(mutant: Mutant, reaches: list[Reach]) -> list[tuple[str, list[str], float]]:
    """Files with the tests that reach the mutant and their seconds, quick ones first."""
    place, found = f"{mutant.file}:{mutant.statement}", []
    for reach in reaches:
        tests = [one for one, hits in reach.statements.items() if place in hits]
        tests = sorted(set(tests) - set(reach.bad), key=lambda one: reach.seconds[one])
        if tests:
            found.append((reach.file, tests, sum(reach.seconds[one] for one in tests)))
    return sorted(found, key=lambda one: one[2])


def is_noticed(mutant: Mutant, files: list[tuple[str, list[str], float]]) -> bool | None:
    """Whether a test fails, or does not end, with this change; None if it cannot be made."""

    def work() -> int:
        try:
            apply(mutant)
        except ValueError:  # without it, the function has another closure
            return CANNOT_BE_MADE
        spent = 0.0
        for file, tests, seconds in files:
            if spent and spent + seconds > BUDGET_S:
                break
            spent += seconds
            used = sum(os.times()[:2])
            hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
            resource.setrlimit(resource.RLIMIT_CPU, (int(used + 20 + 5 * seconds), hard))
            status = int(pytest.main([file, "-x", *OPTIONS], [Chosen(tests)]))
            if status % NO_TESTS:
                return 1
        return 0

    status = in_child(work, seconds=HANGS_AFTER_S)
    return None if status == CANNOT_BE_MADE else status != 0


class Reaches:
    """What test files reach, found when it is first asked for."""

    def __init__(self, kept: Path) -> None:
        self._modules = [str(p.relative_to(ROOT)) for one in AREAS.values() for p in ROOT.glob(one)]
        self._kept, self._found = kept, dict[str, Reach]()
        for name in (*map(module_name, self._modules), *SLOW_IMPORTS):
            importlib.import_module(name)
        with contextlib.redirect_stdout(io.StringIO()):  # imports plugins
            pytest.main(["--collect-only", "tests/unit/test_core_metrics.py", *OPTIONS])

    def __contains__(self, file: str) -> bool:
        return file in self._found or kept_reach(file, self._kept) is not None

    def __getitem__(self, file: str) -> Reach:
        if file not in self._found:
            self._found[file] = reach_of(file, self._modules, self._kept)
            for test in self._found[file].bad:
                print(f"left out, fails without a change: {test}", flush=True)
        return self._found[file]


def outcome(mutant: Mutant, reaches: Reaches) -> str:
    """noticed, cannot be made, SURVIVES, or NOT REACHED, which is a survivor, too."""
    is_reached = False
    for files in candidates(mutant.file):
        known = [file for file in files if file in reaches]
        for some in (known, *([file] for file in files if file not in known)):
            tests = tests_of(mutant, [reaches[file] for file in some])
            is_reached |= bool(tests)
            noticed = is_noticed(mutant, tests) if tests else False
            if noticed is not False:
                return "noticed" if noticed else "cannot be made"
    return "SURVIVES" if is_reached else "NOT REACHED"


def main() -> int:
    parser = argparse.ArgumentParser(description="see the docstring")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=AREAS)
    parser.add_argument("--limit", type=float, default=0.2)
    given = parser.parse_args()
    os.chdir(ROOT)
    known = {mutant.key for mutants in all_mutants().values() for mutant in mutants}
    for key in sorted(EQUIVALENT.keys() - known):
        print(f"listed as equivalent, but not there: {key}", flush=True)
    reaches = Reaches(ROOT / "build" / "mutants")
    n_run, survivors = 0, []
    for mutant in drawn(given.n, given.seed, given.only):
        if mutant.key in EQUIVALENT:
            continue
        start, said = time.monotonic(), outcome(mutant, reaches)
        n_run += said != "cannot be made"
        if said in ("SURVIVES", "NOT REACHED"):
            survivors.append(mutant)
        print(f"{n_run} {said} {mutant} ({time.monotonic() - start:.0f} s)", flush=True)
    share = len(survivors) / max(n_run, 1)
    print(f"\n{len(survivors)} of {n_run} mutants survive ({share:.0%}):")
    print("\n".join(f"  {mutant}" for mutant in survivors))
    return int(share > given.limit)


if __name__ == "__main__":
    sys.exit(main())
