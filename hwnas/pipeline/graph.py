"""The stages of a project, wired: which settings and inputs each depends on, and what it writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hwnas.core.config import settled
from hwnas.core.progress import Progress
from hwnas.core.records import dump, sparse
from hwnas.pipeline.engine import Stage
from hwnas.pipeline.project import Project
from hwnas.pipeline.stages import export as exporting
from hwnas.pipeline.stages import finetune as finetuning
from hwnas.pipeline.stages import label as labelling
from hwnas.pipeline.stages import predictor as predicting
from hwnas.pipeline.stages import profile as measuring
from hwnas.pipeline.stages import search as searching
from hwnas.pipeline.stages import train as training
from hwnas.pipeline.stages import verify as verifying
from hwnas.training.config import KEEPING

__all__ = ["stages_of"]


def stages_of(project: Project) -> list[Stage]:
    """All stages in execution order; those of a search carry its name."""
    config, run = project.config, project.run
    plain = settled(config)
    space = [project.space.name, sparse(project.space.macro), project.space.allowed]
    name = config.search.name
    search, tuned, exported = f"search/{name}", f"finetune/{name}", f"export/{name}"
    devices = tuple(f"profile/{device}" for device in project.devices)

    def settings(*parts: Any) -> list[Any]:
        return [config.seed, *parts]

    def running(
        stage: str, work: Callable[[Project, Progress], None], *, together: bool = False
    ) -> Callable[[], None]:
        def go() -> None:
            import torch

            torch.set_num_threads(config.threads)
            if together:
                project.ranks.tell({"stage": stage})
            work(project, project.progress_for(stage))

        return go

    profiles = [
        Stage(
            name=f"profile/{device}",
            command=f"hwnas profile {device} --run {run.root}",
            needs=(),
            settings=settings(space, dump(spec), plain["profile"]),
            owns=(f"tables/{device}.json", f"tables/{device}"),
            outputs=(f"tables/{device}.json",),
            run=lambda device=device: measuring.measure(  # type: ignore[misc]
                project, device, project.progress_for(f"profile/{device}")
            ),
            cost=measuring.describe_cost(project.space, config.profile),
        )
        for device, spec in project.devices.items()
    ]
    labels = settled(config.label)
    inherited = {key: value for key, value in labels.items() if key != "trained"}
    trained = [
        Stage(
            name="label/trained",
            command=f"hwnas label {run.root} --source trained",
            needs=(),
            settings=settings(space, plain["data"], config.label.n_archs, labels.get("trained")),
            owns=("labels/trained.json", "labels/steps"),
            outputs=("labels/trained.json",),
            run=running("label/trained", labelling.label_trained, together=True),
            cost=labelling.describe_trained_cost(project),
        )
    ] * bool(config.label.trained.n)
    n_archs = len(finetuning.role_names(project))
    return [
        *profiles,
        Stage(
            name="train",
            command=f"hwnas train {run.root}",
            needs=tuple(f"profile/{device}" for device in training.latency_devices(project)),
            settings=settings(
                space,
                plain["data"],
                plain["supernet"],
                training.init_hash(project),
                {key: value for key, value in plain["train"].items() if key not in KEEPING},
            ),
            owns=("checkpoints",),
            outputs=("checkpoints/supernet.safetensors",),
            run=running("train", training.train, together=True),
            cost=f"{config.train.steps} {config.train.sampler.name} steps"
            f" of {config.train.batch_size} images",
        ),
        Stage(
            name="label",
            command=f"hwnas label {run.root}",
            needs=("train",),
            settings=settings(space, plain["data"], inherited),
            owns=("labels/supernet.json",),
            outputs=("labels/supernet.json",),
            run=running("label", labelling.label, together=True),
            cost=f"{config.label.n_archs} subnets evaluated",
        ),
        *trained,
        Stage(
            name="predictor",
            command=f"hwnas predictor fit {run.root}",
            needs=("train", "label", *(stage.name for stage in trained)),
            settings=settings(space, plain["data"], labels, plain["predictor"]),
            owns=("predictor",),
            outputs=tuple(
                f"predictor/{name}" for name in ("model.safetensors", "report.json", "blend.json")
            ),
            run=running("predictor", predicting.fit),
            cost=f"{config.predictor.name} on {config.label.n_archs} labels",
        ),
        Stage(
            name=search,
            command=f"hwnas search {run.root}",
            needs=_needs_of_search(project),
            settings=settings(
                space,
                plain["data"],
                plain["label"]["calibration"],
                plain["search"],
                searching.input_hash(project),
            ),
            owns=tuple(f"search/{name}/{part}" for part in searching.OWNS),
            outputs=(f"search/{name}/result.json", f"search/{name}/random/result.json"),
            run=running(search, searching.search, together=True),
            cost=f"2 x {config.search.n_predictions} predictions"
            f" and {config.search.n_evaluations} subnet evaluations",
        ),
        Stage(
            name=tuned,
            command=f"hwnas finetune {run.root}",
            needs=("train", search),
            settings=settings(space, plain["data"], plain["finetune"], plain["alone"]),
            owns=(f"search/{name}/finetuned",),
            outputs=(
                f"search/{name}/finetuned/networks.json",
                f"search/{name}/finetuned/*.safetensors",
            ),
            run=running(tuned, finetuning.finetune_all),
            cost=f"{n_archs} networks x {config.finetune.epochs} epochs"
            + (f", {config.alone.n} alone x {config.alone.epochs}" if config.alone.n else ""),
        ),
        Stage(
            name=exported,
            command=f"hwnas export {run.root}",
            needs=(tuned,),
            settings=settings(plain["data"], plain["export"], plain["verify"]["parity_batches"]),
            owns=(f"search/{name}/export",),
            outputs=(f"search/{name}/export/exports.json", f"search/{name}/export/*/*"),
            run=running(exported, exporting.export),
            cost=f"{n_archs} networks",
        ),
        Stage(
            name=f"verify/{name}",
            command=f"hwnas verify {run.root}",
            needs=(*devices, exported),
            settings=settings(plain["data"], plain["search"]["constraints"], plain["verify"]),
            owns=(f"search/{name}/verify", f"bundles/{name}"),
            outputs=(f"search/{name}/verify/results.json",),
            run=running(f"verify/{name}", verifying.verify),
            cost=f"{n_archs} networks re-timed and tested",
        ),
    ]


def _needs_of_search(project: Project) -> tuple[str, ...]:
    """Every device's table, supernet and predictor; with records only the limited devices'."""
    section = project.config.search
    if section.evaluator.records is None:
        return (*(f"profile/{device}" for device in project.devices), "train", "predictor")
    limited = {c.device for c in section.constraints if c.metric.startswith("latency")}
    return tuple(f"profile/{device}" for device in project.devices if device in limited)
