"""One point of a search space: the codes of its choices, in canonical form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from hwnas.core.records import STRICT, dump, load
from hwnas.core.store import content_hash

__all__ = ["Arch", "Code"]


Code = Annotated[int, Field(ge=0, lt=1 << 15)]


@dataclass(frozen=True)
class Arch:
    """Codes of one architecture: `codes[i]` selects `space.choices[i].values[codes[i]]`.

    `SearchSpace.arch` builds it and sets the codes of inactive choices to 0, so that equal networks
    compare equal. `space` is `SearchSpace.id`. Restricting a space keeps its id, so keys, labels
    and weights of archs stay valid.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    space: str
    codes: tuple[Code, ...]

    @property
    def key(self) -> str:
        """16 hex digits that identify the labels and weights of the arch."""
        return content_hash([self.space, list(self.codes)])

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema version."""
        return dump(self)

    @staticmethod
    def from_json(data: Any, *, where: object) -> Arch:
        """Inverse of `to_json`. `SearchSpace.check` checks shape and ranges."""
        return load(Arch, data, where=where)
