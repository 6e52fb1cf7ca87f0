"""`hwnas verify BUNDLE`: every model of a bundle against torch, the test split and its promises."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.env import host_facts
from hwnas.core.errors import CheckFailed, UserError
from hwnas.core.progress import Progress
from hwnas.exporters import REGISTRY as EXPORTERS
from hwnas.exporters.bundle import read_manifest
from hwnas.exporters.manifest import InputSpec, LatencyFact, Manifest, ModelFile
from hwnas.exporters.opened import CannotRunHere, OpenModel
from hwnas.exporters.parity import ParityReport, compare_batches
from hwnas.interfaces import DataModule
from hwnas.pipeline.config import ExperimentConfig
from hwnas.pipeline.profiling import Timings, time_models

__all__ = ["BundleReport", "verify_bundle"]

N_COMPARED = 512  # test images on which torch and every format are compared
ACCURACY_SLACK = {"fp32": 0.002, "fp16": 0.005, "int8": 0.01}  # processors round differently
REFERENCES = ("timm", "pt2")  # formats that run in torch, best first


@dataclass(frozen=True)
class BundleReport:
    """Rows for people and what fell short; `notes` say what could not be checked, and why."""

    models: tuple[dict[str, Any], ...]
    latency: tuple[dict[str, Any], ...]
    failed: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Images:
    """Compared images [n, C, H, W], torch's logits of them; the test split and its labels."""

    x: NDArray[np.float32]
    expected: NDArray[np.float32]
    test: tuple[NDArray[np.float32], NDArray[np.int64]] | None


def verify_bundle(
    folder: Path,
    *,
    data: DataModule | None,
    config: ExperimentConfig | None,
    with_latency: bool = True,
    threads: int = 1,
    progress: Progress,
) -> BundleReport:
    """Compare, test and time the models of a bundle on this host.

    data: the data set that the network was trained on; without it torch and the formats are
    compared on the golden inputs, and accuracy stays unchecked. config: how timings are taken.

    Raises:
        UserError: not a sound bundle, or `data` is another data set.
    """
    manifest = read_manifest(folder)
    notes: list[str] = []
    images = _images(folder, manifest, data, threads, notes)
    rows, failed = [], []
    for done, model in enumerate(manifest.models, start=1):
        row, problems = _check_model(folder, manifest, model, images, threads, notes)
        rows.append(row)
        failed += [f"{model.path}: {problem}" for problem in problems]
        progress(done, len(manifest.models), model.path)
    latency: list[dict[str, Any]] = []
    if with_latency and config is not None:
        latency, slow = _check_latency(folder, manifest, config, notes, progress)
        failed += slow
    return BundleReport(tuple(rows), tuple(latency), tuple(failed), tuple(notes))


def _images(
    folder: Path,
    manifest: Manifest,
    data: DataModule | None,
    threads: int,
    notes: list[str],
) -> _Images:
    golden = np.load(folder / manifest.golden.input, allow_pickle=False)
    logits = np.load(folder / manifest.golden.output, allow_pickle=False)
    if data is None:
        notes.append(
            f"no data set: compared on the {len(golden)} golden inputs, accuracy not checked"
            " (--config NAME gives the data set)"
        )
        return _Images(golden, logits, None)
    x, labels = _test_split(manifest, data, folder)
    references = {model.format: model for model in manifest.models}
    for format in REFERENCES:
        if format in references:
            torch_model = _open(folder, references[format], threads)
            compared = x[:N_COMPARED]
            return _Images(compared, torch_model.logits(compared, 32), (x, labels))
    notes.append(
        f"no torch network in the bundle (formats timm, pt2): compared on the {len(golden)}"
        " golden inputs"
    )
    return _Images(golden, logits, (x, labels))


def _test_split(
    manifest: Manifest, data: DataModule, folder: Path
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    import torch

    from hwnas.training.images import resize

    px = manifest.input.shape[-1]
    spec = InputSpec.of(data.info, px)
    if spec != manifest.input:
        raise UserError(
            "the bundle is of another data set",
            expected=f"{manifest.input.shape}, {len(manifest.input.class_names)} classes,"
            f" mean {manifest.input.mean}, std {manifest.input.std}",
            found=f"{spec.shape}, {len(spec.class_names)} classes of {data.info.name},"
            f" mean {spec.mean}, std {spec.std}",
            where=folder,
            fix="give the configuration that it was made with: --config NAME",
        )
    batches = list(data.eval_batches("test", 512))
    x: NDArray[np.float32] = torch.cat([resize(b, px) for b, _ in batches]).contiguous().numpy()
    labels: NDArray[np.int64] = torch.cat([labels for _, labels in batches]).numpy()
    return x, labels


def _open(folder: Path, model: ModelFile, threads: int) -> OpenModel:
    if model.format not in EXPORTERS.names:
        raise CannotRunHere("this hwnas does not know the format", found=model.format)
    missing = EXPORTERS.describe(model.format)
    if missing.missing:
        names = ", ".join(missing.missing)
        raise CannotRunHere(f"{names} is not installed", fix=missing.install)
    opened: OpenModel = EXPORTERS.load(model.format).open_model(
        folder / model.path, threads=threads
    )
    return opened


def _check_model(
    folder: Path,
    manifest: Manifest,
    model: ModelFile,
    images: _Images,
    threads: int,
    notes: list[str],
) -> tuple[dict[str, Any], list[str]]:
    """A row, and what falls short."""
    row: dict[str, Any] = {"model": model.path, "precision": model.precision}
    try:
        opened = _open(folder, model, threads)
        report = compare_batches(
            images.expected,
            opened,
            images.x,
            file=model.path,
            batches=[batch for batch in (1, 2, 8) if batch <= len(images.x)],
            tolerance=model.parity_tolerance,
            min_agreement=model.min_agreement,
        )
    except CannotRunHere as error:
        notes.append(f"{model.path}: not run here: {str(error).splitlines()[0]}")
        return row | {"passed": None}, []
    except (UserError, CheckFailed) as error:
        return row | {"passed": False}, [str(error).splitlines()[0]]
    row |= _parity_row(report)
    problems = []
    if not report.passed:
        problems.append(
            f"differs from torch by {report.worst:.1e} of the largest logit (allowed"
            f" {report.tolerance:.0e}), agrees on {report.agreement:.2%} of images (at least"
            f" {report.min_agreement:.1%})"
        )
    if images.test is not None:
        problems += _check_accuracy(manifest, model, opened, images.test, row)
    return row | {"passed": not problems}, problems


def _parity_row(report: ParityReport) -> dict[str, Any]:
    return {
        "runtime": report.runtime,
        "batches": ", ".join(str(b.batch) for b in report.batches),
        "n": max(b.n_images for b in report.batches),
        "max diff": max(b.max_abs_difference for b in report.batches),
        "mean diff": max(b.mean_abs_difference for b in report.batches),
        "relative": report.worst,
        "agreement": report.agreement,
    }


def _check_accuracy(
    manifest: Manifest,
    model: ModelFile,
    opened: OpenModel,
    test: tuple[NDArray[np.float32], NDArray[np.int64]],
    row: dict[str, Any],
) -> list[str]:
    x, labels = test
    found = float((opened.logits(x).argmax(1) == labels).mean())
    row |= {"test top1": found}
    promised = [
        fact.top1
        for fact in manifest.accuracy
        if (fact.model, fact.split, fact.n_images) == (model.path, "test", len(labels))
    ]
    if not promised:
        return []
    row |= {"promised top1": promised[0]}
    if found >= promised[0] - ACCURACY_SLACK[model.precision]:
        return []
    return [f"test top-1 {found:.2%}, promised {promised[0]:.2%}"]


def _check_latency(
    folder: Path,
    manifest: Manifest,
    config: ExperimentConfig,
    notes: list[str],
    progress: Progress,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Forecast, measured, here, and the limit, of every timed model; what falls short."""
    here = host_facts()["cpu"]
    rows, failed = [], []
    for group in _groups(manifest.latency):
        first = group[0]
        can_run = first.device.transport == "local" and first.device.runtime == "onnxruntime"
        timings = None
        if can_run and first.host == here:
            timings = _time_here(folder, group, config, progress)
        else:
            notes.append(
                f"latency on {first.device.name} ({first.host}) not re-timed on {here}: run"
                " `python ort_run.py --check .` there"
            )
        for fact in group:
            row, problem = _latency_row(manifest, fact, timings, config)
            rows.append(row)
            failed += [problem] if problem else []
    return rows, failed


def _groups(facts: Sequence[LatencyFact]) -> list[list[LatencyFact]]:
    """Facts of one device and host, timed in one interleaved run."""
    found: dict[tuple[object, ...], list[LatencyFact]] = {}
    for fact in facts:
        device = fact.device
        key = (device.name, device.runtime, device.provider, device.threads, device.batch)
        found.setdefault((*key, fact.host), []).append(fact)
    return list(found.values())


def _time_here(
    folder: Path, group: Sequence[LatencyFact], config: ExperimentConfig, progress: Progress
) -> Timings:
    with tempfile.TemporaryDirectory() as temporary:
        return time_models(
            {_id(fact): folder / fact.model for fact in group},
            group[0].device,
            Path(temporary),
            config.profile,
            seed=config.seed,
            progress=progress,
        )


def _id(fact: LatencyFact) -> str:
    return fact.model.replace("/", ".")


def _latency_row(
    manifest: Manifest, fact: LatencyFact, timings: Timings | None, config: ExperimentConfig
) -> tuple[dict[str, Any], str]:
    limits = [
        c.max
        for c in manifest.constraints
        if c.device == fact.device.name and c.metric == "latency_ms" and fact.forecast_ms
    ]
    row: dict[str, Any] = {
        "model": fact.model,
        "device": fact.device.name,
        "forecast_ms": fact.forecast_ms,
        "measured_ms": fact.measured_ms,
        "here_ms": None,
        "limit_ms": limits[0] if limits else None,
        "holds": None,
    }
    if timings is None:
        return row, ""
    here_ms = timings.models[_id(fact)].median_ms
    verify = config.verify
    slack = 1 + max(verify.max_forecast_error, verify.repeat_noise_factor * timings.repeat_mape)
    promised = [fact.interval_ms[1]] if fact.interval_ms else []
    promised += [fact.measured_ms * slack] if fact.measured_ms else []
    widening = (
        fact.interval_ms[1] / fact.forecast_ms if fact.interval_ms and fact.forecast_ms else 1
    )
    problems = []
    if promised and here_ms > max(promised):
        problems.append(f"{here_ms:.4f} ms here, promised at most {max(promised):.4f} ms")
    if limits and here_ms > limits[0] * widening:
        problems.append(f"{here_ms:.4f} ms here, limit {limits[0]:.4f} ms")
    row |= {"here_ms": here_ms, "holds": not problems}
    text = f"{fact.model} on {fact.device.name}: {'; '.join(problems)}" if problems else ""
    return row, text
