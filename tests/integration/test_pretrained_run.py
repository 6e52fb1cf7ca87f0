"""A run without training: weights that others trained, labels from a file, a licence that stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import hwnas
from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.core.records import dump
from hwnas.interfaces import Evaluation
from hwnas.nets.origin import Origin, read_origin
from hwnas.nets.pretrained_source import Source
from hwnas.nets.supernet import Supernet
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.start_checks import warn_of_padding
from hwnas.spaces.load import build_space
from hwnas.training.checkpoint import weights_bytes

MINI = Path(__file__).parent / "mini.yaml"
SPACE = build_space("mobilenet_tiny", {"resolutions": [8]}, num_classes=10)
ALPHANET = Origin("AlphaNet", "CC-BY-NC-4.0", "https://there", "alphanet.pth.tar", "0" * 64)
N_RECORDED = 30


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Weights with an origin; accuracies that rise with MACs, in another column random ones."""
    folder = tmp_path_factory.mktemp("given")
    supernet = Supernet(SPACE, seed=1)
    supernet.origin = ALPHANET
    (folder / "w.safetensors").write_bytes(weights_bytes(supernet, {}))
    codes = SPACE.sample(N_RECORDED, seed=0)
    macs = SPACE.cost(codes, "macs")
    macs = (macs - macs.min()) / (macs.max() - macs.min())
    labels = [
        Evaluation(SPACE.arch(row), 0.5 + 0.4 * float(share), "trained", "test", 100, 0)
        for row, share in zip(codes, macs, strict=True)
    ]
    rows = [dump(label, versioned=False) for label in labels]
    (folder / "labels.json").write_text(json.dumps({"schema_version": 1, "labels": rows}))
    return {
        "space.resolutions": [8],  # half of the operators to time
        "profile.rounds": 2,
        "profile.min_rounds": 2,
        "train.steps": 0,
        "supernet.init": str(folder / "w.safetensors"),
        "label.records": str(folder / "labels.json"),
        "label.target": "trained",
        "label.n_archs": 20,
        "search.n_evaluations": 2,
        "finetune.epochs": 0,
        "export": [{"name": "onnx"}],
    }


def test_nothing_is_trained_and_the_licence_travels(
    settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    found = hwnas.run(str(MINI), folder=run, settings=settings, report_only=True)
    assert found.to_dict()["table"]
    given, kept = settings["supernet.init"], run / "checkpoints" / "supernet.safetensors"
    assert all(torch.equal(t, load_file(kept)[n]) for n, t in load_file(given).items())
    labels = json.loads((run / "labels" / "supernet.json").read_text())["labels"]
    recorded = json.loads(Path(settings["label.records"]).read_text())["labels"]
    known = {json.dumps(row["arch"]): row["top1"] for row in recorded}
    assert len(labels) == 20 and all(known[json.dumps(r["arch"])] == r["top1"] for r in labels)
    (warned,) = {r.message for r in caplog.records if "CC-BY-NC" in r.message}
    assert "AlphaNet" in warned
    said = [r.getMessage() for r in caplog.records if "better than guessing" in r.getMessage()]
    assert len(said) == 1  # the weights are random
    assert "no network is better than guessing" in (run / "report.html").read_text()
    assert read_origin(kept) == ALPHANET
    networks = list(run.glob("search/main/*/*.safetensors"))
    assert networks and all(read_origin(path) == ALPHANET for path in networks)
    (bundle,) = (run / "bundles").rglob("manifest.json")
    manifest = json.loads(bundle.read_text())
    assert "CC-BY-NC-4.0" in manifest["provenance"]["weights"]
    model = onnx.load(bundle.parent / manifest["models"][0]["path"])
    facts = {item.key: item.value for item in model.metadata_props}
    assert facts["licence_of_weights"] == "CC-BY-NC-4.0"
    assert "CC-BY-NC-4.0" in facts["model_card"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"supernet.init": None}, r"starting weights[\s\S]*pretrained list"),
        ({"label.records": "/no/such.json"}, r"label\.records"),
        ({"label.records": None}, r"found .* without `records`"),
        ({"label.trained.n": 3}, r"expected one of `records`.*found both"),
    ],
)
def test_what_makes_such_a_run_impossible_is_said_first(
    change: dict[str, Any], said: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        hwnas.run(str(MINI), folder=tmp_path / "run", settings={**settings, **change})
    assert not (tmp_path / "run" / "tables").exists()


def test_a_training_starts_from_a_network_for_other_classes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = timm.create_model("mobilenetv2_035", num_classes=12)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    less = {"depths": [1], "expands": [2], "kernels": [], "width_ratios": [0.5]}
    settings = {
        "space": {"name": "timm", "model": "mobilenetv2_035", "resolutions": [32], **less},
        "data.base_px": 32,
        "supernet.init": str(tmp_path / "w.pth"),
        "train": {"steps": 1, "batch_size": 4, "curve_images": 8},
    }
    still = {**settings, "train.steps": 0}
    with pytest.raises(UserError, match=r"classifier\.weight[\s\S]*train\.steps to at least 1"):
        hwnas.train(tmp_path / "still", config=str(MINI), settings=still)
    other = {**settings, "supernet.init": "shipped"}
    with pytest.raises(UserError, match=r"another network: conv_stem does not fit"):
        hwnas.train(tmp_path / "other", config=str(MINI), settings=other)
    with caplog.at_level("INFO"):
        hwnas.train(tmp_path / "run", config=str(MINI), settings=settings)
    assert any("new classifier for 10 classes (was 12)" in r.message for r in caplog.records)
    kept = load_file(tmp_path / "run" / "checkpoints" / "supernet.safetensors")
    stem = network.state_dict()["conv_stem.weight"].flatten(1).abs().sum(1).sort().values
    found = kept["stem.conv.weight"].flatten(1).abs().sum(1).sort().values
    torch.testing.assert_close(found, stem, rtol=0.1, atol=0.1)  # one step away


def test_best_weights_of_a_training_say_where_it_started(tmp_path: Path) -> None:
    supernet = Supernet(SPACE, seed=1)
    supernet.origin = ALPHANET
    (tmp_path / "best.safetensors").write_bytes(weights_bytes(supernet, {"step": "3"}))
    assert read_origin(tmp_path / "best.safetensors") == ALPHANET
    with safe_open(tmp_path / "best.safetensors", framework="np") as file:
        assert file.metadata()["step"] == "3"


@pytest.mark.parametrize(
    ("pad_mode", "said"), [(None, ["Set space.pad_mode: tf_same"]), ("tf_same", [])]
)
def test_a_padding_that_the_weights_did_not_learn_is_warned_of(
    pad_mode: str | None, said: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Quantised networks of TensorFlow pad as it does; timm's network of the same name does not."""
    space = {"name": "timm", "model": "mobilenetv2_100", "pad_mode": pad_mode, "resolutions": [32]}
    changes = {"space": space, "supernet.init": "shipped"}
    with open_project(
        tmp_path / "run", config=str(MINI), changes=changes, progress_for=lambda _: silent,
        command="hwnas train",
    ) as project:  # fmt: skip
        warn_of_padding(project)
    assert [r.getMessage().partition("training. ")[2] for r in caplog.records] == said


@pytest.mark.parametrize(
    ("name", "said"), [("tf_mobilenetv3_large_100", "tf_same"), ("mobilenetv3_large_100", "")]
)
def test_the_padding_of_weights_of_timm_is_that_of_their_network(
    name: str, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    origin = Origin(f"{name}.in1k", "Apache-2.0", "https://there", "model.safetensors", "0" * 64)
    start = Source({}, f"timm:{name}", None, origin)
    monkeypatch.setattr("hwnas.nets.pretrained_source.source_of", lambda _: start)
    changes = {
        "space": {"name": "timm", "model": "mobilenetv3_large_100", "resolutions": [32]},
        "supernet.init": f"timm:{name}",
    }
    with open_project(
        tmp_path / "run", config=str(MINI), changes=changes, progress_for=lambda _: silent,
        command="hwnas train",
    ) as project:  # fmt: skip
        warn_of_padding(project)
    assert bool(caplog.records) == bool(said)
    assert said in caplog.text
