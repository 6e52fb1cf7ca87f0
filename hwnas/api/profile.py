"""`hwnas profile ...`: measure a device's latency table, locally or remotely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hwnas.api.options import refuse_unused, require_place
from hwnas.api.profile_run import profile_for_run, refuse_config, run_changes
from hwnas.api.result import Folder, Listing, ProgressFor, Settings, no_progress
from hwnas.api.space import as_space
from hwnas.core.config import build_model
from hwnas.core.errors import UserError
from hwnas.core.overrides import override
from hwnas.devices.kit import require_processors
from hwnas.devices.spec import load_device, load_transport, timing_transport
from hwnas.interfaces import DeviceSpec, FetchingTransport, Transport
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.table import LatencyTable
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.space import SearchSpace

__all__ = ["prepare", "profile", "profile_import", "profile_pack", "profile_plan"]


@dataclass(frozen=True)
class Job:
    """A profiling job: space, device, profiling settings, and transport."""

    space: SearchSpace
    device: DeviceSpec
    settings: ProfileConfig
    transport: Transport


def prepare(
    device: str,
    space: SearchSpace | str | None,
    resolutions: Sequence[int] | None,
    settings: Settings,
    num_classes: int | None,
    profile_settings: Settings,
) -> Job:
    """Builds the profiling job from the arguments that `profile` and similar functions share.

    Raises:
        UserError: no space, or an unknown name or setting.
    """
    from hwnas.builders.onnx import require_computable

    if space is None:
        raise UserError(
            "no space is given",
            expected="--space NAME, or --run RUN",
            found="neither",
            fix="see `hwnas space list`",
        )
    found = as_space(space, settings=settings, resolutions=resolutions, num_classes=num_classes)
    require_computable(enumerate_ops(found), where=f"the space {found.name}")
    return Job(
        found,
        load_device(device),
        build_model(ProfileConfig, override({}, profile_settings or {}), where="--profile"),
        timing_transport(device),
    )


# long: every argument is documented; the body is short
def profile(
    device: str,
    space: SearchSpace | str | None = None,
    *,
    resolutions: Sequence[int] | None = None,
    settings: Settings = None,
    num_classes: int | None = None,
    profile_settings: Settings = None,
    run: Folder | None = None,
    config: str | None = None,
    out: Folder | None = None,
    seed: int | None = None,
    fetch: bool = False,
    progress: ProgressFor = no_progress,
) -> LatencyTable:
    """Measures a latency table. If interrupted, the same call resumes.

    Args:
        device: a name (`hwnas.list("devices")`) or a YAML file.
        space: the space for the table; with a name also `settings`, `resolutions`, `num_classes`.
        profile_settings: e.g. `{"rounds": 60}`.
        run: a run folder to profile for. Its configuration defines space, classes and seed;
            `settings` changes the configuration, and `profile_settings` its section `profile`.
        config: with `run`: starts or replaces its configuration.
        out: table to write; default: `DEVICE.json`. Timings are stored next to it.
        seed: seed of the whole networks that are timed; default: 0.
        fetch: download files that the device needs and the cache lacks, such as the runtime of a
            browser, or the folder with Python and the runtime that is copied to a phone.
        progress: shows the progress.

    Raises:
        UserError: unknown names or settings, arguments that do not apply, or a device that cannot
            be reached.
    """
    if fetch:
        _fetch(device)
    if run is not None:
        changes = run_changes(
            device,
            run,
            config,
            space=space,
            resolutions=resolutions,
            settings=settings,
            num_classes=num_classes,
            profile_settings=profile_settings,
            out=out,
            seed=seed,
        )
        return profile_for_run(device, Path(run), config, changes, progress)
    from hwnas.measure.profile import profile as measure

    refuse_config(config)
    require_place(out, ".json")
    job = prepare(device, space, resolutions, settings, num_classes, profile_settings)
    require_processors(job.device, is_forced=job.settings.force_threads)
    target = Path(out or f"{job.device.name}.json")
    table = measure(
        job.space,
        job.device,
        target.with_suffix(".samples"),
        job.settings,
        seed=seed or 0,
        progress=progress(f"profile {job.device.name}"),
        transport=job.transport,
    )
    table.save(target)
    return table


def _fetch(device: str) -> None:
    transport = load_transport(device)
    if not isinstance(transport, FetchingTransport):
        raise UserError(
            "this device needs no download",
            expected="a browser, or a device to which hwnas copies Python and the runtime",
            found=device,
            where="--fetch",
            fix="leave --fetch out",
        )
    transport.fetch()


def profile_plan(
    device: str,
    space: SearchSpace | str | None,
    *,
    resolutions: Sequence[int] | None,
    settings: Settings,
    num_classes: int | None,
    profile_settings: Settings,
    out: Folder | None = None,
) -> Listing:
    """Describes the cost of `profile`.

    The fact `left_s` is its time in seconds at the speed of this machine, and `is_here` tells
    whether the device is this machine.
    """
    from hwnas.latency.session_time import profile_s
    from hwnas.measure.profile import describe_cost
    from hwnas.measure.session_files import known_models

    job = prepare(device, space, resolutions, settings, num_classes, profile_settings)
    require_processors(job.device, is_forced=job.settings.force_threads)
    samples = Path(out or f"{job.device.name}.json").with_suffix(".samples")
    known = known_models(job.device, job.settings, [samples])
    cost = describe_cost(job.space, job.settings, known)
    left_s = profile_s(job.space, job.settings, known=known)
    row = {"device": job.device.name, "space": job.space.id, "cost": cost}
    return Listing([row], facts={"left_s": left_s, "is_here": job.device.transport == "local"})


def profile_pack(
    device: str,
    *,
    out: Folder,
    space: SearchSpace | str | None = None,
    resolutions: Sequence[int] | None = None,
    settings: Settings = None,
    num_classes: int | None = None,
    profile_settings: Settings = None,
    seed: int = 0,
    with_runtime: str | None = None,
    progress: ProgressFor = no_progress,
) -> Path:
    """Packs models and kit into the zip `out`, for a device without hwnas.

    On the device, unzip it and run `python bench.py plan.json --out results.jsonl`. Then pass
    results.jsonl to `profile_import`. Arguments are those of `profile`. If `out` ends with .csv, it
    becomes a list of operators and networks to time with another tool, with an empty column `ms`.

    with_runtime: `arm64`: the zip also has a folder with Python and the runtime of the device, so
        the device needs neither; there, run `sh runtime/python3 bench.py ...`. The first time, the
        packages are downloaded.

    Raises:
        UserError: unknown names or settings, or the download fails.
    """
    from hwnas.devices.carried import carried_runtime
    from hwnas.measure.own_timings import write_template
    from hwnas.measure.pack import pack

    require_place(out)
    job = prepare(device, space, resolutions, settings, num_classes, profile_settings)
    if _is_csv(out):
        unused = {"--with-runtime": with_runtime}
        refuse_unused(
            unused,
            to="a CSV list of operators and networks to time",
            fix="leave it out, or write a .zip",
        )
        write_template(job.space, job.settings, Path(out), seed=seed)
        return Path(out)
    carried = None if with_runtime is None else carried_runtime(with_runtime, job.device.runtime)
    if carried is not None:
        carried.fetch()
    kit = (job.space, job.device, job.settings)
    pack(*kit, Path(out), seed=seed, carried=carried, progress=progress("pack"))
    return Path(out)


def profile_import(
    device: str,
    results: Folder,
    *,
    space: SearchSpace | str | None = None,
    resolutions: Sequence[int] | None = None,
    settings: Settings = None,
    num_classes: int | None = None,
    profile_settings: Settings = None,
    out: Folder | None = None,
    seed: int = 0,
) -> LatencyTable:
    """Converts results of a packed kit to a table; takes the same arguments as `profile_pack`.

    results: the output of bench.py on the device, or a zip with it; or a .csv file with your own
        timings of models, operators or networks.
    out: table to write; default: `DEVICE.json`.

    Raises:
        UserError: results of another plan, or malformed results.
    """
    from hwnas.measure.own_timings import read_timings
    from hwnas.measure.pack import import_results

    require_place(out, ".json")
    job = prepare(device, space, resolutions, settings, num_classes, profile_settings)
    read = read_timings if _is_csv(results) else import_results
    table = read(job.space, job.device, job.settings, Path(results), seed=seed)
    table.save(Path(out or f"{job.device.name}.json"))
    return table


def _is_csv(path: Folder) -> bool:
    return Path(path).suffix.lower() == ".csv"
