"""The rules of ARCHITECTURE.md that no linter checks: floors, paths, lengths, verbs' files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "hwnas"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_FLOORS, MAX_LINES, MAX_FUNCTION = 8, 300, 60
REASON = "# long:"  # in the line above a longer function, with the reason


def functions(module: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_modules_of_the_pipeline_lie_on_at_most_eight_floors() -> None:
    imports = grimp.build_graph("hwnas")
    floors: dict[str, int] = {}

    def floor(module: str) -> int:
        if module not in floors:
            below = imports.find_modules_directly_imported_by(module)
            inside = [name for name in below if name.startswith("hwnas.pipeline.")]
            floors[module] = 1 + max(map(floor, inside), default=0)
        return floors[module]

    modules = [name for name in imports.modules if name.startswith("hwnas.pipeline.")]
    assert len(modules) > 15
    assert max(map(floor, modules)) <= MAX_FLOORS, floors


def test_no_imports_run_in_circles() -> None:
    """What a type checker alone imports does not count: a method may hand itself to a function."""
    imports = grimp.build_graph("hwnas", exclude_type_checking_imports=True, cache_dir=None)
    below = {
        module: set(imports.find_modules_directly_imported_by(module)) for module in imports.modules
    }
    while leaves := {module for module, imported in below.items() if not imported}:
        below = {m: imported - leaves for m, imported in below.items() if m not in leaves}
    assert not below, sorted(below)


def test_no_module_is_longer_than_300_lines() -> None:
    lengths = {str(m.relative_to(ROOT)): len(m.read_text().splitlines()) for m in MODULES}
    assert len(lengths) > 200
    assert not {name: n for name, n in lengths.items() if n > MAX_LINES}


def test_a_function_of_more_than_60_lines_has_a_reason_beside_it() -> None:
    long = []
    for module in MODULES:
        lines = module.read_text().splitlines()
        for function in functions(module):
            assert function.end_lineno is not None
            first = min([function.lineno, *(d.lineno for d in function.decorator_list)])
            is_long = function.end_lineno - function.lineno >= MAX_FUNCTION
            if is_long and not lines[first - 2].strip().startswith(REASON):
                long.append(f"{module.relative_to(ROOT)}: {function.name}")
    assert not long


def test_paths_of_a_run_folder_are_spelled_in_artifacts_alone() -> None:
    """`run.path("...")` and quoted names of its files stand nowhere else."""
    spelling = ("pipeline/artifacts.py", "pipeline/search_files.py")
    source = "".join((PACKAGE / module).read_text() for module in spelling)
    files = set(re.findall(r'"([a-z]+\.(?:json|yaml|safetensors|html|onnx))"', source))
    assert {"config.yaml", "blend.json", "supernet.safetensors"} <= files
    common = {"report.html", "model.safetensors", "model.onnx"}  # also names inside other folders
    folders = set(re.findall(r'run\.path\("([a-z]+)"', source))
    assert {"tables", "checkpoints", "bundles"} <= folders
    into = re.compile(rf'/ f?"({"|".join(sorted(folders))})["/]')
    assert into.search('Path(run) / "tables"')
    found = []
    for module in MODULES:
        name = str(module.relative_to(PACKAGE))
        if name in (*spelling, "core/ledger.py", "core/rundir.py"):
            continue
        text = module.read_text()
        found += [f"{name}: {quoted}" for quoted in files - common if f'"{quoted}"' in text]
        if name.startswith(("pipeline", "studies", "api", "cli", "measure")):
            found += [f"{name}: {path.group()}" for path in into.finditer(text)]
            if re.search(r'run\.path\(\s*f?"', text):
                found.append(f"{name}: run.path")
    assert not found


def test_the_map_of_verbs_names_files_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    table = text[text.index("| verb | file |") : text.index("## Layers")]
    named = re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", table)
    assert len(named) > 20
    assert not [name for name in named if not (PACKAGE / name).exists()]


@pytest.mark.parametrize("layer", ["controller", "reporting", "measure", "studies", "builders"])
def test_layers_are_packages(layer: str) -> None:
    assert (PACKAGE / layer / "__init__.py").is_file()
