"""Times reference networks on a device, in one interleaved plan with networks of a run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

from hwnas.core.decimals import rounded
from hwnas.core.errors import UserError
from hwnas.core.progress import Progress, silent
from hwnas.core.records import STRICT, Count, Milliseconds, NotNegative, Positive, Share
from hwnas.core.rundir import REBUILT
from hwnas.devices.kit import KitFailed
from hwnas.devices.spec import open_transport
from hwnas.interfaces import DeviceSpec, Transport, TryingTransport
from hwnas.latency.plan import write_plan
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.table import LatencyTable
from hwnas.measure.drift import judge
from hwnas.measure.networks import serialized
from hwnas.measure.profile import Timings, time_models
from hwnas.measure.references.graphs import reference_graph
from hwnas.measure.references.published import published
from hwnas.spaces.space import SearchSpace

__all__ = [
    "Reference",
    "References",
    "RunReferences",
    "TimedReference",
    "TrainedReference",
    "model_bytes",
    "remove_models",
    "time_references",
]


@dataclass(frozen=True)
class Reference:
    """A published network at one resolution, for one number of classes and of image channels."""

    name: str
    px: int
    num_classes: int = 1000
    in_channels: int = 3

    @property
    def id(self) -> str:
        """Name in a plan of timings."""
        return f"{self.name}-{self.px}px"


@dataclass(frozen=True)
class TimedReference:
    """A reference network on one device.

    measured_ms: median over the runs, scaled to the speed of the device's table if there is one.
        None if the network does not run on the device.
    repeat_noise: relative difference between two halves of the rounds.
    why: why the network does not run on the device, or "".
    published_top1: ImageNet top-1 at the resolution `published_px`.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    px: Count
    measured_ms: Milliseconds | None
    repeat_noise: NotNegative | None = None
    why: str = ""
    published_top1: Share | None = None
    published_px: Count | None = None

    def summary(self) -> dict[str, Any]:
        """The network as a row of the output of `hwnas references`: column to value."""
        return {
            "network": self.name,
            "px": self.px,
            "measured_ms": rounded(self.measured_ms, 5),
            "repeat_noise": rounded(self.repeat_noise, 4),
            "imagenet_top1": self.published_top1,
            "imagenet_px": self.published_px,
            "not run": self.why,
        }


@dataclass(frozen=True)
class References:
    """Reference networks on one device, and the networks of a run that were timed with them.

    own_ms: latencies of the networks of the run by name, scaled like `measured_ms`.
    pace: see `measure.drift`; None without a table.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    device: str
    networks: tuple[TimedReference, ...]
    own_ms: dict[str, Milliseconds]
    pace: Positive | None = None


@dataclass(frozen=True)
class TrainedReference:
    """A reference network that was trained on the images of a run, at `px`.

    test_top1: on n_test_images images. n_train_images_seen: number of images over all epochs.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    px: Count
    start: Literal["published", "scratch"]
    test_top1: Share
    n_test_images: Count
    n_train_images_seen: Count


@dataclass(frozen=True)
class RunReferences:
    """The reference networks of a search, on every device of the run."""

    __pydantic_config__: ClassVar[Any] = STRICT

    devices: tuple[References, ...]
    trained: tuple[TrainedReference, ...] = ()


def time_references(
    references: Sequence[Reference],
    device: DeviceSpec,
    folder: Path,
    config: ProfileConfig,
    *,
    own: Mapping[str, Path | bytes] | None = None,
    table: LatencyTable | None = None,
    space: SearchSpace | None = None,
    seed: int = 0,
    progress: Progress = silent,
    transport: Transport | None = None,
) -> References:
    """Times reference networks together with the networks `own`, by name.

    Networks that the runtime of the device does not support are left out of the plan, with the
    reason. See `measure.profile.time_models` for the other arguments and for resuming.

    Raises:
        UserError: unknown network, no network runs, or the device cannot be timed.
    """
    models, why = _models(references, device, seed)
    known = dict(own or {})

    def time(chosen: Mapping[str, Path | bytes]) -> Timings:
        return time_models(
            {**chosen, **known},
            device,
            folder,
            config,
            table=table,
            space=space,
            seed=seed,
            progress=progress,
            transport=transport,
        )

    _require_one(models, why, device)
    try:
        timings = time(models)
    except KitFailed:
        tried = transport if transport is not None else open_transport(device)
        if not isinstance(tried, TryingTransport):
            raise
        failing = _failing(models, device, tried, config, seed)
        if not failing:
            raise
        why |= failing
        models = {name: model for name, model in models.items() if name not in failing}
        _require_one(models, why, device)
        timings = time(models)
    ms = {
        name: judge(timing, None, timings.pace).median_ms for name, timing in timings.models.items()
    }
    return References(
        device.name,
        tuple(_timed(one, ms, timings, why) for one in references),
        {name: ms[name] for name in known},
        timings.pace,
    )


def remove_models(folder: Path) -> None:
    """Deletes the model files of a finished plan; the timings stay.

    Published networks are large, and equal arguments make the same files again.
    """
    shutil.rmtree(folder / REBUILT, ignore_errors=True)


def model_bytes(references: Sequence[Reference]) -> int:
    """Approximate size in bytes of the fp32 model files.

    Networks without published results (`published`) count as 0.
    """
    known = [published(one.name) for one in references]
    return sum(int(results[0].params_millions * 4e6) for results in known if results)


def _models(
    references: Sequence[Reference], device: DeviceSpec, seed: int
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Model files by id, and the reason for each network that cannot be built for the device."""
    models, why = {}, {}
    for one in references:
        try:
            graph = reference_graph(
                one.name,
                one.px,
                num_classes=one.num_classes,
                in_channels=one.in_channels,
                batch=device.batch,
                seed=seed,
            )
            models[one.id] = serialized(graph, device)
        except UserError as error:
            why[one.id] = _first_line(error)
    return models, why


def _failing(
    models: Mapping[str, bytes],
    device: DeviceSpec,
    transport: TryingTransport,
    config: ProfileConfig,
    seed: int,
) -> dict[str, str]:
    """Tries models one by one; returns those that the kit cannot run, with its message."""
    found = {}
    for name, model in models.items():
        with TemporaryDirectory() as folder:
            plan = write_plan({name: model}, device, Path(folder), config, seed=seed)
            try:
                transport.try_out(plan.path)
            except KitFailed as error:
                said = [line for line in str(error.found).splitlines() if line.strip()]
                found[name] = (said[-1].strip() if said else str(error))[:300]
    return found


def _require_one(models: Mapping[str, bytes], why: Mapping[str, str], device: DeviceSpec) -> None:
    """Checks that at least one network runs.

    Raises:
        UserError: none runs; gives the reason for the first one.
    """
    if not models:
        name, reason = next(iter(why.items()))
        raise UserError(
            f"the device {device.name!r} runs none of the reference networks",
            found=f"{name}: {reason}",
            where=f"runtime {device.runtime}, {device.precision}",
            fix="choose other networks or resolutions",
        )


def _timed(
    one: Reference, ms: Mapping[str, float], timings: Timings, why: Mapping[str, str]
) -> TimedReference:
    results = published(one.name)
    nearest = min(results, key=lambda result: abs(result.px - one.px), default=None)
    return TimedReference(
        one.name,
        one.px,
        ms.get(one.id),
        timings.repeat_noise.get(one.id),
        why.get(one.id, ""),
        None if nearest is None else nearest.top1,
        None if nearest is None else nearest.px,
    )


def _first_line(error: UserError) -> str:
    found = "" if error.found is None else f": {error.found}"
    return (str(error).splitlines()[0] + found)[:300]
