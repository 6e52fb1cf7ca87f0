"""Files outside the run folder that settings name, and their copies or hashes in the folder.

Definitions of devices are copied (`outside/devices/NAME.yaml`). For weights and records of archs,
the folder stores their path and content hash (`outside/files.json`). So a run folder can be read
after these files are gone, or from another folder or machine, and a relative path keeps its
meaning.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from hwnas.core.env import user_path
from hwnas.core.errors import UserError
from hwnas.core.records import RecordFile
from hwnas.core.store import file_hash
from hwnas.core.text import in_words
from hwnas.devices.spec import DEVICE_NAME, device_file, device_settings, load_transport
from hwnas.interfaces import TableTransport
from hwnas.nets.pretrained_named import file_of, is_file
from hwnas.pipeline.config import ExperimentConfig
from hwnas.pipeline.outside_record import OutsideFile, OutsideFiles, copied_device, copy_fact

__all__ = ["Outside", "named_files", "table_setting"]

_START = "supernet.init"


class OutsideOf(Protocol):
    """What a run folder records about outside files; `Artifacts` implements this."""

    @property
    def outside(self) -> RecordFile[OutsideFiles]:
        """Paths of the outside files, and their content hashes."""
        ...

    def device_copy(self, device: str) -> Path:
        """Path of the copy of a device's definition."""
        ...


def named_files(config: ExperimentConfig) -> dict[str, str]:
    """Maps each setting that names a file of weights or records to the name of this file."""
    teacher, labels = config.train.teacher, config.label.records
    records = config.search.evaluator.records
    found = {
        _START: config.supernet.init,
        "train.teacher.weights": None if teacher is None else str(teacher.weights),
        "label.records": None if labels is None else str(labels),
        "search.evaluator.records": None if records is None else str(records),
    }
    return {setting: given for setting, given in found.items() if given is not None}


def table_setting(device: str) -> str:
    """The setting that names the table of a device of which only the table is known."""
    return f"devices/{device}/table"


@dataclass(frozen=True)
class Outside:
    """The files that a configuration names.

    record_file: the record of the run.
    copy_of: path of the copy of a device's definition.
    beside: folders in which a relative path is searched for last.
    changed: settings that this command sets, whose paths are relative to the working directory;
        None: all.
    as_recorded: whether the copies of devices have priority.
    read_only: whether an unreadable file gives a note instead of an error.
    first: record of the first round, if this run is a second training round.
    """

    config: ExperimentConfig
    record_file: RecordFile[OutsideFiles]
    copy_of: Callable[[str], Path]
    beside: tuple[Path, ...] = ()
    changed: tuple[str, ...] | None = None
    as_recorded: bool = False
    read_only: bool = False
    first: OutsideOf | None = None
    _hashes: dict[Path, str] = field(default_factory=dict, compare=False)

    @cached_property
    def _files(self) -> dict[tuple[str, str], OutsideFile]:
        """Recorded files, by setting and given name."""
        files = [self.record_file] if self.first is None else [self.first.outside, self.record_file]
        records = [file.read_if_there() or OutsideFiles() for file in files]
        return {(f.setting, f.given): f for record in records for f in record.files}

    def _copy(self, name: str) -> Path | None:
        """The copy of a device's definition in the run folder; None if there is none."""
        copies = [self.copy_of] if self.first is None else [self.copy_of, self.first.device_copy]
        found = [copy_of(name) for copy_of in copies] if DEVICE_NAME.fullmatch(name) else []
        return next((path for path in found if path.is_file()), None)

    # --- files that a setting names ---------------------------------------------------------------

    @cached_property
    def _named(self) -> dict[str, str]:
        """The files of `named_files`, and the tables of devices that have only a table."""
        found = named_files(self.config)
        for path, folder in zip(self.devices, self.device_folders, strict=True):
            transport = load_transport(str(path), beside=folder)
            if isinstance(transport, TableTransport):
                found[table_setting(path.stem)] = str(transport.table)
        return found

    def path(self, setting: str) -> Path:
        """Absolute path of the file of a setting; its expected path if the file is gone."""
        return self._find(setting, self._named[setting])

    @property
    def start(self) -> Path | str | None:
        """The starting weights of the supernet: a file, or a name for `pretrained_named`."""
        given = self.config.supernet.init
        return self.path(_START) if given is not None and is_file(given) else given

    def paths(self, *settings: str) -> dict[str, Path]:
        """Maps each of the `settings` that names a file to the path of this file."""
        return {setting: self.path(setting) for setting in settings if setting in self._named}

    def sha256(self, setting: str) -> str | None:
        """Hash of a file's content; the recorded hash if the file is gone.

        None if the setting names no file, or a file that never existed.
        """
        given = self._named.get(setting)
        if given is None:
            return None
        path, known = self._find(setting, given), self._files.get((setting, given))
        if path.is_file():
            return self._hash(path)
        return None if known is None else known.sha256

    def _find(self, setting: str, given: str) -> Path:
        if setting == _START and not is_file(given):
            return file_of(given) or Path(given)
        here, known = Path(given), self._files.get((setting, given))
        with contextlib.suppress(UserError):  # without a home, the file counts as missing
            here = user_path(given, where=setting)
        places = [here]
        if known is not None:
            places.insert(1 if self._is_named_now(setting) else 0, Path(known.path))
        places += [folder / here for folder in self.beside]
        return next((place for place in places if place.is_file()), places[0]).absolute()

    def _is_named_now(self, setting: str) -> bool:
        if self.changed is None:
            return True
        section = setting.partition("/")[0]
        return any(f"{section}.".startswith(f"{path}.") for path in self.changed) or any(
            path.startswith(f"{section}.") for path in self.changed
        )

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = file_hash(path)
        return self._hashes[path]

    # --- devices ----------------------------------------------------------------------------------

    @cached_property
    def _devices(self) -> tuple[tuple[Path, str], ...]:
        return tuple(map(self._device, self.config.devices))

    @property
    def devices(self) -> tuple[Path, ...]:
        """The definition of every configured device: its file, or the copy in the run folder.

        Raises:
            UserError: no such device, its file is gone and there is no copy, or it is invalid.
        """
        return tuple(path for path, _ in self._devices)

    @property
    def device_folders(self) -> tuple[Path, ...]:
        """Per configured device, the folder to which relative paths in its definition refer.

        It is the folder of the original file, even if the copy is used.
        """
        return tuple(
            self._folder(given, path)
            for given, path in zip(self.config.devices, self.devices, strict=True)
        )

    def _folder(self, given: str, path: Path) -> Path:
        name = _name(given)
        known = self._files.get((f"devices/{name}", given))
        is_copy = path == self._copy(name)
        return Path(known.path).parent if known is not None and is_copy else path.parent

    @property
    def notes(self) -> tuple[str, ...]:
        """Changes of the devices since the run last used them."""
        return tuple(note for _, note in self._devices if note)

    def _device(self, given: str) -> tuple[Path, str]:
        """The definition to use, and a note if it differs from the last used one."""
        name = _name(given)
        if (copy := self._copy(name)) is None:
            return device_file(str(self._source(given) or given)), ""
        if self.as_recorded:
            return copy, ""
        source = self._source(given)
        if source is None:
            why = f"the file {given} does not exist, so the copy in the run folder is used"
            fix = "if the file was moved, give its new place: --set 'devices=[PATH]'"
            return copy, f"device {name}: {why}; {fix}"
        try:
            before, now = device_settings(copy), device_settings(source)
        except UserError as error:
            if not self.read_only:
                raise
            why = f"{copy} and {source} cannot be compared, so the former is used"
            return copy, f"device {name}: {why}: {error}"
        changes = [
            f"{key} from {in_words(before.get(key))} to {in_words(now.get(key))}"
            for key in before | now
            if before.get(key) != now.get(key)
        ]
        if not changes:
            return source, ""
        if self._is_as_used(name, given, source):
            altered = f"the run's copy {copy} was changed ({', '.join(changes)})"
            return source, f"device {name}: {altered}; the unchanged file {source} is used"
        changed = f"changed since the run last used it: {', '.join(changes)}"
        return source, f"device {name}: {source} {changed}; earlier measurements are stale"

    def _is_as_used(self, name: str, given: str, source: Path) -> bool:
        """Whether the file of a device matches the record; False if there is no record."""
        now = copy_fact(name, source.read_text(encoding="utf-8"))
        if (copied := self._files.get((now.setting, now.given))) is not None:
            return copied.sha256 == now.sha256
        known = self._files.get((f"devices/{name}", given))
        return known is not None and known.sha256 == self._hash(source)

    def _source(self, given: str) -> Path | None:
        """The file that a device name refers to; None if there is none."""
        if _is_path(given):
            path = self._find(f"devices/{_name(given)}", given)
            return path if path.is_file() else None
        try:
            return device_file(given)
        except UserError:  # shipped by another version
            return None

    # --- records of the run -----------------------------------------------------------------------

    def texts(self) -> dict[Path, str]:
        """Maps each file of the run folder that records outside files to its new content.

        Records of files that are gone do not change.
        """
        files, found = dict(self._files), {}
        for key, one in self._files.items():
            if (device := copied_device(one)) and not self.copy_of(device).is_file():
                del files[key]

        def note(setting: str, given: str, path: Path) -> None:
            fact = OutsideFile(setting, given, str(path), self._hash(path))
            files[setting, given] = fact

        for given, path in zip(self.config.devices, self.devices, strict=True):
            copy = self.copy_of(name := _name(given))
            if path != copy:
                found[copy] = path.read_text(encoding="utf-8")
                fact = copy_fact(name, found[copy])
                files[fact.setting, fact.given] = fact
                if _is_path(given) and path != self._copy(name):
                    note(f"devices/{name}", given, path)
        for setting, given in self._named.items():
            if (path := self.path(setting)).is_file():
                note(setting, given, path)
        if files:
            record = OutsideFiles(tuple(files.values()))
            found[self.record_file.path] = self.record_file.text(record)
        return found


def _is_path(given: str) -> bool:
    return given.endswith((".yaml", ".yml"))


def _name(given: str) -> str:
    return Path(given).stem if _is_path(given) else given
