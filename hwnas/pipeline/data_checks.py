"""Finds problems with the data set before the first stage runs; see `Stage.check_data`.

A dry run does not download data or decode large data sets: see `known_data`.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping

from hwnas.core.errors import UserError, no_workers
from hwnas.interfaces import (
    ArchivedDataset,
    CutDataset,
    DataPlan,
    DatasetContext,
    PlannedDataset,
    Split,
)
from hwnas.pipeline.data_source import DataSource
from hwnas.pipeline.project import Project
from hwnas.training.duplicates import shared_images, shared_parts
from hwnas.training.identity import SPLITS
from hwnas.training.sections import CalibrationConfig, FinetuneConfig, TrainConfig

__all__ = [
    "calibration_needs",
    "doubts",
    "doubts_known",
    "enough_images",
    "images_text",
    "known_data",
    "recipe_fits",
    "unchecked",
    "validation_can_be_halved",
]

MOST_DECODED = 100_000
"""Maximum number of image files that a dry run decodes; a run needs the decoded images anyway."""

MIN_VALIDATION = 2  # one image for each half, see `half_scores`


def known_data(project: Project) -> DataPlan:
    """Returns the sizes of the data set; a dry run loads the data only if that is cheap.

    Raises:
        UserError: the data cannot be loaded, a split is empty, or the images are smaller than the
            resolutions of the space.
    """
    planned = _planned(project)
    if planned is not None and not planned.awaited:
        _sizes_fit(project, planned)  # checked before all images are decoded
    if planned is not None and project.is_plan and not _is_loaded(planned):
        return planned
    info = project.data.info
    found = DataPlan(info.n_images, info.base_px)
    _sizes_fit(project, found)
    return found


def doubts(project: Project) -> tuple[str, ...]:
    """Sentences about problems with the data that make results doubtful, for a dry run."""
    planned = _planned(project)
    loads = planned is not None and _is_loaded(planned)
    return tuple(map(str, project.source.shared)) if loads else doubts_known(project)


def doubts_known(project: Project) -> tuple[str, ...]:
    """Like `doubts`, but only problems that are found without decoding an image."""
    source = project.source
    if source.as_recorded or (identity := source.identity()) is None:
        found = source.record and source.record.latest.shared
    else:
        found = source.shared_as_seen(source.cut)
        if found is None and (splits := _contents(source)) is not None:
            found = shared_images(splits)
        if found is None:
            found = source.shared_as_seen("")  # by an earlier version
        if found is None and not isinstance(source.module, ArchivedDataset):
            found = shared_parts(identity)
    return tuple(map(str, found or ()))


def images_text(project: Project) -> str:
    """Number of images per split, as text; for repeated photos also how often each is used."""
    source = project.source
    n_images = source.info.n_images
    words = {split: f"{n_images[split]:,} {split}" for split in SPLITS}
    record, repeat_to = source.record, getattr(project.config.data, "repeat_to", 0)
    identity = None if record is None else source.listing(record.latest.digest).read_if_there()
    if repeat_to and identity is not None:
        part = identity.parts["train"]
        cut = [s for s, p in identity.parts.items() if p == part and s != "train"]
        n = len(identity.files[part]) - sum(n_images[split] for split in SPLITS if split in cut)
        if 0 < n < n_images["train"] and n_images["train"] % n == 0:
            words["train"] += f" ({n:,} photos, each {n_images['train'] // n} times in an epoch)"
    return ", ".join(words.values())


def _contents(source: DataSource) -> Mapping[Split, Mapping[str, str]] | None:
    module = source.module
    if not isinstance(module, CutDataset):
        return None
    return module.contents(source.section, DatasetContext(source.config.seed))


def unchecked(project: Project) -> tuple[str, ...]:
    """Names the checks of the data that a dry run leaves out and the run makes."""
    planned = _planned(project)
    if planned is None or _is_loaded(planned):
        return ()
    if planned.awaited:
        return (f"the images: {planned.awaited}",)
    return (f"whether all of {planned.n_files:,} images decode",) * bool(planned.n_files)


def _planned(project: Project) -> DataPlan | None:
    """Facts about the data set that are known without loading it; None if there are none."""
    module = project.source.module
    return module.plan(project.source.section) if isinstance(module, PlannedDataset) else None


def _is_loaded(planned: DataPlan) -> bool:
    """Whether a dry run loads the data set to check that its images can be decoded."""
    return not planned.awaited and 0 < planned.n_files <= MOST_DECODED


def _sizes_fit(project: Project, data: DataPlan) -> None:
    _no_split_is_empty(project, data)
    _images_are_large_enough(project, data)


def _no_split_is_empty(project: Project, data: DataPlan) -> None:
    for split, n in data.n_images.items():
        if n == 0:
            setting = f"data.{split}_fraction"
            can_cut = hasattr(project.config.data, f"{split}_fraction")
            raise UserError(
                f"data set {project.config.data.name!r} has no {split} images",
                expected="at least one image in each of train, val and test",
                found=", ".join(f"{n} {name}" for name, n in data.n_images.items()),
                where=setting if can_cut else "data",
                fix="add images" + f", or raise {setting}" * can_cut,
            )


def _images_are_large_enough(project: Project, data: DataPlan) -> None:
    resolution = project.space.choices[0]
    allowed = [int(resolution.values[code]) for code in project.space.allowed[0]]
    if max(allowed) <= data.base_px:
        return
    can_grow = hasattr(project.config.data, "base_px")
    grow = f"set data.base_px={max(allowed)}, or " if can_grow else ""
    raise UserError(
        "the space has resolutions above the size of the images",
        expected=f"resolutions up to {data.base_px} px, the size of the images"
        + " (data.base_px)" * can_grow,
        found=", ".join(f"{px} px" for px in allowed if px > data.base_px),
        where="space.resolutions",
        fix=f"{grow}remove the resolutions above {data.base_px} px from space.resolutions",
    )


def enough_images(project: Project, needs: Mapping[str, int]) -> None:
    """Refuses settings that need more training images than the data set has.

    needs: maps a setting to the number of images that it needs.

    Raises:
        UserError: names the setting; or as in `known_data`.
    """
    data = known_data(project)
    if data.awaited:
        return
    for setting, n in needs.items():
        if n > (found := data.n_images["train"]):
            raise UserError(
                f"{setting} is larger than the training split",
                expected=f"at most {found:,} images, which data set"
                f" {project.config.data.name!r} has for training",
                found=f"{setting} = {n:,}",
                where=setting,
                fix=f"lower {setting}, or add images",
            )


def validation_can_be_halved(project: Project) -> None:
    """Refuses a validation split that is too small to be halved.

    Raises:
        UserError: it has one image; or as in `known_data`.
    """
    data = known_data(project)
    if not data.awaited and data.n_images["val"] < MIN_VALIDATION:
        raise UserError(
            "too few validation images to fit the blend of supernet score and prediction",
            expected=f"at least {MIN_VALIDATION} images",
            found=f"{data.n_images['val']} images",
            where="data",
            fix="add images, or raise the share of the validation images",
        )


def recipe_fits(project: Project, recipe: TrainConfig | FinetuneConfig, setting: str) -> None:
    """Refuses a recipe that needs more training images than there are.

    Raises:
        UserError: as in `enough_images`; or worker processes are set, and /dev/shm, which they
            need, cannot be used.
    """
    if project.config.workers:
        _processes_can_talk()
    trains = isinstance(recipe, TrainConfig) or recipe.epochs > 0
    needs = {f"{setting}.batch_size": recipe.batch_size} if trains else {}
    enough_images(project, needs | calibration_needs(recipe.calibration, setting))


def _processes_can_talk() -> None:
    try:
        multiprocessing.get_context("fork").Lock()
    except OSError as error:
        raise no_workers(error) from error


def calibration_needs(calibration: CalibrationConfig, setting: str) -> dict[str, int]:
    """Maps a setting to the training images it needs for BN statistics, for `enough_images`."""
    name = f"{setting}.calibration.batch_size"
    if calibration.n_batches > 1:
        name = f"{setting}.calibration: n_batches * batch_size"
    return {name: calibration.n_batches * calibration.batch_size}
