"""Test accuracy of exported files, each in its own runtime, on this host or on its device."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.bits import pack_bits
from hwnas.core.progress import Progress, silent
from hwnas.core.stats import accuracy_text
from hwnas.exporters.apart import Crashed, Runner, opened_safely
from hwnas.exporters.opened import CannotRunHere
from hwnas.exporters.parity import compare, is_kept, tolerance_text, torch_logits
from hwnas.interfaces import DeviceSpec, Images
from hwnas.measure.on_device import DeviceRun, held_precisions, run_on_device
from hwnas.pipeline.answers import Replies, replies_of
from hwnas.pipeline.exports import exported_artifact, file_of
from hwnas.pipeline.hits import TestHits
from hwnas.pipeline.outcomes import Check, Exported, NetworkResult
from hwnas.pipeline.project import Project
from hwnas.pipeline.winners import load_network, winner_roles
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution

__all__ = ["Accuracies", "artifact_check", "format_checks", "test_accuracies", "test_hits"]

log = logging.getLogger(__name__)

Hits = NDArray[np.bool_]

N_TEXTS = 64  # windows of a text at once
N_COMPARED = 64  # test images on which the file of a device is compared with torch


@dataclass(frozen=True)
class Accuracies:
    """Results of one network's exported files on the test split; keys are paths in a bundle.

    n is the number of test images; for texts, of predicted tokens.

    labels: int64 [n], the class of each image, one of `n_classes`.
    hits: bool [n], whether a file classifies each image correctly on this host, in the runtime of
        its format.
    device_hits: maps a device to such a mapping, for its file if it was run on the device itself.
    runs: maps a device in `device_hits` to the outputs of its file for all test images.
    replies: predictions of a file for every image, on this host.
    loss: mean cross-entropy of a file in nats, on this host; only for texts.
    """

    labels: NDArray[np.int64]
    n_classes: int
    hits: Mapping[str, Hits] = field(default_factory=dict)
    device_hits: Mapping[str, Mapping[str, Hits]] = field(default_factory=dict)
    runs: Mapping[str, DeviceRun] = field(default_factory=dict)
    replies: Mapping[str, Replies] = field(default_factory=dict)
    loss: Mapping[str, float] = field(default_factory=dict)

    @property
    def here(self) -> dict[str, float]:
        """Maps the path of each file to its top-1 in [0, 1] on this host."""
        return {path: float(hits.mean()) for path, hits in self.hits.items()}

    def on(self, device: str) -> dict[str, float]:
        """Maps the path of each file to its top-1, on `device` if it ran there, else here."""
        return {path: float(hits.mean()) for path, hits in self.hits_on(device).items()}

    def hits_on(self, device: str) -> dict[str, Hits]:
        """Maps the path of each file to bool [n]: whether its prediction is right for each image.

        As in `on`, files that ran on `device` have the predictions of the device.
        """
        return {**self.hits, **self.device_hits.get(device, {})}

    def by_class(self, device: str) -> dict[str, tuple[tuple[int, int], ...]]:
        """Maps the path of each file to pairs (correct answers, images) of each class; see `on`."""
        of = self._per_class(self.labels)
        return {
            path: tuple(zip(self._per_class(self.labels[hits]), of, strict=True))
            for path, hits in self.hits_on(device).items()
        }

    def _per_class(self, labels: NDArray[np.int64]) -> list[int]:
        found: list[int] = np.bincount(labels, minlength=self.n_classes).tolist()
        return found

    def replies_on(self, device: str) -> dict[str, Replies]:
        """Maps the path of each file to its predictions for each image; see `on`."""
        found = dict(self.replies)
        if device in self.runs:
            own = replies_of(self.runs[device].logits)
            found |= dict.fromkeys(self.device_hits[device], own)
        return found


def test_accuracies(project: Project, arch: Arch, progress: Progress = silent) -> Accuracies:
    """Runs every exported file of a network on the test split, also on devices of this machine.

    progress: counts files.
    """
    if project.space.macro.reads_tokens:
        return _on_text(project, arch, progress)
    x, labels = project.images("test", resolution(project.space, arch))

    def right(logits: Images) -> Hits:
        found: Hits = logits.argmax(axis=1) == labels
        return found

    here, replies = {}, {}
    exports, threads = project.files.read_exports()[arch.key], project.config.threads
    with Runner(threads=threads) as runner:
        for number, one in enumerate(exports):
            progress(number, len(exports), one.model.path)
            if one.parity is None:
                continue
            kind, path = one.model.format, file_of(project, arch, one)
            try:
                with opened_safely(kind, path, threads=threads, runner=runner) as opened:
                    logits = opened.logits(x)
            except (CannotRunHere, Crashed) as error:
                log.warning("%s: test accuracy not measured: %s", one.files[0], error)
                continue
            here[one.model.path], replies[one.model.path] = right(logits), replies_of(logits)
    on_devices, runs = {}, {}
    for name, device in project.devices.items():
        if device.transport == "local" and not _is_host(device):
            one = exported_artifact(project, arch, device)
            runs[name] = run_on_device(device, file_of(project, arch, one), x)
            on_devices[name] = {one.model.path: right(runs[name].logits)}
    progress(len(exports), len(exports))
    n_classes = len(project.source.info.class_names)
    return Accuracies(labels, n_classes, here, on_devices, runs, replies)


def _on_text(project: Project, arch: Arch, progress: Progress) -> Accuracies:
    """Predicts every token of the test text with every exported file, in its own runtime."""
    hits: dict[str, Hits] = {}
    loss: dict[str, float] = {}
    labels = np.concatenate([y.numpy().ravel() for _, y in _texts(project)])
    exports = project.files.read_exports()[arch.key]
    for number, one in enumerate(exports):
        progress(number, len(exports), one.model.path)
        path, threads = file_of(project, arch, one), project.config.threads
        found, total = [], 0.0
        with opened_safely(one.model.format, path, threads=threads) as opened:
            for x, y in _texts(project):
                logits = np.moveaxis(opened.logits(x.numpy()), 1, -1)  # [B, L, words]
                found.append((logits.argmax(-1) == y.numpy()).ravel())
                right = np.take_along_axis(logits, y.numpy()[..., None], axis=-1)[..., 0]
                shifted = logits - logits.max(-1, keepdims=True)
                total += float((logits.max(-1) + np.log(np.exp(shifted).sum(-1)) - right).sum())
        hits[one.model.path] = np.concatenate(found)
        loss[one.model.path] = total / len(labels)
    progress(len(exports), len(exports))
    return Accuracies(labels, project.space.macro.num_classes, hits, loss=loss)


def _texts(project: Project) -> Iterator[tuple[Any, Any]]:
    """Windows [B, S, L] and next tokens [B, L] of the test text."""
    return project.data.eval_batches("test", N_TEXTS)


def test_hits(
    project: Project, rows: Sequence[NetworkResult], accuracies: Mapping[Arch, Accuracies]
) -> TestHits:
    """Packs, for storage, which test images the networks of `rows` classify correctly."""
    n_images = 0
    right: dict[str, dict[str, str]] = {device: {} for device in project.devices}
    exports = project.files.read_exports()
    for row in rows:
        found = accuracies[row.arch].hits_on(row.device)
        own = found.get(row.file)
        if own is None:
            own = found[exports[row.arch.key][0].model.path]
        n_images, right[row.device][row.arch.key] = len(own), pack_bits(own)
    return TestHits(n_images, right)


def _is_host(device: DeviceSpec) -> bool:
    """Whether the device is the default runtime for files: ONNX Runtime on the CPU."""
    return (device.runtime, device.provider) == ("onnxruntime", "CPUExecutionProvider")


def artifact_check(
    project: Project, device: DeviceSpec, arch: Arch, accuracies: Accuracies
) -> list[Check]:
    """Checks a winner's file for a device: its precision, and its outputs compared with torch.

    There are no checks for a float32 device with ONNX Runtime on this machine, because its file is
    the reference for all others.
    """
    one = exported_artifact(project, arch, device)
    if device.transport != "local" or (_is_host(device) and device.precision == "fp32"):
        return []
    x, _ = project.images("test", resolution(project.space, arch), N_COMPARED)
    found = accuracies.runs.get(device.name)
    if found is None:
        found = run_on_device(device, file_of(project, arch, one), x)
    expected = torch_logits(load_network(project, arch), x)
    model = one.model
    report = compare(expected, found.logits[: len(x)], device.batch, rounding=model.torch_rounding)
    top1 = accuracy_text(accuracies.on(device.name).get(one.model.path), len(accuracies.labels))
    accepted = tolerance_text(model.parity_tolerance, model.torch_rounding)
    is_right = found.precision in (None, device.precision)
    other = "" if is_right else f" instead of {device.precision}"
    detail = (
        f"{one.model.path}: precision {found.precision or 'unknown'}{other}; logits of"
        f" {device.runtime} {device.provider} differ from torch by up to {report.relative:.1e} of"
        f" the largest logit (accepted {accepted}); same top-1 class on"
        f" {report.top1_agreement:.2%} of {len(x)} images; test top-1 {top1 or 'not measured'}"
    )
    return [Check(f"file of {device.name}", is_kept(model, report) and is_right, detail)]


def format_checks(
    project: Project, archs: Mapping[str, Arch], accuracies: Mapping[Arch, Accuracies]
) -> list[Check]:
    """Checks the parity of every exported format of the winners; returns a check for each."""
    checks = []
    winners = {archs[role]: role for role in reversed(winner_roles(project))}
    for arch, role in reversed(winners.items()):
        top1, n = accuracies[arch].here, len(accuracies[arch].labels)
        exports = project.files.read_exports()[arch.key]
        missing = [one for one in exports if one.failure]
        checks += [Check(f"{one.model.path} of the {role}", False, one.failure) for one in missing]
        exports = tuple(one for one in exports if not one.failure)
        held = held_precisions([file_of(project, arch, one) for one in exports])
        for position, one in enumerate(exports):
            report = one.parity
            if report is None or one.model.format == "timm":  # which is the torch network itself
                continue
            holds = held[position]
            is_other = holds not in (None, one.model.precision)
            wrong = f"precision {holds} instead of {one.model.precision}; " if is_other else ""
            sizes = ", ".join(str(batch.batch) for batch in report.batches)
            known = accuracy_text(top1.get(one.model.path), n) or "not measured"
            raised = tolerance_text(report.tolerance, report.torch_rounding)
            bar = f"accepted {raised}; " if report.torch_rounding is not None else ""
            checks.append(
                Check(
                    f"{_name(one, exports) if position else 'parity'} of the {role}",
                    report.passed and not is_other,
                    f"{wrong}logits of {report.runtime} differ from torch by up to"
                    f" {report.worst:.1e} of the largest logit ({bar}batch {sizes}); same top-1"
                    f" class on {report.agreement:.2%} of images; test top-1 {known}",
                )
            )
    return checks


def _name(one: Exported, exports: Sequence[Exported]) -> str:
    """The format of a file, or its name if the format has several files."""
    formats = [other.model.format for other in exports]
    return one.files[0] if formats.count(one.model.format) > 1 else one.model.format
