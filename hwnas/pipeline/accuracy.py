"""Test accuracy of exported files, each in its own runtime, on this host or on its device."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hwnas.exporters.formats import open_model
from hwnas.exporters.opened import CannotRunHere
from hwnas.exporters.parity import compare, torch_logits
from hwnas.interfaces import DeviceSpec, Images
from hwnas.measure.on_device import DeviceRun, run_on_device
from hwnas.pipeline.exports import exported_artifact, file_of
from hwnas.pipeline.outcomes import Check, Exported
from hwnas.pipeline.project import Project
from hwnas.pipeline.winners import load_network
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution

__all__ = ["Accuracies", "artifact_check", "test_accuracies"]

log = logging.getLogger(__name__)

N_COMPARED = 64  # test images on which the file of a device is compared with torch


@dataclass(frozen=True)
class Accuracies:
    """Top-1 in [0, 1] on the test split of n images, by the path of the file in a bundle.

    here: for files on this host, in the runtime of their format.
    on_devices: for the file of each device, if it was run on the device itself.
    runs: outputs of these devices for all test images.
    right: by device (None: this host) and path, right answers of each class.
    n_by_class: number of test images of each class.
    """

    n_images: int
    here: Mapping[str, float] = field(default_factory=dict)
    on_devices: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    runs: Mapping[str, DeviceRun] = field(default_factory=dict)
    n_by_class: tuple[int, ...] = ()
    right: Mapping[str | None, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)

    def on(self, device: str) -> dict[str, float]:
        """Top-1 by path; for the file of this device, the top-1 on the device."""
        return {**self.here, **self.on_devices.get(device, {})}

    def by_class(self, device: str) -> dict[str, tuple[tuple[int, int], ...]]:
        """As `on`: right answers and images of every class."""
        right = {**self.right.get(None, {}), **self.right.get(device, {})}
        return {path: tuple(zip(n, self.n_by_class, strict=True)) for path, n in right.items()}


def test_accuracies(project: Project, arch: Arch) -> Accuracies:
    """Accuracies of every exported file of a network, also on all devices of this machine."""
    x, labels = project.images("test", resolution(project.space, arch))
    n_classes = len(project.source.info.class_names)
    right: dict[str | None, dict[str, tuple[int, ...]]] = {}

    def by_class(labels: NDArray[np.int64]) -> tuple[int, ...]:
        return tuple(np.bincount(labels, minlength=n_classes).tolist())

    def top1(logits: Images, device: str | None, path: str) -> float:
        is_right = logits.argmax(axis=1) == labels
        right.setdefault(device, {})[path] = by_class(labels[is_right])
        return float(is_right.mean())

    here = {}
    for one in project.files.read_exports()[arch.key]:
        if one.parity is not None:
            try:
                path = file_of(project, arch, one)
                opened = open_model(one.model.format, path, threads=project.config.threads)
            except CannotRunHere as error:
                log.warning("%s: test accuracy not measured: %s", one.files[0], error)
                continue
            here[one.model.path] = top1(opened.logits(x), None, one.model.path)
    on_devices, runs = {}, {}
    for name, device in project.devices.items():
        if device.transport == "local" and not _is_host(device):
            one = exported_artifact(project, arch, device)
            runs[name] = run_on_device(device, file_of(project, arch, one), x)
            shipped = one.model.path
            on_devices[name] = {shipped: top1(runs[name].logits, name, shipped)}
    return Accuracies(len(labels), here, on_devices, runs, by_class(labels), right)


def _is_host(device: DeviceSpec) -> bool:
    """Whether the device is the default runtime for files: ONNX Runtime on the CPU."""
    return (device.runtime, device.provider) == ("onnxruntime", "CPUExecutionProvider")


def artifact_check(
    project: Project, device: DeviceSpec, arch: Arch, accuracies: Accuracies
) -> list[Check]:
    """Checks of a winner's file for a device: its precision, and its outputs compared with torch.

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
    report = compare(expected, found.logits[: len(x)], device.batch)
    tolerance, least = one.model.parity_tolerance, one.model.min_agreement
    holds = report.relative <= tolerance and report.agrees(least)
    detail = (
        f"{one.model.path} holds {found.precision or 'an unknown precision'}, the device runs"
        f" {device.precision}; torch and {device.runtime} {device.provider} differ by"
        f" {report.relative:.1e} of the largest logit (accepted {tolerance:.0e}), agree on"
        f" {report.top1_agreement:.2%} of {len(x)} images; test top-1"
        f" {_percent(accuracies.on(device.name), one)}"
    )
    is_right = found.precision in (None, device.precision)
    return [Check(f"file of {device.name}", bool(holds and is_right), detail)]


def _percent(accuracies: Mapping[str, float], one: Exported) -> str:
    top1 = accuracies.get(one.model.path, np.nan)
    return "not measured" if np.isnan(top1) else f"{top1:.2%}"
