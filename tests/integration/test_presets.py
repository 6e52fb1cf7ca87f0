"""Presets of the four papers: what each asks for, and its method in miniature, up to the search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import hwnas
from hwnas.core.errors import UserError
from hwnas.core.overrides import assignments
from hwnas.core.progress import silent
from hwnas.pipeline import project as project_module
from hwnas.pipeline.config import ExperimentConfig, load_config, read_config_data
from hwnas.pipeline.engine import execute
from hwnas.pipeline.graph import stages_of
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.project import Project
from hwnas.spaces.graphs import is_connected
from hwnas.studies.rank_analysis import analyze_run
from tests.kit import SizeTransport
from tests.photos import class_folders

PRESETS = ["wpnas", "pgonas", "gcn_fit", "supernet_study"]
FEW_DIGITS = ("data.val_fraction=0.15", "data.test_fraction=0.6")
TINY = (
    "data.base_px=8",
    "space.resolutions=[8]",
    "profile.rounds=2",
    "profile.min_rounds=2",
    "profile.time_budget_s=1",
    "profile.n_validation=6",
    "profile.hot_samples=2",
    "train.steps=4",
    "train.batch_size=16",
    "train.curve_every=4",
    "train.curve_images=32",
    "train.calibration.n_batches=1",
    "label.n_archs=20",
    "label.calibration.n_batches=1",
    "search.n_predictions=256",
    "search.generation_size=64",
    "search.n_evaluations=4",
)
RIDGE = "predictor={name: ridge}"  # where the graph network is not what is looked at


def preset(name: str) -> ExperimentConfig:
    data, where = read_config_data(name)
    return load_config(data, where=where)


@pytest.fixture
def searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run a preset in miniature on a simulated device, all that comes before fine-tuning."""
    monkeypatch.setattr(project_module, "load_transport", lambda name, **_: SizeTransport())

    def run(name: str, check: Callable[[Project], None], *settings: str) -> None:
        with open_project(
            tmp_path / "run",
            config=name,
            changes=assignments((*TINY, *settings)),
            progress_for=lambda _: silent,
            command="test",
        ) as project:
            stages = stages_of(project)
            names = [stage.name for stage in stages]
            execute(stages, project.run, only=names[: names.index("search/main") + 1])
            files = (project.files.main_search, project.files.baseline)
            winner, random = (searched.result.read().winner for searched in files)
            limited = project.config.search.constraints[0].metric
            assert all(any(limited in key for key in c.costs) for c in (winner, random))
            check(project)

    return run


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_of_digits_and_says_how_to_run_it(name: str):
    _, where = read_config_data(name)
    assert preset(name).data.name == "digits"
    assert f"# Run: hwnas run {name} " in where.read_text()


def test_wpnas_asks_for_what_its_paper_has():
    config = preset("wpnas")
    assert config.supernet.weak_sharing
    assert config.train.sampler.name == "policy"
    assert config.search.searcher.name == "policy_gradient"
    assert config.search.searcher.baseline == config.train.sampler.baseline == "self_critical"
    assert config.search.reward.form == "additive" and config.search.reward.weight > 0
    assert 12 <= config.label.trained.n <= 100  # few shots


def test_pgonas_asks_for_what_its_paper_has():
    config = preset("pgonas")
    assert config.train.sampler.name == "balanced" and config.train.sampler.ends
    ranking = config.train.ranking
    assert (ranking.prior.name, ranking.schedule, ranking.peak) == ("macs", "warmup", 2.0)
    for stage in config.space.stages:
        assert (stage.act, stage.out_act) == ("relu", "swish")  # smooth behind the sum only
    assert config.search.searcher.name == "evolution"


def test_gcn_fit_asks_for_what_its_paper_has():
    config = preset("gcn_fit")
    assert config.predictor.name == "gcn" and config.label.trained.n == 0
    assert config.search.searcher.name == "segments" and config.search.searcher.keep == 6


def test_supernet_study_asks_for_what_its_paper_has():
    config = preset("supernet_study")
    assert config.train.sampler.name == "uniform" and config.label.trained.n >= 30


def test_wpnas_joins_shared_weights_and_a_few_shot_predictor(searched):
    def check(project: Project) -> None:
        assert {e.source for e in project.files.read_labels("trained")} == {"trained"}
        assert project.files.predictor_report.read().sources == {"trained": 12, "supernet": 20}
        assert 0 <= project.files.blend.read().weight <= 1

    few = ("label.trained.n=12", "label.trained.recipe.epochs=1")
    searched(
        "wpnas",
        check,
        RIDGE,
        *FEW_DIGITS,
        "train.sampler.every=2",
        "train.sampler.n_trials=2",
        *few,
    )


def test_pgonas_ranks_pairs_beside_a_balanced_sandwich(searched):
    def check(project: Project) -> None:
        (row,) = project.run.metrics("train")
        assert len(row["losses"]) == 4 and len(row["ranking"]) == 2  # n + 2m = 8 forward passes

    searched("pgonas", check, RIDGE, *FEW_DIGITS)


def test_gcn_fit_fits_supernet_scores(searched):
    def check(project: Project) -> None:
        assert project.files.predictor_report.read().sources == {"supernet": 20}

    searched("gcn_fit", check, *FEW_DIGITS)


def test_supernet_study_says_how_far_the_supernet_can_be_trusted(searched):
    def check(project: Project) -> None:
        found = analyze_run(project, "supernet")[0]
        truth = project.run.path("labels", "trained.json")
        assert found == analyze_run(project, "supernet", [truth])[0]
        assert found.ranks.n == 14 and found.verdict and found.truth == str(truth)

    alone = ("label.trained.n=14", "label.trained.recipe.epochs=1")
    searched("supernet_study", check, RIDGE, *FEW_DIGITS, *alone)


CELLS = "space={name: nats_topology, resolutions: [8], width: 4, cells_per_stage: 1}"
FEW_TRAINED = {
    "wpnas": ("label.trained.n=12", "train.sampler.every=2", "train.sampler.n_trials=2"),
    "gcn_fit": (),
    "supernet_study": ("label.trained.n=14",),
}


@pytest.mark.parametrize(
    "name",
    ["wpnas", *(pytest.param(n, marks=pytest.mark.full) for n in ("gcn_fit", "supernet_study"))],
)
def test_a_preset_takes_cells(searched, name: str):
    def check(project: Project) -> None:
        assert project.space.id.startswith("nasbench201-") and not project.space.macro.is_chain
        archs = [label.arch for label in project.files.read_labels("supernet")]
        assert is_connected(project.space, project.space.codes(archs)).all()

    recipe = ("label.trained.recipe.epochs=1",) if FEW_TRAINED[name] else ()
    few = () if name == "gcn_fit" else (RIDGE,)
    searched(name, check, CELLS, *few, *FEW_DIGITS, *FEW_TRAINED[name], *recipe)


@pytest.mark.full
def test_wpnas_takes_darts(searched):
    def check(project: Project) -> None:
        assert project.space.id.startswith("darts-")
        assert len(project.files.read_labels("trained")) == 12

    space = "space={name: darts, resolutions: [8], width: 4, n_cells: 3}"
    recipe = [f"label.trained.recipe.{k}" for k in ("epochs=1", "drop_path=0.2", "auxiliary=0.4")]
    searched("wpnas", check, space, RIDGE, *FEW_DIGITS, *FEW_TRAINED["wpnas"], *recipe)


# --- own photos -----------------------------------------------------------------------------------

SMALL = ("supernet.init=null", "space.model=mobilenetv3_small_050", "data.base_px=33")
PX = ("space.resolutions=[24, 33]", "data.repeat_to=160")


def test_photos_needs_the_folder_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    config = preset("photos")
    assert config.supernet.init == "shipped" and config.data.normalise == "inception"
    assert config.train.head_epochs and config.train.elastic_warmup
    limit = config.search.constraints[0]
    assert (limit.device, limit.metric) == ("local", "latency_ms")
    assert 0 < limit.max_fraction_of_largest < 1
    for batch in (config.train, config.train.calibration, config.label.calibration):
        assert batch.batch_size <= config.data.repeat_to
    assert config.finetune.batch_size <= config.data.repeat_to
    with caplog.at_level("WARNING"):
        assert preset("image_folder") == config
    assert "now called photos" in caplog.text


def test_photos_as_shipped_passes_every_check_with_ten_photos(tmp_path, monkeypatch):
    """Weights included; no network is used."""
    monkeypatch.chdir(tmp_path)
    root = class_folders(tmp_path / "pets", ["cat", "dog"], 5)
    plan = hwnas.plan(tmp_path / "run", config="photos", settings={"data.root": str(root)})
    assert {row["status"] for row in plan} == {"new"}


@pytest.mark.parametrize(("n_classes", "n_each"), [(2, 5), (30, 5)])
def test_photos_of_few_images_and_of_many_classes(searched, tmp_path, n_classes, n_each):
    def check(project: Project) -> None:
        n_test = n_classes * max(1, round(0.2 * n_each))
        assert project.data.info.n_images["test"] == n_test
        assert len(project.data.info.class_names) == n_classes
        assert project.data.info.n_images["train"] >= 160
        (row,) = project.run.metrics("train")
        assert len(row["losses"]) == 3

    root = class_folders(tmp_path / "photos", [f"class {n:02}" for n in range(n_classes)], n_each)
    searched("photos", check, RIDGE, *SMALL, *PX, f"data.root={root}")


@pytest.mark.parametrize(
    ("n_classes", "n_each", "says"),
    [
        (1, 10, "at least two classes"),
        (3, 1, "has no val images"),
        (4, 0, "no class folder has images"),
    ],
)
def test_too_few_photos_are_refused_before_anything_runs(
    searched, tmp_path, n_classes, n_each, says
):
    root = class_folders(tmp_path / "photos", [f"class {n}" for n in range(n_classes)], n_each)
    with pytest.raises(UserError, match=says):
        searched("photos", lambda project: None, RIDGE, *SMALL, *PX, f"data.root={root}")
    assert not list((tmp_path / "run").glob("tables/*"))
