"""Building a space outside a run folder: by registry name and `key=value` settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hwnas.core.config import build_model, override
from hwnas.core.errors import UserError
from hwnas.core.store import read_json
from hwnas.spaces import REGISTRY
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import SearchSpace

__all__ = ["build_space", "read_arch"]


def build_space(
    name: str, settings: Sequence[str] = (), *, num_classes: int, in_channels: int = 3
) -> SearchSpace:
    """A registered space with `key=YAML value` settings applied to its Config.

    Raises:
        UserError: unknown space, unknown or wrong settings.
    """
    module = REGISTRY.load(name)
    config = build_model(module.Config, override({"name": name}, settings), where=f"space {name}")
    space: SearchSpace = module.build(config, num_classes=num_classes, in_channels=in_channels)
    return space


def read_arch(space: SearchSpace, text: str) -> Arch:
    """An arch given as `largest`, `smallest`, a JSON file, or comma-separated codes.

    Raises:
        UserError: it is none of these, or not a member of the space.
    """
    if text in ("largest", "smallest"):
        return space.largest() if text == "largest" else space.smallest()
    if text.endswith(".json"):
        return space.check(Arch.from_json(read_json(Path(text)), where=text))
    try:
        codes = tuple(int(code) for code in text.split(","))
    except ValueError as error:
        raise UserError(
            "cannot read the arch",
            expected="largest, smallest, a .json file, or codes such as 0,1,2",
            found=text,
        ) from error
    return space.check(Arch(space.id, codes))
