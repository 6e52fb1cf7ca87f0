"""Stage `verify`: the exported networks on the device, against what the search promised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hwnas import __version__
from hwnas.core.env import host_facts
from hwnas.core.progress import Progress
from hwnas.core.records import STRICT, dump, load
from hwnas.core.store import content_hash, file_hash, read_json, write_json
from hwnas.exporters.bundle import write_bundle
from hwnas.exporters.manifest import (
    AccuracyFact,
    ConstraintFact,
    InputSpec,
    LatencyFact,
    Manifest,
    ModelFile,
)
from hwnas.exporters.timm import COMPANIONS, WEIGHTS
from hwnas.interfaces import DeviceSpec
from hwnas.latency.estimator import TableEstimator
from hwnas.pipeline.exporting import images_of, onnx_path, parity_reports
from hwnas.pipeline.finetuning import load_network, networks, winner_role
from hwnas.pipeline.moving import require_own_table
from hwnas.pipeline.predicting import read_blend, read_report
from hwnas.pipeline.profiling import Timings, time_models
from hwnas.pipeline.project import Project
from hwnas.pipeline.searching import constraints_on, result_on
from hwnas.search.constraints import metric_key
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import cost
from hwnas.spaces.lowering import resolution

__all__ = ["Check", "NetworkResult", "Results", "read_results", "verify"]


@dataclass(frozen=True)
class NetworkResult:
    """One network on one device.

    `repeat_noise`: how far timings of equal networks are apart, as a fraction: the larger of two
    halves of this re-timing, and of this re-timing and the table's (on the table's own networks).
    `constraint_met`: re-timed latency within the limit, or within the forecast's 90 % interval
    above it; None where the search had no limit for this device.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    device: str
    arch: Arch
    test_top1: float
    n_test_images: int
    macs: int
    params: int
    forecast_ms: float
    interval_ms: tuple[float, float]
    measured_ms: float
    repeat_noise: float
    limit_ms: float | None
    constraint_met: bool | None

    @property
    def forecast_error(self) -> float:
        """Relative error of the forecast, signed."""
        return self.forecast_ms / self.measured_ms - 1

    def summary(self) -> dict[str, Any]:
        """The row of the closing table."""
        return {
            "name": self.name,
            "test_top1": round(self.test_top1, 4),
            "macs": self.macs,
            "params": self.params,
            "forecast_ms": round(self.forecast_ms, 5),
            "measured_ms": round(self.measured_ms, 5),
            "forecast_error": round(self.forecast_error, 4),
            "limit_ms": None if self.limit_ms is None else round(self.limit_ms, 5),
            "constraint_met": self.constraint_met,
            "device": self.device,
        }


@dataclass(frozen=True)
class Check:
    """One promise and whether it holds."""

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    passed: bool
    detail: str

    def summary(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dump(self, versioned=False)


@dataclass(frozen=True)
class Results:
    """What a search comes down to: the closing table and its checks."""

    __pydantic_config__: ClassVar[Any] = STRICT

    networks: tuple[NetworkResult, ...]
    checks: tuple[Check, ...]
    predictor: dict[str, Any]


def read_results(project: Project) -> Results:
    """What stage `verify` found."""
    path = _results_path(project)
    return load(Results, read_json(path), where=path)


def _results_path(project: Project) -> Path:
    return project.search_path("verify", "results.json")


def verify(project: Project, progress: Progress) -> None:
    """Test and re-time every network, check the winner's promises, write its bundle."""
    for name in project.devices:
        require_own_table(project, name)
    archs = networks(project)
    accuracy = {arch: _test_top1(project, arch) for arch in set(archs.values())}
    rows, checks = [], [_parity_check(project, archs["winner"])]
    for name, device in project.devices.items():
        estimator = project.estimator(name)
        timings = time_models(
            {arch.key: onnx_path(project, arch) for arch in dict.fromkeys(archs.values())},
            device,
            project.search_path("verify", name),
            project.config.profile,
            seed=project.config.seed,
            table=estimator.table,
            space=project.space,
            progress=progress,
            transport=project.transport(name),
        )
        found = [
            _result(project, role, archs[role], estimator, timings, accuracy) for role in archs
        ]
        winner = next(row for row in found if row.name == winner_role(project, name))
        checks += _device_checks(project, winner)
        _bundle(project, device, estimator, winner)
        rows += found
    report = read_report(project)
    facts = {
        "name": project.config.predictor.name,
        "kendall_tau": report.kendall_tau,
        "kendall_tau_interval": list(report.kendall_tau_interval),
        "macs_tau": report.macs_tau,
        "n_fit": report.n_fit,
        "n_held_out": report.n_held_out,
        "coverage": report.coverage,
        "blend_weight": read_blend(project).weight,
    }
    results = Results(tuple(rows), tuple(checks), facts)
    write_json(_results_path(project), dump(results))


def _result(
    project: Project,
    role: str,
    arch: Arch,
    estimator: TableEstimator,
    timings: Timings,
    accuracy: dict[Arch, tuple[float, int]],
) -> NetworkResult:
    codes = project.space.codes([arch])
    low, high = (float(bound) for bound in estimator.interval_ms(codes)[0])
    forecast_ms = float(estimator.latency_ms(codes)[0])
    limits = result_on(project, estimator.device.name).limits
    limit_ms = limits.get(f"latency_ms@{estimator.device.name}")
    top1, n_images = accuracy[arch]
    measured_ms = timings.models[arch.key].median_ms
    since_table = 0.0 if timings.drift is None else abs(timings.drift - 1)
    return NetworkResult(
        name=role,
        device=estimator.device.name,
        arch=arch,
        test_top1=top1,
        n_test_images=n_images,
        macs=int(cost(project.space, codes, "macs")[0]),
        params=int(cost(project.space, codes, "params")[0]),
        forecast_ms=forecast_ms,
        interval_ms=(low, high),
        measured_ms=measured_ms,
        repeat_noise=max(timings.repeat_mape, since_table),
        limit_ms=limit_ms,
        constraint_met=None if limit_ms is None else measured_ms <= limit_ms * high / forecast_ms,
    )


def _test_top1(project: Project, arch: Arch) -> tuple[float, int]:
    """Top-1 of the exported file, in ONNX Runtime, on the test split, and how many images."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = project.config.threads
    session = onnxruntime.InferenceSession(
        str(onnx_path(project, arch)), options, providers=["CPUExecutionProvider"]
    )
    x, labels = images_of(project, "test", resolution(project.space, arch))
    (tensor,) = session.get_inputs()
    batch = tensor.shape[0] if isinstance(tensor.shape[0], int) else 64
    logits = [
        session.run(None, {tensor.name: x[start : start + batch]})[0]
        for start in range(0, len(x), batch)
    ]
    return float((np.concatenate(logits).argmax(axis=1) == labels).mean()), len(labels)


def _parity_check(project: Project, arch: Arch) -> Check:
    report = parity_reports(project)[arch.key]
    worst = max(batch.relative for batch in report.batches)
    sizes = ", ".join(str(batch.batch) for batch in report.batches)
    return Check(
        "parity of the winner",
        report.passed,
        f"torch and ONNX Runtime differ by {worst:.1e} of the largest logit (batch {sizes})",
    )


def _device_checks(project: Project, winner: NetworkResult) -> list[Check]:
    config = project.config.verify
    accepted = max(config.max_forecast_error, config.repeat_noise_factor * winner.repeat_noise)
    error = winner.forecast_error
    checks = [
        Check(
            f"forecast on {winner.device}",
            abs(error) <= accepted,
            f"forecast {winner.forecast_ms:.4f} ms, re-timed {winner.measured_ms:.4f} ms"
            f" ({error:+.1%}; accepted {accepted:.1%}, repeat noise {winner.repeat_noise:.1%})",
        )
    ]
    if winner.constraint_met is not None and winner.limit_ms is not None:
        checks.append(
            Check(
                f"constraint on {winner.device}",
                winner.constraint_met,
                f"re-timed {winner.measured_ms:.4f} ms, limit {winner.limit_ms:.4f} ms"
                f" ({winner.measured_ms / winner.limit_ms:.1%} of it)",
            )
        )
    return checks


def _bundle(
    project: Project, device: DeviceSpec, estimator: TableEstimator, winner: NetworkResult
) -> None:
    """The winner's bundle for one device: model, golden data, manifest, kit."""
    import torch

    arch, px = winner.arch, resolution(project.space, winner.arch)
    x, _ = images_of(project, "val", px, 16)
    with torch.inference_mode():
        logits = load_network(project, arch)(torch.from_numpy(x)).numpy()
    parity = parity_reports(project)[arch.key]
    limits = result_on(project, device.name).limits
    onnx_config = next(c for c in project.config.export if c.name == "onnx")
    has_timm = any(config.name == "timm" for config in project.config.export)
    timm_model = ModelFile(f"timm/{WEIGHTS}", "timm", "fp32")
    folder = onnx_path(project, arch).parent
    host = host_facts()
    manifest = Manifest(
        name=f"{project.config.name}-{project.config.search.name}",
        hwnas_version=__version__,
        arch=arch,
        arch_view=project.space.view(arch),
        input=InputSpec.of(project.data.info, px),
        models=(
            ModelFile(
                "model.onnx",
                "onnx",
                "fp32",
                batch=None if onnx_config.dynamic_batch else 1,
                opset=onnx_config.opset,
                parity_tolerance=parity.tolerance,
            ),
            *((timm_model,) if has_timm else ()),
        ),
        runtimes=dict(host["packages"]),
        latency=(
            LatencyFact(
                device,
                "model.onnx",
                host["cpu"],
                winner.forecast_ms,
                winner.interval_ms,
                winner.measured_ms,
            ),
        ),
        accuracy=(
            AccuracyFact(
                "model.onnx",
                project.data.info.name,
                "test",
                winner.n_test_images,
                winner.test_top1,
            ),
        ),
        constraints=tuple(
            ConstraintFact(c.metric, c.device, limits[metric_key(c)], winner.constraint_met)
            for c in constraints_on(project, device.name)
            if c.device == device.name
        ),
        provenance={
            "seed": str(project.config.seed),
            "config": content_hash(project.config.model_dump(mode="json")),
            "table": file_hash(project.table_path(device.name)),
        },
    )
    write_bundle(
        project.run.path("bundles", project.config.search.name, device.name),
        manifest,
        models={model.path: folder / Path(model.path).name for model in manifest.models},
        golden_input=x,
        golden_output=logits,
        companions={f"timm/{name}": folder / name for name in COMPANIONS} if has_timm else {},
    )
