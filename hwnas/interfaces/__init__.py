"""The shared records and Protocols: the package to read first.

    SearchSpace -> Arch -> lower() -> OpSpecs -> LatencyTable -> LatencyEstimator  (how fast)
                                         |-----> Supernet -> Evaluator             (how accurate)
                                         '-----> graph -> AccuracyPredictor        (prediction)
    Searcher proposes codes, the controller prices and scores them, the Archive keeps them.

`records` and `models` hold data, `protocols` what objects promise, `modules` what the file of a
variant holds.
Batches of archs travel as codes, int16 [n, d] (`SearchSpace.codes`); single ones as `Arch`.
Latencies are milliseconds, accuracies fractions in [0, 1], sizes bytes.
"""

from hwnas.interfaces.models import EightBits, Images, ModelFile, OpenModel, RunsOn
from hwnas.interfaces.modules import (
    ArchivedDataset,
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
    ReachedTransport,
    Searcher,
    Transport,
    TryingTransport,
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

__all__ = [
    "AccuracyPredictor",
    "ArchSampler",
    "ArchivedDataset",
    "Column",
    "Constraint",
    "CostMetric",
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
