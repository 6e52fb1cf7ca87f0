"""The stage graph: what runs, what is kept, what a change makes stale, and nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.core.commit import Commit, commit_file, finish
from hwnas.core.errors import UserError
from hwnas.core.progress import Outlook, silent
from hwnas.core.rundir import RunDir
from hwnas.pipeline.config import load_config, read_config_data
from hwnas.pipeline.engine import execute
from hwnas.pipeline.graph import stages_of
from hwnas.pipeline.inputs import changed_settings, settings_by_path
from hwnas.pipeline.plan import Stage, plan_stages, time_left
from hwnas.pipeline.project import Project
from hwnas.spaces.cells import CellMacro
from hwnas.spaces.skeleton import Skeleton


class Pipeline:
    """measure -> train -> search, where every stage writes its settings and its inputs' text."""

    def __init__(self, root: Path) -> None:
        self.run = RunDir(root)
        self.settings = {"measure": 1, "train": 1, "search": 1}
        self.ran: list[str] = []
        self.fail_in: str | None = None
        self.stays: tuple[str, ...] = ()

    def stages(self) -> list[Stage]:
        needs = {"measure": (), "train": (), "search": ("measure", "train")}
        return [self._stage(name, needs[name]) for name in needs]

    def _stage(self, name: str, needs: tuple[str, ...]) -> Stage:
        def work() -> None:
            self.ran.append(name)
            folder = self.run.path("tables", name)
            folder.mkdir(exist_ok=True, parents=True)
            (folder / "partial").write_text("half")
            if self.fail_in == name:
                raise KeyboardInterrupt
            inputs = [self.run.path("tables", need, "out").read_text() for need in needs]
            (folder / "out").write_text(f"{name} {self.settings[name]} {inputs}")

        return Stage(
            name=name,
            command=f"hwnas {name}",
            needs=needs,
            settings=self.settings[name],
            owns=(f"tables/{name}",),
            outputs=(f"tables/{name}/out",),
            run=work,
            cost="nothing",
            stays=self.stays,
        )

    def execute(self, only: list[str] | None = None) -> list[str]:
        self.ran = []
        execute(self.stages(), self.run, only=only)
        return self.ran

    def status(self) -> dict[str, str]:
        return {plan.stage.name: plan.status for plan in plan_stages(self.stages(), self.run)}


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path)


def test_a_second_run_does_nothing(pipeline: Pipeline):
    assert set(pipeline.status().values()) == {"new"}
    assert pipeline.execute() == ["measure", "train", "search"]
    assert set(pipeline.status().values()) == {"done"}
    assert pipeline.execute() == []


def test_a_change_invalidates_its_stage_and_those_after_it(pipeline: Pipeline):
    pipeline.execute()
    pipeline.settings["train"] = 2
    assert pipeline.status() == {"measure": "done", "train": "stale", "search": "stale"}
    assert pipeline.execute() == ["train", "search"]
    assert "train 2" in pipeline.run.path("tables", "search", "out").read_text()


def test_what_a_change_made_stale_is_moved_aside_not_lost(pipeline: Pipeline):
    pipeline.execute()
    old = pipeline.run.path("tables", "train", "out").read_text()
    for setting in (2, 3):
        pipeline.settings["train"] = setting
        pipeline.execute()
    kept = sorted(p.read_text() for p in pipeline.run.path("superseded").rglob("tables/train/out"))
    assert kept == [old, old.replace("train 1", "train 2")]


def test_what_stays_can_be_used_until_it_is_replaced(pipeline: Pipeline):
    pipeline.stays = ("tables/search",)
    pipeline.execute()
    out = pipeline.run.path("tables", "search", "out")
    first = out.read_text()
    pipeline.settings["search"], pipeline.fail_in = 2, "search"
    with pytest.raises(KeyboardInterrupt):
        pipeline.execute()
    assert out.read_text() == first
    (kept,) = pipeline.run.path("superseded").rglob("tables/search/out")
    assert kept.read_text() == first and not [*pipeline.run.root.rglob("*.copying")]
    pipeline.fail_in = None
    assert pipeline.execute() == ["search"] and "search 2" in out.read_text()
    pipeline.settings["search"] = 1
    assert pipeline.execute() == [] and out.read_text() == first  # moved back


def test_a_copy_that_a_kill_interrupted_is_completed(tmp_path: Path):
    change = Commit(copies=(("tables/a", "superseded/x/tables/a"),))
    (tmp_path / "tables" / "a").mkdir(parents=True)
    (tmp_path / "tables" / "a" / "f").write_text("1")
    partial = tmp_path / "superseded" / "x" / "tables" / ".a.copying" / "a"
    partial.mkdir(parents=True)
    commit_file(tmp_path).write(change)
    finish(tmp_path, ["tables", "superseded"])
    assert (tmp_path / "superseded/x/tables/a/f").read_text() == "1"
    assert (tmp_path / "tables/a/f").read_text() == "1" and not partial.parent.exists()


def test_settings_that_change_no_output_stop_there(pipeline: Pipeline):
    pipeline.execute()
    pipeline.settings["train"] = True  # equal text, other settings
    pipeline.execute()
    text = pipeline.run.path("tables", "train", "out").read_text()
    pipeline.settings["train"] = "True"
    assert pipeline.execute() == ["train"]
    assert pipeline.run.path("tables", "train", "out").read_text() == text
    assert pipeline.status()["search"] == "done"


def test_an_interrupted_stage_continues_with_its_partial_files(pipeline: Pipeline):
    pipeline.fail_in = "train"
    with pytest.raises(KeyboardInterrupt):
        pipeline.execute()
    assert pipeline.status() == {"measure": "done", "train": "continues", "search": "new"}
    assert pipeline.run.path("tables", "train", "partial").exists()
    pipeline.fail_in = None
    assert pipeline.execute() == ["train", "search"]
    assert not pipeline.run.path("superseded").exists()


def test_a_changed_setting_sets_the_partial_files_of_an_interrupted_stage_aside(pipeline: Pipeline):
    pipeline.fail_in = "train"
    with pytest.raises(KeyboardInterrupt):
        pipeline.execute()
    pipeline.fail_in, pipeline.settings["train"] = None, 5
    pipeline.execute()
    assert len(list(pipeline.run.path("superseded").rglob("partial"))) == 1


def test_a_lost_or_altered_output_is_made_again(pipeline: Pipeline):
    pipeline.execute()
    pipeline.run.path("tables", "measure", "out").write_text("tampered")
    assert pipeline.status()["measure"] == "continues"
    assert pipeline.execute() == ["measure"]  # same content as before: search stays valid
    pipeline.run.path("tables", "train", "out").unlink()
    assert pipeline.execute() == ["train"]


def test_a_stage_alone_asks_for_what_it_needs_and_how(pipeline: Pipeline):
    with pytest.raises(UserError, match="hwnas measure && hwnas train"):
        pipeline.execute(only=["search"])
    assert pipeline.execute(only=["train"]) == ["train"]
    with pytest.raises(UserError, match=r"measure \(new\)"):
        pipeline.execute(only=["search"])


def test_stages_alone_give_the_same_as_all_at_once(pipeline: Pipeline, tmp_path: Path):
    pipeline.execute()
    other = Pipeline(tmp_path / "other")
    other.run.root.mkdir()
    for name in ("train", "measure", "search"):
        other.execute(only=[name])
    for name in ("train", "measure", "search"):
        one, two = (p.run.path("tables", name, "out").read_text() for p in (pipeline, other))
        assert one == two
        assert pipeline.run.ledger()[name].inputs_hash == other.run.ledger()[name].inputs_hash


def test_a_broken_ledger_is_a_user_error(pipeline: Pipeline):
    pipeline.execute()
    pipeline.run.path("stages.json").write_text('{"schema_version": 1, "stages": {"train": 3}}')
    with pytest.raises(UserError, match=r"stages\.json:train"):
        pipeline.status()


def test_metrics_repeated_after_a_resume_count_once(tmp_path: Path):
    run = RunDir(tmp_path)
    for step, value in ((10, 0.1), (20, 0.2), (20, 0.25), (30, 0.3)):
        run.metric("train", {"step": step, "top1": value})
    run.metric("finetune", {"step": 10, "top1": 0.9})
    assert [row["top1"] for row in run.metrics("train")] == [0.1, 0.25, 0.3]


def test_a_missing_file_is_said_before_anything_runs(pipeline: Pipeline, tmp_path: Path):
    outside = tmp_path / "elsewhere" / "weights.safetensors"
    ran: list[str] = []
    stages = [
        replace(
            stage,
            run=lambda name=stage.name, work=stage.run: (ran.append(name), work()),
            reads={"supernet.init": outside} if stage.name == "train" else {},
        )
        for stage in pipeline.stages()
    ]
    with pytest.raises(UserError, match=r"train[\s\S]*weights\.safetensors[\s\S]*supernet\.init"):
        execute(stages, pipeline.run)
    assert ran == []
    execute(stages, pipeline.run, only=["measure"])  # which does not read it
    outside.parent.mkdir()
    outside.write_bytes(b"weights")
    execute(stages, pipeline.run)
    assert ran == ["measure", "train", "search"]
    outside.unlink()
    execute(stages, pipeline.run)  # nothing is left to do
    assert ran == ["measure", "train", "search"]


def test_what_a_killed_writer_left_is_no_output(pipeline: Pipeline):
    """Found by the kill campaign: a half-written file beside the outputs was counted as one."""
    stages = [replace(stage, outputs=(f"tables/{stage.name}/*",)) for stage in pipeline.stages()]
    pipeline.fail_in = "train"
    with pytest.raises(KeyboardInterrupt):
        execute(stages, pipeline.run)
    leftover = pipeline.run.path("tables", "train", ".out.x1y2z3.tmp")
    leftover.write_bytes(b"ha")
    pipeline.fail_in = None
    execute(stages, pipeline.run)
    assert not leftover.exists()
    assert not any("tmp" in name for name in pipeline.run.ledger()["train"].outputs)


@pytest.mark.parametrize(
    ("setting", "changes"),
    [
        ("supernet.init", {"supernet.init": "/no/such/weights"}),
        (
            "train.teacher.weights",
            {"train.teacher": {"weights": "/no/such/teacher", "model": "resnet18"}},
        ),
        ("search.evaluator.records", {"search.evaluator.records": "/no/such/records"}),
    ],
)
def test_a_missing_file_is_found_before_the_first_stage(
    setting: str, changes: dict[str, object], tmp_path: Path
):
    data, where = read_config_data("digits")
    config = load_config(data, changes, where=where)
    project = Project(RunDir(tmp_path), config, lambda stage: silent)
    with pytest.raises(UserError, match=f"needs a file[\\s\\S]*/no/such[\\s\\S]*{setting}"):
        execute(stages_of(project), project.run)
    assert project.run.ledger() == {}


def test_a_space_without_a_supernet_is_refused_before_the_first_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Found by a newcomer: the whole device was profiled first."""
    monkeypatch.setattr(CellMacro, "lacks", Skeleton.lacks)
    data, where = read_config_data("digits")
    config = load_config(data, {"space": {"name": "nasbench201"}}, where=where)
    project = Project(RunDir(tmp_path), config, lambda stage: silent)
    with pytest.raises(UserError, match="space nasbench201 has no supernet"):
        execute(stages_of(project), project.run)
    assert project.run.ledger() == {}


def test_a_stage_says_why_it_runs_again(pipeline: Pipeline, caplog: pytest.LogCaptureFixture):
    """By setting, old value and new; by what runs before it; by what became of its files."""

    def why() -> dict[str, str]:
        return {plan.stage.name: plan.why for plan in plan_stages(named(), pipeline.run)}

    def named() -> list[Stage]:
        keys = {"steps": pipeline.settings["train"], "augment": {"flip": "x" * 90}}
        return [
            replace(stage, settings=[7, keys], names=("seed", "train"))
            if stage.name == "train"
            else stage
            for stage in pipeline.stages()
        ]

    assert set(why().values()) == {""}
    execute(named(), pipeline.run)
    assert set(why().values()) == {""}
    pipeline.settings["train"] = 20
    assert why() == {"measure": "", "train": "train.steps: 1 -> 20", "search": "train runs first"}
    pipeline.fail_in = "train"
    with pytest.raises(KeyboardInterrupt):
        execute(named(), pipeline.run)
    assert why()["train"] == "it was interrupted"
    ledger = pipeline.run.ledger()
    pipeline.run.record("measure", replace(ledger["measure"], settings={}, inputs_hash="old"))
    assert why()["measure"] == "settings or inputs changed", "as recorded by earlier versions"


def test_long_settings_are_named_and_many_are_counted() -> None:
    before = settings_by_path(["train"], [{"a": "x" * 99, "b": 1, "c": 1, "d": 1, "e": 1}])
    now = [{"a": "y" * 99, "b": 2, "c": 2, "d": 2, "f": None}]
    assert changed_settings(["train"], now, before) == [
        "train.a changed", "train.b: 1 -> 2", "train.c: 1 -> 2", "3 more settings changed",
    ]  # fmt: skip
    assert max(map(len, before.values())) <= 60
    assert changed_settings(["train"], [{"b": 1}], {}) == [], "nobody knows"


def test_the_command_that_comes_next_is_said(pipeline: Pipeline, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO"):
        for name, expected in (("measure", "hwnas train"), ("train", "hwnas search")):
            pipeline.execute([name])
            assert caplog.messages[-1] == f"next: {expected}"
        pipeline.execute(["search"])
        assert caplog.messages[-1] == f"next: hwnas report {pipeline.run.root}"
        caplog.clear()
        execute(pipeline.stages(), pipeline.run, then_reports=True)
        assert not [line for line in caplog.messages if line.startswith("next: ")]


def test_the_time_of_what_runs_is_said_and_only_that(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
):
    stages = [
        replace(stage, seconds=lambda seconds=seconds: seconds)
        for stage, seconds in zip(pipeline.stages(), (60.0, 30.0, None), strict=True)
    ]
    with caplog.at_level("INFO"):
        execute(stages, pipeline.run, only=["measure"])
        assert caplog.messages[0] == "measure: starts, about 60 s"
        caplog.clear()
        outlook = Outlook()
        execute(stages, pipeline.run, outlook=outlook)
    assert outlook.seconds == {"train": 30.0}
    assert "train: starts, about 30 s" in caplog.messages and "search: starts" in caplog.messages
    plan = plan_stages(stages, pipeline.run)[0]
    ledger = pipeline.run.ledger()
    assert time_left(plan, ledger) == 0.0
    begun = replace(ledger["measure"], seconds=45.0)
    half = replace(plan, status="continues")
    assert time_left(half, {"measure": begun}) == 15.0
    assert time_left(half, {"measure": replace(begun, seconds=500.0)}) == pytest.approx(6.0)
