"""Damaged or invented configs, journals, ledgers: refused with a reason, or taken as they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.core.errors import UserError
from hwnas.core.overrides import assignments
from hwnas.core.resources import resource, resource_names
from hwnas.core.rundir import RunDir, StageRecord
from hwnas.interfaces import Evaluation
from hwnas.pipeline.config import ExperimentConfig, load_config, read_config_data
from hwnas.pipeline.evaluators import JournaledEvaluator
from hwnas.spaces.arch import Arch

SHIPPED = resource_names("configs", ".yaml")
FAST = settings(max_examples=100)


def loaded(data: dict[str, Any]) -> ExperimentConfig | None:
    """The config, None if it was refused; refusals say where."""
    try:
        return load_config(data, where="fuzz")
    except UserError as error:
        assert "where:" in str(error) or "expected:" in str(error)
        return None


def assert_says_the_same(given: Any, dumped: Any, path: str = "") -> None:
    """Every key and value that was given is in the config: nothing was dropped or changed."""
    if isinstance(given, dict):
        assert isinstance(dumped, dict), path
        for key, value in given.items():
            assert key in dumped, f"{path}.{key} was dropped"
            assert_says_the_same(value, dumped[key], f"{path}.{key}")
    elif isinstance(given, list):
        assert isinstance(dumped, list) and len(given) == len(dumped), path
        for i, (one, other) in enumerate(zip(given, dumped)):
            assert_says_the_same(one, other, f"{path}.{i}")
    elif isinstance(given, str) and isinstance(dumped, dict):  # `predictor: gcn`
        assert dumped["name"] == given, path
    else:
        assert given == dumped and isinstance(given, bool) == isinstance(dumped, bool), path


def check(data: dict[str, Any]) -> None:
    config = loaded(data)
    if config is None:
        return
    dumped = config.model_dump(mode="json")
    if isinstance(data["space"], dict):  # a name may stand for a whole file
        assert_says_the_same(data, dumped)
    assert load_config(yaml.safe_load(yaml.safe_dump(dumped)), where="again") == config


@FAST
@given(st.data())
def test_no_mutated_config_text_ends_in_a_traceback_or_is_taken_otherwise(data):
    from hwnas.core.yaml_data import parse_yaml

    text = resource("configs", f"{data.draw(st.sampled_from(SHIPPED))}.yaml").read_text()
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        stop = min(len(text), start + data.draw(st.integers(0, 8)))
        insert = data.draw(
            st.sampled_from([":", "{", "}", "[", "-", " ", "\n", "0", "-1", "1e9", ".nan", "null",
                             "true", "x", "'", "!!binary aGk=", "2020-01-01", "&a ", "*a", "\x00"])
        )  # fmt: skip
        text = text[:start] + insert + text[stop:]
    try:
        parsed = parse_yaml(text, where="fuzz")
    except UserError:
        return
    check(parsed)


def leaves(value: Any, path: tuple = ()) -> list[tuple]:
    pairs = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(leaf for key, child in pairs for leaf in leaves(child, (*path, key)))]


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=6)
    | st.sampled_from(["gcn", "local", "digits", "random", "1", "-1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


OF_THE_SPACE = (["held"], ["restrict"])
"""Their keys are names of choices, which are checked when the space is there."""


@FAST
@given(st.data())
def test_no_mutated_config_data_ends_in_a_traceback_or_is_taken_otherwise(data):
    content = read_config_data(data.draw(st.sampled_from(SHIPPED)))[0]
    *parents, last = data.draw(st.sampled_from(leaves(content)[1:]))
    target = content
    for key in parents:
        target = target[key]
    action = data.draw(st.sampled_from(["replace", "remove", "rename"]))
    if action == "replace":
        target[last] = data.draw(PLAIN)
    elif action == "remove":
        del target[last]
    elif isinstance(target, dict):
        target[f"{last}{data.draw(st.sampled_from('sx_'))}"] = target.pop(last)
        if parents[-1:] not in OF_THE_SPACE:
            assert loaded(content) is None, "an unknown key was accepted"
    check(content)


@FAST
@given(st.lists(st.text(max_size=20) | st.sampled_from(
    ["train.steps=many", "seed=", "search.constraints.0.max=1", "space=3", "devices=[]",
     "search.constraints.7.max=1", "space.name=[1]", "train=null", "predictor=gcn", "seed=1e3",
     "data.name={}", "train.optimizer.lr=-1", "name=../x", "name=2020-01-01", "workers=99999"]
), max_size=3))  # fmt: skip
def test_no_assignment_ends_in_a_traceback(texts):
    try:
        config = load_config(read_config_data("digits")[0], assignments(texts), where="test")
    except UserError:
        return
    assert isinstance(config, ExperimentConfig)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.steps=many", "train.steps: expected a whole number, found 'many'"),
        ("train.steps=1.5", "train.steps: "),
        ("train.optimizer.lr=true", "train.optimizer.lr: "),
        ("devices=local", "devices: "),
        ("search.constraints.0.max=soon", "search.constraints.0.max: "),
        ("data.root=3", "data.root: unknown key"),
        ("name=2020-01-01", "in quotes|into quotes"),
    ],
)
def test_a_setting_of_a_wrong_type_names_its_key(assignment: str, message: str):
    with pytest.raises(UserError, match=message):
        load_config(read_config_data("digits")[0], assignments([assignment]), where="x")


# --- journal and ledger ---------------------------------------------------------------------------


def evaluation(i: int) -> Evaluation:
    return Evaluation(
        arch=Arch("space-1", (i, 2, 3)), top1=0.5 + i / 100, source="supernet", split="val",
        n_images=100, seed=0, val_loss=1.0 + i,
    )  # fmt: skip


class Counting:
    """An evaluator that tells how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[Arch] = []

    def evaluate(self, arch: Arch) -> Evaluation:
        self.asked.append(arch)
        return evaluation(arch.codes[0])


def journal(folder: Path) -> tuple[RunDir, Counting, JournaledEvaluator]:
    run, inner = RunDir(folder), Counting()
    return run, inner, JournaledEvaluator(run, "context", lambda: inner)


@pytest.fixture
def written(tmp_path: Path) -> bytes:
    run, _, scorer = journal(tmp_path)
    for i in range(4):
        scorer.evaluate(evaluation(i).arch)
    return run.path("journal.jsonl").read_bytes()


@settings(max_examples=200)
@given(st.data())
def test_no_mutated_journal_is_taken_for_another_measurement(tmp_path: Path, written: bytes, data):
    content = bytearray(written)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) // 2, len(content)))]
    (tmp_path / "journal.jsonl").write_bytes(content)
    try:
        _, inner, scorer = journal(tmp_path)
    except UserError as error:
        assert "journal.jsonl" in str(error)
        return
    for i in range(4):
        assert scorer.evaluate(evaluation(i).arch) == evaluation(i)
    assert len(inner.asked) <= 4


def test_an_altered_line_is_named_with_the_way_out(tmp_path: Path, written: bytes):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(written.replace(b'"top1": 0.51', b'"top1": 0.99'))
    with pytest.raises(UserError, match=r"journal\.jsonl:2[\s\S]*remove this line") as caught:
        journal(tmp_path)
    assert "expected:" in str(caught.value) and "found:" in str(caught.value)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:1], *lines[2:]]))
    _, inner, scorer = journal(tmp_path)
    assert scorer.evaluate(evaluation(1).arch) == evaluation(1)
    assert inner.asked == [evaluation(1).arch]


def test_no_mutated_ledger_ends_in_a_traceback(tmp_path: Path):
    run = RunDir(tmp_path)
    for name in ("train", "label"):
        run.record(name, StageRecord("abc", "done", {"labels/y": "0" * 64}, 1.5))
    original = run.path("stages.json").read_bytes()
    random = np.random.default_rng(0)
    accepted = 0
    for _ in range(400):
        content = bytearray(original)
        for position in random.integers(0, len(content), size=random.integers(1, 4)):
            content[position] = random.integers(0, 256)
        run.path("stages.json").write_bytes(content)
        try:
            ledger = run.ledger()
        except UserError:
            continue
        accepted += 1
        assert all(isinstance(record, StageRecord) for record in ledger.values())
    assert accepted < 400


def test_what_is_unknown_in_a_ledger_is_named(tmp_path: Path):
    run = RunDir(tmp_path)
    run.record("train", StageRecord("abc", "done", {}, 1.5))
    path = run.path("stages.json")
    data = json.loads(path.read_text())
    for changes, message in (
        ({"extra": 1}, r"expected: only known keys\n  found: the unknown key `extra`"),
        (
            {"schema_version": 2},
            r"newer hwnas\n  expected.*at most 1\n  found: `schema_version`: 2",
        ),
        ({"schema_version": "a"}, r"found: `schema_version`: a\n"),
        ({"changes": 7}, "found: other content: its hash is different"),
        ({"changes": "many", "check": None}, r"expected: `changes`: a whole number.*found: .*many"),
        ({}, "found: the same content, written in another way"),
    ):
        changed = {key: value for key, value in (data | changes).items() if value is not None}
        path.write_text(json.dumps(changed, indent=4))
        with pytest.raises(UserError, match=f"(?s){message}.*fix: .*remove it"):
            run.ledger()


@pytest.mark.parametrize(
    "content", [{"stages": []}, [], {"stages": {"train": None}}, {"stages": {"train": {}}}, 3]
)
def test_ledgers_of_another_shape_are_refused(tmp_path: Path, content: Any):
    (tmp_path / "stages.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"stages\.json"):
        RunDir(tmp_path).ledger()
