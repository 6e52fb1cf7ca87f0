"""Stage `finetune`: the winner and the networks it is compared with, all by one recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwnas.core.progress import Progress
from hwnas.core.records import dump, load
from hwnas.core.rng import rng
from hwnas.core.store import read_json, write_bytes, write_json
from hwnas.pipeline.project import Project
from hwnas.pipeline.stages.search import read_result, result_on
from hwnas.pipeline.stages.standalone import train_alone
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution

if TYPE_CHECKING:
    import torch

__all__ = ["finetune_all", "load_network", "networks", "random_subnet", "role_names", "winner_role"]

N_DRAWN = 4096
SAME_LATENCY = 0.97


def winner_role(project: Project, device: str) -> str:
    """`winner`, or `winner on DEVICE` where a further device has one of its own."""
    is_own = project.config.search.per_device and device != next(iter(project.devices))
    return f"winner on {device}" if is_own else "winner"


def role_names(project: Project) -> tuple[str, ...]:
    """Every network that is fine-tuned, exported and compared."""
    winners = dict.fromkeys(winner_role(project, device) for device in project.devices)
    return (*winners, "largest", "smallest", "random search", "random subnet")


def random_subnet(project: Project, winner: Arch) -> Arch:
    """An arch drawn blindly among those as fast as `winner` on the first device.

    Of `N_DRAWN` random archs, the first whose forecast is at most that of the winner and at least
    `SAME_LATENCY` of it; if there is none, the one nearest to the winner.
    """
    space, estimator = project.space, project.estimator(next(iter(project.devices)))
    drawn = space.sample(rng(project.config.seed, "finetune/random-subnet"), N_DRAWN)
    drawn = drawn[(drawn != space.codes([winner])).any(axis=1)]
    shares = estimator.latency_ms(drawn) / estimator.latency_ms(space.codes([winner]))
    equal = np.flatnonzero((shares <= 1) & (shares >= SAME_LATENCY))
    return space.arch(drawn[equal[0] if len(equal) else np.abs(shares - 1).argmin()])


def networks(project: Project) -> dict[str, Arch]:
    """The archs that stage `finetune` trained; one arch may play several roles."""
    path = project.search_path("finetuned", "networks.json")
    archs = read_json(path)["networks"]
    return {
        role: load(Arch, archs[role], where=path, versioned=False) for role in role_names(project)
    }


def load_network(project: Project, arch: Arch) -> torch.nn.Module:
    """A fine-tuned network in eval mode."""
    from safetensors.torch import load_file

    from hwnas.nets.subnet import build_subnet

    model = build_subnet(project.space, arch)
    model.load_state_dict(load_file(project.search_path("finetuned", f"{arch.key}.safetensors")))
    return model.eval()


def finetune_all(project: Project, progress: Progress) -> None:
    """Fine-tune every role's arch with distillation from the largest; finished ones are kept."""
    from hwnas.nets.bn import recalibrate
    from hwnas.nets.extract import extract
    from hwnas.training.checkpoint import weights_bytes
    from hwnas.training.finetune import Teacher, finetune
    from hwnas.training.images import resize

    space, config, data = project.space, project.config.finetune, project.data
    roles = {
        winner_role(project, device): result_on(project, device).winner.arch
        for device in project.devices
    } | {
        "largest": space.largest(),
        "smallest": space.smallest(),
        "random search": read_result(project, baseline=True).winner.arch,
    }
    roles["random subnet"] = random_subnet(project, roles["winner"])
    supernet = project.supernet()
    teacher_px = resolution(space, space.largest())
    calibration = data.calibration_batches(
        config.calibration.n_batches, config.calibration.batch_size
    )
    teacher = Teacher(
        recalibrate(
            extract(supernet, space.largest()), [resize(x, teacher_px) for x in calibration]
        ),
        teacher_px,
    )
    archs = list(dict.fromkeys(roles.values()))
    for n, arch in enumerate(archs):
        path = project.search_path("finetuned", f"{arch.key}.safetensors")
        if path.exists():
            continue

        def show(done: int, total: int, note: str = "", n: int = n) -> None:
            progress(n * total + done, len(archs) * total, note)

        tuned = finetune(
            extract(supernet, arch),
            data,
            config,
            px=resolution(space, arch),
            teacher=teacher,
            seed=project.config.seed,
            checkpoints=project.search_path("finetuned", "steps", arch.key),
            progress=show,
        )
        write_bytes(path, weights_bytes(tuned, project.metadata(arch)))
    train_alone(project, progress)
    write_json(
        project.search_path("finetuned", "networks.json"),
        {
            "schema_version": 1,
            "networks": {role: dump(arch, versioned=False) for role, arch in roles.items()},
        },
    )
