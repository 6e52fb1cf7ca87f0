"""The devices of a search, their winners, and the baselines."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hwnas.controller.constraints import metric_key
from hwnas.controller.result import Candidate, SearchResult
from hwnas.core.command import command_line
from hwnas.core.errors import UserError
from hwnas.interfaces import Constraint
from hwnas.pipeline.artifacts import SearchFiles
from hwnas.pipeline.listings import listed
from hwnas.pipeline.project import Project
from hwnas.spaces.arch import Arch

if TYPE_CHECKING:
    import torch

__all__ = [
    "SMALLER_IMAGES",
    "constraints_for",
    "constraints_on",
    "has_smaller_images",
    "load_network",
    "network_names",
    "networks",
    "result_on",
    "role_names",
    "search_files",
    "targets",
    "winner_role",
    "winner_roles",
    "winners_by_device",
]

SMALLER_IMAGES = "largest on smaller images"
"""Role of the unchanged published network at the largest resolution that meets the limits."""


def targets(project: Project) -> tuple[str | None, ...]:
    """The devices that each get a search; `(None,)` if one search serves all devices."""
    return tuple(project.devices) if project.config.search.per_device else (None,)


def search_files(project: Project, device: str | None) -> SearchFiles:
    """Files of a device's search; of the main search for the first device and for None."""
    if device is None or device == project.first_device:
        return project.files.main_search
    return project.files.device_search(device)


def result_on(project: Project, device: str) -> SearchResult:
    """Result of the search that finds a device's winner: its own search, or the common one."""
    own = device if project.config.search.per_device else None
    return search_files(project, own).result.read()


def winners_by_device(project: Project) -> dict[str, Candidate]:
    """Maps each device to its winner; only the first device if all devices share a search."""
    return {
        target or project.first_device: search_files(project, target).result.read().winner
        for target in targets(project)
    }


def constraints_on(project: Project, device: str) -> tuple[Constraint, ...]:
    """The constraints of the search that finds a device's winner."""
    return constraints_for(project, device if project.config.search.per_device else None)


def constraints_for(project: Project, device: str | None) -> tuple[Constraint, ...]:
    """The constraints that hold for a device, including device-independent ones; None: all.

    A device without a latency limit gets the limit of the project, if it is a fraction of the
    largest arch.

    Raises:
        UserError: no limit can be used for the device.
    """
    given = project.config.search.constraints
    if device is None:
        return given
    general = tuple(c for c in given if not metric_key(c).device)
    latencies = [c for c in given if metric_key(c).device]
    own = tuple(c for c in latencies if c.device == device)
    if own or not latencies:
        return (*general, *own)
    fractions = [c for c in latencies if c.max_fraction_of_largest is not None]
    if not fractions:
        raise UserError(
            f"no latency limit for device {device!r}",
            expected="a constraint on its latency, or a constraint with max_fraction_of_largest",
            found="; ".join(f"{metric_key(c)} <= {c.max}" for c in latencies),
            where="search.constraints",
            fix=f"add {{device: {device}, metric: latency_ms, max: ...}}",
        )
    return (*general, replace(fractions[0], device=device))


# --- networks that are fine-tuned, exported and compared ------------------------------------------


def winner_role(project: Project, device: str) -> str:
    """`winner`, or `winner on DEVICE` if a further device has its own winner."""
    is_own = project.config.search.per_device and device != project.first_device
    return f"winner on {device}" if is_own else "winner"


def winner_roles(project: Project) -> tuple[str, ...]:
    """The roles of the winners; that of the first device comes first."""
    return tuple(dict.fromkeys(winner_role(project, device) for device in project.devices))


def role_names(project: Project) -> tuple[str, ...]:
    """Roles of all networks that are fine-tuned, exported and compared."""
    others = ("largest", "smallest", "random search", "random subnet")
    return (*winner_roles(project), *others, *([SMALLER_IMAGES] * has_smaller_images(project)))


def has_smaller_images(project: Project) -> bool:
    """Whether the published network on smaller images is one of the compared networks."""
    return project.space.macro.is_published and len(project.space.allowed[0]) > 1


def networks(project: Project) -> dict[str, Arch]:
    """Maps each role to the arch that stage `finetune` trained; archs can have several roles."""
    archs, where = project.files.read_roles(), project.files.roles
    fix = command_line("finetune", project.run.root)
    return {
        role: listed(archs, role, what="a network", where=where, fix=fix)
        for role in role_names(project)
    }


def network_names(project: Project) -> dict[Arch, str]:
    """Maps each distinct arch of `networks`, in order, to its first role."""
    names: dict[Arch, str] = {}
    for role, arch in networks(project).items():
        names.setdefault(arch, role)
    return names


def load_network(project: Project, arch: Arch) -> torch.nn.Module:
    """A fine-tuned network in eval mode."""
    from safetensors.torch import load_file

    from hwnas.core.tensor_file import readable_tensors
    from hwnas.nets.origin import read_origin
    from hwnas.nets.subnet import build_subnet

    model, path = build_subnet(project.space, arch), project.files.network(arch)
    fix = command_line("finetune", project.run.root)
    with readable_tensors(path, "cannot read the weights of a network", fix=fix):
        model.load_state_dict(load_file(path))
    model.origin = read_origin(path)  # type: ignore[assignment]
    return model.eval()
