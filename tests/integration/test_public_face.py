"""`import hwnas`: light, complete, typed, and the same functions as the command line."""

from __future__ import annotations

import ast
import builtins
import json
import subprocess
import sys
from dataclasses import replace
from inspect import unwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hwnas
from hwnas.api import open_run as open_run_module
from hwnas.api import search as api_search
from hwnas.pipeline.artifacts import Artifacts
from hwnas.pipeline.evaluators import evaluator
from hwnas.spaces.enumeration import unrank

ROOT = Path(__file__).resolve().parents[2]
EPYC = "amd-epyc-2vcpu-mobilenet_v3"
INT8 = "amd-epyc-2vcpu-int8-mobilenet_v3"


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- names ----------------------------------------------------------------------------------------


def test_import_is_light_and_dir_lists_the_names() -> None:
    heavy = "numpy pydantic yaml torch timm onnx onnxruntime sklearn scipy plotly rich typer"
    names = fresh(
        "import sys, hwnas\n"
        f"heavy = sorted(set({heavy.split()}) & set(sys.modules))\n"
        "assert not heavy, heavy\n"
        "assert 'list' in dir(hwnas) and set(hwnas.__all__) <= set(dir(hwnas))\n"
        "print(*dir(hwnas))"
    ).split()
    assert {"space", "latency_table", "Supernet", "export", "open_run", "search"} <= set(names)


def test_a_space_a_table_and_a_plan_need_no_torch() -> None:
    fresh(
        "import sys, hwnas\n"
        "space = hwnas.space('mobilenet_tiny')\n"
        "str(space), space._repr_html_(), space.cost(space.sample(3, seed=0), 'macs')\n"
        f"hwnas.latency_table({EPYC!r}), hwnas.list('searchers')\n"
        "hwnas.plan('no-such-folder', config='digits')\n"
        "assert not {'torch', 'sklearn', 'plotly'} & set(sys.modules)"
    )


def test_names_for_type_checkers_are_the_names_of_the_module() -> None:
    tree = ast.parse((ROOT / "hwnas" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {name.name: node for node in block.body for name in node.names}  # type: ignore[attr-defined]
    assert typed.keys() == {*hwnas.__all__, "list"} - {"__version__"}
    for name, node in typed.items():
        module = sys.modules[getattr(hwnas, name).__module__] if name != "Score" else api_search
        theirs = getattr(__import__(node.module, fromlist=[name]), name)
        assert theirs is unwrap(getattr(hwnas, name))
        assert module is not None


def test_no_submodule_shadows_a_public_name() -> None:
    fresh(
        "import importlib, pkgutil, types, hwnas\n"
        "for module in pkgutil.walk_packages(hwnas.__path__, 'hwnas.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
        "for name in (*hwnas.__all__, 'list'):\n"
        "    value = getattr(hwnas, name)\n"
        "    assert not isinstance(value, types.ModuleType), name\n"
        "    assert name == '__version__' or callable(value) or name == 'Score', name\n"
        "assert hwnas.space('mobilenet_tiny').name == 'mobilenet_tiny'"
    )


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'spaec'"):
        hwnas.spaec  # noqa: B018


def test_star_import_leaves_builtins_alone() -> None:
    assert not set(hwnas.__all__) & set(dir(builtins))


# --- what the functions do ------------------------------------------------------------------------

SNIPPET = """
import hwnas
space = hwnas.space("mobilenet_v3", resolutions=(128, 160, 192, 224))
archs = space.sample(1000, seed=0);  macs = space.cost(archs, "macs")
table = hwnas.latency_table("amd-epyc-2vcpu-mobilenet_v3");  est = table.estimate(space, archs)
net = hwnas.Supernet(space, seed=0);  sub = net.extract(archs[est.ms.argmin()], recalibrate_on=batches);  hwnas.export(sub, "onnx", "out/")
run = hwnas.open_run("runs/quickstart");  run.winner, run.front, run.table()
best = hwnas.search(space, score=my_function, limits={"latency_ms@amd-epyc-2vcpu": 8.0}, tables=[table])
"""  # noqa: E501 - as it was asked for


def test_the_first_lines_of_the_public_face_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    seen: dict[bytes, int] = {}

    def my_function(codes: Any) -> Any:
        for row in codes:
            seen[row.tobytes()] = seen.get(row.tobytes(), 0) + 1
        return -(codes.astype(float) ** 2).sum(axis=1)

    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(2, 3, 160, 160, generator=generator) for _ in range(2)]
    names: dict[str, Any] = {"batches": [(x, None) for x in images], "my_function": my_function}
    exec(SNIPPET, names)
    est, best, sub = names["est"], names["best"], names["sub"]
    assert est.ms.shape == est.low.shape == est.high.shape == (1000,)
    assert (est.low < est.ms).all() and (est.ms < est.high).all()
    assert json.loads(json.dumps(est.to_dict()))["ms"] == est.ms.tolist()
    assert (tmp_path / "out" / "model.onnx").is_file() and not sub.training
    assert best.winner.latency_ms["amd-epyc-2vcpu"] <= 8.0
    costs = [point.latency_ms["amd-epyc-2vcpu"] for point in best.front]
    scores = [point.score for point in best.front]
    assert costs == sorted(costs) and scores == sorted(scores) and len(costs) > 2
    assert sum(seen.values()) == best.n_scored + 256  # each arch once, and those of the scale
    assert json.dumps(best.to_dict())


def test_a_search_with_ones_own_score_finds_the_best_of_an_enumerable_space() -> None:
    space = hwnas.space("nasbench201")
    weights = np.random.default_rng(0).normal(size=(7, 5))

    def score(codes: Any) -> Any:
        return weights[np.arange(7), codes].sum(axis=1)

    found = hwnas.search(
        space, score=score, limits={"params": 5e5}, searcher="exhaustive", budget=20_000
    )
    everything = unrank(space, np.arange(space.size()))
    allowed = everything[space.cost(everything, "params") <= 5e5]
    assert 0 < len(allowed) < len(everything)
    assert found.winner.score == pytest.approx(score(allowed).max())
    assert found.winner.costs["params"] <= 5e5 and found.limits == {"params": 5e5}
    words = str(found)
    assert found.winner.arch.key in words and f"params {found.winner.costs['params']:.4g}" in words
    assert len(words) < 200


def test_a_listing_prints_its_title_and_a_line_per_row() -> None:
    rows = [{"name": "a", "n": 1}, {"name": "b", "n": 2}]
    assert str(hwnas.Listing(rows, title="two")) == "two\nname: a, n: 1\nname: b, n: 2"
    assert str(hwnas.Listing(rows, shown=[{"name": "short"}])) == "name: short"


def test_shipped_configurations_are_summed_up_in_a_sentence() -> None:
    summaries = [row["summary"] for row in hwnas.list("configs")]
    assert summaries and all(summary.endswith((".", "?")) for summary in summaries)


def test_a_search_is_repeated_by_its_seed_and_continued_from_its_folder(tmp_path: Path) -> None:
    space = hwnas.space("mobilenet_tiny")
    n_calls = 0

    def score(codes: Any) -> Any:
        nonlocal n_calls
        n_calls += len(codes)
        return codes.sum(axis=1)

    asked: dict[str, Any] = {"score": score, "budget": 300, "limits": {"macs": 5e6}}
    first = hwnas.search(space, **asked, seed=1, folder=tmp_path)
    assert hwnas.search(space, **asked, seed=1) == first
    before = n_calls
    assert hwnas.search(space, **asked, seed=1, folder=tmp_path) == first
    assert n_calls - before < 300 < before


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"score": lambda codes: 1.0}, "one finite number per arch"),
        ({"score": lambda codes: np.full(len(codes), np.nan)}, "one finite number per arch"),
        ({"limits": {"latency_ms": 3.0}}, "no such limit"),
        ({"limits": {"latency_ms~1.0@phone": 3.0}}, "a probability between 0.5 and 1"),
        ({"limits": {"latency_ms~0.9@phone": 3.0, "latency_ms@phone": 2.0}}, "2 limits on latency"),
        ({"limits": {"macs@phone": 3.0}}, "no such limit"),
        ({"limits": {"macs": -1}}, "greater than 0"),
        ({"limits": {"latency_ms@phone": 3.0}}, "no estimate of this metric"),
        ({"limits": {"macs": 1.0}}, "no arch of the space meets"),
        ({"searcher": "evolutoin"}, "evolutoin"),
        ({"searcher": {"name": "evolution", "no_such_key": 1}}, "no_such_key"),
    ],
)
def test_a_search_refuses_bad_input(changes: dict[str, Any], text: str) -> None:
    asked = {"score": lambda codes: codes.sum(axis=1), "budget": 10, **changes}
    with pytest.raises(hwnas.UserError, match=text):
        hwnas.search(hwnas.space("mobilenet_tiny"), **asked)


def test_extract_recalibrates_at_the_resolution_of_the_arch() -> None:
    from hwnas.nets.bn import recalibrate
    from hwnas.nets.extract import extract
    from hwnas.nets.images import resize

    space = hwnas.space("mobilenet_tiny", num_classes=5)
    net = hwnas.Supernet(space, seed=0)
    arch, x = (
        space.smallest(),
        torch.randn(4, 3, 40, 40, generator=torch.Generator().manual_seed(1)),
    )
    px = space.view(arch)["resolution"]
    assert isinstance(px, int)
    expected = recalibrate(extract(net, arch), [resize(x, px)])(resize(x, px))
    for given in (arch, arch.codes, np.array(arch.codes, dtype=np.int64)):
        for batches in ([x], [(x, torch.zeros(4))]):
            found = net.extract(given, recalibrate_on=batches)
            assert torch.equal(found(resize(x, px)), expected) and not found.training
    assert net.extract(arch).training
    with pytest.raises(hwnas.UserError):
        net.extract([99] * len(arch.codes))
    with pytest.raises(hwnas.UserError, match="at least one batch"):
        net.extract(arch, recalibrate_on=[])


def test_open_run_reads_what_the_run_found_and_writes_nothing(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    run = hwnas.open_run(folder)
    result = json.loads((folder / "search" / "main" / "result.json").read_text())
    assert list(run.winner.arch.codes) == result["winner"]["arch"]["codes"]
    assert run.winner.latency_ms.keys() == set(run.project.devices)
    assert run.limits == result["limits"]
    known = {
        row["evaluation"]["arch"]["codes"].__str__(): row["evaluation"]["top1"]
        for row in map(json.loads, (folder / "journal.jsonl").read_text().splitlines())
        if "evaluation" in row and row["evaluation"]["source"] == "supernet"
    }
    assert run.winner.accuracy == known[str(list(run.winner.arch.codes))]
    front = run.front
    assert [p.costs["latency_ms@local"] for p in front] == sorted(
        p.costs["latency_ms@local"] for p in front
    )
    assert run.table() == [network.summary() for network in run.networks]
    assert run.networks[0].name == "winner" and "done: profile/local" in str(run)
    for figure in (run.plot_front(), run.plot_latency(), run.plot_predictor()):
        assert len(figure.data) > 1
    net, x = run.network("winner"), torch.zeros(1, run.space.macro.in_channels, 8, 8)
    assert net(x).shape == (1, 10) and run.supernet().space == run.space
    with pytest.raises(hwnas.UserError, match="no such network"):
        run.network("best")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_front_shows_an_arch_once_that_is_a_label_and_was_evaluated_by_the_search(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = hwnas.open_run(folder)
    again = [evaluator(run.project).evaluate(point.arch) for point in (*run.front, run.winner)]
    labels = [*run.labels(), *again, *again]
    monkeypatch.setattr(Artifacts, "read_labels", lambda *_: labels)
    (staircase,) = [trace for trace in run.plot_front().data if trace.name == "front"]
    assert len(set(staircase.text)) == len(staircase.text) > 0


def test_what_a_run_has_not_made_yet_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((ROOT / "configs" / "quickstart.yaml").read_text())
    run = hwnas.open_run(tmp_path)
    for what in ("winner", "front", "networks", "supernet", "network"):
        with pytest.raises(hwnas.UserError):
            value = getattr(run, what)
            value()
    assert run.status()[0]["status"] == "new"


@pytest.mark.parametrize("n", [1, 5])
def test_a_space_samples_by_seed_or_generator(n: int) -> None:
    space = hwnas.space("mobilenet_tiny")
    assert (space.sample(n, seed=3) == space.sample(n, seed=3)).all()
    assert not (space.sample(9, seed=3) == space.sample(9, seed=4)).all()
    generators = np.random.default_rng(0), np.random.default_rng(0)
    assert (space.sample(n, rng=generators[0]) == space.sample(n, rng=generators[1])).all()
    for given in ({}, {"seed": 1, "rng": generators[0]}):
        with pytest.raises(hwnas.UserError, match="needs one of `seed` and `rng`"):
            space.sample(n, **given)  # type: ignore[arg-type]


def test_cost_takes_archs_or_codes_and_refuses_others() -> None:
    space = hwnas.space("mobilenet_tiny", num_classes=10)
    codes = space.sample(4, seed=0)
    archs = [space.arch(row) for row in codes]
    assert (space.cost(archs, "macs") == space.cost(codes, "macs")).all()
    assert (
        2 * space.cost(codes, "peak_memory_bytes", precision="fp16")
        == space.cost(codes, "peak_memory_bytes")
    ).all()
    other = hwnas.space("mobilenet_tiny", num_classes=11).largest()
    for wrong in ([other], codes[:, :-1], codes.astype(float), codes + 90):
        with pytest.raises(hwnas.UserError):
            space.cost(wrong, "macs")
    with pytest.raises(hwnas.UserError, match="peak_memory_bytes"):
        space.cost(codes, "flops")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["mobilenet_tiny", "nasbench201", "fbnet"])
def test_a_space_prints_and_draws_itself(name: str) -> None:
    import xml.etree.ElementTree as xml

    space = hwnas.space(name)
    line = str(space)
    assert "\n" not in line and space.id in line and "1000 classes" in line and "MACs" in line
    drawing = xml.fromstring(space._repr_html_())
    assert int(drawing.attrib["width"]) >= 12 * 0.6023 * len(str(space)), "DejaVu Sans Mono, 12 px"
    drawn = "".join(drawing.itertext())
    for choice, allowed in zip(space.choices, space.allowed, strict=True):
        assert choice.name.split(".")[0] in drawn
        assert all(str(choice.values[code]) in drawn for code in allowed[:3])
    some = space.choices[-1]
    narrowed = space.restrict({some.name: some.values[:1]})
    assert len(narrowed._repr_html_()) < len(space._repr_html_())


def test_settings_for_a_space_that_is_built_are_refused() -> None:
    with pytest.raises(hwnas.UserError, match="a space object"):
        hwnas.space_show(hwnas.space("mobilenet_tiny"), settings={"resolutions": [16]})


def test_the_front_of_a_device_is_never_that_of_another_whose_name_begins_alike(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both searches price both devices; each device's front is that of its own search."""
    run = hwnas.open_run(folder)
    stored = run.project.files.main_search.result.read()
    keys = ("macs", "latency_ms@local", "latency_ms@local_int8")
    results = {
        "local": replace(stored, fronts=dict.fromkeys(keys, (stored.winner,))),
        "local_int8": replace(stored, fronts=dict.fromkeys(keys, (stored.top[-1],))),
    }
    assert stored.winner != stored.top[-1]
    monkeypatch.setattr(hwnas.Run, "_result", lambda self, target: results[target])
    for order in (("local", "local_int8"), ("local_int8", "local")):
        monkeypatch.setattr(open_run_module, "targets", lambda project, order=order: order)
        fronts = hwnas.open_run(folder).fronts
        assert set(fronts) == {"latency_ms@local", "latency_ms@local_int8"}
        for device in order:
            (point,) = fronts[f"latency_ms@{device}"]
            (expected,) = results[device].fronts["macs"]
            assert point.arch == expected.arch
