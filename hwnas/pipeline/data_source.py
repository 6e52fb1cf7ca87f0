"""The data of a project: path, current identity, and the identity that the run stored."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hwnas.core.config import settled
from hwnas.core.errors import DataAbsent, UserError
from hwnas.core.records import RecordFile
from hwnas.core.store import content_hash
from hwnas.interfaces import (
    ArchivedDataset,
    DataIdentity,
    DataInfo,
    DataModule,
    DatasetContext,
    DatasetModule,
    IdentifiedDataset,
)
from hwnas.pipeline.config import ExperimentConfig
from hwnas.pipeline.inputs import DataInput, why_absent
from hwnas.pipeline.outcomes import DataRecord, SeenData
from hwnas.training.datasets import REGISTRY as DATASETS
from hwnas.training.duplicates import SharedImages, shared_of
from hwnas.training.identity import describe_change, identity_of_arrays
from hwnas.training.photo_config import data_root, fixed_normalisation, means, where_found

__all__ = ["LEARNING", "DataSource"]

LEARNING = ("train", "val")
"""Splits that all stages except the last one read. The last stage reads the test images."""

AFTER_JOURNALS = {"classes", "normalise"}
"""Data settings that journals of earlier versions do not have; see `DataSource.context`."""


@dataclass(frozen=True)
class DataSource:
    """The data set that a configuration names.

    record_file: record of the data that the stages of the run read.
    listing: returns the file with the content hashes of the data that have a given digest.
    weights: returns the facts about the data that trained weights contain.
    beside: folders in which a relative `data.root` is searched for last.
    as_recorded: whether facts in the record have priority over the current files.
    first: record of the first round, if this run is a second training round.
    lenient: whether unreadable data count as missing, as in verbs that only read a run.
    """

    config: ExperimentConfig
    record_file: RecordFile[DataRecord]
    listing: Callable[[str], RecordFile[DataIdentity]]
    weights: Callable[[], DataInfo | None] = lambda: None
    beside: tuple[Path, ...] = ()
    as_recorded: bool = False
    first: RecordFile[DataRecord] | None = None
    lenient: bool = False

    @property
    def module(self) -> DatasetModule:
        """Module of the data set."""
        return DATASETS.load(self.config.data.name)

    @property
    def record(self) -> DataRecord | None:
        """Which data the stages of the run read; None before a stage has read data."""
        return self.record_file.read_if_there()

    @cached_property
    def section(self) -> Any:
        """The section `data` of the configuration, with an absolute `root` if the data moved."""
        first = None if self.first is None else self.first.read_if_there()
        last = [record.latest for record in (self.record, first) if record is not None]
        return where_found(self.config.data, [(s.root, s.folder) for s in last], self.beside)

    @property
    def known(self) -> DataInfo | None:
        """Facts about the data that the run read last; None before a stage has read data."""
        found = self.record.latest.info if self.record else self.weights()
        fixed = fixed_normalisation(self.config.data)
        return found and (replace(found, mean=fixed[0], std=fixed[1]) if fixed else found)

    # --- current files ----------------------------------------------------------------------------

    @property
    def ends(self) -> tuple[int, int]:
        """Image channels and number of classes.

        Raises:
            DataAbsent: the data are missing, and the run has no record of them.
        """
        known = self.known
        if known is not None and (self.as_recorded or (self.lenient and self.absent)):
            return known.in_channels, known.num_classes
        try:
            return self.module.ends(self.section)
        except DataAbsent:
            if known is None:
                raise
            return known.in_channels, known.num_classes

    @cached_property
    def data(self) -> DataModule:
        """The data set with its splits.

        Raises:
            UserError: with `as_recorded`, the data set differs from that of the run.
        """
        built = self._built
        if self.as_recorded and self.record:
            now, then = self.identity(), self.record.latest
            if now is not None and now.digests != then.info.digests:
                raise UserError(
                    "the data are not those of this run",
                    expected=f"the data that the run read last: {then.info.name}",
                    found="; ".join(self._change(then, now)),
                    where=self.folder,
                    fix="restore the data, or update the results of the run with `hwnas run`",
                )
        return built

    @cached_property
    def _built(self) -> DataModule:
        context = DatasetContext(self.config.seed, self.config.workers)
        return self.module.build(self.section, context)

    @cached_property
    def info(self) -> DataInfo:
        """Facts about the data set: from the record if `as_recorded` or if the data are missing."""
        if (self.as_recorded or self.absent) and (known := self.known):
            return known
        return replace(self.data.info, digests=self._identity.digests)

    @cached_property
    def _identity(self) -> DataIdentity:
        if isinstance(self.module, IdentifiedDataset):
            return self.module.identity(self.section)
        return identity_of_arrays(self._built)

    @property
    def absent(self) -> str:
        """Why the data cannot be compared with the record; empty if they can."""
        try:
            _ = self._identity
        except UserError as error:
            has_files = isinstance(self.module, IdentifiedDataset)
            return why_absent(error, has_files=has_files, lenient=self.lenient)
        return ""

    @property
    def digest(self) -> str:
        """Hash of all current data, which artifacts record."""
        return content_hash(self.info.digests, digits=32)

    def identity(self) -> DataIdentity | None:
        """Identity of the current files; None if they are missing."""
        return None if self.absent else self._identity

    @cached_property
    def shared(self) -> tuple[SharedImages, ...]:
        """Images that are in two splits; loads the data unless the record has the answer."""
        known = self.shared_as_seen(self.cut)
        return shared_of(self.data, self._identity) if known is None else known

    def shared_as_seen(self, cut: str) -> tuple[SharedImages, ...] | None:
        """Recorded `shared` of these data for the split settings with the hash `cut`, or None."""
        seen = () if self.record is None else self.record.seen
        equal = [one for one in seen if one.info.digests == self._identity.digests]
        return next((one.shared for one in equal if one.cut == cut), None)

    @property
    def cut(self) -> str:
        """Hash of all settings on which the splits depend."""
        return content_hash([self.settings, self.config.seed], digits=32)

    @property
    def folder(self) -> Path | None:
        """Folder of the data; None if the data set has no `root`."""
        root = getattr(self.section, "root", None)
        return data_root(root) if isinstance(root, str) else None

    # --- record of the run ------------------------------------------------------------------------

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Section `data` as stages hash it; it stays the same when the data are moved."""
        return self._at_first_root(settled(self.config)["data"])

    @cached_property
    def context(self) -> Any:
        """Data settings as evaluations hash them, with the digests of data that have changed."""
        plain = self._at_first_root(self.config.data.model_dump(mode="json"))
        kept = settled(self.config)["data"]
        for key in AFTER_JOURNALS - kept.keys():
            plain.pop(key, None)
        now, record = self._now_or_last, self.record
        if now is None or record is None:
            return plain
        first, now = ({s: d[s] for s in LEARNING} for d in (record.seen[0].info.digests, now))
        return plain if now == first else [plain, now]

    @property
    def _now_or_last(self) -> dict[str, str] | None:
        if not self.as_recorded and (now := self.identity()) is not None:
            return now.digests
        return self.record.latest.info.digests if self.record else None

    def _at_first_root(self, plain: dict[str, Any]) -> dict[str, Any]:
        """A dumped section with the `root` under which the run first read these data."""
        root, seen = plain.get("root"), self.record.seen if self.record else ()
        is_new = root and self.absent and not any(means(root, s.root, s.folder) for s in seen)
        if is_new or all(one.root == root for one in seen):
            return plain
        now = self._now_or_last
        roots = [one.root for one in seen if one.info.digests == now]
        return plain | {"root": roots[0]} if roots and "root" in plain else plain

    def input(self, splits: Sequence[str]) -> Callable[[], DataInput]:
        """Returns a function that describes the current data of these splits as a stage's input."""

        def digest(digests: dict[str, str]) -> str:
            return content_hash({split: digests[split] for split in splits}, digits=32)

        def now() -> DataInput:
            identity, record = self.identity(), self.record
            seen = () if record is None else record.seen
            known = {digest(one.info.digests): one for one in seen}

            def change(old: str) -> str:
                if identity is None or old not in known:
                    return "the content differs"
                return "; ".join(self._change(known[old], identity))

            return DataInput(
                digest=None if identity is None else digest(identity.digests),
                first=digest(seen[0].info.digests) if seen else None,
                change=change,
                require=self._require,
                remember=lambda: None if self.absent else self.remember(),
                warnings=lambda: tuple(map(str, () if self.absent else self.shared)),
            )

        return now

    def _require(self) -> None:
        """Checks that the data exist; downloads them if the data set supports it."""
        if self.absent:
            _ = self._built, self._identity

    def remember(self) -> None:
        """Records the current data in the run folder, before a stage uses them.

        Raises:
            UserError: the data changed since the stage was planned.
        """
        info, identity = self.info, self._identity
        was, now = identity.digests, self.data.info.digests
        if now and now != was:
            raise UserError(
                "the data changed while the command was running",
                expected="the images that were there when the command started",
                found=f"other images in {', '.join(s for s in now if now[s] != was.get(s))}",
                where=self.folder,
                fix="repeat the command when nothing writes into the folder",
            )
        root = getattr(self.config.data, "root", None)
        digest = content_hash(was, digits=32)
        seen = [] if self.record is None else [*self.record.seen]
        folder = None if self.folder is None else str(self.folder)
        if digest not in [one.digest for one in seen]:
            seen.append(SeenData(digest, root if isinstance(root, str) else None, info, folder))
        last = [one.digest for one in seen].index(digest)
        seen[last] = replace(seen[last], info=info, folder=folder, shared=self.shared, cut=self.cut)
        record = DataRecord(tuple(seen), last)
        if record == self.record:
            return
        self.listing(digest).write(replace(identity, inside=self._inside))
        self.record_file.write(record)

    @cached_property
    def _inside(self) -> DataIdentity | None:
        """The identity per image, for archives; None if unknown."""
        with contextlib.suppress(UserError):  # damaged, so the file has changed
            if isinstance(self.module, ArchivedDataset):
                return self.module.inside(self.section)
        return None

    def _change(self, old: SeenData, new: DataIdentity) -> list[str]:
        """Changes in words, one per line."""
        file = self.listing(old.digest)
        if not file.path.is_file():
            return ["the content differs"]
        now = replace(new, inside=self._inside)
        return describe_change(file.read(), now) or ["the content differs"]
