"""Mutated files of every format: an error, or what the file says; never a traceback.

The oracle of acceptances (`judge`): a JSON text that is ambiguous or that no field can hold (a key
twice, half of a surrogate pair, more than 64 bits, NaN) is never accepted; what is accepted says
what the text says, key by key; it holds no number that its name makes impossible (`IMPOSSIBLE`); a
sealed file is never accepted with another content; estimates of an accepted table are finite, above
0 ms and differ between the smallest and the largest network; host and kit agree on manifests.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hwnas
from hwnas.api.result import no_progress
from hwnas.controller.remeasure import Remeasurement
from hwnas.controller.result import SearchResult
from hwnas.controller.storage import SearchFolder
from hwnas.core.arrays import read_npy, read_npz
from hwnas.core.bits import pack_bits
from hwnas.core.commit import Commit
from hwnas.core.env import Host
from hwnas.core.errors import UserError
from hwnas.core.history import Entry
from hwnas.core.overrides import assignments, override
from hwnas.core.records import RecordFile, dump, load
from hwnas.core.resources import resource as shipped
from hwnas.core.rundir import RunDir
from hwnas.core.store import read_json, write_json
from hwnas.core.versions import _Facts
from hwnas.core.yaml_data import read_yaml
from hwnas.devices.spec import load_device
from hwnas.exporters.bundle import read_manifest
from hwnas.interfaces import DataIdentity, DataInfo, Evaluation
from hwnas.latency.plan import PROTOCOL, Plan
from hwnas.latency.results import read_results
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.table import LatencyTable
from hwnas.measure.own_timings import read_timings, write_template
from hwnas.measure.references.timing import (
    References,
    RunReferences,
    TimedReference,
    TrainedReference,
)
from hwnas.measure.session_files import known_models
from hwnas.pipeline.answers import Answered, Answers, Photo
from hwnas.pipeline.artifacts import Artifacts, Exports, Roles, data_of_weights
from hwnas.pipeline.config import load_config
from hwnas.pipeline.hits import TestHits
from hwnas.pipeline.listings import training_rows
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.outcomes import DataRecord, Results, SeenData
from hwnas.pipeline.outside_record import OutsideFiles
from hwnas.pipeline.predictor import load_predictor
from hwnas.pipeline.trained import Standalone
from hwnas.predictors.blend import Blend
from hwnas.predictors.evaluate import PredictorReport
from hwnas.predictors.readers.hwnas import read_labels
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.load import read_arch
from hwnas.training.decode import square_rgb
from tests.bundles import colour_bundle, kit_module
from tests.limits import bounded
from tests.mutated_formats import of_published, of_records, of_score_table, of_texts
from tests.mutations import (
    contradicts_json,
    document,
    mutated_bytes,
    mutated_csv,
    mutated_json,
    mutated_yaml,
)
from tests.old_runs import unpacked_run

N_DEFAULT, N_FULL = 2_000, 20_000
HANGS_S = 10.0
MEMORY = 1 << 30  # beyond what is mapped
SETTINGS = ("train.steps=50", "search.constraints.0.max=3", "data={name: digits}", "seed=1")


def between(low: float, high: float) -> Callable[[float], bool]:
    return lambda value: low <= value <= high


IMPOSSIBLE: tuple[tuple[str, Callable[[float], bool]], ...] = (
    (r"n_\w+|macs|params|n|generation", between(0, 2**63)),
    (r"(\w+_)?top1|coverage|weight|min_agreement|top1_agreement", between(0, 1)),
    (r"kendall_tau|spearman|(macs|params|repeat)_tau", between(-1, 1)),
    (r"mape|p95|repeat_mape|repeat_noise|rmse|interval_fraction|\w+_std", between(0, 1e300)),
    (r"(median|p10|p90|p95|measured|forecast|cold)_ms", between(0, 1e9)),
    (r"codes", between(0, 32767)),
)


def impossible(value: Any, name: str = "") -> str | None:
    """The first number that its name makes impossible."""
    if isinstance(value, dict):
        return next((x for k, v in value.items() if (x := impossible(v, k))), None)
    if isinstance(value, (list, tuple)):
        return next((x for v in value if (x := impossible(v, name))), None)
    if isinstance(value, str | None | bool):
        return None
    for pattern, may_be in IMPOSSIBLE:
        if re.fullmatch(pattern, name) and not may_be(value):
            return f"{name}: {value}"
    return None if math.isfinite(value) else f"{name}: {value}"


def unlike(said: Any, taken: Any, path: str = "") -> str | None:
    """Where what was accepted is not what the text says; keys with defaults may come on top."""
    if isinstance(said, dict) and isinstance(taken, dict):
        for key, value in said.items():
            if key not in taken:
                return f"{path}.{key} was dropped"
            if found := unlike(value, taken[key], f"{path}.{key}"):
                return found
        return None
    if isinstance(said, list) and isinstance(taken, (list, tuple)):
        if len(said) != len(taken):
            return f"{path}: {len(said)} items became {len(taken)}"
        pairs = enumerate(zip(said, taken, strict=True))
        return next((x for i, (a, b) in pairs if (x := unlike(a, b, f"{path}.{i}"))), None)
    if isinstance(taken, float) and type(said) is int:  # a number that JSON has no point for
        said = float(said)
    same = said == taken and isinstance(said, bool) == isinstance(taken, bool)
    return None if same else f"{path}: {said!r:.60} became {taken!r:.60}"


@dataclass(frozen=True)
class Format:
    """A file of the format, and its reader: returns what it took the content for, or None.

    kind: json and lines (the value is mutated, or its bytes), sealed (json that is accepted as it
    was written only), yaml, csv, bytes. judge: what else is wrong with what was accepted.
    """

    path: Path
    read: Callable[[Path], Any]
    kind: str = "json"
    judge: Callable[[Path], str | None] = lambda path: None

    @functools.cached_property
    def content(self) -> bytes:
        return self.path.read_bytes()

    @functools.cached_property
    def value(self) -> Any:
        if self.kind == "lines":
            return [json.loads(line) for line in self.content.splitlines()]
        return json.loads(self.content)

    def mutated(self, stream: random.Random) -> bytes:
        if self.kind == "csv" and stream.random() < 0.8:
            return mutated_csv(self.content.decode(), stream).encode(errors="surrogatepass")
        if self.kind == "yaml":
            return mutated_yaml(self.content.decode(), stream).encode()
        if self.kind in ("bytes", "csv") or stream.random() < 0.2:
            return mutated_bytes(self.content, stream)
        if self.kind != "lines":
            return document(mutated_json(self.value, stream)).encode()
        rows = list(self.value)
        row = stream.randrange(len(rows))
        rows[row] = mutated_json(rows[row], stream)
        return "".join(f"{document(r)}\n" for r in rows).encode()

    def wrong(self, content: bytes, taken: Any) -> str | None:
        """Why accepting `content` as `taken` was wrong."""
        if self.kind == "sealed":
            same = json.loads(content) == self.value
            return None if same else "a sealed file was accepted with another content"
        if self.kind == "json" and taken is not None:
            text = content.decode()
            if problem := contradicts_json(text):
                return problem
            if problem := unlike(json.loads(text), taken):
                return problem
        return impossible(taken) or self.judge(self.path)


def record(kind: Any, path: Path) -> Format:
    """A file that holds one record."""

    def read(path: Path) -> Any:
        found = dump(RecordFile(path, kind).read(), versioned=False)
        return {"schema_version": 1, **found}

    return Format(path, read)


def table(path: Path, space: Any) -> Format:
    def judge(path: Path) -> str | None:
        with contextlib.suppress(UserError):  # an operator may be missing
            ends = LatencyTable.load(path).estimate(space, [space.smallest(), space.largest()])
            small, large = ends.ms
            if not 0 < small <= large * 1e6 < math.inf:
                return f"estimates of {small} and {large} ms"
        return None

    def read(path: Path) -> Any:
        return {n: dump(t, versioned=False) for n, t in LatencyTable.load(path).corrections.items()}

    return Format(path, lambda path: [read(path)], "table", judge)


def manifest(folder: Path) -> Format:
    kit = kit_module("bundle_files")

    def verdicts(path: Path) -> tuple[bool, bool]:
        host = device = True
        try:
            read_manifest(path.parent)
        except UserError:
            host = False
        try:
            kit.read_bundle(path.parent)
        except kit.BundleError:
            device = False
        return host, device

    def read(path: Path) -> Any:
        host, device = verdicts(path)
        assert host == device, f"host {host}, kit {device}"
        if not host:
            raise UserError("refused by both")
        return dump(
            read_manifest(path.parent), version=json.loads(path.read_text())["schema_version"]
        )

    return Format(folder / "manifest.json", read)


def plan_of(folder: Path) -> Format:
    kit = kit_module("bench")

    def read(path: Path) -> Any:
        try:
            return kit.load_plan(path)
        except (kit.KitError, OSError) as error:
            raise UserError(str(error)) from error

    (folder / "models").mkdir(exist_ok=True)
    path = folder / "plan.json"
    plan = json.loads(path.read_text())
    for item in plan["items"]:
        model = folder / item["file"]
        model.write_bytes(item["id"].encode())
        item["sha256"] = kit.hashlib.sha256(model.read_bytes()).hexdigest()
    path.write_text(
        json.dumps({**plan, "items": plan["items"][:3], "reference": plan["items"][0]["id"]})
    )
    return Format(path, read)


def results_of(folder: Path) -> Format:
    (path,) = folder.glob("results-*.jsonl")
    header = json.loads(path.read_bytes().splitlines()[0])
    assert header["protocol"] == PROTOCOL
    n_items = len(json.loads((folder / "plan.json").read_text())["items"])
    ids = tuple(map(str, range(n_items)))

    def read(path: Path) -> Any:
        turns = read_results(Plan(path, path, header["plan_hash"], ids)).turns
        return [{"n_turns": len(turns), "median_ms": [max(t.nanoseconds) / 1e6 for t in turns]}]

    return Format(path, read, "lines")


def journal_of(run: Path) -> Format:
    path = run / "journal.jsonl"
    rows = [json.loads(line) for line in path.read_bytes().splitlines()[:3]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    known = [row["evaluation"] for row in rows]

    def read(path: Path) -> Any:
        found = [row["evaluation"] for row in RunDir(path.parent).journaled("evaluation")]
        assert all(row in known for row in found), "an altered line was accepted"
        return [dump(load(Evaluation, row, where=path)) for row in found]

    return Format(path, read, "lines")


def resealed_journal(folder: Path, run: Path) -> Format:
    """A line whose check is right: only the values themselves can tell."""
    path = folder / "line.json"
    row = json.loads((run / "journal.jsonl").read_bytes().splitlines()[0])["evaluation"]
    path.write_text(json.dumps(row))

    def read(path: Path) -> Any:
        return dump(load(Evaluation, read_json(path), where=path))

    return Format(path, read)


def state_of(run: Path, space: Any) -> Format:
    folder, copy_of = run / "search" / "main", run / "state"
    copy_of.mkdir()
    fingerprint = json.loads((folder / "state.json").read_text())["fingerprint"]
    for name in ("archive.bin", "evaluated.bin", "state.json"):
        (copy_of / name).write_bytes((folder / name).read_bytes())
    found = SearchFolder(copy_of, fingerprint).load(space)
    assert found is not None
    SearchFolder(copy_of, fingerprint).save(*found)  # sealed, as this version writes it
    kept = {p.name: p.read_bytes() for p in copy_of.iterdir()}

    def read(path: Path) -> Any:
        for name, content in kept.items():
            if name != "state.json":
                (copy_of / name).write_bytes(content)
        loaded = SearchFolder(copy_of, fingerprint).load(space)
        if loaded is None:  # the search begins anew
            raise UserError("noticed")
        return None

    return Format(copy_of / "state.json", read, "sealed")


def archive_of(run: Path, space: Any, name: str) -> Format:
    folder = run / "state"
    state, content = (folder / "state.json").read_bytes(), (folder / name).read_bytes()
    others = {p.name: p.read_bytes() for p in folder.glob("*.bin") if p.name != name}
    head = content.index(b"\n") + 1

    def read(path: Path) -> Any:
        (folder / "state.json").write_bytes(state)
        for other, data in others.items():
            (folder / other).write_bytes(data)
        found = SearchFolder(folder, json.loads(state)["fingerprint"]).load(space)
        if found is None:
            raise UserError("noticed")
        assert path.read_bytes().partition(b"\n")[2] == content[head:]

    return Format(folder / name, read, "bytes")


def bytes_of(path: Path, read: Callable[[Path], object]) -> Format:
    def taken(path: Path) -> None:
        read(path)

    return Format(path, taken, "bytes")


def images(folder: Path) -> dict[str, Format]:
    kit = kit_module("bundle_images")
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    np.save(folder / "x.npy", pixels)
    np.savez_compressed(folder / "x.npz", images=pixels[None], labels=np.array([1]))
    (folder / "x.ppm").write_bytes(b"P6\n8 8\n255\n" + pixels.tobytes())
    (folder / "x.pgm").write_bytes(b"P5 8 8 65535\n" + bytes(128))

    def of_kit(path: Path) -> None:
        try:
            if path.suffix == ".npz":
                kit.images_of_archive(path, ["a", "b"])[0](0)
            else:
                kit.read_image(path)
        except kit.BundleError as error:
            raise UserError(str(error)) from error

    def of_host(path: Path) -> None:
        try:
            if path.suffix == ".npy":
                read_npy(path)
            elif path.suffix == ".npz":
                read_npz(path)
            else:
                with path.open("rb") as stream:
                    square_rgb(stream, 8)
        except (UserError, OSError, ValueError, SyntaxError, IndexError) as error:  # as documented
            raise UserError(str(error)) from error

    names = ("x.npy", "x.npz", "x.ppm", "x.pgm")
    found = {f"kit {name}": bytes_of(folder / name, of_kit) for name in names}
    return found | {f"host {name}": bytes_of(folder / name, of_host) for name in names}


def of_weights(run: Path) -> dict[str, Format]:
    opened = open_project(run, progress_for=no_progress, command="", read_only=True)
    project = contextlib.ExitStack().enter_context(opened)
    predictor, supernet = project.files.predictor, project.files.supernet
    return {
        "predictor": bytes_of(predictor, lambda path: load_predictor(project)),
        "weights": bytes_of(supernet, data_of_weights),
    }


def labels_of(run: Path, space: Any) -> Format:
    path = run / "labels" / "supernet.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "labels": data["labels"][:3]}))

    def read(path: Path) -> Any:
        labels = read_labels(path)
        space.codes([space.check(label.arch) for label in labels])
        return [dump(label) for label in labels]

    return Format(path, read, "labels")


def sealed_record(kind: Any, path: Path, value: Any) -> Format:
    """A record with a hash of itself; without the hash it is one of an earlier version."""
    file = RecordFile(path, kind, is_sealed=True)
    file.write(value)

    def read(path: Path) -> Any:
        found = {"schema_version": 1, **dump(file.read(), versioned=False)}
        said = read_json(path)
        return {**found, "check": said["check"]} if "check" in said else found

    return Format(path, read)


def own_timings(folder: Path, space: Any) -> Format:
    """Timings from another tool: a row of the table per operator, with a number of the file."""
    path, device = folder / "timings.csv", load_device("local")
    config = ProfileConfig(n_validation=5)
    write_template(space, config, path, seed=0)
    head, *lines = path.read_text().splitlines()
    filled = [f"{line}{number % 7 + 1}.25" for number, line in enumerate(lines)]
    path.write_text("\n".join([head, *filled]) + "\n")
    n_ops = len(enumerate_ops(space))

    def read(path: Path) -> Any:
        table = read_timings(space, device, config, path, seed=0)
        assert len(table.rows) == n_ops
        text = path.read_text("utf-8-sig").replace(",", " ").replace(";", " ")
        numbers = {float(word) for word in re.findall(r"(?<![\w.])[0-9.]*[0-9](?![\w.])", text)}
        return [{"median_ms": row.median_ms} for row in table.rows.values()] + [
            {"unknown": row.median_ms}
            for row in table.rows.values()
            if row.median_ms not in numbers and "," not in path.read_text("utf-8-sig")
        ]

    return Format(path, read, "csv")


def sessions_of(folder: Path) -> dict[str, Format]:
    """The plans of earlier sessions and their order: what is not as it was is not used."""
    device, config = load_device("local"), ProfileConfig()
    (results,) = folder.glob("results-*.jsonl")
    plan = json.loads((folder / "plan.json").read_text())
    earlier = folder / "sessions"
    earlier.mkdir()
    name = results.stem.removeprefix("results-")
    (earlier / results.name).write_bytes(results.read_bytes())
    (earlier / f"plan-{name}.json").write_text(json.dumps(plan))
    write_json(earlier / "sessions.json", {"schema_version": 1, "sessions": [name]})
    timed = {item["id"] for item in plan["items"]}

    def read(path: Path) -> None:
        found = known_models(device, config, [path.parent])
        assert found <= timed, "a model that was never timed"

    return {
        "sessions": Format(earlier / "sessions.json", read, "order"),
        "plan of a session": Format(earlier / f"plan-{name}.json", read, "order"),
    }


def of_measurements(run: Path, folder: Path, space: Any) -> dict[str, Format]:
    """References, answers and hits; the history, and versions of stages."""
    networks = (TimedReference("mobilenetv3_small_100", 16, 0.5, 0.01, "", 0.67, 224),)
    trained = TrainedReference("mobilenetv3_small_100", 16, "scratch", 0.5, 40, 400)
    references = RunReferences((References("local", networks, {"winner": 0.4}, 1.0),), (trained,))
    photo = Photo("/9j/4A==", 0, 1, 0.75)
    answered = Answered(
        "local", space.smallest(), "model.onnx", ((3, 1), (0, 4)), (photo,), (photo,)
    )
    hits = TestHits(9, {"local": {space.smallest().key: pack_bits(np.arange(9) % 2 == 0)}})
    plain = {"references": references, "trained reference": trained, "hits": hits}
    plain["answers"] = Answers((answered,))
    found = {}
    for name, value in plain.items():
        path = folder / f"{name}.json"
        RecordFile(path, type(value)).write(value)
        found[name] = record(type(value), path)
    entry = Entry("hwnas train", "2026-01-01T00:00:00+00:00", {"config.yaml": "a: 1\n", "x": None})
    entry = replace(entry, stages=RunDir(run).ledger())
    found["history"] = sealed_record(Entry, folder / "0001.json", entry)
    return found


def of_stages(run: Path, folder: Path) -> dict[str, Format]:
    """Facts of the data, and of files that were set aside."""
    files = Artifacts(RunDir(folder / "facts"))
    parts = dict.fromkeys(("train", "val", "test"), "all")
    identity = DataIdentity(("ant", "bee"), {"all": {"a.jpg": 32 * "0"}}, parts)
    n_images = dict.fromkeys(parts, 1)
    info = DataInfo("photos", ("ant", "bee"), (0.5,), (0.5,), 8, n_images, identity.digests)
    data = DataRecord((SeenData("a" * 32, None, info, None),), 0)
    version = folder / "stage.json"
    name, stored = next(iter(RunDir(run).ledger().items()))
    return {
        "data": sealed_record(DataRecord, files.data_file, data),
        "files of the data": sealed_record(DataIdentity, files.data_files("a").path, identity),
        "version": sealed_record(_Facts, version, _Facts(name, stored)),
    }


def only(read: Callable[[Path], object]) -> Callable[[Path], None]:
    """A reader whose result is not compared with the text."""

    def taken(path: Path) -> None:
        read(path)

    return taken


def metrics(path: Path) -> Any:
    return [dump(row) for row in training_rows(RunDir(path.parent))]


def configuration(path: Path) -> Any:
    return load_config(read_yaml(path), where=path).model_dump()


def formats(run: Path, folder: Path) -> dict[str, Format]:
    """Every format that hwnas reads, by name."""
    search = run / "search" / "main"
    space = hwnas.open_run(run).space
    config = run / "config.yaml"
    spaces = folder / "space.yaml"
    spaces.write_text(shipped("configs/spaces", "digits_study.yaml").read_text())
    device = folder / "device.yaml"
    device.write_text(shipped("configs/devices", "local.yaml").read_text())
    arch = folder / "arch.json"
    arch.write_text(json.dumps(space.largest().to_json()))
    commit = folder / "commit.json"
    change = Commit((("tables/a", "superseded/a"),), {"x.yaml": "a: 1\n"})
    commit.write_text(json.dumps(dump(change)))
    outside = folder / "outside.json"
    row = {"setting": "supernet.init", "given": "w", "path": "/w", "sha256": 64 * "0"}
    outside.write_text(json.dumps({"schema_version": 1, "files": [row]}))
    bundle = folder / "bundle"
    colour_bundle(bundle)
    alone = next((search / "finetuned" / "alone").glob("*.json"))
    return {
        "configuration": Format(config, configuration, "yaml"),
        "space": Format(spaces, only(lambda path: hwnas.space(str(path))), "yaml"),
        "device": Format(device, only(lambda path: load_device(str(path))), "yaml"),
        "table": table(run / "tables" / "local.json", space),
        "arch": Format(arch, lambda path: read_arch(space, path).to_json()),
        "labels": labels_of(run, space),
        "journal": journal_of(run),
        "evaluation": resealed_journal(folder, run),
        "metrics": Format(run / "metrics.jsonl", metrics, "lines"),
        "ledger": Format(run / "stages.json", only(lambda path: RunDir(path.parent).ledger())),
        "env": record(Host, run / "env.json"),
        "networks": record(Roles, search / "finetuned" / "networks.json"),
        "exports": record(Exports, search / "export" / "exports.json"),
        "result": record(SearchResult, search / "result.json"),
        "closing": record(Remeasurement, search / "closing.json"),
        "results": record(Results, search / "verify" / "results.json"),
        "standalone": record(Standalone, alone),
        "report": record(PredictorReport, run / "predictor" / "report.json"),
        "blend": record(Blend, run / "predictor" / "blend.json"),
        "commit": record(Commit, commit),
        "outside": record(OutsideFiles, outside),
        "state": state_of(run, space),
        "archive": archive_of(run, space, "archive.bin"),
        "evaluated": archive_of(run, space, "evaluated.bin"),
        "manifest": manifest(bundle),
        "plan": plan_of(run / "tables" / "local"),
        "results of the kit": results_of(search / "verify" / "local"),
        **of_measurements(run, folder, space),
        **sessions_of(search / "verify" / "local"),
        "timings": own_timings(folder, space),
        **of_weights(run),
        **images(folder),
        **of_stages(run, folder),
        **{
            name: Format(*made)
            for found in (of_records(folder), of_published(folder), of_texts(folder))
            for name, made in found.items()
        },
        **{name: Format(*made) for name, made in of_score_table(folder, space).items()},
    }  # fmt: skip


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Format]:
    folder = tmp_path_factory.mktemp("mutated")
    found = formats(unpacked_run("finished", folder), folder)
    for format in found.values():  # before anything is mutated
        assert format.content and (format.kind in ("bytes", "csv", "yaml") or format.value)
    return found


def attempt(format: Format, content: bytes) -> str:
    """`refused`, `accepted`, or what went wrong."""
    format.path.write_bytes(content)
    try:
        with bounded(seconds=HANGS_S, memory=MEMORY):
            taken = format.read(format.path)
    except UserError:
        return "refused"
    except MemoryError:
        return "memory"
    except TimeoutError:
        return "hang"
    except Exception as error:
        return f"traceback: {type(error).__name__}: {error!s:.200}"
    problem = format.wrong(content, taken)
    return "accepted" if problem is None else f"wrong: {problem}"


def mutate(known: dict[str, Format], n: int) -> tuple[Counter[str], list[str]]:
    """Outcomes of n mutations, spread evenly over the formats, and what went wrong."""
    outcomes: Counter[str] = Counter()
    problems = []
    for number in range(n):
        name = list(known)[number % len(known)]
        stream = random.Random(f"{name}/{number}")
        content = known[name].mutated(stream)
        try:
            outcome = attempt(known[name], content)
        finally:
            known[name].path.write_bytes(known[name].content)
        outcomes[outcome.partition(":")[0]] += 1
        if outcome not in ("refused", "accepted"):
            problems.append(f"{name}/{number}: {outcome}")
    return outcomes, problems


def settings(n: int) -> list[str]:
    """What `--set` ends in otherwise than in an error, or in data."""
    tokens = (
        "²",
        "9" * 5000,
        "\ud800",
        "a.b",
        "",
        ".",
        "=",
        "-1",
        "1e999",
        "{a: 1, a: 2}",
        "!!x",
        "*a",
    )
    data = {"train": {"steps": 1}, "search": {"constraints": [{"max": 1}]}, "seed": 0}
    problems = []
    for number in range(n):
        stream = random.Random(f"set/{number}")
        text = stream.choice(SETTINGS)
        at = stream.randrange(len(text) + 1)
        text = text[:at] + stream.choice(tokens) + text[at + stream.randrange(3) :]
        try:
            with bounded(seconds=HANGS_S, memory=MEMORY):
                json.dumps(override(data, assignments([text])), allow_nan=True).encode()
        except UserError:
            continue
        except Exception as error:
            problems.append(f"set/{number}: {text!r:.60}: {error!r:.100}")
    return problems


def check(known: dict[str, Format], n: int) -> None:
    begin = time.process_time()
    outcomes, problems = mutate(known, n * 9 // 10)
    problems += settings(n // 10)
    seconds = time.process_time() - begin
    print(
        f"{n} mutations of {len(known) + 1} formats in {seconds:.0f} s: {dict(outcomes)}",
        file=sys.stderr,
    )
    assert not problems, "\n".join([f"{len(problems)} problems", *problems[:40]])
    assert outcomes["accepted"] and outcomes["refused"]  # the mutations reach both


def test_what_is_not_mutated_is_accepted(known: dict[str, Format]) -> None:
    for name, format in known.items():
        assert attempt(format, format.content) == "accepted", name
        format.path.write_bytes(format.content)


def test_two_thousand_mutations(known: dict[str, Format]) -> None:
    check(known, N_DEFAULT)


@pytest.mark.full
def test_twenty_thousand_mutations(known: dict[str, Format]) -> None:
    check(known, N_FULL)
