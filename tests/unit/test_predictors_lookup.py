"""Ranks of archs against enumeration; lookup tables against the predictor they were made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save
from typer.testing import CliRunner

from hwnas.cli.main import app
from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.core.rng import rng
from hwnas.interfaces import PredictorContext
from hwnas.pipeline.costs import cost_metrics
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.predictor import build_predictor
from hwnas.predictors import ridge
from hwnas.predictors.lookup import ScoreTable, load_table, save_table, table_of_space
from hwnas.spaces.cost import cost
from hwnas.spaces.enumeration import rank, unrank
from hwnas.spaces.load import build_space
from hwnas.spaces.space import SearchSpace
from hwnas.studies.score_table import _segment


@pytest.fixture(scope="module")
def space(tiny_space: SearchSpace) -> SearchSpace:
    """A part of mobilenet_tiny with inactive choices: few enough archs to look at all of them."""
    names = [choice.name for choice in tiny_space.choices]
    keep = {"stage0.depth", "resolution", "stage0.block1.kernel", "stage1.width"}
    one = {
        choice.name: (choice.values[-1],)
        for choice in tiny_space.choices
        if choice.name in names and choice.name not in keep
    }
    return tiny_space.restrict(one)


@pytest.fixture(scope="module")
def fitted(tiny_space: SearchSpace) -> ridge.TabularPredictor:
    codes = tiny_space.sample(60, rng=rng(0, "lookup"))
    predictor = ridge.build(ridge.Config(), PredictorContext(tiny_space, 0))
    predictor.fit(codes, np.log(cost(tiny_space, codes, "macs")) + codes[:, 1])
    return predictor


@pytest.mark.parametrize("name", ["nas_bench_macro", "mobilenet_tiny", "nasbench201"])
def test_ranks_and_archs_are_one_to_one(name: str, tiny_space: SearchSpace):
    spaces = {
        "mobilenet_tiny": tiny_space,
        "nasbench201": build_space("nasbench201", num_classes=9),
    }
    space = spaces.get(name) or build_space("nasbench_macro", num_classes=10)
    space = space.restrict({space.choices[-1].name: space.choices[-1].values[1:]})
    ranks = rng(0, "ranks").integers(space.size(), size=500)
    codes = unrank(space, ranks)
    assert space.validate(codes).all()
    np.testing.assert_array_equal(rank(space, codes), ranks)
    drawn = space.sample(500, rng=rng(1, "ranks"))
    np.testing.assert_array_equal(unrank(space, rank(space, drawn)), drawn)


def test_all_ranks_are_all_archs(space: SearchSpace):
    codes = unrank(space, np.arange(space.size()))
    assert len(np.unique(codes, axis=0)) == space.size() > 10


def test_archs_outside_have_no_rank(space: SearchSpace, tiny_space: SearchSpace):
    with pytest.raises(UserError, match="not in the space"):
        rank(space, tiny_space.sample(50, rng=rng(0, "outside")))


def made(fitted, space: SearchSpace) -> ScoreTable:
    return table_of_space(fitted.predict, space, source="ridge of a test", progress=silent)


def test_a_table_says_what_its_predictor_says_after_a_round_trip(fitted, space, tmp_path: Path):
    path = tmp_path / "lut.safetensors"
    save_table(path, made(fitted, space))
    table = load_table(path, space)
    assert (table.space, table.source) == (space, "ridge of a test")
    codes = space.sample(40, rng=rng(2, "lookup"))
    for found, expected in zip(table.predict(codes), fitted.predict(codes), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_one_table_answers_any_constraint_as_a_search_of_all_archs_would(fitted, space):
    table, metrics = made(fitted, space), cost_metrics(space, {})
    codes = unrank(space, np.arange(space.size()))
    scores = fitted.predict(codes)[0]
    for key in ("macs", "params", "peak_memory_bytes"):
        costs = metrics[key](codes)
        for share in (0.3, 0.6, 1.0):
            limit = float(np.quantile(costs, share))
            top = table.best(metrics, {key: limit}, k=3)
            keeps = costs <= limit
            assert (top.n_feasible, top.n) == (keeps.sum(), space.size())
            np.testing.assert_allclose(top.means, np.sort(scores[keeps])[::-1][:3], rtol=1e-6)
            assert (top.costs[key] <= limit).all()
            assert set(top.costs) == set(metrics)
    both = {"macs": float(np.median(metrics["macs"](codes))), "params": 1e12}
    assert (table.best(metrics, both, k=1).costs["macs"] <= both["macs"]).all()


def test_a_segment_is_one_arch_with_some_choices_free(tiny_space: SearchSpace):
    base = tiny_space.arch(tiny_space.sample(1, rng=rng(3, "lookup"))[0])
    part = _segment(tiny_space, base, ["stage1.*", "resolution"])
    codes = unrank(part, rng(4, "lookup").integers(part.size(), size=300))
    free = [c.name.startswith("stage1.") or c.name == "resolution" for c in tiny_space.choices]
    assert tiny_space.validate(codes).all()
    assert (codes[:, ~np.array(free)] == np.array(base.codes)[~np.array(free)]).all()
    others = [choice.name for choice, is_free in zip(tiny_space.choices, free) if not is_free]
    rest = _segment(tiny_space, base, others)  # both parts' choices depend on none of the other's
    assert part.size() * rest.size() == tiny_space.size()
    with pytest.raises(UserError, match=r"no choice matches 'stage9\.\*'"):
        _segment(tiny_space, base, ["stage9.*"])


def test_questions_that_have_no_answer_say_why(fitted, space, tiny_space, tmp_path: Path):
    table, metrics = made(fitted, space), cost_metrics(space, {})
    with pytest.raises(UserError, match=r"no arch of the table meets[\s\S]*the lowest is macs"):
        table.best(metrics, {"macs": 1.0}, k=1)
    with pytest.raises(
        UserError, match=r"lowest costs, each minimised separately: macs .*, params "
    ):
        table.best(metrics, {"macs": 1.0, "params": 1.0}, k=1)
    with pytest.raises(UserError, match="a limit is on an unknown metric: latency_ms@phone"):
        table.best(metrics, {"latency_ms@phone": 1.0}, k=1)
    for most in (-1.0, float("nan")):
        with pytest.raises(UserError, match=r"not a limit on macs[\s\S]*at least 0"):
            table.best(metrics, {"macs": most}, k=1)
    with pytest.raises(UserError, match=r"too many archs[\s\S]*--restrict"):
        table_of_space(fitted.predict, build_space("mobilenet_v3", num_classes=10), source="",
                       progress=silent)  # fmt: skip
    with pytest.raises(UserError, match="file not found"):
        load_table(tmp_path / "none.safetensors", space)
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"no table")
    with pytest.raises(UserError, match="not a lookup table"):
        load_table(torn, space)
    save_table(torn, table)
    with pytest.raises(UserError, match="another space"):
        load_table(torn, build_space("nasbench201", num_classes=10))


def test_the_verbs_write_a_table_and_answer_from_it_alone(tmp_path: Path):
    """A run that is nothing but a configuration and a fitted predictor, which then goes."""
    config = Path(__file__).parents[1] / "integration" / "mini.yaml"
    with open_project(
        tmp_path,
        config=str(config),
        changes={"predictor": {"name": "ridge"}},
        progress_for=lambda _: silent,
        command="test",
    ) as project:
        plain = project.config.model_dump(mode="json")
        project.run.path("config.yaml").write_text(yaml.safe_dump(plain))
        codes = project.space.sample(40, rng=rng(5, "lookup"))
        predictor = build_predictor(project)
        predictor.fit(codes, np.log(cost(project.space, codes, "params")))
        model = project.run.path("predictor", "model.safetensors")
        model.parent.mkdir()
        model.write_bytes(save(predictor.state()))

    def asked(*arguments: str) -> dict:
        done = CliRunner().invoke(
            app, ["predictor", *arguments, "--format", "json"], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    part = ("--base", "largest", "--free", "stage2.*", "--restrict", "resolution=[12]")
    (made,) = asked("export-lut", str(tmp_path), *part)["table"]
    assert made["archs"] == 3 * (6 + 6**2 + 6**3)  # widths, and depths of 1 to 3 blocks
    model.unlink()
    free = asked("lookup", str(tmp_path), "--top", "2")
    assert (free["n_feasible"], free["n"]) == (made["archs"], made["archs"])
    assert free["table"][0]["score"] == pytest.approx(made["best score"])
    limit = 0.5 * free["table"][0]["macs"] + 0.5 * min(row["macs"] for row in free["table"])
    tight = asked("lookup", str(tmp_path), "--max", f"macs={limit * 0.9}")
    assert 0 < tight["n_feasible"] < free["n_feasible"]
    assert all(row["macs"] <= limit * 0.9 for row in tight["table"])
    with pytest.raises(UserError, match=r"METRIC=VALUE[\s\S]*macs=few"):
        asked("lookup", str(tmp_path), "--max", "macs=few")
    with pytest.raises(UserError, match=r"two limits on macs[\s\S]*100000 and 1e\+09"):
        asked("lookup", str(tmp_path), "--max", "macs=1e5", "--max", "macs=1e9")
    with pytest.raises(UserError, match=r"CHOICE=\[VALUES\], e.g. resolution="):
        asked("export-lut", str(tmp_path), "--restrict", "resolution")
