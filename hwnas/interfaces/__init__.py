"""The shared records and Protocols: the package to read first.

    SearchSpace -> Arch -> lower() -> OpSpecs -> LatencyTable -> LatencyEstimator  (latency)
                                         |-----> Supernet -> Evaluator             (accuracy)
                                         '-----> graph -> AccuracyPredictor        (prediction)
    Searcher proposes codes, the controller prices and scores them, the Archive stores them.

`records` and `models` define data, `protocols` and `transports` the interfaces of objects,
`modules` the contents of variant modules. Batches of archs are codes, int16 [n, d]
(`SearchSpace.codes`); a single arch is an `Arch`. Latencies are in milliseconds, accuracies are
fractions in [0, 1], sizes are in bytes.
"""

from hwnas.interfaces.acquisitions import Acquisition, AcquisitionModule, Prospects
from hwnas.interfaces.models import EightBits, Images, ModelFile, OpenModel, RunsOn
from hwnas.interfaces.modules import (
    ArchivedDataset,
    CutDataset,
    DataPlan,
    DatasetContext,
    DatasetModule,
    ExporterModule,
    IdentifiedDataset,
    PlannedDataset,
    PredictorContext,
    PredictorModule,
    ProxyContext,
    ProxyModule,
    ReaderModule,
    SamplerContext,
    SamplerModule,
    SearcherContext,
    SearcherModule,
    SpaceModule,
    TransportModule,
    VariantModule,
)
from hwnas.interfaces.protocols import (
    AccuracyPredictor,
    ArchSampler,
    CostMetric,
    DataModule,
    Evaluator,
    Exporter,
    LatencyEstimator,
    LearningSampler,
    NamedImages,
    Proxy,
    Searcher,
)
from hwnas.interfaces.records import (
    Column,
    Constraint,
    DataIdentity,
    DataInfo,
    DeviceSpec,
    Evaluation,
    FloatArray,
    Metric,
    Reader,
    Slot,
    Split,
    Table,
)
from hwnas.interfaces.transports import (
    CleaningTransport,
    ReachedTransport,
    Transport,
    TryingTransport,
)

__all__ = [
    "AccuracyPredictor",
    "Acquisition",
    "AcquisitionModule",
    "ArchSampler",
    "ArchivedDataset",
    "CleaningTransport",
    "Column",
    "Constraint",
    "CostMetric",
    "CutDataset",
    "DataIdentity",
    "DataInfo",
    "DataModule",
    "DataPlan",
    "DatasetContext",
    "DatasetModule",
    "DeviceSpec",
    "EightBits",
    "Evaluation",
    "Evaluator",
    "Exporter",
    "ExporterModule",
    "FloatArray",
    "IdentifiedDataset",
    "Images",
    "LatencyEstimator",
    "LearningSampler",
    "Metric",
    "ModelFile",
    "NamedImages",
    "OpenModel",
    "PlannedDataset",
    "PredictorContext",
    "PredictorModule",
    "Prospects",
    "Proxy",
    "ProxyContext",
    "ProxyModule",
    "ReachedTransport",
    "Reader",
    "ReaderModule",
    "RunsOn",
    "SamplerContext",
    "SamplerModule",
    "Searcher",
    "SearcherContext",
    "SearcherModule",
    "Slot",
    "SpaceModule",
    "Split",
    "Table",
    "Transport",
    "TransportModule",
    "TryingTransport",
    "VariantModule",
]
