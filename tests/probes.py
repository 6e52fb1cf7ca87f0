"""What each section of a configuration does, observed through the stage that uses it.

A probe takes a validated configuration, runs the real code of the pipeline on a small finished run
folder, and returns what can be seen of it: arguments of expensive callees, plans, and the files
that were written. Hashes, times, `config.yaml` and `stages.json` are no observations.
See tests/integration/test_settings_matter.py, which changes one setting at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import timm
import torch
import torchvision

from hwnas.core.progress import Progress, silent
from hwnas.core.records import dump
from hwnas.core.rundir import RunDir
from hwnas.core.yaml_data import read_yaml
from hwnas.exporters import engine, float_graph, litert, quantize
from hwnas.exporters.formats import open_model
from hwnas.exporters.parity import BatchParity, ParityReport
from hwnas.interfaces import Evaluation
from hwnas.latency.samples import Timing
from hwnas.measure.profile import Timings
from hwnas.measure.references.timing import References
from hwnas.nets import hub
from hwnas.nets.from_timm import timm_network
from hwnas.pipeline import evaluators, project
from hwnas.pipeline.config import ExperimentConfig, load_config
from hwnas.pipeline.outcomes import Results
from hwnas.pipeline.project import Project
from hwnas.pipeline.stages import (
    export,
    finetune,
    label,
    predictor,
    profile,
    references,
    search,
    train,
    verify,
)
from hwnas.pipeline.task import task
from hwnas.pipeline.tuning import Tuning
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.lowering import lower
from hwnas.training import finetune as finetuning
from hwnas.training import step, tensorboard
from hwnas.training.precision import Precision
from hwnas.training.ranking import PairSampler
from tests.intel import imitated_openvino
from tests.old_runs import unpacked_run
from tests.photos import (
    archives,
    class_folders,
    encoded,
    photo,
    small_config,
    write_archive,
    write_text,
)

NOT_SEEN = {"config.yaml", "stages.json"}
HASHES = {
    "identity",
    "fingerprint",
    "context",
    "check",
    "sha256",
    "model_sha256",
    "digest",
    "data",
    "seconds",
    "time",
}
"""Keys of JSON that are hashes, times, or repeat the configuration."""

UNREAD = {".tflite", ".pt2"}
"""Files whose contents cannot be told from the settings that they repeat."""

__all__ = ["PROBES", "Bench", "timed_verify"]


def plain(value: Any) -> Any:
    """JSON of a value without hashes and times."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items() if k not in HASHES}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return digest(np.ascontiguousarray(value).tobytes()) + str(list(value.shape))
    if isinstance(value, str):
        return re.sub(r"^[0-9a-f]{12,}$|\b[0-9a-f]{64}\b", "HASH", value)
    return value if isinstance(value, (bool, int, float, type(None))) else repr(value)


def digest(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def content(path: Path) -> Any:
    """What a file says: tensors without the facts beside them, JSON without hashes."""
    if path.suffix == ".safetensors":
        tensors = safetensors.torch.load_file(path)
        return {name: plain(tensor) for name, tensor in sorted(tensors.items())}
    if path.suffix == ".json":
        return plain(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [plain(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".onnx":
        model = onnx.load(path)
        card = {item.key: item.value for item in model.metadata_props if item.key == "model_card"}
        del model.metadata_props[:]  # they repeat settings
        return [digest(model.SerializeToString(deterministic=True)), card]
    return None if path.suffix in UNREAD else digest(path.read_bytes())


@dataclass
class Bench:
    """A finished run folder to work on copies of, small data sets, and files to name."""

    scratch: Path
    n_copies: int = 0
    made: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.run = unpacked_run("finished", self.scratch)
        for name in ("bundles", "search/main/closing", "search/main/verify"):
            shutil.rmtree(self.run / name)
        for path in self.run.glob("tables/*/"):
            shutil.rmtree(path, ignore_errors=True)
        self.base: dict[str, Any] = read_yaml(self.run / "config.yaml")
        del self.base["search"]["evaluator"]["name"], self.base["label"]["source"]  # were removed
        self.packages = self.scratch / "packages"
        self.packages.mkdir()
        imitated_openvino(self.packages)
        for name in ("tensorrt", "tensorrt_rtx"):
            (self.packages / f"{name}.py").write_text("__version__ = '10.0'\n")

    def config(self, changes: Mapping[str, Any]) -> ExperimentConfig:
        """The run's configuration after `changes`; values `@NAME` are files of this bench."""
        named = {key: self._named(value) for key, value in changes.items()}
        return load_config(self.base, named, where="probe")

    def _named(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: self._named(item) for key, item in value.items()}
        is_name = isinstance(value, str) and value.startswith("@")
        return str(self.file(value[1:])) if is_name else value

    def file(self, name: str) -> Path:
        """A file or folder that settings can name; `archives.b` is another one than `archives`."""
        if name not in self.made:
            self.made[name] = getattr(self, f"_{name.partition('.')[0]}")(self.scratch / name)
        return self.made[name]

    def _records(self, path: Path) -> Path:
        return Path(shutil.copyfile(self.run / "labels" / "supernet.json", f"{path}.json"))

    def _supernet(self, path: Path) -> Path:
        return Path(
            shutil.copyfile(
                self.run / "checkpoints" / "supernet.safetensors", f"{path}.safetensors"
            )
        )

    def _teacher(self, path: Path) -> Path:
        torch.manual_seed(len(self.made))
        model = timm.create_model("test_efficientnet", num_classes=10)
        path = Path(f"{path}.safetensors")
        safetensors.torch.save_file(model.state_dict(), path)
        return path

    def _cifar10(self, path: Path) -> Path:
        return Path(small_config("cifar10", path).root)  # type: ignore[attr-defined]

    def _cifar100(self, path: Path) -> Path:
        return Path(small_config("cifar100", path).root)  # type: ignore[attr-defined]

    def _texts(self, path: Path) -> Path:
        for name, n_words in (("text.txt", 1200 + len(path.suffix)), ("other.txt", 1500)):
            write_text(path, n_words, name)
            with open(path / name, "r+") as stream:
                stream.write("once ")  # a word that is not frequent
        return path

    def _folders(self, path: Path) -> Path:
        class_folders(path, ["ant", "bee", "cat"], 20, first=20 * len(self.made), px=24)
        (path / "classes.txt").write_text("ant\nbee\ncat\ndog\n")
        return path

    def _broken_folders(self, path: Path) -> Path:
        class_folders(path, ["ant", "bee", "cat"], 20, px=24)
        (path / "ant" / "003.png").write_bytes(b"no image")
        return path

    def _archives(self, path: Path) -> Path:
        folder = archives(path, n_train=12 + len(path.suffix), n_test=6)
        archives(folder / "other", n_train=10, n_test=5)
        for name in ("train", "val"):
            shutil.copyfile(folder / "other" / f"{name}.npz", folder / f"other_{name}.npz")
        return folder

    def _broken_archives(self, path: Path) -> Path:
        archives(path, n_train=12, n_test=6)
        labels = [i % 4 for i in range(40)]
        files = [encoded(photo(label, i)) for i, label in enumerate(labels)]
        write_archive(path / "train.npz", [*files[:7], b"no image", *files[8:]], labels, 4)
        return path

    def look(self, config: ExperimentConfig) -> Project:
        """A project that writes nothing."""
        return Project(RunDir(self.run), config, lambda stage: silent, beside=(self.run,))

    @contextlib.contextmanager
    def project(self, config: ExperimentConfig) -> Iterator[Project]:
        """A copy of the run folder with this configuration; deleted afterwards."""
        self.n_copies += 1
        root = self.scratch / f"copy{self.n_copies}"
        shutil.copytree(self.run, root)
        try:
            yield Project(RunDir(root), config, lambda stage: silent, beside=(root,))
        finally:
            shutil.rmtree(root)


@contextlib.contextmanager
def written(it: Project) -> Iterator[dict[str, Any]]:
    """Contents of the files that the block writes, by name; of those that it removes, None."""
    root, found = it.run.root, {}
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    yield found
    after = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path) and path.name not in NOT_SEEN:
            name = re.sub(r"results-[0-9a-f]{16}", "results", str(path.relative_to(root)))
            found[name] = content(path) if path in after else None


def recorder(calls: list[Any], name: str, then: Callable[..., Any]) -> Callable[..., Any]:
    """A function that notes what it is called with, then calls `then`."""

    def record(*args: Any, **kwargs: Any) -> Any:
        calls.append([name, plain(args), plain(kwargs)])
        return then(*args, **kwargs)

    return record


# --- one probe per kind of section -------------------------------------------------------------


def probe_space(bench: Bench, config: ExperimentConfig, patch: pytest.MonkeyPatch) -> Any:
    space = bench.look(config).space
    ends = [lower(space, arch) for arch in (space.smallest(), space.largest())]
    return [
        repr(space.choices),
        repr(space.allowed),
        [repr(network) for network in ends],
        sorted(map(repr, enumerate_ops(space))),
    ]


def probe_data(bench: Bench, config: ExperimentConfig, patch: pytest.MonkeyPatch) -> Any:
    def absent(self: Any, root: str, train: bool, download: bool) -> None:
        raise RuntimeError(f"nothing is downloaded in tests (download={download})")

    for kind in (torchvision.datasets.CIFAR10, torchvision.datasets.CIFAR100):
        patch.setattr(kind, "__init__", absent)
    data = bench.look(config).data
    batches = [x for _, (x, _) in zip(range(2), data.train_batches(0, 8), strict=False)]
    splits = [next(iter(data.eval_batches(split, 512))) for split in ("val", "test")]
    return [
        plain(dump(data.info, versioned=False)),
        getattr(data, "n_workers", None),
        plain(batches),
        [plain(pair) for pair in splits],
    ]


def probe_train(bench: Bench, config: ExperimentConfig, patch: pytest.MonkeyPatch) -> Any:
    calls: list[Any] = []
    patch.setattr(Precision, "of", staticmethod(recorder(calls, "precision", Precision.of)))
    rows = recorder(calls, "tensorboard", lambda folder: lambda row: None)
    patch.setattr(tensorboard, "tensorboard_rows", lambda folder: rows(folder.name))
    patch.setattr(timm, "create_model", recorder(calls, "teacher", timm.create_model))

    def pairs(space: Any, proxy: Any, *rest: Any) -> Any:
        """The prior of ranking pairs, and what it says of some archs."""
        archs = space.codes([space.smallest(), space.largest()])
        calls.append(["prior", plain(proxy(archs).tolist())])
        return PairSampler(space, proxy, *rest)

    patch.setattr(step, "PairSampler", pairs)
    with bench.project(config) as it, written(it) as files:
        train.train(it, silent)
    return [calls, files]


def probe_label(bench: Bench, config: ExperimentConfig, patch: pytest.MonkeyPatch) -> Any:
    calls: list[Any] = []
    patch.setattr(project, "open_records", _records_reader(calls))
    with bench.project(config) as it, written(it) as files:
        it.run.journal_file.unlink()
        label.label(it, silent)
    return [calls, files]


def probe_trained_labels(bench: Bench, config: ExperimentConfig, patch: pytest.MonkeyPatch) -> Any:
    calls: list[Any] = []
    patch.setattr(Precision, "of", staticmethod(recorder(calls, "precision", Precision.of)))
    patch.setattr(label, "measured_trained_cost", lambda it: "")  # times steps
    kept = {}
    with bench.project(config) as it, written(it) as files:
        it.run.journal_file.unlink()
        patch.setattr(
            label.shutil,
            "rmtree",
            lambda folder, **_: kept.update(
                {p.name: content(p) for p in folder.rglob("*.safetensors")}
            ),
        )
        label.label_trained(it, silent)
    return [calls, files, kept]


def probe_finetune(bench: Bench, config: ExperimentConfig, patch: pytest.MonkeyPatch) -> Any:
    """The winner is fine-tuned, the others are there already."""
    calls: list[Any] = []
    patch.setattr(Precision, "of", staticmethod(recorder(calls, "precision", Precision.of)))
    with bench.project(config) as it, written(it) as files:
        it.run.journal_file.unlink()
        roles = it.files.read_roles()
        patch.setattr(finetune, "random_subnet", lambda it, winner: roles["random subnet"])
        it.files.network(roles["winner"]).unlink()
        for path in it.files.finetuned.glob("alone/*.json"):
            path.unlink()
        finetune.finetune_all(it, silent)
    return [calls, files]


def probe_predictor(bench: Bench, config: ExperimentConfig, patch: pytest.MonkeyPatch) -> Any:
    patch.setattr(predictor, "half_scores", lambda it, archs: (_scores(archs), _scores(archs) ** 2))
    with bench.project(config) as it, written(it) as files:
        predictor.fit(it, silent)
    return files


def probe_search(bench: Bench, config: ExperimentConfig, patch: pytest.MonkeyPatch) -> Any:
    """With a score by formula in place of the supernet's, and timings by formula."""
    calls: list[Any] = []

    def evaluate(self: Any, arch: Any) -> Evaluation:
        score = float(_scores([arch])[0])
        return Evaluation(arch, score, "supernet", "val", 100, 0, val_loss=1 - score)

    def timed(it: Project, device: str, models: Any, table: Any, folder: Path, **_: Any) -> Timings:
        calls.append([device, len(models), folder.name])
        ms = {name: 0.05 + len(model) / 1e6 for name, model in models.items()}
        timings = {name: Timing(value, value, value, value, 10) for name, value in ms.items()}
        return Timings(timings, dict.fromkeys(models, 0.0), 0.0, 1.0, {})

    patch.setattr(evaluators.JournaledEvaluator, "is_known", lambda self, arch: True)
    patch.setattr(evaluators.JournaledEvaluator, "evaluate", evaluate)
    patch.setattr(project, "open_records", _records_reader(calls))
    patch.setattr(search, "time_beside_table", timed)
    patch.setattr(search, "run_search", _with_clock(calls, search.run_search))
    with bench.project(config) as it, written(it) as files:
        shutil.rmtree(it.files.main_search.result.path.parent, ignore_errors=True)
        search.search(it, silent)
    return [calls, files]


def probe_export(bench: Bench, config: ExperimentConfig, patch: pytest.MonkeyPatch) -> Any:
    """Of the winner; graphs come from one translation, engines and 8 bits are only asked for."""
    calls: list[Any] = []

    def translated(model: Any, shape: Any, opset: int, dynamic: bool, outputs: Any) -> Any:
        calls.append(["graph", plain(shape), opset, dynamic, plain(outputs)])
        key = f"graph{len(outputs)}"
        if key not in bench.made:
            n_calls = len(calls)
            proto = TRANSLATED(model, shape, float_graph.OPSET, True, outputs)
            del calls[n_calls:]
            bench.made[key] = bench.scratch / f"{key}.onnx"
            onnx.save(proto, bench.made[key])
        return onnx.load(bench.made[key])

    def run(command: list[str], **_: Any) -> Any:
        facts = json.loads(command[-1])
        calls.append(["engine", {k: v for k, v in facts.items() if k not in ("source", "out")}])
        Path(facts["out"]).write_bytes(b"engine")
        facts_file = Path(f"{facts['out']}.json")
        facts_file.write_text("{}")
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    def quantized(graph: Any, ranges: Any, judged: Any, **settings: Any) -> Any:
        calls.append(["quantized", plain(ranges), plain(settings)])
        return SimpleNamespace(model=graph, facts={})

    def mixed(ways: Any, *_: Any, **settings: Any) -> Any:
        calls.append(["mixed", [*ways], plain(settings)])
        return SimpleNamespace(model=ways["nearest"](), facts={})

    def value_ranges(graph: Any, images: Any) -> Any:
        calls.append(["ranges", plain(images)])
        return RANGES(graph, images[:8])

    def parity(expected: Any, opened: Any, images: Any, **settings: Any) -> ParityReport:
        calls.append(["parity", plain(settings)])
        return ParityReport("file", "none", 1.0, 1.0, (BatchParity(1, 1, 0.0, 0.0, 0.0, 1.0),))

    def program(*args: Any, **kwargs: Any) -> Any:
        calls.append(["program", repr(kwargs.get("dynamic_shapes"))])
        return PROGRAM(*args, **kwargs)

    patch.setattr(torch.export, "export", program)
    patch.setattr(float_graph, "_translated", translated)
    patch.setattr(engine.subprocess, "run", run)
    patch.setattr(quantize, "quantized", quantized)
    patch.setattr(litert, "mixed", mixed)
    patch.setattr(litert, "value_ranges", value_ranges)

    @contextlib.contextmanager
    def opened_here(format: str, path: Path, *, threads: int, runner: None) -> Iterator[Any]:
        yield open_model(format, path, threads=threads)

    patch.setattr(export, "compare_batches", parity)
    patch.setattr(export, "Runner", lambda **_: contextlib.nullcontext())  # all is faked here
    patch.setattr(export, "opened_safely", opened_here)
    with bench.project(config) as it, written(it) as files:
        shutil.rmtree(it.files.exported, ignore_errors=True)
        arch = it.files.read_roles()["winner"]
        patch.setattr(export, "network_names", lambda it: {arch: "winner"})
        patch.setattr(export, "winning_archs", lambda it: [arch])
        for one in it.formats:
            kind = type(one.exporter())
            patch.setattr(kind, "open_model", _opened(calls, one.name))
        export.export(it, silent)
    return [calls, files]


def probe_verify(bench: Bench, config: ExperimentConfig, patch: pytest.MonkeyPatch) -> Any:
    """The winner took 6 % longer than estimated, with 0.3 % of repeat noise."""
    results = timed_verify(bench, config, patch, slower=1.06, pace=1.0)
    return plain(dump(results, versioned=False))


def timed_verify(
    bench: Bench,
    config: ExperimentConfig,
    patch: pytest.MonkeyPatch,
    *,
    slower: float,
    pace: float,
    replies: Mapping[str, Any] = MappingProxyType({}),
    progress: Progress = silent,
) -> Results:
    """Results of stage `verify` where every network takes `slower` times its estimate."""

    def timed(it: Project, device: str, models: Any, table: Any, folder: Path, **_: Any) -> Timings:
        estimator, archs = it.estimator(device), it.files.read_roles().values()
        ms = {a.key: float(estimator.latency_ms(it.space.codes([a]))[0]) for a in archs}
        values = {name: slower * ms[name.partition(".")[0]] for name in models}
        timings = {name: Timing(value, value, value, value, 10) for name, value in values.items()}
        return Timings(timings, dict.fromkeys(models, 0.003), 0.003, pace, {})

    top1 = SimpleNamespace(
        on=lambda device: _Always(0.9),
        here=_Always(0.9),
        loss={},
        hits_on=lambda device: {"model.onnx": np.ones(10, dtype=np.bool_)},
        by_class=lambda device: {},
        replies_on=lambda device: replies,
        labels=np.zeros(10, dtype=np.int64),
    )
    patch.setattr(verify, "time_beside_table", timed)

    def tested(it: Project, arch: object, progress: Progress) -> Any:
        progress(1, 1)
        return top1

    patch.setattr(verify, "test_accuracies", tested)
    patch.setattr(verify, "artifact_check", lambda *_: [])
    patch.setattr(verify, "require_own_table", lambda *_: None)
    patch.setattr(verify, "bundle_winner", lambda *_: None)
    with bench.project(config) as it:
        verify.verify(it, progress)
        return it.files.results.read()


def probe_profile(bench: Bench, config: ExperimentConfig, patch: pytest.MonkeyPatch) -> Any:
    """The plans of a profiling and of a re-timing, as the device gets them."""
    plans: list[Any] = []

    class Planned(Exception):
        pass

    class Transport:
        def run_bench(self, plan: Path, results: Path, **_: Any) -> None:
            plans.append(plain(json.loads(plan.read_text())))
            raise Planned

    patch.setattr(project, "load_transport", lambda *_, **__: Transport())
    patch.setattr(verify, "require_own_table", lambda *_: None)
    patch.setattr(verify, "test_accuracies", lambda it, arch, progress: None)
    patch.setattr(verify, "format_checks", lambda *_: [])
    with bench.project(config) as it:
        for work in (
            lambda: profile.measure(it, "local", silent),
            lambda: verify.verify(it, silent),
        ):
            with contextlib.suppress(Planned):
                work()
    assert len(plans) == 2
    return plans


def probe_references(bench: Bench, config: ExperimentConfig, patch: pytest.MonkeyPatch) -> Any:
    """What is timed by which protocol, and how networks are trained."""
    calls: list[Any] = []

    def timed(chosen: Any, device: Any, folder: Path, protocol: Any, **_: Any) -> References:
        calls.append([[one.id for one in chosen], protocol.model_dump()])
        return References(device.name, (), {})

    def tuned(model: torch.nn.Module, data: Any, how: Any, *, teacher: Any, **_: Any) -> Any:
        calls.append([plain(model.state_dict()), how.epochs, teacher is None])
        return model.eval()

    def fetched(name: str) -> Path:
        path = bench.scratch / f"{name}.safetensors"
        safetensors.torch.save_file(timm_network(name, seed=7).state_dict(), path)
        return path

    patch.setattr(references, "time_references", timed)
    patch.setattr(finetuning, "finetune", tuned)
    patch.setattr(hub, "fetched_file", fetched)
    patch.setattr(Tuning, "teacher", "teacher")
    with bench.project(config) as it:
        references.references(it, silent)
    return calls


def probe_threads(bench: Bench, config: ExperimentConfig, patch: pytest.MonkeyPatch) -> Any:
    calls: list[Any] = []
    patch.setattr(torch, "set_num_threads", recorder(calls, "threads", lambda n: None))
    task(bench.look(config), "any", lambda *_: None, reads_data=False)()
    return calls


def probe_project(bench: Bench, config: ExperimentConfig, patch: pytest.MonkeyPatch) -> Any:
    it = bench.look(config)
    return [str(it.accelerator), plain({name: dump(spec) for name, spec in it.devices.items()})]


# --- what the probes use -------------------------------------------------------------------------

TRANSLATED, RANGES = float_graph._translated, litert.value_ranges
PROGRAM = torch.export.export


class _Always(dict[str, float]):
    """The same value for every key."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def __missing__(self, key: str) -> float:
        return self.value

    def get(self, key: str, default: Any = None) -> Any:
        return self.value

    def __contains__(self, key: object) -> bool:
        return True


def _opened(calls: list[Any], name: str) -> Callable[..., None]:
    def open_model(self: Any, path: Path, *, threads: int = 1) -> None:
        calls.append(["open", name, path.name, threads])

    return open_model


def _scores(archs: Any) -> Any:
    """A score of archs in (0, 1), by formula."""
    return np.array(
        [0.5 + 0.4 * np.sin(sum((i + 1) * c for i, c in enumerate(a.codes))) for a in archs]
    )


def _records_reader(calls: list[Any]) -> Callable[..., Any]:
    real = project.open_records

    def read(path: Path, *, reader: str | None, **rest: Any) -> Any:
        source = real(path, reader=None, **rest)

        def records(target: str | None) -> Any:
            calls.append([path.name, reader, target])
            return source.records(None)

        return SimpleNamespace(accuracies=records)

    return read


PROBES = {
    "accelerator": probe_project,
    "devices": probe_project,
    "seed": probe_train,
    "name": probe_export,
    "threads": probe_threads,
    "space": probe_space,
    "restrict": probe_space,
    "data": probe_data,
    "workers": probe_data,
    "profile": probe_profile,
    "supernet": probe_train,
    "train": probe_train,
    "label": probe_label,
    "label.trained": probe_trained_labels,
    "predictor": probe_predictor,
    "search": probe_search,
    "search.references": probe_references,
    "finetune": probe_finetune,
    "alone": probe_finetune,
    "export": probe_export,
    "verify": probe_verify,
    "verify.parity_batches": probe_export,
}
"""By the longest beginning of the key."""


def _with_clock(calls: list[Any], run: Callable[..., Any]) -> Callable[..., Any]:
    def record(*args: Any, **kwargs: Any) -> Any:
        calls.append(["max_seconds", kwargs["config"].max_seconds])
        return run(*args, **kwargs)

    return record
