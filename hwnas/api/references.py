"""`hwnas references`: times published networks on a device, with or without a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwnas.api.options import refuse_both, refuse_unused, require_place
from hwnas.api.result import Folder, Listing, ProgressFor, Row, Settings, listed, no_progress
from hwnas.api.stage import bring_up_to_date, of_known_search
from hwnas.core.config import build_model, settled
from hwnas.core.errors import UserError
from hwnas.core.overrides import override
from hwnas.core.records import dump
from hwnas.core.stats import accuracy_text
from hwnas.core.store import write_json
from hwnas.devices.spec import load_device, timing_transport
from hwnas.latency.sections import ProfileConfig
from hwnas.measure.references.settings import PUBLISHED_PX, ReferencesConfig
from hwnas.measure.references.timing import (
    Reference,
    RunReferences,
    remove_models,
    time_references,
)
from hwnas.pipeline.opening import open_project
from hwnas.spaces.checks import check_ends

__all__ = ["references", "references_changes", "references_plan"]

SECTION = "search.references"
IMAGENET_VALIDATION = 50_000  # images on which published accuracies are measured


# long: every argument is documented; the body is short
def references(
    *,
    device: str | None = None,
    run: Folder | None = None,
    names: Sequence[str] | None = None,
    resolutions: Sequence[int] | None = None,
    train: Sequence[str] | None = None,
    num_classes: int | None = None,
    profile_settings: Settings = None,
    out: Folder | None = None,
    seed: int | None = None,
    search: str | None = None,
    settings: Settings = None,
    progress: ProgressFor = no_progress,
) -> Listing:
    """Times published networks of timm as alternatives to a winner; an interrupted call resumes.

    Weights are random, which does not affect latency. The accuracy in the result is the ImageNet
    accuracy of the published weights.

    Args:
        device: without `run`: a name (`hwnas.list("devices")`) or a YAML file.
        run: a run folder. The networks are timed on all its devices, together with the winner of
            each and with the run's number of classes. The report of the run then shows them.
        names: networks of timm with the name of their weights; eight by default.
        resolutions: in px. Default: 224, and with `run` also those of the space.
        train: with `run`: networks that are also fine-tuned by the winner's recipe.
        num_classes: without `run`: number of classes; 1000 by default.
        profile_settings: without `run`: e.g. `{"min_rounds": 4, "retiming_budget_s": 60}`.
        out: without `run`: output file, `DEVICE-references.json` by default. The timings are stored
            next to it.
        seed: without `run`: seed of the random weights; 0 by default.
        search: with `run`: the search with the winner [the last one].
        settings: with `run`: changes of its configuration.
        progress: receives progress messages.

    Raises:
        UserError: unknown network (suggests similar names), missing weights, no network runs on the
            device, or arguments that do not apply.
    """
    if run is not None:
        refuse_unused(
            {
                "--device": device,
                "--num-classes": num_classes,
                "--profile": profile_settings,
                "--out": out,
                "--seed": seed,
            },
            to="a run folder, whose configuration defines this",
            fix="leave it out; --set KEY=VALUE changes the configuration",
        )
        return bring_up_to_date(
            run,
            "references",
            changes=references_changes(run, names, resolutions, train, search, settings),
            progress=progress,
            found=lambda project: _of_run(project.files.references.results.read()),
        )
    require_place(out, ".json")
    spec, chosen, profile = _alone(
        device, names, resolutions, train, search, settings, profile_settings
    )
    target = Path(out or f"{spec.name}-references.json")
    found = time_references(
        _chosen(chosen, num_classes),
        spec,
        target.with_suffix(".samples"),
        profile,
        seed=seed or 0,
        progress=progress(f"references {spec.name}"),
        transport=timing_transport(str(device)),
    )
    write_json(target, dump(found))
    remove_models(target.with_suffix(".samples"))
    rows = [{**row.summary(), "device": spec.name} for row in found.networks]
    return Listing(rows, shown=[_in_percent(row, None) for row in rows])


def references_changes(
    run: Folder,
    names: Sequence[str] | None,
    resolutions: Sequence[int] | None,
    train: Sequence[str] | None,
    search: str | None,
    settings: Settings,
) -> dict[str, Any]:
    """Settings for timing references in a run; configured references are kept.

    Raises:
        UserError: the arguments contradict `settings`.
    """
    changes = of_known_search(run, search, settings)
    given = {"names": names, "resolutions": resolutions, "train": train}
    for key, value in given.items():
        refuse_both(f"--{key}", value, f"{SECTION}.{key}", settings)
    with open_project(
        Path(run), changes=changes, progress_for=no_progress, command="", read_only=True
    ) as project:
        section = project.config.search.references or ReferencesConfig()
    plain = section.model_dump(mode="json")
    plain |= {key: _plain(value) for key, value in given.items() if value is not None}
    changed = build_model(ReferencesConfig, plain, where="hwnas references")
    return changes | {SECTION: settled(changed)}


def references_plan(
    *,
    device: str | None,
    names: Sequence[str] | None,
    resolutions: Sequence[int] | None,
    train: Sequence[str] | None,
    num_classes: int | None,
    profile_settings: Settings,
    search: str | None,
    settings: Settings,
) -> Listing:
    """Checks the arguments and returns what `references` would time without a run folder."""
    from hwnas.measure.references.graphs import require_reference

    spec, chosen, profile = _alone(
        device, names, resolutions, train, search, settings, profile_settings
    )
    for name in chosen.names:
        require_reference(name)
    cost = f"at least {profile.min_rounds} rounds, about {profile.retiming_budget_s:.0f} s"
    return Listing(
        [
            {
                "device": spec.name,
                "network": one.name,
                "px": one.px,
                "classes": one.num_classes,
                "timing of all": cost,
            }
            for one in _chosen(chosen, num_classes)
        ]
    )


def _alone(
    device: str | None,
    names: Sequence[str] | None,
    resolutions: Sequence[int] | None,
    train: Sequence[str] | None,
    search: str | None,
    settings: Settings,
    profile_settings: Settings,
) -> tuple[Any, ReferencesConfig, ProfileConfig]:
    """Device, networks and settings for timing without a run folder."""
    refuse_unused(
        {"--train": train, "--search": search, "--set": settings},
        to="references without a run folder",
        fix="add --run RUN",
    )
    if device is None:
        raise UserError(
            "no device is given",
            expected="--device NAME, or --run RUN",
            found="neither",
            fix="see `hwnas list devices`",
        )
    given = {"names": names, "resolutions": resolutions or [PUBLISHED_PX]}
    plain = {key: _plain(value) for key, value in given.items() if value is not None}
    chosen = build_model(ReferencesConfig, plain, where="hwnas references")
    defaults = {
        "min_rounds": chosen.min_rounds,
        "retiming_budget_s": chosen.time_budget_s,
    }
    profile = build_model(
        ProfileConfig, override(defaults, profile_settings or {}), where="--profile"
    )
    timing_transport(device)
    return load_device(device), chosen, profile


def _chosen(config: ReferencesConfig, num_classes: int | None) -> list[Reference]:
    n = 1000 if num_classes is None else num_classes
    check_ends(3, n, where="--num-classes")
    return [Reference(name, px, n) for name in config.names for px in config.sizes(())]


def _plain(values: Sequence[Any]) -> list[Any]:
    return listed(values) if isinstance(values, str) else list(values)


def _of_run(found: RunReferences) -> Listing:
    """One row per network, resolution and device; trained networks have an accuracy."""
    trained = {(one.name, one.px): one for one in found.trained}
    rows, shown = [], []
    for device in found.devices:
        for timed in device.networks:
            one = trained.get((timed.name, timed.px))
            top1, n = (None, None) if one is None else (one.test_top1, one.n_test_images)
            rows.append({**timed.summary(), "test_top1": top1, "device": device.device})
            shown.append(_in_percent(rows[-1], n))
    return Listing(
        rows,
        facts={
            "winner_ms": {one.device: one.own_ms for one in found.devices},
            "pace": {one.device: one.pace for one in found.devices},
            "trained": [dump(one, versioned=False) for one in found.trained],
        },
        shown=shown,
    )


def _in_percent(row: Row, n_test: int | None) -> Row:
    """A row for a terminal: accuracies in percent, with standard errors."""
    texts = {"imagenet_top1": accuracy_text(row["imagenet_top1"], IMAGENET_VALIDATION)}
    if "test_top1" in row:
        texts["test_top1"] = accuracy_text(row["test_top1"], n_test)
    return {**row, **texts}
