"""Public functions called wrongly from Python: refused with what was expected and found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import hwnas
from hwnas import SearchSpace, Supernet, UserError
from hwnas.api import export_formats as api_formats
from hwnas.api import search as api_search
from tests.old_runs import unpacked_run

EPYC = "amd-epyc-2vcpu-mobilenet_v3"


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return hwnas.space("mobilenet_tiny", num_classes=10)


@pytest.fixture(scope="module")
def supernet(space: SearchSpace) -> Supernet:
    return Supernet(space, seed=0)


def width(codes: Any) -> Any:
    return codes[:, 1].astype(float)


# --- search ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "score",
    [
        lambda codes: ["good"] * len(codes),
        lambda codes: [[1.0], [1.0, 2.0]],
        lambda codes: np.ones(len(codes)) * 1j,
        lambda codes: torch.ones(len(codes), requires_grad=True),
        lambda codes: [None] * len(codes),
    ],
)
def test_scores_that_are_no_numbers_are_refused(space: SearchSpace, score: Any) -> None:
    with pytest.raises(UserError, match=r"(?s)score function.*expected.*found"):
        hwnas.search(space, score=score, budget=50)


@pytest.mark.parametrize(
    "wrong",
    [
        {"score": 3},
        {"limits": {"macs": "3"}},
        {"limits": {"macs": None}},
        {"limits": {"macs": float("inf")}},
        {"limits": {3: 3}},
        {"limits": ["macs"]},
        {"budget": 0},
        {"budget": 1.5},
        {"budget": "many"},
        {"seed": "x"},
        {"seed": None},
        {"seed": 1.5},
        {"searcher": None},
        {"searcher": 3},
        {"tables": 3},
    ],
    ids=str,
)
def test_wrong_arguments_of_a_search_are_refused(space: SearchSpace, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"(?s)expected.*found") as refused:
        hwnas.search(space, **{"score": width, "budget": 50, **wrong})
    assert next(iter(wrong)) in str(refused.value)


def test_two_tables_of_one_device_are_refused() -> None:
    space = hwnas.space("mobilenet_v3", resolutions=(160,))
    table = hwnas.latency_table(EPYC)
    with pytest.raises(UserError, match="two latency tables of amd-epyc-2vcpu"):
        hwnas.search(space, score=width, budget=50, tables=[table, table])


def test_a_search_takes_tables_as_other_functions_do() -> None:
    space = hwnas.space("mobilenet_v3", resolutions=(160,))
    named, loaded = (
        hwnas.search(space, score=width, budget=50, tables=[table])
        for table in (EPYC, hwnas.latency_table(EPYC))
    )
    assert named == loaded


def test_a_score_for_the_name_of_a_space_says_how_to_build_it() -> None:
    with pytest.raises(UserError, match=r"hwnas.space\('mobilenet_tiny'\)"):
        hwnas.search("mobilenet_tiny", score=width)


def test_a_score_function_cannot_change_what_is_searched(space: SearchSpace) -> None:
    def spoils(codes: Any) -> Any:
        scores = width(codes)
        codes[:] = 0
        return scores

    assert hwnas.search(space, score=spoils, budget=200) == hwnas.search(
        space, score=width, budget=200
    )


def test_a_folder_belongs_to_one_score_function(space: SearchSpace, tmp_path: Path) -> None:
    first = hwnas.search(space, score=width, budget=100, folder=tmp_path)
    with pytest.raises(UserError, match=r"(?s)another score.*fix:"):
        hwnas.search(space, score=lambda codes: 3 - width(codes), budget=100, folder=tmp_path)
    assert hwnas.search(space, score=width, budget=100, folder=tmp_path) == first


def test_an_interrupted_search_goes_on(space: SearchSpace, tmp_path: Path) -> None:
    calls = 0

    def interrupted(codes: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return width(codes)

    with pytest.raises(KeyboardInterrupt):
        hwnas.search(space, score=interrupted, budget=2000, folder=tmp_path)
    found = hwnas.search(space, score=width, budget=2000, folder=tmp_path)
    assert found == hwnas.search(space, score=width, budget=2000)


def test_a_folder_that_is_a_file_is_refused(space: SearchSpace, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UserError, match=r"(?s)folder.*expected.*found"):
        hwnas.search(space, score=width, budget=50, folder=file)
    assert file.read_text() == "mine"


# --- spaces, tables -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.sample(-1, seed=0),
        lambda s: s.sample(1.5, seed=0),
        lambda s: s.sample("3", seed=0),
        lambda s: s.sample(2, seed=1.5),
        lambda s: s.sample(2, seed="a"),
        lambda s: s.sample(2, rng=3),
        lambda s: s.sample(2, rng=np.random.RandomState(0)),
        lambda s: s.cost(s.largest(), "macs"),
        lambda s: s.cost(["largest"], "macs"),
        lambda s: s.cost(None, "macs"),
        lambda s: s.cost("largest", "macs"),
        lambda s: s.cost(s.sample(2, seed=0).astype(float).tolist(), "macs"),
        lambda s: s.cost([[0] * len(s.choices), [0]], "macs"),
        lambda s: s.restrict({"resolution": 24}),
        lambda s: s.restrict(3),
        lambda s: hwnas.space(s.name, num_classes=0),
        lambda s: hwnas.space(s.name, num_classes=1.5),
        lambda s: hwnas.space(s.name, num_classes="x"),
        lambda s: hwnas.space(s.name, num_classes=True),
        lambda s: hwnas.space(s.name, in_channels=-1),
        lambda s: hwnas.space(None),
        lambda s: hwnas.space_show(3),
        lambda s: hwnas.space_show(s.name, settings=3),
        lambda s: hwnas.space_validate(s.name, 3),
        lambda s: hwnas.table_merge([]),
        lambda s: hwnas.table_list(run="/no/such/run"),
        lambda s: hwnas.plan("/no/such", config="digits", settings=3),
        lambda s: hwnas.plan("/no/such", config="digits", settings={3: 3}),
        lambda s: hwnas.plan("/no/such", config="digits", settings={"seed": {1, 2}}),
        lambda s: hwnas.plan("/no/such", config="digits", settings={"predictor": 3}),
        lambda s: hwnas.plan("/no/such", config="digits", settings={"predictor": {"name": [3]}}),
        lambda s: hwnas.plan("/no/such", settings=3),
        lambda s: Supernet(s.name, seed=0),
        lambda s: Supernet(s, seed="x"),
        lambda s: hwnas.latency_table(EPYC).estimate("mobilenet_v3", []),
    ],
)
def test_wrong_archs_seeds_and_spaces_are_refused(
    space: SearchSpace, call: Callable[[Any], Any]
) -> None:
    with pytest.raises(UserError, match=r"(?s)expected.*found"):
        call(space)


def test_settings_may_be_paths_and_numbers_of_numpy() -> None:
    given = {"supernet.init": Path("/no/such"), "seed": np.int64(3), "workers": np.int32(1)}
    plain = {"supernet.init": "/no/such", "seed": 3, "workers": 1}
    plans = [
        hwnas.plan("/no/such", config="digits", settings=s, only="label") for s in (given, plain)
    ]
    assert plans[0] == plans[1]


def test_one_arch_may_be_estimated_by_name() -> None:
    one, many = (
        hwnas.table_estimate(EPYC, space="mobilenet_v3", resolutions=[160], arch=arch)
        for arch in ("largest", ["largest"])
    )
    assert one == many and len(one) == 1


def test_rows_of_codes_may_be_lists(space: SearchSpace) -> None:
    codes = space.sample(3, seed=0)
    assert (space.cost(codes.tolist(), "macs") == space.cost(codes, "macs")).all()


# --- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "batches",
    [
        torch.zeros(2, 3, 24, 24),
        [torch.zeros(2, 1, 24, 24)],
        [torch.zeros(0, 3, 24, 24)],
        [torch.zeros(2, 3, 24, 20)],
        [torch.zeros(2, 3, 24, 24, dtype=torch.int64)],
        [np.zeros((2, 3, 24, 24), np.float32)],
        [3],
    ],
)
def test_batches_that_are_not_images_are_refused(supernet: Supernet, batches: Any) -> None:
    with pytest.raises(UserError, match=r"(?s)recalibrat.*expected.*found"):
        supernet.extract(supernet.space.smallest(), recalibrate_on=batches)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 1, 24, 24), np.float32),
        np.zeros((3, 24, 24), np.float32),
        np.zeros((0, 3, 24, 24), np.float32),
        np.zeros((2, 1, 24, 24)),
        np.zeros((2, 3, 24, 24), np.uint8),
        torch.zeros((2, 3, 24, 24), dtype=torch.int64),
        [1, 2],
    ],
)
def test_images_of_another_form_are_refused(
    supernet: Supernet, tmp_path: Path, images: Any
) -> None:
    network = supernet.extract(
        supernet.space.smallest(), recalibrate_on=[torch.zeros(2, 3, 24, 24)]
    )
    with pytest.raises(UserError, match=r"(?s)images.*expected.*found"):
        hwnas.export(network, "onnx", tmp_path, images=images)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", [3, None, "space"])
def test_what_is_no_network_is_not_exported(what: Any, tmp_path: Path, space: SearchSpace) -> None:
    with pytest.raises(UserError, match=r"(?s)expected: a run folder, or a torch network.*found"):
        hwnas.export(space if what == "space" else what, "onnx", tmp_path)


# --- run folders ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose training was interrupted."""
    return unpacked_run("half_train", tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize(
    ("look", "verb"),
    [
        (lambda run: run.winner, "search"),
        (lambda run: run.winners, "search"),
        (lambda run: run.front, "search"),
        (lambda run: run.limits, "search"),
        (lambda run: run.plot_front(), "search"),
        (lambda run: run.networks, "verify"),
        (lambda run: run.checks, "verify"),
        (lambda run: run.table(), "verify"),
        (lambda run: run.to_dict(), "verify"),
        (lambda run: run.raise_for_checks(), "verify"),
        (lambda run: run.labels(), "label"),
        (lambda run: run.supernet(), "train"),
        (lambda run: run.network(), "finetune"),
        (lambda run: run.plot_predictor(), "predictor fit"),
        (lambda run: run.labels("invented"), "status"),
        (lambda run: run.latency_table("invented"), "status"),
    ],
)
def test_what_a_run_lacks_is_said_with_the_command_that_makes_it(
    unfinished: Path, look: Callable[[hwnas.Run], Any], verb: str
) -> None:
    run = hwnas.open_run(unfinished)
    with pytest.raises(UserError, match="does not exist yet") as refused:
        look(run)
    assert refused.value.fix == f"hwnas {verb} {unfinished}"
    assert unfinished in Path(str(refused.value.where)).parents


@pytest.mark.parametrize(
    "wrong",
    [
        lambda run: hwnas.search(run, devices=["no_such_device"]),
        lambda run: hwnas.search(run, settings={"restrict": {"resolution": [7]}}),
        lambda run: hwnas.train(run, settings={"data": {"name": "image_folder", "root": "/no"}}),
    ],
)
def test_a_setting_that_cannot_be_used_is_not_kept(
    unfinished: Path, wrong: Callable[[Path], Any]
) -> None:
    before = (unfinished / "config.yaml").read_bytes()
    with pytest.raises(UserError):
        wrong(unfinished)
    assert (unfinished / "config.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("ask", "verb"),
    [
        (lambda run: hwnas.analyze(run), "label"),
        (lambda run: hwnas.predictor_eval(run), "label"),
        (lambda run: hwnas.predictor_predict(run, ["largest"]), "predictor fit"),
        (lambda run: hwnas.predictor_export_lut(run), "predictor fit"),
    ],
)
def test_a_verb_that_comes_too_early_names_the_one_that_is_missing(
    unfinished: Path, ask: Callable[[Path], Any], verb: str
) -> None:
    with pytest.raises(UserError, match="does not exist yet") as refused:
        ask(unfinished)
    assert refused.value.fix == f"hwnas {verb} {unfinished}"


def test_a_format_has_a_name_and_metadata_is_text(supernet: Supernet, tmp_path: Path) -> None:
    network = supernet.extract(
        supernet.space.smallest(), recalibrate_on=[torch.zeros(2, 3, 24, 24)]
    )
    with pytest.raises(UserError, match="unknown exporter"):
        hwnas.export(network, None, tmp_path)  # type: ignore[call-overload]
    (file,) = hwnas.export(network, "onnx", tmp_path, metadata={"step": 3})  # type: ignore[dict-item]
    stored = {item.key: item.value for item in onnx.load(file).metadata_props}
    assert stored["step"] == "3"


def test_a_single_name_is_not_taken_for_its_letters(unfinished: Path) -> None:
    assert api_search.search_changes("local", None)["devices"] == ["local"]
    one, many = (api_formats.export_changes(unfinished, None, f, None) for f in ("timm", ["timm"]))
    assert one == many
