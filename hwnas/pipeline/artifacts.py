"""Every file of a run folder: its path, and how it is read and written.

Stages never import each other; they read the results of other stages here. A file with one record
of hwnas is a `RecordFile`. Files in other formats (weights, archives, journals of the device kit)
are paths. `search_files.py` has the folder of one search. `core/rundir.py` has the ledger, the
journal and the metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from hwnas.core.json_data import parse_json
from hwnas.core.records import STRICT, RecordFile, dump, load
from hwnas.core.store import write_json
from hwnas.interfaces import DataIdentity, DataInfo, Evaluation
from hwnas.latency.table import LatencyTable
from hwnas.nets.origin import metadata_of
from hwnas.pipeline.answers import Answers
from hwnas.pipeline.hits import TestHits
from hwnas.pipeline.outcomes import DataRecord, Exported, Results
from hwnas.pipeline.outside_record import OutsideFiles
from hwnas.pipeline.search_files import BASELINE, ReferenceFiles, SearchFiles, SettingsFiles
from hwnas.pipeline.trained import Roles, Standalone
from hwnas.predictors.blend import Blend
from hwnas.predictors.evaluate import PredictorReport
from hwnas.predictors.readers.hwnas import read_labels
from hwnas.spaces.arch import Arch

__all__ = ["Artifacts", "Exports", "Roles", "SearchFiles", "data_of_weights"]

VERSION = {"schema_version": 1}


@dataclass(frozen=True)
class Exports:
    """Maps each arch key to its exported formats. `data`: digest of the training data."""

    __pydantic_config__: ClassVar[Any] = STRICT

    exports: dict[str, tuple[Exported, ...]]
    data: str = ""


@dataclass(frozen=True)
class Artifacts(SettingsFiles):
    """The files of a run folder; `search` is the name of the search."""

    search: str = "main"

    def pattern(self, path: Path) -> str:
        """Converts a path or wildcard pattern to the form in the ledger: relative to the folder."""
        return str(path.relative_to(self.run.root))

    # --- the folder itself --------------------------------------------------------------------

    @property
    def report(self) -> Path:
        """The HTML report of the search."""
        suffix = "" if self.search == "main" else f"-{self.search}"
        return self.run.path(f"report{suffix}.html")

    # --- what is outside ----------------------------------------------------------------------

    @property
    def outside(self) -> RecordFile[OutsideFiles]:
        """Files outside the run folder that its settings name."""
        return RecordFile(self.run.path("outside", "files.json"), OutsideFiles, is_sealed=True)

    def device_copy(self, device: str) -> Path:
        """The run folder's copy of a device definition."""
        return self.run.path("outside", "devices", f"{device}.yaml")

    # --- data ---------------------------------------------------------------------------------

    @property
    def data(self) -> RecordFile[DataRecord]:
        """Record of the data that the stages read."""
        return RecordFile(self.data_file, DataRecord, is_sealed=True)

    def data_files(self, digest: str) -> RecordFile[DataIdentity]:
        """The files of one data set, with their content hashes."""
        path = self.run.path("identities", f"{digest}.json")
        return RecordFile(path, DataIdentity, is_sealed=True)

    def data_of_weights(self) -> DataInfo | None:
        """Facts about the data, from the supernet's weights; None if there are no weights.

        Run folders of earlier versions have no other record of their data.
        """
        return data_of_weights(self.supernet) if self.supernet.is_file() else None

    # --- tables -------------------------------------------------------------------------------

    def table(self, device: str) -> Path:
        """Latency table of a device."""
        return self.run.path("tables", f"{device}.json")

    def samples(self, device: str) -> Path:
        """Folder in which the kit journals the timings for a device's table."""
        return self.run.path("tables", device)

    def read_table(self, device: str) -> LatencyTable:
        """Reads the latency table of a device."""
        return LatencyTable.load(self.table(device))

    # --- supernet -----------------------------------------------------------------------------

    @property
    def supernet(self) -> Path:
        """Weights of the trained supernet (safetensors)."""
        return self.run.path("checkpoints", "supernet.safetensors")

    @property
    def training_steps(self) -> Path:
        """Folder of the checkpoints from which an interrupted training resumes."""
        return self.run.path("checkpoints", "steps")

    @property
    def tensorboard(self) -> Path:
        """Folder of event files for TensorBoard."""
        return self.run.path("tensorboard")

    # --- labels -------------------------------------------------------------------------------

    def labels(self, source: str = "supernet") -> Path:
        """Labels from a source, `supernet` or `trained`."""
        return self.run.path("labels", f"{source}.json")

    @property
    def label_steps(self) -> Path:
        """Folder of the checkpoints of stand-alone trainings for labels."""
        return self.run.path("labels", "steps")

    def read_labels(self, source: str = "supernet") -> list[Evaluation]:
        """Reads the labels of stage `label` (or `label/trained`)."""
        return read_labels(self.run.made(self.labels(source), "label"))

    def write_labels(self, source: str, evaluations: list[Evaluation], *, data: str) -> None:
        """Replaces the labels from a source. `data`: digest of the images used for scoring.

        The correctly classified images of each arch are stored in the journal only.
        """
        rows = [dump(replace(one, hits=""), versioned=False) for one in evaluations]
        write_json(self.labels(source), VERSION | {"data": data, "labels": rows})

    # --- predictor ----------------------------------------------------------------------------

    @property
    def predictor(self) -> Path:
        """State of the fitted predictor (safetensors)."""
        return self.run.path("predictor", "model.safetensors")

    @property
    def predictor_report(self) -> RecordFile[PredictorReport]:
        """Report of the predictor on held-out labels."""
        return RecordFile(self.run.path("predictor", "report.json"), PredictorReport)

    @property
    def blend(self) -> RecordFile[Blend]:
        """Parameters of the blend of supernet score and prediction."""
        return RecordFile(self.run.path("predictor", "blend.json"), Blend)

    @property
    def score_table(self) -> Path:
        """Lookup table of the predictions of a (sub)space."""
        return self.run.path("predictor", "lut.safetensors")

    # --- search -------------------------------------------------------------------------------

    def _in_search(self, *parts: str) -> Path:
        return self.run.path("search", self.search, *parts)

    @property
    def main_search(self) -> SearchFiles:
        """Files of the main search: for all devices or, with `per_device`, for the first one."""
        return SearchFiles(self._in_search())

    @property
    def baseline(self) -> SearchFiles:
        """Files of the random search, which has the same budgets as the main search."""
        return SearchFiles(self._in_search(BASELINE))

    def device_search(self, device: str) -> SearchFiles:
        """Files of the separate search for a further device."""
        return SearchFiles(self._in_search("devices", device))

    @property
    def references(self) -> ReferenceFiles:
        """Files about the published networks that are timed together with the winner."""
        return ReferenceFiles(self._in_search("references"))

    # --- networks -----------------------------------------------------------------------------

    @property
    def finetuned(self) -> Path:
        """Folder of the fine-tuned networks."""
        return self._in_search("finetuned")

    def network(self, arch: Arch) -> Path:
        """Fine-tuned weights of an arch (safetensors)."""
        return self.finetuned / f"{arch.key}.safetensors"

    def network_steps(self, arch: Arch) -> Path:
        """Folder of the checkpoints of one fine-tuning."""
        return self.finetuned / "steps" / arch.key

    @property
    def roles(self) -> Path:
        """File with the arch of each role (`winner`, `largest`, ...)."""
        return self.finetuned / "networks.json"

    def read_roles(self) -> dict[str, Arch]:
        """Reads `roles`; maps each role to its arch."""
        return RecordFile(self.roles, Roles).read().networks

    def write_roles(self, roles: Mapping[str, Arch]) -> None:
        """Replaces the contents of `roles`, which map each role to its arch."""
        RecordFile(self.roles, Roles).write(Roles(dict(roles)))

    def standalone(self, arch: Arch) -> RecordFile[Standalone]:
        """Result of training an arch of the search stand-alone."""
        return RecordFile(self.finetuned / "alone" / f"{arch.key}.json", Standalone)

    @property
    def standalone_steps(self) -> Path:
        """Folder of the checkpoints of stand-alone trainings."""
        return self.finetuned / "alone" / "steps"

    # --- export and verification --------------------------------------------------------------

    @property
    def exported(self) -> Path:
        """Folder of the exported networks."""
        return self._in_search("export")

    def exported_network(self, arch: Arch) -> Path:
        """Folder of the files of one network."""
        return self.exported / arch.key

    @property
    def exports(self) -> Path:
        """List of the files that stage `export` wrote."""
        return self.exported / "exports.json"

    def read_exports(self) -> dict[str, tuple[Exported, ...]]:
        """Maps each arch key to its exported formats, ONNX first."""
        return RecordFile(self.exports, Exports).read().exports

    def write_exports(self, found: Mapping[str, list[Exported]], *, data: str) -> None:
        """Replaces the list of exported formats. `data`: digest of the training data."""
        exports = {key: tuple(formats) for key, formats in found.items()}
        RecordFile(self.exports, Exports).write(Exports(exports, data))

    @property
    def verification(self) -> Path:
        """Folder of stage `verify`."""
        return self._in_search("verify")

    @property
    def results(self) -> RecordFile[Results]:
        """The result table and the checks."""
        return RecordFile(self.verification / "results.json", Results)

    @property
    def answers(self) -> RecordFile[Answers]:
        """Predictions of the devices' networks on the test images."""
        return RecordFile(self.verification / "answers.json", Answers)

    @property
    def test_hits(self) -> RecordFile[TestHits]:
        """Correctly classified test images of every network; earlier versions stored none."""
        return RecordFile(self.verification / "hits.json", TestHits)

    @property
    def bundles(self) -> Path:
        """Folder with the bundles of the search."""
        return self.bundles_of(self.search)

    def bundle(self, device: str) -> Path:
        """The bundle of a device."""
        return self.bundles / device


def data_of_weights(path: Path) -> DataInfo | None:
    """Facts about the data on which the weights in a file were trained; None if not recorded.

    Raises:
        UserError: the record cannot be read.
    """
    problem = "cannot read the facts about the data in a file of weights"
    facts = parse_json(metadata_of(path).get("hwnas", "{}"), where=path, problem=problem)
    found = facts.get("data") if isinstance(facts, dict) else None
    return None if found is None else load(DataInfo, found, where=path, versioned=False)
