"""`hwnas verify BUNDLE`: checks models against torch, the test split and the manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.arrays import read_npy
from hwnas.core.confined import inside
from hwnas.core.errors import CheckFailed, UserError
from hwnas.core.progress import Progress
from hwnas.core.stats import accuracy_text
from hwnas.exporters.apart import Crashed, Runner, opened_safely
from hwnas.exporters.bundle import read_manifest
from hwnas.exporters.engine import check_engine, run_engine
from hwnas.exporters.manifest import Manifest
from hwnas.exporters.opened import CannotRunHere
from hwnas.exporters.parity import ParityReport, compare_batches, tolerance_text
from hwnas.interfaces import DataModule, ModelFile, OpenModel
from hwnas.measure import bundle_data
from hwnas.measure.bundle_latency import LatencyReport, check_latency
from hwnas.measure.limits import CheckSettings, VerifyConfig
from hwnas.measure.on_device import wrong_precisions

__all__ = ["BundleReport", "verify_bundle"]

N_COMPARED = 512  # test images on which torch and every format are compared
N_OF_REFERENCE = 64  # of them at every batch size but one, for the torch network itself
ACCURACY_SLACK = {"fp32": 0.002, "fp16": 0.005, "int8": 0.01}  # allowed loss of top-1
REFERENCES = ("timm", "pt2")  # formats that run in torch, best first


@dataclass(frozen=True)
class BundleReport:
    """Results of the checks of a bundle.

    models: a row per model, on outputs and accuracy.
    latency: a row per model and device.
    failed: descriptions of the failed checks.
    notes: checks that were not made, with the reason.
    not_judged: checks without a result, because the machine is noisy, or too fast or slow compared
        with when the bundle was made (see `measure.drift`).
    """

    models: tuple[dict[str, Any], ...]
    latency: tuple[dict[str, Any], ...]
    failed: tuple[str, ...]
    notes: tuple[str, ...]
    not_judged: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Images:
    """Images [n, C, H, W] for comparisons, their torch logits, and the test split with labels.

    reference: path of the model in the bundle that computed `expected`; empty: golden outputs.
    """

    x: NDArray[np.float32]
    expected: NDArray[np.float32]
    test: tuple[NDArray[np.float32], NDArray[np.int64]] | None
    reference: str = ""


@dataclass(frozen=True)
class _Host:
    """How models are run on this host; `trust`: also run models that can contain untrusted code."""

    runner: Runner
    threads: int
    trust: bool

    def open(self, folder: Path, model: ModelFile) -> contextlib.AbstractContextManager[OpenModel]:
        path = inside(folder, model.path)
        return opened_safely(
            model.format, path, threads=self.threads, trust=self.trust, runner=self.runner
        )


def verify_bundle(
    folder: Path,
    *,
    data: DataModule | None,
    settings: CheckSettings | None,
    with_latency: bool = True,
    threads: int = 1,
    trust: bool = False,
    progress: Progress,
) -> BundleReport:
    """Compares, tests and times the models of a bundle on this host.

    data: the data set on which the network was trained. Without it, torch and the formats are
        compared on the golden inputs, and accuracy is not checked.
    settings: how models are timed, and tolerances. Without them, latency is not checked, and
        default tolerances are used.
    trust: also run models that can contain code (`.pt2`, engines) and that this hwnas did not
        write. Without it they are skipped, with a note.

    Raises:
        UserError: the bundle is not valid, or `data` is another data set.
    """
    manifest = read_manifest(folder)
    notes: list[str] = []
    batches = (VerifyConfig() if settings is None else settings.verify).parity_batches
    rows, failed = [], []
    with Runner(threads=threads) as runner:
        host = _Host(runner, threads, trust)
        images = _images(folder, manifest, data, host, notes)
        for done, model in enumerate(manifest.models, start=1):
            row, problems = _check_model(folder, manifest, model, images, batches, host, notes)
            rows.append(row)
            failed += [f"{model.path}: {problem}" for problem in problems]
            progress(done, len(manifest.models), model.path)
    failed += drops(rows) + wrong_precisions(folder, manifest, rows)
    latency = LatencyReport()
    if with_latency and settings is not None:
        latency = check_latency(folder, manifest, settings, progress, trust=trust)
    return BundleReport(
        models=tuple(rows),
        latency=tuple(latency.rows),
        failed=(*failed, *latency.failed),
        notes=(*notes, *latency.notes),
        not_judged=tuple(latency.not_judged),
    )


def drops(rows: list[dict[str, Any]]) -> list[str]:
    """Describes every fp16 or int8 model that lost too much test top-1 against fp32.

    Adds the loss to `rows` as `lost`, and sets `passed` to False where it is too large.
    """
    whole = [row["test top1"] for row in rows if row["precision"] == "fp32" and "test top1" in row]
    problems = []
    for row in rows:
        if not whole or row["precision"] == "fp32" or "test top1" not in row:
            continue
        lost, most = whole[0] - row["test top1"], ACCURACY_SLACK[row["precision"]]
        row["lost"] = round(lost, 4)
        if lost > most:
            row["passed"] = False
            problems.append(
                f"{row['model']}: lost {lost:.2%} of test top-1; at most {most:.1%} is accepted"
            )
    return problems


def _golden(path: Path) -> NDArray[Any]:
    try:
        return read_npy(path)
    except (OSError, ValueError) as error:
        raise UserError(
            "cannot read golden data",
            found=error,
            where=path,
            fix="export or copy the bundle again",
        ) from error


def _images(
    folder: Path,
    manifest: Manifest,
    data: DataModule | None,
    host: _Host,
    notes: list[str],
) -> _Images:
    golden = _golden(folder / manifest.golden.input)
    logits = _golden(folder / manifest.golden.output)
    if data is None:
        notes.append(
            f"no data set: models are compared on the {len(golden)} golden inputs, accuracy not"
            " checked (--config NAME selects the data set)"
        )
        return _Images(golden, logits, None)
    x, labels = bundle_data.test_split(manifest, data, folder)
    references = {model.format: model for model in manifest.models}
    for format in REFERENCES:
        with contextlib.suppress(CannotRunHere):
            if format in references:
                compared = x[:N_COMPARED]
                with host.open(folder, references[format]) as opened:
                    logits = opened.logits(compared, 32)
                return _Images(compared, logits, (x, labels), references[format].path)
    notes.append(
        "this host runs no torch network of the bundle (formats timm, pt2), so models are compared"
        f" on the {len(golden)} golden inputs"
    )
    return _Images(golden, logits, (x, labels))


def _check_model(
    folder: Path,
    manifest: Manifest,
    model: ModelFile,
    images: _Images,
    batches: Sequence[int],
    host: _Host,
    notes: list[str],
) -> tuple[dict[str, Any], list[str]]:
    """Row of a model, and its failed checks."""
    row: dict[str, Any] = {"model": model.path, "precision": model.precision}
    if model.path.endswith(".engine"):
        return _check_engine(folder, model, host, row, notes)
    try:
        with host.open(folder, model) as opened:
            report = compare_batches(
                images.expected,
                opened,
                images.x,
                file=model.path,
                batches=batches,
                most=N_OF_REFERENCE if model.path == images.reference else None,
                tolerance=model.parity_tolerance,
                min_agreement=model.min_agreement,
                rounding=model.torch_rounding,
            )
            row |= _parity_row(report)
            if model.torch_rounding is not None:
                accepted = tolerance_text(model.parity_tolerance, model.torch_rounding)
                notes.append(f"{model.path}: accepted difference from torch: {accepted}")
            problems = _differences(report)
            if images.test is not None:
                problems += _check_accuracy(manifest, model, opened, images.test, row)
    except CannotRunHere as error:
        notes.append(f"{model.path}: not run here: {str(error).splitlines()[0]}")
        return row | {"passed": None}, []
    except (UserError, CheckFailed) as error:
        crash = f" ({error.found})" if isinstance(error, Crashed) else ""
        return row | {"passed": False}, [str(error).splitlines()[0] + crash]
    return row | {"passed": not problems}, problems


def _differences(report: ParityReport) -> list[str]:
    if report.passed:
        return []
    return [
        f"differs from torch by {report.worst:.1e} of the largest logit (allowed"
        f" {tolerance_text(report.tolerance, report.torch_rounding)}), has the same top-1 on"
        f" {report.agreement:.2%} of the images (at least {report.min_agreement:.1%} required)"
    ]


def _check_engine(
    folder: Path, model: ModelFile, host: _Host, row: dict[str, Any], notes: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """Checks that an engine belongs to its model, and runs it with the kit on a suitable GPU."""
    try:
        facts = check_engine(folder / model.path)
        source = inside(folder, str(facts["model"]))
        check_engine(folder / model.path, source=source)
        row |= {"runtime": f"{facts['runtime']} {facts['runtime_version']}, {facts['capability']}"}
        passed, text = run_engine(folder, model.path, trust=host.trust)
    except CannotRunHere as error:
        notes.append(f"{model.path}: {str(error).splitlines()[0]}")
        return row | {"passed": None}, []
    except (UserError, KeyError, OSError) as error:
        return row | {"passed": False}, [str(error).splitlines()[0]]
    return row | {"passed": passed}, [] if passed else [text[-500:]]


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
    row |= {"test top1": found, "n test": len(labels)}
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
    return [f"test top-1 {accuracy_text(found, len(labels))}, promised {promised[0]:.2%}"]
