"""The folder of one search, and the settings files: paths and reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hwnas.controller.archive import FILES, Archive
from hwnas.controller.remeasure import Remeasurement
from hwnas.controller.result import Candidate, SearchResult
from hwnas.controller.storage import STATE
from hwnas.core.env import Host
from hwnas.core.records import RecordFile, dump
from hwnas.core.rundir import RunDir
from hwnas.core.store import write_json
from hwnas.measure.references.timing import RunReferences, TrainedReference
from hwnas.spaces.space import SearchSpace

__all__ = ["BASELINE", "REMADE", "ReferenceFiles", "SearchFiles", "SettingsFiles"]

BASELINE = "random"  # folder of the baseline inside the folder of the search
ROUNDS = "rounds"
REMADE = tuple(f"{part}{name}" for part in ("", "*/") for name in (*FILES, STATE, "fronts/*"))
"""Files that a search can rebuild from the journal and the timings."""

VERSION = {"schema_version": 1}


@dataclass(frozen=True)
class SearchFiles:
    """The folder of one search: for its main target, for another device, or the baseline."""

    folder: Path

    @property
    def owned(self) -> tuple[Path, ...]:
        """All paths that stage `search` writes in the folder of the main search."""
        parts = (STATE, "fronts", "rounds", "stages", "closing", "devices", BASELINE)
        files = (self.result.path, self.remeasurement.path)
        return (*(self.folder / name for name in (*FILES, *parts)), *files)

    @property
    def result(self) -> RecordFile[SearchResult]:
        """Winner, best archs and fronts."""
        return RecordFile(self.folder / "result.json", SearchResult)

    @property
    def remeasurement(self) -> RecordFile[Remeasurement]:
        """Outcome of the re-measurement on the devices; there is no file without re-measurement."""
        return RecordFile(self.folder / "closing.json", Remeasurement)

    def round(self, number: int) -> Path:
        """Folder of the archive of one round of search and re-measurement."""
        return self.folder if number == 0 else self.folder / "rounds" / str(number)

    def part(self, number: int, stage: int, *, of: int) -> Path:
        """Folder of the archive of one of `search.stages` in a round; the last uses `round`."""
        folder = self.round(number)
        return folder if stage + 1 >= of else folder / "stages" / str(stage)

    def timings(self, device: str, number: int) -> Path:
        """Folder in which the kit journals the timings of a round."""
        return self.folder / "closing" / f"{number}-{device}"

    def archive(self, space: SearchSpace) -> Archive:
        """The archive of the last round: all archs that were priced, predicted or evaluated."""
        found = self.remeasurement.read_if_there()
        return Archive.load(self.round(found.n_rounds - 1 if found else 0), space)

    def write_fronts(self, fronts: Mapping[str, tuple[Candidate, ...]]) -> None:
        """Writes the front of each metric to a file of its own."""
        for key, front in fronts.items():
            rows = [dump(candidate, versioned=False) for candidate in front]
            write_json(
                self.folder / "fronts" / f"{key.replace('@', '-')}.json", VERSION | {"front": rows}
            )


@dataclass(frozen=True)
class ReferenceFiles:
    """The folder of the reference networks of one search."""

    folder: Path

    @property
    def results(self) -> RecordFile[RunReferences]:
        """Latencies on every device, and accuracies of the trained networks."""
        return RecordFile(self.folder / "results.json", RunReferences)

    def timings(self, device: str) -> Path:
        """Folder in which the kit journals the timings on a device."""
        return self.folder / "timings" / device

    def trained(self, name: str) -> RecordFile[TrainedReference]:
        """The accuracy of a trained network."""
        return RecordFile(self.folder / "trained" / f"{name}.json", TrainedReference)

    def weights(self, name: str) -> Path:
        """Weights of a trained network (safetensors)."""
        return self.folder / "trained" / f"{name}.safetensors"

    def steps(self, name: str) -> Path:
        """Folder of the checkpoints of one training."""
        return self.folder / "trained" / "steps" / name


@dataclass(frozen=True)
class SettingsFiles:
    """Files of a run folder that store its settings."""

    run: RunDir

    @property
    def config(self) -> Path:
        """The configuration, as last used."""
        return self.run.path("config.yaml")

    @property
    def environment(self) -> RecordFile[Host]:
        """Record of the host and of the versions of packages."""
        return RecordFile(self.run.path("env.json"), Host, is_sealed=True)

    @property
    def data_file(self) -> Path:
        """Record of the data that the stages read."""
        return self.run.path("data.json")

    def of_search(self, name: str) -> Path:
        """File with the sections of the configuration that belong to one search."""
        return self.run.path("search", name, "config.yaml")

    def is_config(self, path: Path) -> bool:
        """Whether a file of the run folder is a stored configuration, which has its own hash."""
        is_round = path.suffix == ".yaml" and path.parent.name == ROUNDS
        return is_round or path.name == self.config.name

    def training_round(self, name: str) -> tuple[Path, Path]:
        """Paths of the configuration and of the run folder of a second training round."""
        return self.run.path(ROUNDS, f"{name}.yaml"), self.run.path(ROUNDS, name)

    @property
    def around(self) -> RunDir | None:
        """The run folder of the first round, if this is a second training round; else None."""
        rounds = self.run.root.absolute().parent
        first = RunDir(rounds.parent)
        is_round = rounds.name == ROUNDS and SettingsFiles(first).config.is_file()
        return first if is_round else None

    def bundles_of(self, search: str) -> Path:
        """Folder of the bundles of a search, one bundle per device."""
        return self.run.path("bundles", search)

    def search_of_bundle(self, bundle: Path) -> str | None:
        """The search whose bundles are in a folder; None if there is none."""
        parent = bundle.parent
        return parent.name if parent.parent == self.run.root / "bundles" else None
