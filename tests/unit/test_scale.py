"""Limits on size, scaled down: what is large is answered, or refused with the limit named.

The sizes themselves are in `benchmarks/scale.py`.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.core import yaml_data
from hwnas.core.config import StrictModel, build_model
from hwnas.core.errors import MAX_TEXT, UserError
from hwnas.core.rundir import RunDir
from hwnas.core.yaml_data import parse_yaml
from hwnas.interfaces import PredictorContext, SamplerContext, SearcherContext
from hwnas.pipeline.disk import disk_text, disk_use
from hwnas.predictors import REGISTRY as PREDICTORS
from hwnas.searchers import REGISTRY as SEARCHERS
from hwnas.spaces import limits
from hwnas.spaces.chains import MobileMacro
from hwnas.spaces.choice import MAX_VALUES, Choice
from hwnas.spaces.index import enumerate_ops, op_sum
from hwnas.spaces.load import build_space
from hwnas.spaces.space import SearchSpace
from hwnas.testing import load_or_skip
from hwnas.testing.samplers import archs_of, prices
from hwnas.testing.suite import quick
from hwnas.training.samplers import REGISTRY as SAMPLERS

STAGE = {"widths": [8], "kernels": [3], "expands": [1]}


def mobile(*stages: dict[str, Any], **more: Any) -> SearchSpace:
    base = {"resolutions": [16, 24], "stem": {"widths": [8]}, "head": {"width": 16}}
    return build_space("mobile", {**base, "stages": list(stages), **more}, num_classes=2)


@pytest.fixture(scope="module")
def wide() -> SearchSpace:
    """600 archs, most of whose operators have a code that no byte holds."""
    ops = [{"name": f"e{n}", "expand": 1 + n / 16} for n in range(300)]
    return mobile({"widths": [8], "ops": ops})


# --- choices of more than 256 values --------------------------------------------------------------


def beyond_a_byte(codes: np.ndarray) -> int:
    return int((codes[:, -1] >= 256).sum())


@pytest.mark.parametrize("name", SEARCHERS.names)
def test_searchers_propose_codes_beyond_one_byte(name: str, wide: SearchSpace) -> None:
    module = load_or_skip(SEARCHERS, name)
    searcher = module.build(quick(module), SearcherContext(wide, 0))
    proposed = []
    for _ in range(6):
        proposed.append(searcher.ask(100))
        searcher.tell(proposed[-1], proposed[-1][:, -1] / 300)
    codes = np.concatenate(proposed)
    assert wide.validate(codes).all()
    assert beyond_a_byte(codes)


@pytest.mark.parametrize("name", SAMPLERS.names)
def test_samplers_draw_codes_beyond_one_byte(name: str, wide: SearchSpace) -> None:
    module = load_or_skip(SAMPLERS, name)
    sampler = module.build(quick(module), SamplerContext(wide, 0, 100, prices(wide)))
    archs = [arch for step in range(90, 100) for arch in archs_of(sampler.slots(step))]
    assert all(wide.check(arch) for arch in archs)
    assert beyond_a_byte(wide.codes(archs))


@pytest.mark.parametrize("name", PREDICTORS.names)
def test_predictors_tell_codes_apart_that_end_in_one_byte(name: str, wide: SearchSpace) -> None:
    module = load_or_skip(PREDICTORS, name)
    predictor = module.build(quick(module), PredictorContext(wide, 0))
    codes = np.repeat(wide.sample(1, seed=0), 60, axis=0)
    codes[:, -1] = [10, 266] * 30
    predictor.fit(codes, codes[:, -1] / 300.0)
    low, high = predictor.predict(codes[:2])[0]
    assert low < high


# --- spaces and configurations --------------------------------------------------------------------


def test_a_choice_has_at_most_as_many_values_as_codes() -> None:
    Choice("c", "op", tuple(map(str, range(MAX_VALUES))))
    with pytest.raises(UserError, match=r"too many values(.|\n)*32,768"):
        Choice("c", "op", tuple(map(str, range(MAX_VALUES + 1))))


def too_many_values() -> SearchSpace:
    return mobile(*[{**STAGE, "depths": [64]}] * 32)


def too_many_combinations() -> SearchSpace:
    widths = list(range(8, 520, 8))
    wide = {**STAGE, "widths": widths, "kernels": [3, 5, 7], "expands": list(range(1, 17))}
    return mobile(wide, wide, wide)


def too_many_operators() -> SearchSpace:
    widths = list(range(8, 72, 8))
    return mobile(*[{**STAGE, "widths": widths, "stride": 2}] * 3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (too_many_values, r"values of choices(.|\n)*at most 1,949 values in a network of 2,052 op"),
        (too_many_combinations, r"combinations of choices(.|\n)*stage0.width \(64\)"),
        (too_many_operators, r"too many operators(.|\n)*at most 100 different(.|\n)*at least 101"),
    ],
)
def test_a_small_description_of_a_huge_space_is_refused_with_the_limit(
    build: Callable[[], SearchSpace], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And before all of it is tabulated: what is lowered is counted."""
    assert limits.MAX_OPERATORS == 40_000
    monkeypatch.setattr(limits, "MAX_OPERATORS", 100)
    n_lowered, lower = 0, MobileMacro.lower_slots

    def counted(self: MobileMacro, codes: tuple[int, ...]) -> Any:
        nonlocal n_lowered
        n_lowered += 1
        return lower(self, codes)

    monkeypatch.setattr(MobileMacro, "lower_slots", counted)
    with pytest.raises(UserError, match=message):
        build()
    assert n_lowered < 1000


def test_sixty_blocks_and_1e20_archs_are_no_limit() -> None:
    space = mobile(*[{**STAGE, "depths": [2, 3, 4], "kernels": [3, 5], "expands": [1, 2]}] * 15)
    assert space.size() > 1e20
    ops = enumerate_ops(space)
    assert len(space.macro.slot_names()) > 60
    total = op_sum(space, space.sample(100, seed=0), np.ones(len(ops)))
    assert total.min() >= 2 * 15


def test_long_files_of_yaml_are_refused_with_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert yaml_data.MAX_NODES == 50_000
    monkeypatch.setattr(yaml_data, "MAX_NODES", 201)
    keys = [f"k{n}: 1\n" for n in range(101)]
    assert len(parse_yaml("".join(keys[:100]), where="here")) == 100
    with pytest.raises(UserError, match="more than 201 keys and values"):
        parse_yaml("".join(keys), where="here")


def test_sixty_to_the_ten_thousandth_is_no_number() -> None:
    with pytest.raises(UserError, match="not valid YAML"):
        parse_yaml("a: " + "1:" * 10_000 + "1", where="here")


class Section(StrictModel):
    """A configuration."""

    steps: int = 1
    """Of something."""


def test_of_many_problems_the_first_twenty_are_told() -> None:
    """What each of 60,000 unknown keys may have meant took minutes to find."""
    with pytest.raises(UserError) as caught:
        build_model(Section, {f"step{n}": 1 for n in range(1000)}, where="here")
    lines = str(caught.value).splitlines()
    assert "1,000 problems" in lines[0] and "980 more" in str(caught.value)
    assert sum("did you mean 'steps'" in line for line in lines) == 20


def test_one_part_of_an_error_is_of_bounded_length() -> None:
    text = str(UserError("wrong", found="x" * 10 * MAX_TEXT))
    assert len(text) < 1.1 * MAX_TEXT and f"{9 * MAX_TEXT:,} characters more" in text


# --- run folders ----------------------------------------------------------------------------------


def test_the_journal_is_read_line_by_line(tmp_path: Path) -> None:
    """A million lines took 4 GB."""
    run, row = RunDir(tmp_path), {"context": "c", "text": "x" * 10_000}
    for _ in range(200):
        run.journal("evaluation", row)
    tracemalloc.start()
    assert sum(1 for _ in run.journaled("evaluation")) == 200
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < run.journal_file.stat().st_size / 5


def test_the_disk_use_of_a_run_tells_what_can_be_removed(tmp_path: Path) -> None:
    files = {
        "config.yaml": 10,
        "superseded/train-1/checkpoints/supernet.safetensors": 200,
        "superseded/train-1/stage.json": 20,
        "superseded/profile-1/tables/local/plan.json": 1,
        "superseded/profile-1/tables/local/models/a.onnx": 9,
        "tables/local/plan.json": 30,
        "tables/local/models/a.onnx": 500,
        "bundles/main/local/models/fp32.onnx": 4000,
    }
    for name, n_bytes in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(n_bytes))
    (tmp_path / "link").symlink_to("/usr")
    use = disk_use(RunDir(tmp_path))
    assert use["bytes"] == sum(files.values())
    assert (use["superseded_bytes"], use["timed_models_bytes"]) == (230, 500)
    text = disk_text({**use, "bytes": 10**9, "superseded_bytes": 12_000_000}, "hwnas clean r")
    assert text.startswith("1.0 GB") and "12 MB superseded" in text and "(hwnas clean r)" in text
