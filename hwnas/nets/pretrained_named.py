"""Resolves names of weights to files: `shipped`, `shipped:NAME`, `timm:NAME`."""

from __future__ import annotations

from pathlib import Path

from hwnas.core.errors import UserError, did_you_mean
from hwnas.nets import hub
from hwnas.nets.pretrained_list import SHIPPED, Shipped

__all__ = ["SHIPPED_FOLDER", "file_of", "is_file", "shipped"]

SHIPPED_FOLDER = Path(__file__).parent / "shipped"
_WORD = "shipped"


def is_file(weights: Path | str) -> bool:
    """Whether `weights` is the path of a file instead of a name."""
    given = str(weights)
    is_shipped = given == _WORD or given.startswith(f"{_WORD}:")
    return isinstance(weights, Path) or not (is_shipped or given.startswith(hub.PREFIX))


def file_of(weights: Path | str) -> Path | None:
    """The file of the weights; None if timm's weights are not in the cache.

    Raises:
        UserError: neither hwnas nor timm has weights of this name.
    """
    if is_file(weights):
        return Path(weights)
    if str(weights).startswith(hub.PREFIX):
        return hub.cached_file(str(weights).removeprefix(hub.PREFIX))
    return SHIPPED_FOLDER / f"{shipped(str(weights).partition(':')[2]).name}.npz"


def shipped(name: str) -> Shipped:
    """Finds weights that ship with hwnas by their name, or by the name of their network in timm.

    Returns the first ones if `name` is empty.

    Raises:
        UserError: unknown name.
    """
    name = name or SHIPPED[0].name
    for one in SHIPPED:
        if name in (one.name, one.model):
            return one
    names = [one.name for one in SHIPPED]
    raise UserError(
        f"no weights {name!r} ship with hwnas",
        expected=f"one of {', '.join(names)}",
        where="shipped",
        fix=did_you_mean(name, names, otherwise="see `hwnas pretrained list`"),
    )
