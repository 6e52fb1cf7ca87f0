"""Images of equal content in two splits, which make the accuracy that is reported too high."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from hwnas.core.records import STRICT
from hwnas.interfaces import DataIdentity, DataModule, NamedImages, Split
from hwnas.training.identity import SPLITS, shown

__all__ = ["SharedImages", "shared_images", "shared_of", "shared_parts"]

N_NAMED = 3
MEANING: dict[tuple[Split, Split], str] = {
    ("test", "train"): "the test accuracy counts images that the networks have learned",
    ("val", "train"): "validation accuracy, by which networks are ranked, counts learned images",
    ("test", "val"): "the test accuracy counts images by which the networks were chosen",
}


@dataclass(frozen=True)
class SharedImages:
    """Of the `of` images of `split`, `n` have the content of an image of `other`.

    first: the names of some, each with that of the image in `other`.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    split: Split
    other: Split
    n: int
    of: int
    first: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        """How many, which, what it means, and what to do."""
        pairs = ", ".join(f"{shown(one)} = {shown(two)}" for one, two in self.first)
        more = ", ..." if self.n > len(self.first) else ""
        are = "is a" if self.n == 1 else "are"
        images = "image" if self.n == 1 else "images"
        return (
            f"{self.n} of {self.of} images in {self.split} {are} {self.other} {images} as well"
            f" ({pairs}{more}): {MEANING[self.split, self.other]}; keep one copy of each"
        )


def shared_images(splits: Mapping[Split, Mapping[str, str]]) -> tuple[SharedImages, ...]:
    """What the splits have in common; `splits`: content hash of every image, by its name."""
    found = []
    for split, other in MEANING:
        if split not in splits or other not in splits:
            continue
        names = {digest: name for name, digest in sorted(splits[other].items(), reverse=True)}
        pairs = [(n, names[digest]) for n, digest in splits[split].items() if digest in names]
        if pairs:
            n, first = len(pairs), tuple(sorted(pairs)[:N_NAMED])
            found.append(SharedImages(split, other, n, len(splits[split]), first))
    return tuple(found)


def shared_of(data: DataModule, identity: DataIdentity) -> tuple[SharedImages, ...]:
    """`shared_images` of a data set as it is split, where its images have names."""
    if isinstance(data, NamedImages):
        return shared_images({split: data.contents(split) for split in SPLITS})
    return shared_parts(identity)


def shared_parts(identity: DataIdentity) -> tuple[SharedImages, ...]:
    """`shared_images` of the splits that are stored apart, known without cutting any."""
    parts: dict[str, Split] = {}
    for split in SPLITS:
        parts.setdefault(identity.parts[split], split)
    return shared_images({split: identity.files[part] for part, split in parts.items()})
