"""Finds images in two splits, which would make the reported accuracy too high."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hwnas.core.records import STRICT
from hwnas.interfaces import DataIdentity, DataModule, NamedImages, Split
from hwnas.training.identity import SPLITS, shown

if TYPE_CHECKING:
    import torch

__all__ = ["SharedImages", "shared_images", "shared_of", "shared_parts"]

N_NAMED = 3
BATCH = 256
MOST_COMPARED = 100_000
"""Splits with more images are compared only by content; a comparison by looks takes minutes."""
MEANING: dict[tuple[Split, Split], str] = {
    ("test", "train"): "the test accuracy counts images that the networks have learned",
    ("val", "train"): "the validation accuracy, which ranks networks, counts learned images",
    ("test", "val"): "the test accuracy counts images that selected the networks",
}


@dataclass(frozen=True)
class SharedImages:
    """Duplicates between two splits: `n` of the `of` images of `split` are also in `other`.

    first: names of some of them, each with the name of the image in `other`.
    by_looks: the contents differ, but the images look alike (`training.looks`).
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    split: Split
    other: Split
    n: int
    of: int
    first: tuple[tuple[str, str], ...]
    by_looks: bool = False

    def __str__(self) -> str:
        """A sentence with the number of duplicates, examples, their effect, and the fix."""
        sign = "~" if self.by_looks else "="
        pairs = ", ".join(f"{shown(one)} {sign} {shown(two)}" for one, two in self.first)
        more = ", ..." if self.n > len(self.first) else ""
        is_one = self.n == 1
        images = f"{self.other} image{'s' * (not is_one)}"
        if self.by_looks:
            looks = f"look{'s' * is_one} like {'a ' * is_one}{images}, stored in another form"
        else:
            looks = f"{'is a' if is_one else 'are'} {images} as well"
        return (
            f"{self.n} of {self.of} images in {self.split} {looks}"
            f" ({pairs}{more}): {MEANING[self.split, self.other]}; keep one copy of each"
        )


def shared_images(splits: Mapping[Split, Mapping[str, str]]) -> tuple[SharedImages, ...]:
    """Finds images that two splits share.

    splits: for each split, maps image names to content hashes.
    """
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
    """Finds images that the splits of a loaded data set share.

    Images are compared by content, then by looks. If they have no names, see `shared_parts`.
    """
    if not isinstance(data, NamedImages):
        return shared_parts(identity)
    splits = {split: data.contents(split) for split in SPLITS}
    return (*shared_images(splits), *_alike(data, splits))


def _alike(data: DataModule, splits: Mapping[Split, Mapping[str, str]]) -> Iterator[SharedImages]:
    from hwnas.training.looks import alike, looks_of

    looks = {
        split: looks_of(_once(data, split, len(contents)))
        for split, contents in splits.items()
        if len(contents) <= MOST_COMPARED
    }
    for split, other in MEANING:
        if split not in looks or other not in looks:
            continue
        here, there = ([*splits[one].items()] for one in (split, other))
        contents = set(splits[other].values())
        pairs = [
            (here[i][0], there[j][0])
            for i, j in alike(looks[split], looks[other])
            if here[i][1] not in contents
        ]
        if pairs:
            first = tuple(sorted(pairs)[:N_NAMED])
            yield SharedImages(split, other, len(pairs), len(here), first, by_looks=True)


def _once(data: DataModule, split: Split, n: int) -> Iterator[torch.Tensor]:
    """Images of a split in batches, without repetitions."""
    for x, _ in data.eval_batches(split, BATCH):
        yield x[:n]
        n -= len(x)
        if n <= 0:
            return


def shared_parts(identity: DataIdentity) -> tuple[SharedImages, ...]:
    """Like `shared_images`, but reads hashes of files from `identity` and needs no loaded data.

    Splits that are drawn from the same files are not compared with each other.
    """
    parts: dict[str, Split] = {}
    for split in SPLITS:
        parts.setdefault(identity.parts[split], split)
    return shared_images({split: identity.files[part] for part, split in parts.items()})
